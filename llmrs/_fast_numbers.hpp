// A JSON array of numbers to float32: the upstream answer's side of _fast_float.hpp.
//
// Knows nothing of Python. What is in the text is not trusted, and nothing beyond its end is read.
// It reads what backends write and hands everything else back unread: a slower parser then decides
// what it means, or that it is wrong.
//
// Grammar: exactly JSON's numbers, `null` (which is how some servers write NaN) and white space.
// Result: what a correctly rounding parser gives that goes through double, `(float)strtod(text)`.
// One multiplication by a power of ten gives 64 bits, of which float32 takes 24, so nearly always
// the others say beyond doubt which way to round; this is the common half of Eisel-Lemire. Where
// they do not, and where the result is no normal float32, the number is handed back.
// Speed: a number in an embedding has eight or seventeen digits, after some zeros. They are taken
// eight at a time, without a branch on how many of the last eight there are.

#pragma once

#include <cstdint>
#include <cstring>

#include "_fast_common.hpp"
#include "_fast_powers.hpp"

namespace llmrs {

constexpr uint64_t kTens[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

// Below 10^19 / 10^n, n more digits fit into 64 bits. Digits left out weigh less than one in 10^18.
constexpr uint64_t kMost = 10000000000000000000u;
constexpr uint64_t kRoom[] = {kMost,          kMost / 10,      kMost / 100,      kMost / 1000, kMost / 10000,
                              kMost / 100000, kMost / 1000000, kMost / 10000000, kMost / 100000000};

// A decimal, digits * 10^exponent; `digits` lacks less than 1 where there were too many of them.
struct Decimal {
    uint64_t digits = 0;
    int64_t exponent = 0;
};

LLMRS_INLINE bool is_digit(char c) { return static_cast<uint8_t>(c - '0') < 10; }

LLMRS_INLINE bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

LLMRS_INLINE void take_digit(Decimal& decimal, char c, int64_t scale) {
    if (decimal.digits < kMost / 10) {
        decimal.digits = 10 * decimal.digits + static_cast<uint64_t>(c - '0');
        decimal.exponent -= scale;
    } else {
        decimal.exponent += 1 - scale;
    }
}

// The number that eight digits are, one a byte, the first one lowest.
LLMRS_INLINE uint64_t join_digits(uint64_t ones) {
    const uint64_t twos = (ones * (1 + (10 << 8))) >> 8 & 0x00FF00FF00FF00FF;
    const uint64_t fours = (twos * (1 + (100 << 16))) >> 16 & 0x0000FFFF0000FFFF;
    return (fours * (1 + (uint64_t{10000} << 32))) >> 32;
}

// The digits after the point. Text ends in a byte that is no digit, as everywhere below.
LLMRS_INLINE const char* read_fraction(Decimal& decimal, const char* text, const char* end) {
    while (end - text >= 8) {
        uint64_t ones;
        memcpy(&ones, text, 8);
        ones ^= 0x3030303030303030;
        // The highest bit of every byte that is not 0 to 9; only bytes above one may have it wrongly.
        const uint64_t others = ((ones + 0x7676767676767676) | ones) & 0x8080808080808080;
        if (others == 0) {
            if (decimal.digits >= kRoom[8]) break;
            decimal.digits = decimal.digits * kTens[8] + join_digits(ones);
            decimal.exponent -= 8;
            text += 8;
            continue;
        }
        const int count = __builtin_ctzll(others) / 8;
        if (decimal.digits >= kRoom[count]) break;
        // Digits that the number does not have become zeros before it. Twice, for a shift of 64 is none.
        ones = ones << (4 * (8 - count)) << (4 * (8 - count));
        decimal.digits = decimal.digits * kTens[count] + join_digits(ones);
        decimal.exponent -= count;
        return text + count;
    }
    for (; is_digit(*text); ++text) take_digit(decimal, *text, 1);
    return text;
}

// A JSON number without its sign. Null if there is none.
LLMRS_INLINE const char* read_decimal(Decimal& decimal, const char* text, const char* end) {
    if (!is_digit(*text)) return nullptr;
    if (*text == '0') {
        if (is_digit(*++text)) return nullptr;
    } else {
        for (; is_digit(*text); ++text) take_digit(decimal, *text, 0);
    }
    if (*text == '.') {
        const char* start = ++text;
        text = read_fraction(decimal, text, end);
        if (text == start) return nullptr;
    }
    if (*text == 'e' || *text == 'E') {
        const bool negative = *++text == '-';
        text += negative || *text == '+';
        if (!is_digit(*text)) return nullptr;
        int64_t exponent = 0;
        for (; is_digit(*text); ++text) {
            if (exponent < 100000) exponent = 10 * exponent + (*text - '0');
        }
        decimal.exponent += negative ? -exponent : exponent;
    }
    return text;
}

// The bits of the float32 that a decimal above zero rounds to, by way of double; 0 if that is not
// plain to see.
//
// `high`, the value to 64 bits, is wrong by less than 32: by the rounded-up power 2, by digits left
// out 2^64 / 10^18. The way of double changes the result if the value is within 2^10 of the middle
// between two float32. So whatever is not within 2^11 of it is rounded right.
LLMRS_INLINE uint32_t round_decimal(const Decimal& decimal) {
    if (decimal.exponent < kMinPower || decimal.exponent > kMaxPower) return 0;
    const int exponent = static_cast<int>(decimal.exponent);
    const int zeros = __builtin_clzll(decimal.digits);
    const unsigned __int128 product =
        static_cast<unsigned __int128>(decimal.digits << zeros) * powers_of_ten[exponent - kMinPower];
    uint64_t high = static_cast<uint64_t>(product >> 64);
    const int below = static_cast<int>(~high >> 63);  // 1 if the product has one bit fewer
    high <<= below;

    // floor(log2(10^exponent)) + 63 - zeros, and one more if the product has all its bits.
    const int biased = ((exponent * 1741647) >> 19) + 64 - zeros - below + 127;
    const uint64_t half = uint64_t{1} << 39;
    const uint64_t rest = high & (2 * half - 1);
    if (biased < 1 || rest - half + 2048 <= 4096) return 0;
    // The significand's highest bit adds one to the exponent; rounding up may carry into it too.
    const uint64_t bits = (static_cast<uint64_t>(biased - 1) << 23) + (high >> 40) + (rest > half);
    return bits < 0x7F800000 ? static_cast<uint32_t>(bits) : 0;
}

// A number or null. Null if it is neither, or has to be handed back.
LLMRS_INLINE const char* read_number(float* out, const char* text, const char* end) {
    uint32_t bits = 0x7FC00000;
    if (end - text > 4 && memcmp(text, "null", 4) == 0) {
        text += 4;
    } else {
        const uint32_t negative = *text == '-';
        Decimal decimal;
        text = read_decimal(decimal, text + negative, end);
        if (text == nullptr) return nullptr;
        bits = 0;
        if (decimal.digits != 0) {
            bits = round_decimal(decimal);
            if (bits == 0) return nullptr;
        }
        bits |= negative << 31;
    }
    memcpy(out, &bits, 4);
    return text;
}

LLMRS_INLINE const char* skip_space(const char* text) {
    while (*text <= ' ' && is_space(*text)) ++text;
    return text;
}

// Reads an array of exactly `length` numbers, at least one, that takes up the whole text from its
// bracket to the other. False if it is anything else, or has to be handed back.
LLMRS_INLINE bool read_floats_body(float* out, const char* text, const char* end, int64_t length) {
    // This last byte stops every loop: it is neither a digit nor white space.
    if (end - text < 3 || *text != '[' || end[-1] != ']') return false;
    text = skip_space(text + 1);
    for (int64_t i = 0; i < length; ++i) {
        text = read_number(out + i, text, end);
        if (text == nullptr) return false;
        text = skip_space(text);
        if (i + 1 < length) {
            if (*text != ',') return false;
            text = skip_space(text + 1);
        }
    }
    return text == end - 1;
}

// How many numbers an array of numbers has, by its commas; 1 if there is nothing in it.
inline int64_t floats_length(const char* text, const char* end) {
    int64_t commas = 0;
    for (; text < end; ++text) commas += *text == ',';
    return commas + 1;
}

}  // namespace llmrs

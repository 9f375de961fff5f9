// Shortest decimal text of float32 values that reads back as the same float32.
//
// Knows nothing of Python or JSON bodies. The algorithm is Schubfach (Raffaello Giulietti, "The
// Schubfach way to render doubles", 2020) for binary32: among the decimals that round to the value,
// those with the fewest digits, and of these the nearest. std::to_chars finds the same digits but
// takes five times as long, which would make the float form slower than its peers. It is the oracle
// of bench/exhaustive_floats.cpp, over every positive float32; the tests compare with NumPy.
//
// Values are taken in blocks, in steps. The steps up to the last are loops of branch-free 32-bit
// arithmetic over arrays, which compilers turn into vector instructions: hence comparisons by
// subtraction and selections by masks. The last step places the characters of one value after the
// other, and has no data-dependent branch in the usual case, 1e-3 <= |x| < 1: in an embedding the
// sign, the digit count and the leading zeros are random, and a branch that the CPU guesses wrong
// costs as much as all of the arithmetic.
//
// The text is a JSON number that every parser reads as a fraction: `1.0`, `-0.0123`, `1.5e-7`. It is
// never longer than what NumPy prints.

#pragma once

#include <cstdint>
#include <cstring>

#include "_fast_common.hpp"
#include "_fast_powers.hpp"

namespace llmrs {

// Longest text with its comma, "-1.23456789e-38,", and how far beyond its end a write may touch.
constexpr int64_t kFloatText = 16;
constexpr int64_t kFloatSlack = 32;

struct Block {
    static constexpr int kSize = 64;

    uint32_t bits[kSize];            // of the float: sign, biased exponent, fraction
    uint32_t significand[kSize];     // the float is significand * 2^q
    uint32_t closer[kSize];          // 1: its lower neighbour is only half as far away as its upper
    int32_t shift[kSize];            // brings significand and power to the same scale
    uint32_t power_high[kSize];      // the power of ten that scales it to its digits
    uint32_t power_low[kSize];
    uint32_t digits[kSize];          // the float is digits * 10^exponent; later its first digit,
    int32_t exponent[kSize];         // and the exponent that belongs to that one,
    union {                          // and the eight digits after it: as two numbers of four,
        uint32_t fours[2 * kSize];   // then four of two, then one a byte, the first one lowest
        uint16_t twos[4 * kSize];
        uint64_t ones[kSize];
    };
};

// 1 if a < b, else 0; both below 2^31.
LLMRS_INLINE uint32_t less(uint32_t a, uint32_t b) { return (a - b) >> 31; }

LLMRS_INLINE uint32_t multiply_high(uint32_t a, uint32_t b) {
    return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}

// Takes `count` values, up to a block, and fills it up with ones.
LLMRS_INLINE void load(Block& block, const float* vector, int64_t count) {
    memcpy(block.bits, vector, 4 * count);
    for (int64_t i = count; i < Block::kSize; ++i) block.bits[i] = 0x3F800000;
}

// Picks the power of ten that leaves one digit more than the float can hold.
LLMRS_INLINE void find_scale(Block& block) {
    for (int i = 0; i < Block::kSize; ++i) {
        const uint32_t fraction = block.bits[i] & 0x7FFFFF;
        const uint32_t biased = (block.bits[i] >> 23) & 0xFF;
        const uint32_t subnormal = less(biased, 1);
        const int32_t q = static_cast<int32_t>(biased + subnormal) - 150;
        const uint32_t closer = less(fraction, 1) & less(1, biased);
        // floor(log10(2^q)), or floor(log10(3/4 * 2^q)); then q + floor(log2(10^-k)) + 1.
        const int32_t k = (q * 1262611 - static_cast<int32_t>(closer * 524031)) >> 22;
        block.significand[i] = fraction + ((1 - subnormal) << 23);
        block.closer[i] = closer;
        block.exponent[i] = k;
        block.shift[i] = q + ((-k * 1741647) >> 19) + 1;
    }
    for (int i = 0; i < Block::kSize; ++i) {
        const uint64_t power = powers_of_ten[-block.exponent[i] - kMinPower];
        block.power_high[i] = static_cast<uint32_t>(power >> 32);
        block.power_low[i] = static_cast<uint32_t>(power);
    }
}

// power * value / 2^64, its lowest bit set if anything below was lost ("round to odd"): that is
// enough to compare quarters of the last digit. Lost means above 1: the power is rounded up.
LLMRS_INLINE uint32_t scaled(uint32_t power_high, uint32_t power_low, uint32_t value) {
    const uint32_t carried = multiply_high(power_low, value);
    const uint32_t lost = power_high * value + carried;
    const uint32_t carry = lost < carried;
    return (multiply_high(power_high, value) + carry) | less(0, lost >> 1);
}

// Finds the shortest decimal. For zero, infinity and NaN it means nothing, but is found safely.
LLMRS_INLINE void find_shortest(Block& block) {
    for (int i = 0; i < Block::kSize; ++i) {
        const uint32_t c = 4 * block.significand[i];
        const int32_t shift = block.shift[i];
        const uint32_t high = block.power_high[i], low = block.power_low[i];

        // The value in quarters of its last digit, and the ends of the interval that rounds to it.
        // The ends themselves belong to the interval only if the significand is even.
        const uint32_t odd = block.significand[i] & 1;
        const uint32_t middle = scaled(high, low, c << shift);
        const uint32_t lower = scaled(high, low, (c - 2 + block.closer[i]) << shift) + odd;
        const uint32_t upper = scaled(high, low, (c + 2) << shift) - odd;

        // One digit fewer, if exactly one of the two neighbours lies inside.
        const uint32_t s = middle / 4;
        const uint32_t tens = multiply_high(s, 429496730);  // s / 10, for s < 2^30
        const uint32_t tens_down = 1 - less(40 * tens, lower);
        const uint32_t tens_up = 1 - less(upper, 40 * tens + 40);
        const uint32_t fewer = less(9, s) & (tens_down ^ tens_up);

        // Else the only one inside, or the nearest, ties to even.
        const uint32_t down = 1 - less(4 * s, lower);
        const uint32_t up = 1 - less(upper, 4 * s + 4);
        const uint32_t nearest_up = less(4 * s + 2, middle + (s & 1));
        const uint32_t round_up = nearest_up ^ ((nearest_up ^ up) & (down ^ up));

        const uint32_t all = s + round_up;
        const uint32_t cut = tens + tens_up;
        block.digits[i] = all ^ ((all ^ cut) & (0 - fewer));
        block.exponent[i] += static_cast<int32_t>(fewer);
    }
}

// Multiplies by `factor`, 10^places, what is below `limit`.
LLMRS_INLINE void fill(uint32_t& digits, int32_t& exponent, uint32_t limit, uint32_t factor, int places) {
    const uint32_t low = less(digits, limit);
    digits += (0 - low) & (digits * (factor - 1));
    exponent -= static_cast<int32_t>(low) * places;
}

// Splits the decimal into nine single digits: one, and eight.
LLMRS_INLINE void split_digits(Block& block) {
    for (int i = 0; i < Block::kSize; ++i) {
        uint32_t digits = block.digits[i];
        int32_t exponent = block.exponent[i] + 8;
        fill(digits, exponent, 100000, 10000, 4);
        fill(digits, exponent, 10000000, 100, 2);
        fill(digits, exponent, 100000000, 10, 1);
        fill(digits, exponent, 100000000, 10, 1);
        const uint32_t first = multiply_high(digits, 1441151881) >> 25;  // digits / 10^8
        const uint32_t rest = digits - first * 100000000;
        const uint32_t thousands = multiply_high(rest, 3518437209) >> 13;  // rest / 10^4
        block.digits[i] = first;
        block.exponent[i] = exponent;
        block.fours[2 * i] = thousands;
        block.fours[2 * i + 1] = rest - thousands * 10000;
    }
    for (int i = 0; i < 2 * Block::kSize; ++i) {
        const uint32_t four = block.fours[i];
        const uint32_t two = (four * 10486) >> 20;  // four / 100
        block.fours[i] = two | ((four - 100 * two) << 16);
    }
    for (int i = 0; i < 4 * Block::kSize; ++i) {
        const uint16_t two = block.twos[i];
        const uint16_t one = static_cast<uint16_t>(two * 103) >> 10;  // two / 10
        block.twos[i] = static_cast<uint16_t>(one | ((two - 10 * one) << 8));
    }
}

// 1 <= |x| < 10^6: "123.45", or "123.0".
inline char* place_large(char* out, uint64_t tail, int length, int exponent) {
    char text[24] = {};
    memset(text, '0', sizeof text);
    text[0] = *out;
    memcpy(text + 1, &tail, 8);
    const int whole = exponent + 1;
    memcpy(out, text, 9);
    out[whole] = '.';
    memcpy(out + whole + 1, text + whole, 9);
    const int fraction = length + 1 - whole;
    return out + whole + 1 + (fraction > 1 ? fraction : 1);
}

// |x| < 10^-3 or |x| >= 10^6: "1.5e-7".
inline char* place_scientific(char* out, uint64_t tail, int length, int exponent) {
    out[1] = '.';
    memcpy(out + 2, &tail, 8);
    out += length ? length + 2 : 1;
    *out++ = 'e';
    *out = '-';
    out += exponent < 0;
    const int size = exponent < 0 ? -exponent : exponent;
    *out = static_cast<char>('0' + size / 10);
    out += size >= 10;
    *out++ = static_cast<char>('0' + size % 10);
    return out;
}

inline char* place_zero(char* out) {
    memcpy(out, "0.0", 3);
    return out + 3;
}

// Writes the text of the block's i-th value and returns its end.
LLMRS_INLINE char* place(char* out, const Block& block, int64_t i) {
    *out = '-';
    out += block.bits[i] >> 31;
    const int exponent = block.exponent[i];
    const char first = static_cast<char>('0' + block.digits[i]);
    const uint64_t ones = block.ones[i];
    const uint64_t tail = ones | 0x3030303030303030;
    const int length = ones ? 8 - __builtin_clzll(ones) / 8 : 0;  // without the zeros at its end
    if (__builtin_expect(exponent < -3 || exponent >= 0, 0)) {
        if (block.bits[i] << 1 == 0) return place_zero(out);
        *out = first;
        return exponent >= 0 && exponent < 6 ? place_large(out, tail, length, exponent)
                                             : place_scientific(out, tail, length, exponent);
    }
    memcpy(out, "0.000000", 8);
    out += 1 - exponent;
    *out = first;
    memcpy(out + 1, &tail, 8);
    return out + 1 + length;
}

// Writes `length` finite values, each followed by a comma, and returns the end.
LLMRS_INLINE char* write_floats_body(char* out, const float* vector, int64_t length) {
    Block block;
    for (int64_t start = 0; start < length; start += Block::kSize) {
        const int64_t count = length - start < Block::kSize ? length - start : Block::kSize;
        load(block, vector + start, count);
        find_scale(block);
        find_shortest(block);
        split_digits(block);
        for (int64_t i = 0; i < count; ++i) {
            out = place(out, block, i);
            *out++ = ',';
        }
    }
    return out;
}

}  // namespace llmrs

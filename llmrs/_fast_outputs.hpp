// Smaller numbers than float32: half precision, bytes and bits; and their text.
//
// Knows nothing of Python or JSON bodies. Takes numbers that are finite. Everything is plain loops
// without branches, which compilers turn into vector instructions (hence selections by masks, and
// signed integers, which the oldest of these compare); all of it is exact or rounds as IEEE 754 says,
// so that every variant gives the same bytes as NumPy.

#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "_fast_common.hpp"

namespace llmrs {

enum Output : int { kFloat32, kFloat16, kInt8, kUint8, kBinary, kUbinary };

constexpr int32_t kLargestHalf = 0x7BFF;      // 65504
constexpr int32_t kHalfBias = 112 << 23;      // what the exponents of float32 and half differ by
constexpr int32_t kLeastNormal = 113 << 23;   // 2^-14: smaller halves are multiples of 2^-24
constexpr int32_t kSize = 0x7FFFFFFF;         // all but the sign
constexpr int32_t k127 = 0x42FE0000;          // 127 as a float32

LLMRS_INLINE int32_t bits_of(float x) {
    int32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

LLMRS_INLINE float float_of(int32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// One of two values: `a` where `x` is below `bound`.
LLMRS_INLINE int32_t below(int32_t x, int32_t bound, int32_t a, int32_t b) {
    const int32_t mask = (x - bound) >> 31;
    return (a & mask) | (b & ~mask);
}

// The nearest halves, ties to even; false if one of them would be infinity.
//
// Adding 0.5 leaves a small number as the multiple of 2^-24 that it rounds to: that is the distance of
// float32 numbers there. Others lose 13 bits; adding a bit less than half of these carries if it must.
LLMRS_INLINE bool pack_halves(uint16_t* __restrict out, const float* __restrict vector, int64_t length) {
    int32_t excess = 0;
    for (int64_t i = 0; i < length; ++i) {
        const int32_t bits = bits_of(vector[i]);
        const int32_t size = bits & kSize;
        const int32_t small = bits_of(float_of(size) + 0.5f) - bits_of(0.5f);
        const int32_t normal = (size - kHalfBias + 0xFFF + (size >> 13 & 1)) >> 13;
        const int32_t half = below(size, kLeastNormal, small, normal);
        excess |= kLargestHalf - half;
        out[i] = static_cast<uint16_t>(half | (bits >> 16 & 0x8000));
    }
    return excess >= 0;
}

LLMRS_INLINE void unpack_halves(float* __restrict out, const uint16_t* __restrict in, int64_t length) {
    for (int64_t i = 0; i < length; ++i) {
        const int32_t size = in[i] & 0x7FFF;
        const int32_t small = bits_of(static_cast<float>(size) * 0x1p-24f);
        const int32_t normal = (size << 13) + kHalfBias;
        const int32_t sign = static_cast<int32_t>((in[i] & 0x8000u) << 16);
        out[i] = float_of(below(size, 0x400, small, normal) | sign);
    }
}

// x * 127 as an integer from -127 to 127, ties to even; `flip` is added to it (as the highest bit).
//
// The distance of float32 numbers is 1 from 2^23 to 2^24: adding 1.5 * 2^23 rounds to an integer, which
// stands in the lowest byte, negative ones in two's complement.
LLMRS_INLINE void pack_bytes(uint8_t* __restrict out, const float* __restrict vector, int64_t length,
                             uint8_t flip) {
    for (int64_t i = 0; i < length; ++i) {
        const int32_t bits = bits_of(vector[i] * 127.0f);
        const int32_t size = bits & kSize;
        const float scaled = float_of(below(size, k127, size, k127) | (bits & ~kSize));
        out[i] = static_cast<uint8_t>(bits_of(scaled + 0x1.8p23f)) ^ flip;
    }
}

// A bit for each number, 1 where it is above zero, the first one in a byte's highest bit. The product
// brings the lowest bits of eight bytes together in its highest byte, without a carry between them.
LLMRS_INLINE void pack_bits(uint8_t* __restrict out, const float* __restrict vector, int64_t length,
                            uint8_t flip) {
    constexpr int64_t kBlock = 256;
    uint8_t above[kBlock];
    for (int64_t start = 0; start < length; start += kBlock) {
        const int64_t size = length - start < kBlock ? length - start : kBlock;
        for (int64_t i = 0; i < size; ++i) above[i] = vector[start + i] > 0.0f;
        for (int64_t i = 0; i < size; i += 8) {
            uint64_t eight;
            memcpy(&eight, above + i, 8);
            *out++ = static_cast<uint8_t>(eight * 0x8040201008040201u >> 56) ^ flip;
        }
    }
}

// Packs numbers, for bits a multiple of eight of them; false if one does not fit.
LLMRS_INLINE bool pack_body(void* packed, const float* vector, int64_t length, int kind) {
    if (kind == kFloat16) return pack_halves(static_cast<uint16_t*>(packed), vector, length);
    uint8_t* out = static_cast<uint8_t*>(packed);
    const uint8_t flip = kind == kUint8 || kind == kBinary ? 0x80 : 0;
    if (kind == kInt8 || kind == kUint8) pack_bytes(out, vector, length, flip);
    else pack_bits(out, vector, length, flip);
    return true;
}

// How many bytes `length` numbers take, and how many numbers stand in their place in JSON.
inline int64_t packed_size(int64_t length, int kind) {
    if (kind == kFloat32) return 4 * length;
    if (kind == kFloat16) return 2 * length;
    return kind == kInt8 || kind == kUint8 ? length : length / 8;
}

inline int64_t packed_count(int64_t length, int kind) {
    return kind == kBinary || kind == kUbinary ? length / 8 : length;
}

// The text of an integer with its comma, to be copied whole.
struct IntegerText {
    char text[7];
    uint8_t length;
};

constexpr int64_t kIntegerText = 5;  // "-128,"

constexpr std::array<IntegerText, 256> make_integer_texts(bool is_signed) {
    std::array<IntegerText, 256> texts{};
    for (int byte = 0; byte < 256; ++byte) {
        const int value = is_signed && byte > 127 ? byte - 256 : byte;
        const int size = value < 0 ? -value : value;
        IntegerText& entry = texts[byte];
        if (value < 0) entry.text[entry.length++] = '-';
        if (size >= 100) entry.text[entry.length++] = static_cast<char>('0' + size / 100);
        if (size >= 10) entry.text[entry.length++] = static_cast<char>('0' + size / 10 % 10);
        entry.text[entry.length++] = static_cast<char>('0' + size % 10);
        entry.text[entry.length++] = ',';
    }
    return texts;
}

constexpr std::array<IntegerText, 256> kSignedTexts = make_integer_texts(true);
constexpr std::array<IntegerText, 256> kUnsignedTexts = make_integer_texts(false);

// The bytes as integers, each with a comma. May touch kFloatSlack beyond its end.
inline char* write_integers(char* out, const uint8_t* bytes, int64_t size, int kind) {
    const auto& texts = kind == kInt8 || kind == kBinary ? kSignedTexts : kUnsignedTexts;
    for (int64_t i = 0; i < size; ++i) {
        memcpy(out, &texts[bytes[i]], 8);
        out += texts[bytes[i]].length;
    }
    return out;
}

}  // namespace llmrs

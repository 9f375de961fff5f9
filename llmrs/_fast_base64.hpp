// Base64 of a float32 vector: standard alphabet, padded, of its bytes as they lie in memory
// (little-endian IEEE 754), RFC 4648 section 4.
//
// Knows nothing of Python or JSON. The scalar form takes twelve bits at a time from a table. The
// vector form spreads each three bytes over a 32-bit word, shifts the four sextets into its four
// bytes and turns them into letters, after Wojciech Mula and Daniel Lemire, "Faster Base64 Encoding
// and Decoding using AVX2 Instructions" (2018), written with GCC's vector extensions.

#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "_fast_common.hpp"

namespace llmrs {

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

using Pair = std::array<char, 2>;

constexpr std::array<Pair, 4096> make_pairs() {
    std::array<Pair, 4096> pairs{};
    for (int i = 0; i < 4096; ++i) pairs[i] = {kAlphabet[i >> 6], kAlphabet[i & 63]};
    return pairs;
}

constexpr std::array<Pair, 4096> kPairs = make_pairs();

LLMRS_INLINE char* write_bytes(char* out, const uint8_t* in, int64_t size) {
    for (; size >= 3; size -= 3, in += 3, out += 4) {
        const uint32_t word = in[0] << 16 | in[1] << 8 | in[2];
        memcpy(out, &kPairs[word >> 12], 2);
        memcpy(out + 2, &kPairs[word & 4095], 2);
    }
    if (size > 0) {
        const uint32_t word = in[0] << 16 | (size == 2 ? in[1] << 8 : 0);
        memcpy(out, &kPairs[word >> 12], 2);
        out[2] = size == 2 ? kAlphabet[word >> 6 & 63] : '=';
        out[3] = '=';
        out += 4;
    }
    return out;
}

// The scalar form. Writes the text of `length` floats and returns its end.
LLMRS_INLINE char* write_base64_scalar(char* out, const float* vector, int64_t length) {
    return write_bytes(out, reinterpret_cast<const uint8_t*>(vector), 4 * length);
}

#if LLMRS_VARIANTS

typedef uint8_t Bytes32 __attribute__((vector_size(32)));
typedef uint8_t Bytes64 __attribute__((vector_size(64)));
typedef uint32_t Words8 __attribute__((vector_size(32)));
typedef uint32_t Words16 __attribute__((vector_size(64)));

// Three bytes, the first one highest, as a little-endian 32-bit word; its top byte does not matter.
#define LLMRS_WORD(i) (i) + 2, (i) + 1, (i), (i)
#define LLMRS_WORDS(i) LLMRS_WORD(i), LLMRS_WORD((i) + 3), LLMRS_WORD((i) + 6), LLMRS_WORD((i) + 9)

LLMRS_INLINE void spread(Bytes32& b) {
    b = __builtin_shuffle(b, Bytes32{LLMRS_WORDS(0), LLMRS_WORDS(12)});
}

LLMRS_INLINE void spread(Bytes64& b) {
    b = __builtin_shuffle(
        b, Bytes64{LLMRS_WORDS(0), LLMRS_WORDS(12), LLMRS_WORDS(24), LLMRS_WORDS(36)});
}

// Sextets to letters: by comparing and adding, the alphabet being five runs of letters ...
LLMRS_INLINE void to_letters(Bytes32& b) {
    b += 'A' + ((b > 25) & 6) - ((b > 51) & 75) - ((b > 61) & 15) + ((b > 62) & 3);
}

// ... or by one look-up, which AVX-512 VBMI has an instruction for.
LLMRS_INLINE void to_letters(Bytes64& b) {
    Bytes64 alphabet;
    memcpy(&alphabet, kAlphabet, 64);
    b = __builtin_shuffle(alphabet, b);
}

// The vector form. Each step reads sizeof(Bytes) bytes, never beyond the vector's end, and uses
// three quarters of them.
template <typename Bytes, typename Words>
LLMRS_INLINE char* write_base64_vector(char* out, const float* vector, int64_t length) {
    constexpr int64_t kWidth = sizeof(Bytes), kUsed = kWidth / 4 * 3;
    const uint8_t* in = reinterpret_cast<const uint8_t*>(vector);
    int64_t size = 4 * length;
    for (; size >= kWidth; size -= kUsed, in += kUsed, out += kWidth) {
        Bytes b;
        memcpy(&b, in, kWidth);
        spread(b);
        const Words w = reinterpret_cast<Words>(b);
        b = reinterpret_cast<Bytes>((w >> 18 & 0x3F) | (w >> 4 & 0x3F00) | (w << 10 & 0x3F0000) |
                                    (w << 24 & 0x3F000000));
        to_letters(b);
        memcpy(out, &b, kWidth);
    }
    return write_bytes(out, in, size);
}

#endif

}  // namespace llmrs

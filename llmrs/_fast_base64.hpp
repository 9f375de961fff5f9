// Base64 of numbers as they lie in memory, and of a float32 vector back: standard alphabet, padded,
// RFC 4648 section 4.
//
// Knows nothing of Python or JSON. The scalar forms use tables. The vector forms are after Wojciech
// Mula and Daniel Lemire, "Faster Base64 Encoding and Decoding using AVX2 Instructions" (2018):
// three bytes stand in a 32-bit word of their own, and shifts or multiplications take them apart
// into four sextets, or put these together. They are written with GCC's vector extensions; the few
// intrinsics of AVX2 stand where these have no word: a look-up of sixteen bytes and the upper half
// of a product.
//
// Reading takes nothing but the canonical length: padding where it belongs and only there, no white
// space, no other letter. As in Python's base64.b64decode(validate=True), the bits that the last
// letter has too many may be anything.

#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "_fast_common.hpp"

#if LLMRS_VARIANTS
#include <immintrin.h>
#endif

namespace llmrs {

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t kNoLetter = 0x80;

using Pair = std::array<char, 2>;

constexpr std::array<Pair, 4096> make_pairs() {
    std::array<Pair, 4096> pairs{};
    for (int i = 0; i < 4096; ++i) pairs[i] = {kAlphabet[i >> 6], kAlphabet[i & 63]};
    return pairs;
}

constexpr std::array<uint8_t, 256> make_sextets() {
    std::array<uint8_t, 256> sextets{};
    for (int i = 0; i < 256; ++i) sextets[i] = kNoLetter;
    for (int i = 0; i < 64; ++i) sextets[static_cast<uint8_t>(kAlphabet[i])] = static_cast<uint8_t>(i);
    return sextets;
}

constexpr std::array<Pair, 4096> kPairs = make_pairs();
constexpr std::array<uint8_t, 256> kSextets = make_sextets();

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

// Reads the text of `size` bytes; false if it is not one.
LLMRS_INLINE bool read_bytes(uint8_t* out, const uint8_t* in, int64_t size) {
    uint32_t wrong = 0;
    for (; size >= 3; size -= 3, in += 4, out += 3) {
        const uint32_t a = kSextets[in[0]], b = kSextets[in[1]], c = kSextets[in[2]], d = kSextets[in[3]];
        const uint32_t word = a << 18 | b << 12 | c << 6 | d;
        wrong |= a | b | c | d;
        out[0] = static_cast<uint8_t>(word >> 16);
        out[1] = static_cast<uint8_t>(word >> 8);
        out[2] = static_cast<uint8_t>(word);
    }
    if (size > 0) {
        const uint32_t a = kSextets[in[0]], b = kSextets[in[1]], c = size == 2 ? kSextets[in[2]] : 0;
        wrong |= a | b | c;
        out[0] = static_cast<uint8_t>(a << 2 | b >> 4);
        if (size == 2) out[1] = static_cast<uint8_t>(b << 4 | c >> 2);
        if (in[3] != '=' || (size == 1 && in[2] != '=')) return false;
    }
    return (wrong & kNoLetter) == 0;
}

// The scalar forms. Write the text of `size` bytes and return its end ...
LLMRS_INLINE char* write_base64_scalar(char* out, const uint8_t* in, int64_t size) {
    return write_bytes(out, in, size);
}

// ... and read the text of `length` floats, base64_size(length) characters; false if it is not one.
LLMRS_INLINE bool read_base64_scalar(float* out, const char* text, int64_t length) {
    return read_bytes(reinterpret_cast<uint8_t*>(out), reinterpret_cast<const uint8_t*>(text), 4 * length);
}

inline int64_t base64_size(int64_t length) { return (4 * length + 2) / 3 * 4; }

// How many floats a text of `size` characters may hold; 0 if there is no such number.
inline int64_t base64_length(const char* text, int64_t size) {
    if (size == 0 || size % 4 != 0) return 0;
    const int64_t bytes = size / 4 * 3 - (text[size - 1] == '=') - (text[size - 2] == '=');
    return bytes % 4 == 0 ? bytes / 4 : 0;
}

#if LLMRS_VARIANTS

typedef uint8_t Bytes32 __attribute__((vector_size(32)));
typedef uint8_t Bytes64 __attribute__((vector_size(64)));
typedef uint16_t Shorts16 __attribute__((vector_size(32)));
typedef uint32_t Words8 __attribute__((vector_size(32)));
typedef uint32_t Words16 __attribute__((vector_size(64)));

// What a look-up table of AVX2 needs: sixteen bytes for each half.
#define LLMRS_TWICE(...) _mm256_setr_epi8(__VA_ARGS__, __VA_ARGS__)

// Three bytes (b2, b1, b0 from the lowest up) of each word from the four sextets in its bytes.
template <typename Words>
LLMRS_INLINE void join(Words& w) {
    w = (w & 0x3F) << 18 | (w & 0x3F00) << 4 | (w >> 10 & 0xFC0) | w >> 24;
}

// -- AVX2: 24 bytes, 32 letters at a time --

// Each three bytes a, b, c as the word b, a, c, b: every sextet lies within 16 bits. The first
// shuffle crosses the halves of the register by whole words, the second stays within them.
#define LLMRS_WORD(i) (i) + 1, (i), (i) + 2, (i) + 1
#define LLMRS_HALF(i) LLMRS_WORD(i), LLMRS_WORD((i) + 3), LLMRS_WORD((i) + 6), LLMRS_WORD((i) + 9)

LLMRS_TARGET_AVX2 LLMRS_INLINE Words8 spread(Words8 w) {
    w = __builtin_shuffle(w, Words8{0, 1, 2, 3, 3, 4, 5, 6});
    const Bytes32 b = reinterpret_cast<Bytes32>(w);
    return reinterpret_cast<Words8>(__builtin_shuffle(b, Bytes32{LLMRS_HALF(0), LLMRS_HALF(16)}));
}

// A product with a power of two is a shift of its own for each 16 bits: to the right in the upper
// half of the product, to the left in the lower one.
LLMRS_TARGET_AVX2 LLMRS_INLINE __m256i split(Words8 w) {
    const __m256i even = _mm256_mulhi_epu16(reinterpret_cast<__m256i>(w & 0x0FC0FC00),
                                            _mm256_set1_epi32(0x04000040));
    const __m256i odd = _mm256_mullo_epi16(reinterpret_cast<__m256i>(w & 0x003F03F0),
                                           _mm256_set1_epi32(0x01000010));
    return even | odd;
}

// Every run of letters lies at a fixed distance from its sextets. Runs by number: 0 for A-Z, 1 for
// a-z, 2 to 11 for the digits, 12 for + and 13 for /.
LLMRS_TARGET_AVX2 LLMRS_INLINE __m256i to_letters(__m256i sextets) {
    const __m256i distances =
        LLMRS_TWICE('A', 'a' - 26, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, '+' - 62, '/' - 63, 0, 0);
    const __m256i beyond_upper = _mm256_cmpgt_epi8(sextets, _mm256_set1_epi8(25));
    const __m256i run =
        _mm256_sub_epi8(_mm256_subs_epu8(sextets, _mm256_set1_epi8(51)), beyond_upper);
    return _mm256_add_epi8(sextets, _mm256_shuffle_epi8(distances, run));
}

// A step reads 32 bytes, never beyond the end, and uses 24.
LLMRS_TARGET_AVX2 LLMRS_INLINE char* write_base64_avx2_body(char* out, const uint8_t* in, int64_t size) {
    for (; size >= 32; size -= 24, in += 24, out += 32) {
        Words8 w;
        memcpy(&w, in, 32);
        const __m256i letters = to_letters(split(spread(w)));
        memcpy(out, &letters, 32);
    }
    return write_bytes(out, in, size);
}

// Letters to sextets. A byte is a letter of the alphabet unless its upper and its lower half have a
// bit in common in `upper` and `lower`. Its distance hangs on the upper half, but for the slash.
LLMRS_TARGET_AVX2 LLMRS_INLINE __m256i to_sextets(__m256i letters, __m256i& wrong) {
    const __m256i upper = LLMRS_TWICE(0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10,
                                      0x10, 0x10, 0x10, 0x10, 0x10);
    const __m256i lower = LLMRS_TWICE(0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13,
                                      0x1A, 0x1B, 0x1B, 0x1B, 0x1A);
    const __m256i distances =
        LLMRS_TWICE(0, 63 - '/', 62 - '+', 52 - '0', -'A', -'A', 26 - 'a', 26 - 'a', 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i low_half = _mm256_set1_epi8(0x0F);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(letters, 4), low_half);
    const __m256i low = _mm256_and_si256(letters, low_half);
    wrong |= _mm256_and_si256(_mm256_shuffle_epi8(upper, high), _mm256_shuffle_epi8(lower, low));
    const __m256i slash = _mm256_cmpeq_epi8(letters, _mm256_set1_epi8('/'));
    return _mm256_add_epi8(letters, _mm256_shuffle_epi8(distances, _mm256_add_epi8(high, slash)));
}

// A step writes 32 bytes, never beyond the vector's end, of which 24 count. So it never meets padding.
LLMRS_TARGET_AVX2 LLMRS_INLINE bool read_base64_avx2_body(float* vector, const char* text, int64_t length) {
    const __m256i order = LLMRS_TWICE(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
    uint8_t* out = reinterpret_cast<uint8_t*>(vector);
    int64_t size = 4 * length;
    __m256i wrong = _mm256_setzero_si256();
    for (; size >= 32; size -= 24, text += 32, out += 24) {
        __m256i letters;
        memcpy(&letters, text, 32);
        Words8 w = reinterpret_cast<Words8>(to_sextets(letters, wrong));
        join(w);
        w = reinterpret_cast<Words8>(_mm256_shuffle_epi8(reinterpret_cast<__m256i>(w), order));
        w = __builtin_shuffle(w, Words8{0, 1, 2, 4, 5, 6, 7, 7});
        memcpy(out, &w, 32);
    }
    return read_bytes(out, reinterpret_cast<const uint8_t*>(text), size) && _mm256_testz_si256(wrong, wrong);
}

#undef LLMRS_HALF
#undef LLMRS_WORD

// -- AVX-512: 48 bytes, 64 letters at a time; VBMI shuffles and looks up any bytes in one step --
//
// In the compiler's vector extensions alone, so that it computes the same, slowly, on any CPU: that is how
// it is tested where the instructions are missing.

#define LLMRS_WORD(i) (i) + 2, (i) + 1, (i), (i)
#define LLMRS_QUARTER(i) LLMRS_WORD(i), LLMRS_WORD((i) + 3), LLMRS_WORD((i) + 6), LLMRS_WORD((i) + 9)

LLMRS_INLINE char* write_base64_avx512_body(char* out, const uint8_t* in, int64_t size) {
    Bytes64 alphabet;
    memcpy(&alphabet, kAlphabet, 64);
    for (; size >= 64; size -= 48, in += 48, out += 64) {
        Bytes64 b;
        memcpy(&b, in, 64);
        b = __builtin_shuffle(
            b, Bytes64{LLMRS_QUARTER(0), LLMRS_QUARTER(12), LLMRS_QUARTER(24), LLMRS_QUARTER(36)});
        const Words16 w = reinterpret_cast<Words16>(b);
        b = reinterpret_cast<Bytes64>((w >> 18 & 0x3F) | (w >> 4 & 0x3F00) | (w << 10 & 0x3F0000) |
                                      (w << 24 & 0x3F000000));
        b = __builtin_shuffle(alphabet, b);
        memcpy(out, &b, 64);
    }
    return write_bytes(out, in, size);
}

#undef LLMRS_QUARTER
#undef LLMRS_WORD

#define LLMRS_BYTES(i) (i) + 2, (i) + 1, (i), (i) + 6, (i) + 5, (i) + 4, \
                       (i) + 10, (i) + 9, (i) + 8, (i) + 14, (i) + 13, (i) + 12

// The look-up has 128 entries: bytes above are told by their own highest bit, as wrong ones by theirs.
LLMRS_INLINE bool read_base64_avx512_body(float* vector, const char* text, int64_t length) {
    uint8_t* out = reinterpret_cast<uint8_t*>(vector);
    int64_t size = 4 * length;
    Bytes64 first, second, wrong = {};
    memcpy(&first, &kSextets[0], 64);
    memcpy(&second, &kSextets[64], 64);
    for (; size >= 64; size -= 48, text += 64, out += 48) {
        Bytes64 b;
        memcpy(&b, text, 64);
        const Bytes64 sextets = __builtin_shuffle(first, second, b);
        wrong |= b | sextets;
        Words16 w = reinterpret_cast<Words16>(sextets);
        join(w);
        b = reinterpret_cast<Bytes64>(w);
        b = __builtin_shuffle(b, Bytes64{LLMRS_BYTES(0), LLMRS_BYTES(16), LLMRS_BYTES(32), LLMRS_BYTES(48)});
        memcpy(out, &b, 64);
    }
    uint64_t eights[8], highest = 0;
    memcpy(eights, &wrong, 64);
    for (const uint64_t eight : eights) highest |= eight & 0x8080808080808080;
    return read_bytes(out, reinterpret_cast<const uint8_t*>(text), size) && highest == 0;
}

#undef LLMRS_BYTES
#undef LLMRS_TWICE

#endif

}  // namespace llmrs

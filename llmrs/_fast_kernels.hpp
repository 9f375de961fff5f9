// The kernels on one vector, compiled for several instruction sets and chosen when the module loads.
//
// Knows vectors, not matrices, bodies or Python. Nearly everything is plain loops and vector
// extensions that the compiler turns into the instructions of each variant. All variants give the
// same bytes: integer work is exact, the square of a float32 is exact in a double, and the
// order of the additions is fixed by the source (no -ffast-math).

#pragma once

#include <cstdint>

#include "_fast_base64.hpp"
#include "_fast_common.hpp"
#include "_fast_float.hpp"
#include "_fast_means.hpp"
#include "_fast_numbers.hpp"
#include "_fast_outputs.hpp"

namespace llmrs {

struct Kernels {
    const char* name;
    double (*widen)(double* out, const float* vector, int64_t length);
    void (*narrow)(float* out, const double* vector, int64_t length, double factor);
    bool (*pack)(void* out, const float* vector, int64_t length, int kind);
    void (*unpack_halves)(float* out, const uint16_t* in, int64_t length);
    char* (*write_base64)(char* out, const uint8_t* in, int64_t size);
    char* (*write_floats)(char* out, const float* vector, int64_t length);
    bool (*read_base64)(float* out, const char* text, int64_t length);
    bool (*read_floats)(float* out, const char* text, const char* end, int64_t length);
    void (*mean)(float* out, const Table& table, const int32_t* ids, int64_t count);
};

// The numbers as doubles, and the sum of their squares: sixteen sums side by side, as vector
// registers hold them, then added up pairwise. Scaling starts from the doubles, because converting
// takes most of the time of both, and would else be done twice.
LLMRS_INLINE double widen_body(double* __restrict out, const float* __restrict vector, int64_t length) {
    constexpr int kLanes = 16;
    double sums[kLanes] = {};
    const int64_t even = length - length % kLanes;
    for (int64_t i = 0; i < even; i += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const double x = vector[i + lane];
            out[i + lane] = x;
            sums[lane] += x * x;
        }
    }
    for (int64_t i = even; i < length; ++i) {
        const double x = vector[i];
        out[i] = x;
        sums[i - even] += x * x;
    }
    for (int half = kLanes / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    }
    return sums[0];
}

LLMRS_INLINE void narrow_body(float* __restrict out, const double* __restrict vector, int64_t length,
                              double factor) {
    for (int64_t i = 0; i < length; ++i) out[i] = static_cast<float>(vector[i] * factor);
}

#define LLMRS_KERNELS(NAME, TARGET, WRITE_BASE64, READ_BASE64, MEAN)                               \
    TARGET inline double widen_##NAME(double* out, const float* v, int64_t n) {                    \
        return widen_body(out, v, n);                                                              \
    }                                                                                              \
    TARGET inline void narrow_##NAME(float* out, const double* v, int64_t n, double f) {           \
        narrow_body(out, v, n, f);                                                                 \
    }                                                                                              \
    TARGET inline bool pack_##NAME(void* out, const float* v, int64_t n, int kind) {               \
        return pack_body(out, v, n, kind);                                                         \
    }                                                                                              \
    TARGET inline void unpack_halves_##NAME(float* out, const uint16_t* in, int64_t n) {           \
        unpack_halves(out, in, n);                                                                 \
    }                                                                                              \
    TARGET inline char* write_base64_##NAME(char* out, const uint8_t* in, int64_t size) {          \
        return WRITE_BASE64(out, in, size);                                                        \
    }                                                                                              \
    TARGET inline char* write_floats_##NAME(char* out, const float* v, int64_t n) {                \
        return write_floats_body(out, v, n);                                                       \
    }                                                                                              \
    TARGET inline bool read_base64_##NAME(float* out, const char* text, int64_t n) {               \
        return READ_BASE64(out, text, n);                                                          \
    }                                                                                              \
    TARGET inline bool read_floats_##NAME(float* out, const char* text, const char* end, int64_t n) { \
        return read_floats_body(out, text, end, n);                                                \
    }                                                                                              \
    inline const Kernels NAME = {#NAME,                                                            \
                                 widen_##NAME,                                                     \
                                 narrow_##NAME,                                                    \
                                 pack_##NAME,                                                      \
                                 unpack_halves_##NAME,                                             \
                                 write_base64_##NAME,                                              \
                                 write_floats_##NAME,                                              \
                                 read_base64_##NAME,                                               \
                                 read_floats_##NAME,                                               \
                                 MEAN};

LLMRS_KERNELS(baseline, , write_base64_scalar, read_base64_scalar, mean_baseline)
#if LLMRS_VARIANTS
LLMRS_KERNELS(avx2, LLMRS_TARGET_AVX2, write_base64_avx2_body, read_base64_avx2_body, mean_avx2)
LLMRS_KERNELS(avx512, LLMRS_TARGET_AVX512, write_base64_avx512_body, read_base64_avx512_body, mean_avx2)
// The algorithms of AVX-512 without its instructions: for tests on CPUs that lack them, and never chosen.
LLMRS_KERNELS(avx512_emulated, , write_base64_avx512_body, read_base64_avx512_body, mean_baseline)
#endif

// The i-th best variant that this CPU can run, null beyond the last, which is the baseline.
inline const Kernels* available_kernels(int i) {
#if LLMRS_VARIANTS
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi");
    if (has_avx512 && i-- == 0) return &avx512;
    if (has_avx2 && i-- == 0) return &avx2;
#endif
    return i == 0 ? &baseline : nullptr;
}

// The emulated variant, null where the compiler has no variants.
inline const Kernels* emulated_kernels() {
#if LLMRS_VARIANTS
    return &avx512_emulated;
#else
    return nullptr;
#endif
}

// The one in use. Changed only by tests and benchmarks.
inline const Kernels* kernels = available_kernels(0);

}  // namespace llmrs

// The kernels on one vector, compiled for several instruction sets and chosen when the module loads.
//
// Knows vectors, not matrices, bodies or Python. There are no intrinsics: the bodies are plain loops
// and vector extensions that the compiler turns into the instructions of each variant. All variants
// give the same bytes: integer work is exact, the square of a float32 is exact in a double, and the
// order of the additions is fixed by the source (no -ffast-math).

#pragma once

#include <cstdint>

#include "_fast_base64.hpp"
#include "_fast_common.hpp"
#include "_fast_float.hpp"

namespace llmrs {

struct Kernels {
    const char* name;
    double (*sum_of_squares)(const float* vector, int64_t length);
    void (*scale)(float* out, const float* vector, int64_t length, double factor);
    char* (*write_base64)(char* out, const float* vector, int64_t length);
    char* (*write_floats)(char* out, const float* vector, int64_t length);
};

// Sixteen sums side by side, as vector registers hold them, then added up pairwise.
LLMRS_INLINE double sum_of_squares_body(const float* vector, int64_t length) {
    constexpr int kLanes = 16;
    double sums[kLanes] = {};
    const int64_t even = length - length % kLanes;
    for (int64_t i = 0; i < even; i += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const double x = vector[i + lane];
            sums[lane] += x * x;
        }
    }
    for (int64_t i = even; i < length; ++i) {
        const double x = vector[i];
        sums[i - even] += x * x;
    }
    for (int half = kLanes / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    }
    return sums[0];
}

LLMRS_INLINE void scale_body(float* out, const float* vector, int64_t length, double factor) {
    for (int64_t i = 0; i < length; ++i) out[i] = static_cast<float>(vector[i] * factor);
}

#define LLMRS_KERNELS(NAME, TARGET, WRITE_BASE64)                                        \
    TARGET inline double sum_of_squares_##NAME(const float* v, int64_t n) {              \
        return sum_of_squares_body(v, n);                                                \
    }                                                                                    \
    TARGET inline void scale_##NAME(float* out, const float* v, int64_t n, double f) {   \
        scale_body(out, v, n, f);                                                        \
    }                                                                                    \
    TARGET inline char* write_base64_##NAME(char* out, const float* v, int64_t n) {      \
        return WRITE_BASE64(out, v, n);                                                  \
    }                                                                                    \
    TARGET inline char* write_floats_##NAME(char* out, const float* v, int64_t n) {      \
        return write_floats_body(out, v, n);                                             \
    }                                                                                    \
    inline const Kernels NAME = {#NAME, sum_of_squares_##NAME, scale_##NAME,             \
                                 write_base64_##NAME, write_floats_##NAME};

#define LLMRS_TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt")))
#define LLMRS_TARGET_AVX512 \
    __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vbmi,bmi,bmi2,lzcnt")))

LLMRS_KERNELS(baseline, , write_base64_scalar)
#if LLMRS_VARIANTS
LLMRS_KERNELS(avx2, LLMRS_TARGET_AVX2, (write_base64_vector<Bytes32, Words8>))
LLMRS_KERNELS(avx512, LLMRS_TARGET_AVX512, (write_base64_vector<Bytes64, Words16>))
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

// The one in use. Changed only by tests and benchmarks.
inline const Kernels* kernels = available_kernels(0);

}  // namespace llmrs

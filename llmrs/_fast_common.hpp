// What the kernel headers share.

#pragma once

// Forced, so that a body is compiled anew with the instruction set of each variant that calls it.
#define LLMRS_INLINE static inline __attribute__((always_inline))

// Variants for newer instruction sets beside the baseline. They need GCC's vector extensions.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LLMRS_VARIANTS 1
#else
#define LLMRS_VARIANTS 0
#endif

// What each variant may use. FMA is left out: it would round once where the others round twice.
#define LLMRS_TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt")))
#define LLMRS_TARGET_AVX512 \
    __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vbmi,bmi,bmi2,lzcnt")))

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "vectors are sent as they lie in memory");

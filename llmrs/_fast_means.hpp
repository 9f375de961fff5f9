// The mean of rows of a table: what a static model makes of a text's token ids.
//
// Knows a table, ids and nothing of texts or Python. Rows are added one after the other, in float32, so a
// text has the same vector whatever it is computed with. The time goes into fetching rows from memory:
// the next ones are asked for while one is added.

#pragma once

#include <cstdint>

#include "_fast_common.hpp"

namespace llmrs {

// Token ids to rows of numbers.
struct Table {
    const float* numbers;    // [rows, width]
    int64_t width;
    const int32_t* mapping;  // the row of each id; null where that is the id itself
    const float* weights;    // of each id, null where all are 1
};

constexpr int64_t kAhead = 4;         // rows that are asked for before they are needed
constexpr int64_t kLine = 16;         // numbers that a line of the cache holds
constexpr int64_t kFirstLines = 128;  // numbers of a row to ask for: the CPU goes on by itself

LLMRS_INLINE const float* row_of(const Table& table, int32_t id) {
    return table.numbers + (table.mapping != nullptr ? table.mapping[id] : id) * table.width;
}

// `count` ids, each of which the table has; the mean of none is zero.
LLMRS_INLINE void mean_body(float* __restrict out, const Table& table, const int32_t* ids, int64_t count) {
    for (int64_t i = 0; i < table.width; ++i) out[i] = 0;
    for (int64_t n = 0; n < count; ++n) {
        if (n + kAhead < count) {
            const float* next = row_of(table, ids[n + kAhead]);
            const int64_t first = table.width < kFirstLines ? table.width : kFirstLines;
            for (int64_t i = 0; i < first; i += kLine) __builtin_prefetch(next + i);
        }
        const float* __restrict row = row_of(table, ids[n]);
        if (table.weights == nullptr) {
            for (int64_t i = 0; i < table.width; ++i) out[i] += row[i];
        } else {
            const float weight = table.weights[ids[n]];
            for (int64_t i = 0; i < table.width; ++i) out[i] += row[i] * weight;
        }
    }
    if (count == 0) return;
    const float share = static_cast<float>(count);
    for (int64_t i = 0; i < table.width; ++i) out[i] /= share;
}

inline void mean_baseline(float* out, const Table& table, const int32_t* ids, int64_t count) {
    mean_body(out, table, ids, count);
}

// Also for AVX-512, which has fused multiply-add: that rounds a weighted row once, where others round twice.
#if LLMRS_VARIANTS
LLMRS_TARGET_AVX2 inline void mean_avx2(float* out, const Table& table, const int32_t* ids, int64_t count) {
    mean_body(out, table, ids, count);
}
#endif

}  // namespace llmrs

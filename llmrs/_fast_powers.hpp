// Powers of ten, for writing floats and for reading them.

#pragma once

#include <cstdint>

namespace llmrs {

// Writing needs -31 to 45. Reading scales up to nineteen digits to a normal float32: -56 to 38.
constexpr int kMinPower = -56;
constexpr int kMaxPower = 45;

// 10^k scaled to [2^63, 2^64) and rounded up, k from kMinPower to kMaxPower. Filled once, from exact
// integers, when the module is imported.
inline uint64_t powers_of_ten[kMaxPower - kMinPower + 1];

}  // namespace llmrs

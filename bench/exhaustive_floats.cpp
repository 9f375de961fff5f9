// Compares the float text with std::to_chars over every positive finite float32: the same digits and
// exponent, within the bound on its length. Not part of the tests: takes some minutes.
//
//     g++ -O3 -std=c++17 -I llmrs bench/exhaustive_floats.cpp -o exhaustive_floats && ./exhaustive_floats
//
// Prints one line per kernel variant; exit status 1 if any value differs.

#include <charconv>
#include <cmath>
#include <cstdio>
#include <vector>

#include "_fast_kernels.hpp"

namespace {

// The powers of ten as the module computes them: 10^k rounded up to 64 bits. Long double would not
// be exact, so this does the long multiplication and division by ten in 32-bit limbs.
void fill_powers() {
    for (int k = llmrs::kMinPower; k <= llmrs::kMaxPower; ++k) {
        std::vector<uint32_t> limbs(16, 0);  // fixed point: 256 bits above, 256 bits below
        limbs[8] = 1;
        bool exact = true;
        for (int i = 0; i < k; ++i) {
            uint64_t carry = 0;
            for (auto& limb : limbs) {
                carry += static_cast<uint64_t>(limb) * 10;
                limb = static_cast<uint32_t>(carry);
                carry >>= 32;
            }
        }
        for (int i = 0; i < -k; ++i) {
            uint64_t rest = 0;
            for (size_t j = limbs.size(); j-- > 0;) {
                rest = rest << 32 | limbs[j];
                limbs[j] = static_cast<uint32_t>(rest / 10);
                rest %= 10;
            }
            exact = exact && rest == 0;
        }
        int top = 16 * 32 - 1;
        while (!(limbs[top / 32] >> (top % 32) & 1)) --top;
        uint64_t power = 0;
        for (int bit = top; bit > top - 64; --bit) power = power << 1 | (limbs[bit / 32] >> (bit % 32) & 1);
        for (int bit = 0; bit <= top - 64; ++bit) exact = exact && !(limbs[bit / 32] >> (bit % 32) & 1);
        llmrs::powers_of_ten[k - llmrs::kMinPower] = power + !exact;
    }
}

// Digits without zeros at their end, and the exponent of the last one.
void read_decimal(const char* p, const char* end, uint64_t& digits, int& exponent) {
    digits = 0;
    exponent = 0;
    bool fraction = false;
    for (; p < end && *p != 'e'; ++p) {
        if (*p == '.') {
            fraction = true;
        } else {
            digits = digits * 10 + static_cast<uint64_t>(*p - '0');
            exponent -= fraction;
        }
    }
    if (p < end) {
        int written = 0;
        std::from_chars(p + 1 + (p[1] == '+'), end, written);
        exponent += written;
    }
    for (; digits && digits % 10 == 0; digits /= 10) ++exponent;
}

bool same_decimal(float value, const char* text, const char* end) {
    char wanted[32];
    const auto result = std::to_chars(wanted, wanted + sizeof wanted, value, std::chars_format::scientific);
    uint64_t digits, wanted_digits;
    int exponent, wanted_exponent;
    read_decimal(text, end, digits, exponent);
    read_decimal(wanted, result.ptr, wanted_digits, wanted_exponent);
    return digits == wanted_digits && (digits == 0 || exponent == wanted_exponent) &&
           end - text < llmrs::kFloatText;
}

int64_t count_failures(const llmrs::Kernels& kernels) {
    constexpr uint32_t kCount = 1 << 12, kInfinity = 0x7F800000;
    static float values[kCount];
    static char text[kCount * llmrs::kFloatText + llmrs::kFloatSlack];
    int64_t failures = 0;
    for (uint32_t start = 0; start < kInfinity; start += kCount) {
        for (uint32_t i = 0; i < kCount; ++i) {
            const uint32_t bits = start + i;
            memcpy(&values[i], &bits, 4);
        }
        kernels.write_floats(text, values, kCount);
        const char* p = text;
        for (float value : values) {
            const char* end = p;
            while (*end != ',') ++end;
            failures += !same_decimal(value, p, end);
            p = end + 1;
        }
    }
    return failures;
}

}  // namespace

int main() {
    fill_powers();
    int64_t all = 0;
    for (int i = 0; const llmrs::Kernels* kernels = llmrs::available_kernels(i); ++i) {
        const int64_t failures = count_failures(*kernels);
        std::printf("%s: %lld values differ\n", kernels->name, static_cast<long long>(failures));
        all += failures;
    }
    return all != 0;
}

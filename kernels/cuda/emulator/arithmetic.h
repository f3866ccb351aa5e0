// Functions of numbers that CUDA C++ has beside C++'s. The file is compiled without contraction to fused multiply-adds.
#pragma once

using std::max;
using std::min;

template <typename To, typename From>
inline To emulator_same_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "bits of another size");
    To result;
    std::memcpy(&result, &value, sizeof result);
    return result;
}

inline float __int_as_float(int bits) { return emulator_same_bits<float>(bits); }
inline float __uint_as_float(unsigned bits) { return emulator_same_bits<float>(bits); }
inline int __float_as_int(float value) { return emulator_same_bits<int>(value); }
inline unsigned __float_as_uint(float value) { return emulator_same_bits<unsigned>(value); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline float __frsqrt_rn(float a) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))); }

// Saturating, NaN to 0, halves to the even number.
inline int __float2int_rn(float value) {
    if (std::isnan(value)) return 0;
    if (value >= 2147483648.0f) return 2147483647;
    if (value < -2147483648.0f) return -2147483647 - 1;
    return static_cast<int>(std::nearbyint(value));
}
inline float __int2float_rn(int value) { return static_cast<float>(value); }

inline int __popc(unsigned value) { return __builtin_popcount(value); }

// Four bytes out of eight: the lowest byte of x is number 0, the lowest of y number 4.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned choice = selector >> (4 * i) & 0xF;
        unsigned byte = static_cast<unsigned>(bytes >> (8 * (choice & 7))) & 0xFF;
        if (choice & 8) byte = byte & 0x80 ? 0xFF : 0;
        result |= byte << (8 * i);
    }
    return result;
}

inline int __dp4a(int a, int b, int c) {
    int64_t sum = c;
    for (int i = 0; i < 4; i++) sum += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
    return static_cast<int>(sum);
}

// Byte by byte, without carries.
inline unsigned __vsub4(unsigned a, unsigned b) {
    unsigned result = 0;
    for (int i = 0; i < 4; i++) result |= (((a >> (8 * i)) - (b >> (8 * i))) & 0xFF) << (8 * i);
    return result;
}
inline unsigned __vadd4(unsigned a, unsigned b) {
    unsigned result = 0;
    for (int i = 0; i < 4; i++) result |= (((a >> (8 * i)) + (b >> (8 * i))) & 0xFF) << (8 * i);
    return result;
}

// Ways to load that differ in caches only.
template <typename T>
T __ldg(const T* address) {
    return *address;
}
template <typename T>
T __ldcs(const T* address) {
    return *address;
}
template <typename T>
T __ldcg(const T* address) {
    return *address;
}

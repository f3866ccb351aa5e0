// Half precision, with the names and the rounding of CUDA's header: what the kernels use of it. Each operation is
// computed in float, where it is exact or rounded to far more digits, and rounded once to half precision.
#pragma once

#include <cstdint>
#include <cstring>

struct alignas(2) __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};
using half = __half;
using half2 = __half2;

inline float __half2float(__half value) {
    const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
    const uint32_t exponent = value.bits >> 10 & 0x1F, fraction = value.bits & 0x3FF;
    float result;
    if (exponent == 0) {
        // Subnormal: so many steps of 2^-24.
        result = static_cast<float>(fraction) * 5.9604644775390625e-8f;
        return sign ? -result : result;
    }
    const uint32_t wide = exponent == 0x1F ? 0xFF : exponent + 112;
    const uint32_t bits = sign | wide << 23 | fraction << 13;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

// To nearest, halves to even; beyond 65520 infinity.
inline __half __float2half_rn(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    bits &= 0x7FFFFFFF;
    if (bits > 0x7F800000) return {static_cast<uint16_t>(0x7FFF)};
    if (bits >= 0x477FF000) return {static_cast<uint16_t>(sign | 0x7C00)};
    if (bits < 0x38800000) {
        // Below 2^-14: adding 0.5 leaves the number of steps of 2^-24 in the last bits, rounded as it should be.
        float magnitude;
        std::memcpy(&magnitude, &bits, sizeof magnitude);
        magnitude += 0.5f;
        std::memcpy(&bits, &magnitude, sizeof bits);
        return {static_cast<uint16_t>(sign | (bits - 0x3F000000))};
    }
    const uint32_t rounded = bits + 0xFFF + (bits >> 13 & 1) - (112u << 23);
    return {static_cast<uint16_t>(sign | rounded >> 13)};
}
inline __half __float2half(float value) { return __float2half_rn(value); }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __int2half_rn(int value) { return __float2half_rn(static_cast<float>(value)); }

inline __half __hmul(__half a, __half b) { return __float2half_rn(__half2float(a) * __half2float(b)); }
inline __half __hadd(__half a, __half b) { return __float2half_rn(__half2float(a) + __half2float(b)); }
inline __half __hsub(__half a, __half b) { return __float2half_rn(__half2float(a) - __half2float(b)); }
inline __half __hdiv(__half a, __half b) { return __float2half_rn(__half2float(a) / __half2float(b)); }

inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __half2half2(__half value) { return {value, value}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline __half2 __float2half2_rn(float value) { return __floats2half2_rn(value, value); }
inline __half __low2half(__half2 value) { return value.x; }
inline __half __high2half(__half2 value) { return value.y; }
inline float __low2float(__half2 value) { return __half2float(value.x); }
inline float __high2float(__half2 value) { return __half2float(value.y); }
inline __half2 __hmul2(__half2 a, __half2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
inline __half2 __hadd2(__half2 a, __half2 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }
inline __half2 __hsub2(__half2 a, __half2 b) { return {__hsub(a.x, b.x), __hsub(a.y, b.y)}; }

// The types of activations: __half, __nv_bfloat16 and float. Computed with in float, rounded to nearest, halves to even.
#ifndef QPIPE_FLOATS_CUH
#define QPIPE_FLOATS_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

// The nearest number of type T.
template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
    return value;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
    return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
    return __float2bfloat16_rn(value);
}

// A number rounded to type T.
template <typename T>
__device__ __forceinline__ float rounded(float value) {
    return to_float(from_float<T>(value));
}

// Writes two neighbours, or where `has_second` is false the first of them; in one piece where `in_pairs` says that `to` is a
// multiple of two numbers.
template <typename T>
__device__ __forceinline__ void write_pair(T* to, T first, T second, bool has_second, bool in_pairs) {
    struct alignas(2 * sizeof(T)) Two {
        T first, second;
    };
    if (has_second && in_pairs) {
        *reinterpret_cast<Two*>(to) = {first, second};
        return;
    }
    to[0] = first;
    if (has_second) to[1] = second;
}

// Eight values at an address that is a multiple of their size, up to 16.
__device__ __forceinline__ void load8(const float* from, float (&values)[8]) {
    const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}
template <typename T>
__device__ __forceinline__ void load8(const T* from, float (&values)[8]) {
    union {
        uint4 words;
        unsigned short bits[8];
    } eight;
    eight.words = *reinterpret_cast<const uint4*>(from);
    for (int i = 0; i < 8; i++) values[i] = to_float(*reinterpret_cast<const T*>(&eight.bits[i]));
}

// Writes eight values, rounded, to such an address.
__device__ __forceinline__ void store8(float* to, const float (&values)[8]) {
    reinterpret_cast<float4*>(to)[0] = make_float4(values[0], values[1], values[2], values[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(values[4], values[5], values[6], values[7]);
}
template <typename T>
__device__ __forceinline__ void store8(T* to, const float (&values)[8]) {
    union {
        uint4 words;
        unsigned short bits[8];
    } eight;
    for (int i = 0; i < 8; i++) {
        const T value = from_float<T>(values[i]);
        eight.bits[i] = *reinterpret_cast<const unsigned short*>(&value);
    }
    *reinterpret_cast<uint4*>(to) = eight.words;
}

// Whether rows of `width` values at `x` begin at multiples of 16 bytes.
template <typename T>
__device__ __forceinline__ bool is_aligned(const T* x, int width) {
    return reinterpret_cast<unsigned long long>(x) % 16 == 0 && width * sizeof(T) % 16 == 0;
}

// The sum over the 32 lanes of a warp, in every lane.
__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
    return value;
}

#endif

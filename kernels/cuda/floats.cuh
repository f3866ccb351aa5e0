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

// The sum over the 32 lanes of a warp, in every lane.
__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
    return value;
}

#endif

// How activations become int8: the definitions of symmetric.rs and torchao.rs, to the bit, as cpu/rows.rs has them.
#ifndef QPIPE_QUANTIZE_CUH
#define QPIPE_QUANTIZE_CUH

#include "floats.cuh"

// A scale a row, from its largest magnitude, rounded as compressed-tensors and as torchao round; or one for all rows.
enum Rule { DYNAMIC = 0, STATIC = 1, TORCHAO = 2 };

// The distance from 1 to the next larger number.
template <typename T>
__device__ __forceinline__ float epsilon();
template <>
__device__ __forceinline__ float epsilon<float>() {
    return 0x1p-23f;
}
template <>
__device__ __forceinline__ float epsilon<__half>() {
    return 0x1p-10f;
}
template <>
__device__ __forceinline__ float epsilon<__nv_bfloat16>() {
    return 0x1p-7f;
}

// The bits of a magnitude. As integers, magnitudes are ordered alike, and NaN is above infinity.
__device__ __forceinline__ unsigned magnitude(float value) { return __float_as_uint(value) & 0x7FFFFFFFu; }

// The largest of all threads' numbers, in every thread. `warps` has room for one a warp.
__device__ __forceinline__ unsigned block_max(unsigned value, unsigned* warps) {
    for (int distance = 16; distance > 0; distance /= 2) {
        value = max(value, __shfl_xor_sync(0xFFFFFFFFu, value, distance));
    }
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    for (unsigned warp = 0; warp < blockDim.x / 32; warp++) value = max(value, warps[warp]);
    return value;
}

// What a row's values are divided by, or multiplied with. NaN is the scale of a row with a value that is not finite.
struct RowScale {
    float scale;
    float factor;
    bool finite;
};

template <typename T>
__device__ __forceinline__ RowScale row_scale(unsigned largest, int rule, float static_scale) {
    if (rule == STATIC) return {static_scale, 0.0f, true};
    if (largest >= 0x7F800000u) return {__uint_as_float(0x7FC00000u), 0.0f, false};
    float scale = rounded<T>(__fdiv_rn(__uint_as_float(largest), 127.5f));
    if (rule == TORCHAO) {
        scale = fmaxf(scale, epsilon<float>());
        return {scale, __fdiv_rn(1.0f, scale), true};
    }
    return {scale == 0.0f ? epsilon<T>() : scale, 0.0f, true};
}

// The code of a value of type T: NaN, which only a static scale meets, is 0.
template <typename T>
__device__ __forceinline__ int code(float value, const RowScale& row, int rule) {
    if (!row.finite) return 0;
    const float scaled =
        rule == TORCHAO ? __fmul_rn(value, row.factor) : rounded<T>(__fdiv_rn(value, row.scale));
    return max(-128, min(127, __float2int_rn(scaled)));
}

// Writes a row's codes, `padded` of them, with zeros from `width` on. `value(i)` is the i-th value, and `eight(i, values)`
// gives those from i on, where `whole` says that it may be asked for; `code(i, value)` is its code.
template <typename Value, typename Eight, typename Code>
__device__ __forceinline__ void write_codes(
    signed char* codes, int width, int padded, bool whole, Value value, Eight eight, Code code) {
    for (int i = threadIdx.x * 8; i < padded; i += blockDim.x * 8) {
        float values[8];
        if (whole && i + 8 <= width) {
            eight(i, values);
        } else {
            for (int j = 0; j < 8; j++) values[j] = i + j < width ? value(i + j) : 0.0f;
        }
        unsigned words[2] = {0, 0};
        for (int j = 0; j < 8; j++) {
            const int byte = i + j < width ? code(i + j, values[j]) : 0;
            words[j / 4] |= (static_cast<unsigned>(byte) & 0xFFu) << (8 * (j % 4));
        }
        *reinterpret_cast<uint2*>(codes + i) = make_uint2(words[0], words[1]);
    }
}

// The bits of the largest magnitude among the values that this thread sees.
template <typename Value, typename Eight>
__device__ __forceinline__ unsigned thread_max(int width, bool whole, Value value, Eight eight) {
    unsigned largest = 0;
    for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
        if (whole && i + 8 <= width) {
            float values[8];
            eight(i, values);
            for (int j = 0; j < 8; j++) largest = max(largest, magnitude(values[j]));
        } else {
            for (int j = i; j < width && j < i + 8; j++) largest = max(largest, magnitude(value(j)));
        }
    }
    return largest;
}

#endif

// Root-mean-square normalization of a row (Zhang and Sennrich, 2019, arXiv 1910.07467), rounded where transformers rounds. The mean
// is summed in another order than libtorch's, so that a normalized value may be its neighbour.
#ifndef QPIPE_RMSNORM_CUH
#define QPIPE_RMSNORM_CUH

#include "floats.cuh"

// The sum of all threads' numbers, in every thread. `warps` has room for one a warp.
__device__ __forceinline__ float block_sum(float value, float* warps) {
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
    for (unsigned warp = 0; warp < blockDim.x / 32; warp++) sum += warps[warp];
    return sum;
}

// What a row of `width` values is multiplied by, in every thread of its block: 1 / sqrt(mean(x^2) + epsilon). `whole` says that rows
// begin at multiples of 16 bytes.
template <typename T>
__device__ __forceinline__ float norm_factor(const T* x, int width, bool whole, float epsilon, float* warps) {
    float squares = 0.0f;
    for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
        if (whole && i + 8 <= width) {
            float values[8];
            load8(x + i, values);
            for (int j = 0; j < 8; j++) squares = fmaf(values[j], values[j], squares);
        } else {
            for (int j = i; j < width && j < i + 8; j++) squares = fmaf(to_float(x[j]), to_float(x[j]), squares);
        }
    }
    return rsqrtf(__fadd_rn(__fdiv_rn(block_sum(squares, warps), static_cast<float>(width)), epsilon));
}

// A value, normalized and then scaled, each product rounded to T.
template <typename T>
__device__ __forceinline__ float normalized(float value, float factor, float weight) {
    return rounded<T>(__fmul_rn(weight, rounded<T>(__fmul_rn(value, factor))));
}

#endif

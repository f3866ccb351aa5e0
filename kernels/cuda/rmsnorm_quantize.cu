// Root-mean-square normalization (Zhang and Sennrich, 2019, arXiv 1910.07467) and the quantization of what comes out, without
// its being written: a block of 32 to 1024 threads, a multiple of 32, for each row.
//
// x [rows, width], weight [width] -> codes [rows, padded] and scales [rows] of quantize_rows.cu for the rows
// weight * T(x / sqrt(mean(x^2) + epsilon)), every step rounded to x's type T as transformers does. The mean is summed
// in another order than libtorch's, so that the normalized row may differ in its last bit; its codes are then those of that row.

#include "quantize.cuh"

// The sum of all threads' numbers, in every thread.
__device__ __forceinline__ float block_sum(float value, float* warps) {
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
    for (unsigned warp = 0; warp < blockDim.x / 32; warp++) sum += warps[warp];
    return sum;
}

template <typename T>
__device__ __forceinline__ void rmsnorm_quantize(
    const T* x, const T* weight, signed char* codes, float* scales, int width, int padded, float norm_epsilon, int rule,
    float static_scale) {
    __shared__ float sums[32];
    __shared__ unsigned warps[32];
    const long long row = blockIdx.x;
    const bool whole = is_aligned(x, width) && is_aligned(weight, width);
    x += row * width;
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
    const float mean = __fdiv_rn(block_sum(squares, sums), static_cast<float>(width));
    const float factor = rsqrtf(__fadd_rn(mean, norm_epsilon));
    const auto normal = [&](float value, float by) {
        return rounded<T>(__fmul_rn(by, rounded<T>(__fmul_rn(value, factor))));
    };
    const auto value = [&](int i) { return normal(to_float(x[i]), to_float(weight[i])); };
    const auto eight = [&](int i, float(&values)[8]) {
        float by[8];
        load8(x + i, values);
        load8(weight + i, by);
        for (int j = 0; j < 8; j++) values[j] = normal(values[j], by[j]);
    };
    unsigned largest = 0;
    if (rule != STATIC) largest = block_max(thread_max(width, whole, value, eight), warps);
    const RowScale scale = row_scale<T>(largest, rule, static_scale);
    if (threadIdx.x == 0) scales[row] = scale.scale;
    const auto code_of = [&](int, float value) { return code<T>(value, scale, rule); };
    write_codes(codes + row * padded, width, padded, whole, value, eight, code_of);
}

#define ENTRY(name, T)                                                                                            \
    extern "C" __global__ void name(                                                                              \
        const T* x, const T* weight, signed char* codes, float* scales, int width, int padded, float norm_epsilon, \
        int rule, float static_scale) {                                                                           \
        rmsnorm_quantize<T>(x, weight, codes, scales, width, padded, norm_epsilon, rule, static_scale);           \
    }

ENTRY(rmsnorm_quantize_f32, float)
ENTRY(rmsnorm_quantize_f16, __half)
ENTRY(rmsnorm_quantize_bf16, __nv_bfloat16)

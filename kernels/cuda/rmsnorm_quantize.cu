// Root-mean-square normalization (Zhang and Sennrich, 2019, arXiv 1910.07467) and the quantization of what comes out, without
// its being written: a block of 32 to 1024 threads, a multiple of 32, for each row.
//
// x [rows, width], weight [width] -> codes [rows, padded] and scales [rows] of quantize_rows.cu for the rows
// weight * T(x / sqrt(mean(x^2) + epsilon)), every step rounded to x's type T as transformers does. Where
// the normalized row differs from libtorch's in its last bit, its codes are those of that row.

#include "quantize.cuh"
#include "rmsnorm.cuh"

template <typename T>
__device__ __forceinline__ void rmsnorm_quantize(
    const T* x, const T* weight, signed char* codes, float* scales, int width, int padded, float norm_epsilon, int rule,
    float static_scale) {
    __shared__ float sums[32];
    __shared__ unsigned warps[32];
    const long long row = blockIdx.x;
    const bool whole = is_aligned(x, width) && is_aligned(weight, width);
    x += row * width;
    const float factor = norm_factor(x, width, whole, norm_epsilon, sums);
    const auto value = [&](int i) { return normalized<T>(to_float(x[i]), factor, to_float(weight[i])); };
    const auto eight = [&](int i, float(&values)[8]) {
        float by[8];
        load8(x + i, values);
        load8(weight + i, by);
        for (int j = 0; j < 8; j++) values[j] = normalized<T>(values[j], factor, by[j]);
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

// Rows of activations as int8 codes and a scale each: a block of 32 to 1024 threads, a multiple of 32, for each row.
//
// x [rows, width] -> codes [rows, padded], zeros from `width` on, and scales, float [rows]. `padded` is a multiple of 8;
// `static_scale`, a number of x's type, is used by rule 1 only.

#include "quantize.cuh"

template <typename T>
__device__ __forceinline__ void quantize_rows(
    const T* x, signed char* codes, float* scales, int width, int padded, int rule, float static_scale) {
    __shared__ unsigned warps[32];
    const long long row = blockIdx.x;
    const bool whole = is_aligned(x, width);
    x += row * width;
    const auto value = [&](int i) { return to_float(x[i]); };
    const auto eight = [&](int i, float(&values)[8]) { load8(x + i, values); };
    unsigned largest = 0;
    if (rule != STATIC) largest = block_max(thread_max(width, whole, value, eight), warps);
    const RowScale scale = row_scale<T>(largest, rule, static_scale);
    if (threadIdx.x == 0) scales[row] = scale.scale;
    const auto code_of = [&](int, float value) { return code<T>(value, scale, rule); };
    write_codes(codes + row * padded, width, padded, whole, value, eight, code_of);
}

#define ENTRY(name, T)                                                                                            \
    extern "C" __global__ void name(                                                                              \
        const T* x, signed char* codes, float* scales, int width, int padded, int rule, float static_scale) {     \
        quantize_rows<T>(x, codes, scales, width, padded, rule, static_scale);                                    \
    }

ENTRY(quantize_rows_f32, float)
ENTRY(quantize_rows_f16, __half)
ENTRY(quantize_rows_bf16, __nv_bfloat16)

// Rows of activations as the int8 codes of LLM.int8() (Dettmers et al., 2022, arXiv 2208.07339), to the bit as llm_int8/mod.rs has
// them: values are rounded to half precision, those of at least `threshold` in magnitude are outliers, and a column with one
// is left to another product.
//
// llm_int8_columns: x [rows, width] -> flags [width], set to 1 where a column has an outlier, else left alone. A thread
// for each column, blocks in y share the rows.
// llm_int8_rows: x -> codes [rows, padded] and the largest magnitudes, float [rows], without outliers. A block of 32 to 1024
// threads, a multiple of 32, for each row. `flags` is null where there are no outliers.

#include "quantize.cuh"

// A value in half precision.
__device__ __forceinline__ float halved(float value) { return rounded<__half>(value); }

template <typename T>
__device__ __forceinline__ void find_columns(
    const T* x, unsigned char* flags, int rows, int width, float threshold) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    bool found = false;
    for (int row = blockIdx.y; row < rows; row += gridDim.y) {
        found |= fabsf(halved(to_float(x[static_cast<long long>(row) * width + column]))) >= threshold;
    }
    if (found) flags[column] = 1;
}

template <typename T>
__device__ __forceinline__ void quantize(
    const T* x, const unsigned char* flags, signed char* codes, float* magnitudes, int width, int padded,
    float threshold) {
    __shared__ unsigned warps[32];
    const long long row = blockIdx.x;
    const bool whole = is_aligned(x, width);
    x += row * width;
    const auto kept = [&](float value) {
        value = halved(value);
        return flags != nullptr && fabsf(value) >= threshold ? 0.0f : value;
    };
    const auto value = [&](int i) { return kept(to_float(x[i])); };
    const auto eight = [&](int i, float(&values)[8]) {
        load8(x + i, values);
        for (int j = 0; j < 8; j++) values[j] = kept(values[j]);
    };
    const float largest = __uint_as_float(block_max(thread_max(width, whole, value, eight), warps));
    if (threadIdx.x == 0) magnitudes[row] = largest;
    // Not 127 / largest, which rounds differently.
    const float factor = __fmul_rn(__fdiv_rn(1.0f, largest), 127.0f);
    const auto code_of = [&](int i, float value) {
        if (flags != nullptr && flags[i] != 0) return 0;
        const float scaled = __fmul_rn(value, factor);
        // 0 times infinity, in a row of zeros.
        return scaled != scaled ? 0 : max(-128, min(127, __float2int_rn(scaled)));
    };
    write_codes(codes + row * padded, width, padded, whole, value, eight, code_of);
}

#define ENTRIES(type, T)                                                                                          \
    extern "C" __global__ void llm_int8_columns_##type(                                                           \
        const T* x, unsigned char* flags, int rows, int width, float threshold) {                                 \
        find_columns<T>(x, flags, rows, width, threshold);                                                        \
    }                                                                                                             \
    extern "C" __global__ void llm_int8_rows_##type(                                                              \
        const T* x, const unsigned char* flags, signed char* codes, float* magnitudes, int width, int padded,     \
        float threshold) {                                                                                        \
        quantize<T>(x, flags, codes, magnitudes, width, padded, threshold);                                       \
    }

ENTRIES(f32, float)
ENTRIES(f16, __half)
ENTRIES(bf16, __nv_bfloat16)

// NF4 weights for few rows, see few_rows.cuh. K and the block are multiples of 32.
#include "few_rows.cuh"
#include "nf4.cuh"

// How few_rows.cuh reads the weight.
template <typename T>
struct FewRowsNf4 {
    struct Chunk {
        uint4 words;
        float absmax;
    };

    const unsigned char* __restrict__ packed;
    Nf4Absmax absmax;
    int block;
    int in_features;
    const float* table;

    __device__ __forceinline__ Chunk load(int n, int k, bool counts) const {
        const long long first = static_cast<long long>(n) * in_features + k;
        const float scale = absmax.of(first / block);
        return {__ldcs(reinterpret_cast<const uint4*>(packed + first / 2)), counts ? scale : 0};
    }

    template <typename Values>
    __device__ __forceinline__ void decode(const Chunk& chunk, int word, Values& values) const {
        const unsigned words[4] = {chunk.words.x, chunk.words.y, chunk.words.z, chunk.words.w};
        nf4_decode<T>(table, words[word], chunk.absmax, values);
    }
};

// y [M, N] and x [M, K] in the type to compute in; bias [N] or null. See Nf4Absmax.
#define NF4_GEMV(name, T, multiply)                                                                                          \
    extern "C" __global__ void __launch_bounds__(32 * few_rows::WARPS)                                                       \
        name(T* y, const T* x, const unsigned char* packed, const float* absmax, const unsigned char* code, const float* map, \
             const float* scale, float offset, const float* bias, int rows, int out_features, int in_features, int block) {  \
        __shared__ float table[NF4_TABLE];                                                                                   \
        nf4_fill(table);                                                                                                     \
        __syncthreads();                                                                                                     \
        const FewRowsNf4<T> weight = {packed, {absmax, code, map, scale, offset}, block, in_features, table};                \
        multiply(y, x, weight, bias, rows, out_features, in_features);                                                       \
    }

NF4_GEMV(nf4_gemv_f16, __half, few_rows::multiply)
NF4_GEMV(nf4_gemv_bf16, __nv_bfloat16, few_rows::multiply)
NF4_GEMV(nf4_gemv_f32, float, few_rows::multiply_single)

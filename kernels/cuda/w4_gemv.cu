// int4 weights with a scale, and maybe a zero point, a group of input channels, for few rows. Weights are rounded to the
// activations' type, as the definition has it; sums are in float.
#include "few_rows.cuh"

// How few_rows.cuh reads the weight.
template <typename T>
struct FewRowsInt4 : Int4Weight<T> {
    struct Chunk {
        uint4 words;
        T scale;
        unsigned zero;
    };

    __device__ __forceinline__ Chunk load(int n, int k, bool counts) const {
        Chunk chunk;
        const unsigned* words = this->packed + static_cast<size_t>(n) * (this->in_features / 8) + k / 8;
        chunk.words = __ldcs(reinterpret_cast<const uint4*>(words));
        this->scale_of(n, k / this->group, chunk.scale, chunk.zero);
        if (!counts) chunk.scale = from_float<T>(0);
        return chunk;
    }

    __device__ __forceinline__ void begin() const {}

    template <typename Values>
    __device__ __forceinline__ void decode(const Chunk& chunk, int word, Values& values) const {
        const unsigned words[4] = {chunk.words.x, chunk.words.y, chunk.words.z, chunk.words.w};
        ::decode(words[word], chunk.scale, chunk.zero, values);
    }
};

// y [M, N], x [M, K], bias [N] or null; see Int4Weight and few_rows.cuh.
#define W4_GEMV(name, T, multiply, ...)                                                                                        \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__)                                                               \
        name(T* y, const T* x, const unsigned* packed, const T* scale, const unsigned char* zero, const float* bias, int rows, \
             int out_features, int in_features, int group) {                                                                \
        const FewRowsInt4<T> weight = {{packed, scale, zero, in_features, group, in_features / group}};                     \
        multiply(y, x, weight, bias, rows, out_features, in_features);                                                      \
    }

W4_GEMV(w4_gemv_f16, __half, few_rows::multiply, 32 * few_rows::WARPS, 3)
W4_GEMV(w4_gemv_bf16, __nv_bfloat16, few_rows::multiply, 32 * few_rows::WARPS, 3)
W4_GEMV(w4_gemv_f32, float, few_rows::multiply_single, 32 * few_rows::WARPS)

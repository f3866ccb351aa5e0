// int4 weights as a matrix in the activations' type, for a library's product with many rows. See int4.cuh.
#include "int4.cuh"

namespace {

__device__ __forceinline__ void write(float* to, unsigned word, float scale, unsigned zero) {
    float values[8];
    decode(word, scale, zero, values);
    reinterpret_cast<float4*>(to)[0] = make_float4(values[0], values[1], values[2], values[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(values[4], values[5], values[6], values[7]);
}

template <typename T>
__device__ __forceinline__ void write(T* to, unsigned word, T scale, unsigned zero) {
    unsigned pairs[4];
    decode(word, scale, zero, pairs);
    *reinterpret_cast<uint4*>(to) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

}  // namespace

// matrix [count, K]: `count` output channels from `first` on. A thread for each word: ceil(count K / 8 / 256) blocks of 256.
#define W4_DEQUANTIZE(name, T)                                                                                        \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        name(T* matrix, const unsigned* packed, const T* scale, const unsigned char* zero, int first, int count,      \
             int in_features, int group) {                                                                            \
        const Int4Weight<T> weight = {packed, scale, zero, in_features, group, in_features / group};                  \
        const long long word = blockIdx.x * 256LL + threadIdx.x, words = in_features / 8;                             \
        if (word >= count * words) return;                                                                            \
        const int n = first + static_cast<int>(word / words), k = static_cast<int>(word % words) * 8;                 \
        T its_scale;                                                                                                  \
        unsigned its_zero;                                                                                            \
        weight.scale_of(n, k / group, its_scale, its_zero);                                                           \
        write(matrix + 8 * word, packed[first * words + word], its_scale, its_zero);                                  \
    }

W4_DEQUANTIZE(w4_dequantize_f16, __half)
W4_DEQUANTIZE(w4_dequantize_bf16, __nv_bfloat16)
W4_DEQUANTIZE(w4_dequantize_f32, float)

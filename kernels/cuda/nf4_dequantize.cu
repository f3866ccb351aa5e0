// NF4 weights as numbers of the type to compute in, for a library's product with many rows.
#include "nf4.cuh"

namespace {

__device__ __forceinline__ void write(float* to, const float (&values)[8]) {
    reinterpret_cast<float4*>(to)[0] = make_float4(values[0], values[1], values[2], values[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(values[4], values[5], values[6], values[7]);
}

template <typename T>
__device__ __forceinline__ void write(T* to, const float (&values)[8]) {
    unsigned pairs[4];
    for (int i = 0; i < 4; i++) pairs[i] = bits_of(Pair<T>::of(values[2 * i], values[2 * i + 1]));
    *reinterpret_cast<uint4*>(to) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

// Thread t has eight weights from `first` + 8 t on, of which those before `end` are written to `to`[0..]. `first` is a multiple
// of 8; blocks are of any even size.
template <typename T>
__device__ __forceinline__ void dequantize(T* to, const unsigned char* packed, const float (&table)[NF4_TABLE],
                                           const Nf4Absmax& absmax, int block, long long first, long long end) {
    const long long offset = 8 * (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x), mine = first + offset;
    if (mine >= end) return;
    const long long its_block = mine / block;
    if (mine + 8 <= end && mine + 8 <= (its_block + 1) * block) {
        const unsigned word = *reinterpret_cast<const unsigned*>(packed + mine / 2);
        float values[8];
        nf4_decode(table, word, absmax.of(its_block), values);
        write(to + offset, values);
        return;
    }
    for (int i = 0; i < 8 && mine + i < end; i++) {
        const unsigned byte = packed[(mine + i) / 2];
        to[offset + i] = from_float<T>(nf4_value(table, byte, i % 2, absmax.of((mine + i) / block)));
    }
}

}  // namespace

// ceil((end - first) / 8 / 256) blocks of 256 threads; see Nf4Absmax.
#define NF4_DEQUANTIZE(name, T)                                                                                         \
    extern "C" __global__ void __launch_bounds__(256)                                                                   \
        name(T* to, const unsigned char* packed, const float* absmax, const unsigned char* code, const float* map,      \
             const float* scale, float offset, int block, long long first, long long end) {                             \
        __shared__ float table[NF4_TABLE];                                                                              \
        nf4_fill(table);                                                                                                \
        __syncthreads();                                                                                                \
        dequantize(to, packed, table, {absmax, code, map, scale, offset}, block, first, end);                           \
    }

NF4_DEQUANTIZE(nf4_dequantize_f16, __half)
NF4_DEQUANTIZE(nf4_dequantize_bf16, __nv_bfloat16)
NF4_DEQUANTIZE(nf4_dequantize_f32, float)

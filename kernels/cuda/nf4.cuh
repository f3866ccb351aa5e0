// NF4 weights as bitsandbytes stores them: flattened row by row and cut into blocks, two codes a byte, the first in the high
// half. weight = table[code] absmax[block], in float, rounded to the type to compute in.
#ifndef QPIPE_NF4_CUH
#define QPIPE_NF4_CUH

#include "int4.cuh"

// What the codes stand for, as in nf4/mod.rs.
__constant__ float NF4_VALUES[16] = {
    -1.0f,        -0.6961928f,  -0.52507305f, -0.3949175f,  -0.28444138f, -0.18477343f, -0.091050036f, 0.0f,
    0.0795803f,   0.1609302f,   0.2461123f,   0.33791524f,  0.44070983f,  0.562617f,    0.72295684f,   1.0f,
};

// In shared memory a copy for each lane, in the lane's own bank.
constexpr int NF4_TABLE = 16 * 32;

// Fills it, by all threads of a block, which then have to meet at a barrier.
__device__ __forceinline__ void nf4_fill(float (&table)[NF4_TABLE]) {
    for (int i = threadIdx.x; i < NF4_TABLE; i += blockDim.x) table[i] = NF4_VALUES[i / 32];
}

// The largest magnitudes of blocks of `block` weights: `plain`, or where that is null
// map[code[b]] scale[b / 256] + offset, each operation rounded.
struct Nf4Absmax {
    const float* __restrict__ plain;
    const unsigned char* __restrict__ code;
    const float* __restrict__ map;
    const float* __restrict__ scale;
    float offset;

    __device__ __forceinline__ float of(long long block) const {
        if (plain != nullptr) return plain[block];
        return __fadd_rn(__fmul_rn(map[code[block]], scale[block / 256]), offset);
    }
};

// The value of code i of a word of eight, times `absmax`.
__device__ __forceinline__ float nf4_value(const float* table, unsigned word, int i, float absmax) {
    const unsigned code = word >> (8 * (i / 2) + (i % 2 == 0 ? 4 : 0)) & 0xFu;
    return table[32 * code + threadIdx.x % 32] * absmax;
}

// The weights of a word.
__device__ __forceinline__ void nf4_decode(const float* table, unsigned word, float absmax, float (&values)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = nf4_value(table, word, i, absmax);
}

#endif

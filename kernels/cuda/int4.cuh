// 4-bit codes as pairs of 16-bit numbers.
//
// A word of weights holds eight codes of consecutive input channels k..k+7, each as code + 8, in the order
//
//     bits 0..3: k    4..7: k+2    8..11: k+4    12..15: k+6    16..19: k+1    20..23: k+3    24..27: k+5    28..31: k+7
//
// so that a shift and a mask give two neighbours in the halves of a register. Put into the last bits of a number of which
// they are the ones, 1024 in half precision, 128 in bfloat16, they need no conversion: less the same number plus
// the zero point's code they are the difference of both, exactly.
#ifndef QPIPE_INT4_CUH
#define QPIPE_INT4_CUH

#include "floats.cuh"
#include "ptx.cuh"

// Two numbers of type T in a register, the first in the lower half.
template <typename T>
struct Pair;

template <>
struct Pair<__half> {
    using Vector = __half2;
    // 1024 twice.
    static constexpr unsigned ONES = 0x64006400u;

    static __device__ __forceinline__ Vector of(float first, float second) { return __floats2half2_rn(first, second); }
    static __device__ __forceinline__ Vector twice(__half value) { return __half2half2(value); }
    static __device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        mma_m16n8k16_f16(d, a, b);
    }
};

template <>
struct Pair<__nv_bfloat16> {
    using Vector = __nv_bfloat162;
    // 128 twice.
    static constexpr unsigned ONES = 0x43004300u;

    static __device__ __forceinline__ Vector of(float first, float second) {
        return __floats2bfloat162_rn(first, second);
    }
    static __device__ __forceinline__ Vector twice(__nv_bfloat16 value) { return __bfloat162bfloat162(value); }
    static __device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        mma_m16n8k16_bf16(d, a, b);
    }
};

template <typename Vector>
__device__ __forceinline__ unsigned bits_of(Vector pair) {
    return *reinterpret_cast<const unsigned*>(&pair);
}
template <typename Vector>
__device__ __forceinline__ Vector pair_of(unsigned bits) {
    return *reinterpret_cast<const Vector*>(&bits);
}

// An int4 weight [N, K], K and the group multiples of 32: (code - zero) scale. No zeros: 0 everywhere.
template <typename T>
struct Int4Weight {
    // [N, K/8], see above.
    const unsigned* __restrict__ packed;
    // [N, G].
    const T* __restrict__ scale;
    // [N, ceil(G/2)], zero + 8, the first of two in the lower half of a byte; or null.
    const unsigned char* __restrict__ zero;
    int in_features;
    int group;
    int groups;

    // The scale of channel n's group g, and its zero point plus 8.
    __device__ __forceinline__ void scale_of(int n, int g, T& its_scale, unsigned& its_zero) const {
        const size_t channel = static_cast<size_t>(n);
        its_scale = scale[channel * groups + g];
        its_zero = zero == nullptr ? 8u : zero[channel * ((groups + 1) / 2) + g / 2] >> (4 * (g % 2)) & 0xFu;
    }
};

// The eight weights of a word, each rounded to T as the difference times the scale is.
template <typename T>
__device__ __forceinline__ void decode(unsigned word, T scale, unsigned zero, unsigned (&pairs)[4]) {
    using Vector = typename Pair<T>::Vector;
    const Vector factor = Pair<T>::twice(scale);
    const Vector offset = pair_of<Vector>(Pair<T>::ONES | zero * 0x00010001u);
    for (int i = 0; i < 4; i++) {
        const Vector code = pair_of<Vector>((word >> (4 * i) & 0x000F000Fu) | Pair<T>::ONES);
        pairs[i] = bits_of(__hmul2(__hsub2(code, offset), factor));
    }
}

// The same in single precision.
__device__ __forceinline__ void decode(unsigned word, float scale, unsigned zero, float (&values)[8]) {
    for (int i = 0; i < 8; i++) {
        const unsigned code = word >> (4 * (i / 2) + 16 * (i % 2)) & 0xFu;
        values[i] = static_cast<float>(static_cast<int>(code) - static_cast<int>(zero)) * scale;
    }
}

#endif

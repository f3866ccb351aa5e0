// int4 weights as int8, in the order of compressed-tensors: code k of eight, as code + 8, in the bits from 4k on. A word
// gives two registers, its even codes and its odd ones; `evens` and `odds` bring int8 activations into the same order.
//
//   Progressive: (code - zero) scale with an integer scale and zero a group is an int8; one float scale a channel.
//   Grouped: code alone; a float scale a group, for the sum of each group.
//
// Both have a number for each group and channel, [G, P], where P is N filled up to a multiple of 8.
#ifndef QPIPE_W4A8_CUH
#define QPIPE_W4A8_CUH

#include "ptx.cuh"
#include "scaled.cuh"

__device__ __forceinline__ unsigned evens(unsigned low, unsigned high) { return __byte_perm(low, high, 0x6420); }
__device__ __forceinline__ unsigned odds(unsigned low, unsigned high) { return __byte_perm(low, high, 0x7531); }

// Byte by byte, without borrowing from the next.
__device__ __forceinline__ unsigned minus_bytes(unsigned a, unsigned b) {
    const unsigned signs = 0x80808080u;
    return ((a | signs) - (b & ~signs)) ^ ((a ^ ~b) & signs);
}

struct Progressive {
    // The scale, from 1 to 16, in the lower byte; scale (zero + 8), up to 240, in the upper.
    using Group = unsigned short;
    // Exact sums of all groups.
    using Sum = int;
    static constexpr bool SCALES_SUMS = false;

    static __device__ __forceinline__ void decode(unsigned word, Group group, unsigned (&codes)[2]) {
        const unsigned scale = group & 0xFFu, zero = (group >> 8) * 0x01010101u;
        // At most 15 times 16: products stay in their bytes.
        codes[0] = minus_bytes((word & 0x0F0F0F0Fu) * scale, zero);
        codes[1] = minus_bytes((word >> 4 & 0x0F0F0F0Fu) * scale, zero);
    }
    static __device__ __forceinline__ void add(Sum& total, int sum, Group) { total += sum; }
};

template <typename T>
struct Grouped {
    using Group = T;
    using Sum = float;
    static constexpr bool SCALES_SUMS = true;

    // 16 times the codes: four bits that are moved up keep their sign.
    static __device__ __forceinline__ void decode(unsigned word, Group, unsigned (&codes)[2]) {
        codes[0] = (word << 4 & 0xF0F0F0F0u) ^ 0x80808080u;
        codes[1] = (word & 0xF0F0F0F0u) ^ 0x80808080u;
    }
    // `sum` of one group.
    static __device__ __forceinline__ void add(Sum& total, int sum, Group scale) {
        total = fmaf(__int2float_rn(sum), to_float(scale) * 0.0625f, total);
    }
};

// What sums of a channel become: its part of the scales, loaded once.
struct ChannelScales {
    float scale;
    float bias;
    bool has_bias;

    __device__ __forceinline__ ChannelScales(const Scales& scales, int channel)
        : scale(scales.channel == nullptr ? 1.0f : scales.channel[channel]),
          bias(scales.bias == nullptr ? 0.0f : scales.bias[channel]),
          has_bias(scales.bias != nullptr) {}

    template <typename T>
    __device__ __forceinline__ T finished(int sum, float row_scale) const {
        // The roundings of `scaled` in the mode PLAIN.
        const float value = __fmul_rn(__fmul_rn(__int2float_rn(sum), row_scale), scale);
        return from_float<T>(has_bias ? __fadd_rn(value, bias) : value);
    }
    template <typename T>
    __device__ __forceinline__ T finished(float sum, float row_scale) const {
        const float value = sum * row_scale;
        return from_float<T>(has_bias ? value + bias : value);
    }
};

#endif

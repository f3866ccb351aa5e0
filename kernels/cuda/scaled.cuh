// What becomes of an int32 sum of int8 products: times the scales of its row and channel, plus a bias, in the type of
// the activations; the operations and roundings of reference.rs and llm_int8/mod.rs, none of them contracted.
#ifndef QPIPE_SCALED_CUH
#define QPIPE_SCALED_CUH

#include "floats.cuh"

// The type of outputs.
enum Kind { F32 = 0, F16 = 1, BF16 = 2 };

enum Mode {
    PLAIN = 0,
    // torchao rounds to the activations' type between the two scales.
    ROUNDED = 1,
    // LLM.int8(): scales are largest magnitudes.
    MAGNITUDES = 2,
};

// 1 / 127^2, but for bitsandbytes' last digit.
constexpr float SUM_SCALE = 6.200124e-5f;

// float [rows], [channels], [channels] (may be null).
struct Scales {
    const float* row;
    const float* channel;
    const float* bias;
    int mode;
};

template <typename T>
__device__ __forceinline__ T scaled(int sum, float row_scale, int channel, const Scales& scales) {
    float value = __int2float_rn(sum);
    if (scales.mode == MAGNITUDES) {
        value = __fmul_rn(__fmul_rn(__fmul_rn(row_scale, scales.channel[channel]), value), SUM_SCALE);
    } else {
        value = __fmul_rn(value, row_scale);
        if (scales.mode == ROUNDED) value = rounded<T>(value);
        value = __fmul_rn(value, scales.channel[channel]);
    }
    if (scales.bias != nullptr) value = __fadd_rn(value, scales.bias[channel]);
    return from_float<T>(value);
}

#endif

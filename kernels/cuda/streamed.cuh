// y = x W^T + bias for at most four rows of x, straight from a weight in 4 bits: few_rows.cuh's with another division of
// the work, which leaves a lane half of the activations to load, and registers for more weights under way. A Weight says
// how 32 weights of an output channel are loaded (`load`, which must not look at what it loads, or all would wait for it)
// and what they stand for (`decode`).
//
// A block of 8 warps has 8 output channels, and each warp every eighth 256 input channels. The weights are the first
// matrix of mma: its rows q and q + 8 are channel q's first and second half of the 256. Columns 2m and 2m + 1 of the
// second matrix are the same halves of row m of x, so that of the product [q, 2m] and [q + 8, 2m + 1] count, which lane
// 4q + m has both of. Which of mma's k an input channel is does not matter as long as both matrices agree: lane 4q + r
// takes from each half the 32 input channels from 32r on, 16 bytes of 4-bit codes.
#ifndef QPIPE_STREAMED_CUH
#define QPIPE_STREAMED_CUH

#include "few_rows.cuh"

namespace streamed {

using few_rows::CHUNK;
using few_rows::NOTHING;

constexpr int WARPS = 8;
constexpr int CHANNELS = 8;
constexpr int ROWS = 4;
// Blocks of a multiprocessor at a time, for which a thread has 64 registers.
constexpr int BLOCKS = 4;

// Grid: ceil(N / CHANNELS), blocks of 32 WARPS threads. x [M, K] at a multiple of 16 bytes, M up to ROWS, K a multiple of
// 32. Weights are loaded two steps before they are multiplied, so that the memory always has something to do.
template <typename T, typename Weight>
__device__ __forceinline__ void multiply(T* y, const T* x, const Weight& weight, const float* bias, int rows,
                                         int out_features, int in_features) {
    constexpr int AHEAD = 2, HALF = 4 * CHUNK, STEP = WARPS * 2 * HALF;
    __shared__ float partial[WARPS][ROWS][CHANNELS];
    const int lane = threadIdx.x % 32, q = lane / 4, r = lane % 4;
    // By a shuffle, so that the compiler sees that a warp's lanes go the same way.
    const int warp = __shfl_sync(0xFFFFFFFFu, static_cast<int>(threadIdx.x) / 32, 0);
    const int first_channel = blockIdx.x * CHANNELS, begin = warp * 2 * HALF;
    // What stands for a channel or a row beyond the last is not written.
    const int channel = min(first_channel + q, out_features - 1);
    const T* row = x + static_cast<size_t>(min(q / 2, rows - 1)) * in_features;

    struct Loaded {
        typename Weight::Chunk first, second;
    };
    // Beyond the last input channel the first is loaded, for activations of 0: within a warp there are no conditions.
    const auto load = [&](int start) -> Loaded {
        const int first = start + CHUNK * r, second = first + HALF;
        return {weight.load(channel, first < in_features ? first : 0),
                weight.load(channel, second < in_features ? second : 0)};
    };
    Loaded ahead[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        if (begin + i * STEP < in_features) ahead[i] = load(begin + i * STEP);
    }

    // Two times, as a product waits for the one before it.
    float sums[2][4] = {};
    const auto step = [&](int start, Loaded& loaded) {
        const int k = start + HALF * (q % 2) + CHUNK * r;
        const uint4* from = k < in_features ? reinterpret_cast<const uint4*>(row + k) : NOTHING;
        uint4 activations[4];
#pragma unroll
        for (int i = 0; i < 4; i++) activations[i] = from[i];
#pragma unroll
        for (int word = 0; word < 4; word++) {
            unsigned first[4], second[4];
            weight.decode(loaded.first, word, first);
            weight.decode(loaded.second, word, second);
            const uint4 of_x = activations[word];
            const unsigned low[4] = {first[0], second[0], first[1], second[1]}, low_x[2] = {of_x.x, of_x.y};
            Pair<T>::mma(sums[0], low, low_x);
            const unsigned high[4] = {first[2], second[2], first[3], second[3]}, high_x[2] = {of_x.z, of_x.w};
            Pair<T>::mma(sums[1], high, high_x);
        }
        if (start + AHEAD * STEP < in_features) loaded = load(start + AHEAD * STEP);
    };
    for (int start = begin; start < in_features; start += AHEAD * STEP) {
        // Where a thing loaded lies has to be known when this is compiled.
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (start + i * STEP < in_features) step(start + i * STEP, ahead[i]);
        }
    }

    partial[warp][r][q] = (sums[0][0] + sums[1][0]) + (sums[0][3] + sums[1][3]);
    __syncthreads();
    if (threadIdx.x >= ROWS * CHANNELS) return;
    const int c = threadIdx.x % CHANNELS, m = threadIdx.x / CHANNELS, n = first_channel + c;
    if (n >= out_features || m >= rows) return;
    float sum = 0;
    for (int i = 0; i < WARPS; i++) sum += partial[i][m][c];
    y[static_cast<size_t>(m) * out_features + n] = from_float<T>(bias == nullptr ? sum : sum + bias[n]);
}

}  // namespace streamed

#endif

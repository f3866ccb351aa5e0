// y = x W^T + bias for few rows of x, straight from a weight in few bits that is read once: what it takes is the time of
// reading it. A Weight says how 32 weights of an output channel are loaded (`load`; they count 0 where not `counts`) and
// what they stand for (`decode`), and what all threads of a block do together between the two (`begin`).
//
// In 16 bits a block of 8 warps has 16 output channels and 8 rows: the weights are the first matrix of mma, the rows of
// x the second, and each warp has every eighth 128 input channels. Which of mma's k an input channel is does not matter
// as long as both matrices agree: lane 4q + r takes the 32 input channels from 32r on, 16 bytes of 4-bit codes.
#ifndef QPIPE_FEW_ROWS_CUH
#define QPIPE_FEW_ROWS_CUH

#include "int4.cuh"

namespace few_rows {

constexpr int WARPS = 8;
constexpr int CHANNELS = 16;
constexpr int ROWS = 8;
// Input channels that a lane takes at once.
constexpr int CHUNK = 32;

// What stands for activations beyond the last.
__device__ const uint4 NOTHING[4] = {};

// Grid: (ceil(N / CHANNELS), ceil(M / ROWS)), blocks of 32 WARPS threads. x [M, K] at a multiple of 16 bytes, K of 32.
// Weights are loaded AHEAD steps before they are multiplied: one, for more took no less time.
template <int AHEAD = 1, typename T, typename Weight>
__device__ __forceinline__ void multiply(T* y, const T* x, const Weight& weight, const float* bias, int rows,
                                         int out_features, int in_features) {
    constexpr int STEP = WARPS * 4 * CHUNK;
    __shared__ float partial[WARPS][ROWS][CHANNELS];
    const int lane = threadIdx.x % 32, q = lane / 4, r = lane % 4;
    // By a shuffle, so that the compiler sees that a warp's lanes go the same way.
    const int warp = __shfl_sync(0xFFFFFFFFu, static_cast<int>(threadIdx.x) / 32, 0);
    const int first_channel = blockIdx.x * CHANNELS, first_row = blockIdx.y * ROWS;
    // What stands for a channel or a row beyond the last is not written.
    const int channel = min(first_channel + q, out_features - 1), other = min(first_channel + q + 8, out_features - 1);
    const T* row = x + static_cast<size_t>(min(first_row + q, rows - 1)) * in_features;

    struct Loaded {
        typename Weight::Chunk mine, below;
    };
    // Beyond the last input channel the first is loaded, and counts 0: within a warp there are no conditions.
    const auto load = [&](int start) -> Loaded {
        const bool inside = start + CHUNK * r < in_features;
        const int k = inside ? start + CHUNK * r : 0;
        return {weight.load(channel, k, inside), weight.load(other, k, inside)};
    };
    const int begin = warp * 4 * CHUNK;
    Loaded ahead[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        if (begin + i * STEP < in_features) ahead[i] = load(begin + i * STEP);
    }
    weight.begin();

    float sums[4] = {};
    const auto step = [&](int start, Loaded& loaded) {
        const int k = start + CHUNK * r;
        const uint4* from = k < in_features ? reinterpret_cast<const uint4*>(row + k) : NOTHING;
        unsigned activations[CHUNK / 2];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint4 part = from[i];
            activations[4 * i] = part.x;
            activations[4 * i + 1] = part.y;
            activations[4 * i + 2] = part.z;
            activations[4 * i + 3] = part.w;
        }
        const Loaded now = loaded;
        if (start + AHEAD * STEP < in_features) loaded = load(start + AHEAD * STEP);
#pragma unroll
        for (int word = 0; word < 4; word++) {
            unsigned upper[4], lower[4];
            weight.decode(now.mine, word, upper);
            weight.decode(now.below, word, lower);
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                const unsigned a[4] = {upper[i], lower[i], upper[i + 1], lower[i + 1]};
                const unsigned b[2] = {activations[4 * word + i], activations[4 * word + i + 1]};
                Pair<T>::mma(sums, a, b);
            }
        }
    };
    for (int start = begin; start < in_features; start += AHEAD * STEP) {
        // Where a thing loaded lies has to be known when this is compiled.
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (start + i * STEP < in_features) step(start + i * STEP, ahead[i]);
        }
    }

    partial[warp][2 * r][q] = sums[0];
    partial[warp][2 * r + 1][q] = sums[1];
    partial[warp][2 * r][q + 8] = sums[2];
    partial[warp][2 * r + 1][q + 8] = sums[3];
    __syncthreads();
    if (threadIdx.x >= ROWS * CHANNELS) return;
    const int n = first_channel + threadIdx.x % CHANNELS, m = first_row + threadIdx.x / CHANNELS;
    if (n >= out_features || m >= rows) return;
    float sum = 0;
    for (int i = 0; i < WARPS; i++) sum += partial[i][threadIdx.x / CHANNELS][threadIdx.x % CHANNELS];
    y[static_cast<size_t>(m) * out_features + n] = from_float<T>(bias == nullptr ? sum : sum + bias[n]);
}

// In single precision, which tensor cores have not: a warp an output channel.
// Grid: (ceil(N / WARPS), ceil(M / ROWS)), blocks of 32 WARPS threads. x [M, K] at a multiple of 16 bytes, K of 32.
template <typename Weight>
__device__ __forceinline__ void multiply_single(float* y, const float* x, const Weight& weight, const float* bias, int rows,
                                                int out_features, int in_features) {
    const int lane = threadIdx.x % 32, n = blockIdx.x * WARPS + threadIdx.x / 32;
    const int first_row = blockIdx.y * ROWS, count = min(ROWS, rows - first_row);
    weight.begin();
    if (n >= out_features) return;
    x += static_cast<size_t>(first_row) * in_features;
    y += static_cast<size_t>(first_row) * out_features;

    float sums[ROWS] = {};
    for (int k = CHUNK * lane; k < in_features; k += 32 * CHUNK) {
        const typename Weight::Chunk chunk = weight.load(n, k, true);
#pragma unroll
        for (int word = 0; word < 4; word++) {
            float values[8];
            weight.decode(chunk, word, values);
#pragma unroll
            for (int m = 0; m < ROWS; m++) {
                if (m >= count) continue;
                const float4* row = reinterpret_cast<const float4*>(x + static_cast<size_t>(m) * in_features + k + 8 * word);
                const float4 low = row[0], high = row[1];
                const float activations[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
                for (int i = 0; i < 8; i++) sums[m] = fmaf(values[i], activations[i], sums[m]);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < ROWS; m++) {
        const float sum = warp_sum(sums[m]);
        if (lane == 0 && m < count) y[static_cast<size_t>(m) * out_features + n] = bias == nullptr ? sum : sum + bias[n];
    }
}

}  // namespace few_rows

#endif

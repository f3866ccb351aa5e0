// y = x W^T + bias for few rows of x, straight from a weight in few bits that is read once: what it takes is the time of
// reading it. A Weight says how 32 weights of an output channel are loaded (`load`; they count 0 where not `counts`) and
// what they stand for (`decode`).
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

// Grid: (ceil(N / CHANNELS), ceil(M / ROWS)), blocks of 32 WARPS threads. x [M, K] at a multiple of 16 bytes, K of 32.
template <typename T, typename Weight>
__device__ __forceinline__ void multiply(T* y, const T* x, const Weight& weight, const float* bias, int rows,
                                         int out_features, int in_features) {
    __shared__ float partial[WARPS][ROWS][CHANNELS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, q = lane / 4, r = lane % 4;
    const int first_channel = blockIdx.x * CHANNELS, first_row = blockIdx.y * ROWS;
    // What stands for a channel beyond the last is not written.
    const int channel = min(first_channel + q, out_features - 1), other = min(first_channel + q + 8, out_features - 1);
    const bool has_row = first_row + q < rows;
    const T* row = x + static_cast<size_t>(has_row ? first_row + q : 0) * in_features;

    float sums[4] = {};
#pragma unroll 2
    for (int start = warp * 4 * CHUNK; start < in_features; start += WARPS * 4 * CHUNK) {
        // Loads have no conditions, so that many are under way: beyond the last channel the first is loaded, and counts 0.
        const bool inside = start + CHUNK * r < in_features;
        const int k = inside ? start + CHUNK * r : 0;
        const typename Weight::Chunk mine = weight.load(channel, k, inside), below = weight.load(other, k, inside);
        unsigned activations[CHUNK / 2];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint4 part = reinterpret_cast<const uint4*>(row + k)[i];
            activations[4 * i] = inside && has_row ? part.x : 0;
            activations[4 * i + 1] = inside && has_row ? part.y : 0;
            activations[4 * i + 2] = inside && has_row ? part.z : 0;
            activations[4 * i + 3] = inside && has_row ? part.w : 0;
        }
#pragma unroll
        for (int word = 0; word < 4; word++) {
            unsigned upper[4], lower[4];
            weight.decode(mine, word, upper);
            weight.decode(below, word, lower);
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                const unsigned a[4] = {upper[i], lower[i], upper[i + 1], lower[i + 1]};
                const unsigned b[2] = {activations[4 * word + i], activations[4 * word + i + 1]};
                Pair<T>::mma(sums, a, b);
            }
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

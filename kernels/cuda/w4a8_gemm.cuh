// int8 activations times int4 weights for many rows, see w4a8.cuh: weights become int8 in the registers that tensor cores
// multiply from, sums are exact in int32.
//
// A block of 8 warps, 2 by 4, has TILES 32 rows and 128 output channels; it goes through the input channels 128 at a time,
// copies under way for the next. Of each 32 lane 4q + r takes the 8 from 8r on: which of mma's k an input channel is does
// not matter as long as both matrices agree.
#ifndef QPIPE_W4A8_GEMM_CUH
#define QPIPE_W4A8_GEMM_CUH

#include "w4a8.cuh"

constexpr int STAGES = 3;
constexpr int THREADS = 256;
constexpr int CHANNELS = 128;
// Input channels of a step, and those that share a group whatever its size.
constexpr int STEP = 128;
constexpr int BLOCK = 32;
constexpr int BLOCKS = STEP / BLOCK;
// 16-byte parts of a step in a row of x and in a channel's codes.
constexpr int ROW_PARTS = 8;
constexpr int CODE_PARTS = 4;
// Tiles of 8 output channels of a warp.
constexpr int COLUMNS = 4;

// What a stage of the copies has.
template <typename Group, int TILES>
struct Stage {
    // Part c of row m lies at c ^ 2 (m % 4), part c of channel n at c ^ (n / 2 % 4): lanes that read together meet no bank
    // twice.
    uint4 rows[32 * TILES * ROW_PARTS];
    uint4 codes[CHANNELS * CODE_PARTS];
    // Of each BLOCK input channels.
    Group groups[BLOCKS][CHANNELS];
};

// Grid: (ceil(M / 32 TILES), ceil(N / 128)), blocks of 256 threads, dynamic shared memory for STAGES stages. K and the
// group are multiples of 32.
template <typename T, typename Scheme, int TILES>
__device__ __forceinline__ void multiply(T* y, const signed char* x, const unsigned* packed,
                                         const typename Scheme::Group* groups, const Scales& scales, int rows,
                                         int out_features, int in_features, int group) {
    using Group = typename Scheme::Group;
    constexpr int PER_PART = 16 / sizeof(Group), GROUP_PARTS = CHANNELS / PER_PART;
    extern __shared__ uint4 dynamic_shared[];
    Stage<Group, TILES>* stages = reinterpret_cast<Stage<Group, TILES>*>(dynamic_shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, q = lane / 4, r = lane % 4;
    const int first_row = blockIdx.x * 32 * TILES, first_channel = blockIdx.y * CHANNELS;
    const int warp_row = warp / 4 * 16 * TILES, warp_channel = warp % 4 * 8 * COLUMNS;
    const int steps = (in_features + STEP - 1) / STEP, stride = (out_features + 7) / 8 * 8;

    const auto begin = [&](int step) {
        if (step < steps) {
            Stage<Group, TILES>& stage = stages[step % STAGES];
            for (int i = threadIdx.x; i < 32 * TILES * ROW_PARTS; i += THREADS) {
                const int m = i / ROW_PARTS, part = i % ROW_PARTS, k = step * STEP + 16 * part;
                const bool valid = first_row + m < rows && k < in_features;
                const size_t place = valid ? static_cast<size_t>(first_row + m) * in_features + k : 0;
                cp_async16(&stage.rows[m * ROW_PARTS + (part ^ 2 * (m % 4))], x + place, valid);
            }
            for (int i = threadIdx.x; i < CHANNELS * CODE_PARTS; i += THREADS) {
                const int n = i / CODE_PARTS, part = i % CODE_PARTS, k = step * STEP + BLOCK * part;
                const bool valid = first_channel + n < out_features && k < in_features;
                const size_t place = valid ? static_cast<size_t>(first_channel + n) * (in_features / 8) + k / 8 : 0;
                cp_async16(&stage.codes[n * CODE_PARTS + (part ^ (n / 2 % 4))], packed + place, valid);
            }
            for (int i = threadIdx.x; i < BLOCKS * GROUP_PARTS; i += THREADS) {
                const int block = i / GROUP_PARTS, n = i % GROUP_PARTS * PER_PART, k = step * STEP + BLOCK * block;
                const bool valid = first_channel + n < stride && k < in_features;
                const size_t place = valid ? static_cast<size_t>(k / group) * stride + first_channel + n : 0;
                cp_async16(&stage.groups[block][n], groups + place, valid);
            }
        }
        // An empty group too, so that groups can be counted.
        cp_async_commit();
    };

    int sums[TILES][COLUMNS][4] = {};
    float totals[Scheme::SCALES_SUMS ? TILES : 1][COLUMNS][4] = {};
    for (int step = 0; step < STAGES - 1; step++) begin(step);
    for (int step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>();
        // All warps see this step's bytes, and none reads those of the step before any more.
        __syncthreads();
        begin(step + STAGES - 1);
        const Stage<Group, TILES>& stage = stages[step % STAGES];
// Not unrolled: the compiler would take a minute.
#pragma unroll 1
        for (int block = 0; block < BLOCKS; block++) {
            const int end = step * STEP + BLOCK * (block + 1);
            if (end > in_features) break;
            unsigned a[TILES][4];
#pragma unroll
            for (int i = 0; i < TILES; i++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int m = warp_row + 16 * i + 8 * half + q, part = (2 * block + r / 2) ^ 2 * (m % 4);
                    const uint2 bytes = reinterpret_cast<const uint2*>(&stage.rows[m * ROW_PARTS + part])[r % 2];
                    a[i][half] = evens(bytes.x, bytes.y);
                    a[i][half + 2] = odds(bytes.x, bytes.y);
                }
            }
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                const int n = warp_channel + 8 * j + q, part = block ^ (n / 2 % 4);
                const unsigned word = reinterpret_cast<const unsigned*>(&stage.codes[n * CODE_PARTS + part])[r];
                unsigned b[2];
                Scheme::decode(word, stage.groups[block][n], b);
#pragma unroll
                for (int i = 0; i < TILES; i++) mma_m16n8k32_s8(sums[i][j], a[i], b);
            }
            if constexpr (Scheme::SCALES_SUMS) {
                if (end % group != 0) continue;
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) {
#pragma unroll
                    for (int part = 0; part < 4; part++) {
                        const Group scale = stage.groups[block][warp_channel + 8 * j + 2 * r + part % 2];
#pragma unroll
                        for (int i = 0; i < TILES; i++) {
                            Scheme::add(totals[i][j][part], sums[i][j][part], scale);
                            sums[i][j][part] = 0;
                        }
                    }
                }
            }
        }
    }

    float row_scales[2 * TILES];
#pragma unroll
    for (int i = 0; i < 2 * TILES; i++) row_scales[i] = scales.row[min(first_row + warp_row + 8 * i + q, rows - 1)];
    const bool in_pairs = out_features % 2 == 0;
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        const int n = first_channel + warp_channel + 8 * j + 2 * r;
        if (n >= out_features) continue;
        const bool has_second = n + 1 < out_features;
        const ChannelScales both[2] = {ChannelScales(scales, n), ChannelScales(scales, has_second ? n + 1 : n)};
#pragma unroll
        for (int i = 0; i < 2 * TILES; i++) {
            const int m = first_row + warp_row + 8 * i + q;
            if (m >= rows) continue;
            T results[2];
            for (int part = 0; part < 2; part++) {
                if constexpr (Scheme::SCALES_SUMS) {
                    results[part] = both[part].template finished<T>(totals[i / 2][j][i % 2 * 2 + part], row_scales[i]);
                } else {
                    results[part] = both[part].template finished<T>(sums[i / 2][j][i % 2 * 2 + part], row_scales[i]);
                }
            }
            write_pair(y + static_cast<size_t>(m) * out_features + n, results[0], results[1], has_second, in_pairs);
        }
    }
}

// Parameters are those of W4A8_GEMV; groups lie at a multiple of 16 bytes too.
#define W4A8_GEMM(name, T, Scheme, TILES)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                  \
        name(T* y, const signed char* x, const unsigned* packed, const Scheme::Group* groups, const float* row_scales,     \
             const float* channel_scales, const float* bias, int rows, int out_features, int in_features, int group) {     \
        const Scales scales = {row_scales, channel_scales, bias, PLAIN};                                                   \
        multiply<T, Scheme, TILES>(y, x, packed, groups, scales, rows, out_features, in_features, group);                  \
    }

#endif

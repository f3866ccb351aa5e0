// int8_gemm.cu's products by what compute capability 9.0 has for them: y [m, n] = scaled(codes [m, k] weight [n, k]^T), sums
// exact in int32. Where the architecture is another, the entries do nothing.
//
// k is a multiple of 16 and not 0; m and n are any. One thread of a block, the first behind those that multiply, has boxes of
// both operands copied into a ring of STAGES stages of 128 bytes of k; a warpgroup for each 64 rows of the tile multiplies
// them. Blocks stay and make one tile after the other, so that the next tile's operands come while this one's sums are
// written. Blocks are paired: the two tiles of a pair lie beside each other and share the rows of one operand, of which each
// block copies a half for both. Without that the second-level cache could not feed the products.
//
//   entry        tile        shared     threads   stages   dynamic shared memory     blocks on a multiprocessor
//   _64x64       64 x  64    codes      160        5        99,408                    2
//   _128x64     128 x  64    codes      288        8       230,528                    1
//   _128x128    128 x 128    codes      288        6       230,496                    1
//   _128x256    128 x 256    weight     384        4       230,464                    1
//
// Grid: an even number of blocks, best as many as fit at once, but at most two for each pair of tiles; there are
// ceil(m / BM) ceil(n / BN / 2) pairs where codes are shared, ceil(m / BM / 2) ceil(n / BN) otherwise.
//
// Maps, of both operands and for every entry: bytes, 2 dimensions {k, rows} with k bytes between rows, boxes of {128, 64},
// SWIZZLE_128B, no interleaving, zeros beyond the matrix.

#include "hopper.cuh"
#include "scaled.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Bytes of k in a stage, rows of a box, and its bytes.
constexpr int WIDTH = 128, BOX_ROWS = 64, BOX = WIDTH * BOX_ROWS;
// Pairs of tiles in a column that follow each other before the next column.
constexpr int PAIRS_TOGETHER = 8;
// Columns of sums that a warp writes at once, and their bytes for its 16 rows.
constexpr int CHUNK = 64, STAGED = 16 * CHUNK * 4;

// The blocks of a pair, as copy_box_to_blocks() names them.
constexpr unsigned BOTH = 3;

// What the tiles of a pair share.
enum Shared { CODES, WEIGHT };

// The places of this block's tiles, one after the other; both blocks of a pair have equally many. The first row or column
// may lie beyond the matrix.
template <int BM, int BN, Shared SHARED>
struct Tiles {
    static constexpr int ROWS = SHARED == WEIGHT ? 2 : 1, COLUMNS = SHARED == CODES ? 2 : 1;
    int pairs_m, pairs_n, pair, in_pair;
    int first_row, first_column;

    __device__ __forceinline__ Tiles(int m, int n, int number)
        : pairs_m((m + BM * ROWS - 1) / (BM * ROWS)), pairs_n((n + BN * COLUMNS - 1) / (BN * COLUMNS)),
          pair(blockIdx.x / 2), in_pair(number), first_row(0), first_column(0) {}

    // Whether there is one more.
    __device__ __forceinline__ bool next() {
        if (pair >= pairs_m * pairs_n) return false;
        const int group = pair / (PAIRS_TOGETHER * pairs_n), in_group = pair % (PAIRS_TOGETHER * pairs_n);
        const int height = min(PAIRS_TOGETHER, pairs_m - group * PAIRS_TOGETHER);
        first_row = ((group * PAIRS_TOGETHER + in_group % height) * ROWS + (SHARED == WEIGHT ? in_pair : 0)) * BM;
        first_column = (in_group / height * COLUMNS + (SHARED == CODES ? in_pair : 0)) * BN;
        pair += gridDim.x / 2;
        return true;
    }
};

// Where four sums, number `four` of a row of CHUNK, lie among a warp's staged ones, in int: both what a fragment writes at
// once and what eight threads read of a row fall into different banks.
__device__ __forceinline__ int staged_place(int row, int four) {
    return row * CHUNK + ((four ^ (four >> 3)) ^ ((row & 7) * 2)) * 4;
}

// The scales and biases of eight neighbouring channels.
struct Channels {
    float scale[8], bias[8];

    static __device__ __forceinline__ void load(float (&to)[8], const float* from, int channel, int n) {
        from += channel;
        if (channel + 8 <= n && reinterpret_cast<unsigned long long>(from) % 16 == 0) {
            const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
            to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
            to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++) to[i] = channel + i < n ? from[i] : 0.0f;
        }
    }

    __device__ __forceinline__ void load(const Scales& scales, int channel, int n) {
        load(scale, scales.channel, channel, n);
        // Adding -0 changes no number, 0 and -0 included.
#pragma unroll
        for (int i = 0; i < 8; i++) bias[i] = -0.0f;
        if (scales.bias != nullptr) load(bias, scales.bias, channel, n);
    }
};

// Rounds two neighbours at once.
__device__ __forceinline__ void put_pair(float* to, float first, float second) { to[0] = first, to[1] = second; }
__device__ __forceinline__ void put_pair(__half* to, float first, float second) {
    *reinterpret_cast<__half2*>(to) = __floats2half2_rn(first, second);
}
__device__ __forceinline__ void put_pair(__nv_bfloat16* to, float first, float second) {
    *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(first, second);
}

// Writes a warp's outputs of CHUNK columns from its staged sums: a thread has eight neighbours in every fourth row.
template <int MODE, bool BIASES, typename T>
__device__ __forceinline__ void write(
    T* y, const int* staged, const float (&row_scales)[4], const Channels& channels, int first_row, int first_column, int m,
    int n) {
    const int lane = threadIdx.x % 32, eight = lane % 8;
    const int channel = first_column + eight * 8;
    const Scales scales = {nullptr, channels.scale, BIASES ? channels.bias : nullptr, MODE};
    const bool whole = n % 8 == 0;
#pragma unroll
    for (int step = 0; step < 4; step++) {
        const int row = step * 4 + lane / 8;
        const int4 low = *reinterpret_cast<const int4*>(staged + staged_place(row, eight * 2));
        const int4 high = *reinterpret_cast<const int4*>(staged + staged_place(row, eight * 2 + 1));
        const int sums[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        union Outputs {
            T values[8];
            uint4 words[sizeof(T) / 2];
            __device__ Outputs() {}
        } outputs;
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
            if constexpr (MODE == ROUNDED) {
                outputs.values[i] = scaled<T>(sums[i], row_scales[step], i, scales);
                outputs.values[i + 1] = scaled<T>(sums[i + 1], row_scales[step], i + 1, scales);
            } else {
                // T matters at the end only.
                const float first = scaled<float>(sums[i], row_scales[step], i, scales);
                const float second = scaled<float>(sums[i + 1], row_scales[step], i + 1, scales);
                put_pair(outputs.values + i, first, second);
            }
        }
        if (first_row + row >= m || channel >= n) continue;
        T* out = y + static_cast<long long>(first_row + row) * n + channel;
        if (whole) {
#pragma unroll
            for (int i = 0; i < static_cast<int>(sizeof(T) / 2); i++) reinterpret_cast<uint4*>(out)[i] = outputs.words[i];
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (channel + i < n) out[i] = outputs.values[i];
            }
        }
    }
}

// A loop for each mode. The one that is in most use has a second loop, which adds nothing where there are no biases.
template <typename T>
__device__ __forceinline__ void write_in_mode(
    int mode, bool biases, void* y, const int* staged, const float (&row_scales)[4], const Channels& channels, int first_row,
    int first_column, int m, int n) {
    T* out = static_cast<T*>(y);
    switch (mode) {
        case PLAIN:
            if (biases) return write<PLAIN, true>(out, staged, row_scales, channels, first_row, first_column, m, n);
            return write<PLAIN, false>(out, staged, row_scales, channels, first_row, first_column, m, n);
        case ROUNDED: return write<ROUNDED, true>(out, staged, row_scales, channels, first_row, first_column, m, n);
        case MAGNITUDES: return write<MAGNITUDES, true>(out, staged, row_scales, channels, first_row, first_column, m, n);
    }
}

template <int BM, int BN, int STAGES, Shared SHARED, bool MOVE_REGISTERS>
__device__ __forceinline__ void gemm(
    const TensorMap& codes, const TensorMap& weight, void* y, int m, int n, int k, int kind, const Scales& scales) {
    constexpr int WARPGROUPS = BM / 64, CONSUMERS = WARPGROUPS * 128;
    constexpr int STAGE = (BM + BN) * WIDTH;
    static_assert(BM % 64 == 0 && BN % 64 == 0, "tiles are of whole boxes");
    extern __shared__ uint4 dynamic_shared[];
    // Swizzled rows lie by address: the ring begins at a multiple of 1024. The places are the same in both blocks.
    unsigned char* ring = reinterpret_cast<unsigned char*>(dynamic_shared);
    ring += (1024 - shared_address(ring) % 1024) % 1024;
    const unsigned ring_address = shared_address(ring);
    int* staged = reinterpret_cast<int*>(ring + STAGES * STAGE);
    const unsigned full = shared_address(staged) + WARPGROUPS * 4 * STAGED, empty = full + STAGES * 8;

    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            // The thread that copies announces a stage's bytes.
            make_barrier(full + stage * 8, 1);
            // Every warp that multiplies, of both blocks: the pair's shared boxes go to both.
            make_barrier(empty + stage * 8, 2 * WARPGROUPS * 4);
        }
        fence_barriers();
    }
    sync_cluster();

    const int blocks_of_k = (k + WIDTH - 1) / WIDTH;
    const int number = number_in_cluster();
    Tiles<BM, BN, SHARED> tiles(m, n, number);
    Stage<STAGES> stage;
    if (threadIdx.x >= CONSUMERS) {
        if constexpr (MOVE_REGISTERS) leave_registers<40>();
        if (threadIdx.x == CONSUMERS) {
            prefetch_map(codes);
            prefetch_map(weight);
            while (tiles.next()) {
#pragma unroll 1
                for (int block = 0; block < blocks_of_k; block++) {
                    wait_for_phase(empty + stage.number * 8, stage.parity ^ 1);
                    const unsigned barrier = full + stage.number * 8;
                    const unsigned to = ring_address + stage.number * STAGE;
                    // All bytes, those that the other block copies here as well; zeros beyond the matrix count.
                    arrive_expecting(barrier, STAGE);
#pragma unroll
                    for (int box = 0; box < BM / BOX_ROWS; box++) {
                        const int row = tiles.first_row + box * BOX_ROWS;
                        if constexpr (SHARED != CODES) {
                            copy_box(to + box * BOX, codes, block * WIDTH, row, barrier);
                        } else if ((box + block) % 2 == number) {
                            copy_box_to_blocks(to + box * BOX, codes, block * WIDTH, row, barrier, BOTH);
                        }
                    }
#pragma unroll
                    for (int box = 0; box < BN / BOX_ROWS; box++) {
                        const int row = tiles.first_column + box * BOX_ROWS;
                        if constexpr (SHARED != WEIGHT) {
                            copy_box(to + BM * WIDTH + box * BOX, weight, block * WIDTH, row, barrier);
                        } else if ((box + block) % 2 == number) {
                            copy_box_to_blocks(to + BM * WIDTH + box * BOX, weight, block * WIDTH, row, barrier, BOTH);
                        }
                    }
                    stage.advance();
                }
            }
        }
        __syncwarp();
    } else {
        if constexpr (MOVE_REGISTERS) take_registers<232>();
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        int* own = staged + warp * (STAGED / 4);
        const int fragment_place = staged_place(lane / 4, lane % 4 / 2) + lane % 2 * 2;
        const unsigned long long matrix_a = matrix_of_128_byte_rows(ring_address + warp / 4 * BOX);
        const unsigned long long matrix_b = matrix_of_128_byte_rows(ring_address + BM * WIDTH);
        // Lane 0 tells block 0 that a stage is done with, and lane 1 block 1.
        const unsigned empty_there = in_block(empty, lane % 2);
        const auto release = [&](int done) {
            if (lane < 2) arrive_in_cluster(empty_there + done * 8);
        };
        int sums[BN / 2] = {};
        while (tiles.next()) {
            // This warp's 16 rows; what the outputs need of them and of the first channels is there when the sums are.
            const int first_row = tiles.first_row + warp * 16, first_column = tiles.first_column;
            float row_scales[4];
#pragma unroll
            for (int step = 0; step < 4; step++) {
                const int row = first_row + step * 4 + lane / 8;
                row_scales[step] = row < m ? scales.row[row] : 0.0f;
            }
            Channels channels;
            channels.load(scales, first_column + lane % 8 * 8, n);

            int before = 0;
            for (int block = 0; block < blocks_of_k; block++) {
                wait_for_phase(full + stage.number * 8, stage.parity);
                const int offset = stage.number * (STAGE / 16);
                wgmma_fence();
#pragma unroll
                for (int step = 0; step < WIDTH / 32; step++) {
                    wgmma_s8(sums, matrix_a + offset + step * 2, matrix_b + offset + step * 2, block > 0 || step > 0);
                }
                wgmma_commit();
                // The products before these are done, and with them their stage.
                wgmma_wait<1>();
                if (block > 0) release(before);
                before = stage.number;
                stage.advance();
            }
            wgmma_wait<0>();
            keep_order(sums);
            release(before);
            if (first_row >= m) continue;

#pragma unroll 1
            for (int chunk = 0; chunk < BN / CHUNK && first_column + chunk * CHUNK < n; chunk++) {
#pragma unroll
                for (int same = 0; same < BN / CHUNK; same++) {
                    if (same != chunk) continue;
#pragma unroll
                    for (int j = 0; j < CHUNK / 8; j++) {
                        const int* four = sums + (same * CHUNK / 8 + j) * 4;
                        // This is staged_place(lane / 4, j * 2 + lane % 4 / 2) + lane % 2 * 2, and with the eighth row on.
                        int* upper = own + (fragment_place ^ staged_place(0, j * 2));
                        *reinterpret_cast<int2*>(upper) = make_int2(four[0], four[1]);
                        *reinterpret_cast<int2*>(upper + 8 * CHUNK) = make_int2(four[2], four[3]);
                    }
                }
                const Channels now = channels;
                const int column = first_column + chunk * CHUNK;
                if (chunk + 1 < BN / CHUNK) channels.load(scales, column + CHUNK + lane % 8 * 8, n);
                __syncwarp();
                const int mode = scales.mode;
                const bool biases = scales.bias != nullptr;
                switch (kind) {
                    case F32: write_in_mode<float>(mode, biases, y, own, row_scales, now, first_row, column, m, n); break;
                    case F16: write_in_mode<__half>(mode, biases, y, own, row_scales, now, first_row, column, m, n); break;
                    case BF16:
                        write_in_mode<__nv_bfloat16>(mode, biases, y, own, row_scales, now, first_row, column, m, n);
                        break;
                }
                __syncwarp();
            }
        }
        __syncwarp();
    }
    // The other block may still arrive at this one's barriers.
    sync_cluster();
}

#define GEMM(BM, BN, STAGES, SHARED, MOVE_REGISTERS)                    \
    const Scales scales = {row_scales, channel_scales, bias, mode};     \
    gemm<BM, BN, STAGES, SHARED, MOVE_REGISTERS>(codes, weight, y, m, n, k, kind, scales);

#else
#define GEMM(BM, BN, STAGES, SHARED, MOVE_REGISTERS)
#endif

#define ENTRY(name, THREADS, BLOCKS, BM, BN, STAGES, SHARED, MOVE_REGISTERS)                                        \
    extern "C" __global__ void IN_PAIRS __launch_bounds__(THREADS, BLOCKS) name(                                    \
        const __grid_constant__ TensorMap codes, const __grid_constant__ TensorMap weight, void* y,                 \
        const float* row_scales, const float* channel_scales, const float* bias, int m, int n, int k, int kind,     \
        int mode) {                                                                                                 \
        GEMM(BM, BN, STAGES, SHARED, MOVE_REGISTERS)                                                                \
    }

// Two blocks of 160 threads; registers are given out as if there were 256, 128 for each.
ENTRY(int8_wgmma_64x64, 256, 2, 64, 64, 5, CODES, false)
ENTRY(int8_wgmma_128x64, 288, 1, 128, 64, 8, CODES, false)
ENTRY(int8_wgmma_128x128, 288, 1, 128, 128, 6, CODES, false)
// 384 threads begin with 168 registers each. Sums alone are 128.
ENTRY(int8_wgmma_128x256, 384, 1, 128, 256, 4, WEIGHT, true)

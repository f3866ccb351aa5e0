// int8 codes times an int8 weight on tensor cores: y [m, n] = scaled(codes [m, k] weight [n, k]^T), sums exact in int32. For cards
// without int8_wgmma.cu's instructions.
//
// k is a multiple of 16, with zeros where there is nothing; m and n are any. A block makes one tile of BM x BN outputs; it goes
// through k in steps of BK bytes, of which STAGES - 1 are on their way from memory by cp.async while one is multiplied.
// Blocks are numbered so that those which run together share rows of both operands in the second-level cache.
//
//   entry            tile        threads   dynamic shared memory      for
//   _16              16 x 32      64        36 KiB                     9 to 16 rows: the weight's bytes are what counts
//   _32              32 x 64     128        72 KiB                     up to 32 rows
//   _64              64 x 64     128        32 KiB                     more rows, and few tiles
//   _128            128 x 128    128        64 KiB                     many tiles
//
// Grid: ceil(m / BM) ceil(n / BN) blocks. int8/launches.rs has the same table. The type of y is told by `kind`, so that each
// loop is compiled once.

#include "ptx.cuh"
#include "scaled.cuh"

// Row tiles that follow each other before the next column tile.
constexpr int ROW_TILES_TOGETHER = 8;

// Where 16 bytes, number `chunk` of a row of BK bytes, lie in shared memory: the rows that ldmatrix reads together fall
// into different banks.
template <int BK>
__device__ __forceinline__ int place(int row, int chunk) {
    static_assert(BK == 64 || BK == 128, "the order is made for these");
    const int swizzled = BK == 128 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3);
    return row * BK + swizzled * 16;
}

// Begins to copy ROWS rows of BK bytes, from row `first` and byte `start` on; beyond the matrix there are zeros.
template <int ROWS, int BK, int THREADS>
__device__ __forceinline__ void copy_tile(
    unsigned char* tile, const signed char* matrix, int first, int rows, int start, int k) {
    constexpr int CHUNKS = BK / 16;
    static_assert(ROWS * CHUNKS % THREADS == 0, "every thread copies as much");
#pragma unroll
    for (int step = 0; step < ROWS * CHUNKS / THREADS; step++) {
        const int number = step * THREADS + threadIdx.x;
        const int row = number / CHUNKS, chunk = number % CHUNKS;
        const bool valid = first + row < rows && start + chunk * 16 < k;
        const long long from = valid ? static_cast<long long>(first + row) * k + start + chunk * 16 : 0;
        cp_async16(tile + place<BK>(row, chunk), matrix + from, valid);
    }
}

// A warp's part of the tile, for 32 bytes of k.
template <int MT, int NT>
struct Fragments {
    unsigned a[MT][4];
    unsigned b[NT][2];

    template <int BK>
    __device__ __forceinline__ void load(
        const unsigned char* tile_a, const unsigned char* tile_b, int row, int column, int step) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < MT; i++) {
            ldmatrix_x4(a[i], tile_a + place<BK>(row + i * 16 + lane % 16, step * 2 + lane / 16));
        }
#pragma unroll
        for (int j = 0; j < NT; j += 2) {
            unsigned both[4];
            ldmatrix_x4(both, tile_b + place<BK>(column + j * 8 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
            b[j][0] = both[0], b[j][1] = both[1];
            b[j + 1][0] = both[2], b[j + 1][1] = both[3];
        }
    }
};

// Where the sum of a row and column of the tile lies in shared memory, in int: eight columns stay together, and the rows
// that a warp writes at once fall into different banks.
template <int BN>
__device__ __forceinline__ int sum_place(int row, int column) {
    return row * BN + (column ^ ((row & (BN < 64 ? BN / 8 - 1 : 7)) * 8));
}

// Writes the tile's outputs from its sums in shared memory, eight neighbours a thread, in 16 bytes where y's rows allow it.
template <int BM, int BN, int THREADS, typename T>
__device__ __forceinline__ void write(
    T* y, const int* sums, int first_row, int first_column, int m, int n, const Scales& scales) {
    const bool whole = n % 8 == 0;
#pragma unroll 1
    for (int number = threadIdx.x; number < BM * BN / 8; number += THREADS) {
        const int row = number / (BN / 8), column = number % (BN / 8) * 8;
        if (first_row + row >= m || first_column + column >= n) continue;
        const int4* from = reinterpret_cast<const int4*>(sums + sum_place<BN>(row, column));
        const int4 low = from[0], high = from[1];
        const int eight[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        const float row_scale = scales.row[first_row + row];
        const int channel = first_column + column;
        T* out = y + static_cast<long long>(first_row + row) * n + channel;
        union Outputs {
            T values[8];
            uint4 words[sizeof(T) / 2];
            __device__ Outputs() {}
        } outputs;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (channel + i < n) outputs.values[i] = scaled<T>(eight[i], row_scale, channel + i, scales);
        }
        if (whole) {
            for (int i = 0; i < static_cast<int>(sizeof(T) / 2); i++) reinterpret_cast<uint4*>(out)[i] = outputs.words[i];
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (channel + i < n) out[i] = outputs.values[i];
            }
        }
    }
}

template <int BM, int BN, int BK, int WARPS_M, int WARPS_N, int STAGES>
__device__ __forceinline__ void gemm(
    const signed char* codes, const signed char* weight, void* y, int m, int n, int k, int kind, const Scales& scales) {
    constexpr int THREADS = WARPS_M * WARPS_N * 32;
    constexpr int MT = BM / WARPS_M / 16, NT = BN / WARPS_N / 8, STEPS = BK / 32;
    static_assert(MT * WARPS_M * 16 == BM && NT * WARPS_N * 8 == BN && NT % 2 == 0, "warps share the tile evenly");
    constexpr int STAGE = (BM + BN) * BK;
    extern __shared__ uint4 dynamic_shared[];
    unsigned char* shared = reinterpret_cast<unsigned char*>(dynamic_shared);

    // Tiles in columns of groups of row tiles.
    const int row_tiles = (m + BM - 1) / BM, column_tiles = (n + BN - 1) / BN;
    const int group = blockIdx.x / (ROW_TILES_TOGETHER * column_tiles);
    const int in_group = blockIdx.x % (ROW_TILES_TOGETHER * column_tiles);
    const int height = min(ROW_TILES_TOGETHER, row_tiles - group * ROW_TILES_TOGETHER);
    const int first_row = (group * ROW_TILES_TOGETHER + in_group % height) * BM;
    const int first_column = in_group / height * BN;

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_row = warp / WARPS_N * (BM / WARPS_M), warp_column = warp % WARPS_N * (BN / WARPS_N);
    const int blocks_of_k = (k + BK - 1) / BK;

    const auto begin = [&](int block) {
        if (block < blocks_of_k) {
            unsigned char* tile = shared + block % STAGES * STAGE;
            copy_tile<BM, BK, THREADS>(tile, codes, first_row, m, block * BK, k);
            copy_tile<BN, BK, THREADS>(tile + BM * BK, weight, first_column, n, block * BK, k);
        }
        // Also where there is nothing more, so that waiting for all groups but STAGES - 2 always means the same.
        cp_async_commit();
    };
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) begin(stage);

    int sums[MT][NT][4] = {};
    for (int block = 0; block < blocks_of_k; block++) {
        cp_async_wait<STAGES - 2>();
        // This block has arrived for all threads, and all are done with the one whose place is filled next.
        __syncthreads();
        begin(block + STAGES - 1);
        const unsigned char* tile_a = shared + block % STAGES * STAGE;
        const unsigned char* tile_b = tile_a + BM * BK;
        Fragments<MT, NT> fragments[2];
        fragments[0].template load<BK>(tile_a, tile_b, warp_row, warp_column, 0);
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            // The next step's fragments are under way while this one's are multiplied.
            if (step + 1 < STEPS) {
                fragments[(step + 1) % 2].template load<BK>(tile_a, tile_b, warp_row, warp_column, step + 1);
            }
            const Fragments<MT, NT>& now = fragments[step % 2];
#pragma unroll
            for (int i = 0; i < MT; i++) {
#pragma unroll
                for (int j = 0; j < NT; j++) mma_m16n8k32_s8(sums[i][j], now.a[i], now.b[j]);
            }
        }
    }
    cp_async_wait<0>();
    // All threads are done with what was copied: sums take its place.
    __syncthreads();
    static_assert(BM * BN * 4 <= STAGES * STAGE, "sums fit in the place of the operands");
    int* shared_sums = reinterpret_cast<int*>(shared);
#pragma unroll
    for (int i = 0; i < MT; i++) {
#pragma unroll
        for (int j = 0; j < NT; j++) {
            const int row = warp_row + i * 16 + lane / 4, column = warp_column + j * 8 + lane % 4 * 2;
            int* upper = shared_sums + sum_place<BN>(row, column);
            int* lower = shared_sums + sum_place<BN>(row + 8, column);
            *reinterpret_cast<int2*>(upper) = make_int2(sums[i][j][0], sums[i][j][1]);
            *reinterpret_cast<int2*>(lower) = make_int2(sums[i][j][2], sums[i][j][3]);
        }
    }
    __syncthreads();
    switch (kind) {
        case F32: return write<BM, BN, THREADS>(static_cast<float*>(y), shared_sums, first_row, first_column, m, n, scales);
        case F16: return write<BM, BN, THREADS>(static_cast<__half*>(y), shared_sums, first_row, first_column, m, n, scales);
        case BF16:
            return write<BM, BN, THREADS>(
                static_cast<__nv_bfloat16*>(y), shared_sums, first_row, first_column, m, n, scales);
    }
}

#define ENTRY(name, BM, BN, BK, WARPS_M, WARPS_N, STAGES)                                                          \
    extern "C" __global__ void __launch_bounds__(WARPS_M * WARPS_N * 32) name(                                     \
        const signed char* codes, const signed char* weight, void* y, const float* row_scales,                     \
        const float* channel_scales, const float* bias, int m, int n, int k, int kind, int mode) {                 \
        const Scales scales = {row_scales, channel_scales, bias, mode};                                            \
        gemm<BM, BN, BK, WARPS_M, WARPS_N, STAGES>(codes, weight, y, m, n, k, kind, scales);                       \
    }

ENTRY(int8_gemm_16, 16, 32, 128, 1, 2, 6)
ENTRY(int8_gemm_32, 32, 64, 128, 1, 4, 6)
ENTRY(int8_gemm_64, 64, 64, 64, 2, 2, 4)
ENTRY(int8_gemm_128, 128, 128, 64, 2, 2, 4)

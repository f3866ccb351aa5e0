// int4 weights with a scale, and maybe a zero point, a group of input channels, for many rows in 16 bits: weights become
// pairs of numbers, rounded as the definition rounds them, in the registers that tensor cores multiply from. Sums are in
// float. For cards without w4_wgmma.cu's instructions.
//
// A block of 8 warps, 2 by 4, has 32 rows and 128 output channels; it goes through the input channels 64 at a
// time, copies under way for the next. Lane 4q + r takes the 16 input channels from 16r on (which of mma's k an input
// channel is does not matter as long as both matrices agree), so that its part of a row of x is 32 bytes in a row and
// its part of a weight one scale and two words.
#include "int4.cuh"

constexpr int STAGES = 3;
constexpr int THREADS = 256;
constexpr int ROWS = 32;
constexpr int CHANNELS = 128;
// Input channels of a step; 16-byte parts of them in a row of x and in a channel's codes.
constexpr int STEP = 64;
constexpr int ROW_PARTS = 8;
constexpr int CODE_PARTS = 2;
// Tiles of 8 output channels of a warp.
constexpr int COLUMNS = 4;

// What a stage of the copies has.
struct Stage {
    // Part c of row m lies at c ^ (m % 2): eight lanes that read two rows then meet no bank twice.
    uint4 rows[ROWS * ROW_PARTS];
    uint4 codes[CHANNELS * CODE_PARTS];
};

// A channel's scale and zero of one step.
template <typename T>
struct Scale {
    T scale;
    unsigned zero;
};

// Grid: (ceil(M / 32), ceil(N / 128)), blocks of 256 threads, dynamic shared memory for STAGES stages.
template <typename T>
__device__ __forceinline__ void multiply(T* y, const T* x, const Int4Weight<T>& weight, const float* bias, int rows,
                                         int out_features) {
    extern __shared__ uint4 dynamic_shared[];
    Stage* stages = reinterpret_cast<Stage*>(dynamic_shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, q = lane / 4, r = lane % 4;
    const int first_row = blockIdx.x * ROWS, first_channel = blockIdx.y * CHANNELS;
    const int warp_row = warp / 4 * 16, warp_channel = warp % 4 * 8 * COLUMNS;
    const int in_features = weight.in_features, steps = (in_features + STEP - 1) / STEP;

    const auto begin = [&](int step) {
        if (step < steps) {
            Stage& stage = stages[step % STAGES];
            for (int i = threadIdx.x; i < ROWS * ROW_PARTS; i += THREADS) {
                const int m = i / ROW_PARTS, part = i % ROW_PARTS, k = step * STEP + 8 * part;
                const bool valid = first_row + m < rows && k < in_features;
                const size_t place = valid ? static_cast<size_t>(first_row + m) * in_features + k : 0;
                cp_async16(&stage.rows[m * ROW_PARTS + (part ^ (m % 2))], x + place, valid);
            }
            for (int i = threadIdx.x; i < CHANNELS * CODE_PARTS; i += THREADS) {
                const int n = i / CODE_PARTS, k = step * STEP + 32 * (i % CODE_PARTS);
                const bool valid = first_channel + n < out_features && k < in_features;
                const size_t place = valid ? static_cast<size_t>(first_channel + n) * (in_features / 8) + k / 8 : 0;
                cp_async16(&stage.codes[i], weight.packed + place, valid);
            }
        }
        // An empty group too, so that groups can be counted.
        cp_async_commit();
    };
    // Zeros where there is no weight.
    const auto load_scales = [&](int step, Scale<T> (&scales)[COLUMNS]) {
        const int k = step * STEP + 16 * r, group = k / weight.group;
        for (int j = 0; j < COLUMNS; j++) {
            const int n = first_channel + warp_channel + 8 * j + q;
            scales[j] = {from_float<T>(0), 0};
            if (n < out_features && k < in_features) weight.scale_of(n, group, scales[j].scale, scales[j].zero);
        }
    };

    float sums[COLUMNS][4] = {};
    Scale<T> scales[COLUMNS], next_scales[COLUMNS];
    for (int step = 0; step < STAGES - 1; step++) begin(step);
    load_scales(0, scales);
    for (int step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>();
        // All warps see this step's bytes, and none reads those of the step before any more.
        __syncthreads();
        begin(step + STAGES - 1);
        load_scales(step + 1, next_scales);
        const Stage& stage = stages[step % STAGES];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            // Words 2i, 2i+1 of a row are the pairs of mma i: half of the lane's 16 input channels.
            const int m = warp_row + q, part = (2 * r + half) ^ (m % 2);
            const uint4 upper = stage.rows[m * ROW_PARTS + part], lower = stage.rows[(m + 8) * ROW_PARTS + part];
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                const unsigned* codes = reinterpret_cast<const unsigned*>(&stage.codes[(warp_channel + 8 * j + q) * CODE_PARTS]);
                unsigned pairs[4];
                decode(codes[2 * r + half], scales[j].scale, scales[j].zero, pairs);
                const unsigned first[2] = {pairs[0], pairs[1]}, second[2] = {pairs[2], pairs[3]};
                const unsigned a[4] = {upper.x, lower.x, upper.y, lower.y};
                Pair<T>::mma(sums[j], a, first);
                const unsigned b[4] = {upper.z, lower.z, upper.w, lower.w};
                Pair<T>::mma(sums[j], b, second);
            }
        }
        for (int j = 0; j < COLUMNS; j++) scales[j] = next_scales[j];
    }

    const bool in_pairs = out_features % 2 == 0;
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        const int n = first_channel + warp_channel + 8 * j + 2 * r;
        if (n >= out_features) continue;
        const bool has_second = n + 1 < out_features;
        const float biases[2] = {bias == nullptr ? 0 : bias[n], bias == nullptr || !has_second ? 0 : bias[n + 1]};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int m = first_row + warp_row + 8 * i + q;
            if (m >= rows) continue;
            const float* pair = &sums[j][2 * i];
            write_pair(y + static_cast<size_t>(m) * out_features + n, from_float<T>(pair[0] + biases[0]),
                       from_float<T>(pair[1] + biases[1]), has_second, in_pairs);
        }
    }
}

// y [M, N], x [M, K] at a multiple of 16 bytes, bias [N] or null; see Int4Weight.
#define W4_GEMM(name, T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                   \
        name(T* y, const T* x, const unsigned* packed, const T* scale, const unsigned char* zero, const float* bias, int rows, \
             int out_features, int in_features, int group) {                                                                \
        multiply<T>(y, x, {packed, scale, zero, in_features, group, in_features / group}, bias, rows, out_features);        \
    }

W4_GEMM(w4_gemm_f16, __half)
W4_GEMM(w4_gemm_bf16, __nv_bfloat16)

// int8 activations times int4 weights for few rows, see w4a8.cuh: the weight is read once, by as many warps as there are.
//
// A block of 8 warps has 16 output channels and 8 rows: weights are the first matrix of mma, rows of x the second, and each
// warp has every eighth 128 input channels. Lane 4q + r takes the 32 from 32r on, for channels q and q + 8: which of
// mma's k an input channel is does not matter as long as both matrices agree.
#include "w4a8.cuh"

namespace {

constexpr int WARPS = 8;
constexpr int CHANNELS = 16;
constexpr int ROWS = 8;
// Input channels of a lane, which share a group.
constexpr int CHUNK = 32;

// Grid: (ceil(N / 16), ceil(M / 8)), blocks of 256 threads. K and the group are multiples of 32.
template <typename T, typename Scheme>
__device__ __forceinline__ void multiply(T* y, const signed char* x, const unsigned* packed,
                                         const typename Scheme::Group* groups, const Scales& scales, int rows,
                                         int out_features, int in_features, int group) {
    using Group = typename Scheme::Group;
    using Sum = typename Scheme::Sum;
    __shared__ Sum partial[WARPS][ROWS][CHANNELS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, q = lane / 4, r = lane % 4;
    const int first_channel = blockIdx.x * CHANNELS, first_row = blockIdx.y * ROWS;
    // What stands for a channel beyond the last is not written.
    const int channels[2] = {min(first_channel + q, out_features - 1), min(first_channel + q + 8, out_features - 1)};
    const bool has_row = first_row + q < rows;
    const signed char* row = x + static_cast<size_t>(has_row ? first_row + q : 0) * in_features;
    const size_t stride = (out_features + 7) / 8 * 8;
    // Whether the 128 input channels that a warp multiplies together share a group.
    const bool together = !Scheme::SCALES_SUMS || group % (4 * CHUNK) == 0;

    Sum totals[4] = {};
#pragma unroll 2
    for (int start = warp * 4 * CHUNK; start < in_features; start += WARPS * 4 * CHUNK) {
        // Loads have no conditions, so that many are under way: beyond the last channel the first is loaded, and counts 0.
        const bool inside = start + CHUNK * r < in_features;
        const int k = inside ? start + CHUNK * r : 0;
        uint4 words[2], activations[2];
        Group own_groups[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const unsigned* from = packed + static_cast<size_t>(channels[i]) * (in_features / 8) + k / 8;
            words[i] = __ldcs(reinterpret_cast<const uint4*>(from));
            own_groups[i] = groups[k / group * stride + channels[i]];
            activations[i] = reinterpret_cast<const uint4*>(row + k)[i];
        }
        const unsigned codes[2][4] = {{words[0].x, words[0].y, words[0].z, words[0].w},
                                      {words[1].x, words[1].y, words[1].z, words[1].w}};
        const unsigned bytes[8] = {activations[0].x, activations[0].y, activations[0].z, activations[0].w,
                                   activations[1].x, activations[1].y, activations[1].z, activations[1].w};
        // Group after group: lanes of other groups bring zeros.
        for (int part = 0; part < (together ? 1 : 4) && start + CHUNK * part < in_features; part++) {
            const bool counts = inside && has_row && (together || part == r);
            int sums[4] = {};
            for (int i = 0; i < 4; i++) {
                unsigned upper[2], lower[2];
                Scheme::decode(codes[0][i], own_groups[0], upper);
                Scheme::decode(codes[1][i], own_groups[1], lower);
                const unsigned a[4] = {upper[0], lower[0], upper[1], lower[1]};
                const unsigned low = counts ? bytes[2 * i] : 0, high = counts ? bytes[2 * i + 1] : 0;
                const unsigned b[2] = {evens(low, high), odds(low, high)};
                mma_m16n8k32_s8(sums, a, b);
            }
            const size_t place = (start + CHUNK * part) / group * stride;
            const Group of_sums[2] = {groups[place + channels[0]], groups[place + channels[1]]};
            for (int i = 0; i < 4; i++) Scheme::add(totals[i], sums[i], of_sums[i / 2]);
        }
    }

    partial[warp][2 * r][q] = totals[0];
    partial[warp][2 * r + 1][q] = totals[1];
    partial[warp][2 * r][q + 8] = totals[2];
    partial[warp][2 * r + 1][q + 8] = totals[3];
    __syncthreads();
    if (threadIdx.x >= ROWS * CHANNELS) return;
    const int n = first_channel + threadIdx.x % CHANNELS, m = first_row + threadIdx.x / CHANNELS;
    if (n >= out_features || m >= rows) return;
    Sum sum = 0;
    for (int i = 0; i < WARPS; i++) sum += partial[i][threadIdx.x / CHANNELS][threadIdx.x % CHANNELS];
    y[static_cast<size_t>(m) * out_features + n] = ChannelScales(scales, n).finished<T>(sum, scales.row[m]);
}

}  // namespace

// y [M, N], x [M, K] int8 at a multiple of 16 bytes, packed [N, K/8], groups [G, P], row_scales [M]; channel_scales [N] for
// progressive weights only; bias [N] or null.
#define W4A8_GEMV(name, T, Scheme)                                                                                         \
    extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                               \
        name(T* y, const signed char* x, const unsigned* packed, const Scheme::Group* groups, const float* row_scales,     \
             const float* channel_scales, const float* bias, int rows, int out_features, int in_features, int group) {     \
        const Scales scales = {row_scales, channel_scales, bias, PLAIN};                                                   \
        multiply<T, Scheme>(y, x, packed, groups, scales, rows, out_features, in_features, group);                         \
    }

W4A8_GEMV(w4a8_gemv_progressive_f32, float, Progressive)
W4A8_GEMV(w4a8_gemv_progressive_f16, __half, Progressive)
W4A8_GEMV(w4a8_gemv_progressive_bf16, __nv_bfloat16, Progressive)
W4A8_GEMV(w4a8_gemv_grouped_f32, float, Grouped<float>)
W4A8_GEMV(w4a8_gemv_grouped_f16, __half, Grouped<__half>)
W4A8_GEMV(w4a8_gemv_grouped_bf16, __nv_bfloat16, Grouped<__nv_bfloat16>)

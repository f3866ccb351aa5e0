// Few rows of int8 codes times an int8 weight, which is read once: y [rows, N] = scaled(codes [rows, K] weight [N, K]^T).
//
// K is a multiple of 16, with zeros where there is nothing. A block has 4 warps, a warp two channels, so that each load of
// the codes serves both: ceil(N / 8) blocks of 128 threads. There is an entry for up to 1, 2, 4 and 8 rows.

#include "ptx.cuh"
#include "scaled.cuh"

constexpr int CHANNELS = 2;

__device__ __forceinline__ int dot16(const int4& a, const int4& b, int sum) {
    sum = dp4a(a.x, b.x, sum);
    sum = dp4a(a.y, b.y, sum);
    sum = dp4a(a.z, b.z, sum);
    return dp4a(a.w, b.w, sum);
}

// Writes an output of the type `kind`.
__device__ __forceinline__ void write(
    void* y, long long place, int kind, int sum, float row_scale, int channel, const Scales& scales) {
    switch (kind) {
        case F32: static_cast<float*>(y)[place] = scaled<float>(sum, row_scale, channel, scales); break;
        case F16: static_cast<__half*>(y)[place] = scaled<__half>(sum, row_scale, channel, scales); break;
        case BF16: static_cast<__nv_bfloat16*>(y)[place] = scaled<__nv_bfloat16>(sum, row_scale, channel, scales); break;
    }
}

template <int ROWS>
__device__ __forceinline__ void gemv(
    const signed char* codes, const signed char* weight, void* y, int rows, int n, int k, int kind,
    const Scales& scales) {
    const int lane = threadIdx.x % 32;
    const int first = (blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * CHANNELS;
    if (first >= n) return;
    int sums[ROWS][CHANNELS] = {};
    // A channel beyond the last is the last once more.
    const signed char* channels[CHANNELS];
    for (int c = 0; c < CHANNELS; c++) channels[c] = weight + static_cast<long long>(min(first + c, n - 1)) * k;
#pragma unroll 2
    for (int i = lane * 16; i < k; i += 512) {
        int4 w[CHANNELS];
        for (int c = 0; c < CHANNELS; c++) w[c] = __ldcs(reinterpret_cast<const int4*>(channels[c] + i));
        for (int row = 0; row < ROWS; row++) {
            if (row >= rows) break;
            const int4 x = *reinterpret_cast<const int4*>(codes + static_cast<long long>(row) * k + i);
            for (int c = 0; c < CHANNELS; c++) sums[row][c] = dot16(x, w[c], sums[row][c]);
        }
    }
    for (int row = 0; row < ROWS; row++) {
        for (int c = 0; c < CHANNELS; c++) {
            int sum = sums[row][c];
            for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
            if (lane == 0 && row < rows && first + c < n) {
                const long long place = static_cast<long long>(row) * n + first + c;
                write(y, place, kind, sum, scales.row[row], first + c, scales);
            }
        }
    }
}

#define ENTRY(name, ROWS)                                                                                         \
    extern "C" __global__ void __launch_bounds__(128) name(                                                       \
        const signed char* codes, const signed char* weight, void* y, const float* row_scales,                    \
        const float* channel_scales, const float* bias, int rows, int n, int k, int kind, int mode) {             \
        gemv<ROWS>(codes, weight, y, rows, n, k, kind, {row_scales, channel_scales, bias, mode});                 \
    }

ENTRY(int8_gemv_1, 1)
ENTRY(int8_gemv_2, 2)
ENTRY(int8_gemv_4, 4)
ENTRY(int8_gemv_8, 8)

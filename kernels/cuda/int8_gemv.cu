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

template <typename T, int ROWS>
__device__ __forceinline__ void gemv(
    const signed char* codes, const signed char* weight, T* y, int rows, int n, int k, const Scales& scales) {
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
                y[static_cast<long long>(row) * n + first + c] = scaled<T>(sum, scales.row[row], first + c, scales);
            }
        }
    }
}

#define ENTRY(name, T, ROWS)                                                                                     \
    extern "C" __global__ void __launch_bounds__(128) name(                                                      \
        const signed char* codes, const signed char* weight, T* y, const float* row_scales,                      \
        const float* channel_scales, const float* bias, int rows, int n, int k, int mode) {                    \
        gemv<T, ROWS>(codes, weight, y, rows, n, k, {row_scales, channel_scales, bias, mode});            \
    }

#define ENTRIES(type, T)                 \
    ENTRY(int8_gemv_##type##_1, T, 1)    \
    ENTRY(int8_gemv_##type##_2, T, 2)    \
    ENTRY(int8_gemv_##type##_4, T, 4)    \
    ENTRY(int8_gemv_##type##_8, T, 8)

ENTRIES(f32, float)
ENTRIES(f16, __half)
ENTRIES(bf16, __nv_bfloat16)

// Rows, normalized: a block of 32 to 1024 threads, a multiple of 32, for each row.
//
// x [rows, width], weight [width] -> y [rows, width] = weight * T(x / sqrt(mean(x^2) + epsilon)).

#include "rmsnorm.cuh"

template <typename T>
__device__ __forceinline__ void rmsnorm(const T* x, const T* weight, T* y, int width, float epsilon) {
    __shared__ float sums[32];
    const bool whole = is_aligned(x, width) && is_aligned(weight, width) && is_aligned(y, width);
    x += static_cast<long long>(blockIdx.x) * width;
    y += static_cast<long long>(blockIdx.x) * width;
    const float factor = norm_factor(x, width, whole, epsilon, sums);
    for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
        if (whole && i + 8 <= width) {
            float values[8], by[8];
            load8(x + i, values);
            load8(weight + i, by);
            for (int j = 0; j < 8; j++) values[j] = normalized<T>(values[j], factor, by[j]);
            store8(y + i, values);
        } else {
            for (int j = i; j < width && j < i + 8; j++) {
                y[j] = from_float<T>(normalized<T>(to_float(x[j]), factor, to_float(weight[j])));
            }
        }
    }
}

#define ENTRY(name, T)                                                                               \
    extern "C" __global__ void name(const T* x, const T* weight, T* y, int width, float epsilon) { \
        rmsnorm<T>(x, weight, y, width, epsilon);                                                    \
    }

ENTRY(rmsnorm_f32, float)
ENTRY(rmsnorm_f16, __half)
ENTRY(rmsnorm_bf16, __nv_bfloat16)

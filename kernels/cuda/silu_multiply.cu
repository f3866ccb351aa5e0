// What a gated feed-forward network has between its layers (Shazeer, 2020, arXiv 2002.05202): y = T(silu(gate)) * up for `count`
// values of type T, silu in float. y may be gate. A thread takes eight: ceil(count / 8 / blockDim.x) blocks.

#include "floats.cuh"

template <typename T>
__device__ __forceinline__ float gated(float gate, float up) {
    return __fmul_rn(rounded<T>(__fdiv_rn(gate, __fadd_rn(1.0f, expf(-gate)))), up);
}

template <typename T>
__device__ __forceinline__ void silu_multiply(const T* gate, const T* up, T* y, long long count) {
    const long long i = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (i + 8 <= count && is_aligned(gate, 8) && is_aligned(up, 8) && is_aligned(y, 8)) {
        float gates[8], ups[8];
        load8(gate + i, gates);
        load8(up + i, ups);
        for (int j = 0; j < 8; j++) gates[j] = gated<T>(gates[j], ups[j]);
        store8(y + i, gates);
    } else {
        for (long long j = i; j < count && j < i + 8; j++) {
            y[j] = from_float<T>(gated<T>(to_float(gate[j]), to_float(up[j])));
        }
    }
}

#define ENTRY(name, T)                                                                        \
    extern "C" __global__ void name(const T* gate, const T* up, T* y, long long count) {    \
        silu_multiply<T>(gate, up, y, count);                                                 \
    }

ENTRY(silu_multiply_f32, float)
ENTRY(silu_multiply_f16, __half)
ENTRY(silu_multiply_bf16, __nv_bfloat16)

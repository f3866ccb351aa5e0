// Rotary position embeddings (Su et al., 2021, arXiv 2104.09864) with transformers' roundings: x * cos + rotate_half(x) * sin, each
// product and the sum rounded to x's type T.
//
// x [tokens, heads, 2 half] -> y of the same shape; cos, sin [angles, half], where token t has angle t % angles. A thread takes the
// pair (i, i + half) of one head and token: ceil(pairs / blockDim.x) blocks, where pairs = tokens heads half.

#include "floats.cuh"

template <typename T>
__device__ __forceinline__ void rotate(
    const T* x, const T* cos, const T* sin, T* y, long long pairs, int heads, int half, int angles) {
    const long long pair = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (pair >= pairs) return;
    const int i = static_cast<int>(pair % half);
    const long long head = pair / half;
    const long long angle = head / heads % angles * half + i;
    const long long place = head * 2 * half + i;
    const float first = to_float(x[place]), second = to_float(x[place + half]);
    const float c = to_float(cos[angle]), s = to_float(sin[angle]);
    y[place] = from_float<T>(__fsub_rn(rounded<T>(__fmul_rn(first, c)), rounded<T>(__fmul_rn(second, s))));
    y[place + half] = from_float<T>(__fadd_rn(rounded<T>(__fmul_rn(second, c)), rounded<T>(__fmul_rn(first, s))));
}

#define ENTRY(name, T)                                                                                                 \
    extern "C" __global__ void name(                                                                                   \
        const T* x, const T* cos, const T* sin, T* y, long long pairs, int heads, int half, int angles) {            \
        rotate<T>(x, cos, sin, y, pairs, heads, half, angles);                                                         \
    }

ENTRY(rotate_f32, float)
ENTRY(rotate_f16, __half)
ENTRY(rotate_bf16, __nv_bfloat16)

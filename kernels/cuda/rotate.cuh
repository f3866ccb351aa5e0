// Rotary position embeddings (Su et al., 2021, arXiv 2104.09864) with transformers' roundings: x * cos + rotate_half(x) * sin, each
// product and the sum rounded to x's type T.
#ifndef QPIPE_ROTATE_CUH
#define QPIPE_ROTATE_CUH

#include "floats.cuh"

// Rotates the numbers 0 and `half` of `from` to those of `to`, by one angle.
template <typename T>
__device__ __forceinline__ void rotate_pair(T* to, const T* from, int half, const T* cos, const T* sin) {
    const float first = to_float(from[0]), second = to_float(from[half]);
    const float c = to_float(*cos), s = to_float(*sin);
    to[0] = from_float<T>(__fsub_rn(rounded<T>(__fmul_rn(first, c)), rounded<T>(__fmul_rn(second, s))));
    to[half] = from_float<T>(__fadd_rn(rounded<T>(__fmul_rn(second, c)), rounded<T>(__fmul_rn(first, s))));
}

#endif

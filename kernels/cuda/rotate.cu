// Heads of tokens, rotated by the angles of their positions, see rotate.cuh.
//
// x [tokens, heads, 2 half] -> y of the same shape; cos, sin [angles, half], where token t has angle t % angles. A thread takes the
// pair (i, i + half) of one head and token: ceil(pairs / blockDim.x) blocks, where pairs = tokens heads half.

#include "rotate.cuh"

template <typename T>
__device__ __forceinline__ void rotate(
    const T* x, const T* cos, const T* sin, T* y, long long pairs, int heads, int half, int angles) {
    const long long pair = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (pair >= pairs) return;
    const int i = static_cast<int>(pair % half);
    const long long head = pair / half;
    const long long angle = head / heads % angles * half + i;
    const long long place = head * 2 * half + i;
    rotate_pair(y + place, x + place, half, cos + angle, sin + angle);
}

#define ENTRY(name, T)                                                                                                 \
    extern "C" __global__ void name(                                                                                   \
        const T* x, const T* cos, const T* sin, T* y, long long pairs, int heads, int half, int angles) {            \
        rotate<T>(x, cos, sin, y, pairs, heads, half, angles);                                                         \
    }

ENTRY(rotate_f32, float)
ENTRY(rotate_f16, __half)
ENTRY(rotate_bf16, __nv_bfloat16)

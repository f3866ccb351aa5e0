// What one new token a sequence brings to attention: its query and its key, rotated as in rotate.cu, and its value. Key
// and value go into the cache, the query into `out`.
//
// q [B, heads, 2 half], k and v [B, kv_heads, 2 half] -> out as q; keys, values [B, kv_heads, room, 2 half] at *place,
// read when the kernel runs, so that a recorded launch serves each token. Where *place is no place of the room, nothing
// is written to the cache or to `out`. cos, sin [angles, half]: row b has angle b % angles. A thread takes the pair (i,
// i + half) of one head of q, k or v: ceil(B (heads + 2 kv_heads) half / blockDim.x) blocks.

#include "rotate.cuh"

template <typename T>
__device__ __forceinline__ void append(
    const T* q, const T* k, const T* v, const T* cos, const T* sin, const long long* place, T* out, T* keys, T* values,
    int batch, int heads, int kv_heads, int half, int room, int angles) {
    const long long pair = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int of_row = heads + 2 * kv_heads;
    const long long to = *place;
    if (pair >= static_cast<long long>(batch) * of_row * half || to < 0 || to >= room) return;
    const int i = static_cast<int>(pair % half);
    const int head = static_cast<int>(pair / half % of_row), row = static_cast<int>(pair / half / of_row);
    const int width = 2 * half;
    if (head >= heads + kv_heads) {
        const long long kv_head = static_cast<long long>(row) * kv_heads + head - heads - kv_heads;
        const T* from = v + kv_head * width;
        T* value = values + (kv_head * room + to) * width;
        value[i] = from[i];
        value[i + half] = from[i + half];
        return;
    }
    const T* from;
    T* rotated_head;
    if (head < heads) {
        const long long of_all = static_cast<long long>(row) * heads + head;
        from = q + of_all * width;
        rotated_head = out + of_all * width;
    } else {
        const long long kv_head = static_cast<long long>(row) * kv_heads + head - heads;
        from = k + kv_head * width;
        rotated_head = keys + (kv_head * room + to) * width;
    }
    const int angle = row % angles * half + i;
    rotate_pair(rotated_head + i, from + i, half, cos + angle, sin + angle);
}

#define ENTRY(name, T)                                                                                                 \
    extern "C" __global__ void name(                                                                                   \
        const T* q, const T* k, const T* v, const T* cos, const T* sin, const long long* place, T* out, T* keys,       \
        T* values, int batch, int heads, int kv_heads, int half, int room, int angles) {                               \
        append<T>(q, k, v, cos, sin, place, out, keys, values, batch, heads, kv_heads, half, room, angles);            \
    }

ENTRY(rotate_append_f32, float)
ENTRY(rotate_append_f16, __half)
ENTRY(rotate_append_bf16, __nv_bfloat16)

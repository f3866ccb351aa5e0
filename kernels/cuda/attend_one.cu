// Attention of one query a sequence to a cache: softmax(q K^T / sqrt(width)) V, in float.
//
// q [B, heads, width], keys and values [B, kv_heads, room, width] -> out as q. `width` is a multiple of 8 up to 256,
// and everything begins at multiples of 16 bytes. Row b sees the places from max(first[b], *place - window + 1) to
// *place: `first` null means 0, `window` 0 means all. Both are read when the kernel runs, so that a recorded launch
// serves each token. What sees nothing gets zeros.
//
// Its time is that of reading keys and values, and where there are few, that of waiting for them: so the places that a
// row sees are dealt out to many blocks (flash-decoding), each of which reads them once for up to 4 heads of a group.
// The last one of them to finish adds up what all have left in `scratch`, in the order of the places, whoever was the
// last: results do not depend on it.
//
// Grid: (splits, kv_heads ceil(group / tile), B) with 1 to 64 splits, where group = heads / kv_heads and tile =
// min(group, 4) but 4 for 3; blocks of 128 threads, 16 tile (width + 2) bytes of dynamic shared memory. scratch: floats
// [B heads splits (width + 2)]; arrived: ints [B kv_heads ceil(group / tile)], zeros before the first launch and after
// each one.

#include "floats.cuh"

constexpr int WARPS = 4;
constexpr int MOST_SPLITS = 64;
constexpr int MOST_HEADS = 4;
// Below every score, and still a number that can be subtracted from itself.
constexpr float NO_SCORE = -3e38f;

// Eight values as they lie in memory.
template <typename T>
struct alignas(16) Eight {
    uint4 words[sizeof(T) / 2];

    __device__ __forceinline__ void load(const T* from) {
#pragma unroll
        for (int i = 0; i < static_cast<int>(sizeof(T) / 2); i++) words[i] = reinterpret_cast<const uint4*>(from)[i];
    }
    __device__ __forceinline__ void to_floats(float (&values)[8]) const {
        load8(reinterpret_cast<const T*>(words), values);
    }
};

// The places from `begin` to before `end`: the part `number` of `count` that there are.
struct Part {
    int count;
    int begin, end;
    int number;
};

// In shared memory, for the block that adds up: whether this is it, each part's factor, and the totals of heads.
struct Last {
    float factors[MOST_HEADS][MOST_SPLITS];
    float totals[MOST_HEADS];
    bool is_last;
};

// Cuts the places from `begin` on into at most gridDim.x parts, multiples of `step` places.
__device__ __forceinline__ Part part_of(long long begin, long long end, int step) {
    const int places = static_cast<int>(end > begin ? end - begin : 0), splits = static_cast<int>(gridDim.x);
    const int size = ((places + splits - 1) / splits + step - 1) / step * step, number = static_cast<int>(blockIdx.x);
    if (places == 0) return {0, 0, 0, number};
    // Behind the last part, `from` may be beyond all places, but not beyond an int.
    const int from = min(number * size, places);
    const int first = static_cast<int>(begin), to = min(from + size, places);
    return {(places + size - 1) / size, first + from, first + to, number};
}

// A block's sums, by each of its warps: [WARPS][HEADS][width] weighted values, then [WARPS][HEADS] pairs of the largest
// score, and the sum of 2^(score - largest). LANES lanes share a place, eight numbers each; a warp goes through 32 /
// LANES places at once, and through UNROLL times as many with loads under way.
template <typename T, int LANES, int HEADS, int UNROLL>
__device__ __forceinline__ void sum_part(
    const T* q, const T* keys, const T* values, const Part& part, int width, int heads, float* sums, float2* tops) {
    constexpr int SLOTS = 32 / LANES, STEP = SLOTS * UNROLL;
    const int lane = threadIdx.x % 32, slot = lane / LANES;
    // By a shuffle, so that the compiler sees that a warp's lanes go the same way.
    const int warp = __shfl_sync(0xFFFFFFFFu, static_cast<int>(threadIdx.x) / 32, 0);
    // Lanes beyond the width take the first eight numbers once more, for nothing.
    const bool counts = lane % LANES * 8 < width;
    const int mine = counts ? lane % LANES * 8 : 0;
    // In powers of 2 instead of e.
    const float scale = counts ? __fdiv_rn(1.44269504f, __fsqrt_rn(static_cast<float>(width))) : 0.0f;
    const float MINUS_INFINITY = __uint_as_float(0xFF800000u);
    float query[HEADS][8], sum[HEADS][8] = {}, largest[HEADS], total[HEADS] = {};
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        load8(q + min(h, heads - 1) * width + mine, query[h]);
#pragma unroll
        for (int j = 0; j < 8; j++) query[h][j] *= scale;
        largest[h] = NO_SCORE;
    }

    for (int start = part.begin + warp * STEP; start < part.end; start += WARPS * STEP) {
        Eight<T> key[UNROLL], value[UNROLL];
        // Loads have no conditions: places beyond the last are the last, and do not count.
        const auto offset = [&](int u) { return min(start + u * SLOTS + slot, part.end - 1) * width + mine; };
#pragma unroll
        for (int u = 0; u < UNROLL; u++) key[u].load(keys + offset(u));
#pragma unroll
        for (int u = 0; u < UNROLL; u++) value[u].load(values + offset(u));
        float scores[UNROLL][HEADS];
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            float numbers[8];
            key[u].to_floats(numbers);
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float score = query[h][0] * numbers[0];
#pragma unroll
                for (int j = 1; j < 8; j++) score = fmaf(query[h][j], numbers[j], score);
#pragma unroll
                for (int distance = LANES / 2; distance > 0; distance /= 2) {
                    score += __shfl_xor_sync(0xFFFFFFFFu, score, distance);
                }
                scores[u][h] = start + u * SLOTS + slot < part.end ? score : MINUS_INFINITY;
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float top = largest[h];
#pragma unroll
            for (int u = 0; u < UNROLL; u++) top = fmaxf(top, scores[u][h]);
            const float factor = exp2f(largest[h] - top);
            largest[h] = top;
            total[h] *= factor;
#pragma unroll
            for (int j = 0; j < 8; j++) sum[h][j] *= factor;
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                scores[u][h] = exp2f(scores[u][h] - top);
                total[h] += scores[u][h];
            }
        }
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            float numbers[8];
            value[u].to_floats(numbers);
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
#pragma unroll
                for (int j = 0; j < 8; j++) sum[h][j] = fmaf(scores[u][h], numbers[j], sum[h][j]);
            }
        }
    }

#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float top = largest[h];
#pragma unroll
        for (int distance = LANES; distance < 32; distance *= 2) {
            top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, distance));
        }
        const float factor = exp2f(largest[h] - top);
        total[h] *= factor;
#pragma unroll
        for (int j = 0; j < 8; j++) sum[h][j] *= factor;
#pragma unroll
        for (int distance = LANES; distance < 32; distance *= 2) {
            total[h] += __shfl_xor_sync(0xFFFFFFFFu, total[h], distance);
#pragma unroll
            for (int j = 0; j < 8; j++) sum[h][j] += __shfl_xor_sync(0xFFFFFFFFu, sum[h][j], distance);
        }
        if (slot == 0 && counts) store8(sums + (warp * HEADS + h) * width + mine, sum[h]);
        if (lane == 0) tops[warp * HEADS + h] = make_float2(top, total[h]);
    }
}

// `sum_part` for the lanes that a place of `width` numbers takes.
template <typename T, int HEADS, int UNROLL>
__device__ __forceinline__ void sum_heads(const T* q, const T* keys, const T* values, const Part& part, int width,
                                          int heads, int lanes, float* sums, float2* tops) {
    if (lanes == 8) {
        sum_part<T, 8, HEADS, UNROLL>(q, keys, values, part, width, heads, sums, tops);
    } else if (lanes == 16) {
        sum_part<T, 16, HEADS, UNROLL>(q, keys, values, part, width, heads, sums, tops);
    } else {
        sum_part<T, 32, HEADS, UNROLL>(q, keys, values, part, width, heads, sums, tops);
    }
}

template <typename T>
__device__ __forceinline__ void attend(
    const T* q, const T* keys, const T* values, T* out, const long long* place, const long long* first, float* scratch,
    int* arrived, int heads, int kv_heads, int room, int width, int window, float* shared, Last& last) {
    constexpr int UNROLL = sizeof(T) == 2 ? 4 : 2;
    const int group = heads / kv_heads, most = group <= 2 ? group : MOST_HEADS, tiles = (group + most - 1) / most;
    const int splits = static_cast<int>(gridDim.x), lanes = width <= 64 ? 8 : width <= 128 ? 16 : 32;
    const int kv_head = static_cast<int>(blockIdx.y) / tiles, tile = static_cast<int>(blockIdx.y) % tiles;
    const int row = static_cast<int>(blockIdx.z), mine = min(most, group - tile * most);
    const long long head = static_cast<long long>(row) * heads + kv_head * group + tile * most;
    const long long place_now = *place, end = min(place_now + 1, static_cast<long long>(room));
    long long begin = first == nullptr ? 0 : max(first[row], 0ll);
    if (window > 0) begin = max(begin, place_now + 1 - window);
    const Part part = part_of(begin, end, WARPS * (32 / lanes) * UNROLL);
    // One block writes the zeros of what sees nothing.
    if (part.number >= max(part.count, 1)) return;

    q += head * width;
    out += head * width;
    const long long cache = (static_cast<long long>(row) * kv_heads + kv_head) * room * width;
    keys += cache;
    values += cache;
    float* sums = shared;
    float2* tops = reinterpret_cast<float2*>(shared + WARPS * most * width);
    if (most == 1) {
        sum_heads<T, 1, UNROLL>(q, keys, values, part, width, mine, lanes, sums, tops);
    } else if (most == 2) {
        sum_heads<T, 2, UNROLL>(q, keys, values, part, width, mine, lanes, sums, tops);
    } else {
        sum_heads<T, MOST_HEADS, UNROLL>(q, keys, values, part, width, mine, lanes, sums, tops);
    }
    __syncthreads();

    // Of the part `number` of head h: its sums, and behind all sums its largest score and its total.
    float* left = scratch + head * splits * width;
    float* left_tops = scratch + static_cast<long long>(gridDim.z) * heads * splits * width + head * splits * 2;
    for (int i = threadIdx.x; i < mine * width; i += 32 * WARPS) {
        const int h = i / width, d = i % width;
        float top = NO_SCORE, total = 0.0f, sum = 0.0f;
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) top = fmaxf(top, tops[warp * most + h].x);
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) {
            const float2 of_warp = tops[warp * most + h];
            const float factor = exp2f(of_warp.x - top);
            total = fmaf(factor, of_warp.y, total);
            sum = fmaf(factor, sums[(warp * most + h) * width + d], sum);
        }
        if (part.count <= 1) {
            out[i] = from_float<T>(part.count == 0 ? 0.0f : __fdiv_rn(sum, total));
            continue;
        }
        left[(static_cast<long long>(h) * splits + part.number) * width + d] = sum;
        if (d == 0) {
            reinterpret_cast<float2*>(left_tops)[h * splits + part.number] = make_float2(top, total);
        }
    }
    if (part.count <= 1) return;

    // What this block has left is seen by whoever sees that it has arrived.
    __threadfence();
    __syncthreads();
    int* counter = arrived + static_cast<long long>(row) * gridDim.y + blockIdx.y;
    if (threadIdx.x == 0) {
        last.is_last = atomicAdd(counter, 1) == part.count - 1;
        // For the next launch.
        if (last.is_last) *counter = 0;
    }
    __syncthreads();
    if (!last.is_last) return;
    __threadfence();

    // A warp a head. Past the first-level cache, which knows nothing of other blocks' writes.
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (warp < mine) {
        const float2* of_parts = reinterpret_cast<const float2*>(left_tops) + warp * splits;
        float2 own[MOST_SPLITS / 32];
        float top = NO_SCORE, total = 0.0f;
#pragma unroll
        for (int i = 0; i < MOST_SPLITS / 32; i++) {
            own[i] = make_float2(NO_SCORE, 0.0f);
            if (lane + 32 * i < part.count) own[i] = __ldcg(of_parts + lane + 32 * i);
            top = fmaxf(top, own[i].x);
        }
        for (int distance = 16; distance > 0; distance /= 2) {
            top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, distance));
        }
#pragma unroll
        for (int i = 0; i < MOST_SPLITS / 32; i++) {
            const float factor = exp2f(own[i].x - top);
            last.factors[warp][lane + 32 * i] = factor;
            total = fmaf(factor, own[i].y, total);
        }
        total = warp_sum(total);
        if (lane == 0) last.totals[warp] = total;
    }
    __syncthreads();
    for (int i = 4 * threadIdx.x; i < mine * width; i += 4 * 32 * WARPS) {
        const int h = i / width, d = i % width;
        const float4* of_parts = reinterpret_cast<const float4*>(left + static_cast<long long>(h) * splits * width + d);
        float sum[4] = {};
#pragma unroll 16
        for (int p = 0; p < part.count; p++) {
            const float4 four = __ldcg(of_parts + p * (width / 4));
            sum[0] = fmaf(last.factors[h][p], four.x, sum[0]);
            sum[1] = fmaf(last.factors[h][p], four.y, sum[1]);
            sum[2] = fmaf(last.factors[h][p], four.z, sum[2]);
            sum[3] = fmaf(last.factors[h][p], four.w, sum[3]);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) out[i + j] = from_float<T>(__fdiv_rn(sum[j], last.totals[h]));
    }
}

#define ENTRY(name, T)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, 4)                                                        \
        name(const T* q, const T* keys, const T* values, T* out, const long long* place, const long long* first,       \
             float* scratch, int* arrived, int heads, int kv_heads, int room, int width, int window) {                 \
        extern __shared__ uint4 dynamic_shared[];                                                                      \
        __shared__ Last last;                                                                                          \
        attend<T>(q, keys, values, out, place, first, scratch, arrived, heads, kv_heads, room, width, window,          \
                  reinterpret_cast<float*>(dynamic_shared), last);                                                     \
    }

ENTRY(attend_one_f32, float)
ENTRY(attend_one_f16, __half)
ENTRY(attend_one_bf16, __nv_bfloat16)

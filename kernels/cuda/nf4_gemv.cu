// NF4 weights for few rows, see few_rows.cuh. K and the block are multiples of 32.
//
// A weight is the float table[code] absmax, rounded: a look-up and a product each, which is what this takes unless both
// are cheap. So a byte of two codes is looked up at once, in a table of 256 pairs in shared memory. It has 16 copies,
// one for each lane of half a warp in the lane's own banks, since shared memory serves half a warp at a time with 8
// bytes a lane.
#include "few_rows.cuh"
#include "nf4.cuh"

constexpr int COPIES = 16;

// What a block's threads share.
struct Shared {
    // In order of bytes, then of copies.
    float2 pairs[256 * COPIES];
    // Of nested largest magnitudes.
    float map[256];
};

// Which block of weights a chunk of 32 is in, blocks being of `per` chunks: a product and a shift, as divisions take
// long. Exact for numbers below 2^31: with 2^l >= per and factor = floor(2^(31 + l) / per) + 1, the product is too
// large by less than 2^(31 + l) / per.
struct BlockOf {
    unsigned factor;
    int shift;

    __device__ __forceinline__ explicit BlockOf(unsigned per) {
        shift = 0;
        while (1u << shift < per) shift++;
        if (1u << shift == per) {
            factor = 1;
        } else {
            shift += 31;
            factor = static_cast<unsigned>((1ull << shift) / per) + 1;
        }
    }

    __device__ __forceinline__ unsigned operator()(unsigned chunk) const {
        return static_cast<unsigned>(static_cast<unsigned long long>(chunk) * factor >> shift);
    }
};

// How few_rows.cuh reads the weight.
template <typename T, bool NESTED>
struct FewRowsNf4 {
    struct Chunk {
        uint4 words;
        // The largest magnitude, or if NESTED the scale of it, and its code.
        float absmax;
        unsigned char code;
    };

    const unsigned char* __restrict__ packed;
    Nf4Absmax absmax;
    BlockOf block_of;
    // Chunks of a row.
    unsigned chunks;
    Shared& shared;

    __device__ __forceinline__ Chunk load(int n, int k, bool counts) const {
        const unsigned number = static_cast<unsigned>(n) * chunks + static_cast<unsigned>(k) / few_rows::CHUNK;
        const unsigned block = block_of(number);
        Chunk chunk;
        chunk.words = __ldcs(reinterpret_cast<const uint4*>(packed) + number);
        chunk.code = 0;
        // The sum that makes a nested one cannot be made 0 by its scale: what does not count has activations of 0.
        if (NESTED) {
            chunk.absmax = absmax.scale[block / 256];
            chunk.code = absmax.code[block];
        } else {
            chunk.absmax = counts ? absmax.plain[block] : 0.0f;
        }
        return chunk;
    }

    __device__ __forceinline__ void begin() const {
        for (int i = threadIdx.x; i < 256 * COPIES / 2; i += blockDim.x) {
            const int byte = 2 * i / COPIES;
            const float first = NF4_VALUES[byte / 16], second = NF4_VALUES[byte % 16];
            reinterpret_cast<float4*>(shared.pairs)[i] = make_float4(first, second, first, second);
        }
        if (NESTED) {
            for (int i = threadIdx.x; i < 256; i += blockDim.x) shared.map[i] = absmax.map[i];
        }
        __syncthreads();
    }

    __device__ __forceinline__ float absmax_of(const Chunk& chunk) const {
        if (!NESTED) return chunk.absmax;
        return __fadd_rn(__fmul_rn(shared.map[chunk.code], chunk.absmax), absmax.offset);
    }

    // What two codes stand for: those of byte `i` of a word, which a shift brings to where a row of the table begins,
    // in bytes.
    __device__ __forceinline__ float2 pair(unsigned word, int i) const {
        constexpr int BITS = 7;
        static_assert(COPIES * sizeof(float2) == 1 << BITS, "the bytes of a row");
        const unsigned row = (8 * i < BITS ? word << (BITS - 8 * i) : word >> (8 * i - BITS)) & 0xFFu << BITS;
        const unsigned copy = threadIdx.x % COPIES * static_cast<unsigned>(sizeof(float2));
        return *reinterpret_cast<const float2*>(reinterpret_cast<const char*>(shared.pairs) + (row | copy));
    }

    __device__ __forceinline__ void decode(const Chunk& chunk, int word, unsigned (&pairs)[4]) const {
        const unsigned words[4] = {chunk.words.x, chunk.words.y, chunk.words.z, chunk.words.w};
        const float by = absmax_of(chunk);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 values = pair(words[word], i);
            pairs[i] = bits_of(Pair<T>::of(values.x * by, values.y * by));
        }
    }
    __device__ __forceinline__ void decode(const Chunk& chunk, int word, float (&values)[8]) const {
        const unsigned words[4] = {chunk.words.x, chunk.words.y, chunk.words.z, chunk.words.w};
        const float by = absmax_of(chunk);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 two = pair(words[word], i);
            values[2 * i] = two.x * by;
            values[2 * i + 1] = two.y * by;
        }
    }
};

// y [M, N] and x [M, K] in the type to compute in; bias [N] or null. See Nf4Absmax.
#define NF4_GEMV(name, T, multiply)                                                                                          \
    extern "C" __global__ void __launch_bounds__(32 * few_rows::WARPS)                                                       \
        name(T* y, const T* x, const unsigned char* packed, const float* absmax, const unsigned char* code, const float* map, \
             const float* scale, float offset, const float* bias, int rows, int out_features, int in_features, int block) {  \
        __shared__ Shared shared;                                                                                            \
        const Nf4Absmax magnitudes = {absmax, code, map, scale, offset};                                                     \
        const BlockOf block_of(static_cast<unsigned>(block) / few_rows::CHUNK);                                              \
        const unsigned chunks = static_cast<unsigned>(in_features) / few_rows::CHUNK;                                        \
        if (absmax == nullptr) {                                                                                             \
            const FewRowsNf4<T, true> weight = {packed, magnitudes, block_of, chunks, shared};                               \
            multiply(y, x, weight, bias, rows, out_features, in_features);                                                   \
        } else {                                                                                                             \
            const FewRowsNf4<T, false> weight = {packed, magnitudes, block_of, chunks, shared};                              \
            multiply(y, x, weight, bias, rows, out_features, in_features);                                                   \
        }                                                                                                                    \
    }

NF4_GEMV(nf4_gemv_f16, __half, few_rows::multiply)
NF4_GEMV(nf4_gemv_bf16, __nv_bfloat16, few_rows::multiply)
NF4_GEMV(nf4_gemv_f32, float, few_rows::multiply_single)

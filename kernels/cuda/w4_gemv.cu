// int4 weights with a scale, and maybe a zero point, a group of input channels, for few rows. Weights are rounded to the
// activations' type, as the definition has it; sums are in float.
#include "few_rows.cuh"
#include "streamed.cuh"

// How few_rows.cuh reads the weight.
template <typename T>
struct FewRowsInt4 : Int4Weight<T> {
    struct Chunk {
        uint4 words;
        T scale;
        unsigned zero;
    };

    __device__ __forceinline__ Chunk load(int n, int k, bool counts) const {
        Chunk chunk;
        const unsigned* words = this->packed + static_cast<size_t>(n) * (this->in_features / 8) + k / 8;
        chunk.words = __ldcs(reinterpret_cast<const uint4*>(words));
        this->scale_of(n, k / this->group, chunk.scale, chunk.zero);
        if (!counts) chunk.scale = from_float<T>(0);
        return chunk;
    }

    __device__ __forceinline__ void begin() const {}

    template <typename Values>
    __device__ __forceinline__ void decode(const Chunk& chunk, int word, Values& values) const {
        const unsigned words[4] = {chunk.words.x, chunk.words.y, chunk.words.z, chunk.words.w};
        ::decode(words[word], chunk.scale, chunk.zero, values);
    }
};

// y [M, N], x [M, K], bias [N] or null; see Int4Weight and few_rows.cuh.
#define W4_GEMV(name, T, multiply, ...)                                                                                        \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__)                                                               \
        name(T* y, const T* x, const unsigned* packed, const T* scale, const unsigned char* zero, const float* bias, int rows, \
             int out_features, int in_features, int group) {                                                                \
        const FewRowsInt4<T> weight = {{packed, scale, zero, in_features, group, in_features / group}};                     \
        multiply(y, x, weight, bias, rows, out_features, in_features);                                                      \
    }

W4_GEMV(w4_gemv_f16, __half, few_rows::multiply, 32 * few_rows::WARPS, 3)
W4_GEMV(w4_gemv_bf16, __nv_bfloat16, few_rows::multiply, 32 * few_rows::WARPS, 3)
W4_GEMV(w4_gemv_f32, float, few_rows::multiply_single, 32 * few_rows::WARPS)

// decode() of int4.cuh in fewer instructions.
__device__ __forceinline__ void decode_fast(unsigned word, __nv_bfloat16 scale, unsigned zero, unsigned (&pairs)[4]) {
    const __nv_bfloat162 factor = __bfloat162bfloat162(scale);
    const __nv_bfloat162 offset = pair_of<__nv_bfloat162>(0x43004300u | zero * 0x00010001u);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const auto code = pair_of<__nv_bfloat162>(and_or<0x000F000Fu, 0x43004300u>(word >> (4 * i)));
        pairs[i] = bits_of(__hmul2(__hsub2(code, offset), factor));
    }
}
// Half precision has bits enough to leave every other code where it is, four bits higher: as the ones of 64.
__device__ __forceinline__ void decode_fast(unsigned word, __half scale, unsigned zero, unsigned (&pairs)[4]) {
    const __half2 factor = __half2half2(scale);
    const __half2 offset = pair_of<__half2>(0x64006400u | zero * 0x00010001u);
    const __half2 higher_offset = pair_of<__half2>(0x54005400u | zero * 0x00100010u);
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const unsigned part = word >> (4 * i);
        const auto code = pair_of<__half2>(and_or<0x000F000Fu, 0x64006400u>(part));
        const auto higher_code = pair_of<__half2>(and_or<0x00F000F0u, 0x54005400u>(part));
        pairs[i] = bits_of(__hmul2(__hsub2(code, offset), factor));
        pairs[i + 1] = bits_of(__hmul2(__hsub2(higher_code, higher_offset), factor));
    }
}

// How streamed.cuh reads the weight, of at most 2^20 input channels. ZEROS: whether it has zero points.
template <typename T, bool ZEROS>
struct StreamedInt4 {
    struct Chunk {
        uint4 words;
        T scale;
        // Of two groups, and by how much to shift them.
        unsigned char zeros, shift;
    };

    // As in Int4Weight.
    const unsigned* __restrict__ packed;
    const T* __restrict__ scale;
    const unsigned char* __restrict__ zero;
    // Of a row.
    unsigned chunks, groups;
    // floor(2^31 / p), with p chunks a group.
    unsigned factor;

    // floor(c / p), which is floor((2c + 1) / 2p), by a product, as divisions take long. (2c + 1) / 2p is at least 1 / 2p
    // above a whole number, and the product is too small by less than (2c + 1) / 2^32, which is no more for up to 2^15
    // chunks.
    __device__ __forceinline__ unsigned group_of(unsigned chunk) const {
        return static_cast<unsigned>(static_cast<unsigned long long>(2 * chunk + 1) * factor >> 32);
    }

    __device__ __forceinline__ Chunk load(int n, int k) const {
        const unsigned channel = static_cast<unsigned>(n), of_row = static_cast<unsigned>(k) / streamed::CHUNK;
        const unsigned group = group_of(of_row);
        Chunk chunk;
        chunk.words = load_once(reinterpret_cast<const uint4*>(packed) + (channel * chunks + of_row));
        chunk.scale = scale[channel * groups + group];
        chunk.zeros = 8;
        chunk.shift = 0;
        if (ZEROS) {
            chunk.zeros = zero[channel * ((groups + 1) / 2) + group / 2];
            chunk.shift = static_cast<unsigned char>(4 * (group % 2));
        }
        return chunk;
    }

    __device__ __forceinline__ void decode(const Chunk& chunk, int word, unsigned (&pairs)[4]) const {
        const unsigned words[4] = {chunk.words.x, chunk.words.y, chunk.words.z, chunk.words.w};
        const unsigned its_zero = ZEROS ? static_cast<unsigned>(chunk.zeros) >> chunk.shift & 0xFu : 8u;
        decode_fast(words[word], chunk.scale, its_zero, pairs);
    }
};

// The same for up to streamed::ROWS rows.
#define W4_GEMV_4(name, T)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(32 * streamed::WARPS, streamed::BLOCKS)                                    \
        name(T* y, const T* x, const unsigned* packed, const T* scale, const unsigned char* zero, const float* bias, int rows, \
             int out_features, int in_features, int group) {                                                                \
        const unsigned chunks = static_cast<unsigned>(in_features) / streamed::CHUNK;                                       \
        const unsigned groups = static_cast<unsigned>(in_features) / static_cast<unsigned>(group);                          \
        const unsigned factor = (1u << 31) / (static_cast<unsigned>(group) / streamed::CHUNK);                              \
        if (zero == nullptr) {                                                                                              \
            const StreamedInt4<T, false> weight = {packed, scale, zero, chunks, groups, factor};                            \
            streamed::multiply(y, x, weight, bias, rows, out_features, in_features);                                        \
        } else {                                                                                                            \
            const StreamedInt4<T, true> weight = {packed, scale, zero, chunks, groups, factor};                             \
            streamed::multiply(y, x, weight, bias, rows, out_features, in_features);                                        \
        }                                                                                                                   \
    }

W4_GEMV_4(w4_gemv_f16_4, __half)
W4_GEMV_4(w4_gemv_bf16_4, __nv_bfloat16)

// The columns of a block of GPTQ, one after the other (Frantar et al., 2022, arXiv 2210.17323), in one launch: what
// kernels/src/gptq does on a CPU, to the bit. Products are rounded before they are subtracted, in the references' way,
// which is why no operation here may become part of a fused multiply-add.
//
// A warp has a row; lane l of it the columns l, l + 32, l + 64 and l + 96. The errors go from lane to lane.
#include "floats.cuh"

namespace {

constexpr int COLUMNS = 128;
constexpr int OWN = COLUMNS / 32;

}  // namespace

// block [N, B], factor [B, B], scale and zero (or null) [N, G], group_of [B]; codes, values and errors [N, B]. B is at
// most 128. zero_after: whether the zero point is added after rounding. kind: what values are rounded to, 0: nothing,
// 1: bfloat16, 2: half precision. ceil(N / 8) blocks of 256 threads.
extern "C" __global__ void __launch_bounds__(256)
    gptq_block(unsigned char* codes, float* values, float* errors, const float* block, const float* factor, const float* scale,
               const float* zero, const int* group_of, int rows, int columns, int groups, int zero_after, float lowest,
               float highest, int kind) {
    const int lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const size_t first = static_cast<size_t>(row) * columns;

    float weights[OWN], own_values[OWN] = {}, own_errors[OWN] = {};
    unsigned char own_codes[OWN] = {};
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        const int column = lane + 32 * i;
        weights[i] = column < columns ? block[first + column] : 0.0f;
    }
    int group = -1;
    float its_scale = 1.0f, its_zero = 0.0f;
#pragma unroll
    for (int part = 0; part < OWN; part++) {
        for (int source = 0; source < 32; source++) {
            const int column = 32 * part + source;
            if (column >= columns) break;
            if (group_of[column] != group) {
                group = group_of[column];
                const size_t place = static_cast<size_t>(row) * groups + group;
                its_scale = scale[place];
                its_zero = zero == nullptr ? 0.0f : zero[place];
            }
            const float weight = __shfl_sync(0xFFFFFFFFu, weights[part], source);
            // All lanes compute the same.
            const float scaled = __fdiv_rn(weight, its_scale);
            const float code = zero_after ? fminf(fmaxf(__fadd_rn(rintf(scaled), its_zero), lowest), highest)
                                          : rintf(fminf(fmaxf(__fadd_rn(scaled, its_zero), lowest), highest));
            float value = __fmul_rn(__fsub_rn(code, its_zero), its_scale);
            if (kind == 1) value = rounded<__nv_bfloat16>(value);
            if (kind == 2) value = rounded<__half>(value);
            const float* factors = factor + column * columns;
            const float error = __fdiv_rn(__fsub_rn(weight, value), factors[column]);
#pragma unroll
            for (int i = part; i < OWN; i++) {
                const int other = lane + 32 * i;
                if (other > column && other < columns) {
                    weights[i] = __fsub_rn(weights[i], __fmul_rn(error, factors[other]));
                }
            }
            if (lane == source) {
                own_codes[part] = static_cast<unsigned char>(static_cast<int>(code - lowest));
                own_values[part] = value;
                own_errors[part] = error;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        const int column = lane + 32 * i;
        if (column >= columns) continue;
        codes[first + column] = own_codes[i];
        values[first + column] = own_values[i];
        errors[first + column] = own_errors[i];
    }
}

// W4A8 with an integer scale and zero a group for many rows. Not in a file with the other scheme: NVRTC takes far more than
// twice as long for both.
#include "w4a8_gemm.cuh"

W4A8_GEMM(w4a8_progressive_gemm_f32_32, float, Progressive, 1)
W4A8_GEMM(w4a8_progressive_gemm_f32_128, float, Progressive, 4)
W4A8_GEMM(w4a8_progressive_gemm_f16_32, __half, Progressive, 1)
W4A8_GEMM(w4a8_progressive_gemm_f16_128, __half, Progressive, 4)
W4A8_GEMM(w4a8_progressive_gemm_bf16_32, __nv_bfloat16, Progressive, 1)
W4A8_GEMM(w4a8_progressive_gemm_bf16_128, __nv_bfloat16, Progressive, 4)

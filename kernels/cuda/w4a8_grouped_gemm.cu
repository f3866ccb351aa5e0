// W4A8 with a floating-point scale a group for many rows.
#include "w4a8_gemm.cuh"

W4A8_GEMM(w4a8_grouped_gemm_f32_32, float, Grouped<float>, 1)
W4A8_GEMM(w4a8_grouped_gemm_f32_64, float, Grouped<float>, 2)
W4A8_GEMM(w4a8_grouped_gemm_f16_32, __half, Grouped<__half>, 1)
W4A8_GEMM(w4a8_grouped_gemm_f16_64, __half, Grouped<__half>, 2)
W4A8_GEMM(w4a8_grouped_gemm_bf16_32, __nv_bfloat16, Grouped<__nv_bfloat16>, 1)
W4A8_GEMM(w4a8_grouped_gemm_bf16_64, __nv_bfloat16, Grouped<__nv_bfloat16>, 2)

// The few instructions that C++ has no name for.
//
// Lanes hold fragments of matrices as the PTX manual lays them out ("Matrix fragments for mma"); for lane l of a warp let
// q = l / 4 and r = l % 4. Registers of 32 bits hold two 16-bit or four 8-bit numbers, the first in the lowest bits.
//
//   m16n8k32 s8    a[0]: row q,   k 4r..4r+3       m16n8k16 f16, bf16    a[0]: row q,   k 2r, 2r+1
//                  a[1]: row q+8, k 4r..4r+3                             a[1]: row q+8, k 2r, 2r+1
//                  a[2]: row q,   k 16+4r..                              a[2]: row q,   k 8+2r, 9+2r
//                  a[3]: row q+8, k 16+4r..                              a[3]: row q+8, k 8+2r, 9+2r
//                  b[0]: column q, k 4r..4r+3                            b[0]: column q, k 2r, 2r+1
//                  b[1]: column q, k 16+4r..                             b[1]: column q, k 8+2r, 9+2r
//   d, both:       d[0], d[1]: row q, columns 2r, 2r+1;  d[2], d[3]: row q+8, columns 2r, 2r+1
//
// All lanes of a warp call the functions of matrices together. The emulator has functions of the same names and skips
// this file, which needs compute capability 8.0.
#ifndef QPIPE_PTX_CUH
#define QPIPE_PTX_CUH

// d += a b, 16 x 32 times 32 x 8 in int8; sums wrap.
__device__ __forceinline__ void mma_m16n8k32_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a b, 16 x 16 times 16 x 8 in half precision, sums in single precision.
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same in bfloat16.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit numbers. Lane l names the l % 8-th row, 16 aligned bytes in shared memory, of matrix
// l / 8; it receives in r[i] the numbers 2r, 2r+1 of row q of matrix i. Rows of 16 int8 are moved just so.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* shared) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// Begins to copy 16 aligned bytes past the first-level cache; where not `valid`, nothing is read and zeros are written.
__device__ __forceinline__ void cp_async16(void* shared, const void* global, bool valid) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

// What this thread has begun to copy since the last call is a group.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

// Waits until at most the last N groups of this thread are under way. Other threads see the bytes after a barrier.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

// Loads 16 bytes that nothing writes while the kernel runs, and that are used once: they stay out of the first-level cache.
// It stays where it is written among what else is here.
__device__ __forceinline__ uint4 load_once(const uint4* global) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(global));
    return v;
}

// (word & MASK) | ONES in one instruction, of which the compiler makes two.
template <unsigned MASK, unsigned ONES>
__device__ __forceinline__ unsigned and_or(unsigned word) {
    unsigned result;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;\n" : "=r"(result) : "r"(word), "n"(MASK), "n"(ONES));
    return result;
}

// c plus the products of the four int8 in a and in b.
__device__ __forceinline__ int dp4a(int a, int b, int c) { return __dp4a(a, b, c); }

#endif

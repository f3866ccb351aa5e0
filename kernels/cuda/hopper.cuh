// What compute capability 9.0 alone has (`sm_90a`): copies of boxes of a matrix, barriers in shared memory that count their
// bytes, pairs of blocks, products that warpgroups begin and wait for.
//
// Barriers and places in shared memory are named by their 32-bit addresses in it. A barrier has phases: each ends when so
// many arrivals have come as it was made for, and all bytes that were announced. `parity` is that of the phase's number,
// the first being 0; waiting for parity 1 of a new barrier returns at once.
//
// The functions exist only where the architecture has the instructions.
#ifndef QPIPE_HOPPER_CUH
#define QPIPE_HOPPER_CUH

// What cuTensorMapEncodeTiled writes. A kernel has it as a parameter, `const __grid_constant__ TensorMap`.
struct alignas(64) TensorMap {
    unsigned char bytes[128];
};

// The blocks of a grid in twos or in fours, where the architecture has that. Who launches needs to say nothing. What is said
// of pairs below is so of fours, too.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define IN_PAIRS __cluster_dims__(2, 1, 1)
#define IN_FOURS __cluster_dims__(4, 1, 1)
#else
#define IN_PAIRS
#define IN_FOURS
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ __forceinline__ unsigned shared_address(const void* shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// Which of its cluster this block is.
__device__ __forceinline__ unsigned number_in_cluster() {
    unsigned number;
    asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(number));
    return number;
}

// The name of the same place in the shared memory of block `number` of the cluster.
__device__ __forceinline__ unsigned in_block(unsigned address, unsigned number) {
    unsigned there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(there) : "r"(address), "r"(number));
    return there;
}

// Waits until all threads of the cluster have come here.
__device__ __forceinline__ void sync_cluster() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;\n" ::: "memory");
}

// A stage of a ring of STAGES, and the parity of the phases in which it is filled.
template <int STAGES>
struct Stage {
    int number = 0;
    unsigned parity = 0;

    __device__ __forceinline__ void advance() {
        if (++number == STAGES) number = 0, parity ^= 1;
    }
};

// Makes a barrier whose phases end after `arrivals`. Before others use it: fence_barriers(), then a barrier of the threads.
__device__ __forceinline__ void make_barrier(unsigned barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Barriers made by this thread exist for the other block and for copies, too.
__device__ __forceinline__ void fence_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;\n" ::: "memory");
}

// Arrives, and announces bytes that copies will bring in this phase. They may have come before.
__device__ __forceinline__ void arrive_expecting(unsigned barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}

// Arrives at a barrier of any block of the cluster, named by in_block().
__device__ __forceinline__ void arrive_in_cluster(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}

// Waits for the end of the phase of this parity.
__device__ __forceinline__ void wait_for_phase(unsigned barrier, unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred ended;\n"
        "AGAIN:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
        "@ended bra END;\n"
        "bra AGAIN;\n"
        "END:\n"
        "}\n" ::"r"(barrier), "r"(parity)
        : "memory");
}

// Has the map at hand before the first copy.
__device__ __forceinline__ void prefetch_map(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];\n" ::"l"(&map) : "memory");
}

// Begins to copy the map's box from column `column` and row `row` on, with zeros where the matrix ends. All its bytes count
// at `barrier`. One thread calls this.
__device__ __forceinline__ void copy_box(unsigned to, const TensorMap& map, int column, int row, unsigned barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3}], [%4];\n" ::"r"(to),
        "l"(&map), "r"(column), "r"(row), "r"(barrier)
        : "memory");
}

// The same to this place in those blocks whose bits in `blocks` are set.
__device__ __forceinline__ void copy_box_to_blocks(
    unsigned to, const TensorMap& map, int column, int row, unsigned barrier, unsigned blocks) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3}], [%4], %5;\n" ::"r"(to),
        "l"(&map), "r"(column), "r"(row), "r"(barrier), "h"(static_cast<unsigned short>(blocks))
        : "memory");
}

// Arrives at a barrier of any block, named by in_block(). What this thread wrote into shared memory before, or saw written,
// those see who wait with wait_for_blocks().
__device__ __forceinline__ void arrive_with_writes(unsigned barrier) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}

// Waits for the end of the phase of this parity, to which other blocks' threads arrived.
__device__ __forceinline__ void wait_for_blocks(unsigned barrier, unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred ended;\n"
        "AGAIN:\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 ended, [%0], %1;\n"
        "@ended bra END;\n"
        "bra AGAIN;\n"
        "END:\n"
        "}\n" ::"r"(barrier), "r"(parity)
        : "memory");
}

// Four numbers in any block's shared memory, at an address of in_block().
__device__ __forceinline__ float4 load_in_block(unsigned address) {
    float4 four;
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];\n"
                 : "=f"(four.x), "=f"(four.y), "=f"(four.z), "=f"(four.w)
                 : "r"(address)
                 : "memory");
    return four;
}

// Waits for all `threads` threads, whole warps of this block, that come to barrier `number`, 1 to 15.
__device__ __forceinline__ void sync_some(int number, int threads) {
    asm volatile("bar.sync %0, %1;\n" ::"r"(number), "r"(threads) : "memory");
}

// Writes four 8 x 8 matrices of 16-bit numbers, of which thread l of the warp has in r[i] row l / 4, columns 2 (l % 4), + 1,
// column by column: thread l names the 16 bytes for column l % 8 of matrix l / 8.
__device__ __forceinline__ void store_columns(unsigned address, const unsigned (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(address), "r"(r[0]),
                 "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

// All four warps of a warpgroup call these, and each for itself: it has up to N registers from here on. Sums for all
// warpgroups must not exceed what the block was started with.
template <int N>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));
}
template <int N>
__device__ __forceinline__ void leave_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));
}

// How wgmma finds a matrix whose rows are 128 bytes each, eight rows a piece of 1024 bytes, the sixteens in a row exchanged
// as cuTensorMap's SWIZZLE_128B does it. Pieces begin at multiples of 1024. Adding 2 goes 32 bytes on in the rows.
__device__ __forceinline__ unsigned long long matrix_of_128_byte_rows(unsigned address) {
    constexpr unsigned long long SWIZZLE_128B = 1ull << 62, PIECE = 1024 / 16, UNUSED = 1;
    return SWIZZLE_128B | PIECE << 32 | UNUSED << 16 | (address & 0x3FFFF) >> 4;
}

// Before a warpgroup's first product, and whenever its sums were touched otherwise.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }

// The products begun since the last call are a group.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }

// Waits until at most the last N groups are under way.
template <int N>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
}

// Nothing of `d` is read before what stands above, or written after what stands below.
template <int N>
__device__ __forceinline__ void keep_order(int (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+r"(d[i])::"memory");
}

template <int N>
__device__ __forceinline__ void keep_order(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// Begins d = a b + (add ? d : 0) in int8, 64 x 32 times 32 x (2 N), both with k along their rows. Thread t of the warpgroup
// has in d[4j], d[4j+1] row 16 (t / 32) + t % 32 / 4 and columns 8j + 2 (t % 4), + 1; in d[4j+2], d[4j+3] the eighth row on.
#define TEN(t) "%" t "0,%" t "1,%" t "2,%" t "3,%" t "4,%" t "5,%" t "6,%" t "7,%" t "8,%" t "9,"
#define FOUR_OF(d, i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define SIXTEEN_OF(d, i) FOUR_OF(d, i), FOUR_OF(d, i + 4), FOUR_OF(d, i + 8), FOUR_OF(d, i + 12)
__device__ __forceinline__ void wgmma_s8(int (&d)[32], unsigned long long a, unsigned long long b, bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 "
        "{" TEN("") TEN("1") TEN("2") "%30,%31}, %32, %33, add;\n}\n"
        : SIXTEEN_OF(d, 0), SIXTEEN_OF(d, 16)
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ __forceinline__ void wgmma_s8(int (&d)[64], unsigned long long a, unsigned long long b, bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 "
        "{" TEN("") TEN("1") TEN("2") TEN("3") TEN("4") TEN("5") "%60,%61,%62,%63}, %64, %65, add;\n}\n"
        : SIXTEEN_OF(d, 0), SIXTEEN_OF(d, 16), SIXTEEN_OF(d, 32), SIXTEEN_OF(d, 48)
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ __forceinline__ void wgmma_s8(int (&d)[128], unsigned long long a, unsigned long long b, bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 "
        "{" TEN("") TEN("1") TEN("2") TEN("3") TEN("4") TEN("5") TEN("6") TEN("7") TEN("8") TEN("9") TEN("10") TEN("11")
        "%120,%121,%122,%123,%124,%125,%126,%127}, %128, %129, add;\n}\n"
        : SIXTEEN_OF(d, 0), SIXTEEN_OF(d, 16), SIXTEEN_OF(d, 32), SIXTEEN_OF(d, 48), SIXTEEN_OF(d, 64), SIXTEEN_OF(d, 80),
          SIXTEEN_OF(d, 96), SIXTEEN_OF(d, 112)
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
#undef FOUR_OF
#undef SIXTEEN_OF

// Begins d += a b in f16 or bf16, 64 x 16 times 16 x (2 N), sums in float. Thread t has in `a` the rows that it has of d:
// a[0] row q, k 2r, 2r + 1; a[1] the eighth row on; a[2], a[3] the same, k 8 + 2r, 9 + 2r; q, r = t % 32 / 4, t % 4. The
// registers of `a` are read until the product's group is waited for. b has k along its rows.
#define FOUR_OF(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIXTEEN_OF(d, i) FOUR_OF(d, i), FOUR_OF(d, i + 4), FOUR_OF(d, i + 8), FOUR_OF(d, i + 12)
#define BEFORE(columns, type, flag)                        \
    "{\n.reg .pred add;\nsetp.ne.b32 add, " flag ", 0;\n" \
    "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type " {"
#define OPERANDS(a, b) "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1)
#define WGMMA(name, type)                                                                                              \
    __device__ __forceinline__ void name(float (&d)[16], const unsigned (&a)[4], unsigned long long b) {               \
        asm volatile(BEFORE("32", type, "%21") TEN("") "%10,%11,%12,%13,%14,%15}, "                                    \
                     "{%16,%17,%18,%19}, %20, add, 1, 1, 0;\n}\n"                                                      \
                     : SIXTEEN_OF(d, 0)                                                                                \
                     : OPERANDS(a, b));                                                                                \
    }                                                                                                                  \
    __device__ __forceinline__ void name(float (&d)[32], const unsigned (&a)[4], unsigned long long b) {               \
        asm volatile(BEFORE("64", type, "%37") TEN("") TEN("1") TEN("2") "%30,%31}, "                                  \
                     "{%32,%33,%34,%35}, %36, add, 1, 1, 0;\n}\n"                                                      \
                     : SIXTEEN_OF(d, 0), SIXTEEN_OF(d, 16)                                                             \
                     : OPERANDS(a, b));                                                                                \
    }                                                                                                                  \
    __device__ __forceinline__ void name(float (&d)[64], const unsigned (&a)[4], unsigned long long b) {               \
        asm volatile(BEFORE("128", type, "%69") TEN("") TEN("1") TEN("2") TEN("3") TEN("4") TEN("5")                   \
                     "%60,%61,%62,%63}, {%64,%65,%66,%67}, %68, add, 1, 1, 0;\n}\n"                                    \
                     : SIXTEEN_OF(d, 0), SIXTEEN_OF(d, 16), SIXTEEN_OF(d, 32), SIXTEEN_OF(d, 48)                       \
                     : OPERANDS(a, b));                                                                                \
    }                                                                                                                  \
    __device__ __forceinline__ void name(float (&d)[128], const unsigned (&a)[4], unsigned long long b) {              \
        asm volatile(BEFORE("256", type, "%133") TEN("") TEN("1") TEN("2") TEN("3") TEN("4") TEN("5") TEN("6") TEN("7") \
                     TEN("8") TEN("9") TEN("10") TEN("11") "%120,%121,%122,%123,%124,%125,%126,%127}, "                \
                     "{%128,%129,%130,%131}, %132, add, 1, 1, 0;\n}\n"                                                 \
                     : SIXTEEN_OF(d, 0), SIXTEEN_OF(d, 16), SIXTEEN_OF(d, 32), SIXTEEN_OF(d, 48), SIXTEEN_OF(d, 64),   \
                       SIXTEEN_OF(d, 80), SIXTEEN_OF(d, 96), SIXTEEN_OF(d, 112)                                        \
                     : OPERANDS(a, b));                                                                                \
    }
WGMMA(wgmma_f16, "f16")
WGMMA(wgmma_bf16, "bf16")
#undef WGMMA
#undef OPERANDS
#undef BEFORE
#undef TEN
#undef FOUR_OF
#undef SIXTEEN_OF

#endif
#endif

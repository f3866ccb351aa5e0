// CUDA C++ on a CPU, to test the arithmetic and the indices of kernels where there is no GPU.
//
// Included before a .cu file (g++ -include emulator.h -I include), it gives the language's keywords, variables and
// functions a meaning in C++17. A block's threads are fibers that run one after the other until each waits for others:
// at __syncthreads, or at what a warp's lanes do together. Blocks run one after the other. So a run is repeatable; in
// the reverse order (Launch::reversed) it gives the same result unless a barrier is missing.
//
// Reported as errors: threads that wait for ever, lanes of a warp at different instructions, accesses beyond a buffer of
// emulator_allocate, writes beyond the dynamic shared memory that a launch asked for, vectors at addresses that are no
// multiples of their size (with g++'s -fsanitize=alignment). Dynamic shared memory is full of NaN when a block starts;
// functions outside of namespaces declare it as
//
//     extern __shared__ uint4 dynamic_shared[];
//
// Copies by cp.async arrive when they are waited for and not before. Not seen: races that neither order shows, what
// shared or local memory costs, what a compiler for a GPU makes of it. Floating-point operations are IEEE's; sums of
// tensor cores, which on a GPU depend on its architecture, are rounded once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "vectors.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __grid_constant__
// Static where a function declares it, and with `extern` still a declaration: blocks take turns with one variable.
#define __shared__ thread_local

namespace emulator {

struct Thread {
    uint3 index;
    unsigned lane;
    unsigned warp;
};

// Of the thread that runs. One launch at a time.
extern const Thread* running;
extern uint3 block_index;
extern dim3 block_size, grid_size;

// Waits for the block's threads.
void wait_for_block();

// Lane `running` waits, with `mine`, for the other lanes of its warp, which all have to be in `mask`. For the last one
// it returns their pointers, null where a block has no such lane; the caller then acts for all and calls
// `let_warp_go`. The others return null after that.
void* const* wait_for_warp(const char* operation, unsigned mask, void* mine);
void let_warp_go();

// Ends the launch with a message.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// A copy of 16 bytes that begins now and arrives at `arrive_copies`; zeros where `from` is null.
void begin_copy(void* to, const void* from);
void commit_copies();
// All groups of this thread's copies but the last `pending` arrive.
void arrive_copies(int pending);

// Where all lanes of a warp come together: the last to come runs `act` on what each has brought, which lies on the
// lanes' own stacks.
template <typename T, typename Act>
void together(const char* operation, unsigned mask, T& mine, Act act) {
    void* const* lanes = wait_for_warp(operation, mask, &mine);
    if (lanes == nullptr) return;
    T* typed[32];
    for (int lane = 0; lane < 32; lane++) typed[lane] = static_cast<T*>(lanes[lane]);
    act(typed);
    let_warp_go();
}

template <typename T>
struct Shuffle {
    T value;
    int source;
    T result;
};

// A source that is no lane of the segment of `width` lanes gives a lane its own value.
template <typename T>
T shuffle(const char* operation, unsigned mask, T value, int source) {
    Shuffle<T> mine{value, source, value};
    together(operation, mask, mine, [](Shuffle<T>** lanes) {
        for (int lane = 0; lane < 32; lane++) {
            if (lanes[lane] == nullptr) continue;
            Shuffle<T>* from = lanes[lanes[lane]->source];
            if (from == nullptr) fail("lane %d shuffles with lane %d, which there is not", lane, lanes[lane]->source);
            lanes[lane]->result = from->value;
        }
    });
    return mine.result;
}

inline int own_or(int source, int width) {
    const int lane = static_cast<int>(running->lane);
    const int first = lane / width * width;
    return source < first || source >= first + width ? lane : source;
}

}  // namespace emulator

#define threadIdx (emulator::running->index)
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)
constexpr int warpSize = 32;

inline void __syncthreads() { emulator::wait_for_block(); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) {
    int nothing = 0;
    emulator::together("__syncwarp", mask, nothing, [](int**) {});
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    const int first = static_cast<int>(emulator::running->lane) / width * width;
    return emulator::shuffle("__shfl_sync", mask, value, first + (source & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    const int lane = static_cast<int>(emulator::running->lane);
    return emulator::shuffle("__shfl_xor_sync", mask, value, emulator::own_or(lane ^ bits, width));
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int lane = static_cast<int>(emulator::running->lane);
    return emulator::shuffle("__shfl_down_sync", mask, value, emulator::own_or(lane + static_cast<int>(delta), width));
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int lane = static_cast<int>(emulator::running->lane);
    return emulator::shuffle("__shfl_up_sync", mask, value, emulator::own_or(lane - static_cast<int>(delta), width));
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned mine = predicate != 0;
    emulator::together("__ballot_sync", mask, mine, [](unsigned** lanes) {
        unsigned votes = 0;
        for (int lane = 0; lane < 32; lane++) votes |= (lanes[lane] != nullptr ? *lanes[lane] : 0u) << lane;
        for (int lane = 0; lane < 32; lane++) {
            if (lanes[lane] != nullptr) *lanes[lane] = votes;
        }
    });
    return mine;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

template <typename T>
T atomicAdd(T* address, T value) {
    const T old = *address;
    *address = old + value;
    return old;
}
template <typename T>
T atomicMax(T* address, T value) {
    const T old = *address;
    *address = std::max(old, value);
    return old;
}

#include "arithmetic.h"
#include "include/cuda_bf16.h"
#include "include/cuda_fp16.h"
#include "instructions.h"

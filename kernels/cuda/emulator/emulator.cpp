// The scheduler of the emulator and its memory, see emulator.h. Linked with each emulated .cu file.
#include "launch.h"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace emulator {

const Thread* running = nullptr;
uint3 block_index;
dim3 block_size, grid_size;

namespace {

constexpr size_t STACK_BYTES = 128 << 10;
constexpr size_t GUARD_BYTES = 4 << 10;
constexpr unsigned MOST_THREADS = 1024;
constexpr unsigned char UNTOUCHED = 0xFF;

struct Copy {
    void* to;
    bool reads;
    unsigned char bytes[16];
};

struct Fiber {
    Thread thread;
    // How it begins, and how it goes on: jumps are faster, for they leave the signals' mask alone.
    ucontext_t context;
    jmp_buf place;
    bool began = false;
    // What it waits at, null while it can run.
    const char* waits_at = nullptr;
    bool ended = false;
    // Copies since the last commit, and the committed groups that have not arrived.
    std::vector<Copy> begun;
    std::deque<std::vector<Copy>> groups;
};

struct Warp {
    void* lanes[32];
    const char* operation;
    unsigned mask;
    unsigned arrived;
    unsigned living;
};

struct {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    unsigned at_barrier = 0;
    unsigned living = 0;
    Fiber* fiber = nullptr;
    jmp_buf scheduler;
    void (*kernel)(void* const*) = nullptr;
    void* const* arguments = nullptr;
    char error[512];
    bool failed = false;
} state;

unsigned char* stacks() {
    static unsigned char* const memory = [] {
        const size_t bytes = MOST_THREADS * (STACK_BYTES + GUARD_BYTES);
        void* got = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (got == MAP_FAILED) abort();
        auto* first = static_cast<unsigned char*>(got);
        for (unsigned i = 0; i < MOST_THREADS; i++) mprotect(first + i * (STACK_BYTES + GUARD_BYTES), GUARD_BYTES, PROT_NONE);
        return first;
    }();
    return memory;
}

// Leaves the fiber for the scheduler, until it is chosen again.
void leave() {
    if (_setjmp(state.fiber->place) == 0) _longjmp(state.scheduler, 1);
}

// Runs a fiber until it leaves, ends or fails.
void enter(Fiber& fiber) {
    running = &fiber.thread;
    state.fiber = &fiber;
    if (_setjmp(state.scheduler) == 0) {
        if (fiber.began) _longjmp(fiber.place, 1);
        fiber.began = true;
        setcontext(&fiber.context);
    }
    state.fiber = nullptr;
}

void let_block_go() {
    for (Fiber& fiber : state.fibers) fiber.waits_at = nullptr;
    state.at_barrier = 0;
}

void run_thread() {
    state.kernel(state.arguments);
    Fiber& fiber = *state.fiber;
    // As on a GPU: what has ended waits at no barrier.
    fiber.ended = true;
    state.warps[fiber.thread.warp].living--;
    state.living--;
    if (state.living > 0 && state.at_barrier == state.living) let_block_go();
    _longjmp(state.scheduler, 1);
}

void say(const char* what) {
    snprintf(state.error, sizeof state.error, "block (%u, %u, %u), thread (%u, %u, %u): %s", block_index.x, block_index.y,
             block_index.z, running->index.x, running->index.y, running->index.z, what);
    state.failed = true;
}

// A fault of a thread ends the launch. One of the emulator itself, or of its caller, is not its business.
void on_signal(int signal, siginfo_t*, void*) {
    if (state.fiber == nullptr) {
        std::signal(signal, SIG_DFL);
        raise(signal);
        return;
    }
    say(signal == SIGILL ? "a vector at an address that is no multiple of its size, or an index beyond an array"
                         : "an access beyond a buffer");
    _longjmp(state.scheduler, 1);
}

void report_who_waits() {
    for (const Fiber& fiber : state.fibers) {
        if (fiber.ended) continue;
        running = &fiber.thread;
        const Warp& warp = state.warps[fiber.thread.warp];
        char text[256];
        snprintf(text, sizeof text, "waits for ever at %s; %u of its warp's %u living lanes are there, %u of the block's %u threads "
                 "at __syncthreads", fiber.waits_at, warp.arrived, warp.living, state.at_barrier, state.living);
        say(text);
        return;
    }
}

void prepare_block(size_t shared_bytes) {
    const unsigned threads = block_size.x * block_size.y * block_size.z;
    memset(dynamic_memory(), UNTOUCHED, shared_bytes + GUARD_BYTES);
    state.fibers.resize(threads);
    state.warps.assign((threads + 31) / 32, Warp{});
    state.at_barrier = 0;
    state.living = threads;
    for (unsigned i = 0; i < threads; i++) {
        Fiber& fiber = state.fibers[i];
        const uint3 index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
        fiber.thread = {index, i % 32, i / 32};
        fiber.waits_at = nullptr;
        fiber.began = fiber.ended = false;
        fiber.begun.clear();
        fiber.groups.clear();
        state.warps[i / 32].living++;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = stacks() + i * (STACK_BYTES + GUARD_BYTES) + GUARD_BYTES;
        fiber.context.uc_stack.ss_size = STACK_BYTES;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, run_thread, 0);
    }
}

void run_block(bool reversed) {
    bool progress = true;
    while (progress && !state.failed) {
        progress = false;
        for (size_t i = 0; i < state.fibers.size() && !state.failed; i++) {
            Fiber& fiber = state.fibers[reversed ? state.fibers.size() - 1 - i : i];
            if (fiber.ended || fiber.waits_at != nullptr) continue;
            progress = true;
            enter(fiber);
        }
    }
    if (!state.failed && state.living > 0) report_who_waits();
}

void check_shared(size_t shared_bytes) {
    for (size_t i = shared_bytes; i < shared_bytes + GUARD_BYTES; i++) {
        if (dynamic_memory()[i] == UNTOUCHED) continue;
        snprintf(state.error, sizeof state.error, "block (%u, %u, %u) writes byte %zu of its %zu bytes of shared memory", block_index.x,
                 block_index.y, block_index.z, i, shared_bytes);
        state.failed = true;
        return;
    }
}

// While it lives, faults end the launch. On a stack of its own, for a thread's may be used up.
class Faults {
   public:
    Faults() : stack(64 << 10) {
        stack_t own = {};
        own.ss_sp = stack.data();
        own.ss_size = stack.size();
        sigaltstack(&own, &old_stack);
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &action, &old[i]);
    }
    ~Faults() {
        for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &old[i], nullptr);
        sigaltstack(&old_stack, nullptr);
    }

   private:
    static constexpr int SIGNALS[3] = {SIGSEGV, SIGBUS, SIGILL};
    std::vector<unsigned char> stack;
    stack_t old_stack = {};
    struct sigaction old[3] = {};
};

}  // namespace

void fail(const char* format, ...) {
    char text[256];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    say(text);
    _longjmp(state.scheduler, 1);
}

void wait_for_block() {
    state.at_barrier++;
    if (state.at_barrier == state.living) {
        let_block_go();
        return;
    }
    state.fiber->waits_at = "__syncthreads";
    leave();
}

void* const* wait_for_warp(const char* operation, unsigned mask, void* mine) {
    Warp& warp = state.warps[running->warp];
    if (warp.arrived == 0) {
        warp.operation = operation;
        warp.mask = mask;
        for (void*& lane : warp.lanes) lane = nullptr;
    }
    if (strcmp(warp.operation, operation) != 0 || warp.mask != mask) {
        fail("is at %s (%08x) while other lanes of its warp are at %s (%08x)", operation, mask, warp.operation, warp.mask);
    }
    if ((mask >> running->lane & 1) == 0) fail("is at %s without being in its mask %08x", operation, mask);
    warp.lanes[running->lane] = mine;
    warp.arrived++;
    if (warp.arrived == warp.living) return warp.lanes;
    state.fiber->waits_at = operation;
    leave();
    return nullptr;
}

void let_warp_go() {
    state.warps[running->warp].arrived = 0;
    const size_t first = 32 * running->warp, end = std::min(first + 32, state.fibers.size());
    for (size_t i = first; i < end; i++) state.fibers[i].waits_at = nullptr;
}

void begin_copy(void* to, const void* from) {
    Copy copy = {to, from != nullptr, {}};
    // Read now, so that a fault names this thread; the bytes of global memory do not change meanwhile.
    if (from != nullptr) memcpy(copy.bytes, from, sizeof copy.bytes);
    state.fiber->begun.push_back(copy);
}

void commit_copies() {
    state.fiber->groups.push_back(std::move(state.fiber->begun));
    state.fiber->begun.clear();
}

void arrive_copies(int pending) {
    auto& groups = state.fiber->groups;
    while (groups.size() > static_cast<size_t>(pending)) {
        for (const Copy& copy : groups.front()) memcpy(copy.to, copy.bytes, sizeof copy.bytes);
        groups.pop_front();
    }
}

const char* launch(void (*kernel)(void* const*), const Launch& how, void* const* arguments) {
    block_size = {how.block[0], how.block[1], how.block[2]};
    grid_size = {how.grid[0], how.grid[1], how.grid[2]};
    const uint64_t threads = uint64_t{block_size.x} * block_size.y * block_size.z;
    if (threads == 0 || threads > MOST_THREADS) return "a block has from 1 to 1024 threads";
    if (how.shared_bytes > MOST_SHARED) return "a block has at most 227 KiB of dynamic shared memory";
    state.kernel = kernel;
    state.arguments = arguments;
    state.failed = false;
    const Faults faults;
    const uint64_t blocks = uint64_t{grid_size.x} * grid_size.y * grid_size.z;
    for (uint64_t i = 0; i < blocks && !state.failed; i++) {
        const uint64_t number = how.reversed ? blocks - 1 - i : i;
        block_index = {static_cast<unsigned>(number % grid_size.x), static_cast<unsigned>(number / grid_size.x % grid_size.y),
                       static_cast<unsigned>(number / grid_size.x / grid_size.y)};
        prepare_block(how.shared_bytes);
        run_block(how.reversed);
        if (!state.failed) check_shared(how.shared_bytes);
    }
    return state.failed ? state.error : nullptr;
}

}  // namespace emulator

// Memory between pages that nobody may touch. The last byte of `bytes`, rounded up to 16, is the last of its page.
extern "C" void* emulator_allocate(size_t bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t rounded = (bytes + 15) / 16 * 16, pages = (rounded + page - 1) / page * page;
    void* got = mmap(nullptr, pages + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED) return nullptr;
    auto* first = static_cast<unsigned char*>(got);
    mprotect(first, page, PROT_NONE);
    mprotect(first + page + pages, page, PROT_NONE);
    memset(first + page, emulator::UNTOUCHED, pages);
    return first + page + pages - rounded;
}

// Whether the bytes of its pages outside of the buffer are as they were.
extern "C" bool emulator_free(void* buffer, size_t bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t rounded = (bytes + 15) / 16 * 16, pages = (rounded + page - 1) / page * page;
    auto* own = static_cast<unsigned char*>(buffer);
    unsigned char* first = own + rounded - pages;
    bool untouched = true;
    for (unsigned char* byte = first; byte < own; byte++) untouched &= *byte == emulator::UNTOUCHED;
    for (unsigned char* byte = own + bytes; byte < own + rounded; byte++) untouched &= *byte == emulator::UNTOUCHED;
    munmap(first - page, pages + 2 * page);
    return untouched;
}

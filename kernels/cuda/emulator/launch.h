// What a test calls. An emulated kernel is exported by a line EMULATED(name) after its .cu file.
#pragma once

#include <cstddef>
#include <tuple>
#include <utility>

#include "emulator.h"

namespace emulator {

// How a kernel is launched.
struct Launch {
    unsigned grid[3];
    unsigned block[3];
    // Of dynamic shared memory.
    size_t shared_bytes;
    // Whether the last thread and the last block come first.
    bool reversed;
};

constexpr size_t MOST_SHARED = 227 << 10;
// MOST_SHARED bytes and a page: what kernels see as `dynamic_shared`.
unsigned char* dynamic_memory();

// Null, or what went wrong. `arguments` are pointers to the kernel's, as for cuLaunchKernel.
const char* launch(void (*kernel)(void* const*), const Launch& how, void* const* arguments);

template <auto KERNEL>
struct Caller;
template <typename... Arguments, void (*KERNEL)(Arguments...)>
struct Caller<KERNEL> {
    static void call(void* const* arguments) { call(arguments, std::index_sequence_for<Arguments...>()); }

   private:
    template <size_t... INDEX>
    static void call(void* const* arguments, std::index_sequence<INDEX...>) {
        KERNEL(*static_cast<std::remove_reference_t<Arguments>*>(arguments[INDEX])...);
    }
};

}  // namespace emulator

#define EMULATED(name)                                                                                      \
    extern "C" const char* emulate_##name(const emulator::Launch* how, void* const* arguments) {            \
        return emulator::launch(emulator::Caller<&name>::call, *how, arguments);                            \
    }

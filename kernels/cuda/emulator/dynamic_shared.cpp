// The dynamic shared memory that kernels declare as they like: apart, so that no declaration contradicts it.

// What a block can have, and a page to see who goes beyond what was asked for.
alignas(128) thread_local unsigned char dynamic_shared[(227 + 4) << 10];

namespace emulator {
unsigned char* dynamic_memory() { return dynamic_shared; }
}  // namespace emulator

// Compilers have a thread's first use of another file's variable call this, since that file might have to initialize it.
extern "C" void _ZTH14dynamic_shared() {}

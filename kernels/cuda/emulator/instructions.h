// The functions of ptx.cuh, whose header says how lanes hold matrices: defining its guard makes it empty.
#pragma once
#define QPIPE_PTX_CUH

namespace emulator {

// What a lane brings to a product of matrices, and takes from it.
template <typename D>
struct Product {
    D (&d)[4];
    const unsigned (&a)[4];
    const unsigned (&b)[2];
};

// d += a b for 16 rows, 8 columns and K of inner dimension, with `element(word, i)` the i-th number of a register.
template <int K, typename Sum, typename D, typename Element>
void multiply(const char* operation, Product<D> mine, Element element) {
    constexpr int PER_WORD = K / 8;
    together(operation, 0xFFFFFFFFu, mine, [&](Product<D>** lanes) {
        Sum a[16][K], b[K][8];
        for (int lane = 0; lane < 32; lane++) {
            if (lanes[lane] == nullptr) fail("%s in a warp of fewer than 32 lanes", operation);
            const int q = lane / 4, r = lane % 4;
            for (int i = 0; i < PER_WORD; i++) {
                const int k = PER_WORD * r + i;
                a[q][k] = element(lanes[lane]->a[0], i);
                a[q + 8][k] = element(lanes[lane]->a[1], i);
                a[q][K / 2 + k] = element(lanes[lane]->a[2], i);
                a[q + 8][K / 2 + k] = element(lanes[lane]->a[3], i);
                b[k][q] = element(lanes[lane]->b[0], i);
                b[K / 2 + k][q] = element(lanes[lane]->b[1], i);
            }
        }
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < 4; i++) {
                const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
                Sum sum = static_cast<Sum>(lanes[lane]->d[i]);
                for (int k = 0; k < K; k++) sum += a[row][k] * b[k][column];
                lanes[lane]->d[i] = static_cast<D>(sum);
            }
        }
    });
}

// The i-th register of a lane is its part of the i-th matrix.
template <int COUNT>
struct Matrices {
    unsigned (&registers)[COUNT];
    const void* row;
};

template <int COUNT>
void load_matrices(const char* operation, unsigned (&registers)[COUNT], const void* row) {
    Matrices<COUNT> mine{registers, row};
    together(operation, 0xFFFFFFFFu, mine, [&](Matrices<COUNT>** lanes) {
        for (int lane = 0; lane < 32; lane++) {
            if (lanes[lane] == nullptr) fail("%s in a warp of fewer than 32 lanes", operation);
            if (lane < 8 * COUNT && reinterpret_cast<uintptr_t>(lanes[lane]->row) % 16 != 0) {
                fail("%s: lane %d names an address that is no multiple of 16", operation, lane);
            }
        }
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < COUNT; i++) {
                const auto* bytes = static_cast<const unsigned char*>(lanes[8 * i + lane / 4]->row);
                std::memcpy(&lanes[lane]->registers[i], bytes + lane % 4 * 4, 4);
            }
        }
    });
}

}  // namespace emulator

inline void mma_m16n8k32_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::multiply<32, int64_t>("mma_m16n8k32_s8", emulator::Product<int>{d, a, b}, [](unsigned word, int i) {
        return static_cast<int64_t>(static_cast<int8_t>(word >> (8 * i)));
    });
}

inline void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::multiply<16, double>("mma_m16n8k16_f16", emulator::Product<float>{d, a, b}, [](unsigned word, int i) {
        return static_cast<double>(__half2float({static_cast<uint16_t>(word >> (16 * i))}));
    });
}

inline void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::multiply<16, double>("mma_m16n8k16_bf16", emulator::Product<float>{d, a, b}, [](unsigned word, int i) {
        return static_cast<double>(__bfloat162float({static_cast<uint16_t>(word >> (16 * i))}));
    });
}

inline void ldmatrix_x4(unsigned (&r)[4], const void* shared) { emulator::load_matrices("ldmatrix_x4", r, shared); }

inline void cp_async16(void* shared, const void* global, bool valid) {
    if (reinterpret_cast<uintptr_t>(shared) % 16 != 0) emulator::fail("cp_async16 to an address that is no multiple of 16");
    if (valid && reinterpret_cast<uintptr_t>(global) % 16 != 0) {
        emulator::fail("cp_async16 from an address that is no multiple of 16");
    }
    emulator::begin_copy(shared, valid ? global : nullptr);
}
inline void cp_async_commit() { emulator::commit_copies(); }
template <int N>
void cp_async_wait() {
    emulator::arrive_copies(N);
}

inline uint4 load_once(const uint4* global) { return *global; }

template <unsigned MASK, unsigned ONES>
unsigned and_or(unsigned word) {
    return (word & MASK) | ONES;
}

inline int dp4a(int a, int b, int c) { return __dp4a(a, b, c); }

// CUDA's vector types, aligned to their size as there, so that -fsanitize=alignment sees loads that a GPU would refuse.
#pragma once

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

#define EMULATOR_VECTORS(name, scalar)                                                                  \
    struct alignas(2 * sizeof(scalar)) name##2 {                                                        \
        scalar x, y;                                                                                    \
    };                                                                                                  \
    struct alignas(4 * sizeof(scalar) > 16 ? 16 : 4 * sizeof(scalar)) name##4 {                         \
        scalar x, y, z, w;                                                                              \
    };                                                                                                  \
    inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                                \
    inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }

EMULATOR_VECTORS(char, signed char)
EMULATOR_VECTORS(uchar, unsigned char)
EMULATOR_VECTORS(short, short)
EMULATOR_VECTORS(ushort, unsigned short)
EMULATOR_VECTORS(int, int)
EMULATOR_VECTORS(uint, unsigned)
EMULATOR_VECTORS(float, float)
EMULATOR_VECTORS(double, double)
#undef EMULATOR_VECTORS

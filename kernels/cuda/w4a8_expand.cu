// Progressive int4 weights as the int8 weights that they stand for: [n, k], from packed words [n, k / 8] and groups of `group` input
// channels, [k / group, P] as w4a8.cuh has them. A thread makes eight: ceil(n k / 8 / blockDim.x) blocks. k and group are multiples of 8.

#include "w4a8.cuh"

extern "C" __global__ void w4a8_expand(
    signed char* weight, const unsigned* packed, const Progressive::Group* groups, int n, int k, int group) {
    const long long number = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int words = k / 8;
    if (number >= static_cast<long long>(n) * words) return;
    const int channel = static_cast<int>(number / words), word = static_cast<int>(number % words);
    const int padded = (n + 7) / 8 * 8;
    unsigned codes[2];
    Progressive::decode(packed[number], groups[static_cast<long long>(word * 8 / group) * padded + channel], codes);
    // Even and odd codes, one after the other again.
    const uint2 eight = make_uint2(__byte_perm(codes[0], codes[1], 0x5140), __byte_perm(codes[0], codes[1], 0x7362));
    reinterpret_cast<uint2*>(weight)[number] = eight;
}

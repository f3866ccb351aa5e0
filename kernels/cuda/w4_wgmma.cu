// 4-bit weights times many rows in 16 bits by what compute capability 9.0 has for that: y [m, n] = x [m, k] W [n, k]^T + bias.
// Weights are int4.cuh's, as w4_gemm.cu takes them, or nf4.cuh's; each is rounded to the type T of x as the other kernels
// round it, and sums are in float. Where the architecture is another, the entries do nothing.
//
// k, groups and blocks are multiples of 32; m and n are any. What wgmma calls rows are output channels: weights become its
// first operand in the registers of those that multiply, and the rows of x, its columns, lie in shared memory. A tile is
// CHANNELS channels times ROWS rows. One thread, behind the two warpgroups that multiply, has boxes of x and of codes copied
// into a ring of stages of STEP input channels; a warpgroup makes the weights of the next half of a stage while its
// products with those of this half are under way. Blocks stay and make one tile after the other.
//
// The blocks of a cluster, CLUSTER of them, are CLUSTER / splits neighbours along the channels, which need the same rows of
// x and copy each a part of them for all; and of each neighbour `splits` blocks, with a part of k each, whose sums are added
// in the order of k by the one that writes them. `splits` is 1, 2 or 4 where CLUSTER is 4, otherwise 1.
//
//   entry     rows    stages    cluster    dynamic shared memory
//   _32         32       8         4         152,720
//   _64         64       7         4         211,072
//   _128       128       3         4         196,672
//   _256       256       3         2         229,952
//
// Blocks have 384 threads: the two warpgroups and one of which one thread copies, which leaves the others registers of its own.
// One block at a time is on a multiprocessor. Grid: CLUSTER times the number of clusters; best as many as fit at once, but at
// most one for each of the ceil(m / ROWS) ceil(n / (CHANNELS CLUSTER / splits)) cluster tiles.
//
// Maps, both of 2 dimensions, without interleaving, zeros beyond the matrix:
//   x        f16 or bf16, {k, m}, 2 k bytes between rows, boxes of {64, ROWS / 4}, SWIZZLE_128B
//   codes    bytes, {k / 2, n}, k / 2 bytes between rows, boxes of {64, 128}, SWIZZLE_64B

#include "hopper.cuh"
#include "nf4.cuh"

constexpr int THREADS = 384;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Output channels of a tile, input channels of a stage, and of a half of it, in which rows of x are 128 bytes.
constexpr int CHANNELS = 128, STEP = 128, HALF = 64;
// Threads that multiply.
constexpr int CONSUMERS = 256, WARPS = CONSUMERS / 32;
// Bytes of a stage's codes, of a channel's codes in it, and of half a row of x.
constexpr int CODES = CHANNELS * STEP / 2, CODE_ROW = STEP / 2, X_ROW = HALF * 2;
// A stage has x in so many boxes, of half the input channels each.
constexpr int BOXES = 8;
// Tiles of rows that follow each other before the next channels.
constexpr int TOGETHER = 8;
// Where sums are added: numbers between rows of a warpgroup's 64 channels. Threads of a warp then write to different banks.
constexpr int SUM_PITCH = 68;
// Where outputs are put side by side: rows at once, and 16-bit numbers between them.
constexpr int OUT_ROWS = 16, OUT_PITCH = 72;

template <int N>
__device__ __forceinline__ void multiply(__half, float (&sums)[N], const unsigned (&a)[4], unsigned long long b) {
    wgmma_f16(sums, a, b);
}
template <int N>
__device__ __forceinline__ void multiply(__nv_bfloat16, float (&sums)[N], const unsigned (&a)[4], unsigned long long b) {
    wgmma_bf16(sums, a, b);
}

// Loads what is not needed before long: nothing waits for it where it is loaded, as long as nothing else is done with it there.
// What lies behind it comes into the second-level cache.
__device__ __forceinline__ unsigned load_ahead(const void* from, unsigned short) {
    unsigned bits;
    asm volatile("ld.global.nc.L2::256B.u16 %0, [%1];\n" : "=r"(bits) : "l"(from));
    return bits;
}
__device__ __forceinline__ unsigned load_ahead(const void* from, unsigned char) {
    unsigned bits;
    asm volatile("ld.global.nc.L2::256B.u8 %0, [%1];\n" : "=r"(bits) : "l"(from));
    return bits;
}
__device__ __forceinline__ unsigned load_ahead(const void* from, unsigned) {
    unsigned bits;
    asm volatile("ld.global.nc.L2::256B.u32 %0, [%1];\n" : "=r"(bits) : "l"(from));
    return bits;
}

// What follows needs of a kind of weights: `prepare`, called by all threads before a barrier, with SPACE bytes of shared
// memory at a multiple of 2048; `group`, how many in a row share a scale; `first(n)`, the number of channel n's
// first weight as groups count, and whether that is 0 for all; `load(n, number)`, what group `number` has for channel n, of
// numbers beyond the last one as well; `more`, the same with what it refers to, called when it is loaded; `of`, the same
// ready to be used; `nothing`, a scale that makes all weights 0; and `decode`, this thread's pairs of four words, input
// channels 2r, 2r + 1 of the eight of each.
template <typename T>
struct Int4 : Int4Weight<T> {
    using Vector = typename Pair<T>::Vector;
    static constexpr bool GROUPS_BEGIN_WITH_ROWS = true;
    static constexpr int SPACE = 0;
    __device__ __forceinline__ void prepare(unsigned char*) {}

    // Bits of the scale, and the byte with the zero point.
    struct Loaded {
        unsigned scale, zeros;
    };
    struct Scale {
        unsigned factor, offset;
    };

    __device__ __forceinline__ int first(int) const { return 0; }
    __device__ __forceinline__ Loaded load(int n, int number) const {
        // See Int4Weight::scale_of(). Zero points are 0 where there are none.
        const int g = min(number, this->groups - 1);
        const size_t channel = static_cast<size_t>(n);
        Loaded loaded = {0, 0x88};
        loaded.scale = load_ahead(this->scale + channel * this->groups + g, static_cast<unsigned short>(0));
        if (this->zero != nullptr) {
            loaded.zeros = load_ahead(this->zero + channel * ((this->groups + 1) / 2) + g / 2, static_cast<unsigned char>(0));
        }
        return loaded;
    }
    __device__ __forceinline__ Loaded more(Loaded loaded) const { return loaded; }
    __device__ __forceinline__ Scale of(Loaded loaded, int number) const {
        const unsigned zero = loaded.zeros >> (4 * (number & 1)) & 0xFu;
        return {loaded.scale * 0x00010001u, Pair<T>::ONES | zero * 0x00010001u};
    }
    static __device__ __forceinline__ Scale nothing(Scale scale) { return {0, scale.offset}; }
    // As int4.cuh's decode().
    __device__ __forceinline__ void decode(const uint4& words, Scale scale, unsigned (&pairs)[4]) const {
        const int r = threadIdx.x % 4;
        const unsigned four[4] = {words.x, words.y, words.z, words.w};
        const Vector factor = pair_of<Vector>(scale.factor), offset = pair_of<Vector>(scale.offset);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            // Both constants in one instruction, which wants one of them in a register.
            unsigned bits;
            asm("lop3.b32 %0, %1, %2, %3, 0xEA;\n" : "=r"(bits) : "r"(four[i] >> (4 * r)), "n"(0x000F000F), "r"(Pair<T>::ONES));
            const Vector code = pair_of<Vector>(bits);
            pairs[i] = bits_of(__hmul2(__hsub2(code, offset), factor));
        }
    }
};

template <typename T>
struct Nf4 {
    static constexpr bool GROUPS_BEGIN_WITH_ROWS = false;
    // Bits of the magnitude; or its code, then what that stands for, and the scale.
    struct Loaded {
        unsigned magnitude, scale;
    };
    using Scale = float;

    Nf4Absmax absmax;
    int group, in_features;
    // The last block's number.
    int last;

    // Where this lane's copy of nf4_fill()'s table is, whose address is a multiple of its size.
    unsigned table;

    static constexpr int SPACE = NF4_TABLE * 4;
    __device__ __forceinline__ void prepare(unsigned char* space) {
        nf4_fill(*reinterpret_cast<float(*)[NF4_TABLE]>(space));
        table = shared_address(space) | threadIdx.x % 32 * 4;
    }

    __device__ __forceinline__ long long first(int n) const { return static_cast<long long>(n) * in_features; }
    // See Nf4Absmax::of().
    __device__ __forceinline__ Loaded load(int, int number) const {
        const int b = min(number, last);
        if (absmax.plain != nullptr) return {load_ahead(absmax.plain + b, 0u), 0};
        return {load_ahead(absmax.code + b, static_cast<unsigned char>(0)), load_ahead(absmax.scale + b / 256, 0u)};
    }
    __device__ __forceinline__ Loaded more(Loaded loaded) const {
        if (absmax.plain != nullptr) return loaded;
        return {load_ahead(absmax.map + loaded.magnitude, 0u), loaded.scale};
    }
    __device__ __forceinline__ Scale of(Loaded loaded, int) const {
        const float magnitude = __uint_as_float(loaded.magnitude);
        if (absmax.plain != nullptr) return magnitude;
        return __fadd_rn(__fmul_rn(magnitude, __uint_as_float(loaded.scale)), absmax.offset);
    }
    static __device__ __forceinline__ Scale nothing(Scale) { return 0.0f; }
    __device__ __forceinline__ void decode(const uint4& words, Scale scale, unsigned (&pairs)[4]) const {
        const int r = threadIdx.x % 4;
        const unsigned four[4] = {words.x, words.y, words.z, words.w};
        // An entry's copies are 128 bytes, so that a code 7 bits up is its place.
        const auto value = [&](unsigned word, int bits) {
            const unsigned place = (__funnelshift_r(word, word, (8 * r + bits - 7) & 31) & 0xFu << 7) | table;
            float entry;
            asm("ld.shared.f32 %0, [%1];\n" : "=f"(entry) : "r"(place));
            return entry;
        };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            pairs[i] = bits_of(Pair<T>::of(value(four[i], 4) * scale, value(four[i], 0) * scale));
        }
    }
};

// A thread's two channels' scales along k, of which those of the next two groups are loaded ahead.
template <typename Weight>
struct Scales {
    // Groups that are now used, and input channels left in them.
    int channel[2], number[2], left[2];
    typename Weight::Scale now[2];
    typename Weight::Loaded next[2], second[2];

    __device__ __forceinline__ Scales(const Weight& weight, int upper, int lower, int k) : channel{upper, lower} {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const auto at = weight.first(channel[i]) + k;
            number[i] = static_cast<int>(at / weight.group);
            left[i] = weight.group - static_cast<int>(at % weight.group);
            const typename Weight::Loaded first = weight.load(channel[i], number[i]);
            next[i] = weight.load(channel[i], number[i] + 1);
            second[i] = weight.load(channel[i], number[i] + 2);
            now[i] = weight.of(weight.more(first), number[i]);
            next[i] = weight.more(next[i]);
        }
    }

    // Channel i's next group, of this number.
    __device__ __forceinline__ void take_next(const Weight& weight, int i, int number) {
        // In this order, so that no register is needed twice at the same time.
        now[i] = weight.of(next[i], number);
        next[i] = weight.more(second[i]);
        second[i] = weight.load(channel[i], number + 2);
    }

    // Goes 32 input channels on.
    __device__ __forceinline__ void advance(const Weight& weight) {
        left[0] -= 32;
        if constexpr (Weight::GROUPS_BEGIN_WITH_ROWS) {
            // All channels' groups end at once. Not to be compiled to instructions with conditions, which take time each.
            if (left[0] > 0) return;
            asm volatile("" ::: "memory");
            left[0] = weight.group;
            number[0]++;
            take_next(weight, 0, number[0]);
            take_next(weight, 1, number[0]);
        } else {
            left[1] -= 32;
            if (left[0] > 0 && left[1] > 0) return;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                if (left[i] > 0) continue;
                left[i] = weight.group;
                take_next(weight, i, ++number[i]);
            }
        }
    }
};

// The places of this block's tiles, one after the other; all blocks of a cluster have equally many. The first row or channel
// may lie beyond the matrix.
template <int ROWS, int CLUSTER>
struct Tiles {
    int tiles_m, tiles_n, tile, neighbours, neighbour;
    int first_row, first_channel;

    __device__ __forceinline__ Tiles(int m, int n, int all_neighbours, int number)
        : tiles_m((m + ROWS - 1) / ROWS), tiles_n((n + CHANNELS * all_neighbours - 1) / (CHANNELS * all_neighbours)),
          tile(blockIdx.x / CLUSTER), neighbours(all_neighbours), neighbour(number), first_row(0), first_channel(0) {}

    // Whether there is one more.
    __device__ __forceinline__ bool next() {
        if (tile >= tiles_m * tiles_n) return false;
        const int part = tile / (TOGETHER * tiles_n), in_part = tile % (TOGETHER * tiles_n);
        const int height = min(TOGETHER, tiles_m - part * TOGETHER);
        first_row = (part * TOGETHER + in_part % height) * ROWS;
        first_channel = (in_part / height * neighbours + neighbour) * CHANNELS;
        tile += gridDim.x / CLUSTER;
        return true;
    }
};

// Writes this block's rows of a tile: sums of all splits are in their blocks' shared memory, at `sums` in this one's.
template <typename T, int SPLITS, int ROWS>
__device__ __forceinline__ void write_added(
    T* y, unsigned sums, const float* bias, int split, int neighbours, int neighbour, int first_row, int first_channel,
    int m, int n) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = first_channel + lane * 4;
    // A warp has a row, four channels for each of its threads.
    sums += lane / 16 * (ROWS * SUM_PITCH * 4) + lane % 16 * 16;
    unsigned from[SPLITS];
#pragma unroll
    for (int i = 0; i < SPLITS; i++) from[i] = in_block(sums, i * neighbours + neighbour);
    float biases[4];
#pragma unroll
    for (int i = 0; i < 4; i++) biases[i] = bias != nullptr && channel + i < n ? bias[channel + i] : 0.0f;
#pragma unroll 2
    for (int row = split * (ROWS / SPLITS) + warp; row < (split + 1) * (ROWS / SPLITS); row += WARPS) {
        if (first_row + row >= m) break;
        float4 parts[SPLITS];
#pragma unroll
        for (int i = 0; i < SPLITS; i++) parts[i] = load_in_block(from[i] + row * (SUM_PITCH * 4));
        float4 sum = parts[0];
#pragma unroll
        for (int i = 1; i < SPLITS; i++) {
            sum.x += parts[i].x, sum.y += parts[i].y, sum.z += parts[i].z, sum.w += parts[i].w;
        }
        T* to = y + static_cast<long long>(first_row + row) * n + channel;
        const float values[4] = {sum.x + biases[0], sum.y + biases[1], sum.z + biases[2], sum.w + biases[3]};
        if (n % 4 == 0) {
            if (channel < n) {
                *reinterpret_cast<uint2*>(to) = make_uint2(
                    bits_of(Pair<T>::of(values[0], values[1])), bits_of(Pair<T>::of(values[2], values[3])));
            }
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (channel + i < n) to[i] = from_float<T>(values[i]);
            }
        }
    }
}

template <typename T, int ROWS>
__device__ __forceinline__ void write_added(
    int splits, T* y, unsigned sums, const float* bias, int split, int neighbours, int neighbour, int first_row,
    int first_channel, int m, int n) {
    switch (splits) {
        case 1:
            return write_added<T, 1, ROWS>(y, sums, bias, split, neighbours, neighbour, first_row, first_channel, m, n);
        case 2:
            return write_added<T, 2, ROWS>(y, sums, bias, split, neighbours, neighbour, first_row, first_channel, m, n);
        case 4:
            return write_added<T, 4, ROWS>(y, sums, bias, split, neighbours, neighbour, first_row, first_channel, m, n);
    }
}

// Writes a warpgroup's sums of a whole tile; `staged` is OUT_ROWS rows of its own in shared memory, whose bytes are these.
constexpr int OUT_BYTES = OUT_ROWS * OUT_PITCH * 2;
template <typename T, int ROWS>
__device__ __forceinline__ void write_whole(
    T* y, unsigned char* staged, const float (&sums)[ROWS / 2], const float* bias, int first_row, int first_channel, int m,
    int n) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, barrier = 1 + threadIdx.x / 128;
    float biases[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int channel = first_channel + warp * 16 + lane / 4 + i * 8;
        biases[i] = bias != nullptr && channel < n ? bias[channel] : 0.0f;
    }
    // Matrices 0, 1 are this warp's channels of the first eight rows, 2, 3 those of the next.
    const unsigned to = shared_address(staged) + (lane / 16 * 8 + lane % 8) * (OUT_PITCH * 2) + (warp * 16 + lane / 8 % 2 * 8) * 2;
    const int row = threadIdx.x % 128 / 8, eight = lane % 8, channel = first_channel + eight * 8;
    const uint4* from = reinterpret_cast<const uint4*>(staged + row * (OUT_PITCH * 2) + eight * 16);
#pragma unroll
    for (int chunk = 0; chunk < ROWS / OUT_ROWS; chunk++) {
        if (first_row + chunk * OUT_ROWS >= m) break;
        const float* part = sums + chunk * 8;
        const unsigned pairs[4] = {
            bits_of(Pair<T>::of(part[0] + biases[0], part[1] + biases[0])),
            bits_of(Pair<T>::of(part[2] + biases[1], part[3] + biases[1])),
            bits_of(Pair<T>::of(part[4] + biases[0], part[5] + biases[0])),
            bits_of(Pair<T>::of(part[6] + biases[1], part[7] + biases[1])),
        };
        store_columns(to, pairs);
        sync_some(barrier, 128);
        const uint4 outputs = *from;
        // Read by all before the next are written.
        sync_some(barrier, 128);
        const int m_row = first_row + chunk * OUT_ROWS + row;
        if (m_row >= m) continue;
        T* out = y + static_cast<long long>(m_row) * n + channel;
        if (n % 8 == 0) {
            if (channel < n) *reinterpret_cast<uint4*>(out) = outputs;
        } else {
            const unsigned words[4] = {outputs.x, outputs.y, outputs.z, outputs.w};
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const unsigned short bits = static_cast<unsigned short>(words[i / 2] >> (16 * (i % 2)));
                if (channel + i < n) out[i] = *reinterpret_cast<const T*>(&bits);
            }
        }
    }
}

template <typename T, typename Weight, int ROWS, int STAGES, int CLUSTER>
__device__ __forceinline__ void gemm(
    const TensorMap& x, const TensorMap& codes, T* y, Weight weight, const float* bias, int m, int n, int k,
    int splits) {
    // Tiles of which nothing is added are written from registers in parts; all sums would need too much space.
    constexpr bool ADDS = CLUSTER > 2;
    constexpr int STAGE = ROWS * STEP * 2 + CODES;
    constexpr int STAGED = ADDS ? 2 * ROWS * SUM_PITCH * 4 : 2 * OUT_BYTES;
    if constexpr (!ADDS) splits = 1;
    extern __shared__ uint4 dynamic_shared[];
    // Swizzled rows lie by address: the ring begins at a multiple of 1024, and a table before it at one of 2048. The places are
    // the same in all blocks.
    unsigned char* space = reinterpret_cast<unsigned char*>(dynamic_shared);
    space += (2048 - shared_address(space) % 2048) % 2048;
    unsigned char* ring = space + Weight::SPACE;
    weight.prepare(space);
    const unsigned ring_address = shared_address(ring);
    unsigned char* staged = ring + STAGES * STAGE;
    const unsigned full = shared_address(staged) + STAGED, empty = full + STAGES * 8;
    // All sums of a tile are there; all of them have been read.
    const unsigned ready = empty + STAGES * 8, done = ready + 8;

    const int number = number_in_cluster(), neighbours = CLUSTER / splits;
    const int neighbour = number % neighbours, split = number / neighbours;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            // The thread that copies announces a stage's bytes.
            make_barrier(full + stage * 8, 1);
            // Every warp that multiplies, of all neighbours: boxes of x go to all.
            make_barrier(empty + stage * 8, neighbours * WARPS);
        }
        make_barrier(ready, splits * WARPS);
        make_barrier(done, splits * WARPS);
        fence_barriers();
    }
    sync_cluster();

    const int steps = (k + STEP - 1) / STEP, first_step = steps * split / splits, end_step = steps * (split + 1) / splits;
    Tiles<ROWS, CLUSTER> tiles(m, n, neighbours, neighbour);
    Stage<STAGES> stage;
    if (threadIdx.x >= CONSUMERS) {
        leave_registers<40>();
        if (threadIdx.x == CONSUMERS) {
            prefetch_map(x);
            prefetch_map(codes);
            const unsigned blocks = ((1u << neighbours) - 1) << (split * neighbours);
            while (tiles.next()) {
#pragma unroll 1
                for (int step = first_step; step < end_step; step++) {
                    wait_for_phase(empty + stage.number * 8, stage.parity ^ 1);
                    const unsigned barrier = full + stage.number * 8;
                    const unsigned to = ring_address + stage.number * STAGE;
                    // All bytes, those that neighbours copy here as well; zeros beyond the matrix count.
                    arrive_expecting(barrier, STAGE);
                    copy_box(to + ROWS * STEP * 2, codes, step * CODE_ROW, tiles.first_channel, barrier);
#pragma unroll 1
                    for (int box = neighbour; box < BOXES; box += neighbours) {
                        // The first four have the first half of the input channels.
                        const int column = step * STEP + box / 4 * HALF, row = tiles.first_row + box % 4 * (ROWS / 4);
                        const unsigned place = to + box * (ROWS / 4 * X_ROW);
                        if (neighbours == 1) {
                            copy_box(place, x, column, row, barrier);
                        } else {
                            copy_box_to_blocks(place, x, column, row, barrier, blocks);
                        }
                    }
                    stage.advance();
                }
            }
        }
        __syncwarp();
    } else {
        take_registers<232>();
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warpgroup = warp / 4;
        // This thread's channels in a tile are these and the eighth on.
        const int own_channel = warp * 16 + lane / 4;
        const unsigned long long matrix = matrix_of_128_byte_rows(ring_address);
        const unsigned char* own_codes = ring + ROWS * STEP * 2 + own_channel * CODE_ROW;
        // Parts of 16 bytes of a channel's 64 are exchanged as SWIZZLE_64B does it.
        const int exchange = own_channel / 2 % 4;
        // Lane i tells neighbour i that a stage is done with.
        const unsigned empty_there = in_block(empty, split * neighbours + lane % neighbours);
        const auto release = [&](int number) {
            if (lane < neighbours) arrive_in_cluster(empty_there + number * 8);
        };
        unsigned adding = 0;
        float sums[ROWS / 2];
        while (tiles.next()) {
            const int first_channel = tiles.first_channel, first_row = tiles.first_row;
            // What stands for channels beyond the last is not written.
            const int channel = first_channel + own_channel;
            Scales<Weight> scales(weight, min(channel, n - 1), min(channel + 8, n - 1), first_step * STEP);
#pragma unroll
            for (int i = 0; i < ROWS / 2; i++) sums[i] = 0.0f;

            int before = 0;
#pragma unroll 1
            for (int step = first_step; step < end_step; step++) {
                wait_for_phase(full + stage.number * 8, stage.parity);
                const unsigned char* stage_codes = own_codes + stage.number * STAGE;
                const unsigned long long stage_matrix = matrix + stage.number * (STAGE / 16);
                // The halves have registers of their own: products with the other half may still read theirs.
                unsigned a[STEP / 16][4];
#pragma unroll
                for (int half = 0; half < 2; half++) {
#pragma unroll
                    for (int part = half * 2; part < half * 2 + 2; part++) {
                        // 32 input channels of both channels: two products' registers.
                        const uint4* words = reinterpret_cast<const uint4*>(stage_codes) + (part ^ exchange);
                        const uint4 upper_words = words[0], lower_words = words[8 * CODE_ROW / 16];
                        const bool counts = step * STEP + part * 32 < k;
                        unsigned pairs[4];
                        weight.decode(upper_words, counts ? scales.now[0] : Weight::nothing(scales.now[0]), pairs);
                        a[part * 2][0] = pairs[0], a[part * 2][2] = pairs[1];
                        a[part * 2 + 1][0] = pairs[2], a[part * 2 + 1][2] = pairs[3];
                        weight.decode(lower_words, counts ? scales.now[1] : Weight::nothing(scales.now[1]), pairs);
                        a[part * 2][1] = pairs[0], a[part * 2][3] = pairs[1];
                        a[part * 2 + 1][1] = pairs[2], a[part * 2 + 1][3] = pairs[3];
                        scales.advance(weight);
                    }
                    if constexpr (!Weight::GROUPS_BEGIN_WITH_ROWS) __syncwarp();
                    wgmma_fence();
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        multiply(T(), sums, a[half * 4 + i], stage_matrix + half * (ROWS * X_ROW / 16) + i * 2);
                    }
                    wgmma_commit();
                    // The products before these are done, and after the first half with them the stage before.
                    wgmma_wait<1>();
                    if (half == 0 && step > first_step) release(before);
                }
                before = stage.number;
                stage.advance();
            }
            wgmma_wait<0>();
            keep_order(sums);
            if (end_step > first_step) release(before);

            if constexpr (ADDS) {
                // The sums of the tile before have been read.
                wait_for_blocks(done, adding ^ 1);
                float* own = reinterpret_cast<float*>(staged) + warpgroup * (ROWS * SUM_PITCH);
                own += lane % 4 * 2 * SUM_PITCH + own_channel % 64;
#pragma unroll
                for (int j = 0; j < ROWS / 8; j++) {
                    float* to = own + j * 8 * SUM_PITCH;
                    to[0] = sums[j * 4], to[SUM_PITCH] = sums[j * 4 + 1];
                    to[8] = sums[j * 4 + 2], to[SUM_PITCH + 8] = sums[j * 4 + 3];
                }
                __syncwarp();
                if (lane < splits) arrive_with_writes(in_block(ready, lane * neighbours + neighbour));
                wait_for_blocks(ready, adding);
                const unsigned from = shared_address(staged);
                write_added<T, ROWS>(
                    splits, y, from, bias, split, neighbours, neighbour, first_row, first_channel, m, n);
                __syncwarp();
                if (lane < splits) arrive_in_cluster(in_block(done, lane * neighbours + neighbour));
                adding ^= 1;
            } else {
                write_whole<T, ROWS>(y, staged + warpgroup * OUT_BYTES, sums, bias, first_row, first_channel + warpgroup * 64, m, n);
            }
        }
        __syncwarp();
    }
    // Other blocks may still arrive at this one's barriers and read its sums.
    sync_cluster();
}

#define INT4_GEMM(T, ROWS, STAGES, CLUSTER)                               \
    const Int4<T> weight = {{nullptr, scale, zero, k, group, k / group}}; \
    gemm<T, Int4<T>, ROWS, STAGES, CLUSTER>(x, codes, y, weight, bias, m, n, k, splits);
#define NF4_GEMM(T, ROWS, STAGES, CLUSTER)                                          \
    const int last = static_cast<int>((static_cast<long long>(n) * k - 1) / block); \
    const Nf4<T> weight = {{absmax, code, map, scale, offset}, block, k, last, 0};  \
    gemm<T, Nf4<T>, ROWS, STAGES, CLUSTER>(x, codes, y, weight, bias, m, n, k, splits);

#else
#define INT4_GEMM(T, ROWS, STAGES, CLUSTER)
#define NF4_GEMM(T, ROWS, STAGES, CLUSTER)
#endif

// See Int4Weight for `scale` and `zero`, and Nf4Absmax for `absmax` to `offset`. bias [n] or null.
#define ENTRIES(ROWS, T, TYPE, STAGES, CLUSTER, IN_CLUSTERS)                                                            \
    extern "C" __global__ void IN_CLUSTERS __launch_bounds__(THREADS, 1) w4_wgmma_##TYPE##_##ROWS(                      \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap codes, T* y, const T* scale,             \
        const unsigned char* zero, const float* bias, int m, int n, int k, int group, int splits) {                     \
        INT4_GEMM(T, ROWS, STAGES, CLUSTER)                                                                             \
    }                                                                                                                   \
    extern "C" __global__ void IN_CLUSTERS __launch_bounds__(THREADS, 1) nf4_wgmma_##TYPE##_##ROWS(                     \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap codes, T* y, const float* absmax,        \
        const unsigned char* code, const float* map, const float* scale, float offset, const float* bias, int m, int n, \
        int k, int block, int splits) {                                                                                 \
        NF4_GEMM(T, ROWS, STAGES, CLUSTER)                                                                              \
    }
#define ENTRIES_OF(T, TYPE)                 \
    ENTRIES(32, T, TYPE, 8, 4, IN_FOURS)    \
    ENTRIES(64, T, TYPE, 7, 4, IN_FOURS)    \
    ENTRIES(128, T, TYPE, 3, 4, IN_FOURS)   \
    ENTRIES(256, T, TYPE, 3, 2, IN_PAIRS)

ENTRIES_OF(__half, f16)
ENTRIES_OF(__nv_bfloat16, bf16)

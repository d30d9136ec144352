// The kernels of Rung. Integers only, no shared memory, no barriers, no warp instructions, no textures: the same source
// is built for the CPU (tests/double/kernels) and must give the same bytes there.
#ifdef __CUDA__
#include "clangcuda.h"
#endif

#include "hash.h"
#include "ladder.h"

// rung_ladder: one decoded surface to all renditions, the specification of worker/src/scale/mod.rs. A thread computes
// eight bytes of one row: it walks over the units of its window, makes the vertical sums of each column once, and adds
// them to its eight horizontal sums with coefficients that lie ready, zeros where a column does not count.

typedef const GLOBAL unsigned Word;

__device__ __forceinline__ Word *words(unsigned long long address) { return (Word *)address; }

// Vertical sums of the four columns of a unit of 8 bit samples.
struct Eight {
    static constexpr unsigned UNIT = 4;
    int sums[4];

    // The first two rows; `pair` holds their coefficients.
    __device__ __forceinline__ void start(unsigned long long a, unsigned long long b, unsigned pair) {
        add_to(a, b, pair, 1 << 7, 1 << 7, 1 << 7, 1 << 7);
    }

    __device__ __forceinline__ void add(unsigned long long a, unsigned long long b, unsigned pair) {
        add_to(a, b, pair, sums[0], sums[1], sums[2], sums[3]);
    }

    __device__ __forceinline__ void add_to(unsigned long long a, unsigned long long b, unsigned pair, int s0, int s1,
                                           int s2, int s3) {
        const unsigned above = *words(a), below = *words(b);
        const unsigned near = pick_bytes(above, below, 0x5140), far = pick_bytes(above, below, 0x7362);
        sums[0] = dot_low_unsigned(pair, near, s0);
        sums[1] = dot_high_unsigned(pair, near, s1);
        sums[2] = dot_low_unsigned(pair, far, s2);
        sums[3] = dot_high_unsigned(pair, far, s3);
    }

    // Columns i and j after the vertical pass, a shift by 8 included.
    template <int I, int J> __device__ __forceinline__ unsigned pair() const {
        return pick_bytes(sums[I], sums[J], 0x6521);
    }

    __device__ __forceinline__ static unsigned samples(unsigned long long row, unsigned unit) {
        return *words(row + unit * UNIT);
    }
};

// The same for 10 bit samples in the high bits of 16. Even columns are summed 64 times as large as odd ones: where a
// sample lies in its word costs no shift.
struct Ten {
    static constexpr unsigned UNIT = 8;
    unsigned sums[4];

    __device__ __forceinline__ void start(unsigned long long a, unsigned long long b, unsigned pair) {
        sums[0] = sums[2] = 1 << 15;
        sums[1] = sums[3] = 1 << 9;
        add(a, b, pair);
    }

    __device__ __forceinline__ void add(unsigned long long a, unsigned long long b, unsigned pair) {
        add_row(a, unsigned(int(pair << 16) >> 16));
        add_row(b, unsigned(int(pair) >> 16));
    }

    __device__ __forceinline__ void add_row(unsigned long long at, unsigned coefficient) {
        const unsigned near = words(at)[0], far = words(at)[1];
        sums[0] += (near & 0xFFC0) * coefficient;
        sums[1] += (near >> 22) * coefficient;
        sums[2] += (far & 0xFFC0) * coefficient;
        sums[3] += (far >> 22) * coefficient;
    }

    template <int I, int J> __device__ __forceinline__ unsigned pair() const {
        return pick_bytes(sums[I] << (I % 2 * 6), sums[J] << (J % 2 * 6), 0x7632);
    }

    __device__ __forceinline__ static unsigned rounded(unsigned ten) {
        const unsigned n = (ten + 2) >> 2;
        return n < 255 ? n : 255;
    }

    __device__ __forceinline__ static unsigned samples(unsigned long long row, unsigned unit) {
        const unsigned near = words(row + unit * UNIT)[0], far = words(row + unit * UNIT)[1];
        return rounded(near >> 6 & 1023) | rounded(near >> 22) << 8 | rounded(far >> 6 & 1023) << 16 |
               rounded(far >> 22) << 24;
    }
};

// Horizontal sums of the eight bytes: low and high bytes of the coefficients apart.
struct Sums {
    int low[8], high[8];

    // Four samples, from `at` on, and two columns.
    template <int AT> __device__ __forceinline__ void add(unsigned columns, uint4v coefficients) {
        add_one<AT + 0>(columns, coefficients.x);
        add_one<AT + 1>(columns, coefficients.y);
        add_one<AT + 2>(columns, coefficients.z);
        add_one<AT + 3>(columns, coefficients.w);
    }

    template <int N> __device__ __forceinline__ void add_one(unsigned columns, unsigned coefficients) {
        low[N] = dot_low_unsigned(columns, coefficients, low[N]);
        high[N] = dot_high_signed(columns, coefficients, high[N]);
    }

    template <int N> __device__ __forceinline__ unsigned sample() const {
        const int n = int(unsigned(low[N]) + (unsigned(high[N]) << 8)) >> 20;
        return unsigned(n < 0 ? 0 : n > 255 ? 255 : n);
    }
};

// Eight bytes of a row: eight luma samples, or U, V, U, V ...
struct Strip {
    unsigned near, far;
};

// Where a thread is on its way over its window.
struct Walk {
    // The first row of the column that comes next, and the row after it.
    unsigned long long row, below;
    // What is next of the coefficients of the strip's first and last four samples.
    unsigned long long near, far;
};

// N units at once: all their columns share the vertical coefficients.
template <typename Depth, bool CHROMA, int N>
__device__ __forceinline__ void step(Sums &sums, Walk &walk, const LadderPlane &p, Word *weights, unsigned pitch,
                                     unsigned unit) {
    Depth columns[N];
    unsigned long long row = walk.row, below = walk.below, weight = (unsigned long long)weights;
    unsigned ahead = p.flags & 4 ? pitch : 2 * pitch;
    unsigned pair = *words(weight);
    EVERY_LOOP_ONCE
    for (int n = 0; n < N; n++)
        columns[n].start(row + n * Depth::UNIT, below + n * Depth::UNIT, pair);
    for (unsigned k = p.pairs - 1; k > 0; k--) {
        row = further(row, ahead);
        below = further(below, ahead);
        weight = further(weight, 4);
        ahead = 2 * pitch;
        pair = *words(weight);
        EVERY_LOOP_ONCE
        for (int n = 0; n < N; n++)
            columns[n].add(row + n * Depth::UNIT, below + n * Depth::UNIT, pair);
    }
    walk.row = further(walk.row, N * Depth::UNIT);
    walk.below = further(walk.below, N * Depth::UNIT);
    if (CHROMA) {
        EVERY_LOOP_ONCE
        for (int n = 0; n < N; n++) {
            const uint4v coefficients = load_four(walk.near + n * LADDER_GROUP);
            sums.template add<0>(columns[n].template pair<0, 2>(), coefficients);
            sums.template add<4>(columns[n].template pair<1, 3>(), coefficients);
        }
        walk.near = further(walk.near, (unsigned long long)p.across * (2 * LADDER_GROUP));
        return;
    }
    if (unit < p.near_end) {
        EVERY_LOOP_ONCE
        for (int n = 0; n < N; n++) {
            sums.template add<0>(columns[n].template pair<0, 1>(), load_four(walk.near + 2 * n * LADDER_GROUP));
            sums.template add<0>(columns[n].template pair<2, 3>(), load_four(walk.near + (2 * n + 1) * LADDER_GROUP));
        }
        walk.near = further(walk.near, (unsigned long long)p.across * (4 * LADDER_GROUP));
    }
    if (unit >= p.far_start) {
        EVERY_LOOP_ONCE
        for (int n = 0; n < N; n++) {
            sums.template add<4>(columns[n].template pair<0, 1>(), load_four(walk.far + 2 * n * LADDER_GROUP));
            sums.template add<4>(columns[n].template pair<2, 3>(), load_four(walk.far + (2 * n + 1) * LADDER_GROUP));
        }
        walk.far = further(walk.far, (unsigned long long)p.across * (4 * LADDER_GROUP));
    }
}

template <typename Depth, bool CHROMA>
__device__ __forceinline__ Strip scaled(const LadderArguments &a, const LadderPlane &p, unsigned strip, unsigned y) {
    const unsigned long long tables = a.tables;
    const unsigned pitch = p.flags & 8 ? 0 : a.pitch;
    const unsigned first = words(tables + p.rows)[y];
    const unsigned start = words(tables + p.starts)[strip];
    Word *const weights = words(tables + p.row_coefficients) + y * p.pairs;
    const unsigned group = strip / LADDER_BLOCK_X * ((CHROMA ? 2 : 4) * LADDER_GROUP) + strip % LADDER_BLOCK_X * 16;
    Walk walk;
    walk.row = (CHROMA ? a.chroma : a.luma) + (unsigned long long)first * a.pitch + (unsigned long long)start * Depth::UNIT;
    walk.below = walk.row + pitch;
    walk.near = tables + p.near_coefficients + group;
    walk.far = tables + p.far_coefficients + group;
    Sums sums;
    EVERY_LOOP_ONCE
    for (int n = 0; n < 8; n++) {
        sums.low[n] = 1 << 19;
        sums.high[n] = 0;
    }
    unsigned unit = 0;
    for (; unit + 2 <= p.units; unit += 2)
        step<Depth, CHROMA, 2>(sums, walk, p, weights, pitch, unit);
    if (p.units % 2)
        step<Depth, CHROMA, 1>(sums, walk, p, weights, pitch, unit);
    const unsigned e0 = sums.sample<0>(), e1 = sums.sample<1>(), e2 = sums.sample<2>(), e3 = sums.sample<3>();
    const unsigned f0 = sums.sample<4>(), f1 = sums.sample<5>(), f2 = sums.sample<6>(), f3 = sums.sample<7>();
    if (CHROMA)
        return {e0 | f0 << 8 | e1 << 16 | f1 << 24, e2 | f2 << 8 | e3 << 16 | f3 << 24};
    return {e0 | e1 << 8 | e2 << 16 | e3 << 24, f0 | f1 << 8 | f2 << 16 | f3 << 24};
}

// The size is kept: bytes move, ten bits are rounded.
template <typename Depth, bool CHROMA>
__device__ __forceinline__ Strip copied(const LadderArguments &a, const LadderPlane &p, unsigned strip, unsigned y) {
    const unsigned left = p.left_top & 0xFFFF, top = p.left_top >> 16;
    const unsigned long long row = (CHROMA ? a.chroma : a.luma) + (unsigned long long)(top + y) * a.pitch;
    const unsigned unit = left / 4 + 2 * strip;
    const unsigned first = Depth::samples(row, unit);
    const unsigned second = unit + 1 < p.units ? Depth::samples(row, unit + 1) : 0;
    if (left % 4 == 0)
        return {first, second};
    const unsigned third = unit + 2 < p.units ? Depth::samples(row, unit + 2) : 0;
    return {pick_bytes(first, second, 0x5432), pick_bytes(second, third, 0x5432)};
}

__device__ __forceinline__ unsigned blended(unsigned below, unsigned above, unsigned alpha) {
    return (below * (255 - alpha) + above * alpha + 127) / 255;
}

// Byte n of a strip and its neighbours, with what the overlay has for sample `x` of row `y`.
template <bool CHROMA>
__device__ __forceinline__ void blend(Strip &strip, const LadderOverlay &o, unsigned x, unsigned y) {
    const unsigned half = CHROMA ? 1 : 0;
    const unsigned left = (o.place & 0xFFFF) >> half, top = (o.place >> 16) >> half;
    const unsigned width = (o.size & 0xFFFF) >> half, height = (o.size >> 16) >> half;
    if (y - top >= height)
        return;
    const GLOBAL unsigned char *const bytes = (const GLOBAL unsigned char *)o.address;
    const unsigned area = (o.size & 0xFFFF) * (o.size >> 16), quarter = area / 4;
    for (unsigned n = 0; n < 8; n++) {
        const unsigned column = x + (CHROMA ? n / 2 : n) - left;
        if (column >= width)
            continue;
        const unsigned at = (y - top) * width + column;
        const unsigned above = bytes[CHROMA ? 2 * area + n % 2 * quarter + at : at];
        const unsigned alpha = bytes[CHROMA ? 2 * area + 2 * quarter + at : area + at];
        unsigned &word = n < 4 ? strip.near : strip.far;
        const unsigned shift = n % 4 * 8;
        const unsigned below = word >> shift & 255;
        word ^= (below ^ blended(below, above, alpha)) << shift;
    }
}

__device__ __forceinline__ void store_bytes(unsigned long long to, unsigned word, unsigned count) {
    if (count >= 4) {
        *(GLOBAL unsigned *)to = word;
        return;
    }
    for (unsigned n = 0; n < count; n++)
        ((GLOBAL unsigned char *)to)[n] = (unsigned char)(word >> 8 * n);
}

// `count` bytes of the strip (twice as many as samples, in chroma).
__device__ __forceinline__ void store(unsigned long long to, Strip strip, unsigned count) {
    if (count >= 8 && to % 8 == 0) {
        uint2v both;
        both.x = strip.near;
        both.y = strip.far;
        *(GLOBAL uint2v *)to = both;
        return;
    }
    store_bytes(to, strip.near, count);
    if (count > 4)
        store_bytes(to + 4, strip.far, count - 4);
}

template <typename Depth, bool CHROMA>
__device__ __forceinline__ void make_strip(const LadderArguments &a, const LadderPlane &p, unsigned strip, unsigned y) {
    Strip bytes = p.flags & 2 ? copied<Depth, CHROMA>(a, p, strip, y) : scaled<Depth, CHROMA>(a, p, strip, y);
    const unsigned x = strip * (CHROMA ? 4 : 8);
    if (p.overlay != LADDER_NO_OVERLAY)
        blend<CHROMA>(bytes, a.overlays[p.overlay], x, y);
    const unsigned count = p.width - x;
    const unsigned long long row = p.address + (unsigned long long)y * p.pitch;
    if (!CHROMA) {
        store(row + x, bytes, count);
    } else if (!p.address_v) {
        store(row + 2 * x, bytes, 2 * count);
    } else {
        store_bytes(row + x, pick_bytes(bytes.near, bytes.far, 0x6420), count);
        store_bytes(p.address_v + (unsigned long long)y * p.pitch + x, pick_bytes(bytes.near, bytes.far, 0x7531), count);
    }
}

template <typename Depth> __device__ __forceinline__ void ladder(const LadderArguments &a) {
    unsigned block = BLOCK_X, plane = 0;
    while (block >= a.ends[plane])
        plane++;
    block -= plane ? a.ends[plane - 1] : 0;
    const LadderPlane &p = a.planes[plane];
    const unsigned strip = block % p.across * LADDER_BLOCK_X + THREAD_X;
    const unsigned y = block / p.across * LADDER_BLOCK_Y + THREAD_Y;
    if (strip * (p.flags & 1 ? 4 : 8) >= p.width || y >= p.height)
        return;
    if (p.flags & 1)
        make_strip<Depth, true>(a, p, strip, y);
    else
        make_strip<Depth, false>(a, p, strip, y);
}

// From NV12.
extern "C" __global__ BLOCK_OF(128) void rung_ladder(LadderArguments a) { ladder<Eight>(a); }

// From P016 with ten significant bits.
extern "C" __global__ BLOCK_OF(128) void rung_ladder_ten(LadderArguments a) { ladder<Ten>(a); }

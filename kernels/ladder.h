// What a launch of rung_ladder is told, by value. The Rust twin is worker/src/gpu/ladder.rs; no struct has padding.
#pragma once

static constexpr unsigned LADDER_OUTPUTS = 16;
static constexpr unsigned LADDER_PLANES = 2 * LADDER_OUTPUTS;
// Threads of a block: each makes one strip of a row, eight luma samples or four of U and four of V.
static constexpr unsigned LADDER_BLOCK_X = 16;
static constexpr unsigned LADDER_BLOCK_Y = 8;
// Bytes of coefficients that the strips of a block load at once, four words a strip.
static constexpr unsigned LADDER_GROUP = 16 * LADDER_BLOCK_X;
static constexpr unsigned LADDER_NO_OVERLAY = 0xFFFFFFFF;

// One plane of one output. A unit is four samples of a source row (two of U and two of V), counted from the row's start.
struct LadderPlane {
    // Luma, interleaved chroma, or U; multiples of 4.
    unsigned long long address;
    // V, where chroma is planar; else 0.
    unsigned long long address_v;
    unsigned pitch;
    // Samples (of U, in chroma).
    unsigned width;
    unsigned height;
    // Blocks that a row of strips takes.
    unsigned across;
    // Bit 0: chroma. Bit 1: the size is kept. Bit 2: the second pair of rows begins with the second row, not the third.
    // Bit 3: the source has one row.
    unsigned flags;
    // Of `overlays`, or LADDER_NO_OVERLAY.
    unsigned overlay;
    // The widest window of a strip, units. Where the size is kept: the units of a source row.
    unsigned units;
    // Only units before this meet the strip's first four samples (even; luma) ...
    unsigned near_end;
    // ... and only units from this on its last four (even; luma).
    unsigned far_start;
    // Of source rows, for the vertical filter.
    unsigned pairs;
    // Where the tables are, bytes from `LadderArguments::tables`: per strip its first unit ...
    unsigned starts;
    // ... per two units, 16 strips, pair of columns (of the two units) and strip four horizontal coefficient pairs, a
    // pair as l0 | l1 << 8 | h0 << 16 | h1 << 24 (low and high bytes) ...
    unsigned near_coefficients;
    unsigned far_coefficients;
    // ... per row its first source row ...
    unsigned rows;
    // ... and its vertical coefficients, a pair of rows a word.
    unsigned row_coefficients;
    // Where the size is kept: the crop's place, samples: its first byte of an 8 bit row, and its first row.
    unsigned left_top;
};

struct LadderOverlay {
    // Y, its alpha, U, V, their alpha: tightly packed.
    unsigned long long address;
    // x | y << 16 and width | height << 16, luma samples, even.
    unsigned place;
    unsigned size;
};

struct LadderArguments {
    unsigned long long tables;
    // Multiples of 4, as is the pitch.
    unsigned long long luma;
    unsigned long long chroma;
    unsigned pitch;
    // How many of `planes` there are in this launch.
    unsigned count;
    // The first block after those of plane n.
    unsigned ends[LADDER_PLANES];
    LadderPlane planes[LADDER_PLANES];
    LadderOverlay overlays[LADDER_OUTPUTS];
};

// rung_frame_hash: a number that two pictures share when all their samples are equal. The specification is
// worker/src/scale/hash.rs. Any order of additions gives the same sums.
#pragma once

struct HashArguments {
    unsigned long long luma;
    // Interleaved U and V, or U alone.
    unsigned long long chroma;
    // V alone; 0: `chroma` is interleaved.
    unsigned long long chroma_v;
    // SUMS numbers of 64 bit, which the caller set to 0.
    unsigned long long sums;
    unsigned pitch_luma;
    unsigned pitch_chroma;
    // Luma samples.
    unsigned width;
    unsigned height;
};

static constexpr unsigned HASH_SUMS = 64;
// Rows of cells per thread.
static constexpr unsigned HASH_ROWS = 32;

__device__ __forceinline__ unsigned long long hash_cell(unsigned long long place, unsigned cell) {
    unsigned long long n = (place << 32 | cell) + 0x9E3779B97F4A7C15ull;
    n = (n ^ n >> 30) * 0xBF58476D1CE4E5B9ull;
    n = (n ^ n >> 27) * 0x94D049BB133111EBull;
    return n ^ n >> 31;
}

// Up to four bytes from an aligned address, the rest 0.
__device__ __forceinline__ unsigned load_cell(unsigned long long from, unsigned left) {
    const unsigned word = *(const GLOBAL unsigned *)from;
    return left >= 4 ? word : word & ((1u << 8 * left) - 1);
}

// x: a cell (four luma samples, or two U and two V) of a row; y: 32 rows; luma's come first, then chroma's.
extern "C" __global__ void rung_frame_hash(HashArguments a) {
    const unsigned cells = (a.width + 3) / 4;
    const unsigned groups_luma = (a.height + HASH_ROWS - 1) / HASH_ROWS;
    const unsigned across = (cells + 127) / 128;
    unsigned group = BLOCK_X / across;
    const unsigned cell = BLOCK_X % across * 128 + THREAD_X;
    const unsigned chroma = group >= groups_luma;
    group -= chroma ? groups_luma : 0;
    const unsigned width = chroma ? (a.width + 1) / 2 * 2 : a.width;
    const unsigned height = chroma ? (a.height + 1) / 2 : a.height;
    if (cell * 4 >= width)
        return;
    const unsigned long long base = chroma ? a.chroma : a.luma;
    const unsigned pitch = chroma ? a.pitch_chroma : a.pitch_luma;
    const unsigned end = (group + 1) * HASH_ROWS < height ? (group + 1) * HASH_ROWS : height;
    unsigned long long sum = 0;
    for (unsigned y = group * HASH_ROWS; y < end; y++) {
        const unsigned long long row = base + (unsigned long long)y * pitch;
        unsigned samples;
        if (chroma && a.chroma_v) {
            // Two bytes each, interleaved; a pitch that is a multiple of 4 keeps pairs aligned.
            const unsigned long long v = a.chroma_v + (unsigned long long)y * pitch;
            const unsigned shift = 16 * (cell % 2);
            const unsigned us = *(const GLOBAL unsigned *)(row + cell / 2 * 4) >> shift;
            const unsigned vs = *(const GLOBAL unsigned *)(v + cell / 2 * 4) >> shift;
            samples = pick_bytes(us, vs, 0x5140);
            if (width - cell * 4 < 4)
                samples &= 0xFFFF;
        } else {
            samples = load_cell(row + cell * 4, width - cell * 4);
        }
        sum += hash_cell((unsigned long long)chroma << 31 | y << 12 | cell, samples);
    }
    const unsigned at = (BLOCK_X + THREAD_X) % HASH_SUMS;
    add_atomic((GLOBAL unsigned long long *)a.sums + at, sum);
}

// What `kernels/clangcuda.h` gives clang for the device, for a C++14 compiler and the CPU: the same names, plain loops.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define BLOCK_OF(threads)
#define GLOBAL
#define EVERY_LOOP_ONCE

struct alignas(16) uint4v {
    unsigned x, y, z, w;
};
struct alignas(8) uint2v {
    unsigned x, y;
};
struct Dim3 {
    unsigned x, y, z;
};

static thread_local Dim3 thread_index, block_index;
#define BLOCK_X (block_index.x)
#define THREAD_X (thread_index.x)
#define THREAD_Y (thread_index.y)

static inline unsigned pick_bytes(unsigned a, unsigned b, unsigned digits) {
    const uint64_t both = (uint64_t(b) << 32) | a;
    unsigned d = 0;
    for (int n = 0; n < 4; n++)
        d |= unsigned((both >> (8 * ((digits >> (4 * n)) & 7))) & 255) << (8 * n);
    return d;
}

// Sums wrap, as the device's do.
static inline int wrapping(int64_t sum) { return int(uint32_t(uint64_t(sum))); }

static inline int dot_low_unsigned(unsigned a, unsigned b, int sum) {
    return wrapping(sum + int64_t(int16_t(a & 65535)) * uint8_t(b) + int64_t(int16_t(a >> 16)) * uint8_t(b >> 8));
}

static inline int dot_high_unsigned(unsigned a, unsigned b, int sum) {
    return wrapping(sum + int64_t(int16_t(a & 65535)) * uint8_t(b >> 16) + int64_t(int16_t(a >> 16)) * uint8_t(b >> 24));
}

static inline int dot_high_signed(unsigned a, unsigned b, int sum) {
    return wrapping(sum + int64_t(int16_t(a & 65535)) * int8_t(b >> 16) + int64_t(int16_t(a >> 16)) * int8_t(b >> 24));
}

static inline unsigned long long further(unsigned long long address, unsigned long long bytes) { return address + bytes; }

static inline uint4v load_four(unsigned long long address) { return *(const uint4v *)address; }

static inline void add_atomic(unsigned long long *to, unsigned long long value) {
    __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}

// What the kernels need of CUDA, for clang without a CUDA toolkit. The CPU build has its own: tests/double/kernels.
#pragma once

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __forceinline__ inline __attribute__((always_inline))
// No launch has more threads a block.
#define BLOCK_OF(threads) __attribute__((launch_bounds(threads)))
// Pointers that are known to be in device memory make shorter loads than generic ones.
#define GLOBAL __attribute__((address_space(1)))
#define EVERY_LOOP_ONCE _Pragma("unroll")

struct uint4v {
    unsigned x, y, z, w;
};
typedef unsigned uint2v __attribute__((ext_vector_type(2)));

#define BLOCK_X (unsigned(__nvvm_read_ptx_sreg_ctaid_x()))
#define THREAD_X (unsigned(__nvvm_read_ptx_sreg_tid_x()))
#define THREAD_Y (unsigned(__nvvm_read_ptx_sreg_tid_y()))

// Bytes of `b:a` (byte 0 is the lowest of a, byte 4 the lowest of b), chosen by the four hexadecimal digits.
__device__ __forceinline__ unsigned pick_bytes(unsigned a, unsigned b, unsigned digits) {
    unsigned d;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(digits));
    return d;
}

// sum + two signed 16 bit values times the two low unsigned bytes of b.
__device__ __forceinline__ int dot_low_unsigned(unsigned a, unsigned b, int sum) {
    int d;
    asm("dp2a.lo.s32.u32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(sum));
    return d;
}

// sum + two signed 16 bit values times the two high unsigned bytes of b.
__device__ __forceinline__ int dot_high_unsigned(unsigned a, unsigned b, int sum) {
    int d;
    asm("dp2a.hi.s32.u32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(sum));
    return d;
}

// sum + two signed 16 bit values times the two high signed bytes of b.
__device__ __forceinline__ int dot_high_signed(unsigned a, unsigned b, int sum) {
    int d;
    asm("dp2a.hi.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(sum));
    return d;
}

// address + bytes. Clang is not to see that it is a sum: it would rather keep many sums than one moving address.
__device__ __forceinline__ unsigned long long further(unsigned long long address, unsigned long long bytes) {
    unsigned long long d;
    asm("add.u64 %0, %1, %2;" : "=l"(d) : "l"(address), "l"(bytes));
    return d;
}

// Four words that no kernel writes, at a multiple of 16, in one load (clang would make four of a plain one).
__device__ __forceinline__ uint4v load_four(unsigned long long address) {
    uint4v d;
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w) : "l"(address));
    return d;
}

__device__ __forceinline__ void add_atomic(GLOBAL unsigned long long *to, unsigned long long value) {
    asm volatile("red.global.add.u64 [%0], %1;" : : "l"(to), "l"(value) : "memory");
}

// The kernels, built for the CPU, and a list of them that Rust can read.
#include "shim.h"

#include "../../../../kernels/scale.cu"

// Calls a kernel with the arguments that `void **` points to, by the kernel's own signature, for a range of blocks.
template <typename... Parameters> struct Launch {
    template <void (*KERNEL)(Parameters...), size_t... N>
    static void call(void **parameters, std::index_sequence<N...>) {
        KERNEL(*static_cast<Parameters *>(parameters[N])...);
    }
};

typedef void Run(const uint32_t *grid, const uint32_t *block, void **parameters, uint64_t from, uint64_t to);

template <typename F, F *KERNEL> struct Of;
template <typename... Parameters, void (*KERNEL)(Parameters...)> struct Of<void(Parameters...), KERNEL> {
    static void run(const uint32_t *grid, const uint32_t *block, void **parameters, uint64_t from, uint64_t to) {
        for (uint64_t at = from; at < to; at++) {
            block_index = {unsigned(at % grid[0]), unsigned(at / grid[0] % grid[1]), unsigned(at / grid[0] / grid[1])};
            for (thread_index.z = 0; thread_index.z < block[2]; thread_index.z++)
                for (thread_index.y = 0; thread_index.y < block[1]; thread_index.y++)
                    for (thread_index.x = 0; thread_index.x < block[0]; thread_index.x++)
                        Launch<Parameters...>::template call<KERNEL>(parameters, std::index_sequence_for<Parameters...>());
        }
    }
    static const size_t *bytes() {
        static const size_t sizes[] = {sizeof(Parameters)...};
        return sizes;
    }
    static constexpr size_t count = sizeof...(Parameters);
};

struct Entry {
    const char *name;
    Run *run;
    const size_t *bytes;
    size_t count;
};

#define ENTRY(kernel) {#kernel, Of<decltype(kernel), kernel>::run, Of<decltype(kernel), kernel>::bytes(), Of<decltype(kernel), kernel>::count}

extern "C" const Entry *rung_kernels(size_t *count) {
    static const Entry entries[] = {ENTRY(rung_frame_hash), ENTRY(rung_ladder), ENTRY(rung_ladder_ten)};
    *count = sizeof entries / sizeof *entries;
    return entries;
}

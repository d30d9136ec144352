// The kernels of Rung. Integers only, no shared memory, no barriers, no warp instructions, no textures: the same source
// is built for the CPU (tests/double/kernels) and must give the same bytes there.
#ifdef __CUDA__
#include "clangcuda.h"
#endif

#include "hash.h"

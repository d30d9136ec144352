//! Stands in for the NVIDIA driver's libcuda.so.1, in tests only: device memory is memory of the host, streams are
//! threads, kernels are those of `kernels/*.cu` built for the CPU.
//!
//! Purpose: the product's whole path over the driver's own C ABI, on a machine without a card; whoever breaks a contract
//! of the driver hears of it, in a sentence, where a card would answer one number or nothing.
//! Time: work takes as long as the CPU takes; nothing is paced.
//! Invariants: no handle and no address is given out twice; work in a stream is done in order and never at the call;
//! nothing waits for work that was submitted later.
//! When it fails: a contract broken by the caller is a line of the report *and* the driver's status code. An access
//! beside an allocation crashes the process there and then. A setting or fault that can not be read is a panic.
//!
//! # Exported
//! * `cuInit cuDriverGetVersion cuGetErrorName cuGetErrorString cuGetProcAddress cuGetProcAddress_v2`
//! * `cuDeviceGet cuDeviceGetCount cuDeviceGetName cuDeviceGetUuid cuDeviceGetUuid_v2 cuDeviceGetPCIBusId
//!   cuDeviceTotalMem_v2 cuDeviceGetAttribute`
//! * `cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxSetFlags_v2
//!   cuDevicePrimaryCtxGetState cuCtxGetCurrent cuCtxSetCurrent cuCtxPushCurrent_v2 cuCtxPopCurrent_v2 cuCtxGetDevice
//!   cuCtxGetFlags cuCtxSetFlags cuCtxSynchronize`
//! * `cuStreamCreate cuStreamCreateWithPriority cuStreamDestroy_v2 cuStreamQuery cuStreamSynchronize cuStreamWaitEvent
//!   cuLaunchHostFunc`
//! * `cuEventCreate cuEventDestroy_v2 cuEventRecord cuEventRecordWithFlags cuEventQuery cuEventSynchronize
//!   cuEventElapsedTime`
//! * `cuMemGetInfo_v2 cuMemAlloc_v2 cuMemAllocPitch_v2 cuMemAllocAsync cuMemFree_v2 cuMemFreeAsync cuMemHostAlloc
//!   cuMemAllocHost_v2 cuMemFreeHost cuMemHostGetDevicePointer_v2 cuMemGetAddressRange_v2 cuPointerGetAttribute`
//! * `cuMemcpyHtoD_v2 cuMemcpyDtoH_v2 cuMemcpyDtoD_v2 cuMemcpyHtoDAsync_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoDAsync_v2
//!   cuMemcpy2D_v2 cuMemcpy2DUnaligned_v2 cuMemcpy2DAsync_v2`
//! * `cuMemsetD{8,16,32}_v2 cuMemsetD{8,16,32}Async cuMemsetD2D{8,16,32}_v2 cuMemsetD2D{8,16,32}Async`
//! * `cuModuleLoadData cuModuleLoadDataEx cuModuleUnload cuModuleGetFunction cuFuncGetAttribute cuLaunchKernel`
//!
//! For the other doubles: `rung_double_aside(±1)` (copies on this thread are a codec's own), `rung_double_lock(address,
//! ±1)` and `rung_double_lock_range(address, bytes, ±1)` (mapped for an encoder: nobody may write),
//! `rung_double_memory_kind(address)` (0 none, 1 `cuMemAlloc`, 2 pitched, 3 stream-ordered, 4 pinned).
//!
//! Anything else is not there, as with a driver too old for it.
//!
//! # Settings
//! `gpus` (1; 0 answers NO_DEVICE), `cuda` or `cuda_version` (12020; the newest PTX follows from it), and for each GPU
//! `gpu<i>.name` (Rung Double), `.memory_mb` (24576; read at every allocation), `.capability` (8.9), `.uuid`, `.pci`
//! (0000:01:00.0 and on), `.multiprocessors` (58), `.memory_pools` (1). How many GPUs there are is read once, at the
//! first `cuInit`. Memory is this process's alone: others on the same card are not seen.
//!
//! # Faults
//! * `cuda.init`: `cuInit` answers it (100 no device, 999 unknown, 803 library and driver differ) or takes its time.
//! * `cuda.alloc`: any call for device memory; `cuda.pinned`: for pinned memory.
//! * `cuda.copy` (copies and fills) and `cuda.launch`: `sleep` holds the stream up, not the caller. A sticky code (214,
//!   220, 700, 702, 710, 714 to 719, 999) is met by the stream, so that the call itself succeeds and the next one that
//!   looks at the context answers it: from then on every call on that context does, nothing of it can be freed, and its
//!   work is skipped. Any other code is answered at the call.
//! * `cuda.sync`: `cuStreamSynchronize`, `cuEventSynchronize`, `cuCtxSynchronize`; a sticky code stays.
//! * `cuda.module`: a module is loaded (218 could not be compiled, 222 of a newer version).
//! * `cuda.lost code=999`: asked at every call; once it was due, every call that needs a card answers it for ever, in
//!   this process. A card that fell off the bus has been seen to give 999 (`CUDA_ERROR_UNKNOWN`), 719 and 46 in processes
//!   that held a context, and 100 or 999 from `cuInit` in new ones, which is `cuda.init`'s to play.
//!
//! # Counts
//! `live contexts`, `live allocations`, `live bytes`, `live pinned`, `live streams`, `live events`, `live modules`;
//! `calls`, `launches`, `copies htod|dtoh|dtod|htoh`, `bytes htod|dtoh|dtod|htoh`, `codec copies`, `codec bytes`,
//! `contexts failed`.
//!
//! # Contracts
//! A call before `cuInit` (3), with no current context (201), on a released one (709); unknown and destroyed handles, of
//! another kind or another context (400); a context given up with objects in it; use after free, double free, foreign
//! addresses, host memory given as the device's and the other way round, copies and fills beyond an allocation, of
//! another GPU's memory, with a pitch smaller than a row, misaligned (1); memory freed before a stream came to it (700);
//! bytes beside an allocation written to; a copy, fill or launch that writes to what is mapped for an encoder; launches
//! beyond the limits (1); a PTX whose kernels are not the source's (200); driver calls in a host function (800).
mod abi;
mod alloc;
mod codes;
mod context;
mod copy;
mod device;
mod event;
mod mapping;
mod memory;
mod module;
mod ptx;
mod stream;
mod world;

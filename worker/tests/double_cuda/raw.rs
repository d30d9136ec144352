//! The driver's calls as its header declares them, opened by path as the product does.
#![expect(unsafe_code, reason = "calls into the library that is tested")]
#![expect(non_snake_case, reason = "the driver's names")]
#![expect(clippy::too_many_arguments, reason = "the driver's calls")]

use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::sync::{Condvar, Mutex};

/// A table of calls, each a method. A test hands over what the call asks for, or what it must refuse.
macro_rules! calls {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        pub(crate) struct Cuda {
            $($name: unsafe extern "C" fn($($type),*) -> $answer,)*
        }

        impl Cuda {
            fn of(library: &libloading::Library) -> Cuda {
                Cuda { $($name: {
                    let name = concat!(stringify!($name), "\0");
                    // SAFETY: the type is the one that the driver's header gives to this name.
                    let found = unsafe { library.get::<unsafe extern "C" fn($($type),*) -> $answer>(name.as_bytes()) };
                    *found.unwrap()
                },)* }
            }

            $(pub(crate) fn $name(&self, $($argument: $type),*) -> $answer {
                // SAFETY: pointers to be written or read are to live values of the test, or such as the call must refuse.
                unsafe { (self.$name)($($argument),*) }
            })*
        }
    };
}

calls! {
    cuInit(flags: u32) -> u32;
    cuDriverGetVersion(version: *mut i32) -> u32;
    cuGetErrorName(code: u32, name: *mut *const c_char) -> u32;
    cuGetProcAddress_v2(name: *const c_char, at: *mut *mut c_void, cuda: i32, flags: u64, status: *mut u32) -> u32;
    cuDeviceGetCount(count: *mut i32) -> u32;
    cuDeviceGet(device: *mut i32, ordinal: i32) -> u32;
    cuDeviceGetName(name: *mut c_char, room: i32, device: i32) -> u32;
    cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: i32) -> u32;
    cuDeviceGetPCIBusId(id: *mut c_char, room: i32, device: i32) -> u32;
    cuDeviceTotalMem_v2(bytes: *mut usize, device: i32) -> u32;
    cuDeviceGetAttribute(value: *mut i32, attribute: u32, device: i32) -> u32;
    cuDevicePrimaryCtxRetain(context: *mut u64, device: i32) -> u32;
    cuDevicePrimaryCtxRelease_v2(device: i32) -> u32;
    cuCtxGetCurrent(context: *mut u64) -> u32;
    cuCtxSetCurrent(context: u64) -> u32;
    cuCtxPushCurrent_v2(context: u64) -> u32;
    cuCtxPopCurrent_v2(context: *mut u64) -> u32;
    cuCtxSynchronize() -> u32;
    cuStreamCreate(stream: *mut u64, flags: u32) -> u32;
    cuStreamDestroy_v2(stream: u64) -> u32;
    cuStreamQuery(stream: u64) -> u32;
    cuStreamSynchronize(stream: u64) -> u32;
    cuStreamWaitEvent(stream: u64, event: u64, flags: u32) -> u32;
    cuLaunchHostFunc(stream: u64, function: extern "C" fn(*mut c_void), data: *mut c_void) -> u32;
    cuEventCreate(event: *mut u64, flags: u32) -> u32;
    cuEventDestroy_v2(event: u64) -> u32;
    cuEventRecord(event: u64, stream: u64) -> u32;
    cuEventQuery(event: u64) -> u32;
    cuEventSynchronize(event: u64) -> u32;
    cuEventElapsedTime(ms: *mut f32, from: u64, to: u64) -> u32;
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32;
    cuMemAlloc_v2(at: *mut u64, bytes: usize) -> u32;
    cuMemAllocPitch_v2(at: *mut u64, pitch: *mut usize, width: usize, height: usize, element: u32) -> u32;
    cuMemAllocAsync(at: *mut u64, bytes: usize, stream: u64) -> u32;
    cuMemFree_v2(at: u64) -> u32;
    cuMemFreeAsync(at: u64, stream: u64) -> u32;
    cuMemHostAlloc(at: *mut u64, bytes: usize, flags: u32) -> u32;
    cuMemFreeHost(at: u64) -> u32;
    cuMemHostGetDevicePointer_v2(at: *mut u64, host: u64, flags: u32) -> u32;
    cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, at: u64) -> u32;
    cuMemcpyHtoD_v2(to: u64, from: u64, bytes: usize) -> u32;
    cuMemcpyDtoH_v2(to: u64, from: u64, bytes: usize) -> u32;
    cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> u32;
    cuMemcpyHtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) -> u32;
    cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) -> u32;
    cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) -> u32;
    cuMemcpy2D_v2(what: *const Memcpy2D) -> u32;
    cuMemcpy2DAsync_v2(what: *const Memcpy2D, stream: u64) -> u32;
    cuMemsetD8_v2(to: u64, value: u8, count: usize) -> u32;
    cuMemsetD8Async(to: u64, value: u8, count: usize, stream: u64) -> u32;
    cuMemsetD32_v2(to: u64, value: u32, count: usize) -> u32;
    cuMemsetD2D8Async(to: u64, pitch: usize, value: u8, width: usize, height: usize, stream: u64) -> u32;
    cuModuleLoadData(module: *mut u64, image: *const c_char) -> u32;
    cuModuleLoadDataEx(module: *mut u64, image: *const c_char, n: u32, options: *const u32, values: *const u64) -> u32;
    cuModuleUnload(module: u64) -> u32;
    cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) -> u32;
    cuLaunchKernel(
        function: u64, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: u64,
        parameters: *mut *mut c_void, extra: *mut *mut c_void) -> u32;
    rung_double_aside(change: i32) -> ();
    rung_double_lock(at: u64, change: i32) -> i32;
    rung_double_memory_kind(at: u64) -> i32;
}

/// CUDA_MEMCPY2D: from, to, size.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Memcpy2D {
    pub(crate) from: Side,
    pub(crate) to: Side,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Side {
    pub(crate) x: usize,
    pub(crate) y: usize,
    /// 1 host, 2 device.
    pub(crate) kind: u32,
    pub(crate) host: u64,
    pub(crate) device: u64,
    pub(crate) array: u64,
    pub(crate) pitch: usize,
}

impl Side {
    pub(crate) fn host(at: u64, pitch: usize) -> Side {
        Side { kind: 1, host: at, pitch, ..Side::default() }
    }

    pub(crate) fn device(at: u64, pitch: usize) -> Side {
        Side { kind: 2, device: at, pitch, ..Side::default() }
    }
}

impl Cuda {
    /// The library of a driver folder. It stays loaded when it is closed, as the driver's does.
    pub(crate) fn open(folder: &Path) -> Cuda {
        // SAFETY: the library runs nothing when it is loaded.
        let library = unsafe { libloading::Library::new(folder.join("libcuda.so.1")) }.unwrap();
        Cuda::of(&library)
    }

    /// Started, with the context of GPU 0 current.
    pub(crate) fn start(folder: &Path) -> Cuda {
        let cuda = Cuda::open(folder);
        assert_eq!(cuda.cuInit(0), 0);
        let context = made(|context| cuda.cuDevicePrimaryCtxRetain(context, 0));
        assert_eq!(cuda.cuCtxSetCurrent(context), 0);
        cuda
    }

    pub(crate) fn memory(&self, bytes: usize) -> u64 {
        made(|at| self.cuMemAlloc_v2(at, bytes))
    }

    pub(crate) fn pinned(&self, bytes: usize) -> u64 {
        made(|at| self.cuMemHostAlloc(at, bytes, 0))
    }

    /// A stream that the default stream does not wait for.
    pub(crate) fn stream(&self) -> u64 {
        made(|stream| self.cuStreamCreate(stream, 1))
    }

    pub(crate) fn event(&self) -> u64 {
        made(|event| self.cuEventCreate(event, 0))
    }

    /// The bytes of device memory, through the default stream.
    pub(crate) fn read(&self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        assert_eq!(self.cuMemcpyDtoH_v2(address_mut(&mut bytes), at, count), 0);
        bytes
    }

    /// Where a call of this name lies.
    pub(crate) fn address_of(&self, name: &CStr) -> usize {
        let mut at = std::ptr::null_mut();
        assert_eq!(self.cuGetProcAddress_v2(name.as_ptr(), &raw mut at, 12_020, 0, std::ptr::null_mut()), 0);
        at.addr()
    }
}

/// What a call wrote; it must have succeeded.
#[track_caller]
pub(crate) fn made<T: Default>(call: impl FnOnce(*mut T) -> u32) -> T {
    let mut value = T::default();
    assert_eq!(call(&raw mut value), 0);
    value
}

/// The code of a call whose answer nobody wants.
pub(crate) fn tried<T: Default>(call: impl FnOnce(*mut T) -> u32) -> u32 {
    let mut answer = T::default();
    call(&raw mut answer)
}

/// As calls take it.
pub(crate) fn address<T>(values: &[T]) -> u64 {
    values.as_ptr().expose_provenance() as u64
}

/// For what calls write to.
pub(crate) fn address_mut<T>(values: &mut [T]) -> u64 {
    values.as_mut_ptr().expose_provenance() as u64
}

/// Holds a stream until it is opened, and remembers that the stream came by.
pub(crate) struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn close(cuda: &Cuda, stream: u64) -> &'static Gate {
        let gate: &'static Gate =
            Box::leak(Box::new(Gate { state: Mutex::new((false, false)), changed: Condvar::new() }));
        assert_eq!(cuda.cuLaunchHostFunc(stream, Gate::pass, std::ptr::from_ref(gate).cast_mut().cast()), 0);
        gate
    }

    extern "C" fn pass(gate: *mut c_void) {
        // SAFETY: a gate is never given back.
        let gate = unsafe { &*gate.cast::<Gate>() };
        let closed = gate.changed.wait_while(gate.state.lock().unwrap(), |(open, _)| !*open);
        closed.unwrap().1 = true;
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    pub(crate) fn passed(&self) -> bool {
        self.state.lock().unwrap().1
    }
}

/// The table that a test handed to a host function.
pub(crate) fn of<'a>(cuda: *mut c_void) -> &'a Cuda {
    // SAFETY: the caller waits for the stream before its table goes.
    unsafe { &*cuda.cast::<Cuda>() }
}

/// Reads a byte of whatever memory, as a kernel would.
pub(crate) fn peek(at: u64) -> u8 {
    // SAFETY: memory that the driver gave out and that lives, or such as must end the process.
    unsafe { (at as *const u8).read_volatile() }
}

/// Writes a byte of whatever memory, as a kernel would.
pub(crate) fn poke(at: u64, value: u8) {
    // SAFETY: as above.
    unsafe { (at as *mut u8).write_volatile(value) };
}

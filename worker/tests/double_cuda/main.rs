//! The double of libcuda, driven by cudarc as the product drives the driver, and by calls that break its contracts. Each
//! test runs in a process of its own: settings, faults and a failed context are a process's.
#![expect(unsafe_code, reason = "cudarc's launch and symbols")]

#[path = "../support/double.rs"]
mod double;

mod contracts;
mod faults;
mod modules;
mod raw;
mod streams;

use std::collections::BTreeMap;

use cudarc::driver::{CudaContext, DeviceRepr, LaunchConfig, PushKernelArg, sys};
use cudarc::nvrtc::Ptx;
use double::Driver;
use raw::{Cuda, made};
use rung_worker::scale::{Planes, hash};

pub(crate) const PTX: &str = include_str!("../../../kernels/scale.ptx");

#[test]
fn a_driver_folder_holds_what_the_loader_asks_for() {
    let driver = Driver::new();
    for name in ["libcuda.so.1", "libcuda.so", "libnvcuvid.so.1", "libnvidia-encode.so.1", "libnvidia-ml.so.1"] {
        assert!(driver.folder().join(name).is_file(), "{name}");
    }
    assert!(!Driver::new().without("libcuda.so.1").folder().join("libcuda.so").exists());
    driver.assert_clean();
}

/// The product opens the library by path. cudarc opens it by names of its own, the first of which that is found.
#[test]
fn cudarc_finds_the_library_that_was_opened_by_path() {
    let driver = Driver::new();
    assert!(driver.pass("cudarc_by_soname").contains("the same library"), "in a folder that the loader searches");
    let mut unnamed = driver.command("cudarc_by_soname");
    let said = double::passed("by its own name", &unnamed.env_remove("LD_LIBRARY_PATH").output().unwrap());
    assert!(said.contains("the same library") || said.contains("SKIP"), "{said}");
    driver.assert_clean();
}

#[test]
#[ignore = "run in a process of its own by cudarc_finds_the_library_that_was_opened_by_path"]
fn cudarc_by_soname() {
    // What `LD_LIBRARY_PATH` finds is found by any name. Without it only the name of what is loaded can help.
    // SAFETY: no other thread of this process reads the environment now; the loader has read it long ago.
    let named = unsafe { libloading::Library::new("libcuda.so") };
    if std::env::var_os("LD_LIBRARY_PATH").is_none() && named.is_ok() {
        println!("SKIP a driver is installed here under the name that cudarc tries first");
        return;
    }
    drop(named);
    let cuda = Cuda::start(&double::folder());
    // SAFETY: opens and closes libraries, which run nothing.
    assert!(unsafe { sys::is_culib_present() });
    // SAFETY: the library is present.
    let theirs = unsafe { sys::culib() };
    // SAFETY: only the address is looked at.
    let found = unsafe { theirs.get::<extern "C" fn(u32) -> u32>(b"cuInit\0") }.unwrap();
    assert_eq!(*found as usize, cuda.address_of(c"cuInit"), "cudarc found another library");
    // What `is_culib_present` opened it has closed: the library kept its state.
    let context = CudaContext::new(0).unwrap();
    assert_eq!(made(|context| cuda.cuCtxGetCurrent(context)), context.cu_ctx().addr() as u64);
    drop(context);
    assert_eq!(cuda.cuDevicePrimaryCtxRelease_v2(0), 0);
    println!("the same library");
}

/// As `HashArguments` of the kernels' header.
#[repr(C)]
#[derive(Clone, Copy)]
struct HashArguments {
    luma: u64,
    chroma: u64,
    chroma_v: u64,
    sums: u64,
    pitch_luma: u32,
    pitch_chroma: u32,
    width: u32,
    height: u32,
}

// SAFETY: numbers only, laid out as the kernel declares them.
unsafe impl DeviceRepr for HashArguments {}

#[test]
fn cudarc_runs_a_kernel_and_leaves_nothing() {
    let driver = Driver::new();
    driver.pass("cudarc_runs");
    driver.assert_clean();
    let counts = driver.counts();
    let count = |what: &str| counts.get(what).copied().unwrap_or(0);
    assert_eq!((count("launches"), count("copies htod"), count("copies dtoh")), (1, 1, 1), "{counts:?}");
    assert_eq!((count("bytes htod"), count("bytes dtoh")), (256 * 60, 512), "{counts:?}");
    assert!(count("calls") > 20, "{counts:?}");
}

#[test]
#[ignore = "run in a process of its own by cudarc_runs_a_kernel_and_leaves_nothing"]
fn cudarc_runs() {
    let (width, height, pitch) = (250, 40, 256);
    let picture: Vec<u8> = (0..pitch * (height + height / 2)).map(|n| (n * 7 + n / 251) as u8).collect();
    let expected = expected_hash(&picture, pitch, width, height);

    let context = CudaContext::new(0).unwrap();
    assert_eq!((context.name().unwrap().as_str(), context.compute_capability().unwrap()), ("Rung Double", (8, 9)));
    context.set_blocking_synchronize().unwrap();
    let stream = context.new_stream().unwrap();
    let module = context.load_module(Ptx::from_src(PTX)).unwrap();
    let kernel = module.load_function("rung_frame_hash").unwrap();
    let on_device = stream.clone_htod(&picture).unwrap();
    let sums = stream.alloc_zeros::<u64>(64).unwrap();
    let luma = device_address(&on_device, &stream);
    let arguments = HashArguments {
        luma,
        chroma: luma + (pitch * height) as u64,
        chroma_v: 0,
        sums: device_address(&sums, &stream),
        pitch_luma: pitch as u32,
        pitch_chroma: pitch as u32,
        width: width as u32,
        height: height as u32,
    };
    let blocks = (width as u32).div_ceil(4).div_ceil(128)
        * ((height as u32).div_ceil(32) + (height as u32).div_ceil(2).div_ceil(32));
    let launch = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the kernel's one parameter; both buffers live until the stream is done.
    unsafe { stream.launch_builder(&kernel).arg(&arguments).launch(launch) }.unwrap();
    let sums = stream.clone_dtoh(&sums).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(hash::finished(&sums, width, height), expected);
}

fn device_address<T>(slice: &cudarc::driver::CudaSlice<T>, stream: &cudarc::driver::CudaStream) -> u64 {
    use cudarc::driver::DevicePtr;
    slice.device_ptr(stream).0
}

/// The hash of an NV12 picture by its specification.
fn expected_hash(picture: &[u8], pitch: usize, width: usize, height: usize) -> u64 {
    let (y, chroma) = picture.split_at(pitch * height);
    let every_other = |first: usize| chroma.iter().skip(first).step_by(2).copied().collect::<Vec<u8>>();
    let (u, v) = (every_other(0), every_other(1));
    let stride = pitch / 2;
    hash::frame_hash(&Planes { y, u: &u, v: &v, stride_y: pitch, stride_u: stride, stride_v: stride, width, height })
}

#[test]
fn gpus_are_what_the_settings_say() {
    let driver = Driver::new().gpus(2).setting("cuda", 12_040).setting("gpu0.name", "NVIDIA L4");
    let driver = driver.setting("gpu1.memory_mb", 16_384).setting("gpu1.capability", "7.5");
    let driver =
        driver.setting("gpu1.pci", "0000:41:00.0").setting("gpu1.uuid", "GPU-12345678-9abc-def0-1234-56789abcdef0");
    driver.pass("gpus");
    driver.assert_clean();
}

#[test]
#[ignore = "run in a process of its own by gpus_are_what_the_settings_say"]
fn gpus() {
    let cuda = Cuda::open(&double::folder());
    assert_eq!(made(|v| cuda.cuDriverGetVersion(v)), 12_040);
    assert_eq!(cuda.cuInit(0), 0);
    assert_eq!(made(|count| cuda.cuDeviceGetCount(count)), 2);
    let text = |call: &dyn Fn(*mut std::ffi::c_char, i32) -> u32| {
        let mut bytes = [1_u8; 64];
        assert_eq!(call(bytes.as_mut_ptr().cast(), 64), 0);
        std::ffi::CStr::from_bytes_until_nul(&bytes).unwrap().to_str().unwrap().to_owned()
    };
    let name = |gpu| text(&|at, room| cuda.cuDeviceGetName(at, room, gpu));
    assert_eq!((name(0), name(1)), ("NVIDIA L4".into(), "Rung Double".into()));
    let pci = |gpu| text(&|at, room| cuda.cuDeviceGetPCIBusId(at, room, gpu));
    assert_eq!((pci(0), pci(1)), ("0000:01:00.0".into(), "0000:41:00.0".into()));
    let uuid = |gpu| u128::from_be_bytes(made(|uuid| cuda.cuDeviceGetUuid_v2(uuid, gpu)));
    assert_eq!((uuid(0), uuid(1)), (0x4000_8000 << 48, 0x1234_5678_9abc_def0_1234_5678_9abc_def0));
    let bytes = |gpu| made(|bytes| cuda.cuDeviceTotalMem_v2(bytes, gpu));
    assert_eq!((bytes(0), bytes(1)), (24 << 30, 16 << 30));
    let attribute = |gpu, which| made(|value| cuda.cuDeviceGetAttribute(value, which, gpu));
    assert_eq!([75, 76].map(|which| attribute(0, which)), [8, 9]);
    assert_eq!([75, 76, 33].map(|which| attribute(1, which)), [7, 5, 0x41]);
    // A name that does not fit is cut, and ends.
    let mut short = [1_u8; 6];
    assert_eq!(cuda.cuDeviceGetName(short.as_mut_ptr().cast(), 5, 0), 0);
    assert_eq!(short, *b"NVID\0\x01");
    let mut name = std::ptr::null();
    assert_eq!(cuda.cuGetErrorName(214, &raw mut name), 0);
    assert!(!name.is_null());
    assert_eq!((cuda.cuGetErrorName(12_345, &raw mut name), name.is_null()), (1, true));
}

#[test]
fn a_thousand_contexts_leave_no_thread_and_no_memory() {
    let driver = Driver::new();
    driver.pass("a_thousand_contexts");
    driver.assert_clean();
    assert_eq!(driver.count("launches"), 0);
}

#[test]
#[ignore = "run in a process of its own by a_thousand_contexts_leave_no_thread_and_no_memory"]
fn a_thousand_contexts() {
    let cuda = Cuda::open(&double::folder());
    assert_eq!(cuda.cuInit(0), 0);
    let round = || {
        let context = made(|context| cuda.cuDevicePrimaryCtxRetain(context, 0));
        assert_eq!(cuda.cuCtxSetCurrent(context), 0);
        let (stream, event, memory) = (cuda.stream(), cuda.event(), cuda.memory(1 << 20));
        let pinned = cuda.pinned(1 << 16);
        assert_eq!(cuda.cuMemcpyHtoDAsync_v2(memory, pinned, 1 << 16, stream), 0);
        assert_eq!(cuda.cuEventRecord(event, stream), 0);
        assert_eq!(cuda.cuEventSynchronize(event), 0);
        assert_eq!(cuda.cuMemFree_v2(memory), 0);
        assert_eq!(cuda.cuMemFreeHost(pinned), 0);
        assert_eq!(cuda.cuEventDestroy_v2(event), 0);
        assert_eq!(cuda.cuStreamDestroy_v2(stream), 0);
        assert_eq!(cuda.cuDevicePrimaryCtxRelease_v2(0), 0);
        assert_eq!(cuda.cuCtxSetCurrent(0), 0);
    };
    // So many that the addresses of what was freed are given back, the oldest first.
    for _ in 0..300 {
        round();
    }
    let before = process();
    for _ in 0..1000 {
        round();
    }
    // Threads end by themselves once their stream is destroyed.
    let ended = (0..100_000).any(|_| {
        std::thread::yield_now();
        process()["Threads"] <= before["Threads"]
    });
    let after = process();
    assert!(ended, "{before:?} {after:?}");
    assert!(after["VmRSS"] < before["VmRSS"] + 8 * 1024, "{before:?} {after:?}");
    // A thousand allocations of 1 MiB went by; threads' own heaps come and go.
    assert!(after["VmSize"] < before["VmSize"] + 256 * 1024, "{before:?} {after:?}");
}

/// Numbers of this process: `Threads`, `VmRSS` and `VmSize` in KiB.
fn process() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.filter_map(|(key, value)| Some((key.to_owned(), value.split_whitespace().next()?.parse().ok()?))).collect()
}

//! PTX as the driver takes it, and launches.

use std::ffi::{CStr, CString, c_void};

use crate::PTX;
use crate::double::{self, Driver};
use crate::raw::{Cuda, Gate, made, tried};

/// The kernels' PTX as the driver wants it.
pub(crate) fn ptx() -> CString {
    CString::new(PTX).unwrap()
}

/// Launches the hash of a picture of 8 x 8 that lies, with its sums behind it, in memory filled with zeros.
pub(crate) fn launch(cuda: &Cuda, function: u64, stream: u64, at: u64) -> u32 {
    let mut arguments = [at, at + 512, 0, at + 4096, 64 << 32 | 64, 8 << 32 | 8];
    let mut parameters = [arguments.as_mut_ptr().cast::<c_void>()];
    let none: *mut *mut c_void = std::ptr::null_mut();
    let answer = cuda.cuLaunchKernel(function, 2, 1, 1, 128, 1, 1, 0, stream, parameters.as_mut_ptr(), none);
    // The driver has its own copy: addresses that come to nothing would end the process.
    arguments.fill(0);
    parameters.fill(std::ptr::null_mut());
    std::hint::black_box((arguments, parameters));
    answer
}

#[test]
fn a_launch_has_the_parameters_of_its_call() {
    let driver = Driver::new();
    driver.pass("modules::launched");
    driver.assert_clean();
    assert_eq!(driver.count("launches"), 1);
}

#[test]
#[ignore = "run in a process of its own by a_launch_has_the_parameters_of_its_call"]
fn launched() {
    let cuda = Cuda::start(&double::folder());
    let (stream, at) = (cuda.stream(), cuda.memory(8192));
    let module = made(|module| cuda.cuModuleLoadData(module, ptx().as_ptr()));
    let hash = made(|hash| cuda.cuModuleGetFunction(hash, module, c"rung_frame_hash".as_ptr()));
    assert_eq!(cuda.cuMemsetD8Async(at, 0, 8192, stream), 0);
    let gate = Gate::close(&cuda, stream);
    assert_eq!(launch(&cuda, hash, stream, at), 0);
    gate.open();
    assert_eq!(cuda.cuStreamSynchronize(stream), 0);
    let sums = cuda.read(at + 4096, 512);
    let sums: Vec<u64> = sums.chunks_exact(8).map(|sum| u64::from_ne_bytes(sum.try_into().unwrap())).collect();
    let expected = crate::expected_hash(&[0; 8 * 64 + 4 * 64], 64, 8, 8);
    assert_eq!(rung_worker::scale::hash::finished(&sums, 8, 8), expected);
    assert_eq!((cuda.cuModuleUnload(module), cuda.cuStreamDestroy_v2(stream)), (0, 0));
    assert_eq!((cuda.cuMemFree_v2(at), cuda.cuDevicePrimaryCtxRelease_v2(0)), (0, 0));
}

#[test]
fn a_ptx_that_is_not_the_source_s_is_refused() {
    let driver = Driver::new().setting("gpu0.capability", "8.6");
    driver.pass("modules::refused");
    let said = driver.broken().join("\n");
    for words in [
        "cuModuleLoadData: this double takes PTX text only",
        "rung_frame_hash: PTX parameters [56] differ from the source's [48]; regenerate the PTX",
        "the PTX has a kernel rung_frame_crash, the source has none; regenerate the PTX",
        "the PTX: rung_frame_hash: its parameters do not end",
        "the PTX: a comment does not end",
        "cuLaunchKernel: a grid of [0, 1, 1]",
        "blocks of [1024, 2, 1]",
        "a grid of [1, 65536, 1]",
        "blocks of [1, 1, 65]",
        "49153 bytes shared",
        "a pointer to be read is null",
        "is a function that was destroyed",
        "a module that was destroyed",
    ] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
}

#[test]
#[ignore = "run in a process of its own by a_ptx_that_is_not_the_source_s_is_refused"]
fn refused() {
    let cuda = Cuda::start(&double::folder());
    let load = |text: &str| tried(|module| cuda.cuModuleLoadData(module, CString::new(text).unwrap().as_ptr()));
    let parameter = "rung_frame_hash_param_0[48]";
    assert!(PTX.contains(parameter));
    assert_eq!(load(PTX), 0);
    assert_eq!(load("no PTX at all"), 200);
    assert_eq!(load("\x7fELF"), 200);
    assert_eq!(load(&PTX.replace(parameter, "rung_frame_hash_param_0[56]")), 200, "a parameter grew");
    assert_eq!(load(&PTX.replace("rung_frame_hash", "rung_frame_crash")), 200, "a kernel that is gone");
    assert_eq!(load(&PTX[..PTX.find(parameter).unwrap()]), 218, "cut off");
    assert_eq!(load(".version 6.3 /* .target sm_75"), 218);
    // Of a newer version than CUDA 12.2 takes, and for a newer GPU.
    assert_eq!(load(&PTX.replace(".version 6.3", ".version 8.2")), 0);
    assert_eq!(load(&PTX.replace(".target sm_75", ".target sm_86")), 0);
    assert_eq!(load(&PTX.replace(".target sm_75", ".target sm_89")), 209);
    let newer = CString::new(PTX.replace(".version 6.3", ".version 8.3")).unwrap();
    assert_eq!(tried(|module| cuda.cuModuleLoadData(module, newer.as_ptr())), 222);
    // The compiler's words, cut to fit.
    let mut words = [b'?'; 24];
    let (options, values) = ([5, 6], [words.as_mut_ptr().expose_provenance() as u64, 20]);
    let loaded = tried(|module| cuda.cuModuleLoadDataEx(module, newer.as_ptr(), 2, options.as_ptr(), values.as_ptr()));
    assert_eq!((loaded, CStr::from_bytes_until_nul(&words).unwrap()), (222, c"Unsupported .versio"));
    assert_eq!(words[20..], *b"????");
    launches(&cuda);
}

fn launches(cuda: &Cuda) {
    let module = made(|module| cuda.cuModuleLoadData(module, ptx().as_ptr()));
    assert_eq!(tried(|function| cuda.cuModuleGetFunction(function, module, c"rung_frame".as_ptr())), 500);
    let hash = made(|hash| cuda.cuModuleGetFunction(hash, module, c"rung_frame_hash".as_ptr()));
    let none = std::ptr::null_mut();
    let with = |[gx, gy, gz]: [u32; 3], [bx, by, bz]: [u32; 3], shared, parameters| {
        cuda.cuLaunchKernel(hash, gx, gy, gz, bx, by, bz, shared, 0, parameters, none)
    };
    let mut nothing: [*mut c_void; 1] = [std::ptr::null_mut()];
    let all = nothing.as_mut_ptr();
    assert_eq!(with([0, 1, 1], [1, 1, 1], 0, all), 1);
    assert_eq!(with([1, 1, 1], [1024, 2, 1], 0, all), 1);
    assert_eq!(with([1, 65_536, 1], [1, 1, 1], 0, all), 1);
    assert_eq!(with([1, 1, 1], [1, 1, 65], 0, all), 1);
    assert_eq!(with([1, 1, 1], [1, 1, 1], 49_153, all), 1);
    assert_eq!(with([1, 1, 1], [1, 1, 1], 0, std::ptr::null_mut()), 1);
    assert_eq!(with([1, 1, 1], [1, 1, 1], 0, all), 1, "a parameter that is null");
    assert_eq!(cuda.cuModuleUnload(module), 0);
    assert_eq!(launch(cuda, hash, 0, 0), 400);
    assert_eq!(cuda.cuModuleUnload(module), 400);
}

#[test]
fn a_compiler_that_fails_says_so() {
    let driver = Driver::new().fault("cuda.module code=218 times=1");
    driver.pass("modules::not_compiled");
    assert_eq!((driver.broken(), driver.count("live modules")), (Vec::new(), 1));
}

#[test]
#[ignore = "run in a process of its own by a_compiler_that_fails_says_so"]
fn not_compiled() {
    let cuda = Cuda::start(&double::folder());
    let load = || tried(|module| cuda.cuModuleLoadData(module, ptx().as_ptr()));
    assert_eq!((load(), load()), (218, 0));
}

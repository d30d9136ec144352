//! What the driver forbids: each is answered by the driver's code and by a sentence in the report.

use std::ffi::c_void;
use std::fs;
use std::os::unix::process::ExitStatusExt;

use crate::double::{self, Driver};
use crate::raw::{Cuda, Memcpy2D, Side, address, made, peek, poke, tried};

/// The sentences of this process that were seen so far.
struct Broken {
    seen: usize,
}

impl Broken {
    /// A call must have answered `code`, and have left one sentence more, with these words in it.
    #[track_caller]
    fn by(&mut self, answered: u32, code: u32, words: &str) {
        assert_eq!(answered, code, "{words}: {:?}", sentences());
        self.said(words);
    }

    #[track_caller]
    fn said(&mut self, words: &str) {
        let sentences = sentences();
        self.seen += 1;
        assert_eq!(sentences.len(), self.seen, "{words}: {sentences:?}");
        assert!(sentences[self.seen - 1].contains(words), "{words}: {:?}", sentences[self.seen - 1]);
    }
}

fn sentences() -> Vec<String> {
    let report = std::env::var_os("RUNG_DOUBLE_REPORT").unwrap();
    let path = std::path::Path::new(&report).join(format!("libcuda.{}.broken", std::process::id()));
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn what_a_caller_may_not_do_is_refused_and_told() {
    let driver = Driver::new().gpus(2);
    for part in ["contexts", "handles", "memory", "copies", "freed_early", "callbacks"] {
        driver.pass(&format!("contracts::{part}"));
    }
    assert!(driver.broken().len() > 50, "{:?}", driver.broken());
}

#[test]
#[ignore = "run in a process of its own by what_a_caller_may_not_do_is_refused_and_told"]
fn contexts() {
    let cuda = Cuda::open(&double::folder());
    let mut broken = Broken { seen: 0 };
    broken.by(tried(|count| cuda.cuDeviceGetCount(count)), 3, "cuDeviceGetCount: before cuInit");
    broken.by(cuda.cuInit(1), 1, "flags are always 0");
    assert_eq!(cuda.cuInit(0), 0);
    broken.by(tried(|device| cuda.cuDeviceGet(device, 2)), 101, "there is no GPU 2 of 2");
    broken.by(tried(|context| cuda.cuDevicePrimaryCtxRetain(context, -1)), 101, "no GPU -1");
    broken.by(cuda.cuDevicePrimaryCtxRelease_v2(0), 201, "not retained");
    broken.by(tried(|at| cuda.cuMemAlloc_v2(at, 16)), 201, "no context is current on this thread");
    broken.by(cuda.cuCtxSetCurrent(7), 201, "no handle that was ever given out");
    broken.by(tried(|context| cuda.cuCtxPopCurrent_v2(context)), 201, "no context is current");
    let context = made(|context| cuda.cuDevicePrimaryCtxRetain(context, 0));
    assert_eq!(made(|again| cuda.cuDevicePrimaryCtxRetain(again, 0)), context);
    assert_eq!(cuda.cuDevicePrimaryCtxRelease_v2(0), 0);
    assert_eq!(cuda.cuCtxPushCurrent_v2(context), 0);
    assert_eq!(made(|popped| cuda.cuCtxPopCurrent_v2(popped)), context);
    broken.by(cuda.cuCtxSynchronize(), 201, "no context is current");
    assert_eq!(cuda.cuCtxSetCurrent(context), 0);
    // Another thread has no context because this one has.
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| cuda.cuCtxSynchronize()).join().unwrap());
    broken.by(elsewhere, 201, "no context is current");
    let (_stream, _event, _memory) = (cuda.stream(), cuda.event(), cuda.memory(100));
    let words = "given up with 1 streams, 1 events, 1 allocations left in it";
    broken.by(cuda.cuDevicePrimaryCtxRelease_v2(0), 0, words);
    broken.by(tried(|at| cuda.cuMemAlloc_v2(at, 16)), 709, "the current context was released");
    broken.by(cuda.cuCtxPushCurrent_v2(context), 201, "a context that was destroyed");
    assert_ne!(made(|context| cuda.cuDevicePrimaryCtxRetain(context, 0)), context, "a handle is not used twice");
}

#[test]
#[ignore = "run in a process of its own by what_a_caller_may_not_do_is_refused_and_told"]
fn handles() {
    let cuda = Cuda::start(&double::folder());
    let mut broken = Broken { seen: 0 };
    let (stream, event, other) = (cuda.stream(), cuda.event(), cuda.event());
    broken.by(tried(|stream| cuda.cuStreamCreate(stream, 2)), 1, "flags 0x2");
    broken.by(tried(|event| cuda.cuEventCreate(event, 4)), 1, "flags 0x4");
    broken.by(cuda.cuStreamCreate(std::ptr::null_mut(), 0), 1, "pointer for the answer is null");
    broken.by(cuda.cuStreamSynchronize(event), 400, "is a event, not a live stream");
    broken.by(cuda.cuEventRecord(stream, stream), 400, "is a stream, not a live event");
    broken.by(cuda.cuStreamWaitEvent(stream, 1 << 40, 0), 400, "no handle that was ever given out");
    broken.by(cuda.cuStreamSynchronize(2), 801, "no default stream for each thread");
    broken.by(tried(|ms| cuda.cuEventElapsedTime(ms, event, other)), 400, "never recorded");
    let untimed = made(|event| cuda.cuEventCreate(event, 2));
    assert_eq!(cuda.cuEventRecord(untimed, stream), 0);
    broken.by(tried(|ms| cuda.cuEventElapsedTime(ms, untimed, event)), 400, "without timing");
    assert_eq!(cuda.cuStreamDestroy_v2(stream), 0);
    broken.by(cuda.cuStreamDestroy_v2(stream), 400, "a stream that was destroyed");
    broken.by(cuda.cuEventRecord(event, stream), 400, "a stream that was destroyed");
    broken.by(cuda.cuStreamDestroy_v2(0), 400, "no handle that was ever given out");
    assert_eq!(cuda.cuEventDestroy_v2(event), 0);
    broken.by(cuda.cuEventDestroy_v2(event), 400, "a event that was destroyed");
    broken.by(cuda.cuEventQuery(event), 400, "a event that was destroyed");
    broken.by(cuda.cuModuleUnload(other), 400, "is a event, not a live module");
    // Streams and events of one GPU with another one's context.
    let (stream, ours) = (cuda.stream(), made(|context| cuda.cuCtxGetCurrent(context)));
    let theirs = made(|context| cuda.cuDevicePrimaryCtxRetain(context, 1));
    assert_eq!(cuda.cuCtxSetCurrent(theirs), 0);
    broken.by(cuda.cuMemsetD8Async(1 << 20, 0, 16, stream), 1, "is no device memory");
    let (memory, event) = (cuda.memory(16), cuda.event());
    broken.by(cuda.cuMemsetD8Async(memory, 0, 16, stream), 400, "another context's");
    broken.by(cuda.cuEventRecord(other, 0), 400, "another context's");
    assert_eq!(cuda.cuStreamSynchronize(stream), 0, "any thread may wait for any stream");
    assert_eq!(cuda.cuCtxSetCurrent(ours), 0);
    broken.by(cuda.cuMemsetD8Async(memory, 0, 16, stream), 1, "memory of GPU 1 in a context of GPU 0");
    // Order between GPUs is what events are for.
    assert_eq!(cuda.cuStreamWaitEvent(stream, event, 0), 0);
}

#[test]
#[ignore = "run in a process of its own by what_a_caller_may_not_do_is_refused_and_told"]
fn memory() {
    let cuda = Cuda::start(&double::folder());
    let mut broken = Broken { seen: 0 };
    broken.by(tried(|at| cuda.cuMemAlloc_v2(at, 0)), 1, "0 bytes");
    let mut pitch = 0;
    broken.by(tried(|at| cuda.cuMemAllocPitch_v2(at, &raw mut pitch, 100, 10, 3)), 1, "elements of 3 bytes");
    let pitched = made(|at| cuda.cuMemAllocPitch_v2(at, &raw mut pitch, 1300, 10, 16));
    assert_eq!((pitch, pitched % 512), (1536, 0));
    let (at, host) = (cuda.memory(1000), [0_u8; 16]);
    assert_eq!(cuda.read(at, 1000), vec![0xa7; 1000], "fresh memory is not zero");
    let mut size = 0;
    assert_eq!(made(|base| cuda.cuMemGetAddressRange_v2(base, &raw mut size, at + 999)), at);
    assert_eq!(size, 1000);
    broken.by(cuda.cuMemFree_v2(at + 512), 1, "512 bytes into its 1000");
    broken.by(cuda.cuMemFree_v2(address(&host)), 1, "is no device memory");
    assert_eq!(cuda.cuMemFree_v2(0), 0, "null is freed for nothing");
    assert_eq!(cuda.cuMemFree_v2(at), 0);
    broken.by(cuda.cuMemFree_v2(at), 1, "was freed");
    broken.by(cuda.cuMemcpyHtoD_v2(at + 8, address(&host), 16), 1, "was freed");
    broken.by(cuda.cuMemcpyHtoD_v2(pitched, at, 16), 1, "was freed");
    broken.by(cuda.cuMemFreeAsync(pitched, 0), 1, "not of cuMemAllocAsync");
    let pooled = made(|at| cuda.cuMemAllocAsync(at, 4096, 0));
    assert_eq!([at, pitched, pooled].map(|at| cuda.rung_double_memory_kind(at)), [0, 2, 3]);
    assert_eq!(cuda.cuMemFreeAsync(pooled, 0), 0);
    let twice = cuda.cuMemFreeAsync(pooled, 0);
    broken.by(twice, 1, "freed");
    let pinned = cuda.pinned(64);
    assert_eq!(cuda.rung_double_memory_kind(pinned), 4);
    broken.by(cuda.cuMemFree_v2(pinned), 1, "is pinned memory");
    broken.by(cuda.cuMemFreeHost(pitched), 1, "is device memory");
    broken.by(tried(|at| cuda.cuMemHostGetDevicePointer_v2(at, pinned, 0)), 1, "not mapped pinned memory");
    broken.by(cuda.cuMemsetD8_v2(pinned, 0, 64), 1, "is pinned memory");
    let mapped = made(|at| cuda.cuMemHostAlloc(at, 64, 2));
    assert_eq!(made(|at| cuda.cuMemHostGetDevicePointer_v2(at, mapped, 0)), mapped);
    assert_eq!((cuda.cuMemsetD8_v2(mapped, 9, 64), cuda.cuCtxSynchronize(), peek(mapped + 63)), (0, 0, 9));
    broken.by(tried(|at| cuda.cuMemHostAlloc(at, 64, 8)), 1, "flags 0x8");
    assert_eq!((cuda.cuMemFreeHost(pinned), cuda.cuMemFreeHost(mapped)), (0, 0));
    broken.by(cuda.cuMemFreeHost(pinned), 1, "was freed");
    // A write beside an allocation that the guard page does not catch is found when it is freed.
    let at = cuda.memory(1000);
    poke(at + 1001, 1);
    broken.by(cuda.cuMemFree_v2(at), 0, "something wrote at byte 1001 of 1000");
    let at = cuda.memory(1000);
    poke(at - 1, 1);
    broken.by(cuda.cuMemFree_v2(at), 0, "something wrote at byte -1 of 1000");
}

#[test]
#[ignore = "run in a process of its own by what_a_caller_may_not_do_is_refused_and_told"]
fn copies() {
    let cuda = Cuda::start(&double::folder());
    let mut broken = Broken { seen: 0 };
    let (at, other, host) = (cuda.memory(4096), cuda.memory(4096), vec![7_u8; 8192]);
    let from = address(&host);
    broken.by(cuda.cuMemcpyHtoD_v2(at + 4000, from, 97), 1, "97 bytes from byte 4000 on, of an allocation of 4096");
    broken.by(cuda.cuMemcpyHtoD_v2(at + 4096, from, 1), 1, "1 bytes from byte 4096 on");
    broken.by(cuda.cuMemcpyDtoH_v2(from, at, usize::MAX), 1, "of an allocation of 4096");
    broken.by(cuda.cuMemcpyHtoD_v2(from, from, 16), 1, "is no device memory");
    broken.by(cuda.cuMemcpyHtoD_v2(at, other, 16), 1, "is device memory, given as the host's");
    broken.by(cuda.cuMemcpyDtoH_v2(0, at, 16), 1, "the host's address is null");
    broken.by(cuda.cuMemcpyDtoD_v2(at, 0, 16), 1, "is no device memory");
    broken.by(cuda.cuMemsetD8_v2(at + 1, 0, 4096), 1, "4096 bytes from byte 1 on");
    broken.by(cuda.cuMemsetD32_v2(at + 2, 0, 4), 1, "is not aligned to 4 bytes");
    broken.by(cuda.cuMemsetD2D8Async(at, 64, 0, 65, 2, 0), 1, "a pitch of 64 for rows of 65 bytes");
    broken.by(cuda.cuMemsetD2D8Async(at, 1024, 0, 1000, 5, 0), 1, "5096 bytes from byte 0 on");
    let pinned = cuda.pinned(64);
    broken.by(cuda.cuMemcpyHtoDAsync_v2(at, pinned, 65, 0), 1, "65 bytes from byte 0 on, of an allocation of 64");
    assert_eq!(cuda.cuMemcpyHtoD_v2(at, from, 0), 0, "nothing is always possible");
    let rows = |from: Side, to: Side, width, height| {
        let what = Memcpy2D { from, to, width, height };
        (cuda.cuMemcpy2D_v2(&raw const what), cuda.cuMemcpy2DAsync_v2(&raw const what, 0))
    };
    let mut both = |(now, later), code, words: &str| {
        assert_eq!((now, later), (code, code), "{words}");
        broken.seen += 1;
        broken.said(words);
    };
    both(rows(Side::host(from, 100), Side::device(at, 512), 101, 2), 1, "a pitch of 100 for rows of 101 bytes");
    both(rows(Side::host(from, 512), Side::device(at, 100), 101, 2), 1, "a pitch of 100");
    let beyond = Side { x: 412, ..Side::host(from, 512) };
    both(rows(beyond, Side::device(at, 512), 101, 2), 1, "for rows of 101 bytes from byte 412 on");
    both(rows(Side::host(from, 512), Side::device(at, 512), 100, 9), 1, "4196 bytes from byte 0 on");
    let below = Side { y: 7, ..Side::device(at, 512) };
    both(rows(Side::host(from, 512), below, 100, 2), 1, "612 bytes from byte 3584 on");
    both(rows(Side { kind: 3, ..Side::host(from, 512) }, Side::device(at, 512), 10, 1), 801, "memory of type 3");
    // What is allowed: rows that end where the memory ends, from inside to inside.
    let inside = Side { x: 412, y: 6, ..Side::device(at, 512) };
    assert_eq!(cuda.cuMemsetD8_v2(at, 1, 4096), 0);
    assert_eq!(rows(Side { x: 1, ..Side::host(from, 101) }, inside, 100, 2), (0, 0));
    let bytes = cuda.read(at, 4096);
    let copied = |n: usize| n / 512 >= 6 && n % 512 >= 412;
    let wrong = bytes.iter().enumerate().find(|(n, byte)| **byte != if copied(*n) { 7 } else { 1 });
    assert_eq!(wrong, None);
}

#[test]
#[ignore = "run in a process of its own by what_a_caller_may_not_do_is_refused_and_told"]
fn freed_early() {
    let cuda = Cuda::start(&double::folder());
    let mut broken = Broken { seen: 0 };
    let (held, free) = (cuda.stream(), cuda.stream());
    let gate = crate::raw::Gate::close(&cuda, held);
    let pooled = made(|at| cuda.cuMemAllocAsync(at, 64, free));
    assert_eq!(cuda.cuMemsetD8Async(pooled, 1, 64, held), 0);
    // In the order of a stream that does not know of the other's work.
    assert_eq!(cuda.cuMemFreeAsync(pooled, free), 0);
    broken.by(cuda.cuMemsetD8Async(pooled, 1, 64, held), 1, "freed");
    assert_eq!(cuda.cuStreamSynchronize(free), 0);
    gate.open();
    broken.by(cuda.cuStreamSynchronize(held), 700, "was freed before the stream came to it");
    assert_eq!(cuda.cuCtxSynchronize(), 700, "the context is gone");
}

extern "C" fn calls_the_driver(cuda: *mut c_void) {
    assert_eq!(crate::raw::of(cuda).cuInit(0), 800);
}

#[test]
#[ignore = "run in a process of its own by what_a_caller_may_not_do_is_refused_and_told"]
fn callbacks() {
    let cuda = Cuda::start(&double::folder());
    let at = std::ptr::from_ref(&cuda).cast_mut().cast();
    assert_eq!(cuda.cuLaunchHostFunc(0, calls_the_driver, at), 0);
    Broken { seen: 0 }.by(cuda.cuCtxSynchronize(), 0, "cuInit: called from a host function");
}

#[test]
fn an_access_beside_an_allocation_ends_the_process_there_and_then() {
    let driver = Driver::new();
    for (beside, segment) in [("behind", "behind the last byte"), ("before", "before"), ("after_free", "freed")] {
        let out = driver.command(&format!("contracts::{beside}")).output().unwrap();
        assert_eq!(out.status.signal(), Some(11), "{segment}: {out:?}");
        assert!(String::from_utf8_lossy(&out.stdout).contains("reaching"), "{out:?}");
    }
}

#[test]
#[ignore = "run in a process of its own by an_access_beside_an_allocation_ends_the_process_there_and_then"]
fn behind() {
    let at = Cuda::start(&double::folder()).memory(4096);
    poke(at + 4095, 1);
    println!("reaching");
    poke(at + 4096, 1);
}

#[test]
#[ignore = "run in a process of its own by an_access_beside_an_allocation_ends_the_process_there_and_then"]
fn before() {
    let at = Cuda::start(&double::folder()).memory(1 << 20);
    peek(at);
    println!("reaching");
    peek(at - 1);
}

#[test]
#[ignore = "run in a process of its own by an_access_beside_an_allocation_ends_the_process_there_and_then"]
fn after_free() {
    let cuda = Cuda::start(&double::folder());
    let at = cuda.memory(64);
    peek(at);
    assert_eq!(cuda.cuMemFree_v2(at), 0);
    println!("reaching");
    peek(at);
}

#[test]
fn who_writes_to_what_an_encoder_has_mapped_is_told() {
    let driver = Driver::new();
    driver.pass("contracts::mapped");
    let said = driver.broken();
    assert_eq!(said.len(), 5, "{said:?}");
}

#[test]
#[ignore = "run in a process of its own by who_writes_to_what_an_encoder_has_mapped_is_told"]
fn mapped() {
    let cuda = Cuda::start(&double::folder());
    let mut broken = Broken { seen: 0 };
    let (stream, at, other) = (cuda.stream(), cuda.memory(4096), cuda.memory(4096));
    assert_eq!(cuda.rung_double_lock(4096, 1), 1, "that is no memory");
    // Written before and after, read meanwhile: as it should be.
    assert_eq!((cuda.cuMemsetD8Async(at, 1, 4096, stream), cuda.cuStreamSynchronize(stream)), (0, 0));
    assert_eq!(cuda.rung_double_lock(at, 1), 0);
    assert_eq!(cuda.cuMemcpyDtoDAsync_v2(other, at, 4096, stream), 0);
    assert_eq!((cuda.cuStreamSynchronize(stream), cuda.rung_double_lock(at, -1)), (0, 0));
    assert_eq!((cuda.cuMemsetD8Async(at, 2, 4096, stream), cuda.cuStreamSynchronize(stream)), (0, 0));
    assert_eq!(sentences(), Vec::<String>::new());
    // A fill that was asked for before the memory was mapped, and that nobody waited for.
    let gate = crate::raw::Gate::close(&cuda, stream);
    assert_eq!(cuda.cuMemsetD8Async(at, 3, 4096, stream), 0);
    assert_eq!(cuda.rung_double_lock(at + 100, 1), 0);
    gate.open();
    broken.by(cuda.cuStreamSynchronize(stream), 0, "cuMemsetD8Async: writes to memory at");
    assert_eq!(cuda.rung_double_lock(at, -1), 0);
    broken.said("4096 bytes were written to while they were mapped");
    // What a kernel writes nobody sees when it is written.
    assert_eq!(cuda.rung_double_lock(at, 1), 0);
    poke(at + 4000, 99);
    assert_eq!(cuda.rung_double_lock(at, -1), 0);
    broken.said("4096 bytes were written to while they were mapped");
    assert_eq!(cuda.rung_double_lock(at, -1), 0);
    broken.said("was not locked");
    assert_eq!(cuda.rung_double_lock(at, 1), 0);
    broken.by(cuda.cuMemFree_v2(at), 0, "freed while it is mapped");
}

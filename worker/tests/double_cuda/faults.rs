//! Faults that a test plays, and what a card without room answers.

use crate::double::{self, Driver};
use crate::raw::{Cuda, Gate, address, made, tried};

#[test]
fn a_driver_that_does_not_start_says_why() {
    for code in [100, 803, 999] {
        let driver = Driver::new().fault(&format!("cuda.init code={code}"));
        assert!(driver.pass("faults::init").contains(&format!("cuInit answered {code},")));
    }
    assert!(Driver::new().gpus(0).pass("faults::init").contains("cuInit answered 100,"));
    let late = Driver::new().fault("cuda.init sleep=30 times=1");
    assert!(late.pass("faults::init").contains("cuInit answered 0,"));
    assert_eq!(late.count("faults played"), 1);
}

#[test]
#[ignore = "run in a process of its own by a_driver_that_does_not_start_says_why"]
fn init() {
    let cuda = Cuda::open(&double::folder());
    println!("cuInit answered {}, version {}", cuda.cuInit(0), made(|version| cuda.cuDriverGetVersion(version)));
}

#[test]
fn memory_ends_where_the_settings_say() {
    let driver = Driver::new().gpus(2).setting("gpu0.memory_mb", 16).fault("cuda.alloc code=2 after=5 times=1");
    driver.pass("faults::out_of_memory");
    driver.assert_clean();
}

#[test]
#[ignore = "run in a process of its own by memory_ends_where_the_settings_say"]
fn out_of_memory() {
    let cuda = Cuda::start(&double::folder());
    let free = || {
        let mut total = 0;
        (made(|free| cuda.cuMemGetInfo_v2(free, &raw mut total)), total)
    };
    assert_eq!(free(), (16 << 20, 16 << 20));
    let half = cuda.memory(8 << 20);
    assert_eq!(tried(|at| cuda.cuMemAlloc_v2(at, (8 << 20) + 1)), 2, "one byte more than there is");
    let mut pitch = 0;
    let other = made(|at| cuda.cuMemAllocPitch_v2(at, &raw mut pitch, 512, 16 << 10, 16));
    assert_eq!((free(), tried(|at| cuda.cuMemAlloc_v2(at, 1))), ((0, 16 << 20), 2));
    assert_eq!(tried(|at| cuda.cuMemAllocPitch_v2(at, &raw mut pitch, usize::MAX, 2, 16)), 2);
    // The other card has room of its own; there the fault is due.
    let ours = made(|context| cuda.cuCtxGetCurrent(context));
    let theirs = made(|context| cuda.cuDevicePrimaryCtxRetain(context, 1));
    assert_eq!(cuda.cuCtxSetCurrent(theirs), 0);
    assert_eq!(tried(|at| cuda.cuMemAlloc_v2(at, 16)), 2);
    let room = cuda.memory(32 << 20);
    assert_eq!((cuda.cuMemFree_v2(room), cuda.cuDevicePrimaryCtxRelease_v2(1)), (0, 0));
    assert_eq!((cuda.cuCtxSetCurrent(ours), cuda.cuMemFree_v2(half)), (0, 0));
    assert_eq!(free(), (8 << 20, 16 << 20));
    assert_eq!((cuda.cuMemFree_v2(other), cuda.cuDevicePrimaryCtxRelease_v2(0)), (0, 0));
}

#[test]
fn a_sticky_error_takes_the_context_with_all_that_is_in_it() {
    for (point, code) in [("launch", 700), ("launch", 719), ("launch", 214), ("copy", 700), ("sync", 999)] {
        let driver = Driver::new().fault(&format!("cuda.{point} code={code} times=1 after=1"));
        let said = driver.pass(&format!("faults::sticky_{point}"));
        assert!(said.contains(&format!("answered {code} from then on")), "{said}");
        let counts = driver.counts();
        let left = ["live contexts", "live allocations", "live streams", "live events", "contexts failed"];
        assert_eq!(left.map(|what| counts[what]), [1; 5], "{code}: {counts:?}");
        assert_eq!(driver.broken(), Vec::<String>::new());
    }
}

/// Everything answers `code`; what only names the context goes on.
fn gone(cuda: &Cuda, stream: u64, event: u64, at: u64) {
    let code = cuda.cuStreamSynchronize(stream);
    assert_ne!(code, 0);
    let answers = [
        cuda.cuCtxSynchronize(),
        cuda.cuMemFree_v2(at),
        tried(|at| cuda.cuMemAlloc_v2(at, 16)),
        cuda.cuMemsetD8_v2(at, 0, 1),
        cuda.cuEventQuery(event),
        cuda.cuEventDestroy_v2(event),
        cuda.cuStreamDestroy_v2(stream),
        tried(|module| cuda.cuModuleLoadData(module, c"".as_ptr())),
        cuda.cuDevicePrimaryCtxRelease_v2(0),
        tried(|context| cuda.cuDevicePrimaryCtxRetain(context, 0)),
    ];
    assert_eq!(answers, [code; 10]);
    let context = made(|context| cuda.cuCtxGetCurrent(context));
    assert_eq!((cuda.cuCtxSetCurrent(context), made(|count| cuda.cuDeviceGetCount(count))), (0, 1));
    println!("answered {code} from then on");
}

#[test]
#[ignore = "run in a process of its own by a_sticky_error_takes_the_context_with_all_that_is_in_it"]
fn sticky_launch() {
    let cuda = Cuda::start(&double::folder());
    let (stream, event, at) = (cuda.stream(), cuda.event(), cuda.memory(8192));
    let module = made(|module| cuda.cuModuleLoadData(module, crate::modules::ptx().as_ptr()));
    let hash = made(|hash| cuda.cuModuleGetFunction(hash, module, c"rung_frame_hash".as_ptr()));
    assert_eq!(cuda.cuMemsetD8Async(at, 0, 8192, stream), 0);
    let gate = Gate::close(&cuda, stream);
    for _ in 0..2 {
        assert_eq!(crate::modules::launch(&cuda, hash, stream, at), 0, "the launch itself is taken");
    }
    assert_eq!(cuda.cuEventRecord(event, stream), 0);
    assert_eq!(cuda.cuEventQuery(event), 600, "nobody knows yet");
    gate.open();
    gone(&cuda, stream, event, at);
}

#[test]
#[ignore = "run in a process of its own by a_sticky_error_takes_the_context_with_all_that_is_in_it"]
fn sticky_copy() {
    let cuda = Cuda::start(&double::folder());
    let (stream, event, at) = (cuda.stream(), cuda.event(), cuda.memory(64));
    assert_eq!(cuda.cuMemsetD8Async(at, 1, 64, stream), 0);
    assert_eq!(cuda.cuMemcpyHtoD_v2(at, address(&[1_u8; 64]), 64), 700, "this one waits for itself");
    gone(&cuda, stream, event, at);
}

#[test]
#[ignore = "run in a process of its own by a_sticky_error_takes_the_context_with_all_that_is_in_it"]
fn sticky_sync() {
    let cuda = Cuda::start(&double::folder());
    let (stream, event, at) = (cuda.stream(), cuda.event(), cuda.memory(64));
    assert_eq!(cuda.cuCtxSynchronize(), 0);
    assert_eq!(cuda.cuEventSynchronize(event), 999);
    gone(&cuda, stream, event, at);
}

#[test]
fn an_error_that_is_not_sticky_is_answered_once() {
    let driver = Driver::new().fault("cuda.launch code=701 times=1").fault("cuda.copy code=1 times=1");
    let driver = driver.fault("cuda.pinned code=2 times=1").fault("cuda.sync code=46 times=1");
    driver.fault("cuda.launch sleep=40 times=1").pass("faults::passing");
}

#[test]
#[ignore = "run in a process of its own by an_error_that_is_not_sticky_is_answered_once"]
fn passing() {
    let cuda = Cuda::start(&double::folder());
    let (stream, at) = (cuda.stream(), cuda.memory(8192));
    let module = made(|module| cuda.cuModuleLoadData(module, crate::modules::ptx().as_ptr()));
    let hash = made(|hash| cuda.cuModuleGetFunction(hash, module, c"rung_frame_hash".as_ptr()));
    let fill = || cuda.cuMemsetD8Async(at, 0, 8192, stream);
    assert_eq!([fill(), fill(), cuda.cuStreamSynchronize(stream), cuda.cuStreamSynchronize(stream)], [1, 0, 46, 0]);
    assert_eq!(tried(|at| cuda.cuMemHostAlloc(at, 16, 0)), 2);
    assert_eq!(crate::modules::launch(&cuda, hash, stream, at), 701);
    // The one that takes its time holds up the stream, not the caller.
    let launched = crate::modules::launch(&cuda, hash, stream, at);
    assert_eq!((launched, cuda.cuStreamQuery(stream)), (0, 600));
    assert_eq!((cuda.cuStreamSynchronize(stream), cuda.cuStreamQuery(stream)), (0, 0));
    let answers = [cuda.cuModuleUnload(module), cuda.cuMemFree_v2(at), cuda.cuStreamDestroy_v2(stream)];
    assert_eq!((answers, cuda.cuDevicePrimaryCtxRelease_v2(0)), ([0; 3], 0));
}

#[test]
fn a_card_that_is_lost_answers_nothing_any_more() {
    let driver = Driver::new().fault("cuda.lost code=999 after=3 times=1");
    driver.pass("faults::lost");
    assert_eq!(driver.broken(), Vec::<String>::new());
}

#[test]
#[ignore = "run in a process of its own by a_card_that_is_lost_answers_nothing_any_more"]
fn lost() {
    let cuda = Cuda::start(&double::folder());
    let context = tried(|context| cuda.cuCtxGetCurrent(context));
    let count = tried(|count| cuda.cuDeviceGetCount(count));
    assert_eq!([context, count, cuda.cuInit(0), cuda.cuCtxSynchronize()], [999; 4]);
    // What needs no card goes on.
    assert_eq!(tried(|version| cuda.cuDriverGetVersion(version)), 0);
}

#[test]
fn a_fault_is_played_into_a_process_that_runs() {
    let driver = Driver::new();
    driver.pass("faults::played_later");
}

#[test]
#[ignore = "run in a process of its own by a_fault_is_played_into_a_process_that_runs"]
fn played_later() {
    let cuda = Cuda::start(&double::folder());
    // This process is the one that plays, too: the settings are a file.
    let settings = std::env::var_os("RUNG_DOUBLE").unwrap();
    let at = cuda.memory(16);
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}fault cuda.alloc code=2\n")).unwrap();
    let file = std::fs::File::options().append(true).open(&settings).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).unwrap();
    assert_eq!((tried(|at| cuda.cuMemAlloc_v2(at, 16)), cuda.cuMemFree_v2(at)), (2, 0));
}

//! The daemon's watch over the GPUs with the real monitor and the driver's double: it is replaced when it hangs or dies,
//! and nobody waits for it.

#[path = "support/double.rs"]
mod double;

use double::Driver;
use rung::pipeline::gpus::{GpuEvent, GpuHealth, GpuView, GpuWatch, Gpus, MonitorState, Tuning};
use rung::pixels::monitor::Launch;
use rung::time::{Mono, SystemClock};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// However loaded the machine is.
const DEADLINE: Duration = Duration::from_secs(60);

/// Short waits; the monitor itself is the real one and reports once a second.
fn quick() -> Tuning {
    Tuning {
        silence: Duration::from_secs(3),
        retry: Duration::from_millis(100),
        retry_max: Duration::from_millis(400),
        look: Duration::from_millis(700),
        look_max: Duration::from_secs(1),
        recover: Duration::from_secs(2),
        ..Tuning::default()
    }
}

/// A program that starts the real monitor with the double's environment and a log of the test's own.
struct Stage {
    folder: tempfile::TempDir,
    launch: Launch,
}

impl Stage {
    fn new(driver: &Driver) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let mut environment = Command::new("true");
        driver.env(&mut environment);
        let mut script = format!("#!/bin/sh\necho $$ >> {at}/pids\n");
        for (name, value) in environment.get_envs() {
            script += &format!("export {}='{}'\n", name.display(), value.unwrap().display());
        }
        script += &format!("exec {} \"$@\" --kernel-log {at}/kmsg\n", env!("CARGO_BIN_EXE_rung-worker"));
        fs::write(folder.path().join("kmsg"), "").unwrap();
        fs::write(folder.path().join("text"), script).unwrap();
        // Written by another process: a program that any process has open for writing can not be started.
        let copy = format!("cat {at}/text > {at}/monitor && chmod +x {at}/monitor");
        assert!(Command::new("sh").args(["-c", &copy]).status().unwrap().success());
        let launch =
            Launch { program: folder.path().join("monitor"), driver_folder: Some(driver.folder()), kernel_log: None };
        Stage { folder, launch }
    }

    fn watch(&self, tuning: Tuning) -> GpuWatch {
        GpuWatch::start(self.launch.clone(), tuning, BTreeMap::new()).unwrap()
    }

    /// Every monitor that was started, in order.
    fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.folder.path().join("pids")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    fn kernel_says(&self, line: &str) {
        let mut file = fs::File::options().append(true).open(self.folder.path().join("kmsg")).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = SystemClock::mono() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(SystemClock::mono() < until, "{what}: not within {DEADLINE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The first GPU, when it was read after `since` and is in that health.
fn read_since(gpus: &Gpus, since: Mono, fits: impl Fn(&GpuHealth) -> bool) -> Option<GpuView> {
    let gpu = gpus.snapshot().gpus.first()?.clone();
    (gpu.read_at.is_some_and(|at| at > since) && fits(&gpu.health)).then_some(gpu)
}

fn any_health(_: &GpuHealth) -> bool {
    true
}

fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[test]
fn a_hung_monitor_is_replaced_and_nobody_waits_for_it() {
    let mut driver = Driver::new().setting("gpu0.name", "NVIDIA L4").setting("gpu0.encoder", 37);
    let stage = Stage::new(&driver);
    let watch = stage.watch(quick());
    let gpus = watch.gpus();
    let gpu = wait("a reading", || read_since(&gpus, Mono(0), any_health));
    assert_eq!((gpu.name.as_str(), gpu.values.unwrap().encoder), ("NVIDIA L4", Some(37)));
    assert!(matches!(gpus.poll(), Some(GpuEvent::Found { .. })));
    let hung = stage.pids()[0];
    driver.play("ml.call hang");
    let began = SystemClock::mono();
    let mut longest = Duration::ZERO;
    wait("a successor", || {
        let before = SystemClock::mono();
        assert!(gpus.poll().is_none());
        assert_eq!(gpus.snapshot().gpus[0].health, GpuHealth::Ok, "a monitor that hangs says nothing of the card");
        longest = longest.max(SystemClock::mono() - before);
        (stage.pids().len() > 1).then_some(())
    });
    let after = SystemClock::mono() - began;
    assert!(after > Duration::from_secs(2), "replaced after {after:?}, before it was silent for long");
    assert!(longest < Duration::from_millis(200), "somebody waited for {longest:?}");
    wait("the hung one's end", || is_gone(hung).then_some(()));
    // Its successor hangs at its start; then the driver comes to itself.
    driver.heal();
    let last = *stage.pids().last().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(last.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
    let since = SystemClock::mono();
    wait("a reading of the successor", || read_since(&gpus, since, any_health));
    assert_eq!(gpus.snapshot().monitor, MonitorState::Watching);
    let pids = stage.pids();
    drop(watch);
    wait("the last one's end", || pids.iter().all(|pid| is_gone(*pid)).then_some(()));
}

#[test]
fn what_the_kernel_says_while_the_monitor_is_replaced_is_not_lost() {
    let driver = Driver::new();
    let stage = Stage::new(&driver);
    let watch = stage.watch(quick());
    let gpus = watch.gpus();
    wait("a reading", || read_since(&gpus, Mono(0), any_health));
    while gpus.poll().is_some() {}
    stage.kernel_says("usb 1-1: a line that the first one reads");
    let since = SystemClock::mono();
    wait("a report behind that line", || read_since(&gpus, since, any_health));
    let pid = stage.pids()[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
    stage.kernel_says("NVRM: Xid (PCI:0000:01:00): 94, pid=77, name=rung-worker, Contained");
    let event = wait("the event", || gpus.poll());
    assert!(
        matches!(&event, GpuEvent::RestartWorkers { pid: Some(77), why, .. } if why.contains("Xid 94")),
        "{event:?}"
    );
    wait("a second monitor", || (stage.pids().len() == 2).then_some(()));
    assert_eq!(gpus.snapshot().gpus[0].health, GpuHealth::Ok);
}

#[test]
fn without_a_driver_there_is_no_restart_loop_and_one_that_appears_is_found() {
    let driver = Driver::new().without("libnvidia-ml.so.1");
    let stage = Stage::new(&driver);
    // As the product waits: no second try within this test.
    let patient = stage.watch(Tuning::default());
    let told = wait("the word", || match &patient.gpus().snapshot().monitor {
        MonitorState::Unavailable { what } => Some(what.clone()),
        _ => None,
    });
    assert!(told.contains("no libnvidia-ml.so.1") && told.contains("no GPU is watched"), "{told}");
    std::thread::park_timeout(Duration::from_millis(1_500));
    assert_eq!(stage.pids().len(), 1);
    drop(patient);

    let watch = stage.watch(quick());
    let gpus = watch.gpus();
    wait("two tries", || (stage.pids().len() > 2).then_some(()));
    assert_eq!((gpus.poll(), gpus.snapshot().gpus.len()), (None, 0));
    let installed = Driver::new();
    let library = installed.folder().join("libnvidia-ml.so.1").canonicalize().unwrap();
    symlink(library, driver.folder().join("libnvidia-ml.so.1")).unwrap();
    wait("a reading", || read_since(&gpus, Mono(0), any_health));
    assert!(matches!(gpus.poll(), Some(GpuEvent::Found { .. })));
    assert_eq!(gpus.snapshot().monitor, MonitorState::Watching);
}

#[test]
fn a_mismatch_is_no_reason_to_try_again_and_again() {
    let driver = Driver::new().fault("ml.init code=18");
    let stage = Stage::new(&driver);
    let watch = stage.watch(Tuning::default());
    let told = wait("the word", || match &watch.gpus().snapshot().monitor {
        MonitorState::Unavailable { what } => Some(what.clone()),
        _ => None,
    });
    assert!(told.contains("reboot this machine"), "{told}");
    std::thread::park_timeout(Duration::from_secs(2));
    assert_eq!(stage.pids().len(), 1);
}

#[test]
fn a_lost_card_is_condemned_at_once_and_comes_back_when_it_has_been_well_for_a_while() {
    let mut driver = Driver::new();
    let stage = Stage::new(&driver);
    let watch = stage.watch(quick());
    let gpus = watch.gpus();
    wait("a reading", || read_since(&gpus, Mono(0), any_health));
    while gpus.poll().is_some() {}
    driver.play("ml.device code=15");
    let event = wait("the loss", || gpus.poll());
    assert!(matches!(event, GpuEvent::Lost { .. }), "{event:?}");
    let gpu = gpus.snapshot().gpus[0].clone();
    assert!(matches!(gpu.health, GpuHealth::Lost { .. }) && gpu.values.is_none(), "{gpu:?}");
    driver.heal();
    let healed = SystemClock::mono();
    let event = wait("its recovery", || gpus.poll());
    assert!(matches!(event, GpuEvent::Recovered { .. }), "{event:?}");
    assert!(SystemClock::mono() - healed > Duration::from_secs(2), "too early to be believed");
    assert_eq!(gpus.snapshot().gpus[0].health, GpuHealth::Ok);
    assert!(stage.pids().len() > 1, "only a fresh NVML finds it again");
}

#[test]
fn a_program_that_is_not_there_is_told_with_its_name() {
    let launch = Launch { program: PathBuf::from("/nowhere/rung-worker"), ..Launch::default() };
    let watch = GpuWatch::start(launch, quick(), BTreeMap::new()).unwrap();
    let why = wait("the word", || match &watch.gpus().snapshot().monitor {
        MonitorState::Restarting { why } => Some(why.clone()),
        _ => None,
    });
    assert!(why.contains("/nowhere/rung-worker"), "{why}");
}

//! `rung-worker --monitor` against the driver's double: what it tells, at once and every second, and how it ends.

#[path = "support/double.rs"]
mod double;

use double::Driver;
use rung::pixels::health::{
    Answer, FromMonitor, GpuFault, GpuValues, KernelLog, Opened, PciAddress, Remedy, Throttle, Unavailable, What,
};
use rung::pixels::protocol::Decoder;
use rung::time::{Mono, SystemClock};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// However loaded the machine is.
const DEADLINE: Duration = Duration::from_secs(60);

/// A monitor started by hand, as the daemon starts it.
struct Monitor {
    child: Child,
    socket: UnixStream,
    decoder: Decoder,
    log: Vec<FromMonitor>,
    folder: tempfile::TempDir,
}

impl Monitor {
    /// The kernel's log is a file of the test's, with a line from before.
    fn start(driver: &Driver) -> Monitor {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kmsg"), "NVRM: Xid (PCI:0000:01:00): 31, from before\n").unwrap();
        let log = folder.path().join("kmsg");
        Monitor::start_with(driver, folder, &["--kernel-log".as_ref(), log.as_os_str()])
    }

    fn start_with(driver: &Driver, folder: tempfile::TempDir, more: &[&OsStr]) -> Monitor {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 </dev/null", env!("CARGO_BIN_EXE_rung-worker")]);
        command.args(["--monitor", "--driver-folder"]).arg(driver.folder()).args(more);
        driver.env(&mut command);
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
        ours.set_read_timeout(Some(DEADLINE)).unwrap();
        Monitor { child, socket: ours, decoder: Decoder::default(), log: Vec::new(), folder }
    }

    /// Reads until `fits` finds something in a message.
    fn wait<T>(&mut self, what: &str, fits: impl Fn(&FromMonitor) -> Option<T>) -> T {
        let until = SystemClock::mono() + DEADLINE;
        let mut bytes = [0; 4096];
        loop {
            while let Some(message) = self.decoder.pop::<FromMonitor>().unwrap() {
                let found = fits(&message);
                self.log.push(message);
                if let Some(found) = found {
                    return found;
                }
            }
            assert!(SystemClock::mono() < until, "{what}: not within {DEADLINE:?}; {:?}", self.log);
            let n = self.socket.read(&mut bytes).unwrap();
            assert!(n > 0, "{what}: the monitor is gone; {:?}", self.log);
            self.decoder.push(&bytes[..n]);
        }
    }

    fn opened(&mut self) -> Opened {
        self.wait("opened", |m| match m {
            FromMonitor::Opened(opened) => Some((**opened).clone()),
            _ => None,
        })
    }

    fn fault(&mut self) -> GpuFault {
        self.wait("a fault", |m| match m {
            FromMonitor::Fault(fault) => Some(fault.clone()),
            _ => None,
        })
    }

    /// The answer of GPU `index` that fits.
    fn answer(&mut self, index: usize, fits: impl Fn(&Answer) -> bool) -> Answer {
        self.wait("an answer", |m| match m {
            FromMonitor::Report { gpus, .. } => Some(gpus[index].answer.clone()).filter(&fits),
            _ => None,
        })
    }

    fn values(&mut self, fits: impl Fn(&GpuValues) -> bool) -> GpuValues {
        match self.answer(0, |answer| matches!(answer, Answer::Values(values) if fits(values))) {
            Answer::Values(values) => *values,
            other => panic!("{other:?}"),
        }
    }

    fn unavailable(&mut self) -> (Unavailable, String) {
        self.wait("unavailable", |m| match m {
            FromMonitor::Unavailable { why, what } => Some((*why, what.clone())),
            _ => None,
        })
    }

    fn kernel_says(&self, line: &str) {
        let path = self.folder.path().join("kmsg");
        let mut file = fs::File::options().append(true).open(path).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Closes our end and waits for its exit.
    fn hang_up(&mut self) -> ExitStatus {
        // Fails only if it is gone already.
        drop(self.socket.shutdown(std::net::Shutdown::Both));
        self.exit()
    }

    fn exit(&mut self) -> ExitStatus {
        let until = SystemClock::mono() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(SystemClock::mono() < until, "the monitor stays");
            std::thread::yield_now();
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn pci(text: &str) -> PciAddress {
    text.parse().unwrap()
}

#[test]
fn cards_and_values_are_told_every_second_and_follow_what_changes() {
    let mut driver = Driver::new()
        .gpus(2)
        .setting("driver", "550.54.14")
        .setting("gpu0.name", "NVIDIA L4")
        .setting("gpu0.pci", "0000:3b:00.0")
        .setting("gpu0.uuid", "GPU-1")
        .setting("gpu0.memory_mb", 23_034)
        .setting("gpu0.used_mb", 512)
        .setting("gpu0.utilization", 12)
        .setting("gpu0.encoder", 37)
        .setting("gpu0.decoder", 45)
        .setting("gpu0.temperature", 61)
        .setting("gpu0.power", 71_500)
        .setting("gpu0.clock", 2_040)
        .setting("gpu0.video_clock", 1_770)
        .setting("gpu0.throttle", 0x8 | 0x40 | 0x4)
        .setting("gpu0.sessions", 5)
        .setting("gpu0.session_fps", 30)
        .setting("gpu0.corrected", 3)
        .setting("gpu0.uncorrected", 1)
        .setting("gpu0.retired", 2)
        .setting("gpu0.pending", 1)
        .setting("gpu0.replays", 9)
        .setting("gpu1.encoder", "none")
        .setting("gpu1.sessions", "none")
        .setting("gpu1.corrected", "none");
    let mut monitor = Monitor::start(&driver);
    let opened = monitor.opened();
    assert_eq!((opened.driver.as_str(), opened.nvml.as_str()), ("550.54.14", "12.550.54.14"));
    assert_eq!((opened.cuda, opened.closed.len(), opened.gpus.len()), (Some(12_020), 0, 2));
    let card = &opened.gpus[0];
    assert_eq!((card.index, card.pci, card.name.as_str()), (0, pci("0000:3b:00"), "NVIDIA L4"));
    assert_eq!((card.uuid.as_str(), card.memory_bytes, card.persistent), ("GPU-1", 23_034 << 20, Some(true)));
    assert!(opened.sandbox.starts_with("sandbox: seccomp allows"), "{}", opened.sandbox);
    let values = monitor.values(|_| true);
    let expected = GpuValues {
        utilization: Some(12),
        encoder: Some(37),
        decoder: Some(45),
        memory_used_bytes: Some(512 << 20),
        memory_total_bytes: Some(23_034 << 20),
        temperature_celsius: Some(61),
        power_milliwatts: Some(71_500),
        clock_mhz: Some(2_040),
        video_clock_mhz: Some(1_770),
        throttled: vec![Throttle::Power, Throttle::Hot],
        encoder_sessions: Some(5),
        encoder_fps: Some(30),
        ecc_corrected: Some(3),
        ecc_uncorrected: Some(1),
        retired_pages: Some(2),
        pages_pending: Some(true),
        pcie_replays: Some(9),
    };
    assert_eq!(values, expected);
    let Answer::Values(other) = monitor.answer(1, |_| true) else { panic!("GPU 1 answers") };
    assert_eq!((other.encoder, other.encoder_sessions, other.ecc_corrected), (None, None, None));
    assert_eq!((other.decoder, other.temperature_celsius), (Some(0), Some(40)));
    driver.set("gpu0.encoder", 91);
    let before = SystemClock::mono();
    monitor.values(|values| values.encoder == Some(91));
    monitor.values(|_| true);
    let two = SystemClock::mono() - before;
    assert!(two > Duration::from_millis(500), "a report a second, not {two:?} for two");
    assert_eq!(monitor.hang_up().code(), Some(0));
    driver.assert_clean();
}

#[test]
fn events_and_the_kernel_s_lines_are_told_at_once_and_each_once() {
    let mut driver = Driver::new().gpus(2);
    let mut monitor = Monitor::start(&driver);
    monitor.opened();
    monitor.values(|_| true);
    let told = |monitor: &mut Monitor, since: Mono| {
        let fault = monitor.fault();
        // A report comes once a second: this does not wait for one.
        let after = SystemClock::mono() - since;
        assert!(after < Duration::from_secs(3), "{fault:?} after {after:?}");
        (fault.gpu, fault.what, fault.remedy, fault.pid)
    };
    let since = SystemClock::mono();
    driver.set("event", "1:xid:94");
    let contained = (pci("0000:02:00"), What::Xid(94), Remedy::RestartWorkers, None);
    assert_eq!(told(&mut monitor, since), contained);
    driver.set("event", "0:double");
    let double = (pci("0000:01:00"), What::DoubleBit, Remedy::DrainAndReset, None);
    assert_eq!(told(&mut monitor, SystemClock::mono()), double);
    driver.set("event", "0:single");
    assert_eq!(told(&mut monitor, SystemClock::mono()).1, What::SingleBit);
    // The kernel's word for what NVML told, then something new: the first is not told again.
    monitor.kernel_says("NVRM: Xid (PCI:0000:02:00): 94, pid=77, name=rung-worker, Contained error");
    monitor.kernel_says("usb 1-1: new device");
    monitor.kernel_says("NVRM: Xid (PCI:0000:02:00): 31, pid=77, name=rung-worker, MMU Fault");
    let fault = (pci("0000:02:00"), What::Xid(31), Remedy::RestartWorkers, Some(77));
    assert_eq!(told(&mut monitor, SystemClock::mono()), fault);
    monitor.kernel_says("NVRM: The NVIDIA GPU 0000:01:00.0");
    monitor.kernel_says("NVRM: (PCI ID: 10de:26b5) installed in this system has");
    monitor.kernel_says("NVRM: fallen off the bus and is not responding to commands.");
    let fallen = (pci("0000:01:00"), What::OffTheBus, Remedy::Reboot, None);
    assert_eq!(told(&mut monitor, SystemClock::mono()), fallen);
    assert!(!monitor.log.iter().any(|m| matches!(m, FromMonitor::Fault(f) if f.text.contains("from before"))));
    assert_eq!(monitor.hang_up().code(), Some(0));
    driver.assert_clean();
}

#[test]
fn a_lost_card_and_one_that_wants_a_reset_are_told_apart_from_those_that_are_well() {
    let mut driver = Driver::new().gpus(3).fault("ml.gpu1 code=15 after=40");
    let mut monitor = Monitor::start(&driver);
    assert_eq!(monitor.opened().gpus.len(), 3);
    assert_eq!(monitor.answer(1, |answer| !matches!(answer, Answer::Values(_))), Answer::Lost);
    driver.play("ml.gpu2 code=16");
    assert_eq!(monitor.answer(2, |answer| !matches!(answer, Answer::Values(_))), Answer::ResetRequired);
    driver.set("gpu0.temperature", "unknown");
    let odd = monitor.answer(0, |answer| !matches!(answer, Answer::Values(_)));
    assert!(matches!(&odd, Answer::Unreadable(what) if what.starts_with("temperature: ")), "{odd:?}");
    driver.set("gpu0.temperature", 50);
    monitor.values(|values| values.temperature_celsius == Some(50));
    assert_eq!(monitor.hang_up().code(), Some(0));
    driver.assert_clean();
}

#[test]
fn a_card_that_can_not_be_opened_does_not_hide_the_others() {
    let driver = Driver::new().gpus(2).fault("ml.gpu0 code=15");
    let mut monitor = Monitor::start(&driver);
    let opened = monitor.opened();
    assert_eq!(opened.gpus.iter().map(|card| card.pci).collect::<Vec<_>>(), [pci("0000:02:00")]);
    assert!(opened.closed[0].contains("GPU 0") && opened.closed[0].contains("fell off the bus"), "{opened:?}");
    monitor.values(|_| true);
    assert_eq!(monitor.hang_up().code(), Some(0));
    driver.assert_clean();
}

#[test]
fn without_a_driver_it_says_so_once_and_ends_well() {
    for (driver, why, part) in [
        (Driver::new().without("libnvidia-ml.so.1"), Unavailable::NoDriver, "no libnvidia-ml.so.1 in"),
        (Driver::new().fault("ml.init code=9"), Unavailable::NoDriver, "kernel module is not loaded"),
        (Driver::new().fault("ml.init code=18"), Unavailable::Mismatch, "reboot this machine"),
        (Driver::new().fault("ml.init code=4"), Unavailable::Refused, "/dev/nvidia*"),
        (Driver::new().gpus(0), Unavailable::NoGpu, "sees no GPU"),
    ] {
        let mut monitor = Monitor::start(&driver);
        let (said, what) = monitor.unavailable();
        assert_eq!(said, why, "{what}");
        assert!(what.contains(part), "{what}");
        assert!(monitor.exit().success(), "{what}");
        assert_eq!(driver.broken(), Vec::<String>::new());
    }
    // What may be better next time is a failure.
    let driver = Driver::new().fault("ml.init code=999");
    let mut monitor = Monitor::start(&driver);
    assert_eq!(monitor.unavailable().0, Unavailable::Failed);
    assert!(!monitor.exit().success());
}

/// A folder as a package leaves it: the name that is asked for links to a file that ends with the version.
fn installed(driver: &Driver, version: &str) {
    let name = driver.folder().join("libnvidia-ml.so.1");
    let library = name.canonicalize().unwrap();
    let file = driver.folder().join(format!("libnvidia-ml.so.{version}"));
    fs::copy(library, &file).unwrap();
    let fresh = driver.folder().join("fresh");
    std::os::unix::fs::symlink(file, &fresh).unwrap();
    fs::rename(fresh, name).unwrap();
}

fn module(folder: &Path, version: &str) -> PathBuf {
    let path = folder.join("version");
    let text = format!("NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Thu Oct 19 18:56:32 UTC 2023\n");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_module_and_libraries_of_two_versions_are_named_with_the_cure() {
    // NVML starts and tells another version than the kernel's.
    let driver = Driver::new().setting("nvml", "12.535.161.07");
    let folder = tempfile::tempdir().unwrap();
    let version = module(folder.path(), "535.129.03");
    let mut monitor = Monitor::start_with(&driver, folder, &["--kernel-module".as_ref(), version.as_os_str()]);
    let (why, what) = monitor.unavailable();
    assert_eq!(why, Unavailable::Mismatch);
    assert!(what.contains("535.129.03") && what.contains("535.161.07") && what.contains("reboot"), "{what}");
    assert!(monitor.exit().success());
    // NVML does not start: its version is known by its file.
    let driver = Driver::new().fault("ml.init code=18");
    installed(&driver, "535.161.07");
    let folder = tempfile::tempdir().unwrap();
    let version = module(folder.path(), "535.129.03");
    let mut monitor = Monitor::start_with(&driver, folder, &["--kernel-module".as_ref(), version.as_os_str()]);
    let (_, what) = monitor.unavailable();
    assert!(what.contains("535.129.03") && what.contains("535.161.07"), "{what}");
}

#[test]
fn an_upgrade_under_a_running_monitor_is_told_while_everything_goes_on() {
    let driver = Driver::new();
    installed(&driver, "535.129.03");
    let folder = tempfile::tempdir().unwrap();
    let version = module(folder.path(), "535.129.03");
    let mut monitor = Monitor::start_with(&driver, folder, &["--kernel-module".as_ref(), version.as_os_str()]);
    monitor.values(|_| true);
    installed(&driver, "535.161.07");
    let what = monitor.wait("the upgrade", |m| match m {
        FromMonitor::Upgraded { what } => Some(what.clone()),
        _ => None,
    });
    assert!(what.contains("535.129.03") && what.contains("535.161.07"), "{what}");
    monitor.values(|_| true);
    assert_eq!(monitor.hang_up().code(), Some(0));
    driver.assert_clean();
}

#[test]
fn a_kernel_log_that_can_not_be_read_is_said_and_nothing_else_is_lost() {
    let driver = Driver::new();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none");
    let mut monitor = Monitor::start_with(&driver, folder, &["--kernel-log".as_ref(), missing.as_os_str()]);
    let said = monitor.wait("hello", |m| match m {
        FromMonitor::Hello { kernel_log, .. } => Some(kernel_log.clone()),
        _ => None,
    });
    assert!(matches!(&said, KernelLog::Closed { what } if what.contains("CAP_SYSLOG")), "{said:?}");
    monitor.values(|_| true);
    assert_eq!(monitor.hang_up().code(), Some(0));
    driver.assert_clean();
}

#[test]
fn while_a_call_hangs_the_kernel_s_word_still_comes_through_and_the_end_is_not_waited_for() {
    let mut driver = Driver::new();
    let mut monitor = Monitor::start(&driver);
    monitor.values(|_| true);
    driver.play("ml.call hang");
    monitor.kernel_says("NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.");
    assert_eq!(monitor.fault().what, What::Xid(79));
    let since = SystemClock::mono();
    assert!(!monitor.hang_up().success(), "NVML was not left in order");
    assert!(SystemClock::mono() - since < Duration::from_secs(10));
}

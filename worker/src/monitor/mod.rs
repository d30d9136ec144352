//! Purpose: watches the machine's GPUs for the daemon: what NVML tells, once a second, and what goes wrong, at once.
//! Time: a report a second is the sign of life; `Mono` only to tell two sources of the same error apart.
//! Invariants: a process of its own, because a call into the driver of a dying card may never return: nothing here is
//! waited for by anyone. It changes nothing on any card. The kernel's log is read by another thread than NVML: it says
//! what killed a card when NVML no longer does.
//! When it fails: without a driver, or with one that cannot be asked, it says so once and ends; a hung call ends it from
//! outside.

mod kernel_log;
mod nvml;
mod versions;
mod xid;

use rung::pixels::health::{self, FromMonitor, GpuFault, Unavailable, VERSION};
use rung::pixels::protocol;
use rung::time::SystemClock;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::sandbox;
use kernel_log::KernelLog;
use xid::{Lines, Once, Source};

/// How the daemon started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the driver's libraries lie; none: where the loader looks.
    pub driver_folder: Option<PathBuf>,
    pub kernel_log: PathBuf,
    /// How far a predecessor read it.
    pub kernel_log_after: Option<u64>,
    /// Where the kernel module tells its version.
    pub kernel_module: PathBuf,
}

impl Settings {
    /// # Errors
    /// A sentence about the argument that is wrong.
    pub fn from_arguments(mut arguments: impl Iterator<Item = OsString>) -> Result<Settings, String> {
        let mut settings = Settings {
            driver_folder: None,
            kernel_log: kernel_log::DEVICE.into(),
            kernel_log_after: None,
            kernel_module: versions::KERNEL_MODULE.into(),
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{} wants a value", name.display()))?;
            match name.to_str() {
                Some("--driver-folder") => settings.driver_folder = Some(value.into()),
                Some("--kernel-log") => settings.kernel_log = value.into(),
                Some("--kernel-module") => settings.kernel_module = value.into(),
                Some("--kernel-log-after") => {
                    let number = value.to_str().and_then(|text| text.parse().ok());
                    settings.kernel_log_after =
                        Some(number.ok_or_else(|| format!("--kernel-log-after {}: write a number", value.display()))?);
                }
                _ => return Err(format!("unknown argument {} of --monitor", name.display())),
            }
        }
        Ok(settings)
    }
}

/// Watches until the daemon's end of `socket` closes, or until there is nothing to watch.
///
/// # Errors
/// A sentence: what another try may do better.
pub fn watch(socket: OwnedFd, settings: &Settings) -> Result<(), String> {
    sandbox::end_with_parent()?;
    let socket = UnixStream::from(socket);
    let to_daemon = socket.try_clone().map_err(|e| format!("monitor socket: {e}"))?;
    let log = KernelLog::open(&settings.kernel_log, settings.kernel_log_after);
    let desk = Arc::new(Desk::new(to_daemon, log.as_ref().ok().map(KernelLog::position)));
    desk.send(&FromMonitor::Hello {
        version: VERSION,
        pid: std::process::id(),
        kernel_log: match &log {
            Ok(log) => health::KernelLog::Read { position: log.position() },
            Err(what) => health::KernelLog::Closed { what: what.clone() },
        },
    });
    let folder = settings.driver_folder.as_deref();
    let (nvml, versions) = match nvml::open(folder, &settings.kernel_module) {
        Ok(opened) => opened,
        Err((why, what)) => {
            desk.send(&FromMonitor::Unavailable { why, what: what.clone() });
            return if why == Unavailable::Failed { Err(what) } else { Ok(()) };
        }
    };
    // What NVML does at its start needs more than what it does from now on: it may load, run and make things.
    let sandbox = sandbox::enter_monitor(folder)?;
    let (ended, end) = sync_channel(1);
    let session = nvml::Session { desk: Arc::clone(&desk), versions, sandbox };
    let run = move || nvml_thread(session, nvml, &ended);
    std::thread::Builder::new().name("nvml".into()).spawn(run).map_err(|e| format!("thread nvml: {e}"))?;
    follow(&socket, log.ok(), &desk, &end)
}

/// The driver's version, as NVML tells it.
pub fn driver_version(folder: Option<&Path>) -> Option<String> {
    let (nvml, _) = nvml::open(folder, versions::KERNEL_MODULE.as_ref()).ok()?;
    nvml.sys_driver_version().ok()
}

fn nvml_thread(session: nvml::Session, nvml: nvml_wrapper::Nvml, ended: &SyncSender<()>) {
    // However this thread ends, the main thread wakes up by its socket.
    let _farewell = Farewell(Arc::clone(&session.desk));
    session.run(nvml);
    // A main thread that no longer listens has given up waiting.
    let _listening = ended.send(());
}

struct Farewell(Arc<Desk>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

/// The main thread: the daemon's end, and the kernel's log.
fn follow(socket: &UnixStream, mut log: Option<KernelLog>, desk: &Desk, ended: &Receiver<()>) -> Result<(), String> {
    let mut lines = Lines::default();
    loop {
        wait(socket, log.as_ref());
        if let Some(log) = &mut log {
            for fault in log.take().iter().filter_map(|line| lines.read(line)) {
                desk.tell(fault, Source::KernelLog);
            }
            desk.position.store(log.position(), Ordering::Relaxed);
        }
        match recv(socket, &mut [0; 64][..], RecvFlags::DONTWAIT) {
            // It has nothing to say.
            Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => break,
        }
    }
    // The daemon is gone: a driver that answers is left in order, one that hangs is left alone.
    desk.stop();
    match ended.recv_timeout(FAREWELL) {
        Ok(()) => Ok(()),
        Err(RecvTimeoutError::Timeout) => Err("NVML does not come back: ended without it".to_owned()),
        Err(RecvTimeoutError::Disconnected) => Err("the thread that asks NVML stopped".to_owned()),
    }
}

fn wait(socket: &UnixStream, log: Option<&KernelLog>) {
    let mut fds = vec![PollFd::new(socket, PollFlags::IN)];
    let readable = log.and_then(KernelLog::readable);
    fds.extend(readable.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
    let look_again = (log.is_some() && readable.is_none())
        .then_some(rustix::time::Timespec { tv_sec: 0, tv_nsec: TEXT_LOG_EVERY.subsec_nanos().into() });
    // An interrupted wait is a wake-up like any other.
    let _woken = poll(&mut fds, look_again.as_ref());
}

/// A log that is a plain file says nothing when it grows.
const TEXT_LOG_EVERY: Duration = Duration::from_millis(100);
const FAREWELL: Duration = Duration::from_secs(1);

/// What the threads share: the way out, and what was told already.
struct Desk {
    socket: Mutex<UnixStream>,
    once: Mutex<Once>,
    log_read: bool,
    position: AtomicU64,
    stopped: Mutex<bool>,
    woken: Condvar,
}

impl Desk {
    fn new(socket: UnixStream, position: Option<u64>) -> Desk {
        Desk {
            socket: Mutex::new(socket),
            once: Mutex::default(),
            log_read: position.is_some(),
            position: AtomicU64::new(position.unwrap_or(0)),
            stopped: Mutex::new(false),
            woken: Condvar::new(),
        }
    }

    /// To the daemon. One that is gone is noticed by the main thread.
    fn send(&self, message: &FromMonitor) {
        let mut bytes = Vec::new();
        protocol::encode(message, &mut bytes);
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        drop(socket.write_all(&bytes));
    }

    /// A fault, unless the other source told it already.
    fn tell(&self, fault: GpuFault, source: Source) {
        let now = SystemClock::mono();
        let mut once = self.once.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = once.is_new(now, fault.gpu, fault.what, source);
        drop(once);
        if is_new {
            self.send(&FromMonitor::Fault(fault));
        }
    }

    fn kernel_log(&self) -> Option<u64> {
        self.log_read.then(|| self.position.load(Ordering::Relaxed))
    }

    fn hang_up(&self) {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails only if it is closed already.
        drop(socket.shutdown(std::net::Shutdown::Both));
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.woken.notify_all();
    }

    /// Waits so long, or until the end. True: it is to end.
    fn pause(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.woken.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Settings, String> {
        Settings::from_arguments(arguments.iter().map(OsString::from))
    }

    #[test]
    fn arguments_are_read_or_named() {
        let plain = read(&[]).unwrap();
        assert_eq!((plain.driver_folder, plain.kernel_log.to_str()), (None, Some("/dev/kmsg")));
        let all =
            ["--driver-folder", "/opt/x", "--kernel-log", "log", "--kernel-log-after", "7", "--kernel-module", "v"];
        let all = read(&all).unwrap();
        assert_eq!((all.driver_folder, all.kernel_log_after), (Some("/opt/x".into()), Some(7)));
        for (arguments, part) in [
            (&["--driver-folder"][..], "wants a value"),
            (&["--kernel-log-after", "x"][..], "write a number"),
            (&["--colour", "x"][..], "unknown argument --colour"),
        ] {
            let what = read(arguments).unwrap_err();
            assert!(what.contains(part), "{what}");
        }
    }
}

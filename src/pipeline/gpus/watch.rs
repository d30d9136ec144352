//! The thread that owns the monitor's process.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::core::{Act, Core, MonitorState, Tuning};
use super::events::{publish, report};
use super::{Gpus, Shared, Snapshot};
use crate::pixels::health::PciAddress;
use crate::pixels::monitor::{Launch, Monitor};
use crate::time::SystemClock;

/// A monitor that is kept alive. Dropping it ends both.
pub struct GpuWatch {
    gpus: Gpus,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

struct Stop {
    asked: AtomicBool,
    wake: OwnedFd,
}

impl GpuWatch {
    /// Starts the thread; the monitor comes when it comes. `slots`: the numbers of the GPUs that are known already.
    ///
    /// # Errors
    /// The system has no descriptor or thread left.
    pub fn start(launch: Launch, tuning: Tuning, slots: BTreeMap<u32, PciAddress>) -> io::Result<GpuWatch> {
        let stop = Arc::new(Stop {
            asked: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let nothing_yet = Snapshot { monitor: MonitorState::Starting, gpus: Vec::new() };
        let shared = Arc::new(Shared { snapshot: Mutex::new(Arc::new(nothing_yet)), events: Mutex::default() });
        let run = Run {
            launch,
            core: Core::new(tuning, slots, SystemClock::mono()),
            monitor: None,
            leaving: Vec::new(),
            shared: Arc::clone(&shared),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new().name("gpus".into()).spawn(move || run.run())?;
        Ok(GpuWatch { gpus: Gpus { shared: Some(shared) }, stop, thread: Some(thread) })
    }

    pub fn gpus(&self) -> Gpus {
        self.gpus.clone()
    }
}

impl Drop for GpuWatch {
    fn drop(&mut self) {
        self.stop.asked.store(true, Ordering::Release);
        // Fails only if a wake-up waits there already.
        let _woken = rustix::io::write(&self.stop.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A panic in there was told on the standard error; what it watched over is over.
            drop(thread.join());
        }
    }
}

struct Run {
    launch: Launch,
    core: Core,
    monitor: Option<Monitor>,
    /// Killed, and not gone yet: a call into a driver that hangs can not be interrupted.
    leaving: Vec<Child>,
    shared: Arc<Shared>,
    stop: Arc<Stop>,
}

/// Processes that do not go although they were killed. Then no more are started.
const LEAVING_MAX: usize = 8;
/// Those are asked for so often.
const REAP_EVERY: Duration = Duration::from_millis(200);

impl Run {
    fn run(mut self) {
        while !self.stop.asked.load(Ordering::Acquire) {
            self.hear();
            self.act();
            self.tell();
            self.reap();
            self.wait();
        }
        self.kill();
        self.reap();
    }

    fn hear(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        let now = SystemClock::mono();
        monitor.run();
        while let Some(message) = monitor.poll() {
            self.core.take(now, message);
        }
        if let Some(end) = monitor.end() {
            let how = end.to_owned();
            self.core.ended(now, how);
            self.kill();
        }
    }

    fn act(&mut self) {
        while let Some(act) = self.core.act(SystemClock::mono()) {
            match act {
                Act::Kill => self.kill(),
                Act::Start => self.start(),
            }
        }
    }

    fn start(&mut self) {
        self.kill();
        let started = if self.leaving.len() < LEAVING_MAX {
            Monitor::spawn(&self.launch, self.core.log_position())
        } else {
            Err(format!("{LEAVING_MAX} monitors hang in the driver and can not be ended: reboot this machine"))
        };
        match started {
            Ok(monitor) => self.monitor = Some(monitor),
            Err(how) => self.core.ended(SystemClock::mono(), how),
        }
    }

    fn kill(&mut self) {
        self.leaving.extend(self.monitor.take().map(Monitor::kill));
    }

    fn reap(&mut self) {
        self.leaving.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    fn tell(&mut self) {
        report(self.core.notes());
        let gpus: Vec<_> = self.core.views().cloned().collect();
        gpus.iter().for_each(publish);
        // Before the events: whoever has read one finds a snapshot that is no older.
        self.shared.set(Snapshot { monitor: self.core.state().clone(), gpus });
        while let Some(event) = self.core.event() {
            self.shared.push(event);
        }
    }

    fn wait(&self) {
        let now = SystemClock::mono();
        let mut left = self.core.deadline().since(now);
        if !self.leaving.is_empty() {
            left = left.min(REAP_EVERY);
        }
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&self.stop.wake, PollFlags::IN)];
        fds.extend(self.monitor.iter().map(|monitor| PollFd::from_borrowed_fd(monitor.fd(), PollFlags::IN)));
        // An interrupted wait is a wake-up like any other.
        let _woken = poll(&mut fds, Some(&timeout));
    }
}

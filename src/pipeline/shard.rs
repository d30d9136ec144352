//! The thread that media runs on: datagrams in, published parts out, without a hand-over in between.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::channel::ChannelRun;
use super::events;
use super::status::ChannelStatus;
use crate::ingest::source::PublisherId;
use crate::ingest::srt::{Closing, Event, Port, PortCounters};
use crate::media::channel::Channel;
use crate::package::origin::Origin;
use crate::time::{Clock, Mono, Now, SystemClock};

/// Status and statistics are refreshed this often.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Callers on their way out get this long to be told so.
const FAREWELL: Duration = Duration::from_millis(300);

/// What all channels of a shard share.
pub struct Setup {
    pub origin: Arc<Origin>,
    /// The `rung-worker` program.
    pub worker: PathBuf,
}

/// A running shard. Dropping it stops it.
pub struct Shard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    wake: OwnedFd,
    status: Mutex<Vec<ChannelStatus>>,
    /// Heartbeat of the loop: when it last came round.
    round: std::sync::atomic::AtomicU64,
}

impl Shard {
    /// Runs `port` and `channels` on a thread of their own.
    ///
    /// # Errors
    /// The system has no descriptor or thread left.
    pub fn start(port: Port, channels: Vec<Channel>, setup: Setup) -> io::Result<Shard> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            wake,
            status: Mutex::default(),
            round: std::sync::atomic::AtomicU64::new(SystemClock::mono().0),
        });
        let now = SystemClock.now();
        let setup = Arc::new(setup);
        let channels = channels.into_iter().map(|c| ChannelRun::new(c, Arc::clone(&setup), now)).collect();
        let counters = port.counters();
        let owners = BTreeMap::new();
        let mut run = Run { port, channels, owners, shared: Arc::clone(&shared), kept: now.mono, counters };
        run.publish_status(now);
        let thread = std::thread::Builder::new().name("shard-0".into()).spawn(move || run.run())?;
        Ok(Shard { shared, thread: Some(thread) })
    }

    /// Every channel's state, at most a second old.
    pub fn status(&self) -> Vec<ChannelStatus> {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something that reads `status` from elsewhere.
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.shared))
    }

    /// Tells publishers to come back later, ends sessions, and waits for the thread.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // The counter of an eventfd cannot overflow with ones.
        drop(rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes()).map_err(io::Error::from));
        if let Some(thread) = self.thread.take() {
            // Its panic has been logged where it happened.
            drop(thread.join());
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads a shard's status.
#[derive(Clone)]
pub struct Watcher(Arc<Shared>);

impl Watcher {
    pub fn status(&self) -> Vec<ChannelStatus> {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long ago the loop last came round.
    pub fn age(&self) -> Duration {
        SystemClock::mono() - Mono(self.0.round.load(Ordering::Relaxed))
    }
}

struct Run {
    port: Port,
    channels: Vec<ChannelRun>,
    owners: BTreeMap<PublisherId, usize>,
    shared: Arc<Shared>,
    kept: Mono,
    counters: PortCounters,
}

impl Run {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.wait();
            self.round(SystemClock.now());
        }
        let now = SystemClock.now();
        self.port.shutdown(now.mono);
        while let Some(event) = self.port.poll() {
            self.route(now, event);
        }
        for index in 0..self.channels.len() {
            self.contain(now, index, |channel| channel.shutdown(now));
        }
        let end = now.mono + FAREWELL;
        while self.channels.iter().any(ChannelRun::is_draining) && SystemClock::mono() < end {
            self.wait();
            self.round(SystemClock.now());
        }
    }

    fn round(&mut self, now: Now) {
        self.shared.round.store(now.mono.0, Ordering::Relaxed);
        self.port.run(now.mono);
        while let Some(event) = self.port.poll() {
            self.route(now, event);
        }
        for index in 0..self.channels.len() {
            self.contain(now, index, |channel| channel.run(now));
            while let Some((publisher, why)) = self.channels[index].poll_close() {
                self.port.close(now.mono, publisher, why);
            }
        }
        if now.mono - self.kept >= HOUSEKEEPING {
            self.kept = now.mono;
            self.publish_status(now);
        }
    }

    fn route(&mut self, now: Now, event: Event) {
        match event {
            Event::Data { publisher, payload } => {
                if let Some(index) = self.owners.get(&publisher).copied() {
                    self.contain(now, index, |channel| channel.data(now, publisher, &payload));
                }
            }
            Event::Connected(connected) => {
                let found = self.channels.iter().position(|c| c.name() == &connected.channel);
                let Some(index) = found else {
                    return self.port.close(now.mono, connected.publisher, Closing::Stopped);
                };
                self.owners.insert(connected.publisher, index);
                self.contain(now, index, |channel| channel.connected(now, &connected));
            }
            Event::Closed { publisher, reason, stats } => {
                if let Some(index) = self.owners.remove(&publisher) {
                    self.contain(now, index, |channel| channel.closed(now, publisher, reason, &stats));
                }
            }
            Event::Refused { channel, code, why, .. } => events::refused(channel.as_ref(), code, &why),
            Event::Overflow { publisher } => {
                if let Some(index) = self.owners.get(&publisher).copied() {
                    events::overflow(self.channels[index].name());
                }
            }
        }
    }

    /// A panic ends the channel's session, not the shard.
    fn contain(&mut self, now: Now, index: usize, work: impl FnOnce(&mut ChannelRun)) {
        let channel = &mut self.channels[index];
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(channel))) {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            channel.abandon(now, what);
        }
    }

    /// Until a datagram, a worker, a timer or `stop` wants something.
    fn wait(&mut self) {
        let now = SystemClock::mono();
        let mut deadline = self.kept + HOUSEKEEPING;
        deadline = self.port.deadline(now).map_or(deadline, |d| d.min(deadline));
        for channel in &self.channels {
            deadline = channel.deadline().map_or(deadline, |d| d.min(deadline));
        }
        let left = deadline - now;
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = vec![PollFd::from_borrowed_fd(self.shared.wake.as_fd(), PollFlags::IN)];
        if self.port.polls_fd() {
            fds.push(PollFd::from_borrowed_fd(self.port.fd(), PollFlags::IN));
        }
        for (fd, writing) in self.channels.iter().filter_map(ChannelRun::fd) {
            let events = if writing { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            fds.push(PollFd::from_borrowed_fd(fd, events));
        }
        // An interrupted wait is a wake-up like any other: everything is looked at again.
        let _woken = poll(&mut fds, Some(&timeout));
    }

    fn publish_status(&mut self, now: Now) {
        let counters = self.port.counters();
        events::port(&counters, &self.counters);
        self.counters = counters;
        for channel in &mut self.channels {
            for (publisher, leg) in channel.publishers() {
                if let Some(stats) = self.port.stats(now.mono, publisher) {
                    channel.statistics(leg, stats);
                }
            }
            channel.housekeeping(now);
        }
        let status = self.channels.iter().map(|c| c.status(now)).collect();
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

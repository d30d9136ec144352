//! What every thread of the worker shares: the way out to the daemon, counters, fault reports, and how threads start.

use nix::sys::resource::{UsageWho, getrusage};
use rung::media::fault::FaultKind;
use rung::pixels::protocol::{FromWorker, Progress};
use rung::time::{Mono, SystemClock};
use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::queue::Queue;

/// Messages on their way out. Full: whoever made one waits; the daemon always reads, so this is backpressure of last
/// resort, and behind it the shedding rule acts.
const OUT_MESSAGES: usize = 256;

#[derive(Debug)]
pub struct Shared {
    pub out: Queue<Outgoing>,
    pub counters: Counters,
    system: System,
}

#[derive(Debug)]
pub enum Outgoing {
    Message(FromWorker),
    /// Write what was queued before, then end the process: it can not be trusted any more.
    Exit,
}

/// Since the channel was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// The open channel + 1; 0: none.
    open: AtomicU64,
    pub decoded: AtomicU64,
    pub repeated: AtomicU64,
    pub collided: AtomicU64,
    pub next: AtomicI64,
    pub encoded: AtomicU64,
    pub shed: AtomicU64,
    pub pictures_skipped: AtomicU64,
}

impl Counters {
    /// Starts over for a channel.
    pub fn open(&self, ch: u32, next: i64) {
        for counter in
            [&self.decoded, &self.repeated, &self.collided, &self.encoded, &self.shed, &self.pictures_skipped]
        {
            counter.store(0, Ordering::Relaxed);
        }
        self.next.store(next, Ordering::Relaxed);
        self.open.store(u64::from(ch) + 1, Ordering::Release);
    }

    pub fn close(&self) {
        self.open.store(0, Ordering::Release);
    }

    /// The open channel.
    pub fn channel(&self) -> Option<u32> {
        u32::try_from(self.open.load(Ordering::Acquire).checked_sub(1)?).ok()
    }

    pub fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

impl Shared {
    pub fn new() -> Arc<Shared> {
        Arc::new(Shared { out: Queue::bounded(OUT_MESSAGES), counters: Counters::default(), system: System::open() })
    }

    /// As it stands.
    pub fn progress(&self) -> Progress {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        Progress {
            decoded: read(&c.decoded),
            repeated: read(&c.repeated),
            collided: read(&c.collided),
            next: c.next.load(Ordering::Relaxed),
            encoded: read(&c.encoded),
            shed: read(&c.shed),
            copies: 0,
            pictures_skipped: read(&c.pictures_skipped),
            cpu_us: System::cpu_us(),
            rss_bytes: self.system.rss_bytes(),
        }
    }

    /// Waits for room on the way out.
    pub fn send(&self, message: FromWorker) {
        self.out.wait_push(Outgoing::Message(message));
    }

    /// This channel cannot go on. The process stays for another one.
    pub fn fail(&self, ch: u32, what: String) {
        self.send(FromWorker::Failed { ch, what });
    }

    /// A named thread. If it panics the daemon is told why, and the process ends: what a codec left behind is unknown.
    pub fn spawn(
        self: &Arc<Self>,
        name: String,
        ch: u32,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(self);
        std::thread::Builder::new().name(name.clone()).spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
                shared.fail(ch, format!("thread {name} of the worker stopped: {}", sentence(&*panic)));
                shared.out.push_command(Outgoing::Exit);
            }
        })
    }
}

/// What `Progress` reads from the system. Opened before the sandbox closes the door.
#[derive(Debug)]
struct System {
    statm: Option<File>,
}

impl System {
    fn open() -> System {
        System { statm: File::open("/proc/self/statm").ok() }
    }

    /// User and system time of the whole process.
    fn cpu_us() -> u64 {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
            return 0;
        };
        [usage.user_time(), usage.system_time()]
            .iter()
            .map(|t| u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).unwrap_or(0))
            .sum()
    }

    fn rss_bytes(&self) -> u64 {
        let mut text = [0u8; 128];
        let read = self.statm.as_ref().and_then(|f| f.read_at(&mut text, 0).ok()).unwrap_or(0);
        let text = std::str::from_utf8(&text[..read]).unwrap_or_default();
        let pages: u64 = text.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        pages * u64::try_from(rustix::param::page_size()).unwrap_or(4096)
    }
}

fn sentence(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason was given")
}

/// Fault reports of one thread: the first of a kind at once, then one a second with the count since.
#[derive(Debug)]
pub struct Faults {
    ch: u32,
    shared: Arc<Shared>,
    seen: BTreeMap<FaultKind, (Mono, u64)>,
}

impl Faults {
    const EVERY: Duration = Duration::from_secs(1);

    pub fn new(ch: u32, shared: Arc<Shared>) -> Faults {
        Faults { ch, shared, seen: BTreeMap::new() }
    }

    pub fn note(&mut self, kind: FaultKind, at: i64, detail: impl FnOnce() -> String) {
        let now = SystemClock::mono();
        let (last, waiting) = self.seen.entry(kind).or_default();
        *waiting += 1;
        if *last != Mono(0) && now.since(*last) < Self::EVERY {
            return;
        }
        let count = std::mem::take(waiting);
        *last = now;
        let detail = if count > 1 { format!("{} ({count} since the last report)", detail()) } else { detail() };
        self.shared.send(FromWorker::Fault { ch: self.ch, kind, at: Some(at), detail });
    }
}

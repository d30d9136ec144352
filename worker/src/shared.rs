//! What every thread of a channel shares: the way out to the daemon, counters, fault reports, and how threads start.

use rung::media::fault::FaultKind;
use rung::pixels::protocol::{FromWorker, Lost, Progress};
use rung::time::{Mono, SystemClock};
use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::gpu::watch::Watch;
use crate::process::Process;
use crate::queue::Queue;

/// Messages on their way out. Full: whoever made one waits; the daemon always reads, so this is backpressure of last
/// resort, and behind it the shedding rule acts.
const OUT_MESSAGES: usize = 256;

pub struct Shared {
    pub out: Queue<Outgoing>,
    pub counters: Counters,
    process: Arc<Process>,
    /// Threads that call into a driver.
    watches: Mutex<Vec<Watch>>,
}

/// In the names of driver calls that make or end something.
const SETTING_UP: [&str; 4] = ["Open", "Create", "Initialize", "Destroy"];

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
    pub taken: AtomicU64,
    pub decoded: AtomicU64,
    pub repeated: AtomicU64,
    pub collided: AtomicU64,
    pub next: AtomicI64,
    pub encoded: AtomicU64,
    pub shed: AtomicU64,
    pub pictures_skipped: AtomicU64,
    /// Pictures copied between host and GPU.
    pub copies: AtomicU64,
}

impl Counters {
    /// Starts over for a channel.
    pub fn open(&self, ch: u32, next: i64) {
        let all = [
            &self.taken,
            &self.decoded,
            &self.repeated,
            &self.collided,
            &self.encoded,
            &self.shed,
            &self.copies,
            &self.pictures_skipped,
        ];
        for counter in all {
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
    /// `Process::seat` makes them.
    pub(crate) fn new(process: Arc<Process>) -> Arc<Shared> {
        let (out, counters, watches) = (Queue::bounded(OUT_MESSAGES), Counters::default(), Mutex::default());
        Arc::new(Shared { out, counters, process, watches })
    }

    /// The process that this channel is in, and with it the GPU.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// As it stands.
    pub fn progress(&self) -> Progress {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        Progress {
            taken: read(&c.taken),
            decoded: read(&c.decoded),
            repeated: read(&c.repeated),
            collided: read(&c.collided),
            next: c.next.load(Ordering::Relaxed),
            encoded: read(&c.encoded),
            shed: read(&c.shed),
            copies: read(&c.copies),
            pictures_skipped: read(&c.pictures_skipped),
            cpu_us: self.process.cpu_us(),
            rss_bytes: self.process.rss_bytes(),
        }
    }

    /// A watch for the calling thread's driver calls.
    pub fn watch(&self, name: String) -> Watch {
        let watch = Watch::new(name);
        self.watches().push(watch.clone());
        watch
    }

    /// A driver call that has taken longer than `limit`, in words.
    pub fn hung(&self, now: Mono, limit: Duration) -> Option<String> {
        self.watches().iter().find_map(|watch| {
            let (since, call) = watch.stuck_since()?;
            let span = now.since(since);
            // Setting up takes its time, above all when several channels do it at once.
            let limit = if SETTING_UP.iter().any(|what| call.contains(what)) { limit * 20 } else { limit };
            (span > limit).then(|| format!("{call} of {} has not come back for {} ms", watch.name(), span.as_millis()))
        })
    }

    /// What a closed channel's threads did is over.
    pub fn forget_watches(&self) {
        self.watches().clear();
    }

    fn watches(&self) -> MutexGuard<'_, Vec<Watch>> {
        // Every change is one push or clear.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room on the way out.
    pub fn send(&self, message: FromWorker) {
        self.out.wait_push(Outgoing::Message(message));
    }

    /// This channel cannot go on. The process stays, for another one and for those it has.
    pub fn fail(&self, ch: u32, what: String) {
        self.send(FromWorker::Failed { ch, what, lost: Lost::Channel });
    }

    /// The process can not be trusted any more (a device fault that stays, a call into a codec that does not return, a
    /// panic): every channel in it is told so, and it ends. In a shared process this does not return.
    pub fn fail_process(&self, ch: u32, what: &str, lost: Lost) {
        self.process.end(self, ch, what, lost);
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
                shared.fail_process(
                    ch,
                    &format!("thread {name} of the worker stopped: {}", sentence(&*panic)),
                    Lost::Process,
                );
            }
        })
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

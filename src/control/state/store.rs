//! One environment with its writer: a thread that commits what is waiting as one group.
//!
//! A refused closure's writes are undone by running the group again without it, not by a nested transaction: the same
//! way out serves a panic, a map that must grow and a full disk, and refusals that wrote something first are rare.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use heed::RwTxn;
use tokio::sync::oneshot;

use super::error::Error;
use super::health::Health;
use super::lmdb::{Done, Handles, Lmdb, Usage};
use super::table::Home;
use super::txn::{Read, Write};
use crate::telemetry::names::{Gauge, Histogram, Label, Metric, gauge_handle, histogram};
use crate::telemetry::report::{Level, Place, log};
use crate::time::{Mono, SystemClock};

/// Whether a write is still tried while the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Refused at once while the disk is full.
    Ordinary,
    /// What keeps a session going, ends it, or frees room: may use the reserve.
    Essential,
}

/// One environment: reads on any thread, writes through one.
#[derive(Debug)]
pub struct Store {
    lmdb: Arc<Lmdb>,
    queue: Option<SyncSender<Box<dyn Job>>>,
    writer: Option<JoinHandle<()>>,
}

/// Writes that wait. When full, a write is refused with [`Error::Busy`]: no caller is ever blocked by the queue.
const QUEUE_MAX: usize = 1_024;
/// Writes in one commit.
const GROUP_MAX: usize = 256;
/// How often the writer looks after its environment.
const TICK: Duration = Duration::from_secs(1);
const CLEAR_READERS: Duration = Duration::from_secs(60);
/// The index commits what came in within this time.
const INDEX_PACE: Duration = Duration::from_secs(1);
/// A read that lasts longer is logged.
const READ_MAX: Duration = Duration::from_millis(100);

impl Store {
    pub(super) fn start(lmdb: Lmdb, health: Arc<Health>) -> Result<Store, String> {
        let lmdb = Arc::new(lmdb);
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let env = match lmdb.home() {
            Home::State => Label::Env("state"),
            Home::Index => Label::Env("index"),
        };
        let gauges = Gauges {
            map_used: gauge_handle(Metric::LmdbMapUsed, &[env]),
            oldest_reader: gauge_handle(Metric::LmdbOldestReader, &[env]),
            readers: gauge_handle(Metric::LmdbReaders, &[env]),
        };
        let commit_seconds = histogram(Metric::LmdbCommitSeconds, &[env]);
        let now = SystemClock::mono();
        let writer = Writer { lmdb: lmdb.clone(), health, jobs, gauges, commit_seconds, ticked: now, cleared: now };
        let thread = std::thread::Builder::new().name(format!("{}-writer", lmdb.home().name()));
        let thread = thread.spawn(move || writer.run()).map_err(|e| format!("cannot start the writer: {e}"))?;
        Ok(Store { lmdb, queue: Some(queue), writer: Some(thread) })
    }

    /// Runs `look` on one view of the data. Blocks for the disk at most, never for a writer (a growing map excepted);
    /// never inside another read, never across an await: `look` is a plain closure for that reason.
    ///
    /// # Errors
    /// What `look` returns, or why there is no view.
    pub fn read<T, E: From<Error>>(&self, look: impl FnOnce(&Read<'_>) -> Result<T, E>) -> Result<T, E> {
        let begun = SystemClock::mono();
        let seen = self.lmdb.read(look);
        let took = SystemClock::mono() - begun;
        if took > READ_MAX {
            let what = format!("a read of {} took {} ms", self.lmdb.home().name(), took.as_millis());
            log(Level::Warn, "state_read_slow", &Place::default(), what);
        }
        seen
    }

    /// Queues `change` and returns at once. The ticket resolves when the change is on disk (in the index: committed), or
    /// was refused and undone. `change` may run more than once: it takes everything from the transaction.
    pub fn write<T, R>(
        &self,
        need: Need,
        change: impl Fn(&mut Write<'_, '_>) -> Result<T, R> + Send + 'static,
    ) -> Ticket<T, R>
    where
        T: Send + 'static,
        R: From<Error> + Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        // A caller that dropped its ticket does not want to know.
        self.write_then(need, change, move |result| drop(done.send(result)));
        Ticket { outcome }
    }

    /// As [`Store::write`]; `done` is called exactly once, mostly by the writer's thread: it must be short and not wait.
    pub fn write_then<T, R>(
        &self,
        need: Need,
        change: impl Fn(&mut Write<'_, '_>) -> Result<T, R> + Send + 'static,
        done: impl FnOnce(Result<T, R>) + Send + 'static,
    ) where
        T: Send + 'static,
        R: From<Error> + Send + 'static,
    {
        let task = Box::new(Task { need, change, result: None, done: Some(done) });
        match self.queue.as_ref().map(|queue| queue.try_send(task)) {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(job))) => job.fail(&Error::Busy),
            // Dropping a task tells its caller that the store is closed.
            Some(Err(TrySendError::Disconnected(_))) | None => {}
        }
    }

    pub fn usage(&self) -> Usage {
        self.lmdb.usage()
    }

    pub(super) fn lmdb(&self) -> &Arc<Lmdb> {
        &self.lmdb
    }
}

/// What was queued is committed before the store is gone.
impl Drop for Store {
    fn drop(&mut self) {
        drop(self.queue.take());
        // The last owner may have been a caller's answer, on the writer's own thread: it ends by itself.
        let elsewhere = |writer: &JoinHandle<()>| writer.thread().id() != std::thread::current().id();
        if let Some(writer) = self.writer.take().filter(elsewhere) {
            // A panic of the writer was printed; every caller has been told that the store is closed.
            drop(writer.join());
        }
    }
}

/// The outcome of a queued write: `wait()` on a thread that may block, `.await` it, or `take()` it now and then.
#[derive(Debug)]
pub struct Ticket<T, R> {
    outcome: oneshot::Receiver<Result<T, R>>,
}

impl<T, R: From<Error>> Ticket<T, R> {
    /// Blocks until the commit. Not on a thread of an async runtime.
    ///
    /// # Errors
    /// The refusal, or why nothing was written.
    pub fn wait(self) -> Result<T, R> {
        self.outcome.blocking_recv().unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// The outcome, once, if it is known by now.
    pub fn take(&mut self) -> Option<Result<T, R>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(Error::Closed.into())),
        }
    }
}

impl<T, R: From<Error>> Future for Ticket<T, R> {
    type Output = Result<T, R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(cx).map(|told| told.unwrap_or_else(|_| Err(Error::Closed.into())))
    }
}

/// One queued write.
trait Job: Send {
    fn need(&self) -> Need;
    /// True: accepted. False: refused.
    fn run(&mut self, txn: &mut Write<'_, '_>) -> bool;
    /// Tells the caller what `run` came to.
    fn finish(self: Box<Self>);
    /// Tells the caller that nothing was written.
    fn fail(self: Box<Self>, why: &Error);
}

struct Task<T, R: From<Error>, C, D: FnOnce(Result<T, R>)> {
    need: Need,
    change: C,
    result: Option<Result<T, R>>,
    done: Option<D>,
}

impl<T, R, C, D> Job for Task<T, R, C, D>
where
    T: Send,
    R: From<Error> + Send,
    C: Fn(&mut Write<'_, '_>) -> Result<T, R> + Send,
    D: FnOnce(Result<T, R>) + Send,
{
    fn need(&self) -> Need {
        self.need
    }

    fn run(&mut self, txn: &mut Write<'_, '_>) -> bool {
        self.result.insert((self.change)(txn)).is_ok()
    }

    fn finish(mut self: Box<Self>) {
        if let (Some(done), Some(result)) = (self.done.take(), self.result.take()) {
            done(result);
        }
    }

    fn fail(mut self: Box<Self>, why: &Error) {
        if let Some(done) = self.done.take() {
            done(Err(why.clone().into()));
        }
    }
}

impl<T, R: From<Error>, C, D: FnOnce(Result<T, R>)> Drop for Task<T, R, C, D> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(Error::Closed.into()));
        }
    }
}

struct Gauges {
    map_used: Gauge,
    oldest_reader: Gauge,
    readers: Gauge,
}

struct Writer {
    lmdb: Arc<Lmdb>,
    health: Arc<Health>,
    jobs: Receiver<Box<dyn Job>>,
    gauges: Gauges,
    commit_seconds: Histogram,
    ticked: Mono,
    cleared: Mono,
}

/// A member of a group, and what keeps it out of the next attempt.
struct Member {
    job: Box<dyn Job>,
    aside: Aside,
}

enum Aside {
    No,
    /// Refused after it wrote: its answer stands, its writes do not.
    Refused,
    Panicked(Error),
}

/// What an attempt to commit a group came to.
enum Attempt {
    Committed,
    /// A member was set aside after it wrote.
    Again,
    Failed(Error),
}

impl Writer {
    fn run(mut self) {
        while let Some(group) = self.gather() {
            if !group.is_empty() {
                self.commit(group);
            }
            self.tick();
        }
        if let Err(error) = self.lmdb.sync() {
            let what = format!("{}: the last commits may be lost: {error}", self.lmdb.path().display());
            log(Level::Error, "state_not_synced", &Place::default(), what);
        }
    }

    /// The next group: waits a tick for its first member. `None`: closed, and all is committed.
    fn gather(&self) -> Option<Vec<Member>> {
        let mut group = Vec::new();
        let member = |job| Member { job, aside: Aside::No };
        match self.jobs.recv_timeout(TICK) {
            Ok(job) => group.push(member(job)),
            Err(RecvTimeoutError::Timeout) => return Some(group),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        if self.lmdb.home() == Home::Index {
            let until = SystemClock::mono() + INDEX_PACE;
            while group.len() < QUEUE_MAX
                && let Ok(job) = self.jobs.recv_timeout(until - SystemClock::mono())
            {
                group.push(member(job));
            }
        } else {
            group.extend(self.jobs.try_iter().take(GROUP_MAX - 1).map(member));
        }
        Some(group)
    }

    /// Commits a group and answers its members.
    fn commit(&self, mut group: Vec<Member>) {
        if self.health.is_full() {
            let condition = self.health.condition();
            let (essential, ordinary) = group.into_iter().partition(|m| m.job.need() == Need::Essential);
            group = essential;
            answer(ordinary, Some(&Error::from(&condition)));
        }
        let begun = SystemClock::mono();
        let outcome = self.try_commit(&mut group);
        let took = SystemClock::mono() - begun;
        self.lmdb.committed(took);
        self.commit_seconds.observe_span(took);
        answer(group, outcome.err().as_ref());
    }

    fn try_commit(&self, group: &mut [Member]) -> Result<(), Error> {
        // Every `Again` sets a member aside; a map doubles at most 8 times and the ballast goes once.
        for _ in 0..group.len() + 10 {
            match self.attempt(group) {
                Attempt::Committed => {
                    self.health.succeeded();
                    return Ok(());
                }
                Attempt::Again => {}
                Attempt::Failed(Error::MapFull) => {
                    let mib = self.lmdb.grow()? >> 20;
                    let what = format!("the map of {} grew to {mib} MiB", self.lmdb.path().display());
                    log(Level::Warn, "state_map_grew", &Place::default(), what);
                }
                Attempt::Failed(Error::Io { code, what }) => {
                    if !self.health.failed(code, &what) {
                        return Err(Error::from(&self.health.condition()));
                    }
                }
                Attempt::Failed(error) => {
                    self.health.failing(&error.to_string());
                    return Err(error);
                }
            }
        }
        Err(Error::MapFull)
    }

    fn attempt(&self, group: &mut [Member]) -> Attempt {
        self.lmdb.write(|txn, handles| fill(group, txn, handles)).unwrap_or_else(Attempt::Failed)
    }

    /// What is due each second.
    fn tick(&mut self) {
        let now = SystemClock::mono();
        if now - self.ticked < TICK {
            return;
        }
        self.ticked = now;
        let usage = self.lmdb.usage();
        self.gauges.map_used.set(usage.used_bytes as f64 / usage.map_bytes as f64);
        self.gauges.oldest_reader.set(usage.oldest_reader.as_secs_f64());
        self.gauges.readers.set(usage.readers as f64);
        if self.lmdb.home() == Home::State {
            self.health.tick();
        }
        if now - self.cleared >= CLEAR_READERS {
            self.cleared = now;
            match self.lmdb.clear_stale_readers() {
                Ok(0) => {}
                Ok(n) => log(Level::Info, "state_readers_cleared", &Place::default(), format!("{n} stale readers")),
                Err(error) => log(Level::Warn, "state_readers_cleared", &Place::default(), error),
            }
        }
    }
}

/// Runs a group's closures inside one transaction.
fn fill(group: &mut [Member], txn: &mut RwTxn<'_>, handles: &Handles) -> Done<Attempt> {
    for member in group.iter_mut().filter(|m| matches!(m.aside, Aside::No)) {
        let mut write = Write::new(txn, handles);
        // A closure that unwinds leaves its transaction as it was before its next write: it is only dropped below.
        let ran = catch_unwind(AssertUnwindSafe(|| member.job.run(&mut write)));
        if let Some(error) = write.failed.take() {
            return Done::Drop(Attempt::Failed(error));
        }
        let wrote = write.wrote;
        match ran {
            Ok(true) => continue,
            // A refusal that changed nothing needs no undoing; it is asked again if the group is.
            Ok(false) if !wrote => continue,
            Ok(false) => member.aside = Aside::Refused,
            Err(panic) => member.aside = Aside::Panicked(Error::Bug(panic_text(&*panic))),
        }
        return Done::Drop(Attempt::Again);
    }
    Done::Commit(Attempt::Committed)
}

fn answer(group: Vec<Member>, failed: Option<&Error>) {
    for Member { job, aside } in group {
        match (aside, failed) {
            (Aside::Panicked(bug), _) => job.fail(&bug),
            (_, None) => job.finish(),
            (_, Some(error)) => job.fail(error),
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

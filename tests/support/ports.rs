//! What tests of ports share: who may publish, what a driven port has said, and waiting for it.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rung::ingest::{Roster, RosterEntry};
use rung::media::channel::{ChannelName, Takeover};
use rung::media::key::{KeyDigest, Passphrase};
use rung::time::SystemClock;
use rustix::event::Timespec;

pub(crate) const KEY: &str = "k3yk3yk3yk3yk3yk3yk3yk3yk3";
/// Of `c10` alone.
pub(crate) const OWN_PASS: &str = "known to one channel";

/// Channels `c1` to `c10`, all with `KEY`: `c8` is stopped, the newest wins on `c9`, `c10` has a passphrase of its own.
pub(crate) fn roster() -> Arc<Roster> {
    let entry = |n: u32| RosterEntry {
        key: KeyDigest::of(KEY),
        takeover: if n == 9 { Takeover::Newest } else { Takeover::IfSilent },
        stopped: n == 8,
        passphrase: (n == 10).then(|| Passphrase::new(OWN_PASS).unwrap()),
    };
    Arc::new(Roster((1..=10).map(|n| (ChannelName::new(&format!("c{n}")).unwrap(), entry(n))).collect()))
}

/// What a thread that drives a port writes down and a test reads.
pub(crate) struct Board<Seen>(Arc<(Mutex<Seen>, Condvar)>);

impl<Seen: Default> Default for Board<Seen> {
    fn default() -> Board<Seen> {
        Board(Arc::new((Mutex::default(), Condvar::new())))
    }
}

impl<Seen> Clone for Board<Seen> {
    fn clone(&self) -> Board<Seen> {
        Board(Arc::clone(&self.0))
    }
}

/// Everything but data, in the words of `Debug`.
pub(crate) trait Log {
    fn log(&self) -> &str;
}

impl<Seen: Log> Board<Seen> {
    pub(crate) fn write(&self, what: impl FnOnce(&mut Seen)) {
        let (lock, news) = &*self.0;
        what(&mut lock.lock().unwrap_or_else(PoisonError::into_inner));
        news.notify_all();
    }

    pub(crate) fn look<T>(&self, what: impl FnOnce(&Seen) -> T) -> T {
        what(&self.0.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Until `what` finds what it looks for, within `limit`.
    #[track_caller]
    pub(crate) fn wait<T>(&self, limit: Duration, why: &str, mut what: impl FnMut(&Seen) -> Option<T>) -> T {
        let end = SystemClock::mono() + limit;
        let (lock, news) = &*self.0;
        let mut seen = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = what(&seen) {
                return found;
            }
            let left = end - SystemClock::mono();
            assert!(!left.is_zero(), "within {limit:?}: {why}; {}", seen.log());
            seen = news.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn timespec(span: Duration) -> Timespec {
    Timespec { tv_sec: span.as_secs() as i64, tv_nsec: span.subsec_nanos().into() }
}

/// Waits for `span` without a reason to wake earlier: only to pace something, never to let something settle.
pub(crate) fn pace(span: Duration) {
    rustix::event::poll(&mut [], Some(&timespec(span))).unwrap();
}

/// Resident memory of this process, bytes.
pub(crate) fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

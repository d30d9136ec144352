//! Whether a worker that talks also works: what it was handed against what it says came of it. Pure.
//!
//! In a process of its own a channel may be judged by its pictures: if none come for seconds, another process is cheap.
//! A shared process may not: a publisher whose stream has no pictures in it would cost seven other channels theirs. There
//! only what the worker does counts: it takes units, and what it shows comes out encoded.

use std::time::Duration;

use crate::pixels::hall::Home;
use crate::pixels::protocol::Progress;
use crate::time::Mono;

/// Units went in and nothing was decoded for this long: the worker hangs, whatever it says. On a GPU: before the first
/// output, when drivers still make things.
const STUCK: Duration = Duration::from_secs(3);

/// One worker's pulse, from its start on.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    home: Home,
    /// Of a GPU's worker.
    patience: Duration,
    /// Units and fills that were handed over.
    handed: u64,
    /// Since when something that was handed over has changed nothing of what it decoded or encoded.
    unmade: Option<Mono>,
    last: Progress,
    /// When it said that. What it would have said since is `silence`'s matter.
    said: Mono,
    /// Since when something that was handed over is not taken, and what was shown does not come out.
    untaken: Option<Mono>,
    unsent: Option<Mono>,
    /// Next frame to be shown when something last came out.
    shown: i64,
}

impl Pulse {
    pub fn new(home: Home, patience: Duration, now: Mono) -> Pulse {
        Pulse {
            home,
            patience,
            handed: 0,
            unmade: None,
            last: Progress::default(),
            said: now,
            untaken: None,
            unsent: None,
            shown: 0,
        }
    }

    /// It stands: what it was handed before does not count against it.
    pub fn opened(&mut self, now: Mono) {
        self.unmade = self.unmade.map(|_| now);
        self.untaken = self.untaken.map(|_| now);
    }

    /// A video unit or a fill was handed over.
    pub fn fed(&mut self, now: Mono) {
        self.handed += 1;
        self.unmade.get_or_insert(now);
        self.untaken.get_or_insert(now);
    }

    /// `inside`: frames that its encoders may hold.
    pub fn progress(&mut self, now: Mono, progress: &Progress, inside: i64) {
        let last = std::mem::replace(&mut self.last, *progress);
        self.said = now;
        if progress.decoded != last.decoded || progress.encoded != last.encoded {
            self.unmade = None;
        }
        if progress.taken != last.taken {
            self.untaken = (progress.taken < self.handed).then_some(now);
        }
        if progress.encoded != last.encoded {
            (self.unsent, self.shown) = (None, progress.next);
        } else if progress.encoded > 0 && progress.next > self.shown + inside {
            self.unsent.get_or_insert(now);
        }
    }

    /// For how long it has been stuck, if that is too long. `behind`: frames that were handed over are not shown yet.
    pub fn stuck(&self, now: Mono, behind: bool) -> Option<Duration> {
        match self.home {
            Home::Own => self.unmade.filter(|_| behind).map(|since| (now - since, STUCK)),
            Home::Gpu(_) => {
                let limit = if self.last.encoded > 0 { self.patience } else { STUCK.max(self.patience) };
                let since = [self.untaken, self.unsent].into_iter().flatten().min();
                since.map(|since| (self.said - since, limit))
            }
        }
        .and_then(|(span, limit)| (span > limit).then_some(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::limits::WORKER_SILENCE_GPU;

    fn at(ms: u64) -> Mono {
        Mono(1_000_000_000 + ms * 1_000_000)
    }

    fn said(taken: u64, next: i64, encoded: u64) -> Progress {
        Progress { taken, next, encoded, decoded: u64::try_from(next).unwrap_or(0), ..Progress::default() }
    }

    #[test]
    fn in_a_shared_process_a_stream_without_pictures_is_no_hang() {
        let mut pulse = Pulse::new(Home::Gpu(0), WORKER_SILENCE_GPU, at(0));
        let mut own = Pulse::new(Home::Own, WORKER_SILENCE_GPU, at(0));
        for n in 1..200u64 {
            for pulse in [&mut pulse, &mut own] {
                pulse.fed(at(n * 40));
                pulse.progress(at(n * 40 + 20), &Progress { taken: n, ..Progress::default() }, 2);
            }
            assert_eq!(pulse.stuck(at(n * 40 + 20), true), None);
        }
        assert!(own.stuck(at(8_000), true).is_some(), "where another process is cheap it is tried");
    }

    #[test]
    fn a_source_that_took_its_time_is_no_fault_of_the_worker() {
        let mut pulse = Pulse::new(Home::Own, WORKER_SILENCE_GPU, at(0));
        // What a program's tables were waited for comes at once, and the worker needs its time to open.
        for _ in 0..90 {
            pulse.fed(at(3_600));
        }
        assert_eq!(pulse.stuck(at(3_610), true), None);
        pulse.opened(at(3_700));
        assert_eq!(pulse.stuck(at(6_700), true), None);
        assert_eq!(pulse.stuck(at(6_701), true), Some(Duration::from_millis(3_001)));
        pulse.progress(at(6_702), &said(90, 90, 90), 2);
        assert_eq!(pulse.stuck(at(20_000), true), None, "nothing was handed over since");
        pulse.fed(at(20_000));
        assert_eq!(pulse.stuck(at(20_010), true), None, "after a pause as at the start");
        assert!(pulse.stuck(at(23_001), true).is_some());
    }

    #[test]
    fn a_gpu_worker_that_takes_nothing_is_stuck_after_half_a_second() {
        let mut pulse = Pulse::new(Home::Gpu(0), WORKER_SILENCE_GPU, at(0));
        pulse.fed(at(0));
        pulse.progress(at(2_900), &said(0, 0, 0), 2);
        assert_eq!(pulse.stuck(at(2_900), true), None, "before the first output it may take its time");
        pulse.progress(at(2_900), &said(1, 1, 1), 2);
        // An idle source is nobody's fault, however long.
        assert_eq!(pulse.stuck(at(20_000), true), None);
        pulse.fed(at(20_000));
        pulse.fed(at(20_040));
        pulse.progress(at(20_150), &said(2, 2, 2), 2);
        pulse.progress(at(20_650), &said(2, 2, 2), 2);
        // That it says nothing more is another matter.
        assert_eq!(pulse.stuck(at(29_000), true), None);
        pulse.progress(at(20_651), &said(2, 2, 2), 2);
        assert_eq!(pulse.stuck(at(20_651), true), Some(Duration::from_millis(501)));
    }

    #[test]
    fn a_gpu_worker_that_shows_and_sends_nothing_is_stuck_after_half_a_second() {
        let mut pulse = Pulse::new(Home::Gpu(0), WORKER_SILENCE_GPU, at(0));
        for n in 1..=30u64 {
            pulse.fed(at(n * 40));
            let next = i64::try_from(n).unwrap();
            // The encoder stops at frame 10; it may hold two.
            pulse.progress(at(n * 40), &said(n, next, n.min(10)), 2);
            assert_eq!(pulse.stuck(at(n * 40), true).is_some(), n > 13 + 12, "frame {n}");
        }
        let mut last = Pulse::new(Home::Gpu(0), WORKER_SILENCE_GPU, at(0));
        last.fed(at(0));
        last.progress(at(10), &said(1, 1, 1), 2);
        last.fed(at(40));
        last.fed(at(80));
        last.progress(at(150), &said(3, 3, 1), 2);
        last.progress(at(9_000), &said(3, 3, 1), 2);
        assert_eq!(last.stuck(at(9_000), true), None, "what an encoder may hold at a source's end");
    }
}

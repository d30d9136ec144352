//! When a packet is handed over: its sender's time stamp on our clock, plus the latency [SRT 4.5.1].
//!
//! The fastest packets show how the two clocks lie: the least of (arrival - time stamp) over some seconds. The line
//! follows it slowly, so that a sender's clock may run wrong by 0.2 % and a path may change without a packet out of time.

use std::time::Duration;

use crate::time::Mono;

/// A window of the envelope, and how many are looked at.
const WINDOW_US: i64 = 1_000_000;
const WINDOWS: usize = 8;
/// How far the line moves a window at most.
const SLEW_US: i64 = 5_000;
/// Beyond this the sender's clock was set, or stood still: the line begins anew.
const JUMP_US: i64 = 1_000_000;

#[derive(Clone, Debug)]
pub(super) struct Playout {
    latency_us: i64,
    /// Our clock where the sender's time is zero.
    base: i64,
    /// The latest time stamp, its wraps counted.
    latest: i64,
    window_end: i64,
    /// The least of this window, if there was a packet.
    least: Option<i64>,
    /// Of the last windows, the newest first.
    past: [Option<i64>; WINDOWS],
    /// How often the line began anew.
    pub(super) jumps: u64,
}

impl Playout {
    /// `timestamp`: of the handshake that arrived at `now`.
    pub(super) fn new(now: Mono, timestamp: u32, latency: Duration) -> Playout {
        let latest = i64::from(timestamp);
        Playout {
            latency_us: i64::try_from(latency.as_micros()).unwrap_or(i64::MAX / 4),
            base: micros(now) - latest,
            latest,
            window_end: micros(now) + WINDOW_US,
            least: None,
            past: [None; WINDOWS],
            jumps: 0,
        }
    }

    /// A packet's time on our clock, from one that was just received: later lines do not move it. `first`: it is not a
    /// copy, so that its arrival says something. Whatever its sender claims, it is not far ahead of its arrival.
    pub(super) fn time(&mut self, now: Mono, timestamp: u32, first: bool) -> i64 {
        let now = micros(now);
        let time = self.latest + i64::from(timestamp.wrapping_sub(self.latest as u32).cast_signed());
        if !first {
            return self.base.saturating_add(time).min(now + JUMP_US);
        }
        self.latest = self.latest.max(time);
        let offset = now - time;
        if offset < self.base - JUMP_US {
            self.restart(now, time);
            return now;
        }
        if now >= self.window_end {
            self.turn(now, time);
        }
        self.least = Some(self.least.map_or(offset, |least| least.min(offset)));
        self.base.saturating_add(time)
    }

    /// When a packet of that time is handed over.
    pub(super) fn due(&self, time: i64) -> Mono {
        let at = time.saturating_add(self.latency_us);
        Mono(u64::try_from(at).unwrap_or(0).saturating_mul(1_000))
    }

    /// Goes on where another one is that follows the same sender's clock.
    pub(super) fn resume(&mut self, other: &Playout) {
        let latency_us = self.latency_us;
        *self = Playout { latency_us, jumps: self.jumps, ..other.clone() };
    }

    fn turn(&mut self, now: i64, time: i64) {
        self.window_end = now + WINDOW_US;
        let least = self.least.take();
        if least.is_some_and(|least| least > self.base + JUMP_US / 2) {
            return self.restart(now, time);
        }
        self.past.rotate_right(1);
        self.past[0] = least;
        if let Some(envelope) = self.past.iter().flatten().min() {
            self.base += (envelope - self.base).clamp(-SLEW_US, SLEW_US);
        }
    }

    fn restart(&mut self, now: i64, time: i64) {
        self.jumps += 1;
        self.base = now - time;
        self.latest = time;
        self.least = None;
        self.past = [None; WINDOWS];
        self.window_end = now + WINDOW_US;
    }
}

fn micros(at: Mono) -> i64 {
    (at.0 / 1_000).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(120);

    /// Sends every 10 ms for `seconds`; `stamp(ms)`: the sender's clock in µs, `delay(n)`: of the path in µs. Returns by
    /// how many µs each packet's due time misses its sending plus the latency.
    fn run(
        playout: &mut Playout,
        from: u64,
        seconds: u64,
        stamp: impl Fn(u64) -> u64,
        delay: impl Fn(u64) -> u64,
    ) -> Vec<i64> {
        (0..seconds * 100)
            .map(|n| {
                let sent = from + n * 10_000;
                let now = Mono((sent + delay(n)) * 1_000);
                let time = playout.time(now, stamp(sent) as u32, true);
                micros(playout.due(time)) - (sent as i64 + 120_000)
            })
            .collect()
    }

    const START: u64 = 5_000_000_000;

    fn new(stamp: u64) -> Playout {
        Playout::new(Mono((START + 25_000) * 1_000), stamp as u32, LATENCY)
    }

    #[test]
    fn a_wrong_clock_and_a_wrap_are_followed_within_milliseconds() {
        for ppm in [-2_000i64, 0, 2_000] {
            // The clock wraps after 60 s.
            let stamp = |at: u64| {
                let run = (at - START) as i64;
                (u64::from(u32::MAX) - 60_000_000).wrapping_add((run + run * ppm / 1_000_000) as u64)
            };
            let mut playout = new(stamp(START));
            let off = run(&mut playout, START, 300, stamp, |n| 25_000 + n * 7_919 % 3_000);
            assert_eq!(playout.jumps, 0);
            for off in off {
                assert!((5_000..45_000).contains(&off), "{ppm} ppm: {off} µs beside the path's 25 ms");
            }
        }
    }

    #[test]
    fn a_clock_that_was_set_begins_a_new_line_at_once_or_within_a_second() {
        for jump in [5_000_000i64, -5_000_000] {
            let mut playout = new(10_000_000);
            run(&mut playout, START, 10, |at| at - START + 10_000_000, |_| 25_000);
            let after = |at: u64| ((at - START) as i64 + 10_000_000 + jump) as u64;
            let off = run(&mut playout, START + 10_000_000, 10, after, |_| 25_000);
            assert_eq!(playout.jumps, 1);
            assert!(off[201..].iter().all(|off| (20_000..30_000).contains(off)), "{off:?}");
        }
    }

    #[test]
    fn no_time_stamp_and_no_new_line_keeps_a_packet_for_longer_than_the_latency_and_a_second() {
        let mut playout = Playout::new(Mono(START * 1_000), 0, Duration::from_secs(3));
        let at = |ms: u64| Mono((START + ms * 1_000) * 1_000);
        let copy = playout.time(at(0), 1_800_000_000, false);
        assert_eq!(playout.due(copy), at(4_000), "half an hour ahead, says its sender");
        let before = playout.time(at(500), 500_000, true);
        // The sender's clock is set back by ten minutes while that one waits.
        for ms in (600..2_800).step_by(100) {
            playout.time(at(ms), (ms as u32 * 1_000).wrapping_sub(600_000_000), true);
        }
        assert_eq!((playout.jumps, playout.due(before)), (1, at(3_500)));
    }

    #[test]
    fn a_stalled_path_is_not_a_clock_that_was_set() {
        let mut playout = new(0);
        run(&mut playout, START, 10, |at| at - START, |_| 25_000);
        // Three seconds lie in a queue, then all of them come at once.
        run(&mut playout, START + 10_000_000, 3, |at| at - START, |n| 25_000 + 3_000_000 - n * 10_000);
        let off = run(&mut playout, START + 13_000_000, 5, |at| at - START, |_| 25_000);
        assert_eq!(playout.jumps, 0);
        assert!(off.iter().all(|off| (20_000..60_000).contains(off)), "{off:?}");
    }
}

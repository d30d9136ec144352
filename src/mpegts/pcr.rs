//! The program clock made continuous, and how evenly it arrives [TS 2.4.2.2].

use crate::time::Mono;

/// Ticks of the 27 MHz clock per second.
pub const PCR_HZ: i64 = 27_000_000;
const WRAP: i64 = (1 << 33) * 300;
/// A step above this, and above what arrival says by as much, is a jump: 1 s.
const JUMP: i64 = PCR_HZ;

/// Follows one PCR PID.
#[derive(Clone, Copy, Debug, Default)]
pub struct PcrLine {
    last: Option<Reading>,
    /// Smoothed |arrival step - PCR step|, 27 MHz ticks x 16.
    jitter_x16: i64,
}

/// One clock reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// 27 MHz, unwrapped.
    pub pcr: i64,
    pub received: Mono,
}

/// What a reading says against the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    First,
    /// 27 MHz ticks since the last one.
    Forward(i64),
    /// discontinuity_indicator announced it.
    Announced(i64),
    /// Backwards, or further ahead than arrival explains.
    Jump(i64),
}

impl PcrLine {
    /// `raw` below 2^33 x 300; `near`: an unwrapped value (27 MHz) the first reading is placed next to.
    pub fn take(&mut self, raw: u64, received: Mono, discontinuity: bool, near: Option<i64>) -> (Reading, Step) {
        let raw = i64::try_from(raw).unwrap_or(0);
        let line = self.last.map(|last| last.pcr).or(near);
        let pcr = line.map_or(raw, |line| nearest(raw, line));
        let reading = Reading { pcr, received };
        let step = match self.last.replace(reading) {
            None => Step::First,
            Some(last) => {
                let delta = pcr - last.pcr;
                let arrived = ticks(received, last.received);
                if discontinuity {
                    Step::Announced(delta)
                } else if delta <= 0 || (delta > JUMP && delta > arrived.saturating_add(JUMP)) {
                    Step::Jump(delta)
                } else {
                    self.jitter_x16 += (arrived - delta).abs() - self.jitter_x16 / 16;
                    Step::Forward(delta)
                }
            }
        };
        (reading, step)
    }

    pub fn last(&self) -> Option<Reading> {
        self.last
    }

    /// Smoothed difference between arrival and clock steps, microseconds (the estimator of RFC 3550 6.4.1).
    pub fn jitter_us(&self) -> u64 {
        u64::try_from(self.jitter_x16 / 16 / 27).unwrap_or(0)
    }
}

fn nearest(raw: i64, line: i64) -> i64 {
    let ahead = (raw - line).rem_euclid(WRAP);
    if ahead >= WRAP / 2 { line + ahead - WRAP } else { line + ahead }
}

/// Time between two arrivals in 27 MHz ticks.
fn ticks(later: Mono, earlier: Mono) -> i64 {
    i64::try_from(later.since(earlier).as_nanos() * 27 / 1_000).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_over_its_wrap() {
        let mut line = PcrLine::default();
        let start = WRAP - 1_000_000;
        for n in 0..10i64 {
            let (pcr, now) = (start + n * 540_000, Mono(n.unsigned_abs() * 20_000_000));
            let raw = pcr.rem_euclid(WRAP).unsigned_abs();
            let (reading, step) = line.take(raw, now, false, None);
            assert_eq!(reading.pcr, pcr);
            assert_eq!(step, if n == 0 { Step::First } else { Step::Forward(540_000) });
        }
        assert_eq!(line.jitter_us(), 0);
    }

    #[test]
    fn a_jump_is_told_from_a_pause_of_the_link() {
        let at = |seconds: u64| Mono(seconds * 1_000_000_000);
        let mut line = PcrLine::default();
        line.take(0, at(0), false, None);
        assert_eq!(line.take(81_000_000, at(3), false, None).1, Step::Forward(81_000_000));
        assert_eq!(line.take(162_000_000, at(3), false, None).1, Step::Jump(81_000_000));
        assert_eq!(line.take(27_000_000, at(3), true, None).1, Step::Announced(-135_000_000));
        assert_eq!(line.take(27_000_000, at(3), false, None).1, Step::Jump(0));
    }
}

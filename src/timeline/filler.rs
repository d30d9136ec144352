//! The filler clock: while the source is away it makes N go on by the monotonic clock along the session's pace line.
//!
//! A frame is filled once it is `PATIENCE` overdue: what was only late is shown when it comes. It starts when no track
//! has delivered for that long past its due time, and ends with the next unit of the reference track: audio alone makes
//! no pictures. The first second holds the last picture, then comes the slate. Which of the two a frame shows is a
//! function of its N.

use std::time::Duration;

use super::run::{expected, nanos};
use super::session::Filling;
use crate::media::grid::FrameRate;
use crate::time::Mono;

#[derive(Debug)]
pub(super) struct Filler {
    rate: FrameRate,
    /// Last delivery of any track on air.
    heard: Mono,
    /// Session time at which the reference track's next unit is due, ticks; `None`: nothing was delivered yet, or the
    /// session is over.
    next: Option<i64>,
    away: Option<Away>,
    /// Every N below this was filled, or lies before the first fill.
    filled: i64,
    /// Where the last fill began.
    began: i64,
    /// Nothing is waited for: the source is known to be away.
    gone: bool,
    /// Of a ladder alone: when its last picture came. Sound that goes on without pictures does not stop the ladder.
    pictured: Option<Mono>,
    /// There was sound when it was filled last.
    sounding: bool,
}

#[derive(Clone, Copy, Debug)]
struct Away {
    /// Frames from here on show the slate.
    slate_from: i64,
}

/// Frames to show until the source is back: all below `to` that were not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub to: i64,
    pub with: Filling,
}

impl Filler {
    pub(super) fn new(rate: FrameRate) -> Filler {
        Filler {
            rate,
            heard: Mono(0),
            next: None,
            away: None,
            filled: i64::MIN,
            began: i64::MIN,
            gone: false,
            pictured: None,
            sounding: false,
        }
    }

    /// The source is away since before frame `from`; nobody remembers its last picture.
    pub(super) fn resume(&mut self, from: i64) {
        self.next = Some(self.rate.ticks(from));
        self.away = Some(Away { slate_from: from });
        (self.filled, self.began, self.gone) = (from, from, true);
    }

    /// A source is about to deliver: it is waited for again.
    pub(super) fn joined(&mut self) {
        self.gone = false;
    }

    fn patience(&self) -> Duration {
        if self.gone { Duration::ZERO } else { PATIENCE }
    }

    /// A track on air delivered something.
    pub(super) fn heard(&mut self, at: Mono) {
        self.heard = self.heard.max(at);
    }

    /// A ladder alone: a picture came.
    pub(super) fn pictured(&mut self, at: Mono) {
        self.pictured = Some(at);
    }

    /// The reference track delivered a unit of session time `time` (ticks); no later one can have a smaller N than `low`.
    /// What lies before it is filled as it was so far.
    pub(super) fn back(&mut self, time: i64, low: i64) -> Option<Step> {
        self.next = Some(time + self.rate.ticks(1));
        self.gone = false;
        let away = self.away.take()?;
        let with = self.with(away);
        let step = (low > self.filled).then_some(Step { to: low, with });
        self.filled = self.filled.max(low);
        step
    }

    /// N jumped to `n`: nothing is shown before it any more.
    pub(super) fn jumped(&mut self, n: i64) {
        self.away = None;
        self.filled = self.filled.max(n);
    }

    /// `n` was filled: a picture of that index comes too late.
    pub(super) fn has_filled(&self, n: i64) -> bool {
        n < self.filled
    }

    /// `n` was shown without a picture of the source, in the last fill.
    pub(super) fn showed(&self, n: i64) -> bool {
        (self.began..self.filled).contains(&n)
    }

    /// The session is over: nothing is filled any more.
    pub(super) fn stop(&mut self) {
        self.next = None;
        self.away = None;
    }

    /// When `poll` is due. `pace`: arrival minus session time, nanoseconds.
    pub(super) fn deadline(&self, pace: i64) -> Option<Mono> {
        let due = |time: i64| Mono(pace.saturating_add(nanos(time)).max(0).cast_unsigned()) + self.patience();
        match self.away {
            // Two ticks later than it is: as much as rounding may take away on the way to nanoseconds and back.
            Some(_) => Some(due(self.rate.ticks(self.filled) + 2)),
            None => {
                let silent = self.heard + PATIENCE;
                let still = self.pictured.map_or(silent, |at| silent.min(at + PICTURE_PATIENCE));
                self.next.map(|next| due(next).max(still))
            }
        }
    }

    /// What is to be filled by now: at most `STEP_FRAMES` at a time, so that a clock that stood still floods nobody.
    pub(super) fn poll(&mut self, now: Mono, pace: i64) -> Option<Step> {
        if self.deadline(pace).is_none_or(|at| now < at) {
            return None;
        }
        let past = expected(pace, now.back(self.patience()));
        let overdue = past.saturating_mul(i64::from(self.rate.num)).div_euclid(90_000 * i64::from(self.rate.den));
        let away = match (self.away, self.next) {
            (Some(away), _) => {
                // As long as there is sound the last picture stands. A slate stays until there is another one.
                if self.sounds(now) && self.filled < away.slate_from { self.hold() } else { away }
            }
            (None, next) => {
                self.filled = self.filled.max(self.rate.frames(next?));
                self.began = self.filled;
                self.hold()
            }
        };
        self.away = Some(away);
        self.sounding = self.sounds(now);
        let with = self.with(away);
        let last = if with == Filling::Slate { i64::MAX } else { away.slate_from };
        let to = (overdue + 1).min(self.filled + STEP_FRAMES).min(last);
        if to <= self.filled {
            return None;
        }
        self.filled = to;
        Some(Step { to, with })
    }

    fn sounds(&self, now: Mono) -> bool {
        self.pictured.is_some() && now < self.heard + PATIENCE
    }

    fn hold(&self) -> Away {
        Away { slate_from: self.filled + HOLD_SECONDS * self.rate.hz().round() as i64 }
    }

    fn with(&self, away: Away) -> Filling {
        match self.filled < away.slate_from {
            true if self.sounding => Filling::Still,
            true => Filling::Hold,
            false => Filling::Slate,
        }
    }
}

/// So long past its due time a frame is waited for.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// While there is sound, a picture is waited for so long.
const PICTURE_PATIENCE: Duration = Duration::from_secs(1);
/// The last picture is held so long before the slate.
const HOLD_SECONDS: i64 = 1;
const STEP_FRAMES: i64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: FrameRate = FrameRate::new(25_000, 1_000);
    /// Session time 0 arrives one second after the clock's start.
    const PACE: i64 = 1_000_000_000;

    fn at(ms: u64) -> Mono {
        Mono(1_000_000_000) + Duration::from_millis(ms)
    }

    /// A filler whose reference delivered frames 0 to `last` in time, its audio up to the same instant.
    fn delivered(last: i64) -> Filler {
        let mut filler = Filler::new(RATE);
        for n in 0..=last {
            assert_eq!(filler.back(n * 3_600, n), None);
            filler.heard(at(n.cast_unsigned() * 40));
        }
        filler
    }

    /// Runs the clock by its own deadlines up to `until`.
    fn run(filler: &mut Filler, until: Mono) -> Vec<(Mono, Step)> {
        let mut steps = Vec::new();
        while let Some(due) = filler.deadline(PACE).filter(|due| *due <= until) {
            match filler.poll(due, PACE) {
                Some(step) => steps.push((due, step)),
                None => assert!(filler.deadline(PACE) > Some(due), "a deadline that brings nothing moves on"),
            }
        }
        steps
    }

    #[test]
    fn nothing_is_filled_while_the_source_delivers_and_before_it_did() {
        assert_eq!(Filler::new(RATE).deadline(PACE), None);
        let mut filler = delivered(100);
        assert_eq!(filler.deadline(PACE), Some(at(101 * 40 + 500)));
        assert_eq!(run(&mut filler, at(101 * 40 + 499)), []);
    }

    #[test]
    fn each_frame_is_filled_once_half_a_second_late_first_held_then_slate() {
        let mut filler = delivered(100);
        let steps = run(&mut filler, at(14_000));
        let mut next = 102;
        for (when, step) in &steps {
            assert_eq!(step.to, next, "one frame after the other");
            let due = at((step.to - 1).cast_unsigned() * 40 + 500);
            assert!(*when >= due && when.since(due) < Duration::from_millis(1), "{step:?}");
            assert_eq!(step.with, if step.to <= 126 { Filling::Hold } else { Filling::Slate }, "{step:?}");
            next += 1;
        }
        assert_eq!(next - 1, (14_000 - 500) / 40 + 1);
    }

    #[test]
    fn audio_that_goes_on_keeps_it_from_starting_and_does_not_end_it() {
        let mut filler = delivered(100);
        for ms in (4_000..9_000).step_by(20) {
            filler.heard(at(ms));
            assert_eq!(filler.poll(at(ms), PACE), None);
        }
        let steps = run(&mut filler, at(9_600));
        assert_eq!(steps.first().map(|(when, _)| *when), Some(at(8_980 + 500)));
        filler.heard(at(9_600));
        assert!(filler.poll(at(9_700), PACE).is_some(), "pictures are still missing");
    }

    #[test]
    fn a_ladder_holds_its_last_picture_as_long_as_there_is_sound() {
        let mut filler = delivered(100);
        filler.pictured(at(4_000));
        let mut steps = Vec::new();
        for ms in (4_000..9_000).step_by(20) {
            filler.heard(at(ms));
            steps.extend(run(&mut filler, at(ms)));
        }
        assert_eq!(steps.first().map(|(when, _)| *when), Some(at(5_000)));
        assert!(steps.iter().all(|(_, step)| step.with == Filling::Still), "{steps:?}");
        let to = steps.last().unwrap().1.to;
        assert!((210..=213).contains(&to), "in time: {to}");
        // The sound goes as well: a second later there is the slate.
        let steps = run(&mut filler, at(12_000));
        let slate = steps.iter().find(|(_, step)| step.with == Filling::Slate).unwrap();
        assert!(slate.0 >= at(9_900) && slate.0 <= at(10_600), "{slate:?}");
    }

    #[test]
    fn the_source_that_returns_finds_everything_before_it_filled() {
        for (away_ms, with) in [(700u64, Filling::Hold), (5_000, Filling::Slate)] {
            let mut filler = delivered(100);
            run(&mut filler, at(4_040 + away_ms));
            let n = 101 + i64::try_from(away_ms).unwrap() / 40;
            assert_eq!(filler.back(n * 3_600, n), Some(Step { to: n, with }), "{away_ms}");
            assert!(filler.has_filled(n - 1) && !filler.has_filled(n));
            assert_eq!(filler.back((n + 1) * 3_600, n + 1), None);
        }
        // Units that were only late: what was filled is hidden, nothing else is filled.
        let mut filler = delivered(100);
        run(&mut filler, at(4_040 + 700));
        assert_eq!(filler.back(101 * 3_600, 101), None);
        assert!(filler.has_filled(105) && !filler.has_filled(106));
    }

    #[test]
    fn a_second_outage_holds_again() {
        let mut filler = delivered(100);
        run(&mut filler, at(8_000));
        filler.back(300 * 3_600, 300);
        filler.heard(at(12_000));
        let steps = run(&mut filler, at(12_800));
        assert!(!steps.is_empty() && steps.iter().all(|(_, step)| step.with == Filling::Hold), "{steps:?}");
    }

    #[test]
    fn a_clock_that_stood_still_fills_in_bounded_steps() {
        let mut filler = delivered(100);
        let late = at(600_000);
        let (mut steps, mut to) = (0, 0);
        while let Some(step) = filler.poll(late, PACE) {
            assert!(step.to > to && step.to - to.max(101) <= STEP_FRAMES, "{step:?} after {to}");
            (steps, to) = (steps + 1, step.to);
        }
        assert_eq!(to, (600_000 - 500) / 40 + 1);
        assert!(steps < 300, "{steps}");
        filler.stop();
        assert_eq!(filler.deadline(PACE), None);
    }
}

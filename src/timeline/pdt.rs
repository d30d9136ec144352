//! PROGRAM-DATE-TIME: a line through the earliest arrivals, re-fitted rarely and without a step.

use std::time::Duration;

use super::run::nanos;
use crate::media::grid::{Grid, PdtLine};
use crate::time::{Mono, Wall};

#[derive(Debug)]
pub(super) struct Pdt {
    grid: Grid,
    /// The line in force and, from its `from_n` on, the one after it.
    line: PdtLine,
    next: Option<PdtLine>,
    fitted: Mono,
    /// Error (arrival - PDT) when the line was fitted, and of the first window after: (when, ns).
    at_fit: i64,
    reference: Option<(Mono, i64)>,
    window: Mono,
    least: i64,
    /// No part is published by the line yet.
    first: bool,
    /// Its dates begin here or later: at the end of the run before.
    floor: Wall,
}

/// The first line: the smallest (arrival - time since the first frame) of the frames seen so far.
pub(super) fn first_line(from_n: i64, seen: impl Iterator<Item = (Wall, i64)>, ppm: i32) -> Option<PdtLine> {
    let wall = seen.map(|(arrival, time)| arrival.0.saturating_sub(nanos(time))).min()?;
    Some(PdtLine { from_n, wall: Wall(wall), ppm })
}

impl Pdt {
    pub(super) fn new(grid: Grid, line: PdtLine, now: Mono) -> Pdt {
        Pdt {
            grid,
            line,
            next: None,
            fitted: now,
            at_fit: 0,
            reference: None,
            window: now,
            least: i64::MAX,
            first: true,
            floor: Wall(i64::MIN),
        }
    }

    /// The line of a run that follows what ended at session time `ended`, if anything did: dates go forward, also where
    /// pictures come faster than they are shown.
    pub(super) fn followed(&self, line: PdtLine, ended: Option<i64>, now: Mono) -> Pdt {
        let date = |ended: i64| {
            let last = self.next.filter(|next| self.grid.nanos_at(next.from_n) <= ended).unwrap_or(self.line);
            last.at_nanos(&self.grid, ended)
        };
        let floor = ended.map_or(self.floor, |ended| date(nanos(ended)));
        Pdt { floor, ..Pdt::new(self.grid, PdtLine { wall: line.wall.max(floor), ..line }, now) }
    }

    /// In force.
    pub(super) fn line(&self) -> PdtLine {
        self.line
    }

    /// Parts were published by the line already.
    pub(super) fn resume(&mut self) {
        self.first = false;
    }

    pub(super) fn ppm(&self) -> i32 {
        self.next.unwrap_or(self.line).ppm
    }

    /// One frame of session time `time` (ticks) arrived; `max_n`: the furthest frame so far; `dated`: the furthest one whose
    /// date was told. A line to commit, if due.
    pub(super) fn observe(&mut self, now: Mono, arrival: Wall, time: i64, max_n: i64, dated: i64) -> Option<PdtLine> {
        if let Some(next) = self.next.filter(|next| max_n >= next.from_n) {
            self.line = next;
            self.next = None;
            self.restart(now);
        }
        let pdt = self.line.at_nanos(&self.grid, nanos(time));
        let early = pdt.0.saturating_sub(arrival.0).min(self.line.wall.0.saturating_sub(self.floor.0));
        self.first = self.first && max_n < self.line.from_n + i64::from(self.grid.cadence.part);
        if early > 0 && self.first {
            // The line was drawn through frames that came late, and nothing is published by it yet.
            self.line.wall = Wall(self.line.wall.0.saturating_sub(early));
            return Some(self.line);
        }
        self.least = self.least.min(arrival.0.saturating_sub(pdt.0));
        if now.since(self.window) < WINDOW {
            return None;
        }
        let error = std::mem::replace(&mut self.least, i64::MAX);
        self.window = now;
        let Some((since, first)) = self.reference else {
            self.reference = Some((now, error));
            return None;
        };
        let age = now.since(self.fitted);
        let grows = error.abs() > ERROR_MAX && error.abs() > self.at_fit.abs() + ERROR_GROWTH;
        if self.next.is_some() || !(age >= REFIT || (grows && age >= REFIT_SOONEST)) {
            return None;
        }
        let elapsed = i64::try_from(now.since(since).as_nanos()).unwrap_or(i64::MAX).max(1);
        // Two windows that lie close together tell jitter, not drift.
        let drift = if elapsed < nanos_of(REFIT_SOONEST) { 0 } else { ppm_of(error - first, elapsed) };
        let repair = ppm_of(error, nanos_of(REFIT));
        let most = if error < 0 { SLOPE_STEP_AHEAD } else { SLOPE_STEP };
        let change = (drift + repair).clamp(-most, most);
        self.at_fit = error;
        self.fitted = now;
        if change == 0 {
            self.restart(now);
            return None;
        }
        let f = i64::from(self.grid.cadence.segment);
        let from_n = (max_n.max(dated).div_euclid(f) + 2) * f;
        let wall = self.line.at(&self.grid, from_n);
        let next = PdtLine { from_n, wall, ppm: self.line.ppm.saturating_add(change) };
        self.next = Some(next);
        self.next
    }

    /// Arrivals from here on are not to be compared with those before: another run, or the source was away. What lies
    /// between is a step, not a drift.
    pub(super) fn restart(&mut self, now: Mono) {
        self.reference = None;
        self.window = now;
        self.least = i64::MAX;
    }
}

fn nanos_of(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

fn ppm_of(error: i64, over: i64) -> i32 {
    i32::try_from(i128::from(error) * 1_000_000 / i128::from(over.max(1))).unwrap_or(0)
}

/// The smallest error of so long a window counts: later frames were only late.
const WINDOW: Duration = Duration::from_secs(10);
/// A line holds at least so long ...
const REFIT: Duration = Duration::from_secs(600);
/// ... unless its error passes 40 ms and grows: the first lines know no slope yet.
const REFIT_SOONEST: Duration = Duration::from_secs(20);
const ERROR_MAX: i64 = 40_000_000;
const ERROR_GROWTH: i64 = 20_000_000;
/// Largest change of slope, ppm; the second while PDT is ahead of the wall.
const SLOPE_STEP: i32 = 2_000;
const SLOPE_STEP_AHEAD: i32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::grid::Cadence;
    use crate::media::modes::LatencyMode as Mode;

    #[test]
    fn frames_that_came_late_before_the_first_part_do_not_put_it_into_the_future() {
        let grid = Grid { cadence: Cadence::for_rate(25.0, Mode::Ultra), msn0: 1 };
        let late = PdtLine { from_n: 0, wall: Wall(200_000_000), ppm: 0 };
        let mut pdt = Pdt::new(grid, late, Mono(0));
        let seen = |pdt: &mut Pdt, n: i64, late: i64| {
            let arrival = n * 40_000_000 + late;
            pdt.observe(Mono(arrival.cast_unsigned()), Wall(arrival), n * 3_600, n, 0).map(|line| line.wall.0)
        };
        assert_eq!(seen(&mut pdt, 3, 250_000_000), None);
        assert_eq!(seen(&mut pdt, 4, 90_000_000), Some(90_000_000));
        assert_eq!(seen(&mut pdt, 9, 20_000_000), Some(20_000_000));
        assert_eq!(seen(&mut pdt, 10, 0), None, "a part may be published by now");
    }
    use crate::media::modes::LatencyMode;

    const SECOND: i64 = 1_000_000_000;

    /// Runs a source `ppm` slow for `seconds` with jitter up to 30 ms; the worst |arrival floor - PDT| and the lines.
    fn run(ppm: i64, seconds: i64) -> (i64, Vec<PdtLine>) {
        let grid = Grid { cadence: Cadence::for_rate(25.0, LatencyMode::Ultra), msn0: 1 };
        let mut lines = vec![PdtLine { from_n: 0, wall: Wall(0), ppm: 0 }];
        let mut pdt = Pdt::new(grid, lines[0], Mono(0));
        let (mut worst, mut noise) = (0, 7u64);
        for n in 0..seconds * 25 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let ideal = n * (SECOND / 25) + n * (SECOND / 25) / 1_000_000 * ppm;
            let arrival = ideal + i64::try_from(noise >> 40).unwrap() % 30_000_000;
            if let Some(line) = pdt.observe(Mono(arrival.cast_unsigned()), Wall(arrival), n * 3_600, n, 0) {
                lines.retain(|before| before.from_n != line.from_n);
                lines.push(line);
            }
            let line = lines.iter().rfind(|line| line.from_n <= n).unwrap();
            worst = worst.max((line.at(&grid, n).0 - ideal).abs());
        }
        (worst, lines)
    }

    #[test]
    fn a_source_two_thousand_ppm_off_stays_within_a_hundred_milliseconds() {
        for ppm in [-2_000, -500, -100, 0, 100, 500, 2_000] {
            let (worst, lines) = run(ppm, 3 * 3_600);
            assert!(worst <= 100_000_000, "{ppm} ppm: {} ms, {lines:?}", worst / 1_000_000);
            assert!(lines.len() <= 3 + 18 + 1, "{ppm} ppm: {} lines in 3 h", lines.len());
        }
    }

    #[test]
    fn a_date_that_was_told_ahead_does_not_change() {
        let grid = Grid { cadence: Cadence::for_rate(25.0, LatencyMode::Ultra), msn0: 1 };
        let mut pdt = Pdt::new(grid, PdtLine { from_n: 0, wall: Wall(0), ppm: 0 }, Mono(0));
        let mut lines = (0..3_600 * 25).filter_map(|n: i64| {
            let arrival = n * (SECOND / 25) + n * (SECOND / 25) / 500;
            let told = n + 700;
            let line = pdt.observe(Mono(arrival.cast_unsigned()), Wall(arrival), n * 3_600, n, told)?;
            Some((told, line.from_n))
        });
        let lines: Vec<_> = lines.by_ref().collect();
        assert!(lines.len() > 3 && lines.iter().all(|(told, from)| from > told), "{lines:?}");
    }

    #[test]
    fn lines_join_without_a_step_and_change_slope_within_their_limits() {
        let grid = Grid { cadence: Cadence::for_rate(25.0, LatencyMode::Ultra), msn0: 1 };
        for ppm in [-2_000, 2_000] {
            let (_, lines) = run(ppm, 7_200);
            assert!(lines.len() > 1);
            for pair in lines.windows(2) {
                assert_eq!(pair[0].at(&grid, pair[1].from_n), pair[1].wall);
                assert!((pair[0].ppm - pair[1].ppm).abs() <= 10_000 && pair[1].from_n % 50 == 0);
            }
        }
    }

    #[test]
    fn the_dates_of_a_run_begin_where_those_of_the_one_before_it_end() {
        let grid = Grid { cadence: Cadence::for_rate(25.0, LatencyMode::Ultra), msn0: 1 };
        let pdt = Pdt::new(grid, PdtLine { from_n: 0, wall: Wall(0), ppm: 0 }, Mono(0));
        let (now, arrival) = (Mono(400_000_000), Wall(400_000_000));
        let drawn = PdtLine { from_n: 50, wall: arrival, ppm: 0 };
        // Eleven frames were shown, the last one arrived with the first one of the new run and with all that follow.
        let mut next = pdt.followed(drawn, Some(11 * 3_600), now);
        assert_eq!(next.line().wall, Wall(440_000_000));
        for n in 50..55 {
            assert_eq!(next.observe(now, arrival, n * 3_600, n, 0), None, "frame {n}");
        }
        // Ten were: what comes early moves the line as far as there is room.
        let mut next = pdt.followed(drawn, Some(9 * 3_600), now);
        assert_eq!(next.line().wall, arrival);
        let moved = next.observe(now, arrival, 52 * 3_600, 52, 0).map(|line| line.wall);
        assert_eq!(moved, Some(Wall(360_000_000)));
        assert_eq!(next.observe(now, arrival, 54 * 3_600, 54, 0), None);
        // Nothing was dated by it.
        assert_eq!(next.followed(drawn, None, now).line().wall, arrival);
    }

    #[test]
    fn a_late_first_frame_does_not_put_the_line_into_the_future() {
        let seen = [(Wall(900_000_000), 0i64), (Wall(540_000_000), 3_600), (Wall(581_000_000), 7_200)];
        assert_eq!(first_line(0, seen.into_iter(), 0).unwrap().wall, Wall(500_000_000));
    }
}

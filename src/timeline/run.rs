//! Which run? Every arriving unit of the reference track is put on a run: the one it continues, an older one that fits
//! it, or a new one.
//!
//! All comparisons are made in session time: 90 kHz ticks from N = 0, of the decode line (DTS rebased so that the
//! anchor's picture lies at n0). A leg's *line* says when session time should arrive; it is smoothed, and so follows a
//! source clock that drifts.

use std::collections::VecDeque;

use crate::media::grid::{Anchor, FrameRate};
use crate::time::Mono;
use crate::time::ticks::WRAP_33;
use crate::time::unwrap::nearest;

/// Rules that the simulation switches off to prove that its checker would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A step is a whole number of frames (+-0.2), and an anchor fits only in phase.
    pub whole_frames: bool,
    /// An anchor fits only ahead of everything that the leg delivered.
    pub ahead: bool,
    /// What was filled counts as shown.
    pub filled: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { whole_frames: true, ahead: true, filled: true }
    }
}

/// Stamps of one unit, raw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub pts: u64,
    pub dts: u64,
    /// PTS - DTS, ticks, >= 0.
    pub delay: i64,
    pub random_access: bool,
    pub arrival: Mono,
}

impl Stamp {
    /// PTS before DTS, or further than 10 s behind it, is no PTS: DTS stands for it.
    pub(super) fn new(pts: u64, dts: u64, random_access: bool, arrival: Mono) -> (Stamp, bool) {
        let delay = nearest(pts.cast_signed() - dts.cast_signed(), 0);
        let sane = (0..=900_000).contains(&delay);
        let (pts, delay) = if sane { (pts, delay) } else { (dts, 0) };
        (Stamp { pts, dts, delay, random_access, arrival }, sane)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub anchor: Anchor,
    /// Session time of frame n0.
    pub base: i64,
    /// PTS - DTS of a random access point: pts0 - dts0.
    delay0: i64,
    /// Smallest N that this run may show: earlier ones belong to what was before it.
    pub floor: i64,
    /// The source's clock went on as it was: other headers began this run, no jump.
    pub same_clock: bool,
}

/// Where a unit lies on its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub run: u32,
    /// Index in presentation order.
    pub n: i64,
    /// Index in decode order.
    pub d: i64,
    /// Session time of decoding and of presentation.
    pub time: i64,
    pub shown_at: i64,
    /// No later unit of this run can have a smaller N.
    pub low: i64,
}

impl Run {
    fn place(&self, rate: FrameRate, stamp: &Stamp, expected: i64) -> Placed {
        let near = expected.saturating_sub(self.base);
        let pos = nearest((stamp.dts.cast_signed() - self.anchor.dts0.cast_signed()).rem_euclid(WRAP_33), near);
        let shown = pos + stamp.delay - self.delay0;
        let n = self.anchor.n0 + rate.frames(shown);
        Placed {
            run: self.anchor.run,
            n,
            d: self.anchor.n0 + rate.frames(pos),
            time: self.base + pos,
            shown_at: self.base + shown,
            low: if stamp.random_access { n } else { self.anchor.n0 + rate.frames(pos - self.delay0) },
        }
    }

    /// Session time of a raw stamp of another track of the same program, nearest to `expected`.
    pub(super) fn time_of(&self, raw: u64, expected: i64) -> i64 {
        let near = expected.saturating_sub(self.base);
        self.base + nearest((raw.cast_signed() - self.anchor.pts0.cast_signed()).rem_euclid(WRAP_33), near)
    }
}

/// When session time arrives on one leg.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub run: u32,
    /// Of the last unit.
    pub n: i64,
    pub time: i64,
    pub arrival: Mono,
    /// Arrival minus session time, nanoseconds, smoothed.
    pub offset: i64,
}

impl Line {
    /// Session time that should arrive `at`.
    pub(super) fn expected(&self, at: Mono) -> i64 {
        expected(self.offset, at)
    }
}

pub(super) fn expected(offset: i64, at: Mono) -> i64 {
    ticks(at.0.cast_signed().saturating_sub(offset))
}

pub(super) fn nanos(ticks: i64) -> i64 {
    i64::try_from(i128::from(ticks) * 100_000 / 9).unwrap_or(i64::MAX)
}

pub(super) fn ticks(nanos: i64) -> i64 {
    i64::try_from(i128::from(nanos) * 9 / 100_000).unwrap_or(i64::MAX)
}

pub(super) fn offset_of(arrival: Mono, time: i64) -> i64 {
    arrival.0.cast_signed().saturating_sub(nanos(time))
}

/// One step of the smoothing that lines use.
pub(super) fn smoothed(offset: i64, sample: i64) -> i64 {
    offset + (sample - offset) / SMOOTHING
}

/// Which N were given out: the last 128.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    max: Option<i64>,
    bits: u128,
}

impl Shown {
    /// False if `n` was shown before, or lies too far back to know.
    pub(super) fn show(&mut self, n: i64) -> bool {
        let max = *self.max.get_or_insert(n - 1);
        if n > max {
            self.bits = u32::try_from(n - max).ok().and_then(|by| self.bits.checked_shl(by)).unwrap_or(0) | 1;
            self.max = Some(n);
            return true;
        }
        let Some(bit) = u32::try_from(max - n).ok().and_then(|by| 1u128.checked_shl(by)) else { return false };
        let free = self.bits & bit == 0;
        self.bits |= bit;
        free
    }

    /// Everything below `to` counts as shown.
    pub(super) fn fill(&mut self, to: i64) {
        let max = *self.max.get_or_insert(to - 1);
        if to > max {
            (self.max, self.bits) = (Some(to - 1), u128::MAX);
            return;
        }
        self.bits |= u32::try_from(max - (to - 1)).ok().and_then(|by| u128::MAX.checked_shl(by)).unwrap_or(0);
    }

    /// `n` was shown, and is still remembered.
    fn has(&self, n: i64) -> bool {
        let back = self.max.and_then(|max| u32::try_from(max - n).ok());
        back.and_then(|by| 1u128.checked_shl(by)).is_some_and(|bit| self.bits & bit != 0)
    }

    pub(super) fn max(&self) -> Option<i64> {
        self.max
    }

    pub(super) fn next(&self) -> i64 {
        self.max.map_or(0, |max| max + 1)
    }
}

#[derive(Debug, Default)]
struct Leg {
    line: Option<Line>,
    /// On a run; otherwise it waits for one that fits (a backup).
    placed: bool,
    /// First unit of a connection: nothing continues by itself.
    fresh: bool,
    /// Newest run that was tried in vain.
    tried: Option<u32>,
    /// Every N that it delivered.
    given: Shown,
    /// The N of its last unit was among them before.
    repeats: bool,
}

/// What became of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Time continued.
    Continues(Placed),
    /// It did not, but an anchor that exists fits.
    Fits(Placed),
    /// No anchor fits: a new run is due, if this leg may make one.
    Stray,
}

/// All runs of a session and the lines of its legs.
#[derive(Debug)]
pub(super) struct Runs {
    pub rate: FrameRate,
    /// Steps are whole numbers of frames: the source's rate is the grid's.
    pub exact: bool,
    pub rules: Rules,
    /// Oldest first, at most `RUNS_MAX`.
    runs: VecDeque<Run>,
    legs: [Leg; LEGS_MAX],
    /// Arrival minus session time of the leg on air, nanoseconds; moves at most 0.3 %: small jumps do not add up.
    pace: Option<(i64, Mono)>,
    /// (first N, run) in the order in which the leg on air took them.
    owners: VecDeque<(i64, u32)>,
    /// Arrivals of units off the grid while time went on otherwise.
    off_grid: VecDeque<Mono>,
    next_run: u32,
    /// Frames before this one were published by a process that is gone.
    resumed: Option<i64>,
}

impl Runs {
    pub(super) fn new(rate: FrameRate, exact: bool, rules: Rules) -> Runs {
        Runs {
            rate,
            exact,
            rules,
            runs: VecDeque::new(),
            legs: Default::default(),
            pace: None,
            owners: VecDeque::new(),
            off_grid: VecDeque::new(),
            next_run: 0,
            resumed: None,
        }
    }

    /// Goes on at frame `from` with runs that another process began. `pace`: what arrives `at` this instant.
    pub(super) fn resume(&mut self, anchors: &[Anchor], from: i64, pace: i64, at: Mono) {
        for anchor in anchors.iter().skip(anchors.len().saturating_sub(RUNS_MAX)) {
            let delay0 = nearest(anchor.pts0.cast_signed() - anchor.dts0.cast_signed(), 0);
            let (base, floor) = (self.rate.ticks(anchor.n0), anchor.n0.max(from));
            let run = Run { anchor: *anchor, base, delay0, floor, same_clock: false };
            self.runs.push_back(run);
            self.own(anchor.n0, anchor.run);
        }
        (self.resumed, self.pace) = (Some(from), Some((pace, at)));
        let Some(last) = self.runs.back().map(|run| run.anchor.run) else { return };
        self.next_run = last + 1;
        let line = Line { run: last, n: from - 1, time: expected(pace, at), arrival: at, offset: pace };
        for leg in &mut self.legs {
            (leg.line, leg.placed, leg.fresh) = (Some(line), false, true);
        }
    }

    /// Arrival minus session time of what is on air, nanoseconds.
    pub(super) fn pace(&self) -> Option<i64> {
        self.pace.map(|(offset, _)| offset)
    }

    pub(super) fn joined(&mut self, leg: u8) {
        if let Some(leg) = self.legs.get_mut(usize::from(leg)) {
            leg.fresh = true;
        }
    }

    pub(super) fn line(&self, leg: u8) -> Option<Line> {
        let leg = self.legs.get(usize::from(leg))?;
        leg.line.filter(|_| leg.placed)
    }

    /// Two units of this leg, its last one among them, fell on one N.
    pub(super) fn repeats(&self, leg: u8) -> bool {
        self.legs.get(usize::from(leg)).is_some_and(|leg| leg.repeats)
    }

    pub(super) fn run(&self, id: u32) -> Option<&Run> {
        self.runs.iter().rev().find(|r| r.anchor.run == id)
    }

    /// Judges a unit of `leg` and moves its line. `on_air`: the leg that the session is fed by.
    pub(super) fn judge(&mut self, leg: u8, stamp: &Stamp, on_air: Option<u8>) -> Verdict {
        let Some(state) = self.legs.get(usize::from(leg)) else {
            return Verdict::Stray;
        };
        let line = state.line.filter(|_| state.placed && !state.fresh);
        if let Some(placed) = line.and_then(|line| self.continues(leg, &line, stamp)) {
            self.moved(leg, stamp, placed, true, on_air);
            return Verdict::Continues(placed);
        }
        let state = &self.legs[usize::from(leg)];
        let newest = self.runs.back().map(|r| r.anchor.run);
        if !state.placed && !state.fresh && state.tried == newest && !stamp.random_access {
            return Verdict::Stray;
        }
        if let Some(placed) = self.fits(leg, stamp, on_air) {
            if self.owner(placed.n) != Some(placed.run) {
                self.own(placed.low, placed.run);
            }
            self.moved(leg, stamp, placed, false, on_air);
            return Verdict::Fits(placed);
        }
        let state = &mut self.legs[usize::from(leg)];
        state.placed = false;
        state.fresh = false;
        state.tried = newest;
        Verdict::Stray
    }

    /// The step is positive, within 0.5 s of what its arrival says, and a whole number of frames.
    fn continues(&mut self, leg: u8, line: &Line, stamp: &Stamp) -> Option<Placed> {
        let due = line.expected(stamp.arrival);
        let placed = self.run(line.run)?.place(self.rate, stamp, due);
        let shown = !self.prime(&placed);
        if shown && self.rules.ahead && self.owner(placed.n) != Some(line.run) {
            return None;
        }
        let step = placed.time - line.time;
        if step <= 0 || (placed.time - due).abs() > STEP_MAX {
            return None;
        }
        if placed.time - due > STEP_MAX / 5 && self.runs_ahead(&placed, stamp.arrival, FIT_MAX) {
            return None;
        }
        // Among reordered pictures even a whole step may land on one that was there before.
        if shown && self.exact && self.rules.whole_frames && self.legs[usize::from(leg)].given.has(placed.n) {
            return None;
        }
        let whole = self.rate.frames(step) >= 1 && self.rate.phase(step).abs() <= PHASE_MAX;
        if self.exact && self.rules.whole_frames && !whole {
            self.went_off_grid(stamp.arrival);
            if self.exact {
                return None;
            }
        }
        Some(placed)
    }

    /// A source that leaves its own grid again and again is one of variable rate: no run per picture.
    fn went_off_grid(&mut self, at: Mono) {
        self.off_grid.push_back(at);
        while self.off_grid.front().is_some_and(|first| at.since(*first) > OFF_GRID_SPAN) {
            self.off_grid.pop_front();
        }
        if self.off_grid.len() > OFF_GRID_MAX {
            self.exact = false;
            self.off_grid.clear();
        }
    }

    /// Before the first frame that its run shows.
    pub(super) fn prime(&self, placed: &Placed) -> bool {
        self.run(placed.run).is_some_and(|run| placed.n < run.floor.max(0))
    }

    /// Further ahead of the session's pace than any single jump may lead: small jumps must not add up.
    fn runs_ahead(&self, placed: &Placed, at: Mono, most: i64) -> bool {
        self.pace.is_some_and(|(offset, _)| placed.time - expected(offset, at) > most)
    }

    /// The anchor on which the unit lies where the leg's line, or that of the leg on air, expects it.
    fn fits(&self, leg: u8, stamp: &Stamp, on_air: Option<u8>) -> Option<Placed> {
        let state = &self.legs[usize::from(leg)];
        let second = on_air.is_some_and(|air| air != leg);
        // A leg that was here lately knows its own line; one that joins is held against the one on air.
        let own = state.line.filter(|line| !second || stamp.arrival.since(line.arrival) <= LINE_STALE);
        let other = on_air.filter(|_| second).and_then(|air| self.legs.get(usize::from(air))?.line);
        let (line, within) = own.map(|line| (line, FIT_MAX)).or(other.map(|line| (line, FIT_MAX_SECOND)))?;
        let due = line.expected(stamp.arrival);
        let most = if second { FIT_MAX_SECOND } else { FIT_MAX };
        let given = self.legs.iter().filter_map(|leg| leg.given.max).max();
        let candidates = self.runs.iter().rev().filter_map(|run| {
            let placed = run.place(self.rate, stamp, due);
            let near = (placed.time - due).abs() <= within;
            let mine = self.owner(placed.n) == Some(placed.run) && placed.low >= run.floor;
            let free = mine || (!second && given.is_none_or(|max| placed.low > max));
            let ahead = !self.rules.ahead || (free && state.given.max.is_none_or(|max| placed.low > max));
            let phase = self.rate.phase(placed.shown_at - run.base);
            let in_phase = !self.exact || !self.rules.whole_frames || phase.abs() <= PHASE_MAX;
            (near && ahead && in_phase && !self.runs_ahead(&placed, stamp.arrival, most)).then_some(placed)
        });
        // Newest first; of several within its wider window a second leg takes the nearest.
        candidates.min_by_key(|placed| if second { (placed.time - due).abs() } else { 0 })
    }

    /// A new run at `stamp`, made by the leg on air. `next`: the smallest N it may show; `cut`: frames of a segment where
    /// it must begin on one.
    pub(super) fn begin(&mut self, leg: u8, stamp: &Stamp, next: i64, cut: Option<i64>) -> (Anchor, Placed) {
        let given = self.legs.iter().filter_map(|leg| leg.given.max).max();
        let next = next.max(given.map_or(0, |max| max + 1));
        // In mid-GOP the reordering goes on as it was, and pictures decoded late were overtaken: they are not shown.
        let reordered = self.runs.back().map(|run| run.delay0).filter(|_| !stamp.random_access);
        let delay0 = reordered.unwrap_or(stamp.delay);
        let late = reordered.map_or(0, |delay| self.rate.frames(delay) + REORDER_MAX);
        let n0 = match (cut, self.pace) {
            (Some(f), _) => (next + f - 1).div_euclid(f) * f,
            (None, Some((offset, _))) => {
                let due = self.rate.frames(expected(offset, stamp.arrival) + stamp.delay - delay0);
                // Nobody waits for the frame at which a session resumes: N would stay ahead of the wall.
                if self.resumed.is_some_and(|from| due < from) { due } else { due.max(next - late) }
            }
            (None, None) => next,
        };
        let dts0 = (stamp.pts.cast_signed() - delay0).rem_euclid(WRAP_33).cast_unsigned();
        let anchor = Anchor { run: self.next_run, term: 0, pts0: stamp.pts, dts0, n0 };
        self.next_run += 1;
        let floor = if late > 0 { next } else { n0 }.max(self.resumed.unwrap_or(i64::MIN));
        let run = Run { anchor, base: self.rate.ticks(n0), delay0, floor, same_clock: false };
        if self.runs.len() == RUNS_MAX {
            self.runs.pop_front();
        }
        self.runs.push_back(run);
        self.own(run.floor, anchor.run);
        if cut.is_some() {
            // Session time jumped: no line holds any more.
            self.pace = None;
            self.legs.iter_mut().for_each(|leg| (leg.line, leg.placed) = (None, false));
        }
        let placed = run.place(self.rate, stamp, run.base);
        self.moved(leg, stamp, placed, false, Some(leg));
        (anchor, placed)
    }

    /// A unit of `leg` goes on where its line is.
    pub(super) fn steps(&self, leg: u8, stamp: &Stamp) -> bool {
        let line = self.line(leg).filter(|_| !self.legs[usize::from(leg)].fresh);
        line.and_then(|line| {
            let due = line.expected(stamp.arrival);
            let time = self.run(line.run)?.place(self.rate, stamp, due).time;
            Some(time > line.time && (time - due).abs() <= STEP_MAX)
        })
        .unwrap_or(false)
    }

    /// The newest run has the clock of the one before it: what bears a later stamp than its first picture is of it.
    pub(super) fn goes_on(&mut self) {
        if let Some(run) = self.runs.back_mut() {
            run.same_clock = true;
        }
    }

    /// From `n` on, indices belong to `run`.
    fn own(&mut self, n: i64, run: u32) {
        if self.owners.len() == 2 * RUNS_MAX {
            self.owners.pop_front();
        }
        self.owners.push_back((n, run));
    }

    /// The run that frame `n` belongs to: another one's picture of that index would be a second one.
    fn owner(&self, n: i64) -> Option<u32> {
        self.owners.iter().rev().find(|(from, _)| *from <= n).or(self.owners.front()).map(|(_, run)| *run)
    }

    fn moved(&mut self, leg: u8, stamp: &Stamp, placed: Placed, smooth: bool, on_air: Option<u8>) {
        let shown = !self.prime(&placed);
        let state = &mut self.legs[usize::from(leg)];
        let sample = offset_of(stamp.arrival, placed.time);
        let offset = match state.line {
            Some(line) if smooth => smoothed(line.offset, sample),
            _ => sample,
        };
        state.line = Some(Line { run: placed.run, n: placed.n, time: placed.time, arrival: stamp.arrival, offset });
        state.placed = true;
        state.fresh = false;
        state.tried = None;
        if shown {
            state.repeats = !state.given.show(placed.n);
        }
        if on_air == Some(leg) {
            self.pace = Some(match self.pace {
                None => (offset, stamp.arrival),
                Some((pace, then)) => {
                    let most = i64::try_from(stamp.arrival.since(then).as_nanos()).unwrap_or(i64::MAX) / 333;
                    (pace + (offset - pace).clamp(-most, most), stamp.arrival)
                }
            });
        }
    }
}

/// Legs of one session.
pub(super) const LEGS_MAX: usize = 4;
/// Anchors that are looked at again.
const RUNS_MAX: usize = 16;
/// Pictures that B-frames may be decoded behind.
const REORDER_MAX: i64 = 3;
const SMOOTHING: i64 = 16;
/// 0.5 s, 1 s, 2 s in ticks.
const STEP_MAX: i64 = 45_000;
const FIT_MAX: i64 = 90_000;
const FIT_MAX_SECOND: i64 = 180_000;
const PHASE_MAX: f64 = 0.2;
/// A line this old gives way to that of the leg on air.
const LINE_STALE: std::time::Duration = std::time::Duration::from_secs(60);
/// More units off the grid than this within the span: the rate is variable.
const OFF_GRID_MAX: usize = 8;
const OFF_GRID_SPAN: std::time::Duration = std::time::Duration::from_secs(10);

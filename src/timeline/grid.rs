//! The grid's rate and the source's GOP, from what the headers say and the first units show.

use crate::media::grid::{Cadence, FrameRate, SourceGop};
use crate::media::modes::LatencyMode;
use crate::time::unwrap::nearest;

/// Collects the DTS steps of the reference track until its rate can be told.
#[derive(Clone, Debug, Default)]
pub(super) struct RateProbe {
    last: Option<i64>,
    /// Positive steps, ticks; at most `STEPS_MAX`.
    steps: Vec<i64>,
}

impl RateProbe {
    pub(super) fn push(&mut self, raw_dts: u64) {
        let raw = raw_dts.cast_signed();
        if let Some(last) = self.last {
            let step = nearest(raw, last) - last;
            if (1..=STEP_MAX).contains(&step) && self.steps.len() < STEPS_MAX {
                self.steps.push(step);
            }
        }
        self.last = Some(raw);
    }

    /// Steps enough to tell: two confirm a rate kept from before, three one that the headers name, ten tell by themselves.
    pub(super) fn enough(&self, stored: bool, named: Option<FrameRate>) -> bool {
        let named = self.steps.len() >= 3 && named.is_some_and(|named| agrees(&self.steps, named));
        (stored && self.steps.len() >= 2) || named || self.steps.len() >= 10
    }

    pub(super) fn resolve(&self, stored: Option<FrameRate>, named: Option<FrameRate>) -> (FrameRate, bool) {
        probed_rate(&self.steps, stored, named)
    }
}

/// The grid's rate and whether the source keeps it exactly: a stored rate binds; else the headers' if the steps agree,
/// else the row that the steps show, else (variable, or no row's) the next higher row.
pub fn probed_rate(steps: &[i64], stored: Option<FrameRate>, named: Option<FrameRate>) -> (FrameRate, bool) {
    let row = |hz: f64| Cadence::for_rate(hz, LatencyMode::Ultra).rate;
    let on_row = |rate: FrameRate| (row(rate.hz()).hz() - rate.hz()).abs() <= rate.hz() * 0.0005;
    if let Some(stored) = stored {
        return (stored, agrees(steps, stored));
    }
    if let Some(named) = named.filter(|named| (1.0..=1000.0).contains(&named.hz()) && agrees(steps, *named)) {
        return (row(named.hz()), on_row(named));
    }
    let Some(median) = median(steps) else {
        return (row(named.map_or(25.0, FrameRate::hz)), false);
    };
    // Holes count as the frames they are.
    let frames: i64 = steps.iter().map(|step| ((step + median / 2) / median).max(1)).sum();
    let ticks: i64 = steps.iter().sum();
    let hz = 90_000.0 * frames as f64 / ticks as f64;
    // Of rows that the steps allow (stamps may be whole milliseconds) the nearest; a tie goes to the higher.
    let best = (1..=120)
        .rev()
        .map(|half| row(f64::from(half) / 2.0))
        .chain([24_000, 30_000, 60_000].map(|num| FrameRate::new(num, 1_001)))
        .filter(|rate| keeps(steps, *rate))
        .min_by(|a, b| (a.hz() - hz).abs().total_cmp(&(b.hz() - hz).abs()));
    best.map_or_else(|| (row(hz), false), |rate| (rate, true))
}

/// Every step is a whole number of frames, and most are one: what a rate is taken from.
fn keeps(steps: &[i64], rate: FrameRate) -> bool {
    agrees(steps, rate) && steps.iter().filter(|step| rate.frames(**step) == 1).count() * 2 >= steps.len()
}

/// Every step is a whole number of frames, one at least is one frame, and their sum is right but for rounding to
/// milliseconds: what a rate is believed for.
fn agrees(steps: &[i64], rate: FrameRate) -> bool {
    let frames: i64 = steps.iter().map(|step| rate.frames(*step)).sum();
    let ticks: i64 = steps.iter().sum();
    steps.iter().any(|step| rate.frames(*step) == 1)
        && steps.iter().all(|step| rate.frames(*step) >= 1 && rate.phase(*step).abs() <= 0.2)
        && (ticks - rate.ticks(frames)).abs() <= MILLISECOND + ticks / 2_000
}

fn median(steps: &[i64]) -> Option<i64> {
    let mut sorted = steps.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

/// Distances between random access points, in frames of the decode line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GopProbe {
    last: Option<i64>,
    seen: u32,
    min: u32,
    max: u32,
}

impl GopProbe {
    pub(super) fn push(&mut self, d: i64) {
        if let Some(gop) = self.last.and_then(|last| u32::try_from(d - last).ok()).filter(|gop| *gop > 0) {
            self.min = if self.seen == 0 { gop } else { self.min.min(gop) };
            self.max = self.max.max(gop);
            self.seen = self.seen.saturating_add(1);
        }
        self.last = Some(d);
    }

    /// Time jumped: what lies between is no GOP.
    pub(super) fn restart(&mut self) {
        self.last = None;
    }

    pub(super) fn seen(&self) -> u32 {
        self.seen
    }

    pub(super) fn gop(&self) -> SourceGop {
        match self.seen {
            0 => SourceGop::Unknown,
            _ if self.min == self.max => SourceGop::Regular(self.max),
            _ => SourceGop::Irregular { max: self.max },
        }
    }
}

/// Longest step that is one (two seconds), and the most that are kept.
const STEP_MAX: i64 = 180_000;
const STEPS_MAX: usize = 64;
const MILLISECOND: i64 = 90;

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [(u32, u32); 11] = [
        (12_500, 1_000),
        (15_000, 1_000),
        (20_000, 1_000),
        (24_000, 1_001),
        (24_000, 1_000),
        (25_000, 1_000),
        (30_000, 1_001),
        (30_000, 1_000),
        (50_000, 1_000),
        (60_000, 1_001),
        (60_000, 1_000),
    ];

    fn steps(rate: FrameRate, count: i64, unit: i64) -> Vec<i64> {
        let at = |n: i64| (rate.ticks(n) + unit / 2).div_euclid(unit) * unit;
        (0..count).map(|n| at(n + 1) - at(n)).collect()
    }

    #[test]
    fn every_row_is_found_from_its_steps_alone() {
        for (num, den) in ROWS {
            let rate = FrameRate::new(num, den);
            assert_eq!(probed_rate(&steps(rate, 10, 1), None, None), (rate, true));
        }
    }

    #[test]
    fn a_named_rate_counts_if_the_steps_agree_and_only_then() {
        for (num, den) in ROWS {
            let rate = FrameRate::new(num, den);
            for unit in [1, 90] {
                assert_eq!(probed_rate(&steps(rate, 4, unit), None, Some(rate)), (rate, true), "{unit}");
            }
        }
        // Headers that name the field rate, or nothing true.
        let real = FrameRate::new(25_000, 1_000);
        for lie in [(50, 1), (90_000, 1), (1, 1)] {
            assert_eq!(probed_rate(&steps(real, 10, 1), None, Some(FrameRate::new(lie.0, lie.1))), (real, true));
        }
    }

    #[test]
    fn holes_in_the_first_steps_do_not_lower_the_rate() {
        let rate = FrameRate::new(30_000, 1_001);
        let mut lossy = steps(rate, 9, 1);
        lossy[3] += 3_003;
        assert_eq!(probed_rate(&lossy, None, None), (rate, true));
    }

    #[test]
    fn rates_without_a_row_and_variable_ones_go_to_the_next_higher_row() {
        for (hz, row) in [(10, 12_500), (18, 20_000), (48, 50_000)] {
            let (rate, exact) = probed_rate(&steps(FrameRate::new(hz, 1), 10, 1), None, None);
            assert_eq!((rate.num, exact), (row, false), "{hz}");
        }
        let (rate, exact) = probed_rate(&[3_000, 5_100, 2_000, 4_300, 6_700, 3_900], None, None);
        assert!(!exact && (20..=30).contains(&(rate.num / rate.den)), "{rate:?}");
    }

    #[test]
    fn a_stored_rate_binds_and_is_checked() {
        let stored = FrameRate::new(25_000, 1_000);
        assert_eq!(probed_rate(&[3_600, 3_600], Some(stored), None), (stored, true));
        assert_eq!(probed_rate(&[3_000, 3_000], Some(stored), None), (stored, false));
    }

    #[test]
    fn one_odd_distance_makes_a_gop_irregular_and_a_jump_makes_none() {
        let mut probe = GopProbe::default();
        for d in [0, 50, 100] {
            probe.push(d);
        }
        probe.restart();
        probe.push(137);
        assert_eq!(probe.gop(), SourceGop::Regular(50));
        probe.push(150);
        assert_eq!(probe.gop(), SourceGop::Irregular { max: 50 });
    }
}

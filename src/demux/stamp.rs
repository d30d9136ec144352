//! Time stamps on their way from PES headers to units, and the line that units without one are placed on.

use super::coding::Timing;
use super::event::Outbox;
use crate::media::grid::FrameRate;
use crate::time::{Dts, Pts, Span, Unwrapper};

/// Raw time stamps, and the PES packet they came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Counts a track's PES packets; 0: before the first.
    pub(super) pes: u64,
    /// 33 bits.
    pub(super) pts: Option<u64>,
    pub(super) dts: Option<u64>,
}

/// A track's 33-bit counters made continuous, on the connection's line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    unwrapper: Option<Unwrapper>,
}

impl Line {
    /// `None` without a PTS. A missing DTS equals the PTS [TS 2.4.3.7].
    pub(super) fn place(&mut self, stamp: &Stamp, out: &mut Outbox) -> Option<(Pts, Dts)> {
        let pts = stamp.pts?;
        let line =
            self.unwrapper.get_or_insert_with(|| out.line.map_or_else(Unwrapper::default, Unwrapper::starting_near));
        let dts = line.unwrap(stamp.dts.unwrap_or(pts));
        let pts = line.peek(pts);
        out.line = Some(dts);
        Some((Pts(pts), Dts(dts)))
    }
}

/// Gives units without a time stamp one: DTS by the frame rate, PTS by picture order. Both count from the last unit
/// that had its own, so that rounding does not add up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrameClock {
    /// DTS of the last unit with its own, and how many units ago that was.
    last: Option<(Dts, i64)>,
    /// Frames per second between the last two of those.
    seen: Option<FrameRate>,
    /// Place in presentation order and PTS of a unit, since counts began.
    anchor: Option<(i64, Pts)>,
    /// PTS - DTS of the last picture at which counts began anew.
    lead: i64,
}

/// A picture is shown at most so long behind its decoding, 90 kHz: 10 s.
const LEAD_MAX: i64 = 900_000;
/// Where neither the stream nor its time stamps say.
const GUESS: FrameRate = FrameRate::new(25, 1);

impl FrameClock {
    /// Every unit goes through here, in decoding order. `None`: no unit had a time stamp yet.
    pub(super) fn next(&mut self, own: Option<(Pts, Dts)>, timing: &Timing) -> Option<(Pts, Dts)> {
        let count = timing.count;
        if timing.restart {
            self.anchor = None;
        }
        let Some((pts, dts)) = own else {
            let (pts, dts) = self.derive(timing)?;
            self.anchor = self.anchor.or(count.map(|count| (count, pts)));
            return Some((pts, dts));
        };
        if let Some((last, units)) = self.last {
            self.seen = observed(dts - last, units + 1).or(self.seen);
        }
        self.last = Some((dts, 0));
        self.anchor = count.map(|count| (count, pts));
        if timing.restart {
            self.lead = (pts - dts).0;
        }
        Some((pts, dts))
    }

    fn derive(&mut self, timing: &Timing) -> Option<(Pts, Dts)> {
        let (last, units) = self.last.as_mut()?;
        *units += 1;
        let rate = self.seen.or(timing.declared).unwrap_or(GUESS);
        let dts = last.0 + ticks(*units, rate, 1);
        let pts = match (timing.count, self.anchor) {
            (Some(count), Some((at, pts))) => pts.0.saturating_add(ticks(count - at, rate, timing.per_frame)),
            (Some(_), None) => dts + self.lead,
            (None, _) => dts,
        };
        // Slices may claim any order; none of a picture that can be waited for.
        let sane = pts.saturating_sub(dts) <= LEAD_MAX;
        Some((Pts(if sane { pts.max(dts) } else { dts }), Dts(dts)))
    }
}

/// 90 kHz ticks of `n` counts, `per_frame` a frame, to the nearest.
fn ticks(n: i64, rate: FrameRate, per_frame: i64) -> i64 {
    let (num, den) = (i128::from(rate.num) * i128::from(per_frame), i128::from(rate.den));
    i64::try_from((i128::from(n) * 90_000 * den + num / 2).div_euclid(num)).unwrap_or(i64::MAX)
}

/// The rate of `units` units in `span`, if it is one of video.
fn observed(span: Span, units: i64) -> Option<FrameRate> {
    let rate =
        FrameRate::new(u32::try_from(units * 90_000).ok()?, u32::try_from(span.0).ok().filter(|ticks| *ticks > 0)?);
    (1.0..=300.0).contains(&rate.hz()).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_picture_order_places_a_picture_out_of_time() {
        let declared = Some(FrameRate::new(30_000_001, 1_000_003));
        let timing = |count: i64, restart| Timing { count: Some(count), per_frame: 2, restart, declared };
        let mut clock = FrameClock::default();
        assert_eq!(clock.next(Some((Pts(9_000), Dts(6_000))), &timing(0, true)), Some((Pts(9_000), Dts(6_000))));
        // delta_pic_order_cnt_bottom is any number of 32 bits.
        for (count, sane) in [(2, true), (1 << 31, false), (-(1 << 31), true), (i64::from(u32::MAX), false), (6, true)]
        {
            let (pts, dts) = clock.next(None, &timing(count, false)).expect("it has a time stamp to count from");
            assert!(pts >= Pts(dts.0) && (pts - dts).0 <= LEAD_MAX, "{count}: {pts} {dts}");
            assert!(sane || pts.0 == dts.0, "{count}");
        }
    }
}

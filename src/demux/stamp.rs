//! Time stamps on their way from PES headers to units, and the line that units without one are placed on.

use super::event::Outbox;
use crate::bitstream::h264::slice::{Order, Picture};
use crate::bitstream::h264::sps::PictureOrder;
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
    order: OrderCount,
    /// Picture order count and PTS of a unit of this coded video sequence.
    anchor: Option<(i64, Pts)>,
    /// PTS - DTS of the last IDR picture.
    lead: i64,
}

/// Where neither the stream nor its time stamps say.
const GUESS: FrameRate = FrameRate::new(25, 1);

impl FrameClock {
    /// Every unit goes through here, in decoding order. `declared`: the rate of the SPS. `None`: no unit had a time
    /// stamp yet.
    pub(super) fn next(
        &mut self,
        own: Option<(Pts, Dts)>,
        picture: &Picture,
        reference: bool,
        order: PictureOrder,
        declared: Option<FrameRate>,
    ) -> Option<(Pts, Dts)> {
        let idr = picture.idr.is_some();
        let count = self.order.next(picture, reference, order);
        if idr {
            self.anchor = None;
        }
        let Some((pts, dts)) = own else {
            let (pts, dts) = self.derive(count, declared)?;
            self.anchor = self.anchor.or(count.map(|count| (count, pts)));
            return Some((pts, dts));
        };
        if let Some((last, units)) = self.last {
            self.seen = observed(dts - last, units + 1).or(self.seen);
        }
        self.last = Some((dts, 0));
        self.anchor = count.map(|count| (count, pts));
        if idr {
            self.lead = (pts - dts).0;
        }
        Some((pts, dts))
    }

    fn derive(&mut self, count: Option<i64>, declared: Option<FrameRate>) -> Option<(Pts, Dts)> {
        let (last, units) = self.last.as_mut()?;
        *units += 1;
        let rate = self.seen.or(declared).unwrap_or(GUESS);
        let dts = last.0 + ticks(*units, rate, 1);
        let pts = match (count, self.anchor) {
            // Counts go by fields, two per frame.
            (Some(count), Some((at, pts))) => pts.0 + ticks(count - at, rate, 2),
            (Some(_), None) => dts + self.lead,
            (None, _) => dts,
        };
        Some((Pts(pts.max(dts)), Dts(dts)))
    }
}

/// 90 kHz ticks of `n` frames (or fields: `per_frame` 2), to the nearest.
fn ticks(n: i64, rate: FrameRate, per_frame: i64) -> i64 {
    let (num, den) = (i64::from(rate.num) * per_frame, i64::from(rate.den));
    (n.saturating_mul(90_000 * den) + num / 2).div_euclid(num)
}

/// The rate of `units` units in `span`, if it is one of video.
fn observed(span: Span, units: i64) -> Option<FrameRate> {
    let rate =
        FrameRate::new(u32::try_from(units * 90_000).ok()?, u32::try_from(span.0).ok().filter(|ticks| *ticks > 0)?);
    (1.0..=300.0).contains(&rate.hz()).then_some(rate)
}

/// PicOrderCnt of type 0 [AVC 8.2.1.1]; the other types give `None`: their units keep PTS = DTS.
#[derive(Clone, Copy, Debug, Default)]
struct OrderCount {
    msb: i64,
    lsb: i64,
}

impl OrderCount {
    fn next(&mut self, picture: &Picture, reference: bool, order: PictureOrder) -> Option<i64> {
        let (Order::Lsb { lsb, delta_bottom }, PictureOrder::Lsb { bits }) = (picture.order, order) else {
            return None;
        };
        if picture.idr.is_some() {
            *self = OrderCount::default();
        }
        let (lsb, max) = (i64::from(lsb), 1i64 << bits);
        let msb = if lsb < self.lsb && self.lsb - lsb >= max / 2 {
            self.msb + max
        } else if lsb > self.lsb && lsb - self.lsb > max / 2 {
            self.msb - max
        } else {
            self.msb
        };
        if reference {
            (self.msb, self.lsb) = (msb, lsb);
        }
        Some(msb + lsb + i64::from(delta_bottom.min(0)))
    }
}

//! Source renditions: the untouched video cut into segments and parts, and audio cut in step with it.
//!
//! A sample is held back until the next one arrives: only then are its duration, and what it completes, known.

use std::collections::VecDeque;

use crate::media::access_unit::AccessUnit;
use crate::media::grid::{Cadence, Ends, FrameRate, Place, SourceGop};
use crate::media::modes::LatencyMode;
use crate::media::plan::{Cut, SourcePlan};

/// The table: which F and TARGETDURATION follow from the source's GOP. `table`: the cadence of its rate and mode.
pub fn plan(gop: SourceGop, table: Cadence, mode: LatencyMode) -> SourcePlan {
    let (least, most, aim) = if mode == LatencyMode::Normal { (3.0, 6.49, 6.0) } else { (1.0, 2.49, 2.0) };
    let seconds = |frames: u32| f64::from(frames) / table.rate.hz();
    let whole = |seconds: f64| (seconds.round() as u32).max(1);
    let regular = |segment: u32, fits_ladder: bool| SourcePlan {
        cut: Cut::Regular,
        segment,
        target_duration: whole(seconds(segment)),
        independent: true,
        fits_ladder,
    };
    let loose = |cut: Cut| SourcePlan {
        cut,
        segment: table.segment,
        target_duration: whole(2.0 * seconds(table.segment)),
        independent: cut == Cut::Irregular,
        fits_ladder: false,
    };
    match gop {
        SourceGop::Regular(g) if g > 0 => {
            let fits = (1..=(table.segment * 4).div_ceil(g))
                .map(|times| g * times)
                .filter(|f| (least..=most).contains(&seconds(*f)))
                .min_by(|a, b| (seconds(*a) - aim).abs().total_cmp(&(seconds(*b) - aim).abs()));
            match fits {
                Some(f) => regular(f, true),
                None if seconds(g) <= 6.0 => regular(g, false),
                None => loose(Cut::Fallback),
            }
        }
        SourceGop::Irregular { max } if max <= table.segment => loose(Cut::Irregular),
        _ => loose(Cut::Fallback),
    }
}

/// A unit of the source on its track: timescale 90000, from N = 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSample {
    pub unit: AccessUnit,
    pub dts: i64,
    /// Until the next sample; > 0.
    pub duration: u32,
    /// PTS - DTS, both rebased; signed.
    pub cto: i32,
    pub place: Place,
}

#[derive(Debug)]
pub(super) enum Piece {
    Sample(SourceSample),
    /// A part without samples.
    Gap {
        place: Place,
        start: i64,
        duration: u32,
    },
}

/// One segment that has begun.
#[derive(Clone, Copy, Debug)]
struct Open {
    k: i64,
    /// d of its first frame, and when that is, ticks.
    start: i64,
    at: i64,
}

#[derive(Debug)]
struct Held {
    unit: AccessUnit,
    dts: i64,
    shown_at: i64,
    d: i64,
}

/// A unit's place in decode order, as `run` gave it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Index {
    pub d: i64,
    pub time: i64,
    pub shown_at: i64,
}

#[derive(Debug)]
pub(super) struct Cutter {
    plan: SourcePlan,
    rate: FrameRate,
    part: i64,
    msn0: u64,
    /// Segments that began lately, oldest first.
    begun: VecDeque<Open>,
    part_start: i64,
    /// When the open part began, ticks.
    part_at: i64,
    /// When the open segment's first sample is shown; `None`: it has none.
    opens: Option<i64>,
    /// Next part is number `part_index` of the open segment.
    part_index: u32,
    held: Option<Held>,
    /// Decode time of the sample that is or was held last.
    latest: i64,
    /// Latest rebased DTS: what begins up to here is decided.
    horizon: i64,
    /// Cuts that were not where the plan promised them.
    pub broken: u64,
}

impl Cutter {
    pub(super) fn new(plan: SourcePlan, table: Cadence, msn0: u64) -> Cutter {
        Cutter {
            plan,
            rate: table.rate,
            part: i64::from(table.part),
            msn0,
            begun: VecDeque::new(),
            part_start: 0,
            part_at: i64::MIN,
            opens: None,
            part_index: 0,
            held: None,
            latest: i64::MIN,
            horizon: i64::MIN,
            broken: 0,
        }
    }

    /// Goes on with segment `from` / F, of which nothing is there yet.
    pub(super) fn resume(&mut self, from: i64) {
        let at = self.rate.ticks(from);
        self.begin(from.div_euclid(self.f()), from, at);
        (self.latest, self.horizon) = (at - 1, at);
    }

    fn f(&self) -> i64 {
        i64::from(self.plan.segment)
    }

    fn msn(&self, k: i64) -> u64 {
        self.msn0.saturating_add_signed(k)
    }

    fn open(&self) -> Option<Open> {
        self.begun.back().copied()
    }

    fn begin(&mut self, k: i64, start: i64, at: i64) {
        if self.begun.len() == BEGUN_MAX {
            self.begun.pop_front();
        }
        self.begun.push_back(Open { k, start, at });
        (self.part_start, self.part_at) = (start, at);
        (self.part_index, self.opens) = (0, None);
    }

    /// The open part ends at d = `at`, and another one of its segment begins.
    fn next_part(&mut self, at: i64, when: i64) {
        (self.part_start, self.part_at) = (at, when);
        self.part_index += 1;
    }

    /// Where the segment after `open` begins at the latest: on the last part boundary of its interval that keeps `open`
    /// within TARGETDURATION.
    fn limit(&self, open: Open) -> i64 {
        let next = (open.k + 1) * self.f();
        let longest = ((f64::from(self.plan.target_duration) + 0.5) * self.rate.hz() - 0.75).floor() as i64;
        let last = (next + self.f() - 1).min(open.start + longest).max(next);
        let boundary = open.start + (last - open.start).div_euclid(self.part) * self.part;
        if boundary >= next { boundary } else { last }
    }

    /// A unit in decode order; what it completes goes to `out`.
    pub(super) fn push(&mut self, unit: AccessUnit, index: Index, snap: bool, out: &mut Vec<Piece>) {
        let Index { d, time, shown_at } = index;
        // Decode times increase, whatever the stamps say.
        let time = time.max(self.latest.saturating_add(1));
        let Some(mut open) = self.open() else {
            // First of a run: the grid says which segment.
            self.begin(d.div_euclid(self.f()), d, time);
            self.hold(unit, d, time, shown_at);
            return;
        };
        let d = d.max(self.part_start);
        let before = self.held.as_ref().map_or(d, |held| held.d);
        let mut ended = self.begun_empty();
        // The first sample of a part that lost its beginning stands for it, and is shown as much earlier: what is dated and
        // how long it lasts agree.
        let mut dts = ended.filter(|_| d < self.part_start + self.part).unwrap_or(time);
        loop {
            let limit = self.limit(open);
            let boundary = (self.part_start + self.part).min(limit);
            let cut = unit.random_access && d >= (open.k + 1) * self.f() && d <= boundary;
            if boundary > d && !cut {
                break;
            }
            let at = if cut { d } else { boundary };
            let segment = cut || boundary == limit;
            // Holes, and stamps that lie off the grid, do not move a boundary.
            let nominal = self.rate.ticks(at);
            let hole = d - before > 1 || snap || (dts - nominal).abs() > self.rate.ticks(1) / 4;
            let when = if at == d && !hole { time } else { nominal };
            let when = self.close(open, when, segment, &mut ended, out);
            if segment {
                let promised = if self.plan.cut == Cut::Regular { cut && d == (open.k + 1) * self.f() } else { cut };
                self.broken += u64::from(!promised);
                self.begin(open.k + 1, at, when);
                open = self.open().unwrap_or(open);
            } else {
                self.next_part(at, when);
            }
            if at == d || (at < d && d < at + self.part) {
                dts = when;
            }
            if cut {
                break;
            }
        }
        if ended.is_none() {
            self.release(dts, open.k, Ends::Nothing, out);
        }
        self.hold(unit, d, dts, shown_at - (time - dts).max(0));
        self.horizon = self.horizon.max(time);
    }

    /// Nothing comes up to d = `to`: parts that end by then are closed, those without a sample become gaps. Segments end
    /// where the grid says, no IDR is waited for.
    pub(super) fn fill(&mut self, to: i64, out: &mut Vec<Piece>) {
        let mut ended = self.begun_empty();
        while let Some(open) = self.open() {
            let next = (open.k + 1) * self.f();
            let end = if self.part_start < next { next } else { self.limit(open) };
            let boundary = (self.part_start + self.part).min(end);
            if boundary > to {
                break;
            }
            let segment = boundary >= next;
            let when = self.close(open, self.rate.ticks(boundary), segment, &mut ended, out);
            if segment {
                self.begin(open.k + 1, boundary, when);
            } else {
                self.next_part(boundary, when);
            }
            self.latest = self.latest.max(when - 1);
        }
        self.horizon = self.horizon.max(self.rate.ticks(to));
    }

    /// As `fill`, for units that cannot be used before the next random access point.
    pub(super) fn skip(&mut self, to: i64, out: &mut Vec<Piece>) {
        if self.is_empty() {
            self.fill(to, out);
        }
    }

    /// The open part has no sample.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_none() && self.open().is_some()
    }

    /// When the open part began, if it has no sample.
    fn begun_empty(&self) -> Option<i64> {
        self.is_empty().then_some(self.part_at)
    }

    /// Ends the open part at `when`, or where it has lasted at all: with the held sample, or as a gap. Returns when.
    fn close(&mut self, open: Open, when: i64, segment: bool, ended: &mut Option<i64>, out: &mut Vec<Piece>) -> i64 {
        let began = ended.or(self.held.as_ref().map(|held| held.dts));
        let when = began.map_or(when, |began| when.max(began + 1));
        let ends = if segment { Ends::Segment } else { Ends::Part };
        match *ended {
            None => self.release(when, open.k, ends, out),
            Some(start) => {
                let place = Place { msn: self.msn(open.k), part: self.part_index, ends };
                out.push(Piece::Gap { place, start, duration: span(start, when) });
            }
        }
        *ended = Some(when);
        when
    }

    fn release(&mut self, until: i64, k: i64, ends: Ends, out: &mut Vec<Piece>) {
        if let Some(held) = self.held.take() {
            let place = Place { msn: self.msn(k), part: self.part_index, ends };
            let cto = i32::try_from(held.shown_at - held.dts).unwrap_or(0);
            out.push(Piece::Sample(SourceSample {
                unit: held.unit,
                dts: held.dts,
                duration: span(held.dts, until),
                cto,
                place,
            }));
        }
    }

    fn hold(&mut self, unit: AccessUnit, d: i64, dts: i64, shown_at: i64) {
        self.latest = dts;
        self.opens.get_or_insert(shown_at);
        self.held = Some(Held { unit, dts, shown_at, d });
        self.horizon = self.horizon.max(dts);
    }

    /// The run ends: the open segment is closed short. Numbers up to `next`'s that never began become gaps.
    /// Returns when all that ends: nothing that was dated has a later date.
    pub(super) fn finish(&mut self, next: Option<i64>, out: &mut Vec<Piece>) -> Option<i64> {
        let open = self.open()?;
        let first = if self.is_empty() && self.part_index == 0 { open.k } else { open.k + 1 };
        let (mut ended, frame) = (self.part_at, self.rate.ticks(1));
        if let Some(held) = &self.held {
            ended = held.dts + frame;
            self.release(ended, open.k, Ends::Segment, out);
        }
        let next = next.map_or(open.k + 1, |n0| n0.div_euclid(self.f()));
        for k in first..next.min(first + GAP_SEGMENTS_MAX) {
            let place = Place { msn: self.msn(k), part: 0, ends: Ends::Segment };
            let start = if k == first { ended } else { ended - frame + self.rate.ticks(self.part) };
            out.push(Piece::Gap { place, start, duration: span(0, self.rate.ticks(self.part)) });
            ended = start + frame;
        }
        self.begun.clear();
        self.horizon = i64::MIN;
        Some(self.opens.take().map_or(ended, |shown| ended.max(shown + frame)))
    }

    /// The (segment, part) in which audio of session time `time` starts, once that is decided. `None`: not yet.
    fn audio_part(&self, time: i64, force: bool) -> Option<(u64, u32)> {
        let last = self.open()?;
        let next_cut = self.rate.ticks((last.k + 1) * self.f()) - self.rate.ticks(1) / 2;
        if !force && time > self.horizon && time >= next_cut {
            return None;
        }
        let i = self.begun.iter().rposition(|open| open.at <= time).unwrap_or(0);
        let open = self.begun[i];
        let part = self.rate.frames((time - open.at).max(0) - self.rate.ticks(1) / 2).max(0) / self.part;
        let most = self.begun.get(i + 1).map_or(i64::MAX, |next| (next.start - open.start - 1).max(0) / self.part);
        Some((self.msn(open.k), u32::try_from(part.min(most)).unwrap_or(0)))
    }

    /// When a part that audio was placed in begins.
    pub(super) fn part_at(&self, place: Place) -> i64 {
        let open = self.begun.iter().find(|open| self.msn(open.k) == place.msn);
        open.map_or(0, |open| open.at + self.rate.ticks(i64::from(place.part) * self.part))
    }

    /// Audio before this time belongs to what was closed.
    pub(super) fn begins(&self) -> i64 {
        self.begun.front().map_or(i64::MIN, |open| open.at)
    }

    /// The open segment ends here at the latest.
    pub(super) fn ends(&self) -> i64 {
        self.open().map_or(i64::MAX, |open| open.at + self.rate.ticks(self.limit(open) - open.start))
    }

    /// The place of the audio frame that starts at `time` if the next may start at `next`. `None`: not decided yet, unless
    /// `force`d.
    pub(super) fn place_audio(&self, time: i64, next: i64, force: bool) -> Option<Place> {
        let (here, after) = (self.audio_part(time, force)?, self.audio_part(next, force)?);
        let ends = if here.0 != after.0 {
            Ends::Segment
        } else if here.1 != after.1 {
            Ends::Part
        } else {
            Ends::Nothing
        };
        Some(Place { msn: here.0, part: here.1, ends })
    }
}

fn span(from: i64, to: i64) -> u32 {
    u32::try_from((to - from).max(1)).unwrap_or(u32::MAX)
}

/// Segments whose beginnings audio may still ask for.
const BEGUN_MAX: usize = 8;
/// Segments that one jump may skip as gaps.
const GAP_SEGMENTS_MAX: i64 = 4;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::media::track::Codec;
    use crate::time::{Dts, Mono, Pts};

    fn unit(time: i64, random_access: bool) -> AccessUnit {
        AccessUnit {
            pid: 256,
            codec: Codec::H264,
            pts: Pts(time),
            dts: Dts(time),
            random_access,
            damaged: false,
            received: Mono(0),
            data: Bytes::from_static(b"unit"),
        }
    }

    #[test]
    fn decode_times_rise_where_a_key_picture_shares_its_frame_with_the_first_of_a_part() {
        let table = Cadence::for_rate(12.5, LatencyMode::Low);
        let mut cutter = Cutter::new(plan(SourceGop::Unknown, table, LatencyMode::Low), table, 1_000);
        let (mut pieces, mut before) = (Vec::new(), None);
        // 30000/1001 pictures a second on a grid of 12.5: the second one of each of its frames is a key picture.
        for time in (0..400).map(|i| i * 3_003) {
            let d = table.rate.frames(time);
            let key = before.replace(d).is_none_or(|before| before == d);
            cutter.push(unit(time, key), Index { d, time, shown_at: time }, true, &mut pieces);
        }
        let sample = |piece| if let Piece::Sample(sample) = piece { Some(sample) } else { None };
        let samples: Vec<SourceSample> = pieces.into_iter().filter_map(sample).collect();
        assert_eq!(samples.len(), 399, "one is held");
        for two in samples.windows(2) {
            assert_eq!(two[0].dts + i64::from(two[0].duration), two[1].dts, "{two:?}");
        }
    }
}

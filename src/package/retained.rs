//! The segments that one rendition holds, and their text.
//!
//! Listed: the last `window_segments` whole segments (more while they are short) and the open one. Held: as many more (plus one), so that a segment
//! that left the playlist stays for its own duration and that of the playlist [HLS 6.2.2]. RAM is therefore twice the
//! window: 62 s in `ultra` and `low` (31 segments of 2 s), 126 s in `normal`, more with a channel's own window; at most
//! `retained_bytes_max`, beyond which the oldest segments go first, down to the last whole one.

use bytes::Bytes;
use std::collections::VecDeque;

use super::fmp4::fragment;
use super::fmp4::init::InitSection;
use super::part::Part;
use super::playlist::media;
use super::playlist::tags::Seconds;
use super::window::{Publication, RenditionSpec};
use crate::media::sample::Sample;
use crate::time::Wall;

/// Segments held where they are so short that fewer would not last three target durations.
const SEGMENTS_MAX: usize = 512;

#[derive(Debug)]
pub(super) struct Retained {
    /// `<session>/<rendition>/`
    pub(super) base: String,
    pub(super) preamble: String,
    /// That of the I-frame playlist; `None`: segments do not all begin with one.
    pub(super) iframe_preamble: Option<String>,
    window: usize,
    linger: usize,
    bytes_max: usize,
    /// What stays listed at least, microseconds: three target durations.
    listed_min: u64,
    timescale: u32,
    /// Oldest first; consecutive; only the last may be open.
    pub(super) segments: VecDeque<Segment>,
    /// Discontinuities of segments no longer held.
    pub(super) dsn: u64,
    maps: VecDeque<(u32, InitSection)>,
    next_map: u32,
    bytes: usize,
    gap_parts: u64,
    measured: Measured,
    /// Of first pictures alone.
    iframes: Measured,
}

/// Bit rates of whole segments, gaps aside.
#[derive(Debug, Default)]
struct Measured {
    segments: u64,
    peak: u64,
    bits: u64,
    micros: u64,
}

impl Measured {
    fn add(&mut self, bits: u64, micros: u64) {
        self.segments += 1;
        self.peak = self.peak.max(rate(bits, micros));
        self.bits += bits;
        self.micros += micros;
    }

    /// BANDWIDTH and AVERAGE-BANDWIDTH, bits per second: the cap until three segments were measured (a black start says
    /// little), then the highest segment ever and the mean of all.
    fn bandwidth(&self, cap: u64) -> (u64, u64) {
        if self.segments < 3 {
            return (self.peak.max(cap).max(1), cap.max(1));
        }
        (self.peak.max(1), rate(self.bits, self.micros).max(1))
    }
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) msn: u64,
    pub(super) parts: Vec<Part>,
    pub(super) complete: bool,
    pub(super) discontinuity: bool,
    /// Date and time of its first sample.
    pub(super) starts: Wall,
    pub(super) map: u32,
    duration: u64,
    timescale: u32,
    /// PROGRAM-DATE-TIME.
    pub(super) opening: String,
    /// PART lines so far.
    pub(super) lines: String,
    /// GAP, EXTINF and URI, once complete.
    pub(super) closing: String,
    /// The same of its first picture alone.
    pub(super) iframe: String,
}

impl Segment {
    /// One part that nobody could produce makes the whole segment one that cannot be had.
    pub(super) fn gap(&self) -> bool {
        self.parts.iter().any(|p| p.bytes.is_none())
    }

    /// Its first picture alone, shown until the segment's end, if that is an I frame and all of the segment can be had.
    pub(super) fn iframe(&self) -> Option<[Bytes; 2]> {
        let opens = self.parts.first().filter(|_| !self.gap())?.opens.clone()?;
        let duration = u32::try_from(self.duration).ok()?;
        Some(fragment::single(fragment::sequence_number(self.msn, 0), Sample { duration, ..opens }))
    }

    pub(super) fn micros(&self) -> u64 {
        let micros = u128::from(self.duration) * 1_000_000 / u128::from(self.timescale.max(1));
        u64::try_from(micros).unwrap_or(u64::MAX)
    }

    fn bytes(&self) -> usize {
        self.parts.iter().filter_map(|p| p.bytes.as_ref()).map(Bytes::len).sum()
    }
}

impl Retained {
    pub(super) fn new(spec: &RenditionSpec) -> Retained {
        Retained {
            base: format!("{}/{}/", spec.session, spec.name),
            preamble: media::preamble(&spec.targets),
            iframe_preamble: spec.has_iframes().then(|| media::iframe_preamble(&spec.targets)),
            window: spec.targets.window_segments,
            linger: spec.targets.linger_segments,
            bytes_max: spec.retained_bytes_max,
            listed_min: u64::from(spec.targets.target_duration) * 3_000_000,
            timescale: 1,
            segments: VecDeque::new(),
            dsn: spec.before.discontinuities,
            maps: VecDeque::new(),
            next_map: spec.before.map,
            bytes: 0,
            gap_parts: 0,
            measured: Measured::default(),
            iframes: Measured::default(),
        }
    }

    pub(super) fn set_init(&mut self, init: InitSection) {
        self.timescale = init.timescale;
        self.maps.push_back((self.next_map, init));
        self.next_map += 1;
    }

    pub(super) fn init(&self, map: u32) -> Option<Bytes> {
        self.maps.iter().find(|(m, _)| *m == map).map(|(_, init)| init.bytes.clone())
    }

    pub(super) fn newest_init(&self) -> Option<&InitSection> {
        self.maps.back().map(|(_, init)| init)
    }

    pub(super) fn newest_map(&self) -> Option<u32> {
        self.maps.back().map(|(map, _)| *map)
    }

    pub(super) fn publish(&mut self, publication: Publication) {
        let Publication { msn, part, date_time, discontinuity, completes } = publication;
        let (base, timescale) = (&self.base, self.timescale);
        if self.segments.back().is_none_or(|s| s.complete) {
            let next = self.segments.back().map_or(msn, |s| s.msn + 1);
            assert!(msn == next, "media sequence numbers are never skipped: {next} is next, not {msn}");
            let mut opening = String::new();
            media::date_time(&mut opening, date_time);
            let map = self.maps.back().map(|(map, _)| *map).expect("an init section comes before the first part");
            self.segments.push_back(Segment {
                msn,
                parts: Vec::with_capacity(8),
                complete: false,
                discontinuity,
                starts: date_time,
                map,
                duration: 0,
                timescale,
                opening,
                lines: String::new(),
                closing: String::new(),
                iframe: String::new(),
            });
        }
        let segment = self.segments.back_mut().expect("one is open");
        assert!(segment.msn == msn, "segment {} is open, a part of {msn} cannot come", segment.msn);
        media::part(&mut segment.lines, base, msn, segment.parts.len(), &part, timescale);
        segment.duration += part.duration;
        match &part.bytes {
            Some(bytes) => self.bytes += bytes.len(),
            None => self.gap_parts += 1,
        }
        segment.parts.push(part);
        if completes {
            self.complete();
        }
    }

    /// Whether there was an open segment.
    pub(super) fn complete(&mut self) -> bool {
        let Some(segment) = self.segments.back_mut().filter(|s| !s.complete) else { return false };
        segment.complete = true;
        let gap = segment.gap();
        let duration = Seconds { ticks: segment.duration, timescale: segment.timescale };
        media::segment(&mut segment.closing, &self.base, segment.msn, duration, gap);
        if !gap {
            self.measured.add(segment.bytes() as u64 * 8, segment.micros());
        }
        if self.iframe_preamble.is_some() {
            let picture = segment.iframe();
            media::iframe(&mut segment.iframe, &self.base, segment.msn, duration, picture.is_none());
            if let Some([head, data]) = picture {
                self.iframes.add((head.len() + data.len()) as u64 * 8, segment.micros());
            }
        }
        self.evict();
        true
    }

    /// Takes back the open segment's parts from part `keep` on: nobody was told of them. With none left it is not open
    /// any more, and the answer is whether it stood behind a DISCONTINUITY.
    pub(super) fn take_back(&mut self, keep: usize) -> bool {
        let Some(mut segment) = self.segments.pop_back_if(|s| !s.complete) else { return false };
        for part in segment.parts.drain(keep.min(segment.parts.len())..) {
            segment.duration -= part.duration;
            match &part.bytes {
                Some(bytes) => self.bytes -= bytes.len(),
                None => self.gap_parts -= 1,
            }
        }
        if segment.parts.is_empty() {
            return segment.discontinuity;
        }
        segment.lines.clear();
        for (index, part) in segment.parts.iter().enumerate() {
            media::part(&mut segment.lines, &self.base, segment.msn, index, part, segment.timescale);
        }
        self.segments.push_back(segment);
        false
    }

    /// Everything held is too old to be listed beside segment `msn`.
    pub(super) fn jump(&mut self, msn: u64) {
        assert!(self.segments.back().is_none_or(|s| s.msn < msn), "a jump goes forward");
        while self.drop_oldest() {}
    }

    fn evict(&mut self) {
        let held = |segments: &VecDeque<Segment>| segments.iter().skip(1).map(Segment::micros).sum::<u64>();
        while self.segments.len() > self.window + self.linger + 1
            && (held(&self.segments) >= self.listed_min || self.segments.len() > SEGMENTS_MAX)
            || self.bytes > self.bytes_max && self.segments.len() > 1
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(gone) = self.segments.pop_front() else { return false };
        self.bytes -= gone.bytes();
        self.dsn += u64::from(gone.discontinuity);
        let needed = self.segments.front().map(|s| s.map);
        while self.maps.len() > 1 && needed.is_none_or(|n| self.maps[0].0 < n) {
            self.maps.pop_front();
        }
        true
    }

    pub(super) fn whole(&self) -> usize {
        self.segments.len() - usize::from(self.open().is_some())
    }

    /// The window counts segments; those of a source that breaks off again and again are short, and then more of them stay
    /// [HLS 6.2.2].
    pub(super) fn first_listed(&self) -> usize {
        let first = self.whole().saturating_sub(self.window);
        let mut listed = 0;
        let long_enough = |index: &usize| {
            listed += self.segments[*index].micros();
            listed >= self.listed_min
        };
        (0..self.whole()).rev().find(long_enough).unwrap_or(0).min(first)
    }

    /// The first segment that is listed, and its date and time.
    pub(super) fn opens(&self) -> Option<(u64, Wall)> {
        self.segments.get(self.first_listed()).map(|s| (s.msn, s.starts))
    }

    /// The newest segment, and how long its part lines are.
    pub(super) fn place(&self) -> (u64, usize) {
        self.segments.back().map_or((0, 0), |s| (s.msn, s.lines.len()))
    }

    pub(super) fn segment(&self, msn: u64) -> Option<&Segment> {
        let first = self.segments.front()?.msn;
        self.segments.get(usize::try_from(msn.checked_sub(first)?).ok()?)
    }

    pub(super) fn open(&self) -> Option<&Segment> {
        self.segments.back().filter(|s| !s.complete)
    }

    /// Media sequence number of the last whole segment; before the first one, that of the segment before it.
    pub(super) fn last_whole(&self) -> Option<i128> {
        self.segments.back().map(|s| i128::from(s.msn) - i128::from(!s.complete))
    }

    /// Not here yet, and not so far ahead that nobody was told of it.
    pub(super) fn may_come(&self, msn: u64) -> bool {
        self.last_whole().is_some_and(|whole| i128::from(msn) > whole && i128::from(msn) <= whole + 2)
    }

    /// The part that comes next, as far as is known.
    pub(super) fn hint(&self) -> (u64, usize) {
        match self.segments.back() {
            Some(s) if !s.complete => (s.msn, s.parts.len()),
            Some(s) => (s.msn + 1, 0),
            None => (0, 0),
        }
    }

    pub(super) fn last(&self) -> Option<(u64, u32)> {
        let segment = self.segments.back()?;
        Some((segment.msn, u32::try_from(segment.parts.len().saturating_sub(1)).unwrap_or(u32::MAX)))
    }

    pub(super) fn newest_whole(&self) -> Option<u64> {
        self.whole().checked_sub(1).map(|index| self.segments[index].msn)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) fn playable(&self, parts: bool) -> bool {
        !self.segments.is_empty() && (parts || self.whole() > 0)
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.bytes
    }

    pub(super) fn segments_held(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn gap_parts(&self) -> u64 {
        self.gap_parts
    }

    /// See `Measured::bandwidth`; of the media playlist, and of the I-frame playlist if there is one.
    pub(super) fn bandwidth(&self, cap: u64) -> ((u64, u64), Option<(u64, u64)>) {
        (self.measured.bandwidth(cap), self.iframe_preamble.as_ref().map(|_| self.iframes.bandwidth(cap)))
    }
}

fn rate(bits: u64, micros: u64) -> u64 {
    let per_second = u128::from(bits) * 1_000_000 / u128::from(micros.max(1));
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

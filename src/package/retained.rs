//! The segments that one rendition holds, and their text.
//!
//! Listed: the last `window_segments` whole segments and the open one. Held: as many again (plus one), so that a segment
//! stays available for a window's time after it left the playlist, as [HLS 6.2.2] asks. RAM is therefore twice the
//! window: 62 s in `ultra` and `low` (31 segments of 2 s), 126 s in `normal`; at most `retained_bytes_max`, beyond which
//! the oldest segments go first, down to the last whole one.

use bytes::Bytes;
use std::collections::VecDeque;

use super::fmp4::init::InitSection;
use super::part::Part;
use super::playlist::media;
use super::playlist::tags::Seconds;
use super::window::{Publication, RenditionSpec, Targets};

#[derive(Debug)]
pub(super) struct Retained {
    /// `<session>/<rendition>/`
    base: String,
    preamble: String,
    window: usize,
    bytes_max: usize,
    timescale: u32,
    /// Oldest first; consecutive; only the last may be open.
    segments: VecDeque<Segment>,
    /// Discontinuities of segments no longer held.
    dsn: u64,
    maps: VecDeque<(u32, InitSection)>,
    next_map: u32,
    bytes: usize,
    gap_parts: u64,
    measured: Measured,
}

/// Bit rates of whole segments, gaps aside.
#[derive(Debug, Default)]
struct Measured {
    segments: u64,
    peak: u64,
    bits: u64,
    micros: u64,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) msn: u64,
    pub(super) parts: Vec<Part>,
    pub(super) complete: bool,
    discontinuity: bool,
    map: u32,
    duration: u64,
    timescale: u32,
    /// PROGRAM-DATE-TIME.
    opening: String,
    /// PART lines so far.
    lines: String,
    /// GAP, EXTINF and URI, once complete.
    closing: String,
}

impl Segment {
    /// One part that nobody could produce makes the whole segment one that cannot be had.
    pub(super) fn gap(&self) -> bool {
        self.parts.iter().any(|p| p.bytes.is_none())
    }

    fn micros(&self) -> u64 {
        let micros = u128::from(self.duration) * 1_000_000 / u128::from(self.timescale.max(1));
        u64::try_from(micros).unwrap_or(u64::MAX)
    }

    fn bytes(&self) -> usize {
        self.parts.iter().filter_map(|p| p.bytes.as_ref()).map(Bytes::len).sum()
    }
}

/// How to write one version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing<'a> {
    pub(super) targets: &'a Targets,
    /// Segments left out at the front; 0: the whole playlist.
    pub(super) skipped: usize,
    pub(super) reports: &'a [(String, (u64, u32))],
    pub(super) ended: bool,
}

impl Retained {
    pub(super) fn new(spec: &RenditionSpec) -> Retained {
        Retained {
            base: format!("{}/{}/", spec.session, spec.name),
            preamble: media::preamble(&spec.targets, spec.independent_segments),
            window: spec.targets.window_segments,
            bytes_max: spec.retained_bytes_max,
            timescale: 1,
            segments: VecDeque::new(),
            dsn: spec.before.discontinuities,
            maps: VecDeque::new(),
            next_map: spec.before.map,
            bytes: 0,
            gap_parts: 0,
            measured: Measured::default(),
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
                map,
                duration: 0,
                timescale,
                opening,
                lines: String::new(),
                closing: String::new(),
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
            let (bits, micros) = (segment.bytes() as u64 * 8, segment.micros());
            self.measured.segments += 1;
            self.measured.peak = self.measured.peak.max(rate(bits, micros));
            self.measured.bits += bits;
            self.measured.micros += micros;
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
        while self.segments.len() > 2 * self.window + 1 || self.bytes > self.bytes_max && self.segments.len() > 1 {
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

    /// The whole playlist of this version: pieces laid end to end.
    pub(super) fn compose(&self, listing: Listing<'_>) -> String {
        let first = self.first_listed();
        let mut out = String::with_capacity(8 << 10);
        out.push_str(&self.preamble);
        let gone: usize = self.segments.iter().take(first).filter(|s| s.discontinuity).count();
        let msn = self.segments.get(first).map_or(0, |s| s.msn);
        media::sequence(&mut out, msn, self.dsn + gone as u64);
        if listing.skipped > 0 {
            media::skip(&mut out, listing.skipped);
        }
        // A delta's reader has the map of the last skipped segment already.
        let mut map = (listing.skipped > 0).then(|| self.segments[first + listing.skipped - 1].map);
        let whole = self.whole();
        for (index, segment) in self.segments.iter().enumerate().skip(first + listing.skipped) {
            if !listing.targets.parts && !segment.complete {
                break;
            }
            if segment.discontinuity {
                out.push_str("#EXT-X-DISCONTINUITY\n");
            }
            if map != Some(segment.map) {
                map = Some(segment.map);
                media::map(&mut out, &self.base, segment.map);
            }
            out.push_str(&segment.opening);
            if listing.targets.parts && index + listing.targets.segments_with_parts >= whole {
                out.push_str(&segment.lines);
            }
            out.push_str(&segment.closing);
        }
        if listing.ended {
            out.push_str("#EXT-X-ENDLIST\n");
        } else if listing.targets.parts {
            let (msn, index) = self.hint();
            media::hint(&mut out, &self.base, msn, index);
            for (name, (msn, part)) in listing.reports {
                media::report(&mut out, name, *msn, *part);
            }
        }
        out
    }

    /// Leading segments that a delta update may leave out: those that end before the skip boundary [HLS 6.2.5.1].
    pub(super) fn skippable(&self, targets: &Targets) -> usize {
        let boundary = u64::from(targets.can_skip_until) * 1_000_000;
        let first = self.first_listed();
        let listed = |s: &&Segment| targets.parts || s.complete;
        let mut after = 0;
        for (index, segment) in self.segments.iter().enumerate().skip(first).rev().filter(|(_, s)| listed(s)) {
            if segment.complete && after >= boundary {
                return index + 1 - first;
            }
            after += segment.micros();
        }
        0
    }

    fn whole(&self) -> usize {
        self.segments.len() - usize::from(self.open().is_some())
    }

    fn first_listed(&self) -> usize {
        self.whole().saturating_sub(self.window)
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

    /// BANDWIDTH and AVERAGE-BANDWIDTH, bits per second: the cap until three segments were measured (a black start says
    /// little), then the highest segment ever and the mean of all.
    pub(super) fn bandwidth(&self, cap: u64) -> (u64, u64) {
        let m = &self.measured;
        if m.segments < 3 {
            return (m.peak.max(cap).max(1), cap.max(1));
        }
        (m.peak.max(1), rate(m.bits, m.micros).max(1))
    }
}

fn rate(bits: u64, micros: u64) -> u64 {
    let per_second = u128::from(bits) * 1_000_000 / u128::from(micros.max(1));
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

//! A version of a playlist: pieces that never change, laid end to end [HLS 4.4.3, 6.2.1].

use super::dates::{Entry, Listed};
use super::playlist::media;
use super::retained::{Retained, Segment};
use super::window::Targets;
use crate::time::Mono;

/// How to write one version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing<'a> {
    pub(super) targets: &'a Targets,
    /// The I-frame playlist: whole segments only, of each its first picture.
    pub(super) iframes: bool,
    /// Segments left out at the front; 0: the whole playlist.
    pub(super) skipped: usize,
    pub(super) dates: &'a Listed,
    /// Date ranges added before this instant are left out too.
    pub(super) dates_from: Option<Mono>,
    pub(super) reports: &'a [Report],
    pub(super) ended: bool,
}

/// The last segment, and part, of another playlist.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) uri: String,
    pub(super) msn: u64,
    pub(super) part: Option<u32>,
}

impl Retained {
    /// The text of this version.
    pub(super) fn compose(&self, listing: Listing<'_>) -> String {
        let first = self.first_listed();
        let mut out = String::with_capacity(8 << 10);
        self.head(&mut out, listing, first);
        let wanted = |d: &&Entry| listing.dates_from.is_none_or(|from| d.added >= from);
        let mut dates = listing.dates.tags().filter(wanted).peekable();
        // A delta's reader has the map of the last skipped segment already.
        let mut map = (listing.skipped > 0).then(|| self.segments[first + listing.skipped - 1].map);
        for (index, segment) in self.segments.iter().enumerate().skip(first + listing.skipped) {
            if !segment.complete && (listing.iframes || !listing.targets.parts) {
                break;
            }
            while let Some(date) = dates.next_if(|d| d.msn < segment.msn) {
                out.push_str(&date.tag.line);
            }
            if segment.discontinuity {
                out.push_str("#EXT-X-DISCONTINUITY\n");
            }
            if map != Some(segment.map) {
                map = Some(segment.map);
                media::map(&mut out, &self.base, segment.map);
            }
            out.push_str(&segment.opening);
            let lines = self.part_lines(listing, index, segment);
            let mut written = 0;
            while let Some(date) = dates.next_if(|d| d.msn == segment.msn) {
                let upto = date.offset.min(lines.len());
                out.push_str(&lines[written..upto]);
                out.push_str(&date.tag.line);
                written = upto;
            }
            out.push_str(&lines[written..]);
            out.push_str(if listing.iframes { &segment.iframe } else { &segment.closing });
        }
        self.tail(&mut out, listing);
        out
    }

    fn head(&self, out: &mut String, listing: Listing<'_>, first: usize) {
        media::version(out, listing.skipped > 0, listing.dates_from.is_some());
        out.push_str(match &self.iframe_preamble {
            Some(preamble) if listing.iframes => preamble,
            _ => &self.preamble,
        });
        let gone: usize = self.segments.iter().take(first).filter(|s| s.discontinuity).count();
        let msn = self.segments.get(first).map_or(0, |s| s.msn);
        media::sequence(out, msn, self.dsn + gone as u64);
        if listing.skipped > 0 {
            let removed = listing.dates_from.map(|_| listing.dates.removed());
            media::skip(out, listing.skipped, removed.as_deref());
        }
    }

    fn tail(&self, out: &mut String, listing: Listing<'_>) {
        if listing.ended {
            out.push_str("#EXT-X-ENDLIST\n");
            return;
        }
        if listing.targets.parts && !listing.iframes {
            let (msn, index) = self.hint();
            media::hint(out, &self.base, msn, index);
        }
        for report in listing.reports {
            media::report(out, &report.uri, report.msn, report.part);
        }
    }

    /// Only the last segments tell of their parts [HLS 6.2.2].
    fn part_lines<'a>(&self, listing: Listing<'_>, index: usize, segment: &'a Segment) -> &'a str {
        let edge = index + listing.targets.segments_with_parts >= self.whole();
        if listing.targets.parts && !listing.iframes && edge { &segment.lines } else { "" }
    }

    /// Leading segments that a delta update may leave out: those that end before the skip boundary [HLS 6.2.5.1].
    pub(super) fn skippable(&self, targets: &Targets, iframes: bool) -> usize {
        let boundary = u64::from(targets.can_skip_until) * 1_000_000;
        let first = self.first_listed();
        let listed = |s: &&Segment| s.complete || targets.parts && !iframes;
        let mut after = 0;
        for (index, segment) in self.segments.iter().enumerate().skip(first).rev().filter(|(_, s)| listed(s)) {
            if segment.complete && after >= boundary {
                return index + 1 - first;
            }
            after += segment.micros();
        }
        0
    }
}

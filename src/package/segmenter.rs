//! Samples of one track become parts and segments of one rendition.
//!
//! Where a sample goes is its `Place`; nothing here counts. Input decides places, so a wrong one is data: a sample for
//! a part that is already published, or not behind the one before it, is dropped and counted (`Counts::late`); a sample
//! for a later part closes the open one; parts and segments between them become GAP; a hole inside a part, or at its
//! end, lengthens the sample before it, one at its head the sample behind it. Timed tags wait for the part in which
//! their time falls.

use std::collections::VecDeque;
use std::sync::Arc;

use super::fmp4::emsg::TimedTag;
use super::fmp4::init::InitSection;
use super::part::{OpenPart, Part};
use super::window::{Publication, RenditionOutput};
use crate::media::grid::{Ends, Grid, PdtLine, Place};
use crate::media::limits::{PART_TAG_BYTES_MAX, PART_TAGS_MAX, TAGS_WAITING_MAX};
use crate::media::sample::{Sample, Stamps};
use crate::media::track::TrackConfig;
use crate::sys::pieces::Pieces;
use crate::time::{Mono, Wall};

/// How places follow from the grid: what a GAP part lasts, and whether a segment's number of parts is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Ladder video: frame n decodes at n x den; F / P parts a segment.
    Frames,
    /// Audio on the 1024-sample grid beside a ladder: parts and segments as the grid has them.
    Audio,
    /// A source rendition, or audio beside one: cuts follow the source's IDRs, only nominal lengths are known.
    Source,
}

/// A part was listed: what latency histograms and health want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartPublished {
    pub msn: u64,
    pub part: u32,
    pub gap: bool,
    pub independent: bool,
    pub completes_segment: bool,
    /// In the track's timescale.
    pub duration: u64,
    pub samples: usize,
    pub bytes: usize,
    /// Of the sample that completed it; zero for a GAP.
    pub stamps: Stamps,
    pub published: Mono,
}

/// Samples that did not become media as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dropped: their part was published already, or they were not behind the sample before.
    pub late: u64,
    /// Dropped: their part was full (`PART_BYTES_MAX`, `PART_SAMPLES_MAX`).
    pub over: u64,
    /// Holes in a part, bridged by the sample before, at its head by the one behind.
    pub stretched: u64,
    /// Reports that nobody polled.
    pub unpolled: u64,
    /// Timed tags put into a later part than the one of their time, and those left out.
    pub tags_late: u64,
    pub tags_lost: u64,
}

/// Cuts one rendition. Publishes into its output at once; `poll` tells what was published.
#[derive(Debug)]
pub struct Segmenter {
    output: Arc<RenditionOutput>,
    init: InitSection,
    grid: Grid,
    cut: Cut,
    timescale: u32,
    /// Oldest first; a line holds from its own frame on.
    lines: VecDeque<PdtLine>,
    open: Option<OpenPart>,
    /// Where parts lie.
    memory: Pieces,
    /// Where the next part goes, and when it decodes; `None` before the first.
    next: Option<Next>,
    /// The next segment starts behind a DISCONTINUITY.
    discontinuity: bool,
    /// Up to this part a lost process made media, or nobody: its segments are whole.
    past: (u64, u32),
    ended: bool,
    counts: Counts,
    published: VecDeque<PartPublished>,
    /// By time.
    tags: VecDeque<TimedTag>,
    /// Those of the open segment's parts, in a mode that may take parts back.
    given: Vec<(u32, TimedTag)>,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    msn: u64,
    part: u32,
    /// End of the last part, in the track's timescale.
    at: i64,
}

/// Reports kept for `poll`; an older one gives way and is counted.
const PUBLISHED_MAX: usize = 256;
/// Lines kept: one is fitted per 10 minutes at most, but one is drawn per run, and a source may jump at each key picture
/// while its media waits for what belongs beside it.
const LINES_MAX: usize = 256;
/// Seconds after which a tag is of no use any more.
const TAG_LATE_MAX: i64 = 10;

impl Segmenter {
    /// `init`'s timescale is that of all samples.
    pub fn new(output: Arc<RenditionOutput>, init: InitSection, cut: Cut, grid: Grid, line: PdtLine) -> Segmenter {
        let timescale = init.timescale;
        output.set_init(init.clone());
        Segmenter {
            output,
            init,
            grid,
            cut,
            timescale,
            lines: VecDeque::from([line]),
            open: None,
            memory: Pieces::default(),
            next: None,
            discontinuity: false,
            past: (0, 0),
            ended: false,
            counts: Counts::default(),
            published: VecDeque::new(),
            tags: VecDeque::new(),
            given: Vec::new(),
        }
    }

    pub fn output(&self) -> &Arc<RenditionOutput> {
        &self.output
    }

    pub fn timescale(&self) -> u32 {
        self.timescale
    }

    /// The init section of the newest segment.
    pub fn init(&self) -> &InitSection {
        &self.init
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What was published, oldest first: drain it after every call.
    pub fn poll(&mut self) -> Option<PartPublished> {
        self.published.pop_front()
    }

    /// A line for parts from `line.from_n` on; it replaces one from the same frame.
    pub fn date_line(&mut self, line: PdtLine) {
        self.lines.pop_back_if(|last| last.from_n == line.from_n);
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// A tag for the part in which its time falls, or the next one that there is.
    pub fn tag(&mut self, tag: TimedTag) {
        if self.tags.len() == TAGS_WAITING_MAX {
            self.tags.pop_front();
            self.counts.tags_lost += 1;
        }
        let at = self.tags.iter().rposition(|other| other.time <= tag.time).map_or(0, |before| before + 1);
        self.tags.insert(at, tag);
    }

    pub fn push(&mut self, now: Mono, mut sample: Sample, place: Place) {
        // No segment of a grid has a part behind its last one.
        if self.ended || self.cut != Cut::Source && place.part >= self.parts_per_segment() {
            self.counts.late += 1;
            return;
        }
        sample.duration = sample.duration.max(1);
        let here = (place.msn, place.part);
        if let Some(open) = &mut self.open
            && (open.msn, open.index) == here
        {
            if sample.dts < open.end() {
                self.counts.late += 1;
                return;
            }
            if open.is_full(sample.data.len()) {
                self.counts.over += 1;
                return;
            }
            if sample.dts > open.end() {
                self.counts.stretched += 1;
                open.stretch(sample.dts);
            }
            open.push(sample);
        } else {
            let edge = self.open.as_ref().map(|o| (o.msn, o.index)).or(self.next.map(|n| (n.msn, n.part)));
            if edge.is_some_and(|edge| here < edge) {
                self.counts.late += 1;
                return;
            }
            self.bridge(&mut sample, here);
            self.advance(now, here, Some(sample.dts));
            let mut open = OpenPart::new(place.msn, place.part);
            open.push(sample);
            self.open = Some(open);
        }
        match place.ends {
            Ends::Nothing => {}
            Ends::Part => self.close(now, false),
            Ends::Segment => self.close(now, true),
        }
    }

    /// What is missing at a part's head must not make it short, nor its segment [HLS 4.4.4.9]: its first sample decodes where
    /// the part begins. A picture is shown no earlier for that.
    fn bridge(&mut self, sample: &mut Sample, here: (u64, u32)) {
        let hole = sample.dts - self.starts(here.0, here.1);
        if self.cut == Cut::Source || hole <= 0 {
            return;
        }
        self.counts.stretched += 1;
        let ticks = u32::try_from(hole).unwrap_or(u32::MAX);
        sample.dts -= hole;
        sample.duration = sample.duration.saturating_add(ticks);
        if matches!(self.init.track, TrackConfig::Video(_)) {
            sample.cto = sample.cto.saturating_add_unsigned(ticks);
        }
    }

    /// Nobody will ever produce what is missing before part `until` (msn, index): it becomes GAP now.
    pub fn gap(&mut self, now: Mono, until: (u64, u32)) {
        if !self.ended {
            self.advance(now, until, None);
        }
    }

    /// As `gap`; what is missing ends `at`, in the track's timescale.
    pub fn gap_to(&mut self, now: Mono, until: (u64, u32), at: i64) {
        if !self.ended {
            self.advance(now, until, Some(at));
        }
    }

    /// After a restart: parts from segment `first` up to part `until` are gone, the segments of `breaks` behind a
    /// DISCONTINUITY. Those before part `due` are listed as GAP now, the others once media goes on with part `until`: no
    /// date of a playlist lies in the future. A break is listed in any case.
    pub fn resume(&mut self, now: Mono, first: u64, due: (u64, u32), until: (u64, u32), breaks: &[u64]) {
        self.past = until;
        self.next = Some(Next { msn: first, part: 0, at: self.starts(first, 0) });
        for msn in breaks.iter().filter(|msn| (first..=until.0).contains(*msn)) {
            self.gap(now, (*msn, 0));
            self.discontinuity = true;
        }
        self.gap(now, due.min(until));
        self.published.clear();
    }

    /// The segment that comes next begins behind a DISCONTINUITY.
    pub fn break_here(&mut self) {
        self.discontinuity = true;
    }

    /// Forgets the samples of the open part: whoever produced them is gone, and a successor makes the part anew.
    pub fn abandon(&mut self) {
        self.open = None;
    }

    /// As `abandon`, for all of the open segment from part `from` on. Only in a mode whose playlists list no parts.
    pub fn take_back(&mut self, from: (u64, u32)) {
        self.open = None;
        if let Some(next) = self.next.filter(|next| next.msn == from.0 && next.part > from.1) {
            self.discontinuity |= self.output.take_back(from.1 as usize);
            self.next = Some(Next { msn: next.msn, part: from.1, at: self.starts(next.msn, from.1) });
            let (kept, back) = std::mem::take(&mut self.given).into_iter().partition(|(part, _)| *part < from.1);
            self.given = kept;
            back.into_iter().for_each(|(_, tag): (u32, TimedTag)| self.tag(tag));
        }
    }

    /// The open segment ends here, short.
    pub fn cut_short(&mut self, now: Mono) {
        if !self.ended {
            self.close(now, true);
            self.end_segment();
        }
    }

    /// The next segment has another init section, or a timeline of its own, or both. The open segment ends here, short.
    pub fn discontinuity(&mut self, now: Mono, init: Option<InitSection>) {
        if self.ended {
            return;
        }
        self.close(now, true);
        self.end_segment();
        if let Some(init) = init {
            self.timescale = init.timescale;
            self.init = init.clone();
            self.output.set_init(init);
        }
        // What is missing behind it has the dates and times of its own line.
        self.next = self.next.map(|next| Next { at: self.starts(next.msn, next.part), ..next });
        self.discontinuity = self.next.is_some();
    }

    /// End of media: the open part and segment are published as they are, then ENDLIST. What comes later is `late`.
    pub fn end(&mut self, now: Mono) {
        self.close(now, true);
        self.ended = true;
        self.output.end();
    }

    /// Publishes the open part, if there is one.
    fn close(&mut self, now: Mono, ends_segment: bool) {
        let Some(open) = self.open.take() else { return };
        let (from, shown) = open.start();
        let report = (open.samples(), open.stamps());
        let end = open.end();
        let tags = self.tags_of(open.index, from, end);
        let part = open.finish(&mut self.memory, &tags, self.timescale);
        self.list(now, Next { msn: open.msn, part: open.index, at: end }, part, shown, ends_segment, report);
    }

    /// The tags of a part, each with its time: those that are late with the part's own.
    fn tags_of(&mut self, part: u32, from: i64, until: i64) -> Vec<(i64, TimedTag)> {
        let (mut tags, mut bytes) = (Vec::new(), 0);
        let timescale = self.timescale;
        if part == 0 {
            self.given.clear();
        }
        while let Some(tag) = self.tags.pop_front_if(|tag| tag.at(timescale) < until) {
            let at = tag.at(timescale);
            if from - at > TAG_LATE_MAX * i64::from(timescale) {
                self.counts.tags_lost += 1;
                continue;
            }
            bytes += tag.data.len();
            if tags.len() == PART_TAGS_MAX || bytes > PART_TAG_BYTES_MAX {
                self.tags.push_front(tag);
                break;
            }
            self.counts.tags_late += u64::from(at < from);
            if !self.output.spec().targets.parts {
                self.given.push((part, tag.clone()));
            }
            tags.push((at.max(from), tag));
        }
        tags
    }

    /// Brings the edge to part `to`, whose decode time is `at` if known: closes the open part, and fills with GAP what
    /// lies between.
    fn advance(&mut self, now: Mono, to: (u64, u32), at: Option<i64>) {
        if let Some(mut open) = self.open.take() {
            let place = Next { msn: open.msn, part: open.index, at: open.end() };
            // What is missing at a part's end must not make it short [HLS 4.4.4.9]: its last sample is shown until then.
            let until = self.starts_after(place);
            if self.cut != Cut::Source && (open.msn, open.index) < to && open.end() < until {
                self.counts.stretched += 1;
                open.stretch(until);
            }
            let stays = (open.msn, open.index) >= to;
            self.open = Some(open);
            if stays {
                return;
            }
        }
        let closes_segment =
            self.cut != Cut::Source && self.open.as_ref().is_some_and(|o| o.index + 1 == self.parts_per_segment());
        self.close(now, closes_segment);
        let Some(first) = self.next else {
            // A rendition that joins within a segment: the parts before it will never come.
            self.next = Some(Next { msn: to.0, part: 0, at: self.starts(to.0, 0) });
            self.fill(now, to, at);
            return;
        };
        if to.0.saturating_sub(first.msn) > self.jump_segments() {
            // Further than anything that could still be listed: what is held goes, numbers stay those of the grid.
            let msn = to.0 - self.jump_segments() + 1;
            self.output.complete();
            self.output.jump(msn);
            self.next = Some(Next { msn, part: 0, at: self.starts(msn, 0) });
        }
        self.fill(now, to, at);
    }

    fn fill(&mut self, now: Mono, to: (u64, u32), at: Option<i64>) {
        let per_segment = self.parts_per_segment();
        while let Some(next) = self.next {
            if (next.msn, next.part) >= to {
                break;
            }
            // A source's segment ends where its next one starts; how many parts it would have had nobody knows.
            let past = (next.msn, next.part) < self.past;
            if self.cut == Cut::Source && next.msn < to.0 && next.part > 0 && !past {
                self.end_segment();
                continue;
            }
            let last = next.part + 1 >= per_segment && (next.msn < to.0 || self.cut != Cut::Source);
            let duration = self.gap_duration(next, to, at);
            let end = next.at + i64::try_from(duration).unwrap_or(0);
            let part = Part { duration, independent: false, opens: None, bytes: None };
            self.list(now, Next { at: end, ..next }, part, next.at, last, (0, Stamps::default()));
        }
    }

    /// A GAP part lasts as long as the grid says; before a part whose time is known (`at`), exactly up to it.
    fn gap_duration(&self, next: Next, to: (u64, u32), at: Option<i64>) -> u64 {
        let nominal = match self.starts_after(next) - self.starts(next.msn, next.part) {
            // Behind the last part that the grid knows of.
            ..=0 => self.starts(next.msn, 1) - self.starts(next.msn, 0),
            span => span,
        };
        let until = match at {
            Some(at) if self.meets(next, to) => at,
            _ if self.cut == Cut::Source => next.at + nominal,
            _ => self.starts_after(next),
        };
        let span = until - next.at;
        let longest = i64::from(self.output.spec().targets.part_target_ms) * i64::from(self.timescale) / 1_000;
        u64::try_from(if (1..=longest).contains(&span) { span } else { nominal }).unwrap_or(1).max(1)
    }

    fn list(&mut self, now: Mono, place: Next, part: Part, shown: i64, ends: bool, from: (usize, Stamps)) {
        let (samples, stamps) = from;
        let report = PartPublished {
            msn: place.msn,
            part: place.part,
            gap: part.bytes.is_none(),
            independent: part.independent,
            completes_segment: ends,
            duration: part.duration,
            samples,
            bytes: part.bytes.as_ref().map_or(0, bytes::Bytes::len),
            stamps,
            published: now,
        };
        let discontinuity = place.part == 0 && std::mem::take(&mut self.discontinuity);
        let date_time = self.date_time(shown);
        self.output.publish(now, Publication { msn: place.msn, part, date_time, discontinuity, completes: ends });
        self.next = Some(if ends {
            Next { msn: place.msn + 1, part: 0, at: place.at }
        } else {
            Next { part: place.part + 1, ..place }
        });
        if self.published.len() == PUBLISHED_MAX {
            self.published.pop_front();
            self.counts.unpolled += 1;
        }
        self.published.push_back(report);
    }

    /// The open segment has all the parts it will get.
    fn end_segment(&mut self) {
        if let Some(next) = self.next
            && next.part > 0
        {
            self.output.complete();
            self.next = Some(Next { msn: next.msn + 1, part: 0, at: next.at });
        }
    }

    fn date_time(&self, shown: i64) -> Wall {
        let nanos = i128::from(shown) * 1_000_000_000 / i128::from(self.timescale.max(1));
        let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
        let holds = |line: &&PdtLine| self.grid.nanos_at(line.from_n) <= nanos;
        let line = self.lines.iter().rev().find(holds).or(self.lines.front());
        line.map_or(Wall(0), |line| line.at_nanos(&self.grid, nanos))
    }

    /// Decode time at which the grid starts a part.
    fn starts(&self, msn: u64, part: u32) -> i64 {
        let c = self.grid.cadence;
        let frame = self.grid.first_frame(msn).saturating_add(i64::from(part) * i64::from(c.part));
        let sound = matches!(self.init.track, TrackConfig::Audio(_));
        match self.cut {
            // Beside a source that cuts regularly, parts of sound begin as they do on the grid.
            Cut::Source if sound && (msn, part) <= self.past => {
                self.grid.audio_at_frame(frame, self.timescale).saturating_mul(1_024)
            }
            Cut::Frames => frame.saturating_mul(i64::from(c.frame_ticks())),
            Cut::Audio => self.grid.audio_at_frame(frame, self.timescale).saturating_mul(1_024),
            Cut::Source => {
                let ticks = i128::from(frame) * i128::from(c.rate.den) * i128::from(self.timescale);
                i64::try_from(ticks / i128::from(c.rate.num)).unwrap_or(i64::MAX)
            }
        }
    }

    fn starts_after(&self, next: Next) -> i64 {
        let (msn, part) = self.following(next);
        self.starts(msn, part)
    }

    /// Nothing lies between the part `next` and part `to`.
    fn meets(&self, next: Next, to: (u64, u32)) -> bool {
        let here = (next.msn, next.part);
        // How many parts a source's segment has its next one tells.
        let last = self.cut == Cut::Source && here >= self.past && to == (next.msn + 1, 0);
        last || to == (next.msn, next.part + 1) || to == self.following(next)
    }

    fn following(&self, next: Next) -> (u64, u32) {
        if next.part + 1 >= self.parts_per_segment() { (next.msn + 1, 0) } else { (next.msn, next.part + 1) }
    }

    fn parts_per_segment(&self) -> u32 {
        let c = self.grid.cadence;
        c.segment.div_ceil(c.part.max(1)).max(1)
    }

    fn jump_segments(&self) -> u64 {
        self.output.spec().targets.window_segments as u64
    }
}

//! Cues and timed tags to their place in the session: by the same line as the pictures of their leg.
//!
//! A marker waits for the next unit of its leg's reference track: behind a jump of source time that unit decides which
//! run its time stamp is of.

use std::collections::VecDeque;
use std::time::Duration;

use super::run::{Run, Runs};
use super::session::Out;
use crate::media::grid::FrameRate;
use crate::media::marker::{Cue, Dropped, PlacedCue, Tag};
use crate::mpegts::scte35::When;
use crate::time::Mono;

/// One of the two.
#[derive(Clone, Debug)]
pub(super) enum Marker {
    Cue(Cue),
    Tag(Tag),
}

impl Marker {
    fn received(&self) -> Mono {
        match self {
            Marker::Cue(cue) => cue.received,
            Marker::Tag(tag) => tag.received,
        }
    }
}

/// The markers of a session that have no place yet.
#[derive(Debug, Default)]
pub(super) struct Markers {
    /// With their legs.
    waiting: VecDeque<(u8, Marker)>,
    /// Cues that are too far ahead to be told: their run and frame.
    ahead: VecDeque<(u32, i64, Cue)>,
    /// Newest run that markers were placed on.
    run: Option<u32>,
    /// Arrivals of those placed of late.
    placed: VecDeque<Mono>,
    /// The furthest frame that was told of.
    furthest: i64,
}

/// What placing needs to know of the session.
pub(super) struct Place<'a> {
    pub(super) runs: &'a Runs,
    pub(super) on_air: Option<u8>,
    /// The next frame that nobody was given.
    pub(super) next: i64,
}

impl Markers {
    pub(super) fn push(&mut self, leg: u8, marker: Marker, out: &mut VecDeque<Out>) {
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
            out.push_back(Out::Dropped(Dropped::Flood));
        }
        self.waiting.push_back((leg, marker));
    }

    /// A connection began or ended: what still waits belongs to time that will not be known.
    pub(super) fn forget(&mut self, leg: u8, out: &mut VecDeque<Out>) {
        let before = self.waiting.len();
        self.waiting.retain(|(of, _)| *of != leg);
        for _ in self.waiting.len()..before {
            out.push_back(Out::Dropped(Dropped::RunGone));
        }
    }

    /// The furthest frame that was told of: its date must not change.
    pub(super) fn furthest(&self) -> i64 {
        self.furthest
    }

    /// A unit of `leg`'s reference track has its place.
    pub(super) fn settle(&mut self, leg: u8, at: &Place<'_>, out: &mut VecDeque<Out>) {
        if at.on_air != Some(leg) {
            // The leg on air brings its own.
            self.waiting.retain(|(of, _)| *of != leg);
            return;
        }
        let Some(line) = at.runs.line(leg) else { return };
        let Some(run) = at.runs.run(line.run) else { return };
        if self.run.replace(line.run).is_some_and(|before| before != line.run) {
            self.run_gone(line.run, out);
        }
        let rate = at.runs.rate;
        while let Some(ready) = self.ahead.iter().position(|(_, n, _)| n - at.next <= frames(rate, TOLD_AHEAD)) {
            if let Some((_, due, cue)) = self.ahead.remove(ready) {
                self.tell(at.next, Some(due), cue, out);
            }
        }
        while let Some(place) = self.waiting.iter().position(|(of, _)| *of == leg) {
            let Some((_, marker)) = self.waiting.remove(place) else { return };
            if self.floods(marker.received()) {
                out.push_back(Out::Dropped(Dropped::Flood));
                continue;
            }
            match marker {
                Marker::Cue(cue) => self.cue(cue, run, line.time, at, out),
                Marker::Tag(tag) => out.push_back(tag_out(tag, run, line.time)),
            }
        }
    }

    /// What was announced for frames of another run does not come.
    fn run_gone(&mut self, run: u32, out: &mut VecDeque<Out>) {
        let before = self.ahead.len();
        self.ahead.retain(|(of, ..)| *of == run);
        for _ in self.ahead.len()..before {
            out.push_back(Out::Dropped(Dropped::RunGone));
        }
    }

    fn cue(&mut self, cue: Cue, run: &Run, now: i64, at: &Place<'_>, out: &mut VecDeque<Out>) {
        let rate = at.runs.rate;
        let Some(When::At(raw)) = cue.info.at() else { return self.tell(at.next, None, cue, out) };
        let due = run.anchor.n0 + rate.frames(run.time_of(raw, now) - run.base);
        if at.next - due > frames(rate, BEHIND) {
            return out.push_back(Out::Dropped(Dropped::Stale));
        }
        if due - at.next > frames(rate, KEPT_AHEAD) || self.ahead.len() == AHEAD_MAX {
            return out.push_back(Out::Dropped(Dropped::Far));
        }
        if due - at.next > frames(rate, TOLD_AHEAD) {
            // Encoders say it again and again.
            if !self.ahead.iter().any(|(_, n, known)| *n == due && known.section == cue.section) {
                self.ahead.push_back((run.anchor.run, due, cue));
            }
            return;
        }
        self.tell(at.next, Some(due), cue, out);
    }

    fn tell(&mut self, next: i64, due: Option<i64>, cue: Cue, out: &mut VecDeque<Out>) {
        let n = due.map_or(next, |due| due.max(next));
        self.furthest = self.furthest.max(n);
        out.push_back(Out::Cue(Box::new(PlacedCue { n, next, due, cue })));
    }

    fn floods(&mut self, at: Mono) -> bool {
        while self.placed.front().is_some_and(|first| at.since(*first) > FLOOD_SPAN) {
            self.placed.pop_front();
        }
        let floods = self.placed.len() >= FLOOD_MAX;
        if !floods {
            self.placed.push_back(at);
        }
        floods
    }
}

fn tag_out(tag: Tag, run: &Run, now: i64) -> Out {
    let time = run.time_of(tag.pts.raw33(), now);
    match time - now {
        ahead if ahead > TAG_AHEAD => Out::Dropped(Dropped::Far),
        ahead if ahead < -TAG_BEHIND || time < 0 => Out::Dropped(Dropped::Stale),
        _ => Out::Tag { time, data: tag.data },
    }
}

fn frames(rate: FrameRate, span: Duration) -> i64 {
    (span.as_secs_f64() * rate.hz()) as i64
}

/// Markers that wait for the next unit; more are a flood.
const WAITING_MAX: usize = 64;
/// Cues that are kept until they come near.
const AHEAD_MAX: usize = 32;
/// A cue is told this long ahead: the date of its frame must not change from then on, whatever the source's clock does.
const TOLD_AHEAD: Duration = Duration::from_secs(30);
/// Further ahead it is not kept.
const KEPT_AHEAD: Duration = Duration::from_secs(6 * 3_600);
/// A splice time that lies so far back is late; further back it is of another time line, or long over.
const BEHIND: Duration = Duration::from_secs(10);
/// 90 kHz: a tag that is further ahead of the pictures, or behind them, is not theirs.
const TAG_AHEAD: i64 = 30 * 90_000;
const TAG_BEHIND: i64 = 10 * 90_000;
/// Markers taken within the span.
const FLOOD_MAX: usize = 100;
const FLOOD_SPAN: Duration = Duration::from_secs(10);

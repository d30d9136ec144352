//! A session whose process is gone goes on with the same numbers: from the first part, or segment, that begins when its
//! encoders stand.

use super::running::{Fate, Running};
use super::session::{Facts, Timeline};
use crate::media::grid::{Ends, Place};
use crate::media::plan::Kept;
use crate::time::{Now, Wall};

impl Timeline {
    /// The timeline and its first frame. `edge`: the furthest frame and when that was, as it was last written down. No number
    /// that was used comes again, whatever the wall clock says.
    pub fn resume(facts: Facts, kept: &Kept, edge: Option<(i64, Wall)>, now: Now) -> (Timeline, i64) {
        let (grid, line) = (kept.plan.grid, kept.line());
        let anchored = kept.anchors.last().map_or(0, |anchor| anchor.n0);
        // It may have gone on until now; behind a clock that went back nobody knows how long.
        let since = |at: Wall| if now.wall < at { UNWRITTEN } else { now.wall.0 - at.0 };
        let used = edge.map_or(anchored, |(n, at)| (n + 1 + grid.frame_at_nanos(since(at))).max(anchored));
        let dated = grid.frame_at_nanos(line.nanos_of(&grid, Wall(now.wall.0.saturating_add(AHEAD))));
        let soon = dated.max(used);
        // A source is cut at segments only, and without parts nothing less can be listed.
        let parts = facts.mode.params().parts && kept.plan.source.is_none();
        let from = if parts { grid.part_end(soon) } else { grid.segment_start(soon) + i64::from(grid.cadence.segment) };
        let mut running = Running::new(&kept.plan, facts, line, now.mono);
        // Arrival minus session time: what the line dates now arrives now. A clock that went back has nothing to say.
        let behind =
            if dated >= used { line.nanos_of(&grid, now.wall) } else { grid.nanos_at(from).saturating_sub(AHEAD) };
        let pace = now.mono.0.cast_signed().saturating_sub(behind);
        running.runs.resume(&kept.anchors, from, pace, now.mono);
        running.go_on(from);
        let mut timeline = Timeline::new(facts);
        timeline.running = Some(Box::new(running));
        (timeline, from)
    }
}

impl Running {
    fn go_on(&mut self, from: i64) {
        self.pdt.resume();
        self.shown.fill(from);
        self.filler.resume(from);
        self.resume = Some(i64::MAX);
        if let Some(cutter) = &mut self.cutter {
            cutter.resume(from);
        }
        let first = self.grid.place_frame(from);
        let last = match first.part.checked_sub(1) {
            Some(part) => Place { part, ends: Ends::Part, ..first },
            None => Place { msn: first.msn.saturating_sub(1), part: 0, ends: Ends::Segment },
        };
        for track in &mut self.tracks {
            if track.fate == Fate::Pass {
                track.grid.next = self.grid.audio_at_frame(from, track.grid.rate());
                track.last = Some(last);
            }
        }
    }
}

/// The edge is written each second; the last two may be missing.
const UNWRITTEN: i64 = 2_000_000_000;
/// Encoders need this long to stand, on a box that starts all of its channels at once.
const AHEAD: i64 = 800_000_000;

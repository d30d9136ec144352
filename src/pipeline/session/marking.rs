//! What a session does with its source's cues and timed tags.

use bytes::Bytes;

use super::Session;
use crate::media::marker::{Cue, Dropped, PlacedCue, Tag};
use crate::media::plan::Kept;
use crate::package::dates::DateRange;
use crate::package::fmp4::emsg::TimedTag;
use crate::pipeline::cues::{Cues, Taken};
use crate::pipeline::events::Scene;
use crate::pipeline::stage::Stage;
use crate::time::Now;

impl Session {
    pub(super) fn heard_cue(&mut self, leg: u8, cue: Cue) {
        self.scene.marker(cue.info.command.name());
        self.timeline.cue(leg, cue);
    }

    pub(super) fn heard_tag(&mut self, leg: u8, tag: Tag) {
        self.scene.marker("id3");
        self.timeline.tag(leg, tag);
    }

    /// A cue has its frame, which no encoder has seen.
    pub(super) fn cue(&mut self, now: Now, placed: &PlacedCue) {
        let (Some(cues), Some(stage)) = (&mut self.cues, &self.stage) else { return };
        let taken = cues.take(placed);
        match taken {
            Taken::New => {
                let PlacedCue { n, cue, .. } = placed;
                let (name, date) = (cue.info.command.name(), stage.date_of(*n));
                self.scene.cue(format!("{name} of pid {:#06x} for frame {n}, {date}", cue.pid));
            }
            Taken::Again => self.scene.cue_repeated(),
            Taken::Nothing(why) => self.scene.markers_dropped(why, 1),
        }
        // The frame may be the next one.
        let seen = stage.seen();
        let record = (taken == Taken::New).then(|| cues.record(placed));
        self.force_up_to(seen);
        if let Some(record) = record {
            self.commit(now, record);
        }
    }

    pub(super) fn tag(&mut self, time: i64, data: Bytes) {
        if let Some(stage) = &mut self.stage {
            stage.tag(&TimedTag { time, data });
        }
    }

    pub(super) fn cues_jumped(&mut self, n: i64) {
        if let Some(cues) = &mut self.cues {
            self.scene.markers_dropped(Dropped::RunGone, cues.jumped(n));
        }
    }

    /// Frames up to `n` go to the encoders next.
    pub(super) fn force_up_to(&mut self, n: i64) {
        if let Some(cues) = &mut self.cues {
            cues.force_up_to(n).into_iter().for_each(|at| self.workers.force(at));
        }
    }
}

impl Session {
    /// Lists again what another process listed.
    pub(super) fn restore_cues(&mut self, kept: &Kept, from: i64) {
        if let (Some(cues), Some(stage)) = (&mut self.cues, &self.stage) {
            announce(&self.scene, stage, cues.restore(kept, from));
        }
    }
}

/// Tells the playlists what is new.
pub(super) fn tell(scene: &Scene, cues: &mut Cues, stage: &Stage) {
    announce(scene, stage, cues.tell(|n| stage.date_of(n)));
}

fn announce(scene: &Scene, stage: &Stage, ranges: Vec<DateRange>) {
    for range in ranges {
        if let Err(why) = stage.output().announce(range) {
            scene.markers_dropped(Dropped::Refused, 1);
            scene.note(crate::telemetry::report::Level::Warn, "date_range_refused", why);
        }
    }
}

//! What a session knows of its source's closed captions, and leaves to the next one.

use super::Session;
use crate::media::grid::SourceProfile;
use crate::media::track::Program;
use crate::pipeline::witness::Fact;

/// A source that was heard for less has not shown what it carries: 1 minute.
const TELLING_SECONDS: i64 = 60;

impl Session {
    /// By the program map. Of two legs the last one counts: they carry the same.
    pub(super) fn describe_captions(&mut self, program: &Program) {
        let video = program.tracks.iter().find(|track| track.codec.is_video());
        let services = video.map(|track| track.captions.clone()).unwrap_or_default();
        if let Some(stage) = &mut self.stage {
            stage.describe_captions(&services);
        }
        self.described = services;
    }

    /// The timeline learnt something of the source.
    pub(super) fn learn(&mut self, profile: SourceProfile) {
        let known = self.learnt.map(|learnt| learnt.captions).unwrap_or_default();
        let seen = self.stage.as_ref().map(|stage| stage.captions_seen()).unwrap_or_default();
        self.keep(SourceProfile { captions: known.union(seen), ..profile });
    }

    /// Captions that were not seen in any session before are declared in the next one from its start.
    pub(super) fn learn_captions(&mut self) {
        let Some((stage, learnt)) = self.stage.as_mut().zip(self.learnt) else { return };
        let lost = stage.take_captions_lost();
        let captions = learnt.captions.union(stage.captions_seen());
        if lost > 0 {
            self.scene.captions_lost(lost);
        }
        if captions != learnt.captions {
            self.keep(SourceProfile { captions, ..learnt });
        }
    }

    /// The session ends: what it did not show is not expected of the next one.
    pub(super) fn forget_captions(&mut self) {
        let Some((stage, learnt)) = self.stage.as_ref().zip(self.learnt) else { return };
        let telling = stage.heard_frames() >= (learnt.rate.hz() * TELLING_SECONDS as f64) as i64;
        let captions = stage.captions_seen();
        if telling && captions != learnt.captions {
            self.keep(SourceProfile { captions, ..learnt });
        }
    }

    fn keep(&mut self, profile: SourceProfile) {
        (self.learnt, self.profile) = (Some(profile), Some(profile));
        self.facts.push_back(Fact::Learnt(profile));
    }
}

//! Where the session's worker runs: asked for when the source is known, again after every loss, and when it was quiet.

use std::collections::BTreeSet;

use super::Session;
use crate::pipeline::devices::{Refusal, Request};
use crate::pipeline::placer::Placer;
use crate::pipeline::witness::{Fact, Placed};
use crate::pixels::hall::Home;
use crate::pixels::protocol::{Lost, Open};
use crate::time::Now;

impl Session {
    /// The first worker of a stage, where there is room for it.
    pub(super) fn open_worker(&mut self, now: Now, open: Open) {
        let Some(video) = &open.video else {
            return self.workers.open(now.mono, open);
        };
        let request = Request::new(&video.source, video.cadence.rate, &video.renditions);
        self.workers.prepare(now.mono, open);
        match self.placer.choose(now.mono, request) {
            Ok(()) => {
                self.settle_in();
                self.workers.begin(now.mono);
            }
            Err(refusal) => self.no_place(now, &refusal),
        }
    }

    /// The next worker goes where the placer says.
    fn settle_in(&mut self) {
        let Some(place) = self.placer.place() else { return };
        let home = place.gpu.map_or(Home::Own, Home::Gpu);
        let (backend, why) = (place.backend, place.why.clone());
        self.workers.set_place(home, backend, self.config.preset.as_deref(), self.placer.is_makeshift());
        let placed = Placed { backend: backend.name(), gpu: place.gpu, why, step: self.placer.step() };
        self.scene.placed(&placed);
        let mut reasons = self.picture_health();
        if placed.step > 0 {
            reasons.insert(format!("fallback_{}", placed.backend));
        }
        self.facts.extend([Fact::Placed(placed), Fact::Health(reasons)]);
    }

    fn no_place(&mut self, now: Now, refusal: &Refusal) {
        let why = format!("no capacity: {refusal}");
        let placed = Placed { backend: "none", gpu: None, why: why.clone(), step: self.placer.step() };
        self.scene.placed(&placed);
        self.facts.extend([Fact::Placed(placed), Fact::Health(BTreeSet::from(["no_capacity".to_owned()]))]);
        self.lost_at.get_or_insert(now.mono);
        self.detail = Some(why);
    }

    /// Another place for a worker that was lost.
    pub(super) fn replace(&mut self, now: Now, lost: Lost, detail: &str) {
        match self.placer.lose(now.mono, lost, detail) {
            Ok(false) => {}
            Ok(true) => self.settle_in(),
            Err(refusal) => self.no_place(now, &refusal),
        }
    }

    /// Without a place one is looked for; on an ill GPU another one is, and below its first choice a better one.
    pub(super) fn look_for_a_place(&mut self, now: Now) {
        if self.is_ending() {
            return;
        }
        let moves = |placer: &mut Placer| placer.flee(now.mono) || placer.rise(now.mono);
        if self.placer.retry(now.mono) || self.workers.is_up() && moves(&mut self.placer) {
            self.settle_in();
            self.workers.leave(now.mono);
        }
    }
}

//! Crop and logo of a session: what is told about them, and what follows a change.

use std::collections::BTreeSet;

use super::Session;
use crate::media::crop::Part;
use crate::media::logo::{Logo, LogoPicture};
use crate::media::track::VideoConfig;
use crate::pipeline::witness::Fact;
use crate::pixels::protocol::Backend;
use crate::telemetry::report::Level;

/// Of a session whose source the crop is not for.
const UNFIT: &str = "crop_unfit";

impl Session {
    /// Its channel has another logo, or none: the renditions that are on air show it within a second.
    pub(in crate::pipeline) fn set_logo(&mut self, logo: Option<&Logo>) {
        if self.logo.as_ref() == logo || self.is_ending() {
            return;
        }
        self.logo = logo.cloned();
        if let Some(stage) = &mut self.stage {
            stage.set_logo(logo);
        }
        self.workers.set_logo(logo);
        let what = match logo {
            Some(Logo { place, picture: LogoPicture::Png(png) }) => format!(
                "{:?}, {} % wide, {} % from the edges, opacity {}; a PNG of {} bytes",
                place.corner,
                place.width,
                place.margin,
                place.opacity,
                png.len()
            ),
            _ => "none".to_owned(),
        };
        self.scene.note(Level::Info, "logo_changed", what);
    }

    /// The source is of this size now: a crop that leaves too little of it waits for another one.
    pub(super) fn look_at_source(&mut self, source: &VideoConfig) {
        let crop = self.config.crop;
        let encoded = self.stage.as_ref().is_some_and(super::Stage::has_ladder);
        if crop.is_nothing() || !encoded {
            return;
        }
        let part = crop.part_of(source.width, source.height);
        if part.is_some() != self.uncropped {
            return;
        }
        self.uncropped = part.is_none();
        let (width, height) = (source.width, source.height);
        match part {
            Some(Part { width: w, height: h, .. }) => {
                let what = format!("the crop fits the source of {width}x{height} again: {w}x{h} of it is shown");
                self.scene.note(Level::Info, "crop_fits", what);
            }
            None => {
                let cut: Vec<String> = crop.named().iter().map(|(name, n)| format!("{name} {n}")).collect();
                let what = format!(
                    "a crop of {} leaves too little of a source of {width}x{height}: all of it is shown; set the \
                     channel's crop for this source",
                    cut.join(", ")
                );
                self.scene.note(Level::Warn, "crop_unfit", what);
            }
        }
        let mut reasons = self.picture_health();
        let place = self.placer.place().map_or(Backend::Software, |place| place.backend);
        if self.placer.step() > 0 {
            reasons.insert(format!("fallback_{}", place.name()));
        }
        self.facts.push_back(Fact::Health(reasons));
    }

    /// What of its pictures is not as it was asked for.
    pub(super) fn picture_health(&self) -> BTreeSet<String> {
        self.uncropped.then(|| UNFIT.to_owned()).into_iter().collect()
    }
}

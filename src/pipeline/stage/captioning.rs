//! A session's closed captions: heard in the source, put into its ladder's pictures, told to players.

use super::Stage;
use crate::media::access_unit::AccessUnit;
use crate::media::captions::{CaptionService, CaptionsSeen};
use crate::media::channel::VideoCodec;
use crate::media::track::Codec;
use crate::pixels::protocol::{Encoded, RenditionIndex};
use crate::timeline::SourceSample;

impl Stage {
    /// What earlier sessions of the channel showed.
    pub fn remember_captions(&mut self, seen: CaptionsSeen) {
        self.captions.remember(seen);
    }

    /// What the PMT says.
    pub fn describe_captions(&mut self, services: &[CaptionService]) {
        self.captions.describe(services);
    }

    /// Which services carried something in this session.
    pub fn captions_seen(&self) -> CaptionsSeen {
        self.captions.seen()
    }

    /// Frames that the source has shown to this process.
    pub fn heard_frames(&self) -> i64 {
        self.seen + 1 - self.resumed.as_ref().map_or(0, |resumed| resumed.from)
    }

    /// Constructs lost since the last call.
    pub fn take_captions_lost(&mut self) -> u64 {
        self.captions.take_lost()
    }

    /// A picture of the source that a ladder is made of, of frame `n`.
    pub fn hear_captions(&mut self, n: i64, unit: &AccessUnit) {
        let fields = self.video.as_ref().is_some_and(|video| video.source.interlaced);
        self.captions.take(n, unit.codec, fields, &unit.data, true);
    }

    /// A picture that is passed on with what it says; where a ladder is made of it too, it was heard before.
    pub(super) fn hear_source_captions(&mut self, sample: &SourceSample) {
        if self.video.is_some() {
            return;
        }
        let fields = self.source.as_ref().is_some_and(|source| source.config.interlaced);
        let n = self.grid.cadence.rate.frames(sample.dts + i64::from(sample.cto));
        self.captions.take(n, sample.unit.codec, fields, &sample.unit.data, false);
    }

    /// A rendition's encoded picture with its captions; `None`: as it is.
    pub(super) fn captioned(&mut self, index: RenditionIndex, frame: &Encoded) -> Option<Encoded> {
        let rendition = self.video.as_ref()?.renditions.get(usize::from(index))?;
        let codec = match rendition.codec {
            VideoCodec::H264 => Codec::H264,
            VideoCodec::Hevc => Codec::H265,
        };
        let data = self.captions.dress(frame.at, codec, &frame.data)?;
        Some(Encoded { data, ..frame.clone() })
    }

    /// Tells players what changed.
    pub(super) fn declare_captions(&mut self) {
        if let Some(captions) = self.captions.poll() {
            self.output.set_captions(captions);
        }
        let needed = self.needed_from();
        self.captions.published(needed);
    }
}

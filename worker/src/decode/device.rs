//! Access units to every rendition's size on the GPU: NVDEC, and one launch of the ladder per picture.

use rung::media::track::VideoConfig;
use std::sync::Arc;

use super::source::{Barren, Decoded, Health, Taker};
use crate::gpu::cuda::Stream;
use crate::gpu::error::Error;
use crate::gpu::nvdec::{Decoder, Fields, Pushed};
use crate::gpu::watch::Watch;
use crate::picture::Picture;
use crate::scale::device::{Ladder, Patience};

pub(super) struct Source {
    config: VideoConfig,
    fields: Fields,
    stream: Arc<Stream>,
    decoder: Decoder,
    ladder: Ladder,
    barren: Barren,
    watch: Watch,
    stamps: Timestamps,
}

impl Source {
    /// `barren_max`: units without a picture after which a decoder that reported damage is opened anew.
    pub(super) fn open(config: VideoConfig, fields: Fields, barren_max: u32, ladder: Ladder) -> Result<Source, Error> {
        let (stream, watch) = (Arc::clone(ladder.stream()), ladder.watch().clone());
        let decoder = Decoder::open(&stream, config.codec, &headers(&config), fields, &watch)?;
        Ok(Source {
            config,
            fields,
            stream,
            decoder,
            ladder,
            barren: Barren::new(barren_max),
            watch,
            stamps: Timestamps::default(),
        })
    }

    pub(super) fn ladder(&mut self) -> &mut Ladder {
        &mut self.ladder
    }

    /// `patience` says of each rendition whether a free input is waited for.
    pub(super) fn push(
        &mut self,
        data: &[u8],
        (tag, at): (i64, i64),
        patience: &dyn Fn(usize) -> Patience,
        taker: Taker<'_>,
    ) -> Result<Health, Error> {
        let stamp = self.stamps.given(tag, at);
        let (ladder, stamps, mut given) = (&mut self.ladder, &self.stamps, 0);
        let pushed = self.decoder.push(data, stamp, &mut |surface| {
            let picture = Picture::Device(Arc::new(ladder.scale(surface, patience)?));
            given += 1;
            let tag = stamps.tag(surface.tag);
            taker(Decoded { picture, tag, second: surface.second, damaged: surface.damaged });
            Ok(())
        })?;
        let damaged = pushed == Pushed::Damaged;
        if self.barren.pushed(damaged, given) {
            let headers = headers(&self.config);
            self.decoder = Decoder::open(&self.stream, self.config.codec, &headers, self.fields, &self.watch)?;
            return Ok(Health::Reopened);
        }
        Ok(if damaged { Health::Damaged } else { Health::Good })
    }

    /// End of media.
    pub(super) fn drain(&mut self, taker: Taker<'_>) -> Result<(), Error> {
        let (ladder, stamps) = (&mut self.ladder, &self.stamps);
        self.decoder.drain(&mut |surface| {
            let picture = Picture::Device(Arc::new(ladder.scale(surface, |_| Patience::Waits)?));
            taker(Decoded { picture, tag: stamps.tag(surface.tag), second: surface.second, damaged: surface.damaged });
            Ok(())
        })
    }
}

/// What the parser gets as time stamps. It may hand them out sorted, so they grow with presentation; two units on one
/// frame index stay apart by their tags.
#[derive(Debug, Default)]
struct Timestamps {
    newest: i64,
}

impl Timestamps {
    /// Bits of a tag: more than units can be inside.
    const BITS: u32 = 16;
    const MASK: i64 = (1 << Self::BITS) - 1;

    fn given(&mut self, tag: i64, at: i64) -> i64 {
        self.newest = tag;
        (at << Self::BITS) | (tag & Self::MASK)
    }

    fn tag(&self, stamp: i64) -> i64 {
        self.newest - ((self.newest - stamp) & Self::MASK)
    }
}

/// Parameter sets in Annex B [AVC B.1], [HEVC B.2]; none of MPEG-2 video.
fn headers(config: &VideoConfig) -> Vec<u8> {
    config
        .parameter_sets()
        .flat_map(|unit| [0, 0, 0, 1].iter().chain(unit.iter()).copied().collect::<Vec<u8>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_grow_with_presentation_and_give_their_tags_back() {
        let mut stamps = Timestamps::default();
        let given: Vec<(i64, i64)> =
            (0..200_000).map(|tag| (tag, stamps.given(tag, tag + [0, 2, -1, -1][tag as usize % 4] - 90))).collect();
        assert!(given.last_chunk::<4>().unwrap().iter().all(|(tag, stamp)| stamps.tag(*stamp) == *tag));
        let mut shown = given;
        shown.sort_by_key(|(_, stamp)| *stamp);
        assert!(shown.windows(2).all(|pair| pair[0].1 < pair[1].1));
        assert_eq!(shown.iter().take(4).map(|(tag, _)| *tag).collect::<Vec<_>>(), [0, 2, 3, 1]);
    }
}

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
}

impl Source {
    /// `barren_max`: units without a picture after which a decoder that reported damage is opened anew.
    pub(super) fn open(
        config: VideoConfig,
        fields: Fields,
        barren_max: u32,
        ladder: Ladder,
        watch: Watch,
    ) -> Result<Source, Error> {
        let stream = Arc::clone(ladder.stream());
        let decoder = Decoder::open(&stream, config.codec, &headers(&config), fields, &watch)?;
        Ok(Source { config, fields, stream, decoder, ladder, barren: Barren::new(barren_max), watch })
    }

    pub(super) fn ladder(&mut self) -> &mut Ladder {
        &mut self.ladder
    }

    /// `patience` says of each rendition whether a free input is waited for.
    pub(super) fn push(
        &mut self,
        data: &[u8],
        tag: i64,
        patience: &dyn Fn(usize) -> Patience,
        taker: Taker<'_>,
    ) -> Result<Health, Error> {
        let (ladder, mut given) = (&mut self.ladder, 0);
        let pushed = self.decoder.push(data, tag, &mut |surface| {
            let picture = Picture::Device(Arc::new(ladder.scale(surface, patience)?));
            given += 1;
            taker(Decoded { picture, tag: surface.tag, second: surface.second, damaged: surface.damaged });
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
        let ladder = &mut self.ladder;
        self.decoder.drain(&mut |surface| {
            let picture = Picture::Device(Arc::new(ladder.scale(surface, |_| Patience::Waits)?));
            taker(Decoded { picture, tag: surface.tag, second: surface.second, damaged: surface.damaged });
            Ok(())
        })
    }
}

/// Parameter sets in Annex B [AVC B.1].
fn headers(config: &VideoConfig) -> Vec<u8> {
    let units = std::iter::once(&config.sps).chain(&config.pps).filter(|unit| !unit.is_empty());
    units.flat_map(|unit| [0, 0, 0, 1].iter().chain(unit.iter()).copied().collect::<Vec<u8>>()).collect()
}

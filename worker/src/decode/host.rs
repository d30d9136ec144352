//! Access units to 4:2:0 8 bit progressive pictures by libav: decoder, deinterlacer, conversion of odd formats.

use rung::media::track::VideoConfig;
use std::sync::Arc;

use super::source::{Barren, Decoded, Health, Taker};
use crate::av::{Decoder, Error, Filter, Frame, Pushed};
use crate::picture::Picture;

/// Pictures in a row that are not marked interlaced before the deinterlacer is taken out again.
const PROGRESSIVE_RUN: u32 = 25;

#[derive(Debug)]
pub(super) struct Source {
    config: VideoConfig,
    decoder: Decoder,
    /// Present while pictures are marked interlaced.
    deinterlacer: Option<Filter>,
    progressive_run: u32,
    converter: Option<Filter>,
    /// Two pictures per interlaced one.
    fields: bool,
    barren: Barren,
    /// Pictures that the unit which is inside has given.
    given: usize,
}

impl Source {
    /// `barren_max`: units without a picture after which a decoder that reported damage is opened anew.
    pub(super) fn open(config: VideoConfig, fields: bool, barren_max: u32) -> Result<Source, Error> {
        let decoder = Decoder::video(&config)?;
        Ok(Source {
            config,
            decoder,
            deinterlacer: None,
            progressive_run: 0,
            converter: None,
            fields,
            barren: Barren::new(barren_max),
            given: 0,
        })
    }

    pub(super) fn push(&mut self, data: &[u8], tag: i64, taker: Taker<'_>) -> Result<Health, Error> {
        self.given = 0;
        let damaged = self.decoder.push(data, tag)? == Pushed::Damaged;
        self.pull(taker)?;
        if self.barren.pushed(damaged, self.given) {
            self.decoder = Decoder::video(&self.config)?;
            return Ok(Health::Reopened);
        }
        Ok(if damaged { Health::Damaged } else { Health::Good })
    }

    /// End of media.
    pub(super) fn drain(&mut self, taker: Taker<'_>) -> Result<(), Error> {
        self.decoder.drain();
        self.pull(taker)?;
        self.stop_deinterlacing(taker)
    }

    fn pull(&mut self, taker: Taker<'_>) -> Result<(), Error> {
        while let Some(frame) = self.decoder.pull()? {
            if frame.is_interlaced() {
                self.progressive_run = 0;
            } else {
                self.progressive_run = self.progressive_run.saturating_add(1);
            }
            let stale = self.deinterlacer.as_ref().is_some_and(|f| !f.takes(&frame));
            if stale || self.progressive_run >= PROGRESSIVE_RUN {
                self.stop_deinterlacing(taker)?;
            }
            if self.deinterlacer.is_none() && frame.is_interlaced() {
                self.deinterlacer = Some(Filter::deinterlace(&frame, self.fields)?);
            }
            match &mut self.deinterlacer {
                Some(filter) => {
                    filter.push(&frame)?;
                    self.collect(taker)?;
                }
                None => self.give(frame, false, taker)?,
            }
        }
        Ok(())
    }

    fn stop_deinterlacing(&mut self, taker: Taker<'_>) -> Result<(), Error> {
        if let Some(filter) = &mut self.deinterlacer {
            filter.drain();
            self.collect(taker)?;
            self.deinterlacer = None;
        }
        Ok(())
    }

    fn collect(&mut self, taker: Taker<'_>) -> Result<(), Error> {
        while let Some(picked) = self.deinterlacer.as_mut().map(Filter::pull).transpose()?.flatten() {
            self.give(picked.frame, picked.second, taker)?;
        }
        Ok(())
    }

    fn give(&mut self, frame: Frame, second: bool, taker: Taker<'_>) -> Result<(), Error> {
        let Some(tag) = frame.pts() else {
            return Ok(());
        };
        let damaged = frame.is_damaged();
        let frame = if frame.is_420() { frame } else { self.convert(&frame)? };
        self.given += 1;
        taker(Decoded { picture: Picture::Host(Arc::new(frame)), tag, second, damaged });
        Ok(())
    }

    fn convert(&mut self, frame: &Frame) -> Result<Frame, Error> {
        if self.converter.as_ref().is_none_or(|c| !c.takes(frame)) {
            self.converter = Some(Filter::to_420(frame)?);
        }
        let converter = self.converter.as_mut().expect("made above");
        converter.push(frame)?;
        let made = converter.pull()?;
        made.map(|picked| picked.frame).ok_or(Error::alloc("converted picture"))
    }
}

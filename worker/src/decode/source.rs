//! Access units to 4:2:0 8 bit progressive pictures: decoder, deinterlacer, conversion of odd formats.

use rung::media::track::VideoConfig;

use crate::av::{Decoder, Error, Filter, Frame, Pushed};

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
    /// Units in a row that gave no picture although something was wrong with one of them.
    barren: u32,
    barren_max: u32,
    damaged: bool,
}

#[derive(Debug)]
pub(super) struct Decoded {
    pub frame: Frame,
    /// What was given with the access unit.
    pub tag: i64,
    /// Made of the second field.
    pub second: bool,
    pub damaged: bool,
}

/// What an access unit did to the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    Damaged,
    /// Nothing came out for too long: the decoder was opened anew.
    Reopened,
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
            barren: 0,
            barren_max,
            damaged: false,
        })
    }

    /// Appends the pictures that this access unit completes.
    pub(super) fn push(&mut self, data: &[u8], tag: i64, out: &mut Vec<Decoded>) -> Result<Health, Error> {
        let before = out.len();
        let pushed = self.decoder.push(data, tag)?;
        self.pull(out)?;
        if out.len() > before {
            self.barren = 0;
            self.damaged = false;
        } else {
            self.barren += 1;
        }
        self.damaged |= pushed == Pushed::Damaged;
        if self.damaged && self.barren >= self.barren_max {
            self.decoder = Decoder::video(&self.config)?;
            self.barren = 0;
            self.damaged = false;
            return Ok(Health::Reopened);
        }
        Ok(if pushed == Pushed::Damaged { Health::Damaged } else { Health::Good })
    }

    /// End of media.
    pub(super) fn drain(&mut self, out: &mut Vec<Decoded>) -> Result<(), Error> {
        self.decoder.drain();
        self.pull(out)?;
        self.stop_deinterlacing(out)
    }

    fn pull(&mut self, out: &mut Vec<Decoded>) -> Result<(), Error> {
        while let Some(frame) = self.decoder.pull()? {
            if frame.is_interlaced() {
                self.progressive_run = 0;
            } else {
                self.progressive_run = self.progressive_run.saturating_add(1);
            }
            let stale = self.deinterlacer.as_ref().is_some_and(|f| !f.takes(&frame));
            if stale || self.progressive_run >= PROGRESSIVE_RUN {
                self.stop_deinterlacing(out)?;
            }
            if self.deinterlacer.is_none() && frame.is_interlaced() {
                self.deinterlacer = Some(Filter::deinterlace(&frame, self.fields)?);
            }
            match &mut self.deinterlacer {
                Some(filter) => {
                    filter.push(&frame)?;
                    self.collect(out)?;
                }
                None => self.give(frame, false, out)?,
            }
        }
        Ok(())
    }

    fn stop_deinterlacing(&mut self, out: &mut Vec<Decoded>) -> Result<(), Error> {
        if let Some(filter) = &mut self.deinterlacer {
            filter.drain();
            self.collect(out)?;
            self.deinterlacer = None;
        }
        Ok(())
    }

    fn collect(&mut self, out: &mut Vec<Decoded>) -> Result<(), Error> {
        while let Some(picked) = self.deinterlacer.as_mut().map(Filter::pull).transpose()?.flatten() {
            self.give(picked.frame, picked.second, out)?;
        }
        Ok(())
    }

    fn give(&mut self, frame: Frame, second: bool, out: &mut Vec<Decoded>) -> Result<(), Error> {
        let Some(tag) = frame.pts() else {
            return Ok(());
        };
        let damaged = frame.is_damaged();
        let frame = if frame.is_420() { frame } else { self.convert(&frame)? };
        out.push(Decoded { frame, tag, second, damaged });
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

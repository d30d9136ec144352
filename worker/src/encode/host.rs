//! libx264 or libx265 on the CPU: scales the source's picture itself, or takes the scaled one from the GPU.

use rung::bitstream::h265::Sps;
use rung::media::grid::Cadence;
use rung::pixels::protocol::{OpenRendition, VideoInit};
use std::sync::Arc;

use super::fetch::Fetch;
use super::fit::{Fit, Fitted};
use super::nal::{self, Syntax};
use super::{Coded, Job};
use crate::av::{Headers, Level, VideoEncoder};
use crate::error::Error;
use crate::picture::Picture;
use crate::shared::{Counters, Shared};

pub(super) struct Coder {
    rendition: OpenRendition,
    cadence: Cadence,
    index: usize,
    shared: Arc<Shared>,
    syntax: Syntax,
    init: VideoInit,
    /// `None`: nothing has gone in since the last gap.
    encoder: Option<VideoEncoder>,
    /// The rate was changed, and the encoder does not know.
    stale: bool,
    fit: Fit,
    fetch: Option<Fetch>,
    /// The picture of the last frame.
    last: Option<Fitted>,
}

impl Coder {
    /// `fetch`: pictures come from a GPU.
    pub(super) fn open(
        rendition: &OpenRendition,
        cadence: Cadence,
        index: usize,
        fetch: Option<Fetch>,
        shared: Arc<Shared>,
    ) -> Result<Coder, Error> {
        let syntax = Syntax::of(rendition.codec);
        let encoder = VideoEncoder::open(rendition, cadence, Headers::Global, Level::Least).map_err(|error| {
            Error::Other(format!("rendition {} in {} on the CPU: {error}", rendition.name, rendition.codec))
        })?;
        let init = nal::init(syntax, encoder.headers())
            .ok_or_else(|| Error::Other("the encoder gave no parameter sets".to_owned()))?;
        let fit = Fit::new(rendition.width, rendition.height);
        let (rendition, encoder) = (rendition.clone(), Some(encoder));
        Ok(Coder { rendition, cadence, index, shared, syntax, init, encoder, stale: false, fit, fetch, last: None })
    }

    pub(super) fn init(&self) -> &VideoInit {
        &self.init
    }

    pub(super) fn push(&mut self, job: &Job, idr: bool) -> Result<(), Error> {
        if self.encoder.is_none() {
            self.encoder = Some(self.reopen()?);
        }
        let mut fitted = match (&job.picture, &mut self.fetch) {
            (Picture::Host(source), _) => self.fit.fit(source, self.index)?,
            (Picture::Device(scaled), Some(fetch)) => {
                Counters::add(&self.shared.counters.copies, 1);
                Fitted::of(fetch.fetch(scaled, self.index)?)
            }
            (Picture::Device(_), None) => {
                return Err(Error::Other("a picture of a GPU came to an encoder that takes none".to_owned()));
            }
        };
        fitted.frame.set_pts(job.n);
        fitted.frame.set_key(idr);
        self.encoder.as_mut().expect("opened above").push(&fitted.frame)?;
        if let Some(last) = self.last.replace(fitted) {
            self.fit.put(last);
        }
        Ok(())
    }

    /// The next frame in decode order.
    pub(super) fn pull(&mut self) -> Result<Option<Coded>, Error> {
        let Some(encoder) = &mut self.encoder else {
            return Ok(None);
        };
        let coded = encoder.pull()?;
        Ok(coded.map(|c| Coded { pts: c.pts, sync: c.sync, data: nal::sample(self.syntax, c.data) }))
    }

    /// A gap follows: everything inside can be pulled.
    pub(super) fn drain(&mut self) {
        if let Some(encoder) = &mut self.encoder {
            encoder.drain();
        }
    }

    /// Everything was pulled; what comes next starts anew.
    pub(super) fn reset(&mut self) {
        (self.encoder, self.stale) = (None, false);
    }

    pub(super) fn retune(&mut self, bitrate: u64) {
        self.rendition.bitrate = bitrate;
        if let Some(encoder) = &mut self.encoder {
            self.stale |= !encoder.retune(bitrate);
        }
    }

    /// Only an encoder that is opened again has the new rate: at the next IDR there will be one.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// The picture of the last frame.
    pub(super) fn last(&self) -> Option<&crate::av::Frame> {
        self.last.as_ref().map(|fitted| &fitted.frame)
    }

    /// The same settings give the same headers; a player that holds the old ones depends on it.
    fn reopen(&self) -> Result<VideoEncoder, Error> {
        let level = match self.syntax {
            // level_idc [AVC 7.3.2.1.1].
            Syntax::H264 => self.init.sps.get(3).map_or(Level::Least, |level| Level::As(*level)),
            Syntax::Hevc => Sps::parse(&self.init.sps).map_or(Level::Least, |sps| Level::As(sps.profile.level)),
        };
        let encoder = VideoEncoder::open(&self.rendition, self.cadence, Headers::Global, level)?;
        let init = nal::init(self.syntax, encoder.headers());
        assert!(init.as_ref() == Some(&self.init), "an encoder opened again has other parameter sets");
        Ok(encoder)
    }
}

//! libx264 on the CPU: scales the source's picture itself, or takes the scaled one from the GPU.

use rung::media::grid::Cadence;
use rung::pixels::protocol::{OpenRendition, VideoInit};
use std::sync::Arc;

use super::fetch::Fetch;
use super::fit::{Fit, Fitted};
use super::nal::{self, Syntax};
use super::{Coded, Job};
use crate::av::{Headers, VideoEncoder};
use crate::error::Error;
use crate::picture::Picture;
use crate::shared::{Counters, Shared};

pub(super) struct Coder {
    rendition: OpenRendition,
    cadence: Cadence,
    index: usize,
    shared: Arc<Shared>,
    init: VideoInit,
    /// `None`: nothing has gone in since the last gap.
    encoder: Option<VideoEncoder>,
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
        let encoder = VideoEncoder::open(rendition, cadence, Headers::Global)?;
        let init = nal::init(encoder.headers())
            .ok_or_else(|| Error::Other("the encoder gave no parameter sets".to_owned()))?;
        let fit = Fit::new(rendition.width, rendition.height);
        let (rendition, encoder) = (rendition.clone(), Some(encoder));
        Ok(Coder { rendition, cadence, index, shared, init, encoder, fit, fetch, last: None })
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
        Ok(coded.map(|c| Coded { pts: c.pts, sync: c.sync, data: nal::sample(Syntax::H264, c.data) }))
    }

    /// A gap follows: everything inside can be pulled.
    pub(super) fn drain(&mut self) {
        if let Some(encoder) = &mut self.encoder {
            encoder.drain();
        }
    }

    /// Everything was pulled; what comes next starts anew.
    pub(super) fn reset(&mut self) {
        self.encoder = None;
    }

    pub(super) fn retune(&mut self, bitrate: u64) {
        self.rendition.bitrate = bitrate;
        if let Some(encoder) = &mut self.encoder {
            encoder.retune(bitrate);
        }
    }

    /// The picture of the last frame.
    pub(super) fn last(&self) -> Option<&crate::av::Frame> {
        self.last.as_ref().map(|fitted| &fitted.frame)
    }

    /// The same settings give the same headers; a player that holds the old ones depends on it.
    fn reopen(&self) -> Result<VideoEncoder, Error> {
        let encoder = VideoEncoder::open(&self.rendition, self.cadence, Headers::Global)?;
        let init = nal::init(encoder.headers());
        assert!(init.as_ref() == Some(&self.init), "an encoder opened again has other parameter sets");
        Ok(encoder)
    }
}

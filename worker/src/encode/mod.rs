//! Purpose: one thread per rendition: scale straight from the source's picture, encode, send.
//! Time: N is the encoder's pts.
//! Invariants: settings follow from `OpenRendition` and nothing else; the first frame of an encoder and every grid
//! frame is an IDR; a stretch of frames without a gap is one encoder's; an encoder opened again has the same headers.
//! When it fails: an error of the encoder ends the channel (`Failed`).

mod fit;
mod gate;
mod nal;

pub use gate::{Gate, Verdict};

use rung::media::grid::Cadence;
use rung::media::sample::Stamps;
use rung::pixels::protocol::{Encoded, FromWorker, OpenRendition, Output, RenditionIndex, VideoInit};
use rung::time::SystemClock;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::av::{Error, Headers, VideoEncoder};
use crate::picture::Picture;
use crate::queue::Queue;
use crate::shared::{Counters, Shared};
use crate::thumbnail::{Pictures, Wanted};
use fit::{Fit, Fitted};

#[derive(Debug)]
pub enum ToEncode {
    Frame(Job),
    /// A gap follows: everything inside comes out, the next frame starts anew.
    Stop,
    Retune(u64),
    /// A JPEG of the last picture, or of the next one that there is room for.
    Snap,
}

#[derive(Debug)]
pub struct Job {
    pub n: i64,
    pub key: bool,
    pub picture: Picture,
    pub stamps: Stamps,
}

/// What an encoder thread is made from; the encoder itself is opened on its thread.
#[derive(Debug)]
pub struct Plan {
    pub ch: u32,
    pub index: RenditionIndex,
    pub rendition: OpenRendition,
    pub cadence: Cadence,
    /// Of the lowest rendition.
    pub pictures: Option<Pictures>,
}

pub struct Encode {
    plan: Plan,
    shared: Arc<Shared>,
    init: VideoInit,
    encoder: Option<VideoEncoder>,
    /// Next N of this encoder; `None`: none went in yet.
    next: Option<i64>,
    fit: Fit,
    /// Stamps of the frames inside.
    inside: VecDeque<(i64, Stamps)>,
    /// The picture of the last frame, for `Snap`.
    last: Option<(i64, Fitted)>,
}

impl Encode {
    /// Opens the encoder on this thread.
    pub fn open(plan: Plan, shared: Arc<Shared>) -> Result<Encode, Error> {
        let encoder = VideoEncoder::open(&plan.rendition, plan.cadence, Headers::Global)?;
        let init = nal::init(encoder.headers()).ok_or(Error::alloc("encoder headers"))?;
        let fit = Fit::new(plan.rendition.width, plan.rendition.height);
        Ok(Encode { plan, shared, init, encoder: Some(encoder), next: None, fit, inside: VecDeque::new(), last: None })
    }

    pub fn init(&self) -> &VideoInit {
        &self.init
    }

    /// Until the queue is closed; then everything inside comes out.
    pub fn run(mut self, input: &Queue<ToEncode>) -> Result<(), Error> {
        while let Some(command) = input.pop() {
            match command {
                ToEncode::Frame(job) => self.frame(job)?,
                ToEncode::Stop => self.finish()?,
                ToEncode::Retune(bitrate) => {
                    self.plan.rendition.bitrate = bitrate;
                    if let Some(encoder) = &mut self.encoder {
                        encoder.retune(bitrate);
                    }
                }
                ToEncode::Snap => self.snap()?,
            }
        }
        self.finish()
    }

    fn frame(&mut self, job: Job) -> Result<(), Error> {
        if self.next.is_some_and(|next| next != job.n) {
            self.finish()?;
        }
        let first = self.next.is_none();
        if self.encoder.is_none() {
            self.encoder = Some(self.reopen()?);
        }
        let Picture::Host(source) = &job.picture;
        let mut fitted = self.fit.fit(source)?;
        fitted.frame.set_pts(job.n);
        fitted.frame.set_key(job.key || first);
        self.inside.push_back((job.n, job.stamps));
        self.next = Some(job.n + 1);
        self.encoder.as_mut().expect("opened above").push(&fitted.frame)?;
        self.send_all()?;
        if let Some(pictures) = &mut self.plan.pictures
            && let Some(wanted) = pictures.due(job.n)
        {
            pictures.hand(job.n, wanted, Box::new(fitted.frame.share()?));
        }
        if let Some((_, last)) = self.last.replace((job.n, fitted)) {
            self.fit.put(last);
        }
        Ok(())
    }

    /// The same settings give the same headers; a player that holds the old ones depends on it.
    fn reopen(&self) -> Result<VideoEncoder, Error> {
        let encoder = VideoEncoder::open(&self.plan.rendition, self.plan.cadence, Headers::Global)?;
        let init = nal::init(encoder.headers());
        assert!(init.as_ref() == Some(&self.init), "an encoder opened again has other parameter sets");
        Ok(encoder)
    }

    fn finish(&mut self) -> Result<(), Error> {
        if self.next.take().is_some() {
            if let Some(encoder) = &mut self.encoder {
                encoder.drain();
            }
            self.send_all()?;
            self.encoder = None;
            self.inside.clear();
        }
        Ok(())
    }

    fn send_all(&mut self) -> Result<(), Error> {
        let Some(encoder) = &mut self.encoder else {
            return Ok(());
        };
        while let Some(coded) = encoder.pull()? {
            let place = self.inside.iter().position(|(n, _)| *n == coded.pts);
            let stamps = place.and_then(|i| self.inside.remove(i)).map_or_else(Stamps::default, |(_, s)| s);
            let frame = Encoded {
                output: Output::Video(self.plan.index),
                at: coded.pts,
                sync: coded.sync,
                stamps: Stamps { encoded: SystemClock::mono(), ..stamps },
                data: nal::sample(coded.data),
            };
            Counters::add(&self.shared.counters.encoded, 1);
            self.shared.send(FromWorker::Encoded { ch: self.plan.ch, frame });
        }
        Ok(())
    }

    /// Of the last frame; where there is none, or no room, the next one that is encoded answers.
    fn snap(&mut self) -> Result<(), Error> {
        let Some(pictures) = &mut self.plan.pictures else {
            return Ok(());
        };
        pictures.snap();
        if let Some((at, last)) = &self.last {
            pictures.hand(*at, Wanted { snap: true, ..Wanted::default() }, Box::new(last.frame.share()?));
        }
        Ok(())
    }
}

//! Purpose: one thread per rendition: scale straight from the source's picture, encode, send.
//! Time: N is the encoder's pts.
//! Invariants: settings follow from `OpenRendition` and nothing else; the first frame of an encoder and every grid
//! frame is an IDR; a stretch of frames without a gap is one encoder's; an encoder opened again has the same headers.
//! When it fails: an error of the encoder ends the channel (`Failed`).

mod device;
#[cfg(feature = "software")]
mod fetch;
#[cfg(feature = "software")]
mod fit;
mod gate;
#[cfg(feature = "software")]
mod host;
pub mod nal;

pub use gate::{Gate, Verdict};

use bytes::Bytes;
use rung::media::grid::Cadence;
use rung::media::sample::Stamps;
use rung::pixels::protocol::{Encoded, FromWorker, OpenRendition, Output, RenditionIndex, VideoInit};
use rung::time::SystemClock;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Error, Harm};
use crate::gpu::Gpu;
use crate::picture::Picture;
use crate::picture::planar::Ring;
use crate::queue::Queue;
use crate::scale::device::Inputs;
use crate::shared::{Counters, Shared};
use crate::thumbnail::Pictures;
#[cfg(feature = "software")]
use crate::thumbnail::Wanted;

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
pub struct Plan {
    pub ch: u32,
    pub index: RenditionIndex,
    pub rendition: OpenRendition,
    pub cadence: Cadence,
    /// Of the lowest rendition.
    pub pictures: Option<Pictures>,
    /// Where the pictures are; `None`: on the host.
    pub gpu: Option<Arc<Gpu>>,
    /// Pictures of a GPU that are encoded on the CPU come from here.
    pub ring: Option<Ring>,
}

pub struct Encode {
    plan: Plan,
    shared: Arc<Shared>,
    coder: Coder,
    /// Next N of this stretch; `None`: none went in yet.
    next: Option<i64>,
    /// Stamps of the frames inside.
    inside: VecDeque<(i64, Stamps)>,
    /// The last frame that went in.
    #[cfg(feature = "software")]
    shown: Option<i64>,
}

/// One coded frame.
struct Coded {
    pts: i64,
    sync: bool,
    /// As `Encoded::data`.
    data: Bytes,
}

enum Coder {
    #[cfg(feature = "software")]
    Host(Box<host::Coder>),
    Device(Box<device::Coder>),
}

impl Encode {
    /// Opens the encoder on this thread.
    pub fn open(plan: Plan, shared: Arc<Shared>) -> Result<Encode, Error> {
        let coder = Coder::open(&plan, &shared)?;
        Ok(Encode {
            plan,
            shared,
            coder,
            next: None,
            inside: VecDeque::new(),
            #[cfg(feature = "software")]
            shown: None,
        })
    }

    pub fn init(&self) -> &VideoInit {
        match &self.coder {
            #[cfg(feature = "software")]
            Coder::Host(coder) => coder.init(),
            Coder::Device(coder) => coder.init(),
        }
    }

    /// Where a GPU writes this rendition's pictures.
    pub fn inputs(&self) -> Option<Inputs> {
        match &self.coder {
            #[cfg(feature = "software")]
            Coder::Host(_) => self.plan.ring.clone().map(Inputs::Planar),
            Coder::Device(coder) => Some(coder.inputs()),
        }
    }

    /// Until the queue is closed; then everything inside comes out.
    pub fn run(mut self, input: &Queue<ToEncode>) -> Result<(), Error> {
        while let Some(command) = input.pop() {
            match command {
                ToEncode::Frame(job) => self.frame(&job, !input.is_empty())?,
                ToEncode::Stop => self.finish()?,
                ToEncode::Retune(bitrate) => self.retune(bitrate)?,
                ToEncode::Snap => self.snap()?,
            }
        }
        self.finish()
    }

    /// `more`: another frame waits already.
    fn frame(&mut self, job: &Job, more: bool) -> Result<(), Error> {
        if self.next.is_some_and(|next| next != job.n) || job.key && self.coder.is_stale() {
            self.finish()?;
        }
        let idr = job.key || self.next.is_none();
        self.inside.push_back((job.n, job.stamps));
        self.next = Some(job.n + 1);
        match &mut self.coder {
            #[cfg(feature = "software")]
            Coder::Host(coder) => {
                coder.push(job, idr)?;
                self.shown = Some(job.n);
                if let (Some(pictures), Some(frame)) = (&mut self.plan.pictures, coder.last())
                    && let Some(wanted) = pictures.due(job.n)
                {
                    pictures.hand(job.n, wanted, Box::new(frame.share()?));
                }
            }
            Coder::Device(coder) => coder.push(job, idr)?,
        }
        self.send_all(more)?;
        #[cfg(feature = "software")]
        self.picture_of(job)?;
        Ok(())
    }

    /// A poster or a snapshot of what the GPU made.
    #[cfg(feature = "software")]
    fn picture_of(&mut self, job: &Job) -> Result<(), Error> {
        let (Coder::Device(coder), Picture::Device(scaled)) = (&mut self.coder, &job.picture) else { return Ok(()) };
        let Some(pictures) = &mut self.plan.pictures else { return Ok(()) };
        if let Some(wanted) = pictures.due(job.n)
            && let Some(picture) = coder.picture(scaled)?
        {
            pictures.hand(job.n, wanted, Box::new(picture));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        if self.next.take().is_some() {
            match &mut self.coder {
                #[cfg(feature = "software")]
                Coder::Host(coder) => coder.drain(),
                Coder::Device(coder) => coder.drain()?,
            }
            self.send_all(false)?;
            #[cfg(feature = "software")]
            if let Coder::Host(coder) = &mut self.coder {
                coder.reset();
            }
            self.inside.clear();
        }
        Ok(())
    }

    fn retune(&mut self, bitrate: u64) -> Result<(), Error> {
        match &mut self.coder {
            #[cfg(feature = "software")]
            Coder::Host(coder) => {
                coder.retune(bitrate);
                Ok(())
            }
            // A card that refuses keeps the rate it has, as libx264 does: no reason to lose the picture.
            Coder::Device(coder) => match coder.retune(bitrate) {
                Err(error) if error.harm() == Harm::Request => Ok(()),
                done => done,
            },
        }
    }

    fn send_all(&mut self, more: bool) -> Result<(), Error> {
        while let Some(coded) = self.coder.pull(more)? {
            let place = self.inside.iter().position(|(n, _)| *n == coded.pts);
            let stamps = place.and_then(|i| self.inside.remove(i)).map_or_else(Stamps::default, |(_, s)| s);
            let frame = Encoded {
                output: Output::Video(self.plan.index),
                at: coded.pts,
                sync: coded.sync,
                stamps: Stamps { encoded: SystemClock::mono(), ..stamps },
                data: coded.data,
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
        #[cfg(feature = "software")]
        if let (Coder::Host(coder), Some(at)) = (&self.coder, self.shown)
            && let Some(last) = coder.last()
        {
            pictures.hand(at, Wanted { snap: true, ..Wanted::default() }, Box::new(last.share()?));
        }
        Ok(())
    }
}

impl Drop for Encode {
    /// Whoever waits for room in this rendition's inputs would wait for ever.
    fn drop(&mut self) {
        if let Some(inputs) = self.inputs() {
            inputs.close();
        }
    }
}

impl Coder {
    fn open(plan: &Plan, shared: &Arc<Shared>) -> Result<Coder, Error> {
        let index = usize::from(plan.index);
        match (&plan.gpu, &plan.ring) {
            (Some(gpu), None) => {
                let watch = shared.watch(format!("encode {}", plan.rendition.name));
                let coder = device::Coder::open(gpu, &plan.rendition, plan.cadence, index, &watch)?;
                Ok(Coder::Device(Box::new(coder)))
            }
            #[cfg(feature = "software")]
            (gpu, _) => {
                let watch = || shared.watch(format!("encode {}", plan.rendition.name));
                let fetch = |gpu: &Arc<Gpu>| fetch::Fetch::open(&gpu.device, &plan.rendition, watch());
                let fetch = gpu.as_ref().map(fetch).transpose()?;
                let coder = host::Coder::open(&plan.rendition, plan.cadence, index, fetch, Arc::clone(shared))?;
                Ok(Coder::Host(Box::new(coder)))
            }
            #[cfg(not(feature = "software"))]
            _ => Err(Error::Other(
                "this rung-worker was built without the software backend: it encodes on a GPU only".to_owned(),
            )),
        }
    }

    /// It must be opened again, at an IDR, to take the rate that it was given.
    fn is_stale(&self) -> bool {
        match self {
            #[cfg(feature = "software")]
            Coder::Host(coder) => coder.is_stale(),
            Coder::Device(_) => false,
        }
    }

    fn pull(&mut self, more: bool) -> Result<Option<Coded>, Error> {
        match self {
            #[cfg(feature = "software")]
            Coder::Host(coder) => coder.pull(),
            Coder::Device(coder) => coder.pull(more),
        }
    }
}

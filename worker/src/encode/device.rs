//! NVENC: the scaled picture is encoded where it lies.

use rung::media::channel::VideoCodec;
use rung::media::grid::Cadence;
use rung::pixels::protocol::{OpenRendition, VideoInit};

use super::nal::{self, Syntax};
use super::{Coded, Job};
use crate::error::Error;
use crate::gpu::Depth;
use crate::gpu::Gpu;
use crate::gpu::error::{Error as GpuError, Library};
use crate::gpu::nvenc::{Codec, Encoder, Format};
use crate::gpu::watch::Watch;
use crate::picture::Picture;
use crate::scale::device::{Inputs, Slot};
#[cfg(feature = "software")]
use crate::{
    gpu::cuda::Stream,
    gpu::memory::{self, Pinned, Plane, Rows},
    scale::Planes,
    scale::device::Scaled,
    thumbnail::Pixels,
};
use std::sync::Arc;

/// Pictures of a rendition that may be in other hands at once: one being written, one held by the decoder for what may
/// follow, the slate, and some on their way.
const SURFACES: usize = 6;
/// Frames that the driver may work on while more are waiting.
const AHEAD: usize = 3;

pub(super) struct Coder {
    encoder: Encoder,
    syntax: Syntax,
    init: VideoInit,
    index: usize,
    #[cfg(feature = "software")]
    gpu: Arc<Gpu>,
    #[cfg(feature = "software")]
    watch: Watch,
}

/// A rendition's picture in host memory.
#[cfg(feature = "software")]
pub(super) struct HostPicture {
    planes: [Vec<u8>; 3],
    width: usize,
    height: usize,
}

#[cfg(feature = "software")]
impl HostPicture {
    /// Of NV12 whose rows are `width` bytes apart; both sides are even.
    fn new(nv12: &[u8], width: usize, height: usize) -> HostPicture {
        let (luma, chroma) = nv12.split_at(width * height);
        let every_other = |from: usize| chroma.iter().skip(from).step_by(2).copied().collect();
        HostPicture { planes: [luma.to_vec(), every_other(0), every_other(1)], width, height }
    }
}

#[cfg(feature = "software")]
impl Pixels for HostPicture {
    fn planes(&self) -> Planes<'_> {
        let [y, u, v] = &self.planes;
        let (width, height, half) = (self.width, self.height, self.width / 2);
        Planes { y, u, v, stride_y: width, stride_u: half, stride_v: half, width, height }
    }
}

impl Coder {
    pub(super) fn open(
        gpu: &Arc<Gpu>,
        rendition: &OpenRendition,
        cadence: Cadence,
        index: usize,
        watch: &Watch,
    ) -> Result<Coder, Error> {
        let api = gpu
            .encode
            .as_ref()
            .map_err(|absent| Error::Device(GpuError::new(Library::Encode, 1, "NVENC").words(absent.to_string())))?;
        let syntax = Syntax::of(rendition.codec);
        let codec = match rendition.codec {
            VideoCodec::H264 => Codec::H264,
            VideoCodec::Hevc => Codec::Hevc,
        };
        let format = Format { codec, depth: Depth::Eight };
        let encoder = Encoder::open(api, &gpu.device, rendition, format, cadence, SURFACES, watch)?;
        let init = nal::init(syntax, encoder.headers())
            .ok_or_else(|| Error::Other("the encoder gave no parameter sets".to_owned()))?;
        Ok(Coder {
            encoder,
            syntax,
            init,
            index,
            #[cfg(feature = "software")]
            gpu: Arc::clone(gpu),
            #[cfg(feature = "software")]
            watch: watch.clone(),
        })
    }

    pub(super) fn init(&self) -> &VideoInit {
        &self.init
    }

    pub(super) fn inputs(&self) -> Inputs {
        Inputs::Encoder(self.encoder.inputs().clone())
    }

    pub(super) fn push(&mut self, job: &Job, idr: bool) -> Result<(), Error> {
        let scaled = match &job.picture {
            Picture::Device(scaled) => scaled,
            #[cfg(feature = "software")]
            Picture::Host(_) => {
                return Err(Error::Other("a picture of the host came to an encoder of a GPU".to_owned()));
            }
        };
        let Some(Slot::Encoder(surface)) = scaled.slot(self.index) else {
            return Err(Error::Other("a picture without this rendition came to its encoder".to_owned()));
        };
        Ok(self.encoder.push(surface, job.n, idr, &scaled.ready)?)
    }

    /// The picture of a frame that was pushed, copied to the host: for a poster, which is a small picture now and then.
    #[cfg(feature = "software")]
    pub(super) fn picture(&mut self, scaled: &Scaled) -> Result<Option<HostPicture>, Error> {
        let Some(Slot::Encoder(surface)) = scaled.slot(self.index) else { return Ok(None) };
        let stream = Stream::new(&self.gpu.device)?;
        stream.follow(&scaled.ready)?;
        let (width, height) = (surface.width() as usize, surface.height() as usize);
        let rows = height + height.div_ceil(2);
        let mut pinned = Pinned::new(&self.gpu.device, width * rows)?;
        let place = |pitch| Rows { offset: 0, pitch };
        let whole = Plane { device: place(surface.pitch()), host: place(width), width, height: rows };
        {
            let _busy = self.watch.enter("cuMemcpy2DAsync");
            memory::download(&stream, surface.block(), &mut pinned, &[whole])?;
        }
        Ok(Some(HostPicture::new(pinned.bytes(), width, height)))
    }

    /// The next frame in decode order. `more`: another picture waits, so the driver may keep some.
    pub(super) fn pull(&mut self, more: bool) -> Result<Option<Coded>, Error> {
        let coded = self.encoder.pull(if more { AHEAD } else { 0 })?;
        Ok(coded.map(|c| Coded { pts: c.pts, sync: c.sync, data: nal::sample(self.syntax, &c.data) }))
    }

    /// A gap follows: everything inside can be pulled.
    pub(super) fn drain(&mut self) -> Result<(), Error> {
        Ok(self.encoder.drain()?)
    }

    pub(super) fn retune(&mut self, bitrate: u64) -> Result<(), Error> {
        Ok(self.encoder.retune(bitrate)?)
    }
}

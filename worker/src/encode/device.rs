//! NVENC: the scaled picture is encoded where it lies.

use rung::media::grid::Cadence;
use rung::pixels::protocol::{OpenRendition, VideoInit};

use super::nal::{self, Syntax};
use super::{Coded, Job};
use crate::error::Error;
use crate::gpu::Gpu;
use crate::gpu::error::{Error as GpuError, Library};
use crate::gpu::nvenc::{Codec, Depth, Encoder, Format};
use crate::gpu::watch::Watch;
use crate::picture::Picture;
use crate::scale::device::{Inputs, Slot};

/// Pictures of a rendition that may be in other hands at once: one being written, one held by the decoder for what may
/// follow, the slate, and some on their way.
const SURFACES: usize = 6;
/// Frames that the driver may work on while more are waiting.
const AHEAD: usize = 3;

pub(super) struct Coder {
    encoder: Encoder,
    init: VideoInit,
    index: usize,
}

impl Coder {
    pub(super) fn open(
        gpu: &Gpu,
        rendition: &OpenRendition,
        cadence: Cadence,
        index: usize,
        watch: &Watch,
    ) -> Result<Coder, Error> {
        let api = gpu
            .encode
            .as_ref()
            .map_err(|absent| Error::Device(GpuError::new(Library::Encode, 1, "NVENC").words(absent.to_string())))?;
        let format = Format { codec: Codec::H264, depth: Depth::Eight };
        let encoder = Encoder::open(api, &gpu.device, rendition, format, cadence, SURFACES, watch)?;
        let init = nal::init(encoder.headers())
            .ok_or_else(|| Error::Other("the encoder gave no parameter sets".to_owned()))?;
        Ok(Coder { encoder, init, index })
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

    /// The next frame in decode order. `more`: another picture waits, so the driver may keep some.
    pub(super) fn pull(&mut self, more: bool) -> Result<Option<Coded>, Error> {
        let coded = self.encoder.pull(if more { AHEAD } else { 0 })?;
        Ok(coded.map(|c| Coded { pts: c.pts, sync: c.sync, data: nal::sample(Syntax::H264, &c.data) }))
    }

    /// A gap follows: everything inside can be pulled.
    pub(super) fn drain(&mut self) -> Result<(), Error> {
        Ok(self.encoder.drain()?)
    }

    pub(super) fn retune(&mut self, bitrate: u64) -> Result<(), Error> {
        Ok(self.encoder.retune(bitrate)?)
    }
}

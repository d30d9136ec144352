//! A rendition's picture from the GPU to the host, where libx264 takes it: the one copy of this placement.

use rung::pixels::protocol::OpenRendition;
use std::sync::Arc;

use crate::av::{Frame, Memory};
use crate::error::Error;
use crate::gpu::cuda::{Device, Stream};
use crate::gpu::memory::Pinned;
use crate::gpu::watch::Watch;
use crate::scale::device::{Scaled, Slot};

impl Memory for Pinned {
    fn bytes(&self) -> &[u8] {
        Pinned::bytes(self)
    }
}

/// Downloads on a stream of its own, into pinned memory that is used again when nobody holds it.
pub(super) struct Fetch {
    stream: Stream,
    size: (u32, u32),
    strides: [usize; 3],
    pool: Vec<Arc<Pinned>>,
    watch: Watch,
}

impl Fetch {
    /// On the thread that will fetch.
    pub(super) fn open(device: &Arc<Device>, rendition: &OpenRendition, watch: Watch) -> Result<Fetch, Error> {
        let width = rendition.width as usize;
        let strides = [width, width.div_ceil(2), width.div_ceil(2)].map(|bytes| bytes.next_multiple_of(64));
        let size = (rendition.width, rendition.height);
        Ok(Fetch { stream: Stream::new(device)?, size, strides, pool: Vec::new(), watch })
    }

    /// Waits until the picture is scaled, and copies it.
    pub(super) fn fetch(&mut self, scaled: &Scaled, rendition: usize) -> Result<Frame, Error> {
        let busy = self.watch.enter("cuEventSynchronize");
        scaled.ready.wait()?;
        drop(busy);
        let Some(Slot::Planar(planar)) = scaled.slot(rendition) else {
            return Err(Error::Other("a picture without this rendition came to its encoder".to_owned()));
        };
        let mut memory = self.memory()?;
        let free = Arc::get_mut(&mut memory).expect("nobody else holds it");
        let busy = self.watch.enter("cuStreamSynchronize");
        planar.download(&self.stream, free, self.strides)?;
        drop(busy);
        self.pool.push(Arc::clone(&memory));
        Ok(Frame::over(memory, self.size, self.strides)?)
    }

    fn memory(&mut self) -> Result<Arc<Pinned>, Error> {
        if let Some(free) = self.pool.iter().position(|memory| Arc::strong_count(memory) == 1) {
            return Ok(self.pool.swap_remove(free));
        }
        let rows = self.size.1 as usize;
        let [luma, u, v] = self.strides;
        let len = luma * rows + (u + v) * rows.div_ceil(2);
        Ok(Arc::new(Pinned::new(self.stream.device(), len)?))
    }
}

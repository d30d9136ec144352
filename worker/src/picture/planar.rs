//! Planar pictures in device memory on their way to the host, and the ring that they come from.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::gpu::cuda::{Device, Stream};
use crate::gpu::error::Error;
use crate::gpu::ladder::OutputPlanes;
use crate::gpu::memory::{self, Block, Pinned, Plane, Rows};

/// So many pictures of one size, 4:2:0 8 bit. Taken, written by a kernel, read, and free again when dropped.
#[derive(Clone)]
pub struct Ring(Arc<Inside>);

struct Inside {
    width: usize,
    height: usize,
    free: Mutex<Free>,
    returned: Condvar,
}

struct Free {
    blocks: VecDeque<Block>,
    closed: bool,
}

/// One picture of a ring: luma rows first, then rows with U in their left half and V in their right half.
pub struct Planar {
    ring: Ring,
    /// Away only while it is dropped.
    block: Option<Block>,
}

impl Ring {
    /// # Errors
    /// Out of device memory.
    pub fn new(device: &Arc<Device>, width: usize, height: usize, pictures: usize) -> Result<Ring, Error> {
        let one = || Block::new(device, width.next_multiple_of(2 * CHROMA_ALIGN), height + height.div_ceil(2));
        let blocks = (0..pictures).map(|_| one()).collect::<Result<_, _>>()?;
        let free = Mutex::new(Free { blocks, closed: false });
        Ok(Ring(Arc::new(Inside { width, height, free, returned: Condvar::new() })))
    }

    /// A free picture, if there is one.
    pub fn try_take(&self) -> Option<Planar> {
        let block = self.free().blocks.pop_front()?;
        Some(Planar { ring: self.clone(), block: Some(block) })
    }

    /// Waits for a free picture. `None`: the ring was closed.
    pub fn wait_take(&self) -> Option<Planar> {
        let mut free = self.free();
        loop {
            if free.closed {
                return None;
            }
            if let Some(block) = free.blocks.pop_front() {
                return Some(Planar { ring: self.clone(), block: Some(block) });
            }
            free = self.0.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nobody waits for a picture any more: whoever would free one is gone.
    pub fn close(&self) {
        self.free().closed = true;
        self.0.returned.notify_all();
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        // Every change is one push or pop.
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Planar {
    /// Where a kernel writes.
    pub fn planes(&self) -> OutputPlanes {
        let block = self.block();
        let pitch = u32::try_from(block.pitch()).unwrap_or(u32::MAX);
        let [_, u, v] = self.rows().map(|rows| block.address() + rows.offset as u64);
        OutputPlanes { luma: block.address(), chroma: u, chroma_v: v, pitch_luma: pitch, pitch_chroma: pitch }
    }

    /// Copies it to `to`: Y, U, V, rows at `strides`. Waits until it is there.
    ///
    /// # Errors
    /// The driver's.
    pub fn download(&self, stream: &Stream, to: &mut Pinned, strides: [usize; 3]) -> Result<(), Error> {
        let (w, h) = (self.ring.0.width, self.ring.0.height);
        let sizes = [(w, h), (w.div_ceil(2), h.div_ceil(2)), (w.div_ceil(2), h.div_ceil(2))];
        let starts = [0, strides[0] * h, strides[0] * h + strides[1] * h.div_ceil(2)];
        let rows = self.rows();
        let planes = [0, 1, 2].map(|i| Plane {
            device: rows[i],
            host: Rows { offset: starts[i], pitch: strides[i] },
            width: sizes[i].0,
            height: sizes[i].1,
        });
        memory::download(stream, self.block(), to, &planes)
    }

    fn rows(&self) -> [Rows; 3] {
        let (block, inside) = (self.block(), &self.ring.0);
        let pitch = block.pitch();
        let chroma = pitch * inside.height;
        let half = inside.width.next_multiple_of(2 * CHROMA_ALIGN) / 2;
        [0, chroma, chroma + half].map(|offset| Rows { offset, pitch })
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("away only while it is dropped")
    }
}

impl Drop for Planar {
    fn drop(&mut self) {
        self.ring.free().blocks.extend(self.block.take());
        self.ring.0.returned.notify_one();
    }
}

/// V begins at a multiple of this, so that a kernel may write whole words.
const CHROMA_ALIGN: usize = 16;

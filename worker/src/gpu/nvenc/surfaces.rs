//! An encoder's input surfaces: made and registered once, handed out to whoever scales, back when nobody holds them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::gpu::Depth;
use crate::gpu::cuda::Device;
use crate::gpu::error::Error;
use crate::gpu::memory::Block;

/// The pool of one encoder. A clone is the same pool; it may be used from any thread, also after its encoder is gone
/// (then nothing is handed out any more).
#[derive(Clone)]
pub struct Surfaces {
    pool: Arc<Pool>,
}

/// A semi-planar picture in device memory: rows of luma, under them rows of interleaved chroma at the same pitch. A clone
/// is the same surface. Whoever took it may have it written until it is first pushed; from then on it is only read. It
/// goes back to its pool when the last clone is dropped, and the encoder keeps one for as long as it has use of it.
#[derive(Clone)]
pub struct Surface {
    lease: Arc<Lease>,
}

struct Pool {
    blocks: Vec<Block>,
    width: u32,
    height: u32,
    depth: Depth,
    state: Mutex<State>,
    given_back: Condvar,
}

struct State {
    free: VecDeque<usize>,
    closed: bool,
}

struct Lease {
    pool: Arc<Pool>,
    index: usize,
}

impl Surfaces {
    pub(super) fn new(
        device: &Arc<Device>,
        (width, height): (u32, u32),
        depth: Depth,
        count: usize,
    ) -> Result<Surfaces, Error> {
        let (row, rows) = (width as usize * depth.bytes(), height as usize * 3 / 2);
        let blocks = (0..count).map(|_| Block::new(device, row, rows)).collect::<Result<Vec<_>, _>>()?;
        let state = Mutex::new(State { free: (0..count).collect(), closed: false });
        Ok(Surfaces { pool: Arc::new(Pool { blocks, width, height, depth, state, given_back: Condvar::new() }) })
    }

    /// A surface, if one is free now.
    pub fn try_take(&self) -> Option<Surface> {
        let mut state = self.pool.lock();
        if state.closed {
            return None;
        }
        state.free.pop_front().map(|index| self.lend(index))
    }

    /// Waits for a surface. `None`: the encoder is gone.
    pub fn wait_take(&self) -> Option<Surface> {
        let state = self.pool.lock();
        let mut state = self
            .pool
            .given_back
            .wait_while(state, |s| s.free.is_empty() && !s.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return None;
        }
        state.free.pop_front().map(|index| self.lend(index))
    }

    /// Nothing is handed out any more; who waits is told.
    pub fn close(&self) {
        self.pool.lock().closed = true;
        self.pool.given_back.notify_all();
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.pool.blocks.len()
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.pool.lock().free.len()
    }

    pub(super) fn owns(&self, surface: &Surface) -> bool {
        Arc::ptr_eq(&self.pool, &surface.lease.pool)
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.pool.blocks
    }

    fn lend(&self, index: usize) -> Surface {
        Surface { lease: Arc::new(Lease { pool: Arc::clone(&self.pool), index }) }
    }
}

impl Surface {
    /// Device address of the first row of luma.
    pub fn luma(&self) -> u64 {
        self.block().address()
    }

    /// Device address of the first row of chroma.
    pub fn chroma(&self) -> u64 {
        self.luma() + (self.pitch() * self.lease.pool.height as usize) as u64
    }

    /// Bytes from one row to the next, of luma and of chroma.
    pub fn pitch(&self) -> usize {
        self.block().pitch()
    }

    pub fn width(&self) -> u32 {
        self.lease.pool.width
    }

    pub fn height(&self) -> u32 {
        self.lease.pool.height
    }

    pub fn depth(&self) -> Depth {
        self.lease.pool.depth
    }

    /// The memory, luma rows first, for copies.
    pub fn block(&self) -> &Block {
        &self.lease.pool.blocks[self.lease.index]
    }

    /// Its place in the pool.
    pub(super) fn index(&self) -> usize {
        self.lease.index
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.lock().free.push_back(self.index);
        self.pool.given_back.notify_one();
    }
}

impl fmt::Debug for Surfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} surfaces free", self.free(), self.size())
    }
}

impl fmt::Debug for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "surface {} ({}x{})", self.index(), self.width(), self.height())
    }
}

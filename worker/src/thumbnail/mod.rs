//! Purpose: posters, storyboard sheets and snapshots of the lowest rendition's pictures, on a thread that nobody waits for.
//! Time: N chooses what is made (`media::picture`); a wall clock never does.
//! Invariants: whoever has the pictures never waits and never copies one here: a queue without room means that a picture is
//! left out, and counted. The same pictures at the same N give the same bytes, on any machine and in any process.
//! When it fails: a picture that cannot be made is left out and counted, too; the channel goes on.
//!
//! **Seam.** Whoever scales the lowest rendition asks `Pictures::due` of each N in order, and only where it answers hands
//! over the picture with `Pictures::hand`: any 4:2:0 8 bit `Pixels`, a reference to a decoder's or encoder's own memory as
//! well as what came down from a device.
//!
//! **Sheets** are composed here and not in the daemon: the daemon links no codec and sees no pixel. The open sheet's tiles
//! stay as pixels and the whole sheet is written anew with each tile, so that no tile is encoded twice over and a sheet
//! costs one JPEG each 10 s. A worker's first tile begins a sheet.

mod jpeg;
mod making;

pub use jpeg::{Tones, jpeg};
pub use making::Maker;

use rung::media::picture::{Due, PictureRule};
use rung::media::track::Colour;
use rung::pixels::protocol::FromWorker;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::queue::Queue;
use crate::scale::{Planes, PlanesMut};
use crate::shared::{Counters, Shared};

/// Pictures that may wait for the thread. Full: the next one is left out.
const QUEUE: usize = 2;
/// How far the thread gives way to those that encode.
const NICE: i32 = 10;

/// A 4:2:0 8 bit picture that is owned, wherever it lies.
pub trait Pixels: Send {
    fn planes(&self) -> Planes<'_>;
}

/// How the pictures that are handed over are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Sample aspect; (1, 1) where it is not known.
    pub sar: (u32, u32),
    pub colour: Colour,
    /// What colours are where `colour` does not say: BT.709 from 720 rows of the source on, as players guess [AVC E.2.1].
    pub source_height: u32,
}

/// What one frame is to become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub due: Due,
    pub snap: bool,
}

/// A frame on its way to the thread.
struct Order {
    n: i64,
    wanted: Wanted,
    picture: Box<dyn Pixels>,
}

/// The way to the thread that makes a channel's pictures.
pub struct Pictures {
    rule: Option<PictureRule>,
    /// The newest frame that was asked about.
    before: Option<i64>,
    snap: bool,
    queue: Arc<Queue<Order>>,
    shared: Arc<Shared>,
}

impl Pictures {
    /// Starts the thread. It ends, with all it has done, once `Pictures` is dropped.
    ///
    /// # Errors
    /// A sentence: no thread can be started.
    pub fn start(
        ch: u32,
        rule: Option<PictureRule>,
        look: Look,
        shared: &Arc<Shared>,
    ) -> Result<(Pictures, JoinHandle<()>), String> {
        let queue: Arc<Queue<Order>> = Arc::new(Queue::bounded(QUEUE));
        let (orders, out) = (Arc::clone(&queue), Arc::clone(shared));
        let body = move || {
            // Where that is refused it has the same share as the others, and its bounds still hold.
            let _same_share = rustix::process::setpriority_process(None, NICE);
            let mut maker = Maker::new(look, rule);
            while let Some(order) = orders.pop() {
                let (wanted, made) = (order.wanted, maker.make(order.n, order.wanted, &order.picture.planes()));
                let asked =
                    [wanted.due.poster, wanted.due.tile, wanted.snap].into_iter().filter(|asked| *asked).count();
                let failed = asked.saturating_sub(made.len());
                Counters::add(&out.counters.pictures_skipped, u64::try_from(failed).unwrap_or(0));
                made.into_iter().for_each(|picture| out.send(FromWorker::Picture { ch, picture }));
            }
        };
        let thread = shared.spawn("pictures".to_owned(), ch, body).map_err(|e| format!("thread pictures: {e}"))?;
        Ok((Pictures { rule, before: None, snap: false, queue, shared: Arc::clone(shared) }, thread))
    }

    /// Someone waits for a picture: whichever frame is handed over next.
    pub fn snap(&mut self) {
        self.snap = true;
    }

    /// What frame `n` is wanted for. Ask of each frame, in order.
    pub fn due(&mut self, n: i64) -> Option<Wanted> {
        let before = self.before.replace(n).unwrap_or(n - 1);
        let due = self.rule.map_or_else(Due::default, |rule| rule.due(before, n));
        let wanted = Wanted { due, snap: self.snap };
        (wanted != Wanted::default()).then_some(wanted)
    }

    /// The picture of frame `n`. Never waits: without room it is left out, except that a snapshot is then of a later frame.
    pub fn hand(&mut self, n: i64, wanted: Wanted, picture: Box<dyn Pixels>) {
        if self.queue.try_push(Order { n, wanted, picture }) {
            self.snap = false;
        } else {
            let left_out = u64::from(wanted.due.poster) + u64::from(wanted.due.tile);
            Counters::add(&self.shared.counters.pictures_skipped, left_out);
        }
    }
}

impl Drop for Pictures {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl std::fmt::Debug for Pictures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pictures").field("rule", &self.rule).field("before", &self.before).finish_non_exhaustive()
    }
}

/// A picture in memory of its own, rows without a gap between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    y: Vec<u8>,
    u: Vec<u8>,
    v: Vec<u8>,
}

impl Image {
    /// All of one colour.
    pub fn new(width: usize, height: usize, (y, u, v): (u8, u8, u8)) -> Image {
        let chroma = width.div_ceil(2) * height.div_ceil(2);
        Image { width, height, y: vec![y; width * height], u: vec![u; chroma], v: vec![v; chroma] }
    }

    /// Taller, the new rows in one colour. Both heights are even.
    fn grow(&mut self, height: usize, (y, u, v): (u8, u8, u8)) {
        let chroma = self.width.div_ceil(2) * height.div_ceil(2);
        self.height = height;
        self.y.resize(self.width * height, y);
        self.u.resize(chroma, u);
        self.v.resize(chroma, v);
    }

    /// The part `width` x `height` whose first sample is at (x, y). All four are even.
    fn part_mut(&mut self, (x, y): (usize, usize), (width, height): (usize, usize)) -> PlanesMut<'_> {
        let (stride_y, stride_c) = (self.width, self.width.div_ceil(2));
        PlanesMut {
            y: &mut self.y[y * stride_y + x..],
            u: &mut self.u[y / 2 * stride_c + x / 2..],
            v: &mut self.v[y / 2 * stride_c + x / 2..],
            stride_y,
            stride_u: stride_c,
            stride_v: stride_c,
            width,
            height,
        }
    }

    pub fn planes_mut(&mut self) -> PlanesMut<'_> {
        let size = (self.width, self.height);
        self.part_mut((0, 0), size)
    }
}

impl Pixels for Image {
    fn planes(&self) -> Planes<'_> {
        let stride = self.width.div_ceil(2);
        Planes {
            y: &self.y,
            u: &self.u,
            v: &self.v,
            stride_y: self.width,
            stride_u: stride,
            stride_v: stride,
            width: self.width,
            height: self.height,
        }
    }
}

#[cfg(feature = "software")]
impl Pixels for crate::av::Frame {
    fn planes(&self) -> Planes<'_> {
        crate::av::Frame::planes(self)
    }
}

#[cfg(test)]
mod tests;

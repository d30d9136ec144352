//! The ladder on a GPU: one launch from a decoder's surface to every rendition's input.

use rung::media::crop::Margins;
use std::sync::Arc;

use super::marks::Marks;
use super::{Crop, Planes, Siting};
use crate::gpu::Depth;
use crate::gpu::Gpu;
use crate::gpu::cuda::{Event, Stream, Timing};
use crate::gpu::error::{Error, Library};
use crate::gpu::ladder::{
    BLOCK, LadderError, LadderPlan, Layout, OutputPlanes, OutputShape, OverlayAt, SourcePlanes, SourceShape,
};
use crate::gpu::memory::{self, Block, Pinned, Plane, Rows};
use crate::gpu::nvdec::Surface;
use crate::gpu::nvenc::{Surface as EncoderSurface, Surfaces};
use crate::gpu::watch::Watch;
use crate::picture::planar::{Planar, Ring};

/// Where one rendition's pictures are written.
#[derive(Clone)]
pub enum Inputs {
    /// On their way to the host.
    Planar(Ring),
    /// The encoder's own.
    Encoder(Surfaces),
}

/// One rendition's input, written or being written.
pub enum Slot {
    Planar(Planar),
    Encoder(EncoderSurface),
}

impl Inputs {
    fn layout(&self) -> Layout {
        match self {
            Inputs::Planar(_) => Layout::I420,
            Inputs::Encoder(_) => Layout::Nv12,
        }
    }

    /// `None`: there is none free (`Patience::Hasty`), or nobody frees one any more.
    fn take(&self, patience: Patience) -> Option<Slot> {
        match (self, patience) {
            (Inputs::Planar(ring), Patience::Waits) => ring.wait_take().map(Slot::Planar),
            (Inputs::Planar(ring), Patience::Hasty) => ring.try_take().map(Slot::Planar),
            (Inputs::Encoder(surfaces), Patience::Waits) => surfaces.wait_take().map(Slot::Encoder),
            (Inputs::Encoder(surfaces), Patience::Hasty) => surfaces.try_take().map(Slot::Encoder),
        }
    }

    /// Nobody waits for an input any more.
    pub fn close(&self) {
        match self {
            Inputs::Planar(ring) => ring.close(),
            Inputs::Encoder(surfaces) => surfaces.close(),
        }
    }
}

impl Slot {
    fn planes(&self) -> OutputPlanes {
        match self {
            Slot::Planar(planar) => planar.planes(),
            Slot::Encoder(surface) => {
                let pitch = u32::try_from(surface.pitch()).unwrap_or(u32::MAX);
                let (luma, chroma) = (surface.luma(), surface.chroma());
                OutputPlanes { luma, chroma, chroma_v: 0, pitch_luma: pitch, pitch_chroma: pitch }
            }
        }
    }
}

/// Whether a rendition whose inputs are all in use is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    Waits,
    Hasty,
}

/// One picture in every rendition's size. A rendition without a free input has none of it.
pub struct Scaled {
    slots: Vec<Option<Slot>>,
    /// Happens when all of them are written.
    pub ready: Event,
}

impl Scaled {
    pub fn slot(&self, rendition: usize) -> Option<&Slot> {
        self.slots.get(rendition).and_then(Option::as_ref)
    }
}

/// The launches of one channel.
pub struct Ladder {
    gpu: Arc<Gpu>,
    stream: Arc<Stream>,
    outputs: Vec<(OutputShape, Inputs)>,
    /// Cut off each surface.
    margins: Margins,
    /// What lies over each output, as the GPU has it.
    marks: Vec<(OverlayAt, Block)>,
    /// For the shape of the newest surface, with its tables on the GPU.
    plan: Option<(SourceShape, LadderPlan, Block)>,
    watch: Watch,
}

impl Ladder {
    /// Launches run on `stream`, where the surfaces are made. `watch` tells of the calls of the thread that scales.
    pub fn new(
        gpu: &Arc<Gpu>,
        stream: &Arc<Stream>,
        renditions: Vec<((u32, u32), Inputs)>,
        margins: Margins,
        watch: Watch,
    ) -> Ladder {
        let shape = |(width, height): (u32, u32), inputs: &Inputs| OutputShape {
            width: width as usize,
            height: height as usize,
            layout: inputs.layout(),
        };
        let outputs = renditions.into_iter().map(|(size, inputs)| (shape(size, &inputs), inputs)).collect();
        let (gpu, stream) = (Arc::clone(gpu), Arc::clone(stream));
        Ladder { gpu, stream, outputs, margins, marks: Vec::new(), plan: None, watch }
    }

    /// What lies over the outputs from now on.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn mark(&mut self, marks: Option<&Arc<Marks>>) -> Result<(), Error> {
        let made = (0..self.outputs.len()).filter_map(|i| marks.and_then(|marks| marks.over(i))).map(|mark| {
            let block = Block::holding(&self.gpu.device, mark.overlay.bytes())?;
            let at = OverlayAt { address: block.address(), size: mark.overlay.size(), x: mark.x, y: mark.y };
            Ok((at, block))
        });
        // Launches under way may read the old ones: freeing waits for them.
        self.marks = made.collect::<Result<_, Error>>()?;
        Ok(())
    }

    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Of the thread that scales, and decodes.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Queues the launch; `patience` says of each rendition whether it is waited for.
    ///
    /// # Errors
    /// The driver's; a surface that can not be scaled.
    pub fn scale(&mut self, surface: &Surface, patience: impl Fn(usize) -> Patience) -> Result<Scaled, Error> {
        let crop = Crop::by(self.margins, surface.width as usize, surface.height as usize);
        let overlays: Vec<_> = self.marks.iter().map(|(at, _)| Some(*at)).collect();
        self.launch(surface, crop, &overlays, patience)
    }

    fn launch(
        &mut self,
        surface: &Surface,
        crop: Option<Crop>,
        overlays: &[Option<OverlayAt>],
        patience: impl Fn(usize) -> Patience,
    ) -> Result<Scaled, Error> {
        let shape = SourceShape {
            width: surface.width as usize,
            height: surface.height as usize,
            depth: surface.depth,
            crop,
            siting: Siting::Left,
        };
        if self.plan.as_ref().is_none_or(|(planned, ..)| *planned != shape) {
            let outputs: Vec<OutputShape> = self.outputs.iter().map(|(shape, _)| *shape).collect();
            let plan = LadderPlan::new(shape, &outputs).map_err(unfit)?;
            // A ladder at the source's size alone needs none, and the driver gives out no memory of no size.
            let tables = if plan.tables().is_empty() { &[0] } else { plan.tables() };
            let tables = Block::holding(&self.gpu.device, tables)?;
            self.plan = Some((shape, plan, tables));
        }
        let slots: Vec<Option<Slot>> =
            self.outputs.iter().enumerate().map(|(i, (_, inputs))| inputs.take(patience(i))).collect();
        let (_, plan, tables) = self.plan.as_ref().expect("made above");
        let Surface { luma, chroma, pitch, .. } = *surface;
        let source = SourcePlanes { luma, chroma, pitch };
        let planes: Vec<Option<OutputPlanes>> = slots.iter().map(|slot| slot.as_ref().map(Slot::planes)).collect();
        let arguments = plan.arguments(tables.address(), source, &planes, overlays).map_err(unfit)?;
        if arguments.grid()[0] > 0 {
            let kernel =
                if plan.kernel() == crate::gpu::ladder::KERNEL { &self.gpu.ladder } else { &self.gpu.ladder_ten };
            let _busy = self.watch.enter("cuLaunchKernel");
            kernel.launch(&self.stream, arguments.grid(), BLOCK, &*arguments)?;
        }
        let ready = Event::new(&self.gpu.device, Timing::Off)?;
        ready.record(&self.stream)?;
        Ok(Scaled { slots, ready })
    }
}

impl Ladder {
    /// Copies a picture of the host to the GPU and scales it there, uncut and unmarked: for what does not come from the
    /// decoder. Waits until all of it is written.
    ///
    /// # Errors
    /// As `scale`; out of memory.
    pub fn upload(&mut self, picture: &Planes<'_>) -> Result<Scaled, Error> {
        let (width, height) = (picture.width & !1, picture.height & !1);
        let mut host = Pinned::new(&self.gpu.device, width * height * 3 / 2)?;
        let (luma, chroma) = host.bytes_mut().split_at_mut(width * height);
        for (row, to) in luma.chunks_exact_mut(width).enumerate() {
            to.copy_from_slice(&picture.y[row * picture.stride_y..][..width]);
        }
        for (row, to) in chroma.chunks_exact_mut(width).enumerate() {
            let (u, v) = (&picture.u[row * picture.stride_u..], &picture.v[row * picture.stride_v..]);
            for (pair, (u, v)) in to.chunks_exact_mut(2).zip(u.iter().zip(v)) {
                pair.copy_from_slice(&[*u, *v]);
            }
        }
        let block = Block::new(&self.gpu.device, width, height * 3 / 2)?;
        let whole = Plane {
            device: Rows { offset: 0, pitch: block.pitch() },
            host: Rows { offset: 0, pitch: width },
            width,
            height: height * 3 / 2,
        };
        memory::upload(&self.stream, &host, &block, &[whole])?;
        let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let surface = Surface {
            luma: block.address(),
            chroma: block.address() + (block.pitch() * height) as u64,
            pitch: word(block.pitch()),
            width: word(width),
            height: word(height),
            depth: Depth::Eight,
            tag: 0,
            second: false,
            damaged: false,
        };
        let scaled = self.launch(&surface, None, &[], |_| Patience::Waits)?;
        // The surface is this function's.
        let _busy = self.watch.enter("cuEventSynchronize");
        scaled.ready.wait()?;
        Ok(scaled)
    }
}

fn unfit(error: LadderError) -> Error {
    Error::new(Library::Cuda, 1, "the launch of the ladder").words(error.to_string())
}

//! `rung_ladder` on the card against the scalar form on this processor: equal bytes, and nothing written beside them.

use rung_worker::gpu::Depth;
use rung_worker::gpu::cuda::Stream;
use rung_worker::gpu::ladder::{
    BLOCK, KERNEL, LadderPlan, Layout, OutputPlanes, OutputShape, SourcePlanes, SourceShape,
};
use rung_worker::gpu::memory::Block;
use rung_worker::scale::{Crop, Form, PlanesMut, PlanesOf, Scaler, Siting, TenPlanes};

use crate::Extent;
use crate::card::Card;
use crate::report::{Found, fail};

/// Sources, each scaled to its `TARGETS` and to its own size; odd ones among them.
const SIZES: [(usize, usize); 11] = [
    (1920, 1080),
    (3840, 2160),
    (1280, 720),
    (1440, 1080),
    (720, 576),
    (853, 481),
    (641, 359),
    (320, 180),
    (101, 57),
    (64, 1),
    (5, 3),
];
const TARGETS: [(usize, usize); 6] = [(1280, 720), (854, 480), (640, 360), (426, 240), (161, 91), (33, 19)];
/// What memory around an output holds, and must go on holding.
const UNTOUCHED: u8 = 0xA5;

pub(crate) fn run(card: &Card, extent: Extent) -> Found<String> {
    let mut compared = 0_usize;
    let sizes = if extent == Extent::Whole { &SIZES[..] } else { &SIZES[5..] };
    for (n, (width, height)) in sizes.iter().copied().enumerate() {
        for depth in [Depth::Eight, Depth::Ten] {
            let crop = (n % 3 == 1 && height > 8).then(|| Crop { x: 2, y: 4, width: width - 5, height: height - 7 });
            compared += compare(card, (width, height), depth, crop, n as u64 + 1)?;
        }
    }
    Ok(format!("{} sources, NV12 and P016, {compared} bytes compared", sizes.len()))
}

/// Bytes that were compared.
fn compare(card: &Card, (width, height): (usize, usize), depth: Depth, crop: Option<Crop>, seed: u64) -> Found<usize> {
    let source = Source::new(width, height, depth, seed);
    let shapes: Vec<OutputShape> = TARGETS
        .into_iter()
        .filter(|(w, h)| *w <= 2 * width && *h <= 2 * height)
        .chain([crop.map_or((width, height), |crop| (crop.width, crop.height))])
        .enumerate()
        .map(|(i, (width, height))| OutputShape {
            width,
            height,
            layout: if i % 2 == 0 { Layout::Nv12 } else { Layout::I420 },
        })
        .collect();
    let plan = LadderPlan::new(SourceShape { width, height, depth, crop, siting: Siting::Left }, &shapes)?;
    let (device, kernels) = (card.device(), [&card.gpu.ladder_ten, &card.gpu.ladder]);
    let stream = Stream::new(device)?;
    let tables = Block::holding(device, &padded(plan.tables()))?;
    let (luma, chroma) = (Block::holding(device, &source.luma)?, Block::holding(device, &source.chroma)?);
    let outputs = shapes.iter().map(|shape| Output::new(card, *shape)).collect::<Found<Vec<_>>>()?;
    let planes: Vec<_> = outputs.iter().map(|output| Some(output.planes())).collect();
    let from = SourcePlanes { luma: luma.address(), chroma: chroma.address(), pitch: source.pitch as u32 };
    let arguments = plan.arguments(tables.address(), from, &planes, &[])?;
    kernels[usize::from(plan.kernel() == KERNEL)].launch(&stream, arguments.grid(), BLOCK, &*arguments)?;
    stream.wait_done()?;
    let mut compared = 0;
    for output in &outputs {
        let found = card.raw.read(device, output.block.address(), output.bytes)?;
        let wanted = output.wanted(&source.scaled(crop, output.shape));
        compared += found.len();
        if let Some(at) = found.iter().zip(&wanted).position(|(a, b)| a != b) {
            let OutputShape { width: w, height: h, layout } = output.shape;
            return fail(format!(
                "{width}x{height} {depth:?} crop {crop:?} to {w}x{h} {layout:?}: byte {at} is {}, not {}",
                found[at], wanted[at]
            ));
        }
    }
    Ok(compared)
}

fn padded(tables: &[u8]) -> Vec<u8> {
    let mut bytes = tables.to_vec();
    bytes.resize(tables.len().next_multiple_of(16).max(16), 0);
    bytes
}

/// A surface of noise as a decoder lays it out, and the same as planes of ten bit samples (of eight in 8 bit).
struct Source {
    luma: Vec<u8>,
    chroma: Vec<u8>,
    pitch: usize,
    planes: [Vec<u16>; 3],
    size: (usize, usize),
    depth: Depth,
}

impl Source {
    fn new(width: usize, height: usize, depth: Depth, seed: u64) -> Source {
        let mut noise = Noise(seed);
        let (half, rows) = (width.div_ceil(2), height.div_ceil(2));
        let bits = if depth == Depth::Eight { 8 } else { 10 };
        let planes = [width * height, half * rows, half * rows]
            .map(|count| (0..count).map(|_| (noise.next() >> (64 - bits)) as u16).collect::<Vec<_>>());
        let bytes = if depth == Depth::Eight { 1 } else { 2 };
        let pitch = (width.next_multiple_of(4) * bytes).next_multiple_of(64);
        let mut lay = |rows: usize, at: &dyn Fn(usize, usize) -> Option<u16>| {
            let mut to = vec![0; pitch * rows];
            for (y, row) in to.chunks_mut(pitch).enumerate() {
                for (x, sample) in row.chunks_exact_mut(bytes).enumerate() {
                    // Padding, and what lies below ten bits, is noise too.
                    let random = noise.next() as u16;
                    let value = at(x, y).map_or(random, |v| if bytes == 1 { v } else { v << 6 | random & 63 });
                    sample.copy_from_slice(&value.to_le_bytes()[..bytes]);
                }
            }
            to
        };
        let luma = lay(height, &|x, y| (x < width).then(|| planes[0][y * width + x]));
        let chroma = lay(rows, &|x, y| (x < 2 * half).then(|| planes[1 + x % 2][y * half + x / 2]));
        Source { luma, chroma, pitch, planes, size: (width, height), depth }
    }

    /// By the scalar form.
    fn scaled(&self, crop: Option<Crop>, shape: OutputShape) -> [Vec<u8>; 3] {
        let ((width, height), half) = (self.size, self.size.0.div_ceil(2));
        let whole = Crop { x: 0, y: 0, width, height };
        let crop = crop.unwrap_or(whole);
        let to_half = shape.width.div_ceil(2);
        let chroma = to_half * shape.height.div_ceil(2);
        let [mut y, mut u, mut v] = [shape.width * shape.height, chroma, chroma].map(|count| vec![0; count]);
        let mut to = PlanesMut {
            y: &mut y,
            u: &mut u,
            v: &mut v,
            stride_y: shape.width,
            stride_u: to_half,
            stride_v: to_half,
            width: shape.width,
            height: shape.height,
        };
        let mut scaler =
            Scaler::with_form(crop.width, crop.height, shape.width, shape.height, Siting::Left, Form::Scalar);
        let strides = (width, half);
        if self.depth == Depth::Ten {
            let [y, u, v] = &self.planes;
            let from: TenPlanes<'_> = planes(y, u, v, strides, self.size);
            scaler.scale_ten(&from.cropped(crop).expect("it lies inside"), &mut to);
        } else {
            let eight = self.planes.each_ref().map(|plane| plane.iter().map(|s| *s as u8).collect::<Vec<u8>>());
            let [y, u, v] = &eight;
            let from = planes(y, u, v, strides, self.size);
            scaler.scale(&from.cropped(crop).expect("it lies inside"), &mut to);
        }
        [y, u, v]
    }
}

fn planes<'a, S>(
    y: &'a [S],
    u: &'a [S],
    v: &'a [S],
    (stride_y, half): (usize, usize),
    (width, height): (usize, usize),
) -> PlanesOf<'a, S> {
    PlanesOf { y, u, v, stride_y, stride_u: half, stride_v: half, width, height }
}

/// One output's planes, one below the other in one piece of memory, with room around each row.
struct Output {
    shape: OutputShape,
    block: Block,
    bytes: usize,
    pitch: usize,
    /// Where each plane begins.
    starts: Vec<usize>,
}

impl Output {
    fn new(card: &Card, shape: OutputShape) -> Found<Output> {
        let pitch = (shape.width.next_multiple_of(2) + 12).next_multiple_of(4);
        let rows = shape.height.div_ceil(2);
        let lead = 64;
        let mut starts = vec![lead, lead + pitch * shape.height];
        if shape.layout == Layout::I420 {
            starts.push(starts[1] + pitch * rows);
        }
        let bytes = starts[starts.len() - 1] + pitch * rows + lead;
        let block = Block::holding(card.device(), &vec![UNTOUCHED; bytes])?;
        Ok(Output { shape, block, bytes, pitch, starts })
    }

    fn planes(&self) -> OutputPlanes {
        let at = |n: usize| self.starts.get(n).map_or(0, |start| self.block.address() + *start as u64);
        let pitch = self.pitch as u32;
        OutputPlanes { luma: at(0), chroma: at(1), chroma_v: at(2), pitch_luma: pitch, pitch_chroma: pitch }
    }

    /// Its memory, when the kernel has written this picture and nothing else.
    fn wanted(&self, [luma, u, v]: &[Vec<u8>; 3]) -> Vec<u8> {
        let mut memory = vec![UNTOUCHED; self.bytes];
        let (width, half) = (self.shape.width, self.shape.width.div_ceil(2));
        let mut put = |start: usize, row: usize, samples: &[u8]| {
            for (y, from) in samples.chunks(row).enumerate() {
                memory[start + y * self.pitch..][..row].copy_from_slice(from);
            }
        };
        put(self.starts[0], width, luma);
        if self.shape.layout == Layout::I420 {
            put(self.starts[1], half, u);
            put(self.starts[2], half, v);
        } else {
            let pairs: Vec<u8> = u.iter().zip(v).flat_map(|(u, v)| [*u, *v]).collect();
            put(self.starts[1], 2 * half, &pairs);
        }
        memory
    }
}

/// xorshift64*: the same pictures on every run.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

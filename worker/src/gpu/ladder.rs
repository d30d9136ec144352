//! The launch of `rung_ladder`: from the shapes of one source surface and up to 16 outputs to tables that are uploaded
//! once, and from the addresses of a frame to the kernel's parameter. No call into a driver is made here.
//!
//! The kernel gives the bytes of `scale`'s specification. How it gets them: a thread makes a strip, eight bytes of an
//! output's row (eight luma samples, or four of U and four of V). It walks over the units (four samples of a source row)
//! of the strip's window, sums each column vertically once, and adds it to its horizontal sums. The window is as wide
//! for every strip of a plane as for the widest; coefficients are zeros where a column does not count. So strips side
//! by side do the same work, and their coefficients lie side by side.

use std::fmt;

use super::Depth;
use crate::scale::filter::{Axis, Filter};
use crate::scale::overlay::OverlayError;
use crate::scale::{Axes, Crop, CropError, SIDE_MAX, Siting};

/// The kernels, as PTX that every driver Rung admits can translate; made by `kernels/build.sh`.
pub const PTX: &str = include_str!("../../../kernels/scale.ptx");
/// Name of the kernel that reads 8 bit surfaces (NV12).
pub const KERNEL: &str = "rung_ladder";
/// Name of the kernel that reads 10 bit surfaces (P016).
pub const KERNEL_TEN: &str = "rung_ladder_ten";
pub const BLOCK: [u32; 3] = [16, 8, 1];
/// Outputs of one launch, thumbnail included.
pub const OUTPUTS_MAX: usize = 16;

/// What the decoder's surfaces are like: 4:2:0, luma and interleaved chroma of the same pitch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceShape {
    /// Luma samples of the surface.
    pub width: usize,
    pub height: usize,
    pub depth: Depth,
    /// What of it is scaled; `None`: all.
    pub crop: Option<Crop>,
    pub siting: Siting,
}

/// Where chroma goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Interleaved, as encoders on the card take it.
    Nv12,
    /// Planar, to be downloaded.
    I420,
}

/// One output, 8 bit 4:2:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputShape {
    pub width: usize,
    pub height: usize,
    pub layout: Layout,
}

/// Device addresses of a surface to read; multiples of 4, as is the pitch (bytes). Rows are read to the end of their
/// last unit of four samples, never past the pitch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePlanes {
    pub luma: u64,
    pub chroma: u64,
    pub pitch: u32,
}

/// Device addresses of an output to write; multiples of 4, as are the pitches (bytes). Multiples of 8 are written
/// faster. Nothing outside width and height is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputPlanes {
    pub luma: u64,
    /// U and V, or U alone (`Layout::I420`).
    pub chroma: u64,
    /// V (`Layout::I420`); not looked at otherwise.
    pub chroma_v: u64,
    pub pitch_luma: u32,
    /// Of U and V each, or of both.
    pub pitch_chroma: u32,
}

/// An overlay over one output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayAt {
    /// Where `scale::overlay::Overlay::bytes` lies in device memory.
    pub address: u64,
    /// `Overlay::size`.
    pub size: (usize, usize),
    /// Place of its upper left corner, luma samples of the output, even.
    pub x: usize,
    pub y: usize,
}

/// Why a plan or a launch can not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LadderError {
    /// More than `OUTPUTS_MAX` outputs, or none.
    Outputs(usize),
    /// A side of 0 or above `SIDE_MAX`.
    Side {
        what: &'static str,
        width: usize,
        height: usize,
    },
    Crop(CropError),
    /// A launch speaks of another number of outputs or overlays than the plan.
    Count {
        planned: usize,
        given: usize,
    },
    /// An address that is 0 or not aligned.
    Address {
        what: &'static str,
        address: u64,
    },
    /// A pitch that is no multiple of 4 or below a row.
    Pitch {
        what: &'static str,
        pitch: u32,
        row: usize,
    },
    /// An overlay that does not fit output `output`.
    Overlay {
        output: usize,
        error: OverlayError,
    },
}

impl fmt::Display for LadderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LadderError::Outputs(n) => write!(f, "a ladder has 1 to {OUTPUTS_MAX} outputs, not {n}"),
            LadderError::Side { what, width, height } => {
                write!(f, "{what}: sides are 1 to {SIDE_MAX}, not {width}x{height}")
            }
            LadderError::Crop(error) => error.fmt(f),
            LadderError::Count { planned, given } => write!(f, "{given} outputs were given, {planned} were planned"),
            LadderError::Address { what, address } => write!(f, "{what}: address {address:#x} is 0 or not aligned"),
            LadderError::Pitch { what, pitch, row } => {
                write!(f, "{what}: a pitch of {pitch} is no multiple of 4 or below a row of {row}")
            }
            LadderError::Overlay { output, error } => write!(f, "output {output}: {error}"),
        }
    }
}

impl std::error::Error for LadderError {}

/// How one shape of source becomes a fixed set of outputs.
pub struct LadderPlan {
    source: SourceShape,
    outputs: Vec<OutputShape>,
    /// Bytes of a source row that a launch may read.
    row: usize,
    tables: Vec<u8>,
    /// Those with the most work for a thread first: the last blocks to end are short ones.
    planes: Vec<PlannedPlane>,
}

struct PlannedPlane {
    output: usize,
    plane: LadderPlane,
}

impl LadderPlan {
    /// # Errors
    /// No or too many outputs, sides that can not be, a crop outside the surface.
    pub fn new(source: SourceShape, outputs: &[OutputShape]) -> Result<LadderPlan, LadderError> {
        if !(1..=OUTPUTS_MAX).contains(&outputs.len()) {
            return Err(LadderError::Outputs(outputs.len()));
        }
        side("source", source.width, source.height)?;
        let crop = source.crop.unwrap_or(Crop { x: 0, y: 0, width: source.width, height: source.height });
        crop.check(source.width, source.height).map_err(LadderError::Crop)?;
        let units = (crop.x + crop.width.next_multiple_of(2)).div_ceil(4);
        let row = units * source.depth.bytes() * 4;
        let mut plan = LadderPlan { source, outputs: outputs.to_vec(), row, tables: Vec::new(), planes: Vec::new() };
        for (output, shape) in outputs.iter().enumerate() {
            side("output", shape.width, shape.height)?;
            let axes = Axes::new((crop.width, crop.height), (shape.width, shape.height), source.siting);
            plan.add_plane(output, Kind::Luma, crop, (&axes.luma_x, &axes.luma_y));
            plan.add_plane(output, Kind::Chroma, crop, (&axes.chroma_x, &axes.chroma_y));
        }
        plan.planes.sort_by_key(|planned| std::cmp::Reverse(planned.plane.work()));
        Ok(plan)
    }

    /// To be copied to device memory once, at an address that is a multiple of 16.
    pub fn tables(&self) -> &[u8] {
        &self.tables
    }

    /// Name of the kernel to launch.
    pub fn kernel(&self) -> &'static str {
        match self.source.depth {
            Depth::Eight => KERNEL,
            Depth::Ten => KERNEL_TEN,
        }
    }

    /// The parameter of one launch. `outputs` has an entry for each planned output; `None` is skipped and costs nothing.
    /// `overlays` is empty or likewise. All planes and tables must stay until the launch has ended.
    ///
    /// # Errors
    /// Addresses, pitches, counts or overlays that the kernel could not take.
    pub fn arguments(
        &self,
        tables: u64,
        source: SourcePlanes,
        outputs: &[Option<OutputPlanes>],
        overlays: &[Option<OverlayAt>],
    ) -> Result<Box<LadderArguments>, LadderError> {
        self.check(tables, source, outputs, overlays)?;
        let SourcePlanes { luma, chroma, pitch } = source;
        let mut arguments = Box::new(LadderArguments { tables, luma, chroma, pitch, ..LadderArguments::default() });
        for (to, at) in arguments.overlays.iter_mut().zip(overlays) {
            *to = at.map_or(LadderOverlay::default(), LadderOverlay::from);
        }
        let (mut blocks, mut count) = (0, 0);
        for PlannedPlane { output, plane } in &self.planes {
            let Some(planes) = outputs[*output] else { continue };
            let chroma = plane.flags & CHROMA != 0;
            let (address, pitch) =
                if chroma { (planes.chroma, planes.pitch_chroma) } else { (planes.luma, planes.pitch_luma) };
            let planar = chroma && self.outputs[*output].layout == Layout::I420;
            let address_v = if planar { planes.chroma_v } else { 0 };
            let overlaid = overlays.get(*output).is_some_and(Option::is_some);
            let overlay = if overlaid { word(*output) } else { NO_OVERLAY };
            blocks += plane.across * plane.height.div_ceil(BLOCK[1]);
            arguments.planes[count] = LadderPlane { address, address_v, pitch, overlay, ..*plane };
            arguments.ends[count] = blocks;
            count += 1;
        }
        arguments.count = word(count);
        Ok(arguments)
    }

    fn check(
        &self,
        tables: u64,
        source: SourcePlanes,
        outputs: &[Option<OutputPlanes>],
        overlays: &[Option<OverlayAt>],
    ) -> Result<(), LadderError> {
        let planned = self.outputs.len();
        for given in [outputs.len(), if overlays.is_empty() { planned } else { overlays.len() }] {
            if given != planned {
                return Err(LadderError::Count { planned, given });
            }
        }
        aligned("tables", tables, 16)?;
        aligned("source luma", source.luma, 4)?;
        aligned("source chroma", source.chroma, 4)?;
        pitched("source", source.pitch, self.row)?;
        for (shape, planes) in self.outputs.iter().zip(outputs) {
            if let Some(planes) = planes {
                planes.check(shape.layout, shape.width)?;
            }
        }
        for (output, (shape, at)) in self.outputs.iter().zip(overlays).enumerate() {
            if let Some(at) = at {
                aligned("overlay", at.address, 1)?;
                at.check((shape.width, shape.height)).map_err(|error| LadderError::Overlay { output, error })?;
            }
        }
        Ok(())
    }

    fn add_plane(&mut self, output: usize, kind: Kind, crop: Crop, (x, y): (&Axis, &Axis)) {
        let (flag, left, top) = match kind {
            Kind::Luma => (0, crop.x, crop.y),
            Kind::Chroma => (CHROMA, crop.x / 2, crop.y / 2),
        };
        let units = (left + x.from).div_ceil(kind.unit());
        let mut plane = LadderPlane {
            width: word(x.to),
            height: word(y.to),
            across: word(x.to.div_ceil(kind.strip())).div_ceil(BLOCK[0]),
            flags: flag,
            units: word(units),
            left_top: word(crop.x | top << 16),
            ..LadderPlane::default()
        };
        if (x.source, y.source) == (x.target, y.target) {
            plane.flags |= KEPT;
        } else {
            let windows = Windows::new(&Filter::new(x), kind, left, units);
            plane.units = word(windows.units);
            plane.near_end = word(windows.near_end);
            plane.far_start = word(windows.far_start);
            plane.near_coefficients = self.add_table(windows.near.iter().copied());
            plane.far_coefficients = self.add_table(windows.far.iter().copied());
            plane.starts = self.add_table(windows.starts.iter().map(|start| word(*start)));
            let rows = Rows::new(&Filter::new(y), y.from);
            plane.flags |= rows.flags;
            plane.pairs = word(rows.pairs);
            plane.rows = self.add_table(rows.firsts.iter().map(|first| word(first + top)));
            plane.row_coefficients = self.add_table(rows.coefficients);
        }
        self.planes.push(PlannedPlane { output, plane });
    }

    /// Its place; each table starts at a multiple of 16.
    fn add_table(&mut self, words: impl IntoIterator<Item = u32>) -> u32 {
        self.tables.resize(self.tables.len().next_multiple_of(16), 0);
        let at = word(self.tables.len());
        self.tables.extend(words.into_iter().flat_map(u32::to_le_bytes));
        at
    }
}

impl OutputPlanes {
    pub(super) fn check(&self, layout: Layout, width: usize) -> Result<(), LadderError> {
        aligned("luma", self.luma, 4)?;
        aligned("chroma", self.chroma, 4)?;
        pitched("luma", self.pitch_luma, width)?;
        match layout {
            Layout::Nv12 => pitched("chroma", self.pitch_chroma, width.next_multiple_of(2)),
            Layout::I420 => {
                aligned("V", self.chroma_v, 4)?;
                pitched("chroma", self.pitch_chroma, width.div_ceil(2))
            }
        }
    }
}

impl OverlayAt {
    fn check(&self, (width, height): (usize, usize)) -> Result<(), OverlayError> {
        let (w, h) = self.size;
        if w == 0 || h == 0 || !w.is_multiple_of(2) || !h.is_multiple_of(2) {
            return Err(OverlayError::Size { width: w, height: h });
        }
        let fits =
            |from: usize, size: usize, whole: usize| from.is_multiple_of(2) && size <= whole && from <= whole - size;
        let inside = fits(self.x, w, width) && fits(self.y, h, height);
        if inside { Ok(()) } else { Err(OverlayError::Place { x: self.x, y: self.y }) }
    }
}

fn side(what: &'static str, width: usize, height: usize) -> Result<(), LadderError> {
    let fine = [width, height].iter().all(|side| (1..=SIDE_MAX).contains(side));
    if fine { Ok(()) } else { Err(LadderError::Side { what, width, height }) }
}

fn aligned(what: &'static str, address: u64, to: u64) -> Result<(), LadderError> {
    if address != 0 && address.is_multiple_of(to) { Ok(()) } else { Err(LadderError::Address { what, address }) }
}

fn pitched(what: &'static str, pitch: u32, row: usize) -> Result<(), LadderError> {
    let fine = pitch.is_multiple_of(4) && pitch as usize >= row;
    if fine { Ok(()) } else { Err(LadderError::Pitch { what, pitch, row }) }
}

/// Everything here is bounded by `SIDE_MAX`.
fn word(n: usize) -> u32 {
    u32::try_from(n).expect("sides are at most SIDE_MAX, so tables stay far below 4 GiB")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Luma,
    Chroma,
}

impl Kind {
    /// Samples (of U, in chroma) of a unit.
    fn unit(self) -> usize {
        if self == Kind::Luma { 4 } else { 2 }
    }

    /// Samples of a strip.
    fn strip(self) -> usize {
        if self == Kind::Luma { 8 } else { 4 }
    }
}

/// The vertical filter as the kernel walks it: in pairs of rows, all of which exist.
struct Rows {
    firsts: Vec<usize>,
    pairs: usize,
    /// A word for each pair.
    coefficients: Vec<u32>,
    flags: u32,
}

impl Rows {
    /// `height`: rows of the source.
    fn new(filter: &Filter, height: usize) -> Rows {
        let taps = filter.taps();
        let pairs = taps.div_ceil(2);
        let mut rows = Rows { firsts: Vec::new(), pairs, coefficients: Vec::new(), flags: 0 };
        if 2 * pairs > height {
            // As many taps as rows, and odd: the second pair begins with the first's second row, whose coefficient
            // there is 0. A single row is its own second.
            rows.flags = if height == 1 { ONE_ROW } else { OVERLAP };
        }
        for output in 0..filter.outputs() {
            let mut row = filter.coefficients(output).to_vec();
            let mut first = filter.first(output);
            if rows.flags != 0 {
                row.insert(1, 0);
            } else if first + 2 * pairs > height {
                row.insert(0, 0);
                first -= 1;
            } else {
                row.resize(2 * pairs, 0);
            }
            rows.firsts.push(first);
            rows.coefficients.extend(row.as_chunks::<2>().0.iter().map(|[a, b]| {
                let [a, b] = [a, b].map(|c| u32::from(c.cast_unsigned()));
                a | b << 16
            }));
        }
        rows
    }
}

/// The horizontal filter as the kernel walks it.
struct Windows {
    /// First unit of each strip.
    starts: Vec<usize>,
    units: usize,
    near_end: usize,
    far_start: usize,
    near: Vec<u32>,
    far: Vec<u32>,
}

impl Windows {
    /// `left`: where the filter's sample 0 lies in its row. `row`: units of a row.
    fn new(filter: &Filter, kind: Kind, left: usize, row: usize) -> Windows {
        let strips = filter.outputs().div_ceil(kind.strip());
        let spans = |strip: usize, fours: std::ops::Range<usize>| {
            let outputs = (strip * kind.strip() + fours.start * 4)..(strip * kind.strip() + fours.end * 4);
            let outputs = outputs.start.min(filter.outputs())..outputs.end.min(filter.outputs());
            span(filter, outputs).map(|(low, high)| ((left + low) / kind.unit(), (left + high).div_ceil(kind.unit())))
        };
        let whole: Vec<_> = (0..strips).map(|strip| spans(strip, 0..2).expect("a strip has a first sample")).collect();
        let units = whole.iter().map(|(low, high)| high - low).max().unwrap_or(1);
        let starts: Vec<usize> = whole.iter().map(|(low, _)| *low.min(&(row - units))).collect();
        let even = units.next_multiple_of(2);
        let (mut near_end, mut far_start) = (even, even);
        if kind == Kind::Luma {
            let fours = |four: usize| {
                starts.iter().enumerate().filter_map(move |(strip, start)| {
                    spans(strip, four..four + 1).map(|(low, high)| (low - start, high - start))
                })
            };
            near_end = fours(0).map(|(_, high)| high).max().unwrap_or(even).next_multiple_of(2);
            far_start = fours(1).map(|(low, _)| low).min().unwrap_or(even) / 2 * 2;
        }
        let mut windows = Windows { starts, units, near_end, far_start, near: Vec::new(), far: Vec::new() };
        windows.near = windows.coefficients(filter, kind, left, 0, 0..near_end);
        windows.far = windows.coefficients(filter, kind, left, 4, far_start..even);
        windows
    }

    /// Of the four samples that begin `skip` into each strip: per two units, block of strips, pair of columns, strip and
    /// sample.
    fn coefficients(
        &self,
        filter: &Filter,
        kind: Kind,
        left: usize,
        skip: usize,
        units: std::ops::Range<usize>,
    ) -> Vec<u32> {
        let across = BLOCK[0] as usize;
        let mut words = Vec::new();
        for unit in units.step_by(2) {
            for group in 0..self.starts.len().div_ceil(across) {
                for pair in 0..kind.unit() {
                    for strip in group * across..(group + 1) * across {
                        let start = self.starts.get(strip).copied().unwrap_or(0);
                        let column = (start + unit) * kind.unit() + 2 * pair;
                        words.extend((0..4).map(|n| {
                            let output = strip * kind.strip() + skip + n;
                            let at = |column| coefficient(filter, output, column, left).to_le_bytes();
                            let (a, b) = (at(column), at(column + 1));
                            u32::from_le_bytes([a[0], b[0], a[1], b[1]])
                        }));
                    }
                }
            }
        }
        words
    }
}

/// The first sample that counts for one of these, and the one after the last.
fn span(filter: &Filter, outputs: std::ops::Range<usize>) -> Option<(usize, usize)> {
    let ends = outputs.map(|output| {
        let row = filter.coefficients(output);
        let first = row.iter().position(|c| *c != 0).expect("coefficients sum to 16384");
        let last = row.iter().rposition(|c| *c != 0).expect("coefficients sum to 16384");
        (filter.first(output) + first, filter.first(output) + last + 1)
    });
    ends.reduce(|(low, high), (a, b)| (low.min(a), high.max(b)))
}

/// Of the sample in this column of the surface; 0 outside the filter.
fn coefficient(filter: &Filter, output: usize, column: usize, left: usize) -> i16 {
    if output >= filter.outputs() {
        return 0;
    }
    let tap = column.checked_sub(left + filter.first(output));
    tap.and_then(|tap| filter.coefficients(output).get(tap)).copied().unwrap_or(0)
}

/// The kernel's parameter, by value; laid out as in `kernels/ladder.h`, without padding.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct LadderArguments {
    tables: u64,
    luma: u64,
    chroma: u64,
    pitch: u32,
    count: u32,
    ends: [u32; 2 * OUTPUTS_MAX],
    planes: [LadderPlane; 2 * OUTPUTS_MAX],
    overlays: [LadderOverlay; OUTPUTS_MAX],
}

impl LadderArguments {
    /// Blocks of `BLOCK` threads to launch; `[0, 1, 1]` when every output is skipped: then there is nothing to launch.
    pub fn grid(&self) -> [u32; 3] {
        [(self.count as usize).checked_sub(1).map_or(0, |last| self.ends[last]), 1, 1]
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct LadderPlane {
    address: u64,
    address_v: u64,
    pitch: u32,
    width: u32,
    height: u32,
    across: u32,
    flags: u32,
    overlay: u32,
    units: u32,
    near_end: u32,
    far_start: u32,
    pairs: u32,
    starts: u32,
    near_coefficients: u32,
    far_coefficients: u32,
    rows: u32,
    row_coefficients: u32,
    left_top: u32,
}

impl LadderPlane {
    /// About how many instructions a thread needs.
    fn work(&self) -> u32 {
        if self.flags & KEPT != 0 { 0 } else { self.units * (6 * self.pairs + 36) }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct LadderOverlay {
    address: u64,
    place: u32,
    size: u32,
}

impl From<OverlayAt> for LadderOverlay {
    fn from(at: OverlayAt) -> LadderOverlay {
        LadderOverlay { address: at.address, place: word(at.x | at.y << 16), size: word(at.size.0 | at.size.1 << 16) }
    }
}

const _: () = assert!(size_of::<LadderPlane>() == 16 + 16 * 4, "no padding");
const _: () = assert!(size_of::<LadderOverlay>() == 16, "no padding");
const _: () = assert!(size_of::<LadderArguments>() == 32 + 32 * 4 + 32 * 80 + 16 * 16, "no padding");
const _: () = assert!(size_of::<LadderArguments>() <= 4096, "what a launch's parameters may hold");

const CHROMA: u32 = 1;
const KEPT: u32 = 2;
const OVERLAP: u32 = 4;
const ONE_ROW: u32 = 8;
const NO_OVERLAY: u32 = u32::MAX;

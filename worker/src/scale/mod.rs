//! Purpose: scale one 4:2:0 picture of 8 or 10 bit to an 8 bit one of another size. One specification, several forms
//! (scalar, AVX2, CUDA in `kernels/scale.cu`), equal byte for byte: two boxes of a pair may have different processors and
//! must publish the same pictures.
//! Time: none.
//! Invariants: integers only; no 32-bit sum below can overflow and no 16-bit value saturate, for any picture.
//! When it fails: never; sizes and planes that contradict each other are bugs and assert.
//!
//! # Specification
//!
//! A picture of W x H has a luma plane of W x H and two chroma planes of ceil(W/2) x ceil(H/2). Each plane is scaled
//! on its own, first vertically, then horizontally. A picture that keeps its size is copied. A crop comes first: the
//! picture is then what lies inside, and its edges are the crop's.
//!
//! **Position.** Along one axis let S and D be the source's and the target's *luma* size (W or H), n and m the numbers
//! of samples of the plane, and p the sample's place in quarters of its own size: p = 2 (the middle) for luma, for
//! chroma along the vertical axis and for `Siting::Centre`; p = 1 for chroma along the horizontal axis of
//! `Siting::Left` (the place of even luma samples, H.264's default). The distance from source sample k to target sample
//! i is N / Q of the filter's unit, with N = (4k + p) D - (4i + p) S and Q = 4 max(S, D): in source samples when the
//! picture grows, in target samples when it shrinks, so the filter widens with the ratio and does not alias.
//!
//! **Weight.** Cubic convolution with a = -1/2, over the integers: with t = |N|,
//! w = 3t^3 - 5t^2 Q + 2Q^3 for t < Q; w = -t^3 + 5t^2 Q - 8t Q^2 + 4Q^3 for Q <= t < 2Q; else 0. Source samples outside
//! 0..n take the value of the nearest inside, so their weights are added to that sample's.
//!
//! **Coefficient.** With T the sum of all w of target sample i: c(k) = floor((2 * 16384 w + T) / 2T), and what the c
//! then lack of 16384 is added to the largest (of equals the one with the lowest k). So every c fits i16, they sum to
//! 16384 exactly (flat areas keep their value), and the positive ones sum to less than 32768.
//!
//! **Vertical.** v(x, j) = (sum of c(k) s(x, k) + 128) >> 8: 64 times a sample, fits i16.
//! **Horizontal.** d(i, j) = clamp((sum of c(k) v(k, j) + 2^19) >> 20, 0, 255). Shifts are arithmetic; every
//! sum fits i32 in whatever order its terms are added (|v| <= 32640, and the c of a sample sum to less than 49152 in
//! size).
//!
//! **Ten bits.** Of a source of 10 bit samples s10, v(x, j) = (sum of c(k) s10(x, k) + 512) >> 10: again 64 times an 8 bit
//! sample, |v| <= 32736; the horizontal pass is the same. A picture that keeps its size has
//! d = min(255, (s10 + 2) >> 2), which is also what both passes would give.

#[cfg(target_arch = "x86_64")]
mod avx2;
pub mod device;
pub(crate) mod filter;
pub mod hash;
pub mod overlay;
pub mod marks;
mod scalar;

use filter::{Axis, Filter};
use rung::media::crop::{Margins, Part};

/// A 4:2:0 planar picture; chroma planes are half as large, rounded up. Strides in samples.
#[derive(Clone, Copy)]
pub struct PlanesOf<'a, S> {
    pub y: &'a [S],
    pub u: &'a [S],
    pub v: &'a [S],
    pub stride_y: usize,
    pub stride_u: usize,
    pub stride_v: usize,
    pub width: usize,
    pub height: usize,
}

/// Of 8 bit samples.
pub type Planes<'a> = PlanesOf<'a, u8>;

/// Of 10 bit samples in the low bits; the six above are ignored.
pub type TenPlanes<'a> = PlanesOf<'a, u16>;

impl<'a, S> PlanesOf<'a, S> {
    /// The picture inside a crop, on the same memory.
    ///
    /// # Errors
    /// As `Crop::check`; also for planes shorter than their size and stride say.
    pub fn cropped(&self, crop: Crop) -> Result<PlanesOf<'a, S>, CropError> {
        crop.check(self.width, self.height)?;
        let chroma = (crop.x / 2, crop.y / 2);
        let from = |plane: &'a [S], stride: usize, (x, y): (usize, usize)| plane.get(y * stride + x..);
        let planes = (
            from(self.y, self.stride_y, (crop.x, crop.y)),
            from(self.u, self.stride_u, chroma),
            from(self.v, self.stride_v, chroma),
        );
        let (Some(y), Some(u), Some(v)) = planes else { return Err(CropError::Outside) };
        Ok(PlanesOf { y, u, v, width: crop.width, height: crop.height, ..*self })
    }
}

/// The part of a picture that is used, luma samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
}

/// Why a crop can not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CropError {
    /// Chroma has a sample for every second luma sample: x and y are even.
    Odd,
    /// It is empty, or does not lie inside the picture.
    Outside,
}

impl std::fmt::Display for CropError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CropError::Odd => "a crop begins at an even column and row",
            CropError::Outside => "a crop holds at least one sample and lies inside its picture",
        })
    }
}

impl std::error::Error for CropError {}

impl Crop {
    /// What margins leave of a picture of this size; `None`: all of it, as they are nothing, or for another picture.
    pub fn by(margins: Margins, width: usize, height: usize) -> Option<Crop> {
        let side = |n: usize| u32::try_from(n).ok();
        let part = margins.part_of(side(width)?, side(height)?).filter(|_| !margins.is_nothing())?;
        let Part { x, y, width, height } = part;
        let [x, y, width, height] = [x, y, width, height].map(|n| n as usize);
        Some(Crop { x, y, width, height })
    }

    /// Whether it fits a picture of this size.
    ///
    /// # Errors
    /// An odd place; an empty size; a side beyond the picture.
    pub fn check(&self, width: usize, height: usize) -> Result<(), CropError> {
        if !self.x.is_multiple_of(2) || !self.y.is_multiple_of(2) {
            return Err(CropError::Odd);
        }
        let fits = |from: usize, size: usize, whole: usize| size > 0 && from < whole && size <= whole - from;
        let inside = fits(self.x, self.width, width) && fits(self.y, self.height, height);
        if inside { Ok(()) } else { Err(CropError::Outside) }
    }
}

/// The same, to write to. Bytes between the width and the stride are left alone.
pub struct PlanesMut<'a> {
    pub y: &'a mut [u8],
    pub u: &'a mut [u8],
    pub v: &'a mut [u8],
    pub stride_y: usize,
    pub stride_u: usize,
    pub stride_v: usize,
    pub width: usize,
    pub height: usize,
}

/// Where chroma samples lie horizontally; vertically they always lie between two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Siting {
    /// On even luma samples: H.264's default (chroma_loc type 0).
    Left,
    /// Between two luma samples (JPEG, MPEG-1).
    Centre,
}

/// Which form computes; all give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Scalar,
    Avx2,
}

impl Form {
    /// The fastest form this CPU runs.
    pub fn best() -> Form {
        #[cfg(target_arch = "x86_64")]
        if avx2::Kernel::detect().is_some() {
            return Form::Avx2;
        }
        Form::Scalar
    }
}

/// Scales pictures of one size to another; keeps its tables and one row of scratch, allocates nothing per picture.
pub struct Scaler {
    source: (usize, usize),
    target: (usize, usize),
    luma: Plan,
    chroma: Plan,
}

impl Scaler {
    /// Sizes in luma samples.
    ///
    /// # Panics
    /// A side of 0 or above `SIDE_MAX`.
    pub fn new(src_w: usize, src_h: usize, dst_w: usize, dst_h: usize, siting: Siting) -> Scaler {
        Scaler::with_form(src_w, src_h, dst_w, dst_h, siting, Form::best())
    }

    /// As `new`, in the form given (tests and benches compare them).
    ///
    /// # Panics
    /// As `new`, and for a form this CPU does not run.
    pub fn with_form(src_w: usize, src_h: usize, dst_w: usize, dst_h: usize, siting: Siting, form: Form) -> Scaler {
        for side in [src_w, src_h, dst_w, dst_h] {
            assert!((1..=SIDE_MAX).contains(&side), "a picture's side is 1..={SIDE_MAX}, not {side}");
        }
        let axes = Axes::new((src_w, src_h), (dst_w, dst_h), siting);
        Scaler {
            source: (src_w, src_h),
            target: (dst_w, dst_h),
            luma: Plan::new(&axes.luma_y, &axes.luma_x, form),
            chroma: Plan::new(&axes.chroma_y, &axes.chroma_x, form),
        }
    }

    /// # Panics
    /// Pictures of other sizes than promised, or planes shorter than their size and stride say.
    pub fn scale(&mut self, src: &Planes<'_>, dst: &mut PlanesMut<'_>) {
        self.scale_samples(src, dst);
    }

    /// From 10 bit to 8.
    ///
    /// # Panics
    /// As `scale`.
    pub fn scale_ten(&mut self, src: &TenPlanes<'_>, dst: &mut PlanesMut<'_>) {
        self.scale_samples(src, dst);
    }

    fn scale_samples<S: Sample>(&mut self, src: &PlanesOf<'_, S>, dst: &mut PlanesMut<'_>) {
        assert!((src.width, src.height) == self.source, "the source has the size the scaler was made for");
        assert!((dst.width, dst.height) == self.target, "the target has the size the scaler was made for");
        let chroma = |(width, height): (usize, usize)| (width.div_ceil(2), height.div_ceil(2));
        let (from, to) = (chroma(self.source), chroma(self.target));
        let (y, u, v) = (
            Plane::new(src.y, src.stride_y, self.source),
            Plane::new(src.u, src.stride_u, from),
            Plane::new(src.v, src.stride_v, from),
        );
        check(dst.y.len(), dst.stride_y, self.target);
        check(dst.u.len(), dst.stride_u, to);
        check(dst.v.len(), dst.stride_v, to);
        if self.source == self.target {
            copy(&y, dst.y, dst.stride_y);
            copy(&u, dst.u, dst.stride_u);
            copy(&v, dst.v, dst.stride_v);
        } else {
            self.luma.scale(&y, dst.y, dst.stride_y);
            self.chroma.scale(&u, dst.u, dst.stride_u);
            self.chroma.scale(&v, dst.v, dst.stride_v);
        }
    }
}

/// The four axes that a picture is scaled along.
pub(crate) struct Axes {
    pub(crate) luma_x: Axis,
    pub(crate) luma_y: Axis,
    pub(crate) chroma_x: Axis,
    pub(crate) chroma_y: Axis,
}

impl Axes {
    /// Sizes are width and height of luma.
    pub(crate) fn new(source: (usize, usize), target: (usize, usize), siting: Siting) -> Axes {
        let luma = |source, target| Axis { source, target, from: source, to: target, place: filter::QUARTER_CENTRE };
        let chroma = |source: usize, target: usize, place| Axis {
            source,
            target,
            from: source.div_ceil(2),
            to: target.div_ceil(2),
            place,
        };
        let place = match siting {
            Siting::Left => filter::QUARTER_LEFT,
            Siting::Centre => filter::QUARTER_CENTRE,
        };
        Axes {
            luma_x: luma(source.0, target.0),
            luma_y: luma(source.1, target.1),
            chroma_x: chroma(source.0, target.0, place),
            chroma_y: chroma(source.1, target.1, filter::QUARTER_CENTRE),
        }
    }
}

/// What the vertical pass and the copy need to know of a sample.
trait Sample: Copy {
    /// After the vertical pass: sums are 2^14 times a sample, `between` is 64 times an 8 bit one.
    const SHIFT: u32;
    fn value(self) -> i32;
    fn rounded(self) -> u8;
    #[cfg(target_arch = "x86_64")]
    fn vertical(tables: &avx2::Tables, filter: &Filter, src: &Plane<'_, Self>, y: usize, out: &mut [i16]);
}

impl Sample for u8 {
    const SHIFT: u32 = 8;

    fn value(self) -> i32 {
        i32::from(self)
    }

    fn rounded(self) -> u8 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    fn vertical(tables: &avx2::Tables, filter: &Filter, src: &Plane<'_, u8>, y: usize, out: &mut [i16]) {
        tables.vertical(filter, src, y, out);
    }
}

impl Sample for u16 {
    const SHIFT: u32 = 10;

    fn value(self) -> i32 {
        i32::from(self & TEN_BITS)
    }

    fn rounded(self) -> u8 {
        u8::try_from(((self & TEN_BITS) + 2) >> 2).unwrap_or(u8::MAX)
    }

    #[cfg(target_arch = "x86_64")]
    fn vertical(tables: &avx2::Tables, filter: &Filter, src: &Plane<'_, u16>, y: usize, out: &mut [i16]) {
        tables.vertical_ten(filter, src, y, out);
    }
}

/// One source plane whose length was checked: `height - 1` strides and one width are there.
struct Plane<'a, S> {
    data: &'a [S],
    stride: usize,
    width: usize,
    height: usize,
}

impl<'a, S> Plane<'a, S> {
    fn new(data: &'a [S], stride: usize, (width, height): (usize, usize)) -> Plane<'a, S> {
        check(data.len(), stride, (width, height));
        Plane { data, stride, width, height }
    }

    fn row(&self, y: usize) -> &'a [S] {
        &self.data[y * self.stride..][..self.width]
    }
}

fn check(len: usize, stride: usize, (width, height): (usize, usize)) {
    assert!(stride >= width, "a stride of {stride} holds a row of {width}");
    assert!(len >= stride * (height - 1) + width, "{len} samples hold {height} rows of {width}, stride {stride}");
}

fn copy<S: Sample>(src: &Plane<'_, S>, dst: &mut [u8], stride: usize) {
    for (y, row) in dst.chunks_mut(stride).take(src.height).enumerate() {
        for (to, from) in row.iter_mut().zip(src.row(y)) {
            *to = from.rounded();
        }
    }
}

/// The two filters of one kind of plane, and the row between them.
struct Plan {
    vertical: Filter,
    horizontal: Filter,
    /// One row after the vertical pass; a few values longer than a row, which meet zero coefficients only.
    between: Vec<i16>,
    #[cfg(target_arch = "x86_64")]
    avx2: Option<avx2::Tables>,
}

impl Plan {
    fn new(vertical: &Axis, horizontal: &Axis, form: Form) -> Plan {
        let between = vec![0; horizontal.from + BETWEEN_SPARE];
        let (vertical, horizontal) = (Filter::new(vertical), Filter::new(horizontal));
        #[cfg(target_arch = "x86_64")]
        let avx2 = (form == Form::Avx2).then(|| {
            let kernel = avx2::Kernel::detect().expect("the caller asks for a form of this CPU");
            avx2::Tables::new(kernel, &vertical, &horizontal)
        });
        #[cfg(not(target_arch = "x86_64"))]
        assert!(form == Form::Scalar, "AVX2 is a form of x86-64");
        Plan {
            vertical,
            horizontal,
            between,
            #[cfg(target_arch = "x86_64")]
            avx2,
        }
    }

    fn scale<S: Sample>(&mut self, src: &Plane<'_, S>, dst: &mut [u8], stride: usize) {
        let width = self.horizontal.outputs();
        for (y, row) in dst.chunks_mut(stride).take(self.vertical.outputs()).enumerate() {
            let row = &mut row[..width];
            #[cfg(target_arch = "x86_64")]
            if let Some(tables) = &self.avx2 {
                S::vertical(tables, &self.vertical, src, y, &mut self.between);
                tables.horizontal(&self.horizontal, &self.between, row);
                continue;
            }
            scalar::vertical(&self.vertical, src, y, &mut self.between);
            scalar::horizontal(&self.horizontal, &self.between, 0, row);
        }
    }
}

/// Largest side, samples; bounds the tables and the integers of `filter`.
pub const SIDE_MAX: usize = 8192;
const TEN_BITS: u16 = 0x3FF;
/// A vector form reads whole vectors: up to this many values past a row.
const BETWEEN_SPARE: usize = 16;

#[cfg(test)]
mod tests;

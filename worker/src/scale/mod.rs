//! Purpose: scale one 4:2:0 8 bit planar picture to another size. One specification, several forms (scalar, AVX2),
//! equal byte for byte: two boxes of a pair may have different CPUs and must publish the same pictures.
//! Time: none.
//! Invariants: integers only; no 32-bit sum below can overflow and no 16-bit value saturate, for any picture.
//! When it fails: never; sizes and planes that contradict each other are bugs and assert.
//!
//! # Specification
//!
//! A picture of W x H has a luma plane of W x H and two chroma planes of ceil(W/2) x ceil(H/2). Each plane is scaled
//! on its own, first vertically, then horizontally. A plane whose picture keeps its size is copied.
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

#[cfg(target_arch = "x86_64")]
mod avx2;
mod filter;
mod scalar;

use filter::{Axis, Filter};

/// A 4:2:0 8 bit planar picture; chroma planes are half as large, rounded up. Strides in bytes.
#[derive(Clone, Copy)]
pub struct Planes<'a> {
    pub y: &'a [u8],
    pub u: &'a [u8],
    pub v: &'a [u8],
    pub stride_y: usize,
    pub stride_u: usize,
    pub stride_v: usize,
    pub width: usize,
    pub height: usize,
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
        let chroma_x = match siting {
            Siting::Left => filter::QUARTER_LEFT,
            Siting::Centre => filter::QUARTER_CENTRE,
        };
        let luma = |source, target| Axis { source, target, from: source, to: target, place: filter::QUARTER_CENTRE };
        let chroma = |source: usize, target: usize, place| Axis {
            source,
            target,
            from: source.div_ceil(2),
            to: target.div_ceil(2),
            place,
        };
        Scaler {
            source: (src_w, src_h),
            target: (dst_w, dst_h),
            luma: Plan::new(&luma(src_h, dst_h), &luma(src_w, dst_w), form),
            chroma: Plan::new(&chroma(src_h, dst_h, filter::QUARTER_CENTRE), &chroma(src_w, dst_w, chroma_x), form),
        }
    }

    /// # Panics
    /// Pictures of other sizes than promised, or planes shorter than their size and stride say.
    pub fn scale(&mut self, src: &Planes<'_>, dst: &mut PlanesMut<'_>) {
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

/// One source plane whose length was checked: `height - 1` strides and one width are there.
struct Plane<'a> {
    data: &'a [u8],
    stride: usize,
    width: usize,
    height: usize,
}

impl<'a> Plane<'a> {
    fn new(data: &'a [u8], stride: usize, (width, height): (usize, usize)) -> Plane<'a> {
        check(data.len(), stride, (width, height));
        Plane { data, stride, width, height }
    }

    fn row(&self, y: usize) -> &'a [u8] {
        &self.data[y * self.stride..][..self.width]
    }
}

fn check(len: usize, stride: usize, (width, height): (usize, usize)) {
    assert!(stride >= width, "a stride of {stride} holds a row of {width}");
    assert!(len >= stride * (height - 1) + width, "{len} bytes hold {height} rows of {width}, stride {stride}");
}

fn copy(src: &Plane<'_>, dst: &mut [u8], stride: usize) {
    for (y, row) in dst.chunks_mut(stride).take(src.height).enumerate() {
        row[..src.width].copy_from_slice(src.row(y));
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

    fn scale(&mut self, src: &Plane<'_>, dst: &mut [u8], stride: usize) {
        let width = self.horizontal.outputs();
        for (y, row) in dst.chunks_mut(stride).take(self.vertical.outputs()).enumerate() {
            let row = &mut row[..width];
            #[cfg(target_arch = "x86_64")]
            if let Some(tables) = &self.avx2 {
                tables.vertical(&self.vertical, src, y, &mut self.between);
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
/// A vector form reads whole vectors: up to this many values past a row.
const BETWEEN_SPARE: usize = 16;

#[cfg(test)]
mod tests;

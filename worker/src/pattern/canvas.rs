//! Drawing on 4:2:0 planes: copies, fills, coverage blended with one colour. Everything is clipped to the picture.

use crate::scale::PlanesMut;

/// BT.709, limited range, 8 bit.
#[derive(Clone, Copy)]
pub(super) struct Colour {
    pub(super) y: f32,
    pub(super) u: f32,
    pub(super) v: f32,
}

impl Colour {
    /// From gamma-encoded R'G'B', 0 to 1.
    pub(super) const fn rgb(r: f32, g: f32, b: f32) -> Colour {
        let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        Colour { y: 16.0 + 219.0 * y, u: 128.0 + 224.0 * (b - y) / 1.8556, v: 128.0 + 224.0 * (r - y) / 1.5748 }
    }
}

/// A whole picture, row by row.
pub(super) fn copy(from: &[Vec<u8>; 3], out: &mut PlanesMut<'_>) {
    let (width, chroma) = (out.width, out.width.div_ceil(2));
    let rows = |from: &[u8], to: &mut [u8], stride: usize, width: usize| {
        for (from, to) in from.chunks_exact(width).zip(to.chunks_mut(stride)) {
            to[..width].copy_from_slice(from);
        }
    };
    rows(&from[0], out.y, out.stride_y, width);
    rows(&from[1], out.u, out.stride_u, chroma);
    rows(&from[2], out.v, out.stride_v, chroma);
}

/// Luma only: where the picture below is grey.
pub(super) fn fill_luma(out: &mut PlanesMut<'_>, left: usize, top: usize, right: usize, bottom: usize, luma: u8) {
    let (right, bottom) = (right.min(out.width), bottom.min(out.height));
    if left < right {
        for y in top..bottom {
            out.y[y * out.stride_y..][left..right].fill(luma);
        }
    }
}

/// Blends `colour` over the box of half sizes `half_w`, `half_h` (and a sample) around (x, y); `coverage` takes a sample's offset
/// from (x, y) in luma samples and is clamped to 0..1.
pub(super) fn cover(
    out: &mut PlanesMut<'_>,
    x: f32,
    y: f32,
    half_w: f32,
    half_h: f32,
    colour: Colour,
    coverage: impl Fn(f32, f32) -> f32,
) {
    let range = |centre: f32, half: f32, step: f32, limit: usize| {
        let low = ((centre - half - 1.0) / step).floor().max(0.0) as usize;
        let high = ((centre + half + 1.0) / step).ceil().max(0.0) as usize;
        low..high.min(limit)
    };
    for row in range(y, half_h, 1.0, out.height) {
        let line = &mut out.y[row * out.stride_y..][..out.width];
        for column in range(x, half_w, 1.0, out.width) {
            mix(&mut line[column], colour.y, coverage(column as f32 + 0.5 - x, row as f32 + 0.5 - y));
        }
    }
    let (width, height) = (out.width.div_ceil(2), out.height.div_ceil(2));
    for row in range(y, half_h, 2.0, height) {
        let us = &mut out.u[row * out.stride_u..][..width];
        let vs = &mut out.v[row * out.stride_v..][..width];
        for column in range(x, half_w, 2.0, width) {
            let alpha = coverage(column as f32 * 2.0 + 0.5 - x, row as f32 * 2.0 + 1.0 - y);
            mix(&mut us[column], colour.u, alpha);
            mix(&mut vs[column], colour.v, alpha);
        }
    }
}

fn mix(sample: &mut u8, colour: f32, alpha: f32) {
    let below = f32::from(*sample);
    *sample = (below + (colour - below) * alpha.clamp(0.0, 1.0) + 0.5) as u8;
}

/// Coverage of a shape that is drawn often, at luma and at chroma resolution, 0 to 255.
pub(super) struct Mask {
    width: usize,
    luma: Vec<u8>,
    chroma: Vec<u8>,
}

impl Mask {
    /// `coverage` is asked at positions in luma samples from the mask's corner and clamped to 0..1.
    pub(super) fn new(width: usize, height: usize, coverage: impl Fn(f32, f32) -> f32) -> Mask {
        let (width, height) = (width.next_multiple_of(2), height.next_multiple_of(2));
        let at = |x: f32, y: f32| (coverage(x, y).clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
        let luma: Vec<u8> =
            (0..width * height).map(|n| at((n % width) as f32 + 0.5, (n / width) as f32 + 0.5)).collect();
        let chroma = (0..width * height / 4)
            .map(|n| {
                let (x, y) = (n % (width / 2) * 2, n / (width / 2) * 2);
                let four = [0, 1, width, width + 1].map(|d| u32::from(luma[y * width + x + d]));
                u8::try_from((four.iter().sum::<u32>() + 2) / 4).expect("a mean of bytes")
            })
            .collect();
        Mask { width, luma, chroma }
    }

    /// With its corner at (x, y), rounded down to even.
    pub(super) fn draw(&self, out: &mut PlanesMut<'_>, x: usize, y: usize, colour: Colour) {
        let (luma, chroma) = (|n: usize| u32::from(self.luma[n]), |n: usize| u32::from(self.chroma[n]));
        stamp(out, (self.width, self.luma.len()), (x / 2, y / 2), colour, luma, chroma);
    }
}

/// A disc lit behind a turning edge, brightest at the edge and dark a full turn behind it.
pub(super) struct Sweep {
    /// Side of the box around the disc.
    side: usize,
    luma: Vec<Lit>,
    chroma: Vec<Lit>,
    /// Light by angle behind the edge.
    trail: Vec<u16>,
}

/// One sample of the disc: clockwise angle from twelve o'clock, and coverage.
struct Lit {
    angle: u16,
    cover: u8,
}

impl Sweep {
    pub(super) fn new(radius: f32) -> Sweep {
        let side = ((radius * 2.0 + 2.0) as usize).next_multiple_of(2);
        let centre = side as f32 / 2.0;
        let lit = |x: f32, y: f32| {
            let (dx, dy) = (x - centre, y - centre);
            let turn = dx.atan2(-dy) / std::f32::consts::TAU;
            let angle = (turn.rem_euclid(1.0) * f32::from(ANGLES)) as u16 % ANGLES;
            Lit { angle, cover: ((radius - dx.hypot(dy) + 0.5).clamp(0.0, 1.0) * 255.0) as u8 }
        };
        let grid = |step: usize, middle: f32| {
            let count = side / step;
            (0..count * count)
                .map(|n| lit((n % count * step) as f32 + middle, (n / count * step) as f32 + middle))
                .collect()
        };
        let trail = (0..ANGLES)
            .map(|n| {
                let behind = f32::from(n) / f32::from(ANGLES);
                let hand = (1.0 - behind / 0.012).max(0.0) * 0.5;
                // The last thousandth of a turn softens the edge's front.
                let front = ((behind - 0.999) / 0.001).max(0.0) * 0.9;
                let light = 0.7 * (1.0 - behind / 0.75).max(0.0).powi(2);
                ((light + hand).max(front).min(1.0) * 256.0) as u16
            })
            .collect();
        Sweep { side, luma: grid(1, 0.5), chroma: grid(2, 1.0), trail }
    }

    /// Around (x, y), rounded to even, with the edge `turn` of a full turn past twelve o'clock.
    pub(super) fn draw(&self, out: &mut PlanesMut<'_>, x: f32, y: f32, turn: f32, colour: Colour) {
        let edge = (turn * f32::from(ANGLES)) as u16 % ANGLES;
        let light = |lit: &Lit| {
            let behind = (edge + ANGLES - lit.angle) % ANGLES;
            (u32::from(self.trail[usize::from(behind)]) * u32::from(lit.cover)) >> 8
        };
        let corner = |centre: f32| ((centre - self.side as f32 / 2.0) / 2.0).round().max(0.0) as usize;
        let (luma, chroma) = (|n: usize| light(&self.luma[n]), |n: usize| light(&self.chroma[n]));
        stamp(out, (self.side, self.luma.len()), (corner(x), corner(y)), colour, luma, chroma);
    }
}

/// Blends a shape of `len` luma samples in rows of `width` over the picture, its corner at chroma sample (x, y). The
/// alphas, 0 to 255, are asked by index.
fn stamp(
    out: &mut PlanesMut<'_>,
    (width, len): (usize, usize),
    (x, y): (usize, usize),
    colour: Colour,
    luma: impl Fn(usize) -> u32,
    chroma: impl Fn(usize) -> u32,
) {
    let half = (out.width.div_ceil(2), out.height.div_ceil(2));
    let mut plane = Target { samples: &mut *out.y, stride: out.stride_y, size: (out.width, out.height) };
    plane.blend((width, len), (2 * x, 2 * y), colour.y, luma);
    let mut plane = Target { samples: &mut *out.u, stride: out.stride_u, size: half };
    plane.blend((width / 2, len / 4), (x, y), colour.u, &chroma);
    let mut plane = Target { samples: &mut *out.v, stride: out.stride_v, size: half };
    plane.blend((width / 2, len / 4), (x, y), colour.v, &chroma);
}

struct Target<'a> {
    samples: &'a mut [u8],
    stride: usize,
    size: (usize, usize),
}

impl Target<'_> {
    fn blend(
        &mut self,
        (width, len): (usize, usize),
        (x, y): (usize, usize),
        colour: f32,
        alpha: impl Fn(usize) -> u32,
    ) {
        let colour = (colour + 0.5) as u32;
        let columns = width.min(self.size.0.saturating_sub(x));
        let rows = (len / width).min(self.size.1.saturating_sub(y));
        if columns == 0 {
            return;
        }
        for row in 0..rows {
            let line = &mut self.samples[(y + row) * self.stride + x..][..columns];
            for (n, sample) in (row * width..).zip(line) {
                let alpha = alpha(n);
                if alpha > 0 {
                    let alpha = alpha + (alpha >> 7);
                    let mixed = (u32::from(*sample) * (256 - alpha) + colour * alpha + 128) >> 8;
                    *sample = mixed.to_le_bytes()[0];
                }
            }
        }
    }
}

const ANGLES: u16 = 4096;

//! JPEG of a 4:2:0 picture, without a detour over RGB.

use bytes::Bytes;
use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType, SamplingFactor};

use super::Look;
use crate::scale::Planes;

const QUALITY: u8 = 75;

/// `None` for pictures without samples, or above 65,535 rows or columns.
pub fn jpeg(picture: &Planes<'_>, tones: &Tones) -> Option<Bytes> {
    let side = |n: usize| u16::try_from(n).ok().filter(|n| *n > 0);
    let rows = Rows { width: side(picture.width)?, height: side(picture.height)?, picture, tones };
    let mut out = Vec::with_capacity(32 << 10);
    let mut encoder = Encoder::new(&mut out, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode_image(rows).ok()?;
    Some(Bytes::from(out))
}

/// The way from a video's samples to JFIF's, which are of BT.601's matrix and full range. Fixed point, 16 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tones {
    floor: u8,
    /// Of (Y, Cb, Cr) in the video, each less its zero, for Y, Cb and Cr in the JPEG.
    luma: [i32; 3],
    blue: [i32; 2],
    red: [i32; 2],
}

impl Tones {
    pub fn of(look: Look) -> Tones {
        // Shares of red and blue in luma [H.273 8.3].
        let (kr, kb) = match look.colour.matrix {
            5 | 6 => BT601,
            9 | 10 => (0.2627, 0.0593),
            1 => BT709,
            4 => (0.30, 0.11),
            7 => (0.212, 0.087),
            _ if look.source_height >= 720 => BT709,
            _ => BT601,
        };
        let kg = 1.0 - kr - kb;
        let (cr_red, cb_blue) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb));
        let (cr_green, cb_green) = (-cr_red * kr / kg, -cb_blue * kb / kg);
        let (jr, jb) = BT601;
        let jg = 1.0 - jr - jb;
        // What colour differences add to luma in the other matrix.
        let (cb_luma, cr_luma) = (jb * cb_blue + jg * cb_green, jr * cr_red + jg * cr_green);
        let (blue, red) = (2.0 * (1.0 - jb), 2.0 * (1.0 - jr));
        let (y, c) = if look.colour.full_range { (1.0, 1.0) } else { (255.0 / 219.0, 255.0 / 224.0) };
        let fixed = |x: f64| (x * f64::from(1 << SHIFT)).round() as i32;
        Tones {
            floor: if look.colour.full_range { 0 } else { 16 },
            luma: [fixed(y), fixed(c * cb_luma), fixed(c * cr_luma)],
            blue: [fixed(c * (cb_blue - cb_luma) / blue), fixed(-c * cr_luma / blue)],
            red: [fixed(-c * cb_luma / red), fixed(c * (cr_red - cr_luma) / red)],
        }
    }

    /// Black, as the video writes it.
    pub fn black(&self) -> (u8, u8, u8) {
        (self.floor, 128, 128)
    }

    fn row(&self, luma: &[u8], u: &[u8], v: &[u8], buffers: &mut [Vec<u8>; 4]) {
        let [out_y, out_u, out_v, _] = buffers;
        let (at, pairs) = (out_y.len(), luma.len() & !1);
        // Room first, then slices of known length: the compiler makes vectors of that, and none of pushes.
        for out in [&mut *out_y, &mut *out_u, &mut *out_v] {
            out.resize(at + luma.len(), 0);
        }
        let (out_y, out_u, out_v) = (&mut out_y[at..], &mut out_u[at..], &mut out_v[at..]);
        let luma_pairs = luma[..pairs].chunks_exact(2).zip(out_y.chunks_exact_mut(2));
        let colour_pairs = out_u.chunks_exact_mut(2).zip(out_v.chunks_exact_mut(2));
        for (((y, out_y), (out_u, out_v)), (u, v)) in luma_pairs.zip(colour_pairs).zip(u.iter().zip(v)) {
            let (cb, cr) = (i32::from(*u) - 128, i32::from(*v) - 128);
            let (blue, red) = (self.blue(cb, cr), self.red(cb, cr));
            out_y[0] = self.luma(y[0], cb, cr);
            out_y[1] = self.luma(y[1], cb, cr);
            (out_u[0], out_u[1]) = (blue, blue);
            (out_v[0], out_v[1]) = (red, red);
        }
        if let ([.., y], true, Some(u), Some(v)) = (luma, pairs < luma.len(), u.last(), v.last()) {
            let (cb, cr) = (i32::from(*u) - 128, i32::from(*v) - 128);
            (out_y[pairs], out_u[pairs], out_v[pairs]) = (self.luma(*y, cb, cr), self.blue(cb, cr), self.red(cb, cr));
        }
    }

    fn luma(&self, y: u8, cb: i32, cr: i32) -> u8 {
        let lit = self.luma[0] * (i32::from(y) - i32::from(self.floor));
        clamp((lit + self.luma[1] * cb + self.luma[2] * cr + HALF) >> SHIFT)
    }

    fn blue(&self, cb: i32, cr: i32) -> u8 {
        clamp(((self.blue[0] * cb + self.blue[1] * cr + HALF) >> SHIFT) + 128)
    }

    fn red(&self, cb: i32, cr: i32) -> u8 {
        clamp(((self.red[0] * cb + self.red[1] * cr + HALF) >> SHIFT) + 128)
    }
}

const SHIFT: i32 = 16;
const HALF: i32 = 1 << (SHIFT - 1);
const BT601: (f64, f64) = (0.299, 0.114);
const BT709: (f64, f64) = (0.2126, 0.0722);

struct Rows<'a> {
    width: u16,
    height: u16,
    picture: &'a Planes<'a>,
    tones: &'a Tones,
}

impl ImageBuffer for Rows<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let (p, row, width) = (self.picture, usize::from(y), usize::from(self.width));
        let luma = &p.y[row * p.stride_y..][..width];
        let u = &p.u[row / 2 * p.stride_u..][..width.div_ceil(2)];
        let v = &p.v[row / 2 * p.stride_v..][..width.div_ceil(2)];
        self.tones.row(luma, u, v, buffers);
    }
}

fn clamp(value: i32) -> u8 {
    // Fits after the clamp; a conversion that could fail would keep the compiler from making vectors.
    value.clamp(0, 255) as u8
}

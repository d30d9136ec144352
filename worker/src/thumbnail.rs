//! JPEG of a 4:2:0 picture, without a detour over RGB.

use bytes::Bytes;
use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType, SamplingFactor};

use crate::scale::Planes;

const QUALITY: u8 = 75;

/// # Errors
/// A sentence; only for pictures above 65,535 rows or columns.
pub fn jpeg(picture: &Planes<'_>) -> Result<Bytes, String> {
    let side = |n: usize| u16::try_from(n).map_err(|_| format!("a JPEG has at most 65535 rows and columns, not {n}"));
    let rows = Rows { width: side(picture.width)?, height: side(picture.height)?, picture };
    let mut out = Vec::with_capacity(32 << 10);
    let mut encoder = Encoder::new(&mut out, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode_image(rows).map_err(|e| format!("JPEG: {e}"))?;
    Ok(Bytes::from(out))
}

struct Rows<'a> {
    width: u16,
    height: u16,
    picture: &'a Planes<'a>,
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

    /// JPEG is full range, video narrow: 16..235 and 16..240 are stretched.
    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let (p, row, width) = (self.picture, usize::from(y), usize::from(self.width));
        let luma = &p.y[row * p.stride_y..][..width];
        let u = &p.u[row / 2 * p.stride_u..][..width.div_ceil(2)];
        let v = &p.v[row / 2 * p.stride_v..][..width.div_ceil(2)];
        buffers[0].extend(luma.iter().map(|s| stretch_luma(*s)));
        for (plane, samples) in [(1, u), (2, v)] {
            let doubled = samples.iter().flat_map(|s| [stretch_chroma(*s); 2]);
            buffers[plane].extend(doubled.take(width));
        }
    }
}

fn stretch_luma(sample: u8) -> u8 {
    clamp((i32::from(sample) - 16) * 255 / 219)
}

fn stretch_chroma(sample: u8) -> u8 {
    clamp((i32::from(sample) - 128) * 255 / 224 + 128)
}

fn clamp(value: i32) -> u8 {
    u8::try_from(value.clamp(0, 255)).expect("clamped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_odd_size_becomes_a_jpeg() {
        let (w, h) = (33, 17);
        let y = vec![235u8; w * h];
        let c = vec![128u8; w.div_ceil(2) * h.div_ceil(2)];
        let planes = Planes { y: &y, u: &c, v: &c, stride_y: w, stride_u: 17, stride_v: 17, width: w, height: h };
        let jpeg = jpeg(&planes).unwrap();
        assert!(jpeg.starts_with(&[0xff, 0xd8, 0xff]) && jpeg.ends_with(&[0xff, 0xd9]));
    }
}

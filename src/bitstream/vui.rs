//! What the video usability information of H.264 and H.265 has in common [AVC E.1.1], [HEVC E.2.1].

use super::bits::Bits;
use crate::media::grid::FrameRate;
use crate::media::track::Colour;

/// [AVC table E-1], index 1 on.
const ASPECTS: [(u32, u32); 16] = [
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];

/// How a picture is to be shown: all up to the chroma sample location. What was read before the end of a cut one counts.
pub(super) fn read_look(r: &mut Bits<'_>, sar: &mut (u32, u32), colour: &mut Colour) -> Option<()> {
    if r.flag()? {
        *sar = read_aspect(r)?;
    }
    if r.flag()? {
        r.flag()?; // overscan_appropriate_flag
    }
    if r.flag()? {
        r.u(3)?; // video_format
        colour.full_range = r.flag()?;
        if r.flag()? {
            colour.primaries = r.u8(8)?;
            colour.transfer = r.u8(8)?;
            colour.matrix = r.u8(8)?;
        }
    }
    if r.flag()? {
        r.ue()?; // chroma sample location, top and bottom field
        r.ue()?;
    }
    Some(())
}

/// aspect_ratio_idc and what follows it; (1, 1) for what is unspecified.
fn read_aspect(r: &mut Bits<'_>) -> Option<(u32, u32)> {
    let sar = match r.u(8)? {
        255 => (r.u(16)?, r.u(16)?),
        index => *ASPECTS.get((index as usize).wrapping_sub(1)).unwrap_or(&(1, 1)),
    };
    Some(if sar.0 == 0 || sar.1 == 0 { (1, 1) } else { sar })
}

/// `num` / `den` frames per second in lowest terms; rates outside 1 to 300 frames/s are an encoder's mistake.
pub(super) fn frame_rate(num: u32, den: u32) -> Option<FrameRate> {
    let (mut a, mut b) = (num, den);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    if num == 0 || den == 0 {
        return None;
    }
    let rate = FrameRate::new(num / a, den / a);
    (1.0..=300.0).contains(&rate.hz()).then_some(rate)
}

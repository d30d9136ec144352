//! Two rows of 34 blocks at the foot of the picture, each a twelfth of its height: the frame counter in the lowest,
//! the wall clock in hundredths of a second above it. Block 0 is white and block 1 black, for reference; then 24 bits
//! of value and 8 of CRC (polynomial x^8 + x^2 + x + 1, initial value 0, over the value's three bytes, big-endian),
//! most significant first, white = 1. Block i spans x = width * i / 34 to width * (i + 1) / 34.

use rung::time::Wall;

use super::canvas;
use crate::scale::{Planes, PlanesMut};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strip {
    /// The frame's number modulo 2^24.
    Frame,
    /// Unix time in 1/100 s modulo 2^24 (46.6 hours).
    Time,
}

impl Strip {
    /// First row and the row after the last.
    fn rows(self, height: usize) -> (usize, usize) {
        match self {
            Strip::Frame => (height * 11 / 12, height),
            Strip::Time => (height * 10 / 12, height * 11 / 12),
        }
    }
}

pub(super) fn hundredths(wall: Wall) -> u32 {
    u32::try_from(wall.0.div_euclid(10_000_000).rem_euclid(1 << 24)).expect("24 bits")
}

/// Writes the low 24 bits of `value`.
pub(super) fn write(out: &mut PlanesMut<'_>, strip: Strip, value: u32) {
    let value = value & 0xFF_FFFF;
    let bits = value << 8 | u32::from(crc8(value));
    let (top, bottom) = strip.rows(out.height);
    for block in 0..BLOCKS {
        let white = match block {
            0 => true,
            1 => false,
            _ => bits >> (BLOCKS - 1 - block) & 1 == 1,
        };
        let (left, right) = (out.width * block / BLOCKS, out.width * (block + 1) / BLOCKS);
        canvas::fill_luma(out, left, top, right, bottom, if white { WHITE } else { BLACK });
    }
}

/// The value of a strip of a picture of any size, after whatever it went through; `None` where it is not one.
pub fn read_strip(picture: &Planes<'_>, strip: Strip) -> Option<u32> {
    let (top, bottom) = strip.rows(picture.height);
    // The middle half of a block, both ways: its edges bled into the neighbours.
    let rows = top + (bottom - top) / 4..bottom - (bottom - top) / 4;
    let level = |block: usize| -> Option<u32> {
        let (left, right) = (picture.width * block / BLOCKS, picture.width * (block + 1) / BLOCKS);
        let columns = left + (right - left) / 4..right - (right - left) / 4;
        let (mut sum, mut count) = (0, 0);
        for y in rows.clone() {
            for sample in picture.y.get(y * picture.stride_y..)?.get(columns.clone())? {
                sum += u32::from(*sample);
                count += 1;
            }
        }
        (sum * 16).checked_div(count)
    };
    let (white, black) = (level(0)?, level(1)?);
    if white < black + 16 * CONTRAST_MIN {
        return None;
    }
    let mut bits = 0;
    for block in 2..BLOCKS {
        bits = bits << 1 | u32::from(level(block)? * 2 > white + black);
    }
    let value = bits >> 8;
    (u32::from(crc8(value)) == bits & 0xFF).then_some(value)
}

/// Of the three low bytes, most significant first.
fn crc8(value: u32) -> u8 {
    let mut crc = 0;
    for byte in &value.to_be_bytes()[1..] {
        crc ^= byte;
        for _ in 0..8 {
            crc = if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x07 };
        }
    }
    crc
}

/// Luma of white and black, limited range.
pub(super) const WHITE: u8 = 235;
pub(super) const BLACK: u8 = 16;
const BLOCKS: usize = 34;
/// White and black references that differ by less are no strip.
const CONTRAST_MIN: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_the_catalogued_crc_8_smbus() {
        // Check values of the standard polynomial: one byte 1 gives 7; "123" gives 0xC0.
        assert_eq!(crc8(1), 0x07);
        assert_eq!(crc8(0x31_32_33), 0xC0);
    }
}

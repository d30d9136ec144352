//! Supplemental enhancement information: the one message that Rung needs [AVC 7.3.2.3, D.2.8].

use crate::bitstream::bits::Bits;

/// recovery_frame_cnt of a recovery point message, if the SEI NAL unit (with its header byte) holds one: from here on
/// decoding gives right pictures after so many frames.
pub fn recovery_point(unit: &[u8]) -> Option<u16> {
    let mut bits = Bits::new(unit.get(1..)?);
    loop {
        let kind = read_size(&mut bits)?;
        let bytes = read_size(&mut bits)?;
        if kind == 6 {
            return u16::try_from(bits.ue()?).ok();
        }
        bits.skip(bytes.checked_mul(8)?)?;
        if is_trailing(&bits) {
            return None;
        }
    }
}

/// What is left is rbsp_trailing_bits: 0x80 and nothing behind it.
pub(in crate::bitstream) fn is_trailing(bits: &Bits<'_>) -> bool {
    let mut rest = bits.clone();
    rest.u(8) == Some(0x80) && rest.u(8).is_none()
}

/// Payload type or size: ff_byte x n + last byte.
pub(in crate::bitstream) fn read_size(bits: &mut Bits<'_>) -> Option<u32> {
    let mut size = 0u32;
    loop {
        let byte = bits.u(8)?;
        size = size.checked_add(byte)?;
        if byte != 255 {
            return Some(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_point_is_found_behind_other_messages() {
        // user data of 3 bytes, then recovery_frame_cnt = 4 (00101), exact_match 1, broken_link 0, slice groups 00.
        let unit = [6, 5, 3, 1, 2, 3, 6, 2, 0b0010_1100, 0b0100_0000, 0x80];
        assert_eq!(recovery_point(&unit), Some(4));
        assert_eq!(recovery_point(&unit[..6]), None);
        assert_eq!(recovery_point(&[6, 255, 255, 255]), None);
    }
}

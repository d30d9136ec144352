//! H.264: NAL unit types, parameter sets, slice headers, and the forms that other rooms need.

pub mod pps;
pub mod sei;
pub mod sets;
pub mod slice;
pub mod sps;

pub use pps::Pps;
pub use sets::ParameterSets;
pub use slice::{Slice, Structure};
pub use sps::Sps;

use bytes::{BufMut, Bytes, BytesMut};

use super::annexb::nal_units;

/// nal_unit_type [AVC 7.4.1 table 7-1].
pub mod nal {
    pub const SLICE: u8 = 1;
    pub const PARTITION_A: u8 = 2;
    pub const IDR: u8 = 5;
    pub const SEI: u8 = 6;
    pub const SPS: u8 = 7;
    pub const PPS: u8 = 8;
    pub const AUD: u8 = 9;
    pub const END_OF_SEQUENCE: u8 = 10;
    pub const END_OF_STREAM: u8 = 11;
    pub const FILLER: u8 = 12;
    pub const SPS_EXTENSION: u8 = 13;
    pub const PREFIX: u8 = 14;
    pub const SUBSET_SPS: u8 = 15;
    pub const AUXILIARY_SLICE: u8 = 19;
}

/// nal_unit_type of a NAL unit without start code; 0 (unspecified) of an empty one.
pub fn nal_type(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |byte| byte & 31)
}

/// Whether a track in MP4 `avc1` form leaves this NAL unit out: parameter sets live in `avcC`, delimiters and filler
/// nowhere [ISO/IEC 14496-15 5.3.2].
pub fn stays_out_of_samples(nal_type: u8) -> bool {
    matches!(nal_type, nal::SPS | nal::PPS | nal::AUD | nal::FILLER | nal::SPS_EXTENSION | nal::SUBSET_SPS)
}

/// An access unit in Annex B as MP4 wants it: 4-byte lengths, without AUD, SPS, PPS and filler. One copy.
pub fn to_length_prefixed(annexb: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(annexb.len() + 16);
    for unit in nal_units(annexb).filter(|unit| !stays_out_of_samples(nal_type(unit))) {
        out.put_u32(u32::try_from(unit.len()).expect("an access unit is bounded by ACCESS_UNIT_BYTES_MAX"));
        out.extend_from_slice(unit);
    }
    out.freeze()
}

/// AVCDecoderConfigurationRecord with 4-byte lengths [ISO/IEC 14496-15 5.3.3.1]; sets are NAL units without start
/// codes. `None`: the SPS does not parse, or a set is longer than 65,535 bytes.
pub fn decoder_configuration(sps: &[u8], pps: &[Bytes]) -> Option<Bytes> {
    let facts = Sps::parse(sps).ok()?;
    let pps = &pps[..pps.len().min(255)];
    let mut out = BytesMut::with_capacity(32 + sps.len());
    out.put_u8(1);
    out.extend_from_slice(&facts.profile);
    out.put_u8(0xFC | 3);
    out.put_u8(0xE0 | 1);
    out.put_u16(u16::try_from(sps.len()).ok()?);
    out.extend_from_slice(sps);
    out.put_u8(u8::try_from(pps.len()).ok()?);
    for set in pps {
        out.put_u16(u16::try_from(set.len()).ok()?);
        out.extend_from_slice(set);
    }
    if sps::has_chroma_info(facts.profile[0]) {
        out.put_u8(0xFC | facts.chroma_format);
        out.put_u8(0xF8 | (facts.bit_depth - 8));
        out.put_u8(0xF8 | (facts.bit_depth_chroma - 8));
        out.put_u8(0);
    }
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaling_list_may_say_what_it_likes() {
        // High profile, 4:2:0, a scaling list whose first delta_scale is 2^31 - 1.
        let sps = [0x67, 100, 0, 40, 0xAD, 0x80, 0, 0, 3, 0, 0xFF, 0xFF, 0xFF, 0xFE, 0x80, 0xFF, 0xFF, 0xFF, 0xFF];
        // All that counts is that it is answered.
        assert!(Sps::parse(&sps).is_err());
    }

    #[test]
    fn samples_hold_neither_parameter_sets_nor_delimiters_nor_filler() {
        let stream = [
            &[0, 0, 0, 1, 9, 0xF0][..],
            &[0, 0, 0, 1, 0x67, 1],
            &[0, 0, 1, 0x68, 2],
            &[0, 0, 1, 6, 5, 1],
            &[0, 0, 1, 0x65, 7, 8],
            &[0, 0, 1, 12, 0xFF],
        ]
        .concat();
        assert_eq!(&to_length_prefixed(&stream)[..], &[0, 0, 0, 3, 6, 5, 1, 0, 0, 0, 3, 0x65, 7, 8]);
    }
}

//! Picture parameter sets, as far as slice segment headers need them [HEVC 7.3.2.3.1].

use super::HEADER_BYTES;
use crate::bitstream::bits::Bits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pps {
    pub id: u8,
    pub sps_id: u8,
    pub dependent_slices: bool,
    /// Slice headers carry pic_output_flag.
    pub output_flag_present: bool,
    /// num_extra_slice_header_bits.
    pub extra_bits: u32,
}

impl Pps {
    /// From a NAL unit with its header.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(unit: &[u8]) -> Result<Pps, &'static str> {
        let bytes = unit.get(HEADER_BYTES..).unwrap_or_default();
        parse(&mut Bits::new(bytes)).ok_or("the PPS ends early or a value is out of range")
    }
}

fn parse(r: &mut Bits<'_>) -> Option<Pps> {
    Some(Pps {
        id: u8::try_from(r.ue_max(63)?).ok()?,
        sps_id: u8::try_from(r.ue_max(15)?).ok()?,
        dependent_slices: r.flag()?,
        output_flag_present: r.flag()?,
        extra_bits: r.u(3)?,
    })
}

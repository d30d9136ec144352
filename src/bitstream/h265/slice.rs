//! Slice segment headers up to what tells one picture from the next [HEVC 7.3.6.1].

use super::sets::ParameterSets;
use super::{HEADER_BYTES, header, is_idr, is_irap};
use crate::bitstream::bits::Bits;

/// Bytes of a NAL unit that hold every field read here, emulation prevention included.
pub const HEAD_BYTES: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub nal_type: u8,
    /// nuh_temporal_id_plus1 - 1.
    pub temporal_id: u8,
    /// first_slice_segment_in_pic_flag.
    pub first: bool,
    pub pps_id: u8,
    /// slice_pic_order_cnt_lsb, 0 of an IDR picture. `None`: a dependent slice segment, or its parameter sets are not
    /// known.
    pub order: Option<u32>,
}

impl Slice {
    /// From the start of a NAL unit of a slice segment, with its header; `HEAD_BYTES` are enough.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(unit: &[u8], sets: &ParameterSets) -> Result<Slice, &'static str> {
        parse(unit, sets).ok_or("a slice header that ends early")
    }

    /// Whether `next`, the following slice segment, belongs to another picture [HEVC 7.4.2.4.5]: all of a picture have one
    /// type; behind a loss the first one may be missing.
    pub fn differs(&self, next: &Slice) -> bool {
        let other_order = matches!((self.order, next.order), (Some(a), Some(b)) if a != b);
        next.first || self.nal_type != next.nal_type || other_order
    }

    /// It can be referred to by pictures of its own sub-layer: their order counts go by it.
    pub fn anchors_order(&self) -> bool {
        // [HEVC 8.3.1]: temporal id 0, no leading picture, no sub-layer non-reference picture.
        self.temporal_id == 0 && !(6..=9).contains(&self.nal_type) && (self.nal_type > 14 || self.nal_type % 2 == 1)
    }
}

fn parse(unit: &[u8], sets: &ParameterSets) -> Option<Slice> {
    let (nal_type, _) = header(unit)?;
    let temporal_id = (unit[1] & 7).saturating_sub(1);
    let mut r = Bits::new(&unit[HEADER_BYTES..]);
    let first = r.flag()?;
    if is_irap(nal_type) {
        r.flag()?; // no_output_of_prior_pics_flag
    }
    let pps_id = u8::try_from(r.ue_max(63)?).ok()?;
    let mut slice = Slice { nal_type, temporal_id, first, pps_id, order: None };
    let Some((sps, pps)) = sets.of(pps_id) else { return Some(slice) };
    if !first {
        let dependent = pps.dependent_slices && r.flag()?;
        r.skip(sps.address_bits)?;
        if dependent {
            return Some(slice);
        }
    }
    r.skip(pps.extra_bits)?;
    r.ue_max(2)?; // slice_type
    if pps.output_flag_present {
        r.flag()?;
    }
    if sps.separate_colour_planes {
        r.u(2)?;
    }
    slice.order = Some(if is_idr(nal_type) { 0 } else { r.u(sps.order_bits)? });
    Some(slice)
}

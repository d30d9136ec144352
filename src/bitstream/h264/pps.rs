//! Picture parameter sets, as far as slice headers need them [AVC 7.3.2.2].

use crate::bitstream::bits::Bits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pps {
    pub id: u8,
    pub sps_id: u8,
    /// Frame slices carry delta_pic_order_cnt_bottom.
    pub bottom_order_present: bool,
    pub redundant_pictures_present: bool,
}

impl Pps {
    /// From a NAL unit with its header byte.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(unit: &[u8]) -> Result<Pps, &'static str> {
        let bytes = unit.get(1..).unwrap_or_default();
        parse(&mut Bits::new(bytes)).ok_or("the PPS ends early or a value is out of range")
    }
}

fn parse(r: &mut Bits<'_>) -> Option<Pps> {
    let id = u8::try_from(r.ue_max(255)?).ok()?;
    let sps_id = u8::try_from(r.ue_max(31)?).ok()?;
    r.flag()?; // entropy_coding_mode_flag
    let bottom_order_present = r.flag()?;
    let groups = r.ue_max(7)? + 1;
    if groups > 1 {
        skip_slice_groups(r, groups)?;
    }
    r.ue_max(31)?; // num_ref_idx_l0, l1
    r.ue_max(31)?;
    r.u(3)?; // weighted prediction
    for _ in 0..3 {
        r.se()?; // QP, QS, chroma offset
    }
    r.u(2)?; // deblocking control, constrained intra
    let redundant_pictures_present = r.flag()?;
    Some(Pps { id, sps_id, bottom_order_present, redundant_pictures_present })
}

/// Flexible macroblock ordering: `groups` > 1.
fn skip_slice_groups(r: &mut Bits<'_>, groups: u32) -> Option<()> {
    match r.ue_max(6)? {
        0 => (0..groups).try_for_each(|_| r.ue().map(|_| ())),
        1 => Some(()),
        2 => (0..2 * (groups - 1)).try_for_each(|_| r.ue().map(|_| ())),
        3..=5 => {
            r.flag()?;
            r.ue().map(|_| ())
        }
        _ => {
            let units = r.ue_max(1 << 21)? + 1;
            let bits = u32::BITS - (groups - 1).leading_zeros();
            r.skip(units.checked_mul(bits)?)
        }
    }
}

//! Video parameter sets: their id, and the timing that an SPS may leave to them [HEVC 7.3.2.1].

use super::{HEADER_BYTES, profile};
use crate::bitstream::bits::Bits;
use crate::bitstream::vui;
use crate::media::grid::FrameRate;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vps {
    pub id: u8,
    pub rate: Option<FrameRate>,
}

impl Vps {
    /// From a NAL unit with its header.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(unit: &[u8]) -> Result<Vps, &'static str> {
        let bytes = unit.get(HEADER_BYTES..).unwrap_or_default();
        parse(&mut Bits::new(bytes)).ok_or("the VPS ends early or a value is out of range")
    }
}

fn parse(r: &mut Bits<'_>) -> Option<Vps> {
    let id = r.u8(4)?;
    r.skip(2 + 6)?; // base layer flags, vps_max_layers_minus1
    let sub_layers_max = r.u(3)? + 1;
    if sub_layers_max > 7 {
        return None;
    }
    r.skip(1 + 16)?; // temporal nesting, reserved
    profile::read(r, sub_layers_max)?;
    profile::read_ordering(r, sub_layers_max)?;
    let layer_id_max = r.u(6)?;
    for _ in 0..r.ue_max(1_023)? {
        r.skip(layer_id_max + 1)?;
    }
    let rate = if r.flag()? {
        let (units, scale) = (r.u(32)?, r.u(32)?);
        vui::frame_rate(scale, units)
    } else {
        None
    };
    Some(Vps { id, rate })
}

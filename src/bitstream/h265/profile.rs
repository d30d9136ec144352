//! Profile, tier and level [HEVC 7.3.3].

use crate::bitstream::bits::Bits;

/// The general part of profile_tier_level().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// general_profile_space.
    pub space: u8,
    /// general_profile_idc.
    pub idc: u8,
    /// general_tier_flag: the high tier.
    pub high_tier: bool,
    /// general_profile_compatibility_flag, 0 to 31, the first in the highest bit.
    pub compatibility: u32,
    /// The 48 bits from general_progressive_source_flag to the one before general_level_idc, as bytes.
    pub constraints: [u8; 6],
    /// general_level_idc: 30 times the level.
    pub level: u8,
}

/// profile_tier_level(1, `sub_layers_max` - 1).
pub(super) fn read(r: &mut Bits<'_>, sub_layers_max: u32) -> Option<Profile> {
    let space = r.u8(2)?;
    let high_tier = r.flag()?;
    let idc = r.u8(5)?;
    let compatibility = r.u(32)?;
    let mut constraints = [0; 6];
    for byte in &mut constraints {
        *byte = r.u8(8)?;
    }
    let level = r.u8(8)?;
    let mut present = Vec::with_capacity(8);
    for _ in 1..sub_layers_max {
        present.push((r.flag()?, r.flag()?));
    }
    if sub_layers_max > 1 {
        r.skip(2 * (9 - sub_layers_max))?;
    }
    for (profile, level) in present {
        r.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    Some(Profile { space, idc, high_tier, compatibility, constraints, level })
}

/// The reorder depth of the highest sub-layer: sps_max_num_reorder_pics or vps_max_num_reorder_pics.
pub(super) fn read_ordering(r: &mut Bits<'_>, sub_layers_max: u32) -> Option<u8> {
    let each = r.flag()?;
    let mut reorder = 0;
    for _ in 0..if each { sub_layers_max } else { 1 } {
        r.ue_max(255)?; // max_dec_pic_buffering_minus1
        reorder = r.ue_max(16)?;
        r.ue()?; // max_latency_increase_plus1
    }
    u8::try_from(reorder).ok()
}

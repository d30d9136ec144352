//! Sequence parameter sets [HEVC 7.3.2.2.1, E.2.1].

use super::HEADER_BYTES;
use super::profile::{self, Profile};
use crate::bitstream::bits::Bits;
use crate::bitstream::vui;
use crate::media::grid::FrameRate;
use crate::media::track::Colour;

/// What Rung needs of an SPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sps {
    pub id: u8,
    pub vps_id: u8,
    /// sps_max_sub_layers_minus1 + 1.
    pub sub_layers: u8,
    /// sps_temporal_id_nesting_flag.
    pub nested: bool,
    pub profile: Profile,
    pub chroma_format: u8,
    pub separate_colour_planes: bool,
    pub bit_depth: u8,
    pub bit_depth_chroma: u8,
    /// Inside the conformance window.
    pub width: u32,
    pub height: u32,
    /// Bits of slice_pic_order_cnt_lsb.
    pub order_bits: u32,
    /// Bits of slice_segment_address.
    pub address_bits: u32,
    /// sps_max_num_reorder_pics of the highest sub-layer.
    pub reorder: u8,
    pub sar: (u32, u32),
    /// Pictures per second; with `fields` these are fields.
    pub rate: Option<FrameRate>,
    pub colour: Colour,
    /// field_seq_flag: every picture is a field.
    pub fields: bool,
}

/// Largest coded width or height taken, luma samples (level 6.2: sqrt(8 x 35,651,584)).
const SIDE_MAX: u32 = 16_888;

impl Sps {
    /// From a NAL unit with its header.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(unit: &[u8]) -> Result<Sps, &'static str> {
        let bytes = unit.get(HEADER_BYTES..).unwrap_or_default();
        parse(&mut Bits::new(bytes)).ok_or("the SPS ends early or a value is out of range")
    }
}

fn parse(r: &mut Bits<'_>) -> Option<Sps> {
    let vps_id = r.u8(4)?;
    let sub_layers_max = r.u(3)? + 1;
    if sub_layers_max > 7 {
        return None;
    }
    let nested = r.flag()?;
    let profile = profile::read(r, sub_layers_max)?;
    let id = u8::try_from(r.ue_max(15)?).ok()?;
    let chroma_format = u8::try_from(r.ue_max(3)?).ok()?;
    let separate_colour_planes = chroma_format == 3 && r.flag()?;
    let coded = (side(r)?, side(r)?);
    let format = if separate_colour_planes { 0 } else { chroma_format };
    let (width, height) = read_window(r, format, coded)?;
    let bit_depth = u8::try_from(r.ue_max(8)?).ok()? + 8;
    let bit_depth_chroma = u8::try_from(r.ue_max(8)?).ok()? + 8;
    let order_bits = r.ue_max(12)? + 4;
    let reorder = profile::read_ordering(r, sub_layers_max)?;
    let address_bits = read_blocks(r, coded)?;
    let mut sps = Sps {
        id,
        vps_id,
        sub_layers: u8::try_from(sub_layers_max).ok()?,
        nested,
        profile,
        chroma_format,
        separate_colour_planes,
        bit_depth,
        bit_depth_chroma,
        width,
        height,
        order_bits,
        address_bits,
        reorder,
        sar: (1, 1),
        rate: None,
        colour: Colour::default(),
        fields: false,
    };
    skip_tools(r, order_bits)?;
    if r.flag()? {
        // What a VUI that ends early has said so far still holds: decoders ignore the rest too.
        read_vui(r, &mut sps);
    }
    Some(sps)
}

fn side(r: &mut Bits<'_>) -> Option<u32> {
    r.ue_max(SIDE_MAX).filter(|side| *side > 0)
}

/// Width and height inside the conformance window [HEVC 7.4.3.2.1].
fn read_window(r: &mut Bits<'_>, chroma_format: u8, (width, height): (u32, u32)) -> Option<(u32, u32)> {
    if !r.flag()? {
        return Some((width, height));
    }
    let [left, right, top, bottom] = [r.ue()?, r.ue()?, r.ue()?, r.ue()?];
    let (unit_x, unit_y) = match chroma_format {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let cut = |size: u32, before: u32, after: u32, unit: u32| {
        size.checked_sub(before.checked_add(after)?.checked_mul(unit)?).filter(|rest| *rest > 0)
    };
    Some((cut(width, left, right, unit_x)?, cut(height, top, bottom, unit_y)?))
}

/// Block sizes; gives the bits of a slice segment's address [HEVC 7.4.7.1].
fn read_blocks(r: &mut Bits<'_>, (width, height): (u32, u32)) -> Option<u32> {
    let smallest = r.ue_max(3)? + 3;
    let tree = smallest + r.ue_max(3)?;
    r.ue_max(3)?; // transform blocks: smallest, range
    r.ue_max(3)?;
    r.ue_max(4)?; // transform hierarchy depth: inter, intra
    r.ue_max(4)?;
    let blocks = width.div_ceil(1 << tree) * height.div_ceil(1 << tree);
    Some(u32::BITS - (blocks - 1).leading_zeros())
}

/// From scaling lists to what precedes the VUI.
fn skip_tools(r: &mut Bits<'_>, order_bits: u32) -> Option<()> {
    if r.flag()? && r.flag()? {
        skip_scaling_lists(r)?;
    }
    r.u(2)?; // asymmetric partitions, sample adaptive offset
    if r.flag()? {
        r.u(8)?; // PCM bit depths, block sizes, loop filter
        r.ue_max(3)?;
        r.ue_max(3)?;
        r.flag()?;
    }
    let mut deltas = 0;
    for index in 0..r.ue_max(64)? {
        deltas = skip_reference_set(r, index, deltas)?;
    }
    if r.flag()? {
        for _ in 0..r.ue_max(32)? {
            r.skip(order_bits + 1)?;
        }
    }
    r.u(2)?; // temporal motion vectors, strong intra smoothing
    Some(())
}

/// [HEVC 7.3.4]
fn skip_scaling_lists(r: &mut Bits<'_>) -> Option<()> {
    for size in 0..4u32 {
        for _ in (0..6).step_by(if size == 3 { 3 } else { 1 }) {
            if !r.flag()? {
                r.ue_max(5)?; // scaling_list_pred_matrix_id_delta
                continue;
            }
            let coefficients = if size > 1 { 65 } else { 16 << (2 * size) };
            for _ in 0..coefficients {
                r.se()?;
            }
        }
    }
    Some(())
}

/// Short-term reference picture set number `index` [HEVC 7.3.7]; `before`: pictures in the one before it. Gives its own
/// number of pictures.
fn skip_reference_set(r: &mut Bits<'_>, index: u32, before: u32) -> Option<u32> {
    if index > 0 && r.flag()? {
        r.flag()?; // delta_rps_sign
        r.ue_max(0x7FFF)?; // abs_delta_rps_minus1
        let mut deltas = 0;
        for _ in 0..=before {
            let used = r.flag()?;
            deltas += u32::from(used || r.flag()?);
        }
        return Some(deltas);
    }
    let deltas = r.ue_max(16)? + r.ue_max(16)?;
    for _ in 0..deltas {
        r.ue_max(0x7FFF)?; // delta_poc_s0_minus1, used_by_curr_pic_s0_flag; or those of s1
        r.flag()?;
    }
    Some(deltas)
}

fn read_vui(r: &mut Bits<'_>, sps: &mut Sps) -> Option<()> {
    vui::read_look(r, &mut sps.sar, &mut sps.colour)?;
    r.flag()?; // neutral_chroma_indication_flag
    sps.fields = r.flag()?;
    r.flag()?; // frame_field_info_present_flag
    if r.flag()? {
        for _ in ["left", "right", "top", "bottom"] {
            r.ue()?; // default display window: a hint that decoders need not follow
        }
    }
    if r.flag()? {
        let (units, scale) = (r.u(32)?, r.u(32)?);
        sps.rate = vui::frame_rate(scale, units);
    }
    Some(())
}

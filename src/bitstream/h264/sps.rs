//! Sequence parameter sets [AVC 7.3.2.1.1, E.1.1].

use crate::bitstream::bits::Bits;
use crate::bitstream::vui;
use crate::media::grid::FrameRate;
use crate::media::track::Colour;

/// What Rung needs of an SPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sps {
    pub id: u8,
    /// profile_idc, constraint flags, level_idc.
    pub profile: [u8; 3],
    pub chroma_format: u8,
    pub separate_colour_planes: bool,
    pub bit_depth: u8,
    pub bit_depth_chroma: u8,
    pub log2_max_frame_num: u32,
    pub order: PictureOrder,
    /// frame_mbs_only_flag: no field pictures, no MBAFF.
    pub frames_only: bool,
    /// Map units of a picture; for the slice groups of a PPS.
    pub map_units: u32,
    /// After cropping.
    pub width: u32,
    pub height: u32,
    pub sar: (u32, u32),
    pub rate: Option<FrameRate>,
    pub colour: Colour,
    pub reorder: Option<u8>,
}

/// pic_order_cnt_type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureOrder {
    /// 0: pic_order_cnt_lsb of this many bits.
    Lsb { bits: u32 },
    /// 1: a cycle; slices carry deltas unless they are always zero.
    Cycle { deltas_always_zero: bool },
    /// 2: output order is decoding order.
    Decoding,
}

/// Largest coded width or height taken, macroblocks (level 6.2: sqrt(8 x 139264)).
const MBS_MAX: u32 = 1_055;

impl Sps {
    /// From a NAL unit with its header byte.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(unit: &[u8]) -> Result<Sps, &'static str> {
        let bytes = unit.get(1..).unwrap_or_default();
        parse(&mut Bits::new(bytes)).ok_or("the SPS ends early or a value is out of range")
    }
}

/// Profiles whose SPS carries chroma format and bit depth.
pub fn has_chroma_info(profile_idc: u8) -> bool {
    matches!(profile_idc, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135)
}

fn parse(r: &mut Bits<'_>) -> Option<Sps> {
    let profile = [r.u8(8)?, r.u8(8)?, r.u8(8)?];
    let id = u8::try_from(r.ue_max(31)?).ok()?;
    let mut format = Format { chroma: 1, planes: false, depth: 8, depth_chroma: 8 };
    if has_chroma_info(profile[0]) {
        format = read_format(r)?;
    }
    let log2_max_frame_num = r.ue_max(12)? + 4;
    let order = read_order(r)?;
    r.ue_max(16)?; // max_num_ref_frames
    r.flag()?; // gaps_in_frame_num_value_allowed_flag
    let width_mbs = r.ue_max(MBS_MAX - 1)? + 1;
    let map_rows = r.ue_max(MBS_MAX - 1)? + 1;
    let frames_only = r.flag()?;
    if !frames_only {
        r.flag()?; // mb_adaptive_frame_field_flag
    }
    r.flag()?; // direct_8x8_inference_flag
    let row_factor = if frames_only { 1 } else { 2 };
    let (width, height) = read_crop(r, &format, width_mbs * 16, map_rows * 16 * row_factor, row_factor)?;
    let mut sps = Sps {
        id,
        profile,
        chroma_format: format.chroma,
        separate_colour_planes: format.planes,
        bit_depth: format.depth,
        bit_depth_chroma: format.depth_chroma,
        log2_max_frame_num,
        order,
        frames_only,
        map_units: width_mbs * map_rows,
        width,
        height,
        sar: (1, 1),
        rate: None,
        colour: Colour::default(),
        reorder: None,
    };
    if r.flag()? {
        // What a VUI that ends early has said so far still holds: decoders ignore the rest too.
        read_vui(r, &mut sps);
    }
    Some(sps)
}

struct Format {
    chroma: u8,
    planes: bool,
    depth: u8,
    depth_chroma: u8,
}

fn read_format(r: &mut Bits<'_>) -> Option<Format> {
    let chroma = u8::try_from(r.ue_max(3)?).ok()?;
    let planes = chroma == 3 && r.flag()?;
    let depth = u8::try_from(r.ue_max(6)?).ok()? + 8;
    let depth_chroma = u8::try_from(r.ue_max(6)?).ok()? + 8;
    r.flag()?; // qpprime_y_zero_transform_bypass_flag
    if r.flag()? {
        for list in 0..if chroma == 3 { 12 } else { 8 } {
            if r.flag()? {
                skip_scaling_list(r, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Some(Format { chroma, planes, depth, depth_chroma })
}

/// [AVC 7.3.2.1.1.1]
fn skip_scaling_list(r: &mut Bits<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8i32, 8i32);
    for _ in 0..size {
        if next != 0 {
            // delta_scale is -128 to 127; of more than that the low bits count.
            next = last.wrapping_add(r.se()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

fn read_order(r: &mut Bits<'_>) -> Option<PictureOrder> {
    match r.ue_max(2)? {
        0 => Some(PictureOrder::Lsb { bits: r.ue_max(12)? + 4 }),
        1 => {
            let deltas_always_zero = r.flag()?;
            r.se()?;
            r.se()?;
            for _ in 0..r.ue_max(255)? {
                r.se()?;
            }
            Some(PictureOrder::Cycle { deltas_always_zero })
        }
        _ => Some(PictureOrder::Decoding),
    }
}

/// Width and height after cropping [AVC 7.4.2.1.1].
fn read_crop(r: &mut Bits<'_>, format: &Format, width: u32, height: u32, row_factor: u32) -> Option<(u32, u32)> {
    if !r.flag()? {
        return Some((width, height));
    }
    let [left, right, top, bottom] = [r.ue()?, r.ue()?, r.ue()?, r.ue()?];
    let (sub_x, sub_y) = match (format.planes, format.chroma) {
        (false, 1) => (2, 2),
        (false, 2) => (2, 1),
        _ => (1, 1),
    };
    let cut = |size: u32, before: u32, after: u32, unit: u32| {
        size.checked_sub(before.checked_add(after)?.checked_mul(unit)?).filter(|rest| *rest > 0)
    };
    Some((cut(width, left, right, sub_x)?, cut(height, top, bottom, sub_y * row_factor)?))
}

fn read_vui(r: &mut Bits<'_>, sps: &mut Sps) -> Option<()> {
    vui::read_look(r, &mut sps.sar, &mut sps.colour)?;
    if r.flag()? {
        let (units, scale) = (r.u(32)?, r.u(32)?);
        sps.rate = frame_rate(units, scale);
        r.flag()?; // fixed_frame_rate_flag
    }
    let mut hrd = false;
    for _ in ["NAL", "VCL"] {
        if r.flag()? {
            skip_hrd(r)?;
            hrd = true;
        }
    }
    if hrd {
        r.flag()?; // low_delay_hrd_flag
    }
    r.flag()?; // pic_struct_present_flag
    if r.flag()? {
        r.flag()?; // motion_vectors_over_pic_boundaries_flag
        for _ in 0..4 {
            r.ue()?;
        }
        sps.reorder = u8::try_from(r.ue_max(16)?).ok();
    }
    Some(())
}

/// A tick is half a frame whatever the scan [AVC E.2.1].
fn frame_rate(units_in_tick: u32, time_scale: u32) -> Option<FrameRate> {
    vui::frame_rate(time_scale, units_in_tick.checked_mul(2)?)
}

/// [AVC E.1.2]
fn skip_hrd(r: &mut Bits<'_>) -> Option<()> {
    let count = r.ue_max(31)? + 1;
    r.u(8)?;
    for _ in 0..count {
        r.ue()?;
        r.ue()?;
        r.flag()?;
    }
    r.u(20).map(|_| ())
}

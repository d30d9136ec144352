//! HEVC parameter sets [HEVC 7.3.2, E.2.1].

use super::syntax::{Sequence, aspect, rate, sample_aspect};
use crate::abi::{self, Format};
use crate::bits::Bits;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sps {
    pub(crate) id: u32,
    chroma_format: u32,
    pub(crate) separate_planes: bool,
    pub(crate) coded: [u32; 2],
    /// Left, right, top, bottom, in chroma samples.
    window: [u32; 4],
    pub(crate) depth_minus8: [u8; 2],
    pub(crate) log2_poc_lsb: u32,
    /// Of the highest sub-layer: pictures held, pictures that wait for their turn.
    buffering: u32,
    reorder: u32,
    vui: Vui,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Vui {
    sar: (u32, u32),
    signal: Option<(u32, bool)>,
    colour: Option<[u32; 3]>,
    /// num_units_in_tick, time_scale.
    timing: Option<(u32, u32)>,
}

impl Sps {
    pub(crate) fn read(payload: &[u8]) -> Option<Sps> {
        let mut bits = Bits::of_nal(payload, payload.len());
        let bits = &mut bits;
        bits.u(4)?;
        let layers = bits.u(3)?;
        bits.flag()?;
        profile_tier_level(bits, layers)?;
        let mut sps = Sps { id: bits.ue_to(15)?, chroma_format: bits.ue_to(3)?, ..Sps::default() };
        sps.separate_planes = sps.chroma_format == 3 && bits.flag()?;
        sps.coded = [bits.ue_to(16384)?, bits.ue_to(16384)?];
        if bits.flag()? {
            for side in &mut sps.window {
                *side = bits.ue_to(16384)?;
            }
        }
        sps.depth_minus8 = [bits.ue_to(8)? as u8, bits.ue_to(8)? as u8];
        sps.log2_poc_lsb = bits.ue_to(12)? + 4;
        let all_layers = bits.flag()?;
        for _ in if all_layers { 0 } else { layers }..=layers {
            sps.buffering = bits.ue_to(15)? + 1;
            sps.reorder = bits.ue_to(15)?;
            bits.ue()?;
        }
        // A damaged or unusual rest does not make the pictures undecodable.
        sps.vui = sps.read_rest(bits).unwrap_or_default();
        let [left, top, right, bottom] = sps.display_area();
        (left < right && top < bottom).then_some(sps)
    }

    /// From the coding block sizes to the description of the signal.
    fn read_rest(&self, bits: &mut Bits) -> Option<Vui> {
        for _ in 0..6 {
            bits.ue()?;
        }
        if bits.flag()? && bits.flag()? {
            scaling_lists(bits)?;
        }
        bits.u(2)?;
        if bits.flag()? {
            bits.u(8)?;
            bits.ue()?;
            bits.ue()?;
            bits.flag()?;
        }
        let mut sets = Vec::new();
        for at in 0..bits.ue_to(64)? {
            let set = reference_set(bits, at > 0, sets.last().copied().unwrap_or(0))?;
            sets.push(set);
        }
        if bits.flag()? {
            for _ in 0..bits.ue_to(32)? {
                bits.u(self.log2_poc_lsb + 1)?;
            }
        }
        bits.u(2)?;
        if bits.flag()? { Vui::read(bits) } else { None }
    }

    fn display_area(&self) -> [i32; 4] {
        let [width, height] = self.coded.map(abi::int);
        let [left, right, top, bottom] = self.window.map(abi::int);
        let across = if matches!(self.chroma_format, 1 | 2) { 2 } else { 1 };
        let down = if self.chroma_format == 1 { 2 } else { 1 };
        [left * across, top * down, width - right * across, height - bottom * down]
    }

    pub(crate) fn sequence(&self) -> Sequence {
        let display_area = self.display_area();
        let [left, top, right, bottom] = display_area;
        let (video_format, full_range) = self.vui.signal.unwrap_or((5, false));
        let colour = self.vui.colour.unwrap_or([2; 3]);
        let timing = self.vui.timing;
        let format = Format {
            codec: abi::HEVC,
            frame_rate: timing.map_or([0, 0], |(units, scale)| rate(u64::from(scale), u64::from(units))),
            progressive_sequence: 1,
            bit_depth_luma_minus8: self.depth_minus8[0],
            bit_depth_chroma_minus8: self.depth_minus8[1],
            min_num_decode_surfaces: self.buffering as u8 + 1,
            coded_width: self.coded[0],
            coded_height: self.coded[1],
            display_area,
            chroma_format: self.chroma_format,
            bitrate: 0,
            display_aspect_ratio: aspect(self.vui.sar, left.abs_diff(right), top.abs_diff(bottom)),
            signal: video_format as u8 & 7 | u8::from(full_range) << 3,
            color_primaries: colour[0] as u8,
            transfer_characteristics: colour[1] as u8,
            matrix_coefficients: colour[2] as u8,
            seqhdr_data_length: 0,
        };
        Sequence { format, reorder: self.reorder.min(self.buffering) as usize, references: self.buffering as usize - 1 }
    }
}

impl Vui {
    /// As far as the frame rate.
    fn read(bits: &mut Bits) -> Option<Vui> {
        let mut vui = Vui::default();
        if bits.flag()? {
            let idc = bits.u(8)?;
            vui.sar = if idc == 255 { (bits.u(16)?, bits.u(16)?) } else { sample_aspect(idc) };
        }
        if bits.flag()? {
            bits.flag()?;
        }
        if bits.flag()? {
            vui.signal = Some((bits.u(3)?, bits.flag()?));
            if bits.flag()? {
                vui.colour = Some([bits.u(8)?, bits.u(8)?, bits.u(8)?]);
            }
        }
        if bits.flag()? {
            bits.ue()?;
            bits.ue()?;
        }
        bits.u(3)?;
        if bits.flag()? {
            for _ in 0..4 {
                bits.ue()?;
            }
        }
        if bits.flag()? {
            vui.timing = Some((bits.u(32)?, bits.u(32)?));
        }
        Some(vui)
    }
}

fn profile_tier_level(bits: &mut Bits, layers: u32) -> Option<()> {
    bits.skip(88 + 8)?;
    let mut present = Vec::new();
    for _ in 0..layers {
        present.push((bits.flag()?, bits.flag()?));
    }
    if layers > 0 {
        bits.skip(2 * (8 - layers as usize))?;
    }
    for (profile, level) in present {
        bits.skip(88 * usize::from(profile) + 8 * usize::from(level))?;
    }
    Some(())
}

/// [HEVC 7.3.4]: read over.
fn scaling_lists(bits: &mut Bits) -> Option<()> {
    for size in 0..4u32 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !bits.flag()? {
                bits.ue()?;
                continue;
            }
            if size > 1 {
                bits.se()?;
            }
            for _ in 0..64.min(1 << (4 + 2 * size)) {
                bits.se()?;
            }
        }
    }
    Some(())
}

/// [HEVC 7.3.7]: read over. How many pictures the set holds; `before`: those of the set before it.
fn reference_set(bits: &mut Bits, may_predict: bool, before: u32) -> Option<u32> {
    if may_predict && bits.flag()? {
        bits.flag()?;
        bits.ue()?;
        let mut count = 0;
        for _ in 0..=before {
            if bits.flag()? || bits.flag()? {
                count += 1;
            }
        }
        return Some(count);
    }
    let count = bits.ue_to(16)? + bits.ue_to(16)?;
    for _ in 0..count {
        bits.ue()?;
        bits.flag()?;
    }
    Some(count)
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pps {
    pub(crate) id: u32,
    pub(crate) sps: u32,
    pub(crate) output_flag: bool,
    pub(crate) extra_bits: u32,
}

impl Pps {
    pub(crate) fn read(payload: &[u8]) -> Option<Pps> {
        let mut bits = Bits::of_nal(payload, 16);
        let (id, sps) = (bits.ue_to(63)?, bits.ue_to(15)?);
        bits.flag()?;
        Some(Pps { id, sps, output_flag: bits.flag()?, extra_bits: bits.u(3)? })
    }
}

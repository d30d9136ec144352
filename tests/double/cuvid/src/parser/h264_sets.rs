//! H.264 parameter sets [AVC 7.3.2.1, 7.3.2.2, E.1.1].

use super::syntax::{Sequence, aspect, rate, sample_aspect};
use crate::abi::{self, Format};
use crate::bits::Bits;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sps {
    pub(crate) id: u32,
    profile: u32,
    constraints: u32,
    level: u32,
    pub(crate) chroma_format: u32,
    pub(crate) separate_planes: bool,
    pub(crate) depth_minus8: [u8; 2],
    pub(crate) log2_frame_num: u32,
    pub(crate) poc_type: u32,
    pub(crate) log2_poc_lsb: u32,
    pub(crate) delta_always_zero: bool,
    pub(crate) offset_non_ref: i64,
    pub(crate) offset_top_to_bottom: i64,
    pub(crate) offsets: Vec<i64>,
    pub(crate) references: u32,
    width_mbs: u32,
    map_units: u32,
    pub(crate) frame_mbs_only: bool,
    pub(crate) mbaff: bool,
    pub(crate) direct_8x8: bool,
    /// Left, right, top, bottom, in crop units.
    crop: [u32; 4],
    vui: Vui,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Vui {
    sar: (u32, u32),
    /// video_format, full range.
    signal: Option<(u32, bool)>,
    colour: Option<[u32; 3]>,
    /// num_units_in_tick, time_scale.
    timing: Option<(u32, u32)>,
    hrd: Option<Hrd>,
    bitrate: u64,
    pic_struct: bool,
    /// max_num_reorder_frames, max_dec_frame_buffering.
    restriction: Option<(u32, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hrd {
    bitrate: u64,
    removal_bits: u32,
    output_bits: u32,
}

impl Sps {
    pub(crate) fn read(payload: &[u8]) -> Option<Sps> {
        let mut bits = Bits::of_nal(payload, payload.len());
        let bits = &mut bits;
        let mut sps = Sps { chroma_format: 1, ..Sps::default() };
        sps.profile = bits.u(8)?;
        sps.constraints = bits.u(8)?;
        sps.level = bits.u(8)?;
        sps.id = bits.ue_to(31)?;
        if matches!(sps.profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
            sps.read_high(bits)?;
        }
        sps.log2_frame_num = bits.ue_to(12)? + 4;
        sps.poc_type = bits.ue_to(2)?;
        if sps.poc_type == 0 {
            sps.log2_poc_lsb = bits.ue_to(12)? + 4;
        } else if sps.poc_type == 1 {
            sps.delta_always_zero = bits.flag()?;
            sps.offset_non_ref = i64::from(bits.se()?);
            sps.offset_top_to_bottom = i64::from(bits.se()?);
            for _ in 0..bits.ue_to(255)? {
                sps.offsets.push(i64::from(bits.se()?));
            }
        }
        sps.references = bits.ue_to(16)?;
        bits.flag()?;
        sps.width_mbs = bits.ue_to(1023)? + 1;
        sps.map_units = bits.ue_to(1023)? + 1;
        sps.frame_mbs_only = bits.flag()?;
        sps.mbaff = !sps.frame_mbs_only && bits.flag()?;
        sps.direct_8x8 = bits.flag()?;
        if bits.flag()? {
            for side in &mut sps.crop {
                *side = bits.ue_to(16384)?;
            }
        }
        if bits.flag()? {
            // A damaged description does not make the pictures undecodable.
            sps.vui = Vui::read(bits).unwrap_or_default();
        }
        let [left, top, right, bottom] = sps.display_area();
        (left < right && top < bottom).then_some(sps)
    }

    fn read_high(&mut self, bits: &mut Bits) -> Option<()> {
        self.chroma_format = bits.ue_to(3)?;
        self.separate_planes = self.chroma_format == 3 && bits.flag()?;
        self.depth_minus8 = [bits.ue_to(6)? as u8, bits.ue_to(6)? as u8];
        bits.flag()?;
        if bits.flag()? {
            let lists = if self.chroma_format == 3 { 12 } else { 8 };
            for list in 0..lists {
                if bits.flag()? {
                    scaling_list(bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
        Some(())
    }

    pub(crate) fn coded(&self) -> (u32, u32) {
        (self.width_mbs * 16, self.map_units * 16 * (2 - u32::from(self.frame_mbs_only)))
    }

    fn display_area(&self) -> [i32; 4] {
        let (width, height) = self.coded();
        let [left, right, top, bottom] = self.crop.map(abi::int);
        let across = if matches!(self.chroma_format, 1 | 2) { 2 } else { 1 };
        let down = if self.chroma_format == 1 { 2 } else { 1 } * (2 - i32::from(self.frame_mbs_only));
        [left * across, top * down, abi::int(width) - right * across, abi::int(height) - bottom * down]
    }

    /// What the sequence callback is given, and how many pictures wait for their turn.
    pub(crate) fn sequence(&self) -> Sequence {
        let (coded_width, coded_height) = self.coded();
        let display_area = self.display_area();
        let [left, top, right, bottom] = display_area;
        let vui = &self.vui;
        let (video_format, full_range) = vui.signal.unwrap_or((5, false));
        let colour = vui.colour.unwrap_or([2; 3]);
        let held = self.buffering().max(self.references).min(16);
        let format = Format {
            codec: abi::H264,
            frame_rate: vui.timing.map_or([0, 0], |(units, scale)| rate(u64::from(scale), 2 * u64::from(units))),
            progressive_sequence: u8::from(self.frame_mbs_only),
            bit_depth_luma_minus8: self.depth_minus8[0],
            bit_depth_chroma_minus8: self.depth_minus8[1],
            min_num_decode_surfaces: held as u8 + 1,
            coded_width,
            coded_height,
            display_area,
            chroma_format: self.chroma_format,
            bitrate: u32::try_from(vui.bitrate).unwrap_or(0),
            display_aspect_ratio: aspect(vui.sar, left.abs_diff(right), top.abs_diff(bottom)),
            signal: video_format as u8 & 7 | u8::from(full_range) << 3,
            color_primaries: colour[0] as u8,
            transfer_characteristics: colour[1] as u8,
            matrix_coefficients: colour[2] as u8,
            seqhdr_data_length: 0,
        };
        Sequence { format, reorder: self.reorder().min(held) as usize, references: self.references as usize }
    }

    /// How many pictures may precede one in decoding that follow it in display. Where the stream does not say, all that
    /// the level lets a decoder keep.
    fn reorder(&self) -> u32 {
        match self.vui.restriction {
            Some((reorder, _)) => reorder.min(16),
            None if self.poc_type == 2 => 0,
            None => self.buffering(),
        }
    }

    fn buffering(&self) -> u32 {
        let intra_only = self.constraints & 0x10 != 0 && matches!(self.profile, 44 | 86 | 100 | 110 | 122 | 244);
        match self.vui.restriction {
            Some((_, buffering)) => buffering.min(16),
            None if intra_only => 0,
            None => self.level_frames(),
        }
    }

    /// [AVC Table A-1] MaxDpbMbs, in frames of this size.
    fn level_frames(&self) -> u32 {
        let mbs = match self.level {
            0..=10 => 396,
            11 if self.constraints & 0x10 != 0 && self.profile <= 88 => 396,
            11 => 900,
            12 | 13 | 20 => 2376,
            21 => 4752,
            22 | 30 => 8100,
            31 => 18000,
            32 => 20480,
            40 | 41 => 32768,
            42 => 34816,
            50 => 110_400,
            51 | 52 => 184_320,
            _ => 696_320,
        };
        let (width, height) = self.coded();
        (mbs / (width / 16 * (height / 16)).max(1)).clamp(1, 16)
    }

    /// pic_struct of a picture timing message [AVC D.1.3].
    pub(crate) fn pic_struct(&self, payload: &[u8]) -> Option<u32> {
        if !self.vui.pic_struct {
            return None;
        }
        let mut bits = Bits::plain(payload);
        if let Some(hrd) = &self.vui.hrd {
            bits.skip((hrd.removal_bits + hrd.output_bits) as usize)?;
        }
        bits.u(4)
    }
}

impl Vui {
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
        if bits.flag()? {
            vui.timing = Some((bits.u(32)?, bits.u(32)?));
            bits.flag()?;
        }
        let nal = if bits.flag()? { Some(Hrd::read(bits)?) } else { None };
        let vcl = if bits.flag()? { Some(Hrd::read(bits)?) } else { None };
        vui.bitrate = nal.as_ref().map_or(0, |hrd| hrd.bitrate);
        vui.hrd = nal.or(vcl);
        if vui.hrd.is_some() {
            bits.flag()?;
        }
        vui.pic_struct = bits.flag()?;
        if bits.flag()? {
            bits.flag()?;
            for _ in 0..4 {
                bits.ue()?;
            }
            vui.restriction = Some((bits.ue()?, bits.ue()?));
        }
        Some(vui)
    }
}

impl Hrd {
    fn read(bits: &mut Bits) -> Option<Hrd> {
        let count = bits.ue_to(31)? + 1;
        let scale = bits.u(4)?;
        bits.u(4)?;
        let mut bitrate = 0;
        for at in 0..count {
            let value = u64::from(bits.ue()?) + 1;
            if at == 0 {
                bitrate = value << (6 + scale);
            }
            bits.ue()?;
            bits.flag()?;
        }
        bits.u(5)?;
        let removal_bits = bits.u(5)? + 1;
        let output_bits = bits.u(5)? + 1;
        bits.u(5)?;
        Some(Hrd { bitrate, removal_bits, output_bits })
    }
}

/// [AVC 7.3.2.1.1.1]: read over.
fn scaling_list(bits: &mut Bits, size: usize) -> Option<()> {
    let (mut last, mut next) = (8, 8);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.se()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pps {
    pub(crate) id: u32,
    pub(crate) sps: u32,
    pub(crate) cabac: bool,
    pub(crate) pic_order_present: bool,
    /// num_ref_idx_active of list 0 and 1.
    pub(crate) references: [u32; 2],
    pub(crate) weighted: bool,
    pub(crate) weighted_bipred: u32,
    pub(crate) redundant_pictures: bool,
}

impl Pps {
    /// `None` also for slice groups: no NVIDIA chip decodes them.
    pub(crate) fn read(payload: &[u8]) -> Option<Pps> {
        let mut bits = Bits::of_nal(payload, payload.len());
        let mut pps = Pps { id: bits.ue_to(255)?, sps: bits.ue_to(31)?, ..Pps::default() };
        pps.cabac = bits.flag()?;
        pps.pic_order_present = bits.flag()?;
        bits.ue_to(0)?;
        pps.references = [bits.ue_to(31)? + 1, bits.ue_to(31)? + 1];
        pps.weighted = bits.flag()?;
        pps.weighted_bipred = bits.u(2)?;
        bits.se()?;
        bits.se()?;
        bits.se()?;
        bits.flag()?;
        bits.flag()?;
        pps.redundant_pictures = bits.flag()?;
        Some(pps)
    }
}

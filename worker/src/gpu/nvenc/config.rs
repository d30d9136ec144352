//! What a rendition asks for, as the driver's settings. Pure: the same question gives the same answer, so encoders that
//! are opened again, in whatever process, write the same parameter sets.

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;
use rung::media::grid::Cadence;
use rung::media::track::Colour;
use rung::pixels::protocol::OpenRendition;
use std::fmt;
use std::mem::offset_of;

use super::raw::{Bits, Raw};
use super::{Codec, EncodeCaps, Format};
use crate::gpu::Depth;
use crate::gpu::error::{Error, Library};

/// Everything that an encoder is set to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub format: Format,
    pub width: u32,
    pub height: u32,
    /// Display aspect; for AV1 the size that is shown.
    pub aspect: (u32, u32),
    /// Frames a second, as a fraction.
    pub rate: (u32, u32),
    /// P1 (fastest) to P6.
    pub preset: u32,
    pub tuning: Tuning,
    /// B-frames between two others, always as many.
    pub bframes: u32,
    /// Frames that the driver looks ahead.
    pub lookahead: u32,
    pub temporal_aq: bool,
    pub gop: GopEnd,
    /// Bits per second.
    pub bitrate: u32,
    /// `None`: the card takes no size, and uses its own.
    pub vbv_ms: Option<u32>,
    pub colour: Colour,
}

/// The driver's table of presets that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    LowLatency,
    HighQuality,
}

/// Where the driver would end a GOP if nobody asked for an IDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GopEnd {
    Never,
    /// After so many frames: beyond every IDR that the grid asks for.
    After(u32),
}

/// Adaptive quantisation in space, 1 to 15.
const AQ_STRENGTH: u32 = 8;
/// Where the buffer stands at the start, in tenths.
const VBV_START: u32 = 9;
/// From this preset on a first pass at quarter size is worth its time.
const TWO_PASS_FROM: u32 = 4;
/// B-frames in a row: a third one costs a surface and a frame of delay for little.
const BFRAMES: u32 = 2;
/// The driver's limit of lookahead and B-frames together.
const DEPTH_MAX: u32 = 31;

impl Settings {
    /// What `rendition` becomes on a card that can do `caps`. `bframes` 0 is the mode `ultra`: low latency, nothing held
    /// back, whatever lookahead the rendition has for x264. Otherwise as many B-frames and as much lookahead as the card
    /// can, at most two and what was asked.
    ///
    /// # Errors
    /// The codec has no such depth, or the card no such size. The code is the driver's for an unsupported parameter.
    pub fn of(
        rendition: &OpenRendition,
        format: Format,
        cadence: Cadence,
        caps: &EncodeCaps,
    ) -> Result<Settings, Error> {
        let OpenRendition { width, height, .. } = *rendition;
        refuse_size(width, height, caps)?;
        refuse_depth(format, caps)?;
        let quick = rendition.bframes == 0;
        let bframes = rendition.bframes.min(BFRAMES).min(caps.bframes_max);
        let lookahead = if quick || !caps.lookahead { 0 } else { rendition.lookahead.min(DEPTH_MAX - bframes) };
        // The header of the interface: with an infinite GOP there are no B-frames. Four grid GOPs are never reached,
        // because the grid asks for an IDR in each.
        let gop = if bframes == 0 { GopEnd::Never } else { GopEnd::After(cadence.gop * 4) };
        Ok(Settings {
            format,
            width,
            height,
            aspect: aspect(rendition, format.codec),
            rate: (cadence.rate.num, cadence.rate.den),
            preset: preset(&rendition.preset),
            tuning: if quick { Tuning::LowLatency } else { Tuning::HighQuality },
            bframes,
            lookahead,
            temporal_aq: caps.temporal_aq,
            gop,
            bitrate: u32::try_from(rendition.bitrate).unwrap_or(u32::MAX),
            vbv_ms: caps.custom_vbv.then_some(rendition.vbv_ms),
            colour: rendition.colour,
        })
    }

    /// How many frames the encoder has taken in before the first one comes out. Three more than its depth where it holds
    /// any back: NVIDIA's own sample asks for no output before, and a lock that comes too early hangs.
    pub fn held_back(&self) -> usize {
        const MARGIN: u32 = 3;
        let depth = self.lookahead + self.bframes;
        if depth == 0 { 0 } else { (depth + MARGIN) as usize }
    }

    pub(super) fn codec_guid(&self) -> sys::GUID {
        codec_guid(self.format.codec)
    }

    pub(super) fn preset_guid(&self) -> sys::GUID {
        match self.preset {
            1 => sys::NV_ENC_PRESET_P1_GUID,
            2 => sys::NV_ENC_PRESET_P2_GUID,
            3 => sys::NV_ENC_PRESET_P3_GUID,
            5 => sys::NV_ENC_PRESET_P5_GUID,
            6 => sys::NV_ENC_PRESET_P6_GUID,
            _ => sys::NV_ENC_PRESET_P4_GUID,
        }
    }

    pub(super) fn tuning(&self) -> u32 {
        match self.tuning {
            Tuning::HighQuality => 1,
            Tuning::LowLatency => 2,
        }
    }

    pub(super) fn buffer_format(&self) -> u32 {
        match self.format.depth {
            Depth::Eight => 1,
            Depth::Ten => 0x1_0000,
        }
    }

    /// Over the preset's own configuration, which the driver filled.
    pub(super) fn write_config(&self, config: &mut Raw<Preset>) {
        let gop = match self.gop {
            GopEnd::Never => sys::NVENC_INFINITE_GOPLENGTH,
            GopEnd::After(frames) => frames,
        };
        config.set_u32(config!(version), sys::NV_ENC_CONFIG_VER);
        config.set_guid(config!(profileGUID), self.profile());
        config.set_u32(config!(gopLength), gop);
        config.set_u32(config!(frameIntervalP), self.bframes + 1);
        config.set_u32(config!(frameFieldMode), 1);
        self.write_rate(config);
        match self.format.codec {
            Codec::H264 => self.write_h264(config, gop),
            Codec::Hevc => self.write_hevc(config, gop),
            Codec::Av1 => self.write_av1(config, gop),
        }
    }

    /// The whole block, also to change the rate of a running session: drivers ignore half of one.
    pub(super) fn write_rate(&self, config: &mut Raw<Preset>) {
        const CBR: u32 = 2;
        const QUARTER_FIRST_PASS: u32 = 1;
        config.set_u32(config!(rcParams.rateControlMode), CBR);
        config.set_u32(config!(rcParams.averageBitRate), self.bitrate);
        config.set_u32(config!(rcParams.maxBitRate), self.bitrate);
        let vbv = self.vbv_ms.map_or(0, |ms| u64::from(self.bitrate) * u64::from(ms) / 1_000);
        let vbv = u32::try_from(vbv).unwrap_or(u32::MAX);
        config.set_u32(config!(rcParams.vbvBufferSize), vbv);
        config.set_u32(config!(rcParams.vbvInitialDelay), (u64::from(vbv) * u64::from(VBV_START) / 10) as u32);
        let flags = config!(rcParams._bitfield_1);
        let ahead = u32::from(self.lookahead > 0);
        for (bits, value) in [
            (Bits(3, 1), 1), // enableAQ
            (Bits(5, 1), ahead),
            (Bits(6, 1), 1), // disableIadapt
            (Bits(7, 1), 1), // disableBadapt
            (Bits(8, 1), u32::from(self.temporal_aq)),
            (Bits(9, 1), u32::from(self.bframes == 0)), // zeroReorderDelay
            (Bits(10, 1), 0),                           // enableNonRefP
            (Bits(11, 1), 1),                           // strictGOPTarget
            (Bits(12, 4), AQ_STRENGTH),
        ] {
            config.set_bits(flags, bits, value);
        }
        config.set_u16(config!(rcParams.lookaheadDepth), self.lookahead as u16);
        let passes = if self.preset >= TWO_PASS_FROM { QUARTER_FIRST_PASS } else { 0 };
        config.set_u32(config!(rcParams.multiPass), passes);
    }

    fn write_h264(&self, config: &mut Raw<Preset>, gop: u32) {
        let flags = config!(encodeCodecConfig.h264Config._bitfield_1);
        for (bit, value) in [
            (4, 0),  // outputBufferingPeriodSEI: would put the rate into the SPS
            (5, 0),  // outputPictureTimingSEI
            (6, 1),  // outputAUD
            (7, 0),  // disableSPSPPS
            (12, 1), // repeatSPSPPS
            (17, 0), // enableFillerDataInsertion
        ] {
            config.set_bits(flags, Bits(bit, 1), value);
        }
        config.set_u32(config!(encodeCodecConfig.h264Config.level), 0);
        config.set_u32(config!(encodeCodecConfig.h264Config.idrPeriod), gop);
        config.set_u32(config!(encodeCodecConfig.h264Config.chromaFormatIDC), 1);
        config.set_u32(config!(encodeCodecConfig.h264Config.useBFramesAsRef), 0);
        self.write_vui(config, config!(encodeCodecConfig.h264Config.h264VUIParameters));
    }

    fn write_hevc(&self, config: &mut Raw<Preset>, gop: u32) {
        let flags = config!(encodeCodecConfig.hevcConfig._bitfield_1);
        for (bits, value) in [
            (Bits(2, 1), 0), // outputBufferingPeriodSEI
            (Bits(3, 1), 0), // outputPictureTimingSEI
            (Bits(4, 1), 1), // outputAUD
            (Bits(6, 1), 0), // disableSPSPPS
            (Bits(7, 1), 1), // repeatSPSPPS
            (Bits(9, 2), 1), // chromaFormatIDC
            (Bits(11, 3), self.format.depth.bits() - 8),
            (Bits(14, 1), 0), // enableFillerDataInsertion
        ] {
            config.set_bits(flags, bits, value);
        }
        config.set_u32(config!(encodeCodecConfig.hevcConfig.level), 0);
        config.set_u32(config!(encodeCodecConfig.hevcConfig.tier), 0);
        config.set_u32(config!(encodeCodecConfig.hevcConfig.idrPeriod), gop);
        config.set_u32(config!(encodeCodecConfig.hevcConfig.useBFramesAsRef), 0);
        self.write_vui(config, config!(encodeCodecConfig.hevcConfig.hevcVUIParameters));
    }

    fn write_av1(&self, config: &mut Raw<Preset>, gop: u32) {
        const LEVEL_AUTO: u32 = 24;
        let deep = self.format.depth.bits() - 8;
        let flags = config!(encodeCodecConfig.av1Config._bitfield_1);
        for (bits, value) in [
            (Bits(0, 1), 0), // outputAnnexBFormat
            (Bits(4, 1), 0), // disableSeqHdr
            (Bits(5, 1), 1), // repeatSeqHdr
            (Bits(7, 2), 1), // chromaFormatIDC
            (Bits(12, 3), deep),
            (Bits(15, 3), deep),
        ] {
            config.set_bits(flags, bits, value);
        }
        config.set_u32(config!(encodeCodecConfig.av1Config.level), LEVEL_AUTO);
        config.set_u32(config!(encodeCodecConfig.av1Config.tier), 0);
        config.set_u32(config!(encodeCodecConfig.av1Config.idrPeriod), gop);
        config.set_u32(config!(encodeCodecConfig.av1Config.useBFramesAsRef), 0);
        let Colour { primaries, transfer, matrix, full_range } = self.colour;
        config.set_u32(config!(encodeCodecConfig.av1Config.colorPrimaries), primaries.into());
        config.set_u32(config!(encodeCodecConfig.av1Config.transferCharacteristics), transfer.into());
        config.set_u32(config!(encodeCodecConfig.av1Config.matrixCoefficients), matrix.into());
        config.set_u32(config!(encodeCodecConfig.av1Config.colorRange), full_range.into());
    }

    /// H.264's and HEVC's are one struct.
    fn write_vui(&self, config: &mut Raw<Preset>, vui: usize) {
        const FORMAT_UNSPECIFIED: u32 = 5;
        const UNSPECIFIED: u8 = 2;
        let Colour { primaries, transfer, matrix, full_range } = self.colour;
        let described = [primaries, transfer, matrix].iter().any(|code| *code != UNSPECIFIED);
        config.set_u32(vui + offset_of!(Vui, videoSignalTypePresentFlag), 1);
        config.set_u32(vui + offset_of!(Vui, videoFormat), FORMAT_UNSPECIFIED);
        config.set_u32(vui + offset_of!(Vui, videoFullRangeFlag), full_range.into());
        config.set_u32(vui + offset_of!(Vui, colourDescriptionPresentFlag), described.into());
        config.set_u32(vui + offset_of!(Vui, colourPrimaries), primaries.into());
        config.set_u32(vui + offset_of!(Vui, transferCharacteristics), transfer.into());
        config.set_u32(vui + offset_of!(Vui, colourMatrix), matrix.into());
        // Says how many pictures are reordered: without it a player keeps back as many as the level allows.
        config.set_u32(vui + offset_of!(Vui, bitstreamRestrictionFlag), 1);
    }

    /// The session's own settings; `config` is where the configuration lies.
    pub(super) fn write_init(&self, init: &mut Raw<Init>, config: u64) {
        const SPLIT_OFF: u32 = 15;
        init.reset(sys::NV_ENC_INITIALIZE_PARAMS_VER);
        init.set_guid(offset_of!(Init, encodeGUID), self.codec_guid());
        init.set_guid(offset_of!(Init, presetGUID), self.preset_guid());
        for (at, value) in [
            (offset_of!(Init, encodeWidth), self.width),
            (offset_of!(Init, encodeHeight), self.height),
            (offset_of!(Init, darWidth), self.aspect.0),
            (offset_of!(Init, darHeight), self.aspect.1),
            (offset_of!(Init, frameRateNum), self.rate.0),
            (offset_of!(Init, frameRateDen), self.rate.1),
            // The driver decides on P and B, so that a forced IDR is allowed.
            (offset_of!(Init, enablePTD), 1),
            (offset_of!(Init, maxEncodeWidth), self.width),
            (offset_of!(Init, maxEncodeHeight), self.height),
            (offset_of!(Init, tuningInfo), self.tuning()),
        ] {
            init.set_u32(at, value);
        }
        init.set_bits(offset_of!(Init, _bitfield_1), Bits(5, 4), SPLIT_OFF);
        init.set_u64(offset_of!(Init, encodeConfig), config);
    }

    fn profile(&self) -> sys::GUID {
        match (self.format.codec, self.format.depth) {
            (Codec::H264, _) => sys::NV_ENC_H264_PROFILE_HIGH_GUID,
            (Codec::Hevc, Depth::Eight) => sys::NV_ENC_HEVC_PROFILE_MAIN_GUID,
            (Codec::Hevc, Depth::Ten) => sys::NV_ENC_HEVC_PROFILE_MAIN10_GUID,
            (Codec::Av1, _) => sys::NV_ENC_AV1_PROFILE_MAIN_GUID,
        }
    }
}

pub(super) type Preset = sys::NV_ENC_PRESET_CONFIG;
pub(super) type Init = sys::NV_ENC_INITIALIZE_PARAMS;
type Vui = sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS;

/// Where a field of the configuration lies in what a preset's query fills.
macro_rules! config {
    ($($field:tt)+) => { offset_of!(Preset, presetCfg.$($field)+) };
}
use config;

pub(super) fn codec_guid(codec: Codec) -> sys::GUID {
    match codec {
        Codec::H264 => sys::NV_ENC_CODEC_H264_GUID,
        Codec::Hevc => sys::NV_ENC_CODEC_HEVC_GUID,
        Codec::Av1 => sys::NV_ENC_CODEC_AV1_GUID,
    }
}

/// The driver's preset for a name: its own from `p1` to `p6`, or x264's, fastest first (`ultrafast` P1, `superfast` P2,
/// `veryfast` P3, `faster` P4, `fast` P5, `medium` and slower P6). P4 for every other name, also for none. P7 is never
/// fast enough for something live.
pub fn preset(name: &str) -> u32 {
    match name {
        "p1" | "ultrafast" => 1,
        "p2" | "superfast" => 2,
        "p3" | "veryfast" => 3,
        "p5" | "fast" => 5,
        "p6" | "p7" | "medium" | "slow" | "slower" | "veryslow" => 6,
        _ => 4,
    }
}

fn refuse_size(width: u32, height: u32, caps: &EncodeCaps) -> Result<(), Error> {
    let even = width.is_multiple_of(2) && height.is_multiple_of(2) && width > 0 && height > 0;
    let fits =
        (caps.width_min..=caps.width_max).contains(&width) && (caps.height_min..=caps.height_max).contains(&height);
    if even && fits {
        return Ok(());
    }
    let EncodeCaps { width_min, height_min, width_max, height_max, .. } = caps;
    let can = format!("it encodes even sizes from {width_min}x{height_min} to {width_max}x{height_max}");
    Err(unsupported(format!("{width}x{height} on this GPU")).words(can))
}

fn refuse_depth(format: Format, caps: &EncodeCaps) -> Result<(), Error> {
    if format.depth == Depth::Eight || caps.ten_bit && format.codec != Codec::H264 {
        return Ok(());
    }
    Err(unsupported(format!("{} with 10 bits on this GPU", format.codec.name())))
}

pub(super) fn unsupported(what: impl Into<String>) -> Error {
    const UNSUPPORTED_PARAM: u32 = 12;
    Error::new(Library::Encode, UNSUPPORTED_PARAM, what)
}

fn aspect(rendition: &OpenRendition, codec: Codec) -> (u32, u32) {
    let (width, height) = (u64::from(rendition.width), u64::from(rendition.height));
    let (wide, high) = match rendition.sar {
        (0, _) | (_, 0) => (1, 1),
        (wide, high) => (u64::from(wide), u64::from(high)),
    };
    if codec == Codec::Av1 {
        let shown = (width * wide / high).clamp(1, 65_536);
        return (shown as u32, rendition.height);
    }
    let (across, down) = (width * wide, height * high);
    let divisor = gcd(across, down).max(1);
    let (across, down) = (across / divisor, down / divisor);
    match (u32::try_from(across), u32::try_from(down)) {
        (Ok(across), Ok(down)) => (across, down),
        _ => (rendition.width, rendition.height),
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Format { codec, depth } = self.format;
        let tuning = match self.tuning {
            Tuning::LowLatency => "low latency",
            Tuning::HighQuality => "high quality",
        };
        write!(f, "{} {} bit {}x{}", codec.name(), depth.bits(), self.width, self.height)?;
        write!(f, " at {}/{} fps, P{} for {tuning}", self.rate.0, self.rate.1, self.preset)?;
        write!(f, ", {} B, lookahead {}, {} b/s", self.bframes, self.lookahead, self.bitrate)
    }
}

#[cfg(test)]
mod tests;

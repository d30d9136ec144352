//! `NV_ENC_INITIALIZE_PARAMS` and what hangs on it, read, judged by the capabilities, and kept as plain values.

use std::mem::offset_of;

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;

use crate::abi::{
    Answer, CONFIG_VER, Given, INFINITE_GOP, INITIALIZE_PARAMS_VER, INVALID_PARAM, RC_PARAMS_VER, Status,
    UNSUPPORTED_PARAM, decline, refuse,
};
use crate::card::{Codec, PRESETS, Profile, caps};
use crate::preset::{self, Tuning};

/// An encoder as it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) codec: Codec,
    pub(crate) profile: Profile,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// 0 where the size may not change.
    pub(crate) most: (u32, u32),
    /// Display aspect ratio; 0 where it is that of the size.
    pub(crate) aspect: (u32, u32),
    /// Pictures per second.
    pub(crate) rate: (u32, u32),
    pub(crate) decides_types: bool,
    /// Pictures from one IDR picture to the next.
    pub(crate) gop: u32,
    pub(crate) b_frames: u32,
    pub(crate) lookahead: u32,
    pub(crate) spending: Spending,
    pub(crate) ten_bit: bool,
    /// As the codec's syntax writes it; 0 where the encoder chooses.
    pub(crate) level: u32,
    pub(crate) high_tier: bool,
    pub(crate) delimiters: bool,
    pub(crate) headers: Headers,
    pub(crate) cavlc: bool,
    pub(crate) weighted: bool,
    pub(crate) filler: bool,
    pub(crate) sps_id: u32,
    pub(crate) vui: Vui,
    pub(crate) slice_offsets: bool,
}

/// Which pictures bring the parameter sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Headers {
    Never,
    FirstIdr,
    EveryIdr,
}

/// `NV_ENC_RC_PARAMS`, in bits and bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spending {
    pub(crate) mode: Mode,
    pub(crate) average: u32,
    pub(crate) most: u32,
    /// 0 = the driver's default.
    pub(crate) buffer: u32,
    pub(crate) initial: u32,
    /// Constant quantiser of P pictures.
    pub(crate) quantiser: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Quantiser,
    Variable,
    Constant,
}

/// What the VUI says, each part where it is present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vui {
    /// `video_format` and whether the range is full.
    pub(crate) signal: Option<(u32, bool)>,
    /// Primaries, transfer, matrix.
    pub(crate) colour: Option<[u32; 3]>,
    pub(crate) chroma_location: Option<u32>,
}

impl Config {
    /// # Errors
    /// The status a driver answers.
    pub(crate) fn read(call: &str, given: &Given) -> Result<Config, Status> {
        let codec = Codec::find(given.guid(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, encodeGUID)));
        let Some(codec) = codec else {
            return decline(call, "no such codec", UNSUPPORTED_PARAM);
        };
        let inner = inner(call, codec, given)?;
        let rates = inner.versioned_part::<sys::NV_ENC_RC_PARAMS>(
            call,
            "rcParams",
            offset_of!(sys::NV_ENC_CONFIG, rcParams),
            RC_PARAMS_VER,
        )?;
        whole_frames(call, given, &inner)?;
        let own = inner.part::<sys::NV_ENC_CODEC_CONFIG>(offset_of!(sys::NV_ENC_CONFIG, encodeCodecConfig));
        let number = |at| given.u32(at);
        let mut config = Config {
            codec,
            profile: profile(call, codec, &inner)?,
            width: number(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, encodeWidth)),
            height: number(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, encodeHeight)),
            most: (
                number(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, maxEncodeWidth)),
                number(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, maxEncodeHeight)),
            ),
            aspect: (
                number(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, darWidth)),
                number(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, darHeight)),
            ),
            rate: (
                number(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, frameRateNum)),
                number(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, frameRateDen)),
            ),
            decides_types: number(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, enablePTD)) == 1,
            gop: inner.u32(offset_of!(sys::NV_ENC_CONFIG, gopLength)),
            b_frames: 0,
            lookahead: lookahead(&rates),
            spending: Spending::read(call, codec, &rates)?,
            ten_bit: false,
            level: 0,
            high_tier: false,
            delimiters: false,
            headers: Headers::FirstIdr,
            cavlc: false,
            weighted: given.bit(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, _bitfield_1), 4),
            filler: false,
            sps_id: 0,
            vui: Vui::default(),
            slice_offsets: given.bit(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, _bitfield_1), 0),
        };
        match codec {
            Codec::H264 => config.h264(call, &own)?,
            Codec::Hevc => config.hevc(call, &own)?,
            Codec::Av1 => config.av1(call, &own)?,
        }
        config.pattern(call, inner.u32(offset_of!(sys::NV_ENC_CONFIG, frameIntervalP)))?;
        config.sizes(call)?;
        config.features(call, &rates)?;
        Ok(config)
    }

    fn h264(&mut self, call: &str, own: &Given) -> Answer {
        let at = offset_of!(sys::NV_ENC_CONFIG_H264, _bitfield_1);
        let number = |at| own.u32(at);
        self.delimiters = own.bit(at, 6);
        self.headers = headers(own.bit(at, 7), own.bit(at, 12));
        self.filler = own.bit(at, 17);
        // SVC, MVC, hierarchical, refresh, constrained, LTR, lossless.
        let lacking = [0, 1, 2, 3, 10, 11, 14, 15].iter().any(|&bit| own.bit(at, bit));
        self.level = number(offset_of!(sys::NV_ENC_CONFIG_H264, level));
        self.idr_period(number(offset_of!(sys::NV_ENC_CONFIG_H264, idrPeriod)));
        self.sps_id = number(offset_of!(sys::NV_ENC_CONFIG_H264, spsId));
        self.cavlc =
            number(offset_of!(sys::NV_ENC_CONFIG_H264, entropyCodingMode)) == 2 || self.profile == Profile::Baseline;
        self.vui = Vui::read(
            &own.part::<sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS>(offset_of!(sys::NV_ENC_CONFIG_H264, h264VUIParameters)),
        );
        let ids_differ = self.sps_id != number(offset_of!(sys::NV_ENC_CONFIG_H264, ppsId)) || self.sps_id > 31;
        let slices = number(offset_of!(sys::NV_ENC_CONFIG_H264, sliceModeData)) > 1;
        if lacking || ids_differ || slices {
            return decline(call, "a feature of H.264 that this card lacks", UNSUPPORTED_PARAM);
        }
        chroma(call, number(offset_of!(sys::NV_ENC_CONFIG_H264, chromaFormatIDC)))
    }

    fn hevc(&mut self, call: &str, own: &Given) -> Answer {
        let at = offset_of!(sys::NV_ENC_CONFIG_HEVC, _bitfield_1);
        let number = |at| own.u32(at);
        self.delimiters = own.bit(at, 4);
        self.headers = headers(own.bit(at, 6), own.bit(at, 7));
        self.ten_bit = own.bits(at, 11, 3) == 2;
        // LTR, refresh, filler, constrained, alpha.
        let lacking = [5, 8, 14, 15, 16].iter().any(|&bit| own.bit(at, bit));
        self.level = number(offset_of!(sys::NV_ENC_CONFIG_HEVC, level));
        self.high_tier = number(offset_of!(sys::NV_ENC_CONFIG_HEVC, tier)) == 1;
        self.idr_period(number(offset_of!(sys::NV_ENC_CONFIG_HEVC, idrPeriod)));
        self.vui = Vui::read(
            &own.part::<sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS>(offset_of!(sys::NV_ENC_CONFIG_HEVC, hevcVUIParameters)),
        );
        let ids = [
            offset_of!(sys::NV_ENC_CONFIG_HEVC, vpsId),
            offset_of!(sys::NV_ENC_CONFIG_HEVC, spsId),
            offset_of!(sys::NV_ENC_CONFIG_HEVC, ppsId),
        ];
        let slices = number(offset_of!(sys::NV_ENC_CONFIG_HEVC, sliceModeData)) > 1;
        if lacking || slices || ids.iter().any(|&at| number(at) != 0) {
            return decline(call, "a feature of HEVC that this card lacks", UNSUPPORTED_PARAM);
        }
        let depth = own.bits(at, 11, 3);
        if !matches!(depth, 0 | 2) || self.ten_bit && !matches!(self.profile, Profile::Main10 | Profile::Auto) {
            let why = format!("pixelBitDepthMinus8 is {depth} in profile {:?}", self.profile);
            return refuse(call, why, INVALID_PARAM);
        }
        if self.ten_bit && self.codec.cap(caps::TEN_BIT) == 0 {
            return decline(call, "no 10 bit on this card", UNSUPPORTED_PARAM);
        }
        chroma(call, own.bits(at, 9, 2))
    }

    fn av1(&mut self, call: &str, own: &Given) -> Answer {
        let at = offset_of!(sys::NV_ENC_CONFIG_AV1, _bitfield_1);
        self.headers = headers(own.bit(at, 4), own.bit(at, 5));
        // Annex B, refresh, tiles of one's own, film grain.
        let lacking = [0, 6, 10, 11].iter().any(|&bit| own.bit(at, bit));
        self.idr_period(own.u32(offset_of!(sys::NV_ENC_CONFIG_AV1, idrPeriod)));
        let unspecified = 2;
        let colour = [
            offset_of!(sys::NV_ENC_CONFIG_AV1, colorPrimaries),
            offset_of!(sys::NV_ENC_CONFIG_AV1, transferCharacteristics),
            offset_of!(sys::NV_ENC_CONFIG_AV1, matrixCoefficients),
        ]
        .map(|at| if own.u32(at) == 0 { unspecified } else { own.u32(at) });
        let full = own.u32(offset_of!(sys::NV_ENC_CONFIG_AV1, colorRange)) == 1;
        self.vui = Vui { signal: Some((5, full)), colour: Some(colour), chroma_location: None };
        if lacking || own.bits(at, 15, 3) != 0 || own.bits(at, 12, 3) != 0 {
            return decline(call, "a feature of AV1 that this card lacks", UNSUPPORTED_PARAM);
        }
        chroma(call, own.bits(at, 7, 2))
    }

    /// "If not set, this is made equal to gopLength".
    fn idr_period(&mut self, period: u32) {
        self.gop = if period == 0 { self.gop } else { self.gop.min(period) };
    }

    fn pattern(&mut self, call: &str, interval: u32) -> Answer {
        if interval == 0 {
            self.gop = 1;
            return Ok(());
        }
        if self.gop == 0 {
            return refuse(call, "gopLength is 0", INVALID_PARAM);
        }
        self.b_frames = interval - 1;
        let most = self.codec.cap(caps::B_FRAMES).cast_unsigned();
        if self.b_frames == 0 {
            return Ok(());
        }
        if self.b_frames > most {
            return decline(call, format_args!("{} B frames, the card has {most}", self.b_frames), UNSUPPORTED_PARAM);
        }
        if self.gop == INFINITE_GOP {
            return refuse(call, "frameIntervalP is above 1 in an infinite gopLength", INVALID_PARAM);
        }
        if self.gop <= interval {
            return refuse(call, "gopLength is not above the number of B frames + 1", INVALID_PARAM);
        }
        if !self.decides_types {
            return decline(call, "B frames that the client decides", UNSUPPORTED_PARAM);
        }
        Ok(())
    }

    fn sizes(&self, call: &str) -> Answer {
        let cap = |number| self.codec.cap(number).cast_unsigned();
        let fits = |size: u32, least, most| (cap(least)..=cap(most)).contains(&size) && size.is_multiple_of(2);
        if !fits(self.width, caps::WIDTH_MIN, caps::WIDTH_MAX) || !fits(self.height, caps::HEIGHT_MIN, caps::HEIGHT_MAX)
        {
            return decline(call, format_args!("{}x{} on this card", self.width, self.height), INVALID_PARAM);
        }
        if self.rate.0 == 0 || self.rate.1 == 0 {
            return refuse(call, "the frame rate is not set", INVALID_PARAM);
        }
        let most = self.most;
        if most != (0, 0) && (most.0 < self.width || most.1 < self.height || most.0 > cap(caps::WIDTH_MAX)) {
            return refuse(call, format_args!("maxEncodeWidth x maxEncodeHeight is {most:?}"), INVALID_PARAM);
        }
        if (self.aspect.0 == 0) != (self.aspect.1 == 0) {
            return refuse(call, format_args!("darWidth:darHeight is {:?}", self.aspect), INVALID_PARAM);
        }
        let levels = cap(caps::LEVEL_MIN)..=cap(caps::LEVEL_MAX);
        if self.level != 0 && self.codec != Codec::Av1 && !levels.contains(&self.level) {
            return refuse(call, format_args!("level {}", self.level), INVALID_PARAM);
        }
        Ok(())
    }

    fn features(&self, call: &str, rates: &Given) -> Answer {
        let lacks = |number| self.codec.cap(number) == 0;
        if self.lookahead > 0 && lacks(caps::LOOKAHEAD) {
            return decline(call, "no lookahead on this card", UNSUPPORTED_PARAM);
        }
        if self.lookahead > 31 - self.b_frames {
            return refuse(call, format_args!("lookaheadDepth {}", self.lookahead), INVALID_PARAM);
        }
        let flags = offset_of!(sys::NV_ENC_RC_PARAMS, _bitfield_1);
        if rates.bit(flags, 8) && lacks(caps::TEMPORAL_AQ) {
            return decline(call, "no temporal AQ on this card", UNSUPPORTED_PARAM);
        }
        if rates.bit(flags, 16) {
            return decline(call, "no external lookahead on this card", UNSUPPORTED_PARAM);
        }
        if self.weighted && (lacks(caps::WEIGHTED_PREDICTION) || self.b_frames > 0) {
            return decline(call, "no weighted prediction here", UNSUPPORTED_PARAM);
        }
        Ok(())
    }

    /// Bits a second, as the rate control takes them.
    pub(crate) fn bits_per_picture(&self, spending: &Spending) -> f64 {
        f64::from(spending.average) * f64::from(self.rate.1) / f64::from(self.rate.0)
    }
}

impl Spending {
    fn read(call: &str, codec: Codec, given: &Given) -> Result<Spending, Status> {
        let mode = match given.u32(offset_of!(sys::NV_ENC_RC_PARAMS, rateControlMode)) {
            0 => Mode::Quantiser,
            1 => Mode::Variable,
            2 => Mode::Constant,
            other => return refuse(call, format_args!("rateControlMode {other}"), INVALID_PARAM),
        };
        let bit = mode as i32;
        if codec.cap(caps::RATE_MODES) & bit != bit {
            return decline(call, format_args!("{mode:?} rate control on this card"), UNSUPPORTED_PARAM);
        }
        let number = |at| given.u32(at);
        let spending = Spending {
            mode,
            average: number(offset_of!(sys::NV_ENC_RC_PARAMS, averageBitRate)),
            most: number(offset_of!(sys::NV_ENC_RC_PARAMS, maxBitRate)),
            buffer: number(offset_of!(sys::NV_ENC_RC_PARAMS, vbvBufferSize)),
            initial: number(offset_of!(sys::NV_ENC_RC_PARAMS, vbvInitialDelay)),
            quantiser: number(offset_of!(sys::NV_ENC_RC_PARAMS, constQP)),
        };
        if mode != Mode::Quantiser && spending.average == 0 {
            return refuse(call, "averageBitRate is 0", INVALID_PARAM);
        }
        if mode == Mode::Variable && spending.most != 0 && spending.most < spending.average {
            return refuse(call, "maxBitRate is below averageBitRate", INVALID_PARAM);
        }
        if spending.initial > spending.buffer && spending.buffer != 0 {
            return refuse(call, "vbvInitialDelay is above vbvBufferSize", INVALID_PARAM);
        }
        if spending.buffer != 0 && codec.cap(caps::CUSTOM_VBV) == 0 {
            return decline(call, "no custom VBV buffer size on this card", UNSUPPORTED_PARAM);
        }
        Ok(spending)
    }
}

impl Vui {
    fn read(given: &Given) -> Vui {
        let number = |at| given.u32(at);
        let signal = number(offset_of!(sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS, videoSignalTypePresentFlag)) == 1;
        let colour = number(offset_of!(sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS, colourDescriptionPresentFlag)) == 1;
        let location = number(offset_of!(sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS, chromaSampleLocationFlag)) == 1;
        let format = number(offset_of!(sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS, videoFormat));
        let full = number(offset_of!(sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS, videoFullRangeFlag)) == 1;
        Vui {
            signal: signal.then_some((format, full)),
            // A part of the signal type: without that it is not written.
            colour: (signal && colour).then_some([
                number(offset_of!(sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS, colourPrimaries)),
                number(offset_of!(sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS, transferCharacteristics)),
                number(offset_of!(sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS, colourMatrix)),
            ]),
            chroma_location: location
                .then_some(number(offset_of!(sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS, chromaSampleLocationTop))),
        }
    }
}

/// The client's configuration, or the preset's where it gives none.
fn inner(call: &str, codec: Codec, given: &Given) -> Result<Given, Status> {
    let preset = given.guid(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, presetGUID));
    let Some(preset) = PRESETS.iter().position(|known| *known == preset) else {
        return refuse(call, "presetGUID is none of P1 to P7", INVALID_PARAM);
    };
    let tuning = given.u32(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, tuningInfo));
    let Some(tuning) = Tuning::find(tuning) else {
        return refuse(call, format_args!("tuningInfo {tuning}"), INVALID_PARAM);
    };
    let own = given.pointer(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, encodeConfig));
    if own.is_null() {
        return Ok(Given::from(preset::config(codec, preset, tuning)));
    }
    Given::versioned::<sys::NV_ENC_CONFIG>(call, "encodeConfig", own, CONFIG_VER)
}

/// Checks what is the same for all codecs: no fields, no events, no output to the card's memory.
fn whole_frames(call: &str, given: &Given, inner: &Given) -> Answer {
    if given.u32(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, enableEncodeAsync)) != 0 {
        return refuse(call, "enableEncodeAsync: not on Linux", UNSUPPORTED_PARAM);
    }
    let flags = offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, _bitfield_1);
    // Sub-frame write, hints, motion only, output in video memory, reconstruction, statistics.
    if [1, 2, 3, 9, 10, 11].iter().any(|&bit| given.bit(flags, bit)) {
        return decline(call, "a feature that this card lacks", UNSUPPORTED_PARAM);
    }
    let split = given.bits(flags, 5, 4);
    if !matches!(split, 0..=3 | 15) {
        return refuse(call, format_args!("splitEncodeMode {split}"), INVALID_PARAM);
    }
    if inner.u32(offset_of!(sys::NV_ENC_CONFIG, monoChromeEncoding)) != 0 {
        return decline(call, "no monochrome on this card", UNSUPPORTED_PARAM);
    }
    match inner.u32(offset_of!(sys::NV_ENC_CONFIG, frameFieldMode)) {
        1 => Ok(()),
        2 | 3 => decline(call, "no fields on this card", UNSUPPORTED_PARAM),
        other => refuse(call, format_args!("frameFieldMode {other}"), INVALID_PARAM),
    }
}

fn profile(call: &str, codec: Codec, inner: &Given) -> Result<Profile, Status> {
    let guid = inner.guid(offset_of!(sys::NV_ENC_CONFIG, profileGUID));
    let known = codec.profiles().into_iter().find(|(known, _)| *known == guid);
    match known {
        Some((_, profile)) => Ok(profile),
        None => decline(call, "no such profile", UNSUPPORTED_PARAM),
    }
}

fn lookahead(rates: &Given) -> u32 {
    let on = rates.bit(offset_of!(sys::NV_ENC_RC_PARAMS, _bitfield_1), 5);
    if on { u32::from(rates.u16(offset_of!(sys::NV_ENC_RC_PARAMS, lookaheadDepth))) } else { 0 }
}

fn headers(none: bool, repeat: bool) -> Headers {
    match (none, repeat) {
        (true, _) => Headers::Never,
        (false, true) => Headers::EveryIdr,
        (false, false) => Headers::FirstIdr,
    }
}

fn chroma(call: &str, format: u32) -> Answer {
    match format {
        1 => Ok(()),
        3 => decline(call, "no 4:4:4 on this card", UNSUPPORTED_PARAM),
        other => refuse(call, format_args!("chromaFormatIDC {other}"), INVALID_PARAM),
    }
}

/// The initialisation as the client passes it.
pub(crate) fn given(call: &str, at: *const std::ffi::c_void) -> Result<Given, Status> {
    Given::versioned::<sys::NV_ENC_INITIALIZE_PARAMS>(call, "NV_ENC_INITIALIZE_PARAMS", at, INITIALIZE_PARAMS_VER)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Small pictures at a megabit a second.
    pub(crate) fn small(codec: Codec, b_frames: u32) -> Config {
        let mode = Mode::Constant;
        Config {
            codec,
            profile: Profile::Auto,
            width: 192,
            height: 128,
            most: (0, 0),
            aspect: (0, 0),
            rate: (25, 1),
            decides_types: true,
            gop: INFINITE_GOP,
            b_frames,
            lookahead: 0,
            spending: Spending { mode, average: 1_000_000, most: 0, buffer: 0, initial: 0, quantiser: 30 },
            ten_bit: false,
            level: 0,
            high_tier: false,
            delimiters: true,
            headers: Headers::EveryIdr,
            cavlc: false,
            weighted: false,
            filler: false,
            sps_id: 0,
            vui: Vui::default(),
            slice_offsets: false,
        }
    }

    #[test]
    fn a_preset_is_an_encoder_that_opens() {
        for codec in [Codec::H264, Codec::Hevc] {
            for number in 1..=3 {
                for step in 0..7 {
                    let tuning = Tuning::find(number).unwrap();
                    let given = Given::from(preset::config(codec, step, tuning));
                    let profile = profile("test", codec, &given).unwrap();
                    assert_eq!(profile, if codec == Codec::H264 { Profile::High } else { Profile::Main });
                    assert_eq!(given.u32(offset_of!(sys::NV_ENC_CONFIG, version)), CONFIG_VER);
                    let rates = given.part::<sys::NV_ENC_RC_PARAMS>(offset_of!(sys::NV_ENC_CONFIG, rcParams));
                    assert!(Spending::read("test", codec, &rates).is_ok());
                }
            }
        }
    }
}

//! The configuration behind a preset and a tuning, as the bytes of an `NV_ENC_CONFIG`.

use std::mem::offset_of;

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;

use crate::abi::{CONFIG_VER, Guid, INFINITE_GOP, RC_PARAMS_VER};
use crate::card::{Codec, Profile};

/// What `tuningInfo` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tuning {
    HighQuality,
    LowLatency,
    UltraLowLatency,
}

impl Tuning {
    /// Undefined, lossless (no capability) and unknown ones are none.
    pub(crate) fn find(number: u32) -> Option<Tuning> {
        match number {
            1 => Some(Tuning::HighQuality),
            2 => Some(Tuning::LowLatency),
            3 => Some(Tuning::UltraLowLatency),
            _ => None,
        }
    }
}

/// `preset` counts from 0 (P1) to 6 (P7).
pub(crate) fn config(codec: Codec, preset: usize, tuning: Tuning) -> Vec<u8> {
    let mut bytes = Bytes(vec![0; size_of::<sys::NV_ENC_CONFIG>()]);
    let quality = tuning == Tuning::HighQuality;
    let b_frames = if quality && preset >= 2 && codec != Codec::Av1 { 2 } else { 0 };
    bytes.put(offset_of!(sys::NV_ENC_CONFIG, version), CONFIG_VER);
    // High, Main, Main: the last one but Main10.
    let wanted = |(_, profile): &&(Guid, Profile)| *profile != Profile::Main10;
    let profile = codec.profiles().iter().rfind(wanted).map(|(guid, _)| *guid).expect("every codec has one");
    let at = offset_of!(sys::NV_ENC_CONFIG, profileGUID);
    bytes.put(at, profile.0);
    bytes.put(at + 4, u32::from(profile.1) | u32::from(profile.2) << 16);
    bytes.0[at + 8..at + 16].copy_from_slice(&profile.3);
    bytes.put(offset_of!(sys::NV_ENC_CONFIG, gopLength), if quality { 250 } else { INFINITE_GOP });
    bytes.put(offset_of!(sys::NV_ENC_CONFIG, frameIntervalP), b_frames + 1);
    bytes.put(offset_of!(sys::NV_ENC_CONFIG, frameFieldMode), 1);
    rate(&mut bytes, preset, tuning);
    let at = offset_of!(sys::NV_ENC_CONFIG, encodeCodecConfig);
    let idr_period = if quality { 250 } else { INFINITE_GOP };
    match codec {
        Codec::H264 => {
            bytes.put(at + offset_of!(sys::NV_ENC_CONFIG_H264, idrPeriod), idr_period);
            bytes.put(at + offset_of!(sys::NV_ENC_CONFIG_H264, chromaFormatIDC), 1);
            bytes.put(at + offset_of!(sys::NV_ENC_CONFIG_H264, entropyCodingMode), 1);
        }
        Codec::Hevc => {
            bytes.put(at + offset_of!(sys::NV_ENC_CONFIG_HEVC, _bitfield_1), 1 << 9);
            bytes.put(at + offset_of!(sys::NV_ENC_CONFIG_HEVC, idrPeriod), idr_period);
        }
        Codec::Av1 => {
            bytes.put(at + offset_of!(sys::NV_ENC_CONFIG_AV1, _bitfield_1), 1 << 7);
            bytes.put(at + offset_of!(sys::NV_ENC_CONFIG_AV1, idrPeriod), idr_period);
        }
    }
    bytes.0
}

fn rate(bytes: &mut Bytes, preset: usize, tuning: Tuning) {
    let at = offset_of!(sys::NV_ENC_CONFIG, rcParams);
    let (variable, constant) = (1, 2);
    bytes.put(at + offset_of!(sys::NV_ENC_RC_PARAMS, version), RC_PARAMS_VER);
    let mode = if tuning == Tuning::HighQuality { variable } else { constant };
    bytes.put(at + offset_of!(sys::NV_ENC_RC_PARAMS, rateControlMode), mode);
    bytes.put(at + offset_of!(sys::NV_ENC_RC_PARAMS, averageBitRate), 5_000_000);
    bytes.put(at + offset_of!(sys::NV_ENC_RC_PARAMS, maxBitRate), 10_000_000);
    let two_passes = u32::from(preset >= 3 && tuning != Tuning::HighQuality);
    bytes.put(at + offset_of!(sys::NV_ENC_RC_PARAMS, multiPass), two_passes);
    for (field, qp) in [(0, 28), (4, 31), (8, 25)] {
        bytes.put(at + offset_of!(sys::NV_ENC_RC_PARAMS, constQP) + field, qp);
    }
}

struct Bytes(Vec<u8>);

impl Bytes {
    fn put(&mut self, at: usize, word: u32) {
        self.0[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
}

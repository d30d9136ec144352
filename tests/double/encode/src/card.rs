//! What the card is said to be: codecs, profiles, formats, capabilities.

use crate::DOUBLE;
use crate::abi::Guid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    H264,
    Hevc,
    Av1,
}

/// A profile that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Auto,
    Baseline,
    Main,
    High,
    Main10,
}

/// How the client's pictures lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Nv12,
    Iyuv,
    /// As NV12 with 16 bits a sample, of which the upper ten count.
    TenBit,
}

impl Codec {
    /// What the settings give the card.
    pub(crate) fn all() -> Vec<Codec> {
        let mut all = vec![Codec::H264];
        if DOUBLE.number("nvenc.hevc", 1) != 0 {
            all.push(Codec::Hevc);
        }
        if DOUBLE.number("av1_encode", 0) != 0 {
            all.push(Codec::Av1);
        }
        all
    }

    pub(crate) fn find(guid: Guid) -> Option<Codec> {
        Codec::all().into_iter().find(|codec| codec.guid() == guid)
    }

    pub(crate) fn guid(self) -> Guid {
        match self {
            Codec::H264 => Guid(0x6bc8_2762, 0x4e63, 0x4ca4, [0xaa, 0x85, 0x1e, 0x50, 0xf3, 0x21, 0xf6, 0xbf]),
            Codec::Hevc => Guid(0x790c_dc88, 0x4522, 0x4d7b, [0x94, 0x25, 0xbd, 0xa9, 0x97, 0x5f, 0x76, 0x03]),
            Codec::Av1 => Guid(0x0a35_2289, 0x0aa7, 0x4759, [0x86, 0x2d, 0x5d, 0x15, 0xcd, 0x16, 0xd2, 0x54]),
        }
    }

    pub(crate) fn profiles(self) -> Vec<(Guid, Profile)> {
        let auto = Guid(0xbfd6_f8e7, 0x233c, 0x4341, [0x8b, 0x3e, 0x48, 0x18, 0x52, 0x38, 0x03, 0xf4]);
        let baseline = Guid(0x0727_bcaa, 0x78c4, 0x4c83, [0x8c, 0x2f, 0xef, 0x3d, 0xff, 0x26, 0x7c, 0x6a]);
        let main = Guid(0x60b5_c1d4, 0x67fe, 0x4790, [0x94, 0xd5, 0xc4, 0x72, 0x6d, 0x7b, 0x6e, 0x6d]);
        let high = Guid(0xe7cb_c309, 0x4f7a, 0x4b89, [0xaf, 0x2a, 0xd5, 0x37, 0xc9, 0x2b, 0xe3, 0x10]);
        let hevc = Guid(0xb514_c39a, 0xb55b, 0x40fa, [0x87, 0x8f, 0xf1, 0x25, 0x3b, 0x4d, 0xfd, 0xec]);
        let hevc10 = Guid(0xfa4d_2b6c, 0x3a5b, 0x411a, [0x80, 0x18, 0x0a, 0x3f, 0x5e, 0x3c, 0x9b, 0xe5]);
        let av1 = Guid(0x5f2a_39f5, 0xf14e, 0x4f95, [0x9a, 0x9e, 0xb7, 0x6d, 0x56, 0x8f, 0xcf, 0x97]);
        let mut all = vec![(auto, Profile::Auto)];
        match self {
            Codec::H264 => {
                all.extend([(baseline, Profile::Baseline), (main, Profile::Main), (high, Profile::High)]);
            }
            Codec::Hevc => {
                all.push((hevc, Profile::Main));
                if self.cap(caps::TEN_BIT) != 0 {
                    all.push((hevc10, Profile::Main10));
                }
            }
            Codec::Av1 => all.push((av1, Profile::Main)),
        }
        all
    }

    pub(crate) fn formats(self) -> Vec<Format> {
        let mut all = vec![Format::Nv12, Format::Iyuv];
        if self.cap(caps::TEN_BIT) != 0 {
            all.push(Format::TenBit);
        }
        all
    }

    /// The capability of that number of the header, 0 where there is none.
    pub(crate) fn cap(self, number: u32) -> i32 {
        let Some((name, of)) = CAPS.get(number as usize) else { return 0 };
        let own = match self {
            Codec::H264 => "h264",
            Codec::Hevc => "hevc",
            Codec::Av1 => "av1",
        };
        let said = DOUBLE.setting(&format!("nvenc.caps.{own}.{name}"));
        let said = said.or_else(|| DOUBLE.setting(&format!("nvenc.caps.{name}")));
        let known = said.map(|text| text.parse().unwrap_or_else(|_| panic!("{name} = {text}: write a number")));
        known.unwrap_or(of[self as usize])
    }
}

impl Format {
    pub(crate) fn find(number: u32) -> Option<Format> {
        [Format::Nv12, Format::Iyuv, Format::TenBit].into_iter().find(|format| format.number() == number)
    }

    pub(crate) fn number(self) -> u32 {
        match self {
            Format::Nv12 => 0x1,
            Format::Iyuv => 0x100,
            Format::TenBit => 0x1_0000,
        }
    }

    /// Bytes of one luma sample.
    pub(crate) fn sample(self) -> usize {
        if self == Format::TenBit { 2 } else { 1 }
    }
}

/// P1 to P7.
pub(crate) const PRESETS: [Guid; 7] = [
    Guid(0xfc0a_8d3e, 0x45f8, 0x4cf8, [0x80, 0xc7, 0x29, 0x88, 0x71, 0x59, 0x0e, 0xbf]),
    Guid(0xf581_cfb8, 0x88d6, 0x4381, [0x93, 0xf0, 0xdf, 0x13, 0xf9, 0xc2, 0x7d, 0xab]),
    Guid(0x3685_0110, 0x3a07, 0x441f, [0x94, 0xd5, 0x36, 0x70, 0x63, 0x1f, 0x91, 0xf6]),
    Guid(0x90a7_b826, 0xdf06, 0x4862, [0xb9, 0xd2, 0xcd, 0x6d, 0x73, 0xa0, 0x86, 0x81]),
    Guid(0x21c6_e6b4, 0x297a, 0x4cba, [0x99, 0x8f, 0xb6, 0xcb, 0xde, 0x72, 0xad, 0xe3]),
    Guid(0x8e75_c279, 0x6299, 0x4ab6, [0x83, 0x02, 0x0b, 0x21, 0x5a, 0x33, 0x5c, 0xf5]),
    Guid(0x8484_8c12, 0x6f71, 0x4c13, [0x93, 0x1b, 0x53, 0xe2, 0x83, 0xf5, 0x79, 0x74]),
];

/// Numbers of capabilities, as the header counts them.
pub(crate) mod caps {
    pub(crate) const B_FRAMES: u32 = 0;
    pub(crate) const RATE_MODES: u32 = 1;
    pub(crate) const LEVEL_MAX: u32 = 13;
    pub(crate) const LEVEL_MIN: u32 = 14;
    pub(crate) const WIDTH_MAX: u32 = 16;
    pub(crate) const HEIGHT_MAX: u32 = 17;
    pub(crate) const DYNAMIC_SIZE: u32 = 19;
    pub(crate) const DYNAMIC_RATE: u32 = 20;
    pub(crate) const CUSTOM_VBV: u32 = 26;
    pub(crate) const LOOKAHEAD: u32 = 37;
    pub(crate) const TEMPORAL_AQ: u32 = 38;
    pub(crate) const TEN_BIT: u32 = 39;
    pub(crate) const WEIGHTED_PREDICTION: u32 = 41;
    pub(crate) const WIDTH_MIN: u32 = 45;
    pub(crate) const HEIGHT_MIN: u32 = 46;
    pub(crate) const ENGINES: u32 = 49;
    pub(crate) const COUNT: u32 = 55;
}

/// In the header's order; for H.264, HEVC, AV1. Sizes are those of Ada; features that the double lacks are absent.
const CAPS: [(&str, [i32; 3]); 55] = [
    ("NV_ENC_CAPS_NUM_MAX_BFRAMES", [4, 4, 0]),
    ("NV_ENC_CAPS_SUPPORTED_RATECONTROL_MODES", [3, 3, 3]),
    ("NV_ENC_CAPS_SUPPORT_FIELD_ENCODING", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_MONOCHROME", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_FMO", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_QPELMV", [1; 3]),
    ("NV_ENC_CAPS_SUPPORT_BDIRECT_MODE", [1, 0, 0]),
    ("NV_ENC_CAPS_SUPPORT_CABAC", [1, 0, 0]),
    ("NV_ENC_CAPS_SUPPORT_ADAPTIVE_TRANSFORM", [1, 0, 0]),
    ("NV_ENC_CAPS_SUPPORT_STEREO_MVC", [0; 3]),
    ("NV_ENC_CAPS_NUM_MAX_TEMPORAL_LAYERS", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_HIERARCHICAL_PFRAMES", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_HIERARCHICAL_BFRAMES", [0; 3]),
    ("NV_ENC_CAPS_LEVEL_MAX", [62, 186, 23]),
    ("NV_ENC_CAPS_LEVEL_MIN", [10, 30, 0]),
    ("NV_ENC_CAPS_SEPARATE_COLOUR_PLANE", [0; 3]),
    ("NV_ENC_CAPS_WIDTH_MAX", [4096, 8192, 8192]),
    ("NV_ENC_CAPS_HEIGHT_MAX", [4096, 8192, 8192]),
    ("NV_ENC_CAPS_SUPPORT_TEMPORAL_SVC", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_DYN_RES_CHANGE", [1; 3]),
    ("NV_ENC_CAPS_SUPPORT_DYN_BITRATE_CHANGE", [1; 3]),
    ("NV_ENC_CAPS_SUPPORT_DYN_FORCE_CONSTQP", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_DYN_RCMODE_CHANGE", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_SUBFRAME_READBACK", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_CONSTRAINED_ENCODING", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_INTRA_REFRESH", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_CUSTOM_VBV_BUF_SIZE", [1; 3]),
    ("NV_ENC_CAPS_SUPPORT_DYNAMIC_SLICE_MODE", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_REF_PIC_INVALIDATION", [0; 3]),
    ("NV_ENC_CAPS_PREPROC_SUPPORT", [0; 3]),
    ("NV_ENC_CAPS_ASYNC_ENCODE_SUPPORT", [0; 3]),
    ("NV_ENC_CAPS_MB_NUM_MAX", [65_536, 262_144, 262_144]),
    ("NV_ENC_CAPS_MB_PER_SEC_MAX", [983_040; 3]),
    ("NV_ENC_CAPS_SUPPORT_YUV444_ENCODE", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_LOSSLESS_ENCODE", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_SAO", [0, 1, 0]),
    ("NV_ENC_CAPS_SUPPORT_MEONLY_MODE", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_LOOKAHEAD", [1; 3]),
    ("NV_ENC_CAPS_SUPPORT_TEMPORAL_AQ", [1; 3]),
    ("NV_ENC_CAPS_SUPPORT_10BIT_ENCODE", [0, 1, 0]),
    ("NV_ENC_CAPS_NUM_MAX_LTR_FRAMES", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_WEIGHTED_PREDICTION", [1, 1, 0]),
    ("NV_ENC_CAPS_DYNAMIC_QUERY_ENCODER_CAPACITY", [100; 3]),
    ("NV_ENC_CAPS_SUPPORT_BFRAME_REF_MODE", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_EMPHASIS_LEVEL_MAP", [0; 3]),
    ("NV_ENC_CAPS_WIDTH_MIN", [145, 129, 192]),
    ("NV_ENC_CAPS_HEIGHT_MIN", [49, 33, 128]),
    ("NV_ENC_CAPS_SUPPORT_MULTIPLE_REF_FRAMES", [0; 3]),
    ("NV_ENC_CAPS_SUPPORT_ALPHA_LAYER_ENCODING", [0; 3]),
    ("NV_ENC_CAPS_NUM_ENCODER_ENGINES", [2; 3]),
    ("NV_ENC_CAPS_SINGLE_SLICE_INTRA_REFRESH", [0; 3]),
    ("NV_ENC_CAPS_DISABLE_ENC_STATE_ADVANCE", [0; 3]),
    ("NV_ENC_CAPS_OUTPUT_RECON_SURFACE", [0; 3]),
    ("NV_ENC_CAPS_OUTPUT_BLOCK_STATS", [0; 3]),
    ("NV_ENC_CAPS_OUTPUT_ROW_STATS", [0; 3]),
];

/// Major and minor number of the driver's newest API.
///
/// # Panics
/// The setting is no version: the test is wrong.
pub(crate) fn api() -> (u32, u32) {
    let text = DOUBLE.setting("nvenc.api").unwrap_or_else(|| "12.1".to_owned());
    let numbers = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.unwrap_or_else(|| panic!("nvenc.api = {text}: write 12.1"))
}

/// Encoder engines of that GPU.
pub(crate) fn engines(gpu: i32) -> u64 {
    DOUBLE.number(&format!("nvenc.count.{gpu}"), DOUBLE.number("nvenc.count", 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_lie_where_the_header_counts_them() {
        let named = |number: u32| CAPS[number as usize].0;
        assert_eq!(named(caps::LOOKAHEAD), "NV_ENC_CAPS_SUPPORT_LOOKAHEAD");
        assert_eq!(named(caps::WIDTH_MAX), "NV_ENC_CAPS_WIDTH_MAX");
        assert_eq!(named(caps::TEN_BIT), "NV_ENC_CAPS_SUPPORT_10BIT_ENCODE");
        assert_eq!(named(caps::ENGINES), "NV_ENC_CAPS_NUM_ENCODER_ENGINES");
        assert_eq!(named(caps::WIDTH_MIN), "NV_ENC_CAPS_WIDTH_MIN");
        assert_eq!(named(caps::CUSTOM_VBV), "NV_ENC_CAPS_SUPPORT_CUSTOM_VBV_BUF_SIZE");
        assert_eq!(caps::COUNT as usize, CAPS.len());
    }
}

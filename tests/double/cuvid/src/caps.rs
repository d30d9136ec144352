//! What the card is said to decode.

use crate::abi::{self, Caps};
use crate::{DOUBLE, av};

/// Fills what cuvidGetDecoderCaps answers; all zero for what can not be decoded.
///
/// As a card of Turing, Ampere, Ada or Hopper: MPEG-2 and H.264 with 8 bits, HEVC with 8, 10 and 12, each 4:2:0; AV1
/// with 8 and 10 where `av1_decode = 1` and libavcodec can. Settings narrow it: `nvdec.codecs` (of mpeg2, h264, hevc,
/// av1, with commas), `nvdec.count`, `nvdec.max_width`, `nvdec.max_height`.
pub(crate) fn fill(caps: &mut Caps) {
    *caps = Caps {
        codec: caps.codec,
        chroma_format: caps.chroma_format,
        bit_depth_minus8: caps.bit_depth_minus8,
        ..Caps::default()
    };
    let (name, depths, size_max, size_min): (_, &[u32], _, _) = match caps.codec {
        abi::MPEG2 => ("mpeg2", &[0], 4080, [48, 16]),
        abi::H264 => ("h264", &[0], 4096, [48, 16]),
        abi::HEVC => ("hevc", &[0, 2, 4], 8192, [144, 144]),
        abi::AV1 => ("av1", &[0, 2], 8192, [128, 128]),
        _ => return,
    };
    let listed = DOUBLE.setting("nvdec.codecs").is_none_or(|list| list.split(',').any(|codec| codec.trim() == name));
    let av1 = caps.codec != abi::AV1 || (DOUBLE.number("av1_decode", 0) == 1 && av::has_av1());
    let engines = DOUBLE.number("nvdec.count", 1);
    if !listed
        || !av1
        || engines == 0
        || caps.chroma_format != abi::CHROMA_420
        || !depths.contains(&caps.bit_depth_minus8)
    {
        return;
    }
    let side = |key: &str| u32::try_from(DOUBLE.number(key, size_max)).unwrap_or(u32::MAX).min(size_max as u32);
    caps.is_supported = 1;
    caps.num_nvdecs = u8::try_from(engines).unwrap_or(u8::MAX);
    caps.output_format_mask = 1 << if caps.bit_depth_minus8 == 0 { abi::NV12 } else { abi::P016 };
    caps.max_width = side("nvdec.max_width");
    caps.max_height = side("nvdec.max_height");
    caps.max_mb_count = u32::try_from(size_max * size_max / 256).unwrap_or(u32::MAX);
    [caps.min_width, caps.min_height] = size_min;
}

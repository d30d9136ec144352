//! What an init section and a playlist say of HEVC, from its SPS (ISO/IEC 14496-15, 8.3.3.1 and annex E).

use bytes::Bytes;

use super::init::put_nal;
use super::put16;
use crate::bitstream::h265::profile::Profile;
use crate::bitstream::h265::{self, Sps, nal};
use crate::media::track::VideoConfig;

/// HEVCDecoderConfigurationRecord: 4-byte lengths, every parameter set here and none in the samples. What the SPS leaves
/// open (frame rate, parallelism) is left open.
pub(super) fn configuration(out: &mut Vec<u8>, config: &VideoConfig) {
    let sps = Sps::parse(&config.sps).ok();
    let profile = general(config, sps.as_ref());
    out.extend_from_slice(&[1, profile.space << 6 | u8::from(profile.high_tier) << 5 | profile.idc & 31]);
    out.extend_from_slice(&profile.compatibility.to_be_bytes());
    out.extend_from_slice(&profile.constraints);
    out.push(profile.level);
    // min_spatial_segmentation_idc 0, parallelismType 0: nothing is promised; reserved bits are ones.
    out.extend_from_slice(&[0xf0, 0, 0xfc, 0xfc | config.chroma_format & 3]);
    let deep = |bits: u8| 0xf8 | (bits.clamp(8, 15) - 8);
    out.extend_from_slice(&[deep(config.bit_depth), deep(sps.as_ref().map_or(config.bit_depth, |s| s.bit_depth_chroma))]);
    // avgFrameRate and constantFrameRate 0: not said.
    put16(out, 0);
    let (layers, nested) = sps.as_ref().map_or((1, true), |s| (s.sub_layers, s.nested));
    out.push((layers & 7) << 3 | u8::from(nested) << 2 | 3);
    let kinds = [nal::VPS, nal::SPS, nal::PPS].map(|kind| {
        let of_kind = |unit: &&Bytes| h265::header(unit).is_some_and(|(found, _)| found == kind);
        (kind, config.parameter_sets().filter(of_kind).collect::<Vec<_>>())
    });
    out.push(u8::try_from(kinds.iter().filter(|(_, sets)| !sets.is_empty()).count()).unwrap_or(0));
    for (kind, sets) in kinds.iter().filter(|(_, sets)| !sets.is_empty()) {
        // array_completeness: the samples bring none of their own.
        out.push(0x80 | kind);
        put16(out, u16::try_from(sets.len()).unwrap_or(u16::MAX));
        sets.iter().take(usize::from(u16::MAX)).for_each(|set| put_nal(out, set));
    }
}

/// The CODECS value: profile, compatibility flags in reverse, tier and level, constraint bytes up to the last that is not 0.
pub(super) fn codecs(config: &VideoConfig) -> String {
    let profile = general(config, Sps::parse(&config.sps).ok().as_ref());
    let space = ["", "A", "B", "C"][usize::from(profile.space & 3)];
    let tier = if profile.high_tier { 'H' } else { 'L' };
    let (idc, flags, level) = (profile.idc, profile.compatibility.reverse_bits(), profile.level);
    let said = profile.constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let constraints: String = profile.constraints[..said].iter().map(|byte| format!(".{byte:X}")).collect();
    format!("hvc1.{space}{idc}.{flags:X}.{tier}{level}{constraints}")
}

/// An SPS that does not parse leaves what the configuration says.
fn general(config: &VideoConfig, sps: Option<&Sps>) -> Profile {
    let [idc, tier, level] = config.profile;
    let said =
        Profile { space: 0, idc, high_tier: tier != 0, compatibility: 0, constraints: [0; 6], level };
    sps.map_or(said, |sps| sps.profile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::track::{Codec, Colour};
    use crate::package::fmp4::init::InitSection;
    use crate::package::fmp4::read;

    fn bytes(hex: &str) -> Bytes {
        let digits: Vec<u8> = hex.bytes().filter(|b| b.is_ascii_hexdigit()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn config(vps: &str, sps: &str, pps: &str) -> VideoConfig {
        let sps = bytes(sps);
        let parsed = Sps::parse(&sps).unwrap();
        VideoConfig {
            codec: Codec::H265,
            width: parsed.width,
            height: parsed.height,
            sar: parsed.sar,
            rate: parsed.rate,
            interlaced: false,
            colour: Colour::default(),
            profile: [parsed.profile.idc, u8::from(parsed.profile.high_tier), parsed.profile.level],
            bit_depth: parsed.bit_depth,
            chroma_format: parsed.chroma_format,
            reorder: None,
            sps,
            pps: vec![bytes(vps), bytes(pps)],
        }
    }

    fn record(config: &VideoConfig) -> Vec<u8> {
        let mut out = Vec::new();
        configuration(&mut out, config);
        out
    }

    // TESTS
}

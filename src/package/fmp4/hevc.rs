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
    out.extend_from_slice(&[
        deep(config.bit_depth),
        deep(sps.as_ref().map_or(config.bit_depth, |s| s.bit_depth_chroma)),
    ]);
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
    let said = Profile { space: 0, idc, high_tier: tier != 0, compatibility: 0, constraints: [0; 6], level };
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

    /// What libx265 writes for 1280x720 at 30 frames/s, 8 bits, and for 320x180, 10 bits.
    const EIGHT: [&str; 3] = [
        "40010c01ffff01600000030090000003000003005dba0240",
        "42010101600000030090000003000003005da00280802d165ba4a4c2f016a020202080000003008000000f04",
        "4401c073c089",
    ];
    const TEN: [&str; 3] = [
        "40010c01ffff02200000030090000003000003005a959409",
        "42010102200000030090000003000003005aa00a080c1f3b6595952930bc05a02000000300200000030321",
        "4401c073c189",
    ];

    #[test]
    fn the_record_of_real_parameter_sets_is_the_one_that_another_muxer_writes() {
        let [vps, sps, pps] = EIGHT;
        let head = "0101600000009000000000005df000fcfdf8f800000f03";
        let theirs = format!("{head}a000010018{vps}a10001002c{sps}a200010006{pps}");
        assert_eq!(record(&config(vps, sps, pps)), bytes(&theirs));
        let [vps, sps, pps] = TEN;
        let head = "0102200000009000000000005af000fcfdfafa00000f03";
        let theirs = format!("{head}a000010018{vps}a10001002b{sps}a200010006{pps}");
        assert_eq!(record(&config(vps, sps, pps)), bytes(&theirs));
    }

    #[test]
    fn the_codecs_value_says_profile_compatibility_tier_level_and_constraints() {
        let said = |sps: &str| {
            let config = config(EIGHT[0], sps, EIGHT[2]);
            let section = InitSection::video(&config, 30_000, 0);
            // Read back from the record, by other code.
            let read = read::init(&section.bytes).unwrap();
            assert_eq!(read.codecs.as_ref(), Some(&section.codec()));
            assert_eq!(read.codec, crate::media::channel::VideoCodec::Hevc);
            section.codec()
        };
        assert_eq!(said(EIGHT[1]), "hvc1.1.6.L93.90");
        assert_eq!(said(TEN[1]), "hvc1.2.4.L90.90");
        // The annex's own way with the four source flags, of a progressive stream of frames.
        assert_eq!(said(&EIGHT[1].replacen("0300900000", "0300b00000", 1)), "hvc1.1.6.L93.B0");
        // Tier and profile space share the profile's byte.
        assert_eq!(said(&EIGHT[1].replacen("42010101", "42010121", 1)), "hvc1.1.6.H93.90");
        assert_eq!(said(&EIGHT[1].replacen("42010101", "420101a1", 1)), "hvc1.B1.6.H93.90");
        // Constraint bytes count up to the last that is there; escapes keep zeros apart.
        let constraints = |escaped: &str| EIGHT[1].replacen("600000030090000003000003005d", escaped, 1);
        assert_eq!(said(&constraints("600000030000030000030000085d")), "hvc1.1.6.L93.0.0.0.0.0.8");
        assert_eq!(said(&constraints("60000003000003000003000003005d")), "hvc1.1.6.L93");
    }

    #[test]
    fn an_sps_that_does_not_parse_leaves_what_the_configuration_says() {
        let mut odd = config(EIGHT[0], EIGHT[1], EIGHT[2]);
        odd.sps = Bytes::from_static(&[0x42, 1, 1]);
        assert_eq!(codecs(&odd), "hvc1.1.0.L93");
        assert_eq!(record(&odd)[..13], [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 93]);
    }
}

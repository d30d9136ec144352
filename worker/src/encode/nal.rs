//! Annex B, as encoders write it [AVC B.1], into parameter sets and length-prefixed samples.

use bytes::{BufMut, Bytes, BytesMut};
use rung::media::channel::VideoCodec;
use rung::pixels::protocol::VideoInit;

/// Whose NAL unit headers: H.264's are one byte [AVC 7.3.1], HEVC's two with the type in the first (H.265 7.3.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    H264,
    Hevc,
}

const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const AUD: u8 = 9;
const HEVC_VPS: u8 = 32;
const HEVC_SPS: u8 = 33;
const HEVC_PPS: u8 = 34;
const HEVC_AUD: u8 = 35;
/// x264 names itself and its options in a user-data SEI of this UUID: nothing for a viewer.
const X264_UUID: [u8; 16] =
    [0xdc, 0x45, 0xe9, 0xbd, 0xe6, 0xd9, 0x48, 0xb7, 0x96, 0x2c, 0xd8, 0x20, 0xd9, 0x23, 0xee, 0xef];

/// NAL units between start codes of three or four bytes.
pub fn units(annexb: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut starts = memchr::memmem::find_iter(annexb, &[0, 0, 1]).map(|at| at + 3).peekable();
    std::iter::from_fn(move || {
        let from = starts.next()?;
        let to = starts.peek().map_or(annexb.len(), |next| next - 3);
        let unit = &annexb[from..to];
        // Zeros before a start code belong to it; a NAL unit never ends in one.
        let end = unit.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        Some(&unit[..end])
    })
    .filter(|unit| !unit.is_empty())
}

/// The first parameter set of each kind among an encoder's headers. `None`: one is missing.
pub(super) fn init(syntax: Syntax, headers: &[u8]) -> Option<VideoInit> {
    match syntax {
        Syntax::H264 => {
            let [sps, pps] = first(headers, syntax, [SPS, PPS])?;
            Some(VideoInit { vps: None, sps, pps })
        }
        Syntax::Hevc => {
            let [vps, sps, pps] = first(headers, syntax, [HEVC_VPS, HEVC_SPS, HEVC_PPS])?;
            Some(VideoInit { vps: Some(vps), sps, pps })
        }
    }
}

/// The parameter sets of an encoder's headers, the first of each kind, as a decoder wants them: SPS, PPS; for HEVC VPS,
/// SPS, PPS. `None`: one is missing.
pub fn parameter_sets(syntax: Syntax, headers: &[u8]) -> Option<Vec<Bytes>> {
    match syntax {
        Syntax::H264 => first(headers, syntax, [SPS, PPS]).map(Vec::from),
        Syntax::Hevc => first(headers, syntax, [HEVC_VPS, HEVC_SPS, HEVC_PPS]).map(Vec::from),
    }
}

/// A sample: every NAL unit behind its length in four bytes, without parameter sets, delimiters and x264's signature.
pub fn sample(syntax: Syntax, annexb: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(annexb.len() + 64);
    for unit in units(annexb).filter(|unit| !is_dropped(syntax, unit)) {
        out.put_u32(u32::try_from(unit.len()).expect("an access unit is below 4 GiB"));
        out.put_slice(unit);
    }
    out.freeze()
}

impl Syntax {
    pub(super) fn of(codec: VideoCodec) -> Syntax {
        match codec {
            VideoCodec::H264 => Syntax::H264,
            VideoCodec::Hevc => Syntax::Hevc,
        }
    }

    /// A NAL unit's type; it has at least one byte.
    pub fn kind(self, unit: &[u8]) -> u8 {
        match self {
            Syntax::H264 => unit[0] & 31,
            Syntax::Hevc => unit[0] >> 1 & 63,
        }
    }
}

fn first<const N: usize>(headers: &[u8], syntax: Syntax, kinds: [u8; N]) -> Option<[Bytes; N]> {
    let found = kinds.map(|kind| units(headers).find(|unit| syntax.kind(unit) == kind).map(Bytes::copy_from_slice));
    found.iter().all(Option::is_some).then(|| found.map(Option::unwrap_or_default))
}

fn is_dropped(syntax: Syntax, unit: &[u8]) -> bool {
    match (syntax, syntax.kind(unit)) {
        (Syntax::H264, SPS | PPS | AUD) => true,
        (Syntax::Hevc, HEVC_VPS | HEVC_SPS | HEVC_PPS | HEVC_AUD) => true,
        // Payload type 5, a size, then the UUID [AVC D.1].
        (Syntax::H264, SEI) => {
            unit.get(1) == Some(&5) && memchr::memmem::find(&unit[..unit.len().min(40)], &X264_UUID).is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_lengths_and_no_parameter_sets() {
        let stream = [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 0, 0, 3, 0, 0, 0, 1, 0x06, 1, 9];
        assert_eq!(&sample(Syntax::H264, &stream)[..], &[0, 0, 0, 4, 0x65, 0, 0, 3, 0, 0, 0, 3, 0x06, 1, 9]);
        let init = init(Syntax::H264, &stream).unwrap();
        assert_eq!((init.vps, &init.sps[..], &init.pps[..]), (None, &[0x67, 1][..], &[0x68, 2][..]));
    }

    #[test]
    fn the_encoders_signature_goes_and_captions_stay() {
        let mut signature = vec![0, 0, 1, 6, 5, 20];
        signature.extend(X264_UUID);
        signature.extend([b'x'; 4]);
        assert!(sample(Syntax::H264, &signature).is_empty());
        assert_eq!(sample(Syntax::H264, &[0, 0, 1, 6, 4, 1, 7]).len(), 8);
    }

    #[test]
    fn hevc_keeps_its_types_in_the_upper_bits_and_loses_its_three_parameter_sets() {
        let unit = |kind: u8, body: &[u8]| [&[0, 0, 0, 1, kind << 1, 1], body].concat();
        let stream = [
            unit(HEVC_AUD, &[0x50]),
            unit(HEVC_VPS, &[7]),
            unit(HEVC_SPS, &[8]),
            unit(HEVC_PPS, &[9]),
            unit(39, &[4, 3]),
            unit(19, &[1, 2]),
            unit(1, &[3]),
        ]
        .concat();
        let kept = [&[0, 0, 0, 4, 39 << 1, 1, 4, 3][..], &[0, 0, 0, 4, 19 << 1, 1, 1, 2], &[0, 0, 0, 3, 1 << 1, 1, 3]];
        assert_eq!(&sample(Syntax::Hevc, &stream)[..], kept.concat());
        let found = init(Syntax::Hevc, &stream).unwrap();
        assert_eq!(
            (&found.vps.unwrap()[..], &found.sps[..], &found.pps[..]),
            (&[64, 1, 7][..], &[66, 1, 8][..], &[68, 1, 9][..])
        );
        assert_eq!(init(Syntax::H264, &stream), None, "the wrong syntax finds none");
        let sets = parameter_sets(Syntax::Hevc, &stream).unwrap();
        assert_eq!(sets, [&[64, 1, 7][..], &[66, 1, 8], &[68, 1, 9]]);
        assert_eq!(parameter_sets(Syntax::Hevc, &unit(HEVC_VPS, &[7])), None, "no SPS, no PPS");
        // A slice of type 1 or 6, 7, 8 would be dropped if H.264's mask were used.
        assert_eq!(sample(Syntax::Hevc, &unit(7, &[5])).len(), 7);
    }
}

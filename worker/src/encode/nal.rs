//! Annex B, as encoders write it [AVC B.1], into parameter sets and length-prefixed samples.

use bytes::{BufMut, Bytes, BytesMut};
use rung::pixels::protocol::VideoInit;

const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const AUD: u8 = 9;
/// x264 names itself and its options in a user-data SEI of this UUID: nothing for a viewer.
const X264_UUID: [u8; 16] =
    [0xdc, 0x45, 0xe9, 0xbd, 0xe6, 0xd9, 0x48, 0xb7, 0x96, 0x2c, 0xd8, 0x20, 0xd9, 0x23, 0xee, 0xef];

/// NAL units between start codes of three or four bytes.
pub(super) fn units(annexb: &[u8]) -> impl Iterator<Item = &[u8]> {
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

/// The first SPS and PPS of an encoder's headers.
pub(super) fn init(headers: &[u8]) -> Option<VideoInit> {
    let first = |kind| units(headers).find(|u| u[0] & 31 == kind).map(Bytes::copy_from_slice);
    Some(VideoInit { sps: first(SPS)?, pps: first(PPS)? })
}

/// A sample: every NAL unit behind its length in four bytes, without parameter sets, delimiters and x264's signature.
pub(super) fn sample(annexb: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(annexb.len() + 64);
    for unit in units(annexb).filter(|unit| !is_dropped(unit)) {
        out.put_u32(u32::try_from(unit.len()).expect("an access unit is below 4 GiB"));
        out.put_slice(unit);
    }
    out.freeze()
}

fn is_dropped(unit: &[u8]) -> bool {
    match unit[0] & 31 {
        SPS | PPS | AUD => true,
        // Payload type 5, a size, then the UUID [AVC D.1].
        SEI => unit.get(1) == Some(&5) && memchr::memmem::find(&unit[..unit.len().min(40)], &X264_UUID).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_lengths_and_no_parameter_sets() {
        let stream = [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 0, 0, 3, 0, 0, 0, 1, 0x06, 1, 9];
        assert_eq!(&sample(&stream)[..], &[0, 0, 0, 4, 0x65, 0, 0, 3, 0, 0, 0, 3, 0x06, 1, 9]);
        let init = init(&stream).unwrap();
        assert_eq!((&init.sps[..], &init.pps[..]), (&[0x67, 1][..], &[0x68, 2][..]));
    }

    #[test]
    fn the_encoders_signature_goes_and_captions_stay() {
        let mut signature = vec![0, 0, 1, 6, 5, 20];
        signature.extend(X264_UUID);
        signature.extend([b'x'; 4]);
        assert!(sample(&signature).is_empty());
        assert_eq!(sample(&[0, 0, 1, 6, 4, 1, 7]).len(), 8);
    }
}

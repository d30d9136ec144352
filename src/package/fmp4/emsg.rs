//! Timed ID3 tags beside the media: event message boxes, version 1 (ISO/IEC 23009-1 5.10.3.3, "Carriage of ID3 Timed
//! Metadata in CMAF" 2.2).

use bytes::Bytes;

use super::{full, put32};

const SCHEME: &[u8] = b"https://aomedia.org/emsg/ID3\0";
/// A tag holds until another one says otherwise.
const UNKNOWN_DURATION: u32 = u32::MAX;

/// A tag and when it is due: 90 kHz from the session's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedTag {
    pub time: i64,
    pub data: Bytes,
}

impl TimedTag {
    /// Its time in units of a track's timescale, to the nearest.
    pub fn at(&self, timescale: u32) -> i64 {
        let at = (i128::from(self.time) * i128::from(timescale) + 45_000).div_euclid(90_000);
        i64::try_from(at).unwrap_or(i64::MAX)
    }

    /// Equal tags have equal numbers, whatever rendition or box writes them: FNV-1a, 32 bits.
    fn number(&self) -> u32 {
        let bytes = self.time.to_be_bytes();
        bytes
            .iter()
            .chain(&self.data)
            .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }
}

/// The box of a tag that is shown at `time` (units of `timescale`).
pub(super) fn write(out: &mut Vec<u8>, tag: &TimedTag, time: i64, timescale: u32) {
    full(out, b"emsg", 1, 0, |out| {
        put32(out, timescale);
        out.extend_from_slice(&u64::try_from(time).unwrap_or(0).to_be_bytes());
        put32(out, UNKNOWN_DURATION);
        put32(out, tag.number());
        out.extend_from_slice(SCHEME);
        // An empty value.
        out.push(0);
        out.extend_from_slice(&tag.data);
    });
}

/// Bytes of that box.
pub(super) fn size(tag: &TimedTag) -> usize {
    12 + 4 + 8 + 4 + 4 + SCHEME.len() + 1 + tag.data.len()
}

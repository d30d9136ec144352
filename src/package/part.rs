//! Parts: the one being filled, and finished ones.

use bytes::Bytes;

use super::fmp4::emsg::TimedTag;
use super::fmp4::fragment::{sequence_number, tagged};
use crate::media::sample::{Sample, Stamps};
use crate::sys::pieces::Pieces;

/// A finished part: listed, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// In the track's timescale.
    pub duration: u64,
    /// Contains a sample at which decoding can start [HLS 4.4.4.9].
    pub independent: bool,
    /// The first sample, if decoding can start there. Its data are a piece of `bytes`.
    pub opens: Option<Sample>,
    /// `None`: nobody could produce it (GAP).
    pub bytes: Option<Bytes>,
}

/// Bytes of one part: what exceeds them is dropped and counted.
pub const PART_BYTES_MAX: usize = 64 << 20;
/// Samples of one part: 0.42 s of 1,000 frames/s and more.
pub const PART_SAMPLES_MAX: usize = 1_024;

/// The part that is being filled.
#[derive(Debug)]
pub(super) struct OpenPart {
    pub(super) msn: u64,
    pub(super) index: u32,
    samples: Vec<Sample>,
    bytes: usize,
}

impl OpenPart {
    pub(super) fn new(msn: u64, index: u32) -> OpenPart {
        OpenPart { msn, index, samples: Vec::with_capacity(32), bytes: 0 }
    }

    pub(super) fn is_full(&self, more: usize) -> bool {
        self.samples.len() >= PART_SAMPLES_MAX || self.bytes + more > PART_BYTES_MAX
    }

    /// Decode time at which the next sample must start.
    pub(super) fn end(&self) -> i64 {
        self.samples.last().map_or(i64::MIN, |s| s.dts + i64::from(s.duration))
    }

    /// A hole before `until`: the sample before it is shown until then.
    pub(super) fn stretch(&mut self, until: i64) {
        if let Some(last) = self.samples.last_mut() {
            last.duration = u32::try_from(until - last.dts).unwrap_or(u32::MAX);
        }
    }

    pub(super) fn push(&mut self, sample: Sample) {
        self.bytes += sample.data.len();
        self.samples.push(sample);
    }

    /// Decode and composition time of the first sample; there is one, as empty parts do not exist.
    pub(super) fn start(&self) -> (i64, i64) {
        let first = self.samples.first().expect("a part is opened with its first sample");
        (first.dts, first.dts + i64::from(first.cto))
    }

    pub(super) fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Stamps of the sample that completed the part.
    pub(super) fn stamps(&self) -> Stamps {
        self.samples.last().map(|s| s.stamps).unwrap_or_default()
    }

    /// In `memory`. `tags` go in front, each with its time in units of the track's `timescale`.
    pub(super) fn finish(&self, memory: &mut Pieces, tags: &[(i64, TimedTag)], timescale: u32) -> Part {
        let bytes = tagged(memory, sequence_number(self.msn, self.index), &self.samples, tags, timescale);
        // Samples are laid end to end behind the header.
        let head = bytes.len() - self.samples.iter().map(|s| s.data.len()).sum::<usize>();
        let opens = self.samples.first().filter(|s| s.sync);
        let opens = opens.map(|s| Sample { data: bytes.slice(head..head + s.data.len()), ..s.clone() });
        Part {
            duration: self.samples.iter().map(|s| u64::from(s.duration)).sum(),
            independent: self.samples.iter().any(|s| s.sync),
            opens,
            bytes: Some(bytes),
        }
    }
}

//! Coded pictures and audio frames as demuxed.

use bytes::Bytes;

use super::track::{Codec, Pid};
use crate::time::{Dts, Mono, Pts};

/// One coded picture (both fields of a field pair) or one audio frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    pub pid: Pid,
    pub codec: Codec,
    /// Unwrapped per track. A unit whose PES carried no PTS has one derived by the demuxer.
    pub pts: Pts,
    pub dts: Dts,
    /// Decoding can start here: an IDR picture of H.264, an IRAP picture of H.265, an I picture of MPEG-2 behind a sequence
    /// header; every audio frame. But for H.264, pictures shown before it may follow it and need what came before it.
    pub random_access: bool,
    /// Continuity or syntax damage was seen inside; shown after the first clean key frame, and counted.
    pub damaged: bool,
    /// When its last byte arrived.
    pub received: Mono,
    /// H.264/H.265: Annex B with 4-byte start codes, AUD stripped. MPEG-2 video: as it came. AAC: the raw frame without its ADTS header.
    pub data: Bytes,
}

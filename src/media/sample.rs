//! Encoded frames and samples: what packaging takes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::time::Mono;

/// When a frame passed each stage; rides it from socket to part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamps {
    pub received: Mono,
    pub demuxed: Mono,
    pub decoded: Mono,
    pub encoded: Mono,
}

/// A frame on its track, ready to be written [BMFF 8.8.8].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Decode time in the track's timescale, from the session's origin.
    pub dts: i64,
    /// Until the next sample, same scale; > 0.
    pub duration: u32,
    /// Composition offset, signed (trun version 1).
    pub cto: i32,
    /// Decoding can start here (IDR; every audio frame).
    pub sync: bool,
    /// Video: 4-byte length prefixed NAL units without parameter sets and AUD. Audio: the raw frame.
    pub data: Bytes,
    pub stamps: Stamps,
}

//! Purpose: NVENC: coded pictures from device memory. A session per rendition, with input surfaces of its own.
//! Time: pts is the frame number N; the driver carries it and never reads it.
//! Invariants: settings follow from `OpenRendition`, the codec and what the card can, and from nothing else, so equal
//! ones give equal parameter sets; the first frame of a run and every asked frame is an IDR, no other is; a surface is
//! registered once, mapped while the encoder has use of it and written by nobody then; a session lives on one thread.
//! When it fails: `Error` names the rendition, the call and the driver's code. After a code that reaches further than
//! the request (`Error::harm`) the driver is not called again, not even to clean up: the process has to end.

mod api; // the list of functions, and a session
mod config; // what a rendition asks for, as the driver's settings
mod encoder; // pictures in, coded pictures out
mod raw; // structs that the driver reads and fills, as plain memory
mod surfaces; // input surfaces and their pool

pub use api::Api;
pub use config::{GopEnd, Settings, Tuning, preset};
pub use encoder::{Coded, Encoder};
pub use surfaces::{Surface, Surfaces};

use super::Depth;

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    H264,
    Hevc,
    Av1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub codec: Codec,
    pub depth: Depth,
}

/// What a card can do with one codec, as far as settings or placement depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeCaps {
    pub width_min: u32,
    pub height_min: u32,
    pub width_max: u32,
    pub height_max: u32,
    /// B-frames in a row; 0: none.
    pub bframes_max: u32,
    pub lookahead: bool,
    pub temporal_aq: bool,
    pub ten_bit: bool,
    pub custom_vbv: bool,
    /// Whether the rate of a running session can be changed.
    pub retune: bool,
    /// Encode engines on the GPU; 0 where the driver does not tell.
    pub engines: u32,
}

impl Codec {
    pub fn name(self) -> &'static str {
        match self {
            Codec::H264 => "H.264",
            Codec::Hevc => "HEVC",
            Codec::Av1 => "AV1",
        }
    }
}

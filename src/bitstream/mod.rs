//! Purpose: elementary stream syntax: start codes, parameter sets and slice or picture headers of H.264, H.265 and
//!   MPEG-2 video, the closed captions in them, AAC headers.
//! Time: none here; time stamps live in PES headers.
//! Invariants: pure functions over byte slices; any input is answered, none panics; sizes come from `media::limits`.
//! Spec: [AVC 7.3], [AVC 7.4.1.2.4], [HEVC 7.3], [HEVC 7.4.2.4.4], [MPEG2V 6.2], [AAC 1.6.2.1], [AAC 1.A.2],
//!   [ATSC 6.2.3], [CEA 608], [CEA 708].
//! When it fails: `Err(&'static str)`: a clause of a sentence, which the demuxer puts into a `Fault`.

pub mod aac;
pub mod annexb;
pub mod bits;
pub mod captions;
pub mod h264;
pub mod h265;
pub mod mpeg2video;
mod sets;
mod vui;

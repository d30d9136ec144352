//! Purpose: elementary stream syntax: start codes, H.264 parameter sets and slice headers, AAC headers.
//! Time: none here; time stamps live in PES headers.
//! Invariants: pure functions over byte slices; any input is answered, none panics; sizes come from `media::limits`.
//! Spec: [AVC 7.3], [AVC 7.4.1.2.4], [AAC 1.6.2.1], [AAC 1.A.2].
//! When it fails: `Err(&'static str)`: a clause of a sentence, which the demuxer puts into a `Fault`.

pub mod aac;
pub mod annexb;
pub mod bits;
pub mod h264;

//! Purpose: instruments: they decode and judge, change nothing, and hide nothing.
//! Time: as the thing inspected has it; raw beside converted.
//! Invariants: the same input gives the same text; nothing here opens a file or a socket, the caller does.
//! Spec: [BMFF 4.2], [HLS 6.3].
//! When it fails: what does not parse is shown as such, with its offset.

pub mod fmp4;
pub mod hls;

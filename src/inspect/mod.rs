//! Purpose: instruments: they decode and judge, change nothing, and hide nothing.
//! Time: as the thing inspected has it; raw beside converted.
//! Invariants: any input gives a dump, the same input the same text; a reader that goes away (`| head`) ends it in peace.
//! Spec: [TS 2.4], [BMFF 4.2], [HLS 6.3].
//! When it fails: only reading or writing can; what does not parse is shown as such, with its offset.

pub mod ts;
pub mod fmp4;
pub mod hls;

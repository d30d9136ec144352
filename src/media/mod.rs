//! Purpose: the values that stages hand to each other: channels, grids, tracks, units, samples, faults, limits.
//! Time: instants are `time::Pts`/`Dts` (source) or frame indices N (grid).
//! Invariants: plain data; no I/O, no clock, no thread.
//! When it fails: constructors return a sentence that names the field and the fix.

pub mod access_unit;
pub mod captions;
pub mod channel;
pub mod crop;
pub mod fault;
pub mod grid;
pub mod id;
pub mod key;
pub mod limits;
pub mod logo;
pub mod marker;
pub mod modes;
pub mod networks;
pub mod picture;
pub mod plan;
pub mod playback;
pub mod sample;
pub mod steering;
pub mod track;

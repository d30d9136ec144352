//! Purpose: everything that speaks to the NVIDIA driver: its libraries are found at run time, never linked.
//! Time: none; tags and indices of the caller ride along.
//! Invariants: one primary context per GPU and process, current on every thread that calls; statuses are read as plain
//! integers; a picture stays in device memory unless `picture` copies it, and that is counted.
//! When it fails: `Error` names the call and the driver's code. A sticky code ends the process: nothing in it can be
//! trusted any more, and only its end gives the memory back.

pub mod abi; // the decoder's structs
pub mod cuda; // a GPU's context, streams, events, launches
pub mod error; // the driver's codes
pub mod frame_hash; // launch: a number for a picture
pub mod ladder; // launch: one surface to all renditions; the PTX
pub mod load; // libraries and their functions
pub mod memory; // device memory and pinned host memory
pub mod nvdec; // NVDEC

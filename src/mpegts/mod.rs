//! Purpose: the transport stream format, read and written: packets, sections, PES headers, clock references, a muxer.
//! Time: raw 33-bit PTS/DTS (90 kHz) and 27 MHz PCR on the wire; unwrapped at the border of this room.
//! Invariants: parsers take any bytes and answer; writers produce whole 188-byte packets.
//! Spec: [TS 2.4.3], [TS 2.4.4], [TS 2.6].
//! When it fails: `None` or `Err(&'static str)`: a clause that the demuxer puts into a `Fault`.

pub mod mux;
pub mod packet;
pub mod pcr;
pub mod pes;
pub mod psi;
pub mod scte35;

pub use mux::Muxer;
pub use packet::{PACKET_BYTES, Packet};

use crate::media::track::Pid;

/// Program association table.
pub const PAT_PID: Pid = 0;
/// Conditional access table.
pub const CAT_PID: Pid = 1;
/// Stuffing.
pub const NULL_PID: Pid = 0x1FFF;
/// Packet ids in all.
pub const PIDS: usize = 8_192;

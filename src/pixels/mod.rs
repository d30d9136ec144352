//! Purpose: the daemon's end of a `rung-worker`: the messages, and the client that spawns, feeds and watches one; the same
//! for the one that watches the GPUs.
//! Time: frame indices N and audio frame indices m; stamps are `Mono`, comparable across processes.
//! Invariants: no picture ever crosses; the daemon links no codec.
//! When it fails: a worker that dies or falls silent is replaced by its owner (`pipeline`), never waited for.

pub mod client;
pub mod health; // what a monitor says
pub mod monitor; // spawns and hears one
pub mod protocol;

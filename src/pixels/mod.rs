//! Purpose: the daemon's end of a `rung-worker`: the messages, the client that feeds and watches one channel's worker, the
//! hall of those processes that channels share, and the one that watches the GPUs.
//! Time: frame indices N and audio frame indices m; stamps are `Mono`, comparable across processes.
//! Invariants: no picture ever crosses; the daemon links no codec.
//! When it fails: a worker that dies or falls silent is replaced by its owner (`pipeline`), never waited for.

pub mod client;
pub mod hall;
pub mod health;
pub mod monitor;
pub mod protocol;

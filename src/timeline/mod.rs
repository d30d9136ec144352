//! Purpose: where every number comes from. Access units of one session's legs are given their place on its grid.
//! Time: `Mono` arrivals and raw 33-bit stamps in; N (frames), m (1024-sample frames) and 90 kHz from N = 0 out.
//! Invariants: N is a function of source time and the records put out before it; no two shown pictures share an N, no
//!   picture gets two; source segments are never skipped (GAP instead); nothing waits longer than its stated bound.
//! Spec: [TS 2.4.3.6], [TS 2.4.3.7].
//! When it fails: time that does not continue makes a new run and a `TimeJump` fault; the session goes on.

mod audio;
mod filler;
mod firewall;
mod grid;
mod markers;
mod pdt;
mod resume;
mod run;
mod running;
mod session;
mod source;
mod tracks;

pub use grid::probed_rate;
pub use run::Rules;
pub use session::{AudioOut, Facts, Filling, Out, Timeline};
pub use source::{SourceSample, plan};

#[cfg(test)]
mod tests;

//! Purpose: the few system calls that no crate offers in the shape needed. The only room of the daemon's data plane
//! with `unsafe`.
//! Time: none. Invariants: every block names what it relies on; callers see safe functions only.
//! When it fails: `io::Error` of the call.
#![expect(unsafe_code, reason = "system calls without a safe wrapper; every block has its SAFETY sentence")]

pub mod mmsg;
pub mod pieces;
pub mod process;
pub mod random;
pub mod steer;
pub mod wake;

//! Purpose: show what is in a file or a stream: never modify, decode what can be decoded, hide nothing.
//! Time: source time, raw and unwrapped.
//! Invariants: any input gives a dump; a reader that goes away (`| head`) ends it in peace.
//! When it fails: only reading or writing can; bad input is shown as faults.

pub mod ts;

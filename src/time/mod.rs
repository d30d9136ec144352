//! Purpose: instants and spans as types, so that the wrong sum does not compile.
//! Time: `Mono` is raw CLOCK_MONOTONIC (comparable across processes of one box), `Wall` is UTC, `Pts`/`Dts` are 90 kHz.
//! Invariants: media instants are unwrapped; conversion to another scale happens on instants, never on durations.
//! Spec: [TS 2.4.3.6] (33-bit time stamps).

pub mod clock;
pub mod ticks;
pub mod unwrap;

pub use clock::{Clock, Mono, Now, SimClock, SystemClock, Wall};
pub use ticks::{Dts, Pts, Round, Span, Timescale};
pub use unwrap::Unwrapper;

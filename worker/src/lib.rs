//! Rung's pixel process: every room that touches pixels or samples, and the sandbox they run in.

pub mod pattern; // the demo's test picture and tone
pub mod scale; // one picture to the sizes of the ladder

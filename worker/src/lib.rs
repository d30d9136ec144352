//! Rung's pixel process: every room that touches pixels or samples, and the sandbox they run in.

pub mod scale; // one picture to the sizes of the ladder

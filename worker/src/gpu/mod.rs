//! Purpose: all of NVIDIA's: the driver's libraries, device memory, kernels, decoder and encoder.
//! Time: none of its own; pictures carry theirs.
//! Invariants: whatever is read from or written to a card is described here, never guessed by a caller.
//! When it fails: a typed error that names what, where and the code.

pub mod frame_hash; // a number for a picture on the card
pub mod ladder; // one surface to all renditions, in one launch

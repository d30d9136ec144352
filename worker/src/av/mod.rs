//! Purpose: all of libav behind safe types: frames, packets, decoders, encoders, resampler, conversions.
//! Time: `pts` is whatever integer the caller put in; nothing here gives it a unit.
//! Invariants: the only unsafe of the worker outside `gpu` and the SIMD files; codec contexts never leave their thread.
//! When it fails: `Error` carries libav's own sentence; damaged input is `Pushed::Damaged`, not an error.

pub mod process;

#[cfg(feature = "software")]
mod decoder;
#[cfg(feature = "software")]
mod encoder;
#[cfg(feature = "software")]
mod error;
#[cfg(feature = "software")]
mod filter;
#[cfg(feature = "software")]
mod frame;
#[cfg(feature = "software")]
mod packet;
#[cfg(feature = "software")]
mod resampler;

#[cfg(feature = "software")]
pub use self::{
    decoder::{Decoder, Pushed},
    encoder::{AudioEncoder, Coded, Headers, Level, VideoEncoder, encoders},
    error::{Error, quiet, versions},
    filter::{Filter, Picked},
    frame::{Frame, Memory},
    resampler::Resampler,
};

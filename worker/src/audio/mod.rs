//! Purpose: the audio thread: every track decoded, brought to 48 kHz, placed on the sample grid, encoded to AAC-LC.
//! Time: 48 kHz sample indices from the session's origin; frame m covers samples m * 1024 .. (m + 1) * 1024.
//! Invariants: frames of a track leave in order without a gap, from `start` on; decoded, frame m sounds exactly there
//! (the encoder's priming frame is never sent); an encoder that joins has been fed `PREROLL` frames.
//! When it fails: damaged input becomes silence and a fault; an error of libav itself ends the channel (`Failed`).

#[cfg(feature = "software")]
mod aac;
#[cfg(feature = "software")]
mod place;
#[cfg(not(feature = "software"))]
mod without;

#[cfg(feature = "software")]
pub use aac::Audio;
#[cfg(not(feature = "software"))]
pub use without::Audio;

use rung::pixels::protocol::Unit;

/// Units between the socket and the audio thread. Full: the reader waits.
pub const INPUT_UNITS: usize = 256;

#[derive(Debug)]
pub enum ToAudio {
    Unit(Unit),
    /// Silence up to frame N (in an audio-only channel: up to this sample).
    Fill(i64),
    /// The picture has come to frame N.
    Edge(i64),
}

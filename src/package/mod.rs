//! Purpose: samples become CMAF parts and segments in memory, and playlists that tell players about them.
//! Time: samples carry decode times in their track's timescale from the session's origin; `now` only ages requests.
//! Invariants: a part is built once and shared; a URI never names two byte strings; targets are constant for a session.
//! Spec: [HLS 4.4], [HLS 6.2], [BMFF 8.8].
//! When it fails: what cannot be had is listed as GAP; numbers are never skipped.

pub mod dates;
pub mod fmp4;
mod listing;
pub mod origin;
pub mod part;
pub mod pictures;
pub mod player;
pub mod playlist;
mod retained;
pub mod segmenter;
pub mod window;

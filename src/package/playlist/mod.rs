//! Playlists as text: what is written to players [HLS 4].

pub mod media;
pub mod multivariant;
pub mod tags;

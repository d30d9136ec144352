//! The packager from outside: samples with exact times in, playlists, parts and answers out. The model player watches
//! over whole sessions; an independent parser (mp4-atom) and ffmpeg read the media back.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "package/fmp4.rs"]
mod fmp4;
#[path = "package/player.rs"]
mod player;
#[path = "package/playlists.rs"]
mod playlists;
#[path = "package/segments.rs"]
mod segments;
#[path = "package/window.rs"]
mod window;
#[path = "package/world.rs"]
mod world;

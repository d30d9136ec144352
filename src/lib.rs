//! Rung: live feeds in over SRT, Low-Latency HLS out. The map, in the order that media flows.
//!
//! Tags in brackets name clauses: HLS = draft-pantos-hls-rfc8216bis, TS = ISO/IEC 13818-1 (2019), BMFF = ISO/IEC
//! 14496-12 (2020), AVC = ITU-T H.264 (2019), SRT = draft-sharabayko-srt-01, AAC = ISO/IEC 14496-3 (2009).

// ground: values, no I/O
pub mod media;
pub mod time; // instants and spans as types; the clocks // channels, grids, tracks, units, samples, faults, limits

// data plane: one stage per room, in order
pub mod package; // samples -> CMAF parts, playlists, windows

// pixels: the worker's protocol and client
pub mod pixels;

// faces
pub mod inspect; // fMP4 files and live playlists, shown and judged

//! Rung: live feeds in over SRT and QUIC, Low-Latency HLS out. The map, in the order that media flows.
//!
//! Tags in brackets name clauses: HLS = draft-pantos-hls-rfc8216bis, TS = ISO/IEC 13818-1 (2019), BMFF = ISO/IEC
//! 14496-12 (2020), AVC = ITU-T H.264 (2019), HEVC = ITU-T H.265 (2021), MPEG2V = ISO/IEC 13818-2 (2013), SRT =
//! draft-sharabayko-srt-01, QUIC = RFC 9000, AAC = ISO/IEC 14496-3 (2009), EN = ETSI EN 300 468 (2016), CEA = ANSI/CTA-608-E and
//! ANSI/CTA-708-E, ATSC = A/53 part 4 (2009) and A/65 (2013).

// ground: values, no I/O
pub mod time; // instants and spans as types; the clocks
pub mod telemetry; // metric names, log lines, redaction
pub mod media; // channels, grids, tracks, units, samples, faults, limits
pub mod bitstream; // syntax of elementary streams: H.264, H.265, MPEG-2 video, AAC
pub mod mpegts; // the transport stream format, read and written; sections of SCTE 35
pub mod sys; // system calls that no crate offers

// data plane: one stage per room, in order
pub mod ingest; // SRT and QUIC connections -> transport-stream bytes
pub mod demux; // bytes -> access units, cues, timed tags
pub mod timeline; // where frame indices, segments and dates come from
pub mod package; // samples -> CMAF parts, playlists, windows
pub mod serve; // playlists and media over HTTP

// pixels
pub mod pixels; // the worker's protocol and client

// joins
pub mod pipeline; // one channel end to end; governor; respawn

// control plane, to the side
pub mod control; // configuration; the state store

// faces
pub mod inspect; // readable dumps of streams, parts, playlists
pub mod web; // start page, watch page, status, embedded
pub mod cli; // the terminal

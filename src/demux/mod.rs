//! Purpose: a transport stream in any chunks in, the chosen program's access units out.
//! Time: `now` is arrival; PTS/DTS leave here unwrapped, all tracks of a connection on one line; PCR in 27 MHz.
//! Invariants: equal bytes give equal events however they are cut (arrival stamps aside); memory is bounded by
//! `ACCESS_UNIT_BYTES_MAX` for the one video track, 64 KiB per audio track, 16 KiB per track of markers, and what the last pushes queued.
//! Delay: a picture comes out with its last byte where that byte can be told (the PES packet says its length, or the
//! packetizer stuffs the last packet, as all common ones do; believed after 8 pictures), else with the first packet of
//! the next one. An audio frame comes out with the header behind it, or with the end of its PES packet.
//! Spec: [TS 2.4.3], [TS 2.4.4], [AVC 7.4.1.2.4], [HEVC 7.4.2.4.4], [MPEG2V 6.2], [AAC 1.A.2]; health counters after ETSI TR 101 290.
//! When it fails: it does not; what is wrong with the input becomes `Event::Fault` and counters.

mod access_units;
mod adts_units;
mod assembler;
mod coding;
mod demuxer;
mod event;
mod health;
mod markers;
mod stamp;
mod sync;
mod tables;

pub use demuxer::Demuxer;
pub use event::Event;
pub use health::Counters;

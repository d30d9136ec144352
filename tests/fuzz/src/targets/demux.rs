//! The demuxer as a whole: bytes cut anywhere give what they give uncut.

use std::collections::{BTreeSet, HashSet};

use rung::demux::{Counters, Demuxer, Event};
use rung::inspect::ts::{Form, dump};
use rung::media::limits::{ACCESS_UNIT_BYTES_MAX, TRACKS_MAX};
use rung::media::track::Codec;
use rung::mpegts::PACKET_BYTES;
use rung::time::Mono;

use crate::Target;
use crate::mutate::Random;
use crate::script::Script;
use crate::seeds::{self, Elementary};

pub(super) const TARGETS: &[Target] = &[
    Target::new("demux", stream, seeds::streams)
        .block(PACKET_BYTES)
        .words(&[&[0x47], &[0, 0, 1, 0xE0], &[0, 0, 0, 1, 9], &[0, 0, 1], b"ID3", &[0xFC, 0x30]])
        .longest(24 << 10)
        .memory(4 << 20, 512)
        .rounds(250),
    Target::new("demux_elementary", elementary, seeds::elementary)
        .words(&[
            &[0, 0, 0, 1, 0x67],
            &[0, 0, 1, 0x68],
            &[0, 0, 1, 0x65],
            &[0, 0, 1, 0x41],
            &[0, 0, 0, 1, 9, 0xF0],
            &[0, 0, 1, 6],
            &[0, 0, 1, 0x40, 1],
            &[0, 0, 1, 0x42, 1],
            &[0, 0, 1, 0x44, 1],
            &[0, 0, 1, 0x26, 1],
            &[0, 0, 1, 0xB3],
            &[0, 0, 1, 0xB5],
            &[0, 0, 1, 0xB8],
            &[0, 0, 1, 0],
            &[0xFF, 0xF1, 0x4C, 0x80],
            &[0, 0, 0],
            &[0, 0, 3],
        ])
        .longest(8 << 10)
        .memory(4 << 20, 1_024)
        .rounds(250),
];

/// Two bytes that say how it is cut, and a stream.
fn stream(input: &[u8]) {
    let mut script = Script::new(input);
    let seed = script.u16();
    judge(script.rest(), seed);
    let mut text = Vec::new();
    dump(script.rest(), &mut text, Form::Table).expect("memory takes all");
    assert!(std::str::from_utf8(&text).is_ok());
}

/// Elementary streams: their bytes, PES packets and time stamps as the script says, in good packets.
fn elementary(input: &[u8]) {
    let (seed, stream) = Elementary::mux(input);
    judge(&stream, seed);
}

fn judge(stream: &[u8], seed: u16) {
    let mut random = Random(u64::from(seed));
    let whole = run(stream, usize::MAX, &mut random);
    let longest = [1, 7, 188, 1_316, 700][usize::from(seed) % 5];
    let cut = run(stream, if longest == 1 && stream.len() > 8 << 10 { 3 } else { longest }, &mut random);
    assert_eq!(whole.1, cut.1, "counters of a stream in pieces of up to {longest}");
    assert_eq!(whole.0.len(), cut.0.len(), "events of a stream in pieces of up to {longest}");
    for (one, other) in whole.0.iter().zip(&cut.0) {
        assert_eq!(one, other, "in pieces of up to {longest}");
    }
    check(&whole.0, &whole.1, stream.len());
}

/// Arrives all at once: stamps of arrival are the one thing that may differ.
fn run(stream: &[u8], longest: usize, random: &mut Random) -> (Vec<Event>, Counters) {
    let (mut demuxer, mut events, mut rest) = (Demuxer::new(), Vec::new(), stream);
    while !rest.is_empty() {
        let length = if longest == usize::MAX { rest.len() } else { 1 + random.below(longest) };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        demuxer.push(Mono(1), piece);
        events.extend(std::iter::from_fn(|| demuxer.poll()));
        rest = after;
    }
    demuxer.flush(Mono(1));
    events.extend(std::iter::from_fn(|| demuxer.poll()));
    (events, demuxer.counters())
}

fn check(events: &[Event], counters: &Counters, bytes: usize) {
    let (mut tracks, mut told) = (HashSet::new(), BTreeSet::new());
    let (mut units, mut damaged, mut payload) = (0, 0, 0);
    for event in events {
        match event {
            Event::Program(program) => {
                assert!(program.tracks.len() <= TRACKS_MAX);
                tracks.extend(program.tracks.iter().map(|track| (track.pid, track.codec)));
            }
            Event::Config { pid, .. } => drop(told.insert(*pid)),
            Event::Unit(unit) => {
                (units, payload) = (units + 1, payload + unit.data.len());
                damaged += u64::from(unit.damaged);
                assert!(tracks.contains(&(unit.pid, unit.codec)), "a unit of a track that no table names: {unit:?}");
                assert!(told.contains(&unit.pid), "a unit before its track's headers: {unit:?}");
                assert!(!unit.data.is_empty() && unit.data.len() <= ACCESS_UNIT_BYTES_MAX + PACKET_BYTES);
                let annexb = matches!(unit.codec, Codec::H264 | Codec::H265);
                assert!(!annexb || unit.data.starts_with(&[0, 0, 0, 1]), "{unit:?}");
            }
            Event::Tag(tag) => assert!(tag.data.starts_with(b"ID3")),
            Event::Cue(_) | Event::Pcr { .. } | Event::Fault(_) | Event::RecoveryPoint { .. } => {}
        }
    }
    assert_eq!((units, damaged), (counters.units, counters.damaged_units));
    assert!(counters.packets as usize * PACKET_BYTES <= bytes && counters.bytes == bytes as u64);
    // A start code of three bytes becomes one of four.
    assert!(payload <= bytes + bytes / 3, "{payload} bytes of units from {bytes}");
    assert!(events.len() <= 64 * (bytes / PACKET_BYTES + 1), "{} events from {bytes} bytes", events.len());
}

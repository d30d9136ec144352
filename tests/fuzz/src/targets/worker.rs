//! Messages between daemon and workers.

use std::fmt::Debug;

use rung::media::limits::MESSAGE_BYTES_MAX;
use rung::pixels::health::FromMonitor;
use rung::pixels::protocol::{self, Decoder, FromShared, FromWorker, Join, ToWorker};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Target;
use crate::mutate::Random;
use crate::script::Script;
use crate::seeds;

pub(super) const TARGETS: &[Target] = &[
    Target::new("protocol", frames, seeds::messages)
        .words(&[&[4, 0, 0, 0], &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F], &[1, 7], &[0, 0, 0, 1], &[0x80, 0x80, 0x80, 1]])
        .memory(4 << 20, 2_048),
    Target::new("control_packet", packets, seeds::control_packets),
];

/// A byte of choice, then a byte stream as the peer of a socket sends it, in pieces and whole.
fn frames(input: &[u8]) {
    let mut script = Script::new(input);
    let choice = script.byte();
    match choice % 3 {
        0 => stream::<FromWorker>(script.rest(), choice),
        1 => stream::<ToWorker>(script.rest(), choice),
        _ => stream::<FromMonitor>(script.rest(), choice),
    }
}

fn stream<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8], choice: u8) {
    let whole = read::<T>(bytes, usize::MAX, choice);
    let cut = read::<T>(bytes, 1 + usize::from(choice >> 2), choice);
    assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
    let mut written = Vec::new();
    for message in &whole.0 {
        let before = written.len();
        protocol::encode(message, &mut written);
        assert!(written.len() - before <= 4 + MESSAGE_BYTES_MAX);
    }
    // What was read is written so that it is read again; another way to write it may have been longer.
    let again = read::<T>(&written, usize::MAX, choice);
    assert!(again.1.is_none());
    assert_eq!(format!("{:?}", again.0), format!("{:?}", whole.0));
    assert!(written.len() <= bytes.len(), "{} bytes for {}", written.len(), bytes.len());
}

/// The messages, and why there are no more.
fn read<T: DeserializeOwned>(bytes: &[u8], longest: usize, seed: u8) -> (Vec<T>, Option<String>) {
    let (mut decoder, mut found, mut rest) = (Decoder::default(), Vec::new(), bytes);
    let mut random = Random(u64::from(seed));
    loop {
        loop {
            match decoder.pop::<T>() {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                Err(why) => return (found, Some(why)),
            }
        }
        if rest.is_empty() {
            return (found, None);
        }
        let length = if longest == usize::MAX { rest.len() } else { 1 + random.below(longest) };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        decoder.push(piece);
        rest = after;
    }
}

fn packets(input: &[u8]) {
    packet::<FromShared>(input);
    packet::<Join>(input);
}

fn packet<T: Serialize + DeserializeOwned + Debug>(input: &[u8]) {
    match protocol::from_packet::<T>(input) {
        Ok(message) => {
            let written = protocol::packet(&message);
            assert!(written.len() <= input.len());
            let again = protocol::from_packet::<T>(&written).expect("a packet of our own");
            assert_eq!(format!("{again:?}"), format!("{message:?}"));
        }
        Err(why) => assert!(why.contains(&format!("{} bytes", input.len())), "{why}"),
    }
}

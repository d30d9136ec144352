//! Channels that come and go in one process: nothing of them stays. `RUNG_LONG=1`: a thousand of them.

use rung::media::track::Codec;
use rung::pixels::protocol::{Backend, FromWorker};
use rung::time::SystemClock;
use std::time::Duration;

use crate::rig::*;
use crate::support::*;

#[derive(Debug)]
struct Held {
    live: Vec<(String, i64)>,
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
}

fn held(card: &Card, pid: u32) -> Held {
    let entries = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    let counts = card.driver.counts_of(pid).into_iter();
    Held {
        live: counts.filter(|(what, _)| what.starts_with("live ")).collect(),
        descriptors: entries("fd"),
        threads: entries("task"),
        resident_kib: line.trim().trim_end_matches(" kB").parse().unwrap(),
    }
}

/// A thread that has said that its channel has left takes a moment to go itself: until there are as many as wanted, or
/// no fewer for a while.
fn settled(card: &Card, pid: u32, threads: usize) -> Held {
    let (mut newest, mut since) = (held(card, pid), SystemClock::mono());
    while newest.threads != threads && SystemClock::mono().since(since) < Duration::from_millis(300) {
        let next = held(card, pid);
        if next.threads < newest.threads {
            since = SystemClock::mono();
        }
        newest = next;
    }
    newest
}

#[test]
fn channels_come_and_go_and_nothing_of_them_stays() {
    let long = std::env::var_os("RUNG_LONG").is_some();
    let (warm, rounds) = if long { (40, 1_000) } else { (10, 50) };
    let card = Card::new();
    let (stays, mut neighbour) = card.join();
    neighbour.open(placed(Backend::Gpu, &SIZES[3..]));
    neighbour.opened();
    let hello = neighbour.log.iter().find_map(|m| match m {
        FromWorker::Hello { pid, .. } => Some(*pid),
        _ => None,
    });
    let pid = hello.expect("it was waited for");
    let h264 = to_units(&grey(10, "-c:v libx264 -preset veryfast -bf 2 -g 25"));
    let mpeg2 = to_units(&grey(10, "-c:v mpeg2video -bf 2 -g 12 -b:v 2M"));
    let come_and_go = |count: u32| {
        for round in 0..count {
            let mut open = placed(if round % 3 == 2 { Backend::GpuDecode } else { Backend::Gpu }, &SIZES[2..]);
            let mut messages = h264.clone();
            if round % 4 == 3 {
                open.video.as_mut().unwrap().source.codec = Codec::Mpeg2Video;
                messages.clone_from(&mpeg2);
            }
            if round % 5 == 4 {
                renditions(&mut open).iter_mut().for_each(|r| (r.bframes, r.lookahead) = (2, 10));
            }
            let (seat, mut guest) = card.join();
            guest.open(open);
            guest.opened();
            // With pictures still inside, or properly closed.
            if round % 2 == 0 {
                guest.feed(messages).join().unwrap();
            } else {
                guest.feed_and_close(messages);
            }
            drop(guest);
            card.has_left(seat);
        }
    };
    // What is made once is made by then.
    come_and_go(warm);
    let before = settled(&card, pid, 0);
    come_and_go(rounds);
    let behind = settled(&card, pid, before.threads);
    println!("before {rounds} channels: {before:?}\nbehind them: {behind:?}");
    assert_eq!(behind.live, before.live);
    assert_eq!((behind.descriptors, behind.threads), (before.descriptors, before.threads));
    assert!(behind.resident_kib < before.resident_kib + 8 * 1_024, "{before:?}, {behind:?}");
    // Who was there all the time has noticed nothing.
    neighbour.feed_and_close(h264.clone());
    drop(neighbour);
    card.has_left(stays);
    card.end();
}

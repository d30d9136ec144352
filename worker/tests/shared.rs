//! A shared process as the daemon sees it: a control socket, and one socket for each of up to eight channels, none of
//! which may hurt another one.

#[path = "support/process.rs"]
mod process;
#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use process::Process;
use rung::media::limits::WORKER_SEATS_MAX;
use rung::pixels::protocol::{Encoded, FromShared, FromWorker, Lost, Output, ToWorker};
use rung::time::SystemClock;
use std::time::Duration;
use support::*;

/// Of a shared process with one small channel: main, watchdog, seat, writer, decoder, encoder, pictures.
const THREADS: usize = 7;

fn small_opened(process: &Process, seat: u32) -> Worker {
    let mut worker = process.join(seat);
    worker.open(small());
    worker.opened();
    worker
}

fn assert_whole(frames: &[Encoded], count: i64) {
    assert!(frames.iter().map(|f| f.at).eq(0..count), "{:?}", frames.iter().map(|f| f.at).collect::<Vec<_>>());
    assert!(frames.iter().filter(|f| f.sync).map(|f| f.at).eq((0..count).step_by(50)));
}

fn failure(messages: &[FromWorker]) -> (String, Lost) {
    let failed = messages.iter().find_map(|m| match m {
        FromWorker::Failed { what, lost, .. } => Some((what.clone(), *lost)),
        _ => None,
    });
    failed.unwrap_or_else(|| panic!("no failure in {messages:?}"))
}

#[test]
fn eight_channels_share_a_process_and_what_ends_one_leaves_the_others_whole() {
    let dir = tempfile::tempdir().unwrap();
    let messages = to_units(&video(dir.path(), 120, &["-bf", "2", "-g", "50"]));
    let (first, second) = messages.split_at(60);
    let process = Process::start();
    let mut all: Vec<Worker> = (0..7).map(|seat| small_opened(&process, seat)).collect();
    // The eighth can not open what it asks for. It stays, and may ask for something else.
    let mut hasty = process.join(7);
    let mut open = small();
    open.video.as_mut().unwrap().renditions[0].preset = "hasty".to_owned();
    hasty.open(open);
    let refused = hasty.wait(|m| matches!(m, FromWorker::Failed { .. }));
    assert!(matches!(&refused, FromWorker::Failed { what, lost: Lost::Channel, .. } if what.contains("enc-72p")));
    // A ninth is one too many.
    let ninth = process.join(8).rest();
    let (what, lost) = failure(&ninth);
    assert!(what.contains("holds 8 channels and takes no more") && lost == Lost::Channel, "{what}");
    process.has_left(8);
    for worker in &all {
        worker.feed(first.to_vec()).join().unwrap();
    }
    // One goes without a word, one talks nonsense, one is thrown out in the middle of a message.
    drop(all.remove(0));
    let mut garbage = all.remove(0);
    garbage.send_raw(&[0xff; 64]);
    let (what, lost) = failure(&garbage.rest());
    assert!(what.contains("no rung-worker of this version") && lost == Lost::Channel, "{what}");
    let mut torn = all.remove(0);
    torn.send_raw(&[200, 0, 0, 0, 3]);
    drop(torn);
    let mut left: Vec<u32> = (0..3)
        .map(|_| match process.hear() {
            FromShared::Left { seat } => seat,
            other => panic!("{other:?}"),
        })
        .collect();
    left.sort_unstable();
    assert_eq!(left, [0, 1, 2]);
    // Their seats are free again; the one that failed opens after all.
    all.extend((9..12).map(|seat| small_opened(&process, seat)));
    hasty.open(small());
    hasty.opened();
    for newcomer in &all[4..] {
        newcomer.feed(first.to_vec()).join().unwrap();
    }
    hasty.feed(first.to_vec()).join().unwrap();
    all.push(hasty);
    assert_eq!(all.len(), WORKER_SEATS_MAX);
    for worker in &mut all {
        worker.feed_and_close(second.to_vec());
        assert_whole(&worker.encoded(&Output::Video(0)), 120);
        let progress = worker.log.iter().rev().find_map(|m| match m {
            FromWorker::Progress { progress, .. } => Some(*progress),
            _ => None,
        });
        let progress = progress.expect("reported before `Closed`");
        // Each channel's own, and not its neighbours'.
        assert_eq!((progress.taken, progress.decoded, progress.encoded, progress.next), (120, 120, 120, 120));
        assert!(progress.rss_bytes > 0 && progress.cpu_us > 0);
    }
}

#[test]
fn a_channel_whose_daemon_does_not_read_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 100, &["-bf", "0", "-g", "50"]);
    let process = Process::start();
    let rounds: Vec<ToWorker> = (0..60)
        .flat_map(|round| pictures.iter().map(move |p| Coded { n: p.n + round * 100, ..p.clone() }))
        .map(|p| ToWorker::Unit { ch: CH, unit: video_unit(&p) })
        .collect();
    // Nothing is shed: what comes out fills the socket, then the queue behind it, and then everything in there waits.
    let slow = |seat: u32| {
        let mut slow = process.join(seat);
        slow.open(ladder());
        slow.opened();
        let feeder = slow.feed(rounds.clone());
        (slow, feeder)
    };
    let (mut later, feeder) = slow(0);
    let (never, cut_off) = slow(1);
    let mut other = small_opened(&process, 2);
    other.feed_and_close(to_units(&pictures));
    assert_whole(&other.encoded(&Output::Video(0)), 100);
    assert!(!feeder.is_finished() && !cut_off.is_finished(), "the slow ones take everything: they are not slow");
    // It leaves while everything in there waits for it.
    never.leave();
    process.has_left(1);
    cut_off.join().unwrap();
    later.wait(|m| matches!(m, FromWorker::Encoded { frame, .. } if frame.at == 5_900));
    feeder.join().unwrap();
}

#[test]
fn it_goes_with_its_daemon_and_when_the_daemon_talks_nonsense() {
    let process = Process::start();
    let worker = small_opened(&process, 0);
    process.end();
    assert!(!worker.rest().iter().any(|m| matches!(m, FromWorker::Failed { .. })));

    for nonsense in [&b""[..], &[0xff; 40], &[7; 4096]] {
        let process = Process::start();
        let worker = small_opened(&process, 0);
        drop(process.hand_over(nonsense));
        assert_eq!(process.wait().code(), Some(1), "{nonsense:?}");
        drop(worker);
    }
}

#[test]
fn two_hundred_channels_come_and_go_and_nothing_of_them_stays() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = to_units(&video(dir.path(), 12, &["-bf", "0"]));
    let process = Process::start();
    let mut stays = small_opened(&process, 0);
    let mut open = small();
    let asc = bytes::Bytes::from_static(&[0x11, 0x90]);
    open.audio = vec![open_audio(rung::media::track::Codec::Aac, 48_000, 2, asc)];
    let mut seat = 0;
    let mut come_and_go = |count: u32| {
        for round in 0..count {
            seat += 1;
            let mut guest = process.join(seat);
            guest.open(open.clone());
            guest.opened();
            guest.feed(pictures.clone()).join().unwrap();
            // With frames still inside, after all of them came out, or properly closed.
            match round % 3 {
                0 => {}
                1 => drop(guest.wait(|m| matches!(m, FromWorker::Progress { progress, .. } if progress.taken == 12))),
                _ => guest.feed_and_close(Vec::new()),
            }
            drop(guest);
            process.has_left(seat);
        }
    };
    let pid = process.pid();
    // What is made once is made by then.
    come_and_go(20);
    // A thread says that its channel has left, and then ends.
    let settled = |most: usize| {
        let until = SystemClock::mono() + Duration::from_secs(5);
        while count(pid, "task") > most && SystemClock::mono() < until {
            std::thread::yield_now();
        }
        (count(pid, "fd"), count(pid, "task"), rss_kib(pid))
    };
    let before = settled(THREADS);
    come_and_go(200);
    let after = settled(THREADS);
    println!("(descriptors, threads, KiB resident): {before:?} before 200 channels, {after:?} behind them");
    assert_eq!((after.0, after.1), (before.0, before.1));
    assert!(after.2 < before.2 + 6 * 1024, "{} KiB, then {} KiB", before.2, after.2);
    // Who was there all the time has noticed nothing.
    stays.feed_and_close(pictures);
    assert!(stays.encoded(&Output::Video(0)).iter().map(|f| f.at).eq(0..12));
}

fn count(pid: u32, what: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count()
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

//! A worker dies or hangs under load: its channel loses time, no media, and nobody else notices.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[path = "support/numbered.rs"]
mod numbered;

use std::time::Duration;

use daemon::{Daemon, push_loop, signal, wait};
use follow::{Fetched, Follow};
use numbered::{Drawn, clip};
use rung::time::SystemClock;

const CLIP: &str =
    "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 1M -c:a aac -ac 2 -b:a 128k";

/// Worker process of `channel`, by the log's order of opening: the one that holds the most memory maps of a ladder is
/// not told apart from outside, so each channel is published alone first.
fn new_worker(daemon: &Daemon, known: &[u32]) -> u32 {
    wait(Duration::from_secs(20), "a worker", || daemon.workers().into_iter().find(|pid| !known.contains(pid)))
}

fn newest_part(daemon: &Daemon, rendition: &str) -> String {
    let text = daemon.get(&format!("/live/hit/{rendition}.m3u8")).text();
    text.lines().rev().find(|l| l.starts_with("#EXT-X-PART:")).unwrap_or("").to_owned()
}

/// Waits for a part that was not there, and says how long that took.
fn next_part(daemon: &Daemon, rendition: &str) -> Duration {
    let (before, start) = (newest_part(daemon, rendition), SystemClock::mono());
    wait(Duration::from_secs(20), "the next part", || (newest_part(daemon, rendition) != before).then_some(()));
    SystemClock::mono() - start
}

#[track_caller]
fn assert_whole(fetched: &Fetched, what: &str, pictures: u32) {
    fetched.assert_segments_begin_with_idr(what);
    let counters = fetched.counters();
    let read: Vec<u32> = counters.iter().map(|c| c.unwrap_or_else(|| panic!("{what}: unread: {counters:?}"))).collect();
    for pair in read.windows(2) {
        assert_eq!(pair[1], (pair[0] + 1) % pictures, "{what}: pictures follow each other: {read:?}");
    }
}

#[test]
fn a_killed_or_stopped_worker_costs_time_and_no_media() {
    daemon::with_room(a_killed_or_stopped_worker_costs_time_and_no_media_once);
}

fn a_killed_or_stopped_worker_costs_time_and_no_media_once() {
    // The long form is for a machine that does nothing else: it asks for the promised times, too.
    let long = std::env::var_os("RUNG_LONG").is_some();
    let times = if long { 20 } else { 3 };
    let pictures = 500;
    let file = clip(
        "respawn-20.ts",
        Drawn { width: 640, height: 360, rate: "25", pictures },
        &["sine=frequency=440:sample_rate=48000:duration=20"],
        CLIP,
    );
    let ladder = "ladder = [{ name = \"360p\", height = 360, bitrate = 700000 }, \
                  { name = \"180p\", height = 180, bitrate = 300000 }]";
    let daemon = Daemon::start(&format!(
        "[[bootstrap.channel]]\nname = \"hit\"\npreset = \"ultrafast\"\n{ladder}\n\
         [[bootstrap.channel]]\nname = \"other\"\npreset = \"ultrafast\"\n{ladder}\n"
    ));
    let _other = push_loop(&file, &daemon.publish_url("other"), &[]);
    let other_worker = new_worker(&daemon, &[]);
    let _hit = push_loop(&file, &daemon.publish_url("hit"), &[]);
    for name in ["hit", "other"] {
        daemon.wait_for(&format!("/live/{name}/index.m3u8"), Duration::from_secs(30));
    }
    let (hit, other) = (Follow::start(daemon.http, "hit"), Follow::start(daemon.http, "other"));
    let mut late = Vec::new();
    for round in 0..2 * times {
        // Not at the same place of a part each time.
        let mut quiet = next_part(&daemon, "360p");
        for _ in 0..8 + round % 3 {
            quiet = quiet.max(next_part(&daemon, "360p"));
        }
        let victim = new_worker(&daemon, &[other_worker]);
        let with = if round % 2 == 0 { "KILL" } else { "STOP" };
        signal(victim, with);
        let took = next_part(&daemon, "360p");
        wait(Duration::from_secs(10), "a successor", || (!daemon.workers().contains(&victim)).then_some(()));
        println!("{with}: next part after {:.2} s (before: at most {:.2} s)", took.as_secs_f64(), quiet.as_secs_f64());
        late.push((with, took));
    }
    for _ in 0..9 {
        next_part(&daemon, "360p");
    }
    let respawns = daemon.log().matches("worker_back").count();
    assert!(respawns >= 2 * times, "{respawns} successors");
    assert!(daemon.workers().contains(&other_worker), "the other channel's worker is untouched");
    let (hit, other) = (hit.stop(), other.stop());
    println!("hit: {:?}\nother: {:?}", hit.report, other.report);
    for (seen, what) in [(&other, "the other channel"), (&hit, "the channel that was hit")] {
        seen.assert_satisfied(what);
        assert_eq!((seen.report.gaps, seen.report.discontinuities), (0, 0), "{what}: {:?}", seen.report);
        for name in ["360p", "180p"] {
            assert_whole(seen.rendition(name), &format!("{what} {name}"), pictures);
        }
    }
    for name in ["360p", "180p"] {
        let longest = other.rendition(name).longest_wait();
        assert!(longest < Duration::from_millis(if long { 1_500 } else { 6_000 }), "the other channel: {longest:?}");
    }
    let longest = late.iter().map(|(_, took)| *took).max().expect("some");
    println!("latest next part: {:.2} s", longest.as_secs_f64());
    assert!(longest < Duration::from_secs(if long { 5 } else { 15 }), "{late:?}");
}

/// Encoders with B frames put frames of one part behind frames of the next: what is cut off there would show a picture
/// twice or never.
#[test]
fn with_b_frames_a_successor_repeats_and_leaves_out_no_picture() {
    daemon::with_room(with_b_frames_a_successor_repeats_and_leaves_out_no_picture_once);
}

fn with_b_frames_a_successor_repeats_and_leaves_out_no_picture_once() {
    let pictures = 500;
    let file = clip(
        "respawn-20.ts",
        Drawn { width: 640, height: 360, rate: "25", pictures },
        &["sine=frequency=440:sample_rate=48000:duration=20"],
        CLIP,
    );
    let daemon = Daemon::start(
        "[[bootstrap.channel]]\nname = \"hit\"\nmode = \"low\"\npreset = \"superfast\"\n\
         ladder = [{ name = \"180p\", height = 180, bitrate = 300000 }]\n",
    );
    let _hit = push_loop(&file, &daemon.publish_url("hit"), &[]);
    daemon.wait_for("/live/hit/index.m3u8", Duration::from_secs(30));
    let hit = Follow::start(daemon.http, "hit");
    let segments = || daemon.get("/live/hit/180p.m3u8").text().matches("#EXTINF").count();
    for round in 0..4u64 {
        let before = segments();
        wait(Duration::from_secs(20), "the next segment", || (segments() > before).then_some(()));
        // At another place of the segment each time: the encoder is in the middle of something.
        std::thread::sleep(Duration::from_millis(450 * round));
        let victim = new_worker(&daemon, &[]);
        signal(victim, "KILL");
        wait(Duration::from_secs(10), "a successor", || (!daemon.workers().contains(&victim)).then_some(()));
    }
    let before = segments();
    wait(Duration::from_secs(30), "three more segments", || (segments() >= before + 3).then_some(()));
    assert!(daemon.log().matches("worker_back").count() >= 4, "four successors");
    let hit = hit.stop();
    hit.assert_satisfied("low");
    assert_eq!((hit.report.gaps, hit.report.discontinuities), (0, 0), "{:?}", hit.report);
    assert_whole(hit.rendition("180p"), "low 180p", pictures);
}

//! A publisher dies and comes back, in real time: its viewers see hold, slate and the picture again, in one session;
//! a source that stays away too long ends it.

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
use follow::{Follow, Followed};
use numbered::{Drawn, clip};
use rung::time::SystemClock;

const PICTURES: u32 = 500;
const CLIP: &str =
    "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 1M -c:a aac -ac 2 -b:a 128k";
/// Away for so long, one after the other; the last is longer than the window of ten seconds.
const AWAY_S: [u64; 4] = [1, 5, 8, 15];

fn state(daemon: &Daemon) -> (String, String) {
    let status: serde_json::Value = serde_json::from_slice(&daemon.get("/status.json").body).expect("JSON");
    let text = |key: &str| status["channels"][0][key].as_str().unwrap_or("").to_owned();
    (text("state"), text("session"))
}

/// Lives through all outages; what a viewer saw until the session's end.
fn live_through(kind: &str) -> (Daemon, Followed) {
    let drawn = Drawn { width: 640, height: 360, rate: "25", pictures: PICTURES };
    let file = clip("reconnect-20.ts", drawn, &["sine=frequency=440:sample_rate=48000:duration=20"], CLIP);
    let ladder = match kind {
        "transmux" => "",
        _ => {
            "preset = \"ultrafast\"\nladder = [{ name = \"270p\", height = 270, bitrate = 500000 }, \
              { name = \"180p\", height = 180, bitrate = 300000 }]\n"
        }
    };
    let daemon = Daemon::start(&format!(
        "[[bootstrap.channel]]\nname = \"t\"\nkind = \"{kind}\"\nend_on_eos = false\ntakeover = \"newest\"\n{ladder}"
    ));
    let mut publisher = Some(push_loop(&file, &daemon.publish_url("t"), &[]));
    daemon.wait_for("/live/t/index.m3u8", Duration::from_secs(30));
    let live = |what: &str| wait(Duration::from_secs(20), what, || (state(&daemon).0 == "live").then_some(()));
    live("the session to be live");
    let (follow, session) = (Follow::start(daemon.http, "t"), state(&daemon).1);
    for away in AWAY_S {
        std::thread::sleep(Duration::from_secs(7));
        assert_eq!(state(&daemon), ("live".to_owned(), session.clone()));
        let killed = publisher.take().expect("on air");
        signal(killed.0.id(), "KILL");
        drop(killed);
        // Whatever is waited for in between.
        let back = SystemClock::mono() + Duration::from_secs(away);
        let pass = || std::thread::sleep(back - SystemClock::mono());
        if away > 3 {
            wait(Duration::from_secs(4), "the loss to be told", || (state(&daemon).0 == "reconnecting").then_some(()));
            assert_eq!(daemon.metric("rung_input_reconnecting{channel=\"t\"}"), 1.0);
            if away == 8 && kind != "transmux" {
                // In the middle of the slate its worker dies as well.
                let victim = daemon.workers()[0];
                signal(victim, "KILL");
                let gone = || daemon.log().contains("worker_back").then_some(());
                wait(Duration::from_secs(3), "a successor", gone);
            }
        }
        pass();
        if away < 12 {
            publisher = Some(push_loop(&file, &daemon.publish_url("t"), &[]));
            live("the source to be back");
        }
    }
    let seen = follow.until_ended(Duration::from_secs(20));
    assert!(seen.report.ended, "{:?}", seen.report);
    let log = daemon.log();
    assert!(log.contains("input_timeout"), "{log}");
    assert_eq!(log.matches("code=\"input_lost\"").count(), 3, "one second of silence is none: {log}");
    assert_eq!(log.matches("code=\"input_restored\"").count(), 2, "{log}");
    // Whoever comes now makes a session of its own.
    let _next = push_loop(&file, &daemon.publish_url("t"), &[]);
    wait(Duration::from_secs(20), "another session", || {
        let (state, id) = state(&daemon);
        (state == "live" && id != session).then_some(())
    });
    println!("{kind}: {:?}", seen.report);
    (daemon, seen)
}

/// Pictures of the source in order, each once; held ones at the end of a stretch, then slate.
fn assert_stretches(seen: &Followed, name: &str) {
    let counters = seen.rendition(name).counters();
    let (mut stretches, mut held, mut slate, mut lost, mut last) = (1, 0, 0, 0, None);
    for counter in &counters {
        match (last, *counter) {
            (_, None) => slate += 1,
            (Some(before), Some(now)) if now == before => held += 1,
            (Some(before), Some(now)) if now == (before + 1) % PICTURES => {}
            // The publisher begins its file anew.
            (Some(_), Some(0)) => stretches += 1,
            // It was killed between a picture and the B pictures before it.
            (Some(before), Some(now)) if (2..=3).contains(&now.wrapping_sub(before)) => lost += 1,
            (Some(before), Some(now)) => panic!("{name}: {now} after {before}: {counters:?}"),
            (None, Some(_)) => {}
        }
        last = counter.or(last);
    }
    println!("{name}: {} pictures, {stretches} stretches, {held} held, {slate} slate", counters.len());
    assert!(lost <= AWAY_S.len(), "{name}: {lost} pictures are missing");
    // Away for 1 + 5 + 8 s, and 10 to the end of the window; connecting takes some more, each hold is a second.
    assert!(stretches == 4 || stretches == 3, "{name}: {stretches} stretches");
    assert!((75..250).contains(&held), "{name}: {held} held");
    // The last segment may end before a viewer has fetched it whole.
    assert!((16 * 25..35 * 25).contains(&slate), "{name}: {slate} of slate");
}

#[test]
fn a_ladder_goes_on_through_every_outage_without_gap_or_discontinuity() {
    daemon::with_room(|| {
        let (_daemon, seen) = live_through("transcode");
        seen.assert_satisfied("transcode");
        assert_eq!((seen.report.gaps, seen.report.discontinuities), (0, 0), "{:?}", seen.report);
        for name in ["270p", "180p"] {
            seen.rendition(name).assert_segments_begin_with_idr(name);
            assert_stretches(&seen, name);
        }
    });
}

#[test]
fn below_a_source_that_is_away_the_ladder_goes_on() {
    daemon::with_room(|| {
        let (_daemon, seen) = live_through("hybrid");
        seen.assert_satisfied("hybrid");
        let gaps = seen.gaps();
        assert!(gaps.iter().all(|(name, _)| name == "source"), "{gaps:?}");
        assert!(seen.report.gaps > 0 && seen.report.discontinuities > 0, "{:?}", seen.report);
    });
}

#[test]
fn the_untouched_source_shows_gaps_and_comes_back() {
    daemon::with_room(|| {
        let (_daemon, seen) = live_through("transmux");
        seen.assert_satisfied("transmux");
        let gaps = seen.gaps();
        assert!(!gaps.is_empty() && gaps.iter().all(|(name, _)| name == "source"), "{gaps:?}");
        assert!(seen.report.discontinuities > 0, "{:?}", seen.report);
    });
}

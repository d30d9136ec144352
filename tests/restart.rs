//! The daemon dies, or is stopped for an upgrade, and another process takes its place: sessions go on with their numbers.

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
use follow::Follow;
use numbered::{Drawn, clip};

const CLIP: &str =
    "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 600k -c:a aac -ac 2 -b:a 96k";
const LADDER: &str = "preset = \"ultrafast\"\nladder = [{ name = \"180p\", height = 180, bitrate = 300000 }]\n";

/// State and session of a channel.
fn state(daemon: &Daemon, channel: &str) -> (String, String) {
    let status: serde_json::Value = serde_json::from_slice(&daemon.get("/status.json").body).expect("JSON");
    let channels = status["channels"].as_array().expect("channels");
    let one = channels.iter().find(|c| c["name"] == channel).expect("there");
    let text = |key: &str| one[key].as_str().unwrap_or("").to_owned();
    (text("state"), text("session"))
}

fn wait_live(daemon: &Daemon, channel: &str, limit: u64) -> String {
    wait(Duration::from_secs(limit), &format!("{channel} to be live"), || {
        let (state, session) = state(daemon, channel);
        (state == "live").then_some(session)
    })
}

/// A daemon with a channel of `kind` is killed, then stopped, each time in mid-air.
fn survive(kind: &str) {
    let drawn = Drawn { width: 320, height: 180, rate: "25", pictures: 500 };
    let file = clip("restart-20.ts", drawn, &["sine=frequency=440:sample_rate=48000:duration=20"], CLIP);
    let ladder = if kind == "transmux" { "" } else { LADDER };
    let mut daemon =
        Daemon::start(&format!("[[bootstrap.channel]]\nname = \"t\"\nkind = \"{kind}\"\nend_on_eos = false\n{ladder}"));
    let _publisher = push_loop(&file, &daemon.publish_url("t"), &["--reconnect"]);
    let session = wait_live(&daemon, "t", 30);
    let follow = Follow::through_restarts(daemon.http, "t");
    for how in ["KILL", "TERM"] {
        std::thread::sleep(Duration::from_secs(6));
        signal(daemon.pid(), how);
        daemon.wait_exit();
        let next = daemon.again_here();
        daemon = next;
        // 404 would make players give up: the playlist is there, or about to be.
        let status = daemon.get("/live/t/index.m3u8").status;
        assert!(status == 200 || status == 503, "{kind}, {how}: {status}");
        assert_eq!(wait_live(&daemon, "t", 20), session, "{kind}, {how}: the same session");
    }
    std::thread::sleep(Duration::from_secs(5));
    let seen = follow.stop();
    println!("{kind}: {:?}", seen.report);
    seen.assert_satisfied(kind);
    assert!(!seen.report.ended && seen.report.unanswered > 0 && seen.report.gaps > 0, "{:?}", seen.report);
    let broken = if kind == "transcode" { 0 } else { seen.report.discontinuities };
    assert_eq!(seen.report.discontinuities, broken, "{:?}", seen.report);
    let log = daemon.log();
    assert_eq!(log.matches("(resumed)").count(), 2, "{log}");
    assert!(!log.contains("code=\"panicked\""), "{log}");
}

#[test]
fn a_ladder_goes_on_in_another_process_without_a_discontinuity() {
    daemon::with_room(|| survive("transcode"));
}

#[test]
fn a_source_rendition_goes_on_in_another_process() {
    daemon::with_room(|| survive("transmux"));
}

#[test]
fn a_source_and_its_ladder_go_on_in_another_process() {
    daemon::with_room(|| survive("hybrid"));
}

#[test]
fn a_publisher_that_is_interrupted_says_that_it_is_the_end() {
    let drawn = Drawn { width: 320, height: 180, rate: "25", pictures: 500 };
    let file = clip("restart-20.ts", drawn, &["sine=frequency=440:sample_rate=48000:duration=20"], CLIP);
    let daemon = Daemon::start("[[bootstrap.channel]]\nname = \"t\"\nkind = \"transmux\"\n");
    let mut publisher = push_loop(&file, &daemon.publish_url("t"), &["--reconnect"]);
    wait_live(&daemon, "t", 30);
    signal(publisher.0.id(), "TERM");
    let status = wait(Duration::from_secs(5), "its exit", || publisher.0.try_wait().expect("own child"));
    assert!(status.success(), "{status}");
    wait(Duration::from_secs(3), "the session's end", || daemon.log().contains("(eos)").then_some(()));
}

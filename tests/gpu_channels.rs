//! Channels on GPUs, from SRT to LL-HLS, with the driver's double: what befalls a GPU moves its channels, and viewers go on.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../worker/tests/support/double.rs"]
mod double;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[path = "support/numbered.rs"]
mod numbered;
#[path = "support/on_gpus.rs"]
mod on_gpus;

use std::path::PathBuf;
use std::time::Duration;

use daemon::{Daemon, push_loop, signal, wait};
use double::Driver;
use follow::Follow;
use numbered::{Drawn, clip};
use on_gpus::{PATIENT, serve};
use serde_json::Value;

/// However loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
const PICTURES: u32 = 500;
const CHANNEL: &str = "[[bootstrap.channel]]\nname = \"news\"\n\
    ladder = [{ name = \"180p\", height = 180, bitrate = 300000 }, { name = \"90p\", height = 90, bitrate = 100000 }]\n";

fn source() -> PathBuf {
    clip(
        "gpu-20.ts",
        Drawn { width: 320, height: 180, rate: "25", pictures: PICTURES },
        &["sine=frequency=440:sample_rate=48000:duration=20"],
        "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 500k -c:a aac -ac 2 -b:a 128k",
    )
}

/// The channel's newest session, as the API tells it.
fn session(daemon: &Daemon) -> Value {
    daemon.ask("/v1/sessions?channel=news&limit=1")["items"][0].clone()
}

/// Where the session runs: backend, GPU, steps that it came down.
fn runs_on(daemon: &Daemon) -> (String, Option<u64>, u64) {
    let place = &session(daemon)["runs_on"];
    (place["backend"].as_str().unwrap_or("").to_owned(), place["gpu"].as_u64(), place["step"].as_u64().unwrap_or(0))
}

fn newest_part(daemon: &Daemon) -> String {
    let text = daemon.get("/live/news/90p.m3u8").text();
    text.lines().rev().find(|line| line.starts_with("#EXT-X-PART:")).unwrap_or("").to_owned()
}

/// Some seconds of media more, made where it is now.
fn some_more(daemon: &Daemon) {
    for _ in 0..9 {
        let before = newest_part(daemon);
        wait(PATIENCE, "the next part", || (newest_part(daemon) != before).then_some(()));
    }
}

#[test]
fn a_channel_leaves_a_gpu_that_is_ill_and_viewers_see_every_picture() {
    daemon::with_room(a_channel_leaves_a_gpu_that_is_ill_and_viewers_see_every_picture_once);
}

fn a_channel_leaves_a_gpu_that_is_ill_and_viewers_see_every_picture_once() {
    let mut driver = Driver::new().gpus(2);
    let daemon = serve(&driver, PATIENT, CHANNEL);
    let place = |what: &str, wanted: (&str, Option<u64>, u64)| {
        let wanted = (wanted.0.to_owned(), wanted.1, wanted.2);
        wait(PATIENCE, what, || (runs_on(&daemon) == wanted).then_some(()));
    };
    let _publisher = push_loop(&source(), &daemon.publish_url("news"), &[]);
    daemon.wait_for("/live/news/index.m3u8", PATIENCE);
    place("a place on the first GPU", ("gpu", Some(0), 0));
    let viewer = Follow::start(daemon.http, "news");
    some_more(&daemon);
    // Its process dies: another one on the same GPU.
    let workers = daemon.workers();
    assert_eq!(workers.len(), 1, "{workers:?}");
    signal(workers[0], "KILL");
    place("the same GPU once more", ("gpu", Some(0), 1));
    some_more(&daemon);
    // The driver says that the GPU can not be relied upon, while it goes on working.
    driver.set("event", "0:xid:95");
    place("the other GPU", ("gpu", Some(1), 2));
    some_more(&daemon);
    let followed = viewer.stop();
    followed.assert_satisfied("the viewer");
    assert_eq!((followed.report.gaps, followed.report.discontinuities), (0, 0), "{:?}", followed.report);
    for name in ["180p", "90p"] {
        let fetched = followed.rendition(name);
        fetched.assert_segments_begin_with_idr(name);
        let counters: Vec<u32> = fetched.counters().iter().map(|c| c.expect("it can be read")).collect();
        let follows = counters.windows(2).all(|pair| pair[1] == (pair[0] + 1) % PICTURES);
        assert!(follows, "{name}: pictures follow each other: {counters:?}");
    }
    let copies = daemon.metric("rung_picture_copies_total{channel=\"news\"}");
    assert_eq!(copies, 0.0, "a picture crossed the bus");
    driver.set("event", "1:xid:95");
    place("the CPU", ("software", None, 3));
    some_more(&daemon);
    assert_eq!(driver.broken(), Vec::<String>::new());
}

#[test]
fn a_channel_that_finds_no_place_is_in_error_with_the_reason() {
    let driver = Driver::new().setting("gpus", 0);
    let daemon = serve(&driver, PATIENT, &format!("{CHANNEL}backend = \"gpu\"\n"));
    let _publisher = push_loop(&source(), &daemon.publish_url("news"), &[]);
    let session = wait(PATIENCE, "the error", || Some(session(&daemon)).filter(|session| session["state"] == "error"));
    let why = session["error"]["detail"].as_str().expect("a sentence");
    assert!(why.contains("no capacity: there is no GPU: ") && why.contains("sees no GPU"), "{why}");
    assert_eq!(session["runs_on"]["backend"], "none", "{session}");
}

#[test]
fn a_gpu_whose_driver_comes_up_after_the_daemon_is_used() {
    let driver = Driver::new().without("libcuda.so.1");
    let daemon = serve(&driver, PATIENT, CHANNEL);
    let found = || daemon.log().lines().find(|line| line.contains("gpu_found")).map(str::to_owned);
    wait(PATIENCE, "the word", || daemon.log().contains("no libcuda.so.1").then_some(()));
    assert_eq!(found(), None);
    let installed = Driver::new();
    for name in ["libcuda.so.1", "libcuda.so"] {
        let library = installed.folder().join(name).canonicalize().expect("it is there");
        std::os::unix::fs::symlink(library, driver.folder().join(name)).expect("free");
    }
    let line = wait(PATIENCE, "the GPU", found);
    assert!(line.contains("GPU 0 at 0000:01:00"), "{line}");
    let _publisher = push_loop(&source(), &daemon.publish_url("news"), &[]);
    daemon.wait_for("/live/news/index.m3u8", PATIENCE);
    assert_eq!(runs_on(&daemon), ("gpu".to_owned(), Some(0), 0));
    assert_eq!(daemon.log().matches("\"no_gpu\"").count(), 1, "said once: {}", daemon.log());
}

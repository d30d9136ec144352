//! Crop and logo from outside: a letterboxed source over SRT, a logo that is put, moved and taken away while it is on air,
//! and what players and posters show of it, pixel by pixel.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[expect(dead_code, reason = "`follow` reads counters with it")]
#[path = "support/numbered.rs"]
mod numbered;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use daemon::{Daemon, clip, push_loop, signal, wait};
use follow::Follow;
use rung::time::SystemClock;

/// A source of 640x360 whose picture is 640x272, grey, between bars of 44 rows.
fn letterboxed() -> PathBuf {
    let picture = "color=0x6e6e6e:s=640x272:r=25:d=20,pad=640:360:0:44:black,format=yuv420p";
    let sound = "sine=frequency=440:sample_rate=48000:duration=20";
    let mut args = vec!["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound];
    args.extend("-c:v libx264 -preset veryfast -bf 0 -g 50 -keyint_min 50 -sc_threshold 0 -c:a aac -ac 2".split(' '));
    clip("letterboxed-20.ts", &args)
}

/// White, twice as wide as high.
fn logo(daemon: &Daemon) -> PathBuf {
    let file = daemon.folder().join("logo.png");
    let args = ["-v", "error", "-y", "-f", "lavfi", "-i", "color=white:s=200x100,format=rgba", "-frames:v", "1"];
    assert!(Command::new("ffmpeg").args(args).arg(&file).status().expect("ffmpeg is installed").success());
    file
}

/// `rung channel logo`; what it says.
fn run(daemon: &Daemon, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.args(["channel", "logo", "wide"]).args(args).args(["--server", &daemon.url("")]);
    command.arg("--token-file").arg(daemon.folder().join("rung-data/admin.token"));
    let output = command.stdin(Stdio::null()).output().expect("rung starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Grey pictures of `width` x `height` in a file of any kind.
fn pictures(file: &[u8], width: usize, height: usize) -> Vec<Vec<u8>> {
    let mut child = Command::new("ffmpeg")
        .args(["-v", "error", "-i", "pipe:0", "-map", "0:v", "-f", "rawvideo", "-pix_fmt", "gray", "-fps_mode"])
        .args(["passthrough", "pipe:1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ffmpeg is installed");
    let (mut input, bytes) = (child.stdin.take().expect("piped"), file.to_vec());
    let feeder = std::thread::spawn(move || drop(input.write_all(&bytes)));
    let output = child.wait_with_output().expect("own child");
    feeder.join().expect("it only writes");
    assert!(output.status.success() && output.stdout.len().is_multiple_of(width * height), "not {width}x{height}");
    output.stdout.chunks(width * height).map(<[u8]>::to_vec).collect()
}

/// Of each corner whether the logo covers it: a tenth of the width and 5 % margin, twice as wide as high. Everything else
/// is the source's grey, up to the very edges.
#[track_caller]
fn corners(picture: &[u8], width: usize, height: usize) -> String {
    let (margin, w, h) = (width / 20, width / 5, width / 10);
    let inside = |x: usize, y: usize| {
        let column = if x < width / 2 { (x, 0) } else { (width - 1 - x, 1) };
        let row = if y < height / 2 { (y, 0) } else { (height - 1 - y, 2) };
        // Edges are soft in a picture that was encoded.
        let near = |n: usize, size: usize| (margin.saturating_sub(6)..margin + size + 6).contains(&n);
        let within = |n: usize, size: usize| (margin + 6..margin + size - 6).contains(&n);
        (within(column.0, w) && within(row.0, h), near(column.0, w) && near(row.0, h), column.1 + row.1)
    };
    let mut corners = [(0usize, 0usize); 4];
    for (at, luma) in picture.iter().enumerate() {
        let (x, y) = (at % width, at / width);
        let (deep, close, corner) = inside(x, y);
        if deep {
            corners[corner].0 += 1;
            corners[corner].1 += usize::from(*luma);
        }
        assert!(close || (90..130).contains(luma), "luma {luma} at {x},{y} of {width}x{height}");
    }
    corners
        .iter()
        .map(|(count, sum)| match sum / count {
            90..130 => '-',
            230.. => 'w',
            _ => '?',
        })
        .collect()
}

/// `None`: it is not live.
fn snapshot(daemon: &Daemon) -> Option<Vec<u8>> {
    let file = daemon.folder().join("snapshot.jpg");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.args(["channel", "snapshot", "wide", "-o"]).arg(&file).args(["--server", &daemon.url("")]);
    command.arg("--token-file").arg(daemon.folder().join("rung-data/admin.token")).stdout(Stdio::null());
    let taken = command.stderr(Stdio::null()).status().expect("rung starts").success();
    taken.then(|| std::fs::read(file).expect("written"))
}

/// Until a snapshot shows `wanted`; how long that took.
fn shows(daemon: &Daemon, wanted: &str) -> Duration {
    let start = SystemClock::mono();
    wait(Duration::from_secs(20), wanted, || {
        let seen = corners(&pictures(&snapshot(daemon)?, 320, 136)[0], 320, 136);
        (seen == wanted).then_some(())
    });
    SystemClock::mono() - start
}

fn keep(what: &str, bytes: &[u8]) {
    // For whoever wants to look at it.
    if let Some(folder) = std::env::var_os("RUNG_TEST_PICTURES") {
        std::fs::write(Path::new(&folder).join(what), bytes).expect("writable");
    }
}

#[test]
fn a_letterboxed_source_is_cut_and_a_logo_comes_moves_and_goes_on_air() {
    daemon::with_room(a_letterboxed_source_is_cut_and_a_logo_comes_moves_and_goes_on_air_once);
}

fn a_letterboxed_source_is_cut_and_a_logo_comes_moves_and_goes_on_air_once() {
    let mut daemon = Daemon::start(
        "[[bootstrap.channel]]\nname = \"wide\"\npreset = \"ultrafast\"\ncrop = { top = 44, bottom = 44 }\n\
         end_on_eos = false\nreconnect_window_s = 60\n\
         ladder = [{ name = \"full\", height = 360, bitrate = 900000 }, \
         { name = \"large\", height = 272, bitrate = 700000 }, { name = \"half\", height = 136, bitrate = 300000 }]\n",
    );
    let logo = logo(&daemon);
    let publisher = push_loop(&letterboxed(), &daemon.publish_url("wide"), &[]);
    let index = daemon.wait_for("/live/wide/index.m3u8", Duration::from_secs(30)).text();
    assert!(index.contains("RESOLUTION=640x272") && index.contains("RESOLUTION=320x136"), "{index}");
    assert!(!index.contains("full.m3u8"), "nothing is upscaled to the rows that were cut off: {index}");
    let follow = Follow::start(daemon.http, "wide");
    shows(&daemon, "----");
    let place = ["--corner", "top-right", "--width", "20", "--margin", "5"];
    let said = run(&daemon, &[&[logo.to_str().expect("ASCII")], &place[..]].concat());
    assert!(said.contains("a logo of 200x100 pixels, top-right, 20 % wide, 5 % from the edges"), "{said}");
    let came = shows(&daemon, "-w--");
    keep("snapshot.jpg", &snapshot(&daemon).expect("live"));
    run(&daemon, &["--corner", "bottom-left"]);
    let moved = shows(&daemon, "--w-");
    println!("seen after {:.2} s, moved after {:.2} s", came.as_secs_f64(), moved.as_secs_f64());
    // A poster is made each 5 s, of the lowest rendition.
    wait(Duration::from_secs(20), "a poster with the logo", || {
        let poster = daemon.get("/live/wide/poster.jpg").body;
        (corners(&pictures(&poster, 320, 136)[0], 320, 136) == "--w-").then(|| keep("poster.jpg", &poster))
    });
    // A worker's successor shows it from its first frame on.
    let victim = daemon.workers()[0];
    signal(victim, "KILL");
    wait(Duration::from_secs(20), "a successor", || daemon.log().contains("worker_back").then_some(()));
    shows(&daemon, "--w-");
    let segments = || daemon.get("/live/wide/half.m3u8").text().matches("#EXTINF").count();
    let before = segments();
    wait(Duration::from_secs(20), "the next segments", || (segments() > before + 1).then_some(()));
    run(&daemon, &["--remove"]);
    shows(&daemon, "----");
    let before = segments();
    wait(Duration::from_secs(20), "the next segments", || (segments() > before + 1).then_some(()));
    let seen = follow.stop();
    seen.assert_satisfied("wide");
    assert_eq!((seen.report.gaps, seen.report.discontinuities), (0, 0), "{:?}", seen.report);
    for (rendition, width, height) in [("large", 640, 272), ("half", 320, 136)] {
        let fetched = seen.rendition(rendition);
        keep(&format!("{rendition}.mp4"), &fetched.file());
        let mut states: Vec<String> =
            pictures(&fetched.file(), width, height).iter().map(|p| corners(p, width, height)).collect();
        states.dedup();
        assert_eq!(states, ["----", "-w--", "--w-", "----"], "{rendition}");
    }
    // In another process it is as it was left.
    run(&daemon, &[logo.to_str().expect("ASCII"), "--corner", "top-left"]);
    shows(&daemon, "w---");
    assert!(daemon.stop().success());
    drop(publisher);
    let next = daemon.again();
    let _publisher = push_loop(&letterboxed(), &next.publish_url("wide"), &[]);
    next.wait_for("/live/wide/index.m3u8", Duration::from_secs(30));
    wait(Duration::from_secs(20), "media again", || next.log().contains("input_restored").then_some(()));
    shows(&next, "w---");
}

/// The open session of `wide`, as the API tells of it.
fn session(daemon: &Daemon) -> serde_json::Value {
    let id = daemon.ask("/v1/channels/wide")["session"].as_str().expect("on air").to_owned();
    daemon.ask(&format!("/v1/sessions/{id}"))
}

#[test]
fn a_source_that_the_crop_is_not_for_is_shown_whole_and_told_of_until_another_one_comes() {
    let daemon = Daemon::start(
        "[[bootstrap.channel]]\nname = \"wide\"\npreset = \"ultrafast\"\ncrop = { top = 44, bottom = 44 }\n\
         end_on_eos = false\nreconnect_window_s = 60\ntakeover = \"newest\"\n\
         ladder = [{ name = \"half\", height = 136, bitrate = 300000 }]\n",
    );
    let args = "-f lavfi -i color=0x6e6e6e:s=160x96:r=25:d=20,format=yuv420p -f lavfi -i sine=sample_rate=48000:duration=20 \
                -c:v libx264 -preset veryfast -bf 0 -g 50 -keyint_min 50 -sc_threshold 0 -c:a aac -ac 2";
    let small = clip("small-20.ts", &args.split_whitespace().collect::<Vec<_>>());
    let told = |code: &str| daemon.log().matches(&format!("code=\"{code}\"")).count();
    // Each takes over from the one before.
    let _first = push_loop(&letterboxed(), &daemon.publish_url("wide"), &[]);
    shows(&daemon, "----");
    let first = session(&daemon);
    assert_eq!((first["health"].clone(), told("crop_unfit")), (serde_json::json!([]), 0));
    let _second = push_loop(&small, &daemon.publish_url("wide"), &[]);
    wait(Duration::from_secs(20), "the trouble", || (told("crop_unfit") == 1).then_some(()));
    wait(Duration::from_secs(20), "its mark", || (session(&daemon)["health"][0] == "crop_unfit").then_some(()));
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("crop_unfit")).expect("told");
    assert!(line.contains("top 44, bottom 44 leaves too little of a source of 160x96: all of it is shown"), "{line}");
    // Stretched to the renditions, which keep their size, but shown: no edge is missing, and nothing is black.
    shows(&daemon, "----");
    let _third = push_loop(&letterboxed(), &daemon.publish_url("wide"), &[]);
    wait(Duration::from_secs(20), "the end of it", || (told("crop_fits") == 1).then_some(()));
    wait(Duration::from_secs(20), "no mark", || (session(&daemon)["health"][0].is_null()).then_some(()));
    shows(&daemon, "----");
    assert_eq!((&session(&daemon)["id"], told("crop_unfit")), (&first["id"], 1), "one session, one line");
}

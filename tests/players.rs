//! A live channel in players that are not Rung's page: hls.js and Shaka as they come, side by side in a real browser, with
//! forced switches. `make prove` does it for a quarter of an hour, and once more with everything that a source may do.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/numbered.rs"]
mod numbered;

use std::process::{Command, Stdio};
use std::time::Duration;

use daemon::{Daemon, Running, push_loop, wait};
use numbered::{Drawn, clip};
use serde_json::Value;

const SECONDS: u64 = 25;

/// What `tests/browser/players.mjs` reports of each player.
fn play(url: &str) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/players.mjs");
    let mut command = Command::new("node");
    command.args([script, "--url", url, "--every", "8", "--seconds", &SECONDS.to_string()]).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("node starts");
    let mut child = Running(child);
    // Both pipes hold less than their buffer until the end: one report, a stack trace at most.
    wait(Duration::from_secs(SECONDS + 90), "the players' report", || child.0.try_wait().expect("own child"));
    let read = |pipe: Option<&mut dyn std::io::Read>| {
        let mut text = String::new();
        pipe.expect("piped").read_to_string(&mut text).expect("UTF-8");
        text
    };
    let (mut out, mut err) = (child.0.stdout.take(), child.0.stderr.take());
    let (out, err) = (read(out.as_mut().map(|p| p as _)), read(err.as_mut().map(|p| p as _)));
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("no report ({e}): {out}\n{err}"))
}

/// Whether pictures that are none of Rung's fault made the browser's decoder give up. Either ffmpeg decodes what it was
/// given to the last byte without a complaint: seen on busy machines, at the first picture behind a switch. Or the player
/// gave it one rendition's media behind another's init section: Shaka 5 never fetches the init section of a rendition
/// that it enters at a part which is not INDEPENDENT.
fn blames_the_player(got: &Value) -> bool {
    let errors = got["errors"].as_array().expect("a list");
    let mixed = |run: &Value| run["init"].as_array().expect("names").len() == 1 && run["foreign"].as_u64() > Some(0);
    let excused = |run: &Value| run["clean"] == true || mixed(run);
    errors.iter().any(|error| error["what"].as_str().is_some_and(|what| what.contains("PIPELINE_ERROR_DECODE")))
        && got["given"].as_array().is_some_and(|runs| !runs.is_empty() && runs.iter().all(excused))
}

fn assert_plays(name: &str, got: &Value) {
    assert!(got["playing"] == true && got["paused"] == false && got["lowLatency"] == true, "{name}: {got:#}");
    assert!(got["fatal"] == 0 && got["console"] == serde_json::json!([]), "{name}: {got:#}");
    // Zero stalls, every picture and the promised latency are asked by `make prove`, of a machine that does nothing else.
    let stalled: u64 = got["stalls"].as_array().expect("a list").iter().filter_map(|s| s["ms"].as_u64()).sum();
    assert!(stalled < 5_000, "{name}: {got:#}");
    let switches = got["switches"].as_array().expect("a list");
    assert!(switches.len() == 2 && switches.iter().all(|s| s["ok"] == true && s["from"] != s["to"]), "{name}: {got:#}");
    let frames = got["frames"].as_u64().expect("a number");
    assert!(frames > SECONDS * 25 * 7 / 10 && got["audio"].as_u64() > Some(SECONDS * 8_000), "{name}: {got:#}");
    let behind = got["latency"]["p50"].as_f64().expect("a number");
    assert!((1.2..10.0).contains(&behind), "{name}: {behind} s behind: {got:#}");
}

#[test]
fn hls_js_and_shaka_play_and_switch_at_ultra() {
    daemon::with_room(|| {
        let file = clip(
            "watch-20.ts",
            Drawn { width: 640, height: 360, rate: "25", pictures: 500 },
            &["sine=frequency=440:sample_rate=48000:duration=20"],
            "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 1M -c:a aac -ac 2 -b:a 128k",
        );
        let daemon = Daemon::start(
            "[[bootstrap.channel]]\nname = \"p\"\nmode = \"ultra\"\npreset = \"ultrafast\"\n\
             ladder = [{ name = \"360p\", height = 360, bitrate = 800000 }, \
             { name = \"180p\", height = 180, bitrate = 300000 }]\n",
        );
        let _publisher = push_loop(&file, &daemon.publish_url("p"), &[]);
        // Enough for PART-HOLD-BACK to be behind the edge.
        wait(Duration::from_secs(30), "two segments", || {
            (daemon.get("/live/p/360p.m3u8").text().matches("#EXTINF").count() >= 2).then_some(())
        });
        let report = (1..=3).map(|trial| (trial, play(&daemon.url("/live/p/index.m3u8")))).find(|(trial, report)| {
            println!("{report:#}");
            *trial == 3 || !report["players"].as_object().expect("players").values().any(blames_the_player)
        });
        let (_, report) = report.expect("the third is taken as it is");
        for name in ["hls.js", "shaka"] {
            assert_plays(name, &report["players"][name]);
        }
    });
}

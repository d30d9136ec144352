//! What the daemon writes down, and what is there after it was killed.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[path = "support/numbered.rs"]
mod numbered;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use daemon::{Daemon, push_loop, signal, wait};
use numbered::{Drawn, clip};
use serde_json::Value;

const CLIP: &str =
    "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 500k -c:a aac -ac 2 -b:a 96k";

/// Rows of one database of a folder whose daemon does not run, in key order.
fn rows(folder: &Path, database: &str) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_rung"))
        .args(["state", "export", "--folder"])
        .arg(folder)
        .output()
        .expect("rung runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|row| row["db"] == database).map(|row| row["value"].clone()).collect()
}

fn newest_msn(daemon: &Daemon) -> u64 {
    let text = daemon.get("/live/news/source.m3u8").text();
    let uris = text.lines().filter_map(|line| line.rsplit_once("/s")?.1.strip_suffix(".m4s")?.parse().ok());
    uris.max().unwrap_or(0)
}

#[test]
fn a_killed_daemon_finds_its_channels_and_sessions_again_and_numbers_go_on() {
    let drawn = Drawn { width: 320, height: 180, rate: "25", pictures: 250 };
    let file = clip("book-10.ts", drawn, &["sine=frequency=440:sample_rate=48000:duration=10"], CLIP);
    let channel = "[[bootstrap.channel]]\nname = \"news\"\nkind = \"transmux\"\nend_on_eos = false\n";
    let mut first = Daemon::start(channel);
    let folder = first.folder().join("rung-data");
    {
        let _publisher = push_loop(&file, &first.publish_url("news"), &["--reconnect"]);
        first.wait_for("/live/news/index.m3u8", Duration::from_secs(20));
        wait(Duration::from_secs(20), "two segments", || {
            (first.get("/live/news/source.m3u8").text().matches("#EXTINF").count() >= 2).then_some(())
        });
        let before = newest_msn(&first);
        signal(first.pid(), "KILL");
        first.wait_exit();
        let events = rows(&folder, "events");
        let names: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
        assert_eq!(
            names,
            ["channel.created", "session.created", "channel.active", "session.processing", "session.live"]
        );
        let sessions = rows(&folder, "sessions");
        assert_eq!((sessions.len(), &sessions[0]["state"]), (1, &Value::from("live")));
        assert_eq!(rows(&folder, "grid").len(), 1, "what a restart needs is written before it is used");

        let mut second = first.again();
        let _publisher = push_loop(&file, &second.publish_url("news"), &["--reconnect"]);
        second.wait_for("/live/news/index.m3u8", Duration::from_secs(20));
        wait(Duration::from_secs(10), "numbers above the old ones", || (newest_msn(&second) > before).then_some(()));
        signal(second.pid(), "KILL");
        second.wait_exit();
    }
    let sessions = rows(&folder, "sessions");
    let states: Vec<_> = sessions.iter().map(|s| (s["state"].as_str(), s["ended_reason"].as_str())).collect();
    assert_eq!(states, [(Some("live"), None)], "the same session goes on");
    let events = rows(&folder, "events");
    let of_channel: Vec<u64> = events.iter().filter_map(|event| event["channel_seq"].as_u64()).collect();
    assert_eq!(of_channel, (1..=of_channel.len() as u64).collect::<Vec<_>>(), "no event is missing or there twice");
}

/// A minute in real time: the shortest that a session may last.
#[test]
fn a_session_that_rolls_over_is_followed_by_another_and_viewers_see_nothing() {
    if std::env::var_os("RUNG_LONG").is_none() {
        return println!("SKIP it takes a minute: RUNG_LONG=1");
    }
    let drawn = Drawn { width: 320, height: 180, rate: "25", pictures: 250 };
    let file = clip("book-10.ts", drawn, &["sine=frequency=440:sample_rate=48000:duration=10"], CLIP);
    let mut daemon = Daemon::start("[[bootstrap.channel]]\nname = \"news\"\nkind = \"transmux\"\n");
    let folder = daemon.folder().join("rung-data");
    let set = Command::new(env!("CARGO_BIN_EXE_rung"))
        .args(["channel", "set", "news", "--field", "max_duration_s=60", "--field", "on_max_duration=rollover"])
        .args(["--server", &daemon.url("")])
        .arg("--token-file")
        .arg(folder.join("admin.token"))
        .output()
        .expect("rung runs");
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let _publisher = push_loop(&file, &daemon.publish_url("news"), &["--reconnect"]);
    daemon.wait_for("/live/news/index.m3u8", Duration::from_secs(20));
    let viewer = follow::Follow::start(daemon.http, "news");
    wait(Duration::from_secs(90), "the second session", || daemon.log().contains("rolled_over").then_some(()));
    std::thread::sleep(Duration::from_secs(6));
    let seen = viewer.stop();
    seen.assert_satisfied("rollover");
    let report = (seen.report.gaps, seen.report.discontinuities, seen.report.ended);
    assert_eq!(report, (0, 0, false), "{:?}", seen.report);
    signal(daemon.pid(), "KILL");
    daemon.wait_exit();
    let sessions = rows(&folder, "sessions");
    let states: Vec<_> = sessions.iter().map(|s| (s["state"].as_str(), s["ended_reason"].as_str())).collect();
    assert_eq!(states, [(Some("ended"), Some("max_duration")), (Some("live"), None)]);
    assert_eq!(rows(&folder, "grid").len(), 2, "the second one could be resumed as well");
}

fn set(daemon: &Daemon, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_rung"))
        .args(["channel", "set", "news"])
        .args(arguments)
        .args(["--server", &daemon.url("")])
        .arg("--token-file")
        .arg(daemon.folder().join("rung-data/admin.token"))
        .output()
        .expect("rung runs")
}

#[test]
fn where_players_are_steered_to_changes_at_once_and_stays_after_a_restart() {
    let mut daemon = Daemon::start(
        "[[bootstrap.channel]]\nname = \"news\"\nwindow_s = 120\nstart_offset_s = -30\nsteering = { pathways = [\
         { id = \"a\", base = \"https://a.example.com\" }, { id = \"b\", base = \"\" }] }\n",
    );
    let order = |daemon: &Daemon| -> Value {
        let manifest = daemon.get("/live/news/steering.json");
        serde_json::from_str::<Value>(&manifest.text()).expect("JSON")["PATHWAY-PRIORITY"].clone()
    };
    assert_eq!(order(&daemon), serde_json::json!(["a", "b"]));
    let file = daemon.folder().join("steering.json");
    let turned =
        r#"{"pathways": [{"id": "b", "base": ""}, {"id": "a", "base": "https://a.example.com"}], "ttl_s": 30}"#;
    std::fs::write(&file, turned).expect("writable");
    let told = set(&daemon, &["--steering", &file.display().to_string(), "--window", "60"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("steering in force\n") && told.contains("window_s in force from the next"), "{told}");
    let turn = || (order(&daemon) == serde_json::json!(["b", "a"])).then_some(());
    wait(Duration::from_secs(5), "the new order", turn);
    for (wrong, place) in [
        (["--window", "20000"], "window_s"),
        (["--start-offset", "-2"], "start_offset_s"),
        (["--field", "steering={\"pathways\": []}"], "steering"),
    ] {
        let told = set(&daemon, &wrong);
        let words = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(!told.status.success() && words.contains(place) && words.contains("write"), "{wrong:?}: {words}");
    }
    signal(daemon.pid(), "KILL");
    daemon.wait_exit();
    let daemon = daemon.again();
    wait(Duration::from_secs(5), "the order of before", || {
        (order(&daemon) == serde_json::json!(["b", "a"])).then_some(())
    });
}

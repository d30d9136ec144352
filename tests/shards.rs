//! A daemon of several threads: whatever publishers speak and wherever they come from, each channel runs on its own one.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/numbered.rs"]
mod numbered;

use std::path::PathBuf;
use std::time::Duration;

use daemon::{Daemon, KEY, Running, ffmpeg_listen, ffmpeg_publish, free_port, push_loop, signal, wait};
use numbered::{Drawn, clip};
use rung::media::channel::ChannelName;
use serde_json::Value;

const SHARDS: usize = 3;

fn media() -> PathBuf {
    let drawn = Drawn { width: 320, height: 180, rate: "25", pictures: 250 };
    let sound = ["sine=frequency=440:sample_rate=48000:duration=10"];
    clip(
        "shards-10.ts",
        drawn,
        &sound,
        "-c:v libx264 -preset veryfast -g 25 -keyint_min 25 -b:v 400k -c:a aac -b:a 96k",
    )
}

/// Names of channels, `PER` for each shard, those of one shard together.
const PER: usize = 3;

fn names() -> Vec<String> {
    let of = |shard: usize| {
        let all = (0..).map(|n| format!("c{n}"));
        all.filter(move |name| ChannelName::new(name).expect("a name").shard(SHARDS) == shard).take(PER)
    };
    (0..SHARDS).flat_map(of).collect()
}

fn wait_live(daemon: &Daemon, name: &str) -> String {
    wait(Duration::from_secs(30), &format!("{name} to be live"), || {
        let session = daemon.ask(&format!("/v1/channels/{name}"))["session"].as_str()?.to_owned();
        let record = daemon.ask(&format!("/v1/sessions/{session}"));
        (record["state"] == "live" && record["input"] == "connected").then_some(session)
    })
}

/// Processor time of each of the daemon's threads of media.
fn used(daemon: &Daemon) -> Vec<(String, u64)> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
    let read = |thread: std::fs::DirEntry| {
        let name = std::fs::read_to_string(thread.path().join("comm")).ok()?.trim().to_owned();
        let nanos = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some((name, nanos.split(' ').next()?.parse().ok()?))
    };
    let mut all: Vec<_> = threads.flatten().filter_map(read).filter(|(name, _)| name.starts_with("shard-")).collect();
    all.sort();
    all
}

/// The first channel of each shard is published to over SRT by libsrt, the second over QUIC, the third is called by Rung.
#[test]
fn every_protocol_reaches_every_shard_and_goes_on_after_a_kill() {
    let (file, names) = (media(), names());
    let ports: Vec<u16> = (0..SHARDS).map(|_| free_port()).collect();
    let tables = names.iter().enumerate().map(|(n, name)| {
        let pull = match n % PER {
            2 => format!("pull = \"srt://127.0.0.1:{}\"\n", ports[n / PER]),
            _ => String::new(),
        };
        format!(
            "[[bootstrap.channel]]\nname = \"{name}\"\nkind = \"transmux\"\nend_on_eos = false\n\
             takeover = \"newest\"\nreconnect_window_s = 60\n{pull}"
        )
    });
    let more = format!("[ingest]\nshards = {SHARDS}\n[quic]\nlisten = \"127.0.0.1:0\"\n");
    let mut daemon = Daemon::start_with(&more, &tables.collect::<String>(), &[]);
    let cameras: Vec<Running> = ports.iter().map(|port| ffmpeg_listen(&file, *port, "")).collect();
    let publish = |daemon: &Daemon| -> Vec<Running> {
        let mut all = Vec::new();
        for of_shard in names.chunks(PER) {
            all.push(ffmpeg_publish(&file, &daemon.publish_url(&of_shard[0]), &["-stream_loop", "-1"]));
            all.push(push_loop(&file, &quic_url(daemon, &of_shard[1]), &["--reconnect"]));
        }
        all
    };
    let publishers = publish(&daemon);
    let sessions: Vec<String> = names.iter().map(|name| wait_live(&daemon, name)).collect();
    for name in &names {
        daemon.wait_for(&format!("/live/{name}/index.m3u8"), Duration::from_secs(10));
    }
    let status: Value = serde_json::from_slice(&daemon.get("/status.json").body).expect("JSON");
    let told: Vec<_> = status["channels"].as_array().expect("a list").iter().map(|c| c["name"].clone()).collect();
    let mut sorted: Vec<Value> = names.iter().map(|name| Value::from(name.as_str())).collect();
    sorted.sort_by_key(Value::to_string);
    assert_eq!(told, sorted, "all channels, by name");

    // Each thread has its own three to do, so that none is without work.
    let before = used(&daemon);
    assert_eq!(before.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["shard-0", "shard-1", "shard-2"]);
    wait(Duration::from_secs(10), "every thread to work", || {
        let more = used(&daemon).iter().zip(&before).all(|((_, now), (_, then))| now - then > 1_000_000);
        more.then_some(())
    });

    // A newer publisher takes the leg, by another protocol too.
    for of_shard in names.chunks(PER) {
        let newer = push_loop(&file, &daemon.publish_url(&of_shard[1]), &[]);
        let log = format!("\"publisher_closed\" channel=\"{}\"", of_shard[1]);
        wait(Duration::from_secs(20), &log, || {
            daemon.log().lines().any(|l| l.contains(&log) && l.contains("another publisher took over")).then_some(())
        });
        drop(newer);
    }
    drop(publishers);
    signal(daemon.pid(), "KILL");
    daemon.wait_exit();
    drop(cameras);
    let _cameras: Vec<Running> = ports.iter().map(|port| ffmpeg_listen(&file, *port, "")).collect();
    let again = daemon.again_here();
    let _publishers = publish(&again);
    let after: Vec<String> = names.iter().map(|name| wait_live(&again, name)).collect();
    assert_eq!(after, sessions, "the same sessions");
    for shard in used(&again) {
        assert!(shard.1 > 0, "{shard:?}");
    }
    assert!(!again.log().contains("panicked"), "{}", again.log());
}

fn quic_url(daemon: &Daemon, channel: &str) -> String {
    let inputs = daemon.ask(&format!("/v1/channels/{channel}/inputs"));
    let quic = inputs["inputs"].as_array().into_iter().flatten().find(|input| input["protocol"] == "quic");
    quic.and_then(|quic| quic["url"].as_str()).expect("a QUIC address").replace("KEY", KEY)
}

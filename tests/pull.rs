//! A source that the daemon calls: ffmpeg listens, viewers watch; both sides die and come back.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use daemon::{Daemon, Running, clip, ffmpeg_listen, free_port, signal, wait};
use serde_json::Value;

const SECRET: &str = "planted secret";

/// Ten seconds of picture and sound.
fn media() -> PathBuf {
    let inputs = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=sample_rate=48000"];
    let video = ["-c:v", "libx264", "-preset", "veryfast", "-g", "50", "-sc_threshold", "0", "-b:v", "400k"];
    let rest = ["-c:a", "aac", "-t", "10", "-f", "mpegts"];
    clip("pull-10.ts", &[&inputs[..], &video[..], &rest[..]].concat())
}

/// A source that wants to be called with the secret.
fn listen(file: &Path, port: u16) -> Running {
    ffmpeg_listen(file, port, &format!("&passphrase={SECRET}"))
}

fn address(port: u16) -> String {
    format!("srt://localhost:{port}?passphrase={SECRET}&pbkeylen=32")
}

/// `rung channel …`, which must succeed.
fn channel(daemon: &Daemon, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.arg("channel").args(words).args(["--server", &format!("http://{}", daemon.http)]);
    command.arg("--token-file").arg(daemon.folder().join("rung-data/admin.token"));
    let output = command.stdin(Stdio::null()).output().expect("rung starts");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// State and error of the channel's source.
fn source(daemon: &Daemon, name: &str) -> (String, String) {
    let inputs = daemon.ask(&format!("/v1/channels/{name}/inputs"));
    let pull = inputs["inputs"].as_array().into_iter().flatten().find(|input| input["direction"] == "pull");
    let text = |key: &str| pull.map_or("", |pull| pull[key].as_str().unwrap_or_default()).to_owned();
    (text("state"), text("error"))
}

fn wait_source(daemon: &Daemon, name: &str, state: &str) {
    wait(Duration::from_secs(20), &format!("the source to be {state}"), || {
        (source(daemon, name).0 == state).then_some(())
    });
}

/// The open session once the channel is live.
fn wait_live(daemon: &Daemon, name: &str) -> String {
    wait(Duration::from_secs(30), &format!("{name} to be live"), || {
        let session = daemon.ask(&format!("/v1/channels/{name}"))["session"].as_str()?.to_owned();
        let record: Value = daemon.ask(&format!("/v1/sessions/{session}"));
        (record["state"] == "live" && record["input"] == "connected").then_some(session)
    })
}

#[test]
fn a_session_outlives_its_source_and_its_daemon() {
    let (file, port) = (media(), free_port());
    let mut daemon = Daemon::start(&format!(
        "[[bootstrap.channel]]\nname = \"cam\"\nkind = \"transmux\"\nend_on_eos = false\nreconnect_window_s = 60\n\
         pull = \"{}\"\n",
        address(port)
    ));
    // Nobody is there yet, and it is said once.
    let error = wait(Duration::from_secs(20), "an error", || {
        Some(source(&daemon, "cam")).filter(|(state, error)| state == "calling" && !error.is_empty())
    });
    assert_eq!(error.1, "nobody answers at the address");
    let mut camera = Some(listen(&file, port));
    let session = wait_live(&daemon, "cam");
    assert_eq!(source(&daemon, "cam"), ("on_air".to_owned(), String::new()));
    assert_eq!(daemon.metric("rung_ingest_pull_connected{channel=\"cam\"}"), 1.0);
    assert_eq!(daemon.metric("rung_ingest_pulls_total{channel=\"cam\",kind=\"on_air\"}"), 1.0);
    daemon.wait_for("/live/cam/index.m3u8", Duration::from_secs(10));

    // The source dies and comes back within the window.
    signal(camera.take().expect("there").0.id(), "KILL");
    camera = Some(listen(&file, port));
    let lost = |daemon: &Daemon| daemon.log().contains("code=\"input_restored\"").then_some(());
    wait(Duration::from_secs(20), "media again", || lost(&daemon));
    assert_eq!(wait_live(&daemon, "cam"), session, "the same session");

    // So does the daemon, which calls again without being told.
    signal(daemon.pid(), "KILL");
    daemon.wait_exit();
    signal(camera.take().expect("there").0.id(), "KILL");
    let mut camera = listen(&file, port);
    let next = daemon.again_here();
    daemon = next;
    assert_eq!(wait_live(&daemon, "cam"), session, "the same session");

    // Stopped: the source is told goodbye, and left alone until the channel is started.
    let said = channel(&daemon, &["stop", "cam", "--wait", "10"]);
    assert!(said.contains("stop"), "{said}");
    wait(Duration::from_secs(5), "the source's end", || camera.0.try_wait().expect("own child"));
    assert_eq!(source(&daemon, "cam"), ("off".to_owned(), String::new()));
    let _camera = listen(&file, port);
    channel(&daemon, &["start", "cam"]);
    assert_ne!(wait_live(&daemon, "cam"), session, "a session never begins again");
    let log = daemon.log();
    assert_eq!(log.matches("nobody answers at the address").count(), 1, "{log}");
    assert!(!log.contains("planted") && !log.contains("localhost") && !log.contains("panicked"), "{log}");
}

#[test]
fn a_source_is_named_and_taken_away_on_the_command_line_and_waits_for_its_start() {
    let (file, port) = (media(), free_port());
    let daemon = Daemon::start("");
    let made = channel(
        &daemon,
        &[
            "create",
            "cam",
            "--kind",
            "transmux",
            "--pull",
            &address(port),
            "--field",
            "activation=manual",
            "--field",
            "reconnect_window_s=60",
        ],
    );
    let shown = format!("srt://localhost:{port}?passphrase=**********&pbkeylen=32");
    assert!(made.contains(&shown) && !made.contains("planted"), "{made}");
    let mut camera = listen(&file, port);
    let said = channel(&daemon, &["show", "cam"]);
    assert!(said.contains(&format!("{shown} (off)")), "{said}");
    channel(&daemon, &["start", "cam"]);
    let session = wait_live(&daemon, "cam");
    assert_eq!(camera.0.try_wait().expect("own child"), None, "it was not called before");

    // Another passphrase is another address: the connection ends, and why there is no other is told.
    let wrong = address(port).replace(SECRET, "another passphrase");
    channel(&daemon, &["set", "cam", "--pull", &wrong]);
    wait(Duration::from_secs(10), "the source's end", || camera.0.try_wait().expect("own child"));
    let _camera = listen(&file, port);
    wait(Duration::from_secs(20), "the reason", || {
        source(&daemon, "cam").1.contains("the source has another passphrase").then_some(())
    });
    channel(&daemon, &["set", "cam", "--pull", &address(port)]);
    wait_source(&daemon, "cam", "on_air");
    assert_eq!(wait_live(&daemon, "cam"), session, "within its window");
    let said = channel(&daemon, &["set", "cam", "--pull", "none"]);
    assert!(said.contains("pull in force"), "{said}");
    wait(Duration::from_secs(5), "no source", || (source(&daemon, "cam").0.is_empty()).then_some(()));
    assert!(channel(&daemon, &["show", "cam"]).contains("pull                -"), "none");
    assert!(!daemon.log().contains("planted"));
}

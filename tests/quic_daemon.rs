//! QUIC from end to end: `rung push` in all its ways into the daemon, and a player on what comes out.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[path = "support/numbered.rs"]
mod numbered;

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use daemon::{Daemon, KEY, Running, push_loop, wait};
use follow::Follow;
use numbered::{Drawn, clip};
use rung::ingest::quic;

const QUIC: &str = "[quic]\nlisten = \"127.0.0.1:0\"\n";

/// Ten seconds, 25 pictures each, a key frame every second.
fn ten_seconds() -> PathBuf {
    let drawn = Drawn { width: 320, height: 180, rate: "25", pictures: 250 };
    clip(
        "quic-10.ts",
        drawn,
        &["sine=frequency=440:sample_rate=48000:duration=10"],
        "-c:v libx264 -preset veryfast -bf 2 -g 25 -keyint_min 25 -sc_threshold 0 -b:v 500k -c:a aac -ac 2 -b:a 96k",
    )
}

fn transmux(more: &str) -> Daemon {
    let channel = format!("[[bootstrap.channel]]\nname = \"t\"\nkind = \"transmux\"\nmode = \"ultra\"\n{more}");
    Daemon::start_with(QUIC, &channel, &[])
}

/// Where channel `t` is published to, as the API tells it.
fn address(daemon: &Daemon) -> String {
    let inputs = daemon.ask("/v1/channels/t/inputs");
    let quic = inputs["inputs"].as_array().expect("inputs").iter().find(|input| input["protocol"] == "quic");
    let quic = quic.unwrap_or_else(|| panic!("no QUIC input: {inputs}"));
    let url = quic["url"].as_str().expect("a URL");
    let pin = quic["pin"].as_str().expect("a pin");
    assert!(url.ends_with(&format!("/t/KEY?pin={pin}")) && pin.len() == 64, "{url}");
    assert!(daemon.log().contains(pin), "the log says it, too");
    url.replace("KEY", KEY)
}

fn push(source: &str, url: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.arg("push").args(more).args([source, url]).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn state(daemon: &Daemon) -> (String, String) {
    let status: serde_json::Value = serde_json::from_slice(&daemon.get("/status.json").body).expect("JSON");
    let text = |key: &str| status["channels"][0][key].as_str().unwrap_or("").to_owned();
    (text("state"), text("session"))
}

#[test]
fn a_file_pushed_over_quic_plays_to_its_end() {
    let daemon = transmux("");
    let url = address(&daemon);
    let file = ten_seconds();
    let follow = Follow::start(daemon.http, "t");
    let mut pushing = push(file.to_str().expect("UTF-8"), &url, &[]).spawn().expect("rung starts");
    let mut said = String::new();
    pushing.stdout.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    assert!(pushing.wait().expect("own child").success(), "{said}");
    for part in ["stream 1: on air, latency 200 ms", "stream 1: finished", "1 stream(s), "] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains(KEY), "{said}");
    let seen = follow.until_ended(Duration::from_secs(20));
    seen.assert_satisfied("quic");
    assert!(seen.report.ended && seen.report.gaps == 0, "{:?}", seen.report);
    let source = seen.rendition("source");
    source.assert_segments_begin_with_idr("quic");
    source.assert_consecutive("quic");
    assert_eq!(numbered::read_counters(&source.file()).len(), 250, "every picture of the file");
    let log = daemon.log();
    assert!(log.contains("TLS 1.3, rung-ts/1") && log.contains("the publisher finished"), "{log}");
    assert!(!log.contains(KEY), "no key in the log");
    let bytes = std::fs::metadata(&file).expect("there").len() as f64;
    assert_eq!(daemon.metric("rung_ingest_bytes_total{channel=\"t\",leg=\"a\"}"), bytes);
    assert_eq!(daemon.metric("rung_ingest_quic_handshakes_total{kind=\"done\"}"), 1.0);
}

#[test]
fn the_pin_stays_over_restarts_and_a_wrong_one_is_told() {
    let mut daemon = transmux("");
    let url = address(&daemon);
    daemon.stop();
    let again = daemon.again();
    let pin = |url: &str| url.split_once("pin=").map(|(_, pin)| pin.to_owned()).expect("a pin");
    assert_eq!(pin(&address(&again)), pin(&url));
    let wrong = address(&again).replace(&pin(&url), &"ab".repeat(32));
    let output = push(ten_seconds().to_str().expect("UTF-8"), &wrong, &[]).stderr(Stdio::piped()).output();
    let output = output.expect("rung starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("certificate is not the pinned one"), "{said}");
    let unpinned = wrong.split_once('?').expect("options").0;
    let output = push(ten_seconds().to_str().expect("UTF-8"), unpinned, &[]).stderr(Stdio::piped()).output();
    let output = output.expect("rung starts");
    assert!(!output.status.success(), "nobody vouches for it: {}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate of its own for `127.0.0.1`, as files.
fn certificate(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("quic.crt"), made.cert.pem()).expect("writable");
    std::fs::write(folder.join("quic.key"), made.signing_key.serialize_pem()).expect("writable");
    quic::Pin::of(made.cert.der()).to_string()
}

#[test]
fn a_certificate_of_files_is_shown_without_a_pin_and_renewed_by_a_signal() {
    let files = tempfile::tempdir().expect("a temporary folder");
    let first = certificate(files.path());
    let at = |name: &str| files.path().join(name);
    let more = format!("{QUIC}certificate = {:?}\nkey = {:?}\n", at("quic.crt"), at("quic.key"));
    let daemon = Daemon::start_with(&more, "[[bootstrap.channel]]\nname = \"t\"\nkind = \"transmux\"\n", &[]);
    let inputs = daemon.ask("/v1/channels/t/inputs");
    let quic = inputs["inputs"].as_array().expect("inputs").iter().find(|input| input["protocol"] == "quic");
    let quic = quic.expect("a QUIC input");
    let url = quic["url"].as_str().expect("a URL").replace("KEY", KEY);
    assert!(quic["pin"].is_null() && !url.contains("pin="), "{inputs}");
    let file = ten_seconds();
    let push = |url: &str, more: &[&str]| {
        let more: Vec<&str> = ["--seconds", "1"].iter().chain(more).copied().collect();
        push(file.to_str().expect("UTF-8"), url, &more).stderr(Stdio::null()).status().expect("rung starts").success()
    };
    let trusted = at("trusted.pem");
    std::fs::copy(at("quic.crt"), &trusted).expect("writable");
    assert!(push(&url, &["--ca", trusted.to_str().expect("UTF-8")]), "whoever trusts it");
    assert!(push(&format!("{url}?pin={first}"), &[]), "and whoever pins it");
    let second = certificate(files.path());
    daemon::signal(daemon.pid(), "HUP");
    wait(Duration::from_secs(10), "the new one", || daemon.log().contains(&second).then_some(()));
    assert!(push(&format!("{url}?pin={second}"), &[]) && !push(&format!("{url}?pin={first}"), &[]));
    std::fs::write(at("quic.key"), "nothing").expect("writable");
    daemon::signal(daemon.pid(), "HUP");
    wait(Duration::from_secs(10), "a word", || daemon.log().contains("quic_certificate_kept").then_some(()));
    assert!(push(&format!("{url}?pin={second}"), &[]), "the one before is still served");
}

#[test]
fn a_publisher_over_the_other_protocol_takes_over_within_the_session() {
    let daemon = transmux("takeover = \"newest\"\nend_on_eos = false\n");
    let (url, file) = (address(&daemon), ten_seconds());
    let live = |what: &str| {
        let went_on = |session: &str| daemon.log().matches(session).count();
        wait(Duration::from_secs(20), what, || {
            let (state, session) = state(&daemon);
            (state == "live" && went_on(&session) > 0).then_some(session)
        })
    };
    let connected = |n: usize| {
        let count = || daemon.log().matches("code=\"publisher_connected\"").count();
        wait(Duration::from_secs(10), "a publisher", || (count() == n).then_some(()));
    };
    let replaced = |n: usize| {
        let count = || daemon.log().matches("another publisher took over").count();
        wait(Duration::from_secs(10), "the other's end", || (count() == n).then_some(()));
    };
    let srt = push_loop(&file, &daemon.publish_url("t"), &[]);
    let session = live("SRT on air");
    let quic = push_loop(&file, &url, &[]);
    connected(2);
    replaced(1);
    let mut srt = srt;
    assert!(!srt.0.wait().expect("own child").success(), "it was sent away");
    assert_eq!(live("QUIC on air"), session);
    let again = push_loop(&file, &daemon.publish_url("t"), &[]);
    connected(3);
    replaced(2);
    let mut quic = quic;
    assert!(!quic.0.wait().expect("own child").success(), "it was sent away");
    assert_eq!(live("SRT again"), session);
    drop(again);
    assert_eq!(daemon.log().matches("code=\"publisher_closed\"").count(), 2, "each end is told once: {}", daemon.log());
}

/// ffmpeg, in real time, to wherever `output` says.
fn play(file: &Path, output: &[&str]) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re", "-stream_loop", "-1", "-i"]).arg(file).args(["-c", "copy"]).args(output);
    command.stdin(Stdio::null());
    command
}

#[test]
fn a_pipe_udp_and_rtp_are_sources_too() {
    let daemon = Daemon::start_with(
        QUIC,
        &["t", "u", "v"]
            .map(|name| format!("[[bootstrap.channel]]\nname = \"{name}\"\nkind = \"transmux\"\nmode = \"ultra\"\n"))
            .concat(),
        &[],
    );
    let (url, file) = (address(&daemon), ten_seconds());
    let free = || UdpSocket::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound");
    let (udp, rtp) = (free(), free());
    let mut player = play(&file, &["-f", "mpegts", "pipe:1"]).stdout(Stdio::piped()).spawn().expect("ffmpeg");
    let pipe = player.stdout.take().expect("piped");
    let _running = [
        Running(player),
        Running(push("-", &url, &["--quiet"]).stdin(pipe).spawn().expect("rung starts")),
        Running(push(&format!("udp://{udp}"), &url.replace("/t/", "/u/"), &["--quiet"]).spawn().expect("rung starts")),
        Running(push(&format!("rtp://{rtp}"), &url.replace("/t/", "/v/"), &["--quiet"]).spawn().expect("rung starts")),
        Running(play(&file, &["-f", "mpegts", &format!("udp://{udp}?pkt_size=1316")]).spawn().expect("ffmpeg")),
        Running(play(&file, &["-f", "rtp_mpegts", &format!("rtp://{rtp}")]).spawn().expect("ffmpeg")),
    ];
    for name in ["t", "u", "v"] {
        let playlist = daemon.wait_for(&format!("/live/{name}/source.m3u8"), Duration::from_secs(25)).text();
        assert!(playlist.contains("#EXT-X-PART:"), "{name}: {playlist}");
        assert_eq!(
            daemon.metric(&format!("rung_faults_total{{channel=\"{name}\",kind=\"continuity\"}}")),
            0.0,
            "{name}"
        );
    }
}

/// The next line of `rung push` that holds `what`.
fn until(lines: &mut impl Iterator<Item = std::io::Result<String>>, what: &str) -> String {
    let mut seen = Vec::new();
    for line in lines {
        let line = line.expect("UTF-8");
        if line.contains(what) {
            return line;
        }
        seen.push(line);
    }
    panic!("{what:?} is said: {seen:?}")
}

fn pushed(source: &str, url: &str) -> (Running, impl Iterator<Item = std::io::Result<String>> + use<>) {
    let mut running = Running(push(source, url, &["--seconds", "60"]).spawn().expect("rung starts"));
    let out = running.0.stdout.take().expect("piped");
    (running, BufReader::new(out).lines())
}

#[test]
fn encoders_that_call_over_srt_and_one_that_listens_are_passed_on() {
    let channel = |name| format!("[[bootstrap.channel]]\nname = \"{name}\"\nkind = \"transmux\"\nmode = \"ultra\"\n");
    let daemon = Daemon::start_with(QUIC, &["t", "u"].map(channel).concat(), &[]);
    let (url, file) = (address(&daemon), ten_seconds());
    let free = || UdpSocket::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound");
    let (here, there) = (free(), free());
    let secret = "passphrase=a long passphrase";
    let encoder = |output: &str| Running(play(&file, &["-f", "mpegts", output]).spawn().expect("ffmpeg"));
    let (mut called, mut said) = pushed(&format!("srt://{here}?mode=listener&latency=150&{secret}"), &url);
    let mut wrong = encoder(&format!("srt://{here}?passphrase=another passphrase"));
    let refused = until(&mut said, "source: ");
    assert!(refused.contains("a caller was refused: the passphrase is not the one of this channel (10)"), "{refused}");
    assert!(!wrong.0.wait().expect("own child").success());
    let first = encoder(&format!("srt://{here}?{secret}&streamid=whatever"));
    let on_air = until(&mut said, "source: ");
    assert!(on_air.ends_with("on air, latency 150 ms"), "{on_air}");
    until(&mut said, "stream 1: on air");
    let (calls, mut told) = pushed(&format!("srt://{there}?latency=200&{secret}"), &url.replace("/t/", "/u/"));
    let nobody = until(&mut told, "source: ");
    assert!(nobody.ends_with("nobody answers at the address; it is called again"), "{nobody}");
    let _second = encoder(&format!("srt://{there}?mode=listener&{secret}"));
    assert!(until(&mut told, "source: ").ends_with("on air, latency 200 ms"));
    for name in ["t", "u"] {
        let playlist = daemon.wait_for(&format!("/live/{name}/source.m3u8"), Duration::from_secs(25)).text();
        assert!(playlist.contains("#EXT-X-PART:"), "{name}: {playlist}");
        let faults = format!("rung_faults_total{{channel=\"{name}\",kind=\"continuity\"}}");
        assert_eq!(daemon.metric(&faults), 0.0, "{name}");
    }
    // The encoder goes and comes back: the publisher stays.
    drop(first);
    assert!(until(&mut said, "source: ").ends_with("the next caller is waited for"));
    let _again = encoder(&format!("srt://{here}?{secret}"));
    assert!(until(&mut said, "source: ").contains("on air"));
    daemon::signal(called.0.id(), "INT");
    until(&mut said, "stream 1: finished");
    assert!(called.0.wait().expect("own child").success());
    drop(calls);
}

#[test]
fn wrong_uses_are_refused_with_what_to_write() {
    let pin = "12".repeat(32);
    let quic = format!("quic://127.0.0.1:9/t/s3cr3t?pin={pin}");
    let multiple: &[&str] = &["--streams", "2"];
    for (source, url, more, want) in [
        ("-", "srt://127.0.0.1:9?streamid=t/k", &[][..], "over SRT only files"),
        ("-", quic.as_str(), &["--loop"], "are for files"),
        ("udp://127.0.0.1:0", quic.as_str(), multiple, "only a file can be published as several streams"),
        ("udp://nowhere", quic.as_str(), &[], "udp://127.0.0.1:5000"),
        ("srt://:9000?passphrase=s3cr3t s3cr3t", quic.as_str(), &[], "an SRT address needs a host"),
        ("srt://198.51.100.71:9000?mode=listener", quic.as_str(), &[], "no interface of this box has the address"),
        ("srt://h:1", "srt://127.0.0.1:9?streamid=t/k", &[], "over SRT only files"),
        ("a.ts", quic.as_str(), &["--ca", "x.pem"], "a pin or --ca, not both"),
        ("a.ts", "quic://127.0.0.1:9/t/s3cr3t", &["--ca", "/nowhere/x.pem"], "--ca /nowhere/x.pem: cannot be read"),
        ("a.ts", "quic://127.0.0.1:9/t", &[], "names channel and key"),
        ("/nowhere/a.ts", quic.as_str(), &[], "/nowhere/a.ts: No such file"),
    ] {
        let output = push(source, url, more).stderr(Stdio::piped()).output().expect("rung starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(want) && output.status.code() == Some(2), "{source} {url} {more:?}: {said}");
        assert!(!said.contains("s3cr3t"), "{said}");
    }
}

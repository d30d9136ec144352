//! Whatever comes in, the daemon says what is wrong, keeps nothing half done, and goes on for everybody else.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[path = "support/numbered.rs"]
mod numbered;
#[path = "support/random.rs"]
mod random;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use daemon::{Daemon, KEY, Running, ffmpeg_publish, wait};
use follow::Follow;
use numbered::{Drawn, clip};

fn good() -> PathBuf {
    clip(
        "bad-input-16.ts",
        Drawn { width: 320, height: 180, rate: "25", pictures: 400 },
        &["sine=frequency=440:sample_rate=48000:duration=16"],
        "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 500k -c:a aac -ac 2 -b:a 128k",
    )
}

fn odd(name: &str, encode: &str) -> PathBuf {
    clip(name, Drawn { width: 320, height: 180, rate: "25", pictures: 200 }, &[], encode)
}

fn transmux(name: &str) -> String {
    format!("[[bootstrap.channel]]\nname = \"{name}\"\nkind = \"transmux\"\n")
}

fn transcode(name: &str) -> String {
    format!(
        "[[bootstrap.channel]]\nname = \"{name}\"\npreset = \"ultrafast\"\n\
         ladder = [{{ name = \"90p\", height = 90, bitrate = 150000 }}]\n"
    )
}

fn rung(arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rung"));
    let child = child.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("rung starts");
    let mut waited = 0;
    while child.try_wait().expect("own child").is_none() {
        waited += 1;
        if waited > 3_000 {
            child.kill().expect("own child");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    child.wait_with_output().expect("own child")
}

fn push(file: &Path, url: &str, more: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.arg("push").args(more).arg(file).arg(url).stdin(Stdio::null()).stdout(Stdio::piped());
    Running(command.stderr(Stdio::piped()).spawn().expect("rung starts"))
}

fn state(daemon: &Daemon, channel: &str) -> String {
    let status: serde_json::Value = serde_json::from_slice(&daemon.get("/status.json").body).expect("JSON");
    let channels = status["channels"].as_array().expect("a list").clone();
    let one = channels.iter().find(|c| c["name"] == channel).expect("the channel").clone();
    one["state"].as_str().unwrap_or("").to_owned()
}

#[track_caller]
fn wait_state(daemon: &Daemon, channel: &str, wanted: &[&str], limit: u64) {
    let what = format!("{channel} to be {wanted:?}");
    wait(Duration::from_secs(limit), &what, || wanted.contains(&state(daemon, channel).as_str()).then_some(()));
}

#[track_caller]
fn wait_log(daemon: &Daemon, channel: &str, part: &str, limit: u64) {
    let tag = format!("channel=\"{channel}\"");
    let said = |l: &str| l.contains(part) && (l.contains(&tag) || channel.is_empty());
    wait(Duration::from_secs(limit), &format!("{part:?} of {channel} in the log"), || {
        daemon.log().lines().any(said).then_some(())
    });
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

/// A publisher whose connection is refused or closed soon.
#[track_caller]
fn assert_goes(mut publisher: Running, what: &str, limit: u64) -> String {
    wait(Duration::from_secs(limit), &format!("the end of {what}"), || publisher.0.try_wait().expect("own child"));
    let mut said = String::new();
    if let Some(pipe) = publisher.0.stderr.as_mut() {
        pipe.read_to_string(&mut said).expect("text");
    }
    said
}

#[test]
fn publishers_that_cannot_be_used_are_told_so_and_leave_nothing_behind() {
    let good = good();
    let names = ["mpeg2", "hevc", "garbage", "cut", "lossy", "garbled", "key"];
    let channels: String = names.iter().map(|n| if *n == "garbled" { transcode(n) } else { transmux(n) }).collect();
    let daemon = Daemon::start(&channels);
    let before = rss_kib(daemon.pid());
    // Codecs that nobody here decodes: a sentence that names what to do, and the publisher is sent away.
    let mpeg2 = odd("bad-mpeg2.ts", "-c:v mpeg2video -b:v 1M -g 25");
    let hevc = odd("bad-hevc.ts", "-c:v libx265 -preset ultrafast -x265-params log-level=none");
    let first = ffmpeg_publish(&mpeg2, &daemon.publish_url("mpeg2"), &["-stream_loop", "4"]);
    let second = ffmpeg_publish(&hevc, &daemon.publish_url("hevc"), &["-stream_loop", "4"]);
    // Random bytes at 2 Mb/s behind a good handshake.
    let random_file = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut bytes = vec![0u8; 188 * 7 * 3_000];
    let mut random = random::Random(1);
    bytes.fill_with(|| random.next() as u8);
    std::fs::write(random_file.path(), &bytes).expect("writable");
    let mut pipe = Command::new("srt-live-transmit");
    pipe.args(["-chunk:1316", "-quiet", "-a:no", "file://con", &daemon.publish_url("garbage")]);
    let mut garbage = Running(pipe.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("srt-live-transmit"));
    let mut input = garbage.0.stdin.take().expect("piped");
    let feeder = std::thread::spawn(move || {
        for chunk in bytes.chunks(1_316) {
            if input.write_all(chunk).is_err() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
    // A file that ends within a packet, and damage on the way.
    let cut = tempfile::NamedTempFile::new().expect("a temporary file");
    let whole = std::fs::read(&good).expect("readable");
    std::fs::write(cut.path(), &whole[..whole.len() / 3 + 77]).expect("writable");
    let third = push(cut.path(), &daemon.publish_url("cut"), &["--quiet"]);
    let lossy = push(&good, &daemon.publish_url("lossy"), &["--quiet", "--drop", "0.01"]);
    let garbled = push(&good, &daemon.publish_url("garbled"), &["--quiet", "--garble", "0.01"]);
    // Callers that are not let in.
    for (url, what) in [
        (format!("srt://{}?streamid=key/zzzzzzzzzzzzzzzzzzzzzzzzzz", daemon.srt), "a wrong key"),
        (format!("srt://{}?streamid=nobody/{KEY}", daemon.srt), "an unknown channel"),
        (format!("srt://{}?streamid=%23nonsense", daemon.srt), "a stream id that makes no sense"),
        (format!("srt://{}", daemon.srt), "no stream id"),
    ] {
        let said = assert_goes(push(&good, &url, &[]), what, 15);
        assert!(!said.trim().is_empty(), "{what}: the caller learns nothing");
    }
    wait_log(&daemon, "", "1401", 5);
    assert_eq!(state(&daemon, "key"), "idle", "nobody was let in");

    for (name, words, publisher) in [("mpeg2", "MPEG-2 video", first), ("hevc", "HEVC", second)] {
        wait_log(&daemon, name, words, 15);
        assert_goes(publisher, name, 20);
        wait_state(&daemon, name, &["error"], 5);
        assert_ne!(daemon.get(&format!("/live/{name}/index.m3u8")).status, 200, "{name}: nothing to play");
    }
    wait_log(&daemon, "garbage", "no playable program", 20);
    assert_goes(garbage, "garbage", 25);
    feeder.join().expect("no panic");
    wait_state(&daemon, "garbage", &["error"], 5);
    assert_goes(third, "cut", 30);
    wait_state(&daemon, "cut", &["ended"], 10);
    let text = daemon.get("/live/cut/source.m3u8").text();
    assert!(text.contains("#EXT-X-ENDLIST") && text.contains("#EXTINF"), "what came is there: {text}");
    for (name, publisher) in [("lossy", lossy), ("garbled", garbled)] {
        assert_goes(publisher, name, 40);
        wait_state(&daemon, name, &["ended"], 10);
        let path = if name == "garbled" { "90p" } else { "source" };
        let text = daemon.get(&format!("/live/{name}/{path}.m3u8")).text();
        assert!(text.matches("#EXTINF").count() >= 6, "{name} went on: {text}");
        assert!(daemon.log().contains("code=\"continuity\"") || name == "garbled", "{name} is told");
    }
    // Every channel takes a good publisher afterwards; an address that sent rubbish stays out for 10 s.
    let again: Vec<Running> = ["mpeg2", "garbage", "cut", "lossy", "garbled"]
        .iter()
        .map(|name| push(&good, &daemon.publish_url(name), &["--quiet", "--reconnect", "--loop"]))
        .collect();
    for name in ["mpeg2", "garbage", "cut", "lossy", "garbled"] {
        wait_state(&daemon, name, &["live"], 40);
    }
    drop(again);
    assert!(rss_kib(daemon.pid()) < before + 150 * 1024, "from {before} KiB to {} KiB", rss_kib(daemon.pid()));
    assert!(!daemon.log().contains("panic"), "nothing panicked");
}

#[test]
fn every_channel_has_its_own_passphrase_or_the_boxs_and_its_own_networks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (file, text) in [("pass", "correct-horse"), ("own", "battery-staple")] {
        std::fs::write(folder.path().join(file), text).expect("writable");
    }
    let own = format!("{}passphrase_file = {:?}\n", transmux("own"), folder.path().join("own"));
    let fenced = format!("{}publish_from = [\"192.0.2.0/24\"]\n", transmux("fenced"));
    let daemon = Daemon::start_with(
        &format!("[srt]\nlisten = \"127.0.0.1:0\"\npassphrase_file = {:?}\n", folder.path().join("pass")),
        &[transmux("locked"), own, fenced].concat(),
        &[],
    );
    let good = good();
    for more in ["", "&passphrase=correct-horse"] {
        let url = format!("{}{more}", daemon.publish_url("own"));
        let said = assert_goes(push(&good, &url, &[]), "a caller without the channel's own passphrase", 15);
        assert!(said.to_lowercase().contains("passphrase") || said.contains("encrypt"), "{more:?}: {said}");
    }
    let own = push(&good, &format!("{}&passphrase=battery-staple", daemon.publish_url("own")), &["--quiet"]);
    wait_state(&daemon, "own", &["live"], 20);
    drop(own);
    let fenced = format!("{}&passphrase=correct-horse", daemon.publish_url("fenced"));
    assert_goes(push(&good, &fenced, &[]), "a caller of another network", 15);
    wait_log(&daemon, "fenced", "publish_from", 5);
    for more in ["", "&passphrase=wrong-horse"] {
        let url = format!("{}{more}", daemon.publish_url("locked"));
        let said = assert_goes(push(&good, &url, &[]), "a caller without the passphrase", 15);
        assert!(said.to_lowercase().contains("passphrase") || said.contains("encrypt"), "{more:?}: {said}");
        assert_eq!(state(&daemon, "locked"), "idle");
    }
    wait_log(&daemon, "", "passphrase", 5);
    let _good = push(&good, &format!("{}&passphrase=correct-horse", daemon.publish_url("locked")), &["--quiet"]);
    wait_state(&daemon, "locked", &["live"], 20);
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_file_line_and_what_to_write() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("k"), KEY).expect("writable");
    let channel = "[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"k\"\n";
    let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0").expect("free"), TcpListener::bind("127.0.0.1:0").expect("free"));
    let (srt, http) = (udp.local_addr().expect("bound"), tcp.local_addr().expect("bound"));
    let quiet = "[metrics]\nlisten = \"127.0.0.1:0\"\n";
    let cases: [(String, &[&str]); 7] = [
        ("[srt]\nlisen = \"127.0.0.1:1\"\n".into(), &["rung.toml:2", "lisen", "did you mean `listen`"]),
        (format!("{channel}mode = \"ulta\"\n"), &["rung.toml:4", "did you mean `ultra`"]),
        ("[[bootstrap.channel]]\nname = \"A b\"\nkey_file = \"k\"\n".into(), &["rung.toml:2", "channel name"]),
        ("[[bootstrap.channel]]\nname = \"a\"\n".into(), &["publish key"]),
        (format!("{channel}{channel}"), &["twice"]),
        ("[http\n".into(), &["rung.toml:1"]),
        (format!("{channel}ladder = [{{ name = \"x\", height = 361, bitrate = 800000 }}]\n"), &["even number"]),
    ];
    for (text, parts) in cases {
        let file = folder.path().join("rung.toml");
        std::fs::write(&file, &text).expect("writable");
        let path = file.to_str().expect("plain");
        for arguments in [vec!["serve", "--config", path], vec!["config", "check", path]] {
            let output = rung(&arguments);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{arguments:?} with {text:?}: {said}");
            assert!(parts.iter().all(|part| said.contains(part)), "{text:?}: {said}");
        }
    }
    // Ports that somebody else has.
    for (text, port) in [
        (format!("{quiet}[srt]\nlisten = \"{srt}\"\n[http]\nlisten = \"127.0.0.1:0\"\n{channel}"), srt.port()),
        (format!("{quiet}[srt]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"{http}\"\n{channel}"), http.port()),
        (
            format!(
                "{quiet}[srt]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n[quic]\nlisten = \"{srt}\"\n{channel}"
            ),
            srt.port(),
        ),
    ] {
        let file = folder.path().join("rung.toml");
        std::fs::write(&file, &text).expect("writable");
        let output = rung(&["serve", "--config", file.to_str().expect("plain")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&port.to_string()) && said.contains("in use"), "{said}");
    }
}

#[test]
fn floods_of_rubbish_are_counted_and_a_live_stream_goes_on_without_a_gap() {
    let daemon = Daemon::start(&transmux("live"));
    let _publisher = push(&good(), &daemon.publish_url("live"), &["--quiet", "--loop"]);
    daemon.wait_for("/live/live/index.m3u8", Duration::from_secs(20));
    let follow = Follow::start(daemon.http, "live");
    let before = rss_kib(daemon.pid());
    let socket = UdpSocket::bind("127.0.0.1:0").expect("free");
    let mut random = random::Random(3);
    let mut datagram = [0u8; 1_500];
    for count in 0..100_000u32 {
        let length = random.below(1_500);
        for chunk in datagram.chunks_mut(8) {
            let word = random.next().to_be_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        // Half of them look like handshakes.
        if count % 2 == 0 {
            datagram[..4].copy_from_slice(&[0x80, 0, 0, 0]);
        }
        socket.send_to(&datagram[..length], daemon.srt).expect("loopback takes it");
        // 20,000 a second: more only fills the kernel's buffer.
        if count % 200 == 199 {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
    for count in 0..1_000u32 {
        let Ok(mut stream) = TcpStream::connect(daemon.http) else { continue };
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("settable");
        let request: Vec<u8> = match count % 8 {
            0 => b"GET / HTTP/1.1\r\n\r\n\r\n".to_vec(),
            1 => b"NONSENSE\r\n\r\n".to_vec(),
            2 => format!("GET /live/live/source.m3u8?_HLS_msn={} HTTP/1.1\r\nHost: x\r\n\r\n", u64::MAX).into_bytes(),
            3 => format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000)).into_bytes(),
            4 => b"GET /live/live/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            5 => b"POST /live/live/index.m3u8 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
            6 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            _ => (0..200).map(|_| random.next() as u8).collect(),
        };
        // It may be closed while we still write: that is an answer too.
        drop(stream.write_all(&request));
        if count % 8 == 2 {
            let mut answer = [0u8; 12];
            let read = stream.read(&mut answer).unwrap_or(0);
            assert!(answer[..read].starts_with(b"HTTP/1.1 400"), "{:?}", String::from_utf8_lossy(&answer[..read]));
        }
    }
    let rejected = wait(Duration::from_secs(5), "the counters", || {
        let text = String::from_utf8(daemon::get(daemon.metrics, "/metrics", &[]).body).expect("text");
        let of = |name: &str| -> f64 {
            text.lines().filter(|l| l.starts_with(name)).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        // What a busy machine does not take in time stays in the kernel, which throws it away.
        Some(of("rung_ingest_rejected_datagrams_total")).filter(|n| *n >= 50_000.0)
    });
    println!("counted by the port: {rejected}");
    let seen = follow.stop();
    println!("live: {:?}", seen.report);
    seen.assert_satisfied("the live stream");
    assert_eq!((seen.report.gaps, seen.report.discontinuities), (0, 0), "{:?}", seen.report);
    seen.rendition("source").assert_segments_begin_with_idr("the live stream");
    let after = rss_kib(daemon.pid());
    println!("RSS {before} KiB, then {after} KiB");
    assert!(after < before + 100 * 1024, "from {before} KiB to {after} KiB");
    assert!(!daemon.log().contains("panic"), "nothing panicked");
}

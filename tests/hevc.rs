//! Ladders with HEVC beside H.264, from SRT to LL-HLS: every picture of every rendition, what players are told of them,
//! restarts, and a GPU that gives way to the CPU.

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
use std::process::Command;
use std::time::Duration;

use daemon::{Daemon, ffmpeg_publish, push_loop, signal, wait};
use double::Driver;
use follow::{Follow, Followed, ffprobe};
use numbered::{Drawn, clip};
use on_gpus::{PATIENT, serve};

/// However loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
const PICTURES: u32 = 500;
const LADDER: &str = "ladder = [{ name = \"180p\", height = 180, bitrate = 300000 }, \
    { name = \"180p-hevc\", height = 180, bitrate = 300000, codec = \"hevc\" }, \
    { name = \"90p\", height = 90, bitrate = 120000, codec = \"h264\" }, \
    { name = \"90p-hevc\", height = 90, bitrate = 120000, codec = \"hevc\" }]\n";
const NAMES: [(&str, &str, bool); 4] = [
    ("180p", "320x180", false),
    ("180p-hevc", "320x180", true),
    ("90p", "160x90", false),
    ("90p-hevc", "160x90", true),
];

fn source() -> PathBuf {
    clip(
        "hevc-20.ts",
        Drawn { width: 320, height: 180, rate: "25", pictures: PICTURES },
        &["sine=frequency=440:sample_rate=48000:duration=20"],
        "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 500k -c:a aac -ac 2 -b:a 128k",
    )
}

fn channel(name: &str, mode: &str, more: &str) -> String {
    format!("[[bootstrap.channel]]\nname = \"{name}\"\nmode = \"{mode}\"\n{more}{LADDER}")
}

/// One test at a time: each fills two cores.
fn alone(test: fn()) {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    daemon::with_room(test);
}

/// What `rung inspect fmp4` says of the CODECS value of an init section.
fn inspected(init: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("init.mp4");
    std::fs::write(&file, init).expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    let said = command.args(["inspect", "fmp4"]).arg(&file).output().expect("rung starts");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("CODECS "));
    line.unwrap_or_else(|| panic!("no CODECS in {text}")).to_owned()
}

/// The variant's line, the init section and another decoder agree on what is coded.
#[track_caller]
fn assert_told(seen: &Followed, what: &str, (name, size, hevc): (&str, &str, bool), reordered: bool) {
    let fetched = seen.rendition(name);
    let variant = seen.variant(name);
    let fields = "stream=codec_name,codec_tag_string,profile,level,width,height,has_b_frames,pix_fmt";
    let probe = ffprobe(&fetched.file(), &["-select_streams", "v:0", "-show_entries", fields]);
    let field =
        |name: &str| probe.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).unwrap_or("").to_owned();
    assert_eq!(format!("{}x{}", field("width"), field("height")), size, "{what} {name}");
    assert_eq!(field("has_b_frames") != "0", reordered, "{what} {name}: {probe}");
    assert!(variant.contains(&format!("RESOLUTION={size}")) && variant.contains("VIDEO-RANGE=SDR"), "{variant}");
    let (start, end) = if hevc { ("hvc1.1.6.L", ".90") } else { ("avc1.64", "") };
    let codec = inspected(&fetched.inits[0].1);
    assert!(codec.starts_with(start) && codec.ends_with(end), "{what} {name}: {codec}");
    assert!(variant.contains(&format!("CODECS=\"{codec},mp4a.40.2\"")), "{what} {name}: {variant}");
    if hevc {
        assert_eq!((field("codec_name"), field("codec_tag_string")), ("hevc".into(), "hvc1".into()));
        assert_eq!((field("profile"), field("pix_fmt")), ("Main".into(), "yuv420p".into()));
        assert_eq!(codec, format!("hvc1.1.6.L{}.90", field("level")));
    } else {
        assert_eq!((field("codec_name"), field("codec_tag_string")), ("h264".into(), "avc1".into()));
    }
}

#[test]
fn a_mixed_ladder_loses_no_picture_and_players_are_told_what_each_rendition_is() {
    alone(a_mixed_ladder_once);
}

fn a_mixed_ladder_once() {
    let daemon = Daemon::start(&[channel("ultra", "ultra", ""), channel("low", "low", "")].concat());
    let follow = |name: &str| Follow::start(daemon.http, name);
    let follows = [("ultra", follow("ultra")), ("low", follow("low"))];
    let _publishers = ["ultra", "low"].map(|name| ffmpeg_publish(&source(), &daemon.publish_url(name), &[]));
    for (mode, follow) in follows {
        let seen = follow.until_ended(PATIENCE);
        println!("{mode}: {:?}", seen.report);
        seen.assert_satisfied(mode);
        assert!(seen.report.ended && seen.report.renditions == 5, "{mode}: {:?}", seen.report);
        assert_eq!(seen.report.discontinuities, 0, "{mode}: {:?}", seen.report);
        seen.assert_gaps_at_the_end_only(mode);
        for rendition in NAMES {
            let fetched = seen.rendition(rendition.0);
            fetched.assert_segments_begin_with_idr(rendition.0);
            let first = fetched.assert_consecutive(&format!("{mode} {}", rendition.0));
            let counted = fetched.counters().len();
            assert!(first < 100 && counted > 350, "{mode} {}: {counted} pictures from {first} on", rendition.0);
            assert_told(&seen, mode, rendition, mode == "low");
        }
        let order: Vec<&str> =
            seen.multivariant.lines().filter_map(|l| l.strip_suffix(".m3u8").filter(|l| !l.starts_with('#'))).collect();
        let configured: Vec<&str> = NAMES.iter().map(|(name, ..)| *name).chain(["a-und-1"]).collect();
        assert_eq!(order, configured, "as configured, then the sound alone");
        if let Ok(folder) = std::env::var("RUNG_KEEP") {
            let file = PathBuf::from(folder).join(format!("{mode}.mp4"));
            std::fs::write(file, seen.rendition("180p-hevc").file()).expect("writable");
        }
    }
    assert!(!daemon.log().contains("worker_lost"), "no worker was replaced: {}", daemon.log());
}

#[test]
fn a_mixed_ladder_goes_on_in_another_process_without_a_discontinuity() {
    alone(another_process_once);
}

fn another_process_once() {
    let mut daemon = Daemon::start(&channel("t", "ultra", "end_on_eos = false\n"));
    let _publisher = push_loop(&source(), &daemon.publish_url("t"), &["--reconnect"]);
    daemon.wait_for("/live/t/index.m3u8", PATIENCE);
    let follow = Follow::through_restarts(daemon.http, "t");
    let mut newest = Newest::default();
    newest.grows(&daemon, "t", 6);
    signal(daemon.pid(), "KILL");
    daemon.wait_exit();
    let next = daemon.again_here();
    daemon = next;
    newest.grows(&daemon, "t", 9);
    let seen = follow.stop();
    seen.assert_satisfied("through a restart");
    assert!(seen.report.unanswered > 0 && seen.report.gaps > 0, "{:?}", seen.report);
    assert_eq!(seen.report.discontinuities, 0, "{:?}", seen.report);
    for (name, ..) in NAMES {
        let inits = &seen.rendition(name).inits;
        assert_eq!(
            inits.len(),
            1,
            "{name}: the same init section: {:?}",
            inits.iter().map(|i| &i.0).collect::<Vec<_>>()
        );
    }
    assert_eq!(daemon.log().matches("(resumed)").count(), 1, "{}", daemon.log());
}

/// The newest part of a rendition of HEVC.
#[derive(Default)]
struct Newest(String);

impl Newest {
    /// Waits until it has changed so many times.
    fn grows(&mut self, daemon: &Daemon, channel: &str, times: usize) {
        for _ in 0..times {
            self.0 = wait(PATIENCE, "the next part", || {
                let text = daemon.get(&format!("/live/{channel}/90p-hevc.m3u8")).text();
                let line = text.lines().rev().find(|l| l.starts_with("#EXT-X-PART:") && !l.contains("GAP"))?.to_owned();
                (line != self.0).then_some(line)
            });
        }
    }
}

/// A machine that stands in for a GPU makes two renditions; of a ladder of HEVC alone both are HEVC.
#[test]
fn from_a_gpu_to_the_cpu_a_ladder_goes_on_behind_a_discontinuity() {
    alone(from_a_gpu_to_the_cpu_once);
}

fn from_a_gpu_to_the_cpu_once() {
    let mut driver = Driver::new();
    let hevc = NAMES.map(|(name, ..)| name).into_iter().filter(|name| name.ends_with("hevc"));
    let lines: Vec<&str> = LADDER.split("{ ").filter(|one| one.contains("\"hevc\"")).collect();
    let ladder = format!("ladder = [{{ {}\n", lines.join("{ "));
    // The double's HEVC is libx265's as well: another preset has other parameter sets.
    let channels = format!("[[bootstrap.channel]]\nname = \"news\"\npreset = \"veryfast\"\n{ladder}");
    let daemon = serve(&driver, PATIENT, &channels);
    let _publisher = push_loop(&source(), &daemon.publish_url("news"), &[]);
    daemon.wait_for("/live/news/index.m3u8", PATIENCE);
    let viewer = Follow::start(daemon.http, "news");
    let mut newest = Newest::default();
    newest.grows(&daemon, "news", 9);
    driver.set("event", "0:xid:95");
    wait(PATIENCE, "the CPU", || daemon.log().contains("software, step 3 down").then_some(()));
    newest.grows(&daemon, "news", 15);
    let seen = viewer.stop();
    seen.assert_satisfied("the viewer");
    assert!(seen.report.discontinuities > 0, "other encoders, other parameter sets: {:?}", seen.report);
    for name in hevc {
        let inits = &seen.rendition(name).inits;
        let codecs: Vec<String> = inits.iter().map(|(_, init)| inspected(init)).collect();
        assert!(codecs.len() == 2 && codecs.iter().all(|codec| codec.starts_with("hvc1.1.6.L")), "{name}: {codecs:?}");
    }
    assert_eq!(driver.broken(), Vec::<String>::new());
}

#[test]
fn a_card_that_makes_no_hevc_refuses_a_channel_that_must_be_on_it_and_says_why() {
    let driver = Driver::new().setting("nvenc.hevc", 0);
    let daemon = serve(&driver, PATIENT, &channel("news", "ultra", "backend = \"gpu\"\n"));
    let _publisher = push_loop(&source(), &daemon.publish_url("news"), &[]);
    let why = "its encoder makes no HEVC, and a rendition of 320x180 asks for it";
    wait(PATIENCE, "the refusal", || daemon.log().contains(why).then_some(()));
    assert_eq!(driver.broken(), Vec::<String>::new());
}

//! The default ladder from a natural 1080p30 8 Mb/s clip: CPU-seconds, memory and quality of `rung-worker` against one
//! `ffmpeg` process, in interleaved rounds. `cargo bench -p rung-worker --bench ladder [-- CLIP.ts]`
//!
//! Both sides read the same file unpaced and write raw H.264 and AAC to files; the governor is off. CPU is user plus
//! system time of the whole side: for Rung the reading, the demuxing and the protocol of this program too. Prints
//! Markdown. RUNG_ROUNDS (default 5) rounds; RUNG_LADDER_ONLY=NAME runs one of Rung's set-ups, for a profiler.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rung::demux::{Demuxer, Event};
use rung::media::access_unit::AccessUnit;
use rung::media::channel::{Channel, ChannelKind, ChannelName, Ladder};
use rung::media::grid::Cadence;
use rung::media::limits::WORKER_QUEUE_BYTES;
use rung::media::modes::LatencyMode;
use rung::media::sample::Stamps;
use rung::media::track::{AudioConfig, Pid, TrackConfig, VideoConfig};
use rung::pipeline::placement;
use rung::pixels::client::Worker;
use rung::pixels::protocol::{FromWorker, Open, OpenAudio, OpenRendition, OpenVideo, Output, ToWorker, Unit};
use rung::time::SystemClock;

const RATE: u32 = 30;
const GOP: u32 = 2 * RATE;
const AUDIO_BITRATE: u64 = 128_000;
/// What `-tune zerolatency` means, for an encoder that is opened without it.
const ZEROLATENCY: &str = "mbtree=0:sync-lookahead=0:sliced-threads=1:force-cfr=1";

/// One side of a comparison.
#[derive(Clone, Copy)]
struct Setup {
    name: &'static str,
    what: &'static str,
    ours: bool,
    /// veryfast zerolatency; else what the daemon asks for in mode `low`.
    zerolatency: bool,
    /// The top rendition is the source itself.
    hybrid: bool,
}

const fn setup(name: &'static str, what: &'static str, zerolatency: bool) -> Setup {
    Setup { name, what, ours: name.as_bytes()[0] == b'r', zerolatency, hybrid: false }
}

/// The first is what all others are held against.
const SETUPS: [Setup; 5] = [
    setup("ffmpeg-zerolatency", "ffmpeg, veryfast zerolatency", true),
    setup("rung-zerolatency", "Rung, veryfast zerolatency", true),
    setup("ffmpeg-low", "ffmpeg with the settings of Rung's `low`", false),
    setup("rung-low", "Rung, `low` (superfast, mbtree, lookahead 10)", false),
    Setup { hybrid: true, ..setup("rung-hybrid", "Rung, `low`, `hybrid` (top rendition passed through)", false) },
];

/// What a run cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    cpu: f64,
    wall: f64,
    rss_mib: f64,
}

/// The clip, demuxed once to learn what it is.
struct Clip {
    path: PathBuf,
    video: (Pid, VideoConfig),
    audio: (Pid, AudioConfig),
    seconds: f64,
}

fn main() {
    let clip = std::env::args().nth(1).filter(|a| !a.starts_with("--")).map_or_else(natural, PathBuf::from);
    let clip = Clip::open(clip);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ladder");
    fs::create_dir_all(&folder).expect("the target folder is writable");
    if let Ok(only) = std::env::var("RUNG_LADDER_ONLY") {
        let setup = SETUPS.iter().find(|s| s.name == only).expect("the name of a set-up");
        println!("{only}: {:?}", run(setup, &clip, &folder));
        return;
    }
    let rounds: usize = std::env::var("RUNG_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); SETUPS.len()];
    for round in 0..rounds {
        for i in (0..SETUPS.len()).map(|i| if round % 2 == 0 { i } else { SETUPS.len() - 1 - i }) {
            let cost = run(&SETUPS[i], &clip, &folder);
            eprintln!("round {round}: {} {cost:?}", SETUPS[i].name);
            costs[i].push(cost);
        }
    }
    print_costs(&clip, &costs);
    print_quality(&clip, &folder);
}

fn print_costs(clip: &Clip, costs: &[Vec<Cost>]) {
    let mut goals = Vec::new();
    let aims = [None, Some(0.88), None, Some(0.70), Some(0.40)];
    println!(
        "| 1080p/720p/480p/360p + AAC, {:.0} s | CPU-s per second | x of ffmpeg | aim | RSS peak MiB | wall s |",
        clip.seconds
    );
    println!("|---|---|---|---|---|---|");
    for (i, setup) in SETUPS.iter().enumerate() {
        let of = |pick: fn(&Cost) -> f64| median(costs[i].iter().map(pick).collect());
        // Paired: each round's own peer.
        let ratio = median(costs[i].iter().zip(&costs[0]).map(|(ours, peer)| ours.cpu / peer.cpu).collect());
        let aim = aims[i].map_or("-".to_owned(), |aim| format!("<= {aim:.2} {}", verdict(ratio <= aim)));
        if let Some(aim) = aims[i] {
            let held = verdict(ratio <= aim);
            goals.push(format!(
                "ladder, {}: CPU | {} | <= {aim:.2} x | {ratio:.2} x {held}",
                setup.what, SETUPS[0].what
            ));
        }
        println!(
            "| {} | {:.3} | {ratio:.3} | {aim} | {:.0} | {:.1} |",
            setup.what,
            of(|c| c.cpu) / clip.seconds,
            of(|c| c.rss_mib),
            of(|c| c.wall)
        );
    }
    let same = |i: usize, j: usize| median(costs[i].iter().zip(&costs[j]).map(|(a, b)| a.cpu / b.cpu).collect());
    println!("\nAt `low` settings on both sides: {:.3} x of ffmpeg. Median of {} rounds.", same(3, 2), costs[0].len());
    // Rows of the table that tests/prove/run.sh puts in front of all figures.
    goals.iter().for_each(|goal| println!("<!-- goal: {goal} -->"));
}

fn verdict(held: bool) -> &'static str {
    if held { "held" } else { "**missed**" }
}

/// PSNR and SSIM of every rendition against the source scaled by swscale's bicubic, the peer's own scaler.
fn print_quality(clip: &Clip, folder: &Path) {
    println!("\n| rendition | {} |", SETUPS[..4].iter().map(|s| s.what).collect::<Vec<_>>().join(" | "));
    println!("|---|---|---|---|---|");
    let mut better = true;
    for rendition in open_video(clip, &SETUPS[0]).renditions {
        let scores: Vec<(f64, f64)> =
            SETUPS[..4].iter().map(|s| quality(clip, &folder.join(file(s, &rendition.name)), &rendition)).collect();
        better &= scores[3].0 >= scores[0].0 && scores[3].1 >= scores[0].1;
        let cells = SETUPS.iter().zip(&scores).map(|(setup, (psnr, ssim))| {
            let bytes = fs::metadata(folder.join(file(setup, &rendition.name))).map_or(0, |m| m.len());
            format!("{psnr:.2} dB, {ssim:.4}, {:.2} Mb/s", bytes as f64 * 8e-6 / clip.seconds)
        });
        println!("| {} | {} |", rendition.name, cells.collect::<Vec<_>>().join(" | "));
    }
    println!(
        "\nRung's `low` at equal or better PSNR and SSIM of every rendition than ffmpeg veryfast zerolatency: {}.",
        verdict(better)
    );
    println!("1080p is not scaled: equal figures there show that both sides have the same settings.");
}

fn quality(clip: &Clip, coded: &Path, rendition: &OpenRendition) -> (f64, f64) {
    let (w, h) = (rendition.width, rendition.height);
    let graph = format!(
        "[0:v]settb=1/{RATE},setpts=N,split[p][s];\
         [1:v]scale={w}:{h}:flags=bicubic+accurate_rnd+full_chroma_int,settb=1/{RATE},setpts=N,split[a][b];\
         [p][a]psnr;[s][b]ssim"
    );
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "info", "-i"])
        .arg(coded)
        .arg("-i")
        .arg(&clip.path)
        .args(["-filter_complex", &graph, "-f", "null", "-"])
        .output()
        .expect("ffmpeg is installed");
    let text = String::from_utf8_lossy(&output.stderr);
    let number = |mark: &str| {
        let line = text.lines().rev().find(|l| l.contains(mark)).unwrap_or_else(|| panic!("no {mark}: {text}"));
        let rest = &line[line.find(mark).expect("just found") + mark.len()..];
        rest.split([' ', '(']).next().and_then(|n| n.parse().ok()).expect("a number")
    };
    (number(" y:"), number("SSIM Y:"))
}

fn run(setup: &Setup, clip: &Clip, folder: &Path) -> Cost {
    let start = SystemClock::mono();
    let before = cpu();
    let rss_mib = if setup.ours { feed_worker(setup, clip, folder) } else { run_ffmpeg(setup, clip, folder) };
    Cost { cpu: cpu() - before, wall: SystemClock::mono().since(start).as_secs_f64(), rss_mib }
}

/// Of this program and of every child that has ended.
fn cpu() -> f64 {
    let of = |who| {
        let usage = getrusage(who).expect("the arguments are valid");
        (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}

/// What the daemon would ask a worker for, with this set-up's encoder settings.
fn open_video(clip: &Clip, setup: &Setup) -> OpenVideo {
    let kind = if setup.hybrid { ChannelKind::Hybrid } else { ChannelKind::Transcode };
    let channel = Channel {
        preset: setup.zerolatency.then(|| "veryfast".to_owned()),
        ..Channel::new(ChannelName::new("bench").expect("follows the grammar"), kind, LatencyMode::Low)
    };
    let cadence = Cadence::for_rate(f64::from(RATE), channel.mode);
    assert!(cadence.gop == GOP, "the table of rates");
    let source = &clip.video.1;
    let ladder: Ladder = placement::ladder(&channel, source, cadence);
    let mut open = placement::open_video(&channel, clip.video.0, source, cadence, &ladder, 0);
    // ffmpeg makes none either.
    open.pictures = None;
    for rendition in open.renditions.iter_mut().filter(|_| setup.zerolatency) {
        (rendition.lookahead, rendition.bframes) = (0, 0);
        rendition.extra = ZEROLATENCY.to_owned();
    }
    open
}

fn file(setup: &Setup, rendition: &str) -> String {
    format!("{}-{rendition}.h264", setup.name)
}

fn run_ffmpeg(setup: &Setup, clip: &Clip, folder: &Path) -> f64 {
    let ladder = open_video(clip, setup).renditions;
    let mut graph = format!("[0:v]settb=1/{RATE},setpts=N,split={}", ladder.len());
    ladder.iter().enumerate().for_each(|(i, _)| graph += &format!("[s{i}]"));
    for (i, r) in ladder.iter().enumerate() {
        let same = (r.width, r.height) == (clip.video.1.width, clip.video.1.height);
        let filter = if same { "null".to_owned() } else { format!("scale={}:{}:flags=bicubic", r.width, r.height) };
        graph += &format!(";[s{i}]{filter}[v{i}]");
    }
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-i"]).arg(&clip.path).args(["-filter_complex", &graph]);
    // Every picture once: no frame doubled because sound starts first.
    command.args(["-fps_mode", "passthrough"]);
    for (i, r) in ladder.iter().enumerate() {
        let mut params = format!("scenecut=0:b-adapt=0:rc-lookahead={}", r.lookahead);
        if r.lookahead > 0 {
            params += ":mbtree=1";
        }
        if !r.extra.is_empty() {
            params += &format!(":{}", r.extra);
        }
        let vbv = r.bitrate * u64::from(r.vbv_ms) / 1000;
        let words = format!(
            "-map [v{i}] -c:v libx264 -preset {} -profile:v high -g {GOP} -bf {} -forced-idr 1 -flags +cgop \
             -b:v {rate} -maxrate {rate} -bufsize {vbv} -threads {} -thread_type slice -x264-params {params} -f h264",
            r.preset,
            r.bframes,
            r.threads,
            rate = r.bitrate
        );
        command.args(words.split_whitespace()).arg(folder.join(file(setup, &r.name)));
    }
    command.args(["-map", "0:a", "-c:a", "aac", "-b:a", &AUDIO_BITRATE.to_string(), "-ar", "48000", "-ac", "2"]);
    command.args(["-f", "adts"]).arg(folder.join(format!("{}.aac", setup.name)));
    let mut child = command.stdin(Stdio::null()).spawn().expect("ffmpeg is installed");
    let mut peak = 0.0;
    loop {
        peak = rss_peak(child.id()).unwrap_or(0.0).max(peak);
        if let Some(status) = child.try_wait().expect("own child") {
            assert!(status.success(), "ffmpeg: {status}");
            return peak;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// The high-water mark of a process, MiB.
fn rss_peak(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

/// Demuxes the clip, feeds a fresh worker and keeps what it gives.
fn feed_worker(setup: &Setup, clip: &Clip, folder: &Path) -> f64 {
    let video = open_video(clip, setup);
    let ladder = video.renditions.clone();
    let audio = OpenAudio {
        pid: clip.audio.0,
        codec: clip.audio.1.codec,
        config: clip.audio.1.clone(),
        channels: 2,
        bitrate: AUDIO_BITRATE,
        start: 0,
    };
    let open = Open { video: Some(video), audio: vec![audio], unpaced: true };
    let program = PathBuf::from(env!("CARGO_BIN_EXE_rung-worker"));
    let mut worker = Worker::spawn(&program, SystemClock::mono()).expect("the worker was built with this bench");
    worker.send(&ToWorker::Open { ch: 0, open: Box::new(open) }).expect("the queue is empty");
    let mut files: Vec<Vec<u8>> = vec![Vec::new(); ladder.len()];
    let (stream, mut at, mut demuxer) = (fs::read(&clip.path).expect("it was read before"), 0, Demuxer::new());
    let (mut first, mut closed) = (None, false);
    while !closed {
        while at < stream.len() && worker.backlog() < WORKER_QUEUE_BYTES / 4 {
            let end = stream.len().min(at + 1316);
            demuxer.push(SystemClock::mono(), &stream[at..end]);
            at = end;
            if at == stream.len() {
                demuxer.flush(SystemClock::mono());
            }
            send_units(&mut demuxer, &mut worker, clip, &mut first);
            if at == stream.len() {
                worker.send(&ToWorker::Close { ch: 0 }).expect("far below its bound");
            }
        }
        let wanted = if worker.wants_write() { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        poll(&mut [PollFd::new(worker.fd(), wanted)], PollTimeout::from(1000u16)).expect("a socket can be polled");
        worker.run(SystemClock::mono());
        while let Some(message) = worker.poll() {
            closed |= keep(message, &mut files);
        }
        assert!(worker.end().is_none(), "{:?}", worker.end());
    }
    for (bytes, rendition) in files.iter().zip(&ladder) {
        fs::write(folder.join(file(setup, &rendition.name)), bytes).expect("the target folder is writable");
    }
    rss_peak(worker.pid()).unwrap_or(0.0)
}

fn send_units(demuxer: &mut Demuxer, worker: &mut Worker, clip: &Clip, first: &mut Option<i64>) {
    while let Some(event) = demuxer.poll() {
        let Event::Unit(unit) = event else { continue };
        let is_video = unit.pid == clip.video.0;
        // Everything is placed from the first picture on.
        if is_video && first.is_none() {
            *first = Some(unit.pts.0);
        }
        let Some(origin) = *first else { continue };
        let ticks = unit.pts.0 - origin;
        let at = if is_video { (ticks * i64::from(RATE) + 45_000).div_euclid(90_000) } else { ticks * 48 / 90 };
        if is_video || unit.pid == clip.audio.0 {
            worker.send(&ToWorker::Unit { ch: 0, unit: placed(unit, at) }).expect("the backlog was looked at");
        }
    }
}

fn placed(unit: AccessUnit, at: i64) -> Unit {
    let AccessUnit { pid, random_access, damaged, data, .. } = unit;
    Unit { pid, at, prime: false, hidden: false, random_access, damaged, stamps: Stamps::default(), data }
}

/// Annex B of every rendition; true once the worker has nothing left.
fn keep(message: FromWorker, files: &mut [Vec<u8>]) -> bool {
    let mut write = |to: usize, unit: &[u8]| {
        files[to].extend_from_slice(&[0, 0, 0, 1]);
        files[to].extend_from_slice(unit);
    };
    match message {
        FromWorker::Opened { renditions, .. } => {
            for (i, init) in renditions.iter().enumerate() {
                write(i, &init.sps);
                write(i, &init.pps);
            }
        }
        FromWorker::Encoded { frame, .. } => {
            if let Output::Video(index) = frame.output {
                let mut rest = &frame.data[..];
                while let Some((length, more)) = rest.split_first_chunk::<4>() {
                    let (unit, more) = more.split_at(u32::from_be_bytes(*length) as usize);
                    write(usize::from(index), unit);
                    rest = more;
                }
            }
        }
        FromWorker::Closed { .. } => return true,
        FromWorker::Failed { what, .. } => panic!("the worker failed: {what}"),
        FromWorker::Late { .. } | FromWorker::Fault { .. } => panic!("an unpaced worker on a clean file: {message:?}"),
        _ => {}
    }
    false
}

impl Clip {
    fn open(path: PathBuf) -> Clip {
        let stream = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut demuxer = Demuxer::new();
        let (mut video, mut audio, mut frames) = (None, None, 0u32);
        for piece in stream.chunks(1316) {
            demuxer.push(SystemClock::mono(), piece);
            while let Some(event) = demuxer.poll() {
                match event {
                    Event::Config { pid, config: TrackConfig::Video(config) } => video = Some((pid, config)),
                    Event::Config { pid, config: TrackConfig::Audio(config) } => audio = Some((pid, config)),
                    Event::Unit(unit) if unit.codec.is_video() => frames += 1,
                    _ => {}
                }
            }
        }
        // The last picture is only complete when the file ends.
        let seconds = f64::from(frames + 1) / f64::from(RATE);
        Clip { path, video: video.expect("the clip has a picture"), audio: audio.expect("and sound"), seconds }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn natural() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("natural.ts");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/media/natural.sh");
    let made: Child = Command::new(script).arg(&path).spawn().expect("bash is there");
    let status = made.wait_with_output().expect("own child").status;
    assert!(status.success(), "tests/media/natural.sh: {status}");
    path
}

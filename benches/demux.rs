//! Demuxer throughput on one core, beside `ffmpeg -c copy -f null` on the same file, which reads, demuxes and parses too.
//! `cargo bench --bench demux [-- FILE]`; without a file, a clip is made with ffmpeg.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rung::demux::{Demuxer, Event};
use rung::time::SystemClock;

const ROUNDS: usize = 5;

fn main() {
    let file = std::env::args().nth(1).filter(|a| !a.starts_with("--")).map_or_else(make_clip, PathBuf::from);
    let stream = std::fs::read(&file).expect("a transport stream file");
    let megabytes = stream.len() as f64 / 1e6;
    let (mut ours, mut theirs, mut units) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let before = cpu(UsageWho::RUSAGE_SELF);
        units = demux(&stream);
        ours.push(cpu(UsageWho::RUSAGE_SELF) - before);
        let before = cpu(UsageWho::RUSAGE_CHILDREN);
        let status = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-i"])
            .arg(&file)
            .args(["-map", "0", "-c", "copy", "-f", "null", "-"])
            .status()
            .expect("ffmpeg is installed");
        assert!(status.success(), "ffmpeg: {status}");
        theirs.push(cpu(UsageWho::RUSAGE_CHILDREN) - before);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("{}: {megabytes:.1} MB, {units} units", file.display());
    println!("demuxer      {ours:.4} CPU-s, {:.0} MB/s, {:.2} Gb/s", megabytes / ours, megabytes * 8e-3 / ours);
    println!("ffmpeg copy  {theirs:.4} CPU-s, {:.0} MB/s", megabytes / theirs);
    println!("ratio        {:.3}", ours / theirs);
}

/// SRT payloads of seven packets, as the daemon gets them.
fn demux(stream: &[u8]) -> usize {
    let (mut demuxer, mut units) = (Demuxer::new(), 0);
    for piece in stream.chunks(1316) {
        demuxer.push(SystemClock::mono(), piece);
        while let Some(event) = demuxer.poll() {
            units += usize::from(matches!(event, Event::Unit(_)));
        }
    }
    units
}

fn cpu(who: UsageWho) -> f64 {
    let usage = getrusage(who).expect("the arguments are valid");
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn make_clip() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-demux.ts");
    if !path.exists() {
        let arguments = "-v error -y -nostdin -f lavfi -i testsrc2=s=1280x720:r=25 -f lavfi -i sine=r=48000 -t 60 \
                         -c:v libx264 -preset ultrafast -g 50 -b:v 12M -minrate 12M -maxrate 12M -bufsize 6M -x264-params nal-hrd=vbr:qpmin=1 -c:a aac -b:a 128k -f mpegts";
        let status = Command::new("ffmpeg").args(arguments.split_whitespace()).arg(&path).status();
        assert!(status.expect("ffmpeg is installed").success());
    }
    path
}

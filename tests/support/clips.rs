//! Clips made by the real ffmpeg at test time, kept under the target folder; and what libavformat finds in a file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder for test media that survives from run to run.
pub(crate) fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips");
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

/// The clip of this name, made with these ffmpeg arguments if it is not there yet.
pub(crate) fn clip(name: &str, arguments: &str) -> Vec<u8> {
    let path = clip_path(name, arguments);
    std::fs::read(path).expect("the clip was just made")
}

pub(crate) fn clip_path(name: &str, arguments: &str) -> PathBuf {
    let print =
        arguments.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    let path = folder().join(format!("{name}-{print:016x}.ts"));
    if !path.exists() {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let made = path.with_extension(format!("{}.{number}.part", std::process::id()));
        let mut words: Vec<&str> = vec!["-v", "error", "-y", "-nostdin"];
        words.extend(arguments.split_whitespace());
        words.extend(["-f", "mpegts"]);
        let status = Command::new("ffmpeg").args(words).arg(&made).status().expect("ffmpeg is installed");
        assert!(status.success(), "ffmpeg {arguments}: {status}");
        std::fs::rename(&made, &path).expect("same folder");
    }
    path
}

/// A packet as libavformat's demuxer and parsers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) video: bool,
    /// 33 bits.
    pub(crate) pts: Option<u64>,
    pub(crate) dts: Option<u64>,
    pub(crate) key: bool,
    pub(crate) corrupt: bool,
    pub(crate) data: Vec<u8>,
}

/// All packets of a transport stream by libavformat, in file order per track.
pub(crate) fn oracle(stream: &[u8]) -> Vec<Packet> {
    let path = tempfile::Builder::new().suffix(".ts").tempfile_in(folder()).expect("a temporary file");
    std::fs::write(path.path(), stream).expect("room for a clip");
    let probe = Command::new("ffprobe")
        .args(["-v", "quiet", "-show_entries", "packet=codec_type,pts,dts,size,flags", "-of", "csv=p=0"])
        .arg(path.path())
        .output()
        .expect("ffprobe is installed");
    let raw = ["v:0", "a:0"].map(|track| {
        let output = Command::new("ffmpeg")
            .args(["-v", "quiet", "-nostdin", "-i"])
            .arg(path.path())
            .args(["-map", &format!("0:{track}?"), "-c", "copy", "-copyinkf", "-f", "data", "-"])
            .output()
            .expect("ffmpeg is installed");
        output.stdout
    });
    let mut at = [0usize; 2];
    let wrap = |field: &str| field.parse::<i64>().ok().map(|t| t.rem_euclid(1 << 33).cast_unsigned());
    let text = String::from_utf8(probe.stdout).expect("ffprobe writes ASCII");
    let mut packets = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let [kind @ ("video" | "audio"), pts, dts, size, flags, ..] = fields[..] else { continue };
        let track = usize::from(kind == "audio");
        let size: usize = size.parse().expect("a size");
        let data = raw[track].get(at[track]..at[track] + size).expect("ffmpeg and ffprobe agree").to_vec();
        at[track] += size;
        packets.push(Packet {
            video: track == 0,
            pts: wrap(pts),
            dts: wrap(dts),
            key: flags.starts_with('K'),
            corrupt: flags.contains('C'),
            data,
        });
    }
    assert_eq!(at, [raw[0].len(), raw[1].len()], "ffmpeg and ffprobe agree on every packet");
    packets
}

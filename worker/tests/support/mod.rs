//! The real `rung-worker` on a socketpair, and real media made by ffmpeg.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use bytes::Bytes;
use rung::media::channel::{Slate, VideoCodec};
use rung::media::crop::Margins;
use rung::media::grid::Cadence;
use rung::media::modes::LatencyMode;
use rung::media::sample::Stamps;
use rung::media::track::{AudioConfig, Codec, Colour, VideoConfig};
use rung::pixels::protocol::{
    self, Backend, Deinterlace, Encoded, FromWorker, Open, OpenAudio, OpenRendition, OpenVideo, Output, ToWorker, Unit,
    VideoInit,
};
use rung::time::{Mono, SystemClock};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const VIDEO: u16 = 256;
pub(crate) const AUDIO: u16 = 257;
pub(crate) const CH: u32 = 7;
/// No answer takes longer, however loaded the machine is.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Worker {
    /// `None`: a seat in a shared process.
    child: Option<Child>,
    socket: UnixStream,
    decoder: protocol::Decoder,
    /// Everything received so far.
    pub(crate) log: Vec<FromWorker>,
}

impl Worker {
    /// A fresh process; its `Hello` has been read.
    pub(crate) fn start() -> Worker {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = spawn(&[], OwnedFd::from(theirs));
        Worker::over(Some(child), ours)
    }

    /// On a socket whose other end serves one channel; its `Hello` has been read.
    pub(crate) fn over(child: Option<Child>, socket: UnixStream) -> Worker {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut worker = Worker { child, socket, decoder: protocol::Decoder::default(), log: Vec::new() };
        // Whoever is refused at once may have nobody left to hear it; what was said to it is there to be read.
        let mut hello = Vec::new();
        protocol::encode(&ToWorker::Hello { version: protocol::VERSION }, &mut hello);
        drop(worker.socket.write_all(&hello));
        worker.wait(|m| matches!(m, FromWorker::Hello { version: protocol::VERSION, .. }));
        worker
    }

    /// Bytes that are no message.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Everything up to the end of the worker's side.
    pub(crate) fn rest(mut self) -> Vec<FromWorker> {
        let mut bytes = vec![0; 1 << 16];
        loop {
            while let Some(message) = self.decoder.pop::<FromWorker>().unwrap() {
                self.log.push(message);
            }
            match self.socket.read(&mut bytes) {
                // What it sent before it died may be lost with what we sent and it never read.
                Ok(0) => return std::mem::take(&mut self.log),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return std::mem::take(&mut self.log),
                Ok(n) => self.decoder.push(&bytes[..n]),
                Err(e) => panic!("the worker does not close its side: {e}"),
            }
        }
    }

    pub(crate) fn send(&mut self, message: &ToWorker) {
        let mut bytes = Vec::new();
        protocol::encode(message, &mut bytes);
        self.socket.write_all(&bytes).unwrap();
    }

    pub(crate) fn open(&mut self, open: Open) {
        self.send(&ToWorker::Open { ch: CH, open: Box::new(open) });
    }

    /// Reads until a message fits; it stays in the log.
    pub(crate) fn wait(&mut self, fits: impl Fn(&FromWorker) -> bool) -> FromWorker {
        let until = SystemClock::mono() + DEADLINE;
        let mut bytes = vec![0; 1 << 16];
        loop {
            while let Some(message) = self.decoder.pop::<FromWorker>().unwrap() {
                self.log.push(message.clone());
                if fits(&message) {
                    return message;
                }
                if let FromWorker::Failed { what, .. } = &message {
                    panic!("the worker failed: {what}");
                }
            }
            assert!(SystemClock::mono() < until, "no answer within {DEADLINE:?}; {} messages seen", self.log.len());
            let n = self.socket.read(&mut bytes).unwrap();
            assert!(n > 0, "the worker is gone");
            self.decoder.push(&bytes[..n]);
        }
    }

    pub(crate) fn opened(&mut self) -> (Vec<VideoInit>, Vec<AudioConfig>) {
        match self.wait(|m| matches!(m, FromWorker::Opened { .. })) {
            FromWorker::Opened { renditions, audio, .. } => (renditions, audio),
            _ => unreachable!(),
        }
    }

    /// Sends messages while this thread goes on.
    pub(crate) fn feed(&self, messages: Vec<ToWorker>) -> std::thread::JoinHandle<()> {
        let mut out = self.socket.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            for message in &messages {
                bytes.clear();
                protocol::encode(message, &mut bytes);
                // A worker that went, or was left, shows in what it does not say.
                if out.write_all(&bytes).is_err() {
                    return;
                }
            }
        })
    }

    /// Closes a seat's socket, whoever still writes to it.
    pub(crate) fn leave(self) {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Sends units while another thread reads: neither end may wait for the other for ever.
    pub(crate) fn feed_and_close(&mut self, messages: Vec<ToWorker>) {
        let feeder = self.feed(messages.into_iter().chain([ToWorker::Close { ch: CH }]).collect());
        self.wait(|m| matches!(m, FromWorker::Closed { ch: CH }));
        feeder.join().unwrap();
    }

    /// What a rendition or audio track gave, in the order of arrival.
    pub(crate) fn encoded(&self, output: &Output) -> Vec<Encoded> {
        self.log
            .iter()
            .filter_map(|m| match m {
                FromWorker::Encoded { frame, .. } if frame.output == *output => Some(frame.clone()),
                _ => None,
            })
            .collect()
    }

    /// Closes our end; the worker must go by itself.
    pub(crate) fn hang_up(mut self) -> std::process::ExitStatus {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
        let until = SystemClock::mono() + DEADLINE;
        loop {
            let child = self.child.as_mut().expect("a process of its own");
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(SystemClock::mono() < until, "the worker outlives its daemon");
            std::thread::yield_now();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The program with `socket` as its descriptor 3.
pub(crate) fn spawn(arguments: &[&str], socket: OwnedFd) -> Child {
    spawn_in(arguments, socket, |_| {})
}

pub(crate) fn spawn_in(arguments: &[&str], socket: OwnedFd, environment: impl FnOnce(&mut Command)) -> Child {
    // The shell moves its standard input to descriptor 3 and becomes the worker.
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$0\" \"$@\" 3<&0 </dev/null", env!("CARGO_BIN_EXE_rung-worker")])
        .args(arguments)
        .stdin(Stdio::from(socket));
    environment(&mut command);
    command.spawn().unwrap()
}

/// A coded picture: its frame index, and Annex B bytes.
#[derive(Clone, Debug)]
pub(crate) struct Coded {
    pub(crate) n: i64,
    pub(crate) key: bool,
    pub(crate) data: Bytes,
}

pub(crate) fn ffmpeg(args: &[&str]) {
    let out = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y"])
        .args(args)
        .output()
        .expect("ffmpeg is installed");
    assert!(out.status.success(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Luma of frame n of `video`: any two frames within 40 differ by at least 5.
pub(crate) fn luma_of(n: i64) -> u8 {
    u8::try_from(20 + n.rem_euclid(40) * 5).unwrap()
}

/// 320x180 at 25 frames/s: plain grey that names the frame, in decode order.
pub(crate) fn video(dir: &Path, frames: u32, x264: &[&str]) -> Vec<Coded> {
    let mp4 = dir.join("in.mp4");
    let source = "nullsrc=s=320x180:r=25,geq=lum='20+mod(N,40)*5':cb=128:cr=128,format=yuv420p";
    let frames = frames.to_string();
    let mut args = vec!["-f", "lavfi", "-i", source, "-frames:v", &frames, "-c:v", "libx264", "-preset", "veryfast"];
    args.extend(x264);
    args.push(mp4.to_str().unwrap());
    ffmpeg(&args);
    split_mp4(dir, &mp4)
}

pub(crate) fn split_mp4(dir: &Path, mp4: &Path) -> Vec<Coded> {
    let annexb = dir.join("in.h264");
    let bsf = "h264_mp4toannexb,h264_metadata=aud=insert";
    ffmpeg(&[
        "-i",
        mp4.to_str().unwrap(),
        "-an",
        "-c:v",
        "copy",
        "-bsf:v",
        bsf,
        "-f",
        "h264",
        annexb.to_str().unwrap(),
    ]);
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v", "-show_entries", "packet=pts_time,flags", "-of", "csv=p=0"])
        .arg(mp4)
        .output()
        .unwrap();
    let stamps = String::from_utf8(probe.stdout).unwrap();
    let pictures = split_at_delimiters(&std::fs::read(annexb).unwrap());
    let stamps: Vec<_> = stamps.lines().collect();
    assert_eq!(pictures.len(), stamps.len());
    pictures
        .into_iter()
        .zip(stamps)
        .map(|(data, line)| {
            let (time, flags) = line.split_once(',').unwrap();
            let n = (time.parse::<f64>().unwrap() * 25.0).round() as i64;
            Coded { n, key: flags.starts_with('K'), data }
        })
        .collect()
}

fn split_at_delimiters(stream: &[u8]) -> Vec<Bytes> {
    const DELIMITER: [u8; 5] = [0, 0, 0, 1, 9];
    let mut starts: Vec<usize> = (0..stream.len() - 5).filter(|i| stream[*i..*i + 5] == DELIMITER).collect();
    starts.push(stream.len());
    // The delimiter itself (start code, header, one byte) goes, as the demuxer takes it out.
    starts.windows(2).map(|w| Bytes::copy_from_slice(&stream[w[0] + 6..w[1]])).collect()
}

pub(crate) fn video_unit(picture: &Coded) -> Unit {
    Unit {
        pid: VIDEO,
        at: picture.n,
        prime: false,
        hidden: false,
        random_access: picture.key,
        damaged: false,
        stamps: Stamps { received: Mono(1_000 + picture.n.cast_unsigned()), ..Stamps::default() },
        data: picture.data.clone(),
    }
}

pub(crate) fn audio_unit(at: i64, data: Bytes) -> Unit {
    Unit {
        pid: AUDIO,
        at,
        prime: false,
        hidden: false,
        random_access: true,
        damaged: false,
        stamps: Stamps::default(),
        data,
    }
}

pub(crate) fn to_units(pictures: &[Coded]) -> Vec<ToWorker> {
    pictures.iter().map(|p| ToWorker::Unit { ch: CH, unit: video_unit(p) }).collect()
}

pub(crate) fn rendition(width: u32, height: u32) -> OpenRendition {
    OpenRendition {
        name: format!("{height}p"),
        codec: VideoCodec::H264,
        width,
        height,
        sar: (1, 1),
        bitrate: 400_000,
        vbv_ms: 500,
        bframes: 0,
        lookahead: 5,
        preset: "superfast".to_owned(),
        extra: String::new(),
        threads: 1,
        colour: Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false },
    }
}

pub(crate) fn cadence() -> Cadence {
    Cadence::for_rate(25.0, LatencyMode::Ultra)
}

/// 320x180 in, one small rendition out: eight at once are no burden.
pub(crate) fn small() -> Open {
    let mut open = ladder();
    open.video.as_mut().unwrap().renditions = vec![rendition(128, 72)];
    open
}

/// 320x180 in; 320x180, 192x108 and 128x72 out; nothing is shed.
pub(crate) fn ladder() -> Open {
    Open {
        video: Some(OpenVideo {
            pid: VIDEO,
            source: video_config(320, 180),
            cadence: cadence(),
            start: 0,
            renditions: vec![rendition(320, 180), rendition(192, 108), rendition(128, 72)],
            deinterlace: Deinterlace::Frame,
            crop: Margins::default(),
            logo: None,
            slate: Slate::Black,
            backend: Backend::Software,
            pictures: None,
        }),
        audio: Vec::new(),
        unpaced: true,
    }
}

pub(crate) fn video_config(width: u32, height: u32) -> VideoConfig {
    VideoConfig {
        codec: Codec::H264,
        width,
        height,
        sar: (1, 1),
        rate: None,
        interlaced: false,
        colour: Colour::default(),
        profile: [100, 0, 40],
        bit_depth: 8,
        chroma_format: 1,
        reorder: None,
        sps: Bytes::new(),
        pps: Vec::new(),
    }
}

pub(crate) fn open_audio(codec: Codec, sample_rate: u32, channels: u8, asc: Bytes) -> OpenAudio {
    let config = AudioConfig { codec, object_type: 2, sample_rate, channels, asc };
    OpenAudio { pid: AUDIO, codec, config, channels: 2, bitrate: 128_000, start: 0 }
}

/// Mean luma of every picture that a player decodes, in presentation order. Any complaint of the decoder fails.
pub(crate) fn decode_luma(dir: &Path, init: &VideoInit, frames: &[Encoded], width: usize, height: usize) -> Vec<f64> {
    let path = write_annexb(dir, init, frames);
    let pixels = width * height;
    let mean = |p: &[u8]| p[..pixels].iter().map(|b| f64::from(*b)).sum::<f64>() / pixels as f64;
    decode_planar(&path).chunks(pixels * 3 / 2).map(mean).collect()
}

/// The 4:2:0 pictures of an Annex B file, whose name ends as its codec is called. Any complaint of the decoder fails.
pub(crate) fn decode_planar(path: &Path) -> Vec<u8> {
    let codec = path.extension().unwrap().to_str().unwrap();
    let out = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "warning", "-err_detect", "explode", "-f", codec, "-i"])
        .arg(path)
        .args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "-fps_mode", "passthrough", "-"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.trim().is_empty(), "a player's decoder complains: {said}");
    out.stdout
}

pub(crate) fn write_annexb(dir: &Path, init: &VideoInit, frames: &[Encoded]) -> PathBuf {
    let mut stream = Vec::new();
    for nal in init.vps.iter().chain([&init.sps, &init.pps]) {
        stream.extend_from_slice(&[0, 0, 0, 1]);
        stream.extend_from_slice(nal);
    }
    for frame in frames {
        for unit in nal_units(&frame.data) {
            stream.extend_from_slice(&[0, 0, 0, 1]);
            stream.extend_from_slice(unit);
        }
    }
    let path = dir.join(if init.vps.is_some() { "out.hevc" } else { "out.h264" });
    std::fs::write(&path, stream).unwrap();
    path
}

/// The NAL units of a length-prefixed sample.
pub(crate) fn nal_units(mut sample: &[u8]) -> Vec<&[u8]> {
    let mut units = Vec::new();
    while !sample.is_empty() {
        let (length, rest) = sample.split_first_chunk::<4>().expect("whole lengths");
        let (unit, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        units.push(unit);
        sample = rest;
    }
    units
}

/// 48 kHz mono samples that a player hears from these frames; sample 0 is the first frame's first.
pub(crate) fn decode_audio(dir: &Path, frames: &[Encoded]) -> Vec<f32> {
    let mut stream = Vec::new();
    for frame in frames {
        let size = u32::try_from(frame.data.len() + 7).unwrap();
        stream.extend_from_slice(&[0xff, 0xf1, 0x4c]);
        stream.extend_from_slice(&(2u32 << 30 | size << 13 | 0x7ff << 2).to_be_bytes());
        stream.extend_from_slice(&frame.data);
    }
    let path = dir.join("out.aac");
    std::fs::write(&path, stream).unwrap();
    let out = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-f", "aac", "-i"])
        .arg(&path)
        .args(["-f", "f32le", "-ac", "1", "-"])
        .output()
        .unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

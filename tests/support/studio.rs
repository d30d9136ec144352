//! A broadcast without the pipeline: pictures drawn here with counter and clock strips, encoded by ffmpeg in real
//! time, cut into a session of an `Origin`. For tests of what comes behind the packager.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rung::media::channel::{ChannelName, SessionId};
use rung::media::grid::{Cadence, FrameRate, Grid, PdtLine};
use rung::media::modes::LatencyMode;
use rung::media::sample::{Sample, Stamps};
use rung::media::track::{AudioConfig, Codec, Colour, VideoConfig};
use rung::package::fmp4::init::InitSection;
use rung::package::origin::{Origin, SessionOutput};
use rung::package::segmenter::{Cut, Segmenter};
use rung::package::window::{Before, Kind, RETAINED_BYTES_MAX, RenditionOutput, RenditionSpec, Targets};
use rung::time::{SystemClock, Wall};

/// The drawn picture.
const WIDTH: usize = 640;
const HEIGHT: usize = 360;
const RENDITIONS: [(&str, u32, u32, u64); 2] = [("360p", 640, 360, 800_000), ("180p", 320, 180, 300_000)];

/// One broadcast of channel `test`; it ends when this is dropped.
pub(crate) struct Broadcast {
    pub(crate) session: Arc<SessionOutput>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Broadcast {
    /// Goes on air now; frame counters start at `first_frame`.
    pub(crate) fn start(origin: &Origin, mode: LatencyMode, first_frame: u32) -> Broadcast {
        let channel = origin.declare(&ChannelName::new("test").expect("a good name"));
        let session = Arc::new(SessionOutput::new(SessionId::new(ulid::Ulid::generate()), mode));
        let tone = adts_of_a_tone();
        let cadence = Cadence::for_rate(25.0, mode);
        let wall = SystemClock::wall();
        let grid = Grid { cadence, msn0: wall.unix_seconds() };
        let line = PdtLine { from_n: 0, wall, ppm: 0 };
        let spec = |name: &str, kind, cap| RenditionSpec {
            session: session.id.clone(),
            name: name.into(),
            kind,
            targets: Targets::ladder(mode, cadence, None),
            independent_segments: true,
            bandwidth_cap: cap,
            retained_bytes_max: RETAINED_BYTES_MAX,
            before: Before::default(),
        };
        let (mut threads, mut inputs) = (Vec::new(), Vec::new());
        for (name, width, height, bitrate) in RENDITIONS {
            let output = RenditionOutput::new(spec(name, Kind::Video { rate: Some(FrameRate::new(25, 1)) }, bitrate));
            session.add(output.clone());
            let (child, input) = encoder(width, height, bitrate);
            inputs.push(input);
            threads.push(std::thread::spawn(move || cut_video(child, &output, (width, height), grid, line)));
        }
        let output = RenditionOutput::new(spec(
            "a-eng-1",
            Kind::Audio { language: Some("eng".into()), default: true, role: Default::default() },
            128_000,
        ));
        session.add(output.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let (quiet, drawn) = (stop.clone(), stop.clone());
        threads.push(std::thread::spawn(move || cut_audio(&tone, &output, grid, line, &quiet)));
        threads.push(std::thread::spawn(move || draw(inputs, first_frame, wall, &drawn)));
        channel.set_session(Some(session.clone()));
        Broadcast { session, stop, threads }
    }

    /// The publisher goes; ENDLIST follows when the encoders have drained.
    pub(crate) fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("no thread of the studio panics");
        }
    }
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        self.finish();
    }
}

fn encoder(width: u32, height: u32, bitrate: u64) -> (Child, ChildStdin) {
    let mut child = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", "640x360", "-r", "25", "-i", "pipe:0"])
        .args([
            "-vf",
            &format!("scale={width}:{height}"),
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-tune",
            "zerolatency",
        ])
        .args([
            "-threads",
            "1",
            "-g",
            "50",
            "-keyint_min",
            "50",
            "-sc_threshold",
            "0",
            "-x264-params",
            "aud=1:repeat-headers=1",
        ])
        .args(["-b:v", &bitrate.to_string(), "-f", "h264", "-flush_packets", "1", "pipe:1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ffmpeg starts");
    let input = child.stdin.take().expect("stdin is piped");
    (child, input)
}

/// Draws 25 pictures a second until it is told to stop; closing the pipes ends the encoders.
fn draw(mut inputs: Vec<ChildStdin>, first: u32, start: Wall, stop: &AtomicBool) {
    let origin = SystemClock::mono();
    let behind = SystemClock::wall().0 - start.0;
    let mut picture = vec![128u8; WIDTH * HEIGHT * 3 / 2];
    for n in 0u32.. {
        let due = origin + Duration::from_millis(u64::from(n) * 40);
        while SystemClock::mono() < due {
            std::thread::park_timeout(due - SystemClock::mono());
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        paint(&mut picture, first + n, (SystemClock::wall().0 - behind).unsigned_abs() / 10_000_000);
        for input in &mut inputs {
            input.write_all(&picture).expect("the encoder takes pictures");
        }
    }
}

/// A slow gradient, a walking bar, and the two strips.
fn paint(picture: &mut [u8], counter: u32, hundredths: u64) {
    let luma = &mut picture[..WIDTH * HEIGHT];
    let bar = (counter as usize * 4) % WIDTH;
    for (y, row) in luma.chunks_mut(WIDTH).enumerate() {
        for (x, pixel) in row.iter_mut().enumerate() {
            let sky = 34 + y * 60 / HEIGHT + x * 30 / WIDTH;
            *pixel = if x.abs_diff(bar) < 12 { 190 } else { u8::try_from(sky).unwrap_or(128) };
        }
    }
    strip(luma, 11, counter & 0xff_ffff);
    strip(luma, 10, u32::try_from(hundredths % (1 << 24)).unwrap_or(0));
}

/// Twelfth `row` of the picture: white, black, 24 bits, CRC-8 of them.
fn strip(luma: &mut [u8], row: usize, value: u32) {
    let crc = value.to_be_bytes()[1..]
        .iter()
        .fold(0u8, |crc, byte| (0..8).fold(crc ^ byte, |c, _| if c & 0x80 == 0 { c << 1 } else { (c << 1) ^ 0x07 }));
    let bits = value << 8 | u32::from(crc);
    for y in row * HEIGHT / 12..(row + 1) * HEIGHT / 12 {
        for x in 0..WIDTH {
            let block = x * 34 / WIDTH;
            let white = block == 0 || (block >= 2 && bits >> (33 - block) & 1 == 1);
            luma[y * WIDTH + x] = if white { 235 } else { 16 };
        }
    }
}

/// Annex B from the encoder, cut at access unit delimiters, into a rendition.
fn cut_video(mut child: Child, output: &Arc<RenditionOutput>, (width, height): (u32, u32), grid: Grid, line: PdtLine) {
    let mut pipe = child.stdout.take().expect("stdout is piped");
    let (mut buffer, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    let mut segmenter: Option<Segmenter> = None;
    let mut n = 0;
    loop {
        let got = pipe.read(&mut chunk).expect("the encoder's pipe");
        buffer.extend_from_slice(&chunk[..got]);
        let last = got == 0;
        while let Some(end) = next_delimiter(&buffer).or((last && !buffer.is_empty()).then_some(buffer.len())) {
            let unit: Vec<u8> = buffer.drain(..end).collect();
            let nals = nal_units(&unit);
            let find = |kind| nals.iter().find(|nal| nal[0] & 31 == kind);
            let segmenter = segmenter.get_or_insert_with(|| {
                let sps = Bytes::copy_from_slice(find(7).expect("an IDR has an SPS"));
                let pps = Bytes::copy_from_slice(find(8).expect("an IDR has a PPS"));
                let init = InitSection::video(&video(width, height, sps, pps), grid.cadence.timescale(), 0);
                Segmenter::new(output.clone(), init, Cut::Frames, grid, line)
            });
            let mut data = Vec::new();
            for nal in nals.iter().filter(|nal| matches!(nal[0] & 31, 1 | 5)) {
                data.extend_from_slice(&u32::try_from(nal.len()).expect("a short NAL unit").to_be_bytes());
                data.extend_from_slice(nal);
            }
            let ticks = grid.cadence.frame_ticks();
            let (dts, sync) = (n * i64::from(ticks), find(5).is_some());
            let sample = Sample { dts, duration: ticks, cto: 0, sync, data: data.into(), stamps: Stamps::default() };
            segmenter.push(SystemClock::mono(), sample, grid.place_frame(n));
            while segmenter.poll().is_some() {}
            n += 1;
        }
        if last {
            break;
        }
    }
    if let Some(mut segmenter) = segmenter {
        segmenter.end(SystemClock::mono());
    }
    child.wait().expect("the encoder is ours");
}

/// Where the second access unit of `bytes` starts.
fn next_delimiter(bytes: &[u8]) -> Option<usize> {
    bytes.windows(5).skip(1).position(|w| w == [0, 0, 0, 1, 9]).map(|at| at + 1)
}

fn nal_units(unit: &[u8]) -> Vec<&[u8]> {
    let mut starts: Vec<usize> = (0..unit.len().saturating_sub(3)).filter(|&n| unit[n..n + 3] == [0, 0, 1]).collect();
    starts.push(unit.len());
    starts
        .windows(2)
        .map(|pair| {
            let nal = &unit[(pair[0] + 3).min(pair[1])..pair[1]];
            let zeros = nal.iter().rev().take_while(|b| **b == 0).count();
            &nal[..nal.len() - zeros]
        })
        .filter(|nal| !nal.is_empty())
        .collect()
}

/// A tone in AAC, paced by the wall, into the audio rendition.
fn cut_audio(tone: &[Bytes], output: &Arc<RenditionOutput>, grid: Grid, line: PdtLine, stop: &AtomicBool) {
    let config = AudioConfig {
        codec: Codec::Aac,
        object_type: 2,
        sample_rate: 48_000,
        channels: 2,
        asc: Bytes::from_static(&[0x11, 0x90]),
    };
    let mut segmenter = Segmenter::new(output.clone(), InitSection::audio(&config, 0), Cut::Audio, grid, line);
    let start = SystemClock::mono();
    for m in 0i64.. {
        let due = start + Duration::from_micros((m.unsigned_abs() + 1) * 1_024_000 / 48);
        while SystemClock::mono() < due {
            std::thread::park_timeout(due - SystemClock::mono());
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let data = tone[usize::try_from(m).expect("m counts up") % tone.len()].clone();
        let sample = Sample { dts: m * 1_024, duration: 1_024, cto: 0, sync: true, data, stamps: Stamps::default() };
        segmenter.push(SystemClock::mono(), sample, grid.place_audio(m, 48_000));
        while segmenter.poll().is_some() {}
    }
    segmenter.end(SystemClock::mono());
}

/// Ten seconds of 440 Hz as raw AAC frames.
fn adts_of_a_tone() -> Vec<Bytes> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "sine=440:sample_rate=48000:duration=10", "-ac", "2"])
        .args(["-c:a", "aac", "-b:a", "96k", "-f", "adts", "pipe:1"])
        .output()
        .expect("ffmpeg starts");
    let (mut frames, mut rest) = (Vec::new(), &out.stdout[..]);
    while rest.len() > 7 {
        let length = usize::from(rest[3] & 3) << 11 | usize::from(rest[4]) << 3 | usize::from(rest[5] >> 5);
        frames.push(Bytes::copy_from_slice(&rest[7..length]));
        rest = &rest[length..];
    }
    assert!(frames.len() > 400, "ffmpeg made {} frames of tone", frames.len());
    frames
}

fn video(width: u32, height: u32, sps: Bytes, pps: Bytes) -> VideoConfig {
    VideoConfig {
        codec: Codec::H264,
        width,
        height,
        sar: (1, 1),
        rate: Some(FrameRate::new(25, 1)),
        interlaced: false,
        colour: Colour::default(),
        profile: [sps[1], sps[2], sps[3]],
        bit_depth: 8,
        chroma_format: 1,
        reorder: Some(0),
        sps,
        pps: vec![pps],
    }
}

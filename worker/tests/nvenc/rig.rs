//! A card with an encoder, pictures on it, and ffmpeg's eyes for what comes out.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use rung::media::channel::VideoCodec;
use rung::media::grid::Cadence;
use rung::media::modes::LatencyMode;
use rung::media::track::Colour;
use rung::pixels::protocol::OpenRendition;
use rung_worker::gpu::Depth;
use rung_worker::gpu::cuda::{Device, Event, GpuName, Stream, Timing};
use rung_worker::gpu::error::Error;
use rung_worker::gpu::load;
use rung_worker::gpu::memory::{self, Pinned, Plane, Rows};
use rung_worker::gpu::nvenc::{Api, Codec, Coded, Encoder, Format, Surface, Surfaces};
use rung_worker::gpu::watch::Watch;
use std::io::Write;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;

use crate::double;

/// The double's card in this process.
pub(crate) struct Rig {
    pub(crate) device: Arc<Device>,
    pub(crate) api: Arc<Api>,
    pub(crate) watch: Watch,
    stream: Stream,
}

impl Rig {
    pub(crate) const SURFACES: usize = 4;

    pub(crate) fn new() -> Rig {
        let driver = load::Driver::open(Some(&double::folder())).unwrap();
        let device = Device::open(&driver, GpuName::Index(0)).unwrap();
        let stream = Stream::new(&device).unwrap();
        Rig { api: Api::open(&driver).unwrap(), device, stream, watch: Watch::new("encode") }
    }

    pub(crate) fn try_open(&self, rendition: &OpenRendition, format: Format) -> Result<Encoder, Error> {
        let cadence = Cadence::for_rate(30.0, LatencyMode::Ultra);
        Encoder::open(&self.api, &self.device, rendition, format, cadence, Rig::SURFACES, &self.watch)
    }

    #[track_caller]
    pub(crate) fn open(&self, rendition: &OpenRendition, format: Format) -> Encoder {
        self.try_open(rendition, format).unwrap()
    }

    /// An event that has happened.
    pub(crate) fn happened(&self) -> Event {
        let event = Event::new(&self.device, Timing::Off).unwrap();
        event.record(&self.stream).unwrap();
        event
    }

    /// Picture `n` of the moving test pattern onto `surface`.
    pub(crate) fn write(&self, surface: &Surface, n: i64) {
        let size = (surface.width(), surface.height());
        self.upload(surface, &picture(size, surface.depth(), n));
    }

    /// A surface of the pool with picture `n` on it.
    pub(crate) fn filled(&self, pool: &Surfaces, n: i64) -> Surface {
        let surface = pool.wait_take().unwrap();
        self.write(&surface, n);
        surface
    }

    /// Pushes noise, which no encoder makes small, and pulls what comes.
    pub(crate) fn noisy(&self, encoder: &mut Encoder, range: Range<i64>, coded: &mut Vec<Coded>) {
        for n in range {
            let surface = encoder.inputs().wait_take().unwrap();
            let mut state = n as u64 + 1;
            let bytes = (surface.width() * surface.height() * 3 / 2) as usize;
            let noise: Vec<u8> = (0..bytes)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    96 + (state >> 58) as u8
                })
                .collect();
            self.upload(&surface, &noise);
            encoder.push(&surface, n, false, &self.happened()).unwrap();
            coded.extend(encoder.pull(0).unwrap());
        }
    }

    fn upload(&self, surface: &Surface, bytes: &[u8]) {
        let (row, height) = (surface.width() as usize * surface.depth().bytes(), surface.height() as usize);
        let mut host = Pinned::new(&self.device, bytes.len()).unwrap();
        host.bytes_mut().copy_from_slice(bytes);
        let plane = |from: usize, to: u64, height: usize| Plane {
            device: Rows { offset: (to - surface.luma()) as usize, pitch: surface.pitch() },
            host: Rows { offset: from, pitch: row },
            width: row,
            height,
        };
        let planes = [plane(0, surface.luma(), height), plane(row * height, surface.chroma(), height / 2)];
        memory::upload(&self.stream, &host, surface.block(), &planes).unwrap();
    }
}

/// `ultra` at 600 kb/s.
pub(crate) fn rendition((width, height): (u32, u32)) -> OpenRendition {
    OpenRendition {
        name: format!("{height}p"),
        codec: VideoCodec::H264,
        width,
        height,
        sar: (1, 1),
        bitrate: 600_000,
        vbv_ms: 500,
        bframes: 0,
        lookahead: 5,
        preset: String::new(),
        extra: String::new(),
        threads: 1,
        colour: Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false },
    }
}

/// Pushes the pictures of `range`, IDRs where asked, and pulls what comes.
#[track_caller]
pub(crate) fn fed(rig: &Rig, encoder: &mut Encoder, range: Range<i64>, idrs: &[i64], coded: &mut Vec<Coded>) {
    for n in range {
        let surface = rig.filled(encoder.inputs(), n);
        encoder.push(&surface, n, idrs.contains(&n), &rig.happened()).unwrap();
        while let Some(frame) = encoder.pull(0).unwrap() {
            coded.push(frame);
        }
    }
}

/// Ends the run and pulls what is inside.
#[track_caller]
pub(crate) fn ask(encoder: &mut Encoder, coded: &mut Vec<Coded>) {
    encoder.drain().unwrap();
    while let Some(frame) = encoder.pull(0).unwrap() {
        coded.push(frame);
    }
    assert_eq!(encoder.inflight(), 0);
}

/// Where the IDRs are.
pub(crate) fn syncs(coded: &[Coded]) -> Vec<i64> {
    coded.iter().filter(|frame| frame.sync).map(|frame| frame.pts).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Soft waves that move, in NV12 or P010.
pub(crate) fn picture((width, height): (u32, u32), depth: Depth, n: i64) -> Vec<u8> {
    let wave = |x: u32, y: u32, slow: f64| {
        let (x, y, n) = (f64::from(x), f64::from(y), n as f64);
        0.5 + 0.35 * ((x + 3.0 * n) / (19.0 * slow)).sin() * ((y - n) / (13.0 * slow)).cos()
    };
    let luma = (0..height).flat_map(|y| (0..width).map(move |x| wave(x, y, 1.0)));
    let chroma = (0..height / 2).flat_map(|y| (0..width).map(move |x| wave(x / 2, y, 2.0 + f64::from(x % 2))));
    let samples = luma.chain(chroma);
    match depth {
        Depth::Eight => samples.map(|level| (level * 255.0).round() as u8).collect(),
        Depth::Ten => samples.flat_map(|level| (((level * 1023.0).round() as u16) << 6).to_le_bytes()).collect(),
    }
}

/// Of luma, in dB.
pub(crate) fn psnr(found: &[u8], wanted: &[u8], (width, height): (u32, u32), depth: Depth) -> f64 {
    let count = (width * height) as usize;
    let sample = |bytes: &[u8], at: usize| match depth {
        Depth::Eight => f64::from(bytes[at]),
        Depth::Ten => f64::from(u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]) >> 6),
    };
    let squares: f64 = (0..count).map(|at| (sample(found, at) - sample(wanted, at)).powi(2)).sum();
    let most = if depth == Depth::Eight { 255.0_f64 } else { 1023.0 };
    10.0 * (most * most * count as f64 / squares.max(1e-9)).log10()
}

/// The pictures that ffmpeg sees in it, in the order of display, as `picture` makes them.
#[track_caller]
pub(crate) fn frames(coded: &[Coded], format: Format, (width, height): (u32, u32)) -> Vec<Vec<u8>> {
    let pixels = if format.depth == Depth::Ten { "p010le" } else { "nv12" };
    let file = stream(coded);
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-f", kind(format), "-i"])
        .arg(file.path())
        .args(["-vsync", "0", "-f", "rawvideo", "-pix_fmt", pixels, "-"])
        .output()
        .expect("ffmpeg is installed");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    let bytes = (width * height * 3 / 2) as usize * format.depth.bytes();
    out.stdout.chunks(bytes).map(<[u8]>::to_vec).collect()
}

/// What ffprobe says about it, a fact a line.
pub(crate) fn probe(coded: &[Coded], format: Format) -> String {
    let file = stream(coded);
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_streams", "-f", kind(format)])
        .arg(file.path())
        .output()
        .expect("ffprobe is installed");
    String::from_utf8(out.stdout).unwrap()
}

fn stream(coded: &[Coded]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for frame in coded {
        file.write_all(&frame.data).unwrap();
    }
    file.flush().unwrap();
    file
}

fn kind(format: Format) -> &'static str {
    match format.codec {
        Codec::H264 => "h264",
        Codec::Hevc => "hevc",
        Codec::Av1 => "obu",
    }
}

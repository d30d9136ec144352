//! `rung probe`: asks a worker what this machine can do, and shows where a ladder would run and why.

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Failure, print};
use crate::control::lifecycle;
use crate::media::channel::{BackendPolicy, ChannelName, Ladder, SessionId};
use crate::media::grid::FrameRate;
use crate::media::track::Codec;
use crate::pipeline::devices::{Devices, Request};
use crate::pipeline::placement;
use crate::pixels::client::{Worker, beside_this_program};
use crate::pixels::protocol::{Backend, Caps, FromWorker, GpuCaps, ToWorker};
use crate::time::SystemClock;

/// As a channel would take it.
fn read_ladder(file: &Path) -> Result<Ladder, Failure> {
    let wrong = |what: String| Failure::usage(format!("{}: {what}", file.display()));
    let ladder = super::channel::read_json(file)?;
    let config =
        lifecycle::read_new(&json!({ "name": "probe", "ladder": ladder })).map_err(|e| wrong(e.to_string()))?;
    config.profile.ladder.ok_or_else(|| wrong("write a list of renditions".to_owned()))
}

/// Sessions are opened and closed on every GPU, and each driver takes its time to start.
const ANSWER: Duration = Duration::from_secs(30);

/// Print what this machine can decode, scale and encode, and how many channels it carries
#[derive(Args)]
pub(crate) struct Probe {
    /// The worker program to ask
    #[arg(long, value_name = "PROGRAM")]
    worker: Option<PathBuf>,
    /// Where the NVIDIA driver's libraries lie, if not where the loader looks
    #[arg(long, value_name = "FOLDER")]
    driver_folder: Option<PathBuf>,
    /// Rows of the source's picture
    #[arg(long, value_name = "ROWS", default_values_t = [1080, 720], value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=4320))]
    source: Vec<u32>,
    /// Frames per second of the source
    #[arg(long, value_name = "FPS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=120))]
    fps: u32,
    /// The source's codec: h264, hevc or mpeg2
    #[arg(long, default_value = "h264", value_parser = codec)]
    codec: Codec,
    /// File with a ladder as JSON: [{"name": "720p", "height": 720, "bitrate": 2800000}], with "codec": "hevc" for
    /// HEVC; without it the default ladder
    #[arg(long, value_name = "FILE")]
    ladder: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn codec(text: &str) -> Result<Codec, String> {
    match text {
        "h264" => Ok(Codec::H264),
        "hevc" => Ok(Codec::H265),
        "mpeg2" => Ok(Codec::Mpeg2Video),
        _ => Err("write h264, hevc or mpeg2".to_owned()),
    }
}

#[derive(Serialize)]
struct Found {
    #[serde(flatten)]
    caps: Caps,
    gpus: Vec<GpuCaps>,
    /// Why there is no GPU.
    no_gpu: Option<String>,
    channels: Vec<Carried>,
}

/// A kind of channel, where it runs, and how many of it do.
#[derive(Serialize)]
struct Carried {
    source: String,
    renditions: Vec<String>,
    backend: &'static str,
    gpu: Option<u32>,
    why: String,
    /// How many the GPUs carry, and what stands in the way of one more. 0 on a machine without one.
    on_gpus: usize,
    limit: String,
    /// Share of this machine that one needs on the software backend.
    on_cpus: f64,
}

impl Probe {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let ladder = self.ladder.as_deref().map(read_ladder).transpose()?;
        let program = self.worker.clone().unwrap_or_else(beside_this_program);
        let mut asked = Asked::start(&program, self.driver_folder.as_deref()).map_err(Failure::failed)?;
        let gpus = asked.gpus().map_err(Failure::failed)?;
        let caps = asked.caps().map_err(Failure::failed)?;
        let found = gpus.as_deref().unwrap_or_default();
        let channels: Vec<Carried> =
            self.source.iter().map(|height| self.carried(&caps, found, *height, ladder.as_ref())).collect();
        if self.json {
            let no_gpu = gpus.as_ref().err().cloned();
            let found = Found { caps, gpus: gpus.unwrap_or_default(), no_gpu, channels };
            print(&serde_json::to_string_pretty(&found).expect("plain data serialises"));
            return Ok(());
        }
        match &gpus {
            Ok(gpus) => gpus.iter().for_each(print_gpu),
            Err(why) => print(&format!("GPU       {why}")),
        }
        print(&format!("software  {}", caps.backend.trim_start_matches("software: ")));
        print(&format!("          {} CPUs, {}", caps.cpus, caps.simd));
        print(&format!("          encodes {} frames of 640x360 per CPU-second", caps.encode_fps_360));
        channels.iter().for_each(print_carried);
        Ok(())
    }

    fn carried(&self, caps: &Caps, gpus: &[GpuCaps], height: u32, ladder: Option<&Ladder>) -> Carried {
        let fast = self.fps >= 50;
        let ladder = ladder.map_or_else(|| Ladder::default_for(height, fast), |given| given.never_upscaled(height));
        let wide = |height: u32| (height * 16 / 9).next_multiple_of(2);
        let request = Request {
            codec: self.codec,
            width: wide(height),
            height,
            bits: 8,
            chroma_format: 1,
            rate: FrameRate::new(self.fps, 1),
            renditions: ladder.0.iter().map(|r| (r.codec, wide(r.height), r.height)).collect(),
            held: 0,
        };
        let devices = Devices::new(gpus.to_vec());
        let placed = devices.room(&request, BackendPolicy::Auto, &[]).expect("the software backend takes everything");
        let (on_gpus, limit) = fill(&devices, &request, placed.backend);
        Carried {
            source: format!("{height}p{} {}", self.fps, self.codec),
            on_cpus: load_of(caps, height, &ladder) * f64::from(self.fps) / 30.0,
            renditions: ladder.0.into_iter().map(|r| r.name).collect(),
            backend: placed.backend.name(),
            gpu: placed.gpu,
            why: placed.why,
            on_gpus,
            limit,
        }
    }
}

/// Places such channels until one would have to do without `backend`: how many had it, and why no more.
fn fill(devices: &Devices, request: &Request, backend: Backend) -> (usize, String) {
    let name = ChannelName::new("probe").expect("a good name");
    // Where encoders are full a box goes on with those of the CPU: that is another capacity.
    let policy = if backend == Backend::Gpu { BackendPolicy::Gpu } else { BackendPolicy::Auto };
    for count in 0..CHANNELS_MAX {
        let session = SessionId::new(ulid::Ulid::from_parts(count as u64, 0));
        match devices.place(&name, &session, request, policy, &[]) {
            Ok(placed) if placed.backend == backend && placed.gpu.is_some() => {}
            Ok(placed) => return (count, placed.why),
            Err(refusal) => return (count, refusal.to_string()),
        }
    }
    (CHANNELS_MAX, "not looked for further".to_owned())
}

/// No box carries more.
const CHANNELS_MAX: usize = 4_096;

fn print_gpu(gpu: &GpuCaps) {
    let GpuCaps { index, name, cuda, capability, .. } = gpu;
    let (gb, free) = (gpu.memory_bytes as f64 / 1e9, gpu.memory_free_bytes as f64 / 1e9);
    let driver = gpu.driver.as_ref().map_or_else(|| "driver".to_owned(), |version| format!("driver {version}"));
    print(&format!("GPU {index}     {name} at {}, compute capability {capability}, {driver} for CUDA {cuda}", gpu.pci));
    print(&format!("          {gb:.1} GB of memory, {free:.1} GB free"));
    let decodes: Vec<String> =
        gpu.decode.iter().map(|d| format!("{} {} bit to {}x{}", d.codec, d.bits, d.width_max, d.height_max)).collect();
    if let Some(why) = &gpu.unfit {
        return print(&format!("          no channel can run on it: {why}"));
    }
    match gpu.decode_engines {
        0 => print("          decodes nothing"),
        1 => print(&format!("          1 decode engine: {}", decodes.join(", "))),
        engines => print(&format!("          {engines} decode engines: {}", decodes.join(", "))),
    }
    match &gpu.encode {
        Err(why) => print(&format!("          encodes nothing: {why}")),
        Ok(e) => {
            let more = if e.sessions == e.sessions_tried { " or more" } else { "" };
            let hevc = match e.hevc {
                true => format!(", HEVC to {}x{}", e.hevc_width_max, e.hevc_height_max),
                false => ", no HEVC".to_owned(),
            };
            print(&format!(
                "          encode engines: {}, H.264 to {}x{}{hevc}, {}{more} sessions, B frames: {}, lookahead: {}",
                e.engines,
                e.width_max,
                e.height_max,
                e.sessions,
                e.bframes_max,
                if e.lookahead { "yes" } else { "no" }
            ));
        }
    }
}

fn print_carried(channel: &Carried) {
    let Carried { source, renditions, backend, why, .. } = channel;
    print(&format!("{source} -> {}", renditions.join(" ")));
    match channel.gpu {
        Some(_) => {
            print(&format!("          {backend}: {why}"));
            print(&format!("          the GPUs carry {} of it; then {}", channel.on_gpus, channel.limit));
        }
        None => print(&format!("          {why}")),
    }
    let verdict = if channel.on_cpus <= 0.75 { "fits" } else { "does not fit in real time: renditions will be shed" };
    print(&format!(
        "          one needs {:.0} % of this machine on the software backend: {verdict}",
        channel.on_cpus * 100.0
    ));
}

/// A worker that was started to be asked.
pub(crate) struct Asked(Worker);

impl Asked {
    pub(crate) fn start(program: &Path, driver_folder: Option<&Path>) -> Result<Asked, String> {
        Worker::spawn_probe(program, driver_folder, SystemClock::mono()).map(Asked)
    }

    pub(crate) fn caps(&mut self) -> Result<Caps, String> {
        self.ask(&ToWorker::Probe, |message| match message {
            FromWorker::Caps(caps) => Some(caps),
            _ => None,
        })
    }

    /// The GPUs; inside, a sentence that says why there are none.
    pub(crate) fn gpus(&mut self) -> Result<Result<Vec<GpuCaps>, String>, String> {
        self.ask(&ToWorker::ProbeGpus, |message| match message {
            FromWorker::Gpus(gpus) => Some(gpus),
            _ => None,
        })
    }

    fn ask<T>(&mut self, question: &ToWorker, answer: impl Fn(FromWorker) -> Option<T>) -> Result<T, String> {
        let Asked(worker) = self;
        let started = SystemClock::mono();
        worker.send(question).map_err(|_| "the worker takes no message".to_owned())?;
        loop {
            let now = SystemClock::mono();
            worker.run(now);
            while let Some(message) = worker.poll() {
                if let Some(answer) = answer(message) {
                    return Ok(answer);
                }
            }
            if let Some(end) = worker.end() {
                return Err(format!("{end} before it answered"));
            }
            if now - started > ANSWER {
                return Err(format!("the worker did not answer within {} s", ANSWER.as_secs()));
            }
            wait(worker);
        }
    }
}

fn wait(worker: &Worker) {
    let events = if worker.wants_write() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut fds = [PollFd::from_borrowed_fd(worker.fd(), events)];
    let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    // An interrupted wait is a wake-up like any other: the caller looks at everything again.
    let _woken = poll(&mut fds, Some(&timeout));
}

/// Share of this machine that a ladder of a source of so many rows needs at 30 frames/s, by pixels: a decoded one costs
/// 0.7 of one that is encoded in H.264.
pub(crate) fn load_of(caps: &Caps, source: u32, ladder: &Ladder) -> f64 {
    let pixels = |height: u32| f64::from(height) * f64::from(height) * 16.0 / 9.0;
    let work =
        0.7 * pixels(source) + ladder.0.iter().map(|r| pixels(r.height) * placement::cost(r.codec, 1, 1)).sum::<f64>();
    let per_second = f64::from(caps.encode_fps_360.max(1)) * 640.0 * 360.0 * f64::from(caps.cpus.max(1));
    work * 30.0 / per_second
}

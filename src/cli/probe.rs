//! `rung probe`: asks a worker what this machine can do, and shows where a ladder would run and why.

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Failure, print};
use crate::media::channel::{BackendPolicy, Ladder};
use crate::media::grid::FrameRate;
use crate::media::track::Codec;
use crate::pipeline::devices::{Devices, Request};
use crate::pixels::client::{Worker, beside_this_program};
use crate::pixels::protocol::{Caps, FromWorker, GpuCaps, ToWorker};
use crate::time::SystemClock;

/// Sessions are opened and closed on every GPU, and each driver takes its time to start.
const ANSWER: Duration = Duration::from_secs(30);

/// Print what this machine can decode, scale and encode
#[derive(Args)]
pub(crate) struct Probe {
    /// The worker program to ask
    #[arg(long, value_name = "PROGRAM")]
    worker: Option<PathBuf>,
    /// Where the NVIDIA driver's libraries lie, if not where the loader looks
    #[arg(long, value_name = "FOLDER")]
    driver_folder: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Found {
    #[serde(flatten)]
    caps: Caps,
    gpus: Vec<GpuCaps>,
    /// Why there is no GPU.
    no_gpu: Option<String>,
}

impl Probe {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let program = self.worker.unwrap_or_else(beside_this_program);
        let mut asked = Asked::start(&program, self.driver_folder.as_deref()).map_err(Failure::failed)?;
        let gpus = asked.gpus().map_err(Failure::failed)?;
        let caps = asked.caps().map_err(Failure::failed)?;
        if self.json {
            let no_gpu = gpus.as_ref().err().cloned();
            let found = Found { caps, gpus: gpus.unwrap_or_default(), no_gpu };
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
        let devices = Devices::new(gpus.unwrap_or_default());
        for height in [1080, 720, 540] {
            print_placement(&caps, &devices, height);
        }
        Ok(())
    }
}

fn print_gpu(gpu: &GpuCaps) {
    let GpuCaps { index, name, cuda, capability, .. } = gpu;
    let (gb, free) = (gpu.memory_bytes as f64 / 1e9, gpu.memory_free_bytes as f64 / 1e9);
    print(&format!("GPU {index}     {name}, compute capability {capability}, driver for CUDA {cuda}"));
    print(&format!("          {gb:.1} GB of memory, {free:.1} GB free"));
    let decodes: Vec<String> =
        gpu.decode.iter().map(|d| format!("{} {} bit to {}x{}", d.codec, d.bits, d.width_max, d.height_max)).collect();
    match gpu.decode_engines {
        0 => print("          decodes nothing"),
        1 => print(&format!("          1 decode engine: {}", decodes.join(", "))),
        engines => print(&format!("          {engines} decode engines: {}", decodes.join(", "))),
    }
    match &gpu.encode {
        Err(why) => print(&format!("          encodes nothing: {why}")),
        Ok(e) => {
            let more = if e.sessions == e.sessions_tried { " or more" } else { "" };
            let hevc = if e.hevc { "H.264 and HEVC" } else { "H.264" };
            print(&format!(
                "          encode engines: {}, {hevc} to {}x{}, {}{more} sessions, B frames: {}, lookahead: {}",
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

/// Where a channel of the default ladder would run.
fn print_placement(caps: &Caps, devices: &Devices, height: u32) {
    let ladder = Ladder::default_for(height, false);
    let (load, names) = load_of(caps, &ladder);
    let wide = |height: u32| (height * 16 / 9).next_multiple_of(2);
    let request = Request {
        codec: Codec::H264,
        width: wide(height),
        height,
        bits: 8,
        chroma_format: 1,
        rate: FrameRate::new(30_000, 1_000),
        renditions: ladder.0.iter().map(|r| (wide(r.height), r.height)).collect(),
        held: 0,
    };
    let placed = devices.room(&request, BackendPolicy::Auto, None).expect("the software backend takes everything");
    let verdict = if load <= 0.75 { "fits" } else { "does not fit in real time: renditions will be shed" };
    print(&format!("{height}p30     -> {names}"));
    match placed.gpu {
        Some(_) => print(&format!("          {}: {}", placed.backend.name(), placed.why)),
        None => print(&format!("          {}", placed.why)),
    }
    print(&format!("          on the software backend {:.0} % of this machine: {verdict}", load * 100.0));
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

/// Share of this machine that a ladder needs at 30 frames/s, by pixels, with the decode (17 parts of 72) on top.
pub(crate) fn load_of(caps: &Caps, ladder: &Ladder) -> (f64, String) {
    let pixels: f64 = ladder.0.iter().map(|r| f64::from(r.height) * f64::from(r.height) * 16.0 / 9.0).sum();
    let per_second = f64::from(caps.encode_fps_360.max(1)) * 640.0 * 360.0 * f64::from(caps.cpus.max(1));
    let names = ladder.0.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(" ");
    (pixels * 30.0 * 1.4 / per_second, names)
}

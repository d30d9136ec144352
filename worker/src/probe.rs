//! What this machine can do, in words and figures: the answer to `Probe`.

use rung::pixels::protocol::{Caps, GpuCaps};
use std::path::Path;

use crate::gpu;
use crate::gpu::load::Driver;

/// What was found out at start.
pub struct Described {
    pub sandbox: String,
    /// Answers `ProbeGpus`, in a process that was started for it.
    pub gpus: Option<Result<Vec<GpuCaps>, String>>,
}

pub fn caps(about: &Described) -> Caps {
    let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    Caps {
        backend: backend(),
        cpus,
        encode_fps_360: encode_fps_360(),
        simd: format!("{:?}", crate::scale::Form::best()).to_lowercase(),
        sandbox: about.sandbox.clone(),
    }
}

#[cfg(feature = "software")]
fn backend() -> String {
    format!("software: {}, libx264", crate::av::versions())
}

#[cfg(not(feature = "software"))]
fn backend() -> String {
    "none: built without the software backend".to_owned()
}

/// The GPUs of this machine. Starts the driver: to be asked in a process that does nothing else.
///
/// # Errors
/// Why there are none, in a sentence.
pub fn gpus(driver_folder: Option<&Path>) -> Result<Vec<GpuCaps>, String> {
    let driver = Driver::open(driver_folder).map_err(|absent| absent.to_string())?;
    let version = crate::monitor::driver_version(driver_folder);
    gpu::probe::gpus(&driver, version.as_deref())
        .map_err(|error| format!("the NVIDIA driver is installed but does not answer: {error}"))
}

/// Frames per CPU-second of the default preset at 640x360, on a moving picture with detail.
#[cfg(feature = "software")]
fn encode_fps_360() -> u32 {
    measure().map_or(0, |fps| fps as u32)
}

#[cfg(not(feature = "software"))]
fn encode_fps_360() -> u32 {
    0
}

#[cfg(feature = "software")]
fn measure() -> Result<f64, crate::av::Error> {
    use crate::av::{Frame, Headers, VideoEncoder};
    use crate::pattern::Painter;
    use rung::media::grid::Cadence;
    use rung::media::modes::LatencyMode;
    use rung::media::track::Colour;
    use rung::pixels::protocol::OpenRendition;
    use rung::time::Wall;

    const FRAMES: u32 = 90;
    let rendition = OpenRendition {
        name: "probe".to_owned(),
        width: 640,
        height: 360,
        sar: (1, 1),
        bitrate: 800_000,
        vbv_ms: 500,
        bframes: 0,
        lookahead: 5,
        preset: "superfast".to_owned(),
        extra: String::new(),
        threads: 1,
        colour: Colour::default(),
    };
    let cadence = Cadence::for_rate(30.0, LatencyMode::Ultra);
    let mut encoder = VideoEncoder::open(&rendition, cadence, Headers::Global)?;
    let mut painter = Painter::new(640, 360, cadence.rate);
    let mut frames = Vec::new();
    for n in 0..FRAMES {
        let mut frame = Frame::picture(640, 360)?;
        painter.paint(n, Wall(0), &mut frame.planes_mut());
        add_grain(n, &mut frame);
        frame.set_pts(i64::from(n));
        frame.set_key(false);
        frames.push(frame);
    }
    let before = thread_cpu_seconds();
    for frame in &frames {
        encoder.push(frame)?;
        while encoder.pull()?.is_some() {}
    }
    encoder.drain();
    while encoder.pull()?.is_some() {}
    Ok(f64::from(FRAMES) / (thread_cpu_seconds() - before).max(0.001))
}

/// Natural pictures have noise; without it an encoder looks several times faster than it is.
#[cfg(feature = "software")]
fn add_grain(n: u32, frame: &mut crate::av::Frame) {
    let mut state = n.wrapping_mul(2_654_435_769) | 1;
    for sample in frame.planes_mut().y.iter_mut() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *sample = sample.saturating_add((state >> 29) as u8);
    }
}

#[cfg(feature = "software")]
fn thread_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

//! What this machine can do, in words and figures: the answer to `Probe`.

use rung::pixels::protocol::Caps;
use std::path::{Path, PathBuf};

/// What was found out at start, in a sentence each.
#[derive(Debug)]
pub struct Described {
    pub gpu: String,
    pub sandbox: String,
}

pub fn caps(about: &Described) -> Caps {
    let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    Caps {
        backend: backend(),
        cpus,
        encode_fps_360: encode_fps_360(),
        simd: format!("{:?}", crate::scale::Form::best()).to_lowercase(),
        gpu: about.gpu.clone(),
        gpus: Vec::new(),
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

/// Looks for the driver's library where the dynamic loader would, without loading it.
pub fn gpu() -> String {
    match find_library("libcuda.so.1") {
        Some(path) => format!(
            "an NVIDIA driver is installed ({}), but this build works on the software backend only",
            path.display()
        ),
        None => "no NVIDIA driver (libcuda.so.1) was found: decoding and encoding run on the CPU, through libavcodec \
                 and libx264"
            .to_owned(),
    }
}

/// The loader's own order: LD_LIBRARY_PATH, its cache, the default folders.
fn find_library(name: &str) -> Option<PathBuf> {
    let asked = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let named = std::env::split_paths(&asked).map(|folder| folder.join(name));
    let cached = std::fs::read("/etc/ld.so.cache").ok().and_then(|cache| cached_path(&cache, name));
    let defaults = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
    let usual = defaults.iter().map(|folder| Path::new(folder).join(name));
    named.chain(cached).chain(usual).find(|path| path.exists())
}

/// The cache keeps zero-terminated strings: paths among them end in "/" and the library's name.
fn cached_path(cache: &[u8], name: &str) -> Option<PathBuf> {
    cache
        .split(|b| *b == 0)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .find(|text| text.starts_with('/') && text.ends_with(&format!("/{name}")))
        .map(PathBuf::from)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_among_the_cache_s_strings() {
        let cache = b"glibc-ld.so.cache1.1\0libcuda.so.1\0/usr/lib/x/libcuda.so.1\0/usr/lib/x/libcudart.so\0";
        assert_eq!(cached_path(cache, "libcuda.so.1"), Some(PathBuf::from("/usr/lib/x/libcuda.so.1")));
        assert_eq!(cached_path(cache, "libcuda.so.2"), None);
    }
}

//! What scaling a 1080p picture to the ladder costs, per form and beside swscale in the same run, and how near both
//! come to the filter in real numbers, to Lanczos (three lobes) and to area averaging, also in real numbers. `cargo bench -p rung-worker --bench scale`; swscale's figures need `ffmpeg`.
//!
//! Content: dead leaves (overlapping discs with radii of a power law, the textbook stand-in for natural scenes) with
//! grain. swscale's cost is the CPU time of ffmpeg with its scale filters less that of the same run without.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::f64::consts::PI;
use std::path::Path;
use std::process::Command;

use nix::sys::resource::{UsageWho, getrusage};
use rung::media::grid::FrameRate;
use rung::time::Wall;
use rung_worker::pattern::Painter;
use rung_worker::scale::overlay::{Matrix, Overlay, Range};
use rung_worker::scale::{Crop, Form, Planes, PlanesMut, Scaler, Siting};

const SOURCE: (usize, usize) = (1920, 1080);
const LADDER: [(usize, usize); 3] = [(1280, 720), (854, 480), (640, 360)];
const SWSCALE_FLAGS: [&str; 2] = ["bicubic", "bicubic+accurate_rnd+full_chroma_int"];

fn main() {
    let source = dead_leaves();
    for form in [Form::Scalar, Form::best()] {
        let costs = LADDER.map(|to| cost(&source, to, form));
        println!("{form:?}: 1080p to 720p {:.2}, 480p {:.2}, 360p {:.2} ms", costs[0], costs[1], costs[2]);
        println!("{form:?}: all three {:.2} ms per frame", costs.iter().sum::<f64>());
    }
    dressing(&source);
    painter();
    let folder = std::env::temp_dir().join(format!("rung-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for ffmpeg's files");
    let ours: f64 = LADDER.iter().map(|to| cost(&source, *to, Form::best())).sum();
    match swscale(&source, &folder, ours) {
        Ok(()) => {}
        Err(why) => println!("no comparison with swscale: {why}"),
    }
    std::fs::remove_dir_all(&folder).expect("the folder was ours");
}

struct Picture {
    planes: [Vec<u8>; 3],
    size: (usize, usize),
}

impl Picture {
    fn new(size: (usize, usize)) -> Picture {
        let chroma = size.0.div_ceil(2) * size.1.div_ceil(2);
        Picture { planes: [vec![0; size.0 * size.1], vec![128; chroma], vec![128; chroma]], size }
    }

    fn view(&self) -> Planes<'_> {
        let ([y, u, v], (width, height), half) = (&self.planes, self.size, self.size.0.div_ceil(2));
        Planes { y, u, v, stride_y: width, stride_u: half, stride_v: half, width, height }
    }

    fn view_mut(&mut self) -> PlanesMut<'_> {
        let ([y, u, v], (width, height), half) = (&mut self.planes, self.size, self.size.0.div_ceil(2));
        PlanesMut { y, u, v, stride_y: width, stride_u: half, stride_v: half, width, height }
    }
}

/// Seeded, so that every run measures the same picture.
fn dead_leaves() -> Picture {
    let mut state = 0x5EED_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 24)
    };
    let mut picture = Picture::new(SOURCE);
    let (w, h) = (SOURCE.0 as f64, SOURCE.1 as f64);
    for _ in 0..20_000 {
        let radius = 3.0 / (random() + 0.0001).sqrt();
        let (x, y) = (random() * w, random() * h);
        let colour = [16.0 + 219.0 * random(), 60.0 + 136.0 * random(), 60.0 + 136.0 * random()];
        for (n, colour) in colour.into_iter().enumerate() {
            let scale = if n == 0 { 1.0 } else { 0.5 };
            let width = (w * scale) as usize;
            let (x, y, r) = (x * scale, y * scale, radius * scale);
            let rows = (y - r).max(0.0) as usize..((y + r) as usize + 1).min((h * scale) as usize);
            for row in rows {
                for column in (x - r).max(0.0) as usize..((x + r) as usize + 1).min(width) {
                    let inside = (r - (column as f64 - x).hypot(row as f64 - y)).clamp(0.0, 1.0);
                    let sample = &mut picture.planes[n][row * width + column];
                    *sample = (f64::from(*sample) * (1.0 - inside) + colour * inside) as u8;
                }
            }
        }
    }
    for sample in &mut picture.planes[0] {
        *sample = (f64::from(*sample) + 6.0 * (random() - 0.5)).clamp(0.0, 255.0) as u8;
    }
    picture
}

/// CPU milliseconds per picture.
fn cost(source: &Picture, to: (usize, usize), form: Form) -> f64 {
    let mut scaler = Scaler::with_form(SOURCE.0, SOURCE.1, to.0, to.1, Siting::Left, form);
    let mut out = Picture::new(to);
    cpu_ms(|| scaler.scale(&source.view(), &mut out.view_mut()))
}

/// CPU milliseconds per call, which a busy neighbour changes little; over half a second, as kernels may count in ticks.
fn cpu_ms(mut work: impl FnMut()) -> f64 {
    let spent = || {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("a thread may ask about itself");
        let time = usage.user_time() + usage.system_time();
        time.tv_sec() as f64 * 1000.0 + time.tv_usec() as f64 / 1000.0
    };
    let (start, mut calls) = (spent(), 0);
    loop {
        work();
        calls += 1;
        let ms = spent() - start;
        if ms >= 500.0 {
            return ms / f64::from(calls);
        }
    }
}

/// What a crop and a logo cost: a picture that is shown as it is must be copied for either, once.
fn dressing(source: &Picture) {
    let mut out = Picture::new(SOURCE);
    let mut scaler = Scaler::new(SOURCE.0, SOURCE.1, SOURCE.0, SOURCE.1, Siting::Left);
    let copy = cpu_ms(|| scaler.scale(&source.view(), &mut out.view_mut()));
    let crop = Crop { x: 0, y: 140, width: 1920, height: 800 };
    let mut cut = Picture::new((crop.width, crop.height));
    let mut scaler = Scaler::new(crop.width, crop.height, crop.width, crop.height, Siting::Left);
    let whole = cpu_ms(|| {
        let part = source.view().cropped(crop).expect("inside");
        scaler.scale(&part, &mut cut.view_mut());
    });
    let mut small = Picture::new((1152, 480));
    let mut scaler = Scaler::new(crop.width, crop.height, 1152, 480, Siting::Left);
    let scaled = cpu_ms(|| {
        let part = source.view().cropped(crop).expect("inside");
        scaler.scale(&part, &mut small.view_mut());
    });
    println!(
        "1080p copied {copy:.2} ms; 1920x800 of it cut out {whole:.2} ms, cut and scaled to 1152x480 {scaled:.2} ms"
    );
    for (width, height) in [(192, 96), (384, 216), (960, 540)] {
        let rgba: Vec<u8> = (0..width * height * 4).map(|i| (i * 7) as u8).collect();
        let logo = Overlay::new(&rgba, width, height, Matrix::Bt709, Range::Narrow).expect("even sides");
        let ms = cpu_ms(|| logo.blend(&mut out.view_mut(), 58, 58).expect("inside"));
        println!("a logo of {width}x{height} over 1080p: {ms:.3} ms");
    }
}

fn painter() {
    for (width, height) in [(960, 540), (1920, 1080)] {
        let mut painter = Painter::new(width, height, FrameRate::new(25_000, 1_000));
        let mut out = Picture::new((width as usize, height as usize));
        let mut frame = 0;
        let ms = cpu_ms(|| {
            painter.paint(frame, Wall(i64::from(frame) * 40_000_000), &mut out.view_mut());
            frame += 1;
        });
        println!("test picture {width}x{height}: {ms:.2} ms per frame");
    }
}

fn swscale(source: &Picture, folder: &Path, ours: f64) -> Result<(), String> {
    let input = folder.join("source.yuv");
    std::fs::write(&input, source.planes.concat()).map_err(|error| error.to_string())?;
    let frames = 200;
    for flags in SWSCALE_FLAGS {
        let scales: Vec<_> = LADDER.iter().map(|(w, h)| format!("[s]scale={w}:{h}:flags={flags}[o]")).collect();
        let graph = |scales: &[String]| {
            let mut graph = String::from("[0:v]split=3[s0][s1][s2]");
            for (n, scale) in scales.iter().enumerate() {
                graph += &format!(";{}", scale.replace("[s]", &format!("[s{n}]")).replace("[o]", &format!("[o{n}]")));
            }
            graph
        };
        let plain = vec![String::from("[s]null[o]"); 3];
        let mut best = f64::MAX;
        for _ in 0..3 {
            let with = cpu_seconds(&input, &graph(&scales), frames)?;
            let without = cpu_seconds(&input, &graph(&plain), frames)?;
            best = best.min((with - without) * 1000.0 / f64::from(frames));
        }
        println!("swscale {flags}: all three {best:.2} ms per frame; ours takes {:.3} of it", ours / best);
    }
    for to in LADDER {
        let ours = scaled(source, to);
        let theirs = swscale_picture(&input, to)?;
        let restored = |small: &Picture| psnr(&scaled(small, SOURCE).planes[0], &real(&source.planes[0]));
        println!(
            "{}p luma: ours to its filter in real numbers {:.1} dB, swscale to its own {:.1} dB, one to the other {:.1} dB; \
             grown back to 1080p and compared with the source: ours {:.2} dB, swscale {:.2} dB",
            to.1,
            psnr(&ours.planes[0], &ideal_luma(source, to, -0.5)),
            psnr(&theirs.planes[0], &ideal_luma(source, to, -0.6)),
            psnr(&theirs.planes[0], &real(&ours.planes[0])),
            restored(&ours),
            restored(&theirs),
        );
    }
    compare_with_references(source, &input)
}

/// Neither Lanczos nor area averaging is what either scaler computes: how far each is from them says whether it softens
/// or rings more than the other.
fn compare_with_references(source: &Picture, input: &Path) -> Result<(), String> {
    println!("luma | ours to Lanczos-3 | swscale bicubic to Lanczos-3 | ours to area | swscale bicubic to area (dB)");
    for to in LADDER {
        let (ours, theirs) = (scaled(source, to), swscale_picture(input, to)?);
        let [lanczos, area] = [Reference::Lanczos, Reference::Area].map(|filter| reference_luma(source, to, filter));
        let figures = [(&ours, &lanczos), (&theirs, &lanczos), (&ours, &area), (&theirs, &area)];
        let figures = figures.map(|(picture, ideal)| format!("{:.2}", psnr(&picture.planes[0], ideal)));
        println!("{}p | {}", to.1, figures.join(" | "));
    }
    Ok(())
}

fn scaled(source: &Picture, to: (usize, usize)) -> Picture {
    let mut out = Picture::new(to);
    let (w, h) = source.size;
    Scaler::new(w, h, to.0, to.1, Siting::Left).scale(&source.view(), &mut out.view_mut());
    out
}

fn real(plane: &[u8]) -> Vec<f64> {
    plane.iter().map(|s| f64::from(*s)).collect()
}

fn cpu_seconds(input: &Path, graph: &str, frames: u32) -> Result<f64, String> {
    let mut command = ffmpeg(input, true);
    command.args(["-filter_complex", graph]);
    for n in 0..3 {
        command.args(["-map", &format!("[o{n}]"), "-frames:v", &frames.to_string(), "-f", "null", "-"]);
    }
    let out = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&out.stderr);
    let field = |name: &str| -> Option<f64> {
        let (_, after) = said.split_once(name)?;
        after.split('s').next()?.parse().ok()
    };
    // `bench: utime=1.234s stime=0.123s rtime=...`
    let times = field("bench: utime=").zip(field(" stime="));
    times.map(|(user, system)| user + system).ok_or_else(|| format!("ffmpeg said: {said}"))
}

fn swscale_picture(input: &Path, to: (usize, usize)) -> Result<Picture, String> {
    let scale = format!("scale={}:{}:flags={}", to.0, to.1, SWSCALE_FLAGS[1]);
    let mut command = ffmpeg(input, false);
    command.args(["-vf", &scale, "-frames:v", "1", "-f", "rawvideo", "-"]);
    let out = command.output().map_err(|error| error.to_string())?;
    let mut picture = Picture::new(to);
    let mut at = 0;
    for plane in &mut picture.planes {
        let end = at + plane.len();
        let bytes = out.stdout.get(at..end).ok_or_else(|| String::from_utf8_lossy(&out.stderr).into_owned())?;
        plane.copy_from_slice(bytes);
        at = end;
    }
    Ok(picture)
}

fn ffmpeg(input: &Path, looped: bool) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "info", "-nostdin", "-benchmark", "-threads", "1", "-filter_threads", "1"]);
    command.args(["-filter_complex_threads", "1", "-stream_loop", if looped { "-1" } else { "0" }]);
    command.args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s"]).arg(format!("{}x{}", SOURCE.0, SOURCE.1));
    command.arg("-i").arg(input);
    command
}

fn ideal_luma(source: &Picture, to: (usize, usize), a: f64) -> Vec<f64> {
    reference_luma(source, to, Reference::Cubic(a))
}

/// Filters in real numbers, as wide as the ratio asks.
#[derive(Clone, Copy)]
enum Reference {
    /// Cubic convolution; a = -0.5 is ours, -0.6 swscale's `bicubic`.
    Cubic(f64),
    /// Three lobes.
    Lanczos,
    /// The part of each source sample that the target sample covers.
    Area,
}

impl Reference {
    /// Of the source sample that lies `t` target samples away; a source sample is `1 / ratio` of one wide.
    fn weight(self, t: f64, ratio: f64) -> f64 {
        let sinc = |t: f64| if t == 0.0 { 1.0 } else { (t * PI).sin() / (t * PI) };
        match (self, t.abs()) {
            (Reference::Cubic(a), t) if t < 1.0 => (a + 2.0) * t * t * t - (a + 3.0) * t * t + 1.0,
            (Reference::Cubic(a), t) if t < 2.0 => a * (t * t * t - 5.0 * t * t + 8.0 * t - 4.0),
            (Reference::Lanczos, t) if t < 3.0 => sinc(t) * sinc(t / 3.0),
            (Reference::Area, t) => (0.5 + 0.5 / ratio - t).clamp(0.0, 1.0 / ratio),
            _ => 0.0,
        }
    }
}

/// Without a rounding anywhere; only for targets that are smaller.
fn reference_luma(source: &Picture, (width, height): (usize, usize), filter: Reference) -> Vec<f64> {
    let taps = |from: usize, to: usize| -> Vec<Vec<(usize, f64)>> {
        let (ratio, last) = (from as f64 / to as f64, from as i64 - 1);
        let row = |i: usize| {
            let centre = (i as f64 + 0.5) * ratio - 0.5;
            let (low, high) = ((centre - 3.0 * ratio) as i64 - 1, (centre + 3.0 * ratio) as i64 + 1);
            let taps: Vec<_> = (low..=high).map(|k| (k, filter.weight((k as f64 - centre) / ratio, ratio))).collect();
            let sum: f64 = taps.iter().map(|(_, w)| w).sum();
            taps.into_iter().map(|(k, w)| (k.clamp(0, last) as usize, w / sum)).collect()
        };
        (0..to).map(row).collect()
    };
    let (columns, rows) = (taps(SOURCE.0, width), taps(SOURCE.1, height));
    let mut out = Vec::with_capacity(width * height);
    for row in rows {
        let between: Vec<f64> = (0..SOURCE.0)
            .map(|x| row.iter().map(|(y, w)| w * f64::from(source.planes[0][y * SOURCE.0 + x])).sum())
            .collect();
        let sum = |column: &Vec<(usize, f64)>| column.iter().map(|(x, w)| w * between[*x]).sum::<f64>();
        out.extend(columns.iter().map(|column| sum(column).clamp(0.0, 255.0)));
    }
    out
}

/// A picture rounded perfectly from the ideal has 58.9 dB.
fn psnr(picture: &[u8], ideal: &[f64]) -> f64 {
    let squares: f64 = picture.iter().zip(ideal).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    10.0 * (255.0 * 255.0 * picture.len() as f64 / squares).log10()
}

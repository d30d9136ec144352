//! Moving pictures, and what ffmpeg makes of what was coded.

use std::io::Write;
use std::process::{Command, Stdio};

/// Picture `n` as NV12, or as its 10 bit form: waves that move, and a box with texture that moves faster.
pub(crate) fn made(n: usize, width: usize, height: usize, ten_bit: bool) -> Vec<u8> {
    let mut samples = Vec::with_capacity(width * height * 3 / 2);
    let phase = n as f32;
    let box_at = (n * 5 % (width - 48), n * 3 % (height - 32));
    for y in 0..height {
        for x in 0..width {
            let wave = (x as f32 / 17.0 + phase * 0.25).sin() * 50.0 + (y as f32 / 11.0 - phase * 0.15).cos() * 40.0;
            let inside = (box_at.0..box_at.0 + 48).contains(&x) && (box_at.1..box_at.1 + 32).contains(&y);
            let texture = if (x - box_at.0.min(x)) / 6 % 2 == (y - box_at.1.min(y)) / 6 % 2 { 60.0 } else { -60.0 };
            samples.push(128.0 + if inside { texture } else { wave });
        }
    }
    for y in 0..height / 2 {
        for x in 0..width / 2 {
            samples.push(128.0 + (x as f32 / 20.0 + phase * 0.1).sin() * 40.0);
            samples.push(128.0 + (y as f32 / 15.0 - phase * 0.1).sin() * 40.0);
        }
    }
    if ten_bit {
        let ten = samples.iter().map(|sample| ((sample * 4.0).round().clamp(64.0, 940.0) as u16) << 6);
        return ten.flat_map(u16::to_le_bytes).collect();
    }
    samples.iter().map(|sample| sample.round().clamp(16.0, 235.0) as u8).collect()
}

/// Frames that ffmpeg decodes from an elementary stream, in the order of display, as `made` makes them.
///
/// # Panics
/// ffmpeg has anything to say.
pub(crate) fn decoded(stream: &[u8], demuxer: &str, width: usize, height: usize, ten_bit: bool) -> Vec<Vec<u8>> {
    let format = if ten_bit { "p010le" } else { "nv12" };
    let args = ["-v", "warning", "-xerror", "-f", demuxer, "-i", "-", "-fps_mode", "passthrough", "-f", "rawvideo"];
    let pixels = piped(Command::new("ffmpeg").args(args).args(["-pix_fmt", format, "-"]), stream);
    let size = width * height * 3 / 2 * if ten_bit { 2 } else { 1 };
    assert_eq!(pixels.len() % size, 0, "whole frames");
    pixels.chunks_exact(size).map(<[u8]>::to_vec).collect()
}

/// What ffprobe says about the stream, `key=value` by line.
pub(crate) fn probed(stream: &[u8], demuxer: &str) -> String {
    let entries = "stream=profile,level,width,height,sample_aspect_ratio,pix_fmt,color_range,color_space,\
                   color_transfer,color_primaries,has_b_frames";
    let args = ["-v", "error", "-f", demuxer, "-show_entries", entries, "-of", "default=nw=1", "-i", "-"];
    String::from_utf8(piped(Command::new("ffprobe").args(args), stream)).unwrap()
}

/// The picture types that ffprobe sees, in the order of display.
pub(crate) fn kinds(stream: &[u8], demuxer: &str) -> String {
    let args = ["-v", "error", "-f", demuxer, "-show_entries", "frame=pict_type", "-of", "csv=p=0", "-i", "-"];
    let said = String::from_utf8(piped(Command::new("ffprobe").args(args), stream)).unwrap();
    said.chars().filter(|c| "IPB".contains(*c)).collect()
}

/// The worst and the mean PSNR of luma and chroma together, in dB.
pub(crate) fn psnr(coded: &[Vec<u8>], original: &[Vec<u8>], ten_bit: bool) -> (f64, f64) {
    assert_eq!(coded.len(), original.len(), "frames");
    let each: Vec<f64> = coded.iter().zip(original).map(|(a, b)| one_psnr(a, b, ten_bit)).collect();
    (each.iter().copied().fold(f64::INFINITY, f64::min), each.iter().sum::<f64>() / each.len() as f64)
}

fn one_psnr(a: &[u8], b: &[u8], ten_bit: bool) -> f64 {
    let sample = |bytes: &[u8]| match bytes {
        [low, high] => f64::from(u16::from_le_bytes([*low, *high]) >> 6),
        bytes => f64::from(bytes[0]),
    };
    let (size, peak) = if ten_bit { (2, 1_023.0) } else { (1, 255.0) };
    let squares = a.chunks_exact(size).zip(b.chunks_exact(size)).map(|(a, b)| (sample(a) - sample(b)).powi(2));
    let mean: f64 = squares.sum::<f64>() / (a.len() / size) as f64;
    10.0 * (peak * peak / mean.max(1e-9)).log10()
}

fn piped(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input).ok());
    let out = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{}: {said}", out.status);
    out.stdout
}

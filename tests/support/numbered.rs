//! Clips whose pictures carry their number, made by ffmpeg from pictures drawn here; and the numbers read back.
//! The strip is the one of the worker's test pattern: 34 blocks over the lowest twelfth, white, black, 24 bits, CRC-8.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

const BLOCKS: usize = 34;

/// What is drawn: size, frames per second as ffmpeg writes them, number of pictures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawn {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) rate: &'static str,
    pub(crate) pictures: u32,
}

/// A transport stream of numbered pictures, made once: `audio` are inputs, `encode` everything up to the output.
pub(crate) fn clip(name: &str, drawn: Drawn, audio: &[&str], encode: &str) -> PathBuf {
    // Two tests of one process may want the same clip.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clips");
    std::fs::create_dir_all(&folder).expect("writable target folder");
    let file = folder.join(name);
    if file.exists() {
        return file;
    }
    let part = folder.join(format!("{}.{name}", std::process::id()));
    let size = format!("{}x{}", drawn.width, drawn.height);
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", &size, "-r", drawn.rate]);
    command.args(["-i", "pipe:0"]);
    for source in audio {
        command.args(["-f", "lavfi", "-i", source]);
    }
    command.args(encode.split_whitespace()).args(["-f", "mpegts"]).arg(&part);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("ffmpeg is installed");
    let mut input = child.stdin.take().expect("piped");
    let mut picture = vec![0; drawn.width * drawn.height * 3 / 2];
    for number in 0..drawn.pictures {
        draw(&mut picture, drawn, number);
        // It closes its input early when `-t` is reached.
        if input.write_all(&picture).is_err() {
            break;
        }
    }
    drop(input);
    assert!(child.wait().expect("own child").success(), "ffmpeg made no {name}");
    std::fs::rename(&part, &file).expect("same folder");
    file
}

/// A slow gradient, a bar that moves, the strip.
fn draw(picture: &mut [u8], drawn: Drawn, number: u32) {
    let (width, height) = (drawn.width, drawn.height);
    let (luma, chroma) = picture.split_at_mut(width * height);
    let bar = number as usize * 5 % width;
    for (y, row) in luma.chunks_exact_mut(width).enumerate() {
        for (x, sample) in row.iter_mut().enumerate() {
            *sample = if (bar..bar + width / 16).contains(&x) {
                200
            } else {
                40 + ((x + y + number as usize) / 8 % 96) as u8
            };
        }
    }
    chroma.fill(128);
    let bits = number << 8 | u32::from(crc8(number));
    for row in luma.chunks_exact_mut(width).skip(height * 11 / 12) {
        for block in 0..BLOCKS {
            let white = block == 0 || block > 1 && bits >> (BLOCKS - 1 - block) & 1 == 1;
            row[width * block / BLOCKS..width * (block + 1) / BLOCKS].fill(if white { 235 } else { 16 });
        }
    }
}

/// The counters of the pictures of an MP4 (or TS) file in presentation order; `None`: unreadable.
#[track_caller]
pub(crate) fn read_counters(file: &[u8]) -> Vec<Option<u32>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("media");
    std::fs::write(&path, file).expect("writable");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "warning", "-i"]).arg(&path);
    // Two rows out of the middle of the strip, each picture squeezed to a fixed width.
    command.args([
        "-map",
        "0:v:0",
        "-vf",
        "crop=iw:2:0:ih*23/24:exact=1,scale=1088:2:flags=neighbor",
        "-fps_mode",
        "passthrough",
    ]);
    command.args(["-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"]).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ffmpeg is installed");
    let mut pixels = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut pixels).expect("readable");
    let output = child.wait_with_output().expect("own child");
    let said = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> =
        said.lines().filter(|l| ["h264", "hevc", "rror"].iter().any(|word| l.contains(word))).collect();
    assert!(complaints.is_empty(), "the decoder complains: {complaints:#?}");
    pixels.chunks_exact(1088 * 2).map(|rows| read_strip(&rows[..1088])).collect()
}

fn read_strip(row: &[u8]) -> Option<u32> {
    let block = row.len() / BLOCKS;
    let level =
        |i: usize| row[i * block + block / 4..(i + 1) * block - block / 4].iter().map(|s| u32::from(*s)).sum::<u32>();
    let (white, black) = (level(0), level(1));
    if white < black + 60 * (block / 2) as u32 {
        return None;
    }
    let bits = (2..BLOCKS).fold(0u32, |bits, i| bits << 1 | u32::from(level(i) * 2 > white + black));
    let number = bits >> 8;
    (u32::from(crc8(number)) == bits & 0xFF).then_some(number)
}

fn crc8(number: u32) -> u8 {
    number.to_be_bytes()[1..]
        .iter()
        .fold(0u8, |crc, byte| (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 7 }))
}

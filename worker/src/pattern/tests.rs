//! The strips survive what a ladder does to them; the flash and the clock say the time.

use super::*;
use crate::scale::{Planes, Scaler, Siting};

struct Picture {
    planes: [Vec<u8>; 3],
    width: usize,
    height: usize,
}

impl Picture {
    fn new(width: usize, height: usize) -> Picture {
        let chroma = width.div_ceil(2) * height.div_ceil(2);
        Picture { planes: [vec![7; width * height], vec![7; chroma], vec![7; chroma]], width, height }
    }

    fn view(&self) -> Planes<'_> {
        let [y, u, v] = &self.planes;
        let (width, half) = (self.width, self.width.div_ceil(2));
        Planes { y, u, v, stride_y: width, stride_u: half, stride_v: half, width, height: self.height }
    }

    fn view_mut(&mut self) -> PlanesMut<'_> {
        let [y, u, v] = &mut self.planes;
        let (width, half) = (self.width, self.width.div_ceil(2));
        PlanesMut { y, u, v, stride_y: width, stride_u: half, stride_v: half, width, height: self.height }
    }
}

const RATE: FrameRate = FrameRate::new(25_000, 1_000);
/// 2026-11-21 10:20:30.52 UTC.
const WALL: Wall = Wall(1_795_256_430_520_000_000);

#[test]
fn strips_tell_frame_and_time() {
    let mut painter = Painter::new(960, 540, RATE);
    let mut picture = Picture::new(960, 540);
    for frame in [0, 1, 0xAB_CDEF, 0xFF_FFFF, 0x0100_0005] {
        painter.paint(frame, WALL, &mut picture.view_mut());
        assert_eq!(read_strip(&picture.view(), Strip::Frame), Some(frame % (1 << 24)));
        assert_eq!(read_strip(&picture.view(), Strip::Time), Some((179_525_643_052_u64 % (1 << 24)) as u32));
    }
}

#[test]
fn strips_survive_scaling_to_the_smallest_rendition() {
    let mut painter = Painter::new(1920, 1080, RATE);
    let (mut picture, mut small) = (Picture::new(1920, 1080), Picture::new(384, 216));
    let mut scaler = Scaler::new(1920, 1080, 384, 216, Siting::Left);
    for frame in (0..1000).step_by(97) {
        painter.paint(frame, WALL, &mut picture.view_mut());
        scaler.scale(&picture.view(), &mut small.view_mut());
        assert_eq!(read_strip(&small.view(), Strip::Frame), Some(frame));
    }
}

/// Two seconds of 216p through libx264 at 60 kb/s and back.
#[test]
fn strips_survive_x264_ultrafast_at_a_low_rate() {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};
    const FRAMES: u32 = 50;
    let run = |arguments: &str, input: Vec<u8>| -> Vec<u8> {
        let mut ffmpeg = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin"])
            .args(arguments.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = ffmpeg.stdin.take().unwrap();
        let writer = std::thread::spawn(move || pipe.write_all(&input));
        let mut out = Vec::new();
        ffmpeg.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        writer.join().unwrap().unwrap();
        assert!(ffmpeg.wait().unwrap().success());
        out
    };
    let mut painter = Painter::new(960, 540, RATE);
    let (mut picture, mut small) = (Picture::new(960, 540), Picture::new(384, 216));
    let mut scaler = Scaler::new(960, 540, 384, 216, Siting::Left);
    let mut raw = Vec::new();
    for frame in 0..FRAMES {
        let wall = Wall(WALL.0 + i64::from(frame) * 40_000_000);
        painter.paint(frame * 1000, wall, &mut picture.view_mut());
        scaler.scale(&picture.view(), &mut small.view_mut());
        raw.extend(small.planes.concat());
    }
    let format = "-f rawvideo -pix_fmt yuv420p -s 384x216 -r 25";
    let encode = "-c:v libx264 -preset ultrafast -tune zerolatency -b:v 60k -maxrate 60k -bufsize 60k -f h264 -";
    let coded = run(&format!("{format} -i - {encode}"), raw);
    assert!(coded.len() < 40_000, "the rate was low: {} bytes", coded.len());
    let decoded = run("-f h264 -i - -f rawvideo -pix_fmt yuv420p -", coded);
    let mut frames = 0;
    for (frame, bytes) in (0..).zip(decoded.chunks_exact(384 * 216 * 3 / 2)) {
        small.planes[0].copy_from_slice(&bytes[..384 * 216]);
        assert_eq!(read_strip(&small.view(), Strip::Frame), Some(frame * 1000), "frame {frame}");
        let hundredths = strip::hundredths(Wall(WALL.0 + i64::from(frame) * 40_000_000));
        assert_eq!(read_strip(&small.view(), Strip::Time), Some(hundredths), "frame {frame}");
        frames += 1;
    }
    assert_eq!(frames, FRAMES);
}

#[test]
fn what_is_no_strip_reads_as_none() {
    let mut painter = Painter::new(640, 360, RATE);
    let mut picture = Picture::new(640, 360);
    assert_eq!(read_strip(&picture.view(), Strip::Frame), None, "flat");
    painter.paint(12_345, WALL, &mut picture.view_mut());
    // One block inverted: the CRC sees it.
    for row in picture.planes[0].chunks_mut(640).skip(330) {
        row[640 * 20 / 34..640 * 21 / 34].iter_mut().for_each(|s| *s = 251 - *s);
    }
    assert_eq!(read_strip(&picture.view(), Strip::Frame), None, "damaged");
}

#[test]
fn the_flash_shows_in_the_first_40_ms_of_each_second_at_every_rate() {
    for (num, den, lit) in
        [(25_000, 1_000, 1), (50_000, 1_000, 2), (30_000, 1_001, 2), (24_000, 1_000, 1), (60_000, 1_000, 3)]
    {
        let painter = Painter::new(320, 180, FrameRate::new(num, den));
        let in_minute = (60 * num).div_ceil(den);
        let flashes = (0..in_minute).filter(|n| painter.flashes(*n)).count();
        assert!((60 * (lit - 1)..=60 * lit).contains(&flashes) && flashes >= 60, "{num}/{den}: {flashes}");
        assert!(painter.flashes(0) && !painter.flashes(in_minute / 120));
    }
    let mut painter = Painter::new(960, 540, RATE);
    let mut picture = Picture::new(960, 540);
    let flash = |picture: &Picture, painter: &Painter| {
        let area = &painter.layout.flash;
        picture.planes[0][(area.y + area.height / 2) * 960 + area.x + area.width / 2]
    };
    painter.paint(50, WALL, &mut picture.view_mut());
    assert_eq!(flash(&picture, &painter), strip::WHITE);
    painter.paint(51, WALL, &mut picture.view_mut());
    assert_eq!(flash(&picture, &painter), strip::BLACK);
}

#[test]
fn a_picture_does_not_depend_on_what_was_painted_before() {
    let mut painter = Painter::new(426, 240, RATE);
    let (mut fresh, mut used) = (Picture::new(426, 240), Picture::new(426, 240));
    painter.paint(3, WALL, &mut used.view_mut());
    painter.paint(77, WALL, &mut used.view_mut());
    Painter::new(426, 240, RATE).paint(77, WALL, &mut fresh.view_mut());
    assert_eq!(used.planes, fresh.planes);
}

#[test]
fn odd_and_tiny_pictures_are_painted() {
    for (width, height) in [(1, 1), (2, 2), (33, 17), (101, 57), (200, 900)] {
        let mut painter = Painter::new(width, height, RATE);
        let mut picture = Picture::new(width as usize, height as usize);
        for frame in 0..30 {
            painter.paint(frame, WALL, &mut picture.view_mut());
        }
    }
}

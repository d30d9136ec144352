use super::*;
use rung::media::picture::Due;
use rung::pixels::protocol::{Picture, PictureKind};
use std::process::{Command, Stdio};

const RULE: PictureRule = PictureRule { poster: 125, tile: 250 };
const ALL: Wanted = Wanted { due: Due { poster: true, tile: true }, snap: true };

fn look(sar: (u32, u32), matrix: u8, full_range: bool) -> Look {
    Look { sar, colour: Colour { primaries: 2, transfer: 2, matrix, full_range }, source_height: 360 }
}

/// A slope of light from left to right, of colour from top to bottom, brighter with `n`.
fn slope(width: usize, height: usize, n: usize) -> Image {
    let mut image = Image::new(width, height, (16, 128, 128));
    let byte = |value: usize| u8::try_from(value % 220 + 16).unwrap();
    image.y.iter_mut().enumerate().for_each(|(i, y)| *y = byte(i % width * 219 / width + n));
    let columns = width.div_ceil(2);
    image.u.iter_mut().enumerate().for_each(|(i, u)| *u = byte(i / columns * 200 / height + n));
    image.v.iter_mut().enumerate().for_each(|(i, v)| *v = byte(i % columns * 200 / width));
    image
}

/// RGB pixels of a JPEG, as ffmpeg decodes them.
fn decoded(picture: &Picture) -> Vec<u8> {
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-f", "mjpeg", "-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ffmpeg is installed");
    let (mut stdin, jpeg) = (ffmpeg.stdin.take().unwrap(), picture.jpeg.clone());
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &jpeg));
    let out = ffmpeg.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.stdout.len(), usize::from(picture.width) * usize::from(picture.height) * 3, "size as promised");
    out.stdout
}

fn pixel(rgb: &[u8], width: u16, x: usize, y: usize) -> [i32; 3] {
    let at = (y * usize::from(width) + x) * 3;
    [0, 1, 2].map(|i| i32::from(rgb[at + i]))
}

#[track_caller]
fn near(got: [i32; 3], want: [i32; 3], slack: i32) {
    assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() <= slack), "{got:?}, not {want:?}");
}

fn sizes(made: &[Picture]) -> Vec<(u16, u16)> {
    made.iter().map(|p| (p.width, p.height)).collect()
}

#[test]
fn the_same_pictures_give_the_same_bytes() {
    let run = || {
        let mut maker = Maker::new(look((1, 1), 1, false), Some(RULE));
        (0..30).flat_map(|i| maker.make(i * 250, ALL, &slope(640, 360, i as usize).planes())).collect::<Vec<_>>()
    };
    let (one, other) = (run(), run());
    assert_eq!(one.len(), 90);
    assert_eq!(one, other);
    let kinds: Vec<_> = one[..3].iter().map(|p| std::mem::discriminant(&p.kind)).collect();
    assert_eq!(kinds[0], std::mem::discriminant(&PictureKind::Poster));
    assert_eq!(one[0].jpeg, one[1].jpeg, "a snapshot of a frame is its poster");
    assert_ne!(one[0].jpeg, one[3].jpeg);
}

#[test]
fn odd_tall_anamorphic_and_large_pictures_become_square_ones_of_even_sides() {
    for (size, sar, poster, tile) in [
        ((333, 187), (1, 1), (332, 186), (160, 90)),
        ((720, 480), (32, 27), (640, 360), (160, 90)),
        ((360, 640), (1, 1), (360, 640), (50, 90)),
        ((1280, 720), (1, 1), (640, 360), (160, 90)),
        ((1, 1), (1, 1), (2, 2), (2, 2)),
        ((384, 216), (1, 1), (384, 216), (160, 90)),
    ] {
        let mut maker = Maker::new(look(sar, 6, false), Some(RULE));
        let made = maker.make(0, ALL, &slope(size.0, size.1, 0).planes());
        assert_eq!(sizes(&made), [poster, poster, (tile.0 * 10, tile.1)], "{size:?}");
        made.iter().for_each(|picture| drop(decoded(picture)));
    }
}

#[test]
fn colours_are_those_of_the_video_whatever_its_matrix_and_range() {
    // Red, white, black and a mid green, in the samples of each matrix and range [H.273 8.3].
    let red = [255, 0, 0];
    for (matrix, full_range, samples, rgb) in [
        (1, false, (63, 102, 240), red),
        (6, false, (81, 90, 240), red),
        (9, false, (74, 97, 240), red),
        (6, true, (76, 85, 255), red),
        (1, true, (54, 99, 255), red),
        (1, false, (235, 128, 128), [255; 3]),
        (1, false, (16, 128, 128), [0; 3]),
        (6, true, (255, 128, 128), [255; 3]),
        (6, true, (0, 128, 128), [0; 3]),
        (1, false, (94, 85, 77), [0, 128, 0]),
    ] {
        let mut maker = Maker::new(look((1, 1), matrix, full_range), None);
        let made = maker.make(0, Wanted { snap: true, ..Wanted::default() }, &Image::new(64, 48, samples).planes());
        assert_eq!(made.len(), 1);
        near(pixel(&decoded(&made[0]), made[0].width, 30, 20), rgb, 4);
    }
    // Where the stream does not say, its height does.
    let guess = |source_height| Tones::of(Look { source_height, ..look((1, 1), 2, false) });
    assert_eq!((guess(719), guess(720)), (Tones::of(look((1, 1), 6, false)), Tones::of(look((1, 1), 1, false))));
}

#[test]
fn a_sheet_grows_by_rows_and_each_tile_lies_where_it_is_said_to() {
    let mut maker = Maker::new(look((1, 1), 6, false), Some(RULE));
    let tile = Wanted { due: Due { poster: false, tile: true }, snap: false };
    let grey = |n: i64| u8::try_from(40 + n * 12).unwrap();
    let mut newest = None;
    for n in 0..12 {
        let made = maker.make(n * 250, tile, &Image::new(640, 360, (grey(n), 128, 128)).planes());
        assert_eq!(sizes(&made), [(1600, if n < 10 { 90 } else { 180 })]);
        let PictureKind::Sheet(sheet) = &made[0].kind else { panic!("{:?}", made[0].kind) };
        assert_eq!((sheet.number, sheet.tile, sheet.places.len()), (0, (160, 90), n as usize + 1));
        newest = made.into_iter().next();
    }
    let newest = newest.unwrap();
    let rgb = decoded(&newest);
    for n in 0..12 {
        let (x, y) = (n as usize % 10 * 160 + 80, n as usize / 10 * 90 + 45);
        let light = (i32::from(grey(n)) - 16) * 255 / 219;
        near(pixel(&rgb, newest.width, x, y), [light; 3], 3);
    }
    near(pixel(&rgb, newest.width, 2 * 160 + 80, 90 + 45), [0; 3], 3);
}

#[test]
fn sheets_begin_at_each_hundredth_tile_at_another_shape_and_in_another_worker() {
    let places = |maker: &mut Maker, n: i64, width: usize| {
        let wanted = Wanted { due: Due { poster: false, tile: true }, snap: false };
        let made = maker.make(n, wanted, &slope(width, 36, 3).planes());
        let PictureKind::Sheet(sheet) = &made[0].kind else { panic!("{:?}", made[0].kind) };
        (sheet.number, sheet.places.clone(), made[0].height)
    };
    let mut maker = Maker::new(look((1, 1), 6, false), Some(RULE));
    // A successor goes on in the middle: what was before is on its predecessor's sheet.
    assert_eq!(places(&mut maker, 97 * 250, 64), (0, vec![97], 360));
    assert_eq!(places(&mut maker, 99 * 250, 64), (0, vec![97, 99], 360));
    assert_eq!(places(&mut maker, 100 * 250, 64), (1, vec![0], 36));
    assert_eq!(places(&mut maker, 101 * 250, 64), (1, vec![0, 1], 36));
    assert_eq!(places(&mut maker, 102 * 250, 48), (1, vec![2], 36));
}

#[test]
fn a_full_queue_leaves_pictures_out_and_counts_them_and_a_snapshot_comes_of_a_later_frame() {
    let shared = crate::process::Process::own().seat(0).unwrap();
    // No thread takes anything: what is handed over stays.
    let queue = Arc::new(Queue::bounded(1));
    let mut pictures = Pictures {
        rule: Some(RULE),
        before: None,
        snap: false,
        queue: Arc::clone(&queue),
        shared: Arc::clone(&shared),
    };
    let offer = |pictures: &mut Pictures, n: i64| {
        let wanted = pictures.due(n);
        if let Some(wanted) = wanted {
            pictures.hand(n, wanted, Box::new(Image::new(16, 16, (16, 128, 128))));
        }
        wanted
    };
    assert_eq!(offer(&mut pictures, 0), Some(Wanted { due: Due { poster: true, tile: true }, snap: false }));
    assert_eq!(offer(&mut pictures, 1), None);
    pictures.snap();
    assert_eq!(offer(&mut pictures, 250), Some(ALL));
    let skipped = || shared.counters.pictures_skipped.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(skipped(), 2, "poster and tile of frame 250");
    assert!(queue.pop().is_some());
    assert_eq!(offer(&mut pictures, 251), Some(Wanted { due: Due::default(), snap: true }));
    assert_eq!(offer(&mut pictures, 252), None, "it was asked for once");
    assert_eq!((queue.pop().unwrap().n, skipped()), (251, 2));
    drop(pictures);
    assert!(queue.pop().is_none(), "the thread ends");
}

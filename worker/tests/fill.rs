//! A source that goes away, as the worker sees it: each frame once, the picture held, then the slate, silence to the
//! sample, and a successor that takes over in the middle.

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use bytes::Bytes;
use rung::media::channel::Slate;
use rung::media::track::Codec;
use rung::pixels::protocol::{Encoded, Fill, FromWorker, Open, Output, ToWorker, Unit, VideoInit};
use std::path::Path;
use support::*;

fn run(open: Open, messages: Vec<ToWorker>) -> (Worker, Vec<VideoInit>) {
    let mut worker = Worker::start();
    worker.open(open);
    let (inits, _) = worker.opened();
    worker.feed_and_close(messages);
    (worker, inits)
}

fn fill(to: i64, with: Fill) -> ToWorker {
    ToWorker::Fill { ch: CH, to, with }
}

/// The source's own clock goes on: after frame 39 it is away until frame 100, which is its next IDR.
fn outage(dir: &Path) -> Vec<ToWorker> {
    let pictures = video(dir, 150, &["-bf", "2", "-g", "50", "-keyint_min", "50", "-sc_threshold", "0"]);
    let mut messages = Vec::new();
    for picture in &pictures {
        // Decode order: the last B pictures before the outage are missing.
        if picture.n < 40 {
            messages.push(ToWorker::Unit { ch: CH, unit: video_unit(picture) });
        }
    }
    messages.extend((41..=65).map(|to| fill(to, Fill::Hold)));
    messages.extend((66..=100).map(|to| fill(to, Fill::Slate)));
    messages.extend(pictures.iter().filter(|p| p.n >= 100).map(|p| ToWorker::Unit { ch: CH, unit: video_unit(p) }));
    messages
}

fn shown(frames: &[Encoded]) -> Vec<i64> {
    let mut order: Vec<i64> = frames.iter().map(|f| f.at).collect();
    order.sort_unstable();
    order
}

fn near(mean: f64, luma: u8) -> bool {
    (mean - f64::from(luma)).abs() < 2.5
}

#[test]
fn each_frame_comes_once_live_then_held_then_slate_then_live() {
    let dir = tempfile::tempdir().unwrap();
    let messages = outage(dir.path());
    let (worker, inits) = run(ladder(), messages);
    for (index, (w, h)) in [(320, 180), (192, 108), (128, 72)].into_iter().enumerate() {
        let frames = worker.encoded(&Output::Video(u8::try_from(index).unwrap()));
        assert!(shown(&frames).into_iter().eq(0..150), "{h}p");
        let keys: Vec<i64> = frames.iter().filter(|f| f.sync).map(|f| f.at).collect();
        assert_eq!(keys, [0, 50, 100], "{h}p: one encoder ran through");
        let luma = decode_luma(dir.path(), &inits[index], &frames, w, h);
        assert!((100..150).all(|n| near(luma[n], luma_of(n as i64))), "{h}p: live again");
        assert!((66..100).all(|n| near(luma[n], 16)), "{h}p: black");
        // What the decoder had not given back yet is held as the picture before it.
        assert!((40..65).all(|n| near(luma[n], luma_of(luma_before(&luma)))), "{h}p: {:?}", &luma[35..66]);
    }
    let collided = worker.log.iter().rev().find_map(|m| match m {
        FromWorker::Progress { progress, .. } => Some(progress.collided),
        _ => None,
    });
    assert_eq!(collided, Some(0));
}

/// The last frame before the outage that shows a picture of its own.
fn luma_before(luma: &[f64]) -> i64 {
    (30..40).rev().find(|n| near(luma[usize::try_from(*n).unwrap()], luma_of(*n))).expect("some live frame")
}

#[test]
fn a_successor_in_the_middle_of_the_slate_goes_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    // What its predecessor had shown up to frame 79 is published; history and fills come again.
    let mut messages = outage(dir.path());
    for message in &mut messages {
        if let ToWorker::Unit { unit, .. } = message {
            unit.prime = unit.at < 80;
        }
    }
    let mut open = ladder();
    open.video.as_mut().unwrap().start = 80;
    let (worker, inits) = run(open.clone(), messages);
    let frames = worker.encoded(&Output::Video(0));
    assert!(shown(&frames).into_iter().eq(80..150));
    let luma = decode_luma(dir.path(), &inits[0], &frames, 320, 180);
    assert!((0..20).all(|i| near(luma[i], 16)) && near(luma[20], luma_of(100)), "{luma:?}");
    // Without any history the slate comes at once, whatever was held before.
    let (worker, inits) = run(open, vec![fill(100, Fill::Hold)]);
    let frames = worker.encoded(&Output::Video(0));
    assert!(shown(&frames).into_iter().eq(80..100));
    assert!(decode_luma(dir.path(), &inits[0], &frames, 320, 180).iter().all(|mean| near(*mean, 16)));
}

#[test]
fn a_jump_makes_no_frame_and_the_encoder_begins_anew_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 60, &["-bf", "0", "-g", "30"]);
    let mut messages: Vec<ToWorker> = Vec::new();
    for picture in &pictures {
        let mut unit: Unit = video_unit(picture);
        if picture.n >= 30 {
            unit.at += 70;
        }
        if picture.n == 30 {
            messages.push(fill(100, Fill::Nothing));
        }
        messages.push(ToWorker::Unit { ch: CH, unit });
    }
    let mut open = ladder();
    open.video.as_mut().unwrap().source.reorder = Some(0);
    let (worker, inits) = run(open, messages);
    let frames = worker.encoded(&Output::Video(0));
    assert!(shown(&frames).into_iter().eq((0..30).chain(100..130)));
    assert!(frames.iter().any(|f| f.at == 100 && f.sync));
    assert_eq!(decode_luma(dir.path(), &inits[0], &frames, 320, 180).len(), 60);
}

#[test]
fn an_image_stands_in_for_the_source_and_one_that_cannot_be_read_is_black() {
    let dir = tempfile::tempdir().unwrap();
    // White, square: bars left and right of it.
    for (name, args) in [("slate.png", &[][..]), ("slate.jpg", &["-q:v", "2"][..])] {
        let file = dir.path().join(name);
        let mut words = vec!["-f", "lavfi", "-i", "color=white:s=240x240", "-frames:v", "1"];
        words.extend(args);
        words.push(file.to_str().unwrap());
        ffmpeg(&words);
        let image = Bytes::from(std::fs::read(&file).unwrap());
        for (bytes, columns) in [(image.clone(), 70..250), (image.slice(..40), 0..0)] {
            let mut open = ladder();
            open.video.as_mut().unwrap().slate = Slate::Image(bytes);
            let (worker, inits) = run(open, vec![fill(50, Fill::Slate)]);
            let frames = worker.encoded(&Output::Video(0));
            assert!(shown(&frames).into_iter().eq(0..50), "{name}");
            let path = write_annexb(dir.path(), &inits[0], &frames);
            let picture = &decode_planar(&path)[49 * 320 * 180 * 3 / 2..];
            for x in (2..318).filter(|x| (columns.start as i64 - x).abs() > 4 && (columns.end as i64 - x).abs() > 4) {
                let luma = picture[90 * 320 + usize::try_from(x).unwrap()];
                let white = columns.contains(&usize::try_from(x).unwrap());
                assert!(if white { luma > 228 } else { luma < 22 }, "{name}: column {x} is {luma}");
            }
            let faults = worker.log.iter().filter(|m| matches!(m, FromWorker::Fault { .. })).count();
            assert_eq!(faults, usize::from(columns.is_empty()), "{name}");
        }
    }
}

#[test]
fn sound_is_silent_for_exactly_as_long_as_the_picture_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let adts = dir.path().join("tone.aac");
    let tone = ["-f", "lavfi", "-i", "sine=frequency=1000:sample_rate=48000:duration=6", "-ac", "2"];
    let mut words = tone.to_vec();
    words.extend(["-c:a", "aac", "-b:a", "128k", "-f", "adts", adts.to_str().unwrap()]);
    ffmpeg(&words);
    let bytes = std::fs::read(&adts).unwrap();
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while rest.len() > 7 {
        let size = usize::from(rest[3] & 3) << 11 | usize::from(rest[4]) << 3 | usize::from(rest[5]) >> 5;
        frames.push(Bytes::copy_from_slice(&rest[7..size]));
        rest = &rest[size..];
    }
    // Sound and picture up to 2 s, away until 4 s, then both again.
    let unit = |m: usize| {
        let at = i64::try_from(m).unwrap() * 1_024;
        ToWorker::Unit { ch: CH, unit: audio_unit(at, frames[m].clone()) }
    };
    let mut messages: Vec<ToWorker> = (0..93).map(unit).collect();
    messages.extend((51..=75).map(|to| fill(to, Fill::Hold)));
    messages.extend((76..=100).map(|to| fill(to, Fill::Slate)));
    messages.extend((188..280).map(unit));
    let mut open = ladder();
    open.audio = vec![open_audio(Codec::Aac, 48_000, 2, Bytes::from_static(&[0x11, 0x90]))];
    let (worker, _) = run(open, messages);
    assert!(shown(&worker.encoded(&Output::Video(0))).into_iter().eq(0..100));
    let coded = worker.encoded(&Output::Audio(0));
    assert!(coded.iter().map(|f| f.at).eq(0..280), "{} frames", coded.len());
    let heard = decode_audio(dir.path(), &coded);
    let loud = |from: usize, to: usize| heard[from..to].iter().any(|s| s.abs() > 0.05);
    let every = |from: usize, to: usize| (from..to - 480).step_by(480).all(|at| loud(at, at + 480));
    // The player's decoder starts a frame late; a coder's own delay blurs the edges by two frames.
    assert!(every(4_096, 90 * 1_024), "sound before");
    assert!(!loud(97 * 1_024, 187 * 1_024), "silence meanwhile");
    assert!(every(193 * 1_024, 277 * 1_024), "sound after");
}

//! The worker as the daemon sees it: a process on a socketpair, fed with real streams.

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use bytes::Bytes;
use rung::media::track::Codec;
use rung::pixels::protocol::{Encoded, Fill, FromWorker, Open, Output, Pattern, ToWorker};
use rung::time::SystemClock;
use rung_worker::pattern::{Strip, read_strip};
use rung_worker::scale::Planes;
use std::time::Duration;
use support::*;

fn run(open: Open, messages: Vec<ToWorker>) -> (Worker, Vec<rung::pixels::protocol::VideoInit>) {
    let mut worker = Worker::start();
    worker.open(open);
    let (inits, _) = worker.opened();
    worker.feed_and_close(messages);
    (worker, inits)
}

/// Presentation order, as a player shows it.
fn shown(frames: &[Encoded]) -> Vec<i64> {
    let mut order: Vec<i64> = frames.iter().map(|f| f.at).collect();
    order.sort_unstable();
    order
}

fn keys(frames: &[Encoded]) -> Vec<i64> {
    frames.iter().filter(|f| f.sync).map(|f| f.at).collect()
}

#[test]
fn every_frame_appears_once_in_every_rendition_with_its_own_picture_and_idrs_on_the_grid() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 130, &["-bf", "3", "-g", "30"]);
    let mut open = ladder();
    let renditions = &mut open.video.as_mut().unwrap().renditions;
    renditions.iter_mut().for_each(|r| r.bframes = 3);
    renditions[0].threads = 2;
    let (worker, inits) = run(open, to_units(&pictures));
    for (i, (width, height)) in [(320, 180), (192, 108), (128, 72)].into_iter().enumerate() {
        let frames = worker.encoded(&Output::Video(u8::try_from(i).unwrap()));
        assert!(shown(&frames).into_iter().eq(0..130));
        assert_eq!(keys(&frames), [0, 50, 100]);
        for frame in &frames {
            assert_eq!(frame.stamps.received.0, 1_000 + frame.at.cast_unsigned());
            assert!(frame.stamps.encoded >= frame.stamps.decoded);
            let idr = nal_units(&frame.data).iter().any(|unit| unit[0] & 31 == 5);
            assert!(idr == frame.sync && nal_units(&frame.data).iter().all(|u| !matches!(u[0] & 31, 7..=9)));
        }
        let luma = decode_luma(dir.path(), &inits[i], &frames, width, height);
        assert_eq!(luma.len(), 130);
        for (n, mean) in (0..).zip(luma) {
            assert!((mean - f64::from(luma_of(n))).abs() < 2.0, "frame {n} of {height}p shows {mean}");
        }
    }
}

#[test]
fn holes_repeat_the_last_picture_and_collisions_show_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 60, &["-bf", "0", "-g", "30"]);
    // Frames 20 to 22 were lost before they were coded; frame 40 comes on the index of 39.
    let index = |n: i64| match n {
        0..20 => n,
        40 => 42,
        _ => n + 3,
    };
    let moved: Vec<_> = pictures.iter().map(|p| Coded { n: index(p.n), ..p.clone() }).collect();
    let (worker, inits) = run(ladder(), to_units(&moved));
    let frames = worker.encoded(&Output::Video(1));
    assert!(shown(&frames).into_iter().eq(0..63));
    assert_eq!(keys(&frames), [0, 50]);
    let luma = decode_luma(dir.path(), &inits[1], &frames, 192, 108);
    for (n, mean) in (0..63).zip(luma) {
        let picture = match n {
            20..23 => 19,
            23..43 => n - 3,
            43 => 39,
            _ if n < 20 => n,
            _ => n - 3,
        };
        assert!((mean - f64::from(luma_of(picture))).abs() < 2.0, "frame {n} shows {mean}, not picture {picture}");
    }
    let progress = last_progress(&worker);
    // Index 43 has no picture of its own either.
    assert_eq!((progress.decoded, progress.repeated, progress.collided, progress.next), (60, 4, 1, 63));
}

fn last_progress(worker: &Worker) -> rung::pixels::protocol::Progress {
    let last = worker.log.iter().rev().find_map(|m| match m {
        FromWorker::Progress { progress, .. } => Some(*progress),
        _ => None,
    });
    last.expect("progress is reported before `Closed`")
}

#[test]
fn a_respawned_worker_resumes_in_the_middle_under_the_same_init_section() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 130, &["-bf", "3", "-g", "100"]);
    let (first, inits) = run(ladder(), to_units(&pictures));
    drop(first);
    let mut open = ladder();
    open.video.as_mut().unwrap().start = 60;
    let messages = pictures.iter().map(|p| {
        let mut unit = video_unit(p);
        unit.prime = unit.at < 60;
        ToWorker::Unit { ch: CH, unit }
    });
    let (second, again) = run(open, messages.collect());
    assert_eq!(inits, again);
    for i in 0..3 {
        let frames = second.encoded(&Output::Video(i));
        assert!(shown(&frames).into_iter().eq(60..130));
        assert_eq!(keys(&frames), [60, 100]);
    }
    let luma = decode_luma(dir.path(), &inits[2], &second.encoded(&Output::Video(2)), 128, 72);
    assert!((luma[0] - f64::from(luma_of(60))).abs() < 2.0, "{}", luma[0]);
}

#[test]
fn parameter_sets_are_the_same_run_to_run() {
    let inits: Vec<_> = (0..2)
        .map(|_| {
            let mut worker = Worker::start();
            worker.open(ladder());
            worker.opened().0
        })
        .collect();
    assert_eq!(inits[0], inits[1]);
}

#[test]
fn idr_requests_are_met_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 70, &["-bf", "2", "-g", "30"]);
    let mut messages = to_units(&pictures);
    messages.insert(3, ToWorker::Idr { ch: CH, at: 33 });
    let (worker, _) = run(ladder(), messages);
    for i in 0..3 {
        assert_eq!(keys(&worker.encoded(&Output::Video(i))), [0, 33, 50]);
    }
}

#[test]
fn fills_hold_the_picture_then_show_the_slate_and_hide_what_comes_too_late() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 60, &["-bf", "0", "-g", "30"]);
    let mut messages = to_units(&pictures);
    // The source stalls behind frame 29; units up to 49 come after their time.
    messages.insert(30, ToWorker::Fill { ch: CH, to: 40, with: Fill::Hold });
    messages.insert(31, ToWorker::Fill { ch: CH, to: 50, with: Fill::Slate });
    for message in &mut messages {
        if let ToWorker::Unit { unit, .. } = message {
            unit.hidden = (30..50).contains(&unit.at);
        }
    }
    // The stream has no B pictures and says so: nothing waits inside the decoder when the fill comes.
    let mut open = ladder();
    open.video.as_mut().unwrap().source.reorder = Some(0);
    let (worker, inits) = run(open, messages);
    let frames = worker.encoded(&Output::Video(2));
    assert!(shown(&frames).into_iter().eq(0..60));
    let luma = decode_luma(dir.path(), &inits[2], &frames, 128, 72);
    for (n, mean) in (0..60).zip(luma) {
        let expected = match n {
            30..40 => luma_of(29),
            40..50 => 16,
            _ => luma_of(n),
        };
        assert!((mean - f64::from(expected)).abs() < 2.5, "frame {n} shows {mean}, not {expected}");
    }
    assert_eq!(last_progress(&worker).collided, 0);
}

#[test]
fn a_worker_without_a_picture_shows_the_slate_at_once() {
    let mut open = ladder();
    open.video.as_mut().unwrap().start = 10;
    let (worker, _) = run(open, vec![ToWorker::Fill { ch: CH, to: 70, with: Fill::Hold }]);
    let frames = worker.encoded(&Output::Video(0));
    assert!(shown(&frames).into_iter().eq(10..70));
    assert_eq!(keys(&frames), [10, 50]);
}

#[test]
fn shed_and_resume_act_at_idrs_and_never_on_the_lowest() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 220, &["-bf", "0", "-g", "50"]);
    let mut messages = to_units(&pictures);
    messages.insert(120, ToWorker::Resume { ch: CH, rendition: 0, at: 130 });
    messages.insert(10, ToWorker::Shed { ch: CH, rendition: 0, at: 50 });
    messages.insert(10, ToWorker::Shed { ch: CH, rendition: 2, at: 50 });
    let (worker, inits) = run(ladder(), messages);
    let frames = worker.encoded(&Output::Video(0));
    assert!(shown(&frames).into_iter().eq((0..50).chain(150..220)));
    assert_eq!(keys(&frames), [0, 150, 200]);
    assert!(shown(&worker.encoded(&Output::Video(2))).into_iter().eq(0..220));
    assert_eq!(last_progress(&worker).shed, 100);
    // Both stretches play under the one init section.
    assert_eq!(decode_luma(dir.path(), &inits[0], &frames, 320, 180).len(), 120);
}

#[test]
fn a_rendition_that_cannot_keep_up_is_shed_until_the_next_grid_idr_and_the_lowest_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 220, &["-bf", "0", "-g", "50"]);
    let mut open = ladder();
    open.unpaced = false;
    // Upscaled and slow on purpose: fed at once, it must fall behind while the lowest does not.
    let slow = &mut open.video.as_mut().unwrap().renditions[0];
    (slow.width, slow.height, slow.preset) = (1280, 720, "slow".to_owned());
    let (worker, inits) = run(open, to_units(&pictures));
    let late: Vec<(i64, i64)> = worker
        .log
        .iter()
        .filter_map(|m| match m {
            FromWorker::Late { rendition: 0, at, resumes, .. } => Some((*at, *resumes)),
            _ => None,
        })
        .collect();
    assert!(!late.is_empty(), "an encoder slower than the feed is late");
    let missing: Vec<i64> = late.iter().flat_map(|(at, resumes)| *at..(*resumes).min(220)).collect();
    let frames = worker.encoded(&Output::Video(0));
    assert!(shown(&frames).into_iter().eq((0..220).filter(|n| !missing.contains(n))));
    assert!(late.iter().all(|(_, resumes)| resumes % 50 == 0));
    assert!(keys(&frames).iter().all(|n| n % 50 == 0));
    assert!(shown(&worker.encoded(&Output::Video(2))).into_iter().eq(0..220));
    assert!(decode_luma(dir.path(), &inits[0], &frames, 1280, 720).len() == frames.len());
}

#[test]
fn a_burst_that_the_machine_can_catch_up_with_sheds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 75, &["-bf", "0", "-g", "50"]);
    let mut open = ladder();
    open.unpaced = false;
    // What a session's first three seconds look like to a worker that is started at their end.
    let now = SystemClock::mono();
    let messages = pictures.iter().map(|p| {
        let mut unit = video_unit(p);
        unit.stamps.received = now.back(Duration::from_millis((75 - p.n).unsigned_abs() * 40));
        ToWorker::Unit { ch: CH, unit }
    });
    let (worker, _) = run(open, messages.collect());
    for i in 0..3 {
        assert!(shown(&worker.encoded(&Output::Video(i))).into_iter().eq(0..75));
    }
    assert_eq!(last_progress(&worker).shed, 0);
}

#[test]
fn retune_changes_the_rate_without_an_idr_or_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("noise.mp4");
    let noise = "nullsrc=s=320x180:r=25,geq=random(1)*200:128:128,format=yuv420p";
    ffmpeg(&["-f", "lavfi", "-i", noise, "-frames:v", "200", "-g", "50", "-bf", "0", source.to_str().unwrap()]);
    let pictures = split_mp4(dir.path(), &source);
    let mut messages = to_units(&pictures);
    messages.insert(100, ToWorker::Retune { ch: CH, rendition: 0, bitrate: 100_000 });
    let (worker, _) = run(ladder(), messages);
    let frames = worker.encoded(&Output::Video(0));
    assert!(shown(&frames).into_iter().eq(0..200));
    assert_eq!(keys(&frames), [0, 50, 100, 150]);
    let bytes = |from: i64, to: i64| -> usize {
        frames.iter().filter(|f| (from..to).contains(&f.at)).map(|f| f.data.len()).sum()
    };
    assert!(bytes(150, 200) * 2 < bytes(50, 100), "{} then {}", bytes(50, 100), bytes(150, 200));
}

#[test]
fn an_encoder_that_is_opened_again_at_another_rate_keeps_its_parameter_sets() {
    let dir = tempfile::tempdir().unwrap();
    let mut messages = to_units(&video(dir.path(), 200, &["-bf", "0", "-g", "50"]));
    // Far past what the level of the first rate allows; the encoder in use does not mind, one that is opened may.
    messages.insert(20, ToWorker::Retune { ch: CH, rendition: 0, bitrate: 80_000_000 });
    messages.insert(30, ToWorker::Shed { ch: CH, rendition: 0, at: 50 });
    messages.insert(60, ToWorker::Resume { ch: CH, rendition: 0, at: 100 });
    let (worker, _) = run(ladder(), messages);
    assert!(shown(&worker.encoded(&Output::Video(0))).into_iter().eq((0..50).chain(100..200)));
    assert!(shown(&worker.encoded(&Output::Video(1))).into_iter().eq(0..200));
}

#[test]
fn damage_is_counted_and_time_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut pictures = video(dir.path(), 100, &["-bf", "2", "-g", "25"]);
    for picture in pictures.iter_mut().skip(30).step_by(17) {
        let mut bytes = picture.data.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0x5a);
        picture.data = Bytes::from(bytes);
    }
    // A whole unit of noise, too.
    pictures[60].data = Bytes::from(vec![0x77; 500]);
    let (worker, _) = run(ladder(), to_units(&pictures));
    for i in 0..3 {
        assert!(shown(&worker.encoded(&Output::Video(i))).into_iter().eq(0..100));
    }
    assert!(worker.log.iter().any(|m| matches!(m, FromWorker::Fault { .. })));
}

#[test]
fn a_source_that_changes_its_size_keeps_the_encoders_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut pictures = video(dir.path(), 50, &["-bf", "0", "-g", "25"]);
    let larger = dir.path().join("larger.mp4");
    let grey = "nullsrc=s=640x360:r=25,geq=lum='20+mod(N,40)*5':cb=128:cr=128,format=yuv420p";
    ffmpeg(&["-f", "lavfi", "-i", grey, "-frames:v", "50", "-g", "25", "-bf", "0", larger.to_str().unwrap()]);
    pictures.extend(split_mp4(dir.path(), &larger).into_iter().map(|p| Coded { n: p.n + 50, ..p }));
    let (worker, inits) = run(ladder(), to_units(&pictures));
    let frames = worker.encoded(&Output::Video(0));
    assert!(shown(&frames).into_iter().eq(0..100));
    assert_eq!(keys(&frames), [0, 50]);
    let luma = decode_luma(dir.path(), &inits[0], &frames, 320, 180);
    assert!((luma[70] - f64::from(luma_of(20))).abs() < 2.0);
}

#[test]
fn interlaced_and_ten_bit_sources_become_progressive_eight_bit() {
    let dir = tempfile::tempdir().unwrap();
    for (name, args) in [
        ("interlaced", ["-flags", "+ilme+ildct", "-x264-params", "tff=1", "-pix_fmt", "yuv420p"]),
        ("ten bits", ["-profile:v", "high10", "-g", "25", "-pix_fmt", "yuv420p10le"]),
        ("4:2:2", ["-profile:v", "high422", "-g", "25", "-pix_fmt", "yuv422p"]),
    ] {
        let pictures = video(dir.path(), 60, &args);
        let (worker, inits) = run(ladder(), to_units(&pictures));
        let frames = worker.encoded(&Output::Video(1));
        assert!(shown(&frames).into_iter().eq(0..60), "{name}");
        let luma = decode_luma(dir.path(), &inits[1], &frames, 192, 108);
        assert!((luma[15] - f64::from(luma_of(15))).abs() < 6.0, "{name}: {}", luma[15]);
    }
}

#[test]
fn audio_stands_on_the_grid_within_a_millisecond() {
    let dir = tempfile::tempdir().unwrap();
    // Silence for a second, then a tone. Each coder's own delay is in the time stamps that a muxer would write.
    for (name, codec, rate, size, delay, args) in [
        ("in.aac", Codec::Aac, 48_000, 0, 1_024, ["-ar", "48000", "-c:a", "aac", "-f", "adts"]),
        ("in44.aac", Codec::Aac, 44_100, 0, 1_024, ["-ar", "44100", "-c:a", "aac", "-f", "adts"]),
        ("in.mp2", Codec::MpegAudio, 48_000, 1_152, 481, ["-ar", "48000", "-c:a", "mp2", "-f", "mp2"]),
        ("in.ac3", Codec::Ac3, 48_000, 1_536, 256, ["-ar", "48000", "-c:a", "ac3", "-f", "ac3"]),
    ] {
        let path = dir.path().join(name);
        let tone = "aevalsrc='if(gte(t,1),0.5*sin(2*PI*1000*t),0)':s=48000:d=3";
        let mut all = vec!["-f", "lavfi", "-i", tone, "-ac", "2", "-b:a", "192k"];
        all.extend(args);
        all.push(path.to_str().unwrap());
        ffmpeg(&all);
        let stream = std::fs::read(&path).unwrap();
        let (samples, frames) =
            if size == 0 { (1_024, adts_frames(&stream)) } else { (size, equal_frames(&stream, codec)) };
        let asc = if rate == 44_100 { [0x12, 0x10] } else { [0x11, 0x90] };
        let asc = if codec == Codec::Aac { Bytes::copy_from_slice(&asc) } else { Bytes::new() };
        let messages = frames.into_iter().zip(0i64..).map(|(data, k)| {
            let at = (k * samples - delay) * 48_000 / i64::from(rate);
            ToWorker::Unit { ch: CH, unit: audio_unit(at, data) }
        });
        let open = Open { video: None, audio: vec![open_audio(codec, rate, 2, asc)], unpaced: true };
        let (worker, _) = run(open, messages.collect());
        let frames = worker.encoded(&Output::Audio(0));
        assert!(frames.iter().map(|f| f.at).eq(0..i64::try_from(frames.len()).unwrap()));
        let heard = decode_audio(dir.path(), &frames);
        let onset = heard.iter().position(|s| s.abs() > 0.1).expect("a tone");
        assert!(onset.abs_diff(48_000) <= 48, "{name}: the tone begins at sample {onset}");
        assert!(frames.len() >= 140, "{name}: {} frames", frames.len());
    }
}

fn adts_frames(mut stream: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while stream.len() > 7 {
        let size = usize::from(stream[3] & 3) << 11 | usize::from(stream[4]) << 3 | usize::from(stream[5] >> 5);
        frames.push(Bytes::copy_from_slice(&stream[7..size]));
        stream = &stream[size..];
    }
    frames
}

/// Frames of constant-rate MPEG audio and AC-3 at 192 kb/s and 48 kHz.
fn equal_frames(stream: &[u8], codec: Codec) -> Vec<Bytes> {
    let size = if codec == Codec::Ac3 { 768 } else { 576 };
    stream.chunks_exact(size).map(Bytes::copy_from_slice).collect()
}

#[test]
fn gaps_in_the_audio_become_silence_overlaps_are_cut_and_frames_stay_contiguous() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tone.aac");
    let tone = "aevalsrc='0.5*sin(2*PI*1000*t)':s=48000:d=6";
    ffmpeg(&["-f", "lavfi", "-i", tone, "-ac", "2", "-c:a", "aac", "-f", "adts", path.to_str().unwrap()]);
    let frames = adts_frames(&std::fs::read(&path).unwrap());
    let mut messages = Vec::new();
    for (k, data) in (0i64..).zip(frames) {
        let at = match k {
            // Lost: 100 frames.
            60..160 => continue,
            // A jump forward by half a frame, then jitter below 10 ms that must move nothing.
            160..200 => k * 1_024 + 512,
            200.. => k * 1_024 + 512 + (k % 7 - 3) * 150,
            _ => k * 1_024,
        };
        messages.push(ToWorker::Unit { ch: CH, unit: audio_unit(at, data) });
    }
    // The source is silent at its end: time goes on.
    messages.push(ToWorker::Fill { ch: CH, to: 8 * 48_000, with: Fill::Slate });
    let asc = Bytes::from_static(&[0x11, 0x90]);
    let audio = vec![open_audio(Codec::Aac, 48_000, 2, asc)];
    let (worker, _) = run(Open { video: None, audio, unpaced: true }, messages);
    let frames = worker.encoded(&Output::Audio(0));
    assert!(frames.iter().map(|f| f.at).eq(0..375), "{} frames", frames.len());
    let heard = decode_audio(dir.path(), &frames);
    let loud =
        |from: usize, to: usize| heard[from..to].chunks_exact(48).filter(|c| c.iter().any(|s| s.abs() > 0.2)).count();
    let ms = |from: usize, to: usize| (to - from) / 48;
    assert_eq!(loud(2_048, 60 * 1_024), ms(2_048, 60 * 1_024));
    assert_eq!(loud(62 * 1_024, 160 * 1_024), 0);
    assert!(loud(162 * 1_024, 280 * 1_024) >= ms(162 * 1_024, 280 * 1_024) - 1);
    assert_eq!(loud(290 * 1_024, 370 * 1_024), 0);
}

#[test]
fn audio_that_stops_while_the_picture_goes_on_becomes_silence_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 150, &["-bf", "0", "-g", "50"]);
    let mut open = ladder();
    open.audio = vec![open_audio(Codec::Aac, 48_000, 2, Bytes::from_static(&[0x11, 0x90]))];
    let (worker, _) = run(open, to_units(&pictures));
    let frames = worker.encoded(&Output::Audio(0));
    // Six seconds of picture: audio is never more than a second behind it.
    assert!(frames.iter().map(|f| f.at).eq(0..i64::try_from(frames.len()).unwrap()));
    assert!(frames.len() >= 5 * 48_000 / 1_024 - 2, "{} frames", frames.len());
}

#[test]
fn an_encoder_that_joins_sounds_like_one_that_never_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tone.aac");
    let tone = "aevalsrc='0.5*sin(2*PI*440*t)':s=48000:d=6";
    ffmpeg(&["-f", "lavfi", "-i", tone, "-ac", "2", "-c:a", "aac", "-f", "adts", path.to_str().unwrap()]);
    let units = adts_frames(&std::fs::read(&path).unwrap());
    let play = |start: i64| {
        let asc = Bytes::from_static(&[0x11, 0x90]);
        let mut track = open_audio(Codec::Aac, 48_000, 2, asc);
        track.start = start;
        let messages = (0i64..).zip(&units).skip_while(|(k, _)| *k < start - 23).map(|(k, data)| {
            let mut unit = audio_unit((k - 1) * 1_024, data.clone());
            unit.prime = k < start;
            ToWorker::Unit { ch: CH, unit }
        });
        let (worker, _) = run(Open { video: None, audio: vec![track], unpaced: true }, messages.collect());
        worker.encoded(&Output::Audio(0))
    };
    let (whole, joined) = (play(0), play(100));
    assert_eq!(joined[0].at, 100);
    // A player hears the first encoder up to frame 99, then the second.
    let spliced: Vec<Encoded> = whole[..100].iter().chain(&joined).cloned().collect();
    let (reference, heard) = (decode_audio(dir.path(), &whole), decode_audio(dir.path(), &spliced));
    let window = 99 * 1_024..103 * 1_024;
    let power: f32 = reference[window.clone()].iter().map(|s| s * s).sum();
    let noise: f32 = window.map(|i| (reference[i] - heard[i]).powi(2)).sum();
    let snr = 10.0 * (power / noise.max(1e-9)).log10();
    assert!(snr > 20.0, "the splice is {snr:.1} dB above its error");
}

#[test]
fn a_worker_says_what_it_can_do_refuses_a_second_channel_and_goes_with_its_daemon() {
    let mut worker = Worker::start();
    worker.send(&ToWorker::Probe);
    match worker.wait(|m| matches!(m, FromWorker::Caps(_))) {
        FromWorker::Caps(caps) => {
            assert!(caps.backend.contains("libavcodec") && caps.cpus > 0 && caps.encode_fps_360 > 10, "{caps:?}");
            assert!(caps.sandbox.contains("seccomp"), "{}", caps.sandbox);
        }
        _ => unreachable!(),
    }
    worker.open(ladder());
    worker.opened();
    worker.send(&ToWorker::Open { ch: CH + 1, open: Box::new(ladder()) });
    let refused = worker.wait(|m| matches!(m, FromWorker::Failed { .. }));
    assert!(matches!(refused, FromWorker::Failed { ch, .. } if ch == CH + 1));
    // Idle, it still reports.
    worker.wait(|m| matches!(m, FromWorker::Progress { ch: CH, progress } if progress.rss_bytes > 0));
    assert!(worker.hang_up().success());
}

#[test]
fn what_cannot_be_opened_fails_with_a_sentence_and_the_worker_lives_on() {
    let mut worker = Worker::start();
    let mut open = ladder();
    open.video.as_mut().unwrap().renditions[1].preset = "hasty".to_owned();
    worker.open(open);
    let failed = worker.wait(|m| matches!(m, FromWorker::Failed { .. }));
    assert!(matches!(&failed, FromWorker::Failed { what, .. } if what.contains("enc-108p")), "{failed:?}");
    worker.open(ladder());
    worker.opened();
}

#[test]
fn a_channel_can_be_closed_and_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = video(dir.path(), 30, &["-bf", "2"]);
    let mut worker = Worker::start();
    for round in 1..=3 {
        worker.open(ladder());
        worker.opened();
        worker.feed_and_close(to_units(&pictures));
        assert_eq!(worker.encoded(&Output::Video(0)).len(), 30 * round);
    }
}

#[test]
fn the_test_picture_comes_in_real_time_with_its_counter_and_tone() {
    let mut worker = Worker::start();
    let pattern = Pattern { width: 320, height: 180, cadence: cadence(), bitrate: 600_000, tone_hz: 440 };
    worker.send(&ToWorker::Pattern { ch: CH, pattern });
    let begun = SystemClock::mono();
    worker.wait(|m| matches!(m, FromWorker::Made { unit, .. } if unit.video && unit.pts >= 60 * 3_600));
    let took = SystemClock::mono().since(begun);
    assert!(took > Duration::from_millis(2_200), "60 frames at 25 frames/s in {took:?}");
    worker.send(&ToWorker::Close { ch: CH });
    worker.wait(|m| matches!(m, FromWorker::Closed { ch: CH }));
    let made: Vec<_> = worker
        .log
        .iter()
        .filter_map(|m| match m {
            FromWorker::Made { unit, .. } => Some(unit.clone()),
            _ => None,
        })
        .collect();
    let (video, audio): (Vec<_>, Vec<_>) = made.into_iter().partition(|u| u.video);
    assert!(video.windows(2).all(|w| w[0].pts < w[1].pts && w[1].pts % 3_600 == 0));
    assert!(video.iter().filter(|u| u.random_access).all(|u| u.pts % 180_000 == 0 && u.data[4] & 31 == 7));
    assert!(audio.iter().map(|u| u.pts).eq((0..).step_by(1_920).take(audio.len())));
    assert!(audio.len() >= 2 * 46, "{} audio frames", audio.len());
    let dir = tempfile::tempdir().unwrap();
    let stream: Vec<u8> = video.iter().flat_map(|u| u.data.to_vec()).collect();
    std::fs::write(dir.path().join("made.h264"), stream).unwrap();
    let pictures = decode_planar(&dir.path().join("made.h264"));
    assert_eq!(pictures.len(), video.len() * 320 * 180 * 3 / 2);
    for (picture, unit) in pictures.chunks(320 * 180 * 3 / 2).zip(&video) {
        let (y, chroma) = picture.split_at(320 * 180);
        let (u, v) = chroma.split_at(160 * 90);
        let planes = Planes { y, u, v, stride_y: 320, stride_u: 160, stride_v: 160, width: 320, height: 180 };
        assert_eq!(read_strip(&planes, Strip::Frame).map(i64::from), Some(unit.pts / 3_600));
    }
}

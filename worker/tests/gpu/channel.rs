//! What a channel lives through: IDRs that are asked for, renditions shed and resumed, sources that stall, new rates,
//! successors, B frames and lookahead, neighbours.

use bytes::Bytes;
use rung::media::channel::Slate;
use rung::media::grid::Cadence;
use rung::media::modes::LatencyMode;
use rung::pixels::protocol::{Backend, Fill, FromWorker, Open, ToWorker};
use std::path::Path;

use crate::double::Driver;
use crate::rig::*;
use crate::support::*;

/// An IDR asked for at 33; the highest rendition shed at 50, back at 150; the source stalls behind 69, its picture held
/// and then the slate shown up to 90, while its units come too late; behind 119 the index jumps by 30.
pub(crate) fn life(pictures: &[Coded]) -> Vec<ToWorker> {
    let mut messages = Vec::new();
    for picture in pictures {
        let mut unit = video_unit(picture);
        unit.hidden = (70..90).contains(&picture.n);
        match picture.n {
            3 => messages.push(ToWorker::Idr { ch: CH, at: 33 }),
            10 => messages.push(ToWorker::Shed { ch: CH, rendition: 0, at: 50 }),
            // The lowest is never shed, whoever asks.
            11 => messages.push(ToWorker::Shed { ch: CH, rendition: 3, at: 50 }),
            70 => messages.extend([fill(75, Fill::Hold), fill(80, Fill::Still), fill(90, Fill::Slate)]),
            100 => messages.push(ToWorker::Resume { ch: CH, rendition: 0, at: 130 }),
            120 => messages.push(fill(150, Fill::Nothing)),
            _ => {}
        }
        unit.at += if picture.n < 120 { 0 } else { 30 };
        messages.push(ToWorker::Unit { ch: CH, unit });
    }
    messages
}

/// A ladder with a white square as its slate.
pub(crate) fn lively(dir: &Path, backend: Backend) -> Open {
    let mut open = placed(backend, &SIZES);
    let video = open.video.as_mut().unwrap();
    // Nothing waits inside a decoder when a fill comes: what is shown does not depend on whose decoder it is.
    video.source.reorder = Some(0);
    let file = dir.join("slate.png");
    ffmpeg(&["-f", "lavfi", "-i", "color=white:s=240x240", "-frames:v", "1", file.to_str().unwrap()]);
    video.slate = Slate::Image(Bytes::from(std::fs::read(file).unwrap()));
    open
}

#[test]
fn a_channels_life_is_told_exactly_on_the_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let messages = life(&grey(240, "-c:v libx264 -preset veryfast -bf 0 -g 30"));
    let ran = card.run(lively(dir.path(), Backend::Gpu), messages);
    // Shed, then resumed at the first IDR of the grid behind the jump.
    assert!(ran.shown(0).into_iter().eq((0..50).chain(150..270)), "{:?}", ran.shown(0));
    assert_eq!(ran.keys(0), [0, 33, 150, 200, 250]);
    for rendition in 1..4 {
        assert!(ran.shown(rendition).into_iter().eq((0..120).chain(150..270)));
        assert_eq!(ran.keys(rendition), [0, 33, 50, 100, 150, 200, 250]);
        // A white square with bars: 180 of 320 columns.
        let slate = 16.0 + (235.0 - 16.0) * 180.0 / 320.0;
        ran.assert_luma(dir.path(), rendition, 2.5, |n| match n {
            70..80 => f64::from(luma_of(69)),
            80..90 => slate,
            150.. => f64::from(luma_of(n - 30)),
            _ => f64::from(luma_of(n)),
        });
    }
    // Both stretches play under the one init section.
    assert_eq!(ran.luma(dir.path(), 0).len(), 170);
    assert_eq!((ran.progress.collided, ran.progress.repeated), (0, 20));
    card.end();
}

#[test]
fn a_source_without_a_picture_is_black_at_once_and_a_slate_that_can_not_be_read_is_black_too() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    for (slate, faults) in [(Slate::Black, 0), (Slate::Image(Bytes::from_static(b"\x89PNG no picture")), 1)] {
        for backend in [Backend::Gpu, Backend::GpuDecode] {
            let mut open = placed(backend, &SIZES[2..]);
            let video = open.video.as_mut().unwrap();
            (video.start, video.slate) = (10, slate.clone());
            let ran = card.run(open, vec![fill(70, Fill::Hold)]);
            ran.assert_whole(10..70, &[10, 50]);
            ran.assert_luma(dir.path(), 1, 1.5, |_| 16.0);
            assert_eq!(ran.faults.len(), faults);
        }
    }
    card.end();
}

#[test]
fn a_successor_goes_on_in_the_middle_under_the_same_init_section() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = grey(130, "-c:v libx264 -preset veryfast -bf 3 -g 100");
    let first = Card::new();
    let inits = first.run(placed(Backend::Gpu, &SIZES), to_units(&pictures[..20])).inits;
    first.end();
    let card = Card::new();
    for mode in [LatencyMode::Ultra, LatencyMode::Low] {
        let mut open = placed(Backend::Gpu, &SIZES);
        open.video.as_mut().unwrap().start = 60;
        in_mode(&mut open, mode);
        let messages = pictures.iter().map(|p| {
            let mut unit = video_unit(p);
            unit.prime = unit.at < 60;
            ToWorker::Unit { ch: CH, unit }
        });
        let ran = card.run(open, messages.collect());
        assert_eq!(ran.inits == inits, mode == LatencyMode::Ultra, "another mode is another init section");
        ran.assert_whole(60..130, &[60, 100]);
        ran.assert_luma(dir.path(), 3, 2.5, |n| f64::from(luma_of(n)));
    }
    card.end();
}

fn in_mode(open: &mut Open, mode: LatencyMode) {
    let params = mode.params();
    open.video.as_mut().unwrap().cadence = Cadence::for_rate(25.0, mode);
    for rendition in renditions(open) {
        (rendition.bframes, rendition.lookahead) = (params.bframes, params.lookahead);
        rendition.vbv_ms = params.vbv_ms;
    }
    if mode == LatencyMode::Ultra {
        // What `rendition` gives.
        renditions(open).iter_mut().for_each(|r| (r.bframes, r.lookahead, r.vbv_ms) = (0, 5, 500));
    }
}

#[test]
fn b_frames_and_lookahead_lose_no_frame_and_move_no_idr() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let pictures = grey(130, "-c:v libx264 -preset veryfast -bf 3 -g 30");
    for (bframes, lookahead) in [(2, 10), (3, 20)] {
        let mut open = placed(Backend::Gpu, &SIZES);
        renditions(&mut open).iter_mut().for_each(|r| (r.bframes, r.lookahead) = (bframes, lookahead));
        let mut messages = to_units(&pictures);
        messages.insert(3, ToWorker::Idr { ch: CH, at: 33 });
        messages.insert(60, ToWorker::Shed { ch: CH, rendition: 1, at: 70 });
        messages.insert(80, ToWorker::Resume { ch: CH, rendition: 1, at: 100 });
        let ran = card.run(open, messages);
        assert!(ran.frames[0].windows(2).any(|two| two[0].at > two[1].at), "B frames come out of order");
        for rendition in [0, 2, 3] {
            assert!(ran.shown(rendition).into_iter().eq(0..130));
            assert_eq!(ran.keys(rendition), [0, 33, 50, 100]);
        }
        assert!(ran.shown(1).into_iter().eq((0..70).chain(100..130)), "{:?}", ran.shown(1));
        assert_eq!(ran.keys(1), [0, 33, 50, 100]);
        for rendition in [1, 3] {
            ran.assert_luma(dir.path(), rendition, 2.5, |n| f64::from(luma_of(n)));
        }
    }
    card.end();
}

#[test]
fn a_new_rate_is_seen_in_the_bytes_without_an_idr_or_a_gap() {
    let noise = "nullsrc=s=320x180:r=25,geq=random(1)*200:128:128,format=yuv420p";
    let pictures = clip("noise", &format!("{noise} -frames:v 200 -c:v libx264 -preset veryfast -g 50 -bf 0"));
    let mut messages = to_units(&pictures);
    messages.insert(100, ToWorker::Retune { ch: CH, rendition: 0, bitrate: 100_000 });
    let card = Card::new();
    for backend in [Backend::Gpu, Backend::GpuDecode] {
        let ran = card.run(placed(backend, &SIZES[..2]), messages.clone());
        ran.assert_whole(0..200, &[0, 50, 100, 150]);
        let bytes = |rendition: usize, from: i64, to: i64| -> usize {
            ran.frames[rendition].iter().filter(|f| (from..to).contains(&f.at)).map(|f| f.data.len()).sum()
        };
        let (before, behind) = (bytes(0, 50, 100), bytes(0, 150, 200));
        assert!(behind * 2 < before, "{backend:?}: {before} then {behind}");
        assert!(bytes(1, 150, 200) * 2 > bytes(1, 50, 100), "the other rendition keeps its rate");
    }
    card.end();
}

#[test]
fn a_card_that_can_not_change_a_running_rate_keeps_the_channel_and_its_rate() {
    let card = Card::with(Driver::new().setting("nvenc.caps.NV_ENC_CAPS_SUPPORT_DYN_BITRATE_CHANGE", 0));
    let mut messages = to_units(&grey(40, "-c:v libx264 -preset veryfast -bf 0 -g 25"));
    messages.insert(10, ToWorker::Retune { ch: CH, rendition: 0, bitrate: 100_000 });
    let ran = card.run(placed(Backend::Gpu, &SIZES[2..]), messages);
    ran.assert_whole(0..40, &[0]);
    card.end();
}

#[test]
fn renditions_that_can_not_keep_up_are_shed_to_the_grid_and_the_lowest_stays_whole() {
    let card = Card::with(Driver::new().fault("encode.encode sleep=30"));
    let mut open = placed(Backend::Gpu, &SIZES[2..]);
    open.unpaced = false;
    let (seat, worker) = card.join();
    let (log, ran) = play_logged(worker, open, to_units(&grey(120, "-c:v libx264 -preset veryfast -bf 0 -g 50")));
    card.has_left(seat);
    let late: Vec<(i64, i64)> = log
        .iter()
        .filter_map(|m| match m {
            FromWorker::Late { rendition: 0, at, resumes, .. } => Some((*at, *resumes)),
            FromWorker::Late { .. } => panic!("the lowest is never late"),
            _ => None,
        })
        .collect();
    let missing: Vec<i64> = late.iter().flat_map(|(at, resumes)| *at..(*resumes).min(120)).collect();
    assert!(late.iter().all(|(_, resumes)| resumes % 50 == 0));
    assert!(ran.shown(0).into_iter().eq((0..120).filter(|n| !missing.contains(n))), "{late:?}");
    assert!(ran.keys(0).iter().all(|n| n % 50 == 0));
    assert!(ran.shown(1).into_iter().eq(0..120));
    card.end();
}

fn play_logged(mut worker: Worker, open: Open, messages: Vec<ToWorker>) -> (Vec<FromWorker>, Ran) {
    let sizes = open.video.as_ref().unwrap().renditions.iter().map(|r| (r.width, r.height)).collect();
    worker.open(open);
    let (inits, _) = worker.opened();
    worker.feed_and_close(messages);
    let ran = ran(&worker, inits, sizes);
    (worker.log.clone(), ran)
}

#[test]
fn eight_channels_on_one_gpu_each_show_their_own_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = grey(120, "-c:v libx264 -preset veryfast -bf 0 -g 10 -keyint_min 10 -sc_threshold 0");
    let card = Card::new();
    let backend = |k: usize| if k % 4 == 3 { Backend::GpuDecode } else { Backend::Gpu };
    // Channel k begins with picture 10 k.
    let mut all: Vec<(u32, Worker, Vec<_>)> = (0..8)
        .map(|k| {
            let (seat, mut worker) = card.join();
            worker.open(placed(backend(k), &SIZES[2..]));
            let (inits, _) = worker.opened();
            (seat, worker, inits)
        })
        .collect();
    let feeders: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(k, (_, worker, _))| {
            let own = pictures[10 * k..10 * k + 50].iter().map(|p| Coded { n: p.n - 10 * k as i64, ..p.clone() });
            let own: Vec<Coded> = own.collect();
            worker.feed(to_units(&own))
        })
        .collect();
    for ((k, (_, worker, inits)), feeder) in all.iter_mut().enumerate().zip(feeders) {
        // Its end comes behind what it was fed.
        feeder.join().unwrap();
        worker.feed_and_close(Vec::new());
        let ran = ran(worker, inits.clone(), SIZES[2..].to_vec());
        ran.assert_whole(0..50, &[0]);
        ran.assert_luma(dir.path(), 1, 2.0, |n| f64::from(luma_of(n + 10 * k as i64)));
        let copies = if backend(k) == Backend::Gpu { 0 } else { 100 };
        assert_eq!(ran.progress.copies, copies, "channel {k}");
    }
    for (seat, worker, _) in all {
        drop(worker);
        card.has_left(seat);
    }
    card.end();
}

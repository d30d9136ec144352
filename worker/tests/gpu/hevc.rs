//! Ladders that hold HEVC, alone or beside H.264, on every backend: the same frames, the same IDRs, the same pictures.

use rung::bitstream::h265::{self, Sps};
use rung::media::channel::VideoCodec::{self, H264, Hevc};
use rung::media::grid::Cadence;
use rung::media::modes::LatencyMode;
use rung::media::track::Colour;
use rung::pixels::protocol::{Backend, FromWorker, Open, ToWorker};

use crate::channel::{life, lively};
use crate::double::Driver;
use crate::rig::*;
use crate::support::*;

const BACKENDS: [Backend; 3] = [Backend::Gpu, Backend::GpuDecode, Backend::Software];

/// The codecs of `open`'s renditions.
fn coded(mut open: Open, codecs: &[VideoCodec]) -> Open {
    let all = renditions(&mut open);
    assert_eq!(all.len(), codecs.len());
    for (rendition, codec) in all.iter_mut().zip(codecs) {
        rendition.codec = *codec;
        if *codec == Hevc {
            rendition.name += "-hevc";
            rendition.preset = "ultrafast".to_owned();
        }
    }
    open
}

fn run_on(card: &Card, mut open: Open, backend: Backend, messages: Vec<ToWorker>) -> Ran {
    open.video.as_mut().unwrap().backend = backend;
    if backend == Backend::Software { software(open, messages) } else { card.run(open, messages) }
}

/// Samples hold slices of the codec and no parameter sets; sync samples are IDR pictures, and nothing else is.
#[track_caller]
fn assert_samples(ran: &Ran, rendition: usize, codec: VideoCodec) {
    assert_eq!(ran.inits[rendition].vps.is_some(), codec == Hevc, "rendition {rendition}");
    for frame in &ran.frames[rendition] {
        let units = nal_units(&frame.data);
        let kinds: Vec<u8> = match codec {
            H264 => units.iter().map(|unit| unit[0] & 31).collect(),
            Hevc => units.iter().map(|unit| h265::header(unit).unwrap().0).collect(),
        };
        let (idr, kept) = match codec {
            H264 => (kinds.contains(&5), kinds.iter().all(|kind| matches!(kind, 1 | 5 | 6))),
            // No CRA, no leading pictures: a GOP refers to nothing before it.
            Hevc => (
                kinds.iter().any(|kind| h265::is_idr(*kind)),
                kinds.iter().all(|kind| matches!(kind, 0 | 1 | 19 | 20 | 39 | 40)),
            ),
        };
        assert!(kept && idr == frame.sync, "rendition {rendition}, frame {}: {kinds:?}", frame.at);
    }
}

#[test]
fn a_mixed_ladders_life_is_told_exactly_on_every_backend() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let messages = life(&grey(240, "-c:v libx264 -preset veryfast -bf 0 -g 30"));
    let codecs = [Hevc, H264, Hevc, H264];
    for backend in BACKENDS {
        let ran = run_on(&card, coded(lively(dir.path(), backend), &codecs), backend, messages.clone());
        // Shed, then resumed at the first IDR of the grid behind the jump.
        assert!(ran.shown(0).into_iter().eq((0..50).chain(150..270)), "{backend:?}: {:?}", ran.shown(0));
        assert_eq!(ran.keys(0), [0, 33, 150, 200, 250], "{backend:?}");
        let slate = 16.0 + (235.0 - 16.0) * 180.0 / 320.0;
        for (rendition, codec) in codecs.into_iter().enumerate() {
            assert_samples(&ran, rendition, codec);
            if rendition > 0 {
                assert!(ran.shown(rendition).into_iter().eq((0..120).chain(150..270)), "{backend:?} {rendition}");
                assert_eq!(ran.keys(rendition), [0, 33, 50, 100, 150, 200, 250], "{backend:?} {rendition}");
            }
            ran.assert_luma(dir.path(), rendition, 2.5, |n| match n {
                70..80 => f64::from(luma_of(69)),
                80..90 => slate,
                150.. => f64::from(luma_of(n - 30)),
                _ => f64::from(luma_of(n)),
            });
        }
    }
    card.end();
}

#[test]
fn the_lowest_of_h264_stays_whole_although_a_smaller_one_of_hevc_is_there() {
    let card = Card::new();
    let mut messages = to_units(&grey(120, "-c:v libx264 -preset veryfast -bf 0 -g 30"));
    messages.splice(3..3, [2, 3].map(|rendition| ToWorker::Shed { ch: CH, rendition, at: 50 }));
    for backend in BACKENDS {
        let ran = run_on(&card, coded(placed(backend, &SIZES), &[H264, Hevc, H264, Hevc]), backend, messages.clone());
        assert!(ran.shown(2).into_iter().eq(0..120), "{backend:?}: 166x94 in H.264 can not be shed");
        assert!(ran.shown(3).into_iter().eq(0..50), "{backend:?}: {:?}", ran.shown(3));
    }
    card.end();
}

#[test]
fn b_frames_and_lookahead_in_hevc_lose_no_frame_and_move_no_idr() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let pictures = grey(130, "-c:v libx264 -preset veryfast -bf 3 -g 30");
    let mut messages = to_units(&pictures);
    messages.insert(3, ToWorker::Idr { ch: CH, at: 33 });
    messages.insert(60, ToWorker::Shed { ch: CH, rendition: 0, at: 70 });
    messages.insert(80, ToWorker::Resume { ch: CH, rendition: 0, at: 100 });
    for backend in BACKENDS {
        for (bframes, lookahead) in [(3, 10), (3, 20)] {
            let mut open = coded(placed(backend, &SIZES[1..]), &[Hevc; 3]);
            renditions(&mut open).iter_mut().for_each(|r| (r.bframes, r.lookahead) = (bframes, lookahead));
            // Rows in parallel, as large pictures have them.
            renditions(&mut open)[1].threads = 3;
            let ran = run_on(&card, open, backend, messages.clone());
            assert!(ran.frames[1].windows(2).any(|two| two[0].at > two[1].at), "B frames come out of order");
            for rendition in [1, 2] {
                assert!(ran.shown(rendition).into_iter().eq(0..130), "{backend:?} {:?}", ran.shown(rendition));
                assert_eq!(ran.keys(rendition), [0, 33, 50, 100]);
                ran.assert_luma(dir.path(), rendition, 2.5, |n| f64::from(luma_of(n)));
                assert_samples(&ran, rendition, Hevc);
            }
            assert!(ran.shown(0).into_iter().eq((0..70).chain(100..130)), "{backend:?} {:?}", ran.shown(0));
            assert_eq!(ran.keys(0), [0, 33, 50, 100]);
        }
    }
    card.end();
}

#[test]
fn a_new_rate_of_hevc_is_seen_in_the_bytes_without_an_idr_or_a_gap() {
    let noise = "nullsrc=s=320x180:r=25,geq=random(1)*200:128:128,format=yuv420p";
    let pictures = clip("noise", &format!("{noise} -frames:v 200 -c:v libx264 -preset veryfast -g 50 -bf 0"));
    let mut messages = to_units(&pictures);
    messages.insert(90, ToWorker::Retune { ch: CH, rendition: 0, bitrate: 100_000 });
    // Far above what the level of these parameter sets allows.
    messages.insert(160, ToWorker::Retune { ch: CH, rendition: 1, bitrate: 60_000_000 });
    let card = Card::new();
    for backend in BACKENDS {
        let ran = run_on(&card, coded(placed(backend, &SIZES[..3]), &[Hevc; 3]), backend, messages.clone());
        ran.assert_whole(0..200, &[0, 50, 100, 150]);
        let bytes = |rendition: usize, from: i64, to: i64| -> usize {
            ran.frames[rendition].iter().filter(|f| (from..to).contains(&f.at)).map(|f| f.data.len()).sum()
        };
        let (before, behind) = (bytes(0, 50, 80), bytes(0, 170, 200));
        assert!(behind * 2 < before, "{backend:?}: {before} then {behind}");
        assert!(bytes(2, 170, 200) * 2 > bytes(2, 50, 80), "another rendition keeps its rate");
    }
    card.end();
}

#[test]
fn a_successor_goes_on_under_the_same_hevc_parameter_sets_and_these_say_what_is_coded() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = grey(130, "-c:v libx264 -preset veryfast -bf 3 -g 100");
    let colour = Colour { primaries: 9, transfer: 18, matrix: 9, full_range: false };
    let asked = |backend, start, mode: LatencyMode| {
        let mut open = coded(placed(backend, &SIZES[1..]), &[Hevc, H264, Hevc]);
        let params = mode.params();
        for rendition in renditions(&mut open) {
            (rendition.bframes, rendition.lookahead) = (params.bframes, params.lookahead);
            (rendition.vbv_ms, rendition.colour, rendition.sar) = (params.vbv_ms, colour, (4, 3));
        }
        let video = open.video.as_mut().unwrap();
        (video.start, video.cadence) = (start, Cadence::for_rate(25.0, mode));
        open
    };
    let card = Card::new();
    for backend in BACKENDS {
        for mode in [LatencyMode::Ultra, LatencyMode::Low] {
            let first = run_on(&card, asked(backend, 0, mode), backend, to_units(&pictures[..20]));
            let messages = pictures.iter().map(|p| {
                let mut unit = video_unit(p);
                unit.prime = unit.at < 60;
                ToWorker::Unit { ch: CH, unit }
            });
            let ran = run_on(&card, asked(backend, 60, mode), backend, messages.collect());
            assert_eq!(ran.inits, first.inits, "{backend:?} {mode:?}");
            ran.assert_whole(60..130, &[60, 100]);
            ran.assert_luma(dir.path(), 2, 2.5, |n| f64::from(luma_of(n)));
            for (rendition, (width, height)) in [(0, SIZES[1]), (2, SIZES[3])] {
                let sps = Sps::parse(&ran.inits[rendition].sps).unwrap();
                assert_eq!((sps.width, sps.height, sps.sar, sps.colour), (width, height, (4, 3), colour));
                assert_eq!((sps.profile.idc, sps.profile.high_tier, sps.bit_depth), (1, false, 8));
                assert_eq!((sps.chroma_format, sps.rate.map(|rate| rate.hz()), sps.fields), (1, Some(25.0), false));
                assert_eq!(sps.reorder > 0, mode == LatencyMode::Low, "{backend:?}: {}", sps.reorder);
            }
        }
    }
    card.end();
}

/// As from x264, the first frame comes out when the lookahead is full, give or take a frame.
#[test]
fn an_hevc_encoder_on_the_cpu_holds_back_no_more_than_its_settings_say() {
    let pictures = grey(60, "-c:v libx264 -preset veryfast -bf 0 -g 30");
    for (bframes, lookahead, threads) in [(0, 0, 1), (0, 5, 1), (0, 5, 4), (3, 10, 1), (3, 20, 2)] {
        let mut open = coded(placed(Backend::Software, &[(320, 180)]), &[Hevc]);
        // Otherwise the decoder waits for pictures to reorder.
        open.video.as_mut().unwrap().source.reorder = Some(0);
        let rendition = &mut renditions(&mut open)[0];
        (rendition.bframes, rendition.lookahead, rendition.threads) = (bframes, lookahead, threads);
        let mut worker = Worker::start();
        worker.open(open);
        worker.opened();
        worker.feed(to_units(&pictures[..(lookahead + 2) as usize])).join().unwrap();
        worker.wait(|message| matches!(message, FromWorker::Encoded { frame, .. } if frame.at == 0));
    }
}

#[test]
fn a_card_that_makes_no_hevc_fails_the_channel_and_says_so() {
    let card = Card::with(Driver::new().setting("nvenc.hevc", 0));
    let (seat, mut worker) = card.join();
    worker.open(coded(placed(Backend::Gpu, &SIZES[..2]), &[H264, Hevc]));
    let (what, _) = failure(&mut worker);
    assert!(what.contains("HEVC") && what.contains("144p-hevc"), "{what}");
    drop(worker);
    card.has_left(seat);
    // What the CPU encodes asks nothing of the card.
    let messages = to_units(&grey(30, "-c:v libx264 -preset veryfast -bf 0 -g 30"));
    card.run(coded(placed(Backend::GpuDecode, &SIZES[..2]), &[H264, Hevc]), messages).assert_whole(0..30, &[0]);
    card.end();
}

/// x265's own log, and what libnuma says on standard error where the sandbox refuses it something.
#[test]
fn threads_inside_the_encoder_say_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let messages = to_units(&grey(30, "-c:v libx264 -preset veryfast -bf 0 -g 30"));
    for backend in [Backend::Software, Backend::GpuDecode] {
        let file = dir.path().join(backend.name());
        let said = std::fs::File::create(&file).unwrap();
        let mut open = coded(placed(backend, &SIZES[..1]), &[Hevc]);
        renditions(&mut open)[0].threads = 4;
        if backend == Backend::Software {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let child = spawn_in(&[], theirs.into(), |command| _ = command.stderr(said));
            play(Worker::over(Some(child), ours), open, messages.clone()).assert_whole(0..30, &[0]);
        } else {
            let card = Card::told(|command| _ = command.stderr(said));
            card.run(open, messages.clone()).assert_whole(0..30, &[0]);
            card.end();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "", "{backend:?}");
    }
}

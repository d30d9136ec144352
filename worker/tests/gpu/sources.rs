//! Kinds of sources, and what goes wrong with them: depth, fields, other sizes in the middle, damage.

use bytes::Bytes;
use rung::media::grid::Cadence;
use rung::media::modes::LatencyMode;
use rung::media::track::Codec;
use rung::pixels::protocol::{Backend, Deinterlace, Lost, Open};

use crate::rig::*;
use crate::support::*;

const SMALL: &[(u32, u32)] = &[SIZES[2], SIZES[3]];

fn of(codec: Codec, bits: u8) -> Open {
    let mut open = placed(Backend::Gpu, SMALL);
    let source = &mut open.video.as_mut().unwrap().source;
    (source.codec, source.bit_depth) = (codec, bits);
    open
}

#[test]
fn every_codec_and_depth_that_a_card_takes_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let wide = format!("{GREY},format=yuv420p,format=yuv420p10le -frames:v 40 -c:v libx265 -preset ultrafast");
    let sources = [
        (Codec::H265, 8, grey(40, "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=25")),
        (Codec::H265, 10, clip("wide", &format!("{wide} -x265-params log-level=none:keyint=25:bframes=3"))),
        (Codec::Mpeg2Video, 8, grey(40, "-c:v mpeg2video -bf 2 -g 12 -b:v 2M")),
    ];
    for (codec, bits, pictures) in sources {
        let ran = card.run(of(codec, bits), to_units(&pictures));
        ran.assert_whole(0..40, &[0]);
        assert_eq!((ran.progress.copies, ran.faults.len()), (0, 0), "{codec:?} {bits} bit: {:?}", ran.faults);
        // The 10 bit encoder's grey lies within a step of the 8 bit one's.
        ran.assert_luma(dir.path(), 1, 2.5, |n| f64::from(luma_of(n)));
    }
    card.end();
}

#[test]
fn interlaced_pictures_become_progressive_ones_one_a_frame_or_one_a_field() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let h264 = "-c:v libx264 -preset veryfast -g 25 -bf 0 -flags +ilme+ildct -x264-params tff=1";
    let mpeg2 = "-c:v mpeg2video -g 12 -bf 2 -b:v 2M -flags +ilme+ildct -top 1";
    for (codec, coding) in [(Codec::H264, h264), (Codec::Mpeg2Video, mpeg2)] {
        let pictures = grey(40, coding);
        for deinterlace in [Deinterlace::Frame, Deinterlace::Field] {
            let mut open = of(codec, 8);
            let video = open.video.as_mut().unwrap();
            video.source.interlaced = true;
            video.deinterlace = deinterlace;
            let each = if deinterlace == Deinterlace::Field { 2 } else { 1 };
            video.cadence = Cadence::for_rate(25.0 * each as f64, LatencyMode::Ultra);
            let moved: Vec<Coded> = pictures.iter().map(|p| Coded { n: p.n * each, ..p.clone() }).collect();
            let ran = card.run(open, to_units(&moved));
            ran.assert_whole(0..40 * each, &[0]);
            assert_eq!(ran.progress.collided, 0);
            // What moves from field to field is blended with its neighbours, five steps away.
            ran.assert_luma(dir.path(), 1, 7.0, |n| match n / each {
                // From white to black, in 40 frames.
                0 => f64::from(luma_of(0)),
                at => f64::from(luma_of(at)),
            });
        }
    }
    card.end();
}

#[test]
fn a_source_that_changes_its_size_goes_on_without_an_idr() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let mut pictures = grey(50, "-c:v libx264 -preset veryfast -bf 2 -g 25");
    let larger = "nullsrc=s=640x360:r=25,geq=lum='20+mod(N,40)*5':cb=128:cr=128,format=yuv420p";
    let larger = clip("larger", &format!("{larger} -frames:v 50 -c:v libx264 -preset veryfast -g 25 -bf 0"));
    pictures.extend(larger.into_iter().map(|p| Coded { n: p.n + 50, ..p }));
    let smaller: Vec<Coded> =
        pictures[..50].iter().filter(|p| p.n < 30).map(|p| Coded { n: p.n + 100, ..p.clone() }).collect();
    pictures.extend(smaller);
    for backend in [Backend::Gpu, Backend::GpuDecode] {
        let ran = card.run(placed(backend, &SIZES), to_units(&pictures));
        ran.assert_whole(0..130, &[0, 50, 100]);
        ran.assert_luma(dir.path(), 0, 2.5, |n| f64::from(luma_of(n % 50)));
    }
    assert_eq!(card.driver.count("decoders created"), 6);
    card.end();
}

#[test]
fn damage_is_told_and_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let clean = grey(100, "-c:v libx264 -preset veryfast -bf 2 -g 25");
    for seed in 1..=4u64 {
        let mut pictures = clean.clone();
        let mut state = seed;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for picture in &mut pictures[20..70] {
            if random(3) > 0 {
                continue;
            }
            let mut bytes = picture.data.to_vec();
            match random(4) {
                0 => bytes.truncate(random(bytes.len()).max(1)),
                1 => bytes = (0..500).map(|_| random(256) as u8).collect(),
                _ => (0..20).for_each(|_| {
                    let at = random(bytes.len());
                    bytes[at] = random(256) as u8;
                }),
            }
            picture.data = Bytes::from(bytes);
        }
        let ran = card.run(placed(Backend::Gpu, SMALL), to_units(&pictures));
        ran.assert_whole(0..100, &[0, 50]);
        assert!(!ran.faults.is_empty(), "seed {seed}: damage is told");
        // Healthy again behind it.
        let luma = ran.luma(dir.path(), 1);
        assert!((76..100).all(|n| (luma[n] - f64::from(luma_of(n as i64))).abs() < 2.5), "seed {seed}: {luma:?}");
    }
    card.end();
}

#[test]
fn nothing_but_noise_shows_nothing_and_ends_nothing() {
    let card = Card::new();
    let mut state = 5u64;
    let pictures: Vec<Coded> = (0..200)
        .map(|n| {
            let byte = |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            Coded { n, key: n % 25 == 0, data: (0..300).map(byte).collect() }
        })
        .collect();
    for codec in [Codec::H264, Codec::H265, Codec::Mpeg2Video] {
        let ran = card.run(of(codec, 8), to_units(&pictures));
        assert_eq!(ran.progress.decoded, 0, "{codec:?}");
    }
    card.end();
}

#[test]
fn a_stream_that_the_card_does_not_decode_is_named() {
    let card = Card::new();
    let kinds = [
        (Codec::H264, "yuv420p10le -c:v libx264 -profile:v high10", "H.264 4:2:0 10 bit 320x192"),
        (Codec::H264, "yuv422p -c:v libx264 -profile:v high422", "H.264 4:2:2 8 bit 320x192"),
        (Codec::H265, "yuv422p -c:v libx265 -x265-params log-level=none", "HEVC 4:2:2 8 bit"),
    ];
    for (codec, coding, named) in kinds {
        let pictures = clip("refused", &format!("{GREY},format={coding} -preset ultrafast -frames:v 10"));
        let (seat, mut worker) = card.join();
        worker.open(of(codec, 8));
        worker.opened();
        worker.feed(to_units(&pictures)).join().unwrap();
        let (what, lost) = failure(&mut worker);
        assert!(what.contains("does not take") && what.contains(named) && lost == Lost::Channel, "{what}");
        drop(worker);
        card.has_left(seat);
    }
    card.end();
}

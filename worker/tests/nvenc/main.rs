//! NVENC through the driver's double: what comes out is decoded by ffmpeg and looked at. Each claim plays in a process of
//! its own, whose driver is the double; what that process left alive or which contract it broke is counted behind it.

#[path = "../support/double.rs"]
mod double;
mod rig;

use double::Driver;
use rig::{Rig, ask, fed, frames, hex, picture, psnr, rendition, syncs};
use rung::media::track::Colour;
use rung::pixels::protocol::OpenRendition;
use rung::time::SystemClock;
use rung_worker::encode::nal::{Syntax, parameter_sets, units};
use rung_worker::gpu::Depth;
use rung_worker::gpu::cuda::{Event, Stream, Timing};
use rung_worker::gpu::error::Harm;
use rung_worker::gpu::load;
use rung_worker::gpu::nvenc::{Api, Codec, Coded, Encoder, Format, Surface};
use rung_worker::gpu::watch::Watch;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

const H264: Format = Format { codec: Codec::H264, depth: Depth::Eight };
const HEVC: Format = Format { codec: Codec::Hevc, depth: Depth::Eight };
const HEVC_TEN: Format = Format { codec: Codec::Hevc, depth: Depth::Ten };

/// Plays a claim in a process of its own; nothing is left behind and no contract is broken.
#[track_caller]
fn clean(driver: &Driver, claim: &str) -> String {
    let said = driver.pass(claim);
    driver.assert_clean();
    assert_eq!(driver.count("copies dtoh"), 0, "no picture leaves the card");
    said
}

#[test]
fn a_ladder_has_its_idrs_at_the_same_frames_and_nowhere_else() {
    let driver = Driver::new();
    clean(&driver, "in_ladder");
    assert_eq!(driver.count("frames encoded"), 3 * 60);
    assert_eq!(driver.count("IDRs encoded"), 3 * 3);
}

#[test]
#[ignore = "played by another test"]
fn in_ladder() {
    const SIZES: [(u32, u32); 3] = [(640, 360), (426, 240), (256, 144)];
    let rig = Rig::new();
    let (to_feeder, pools) = sync_channel(SIZES.len());
    let coded = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SIZES.len())
            .map(|i| {
                let (size, to_feeder, rig) = (SIZES[i], to_feeder.clone(), &rig);
                let (feed, pictures) = sync_channel::<(Surface, i64)>(8);
                scope.spawn(move || {
                    let mut encoder = rig.open(&rendition(size), H264);
                    to_feeder.send((i, encoder.inputs().clone(), feed)).unwrap();
                    let ready = rig.happened();
                    let mut out = Vec::new();
                    for (surface, n) in pictures {
                        encoder.push(&surface, n, n == 25 || n == 50, &ready).unwrap();
                        out.extend(encoder.pull(0).unwrap());
                        assert_eq!(encoder.inflight(), 0, "low latency keeps nothing back");
                    }
                    encoder.drain().unwrap();
                    assert_eq!(encoder.pull(0).unwrap(), None);
                    out
                })
            })
            .collect();
        drop(to_feeder);
        let mut feeds: Vec<_> = pools.iter().take(SIZES.len()).collect();
        feeds.sort_by_key(|(i, ..)| *i);
        for n in 0..60 {
            for (_, pool, feed) in &feeds {
                let surface = pool.wait_take().expect("the encoder lives");
                rig.write(&surface, n);
                assert!(pool.free() < pool.size());
                feed.send((surface, n)).unwrap();
            }
        }
        drop(feeds);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for (coded, size) in coded.iter().zip(SIZES) {
        assert_eq!(coded.iter().map(|c| c.pts).collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
        assert_eq!(syncs(coded), [0, 25, 50]);
        let decoded = frames(coded, H264, size);
        assert_eq!(decoded.len(), 60);
        for (n, frame) in decoded.iter().enumerate() {
            let found = psnr(frame, &picture(size, Depth::Eight, n as i64), size, Depth::Eight);
            assert!(found > 34.0, "frame {n} of {size:?}: {found:.1} dB");
        }
    }
}

#[test]
fn parameter_sets_follow_from_the_settings_alone() {
    let driver = Driver::new();
    let headers = |said: String| {
        let lines: Vec<_> =
            said.lines().filter_map(|line| line.split_once("headers ")).map(|(_, hex)| hex.to_owned()).collect();
        assert_eq!(lines.len(), 3, "{said}");
        lines
    };
    assert_eq!(headers(clean(&driver, "in_headers")), headers(clean(&driver, "in_headers")), "two processes");
    // The test of the test: a session that writes others is found out.
    let other = Driver::new().fault("encode.open other_headers after=1 times=1");
    let out = other.command("in_headers").output().unwrap();
    assert!(!out.status.success(), "other headers of the second session are seen");
    other.assert_clean();
}

#[test]
#[ignore = "played by another test"]
fn in_headers() {
    let rig = Rig::new();
    for (format, syntax) in [(H264, Syntax::H264), (HEVC, Syntax::Hevc), (HEVC_TEN, Syntax::Hevc)] {
        let asked = rendition((256, 144));
        let mut encoder = rig.open(&asked, format);
        let headers = encoder.headers().to_vec();
        let sets = parameter_sets(syntax, &headers).expect("all kinds are there");
        let mut coded = Vec::new();
        fed(&rig, &mut encoder, 0..6, &[3], &mut coded);
        encoder.retune(300_000).unwrap();
        fed(&rig, &mut encoder, 6..12, &[9], &mut coded);
        ask(&mut encoder, &mut coded);
        assert_eq!(syncs(&coded), [0, 3, 9]);
        for frame in coded.iter().filter(|frame| frame.sync) {
            let own = parameter_sets(syntax, &frame.data);
            assert_eq!(own.as_ref(), Some(&sets), "an IDR brings the headers, the same ones after a new rate");
        }
        let delimiter = if syntax == Syntax::H264 { 9 } else { 35 };
        let begins = |frame: &Coded| units(&frame.data).next().map(|unit| syntax.kind(unit));
        assert!(coded.iter().all(|frame| begins(frame) == Some(delimiter)), "a delimiter opens each access unit");
        drop(encoder);
        let again = rig.open(&asked, format);
        assert_eq!(again.headers(), headers, "opened again");
        println!("headers {}", hex(&headers));
    }
}

#[test]
fn a_new_rate_needs_no_idr_and_is_met() {
    clean(&Driver::new(), "in_retune");
    let driver = Driver::new().fault("encode.reconfigure ignore_rate");
    let out = driver.command("in_retune").output().unwrap();
    assert!(!out.status.success(), "a rate that was ignored is seen");
    driver.assert_clean();
}

#[test]
#[ignore = "played by another test"]
fn in_retune() {
    let rig = Rig::new();
    let asked = OpenRendition { bitrate: 2_000_000, ..rendition((256, 144)) };
    let mut encoder = rig.open(&asked, H264);
    let mut coded = Vec::new();
    rig.noisy(&mut encoder, 0..60, &mut coded);
    encoder.retune(500_000).unwrap();
    assert_eq!(encoder.settings().bitrate, 500_000);
    rig.noisy(&mut encoder, 60..150, &mut coded);
    encoder.retune(2_000_000).unwrap();
    rig.noisy(&mut encoder, 150..240, &mut coded);
    ask(&mut encoder, &mut coded);
    assert_eq!(syncs(&coded), [0]);
    let rate = |range: std::ops::Range<usize>| {
        let bytes: usize = coded[range.clone()].iter().map(|frame| frame.data.len()).sum();
        bytes as f64 * 8.0 * 30.0 / range.len() as f64
    };
    let (full, quarter, again) = (rate(30..60), rate(100..150), rate(190..240));
    assert!((0.5..1.5).contains(&(full / 2e6)), "{full:.0} b/s of 2 Mb/s");
    assert!((0.5..1.5).contains(&(quarter / 5e5)), "{quarter:.0} b/s of 500 kb/s");
    assert!((0.5..1.5).contains(&(again / 2e6)), "{again:.0} b/s of 2 Mb/s");
}

#[test]
fn a_card_that_can_not_retune_says_so_and_goes_on() {
    let fixed = Driver::new().setting("nvenc.caps.NV_ENC_CAPS_SUPPORT_DYN_BITRATE_CHANGE", 0);
    clean(&fixed, "in_no_retune");
    clean(&Driver::new().fault("encode.reconfigure code=12"), "in_no_retune");
}

#[test]
#[ignore = "played by another test"]
fn in_no_retune() {
    let rig = Rig::new();
    let mut encoder = rig.open(&rendition((256, 144)), H264);
    let mut coded = Vec::new();
    fed(&rig, &mut encoder, 0..3, &[], &mut coded);
    let error = encoder.retune(200_000).unwrap_err();
    assert!(error.to_string().starts_with("rendition 144p to 200000 b/s: "), "{error}");
    assert_eq!((error.code, error.harm()), (12, Harm::Request));
    assert_eq!(encoder.settings().bitrate, 600_000, "as it was");
    fed(&rig, &mut encoder, 3..6, &[], &mut coded);
    ask(&mut encoder, &mut coded);
    assert_eq!(coded.len(), 6);
}

#[test]
fn b_frames_and_lookahead_reorder_and_lose_nothing() {
    for claim in ["in_reorder_h264", "in_reorder_hevc"] {
        clean(&Driver::new(), claim);
    }
    // The card decides what is left of what was asked.
    let plain = Driver::new().setting("nvenc.caps.NV_ENC_CAPS_SUPPORT_LOOKAHEAD", 0);
    clean(&plain, "in_reorder_h264");
}

#[test]
#[ignore = "played by another test"]
fn in_reorder_h264() {
    reorder(H264);
}

#[test]
#[ignore = "played by another test"]
fn in_reorder_hevc() {
    reorder(HEVC);
}

fn reorder(format: Format) {
    const SIZE: (u32, u32) = (320, 180);
    let rig = Rig::new();
    let asked = OpenRendition { bframes: 3, lookahead: 10, ..rendition(SIZE) };
    let mut encoder = rig.open(&asked, format);
    let held = encoder.settings().held_back();
    assert_eq!(encoder.settings().bframes, 2);
    let mut coded = Vec::new();
    fed(&rig, &mut encoder, 0..70, &[25, 50], &mut coded);
    assert_eq!(coded.len(), 70 - held, "as many are inside as it holds back");
    assert_eq!(encoder.inflight(), held);
    ask(&mut encoder, &mut coded);
    let order: Vec<_> = coded.iter().map(|frame| frame.pts).collect();
    assert!(order.windows(2).any(|pair| pair[0] > pair[1]), "B-frames come behind what they refer to: {order:?}");
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..70).collect::<Vec<_>>(), "each once");
    assert_eq!(syncs(&coded), [0, 25, 50]);
    for idr in [25, 50] {
        let at = order.iter().position(|pts| *pts == idr).unwrap();
        assert!(order[..at].iter().all(|pts| *pts < idr) && order[at..].iter().all(|pts| *pts >= idr), "closed");
    }
    let decoded = frames(&coded, format, SIZE);
    assert_eq!(decoded.len(), 70);
    for (n, frame) in decoded.iter().enumerate() {
        let found = psnr(frame, &picture(SIZE, Depth::Eight, n as i64), SIZE, Depth::Eight);
        assert!(found > 33.0, "frame {n}: {found:.1} dB");
    }
}

#[test]
fn a_held_picture_is_pushed_again_and_again() {
    clean(&Driver::new(), "in_held");
}

#[test]
#[ignore = "played by another test"]
fn in_held() {
    let rig = Rig::new();
    let asked = OpenRendition { bframes: 2, lookahead: 10, ..rendition((256, 144)) };
    let mut encoder = rig.open(&asked, H264);
    let pool = encoder.inputs().clone();
    let surface = rig.filled(&pool, 7);
    let mut coded = Vec::new();
    for n in 0..5 {
        encoder.push(&surface, n, false, &rig.happened()).unwrap();
        assert_eq!(pool.free(), pool.size() - 1, "one surface, however often it is inside");
    }
    drop(surface);
    assert_eq!(pool.free(), pool.size() - 1, "the encoder has use of it");
    fed(&rig, &mut encoder, 5..40, &[], &mut coded);
    ask(&mut encoder, &mut coded);
    assert_eq!(pool.free(), pool.size(), "all back");
    // Held for longer than there are outputs: the oldest are waited for.
    let surface = rig.filled(&pool, 9);
    for n in 40..140 {
        encoder.push(&surface, n, n == 100, &rig.happened()).unwrap();
    }
    drop(surface);
    ask(&mut encoder, &mut coded);
    assert_eq!(coded.len(), 140);
    assert_eq!(syncs(&coded), [0, 40, 100], "after the end of a run a new one begins");
    assert_eq!(pool.free(), pool.size());
}

#[test]
fn a_pool_lends_what_it_has_and_no_more() {
    clean(&Driver::new(), "in_pool");
}

#[test]
#[ignore = "played by another test"]
fn in_pool() {
    let rig = Rig::new();
    let encoder = rig.open(&rendition((256, 144)), H264);
    let pool = encoder.inputs().clone();
    assert_eq!(pool.size(), Rig::SURFACES, "low latency holds nothing back");
    let mut taken: Vec<_> = std::iter::from_fn(|| pool.try_take()).take(99).collect();
    assert_eq!(taken.len(), pool.size());
    let mut places: Vec<_> = taken.iter().map(Surface::luma).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), pool.size(), "each at a place of its own");
    let first = &taken[0];
    assert_eq!(first.chroma(), first.luma() + first.pitch() as u64 * 144);
    assert!(first.pitch() >= 256 && (first.width(), first.height()) == (256, 144));
    let (waits, waiting) = sync_channel(0);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            waits.send(()).unwrap();
            pool.wait_take().map(|surface| surface.luma())
        });
        waiting.recv().unwrap();
        let last = taken.pop().unwrap();
        let second_owner = last.clone();
        let luma = last.luma();
        drop(last);
        assert_eq!(pool.free(), 0, "the other clone holds it");
        drop(second_owner);
        assert_eq!(waiter.join().unwrap(), Some(luma), "who waits gets what came back");
        // Taken twice more: what the waiter had came back when it ended.
        taken.push(pool.wait_take().unwrap());
        let waiter = scope.spawn(|| {
            waits.send(()).unwrap();
            pool.wait_take().is_none()
        });
        waiting.recv().unwrap();
        drop(encoder);
        assert!(waiter.join().unwrap(), "the encoder is gone: nobody waits for its surfaces");
    });
    assert!(pool.try_take().is_none());
    drop(taken);
    assert_eq!(pool.free(), pool.size());
}

#[test]
fn two_hundred_sessions_leave_nothing() {
    let driver = Driver::new().setting("nvenc.max_sessions", 1);
    clean(&driver, "in_many");
}

#[test]
#[ignore = "played by another test"]
fn in_many() {
    let rig = Rig::new();
    for round in 0..200 {
        let bframes = u32::from(round % 2 == 1) * 2;
        let asked = OpenRendition { bframes, lookahead: 4, ..rendition((160, 90)) };
        let mut encoder = rig.open(&asked, H264);
        let mut coded = Vec::new();
        // Dropped empty, with frames inside, and after the end.
        fed(&rig, &mut encoder, 0..round % 4, &[], &mut coded);
        if round % 3 == 0 {
            ask(&mut encoder, &mut coded);
            assert_eq!(coded.len() as i64, round % 4);
        }
    }
}

#[test]
fn a_frame_is_not_encoded_before_it_is_written() {
    clean(&Driver::new().fault("cuda.copy sleep=150"), "in_order");
}

#[test]
#[ignore = "played by another test"]
fn in_order() {
    const SIZE: (u32, u32) = (256, 144);
    let rig = Rig::new();
    let mut encoder = rig.open(&rendition(SIZE), H264);
    let stream = Stream::new(&rig.device).unwrap();
    let mut coded = Vec::new();
    for n in 0..4 {
        let surface = encoder.inputs().wait_take().unwrap();
        let written = Event::new(&rig.device, Timing::Off).unwrap();
        surface.block().fill(&stream, 0..144, 60 + 20 * n).unwrap();
        surface.block().fill(&stream, 144..216, 128).unwrap();
        written.record(&stream).unwrap();
        assert!(!written.has_happened().unwrap(), "the stream is slow");
        encoder.push(&surface, n.into(), false, &written).unwrap();
        coded.extend(encoder.pull(0).unwrap());
    }
    for (n, frame) in frames(&coded, H264, SIZE).iter().enumerate() {
        let value = 60 + 20 * n as i32;
        assert!(
            frame[..256 * 144].iter().all(|sample| (i32::from(*sample) - value).abs() <= 3),
            "frame {n}: {}",
            frame[0]
        );
    }
    assert_eq!(coded.len(), 4);
}

#[test]
fn a_gap_ends_a_run_and_the_session_goes_on() {
    clean(&Driver::new(), "in_gap");
}

#[test]
#[ignore = "played by another test"]
fn in_gap() {
    let rig = Rig::new();
    for bframes in [0, 2] {
        let asked = OpenRendition { bframes, lookahead: 5, ..rendition((256, 144)) };
        let mut encoder = rig.open(&asked, H264);
        let mut coded = Vec::new();
        encoder.drain().unwrap();
        fed(&rig, &mut encoder, 10..17, &[], &mut coded);
        encoder.drain().unwrap();
        encoder.drain().unwrap();
        // Not pulled before the next run begins: kept, and in order.
        fed(&rig, &mut encoder, 100..120, &[110], &mut coded);
        ask(&mut encoder, &mut coded);
        let mut sorted: Vec<_> = coded.iter().map(|frame| frame.pts).collect();
        sorted.sort_unstable();
        assert_eq!(sorted, (10..17).chain(100..120).collect::<Vec<_>>());
        assert_eq!(syncs(&coded), [10, 100, 110]);
        let switch = coded.iter().position(|frame| frame.pts >= 100).unwrap();
        assert!(coded[switch..].iter().all(|frame| frame.pts >= 100), "runs do not mix");
        assert_eq!(frames(&coded, H264, (256, 144)).len(), 27);
    }
}

#[test]
fn ten_bits_colour_and_aspect_reach_the_stream() {
    clean(&Driver::new(), "in_ten");
}

#[test]
#[ignore = "played by another test"]
fn in_ten() {
    const SIZE: (u32, u32) = (320, 180);
    let rig = Rig::new();
    let colour = Colour { primaries: 9, transfer: 16, matrix: 9, full_range: true };
    let asked = OpenRendition { colour, sar: (4, 3), bitrate: 1_500_000, ..rendition(SIZE) };
    for format in [HEVC_TEN, HEVC, H264] {
        let mut encoder = rig.open(&asked, format);
        let mut coded = Vec::new();
        fed(&rig, &mut encoder, 0..20, &[], &mut coded);
        ask(&mut encoder, &mut coded);
        let decoded = frames(&coded, format, SIZE);
        assert_eq!(decoded.len(), 20);
        for (n, frame) in decoded.iter().enumerate() {
            let found = psnr(frame, &picture(SIZE, format.depth, n as i64), SIZE, format.depth);
            assert!(found > 30.0, "{format:?} frame {n}: {found:.1} dB");
        }
        let said = rig::probe(&coded, format);
        let deep = if format.depth == Depth::Ten { "10le" } else { "" };
        let full = if format.depth == Depth::Ten { "yuv420p" } else { "yuvj420p" };
        for fact in [
            &format!("pix_fmt={full}{deep}"),
            "sample_aspect_ratio=4:3",
            "color_range=pc",
            "color_space=bt2020nc",
            "color_transfer=smpte2084",
            "color_primaries=bt2020",
            &format!("has_b_frames={}", 0),
        ] {
            assert!(said.lines().any(|line| line == fact), "{format:?}: no {fact} in {said}");
        }
    }
}

#[test]
fn av1_comes_out_where_the_card_can() {
    clean(&Driver::new().setting("av1_encode", 1), "in_av1");
}

#[test]
#[ignore = "played by another test"]
fn in_av1() {
    const SIZE: (u32, u32) = (256, 144);
    const AV1: Format = Format { codec: Codec::Av1, depth: Depth::Eight };
    let rig = Rig::new();
    let mut encoder = rig.open(&rendition(SIZE), AV1);
    assert!(encoder.headers().is_empty(), "each key frame brings its sequence header");
    let mut coded = Vec::new();
    fed(&rig, &mut encoder, 0..8, &[5], &mut coded);
    ask(&mut encoder, &mut coded);
    assert_eq!(syncs(&coded), [0, 5]);
    let decoded = frames(&coded, AV1, SIZE);
    assert_eq!(decoded.len(), 8);
    for (n, frame) in decoded.iter().enumerate() {
        let found = psnr(frame, &picture(SIZE, Depth::Eight, n as i64), SIZE, Depth::Eight);
        assert!(found > 30.0, "frame {n}: {found:.1} dB");
    }
}

#[test]
fn what_a_card_can_is_asked_and_a_lack_is_a_sentence() {
    let driver = Driver::new().setting("nvenc.hevc", 0).setting("nvenc.max_sessions", 3);
    clean(&driver, "in_caps");
    for code in [10, 21] {
        let driver = Driver::new().setting("nvenc.max_sessions", 0).setting("nvenc.max_sessions_code", code);
        let said = clean(&driver, "in_refused");
        let expected = "this GPU or system allows no more encode sessions";
        assert!(said.contains("rendition 144p: nvEncOpenEncodeSessionEx") && said.contains(expected), "{said}");
    }
    let said = clean(&Driver::new().setting("nvenc.count", 0), "in_refused");
    assert!(said.contains("this GPU has no encoder"), "{said}");
}

#[test]
#[ignore = "played by another test"]
fn in_caps() {
    let rig = Rig::new();
    let caps = rig.api.caps(&rig.device, Codec::H264, &rig.watch).unwrap().expect("every encoder has H.264");
    assert_eq!((caps.width_max, caps.height_max, caps.bframes_max, caps.engines), (4096, 4096, 4, 2));
    assert!(caps.lookahead && caps.custom_vbv && caps.retune && !caps.ten_bit);
    assert_eq!(rig.api.caps(&rig.device, Codec::Hevc, &rig.watch).unwrap(), None);
    let error = rig.try_open(&rendition((256, 144)), HEVC).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "rendition 144p: HEVC on this GPU: unsupported parameter (12)");
    let error = rig.try_open(&rendition((8192, 144)), H264).map(drop).unwrap_err();
    assert!(error.to_string().contains("8192x144 on this GPU"), "{error}");
    for _ in 0..3 {
        assert_eq!(rig.api.sessions_available(&rig.device, 8, &rig.watch).unwrap(), 3, "closed again each time");
    }
    assert_eq!(rig.api.sessions_available(&rig.device, 2, &rig.watch).unwrap(), 2);
    let _one = rig.open(&rendition((256, 144)), H264);
    assert_eq!(rig.api.sessions_available(&rig.device, 8, &rig.watch).unwrap(), 2);
}

#[test]
#[ignore = "played by another test"]
fn in_refused() {
    let rig = Rig::new();
    let error = rig.try_open(&rendition((256, 144)), H264).map(drop).unwrap_err();
    assert_eq!(error.harm(), Harm::Request);
    println!("{error}");
}

#[test]
fn a_driver_without_this_interface_is_named() {
    let said = clean(&Driver::new().setting("nvenc.api", "12.0"), "in_absent");
    assert!(said.contains("speaks API 12.0 is too old"), "{said}");
    let said = clean(&Driver::new().without("libnvidia-encode.so.1"), "in_absent");
    assert!(said.contains("no libnvidia-encode.so.1 in "), "{said}");
}

#[test]
#[ignore = "played by another test"]
fn in_absent() {
    let driver = load::Driver::open(Some(&double::folder())).unwrap();
    let absent = Api::open(&driver).map(drop).unwrap_err();
    println!("{absent}");
}

/// What the driver does, what the error says, and whether the driver can still be given back what is its own.
const FAULTS: &[(&str, &str, bool)] = &[
    ("encode.open code=10", "nvEncOpenEncodeSessionEx: out of memory or of encode sessions (10)", true),
    ("encode.init code=8", "720x64 at", true),
    ("encode.init code=12", "nvEncInitializeEncoder: unsupported parameter (12)", true),
    ("encode.init code=20", "nvEncInitializeEncoder: a generic error (20)", false),
    ("encode.register code=23 after=2", "nvEncRegisterResource: the resource can not be registered (23)", true),
    ("encode.map code=16 after=3", "frame 3: nvEncMapInputResource: the map failed (16)", true),
    ("encode.encode code=8 after=5 times=1", "frame 5: nvEncEncodePicture: invalid parameter (8)", true),
    ("encode.encode code=10 after=5 times=1", "frame 5: nvEncEncodePicture: out of memory", true),
    ("encode.encode code=5 after=5", "frame 5: nvEncEncodePicture: the device does not exist any more (5)", false),
    ("encode.encode code=20 after=5", "frame 5: nvEncEncodePicture: a generic error (20)", false),
    ("encode.encode code=18 after=5 times=25", "frame 5: nvEncEncodePicture: the encoder is busy (18)", true),
    ("encode.idr no_idr after=1", "frame 10: frame 10 was asked to be an IDR and is none", true),
    ("encode.lock code=8 after=3 times=1", "frame 3: nvEncLockBitstream: invalid parameter (8)", true),
    ("encode.lock code=5 after=3", "frame 3: nvEncLockBitstream: the device does not exist any more (5)", false),
    ("cuda.alloc code=2 after=2", "cuMemAllocPitch: out of device memory (2)", true),
    ("cuda.sync code=214 after=2", "cuEventSynchronize: an uncorrectable memory error (ECC) (214)", false),
];

#[test]
fn every_fault_is_a_typed_error_and_leaves_nothing() {
    for (fault, words, whole) in FAULTS {
        let driver = Driver::new().fault(fault);
        let said = driver.pass("in_fault");
        let error = said
            .lines()
            .find_map(|line| line.split_once("error rendition 64p"))
            .unwrap_or_else(|| panic!("{fault}: {said}"));
        assert!(error.1.contains(words), "{fault}: {}", error.1);
        assert!(driver.count("faults played") > 0, "{fault}");
        assert_eq!(driver.broken(), Vec::<String>::new(), "{fault}");
        if *whole {
            driver.assert_clean();
        }
    }
}

#[test]
#[ignore = "played by another test"]
fn in_fault() {
    let rig = Rig::new();
    let run = || {
        let asked = OpenRendition { bitrate: 500_000, ..rendition((720, 64)) };
        let mut encoder = rig.try_open(&asked, H264)?;
        for n in 0..30 {
            let surface = encoder.inputs().wait_take().expect("the encoder lives");
            encoder.push(&surface, n, n % 10 == 0, &rig.happened())?;
            encoder.pull(0)?;
        }
        encoder.drain()
    };
    let error = run().expect_err("a fault is played");
    println!("error {error}");
}

#[test]
fn a_busy_encoder_is_asked_again() {
    let driver = Driver::new().fault("encode.encode code=18 after=5 times=3");
    clean(&driver, "in_busy");
    assert_eq!(driver.count("faults played"), 3);
}

#[test]
#[ignore = "played by another test"]
fn in_busy() {
    let rig = Rig::new();
    let mut encoder = rig.open(&rendition((256, 144)), H264);
    let mut coded = Vec::new();
    fed(&rig, &mut encoder, 0..10, &[], &mut coded);
    ask(&mut encoder, &mut coded);
    assert_eq!(coded.iter().map(|frame| frame.pts).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_call_that_hangs_is_seen_from_outside() {
    clean(&Driver::new().fault("encode.lock sleep=5000 after=2 times=1"), "in_hang");
}

#[test]
#[ignore = "played by another test"]
fn in_hang() {
    /// No honest call takes so long, however busy the machine is.
    const LONG: Duration = Duration::from_secs(4);
    let rig = Rig::new();
    let watch = rig.watch.clone();
    let (over, ended) = sync_channel::<()>(1);
    let watchdog = std::thread::spawn(move || {
        let mut seen = Vec::new();
        // Looks every few milliseconds until the encoder is done.
        while ended.recv_timeout(Duration::from_millis(5)).is_err() {
            if let Some((since, call)) = watch.stuck_since()
                && SystemClock::mono().since(since) > LONG
                && seen.last() != Some(&call)
            {
                seen.push(call);
            }
        }
        seen
    });
    let mut encoder = rig.open(&rendition((256, 144)), H264);
    let mut coded = Vec::new();
    fed(&rig, &mut encoder, 0..6, &[], &mut coded);
    ask(&mut encoder, &mut coded);
    drop(encoder);
    over.send(()).unwrap();
    assert_eq!(watchdog.join().unwrap(), ["nvEncLockBitstream"]);
    assert_eq!(rig.watch.stuck_since(), None);
    assert_eq!(coded.len(), 6, "and it went on");
}

#[test]
fn a_surface_of_another_encoder_is_refused() {
    clean(&Driver::new(), "in_foreign");
}

#[test]
#[ignore = "played by another test"]
fn in_foreign() {
    let rig = Rig::new();
    let one = rig.open(&rendition((256, 144)), H264);
    let mut other = rig.open(&rendition((256, 144)), H264);
    let surface = one.inputs().try_take().unwrap();
    let pushed =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| other.push(&surface, 0, false, &rig.happened())));
    assert!(pushed.is_err(), "a bug of the caller");
}

/// An encoder stays on its thread; its surfaces may go anywhere.
#[test]
fn an_encoder_does_not_leave_its_thread() {
    trait Marked<A> {
        const SAID: () = ();
    }
    struct IfSend;
    impl<T: ?Sized> Marked<()> for T {}
    impl<T: ?Sized + Send> Marked<IfSend> for T {}
    // Two answers for a type that is `Send`: this would not compile.
    let () = <Encoder as Marked<_>>::SAID;
    fn both<T: Send + Sync + Clone>() {}
    both::<Surface>();
    both::<rung_worker::gpu::nvenc::Surfaces>();
    both::<Watch>();
}

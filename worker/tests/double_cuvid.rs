//! The double of libnvcuvid: real streams against ffmpeg's decoding of them, delays, contracts, damage, leaks.
#![expect(unsafe_code, reason = "calls the driver's C ABI")]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../tests/support/clips.rs"]
mod clips;
#[path = "support/double.rs"]
mod double;
#[path = "support/nvdec.rs"]
mod nvdec;

use nvdec::{Api, Caller, Clip, END_OF_PICTURE, END_OF_STREAM, Manner, TIMESTAMP, Told, alone, bytes_of, zeroed};
use nvidia_video_codec_sdk::sys::cuviddec::cudaVideoCodec::{self, *};
use nvidia_video_codec_sdk::sys::cuviddec::cudaVideoDeinterlaceMode::*;
use nvidia_video_codec_sdk::sys::cuviddec::{CUVIDPROCPARAMS, CUVIDRECONFIGUREDECODERINFO, cudaVideoChromaFormat};

const SOURCE: &str = "-f lavfi -i testsrc2=s=320x184:r=25,format=yuv420p -frames:v 30";
const WHOLE: (usize, usize) = (320, 184);

/// 25 frames a second in a 90 kHz clock.
const FRAME: i64 = 3600;

/// Decodes a clip by the book: every picture is ffmpeg's, and every time stamp comes out in the order of display.
fn equals_ffmpeg(clip: &Clip, (width, height): (usize, usize), wide: bool, manner: Manner) -> Box<Caller> {
    let mut caller = Caller::start(manner);
    caller.play(&clip.packets, END_OF_PICTURE);
    let full = caller.told.iter().any(|told| told.full_range);
    let format = if wide { "yuv420p10le" } else if full { "yuvj420p" } else { "yuv420p" };
    let reference = clip.reference(bytes_of(width, height, wide), format);
    same_pictures(&caller.pictures, &reference);
    assert!(reference.windows(2).all(|two| two[0] != two[1]), "the clip moves");
    assert_eq!(times(&caller), clip.times());
    caller
}

#[track_caller]
fn same_pictures(ours: &[Vec<u8>], theirs: &[Vec<u8>]) {
    assert_eq!(ours.len(), theirs.len());
    for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let differs = ours.iter().zip(theirs).position(|(a, b)| a != b);
        assert_eq!((ours.len(), differs), (theirs.len(), None), "picture {at}");
    }
}

fn times(caller: &Caller) -> Vec<i64> {
    caller.shown.iter().map(|shown| shown.time).collect()
}

/// How many packets after its own each picture was shown, in the order of display.
fn delays(caller: &Caller, clip: &Clip) -> Vec<usize> {
    let own = |time| clip.packets.iter().position(|(_, of)| *of == time).unwrap();
    caller.shown.iter().map(|shown| shown.packet - own(shown.time)).collect()
}

fn h264(name: &str, options: &str) -> Clip {
    Clip::make(name, &format!("{SOURCE} -c:v libx264 -g 12 {options}"))
}

fn hevc(name: &str, source: &str, options: &str) -> Clip {
    Clip::make(name, &format!("{source} -c:v libx265 -preset fast -x265-params log-level=none:{options}"))
}

#[test]
fn h264_is_what_ffmpeg_decodes() {
    let body = || {
        let clip = h264("h264-b", "-bf 3 -preset medium");
        let mut caller = equals_ffmpeg(&clip, WHOLE, false, Manner::of(cudaVideoCodec_H264));
        let told = Told {
            codec: 4,
            rate: (25, 1),
            progressive: true,
            depth: (8, 8),
            surfaces: caller.told[0].surfaces,
            coded: (320, 192),
            area: [0, 0, 320, 184],
            chroma: 1,
            aspect: (40, 23),
            full_range: false,
            colour: [2, 2, 2],
        };
        assert_eq!(caller.told, [told]);
        assert!((3..=17).contains(&caller.told[0].surfaces), "{}", caller.told[0].surfaces);
        assert!(caller.coded.iter().all(|coded| coded.mbs == (20, 12) && coded.field == (0, 0, 0)));
        let intra: Vec<i32> = caller.coded.iter().map(|coded| coded.intra).collect();
        assert_eq!((intra[0], intra[12], intra.iter().sum::<i32>()), (1, 1, 3));
        assert!(caller.coded.iter().any(|coded| coded.reference == 0), "some B pictures are no references");
        assert!(caller.shown.iter().all(|shown| shown.progressive && shown.repeat == 0 && shown.status == Ok(2)));
        assert_eq!(caller.pitches, [512; 30]);
        caller.end();
    };
    let Some(driver) = alone("h264_is_what_ffmpeg_decodes", |d| d, body) else { return };
    driver.assert_clean();
    assert_eq!((driver.count("pictures decoded"), driver.count("frames mapped")), (30, 30));
    assert_eq!((driver.count("copies htod"), driver.count("codec copies")), (0, 30), "the decoder's are its own");
}

#[test]
fn h264_colours_and_slices_are_told() {
    let body = || {
        let options = "-bf 0 -slices 4 -color_primaries bt709 -color_trc bt709 -colorspace bt709 -color_range pc";
        let clip = h264("h264-slices", &format!("-vf setsar=4/3 {options}"));
        let mut caller = equals_ffmpeg(&clip, WHOLE, false, Manner::of(cudaVideoCodec_H264));
        assert!(caller.coded.iter().all(|coded| coded.slices == 4));
        let told = &caller.told[0];
        assert_eq!((told.full_range, told.colour, told.aspect), (true, [1, 1, 1], (160, 69)));
        caller.end();
    };
    let Some(driver) = alone("h264_colours_and_slices_are_told", |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn hevc_with_8_bits_is_what_ffmpeg_decodes() {
    let body = || {
        let clip = hevc("hevc-8", SOURCE, "keyint=12:bframes=3:slices=1");
        let mut caller = equals_ffmpeg(&clip, WHOLE, false, Manner::of(cudaVideoCodec_HEVC));
        let told = &caller.told[0];
        assert_eq!((told.codec, told.depth, told.rate, told.area), (8, (8, 8), (25, 1), [0, 0, 320, 184]));
        caller.end();
    };
    let Some(driver) = alone("hevc_with_8_bits_is_what_ffmpeg_decodes", |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn hevc_with_10_bits_is_mapped_in_the_high_bits() {
    let body = || {
        let source = "-f lavfi -i testsrc2=s=324x182:r=30000/1001,format=yuv420p10le -frames:v 20";
        let clip = hevc("hevc-10", source, "keyint=10:bframes=2");
        let manner = Manner { stream: true, ..Manner::of(cudaVideoCodec_HEVC) };
        let mut caller = equals_ffmpeg(&clip, (324, 182), true, manner);
        let told = &caller.told[0];
        assert_eq!((told.depth, told.rate, told.coded), ((10, 10), (30000, 1001), (328, 184)));
        assert_eq!(told.area, [0, 0, 324, 182]);
        assert_eq!(caller.pitches[0], 1024);
        caller.end();
    };
    let Some(driver) = alone("hevc_with_10_bits_is_mapped_in_the_high_bits", |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn mpeg2_is_what_ffmpeg_decodes() {
    let body = || {
        let options = "-c:v mpeg2video -g 12 -bf 2 -b:v 2M -flags +bitexact";
        let clip = Clip::make("mpeg2", &format!("{SOURCE} {options} -aspect 16:9"));
        let mut caller = equals_ffmpeg(&clip, WHOLE, false, Manner::of(cudaVideoCodec_MPEG2));
        let told = &caller.told[0];
        assert_eq!((told.codec, told.rate, told.aspect, told.progressive), (1, (25, 1), (16, 9), true));
        assert!(caller.shown.iter().all(|shown| shown.status == Err(801)), "MPEG-2 has no status");
        caller.end();
    };
    let Some(driver) = alone("mpeg2_is_what_ffmpeg_decodes", |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn av1_is_decoded_where_the_card_can() {
    let body = || {
        let options = "-c:v libaom-av1 -cpu-used 8 -g 10 -lag-in-frames 8 -b:v 300k -strict -2";
        let clip = Clip::temporal_units("av1", &format!("-f lavfi -i testsrc2=s=192x128:r=25,format=yuv420p -frames:v 20 {options}"));
        let mut caller = equals_ffmpeg(&clip, (192, 128), false, Manner::of(cudaVideoCodec_AV1));
        assert_eq!((caller.told[0].codec, caller.told[0].coded), (11, (192, 128)));
        caller.end();
    };
    let with = |driver: double::Driver| driver.setting("av1_decode", 1);
    let Some(driver) = alone("av1_is_decoded_where_the_card_can", with, body) else { return };
    driver.assert_clean();
}

const FIELDS: &str = "-f lavfi -i testsrc2=s=320x192:r=50,format=yuv420p -frames:v 20";

#[test]
fn interlaced_pictures_are_woven_by_default_and_say_which_field_comes_first() {
    let body = || {
        for (name, filter, x264, top_first) in
            [("top", "tinterlace=4", "tff=1", true), ("bottom", "tinterlace=5", "bff=1", false)]
        {
            let options = format!("-vf {filter} -c:v libx264 -flags +ildct+ilme -g 8 -bf 2 -x264-params {x264}");
            let clip = Clip::make(&format!("h264-{name}"), &format!("{FIELDS} {options}"));
            let mut caller = equals_ffmpeg(&clip, (320, 192), false, Manner::of(cudaVideoCodec_H264));
            assert_eq!((caller.told[0].progressive, caller.told[0].coded), (false, (320, 192)));
            let fields = caller.shown.iter().all(|shown| !shown.progressive && shown.top_first == top_first);
            assert!(fields, "{name}: {:?}", caller.shown);
            caller.end();
            let order = if top_first { 1 } else { 0 };
            let options = format!("-vf {filter} -c:v mpeg2video -flags +ildct+ilme -top {order} -g 8 -bf 2 -b:v 3M");
            let clip = Clip::make(&format!("mpeg2-{name}"), &format!("{FIELDS} {options}"));
            let mut caller = equals_ffmpeg(&clip, (320, 192), false, Manner::of(cudaVideoCodec_MPEG2));
            assert!(!caller.told[0].progressive);
            let fields = caller.shown.iter().all(|shown| !shown.progressive && shown.top_first == top_first);
            assert!(fields, "{name}: {:?}", caller.shown);
            caller.end();
        }
    };
    let name = "interlaced_pictures_are_woven_by_default_and_say_which_field_comes_first";
    let Some(driver) = alone(name, |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn a_deinterlacer_shows_each_field_in_its_turn() {
    let body = || {
        for (name, filter, x264, top_first) in
            [("top", "tinterlace=4", "tff=1", true), ("bottom", "tinterlace=5", "bff=1", false)]
        {
            let options = format!("-vf {filter} -c:v libx264 -flags +ildct+ilme -g 8 -bf 2 -x264-params {x264}");
            let clip = Clip::make(&format!("h264-{name}"), &format!("{FIELDS} {options}"));
            let woven = clip.reference(bytes_of(320, 192, false), "yuv420p");
            for deinterlace in [cudaVideoDeinterlaceMode_Bob, cudaVideoDeinterlaceMode_Adaptive] {
                let manner = Manner { deinterlace, fields: true, ..Manner::of(cudaVideoCodec_H264) };
                let mut caller = Caller::start(manner);
                caller.play(&clip.packets, END_OF_PICTURE);
                assert_eq!(caller.pictures.len(), 2 * woven.len());
                for (at, picture) in caller.pictures.iter().enumerate() {
                    let bottom = (at % 2 == 0) != top_first;
                    check_field(picture, &woven[at / 2], usize::from(bottom), deinterlace);
                }
                caller.end();
            }
        }
    };
    let Some(driver) = alone("a_deinterlacer_shows_each_field_in_its_turn", |d| d, body) else { return };
    driver.assert_clean();
}

/// Luma rows of `parity` are the woven picture's; each other row lies between its neighbours (bob), or is the woven
/// picture's in places (adaptive).
fn check_field(
    picture: &[u8],
    woven: &[u8],
    parity: usize,
    mode: nvidia_video_codec_sdk::sys::cuviddec::cudaVideoDeinterlaceMode,
) {
    let row = |of: &'_ [u8], at: usize| of[320 * at..320 * (at + 1)].to_vec();
    let mut kept = 0;
    for at in 0..192 {
        if at % 2 == parity {
            assert_eq!(row(picture, at), row(woven, at), "row {at}");
            continue;
        }
        let up = row(woven, if at == 0 { 1 } else { at - 1 });
        let down = row(woven, if at == 191 { 190 } else { at + 1 });
        let (ours, old) = (row(picture, at), row(woven, at));
        for x in 0..320 {
            let mean = (u16::from(up[x]) + u16::from(down[x])).div_ceil(2) as u8;
            let adaptive = mode == cudaVideoDeinterlaceMode_Adaptive && ours[x] == old[x];
            assert!(ours[x] == mean || adaptive, "row {at} column {x}: {} of {} and {}", ours[x], up[x], down[x]);
            kept += usize::from(ours[x] != mean);
        }
    }
    if mode == cudaVideoDeinterlaceMode_Bob {
        assert_eq!(kept, 0);
    }
}

#[test]
fn a_picture_at_rest_keeps_all_its_rows_with_the_adaptive_deinterlacer() {
    let body = || {
        let source = "-f lavfi -i testsrc2=s=320x192:r=25:d=0.04,loop=20:1,setpts=N/25/TB,format=yuv420p -frames:v 12";
        let options = "-c:v libx264 -flags +ildct+ilme -g 20 -bf 0 -qp 0 -profile:v high444 -preset ultrafast";
        let options = options.replace("-qp 0 -profile:v high444", "-qp 4");
        let clip = Clip::make("h264-rest", &format!("{source} {options} -x264-params tff=1"));
        let woven = clip.reference(bytes_of(320, 192, false), "yuv420p");
        let deinterlace = cudaVideoDeinterlaceMode_Adaptive;
        let mut caller = Caller::start(Manner { deinterlace, fields: true, ..Manner::of(cudaVideoCodec_H264) });
        caller.play(&clip.packets, END_OF_PICTURE);
        assert!(caller.shown.iter().all(|shown| !shown.progressive));
        // The first frame has none before it.
        for (at, picture) in caller.pictures.iter().enumerate().skip(2) {
            let differ = picture.iter().zip(&woven[at / 2]).filter(|(a, b)| a != b).count();
            assert!(differ * 100 < picture.len(), "picture {at}: {differ} samples");
        }
        let first = caller.pictures[0].iter().zip(&woven[0]).filter(|(a, b)| a != b).count();
        assert!(first * 40 > woven[0].len(), "the first is interpolated: {first} samples");
        caller.end();
    };
    let name = "a_picture_at_rest_keeps_all_its_rows_with_the_adaptive_deinterlacer";
    let Some(driver) = alone(name, |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn pictures_are_shown_as_early_as_promised() {
    let body = || {
        let plain = h264("h264-plain", "-bf 0 -preset fast");
        let show = |clip: &Clip, flags, delay| {
            let mut caller = Caller::start(Manner { delay, ..Manner::of(cudaVideoCodec_H264) });
            caller.play(&clip.packets, flags);
            assert_eq!(times(&caller), clip.times());
            let delays = delays(&caller, clip);
            caller.end();
            delays
        };
        assert_eq!(show(&plain, END_OF_PICTURE, 0), [0; 30], "at once");
        assert_eq!(show(&plain, 0, 0), [1; 30], "the next packet shows that it has ended");
        let two = show(&plain, END_OF_PICTURE, 2);
        assert_eq!((&two[..28], &two[28..]), (&[2; 28][..], &[2, 1][..]), "two wait, until the stream ends");
        let three = show(&plain, 0, 2);
        assert_eq!(three[..27], [3; 27]);
        // One B picture between two others: a reference is shown when the next one was decoded.
        let between = h264("h264-one-b", "-bf 1 -b_strategy 0 -x264-params b-adapt=0:scenecut=0 -preset fast");
        let waits = show(&between, END_OF_PICTURE, 0);
        let (most, least) = (waits[..24].iter().max(), waits[..24].iter().min());
        assert_eq!((most, least), (Some(&2), Some(&0)), "{waits:?}");
        assert_eq!(show(&between, 0, 0)[..24], waits[..24].iter().map(|wait| wait + 1).collect::<Vec<_>>());
    };
    let Some(driver) = alone("pictures_are_shown_as_early_as_promised", |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn a_stream_that_does_not_say_how_it_reorders_waits_for_its_level() {
    let body = || {
        // Level 1.2 keeps 2376 macroblocks: 9 pictures of 20x12, and 4 of 22x18.
        let source = "-f lavfi -i testsrc2=s=352x288:r=25,format=yuv420p -frames:v 20";
        let options = "-c:v libx264 -bf 0 -g 20 -level 1.2 -preset fast";
        let clip = Clip::make("h264-level", &format!("{source} {options} -bsf:v h264_metadata=level=1.2"));
        let mut told = Caller::start(Manner { map: false, ..Manner::of(cudaVideoCodec_H264) });
        told.play(&clip.packets, END_OF_PICTURE);
        assert!(delays(&told, &clip).iter().all(|delay| *delay == 0));
        told.end();
        let silent: Vec<_> = clip.packets.iter().map(|(data, time)| (without_restriction(data), *time)).collect();
        let mut caller = Caller::start(Manner { map: false, ..Manner::of(cudaVideoCodec_H264) });
        caller.play(&silent, END_OF_PICTURE);
        assert_eq!(delays(&caller, &clip)[..16], [4; 16], "{:?}", caller.told);
        caller.end();
    };
    let name = "a_stream_that_does_not_say_how_it_reorders_waits_for_its_level";
    let Some(driver) = alone(name, |d| d, body) else { return };
    driver.assert_clean();
}

/// x264's parameter set ends with the restriction (flag, flag, six numbers) and the stop bit: it goes.
fn without_restriction(data: &[u8]) -> Vec<u8> {
    let Some(at) = data.windows(5).position(|five| five == [0, 0, 0, 1, 0x67]) else { return data.to_vec() };
    let end = at + 4 + data[at + 4..].windows(3).position(|three| three[..2] == [0, 0] && three[2] <= 1).unwrap();
    let mut bits: Vec<bool> =
        data[at + 4..end].iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
    // motion_vectors_over_pic_boundaries 1; 0, 0, 11, 11, 0, 4: from behind, what x264 writes for one reference kept.
    let ue = |value: u32| {
        let value = value + 1;
        let length = 32 - value.leading_zeros();
        (0..2 * length - 1).rev().map(|bit| value >> bit & 1 == 1).collect::<Vec<bool>>()
    };
    let tails = (1..=16).map(|buffered| [vec![true, true], ue(0), ue(0), ue(11), ue(11), ue(0), ue(buffered)].concat());
    while bits.pop() == Some(false) {}
    let tail = tails.into_iter().find(|tail| bits.ends_with(tail)).expect("x264 writes the restriction last");
    bits.truncate(bits.len() - tail.len());
    bits.extend([false, true]);
    bits.resize(bits.len().next_multiple_of(8), false);
    let bytes = bits.chunks(8).map(|eight| eight.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit)));
    [&data[..at + 4], &bytes.collect::<Vec<u8>>(), &data[end..]].concat()
}

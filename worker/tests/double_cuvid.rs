//! The double of libnvcuvid: real streams against ffmpeg's decoding of them, delays, contracts, damage, leaks.
#![expect(unsafe_code, reason = "calls the driver's C ABI")]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../tests/support/clips.rs"]
mod clips;
#[path = "support/double.rs"]
mod double;
#[path = "support/fields.rs"]
mod fields;
#[path = "support/nvdec.rs"]
mod nvdec;

use nvdec::{Caller, Clip, END_OF_PICTURE, END_OF_STREAM, Manner, TIMESTAMP, Told, alone, bytes_of};
use nvidia_video_codec_sdk::sys::cuviddec::cudaVideoCodec::{self, *};
use nvidia_video_codec_sdk::sys::cuviddec::cudaVideoDeinterlaceMode::*;

const SOURCE: &str = "-f lavfi -i testsrc2=s=320x184:r=25,format=yuv420p -frames:v 30";
const WHOLE: (usize, usize) = (320, 184);

/// 25 frames a second in a 90 kHz clock.
const FRAME: i64 = 3600;

/// Decodes a clip by the book: every picture is ffmpeg's, and every time stamp comes out in the order of display.
fn equals_ffmpeg(clip: &Clip, (width, height): (usize, usize), wide: bool, manner: Manner) -> Box<Caller> {
    let mut caller = Caller::start(manner);
    caller.play(&clip.packets, END_OF_PICTURE);
    let full = caller.told.iter().any(|told| told.full_range);
    let format = if wide {
        "yuv420p10le"
    } else if full {
        "yuvj420p"
    } else {
        "yuv420p"
    };
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
        let clip = Clip::temporal_units(
            "av1",
            &format!("-f lavfi -i testsrc2=s=192x128:r=25,format=yuv420p -frames:v 20 {options}"),
        );
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
                let mut made = 0;
                for (at, picture) in caller.pictures.iter().enumerate() {
                    let bottom = (at % 2 == 0) != top_first;
                    made += check_field(picture, &woven[at / 2], usize::from(bottom), deinterlace);
                }
                assert!(made > 10_000, "{deinterlace:?}: {made} samples of what moves are made of other rows");
                caller.end();
            }
        }
    };
    let Some(driver) = alone("a_deinterlacer_shows_each_field_in_its_turn", |d| d, body) else { return };
    driver.assert_clean();
}

/// Luma rows of `parity` are the woven picture's; each other row lies between its neighbours (bob), or is the woven
/// picture's in places (adaptive). How many samples are not the woven picture's.
fn check_field(
    picture: &[u8],
    woven: &[u8],
    parity: usize,
    mode: nvidia_video_codec_sdk::sys::cuviddec::cudaVideoDeinterlaceMode,
) -> usize {
    let row = |of: &'_ [u8], at: usize| of[320 * at..320 * (at + 1)].to_vec();
    let (mut kept, mut made) = (0, 0);
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
            made += usize::from(ours[x] != old[x]);
        }
    }
    if mode == cudaVideoDeinterlaceMode_Bob {
        assert_eq!(kept, 0);
    }
    made
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
        // Level 1.2 keeps 2376 macroblocks: 6 pictures of 22x18.
        let source = "-f lavfi -i testsrc2=s=352x288:r=25,format=yuv420p -frames:v 20";
        let show = |clip: &Clip, packets: &[(Vec<u8>, i64)]| {
            let mut caller = Caller::start(Manner { map: false, ..Manner::of(cudaVideoCodec_H264) });
            caller.play(packets, END_OF_PICTURE);
            let delays = delays(&caller, clip);
            caller.end();
            delays
        };
        let silent = |clip: &Clip| -> Vec<_> {
            clip.packets.iter().map(|(data, time)| (without_restriction(data), *time)).collect()
        };
        // A B picture is allowed, and none is coded: one picture waits, or all that the level keeps.
        let options = "-c:v libx264 -g 20 -level 1.2 -preset fast -x264-params bframes=1:b-adapt=1:b-bias=-100";
        let clip = Clip::make("h264-level", &format!("{source} {options}"));
        assert_eq!(show(&clip, &clip.packets)[..19], [1; 19]);
        assert_eq!(show(&clip, &silent(&clip))[..14], [6; 14]);
        // Picture order type 2 can not reorder.
        let clip = Clip::make("h264-order-2", &format!("{source} -c:v libx264 -bf 0 -g 20 -level 1.2 -preset fast"));
        assert_eq!(show(&clip, &silent(&clip)), [0; 20]);
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
    // motion_vectors_over_pic_boundaries 1, no denominators, lengths of vectors, so many reordered, so many kept.
    let ue = |value: u32| {
        let value = value + 1;
        let length = 32 - value.leading_zeros();
        (0..2 * length - 1).rev().map(|bit| value >> bit & 1 == 1).collect::<Vec<bool>>()
    };
    let tail =
        |length, moved, kept| [vec![true, true], ue(0), ue(0), ue(length), ue(length), ue(moved), ue(kept)].concat();
    let numbers =
        (8..=16).flat_map(|length| (0..=1).flat_map(move |moved| (1..=16).map(move |kept| (length, moved, kept))));
    let mut tails = numbers.map(|(length, moved, kept)| tail(length, moved, kept));
    while bits.pop() == Some(false) {}
    let tail = tails.find(|tail| bits.ends_with(tail)).expect("x264 writes the restriction last");
    bits.truncate(bits.len() - tail.len());
    bits.extend([false, true]);
    bits.resize(bits.len().next_multiple_of(8), false);
    let bytes = bits.chunks(8).map(|eight| eight.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit)));
    [&data[..at + 4], &bytes.collect::<Vec<u8>>(), &data[end..]].concat()
}

#[test]
fn times_that_were_not_given_are_made_from_those_before() {
    let body = || {
        let clip = h264("h264-plain", "-bf 0 -preset fast");
        let first = clip.packets[0].1;
        let play = |codec_clip: &Clip, manner: Manner, given: &dyn Fn(usize) -> bool| {
            let mut caller = Caller::start(Manner { map: false, ..manner });
            for (at, (data, time)) in codec_clip.packets.iter().enumerate() {
                let flags = if given(at) { TIMESTAMP } else { 0 };
                assert_eq!(caller.parse(data, END_OF_PICTURE | flags, *time), 0);
            }
            assert_eq!(caller.parse(&[], END_OF_STREAM, 0), 0);
            let times = times(&caller);
            caller.end();
            times
        };
        let manner = Manner::of(cudaVideoCodec_H264);
        let every = |from: i64, step| (0..30).map(|n| from + n * step).collect::<Vec<i64>>();
        assert_eq!(play(&clip, manner, &|at| at % 5 == 0), every(first, FRAME));
        assert_eq!(play(&clip, manner, &|_| false), every(0, FRAME), "from 0 where none was ever given");
        assert_eq!(play(&clip, Manner { clock: 0, ..manner }, &|_| false), every(0, 400_000), "10 MHz by default");
        // The first two have none, and were held back for reordering: counted back from the first that has.
        let reordered = h264("h264-b", "-bf 3 -preset medium");
        let late = play(&reordered, manner, &|at| at > 0);
        assert_eq!(late, reordered.times());
        // Decoding times for presentation times: found out, and put in order.
        let mut caller = Caller::start(Manner { map: false, ..manner });
        let sorted = reordered.times();
        for ((data, _), time) in reordered.packets.iter().zip(&sorted) {
            assert_eq!(caller.parse(data, END_OF_PICTURE | TIMESTAMP, *time), 0);
        }
        assert_eq!(caller.parse(&[], END_OF_STREAM, 0), 0);
        assert_eq!(times(&caller), sorted);
        caller.end();
    };
    let name = "times_that_were_not_given_are_made_from_those_before";
    let Some(driver) = alone(name, |d| d, body) else { return };
    driver.assert_clean();
}

/// One clip, and behind it another of another size, as one stream.
fn two_sizes(codec: cudaVideoCodec, encode: &str) -> (nvdec::Packets, Vec<Vec<u8>>) {
    let (mut packets, mut reference) = (Vec::new(), Vec::new());
    for (name, width, height) in [("large", 320, 240), ("small", 256, 144), ("large", 320, 240)] {
        let source = format!("-f lavfi -i testsrc2=s={width}x{height}:r=25,format=yuv420p -frames:v 10");
        let clip = Clip::make(&format!("{name}-{}", codec as u32), &format!("{source} {encode}"));
        let begin = packets.len() as i64 * FRAME - clip.packets[0].1;
        packets.extend(clip.packets.iter().map(|(data, time)| (data.clone(), begin + time)));
        reference.extend(clip.reference(bytes_of(width, height, false), "yuv420p"));
    }
    (packets, reference)
}

#[test]
fn another_size_is_told_and_decoded_either_way() {
    let body = || {
        let clips = [
            (cudaVideoCodec_H264, "-c:v libx264 -g 10 -bf 2 -preset fast"),
            (cudaVideoCodec_HEVC, "-c:v libx265 -preset fast -x265-params log-level=none:keyint=10:bframes=2"),
            (cudaVideoCodec_MPEG2, "-c:v mpeg2video -g 10 -bf 2 -b:v 2M"),
        ];
        for (codec, encode) in clips {
            let (packets, reference) = two_sizes(codec, encode);
            for (reconfigure, flags) in [(true, END_OF_PICTURE), (false, 0)] {
                let mut caller = Caller::start(Manner { reconfigure, delay: 1, ..Manner::of(codec) });
                caller.play(&packets, flags);
                let sizes: Vec<_> = caller.told.iter().map(|told| [told.area[2], told.area[3]]).collect();
                assert_eq!(sizes, [[320, 240], [256, 144], [320, 240]]);
                same_pictures(&caller.pictures, &reference);
                caller.end();
            }
        }
    };
    let Some(driver) = alone("another_size_is_told_and_decoded_either_way", |d| d, body) else { return };
    driver.assert_clean();
    assert_eq!((driver.count("decoders created"), driver.count("decoders reconfigured")), (3 + 9, 6));
}

#[test]
fn bytes_may_come_in_any_pieces_and_the_end_of_a_stream_begins_another() {
    let body = || {
        let clip = h264("h264-b", "-bf 3 -preset medium");
        let reference = clip.reference(bytes_of(320, 184, false), "yuv420p");
        let stream: Vec<u8> = clip.packets.iter().flat_map(|(data, _)| data.clone()).collect();
        let mut caller = Caller::start(Manner::of(cudaVideoCodec_H264));
        for piece in [1, 187, 4096] {
            for bytes in stream.chunks(piece) {
                assert_eq!(caller.parse(bytes, 0, 0), 0);
            }
            let notify = if piece == 187 { 16 } else { 0 };
            assert_eq!(caller.parse(&[], END_OF_STREAM | notify, 0), 0);
        }
        assert_eq!((caller.told.len(), caller.ends), (3, 1), "each stream is told anew");
        same_pictures(&caller.pictures, &[reference.clone(), reference.clone(), reference].concat());
        assert_eq!(times(&caller)[30..32], [0, FRAME], "and its time begins anew");
        caller.end();
    };
    let name = "bytes_may_come_in_any_pieces_and_the_end_of_a_stream_begins_another";
    let Some(driver) = alone(name, |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn decoding_begins_where_it_can() {
    let body = || {
        // Open groups: pictures before the second intra one in display refer to what was not received.
        let options = "keyint=10:min-keyint=10:open-gop=1:bframes=3:b-adapt=0:scenecut=0";
        let clip = hevc("hevc-open", SOURCE, options);
        let reference = clip.reference(bytes_of(320, 184, false), "yuv420p");
        let intra = clip.packets.iter().enumerate().skip(1).find(|(_, (data, _))| has_nal(data, 21)).unwrap().0;
        let mut caller = Caller::start(Manner::of(cudaVideoCodec_HEVC));
        // The parameter sets come with the first picture.
        let sets = clip.packets[0].0.windows(3).position(|three| three == [0, 0, 1]).unwrap();
        let end =
            clip.packets[0].0.windows(6).position(|six| six[..3] == [0, 0, 1] && matches!(six[3] >> 1 & 63, 16..=21));
        assert_eq!(caller.parse(&clip.packets[0].0[sets..end.unwrap()], 0, 0), 0);
        caller.play(&clip.packets[intra..], END_OF_PICTURE);
        let from = clip.packets[intra].1;
        let expected: Vec<i64> = clip.times().into_iter().filter(|time| *time >= from).collect();
        assert_eq!(times(&caller), expected, "leading pictures are lost");
        assert!(clip.packets[intra..].len() > expected.len());
        same_pictures(&caller.pictures, &reference[30 - expected.len()..]);
        caller.end();
        // H.264: nothing is decoded before an intra picture.
        let clip = h264("h264-plain", "-bf 0 -preset fast");
        let mut caller = Caller::start(Manner::of(cudaVideoCodec_H264));
        caller.play(&clip.packets[5..], END_OF_PICTURE);
        assert_eq!(times(&caller), clip.times()[12..]);
        caller.end();
    };
    let Some(driver) = alone("decoding_begins_where_it_can", |d| d, body) else { return };
    driver.assert_clean();
}

fn has_nal(data: &[u8], kind: u8) -> bool {
    data.windows(4).any(|four| four[..3] == [0, 0, 1] && four[3] >> 1 & 63 == kind)
}

#[test]
fn field_pictures_are_paired_and_one_alone_is_said_to_be() {
    let body = || {
        let deinterlace = cudaVideoDeinterlaceMode_Weave;
        let mut caller = Caller::start(Manner { deinterlace, ..Manner::of(cudaVideoCodec_H264) });
        assert_eq!(caller.parse(&fields::sets(0), 0, 0), 0);
        // A field in a packet, both in one, one alone, both again.
        let alone = [(0, false), (0, true)].map(|(n, bottom)| fields::field(n, bottom));
        let both = |n| [fields::field(n, false), fields::field(n, true)].concat();
        let packets = [&alone[0], &alone[1], &both(1), &fields::field(2, false), &both(3)];
        for (packet, time) in packets.into_iter().zip([100, 200, 300, 400, 500]) {
            assert_eq!(caller.parse(packet, END_OF_PICTURE | TIMESTAMP, time), 0);
        }
        assert_eq!(caller.parse(&[], END_OF_STREAM, 0), 0);
        let coded: Vec<_> = caller.coded.iter().map(|coded| coded.field).collect();
        let (first, second) = ((1, 0, 0), (1, 1, 1));
        assert_eq!(coded, [first, second, first, second, first, first, second]);
        let index: Vec<_> = caller.coded.iter().map(|coded| coded.index).collect();
        assert!(index[0] == index[1] && index[2] == index[3] && index[5] == index[6], "{index:?}");
        let shown: Vec<_> = caller.shown.iter().map(|shown| (shown.time, shown.repeat, shown.packet)).collect();
        // Packet 0 held the parameter sets; the one alone is known as such when the next frame begins.
        assert_eq!(shown, [(100, 0, 2), (300, 0, 3), (400, -1, 5), (500, 0, 5)]);
        assert!(caller.shown.iter().all(|shown| !shown.progressive && shown.top_first));
        for (at, n) in [(0, 0), (1, 1), (3, 3)] {
            same_pictures(&caller.pictures[at..=at], &[fields::picture(n)]);
        }
        let (alone, woven) = (&caller.pictures[2], fields::picture(2));
        for row in (0..fields::SIDE).step_by(2) {
            let row = fields::SIDE * row..fields::SIDE * (row + 1);
            assert_eq!(alone[row.clone()], woven[row]);
        }
        caller.end();
    };
    let name = "field_pictures_are_paired_and_one_alone_is_said_to_be";
    let Some(driver) = alone(name, |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn picture_order_goes_on_where_its_counts_wrap() {
    let body = || {
        // Fields by hand: 8 bits of order count wrap after 64 frames, frame_num after 16.
        let mut caller = Caller::start(Manner { map: false, ..Manner::of(cudaVideoCodec_H264) });
        assert_eq!(caller.parse(&fields::sets(2), 0, 0), 0);
        let frames: Vec<_> = (0..90)
            .map(|n| ([fields::field(n, false), fields::field(n, true)].concat(), i64::from(n) * FRAME))
            .collect();
        caller.play(&frames, END_OF_PICTURE);
        let order: Vec<usize> = caller.shown.iter().map(|shown| shown.packet).collect();
        assert_eq!(times(&caller), (0..90).map(|n| n * FRAME).collect::<Vec<_>>());
        assert_eq!(order[..88], (3..91).collect::<Vec<_>>(), "two frames wait");
        caller.end();
        // x265 writes 6 bits here; open groups go on counting.
        let source = "-f lavfi -i testsrc2=s=320x184:r=25,format=yuv420p -frames:v 90";
        let clip = hevc("hevc-wrap", source, "keyint=60:open-gop=1:bframes=3:log2-max-poc-lsb=4");
        let mut caller = equals_ffmpeg(&clip, WHOLE, false, Manner::of(cudaVideoCodec_HEVC));
        caller.end();
    };
    let Some(driver) = alone("picture_order_goes_on_where_its_counts_wrap", |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn a_picture_that_was_lost_leaves_the_others_in_their_places() {
    let body = || {
        let encoders = [
            (cudaVideoCodec_H264, "-c:v libx264 -g 20 -bf 0 -preset fast -x264-params ref=1:scenecut=0"),
            (cudaVideoCodec_HEVC, "-c:v libx265 -x265-params log-level=none:keyint=20:bframes=0:ref=1:scenecut=0"),
            (cudaVideoCodec_MPEG2, "-c:v mpeg2video -g 20 -bf 0 -b:v 2M"),
        ];
        for (codec, encoder) in encoders {
            let clip = Clip::make(&format!("lost-{}", codec as u32), &format!("{SOURCE} {encoder}"));
            let reference = clip.reference(bytes_of(320, 184, false), "yuv420p");
            let mut caller = Caller::start(Manner::of(codec));
            caller.feed(&clip.packets[..3], END_OF_PICTURE);
            caller.play(&clip.packets[4..], END_OF_PICTURE);
            let expected = [&clip.times()[..3], &clip.times()[4..]].concat();
            assert_eq!(times(&caller), expected, "{codec:?}");
            same_pictures(&caller.pictures[..3], &reference[..3]);
            same_pictures(&caller.pictures[19..], &reference[20..]);
            // What refers to the lost one is a picture, not the grey or the copy that stands in for the lost one.
            let after = &caller.pictures[3];
            assert!(after.iter().any(|sample| *sample != after[0]) && *after != caller.pictures[2], "{codec:?}");
            let off = after.iter().zip(&reference[4]).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
            let off = off / after.len() as u64;
            // libavcodec's HEVC decoder predicts from grey.
            assert!(off < 20 || codec == cudaVideoCodec_HEVC, "{codec:?}: off by {off}");
            if codec != cudaVideoCodec_MPEG2 {
                assert_eq!(caller.shown[3].status, Ok(9), "{codec:?}: a reference is missing");
            }
            caller.end();
        }
    };
    let name = "a_picture_that_was_lost_leaves_the_others_in_their_places";
    let Some(driver) = alone(name, |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn no_more_surfaces_are_needed_than_was_said() {
    let body = || {
        let hevc = hevc("hevc-8", SOURCE, "keyint=12:bframes=3:slices=1");
        let clips = [(cudaVideoCodec_H264, h264("h264-b", "-bf 3 -preset medium")), (cudaVideoCodec_HEVC, hevc)];
        for (codec, clip) in clips {
            // As many more as the display queue holds.
            for delay in [0, 3] {
                let manner = Manner { surfaces_more: delay as i32, delay, ..Manner::of(codec) };
                equals_ffmpeg(&clip, WHOLE, false, manner).end();
            }
        }
    };
    let Some(driver) = alone("no_more_surfaces_are_needed_than_was_said", |d| d, body) else { return };
    driver.assert_clean();
}

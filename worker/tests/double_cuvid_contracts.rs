//! The double of libnvcuvid against callers that break its contracts, against damaged streams, and playing faults.
#![expect(unsafe_code, reason = "calls the driver's C ABI")]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../tests/support/clips.rs"]
mod clips;
#[path = "support/double.rs"]
mod double;
#[path = "support/nvdec.rs"]
mod nvdec;

use double::Driver;
use nvdec::{Api, Caller, Clip, END_OF_PICTURE, END_OF_STREAM, Manner, TIMESTAMP, alone, zeroed};
use nvidia_video_codec_sdk::sys::cuviddec::cudaVideoChromaFormat::*;
use nvidia_video_codec_sdk::sys::cuviddec::cudaVideoCodec::*;
use nvidia_video_codec_sdk::sys::cuviddec::*;
use std::sync::atomic::{AtomicU32, Ordering};

const INVALID_VALUE: u32 = 1;
const INVALID_CONTEXT: u32 = 201;
const MAP_FAILED: u32 = 205;
const INVALID_HANDLE: u32 = 400;
const NOT_SUPPORTED: u32 = 801;
const UNKNOWN: u32 = 999;

fn clip() -> Clip {
    let source = "-f lavfi -i testsrc2=s=320x240:r=25,format=yuv420p -frames:v 10";
    Clip::make("contracts", &format!("{source} -c:v libx264 -g 10 -bf 0 -preset fast"))
}

/// Another size, without B pictures.
fn other() -> Clip {
    let source = "-f lavfi -i testsrc2=s=256x144:r=25,format=yuv420p -frames:v 4";
    Clip::make("contracts-other", &format!("{source} -c:v libx264 -g 10 -bf 0 -preset fast"))
}

/// With the first five pictures decoded, nothing mapped.
fn begun() -> Box<Caller> {
    let mut caller = Caller::start(Manner { map: false, ..Manner::of(cudaVideoCodec_H264) });
    caller.feed(&clip().packets[..5], END_OF_PICTURE);
    caller
}

/// The sentences, each by its beginning, in the order in which contracts were broken.
#[track_caller]
fn assert_broken(driver: &Driver, expected: &[&str]) {
    let broken = driver.broken();
    assert_eq!(broken.len(), expected.len(), "{broken:#?}");
    for (ours, begin) in broken.iter().zip(expected) {
        assert!(ours.starts_with(begin), "{ours} is not {begin}");
    }
}

#[track_caller]
fn assert_nothing_lives(driver: &Driver) {
    let counts = driver.counts();
    let alive: Vec<_> = counts.iter().filter(|(what, count)| what.starts_with("live ") && **count != 0).collect();
    assert!(alive.is_empty(), "{alive:?}");
}

#[test]
fn what_the_card_can_not_decode_is_said_and_refused() {
    let body = || {
        let api = Api::load();
        let caps = api.caps(cudaVideoCodec_H264, cudaVideoChromaFormat_420, 8);
        assert_eq!((caps.bIsSupported, caps.nNumNVDECs, caps.nOutputFormatMask), (1, 2, 1));
        assert_eq!((caps.nMaxWidth, caps.nMaxHeight, caps.nMaxMBCount, caps.nMinWidth), (1920, 4096, 65536, 48));
        let deep = api.caps(cudaVideoCodec_HEVC, cudaVideoChromaFormat_420, 10);
        assert_eq!((deep.bIsSupported, deep.nOutputFormatMask, deep.nMinHeight), (1, 2, 144));
        let refused = [
            (cudaVideoCodec_H264, cudaVideoChromaFormat_420, 10),
            (cudaVideoCodec_H264, cudaVideoChromaFormat_422, 8),
            (cudaVideoCodec_HEVC, cudaVideoChromaFormat_422, 10),
            (cudaVideoCodec_MPEG2, cudaVideoChromaFormat_420, 8),
            (cudaVideoCodec_AV1, cudaVideoChromaFormat_420, 8),
            (cudaVideoCodec_VP9, cudaVideoChromaFormat_420, 8),
        ];
        for (codec, chroma, depth) in refused {
            let caps = api.caps(codec, chroma, depth);
            assert_eq!((caps.bIsSupported, caps.nMaxWidth, caps.nOutputFormatMask, caps.nNumNVDECs), (0, 0, 0, 0));
        }
        let mut caller = Caller::with(api, Manner { map: false, ..Manner::of(cudaVideoCodec_H264) });
        caller.in_sequence = Some(|caller, info| {
            let mut decoder = 0usize;
            let mut create = |info: &CUVIDDECODECREATEINFO| {
                let mut info = *info;
                caller.api.call2("cuvidCreateDecoder", &raw mut decoder, &raw mut info)
            };
            let plain = *info;
            assert_eq!(create(&CUVIDDECODECREATEINFO { bitDepthMinus8: 2, ..plain }), NOT_SUPPORTED);
            assert_eq!(
                create(&CUVIDDECODECREATEINFO { ChromaFormat: cudaVideoChromaFormat_444, ..plain }),
                NOT_SUPPORTED
            );
            assert_eq!(create(&CUVIDDECODECREATEINFO { CodecType: cudaVideoCodec_MPEG2, ..plain }), NOT_SUPPORTED);
            assert_eq!(create(&CUVIDDECODECREATEINFO { ulWidth: 1936, ..plain }), NOT_SUPPORTED);
            assert_eq!(create(&CUVIDDECODECREATEINFO { ulMaxWidth: 1936, ..plain }), NOT_SUPPORTED);
            assert_eq!(create(&CUVIDDECODECREATEINFO { ulWidth: 32, ..plain }), NOT_SUPPORTED);
        });
        caller.play(&clip().packets, END_OF_PICTURE);
        assert_eq!(caller.shown.len(), 10);
        caller.end();
    };
    let with = |driver: Driver| {
        driver.setting("nvdec.count", 2).setting("nvdec.max_width", 1920).setting("nvdec.codecs", "h264, hevc, av1")
    };
    let Some(driver) = alone("what_the_card_can_not_decode_is_said_and_refused", with, body) else { return };
    driver.assert_clean();
}

#[test]
fn a_decoder_made_wrongly_is_refused_in_a_sentence() {
    let body = || {
        let mut caller = Caller::start(Manner { map: false, ..Manner::of(cudaVideoCodec_H264) });
        caller.in_sequence = Some(|caller, info| {
            let plain = *info;
            let create = |info: CUVIDDECODECREATEINFO| {
                let (mut decoder, mut info) = (0usize, info);
                caller.api.call2("cuvidCreateDecoder", &raw mut decoder, &raw mut info)
            };
            assert_eq!(create(CUVIDDECODECREATEINFO { ulNumDecodeSurfaces: 33, ..plain }), INVALID_VALUE);
            assert_eq!(create(CUVIDDECODECREATEINFO { ulNumDecodeSurfaces: 0, ..plain }), INVALID_VALUE);
            assert_eq!(create(CUVIDDECODECREATEINFO { ulNumOutputSurfaces: 0, ..plain }), INVALID_VALUE);
            assert_eq!(create(CUVIDDECODECREATEINFO { ulTargetWidth: 160, ..plain }), INVALID_VALUE);
            assert_eq!(create(CUVIDDECODECREATEINFO { ulMaxHeight: 144, ..plain }), INVALID_VALUE);
            let mut area = plain;
            area.display_area.right = 400;
            assert_eq!(create(area), INVALID_VALUE);
            let format = cudaVideoSurfaceFormat::cudaVideoSurfaceFormat_P016;
            assert_eq!(create(CUVIDDECODECREATEINFO { OutputFormat: format, ..plain }), NOT_SUPPORTED);
            assert_eq!(
                caller.api.call2("cuvidCreateDecoder", std::ptr::null_mut::<usize>(), &raw const plain),
                INVALID_VALUE
            );
            caller.api.make_current(0);
            assert_eq!(create(plain), INVALID_CONTEXT);
            caller.api.make_current(caller.api.context());
        });
        caller.play(&clip().packets, END_OF_PICTURE);
        caller.end();
    };
    let Some(driver) = alone("a_decoder_made_wrongly_is_refused_in_a_sentence", |d| d, body) else { return };
    assert_broken(
        &driver,
        &[
            "cuvidCreateDecoder: 33 decode surfaces",
            "cuvidCreateDecoder: 0 decode surfaces",
            "cuvidCreateDecoder: no output surface",
            "cuvidCreateDecoder: scaling",
            "cuvidCreateDecoder: ulWidth or ulHeight over",
            "cuvidCreateDecoder: display area",
            "cuvidCreateDecoder: an output format",
            "cuvidCreateDecoder: a null pointer",
            "cuvidCreateDecoder: no context is current",
        ],
    );
    assert_nothing_lives(&driver);
}

#[test]
fn mapping_keeps_to_what_was_decoded_and_to_the_output_surfaces() {
    let body = || {
        let mut caller = begun();
        let (api, decoder) = (&caller.api, caller.decoder);
        let shown: Vec<i32> = caller.shown.iter().map(|shown| shown.index).collect();
        let mut how = zeroed::<CUVIDPROCPARAMS>();
        how.progressive_frame = 1;
        let (one, _) = api.map(decoder, shown[3], &mut how).unwrap();
        let (two, _) = api.map(decoder, shown[4], &mut how).unwrap();
        assert_ne!(one, two);
        assert_eq!(api.map(decoder, shown[4], &mut how), Err(MAP_FAILED));
        assert_eq!(api.unmap(decoder, one), 0);
        assert_eq!(api.unmap(decoder, one), INVALID_VALUE);
        assert_eq!(api.unmap(decoder, two + 512), INVALID_VALUE);
        assert_eq!(api.map(decoder, 31, &mut how), Err(INVALID_VALUE));
        let unused = (0..5).find(|index| !shown.contains(index)).unwrap_or(shown.len() as i32);
        assert_eq!(api.map(decoder, unused, &mut how), Err(INVALID_VALUE));
        api.make_current(0);
        assert_eq!(api.map(decoder, shown[4], &mut how), Err(INVALID_CONTEXT));
        assert_eq!(api.unmap(decoder, two), INVALID_CONTEXT);
        assert_eq!(api.call("cuvidDestroyDecoder", decoder), INVALID_CONTEXT);
        api.make_current(api.context());
        // It is destroyed with a frame mapped, and used afterwards.
        assert_eq!(api.call("cuvidDestroyDecoder", decoder), 0);
        assert_eq!(api.unmap(decoder, two), INVALID_HANDLE);
        assert_eq!(api.map(decoder, shown[4], &mut how), Err(INVALID_HANDLE));
        assert_eq!(api.status(decoder, shown[4]), Err(INVALID_HANDLE));
        assert_eq!(api.call("cuvidDestroyDecoder", decoder), INVALID_HANDLE);
        // The decode callback calls into it, too.
        let next = &clip().packets[5];
        assert_eq!(caller.parse(&next.0, END_OF_PICTURE | TIMESTAMP, next.1), 0);
        assert_eq!(caller.failed.remove("decode"), Some(vec![INVALID_HANDLE]));
        caller.decoder = 0;
        caller.end();
    };
    let name = "mapping_keeps_to_what_was_decoded_and_to_the_output_surfaces";
    let Some(driver) = alone(name, |d| d, body) else { return };
    let gone = "a handle that does not live";
    assert_broken(
        &driver,
        &[
            "cuvidMapVideoFrame64: all 2 output surfaces",
            "cuvidUnmapVideoFrame64: an address",
            "cuvidUnmapVideoFrame64: an address",
            "cuvidMapVideoFrame64: picture index 31",
            "cuvidMapVideoFrame64: nothing was decoded",
            "cuvidMapVideoFrame64: no context",
            "cuvidUnmapVideoFrame64: no context",
            "cuvidDestroyDecoder: no context",
            "cuvidDestroyDecoder: 1 frames are still mapped",
            &format!("cuvidUnmapVideoFrame64: {gone}"),
            &format!("cuvidMapVideoFrame64: {gone}"),
            &format!("cuvidGetDecodeStatus: {gone}"),
            &format!("cuvidDestroyDecoder: {gone}"),
            &format!("cuvidDecodePicture: {gone}"),
            // The display callback asked for the status.
            &format!("cuvidGetDecodeStatus: {gone}"),
        ],
    );
    assert_nothing_lives(&driver);
}

#[test]
fn a_mapped_surface_is_not_decoded_into() {
    let body = || {
        // As few surfaces as the stream needs, and one is never given back.
        let mut caller = Caller::start(Manner { map: false, surfaces_more: 0, ..Manner::of(cudaVideoCodec_H264) });
        let packets = clip().packets;
        caller.feed(&packets[..1], END_OF_PICTURE);
        let mut how = zeroed::<CUVIDPROCPARAMS>();
        let (at, _) = caller.api.map(caller.decoder, caller.shown[0].index, &mut how).unwrap();
        caller.feed(&packets[1..], END_OF_PICTURE);
        assert_eq!(caller.api.unmap(caller.decoder, at), 0);
        assert_eq!(caller.shown.len(), 10, "a card decodes all the same");
        caller.end();
    };
    let Some(driver) = alone("a_mapped_surface_is_not_decoded_into", |d| d, body) else { return };
    let broken = driver.broken();
    assert!(!broken.is_empty() && broken.iter().all(|said| said.contains("is still mapped, and another picture")));
    assert_nothing_lives(&driver);
}

#[test]
fn too_few_surfaces_lose_pictures_and_show_no_wrong_ones() {
    let body = || {
        let source = "-f lavfi -i testsrc2=s=320x240:r=25,format=yuv420p -frames:v 20";
        let clip = Clip::make("contracts-b", &format!("{source} -c:v libx264 -g 20 -bf 3 -preset medium"));
        let reference = clip.reference(320 * 240 * 3 / 2, "yuv420p");
        let times = clip.times();
        // More wait to be shown than there are surfaces; fewer surfaces than the stream needs.
        let manner = Manner::of(cudaVideoCodec_H264);
        for manner in [Manner { delay: 9, surfaces_more: 0, ..manner }, Manner { answers: (Some(2), 1, 1), ..manner }] {
            let mut caller = Caller::start(manner);
            caller.play(&clip.packets, END_OF_PICTURE);
            assert!(caller.shown.len() < 20);
            // The first is whole in any case, and still there when its turn comes.
            let first = caller.shown.iter().position(|shown| shown.time == times[0]).unwrap();
            assert!(caller.pictures[first] == reference[0]);
            caller.end();
        }
    };
    let name = "too_few_surfaces_lose_pictures_and_show_no_wrong_ones";
    let Some(driver) = alone(name, |d| d, body) else { return };
    let broken = driver.broken();
    let few = broken.iter().filter(|said| said.contains("decode surfaces are too few, a picture is lost")).count();
    let two = broken.iter().filter(|said| said.contains("2 decode surfaces are too few")).count();
    assert!(few > two && two > 0 && few + 1 == broken.len(), "{broken:#?}");
    assert_nothing_lives(&driver);
}

#[test]
fn a_sequence_callback_answers_truly_and_leaves_no_decoder_behind() {
    let body = || {
        // 0: it failed. Nothing is decoded before another sequence comes.
        let mut caller = Caller::start(Manner { answers: (Some(0), 1, 1), ..Manner::of(cudaVideoCodec_H264) });
        let (large, small) = (clip().packets, other().packets);
        for (data, _) in &large[..3] {
            assert_eq!(caller.parse(data, END_OF_PICTURE, 0), UNKNOWN);
        }
        assert_eq!((caller.told.len(), caller.coded.len()), (1, 0));
        caller.manner.answers.0 = None;
        caller.feed(&small, END_OF_PICTURE);
        assert_eq!((caller.told.len(), caller.shown.len()), (2, 4));
        caller.end();
        // 1: as many as the parser was made with, which was 1.
        let mut caller = Caller::start(Manner { answers: (Some(1), 1, 1), ..Manner::of(cudaVideoCodec_H264) });
        caller.feed(&large[..1], END_OF_PICTURE);
        caller.end();
        // The decoder of the first sequence is made again over the old one.
        let mut caller = Caller::start(Manner { map: false, ..Manner::of(cudaVideoCodec_H264) });
        caller.feed(&large[..3], END_OF_PICTURE);
        let old = std::mem::take(&mut caller.decoder);
        caller.feed(&small[..2], END_OF_PICTURE);
        // Pictures of the new size do not go into the old decoder.
        let new = std::mem::replace(&mut caller.decoder, old);
        caller.feed(&small[2..3], END_OF_PICTURE);
        assert_eq!(caller.failed.remove("decode"), Some(vec![INVALID_VALUE]));
        assert_eq!(caller.api.call("cuvidDestroyDecoder", new), 0);
        caller.end();
    };
    let name = "a_sequence_callback_answers_truly_and_leaves_no_decoder_behind";
    let Some(driver) = alone(name, |d| d, body) else { return };
    assert_broken(
        &driver,
        &[
            "pfnSequenceCallback: 1 decode surfaces, the stream needs",
            "cuvidCreateDecoder: the decoder of an earlier sequence",
            "cuvidDecodePicture: a picture of 16x9 macroblocks in a decoder for 320x240",
        ],
    );
    assert_nothing_lives(&driver);
}

#[test]
fn reconfiguring_keeps_within_the_callback_and_the_maximum() {
    let body = || {
        let mut caller = begun();
        let mut again = zeroed::<CUVIDRECONFIGUREDECODERINFO>();
        (again.ulWidth, again.ulHeight, again.ulTargetWidth, again.ulTargetHeight) = (256, 144, 256, 144);
        again.ulNumDecodeSurfaces = 4;
        let outside = caller.api.call2("cuvidReconfigureDecoder", caller.decoder, &raw mut again);
        assert_eq!(outside, INVALID_VALUE);
        let mut how = zeroed::<CUVIDPROCPARAMS>();
        let (at, _) = caller.api.map(caller.decoder, caller.shown[4].index, &mut how).unwrap();
        caller.manner.reconfigure = true;
        static MAPPED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        MAPPED.store(at, Ordering::Relaxed);
        caller.in_sequence = Some(|caller, info| {
            let mut again = zeroed::<CUVIDRECONFIGUREDECODERINFO>();
            (again.ulWidth, again.ulHeight, again.ulTargetWidth, again.ulTargetHeight) = (656, 144, 656, 144);
            again.ulNumDecodeSurfaces = info.ulNumDecodeSurfaces as u32;
            let ask = |again: &CUVIDRECONFIGUREDECODERINFO| {
                let mut again = *again;
                caller.api.call2("cuvidReconfigureDecoder", caller.decoder, &raw mut again)
            };
            assert_eq!(ask(&again), INVALID_VALUE);
            (again.ulWidth, again.ulTargetWidth) = (256, 256);
            assert_eq!(ask(&again), INVALID_VALUE, "a frame is mapped");
            assert_eq!(caller.api.unmap(caller.decoder, MAPPED.load(Ordering::Relaxed)), 0);
            again.ulNumDecodeSurfaces = 33;
            assert_eq!(ask(&again), INVALID_VALUE);
        });
        caller.feed(&other().packets, END_OF_PICTURE);
        assert_eq!(caller.shown.len(), 9);
        caller.end();
    };
    let name = "reconfiguring_keeps_within_the_callback_and_the_maximum";
    let Some(driver) = alone(name, |d| d, body) else { return };
    assert_broken(
        &driver,
        &[
            "cuvidReconfigureDecoder: outside of the sequence callback",
            "cuvidReconfigureDecoder: 656x144 over the 640x480",
            "cuvidReconfigureDecoder: frames are still mapped",
            "cuvidReconfigureDecoder: 33 decode surfaces",
        ],
    );
    assert_nothing_lives(&driver);
}

#[test]
fn a_parser_is_fed_by_the_header_and_from_outside() {
    let body = || {
        let mut caller = begun();
        let packets = clip().packets;
        assert_eq!(caller.parse(&packets[5].0, 0x20, 0), INVALID_VALUE);
        assert_eq!(caller.parse(&[], TIMESTAMP, 0), INVALID_VALUE);
        let delimited: Vec<u8> =
            packets[5..7].iter().flat_map(|(data, _)| [&[0, 0, 0, 1, 9, 240][..], data].concat()).collect();
        assert_eq!(caller.parse(&delimited, END_OF_PICTURE, 0), 0);
        let parser = caller.parser;
        let again = caller.api.call2("cuvidParseVideoData", parser, std::ptr::null_mut::<u8>());
        assert_eq!(again, INVALID_VALUE);
        // A callback that fails is the call's result; the picture is not shown.
        caller.manner.answers.1 = 0;
        assert_eq!(caller.parse(&packets[7].0, END_OF_PICTURE, 0), UNKNOWN);
        assert_eq!(caller.shown.len(), 7);
        caller.manner.answers = (None, 1, 0);
        assert_eq!(caller.parse(&packets[8].0, END_OF_PICTURE, 0), UNKNOWN);
        assert_eq!(caller.shown.len(), 8);
        caller.manner.answers.2 = 1;
        // From within a callback the parser is at work.
        static ASKED: AtomicU32 = AtomicU32::new(0);
        caller.in_sequence = Some(|caller, _| {
            ASKED.store(caller.api.call("cuvidDestroyVideoParser", caller.parser), Ordering::Relaxed);
        });
        caller.feed(&other().packets, END_OF_PICTURE);
        assert_eq!(ASKED.load(Ordering::Relaxed), INVALID_VALUE);
        let mut params = caller.parser_params();
        params.pfnDecodePicture = None;
        let mut made = 0usize;
        assert_eq!(caller.api.call2("cuvidCreateVideoParser", &raw mut made, &raw mut params), INVALID_VALUE);
        params = caller.parser_params();
        params.ulErrorThreshold = 101;
        assert_eq!(caller.api.call2("cuvidCreateVideoParser", &raw mut made, &raw mut params), INVALID_VALUE);
        params = caller.parser_params();
        params.CodecType = cudaVideoCodec_VP8;
        assert_eq!(caller.api.call2("cuvidCreateVideoParser", &raw mut made, &raw mut params), NOT_SUPPORTED);
        assert_eq!(caller.api.call("cuvidDestroyVideoParser", parser + 1), INVALID_HANDLE);
        let mut picture = zeroed::<CUVIDPICPARAMS>();
        (picture.PicWidthInMbs, picture.FrameHeightInMbs) = (16, 9);
        assert_eq!(caller.api.call2("cuvidDecodePicture", caller.decoder, &raw mut picture), INVALID_VALUE);
        caller.end();
        assert_eq!(caller.parse(&packets[0].0, 0, 0), INVALID_HANDLE);
    };
    let Some(driver) = alone("a_parser_is_fed_by_the_header_and_from_outside", |d| d, body) else { return };
    assert_broken(
        &driver,
        &[
            "cuvidParseVideoData: a packet flag",
            "cuvidParseVideoData: an empty packet",
            "cuvidParseVideoData: CUVID_PKT_ENDOFPICTURE",
            "cuvidParseVideoData: a null pointer",
            "cuvidDestroyVideoParser: within a callback",
            "cuvidCreateVideoParser: no sequence or no decode callback",
            "cuvidCreateVideoParser: ulErrorThreshold",
            "cuvidDestroyVideoParser: a handle",
            "cuvidDecodePicture: picture parameters that no parser",
            "cuvidParseVideoData: a handle",
        ],
    );
    assert_nothing_lives(&driver);
}

#[test]
fn a_context_lock_makes_its_context_current() {
    let body = || {
        let mut caller = Caller::start(Manner { map: true, ..Manner::of(cudaVideoCodec_H264) });
        let mut lock = 0usize;
        assert_eq!(caller.api.call2("cuvidCtxLockCreate", &raw mut lock, caller.api.context()), 0);
        static LOCK: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        LOCK.store(lock, Ordering::Relaxed);
        caller.in_sequence =
            Some(|_, info| info.vidLock = std::ptr::without_provenance_mut(LOCK.load(Ordering::Relaxed)));
        caller.manner.map = false;
        // A floating context: none is current but within the lock.
        caller.api.make_current(0);
        caller.feed(&clip().packets, END_OF_PICTURE);
        assert_eq!((caller.shown.len(), caller.failed.len()), (10, 0));
        assert_eq!(caller.api.call2("cuvidCtxLock", lock, 0u32), 0);
        assert_eq!(caller.api.call("cuvidCtxLockDestroy", lock + 16), INVALID_HANDLE);
        let mut how = zeroed::<CUVIDPROCPARAMS>();
        let (at, _) = caller.api.map(caller.decoder, caller.shown[9].index, &mut how).unwrap();
        assert_eq!(caller.api.unmap(caller.decoder, at), 0);
        assert_eq!(caller.api.call2("cuvidCtxUnlock", lock, 0u32), 0);
        assert_eq!(caller.api.call2("cuvidCtxUnlock", lock, 0u32), INVALID_VALUE);
        caller.end();
        assert_eq!(caller.api.call("cuvidCtxLockDestroy", lock), 0);
    };
    let Some(driver) = alone("a_context_lock_makes_its_context_current", |d| d, body) else { return };
    assert_broken(&driver, &["cuvidCtxLockDestroy: no such", "cuvidCtxUnlock: the calling thread does not hold"]);
    assert_nothing_lives(&driver);
}

/// Numbers that look like chance: SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) % bound as u64) as usize
    }
}

fn damaged_clips() -> [(cudaVideoCodec, Clip); 3] {
    let source = "-f lavfi -i testsrc2=s=320x240:r=25,format=yuv420p -frames:v 20";
    let make = |name, options: &str| Clip::make(name, &format!("{source} {options}"));
    let x265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=8:bframes=2";
    [
        (cudaVideoCodec_H264, make("damage-h264", "-c:v libx264 -g 8 -bf 2 -slices 3 -preset fast")),
        (cudaVideoCodec_HEVC, make("damage-hevc", x265)),
        (cudaVideoCodec_MPEG2, make("damage-mpeg2", "-c:v mpeg2video -g 8 -bf 2 -b:v 2M")),
    ]
}

#[test]
fn damage_is_concealed_and_said_and_crashes_nothing() {
    let body = || {
        let mut chance = Chance(5);
        for (codec, clip) in damaged_clips() {
            let (mut errors, mut shown) = (0, 0);
            for round in 0..8 {
                let mut caller = Caller::start(Manner { stream: round % 2 == 0, ..Manner::of(codec) });
                for (data, time) in &clip.packets {
                    let mut data = data.clone();
                    // A picture in three is hit, headers too; some are cut short.
                    if chance.below(3) == 0 {
                        for _ in 0..=chance.below(20) {
                            let at = chance.below(data.len());
                            data[at] = chance.below(256) as u8;
                        }
                        if chance.below(4) == 0 {
                            data.truncate(chance.below(data.len()) + 1);
                        }
                    }
                    // Whatever is answered: the next picture is tried.
                    let flags = if round % 3 == 0 { 0 } else { END_OF_PICTURE };
                    caller.parse(&data, flags | TIMESTAMP, *time);
                }
                caller.parse(&[], END_OF_STREAM, 0);
                shown += caller.shown.len();
                errors += caller.shown.iter().filter(|shown| matches!(shown.status, Ok(8 | 9))).count();
                // Sizes that no card decodes are refused.
                assert!(
                    caller.failed.remove("create").is_none_or(|codes| codes.iter().all(|code| *code == NOT_SUPPORTED))
                );
                caller.end();
            }
            assert!(shown > 80, "{codec:?}: {shown} pictures shown");
            let least = if codec == cudaVideoCodec_H264 { 30 } else { 3 };
            assert!(codec == cudaVideoCodec_MPEG2 || errors > least, "{codec:?}: {errors} errors of {shown}");
            assert!(codec != cudaVideoCodec_MPEG2 || errors == 0);
        }
    };
    let Some(driver) = alone("damage_is_concealed_and_said_and_crashes_nothing", |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn an_unhurt_stream_behind_damage_is_whole_again() {
    let body = || {
        for (codec, clip) in damaged_clips() {
            let reference = clip.reference(320 * 240 * 3 / 2, "yuv420p");
            let mut caller = Caller::start(Manner::of(codec));
            for (at, (data, time)) in clip.packets.iter().enumerate() {
                // The second picture's slices are lost from their middle on.
                let data = if at == 1 { &data[..data.len() / 2] } else { data };
                assert_eq!(caller.parse(data, END_OF_PICTURE | TIMESTAMP, *time), 0);
            }
            assert_eq!(caller.parse(&[], END_OF_STREAM, 0), 0);
            assert_eq!(caller.pictures.len(), reference.len());
            let same = |at: usize| caller.pictures[at] == reference[at];
            assert!(same(0) && (1..8).any(|at| !same(at)), "{codec:?}");
            assert!((16..20).all(same), "{codec:?}: from the intra picture after the next on");
            if codec == cudaVideoCodec_H264 {
                let hurt: Vec<_> = caller.shown.iter().filter(|shown| shown.status == Ok(9)).collect();
                assert_eq!((hurt.len(), hurt[0].time), (1, clip.packets[1].1), "{hurt:?}");
            }
            caller.end();
        }
    };
    let Some(driver) = alone("an_unhurt_stream_behind_damage_is_whole_again", |d| d, body) else { return };
    driver.assert_clean();
}

#[test]
fn bytes_that_are_no_stream_decode_to_nothing() {
    let body = || {
        let mut chance = Chance(11);
        for codec in [cudaVideoCodec_H264, cudaVideoCodec_HEVC, cudaVideoCodec_MPEG2, cudaVideoCodec_AV1] {
            let mut caller = Caller::start(Manner::of(codec));
            for round in 0..400 {
                let mut bytes: Vec<u8> = (0..=chance.below(3000)).map(|_| chance.below(256) as u8).collect();
                // Start codes, and headers that look like parameter sets and slices.
                for at in (0..bytes.len().saturating_sub(6)).step_by(1 + chance.below(200)) {
                    bytes[at..at + 3].copy_from_slice(&[0, 0, 1]);
                    let heads = [0x67, 0x68, 0x65, 0x41, 0x06, 0x42, 0x44, 0x26, 0x40, 0xB3, 0xB5, 0x00, 0x01];
                    bytes[at + 3] = heads[chance.below(heads.len())];
                }
                let flags = [0, END_OF_PICTURE, END_OF_STREAM][round % 3];
                caller.parse(&bytes, flags | TIMESTAMP, round as i64);
            }
            caller.failed.clear();
            caller.end();
        }
    };
    let with = |driver: Driver| driver.setting("av1_decode", 1);
    let Some(driver) = alone("bytes_that_are_no_stream_decode_to_nothing", with, body) else { return };
    assert_nothing_lives(&driver);
}

#[test]
fn faults_are_played_where_they_are_planned() {
    let body = || {
        let api = Api::load();
        let mut caps = zeroed::<CUVIDDECODECAPS>();
        assert_eq!(api.call("cuvidGetDecoderCaps", &raw mut caps), UNKNOWN);
        let mut caller = Caller::with(api, Manner::of(cudaVideoCodec_H264));
        // The first decoder can not be made.
        let packets = clip().packets;
        assert_eq!(caller.parse(&packets[0].0, END_OF_PICTURE, 0), UNKNOWN);
        assert_eq!(caller.failed.remove("create"), Some(vec![2]));
        assert_eq!(caller.parse(&[], END_OF_STREAM, 0), 0);
        // Then: the second picture is not decoded, the fifth fails in the chip, the sixth is concealed, the fourth is not
        // mapped; of the seventh packet the parser wants nothing.
        for (at, (data, time)) in packets.iter().enumerate() {
            let answer = caller.parse(data, END_OF_PICTURE | TIMESTAMP, *time);
            assert_eq!(answer, if at == 6 { 700 } else { 0 }, "packet {at}");
        }
        assert_eq!(caller.failed.remove("decode"), Some(vec![719]));
        assert_eq!(caller.failed.remove("map"), Some(vec![205, 205]), "what was not decoded, and the planned one");
        let status: Vec<_> = caller.shown.iter().map(|shown| shown.status.unwrap()).collect();
        // The third and the eighth picture miss a reference.
        assert_eq!(status, [2, 0, 9, 2, 8, 9, 9, 2, 2]);
        caller.end();
    };
    let with = |driver: Driver| {
        driver
            .fault("cuvid.caps code=999 times=1")
            .fault("cuvid.create code=2 times=1")
            .fault("cuvid.decode code=719 after=1 times=1")
            .fault("cuvid.decode error after=2 times=1")
            .fault("cuvid.decode concealed times=1")
            .fault("cuvid.map code=205 after=1 times=1")
            .fault("cuvid.map code=205 after=1 times=1 ")
            .fault("cuvid.parse code=700 after=8 times=1")
    };
    let Some(driver) = alone("faults_are_played_where_they_are_planned", with, body) else { return };
    driver.assert_clean();
    assert_eq!(driver.count("faults played"), 8);
}

#[test]
fn a_decoder_that_finds_no_memory_leaves_nothing() {
    let body = || {
        let mut caller = Caller::start(Manner::of(cudaVideoCodec_H264));
        assert_eq!(caller.parse(&clip().packets[0].0, END_OF_PICTURE, 0), UNKNOWN);
        assert_eq!(caller.failed.remove("create"), Some(vec![2]));
        caller.end();
    };
    let with = |driver: Driver| driver.setting("gpu0.memory_mb", 0);
    let Some(driver) = alone("a_decoder_that_finds_no_memory_leaves_nothing", with, body) else { return };
    driver.assert_clean();
}

#[test]
fn what_was_unmapped_can_be_spoiled() {
    let body = || {
        let caller = &mut begun();
        let mut how = zeroed::<CUVIDPROCPARAMS>();
        let (at, pitch) = caller.api.map(caller.decoder, caller.shown[4].index, &mut how).unwrap();
        let before = caller.api.download(at, 240 * pitch as usize);
        assert_eq!(caller.api.unmap(caller.decoder, at), 0);
        let after = caller.api.download(at, 240 * pitch as usize);
        assert!(before.iter().any(|byte| *byte != 0xA5) && after.iter().all(|byte| *byte == 0xA5));
        caller.end();
    };
    let Some(driver) = alone("what_was_unmapped_can_be_spoiled", |d| d.setting("cuvid.spoil", 1), body) else { return };
    driver.assert_clean();
}

#[test]
fn many_lives_leave_nothing_behind() {
    let body = || {
        let packets = [clip().packets, other().packets].concat();
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let mut first = 0;
        for life in 0..60 {
            let mut caller = Caller::start(Manner::of(cudaVideoCodec_H264));
            caller.feed(&packets, END_OF_PICTURE);
            // Some end in the middle of a picture, without the end of the stream.
            assert_eq!(caller.parse(&packets[0].0[..100], 0, 0), 0);
            assert_eq!(caller.shown.len(), 14);
            caller.end();
            if life == 9 {
                first = resident();
            }
        }
        let grown = resident().saturating_sub(first);
        // A picture is 115 KiB: one kept in each life would be 6 MiB.
        assert!(grown < 3 << 20, "{grown} bytes more than after ten lives");
    };
    let Some(driver) = alone("many_lives_leave_nothing_behind", |d| d, body) else { return };
    driver.assert_clean();
    assert_eq!((driver.count("decoders created"), driver.count("frames mapped")), (120, 840));
}

#[test]
fn a_decoder_that_hangs_holds_up_no_other() {
    let body = || {
        let mut stuck = begun();
        let (decoder, index) = (stuck.decoder, stuck.shown[4].index);
        // The map takes 8 s; meanwhile another channel plays from beginning to end.
        std::thread::scope(|scope| {
            let map = scope.spawn(move || {
                let api = Api::load();
                let mut how = zeroed::<CUVIDPROCPARAMS>();
                let (at, _) = api.map(decoder, index, &mut how).unwrap();
                assert_eq!(api.unmap(decoder, at), 0);
                api.release();
            });
            let mut other = Caller::start(Manner { map: false, ..Manner::of(cudaVideoCodec_H264) });
            let played = || count("libnvcuvid", "faults played") == 1;
            while !played() {
                assert!(!map.is_finished(), "the map ended without its fault");
                std::thread::yield_now();
            }
            other.play(&clip().packets, END_OF_PICTURE);
            assert_eq!(other.shown.len(), 10);
            other.end();
            assert!(!map.is_finished(), "the other one was not held up");
            map.join().unwrap();
        });
        stuck.end();
    };
    let with = |driver: Driver| driver.fault("cuvid.map sleep=8000 times=1");
    let Some(driver) = alone("a_decoder_that_hangs_holds_up_no_other", with, body) else { return };
    driver.assert_clean();
}

/// What a double has counted so far in this process.
fn count(library: &str, what: &str) -> i64 {
    let folder = std::path::PathBuf::from(std::env::var_os("RUNG_DOUBLE_REPORT").unwrap());
    let text = std::fs::read_to_string(folder.join(format!("{library}.{}.count", std::process::id()))).unwrap();
    let line = text.lines().filter_map(|line| line.rsplit_once(' ')).find(|(counted, _)| *counted == what);
    line.map_or(0, |(_, number)| number.parse().unwrap())
}

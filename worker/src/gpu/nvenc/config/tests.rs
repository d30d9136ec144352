use super::*;
use rung::media::channel::VideoCodec;
use rung::media::modes::LatencyMode;

fn rendition() -> OpenRendition {
    OpenRendition {
        name: "720p".to_owned(),
        codec: VideoCodec::H264,
        width: 1280,
        height: 720,
        sar: (1, 1),
        bitrate: 2_800_000,
        vbv_ms: 500,
        bframes: 0,
        lookahead: 5,
        preset: String::new(),
        extra: String::new(),
        threads: 1,
        colour: Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false },
    }
}

fn caps() -> EncodeCaps {
    EncodeCaps {
        width_min: 145,
        height_min: 49,
        width_max: 4096,
        height_max: 4096,
        bframes_max: 4,
        lookahead: true,
        temporal_aq: true,
        ten_bit: true,
        custom_vbv: true,
        retune: true,
        engines: 2,
    }
}

const H264: Format = Format { codec: Codec::H264, depth: Depth::Eight };
const HEVC_TEN: Format = Format { codec: Codec::Hevc, depth: Depth::Ten };

fn cadence() -> Cadence {
    Cadence::for_rate(30.0, LatencyMode::Ultra)
}

fn settings(rendition: &OpenRendition, format: Format, caps: &EncodeCaps) -> Settings {
    Settings::of(rendition, format, cadence(), caps).unwrap()
}

/// The configuration as the bindings read it: offsets, widths and bit places are theirs, not ours.
fn written(settings: &Settings) -> Box<Preset> {
    let mut raw = Raw::<Preset>::versioned(sys::NV_ENC_PRESET_CONFIG_VER);
    settings.write_config(&mut raw);
    valid(&mut raw)
}

fn initial(settings: &Settings) -> Box<Init> {
    let mut raw = Raw::<Init>::zeroed();
    settings.write_init(&mut raw, 0x1234_5678);
    valid(&mut raw)
}

#[expect(unsafe_code, reason = "reads what was written through the bindings' own types")]
fn valid<T: Copy>(raw: &mut Raw<T>) -> Box<T> {
    // SAFETY: aligned memory of the struct's size; every enum in it has a value that its header lists (the writers' own,
    // or 0 where 0 is listed: the tests would fail on others).
    Box::new(unsafe { *raw.at() })
}

fn h264(config: &Preset) -> sys::NV_ENC_CONFIG_H264 {
    #[expect(unsafe_code, reason = "a union of plain structs")]
    // SAFETY: the memory is set, and valid for each of its structs.
    unsafe {
        config.presetCfg.encodeCodecConfig.h264Config
    }
}

fn hevc(config: &Preset) -> sys::NV_ENC_CONFIG_HEVC {
    #[expect(unsafe_code, reason = "a union of plain structs")]
    // SAFETY: as above.
    unsafe {
        config.presetCfg.encodeCodecConfig.hevcConfig
    }
}

#[test]
fn structs_have_the_sizes_of_the_interface() {
    assert_eq!(size_of::<sys::NV_ENC_CONFIG>(), 3584);
    assert_eq!(size_of::<sys::NV_ENC_PRESET_CONFIG>(), 5128);
    assert_eq!(size_of::<sys::NV_ENC_PIC_PARAMS>(), 3360);
    assert_eq!(size_of::<sys::NV_ENC_LOCK_BITSTREAM>(), 1552);
    assert_eq!(size_of::<sys::NV_ENC_INITIALIZE_PARAMS>(), 1808);
    assert_eq!(size_of::<sys::NV_ENC_RECONFIGURE_PARAMS>(), 1824);
    assert_eq!(size_of::<sys::NV_ENC_REGISTER_RESOURCE>(), 1536);
    assert_eq!(size_of::<sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS>(), 1552);
    // Their version words, as 12.1's header makes them: minor in the top byte, a mark, the struct's, the major.
    let version = |own: u32, extended: u32| 12 | 1 << 24 | own << 16 | 7 << 28 | extended << 31;
    assert_eq!(sys::NV_ENC_CONFIG_VER, version(8, 1));
    assert_eq!(sys::NV_ENC_INITIALIZE_PARAMS_VER, version(6, 1));
    assert_eq!(sys::NV_ENC_PIC_PARAMS_VER, version(6, 1));
    assert_eq!(sys::NV_ENC_RECONFIGURE_PARAMS_VER, version(1, 1));
    assert_eq!(sys::NV_ENC_LOCK_BITSTREAM_VER, version(1, 1));
    assert_eq!(sys::NV_ENC_REGISTER_RESOURCE_VER, version(4, 0));
}

#[test]
fn ultra_is_low_latency_without_reordering() {
    let ultra = settings(&rendition(), H264, &caps());
    let text = "H.264 8 bit 1280x720 at 30000/1000 fps, P4 for low latency, 0 B, lookahead 0, 2800000 b/s";
    assert_eq!(ultra.to_string(), text);
    assert_eq!(ultra.held_back(), 0);
    let config = written(&ultra).presetCfg;
    assert_eq!((config.gopLength, config.frameIntervalP), (u32::MAX, 1));
    assert_eq!(config.profileGUID, sys::NV_ENC_H264_PROFILE_HIGH_GUID);
    let rate = config.rcParams;
    assert_eq!(rate.rateControlMode as u32, 2, "CBR");
    assert_eq!((rate.averageBitRate, rate.maxBitRate), (2_800_000, 2_800_000));
    assert_eq!((rate.vbvBufferSize, rate.vbvInitialDelay), (1_400_000, 1_260_000));
    assert_eq!((rate.enableAQ(), rate.aqStrength(), rate.enableTemporalAQ()), (1, 8, 1));
    assert_eq!((rate.enableLookahead(), rate.lookaheadDepth), (0, 0));
    assert_eq!((rate.zeroReorderDelay(), rate.strictGOPTarget(), rate.enableNonRefP()), (1, 1, 0));
    assert_eq!(
        (rate.enableMinQP(), rate.enableMaxQP(), rate.enableInitialRCQP(), rate.enableExtLookahead()),
        (0, 0, 0, 0)
    );
    assert_eq!(rate.multiPass as u32, 1, "a first pass at a quarter of the size");
}

#[test]
fn other_modes_have_a_fixed_pattern_of_b_frames_and_look_ahead() {
    let low = OpenRendition { bframes: 3, lookahead: 10, ..rendition() };
    let found = settings(&low, H264, &caps());
    let text = "H.264 8 bit 1280x720 at 30000/1000 fps, P4 for high quality, 2 B, lookahead 10, 2800000 b/s";
    assert_eq!(found.to_string(), text);
    assert_eq!(found.held_back(), 15);
    let config = written(&found).presetCfg;
    assert_eq!((config.gopLength, config.frameIntervalP), (240, 3), "an infinite GOP allows no B-frames");
    let rate = config.rcParams;
    assert_eq!((rate.enableLookahead(), rate.lookaheadDepth), (1, 10));
    assert_eq!((rate.disableIadapt(), rate.disableBadapt(), rate.zeroReorderDelay()), (1, 1, 0));
    let deep = OpenRendition { lookahead: 60, ..low };
    assert_eq!(settings(&deep, H264, &caps()).lookahead, 29, "31 less two B-frames");
}

#[test]
fn what_the_card_can_not_is_left_out() {
    let low = OpenRendition { bframes: 3, lookahead: 10, ..rendition() };
    let poor = EncodeCaps {
        bframes_max: 0,
        lookahead: false,
        temporal_aq: false,
        custom_vbv: false,
        ten_bit: false,
        ..caps()
    };
    let found = settings(&low, H264, &poor);
    assert_eq!((found.bframes, found.lookahead, found.gop), (0, 0, GopEnd::Never));
    assert_eq!(found.tuning, Tuning::HighQuality, "the mode decides about it, not the card");
    let rate = written(&found).presetCfg.rcParams;
    assert_eq!((rate.vbvBufferSize, rate.vbvInitialDelay, rate.enableTemporalAQ()), (0, 0, 0));
    assert_eq!(settings(&low, H264, &EncodeCaps { bframes_max: 1, ..caps() }).bframes, 1);
    let refused = |format, caps: &EncodeCaps, rendition: &OpenRendition| {
        Settings::of(rendition, format, cadence(), caps).unwrap_err().to_string()
    };
    assert!(refused(HEVC_TEN, &poor, &low).starts_with("HEVC with 10 bits on this GPU: unsupported parameter (12)"));
    let ten = Format { depth: Depth::Ten, ..H264 };
    assert!(refused(ten, &caps(), &low).starts_with("H.264 with 10 bits"), "no card has it");
    let tiny = OpenRendition { width: 144, ..rendition() };
    assert!(refused(H264, &caps(), &tiny).ends_with("it encodes even sizes from 145x49 to 4096x4096"));
    assert!(refused(H264, &caps(), &OpenRendition { height: 5000, ..rendition() }).contains("1280x5000"));
    assert!(refused(H264, &caps(), &OpenRendition { width: 1281, ..rendition() }).contains("1281x720"));
}

#[test]
fn the_codecs_own_part_repeats_headers_and_describes_the_picture() {
    let colour = Colour { primaries: 9, transfer: 16, matrix: 9, full_range: true };
    let asked = OpenRendition { colour, ..rendition() };
    let config = written(&settings(&asked, H264, &caps()));
    let own = h264(&config);
    assert_eq!((own.repeatSPSPPS(), own.outputAUD(), own.disableSPSPPS()), (1, 1, 0));
    assert_eq!(
        (own.outputBufferingPeriodSEI(), own.outputPictureTimingSEI(), own.enableFillerDataInsertion()),
        (0, 0, 0)
    );
    assert_eq!((own.idrPeriod, own.level, own.chromaFormatIDC), (u32::MAX, 0, 1));
    let vui = own.h264VUIParameters;
    assert_eq!((vui.videoSignalTypePresentFlag, vui.videoFormat as u32, vui.videoFullRangeFlag), (1, 5, 1));
    assert_eq!(vui.colourDescriptionPresentFlag, 1);
    let codes = (vui.colourPrimaries as u32, vui.transferCharacteristics as u32, vui.colourMatrix as u32);
    assert_eq!((codes, vui.bitstreamRestrictionFlag), ((9, 16, 9), 1));

    let config = written(&settings(&asked, HEVC_TEN, &caps()));
    assert_eq!(config.presetCfg.profileGUID, sys::NV_ENC_HEVC_PROFILE_MAIN10_GUID);
    let own = hevc(&config);
    assert_eq!((own.repeatSPSPPS(), own.outputAUD(), own.chromaFormatIDC(), own.pixelBitDepthMinus8()), (1, 1, 1, 2));
    assert_eq!((own.idrPeriod, own.level, own.tier, own.hevcVUIParameters.videoFullRangeFlag), (u32::MAX, 0, 0, 1));
    let plain = OpenRendition { colour: Colour::default(), ..rendition() };
    let own = h264(&written(&settings(&plain, H264, &caps())));
    assert_eq!(own.h264VUIParameters.colourDescriptionPresentFlag, 0, "nothing is known");
}

#[test]
fn av1_repeats_its_sequence_header_and_shows_square_pixels() {
    let ten = Format { codec: Codec::Av1, depth: Depth::Ten };
    let asked = OpenRendition { width: 720, height: 576, sar: (16, 11), ..rendition() };
    let found = settings(&asked, ten, &caps());
    assert_eq!(found.aspect, (1047, 576), "the size that is shown");
    let config = written(&found);
    #[expect(unsafe_code, reason = "a union of plain structs")]
    // SAFETY: the memory is set, and valid for each of its structs.
    let own = unsafe { config.presetCfg.encodeCodecConfig.av1Config };
    assert_eq!((own.repeatSeqHdr(), own.disableSeqHdr(), own.outputAnnexBFormat(), own.level), (1, 0, 0, 24));
    assert_eq!((own.inputPixelBitDepthMinus8(), own.pixelBitDepthMinus8(), own.chromaFormatIDC()), (2, 2, 1));
    assert_eq!((own.colorPrimaries as u32, own.matrixCoefficients as u32, own.colorRange), (1, 1, 0));
}

#[test]
fn a_session_starts_with_its_size_rate_and_aspect() {
    let asked = OpenRendition { width: 720, height: 576, sar: (16, 11), ..rendition() };
    let init = initial(&settings(&asked, H264, &caps()));
    assert_eq!(init.version, sys::NV_ENC_INITIALIZE_PARAMS_VER);
    assert_eq!((init.encodeWidth, init.encodeHeight), (720, 576));
    assert_eq!((init.maxEncodeWidth, init.maxEncodeHeight), (720, 576));
    assert_eq!((init.darWidth, init.darHeight), (20, 11), "720 x 16 : 576 x 11");
    assert_eq!((init.frameRateNum, init.frameRateDen), (30_000, 1_000));
    assert_eq!((init.enablePTD, init.enableEncodeAsync, init.splitEncodeMode()), (1, 0, 15));
    assert_eq!((init.enableWeightedPrediction(), init.reportSliceOffsets(), init.enableSubFrameWrite()), (0, 0, 0));
    assert_eq!((init.presetGUID, init.encodeGUID), (sys::NV_ENC_PRESET_P4_GUID, sys::NV_ENC_CODEC_H264_GUID));
    assert_eq!((init.tuningInfo as u32, init.encodeConfig as usize), (2, 0x1234_5678));
    let unknown = OpenRendition { sar: (0, 1), ..rendition() };
    assert_eq!(settings(&unknown, H264, &caps()).aspect, (16, 9), "square where nothing is known");
}

#[test]
fn presets_have_a_place_on_the_drivers_scale() {
    let found =
        ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "", "p1", "p6", "p7", "p9"].map(preset);
    assert_eq!(found, [1, 2, 3, 4, 5, 6, 4, 1, 6, 6, 4]);
    let guid =
        |name: &str| settings(&OpenRendition { preset: name.to_owned(), ..rendition() }, H264, &caps()).preset_guid();
    let all = ["p1", "p2", "p3", "p4", "p5", "p6"].map(guid);
    let expected = [
        sys::NV_ENC_PRESET_P1_GUID,
        sys::NV_ENC_PRESET_P2_GUID,
        sys::NV_ENC_PRESET_P3_GUID,
        sys::NV_ENC_PRESET_P4_GUID,
        sys::NV_ENC_PRESET_P5_GUID,
        sys::NV_ENC_PRESET_P6_GUID,
    ];
    assert_eq!(all, expected);
    let fast = settings(&OpenRendition { preset: "p3".to_owned(), ..rendition() }, H264, &caps());
    assert_eq!(written(&fast).presetCfg.rcParams.multiPass as u32, 0, "density comes before a second pass");
}

#[test]
fn equal_questions_give_equal_settings_byte_for_byte() {
    let bytes = |settings: &Settings| {
        let mut raw = Raw::<Preset>::versioned(sys::NV_ENC_PRESET_CONFIG_VER);
        settings.write_config(&mut raw);
        (0..size_of::<Preset>()).step_by(8).map(|at| raw.u64(at)).collect::<Vec<_>>()
    };
    assert_eq!(bytes(&settings(&rendition(), H264, &caps())), bytes(&settings(&rendition(), H264, &caps())));
    let other = OpenRendition { bitrate: 1_400_000, ..rendition() };
    assert_ne!(bytes(&settings(&other, H264, &caps())), bytes(&settings(&rendition(), H264, &caps())));
}

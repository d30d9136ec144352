//! Every contract broken once: the code, and the sentence in the report.

use std::mem::offset_of;

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;

use crate::client::{
    Ask, Card, Client, FORCE_IDR, HEVC, HEVC_MAIN, IYUV, MAIN, NV12, P4, Raw, extended, lock, payload, version,
};
use crate::double::{self, Driver};
use crate::pictures::made;

/// The inner test says with each bad call what it expects to be reported: nothing else may be, and nothing less.
#[track_caller]
fn reported(driver: &Driver, test: &str) {
    let said = driver.pass(test);
    let expected: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("expects ")).collect();
    let broken: Vec<String> =
        driver.broken().into_iter().filter(|line| line.to_lowercase().contains("nvenc")).collect();
    for (sentence, part) in broken.iter().zip(&expected) {
        let (call, words) = part.split_once(": ").unwrap();
        assert!(sentence.contains(call) && sentence.contains(words), "{sentence}\nis not\n{part}\nin {broken:#?}");
    }
    assert_eq!(broken.len(), expected.len(), "{broken:#?}\n{expected:#?}");
    let live: Vec<_> = driver.counts().into_iter().filter(|(what, n)| what.starts_with("live ") && *n != 0).collect();
    assert_eq!(live, Vec::new(), "left behind");
}

/// A call that breaks a contract: its code, and a part of what is to be reported.
#[track_caller]
fn bad(code: u32, wanted: u32, expected: &str) {
    assert_eq!(code, wanted, "{expected}");
    println!("\nexpects {expected}");
}

#[test]
fn sessions_are_opened_by_the_header() {
    reported(&Driver::new(), "contracts::inside_open");
}

#[test]
#[ignore = "run by sessions_are_opened_by_the_header"]
fn inside_open() {
    type P = sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS;
    let card = Card::load(&double::folder());
    let api = card.api;
    let mut list = Raw::new::<sys::NV_ENCODE_API_FUNCTION_LIST>(version(1));
    bad((api.create_instance)(list.at()), 15, "CreateInstance: version");
    bad((api.create_instance)(std::ptr::null_mut()), 6, "CreateInstance: null");
    let open = |version, change: &dyn Fn(&mut Raw)| {
        let mut params = Raw::new::<P>(version);
        params.put(offset_of!(P, deviceType), 1);
        params.put64(offset_of!(P, device), card.context);
        params.put(offset_of!(P, apiVersion), 12 | 1 << 24);
        change(&mut params);
        let mut session = 7;
        let code = (api.open)(params.at(), &raw mut session);
        assert_eq!(session, 0, "no session");
        code
    };
    bad(open(version(2), &|_| {}), 15, "OpenEncodeSessionEx: version");
    bad(open(extended(1), &|_| {}), 15, "OpenEncodeSessionEx: version");
    bad(open(version(1), &|p| p.put(offset_of!(P, apiVersion), 13)), 15, "OpenEncodeSessionEx: apiVersion");
    bad(open(version(1), &|p| p.put(offset_of!(P, deviceType), 0)), 2, "OpenEncodeSessionEx: deviceType");
    bad(open(version(1), &|p| p.put64(offset_of!(P, device), 0)), 4, "OpenEncodeSessionEx: device is null");
    bad(open(version(1), &|p| p.put64(offset_of!(P, device), 0x1234)), 4, "OpenEncodeSessionEx: no CUDA context");
    bad((api.destroy)(0), 6, "DestroyEncoder: no open session");
    bad((api.destroy)(0x77), 3, "DestroyEncoder: no open session");
    let (code, session) = card.open();
    assert_eq!(code, 0);
    let mut count = 0_u32;
    let at = (&raw mut count).cast();
    assert_eq!((card.cuda.set_current)(0), 0);
    let mut guids = [0_u32; 16];
    let list = guids.as_mut_ptr().cast();
    bad((api.guids)(session, list, 4, at), 4, "GetEncodeGUIDs: context");
    assert_eq!((card.cuda.set_current)(card.context), 0);
    assert_eq!((api.guids)(session, list, 4, at), 0);
    assert_eq!((count, guids[0], guids[4]), (2, 0x6bc8_2762, 0x790c_dc88));
    assert_eq!((api.destroy)(session), 0);
    bad((api.destroy)(session), 3, "DestroyEncoder: no open session");
    card.close();
}

#[test]
fn encoders_are_initialised_by_the_header() {
    reported(&Driver::new(), "contracts::inside_initialise");
}

#[test]
#[ignore = "run by encoders_are_initialised_by_the_header"]
fn inside_initialise() {
    type I = sys::NV_ENC_INITIALIZE_PARAMS;
    type C = sys::NV_ENC_CONFIG;
    let card = Card::load(&double::folder());
    let api = card.api;
    let (_, session) = card.open();
    let ask = Ask::h264(320, 192, 500_000);
    let init = |ask: &Ask, change: &dyn Fn(&mut Raw, &mut Raw)| {
        let mut config = ask.config(&card, session);
        let mut params = ask.params(&mut config);
        change(&mut params, &mut config);
        (api.initialise)(session, params.at())
    };
    const CALL: &str = "nvEncInitializeEncoder";
    let text = |words: &str| format!("{CALL}: {words}");
    bad(init(&ask, &|p, _| p.put(0, extended(7))), 15, &text("NV_ENC_INITIALIZE_PARAMS.version"));
    bad(init(&ask, &|_, c| c.put(0, version(8))), 15, &text("encodeConfig.version"));
    bad(init(&ask, &|_, c| c.put(offset_of!(C, rcParams), 0)), 15, &text("rcParams.version"));
    bad(init(&ask, &|p, _| p.put(offset_of!(I, frameRateDen), 0)), 8, &text("frame rate"));
    bad(init(&ask, &|p, _| p.put(offset_of!(I, presetGUID), 1)), 8, &text("presetGUID"));
    bad(init(&ask, &|p, _| p.put(offset_of!(I, tuningInfo), 0)), 8, &text("tuningInfo"));
    bad(init(&ask, &|_, c| c.put(offset_of!(C, frameFieldMode), 0)), 8, &text("frameFieldMode"));
    bad(init(&Ask { asynchronous: 1, ..ask.clone() }, &|_, _| {}), 12, &text("not on Linux"));
    bad(init(&Ask { b_frames: 2, ..ask.clone() }, &|_, _| {}), 8, &text("infinite gopLength"));
    bad(init(&Ask { b_frames: 2, gop: 3, ..ask.clone() }, &|_, _| {}), 8, &text("number of B frames"));
    bad(init(&Ask { gop: 0, ..ask.clone() }, &|_, _| {}), 8, &text("gopLength is 0"));
    bad(init(&Ask { rate: 0, ..ask.clone() }, &|_, _| {}), 8, &text("averageBitRate"));
    bad(init(&Ask { lookahead: 32, ..ask.clone() }, &|_, _| {}), 8, &text("lookaheadDepth"));
    bad(init(&Ask { most: (160, 96), ..ask.clone() }, &|_, _| {}), 8, &text("maxEncodeWidth"));
    bad(init(&Ask { aspect: (16, 0), ..ask.clone() }, &|_, _| {}), 8, &text("darWidth"));
    bad(init(&Ask { level: 99, ..ask.clone() }, &|_, _| {}), 8, &text("level"));
    let depth = Ask { profile: Some(HEVC_MAIN), ..Ask::hevc10(320, 192, 500_000) };
    bad(init(&depth, &|_, _| {}), 8, &text("pixelBitDepthMinus8"));
    // What the card lacks breaks no contract.
    assert_eq!(init(&Ask { b_frames: 5, gop: 100, ..ask.clone() }, &|_, _| {}), 12);
    assert_eq!(init(&Ask { size: (100, 192), ..ask.clone() }, &|_, _| {}), 8, "too narrow for the card");
    assert_eq!(init(&Ask { codec: HEVC, profile: Some(MAIN), ..ask.clone() }, &|_, _| {}), 12, "no profile of HEVC");
    let mut output = Raw::new::<sys::NV_ENC_CREATE_BITSTREAM_BUFFER>(version(1));
    bad((api.create_output)(session, output.at()), 11, "CreateBitstreamBuffer: before");
    let mut picture = Raw::new::<sys::NV_ENC_PIC_PARAMS>(extended(6));
    bad((api.encode)(session, picture.at()), 11, "EncodePicture: before");
    let mut resource = Raw::new::<sys::NV_ENC_REGISTER_RESOURCE>(version(4));
    bad((api.register)(session, resource.at()), 11, "RegisterResource: before");
    let mut preset = Raw::new::<sys::NV_ENC_PRESET_CONFIG>(extended(4));
    bad((api.preset)(session, ask.codec, P4, 2, preset.at()), 15, "PresetConfigEx: presetCfg.version");
    bad((api.preset_old)(session, ask.codec, P4, preset.at()), 12, "PresetConfig: use the Ex call");
    // Parameter sets before and after are the same.
    let mut config = ask.config(&card, session);
    let mut params = ask.params(&mut config);
    let mut early = payload();
    assert_eq!((api.headers_ex)(session, params.at(), early.0.at()), 0);
    let mut client = Client::begin(&card, &ask, session);
    assert_eq!(early.1[..early.2[0] as usize], client.headers());
    bad((api.initialise)(session, params.at()), 9, &text("is initialised"));
    bad((api.stats)(session, std::ptr::null_mut()), 12, "GetEncodeStats: CUDA");
    bad((api.event)(session, std::ptr::null_mut()), 12, "AsyncEvent: Linux");
    assert_eq!((api.mv_buffer)(session, std::ptr::null_mut()), 22);
    assert_eq!((api.invalidate)(session, 0), 12);
    early.0.put(4, 8);
    bad((api.headers)(session, early.0.at()), 14, "GetSequenceParams: 8 bytes");
    assert!(client.sentence().contains("nvEncGetSequenceParams: 8 bytes for"), "{}", client.sentence());
    client.free();
    card.close();
}

#[test]
fn memory_is_registered_and_mapped_by_the_header() {
    reported(&Driver::new(), "contracts::inside_register");
}

#[test]
#[ignore = "run by memory_is_registered_and_mapped_by_the_header"]
fn inside_register() {
    type R = sys::NV_ENC_REGISTER_RESOURCE;
    let card = Card::load(&double::folder());
    let api = card.api;
    let mut client = Client::start(&card, &Ask::h264(320, 192, 500_000));
    let session = client.session;
    let (address, pitch) = card.memory(320, 288);
    let register = |address, pitch, change: &dyn Fn(&mut Raw)| {
        let mut resource = client.resource(address, pitch);
        change(&mut resource);
        ((api.register)(session, resource.at()), resource.get64(offset_of!(R, registeredResource)))
    };
    let text = |words: &str| format!("nvEncRegisterResource: {words}");
    bad(register(address, 322, &|_| {}).0, 8, &text("pitch 322"));
    bad(register(address, 316, &|_| {}).0, 8, &text("pitch 316"));
    bad(register(0, pitch, &|_| {}).0, 8, &text("null"));
    bad(register(address, pitch, &|r| r.put(offset_of!(R, height), 180)).0, 8, &text("320x180"));
    bad(register(address, pitch, &|r| r.put(0, version(5))).0, 15, &text("version"));
    let host = vec![0_u8; 1 << 20];
    bad(register(host.as_ptr().expose_provenance() as u64, 320, &|_| {}).0, 23, &text("no device memory"));
    let (small, _) = card.memory(320, 192);
    bad(register(small, pitch, &|_| {}).0, 23, &text("bytes at"));
    let mut pool = 0;
    assert_eq!((card.cuda.alloc_async)(&raw mut pool, 1 << 20, 0), 0);
    bad(register(pool, 320, &|_| {}).0, 23, &text("cuMemAllocAsync"));
    let depth = register(address, pitch, &|r| r.put(offset_of!(R, bufferFormat), 0x1_0000));
    assert_eq!(depth.0, 12, "this card's H.264 has no ten bits");
    let (code, registration) = register(address, pitch, &|_| {});
    assert_eq!(code, 0);
    bad(register(address, pitch, &|_| {}).0, 23, &text("is registered"));
    bad(client.map(0x99).0, 24, "nvEncMapInputResource: 0x99");
    let (code, input) = client.map(registration);
    assert_eq!(code, 0);
    bad(client.map(registration).0, 16, "nvEncMapInputResource: is mapped");
    bad((api.unregister)(session, registration), 9, "nvEncUnregisterResource: is mapped");
    bad((api.unmap)(session, registration), 25, "nvEncUnmapInputResource: no mapped input");
    assert_eq!((api.unmap)(session, input), 0);
    bad((api.unmap)(session, input), 25, "nvEncUnmapInputResource: no mapped input");
    assert_eq!((api.unregister)(session, registration), 0);
    bad((api.unregister)(session, registration), 24, "nvEncUnregisterResource: no registration");
    let mut stream = 0;
    assert_eq!((card.cuda.stream)(&raw mut stream, 1), 0);
    let as_address = std::ptr::with_exposed_provenance_mut(stream as usize);
    bad((api.streams)(session, as_address, as_address), 6, "nvEncSetIOCudaStreams: address");
    assert_eq!((card.cuda.destroy_stream)(stream), 0);
    assert_eq!((card.cuda.free_async)(pool, 0), 0);
    for memory in [address, small] {
        assert_eq!((card.cuda.free)(memory), 0);
    }
    client.free();
    card.close();
}

#[test]
fn pictures_are_submitted_and_locked_by_the_header() {
    reported(&Driver::new(), "contracts::inside_pictures");
}

#[test]
#[ignore = "run by pictures_are_submitted_and_locked_by_the_header"]
fn inside_pictures() {
    type P = sys::NV_ENC_PIC_PARAMS;
    let card = Card::load(&double::folder());
    let api = card.api;
    let mut client = Client::start(&card, &Ask::h264(320, 192, 500_000));
    let session = client.session;
    let surface = client.surfaces[0];
    let outputs = client.outputs.clone();
    let (_, input) = client.map(surface.registration);
    let pixels = made(0, 320, 192, false);
    client.upload(&client.surfaces[1].clone(), &pixels);
    let encode = |input, output, change: &dyn Fn(&mut Raw)| {
        let mut picture = client.picture(0, input, surface.pitch, output, 0);
        change(&mut picture);
        (api.encode)(session, picture.at())
    };
    let text = |words: &str| format!("nvEncEncodePicture: {words}");
    bad(encode(input, outputs[0], &|p| p.put(0, version(6))), 15, &text("version"));
    bad(encode(surface.registration, outputs[0], &|_| {}), 8, &text("registered, not mapped"));
    bad(encode(0x99, outputs[0], &|_| {}), 8, &text("no mapped input"));
    bad(encode(input, 0x99, &|_| {}), 8, &text("no bitstream buffer"));
    bad(encode(input, outputs[0], &|p| p.put(offset_of!(P, inputWidth), 318)), 8, &text("input of (318, 192)"));
    bad(encode(input, outputs[0], &|p| p.put(offset_of!(P, inputPitch), 324)), 8, &text("inputPitch 324"));
    bad(encode(input, outputs[0], &|p| p.put(offset_of!(P, bufferFmt), IYUV)), 8, &text("bufferFmt"));
    bad(encode(input, outputs[0], &|p| p.put(offset_of!(P, pictureStruct), 0)), 8, &text("pictureStruct"));
    bad(encode(input, outputs[0], &|p| p.put64(offset_of!(P, completionEvent), 8)), 7, &text("completionEvent"));
    bad(lock(&card, session, outputs[0], false).0, 8, "nvEncLockBitstream: nothing was encoded");
    // A pitch that the client does not know is the width.
    assert_eq!(encode(input, outputs[0], &|p| p.put(offset_of!(P, inputPitch), 320)), 0);
    bad(encode(input, outputs[0], &|_| {}), 8, &text("is in flight"));
    assert_eq!(encode(input, outputs[1], &|_| {}), 0, "the same picture once more");
    bad((api.unmap)(session, input), 9, "nvEncUnmapInputResource: in flight");
    bad((api.destroy_output)(session, outputs[0]), 9, "nvEncDestroyBitstreamBuffer: in flight");
    bad(lock(&card, session, outputs[1], false).0, 9, "nvEncLockBitstream: was given before it");
    assert_eq!(lock(&card, session, outputs[0], false).0, 0);
    bad(lock(&card, session, outputs[0], false).0, 9, "nvEncLockBitstream: is locked");
    bad(encode(input, outputs[0], &|_| {}), 8, &text("is locked"));
    bad((api.destroy_output)(session, outputs[0]), 9, "nvEncDestroyBitstreamBuffer: is locked");
    assert_eq!((api.unlock)(session, outputs[0]), 0);
    bad((api.unlock)(session, outputs[0]), 9, "nvEncUnlockBitstream: not locked");
    assert_eq!(client.flush(), 0);
    bad(encode(input, outputs[0], &|_| {}), 9, &text("after the end"));
    assert_eq!(lock(&card, session, outputs[1], false).0, 0);
    assert_eq!((api.unlock)(session, outputs[1]), 0);
    // A new run begins with an IDR picture.
    bad(encode(input, outputs[2], &|_| {}), 8, &text("not forced to be an IDR picture"));
    let forced = |p: &mut Raw| p.put(offset_of!(P, encodePicFlags), FORCE_IDR);
    assert_eq!(encode(input, outputs[2], &forced), 0);
    assert_eq!(lock(&card, session, outputs[2], false).1.unwrap().kind, 3);
    assert_eq!((api.unlock)(session, outputs[2]), 0);
    assert_eq!(client.flush(), 0);
    assert_eq!((api.unmap)(session, input), 0);
    client.free();
    more_input(&card);
    card.close();
}

fn more_input(card: &Card) {
    let ask = Ask { b_frames: 1, gop: 100, ..Ask::h264(320, 192, 500_000) };
    let mut client = Client::start(card, &ask);
    for (n, code) in [0, 17].into_iter().enumerate() {
        assert_eq!(client.submit(&made(n, 320, 192, false), 0), code);
    }
    client.take(1);
    let (output, _) = client.pending[0];
    bad(lock(card, client.session, output, false).0, 9, "nvEncLockBitstream: wants more input");
    client.finish();
}

#[test]
fn encoders_are_changed_and_ended_by_the_header() {
    reported(&Driver::new(), "contracts::inside_end");
}

#[test]
#[ignore = "run by encoders_are_changed_and_ended_by_the_header"]
fn inside_end() {
    let card = Card::load(&double::folder());
    let ask = Ask { gop: 50, most: (640, 360), ..Ask::h264(320, 192, 500_000) };
    let mut client = Client::start(&card, &ask);
    let text = |words: &str| format!("nvEncReconfigureEncoder: {words}");
    bad(client.reconfigure(&Ask { gop: 25, ..ask.clone() }, 0), 12, &text("GOP structure"));
    bad(client.reconfigure(&Ask { decides: 0, ..ask.clone() }, 0), 12, &text("enablePTD"));
    bad(client.reconfigure(&Ask { most: (648, 368), ..ask.clone() }, 0), 12, &text("maxEncodeWidth"));
    bad(client.reconfigure(&Ask { size: (642, 360), ..ask.clone() }, 0), 8, &text("maxEncodeWidth"));
    bad(client.reconfigure(&Ask { rate: 0, ..ask.clone() }, 0), 8, &text("averageBitRate"));
    assert_eq!(client.reconfigure(&Ask { profile: Some(MAIN), ..ask.clone() }, 0), 12, "not on this card");
    assert_eq!(client.submit(&made(0, 320, 192, false), 0), 0);
    client.take(0);
    let (output, (_, input)) = (client.outputs[0], client.map(client.surfaces[0].registration));
    let mut picture = client.picture(1, input, client.surfaces[0].pitch, output, 0);
    assert_eq!((card.api.encode)(client.session, picture.at()), 0);
    assert_eq!(lock(&card, client.session, output, false).0, 0);
    // Everything is left: each kind has its sentence, and the driver cleans up.
    assert_eq!((card.api.destroy)(client.session), 0);
    for left in ["1 mapped", "4 registrations", "4 bitstream", "1 locked", "was not flushed"] {
        println!("\nexpects nvEncDestroyEncoder: {left}");
    }
    for surface in client.surfaces.drain(..) {
        assert_eq!((card.cuda.free)(surface.address), 0);
    }
    without_type_decision(&card);
    host_memory(&card);
    card.close();
}

fn without_type_decision(card: &Card) {
    let mut client = Client::start(card, &Ask { decides: 0, ..Ask::h264(320, 192, 500_000) });
    for n in 0..3 {
        let flags = if n == 1 { FORCE_IDR } else { 0 };
        assert_eq!(client.submit(&made(n, 320, 192, false), flags), 0);
    }
    println!("\nexpects nvEncEncodePicture: FORCEIDR without enablePTD");
    let kinds: Vec<u32> = client.finish().iter().map(|t| t.kind).collect();
    assert_eq!(kinds, [3, 0, 0], "the flag is not looked at");
}

/// Input buffers of the encoder's own, and the contracts of their locks.
fn host_memory(card: &Card) {
    type B = sys::NV_ENC_CREATE_INPUT_BUFFER;
    type L = sys::NV_ENC_LOCK_INPUT_BUFFER;
    let client = Client::start(card, &Ask::h264(320, 192, 500_000));
    let mut buffer = Raw::new::<B>(version(1));
    buffer.put(offset_of!(B, width), 320);
    buffer.put(offset_of!(B, height), 192);
    buffer.put(offset_of!(B, bufferFmt), NV12);
    assert_eq!((card.api.create_input)(client.session, buffer.at()), 0);
    let input = buffer.get64(offset_of!(B, inputBuffer));
    let mut locked = Raw::new::<L>(version(1));
    locked.put64(offset_of!(L, inputBuffer), input);
    assert_eq!((card.api.lock_input)(client.session, locked.at()), 0);
    bad((card.api.lock_input)(client.session, locked.at()), 9, "nvEncLockInputBuffer: is locked");
    let pitch = locked.get(offset_of!(L, pitch)) as usize;
    let mut picture = client.picture(0, input, pitch, client.outputs[0], 0);
    bad((card.api.encode)(client.session, picture.at()), 8, "nvEncEncodePicture: is locked");
    bad((card.api.destroy_input)(client.session, input), 9, "nvEncDestroyInputBuffer: is locked");
    assert_eq!((card.api.unlock_input)(client.session, input), 0);
    bad((card.api.unlock_input)(client.session, input), 9, "nvEncUnlockInputBuffer: not locked");
    assert_eq!((card.api.encode)(client.session, picture.at()), 0);
    let (code, taken) = lock(card, client.session, client.outputs[0], false);
    assert_eq!((code, taken.unwrap().kind), (0, 3));
    assert_eq!((card.api.unlock)(client.session, client.outputs[0]), 0);
    assert_eq!((card.api.destroy_input)(client.session, input), 0);
    client.finish();
}

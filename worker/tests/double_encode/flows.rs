//! What a client may do beyond pictures in and access units out.

use std::mem::offset_of;
use std::sync::mpsc;
use std::time::Duration;

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;

use crate::client::{Ask, Card, Client, FORCE_IDR, H264, HEADERS, HEVC, IYUV, Raw, lock, version};
use crate::double::{self, Driver};
use crate::pictures::{decoded, made, probed, psnr};
use crate::stream;

#[test]
fn a_card_says_what_it_can() {
    let driver = Driver::new()
        .setting("nvenc.count", 3)
        .setting("nvenc.caps.NV_ENC_CAPS_NUM_MAX_BFRAMES", 1)
        .setting("nvenc.caps.hevc.NV_ENC_CAPS_SUPPORT_10BIT_ENCODE", 0)
        .setting("nvenc.caps.NV_ENC_CAPS_SUPPORT_LOOKAHEAD", 0)
        .setting("nvenc.caps.NV_ENC_CAPS_SUPPORT_CUSTOM_VBV_BUF_SIZE", 0)
        .setting("nvenc.caps.h264.NV_ENC_CAPS_WIDTH_MAX", 640);
    driver.pass("flows::inside_caps");
    driver.assert_clean();
}

#[test]
#[ignore = "run by a_card_says_what_it_can"]
fn inside_caps() {
    type C = sys::NV_ENC_CAPS_PARAM;
    let card = Card::load(&double::folder());
    let (_, session) = card.open();
    let cap = |codec, number| {
        let mut params = Raw::new::<C>(version(1));
        params.put(offset_of!(C, capsToQuery), number);
        let mut value = -1_i32;
        let code = (card.api.caps)(session, codec, params.at(), (&raw mut value).cast());
        (code, value)
    };
    use sys::NV_ENC_CAPS as Cap;
    let h264 = |number: Cap| cap(H264, number as u32);
    assert_eq!(h264(Cap::NV_ENC_CAPS_NUM_MAX_BFRAMES), (0, 1));
    assert_eq!(h264(Cap::NV_ENC_CAPS_NUM_ENCODER_ENGINES), (0, 3));
    assert_eq!(h264(Cap::NV_ENC_CAPS_WIDTH_MAX), (0, 640));
    assert_eq!(h264(Cap::NV_ENC_CAPS_SUPPORT_DYN_BITRATE_CHANGE), (0, 1));
    assert_eq!(h264(Cap::NV_ENC_CAPS_ASYNC_ENCODE_SUPPORT), (0, 0));
    assert_eq!(cap(HEVC, Cap::NV_ENC_CAPS_WIDTH_MAX as u32), (0, 8192));
    assert_eq!(cap(HEVC, Cap::NV_ENC_CAPS_SUPPORT_10BIT_ENCODE as u32), (0, 0));
    assert_eq!(cap(crate::client::AV1, 0).0, 12, "this card has no AV1");
    let (mut list, mut count) = ([0_u32; 32], 0_u32);
    let at = (&raw mut count).cast();
    for (call, expected) in [(card.api.profiles, 2), (card.api.presets, 7), (card.api.formats, 2)] {
        assert_eq!(call(session, HEVC, list.as_mut_ptr().cast(), 8, at), 0);
        assert_eq!(count, expected);
    }
    assert_eq!(list[..2], [1, IYUV], "no ten bits");
    // What it can not, it refuses.
    let plain = Ask::h264(320, 192, 500_000);
    let refused = |ask: &Ask, change: &dyn Fn(&mut Raw)| {
        let mut config = ask.config(&card, session);
        change(&mut config);
        (card.api.initialise)(session, ask.params(&mut config).at())
    };
    let no_vbv = |config: &mut Raw| {
        let rates = offset_of!(sys::NV_ENC_CONFIG, rcParams);
        config.put(rates + offset_of!(sys::NV_ENC_RC_PARAMS, vbvBufferSize), 0);
        config.put(rates + offset_of!(sys::NV_ENC_RC_PARAMS, vbvInitialDelay), 0);
    };
    assert_eq!(refused(&plain, &|_| {}), 12, "a VBV of one's own");
    assert_eq!(refused(&Ask { b_frames: 2, gop: 60, ..plain.clone() }, &no_vbv), 12, "2 B frames");
    assert_eq!(refused(&Ask { lookahead: 4, ..plain.clone() }, &no_vbv), 12, "lookahead");
    assert_eq!(refused(&Ask { size: (960, 540), ..plain.clone() }, &no_vbv), 8, "too wide");
    assert_eq!(refused(&Ask::hevc10(320, 192, 500_000), &no_vbv), 12, "10 bit");
    assert_eq!(refused(&plain, &no_vbv), 0);
    assert_eq!((card.api.destroy)(session), 0);
    card.close();
}

#[test]
fn a_size_changes_within_its_bounds_with_an_idr_picture() {
    let driver = Driver::new();
    driver.pass("flows::inside_resize");
    driver.assert_clean();
}

#[test]
#[ignore = "run by a_size_changes_within_its_bounds_with_an_idr_picture"]
fn inside_resize() {
    let card = Card::load(&double::folder());
    let ask = Ask { most: (640, 360), ..Ask::h264(640, 360, 1_500_000) };
    let mut client = Client::start(&card, &ask);
    let first_headers = client.headers();
    for n in 0..20 {
        if n == 8 {
            let ask = Ask { size: (320, 192), ..ask.clone() };
            assert_eq!(client.reconfigure(&ask, 0), 0, "{}", client.sentence());
            client.ask = ask;
        }
        if n == 14 {
            assert_eq!(client.reconfigure(&client.ask.clone(), 1), 0, "the encoder begins anew");
        }
        if n == 17 {
            assert_eq!(client.reconfigure(&client.ask.clone(), 2), 0, "an IDR picture");
        }
        let (width, height) = client.ask.size;
        assert_eq!(client.submit(&made(n, width as usize, height as usize, false), 0), 0);
        client.take(0);
    }
    assert_ne!(client.headers(), first_headers);
    let taken = client.finish();
    let idr: Vec<u32> = taken.iter().filter(|t| t.kind == 3).map(|t| t.shown).collect();
    assert_eq!(idr, [0, 8, 14, 17]);
    let original: Vec<_> = (8..20).map(|n| made(n, 320, 192, false)).collect();
    let (worst, _) = psnr(&decoded(&stream(&taken[8..]), "h264", 320, 192, false), &original, false);
    assert!(worst > 30.0, "{worst} dB");
    assert!(probed(&stream(&taken[..8]), "h264").contains("width=640"));
    card.close();
}

#[test]
fn the_streams_of_inputs_are_waited_for() {
    // A copy in a stream takes its time.
    let driver = Driver::new().fault("cuda.copy sleep=400");
    driver.pass("flows::inside_streams");
    driver.assert_clean();
}

#[test]
#[ignore = "run by the_streams_of_inputs_are_waited_for"]
fn inside_streams() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &Ask::h264(320, 192, 1_500_000));
    let mut io = 0;
    assert_eq!((card.cuda.stream)(&raw mut io, 1), 0);
    assert_eq!((card.api.streams)(client.session, &raw mut io, &raw mut io), 0);
    let (surface, output) = (client.surfaces[0], client.outputs[0]);
    let pixels = made(3, 320, 192, false);
    let mut pitched = vec![0; surface.pitch * 288];
    for (to, row) in pitched.chunks_exact_mut(surface.pitch).zip(pixels.chunks_exact(320)) {
        to[..320].copy_from_slice(row);
    }
    let length = surface.pitch * 287 + 320;
    assert_eq!((card.cuda.upload_async)(surface.address, pitched.as_ptr().cast(), length, io), 0);
    let (_, input) = client.map(surface.registration);
    let mut picture = client.picture(0, input, surface.pitch, output, 0);
    assert_eq!((card.api.encode)(client.session, picture.at()), 0, "at once");
    client.pending.push_back((output, input));
    assert_eq!(lock(&card, client.session, output, true).0, 13, "it waits for the stream");
    client.take(0);
    assert_eq!((card.cuda.destroy_stream)(io), 0);
    let taken = client.finish();
    let (worst, _) = psnr(&decoded(&stream(&taken), "h264", 320, 192, false), &[pixels], false);
    assert!(worst > 35.0, "what the stream wrote is what was coded: {worst} dB");
    card.close();
}

#[test]
fn who_writes_to_a_mapped_input_is_told() {
    let driver = Driver::new();
    driver.pass("flows::inside_written");
    let broken = driver.broken();
    assert!(!broken.is_empty() && broken.iter().all(|line| line.contains("mapped")), "{broken:#?}");
}

#[test]
#[ignore = "run by who_writes_to_a_mapped_input_is_told"]
fn inside_written() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &Ask::h264(320, 192, 1_500_000));
    assert_eq!(client.submit(&made(0, 320, 192, false), 0), 0);
    let surface = client.surfaces[0];
    (card.cuda.upload)(surface.address, [0_u8; 64].as_ptr().cast(), 64);
    client.finish();
    card.close();
}

#[test]
fn one_thread_submits_and_one_takes_and_no_third_calls() {
    let driver = Driver::new();
    driver.pass("flows::inside_threads");
    let broken = driver.broken();
    let all = broken.iter().all(|line| line.starts_with("nvEncLockBitstream: thread"));
    assert!(all && !broken.is_empty(), "{broken:#?}");
}

#[test]
#[ignore = "run by one_thread_submits_and_one_takes_and_no_third_calls"]
fn inside_threads() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &Ask { lookahead: 3, ..Ask::h264(320, 192, 1_000_000) });
    let session = client.session;
    // One at a time: no output is given again before it was taken.
    let (to_taker, submitted) = mpsc::sync_channel::<(u64, u64)>(0);
    let (to_main, locking) = mpsc::sync_channel(32);
    let taker = std::thread::spawn(move || {
        assert_eq!((card.cuda.set_current)(card.context), 0);
        let mut taken = Vec::new();
        for (output, input) in submitted {
            to_main.send(output).unwrap();
            // Whichever of two calls comes second is refused.
            let tried = (0..6_000).map(|_| lock(&card, session, output, false)).find(|(code, _)| *code != 9);
            let (code, one) = tried.unwrap();
            assert_eq!(code, 0);
            taken.push(one.unwrap());
            assert_eq!((card.api.unlock)(session, output), 0);
            assert_eq!((card.api.unmap)(session, input), 0);
        }
        taken
    });
    for n in 0..4 {
        client.submit(&made(n, 320, 192, false), 0);
    }
    // The first is there; the second waits for a picture that is not submitted yet.
    for _ in 0..2 {
        to_taker.send(client.pending.pop_front().unwrap()).unwrap();
    }
    let first = locking.recv_timeout(Duration::from_secs(60)).unwrap();
    let waiting = locking.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_ne!(first, waiting);
    // Asking for the same output without waiting is answered "not yet", until the other is in its call.
    let mut code = 13;
    for _ in 0..6_000 {
        code = lock(&card, session, waiting, true).0;
        if code != 13 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(code, 9, "no second call on the side of the outputs");
    // Pictures go on meanwhile.
    for n in 4..20 {
        assert_eq!(client.submit(&made(n, 320, 192, false), 0), 0);
        to_taker.send(client.pending.pop_front().unwrap()).unwrap();
    }
    assert_eq!(client.flush(), 0);
    for pair in client.pending.drain(..) {
        to_taker.send(pair).unwrap();
    }
    drop(to_taker);
    let taken = taker.join().unwrap();
    assert_eq!(taken.iter().map(|t| t.shown).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    client.free();
    card.close();
}

#[test]
fn messages_of_the_client_are_in_the_stream() {
    let driver = Driver::new();
    driver.pass("flows::inside_messages");
    driver.assert_clean();
}

#[test]
#[ignore = "run by messages_of_the_client_are_in_the_stream"]
fn inside_messages() {
    type S = sys::NV_ENC_SEI_PAYLOAD;
    type P = sys::NV_ENC_PIC_PARAMS;
    let card = Card::load(&double::folder());
    for (ask, start) in [
        (Ask::h264(320, 192, 500_000), vec![0, 0, 0, 1, 6, 5, 19]),
        (Ask { codec: HEVC, profile: None, ..Ask::h264(320, 192, 500_000) }, vec![0, 0, 0, 1, 0x4e, 1, 5, 19]),
    ] {
        let mut client = Client::start(&card, &ask);
        let mut text = *b"0123456789abcdef\0\0\0";
        let mut message = Raw::new::<S>(text.len() as u32);
        message.put(offset_of!(S, payloadType), 5);
        message.put64(offset_of!(S, payload), text.as_mut_ptr().expose_provenance() as u64);
        let own = offset_of!(P, codecPicParams);
        let (count, list) = if ask.codec == H264 {
            type H = sys::NV_ENC_PIC_PARAMS_H264;
            (own + offset_of!(H, seiPayloadArrayCnt), own + offset_of!(H, seiPayloadArray))
        } else {
            type E = sys::NV_ENC_PIC_PARAMS_HEVC;
            (own + offset_of!(E, seiPayloadArrayCnt), own + offset_of!(E, seiPayloadArray))
        };
        let surface = client.surfaces[0];
        client.upload(&surface, &made(0, 320, 192, false));
        let (_, input) = client.map(surface.registration);
        let mut picture = client.picture(0, input, surface.pitch, client.outputs[0], FORCE_IDR | HEADERS);
        picture.put(count, 1);
        picture.put64(list, message.at().expose_provenance() as u64);
        assert_eq!((card.api.encode)(client.session, picture.at()), 0);
        client.pending.push_back((client.outputs[0], input));
        let taken = client.finish();
        let mut expected = start;
        expected.extend_from_slice(b"0123456789abcdef\0\0\x03\0\x80");
        assert!(taken[0].bytes.windows(expected.len()).any(|part| part == expected), "{:02x?}", &taken[0].bytes[..160]);
        assert_eq!(decoded(&stream(&taken), if ask.codec == H264 { "h264" } else { "hevc" }, 320, 192, false).len(), 1);
    }
    card.close();
}

#[test]
fn chroma_may_lie_in_planes_of_its_own() {
    let driver = Driver::new();
    driver.pass("flows::inside_planes");
    driver.assert_clean();
}

#[test]
#[ignore = "run by chroma_may_lie_in_planes_of_its_own"]
fn inside_planes() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &Ask { format: IYUV, ..Ask::h264(320, 192, 1_000_000) });
    let (surface, output) = (client.surfaces[0], client.outputs[0]);
    let pixels = made(7, 320, 192, false);
    let (luma, chroma) = pixels.split_at(320 * 192);
    let upload = |at: usize, row: &[u8]| {
        assert_eq!((card.cuda.upload)(surface.address + at as u64, row.as_ptr().cast(), row.len()), 0);
    };
    for (y, row) in luma.chunks_exact(320).enumerate() {
        upload(y * surface.pitch, row);
    }
    for plane in 0..2 {
        for (y, row) in chroma.chunks_exact(320).enumerate() {
            let row: Vec<u8> = row.iter().copied().skip(plane).step_by(2).collect();
            upload(192 * surface.pitch + (plane * 96 + y) * (surface.pitch / 2), &row);
        }
    }
    let (_, input) = client.map(surface.registration);
    let mut picture = client.picture(0, input, surface.pitch, output, 0);
    assert_eq!((card.api.encode)(client.session, picture.at()), 0, "{}", client.sentence());
    client.pending.push_back((output, input));
    let taken = client.finish();
    let (worst, _) = psnr(&decoded(&stream(&taken), "h264", 320, 192, false), &[pixels], false);
    assert!(worst > 35.0, "{worst} dB");
    card.close();
}

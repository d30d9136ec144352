//! The double of libnvidia-encode, driven over the raw ABI: pictures, contracts, faults. Every outer test runs one inner
//! test in a process of its own, with a driver folder of its own.

#[path = "../support/double.rs"]
mod double;

mod client;
mod contracts;
mod faults;
mod flows;
mod pictures;

use client::{Ask, Card, Client, FORCE_IDR, HEADERS, HEVC, MAIN10, Taken};
use double::Driver;
use pictures::{decoded, kinds, made, probed, psnr};

#[test]
fn three_sessions_code_moving_pictures_from_device_memory() {
    let driver = Driver::new();
    driver.pass("inside_three_sessions");
    driver.assert_clean();
    assert_eq!(driver.count("frames encoded"), 3 * 60);
    assert_eq!(driver.count("IDRs encoded"), 3 * 3);
    assert_eq!(driver.count("copies dtoh"), 0, "what the encoder fetches is no copy of the client's");
    assert!(driver.count("codec copies") >= 3 * 60);
}

#[test]
#[ignore = "run by three_sessions_code_moving_pictures_from_device_memory"]
fn inside_three_sessions() {
    let card = Card::load(&double::folder());
    let sizes = [(640, 360, 1_500_000), (320, 192, 700_000), (192, 112, 400_000)];
    let mut clients: Vec<Client> =
        sizes.iter().map(|&(w, h, rate)| Client::start(&card, &Ask::h264(w, h, rate))).collect();
    for n in 0..60 {
        let flags = if n % 25 == 0 { FORCE_IDR | HEADERS } else { 0 };
        for client in &mut clients {
            let picture = made(n, client.ask.size.0 as usize, client.ask.size.1 as usize, false);
            assert_eq!(client.submit(&picture, flags), 0, "no delay without B frames and lookahead");
        }
        clients.iter_mut().for_each(|client| client.take(2));
    }
    for (client, (width, height, _)) in clients.into_iter().zip(sizes) {
        let headers = client.headers();
        let taken = client.finish();
        let idr: Vec<u64> = taken.iter().filter(|t| t.kind == 3).map(|t| t.timestamp / 3_600).collect();
        assert_eq!(idr, [0, 25, 50], "IDR pictures where they were asked for");
        for (n, picture) in taken.iter().enumerate() {
            assert_eq!((picture.timestamp, picture.index), (n as u64 * 3_600, 1_000 + n as u32));
            assert_eq!(picture.bytes[..5], [0, 0, 0, 1, 9], "an access unit delimiter first");
            let brings = picture.bytes.windows(headers.len()).any(|part| part == headers);
            assert_eq!(brings, n % 25 == 0, "parameter sets with every IDR picture, those of out of band");
        }
        let original: Vec<_> = (0..60).map(|n| made(n, width as usize, height as usize, false)).collect();
        let seen = decoded(&stream(&taken), "h264", width as usize, height as usize, false);
        let (worst, mean) = psnr(&seen, &original, false);
        println!("{width}x{height}: {worst:.1} dB at worst, {mean:.1} dB, {} bytes", stream(&taken).len());
        assert!(worst > 35.0, "{worst} dB");
    }
    card.close();
}

#[test]
fn a_new_rate_is_seen_in_the_sizes_and_makes_no_idr_picture() {
    let driver = Driver::new();
    driver.pass("inside_new_rate");
    driver.assert_clean();
    assert_eq!(driver.count("IDRs encoded"), 2);
}

#[test]
#[ignore = "run by a_new_rate_is_seen_in_the_sizes_and_makes_no_idr_picture"]
fn inside_new_rate() {
    let card = Card::load(&double::folder());
    for (ask, demuxer) in [
        (Ask::h264(640, 360, 3_000_000), "h264"),
        (Ask { codec: HEVC, profile: None, ..Ask::h264(640, 360, 3_000_000) }, "hevc"),
    ] {
        let taken = retuned_at_twenty(&card, &ask);
        let (before, after) = (mean_size(&taken[4..20]), mean_size(&taken[40..]));
        println!("{demuxer}: {before} bytes, then {after}");
        assert!(after * 5 < before * 2, "3 Mb/s, then 0.6: {before} bytes a picture, then {after}");
        let wanted = 600_000 / 8 / 25;
        assert!((wanted / 2..wanted * 3 / 2).contains(&after), "{after} bytes, {wanted} wanted");
        assert_eq!(decoded(&stream(&taken), demuxer, 640, 360, false).len(), 80);
    }
    card.close();
}

/// 80 noisy pictures, 3 Mb/s and from picture 20 on 0.6 Mb/s.
pub(crate) fn retuned_at_twenty(card: &Card, ask: &Ask) -> Vec<Taken> {
    let mut client = Client::start(card, ask);
    let (width, height) = (ask.size.0 as usize, ask.size.1 as usize);
    let mut noise = 1_u32;
    for n in 0..80 {
        let mut picture = made(n, width, height, false);
        for sample in &mut picture {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *sample = sample.wrapping_add((noise >> 28) as u8);
        }
        if n == 20 {
            assert_eq!(client.retune(600_000), 0, "{}", client.sentence());
        }
        assert_eq!(client.submit(&picture, 0), 0);
        client.take(1);
    }
    let taken = client.finish();
    assert_eq!(taken.iter().filter(|t| t.kind == 3).count(), 1, "only the first is an IDR picture");
    taken
}

#[test]
fn b_frames_and_lookahead_cost_what_the_header_says() {
    let driver = Driver::new();
    driver.pass("inside_b_frames");
    driver.assert_clean();
}

#[test]
#[ignore = "run by b_frames_and_lookahead_cost_what_the_header_says"]
fn inside_b_frames() {
    let card = Card::load(&double::folder());
    let plain = Ask::h264(320, 192, 1_000_000);
    let (h264, hevc) = (client::H264, HEVC);
    let runs =
        |codec, b_frames, lookahead| Ask { codec, profile: None, b_frames, lookahead, gop: 1_000, ..plain.clone() };
    // An IDR picture is asked for at 13, in the middle of a run. `!` success, `.` more input.
    for (ask, demuxer, answers) in [
        (runs(h264, 2, 0), "h264", "!..!..!..!..!!..!..!..!."),
        (runs(h264, 2, 2), "h264", "..!..!..!..!..!!..!..!.."),
        (runs(h264, 4, 5), "h264", ".....!....!....!..!....!"),
        (runs(hevc, 2, 0), "hevc", "!..!..!..!..!!..!..!..!."),
        (runs(hevc, 1, 6), "hevc", "......!.!.!.!.!.!.!!.!.!"),
        (runs(hevc, 2, 8), "hevc", "........!..!..!..!..!!.."),
        (runs(hevc, 4, 12), "hevc", "............!....!....!."),
        (Ask { lookahead: 4, ..plain.clone() }, "h264", "....!!!!!!!!!!!!!!!!!!!!"),
    ] {
        let mut client = Client::start(&card, &ask);
        let mut said = String::new();
        for n in 0..24 {
            let code = client.submit(&made(n, 320, 192, false), if n == 13 { FORCE_IDR } else { 0 });
            assert!(matches!(code, 0 | client::MORE), "{code}");
            said.push(if code == 0 { '!' } else { '.' });
            if code == 0 {
                // On one thread: whatever the header promises is locked at once.
                client.take(ask.lookahead as usize);
            }
        }
        assert_eq!(said, answers, "{demuxer} B {} lookahead {}", ask.b_frames, ask.lookahead);
        let taken = client.finish();
        let mut order: Vec<u32> = taken.iter().map(|t| t.shown).collect();
        let types: String = taken.iter().map(|t| b"PBIK"[t.kind as usize] as char).collect();
        println!("{demuxer} {types} {order:?}");
        if ask.b_frames > 0 {
            let run = ask.b_frames as usize;
            let displayed: Vec<u32> = [0, run as u32 + 1].into_iter().chain(1..=run as u32).collect();
            assert_eq!(order[..run + 2], displayed, "the reference before the B frames");
            assert_eq!(types[..run + 2], format!("KP{}", "B".repeat(run)));
            assert!(taken.iter().any(|t| t.kind == 3 && t.shown == 13));
        } else {
            assert_eq!(types, "KPPPPPPPPPPPPKPPPPPPPPPP");
        }
        order.sort_unstable();
        assert_eq!(order, (0..24).collect::<Vec<_>>());
        assert!(taken.iter().all(|t| t.timestamp == u64::from(t.shown) * 3_600), "labels go with their picture");
        let original: Vec<_> = (0..24).map(|n| made(n, 320, 192, false)).collect();
        let (worst, _) = psnr(&decoded(&stream(&taken), demuxer, 320, 192, false), &original, false);
        assert!(worst > 33.0, "decoded in the order of display: {worst} dB");
        let seen = kinds(&stream(&taken), demuxer);
        assert_eq!(seen.contains('B'), ask.b_frames > 0, "{seen}");
    }
    card.close();
}

#[test]
fn hevc_of_ten_bit_says_what_it_was_asked_for() {
    let driver = Driver::new();
    driver.pass("inside_hevc");
    driver.assert_clean();
}

#[test]
#[ignore = "run by hevc_of_ten_bit_says_what_it_was_asked_for"]
fn inside_hevc() {
    let card = Card::load(&double::folder());
    let ask = Ask { aspect: (16, 9), colour: Some(([9, 16, 9], false)), level: 93, ..Ask::hevc10(320, 192, 1_500_000) };
    let mut client = Client::start(&card, &ask);
    assert_eq!(client.ask.profile, Some(MAIN10));
    for n in 0..60 {
        assert_eq!(client.submit(&made(n, 320, 192, true), if n == 30 { FORCE_IDR } else { 0 }), 0);
        client.take(1);
    }
    let headers = client.headers();
    let taken = client.finish();
    let idr: Vec<u32> = taken.iter().filter(|t| t.kind == 3).map(|t| t.shown).collect();
    assert_eq!(idr, [0, 30]);
    for n in [0, 30] {
        let delimiter = taken[n].bytes.windows(2).position(|w| w == [0x46, 0x01]);
        assert_eq!(delimiter, Some(4), "an access unit delimiter first");
        assert!(taken[n].bytes.windows(headers.len()).any(|part| part == headers));
    }
    let said = probed(&stream(&taken), "hevc");
    for line in [
        "profile=Main 10",
        "level=93",
        "pix_fmt=yuv420p10le",
        "sample_aspect_ratio=16:15",
        "color_range=tv",
        "color_space=bt2020nc",
        "color_transfer=smpte2084",
        "color_primaries=bt2020",
        "has_b_frames=0",
    ] {
        assert!(said.lines().any(|l| l == line), "{line} in {said}");
    }
    let original: Vec<_> = (0..60).map(|n| made(n, 320, 192, true)).collect();
    let (worst, mean) = psnr(&decoded(&stream(&taken), "hevc", 320, 192, true), &original, true);
    println!("10 bit: {worst:.1} dB at worst, {mean:.1} dB, {} bytes", stream(&taken).len());
    assert!(worst > 35.0, "{worst} dB");
    card.close();
}

#[test]
fn equal_settings_give_equal_parameter_sets_in_every_session_and_process() {
    let driver = Driver::new();
    let said = [driver.pass("inside_headers"), driver.pass("inside_headers")];
    let headers = said.map(|said| said.lines().filter(|l| l.starts_with("headers")).map(str::to_owned).collect());
    let [first, second]: [Vec<String>; 2] = headers;
    assert_eq!(first.len(), 4);
    assert_eq!(first, second, "in another process");
    driver.assert_clean();
}

#[test]
#[ignore = "run by equal_settings_give_equal_parameter_sets_in_every_session_and_process"]
fn inside_headers() {
    let card = Card::load(&double::folder());
    let asks = [
        (Ask { profile: Some(client::MAIN), level: 31, ..Ask::h264(320, 192, 800_000) }, "Main", "level=31"),
        (Ask { profile: Some(client::BASELINE), ..Ask::h264(320, 192, 800_000) }, "Constrained Baseline", ""),
        (Ask { colour: Some(([1, 1, 1], true)), ..Ask::h264(320, 192, 800_000) }, "High", "color_space=bt709"),
        (Ask::hevc10(320, 192, 800_000), "Main 10", ""),
    ];
    for (ask, profile, line) in &asks {
        let all: Vec<(Vec<u8>, Vec<u8>)> = (0..2)
            .map(|session| {
                let mut client = Client::start(&card, ask);
                // Other pictures in each session.
                for n in 0..4 {
                    let ten_bit = ask.format == client::TEN_BIT;
                    assert_eq!(client.submit(&made(n + session * 50, 320, 192, ten_bit), 0), 0);
                }
                let headers = client.headers();
                (headers, stream(&client.finish()))
            })
            .collect();
        assert_eq!(all[0].0, all[1].0, "in another session");
        println!("\nheaders {:02x?}", all[0].0);
        let said = probed(&all[0].1, if ask.codec == HEVC { "hevc" } else { "h264" });
        assert!(said.contains(&format!("profile={profile}\n")) && said.contains(line), "{profile} {line} in {said}");
    }
    card.close();
}

#[test]
fn av1_is_coded_where_the_card_can() {
    let driver = Driver::new().setting("av1_encode", 1);
    driver.pass("inside_av1");
    driver.assert_clean();
}

#[test]
#[ignore = "run by av1_is_coded_where_the_card_can"]
fn inside_av1() {
    let card = Card::load(&double::folder());
    let ask = Ask { codec: client::AV1, profile: None, ..Ask::h264(320, 192, 900_000) };
    let mut client = Client::start(&card, &ask);
    for n in 0..12 {
        if n == 8 {
            assert_eq!(client.retune(300_000), 0);
        }
        assert_eq!(client.submit(&made(n, 320, 192, false), if n == 5 { FORCE_IDR } else { 0 }), 0);
        client.take(0);
    }
    let taken = client.finish();
    let keys: Vec<u32> = taken.iter().filter(|t| t.kind == 3).map(|t| t.shown).collect();
    assert_eq!(keys, [0, 5, 8], "asked for at 5; a new rate costs one");
    let original: Vec<_> = (0..12).map(|n| made(n, 320, 192, false)).collect();
    let (worst, _) = psnr(&decoded(&stream(&taken), "obu", 320, 192, false), &original, false);
    assert!(worst > 28.0, "{worst} dB");
    card.close();
}

pub(crate) fn stream(taken: &[Taken]) -> Vec<u8> {
    taken.iter().flat_map(|t| t.bytes.clone()).collect()
}

pub(crate) fn mean_size(taken: &[Taken]) -> usize {
    taken.iter().map(|t| t.bytes.len()).sum::<usize>() / taken.len()
}

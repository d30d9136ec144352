//! Every fault played: what the client meets, and that nothing is left behind.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use crate::client::{Ask, Card, Client, FORCE_IDR, Raw, lock, version};
use crate::double::{self, Driver};
use crate::pictures::made;
use crate::{mean_size, retuned_at_twenty};

/// Plays `fault` into the inner test, which must pass and leave nothing behind.
#[track_caller]
fn played(fault: &str, test: &str) -> Driver {
    let driver = Driver::new().fault(fault);
    driver.pass(&format!("faults::{test}"));
    driver.assert_clean();
    assert!(driver.count("faults played") > 0, "{fault} was not played");
    driver
}

fn small() -> Ask {
    Ask::h264(320, 192, 500_000)
}

#[test]
fn a_session_that_can_not_be_opened() {
    played("encode.open code=10 after=1 times=1", "inside_open_fault");
}

#[test]
#[ignore = "run by a_session_that_can_not_be_opened"]
fn inside_open_fault() {
    let card = Card::load(&double::folder());
    let sessions: Vec<(u32, u64)> = (0..3).map(|_| card.open()).collect();
    assert_eq!(sessions.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [0, 10, 0]);
    assert_eq!(sessions[1].1, 0);
    for (_, session) in sessions.iter().filter(|(code, _)| *code == 0) {
        assert_eq!((card.api.destroy)(*session), 0);
    }
    card.close();
}

#[test]
fn steps_of_the_way_to_the_first_picture() {
    for (fault, step) in [
        ("encode.init code=20", "initialise"),
        ("encode.register code=23 after=2", "register"),
        ("encode.map code=16 after=2", "map"),
    ] {
        let driver = Driver::new().fault(fault);
        driver.pass(&format!("faults::inside_{step}_fault"));
        driver.assert_clean();
    }
}

#[test]
#[ignore = "run by steps_of_the_way_to_the_first_picture"]
fn inside_initialise_fault() {
    let card = Card::load(&double::folder());
    let (_, session) = card.open();
    let mut config = small().config(&card, session);
    assert_eq!((card.api.initialise)(session, small().params(&mut config).at()), 20);
    assert_eq!((card.api.destroy)(session), 0);
    card.close();
}

#[test]
#[ignore = "run by steps_of_the_way_to_the_first_picture"]
fn inside_register_fault() {
    let card = Card::load(&double::folder());
    let (_, session) = card.open();
    let mut config = small().config(&card, session);
    assert_eq!((card.api.initialise)(session, small().params(&mut config).at()), 0);
    let mut client = Client::bare(&card, &small(), session);
    for code in [0, 0, 23] {
        let (address, pitch) = card.memory(320, 288);
        assert_eq!(client.register(address, pitch), code);
        if code != 0 {
            assert_eq!((card.cuda.free)(address), 0);
        }
    }
    client.free();
    card.close();
}

#[test]
#[ignore = "run by steps_of_the_way_to_the_first_picture"]
fn inside_map_fault() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &small());
    for n in 0..2 {
        assert_eq!(client.submit(&made(n, 320, 192, false), 0), 0);
    }
    assert_eq!(client.map(client.surfaces[2].registration).0, 16);
    assert_eq!(client.finish().len(), 2);
    card.close();
}

#[test]
fn a_device_that_goes_at_the_fortieth_picture() {
    let driver = played("encode.encode code=5 after=40", "inside_encode_fault");
    assert!(driver.count("frames encoded") >= 38);
}

#[test]
#[ignore = "run by a_device_that_goes_at_the_fortieth_picture"]
fn inside_encode_fault() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &small());
    for n in 0..43 {
        let code = client.submit(&made(n, 320, 192, false), 0);
        assert_eq!(code, if n < 40 { 0 } else { 5 });
        client.take(2);
    }
    // No flush: the device is gone. Nothing is left all the same.
    client.free();
    card.close();
}

#[test]
fn calls_that_take_their_time() {
    for (fault, at_least) in [("encode.encode sleep=300 after=1 times=1", 300), ("encode.lock sleep=800 times=1", 800)]
    {
        let driver = Driver::new().fault(fault);
        let said = driver.pass("faults::inside_slow");
        driver.assert_clean();
        let took = said.lines().find_map(|line| line.strip_prefix("took ")).unwrap().parse::<u64>().unwrap();
        assert!(took >= at_least, "{fault}: {took} ms");
    }
}

#[test]
#[ignore = "run by calls_that_take_their_time"]
fn inside_slow() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &small());
    let begun = SystemTime::now();
    for n in 0..2 {
        assert_eq!(client.submit(&made(n, 320, 192, false), 0), 0);
    }
    client.take(1);
    println!("\ntook {}", begun.elapsed().unwrap().as_millis());
    client.finish();
    card.close();
}

#[test]
fn a_lock_that_fails_once_and_one_that_never_comes_back() {
    played("encode.lock code=20 after=1 times=1", "inside_lock_fault");
    // The process has to be ended with the call in it: its session stays.
    let driver = Driver::new().fault("encode.lock hang after=1");
    driver.pass("faults::inside_lock_hang");
    assert_eq!((driver.broken(), driver.count("live sessions")), (Vec::new(), 1));
}

#[test]
#[ignore = "run by a_lock_that_fails_once_and_one_that_never_comes_back"]
fn inside_lock_fault() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &small());
    for n in 0..2 {
        assert_eq!(client.submit(&made(n, 320, 192, false), 0), 0);
    }
    client.take(1);
    let (output, _) = client.pending[0];
    assert_eq!(lock(&card, client.session, output, false).0, 20);
    assert_eq!(client.finish().len(), 2, "and then it can be locked");
    card.close();
}

#[test]
#[ignore = "run by a_lock_that_fails_once_and_one_that_never_comes_back"]
fn inside_lock_hang() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &small());
    for n in 0..2 {
        assert_eq!(client.submit(&made(n, 320, 192, false), 0), 0);
    }
    client.take(1);
    let (output, session) = (client.pending[0].0, client.session);
    assert!(!comes_back(&card, move |card| lock(card, session, output, false).0));
}

#[test]
fn an_end_that_never_comes_back_and_one_that_is_refused() {
    played("encode.destroy code=20 times=1", "inside_destroy_fault");
    let driver = Driver::new().fault("encode.destroy hang");
    driver.pass("faults::inside_destroy_hang");
    assert_eq!((driver.broken(), driver.count("live sessions")), (Vec::new(), 1));
}

#[test]
#[ignore = "run by an_end_that_never_comes_back_and_one_that_is_refused"]
fn inside_destroy_fault() {
    let card = Card::load(&double::folder());
    let (_, session) = card.open();
    assert_eq!((card.api.destroy)(session), 20);
    assert_eq!((card.api.destroy)(session), 0);
    card.close();
}

#[test]
#[ignore = "run by an_end_that_never_comes_back_and_one_that_is_refused"]
fn inside_destroy_hang() {
    let card = Card::load(&double::folder());
    let (_, session) = card.open();
    assert!(!comes_back(&card, move |card| (card.api.destroy)(session)));
}

/// Whether a call on another thread comes back within half a second.
fn comes_back(card: &Card, call: impl FnOnce(&Card) -> u32 + Send + 'static) -> bool {
    let (tell, told) = mpsc::sync_channel(1);
    let (begin, begun) = mpsc::sync_channel(1);
    let card = *card;
    std::thread::spawn(move || {
        assert_eq!((card.cuda.set_current)(card.context), 0);
        begin.send(()).unwrap();
        let code = call(&card);
        tell.send(code).ok();
    });
    begun.recv().unwrap();
    told.recv_timeout(Duration::from_millis(500)).is_ok()
}

#[test]
fn an_idr_picture_that_was_not_made() {
    played("encode.idr no_idr after=1 times=1", "inside_no_idr");
}

#[test]
#[ignore = "run by an_idr_picture_that_was_not_made"]
fn inside_no_idr() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &small());
    for n in 0..12 {
        let flags = if matches!(n, 0 | 4 | 8) { FORCE_IDR } else { 0 };
        assert_eq!(client.submit(&made(n, 320, 192, false), flags), 0);
        client.take(0);
    }
    let idr: Vec<u32> = client.finish().iter().filter(|t| t.kind == 3).map(|t| t.shown).collect();
    assert_eq!(idr, [0, 8]);
    card.close();
}

#[test]
fn parameter_sets_of_another_make() {
    played("encode.open other_headers after=1 times=1", "inside_other_headers");
}

#[test]
#[ignore = "run by parameter_sets_of_another_make"]
fn inside_other_headers() {
    let card = Card::load(&double::folder());
    for ask in [small(), Ask::hevc10(320, 192, 500_000)] {
        let clients: Vec<Client> = (0..3).map(|_| Client::start(&card, &ask)).collect();
        let headers: Vec<Vec<u8>> = clients.iter().map(Client::headers).collect();
        let other = ask.codec == crate::client::H264;
        assert_eq!((headers[0] == headers[1], headers[0] == headers[2]), (!other, true));
        for mut client in clients {
            client.free();
        }
    }
    card.close();
}

#[test]
fn a_new_rate_that_has_no_effect() {
    played("encode.reconfigure ignore_rate", "inside_ignored_rate");
    played("encode.reconfigure code=8", "inside_refused_rate");
}

#[test]
#[ignore = "run by a_new_rate_that_has_no_effect"]
fn inside_ignored_rate() {
    let card = Card::load(&double::folder());
    let taken = retuned_at_twenty(&card, &Ask::h264(640, 360, 3_000_000));
    let (before, after) = (mean_size(&taken[4..20]), mean_size(&taken[40..]));
    assert!(after * 4 > before * 3, "{before} bytes a picture, then {after}");
    card.close();
}

#[test]
#[ignore = "run by a_new_rate_that_has_no_effect"]
fn inside_refused_rate() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &small());
    assert_eq!(client.retune(300_000), 8);
    client.free();
    card.close();
}

#[test]
fn a_card_that_is_lost_ends_the_session_not_the_process() {
    // The client's own calls of libcuda are counted: the card goes while pictures are on their way.
    let driver = Driver::new().fault("cuda.lost code=999 after=60");
    driver.pass("faults::inside_lost");
    assert_eq!((driver.broken(), driver.count("live sessions")), (Vec::new(), 0));
    assert_eq!(driver.count("live mapped inputs") + driver.count("live bitstream buffers"), 0);
}

#[test]
#[ignore = "run by a_card_that_is_lost_ends_the_session_not_the_process"]
fn inside_lost() {
    let card = Card::load(&double::folder());
    let mut client = Client::start(&card, &small());
    let pixels = made(0, 320, 192, false);
    let mut code = 0;
    for n in 0..400 {
        let surface = client.surfaces[n % 4];
        (card.cuda.upload)(surface.address, pixels.as_ptr().cast(), 320);
        let (mapped, input) = client.map(surface.registration);
        code = mapped;
        if mapped != 0 {
            break;
        }
        let output = client.outputs[n % 4];
        let mut picture = client.picture(n, input, surface.pitch, output, 0);
        code = (card.api.encode)(client.session, picture.at());
        if code == 0 {
            client.pending.push_back((output, input));
            code = lock(&card, client.session, output, false).0;
        }
        if code != 0 {
            (card.api.unmap)(client.session, input);
            client.pending.clear();
            break;
        }
        assert_eq!((card.api.unlock)(client.session, output), 0);
        client.pending.clear();
        assert_eq!((card.api.unmap)(client.session, input), 0);
    }
    assert_eq!(code, 5, "the device is gone");
    for surface in client.surfaces.drain(..) {
        assert_eq!((card.api.unregister)(client.session, surface.registration), 0);
    }
    client.free();
}

#[test]
fn cards_without_an_encoder_and_drivers_too_old() {
    for (key, value, code) in [("nvenc.none_code", 2, 2), ("nvenc.none_code", 1, 1)] {
        let driver = Driver::new().setting("nvenc.count", 0).setting(key, value);
        let said = driver.pass("faults::inside_refused");
        assert!(said.contains(&format!("open {code}")), "{said}");
        driver.assert_clean();
    }
    let driver = Driver::new().setting("nvenc.api", "11.1");
    let said = driver.pass("faults::inside_refused");
    assert!(said.contains("max 0xb1") && said.contains("instance 15"), "{said}");
    driver.assert_clean();
    let driver = Driver::new().setting("nvenc.api", "13.0");
    let said = driver.pass("faults::inside_refused");
    assert!(said.contains("max 0xd0") && said.contains("open 0"), "{said}");
    driver.assert_clean();
}

#[test]
#[ignore = "run by cards_without_an_encoder_and_drivers_too_old"]
fn inside_refused() {
    let card = Card::load(&double::folder());
    let mut max = 0_u32;
    assert_eq!((card.api.max_version)((&raw mut max).cast()), 0);
    let mut list = Raw::new::<nvidia_video_codec_sdk::sys::nvEncodeAPI::NV_ENCODE_API_FUNCTION_LIST>(version(2));
    let instance = (card.api.create_instance)(list.at());
    println!("\nmax {max:#x}, instance {instance}");
    if instance == 0 {
        let (code, session) = card.open();
        println!("open {code}");
        if code == 0 {
            assert_eq!((card.api.destroy)(session), 0);
        }
    }
    card.close();
}

#[test]
fn sessions_are_bounded_in_all_processes_together() {
    for code in [10, 21] {
        let driver = Driver::new().setting("nvenc.max_sessions", 2).setting("nvenc.max_sessions_code", code);
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| driver.pass("faults::inside_holder"));
            wait_for(&marker(&driver.folder(), "held"));
            let said = driver.pass("faults::inside_refused");
            assert!(said.contains("open 0"), "one more fits: {said}");
            let said = driver.pass("faults::inside_two");
            assert!(said.contains(&format!("second {code}")), "{said}");
            std::fs::write(marker(&driver.folder(), "release"), "").unwrap();
            holder.join().unwrap();
        });
        let said = driver.pass("faults::inside_two");
        assert!(said.contains("second 0"), "{said}");
        driver.assert_clean();
    }
}

#[test]
#[ignore = "run by sessions_are_bounded_in_all_processes_together"]
fn inside_holder() {
    let card = Card::load(&double::folder());
    let (code, session) = card.open();
    assert_eq!(code, 0);
    std::fs::write(marker(&double::folder(), "held"), "").unwrap();
    wait_for(&marker(&double::folder(), "release"));
    assert_eq!((card.api.destroy)(session), 0);
    card.close();
}

#[test]
#[ignore = "run by sessions_are_bounded_in_all_processes_together"]
fn inside_two() {
    let card = Card::load(&double::folder());
    let (first, second) = (card.open(), card.open());
    assert_eq!(first.0, 0);
    println!("\nsecond {}", second.0);
    for (_, session) in [first, second].into_iter().filter(|(code, _)| *code == 0) {
        assert_eq!((card.api.destroy)(session), 0);
    }
    card.close();
}

fn marker(folder: &std::path::Path, name: &str) -> PathBuf {
    folder.with_file_name(name)
}

#[track_caller]
fn wait_for(path: &std::path::Path) {
    for _ in 0..12_000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} never came", path.display());
}

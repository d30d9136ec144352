//! SRT over real sockets: `srt-live-transmit` and `ffmpeg` as callers and listeners, and our own ends against them.

#[path = "srt/harness.rs"]
mod harness;
#[path = "support/ports.rs"]
mod ports;
#[path = "srt/pull.rs"]
mod pull;

use std::io::Read;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::*;
use ports::{KEY, OWN_PASS, pace};
use rung::ingest::srt::{PortConfig, PushOptions, SrtUrl, push};
use rung::ingest::{Closing, Knobs, Leg, PAYLOAD, Progress, PublishEnd, PublishEvent, PushError};

/// `#!::r=…` as `srt-live-transmit` and ffmpeg want it.
fn long(channel: &str, key: &str) -> String {
    format!("streamid=#!::r={channel},k={key},m=publish")
}

fn short(channel: &str) -> String {
    format!("streamid={channel}/{KEY}")
}

#[test]
fn srt_live_transmit_publishes_in_clear_and_with_every_key_length() {
    for (pass, extra, bits) in [
        (None, String::new(), 0),
        (Some(PASS), format!("&passphrase={PASS}"), 128),
        (Some(PASS), format!("&passphrase={PASS}&pbkeylen=16"), 128),
        (Some(PASS), format!("&passphrase={PASS}&pbkeylen=24"), 192),
        (Some(PASS), format!("&passphrase={PASS}&pbkeylen=32"), 256),
    ] {
        let port = TestPort::open(pass);
        let mut caller = Transmit::start(port.address, &format!("{}{extra}", short("c1")), 400);
        port.wait("300 payloads", |seen| seen.tally("c1").filter(|t| t.next > 300).map(|_| ()));
        let publisher = port.look(|seen| seen.on("c1").unwrap().publisher);
        port.command(Order::Stats(publisher));
        let stats = port.wait("statistics", |seen| seen.stats.get(&publisher).cloned());
        caller.finish();
        port.look(|seen| {
            let (connected, tally) = (seen.on("c1").unwrap(), seen.tally("c1").unwrap());
            assert_eq!((tally.gaps, tally.corrupt), (0, 0), "{extra}");
            assert_eq!((connected.key_bits, connected.leg), (bits, Leg::A), "{extra}");
            assert_eq!(connected.peer_version.as_deref(), Some("1.5.1"));
            assert!(stats.received >= 300 && stats.dropped == 0 && stats.undecryptable == 0, "{stats:?}");
            assert_eq!(stats.latency, Some(Duration::from_millis(120)));
            assert!(stats.rtt.unwrap() < Duration::from_millis(100) && stats.age.unwrap() < LIMIT, "{stats:?}");
            assert!(!seen.log.contains(KEY) && !seen.log.contains("127.0.0.1"), "no key, no address: {}", seen.log);
        });
    }
}

#[test]
fn ffmpeg_publishes_in_clear_and_with_every_key_length_with_both_forms_of_stream_id() {
    for (pass, options, bits) in [
        (None, long("c1", KEY), 0),
        (Some(PASS), format!("{}&passphrase={PASS}&pbkeylen=16", short("c1")), 128),
        (Some(PASS), format!("{}&passphrase={PASS}&pbkeylen=24", short("c1")), 192),
        (Some(PASS), format!("{}&passphrase={PASS}&pbkeylen=32", long("c1", KEY)), 256),
    ] {
        let port = TestPort::open(pass);
        let caller = ffmpeg(port.address, &options);
        port.wait("60 kB of media", |seen| seen.tally("c1").filter(|t| t.bytes > 60_000).map(|_| ()));
        drop(caller);
        port.look(|seen| {
            assert_eq!(seen.on("c1").unwrap().key_bits, bits, "{options}");
            assert_eq!(continuity_errors(&seen.tally("c1").unwrap().head), 0, "{options}");
        });
    }
}

#[test]
fn both_forms_of_stream_id_work_from_srt_live_transmit_and_name_a_leg() {
    let port = TestPort::open(None);
    let long_b = format!("streamid=%23!::r%3Dc2,k%3D{KEY},m%3Dpublish,leg%3Db");
    let _one = OwnCaller::start(port.url(&long_b), 50);
    let _two = Transmit::start(port.address, &format!("streamid=c2/{KEY}/a"), 50);
    port.wait("both legs", |seen| (seen.connected.len() == 2).then_some(()));
    let mut legs = port.look(|seen| seen.connected.iter().map(|c| (c.channel.to_string(), c.leg)).collect::<Vec<_>>());
    legs.sort();
    assert_eq!(legs, [("c2".to_owned(), Leg::A), ("c2".to_owned(), Leg::B)]);
}

#[test]
fn keys_that_change_in_mid_stream_cost_no_packet() {
    let port = TestPort::open(Some(PASS));
    for (channel, length) in [("c1", 16), ("c2", 24), ("c3", 32)] {
        // A sender that stands still for the default latency gives packets up.
        let keys = format!("pbkeylen={length}&kmrefreshrate=200&kmpreannounce=50&latency=500");
        let options = format!("{}&passphrase={PASS}&{keys}", short(channel));
        let mut libsrt = Transmit::start(port.address, &options, 400);
        port.wait("six keys", |seen| seen.tally(channel).filter(|t| t.next > 1_100).map(|_| ()));
        libsrt.finish();
        port.look(|seen| assert_eq!((seen.tally(channel).unwrap().gaps, seen.tally(channel).unwrap().corrupt), (0, 0)));
    }
    let ours = format!("{}&passphrase={PASS}&pbkeylen=24&kmrefreshrate=100&latency=500", short("c4"));
    let ours = OwnCaller::start(port.url(&ours), 1_000);
    port.wait("ten keys of ours", |seen| seen.tally("c4").filter(|t| t.next > 950).map(|_| ()));
    ours.finish();
    port.look(|seen| assert_eq!((seen.tally("c4").unwrap().gaps, seen.tally("c4").unwrap().corrupt), (0, 0)));
}

#[test]
fn a_channel_has_a_passphrase_of_its_own_beside_open_ones_on_the_same_port() {
    let port = TestPort::open(None);
    let own = format!("passphrase={OWN_PASS}&pbkeylen=32");
    for (options, code) in [
        (short("c10"), 11),
        (format!("{}&passphrase={PASS}", short("c10")), 10),
        (format!("{}&{own}", short("c2")), 11),
    ] {
        assert_eq!(OwnCaller::start(port.url(&options), 50).end().end, PublishEnd::Refused(code), "{options}");
    }
    assert!(port.look(|seen| seen.connected.is_empty()));
    let mut open = Transmit::start(port.address, &short("c1"), 400);
    let mut keyed = Transmit::start(port.address, &format!("{}&{own}", short("c10")), 400);
    port.wait("both", |seen| {
        let enough = |channel| seen.tally(channel).is_some_and(|t| t.next > 200);
        (enough("c1") && enough("c10")).then_some(())
    });
    let publishers = port.look(|seen| ["c1", "c10"].map(|channel| seen.on(channel).unwrap().publisher));
    publishers.iter().for_each(|publisher| port.command(Order::Stats(*publisher)));
    let stats = port.wait("statistics", |seen| (seen.stats.len() == 2).then(|| seen.stats.clone()));
    open.finish();
    keyed.finish();
    port.look(|seen| {
        assert_eq!((seen.on("c1").unwrap().key_bits, seen.on("c10").unwrap().key_bits), (0, 256));
        assert_eq!((seen.tally("c1").unwrap().gaps, seen.tally("c10").unwrap().gaps), (0, 0), "{stats:?}");
    });
}

#[test]
fn a_passphrase_must_fit_on_both_sides() {
    let wrong = "passphrase=another passphrase";
    let right = format!("passphrase={PASS}");
    for (pass, extra, code, what) in [
        (Some(PASS), wrong, 10, "wrong passphrase"),
        (Some(PASS), "", 11, "keyless caller on a keyed port"),
        (None, right.as_str(), 11, "keyed caller on an open port"),
    ] {
        let port = TestPort::open(pass);
        let options = format!("{}&{extra}", short("c1"));
        let mut libsrt = Transmit::start(port.address, &options, 50);
        assert_eq!(port.wait_refused().0, code, "{what}");
        libsrt.finish();
        let end = OwnCaller::start(port.url(&options), 50).end().end;
        assert_eq!(end, PublishEnd::Refused(code), "{what}");
        assert!(port.look(|seen| seen.connected.is_empty() && seen.tallies.is_empty()), "{what}");
    }
}

#[test]
fn a_wrong_key_and_an_unknown_channel_get_the_same_answer_after_the_same_time() {
    let port = TestPort::open(None);
    for options in [long("c1", "wrong"), long("nobody", KEY), "streamid=c1".to_owned(), String::new()] {
        let outcome = OwnCaller::start(port.url(&options.replace('#', "%23")), 50).end();
        assert_eq!((outcome.end, outcome.connected), (PublishEnd::Refused(1401), None), "{options}");
        assert!(outcome.took >= Duration::from_millis(100), "{options}: {:?}", outcome.took);
    }
    port.look(|seen| {
        assert_eq!(seen.refused.len(), 4);
        for (channel, code, why) in &seen.refused {
            assert_eq!((channel, *code, why.as_str()), (&None, 1401, "unknown channel or wrong publish key"));
        }
        assert!(seen.connected.is_empty() && !seen.log.contains("wrong,"));
    });
}

#[test]
fn libsrt_peers_are_refused_with_our_codes() {
    let port = TestPort::open(None);
    let said = ffmpeg(port.address, &long("c1", "wrong")).said();
    assert!(said.contains("Input/output error") || said.contains("rejected"), "{said}");
    assert_eq!(port.wait_refused().0, 1401);
}

#[test]
fn stopped_channels_and_other_modes_are_refused_by_name() {
    let port = TestPort::open(None);
    for (options, code) in [
        (short("c8"), 1403),
        (format!("streamid=%23!::r=c1,k={KEY},m=request"), 1415),
        (format!("streamid=%23!::r=c1,k={KEY}"), 1415),
        (format!("streamid=c1/{KEY}/c"), 1415),
    ] {
        assert_eq!(OwnCaller::start(port.url(&options), 50).end().end, PublishEnd::Refused(code), "{options}");
    }
    port.look(|seen| assert_eq!(seen.refused[0].0.as_deref(), Some("c8"), "a known channel is named in the log"));
}

#[test]
fn an_address_that_tries_too_often_is_told_so_and_a_full_port_says_what_is_full() {
    let port = TestPort::open(None);
    for _ in 0..10 {
        assert_eq!(OwnCaller::start(port.url("streamid=c1/wrong"), 50).end().end, PublishEnd::Refused(1401));
    }
    assert_eq!(OwnCaller::start(port.url(&short("c1")), 50).end().end, PublishEnd::Refused(1429));
    let small = TestPort::with(PortConfig { publishers_max: 1, ..config(None) });
    let _first = OwnCaller::start(small.url(&short("c1")), 50);
    small.wait("the first publisher", |seen| seen.on("c1").map(|_| ()));
    assert_eq!(OwnCaller::start(small.url(&short("c2")), 50).end().end, PublishEnd::Refused(1503));
    let (code, why) = small.wait_refused();
    assert!(code == 1503 && why.contains("1 publishers are connected, which is the limit"), "{why}");
}

#[test]
fn a_second_publisher_is_refused_until_the_first_is_silent_for_two_seconds() {
    let port = TestPort::open(None);
    let first = OwnCaller::start(port.url(&short("c1")), 200);
    port.wait("media", |seen| seen.tally("c1").map(|_| ()));
    assert_eq!(OwnCaller::start(port.url(&short("c1")), 50).end().end, PublishEnd::Refused(1409));
    first.mute();
    let muted = now();
    let second = loop {
        let before = port.look(|seen| seen.refused.len());
        let caller = OwnCaller::start(port.url(&short("c1")), 200);
        let on = port.wait("an answer", |seen| {
            let on = seen.connected.len() > 1;
            (on || seen.refused.len() > before).then_some(on)
        });
        if on {
            break caller;
        }
        assert_eq!(caller.end().end, PublishEnd::Refused(1409));
        pace(Duration::from_millis(100));
    };
    assert!(now() - muted >= Duration::from_millis(1_900), "{:?}", now() - muted);
    assert_eq!(first.end().end, PublishEnd::ClosedByPeer);
    port.look(|seen| {
        let (old, new) = (&seen.connected[0], &seen.connected[1]);
        assert_eq!((seen.closed[0].0, seen.closed[0].1), (old.publisher, Closing::Replaced));
        assert_eq!(new.replaced, Some(old.publisher));
    });
    port.wait("media of the second", |seen| seen.tally("c1").filter(|t| t.next > 10).map(|_| ()));
    second.finish();
    port.wait("its end", |seen| seen.closed.iter().find(|c| c.1 == Closing::Finished).map(|_| ()));
}

#[test]
fn the_newest_publisher_wins_where_the_channel_says_so() {
    let port = TestPort::open(None);
    let mut first = Transmit::start(port.address, &short("c9"), 200);
    port.wait("media", |seen| seen.tally("c9").map(|_| ()));
    let second = OwnCaller::start(port.url(&short("c9")), 200);
    port.wait("the takeover", |seen| (seen.connected.len() == 2).then_some(()));
    first.finish();
    port.wait("media of the second", |seen| seen.tally("c9").filter(|t| t.next > 100 && t.gaps == 0).map(|_| ()));
    port.look(|seen| assert_eq!((seen.closed.len(), seen.closed[0].1), (1, Closing::Replaced)));
    second.finish();
}

#[test]
fn the_last_payloads_before_a_clean_end_are_delivered() {
    let port = TestPort::open(None);
    let caller = OwnCaller::start(port.url(&format!("{}&latency=2000", short("c1"))), 200);
    port.wait("media", |seen| seen.tally("c1").map(|_| ()));
    let outcome = caller.finish();
    assert_eq!((outcome.end, outcome.connected), (PublishEnd::Finished, Some(Duration::from_secs(2))));
    let stats = port.wait("the end", |seen| seen.closed.first().map(|c| (c.1, c.2.clone())));
    assert_eq!((stats.0, stats.1.latency), (Closing::Finished, Some(Duration::from_secs(2))));
    port.look(|seen| assert_eq!(seen.tally("c1").unwrap().next, outcome.stats.sent));
}

#[test]
fn a_killed_publisher_is_gone_after_five_seconds_and_its_leg_is_free() {
    let port = TestPort::open(None);
    let mut caller = Transmit::start(port.address, &short("c1"), 200);
    port.wait("media", |seen| seen.tally("c1").map(|_| ()));
    caller.peer.kill();
    let killed = now();
    let reason = port.wait("its end", |seen| seen.closed.first().map(|c| c.1));
    let took = now() - killed;
    assert_eq!(reason, Closing::Silent);
    assert!(took > Duration::from_millis(4_500) && took < Duration::from_millis(6_500), "{took:?}");
    let next = OwnCaller::start(port.url(&short("c1")), 200);
    port.wait("the next", |seen| (seen.connected.len() == 2).then_some(()));
    next.finish();
}

#[test]
fn a_publisher_closed_for_its_media_stays_out_for_a_while() {
    let port = TestPort::open(None);
    let caller = OwnCaller::start(port.url(&short("c1")), 200);
    let publisher = port.wait("it", |seen| seen.on("c1").map(|c| c.publisher));
    port.command(Order::Close(publisher, Closing::InputInvalid));
    assert_eq!(caller.end().end, PublishEnd::ClosedByPeer);
    assert_eq!(OwnCaller::start(port.url(&short("c1")), 50).end().end, PublishEnd::Refused(1429));
}

#[test]
fn the_any_address_takes_both_families() {
    let port = TestPort::with(PortConfig { address: "[::]:0".parse().unwrap(), ..config(None) });
    let number = port.address.port();
    let url = |host, channel| SrtUrl::parse(&format!("srt://{host}:{number}?{}", short(channel))).unwrap();
    let _four = OwnCaller::start(url("127.0.0.1", "c1"), 50);
    let _six = OwnCaller::start(url("[::1]", "c2"), 50);
    port.wait("media over both", |seen| seen.tally("c1").and(seen.tally("c2")).map(|_| ()));
}

#[test]
fn our_caller_publishes_to_srt_live_transmit_in_clear_and_with_every_key_length() {
    let keyed = |length: u8| format!("&passphrase=a long passphrase&pbkeylen={length}&kmrefreshrate=64");
    for extra in [String::new(), keyed(16), keyed(24), keyed(32)] {
        let number = free_port();
        // The listener learns of new keys from us.
        let secret = extra.split("&kmrefreshrate").next().unwrap();
        let listen = format!("srt://127.0.0.1:{number}?mode=listener{secret}");
        let mut command = Command::new("srt-live-transmit");
        command.args(["-chunk:1316", "-quiet", &listen, "file://con"]);
        let mut peer = Peer::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let url = SrtUrl::parse(&format!("srt://127.0.0.1:{number}?streamid=any{extra}")).unwrap();
        let caller = OwnCaller::start(url, 300);
        let mut out = peer.stdout();
        for n in 0..300 {
            let mut payload = vec![0; PAYLOAD];
            out.read_exact(&mut payload).unwrap();
            assert!(payload == numbered(n), "payload {n} {extra}");
        }
        let outcome = caller.finish();
        assert_eq!(outcome.end, PublishEnd::Finished, "{extra}");
        peer.kill();
    }
}

fn options(file: &tempfile::NamedTempFile, url: SrtUrl) -> PushOptions {
    PushOptions {
        file: file.path().to_owned(),
        url: url.into(),
        streams: 1,
        looping: false,
        reconnect: false,
        knobs: Knobs::default(),
        seed: 1,
    }
}

#[test]
fn push_publishes_a_file_in_real_time_and_byte_for_byte() {
    let (port, file) = (TestPort::open(None), clip());
    let begin = now();
    let done = push(&options(&file, port.url(&short("c1"))), &mut |_| ControlFlow::Continue(())).unwrap();
    let took = now() - begin;
    assert!(took > Duration::from_millis(2_000) && took < Duration::from_secs(6), "{took:?}");
    port.wait("its end", |seen| seen.closed.first().map(|_| ()));
    let sent = std::fs::read(file.path()).unwrap();
    port.look(|seen| assert!(seen.tally("c1").unwrap().head == sent, "{} bytes", sent.len()));
    assert_eq!((done[0].publish.sent_bytes, done[0].end), (sent.len() as u64, Some(PublishEnd::Finished)));
}

#[test]
fn push_loops_a_file_on_many_channels_as_one_continuous_stream() {
    let (port, file) = (TestPort::open(Some(PASS)), clip());
    let url = port.url(&format!("streamid=c{{n}}/{KEY}&passphrase={PASS}"));
    let wanted = PushOptions { streams: 4, looping: true, ..options(&file, url) };
    let twice = 2 * file.as_file().metadata().unwrap().len();
    let done = push(&wanted, &mut |progress| match progress {
        Progress::Tick { streams, .. } if streams.iter().all(|s| s.publish.sent_bytes > twice + 20_000) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(done.unwrap().len(), 4);
    port.wait("their ends", |seen| (seen.closed.len() == 4).then_some(()));
    port.look(|seen| {
        for channel in ["c1", "c2", "c3", "c4"] {
            let tally = seen.tally(channel).unwrap();
            assert!(tally.bytes > twice, "{channel}");
            assert_eq!(continuity_errors(&tally.head), 0, "{channel}");
        }
    });
    // libavformat's view: every picture one frame after the one before, over the joints too.
    let received = tempfile::NamedTempFile::new().unwrap();
    port.look(|seen| std::fs::write(received.path(), &seen.tally("c1").unwrap().head).unwrap());
    let mut probe = Command::new("ffprobe");
    probe.args(["-loglevel", "error", "-select_streams", "v", "-show_entries", "packet=dts", "-of", "csv=p=0"]);
    let listed = String::from_utf8(probe.arg(received.path()).output().unwrap().stdout).unwrap();
    let times: Vec<i64> = listed.lines().filter_map(|line| line.trim_end_matches(',').parse().ok()).collect();
    assert!(times.len() > 2 * 60, "{} pictures", times.len());
    for (n, pair) in times.windows(2).enumerate() {
        assert_eq!(pair[1] - pair[0], 3_600, "after picture {n} of {}", times.len());
    }
}

#[test]
fn push_comes_back_after_its_listener_did() {
    let file = clip();
    let mut port = TestPort::open(None);
    let (address, url) = (port.address, port.url(&short("c1")));
    let wanted = PushOptions { looping: true, reconnect: true, ..options(&file, url) };
    let (mut connected, mut closed, mut again) = (0, 0, None);
    let done = push(&wanted, &mut |progress| {
        match progress {
            Progress::Event { event: PublishEvent::Connected { .. }, .. } => connected += 1,
            Progress::Event { event: PublishEvent::Closed(_), .. } => closed += 1,
            Progress::Tick { streams, .. } if connected == 1 && closed == 0 && streams[0].publish.acknowledged > 20 => {
                port.stop();
            }
            Progress::Tick { .. } if closed > 0 && again.is_none() => {
                again = Some(TestPort::with(PortConfig { address, ..config(None) }));
            }
            Progress::Tick { streams, .. } if connected == 2 && streams[0].publish.acknowledged > 20 => {
                return ControlFlow::Break(());
            }
            Progress::Tick { elapsed, .. } => assert!(elapsed < LIMIT),
            Progress::Late { .. } | Progress::Link { .. } | Progress::Source { .. } => {
                panic!("a file over one link, and nothing of it is left out");
            }
        }
        ControlFlow::Continue(())
    });
    assert!(done.unwrap()[0].tries >= 2);
    assert!(port.look(|seen| seen.closed[0].1 == Closing::Shutdown));
}

#[test]
fn push_says_what_is_wrong() {
    let (port, file) = (TestPort::open(None), clip());
    let run = |url: SrtUrl| push(&options(&file, url), &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert_eq!(run(port.url("streamid=c1/no")), "stream 1: refused: unknown channel or wrong publish key (1401)");
    let nobody = SrtUrl::parse(&format!("srt://127.0.0.1:{}?streamid=c1/x", free_port())).unwrap();
    assert_eq!(run(nobody), "stream 1: nobody listens on that port");
    let missing = PushOptions { file: "no/such/file.ts".into(), ..options(&file, port.url(&short("c1"))) };
    let error = push(&missing, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, PushError::File { .. }) && error.to_string().starts_with("no/such/file.ts: "), "{error}");
}

//! QUIC over real sockets: `rung push` against the port, through links that delay, lose and move, and beside SRT.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "quic/harness.rs"]
mod harness;
#[path = "quic/hostile.rs"]
mod hostile;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/random.rs"]
mod random;
#[path = "support/relay.rs"]
mod relay;

use std::time::Duration;

use harness::*;
use ports::{KEY, ms, pace};
use relay::{Link, Relay};
use rung::ingest::quic::{Identity, PushOptions, Source, Trust};
use rung::ingest::srt::{Publish, SrtUrl};
use rung::ingest::{Closing, Leg, Protocol, PublishEnd, PublishEvent};
use rung::time::SystemClock;

/// Channel and key.
pub(crate) fn place(channel: &str) -> String {
    format!("{channel}/{KEY}")
}

#[test]
fn a_stream_arrives_whole_and_its_statistics_say_so() {
    let ports = TestPorts::open();
    let (file, packets) = stream(6_000_000, ms(3_000));
    let outcome = push_file(&file, ports.url(&format!("{}/b?latency=300&max_bitrate=8M", place("c1"))));
    let done = outcome.result.unwrap();
    assert_eq!((done[0].end, outcome.latency), (Some(PublishEnd::Finished), Some(ms(300))));
    ports.wait("its end", |seen| seen.end("c1").map(|_| ()));
    ports.look(|seen| {
        let (connected, tally) = (seen.on("c1").unwrap(), seen.tally("c1").unwrap());
        assert_eq!((tally.next, tally.missing, tally.corrupt), (packets, 0, 0));
        assert_eq!((connected.protocol, connected.leg, connected.latency), (Protocol::Quic, Leg::B, ms(300)));
        assert_eq!((connected.key_bits, connected.peer_version.as_deref()), (256, Some("rung-ts/1")));
        let (why, stats) = seen.end("c1").unwrap();
        assert_eq!(why, Closing::Finished, "{}", seen.log);
        let segments = stats.received;
        assert!((12..=13).contains(&segments), "three seconds in quarters: {stats:?}");
        assert_eq!((stats.dropped, stats.belated, stats.duplicates, stats.overflowed), (0, 0, 0, 0));
        assert_eq!(stats.received_bytes, tally.bytes);
        let rate = stats.bitrate.unwrap();
        assert!((5_000_000..7_000_000).contains(&rate) && stats.rtt.unwrap() < ms(100), "{stats:?}");
        assert!(!seen.log.contains(KEY) && !seen.log.contains("127.0.0.1"), "no key, no address: {}", seen.log);
    });
    assert_eq!(done[0].publish.sent_bytes, std::fs::metadata(file.path()).unwrap().len());
}

#[test]
fn a_refusal_has_its_code_and_what_is_denied_takes_the_same_time() {
    let ports = TestPorts::open();
    let (file, _) = stream(2_000_000, ms(500));
    for (place, code) in [("c1/wrong".to_owned(), 1401), (format!("nobody/{KEY}"), 1401), (place("c8"), 1403)] {
        let outcome = push_file(&file, ports.url(&place));
        assert_eq!(outcome.end(), PublishEnd::Refused(code), "{place}");
        assert!(code != 1401 || outcome.took >= ms(100), "{place}: {:?}", outcome.took);
    }
    for _ in 0..8 {
        assert_eq!(push_file(&file, ports.url("c1/wrong")).end(), PublishEnd::Refused(1401));
    }
    assert_eq!(push_file(&file, ports.url(&place("c1"))).end(), PublishEnd::Refused(1429));
    ports.look(|seen| {
        assert!(seen.connected.is_empty() && seen.tallies.is_empty());
        assert_eq!((seen.refused.len(), seen.counters.refused), (12, 12));
        for (channel, code, why) in seen.refused.iter().filter(|(_, code, _)| *code == 1401) {
            assert_eq!((channel, *code, why.as_str()), (&None, 1401, "unknown channel or wrong publish key"));
        }
        assert!(!seen.log.contains("wrong/") && !seen.log.contains(KEY), "{}", seen.log);
    });
}

#[test]
fn a_wrong_certificate_ends_in_tls_before_anything_is_said() {
    let ports = TestPorts::open();
    let (file, _) = stream(2_000_000, ms(500));
    let folder = tempfile::tempdir().unwrap();
    let wrong = PushOptions {
        trust: Trust::Pin(Identity::own(folder.path()).unwrap().pin()),
        ..options(Source::File(file.path().into()), ports.url(&place("c1")))
    };
    let nobody = PushOptions { trust: authority("a.example").0, ..wrong.clone() };
    for options in [wrong, nobody] {
        let outcome = Pushing::start(options).end();
        assert_eq!(outcome.end(), PublishEnd::Certificate);
        assert!(!outcome.end().worth_a_retry() && outcome.took < Duration::from_secs(2));
    }
    ports.wait("both failures", |seen| (seen.counters.failed == 2).then_some(()));
    ports.look(|seen| {
        assert!(seen.connected.is_empty() && seen.refused.is_empty());
        assert_eq!((seen.counters.done, seen.counters.no_hello), (0, 0));
    });
}

#[test]
fn a_receiver_that_an_authority_vouches_for_needs_no_pin_but_its_name() {
    let (trust, identity) = authority("localhost");
    let ports = TestPorts::with(Opening { identity: Some(identity), ..Opening::default() });
    let (file, packets) = stream(2_000_000, ms(500));
    let options = |host: &str| {
        let mut options = options(Source::File(file.path().into()), ports.url(&place("c1")));
        options.url.host = host.into();
        PushOptions { trust: trust.clone(), ..options }
    };
    assert_eq!(Pushing::start(options("127.0.0.1")).end().end(), PublishEnd::Certificate, "another name");
    Pushing::start(options("localhost")).end().result.unwrap();
    ports.wait("its end", |seen| seen.end("c1").map(|_| ()));
    ports.look(|seen| assert_eq!(seen.tally("c1").unwrap().next, packets));
}

#[test]
fn another_certificate_is_shown_to_whoever_comes_next() {
    let ports = TestPorts::open();
    let (file, packets) = stream(2_000_000, ms(3_000));
    let (short, _) = stream(2_000_000, ms(300));
    let before = Pushing::start(options(Source::File(file.path().into()), ports.url(&place("c1"))));
    ports.wait("on air", |seen| seen.tally("c1").map(|_| ()));
    let folder = tempfile::tempdir().unwrap();
    let next = Identity::own(folder.path()).unwrap();
    ports.renewal.renew(&next).unwrap();
    assert_eq!(push_file(&short, ports.url(&place("c2"))).end(), PublishEnd::Certificate, "the pin of the first one");
    let mut options = options(Source::File(short.path().into()), ports.url(&place("c2")));
    options.trust = Trust::Pin(next.pin());
    Pushing::start(options).end().result.unwrap();
    before.end().result.unwrap();
    ports.wait("its end", |seen| seen.end("c1").map(|_| ()));
    ports.look(|seen| assert_eq!((seen.tally("c1").unwrap().next, seen.tally("c1").unwrap().missing), (packets, 0)));
}

/// An authority, and whom it vouches for.
fn authority(name: &str) -> (Trust, Identity) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let folder = tempfile::tempdir().unwrap();
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::from_params(&params, &ca_key);
    let own = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let trust = Trust::file(&file("ca.pem", &ca.pem())).unwrap();
    let identity = Identity::read(&file("own.pem", &own.pem()), &file("own.key", &key.serialize_pem())).unwrap();
    (trust, identity)
}

/// An SRT publisher that is driven by hand.
fn srt_publisher(ports: &TestPorts, channel: &str) -> Publish {
    let url = SrtUrl::parse(&format!("srt://{}?streamid={}", ports.srt, place(channel))).unwrap();
    Publish::connect(SystemClock::mono(), &url, url.resolve().unwrap()).unwrap()
}

/// Runs it until `what` finds what it looks for; media goes on meanwhile if `media`.
fn drive<T>(publish: &mut Publish, media: bool, mut what: impl FnMut(Option<PublishEvent>) -> Option<T>) -> T {
    let limit = SystemClock::mono() + LIMIT;
    let mut n = 0;
    loop {
        let now = SystemClock::mono();
        assert!(now < limit, "within {LIMIT:?}");
        publish.run(now);
        if let Some(found) = what(publish.poll()) {
            return found;
        }
        if media && publish.is_connected() {
            publish.send(now, &numbered(n));
            n += 1;
        }
        pace(ms(5));
    }
}

#[test]
fn a_leg_has_one_publisher_whatever_it_speaks() {
    let ports = TestPorts::open();
    let (file, _) = stream(2_000_000, ms(20_000));
    let quic = |channel: &str| options(Source::File(file.path().into()), ports.url(&place(channel)));
    // SRT is on air: QUIC is told so, and takes over once SRT is silent.
    let mut srt = srt_publisher(&ports, "c1");
    drive(&mut srt, true, |event| matches!(event, Some(PublishEvent::Connected { .. })).then_some(()));
    let first = ports.wait("SRT on air", |seen| seen.on("c1").map(|c| c.publisher));
    drive(&mut srt, true, |_| ports.look(|seen| seen.tallies.contains_key(&first)).then_some(()));
    assert_eq!(Pushing::start(quic("c1")).end().end(), PublishEnd::Refused(1409));
    let silent = SystemClock::mono() + ms(2_100);
    drive(&mut srt, false, |_| (SystemClock::mono() > silent).then_some(()));
    let taking = Pushing::start(quic("c1"));
    let (second, replaced) = ports.wait("QUIC on air", |seen| {
        seen.on("c1").filter(|c| c.protocol == Protocol::Quic).map(|c| (c.publisher, c.replaced))
    });
    assert_eq!(replaced, Some(first), "whoever drives both closes it");
    // QUIC is on air: SRT is told so.
    ports.wait("media", |seen| seen.tallies.get(&second).map(|_| ()));
    let mut late = srt_publisher(&ports, "c1");
    let end = drive(&mut late, false, |event| match event {
        Some(PublishEvent::Closed(end)) => Some(end),
        _ => None,
    });
    assert_eq!(end, PublishEnd::Refused(1409));
    drop(taking);
    // Where the newest wins SRT takes it from QUIC, which hears why when it is closed.
    let going = Pushing::start(quic("c9"));
    let first = ports.wait("QUIC on air", |seen| seen.on("c9").map(|c| c.publisher));
    let mut newest = srt_publisher(&ports, "c9");
    drive(&mut newest, true, |_| ports.look(|seen| seen.on("c9").unwrap().replaced == Some(first)).then_some(()));
    ports.order(Order::Close(first, Closing::Replaced));
    assert_eq!(going.end().end(), PublishEnd::Refused(1409));
    ports.wait("its end", |seen| {
        seen.closed.iter().find(|(id, why, _)| (*id, *why) == (first, Closing::Replaced)).map(|_| ())
    });
}

#[test]
fn the_newest_of_two_takes_over_and_both_protocols_share_one_limit() {
    let ports = TestPorts::with(Opening { publishers_max: 2, ..Opening::default() });
    let (file, _) = stream(2_000_000, ms(20_000));
    let quic = |channel: &str| options(Source::File(file.path().into()), ports.url(&place(channel)));
    let old = Pushing::start(quic("c9"));
    let first = ports.wait("the old one", |seen| seen.on("c9").map(|c| c.publisher));
    let new = Pushing::start(quic("c9"));
    ports.wait("the new one", |seen| seen.on("c9").filter(|c| c.replaced == Some(first)).map(|_| ()));
    ports.look(|seen| {
        let (closed, connected) = (seen.log.find("Closed").unwrap(), seen.log.rfind("Connected").unwrap());
        assert!(closed < connected, "the old one's end comes first: {}", seen.log);
    });
    assert_eq!(old.end().end(), PublishEnd::Refused(1409));
    let mut srt = srt_publisher(&ports, "c1");
    drive(&mut srt, true, |event| matches!(event, Some(PublishEvent::Connected { .. })).then_some(()));
    assert_eq!(Pushing::start(quic("c2")).end().end(), PublishEnd::Refused(1503));
    new.stop().result.unwrap();
    srt.finish(SystemClock::mono());
    ports.wait("room again", |seen| (seen.closed.len() == 3).then_some(()));
    let third = Pushing::start(quic("c2"));
    ports.wait("the third", |seen| seen.on("c2").map(|_| ()));
    third.stop().result.unwrap();
}

#[test]
fn another_address_in_the_middle_costs_nothing() {
    let ports = TestPorts::open();
    let relay = Relay::start(ports.quic, Link { delay: ms(10), ..Link::default() });
    let (file, packets) = stream(4_000_000, ms(4_000));
    let url = ports.url_at(relay.address, &format!("{}?latency=200", place("c1")));
    let pushing = Pushing::start(options(Source::File(file.path().into()), url));
    ports.wait("a second of it", |seen| seen.tally("c1").filter(|t| t.next > packets / 4).map(|_| ()));
    relay.rebind();
    ports.wait("another second", |seen| seen.tally("c1").filter(|t| t.next > packets / 2).map(|_| ()));
    relay.rebind();
    pushing.end().result.unwrap();
    ports.wait("its end", |seen| seen.end("c1").map(|_| ()));
    ports.look(|seen| {
        let tally = seen.tally("c1").unwrap();
        assert_eq!((tally.next, tally.missing, tally.corrupt, seen.connected.len()), (packets, 0, 0, 1));
    });
}

#[test]
fn lost_datagrams_are_repaired_within_the_latency() {
    let ports = TestPorts::open();
    let relay = Relay::start(ports.quic, Link { delay: ms(25), loss: 0.02, seed: 7, ..Link::default() });
    let (file, packets) = stream(4_000_000, ms(5_000));
    let url = ports.url_at(relay.address, &format!("{}?latency=400", place("c1")));
    let done = Pushing::start(options(Source::File(file.path().into()), url)).end().result.unwrap();
    ports.wait("its end", |seen| seen.end("c1").map(|_| ()));
    let (passed, lost) = relay.counts();
    assert!(lost * 100 > passed, "the link lost {lost} of {passed}");
    ports.look(|seen| {
        let (tally, stats) = (seen.tally("c1").unwrap(), seen.end("c1").unwrap().1);
        assert_eq!((tally.next, tally.missing, tally.corrupt), (packets, 0, 0), "{stats:?}");
        assert!(stats.lost >= 1 && stats.dropped == 0, "some segments were complete only behind the next: {stats:?}");
        let rtt = stats.rtt.unwrap();
        assert!(rtt >= ms(45) && rtt < ms(150), "{rtt:?}");
    });
    assert!(done[0].publish.retransmitted > 10, "{:?}", done[0].publish);
}

#[test]
fn what_comes_too_late_is_left_out_and_the_rest_flows_on() {
    let ports = TestPorts::open();
    let relay = Relay::start(ports.quic, Link { delay: ms(10), ..Link::default() });
    let (file, packets) = stream(4_000_000, ms(6_000));
    let url = ports.url_at(relay.address, &format!("{}?latency=150", place("c1")));
    let pushing = Pushing::start(options(Source::File(file.path().into()), url));
    ports.wait("a second of it", |seen| seen.tally("c1").filter(|t| t.next > packets / 6).map(|_| ()));
    relay.set_dark(true);
    pace(ms(700));
    relay.set_dark(false);
    let done = pushing.end().result.unwrap();
    ports.wait("its end", |seen| seen.end("c1").map(|_| ()));
    ports.look(|seen| {
        let (tally, stats) = (seen.tally("c1").unwrap(), seen.end("c1").unwrap().1);
        assert_eq!((tally.next, tally.corrupt), (packets, 0), "to its end: {stats:?}");
        let missing = tally.missing as f64 / packets as f64;
        // As long again until the publisher's next try gets through.
        assert!((0.05..0.3).contains(&missing), "about the time it was dark: {missing} {stats:?}");
        // Dropped: every segment that nobody has whole.
        assert!(stats.dropped >= 3 && stats.lost >= stats.dropped, "{stats:?}");
        assert!(tally.holes <= stats.dropped, "a hole a segment at most: {} {stats:?}", tally.holes);
    });
    assert!(done[0].publish.late >= 3, "{:?}", done[0].publish);
}

#[test]
fn a_link_that_is_too_slow_gets_what_it_carries_and_the_operator_is_told() {
    let ports = TestPorts::open();
    let slow = Link { delay: ms(25), rate: Some((5_000_000, ms(300))), ..Link::default() };
    let relay = Relay::start(ports.quic, slow);
    let (file, packets) = stream(6_000_000, ms(8_000));
    let url = ports.url_at(relay.address, &format!("{}?latency=200&max_bitrate=6M", place("c1")));
    let outcome = Pushing::start(options(Source::File(file.path().into()), url)).end();
    let done = outcome.result.unwrap();
    ports.wait("its end", |seen| seen.end("c1").map(|_| ()));
    ports.look(|seen| {
        let tally = seen.tally("c1").unwrap();
        let missing = (tally.missing + packets - tally.next) as f64 / packets as f64;
        assert!((0.1..0.35).contains(&missing), "a sixth has no room: {missing}");
        assert_eq!(tally.corrupt, 0);
    });
    assert!(outcome.shortened >= 1 && done[0].publish.late >= 8, "{} {:?}", outcome.shortened, done[0].publish);
}

#[test]
fn a_publisher_comes_back_when_the_port_does() {
    let mut ports = TestPorts::open();
    let address = ports.quic;
    let folder = tempfile::tempdir().unwrap();
    let (file, packets) = stream(2_000_000, ms(5_000));
    let identity = || Some(Identity::own(folder.path()).unwrap());
    ports.stop();
    let opening = || Opening { address, identity: identity(), ..Opening::default() };
    let mut ports = TestPorts::with(opening());
    let options = PushOptions { reconnect: true, ..options(Source::File(file.path().into()), ports.url(&place("c1"))) };
    let pushing = Pushing::start(options);
    ports.wait("a second of it", |seen| seen.tally("c1").filter(|t| t.next > packets / 5).map(|_| ()));
    ports.stop();
    ports.look(|seen| assert_eq!(seen.end("c1").unwrap().0, Closing::Shutdown));
    let again = TestPorts::with(opening());
    let outcome = pushing.end();
    let done = outcome.result.unwrap();
    assert!(done[0].tries >= 2 && done[0].end == Some(PublishEnd::Finished), "{done:?}");
    again.wait("its end", |seen| seen.end("c1").map(|_| ()));
    again.look(|seen| {
        let tally = seen.tally("c1").unwrap();
        assert_eq!((tally.next, tally.holes, tally.corrupt), (packets, 1, 0), "what came meanwhile is lost");
    });
}

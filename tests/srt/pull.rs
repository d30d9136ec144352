//! Sources that are called: `srt-live-transmit` and ffmpeg listen, a port receives from them.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rung::ingest::{Closing, PublishEnd, PullState};

use super::short;
use crate::harness::*;
use crate::ports::pace;

/// A place of its own for a source, among all tests of all processes: an address of the loopback network.
fn place() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let ip = Ipv4Addr::new(127, 64 + (process % 128) as u8, (process / 128) as u8, number);
    UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// A source: `srt-live-transmit` that listens, with numbered payloads for whoever calls.
fn source(place: SocketAddr, options: &str) -> Transmit {
    Transmit::start(place, &format!("mode=listener{options}"), 400)
}

fn address(place: SocketAddr, options: &str) -> String {
    format!("srt://{place}?{options}")
}

#[test]
fn a_source_is_received_from_in_clear_and_with_every_key_length_whoever_renews_the_keys() {
    let port = TestPort::open(None);
    let keyed = |length: u16| format!("passphrase={PASS}&pbkeylen={length}");
    let ways = [("c1", String::new(), 0), ("c2", keyed(16), 128), ("c3", keyed(24), 192), ("c4", keyed(32), 256)];
    let sources: Vec<(&str, u16, Transmit)> = ways
        .into_iter()
        .map(|(channel, secret, bits)| {
            let here = place();
            let listens = if bits == 0 {
                String::new()
            } else {
                format!("&passphrase={PASS}&kmrefreshrate=200&kmpreannounce=50")
            };
            let source = source(here, &format!("{listens}&latency=150"));
            port.pull(channel, &address(here, &format!("{secret}&latency=100")));
            (channel, bits, source)
        })
        .collect();
    for (channel, bits, mut source) in sources {
        port.wait("1,100 payloads", |seen| seen.tally(channel).filter(|t| t.next > 1_100).map(|_| ()));
        let publisher = port.look(|seen| seen.on(channel).unwrap().publisher);
        port.command(Order::Stats(publisher));
        let stats = port.wait("statistics", |seen| seen.stats.get(&publisher).cloned());
        source.finish();
        port.look(|seen| {
            let (connected, tally) = (seen.on(channel).unwrap(), seen.tally(channel).unwrap());
            assert_eq!((tally.gaps, tally.corrupt), (0, 0), "{channel}");
            assert_eq!((connected.key_bits, connected.peer_version.as_deref()), (bits, Some("1.5.1")), "{channel}");
            assert_eq!(connected.latency, Duration::from_millis(150), "the larger of both sides' wishes");
            assert!(stats.dropped == 0 && stats.undecryptable == 0 && stats.rtt.is_some(), "{stats:?}");
            assert_eq!(seen.counters.stray + seen.counters.bad_cookie + seen.counters.malformed, 0);
            assert!(!seen.log.contains(PASS) && !seen.log.contains("127."), "no secret, no address: {}", seen.log);
        });
    }
}

#[test]
fn a_source_may_send_a_packet_filter_whichever_side_asks_for_it() {
    let port = TestPort::open(None);
    let fec = "&packetfilter=fec,cols:10,rows:5";
    let ways = [("c1", fec, ""), ("c2", "", fec), ("c3", fec, fec)].map(|(channel, theirs, ours)| {
        let here = place();
        let source = source(here, theirs);
        port.pull(channel, &address(here, &format!("latency=200{ours}")));
        (channel, source)
    });
    for (channel, _source) in ways {
        port.wait("300 payloads", |seen| seen.tally(channel).filter(|t| t.next > 300).map(|_| ()));
        let publisher = port.look(|seen| seen.on(channel).unwrap().publisher);
        port.command(Order::Stats(publisher));
        let stats = port.wait("statistics", |seen| seen.stats.get(&publisher).cloned());
        assert!(stats.filter_extra > 50 && stats.dropped == 0, "{channel}: {stats:?}");
        port.look(|seen| assert_eq!((seen.tally(channel).unwrap().gaps, seen.tally(channel).unwrap().corrupt), (0, 0)));
    }
}

#[test]
fn a_source_may_be_ffmpeg_and_may_come_long_after_it_was_called() {
    let port = TestPort::open(None);
    let here = place();
    port.pull("c1", &address(here, "streamid=camera one"));
    assert_eq!(port.wait_pull_error("c1"), "nobody answers at the address");
    let called = port.look(|seen| seen.pulls.len());
    // It has no stream ids, and does not mind one.
    let mut listens = source(here, "");
    port.wait("media", |seen| seen.tally("c1").filter(|t| t.next > 100 && t.gaps == 0).map(|_| ()));
    port.look(|seen| assert_eq!(seen.pull("c1"), Some((PullState::OnAir, String::new()))));
    assert!(called >= 2);
    // It ends, and another one is there when it is called again.
    listens.peer.kill();
    let _other = ffmpeg(here, "mode=listener");
    port.wait("media of ffmpeg", |seen| {
        (seen.connected.len() == 2).then(|| seen.tally("c1").filter(|t| t.bytes > 60_000).map(|_| ())).flatten()
    });
    port.look(|seen| {
        assert_eq!(continuity_errors(&seen.tally("c1").unwrap().head), 0);
        assert_eq!(seen.closed[0].1, Closing::Silent);
    });
}

#[test]
fn why_there_is_no_connection_is_a_sentence_that_is_told_once() {
    let port = TestPort::open(None);
    let (keyed, open) = (place(), place());
    let _keyed = source(keyed, &format!("&passphrase={PASS}"));
    let _open = source(open, "");
    for (channel, url, want) in [
        ("c1", address(keyed, "passphrase=another passphrase"), "the source has another passphrase"),
        ("c2", address(keyed, ""), "the source wants a passphrase"),
        ("c3", address(open, &format!("passphrase={PASS}")), "the source has no passphrase, the address has one"),
        ("c4", "srt://no-such-host.invalid:9000".to_owned(), "the host of the address cannot be found"),
        ("c5", "srt://[::1]:9000".to_owned(), "it has no address of IPv4"),
        ("c8", address(open, ""), "the channel is stopped"),
    ] {
        port.pull(channel, &url);
        let error = port.wait_pull_error(channel);
        assert!(error.contains(want), "{channel}: {error}");
    }
    // Tried again and again, and said once.
    port.wait("three calls", |seen| {
        let of = |news: &&rung::ingest::PullNews| news.channel.as_str() == "c1" && news.outcome == Some("passphrase");
        (seen.pulls.iter().filter(of).count() >= 3).then_some(())
    });
    port.look(|seen| {
        let said = seen.pulls.iter().filter(|news| news.channel.as_str() == "c1" && news.changed).count();
        assert_eq!(said, 2, "that it is called, and what came of it: {:?}", seen.pulls);
        assert!(seen.connected.is_empty());
    });
}

#[test]
fn a_source_without_media_makes_no_publisher_and_holds_no_leg() {
    let port = TestPort::open(None);
    let here = place();
    let mut command = Command::new("srt-live-transmit");
    command.args(["-chunk:1316", "-quiet", "-a:no", "file://con", &address(here, "mode=listener")]);
    let mut silent = Peer::spawn(command.stdin(Stdio::piped()).stdout(Stdio::null()));
    let mut pipe = silent.stdin();
    port.pull("c1", &address(here, ""));
    port.wait_pull("c1", PullState::Connected);
    // Longer than a peer may be silent.
    pace(Duration::from_secs(6));
    port.look(|seen| {
        assert_eq!(seen.pull("c1"), Some((PullState::Connected, String::new())));
        assert!(seen.connected.is_empty() && seen.pulls.len() == 2, "{:?}", seen.pulls);
    });
    // Somebody publishes: whose media come first has the leg.
    let caller = OwnCaller::start(port.url(&short("c1")), 200);
    port.wait("media", |seen| seen.tally("c1").map(|_| ()));
    // Ten payloads and more, as it throws the first ones away.
    for number in 0..60 {
        // It ends when it is told goodbye.
        if pipe.write_all(&numbered(number)).is_err() {
            break;
        }
        pace(Duration::from_millis(5));
    }
    port.wait_pull("c1", PullState::Standby);
    assert_eq!(port.look(|seen| (seen.connected.len(), seen.closed.len())), (1, 0));
    caller.finish();
}

#[test]
fn a_source_waits_for_the_end_of_whoever_publishes_and_comes_back_after_a_takeover() {
    let port = TestPort::open(None);
    let (first, second) = (place(), place());
    let (_first, mut replaced) = (source(first, ""), source(second, ""));
    let caller = OwnCaller::start(port.url(&short("c1")), 200);
    port.wait("media", |seen| seen.tally("c1").map(|_| ()));
    port.pull("c1", &address(first, ""));
    assert_eq!(port.wait_pull("c1", PullState::Standby), "another publisher is on air on this leg");
    caller.finish();
    port.wait_pull("c1", PullState::OnAir);
    assert_eq!(OwnCaller::start(port.url(&short("c1")), 50).end().end, PublishEnd::Refused(1409));
    // The newest wins on this one; then the source waits, and takes nothing back from a publisher that is heard.
    port.pull("c9", &address(second, ""));
    port.wait("media", |seen| seen.tally("c9").filter(|t| t.next > 50).map(|_| ()));
    let newest = OwnCaller::start(port.url(&short("c9")), 200);
    port.wait_pull("c9", PullState::Standby);
    port.look(|seen| assert_eq!(seen.closed.last().unwrap().1, Closing::Replaced));
    // It is told goodbye; when it is there again, it is not called.
    assert!(replaced.peer.has_ended());
    let _again = source(second, "");
    port.wait("media of the caller", |seen| seen.tally("c9").filter(|t| t.next > 500).map(|_| ()));
    let outcome = newest.finish();
    assert_eq!(outcome.end, PublishEnd::Finished, "nobody took its place");
}

#[test]
fn a_source_that_is_taken_away_or_moved_is_told_goodbye() {
    let port = TestPort::open(None);
    let (here, there) = (place(), place());
    let (mut first, mut second) = (source(here, ""), source(there, ""));
    port.pull("c1", &address(here, ""));
    port.wait("media", |seen| seen.tally("c1").map(|_| ()));
    port.pull("c1", &address(here, ""));
    port.wait("more of it", |seen| seen.tally("c1").filter(|t| t.next > 300).map(|_| ()));
    port.pull("c1", &address(there, "latency=300"));
    port.wait("media from there", |seen| {
        seen.on("c1").filter(|c| c.latency == Duration::from_millis(300)).and_then(|_| seen.tally("c1")).map(|_| ())
    });
    assert!(first.peer.has_ended(), "it was told, and ends");
    port.pull_no_more("c1");
    port.wait("its end", |seen| (seen.closed.len() == 2).then_some(()));
    port.look(|seen| {
        assert!(seen.closed.iter().all(|(_, why, _)| *why == Closing::Stopped), "{:?}", seen.closed);
        assert_eq!(seen.connected.len(), 2, "the same address again changed nothing");
    });
    assert!(second.peer.has_ended());
    second.finish();
}

/// A source of a meeting: `srt-live-transmit` at the other loopback address, on the port that it calls, as it wants it.
fn meets(port: &TestPort, options: &str) -> Transmit {
    Transmit::start(port.address, &format!("mode=rendezvous&adapter=127.0.0.2{options}"), 400)
}

#[test]
fn a_source_may_meet_the_port_whoever_waves_first_in_clear_and_with_keys() {
    // The cookies decide who asks: eight meetings are decided both ways, as good as always.
    for meeting in 0..8 {
        let port = TestPort::open(None);
        let keyed = meeting % 2 == 1;
        let (secret, bits) =
            if keyed { (format!("&passphrase={PASS}&pbkeylen=24"), Some([128, 192])) } else { (String::new(), None) };
        // The filter is wished for by us alone.
        let filtered = meeting >= 4;
        let filter = if filtered { "&packetfilter=fec,cols:10,rows:5" } else { "" };
        let url = format!("srt://127.0.0.2:{}?mode=rendezvous&latency=200{secret}{filter}", port.address.port());
        let early = (meeting % 4 < 2).then(|| meets(&port, &secret));
        port.pull("c1", &url);
        let mut source = early.unwrap_or_else(|| meets(&port, &secret));
        port.wait("media", |seen| seen.tally("c1").filter(|t| t.next > 100).map(|_| ()));
        port.look(|seen| {
            let (connected, tally) = (seen.on("c1").unwrap(), seen.tally("c1").unwrap());
            assert_eq!((tally.gaps, tally.corrupt), (0, 0), "meeting {meeting}");
            assert!(bits.map_or(connected.key_bits == 0, |bits| bits.contains(&connected.key_bits)), "{connected:?}");
            assert_eq!(connected.latency, Duration::from_millis(200));
        });
        let publisher = port.look(|seen| seen.on("c1").unwrap().publisher);
        port.command(Order::Stats(publisher));
        let stats = port.wait("statistics", |seen| seen.stats.get(&publisher).cloned());
        assert_eq!(stats.filter_extra > 10, filtered, "meeting {meeting}: {stats:?}");
        port.pull_no_more("c1");
        assert!(source.peer.has_ended(), "it was told goodbye");
    }
}

#[test]
fn a_meeting_with_another_passphrase_fails_with_a_reason_on_either_side_of_the_contest() {
    for _ in 0..4 {
        let port = TestPort::open(None);
        let _source = meets(&port, &format!("&passphrase={PASS}"));
        let number = port.address.port();
        port.pull("c1", &format!("srt://127.0.0.2:{number}?mode=rendezvous&passphrase=another passphrase"));
        let error = port.wait_pull_error("c1");
        assert!(error.contains("passphrase"), "{error}");
        assert!(port.look(|seen| seen.connected.is_empty()));
    }
}

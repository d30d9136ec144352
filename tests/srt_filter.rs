//! The packet filter (FEC) over real sockets and a link that loses packets: libsrt's `srt-live-transmit` as sender and
//! as receiver, and our own ends.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "srt/harness.rs"]
#[expect(dead_code, reason = "shared with srt.rs")]
mod harness;
#[path = "support/ports.rs"]
#[expect(dead_code, reason = "shared with srt.rs")]
mod ports;
#[path = "support/random.rs"]
#[expect(dead_code, reason = "shared with others")]
mod random;
#[path = "support/relay.rs"]
#[expect(dead_code, reason = "shared with others")]
mod relay;

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use harness::*;
use ports::KEY;
use relay::{Link, Relay};
use rung::ingest::srt::SrtUrl;
use rung::ingest::{PAYLOAD, PublishEnd, PublisherStats};

/// A link of 20 ms there and back.
fn link(loss: f64, seed: u64) -> Link {
    Link { delay: Duration::from_millis(10), loss, seed, ..Link::default() }
}

/// Latency for a matrix of 50 packets at 500 a second, and for a question after that.
fn options(filter: &str) -> String {
    format!("streamid=c1/{KEY}&latency=600&packetfilter={filter}")
}

/// What became of `payloads` numbered payloads.
#[derive(Debug)]
struct Outcome {
    gaps: u64,
    stats: PublisherStats,
}

/// Until `payloads` were delivered or given up: everything delivered is what was sent, whole and in order.
fn outcome(port: &TestPort, what: &str, payloads: u64) -> Outcome {
    let publisher = port.wait("its media", |seen| {
        seen.tally("c1").filter(|tally| tally.next >= payloads).and(seen.on("c1")).map(|on| on.publisher)
    });
    port.command(Order::Stats(publisher));
    let stats = port.wait("statistics", |seen| seen.stats.get(&publisher).cloned());
    port.look(|seen| {
        let tally = &seen.tallies[&publisher];
        let delivered = tally.next - tally.first.unwrap() - tally.gaps;
        assert_eq!((tally.corrupt, tally.payloads), (0, delivered), "{what}: only what was sent");
        Outcome { gaps: tally.gaps, stats }
    })
}

#[test]
fn what_libsrt_protects_comes_back_without_a_question_in_clear_and_under_every_key_length() {
    // The filter, and the share of what was lost that must come back; 3 % of all packets are lost.
    let cases = [
        ("fec,cols:10,rows:5,arq:never", String::new(), 0.9),
        ("fec,cols:10,rows:5,layout:even,arq:never", format!("&passphrase={PASS}&pbkeylen=32"), 0.9),
        ("fec,cols:8,arq:never", format!("&passphrase={PASS}&pbkeylen=16&kmrefreshrate=300&kmpreannounce=50"), 0.5),
        ("fec,cols:5,rows:-6,arq:never", format!("&passphrase={PASS}&pbkeylen=24"), 0.5),
    ];
    std::thread::scope(|scope| {
        for (seed, (filter, secret, share)) in (1..).zip(&cases) {
            scope.spawn(move || {
                let port = TestPort::open((!secret.is_empty()).then_some(PASS));
                let relay = Relay::start(port.address, link(0.03, seed));
                let mut caller = Transmit::start(relay.address, &format!("{}{secret}", options(filter)), 500);
                let Outcome { gaps, stats } = outcome(&port, filter, 2_000);
                caller.finish();
                assert!(stats.lost >= 25 && stats.filter_extra > 100, "{filter}: {stats:?}");
                assert_eq!((stats.naks, stats.retransmitted, stats.undecryptable), (0, 0, 0), "{filter}: {stats:?}");
                assert!((gaps as f64) <= stats.lost as f64 * (1.0 - share), "{filter}: {gaps} gaps, {stats:?}");
                // The last ones may still wait for their time.
                assert!(stats.filter_supplied + gaps + 30 >= stats.lost, "{filter}: {gaps} gaps, {stats:?}");
            });
        }
    });
}

/// Numbers of media that the sender sent again, each once however often that was: what it was asked for.
static AGAIN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn sent_again(datagram: &[u8]) -> Option<usize> {
    let word = |at: usize| u32::from_be_bytes(datagram[at..at + 4].try_into().unwrap());
    let (number, flags) = (word(0), word(4));
    // Data, not the filter's, with the sign of a copy [SRT 3.1].
    if number >> 31 == 0 && flags & 0x03ff_ffff != 0 && flags >> 26 & 1 == 1 {
        AGAIN.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }
    None
}

#[test]
fn only_what_the_filter_cannot_bring_back_is_asked_for_unless_the_sender_wants_all_of_it() {
    // Bursts are beyond rows. How many there are of each kind is chance, control packets being lost in between: over 8 s
    // there are enough of both.
    let bursts = |seed| Link { burst: 2.0, kind: if seed == 7 { sent_again } else { |_| None }, ..link(0.04, seed) };
    let run = |filter: &str, seed| {
        let port = TestPort::open(Some(PASS));
        let relay = Relay::start(port.address, bursts(seed));
        let secret = format!("&passphrase={PASS}");
        let mut caller = Transmit::start(relay.address, &format!("{}{secret}", options(filter)), 500);
        let outcome = outcome(&port, filter, 4_000);
        caller.finish();
        outcome
    };
    let (hopeless, always) = std::thread::scope(|scope| {
        let hopeless = scope.spawn(|| run("fec,cols:6,arq:onreq", 7));
        let always = scope.spawn(|| run("fec,cols:6,arq:always", 8));
        (hopeless.join().unwrap(), always.join().unwrap())
    });
    assert_eq!((hopeless.gaps, always.gaps), (0, 0), "{hopeless:?} {always:?}");
    let Outcome { stats, .. } = hopeless;
    assert!(stats.filter_supplied > 20 && stats.filter_lost > 10 && stats.naks > 0, "{stats:?}");
    // The last ones are on their way.
    let again = AGAIN.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
    assert!(again + 20 >= stats.filter_lost && again <= stats.filter_lost + 10, "{again} sent again: {stats:?}");
    let Outcome { stats, .. } = always;
    // Asked for and brought back as well: it came twice. How often depends on which of them was quicker.
    assert!(stats.duplicates >= 3 && stats.filter_supplied > 10, "{stats:?}");
}

#[test]
fn our_sender_protects_as_libsrts_and_both_sides_agree_on_how() {
    let number = free_port();
    // The listener knows nothing of the filter, as ours.
    let listen = format!("srt://127.0.0.1:{number}?mode=listener&latency=600&passphrase={PASS}");
    let mut command = Command::new("srt-live-transmit");
    command.args(["-chunk:1316", "-quiet", &listen, "file://con"]);
    let mut peer = Peer::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let relay = Relay::start(([127, 0, 0, 1], number).into(), link(0.03, 11));
    let options = format!("{}&passphrase={PASS}&pbkeylen=32", options("fec,cols:10,rows:5,arq:never"));
    let caller = OwnCaller::start(SrtUrl::parse(&format!("srt://{}?{options}", relay.address)).unwrap(), 500);
    let (mut out, mut next, mut missing) = (peer.stdout(), 0, 0);
    while next < 2_000 {
        let mut payload = vec![0; PAYLOAD];
        out.read_exact(&mut payload).unwrap();
        let number = u64::from_be_bytes(payload[4..12].try_into().unwrap());
        assert!(payload == numbered(number) && number >= next, "{number} after {next}");
        (missing, next) = (missing + number - next, number + 1);
    }
    let (_, lost) = relay.counts();
    drop(caller);
    peer.kill();
    assert!(lost > 60 && missing <= 6, "{missing} of 2000 missing; {lost} datagrams lost both ways");
    // The same into a port of ours, which hears of another filter from nobody.
    let port = TestPort::open(Some(PASS));
    let relay = Relay::start(port.address, link(0.03, 12));
    let caller = OwnCaller::start(SrtUrl::parse(&format!("srt://{}?{options}", relay.address)).unwrap(), 500);
    let Outcome { gaps, stats } = outcome(&port, "our own", 2_000);
    drop(caller);
    assert!(stats.lost >= 25 && gaps * 10 <= stats.lost && stats.naks == 0, "{gaps} gaps, {stats:?}");
}

#[test]
fn a_filter_that_we_do_not_have_is_refused_by_name() {
    let port = TestPort::open(None);
    for filter in ["fec,cols:10,rows:1000", "fec,cols:300,rows:2"] {
        let before = port.look(|seen| seen.refused.len());
        let mut caller = Transmit::start(port.address, &options(filter), 50);
        let (code, why) =
            port.wait("a refusal", |seen| seen.refused.get(before).map(|(_, code, why)| (*code, why.clone())));
        caller.finish();
        assert!(code == 14 && why.contains("1024 packets in all"), "{filter}: {code} {why}");
    }
    let wrong = SrtUrl::parse("srt://127.0.0.1:9?packetfilter=fec,rows:4").unwrap_err();
    assert!(wrong.contains("packetfilter") && wrong.contains("cols"), "{wrong}");
    // `fec` alone leaves it to the listener, and ours leaves it to the caller.
    let end = OwnCaller::start(port.url(&options("fec")), 50).end().end;
    assert_eq!(end, PublishEnd::Refused(14));
}

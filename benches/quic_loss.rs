//! QUIC beside SRT over links that delay, lose, move and are too narrow: how much media comes too late or never. Prints
//! Markdown tables.
//!
//! Method: `rung push` publishes a numbered transport stream of 6 Mb/s through a relay that delays and loses datagrams (both
//! ways, seeded) into a port; both protocols at once, each through a relay of its own, with the same latency. A packet is
//! late if it came out more than the budget behind the fastest of its run; SRT holds everything for that long.
//! `RUNG_SHORT=1` takes five seconds and one seed a row instead of fifteen and two.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench may stop anywhere")]

#[path = "../tests/quic/harness.rs"]
#[expect(dead_code, reason = "shared with tests")]
mod harness;
#[path = "../tests/support/ports.rs"]
#[expect(dead_code, reason = "shared with tests")]
mod ports;
#[path = "../tests/support/random.rs"]
#[expect(dead_code, reason = "shared with tests")]
mod random;
#[path = "../tests/support/relay.rs"]
#[expect(dead_code, reason = "shared with tests")]
mod relay;

use std::ops::ControlFlow;
use std::thread::JoinHandle;
use std::time::Duration;

use harness::{Opening, Pushing, TestPorts, options, stream};
use ports::{KEY, ms, pace};
use relay::{Link, Relay};
use rung::ingest::quic::Source;
use rung::ingest::srt::{self, SrtUrl};
use rung::ingest::{Knobs, Protocol};
use rung::time::Mono;

const BITS_PER_SECOND: u64 = 6_000_000;

/// What came of one run.
#[derive(Clone, Copy)]
struct Came {
    /// Percent of the packets that went in.
    late_or_lost: f64,
    lost: f64,
    p50: Duration,
    p99: Duration,
}

/// What is done to the link in mid-stream.
#[derive(Clone, Copy, PartialEq)]
enum Event {
    None,
    Rebind,
}

fn main() {
    // `cargo test --benches` builds and starts this too: then it only shows that it runs.
    let quick = std::env::args().any(|arg| arg == "--test");
    let short = quick || std::env::var_os("RUNG_SHORT").is_some();
    let (span, seeds): (Duration, &[u64]) = match (quick, short) {
        (true, _) => (ms(1_500), &[1]),
        (_, true) => (ms(5_000), &[1]),
        _ => (ms(15_000), &[1, 2]),
    };
    println!("## QUIC beside SRT, 6 Mb/s\n");
    println!(
        "Percent of packets late or lost at one-way delay + budget; p50 / p99: arrival behind the sender, milliseconds.\n"
    );
    println!("| loss each way / RTT / budget | QUIC | QUIC p50 / p99 | SRT | SRT p50 / p99 |\n|---|---|---|---|---|");
    for rtt in [50, 100] {
        for loss in [0.0, 0.01, 0.02, 0.05] {
            for budget in [ms(120), ms(200), ms(400)] {
                if quick && (rtt, budget) != (50, ms(200)) {
                    continue;
                }
                let link = Link { delay: ms(rtt / 2), loss, ..Link::default() };
                let name = format!("{} % / {rtt} / {}", loss * 100.0, budget.as_millis());
                row(&name, link, budget, span, seeds, Event::None);
            }
        }
    }
    println!("\n| in mid-stream, RTT 50, budget 200 | QUIC | p50 / p99 | SRT | p50 / p99 |\n|---|---|---|---|---|");
    let link = Link { delay: ms(25), ..Link::default() };
    row("another address (NAT rebind)", link, ms(200), span, seeds, Event::Rebind);
    let narrow = Link { rate: Some((5_000_000, ms(1_000))), ..link };
    row("6 Mb/s into 5 Mb/s (least possible 17)", narrow, ms(200), span, seeds, Event::None);
}

fn row(name: &str, link: Link, budget: Duration, span: Duration, seeds: &[u64], event: Event) {
    let runs: Vec<(JoinHandle<Came>, JoinHandle<Came>)> = seeds
        .iter()
        .map(|seed| {
            let link = Link { seed: *seed, ..link };
            let start = |protocol| std::thread::spawn(move || run(protocol, link, budget, span, event));
            (start(Protocol::Quic), start(Protocol::Srt))
        })
        .collect();
    let (mut quic, mut srt) = (Vec::new(), Vec::new());
    for (one, other) in runs {
        quic.push(one.join().unwrap());
        srt.push(other.join().unwrap());
    }
    let shares = |all: &[Came]| {
        let one = |came: &Came| format!("{:.2} ({:.2} lost)", came.late_or_lost, came.lost);
        all.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let times = |all: &[Came]| {
        let one = |came: &Came| format!("{} / {}", came.p50.as_millis(), came.p99.as_millis());
        all.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    println!("| {name} | {} | {} | {} | {} |", shares(&quic), times(&quic), shares(&srt), times(&srt));
}

fn run(protocol: Protocol, link: Link, budget: Duration, span: Duration, event: Event) -> Came {
    // Each asks for the budget; the ports want less.
    let ports = TestPorts::with(Opening { arrivals: true, latency: ms(20), ..Opening::default() });
    let (file, packets) = stream(BITS_PER_SECOND, span);
    let relay = Relay::start(if protocol == Protocol::Quic { ports.quic } else { ports.srt }, link);
    let latency = budget.as_millis();
    let pushing: Box<dyn FnOnce() -> bool> = if protocol == Protocol::Quic {
        let url = ports.url_at(relay.address, &format!("c1/{KEY}?latency={latency}&max_bitrate=6M"));
        let pushing = Pushing::start(options(Source::File(file.path().into()), url));
        Box::new(move || pushing.end().result.is_ok())
    } else {
        let url = format!("srt://{}?streamid=c1/{KEY}&latency={latency}", relay.address);
        let options = srt::PushOptions {
            file: file.path().into(),
            url: SrtUrl::parse(&url).unwrap().into(),
            streams: 1,
            looping: false,
            reconnect: false,
            knobs: Knobs::default(),
            seed: 1,
        };
        let thread = std::thread::spawn(move || srt::push(&options, &mut |_| ControlFlow::Continue(())).is_ok());
        Box::new(move || thread.join().unwrap())
    };
    if event == Event::Rebind {
        pace(span / 2);
        relay.rebind();
    }
    // One that ended early has lost the rest.
    let _whole = pushing();
    ports.wait("its end", |seen| seen.end("c1").map(|_| ()));
    let arrivals = ports.look(|seen| seen.tally("c1").map(|tally| tally.arrivals.clone())).unwrap_or_default();
    judge(&arrivals, packets, span, link.delay, budget, protocol)
}

fn judge(
    arrivals: &[(u64, Mono)],
    packets: u64,
    span: Duration,
    delay: Duration,
    budget: Duration,
    protocol: Protocol,
) -> Came {
    // The packet's place in the stream is when it was sent; the least difference is the link's delay, and for SRT the
    // latency with it.
    let sent = |number: u64| span.as_nanos() as u64 / packets * number;
    let least = arrivals.iter().map(|(number, at)| at.0 as i128 - i128::from(sent(*number))).min().unwrap_or(0);
    let fixed = if protocol == Protocol::Srt { delay + budget } else { delay };
    let behind = |(number, at): &(u64, Mono)| {
        let nanos = at.0 as i128 - i128::from(sent(*number)) - least;
        fixed + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    };
    let mut all: Vec<Duration> = arrivals.iter().map(behind).collect();
    all.sort_unstable();
    // A turn of the two ends is no lateness. SRT holds everything for the budget: what its turns take comes on top.
    let turn = if protocol == Protocol::Srt { ms(50) } else { ms(10) };
    let in_time = all.iter().filter(|span| **span <= delay + budget + turn).count();
    let percent = |n: u64| n as f64 * 100.0 / packets as f64;
    let at = |share: f64| all.get((all.len() as f64 * share) as usize).copied().unwrap_or_default();
    Came {
        late_or_lost: percent(packets - in_time as u64),
        lost: percent(packets - arrivals.len() as u64),
        p50: at(0.5),
        p99: at(0.99),
    }
}

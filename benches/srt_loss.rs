//! What arrives over a lossy path: libsrt as the sender, and three receivers beside each other: Rung, the crate
//! `sapflow-srt`, and libsrt. Prints a Markdown table.
//!
//! Method: `srt-live-transmit` sends numbered payloads at 6 Mb/s for 15 s through a relay that delays, loses (both ways,
//! seeded) and reorders datagrams. Undelivered: numbers that never came out, of those that went in. Retransmitted: data
//! packets with the R flag, of all first copies, counted in the relay before it loses any. Each row runs all receivers with
//! the same losses at the same time, two runs at once.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench may stop anywhere")]

#[path = "../tests/support/ports.rs"]
#[expect(dead_code, reason = "shared with tests")]
mod ports;
#[path = "../tests/support/random.rs"]
#[expect(dead_code, reason = "shared with tests")]
mod random;
#[path = "../tests/support/relay.rs"]
#[expect(dead_code, reason = "shared with tests")]
mod relay;

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rung::ingest::srt::{Port, PortConfig};
use rung::ingest::{Event, PAYLOAD, Roster, RosterEntry};
use rung::media::channel::{ChannelName, Takeover};
use rung::media::key::KeyDigest;
use rung::time::SystemClock;

use ports::pace;
use relay::{Link, Relay};

const BITS_PER_SECOND: u64 = 6_000_000;
const SPAN: Duration = Duration::from_secs(15);
/// Runs of a path, two at a time, unless `RUNG_SEEDS` says otherwise: a row of one run is a matter of three packets.
/// `RUNG_PATH` takes only the paths whose names contain it.
const SEEDS: u64 = 8;

#[derive(Clone, Copy)]
struct Path {
    name: &'static str,
    /// Each way.
    loss: f64,
    /// Datagrams lost in a row, on average.
    burst: f64,
    reordered: f64,
    rtt_ms: u64,
    latency_ms: u64,
}

const fn path(name: &'static str, loss: f64, rtt_ms: u64, latency_ms: u64) -> Path {
    Path { name, loss, burst: 1.0, reordered: 0.0, rtt_ms, latency_ms }
}

impl Path {
    fn link(&self, seed: u64) -> Link {
        Link {
            delay: Duration::from_millis(self.rtt_ms / 2),
            loss: self.loss,
            burst: self.burst,
            reordered: self.reordered,
            seed,
            // Data packets: first copies and retransmissions [SRT 3.1].
            kind: |packet| (packet[0] & 0x80 == 0).then(|| usize::from(packet[4] & 4 != 0)),
            ..Link::default()
        }
    }
}

const PATHS: [Path; 9] = [
    path("1 % / 50 / 120", 0.01, 50, 120),
    path("2 % / 50 / 120", 0.02, 50, 120),
    path("5 % / 50 / 120", 0.05, 50, 120),
    path("2 % / 50 / 200", 0.02, 50, 200),
    path("5 % / 50 / 200", 0.05, 50, 200),
    path("2 % / 100 / 200", 0.02, 100, 200),
    path("5 % / 100 / 400", 0.05, 100, 400),
    Path { burst: 4.0, ..path("2 % bursts of 4 / 50 / 200", 0.02, 50, 200) },
    Path { reordered: 0.05, ..path("2 % + 5 % reordered / 50 / 200", 0.02, 50, 200) },
];

fn main() {
    // `cargo test --benches` builds and starts this too: then it only shows that it runs.
    let quick = std::env::args().any(|arg| arg == "--test");
    let asked = std::env::var("RUNG_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let only = std::env::var("RUNG_PATH").unwrap_or_default();
    let (paths, span, seeds) = match quick {
        true => (&PATHS[3..4], Duration::from_secs(2), 1),
        false => (&PATHS[..], SPAN, asked.unwrap_or(SEEDS)),
    };
    println!("Means of {seeds} runs of {} s, and the worst of them.\n", span.as_secs());
    println!(
        "| loss each way / RTT / latency | undelivered %: Rung | sapflow | libsrt | retransmitted %: Rung | sapflow | libsrt |"
    );
    println!("|---|---|---|---|---|---|---|");
    for path in paths.iter().filter(|path| path.name.contains(&only)) {
        // Undelivered and retransmitted of each side.
        let mut seen: [Vec<(f64, f64)>; 3] = Default::default();
        for first in (1..=seeds).step_by(2) {
            let both = first..=seeds.min(first + 1);
            let sides = [Who::Rung, Who::Crate, Who::Libsrt];
            let runs = sides.map(|who| both.clone().map(|seed| Run::start(*path, who, seed, span)).collect::<Vec<_>>());
            for (seen, runs) in seen.iter_mut().zip(runs) {
                seen.extend(runs.into_iter().map(Run::finish));
            }
        }
        let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
        let undelivered = seen.each_ref().map(|runs| {
            let all: Vec<f64> = runs.iter().map(|run| run.0).collect();
            format!("{:.3} ({:.3})", mean(&all), all.iter().fold(0.0f64, |a, b| a.max(*b)))
        });
        let retransmitted = seen.each_ref().map(|runs| {
            let all: Vec<f64> = runs.iter().map(|run| run.1).collect();
            format!("{:.1}", mean(&all))
        });
        println!("| {} | {} | {} |", path.name, undelivered.join(" | "), retransmitted.join(" | "));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Who {
    Rung,
    Crate,
    Libsrt,
}

struct Run {
    sender: Child,
    writer: JoinHandle<u64>,
    relay: Relay,
    receiver: JoinHandle<u64>,
    stop: Arc<AtomicBool>,
}

impl Run {
    fn start(path: Path, who: Who, seed: u64, span: Duration) -> Run {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, receiver) = match who {
            Who::Rung => rung(path, Arc::clone(&stop)),
            Who::Crate => foreign(path, Arc::clone(&stop)),
            Who::Libsrt => libsrt(path, Arc::clone(&stop)),
        };
        let relay = Relay::start(address, path.link(seed));
        let url = format!("srt://{}?streamid=c/key&latency={}", relay.address, path.latency_ms);
        let mut command = Command::new("srt-live-transmit");
        command.args(["-chunk:1316", "-quiet", "-a:no", "-buffering:1", "file://con", &url]);
        let mut sender = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut pipe = sender.stdin.take().unwrap();
        let writer = std::thread::spawn(move || {
            let (begin, mut sent) = (SystemClock::mono(), 0u64);
            let step = Duration::from_nanos(PAYLOAD as u64 * 8 * 1_000_000_000 / BITS_PER_SECOND);
            let mut payload = [0x47; PAYLOAD];
            while SystemClock::mono() - begin < span {
                payload[4..12].copy_from_slice(&sent.to_be_bytes());
                pipe.write_all(&payload).unwrap();
                sent += 1;
                let due = begin + step * u32::try_from(sent).unwrap();
                pace(due - SystemClock::mono());
            }
            // What is on its way arrives before the sender ends.
            pace(Duration::from_secs(3));
            sent
        });
        Run { sender, writer, relay, receiver, stop }
    }

    /// Undelivered and retransmitted, per cent.
    fn finish(mut self) -> (f64, f64) {
        let sent = self.writer.join().unwrap();
        self.stop.store(true, Ordering::Relaxed);
        self.sender.kill().unwrap();
        self.sender.wait().unwrap();
        let missing = self.receiver.join().unwrap();
        let [first, again] = self.relay.kinds();
        (missing as f64 * 100.0 / sent as f64, again as f64 * 100.0 / first as f64)
    }
}

/// Numbers that did not come between the first and the last.
#[derive(Default)]
struct Numbers {
    first: Option<u64>,
    last: u64,
    seen: u64,
}

impl Numbers {
    fn take(&mut self, payload: &[u8]) {
        let number = u64::from_be_bytes(payload[4..12].try_into().unwrap());
        self.first.get_or_insert(number);
        self.last = number;
        self.seen += 1;
    }

    fn missing(&self) -> u64 {
        self.first.map_or(u64::MAX, |first| self.last + 1 - first - self.seen)
    }
}

fn rung(path: Path, stop: Arc<AtomicBool>) -> (SocketAddr, JoinHandle<u64>) {
    let entry =
        RosterEntry { key: KeyDigest::of("key"), takeover: Takeover::IfSilent, stopped: false, passphrase: None };
    let roster = Roster([(ChannelName::new("c").unwrap(), entry)].into());
    let config = PortConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        latency: Duration::from_millis(path.latency_ms),
        ..PortConfig::default()
    };
    let mut port = Port::bind(config, Arc::new(roster)).unwrap();
    let address = port.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut numbers = Numbers::default();
        while !stop.load(Ordering::Relaxed) {
            let now = SystemClock::mono();
            let wait =
                (port.deadline(now).unwrap_or(now + Duration::from_millis(20)) - now).min(Duration::from_millis(20));
            let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
            let fd = port.fd();
            let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
            rustix::event::poll(if port.polls_fd() { &mut fds[..] } else { &mut [] }, Some(&limit)).unwrap();
            port.run(SystemClock::mono());
            while let Some(event) = port.poll() {
                if let Event::Data { payload, .. } = event {
                    numbers.take(&payload);
                }
            }
        }
        numbers.missing()
    });
    (address, thread)
}

/// The crate's receiver, driven packet by packet.
#[expect(clippy::disallowed_types, reason = "the crate takes Instant")]
fn foreign(path: Path, stop: Arc<AtomicBool>) -> (SocketAddr, JoinHandle<u64>) {
    use std::time::Instant;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let address = socket.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let config =
            sapflow_srt::Config { latency: Duration::from_millis(path.latency_ms), ..sapflow_srt::Config::default() };
        let mut listener = sapflow_srt::Listener::new(config, Instant::now());
        let (mut numbers, mut buffer) = (Numbers::default(), [0; 1_500]);
        while !stop.load(Ordering::Relaxed) {
            if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                listener.handle_datagram(Instant::now(), peer, &buffer[..length]);
            }
            listener.handle_timeout(Instant::now());
            while let Some(event) = listener.poll_event() {
                match event {
                    sapflow_srt::Event::Connect { id, .. } => assert!(listener.accept(id, Instant::now())),
                    sapflow_srt::Event::Data { payload, .. } => numbers.take(&payload),
                    sapflow_srt::Event::Closed { .. } => {}
                }
            }
            while let Some((peer, bytes)) = listener.poll_transmit() {
                socket.send_to(&bytes, peer).unwrap();
            }
        }
        numbers.missing()
    });
    (address, thread)
}

fn libsrt(path: Path, stop: Arc<AtomicBool>) -> (SocketAddr, JoinHandle<u64>) {
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("srt://{address}?mode=listener&latency={}", path.latency_ms);
    let mut command = Command::new("srt-live-transmit");
    command.args(["-chunk:1316", "-quiet", "-a:no", &url, "file://con"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut numbers, mut payload) = (Numbers::default(), [0; PAYLOAD]);
        while out.read_exact(&mut payload).is_ok() {
            numbers.take(&payload);
        }
        numbers.missing()
    });
    let thread = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            pace(Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap()
    });
    (address, thread)
}

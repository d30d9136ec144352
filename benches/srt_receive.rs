//! What receiving costs: CPU time of the receiving thread for publishers of 4 Mb/s each over loopback.
//!
//! Method: the port runs on one thread as a shard drives it; senders run on another. User and system time of the
//! receiving thread alone (RUSAGE_THREAD), over ten seconds after all are on air. A latency below 120 ms wakes the
//! port for every packet, one of 120 ms and more every 4 ms.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench may stop anywhere")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use rung::ingest::srt::{Event, PAYLOAD, Passphrase, Port, PortConfig, Publish, SrtUrl};
use rung::ingest::{Roster, RosterEntry};
use rung::media::channel::{ChannelName, Takeover};
use rung::media::key::KeyDigest;
use rung::time::SystemClock;

const BITS_PER_SECOND: u64 = 4_000_000;
const SPAN: Duration = Duration::from_secs(10);
const PASS: &str = "a long passphrase";

fn main() {
    // `cargo test --benches` builds and starts this too: then it only shows that it runs.
    let quick = std::env::args().any(|arg| arg == "--test");
    let span = if quick { Duration::from_millis(200) } else { SPAN };
    println!("publishers  latency  key      CPU-s/s  CPU-s/s per publisher  CPU-s/Gbit  wakes/s  payloads/s  missing");
    for (publishers, latency, key) in [(10, 119, 0), (10, 120, 0), (10, 120, 16), (10, 120, 32), (100, 120, 0)] {
        measure(publishers, latency, key, span);
    }
}

fn measure(publishers: u32, latency_ms: u64, key_length: u8, span: Duration) {
    let channels = (1..=publishers).map(|n| {
        let entry = RosterEntry { key: KeyDigest::of("key"), takeover: Takeover::IfSilent, stopped: false };
        (ChannelName::new(&format!("c{n}")).unwrap(), entry)
    });
    let config = PortConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        latency: Duration::from_millis(latency_ms),
        passphrase: (key_length > 0).then(|| Passphrase::new(PASS).unwrap()),
        ..PortConfig::default()
    };
    let mut port = Port::bind(config, Arc::new(Roster(channels.collect()))).unwrap();
    let secret = if key_length > 0 { format!("&passphrase={PASS}&pbkeylen={key_length}") } else { String::new() };
    let address = port.local_addr().unwrap();
    let url = SrtUrl::parse(&format!("srt://{address}?streamid=c{{n}}/key&latency={latency_ms}{secret}")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let senders = std::thread::spawn(move || send(&url, publishers, &stopping));
    receive(&mut port, publishers, Duration::from_secs(2));
    let (before, begin) = (cpu(), SystemClock::mono());
    let (wakes, payloads) = receive(&mut port, publishers, span);
    let took = (SystemClock::mono() - begin).as_secs_f64();
    let cpu = (cpu() - before).as_secs_f64() / took;
    let rate = payloads as f64 / took;
    let wanted = (u64::from(publishers) * BITS_PER_SECOND) as f64 / 8.0 / PAYLOAD as f64;
    println!(
        "{publishers:10}  {latency_ms:4} ms  {:7}  {cpu:7.4}  {:21.5}  {:10.3}  {:7.0}  {rate:10.0}  {:.2} %",
        if key_length == 0 { "-".to_owned() } else { format!("AES-{}", u32::from(key_length) * 8) },
        cpu / f64::from(publishers),
        cpu / (rate * PAYLOAD as f64 * 8.0 / 1e9),
        wakes as f64 / took,
        100.0 - rate / wanted * 100.0
    );
    port.shutdown(SystemClock::mono());
    stop.store(true, Ordering::Relaxed);
    senders.join().unwrap();
}

/// Drives the port for `span` from when all publishers are on air; wakes and payloads.
fn receive(port: &mut Port, publishers: u32, span: Duration) -> (u64, u64) {
    let (mut wakes, mut payloads, mut end) = (0, 0, None);
    loop {
        let now = SystemClock::mono();
        if port.publishers() == publishers as usize && now >= *end.get_or_insert(now + span) {
            return (wakes, payloads);
        }
        let wait = port.deadline(now).unwrap_or(now + Duration::from_millis(100)) - now;
        let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let fd = port.fd();
        let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        rustix::event::poll(if port.polls_fd() { &mut fds[..] } else { &mut [] }, Some(&limit)).unwrap();
        port.run(SystemClock::mono());
        wakes += 1;
        while let Some(event) = port.poll() {
            payloads += u64::from(matches!(event, Event::Data { .. }));
        }
    }
}

fn send(url: &SrtUrl, publishers: u32, stop: &AtomicBool) {
    let (peer, begin) = (url.resolve().unwrap(), SystemClock::mono());
    let mut all: Vec<_> =
        (1..=publishers).map(|n| (Publish::connect(begin, &url.numbered(n), peer).unwrap(), None)).collect();
    let step = Duration::from_nanos(PAYLOAD as u64 * 8 * 1_000_000_000 / BITS_PER_SECOND);
    while !stop.load(Ordering::Relaxed) {
        let now = SystemClock::mono();
        for (publish, due) in &mut all {
            publish.run(now);
            if publish.is_connected() {
                let due = due.get_or_insert(now);
                while *due <= now {
                    publish.send(now, &[0x47; PAYLOAD]);
                    *due = *due + step;
                }
            }
        }
        let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        rustix::event::poll(&mut [], Some(&limit)).unwrap();
    }
}

/// User and system time of this thread.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let micros = |t: nix::sys::time::TimeVal| (t.tv_sec() * 1_000_000 + t.tv_usec()) as u64;
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

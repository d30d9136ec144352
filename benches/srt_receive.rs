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
use rung::ingest::srt::{Port, PortConfig, Publish, SrtUrl};
use rung::ingest::{Event, PAYLOAD, Roster, RosterEntry};
use rung::media::channel::{ChannelName, Takeover};
use rung::media::key::{KeyDigest, Passphrase};
use rung::time::SystemClock;

const BITS_PER_SECOND: u64 = 4_000_000;
const SPAN: Duration = Duration::from_secs(10);
const PASS: &str = "a long passphrase";

fn main() {
    // `cargo test --benches` builds and starts this too: then it only shows that it runs.
    let quick = std::env::args().any(|arg| arg == "--test");
    let span = if quick { Duration::from_millis(200) } else { SPAN };
    println!(
        "receiver  publishers  latency  key      CPU-s/s  CPU-s/s per publisher  CPU-s/Gbit  wakes/s  payloads/s  missing"
    );
    for (publishers, latency, key) in [(10, 119, 0), (10, 120, 0), (10, 120, 16), (10, 120, 32), (100, 120, 0)] {
        measure(publishers, latency, key, span);
        if key == 0 && latency == 120 {
            peers::sapflow(publishers, span);
            peers::libsrt(publishers, span);
        }
    }
}

fn measure(publishers: u32, latency_ms: u64, key_length: u8, span: Duration) {
    let channels = (1..=publishers).map(|n| {
        let entry =
            RosterEntry { key: KeyDigest::of("key"), takeover: Takeover::IfSilent, stopped: false, passphrase: None };
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
    let key = if key_length == 0 { "-".to_owned() } else { format!("AES-{}", u32::from(key_length) * 8) };
    println!(
        "rung      {publishers:10}  {latency_ms:4} ms  {key:7}  {}  {:7.0}  {rate:10.0}  {:.2} %",
        cells(cpu, publishers, rate),
        wakes as f64 / took,
        100.0 - rate / wanted * 100.0
    );
    port.shutdown(SystemClock::mono());
    stop.store(true, Ordering::Relaxed);
    senders.join().unwrap();
}

/// CPU in its three units.
fn cells(cpu: f64, publishers: u32, rate: f64) -> String {
    let gigabits = rate * PAYLOAD as f64 * 8.0 / 1e9;
    format!("{cpu:7.4}  {:21.5}  {:10.3}", cpu / f64::from(publishers), cpu / gigabits)
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

/// The same publishers, received by others.
mod peers {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::process::{Child, Command, Stdio};

    use rung::sys::mmsg::RecvBatch;

    use super::*;

    fn senders(url: &str, publishers: u32) -> (Arc<AtomicBool>, std::thread::JoinHandle<()>) {
        let (url, stop) = (SrtUrl::parse(url).unwrap(), Arc::new(AtomicBool::new(false)));
        let stopping = Arc::clone(&stop);
        (stop, std::thread::spawn(move || send(&url, publishers, &stopping)))
    }

    /// The crate that Rung began with, driven as Rung drove it: batches each 4 ms.
    #[expect(clippy::disallowed_types, reason = "the crate takes Instant")]
    pub(super) fn sapflow(publishers: u32, span: Duration) {
        use std::time::Instant;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(16 << 20)).ok();
        let config = sapflow_srt::Config {
            max_connections: 512,
            handshakes_per_second: 5_000,
            ..sapflow_srt::Config::default()
        };
        let mut listener = sapflow_srt::Listener::new(config, Instant::now());
        let url = format!("srt://{}?streamid=c{{n}}/key&latency=120", socket.local_addr().unwrap());
        let (stop, senders) = senders(&url, publishers);
        let (mut batch, mut connected, mut payloads, mut wakes) = (RecvBatch::default(), 0, 0u64, 0u64);
        let (mut begin, mut before, mut end) = (SystemClock::mono(), cpu(), None);
        loop {
            let now = SystemClock::mono();
            if connected == publishers && end.is_none() {
                // Two seconds until all is steady.
                (begin, end) = (now + Duration::from_secs(2), Some(now + Duration::from_secs(2) + span));
            }
            if now < begin || end.is_none() {
                (before, payloads, wakes) = (cpu(), 0, 0);
            }
            if end.is_some_and(|end| now >= end) {
                break;
            }
            rustix::event::poll(&mut [], Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 4_000_000 })).unwrap();
            wakes += 1;
            while batch.recv(socket.as_fd()).unwrap() > 0 {
                let at = Instant::now();
                batch.drain().for_each(|(peer, bytes)| listener.handle_datagram(at, peer, &bytes));
            }
            listener.handle_timeout(Instant::now());
            while let Some(event) = listener.poll_event() {
                match event {
                    sapflow_srt::Event::Connect { id, .. } => {
                        assert!(listener.accept(id, Instant::now()));
                        connected += 1;
                    }
                    sapflow_srt::Event::Data { .. } => payloads += 1,
                    sapflow_srt::Event::Closed { .. } => {}
                }
            }
            while let Some((peer, bytes)) = listener.poll_transmit() {
                socket.send_to(&bytes, peer).ok();
            }
        }
        let took = (SystemClock::mono() - begin).as_secs_f64();
        let (cpu, rate) = ((cpu() - before).as_secs_f64() / took, payloads as f64 / took);
        println!(
            "sapflow   {publishers:10}   120 ms  -        {}  {:7.0}  {rate:10.0}",
            cells(cpu, publishers, rate),
            wakes as f64 / took
        );
        stop.store(true, Ordering::Relaxed);
        senders.join().unwrap();
    }

    /// libsrt, a process for each publisher: `srt-live-transmit` into nothing.
    pub(super) fn libsrt(publishers: u32, span: Duration) {
        let rate = f64::from(publishers) * BITS_PER_SECOND as f64 / 8.0 / PAYLOAD as f64;
        let (mut children, mut all) = (Vec::new(), Vec::new());
        for _ in 0..publishers {
            let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut command = Command::new("srt-live-transmit");
            command.args([
                "-chunk:1316",
                "-quiet",
                &format!("srt://{address}?mode=listener&latency=120"),
                "file://con",
            ]);
            let Ok(child) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
                println!("libsrt    {publishers:10}  SKIP srt-live-transmit is not installed");
                return;
            };
            children.push(child);
            all.push(senders(&format!("srt://{address}?streamid=c/key&latency=120"), 1));
        }
        let wait = |span: Duration| {
            let limit = rustix::event::Timespec { tv_sec: span.as_secs() as i64, tv_nsec: span.subsec_nanos().into() };
            rustix::event::poll(&mut [], Some(&limit)).unwrap();
        };
        wait(Duration::from_secs(3));
        let used = |children: &[Child]| children.iter().map(|child| cpu_of(child.id())).sum::<f64>();
        let (before, begin) = (used(&children), SystemClock::mono());
        wait(span);
        let cpu = (used(&children) - before) / (SystemClock::mono() - begin).as_secs_f64();
        println!("libsrt    {publishers:10}   120 ms  -        {}", cells(cpu, publishers, rate));
        all.iter().for_each(|(stop, _)| stop.store(true, Ordering::Relaxed));
        all.into_iter().for_each(|(_, thread)| thread.join().unwrap());
        for mut child in children {
            child.kill().ok();
            child.wait().unwrap();
        }
    }

    /// User and system time of a process, seconds.
    fn cpu_of(pid: u32) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

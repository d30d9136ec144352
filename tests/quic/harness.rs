//! A QUIC and an SRT port behind one door, driven as a shard drives them; a link with delay, loss and a rate between; and
//! transport streams that count themselves.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rung::ingest::quic::{self, Identity, Pin, PushOptions, QuicUrl, Source, Trust};
use rung::ingest::srt;
use rung::ingest::{
    Closing, Connected, Door, Event, Knobs, Progress, PublishEvent, PublisherId, PublisherStats, PushError,
    StreamProgress,
};
use rung::time::{Mono, SystemClock};
use rustix::event::{PollFd, PollFlags};

use crate::ports::{Board, Log, ms, roster, timespec};

/// Nothing in these tests may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);
pub(crate) const PACKET: usize = 188;

#[derive(Debug, Clone)]
pub(crate) enum Order {
    Close(PublisherId, Closing),
    /// Says that everything which happened before it has been seen.
    Settle(SyncSender<()>),
    Stop,
}

/// Everything the ports said.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connected: Vec<Connected>,
    pub(crate) closed: Vec<(PublisherId, Closing, PublisherStats)>,
    /// Channel, code, sentence.
    pub(crate) refused: Vec<(Option<String>, u16, String)>,
    pub(crate) tallies: HashMap<PublisherId, Tally>,
    pub(crate) counters: quic::PortCounters,
    /// The `Debug` of every event but data.
    pub(crate) log: String,
}

impl Seen {
    pub(crate) fn on(&self, channel: &str) -> Option<&Connected> {
        self.connected.iter().rev().find(|c| c.channel.as_str() == channel)
    }

    pub(crate) fn tally(&self, channel: &str) -> Option<&Tally> {
        self.on(channel).and_then(|c| self.tallies.get(&c.publisher))
    }

    /// Why the channel's last publisher ended, and with which statistics.
    pub(crate) fn end(&self, channel: &str) -> Option<(Closing, &PublisherStats)> {
        let publisher = self.on(channel)?.publisher;
        self.closed.iter().find(|(id, ..)| *id == publisher).map(|(_, why, stats)| (*why, stats))
    }
}

impl Log for Seen {
    fn log(&self) -> &str {
        &self.log
    }
}

/// What came from one publisher, in packets.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Of numbered packets: the next number; numbers that never came; packets that are not what was sent, or not in order.
    pub(crate) next: u64,
    pub(crate) missing: u64,
    pub(crate) holes: u64,
    pub(crate) corrupt: u64,
    /// Number and arrival of each, if they are wanted.
    pub(crate) arrivals: Vec<(u64, Mono)>,
}

impl Tally {
    fn add(&mut self, now: Mono, payload: &[u8], arrivals: bool) {
        self.bytes += payload.len() as u64;
        if !payload.len().is_multiple_of(PACKET) {
            self.corrupt += 1;
        }
        for packet in payload.chunks_exact(PACKET) {
            self.packets += 1;
            if packet[0] != 0x47 {
                self.corrupt += 1;
            }
            if packet[1] & 0x1f != 1 || packet[2] != 0 {
                continue;
            }
            let number = u64::from_be_bytes(packet[4..12].try_into().unwrap());
            if number < self.next || packet[12..] != numbered(number)[12..] {
                self.corrupt += 1;
                continue;
            }
            if number > self.next {
                self.missing += number - self.next;
                self.holes += 1;
            }
            self.next = number + 1;
            if arrivals {
                self.arrivals.push((number, now));
            }
        }
    }
}

/// Packet number `n` (PID 0x100): no two alike, every byte determined.
pub(crate) fn numbered(n: u64) -> Vec<u8> {
    let mut packet = vec![0x47, 0x01, 0x00, 0x10 | (n % 16) as u8];
    packet.extend_from_slice(&n.to_be_bytes());
    packet.resize(PACKET, (n as u8).wrapping_mul(167));
    packet
}

/// A clock packet (PID 0x101) at `micros`.
fn clock(micros: u64) -> Vec<u8> {
    let (base, extension) = (micros * 90 / 1_000, micros * 27 % 300);
    let mut packet = vec![0x47, 0x01, 0x01, 0x20, 183, 0x10];
    packet.extend_from_slice(&((base >> 1) as u32).to_be_bytes());
    packet.extend_from_slice(&[(base << 7) as u8 | 0x7e | (extension >> 8) as u8, extension as u8]);
    packet.resize(PACKET, 0xff);
    packet
}

/// A transport stream of numbered packets with a clock every 20 ms.
pub(crate) fn stream(bits_per_second: u64, span: Duration) -> (tempfile::NamedTempFile, u64) {
    let spacing = PACKET as u64 * 8 * 1_000_000 / bits_per_second;
    let (mut bytes, mut next_clock, mut n, mut at) = (Vec::new(), 0, 0, 0);
    while at < span.as_micros() as u64 {
        if at >= next_clock {
            bytes.extend_from_slice(&clock(at));
            next_clock += 20_000;
        } else {
            bytes.extend_from_slice(&numbered(n));
            n += 1;
        }
        at += spacing;
    }
    bytes.extend_from_slice(&clock(at));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    (file, n)
}

pub(crate) struct TestPorts {
    pub(crate) quic: SocketAddr,
    pub(crate) srt: SocketAddr,
    pub(crate) pin: Pin,
    pub(crate) renewal: quic::Renewal,
    seen: Board<Seen>,
    orders: SyncSender<Order>,
    thread: Option<JoinHandle<()>>,
    _folder: Option<tempfile::TempDir>,
}

/// How the ports are opened.
pub(crate) struct Opening {
    pub(crate) address: SocketAddr,
    pub(crate) publishers_max: usize,
    pub(crate) latency: Duration,
    pub(crate) arrivals: bool,
    pub(crate) identity: Option<Identity>,
}

impl Default for Opening {
    fn default() -> Opening {
        Opening {
            address: "127.0.0.1:0".parse().unwrap(),
            publishers_max: 100,
            latency: ms(120),
            arrivals: false,
            identity: None,
        }
    }
}

impl TestPorts {
    pub(crate) fn open() -> TestPorts {
        TestPorts::with(Opening::default())
    }

    pub(crate) fn with(opening: Opening) -> TestPorts {
        let Opening { address, publishers_max, latency, arrivals, identity } = opening;
        let folder = tempfile::tempdir().unwrap();
        let (identity, folder) = match identity {
            Some(identity) => (identity, None),
            None => (Identity::own(folder.path()).unwrap(), Some(folder)),
        };
        let door = Door::new(roster(), publishers_max);
        let config = srt::PortConfig { address: "127.0.0.1:0".parse().unwrap(), ..srt::PortConfig::default() };
        let mut srt = srt::Port::behind(Arc::clone(&door), config).unwrap();
        let config = quic::PortConfig { address, latency, ..quic::PortConfig::new(identity) };
        let mut quic = quic::Port::bind(door, config).unwrap();
        let (addresses, pin) = ((quic.local_addr(), srt.local_addr().unwrap()), quic.pin());
        let renewal = quic.renewal();
        let seen = Board::default();
        let (orders, inbox) = sync_channel(16);
        let shared = seen.clone();
        let thread = std::thread::spawn(move || {
            let mut stopping = None;
            loop {
                let mut now = SystemClock::mono();
                let due = srt.deadline(now).into_iter().chain(quic.deadline()).min().unwrap_or(now + ms(20));
                wait(&srt, &quic, due.min(now + ms(20)) - now);
                now = SystemClock::mono();
                srt.run(now);
                quic.run(now);
                let mut settled = Vec::new();
                for order in inbox.try_iter() {
                    match order {
                        Order::Close(publisher, why) => {
                            srt.close(now, publisher, why);
                            quic.close(now, publisher, why);
                        }
                        Order::Settle(done) => {
                            // What was handed over while this round went on.
                            quic.run(now);
                            settled.push(done);
                        }
                        Order::Stop => {
                            srt.shutdown(now);
                            quic.shutdown(now);
                            stopping = Some(now + ms(2_000));
                        }
                    }
                }
                shared.write(|seen| {
                    while let Some(event) = srt.poll().or_else(|| quic.poll()) {
                        take(seen, now, event, arrivals);
                    }
                    seen.counters = quic.counters();
                });
                // Who asked may have given up.
                settled.into_iter().for_each(|done| done.send(()).unwrap_or_default());
                if stopping.is_some_and(|until| quic.publishers() == 0 || now >= until) {
                    return;
                }
            }
        });
        let (quic, srt) = addresses;
        TestPorts { quic, srt, pin, renewal, seen, orders, thread: Some(thread), _folder: folder }
    }

    pub(crate) fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    /// Until `what` finds what it looks for.
    #[track_caller]
    pub(crate) fn wait<T>(&self, why: &str, what: impl FnMut(&Seen) -> Option<T>) -> T {
        self.seen.wait(LIMIT, why, what)
    }

    /// At all that happened until now: a peer may have its answer before it is told here.
    pub(crate) fn look<T>(&self, what: impl FnOnce(&Seen) -> T) -> T {
        let (done, wait) = sync_channel(1);
        // Ports that were stopped have told everything.
        if self.orders.send(Order::Settle(done)).is_ok() {
            wait.recv_timeout(LIMIT).unwrap_or_default();
        }
        self.seen.look(what)
    }

    /// `place`: channel and key, options behind a question mark.
    pub(crate) fn url(&self, place: &str) -> QuicUrl {
        self.url_at(self.quic, place)
    }

    /// The same through a relay.
    pub(crate) fn url_at(&self, address: SocketAddr, place: &str) -> QuicUrl {
        let join = if place.contains('?') { '&' } else { '?' };
        QuicUrl::parse(&format!("quic://{address}/{place}{join}pin={}", self.pin)).unwrap()
    }

    pub(crate) fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.orders.send(Order::Stop).ok();
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the ports' thread panicked");
        }
    }
}

impl Drop for TestPorts {
    fn drop(&mut self) {
        self.stop();
    }
}

fn wait(srt: &srt::Port, quic: &quic::Port, span: Duration) {
    let (srt_fd, quic_fd) = (srt.fd(), quic.fd());
    let mut fds = Vec::new();
    if srt.polls_fd() {
        fds.push(PollFd::new(&srt_fd, PollFlags::IN));
    }
    if quic.polls_fd() {
        fds.push(PollFd::new(&quic_fd, PollFlags::IN));
    }
    rustix::event::poll(&mut fds, Some(&timespec(span))).unwrap();
}

fn take(seen: &mut Seen, now: Mono, event: Event, arrivals: bool) {
    if !matches!(event, Event::Data { .. }) {
        seen.log.push_str(&format!("{event:?}\n"));
    }
    match event {
        Event::Connected(connected) => seen.connected.push(connected),
        Event::Data { publisher, payload } => {
            seen.tallies.entry(publisher).or_default().add(now, &payload, arrivals);
        }
        Event::Closed { publisher, reason, stats } => seen.closed.push((publisher, reason, stats)),
        Event::Refused { channel, code, why, .. } => seen.refused.push((channel.map(|c| c.to_string()), code, why)),
        Event::Pull(news) => panic!("{news:?}: nothing is called over QUIC"),
        Event::Overflow { publisher } => panic!("{publisher}: this harness takes every event"),
    }
}

pub(crate) fn options(source: Source, url: QuicUrl) -> PushOptions {
    let trust = Trust::Pin(url.pin.expect("test addresses have a pin"));
    let knobs = Knobs::default();
    PushOptions { source, url, trust, streams: 1, looping: false, reconnect: false, knobs, seed: 1 }
}

/// What a push of ours came to.
pub(crate) struct Outcome {
    pub(crate) result: Result<Vec<StreamProgress>, PushError>,
    pub(crate) latency: Option<Duration>,
    /// How often it had to make its segments shorter.
    pub(crate) shortened: u32,
    pub(crate) took: Duration,
}

impl Outcome {
    /// Why it ended early.
    #[track_caller]
    pub(crate) fn end(&self) -> rung::ingest::PublishEnd {
        match &self.result {
            Err(PushError::Ended { end, .. }) => *end,
            other => panic!("a publisher that ended early: {other:?}"),
        }
    }
}

/// A push on a thread.
pub(crate) struct Pushing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Outcome>>,
}

impl Pushing {
    pub(crate) fn start(options: PushOptions) -> Pushing {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (begin, mut latency, mut shortened) = (SystemClock::mono(), None, 0);
            let result = quic::push(&options, &mut |progress| {
                match progress {
                    Progress::Event { event: PublishEvent::Connected { latency: granted }, .. } => {
                        latency = Some(*granted);
                    }
                    Progress::Late { .. } => shortened += 1,
                    _ => {}
                }
                if stopping.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            Outcome { result, latency, shortened, took: SystemClock::mono() - begin }
        });
        Pushing { stop, thread: Some(thread) }
    }

    pub(crate) fn stop(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }

    /// Until it ends by itself.
    pub(crate) fn end(mut self) -> Outcome {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the publisher's thread panicked");
        }
    }
}

/// Pushes a file to its end.
pub(crate) fn push_file(file: &tempfile::NamedTempFile, url: QuicUrl) -> Outcome {
    Pushing::start(options(Source::File(file.path().into()), url)).end()
}

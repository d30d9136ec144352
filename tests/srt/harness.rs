//! A port driven as a shard drives it, real peers as processes, and payloads that count themselves.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rung::ingest::srt::{Port, PortConfig, PortCounters, Publish, PullUrl, SrtUrl};
use rung::ingest::{
    Closing, Connected, Door, Event, PAYLOAD, PublishEnd, PublishEvent, PublishStats, PublisherId, PublisherStats,
    PullNews, PullState,
};
use rung::media::channel::ChannelName;
use rung::media::key::Passphrase;
use rung::time::{Mono, SystemClock};
use rustix::event::{PollFd, PollFlags};

use crate::ports::{Board, Log, pace, roster};

/// Nothing in these tests may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const PASS: &str = "a long passphrase";

#[derive(Debug, Clone)]
pub(crate) enum Order {
    Close(PublisherId, Closing),
    Stats(PublisherId),
    Pull(ChannelName, Option<PullUrl>),
    /// Says that everything which happened before it has been seen.
    Settle(SyncSender<()>),
    Stop,
}

/// Everything a port said.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connected: Vec<Connected>,
    pub(crate) closed: Vec<(PublisherId, Closing, PublisherStats)>,
    /// Channel, code, sentence.
    pub(crate) refused: Vec<(Option<String>, u16, String)>,
    /// Of sources that are called, every news.
    pub(crate) pulls: Vec<PullNews>,
    pub(crate) tallies: HashMap<PublisherId, Tally>,
    pub(crate) stats: HashMap<PublisherId, PublisherStats>,
    pub(crate) counters: PortCounters,
    /// The `Debug` of every event but data.
    pub(crate) log: String,
}

impl Seen {
    pub(crate) fn on(&self, channel: &str) -> Option<&Connected> {
        self.connected.iter().rev().find(|c| c.channel.as_str() == channel)
    }

    /// State and error of the channel's source.
    pub(crate) fn pull(&self, channel: &str) -> Option<(PullState, String)> {
        let status = self.pulls.iter().rev().find(|news| news.channel.as_str() == channel).map(|news| &news.status)?;
        Some((status.state, status.error.clone().unwrap_or_default()))
    }

    pub(crate) fn tally(&self, channel: &str) -> Option<&Tally> {
        self.on(channel).and_then(|c| self.tallies.get(&c.publisher))
    }
}

impl Log for Seen {
    fn log(&self) -> &str {
        &self.log
    }
}

/// What came from one publisher.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) payloads: u64,
    pub(crate) bytes: u64,
    /// Of numbered payloads: the first number (`srt-live-transmit` reads ten and throws them away if it is not connected
    /// then), the next one, numbers between that never came, payloads that are not what was sent.
    pub(crate) first: Option<u64>,
    pub(crate) next: u64,
    pub(crate) gaps: u64,
    pub(crate) corrupt: u64,
    /// The first bytes, as they came.
    pub(crate) head: Vec<u8>,
}

impl Tally {
    fn add(&mut self, payload: &[u8]) {
        self.payloads += 1;
        self.bytes += payload.len() as u64;
        if self.head.len() < 1 << 20 {
            self.head.extend_from_slice(payload);
        }
        if payload.starts_with(b"RUNG") {
            let number = u64::from_be_bytes(payload[4..12].try_into().unwrap());
            if payload != numbered(number) {
                self.corrupt += 1;
            }
            if self.first.is_none() {
                (self.first, self.next) = (Some(number), number);
            }
            self.gaps += number.abs_diff(self.next);
            self.next = number + 1;
        }
    }
}

/// Payload number `n`: no two alike, every byte determined.
pub(crate) fn numbered(n: u64) -> Vec<u8> {
    let mut payload = b"RUNG".to_vec();
    payload.extend_from_slice(&n.to_be_bytes());
    let fill = (n as u8).wrapping_mul(167);
    payload.resize(PAYLOAD, fill);
    payload
}

/// Ports side by side: handshakes come to the first, a channel's media to its own.
const PORTS: usize = 3;

pub(crate) struct TestPort {
    pub(crate) address: SocketAddr,
    seen: Board<Seen>,
    commands: SyncSender<Order>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) fn config(passphrase: Option<&str>) -> PortConfig {
    PortConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        passphrase: passphrase.map(|p| Passphrase::new(p).unwrap()),
        ..PortConfig::default()
    }
}

impl TestPort {
    pub(crate) fn open(passphrase: Option<&str>) -> TestPort {
        TestPort::with(config(passphrase))
    }

    pub(crate) fn with(config: PortConfig) -> TestPort {
        let door = Door::new(roster(), config.publishers_max);
        let mut ports = Port::among(&door, &config, PORTS).unwrap();
        let address = ports[0].local_addr().unwrap();
        let seen = Board::default();
        let (commands, inbox) = sync_channel(16);
        let shared: Board<Seen> = seen.clone();
        let thread = std::thread::spawn(move || {
            loop {
                let (mut stop, mut settled) = (false, Vec::new());
                let mut now = SystemClock::mono();
                let grain = now + Duration::from_millis(20);
                let due = ports.iter().filter_map(|port| port.deadline(now)).fold(grain, Mono::min);
                let limit = due - now;
                let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
                let media = ports.iter().filter(|port| port.polls_fd()).map(Port::fd);
                let fds = media.chain(ports.iter().filter_map(Port::mail_fd));
                let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
                rustix::event::poll(&mut fds, Some(&limit)).unwrap();
                now = SystemClock::mono();
                ports.iter_mut().for_each(|port| port.run(now));
                for command in inbox.try_iter() {
                    match command {
                        Order::Close(publisher, why) => {
                            ports.iter_mut().for_each(|port| port.close(now, publisher, why));
                        }
                        Order::Stats(publisher) => {
                            let stats = ports.iter().find_map(|port| port.stats(now, publisher)).unwrap();
                            shared.write(|seen| drop(seen.stats.insert(publisher, stats)));
                        }
                        Order::Pull(channel, url) => ports[channel.shard(PORTS)].pull(now, &channel, url),
                        Order::Settle(done) => settled.push(done),
                        Order::Stop => {
                            ports.iter_mut().for_each(|port| port.shutdown(now));
                            stop = true;
                        }
                    }
                }
                shared.write(|seen| {
                    ports.iter_mut().for_each(|port| take(port, seen));
                    seen.counters = ports.iter().map(Port::counters).reduce(sum).unwrap();
                });
                // Who asked may have given up.
                settled.into_iter().for_each(|done| done.send(()).unwrap_or_default());
                if stop {
                    return;
                }
            }
        });
        TestPort { address, seen, commands, thread: Some(thread) }
    }

    pub(crate) fn command(&self, command: Order) {
        self.commands.send(command).unwrap();
    }

    /// The channel's source is there from now on.
    pub(crate) fn pull(&self, channel: &str, url: &str) {
        self.command(Order::Pull(ChannelName::new(channel).unwrap(), Some(PullUrl::parse(url).unwrap())));
    }

    pub(crate) fn pull_no_more(&self, channel: &str) {
        self.command(Order::Pull(ChannelName::new(channel).unwrap(), None));
    }

    /// Until the channel's source is in `state`; its error.
    #[track_caller]
    pub(crate) fn wait_pull(&self, channel: &str, state: PullState) -> String {
        let fits = |seen: &Seen| seen.pull(channel).filter(|(now, _)| *now == state).map(|(_, error)| error);
        self.wait(&format!("{channel} is {}", state.name()), fits)
    }

    /// Until a call of the channel's source has failed; why.
    #[track_caller]
    pub(crate) fn wait_pull_error(&self, channel: &str) -> String {
        let error = |seen: &Seen| seen.pull(channel).map(|(_, error)| error).filter(|error| !error.is_empty());
        self.wait(&format!("the source of {channel} failed"), error)
    }

    /// Until `what` finds what it looks for.
    #[track_caller]
    pub(crate) fn wait<T>(&self, why: &str, what: impl FnMut(&Seen) -> Option<T>) -> T {
        self.seen.wait(LIMIT, why, what)
    }

    #[track_caller]
    pub(crate) fn wait_refused(&self) -> (u16, String) {
        self.wait("a refusal", |seen| seen.refused.first().map(|(_, code, why)| (*code, why.clone())))
    }

    /// At all that happened until now: a peer may have its answer before it is told here.
    pub(crate) fn look<T>(&self, what: impl FnOnce(&Seen) -> T) -> T {
        let (done, wait) = sync_channel(1);
        // A port that was stopped has told everything.
        if self.commands.send(Order::Settle(done)).is_ok() {
            wait.recv_timeout(LIMIT).unwrap_or_default();
        }
        self.seen.look(what)
    }

    pub(crate) fn url(&self, options: &str) -> SrtUrl {
        SrtUrl::parse(&format!("srt://{}?{options}", self.address)).unwrap()
    }

    pub(crate) fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.commands.send(Order::Stop).ok();
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the port's thread panicked");
        }
    }
}

impl Drop for TestPort {
    fn drop(&mut self) {
        self.stop();
    }
}

fn take(port: &mut Port, seen: &mut Seen) {
    while let Some(event) = port.poll() {
        if !matches!(event, Event::Data { .. }) {
            seen.log.push_str(&format!("{event:?}\n"));
        }
        match event {
            Event::Connected(connected) => seen.connected.push(connected),
            Event::Data { publisher, payload } => seen.tallies.entry(publisher).or_default().add(&payload),
            Event::Closed { publisher, reason, stats } => seen.closed.push((publisher, reason, stats)),
            Event::Refused { channel, code, why, .. } => {
                seen.refused.push((channel.map(|c| c.to_string()), code, why));
            }
            Event::Pull(news) => seen.pulls.push(news),
            Event::Overflow { publisher } => panic!("{publisher}: this harness takes every event"),
        }
    }
}

fn sum(a: PortCounters, b: PortCounters) -> PortCounters {
    PortCounters {
        datagrams: a.datagrams + b.datagrams,
        malformed: a.malformed + b.malformed,
        stray: a.stray + b.stray,
        bad_cookie: a.bad_cookie + b.bad_cookie,
        rate_limited: a.rate_limited + b.rate_limited,
        refused: a.refused + b.refused,
        kernel_drops: a.kernel_drops + b.kernel_drops,
        send_drops: a.send_drops + b.send_drops,
        overflowed: a.overflowed + b.overflowed,
    }
}

/// What a publisher of ours came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) connected: Option<Duration>,
    pub(crate) end: PublishEnd,
    pub(crate) stats: PublishStats,
    /// From the first handshake to the end.
    pub(crate) took: Duration,
}

/// A publisher of ours on a thread: numbered payloads at a steady rate.
pub(crate) struct OwnCaller {
    stop: Arc<AtomicBool>,
    mute: Arc<AtomicBool>,
    thread: Option<JoinHandle<Outcome>>,
}

impl OwnCaller {
    pub(crate) fn start(url: SrtUrl, payloads_per_second: u32) -> OwnCaller {
        let (stop, mute) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stopping, muted) = (Arc::clone(&stop), Arc::clone(&mute));
        let thread = std::thread::spawn(move || {
            let begin = SystemClock::mono();
            let mut publish = Publish::connect(begin, &url, url.resolve().unwrap()).unwrap();
            let (mut connected, mut next, mut due) = (None, 0u64, begin);
            loop {
                let now = SystemClock::mono();
                publish.run(now);
                while let Some(event) = publish.poll() {
                    match event {
                        PublishEvent::Connected { latency } => (connected, due) = (Some(latency), now),
                        PublishEvent::Closed(end) => {
                            return Outcome { connected, end, stats: publish.stats(), took: now - begin };
                        }
                    }
                }
                if connected.is_some() && !muted.load(Ordering::Relaxed) {
                    while due <= now {
                        assert_eq!(publish.send(now, &numbered(next)), 0, "room for every payload");
                        (next, due) = (next + 1, due + Duration::from_secs(1) / payloads_per_second);
                    }
                }
                if stopping.load(Ordering::Relaxed) && publish.stats().waiting == 0 {
                    publish.finish(now);
                    continue;
                }
                let until = publish.deadline().unwrap_or(now).min(due.max(now + Duration::from_millis(1))) - now;
                let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: until.subsec_nanos().into() };
                let fd = publish.fd();
                rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap();
            }
        });
        OwnCaller { stop, mute, thread: Some(thread) }
    }

    /// Keeps the connection, sends nothing more.
    pub(crate) fn mute(&self) {
        self.mute.store(true, Ordering::Relaxed);
    }

    /// Everything acknowledged, then SHUTDOWN.
    pub(crate) fn finish(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.mute();
        self.thread.take().unwrap().join().unwrap()
    }

    /// Until it ends by itself.
    pub(crate) fn end(mut self) -> Outcome {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for OwnCaller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.mute();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the caller's thread panicked");
        }
    }
}

/// A peer program; killed when dropped.
pub(crate) struct Peer {
    child: Child,
    stderr: Option<JoinHandle<String>>,
}

impl Peer {
    pub(crate) fn spawn(command: &mut Command) -> Peer {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut pipe = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Peer { child, stderr: Some(stderr) }
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    pub(crate) fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().unwrap();
    }

    /// Whether it ends by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        let limit = SystemClock::mono() + LIMIT;
        while self.child.try_wait().unwrap().is_none() {
            if SystemClock::mono() >= limit {
                return false;
            }
            pace(Duration::from_millis(20));
        }
        true
    }

    /// What it wrote to stderr, once it has ended by itself.
    #[track_caller]
    pub(crate) fn said(mut self) -> String {
        let limit = SystemClock::mono() + LIMIT;
        while self.child.try_wait().unwrap().is_none() {
            assert!(SystemClock::mono() < limit, "the peer ends within {LIMIT:?}");
            pace(Duration::from_millis(20));
        }
        self.stderr.take().unwrap().join().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `srt-live-transmit` as a caller that is fed numbered payloads.
pub(crate) struct Transmit {
    pub(crate) peer: Peer,
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<u64>>,
}

impl Transmit {
    pub(crate) fn start(address: SocketAddr, options: &str, payloads_per_second: u32) -> Transmit {
        let mut command = Command::new("srt-live-transmit");
        command.args(["-chunk:1316", "-quiet", "-a:no", "file://con", &format!("srt://{address}?{options}")]);
        Transmit::feed(&mut command, payloads_per_second)
    }

    /// A program that reads what it is to send from its standard input.
    pub(crate) fn feed(command: &mut Command, payloads_per_second: u32) -> Transmit {
        let mut peer = Peer::spawn(command.stdin(Stdio::piped()).stdout(Stdio::null()));
        let (stop, mut pipe) = (Arc::new(AtomicBool::new(false)), peer.stdin());
        let stopping = Arc::clone(&stop);
        let writer = std::thread::spawn(move || {
            let mut sent = 0;
            while !stopping.load(Ordering::Relaxed) && pipe.write_all(&numbered(sent)).is_ok() {
                sent += 1;
                pace(Duration::from_secs(1) / payloads_per_second);
            }
            sent
        });
        Transmit { peer, stop, writer: Some(writer) }
    }

    /// Stops writing; how many payloads were written.
    pub(crate) fn finish(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.take().map_or(0, |writer| writer.join().unwrap())
    }
}

impl Drop for Transmit {
    fn drop(&mut self) {
        self.peer.kill();
        self.finish();
    }
}

/// `ffmpeg` as a caller: a tone and a small picture in real time.
pub(crate) fn ffmpeg(address: SocketAddr, options: &str) -> Peer {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25"]);
    command.args(["-f", "lavfi", "-i", "sine=sample_rate=48000", "-c:v", "mpeg2video", "-c:a", "mp2"]);
    command.args(["-f", "mpegts", &format!("srt://{address}?{options}")]);
    Peer::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

/// 2.4 seconds of MPEG-2 video and MP2 audio.
pub(crate) fn clip() -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".ts").tempfile().unwrap();
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25"]);
    command.args(["-f", "lavfi", "-i", "sine=sample_rate=48000", "-t", "2.4", "-c:v", "mpeg2video", "-c:a", "mp2"]);
    let made = command.args(["-f", "mpegts"]).arg(file.path()).status().unwrap();
    assert!(made.success());
    file
}

/// A UDP port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Continuity errors of the transport stream in `bytes`, which begins with a packet.
pub(crate) fn continuity_errors(bytes: &[u8]) -> u64 {
    let (mut counters, mut errors) = (BTreeMap::<u16, u8>::new(), 0);
    for packet in bytes.chunks_exact(188) {
        assert_eq!(packet[0], 0x47, "packets stay whole");
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        if packet[3] & 0x10 != 0 && pid != 0x1fff {
            let counter = packet[3] & 0x0f;
            errors += u64::from(counters.insert(pid, counter).is_some_and(|last| (last + 1) & 0x0f != counter));
        }
    }
    errors
}

/// When it was last seen to be so.
pub(crate) fn now() -> Mono {
    SystemClock::mono()
}

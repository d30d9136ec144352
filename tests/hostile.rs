//! Clients that want to exhaust the server: whatever they do costs them their own connection, raises a counter, and
//! leaves those beside them as they were. Method: an attack runs against the real server until it is ended; meanwhile
//! viewers of a live channel wait for each part and have to get it. How soon is a matter of the machine: bounds on time are
//! wide here, `make bench` has the figures.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[path = "support/frames.rs"]
mod frames;
#[path = "support/on_air.rs"]
mod on_air;
#[path = "support/served.rs"]
mod served;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use frames::{HEADERS, PING, SETTINGS, catch_up, frame, greet};
use on_air::{MSN0, OnAir};
use rung::media::modes::LatencyMode;
use rung::media::networks::Networks;
use rung::serve::Options;
use rung::serve::connection::Patience;
use rung::time::SystemClock;
use served::{METRICS, Rig, quick, since, until};

/// Patience, but not for viewers who wait for a part that is late.
fn patient() -> Options {
    Options { patience: Patience { chunk: Duration::from_secs(5), ..quick().patience }, ..quick() }
}

/// How often a connection was ended for `reason`.
fn ended(reason: &str) -> u64 {
    let series = format!("rung_http_connections_closed_total{{reason=\"{reason}\"}} ");
    let text = METRICS.render();
    text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
}

/// A connection from another address of this machine.
fn connect_from(ip: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::from(ip), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Counters are those of the whole process: a test that reads one exactly runs alone.
static ALONE: RwLock<()> = RwLock::new(());

/// A channel on air, and viewers beside an attack.
struct Beside {
    air: OnAir,
    rig: Rig,
    parts: u64,
    _others: Option<RwLockReadGuard<'static, ()>>,
}

impl Beside {
    fn new(options: Options) -> Beside {
        let others = ALONE.read().unwrap_or_else(PoisonError::into_inner);
        Beside { _others: Some(others), ..Beside::alone(options) }
    }

    /// For whoever has `ALONE`.
    fn alone(options: Options) -> Beside {
        let mut air = OnAir::with_frames_of(LatencyMode::Ultra, 20_000);
        air.parts(7);
        let rig = Rig::patient(&air, options);
        Beside { air, rig, parts: 7, _others: None }
    }

    /// A viewer waits for the next part and its playlist, and gets both once they are there.
    fn watch_a_part(&mut self) {
        let (msn, part) = (MSN0 + self.parts / 5, self.parts % 5);
        let media = self.air.media(&format!("p{msn}.{part}.m4s"));
        let output = self.air.session.rendition("720p").unwrap();
        let before = output.facts().waiting;
        let rig = &self.rig;
        let took = std::thread::scope(|scope| {
            let list = scope.spawn(move || rig.get(&format!("/live/news/720p.m3u8?_HLS_msn={msn}&_HLS_part={part}")));
            let media = scope.spawn(move || rig.get(&media));
            until("the viewer waits", || output.facts().waiting >= before + 2);
            let start = SystemClock::mono();
            self.air.part();
            assert_eq!((list.join().unwrap().status, media.join().unwrap().status), (200, 200));
            since(start)
        });
        self.parts += 1;
        assert!(took < Duration::from_secs(5), "a viewer had to wait {took:?} for a part that was there");
    }

    /// Watches until `over`, for a minute at most.
    fn watch_until(&mut self, what: &str, mut over: impl FnMut(&Rig) -> bool) {
        let start = SystemClock::mono();
        loop {
            self.watch_a_part();
            if over(&self.rig) {
                return;
            }
            assert!(since(start) < Duration::from_secs(60), "waited in vain: {what}");
        }
    }
}

/// Writes `bytes` again and again until the server has had enough; what it says is read and thrown away.
fn flood(mut stream: TcpStream, bytes: &[u8]) {
    let mut reader = stream.try_clone().unwrap();
    let drain = std::thread::spawn(move || {
        let mut sink = [0; 64 << 10];
        while reader.read(&mut sink).is_ok_and(|n| n > 0) {}
    });
    // 1 GiB would be no limit at all.
    for _ in 0..(1 << 30) / bytes.len() {
        if stream.write_all(bytes).is_err() {
            break;
        }
    }
    drop(stream.shutdown(std::net::Shutdown::Both));
    drain.join().unwrap();
}

#[test]
fn one_address_takes_no_more_than_its_share_and_others_are_served() {
    let mut beside =
        Beside::new(Options { connections_per_address: 4, trusted: Networks::none(), ..Options::default() });
    let (address, before) = (beside.rig.address, ended("address"));
    let held: Vec<TcpStream> = (0..4).map(|_| connect_from([127, 0, 0, 9], address)).collect();
    until("four are open", || beside.rig.server().connections() == 4);
    let mut fifth = connect_from([127, 0, 0, 9], address);
    let mut text = String::new();
    fifth.read_to_string(&mut text).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 429 Too Many Requests\r\n") && text.contains("\r\nRetry-After: 1\r\n"),
        "{text}"
    );
    assert_eq!(ended("address"), before + 1);
    beside.watch_a_part();
    drop(held);
    until("places come back", || beside.rig.server().connections() == 0);
    let mut again = connect_from([127, 0, 0, 9], address);
    again.write_all(b"GET /live/news/720p.m3u8 HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    again.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.0 200 "), "{text}");
}

#[test]
fn a_rapid_reset_ends_its_connection() {
    let mut beside = Beside::new(Options::default());
    let before = ended("http2_abuse");
    let mut stream = beside.rig.connect();
    greet(&mut stream, &[]);
    let storm: Vec<u8> = (0..100)
        .flat_map(|n| [frames::get(2 * n + 1, "/live/news/720p.m3u8"), frames::reset(2 * n + 1)].concat())
        .collect();
    stream.write_all(&storm).unwrap();
    beside.watch_until("the storm is ended", |_| ended("http2_abuse") > before);
    until("its connection is gone", || beside.rig.server().connections() == 0);
}

#[test]
fn requests_that_are_begun_and_given_up_all_the_time_end_their_connection() {
    // None is forgotten: how fast they come does not matter.
    let patience = Patience { given_up_each_look: 0, ..Patience::default() };
    let mut beside = Beside::new(Options { patience, ..Options::default() });
    let before = ended("resets");
    let mut stream = beside.rig.connect();
    greet(&mut stream, &[]);
    assert!(catch_up(&mut stream));
    let path = format!("/live/news/720p.m3u8?_HLS_msn={}", MSN0 + 2);
    let output = beside.air.session.rendition("720p").unwrap();
    let rig = &beside.rig;
    let settled = |waiting| {
        until("they are looked at", || output.facts().waiting == waiting || rig.server().connections() == 0);
        rig.server().connections() > 0
    };
    let mut number = 1;
    // Ten at a time, and only when the ten before wait: below every limit of HTTP/2 itself.
    let gone = (0..5_000).any(|_| {
        let asked: Vec<u32> = (0..10).map(|n| number + 2 * n).collect();
        number += 20;
        let begun: Vec<u8> = asked.iter().flat_map(|n| frames::get(*n, &path)).collect();
        let given_up: Vec<u8> = asked.iter().flat_map(|n| frames::reset(*n)).collect();
        stream.write_all(&begun).is_err() || !settled(10) || stream.write_all(&given_up).is_err() || !settled(0)
    });
    assert!(gone && number > 2_000, "after {} requests", number / 2);
    assert!(ended("resets") > before);
    beside.watch_a_part();
}

#[test]
fn floods_of_frames_that_ask_for_nothing_end_their_connections() {
    let mut beside = Beside::new(Options::default());
    let before = ended("input_flood");
    let pings = frame(PING, 0, 0, b"pingpong").repeat(500);
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 50]).repeat(500);
    const WINDOW_UPDATE: u8 = 8;
    let windows = frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).repeat(500);
    let floods: Vec<_> = [pings, settings, windows]
        .into_iter()
        .map(|bytes| {
            let mut stream = beside.rig.connect();
            greet(&mut stream, &[]);
            // A request that waits all the while hides nothing.
            stream.write_all(&frames::get(1, &format!("/live/news/360p.m3u8?_HLS_msn={}", MSN0 + 2))).unwrap();
            std::thread::spawn(move || flood(stream, &bytes))
        })
        .collect();
    beside.watch_until("all three are ended", |_| floods.iter().all(|flood| flood.is_finished()));
    assert!(ended("input_flood") >= before + 3);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
}

#[test]
fn a_flood_of_pings_whose_answers_nobody_reads_ends_its_connection() {
    let mut beside = Beside::new(patient());
    let before = ended("write_stall") + ended("input_flood");
    let mut stream = beside.rig.connect();
    greet(&mut stream, &[]);
    let pings = frame(PING, 0, 0, b"pingpong").repeat(1_000);
    let flood = std::thread::spawn(move || while stream.write_all(&pings).is_ok() {});
    beside.watch_until("it is ended", |_| ended("write_stall") + ended("input_flood") > before);
    flood.join().unwrap();
}

#[test]
fn headers_without_end_end_their_connection() {
    let mut beside = Beside::new(Options::default());
    let mut stream = beside.rig.connect();
    greet(&mut stream, &[]);
    const CONTINUATION: u8 = 9;
    // A field of 12 KiB in each frame, never the last one.
    let mut field = b"\x00\x01x\x7f\x81\x5f".to_vec();
    field.extend([b'a'; 12_288]);
    stream.write_all(&frame(HEADERS, 0, 1, &field)).unwrap();
    let more = frame(CONTINUATION, 0, 1, &field);
    let flood = std::thread::spawn(move || flood(stream, &more));
    beside.watch_until("it is ended", |rig| rig.server().connections() == 0);
    flood.join().unwrap();
}

#[test]
fn a_stream_whose_window_never_opens_is_given_up_and_its_media_with_it() {
    let _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
    let mut beside = Beside::alone(patient());
    let before = ended("slow_reader");
    let mut stream = beside.rig.connect();
    const INITIAL_WINDOW_SIZE: u16 = 4;
    greet(&mut stream, &[(INITIAL_WINDOW_SIZE, 0)]);
    let segment = beside.air.media(&format!("s{MSN0}.m4s"));
    stream.write_all(&[frames::get(1, &segment), frames::get(3, "/live/news/720p.m3u8")].concat()).unwrap();
    until("the segment waits for a window", || beside.rig.server().held_bytes() > 500_000);
    // It answers every ping: it is there, and it takes nothing.
    beside.watch_until("it is ended", |_| !catch_up(&mut stream) || ended("slow_reader") > before);
    assert_eq!(ended("slow_reader"), before + 1);
    until("its memory comes back", || beside.rig.server().held_bytes() == 0);
}

#[test]
fn more_streams_than_are_allowed_wait_for_nobody() {
    let mut beside = Beside::new(Options::default());
    let output = beside.air.session.rendition("720p").unwrap();
    let mut stream = beside.rig.connect();
    greet(&mut stream, &[]);
    let path = format!("/live/news/720p.m3u8?_HLS_msn={}", MSN0 + 2);
    let many: Vec<u8> = (0..200).flat_map(|n| frames::get(2 * n + 1, &path)).collect();
    stream.write_all(&many).unwrap();
    assert!(catch_up(&mut stream), "too many streams are refused one by one");
    until("as many wait as may", || output.facts().waiting == 32);
    beside.watch_a_part();
}

#[test]
fn heads_and_bodies_that_come_byte_by_byte_end_their_connections() {
    let mut beside = Beside::new(patient());
    let (heads, silent) = (ended("slow_request"), ended("no_request"));
    let head =
        b"GET /live/news/720p.m3u8 HTTP/1.1\r\nHost: test\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let whole = b"GET /live/news/720p.m3u8 HTTP/1.1\r\nHost: test\r\n\r\n";
    let body = b"POST /live/news/720p.m3u8 HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n";
    let mut slow: Vec<(TcpStream, usize)> = Vec::new();
    for n in 0..60 {
        let mut stream = beside.rig.connect();
        match n % 3 {
            // From its first byte on; behind a request that was answered; a body that nobody asked for.
            0 => {}
            1 => stream.write_all(whole).unwrap(),
            _ => stream.write_all(body).unwrap(),
        }
        slow.push((stream, 0));
    }
    beside.watch_until("all are ended", |rig| {
        for (stream, at) in &mut slow {
            // The server may have closed it: that is what is waited for.
            drop(stream.write_all(&head[*at..=*at]));
            *at = (*at + 1).min(head.len() - 1);
        }
        rig.server().connections() == 0
    });
    assert!(ended("no_request") >= silent + 20 && ended("slow_request") >= heads + 20);
}

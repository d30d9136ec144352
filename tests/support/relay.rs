//! Between one publisher and a port: a link with delay, loss, disorder and a rate, which may go dark or change the
//! publisher's address.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::BinaryHeap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rung::time::{Mono, SystemClock};
use rustix::event::{PollFd, PollFlags};

use crate::ports::{ms, timespec};
use crate::random::Random;

/// A link: what it does to datagrams, each way.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    /// Share of lost datagrams, 0 to 1; how many are lost in a row, on average.
    pub(crate) loss: f64,
    pub(crate) burst: f64,
    /// Share of datagrams that come up to 10 ms later than their neighbours.
    pub(crate) reordered: f64,
    /// Bits per second towards the port, with a queue of so long.
    pub(crate) rate: Option<(u64, Duration)>,
    pub(crate) seed: u64,
    /// Which of two kinds a datagram towards the port is; both are counted before any is lost.
    pub(crate) kind: fn(&[u8]) -> Option<usize>,
}

impl Default for Link {
    fn default() -> Link {
        Link { delay: Duration::ZERO, loss: 0.0, burst: 1.0, reordered: 0.0, rate: None, seed: 1, kind: |_| None }
    }
}

/// Between one publisher and a port.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Control {
    stop: AtomicBool,
    /// The port sees the publisher at another address from now on.
    rebind: AtomicBool,
    /// Nothing passes.
    dark: AtomicBool,
    passed: AtomicU64,
    lost: AtomicU64,
    kinds: [AtomicU64; 2],
}

impl Relay {
    pub(crate) fn start(to: SocketAddr, link: Link) -> Relay {
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        near.set_nonblocking(true).unwrap();
        let address = near.local_addr().unwrap();
        let control = Arc::new(Control::default());
        let shared = Arc::clone(&control);
        let thread = std::thread::spawn(move || {
            Carrier {
                near,
                far: upstream(to),
                link,
                control: shared,
                client: None,
                heap: BinaryHeap::new(),
                free: Mono(0),
                losing: [false; 2],
                random: Random(link.seed),
            }
            .run(to);
        });
        Relay { address, control, thread: Some(thread) }
    }

    pub(crate) fn rebind(&self) {
        self.control.rebind.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_dark(&self, dark: bool) {
        self.control.dark.store(dark, Ordering::Relaxed);
    }

    /// Datagrams that passed, and those that were lost.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.control.passed.load(Ordering::Relaxed), self.control.lost.load(Ordering::Relaxed))
    }

    /// Datagrams of each kind.
    pub(crate) fn kinds(&self) -> [u64; 2] {
        self.control.kinds.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the relay's thread panicked");
        }
    }
}

fn upstream(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// A datagram under way: due, a number that keeps the order, towards the port.
type UnderWay = (std::cmp::Reverse<(Mono, u64)>, bool, Vec<u8>);

struct Carrier {
    near: UdpSocket,
    far: UdpSocket,
    link: Link,
    control: Arc<Control>,
    client: Option<SocketAddr>,
    heap: BinaryHeap<UnderWay>,
    /// When the link towards the port has sent what it has.
    free: Mono,
    /// Each way: the last one was lost.
    losing: [bool; 2],
    random: Random,
}

impl Carrier {
    fn run(mut self, to: SocketAddr) {
        let mut number = 0;
        let mut buffer = [0; 2_048];
        while !self.control.stop.load(Ordering::Relaxed) {
            let now = SystemClock::mono();
            if self.control.rebind.swap(false, Ordering::Relaxed) {
                self.far = upstream(to);
            }
            while let Ok((length, from)) = self.near.recv_from(&mut buffer) {
                self.client = Some(from);
                number += 1;
                self.carry(now, number, true, &buffer[..length]);
            }
            while let Ok(length) = self.far.recv(&mut buffer) {
                number += 1;
                self.carry(now, number, false, &buffer[..length]);
            }
            self.deliver(now);
            let due = self.heap.peek().map_or(now + ms(10), |(std::cmp::Reverse((due, _)), ..)| *due);
            let fds = &mut [PollFd::new(&self.near, PollFlags::IN), PollFd::new(&self.far, PollFlags::IN)];
            rustix::event::poll(fds, Some(&timespec(due.min(now + ms(10)) - now))).unwrap();
        }
    }

    fn carry(&mut self, now: Mono, number: u64, up: bool, bytes: &[u8]) {
        if let Some(kind) = (self.link.kind)(bytes).filter(|_| up) {
            self.control.kinds[kind].fetch_add(1, Ordering::Relaxed);
        }
        let lost = self.loses(up);
        let mut at = now;
        let mut full = false;
        if let (true, Some((rate, queue))) = (up, self.link.rate) {
            at = self.free.max(now);
            full = at - now > queue;
            if !full {
                at = at + Duration::from_nanos(bytes.len() as u64 * 8 * 1_000_000_000 / rate);
                self.free = at;
            }
        }
        if lost || full || self.control.dark.load(Ordering::Relaxed) {
            self.control.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.control.passed.fetch_add(1, Ordering::Relaxed);
        let late = if self.random.share() < self.link.reordered { self.random.share() * 0.01 } else { 0.0 };
        let due = at + self.link.delay + Duration::from_secs_f64(late);
        self.heap.push((std::cmp::Reverse((due, number)), up, bytes.to_vec()));
    }

    /// The next one of that direction. A burst goes on with such a chance that it has its length on average.
    fn loses(&mut self, up: bool) -> bool {
        let Link { loss, burst, .. } = self.link;
        let losing = &mut self.losing[usize::from(up)];
        let chance = match *losing && burst > 1.0 {
            true => 1.0 - 1.0 / burst,
            false => loss / burst,
        };
        *losing = self.random.share() < chance;
        *losing
    }

    fn deliver(&mut self, now: Mono) {
        while self.heap.peek().is_some_and(|(std::cmp::Reverse((due, _)), ..)| *due <= now) {
            let (_, up, bytes) = self.heap.pop().unwrap();
            // A port that is gone, or a full socket, loses it as a link would.
            match (up, self.client) {
                (true, _) => drop(self.far.send(&bytes)),
                (false, Some(client)) => drop(self.near.send_to(&bytes, client)),
                (false, None) => {}
            }
        }
    }
}

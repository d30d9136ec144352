//! What is published: a file by its own clock, or what comes through a pipe, over UDP or over SRT.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::ingest::feeder::{Feed, FeedStats, Feeder, Knobs};
use crate::ingest::publish::SourceNews;
use crate::ingest::srt::{self, Input, InputUrl};
use crate::time::{Mono, SystemClock};

const PACKET: usize = 188;
const SYNC: u8 = 0x47;
/// Media that is due within so long is sent together.
const TURN: Duration = Duration::from_millis(2);
/// Bytes that are handed on together.
const BATCH: usize = 64 << 10;
/// Pieces of a pipe that wait; then its writer does.
const PIECES: usize = 16;
/// What an SRT source brought in one turn waits here; what it brings beyond that is dropped and counted.
const TURNS: usize = 512;
/// Bytes asked of the kernel for UDP.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Where the media comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A transport-stream file, paced by its clock.
    File(PathBuf),
    /// Standard input, as it comes.
    Stdin,
    /// Datagrams to this address; a group is joined.
    Udp { address: SocketAddr, rtp: bool },
    /// An encoder that listens or calls.
    Srt(InputUrl),
}

impl Source {
    /// `-`, `udp://[@]ADDRESS:PORT`, `rtp://[@]ADDRESS:PORT`, `srt://…`, else a file.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Source, String> {
        if text.starts_with("srt://") {
            return InputUrl::parse(text).map(Source::Srt);
        }
        let (address, rtp) = match (text, text.strip_prefix("udp://"), text.strip_prefix("rtp://")) {
            ("-", ..) => return Ok(Source::Stdin),
            (_, Some(address), _) => (address, false),
            (.., Some(address)) => (address, true),
            _ => return Ok(Source::File(text.into())),
        };
        let address = address.trim_start_matches('@').trim_end_matches('/');
        let address = match address.strip_prefix(':') {
            Some(port) => format!("0.0.0.0:{port}"),
            None => address.to_owned(),
        };
        let wrong = "write the address to listen on with its port: udp://127.0.0.1:5000, udp://239.0.0.1:5000";
        address.parse().map(|address| Source::Udp { address, rtp }).map_err(|_| wrong.to_owned())
    }

    pub(super) fn name(&self) -> PathBuf {
        match self {
            Source::File(path) => path.clone(),
            Source::Stdin => "standard input".into(),
            Source::Udp { address, rtp } => format!("{}://{address}", if *rtp { "rtp" } else { "udp" }).into(),
            Source::Srt(url) => url.to_string().into(),
        }
    }
}

/// A source that was opened.
pub(super) struct Intake {
    kind: Kind,
    stats: FeedStats,
}

enum Kind {
    File(Box<Feeder>),
    Pipe { pieces: mpsc::Receiver<io::Result<Bytes>>, packets: Packets },
    Udp { socket: UdpSocket, rtp: bool, buffer: Box<[u8]> },
    Srt { turns: mpsc::Receiver<Bytes>, packets: Packets, overflowed: Arc<AtomicU64>, _input: Input },
}

impl Intake {
    /// Within a runtime. `tell` hears of an SRT source on that one's thread.
    ///
    /// # Errors
    /// That of the file or socket.
    pub(super) fn open(
        source: &Source,
        looping: bool,
        knobs: Knobs,
        seed: u64,
        tell: impl Fn(SourceNews) + Send + 'static,
    ) -> io::Result<Intake> {
        let kind = match source {
            Source::File(path) => Kind::File(Box::new(Feeder::open(path, looping, knobs, seed)?)),
            Source::Stdin => Kind::Pipe { pieces: pipe(io::stdin())?, packets: Packets::default() },
            Source::Udp { address, rtp } => {
                let buffer = vec![0; 65_536].into_boxed_slice();
                Kind::Udp { socket: UdpSocket::from_std(listen(*address)?)?, rtp: *rtp, buffer }
            }
            Source::Srt(url) => srt_input(url, tell)?,
        };
        Ok(Intake { kind, stats: FeedStats::default() })
    }

    /// A file waits for its first reader; others run.
    pub(super) fn runs(&self) -> bool {
        match &self.kind {
            Kind::File(feeder) => feeder.stats().payloads > 0,
            _ => true,
        }
    }

    /// It comes and goes by itself: there is nothing to publish before it sends.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.kind, Kind::Srt { .. })
    }

    pub(super) fn stats(&self) -> FeedStats {
        match &self.kind {
            Kind::File(feeder) => feeder.stats(),
            Kind::Srt { overflowed, .. } => {
                FeedStats { dropped: self.stats.dropped + overflowed.load(Ordering::Relaxed), ..self.stats }
            }
            _ => self.stats,
        }
    }

    /// The next media, whole packets; `None`: it has ended. May be dropped and called again.
    ///
    /// # Errors
    /// That of the file or socket.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let media = match &mut self.kind {
            Kind::File(feeder) => return from_file(feeder).await,
            Kind::Pipe { pieces, packets } => loop {
                let Some(piece) = pieces.recv().await else { break None };
                let media = packets.take(&piece?);
                if !media.is_empty() {
                    break Some(media);
                }
            },
            Kind::Srt { turns, packets, .. } => loop {
                let Some(turn) = turns.recv().await else { break None };
                let media = packets.take(&turn);
                if !media.is_empty() {
                    break Some(media);
                }
            },
            Kind::Udp { socket, rtp, buffer } => loop {
                let length = socket.recv(buffer).await?;
                let media = if *rtp { rtp_payload(&buffer[..length]) } else { &buffer[..length] };
                let whole = media.len() / PACKET * PACKET;
                if whole > 0 && media[0] == SYNC {
                    break Some(Bytes::copy_from_slice(&media[..whole]));
                }
                self.stats.dropped += 1;
            },
        };
        if let Some(media) = &media {
            self.stats.payloads += 1;
            self.stats.bytes += media.len() as u64;
        }
        Ok(media)
    }
}

/// Everything that is due, at least something.
async fn from_file(feeder: &mut Feeder) -> io::Result<Option<Bytes>> {
    let mut due = BytesMut::new();
    loop {
        let now = SystemClock::mono();
        let (until, ended): (Mono, bool) = loop {
            match feeder.next(now)? {
                Feed::Payload(bytes) => due.extend_from_slice(bytes),
                Feed::Later(at) => break (at, false),
                Feed::End => break (now, true),
            }
            if due.len() >= BATCH {
                break (now, false);
            }
        };
        if !due.is_empty() {
            return Ok(Some(due.freeze()));
        }
        if ended {
            return Ok(None);
        }
        sleep((until - now).max(TURN)).await;
    }
}

fn srt_input(url: &InputUrl, tell: impl Fn(SourceNews) + Send + 'static) -> io::Result<Kind> {
    let (sender, turns) = mpsc::channel(TURNS);
    let overflowed = Arc::new(AtomicU64::new(0));
    let lost = Arc::clone(&overflowed);
    let input = Input::open(url, move |what| match what {
        srt::Intake::Media(turn) => {
            if sender.try_send(turn).is_err() {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        srt::Intake::News(news) => tell(news),
    })?;
    Ok(Kind::Srt { turns, packets: Packets::default(), overflowed, _input: input })
}

/// What a pipe brings, read on a thread of its own: reading it may wait for ever.
fn pipe(mut from: impl Read + Send + 'static) -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let read = move || {
        let mut buffer = vec![0; BATCH];
        loop {
            let piece = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    };
    std::thread::Builder::new().name("pipe".into()).spawn(read)?;
    Ok(pieces)
}

fn listen(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.ip().is_multicast() {
        // Others on this machine may listen to the group too.
        socket.set_reuse_address(true)?;
    }
    // What the kernel does not grant only makes bursts risky.
    drop(socket.set_recv_buffer_size(RECEIVE_BUFFER));
    socket.bind(&address.into())?;
    match address.ip() {
        IpAddr::V4(group) if group.is_multicast() => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?,
        IpAddr::V6(group) if group.is_multicast() => socket.join_multicast_v6(&group, 0)?,
        _ => {}
    }
    Ok(socket.into())
}

/// Behind its header: RFC 3550, section 5.1. Empty for what is no RTP packet.
pub(super) fn rtp_payload(packet: &[u8]) -> &[u8] {
    let Some((&first, rest)) = packet.split_first() else { return &[] };
    if first >> 6 != 2 || rest.len() < 11 {
        return &[];
    }
    let mut start = 12 + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let Some(words) = packet.get(start + 2..start + 4) else { return &[] };
        start += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    let padding = if first & 0x20 != 0 { usize::from(*packet.last().unwrap_or(&0)) } else { 0 };
    packet.get(start..packet.len().saturating_sub(padding)).unwrap_or(&[])
}

/// Whole packets out of a stream of bytes that may begin anywhere.
#[derive(Default)]
pub(super) struct Packets {
    rest: BytesMut,
    /// The last packet was followed by another one.
    locked: bool,
}

impl Packets {
    /// The packets that are whole now.
    pub(super) fn take(&mut self, piece: &[u8]) -> Bytes {
        self.rest.extend_from_slice(piece);
        let (mut out, mut at) = (BytesMut::new(), 0);
        while let Some(packet) = self.rest.get(at..at + PACKET) {
            let next = self.rest.get(at + PACKET).map(|next| *next == SYNC);
            if packet[0] == SYNC && !self.locked && next.is_none() {
                break;
            }
            // A sync byte counts if another one follows where it should; behind one that did it need not be there yet.
            if packet[0] == SYNC && next != Some(false) {
                self.locked = true;
                out.extend_from_slice(packet);
                at += PACKET;
            } else {
                self.locked = false;
                at += memchr::memchr(SYNC, &packet[1..]).map_or(PACKET, |found| found + 1);
            }
        }
        drop(self.rest.split_to(at));
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(n: u8) -> Vec<u8> {
        [vec![SYNC, n], vec![n; PACKET - 2]].concat()
    }

    #[test]
    fn a_source_is_a_file_a_pipe_or_an_address_to_listen_on() {
        let udp = |text: &str, rtp| Source::Udp { address: text.parse().unwrap(), rtp };
        for (text, want) in [
            ("-", Source::Stdin),
            ("a/clip.ts", Source::File("a/clip.ts".into())),
            ("udp://127.0.0.1:5000", udp("127.0.0.1:5000", false)),
            ("udp://@239.1.2.3:5000/", udp("239.1.2.3:5000", false)),
            ("rtp://:5004", udp("0.0.0.0:5004", true)),
            ("rtp://[::1]:5004", udp("[::1]:5004", true)),
        ] {
            assert_eq!(Source::parse(text), Ok(want), "{text}");
        }
        let srt = "srt://encoder:9000?latency=300";
        assert_eq!(Source::parse(srt), Ok(Source::Srt(InputUrl::parse(srt).unwrap())));
        assert!(Source::parse("srt://encoder").unwrap_err().contains("needs a port"));
        assert!(Source::parse("udp://nowhere").unwrap_err().contains("udp://127.0.0.1:5000"));
    }

    #[test]
    fn a_pipe_gives_whole_packets_wherever_it_is_cut_and_whatever_lies_between() {
        let stream = [vec![1, SYNC, 3], packet(1), packet(2), vec![9; 77], packet(3), packet(4)].concat();
        for cut in [1, 7, 100, 188, 189, 1_000] {
            let mut packets = Packets::default();
            let out: Vec<u8> = stream.chunks(cut).flat_map(|piece| packets.take(piece)).collect();
            let numbers: Vec<u8> = out.chunks(PACKET).map(|packet| packet[1]).collect();
            // Packet 2 is followed by garbage: only where the cut hid that is it believed. No other follows 4.
            assert!(matches!(numbers[..], [1, 3, 4] | [1, 2, 3, 4]), "{cut}: {numbers:?}");
            assert!(packets.rest.len() <= PACKET);
        }
    }

    #[test]
    fn rtp_headers_of_every_length_are_taken_off() {
        let media = [packet(1), packet(2)].concat();
        let plain = [vec![0x80, 33], vec![0; 10], media.clone()].concat();
        let csrc = [vec![0x82, 33], vec![0; 18], media.clone()].concat();
        let extension = [vec![0x90, 33], vec![0; 10], vec![0, 0, 0, 2], vec![0; 8], media.clone()].concat();
        let padded = [vec![0xa0, 33], vec![0; 10], media.clone(), vec![0, 0, 0, 4]].concat();
        for packet in [plain, csrc, extension, padded] {
            assert_eq!(rtp_payload(&packet), media);
        }
        for wrong in [&[][..], &[0x80], &[0x47; 200], &[0x9f; 40], &[0xff; 100]] {
            assert!(rtp_payload(wrong).len() < 60, "{wrong:?}");
        }
    }
}

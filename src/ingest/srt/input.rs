//! One SRT source on a thread of its own, for whoever passes its media on: an encoder that listens is called, one that
//! calls is listened for.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use bytes::{Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::port::{Port, PortConfig};
use super::pull_url::PullUrl;
use super::url::SrtUrl;
use crate::ingest::admission::{Admission, Directory, Refusal};
use crate::ingest::event::Event;
use crate::ingest::publish::SourceNews;
use crate::ingest::source::Leg;
use crate::media::channel::{ChannelName, Takeover};
use crate::media::key::{KeyDigest, Passphrase};
use crate::time::SystemClock;

/// The thread looks so often whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
const LISTENER: &str = "mode=listener";
/// The port's only channel; nobody hears of its name.
const NAME: &str = "source";

/// `srt://HOST:PORT?…` of an encoder that listens, or `srt://[ADDRESS]:PORT?mode=listener&…` for one that calls. `Display`
/// shows neither stream id nor passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputUrl(Way);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Call(PullUrl),
    Listen(Box<Listen>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Listen {
    address: SocketAddr,
    latency: Duration,
    passphrase: Option<Passphrase>,
    /// The stream id that a caller has to show; `None`: any.
    stream_id: Option<KeyDigest>,
}

impl InputUrl {
    /// # Errors
    /// A sentence that says what is wrong and what would be right; it never repeats a secret.
    pub fn parse(text: &str) -> Result<InputUrl, String> {
        let (head, query) = text.split_once('?').unwrap_or((text, ""));
        if !query.split('&').any(|pair| pair == LISTENER) {
            return PullUrl::parse(text).map(|url| InputUrl(Way::Call(url)));
        }
        let head = match head.strip_prefix("srt://:") {
            Some(port) => format!("srt://[{}]:{port}", Ipv6Addr::UNSPECIFIED),
            None => head.to_owned(),
        };
        let others: Vec<&str> = query.split('&').filter(|pair| *pair != LISTENER).collect();
        let named = |name: &&str| others.iter().any(|pair| pair.split('=').next() == Some(name));
        if let Some(name) = ["pbkeylen", "kmrefreshrate", "packetfilter"].iter().find(|name| named(name)) {
            return Err(format!("{name} is the caller's choice: leave it out beside mode=listener"));
        }
        let url = SrtUrl::parse(&format!("{head}?{}", others.join("&")))?;
        let ip: Result<IpAddr, _> = url.host.parse();
        let ip = ip.map_err(|_| "with mode=listener the host is an address of this machine, or none: srt://:9000")?;
        let passphrase = url.passphrase.as_ref().map(|text| Passphrase::new(text.expose())).transpose();
        Ok(InputUrl(Way::Listen(Box::new(Listen {
            address: (ip, url.port).into(),
            latency: url.latency,
            passphrase: passphrase.map_err(|what| format!("the passphrase {what}"))?,
            stream_id: Some(url.stream_id.expose()).filter(|id| !id.is_empty()).map(|id| KeyDigest::of(id)),
        }))))
    }

    fn port(&self) -> PortConfig {
        match &self.0 {
            // A meeting is between two ports of one number.
            Way::Call(url) => PortConfig {
                address: (Ipv6Addr::UNSPECIFIED, if url.is_rendezvous() { url.url().port } else { 0 }).into(),
                latency: url.url().latency,
                ..PortConfig::default()
            },
            Way::Listen(listen) => PortConfig {
                address: listen.address,
                latency: listen.latency,
                passphrase: listen.passphrase.clone(),
                only: Some(channel()),
                ..PortConfig::default()
            },
        }
    }
}

impl fmt::Display for InputUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Way::Call(url) => url.fmt(f),
            Way::Listen(listen) => write!(f, "srt://{}?{LISTENER}", listen.address),
        }
    }
}

fn channel() -> ChannelName {
    ChannelName::new(NAME).expect("the name fits the rule")
}

/// Who may come in: whoever is called, or whoever calls and shows the stream id.
struct Only(Way);

impl Directory for Only {
    fn admit(&self, _channel: &str, key: &str, _leg: Leg, _from: IpAddr) -> Result<Admission, Refusal> {
        match &self.0 {
            Way::Listen(listen) if listen.stream_id.is_none_or(|wanted| wanted.matches(key)) => Ok(admission()),
            _ => Err(Refusal::Denied),
        }
    }

    fn admit_source(&self, _channel: &ChannelName, _leg: Leg) -> Result<Admission, Refusal> {
        Ok(admission())
    }
}

fn admission() -> Admission {
    Admission { channel: channel(), takeover: Takeover::IfSilent, passphrase: None, latency: None }
}

/// What an input has for its owner.
#[derive(Debug)]
pub enum Intake {
    Media(Bytes),
    News(SourceNews),
}

/// A source that is received from until this is dropped.
pub struct Input {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
}

impl Input {
    /// `hand_over` is called on the input's thread and must not wait.
    ///
    /// # Errors
    /// A sentence: the port cannot be opened.
    pub fn open(url: &InputUrl, hand_over: impl FnMut(Intake) + Send + 'static) -> io::Result<Input> {
        let mut port = Port::bind(url.port(), Arc::new(Only(url.0.clone())))
            .map_err(|e| io::Error::new(e.kind(), e.to_string()))?;
        let (address, stop) = (port.local_addr()?, Arc::new(AtomicBool::new(false)));
        let called = match &url.0 {
            Way::Call(pull) => {
                port.pull(SystemClock::mono(), &channel(), Some(pull.clone()));
                true
            }
            Way::Listen(_) => false,
        };
        let stopping = Arc::clone(&stop);
        let run = move || receive(port, called, &stopping, hand_over);
        let thread = thread::Builder::new().name("srt-input".into()).spawn(run)?;
        Ok(Input { stop, thread: Some(thread), address })
    }

    /// Where it listens, or calls from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it was its end.
            drop(thread.join());
        }
    }
}

fn receive(mut port: Port, called: bool, stop: &AtomicBool, mut hand_over: impl FnMut(Intake)) {
    let mut told = None;
    while !stop.load(Ordering::Relaxed) {
        wait(&port);
        port.run(SystemClock::mono());
        let mut media = BytesMut::new();
        loop {
            let event = port.poll();
            if let Some(Event::Data { payload, .. }) = &event {
                media.extend_from_slice(payload);
                continue;
            }
            if !media.is_empty() {
                hand_over(Intake::Media(media.split().freeze()));
            }
            let Some(event) = event else { break };
            tell(event, called, &mut told, &mut hand_over);
        }
    }
    port.shutdown(SystemClock::mono());
}

fn wait(port: &Port) {
    let now = SystemClock::mono();
    let span = port.deadline(now).unwrap_or(now + LOOK).min(now + LOOK) - now;
    let limit = Timespec { tv_sec: span.as_secs().cast_signed(), tv_nsec: span.subsec_nanos().into() };
    let fd = port.fd();
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let fds = if port.polls_fd() { &mut fds[..] } else { &mut [] };
    // A signal only makes the turn shorter.
    poll(fds, Some(&limit)).ok();
}

/// An event that is no media. What was told last is not told again: a caller tries again and again.
fn tell(event: Event, called: bool, told: &mut Option<SourceNews>, hand_over: &mut impl FnMut(Intake)) {
    let news = match event {
        Event::Connected(connected) => SourceNews::Up { latency: connected.latency },
        Event::Closed { reason, .. } if !called => SourceNews::Down { why: reason.to_string(), called },
        Event::Refused { code, why, .. } => SourceNews::Refused { code, why },
        Event::Pull(news) if news.changed => match news.status.error {
            Some(why) => SourceNews::Down { why, called },
            None => return,
        },
        // Of a source that is called its pull tells; what overflowed is counted.
        Event::Closed { .. } | Event::Pull(_) | Event::Overflow { .. } | Event::Data { .. } => return,
    };
    if told.as_ref() != Some(&news) {
        *told = Some(news.clone());
        hand_over(Intake::News(news));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::super::publish::Publish;
    use super::*;
    use crate::ingest::publish::{PublishEnd, PublishEvent};

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn an_address_is_one_to_call_or_one_to_listen_on() {
        let listen = |text: &str| match InputUrl::parse(text).unwrap().0 {
            Way::Listen(listen) => *listen,
            Way::Call(url) => panic!("{url}"),
        };
        let any = listen("srt://:9000?mode=listener&passphrase=planted secret&latency=300");
        assert_eq!((any.address.to_string().as_str(), any.latency.as_millis()), ("[::]:9000", 300));
        assert!(any.passphrase.is_some() && any.stream_id.is_none());
        let one = listen("srt://192.0.2.1:9000?streamid=planted&mode=listener");
        assert!(one.address.to_string() == "192.0.2.1:9000" && one.stream_id.unwrap().matches("planted"));
        for (text, shown) in [
            ("srt://:9000?mode=listener&passphrase=planted secret", "srt://[::]:9000?mode=listener"),
            ("srt://cam:9000?passphrase=planted secret", "srt://cam:9000?passphrase=**********"),
            ("srt://cam:9000?mode=caller&latency=90", "srt://cam:9000?mode=caller&latency=90"),
        ] {
            let url = InputUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("planted"), "{url:?}");
        }
    }

    #[test]
    fn what_is_no_source_is_a_sentence_without_secrets() {
        for (text, want) in [
            ("srt://:9000", "needs a host"),
            ("srt://:0?mode=listener", "needs a port"),
            ("srt://cam:9000?mode=listener", "an address of this machine, or none"),
            ("srt://:9000?mode=listener&pbkeylen=32", "pbkeylen is the caller's choice"),
            ("srt://:9000?mode=listener&packetfilter=fec,cols:10", "packetfilter is the caller's choice"),
            ("srt://:9000?mode=listener&latenzy=1", "unknown SRT option"),
        ] {
            let text = format!("{text}{}passphrase=planted secret", if text.contains('?') { '&' } else { '?' });
            let error = InputUrl::parse(&text).unwrap_err();
            assert!(error.contains(want) && !error.contains("planted"), "{text}: {error}");
        }
    }

    fn open(stream_id: Option<&str>) -> (Input, Receiver<Intake>) {
        let (sender, taken) = sync_channel(1_024);
        let url = InputUrl(Way::Listen(Box::new(Listen {
            address: "127.0.0.1:0".parse().unwrap(),
            latency: Duration::from_millis(120),
            passphrase: Some(Passphrase::new("a long passphrase").unwrap()),
            stream_id: stream_id.map(KeyDigest::of),
        })));
        (Input::open(&url, move |what| drop(sender.send(what))).unwrap(), taken)
    }

    /// Calls the input with these options and sends `payloads` once connected; how that ended.
    fn publish(input: &Input, options: &str, payloads: u8) -> PublishEnd {
        let url = SrtUrl::parse(&format!("srt://{}?{options}", input.address())).unwrap();
        let begin = SystemClock::mono();
        let mut publish = Publish::connect(begin, &url, input.address()).unwrap();
        loop {
            let now = SystemClock::mono();
            assert!(now - begin < LIMIT);
            publish.run(now);
            match publish.poll() {
                Some(PublishEvent::Connected { .. }) => {
                    (0..payloads).for_each(|n| assert_eq!(publish.send(now, &[n; 188]), 0));
                }
                Some(PublishEvent::Closed(end)) => return end,
                None if publish.is_connected() && publish.stats().waiting == 0 => publish.finish(now),
                None => {
                    poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 2_000_000 })).ok();
                }
            }
        }
    }

    #[test]
    fn one_caller_is_received_from_whatever_its_stream_id_unless_one_is_asked_for() {
        let secret = "passphrase=a long passphrase";
        for (wanted, wrong) in [
            (None, "streamid=x&passphrase=another passphrase"),
            (Some("cam/1"), "streamid=x&passphrase=a long passphrase"),
        ] {
            let (input, taken) = open(wanted);
            let end = publish(&input, wrong, 1);
            assert!(matches!(end, PublishEnd::Refused(10 | 1401)), "{end}");
            assert_eq!(publish(&input, wrong, 1), end);
            let stream_id = wanted.map_or_else(String::new, |id| format!("streamid={id}&"));
            for _ in 0..2 {
                assert_eq!(publish(&input, &format!("{stream_id}{secret}"), 50), PublishEnd::Finished);
            }
            let (mut media, mut news) = (Vec::new(), Vec::new());
            while news.len() < 5 {
                match taken.recv_timeout(LIMIT).unwrap() {
                    Intake::Media(bytes) => media.extend_from_slice(&bytes),
                    Intake::News(said) => news.push(said),
                }
            }
            let numbers: Vec<u8> = media.chunks(188).map(|packet| packet[0]).collect();
            assert!(numbers.iter().copied().eq((0..50).chain(0..50)), "{numbers:?}");
            let (up, down) = (
                SourceNews::Up { latency: Duration::from_millis(120) },
                SourceNews::Down { why: "the publisher finished".into(), called: false },
            );
            assert!(
                matches!(&news[0], SourceNews::Refused { code, .. } if end == PublishEnd::Refused(*code)),
                "{news:?}"
            );
            assert_eq!(news[1..], [up.clone(), down.clone(), up, down], "a refusal is told once");
        }
    }
}

//! The port under attack while two publishers are on air through it: nothing of theirs may be missing, and memory stays
//! bounded. The attacker speaks QUIC with a library and the rest by hand.

use std::future::Future;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, IdleTimeout, SendStream, TransportConfig, VarInt};
use rung::ingest::quic::{ALPN, Answer, BROKEN, Head, Hello, Pin, Source};
use rung::ingest::{Closing, quic};
use rung::telemetry::Redacted;
use rung::time::SystemClock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::time::timeout;

use crate::harness::*;
use crate::place;
use crate::ports::{KEY, ms, pace, resident};
use crate::random::Random;

/// Growth of the process that all phases together may cause, the attacker's own memory with it.
const GROWTH_MAX: u64 = 64 << 20;

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Within a runtime.
fn attacker(alpn: &[u8]) -> Endpoint {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().dangerous();
    let mut tls = builder.with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(20_000))));
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(15), future).await.unwrap_or_else(|_| panic!("within 15 s: {what}"))
}

async fn connect(endpoint: &Endpoint, ports: &TestPorts) -> Connection {
    within("a handshake", endpoint.connect(ports.quic, "x").unwrap()).await.unwrap()
}

fn hello(channel: &str) -> Vec<u8> {
    let key = Redacted::new(KEY.to_owned());
    Hello { name: channel.into(), key, latency_ms: 200, max_bitrate: 4_000_000 }.encode()
}

/// A connection that was let in, and its control stream.
async fn on_air(endpoint: &Endpoint, ports: &TestPorts, channel: &str) -> (Connection, SendStream) {
    let before = ports.look(|seen| seen.connected.len());
    let connection = connect(endpoint, ports).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello(channel)).await.unwrap();
    let answer = within("an answer", recv.read_to_end(2_000)).await.unwrap();
    assert_eq!(Answer::parse(&answer).unwrap().unwrap().code, 0);
    ports.wait("its connection", |seen| seen.connected.get(before).map(|_| ()));
    (connection, send)
}

async fn segment(connection: &Connection, sequence: u64, media: &[u8]) -> SendStream {
    let mut stream = within("a stream", connection.open_uni()).await.unwrap();
    let head = Head { sequence, timestamp_us: sequence.saturating_mul(250_000) };
    stream.write_all(&[head.encode(), media.to_vec()].concat()).await.unwrap();
    stream
}

fn closed_with(error: &quinn::ConnectionError) -> Option<u64> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

#[test]
fn nobody_else_suffers_from_what_one_peer_sends() {
    let ports = TestPorts::open();
    let (file, _) = stream(2_000_000, ms(60_000));
    let live = ["c1", "c2"].map(|channel| {
        let url = ports.url(&format!("{}?latency=1500", place(channel)));
        Pushing::start(options(Source::File(file.path().into()), url))
    });
    for channel in ["c1", "c2"] {
        ports.wait("on air", |seen| seen.tally(channel).filter(|t| t.next > 100).map(|_| ()));
    }
    let before = resident();
    random_datagrams(&ports);
    // Its packets go out on another thread while this one waits for what the ports say.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        unfinished_handshakes(&ports).await;
        other_protocols(&ports).await;
        connections_without_a_hello(&ports).await;
        wrong_hellos(&ports).await;
        thousands_of_streams(&ports).await;
        jumps_of_the_sequence(&ports).await;
        media_that_is_none(&ports).await;
        segments_that_wait_for_ever(&ports).await;
    });
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "grown by {} kB", grown >> 10);
    for channel in ["c1", "c2"] {
        let seen = ports.look(|seen| seen.tally(channel).map(|t| t.next)).unwrap();
        ports.wait("it goes on", |s| s.tally(channel).filter(|t| t.next > seen + 100).map(|_| ()));
    }
    for pushing in live {
        pushing.stop().result.unwrap();
    }
    ports.look(|seen| {
        for channel in ["c1", "c2"] {
            let tally = seen.tally(channel).unwrap();
            assert_eq!((tally.missing, tally.corrupt), (0, 0), "{channel}");
            assert_eq!(seen.connected.iter().filter(|c| c.channel.as_str() == channel).count(), 1);
        }
    });
}

/// Some look like QUIC's first packets, some like later ones.
fn random_datagrams(ports: &TestPorts) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(ports.quic).unwrap();
    let mut random = Random(5);
    for n in 0..20_000_u32 {
        let length = 1 + random.below(1_400);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        match n % 4 {
            0 => bytes.splice(..bytes.len().min(5), [0xc3, 0, 0, 0, 1]).for_each(drop),
            1 => bytes[0] = 0x40 | bytes[0] & 0x3f,
            _ => {}
        }
        socket.send(&bytes).ok();
        if n.is_multiple_of(64) {
            pace(ms(1));
        }
    }
}

async fn unfinished_handshakes(ports: &TestPorts) {
    for _ in 0..10 {
        let endpoint = attacker(ALPN);
        for _ in 0..30 {
            let connecting = endpoint.connect(ports.quic, "x").unwrap();
            // Its first packet goes out; then nobody is there any more.
            drop(timeout(Duration::from_millis(1), connecting).await);
        }
    }
}

async fn other_protocols(ports: &TestPorts) {
    let endpoint = attacker(b"h3");
    let error = within("a refusal", endpoint.connect(ports.quic, "x").unwrap()).await.unwrap_err();
    assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(_)), "{error}");
}

/// There may be so many from one address, and each has four seconds.
async fn connections_without_a_hello(ports: &TestPorts) {
    let begin = SystemClock::mono();
    let endpoint = attacker(ALPN);
    let connecting = (0..60).map(|_| timeout(Duration::from_secs(2), endpoint.connect(ports.quic, "x").unwrap()));
    let connecting = futures_util::future::join_all(connecting).await;
    let connections: Vec<Connection> = connecting.into_iter().filter_map(|c| c.ok()?.ok()).collect();
    assert!((1..=32).contains(&connections.len()), "{} of 60", connections.len());
    // Half of them say a part of it, and one opens streams for media.
    for connection in connections.iter().step_by(2) {
        let (mut send, _) = connection.open_bi().await.unwrap();
        send.write_all(&hello("c3")[..3]).await.unwrap();
        assert!(timeout(Duration::from_millis(1), connection.open_uni()).await.is_err(), "no stream before a hello");
    }
    for connection in &connections {
        assert_eq!(closed_with(&within("its end", connection.closed()).await), Some(BROKEN.into()));
    }
    assert!(SystemClock::mono() - begin < Duration::from_secs(10));
    assert!(ports.look(|seen| seen.counters.no_hello) >= connections.len() as u64);
}

async fn wrong_hellos(ports: &TestPorts) {
    let endpoint = attacker(ALPN);
    let huge = [&[1, 0xc0, 0, 0, 0, 1, 0, 0, 0][..], &[b'a'; 4_000]].concat();
    let lying = vec![1, 5, 60, b'a', b'b', b'c', b'd'];
    for wrong in [huge, lying, vec![0xff; 3_000], vec![1, 4, 1, 0xff, 0, 0, 0]] {
        let connection = connect(&endpoint, ports).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&wrong).await.unwrap();
        assert_eq!(
            closed_with(&within("its end", connection.closed()).await),
            Some(BROKEN.into()),
            "{:?}",
            &wrong[..7]
        );
    }
    let connection = connect(&endpoint, ports).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let mut later = hello("c3");
    later[0] = 9;
    send.write_all(&later).await.unwrap();
    let answer = within("an answer", recv.read_to_end(2_000)).await.unwrap();
    let answer = Answer::parse(&answer).unwrap().unwrap();
    assert!(answer.code == 1415 && answer.reason.contains("version 1"), "{answer:?}");
}

async fn thousands_of_streams(ports: &TestPorts) {
    let endpoint = attacker(ALPN);
    let (connection, _control) = on_air(&endpoint, ports, "c3").await;
    let mut open = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(300), connection.open_uni()).await {
        let mut stream = stream.unwrap();
        // A stream is only there once it says something; this is half a head.
        stream.write_all(&[0x80]).await.unwrap();
        open.push(stream);
        assert!(open.len() <= 64, "more than may come side by side");
    }
    assert_eq!(open.len(), 64);
    for mut stream in open {
        stream.reset(VarInt::from_u32(7)).unwrap();
    }
    for n in 0..3_000 {
        let mut stream = within("a stream", connection.open_uni()).await.unwrap();
        stream.write_all(&[n as u8 & 0x3f]).await.unwrap();
        stream.reset(VarInt::from_u32(1)).unwrap();
    }
    connection.close(VarInt::from_u32(0), b"");
    within("the last word", endpoint.wait_idle()).await;
    assert_eq!(ports.wait("its end", |seen| seen.end("c3").map(|(why, _)| why)), Closing::Finished);
}

async fn jumps_of_the_sequence(ports: &TestPorts) {
    let endpoint = attacker(ALPN);
    for far in [100_000, u64::MAX >> 2] {
        let (connection, _control) = on_air(&endpoint, ports, "c3").await;
        drop(segment(&connection, 0, &numbered(0)).await);
        drop(segment(&connection, far, &numbered(1)).await);
        assert_eq!(closed_with(&within("its end", connection.closed()).await), Some(BROKEN.into()));
        let publisher = ports.look(|seen| seen.on("c3").unwrap().publisher);
        let ended = |seen: &Seen| seen.closed.iter().find(|(id, ..)| *id == publisher).map(|(_, why, _)| *why);
        assert_eq!(ports.wait("its end", ended), Closing::Broken);
    }
    // Near ones are holes; what comes twice or behind is stopped.
    let (connection, mut control) = on_air(&endpoint, ports, "c3").await;
    for (sequence, number) in [(0, 0), (40, 1), (41, 2)] {
        drop(segment(&connection, sequence, &numbered(number)).await);
    }
    ports.wait("over the hole", |seen| seen.tally("c3").filter(|t| t.next == 3).map(|_| ()));
    let behind = segment(&connection, 7, &numbered(9)).await;
    assert_eq!(within("a stop", behind.stopped()).await.unwrap(), Some(VarInt::from_u32(quic::LATE)));
    let open = segment(&connection, 42, &numbered(3)).await;
    let twice = segment(&connection, 42, &numbered(3)).await;
    let stop = Some(VarInt::from_u32(quic::REPEATED));
    let stopped = tokio::select! { one = open.stopped() => one, two = twice.stopped() => two };
    assert_eq!(stopped.unwrap(), stop, "one of the two");
    drop((open, twice));
    control.finish().unwrap();
    within("its end", connection.closed()).await;
    let publisher = ports.look(|seen| seen.on("c3").unwrap().publisher);
    ports.wait("its end", |seen| seen.closed.iter().find(|(id, ..)| *id == publisher).map(|_| ()));
    ports.look(|seen| {
        let (why, stats) = seen.end("c3").unwrap();
        assert_eq!((why, stats.dropped, stats.belated, stats.duplicates), (Closing::Finished, 39, 1, 1), "{stats:?}");
        assert_eq!(seen.tally("c3").unwrap().next, 4);
    });
}

async fn media_that_is_none(ports: &TestPorts) {
    let endpoint = attacker(ALPN);
    let (connection, mut control) = on_air(&endpoint, ports, "c4").await;
    let mut random = Random(11);
    for sequence in 0..40 {
        let media: Vec<u8> = (0..20_000).map(|_| random.next() as u8).collect();
        drop(segment(&connection, sequence, &media).await);
    }
    control.finish().unwrap();
    assert_eq!(closed_with(&within("its end", connection.closed()).await), Some(0));
    ports.wait("its end", |seen| seen.end("c4").map(|_| ()));
    ports.look(|seen| {
        assert_eq!(seen.tally("c4").unwrap().bytes, 40 * (20_000 / 188 * 188), "whole packets, as many as fit")
    });
}

/// Segments behind one that never comes, as fast as they are taken: they push it over.
async fn segments_that_wait_for_ever(ports: &TestPorts) {
    let endpoint = attacker(ALPN);
    let (connection, _control) = on_air(&endpoint, ports, "c5").await;
    let media = vec![0x47; 188 * 5_000];
    let head = Head { sequence: 0, timestamp_us: 0 };
    let mut first = connection.open_uni().await.unwrap();
    first.write_all(&head.encode()).await.unwrap();
    for sequence in 1..30 {
        let head = Head { sequence, timestamp_us: 3_600_000_000 * 24 };
        let mut stream = within("a stream", connection.open_uni()).await.unwrap();
        let bytes = [head.encode(), media.clone()].concat();
        if sequence % 2 == 1 {
            // It stays open: it is never whole.
            within("room", stream.write_all(&bytes)).await.ok();
            std::mem::forget(stream);
        } else {
            within("room", stream.write_all(&bytes)).await.ok();
        }
    }
    let publisher = ports.look(|seen| seen.on("c5").unwrap().publisher);
    connection.close(VarInt::from_u32(9), b"");
    within("the last word", endpoint.wait_idle()).await;
    let ended =
        |seen: &Seen| seen.closed.iter().find(|(id, ..)| *id == publisher).map(|(_, why, stats)| (*why, stats.clone()));
    let (why, stats) = ports.wait("its end", ended);
    assert!(why == Closing::Silent && stats.dropped > 10 && stats.received_bytes > 10_000_000, "{why} {stats:?}");
}

#[test]
fn what_is_denied_is_answered_after_the_same_time_whatever_was_wrong() {
    let ports = TestPorts::open();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = attacker(ALPN);
        for (name, key, code, least) in [
            ("c1", "wrong", 1401, ms(100)),
            ("nobody", KEY, 1401, ms(100)),
            ("", "", 1401, ms(100)),
            ("c8", KEY, 1403, ms(0)),
        ] {
            let connection = connect(&endpoint, &ports).await;
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            let key = Redacted::new(key.to_owned());
            let hello = Hello { name: name.into(), key, latency_ms: 1, max_bitrate: 0 }.encode();
            let asked = SystemClock::mono();
            send.write_all(&hello).await.unwrap();
            let answer = within("an answer", recv.read_to_end(2_000)).await.unwrap();
            let took = SystemClock::mono() - asked;
            assert_eq!(Answer::parse(&answer).unwrap().unwrap().code, code);
            assert!(took >= least, "{name} {code}: {took:?}");
            let code = closed_with(&within("its end", connection.closed()).await);
            assert_eq!(code, Some(if name == "c8" { 1403 } else { 1401 }));
        }
    });
}

#[test]
fn a_pin_is_of_the_certificate_that_is_shown() {
    let ports = TestPorts::open();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let connection = connect(&attacker(ALPN), &ports).await;
        let shown = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
        assert_eq!(Pin::of(&shown[0]), ports.pin);
    });
}

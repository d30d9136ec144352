//! HTTPS seen from outside: the same site as in the clear, in every version and protocol that players speak; certificates
//! by name and by reload; handshakes that never end. Method: certificates are made for each test, the clients are rustls
//! and curl, and nothing is trusted but what the test says.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/on_air.rs"]
mod on_air;
#[path = "support/served.rs"]
mod served;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use on_air::{MSN0, OnAir};
use rcgen::{CertificateParams, KeyPair};
use rung::media::modes::LatencyMode;
use rung::serve::connection::Patience;
use rung::serve::{Options, Pair, Tls};
use rung::time::SystemClock;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use served::{METRICS, Reply, Rig, loopback, quick, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Certificates of a test, as files.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new key and a certificate of its own for `hosts`, in place of those there.
    fn make(&self, name: &str, hosts: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let certificate = CertificateParams::new(hosts).unwrap().self_signed(&key).unwrap();
        let pair = Pair { certificate: self.at(&format!("{name}.pem")), key: self.at(&format!("{name}.key")) };
        write(&pair.key, &key.serialize_pem());
        write(&pair.certificate, &certificate.pem());
        pair
    }
}

/// As a renewal does it: another file in place of the one before.
fn write(file: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = file.with_extension("new");
    let mut open =
        std::fs::OpenOptions::new().mode(0o600).create(true).truncate(true).write(true).open(&fresh).unwrap();
    open.write_all(text.as_bytes()).unwrap();
    std::fs::rename(fresh, file).unwrap();
}

/// The metrics of certificates are those of the whole process: a test that reads them runs alone.
static ALONE: RwLock<()> = RwLock::new(());

/// A server with a secure door beside its plain one.
struct Secured {
    rig: Rig,
    tls: Arc<Tls>,
    address: SocketAddr,
    _beside: Option<RwLockReadGuard<'static, ()>>,
}

fn secured(air: &OnAir, pairs: Vec<Pair>, options: Options) -> Secured {
    let beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    Secured { _beside: Some(beside), ..secured_alone(air, pairs, options) }
}

/// For whoever has `ALONE`.
fn secured_alone(air: &OnAir, pairs: Vec<Pair>, options: Options) -> Secured {
    let rig = Rig::patient(air, options);
    let tls = Arc::new(Tls::looking_every(pairs, Duration::from_millis(20)).unwrap());
    let address = rig.runtime.block_on(async { rig.server().secure(loopback(), &tls) }).unwrap();
    Secured { rig, tls, address, _beside: None }
}

/// A client that believes `certificate` and nothing else.
fn client(certificate: &Path, protocols: &[&str], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

async fn open(
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    host: &str,
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let stream = tokio::net::TcpStream::connect(to).await?;
    TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from(host.to_owned()).unwrap(), stream).await
}

async fn h1_get(stream: &mut TlsStream<tokio::net::TcpStream>, path: &str) -> Reply {
    let text = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    Reply::parse(&all)
}

fn metric(series: &str) -> f64 {
    let text = METRICS.render();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

fn failures(reason: &str) -> f64 {
    metric(&format!("rung_tls_handshake_failures_total{{reason=\"{reason}\"}}"))
}

#[test]
fn the_same_site_is_served_in_every_version_and_protocol() {
    let (mut air, files) = (OnAir::with_frames_of(LatencyMode::Ultra, 20_000), Files::new());
    air.parts(7);
    let pair = files.make("live", &["live.example"]);
    let Secured { rig, address, _beside, .. } = secured(&air, vec![pair.clone()], Options::default());
    let media = air.media(&format!("s{MSN0}.m4s"));
    let (list, segment) = (rig.get("/live/news/720p.m3u8"), rig.get(&media));
    assert!(segment.body.len() > 900_000, "many records");
    rig.runtime.block_on(async {
        for version in [&TLS12, &TLS13] {
            let config = client(&pair.certificate, &["http/1.1"], &[version]);
            let mut stream = open(address, &config, "live.example").await.unwrap();
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            let reply = h1_get(&mut stream, "/live/news/720p.m3u8").await;
            assert_eq!((reply.status, &reply.body), (200, &list.body));
            assert_eq!(reply.header("etag"), list.header("etag"));
            let mut stream = open(address, &client(&pair.certificate, &[], &[version]), "live.example").await.unwrap();
            assert!(h1_get(&mut stream, &media).await.body == segment.body, "a client without ALPN gets HTTP/1.1");

            let config = client(&pair.certificate, &["h2", "http/1.1"], &[version]);
            let stream = open(address, &config, "live.example").await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (mut sender, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            let request = http::Request::get(format!("https://live.example{media}")).body(Empty::<Bytes>::new());
            let response = sender.send_request(request.unwrap()).await.unwrap();
            assert_eq!(response.version(), http::Version::HTTP_2);
            assert!(response.into_body().collect().await.unwrap().to_bytes() == segment.body);
        }
        let only = client(&pair.certificate, &["ftp"], &[&TLS13]);
        assert!(open(address, &only, "live.example").await.is_err(), "no protocol in common");
    });
    until("the failure is counted", || failures("incompatible") >= 1.0);
}

#[test]
fn a_client_that_comes_back_resumes_its_session() {
    let (mut air, files) = (OnAir::new(LatencyMode::Ultra), Files::new());
    air.parts(7);
    let pair = files.make("live", &["live.example"]);
    let Secured { rig, address, _beside, .. } = secured(&air, vec![pair.clone()], Options::default());
    rig.runtime.block_on(async {
        for version in [&TLS12, &TLS13] {
            let config = client(&pair.certificate, &["http/1.1"], &[version]);
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let mut stream = open(address, &config, "live.example").await.unwrap();
                // Tickets of TLS 1.3 come with the first answer.
                assert_eq!(h1_get(&mut stream, "/live/news/720p.m3u8").await.status, 200);
                assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{version:?}");
            }
        }
    });
    assert!(metric("rung_tls_handshakes_total{kind=\"resumed\"}") >= 2.0);
}

/// The certificate that a client which asks for `host` is shown.
async fn shown(to: SocketAddr, config: &Arc<ClientConfig>, host: &str) -> Option<CertificateDer<'static>> {
    let stream = open(to, config, host).await.ok()?;
    stream.get_ref().1.peer_certificates().map(|chain| chain[0].clone())
}

#[test]
fn each_host_has_its_certificate_and_the_first_is_for_the_rest() {
    let (air, files) = (OnAir::new(LatencyMode::Ultra), Files::new());
    let first = files.make("first", &["live.example", "127.0.0.1"]);
    let second = files.make("second", &["*.cdn.example"]);
    let pairs = vec![first.clone(), second.clone()];
    let Secured { rig, address, _beside, .. } = secured(&air, pairs, Options::default());
    let trusts = |pair: &Pair| client(&pair.certificate, &[], &[&TLS12, &TLS13]);
    rig.runtime.block_on(async {
        for (pair, host, fine) in [
            (&first, "live.example", true),
            (&second, "A.cdn.example", true),
            (&first, "127.0.0.1", true),
            (&second, "live.example", false),
            (&first, "other.example", false),
        ] {
            assert_eq!(shown(address, &trusts(pair), host).await.is_some(), fine, "{host}");
        }
    });
    until("who refuses the certificate is counted", || failures("client_refused") >= 2.0);
}

#[test]
fn a_new_certificate_is_taken_over_live_and_a_broken_one_is_not() {
    let (mut air, files) = (OnAir::new(LatencyMode::Ultra), Files::new());
    air.parts(7);
    let pair = files.make("live", &["live.example"]);
    let _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
    let Secured { rig, address, tls, .. } = secured_alone(&air, vec![pair.clone()], Options::default());
    let (failed, ok) = ("rung_tls_certificate_reload_failed", "rung_tls_certificate_reloads_total{state=\"ok\"}");
    let old = client(&pair.certificate, &["h2"], &[&TLS13]);
    let mut sender = rig.runtime.block_on(async {
        let stream = open(address, &old, "live.example").await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender
    });
    let fits = |config: &Arc<ClientConfig>| rig.runtime.block_on(open(address, config, "live.example")).is_ok();
    // A session that is resumed shows no certificate.
    let fresh = |pair: &Pair| client(&pair.certificate, &[], &[&TLS13]);
    assert!(fits(&fresh(&pair)));
    let before = fresh(&pair);

    let taken = metric(ok);
    files.make("live", &["live.example", "new.example"]);
    until("new connections get the new certificate", || fits(&fresh(&pair)));
    assert!(!fits(&before), "and the one before it no more");
    assert_eq!((metric(ok), metric(failed)), (taken + 1.0, 0.0), "key and certificate were taken over together");
    let request = http::Request::get("https://live.example/live/news/720p.m3u8").body(Empty::<Bytes>::new()).unwrap();
    let response = rig.runtime.block_on(sender.send_request(request)).unwrap();
    assert_eq!(response.status(), 200, "a connection goes on with what it was opened with");

    let served = fresh(&pair);
    let whole = std::fs::read_to_string(&pair.certificate).unwrap();
    for broken in ["", &whole[..whole.len() / 2]] {
        write(&pair.certificate, broken);
        until("the metric says so", || metric(failed) == 1.0);
        assert!(fits(&served), "the one before it is served");
        write(&pair.certificate, &whole);
        until("all is well again", || metric(failed) == 0.0);
    }
    // Half a renewal, and someone who says that it is a whole one.
    let key = std::fs::read_to_string(&pair.key).unwrap();
    write(&pair.key, &KeyPair::generate().unwrap().serialize_pem());
    tls.reload();
    until("a key that does not match is told", || metric(failed) == 1.0);
    write(&pair.key, &key);
    until("all is well again", || metric(failed) == 0.0);
    assert!(fits(&served));
}

#[test]
fn the_first_end_of_a_certificate_is_a_metric() {
    let (air, files) = (OnAir::new(LatencyMode::Ultra), Files::new());
    let pair = files.make("long", &["live.example"]);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["soon.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2031, 5, 6);
    let soon = Pair { certificate: files.at("soon.pem"), key: files.at("soon.key") };
    write(&soon.certificate, &params.self_signed(&key).unwrap().pem());
    write(&soon.key, &key.serialize_pem());
    let _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
    let Secured { tls, rig, .. } = secured_alone(&air, vec![pair.clone(), soon.clone()], Options::default());
    let ends = || metric("rung_tls_certificate_expiry_timestamp_seconds");
    assert_eq!(ends(), 1_935_792_000.0, "2031-05-06");
    // Renewed.
    for (from, to) in [(&pair.key, &soon.key), (&pair.certificate, &soon.certificate)] {
        write(to, &std::fs::read_to_string(from).unwrap());
    }
    tls.reload();
    until("the other one ends later", || ends() > 1_935_792_000.0);
    drop(rig);
}

#[test]
fn handshakes_that_never_end_are_given_up_and_cost_nobody() {
    let (mut air, files) = (OnAir::new(LatencyMode::Ultra), Files::new());
    air.parts(7);
    let pair = files.make("live", &["live.example"]);
    // Long enough for all of them to be in it at once, on a busy machine too.
    let patience = Patience { handshake: Duration::from_secs(3), ..quick().patience };
    let options = Options { patience, ..quick() };
    let Secured { rig, address, _beside, .. } = secured(&air, vec![pair.clone()], options);
    let ended = || metric("rung_http_connections_closed_total{reason=\"handshake\"}");
    let (before, given_up) = (ended(), failures("given_up"));
    // The beginning of 16 KiB.
    let hello = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03";
    let start = SystemClock::mono();
    let mut stuck: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    // A third says nothing, a third says half of a hello, a third goes on byte by byte.
    for (n, stream) in stuck.iter_mut().enumerate().filter(|(n, _)| n % 3 > 0) {
        stream.write_all(&hello[..n % 3 * 5]).unwrap();
    }
    until("all are in their handshake", || metric("rung_tls_handshakes_open") >= 60.0);
    let config = client(&pair.certificate, &["http/1.1"], &[&TLS13]);
    while ended() < before + 60.0 {
        assert!(SystemClock::mono() - start < Duration::from_secs(60), "{} are left", rig.server().connections());
        for stream in stuck.iter_mut().skip(2).step_by(3) {
            // The server may have closed it: that is what is waited for.
            drop(stream.write_all(b"\x03"));
        }
        let asked = SystemClock::mono();
        rig.runtime.block_on(async {
            let mut stream = open(address, &config, "live.example").await.unwrap();
            assert_eq!(h1_get(&mut stream, "/live/news/720p.m3u8").await.status, 200);
        });
        assert!(SystemClock::mono() - asked < Duration::from_secs(5), "an honest client beside them");
    }
    until("they are gone", || rig.server().connections() == 0);
    assert!(failures("given_up") >= given_up + 60.0);
    assert!(SystemClock::mono() - start > Duration::from_millis(2_900), "they had their patience");
}

#[test]
fn a_crowd_of_handshakes_makes_room_for_the_next_one() {
    let (mut air, files) = (OnAir::new(LatencyMode::Ultra), Files::new());
    air.parts(7);
    let pair = files.make("live", &["live.example"]);
    let options = Options { handshakes_max: 20, ..Options::default() };
    let Secured { rig, address, _beside, .. } = secured(&air, vec![pair.clone()], options);
    let ended = || metric("rung_http_connections_closed_total{reason=\"handshakes\"}");
    let before = ended();
    let crowd: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    until("thirty of them had to go", || ended() == before + 30.0 && rig.server().connections() == 20);
    rig.runtime.block_on(async {
        let config = client(&pair.certificate, &["http/1.1"], &[&TLS13]);
        let mut stream = open(address, &config, "live.example").await.unwrap();
        assert_eq!(h1_get(&mut stream, "/live/news/720p.m3u8").await.status, 200);
    });
    drop(crowd);
}

#[test]
fn what_is_no_tls_is_counted_by_its_kind() {
    let (air, files) = (OnAir::new(LatencyMode::Ultra), Files::new());
    let pair = files.make("live", &["live.example"]);
    let Secured { rig, address, _beside, .. } = secured(&air, vec![pair], Options::default());
    let (plain, closed) = (failures("not_tls"), failures("closed"));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // An alert, then the end: one that was written meanwhile may be answered by a reset.
    drop(stream.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP"), "nothing is served there in the clear");
    drop(TcpStream::connect(address).unwrap());
    until("both are counted", || failures("not_tls") > plain && failures("closed") > closed);
    until("both are gone", || rig.server().connections() == 0);
}

#[test]
fn a_viewer_who_stops_reading_in_tls_is_closed_and_its_memory_comes_back() {
    // A segment of 16 MB: more than the kernel and TLS take off the server's hands.
    let (mut air, files) = (OnAir::with_frames_of(LatencyMode::Ultra, 320_000), Files::new());
    air.parts(6);
    let pair = files.make("live", &["live.example"]);
    let Secured { rig, address, _beside, .. } = secured(&air, vec![pair.clone()], quick());
    let before = metric("rung_http_connections_closed_total{reason=\"write_stall\"}");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    socket.connect(&address.into()).unwrap();
    let name = ServerName::try_from("live.example").unwrap();
    let client = rustls::ClientConnection::new(client(&pair.certificate, &[], &[&TLS13]), name).unwrap();
    let mut stream = rustls::StreamOwned::new(client, TcpStream::from(socket));
    let path = air.media(&format!("s{MSN0}.m4s"));
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).unwrap();
    until("the server holds media for the viewer", || rig.server().held_bytes() > 1_000_000);
    until("the viewer is closed", || rig.server().connections() == 0);
    assert_eq!(rig.server().held_bytes(), 0);
    assert_eq!(metric("rung_http_connections_closed_total{reason=\"write_stall\"}"), before + 1.0);
    assert_eq!(rig.get("/live/news/720p.m3u8").status, 200, "others are served");
}

/// What curl wrote: the protocol, the status, the bytes.
fn curl(args: &[&str]) -> (String, usize) {
    let output = Command::new("curl")
        .args(["-s", "-S", "-o", "-", "-w", "%{stderr}%{http_version} %{http_code}"])
        .args(args)
        .output();
    let output = output.expect("curl is one of the packages of `make setup`");
    (String::from_utf8(output.stderr).unwrap(), output.stdout.len())
}

#[test]
fn curl_speaks_http_2_with_prior_knowledge_and_both_protocols_over_tls() {
    let (mut air, files) = (OnAir::with_frames_of(LatencyMode::Ultra, 20_000), Files::new());
    air.parts(7);
    let pair = files.make("live", &["live.example"]);
    let Secured { rig, address, _beside, .. } = secured(&air, vec![pair.clone()], Options::default());
    let media = air.media(&format!("s{MSN0}.m4s"));
    let length = rig.get(&media).body.len();
    let plain = format!("http://{}{media}", rig.address);
    assert_eq!(curl(&["--http2-prior-knowledge", &plain]), ("2 200".into(), length));
    assert_eq!(curl(&["--http1.1", &plain]), ("1.1 200".into(), length));
    let secure = format!("https://live.example:{}{media}", address.port());
    let resolve = format!("live.example:{}:{}", address.port(), address.ip());
    let ca = pair.certificate.to_str().unwrap();
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--tlsv1.3", "2")] {
        let told = curl(&["--cacert", ca, "--resolve", &resolve, option, &secure]);
        assert_eq!(told, (format!("{version} 200"), length), "{option}");
    }
    let (told, _) = curl(&["--resolve", &resolve, &secure]);
    assert!(told.contains("certificate"), "no stranger is believed: {told}");
}

/// `rung` with `args`: its exit code and what it said.
fn rung(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rung")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_daemon_serves_its_api_over_tls_and_reads_its_certificate_again_when_told() {
    let files = Files::new();
    let pair = files.make("live", &["localhost", "127.0.0.1"]);
    let config =
        format!("[https]\nlisten = \"127.0.0.1:0\"\ncertificate = {:?}\nkey = {:?}\n", pair.certificate, pair.key);
    let daemon = daemon::Daemon::start_with(&config, "", &[]);
    let (token, log) = (daemon.folder().join("rung-data/admin.token"), daemon.log());
    let port = daemon.https.expect("a line for https").port();
    let server = format!("https://localhost:{port}");
    let ca = pair.certificate.to_str().unwrap().to_owned();
    let list = |server: &str, ca: &str| {
        rung(&["channel", "list", "--json", "--server", server, "--ca", ca, "--token-file", token.to_str().unwrap()])
    };
    let (code, out, err) = list(&server, &ca);
    assert_eq!((code, out.trim(), err.as_str()), (0, "[]", ""), "{log}");
    let stranger = files.make("stranger", &["localhost"]);
    let (code, _, err) = list(&server, stranger.certificate.to_str().unwrap());
    assert!(code == 3 && err.contains("certificate"), "{code}: {err}");
    let (code, _, err) = list(&server, files.at("none.pem").to_str().unwrap());
    assert!(code == 2 && err.contains("none.pem: cannot be read: No such file"), "{err}");
    let (code, _, err) = list(&daemon.url(""), &ca);
    assert!(code == 2 && err.contains("--ca is for https://"), "{err}");

    // Renewed, and told so: SIGHUP ends nothing.
    files.make("live", &["localhost", "127.0.0.1"]);
    let before = daemon.metric("rung_tls_certificate_reloads_total{state=\"ok\"}");
    assert!(Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status().unwrap().success());
    until("it is read again", || daemon.metric("rung_tls_certificate_reloads_total{state=\"ok\"}") > before);
    assert_eq!(list(&server, &ca).0, 0, "the file is the new certificate now");
    assert!(daemon.metric("rung_tls_certificate_expiry_timestamp_seconds") > 1e9);
}

#[test]
fn without_certificates_a_terminal_that_is_closed_ends_the_daemon() {
    use std::os::unix::process::ExitStatusExt;
    // Whatever ignores the signal where this test runs.
    let mut daemon = daemon::Daemon::start_under(&["env", "--default-signal=HUP"], "");
    daemon::signal(daemon.pid(), "HUP");
    assert_eq!(daemon.exit().signal(), Some(1));
}

#[test]
fn a_certificate_of_no_use_is_told_before_anything_is_served() {
    let files = Files::new();
    let (pair, other) = (files.make("live", &["live.example"]), files.make("other", &["live.example"]));
    let config = files.at("rung.toml");
    let check = |key: &Path| {
        let text = format!("[https]\ncertificate = {:?}\nkey = {key:?}\n", pair.certificate);
        std::fs::write(&config, text).unwrap();
        rung(&["config", "check", config.to_str().unwrap()])
    };
    let (code, out, _) = check(&pair.key);
    assert!(code == 0 && out.contains("https    [::]:8443, 1 certificate") && !out.contains("warning"), "{out}");
    let (code, _, err) = check(&other.key);
    assert!(code == 2 && err.contains("rung.toml: https: ") && err.contains("other.key: does not match "), "{err}");
    let serve = rung(&["serve", "--config", config.to_str().unwrap()]);
    assert!(serve.0 == 2 && serve.2.contains("other.key: does not match "), "{serve:?}");
    std::fs::set_permissions(&pair.key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (code, out, _) = check(&pair.key);
    assert!(code == 0 && out.contains("warning: ") && out.contains("may be read by everybody"), "{out}");
}

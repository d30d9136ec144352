//! What serving costs: CPU time a request by kind and protocol, the publisher's call with thousands of viewers waiting, and
//! their memory. `cargo bench --bench serve`. Method: the server is a process of its own with one thread for HTTP, so that
//! its CPU time and memory are not the clients'. `cargo bench --bench serve -- part 20000` asks for one kind alone, for a
//! profiler.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

#[path = "../tests/support/on_air.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod on_air;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use on_air::{MSN0, OnAir};
use rung::media::modes::LatencyMode;
use rung::serve::{Options, Pair, Server, Site, Tls};
use rung::time::SystemClock;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, StreamOwned};

/// Ten of them and their boxes are a part of 107 kB: 1080p at 2 Mb/s.
const FRAME_BYTES: usize = 10_690;
/// What tells the child what it is.
const ROLE: &str = "RUNG_BENCH_SERVER";

fn main() {
    if std::env::var_os(ROLE).is_some() {
        return serve();
    }
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let mut host = Host::start();
    match args.first().map(String::as_str) {
        Some(kind) => {
            let count = args.get(1).and_then(|n| n.parse().ok()).unwrap_or(10_000);
            one(&mut host, kind, count);
        }
        None => {
            for kind in
                ["part", "segment", "playlist", "gzip", "fresh", "h2-part", "h2-playlist", "tls-part", "tls-playlist"]
            {
                one(&mut host, kind, 10_000);
            }
            handshakes(&mut host);
            for waiters in [0, 1_000, 5_000, 9_000] {
                crowd(waiters);
            }
        }
    }
}

/// The server's process, asked over its standard input.
struct Host {
    child: Child,
    ask: ChildStdin,
    said: BufReader<ChildStdout>,
    plain: SocketAddr,
    secure: SocketAddr,
    certificate: CertificateDer<'static>,
    session: String,
    _folder: tempfile::TempDir,
}

impl Host {
    fn start() -> Host {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(["bench.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(folder.path().join("chain.pem"), made.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(ROLE, folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (ask, said) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let placeholder: SocketAddr = ([127, 0, 0, 1], 1).into();
        let certificate = CertificateDer::from_pem_slice(made.pem().as_bytes()).unwrap();
        let mut host = Host {
            child,
            ask,
            said,
            plain: placeholder,
            secure: placeholder,
            certificate,
            session: String::new(),
            _folder: folder,
        };
        host.plain = host.line().parse().unwrap();
        host.secure = host.line().parse().unwrap();
        host.session = host.line();
        host
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn ask(&mut self, what: &str) -> f64 {
        writeln!(self.ask, "{what}").unwrap();
        self.line().parse().unwrap()
    }

    /// CPU seconds so far.
    fn cpu(&mut self) -> f64 {
        self.ask("cpu")
    }

    fn path(&self, kind: &str) -> String {
        match kind {
            "part" => format!("/live/news/{}/720p/p{MSN0}.1.m4s", self.session),
            "segment" => format!("/live/news/{}/720p/s{MSN0}.m4s", self.session),
            _ => "/live/news/720p.m3u8".to_owned(),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The child: a channel on air, and answers to its parent.
fn serve() {
    let folder = std::path::PathBuf::from(std::env::var_os(ROLE).unwrap());
    let mut air = OnAir::with_frames_of(LatencyMode::Ultra, FRAME_BYTES);
    air.parts(17);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let site = Site { origin: Some(air.origin.clone()), ..Site::default() };
    let bind = || rung::serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let tls = Tls::open(vec![Pair { certificate: folder.join("chain.pem"), key: folder.join("key.pem") }]).unwrap();
    let (server, secure) = runtime.block_on(async {
        let server = Server::start(bind(), site, Options::default()).unwrap();
        let secure = server.secure(bind(), &Arc::new(tls)).unwrap();
        (server, secure)
    });
    println!("{}\n{secure}\n{}", server.address(), air.session.id);
    for line in std::io::stdin().lock().lines() {
        let output = air.session.rendition("720p").unwrap();
        let told = match line.unwrap().as_str() {
            "cpu" => process_seconds(),
            "rss" => resident_kib(),
            "waiting" => output.facts().waiting as f64,
            "held" => server.held_bytes() as f64,
            _ => {
                let start = SystemClock::mono();
                air.part();
                (SystemClock::mono() - start).as_secs_f64() * 1e6
            }
        };
        println!("{told}");
    }
}

fn process_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn resident_kib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Asks `count` times over connections that stay, one request after the other on each of four.
fn one(host: &mut Host, kind: &str, count: usize) {
    let (protocol, what) = kind.split_once('-').unwrap_or(("h1", kind));
    let path = host.path(what);
    let before = host.cpu();
    let start = SystemClock::mono();
    let bytes = match protocol {
        "h2" => over_h2(host.plain, &path, count),
        "tls" => {
            let (to, config) = (host.secure, client(&host.certificate));
            spread(count, || secured(to, &config), &path, "")
        }
        _ if kind == "fresh" => {
            let to = host.plain;
            (0..count).map(|_| spread_one(&mut connect(to), 1, &request(&path, ""))).sum()
        }
        _ => {
            let (to, more) = (host.plain, if kind == "gzip" { "Accept-Encoding: gzip\r\n" } else { "" });
            spread(count, || connect(to), &path, more)
        }
    };
    let (spent, took) = (host.cpu() - before, SystemClock::mono() - start);
    println!(
        "{kind}: {:.1} us of CPU a request, {:.0} a second, {} bytes each",
        spent * 1e6 / count as f64,
        count as f64 / took.as_secs_f64(),
        bytes / count
    );
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn client(certificate: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn secured(to: SocketAddr, config: &Arc<ClientConfig>) -> StreamOwned<rustls::ClientConnection, TcpStream> {
    let name = ServerName::try_from("bench.example").unwrap();
    StreamOwned::new(rustls::ClientConnection::new(Arc::clone(config), name).unwrap(), connect(to))
}

fn request(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n{more}\r\n")
}

fn spread<S: Read + Write>(count: usize, connect: impl Fn() -> S + Sync, path: &str, more: &str) -> usize {
    let text = request(path, more);
    std::thread::scope(|scope| {
        let lines: Vec<_> = (0..4).map(|_| scope.spawn(|| spread_one(&mut connect(), count / 4, &text))).collect();
        lines.into_iter().map(|line| line.join().unwrap()).sum()
    })
}

/// Bytes of `count` answers.
fn spread_one<S: Read + Write>(stream: &mut S, count: usize, text: &str) -> usize {
    let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
    for _ in 0..count {
        stream.write_all(text.as_bytes()).unwrap();
        let (mut have, mut want) = (0, usize::MAX);
        while have < want {
            have += match stream.read(&mut buffer[have..]).unwrap() {
                0 => panic!("the server has gone"),
                n => n,
            };
            if want == usize::MAX
                && let Some(end) = buffer[..have].windows(4).position(|w| w == b"\r\n\r\n")
            {
                let head = std::str::from_utf8(&buffer[..end]).unwrap().to_ascii_lowercase();
                assert!(head.starts_with("http/1.1 200"), "{head}");
                let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
                want = end + 4 + length.parse::<usize>().unwrap();
            }
        }
        total += have;
    }
    total
}

/// Four requests at once on one connection.
fn over_h2(to: SocketAddr, path: &str, count: usize) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(1 << 20).initial_connection_window_size(16 << 20);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let asks = (0..4).map(|_| {
            let (mut sender, uri) = (sender.clone(), format!("http://bench.example{path}"));
            tokio::spawn(async move {
                let mut total = 0;
                for _ in 0..count / 4 {
                    let request = http::Request::get(&uri).body(Empty::<Bytes>::new()).unwrap();
                    let response = sender.send_request(request).await.unwrap();
                    total += response.into_body().collect().await.unwrap().to_bytes().len();
                }
                total
            })
        });
        let mut total = 0;
        for ask in asks.collect::<Vec<_>>() {
            total += ask.await.unwrap();
        }
        total
    })
}

/// A whole handshake, and one from a ticket, each with one playlist behind it.
fn handshakes(host: &mut Host) {
    const COUNT: usize = 500;
    for (name, keep) in [("full", false), ("resumed", true)] {
        let mut config = client(&host.certificate);
        let text = request(&host.path("playlist"), "");
        spread_one(&mut secured(host.secure, &config), 1, &text);
        let before = host.cpu();
        for _ in 0..COUNT {
            if !keep {
                config = client(&host.certificate);
            }
            spread_one(&mut secured(host.secure, &config), 1, &text);
        }
        println!(
            "tls {name}: {:.0} us of CPU a connection with a playlist",
            (host.cpu() - before) * 1e6 / COUNT as f64
        );
    }
}

/// Viewers who wait for the next part, each on a connection of its own: what they cost in memory, and the publisher in time.
fn crowd(waiters: usize) {
    let mut host = Host::start();
    // Buffers and heaps are as they stay.
    spread(1_000, || connect(host.plain), &host.path("playlist"), "");
    let before = host.ask("rss");
    let path = format!("/live/news/720p.m3u8?_HLS_msn={}&_HLS_part=2", MSN0 + 3);
    let text = request(&path, "");
    let mut streams: Vec<TcpStream> = (0..waiters)
        .map(|_| {
            let mut stream = connect(host.plain);
            stream.write_all(text.as_bytes()).unwrap();
            stream
        })
        .collect();
    while host.ask("waiting") < waiters as f64 {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let each = (host.ask("rss") - before) / waiters.max(1) as f64;
    let cpu = host.cpu();
    let start = SystemClock::mono();
    let publish = host.ask("part");
    let mut byte = [0; 16 << 10];
    for stream in &mut streams {
        assert!(stream.read(&mut byte).unwrap() > 0);
    }
    let (all, spent) = (SystemClock::mono() - start, host.cpu() - cpu);
    println!(
        "{waiters} viewers wait: {each:.1} KiB each, publishing a part takes {publish:.0} us, the last one has its playlist \
         {:.1} ms later, {:.1} us of CPU each",
        all.as_secs_f64() * 1e3,
        spent * 1e6 / waiters.max(1) as f64
    );
}

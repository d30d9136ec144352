//! The server on loopback, and the plainest clients of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rung::serve::connection::Patience;
use rung::serve::{Options, Server, Site};
use rung::telemetry::setup::{Exporter, exporter};
use rung::time::{Mono, SystemClock};
use tokio::runtime::Runtime;

use crate::on_air::OnAir;

pub(crate) static METRICS: LazyLock<Exporter> =
    LazyLock::new(|| exporter().expect("the only registry of this process"));

/// A server on loopback with its own runtime.
pub(crate) struct Rig {
    pub(crate) runtime: Runtime,
    pub(crate) server: Option<Server>,
    pub(crate) address: SocketAddr,
}

pub(crate) fn loopback() -> TcpListener {
    rung::serve::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

impl Rig {
    pub(crate) fn new(site: Site, options: Options) -> Rig {
        LazyLock::force(&METRICS);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let server = runtime.block_on(async { Server::start(loopback(), site, options) }).unwrap();
        Rig { runtime, address: server.address(), server: Some(server) }
    }

    pub(crate) fn of(air: &OnAir) -> Rig {
        Rig::patient(air, Options::default())
    }

    pub(crate) fn patient(air: &OnAir, options: Options) -> Rig {
        let site = Site { origin: Some(air.origin.clone()), ..Site::default() };
        Rig::new(site, options)
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut stream = self.connect();
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        Reply::read(stream)
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[])
    }

    pub(crate) fn get_with(&self, path: &str, name: &str, value: &str) -> Reply {
        self.ask("GET", path, &[(name, value)])
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Reads to the connection's end.
    pub(crate) fn read(mut stream: TcpStream) -> Reply {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        Reply::parse(&all)
    }

    pub(crate) fn parse(all: &[u8]) -> Reply {
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&all[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Reply { status, headers, body: all[end + 4..].to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn problem(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("cache-control"), "no-store");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        for field in ["type", "title", "detail", "code"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {problem}");
        }
        problem
    }
}

/// Waits for `what`, at most a minute: the machine may be busy.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = SystemClock::mono() + Duration::from_secs(60);
    while !holds() {
        assert!(SystemClock::mono() < deadline, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub(crate) fn since(start: Mono) -> Duration {
    SystemClock::mono() - start
}

pub(crate) type Sender = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

pub(crate) async fn h2(address: SocketAddr) -> Sender {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    // A small window per stream, as a careful player's; a large one for all together.
    client.initial_stream_window_size(65_535).initial_connection_window_size(4 << 20);
    let (sender, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) async fn h2_get(sender: &mut Sender, path: &str) -> (u16, Bytes) {
    let request = http::Request::get(format!("http://test{path}")).body(Empty::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

/// Patience for tests.
pub(crate) fn quick() -> Options {
    let ms = Duration::from_millis;
    Options {
        patience: Patience {
            handshake: ms(900),
            first_request: ms(900),
            head: ms(900),
            idle: ms(1_500),
            write_stall: ms(900),
            chunk: ms(2_500),
            ..Patience::default()
        },
        ..Options::default()
    }
}

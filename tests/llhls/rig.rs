//! The real server on loopback, asked as a player asks.

use rung::package::origin::Origin;
use rung::package::window::RenditionOutput;
use rung::serve::{Options, Server, Site};
use rung::telemetry::setup::{Exporter, exporter};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::runtime::Runtime;

static METRICS: LazyLock<Exporter> = LazyLock::new(|| exporter().expect("the only registry of this process"));

pub(crate) struct Rig {
    _runtime: Runtime,
    _server: Server,
    pub(crate) address: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// A header's value; nothing: it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.split("\r\n").filter_map(|line| line.split_once(": "));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Rig {
    pub(crate) fn new(origin: &Arc<Origin>) -> Rig {
        LazyLock::force(&METRICS);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let site = Site { origin: Some(origin.clone()), ..Site::default() };
        let socket = rung::serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let server = runtime.block_on(async { Server::start(socket, site, Options::default()) }).unwrap();
        Rig { _runtime: runtime, address: server.address(), _server: server }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send(path, "").finish()
    }

    pub(crate) fn get_with(&self, path: &str, header: &str) -> Reply {
        self.send(path, header).finish()
    }

    /// A request whose answer is awaited later.
    pub(crate) fn send(&self, path: &str, header: &str) -> Pending {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let end = if header.is_empty() { "\r\n" } else { "\r\n\r\n" };
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{header}{end}").unwrap();
        Pending(stream)
    }
}

/// Waits until so many requests wait for a rendition, ten seconds at most.
pub(crate) fn blocked(output: &RenditionOutput, count: usize) {
    for _ in 0..2_000 {
        if output.facts().waiting == count {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("{} requests wait, not {count}", output.facts().waiting);
}

pub(crate) struct Pending(TcpStream);

impl Pending {
    pub(crate) fn finish(mut self) -> Reply {
        let mut all = Vec::new();
        self.0.read_to_end(&mut all).unwrap();
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head, body: all[end + 4..].to_vec() }
    }
}

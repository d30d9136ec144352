//! The API on a store and a ledger of its own, behind the real server on loopback. The data plane only writes down what it
//! was told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rung::control::api::{self, Api, Awaited, Media, Settled};
use rung::control::ledger::{Ledger, Plane};
use rung::control::lifecycle::{Effect, Publish};
use rung::control::state::{self, State};
use rung::media::channel::{ChannelName, Leg, PublisherId};
use rung::pipeline::ports::{PullState, PullStatus};
use rung::pipeline::snapshots;
use rung::serve::{Options, Server, Site, routes};
use serde_json::Value;
use tokio::runtime::Runtime;

/// What the data plane was told.
#[derive(Default)]
pub(crate) struct Recorder(pub(crate) Mutex<Vec<Effect>>);

impl Plane for Recorder {
    fn remember(&self, _: &rung::media::channel::ChannelName, _: rung::pipeline::channel::Legacy) {}

    fn turn_away(&self, _: &rung::media::channel::ChannelName, _: rung::media::channel::PublisherId) {}

    fn carry_out(&self, _: &rung::media::channel::ChannelName, effect: Effect) {
        self.0.lock().unwrap().push(effect);
    }
}

pub(crate) struct Rig {
    /// Dropped in this order: nobody asks the store any more once it closes.
    server: Option<Server>,
    pub(crate) api: Option<Arc<Api>>,
    pub(crate) ledger: Option<Arc<Ledger>>,
    runtime: Option<Runtime>,
    pub(crate) plane: Arc<Recorder>,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) folder: Arc<tempfile::TempDir>,
}

pub(crate) fn at_once() -> Settled {
    Arc::new(|_: &Awaited| true)
}

/// What the channel `live` looks like.
pub(crate) const SNAPSHOT: &[u8] = b"\xff\xd8\xff a picture \xff\xd9";

/// `live` has a picture, `stuck` never gives one, `lost` loses its worker meanwhile, `busy` hears nothing; nobody else is
/// on air.
fn snapshot(channel: &ChannelName, reply: snapshots::Reply) -> bool {
    static STUCK: Mutex<Vec<snapshots::Reply>> = Mutex::new(Vec::new());
    match channel.as_str() {
        "live" => reply.give(snapshots::Snapshot::Taken(SNAPSHOT.into())),
        "stuck" => STUCK.lock().unwrap().push(reply),
        "lost" => drop(reply),
        "busy" => return false,
        _ => reply.give(snapshots::Snapshot::NotLive("it has no session".to_owned())),
    }
    true
}

/// The source of `camera` does not answer; no other is called.
fn pull(channel: &ChannelName) -> Option<PullStatus> {
    let error = Some("nobody answers at the address".to_owned());
    (channel.as_str() == "camera").then_some(PullStatus { state: PullState::Calling, error })
}

/// Limits that no test meets by accident.
pub(crate) fn open_doors() -> api::Options {
    let wide = rung::control::auth::Limit { burst: 1e9, per_second: 1e9 };
    api::Options { requests: wide, failures: wide, ..api::Options::default() }
}

impl Rig {
    pub(crate) fn new() -> Rig {
        Rig::with(open_doors(), Options::default(), at_once())
    }

    pub(crate) fn with(options: api::Options, server: Options, settled: Settled) -> Rig {
        Rig::on(Arc::new(tempfile::tempdir().unwrap()), options, server, settled)
    }

    pub(crate) fn on(folder: Arc<tempfile::TempDir>, options: api::Options, server: Options, settled: Settled) -> Rig {
        let state = State::open(&state::Options { ballast_bytes: 0, ..state::Options::new(folder.path()) }).unwrap();
        let plane = Arc::new(Recorder::default());
        let ledger = Arc::new(Ledger::open(Arc::new(state), Arc::clone(&plane) as Arc<dyn Plane>).unwrap());
        ledger.recover().unwrap();
        let media = Media { settled, snapshot: Arc::new(snapshot), pull: Arc::new(pull) };
        let api = Api::open(Arc::clone(&ledger), options, media).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let site = Site { routes: Some(routes(api.filter())), ..Site::default() };
        let listener = rung::serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let server = runtime.block_on(async { Server::start(listener, site, server) }).unwrap();
        let token = admin_token(folder.path());
        let (address, runtime) = (server.address(), Some(runtime));
        Rig { server: Some(server), api: Some(api), ledger: Some(ledger), runtime, plane, address, token, folder }
    }

    /// The same state in a new process.
    pub(crate) fn restarted(mut self) -> Rig {
        let folder = Arc::clone(&self.folder);
        self.close();
        drop(self);
        Rig::on(folder, open_doors(), Options::default(), at_once())
    }

    fn close(&mut self) {
        if let Some(api) = &self.api {
            api.close();
        }
        drop(self.server.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        drop(self.api.take());
        drop(self.ledger.take());
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        self.ledger.as_ref().unwrap()
    }

    /// As the admin.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Value) -> Reply {
        self.ask_as(&self.token, method, path, &[], body)
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, Value::Null)
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> Reply {
        self.ask("POST", path, body)
    }

    pub(crate) fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Reply {
        self.ask_as(&self.token, method, path, headers, body)
    }

    /// `body`: `null` for none.
    pub(crate) fn ask_as(&self, token: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Reply {
        ask(self.address, token, method, path, headers, &body).expect("a whole head")
    }

    /// A token's secret.
    pub(crate) fn make_token(&self, body: Value) -> String {
        let made = self.post("/v1/tokens", body);
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()["secret"].as_str().unwrap().to_owned()
    }

    pub(crate) fn make_channel(&self, name: &str) -> Value {
        let made = self.post("/v1/channels", serde_json::json!({ "name": name }));
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()
    }

    /// An encoder publishes; the session's id.
    pub(crate) fn go_live(&self, channel: &str) -> String {
        let publish = Publish { leg: Leg::A, publisher: PublisherId(7) };
        self.ledger().publish(ChannelName::new(channel).unwrap(), publish);
        wait("a session", || self.get(&format!("/v1/channels/{channel}")).json()["session"].as_str().map(str::to_owned))
    }

    /// An event stream that is read line by line.
    pub(crate) fn events(&self, token: &str, query: &str, last: Option<u64>) -> Lines {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let last = last.map_or_else(String::new, |seq| format!("Last-Event-ID: {seq}\r\n"));
        let request = format!(
            "GET /v1/events/stream{query} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n{last}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut lines = Lines { stream, text: Vec::new() };
        assert_eq!(lines.line().as_deref(), Some("HTTP/1.1 200 OK"));
        while lines.line().is_some_and(|line| !line.starts_with("retry:")) {}
        lines
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.close();
    }
}

pub(crate) fn admin_token(folder: &Path) -> String {
    std::fs::read_to_string(folder.join(api::ADMIN_FILE)).unwrap().trim().to_owned()
}

/// Polls until there is a value.
pub(crate) fn wait<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Lines of a chunked answer, its chunk sizes among them.
pub(crate) struct Lines {
    pub(crate) stream: TcpStream,
    text: Vec<u8>,
}

impl Lines {
    /// `None`: the stream is over.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.windows(2).position(|w| w == b"\r\n" || w[0] == b'\n') {
                let rest = self.text.split_off(end + if self.text[end] == b'\r' { 2 } else { 1 });
                let line = String::from_utf8(std::mem::replace(&mut self.text, rest)).unwrap();
                // The last chunk has no bytes.
                return Some(line.trim_end().to_owned()).filter(|line| line != "0");
            }
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece).expect("a line within 20 s") {
                0 => return None,
                n => self.text.extend_from_slice(&piece[..n]),
            }
        }
    }

    /// The next event's JSON.
    pub(crate) fn event(&mut self) -> Option<Value> {
        loop {
            if let Some(data) = self.line()?.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// As much of the body is there as the head announced.
    pub(crate) fn is_whole(&self) -> bool {
        self.header("content-length").is_none_or(|length| length.parse() == Ok(self.body.len()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text()))
    }

    /// The problem's code; every problem is whole.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"));
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        let code = problem["code"].as_str().unwrap().to_owned();
        assert_eq!(problem["type"], format!("/problems/{code}"));
        assert!(!problem["detail"].as_str().unwrap().is_empty() && !problem["title"].as_str().unwrap().is_empty());
        code
    }
}

/// One request to the API. `body`: `null` for none. Answers as [`attempt`].
pub(crate) fn ask(
    to: SocketAddr,
    token: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Option<Reply> {
    let bearer = format!("Bearer {token}");
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let mut all = vec![("Authorization", bearer.as_str())];
    if !text.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        all.push(("Content-Type", "application/json"));
    }
    all.extend_from_slice(headers);
    attempt(to, method, path, &all, text.as_bytes())
}

/// One HTTP/1.1 request on a connection of its own.
pub(crate) fn raw(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    attempt(to, method, path, headers, body).expect("a whole head")
}

/// As [`raw`]. `None`: nobody is there, or the connection broke before the head of an answer was.
pub(crate) fn attempt(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Reply> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: box.example:8080\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    // A server that refuses a large body may close before it has read it all.
    drop(stream.write_all(&bytes));
    let mut all = Vec::new();
    drop(stream.read_to_end(&mut all));
    let end = all.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&all[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|l| l.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    Some(Reply { status, headers, body: all[end + 4..].to_vec() })
}

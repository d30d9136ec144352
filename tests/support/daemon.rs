//! The real daemon as a process of its own, its publishers, and a small HTTP client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Limits of waits are what a quiet machine needs, with room; a slow or busy one gets so many times as long. What is
/// waited for is what counts: figures of speed are `make prove`'s.
pub(crate) const SLOW: u32 = 3;

/// The publish key of every channel in tests.
pub(crate) const KEY: &str = "abcdefghijklmnopqrstuvwx12";

pub(crate) struct Daemon {
    child: Child,
    pub(crate) http: SocketAddr,
    /// Where it is configured.
    pub(crate) https: Option<SocketAddr>,
    pub(crate) srt: SocketAddr,
    pub(crate) metrics: SocketAddr,
    folder: std::sync::Arc<tempfile::TempDir>,
}

impl Daemon {
    /// `rung serve` with free ports and `channels` (TOML of `[[bootstrap.channel]]` tables without keys). A publisher that
    /// closes ends its session, unless a test says otherwise.
    pub(crate) fn start(channels: &str) -> Daemon {
        Daemon::start_with("", channels, &[])
    }

    pub(crate) fn start_with(more: &str, channels: &str, env: &[(&str, &str)]) -> Daemon {
        Daemon::spawn(&[], Daemon::configured(more, channels), env)
    }

    /// As [`Daemon::start`], run by `wrapper`: a command that becomes the one in its last arguments.
    pub(crate) fn start_under(wrapper: &[&str], channels: &str) -> Daemon {
        Daemon::spawn(wrapper, Daemon::configured("", channels), &[])
    }

    /// A folder with a configuration.
    fn configured(more: &str, channels: &str) -> std::sync::Arc<tempfile::TempDir> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("test.key"), KEY).expect("writable");
        let eos = if channels.contains("end_on_eos") { "" } else { "\nend_on_eos = true" };
        let head = format!("[[bootstrap.channel]]\nkey_file = \"test.key\"{eos}");
        let channels = channels.replace("[[bootstrap.channel]]", &head);
        let srt = if more.contains("[srt]") { "" } else { "[srt]\nlisten = \"127.0.0.1:0\"\n" };
        let quic = if more.contains("[quic]") { "" } else { "[quic]\nenabled = false\n" };
        let config = format!(
            "{srt}{quic}{more}\n[http]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n{channels}"
        );
        let file = folder.path().join("rung.toml");
        std::fs::write(&file, config).expect("writable");
        folder.into()
    }

    /// Another process on the same folder; this one must have ended.
    pub(crate) fn again(&self) -> Daemon {
        Daemon::spawn(&[], std::sync::Arc::clone(&self.folder), &[])
    }

    /// The same at the same addresses.
    pub(crate) fn again_here(&self) -> Daemon {
        let file = self.folder.path().join("rung.toml");
        let mut config = std::fs::read_to_string(&file).expect("readable");
        for address in [self.srt, self.http, self.metrics] {
            config = config.replacen("\"127.0.0.1:0\"", &format!("\"{address}\""), 1);
        }
        std::fs::write(&file, config).expect("writable");
        self.again()
    }

    /// Another process on the same folder that is killed `after` its start, ready or not.
    pub(crate) fn again_killed(&self, after: Duration) {
        let mut child =
            Running(Daemon::command(&[], self.folder()).stdout(Stdio::null()).spawn().expect("rung starts"));
        std::thread::sleep(after);
        child.0.kill().expect("own child");
    }

    fn command(wrapper: &[&str], folder: &Path) -> Command {
        let words: Vec<&str> = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_rung")]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["serve", "--config"]).arg(folder.join("rung.toml")).stdin(Stdio::null());
        if std::env::var_os("RUNG_TEST_LOGS").is_none() {
            let log = std::fs::File::options().create(true).append(true).open(folder.join("log"));
            command.stderr(log.expect("writable"));
        }
        command
    }

    fn spawn(wrapper: &[&str], folder: std::sync::Arc<tempfile::TempDir>, env: &[(&str, &str)]) -> Daemon {
        let mut command = Daemon::command(wrapper, folder.path());
        let mut child = command.stdout(Stdio::piped()).envs(env.iter().copied()).spawn().expect("rung starts");
        let lines = read_until_ready(&mut child);
        let line = |what: &str| lines.iter().find(|l| l.split_whitespace().next() == Some(what));
        let find = |line: &String| -> SocketAddr {
            line.split_whitespace().find_map(|w| w.parse().ok()).unwrap_or_else(|| panic!("no address in {line:?}"))
        };
        let address = |what: &str| find(line(what).unwrap_or_else(|| panic!("no {what} line in {lines:?}")));
        let https = line("https").map(find);
        Daemon { http: address("http"), https, srt: address("srt"), metrics: address("metrics"), child, folder }
    }

    /// Where its configuration, its log and its state are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// It was killed.
    pub(crate) fn wait_exit(&mut self) {
        self.child.wait().expect("own child");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The SRT URL that `channel` is published to.
    pub(crate) fn publish_url(&self, channel: &str) -> String {
        format!("srt://{}?streamid={channel}/{KEY}", self.srt)
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        get(self.http, path, &[])
    }

    /// What the API tells whoever has the admin token.
    pub(crate) fn ask(&self, path: &str) -> serde_json::Value {
        let token = std::fs::read_to_string(self.folder().join("rung-data/admin.token")).expect("made at the start");
        let authorization = format!("Bearer {}", token.trim());
        let answer = get(self.http, path, &[("Authorization", &authorization)]);
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// A metric's value by its whole series name, e.g. `rung_faults_total{channel="a",kind="continuity"}`.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = String::from_utf8(get(self.metrics, "/metrics", &[]).body).expect("metrics are text");
        let line = text.lines().find(|l| l.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// Processor time that its threads have used.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let nanos = threads.filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Its workers' process ids; the one that watches the GPUs is none.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let watches = |pid: &u32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split(|b| *b == 0).any(|argument| argument == b"--monitor")
        };
        let mut children = self.children();
        children.retain(|pid| !watches(pid));
        children
    }

    fn children(&self) -> Vec<u32> {
        let tasks = format!("/proc/{0}/task", self.pid());
        let mut found = Vec::new();
        for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|p| p.parse::<u32>().ok()));
        }
        found
    }

    /// Asks until `path` answers 200.
    pub(crate) fn wait_for(&self, path: &str, limit: Duration) -> Response {
        wait(limit, &format!("200 for {path}"), || Some(self.get(path)).filter(|r| r.status == 200))
    }

    /// SIGTERM, and its exit within 10 s.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        signal(self.pid(), "TERM");
        self.exit()
    }

    /// Its exit within 10 s: it was told to.
    pub(crate) fn exit(&mut self) -> std::process::ExitStatus {
        wait(Duration::from_secs(10), "the daemon's exit", || self.child.try_wait().expect("own child"))
    }
}

/// Logs of daemons whose test failed.
static LAST_LOGS: Mutex<String> = Mutex::new(String::new());

/// Runs a test that asks for every picture of a ladder. A failure while the daemon had to shed renditions says that this
/// machine was busy with something else, not what the test is about: it is tried again, three times at most.
pub(crate) fn with_room(test: fn()) {
    for trial in 1..=3 {
        LAST_LOGS.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let Err(failure) = std::panic::catch_unwind(test) else { return };
        let logs = std::mem::take(&mut *LAST_LOGS.lock().unwrap_or_else(PoisonError::into_inner));
        let codes = ["rendition_late", "rendition_shed", "overrun"];
        let busy = codes.iter().any(|code| logs.contains(&format!("code=\"{code}\"")));
        if !busy || trial == 3 {
            std::panic::resume_unwind(failure);
        }
        eprintln!("trial {trial}: the machine could not carry the ladder; again");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            LAST_LOGS.lock().unwrap_or_else(PoisonError::into_inner).push_str(&self.log());
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read_until_ready(child: &mut Child) -> Vec<String> {
    let stdout = child.stdout.take().expect("piped");
    let (send, receive) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                // Nobody listens any more: keep draining so that the daemon never blocks on its output.
            }
        }
    });
    let mut lines = Vec::new();
    let end = Instant::now() + SLOW * Duration::from_secs(20);
    loop {
        match receive.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line == "ready" => return lines,
            Ok(line) => lines.push(line),
            Err(_) => panic!("the daemon did not become ready; it said {lines:?}"),
        }
    }
}

/// Polls `probe` until it gives a value, for [`SLOW`] times `limit` at most.
pub(crate) fn wait<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let limit = SLOW * limit;
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().expect("kill");
    assert!(status.success(), "kill -{name} {pid}");
}

/// A child that is killed when the test is over.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// `rung push`, publishing a file over and over in real time.
pub(crate) fn push_loop(file: &Path, url: &str, more: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.args(["push", "--quiet", "--loop"]).args(more).arg(file).arg(url);
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("rung starts"))
}

/// Real ffmpeg, publishing a file in real time.
pub(crate) fn ffmpeg_publish(file: &Path, url: &str, more: &[&str]) -> Running {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re"]).args(more).arg("-i").arg(file);
    // Without lingering libsrt throws away what it has not sent when ffmpeg closes.
    command.args(["-c", "copy", "-f", "mpegts", &format!("{url}&linger=2")]).stdin(Stdio::null());
    Running(command.spawn().expect("ffmpeg is installed"))
}

/// Real ffmpeg that listens, and plays `file` over and over to the first that calls.
pub(crate) fn ffmpeg_listen(file: &Path, port: u16, options: &str) -> Running {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re", "-stream_loop", "-1", "-i"]).arg(file);
    let url = format!("srt://127.0.0.1:{port}?mode=listener{options}");
    command.args(["-c", "copy", "-f", "mpegts", &url]).stdin(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().expect("ffmpeg is installed"))
}

/// A UDP port that was free a moment ago, and is no other test's of this process.
pub(crate) fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let free = || UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback").port();
    let port = std::iter::repeat_with(free).find(|port| !taken.contains(port)).expect("there are more");
    taken.push(port);
    port
}

/// A clip made once by real ffmpeg and kept beside the build: `args` between the inputs and the output name.
pub(crate) fn clip(name: &str, args: &[&str]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clips");
    std::fs::create_dir_all(&folder).expect("writable target folder");
    // Several tests of one process may want it at once.
    static MAKING: Mutex<()> = Mutex::new(());
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let file = folder.join(name);
    if file.exists() {
        return file;
    }
    let part = folder.join(format!("{}.{name}", std::process::id()));
    let status = Command::new("ffmpeg").args(["-v", "error", "-y"]).args(args).arg(&part).status();
    assert!(status.expect("ffmpeg is installed").success(), "ffmpeg {args:?}");
    std::fs::rename(&part, &file).expect("same folder");
    file
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// One HTTP/1.1 request on a connection of its own.
pub(crate) fn get(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut stream = TcpStream::connect(to).expect("the daemon listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("settable");
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("answered");
    let split = all.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&all[..split]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok()).expect("a status line");
    let headers: Vec<(String, String)> =
        lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut body = all[split + 4..].to_vec();
    let chunked = headers.iter().any(|(n, v)| n.eq_ignore_ascii_case("transfer-encoding") && v == "chunked");
    if chunked {
        body = unchunk(&body);
    }
    Response { status, headers, body }
}

pub(crate) fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(String::from_utf8_lossy(&bytes[..end]).trim(), 16).expect("a chunk size");
        if size == 0 {
            break;
        }
        out.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
    out
}

//! The model player over HTTP: follows every rendition of a channel, keeps what it fetched, and reads the pictures'
//! frame counters back.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rung::package::player::{Fetch, Player, Report};
use rung::time::{Clock, Mono, SystemClock};

use super::numbered;

/// A viewer that fetches everything, until it is stopped.
pub(crate) struct Follow {
    stop: Arc<AtomicBool>,
    /// Parts that it has.
    parts: Arc<AtomicUsize>,
    thread: JoinHandle<Followed>,
}

/// What it saw and kept.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    pub(crate) report: Report,
    /// The first multivariant playlist.
    pub(crate) multivariant: String,
    /// When it came.
    pub(crate) playable: Option<Mono>,
    pub(crate) renditions: BTreeMap<String, Fetched>,
}

/// One rendition's media.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// By URI, in the order of their first request.
    pub(crate) inits: Vec<(String, Bytes)>,
    pub(crate) segments: BTreeMap<u64, Bytes>,
    /// When each part came, by (segment, part).
    pub(crate) parts: BTreeMap<(u64, u64), Mono>,
    /// The newest whole playlist.
    pub(crate) playlist: String,
}

struct Answer {
    fetch: Fetch,
    status: u16,
    body: Bytes,
}

impl Follow {
    pub(crate) fn start(http: SocketAddr, channel: &str) -> Follow {
        Follow::begin(http, format!("/live/{channel}/index.m3u8"), false)
    }

    /// From a multivariant playlist at any path.
    pub(crate) fn at(http: SocketAddr, playlist: &str) -> Follow {
        Follow::begin(http, playlist.to_owned(), false)
    }

    fn begin(http: SocketAddr, playlist: String, restarts: bool) -> Follow {
        let stop = Arc::new(AtomicBool::new(false));
        let parts = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&parts));
        let thread = std::thread::spawn(move || follow(http, &playlist, restarts, &stopped, &counted));
        Follow { stop, parts, thread }
    }

    /// A viewer that bears with an origin whose process is killed.
    pub(crate) fn through_restarts(http: SocketAddr, channel: &str) -> Follow {
        Follow::begin(http, format!("/live/{channel}/index.m3u8"), true)
    }

    /// Stops and reports.
    pub(crate) fn stop(self) -> Followed {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the viewer does not panic")
    }

    /// Waits until it has so many parts, of all renditions together.
    pub(crate) fn wait_for_parts(&self, parts: usize) {
        let what = format!("a viewer's {parts} parts");
        super::daemon::wait(Duration::from_secs(20), &what, || {
            (self.parts.load(Ordering::Relaxed) >= parts).then_some(())
        });
    }

    /// Waits for ENDLIST on every rendition, for `SLOW` times `limit` at most, then reports.
    pub(crate) fn until_ended(self, limit: Duration) -> Followed {
        let end = SystemClock::mono() + super::daemon::SLOW * limit;
        while !self.thread.is_finished() && SystemClock::mono() < end {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.stop()
    }
}

fn follow(http: SocketAddr, playlist: &str, restarts: bool, stop: &AtomicBool, parts: &AtomicUsize) -> Followed {
    let mut player = Player::new(playlist);
    if restarts {
        player.origin_may_restart();
    }
    let mut seen = Followed::default();
    let (send, receive): (SyncSender<Answer>, Receiver<Answer>) = sync_channel(256);
    let mut out = 0;
    while !stop.load(Ordering::Relaxed) {
        while let Some(fetch) = player.poll(SystemClock.now()) {
            out += 1;
            let send = send.clone();
            std::thread::spawn(move || {
                let (status, body) = get(http, &fetch.uri).unwrap_or((0, Bytes::new()));
                drop(send.send(Answer { fetch, status, body }));
            });
        }
        // The last segment is asked for behind the playlist that says so.
        if player.report().ended && out == 0 {
            break;
        }
        let now = SystemClock::mono();
        let wait = player.deadline().map_or(Duration::from_millis(50), |at| at - now).min(Duration::from_millis(50));
        let mut next = receive.recv_timeout(wait.max(Duration::from_millis(1))).ok();
        while let Some(answer) = next {
            out -= 1;
            let now = SystemClock.now();
            seen.keep(now.mono, &answer);
            player.response(now, answer.fetch.id, answer.status, &answer.body);
            next = receive.try_recv().ok();
        }
        parts.store(seen.renditions.values().map(|fetched| fetched.parts.len()).sum(), Ordering::Relaxed);
    }
    seen.report = player.report();
    seen
}

impl Followed {
    fn keep(&mut self, now: Mono, answer: &Answer) {
        if answer.status != 200 {
            return;
        }
        let path = answer.fetch.uri.split('?').next().unwrap_or("");
        let names: Vec<&str> = path.rsplit('/').collect();
        let text = || String::from_utf8_lossy(&answer.body).into_owned();
        if path.ends_with("index.m3u8") {
            self.playable.get_or_insert(now);
            self.multivariant = text();
        } else if let Some(name) = names[0].strip_suffix(".m3u8") {
            // The model player judges I frames; what is kept here is what viewers watch.
            if name.ends_with(".iframes") {
                return;
            }
            let text = text();
            if !text.contains("#EXT-X-SKIP") {
                self.renditions.entry(name.to_owned()).or_default().playlist = text;
            }
        } else if let Some(name) = names.get(1) {
            let fetched = self.renditions.entry((*name).to_owned()).or_default();
            let number = names[0].trim_end_matches(".m4s");
            if names[0].starts_with("init") {
                if !fetched.inits.iter().any(|(uri, _)| uri == path) {
                    fetched.inits.push((path.to_owned(), answer.body.clone()));
                }
            } else if let Some(msn) = number.strip_prefix('s').and_then(|n| n.parse().ok()) {
                fetched.segments.insert(msn, answer.body.clone());
            } else if let Some((msn, part)) = number.strip_prefix('p').and_then(|n| n.split_once('.')) {
                let key = (msn.parse().expect("a number"), part.parse().expect("a number"));
                fetched.parts.entry(key).or_insert(now);
            }
        }
    }

    /// Nothing was broken, and something was there to break. How late a rendition's encoder was is no promise: `late`.
    #[track_caller]
    pub(crate) fn assert_satisfied(&self, what: &str) {
        let r = &self.report;
        assert_eq!(r.broken, 0, "{what}: {:#?}", r.violations);
        assert!(r.segments >= 2, "{what}: it saw almost nothing: {r:?}");
    }

    pub(crate) fn rendition(&self, name: &str) -> &Fetched {
        self.renditions.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", self.renditions.keys()))
    }

    /// Segments and parts listed as GAP, by rendition, as far as the newest playlists name them.
    pub(crate) fn gaps(&self) -> Vec<(String, String)> {
        let mut gaps = Vec::new();
        for (name, fetched) in &self.renditions {
            let lines = fetched.playlist.lines().filter(|l| l.contains("GAP"));
            gaps.extend(lines.map(|line| (name.clone(), line.to_owned())));
            let segments = fetched.playlist.split("#EXT-X-GAP").skip(1);
            gaps.extend(
                segments.filter_map(|s| Some((name.clone(), s.lines().find(|l| !l.starts_with('#'))?.to_owned()))),
            );
        }
        gaps
    }

    /// No media is listed behind a GAP: all there are lie at the end, where a publisher lingered before it closed.
    #[track_caller]
    pub(crate) fn assert_gaps_at_the_end_only(&self, what: &str) {
        for (name, fetched) in &self.renditions {
            let parts: Vec<&str> = fetched.playlist.lines().filter(|l| l.starts_with("#EXT-X-PART:")).collect();
            let first = parts.iter().position(|l| l.contains("GAP=YES")).unwrap_or(parts.len());
            assert!(parts[first..].iter().all(|l| l.contains("GAP=YES")), "{what}: {name}: {}", fetched.playlist);
            // Whole segments of nothing: only the last ones.
            let segments: Vec<&str> = fetched.playlist.split("#EXTINF").skip(1).collect();
            let gap = |i: usize| i > 0 && segments[i - 1].contains("#EXT-X-GAP");
            let first = (0..segments.len()).find(|i| gap(*i)).unwrap_or(segments.len());
            assert!((first..segments.len()).all(gap), "{what}: {name}: {}", fetched.playlist);
        }
    }

    /// The line of the multivariant playlist that leads to `name`.
    pub(crate) fn variant(&self, name: &str) -> String {
        let uri = format!("{name}.m3u8");
        let lines: Vec<&str> = self.multivariant.lines().collect();
        let at = lines.iter().position(|l| *l == uri || l.contains(&format!("\"{uri}\"")));
        let at = at.unwrap_or_else(|| panic!("no {name} in {}", self.multivariant));
        if lines[at] == uri { lines[at - 1].to_owned() } else { lines[at].to_owned() }
    }
}

impl Fetched {
    /// The fetched segments in a row, behind their init section: a file that any player reads.
    #[track_caller]
    pub(crate) fn file(&self) -> Vec<u8> {
        assert_eq!(self.inits.len(), 1, "one init section: {:?}", self.inits.iter().map(|i| &i.0).collect::<Vec<_>>());
        let msns: Vec<u64> = self.segments.keys().copied().collect();
        assert!(msns.windows(2).all(|w| w[1] == w[0] + 1), "segments in a row: {msns:?}");
        let mut file = self.inits[0].1.to_vec();
        self.segments.values().for_each(|s| file.extend_from_slice(s));
        file
    }

    /// The counters of all pictures, in the order in which they are shown.
    #[track_caller]
    pub(crate) fn counters(&self) -> Vec<Option<u32>> {
        numbered::read_counters(&self.file())
    }

    /// Every picture's counter could be read, and each follows the one before; the first. A publisher that lingers before
    /// it closes is filled: the last picture may be held at the end, and slate may follow.
    #[track_caller]
    pub(crate) fn assert_consecutive(&self, what: &str) -> u32 {
        let mut counters = self.counters();
        while counters.pop_if(|last| last.is_none()).is_some() {}
        while counters.len() > 1 && counters[counters.len() - 1] == counters[counters.len() - 2] {
            counters.pop();
        }
        let first = counters.first().copied().flatten().unwrap_or_else(|| panic!("{what}: no counter: {counters:?}"));
        for (index, counter) in counters.iter().enumerate() {
            let expected = first + u32::try_from(index).expect("few");
            assert!(
                *counter == Some(expected),
                "{what}: picture {index} is {counter:?}, not {expected}: {:?}",
                &counters[index.saturating_sub(3)..(index + 6).min(counters.len())]
            );
        }
        first
    }

    /// Pictures a segment, by what its sample tables say; and each begins with an IDR.
    #[track_caller]
    pub(crate) fn assert_segments_begin_with_idr(&self, what: &str) {
        assert!(!self.segments.is_empty(), "{what}: no segment");
        let hevc = self.inits.iter().any(|(_, init)| init.windows(4).any(|four| four == b"hvc1"));
        for (msn, body) in &self.segments {
            let types = first_nal_types(body, hevc);
            let first = types.last().is_some_and(|kind| if hevc { matches!(kind, 19 | 20) } else { *kind == 5 });
            assert!(first, "{what}: segment {msn} begins with {types:?}");
        }
    }

    /// The longest time between two parts that came one after the other.
    pub(crate) fn longest_wait(&self) -> Duration {
        let mut times: Vec<Mono> = self.parts.values().copied().collect();
        times.sort_unstable();
        times.windows(2).map(|w| w[1] - w[0]).max().unwrap_or_default()
    }
}

/// NAL unit types at the start of the first `mdat`, up to the first slice.
fn first_nal_types(mut body: &[u8], hevc: bool) -> Vec<u8> {
    let size = |b: &[u8]| u32::from_be_bytes(b[..4].try_into().expect("four bytes")) as usize;
    while body.len() >= 8 && &body[4..8] != b"mdat" {
        body = &body[size(body)..];
    }
    let mut types = Vec::new();
    let mut nals = &body[8.min(body.len())..];
    let is_slice = |kind: &u8| if hevc { *kind < 32 } else { matches!(kind, 1..=5) };
    while nals.len() > 4 && !types.iter().any(is_slice) {
        types.push(if hevc { nals[4] >> 1 & 63 } else { nals[4] & 31 });
        nals = nals.get(4 + size(nals)..).unwrap_or_default();
    }
    types
}

/// What ffprobe says of a file, as `key=value` lines.
pub(crate) fn ffprobe(file: &[u8], arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("media.mp4");
    std::fs::write(&path, file).expect("writable");
    ffprobe_path(&path, arguments)
}

fn ffprobe_path(path: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-of", "default=nw=1"]).args(arguments).arg(path).stdin(Stdio::null());
    let output = command.output().expect("ffprobe is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ffprobe: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &said
}

fn get(to: SocketAddr, path: &str) -> std::io::Result<(u16, Bytes)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let bad = || std::io::Error::other("not an answer");
    let split = all.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(bad)?;
    let head = String::from_utf8_lossy(&all[..split]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(bad)?;
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
    let body = Bytes::from(all).slice(split + 4..);
    let body =
        if head.contains("transfer-encoding: chunked") { Bytes::from(super::daemon::unchunk(&body)) } else { body };
    if length.is_some_and(|l: usize| l != body.len()) { Err(bad()) } else { Ok((status, body)) }
}

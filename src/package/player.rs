//! The model player: a strict Low-Latency HLS client without sockets or clocks, which follows every rendition and
//! writes down each promise that was broken. I-frame playlists are followed like renditions without parts.
//!
//! `poll` gives requests to send, `response` takes answers; both need the time. What it checks is in `judge` (playlists)
//! and `media` (bytes). It starts at the last three segments of a playlist and fetches everything from there on: parts
//! through their hints, whole segments beside them, one part of each segment twice.

mod judge;
mod media;
pub mod parse;

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::time::{Mono, Now};
use judge::Track;

/// A request to send now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub id: u64,
    /// Resolved against the multivariant playlist's address.
    pub uri: String,
}

/// What was seen and what was broken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The first hundred, each a sentence that names rendition and place.
    pub violations: Vec<String>,
    /// All of them.
    pub broken: u64,
    /// The first hundred times that a rendition's edge lay over a part from what it reported of another's: one of them came
    /// late. That is a matter of speed; that no report is stale or early is a promise.
    pub late: Vec<String>,
    pub renditions: usize,
    pub playlists: u64,
    pub deltas: u64,
    pub parts: u64,
    pub segments: u64,
    pub gaps: u64,
    pub discontinuities: u64,
    pub bytes: u64,
    /// Of I-frame playlists.
    pub pictures: u64,
    /// Date ranges, each counted once a rendition.
    pub dates: u64,
    /// Preload hints that were served, and those that never became a part.
    pub hints: u64,
    pub hints_missed: u64,
    /// Wall clock at listing less the end of the last part (or segment) on the PROGRAM-DATE-TIME line, milliseconds.
    pub latency_ms: Option<i64>,
    pub latency_ms_max: Option<i64>,
    pub ended: bool,
    /// Requests that a lost origin left without an answer.
    pub unanswered: u64,
}

#[derive(Debug)]
pub struct Player {
    multivariant: String,
    tracks: Vec<Track>,
    sent: BTreeMap<u64, Sent>,
    next_id: u64,
    /// When to ask for the multivariant playlist; `None`: asked, or had.
    ask: Option<Mono>,
    log: Log,
    /// Every URI's content, the newest so many.
    contents: BTreeMap<String, u64>,
    order: VecDeque<String>,
}

#[derive(Clone, Debug)]
struct Sent {
    track: usize,
    what: What,
    at: Now,
    uri: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Multivariant,
    /// Asked-for segment and part.
    Playlist(Option<(u64, u64)>),
    Init(String),
    Part {
        msn: u64,
        index: usize,
    },
    Hint(String),
    Segment(u64),
    Again,
}

/// Violations and counts, shared by all checks.
#[derive(Debug, Default)]
struct Log {
    report: Report,
    /// The origin's process may be lost.
    forgiving: bool,
}

impl Log {
    fn broken(&mut self, sentence: String) {
        self.report.broken += 1;
        if self.report.violations.len() < SENTENCES_MAX {
            self.report.violations.push(sentence);
        }
    }

    fn late(&mut self, sentence: String) {
        if self.report.late.len() < SENTENCES_MAX {
            self.report.late.push(sentence);
        }
    }
}

/// Of each kind that are kept.
const SENTENCES_MAX: usize = 100;
/// URIs whose content is remembered.
const CONTENTS_MAX: usize = 4_096;
/// Between tries for a multivariant playlist that is not there yet.
const RETRY: Duration = Duration::from_millis(500);

/// What `uri` means in the playlist at `playlist`. Steps upward go as RFC 3986 5.2.4 removes them.
fn resolve(playlist: &str, uri: &str) -> String {
    if uri.starts_with('/') || uri.contains("://") {
        return uri.to_owned();
    }
    let path = playlist.split('?').next().unwrap_or(playlist);
    let (mut base, mut rest) = (path.rsplit_once('/').map_or("", |(base, _)| base), uri);
    while let Some(below) = rest.strip_prefix("../") {
        (base, rest) = (base.rsplit_once('/').map_or("", |(above, _)| above), below);
    }
    format!("{base}/{rest}")
}

impl Player {
    /// `multivariant`: absolute path or URL; playlists are resolved against it, and media against theirs.
    pub fn new(multivariant: &str) -> Player {
        Player {
            multivariant: multivariant.to_owned(),
            tracks: Vec::new(),
            sent: BTreeMap::new(),
            next_id: 0,
            ask: Some(Mono(0)),
            log: Log::default(),
            contents: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// The origin's process may be lost from now on, and another one take its place: requests fail meanwhile, and what the
    /// lost one had listed may be GAP afterwards. Numbers, targets and everything else still hold.
    pub fn origin_may_restart(&mut self) {
        self.log.forgiving = true;
    }

    /// The next request to send, if one is due.
    pub fn poll(&mut self, now: Now) -> Option<Fetch> {
        if self.ask.is_some_and(|at| at <= now.mono) {
            self.ask = None;
            return Some(self.send(now, 0, What::Multivariant, self.multivariant.clone()));
        }
        for index in 0..self.tracks.len() {
            if let Some((what, uri)) = self.tracks[index].next(now.mono) {
                // Playlists are named by the multivariant one, media by their playlist.
                let uri = match what {
                    What::Playlist(_) => resolve(&self.multivariant, &uri),
                    _ => resolve(&resolve(&self.multivariant, &self.tracks[index].uri), &uri),
                };
                return Some(self.send(now, index, what, uri));
            }
        }
        None
    }

    /// When `poll` may have something without a response before it.
    pub fn deadline(&self) -> Option<Mono> {
        self.tracks.iter().filter_map(Track::deadline).chain(self.ask).min()
    }

    /// The answer to fetch `id`. A connection that failed is status 0.
    pub fn response(&mut self, now: Now, id: u64, status: u16, body: &Bytes) {
        let Some(sent) = self.sent.remove(&id) else { return };
        self.log.report.bytes += body.len() as u64;
        if sent.what == What::Multivariant {
            self.variants(now, status, body);
            return;
        }
        if status == 200 && !matches!(sent.what, What::Playlist(_)) {
            self.remember(&sent.uri, body);
        }
        let (log, track) = (&mut self.log, sent.track);
        let lost = status == 0 || status == 503 || (status == 404 && self.tracks[track].was_lost());
        if log.forgiving && lost {
            log.report.unanswered += 1;
            return self.tracks[track].unanswered(now.mono, &sent.what);
        }
        match sent.what {
            What::Playlist(asked) => {
                let took = now.mono.since(sent.at.mono);
                self.tracks[track].playlist(log, now, asked, took, status, body);
                self.compare(track, sent.at.mono, now.mono);
            }
            What::Init(uri) => self.tracks[track].init(log, uri, status, body),
            What::Part { msn, index } => self.tracks[track].part(log, msn, index, status, body),
            What::Hint(uri) => self.tracks[track].hinted(log, now, uri, status, body),
            What::Segment(msn) => self.tracks[track].segment(log, msn, status, body),
            What::Again => {
                self.tracks[track].busy = false;
                if status != 200 {
                    log.broken(format!("{}: {status} when asked again", sent.uri));
                }
            }
            What::Multivariant => {}
        }
    }

    pub fn report(&self) -> Report {
        let mut report = self.log.report.clone();
        report.renditions = self.tracks.iter().filter(|track| !track.frames).count();
        report.ended = !self.tracks.is_empty() && self.tracks.iter().all(|t| t.ended);
        report
    }

    fn send(&mut self, at: Now, track: usize, what: What, uri: String) -> Fetch {
        let id = self.next_id;
        self.next_id += 1;
        self.sent.insert(id, Sent { track, what, at, uri: uri.clone() });
        Fetch { id, uri }
    }

    fn variants(&mut self, now: Now, status: u16, body: &Bytes) {
        let text = std::str::from_utf8(body).unwrap_or("");
        let uris = parse::multivariant(text);
        if status != 200 || uris.is_empty() {
            self.ask = Some(now.mono + RETRY);
            return;
        }
        let mut codecs = BTreeMap::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(line) = line.strip_prefix("#EXT-X-STREAM-INF:") else { continue };
            let mut attributes = parse::attributes(line);
            for needed in ["BANDWIDTH", "CODECS"] {
                if !attributes.contains_key(needed) {
                    self.log.broken(format!("multivariant: a variant without {needed}"));
                }
            }
            codecs.extend(lines.next().map(str::to_owned).zip(attributes.remove("CODECS")));
        }
        let independent = text.lines().any(|line| line == "#EXT-X-INDEPENDENT-SEGMENTS");
        let track = |uri: String| Track::new(uri.clone(), codecs.remove(&uri), independent, now.mono);
        self.tracks = uris.into_iter().map(track).collect();
        for mut said in parse::iframes(text) {
            for needed in ["BANDWIDTH", "CODECS", "RESOLUTION", "URI"] {
                if !said.contains_key(needed) {
                    self.log.broken(format!("multivariant: an I-frame stream without {needed}"));
                }
            }
            let uri = said.remove("URI").unwrap_or_default();
            let mut track = Track::new(uri, said.remove("CODECS"), true, now.mono);
            track.frames = true;
            self.tracks.push(track);
        }
    }

    /// One URI never names two byte strings.
    fn remember(&mut self, uri: &str, body: &Bytes) {
        let hash =
            body.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        match self.contents.get(uri) {
            Some(before) if *before != hash => self.log.broken(format!("{uri}: has two contents")),
            Some(_) => {}
            None => {
                if self.order.len() == CONTENTS_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.contents.remove(&oldest);
                }
                self.order.push_back(uri.to_owned());
                self.contents.insert(uri.to_owned(), hash);
            }
        }
    }

    /// What this rendition's newest playlist and the others say of each other.
    fn compare(&mut self, track: usize, asked: Mono, now: Mono) {
        let Some(promises) = self.tracks[track].promises.clone() else { return };
        let own = &mut self.tracks[track];
        let (per_segment, edge, name) = (own.parts_per_segment(), own.edge(), own.uri.clone());
        let mut broken = Vec::new();
        for (uri, msn, part) in std::mem::take(&mut own.reports) {
            // A shed rendition leaves the multivariant playlist but keeps its media playlist and its reports.
            let Some(other) = self.tracks.iter().position(|t| t.uri == uri) else { continue };
            let claim = (msn, part);
            let seen = self.tracks[other].edge_before(asked);
            if self.tracks[other].frames || self.tracks[track].frames {
                // Without parts on both sides only segments can be compared.
                if seen.is_some_and(|seen| seen.0 > claim.0.saturating_add(1)) {
                    broken.push(format!("{name}: report of {uri} is stale: {claim:?}, seen {seen:?}"));
                }
                continue;
            }
            if seen.is_some_and(|seen| absolute(seen, per_segment) > absolute(claim, per_segment).saturating_add(2)) {
                broken.push(format!("{name}: report of {uri} is stale: {claim:?}, seen {seen:?}"));
            }
            if let (Some(edge), true) = (edge, per_segment > 0)
                && self.parts_apart((track, edge), (other, claim)) > 1
            {
                self.log.late(format!("{name}: its edge {edge:?} and that of {uri}, {claim:?}, are over a part apart"));
            }
            let claims = &mut self.tracks[other].claims;
            if claims.len() < 64 {
                claims.push_back((now, claim));
            }
        }
        let first = self.tracks.iter().find_map(|t| t.promises.as_ref());
        let parts = |p: &parse::Promises| if self.tracks[track].frames { 0 } else { p.part_target };
        let same = |p: &parse::Promises| (p.target_duration, parts(p), p.server_control.clone());
        if first.is_some_and(|first| same(first) != same(&promises)) {
            broken.push(format!("{name}: other targets than the other renditions"));
        }
        // Playlists that end alike tell of the same date ranges.
        let own = &self.tracks[track];
        for other in self.tracks.iter().filter(|t| !t.frames && !own.frames && t.following() == own.following()) {
            if !other.dates.keys().eq(own.dates.keys()) {
                broken.push(format!("{name}: other date ranges than {}", other.uri));
            }
        }
        broken.into_iter().for_each(|sentence| self.log.broken(sentence));
    }

    /// Parts from the one that lies behind to the other one, each of a track, as the track that is ahead lists them.
    fn parts_apart(&self, a: (usize, (u64, u64)), b: (usize, (u64, u64))) -> u64 {
        let (from, to) = if a.1 < b.1 { (a, b) } else { (b, a) };
        self.tracks[to.0].parts_between(from.1, to.1)
    }
}

/// A part's number since segment 0, were all segments equal.
fn absolute((msn, part): (u64, u64), per_segment: u64) -> u64 {
    msn.saturating_mul(per_segment).saturating_add(part.min(per_segment))
}

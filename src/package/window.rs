//! What one rendition publishes, and the answers to requests for it: sans-IO, woken by std wakers.
//!
//! Ask like this: `wait` first, then ask, then `cancel` if the answer was final; a change between asking and waiting
//! would else be missed. Memory: `retained::Retained`.

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::task::Waker;
use std::time::Duration;

use super::dates::{DateRange, Ledger, Listed};
use super::fmp4::init::InitSection;
use super::listing::{Listing, Report};
use super::part::Part;
use super::playlist::multivariant::Row;
use super::retained::{Retained, Segment};
use crate::media::channel::SessionId;
use crate::media::grid::{Cadence, FrameRate};
use crate::media::modes::LatencyMode;
use crate::media::track::{AudioRole, TrackConfig};
use crate::time::{Mono, Wall};

/// LL-HLS delivery directives [HLS 6.2.5].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `_HLS_msn`
    pub msn: Option<u64>,
    /// `_HLS_part`
    pub part: Option<u32>,
    /// `_HLS_skip`
    pub skip: Skip,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Skip {
    #[default]
    No,
    Yes,
    V2,
}

/// What a request gets now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    Now(T),
    /// Ask again when woken, or at this instant at the latest (then it is refused).
    Until(Mono),
    Refuse(Refusal),
}

/// Why a request is refused; `serve` maps it to a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: the directives make no sense; the sentence says why.
    BadRequest(String),
    /// 404: does not exist (any more).
    NotFound(String),
    /// 503, no-store: did not come in time.
    NotYet(String),
}

/// One version of a playlist, rendered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Playlist {
    pub plain: Bytes,
    pub gzip: Bytes,
    /// Strong entity tag, with quotes.
    pub etag: String,
}

impl Playlist {
    pub(super) fn of(plain: Bytes) -> Playlist {
        let mut gzip = GzBuilder::new().write(Vec::with_capacity(plain.len() / 4), Compression::fast());
        gzip.write_all(&plain).expect("a Vec takes any bytes");
        let gzip = Bytes::from(gzip.finish().expect("a Vec takes any bytes"));
        // FNV-1a, 64 bits: equal text, equal tag, on any box.
        let hash =
            plain.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        Playlist { plain, gzip, etag: format!("\"{hash:016x}\"") }
    }
}

/// Bytes of a part (one chunk) or a segment (its parts).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media {
    pub chunks: Vec<Bytes>,
}

impl Media {
    pub fn length(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

/// What a media playlist promises for a session's whole life [HLS 4.4.3.1, 4.4.3.7, 4.4.3.8].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// EXT-X-TARGETDURATION, seconds.
    pub target_duration: u32,
    /// Parts, blocking reload, hints, reports.
    pub parts: bool,
    pub part_target_ms: u32,
    pub part_hold_back_ms: u32,
    pub hold_back_ms: u32,
    /// CAN-SKIP-UNTIL, seconds.
    pub can_skip_until: u32,
    /// Whole segments listed.
    pub window_segments: usize,
    /// Segments that stay available once they have left the playlist: as many as it lists, so that each stays for its own
    /// duration and the longest playlist's that held it [HLS 6.2.2].
    pub linger_segments: usize,
    /// Those that the mode lists, by which memory is reckoned.
    pub usual_segments: usize,
    /// The last so many whole segments list their parts, beside the open one.
    pub segments_with_parts: usize,
}

impl Targets {
    /// Those of a ladder: the mode's. `hold_back_ms`: the channel's PART-HOLD-BACK, kept at max(1.2 s, 3 x PART-TARGET)
    /// or more; `None`: the mode's.
    pub fn ladder(mode: LatencyMode, cadence: Cadence, hold_back_ms: Option<u32>) -> Targets {
        Targets::source(mode, cadence, mode.params().target_duration, hold_back_ms)
    }

    /// Those of a session with a source rendition, for all its renditions: HOLD-BACK is 3 (`low`: 3.5) times
    /// `target_duration`, CAN-SKIP-UNTIL 6 times.
    pub fn source(mode: LatencyMode, cadence: Cadence, target_duration: u32, hold_back_ms: Option<u32>) -> Targets {
        let params = mode.params();
        let part_target_ms = cadence.part_target_ms();
        let least = (3 * part_target_ms).max(1_200);
        let half_seconds = if mode == LatencyMode::Low { 7 } else { 6 };
        Targets {
            target_duration,
            parts: params.parts,
            part_target_ms,
            part_hold_back_ms: hold_back_ms.unwrap_or(params.part_hold_back_ms).max(least),
            hold_back_ms: target_duration.saturating_mul(half_seconds * 500),
            can_skip_until: target_duration.saturating_mul(6),
            window_segments: params.window_segments,
            linger_segments: params.window_segments,
            usual_segments: params.window_segments,
            segments_with_parts: params.segments_with_parts,
        }
    }

    /// With a window of so many seconds, six segments at least; `None`: the mode's. What left it stays as long again, the
    /// mode's window at least.
    #[must_use]
    pub fn windowed(self, cadence: Cadence, window_s: Option<u32>) -> Targets {
        let Some(seconds) = window_s else { return self };
        let frames = u64::from(seconds) * u64::from(cadence.rate.num);
        let segments = frames.div_ceil(u64::from(cadence.rate.den) * u64::from(cadence.segment.max(1)));
        let window_segments = usize::try_from(segments).unwrap_or(usize::MAX).max(6);
        Targets { window_segments, linger_segments: window_segments.max(self.usual_segments), ..self }
    }

    /// Media bytes that a rendition of `rate` bits per second may hold, a quarter more than it says; what a source does
    /// nobody knows, so it gets room for 25 Mb/s.
    pub fn bytes_max(&self, rate: u64, of_source: bool) -> usize {
        let longer = self.linger_segments.div_ceil(self.usual_segments.max(1));
        if of_source {
            return RETAINED_BYTES_MAX.saturating_mul(longer);
        }
        let segments = (self.window_segments + self.linger_segments + 1) as u64;
        let held = rate.saturating_mul(segments * u64::from(self.target_duration)) / 32 * 5;
        usize::try_from(held).unwrap_or(usize::MAX).max(RETAINED_BYTES_MAX)
    }

    /// EXT-X-START's TIME-OFFSET for a wish: not nearer to the end than HOLD-BACK, not before the window.
    pub fn start(&self, cadence: Cadence, offset_s: i32) -> i32 {
        let span = u64::from(cadence.segment) * u64::from(cadence.rate.den) * self.window_segments as u64;
        let window = u32::try_from(span / u64::from(cadence.rate.num.max(1))).unwrap_or(u32::MAX);
        let least = self.hold_back_ms.div_ceil(1_000);
        let back = offset_s.unsigned_abs().min(window).max(least);
        -i32::try_from(back).unwrap_or(i32::MAX)
    }

    /// A blocked playlist request is refused after this.
    pub fn playlist_patience(&self) -> Duration {
        Duration::from_secs(3 * u64::from(self.target_duration))
    }

    /// A request for hinted media is refused after this.
    pub fn hint_patience(&self) -> Duration {
        Duration::from_millis(3 * u64::from(self.part_target_ms))
    }

    /// A removed date range is named for CAN-SKIP-UNTIL, and a segment more [HLS 6.2.5.1].
    fn dates_named(&self) -> Duration {
        Duration::from_secs(u64::from(self.can_skip_until.saturating_add(self.target_duration)))
    }

    /// How far a part index may lie ahead of the last one [HLS 6.2.5.2].
    fn advance_parts(&self) -> usize {
        (3_000 / self.part_target_ms.clamp(1, 1_000)) as usize
    }
}

/// What kind of track a rendition is, for the multivariant playlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Video {
        /// FRAME-RATE; `None`: variable.
        rate: Option<FrameRate>,
    },
    Audio {
        /// ISO 639-2, as the PMT names it.
        language: Option<String>,
        default: bool,
        role: AudioRole,
    },
}

/// Everything about a rendition that does not change while a session lasts.
#[derive(Clone, Debug)]
pub struct RenditionSpec {
    pub session: SessionId,
    /// `720p`, `source`, `a-eng-1`: the playlist is `<name>.m3u8`.
    pub name: String,
    pub kind: Kind,
    pub targets: Targets,
    /// Every segment starts with a sample at which decoding can start: EXT-X-INDEPENDENT-SEGMENTS.
    pub independent_segments: bool,
    /// BANDWIDTH until three segments were measured, bits per second.
    pub bandwidth_cap: u64,
    /// Media bytes that may be held: beyond them the oldest segments go first. `RETAINED_BYTES_MAX` fits most.
    pub retained_bytes_max: usize,
    pub before: Before,
}

impl RenditionSpec {
    /// Every segment of it begins with an I frame: it has an I-frame playlist, `<name>.iframes.m3u8` [HLS 4.4.3.6].
    pub fn has_iframes(&self) -> bool {
        self.independent_segments && matches!(self.kind, Kind::Video { .. })
    }
}

/// What a rendition's playlist said before its process was lost; zeros for a new session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// EXT-X-DISCONTINUITY-SEQUENCE of the first segment that will be listed.
    pub discontinuities: u64,
    /// Number of the first init section.
    pub map: u32,
}

/// Default of `RenditionSpec::retained_bytes_max`: 62 s (two windows) of 25 Mb/s.
pub const RETAINED_BYTES_MAX: usize = 192 << 20;

const NO_IFRAMES: &str = "this rendition has no I-frame playlist: not every segment begins with an I frame";
const SUSPENDED: &str = "the server restarts: ask again";

/// `a-<lang>-<n>`, `n` from 1.
pub fn audio_name(language: Option<&str>, n: usize) -> String {
    let code = language.filter(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_lowercase())).unwrap_or("und");
    format!("a-{code}-{n}")
}

/// What is true of a rendition now: for latency gauges, health and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Grows with every change that a player can see.
    pub version: u64,
    /// Media sequence number and index of the last part.
    pub last: Option<(u64, u32)>,
    pub last_part_at: Option<Mono>,
    pub bytes_held: usize,
    pub segments_held: usize,
    /// GAP parts published so far.
    pub gap_parts: u64,
    /// Playlists rendered so far: at most six a version (whole, delta, delta without old date ranges; I-frame playlists).
    pub renders: u64,
    pub waiting: usize,
    pub playable: bool,
    pub ended: bool,
    pub shed: bool,
}

/// One rendition's published window, shared between its packager and all its viewers.
#[derive(Debug)]
pub struct RenditionOutput {
    spec: RenditionSpec,
    state: Mutex<State>,
    waiting: Mutex<Waiting>,
    edge: Arc<Edge>,
    board: OnceLock<Arc<Board>>,
    renders: AtomicU64,
    shed: AtomicBool,
}

#[derive(Debug)]
struct State {
    retained: Retained,
    version: u64,
    ended: bool,
    /// The process stops: nobody waits here any more.
    suspended: bool,
    last_part_at: Option<Mono>,
    dates: Listed,
    /// This version's texts, once someone asked: of the media playlist, then of the I-frame playlist.
    texts: [Texts; 2],
}

/// Of one playlist.
#[derive(Debug, Default)]
struct Texts {
    /// Whole, delta, delta without old date ranges.
    forms: [Option<Arc<Text>>; 3],
    /// Behind this instant the third one has a date range too many.
    aged: Option<Mono>,
}

/// A playlist text, and its finished form once someone needs it: compressed outside the state's lock, by one asker.
#[derive(Debug)]
struct Text {
    plain: Bytes,
    done: OnceLock<Arc<Playlist>>,
}

/// Those who wait for the next change, and those whose change has come and who are still to be woken: the publisher wakes
/// a few, each of them a few more, so that a thousand waiters cost it no more than a few do.
#[derive(Debug, Default)]
struct Waiting {
    next_key: u64,
    wakers: BTreeMap<u64, Waker>,
    due: BTreeMap<u64, Waker>,
}

/// Waiters that one call wakes.
const WOKEN_AT_ONCE: usize = 16;

impl Waiting {
    /// Everyone who waits now is to be woken.
    fn change(&mut self) {
        if self.due.is_empty() {
            std::mem::swap(&mut self.due, &mut self.wakers);
        } else {
            self.due.append(&mut self.wakers);
        }
    }

    fn count(&self) -> usize {
        self.wakers.len() + self.due.len()
    }

    /// The next few who are to be woken; outside of the lock, because a waker may do anything.
    fn next(&mut self) -> [Option<Waker>; WOKEN_AT_ONCE] {
        std::array::from_fn(|_| self.due.pop_first().map(|(_, waker)| waker))
    }
}

fn wake(wakers: [Option<Waker>; WOKEN_AT_ONCE]) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

/// What a session's renditions share: their last parts, for rendition reports, and date ranges.
#[derive(Debug, Default)]
pub(super) struct Board {
    edges: RwLock<Vec<Arc<Edge>>>,
    dates: Mutex<Ledger>,
}

impl Board {
    /// See [`Ledger::announce`].
    pub(super) fn announce(&self, range: DateRange) -> Result<(), String> {
        let edges = self.edges.read().unwrap_or_else(PoisonError::into_inner);
        let edge = edges.iter().filter_map(|e| e.at().last).max();
        drop(edges);
        self.dates().announce(range, edge)
    }

    pub(super) fn dates_dropped(&self) -> u64 {
        self.dates().dropped()
    }

    fn dates(&self) -> MutexGuard<'_, Ledger> {
        self.dates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Edge {
    name: String,
    iframes: bool,
    at: Mutex<At>,
}

/// Where a rendition's playlists end.
#[derive(Clone, Copy, Debug, Default)]
struct At {
    last: Option<(u64, u32)>,
    /// The last whole segment.
    whole: Option<u64>,
}

impl Edge {
    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part on its way into the window.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) msn: u64,
    pub(super) part: Part,
    /// Of the part's first sample; used where the part opens a segment.
    pub(super) date_time: Wall,
    /// The segment that this part opens starts a new timeline or has another init section.
    pub(super) discontinuity: bool,
    pub(super) completes: bool,
}

impl RenditionOutput {
    pub fn new(spec: RenditionSpec) -> Arc<RenditionOutput> {
        let retained = Retained::new(&spec);
        let edge = Arc::new(Edge { name: spec.name.clone(), iframes: spec.has_iframes(), at: Mutex::default() });
        let state = State {
            retained,
            version: 0,
            ended: false,
            suspended: false,
            last_part_at: None,
            dates: Listed::default(),
            texts: Default::default(),
        };
        Arc::new(RenditionOutput {
            spec,
            state: Mutex::new(state),
            waiting: Mutex::default(),
            edge,
            board: OnceLock::new(),
            renders: AtomicU64::new(0),
            shed: AtomicBool::new(false),
        })
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn spec(&self) -> &RenditionSpec {
        &self.spec
    }

    /// The media playlist for a request that arrived at `since`.
    pub fn playlist(&self, since: Mono, now: Mono, directives: &Directives) -> Answer<Arc<Playlist>> {
        self.answer(false, since, now, directives)
    }

    /// The I-frame playlist, the same way; it has no parts, so that `_HLS_part` says nothing [HLS 6.2.5.2].
    pub fn iframes(&self, since: Mono, now: Mono, directives: &Directives) -> Answer<Arc<Playlist>> {
        if !self.spec.has_iframes() {
            return Answer::Refuse(Refusal::NotFound(NO_IFRAMES.to_owned()));
        }
        self.answer(true, since, now, directives)
    }

    fn answer(&self, iframes: bool, since: Mono, now: Mono, directives: &Directives) -> Answer<Arc<Playlist>> {
        let targets = &self.spec.targets;
        let mut state = self.lock();
        // Without CAN-BLOCK-RELOAD the directives mean nothing [HLS 6.2.5.2]; an ended playlist changes no more.
        let ready = if targets.parts && !state.ended {
            match blocking(&state.retained, directives, targets.advance_parts(), iframes) {
                Ok(ready) => ready,
                Err(words) => return Answer::Refuse(Refusal::BadRequest(words)),
            }
        } else {
            true
        };
        let playable = state.retained.playable(targets.parts && !iframes);
        if ready && playable || state.ended && !state.retained.is_empty() {
            let text = state.text(self, iframes, directives.skip, now);
            drop(state);
            return Answer::Now(self.finish(&text));
        }
        if state.ended {
            return Answer::Refuse(Refusal::NotFound("the session ended before it had media".to_owned()));
        }
        if state.suspended {
            return Answer::Refuse(Refusal::NotYet(SUSPENDED.to_owned()));
        }
        let until = since + targets.playlist_patience();
        if now >= until {
            let words = format!("nothing new within {:?}", targets.playlist_patience());
            return Answer::Refuse(Refusal::NotYet(words));
        }
        Answer::Until(until)
    }

    /// A whole segment; never waits: it is listed once it is whole.
    pub fn segment(&self, _since: Mono, _now: Mono, msn: u64) -> Answer<Media> {
        self.of_whole(msn, |segment| segment.parts.iter().filter_map(|p| p.bytes.clone()).collect())
    }

    /// A whole segment's first picture alone, as the I-frame playlist lists it; its data are the segment's, not copied.
    pub fn iframe(&self, msn: u64) -> Answer<Media> {
        if !self.spec.has_iframes() {
            return Answer::Refuse(Refusal::NotFound(NO_IFRAMES.to_owned()));
        }
        self.of_whole(msn, |segment| segment.iframe().map_or_else(Vec::new, Vec::from))
    }

    /// `chunks`: what of a whole segment is wanted; nothing: it cannot be had.
    fn of_whole(&self, msn: u64, chunks: impl FnOnce(&Segment) -> Vec<Bytes>) -> Answer<Media> {
        let state = self.lock();
        if let Some(segment) = state.retained.segment(msn)
            && segment.complete
        {
            let chunks = if segment.gap() { Vec::new() } else { chunks(segment) };
            if chunks.is_empty() {
                return Answer::Refuse(Refusal::NotFound(format!("segment {msn} is a gap")));
            }
            return Answer::Now(Media { chunks });
        }
        Answer::Refuse(if !state.ended && state.retained.may_come(msn) {
            Refusal::NotYet(format!("segment {msn} is not whole yet"))
        } else {
            Refusal::NotFound(format!("segment {msn} is not in the window"))
        })
    }

    /// A listed part, or the hinted one (waits for it).
    pub fn part(&self, since: Mono, now: Mono, msn: u64, part: u32) -> Answer<Media> {
        let never = |why: &str| Answer::Refuse(Refusal::NotFound(format!("part {msn}.{part} {why}")));
        if !self.spec.targets.parts {
            return never("does not exist: this latency mode has no parts");
        }
        let state = self.lock();
        let index = usize::try_from(part).unwrap_or(usize::MAX);
        let held = match state.retained.segment(msn) {
            Some(segment) => match segment.parts.get(index) {
                Some(Part { bytes: Some(bytes), .. }) => return Answer::Now(Media { chunks: vec![bytes.clone()] }),
                Some(Part { bytes: None, .. }) => return never("is a gap"),
                None if segment.complete => return never("is behind its segment's last part"),
                None => segment.parts.len(),
            },
            None => 0,
        };
        if state.ended || !state.retained.may_come(msn) {
            return never("is not in the window");
        }
        let (hint_msn, hint_index) = state.retained.hint();
        // The open segment may end with its last part: then the next one's first part is what comes.
        let hinted = (msn, index) == (hint_msn, hint_index) || (msn, index) == (hint_msn + 1, 0);
        let until = since + self.spec.targets.hint_patience();
        if hinted && now < until && !state.suspended {
            return Answer::Until(until);
        }
        if index > held + self.spec.targets.advance_parts() {
            return never("is too far ahead");
        }
        Answer::Refuse(Refusal::NotYet(format!("part {msn}.{part} has not come yet")))
    }

    /// Media initialization section number `map`.
    pub fn init(&self, map: u32) -> Option<Bytes> {
        self.lock().retained.init(map)
    }

    /// Wakes `waker` at the next change, once. Returns a key for `cancel`, which whoever was woken calls too: that wakes
    /// the next ones.
    pub fn wait(&self, waker: &Waker) -> u64 {
        let mut waiting = self.waiting();
        let key = waiting.next_key;
        waiting.next_key += 1;
        waiting.wakers.insert(key, waker.clone());
        key
    }

    pub fn cancel(&self, key: u64) {
        let mut waiting = self.waiting();
        if waiting.wakers.remove(&key).is_none() {
            waiting.due.remove(&key);
        }
        if !waiting.due.is_empty() {
            let next = waiting.next();
            drop(waiting);
            wake(next);
        }
    }

    /// Leaves the multivariant playlist or comes back to it. The media playlist goes on (as GAP).
    pub fn set_shed(&self, shed: bool) {
        self.shed.store(shed, Ordering::Relaxed);
    }

    pub fn is_shed(&self) -> bool {
        self.shed.load(Ordering::Relaxed)
    }

    pub fn facts(&self) -> Facts {
        let waiting = self.waiting().count();
        let state = self.lock();
        Facts {
            version: state.version,
            last: state.retained.last(),
            last_part_at: state.last_part_at,
            bytes_held: state.retained.bytes_held(),
            segments_held: state.retained.segments_held(),
            gap_parts: state.retained.gap_parts(),
            renders: self.renders.load(Ordering::Relaxed),
            waiting,
            playable: state.retained.playable(self.spec.targets.parts),
            ended: state.ended,
            shed: self.is_shed(),
        }
    }

    /// Columns and rows as shown, of a video rendition whose init section is known.
    pub fn size(&self) -> Option<(u32, u32)> {
        match &self.lock().retained.newest_init()?.track {
            TrackConfig::Video(video) => Some(super::fmp4::init::display_size(video)),
            TrackConfig::Audio(_) => None,
        }
    }

    /// Number of the newest init section.
    pub fn newest_map(&self) -> Option<u32> {
        self.lock().retained.newest_map()
    }

    pub(super) fn join(&self, board: &Arc<Board>) {
        let mut edges = board.edges.write().unwrap_or_else(PoisonError::into_inner);
        if self.board.set(board.clone()).is_ok() {
            edges.push(self.edge.clone());
        }
    }

    pub(super) fn row(&self) -> Option<Row> {
        let state = self.lock();
        if !state.retained.playable(self.spec.targets.parts) {
            return None;
        }
        let init = state.retained.newest_init()?;
        let ((peak, average), iframes) = state.retained.bandwidth(self.spec.bandwidth_cap);
        Some(Row {
            name: self.spec.name.clone(),
            kind: self.spec.kind.clone(),
            track: init.track.clone(),
            codec: init.codec(),
            peak,
            average,
            iframes,
            independent: self.spec.independent_segments,
        })
    }

    pub(super) fn set_init(&self, init: InitSection) {
        self.lock().retained.set_init(init);
    }

    /// Lists a part and wakes everyone who waits, once.
    pub(super) fn publish(&self, now: Mono, publication: Publication) {
        let mut state = self.lock();
        assert!(!state.ended, "nothing is published after the end");
        let completes = publication.completes;
        state.retained.publish(publication);
        state.last_part_at = Some(now);
        self.take_dates(&mut state, false);
        self.changed(state, self.spec.targets.parts || completes);
    }

    /// The open segment gets no more parts.
    pub(super) fn complete(&self) {
        let mut state = self.lock();
        if state.retained.complete() {
            self.take_dates(&mut state, false);
            self.changed(state, true);
        }
    }

    /// Takes back the open segment's parts from `keep` on, in a mode that does not list parts. True if the whole segment
    /// went and stood behind a DISCONTINUITY.
    pub(super) fn take_back(&self, keep: usize) -> bool {
        assert!(!self.spec.targets.parts, "a listed part stays");
        self.lock().retained.take_back(keep)
    }

    /// Forgets everything held: the next segment is `msn`, too far ahead for what is between to be listed.
    pub(super) fn jump(&self, msn: u64) {
        self.lock().retained.jump(msn);
    }

    /// The process stops and another one goes on with the session: whoever waits is told to ask again.
    pub(super) fn suspend(&self) {
        let mut state = self.lock();
        state.suspended = true;
        self.changed(state, true);
    }

    /// ENDLIST; whoever waits is answered.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        if !state.ended {
            state.retained.complete();
            state.ended = true;
            self.take_dates(&mut state, true);
            self.changed(state, true);
        }
    }

    fn changed(&self, mut state: MutexGuard<'_, State>, visible: bool) {
        if !visible {
            return;
        }
        state.version += 1;
        state.texts = Default::default();
        let whole = state.retained.newest_whole();
        *self.edge.at() = At { last: state.retained.last(), whole };
        drop(state);
        let mut waiting = self.waiting();
        waiting.change();
        let first = waiting.next();
        drop(waiting);
        wake(first);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Date ranges that came before the last part, and those that are over. `all`: at the end.
    fn take_dates(&self, state: &mut State, all: bool) {
        let (Some(board), Some(now)) = (self.board.get(), state.last_part_at) else { return };
        let last = if all { None } else { state.retained.last() };
        let mut ledger = board.dates();
        state.dates.take(&ledger, last, state.retained.place(), now);
        if let Some((first, starts)) = state.retained.opens() {
            state.dates.slide(&mut ledger, first, starts, now, self.spec.targets.dates_named());
        }
    }

    fn finish(&self, text: &Text) -> Arc<Playlist> {
        let render = || {
            self.renders.fetch_add(1, Ordering::Relaxed);
            Arc::new(Playlist::of(text.plain.clone()))
        };
        text.done.get_or_init(render).clone()
    }

    /// Of every other playlist of the session [HLS B.1].
    fn reports(&self, iframes: bool) -> Vec<Report> {
        let Some(board) = self.board.get() else { return Vec::new() };
        let edges = board.edges.read().unwrap_or_else(PoisonError::into_inner);
        let mut reports = Vec::with_capacity(2 * edges.len());
        for edge in edges.iter() {
            let (at, own) = (*edge.at(), Arc::ptr_eq(edge, &self.edge));
            if let Some((msn, part)) = at.last.filter(|_| !own || iframes) {
                reports.push(Report { uri: format!("{}.m3u8", edge.name), msn, part: Some(part) });
            }
            if let Some(msn) = at.whole.filter(|_| edge.iframes && !(own && iframes)) {
                reports.push(Report { uri: format!("{}.iframes.m3u8", edge.name), msn, part: None });
            }
        }
        reports
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while publishing ends the channel; what was published stays good for its viewers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn text(&mut self, output: &RenditionOutput, iframes: bool, skip: Skip, now: Mono) -> Arc<Text> {
        let targets = &output.spec.targets;
        // An ended playlist is always whole [HLS 6.2.5.1].
        let skips = skip != Skip::No && !self.ended;
        let skipped = if skips { self.retained.skippable(targets, iframes) } else { 0 };
        let form = match skip {
            _ if skipped == 0 => 0,
            Skip::V2 => 2,
            _ => 1,
        };
        let boundary = Duration::from_secs(u64::from(targets.can_skip_until));
        let (retained, dates, ended) = (&self.retained, &self.dates, self.ended);
        let texts = &mut self.texts[usize::from(iframes)];
        if form == 2 && texts.aged.is_some_and(|at| now > at) {
            texts.forms[2] = None;
        }
        let slot = &mut texts.forms[form];
        if form == 2 && slot.is_none() {
            texts.aged = dates.next_old(now, boundary);
        }
        slot.get_or_insert_with(|| {
            let reports = if targets.parts && !ended { output.reports(iframes) } else { Vec::new() };
            let dates_from = (form == 2).then(|| now.back(boundary));
            let listing = Listing { targets, iframes, skipped, dates, dates_from, reports: &reports, ended };
            Arc::new(Text { plain: retained.compose(listing).into(), done: OnceLock::new() })
        })
        .clone()
    }
}

/// Whether a playlist with these directives may be answered now; `Err`: they make no sense [HLS 6.2.5.2].
fn blocking(retained: &Retained, directives: &Directives, advance: usize, iframes: bool) -> Result<bool, String> {
    let Some(msn) = directives.msn else {
        return match directives.part {
            Some(_) => Err("_HLS_part without _HLS_msn: send both".to_owned()),
            None => Ok(true),
        };
    };
    let Some(whole) = retained.last_whole() else { return Ok(false) };
    if i128::from(msn) > whole + 2 {
        return Err(format!("_HLS_msn={msn} is more than 2 segments ahead: the last whole one is {whole}"));
    }
    let Some(part) = directives.part.filter(|_| !iframes) else { return Ok(i128::from(msn) <= whole) };
    let part = usize::try_from(part).unwrap_or(usize::MAX);
    let open = retained.open();
    if i128::from(msn) <= whole {
        // A part behind its segment's last one means part 0 of the next segment.
        let exists = retained.segment(msn).is_none_or(|s| part < s.parts.len());
        return Ok(exists || i128::from(msn) < whole || open.is_some());
    }
    let listed = open.filter(|s| s.msn == msn).map_or(0, |s| s.parts.len());
    if part >= listed + advance {
        return Err(format!("_HLS_part={part} is more than {advance} parts ahead of segment {msn}'s last one"));
    }
    Ok(part < listed)
}

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

use super::fmp4::init::InitSection;
use super::part::Part;
use super::playlist::multivariant::Row;
use super::retained::{Listing, Retained};
use crate::media::channel::SessionId;
use crate::media::grid::{Cadence, FrameRate};
use crate::media::modes::LatencyMode;
use crate::media::track::TrackConfig;
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
            segments_with_parts: params.segments_with_parts,
        }
    }

    /// A blocked playlist request is refused after this.
    pub fn playlist_patience(&self) -> Duration {
        Duration::from_secs(3 * u64::from(self.target_duration))
    }

    /// A request for hinted media is refused after this.
    pub fn hint_patience(&self) -> Duration {
        Duration::from_millis(3 * u64::from(self.part_target_ms))
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
    /// Playlists rendered so far: at most two a version (whole, delta).
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
    /// This version's text, whole and delta, once someone asked.
    texts: [Option<Arc<Text>>; 2],
}

/// A playlist text, and its finished form once someone needs it: compressed outside the state's lock, by one asker.
#[derive(Debug)]
struct Text {
    plain: Bytes,
    done: OnceLock<Arc<Playlist>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next_key: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// The last parts of a session's renditions, for rendition reports.
#[derive(Debug, Default)]
pub(super) struct Board(RwLock<Vec<Arc<Edge>>>);

#[derive(Debug)]
struct Edge {
    name: String,
    last: Mutex<Option<(u64, u32)>>,
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
        let edge = Arc::new(Edge { name: spec.name.clone(), last: Mutex::new(None) });
        let state =
            State { retained, version: 0, ended: false, suspended: false, last_part_at: None, texts: [None, None] };
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
        let targets = &self.spec.targets;
        let mut state = self.lock();
        // Without CAN-BLOCK-RELOAD the directives mean nothing [HLS 6.2.5.2]; an ended playlist changes no more.
        let ready = if targets.parts && !state.ended {
            match blocking(&state.retained, directives, targets.advance_parts()) {
                Ok(ready) => ready,
                Err(words) => return Answer::Refuse(Refusal::BadRequest(words)),
            }
        } else {
            true
        };
        if ready && state.retained.playable(targets.parts) || state.ended && !state.retained.is_empty() {
            let text = state.text(self, directives.skip);
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
        let state = self.lock();
        if let Some(segment) = state.retained.segment(msn)
            && segment.complete
        {
            if segment.gap() {
                return Answer::Refuse(Refusal::NotFound(format!("segment {msn} is a gap")));
            }
            let chunks = segment.parts.iter().filter_map(|p| p.bytes.clone()).collect();
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

    /// Wakes `waker` at the next change, once. Returns a key for `cancel`.
    pub fn wait(&self, waker: &Waker) -> u64 {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let key = waiting.next_key;
        waiting.next_key += 1;
        waiting.wakers.insert(key, waker.clone());
        key
    }

    pub fn cancel(&self, key: u64) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).wakers.remove(&key);
    }

    /// Leaves the multivariant playlist or comes back to it. The media playlist goes on (as GAP).
    pub fn set_shed(&self, shed: bool) {
        self.shed.store(shed, Ordering::Relaxed);
    }

    pub fn is_shed(&self) -> bool {
        self.shed.load(Ordering::Relaxed)
    }

    pub fn facts(&self) -> Facts {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).wakers.len();
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
        let mut edges = board.0.write().unwrap_or_else(PoisonError::into_inner);
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
        let (peak, average) = state.retained.bandwidth(self.spec.bandwidth_cap);
        Some(Row {
            name: self.spec.name.clone(),
            kind: self.spec.kind.clone(),
            track: init.track.clone(),
            codec: init.codec(),
            peak,
            average,
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
        self.changed(state, self.spec.targets.parts || completes);
    }

    /// The open segment gets no more parts.
    pub(super) fn complete(&self) {
        let mut state = self.lock();
        if state.retained.complete() {
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
            self.changed(state, true);
        }
    }

    fn changed(&self, mut state: MutexGuard<'_, State>, visible: bool) {
        if !visible {
            return;
        }
        state.version += 1;
        state.texts = [None, None];
        *self.edge.last.lock().unwrap_or_else(PoisonError::into_inner) = state.retained.last();
        drop(state);
        let woken = std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner).wakers);
        for waker in woken.into_values() {
            waker.wake();
        }
    }

    fn finish(&self, text: &Text) -> Arc<Playlist> {
        let render = || {
            self.renders.fetch_add(1, Ordering::Relaxed);
            Arc::new(Playlist::of(text.plain.clone()))
        };
        text.done.get_or_init(render).clone()
    }

    fn reports(&self) -> Vec<(String, (u64, u32))> {
        let Some(board) = self.board.get() else { return Vec::new() };
        let edges = board.0.read().unwrap_or_else(PoisonError::into_inner);
        let others = edges.iter().filter(|e| !Arc::ptr_eq(e, &self.edge));
        let last = |e: &Arc<Edge>| *e.last.lock().unwrap_or_else(PoisonError::into_inner);
        others.filter_map(|e| last(e).map(|l| (e.name.clone(), l))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while publishing ends the channel; what was published stays good for its viewers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn text(&mut self, output: &RenditionOutput, skip: Skip) -> Arc<Text> {
        let skipped = if skip == Skip::No { 0 } else { self.retained.skippable(&output.spec.targets) };
        let ended = self.ended;
        let slot = &mut self.texts[usize::from(skipped > 0)];
        let retained = &self.retained;
        slot.get_or_insert_with(|| {
            let reports = if output.spec.targets.parts && !ended { output.reports() } else { Vec::new() };
            let plain = retained.compose(Listing { targets: &output.spec.targets, skipped, reports: &reports, ended });
            Arc::new(Text { plain: plain.into(), done: OnceLock::new() })
        })
        .clone()
    }
}

/// Whether a playlist with these directives may be answered now; `Err`: they make no sense [HLS 6.2.5.2].
fn blocking(retained: &Retained, directives: &Directives, advance: usize) -> Result<bool, String> {
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
    let Some(part) = directives.part else { return Ok(i128::from(msn) <= whole) };
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

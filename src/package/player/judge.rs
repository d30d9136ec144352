//! One rendition's playlists, judged against its own past [HLS 4.4, 6.2].

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::media::PartMedia;
use super::parse::{self, Attributes, MediaPlaylist, Promises, SegmentLine};
use super::{Log, What};
use crate::package::fmp4::read::TrackInit;
use crate::time::{Mono, Now};

/// What a player knows of one rendition.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) uri: String,
    /// What its variant says in CODECS.
    pub(super) codecs: Option<String>,
    /// An I-frame playlist.
    pub(super) frames: bool,
    /// The date ranges that this playlist tells of.
    pub(super) dates: BTreeMap<String, Attributes>,
    /// Date ranges that it told of before.
    past_dates: VecDeque<String>,
    /// The multivariant playlist says that each segment can be decoded alone.
    pub(super) independent: bool,
    pub(super) promises: Option<Promises>,
    pub(super) ended: bool,
    pub(super) reports: Vec<(String, u64, u64)>,
    /// What other renditions' reports said of this one, and when: a later request must bear it out.
    pub(super) claims: VecDeque<(Mono, (u64, u64))>,
    /// Everything listed lately, by number.
    pub(super) segments: BTreeMap<u64, SegmentLine>,
    first: u64,
    dsn: u64,
    /// Nothing before this segment is fetched.
    pub(super) from: Option<u64>,
    /// When to reload; `None`: asked.
    reload: Option<Mono>,
    reloads: u64,
    /// The edges seen, newest last, with when.
    edges: VecDeque<(Mono, (u64, u64))>,
    queue: VecDeque<(What, String)>,
    /// A media request is out.
    pub(super) busy: bool,
    pub(super) hint: Option<String>,
    hint_sent: Option<String>,
    /// The hint whose answer is awaited.
    pub(super) hint_out: Option<String>,
    /// The served hint: its bytes wait for their listing.
    pub(super) served: Option<(String, Bytes, Mono)>,
    pub(super) inits: BTreeMap<String, TrackInit>,
    pub(super) parts: BTreeMap<(u64, usize), PartMedia>,
    pub(super) last_tfdt: Option<(u64, i64)>,
    /// The last segment that a lost process had listed: it, and those before it, may become GAP.
    lost: Option<u64>,
}

/// Segments remembered behind the playlist's first.
const REMEMBERED: u64 = 40;
/// A clock's resolution in playlists is 1 ms; parts are rounded to 10 us.
const ROUNDING_US: u64 = 1_500;
/// A date-time may lie so far ahead of our clock: rounding, nothing else.
const FUTURE_MS: i64 = 5;
const DATE_STEP_MS: i64 = 20;
/// An origin that is away is asked again after this.
const AWAY: Duration = Duration::from_millis(100);

impl Track {
    pub(super) fn new(uri: String, codecs: Option<String>, independent: bool, now: Mono) -> Track {
        Track {
            uri,
            codecs,
            frames: false,
            dates: BTreeMap::new(),
            past_dates: VecDeque::new(),
            independent,
            promises: None,
            ended: false,
            reports: Vec::new(),
            claims: VecDeque::new(),
            segments: BTreeMap::new(),
            first: 0,
            dsn: 0,
            from: None,
            reload: Some(now),
            reloads: 0,
            edges: VecDeque::new(),
            queue: VecDeque::new(),
            busy: false,
            hint: None,
            hint_sent: None,
            hint_out: None,
            served: None,
            inits: BTreeMap::new(),
            parts: BTreeMap::new(),
            last_tfdt: None,
            lost: None,
        }
    }

    pub(super) fn was_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// The origin is away: `what` was asked in vain.
    pub(super) fn unanswered(&mut self, now: Mono, what: &What) {
        self.lost = self.segments.last_key_value().map(|(msn, _)| *msn).max(self.lost).or(Some(0));
        match what {
            What::Playlist(_) => {
                self.reload = Some(now + AWAY);
                // A whole playlist comes next, and no edge, claim or hint of before counts any more.
                self.reloads = 3;
                self.edges.clear();
                self.claims.clear();
                (self.hint, self.hint_sent, self.served) = (None, None, None);
            }
            What::Hint(_) => self.hint_out = None,
            _ => self.busy = false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.reload
    }

    /// What to ask next: the playlist first, then the hint, then listed media.
    pub(super) fn next(&mut self, now: Mono) -> Option<(What, String)> {
        if !self.ended && self.reload.is_some_and(|at| at <= now) {
            self.reload = None;
            return Some(self.reload_request());
        }
        if self.hint_out.is_none()
            && let Some(hint) = self.hint.clone().filter(|h| self.hint_sent.as_ref() != Some(h))
        {
            self.hint_sent = Some(hint.clone());
            self.hint_out = Some(hint.clone());
            return Some((What::Hint(hint.clone()), hint));
        }
        if self.busy {
            return None;
        }
        while let Some((what, uri)) = self.queue.pop_front() {
            if let What::Part { msn, index } = what
                && self.parts.contains_key(&(msn, index))
            {
                continue;
            }
            self.busy = true;
            return Some((what, uri));
        }
        None
    }

    fn reload_request(&mut self) -> (What, String) {
        self.reloads += 1;
        let Some(promises) = &self.promises else { return (What::Playlist(None), self.uri.clone()) };
        // Every fourth time the whole playlist: it must say what the deltas made of it.
        let skip = promises.control("CAN-SKIP-UNTIL") > 0 && !self.reloads.is_multiple_of(4);
        let asked = if promises.blocks() { self.following() } else { None };
        let mut uri = self.uri.clone();
        let mut mark = '?';
        if let Some((msn, part)) = asked {
            uri.push_str(&format!("?_HLS_msn={msn}&_HLS_part={part}"));
            mark = '&';
        }
        if skip {
            let dates = promises.server_control.contains_key("CAN-SKIP-DATERANGES") && self.reloads % 4 == 2;
            uri.push_str(&format!("{mark}_HLS_skip={}", if dates { "v2" } else { "YES" }));
        }
        (What::Playlist(asked), uri)
    }

    /// Segment and part behind the last one listed.
    pub(super) fn following(&self) -> Option<(u64, u64)> {
        let (msn, last) = self.segments.last_key_value()?;
        Some(if last.whole.is_some() { (msn.saturating_add(1), 0) } else { (*msn, last.parts.len() as u64) })
    }

    /// Segment and index of the last part listed.
    pub(super) fn edge(&self) -> Option<(u64, u64)> {
        let (msn, last) = self.segments.last_key_value()?;
        Some((*msn, (last.parts.len() as u64).saturating_sub(1)))
    }

    /// The edge as it was known before `at`.
    pub(super) fn edge_before(&self, at: Mono) -> Option<(u64, u64)> {
        self.edges.iter().rev().find(|(seen, _)| *seen < at).map(|(_, edge)| *edge)
    }

    pub(super) fn parts_per_segment(&self) -> u64 {
        self.segments.values().map(|s| s.parts.len() as u64).max().unwrap_or(0)
    }

    /// Parts from one to another that is not before it. A segment may have ended short; of what is not listed as whole the
    /// most that any segment has counts.
    pub(super) fn parts_between(&self, from: (u64, u64), to: (u64, u64)) -> u64 {
        let most = self.parts_per_segment();
        let parts = |msn: u64| {
            let whole = self.segments.get(&msn).filter(|s| s.whole.is_some() && !s.parts.is_empty());
            whole.map_or(most, |s| s.parts.len() as u64)
        };
        if to.0.saturating_sub(from.0) > REMEMBERED {
            return u64::MAX;
        }
        parse::total((from.0..to.0).map(parts)).saturating_add(to.1).saturating_sub(from.1)
    }

    pub(super) fn playlist(
        &mut self,
        log: &mut Log,
        now: Now,
        asked: Option<(u64, u64)>,
        took: Duration,
        status: u16,
        body: &Bytes,
    ) {
        if status != 200 {
            log.broken(format!("{}: status {status} for a playlist after {took:?}", self.uri));
            self.reload = Some(now.mono + Duration::from_secs(1));
            return;
        }
        log.report.playlists += u64::from(!self.frames);
        let list = match std::str::from_utf8(body).map_err(|e| e.to_string()).and_then(parse::media) {
            Ok(list) => list,
            Err(words) => {
                log.broken(format!("{}: {words}", self.uri));
                self.reload = Some(now.mono + Duration::from_secs(1));
                return;
            }
        };
        self.judge_promises(log, &list);
        self.judge_dates(log, &list);
        let changed = self.merge(log, now, &list);
        self.judge_answer(log, asked, took, &list);
        self.judge_window(log, &list);
        self.reports.clone_from(&list.reports);
        if let Some(edge) = self.edge() {
            // Claims made while this request was under way are checked at the next one.
            while let Some((_, claim)) = self.claims.pop_front_if(|(at, _)| *at < now.mono.back(took)) {
                if claim > edge {
                    log.broken(format!("{}: {claim:?} was reported elsewhere, the edge is {edge:?}", self.uri));
                }
            }
            self.edges.push_back((now.mono, edge));
            if self.edges.len() > 32 {
                self.edges.pop_front();
            }
        }
        self.ended = list.ended;
        let target = Duration::from_secs(list.promises.target_duration);
        self.reload = Some(match (list.promises.blocks(), changed) {
            (true, true) => now.mono,
            // A blocking answer with nothing new is a fault of the server; asking at once again would be ours.
            (true, false) => now.mono + Duration::from_micros(list.promises.part_target.max(100_000)),
            (false, true) => now.mono + target,
            (false, false) => now.mono + target / 2,
        });
    }

    fn judge_promises(&mut self, log: &mut Log, list: &MediaPlaylist) {
        let p = &list.promises;
        let needed = match (list.skipped, &list.removed) {
            (0, _) => 6,
            (_, None) => 9,
            (_, Some(_)) => 10,
        };
        if list.version < needed {
            log.broken(format!("{}: EXT-X-VERSION is {}, its tags need {needed}", self.uri, list.version));
        }
        let Some(before) = &self.promises else {
            let (target, part) = (p.target_duration.saturating_mul(1_000_000), p.part_target);
            let mut least = vec![("HOLD-BACK", target.saturating_mul(3)), ("CAN-SKIP-UNTIL", target.saturating_mul(6))];
            if part > 0 {
                least.push(("PART-HOLD-BACK", part.saturating_mul(3)));
            }
            for (name, least) in least {
                if p.control(name) < least {
                    log.broken(format!("{}: {name} is below {least} us", self.uri));
                }
            }
            self.promises = Some(p.clone());
            return;
        };
        if before != p {
            log.broken(format!("{}: promises changed: {before:?}, then {p:?}", self.uri));
        }
    }

    /// What is said of a date range stays said; it goes once its last date does, and its name with it.
    fn judge_dates(&mut self, log: &mut Log, list: &MediaPlaylist) {
        let name = self.uri.clone();
        if self.frames != list.frames || list.frames && (list.promises.part_target > 0 || list.hint.is_some()) {
            log.broken(format!("{name}: EXT-X-I-FRAMES-ONLY is {}, or it has parts", list.frames));
        }
        // A delta of the second kind tells of new ones and of those that went.
        let mut now = list.dates.clone();
        if let Some(removed) = &list.removed {
            for (id, said) in self.dates.iter().filter(|(id, _)| !removed.contains(id)) {
                let all = now.entry(id.clone()).or_default();
                for (key, value) in said {
                    all.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        let first = list.segments.first().filter(|_| list.skipped == 0).and_then(|s| s.date_time);
        for (id, said) in &self.dates {
            match now.get(id) {
                Some(new) if !said.iter().all(|(key, value)| new.get(key) == Some(value)) => {
                    log.broken(format!("{name}: date range {id:?} changed: {said:?}, then {new:?}"));
                }
                Some(_) => {}
                None => {
                    if first.is_some_and(|first| ends(said).is_none_or(|end| end >= first)) && self.lost.is_none() {
                        log.broken(format!("{name}: date range {id:?} went before its time"));
                    }
                    self.past_dates.push_back(id.clone());
                }
            }
        }
        for id in now.keys().filter(|id| !self.dates.contains_key(*id)) {
            log.report.dates += u64::from(!self.frames);
            if self.past_dates.contains(id) {
                log.broken(format!("{name}: date range {id:?} was over, and is there again"));
            }
        }
        while self.past_dates.len() > 256 {
            self.past_dates.pop_front();
        }
        self.dates = now;
    }

    /// Takes the listed segments over; what was known must not have changed. Whether anything is new.
    fn merge(&mut self, log: &mut Log, now: Now, list: &MediaPlaylist) -> bool {
        let uri = self.uri.clone();
        let start = self.segments.is_empty();
        if !start && list.msn < self.first {
            log.broken(format!("{uri}: media sequence went back from {} to {}", self.first, list.msn));
        }
        if !start && list.msn >= self.first {
            let gone = self.segments.range(self.first..list.msn).filter(|(_, s)| s.discontinuity).count() as u64;
            if list.dsn != self.dsn.saturating_add(gone) {
                log.broken(format!(
                    "{uri}: discontinuity sequence is {}, not {}",
                    list.dsn,
                    self.dsn.saturating_add(gone)
                ));
            }
        }
        (self.first, self.dsn) = (list.msn, list.dsn);
        if list.skipped > 0 {
            self.judge_delta(log, list);
        }
        let from = *self.from.get_or_insert_with(|| {
            let keep = list.segments.len().saturating_sub(3);
            list.segments.get(keep).map_or(list.msn, |s| s.msn)
        });
        let mut changed = false;
        let mut map = (list.skipped > 0)
            .then(|| self.segments.get(&list.msn.saturating_add(list.skipped - 1))?.map.clone())
            .flatten();
        for line in &list.segments {
            let mut line = line.clone();
            // A delta names no map until it changes.
            line.map = line.map.or_else(|| map.clone());
            map.clone_from(&line.map);
            let gone = |old: &SegmentLine| {
                self.lost.is_some_and(|lost| line.msn <= lost)
                    && (line.gap || line.parts.iter().any(|part| part.gap))
                    && (old.discontinuity, old.date_time) == (line.discontinuity, line.date_time)
            };
            if self.segments.get(&line.msn).is_some_and(gone) {
                self.parts.retain(|(msn, _), _| *msn != line.msn);
            } else if let Some(old) = self.segments.get(&line.msn) {
                self.judge_same(log, &line, old);
                if old.parts.len() > line.parts.len() && old.whole.is_some() {
                    line.parts.clone_from(&old.parts);
                } else if old.parts.len() > line.parts.len() {
                    // Its last parts were listed and gone before this playlist: what is known of it is not all of it.
                    self.parts.retain(|(msn, _), _| *msn != line.msn);
                }
            }
            changed |= self.segments.get(&line.msn) != Some(&line);
            let before = self.segments.insert(line.msn, line.clone());
            self.judge_segment(log, now, &line, before.as_ref());
            if line.msn >= from {
                self.want(log, now, &line, before.as_ref());
            }
        }
        self.take_hint(log, list);
        let keep = list.msn.saturating_sub(REMEMBERED);
        self.segments = self.segments.split_off(&keep);
        self.parts = self.parts.split_off(&(keep, 0));
        changed
    }

    fn judge_delta(&self, log: &mut Log, list: &MediaPlaylist) {
        log.report.deltas += u64::from(!self.frames);
        if let Some(msn) =
            (list.msn..list.msn.saturating_add(list.skipped)).find(|msn| !self.segments.contains_key(msn))
        {
            log.broken(format!("{}: a delta skips segment {msn}, which was never listed", self.uri));
        }
        let after = parse::total(list.segments.iter().map(SegmentLine::duration));
        if after.saturating_add(ROUNDING_US) < list.promises.control("CAN-SKIP-UNTIL") {
            log.broken(format!("{}: a delta skips up to {after} us before the end", self.uri));
        }
    }

    fn judge_same(&self, log: &mut Log, new: &SegmentLine, old: &SegmentLine) {
        let same = new.discontinuity == old.discontinuity
            && new.date_time == old.date_time
            && (new.map == old.map || new.map.is_none())
            && (old.whole.is_none() || new.whole == old.whole && new.gap == old.gap)
            && old.parts.iter().zip(&new.parts).all(|(a, b)| a == b)
            && (new.parts.len() >= old.parts.len() || new.parts.is_empty());
        if !same {
            log.broken(format!("{}: segment {} changed: {old:?}, then {new:?}", self.uri, new.msn));
        }
    }

    fn judge_segment(&self, log: &mut Log, now: Now, line: &SegmentLine, before: Option<&SegmentLine>) {
        let Some(promises) = &self.promises else { return };
        let name = format!("{}: segment {}", self.uri, line.msn);
        let last = line.parts.len().saturating_sub(1);
        for (index, part) in line.parts.iter().enumerate().skip(before.map_or(0, |b| b.parts.len().saturating_sub(1))) {
            if part.duration > promises.part_target {
                log.broken(format!("{name}: part {index} lasts {} us, over PART-TARGET", part.duration));
            }
            // The last part may be short, but it is the last only once the segment is whole.
            if index < last && !part.gap && part.duration < promises.part_target / 100 * 85 {
                log.broken(format!("{name}: part {index} lasts {} us, under 85 % of PART-TARGET", part.duration));
            }
        }
        match line.date_time {
            None => log.broken(format!("{name}: no PROGRAM-DATE-TIME")),
            Some(at) => self.judge_date(log, now, line, at),
        }
        if before.is_some_and(|b| b.whole.is_some()) {
            return;
        }
        let Some((duration, _)) = &line.whole else { return };
        if duration.saturating_add(500_000) / 1_000_000 > promises.target_duration {
            log.broken(format!("{name}: lasts {duration} us, over TARGETDURATION"));
        }
        let parts = parse::total(line.parts.iter().map(|p| p.duration));
        if !line.parts.is_empty() && parts.abs_diff(*duration) > ROUNDING_US {
            log.broken(format!("{name}: EXTINF is {duration} us, its parts are {parts} us"));
        }
        if line.parts.iter().any(|p| p.gap) && !line.gap {
            log.broken(format!("{name}: has a GAP part but is no GAP"));
        }
        if !self.frames {
            log.report.segments += 1;
            log.report.gaps += u64::from(line.gap);
            log.report.discontinuities += u64::from(line.discontinuity);
        }
    }

    fn judge_date(&self, log: &mut Log, now: Now, line: &SegmentLine, at: i64) {
        let name = format!("{}: segment {}", self.uri, line.msn);
        // Up to where the newest part begins.
        let last = line.parts.len().checked_sub(1);
        let into = parse::total(line.parts[..last.unwrap_or(0)].iter().map(|p| p.duration));
        let newest = at + i64::try_from(into / 1_000).unwrap_or(0);
        let wall = now.wall.0.div_euclid(1_000_000);
        if newest > wall + FUTURE_MS {
            log.broken(format!("{name}: PROGRAM-DATE-TIME lies {} ms in the future", newest - wall));
        }
        let Some(previous) = line.msn.checked_sub(1).and_then(|m| self.segments.get(&m)) else { return };
        let Some(before) = previous.date_time else { return };
        if at <= before {
            log.broken(format!("{name}: PROGRAM-DATE-TIME goes back"));
        }
        let expected = before + i64::try_from(previous.duration() / 1_000).unwrap_or(0);
        if previous.whole.is_some()
            && !line.discontinuity
            && !previous.gap
            && at.abs_diff(expected) > DATE_STEP_MS as u64
        {
            log.broken(format!("{name}: PROGRAM-DATE-TIME steps by {} ms beside EXTINF", at - expected));
        }
    }

    fn judge_answer(&self, log: &mut Log, asked: Option<(u64, u64)>, took: Duration, list: &MediaPlaylist) {
        let Some((msn, part)) = asked else { return };
        if list.ended {
            return;
        }
        let has = |s: &SegmentLine| s.msn > msn || s.msn == msn && (self.frames || s.parts.len() as u64 > part);
        let next = list.segments.iter().any(|s| s.msn > msn);
        if !next && !list.segments.iter().any(has) {
            log.broken(format!("{}: answered early: {msn}.{part} is not in it", self.uri));
        }
        if took > Duration::from_secs(list.promises.target_duration.saturating_mul(3)) {
            log.broken(format!("{}: answered late: {msn}.{part} after {took:?}", self.uri));
        }
    }

    fn judge_window(&self, log: &mut Log, list: &MediaPlaylist) {
        let listed = parse::total(self.segments.range(list.msn..).map(|(_, s)| s.duration()));
        let gone = self.segments.first_key_value().is_some_and(|(msn, _)| *msn < list.msn);
        if gone && !list.ended && listed < list.promises.target_duration.saturating_mul(3_000_000) {
            log.broken(format!("{}: only {listed} us are listed", self.uri));
        }
    }

    /// New parts and segments to fetch, and the delay at which they were listed.
    fn want(&mut self, log: &mut Log, now: Now, line: &SegmentLine, before: Option<&SegmentLine>) {
        if let Some(map) = &line.map
            && !self.inits.contains_key(map)
            && !self.queue.iter().any(|(_, uri)| uri == map)
        {
            self.queue.push_back((What::Init(map.clone()), map.clone()));
        }
        let known = before.map_or(0, |b| b.parts.len());
        for (index, part) in line.parts.iter().enumerate().skip(known) {
            log.report.parts += 1;
            log.report.gaps += u64::from(part.gap);
            self.listed_part(log, now, line.msn, index, part);
            let coming = self.hint_out.as_ref() == Some(&part.uri) || self.parts.contains_key(&(line.msn, index));
            if !part.gap && !coming {
                self.want_part(line.msn, index, part.uri.clone());
            }
        }
        let newly_whole = before.is_none_or(|b| b.whole.is_none());
        if let Some((_, uri)) = line.whole.as_ref().filter(|_| newly_whole && !line.gap) {
            self.queue.push_back((What::Segment(line.msn), uri.clone()));
            if let Some(part) = line.parts.first() {
                self.queue.push_back((What::Again, part.uri.clone()));
            }
        }
        let new = line.parts.len() > known || newly_whole && line.whole.is_some();
        if let Some(at) = line.date_time.filter(|_| new && !self.frames) {
            let end = at + i64::try_from(line.duration() / 1_000).unwrap_or(0);
            let latency = now.wall.0.div_euclid(1_000_000) - end;
            log.report.latency_ms = Some(latency);
            if before.is_some() {
                log.report.latency_ms_max = log.report.latency_ms_max.max(Some(latency));
            }
        }
    }

    pub(super) fn want_part(&mut self, msn: u64, index: usize, uri: String) {
        self.queue.push_back((What::Part { msn, index }, uri));
    }

    fn take_hint(&mut self, log: &mut Log, list: &MediaPlaylist) {
        let listed = |uri: &String| self.segments.values().rev().take(3).any(|s| s.parts.iter().any(|p| p.uri == *uri));
        if let Some(hint) = &list.hint
            && listed(hint)
        {
            log.broken(format!("{}: the hint {hint} is listed already", self.uri));
        }
        if list.promises.part_target > 0 && list.hint.is_none() && !list.ended {
            log.broken(format!("{}: no PRELOAD-HINT", self.uri));
        }
        if self.hint.is_some() && self.hint != list.hint && !self.hint.as_ref().is_some_and(listed) && !list.ended {
            log.report.hints_missed += 1;
            if self.served.as_ref().is_some_and(|(uri, ..)| Some(uri) == self.hint.as_ref()) {
                log.broken(format!("{}: {} was served and never listed", self.uri, self.hint.as_deref().unwrap_or("")));
            }
        }
        self.hint.clone_from(&list.hint);
    }
}

/// When a date range ends, milliseconds since 1970; `None`: nobody said, or with the next one.
fn ends(said: &Attributes) -> Option<i64> {
    let start = said.get("START-DATE").and_then(|at| parse::date_time(at))?;
    let end = said.get("END-DATE").and_then(|at| parse::date_time(at));
    let span = said.get("DURATION").and_then(|span| parse::micros(span)).and_then(|us| i64::try_from(us / 1_000).ok());
    let next = said.contains_key("END-ON-NEXT").then_some(i64::MIN);
    end.or(span.map(|span| start.saturating_add(span))).or(next)
}

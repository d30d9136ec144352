//! Date ranges: what happens over a span of wall-clock time, told beside the media [HLS 4.4.5.1].
//!
//! A session's playlists list the same ranges: `Ledger` takes each one once, in order, and every rendition picks it up
//! with the first part that it publishes behind the part that was the session's last when the range came. So two
//! playlists that end with the same part list the same ranges. A range stays while its span meets the listed window;
//! then it goes from all of them at the same segment. What is learnt later (an end, a return) is one more tag with the
//! same ID, as lines of a playlist never change [HLS 6.2.1].

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use super::playlist::tags::{Quoted, Seconds};
use crate::time::{Mono, Wall};

/// A span of wall-clock time with attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DateRange {
    /// Names this range and no other one of its session: 1 to 256 characters, none of them a control or a quote.
    pub id: String,
    /// What the attributes mean; ranges of one class follow each other.
    pub class: Option<String>,
    pub start: Wall,
    /// END-DATE; not before `start`.
    pub end: Option<Wall>,
    /// DURATION; zero for an instant. With `end`: the time between the two.
    pub duration: Option<Duration>,
    /// PLANNED-DURATION, while the real one is not known.
    pub planned_duration: Option<Duration>,
    /// It ends where the next range of its class begins: needs `class`, and neither `end` nor `duration`.
    pub end_on_next: bool,
    /// SCTE35-CMD, SCTE35-OUT, SCTE35-IN (`Value::Hex`) and X-..., by name.
    pub attributes: BTreeMap<String, Value>,
}

/// An attribute's value [HLS 4.2].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A quoted-string.
    Text(String),
    /// A hexadecimal-sequence, `0x` and two digits a byte.
    Hex(Bytes),
    /// A decimal-floating-point number of seconds.
    Seconds(Duration),
}

/// Ranges that a session tells of at a time: beyond them the one that starts first is taken off, and counted.
pub const DATE_RANGES_MAX: usize = 256;
/// Tags that renditions have not all taken yet, and names that may not come again.
const LOG_MAX: usize = 1_024;
const TEXT_MAX: usize = 256;
const VALUE_MAX: usize = 8 << 10;
const ATTRIBUTES_MAX: usize = 32;
/// Renditions' date-times of one segment differ by less: a range is over for all of them behind it.
const SLACK: Duration = Duration::from_secs(1);

/// One line of text, shared by all playlists.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) id: Arc<str>,
    pub(super) line: String,
}

/// Segment and index of a part that is the last one; none before the first.
type Edge = Option<(u64, u32)>;

/// What a session was told, for all its renditions.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    known: BTreeMap<Arc<str>, Known>,
    /// Oldest first, with the session's last part when it came; numbered from `first`.
    log: VecDeque<(Edge, Arc<Tag>)>,
    first: u64,
    /// Names of ranges that are over, oldest first.
    old: VecDeque<Arc<str>>,
    dropped: u64,
    /// The newest segment that a playlist begins with, and when it begins there: renditions differ by some milliseconds.
    opens: (u64, Wall),
}

#[derive(Debug)]
struct Known {
    range: DateRange,
    /// No playlist that begins with this segment, or a later one, lists it.
    gone: Option<u64>,
}

impl Ledger {
    /// Takes a range, or what became known of one since: only attributes that it did not have. Nothing new is nothing
    /// said. `edge`: the session's last part.
    ///
    /// # Errors
    /// A sentence: it contradicts what was said, or is none.
    pub(super) fn announce(&mut self, range: DateRange, edge: Edge) -> Result<(), String> {
        let added = match self.known.get(range.id.as_str()) {
            Some(known) if known.gone.is_some() => return Err(over(&range.id)),
            Some(known) => known.range.news(&range)?,
            None if self.old.iter().any(|id| **id == *range.id) => return Err(over(&range.id)),
            None => range.clone(),
        };
        let merged = self.known.get(range.id.as_str()).map_or(range, |known| known.range.with(&added));
        merged.check()?;
        self.check_following(&merged)?;
        if self.known.get(merged.id.as_str()).is_some_and(|known| known.range == merged) {
            return Ok(());
        }
        let id: Arc<str> = merged.id.as_str().into();
        self.log.push_back((edge, Arc::new(Tag { id: id.clone(), line: added.line() })));
        if self.log.len() > LOG_MAX {
            self.log.pop_front();
            self.first += 1;
        }
        self.known.insert(id, Known { range: merged, gone: None });
        self.bound();
        Ok(())
    }

    /// Ranges taken off before they were over, as there were too many.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Once a range's following one is known, none may come between the two [HLS 6.2.1].
    fn check_following(&self, range: &DateRange) -> Result<(), String> {
        for known in self.known.values().map(|k| &k.range).filter(|k| k.end_on_next && k.id != range.id) {
            let between = known.class == range.class
                && known.start < range.start
                && self.following(known).is_some_and(|next| range.start < next);
            if between {
                return Err(format!("{:?} begins before the range that ended {:?}", range.id, known.id));
            }
        }
        Ok(())
    }

    /// Start of the range that follows `range` in its class.
    fn following(&self, range: &DateRange) -> Option<Wall> {
        let same = self.known.values().map(|k| &k.range).filter(|k| k.class == range.class);
        same.map(|k| k.start).filter(|start| *start > range.start).min()
    }

    fn end(&self, range: &DateRange) -> Option<Wall> {
        if range.end_on_next { self.following(range) } else { range.ends() }
    }

    fn bound(&mut self) {
        let listed = self.known.values().filter(|k| k.gone.is_none()).count();
        if listed > DATE_RANGES_MAX
            && let Some(oldest) = self.known.values_mut().filter(|k| k.gone.is_none()).min_by_key(|k| k.range.start)
        {
            oldest.gone = Some(0);
            self.dropped += 1;
        }
        while self.known.len() > 2 * DATE_RANGES_MAX {
            let Some(id) = self.known.iter().find(|(_, k)| k.gone.is_some()).map(|(id, _)| id.clone()) else { break };
            self.known.remove(&id);
            self.old.push_back(id);
            if self.old.len() > LOG_MAX {
                self.old.pop_front();
            }
        }
    }

    /// A playlist begins with segment `first`, which begins at `starts`. The rendition that comes there first decides for
    /// all.
    fn open(&mut self, first: u64, starts: Wall) {
        if first > self.opens.0 {
            self.opens = (first, starts);
        }
    }

    /// Whether a range is over for a playlist whose first segment is `first`.
    fn is_over(&mut self, id: &str, first: u64) -> bool {
        let Some(known) = self.known.get(id) else { return true };
        if let Some(gone) = known.gone {
            return first >= gone;
        }
        // One that is behind the others: what is not over for them is not over for it.
        let over = first == self.opens.0 && self.end(&known.range).is_some_and(|end| end + SLACK < self.opens.1);
        if over && let Some(known) = self.known.get_mut(id) {
            known.gone = Some(first);
        }
        over
    }
}

fn over(id: &str) -> String {
    format!("the date range {id:?} is over: another one needs another ID")
}

impl DateRange {
    /// When it ends, if that is known.
    pub fn ends(&self) -> Option<Wall> {
        self.end.or(self.duration.map(|duration| self.start + duration))
    }

    fn check(&self) -> Result<(), String> {
        let sound =
            |text: &str| (1..=TEXT_MAX).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c == '"');
        let id = &self.id;
        if !sound(id) || !self.class.as_deref().is_none_or(sound) {
            return Err(format!("{id:?}: ID and CLASS are 1 to {TEXT_MAX} bytes without quotes and controls"));
        }
        if self.end_on_next && (self.class.is_none() || self.end.is_some() || self.duration.is_some()) {
            return Err(format!("{id:?}: END-ON-NEXT needs a CLASS, and no END-DATE or DURATION"));
        }
        if self.end.is_some_and(|end| end < self.start) {
            return Err(format!("{id:?}: it ends before it begins"));
        }
        if let (Some(end), Some(duration)) = (self.end, self.duration)
            && (self.start + duration).unix_millis() != end.unix_millis()
        {
            return Err(format!("{id:?}: END-DATE is not START-DATE and DURATION"));
        }
        if self.attributes.len() > ATTRIBUTES_MAX {
            return Err(format!("{id:?}: more than {ATTRIBUTES_MAX} attributes"));
        }
        self.attributes.iter().try_for_each(|(name, value)| self.check_attribute(name, value))
    }

    fn check_attribute(&self, name: &str, value: &Value) -> Result<(), String> {
        let id = &self.id;
        let spelt = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-');
        let scte = matches!(name, "SCTE35-CMD" | "SCTE35-OUT" | "SCTE35-IN") && matches!(value, Value::Hex(_));
        let own = name.len() > 2 && name.starts_with("X-") && spelt && name.len() <= TEXT_MAX;
        if !(scte || own) {
            return Err(format!("{id:?}: {name:?} is no attribute of a date range: SCTE35-... (hex) and X-... are"));
        }
        let sound = match value {
            Value::Text(text) => text.len() <= VALUE_MAX && !text.contains(|c: char| c.is_control() || c == '"'),
            Value::Hex(bytes) => (1..=VALUE_MAX / 2).contains(&bytes.len()),
            Value::Seconds(_) => true,
        };
        if sound { Ok(()) } else { Err(format!("{id:?}: the value of {name} is empty, too long or cannot be quoted")) }
    }

    /// What `update` says beyond `self`; ID, CLASS and START-DATE are in every tag.
    fn news(&self, update: &DateRange) -> Result<DateRange, String> {
        fn new<T: PartialEq + Clone>(
            id: &str,
            name: &str,
            old: Option<&T>,
            new: Option<&T>,
        ) -> Result<Option<T>, String> {
            match (old, new) {
                (Some(old), Some(new)) if old != new => {
                    Err(format!("{name} of the date range {id:?} was said, and cannot change"))
                }
                (Some(_), _) => Ok(None),
                (None, new) => Ok(new.cloned()),
            }
        }
        let id = &self.id;
        if self.start.unix_millis() != update.start.unix_millis() {
            return Err(format!("START-DATE of the date range {id:?} was said, and cannot change"));
        }
        new(id, "CLASS", Some(&self.class), Some(&update.class))?;
        let mut attributes = BTreeMap::new();
        for (name, value) in &update.attributes {
            let value = new(id, name, self.attributes.get(name), Some(value))?;
            attributes.extend(value.map(|value| (name.clone(), value)));
        }
        Ok(DateRange {
            id: id.clone(),
            class: self.class.clone(),
            start: self.start,
            end: new(id, "END-DATE", self.end.as_ref(), update.end.as_ref())?,
            duration: new(id, "DURATION", self.duration.as_ref(), update.duration.as_ref())?,
            planned_duration: new(
                id,
                "PLANNED-DURATION",
                self.planned_duration.as_ref(),
                update.planned_duration.as_ref(),
            )?,
            end_on_next: update.end_on_next && !self.end_on_next,
            attributes,
        })
    }

    fn with(&self, news: &DateRange) -> DateRange {
        let mut all = self.clone();
        all.end = all.end.or(news.end);
        all.duration = all.duration.or(news.duration);
        all.planned_duration = all.planned_duration.or(news.planned_duration);
        all.end_on_next |= news.end_on_next;
        all.attributes.extend(news.attributes.clone());
        all
    }

    /// The tag, with its line break.
    fn line(&self) -> String {
        let mut out = format!("#EXT-X-DATERANGE:ID={}", Quoted(&self.id));
        let mut put = |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("a String takes any text");
        if let Some(class) = &self.class {
            put(format_args!(",CLASS={}", Quoted(class)));
        }
        put(format_args!(",START-DATE=\"{}\"", self.start));
        if let Some(end) = self.end {
            put(format_args!(",END-DATE=\"{end}\""));
        }
        for (name, span) in [("DURATION", self.duration), ("PLANNED-DURATION", self.planned_duration)] {
            if let Some(span) = span {
                put(format_args!(",{name}={}", seconds(span)));
            }
        }
        for (name, value) in &self.attributes {
            match value {
                Value::Text(text) => put(format_args!(",{name}={}", Quoted(text))),
                Value::Hex(bytes) => put(format_args!(",{name}=0x{bytes:X}")),
                Value::Seconds(span) => put(format_args!(",{name}={}", seconds(*span))),
            }
        }
        if self.end_on_next {
            put(format_args!(",END-ON-NEXT=YES"));
        }
        out.push('\n');
        out
    }
}

fn seconds(span: Duration) -> Seconds {
    Seconds { ticks: u64::try_from(span.as_micros()).unwrap_or(u64::MAX), timescale: 1_000_000 }
}

/// The date ranges of one rendition's playlist.
#[derive(Debug, Default)]
pub(super) struct Listed {
    taken: u64,
    tags: VecDeque<Entry>,
    /// Those taken off, and when, newest last.
    removed: VecDeque<(Arc<str>, Mono)>,
}

/// A tag and its place: behind the first `offset` bytes of segment `msn`'s part lines.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) tag: Arc<Tag>,
    pub(super) msn: u64,
    pub(super) offset: usize,
    pub(super) added: Mono,
}

impl Listed {
    /// Takes what came before `last` was published; it stands behind `place` = (segment, bytes of its part lines).
    /// `None`: the session is over, everything is taken.
    pub(super) fn take(&mut self, ledger: &Ledger, last: Edge, place: (u64, usize), now: Mono) {
        let known = usize::try_from(self.taken.saturating_sub(ledger.first)).unwrap_or(usize::MAX);
        for (edge, tag) in ledger.log.iter().skip(known) {
            if last.is_some() && *edge >= last {
                break;
            }
            self.tags.push_back(Entry { tag: tag.clone(), msn: place.0, offset: place.1, added: now });
            self.taken = self.taken.max(ledger.first) + 1;
        }
    }

    /// The playlist begins with segment `first` now, which begins at `starts`. `kept`: how long a removed range is named.
    pub(super) fn slide(&mut self, ledger: &mut Ledger, first: u64, starts: Wall, now: Mono, kept: Duration) {
        ledger.open(first, starts);
        let mut gone: Vec<Arc<str>> = Vec::new();
        for entry in &self.tags {
            if !gone.contains(&entry.tag.id) && ledger.is_over(&entry.tag.id, first) {
                gone.push(entry.tag.id.clone());
            }
        }
        self.tags.retain(|entry| !gone.contains(&entry.tag.id));
        self.removed.extend(gone.into_iter().map(|id| (id, now)));
        while self.removed.pop_front_if(|(_, at)| now.since(*at) > kept).is_some() {}
    }

    /// Oldest first.
    pub(super) fn tags(&self) -> impl Iterator<Item = &Entry> {
        self.tags.iter()
    }

    /// IDs of those taken off lately, tab between them.
    pub(super) fn removed(&self) -> String {
        let ids: Vec<&str> = self.removed.iter().map(|(id, _)| &**id).collect();
        ids.join("\t")
    }

    /// Until when no other listed tag will have been there for more than `span`.
    pub(super) fn next_old(&self, now: Mono, span: Duration) -> Option<Mono> {
        self.tags.iter().map(|entry| entry.added + span).filter(|at| *at >= now).min()
    }
}

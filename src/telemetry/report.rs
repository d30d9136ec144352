//! One way from an event to a log line. Repeats are gathered: the first at once, then one line per second with a count.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::time::{Mono, SystemClock};

/// ERROR: an operator must act. WARN: degraded but serving. INFO: a channel, session or role changed state.
/// DEBUG: per segment. TRACE: per packet or frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What a line is about. Empty strings are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place<'a> {
    pub channel: &'a str,
    pub session: &'a str,
    pub rendition: &'a str,
}

impl<'a> Place<'a> {
    pub fn channel(channel: &'a str) -> Self {
        Place { channel, ..Place::default() }
    }
}

/// An event that knows its log line and its metric: the one place for both.
pub trait Report {
    fn report(&self, place: &Place<'_>);
}

/// Logs one event. `code` names its kind in snake_case (`session_live`, `part_late`); `detail` is a sentence with the
/// values. Lines of the same code and channel are gathered if they repeat within a second.
pub fn log(level: Level, code: &'static str, place: &Place<'_>, detail: impl fmt::Display) {
    if !enabled(level) {
        return;
    }
    let now = SystemClock::mono();
    let gathered = GATHER.lock().unwrap_or_else(PoisonError::into_inner).take(now, level, code, place, &detail);
    if let Some(repeats) = gathered {
        write(level, code, place, repeats, &detail);
    }
}

/// Writes the lines that were held back and whose second is over: called every second.
pub(super) fn flush(now: Mono) {
    let due = GATHER.lock().unwrap_or_else(PoisonError::into_inner).due(now);
    for (code, held) in due {
        let place = Place { channel: &held.channel, session: &held.session, rendition: &held.rendition };
        write(held.level, code, &place, held.repeats, &held.detail);
    }
}

const GATHER_FOR: Duration = Duration::from_secs(1);
/// Distinct (code, channel) pairs that are gathered; beyond it lines pass ungathered.
const GATHERED_MAX: usize = 4_096;

static GATHER: Mutex<Gather> = Mutex::new(Gather { seen: BTreeMap::new() });

struct Gather {
    seen: BTreeMap<(&'static str, String), Held>,
}

struct Held {
    since: Mono,
    /// Lines held back since `since`; the fields below are the last one's.
    repeats: u64,
    level: Level,
    channel: String,
    session: String,
    rendition: String,
    detail: String,
}

impl Gather {
    /// `Some(n)`: write it now, standing for n events. `None`: held back.
    fn take(
        &mut self,
        now: Mono,
        level: Level,
        code: &'static str,
        place: &Place<'_>,
        detail: &impl fmt::Display,
    ) -> Option<u64> {
        let key = (code, place.channel.to_owned());
        match self.seen.get_mut(&key) {
            Some(held) if now - held.since < GATHER_FOR => {
                held.repeats += 1;
                held.level = level;
                place.session.clone_into(&mut held.session);
                place.rendition.clone_into(&mut held.rendition);
                held.detail = detail.to_string();
                None
            }
            Some(held) => {
                held.since = now;
                Some(std::mem::take(&mut held.repeats) + 1)
            }
            None => {
                if self.seen.len() < GATHERED_MAX {
                    let held = Held {
                        since: now,
                        repeats: 0,
                        level,
                        channel: place.channel.to_owned(),
                        session: String::new(),
                        rendition: String::new(),
                        detail: String::new(),
                    };
                    self.seen.insert(key, held);
                }
                Some(1)
            }
        }
    }

    /// Takes what is due and forgets what has been quiet.
    fn due(&mut self, now: Mono) -> Vec<(&'static str, Held)> {
        let mut due = Vec::new();
        let old = |held: &Held| now - held.since >= GATHER_FOR;
        let keys: Vec<_> = self.seen.iter().filter(|(_, held)| old(held)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(held) = self.seen.remove(&key) else { continue };
            if held.repeats == 0 {
                continue;
            }
            // The second that starts with this line gathers again.
            let next = Held { since: now, repeats: 0, ..held.copy_names() };
            self.seen.insert(key.clone(), next);
            due.push((key.0, held));
        }
        due
    }
}

impl Held {
    fn copy_names(&self) -> Held {
        Held {
            since: self.since,
            repeats: 0,
            level: self.level,
            channel: self.channel.clone(),
            session: String::new(),
            rendition: String::new(),
            detail: String::new(),
        }
    }
}

fn enabled(level: Level) -> bool {
    match level {
        Level::Error => tracing::enabled!(tracing::Level::ERROR),
        Level::Warn => tracing::enabled!(tracing::Level::WARN),
        Level::Info => tracing::enabled!(tracing::Level::INFO),
        Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
        Level::Trace => tracing::enabled!(tracing::Level::TRACE),
    }
}

fn write(level: Level, code: &'static str, place: &Place<'_>, repeats: u64, detail: &dyn fmt::Display) {
    let some = |text| Some(text).filter(|text: &&str| !text.is_empty());
    let (channel, session, rendition) = (some(place.channel), some(place.session), some(place.rendition));
    let repeats = Some(repeats).filter(|n| *n > 1);
    macro_rules! line {
        ($level:ident) => {
            tracing::event!(tracing::Level::$level, code, channel, session, rendition, repeats, "{detail}")
        };
    }
    match level {
        Level::Error => line!(ERROR),
        Level::Warn => line!(WARN),
        Level::Info => line!(INFO),
        Level::Debug => line!(DEBUG),
        Level::Trace => line!(TRACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(1_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn the_first_line_passes_and_a_storm_becomes_one_line_a_second_with_its_count() {
        let mut gather = Gather { seen: BTreeMap::new() };
        let place = Place::channel("news");
        let mut written = Vec::new();
        for ms in 0..3_000 {
            if ms % 100 == 0 {
                written.extend(gather.due(at(ms)).into_iter().map(|(_, held)| held.repeats));
            }
            written.extend(gather.take(at(ms), Level::Warn, "hole", &place, &"a frame is missing"));
        }
        written.extend(gather.due(at(4_000)).into_iter().map(|(_, held)| held.repeats));
        assert_eq!(written[0], 1);
        assert!(written.len() <= 5, "{written:?}");
        assert_eq!(written.iter().sum::<u64>(), 3_000, "every event is counted once: {written:?}");
    }

    #[test]
    fn channels_do_not_hide_each_other() {
        let mut gather = Gather { seen: BTreeMap::new() };
        assert_eq!(gather.take(at(0), Level::Warn, "hole", &Place::channel("a"), &""), Some(1));
        assert_eq!(gather.take(at(1), Level::Warn, "hole", &Place::channel("b"), &""), Some(1));
        assert_eq!(gather.take(at(2), Level::Warn, "hole", &Place::channel("a"), &""), None);
    }

    #[test]
    fn quiet_codes_are_forgotten() {
        let mut gather = Gather { seen: BTreeMap::new() };
        gather.take(at(0), Level::Warn, "hole", &Place::channel("a"), &"");
        assert!(gather.due(at(5_000)).is_empty());
        assert!(gather.seen.is_empty());
    }
}

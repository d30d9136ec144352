//! What a session's cues come to: date ranges for its playlists, and frames at which its encoders begin anew.
//!
//! An event keeps its entry: a cue that is sent again says nothing new, one that ends it finds it by its event id. All
//! places are frames; dates follow from the session's line, once, when a range is first told. A playlist's range can
//! grow but never change [HLS 4.4.5.1]: what was told and does not come ends where it begins.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::media::grid::{FrameRate, Record};
use crate::media::marker::{Dropped, KeptCue, PlacedCue};
use crate::media::plan::Kept;
use crate::mpegts::scte35::{BreakDuration, Command, Edge, Segment, SpliceInfo};
use crate::package::dates::{DateRange, Value};
use crate::time::Wall;

/// Events that are remembered. The one that ended first goes first; with none that ended, the oldest.
const EVENTS_MAX: usize = 128;
/// Frames that wait to be forced.
const FORCED_MAX: usize = 64;
/// An encoder is told so long before: long enough for units on their way.
const FORCE_AHEAD: f64 = 1.0;

/// What is to be done at once and comes again within so many seconds is the same.
const POINT_AGAIN: f64 = 5.0;

/// What a cue did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It says something new.
    New,
    /// It was said before.
    Again,
    /// Nothing came of it.
    Nothing(Dropped),
}

/// A session's events.
#[derive(Debug)]
pub struct Cues {
    rate: FrameRate,
    events: VecDeque<Event>,
    /// Forgotten, with something about them still to be told: no more than were told of before.
    parting: Vec<Event>,
    forced: BTreeSet<i64>,
    /// Cues that said something new.
    taken: u64,
}

#[derive(Debug)]
struct Event {
    /// ID.
    name: String,
    about: &'static str,
    /// By which its end finds it.
    id: u32,
    /// segment_num.
    number: u8,
    /// As `PlacedCue::due`.
    due: Option<i64>,
    start: i64,
    /// No span: an instant, or an end whose beginning nobody heard of.
    point: bool,
    planned: Option<BreakDuration>,
    end: Option<i64>,
    /// It does not come: what is said of it from then on is of another one.
    withdrawn: bool,
    /// As `due`, of the cue that ended it, if one did.
    ended_by: Option<Option<i64>>,
    /// SCTE35-...
    sections: BTreeMap<&'static str, Bytes>,
    /// START-DATE, once it was told.
    date: Option<Wall>,
    /// There is more to tell than was told.
    news: bool,
}

/// One thing that a cue says.
struct Saying<'a> {
    about: &'static str,
    id: u32,
    number: u8,
    is_break: bool,
    planned: Option<BreakDuration>,
    placed: &'a PlacedCue,
}

impl Cues {
    pub fn new(rate: FrameRate) -> Cues {
        Cues { rate, events: VecDeque::new(), parting: Vec::new(), forced: BTreeSet::new(), taken: 0 }
    }

    /// What another process took, for one that begins with frame `from`; what playlists were told of it.
    pub fn restore(&mut self, kept: &Kept, from: i64) -> Vec<DateRange> {
        let jumps: Vec<i64> = kept.anchors.iter().filter(|a| a.run > 0).map(|a| a.n0).collect();
        for cue in &kept.cues {
            if let Some(placed) = cue.placed() {
                self.replay(&placed, &jumps);
            }
            self.taken = self.taken.max(cue.seq + 1);
        }
        self.forced = self.forced.split_off(&from);
        self.end_by_themselves(from);
        self.tell(|n| kept.date_of(n))
    }

    /// Takes a cue once more. `jumps`: the frames at which source time did.
    fn replay(&mut self, placed: &PlacedCue, jumps: &[i64]) {
        self.take(placed);
        // Its frame's time never came: the name is taken, and nobody need be told.
        if let Some(jump) = jumps.iter().find(|n| (placed.next..=placed.n).contains(*n)) {
            self.jumped(*jump);
            let ahead = self.events.iter_mut().filter(|event| event.withdrawn && event.start >= *jump);
            ahead.for_each(|event| event.news = false);
        }
    }

    /// The record of a cue that said something new.
    pub fn record(&mut self, placed: &PlacedCue) -> Record {
        self.taken += 1;
        Record::Cue(KeptCue::of(self.taken - 1, placed))
    }

    /// Takes a cue. What it says of several events counts as one.
    pub fn take(&mut self, placed: &PlacedCue) -> Taken {
        let info = &placed.cue.info;
        match &info.command {
            Command::Insert(insert) => {
                let duration = insert.splice.and_then(|splice| splice.duration);
                let saying =
                    Saying { about: "splice", id: insert.event, number: 0, is_break: true, planned: duration, placed };
                match insert.splice {
                    None => self.cancel(&saying),
                    Some(splice) if splice.out_of_network => self.start(&saying),
                    Some(_) => self.end(&saying),
                }
            }
            Command::TimeSignal(_) if info.segmentations.is_empty() => {
                let bare = Saying { about: "time", id: 0, number: 0, is_break: false, planned: None, placed };
                self.point(&bare, "SCTE35-CMD")
            }
            Command::TimeSignal(_) => self.segmentations(info, placed),
            // A cancelled segmentation may come with any command.
            _ if info.segmentations.iter().any(|s| s.segment.is_none()) => self.segmentations(info, placed),
            _ => Taken::Nothing(Dropped::NoSplice),
        }
    }

    fn segmentations(&mut self, info: &SpliceInfo, placed: &PlacedCue) -> Taken {
        let mut taken = Taken::Again;
        for segmentation in &info.segmentations {
            let one = match segmentation.segment {
                Some(segment) => self.segment(segmentation.event, &segment, placed),
                None => {
                    let saying =
                        Saying { about: "", id: segmentation.event, number: 0, is_break: true, planned: None, placed };
                    self.cancel(&saying)
                }
            };
            taken = if taken == Taken::New { taken } else { one };
        }
        taken
    }

    fn segment(&mut self, id: u32, segment: &Segment, placed: &PlacedCue) -> Taken {
        let planned = segment.duration.map(|ticks| BreakDuration { auto_return: false, ticks });
        let saying = Saying {
            about: segment.about(),
            id,
            number: segment.number,
            is_break: segment.is_break(),
            planned,
            placed,
        };
        match segment.edge() {
            Edge::Start => self.start(&saying),
            Edge::End => self.end(&saying),
            Edge::Point => self.point(&saying, "SCTE35-CMD"),
        }
    }

    fn start(&mut self, saying: &Saying<'_>) -> Taken {
        let (placed, rate) = (saying.placed, self.rate);
        let same = |event: &&mut Event| event.is(saying) && event.number == saying.number && !event.point;
        if let Some(known) = self.events.iter_mut().rev().find(same) {
            let over = known.planned_end(rate).filter(|end| *end <= placed.n);
            let again = match placed.due {
                Some(due) => known.due == Some(due),
                None => known.end.is_none() && over.is_none(),
            };
            if again && !known.withdrawn {
                return Taken::Again;
            }
            if known.end.is_none() && known.start >= placed.next {
                // It was moved before it began.
                let start = known.start;
                known.withdraw(None);
                self.unforce(start);
            } else if known.end.is_none() {
                (known.end, known.news) = (Some(over.unwrap_or(placed.n)), true);
            }
        }
        let name = if saying.is_break { "SCTE35-OUT" } else { "SCTE35-CMD" };
        self.add(saying, name, false);
        Taken::New
    }

    fn end(&mut self, saying: &Saying<'_>) -> Taken {
        let placed = saying.placed;
        let mut own = self.events.iter().rev().filter(|event| event.is(saying) && !event.point);
        let again = match placed.due {
            Some(_) => own.any(|event| event.ended_by == Some(placed.due)),
            None => own.next().is_some_and(|event| event.ended_by.is_some()),
        };
        if again {
            return Taken::Again;
        }
        // Its own beginning; else, as some encoders count on, the newest open one of its kind.
        let open = |event: &Event| event.about == saying.about && event.end.is_none() && event.start <= placed.n;
        let own = self.events.iter().rposition(|event| open(event) && event.id == saying.id);
        let Some(at) = own.or_else(|| self.events.iter().rposition(open)) else {
            return self.point(saying, if saying.is_break { "SCTE35-IN" } else { "SCTE35-CMD" });
        };
        let event = &mut self.events[at];
        (event.end, event.ended_by, event.news) = (Some(placed.n), Some(placed.due), true);
        if saying.is_break {
            event.sections.insert("SCTE35-IN", placed.cue.section.clone());
        }
        // Said of another event's id, it must be found again.
        event.id = saying.id;
        self.force(placed.n);
        Taken::New
    }

    fn point(&mut self, saying: &Saying<'_>, name: &'static str) -> Taken {
        let PlacedCue { n, due, .. } = *saying.placed;
        let lately = n - (self.rate.hz() * POINT_AGAIN) as i64;
        let same = |event: &Event| event.due == due && (due.is_some() || event.start > lately);
        let known = |event: &Event| event.point && event.is(saying) && same(event);
        if self.events.iter().any(known) {
            return Taken::Again;
        }
        self.add(saying, name, true);
        Taken::New
    }

    fn cancel(&mut self, saying: &Saying<'_>) -> Taken {
        let placed = saying.placed;
        let segmented = saying.about.is_empty();
        let mut starts = Vec::new();
        for event in &mut self.events {
            let of = event.id == saying.id && (event.about == "splice") != segmented;
            // What has begun is not cancelled but ended.
            if of && event.start >= placed.next && event.end.is_none() {
                event.withdraw(Some(&placed.cue.section));
                starts.push(event.start);
            }
        }
        starts.iter().for_each(|start| self.unforce(*start));
        if starts.is_empty() { Taken::Nothing(Dropped::Stale) } else { Taken::New }
    }

    fn add(&mut self, saying: &Saying<'_>, name: &'static str, point: bool) {
        let placed = saying.placed;
        if self.events.len() == EVENTS_MAX {
            self.forget(placed.next);
        }
        self.events.push_back(Event {
            name: self.name(saying),
            about: saying.about,
            id: saying.id,
            number: saying.number,
            due: placed.due,
            start: placed.n,
            point,
            planned: saying.planned.filter(|_| !point),
            end: point.then_some(placed.n),
            withdrawn: false,
            ended_by: None,
            sections: BTreeMap::from([(name, placed.cue.section.clone())]),
            date: None,
            news: true,
        });
        self.force(placed.n);
    }

    /// Of an event and no other one that is remembered: what was withdrawn keeps its name, too.
    fn name(&self, saying: &Saying<'_>) -> String {
        let name = format!("{}-{:x}-{}", saying.about, saying.id, saying.placed.due.unwrap_or(saying.placed.n));
        let is_free = |name: &String| self.events.iter().all(|event| event.name != *name);
        let others = (2..).map(|again| format!("{name}-{again}"));
        std::iter::once(name.clone()).chain(others).find(is_free).expect("there are more numbers than events")
    }

    /// Makes room for an event, `next` being the frame of now. Of one that is open nobody would hear the end any more.
    fn forget(&mut self, next: i64) {
        let ended = self.events.iter().enumerate().filter_map(|(at, event)| Some((event.end?, at))).min();
        let Some(mut event) = self.events.remove(ended.map_or(0, |(_, at)| at)) else { return };
        if event.end.is_none() && event.start >= next {
            event.withdraw(None);
            self.unforce(event.start);
        } else if event.end.is_none() {
            let over = event.planned_end(self.rate).filter(|end| *end <= next);
            (event.end, event.news) = (Some(over.unwrap_or(next)), true);
        }
        if event.news && event.date.is_some() {
            self.parting.push(event);
        }
    }

    fn force(&mut self, n: i64) {
        if self.forced.len() < FORCED_MAX {
            self.forced.insert(n);
        }
    }

    /// Frame `n` begins nothing any more, unless for another event.
    fn unforce(&mut self, n: i64) {
        let wants = |event: &Event| !event.withdrawn && (event.start == n || event.end == Some(n));
        if !self.events.iter().any(wants) {
            self.forced.remove(&n);
        }
    }

    /// Source time jumped in front of frame `n`: how many events that were told do not come.
    pub fn jumped(&mut self, n: i64) -> u64 {
        self.forced.retain(|at| *at < n);
        let mut gone = 0;
        for event in self.events.iter_mut().filter(|event| event.start >= n && event.end.is_none()) {
            event.withdraw(None);
            gone += 1;
        }
        gone
    }

    /// Frame `seen` is on its way to the encoders: frames ahead of it that must be IDRs.
    pub fn force_up_to(&mut self, seen: i64) -> Vec<i64> {
        let upto = seen + (self.rate.hz() * FORCE_AHEAD).ceil() as i64;
        self.end_by_themselves(upto).into_iter().for_each(|n| self.force(n));
        let rest = self.forced.split_off(&(upto + 1));
        std::mem::replace(&mut self.forced, rest).into_iter().collect()
    }

    /// Breaks that return by themselves up to a frame: where.
    fn end_by_themselves(&mut self, upto: i64) -> Vec<i64> {
        let (rate, mut returns) = (self.rate, Vec::new());
        for event in self.events.iter_mut().filter(|event| event.end.is_none()) {
            let back = event.returns(rate).filter(|n| *n <= upto);
            if let Some(n) = back {
                (event.end, event.news) = (Some(n), true);
                returns.push(n);
            }
        }
        returns
    }

    /// What is to be told of now. `date`: of a frame.
    pub fn tell(&mut self, date: impl Fn(i64) -> Wall) -> Vec<DateRange> {
        let mut parting = std::mem::take(&mut self.parting);
        let news = self.events.iter_mut().filter(|event| event.news);
        parting.iter_mut().chain(news).map(|event| event.range(&date)).collect()
    }
}

impl Event {
    fn is(&self, saying: &Saying<'_>) -> bool {
        self.about == saying.about && self.id == saying.id
    }

    /// It was told and does not come.
    fn withdraw(&mut self, by: Option<&Bytes>) {
        (self.end, self.withdrawn, self.news) = (Some(self.start), true, true);
        if let Some(section) = by {
            self.sections.entry("SCTE35-CMD").or_insert_with(|| section.clone());
        }
    }

    /// The frame at which it should end.
    fn planned_end(&self, rate: FrameRate) -> Option<i64> {
        Some(self.start + rate.frames(i64::try_from(self.planned?.ticks).ok()?))
    }

    /// The frame at which it ends by itself.
    fn returns(&self, rate: FrameRate) -> Option<i64> {
        self.planned_end(rate).filter(|_| self.planned.is_some_and(|planned| planned.auto_return))
    }

    fn range(&mut self, date: impl Fn(i64) -> Wall) -> DateRange {
        self.news = false;
        let start = *self.date.get_or_insert_with(|| date(self.start));
        let end = self.end.map(|n| if n == self.start { start } else { date(n).max(start) });
        let lasts = |end: Wall| Duration::from_nanos(u64::try_from(end.0 - start.0).unwrap_or(0));
        let sections = self.sections.iter().map(|(name, bytes)| ((*name).to_owned(), Value::Hex(bytes.clone())));
        DateRange {
            id: self.name.clone(),
            class: Some(format!("scte35-{}", self.about)),
            start,
            end: end.filter(|_| !self.point),
            duration: end.map(lasts),
            planned_duration: self.planned.map(|planned| Duration::from_nanos(planned.ticks * 100_000 / 9)),
            attributes: sections.collect(),
            ..DateRange::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::marker::Cue;
    use crate::mpegts::scte35::{Insert, Segmentation, Splice, When};
    use crate::time::Mono;

    const RATE: FrameRate = FrameRate::new(25_000, 1_000);
    const SECOND: i64 = 1_000_000_000;

    struct Room {
        cues: Cues,
        sent: u32,
    }

    impl Room {
        fn new() -> Room {
            Room { cues: Cues::new(RATE), sent: 0 }
        }

        /// A cue that is due at frame `due` when `next` is the next one.
        fn send(&mut self, next: i64, due: Option<i64>, command: Command, segmentations: &[Segmentation]) -> Taken {
            let placed = self.placed(next, due, command, segmentations);
            self.cues.take(&placed)
        }

        fn placed(&mut self, next: i64, due: Option<i64>, command: Command, all: &[Segmentation]) -> PlacedCue {
            self.sent += 1;
            let info = SpliceInfo { command, segmentations: all.to_vec() };
            let section = Bytes::copy_from_slice(&self.sent.to_be_bytes());
            let cue = Cue { pid: 500, pts: None, received: Mono(0), info, section };
            PlacedCue { n: due.map_or(next, |due| due.max(next)), next, due, cue }
        }

        fn splice(
            &mut self,
            next: i64,
            due: Option<i64>,
            id: u32,
            out: bool,
            duration: Option<BreakDuration>,
        ) -> Taken {
            let at = When::Now;
            let (unique_program_id, avail, avails_expected) = (0, 0, 0);
            let out_of_network = out;
            let splice = Splice { out_of_network, at, duration, unique_program_id, avail, avails_expected };
            self.send(next, due, Command::Insert(Insert { event: id, splice: Some(splice) }), &[])
        }

        fn segment(&mut self, next: i64, due: i64, event: u32, kind: u8, seconds: Option<u64>) -> Taken {
            let segment = Segment { kind, duration: seconds.map(|s| s * 90_000), number: 1, expected: 1 };
            let segmentation = Segmentation { event, segment: Some(segment) };
            self.send(next, Some(due), Command::TimeSignal(When::Now), &[segmentation])
        }

        fn told(&mut self) -> Vec<DateRange> {
            self.cues.tell(|n| Wall(n * SECOND / 25))
        }
    }

    fn names(range: &DateRange) -> Vec<&str> {
        range.attributes.keys().map(String::as_str).collect()
    }

    const MINUTE: Option<BreakDuration> = Some(BreakDuration { auto_return: false, ticks: 60 * 90_000 });

    #[test]
    fn out_and_in_are_one_range_that_is_told_once_each_however_often_they_are_sent() {
        let mut room = Room::new();
        assert_eq!(room.splice(100, Some(250), 7, true, MINUTE), Taken::New);
        for next in [150, 200, 251, 300] {
            assert_eq!(room.splice(next, Some(250), 7, true, MINUTE), Taken::Again, "before and behind its frame");
        }
        let [range] = &room.told()[..] else { panic!("one") };
        assert_eq!((range.id.as_str(), range.class.as_deref()), ("splice-7-250", Some("scte35-splice")));
        assert_eq!((range.start, range.end, range.duration), (Wall(10 * SECOND), None, None));
        assert_eq!((range.planned_duration, names(range)), (Some(Duration::from_secs(60)), vec!["SCTE35-OUT"]));
        assert!(room.told().is_empty());
        assert_eq!(room.splice(1_000, Some(1_250), 7, false, None), Taken::New);
        assert_eq!(room.splice(1_100, Some(1_250), 7, false, None), Taken::Again);
        let [range] = &room.told()[..] else { panic!("one") };
        assert_eq!((range.id.as_str(), range.end), ("splice-7-250", Some(Wall(50 * SECOND))));
        assert_eq!((range.duration, names(range)), (Some(Duration::from_secs(40)), vec!["SCTE35-IN", "SCTE35-OUT"]));
        assert_eq!(room.cues.force_up_to(1_300), [250, 1_250]);
    }

    #[test]
    fn an_event_id_that_is_used_again_is_another_range() {
        let mut room = Room::new();
        room.splice(0, Some(100), 1, true, MINUTE);
        room.splice(150, Some(200), 1, false, None);
        assert_eq!(room.splice(250, None, 1, true, MINUTE), Taken::New);
        assert_eq!(room.splice(251, None, 1, true, MINUTE), Taken::Again, "sent at once a second time");
        assert_eq!(room.splice(300, None, 1, false, None), Taken::New);
        assert_eq!(room.splice(301, None, 1, false, None), Taken::Again);
        // Nobody ended it: it is over where it was to end.
        room.splice(400, None, 1, true, MINUTE);
        assert_eq!(room.splice(2_000, None, 1, true, MINUTE), Taken::New);
        let told: Vec<_> = room.told().into_iter().map(|r| (r.id, r.end.map(|end| end.0 / SECOND))).collect();
        let expected = [
            ("splice-1-100", Some(8)),
            ("splice-1-250", Some(12)),
            ("splice-1-400", Some(76)),
            ("splice-1-2000", None),
        ];
        assert_eq!(told, expected.map(|(id, end)| (id.to_owned(), end)));
    }

    #[test]
    fn a_break_that_returns_by_itself_ends_with_a_forced_frame_unless_it_was_ended_before() {
        let auto = Some(BreakDuration { auto_return: true, ticks: 10 * 90_000 });
        let mut room = Room::new();
        room.splice(0, Some(100), 1, true, auto);
        assert_eq!(room.cues.force_up_to(80), [100], "a second ahead");
        room.told();
        assert_eq!(room.cues.force_up_to(320), [] as [i64; 0]);
        assert!(room.told().is_empty());
        assert_eq!(room.cues.force_up_to(330), [350]);
        assert_eq!(room.told()[0].end, Some(Wall(14 * SECOND)));
        room.splice(400, Some(500), 2, true, auto);
        room.splice(510, Some(600), 2, false, None);
        assert_eq!(room.cues.force_up_to(1_000), [500, 600], "not 750");
    }

    #[test]
    fn segments_start_and_end_by_their_type_and_two_of_one_signal_are_two() {
        let mut room = Room::new();
        room.segment(0, 100, 9, 0x34, Some(30));
        room.segment(0, 100, 9, 0x30, Some(15));
        room.segment(0, 50, 3, 0x10, None);
        room.segment(200, 475, 9, 0x31, None);
        room.segment(200, 850, 9, 0x35, None);
        room.segment(900, 1_000, 3, 0x11, None);
        room.segment(900, 1_000, 4, 0x01, None);
        let told = room.told();
        let said: Vec<_> =
            told.iter().map(|r| (r.id.as_str(), r.end.map(|e| e.0 * 25 / SECOND), names(r).join(" "))).collect();
        let expected = [
            ("provider-placement-9-100", Some(850), "SCTE35-IN SCTE35-OUT"),
            ("provider-ad-9-100", Some(475), "SCTE35-IN SCTE35-OUT"),
            ("program-3-50", Some(1_000), "SCTE35-CMD"),
            ("content-identification-4-1000", None, "SCTE35-CMD"),
        ];
        assert_eq!(said, expected.map(|(id, end, names)| (id, end, names.to_owned())));
        assert_eq!(told[3].duration, Some(Duration::ZERO));
        assert_eq!(room.cues.force_up_to(1_000), [50, 100, 475, 850, 1_000]);
    }

    #[test]
    fn what_is_cancelled_or_moved_before_it_begins_ends_where_it_begins_and_forces_nothing() {
        let cancel =
            |room: &mut Room, next, event| room.send(next, None, Command::Insert(Insert { event, splice: None }), &[]);
        let mut room = Room::new();
        room.splice(0, Some(100), 1, true, MINUTE);
        room.splice(0, Some(300), 2, true, MINUTE);
        assert_eq!(cancel(&mut room, 50, 1), Taken::New);
        assert_eq!(cancel(&mut room, 400, 2), Taken::Nothing(Dropped::Stale), "it has begun");
        room.splice(400, Some(500), 3, true, MINUTE);
        assert_eq!(room.splice(420, Some(520), 3, true, MINUTE), Taken::New, "moved");
        let told = room.told();
        assert_eq!((told[0].duration, names(&told[0])), (Some(Duration::ZERO), vec!["SCTE35-CMD", "SCTE35-OUT"]));
        assert_eq!((told[1].duration, told[2].duration, told[3].duration), (None, Some(Duration::ZERO), None));
        assert_eq!(room.cues.force_up_to(1_000), [300, 520]);
    }

    #[test]
    fn an_event_that_was_taken_back_is_another_one_when_it_is_sent_again() {
        let cancel =
            |room: &mut Room, next, event| room.send(next, None, Command::Insert(Insert { event, splice: None }), &[]);
        let mut room = Room::new();
        room.splice(0, Some(500), 3, true, MINUTE);
        room.told();
        assert_eq!(cancel(&mut room, 100, 3), Taken::New);
        assert_eq!(room.splice(150, Some(500), 3, true, MINUTE), Taken::New, "it comes after all");
        assert_eq!(room.splice(160, Some(500), 3, true, MINUTE), Taken::Again);
        let told: Vec<_> = room.told().into_iter().map(|r| (r.id, r.duration)).collect();
        assert_eq!(told, [("splice-3-500".to_owned(), Some(Duration::ZERO)), ("splice-3-500-2".to_owned(), None)]);
        assert_eq!(room.cues.force_up_to(1_000), [500]);

        // There and back again: each is told by a name of its own, and only the last one comes.
        let mut room = Room::new();
        for due in [500, 520, 500, 520] {
            assert_eq!(room.splice(0, Some(due), 3, true, MINUTE), Taken::New, "{due}");
        }
        let names = ["splice-3-500", "splice-3-520", "splice-3-500-2", "splice-3-520-2"];
        let told = room.told();
        assert_eq!(told.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(told.iter().map(|r| r.duration.is_none()).collect::<Vec<_>>(), [false, false, false, true]);
        assert_eq!(room.cues.force_up_to(1_000), [520]);
    }

    #[test]
    fn what_is_cancelled_leaves_the_frame_of_another_event_forced() {
        let mut room = Room::new();
        room.splice(0, Some(100), 1, true, MINUTE);
        room.splice(0, Some(100), 2, true, MINUTE);
        room.send(10, None, Command::Insert(Insert { event: 2, splice: None }), &[]);
        assert_eq!(room.cues.force_up_to(1_000), [100]);
    }

    /// Another process takes up what was recorded, a jump of source time included.
    #[test]
    fn names_are_the_same_after_a_restart() {
        let mut room = Room::new();
        let (at, duration, unique_program_id, avail, avails_expected) = (When::Now, None, 0, 0, 0);
        let out = Some(Splice { out_of_network: true, at, duration, unique_program_id, avail, avails_expected });
        let mut log = Vec::new();
        for (next, due, splice) in [
            (0, Some(500), out),
            (10, Some(520), out),
            (20, Some(500), out),
            (110, Some(500), out),
            (120, None, None),
            (130, Some(500), out),
        ] {
            if next == 110 {
                room.cues.jumped(100);
            }
            log.push(room.placed(next, due, Command::Insert(Insert { event: 3, splice }), &[]));
            assert_eq!(room.cues.take(&log[log.len() - 1]), Taken::New, "{next}");
        }
        let live: Vec<_> = room.told().into_iter().map(|r| (r.id, r.duration)).collect();
        assert_eq!(live.last(), Some(&("splice-3-500-4".to_owned(), None)));
        let mut again = Room::new();
        log.iter().for_each(|placed| again.cues.replay(placed, &[100]));
        let told: Vec<_> = again.told().into_iter().map(|r| (r.id, r.duration)).collect();
        assert_eq!(told, live[3..], "by the same names; those in front of the jump are not told again");
    }

    #[test]
    fn what_is_open_is_remembered_longer_than_what_is_over() {
        let mut room = Room::new();
        room.segment(0, 50, 3, 0x10, None);
        for id in 0..2 * EVENTS_MAX as u32 {
            let at = 100 + 20 * i64::from(id);
            room.splice(at - 5, Some(at), id, true, MINUTE);
            room.splice(at + 5, Some(at + 10), id, false, None);
            room.told();
        }
        assert_eq!(room.segment(9_000, 9_100, 3, 0x11, None), Taken::New);
        let [range] = &room.told()[..] else { panic!("one") };
        assert_eq!((range.id.as_str(), range.end), ("program-3-50", Some(Wall(364 * SECOND))));
        // The end of what has just ended is known for longest.
        assert_eq!(room.segment(9_001, 9_100, 3, 0x11, None), Taken::Again);
    }

    #[test]
    fn of_too_many_open_events_the_oldest_is_told_to_be_over() {
        let mut room = Room::new();
        room.splice(0, Some(100), 0, true, None);
        room.splice(0, Some(9_000), 1, true, None);
        for id in 2..EVENTS_MAX as u32 {
            room.splice(200, Some(300), id, true, None);
        }
        assert_eq!(room.told().len(), EVENTS_MAX);
        room.splice(400, Some(500), 1_000, true, None);
        room.splice(400, Some(500), 1_001, true, None);
        let told: Vec<_> = room.told().into_iter().map(|r| (r.id, r.end.map(|end| end.0 * 25 / SECOND))).collect();
        let expected = [
            ("splice-0-100", Some(400)),
            ("splice-1-9000", Some(9_000)),
            ("splice-3e8-500", None),
            ("splice-3e9-500", None),
        ];
        assert_eq!(told, expected.map(|(id, end)| (id.to_owned(), end)), "what had not begun does not come");
        assert!(!room.cues.force_up_to(10_000).contains(&9_000));
        assert!(room.told().is_empty());
    }

    #[test]
    fn a_jump_takes_back_what_lies_ahead() {
        let mut room = Room::new();
        room.splice(0, Some(100), 1, true, MINUTE);
        room.splice(90, Some(200), 2, true, MINUTE);
        assert_eq!(room.cues.jumped(150), 1);
        assert_eq!(room.cues.force_up_to(1_000), [100]);
        let told = room.told();
        assert_eq!((told[0].duration, told[1].duration), (None, Some(Duration::ZERO)));
    }

    #[test]
    fn an_end_without_a_beginning_is_told_once_and_one_with_another_id_ends_what_is_open() {
        let mut room = Room::new();
        assert_eq!(room.splice(100, Some(150), 5, false, None), Taken::New);
        assert_eq!(room.splice(120, Some(150), 5, false, None), Taken::Again);
        let [range] = &room.told()[..] else { panic!("one") };
        assert_eq!((range.duration, names(range)), (Some(Duration::ZERO), vec!["SCTE35-IN"]));
        room.splice(200, Some(250), 6, true, None);
        assert_eq!(room.splice(300, Some(350), 99, false, None), Taken::New);
        assert_eq!(room.splice(310, Some(350), 99, false, None), Taken::Again);
        let told = room.told();
        assert_eq!((told.len(), told[0].id.as_str(), told[0].end), (1, "splice-6-250", Some(Wall(14 * SECOND))));
    }

    #[test]
    fn nothing_grows_without_a_bound() {
        let mut room = Room::new();
        for id in 0..2_000 {
            room.splice(0, Some(i64::from(id) + 1), id, true, None);
        }
        assert!(room.cues.events.len() == EVENTS_MAX && room.cues.forced.len() == FORCED_MAX);
        assert_eq!(room.send(0, None, Command::Null, &[]), Taken::Nothing(Dropped::NoSplice));
    }
}

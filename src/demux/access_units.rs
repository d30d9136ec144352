//! A byte stream with start codes to access units, by what `coding` knows of its codec: both fields of a frame in one
//! unit. H.264 and H.265 come out in Annex B with 4-byte start codes, without delimiters; MPEG-2 as it came.
//!
//! Payload is copied once, into the buffer that units are split off (a unit at the end of a block moves to the next
//! one); start codes are brought into form there, by moving at most a packet's bytes.
//!
//! Delay: a unit is whole when the next one is seen to start (its delimiter, parameter set, SEI or first slice: in the
//! first packet of the next PES packet, one frame later), or at once at the end of its PES packet, where that end is
//! known: the declared length is reached, or the packet is stuffed, which packetizers do only at the end of a PES
//! packet. The latter two are believed once `TRUST` units in a row were one PES packet each, and no longer after the
//! first time that it was not so.

use bytes::{Buf, BytesMut};

use super::coding::{Coding, Relation, Role};
use super::event::{Event, Outbox};
use super::stamp::{FrameClock, Line, Stamp};
use crate::bitstream::annexb::find_start;
use crate::media::access_unit::AccessUnit;
use crate::media::fault::FaultKind;
use crate::media::limits::ACCESS_UNIT_BYTES_MAX;
use crate::media::track::{Pid, TrackConfig, VideoConfig};
use crate::time::{Dts, Mono, Pts};

/// One video track's bytes to units, whatever its codec.
pub(super) trait VideoTrack: std::fmt::Debug + Send {
    /// A PES packet begins.
    fn start(&mut self, stamp: Stamp);

    /// Bytes are missing here.
    fn gap(&mut self);

    /// The bytes before may be wrong.
    fn suspect(&mut self);

    fn push(&mut self, bytes: &[u8], out: &mut Outbox);

    /// A PES packet's last byte was pushed: of a bounded one of `bounded` payload bytes, or as its stuffing tells.
    fn end(&mut self, bounded: Option<usize>, out: &mut Outbox);

    /// The connection ends: what was received is a unit.
    fn flush(&mut self, out: &mut Outbox);
}

#[derive(Debug)]
pub(super) struct VideoUnits<C: Coding> {
    pid: Pid,
    coding: C,
    /// The unit being collected from 0 on, then what may belong to the next one.
    buffer: BytesMut,
    /// Where to look for the next start code.
    scan: usize,
    /// The NAL unit being received.
    nal: Option<Nal>,
    unit: Unit<C::Slice>,
    boundary: Option<Boundary>,
    /// Where the current and the previous PES packet's bytes start.
    pes: [(usize, Stamp); 2],
    /// The last PES packet whose time stamp was used.
    used_pes: u64,
    /// Bytes are missing since the current PES packet began.
    broken: bool,
    line: Line,
    clock: FrameClock,
    habit: Habit<C::Slice>,
    config: Option<Config>,
    untimed: bool,
    /// Where this push's bytes start in `buffer`, and when those before it arrived.
    fresh: usize,
    before: Mono,
}

/// A NAL unit in `buffer`, behind its start code at `start`.
#[derive(Clone, Copy, Debug)]
struct Nal {
    start: usize,
    stamp: Stamp,
    /// Its meaning for the unit was worked out.
    decided: bool,
    damaged: bool,
}

/// The unit being collected.
#[derive(Debug)]
struct Unit<S> {
    /// It has begun, with this time stamp if it is the first to begin in its PES packet.
    begun: bool,
    stamp: Option<Stamp>,
    /// Its first slice, and the latest.
    first: Option<S>,
    last: Option<S>,
    /// Holds both fields of a frame.
    paired: bool,
    damaged: bool,
    recovery: Option<u16>,
    /// The rest of a picture that was given out too early.
    orphan: bool,
}

/// Where the next unit starts, if the next slice is of another picture.
#[derive(Clone, Copy, Debug)]
struct Boundary {
    at: usize,
    stamp: Stamp,
}

/// Whether this stream's PES packets end where its units end.
#[derive(Debug)]
struct Habit<S> {
    /// Units in a row that began with a PES packet of their own.
    aligned: u32,
    /// Stuffed packets in a row that a unit start followed.
    stuffed: u32,
    /// The last packet was stuffed.
    stuffing: bool,
    /// A unit was given out before its end: never again.
    lied: bool,
    /// The last slice of the last unit given out early, and its PES packet.
    early: Option<(S, u64)>,
}

const TRUST: u32 = 8;
/// A bounded PES packet this long may be one of several that hold a unit.
const BOUNDED_MAX: usize = 65_000;

#[derive(Debug)]
struct Config {
    revision: (u64, u8),
    told: VideoConfig,
}

impl<S> Default for Unit<S> {
    fn default() -> Self {
        Unit {
            begun: false,
            stamp: None,
            first: None,
            last: None,
            paired: false,
            damaged: false,
            recovery: None,
            orphan: false,
        }
    }
}

impl<S> Default for Habit<S> {
    fn default() -> Self {
        Habit { aligned: 0, stuffed: 0, stuffing: false, lied: false, early: None }
    }
}

impl<C: Coding> VideoUnits<C> {
    /// Bytes of a start code in `buffer`.
    const PREFIX: usize = if C::ANNEX_B { 4 } else { 3 };

    pub(super) fn new(pid: Pid) -> VideoUnits<C> {
        VideoUnits {
            pid,
            coding: C::default(),
            buffer: BytesMut::new(),
            scan: 0,
            nal: None,
            unit: Unit::default(),
            boundary: None,
            pes: [(0, Stamp::default()); 2],
            used_pes: 0,
            broken: false,
            line: Line::default(),
            clock: FrameClock::default(),
            habit: Habit::default(),
            config: None,
            untimed: false,
            fresh: 0,
            before: Mono::default(),
        }
    }
}

impl<C: Coding> VideoTrack for VideoUnits<C> {
    fn start(&mut self, stamp: Stamp) {
        self.pes = [(self.buffer.len(), stamp), self.pes[0]];
        self.broken = false;
        if !self.unit.begun {
            self.unit.damaged = false;
        }
        if std::mem::take(&mut self.habit.stuffing) {
            self.habit.stuffed += 1;
        }
    }

    fn gap(&mut self) {
        self.broken = true;
        self.habit.stuffing = false;
        self.suspect();
    }

    fn suspect(&mut self) {
        self.unit.damaged = true;
        if let Some(nal) = &mut self.nal {
            nal.damaged = true;
        }
    }

    fn push(&mut self, bytes: &[u8], out: &mut Outbox) {
        self.check_habit(bytes, out);
        self.fresh = self.buffer.len();
        self.make_room(bytes.len());
        self.buffer.extend_from_slice(bytes);
        while let Some(found) = find_start(&self.buffer[self.scan..]) {
            self.start_nal(self.scan + found, out);
        }
        self.scan = self.scan.max(self.buffer.len().saturating_sub(2));
        if self.nal.is_none() {
            // Before the first start code: nothing but the beginning of one is kept.
            let keep = self.buffer.len().saturating_sub(3);
            self.drop_front(keep);
        } else if self.buffer.len() > ACCESS_UNIT_BYTES_MAX {
            out.fault(FaultKind::Oversize, Some(self.pid), None, "a picture of more than 16 MiB was dropped");
            self.reset();
        } else {
            self.decide_upto(None, out);
        }
        self.before = out.now;
    }

    fn end(&mut self, bounded: Option<usize>, out: &mut Outbox) {
        let habit = &mut self.habit;
        let believed = match bounded {
            Some(bytes) => bytes < BOUNDED_MAX,
            None => {
                habit.stuffing = true;
                habit.stuffed >= TRUST
            }
        };
        if !believed || habit.lied || self.broken || habit.aligned < TRUST {
            return;
        }
        self.decide(out);
        if self.is_whole() {
            self.fresh = 0;
            self.habit.early = self.unit.last.map(|last| (last, self.pes[0].1.pes));
            self.emit_all(out);
        }
    }

    fn flush(&mut self, out: &mut Outbox) {
        self.fresh = self.buffer.len();
        self.decide(out);
        if self.unit.first.is_some() {
            self.emit_all(out);
        }
        self.reset();
    }
}

impl<C: Coding> VideoUnits<C> {
    /// The unit ends with the buffer.
    fn emit_all(&mut self, out: &mut Outbox) {
        let floor = self.nal.map_or(0, |nal| nal.start + Self::PREFIX);
        let mut end = self.buffer.len();
        while C::ANNEX_B && end > floor && self.buffer[end - 1] == 0 {
            end -= 1;
        }
        self.buffer.truncate(end);
        let end = self.close_nal(end, out);
        self.emit(end, out);
        self.scan = 0;
    }

    /// Holds what comes behind the presumed end of a PES packet against that presumption.
    fn check_habit(&mut self, bytes: &[u8], out: &mut Outbox) {
        if bytes.is_empty() {
            return;
        }
        if std::mem::take(&mut self.habit.stuffing) {
            self.habit.stuffed = 0;
        }
        let same_pes = self.habit.early.is_some_and(|(_, pes)| pes == self.pes[0].1.pes);
        if same_pes && !self.broken && bytes.iter().any(|byte| *byte != 0) {
            self.lie(out);
        }
    }

    fn reset(&mut self) {
        self.buffer = BytesMut::new();
        (self.scan, self.nal, self.boundary) = (0, None, None);
        self.pes[0].0 = 0;
        self.pes[1].0 = 0;
        self.unit = Unit { damaged: true, ..Unit::default() };
        self.broken = true;
    }

    /// Grows in large steps: a unit that is split off shares the block with its neighbours.
    fn make_room(&mut self, more: usize) {
        const BLOCK: usize = 128 << 10;
        if self.buffer.capacity() - self.buffer.len() < more + 1 {
            self.buffer.reserve(BLOCK.max(self.buffer.len()));
        }
    }

    /// A start code lies at `code`.
    fn start_nal(&mut self, code: usize, out: &mut Outbox) {
        let floor = self.nal.map_or(0, |nal| nal.start + Self::PREFIX);
        let mut end = code;
        while C::ANNEX_B && end > floor && self.buffer[end - 1] == 0 {
            end -= 1;
        }
        let stamp = if code >= self.pes[0].0 { self.pes[0].1 } else { self.pes[1].1 };
        match code - end {
            _ if !C::ANNEX_B => {}
            0 => self.insert_zero(end),
            zeros => self.cut(end, end + zeros - 1),
        }
        let start = self.close_nal(end, out);
        self.nal = Some(Nal { start, stamp, decided: false, damaged: false });
        self.scan = start + Self::PREFIX;
        if !self.unit.begun {
            self.begin(stamp);
        }
    }

    /// The unit starts with a NAL unit of this stamp.
    fn begin(&mut self, stamp: Stamp) {
        let fresh = stamp.pes > self.used_pes;
        self.used_pes = self.used_pes.max(stamp.pes);
        self.habit.aligned = if fresh { self.habit.aligned + 1 } else { 0 };
        self.unit.begun = true;
        self.unit.stamp = fresh.then_some(stamp);
    }

    /// The NAL unit in progress ends at `end`. Returns where what follows it starts: it may have moved.
    fn close_nal(&mut self, end: usize, out: &mut Outbox) -> usize {
        let Some(Nal { start, .. }) = self.nal else {
            self.drop_front(end);
            return 0;
        };
        let length = end - start;
        if length > Self::PREFIX {
            self.decide_upto(Some(length), out);
        }
        let Some(Nal { start, damaged, .. }) = self.nal.take() else { return 0 };
        let end = start + length;
        let body = &self.buffer[start + Self::PREFIX..end];
        let role = self.coding.role(body);
        if body.is_empty() || role == Some(Role::Delimiter) {
            self.cut(start, end);
            return start;
        }
        let taken = if damaged { Ok(()) } else { self.coding.take(body) };
        if let Err(why) = taken {
            out.fault(FaultKind::ParameterSet, Some(self.pid), None, why);
        }
        end
    }

    /// As if the NAL unit in progress ended here.
    fn decide(&mut self, out: &mut Outbox) {
        if let Some(nal) = self.nal {
            self.decide_upto(Some(self.buffer.len() - nal.start), out);
        }
    }

    /// Works out what the NAL unit in progress means for the unit, once enough of it is here: all of its `length`
    /// bytes, start code included, or `HEAD_BYTES`.
    fn decide_upto(&mut self, length: Option<usize>, out: &mut Outbox) {
        let Some(Nal { start, stamp, decided: false, .. }) = self.nal else { return };
        let whole = length.is_some();
        let length = length.unwrap_or(self.buffer.len() - start);
        let body = &self.buffer[start + Self::PREFIX..start + length];
        let Some(role) = self.coding.role(body) else { return };
        if role == Role::Slice && body.len() < C::HEAD_BYTES && !whole {
            return;
        }
        self.mark_decided();
        match role {
            Role::Slice => self.decide_slice(start, length, stamp, out),
            Role::More => self.more(stamp, out),
            // A delimiter's NAL unit is left out when it ends: so far it is the front of the next unit.
            Role::Delimiter => self.decide_next(true, start, stamp, out),
            Role::Next { sure } => self.decide_next(sure, start, stamp, out),
            Role::Other => {}
        }
    }

    /// What lies at `start` begins the next unit, behind a picture.
    fn decide_next(&mut self, sure: bool, start: usize, stamp: Stamp, out: &mut Outbox) {
        if self.unit.first.is_none() {
            return;
        }
        let boundary = *self.boundary.get_or_insert(Boundary { at: start, stamp });
        if sure && self.is_whole() {
            self.emit(boundary.at, out);
        }
    }

    fn mark_decided(&mut self) {
        if let Some(nal) = &mut self.nal {
            nal.decided = true;
        }
    }

    fn decide_slice(&mut self, start: usize, length: usize, stamp: Stamp, out: &mut Outbox) {
        let body = start + Self::PREFIX;
        let head = &self.buffer[body..(start + length).min(body + C::HEAD_BYTES)];
        let pid = self.pid;
        let complain = &mut |why| out.fault(FaultKind::ParameterSet, Some(pid), None, why);
        match self.coding.slice(head, complain) {
            Some(slice) => self.slice(slice, start, stamp, out),
            None => self.unit.damaged = true,
        }
    }

    /// Part of a picture whose header came, or was lost.
    fn more(&mut self, stamp: Stamp, out: &mut Outbox) {
        if self.unit.last.is_some() && self.boundary.is_none() {
            self.spread(stamp);
        } else if self.unit.last.is_none() && self.habit.early.take().is_some() {
            self.unit.damaged = true;
            self.lie(out);
        }
    }

    /// The picture in progress goes on, maybe in another PES packet.
    fn spread(&mut self, stamp: Stamp) {
        if stamp.pes > self.used_pes {
            self.used_pes = stamp.pes;
            self.habit.aligned = 0;
        }
    }

    /// A slice starts at `start`.
    fn slice(&mut self, slice: C::Slice, start: usize, stamp: Stamp, out: &mut Outbox) {
        if let Some(last) = &self.unit.last {
            match self.coding.relation(last, &slice) {
                Relation::Same => {
                    self.spread(stamp);
                    self.boundary = None;
                    self.unit.last = Some(slice);
                    return;
                }
                Relation::SecondField if !self.unit.paired => {
                    // The second field's own time stamp names half a frame: it is not used.
                    self.used_pes = self.used_pes.max(stamp.pes);
                    self.boundary = None;
                    self.unit.paired = true;
                    self.unit.last = Some(slice);
                    self.coding.recovery();
                    return;
                }
                Relation::SecondField | Relation::Next => {
                    let boundary = *self.boundary.get_or_insert(Boundary { at: start, stamp });
                    self.emit(boundary.at, out);
                }
            }
        }
        if let Some((early, _)) = self.habit.early.take()
            && self.coding.continues(&early, &slice)
        {
            self.unit.orphan = true;
            self.lie(out);
        }
        self.unit.recovery = self.coding.recovery();
        self.unit.first = Some(slice);
        self.unit.last = Some(slice);
    }

    /// More of a unit came after it was given out.
    fn lie(&mut self, out: &mut Outbox) {
        if !std::mem::replace(&mut self.habit.lied, true) {
            let detail = "a picture went on behind the end of its PES packet; from now on units wait for the next one";
            out.fault(FaultKind::Syntax, Some(self.pid), None, detail);
        }
    }

    /// Gives out the unit, whose bytes end at `at`; what follows is the next one's.
    fn emit(&mut self, at: usize, out: &mut Outbox) {
        let received = if at > self.fresh { out.now } else { self.before };
        let data = self.buffer.split_to(at).freeze();
        self.shift(at);
        let next = Unit { damaged: self.broken, ..Unit::default() };
        let unit = std::mem::replace(&mut self.unit, next);
        if let Some(boundary) = self.boundary.take() {
            self.begin(boundary.stamp);
        }
        let Some(first) = unit.first.filter(|_| !unit.orphan) else { return };
        let Some((pts, dts)) = self.place(&unit, &first, out) else { return };
        if let Some(frames) = unit.recovery {
            out.events.push_back(Event::RecoveryPoint { pid: self.pid, pts, frames });
        }
        out.unit(AccessUnit {
            pid: self.pid,
            codec: C::CODEC,
            pts,
            dts,
            random_access: self.coding.is_random_access(&first),
            damaged: unit.damaged,
            received,
            data,
        });
    }

    /// The unit's times, behind its configuration if that is news. `None`: it cannot be decoded or placed.
    fn place(&mut self, unit: &Unit<C::Slice>, first: &C::Slice, out: &mut Outbox) -> Option<(Pts, Dts)> {
        let Some(timing) = self.coding.timing(first) else {
            out.counters.undecodable_units += 1;
            return None;
        };
        let own = unit.stamp.and_then(|stamp| self.line.place(&stamp, out));
        let times = self.clock.next(own, &timing);
        if times.is_none() {
            out.counters.undecodable_units += 1;
            if !std::mem::replace(&mut self.untimed, true) {
                let detail = "pictures without any time stamp are left out until the first PTS";
                out.fault(FaultKind::NoTimestamp, Some(self.pid), None, detail);
            }
            return None;
        }
        self.tell_config(first, out);
        times
    }

    fn tell_config(&mut self, first: &C::Slice, out: &mut Outbox) {
        let revision = self.coding.revision(first);
        let unchanged = self.config.as_ref().is_some_and(|config| config.revision == revision);
        let (false, Some(config)) = (unchanged, self.coding.config(first)) else { return };
        let told = self.config.take();
        if told.is_none_or(|told| told.told != config) {
            out.events.push_back(Event::Config { pid: self.pid, config: TrackConfig::Video(config.clone()) });
        }
        self.config = Some(Config { revision, told: config });
    }

    /// Offsets after `by` bytes left the front of the buffer.
    fn shift(&mut self, by: usize) {
        if let Some(nal) = &mut self.nal {
            nal.start = nal.start.saturating_sub(by);
        }
        for (offset, _) in &mut self.pes {
            *offset = offset.saturating_sub(by);
        }
        self.scan = self.scan.saturating_sub(by);
        self.fresh = self.fresh.saturating_sub(by);
    }

    fn drop_front(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.shift(bytes);
    }

    /// Takes `from..to` out; little lies behind it.
    fn cut(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let length = self.buffer.len();
        self.buffer.copy_within(to.., from);
        self.buffer.truncate(length - (to - from));
        for (offset, _) in &mut self.pes {
            if *offset > from {
                *offset = (*offset).max(to) - (to - from);
            }
        }
    }

    /// Makes a start code of three bytes one of four.
    fn insert_zero(&mut self, at: usize) {
        self.buffer.extend_from_slice(&[0]);
        let length = self.buffer.len();
        self.buffer.copy_within(at..length - 1, at + 1);
        self.buffer[at] = 0;
        for (offset, _) in &mut self.pes {
            if *offset > at {
                *offset += 1;
            }
        }
    }

    /// Nothing but another unit can follow.
    fn is_whole(&self) -> bool {
        self.unit.paired || self.unit.last.as_ref().is_some_and(|last| self.coding.is_frame(last))
    }
}

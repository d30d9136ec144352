//! H.264 byte stream to access units [AVC 7.4.1.2.3, 7.4.1.2.4]: Annex B with 4-byte start codes, without delimiters;
//! both fields of a frame in one unit.
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

use super::event::{Event, Outbox};
use super::stamp::{FrameClock, Line, Stamp};
use crate::bitstream::annexb::{START_CODE, find_start};
use crate::bitstream::h264::slice::HEAD_BYTES;
use crate::bitstream::h264::{ParameterSets, Slice, Structure, nal, sei};
use crate::media::access_unit::AccessUnit;
use crate::media::fault::FaultKind;
use crate::media::limits::ACCESS_UNIT_BYTES_MAX;
use crate::media::track::{Codec, Pid, TrackConfig, VideoConfig};
use crate::time::{Dts, Mono, Pts};

#[derive(Debug)]
pub(super) struct VideoUnits {
    pid: Pid,
    sets: ParameterSets,
    /// The unit being collected from 0 on, then what may belong to the next one.
    buffer: BytesMut,
    /// Where to look for the next start code.
    scan: usize,
    /// The NAL unit being received.
    nal: Option<Nal>,
    unit: Unit,
    boundary: Option<Boundary>,
    /// Recovery point message of the next picture.
    recovery: Option<u16>,
    /// Where the current and the previous PES packet's bytes start.
    pes: [(usize, Stamp); 2],
    /// The last PES packet whose time stamp was used.
    used_pes: u64,
    /// Bytes are missing since the current PES packet began.
    broken: bool,
    line: Line,
    clock: FrameClock,
    habit: Habit,
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
#[derive(Debug, Default)]
struct Unit {
    /// It has begun, with this time stamp if it is the first to begin in its PES packet.
    begun: bool,
    stamp: Option<Stamp>,
    /// Its first slice, and the latest.
    first: Option<Slice>,
    last: Option<Slice>,
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
#[derive(Debug, Default)]
struct Habit {
    /// Units in a row that began with a PES packet of their own.
    aligned: u32,
    /// Stuffed packets in a row that a unit start followed.
    stuffed: u32,
    /// The last packet was stuffed.
    stuffing: bool,
    /// A unit was given out before its end: never again.
    lied: bool,
    /// The last slice of the last unit given out early, and its PES packet.
    early: Option<(Slice, u64)>,
}

const TRUST: u32 = 8;
/// A bounded PES packet this long may be one of several that hold a unit.
const BOUNDED_MAX: usize = 65_000;

#[derive(Debug)]
struct Config {
    revision: u64,
    sps_id: u8,
    told: VideoConfig,
}

impl VideoUnits {
    pub(super) fn new(pid: Pid) -> VideoUnits {
        VideoUnits {
            pid,
            sets: ParameterSets::default(),
            buffer: BytesMut::new(),
            scan: 0,
            nal: None,
            unit: Unit::default(),
            boundary: None,
            recovery: None,
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

    /// A PES packet begins.
    pub(super) fn start(&mut self, stamp: Stamp) {
        self.pes = [(self.buffer.len(), stamp), self.pes[0]];
        self.broken = false;
        if !self.unit.begun {
            self.unit.damaged = false;
        }
        if std::mem::take(&mut self.habit.stuffing) {
            self.habit.stuffed += 1;
        }
    }

    /// Bytes are missing here.
    pub(super) fn gap(&mut self) {
        self.broken = true;
        self.habit.stuffing = false;
        self.suspect();
    }

    /// The bytes before may be wrong.
    pub(super) fn suspect(&mut self) {
        self.unit.damaged = true;
        if let Some(nal) = &mut self.nal {
            nal.damaged = true;
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Outbox) {
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

    /// A PES packet's last byte was pushed: of a bounded one of `bounded` payload bytes, or as its stuffing tells.
    pub(super) fn end(&mut self, bounded: Option<usize>, out: &mut Outbox) {
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
        if self.unit.is_whole() {
            self.fresh = 0;
            self.habit.early = self.unit.last.map(|last| (last, self.pes[0].1.pes));
            self.emit_all(out);
        }
    }

    /// The connection ends: what was received is a unit.
    pub(super) fn flush(&mut self, out: &mut Outbox) {
        self.fresh = self.buffer.len();
        self.decide(out);
        if self.unit.first.is_some() {
            self.emit_all(out);
        }
        self.reset();
    }

    /// The unit ends with the buffer.
    fn emit_all(&mut self, out: &mut Outbox) {
        let floor = self.nal.map_or(0, |nal| nal.start + START_CODE.len());
        let mut end = self.buffer.len();
        while end > floor && self.buffer[end - 1] == 0 {
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
        let floor = self.nal.map_or(0, |nal| nal.start + START_CODE.len());
        let mut end = code;
        while end > floor && self.buffer[end - 1] == 0 {
            end -= 1;
        }
        let stamp = if code >= self.pes[0].0 { self.pes[0].1 } else { self.pes[1].1 };
        match code - end {
            0 => self.insert_zero(end),
            zeros => self.cut(end, end + zeros - 1),
        }
        let start = self.close_nal(end, out);
        self.nal = Some(Nal { start, stamp, decided: false, damaged: false });
        self.scan = start + START_CODE.len();
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
        if length > START_CODE.len() {
            self.decide_upto(Some(length), out);
        }
        let Some(Nal { start, damaged, .. }) = self.nal.take() else { return 0 };
        let end = start + length;
        let body = &self.buffer[start + START_CODE.len()..end];
        let taken = match body.first().map(|byte| byte & 31) {
            None | Some(nal::AUD) => {
                self.cut(start, end);
                return start;
            }
            _ if damaged => Ok(()),
            Some(nal::SPS) => self.sets.take_sps(body),
            Some(nal::PPS) => self.sets.take_pps(body),
            Some(nal::SEI) => {
                self.recovery = sei::recovery_point(body).or(self.recovery);
                Ok(())
            }
            Some(_) => Ok(()),
        };
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
        let body = &self.buffer[start + START_CODE.len()..start + length];
        let Some(kind) = body.first().map(|byte| byte & 31) else { return };
        if matches!(kind, nal::SLICE | nal::PARTITION_A | nal::IDR) {
            if body.len() < HEAD_BYTES && !whole {
                return;
            }
            self.decide_slice(kind, start, length, stamp, out);
            return;
        }
        self.mark_decided();
        // Each of these, behind a slice, starts the next access unit; a prefix (14) may also announce one more slice.
        if matches!(kind, nal::SEI..=nal::AUD | nal::PREFIX..=18) && self.unit.first.is_some() {
            let boundary = *self.boundary.get_or_insert(Boundary { at: start, stamp });
            if kind != nal::PREFIX && self.unit.is_whole() {
                self.emit(boundary.at, out);
            }
        }
    }

    fn mark_decided(&mut self) {
        if let Some(nal) = &mut self.nal {
            nal.decided = true;
        }
    }

    fn decide_slice(&mut self, kind: u8, start: usize, length: usize, stamp: Stamp, out: &mut Outbox) {
        self.mark_decided();
        // A changed SPS counts from an IDR picture on, whose header must be read with it.
        if let Err(why) = self.sets.settle(kind == nal::IDR) {
            out.fault(FaultKind::ParameterSet, Some(self.pid), None, why);
        }
        let body = start + START_CODE.len();
        let head = &self.buffer[body..(start + length).min(body + HEAD_BYTES)];
        match Slice::parse(head, &self.sets) {
            Ok(slice) => self.slice(slice, start, stamp, out),
            Err(why) => {
                self.unit.damaged = true;
                out.fault(FaultKind::ParameterSet, Some(self.pid), None, why);
            }
        }
    }

    /// A slice starts at `start`.
    fn slice(&mut self, slice: Slice, start: usize, stamp: Stamp, out: &mut Outbox) {
        if let Some(last) = self.unit.last {
            if !last.differs(&slice) {
                if stamp.pes > self.used_pes {
                    // A unit over several PES packets.
                    self.used_pes = stamp.pes;
                    self.habit.aligned = 0;
                }
                self.boundary = None;
                self.unit.last = Some(slice);
                return;
            }
            if !self.unit.paired && last.pairs_with(&slice) {
                // The second field's own time stamp names half a frame: it is not used.
                self.used_pes = self.used_pes.max(stamp.pes);
                self.boundary = None;
                self.unit.paired = true;
                self.unit.last = Some(slice);
                self.recovery = None;
                return;
            }
            let boundary = *self.boundary.get_or_insert(Boundary { at: start, stamp });
            self.emit(boundary.at, out);
        }
        if let Some((early, _)) = self.habit.early.take()
            && slice.first_mb > 0
            && !early.differs(&slice)
        {
            self.unit.orphan = true;
            self.lie(out);
        }
        self.unit.recovery = self.recovery.take();
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
            codec: Codec::H264,
            pts,
            dts,
            random_access: first.is_idr(),
            damaged: unit.damaged,
            received,
            data,
        });
    }

    /// The unit's times, behind its configuration if that is news. `None`: it cannot be decoded or placed.
    fn place(&mut self, unit: &Unit, first: &Slice, out: &mut Outbox) -> Option<(Pts, Dts)> {
        let known = first.picture.and_then(|picture| Some((picture, self.sets.of(first.pps_id)?.0)));
        let Some((picture, sps)) = known else {
            out.counters.undecodable_units += 1;
            return None;
        };
        let own = unit.stamp.and_then(|stamp| self.line.place(&stamp, out));
        let times = self.clock.next(own, &picture, first.reference, sps.order, sps.rate);
        if times.is_none() {
            out.counters.undecodable_units += 1;
            if !std::mem::replace(&mut self.untimed, true) {
                let detail = "pictures without any time stamp are left out until the first PTS";
                out.fault(FaultKind::NoTimestamp, Some(self.pid), None, detail);
            }
            return None;
        }
        self.tell_config(first.pps_id, out);
        times
    }

    fn tell_config(&mut self, pps_id: u8, out: &mut Outbox) {
        let (revision, sps_id) = (self.sets.revision(), self.sets.of(pps_id).map(|(sps, _)| sps.id));
        let unchanged = self.config.as_ref().is_some_and(|c| c.revision == revision && Some(c.sps_id) == sps_id);
        let (false, Some(sps_id), Some(config)) = (unchanged, sps_id, self.sets.config(pps_id)) else { return };
        let told = self.config.take();
        if told.is_none_or(|told| told.told != config) {
            out.events.push_back(Event::Config { pid: self.pid, config: TrackConfig::Video(config.clone()) });
        }
        self.config = Some(Config { revision, sps_id, told: config });
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
}

impl Unit {
    /// Nothing but another unit can follow.
    fn is_whole(&self) -> bool {
        let frame = |slice: Slice| slice.picture.is_none_or(|picture| picture.structure == Structure::Frame);
        self.paired || self.last.is_some_and(frame)
    }
}

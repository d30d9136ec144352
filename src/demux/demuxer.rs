//! The demuxer: packets to tables, clock and tracks, in one pass.

use std::time::Duration;

use super::access_units::{VideoTrack, VideoUnits};
use super::adts_units::AudioUnits;
use super::assembler::{Assembler, Step};
use super::coding::{H264, H265, Mpeg2};
use super::event::{Event, Outbox};
use super::health::{Continuity, Counters, Counts, Watch};
use super::markers::MarkerTrack;
use super::stamp::Stamp;
use super::sync::{Seen, Sync};
use super::tables::{Change, Tables};
use crate::media::fault::FaultKind;
use crate::media::track::{Codec, Pid, Program, Track};
use crate::mpegts::packet::PACKET_BYTES;
use crate::mpegts::pcr::{PcrLine, Step as ClockStep};
use crate::mpegts::{CAT_PID, NULL_PID, PAT_PID, PIDS, Packet};
use crate::time::Mono;

/// A transport stream of one connection. Poll until `None` after each push.
#[derive(Debug, Default)]
pub struct Demuxer {
    sync: Sync,
    core: Core,
}

impl Demuxer {
    pub fn new() -> Demuxer {
        Demuxer::default()
    }

    /// The next bytes, cut anywhere, which arrived at `now`.
    pub fn push(&mut self, now: Mono, bytes: &[u8]) {
        self.core.out.now = now;
        self.core.out.counters.bytes += bytes.len() as u64;
        self.core.check_intervals(now);
        let core = &mut self.core;
        self.sync.push(bytes, |at, seen| core.seen(at, seen));
    }

    /// The connection ended: gives out the units that wait for a successor. What is pushed later starts afresh, on the
    /// same time line.
    pub fn flush(&mut self, now: Mono) {
        self.core.out.now = now;
        let core = &mut self.core;
        self.sync.flush(|at, seen| core.seen(at, seen));
        for track in &mut core.tracks {
            track.flush(&mut core.out);
        }
        for track in &mut core.markers {
            track.flush(&mut core.out);
        }
        core.counts = Counts::default();
    }

    pub fn poll(&mut self) -> Option<Event> {
        self.core.out.events.pop_front()
    }

    pub fn counters(&self) -> Counters {
        Counters { pcr_jitter_us: self.core.clock.jitter_us(), ..self.core.out.counters }
    }
}

/// What a PID is to us: slots of 16 bits.
const NOTHING: u16 = 0;
const TABLE: u16 = 1;
const FIRST_TRACK: u16 = 2;
const FIRST_MARKER: u16 = 0x100;

#[derive(Debug)]
struct Core {
    slots: Box<[u16; PIDS]>,
    counts: Counts,
    tables: Tables,
    tracks: Vec<Assembly>,
    markers: Vec<MarkerTrack>,
    clock: PcrLine,
    pcr_pid: Option<Pid>,
    /// What was reported as unsupported of this program.
    refused: Vec<Track>,
    has_cat: bool,
    /// Whose the last packet was.
    last_slot: u16,
    pat: Watch,
    pmt: Watch,
    out: Outbox,
}

impl Default for Core {
    fn default() -> Self {
        let mut slots = Box::new([NOTHING; PIDS]);
        slots[usize::from(PAT_PID)] = TABLE;
        Core {
            slots,
            counts: Counts::default(),
            tables: Tables::default(),
            tracks: Vec::new(),
            markers: Vec::new(),
            clock: PcrLine::default(),
            pcr_pid: None,
            refused: Vec::new(),
            has_cat: false,
            last_slot: NOTHING,
            pat: Watch::new(TABLE_LIMIT),
            pmt: Watch::new(TABLE_LIMIT),
            out: Outbox::default(),
        }
    }
}

const TABLE_LIMIT: Duration = Duration::from_millis(500);
const PID_LIMIT: Duration = Duration::from_secs(5);
/// 27 MHz ticks: 100 ms.
const PCR_LIMIT: i64 = 2_700_000;
/// 90 kHz ticks: 700 ms.
const PTS_LIMIT: u64 = 63_000;

impl Core {
    fn seen(&mut self, at: u64, seen: Seen<'_>) {
        self.out.byte = at;
        match seen {
            Seen::Packet(bytes) => self.packet(bytes),
            Seen::BadSyncByte => {
                self.out.counters.sync_byte_errors += 1;
                self.out.fault(FaultKind::SyncLost, None, None, "one packet's sync byte is wrong; it was left out");
            }
            Seen::Lost => {
                self.out.counters.sync_losses += 1;
                // Whatever came in between may have begun inside the last packet.
                if let Some(track) = track_of(self.last_slot) {
                    self.tracks[track].suspect();
                }
            }
            Seen::Skipped(bytes) => {
                self.out.counters.skipped_bytes += bytes;
                // A connection may well begin in mid-packet.
                if self.out.counters.packets > 0 || bytes > PACKET_BYTES as u64 {
                    let detail = format!("{bytes} bytes belong to no packet");
                    self.out.fault(FaultKind::SyncLost, None, None, detail);
                }
            }
        }
    }

    fn packet(&mut self, bytes: &[u8; PACKET_BYTES]) {
        self.out.counters.packets += 1;
        self.last_slot = NOTHING;
        let Some(packet) = Packet::parse(bytes) else {
            self.out.fault(FaultKind::Syntax, None, None, "a packet header that does not hold");
            return;
        };
        if packet.pid == NULL_PID {
            self.out.counters.null_packets += 1;
            return;
        }
        let slot = self.slots[usize::from(packet.pid)];
        let ours = slot != NOTHING;
        self.last_slot = slot;
        if packet.transport_error {
            self.out.counters.transport_errors += 1;
            if ours {
                let detail = "transport_error_indicator is set";
                self.out.fault(FaultKind::TransportError, Some(packet.pid), None, detail);
            }
        }
        let payload = packet.has_payload.then_some(packet.payload);
        let mut lost = None;
        match self.counts.check(packet.pid, packet.continuity, payload, packet.discontinuity) {
            Continuity::Good => {}
            Continuity::Duplicate => {
                self.out.counters.duplicate_packets += 1;
                return;
            }
            Continuity::Gap { expected, got } => {
                self.out.counters.continuity_errors += 1;
                lost = Some(usize::from(got.wrapping_sub(expected) & 15));
                if ours {
                    let detail = format!("continuity counter: {expected} expected, {got} found");
                    self.out.fault(FaultKind::Continuity, Some(packet.pid), None, detail);
                }
            }
        }
        if packet.pid == CAT_PID {
            self.has_cat = true;
        }
        if Some(packet.pid) == self.pcr_pid
            && let Some(pcr) = packet.pcr
        {
            self.take_pcr(&packet, pcr);
        }
        if packet.scrambled {
            self.scrambled(&packet, slot);
        } else if slot == TABLE {
            self.table(&packet, lost.is_some());
        } else if slot >= FIRST_MARKER {
            self.markers[usize::from(slot - FIRST_MARKER)].packet(&packet, lost.is_some(), &mut self.out);
        } else if let Some(track) = track_of(slot) {
            self.tracks[track].packet(&packet, lost, &mut self.out);
        }
    }

    fn take_pcr(&mut self, packet: &Packet<'_>, raw: u64) {
        let near = self.out.line.map(|line| line * 300);
        let (reading, step) = self.clock.take(raw, self.out.now, packet.discontinuity, near);
        self.out.line.get_or_insert(reading.pcr / 300);
        match step {
            ClockStep::First | ClockStep::Announced(_) => {}
            ClockStep::Forward(ticks) => self.out.counters.pcr_errors += u64::from(ticks > PCR_LIMIT),
            ClockStep::Jump(ticks) => {
                self.out.counters.pcr_errors += 1;
                let detail = format!("the clock stepped by {:.3} s", ticks as f64 / 27e6);
                self.out.fault(FaultKind::PcrJump, Some(packet.pid), Some(reading.pcr / 300), detail);
            }
        }
        self.out.events.push_back(Event::Pcr {
            pid: packet.pid,
            pcr: reading.pcr,
            received: reading.received,
            discontinuity: !matches!(step, ClockStep::First | ClockStep::Forward(_)),
        });
    }

    fn scrambled(&mut self, packet: &Packet<'_>, slot: u16) {
        let counters = &mut self.out.counters;
        counters.scrambled_packets += 1;
        counters.cat_errors += u64::from(!self.has_cat);
        counters.pat_errors += u64::from(packet.pid == PAT_PID);
        counters.pmt_errors += u64::from(slot == TABLE && packet.pid != PAT_PID);
        let first = if slot >= FIRST_MARKER {
            self.markers[usize::from(slot - FIRST_MARKER)].is_scrambled()
        } else if let Some(track) = track_of(slot) {
            let track = &mut self.tracks[track];
            track.gap(0, &mut self.out);
            !std::mem::replace(&mut track.scrambled, true)
        } else {
            false
        };
        if first {
            let detail = "the track is scrambled; send it in the clear";
            self.out.fault(FaultKind::Scrambled, Some(packet.pid), None, detail);
        }
    }

    fn table(&mut self, packet: &Packet<'_>, lost: bool) {
        if lost || packet.discontinuity {
            self.tables.gap(packet.pid);
        }
        if packet.transport_error || !packet.has_payload {
            return;
        }
        let mut changes = Vec::new();
        self.tables.push(packet.pid, packet.payload, packet.unit_start, |change| changes.push(change));
        for change in changes {
            match change {
                Change::Bad(why) => {
                    self.out.counters.crc_errors += 1;
                    self.out.fault(
                        FaultKind::SectionCrc,
                        Some(packet.pid),
                        None,
                        format!("a table was dropped: {why}"),
                    );
                    continue;
                }
                Change::Foreign => {
                    self.out.counters.pat_errors += u64::from(packet.pid == PAT_PID);
                    continue;
                }
                Change::Same => {}
                Change::Pat => self.assign_slots(),
                Change::Program(program) => self.program(program),
            }
            if packet.pid == PAT_PID {
                self.out.counters.pat_errors += u64::from(self.pat.seen(self.out.now));
            } else if self.tables.is_chosen_pmt(packet.pid) {
                self.out.counters.pmt_errors += u64::from(self.pmt.seen(self.out.now));
            }
        }
    }

    /// The program's tracks: those that stay keep what they know.
    fn program(&mut self, program: Program) {
        let mut before = std::mem::take(&mut self.tracks);
        let mut markers = std::mem::take(&mut self.markers);
        let mut refused = Vec::new();
        for track in &program.tracks {
            if let Some(new) = MarkerTrack::new(track) {
                let known = markers.iter().position(|m| m.pid == track.pid && m.codec == track.codec);
                self.markers.push(known.map_or(new, |at| markers.swap_remove(at)));
                continue;
            }
            let wanted = match track.codec {
                Codec::Aac => true,
                Codec::H264 | Codec::H265 | Codec::Mpeg2Video => !self.tracks.iter().any(Assembly::is_video),
                _ => false,
            };
            if !wanted {
                refused.push(track.clone());
            } else if let Some(at) = before.iter().position(|a| a.pid == track.pid && a.codec == track.codec) {
                self.tracks.push(before.swap_remove(at));
            } else {
                self.tracks.push(Assembly::new(track));
            }
        }
        for mut gone in before {
            gone.flush(&mut self.out);
        }
        if self.pcr_pid != program.pcr_pid {
            self.pcr_pid = program.pcr_pid;
            self.clock = PcrLine::default();
        }
        self.out.events.push_back(Event::Program(program));
        for track in &refused {
            if !self.refused.contains(track) {
                self.out.fault(FaultKind::UnsupportedCodec, Some(track.pid), None, refusal(track.codec));
            }
        }
        self.refused = refused;
        self.assign_slots();
    }

    fn assign_slots(&mut self) {
        self.slots.fill(NOTHING);
        self.last_slot = NOTHING;
        for (slot, track) in (FIRST_TRACK..).zip(&self.tracks) {
            self.slots[usize::from(track.pid) % PIDS] = slot;
        }
        for (slot, track) in (FIRST_MARKER..).zip(&self.markers) {
            let place = &mut self.slots[usize::from(track.pid) % PIDS];
            if *place == NOTHING {
                *place = slot;
            }
        }
        for pid in self.tables.pmt_pids() {
            self.slots[usize::from(pid) % PIDS] = TABLE;
        }
        self.slots[usize::from(PAT_PID)] = TABLE;
    }

    fn check_intervals(&mut self, now: Mono) {
        let counters = &mut self.out.counters;
        counters.pat_errors += u64::from(self.pat.overdue(now));
        if self.tables.chosen().is_none() {
            return;
        }
        counters.pmt_errors += u64::from(self.pmt.overdue(now));
        for track in &mut self.tracks {
            counters.pid_errors += u64::from(track.watch.overdue(now));
        }
    }
}

/// Index of the track that a slot stands for.
fn track_of(slot: u16) -> Option<usize> {
    (FIRST_TRACK..FIRST_MARKER).contains(&slot).then(|| usize::from(slot - FIRST_TRACK))
}

fn refusal(codec: Codec) -> String {
    match codec {
        Codec::H264 | Codec::H265 | Codec::Mpeg2Video => {
            "a second video track is not taken; the program's first one is".into()
        }
        Codec::AacLatm => "AAC in LATM is not taken; set the encoder to AAC in ADTS".into(),
        Codec::MpegAudio => "MPEG audio (MP2) is not taken; set the encoder to AAC".into(),
        Codec::Ac3 | Codec::Eac3 => "Dolby audio (AC-3) is not taken; set the encoder to AAC".into(),
        Codec::Opus => "Opus audio is not taken; set the encoder to AAC".into(),
        Codec::Unknown(kind) => format!("a stream of type {kind:#04x} is not taken"),
        Codec::Aac | Codec::Scte35 | Codec::Id3 => "a track is not taken".into(),
    }
}

/// One track of the program: its PES packets and its units.
#[derive(Debug)]
struct Assembly {
    pid: Pid,
    codec: Codec,
    assembler: Assembler,
    units: Units,
    pes_packets: u64,
    last_pts: Option<u64>,
    scrambled: bool,
    watch: Watch,
}

#[derive(Debug)]
enum Units {
    Video(Box<dyn VideoTrack>),
    Audio(Box<AudioUnits>),
}

impl Assembly {
    fn new(track: &Track) -> Assembly {
        let units = match track.codec {
            Codec::H264 => Units::Video(Box::new(VideoUnits::<H264>::new(track.pid))),
            Codec::H265 => Units::Video(Box::new(VideoUnits::<H265>::new(track.pid))),
            Codec::Mpeg2Video => Units::Video(Box::new(VideoUnits::<Mpeg2>::new(track.pid))),
            _ => Units::Audio(Box::new(AudioUnits::new(track.pid))),
        };
        Assembly {
            pid: track.pid,
            codec: track.codec,
            assembler: Assembler::default(),
            units,
            pes_packets: 0,
            last_pts: None,
            scrambled: false,
            watch: Watch::new(PID_LIMIT),
        }
    }

    fn is_video(&self) -> bool {
        matches!(self.units, Units::Video(_))
    }

    fn packet(&mut self, packet: &Packet<'_>, lost: Option<usize>, out: &mut Outbox) {
        self.watch.seen(out.now);
        self.scrambled = false;
        if let Some(packets) = lost {
            self.gap(packets, out);
        }
        if !packet.has_payload {
            return;
        }
        let step = self.assembler.push(packet.payload, packet.unit_start);
        if let Some(missing) = step.short {
            let detail = format!("a PES packet that ends {missing} bytes early");
            out.fault(FaultKind::Syntax, Some(self.pid), None, detail);
            self.units_gap(missing.div_ceil(184), out);
        }
        if let Some(why) = step.fault {
            out.fault(FaultKind::Syntax, Some(self.pid), None, why);
            self.units_gap(1, out);
        }
        self.start(&step, out);
        match &mut self.units {
            Units::Video(units) => {
                units.push(step.data, out);
                if packet.transport_error {
                    units.suspect();
                }
                if step.ended.is_some() || packet.stuffed {
                    units.end(step.ended, out);
                }
            }
            Units::Audio(units) => units.push(step.data, step.ended.is_some(), out),
        }
    }

    fn start(&mut self, step: &Step<'_>, out: &mut Outbox) {
        let Some(header) = step.started else { return };
        out.counters.pes_packets += 1;
        self.pes_packets += 1;
        if header.bad_time {
            let detail = "a time stamp with a wrong marker bit was left out";
            out.fault(FaultKind::Syntax, Some(self.pid), None, detail);
        }
        if let Some(pts) = header.pts
            && let Some(last) = self.last_pts.replace(pts)
        {
            let ahead = pts.wrapping_sub(last) & ((1 << 33) - 1);
            out.counters.pts_errors += u64::from((PTS_LIMIT + 1..1 << 32).contains(&ahead));
        }
        let stamp = Stamp { pes: self.pes_packets, pts: header.pts, dts: header.dts };
        match &mut self.units {
            Units::Video(units) => units.start(stamp),
            Units::Audio(units) => units.start(stamp),
        }
    }

    /// The last packet may hold wrong bytes.
    fn suspect(&mut self) {
        match &mut self.units {
            Units::Video(units) => units.suspect(),
            Units::Audio(units) => units.suspect(),
        }
    }

    /// Packets are missing.
    fn gap(&mut self, packets: usize, out: &mut Outbox) {
        self.assembler.gap();
        self.units_gap(packets, out);
    }

    fn units_gap(&mut self, packets: usize, out: &mut Outbox) {
        match &mut self.units {
            Units::Video(units) => units.gap(),
            Units::Audio(units) => units.gap(packets, out),
        }
    }

    fn flush(&mut self, out: &mut Outbox) {
        match &mut self.units {
            Units::Video(units) => units.flush(out),
            Units::Audio(units) => units.flush(out),
        }
    }
}

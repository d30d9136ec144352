//! ADTS byte stream to frames [AAC 1.A.2]: one access unit each, without its header.
//!
//! A frame is given out when the next header stands where its length says, or when its PES packet ends there: a length
//! that was damaged on the way is noticed before anything wrong leaves.
//! Time: frame k after a PES packet's time stamp is at PTS + k x 1024 / rate, rounded once.

use bytes::{Buf, BytesMut};

use super::event::{Event, Outbox};
use super::stamp::{Line, Stamp};
use crate::bitstream::aac::FRAME_SAMPLES;
use crate::bitstream::aac::adts::{Fixed, HEADER_BYTES, Header};
use crate::media::access_unit::AccessUnit;
use crate::media::fault::FaultKind;
use crate::media::track::{Codec, Pid, TrackConfig};
use crate::time::{Mono, Pts};

/// A PES packet's worth of frames waits at most; ADTS frames have 13 bits of length.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// What a lost packet usually held.
const PAYLOAD_BYTES: usize = 184;

#[derive(Debug)]
pub(super) struct AudioUnits {
    pid: Pid,
    buffer: BytesMut,
    /// Headers must continue this; `None`: looking for one.
    locked: Option<Fixed>,
    told: Option<Fixed>,
    /// PES packets whose bytes start at these offsets of `buffer` and whose time stamp waits for its frame.
    stamps: [Option<(usize, Stamp)>; 2],
    /// PTS that frames count from, and how many came since.
    base: Option<(Pts, i64)>,
    line: Line,
    /// Bytes since the last frame's end that belong to no frame, lost ones included.
    stray: usize,
    /// Smoothed length of a frame: how many frames are missing in a hole.
    typical: usize,
    suspect: bool,
    untimed: bool,
    blocks: bool,
    fresh: usize,
    before: Mono,
}

impl AudioUnits {
    pub(super) fn new(pid: Pid) -> AudioUnits {
        AudioUnits {
            pid,
            buffer: BytesMut::new(),
            locked: None,
            told: None,
            stamps: [None; 2],
            base: None,
            line: Line::default(),
            stray: 0,
            typical: 0,
            suspect: false,
            untimed: false,
            blocks: false,
            fresh: 0,
            before: Mono::default(),
        }
    }

    pub(super) fn start(&mut self, stamp: Stamp) {
        if stamp.pts.is_some() {
            // A frame that fills more than a PES packet uses the latest time stamp only.
            let slot = usize::from(self.stamps[0].is_some());
            self.stamps[slot] = Some((self.buffer.len(), stamp));
        }
    }

    /// So many packets are missing here: a frame in progress is lost.
    pub(super) fn gap(&mut self, packets: usize, out: &mut Outbox) {
        self.discard(self.buffer.len(), out);
        self.stray += packets * PAYLOAD_BYTES;
        self.locked = None;
    }

    /// The bytes before may be wrong: the frame they belong to is flagged.
    pub(super) fn suspect(&mut self) {
        self.suspect = true;
    }

    pub(super) fn push(&mut self, bytes: &[u8], ended: bool, out: &mut Outbox) {
        const BLOCK: usize = 16 << 10;
        self.fresh = self.buffer.len();
        if self.buffer.capacity() - self.buffer.len() < bytes.len() {
            self.buffer.reserve(BLOCK);
        }
        self.buffer.extend_from_slice(bytes);
        self.drain(ended, out);
        if self.buffer.len() > BUFFER_BYTES_MAX {
            out.fault(FaultKind::Oversize, Some(self.pid), None, "more than 128 KiB of audio without a frame");
            self.gap(0, out);
        }
        self.before = out.now;
    }

    pub(super) fn flush(&mut self, out: &mut Outbox) {
        self.fresh = self.buffer.len();
        self.drain(true, out);
        self.drop_front(self.buffer.len());
        self.locked = None;
    }

    fn drain(&mut self, ended: bool, out: &mut Outbox) {
        while self.buffer.len() >= HEADER_BYTES {
            let Some(header) = Header::parse(&self.buffer).filter(|h| self.locked.is_none_or(|f| f == h.fixed)) else {
                self.hunt(out);
                continue;
            };
            let confirmed = match self.buffer.get(header.frame_bytes..) {
                None => return,
                Some([]) if ended => true,
                Some(next) if next.len() < HEADER_BYTES => {
                    if !ended {
                        return;
                    }
                    // A header in pieces over two PES packets.
                    next.first() == Some(&0xFF)
                }
                Some(next) => Header::parse(next).is_some_and(|next| next.fixed == header.fixed),
            };
            if confirmed {
                self.locked = Some(header.fixed);
                self.frame(&header, out);
            } else {
                self.hunt(out);
            }
        }
    }

    /// What stands at the front is no frame of this stream: looks for any stream's, then for the next possible header.
    fn hunt(&mut self, out: &mut Outbox) {
        if self.locked.take().is_some() {
            out.fault(FaultKind::Syntax, Some(self.pid), None, "an ADTS frame that no frame of its kind follows");
            return;
        }
        let skip = memchr::memchr(0xFF, &self.buffer[1..]).map_or(self.buffer.len(), |at| at + 1);
        self.discard(skip, out);
    }

    /// Bytes at the front belong to no frame. Time goes on from the last time stamp passed over.
    fn discard(&mut self, bytes: usize, out: &mut Outbox) {
        self.stray += bytes;
        for slot in 0..self.stamps.len() {
            if let Some((offset, stamp)) = self.stamps[slot].filter(|(offset, _)| *offset < bytes) {
                self.stamps[slot] = None;
                self.base = self.line.place(&stamp, out).map(|(pts, _)| (pts, 0));
                self.stray = bytes - offset;
            }
        }
        if self.stamps[0].is_none() {
            self.stamps.swap(0, 1);
        }
        self.drop_front(bytes);
    }

    /// The front of the buffer is a frame.
    fn frame(&mut self, header: &Header, out: &mut Outbox) {
        let length = header.frame_bytes;
        let received = if length > self.fresh { out.now } else { self.before };
        let lost = self.lost_frames();
        self.suspect &= lost == 0;
        if let Some((base, k)) = self.base {
            self.base = Some((base, k + lost));
        }
        self.typical = if self.typical == 0 { length } else { (7 * self.typical + length) / 8 };
        let own = self.take_stamp().and_then(|stamp| self.line.place(&stamp, out));
        if let Some((pts, _)) = own {
            self.base = Some((pts, 0));
        }
        let mut data = self.buffer.split_to(length).freeze();
        self.shift(length);
        let samples = i64::from(header.blocks);
        let Some((base, k)) = self.base.as_mut().map(|(base, k)| (*base, std::mem::replace(k, *k + samples))) else {
            if !std::mem::replace(&mut self.untimed, true) {
                let detail = "audio without any time stamp is left out until the first PTS";
                out.fault(FaultKind::NoTimestamp, Some(self.pid), None, detail);
            }
            return;
        };
        if header.blocks > 1 {
            if !std::mem::replace(&mut self.blocks, true) {
                let detail =
                    "ADTS frames of several raw data blocks are left out; set the encoder to one block a frame";
                out.fault(FaultKind::UnsupportedCodec, Some(self.pid), None, detail);
            }
            return;
        }
        if self.told.replace(header.fixed) != Some(header.fixed) {
            let config = TrackConfig::Audio(header.fixed.config());
            out.events.push_back(Event::Config { pid: self.pid, config });
        }
        data.advance(header.header_bytes);
        let pts = Pts(base.0 + samples_to_ticks(k, header.fixed.sample_rate()));
        out.unit(AccessUnit {
            pid: self.pid,
            codec: Codec::Aac,
            pts,
            dts: pts.as_dts(),
            random_access: true,
            damaged: std::mem::take(&mut self.suspect),
            received,
            data,
        });
    }

    /// Frames that fell into the hole before this one, by their usual length.
    fn lost_frames(&mut self) -> i64 {
        let stray = std::mem::take(&mut self.stray);
        if stray == 0 || self.typical == 0 {
            return 0;
        }
        i64::try_from((stray + self.typical / 2) / self.typical).unwrap_or(0)
    }

    /// The time stamp of the PES packet that the frame at the front starts in, if it is the first to start there.
    fn take_stamp(&mut self) -> Option<Stamp> {
        let mut found = None;
        for slot in &mut self.stamps {
            if let Some((0, stamp)) = *slot {
                found = Some(stamp);
                *slot = None;
            }
        }
        if self.stamps[0].is_none() {
            self.stamps.swap(0, 1);
        }
        found
    }

    fn drop_front(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.shift(bytes);
    }

    fn shift(&mut self, by: usize) {
        for (offset, _) in self.stamps.iter_mut().flatten() {
            *offset = offset.saturating_sub(by);
        }
        self.fresh = self.fresh.saturating_sub(by);
    }
}

/// 90 kHz ticks of `frames` AAC frames.
fn samples_to_ticks(frames: i64, rate: u32) -> i64 {
    let samples = i128::from(frames) * i128::from(FRAME_SAMPLES) * 90_000;
    i64::try_from((samples + i128::from(rate) / 2).div_euclid(i128::from(rate))).unwrap_or(i64::MAX)
}

//! Transport streams with every time stamp, counter and flaw where a test wants it. The pictures are real H.264 (a flat
//! 32x32 IDR of I_PCM macroblocks, then skipped ones), the audio is real AAC silence: peers decode both.

use rung::mpegts::packet::{Header, PACKET_BYTES};
use rung::mpegts::{mux, pes, psi};

/// Reads as a sentence: `TsBuilder::h264().fps(25, 1).frames(100).build()`.
#[derive(Clone, Debug)]
pub(crate) struct TsBuilder {
    fps: (u32, u32),
    frames: usize,
    gop: usize,
    start: u64,
    audio: bool,
    coding: Coding,
    slices: usize,
    units_per_pes: usize,
    pes_per_unit: usize,
    bounded: bool,
    stuffing_inside: Option<usize>,
    jump: Option<(usize, i64, bool)>,
    recovery: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Frames,
    /// One picture out of order between references: I b P b P.
    Reordered,
    /// Every frame as two field pictures in PES packets of their own.
    FieldPairs,
    /// Both field pictures in one PES packet.
    FieldPairsTogether,
}

const PMT: u16 = 0x1000;
const VIDEO: u16 = mux::VIDEO_PID;
const AUDIO: u16 = mux::AUDIO_PID;

impl TsBuilder {
    pub(crate) fn h264() -> TsBuilder {
        TsBuilder {
            fps: (25, 1),
            frames: 50,
            gop: 25,
            start: 900_000,
            audio: false,
            coding: Coding::Frames,
            slices: 1,
            units_per_pes: 1,
            pes_per_unit: 1,
            bounded: false,
            stuffing_inside: None,
            jump: None,
            recovery: false,
        }
    }

    pub(crate) fn fps(self, num: u32, den: u32) -> TsBuilder {
        TsBuilder { fps: (num, den), ..self }
    }

    pub(crate) fn frames(self, frames: usize) -> TsBuilder {
        TsBuilder { frames, ..self }
    }

    pub(crate) fn gop(self, gop: usize) -> TsBuilder {
        TsBuilder { gop, ..self }
    }

    /// Raw DTS of the first frame.
    pub(crate) fn start(self, raw: u64) -> TsBuilder {
        TsBuilder { start: raw, ..self }
    }

    pub(crate) fn audio(self) -> TsBuilder {
        TsBuilder { audio: true, ..self }
    }

    pub(crate) fn coding(self, coding: Coding) -> TsBuilder {
        TsBuilder { coding, ..self }
    }

    /// Slices per picture, 1 or 2.
    pub(crate) fn slices(self, slices: usize) -> TsBuilder {
        TsBuilder { slices, ..self }
    }

    /// Several pictures behind one time stamp.
    pub(crate) fn units_per_pes(self, units: usize) -> TsBuilder {
        TsBuilder { units_per_pes: units, ..self }
    }

    /// One picture over several PES packets, the later ones without a time stamp.
    pub(crate) fn pes_per_unit(self, packets: usize) -> TsBuilder {
        TsBuilder { pes_per_unit: packets, ..self }
    }

    /// PES packets say their length.
    pub(crate) fn bounded(self) -> TsBuilder {
        TsBuilder { bounded: true, ..self }
    }

    /// From this frame on, packets inside a PES packet are stuffed too, which packetizers do not do.
    pub(crate) fn stuffing_inside(self, from: usize) -> TsBuilder {
        TsBuilder { stuffing_inside: Some(from), ..self }
    }

    /// All time stamps step by so many ticks at a frame, announced by discontinuity_indicator or not.
    pub(crate) fn jump(self, at: usize, by: i64, announced: bool) -> TsBuilder {
        TsBuilder { jump: Some((at, by, announced)), ..self }
    }

    /// GOPs behind the first start with a recovery point instead of an IDR picture.
    pub(crate) fn recovery_points(self) -> TsBuilder {
        TsBuilder { recovery: true, ..self }
    }

    /// 90 kHz, unwrapped, of frame `n` in decoding order.
    pub(crate) fn dts(&self, n: usize) -> i64 {
        let ticks = n as i64 * 90_000 * i64::from(self.fps.1) / i64::from(self.fps.0);
        let jump = self.jump.filter(|(at, ..)| n >= *at).map_or(0, |(_, by, _)| by);
        self.start as i64 + ticks + jump
    }

    pub(crate) fn pts(&self, n: usize) -> i64 {
        let frame = self.dts(1) - self.dts(0);
        match self.coding {
            // Decoded I P b P b, shown I b P b P: everything one frame late, b pulled forward.
            Coding::Reordered if n.is_multiple_of(self.gop) => self.dts(n) + frame,
            Coding::Reordered if n % self.gop % 2 == 1 => self.dts(n) + 2 * frame,
            Coding::Reordered => self.dts(n),
            _ => self.dts(n),
        }
    }

    /// Packets of the stream.
    pub(crate) fn packets(&self) -> Vec<[u8; PACKET_BYTES]> {
        let mut writer = Writer::default();
        let mut pictures = Pictures::new(self);
        let mut audio_frames = 0i64;
        let mut held: Vec<u8> = Vec::new();
        for n in 0..self.frames {
            if n % self.gop == 0 || n % 5 == 0 {
                writer.tables(self.audio);
            }
            let announced = self.jump.is_some_and(|(at, _, announced)| at == n && announced);
            let times = (self.pts(n), self.dts(n));
            let pictures = pictures.next(self, n);
            if self.units_per_pes > 1 {
                held.extend(pictures.concat());
                if (n + 1) % self.units_per_pes == 0 || n + 1 == self.frames {
                    let first = n / self.units_per_pes * self.units_per_pes;
                    writer.pes(self, n, (self.pts(first), self.dts(first)), announced, &std::mem::take(&mut held));
                }
            } else if self.coding == Coding::FieldPairs {
                for (field, bytes) in (0..).zip(&pictures) {
                    let half = field * (self.dts(1) - self.dts(0)) / 2;
                    writer.pes(self, n, (times.0 + half, times.1 + half), announced && field == 0, bytes);
                }
            } else {
                writer.pes(self, n, times, announced, &pictures.concat());
            }
            let until = self.dts(n + 1) - self.jump.filter(|(at, ..)| n + 1 >= *at).map_or(0, |(_, by, _)| by);
            while self.audio && audio_frames * 1920 < until - self.start as i64 {
                let jump = self.jump.filter(|(at, ..)| n >= *at).map_or(0, |(_, by, _)| by);
                writer.silence(self.start as i64 + audio_frames * 1920 + jump);
                audio_frames += 1;
            }
        }
        writer.packets
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        self.packets().concat()
    }
}

#[derive(Default)]
struct Writer {
    packets: Vec<[u8; PACKET_BYTES]>,
    counters: [u8; 4],
}

impl Writer {
    fn put(&mut self, slot: usize, header: Header, payload: &[u8]) -> usize {
        let mut bytes = Vec::new();
        let taken = Header { continuity: self.counters[slot], ..header }.write(payload, &mut bytes);
        self.counters[slot] = (self.counters[slot] + 1) & 15;
        self.packets.push(bytes.try_into().expect("one packet"));
        taken
    }

    fn tables(&mut self, audio: bool) {
        let mut streams: Vec<(u8, u16, &[u8])> = vec![(0x1B, VIDEO, &[])];
        if audio {
            streams.push((0x0F, AUDIO, &[]));
        }
        let tables = [
            (0, 0, psi::write_section(psi::TABLE_PAT, 1, 0, &psi::pat_body(&[(1, PMT)]))),
            (1, PMT, psi::write_section(psi::TABLE_PMT, 1, 0, &psi::pmt_body(VIDEO, &streams))),
        ];
        for (slot, pid, section) in tables {
            let mut payload = [&[0][..], &section].concat();
            payload.resize(184, 0xFF);
            self.put(slot, Header { pid, unit_start: true, ..Header::default() }, &payload);
        }
    }

    fn pes(&mut self, b: &TsBuilder, n: usize, (pts, dts): (i64, i64), announced: bool, es: &[u8]) {
        let share = es.len().div_ceil(b.pes_per_unit);
        for (part, piece) in es.chunks(share).enumerate() {
            let mut bytes = Vec::new();
            let length = b.bounded.then_some(piece.len());
            if part == 0 {
                pes::write(0xE0, raw(pts), raw(dts), length, &mut bytes);
            } else {
                let size = length.map_or(0, |l| u16::try_from(l + 3).expect("small"));
                bytes.extend_from_slice(&[0, 0, 1, 0xE0]);
                bytes.extend_from_slice(&size.to_be_bytes());
                bytes.extend_from_slice(&[0x80, 0, 0]);
            }
            bytes.extend_from_slice(piece);
            let inside = b.stuffing_inside.is_some_and(|from| n >= from);
            let mut at = 0;
            while at < bytes.len() {
                let first = part == 0 && at == 0;
                let header = Header {
                    pid: VIDEO,
                    unit_start: at == 0,
                    continuity: 0,
                    discontinuity: first && announced,
                    random_access: false,
                    pcr: first.then(|| raw(dts - 9_000) * 300),
                };
                let most = if inside && at > 0 { 100 } else { 184 };
                let end = bytes.len().min(at + most);
                at += self.put(2, header, &bytes[at..end]);
            }
        }
    }

    fn silence(&mut self, pts: i64) {
        // 48 kHz stereo AAC-LC.
        const FRAME: [u8; 16] =
            [0xFF, 0xF1, 0x4C, 0x80, 0x02, 0x1F, 0xFC, 0x21, 0x00, 0x49, 0x90, 0x02, 0x19, 0x00, 0x23, 0x80];
        let mut bytes = Vec::new();
        pes::write(0xC0, raw(pts), raw(pts), Some(FRAME.len()), &mut bytes);
        bytes.extend_from_slice(&FRAME);
        self.put(3, Header { pid: AUDIO, unit_start: true, ..Header::default() }, &bytes);
    }
}

fn raw(time: i64) -> u64 {
    time.rem_euclid(1 << 33).cast_unsigned()
}

/// Writes H.264.
struct Pictures {
    frame_num: u32,
    idr_id: u32,
}

impl Pictures {
    fn new(_: &TsBuilder) -> Pictures {
        Pictures { frame_num: 0, idr_id: 0 }
    }

    /// The pictures of frame `n`: one, or two fields; each with delimiter and, at a GOP's start, parameter sets.
    fn next(&mut self, b: &TsBuilder, n: usize) -> Vec<Vec<u8>> {
        let fields = matches!(b.coding, Coding::FieldPairs | Coding::FieldPairsTogether);
        let at = n % b.gop;
        let starts = at == 0;
        let idr = starts && !(b.recovery && n > 0);
        if idr {
            self.frame_num = 0;
            self.idr_id ^= 1;
        }
        // Decoded I P b P b: counts 0 4 2 8 6, two per frame.
        let order = match b.coding {
            Coding::Reordered if at > 0 && at % 2 == 1 => 2 * (at + 1),
            Coding::Reordered if at > 0 => 2 * (at - 1),
            _ => 2 * at,
        };
        let order = if b.recovery { 2 * n } else { order };
        let reference = !(b.coding == Coding::Reordered && at > 0 && at.is_multiple_of(2));
        let mut pictures = Vec::new();
        for field in 0..if fields { 2 } else { 1 } {
            let mut bytes = nal(9, &[0xF0]);
            if starts && field == 0 {
                bytes.extend(nal(0x67, &sps(b, fields)));
                bytes.extend(nal(0x68, &pps()));
                if b.recovery && n > 0 {
                    // recovery_frame_cnt 0, exact_match 1.
                    bytes.extend(nal(6, &[6, 1, 0b1100_0100, 0x80]));
                }
            }
            for slice in 0..b.slices {
                let idr = idr && field == 0;
                let body = Slice {
                    idr: idr.then_some(self.idr_id),
                    intra: starts && field == 0,
                    reference,
                    frame_num: self.frame_num,
                    field: fields.then_some(field == 1),
                    order: (order + field) as u32 & 255,
                    part: (slice, b.slices),
                    luma: (n * 7) as u8 | 1,
                };
                let header = if reference { 0x60 } else { 0 } | if idr { 5 } else { 1 };
                bytes.extend(nal(header, &body.bits(fields)));
            }
            pictures.push(bytes);
        }
        if reference {
            self.frame_num = (self.frame_num + 1) & 15;
        }
        pictures
    }
}

struct Slice {
    idr: Option<u32>,
    intra: bool,
    reference: bool,
    frame_num: u32,
    field: Option<bool>,
    order: u32,
    /// Which of how many slices.
    part: (usize, usize),
    luma: u8,
}

impl Slice {
    fn bits(&self, fields: bool) -> Vec<u8> {
        let blocks = if fields { 2 } else { 4 } / self.part.1;
        let mut w = Bits::default();
        w.ue((self.part.0 * blocks) as u32);
        w.ue(if self.intra { 7 } else { 5 });
        w.ue(0);
        w.u(4, self.frame_num);
        if let Some(bottom) = self.field {
            w.u(1, 1);
            w.u(1, u32::from(bottom));
        }
        if let Some(id) = self.idr {
            w.ue(id);
        }
        w.u(8, self.order);
        if !self.intra {
            w.u(1, 0); // num_ref_idx_active_override_flag
            w.u(1, 0); // ref_pic_list_modification_flag_l0
        }
        if self.idr.is_some() {
            w.u(2, 0);
        } else if self.reference {
            w.u(1, 0);
        }
        w.ue(0); // slice_qp_delta
        if self.intra {
            for _ in 0..blocks {
                w.ue(25); // I_PCM
                w.align(0);
                w.bytes.extend(std::iter::repeat_n(self.luma, 256));
                w.bytes.extend([128; 128]);
            }
        } else {
            w.ue(blocks as u32); // mb_skip_run
        }
        w.end()
    }
}

fn sps(b: &TsBuilder, fields: bool) -> Vec<u8> {
    let mut w = Bits::default();
    w.bytes.extend([77, 0, 30]);
    for value in [0, 0, 0, 4, 2] {
        w.ue(value); // id, frame_num bits 4, order type 0, order bits 8, reference frames 2
    }
    w.u(1, 0);
    w.ue(1); // 2 x 2 macroblocks
    w.ue(if fields { 0 } else { 1 });
    w.u(1, u32::from(!fields));
    if fields {
        w.u(1, 0);
    }
    w.u(3, 0b101); // direct_8x8_inference, no crop, VUI
    w.u(4, 0); // aspect, overscan, signal type, chroma location
    w.u(1, 1);
    w.u(32, b.fps.1);
    w.u(32, b.fps.0 * 2);
    w.u(1, 1);
    w.u(4, 0);
    w.end()
}

fn pps() -> Vec<u8> {
    let mut w = Bits::default();
    w.ue(0);
    w.ue(0);
    w.u(2, 0); // CAVLC, no bottom order
    w.ue(0);
    w.ue(0);
    w.ue(0);
    w.u(3, 0);
    for _ in 0..3 {
        w.ue(0);
    }
    w.u(3, 0);
    w.end()
}

/// A NAL unit with start code and emulation prevention.
fn nal(header: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 1, header];
    let mut zeros = 0;
    for byte in body {
        if zeros == 2 && *byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        out.push(*byte);
    }
    out
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    bits: u32,
    byte: u8,
}

impl Bits {
    fn u(&mut self, n: u32, value: u32) {
        for bit in (0..n).rev() {
            self.byte = self.byte << 1 | (value >> bit & 1) as u8;
            self.bits += 1;
            if self.bits == 8 {
                self.bytes.push(self.byte);
                (self.bits, self.byte) = (0, 0);
            }
        }
    }

    fn ue(&mut self, value: u32) {
        let length = 31 - (value + 1).leading_zeros();
        self.u(length, 0);
        self.u(length + 1, value + 1);
    }

    fn align(&mut self, fill: u32) {
        while self.bits > 0 {
            self.u(1, fill);
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.u(1, 1);
        self.align(0);
        self.bytes
    }
}

//! Cues and timed tags written bit by bit, after ANSI/SCTE 35 and ID3v2.4, and muxed into a transport stream that another
//! program made. Nothing of Rung's own reading is used.

use std::collections::BTreeMap;

pub(crate) const CUE_PID: u16 = 0x1F0;
pub(crate) const TAG_PID: u16 = 0x1F1;
const PACKET: usize = 188;

/// Most significant bit first.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, count: u32, value: u64) -> &mut Bits {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        assert_eq!(self.0.len() % 8, 0, "whole bytes");
        self.0.chunks(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | u8::from(*bit))).collect()
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| u32::from(byte >> n & 1))) {
        crc = if crc >> 31 == bit { crc << 1 } else { crc << 1 ^ 0x04C1_1DB7 };
    }
    crc
}

/// A splice_info_section around a command and its descriptors; `adjust`: pts_adjustment.
fn section(kind: u64, command: &[u8], descriptors: &[u8], adjust: u64) -> Vec<u8> {
    let mut bits = Bits::default();
    let length = 11 + command.len() + 2 + descriptors.len() + 4;
    bits.put(8, 0xFC).put(1, 0).put(1, 0).put(2, 3).put(12, length as u64);
    bits.put(8, 0).put(1, 0).put(6, 0).put(33, adjust).put(8, 0xFF).put(12, 0xFFF);
    bits.put(12, command.len() as u64).put(8, kind);
    let mut bytes = bits.bytes();
    bytes.extend_from_slice(command);
    bytes.extend((descriptors.len() as u16).to_be_bytes());
    bytes.extend_from_slice(descriptors);
    bytes.extend(crc(&bytes).to_be_bytes());
    bytes
}

fn time(bits: &mut Bits, pts: u64) {
    bits.put(1, 1).put(6, 0x3F).put(33, pts & ((1 << 33) - 1));
}

/// splice_insert; `duration`: (90 kHz, auto_return). Half of the time is in pts_adjustment.
pub(crate) fn insert(event: u32, out: bool, pts: u64, duration: Option<(u64, bool)>) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(32, event.into()).put(1, 0).put(7, 0x7F);
    bits.put(1, out.into()).put(1, 1).put(1, duration.is_some().into()).put(1, 0).put(4, 0xF);
    let adjust = 1 << 32;
    time(&mut bits, pts.wrapping_sub(adjust));
    if let Some((ticks, returns)) = duration {
        bits.put(1, returns.into()).put(6, 0x3F).put(33, ticks);
    }
    bits.put(16, 1).put(8, 0).put(8, 0);
    section(5, &bits.bytes(), &[], adjust)
}

pub(crate) fn cancel(event: u32) -> Vec<u8> {
    section(5, &Bits::default().put(32, event.into()).put(1, 1).put(7, 0x7F).bytes(), &[], 0)
}

/// time_signal with one segmentation_descriptor.
pub(crate) fn segment(event: u32, kind: u8, pts: u64, duration: Option<u64>) -> Vec<u8> {
    let mut command = Bits::default();
    time(&mut command, pts);
    let mut bits = Bits::default();
    bits.put(32, 0x4355_4549).put(32, event.into()).put(1, 0).put(7, 0x7F);
    bits.put(1, 1).put(1, duration.is_some().into()).put(1, 1).put(5, 0x1F);
    if let Some(ticks) = duration {
        bits.put(40, ticks);
    }
    bits.put(8, 0x08).put(8, 8).put(64, 0x2CA0_A18A).put(8, kind.into()).put(8, 1).put(8, 1);
    let content = bits.bytes();
    let descriptor = [&[2, content.len() as u8][..], &content].concat();
    section(6, &command.bytes(), &descriptor, 0)
}

/// private_command of so many bytes: nothing that is spliced.
pub(crate) fn private(bytes: usize) -> Vec<u8> {
    section(0xFF, &vec![7; bytes], &[], 0)
}

/// A section with a right CRC, and with what `spoil` makes of it otherwise.
pub(crate) fn sealed(mut section: Vec<u8>, spoil: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let at = section.len() - 4;
    spoil(&mut section[..at]);
    let seal = crc(&section[..at]).to_be_bytes();
    section[at..].copy_from_slice(&seal);
    section
}

/// An ID3v2.4 tag with a title (TIT2).
pub(crate) fn tag(text: &str) -> Vec<u8> {
    let content = [&[3][..], text.as_bytes(), b"\0"].concat();
    let synchsafe = |n: usize| [(n >> 21 & 127) as u8, (n >> 14 & 127) as u8, (n >> 7 & 127) as u8, (n & 127) as u8];
    let frame = [&b"TIT2"[..], &synchsafe(content.len()), &[0, 0], &content].concat();
    [&b"ID3\x04\0\0"[..], &synchsafe(frame.len()), &frame].concat()
}

/// What goes in: in front of the picture of a PTS.
#[derive(Default)]
pub(crate) struct Script {
    before: BTreeMap<u64, Vec<Item>>,
}

enum Item {
    Section(Vec<u8>),
    /// With its PTS.
    Tag(u64, Vec<u8>),
}

impl Script {
    pub(crate) fn section(&mut self, before: u64, section: Vec<u8>) {
        self.before.entry(before).or_default().push(Item::Section(section));
    }

    pub(crate) fn tag(&mut self, before: u64, pts: u64, tag: Vec<u8>) {
        self.before.entry(before).or_default().push(Item::Tag(pts, tag));
    }
}

/// `stream` with the script's sections and tags, each on a PID of its own that the PMT names.
pub(crate) fn muxed(stream: &[u8], mut script: Script) -> Vec<u8> {
    let mut out = Vec::with_capacity(stream.len() + 65_536);
    let mut counters = [0u8; 2];
    let (mut pmt, mut video) = (None, None);
    for packet in stream.chunks_exact(PACKET) {
        let pid = u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
        let starts = packet[1] & 0x40 != 0;
        let payload = 4 + if packet[3] & 0x20 != 0 { 1 + usize::from(packet[4]) } else { 0 };
        if pid == 0 && starts {
            let entry = &packet[payload + 9..];
            pmt = Some(u16::from_be_bytes([entry[2] & 0x1F, entry[3]]));
        }
        if Some(pid) == pmt && starts {
            let (rewritten, first) = with_streams(&packet[payload + 1..]);
            video = video.or(Some(first));
            let mut whole = packet[..payload + 1].to_vec();
            whole.extend(rewritten);
            whole.resize(PACKET, 0xFF);
            out.extend(whole);
            continue;
        }
        if starts && Some(pid) == video {
            for item in pts_of(&packet[payload..]).and_then(|pts| script.before.remove(&pts)).unwrap_or_default() {
                match item {
                    Item::Section(bytes) => {
                        packets(&mut out, CUE_PID, &mut counters[0], &[&[0][..], &bytes].concat(), true);
                    }
                    Item::Tag(pts, bytes) => packets(&mut out, TAG_PID, &mut counters[1], &pes(pts, &bytes), false),
                }
            }
        }
        out.extend_from_slice(packet);
    }
    assert!(script.before.is_empty(), "no picture has these time stamps: {:?}", script.before.keys());
    out
}

/// PTS of the first picture.
pub(crate) fn first_pts(stream: &[u8]) -> u64 {
    let packets = stream.chunks_exact(PACKET).filter(|p| p[1] & 0x40 != 0 && p[3] & 0x10 != 0);
    let payloads = packets.map(|p| &p[4 + if p[3] & 0x20 != 0 { 1 + usize::from(p[4]) } else { 0 }..]);
    let mut video = payloads.filter(|payload| payload.starts_with(&[0, 0, 1, 0xE0]));
    video.find_map(pts_of).expect("a picture")
}

/// A PMT section with two streams more and "CUEI" registered; and the PID of its first stream.
fn with_streams(section: &[u8]) -> (Vec<u8>, u16) {
    let length = usize::from(u16::from_be_bytes([section[1] & 15, section[2]]));
    let body = &section[..3 + length - 4];
    let info = usize::from(u16::from_be_bytes([body[10] & 15, body[11]]));
    let first = u16::from_be_bytes([body[12 + info + 1] & 0x1F, body[12 + info + 2]]);
    let mut out = body[..10].to_vec();
    out.extend((0xF000 | (info as u16 + 6)).to_be_bytes());
    out.extend_from_slice(&body[12..12 + info]);
    out.extend_from_slice(b"\x05\x04CUEI");
    out.extend_from_slice(&body[12 + info..]);
    let id3 = b"\x26\x0D\xFF\xFFID3 \xFFID3 \x00\x0F";
    for (kind, pid, info) in [(0x86, CUE_PID, &[][..]), (0x15, TAG_PID, &id3[..])] {
        out.push(kind);
        out.extend((0xE000 | pid).to_be_bytes());
        out.extend((0xF000 | info.len() as u16).to_be_bytes());
        out.extend_from_slice(info);
    }
    let length = (out.len() - 3 + 4) as u16;
    out[1] = out[1] & 0xF0 | (length >> 8) as u8;
    out[2] = length as u8;
    out.extend(crc(&out).to_be_bytes());
    (out, first)
}

fn pts_of(pes: &[u8]) -> Option<u64> {
    let has = pes.starts_with(&[0, 0, 1]) && pes[7] & 0x80 != 0;
    let b: Vec<u64> = pes.get(9..14)?.iter().map(|b| u64::from(*b)).collect();
    has.then(|| (b[0] >> 1 & 7) << 30 | b[1] << 22 | (b[2] >> 1) << 15 | b[3] << 7 | b[4] >> 1)
}

fn pes(pts: u64, payload: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(24, 1).put(8, 0xBD).put(16, (payload.len() + 8) as u64).put(8, 0x84).put(8, 0x80).put(8, 5);
    bits.put(4, 2).put(3, pts >> 30).put(1, 1).put(15, pts >> 15 & 0x7FFF).put(1, 1).put(15, pts & 0x7FFF).put(1, 1);
    [&bits.bytes()[..], payload].concat()
}

fn packets(out: &mut Vec<u8>, pid: u16, counter: &mut u8, mut payload: &[u8], section: bool) {
    let mut start = true;
    while !payload.is_empty() {
        let taken = payload.len().min(PACKET - 4);
        let [p1, p2] = (pid | if start { 0x4000 } else { 0 }).to_be_bytes();
        let room = PACKET - 4 - taken;
        let stuffed = room > 0 && !section;
        out.extend([0x47, p1, p2, if stuffed { 0x30 } else { 0x10 } | *counter & 15]);
        if stuffed {
            out.push((room - 1) as u8);
            if room > 1 {
                out.push(0);
                out.extend(std::iter::repeat_n(0xFF, room - 2));
            }
        }
        out.extend_from_slice(&payload[..taken]);
        if section {
            out.extend(std::iter::repeat_n(0xFF, room));
        }
        *counter = counter.wrapping_add(1);
        payload = &payload[taken..];
        start = false;
    }
}

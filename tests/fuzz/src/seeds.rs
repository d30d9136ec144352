//! What the corpus was begun with: small inputs of each kind, made by writers of our own. Written to files by
//! `rung-fuzz seeds`; the files are what is replayed.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../support/ts_builder.rs"]
mod ts_builder;

mod ingest;

use bytes::Bytes;
use rung::bitstream::captions::{Triplet, message};
use rung::control::record::{ChannelConfig, ChannelId, ChannelRecord, PlaybackId, StreamKey, Utc};
use rung::demux::{Demuxer, Event};
use rung::media::access_unit::AccessUnit;
use rung::media::channel::ChannelName;
use rung::media::grid::{Anchor, Cadence, Grid, PdtLine, SourceGop, SourceProfile};
use rung::media::modes::LatencyMode;
use rung::media::sample::Stamps;
use rung::mpegts::packet::{Header, PACKET_BYTES};
use rung::mpegts::{pes, psi};
use rung::pixels::protocol::{self, Fill, FromShared, FromWorker, Join, Open, Progress, ToWorker, Unit};
use rung::time::{Mono, Wall};
use ts_builder::{Coding, TsBuilder};
use ulid::Ulid;

pub(crate) use ingest::{
    PASSPHRASE, key_message, pipes, quic_messages, quic_segments, quic_urls, srt_bonds, srt_callers, srt_filter_links,
    srt_filters, srt_handshakes, srt_keys, srt_links, srt_listeners, srt_packets, srt_receivers, srt_senders,
};

use crate::script::{Script, piece};
use crate::targets::{recording, signed_token};

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
    digits.as_chunks::<2>().0.iter().map(|[high, low]| value(*high) << 4 | value(*low)).collect()
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

// ── transport streams ───────────────────────────────────────────────────────────────────────────────────────────────

fn builders() -> Vec<TsBuilder> {
    let short = || TsBuilder::h264().gop(6).frames(8);
    vec![
        short().audio(),
        short().coding(Coding::Reordered).bounded(),
        short().coding(Coding::FieldPairs),
        short().coding(Coding::FieldPairsTogether).slices(2),
        short().units_per_pes(3),
        short().pes_per_unit(3).bounded(),
        short().start((1 << 33) - 7_200).audio(),
        short().jump(4, 900_000, true),
        short().jump(4, -900_000, false).recovery_points(),
        // Long enough for the end of a PES packet to be believed.
        TsBuilder::h264().gop(40).frames(24).stuffing_inside(16),
    ]
}

pub(crate) fn packets() -> Vec<Vec<u8>> {
    let stream = TsBuilder::h264().gop(6).frames(8).audio().build();
    let odd = |control: u8, adaptation: &[u8]| {
        let mut packet = vec![0x47, 0x41, 0x00, control];
        packet.extend_from_slice(adaptation);
        packet.resize(PACKET_BYTES, 0xFF);
        packet
    };
    vec![
        stream[..PACKET_BYTES * 8].to_vec(),
        odd(0x30, &[7, 0x10, 1, 2, 3, 4, 0x81, 0xFF]),
        odd(0x30, &[20, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 9, 9, 3, 1, 2, 3]),
        odd(0x20, &[183, 0x80]),
        odd(0x70, &[0]),
    ]
}

pub(crate) fn sections() -> Vec<Vec<u8>> {
    let streams: &[(u8, u16, &[u8])] = &[
        (0x1B, 0x100, b"\x86\x0d\xc2eng\x81\x3f\xffdeu\x7f\xbf\xff"),
        (0x0F, 0x101, b"\x0a\x04eng\x03"),
        (0x86, 0x1F0, b"\x05\x04CUEI"),
        (0x15, 0x1F1, b"\x26\x0d\xff\xffID3 \xffID3 \x00\x0f"),
        (0x06, 0x102, b"\x05\x04HEVC\x7f\x02\x06\x84"),
    ];
    let pmt = psi::write_section(psi::TABLE_PMT, 1, 3, &psi::pmt_body(0x100, streams));
    let pat = psi::write_section(psi::TABLE_PAT, 7, 1, &psi::pat_body(&[(0, 0x10), (1, 0x1000), (2, 0x1001)]));
    let both = [&[0][..], &pat, &pmt, &[0xFF; 8]].concat();
    let mut packets = Vec::new();
    for (n, payload) in both.chunks(60).enumerate() {
        packets.extend_from_slice(&[u8::from(n == 0), u8::try_from(payload.len()).unwrap_or(0)]);
        packets.extend_from_slice(payload);
    }
    // A section that ends behind a pointer.
    let (head, tail) = pmt.split_at(20);
    let first = [&[1, 21, 0][..], head].concat();
    let length = u8::try_from(tail.len()).unwrap_or(0);
    let pointed = [&first[..], &[1, length + 1, length], tail].concat();
    vec![packets, pointed, [&[2, 1, 0, 3][..], &psi::pmt_body(0x100, streams)].concat()]
}

pub(crate) fn pes_headers() -> Vec<Vec<u8>> {
    let written = |id, pts, dts, payload: Option<usize>| {
        let mut bytes = Vec::new();
        pes::write(id, pts, dts, payload, &mut bytes);
        bytes.extend_from_slice(&[9; 6]);
        bytes
    };
    vec![
        written(0xE0, 900_000, 896_400, None),
        written(0xC0, (1 << 33) - 1, (1 << 33) - 1, Some(6)),
        vec![0, 0, 1, 0xBE, 0, 4, 0xFF, 0xFF, 0xFF, 0xFF],
        [&[0, 0, 1, 0xE0, 0, 40, 0xB0, 0xC0, 20][..], &[0xFF; 40]].concat(),
    ]
}

/// The examples of ANSI/SCTE 35, clause 14.
const CUES: [&str; 4] = [
    "fc3034000000000000fffff00506fe72bd0050001e021c435545494800008e7fcf0001a599b00808000000002ca0a18a3402009ac9d17e",
    "fc302f000000000000fffff014054800008f7feffe7369c02efe0052ccf500000000000a0008435545490000013562dba30a",
    "fc302f000000000000fffff00506fe746290a000190217435545494800008e7f9f0808000000002ca0a18a350200a9cc6758",
    "fc3048000000000000fffff00506fe7a4d88b60032021743554549480000187f9f0808000000002ccbc344110000021743554549480000197f9f0808000000002ca4dba01000009972e343",
];

pub(crate) fn cues() -> Vec<Vec<u8>> {
    let parts = unhex(
        "fc3030000000000000fffff0ff05480000 8f 00 8f 03 01 fe7369c02e 02 7f 03 fe00000001 0001 00 00 0000 00000000",
    );
    CUES.iter().map(|cue| unhex(cue)).chain([parts]).collect()
}

pub(crate) fn clocks() -> Vec<Vec<u8>> {
    let record = |raw: u64, flags: u8, micros: u32| [&raw.to_le_bytes()[..], &[flags], &micros.to_le_bytes()].concat();
    let wrap = (1u64 << 33) * 300;
    let even: Vec<u8> = (0..6).flat_map(|n| record(n * 540_000, 0, 20_000)).collect();
    let over: Vec<u8> = (0..6).flat_map(|n| record((wrap - 1_000_000 + n * 540_000) % wrap, 0, 20_000)).collect();
    let jumps = [record(5, 0, 0), record(wrap / 2, 1, 9), record(1, 0, 4_000_000_000)].concat();
    vec![even, over, jumps]
}

/// A program with sound, cues and timed tags.
fn marked() -> Vec<u8> {
    let streams: &[(u8, u16, &[u8])] =
        &[(0x0F, 0x101, &[]), (0x86, 0x1F0, b"\x05\x04CUEI"), (0x15, 0x1F1, b"\x26\x0d\xff\xffID3 \xffID3 \x00\x0f")];
    let mut out = Vec::new();
    let tables = [
        (0, psi::write_section(psi::TABLE_PAT, 1, 0, &psi::pat_body(&[(1, 0x1000)]))),
        (0x1000, psi::write_section(psi::TABLE_PMT, 1, 0, &psi::pmt_body(0x101, streams))),
    ];
    let mut packet = |pid, continuity, payload: &[u8], pcr| {
        let header = Header { pid, unit_start: true, continuity, pcr, ..Header::default() };
        header.write(payload, &mut out);
    };
    for (pid, section) in tables {
        let mut payload = [&[0][..], &section].concat();
        payload.resize(184, 0xFF);
        packet(pid, 0, &payload, None);
    }
    for n in 0..6u8 {
        let at = 900_000 + 1_920 * u64::from(n);
        let mut sound = Vec::new();
        pes::write(0xC0, at, at, Some(16), &mut sound);
        sound.extend(unhex("fff14c80021ffc21004990021900 2380"));
        packet(0x101, n, &sound, (n == 0).then_some(890_000 * 300));
        let mut cue = [&[0][..], &unhex(CUES[usize::from(n % 4)])].concat();
        cue.resize(184, 0xFF);
        packet(0x1F0, n, &cue, None);
        let mut tag = Vec::new();
        pes::write(0xBD, at, at, Some(13), &mut tag);
        tag.extend_from_slice(b"ID3\x04\x00\x00\x00\x00\x00\x03abc");
        packet(0x1F1, n, &tag, None);
    }
    out
}

pub(crate) fn streams() -> Vec<Vec<u8>> {
    let mut streams: Vec<Vec<u8>> = builders().iter().map(TsBuilder::build).collect();
    streams.push(marked());
    // With parity behind each packet, and with noise between some.
    let plain = streams[0].clone();
    streams.push(plain.chunks(PACKET_BYTES).flat_map(|packet| [packet, &[0x5A; 16]].concat()).collect());
    let noisy = plain.chunks(PACKET_BYTES).enumerate();
    streams.push(
        noisy
            .flat_map(|(n, packet)| if n % 9 == 5 { [&[0x47; 33], packet].concat() } else { packet.to_vec() })
            .collect(),
    );
    let seeded = |(n, stream): (usize, &Vec<u8>)| [&u16::try_from(n).unwrap_or(0).to_le_bytes()[..], stream].concat();
    streams.iter().enumerate().map(seeded).collect()
}

fn units(stream: &[u8], video: bool) -> Vec<AccessUnit> {
    let mut demuxer = Demuxer::new();
    demuxer.push(Mono(1), stream);
    demuxer.flush(Mono(1));
    let events = std::iter::from_fn(|| demuxer.poll());
    events
        .filter_map(|event| if let Event::Unit(unit) = event { Some(unit) } else { None })
        .filter(|unit| unit.codec.is_video() == video)
        .collect()
}

/// Elementary streams as a script: a byte for the codec, two that say how the stream is cut, then PES packets: a byte of
/// flags and a piece.
pub(crate) struct Elementary;

/// Of a PES packet.
const TIMED: u8 = 1;
const REORDERED: u8 = 2;
const BOUNDED: u8 = 4;
const LOSES: u8 = 8;
const DISTURBED: u8 = 16;
const ANNOUNCED: u8 = 32;
const STUFFED: u8 = 64;
const FAR: u8 = 128;

impl Elementary {
    /// The transport stream of a script, and how it is to be cut.
    pub(crate) fn mux(input: &[u8]) -> (u16, Vec<u8>) {
        let mut script = Script::new(input);
        let kind = [0x1B, 0x24, 0x02, 0x0F][usize::from(script.byte() & 3)];
        let seed = script.u16();
        let mut out = Vec::new();
        let tables = [
            (0, psi::write_section(psi::TABLE_PAT, 1, 0, &psi::pat_body(&[(1, 0x1000)]))),
            (0x1000, psi::write_section(psi::TABLE_PMT, 1, 0, &psi::pmt_body(0x100, &[(kind, 0x100, &[])]))),
        ];
        for (pid, section) in tables {
            let mut payload = [&[0][..], &section].concat();
            payload.resize(184, 0xFF);
            Header { pid, unit_start: true, ..Header::default() }.write(&payload, &mut out);
        }
        let (mut continuity, mut time) = (0u8, 900_000u64);
        while !script.is_over() {
            let (flags, payload) = (script.byte(), script.piece());
            time += if flags & FAR != 0 { 8_000_000_000 } else { 3_600 };
            let length = (flags & BOUNDED != 0).then_some(payload.len());
            let mut bytes = Vec::new();
            let pts = if flags & REORDERED != 0 { time + 7_200 } else { time };
            if flags & TIMED != 0 {
                pes::write(
                    if kind == 0x0F { 0xC0 } else { 0xE0 },
                    pts & ((1 << 33) - 1),
                    time & ((1 << 33) - 1),
                    length,
                    &mut bytes,
                );
            } else {
                let size = length.and_then(|n| u16::try_from(n + 3).ok()).unwrap_or(0).to_be_bytes();
                bytes.extend_from_slice(&[0, 0, 1, 0xE0, size[0], size[1], 0x80, 0, 0]);
            }
            bytes.extend_from_slice(payload);
            let mut at = 0;
            while at < bytes.len() {
                let most = if flags & STUFFED != 0 { 100 } else { 184 };
                let end = bytes.len().min(at + most);
                let header = Header {
                    pid: 0x100,
                    unit_start: at == 0,
                    continuity,
                    discontinuity: at == 0 && flags & ANNOUNCED != 0,
                    ..Header::default()
                };
                let start = out.len();
                let taken = header.write(&bytes[at..end], &mut out);
                continuity = (continuity + 1) & 15;
                if flags & LOSES != 0 && at > 0 && at <= 2 * most {
                    out.truncate(start);
                } else if flags & DISTURBED != 0 && at > 0 {
                    out[start + 1] |= 0x80;
                }
                at += taken;
            }
        }
        (seed, out)
    }

    fn script(kind: u8, seed: u16, packets: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend_from_slice(&seed.to_le_bytes());
        for (flags, payload) in packets {
            out.push(*flags);
            piece(payload, &mut out);
        }
        out
    }
}

/// VPS, SPS, PPS; a picture of three slices, and two more.
const HEVC: [&str; 10] = [
    "0000000140010c01ffff0408000003009d0800000300003c928090 000000014201010408000003009d0800000300003cb00a080b9f2b6592a4acaf016c080000030008000003019040 000000014401c172b44240",
    "000000012801ac0a60335fff",
    "0000000128012af0a6cd2617",
    "00000001280134f0a6cccc2f",
    "000000010201d0097e10c205",
    "000000010201550097e10c20",
    "000000010201690097e10c20",
    "000000010201d011ffd44302",
    "00000001020155011ffd4430",
    "00000001020169011ffd4430",
];
const MPEG2: [&str; 3] = [
    "000001b32d024033ffffe018 000001b5148200010000 000001b800080040 00000100000ffff8 000001b58ffff38000 00000101aabbcc 00000102aabb0000",
    "000001000057fffb80 000001b58ffff18000 00000101aabbcc 00000102aabb0000",
    "000001000057fffb80 000001b58ffff28000 00000101aabbcc 00000102aabb0000",
];

pub(crate) fn elementary() -> Vec<Vec<u8>> {
    let mut scripts = Vec::new();
    for (n, builder) in (0u16..).zip(builders()) {
        let units = units(&builder.build(), true);
        let flags = [TIMED, TIMED | BOUNDED, TIMED | REORDERED, TIMED | LOSES, TIMED | STUFFED][usize::from(n) % 5];
        let packets: Vec<(u8, &[u8])> = units.iter().take(20).map(|unit| (flags, &unit.data[..])).collect();
        scripts.push(Elementary::script(0, n, &packets));
    }
    let hevc: Vec<Vec<u8>> = HEVC.iter().map(|hex| unhex(hex)).collect();
    let pictures = [hevc[..4].concat(), hevc[4..7].concat(), hevc[7..].concat()];
    let whole: Vec<(u8, &[u8])> = pictures.iter().map(|picture| (TIMED | BOUNDED, &picture[..])).collect();
    scripts.push(Elementary::script(1, 3, &whole));
    let slices: Vec<(u8, &[u8])> =
        hevc.iter().enumerate().map(|(n, slice)| (u8::from(n % 3 == 0), &slice[..])).collect();
    scripts.push(Elementary::script(1, 8, &slices));
    let fields: Vec<Vec<u8>> = MPEG2.iter().map(|hex| unhex(hex)).collect();
    let packets: Vec<(u8, &[u8])> = [0, 1, 2, 1, 2, 0, 1, 2, 1, 2].iter().map(|at| (TIMED, &fields[*at][..])).collect();
    scripts.push(Elementary::script(2, 5, &packets));
    scripts.push(Elementary::script(2, 6, &[(TIMED, &fields.concat()), (0, &fields.concat())]));
    let frame = unhex("fff14c80021ffc210049900219002380");
    let sound = [
        (TIMED | BOUNDED, &frame.repeat(3)[..]),
        (BOUNDED, &frame[..7]),
        (BOUNDED, &frame[7..]),
        (TIMED | LOSES, &frame.repeat(40)[..]),
    ];
    scripts.push(Elementary::script(3, 9, &sound));
    scripts
}

// ── elementary streams ──────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) fn bits() -> Vec<Vec<u8>> {
    let made = |escapes: u8, reads: &[u8], bytes: &[u8]| {
        let mut out = vec![escapes];
        piece(reads, &mut out);
        out.extend_from_slice(bytes);
        out
    };
    vec![
        made(1, &[96, 128, 32, 4], &[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 2]),
        made(0, &[2, 2, 2, 3, 3, 1, 128], &[0xA6, 0x42, 0x80, 0, 0, 3, 1, 9]),
        made(1, &[3, 2, 128, 128], &[0, 0, 3, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
    ]
}

fn annexb_units() -> Vec<u8> {
    units(&TsBuilder::h264().gop(6).frames(3).slices(2).build(), true)
        .iter()
        .flat_map(|unit| unit.data.to_vec())
        .collect()
}

pub(crate) fn annexb() -> Vec<Vec<u8>> {
    vec![
        vec![9, 9, 0, 0, 1, 0x67, 1, 0, 0, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 0, 3, 0, 0, 0],
        vec![0, 0, 1, 0, 0, 1, 0, 0],
        annexb_units()[..400].to_vec(),
    ]
}

pub(crate) fn h264() -> Vec<Vec<u8>> {
    let of = |builder: TsBuilder| {
        let units = units(&builder.build(), true);
        // Without most of the pictures' bytes.
        let short = |unit: &AccessUnit| {
            rung::bitstream::annexb::nal_units(&unit.data)
                .flat_map(|nal| [&[0, 0, 1], &nal[..nal.len().min(60)]].concat())
                .collect::<Vec<u8>>()
        };
        units.iter().flat_map(short).collect::<Vec<u8>>()
    };
    // High profile with scaling lists, cropping and a VUI that says all it can; a PPS with slice groups.
    let high =
        unhex("000001 67640028acd940780227e5c044000003000400000300c83c60c658 000001 68ebe3cb22c0 000001 6588840021ff");
    let recovery =
        unhex("000001 0605ff 000001 06 0601c480 000001 06 05 10 dc45e9bde6d948b7962cd820d923eeef 06 01 c4 80");
    vec![
        of(TsBuilder::h264().gop(3).frames(4)),
        of(TsBuilder::h264().gop(3).frames(3).coding(Coding::FieldPairs).slices(2)),
        of(TsBuilder::h264().gop(2).frames(4).recovery_points()),
        high,
        recovery,
    ]
}

pub(crate) fn h265() -> Vec<Vec<u8>> {
    let all: Vec<u8> = HEVC.iter().flat_map(|hex| unhex(hex)).collect();
    let headers = [
        // A conformance window of one chroma sample a side.
        [
            "40010c01ffff016000000300900000030000030078959409",
            "420101016000000300900000030000030078a003c0801107536595952930bc05a02000000300200000030321",
            "4401c073c189",
        ],
        // 10 bit, scaling lists, HRD, reference sets predicted from others.
        [
            "40010c01ffff02200000030090000003000003003c999809",
            "42010102200000030090000003000003003ca00a080b9d48d966669246ed782b50910090400000fa40001d4c1803259b8007a10001e84880",
            "4401c172b66240",
        ],
        // Every picture a field.
        [
            "40010c01ffff01600000030040000003000003005d959409",
            "42010101600000030040000003000003005da005a200905965654a4c2f0168680000030008000003019040",
            "4401c073c189",
        ],
    ];
    let of = |headers: &[&str; 3]| {
        let sets: Vec<u8> = headers.iter().flat_map(|hex| [&[0, 0, 1][..], &unhex(hex)].concat()).collect();
        [sets, unhex("000001 2601af0880 000001 0201d0097e10c205")].concat()
    };
    headers.iter().map(of).chain([all]).collect()
}

pub(crate) fn mpeg2() -> Vec<Vec<u8>> {
    let units = [
        "b32d024033ffffe018",
        "b5148200010000",
        "b52b0505050b421200",
        "00000ffff8",
        "b58ffff38000",
        "b378043834ffffe018",
        "b5144a00010080",
    ];
    let pieces = |units: &[&str]| {
        units
            .iter()
            .flat_map(|hex| {
                let unit = unhex(hex);
                [&[u8::try_from(unit.len()).unwrap_or(0)][..], &unit].concat()
            })
            .collect::<Vec<u8>>()
    };
    vec![pieces(&units[..5]), pieces(&units[5..]), pieces(&units)]
}

pub(crate) fn captions() -> Vec<Vec<u8>> {
    let pair = |kind, a: u8, b: u8| {
        let odd = |byte: u8| byte | u8::from(byte.count_ones().is_multiple_of(2)) << 7;
        Triplet { kind, data: [odd(a), odd(b)] }
    };
    let popped =
        message(&[pair(0, 0x14, 0x20), pair(0, 0x14, 0x70), pair(0, b'H', b'I'), Triplet { kind: 3, data: [2, 0x21] }]);
    let h264 = [&[0, 0, 0, 0, 1, 6][..], &popped, &[0, 0, 0, 1, 0x65, 9, 9, 0, 0, 1, 6], &popped, &[0, 0, 1, 0x61, 2]]
        .concat();
    let h265 = [&[1, 0, 0, 0, 1, 0x4E, 1][..], &popped, &[0, 0, 0, 1, 0x26, 1, 9]].concat();
    let user = [
        &[2, 0, 0, 1, 0, 1, 2, 0, 0, 1, 0xB2][..],
        b"GA94\x03\xC4\xFF\xFC\x94\x20\xFD\x80\x80\xFA\x00\x00\xF8\x12\x34\xFF",
        &[0, 0, 1, 1, 5],
    ]
    .concat();
    let fields = [&[4][..], &h264[1..]].concat();
    vec![h264, h265, user, fields]
}

pub(crate) fn adts() -> Vec<Vec<u8>> {
    vec![
        unhex("fff14c80021ffc210049900219002380"),
        unhex("fff94c8002bffd0000210049900219002380"),
        vec![0x11, 0x90],
        vec![0xFF, 0xEC, 0, 1, 2, 3],
    ]
}

/// One pixel, and four of a palette.
pub(crate) fn logos() -> Vec<Vec<u8>> {
    vec![unhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082",
    )]
}

// ── sessions ────────────────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) fn timelines() -> Vec<Vec<u8>> {
    let on_air = |kind: u8, mode: u8, flags: u8, gop: u8, ops: &[u8]| {
        [&[kind, mode, flags, gop, 0, 3, 0, 7, 90][..], ops].concat()
    };
    vec![
        on_air(0, 0, 0, 49, &[7, 60, 7, 60]),
        on_air(1, 0, 0, 49, &[7, 60, 7, 60]),
        on_air(2, 0, 0, 49, &[7, 60, 7, 60]),
        on_air(1, 2, 0x80, 24, &[7, 120, 7, 120]),
        // Away for a while, then back where it was, or elsewhere.
        on_air(0, 0, 0, 49, &[3, 0xB8, 0x0B, 6, 200, 7, 60, 2, 0, 0, 0, 0x10, 7, 60]),
        on_air(1, 0, 0, 49, &[3, 0xB8, 0x0B, 6, 200, 7, 60, 2, 0, 0, 0, 0x10, 7, 90]),
        on_air(2, 1, 0, 49, &[1, 3, 0xB8, 0x0B, 6, 200, 0, 3, 0, 7, 60]),
        // Two legs, pictures or sound that stop alone, markers, other headers.
        on_air(0, 0, 0x10, 24, &[0x80, 3, 0, 0x87, 30, 7, 20, 1, 0x87, 60]),
        on_air(1, 0, 0, 24, &[0x17, 60, 0x27, 60, 7, 60]),
        on_air(0, 0, 0, 24, &[4, 0, 0, 9, 0, 1, 1, 4, 0, 0, 0, 1, 0, 0, 5, 0, 4, 7, 40]),
        on_air(1, 0, 0, 24, &[10, 4, 7, 60, 10, 0x08, 7, 60]),
        [&[1, 0, 0, 24, 0, 0x83, 0][..], &[7, 120, 7, 120, 3, 0xB8, 0x0B, 6, 90]].concat(),
        on_air(1, 0, 0, 24, &[8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 9, 0, 0, 0x10, 0, 0, 12, 0, 0xFF, 0xFF, 7, 60]),
    ]
}

pub(crate) fn sessions() -> Vec<Vec<u8>> {
    let long = |ops: &[u8]| [&[1, 0, 0, 49, 0, 3, 0, 7, 150][..], ops, &[7, 150]].concat();
    let mut all: Vec<Vec<u8>> = timelines().into_iter().filter(|script| script[0] % 3 == 1).collect();
    all.extend([
        long(&[]),
        long(&[3, 0xE8, 0x03, 7, 100]),
        long(&[2, 0, 0, 0, 0x10, 7, 100]),
        long(&[0x17, 40, 7, 80, 0x27, 60]),
    ]);
    all
}

pub(crate) fn packagers() -> Vec<Vec<u8>> {
    vec![
        vec![0, 0, 0, 120, 0, 90],
        vec![0, 1, 1, 0, 9, 0, 60, 1, 1, 20, 0, 60],
        vec![0, 2, 2, 30, 0, 90, 2, 110, 0, 120],
        vec![0, 0, 4, 0, 70, 4, 0, 60],
        vec![0, 0, 7, 0, 70, 7, 0, 60, 3, 0xF0, 0, 120],
        vec![0, 0, 5, 1, 9, 1, 50, 6, 40, 0, 90, 5, 2, 0, 0, 0, 60, 5, 2, 0, 1, 9],
        vec![2, 0, 0, 200, 8, 1, 3, 4, 2, 1, 1, 1, 9, 0, 99],
        vec![3, 0, 0, 250, 4, 0, 250],
    ]
}

pub(crate) fn segmenters() -> Vec<Vec<u8>> {
    let steady = |mode: u8, cut: u8, ends: &[u8]| {
        let mut out = vec![mode, cut];
        for n in 0..60u8 {
            out.extend_from_slice(&[
                0,
                u8::from(n % 10 == 0 && n > 0),
                n / 2 % 5,
                ends[usize::from(n) % ends.len()] | 4,
                n,
                25,
            ]);
        }
        out
    };
    let odd = |mode: u8, cut: u8| {
        [
            &steady(mode, cut, &[0, 2])[..200],
            &[2, 3, 4, 5, 3, 6, 1, 7, 4, 0, 8, 1, 2, 0, 0, 9, 1, 0, 0x3F, 0, 0, 5, 9, 200, 10, 0xFF, 0],
        ]
        .concat()
    };
    vec![steady(0, 0, &[0, 2]), steady(1, 1, &[0, 2, 0, 3]), steady(2, 2, &[0, 0, 3]), odd(0, 0), odd(1, 2), odd(2, 1)]
}

// ── players ─────────────────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) fn conversations() -> Vec<Vec<u8>> {
    vec![recording(LatencyMode::Ultra, 70), recording(LatencyMode::Low, 160), vec![0, 5, 0, 0, 6, 0, 0, 0x18, 0, 0]]
}

pub(crate) fn boxes() -> Vec<Vec<u8>> {
    use rung::media::sample::Sample;
    use rung::package::fmp4::fragment::fragment;
    let sample = |dts, duration, cto, sync| {
        let data = Bytes::from_static(&[0, 0, 0, 2, 0x65, 1]);
        Sample { dts, duration, cto, sync, data, stamps: Stamps::default() }
    };
    let plain = fragment(7, &[sample(0, 10, 0, true), sample(10, 10, 0, true)]).to_vec();
    let full = fragment(8, &[sample(20, 10, 5, true), sample(30, 20, -5, false)]).to_vec();
    let inits = crate::targets::init_sections();
    inits.into_iter().chain([plain.clone(), full.clone(), [plain, full].concat()]).collect()
}

pub(crate) fn playlists() -> Vec<Vec<u8>> {
    let goldens = [
        include_str!("../../golden/package-ultra-video.txt"),
        include_str!("../../golden/package-ultra-delta.txt"),
        include_str!("../../golden/package-ultra-gap.txt"),
        include_str!("../../golden/package-normal.txt"),
        include_str!("../../golden/package-multivariant.txt"),
    ];
    let dates = "#EXTM3U\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3,RECENTLY-REMOVED-DATERANGES=\"a\tb\"\n#EXT-X-DATERANGE:ID=\"x\",START-DATE=\"2026-01-01T00:00:00.5Z\",DURATION=2.5\n#EXT-X-DATERANGE:ID=\"x\",START-DATE=\"2026-01-01T00:00:00.5Z\",END-ON-NEXT=YES\n#EXTINF:2,\ns\n";
    let shortened = |text: &str| text.bytes().take(1_800).collect::<Vec<u8>>();
    goldens
        .iter()
        .map(|text| shortened(text))
        .chain(texts(&[dates, "2026-11-20T12:00:00.000Z\n-1-02-03T04:05:06Z"]))
        .collect()
}

pub(crate) fn http_targets() -> Vec<Vec<u8>> {
    texts(&[
        "/live/news/index.m3u8",
        "/t/AQAAAA/live/news/720p.m3u8?_HLS_msn=1795176000&_HLS_part=3&_HLS_skip=v2",
        "/live/news/se_01ARZ3NDEKTSV4RRFFQ69G5FAV/720p/p1795176000.3.m4s",
        "/live/news/se_01ARZ3NDEKTSV4RRFFQ69G5FAV/720p/init-0.mp4",
        "/live/news/720p.iframes.m3u8?x=1&_HLS_msn=18446744073709551616",
        "/live/news/se_1/storyboard-3-0123456789abcdef.jpg",
        "/live/news/se_1/storyboard.vtt",
        "/live/news/poster.jpg?t=abc",
        "/live/news/steering.json?_HLS_part=4",
    ])
}

pub(crate) fn http_heads() -> Vec<Vec<u8>> {
    texts(&[
        "\u{9}\u{7}\u{3}range: bytes=3-12\nif-range: \"s18\"\naccept-encoding: gzip, identity;q=0.5",
        "\u{9}\u{7}\u{3}range: bytes=-4\nif-none-match: W/\"s18\", \"x\"",
        "\u{1}\u{0}\u{40}range: bytes=60-\naccept-encoding: *;q=0.1, gzip;q=0",
        "\u{9}\u{9}\u{9}range: bytes=0-0,5-6\nif-none-match: *",
    ])
}

// ── text ────────────────────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) fn stream_ids() -> Vec<Vec<u8>> {
    texts(&[
        "#!::r=news,k=abcdefghijklmnopqrstuvwxyz,m=publish",
        "#!::m=publish,leg=b,r=news,k=secret,u=me",
        "news/secretkey",
        "news/secretkey/b",
        "#!::r=a,m=request",
        "",
    ])
}

pub(crate) fn srt_urls() -> Vec<Vec<u8>> {
    texts(&[
        "srt://example.com:9000?streamid=#!::r=news,k=abc,m=publish&latency=200",
        "srt://[2001:db8::1]:9000/?streamid=news%2Fabc&passphrase=0123456789&pbkeylen=32",
        "srt://h:1?mode=caller&transtype=live&pkt_size=1316&streamid=n{n}%zz%",
    ])
}

pub(crate) fn names() -> Vec<Vec<u8>> {
    texts(&[
        "news-1\nch_01ARZ3NDEKTSV4RRFFQ69G5FAV\npb_01ARZ3NDEKTSV4RRFFQ69G5FAV\nev_01arz3ndektsv4rrffq69g5fav\ntk_81ARZ3NDEKTSV4RRFFQ69G5FAV",
        "2026-05-01T18:30:00.123456Z\n2026-05-01T18:30:00+01:00\n1677-09-21T00:12:44Z\n2262-04-11T23:47:16.854Z",
        "60606060606060606060606060606060606060606060606060606060606060aF\nrk_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
        "abcdefghijklmnopqrstuvwxyz\nViewer_1-x",
    ])
}

pub(crate) fn tokens() -> Vec<Vec<u8>> {
    let header = br#"{"alg":"HS256","kid":"pk_00J8000000000000000000938NF0"}"#;
    let playback = Ulid(0x0192_0000_0000_0000_0000_0000_0000_0007);
    let payload = format!(
        r#"{{"sub":"pb_{playback}","exp":1800000600,"nbf":1799999990.5,"sid":"viewer-1","ip":"192.0.2.9","max_res":720}}"#
    );
    let parts = |header: &[u8], payload: &[u8]| {
        let mut out = Vec::new();
        piece(header, &mut out);
        out.extend_from_slice(payload);
        out
    };
    let plain = format!(r#"{{"sub":"pb_{playback}","exp":1.9e9}}"#);
    vec![
        parts(header, payload.as_bytes()),
        parts(br#"{"alg":"HS256"}"#, plain.as_bytes()),
        parts(br#"{"alg":"none","crit":["x"]}"#, payload.as_bytes()),
        signed_token(br#"{"alg":"HS256"}"#, plain.as_bytes()).into_bytes(),
    ]
}

pub(crate) fn passes() -> Vec<Vec<u8>> {
    let script = |flags: u8, viewer: &str, expires: u32, rows: u16| {
        let mut out = vec![flags];
        piece(viewer.as_bytes(), &mut out);
        out.extend_from_slice(&expires.to_le_bytes());
        out.extend_from_slice(&rows.to_le_bytes());
        out
    };
    vec![
        script(0, "", 1_900_000_000, 0),
        script(3, "viewer-1", 1_900_000_000, 720),
        script(1, "x", 5, 1_080),
        crate::targets::sealed_pass().into_bytes(),
    ]
}

pub(crate) fn public_keys() -> Vec<Vec<u8>> {
    texts(&[
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n",
        "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    ])
}

// ── control ─────────────────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) fn configurations() -> Vec<Vec<u8>> {
    let full = "[srt]\nlisten = \"[::]:9000\"\n[http]\nlisten = \"0.0.0.0:8080\"\nconnections_per_address = 100\ntrusted = [\"10.0.0.0/8\", \"::1\"]\n[worker]\nbackend = \"software\"\ngpu_patience_ms = 500\n[log]\nformat = \"json\"\nlevel = \"info\"\n";
    let channel = "[[bootstrap.channel]]\nname = \"news\"\nkind = \"hybrid\"\nmode = \"ultra\"\nhold_back = 1.5\nladder = [{ name = \"720p\", height = 720, bitrate = 2800000, codec = \"hevc\" }]\nkey_sha256 = \"6060606060606060606060606060606060606060606060606060606060606060\"\ncrop = { left = 2, top = 140 }\ncaptions = [{ instream_id = \"CC1\", language = \"eng\" }]\nsteering = { ttl_s = 300, pathways = [{ id = \"a\", base = \"https://a.example.com\" }] }\nlogo_place = { corner = \"top-left\", width = 10 }\n";
    let https = "[https]\nlisten = \"0.0.0.0:8443\"\n[[https.certificate]]\nchain = \"a.pem\"\nkey = \"a.key\"\n[state]\nfolder = \"data\"\n";
    texts(&[full, channel, https, "[srt]\nlistn = \"x\"\n", "http.listen = 8080\n"])
}

pub(crate) fn channels() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"name":"news"}"#,
        r#"{"name":"news","kind":"hybrid","mode":"ultra","hold_back_ms":1500,"ladder":[{"name":"720p","height":720,"bitrate":2800000,"codec":"h264"},{"name":"360p","height":360,"bitrate":800000}],"preset":"fast","backend":null}"#,
        r#"{"name":"known","window_s":120,"start_offset_s":-30,"captions":[{"instream_id":"CC1","language":"eng","name":"English"},{"instream_id":"SERVICE2"}],"audio_only":false}"#,
        r#"{"name":"known","crop":{"left":2,"bottom":140},"logo":{"corner":"top-right","width":10.5,"opacity":0.5},"steering":{"pathways":[{"id":"a","base":"https://a.example.com"},{"id":"b","base":""}],"ttl_s":300}}"#,
        r#"{"takeover":"newest","activation":"manual","reconnect_window_s":1800,"on_max_duration":"rollover","max_duration_s":0,"end_on_eos":true,"legs":"single","playback_policy":"signed","slate":"black"}"#,
        r#"{"naem":"x","id":"ch_1","inputs":[],"mode":7}"#,
    ])
}

pub(crate) fn records() -> Vec<Vec<u8>> {
    let at = Utc::from(Wall(1_795_176_000_000_000_000));
    let config = ChannelConfig::new(ChannelName::new("news").expect("a name"));
    let keys = vec![StreamKey::of("abcdefghijklmnopqrstuvwxyz", at)];
    let channel = ChannelRecord::new(ChannelId(Ulid(1)), config, PlaybackId(Ulid(2)), keys, at);
    let grid = Grid { cadence: Cadence::for_rate(25.0, LatencyMode::Ultra), msn0: 1_795_176_000 };
    let anchor = Anchor { run: 1, term: 0, pts0: 900_000, dts0: 896_400, n0: 50 };
    let line = PdtLine { from_n: 0, wall: Wall(5), ppm: -3 };
    let profile = SourceProfile { rate: grid.cadence.rate, gop: SourceGop::Regular(50), captions: Default::default() };
    let event = r#"{"seq":4,"id":"ev_01ARZ3NDEKTSV4RRFFQ69G5FAV","channel_seq":2,"at":"2026-05-01T18:30:00Z","channel":"ch_01ARZ3NDEKTSV4RRFFQ69G5FAV","session":null,"type":"channel.started","data":{}}"#;
    let session = r#"{"id":"se_01ARZ3NDEKTSV4RRFFQ69G5FAV","channel":"ch_01ARZ3NDEKTSV4RRFFQ69G5FAV","state":"live","input":"active","profile":{},"created_at":"2026-05-01T18:30:00Z","processing_at":null,"live_at":null,"ended_at":null,"ended_reason":null,"error":null,"deadline":null,"probing_since":null,"last_media_at":null,"input_lost_at":null,"window_deadline":null}"#;
    let token = r#"{"id":"tk_01ARZ3NDEKTSV4RRFFQ69G5FAV","name":"x","prefix":"rk_a","hash":"6060606060606060606060606060606060606060606060606060606060606060","scopes":["channels:read"],"networks":["10.0.0.0/8"],"created_at":"2026-05-01T18:30:00Z","expires_at":null,"last_used_at":null}"#;
    let key = r#"{"id":"pk_01ARZ3NDEKTSV4RRFFQ69G5FAV","name":"x","algorithm":"EdDSA","material":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","created_at":"2026-05-01T18:30:00Z"}"#;
    let cue = format!(r#"{{"seq":1,"n":7,"next":3,"due":7,"pid":500,"section":"{}"}}"#, CUES[0]);
    let written = [
        serde_json::to_vec(&channel),
        serde_json::to_vec(&grid),
        serde_json::to_vec(&anchor),
        serde_json::to_vec(&line),
        serde_json::to_vec(&profile),
    ];
    let written = written.into_iter().map(|text| text.expect("a record has a JSON form"));
    written.chain(texts(&[event, session, token, key, &cue, r#"{"png":"iVBORw=="}"#])).collect()
}

pub(crate) fn requests() -> Vec<Vec<u8>> {
    texts(&[
        "/v1/channels?limit=2",
        "/v1/channels/a\nIf-None-Match: \"1\"",
        "/v1/channels/b-2/sessions?limit=1&cursor=00000000000000000000000000000000",
        "/v1/sessions?state=live&channel=a",
        "/v1/events?types=channel.created&limit=200&channel=a",
        "/v1/openapi.json\nAccept-Encoding: gzip",
        "/v1/system",
        "/v1/tokens?limit=0",
        "/v1/channels/a/stats?metric=ccu\nPrefer: wait=1",
    ])
}

// ── workers ─────────────────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let (mut to, mut from) = (vec![1], vec![0]);
    let unit = Unit {
        pid: 256,
        at: 5,
        prime: false,
        hidden: true,
        random_access: true,
        damaged: false,
        stamps: Stamps::default(),
        data: Bytes::from_static(b"a unit"),
    };
    let open = Open { video: None, audio: Vec::new(), unpaced: true };
    for message in [
        ToWorker::Hello { version: protocol::VERSION },
        ToWorker::Open { ch: 1, open: Box::new(open) },
        ToWorker::Unit { ch: 1, unit },
        ToWorker::Fill { ch: 1, to: 100, with: Fill::Slate },
        ToWorker::Close { ch: 1 },
    ] {
        protocol::encode(&message, &mut to);
    }
    for message in [
        FromWorker::Hello { version: protocol::VERSION, pid: 7 },
        FromWorker::Gpus(Err("there is no driver".to_owned())),
        FromWorker::Progress { ch: 1, progress: Progress::default() },
        FromWorker::Failed { ch: 1, what: "why".to_owned(), lost: protocol::Lost::Process },
    ] {
        protocol::encode(&message, &mut from);
    }
    let mut monitor = vec![2];
    protocol::encode(&rung::pixels::health::FromMonitor::Upgraded { what: "why".to_owned() }, &mut monitor);
    vec![to, from, monitor, vec![4, 0xFF, 0xFF, 0xFF, 0x7F]]
}

pub(crate) fn control_packets() -> Vec<Vec<u8>> {
    let hello = FromShared::Hello { version: protocol::VERSION, pid: 3, sandbox: "landlock".to_owned() };
    vec![
        protocol::packet(&hello),
        protocol::packet(&FromShared::Left { seat: 9 }),
        protocol::packet(&Join { seat: 300 }),
    ]
}

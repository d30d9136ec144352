//! The transport stream format: packets, sections, PES headers, cues, clocks.

use rung::media::captions::CAPTION_SERVICES_MAX;
use rung::media::limits::TRACKS_MAX;
use rung::media::marker::{Cue, KeptCue, PlacedCue};
use rung::mpegts::packet::{Header, PACKET_BYTES};
use rung::mpegts::pcr::{PcrLine, Step};
use rung::mpegts::pes::{self, HEADER_BYTES_MAX, Parsed};
use rung::mpegts::psi::{self, Pmt, SECTION_BYTES_MAX, Section, Sections};
use rung::mpegts::scte35::{Bad, SpliceInfo, TABLE, When};
use rung::mpegts::{PIDS, Packet};
use rung::time::{Mono, Unwrapper};

use crate::script::Script;
use crate::seeds;
use crate::{Target, targets::hex};

pub(super) const TARGETS: &[Target] = &[
    Target::new("ts_packet", packet, seeds::packets).block(PACKET_BYTES),
    Target::new("psi", sections, seeds::sections).words(&[b"CUEI", b"HEVC", b"\x0a\x04eng\x00", b"\x86\x07\xc1eng"]),
    Target::new("pes", pes_header, seeds::pes_headers).words(&[&[0, 0, 1, 0xE0], &[0x80, 0xC0, 10], &[0, 0, 1, 0xC0]]),
    Target::new("scte35", cue, seeds::cues).words(&[b"CUEI", &[0xFC, 0x30], &[0x0F, 0xFF]]),
    Target::new("clocks", clocks, seeds::clocks),
];

fn packet(input: &[u8]) {
    for bytes in input.as_chunks::<PACKET_BYTES>().0 {
        let Some(packet) = Packet::parse(bytes) else {
            let reserved = bytes[3] & 0x30 == 0;
            assert!(
                bytes[0] != 0x47 || reserved || (bytes[3] & 0x20 != 0 && bytes[4] > 183),
                "a good packet is refused"
            );
            continue;
        };
        assert!(usize::from(packet.pid) < PIDS && packet.continuity < 16);
        assert!(packet.has_payload || packet.payload.is_empty());
        assert!(packet.payload.is_empty() || bytes.ends_with(packet.payload));
        assert!(packet.pcr.is_none_or(|pcr| pcr < (1 << 33) * 300), "{packet:?}");
        let Packet { pid, unit_start, continuity, discontinuity, pcr, .. } = packet;
        let header = Header { pid, unit_start, continuity, discontinuity, random_access: false, pcr };
        let mut written = Vec::new();
        let taken = header.write(packet.payload, &mut written);
        let written: [u8; PACKET_BYTES] = written.try_into().expect("a packet is written whole");
        let again = Packet::parse(&written).expect("a packet of our own");
        assert_eq!((again.pid, again.unit_start, again.continuity), (pid, unit_start, continuity));
        assert_eq!((again.discontinuity, again.pcr), (discontinuity, pcr));
        assert_eq!(again.payload, &packet.payload[..taken]);
    }
}

/// Packets of one PID: a byte of flags, one of length, the payload. Then the same bytes sealed as sections of their own.
fn sections(input: &[u8]) {
    let (mut script, mut sections) = (Script::new(input), Sections::default());
    while !script.is_over() {
        let (flags, length) = (script.byte(), script.byte());
        if flags & 2 != 0 {
            sections.gap();
        }
        let payload = script.take(usize::from(length).min(184));
        let mut given = 0;
        sections.push(payload, flags & 1 == 1, |bytes| {
            assert!(bytes.len() <= SECTION_BYTES_MAX + 2, "{} bytes", bytes.len());
            assert_eq!(bytes.len(), 3 + usize::from(u16::from_be_bytes([bytes[1] & 15, bytes[2]])));
            assert_ne!(bytes[0], 0xFF, "stuffing is no section");
            given += bytes.len();
            if let Ok(section) = Section::parse(bytes) {
                table(&section);
            }
        });
        assert!(given <= SECTION_BYTES_MAX + 2 + payload.len(), "a packet gives out what it completes");
    }
    let mut script = Script::new(input);
    let (id, extension, version) = (script.byte(), script.u16(), script.byte() & 31);
    let body = &script.rest()[..script.rest().len().min(4_000)];
    let sealed = psi::write_section(id, extension, version, body);
    let section = Section::parse(&sealed).expect("a section of our own");
    assert_eq!((section.table, section.extension, section.version), (id, extension, version));
    assert_eq!((section.body, section.current, psi::crc32(&sealed)), (body, true, 0));
    table(&section);
}

fn table(section: &Section<'_>) {
    for (number, pid) in psi::pat_programs(section.body) {
        assert!(number > 0 && usize::from(pid) < PIDS);
    }
    let Some(pmt) = Pmt::parse(section.body) else { return };
    assert!(pmt.tracks.len() <= TRACKS_MAX && usize::from(pmt.pcr_pid) < PIDS);
    for track in &pmt.tracks {
        assert!(usize::from(track.pid) < PIDS);
        let code = |code: &Option<String>| {
            code.as_ref().is_none_or(|code| code.len() == 3 && code.bytes().all(|b| b.is_ascii_lowercase()))
        };
        assert!(code(&track.language) && track.captions.iter().all(|service| code(&service.language)), "{track:?}");
        assert!(track.captions.len() <= CAPTION_SERVICES_MAX);
        assert!(track.captions.is_empty() || track.codec.is_video(), "{track:?}");
    }
}

/// What a beginning of a header says, all of it says.
fn pes_header(input: &[u8]) {
    let whole = pes::parse(input);
    for length in 0..=input.len().min(HEADER_BYTES_MAX + 1) {
        match pes::parse(&input[..length]) {
            Parsed::More => assert!(length < HEADER_BYTES_MAX, "a header that does not end"),
            said => assert_eq!(said, whole, "{length} bytes"),
        }
    }
    let Parsed::Header(header, start) = whole else { return };
    assert!(start <= HEADER_BYTES_MAX && start <= input.len());
    let times = [header.pts, header.dts];
    assert!(times.iter().flatten().all(|time| *time < 1 << 33), "{header:?}");
    let Some(pts) = header.pts else { return };
    let (dts, mut written) = (header.dts.unwrap_or(pts), Vec::new());
    pes::write(header.stream_id, pts, dts, header.payload, &mut written);
    let Parsed::Header(again, _) = pes::parse(&written) else { panic!("a header of our own: {written:?}") };
    assert_eq!((again.stream_id, again.pts, again.dts), (header.stream_id, Some(pts), Some(dts).filter(|d| *d != pts)));
    assert!(again.payload == header.payload || header.payload.is_some_and(|n| n > 65_000), "{header:?}, {again:?}");
}

fn cue(input: &[u8]) {
    if let Ok(info) = SpliceInfo::parse(input) {
        splice(&info, input);
    }
    // With its length and its CRC set right, so that what is behind them is reached.
    let mut sealed = input[..input.len().min(4_000)].to_vec();
    if sealed.len() < 7 {
        return;
    }
    let length = u16::try_from(sealed.len() - 3).expect("at most 4,000").to_be_bytes();
    (sealed[0], sealed[1], sealed[2], sealed[3]) = (TABLE, 0x30 | length[0], length[1], 0);
    let body = sealed.len() - 4;
    let crc = psi::crc32(&sealed[..body]).to_be_bytes();
    sealed[body..].copy_from_slice(&crc);
    match SpliceInfo::parse(&sealed) {
        Ok(info) => splice(&info, &sealed),
        Err(why) => assert_ne!(why, Bad::Crc, "the CRC is right"),
    }
}

fn splice(info: &SpliceInfo, section: &[u8]) {
    assert!(info.segmentations.len() <= 32);
    assert!(info.at().is_none_or(|at| !matches!(at, When::At(raw) if raw >= 1 << 33)));
    for segment in info.segmentations.iter().filter_map(|one| one.segment) {
        assert!(!segment.is_break() || segment.about() != "other", "{segment:?} {:?}", segment.edge());
        assert!(segment.duration.is_none_or(|ticks| ticks < 1 << 40));
    }
    // As the log of a session keeps it.
    let cue = Cue { pid: 500, pts: None, received: Mono(0), info: info.clone(), section: section.to_vec().into() };
    let placed = PlacedCue { n: 7, next: 3, due: Some(7), cue };
    let kept = KeptCue::of(1, &placed);
    assert_eq!(kept.section, hex(section));
    assert_eq!(kept.placed().expect("what was read once"), placed);
}

/// Clock references and time stamps that come as they like.
fn clocks(input: &[u8]) {
    const WRAP: i64 = (1 << 33) * 300;
    let (mut script, mut line, mut stamps) = (Script::new(input), PcrLine::default(), Unwrapper::default());
    let (mut now, mut before, mut stamp_before) = (Mono(0), None::<i64>, None::<i64>);
    while !script.is_over() {
        let (raw, flags) = (script.u64() % WRAP.cast_unsigned(), script.byte());
        now = Mono(now.0 + u64::from(script.u32()) * 1_000);
        let (reading, step) = line.take(raw, now, flags & 1 == 1, None);
        assert_eq!(reading.pcr.rem_euclid(WRAP).cast_unsigned(), raw);
        let delta = reading.pcr - before.unwrap_or(reading.pcr);
        assert!(delta.abs() <= WRAP / 2);
        match step {
            Step::First => assert!(before.is_none()),
            Step::Forward(ticks) => assert!(ticks > 0 && ticks == delta),
            Step::Announced(ticks) => assert!(flags & 1 == 1 && ticks == delta),
            Step::Jump(ticks) => assert_eq!(ticks, delta),
        }
        before = Some(reading.pcr);
        let raw = raw & ((1 << 33) - 1);
        let time = stamps.unwrap(raw);
        assert_eq!(time.rem_euclid(1 << 33).cast_unsigned(), raw);
        assert!(stamp_before.is_none_or(|before| (time - before).abs() <= 1 << 32));
        assert_eq!(stamps.peek(raw), time);
        stamp_before = Some(time);
    }
    assert!(line.last().map(|reading| reading.pcr) == before);
}

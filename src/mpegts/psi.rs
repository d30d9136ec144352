//! Program specific information: sections, PAT, PMT [TS 2.4.4].

use crate::media::captions::{CAPTION_SERVICES_MAX, CaptionService, InstreamId};
use crate::media::limits::TRACKS_MAX;
use crate::media::track::{AudioRole, Codec, Pid, Track};

/// Longest section: 12 bits of length and what precedes them.
pub const SECTION_BYTES_MAX: usize = 4_096;
pub const TABLE_PAT: u8 = 0;
pub const TABLE_PMT: u8 = 2;

/// CRC-32/MPEG-2 [TS Annex A]; over a whole section with its CRC it is zero.
pub fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| crc << 8 ^ CRC_TABLE[usize::from((crc >> 24) as u8 ^ byte)])
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = (n as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000_0000 != 0 { crc << 1 ^ 0x04C1_1DB7 } else { crc << 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// Puts the sections of one PID together.
#[derive(Clone, Debug, Default)]
pub struct Sections {
    buffer: Vec<u8>,
    /// A section's start was seen and its bytes are being collected.
    open: bool,
}

impl Sections {
    /// Bytes were lost: the section in progress is of no use.
    pub fn gap(&mut self) {
        self.open = false;
        self.buffer.clear();
    }

    /// Takes a packet's payload; calls `whole` with each section that it completes. CRC is not checked here.
    pub fn push(&mut self, payload: &[u8], unit_start: bool, mut whole: impl FnMut(&[u8])) {
        if !unit_start {
            if self.open {
                self.buffer.extend_from_slice(payload);
                self.drain(&mut whole);
            }
            return;
        }
        let Some((&pointer, rest)) = payload.split_first() else { return };
        let (tail, next) = rest.split_at(usize::from(pointer).min(rest.len()));
        if self.open {
            self.buffer.extend_from_slice(tail);
            self.drain(&mut whole);
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(next);
        self.open = true;
        self.drain(&mut whole);
    }

    fn drain(&mut self, whole: &mut impl FnMut(&[u8])) {
        let mut start = 0;
        // 0xFF where a table id would be: stuffing to the end of the packet.
        while let Some(&[table, b1, b2]) = self.buffer[start..].first_chunk::<3>() {
            if table == 0xFF {
                self.open = false;
                break;
            }
            let length = 3 + usize::from(u16::from_be_bytes([b1 & 15, b2]));
            let Some(section) = self.buffer[start..].get(..length) else { break };
            whole(section);
            start += length;
        }
        self.buffer.drain(..start);
        if self.buffer.first() == Some(&0xFF) || !self.open {
            self.gap();
        }
    }
}

/// The header that long sections share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    pub table: u8,
    /// transport_stream_id of a PAT, program_number of a PMT.
    pub extension: u16,
    pub version: u8,
    pub current: bool,
    pub number: u8,
    pub crc: u32,
    pub body: &'a [u8],
}

impl<'a> Section<'a> {
    /// A section with a valid CRC.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(bytes: &'a [u8]) -> Result<Section<'a>, &'static str> {
        let (&[table, b1, _, e1, e2, v, number, _], _) =
            bytes.split_first_chunk::<8>().ok_or("a section shorter than its header")?;
        if b1 & 0x80 == 0 {
            return Err("section_syntax_indicator is not set");
        }
        let (body, crc) = bytes[8..].split_last_chunk::<4>().ok_or("a section shorter than its header")?;
        if crc32(bytes) != 0 {
            return Err("its CRC does not match");
        }
        Ok(Section {
            table,
            extension: u16::from_be_bytes([e1, e2]),
            version: v >> 1 & 31,
            current: v & 1 == 1,
            number,
            crc: u32::from_be_bytes(*crc),
            body,
        })
    }
}

/// (program number, PMT PID) of a PAT section's body; the network PID (program 0) is left out.
pub fn pat_programs(body: &[u8]) -> impl Iterator<Item = (u16, Pid)> + '_ {
    body.chunks_exact(4)
        .map(|b| (u16::from_be_bytes([b[0], b[1]]), u16::from_be_bytes([b[2] & 0x1F, b[3]])))
        .filter(|(number, _)| *number != 0)
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pmt {
    pub pcr_pid: Pid,
    /// The first `TRACKS_MAX`.
    pub tracks: Vec<Track>,
}

impl Pmt {
    /// From a PMT section's body; `None` if its loops do not fit.
    pub fn parse(body: &[u8]) -> Option<Pmt> {
        let (&[p1, p2, l1, l2], rest) = body.split_first_chunk::<4>()?;
        let (program_info, mut rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l1 & 15, l2])))?;
        let cues = registration(program_info) == Some(*b"CUEI");
        let mut pmt = Pmt { pcr_pid: u16::from_be_bytes([p1 & 0x1F, p2]), tracks: Vec::new() };
        while let Some((&[stream_type, p1, p2, l1, l2], after)) = rest.split_first_chunk::<5>() {
            let (info, after) = after.split_at_checked(usize::from(u16::from_be_bytes([l1 & 15, l2])))?;
            rest = after;
            if pmt.tracks.len() < TRACKS_MAX {
                let codec = codec(stream_type, info, cues);
                // Some multiplexers describe the captions of the only picture beside the program.
                let captions = captions(info).or_else(|| captions(program_info)).filter(|_| codec.is_video());
                pmt.tracks.push(Track {
                    pid: u16::from_be_bytes([p1 & 0x1F, p2]),
                    codec,
                    language: language(info),
                    role: role(info),
                    captions: captions.unwrap_or_default(),
                });
            }
        }
        Some(pmt)
    }
}

/// (tag, content) of a descriptor loop [TS 2.6.1].
fn descriptors(mut info: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[tag, length], rest) = info.split_first_chunk::<2>()?;
        let (content, rest) = rest.split_at_checked(usize::from(length))?;
        info = rest;
        Some((tag, content))
    })
}

fn registration(info: &[u8]) -> Option<[u8; 4]> {
    descriptors(info).find(|(tag, _)| *tag == 0x05).and_then(|(_, content)| content.first_chunk().copied())
}

/// metadata_format_identifier of a metadata_descriptor [TS 2.6.60].
fn timed_format(info: &[u8]) -> Option<[u8; 4]> {
    let (_, content) = descriptors(info).find(|(tag, _)| *tag == 0x26)?;
    let (application, rest) = content.split_first_chunk::<2>()?;
    let rest = if *application == [0xFF; 2] { rest.get(4..)? } else { rest };
    match rest.split_first()? {
        (0xFF, rest) => rest.first_chunk().copied(),
        _ => None,
    }
}

fn language(info: &[u8]) -> Option<String> {
    let (_, content) = descriptors(info).find(|(tag, _)| *tag == 0x0A)?;
    language_code(content.first_chunk::<3>()?)
}

fn language_code(code: &[u8; 3]) -> Option<String> {
    let known = code.iter().all(u8::is_ascii_alphabetic) && !code.eq_ignore_ascii_case(b"und");
    known.then(|| code.iter().map(|b| char::from(b.to_ascii_lowercase())).collect())
}

/// audio_type of ISO_639_language_descriptor [TS 2.6.19], or what DVB says of a supplementary audio [EN 6.4.11].
fn role(info: &[u8]) -> AudioRole {
    let of = |(tag, content): (u8, &[u8])| match (tag, content) {
        (0x0A, [_, _, _, 2, ..]) => Some(AudioRole::ClearSpeech),
        (0x0A, [_, _, _, 3, ..]) => Some(AudioRole::Description),
        // extension_descriptor, then editorial_classification: 1 is audio description, 2 clean audio.
        (0x7F, [0x06, flags, ..]) => match flags >> 2 & 31 {
            1 => Some(AudioRole::Description),
            2 => Some(AudioRole::ClearSpeech),
            _ => None,
        },
        _ => None,
    };
    descriptors(info).find_map(of).unwrap_or_default()
}

/// caption_service_descriptor [ATSC 6.9.2]; `None`: there is none, or it names nothing that players know.
fn captions(info: &[u8]) -> Option<Vec<CaptionService>> {
    let (_, content) = descriptors(info).find(|(tag, _)| *tag == 0x86)?;
    let (count, entries) = content.split_first()?;
    let mut services: Vec<CaptionService> = Vec::new();
    for entry in entries.chunks_exact(6).take(usize::from(count & 31)) {
        let (Some(code), kind) = (entry.first_chunk::<3>(), entry[3]) else { continue };
        // digital_cc: a service of CEA 708, else the field of line 21.
        let id = match (kind & 0x80 != 0, kind & 63) {
            (true, 0) => continue,
            (true, n) => InstreamId::Service(n),
            (false, field) => InstreamId::Cc(1 + 2 * (field & 1)),
        };
        let fits = services.len() < CAPTION_SERVICES_MAX && services.iter().all(|s| s.instream_id != id);
        if fits {
            services.push(CaptionService { language: language_code(code), ..CaptionService::of(id) });
        }
    }
    (!services.is_empty()).then_some(services)
}

/// [TS table 2-34], registrations, and DVB's descriptors for private streams [EN 300 468 annexes D, H].
fn codec(stream_type: u8, info: &[u8], cues: bool) -> Codec {
    match stream_type {
        0x01 | 0x02 => Codec::Mpeg2Video,
        0x03 | 0x04 => Codec::MpegAudio,
        0x0F => Codec::Aac,
        0x11 => Codec::AacLatm,
        0x15 if timed_format(info).is_none_or(|format| format == *b"ID3 ") => Codec::Id3,
        0x1B => Codec::H264,
        0x24 => Codec::H265,
        0x81 => Codec::Ac3,
        0x87 => Codec::Eac3,
        0x86 if cues || registration(info).is_none_or(|format| format == *b"CUEI") => Codec::Scte35,
        _ => match registration(info) {
            Some([b'H', b'E', b'V', b'C']) => Codec::H265,
            Some([b'O', b'p', b'u', b's']) => Codec::Opus,
            Some([b'A', b'C', b'-', b'3']) => Codec::Ac3,
            Some([b'E', b'A', b'C', b'3']) => Codec::Eac3,
            Some([b'C', b'U', b'E', b'I']) => Codec::Scte35,
            _ => descriptors(info)
                .find_map(|(tag, _)| match tag {
                    0x6A => Some(Codec::Ac3),
                    0x7A => Some(Codec::Eac3),
                    _ => None,
                })
                .unwrap_or(Codec::Unknown(stream_type)),
        },
    }
}

/// A whole section around `body`, with length and CRC.
pub fn write_section(table: u8, extension: u16, version: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 9).expect("own tables are short");
    let [l1, l2] = (0xB000 | length).to_be_bytes();
    let [e1, e2] = extension.to_be_bytes();
    let mut section = vec![table, l1, l2, e1, e2, 0xC1 | version << 1 & 0x3E, 0, 0];
    section.extend_from_slice(body);
    section.extend_from_slice(&crc32(&section).to_be_bytes());
    section
}

/// The body of a PAT.
pub fn pat_body(programs: &[(u16, Pid)]) -> Vec<u8> {
    let entry = |(number, pid): &(u16, Pid)| {
        let ([n1, n2], [p1, p2]) = (number.to_be_bytes(), (0xE000 | pid).to_be_bytes());
        [n1, n2, p1, p2]
    };
    programs.iter().flat_map(entry).collect()
}

/// The body of a PMT; each stream as (stream_type, PID, descriptors).
pub fn pmt_body(pcr_pid: Pid, streams: &[(u8, Pid, &[u8])]) -> Vec<u8> {
    let [p1, p2] = (0xE000 | pcr_pid).to_be_bytes();
    let mut body = vec![p1, p2, 0xF0, 0];
    for (stream_type, pid, info) in streams {
        let [p1, p2] = (0xE000 | pid).to_be_bytes();
        let [l1, l2] = (0xF000 | u16::try_from(info.len()).expect("own descriptors are short")).to_be_bytes();
        body.extend_from_slice(&[*stream_type, p1, p2, l1, l2]);
        body.extend_from_slice(info);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_that_of_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0x0376_E6E7);
    }

    #[test]
    fn tables_written_read_back_however_the_section_is_cut() {
        let language: &[u8] = &[0x0A, 4, b'D', b'E', b'U', 0];
        let opus: &[u8] = &[0x05, 4, b'O', b'p', b'u', b's'];
        let streams: &[(u8, Pid, &[u8])] =
            &[(0x1B, 256, &[]), (0x0F, 257, language), (0x06, 258, opus), (0x86, 259, &[])];
        let section = write_section(TABLE_PMT, 7, 3, &pmt_body(256, streams));
        let mut stream = vec![3u8, 1, 2, 3];
        stream.extend_from_slice(&section);
        stream.extend_from_slice(&[0xFF; 40]);
        for cut in 5..stream.len() {
            let (mut sections, mut seen) = (Sections::default(), Vec::new());
            sections.push(&stream[..cut], true, |s| seen.push(s.to_vec()));
            sections.push(&stream[cut..], false, |s| seen.push(s.to_vec()));
            assert_eq!(seen, std::slice::from_ref(&section), "cut at {cut}");
        }
        let parsed = Section::parse(&section).expect("own section");
        let pmt = Pmt::parse(parsed.body).expect("own PMT");
        let codecs: Vec<Codec> = pmt.tracks.iter().map(|t| t.codec).collect();
        assert_eq!(codecs, [Codec::H264, Codec::Aac, Codec::Opus, Codec::Scte35]);
        assert_eq!(pmt.tracks[1].language.as_deref(), Some("deu"));
        assert_eq!((parsed.extension, parsed.version, pmt.pcr_pid), (7, 3, 256));
    }

    #[test]
    fn timed_metadata_is_id3_unless_its_descriptor_says_otherwise() {
        let id3: &[u8] = b"\x26\x0D\xFF\xFFID3 \xFFID3 \x00\x0F";
        let short: &[u8] = b"\x26\x08\x01\x00\xFFID3 \x00";
        let klv: &[u8] = b"\x26\x0D\xFF\xFFKLVA\xFFKLVA\x00\x0F";
        let streams: &[(u8, Pid, &[u8])] =
            &[(0x15, 256, id3), (0x15, 257, short), (0x15, 258, &[]), (0x15, 259, klv), (0x15, 260, &klv[..3])];
        let pmt = Pmt::parse(&pmt_body(256, streams)).expect("own PMT");
        let codecs: Vec<Codec> = pmt.tracks.iter().map(|t| t.codec).collect();
        assert_eq!(codecs, [Codec::Id3, Codec::Id3, Codec::Id3, Codec::Unknown(0x15), Codec::Id3]);
    }

    #[test]
    fn captions_and_the_purpose_of_audio_are_read_from_their_descriptors() {
        // SERVICE1 English, line 21 field 1 English, field 2 Spanish, SERVICE1 again, and one that is cut off.
        let services =
            [&b"eng\xC1\x3F\xFF"[..], b"eng\x7E\x3F\xFF", b"SPA\x7F\x3F\xFF", b"fra\xC1\x3F\xFF", b"de"].concat();
        let described = [&[0x86, u8::try_from(services.len() + 1).unwrap(), 0xE0 | 5][..], &services].concat();
        let audio = |kind: u8| [0x0A, 4, b'e', b'n', b'g', kind];
        let streams: &[(u8, Pid, &[u8])] = &[
            (0x1B, 256, &described),
            (0x0F, 257, &audio(0)),
            (0x0F, 258, &audio(3)),
            (0x0F, 259, &audio(2)),
            (0x0F, 260, &[0x7F, 2, 0x06, 0x80 | 1 << 2]),
            (0x1B, 261, &[0x86, 0]),
        ];
        let pmt = Pmt::parse(&pmt_body(256, streams)).expect("own PMT");
        let named: Vec<String> = pmt.tracks[0]
            .captions
            .iter()
            .map(|s| format!("{} {}", s.instream_id, s.language.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(named, ["SERVICE1 eng", "CC1 eng", "CC3 spa"]);
        let roles: Vec<AudioRole> = pmt.tracks[1..5].iter().map(|t| t.role).collect();
        use AudioRole::{ClearSpeech, Description, Main};
        assert_eq!(roles, [Main, Description, ClearSpeech, Description]);
        assert!(pmt.tracks[1..].iter().all(|track| track.captions.is_empty()));
    }

    #[test]
    fn two_sections_in_one_packet_are_both_found() {
        let one = write_section(TABLE_PAT, 1, 0, &pat_body(&[(1, 4096)]));
        let stream = [&[0][..], &one, &one, &[0xFF; 8]].concat();
        let (mut sections, mut seen) = (Sections::default(), 0);
        sections.push(&stream, true, |s| seen += usize::from(s == one));
        assert_eq!(seen, 2);
    }

    #[test]
    fn every_flipped_bit_fails_the_crc() {
        let section = write_section(TABLE_PAT, 1, 0, &pat_body(&[(1, 4096), (2, 4097)]));
        for bit in 8 * 8..section.len() * 8 {
            let mut bad = section.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Section::parse(&bad).is_err());
        }
    }
}

//! Splice information sections: what ANSI/SCTE 35 (2023) says of breaks, programs and chapters [TS 2.4.4 private sections].
//!
//! Clause numbers in this file are those of ANSI/SCTE 35. What cannot be read for sure is refused whole: a half-read cue
//! would put a break where none is.

use super::psi::crc32;

/// table_id of a splice_info_section (9.6).
pub const TABLE: u8 = 0xFC;
/// Descriptors of one section that are looked at.
const DESCRIPTORS_MAX: usize = 32;
/// "CUEI": whose splice descriptors these are (10.2).
const CUEI: &[u8; 4] = b"CUEI";
const SEGMENTATION: u8 = 0x02;
const BITS_33: u64 = (1 << 33) - 1;

/// Why a section is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Its CRC does not match.
    Crc,
    /// encrypted_packet is set: nobody here has the control word.
    Encrypted,
    /// The clause that does not hold.
    Syntax(&'static str),
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Bad::Crc => "its CRC does not match",
            Bad::Encrypted => "it is encrypted; send cues in the clear",
            Bad::Syntax(why) => why,
        })
    }
}

/// A splice_info_section (9.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpliceInfo {
    pub command: Command,
    /// Its segmentation_descriptors (10.3.3), in order.
    pub segmentations: Vec<Segmentation>,
}

/// When something is spliced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// As soon as it can be done.
    Now,
    /// At the picture of this raw 33-bit PTS; pts_adjustment is in it.
    At(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Null,
    Schedule,
    Insert(Insert),
    TimeSignal(When),
    BandwidthReservation,
    Private,
    Reserved(u8),
}

impl Command {
    /// A bounded name for metrics and dumps.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Null => "splice_null",
            Command::Schedule => "splice_schedule",
            Command::Insert(_) => "splice_insert",
            Command::TimeSignal(_) => "time_signal",
            Command::BandwidthReservation => "bandwidth_reservation",
            Command::Private => "private_command",
            Command::Reserved(_) => "reserved",
        }
    }
}

/// splice_insert (9.7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert {
    pub event: u32,
    /// `None`: the event is cancelled.
    pub splice: Option<Splice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splice {
    /// From the network into the break; else back.
    pub out_of_network: bool,
    pub at: When,
    pub duration: Option<BreakDuration>,
    pub unique_program_id: u16,
    pub avail: u8,
    pub avails_expected: u8,
}

/// break_duration (9.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakDuration {
    /// The break ends by itself after it.
    pub auto_return: bool,
    /// 90 kHz, 33 bits.
    pub ticks: u64,
}

/// segmentation_descriptor (10.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    pub event: u32,
    /// `None`: the event is cancelled.
    pub segment: Option<Segment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// segmentation_type_id (table 23).
    pub kind: u8,
    /// segmentation_duration, 90 kHz, 40 bits.
    pub duration: Option<u64>,
    pub number: u8,
    pub expected: u8,
}

/// What a segmentation_type_id does with its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    Start,
    End,
    /// It marks an instant.
    Point,
}

impl Segment {
    pub fn edge(&self) -> Edge {
        KINDS.iter().find(|k| k.0 == self.kind & !1).map_or_else(
            || POINTS.iter().find(|k| k.0 == self.kind).map_or(Edge::Point, |k| k.2),
            |_| if self.kind & 1 == 0 { Edge::Start } else { Edge::End },
        )
    }

    /// What it is about, in lower case with dashes: the same word for start and end.
    pub fn about(&self) -> &'static str {
        let pair = KINDS.iter().find(|k| k.0 == self.kind & !1).map(|k| k.1);
        pair.or_else(|| POINTS.iter().find(|k| k.0 == self.kind).map(|k| k.1)).unwrap_or("other")
    }

    /// A break in the program, to be filled with something else.
    pub fn is_break(&self) -> bool {
        KINDS.iter().any(|k| k.0 == self.kind & !1 && k.2)
    }
}

/// Types that come in pairs: (start, what, whether it is a break) (10.3.3.1, table 23).
const KINDS: &[(u8, &str, bool)] = &[
    (0x20, "chapter", false),
    (0x22, "break", true),
    (0x24, "opening-credit", false),
    (0x26, "closing-credit", false),
    (0x30, "provider-ad", true),
    (0x32, "distributor-ad", true),
    (0x34, "provider-placement", true),
    (0x36, "distributor-placement", true),
    (0x38, "provider-overlay", false),
    (0x3A, "distributor-overlay", false),
    (0x3C, "provider-promo", true),
    (0x3E, "distributor-promo", true),
    (0x40, "unscheduled-event", false),
    (0x42, "alternate-content", true),
    (0x44, "provider-ad-block", true),
    (0x46, "distributor-ad-block", true),
    (0x50, "network", false),
];

/// The others. A program has several beginnings and ends.
const POINTS: &[(u8, &str, Edge)] = &[
    (0x00, "not-indicated", Edge::Point),
    (0x01, "content-identification", Edge::Point),
    (0x02, "call-ad-server", Edge::Point),
    (0x10, "program", Edge::Start),
    (0x11, "program", Edge::End),
    (0x12, "program", Edge::End),
    (0x13, "program-breakaway", Edge::Point),
    (0x14, "program-resumption", Edge::Point),
    (0x15, "program-runover", Edge::Point),
    (0x16, "program-runover", Edge::Point),
    (0x17, "program", Edge::Start),
    (0x18, "program-blackout-override", Edge::Point),
    (0x19, "program", Edge::Start),
    (0x1A, "program-immediate-resumption", Edge::Point),
];

impl SpliceInfo {
    /// When it is spliced; `None`: it splices nothing, or cancels.
    pub fn at(&self) -> Option<When> {
        match &self.command {
            Command::Insert(insert) => insert.splice.map(|splice| splice.at),
            Command::TimeSignal(at) => Some(*at),
            _ => None,
        }
    }

    /// Reads a whole section with its CRC.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(section: &[u8]) -> Result<SpliceInfo, Bad> {
        let mut all = Reader(section);
        let [table, l1, l2] = all.array()?;
        if table != TABLE {
            return Err(Bad::Syntax("a table on a cue's PID that is no splice_info_section"));
        }
        if l1 & 0xC0 != 0 {
            return Err(Bad::Syntax("section_syntax_indicator or private_indicator is set"));
        }
        let length = usize::from(u16::from_be_bytes([l1 & 15, l2]));
        if all.0.len() != length {
            return Err(Bad::Syntax("a section whose length is not its own"));
        }
        if crc32(section) != 0 {
            return Err(Bad::Crc);
        }
        let (body, _crc) = all.0.split_last_chunk::<4>().ok_or(SHORT)?;
        let mut body = Reader(body);
        let [version, flags, a1, a2, a3, a4, _cw_index, _t1, t2l1, l2, kind] = body.array()?;
        if version != 0 {
            return Err(Bad::Syntax("a protocol_version that is not 0"));
        }
        if flags & 0x80 != 0 {
            return Err(Bad::Encrypted);
        }
        let adjust = u64::from(flags & 1) << 32 | u64::from(u32::from_be_bytes([a1, a2, a3, a4]));
        let declared = usize::from(u16::from_be_bytes([t2l1 & 15, l2]));
        let command = if declared == LENGTH_UNKNOWN {
            command(kind, &mut body, adjust)?
        } else {
            command(kind, &mut Reader(body.take(declared)?), adjust)?
        };
        let [d1, d2] = match body.array() {
            Ok(length) => length,
            // A command of unknown length that nobody here can measure: its descriptors cannot be found.
            Err(_) if declared == LENGTH_UNKNOWN && !measured(&command) => [0, 0],
            Err(short) => return Err(short),
        };
        let loop_bytes = body.take(usize::from(u16::from_be_bytes([d1, d2])))?;
        Ok(SpliceInfo { command, segmentations: segmentations(loop_bytes)? })
    }
}

/// splice_command_length of encoders older than the field.
const LENGTH_UNKNOWN: usize = 0xFFF;
const SHORT: Bad = Bad::Syntax("a section shorter than its fields");

fn measured(command: &Command) -> bool {
    matches!(command, Command::Null | Command::Insert(_) | Command::TimeSignal(_) | Command::BandwidthReservation)
}

fn command(kind: u8, body: &mut Reader<'_>, adjust: u64) -> Result<Command, Bad> {
    let unreadable = |command, body: &mut Reader<'_>| {
        body.0 = &[];
        Ok(command)
    };
    match kind {
        0x00 => Ok(Command::Null),
        0x04 => unreadable(Command::Schedule, body),
        0x05 => insert(body, adjust).map(Command::Insert),
        0x06 => Ok(Command::TimeSignal(splice_time(body, adjust)?)),
        0x07 => Ok(Command::BandwidthReservation),
        0xFF => unreadable(Command::Private, body),
        other => unreadable(Command::Reserved(other), body),
    }
}

fn insert(body: &mut Reader<'_>, adjust: u64) -> Result<Insert, Bad> {
    let event = u32::from_be_bytes(body.array()?);
    let [cancel] = body.array()?;
    if cancel & 0x80 != 0 {
        return Ok(Insert { event, splice: None });
    }
    let [flags] = body.array()?;
    let (out_of_network, whole) = (flags & 0x80 != 0, flags & 0x40 != 0);
    let (has_duration, immediate) = (flags & 0x20 != 0, flags & 0x10 != 0);
    let mut at = When::Now;
    if whole {
        if !immediate {
            at = splice_time(body, adjust)?;
        }
    } else {
        // Components that are spliced each at its own time: one grid has one frame for them all, the first one's.
        let [count] = body.array()?;
        for index in 0..count {
            let [_tag] = body.array()?;
            if !immediate {
                let time = splice_time(body, adjust)?;
                at = if index == 0 { time } else { at };
            }
        }
    }
    let duration = if has_duration {
        let [b0, b1, b2, b3, b4] = body.array()?;
        let ticks = u64::from(b0 & 1) << 32 | u64::from(u32::from_be_bytes([b1, b2, b3, b4]));
        Some(BreakDuration { auto_return: b0 & 0x80 != 0, ticks })
    } else {
        None
    };
    let [p1, p2, avail, avails_expected] = body.array()?;
    let unique_program_id = u16::from_be_bytes([p1, p2]);
    Ok(Insert {
        event,
        splice: Some(Splice { out_of_network, at, duration, unique_program_id, avail, avails_expected }),
    })
}

/// splice_time (9.8.1).
fn splice_time(body: &mut Reader<'_>, adjust: u64) -> Result<When, Bad> {
    let [b0] = body.array()?;
    if b0 & 0x80 == 0 {
        return Ok(When::Now);
    }
    let low = u32::from_be_bytes(body.array()?);
    Ok(When::At((u64::from(b0 & 1) << 32 | u64::from(low)).wrapping_add(adjust) & BITS_33))
}

fn segmentations(bytes: &[u8]) -> Result<Vec<Segmentation>, Bad> {
    let (mut rest, mut found) = (Reader(bytes), Vec::new());
    for _ in 0..DESCRIPTORS_MAX {
        if rest.0.is_empty() {
            break;
        }
        let [tag, length] = rest.array()?;
        let mut content = Reader(rest.take(usize::from(length))?);
        if tag == SEGMENTATION && content.array::<4>()? == *CUEI {
            found.push(segmentation(&mut content)?);
        }
    }
    Ok(found)
}

fn segmentation(content: &mut Reader<'_>) -> Result<Segmentation, Bad> {
    let event = u32::from_be_bytes(content.array()?);
    let [cancel] = content.array()?;
    if cancel & 0x80 != 0 {
        return Ok(Segmentation { event, segment: None });
    }
    let [flags] = content.array()?;
    if flags & 0x80 == 0 {
        // Components with offsets of their own; what they splice is the program's time all the same.
        let [count] = content.array()?;
        content.take(6 * usize::from(count))?;
    }
    let duration = if flags & 0x40 == 0 {
        None
    } else {
        let [b0, b1, b2, b3, b4] = content.array()?;
        Some(u64::from(b0) << 32 | u64::from(u32::from_be_bytes([b1, b2, b3, b4])))
    };
    let [_upid_type, upid_length] = content.array()?;
    content.take(usize::from(upid_length))?;
    // What may follow counts sub-segments; old encoders leave it out.
    let [kind, number, expected] = content.array()?;
    Ok(Segmentation { event, segment: Some(Segment { kind, duration, number, expected }) })
}

/// Bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Bad> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// The sample messages of ANSI/SCTE 35, clause 14.
    const PLACEMENT_START: &str = "fc3034000000000000fffff00506fe72bd0050001e021c435545494800008e7fcf0001a599b00808000000002ca0a18a3402009ac9d17e";
    const INSERT: &str =
        "fc302f000000000000fffff014054800008f7feffe7369c02efe0052ccf500000000000a0008435545490000013562dba30a";
    const PLACEMENT_END: &str =
        "fc302f000000000000fffff00506fe746290a000190217435545494800008e7f9f0808000000002ca0a18a350200a9cc6758";
    const PROGRAMS: &str = "fc3048000000000000fffff00506fe7a4d88b60032021743554549480000187f9f0808000000002ccbc344110000021743554549480000197f9f0808000000002ca4dba01000009972e343";

    #[test]
    fn the_standards_own_examples_read_as_it_says() {
        let start = SpliceInfo::parse(&bytes(PLACEMENT_START)).unwrap();
        assert_eq!(start.command, Command::TimeSignal(When::At(0x0_72BD_0050)));
        let segment = Segment { kind: 0x34, duration: Some(0x01A5_99B0), number: 2, expected: 0 };
        assert_eq!(start.segmentations, [Segmentation { event: 0x4800_008E, segment: Some(segment) }]);
        assert_eq!((segment.edge(), segment.about(), segment.is_break()), (Edge::Start, "provider-placement", true));

        let insert = SpliceInfo::parse(&bytes(INSERT)).unwrap();
        let splice = Splice {
            out_of_network: true,
            at: When::At(0x0_7369_C02E),
            duration: Some(BreakDuration { auto_return: true, ticks: 0x52_CCF5 }),
            unique_program_id: 0,
            avail: 0,
            avails_expected: 0,
        };
        assert_eq!(insert.command, Command::Insert(Insert { event: 0x4800_008F, splice: Some(splice) }));
        assert!(insert.segmentations.is_empty(), "an avail_descriptor is no segmentation");

        let end = SpliceInfo::parse(&bytes(PLACEMENT_END)).unwrap();
        assert_eq!(end.command, Command::TimeSignal(When::At(0x0_7462_90A0)));
        assert_eq!(end.segmentations[0].segment.map(|s| (s.kind, s.edge())), Some((0x35, Edge::End)));

        let programs = SpliceInfo::parse(&bytes(PROGRAMS)).unwrap();
        let edges: Vec<_> = programs.segmentations.iter().map(|s| (s.event, s.segment.unwrap().edge())).collect();
        assert_eq!(edges, [(0x4800_0018, Edge::End), (0x4800_0019, Edge::Start)]);
    }

    fn sealed(mut section: Vec<u8>) -> Vec<u8> {
        let at = section.len() - 4;
        let crc = crc32(&section[..at]);
        section[at..].copy_from_slice(&crc.to_be_bytes());
        section
    }

    #[test]
    fn the_adjustment_is_added_and_wraps() {
        let mut section = bytes(PLACEMENT_START);
        section[4] |= 1;
        section[5..9].copy_from_slice(&[0xFF; 4]);
        let info = SpliceInfo::parse(&sealed(section)).unwrap();
        assert_eq!(info.command, Command::TimeSignal(When::At(0x0_72BD_004F)), "2^33 - 1 is one back");
    }

    #[test]
    fn a_command_of_unknown_length_is_measured_by_its_fields() {
        for (hex, at) in [(PLACEMENT_START, 11), (INSERT, 11)] {
            let mut section = bytes(hex);
            (section[at], section[at + 1]) = (section[at] | 15, 0xFF);
            let whole = SpliceInfo::parse(&bytes(hex)).unwrap();
            assert_eq!(SpliceInfo::parse(&sealed(section)).unwrap(), whole);
        }
    }

    #[test]
    fn encrypted_damaged_and_foreign_sections_are_refused_for_what_they_are() {
        let mut encrypted = bytes(INSERT);
        encrypted[4] |= 0x80;
        assert_eq!(SpliceInfo::parse(&sealed(encrypted)), Err(Bad::Encrypted));
        let whole = bytes(INSERT);
        for bit in 3 * 8..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SpliceInfo::parse(&flipped), Err(Bad::Crc), "bit {bit}");
        }
        assert!(matches!(SpliceInfo::parse(&[0x02, 0, 0]), Err(Bad::Syntax(_))));
        assert!(matches!(SpliceInfo::parse(&whole[..20]), Err(Bad::Syntax(_))));
    }

    proptest! {
        /// With a right CRC, so that what is behind it is reached.
        #[test]
        fn any_bytes_are_answered(mut section in proptest::collection::vec(any::<u8>(), 0..400), kind in 0u8..8) {
            drop(SpliceInfo::parse(&section));
            if section.len() > 17 {
                let length = u16::try_from(section.len() - 3).unwrap().to_be_bytes();
                (section[0], section[1], section[2]) = (TABLE, length[0], length[1]);
                (section[3], section[4], section[13]) = (0, section[4] & 0x7F, kind);
                prop_assert!(SpliceInfo::parse(&sealed(section)) != Err(Bad::Crc));
            }
        }

        /// Every piece of a good section: fields are cut at every place.
        #[test]
        fn a_section_cut_short_and_sealed_again_is_answered(cut in 14usize..50, which in 0usize..4, noise in any::<[u8; 4]>()) {
            let mut section = bytes([PLACEMENT_START, INSERT, PLACEMENT_END, PROGRAMS][which]);
            section.truncate(cut.min(section.len()));
            section.extend(noise);
            let length = u16::try_from(section.len() - 3).unwrap().to_be_bytes();
            (section[1], section[2]) = (length[0], length[1]);
            prop_assert!(SpliceInfo::parse(&sealed(section)) != Err(Bad::Crc));
        }
    }
}

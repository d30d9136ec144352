//! Tracks that carry no pictures and no sound but what is to happen when: cues of SCTE 35 and timed ID3 tags.

use bytes::Bytes;

use super::assembler::Assembler;
use super::event::{Event, Outbox};
use crate::media::fault::FaultKind;
use crate::media::limits::TAG_BYTES_MAX;
use crate::media::marker::{Cue, Tag};
use crate::media::track::{Codec, Pid, Track};
use crate::mpegts::Packet;
use crate::mpegts::psi::Sections;
use crate::mpegts::scte35::{Bad, SpliceInfo, When};
use crate::time::Pts;
use crate::time::unwrap::nearest;

/// One such track of the program.
#[derive(Debug)]
pub(super) struct MarkerTrack {
    pub(super) pid: Pid,
    pub(super) codec: Codec,
    content: Content,
    /// It was said that it is scrambled.
    scrambled: bool,
}

#[derive(Debug)]
enum Content {
    Cues(Sections),
    Tags(Box<Tags>),
}

#[derive(Debug, Default)]
struct Tags {
    assembler: Assembler,
    /// The tag under way: its time, and whether all of it came so far.
    pts: Option<Pts>,
    whole: bool,
    /// Its end was told beforehand.
    bounded: bool,
    data: Vec<u8>,
}

impl MarkerTrack {
    /// `None`: a track of another kind.
    pub(super) fn new(track: &Track) -> Option<MarkerTrack> {
        let content = match track.codec {
            Codec::Scte35 => Content::Cues(Sections::default()),
            Codec::Id3 => Content::Tags(Box::default()),
            _ => return None,
        };
        Some(MarkerTrack { pid: track.pid, codec: track.codec, content, scrambled: false })
    }

    /// `lost`: packets before it are missing.
    pub(super) fn packet(&mut self, packet: &Packet<'_>, lost: bool, out: &mut Outbox) {
        self.scrambled = false;
        if lost || packet.discontinuity || packet.transport_error {
            self.gap();
        }
        if packet.transport_error || !packet.has_payload {
            return;
        }
        let pid = self.pid;
        match &mut self.content {
            Content::Cues(sections) => {
                sections.push(packet.payload, packet.unit_start, |section| cue(pid, section, out));
            }
            Content::Tags(tags) => tags.push(pid, packet, out),
        }
    }

    /// A packet of it is scrambled. True for the first of them.
    pub(super) fn is_scrambled(&mut self) -> bool {
        self.gap();
        !std::mem::replace(&mut self.scrambled, true)
    }

    fn gap(&mut self) {
        match &mut self.content {
            Content::Cues(sections) => sections.gap(),
            Content::Tags(tags) => {
                tags.assembler.gap();
                tags.whole = false;
            }
        }
    }

    /// Nothing follows: a tag whose end nobody said ends here.
    pub(super) fn flush(&mut self, out: &mut Outbox) {
        if let Content::Tags(tags) = &mut self.content {
            tags.whole &= !tags.bounded;
            tags.give(self.pid, out);
        }
    }
}

fn cue(pid: Pid, section: &[u8], out: &mut Outbox) {
    out.counters.cue_sections += 1;
    let info = match SpliceInfo::parse(section) {
        Ok(info) => info,
        Err(why) => {
            let kind = match why {
                Bad::Crc => {
                    out.counters.crc_errors += 1;
                    FaultKind::SectionCrc
                }
                Bad::Encrypted => FaultKind::Scrambled,
                Bad::Syntax(_) => FaultKind::Cue,
            };
            out.counters.cue_errors += 1;
            return out.fault(kind, Some(pid), None, format!("a cue was dropped: {why}"));
        }
    };
    let pts = match info.at() {
        Some(When::At(raw)) => Some(on_line(raw, out)),
        _ => None,
    };
    let section = Bytes::copy_from_slice(section);
    out.events.push_back(Event::Cue(Cue { pid, pts, received: out.now, info, section }));
}

impl Tags {
    fn push(&mut self, pid: Pid, packet: &Packet<'_>, out: &mut Outbox) {
        let step = self.assembler.push(packet.payload, packet.unit_start);
        if packet.unit_start {
            // Without a length the packet before ends here.
            self.whole &= step.short.is_none();
            self.give(pid, out);
        }
        if let Some(why) = step.fault {
            out.fault(FaultKind::Syntax, Some(pid), None, why);
            self.whole = false;
        }
        if let Some(header) = step.started {
            out.counters.pes_packets += 1;
            self.pts = header.pts.map(|raw| on_line(raw, out));
            (self.whole, self.bounded) = (true, header.payload.is_some());
        }
        if self.data.len() + step.data.len() > TAG_BYTES_MAX {
            if std::mem::take(&mut self.whole) {
                out.counters.cue_errors += 1;
                let detail = format!("a timed tag of more than {TAG_BYTES_MAX} bytes was dropped");
                out.fault(FaultKind::Oversize, Some(pid), None, detail);
            }
        } else {
            self.data.extend_from_slice(step.data);
        }
        if step.ended.is_some() {
            self.give(pid, out);
        }
    }

    fn give(&mut self, pid: Pid, out: &mut Outbox) {
        let (data, pts) = (std::mem::take(&mut self.data), self.pts.take());
        if !std::mem::take(&mut self.whole) || data.is_empty() {
            return;
        }
        let refuse = |out: &mut Outbox, kind, why: &str| {
            out.counters.cue_errors += 1;
            out.fault(kind, Some(pid), None, why);
        };
        let Some(pts) = pts else {
            return refuse(out, FaultKind::NoTimestamp, "a timed tag without a PTS was dropped");
        };
        if !data.starts_with(b"ID3") {
            return refuse(out, FaultKind::Cue, "timed metadata that is no ID3 tag was dropped");
        }
        out.counters.timed_tags += 1;
        out.events.push_back(Event::Tag(Tag { pid, pts, received: out.now, data: data.into() }));
    }
}

/// Nearest to what the connection's pictures and sound have come to: no marker moves their line.
fn on_line(raw: u64, out: &Outbox) -> Pts {
    let raw = raw.cast_signed();
    Pts(out.line.map_or(raw, |line| nearest(raw, line)))
}

//! CMAF read back: boxes, tracks and fragments, for the model player and `rung inspect fmp4`. Bounds every read: what
//! does not parse yields nothing.

use std::fmt::Write;
use std::ops::Range;

use super::fragment::NON_SYNC;
use crate::bitstream::h265;
use crate::media::channel::VideoCodec;

/// One box: its four characters, where it lies, where its payload begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxAt {
    pub kind: [u8; 4],
    pub start: usize,
    pub payload: Range<usize>,
}

impl BoxAt {
    pub fn name(&self) -> String {
        self.kind.iter().map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '?' }).collect()
    }
}

/// The boxes that lie in `range` of `file`, until one does not fit.
pub fn boxes(file: &[u8], range: Range<usize>) -> Vec<BoxAt> {
    let mut found = Vec::new();
    let mut at = range.start;
    while let Some(one) = box_at(file, at, range.end) {
        at = one.payload.end;
        found.push(one);
    }
    found
}

fn box_at(file: &[u8], at: usize, end: usize) -> Option<BoxAt> {
    let size = usize::try_from(be32(file, at)?).ok()?;
    let kind = file.get(at + 4..at + 8)?.try_into().ok()?;
    let (header, size) = match size {
        0 => (8, end.checked_sub(at)?),
        1 => (16, usize::try_from(be64(file, at + 8)?).ok()?),
        size => (8, size),
    };
    let stop = at.checked_add(size)?;
    (size >= header && stop <= end.min(file.len())).then_some(BoxAt { kind, start: at, payload: at + header..stop })
}

/// First box along `path`, from the whole file down.
pub fn find(file: &[u8], path: &[&[u8; 4]]) -> Option<Range<usize>> {
    let mut range = 0..file.len();
    for kind in path {
        range = boxes(file, range).into_iter().find(|b| b.kind == **kind)?.payload;
    }
    Some(range)
}

/// What an initialization section says of its first track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInit {
    pub timescale: u32,
    pub video: bool,
    /// Of a picture track.
    pub codec: VideoCodec,
    /// The CODECS value that its decoder configuration comes to (RFC 6381); `None`: nothing that Rung writes for pictures.
    pub codecs: Option<String>,
}

pub fn init(file: &[u8]) -> Option<TrackInit> {
    let mdhd = find(file, &[b"moov", b"trak", b"mdia", b"mdhd"])?;
    let wide = *file.get(mdhd.start)? == 1;
    let timescale = be32(file, mdhd.start + if wide { 20 } else { 12 })?;
    let hdlr = find(file, &[b"moov", b"trak", b"mdia", b"hdlr"])?;
    let video = file.get(hdlr.start + 8..hdlr.start + 12)? == b"vide";
    let entry = sample_entry(file);
    let codec = match &entry {
        Some(entry) if matches!(&entry.kind, b"hvc1" | b"hev1") => VideoCodec::Hevc,
        _ => VideoCodec::H264,
    };
    let codecs = entry.filter(|_| video).and_then(|entry| codecs(file, &entry));
    (timescale > 0).then_some(TrackInit { timescale, video, codec, codecs })
}

/// The first sample entry.
fn sample_entry(file: &[u8]) -> Option<BoxAt> {
    let stsd = find(file, &[b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"])?;
    // Version, flags and a count precede it.
    boxes(file, stsd.start.checked_add(8)?..stsd.end).into_iter().next()
}

fn codecs(file: &[u8], entry: &BoxAt) -> Option<String> {
    /// Fields of a visual sample entry before its boxes [BMFF 12.1.3].
    const VISUAL: usize = 78;
    let inside = boxes(file, entry.payload.start.checked_add(VISUAL)?..entry.payload.end);
    let record = |kind: &[u8; 4]| inside.iter().find(|b| b.kind == *kind).and_then(|b| file.get(b.payload.clone()));
    match &entry.kind {
        b"avc1" => {
            let [profile, constraints, level] = record(b"avcC")?.get(1..4)?.try_into().ok()?;
            Some(format!("avc1.{profile:02x}{constraints:02x}{level:02x}"))
        }
        b"hvc1" => hevc_codecs(record(b"hvcC")?),
        _ => None,
    }
}

/// From an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, annex E).
fn hevc_codecs(record: &[u8]) -> Option<String> {
    let head: &[u8; 13] = record.first_chunk()?;
    let mut text = "hvc1.".to_owned();
    match head[1] >> 6 {
        0 => {}
        space => text.push(char::from(b'A' - 1 + space)),
    }
    let flags = (0..32).filter(|i| be32(head, 2).is_some_and(|f| f >> (31 - i) & 1 == 1)).fold(0u32, |f, i| f | 1 << i);
    let tier = if head[1] & 0x20 == 0 { "L" } else { "H" };
    // A String takes any text.
    let _written = write!(text, "{}.{flags:X}.{tier}{}", head[1] & 31, head[12]);
    let mut constraints = &head[6..12];
    while let [rest @ .., 0] = constraints {
        constraints = rest;
    }
    for byte in constraints {
        let _written = write!(text, ".{byte:X}");
    }
    Some(text)
}

/// One sample as its fragment describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleAt {
    pub dts: u64,
    pub duration: u32,
    pub cto: i32,
    pub sync: bool,
    /// Where its bytes lie in the file.
    pub data: Range<usize>,
}

/// One movie fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub sequence: u32,
    pub start: u64,
    pub samples: Vec<SampleAt>,
}

impl Fragment {
    /// Sum of the sample durations, in the track's timescale.
    pub fn duration(&self) -> u64 {
        self.samples.iter().map(|s| u64::from(s.duration)).sum()
    }

    pub fn end(&self) -> u64 {
        self.start + self.duration()
    }
}

/// Every fragment of a part or a segment; `Err` is a sentence that names the offset.
///
/// # Errors
/// What is missing or does not fit.
pub fn fragments(file: &[u8]) -> Result<Vec<Fragment>, String> {
    let mut found = Vec::new();
    let mut end = 0;
    // Samples that say nothing of themselves would let a few bytes fill memory: there are no more of them than bytes.
    let mut room = file.len();
    for one in boxes(file, 0..file.len()) {
        end = one.payload.end;
        if &one.kind == b"moof" {
            let fragment = fragment(file, &one, &mut room).ok_or(format!("byte {}: moof does not parse", one.start))?;
            for sample in &fragment.samples {
                if sample.data.end > file.len() {
                    return Err(format!("byte {}: a sample ends behind the file", one.start));
                }
            }
            found.push(fragment);
        }
    }
    if end != file.len() {
        return Err(format!("byte {end}: no box fits in the {} bytes left", file.len() - end));
    }
    Ok(found)
}

fn fragment(file: &[u8], moof: &BoxAt, room: &mut usize) -> Option<Fragment> {
    let inner = |range: Range<usize>, kind: &[u8; 4]| boxes(file, range).into_iter().find(|b| b.kind == *kind);
    let sequence = be32(file, inner(moof.payload.clone(), b"mfhd")?.payload.start + 4)?;
    let traf = inner(moof.payload.clone(), b"traf")?.payload;
    let tfhd = inner(traf.clone(), b"tfhd")?.payload.start;
    let tfdt = inner(traf.clone(), b"tfdt")?.payload.start;
    let wide = *file.get(tfdt)? == 1;
    let start = if wide { be64(file, tfdt + 4)? } else { u64::from(be32(file, tfdt + 4)?) };

    let present = be32(file, tfhd)? & 0x00ff_ffff;
    let mut at = tfhd + 8;
    if present & 0x01 != 0 {
        at += 8;
    }
    let mut optional = |bit: u32| -> Option<Option<u32>> {
        if present & bit == 0 {
            return Some(None);
        }
        at += 4;
        be32(file, at - 4).map(Some)
    };
    optional(0x02)?;
    let defaults = Defaults {
        duration: optional(0x08)?.unwrap_or(0),
        size: optional(0x10)?.unwrap_or(0),
        flags: optional(0x20)?.unwrap_or(0),
    };
    let mut samples = Vec::new();
    let mut dts = start;
    for trun in boxes(file, traf).into_iter().filter(|b| &b.kind == b"trun") {
        let before = samples.len();
        run(file, moof.start, trun.payload, defaults, *room, &mut dts, &mut samples)?;
        *room -= samples.len() - before;
    }
    Some(Fragment { sequence, start, samples })
}

#[derive(Clone, Copy)]
struct Defaults {
    duration: u32,
    size: u32,
    flags: u32,
}

fn run(
    file: &[u8],
    moof: usize,
    trun: Range<usize>,
    defaults: Defaults,
    room: usize,
    dts: &mut u64,
    samples: &mut Vec<SampleAt>,
) -> Option<()> {
    let present = be32(file, trun.start)? & 0x00ff_ffff;
    let count = be32(file, trun.start + 4)?;
    if usize::try_from(count).ok()? > room {
        return None;
    }
    let mut at = trun.start + 8;
    let mut next = || -> Option<u32> {
        at += 4;
        (at <= trun.end).then(|| be32(file, at - 4)).flatten()
    };
    let mut data = if present & 0x1 != 0 { moof.checked_add(usize::try_from(next()?).ok()?)? } else { moof };
    let first_flags = if present & 0x4 != 0 { Some(next()?) } else { None };
    for index in 0..count {
        let duration = if present & 0x100 != 0 { next()? } else { defaults.duration };
        let size = usize::try_from(if present & 0x200 != 0 { next()? } else { defaults.size }).ok()?;
        let own = if present & 0x400 != 0 { Some(next()?) } else { None };
        let flags = own.or(first_flags.filter(|_| index == 0)).unwrap_or(defaults.flags);
        let cto = if present & 0x800 != 0 { next()?.cast_signed() } else { 0 };
        let stop = data.checked_add(size)?;
        samples.push(SampleAt {
            dts: *dts,
            duration,
            cto,
            sync: flags & (NON_SYNC & 0x0001_0000) == 0,
            data: data..stop,
        });
        data = stop;
        *dts = dts.checked_add(u64::from(duration))?;
    }
    Some(())
}

/// A sample of this codec holds an IDR picture.
pub fn is_idr(codec: VideoCodec, sample: &[u8]) -> bool {
    nal_types(codec, sample).into_iter().any(|kind| match codec {
        VideoCodec::H264 => kind == 5,
        VideoCodec::Hevc => h265::is_idr(kind),
    })
}

/// NAL unit types of a length-prefixed sample.
pub fn nal_types(codec: VideoCodec, sample: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    let mut at = 0;
    while let Some(length) = be32(sample, at).and_then(|l| usize::try_from(l).ok()) {
        let Some(first) = sample.get(at + 4) else { break };
        types.push(match codec {
            VideoCodec::H264 => first & 0x1f,
            VideoCodec::Hevc => first >> 1 & 0x3f,
        });
        let Some(next) = at.checked_add(4).and_then(|a| a.checked_add(length)) else { break };
        at = next;
    }
    types
}

fn be32(file: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(file.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn be64(file: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(file.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::{boxed, full, put32};
    use super::*;

    /// A fragment whose trun has so many samples, and no column for any of them.
    fn rows(count: u32) -> Vec<u8> {
        let mut out = Vec::new();
        boxed(&mut out, b"moof", |out| {
            full(out, b"mfhd", 0, 0, |out| put32(out, 1));
            boxed(out, b"traf", |out| {
                full(out, b"tfhd", 0, 0, |out| put32(out, 1));
                full(out, b"tfdt", 0, 0, |out| put32(out, 0));
                full(out, b"trun", 0, 0, |out| put32(out, count));
            });
        });
        out
    }

    #[test]
    fn there_are_no_more_samples_than_bytes() {
        let length = u32::try_from(rows(0).len()).unwrap();
        assert_eq!(fragments(&rows(length)).map(|all| all[0].samples.len()), Ok(length as usize));
        assert!(fragments(&rows(length + 1)).is_err());
        assert!(fragments(&rows(u32::MAX)).is_err());
        // Of all fragments together.
        let many = rows(length).repeat(50);
        let samples = fragments(&many).map(|all| all.iter().map(|one| one.samples.len()).sum::<usize>());
        assert_eq!(samples, Ok(many.len()));
        assert!(fragments(&[rows(length).repeat(50), rows(length + 1)].concat()).is_err());
    }
}

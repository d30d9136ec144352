//! A transport-stream file read packet by packet, as often as wanted, as one continuous stream: a looped pass goes on
//! with the next time stamp and the next continuity counter [TS 2.4.3.3], [TS 2.4.3.5], [TS 2.4.3.7].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use crate::time::Unwrapper;
use crate::time::ticks::WRAP_33;

pub(super) const PACKET: usize = 188;
const SYNC: u8 = 0x47;
const NULL_PID: u16 = 0x1fff;
/// Read from the file at once.
const READ: usize = PACKET * 1_024;
/// Different time steps of one track that are counted when its usual one is looked for.
const STEPS_MAX: usize = 256;

pub(super) type Packet = [u8; PACKET];

/// The file as a stream of packets.
pub(super) struct Clip {
    file: File,
    buffer: Vec<u8>,
    at: usize,
    /// Ticks of one pass; `None`: the file is read once.
    period: Option<i64>,
    /// Ticks that are added to every time stamp of this pass.
    shift: i64,
    counters: BTreeMap<u16, Counter>,
    passes: u64,
    /// Bytes that were no packet.
    pub(super) skipped: u64,
}

/// Continuity of one PID over the joints.
#[derive(Clone, Copy, Default)]
struct Counter {
    last: u8,
    add: u8,
    pass: u64,
}

impl Clip {
    /// Reads the whole file once first if it is to be looped.
    pub(super) fn open(path: &Path, looping: bool) -> io::Result<Clip> {
        let mut clip = Clip {
            file: File::open(path)?,
            buffer: Vec::new(),
            at: 0,
            period: None,
            shift: 0,
            counters: BTreeMap::new(),
            passes: 0,
            skipped: 0,
        };
        if looping {
            let period = clip.measure()?.ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "no audio or video with time stamps: it cannot be looped")
            })?;
            clip.rewind()?;
            (clip.period, clip.skipped) = (Some(period), 0);
            clip.counters.clear();
        }
        Ok(clip)
    }

    /// The next packet, restamped; `None` at the end of a file that is read once.
    pub(super) fn next(&mut self) -> io::Result<Option<Packet>> {
        let mut packet = self.read()?;
        if packet.is_none()
            && let Some(period) = self.period
        {
            self.rewind()?;
            self.passes += 1;
            self.shift += period;
            packet = self.read()?;
        }
        let Some(mut packet) = packet else { return Ok(None) };
        if self.shift != 0 {
            shift_times(&mut packet, self.shift);
        }
        self.count(&mut packet);
        Ok(Some(packet))
    }

    /// Passes begun after the first.
    pub(super) fn passes(&self) -> u64 {
        self.passes
    }

    fn rewind(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.at = 0;
        self.file.rewind()
    }

    fn read(&mut self) -> io::Result<Option<Packet>> {
        loop {
            if self.buffer.len() - self.at < 2 * PACKET {
                self.fill()?;
            }
            let rest = &self.buffer[self.at..];
            let Some(packet) = rest.first_chunk::<PACKET>() else {
                self.skipped += rest.len() as u64;
                self.at = self.buffer.len();
                return Ok(None);
            };
            // A sync byte counts if another one follows where it should, or the file ends there.
            if packet[0] == SYNC && rest.get(PACKET).is_none_or(|next| *next == SYNC) {
                self.at += PACKET;
                return Ok(Some(*packet));
            }
            self.at += 1;
            self.skipped += 1;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let wanted = (READ - self.buffer.len()) as u64;
        (&self.file).take(wanted).read_to_end(&mut self.buffer)?;
        Ok(())
    }

    /// A counter goes on over a joint as if the stream had never been cut; inside a pass errors of the file stay.
    fn count(&mut self, packet: &mut Packet) {
        let pid = pid(packet);
        if pid == NULL_PID {
            return;
        }
        let (has_payload, given) = (packet[3] & 0x10 != 0, packet[3] & 0x0f);
        let counter = self.counters.entry(pid).or_default();
        if counter.pass != self.passes {
            counter.pass = self.passes;
            counter.add = (counter.last + u8::from(has_payload)).wrapping_sub(given) & 0x0f;
        }
        counter.last = (given + counter.add) & 0x0f;
        packet[3] = packet[3] & 0xf0 | counter.last;
    }

    /// From the first decoding time of a pass to where the next pass begins: of the video, else of the audio.
    fn measure(&mut self) -> io::Result<Option<i64>> {
        let mut tracks: BTreeMap<u16, Steps> = BTreeMap::new();
        while let Some(packet) = self.read()? {
            if let Some(times) = pes_times(&packet) {
                let video = (0xe0..=0xef).contains(&times.stream_id);
                tracks.entry(pid(&packet)).or_insert_with(|| Steps::new(video)).add(read_time(&packet, times.decode()));
            }
        }
        let first = tracks.values().filter(|t| t.video).chain(tracks.values()).find_map(Steps::period);
        Ok(first)
    }
}

/// The decoding times of one track.
struct Steps {
    video: bool,
    unwrapper: Unwrapper,
    first: Option<i64>,
    last: i64,
    steps: BTreeMap<i64, u32>,
}

impl Steps {
    fn new(video: bool) -> Steps {
        Steps { video, unwrapper: Unwrapper::default(), first: None, last: 0, steps: BTreeMap::new() }
    }

    fn add(&mut self, raw: u64) {
        let time = self.unwrapper.unwrap(raw);
        if self.first.is_some() && (self.steps.len() < STEPS_MAX || self.steps.contains_key(&(time - self.last))) {
            *self.steps.entry(time - self.last).or_default() += 1;
        }
        self.first.get_or_insert(time);
        self.last = time;
    }

    /// The span of all units, the last one as long as most.
    fn period(&self) -> Option<i64> {
        let (usual, _) = self.steps.iter().filter(|(step, _)| **step > 0).max_by_key(|(_, count)| **count)?;
        self.first.map(|first| self.last - first + usual).filter(|period| *period > 0)
    }
}

pub(super) fn pid(packet: &Packet) -> u16 {
    u16::from_be_bytes([packet[1] & 0x1f, packet[2]])
}

/// Program clock reference, 27 MHz [TS 2.4.3.5].
pub(super) fn pcr(packet: &Packet) -> Option<i64> {
    let has = packet[3] & 0x20 != 0 && packet[4] >= 7 && packet[5] & 0x10 != 0;
    has.then(|| pcr_base(packet) * 300 + (i64::from(packet[10] & 1) << 8 | i64::from(packet[11])))
}

fn pcr_base(packet: &Packet) -> i64 {
    let high = u32::from_be_bytes([packet[6], packet[7], packet[8], packet[9]]);
    i64::from(high) << 1 | i64::from(packet[10] >> 7)
}

/// Where a PES header keeps its times [TS 2.4.3.7].
#[derive(Clone, Copy)]
struct PesTimes {
    stream_id: u8,
    pts: usize,
    dts: Option<usize>,
}

impl PesTimes {
    fn decode(self) -> usize {
        self.dts.unwrap_or(self.pts)
    }
}

fn pes_times(packet: &Packet) -> Option<PesTimes> {
    if packet[1] & 0x40 == 0 || packet[3] & 0x10 == 0 {
        return None;
    }
    let start = 4 + if packet[3] & 0x20 != 0 { 1 + usize::from(packet[4]) } else { 0 };
    let header = packet.get(start..)?;
    let stream_id = *header.get(3)?;
    let is_media = matches!(stream_id, 0xbd | 0xc0..=0xef | 0xfd);
    if !header.starts_with(&[0, 0, 1]) || !is_media || header.get(6)? >> 6 != 2 {
        return None;
    }
    let pts = start + 9;
    match header.get(7)? >> 6 {
        2 if header.len() >= 14 => Some(PesTimes { stream_id, pts, dts: None }),
        3 if header.len() >= 19 => Some(PesTimes { stream_id, pts, dts: Some(pts + 5) }),
        _ => None,
    }
}

/// The 33 bits of a PES time field.
fn read_time(packet: &Packet, at: usize) -> u64 {
    let b = |i: usize| u64::from(packet[at + i]);
    (b(0) >> 1 & 7) << 30 | b(1) << 22 | (b(2) >> 1) << 15 | b(3) << 7 | b(4) >> 1
}

fn write_time(packet: &mut Packet, at: usize, time: i64) {
    let t = time.rem_euclid(WRAP_33).cast_unsigned();
    let low = |shift: u32| (t >> shift & 0xff) as u8;
    packet[at] = (packet[at] & 0xf0) | ((t >> 30 & 7) as u8 * 2) | 1;
    packet[at + 1] = low(22);
    packet[at + 2] = ((t >> 15 & 0x7f) as u8 * 2) | 1;
    packet[at + 3] = low(7);
    packet[at + 4] = ((t & 0x7f) as u8 * 2) | 1;
}

/// Adds `ticks` to PCR, PTS and DTS.
fn shift_times(packet: &mut Packet, ticks: i64) {
    if pcr(packet).is_some() {
        let base = (pcr_base(packet) + ticks).rem_euclid(WRAP_33).cast_unsigned();
        let high = u32::try_from(base >> 1).expect("33 bits without the last are 32");
        packet[6..10].copy_from_slice(&high.to_be_bytes());
        packet[10] = packet[10] & 0x7f | ((base & 1) as u8) << 7;
    }
    if let Some(times) = pes_times(packet) {
        for at in [Some(times.pts), times.dts].into_iter().flatten() {
            let time = i64::try_from(read_time(packet, at)).expect("33 bits") + ticks;
            write_time(packet, at, time);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    /// A packet of a PES start with PCR, PTS and DTS in ticks.
    pub(crate) fn start(pid: u16, counter: u8, stream_id: u8, clock: i64, pts: i64, dts: i64) -> Packet {
        let mut p = [0xff; PACKET];
        p[..4].copy_from_slice(&[SYNC, 0x40 | (pid >> 8) as u8, pid as u8, 0x30 | counter]);
        p[4] = 7;
        p[5] = 0x10;
        p[6..12].copy_from_slice(&[0, 0, 0, 0, 0x7e, 77]);
        p[12..21].copy_from_slice(&[0, 0, 1, stream_id, 0, 0, 0x80, 0xc0, 10]);
        p[21] = 0x31;
        p[26] = 0x11;
        write_time(&mut p, 21, pts);
        write_time(&mut p, 26, dts);
        shift_times_pcr_only(&mut p, clock);
        p
    }

    fn shift_times_pcr_only(p: &mut Packet, ticks: i64) {
        let base = (pcr_base(p) + ticks).rem_euclid(WRAP_33).cast_unsigned();
        p[6..10].copy_from_slice(&u32::try_from(base >> 1).unwrap().to_be_bytes());
        p[10] = p[10] & 0x7f | ((base & 1) as u8) << 7;
    }

    pub(crate) fn file(packets: &[Packet]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&packets.concat()).unwrap();
        file
    }

    #[test]
    fn a_looped_clip_goes_on_with_the_next_time_and_the_next_counter() {
        // 25 pictures of 3600 ticks across the wrap of 33 bits, audio beside them.
        let begin = WRAP_33 - 40_000;
        let mut packets = Vec::new();
        for n in 0..25i64 {
            let dts = begin + n * 3_600;
            packets.push(start(0x100, (n % 16) as u8, 0xe0, dts - 900, dts + 7_200, dts));
            packets.push(start(0x101, (n % 16) as u8, 0xc0, dts - 900, dts, dts));
        }
        let mut clip = Clip::open(file(&packets).path(), true).unwrap();
        let (mut time, mut counter) = (begin, 0u8);
        for n in 0..25 * 6 {
            let packet = clip.next().unwrap().unwrap();
            assert_eq!((pid(&packet), packet[3] & 15), (0x100, counter), "picture {n}");
            let times = pes_times(&packet).unwrap();
            let wrapped = |t: i64| t.rem_euclid(WRAP_33).cast_unsigned();
            assert_eq!(read_time(&packet, times.dts.unwrap()), wrapped(time), "picture {n}");
            assert_eq!(read_time(&packet, times.pts), wrapped(time + 7_200), "picture {n}");
            assert_eq!(pcr(&packet).unwrap(), (time - 900).rem_euclid(WRAP_33) * 300 + 77, "picture {n}");
            assert_eq!((packet[21] >> 4, packet[26] >> 4), (3, 1), "the marks before PTS and DTS stay");
            let audio = clip.next().unwrap().unwrap();
            assert_eq!((pid(&audio), audio[3] & 15), (0x101, counter));
            (time, counter) = (time + 3_600, (counter + 1) & 15);
        }
        assert_eq!(clip.passes(), 5);
    }

    #[test]
    fn a_file_read_once_is_what_it_was_and_garbage_is_skipped() {
        let packets: Vec<Packet> = (0..20).map(|n| start(0x100, n % 16, 0xe0, 0, 9_000, 9_000)).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[SYNC; 3]).unwrap();
        file.write_all(&packets[..10].concat()).unwrap();
        file.write_all(&[0x11; 1_000]).unwrap();
        file.write_all(&packets[10..].concat()).unwrap();
        file.write_all(&[SYNC, 1, 2]).unwrap();
        let mut clip = Clip::open(file.path(), false).unwrap();
        let mut seen = Vec::new();
        while let Some(packet) = clip.next().unwrap() {
            seen.push(packet);
        }
        // The packet before the garbage is followed by no sync byte, so it is not believed.
        let kept: Vec<Packet> = packets[..9].iter().chain(&packets[10..]).copied().collect();
        assert!(seen == kept, "{} packets", seen.len());
        assert_eq!(clip.skipped, 3 + 188 + 1_000 + 3);
    }

    #[test]
    fn a_file_without_times_cannot_be_looped() {
        let error = Clip::open(file(&[[SYNC; PACKET]; 4]).path(), true).err().unwrap();
        assert!(error.to_string().contains("cannot be looped"), "{error}");
    }
}

//! Writes a transport stream of one program: H.264 and AAC in ADTS [TS 2.4.3, 2.7, 2.14.1].

use super::packet::Header;
use super::{PAT_PID, pes, psi};
use crate::bitstream::annexb::find_start;
use crate::bitstream::h264::nal;
use crate::media::track::Pid;
use crate::time::ticks::WRAP_33;

pub const PMT_PID: Pid = 0x1000;
pub const VIDEO_PID: Pid = 0x100;
pub const AUDIO_PID: Pid = 0x101;

/// How far the clock runs ahead of decoding: what a receiver buffers at least, 90 kHz.
pub const CLOCK_LEAD: i64 = 18_000;
/// Clock references at least this often [TS 2.7.2: 100 ms], 90 kHz.
const PCR_EVERY: i64 = 3_600;
/// Tables at least this often (TR 101 290: 0.5 s), 90 kHz.
const TABLES_EVERY: i64 = 18_000;

/// A step back of the clock that is a restart of the source, 90 kHz.
const RESTART: i64 = 90_000;

/// Units go in by decode time; tracks may lead each other by less than `CLOCK_LEAD`.
#[derive(Clone, Debug)]
pub struct Muxer {
    pat: Vec<u8>,
    pmt: Vec<u8>,
    pcr_pid: Pid,
    /// Continuity counters: PAT, PMT, video, audio.
    counters: [u8; 4],
    last_pcr: Option<i64>,
    last_tables: Option<i64>,
}

impl Muxer {
    pub fn new(video: bool, audio: bool) -> Muxer {
        let pcr_pid = if video { VIDEO_PID } else { AUDIO_PID };
        let mut streams: Vec<(u8, Pid, &[u8])> = Vec::new();
        if video {
            streams.push((0x1B, VIDEO_PID, &[]));
        }
        if audio {
            streams.push((0x0F, AUDIO_PID, &[]));
        }
        Muxer {
            pat: psi::write_section(psi::TABLE_PAT, 1, 0, &psi::pat_body(&[(1, PMT_PID)])),
            pmt: psi::write_section(psi::TABLE_PMT, 1, 0, &psi::pmt_body(pcr_pid, &streams)),
            pcr_pid,
            counters: [0; 4],
            last_pcr: None,
            last_tables: None,
        }
    }

    /// One picture in Annex B, appended to `out` as packets. Times are 90 kHz and may wrap or start anywhere; a
    /// delimiter is put in front if there is none.
    pub fn video(&mut self, pts: i64, dts: i64, random_access: bool, annexb: &[u8], out: &mut Vec<u8>) {
        let clock = dts - CLOCK_LEAD;
        self.keep_time(clock, random_access, out);
        let delimited = find_start(annexb).and_then(|at| annexb.get(at + 3)).is_some_and(|b| b & 31 == nal::AUD);
        let mut bytes = Vec::with_capacity(annexb.len() + 32);
        pes::write(0xE0, raw(pts), raw(dts), None, &mut bytes);
        if !delimited {
            bytes.extend_from_slice(&[0, 0, 0, 1, nal::AUD, 0xF0]);
        }
        bytes.extend_from_slice(annexb);
        self.unit(VIDEO_PID, 2, clock, random_access, &bytes, out);
    }

    /// One or more ADTS frames, the first at `pts`.
    pub fn audio(&mut self, pts: i64, adts: &[u8], out: &mut Vec<u8>) {
        let clock = pts - CLOCK_LEAD;
        self.keep_time(clock, false, out);
        let mut bytes = Vec::with_capacity(adts.len() + 32);
        pes::write(0xC0, raw(pts), raw(pts), Some(adts.len()), &mut bytes);
        bytes.extend_from_slice(adts);
        self.unit(AUDIO_PID, 3, clock, true, &bytes, out);
    }

    /// Tables and clock references that are due at `clock`.
    fn keep_time(&mut self, clock: i64, tables_now: bool, out: &mut Vec<u8>) {
        if tables_now || self.last_tables.is_none_or(|last| !(0..TABLES_EVERY).contains(&(clock - last))) {
            self.last_tables = Some(clock);
            let tables = [(PAT_PID, 0, self.pat.clone()), (PMT_PID, 1, self.pmt.clone())];
            for (pid, counter, section) in tables {
                let payload = [&[0][..], &section].concat();
                let continuity = self.count(counter);
                Header { pid, unit_start: true, continuity, ..Header::default() }.write(&pad(payload), out);
            }
        }
        // Between pictures the clock goes on in packets of its own.
        if self.last_pcr.is_some_and(|last| clock - last > 2 * PCR_EVERY) {
            self.last_pcr = Some(clock);
            let continuity = self.counters[self.clock_counter()].wrapping_sub(1) & 15;
            let pcr = Some(raw(clock) * 300);
            Header { pid: self.pcr_pid, continuity, pcr, ..Header::default() }.write(&[], out);
        }
    }

    fn clock_counter(&self) -> usize {
        if self.pcr_pid == VIDEO_PID { 2 } else { 3 }
    }

    fn unit(&mut self, pid: Pid, counter: usize, clock: i64, random_access: bool, bytes: &[u8], out: &mut Vec<u8>) {
        let mut at = 0;
        while at < bytes.len() {
            let first = at == 0;
            // Far behind: the source starts anew; a little behind: audio ran ahead.
            let due = self.last_pcr.is_none_or(|last| clock - last >= PCR_EVERY || last - clock > RESTART);
            let clocked = first && pid == self.pcr_pid && due;
            if clocked {
                self.last_pcr = Some(clock);
            }
            let header = Header {
                pid,
                unit_start: first,
                continuity: self.count(counter),
                discontinuity: false,
                random_access: first && random_access,
                pcr: clocked.then(|| raw(clock) * 300),
            };
            at += header.write(&bytes[at..], out);
        }
    }

    fn count(&mut self, counter: usize) -> u8 {
        let value = self.counters[counter];
        self.counters[counter] = (value + 1) & 15;
        value
    }
}

/// A section's packet is filled with 0xFF behind it.
fn pad(mut payload: Vec<u8>) -> Vec<u8> {
    payload.resize(payload.len().max(184), 0xFF);
    payload
}

/// The 33 bits on the wire.
fn raw(time: i64) -> u64 {
    time.rem_euclid(WRAP_33).cast_unsigned()
}

//! A transport-stream file as a live source: payloads come due by the file's own clock (PCR).

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::clip::{self, Clip, PACKET, Packet};
use super::publish::PAYLOAD;
use crate::time::Mono;
use crate::time::ticks::WRAP_33;

/// Packets read ahead to the next PCR, at most.
const AHEAD_MAX: usize = 65_536;
/// A clock step larger than this is a jump, not time that passed [TS 2.7.2 asks for a PCR per 0.1 s].
const STEP_MAX: i64 = 5 * 27_000_000;
const PCR_WRAP: i64 = WRAP_33 * 300;
const PER_PAYLOAD: usize = PAYLOAD / PACKET;

/// Faults made on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Knobs {
    /// Share of payloads that are never sent, 0 to 1.
    pub drop: f64,
    /// Share of payloads with one byte changed, 0 to 1.
    pub garble: f64,
    /// Silence: nothing of the last `length` of every `every` of media is sent.
    pub pause: Option<Pause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    pub every: Duration,
    pub length: Duration,
}

/// What the feeder has for its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Feed<'a> {
    /// Send this now: up to seven packets.
    Payload(&'a [u8]),
    /// Nothing is due before then.
    Later(Mono),
    /// The file was read to its end.
    End,
}

/// Counters of a feeder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedStats {
    pub payloads: u64,
    pub bytes: u64,
    /// Passes begun after the first.
    pub loops: u64,
    pub dropped: u64,
    pub garbled: u64,
    pub paused: u64,
    /// Jumps of the file's clock that were passed over.
    pub jumps: u64,
}

pub struct Feeder {
    clip: Clip,
    knobs: Knobs,
    random: u64,
    /// When media time zero is.
    origin: Option<Mono>,
    /// Packets with their media time in nanoseconds, in order.
    queue: VecDeque<(u64, Packet)>,
    /// Packets since the last PCR; their times are known with the next one.
    ahead: Vec<Packet>,
    pcr_pid: Option<u16>,
    /// The last PCR and its media time.
    clock: Option<(i64, u64)>,
    /// Time per packet between the last two PCRs, nanoseconds.
    spacing: u64,
    ended: bool,
    payload: Vec<u8>,
    stats: FeedStats,
}

impl Feeder {
    /// With `looping` the file is read once to measure it.
    ///
    /// # Errors
    /// That of the file; `InvalidData` if it cannot be looped.
    pub fn open(path: &Path, looping: bool, knobs: Knobs, seed: u64) -> io::Result<Feeder> {
        Ok(Feeder {
            clip: Clip::open(path, looping)?,
            knobs,
            random: seed,
            origin: None,
            queue: VecDeque::new(),
            ahead: Vec::new(),
            pcr_pid: None,
            clock: None,
            spacing: 0,
            ended: false,
            payload: Vec::with_capacity(PAYLOAD),
            stats: FeedStats::default(),
        })
    }

    /// Media time zero; without it, the first call of `next`.
    pub fn start(&mut self, at: Mono) {
        self.origin = Some(at);
    }

    /// Call again until it says `Later` or `End`.
    ///
    /// # Errors
    /// That of the file; `InvalidData` if it has no clock.
    pub fn next(&mut self, now: Mono) -> io::Result<Feed<'_>> {
        let origin = *self.origin.get_or_insert(now);
        loop {
            while self.queue.len() < PER_PAYLOAD && !self.ended {
                self.read_to_next_pcr()?;
            }
            let count = self.queue.len().min(PER_PAYLOAD);
            let Some((at, _)) = count.checked_sub(1).and_then(|last| self.queue.get(last)).copied() else {
                return Ok(Feed::End);
            };
            let due = origin + Duration::from_nanos(at);
            if due > now {
                return Ok(Feed::Later(due));
            }
            self.payload.clear();
            for (_, packet) in self.queue.drain(..count) {
                self.payload.extend_from_slice(&packet);
            }
            if self.survives(at) {
                self.stats.payloads += 1;
                self.stats.bytes += self.payload.len() as u64;
                return Ok(Feed::Payload(&self.payload));
            }
        }
    }

    pub fn stats(&self) -> FeedStats {
        FeedStats { loops: self.clip.passes(), ..self.stats }
    }

    /// Moves the packets up to the next PCR into the queue, evenly spread between the two.
    fn read_to_next_pcr(&mut self) -> io::Result<()> {
        loop {
            let Some(packet) = self.clip.next()? else {
                self.ended = true;
                let from = self.clock.map_or(0, |(_, at)| at);
                self.release(from, self.spacing);
                return self.clocked();
            };
            let is_clock = *self.pcr_pid.get_or_insert_with(|| clip::pid(&packet)) == clip::pid(&packet);
            match clip::pcr(&packet) {
                Some(pcr) if is_clock => {
                    self.step(pcr);
                    self.ahead.push(packet);
                    return Ok(());
                }
                // Until one came, any PID may carry the clock.
                None if is_clock && self.clock.is_none() => self.pcr_pid = None,
                _ => {}
            }
            self.ahead.push(packet);
            if self.ahead.len() >= AHEAD_MAX {
                return Err(no_clock());
            }
        }
    }

    /// A PCR came: the packets before it have their times.
    fn step(&mut self, pcr: i64) {
        let Some((last, from)) = self.clock else {
            self.release(0, 0);
            self.clock = Some((pcr, 0));
            return;
        };
        let count = self.ahead.len().max(1) as u64;
        let ticks = (pcr - last).rem_euclid(PCR_WRAP);
        let span = if ticks <= STEP_MAX {
            ticks.cast_unsigned() * 1_000 / 27
        } else {
            self.stats.jumps += 1;
            self.spacing * count
        };
        self.release(from, span / count);
        self.spacing = span / count;
        self.clock = Some((pcr, from + span));
    }

    fn release(&mut self, from: u64, spacing: u64) {
        let timed = self.ahead.drain(..).enumerate().map(|(n, packet)| (from + spacing * n as u64, packet));
        self.queue.extend(timed);
    }

    fn clocked(&self) -> io::Result<()> {
        if self.clock.is_none() { Err(no_clock()) } else { Ok(()) }
    }

    /// Whether the payload that is due goes out, possibly with a wrong byte.
    fn survives(&mut self, at: u64) -> bool {
        if let Some(Pause { every, length }) = self.knobs.pause {
            let (every, length) = (every.as_nanos().max(1), length.as_nanos());
            if u128::from(at) % every >= every.saturating_sub(length) {
                self.stats.paused += 1;
                return false;
            }
        }
        if self.knobs.drop > 0.0 && self.chance() < self.knobs.drop {
            self.stats.dropped += 1;
            return false;
        }
        if self.knobs.garble > 0.0 && self.chance() < self.knobs.garble {
            let at = (self.chance() * self.payload.len() as f64) as usize;
            if let Some(byte) = self.payload.get_mut(at) {
                *byte ^= 0x5a;
                self.stats.garbled += 1;
            }
        }
        true
    }

    /// 0 to 1, evenly; the same for the same seed (SplitMix64).
    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn no_clock() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "no program clock (PCR) found: it is not a transport stream, or not whole",
    )
}

#[cfg(test)]
mod tests {
    use super::super::clip::tests::{file, start};
    use super::*;

    /// `seconds` of 100 packets a second with a PCR in every tenth.
    fn clip(seconds: i64) -> tempfile::NamedTempFile {
        let packet = |n: i64| {
            let time = n * 900;
            let mut p = start(0x100, (n % 16) as u8, 0xe0, time, time + 9_000, time);
            if n % 10 != 0 {
                p[5] = 0;
            }
            p
        };
        file(&(0..seconds * 100).map(packet).collect::<Vec<_>>())
    }

    /// Everything the feeder gives until `limit`, as (milliseconds, length).
    fn drain(feeder: &mut Feeder, limit: Duration) -> Vec<(u64, usize)> {
        let (begin, mut now, mut seen) = (Mono(7_000_000_000), Mono(7_000_000_000), Vec::new());
        feeder.start(begin);
        loop {
            match feeder.next(now).unwrap() {
                Feed::Payload(bytes) => seen.push(((now - begin).as_millis() as u64, bytes.len())),
                Feed::Later(at) if at - begin < limit => now = at,
                _ => return seen,
            }
        }
    }

    #[test]
    fn payloads_come_due_by_the_clock_of_the_file() {
        let mut feeder = Feeder::open(clip(3).path(), false, Knobs::default(), 1).unwrap();
        let seen = drain(&mut feeder, Duration::MAX);
        assert_eq!(seen.iter().map(|(_, len)| len).sum::<usize>(), 300 * PACKET);
        for (n, (ms, _)) in seen.iter().enumerate().take(42) {
            assert_eq!(*ms, n as u64 * 70 + 60, "payload {n} is due with its seventh packet");
        }
        assert_eq!(feeder.next(Mono(u64::MAX)).unwrap(), Feed::End);
    }

    #[test]
    fn a_looped_file_keeps_its_pace_over_the_joints() {
        let mut feeder = Feeder::open(clip(2).path(), true, Knobs::default(), 1).unwrap();
        let seen = drain(&mut feeder, Duration::from_secs(20));
        for (n, (ms, len)) in seen.iter().enumerate() {
            assert_eq!((*ms, *len), (n as u64 * 70 + 60, PAYLOAD), "payload {n}");
        }
        assert_eq!((feeder.stats().loops >= 9, feeder.stats().jumps), (true, 0));
    }

    #[test]
    fn knobs_drop_garble_and_pause_by_their_share() {
        let knobs = Knobs { drop: 0.2, garble: 0.3, pause: None };
        let mut feeder = Feeder::open(clip(2).path(), true, knobs, 42).unwrap();
        drain(&mut feeder, Duration::from_secs(700));
        let stats = feeder.stats();
        let share = |n: u64| n as f64 / (stats.payloads + stats.dropped) as f64;
        assert!((share(stats.dropped) - 0.2).abs() < 0.02, "{stats:?}");
        assert!((share(stats.garbled) - 0.24).abs() < 0.02, "{stats:?}");
        let pause = Some(Pause { every: Duration::from_secs(5), length: Duration::from_secs(2) });
        let mut feeder = Feeder::open(clip(2).path(), true, Knobs { pause, ..Knobs::default() }, 42).unwrap();
        let seen = drain(&mut feeder, Duration::from_secs(50));
        assert!(seen.iter().all(|(ms, _)| ms % 5_000 < 3_000) && feeder.stats().paused > 200, "{:?}", feeder.stats());
    }

    #[test]
    fn a_file_without_a_clock_is_an_error_with_a_sentence() {
        let mut packet = start(0x100, 0, 0xe0, 0, 0, 0);
        packet[5] = 0;
        let mut feeder = Feeder::open(file(&[packet; 50]).path(), false, Knobs::default(), 1).unwrap();
        assert!(feeder.next(Mono(1)).unwrap_err().to_string().contains("no program clock"));
    }
}

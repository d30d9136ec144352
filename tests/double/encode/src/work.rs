//! A session's thread: takes pictures in the order they were submitted, fetches their pixels, encodes them, and puts the
//! access units where they are locked.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::DOUBLE;
use crate::abi::{DEVICE_NOT_EXIST, GENERIC, INVALID_PARAM, Status};
use crate::card::{Codec, Format, Profile};
use crate::coder::{Coder, Packet, Pixels, sentence};
use crate::config::{Config, Mode, Spending};
use crate::cuda::Cuda;
use crate::nal::{self, Around, Kind, Message};
use crate::rate::Rate;
use crate::session::Session;

pub(crate) enum Job {
    Picture(Box<Picture>),
    Rate(Spending),
    /// Another size, or everything from the beginning.
    Restart(Box<Config>),
    Flush,
}

pub(crate) struct Picture {
    /// Counted in the order of submission, which is that of display.
    pub(crate) number: u64,
    pub(crate) source: Source,
    pub(crate) idr: bool,
    /// The client asked for parameter sets with this one.
    pub(crate) headers: bool,
    pub(crate) messages: Vec<Message>,
    pub(crate) labels: Labels,
}

/// What the client wants back with the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) timestamp: u64,
    pub(crate) duration: u64,
    pub(crate) index: u32,
}

pub(crate) enum Source {
    Host(Pixels),
    Device {
        /// The mapped input: locked against writing once its stream has come to it.
        mapped: u64,
        surface: Surface,
        /// Set by `nvEncSetIOCudaStreams`.
        stream: Option<u64>,
    },
}

/// Where a picture lies in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Surface {
    pub(crate) address: u64,
    pub(crate) pitch: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) format: Format,
}

impl Surface {
    /// Bytes from the first to the last that count.
    pub(crate) fn length(&self) -> usize {
        let row = self.width * self.format.sample();
        let (pitch, row) = if self.format == Format::Iyuv { (self.pitch / 2, row / 2) } else { (self.pitch, row) };
        self.pitch * self.height + self.pitch * (self.height / 2) - (pitch - row)
    }
}

/// A coded picture.
pub(crate) struct Coded {
    pub(crate) number: u64,
    pub(crate) labels: Labels,
    pub(crate) kind: Kind,
    pub(crate) quantiser: u32,
    pub(crate) bytes: Vec<u8>,
    /// Where each slice begins.
    pub(crate) slices: Vec<u32>,
}

/// Parameter sets of a configuration, in Annex B.
pub(crate) fn headers(config: &Config, other: bool) -> Result<Vec<u8>, String> {
    let mut coder = Coder::open(config, other).map_err(sentence)?;
    Ok(nal::headers(config.codec, &coder.extradata(), config.profile == Profile::Main))
}

/// The thread. It says through the session whether it could open its encoder, and ends when the session says so.
pub(crate) fn run(session: &Arc<Session>, config: Config, other_headers: bool) {
    let mut desk = match Desk::open(config, other_headers) {
        Ok(desk) => desk,
        Err(why) => return session.opened(Err(why)),
    };
    session.opened(Ok(desk.headers.clone()));
    if let Some(cuda) = Cuda::get()
        && cuda.make_current(session.context).is_err()
    {
        session.failed(DEVICE_NOT_EXIST);
    }
    while let Some(job) = session.next_job() {
        let worked = catch_unwind(AssertUnwindSafe(|| desk.work(session, job)));
        match worked {
            Ok(Ok(())) => {}
            Ok(Err(code)) => session.failed(code),
            Err(_) => {
                DOUBLE.broken("libnvidia-encode's double: its thread panicked");
                session.failed(GENERIC);
            }
        }
    }
}

struct Desk {
    config: Config,
    other_headers: bool,
    coder: Coder,
    headers: Vec<u8>,
    /// Pictures in the encoder, by number.
    inside: BTreeMap<u64, Inside>,
    /// Whether an IDR picture came out of this encoder.
    began: bool,
    /// Of libx265.
    rate: Option<Rate>,
    /// Where the encoder itself comes too late.
    repeat: Option<Repeat>,
}

/// With B frames, libx264 and libx265 want later pictures before they give any out. Where no lookahead hides that, each
/// run of pictures is coded by an encoder of its own that codes everything since the last IDR picture once more and is
/// ended behind the run: what it codes before is what its predecessors coded, byte for byte.
#[derive(Default)]
struct Repeat {
    since_idr: Vec<Step>,
    /// The rate at the IDR picture.
    spending: Option<Spending>,
    /// Packets that were given out.
    given: Vec<Vec<u8>>,
    /// Pictures that wait for the reference behind them.
    run: u32,
}

enum Step {
    Picture { pixels: Pixels, number: i64, idr: bool, coarser: Option<f64> },
    Rate(Spending),
}

struct Inside {
    headers: bool,
    messages: Vec<Message>,
    labels: Labels,
}

impl Desk {
    fn open(config: Config, other_headers: bool) -> Result<Desk, String> {
        let mut coder = Coder::open(&config, other_headers).map_err(sentence)?;
        let headers = nal::headers(config.codec, &coder.extradata(), config.profile == Profile::Main);
        let by_hand = config.codec == Codec::Hevc && config.spending.mode != Mode::Quantiser;
        let rate = by_hand.then(|| {
            let per_picture = config.bits_per_picture(&config.spending);
            let buffer = if config.spending.buffer > 0 { config.spending.buffer } else { config.spending.average };
            Rate::new(per_picture, f64::from(buffer) / per_picture)
        });
        let repeat = (config.b_frames > 0 && config.lookahead < behind(&config)).then(Repeat::default);
        Ok(Desk { config, other_headers, coder, headers, inside: BTreeMap::new(), began: false, rate, repeat })
    }

    fn work(&mut self, session: &Session, job: Job) -> Result<(), Status> {
        match job {
            Job::Picture(picture) => self.picture(session, *picture),
            Job::Rate(spending) if self.config.codec == Codec::Av1 => {
                let config = Config { spending, ..self.config.clone() };
                self.restart(session, config)
            }
            Job::Rate(spending) => {
                if let Some(repeat) = &mut self.repeat {
                    repeat.since_idr.push(Step::Rate(spending));
                }
                self.coder.retune(&self.config, &spending);
                if let Some(rate) = &mut self.rate {
                    rate.retune(self.config.bits_per_picture(&spending));
                }
                self.config.spending = spending;
                Ok(())
            }
            Job::Restart(config) => self.restart(session, *config),
            Job::Flush => self.drain(session),
        }
    }

    fn restart(&mut self, session: &Session, config: Config) -> Result<(), Status> {
        self.drain(session)?;
        *self = Desk::open(config, self.other_headers).map_err(|_| INVALID_PARAM)?;
        session.new_headers(self.headers.clone());
        Ok(())
    }

    fn picture(&mut self, session: &Session, picture: Picture) -> Result<(), Status> {
        let Picture { number, source, idr, headers, messages, labels } = picture;
        let pixels = match source {
            Source::Host(pixels) => pixels,
            Source::Device { mapped, surface, stream } => fetch(session, mapped, surface, stream)?,
        };
        self.inside.insert(number, Inside { headers, messages, labels });
        let coarser = self.rate.as_ref().map(Rate::offset);
        let number = i64::try_from(number).expect("no session has so many pictures");
        if self.repeat.is_some() {
            return self.repeated(session, Step::Picture { pixels, number, idr, coarser });
        }
        self.coder.push(&pixels, number, idr, coarser).map_err(|_| GENERIC)?;
        self.collect(session)
    }

    fn drain(&mut self, session: &Session) -> Result<(), Status> {
        if self.inside.is_empty() {
            return Ok(());
        }
        if self.repeat.is_some() {
            return self.run_again(session);
        }
        self.coder.end().map_err(|_| GENERIC)?;
        self.collect(session)
    }

    fn collect(&mut self, session: &Session) -> Result<(), Status> {
        while let Some(packet) = self.coder.pull().map_err(|_| GENERIC)? {
            self.give_out(session, packet)?;
        }
        Ok(())
    }

    fn repeated(&mut self, session: &Session, step: Step) -> Result<(), Status> {
        let idr = matches!(step, Step::Picture { idr: true, .. });
        let begun = self.repeat.as_ref().is_some_and(|repeat| repeat.run > 0);
        if idr && begun {
            // An IDR picture ends a run before it.
            self.run_again(session)?;
        }
        let repeat = self.repeat.get_or_insert_default();
        if idr {
            *repeat = Repeat { spending: Some(self.config.spending), ..Repeat::default() };
        }
        repeat.since_idr.push(step);
        repeat.run += 1;
        if idr || repeat.run > self.config.b_frames {
            self.run_again(session)?;
        }
        Ok(())
    }

    /// Codes everything since the IDR picture, and gives out what is new.
    fn run_again(&mut self, session: &Session) -> Result<(), Status> {
        let mut repeat = self.repeat.take().unwrap_or_default();
        let mut config = self.config.clone();
        config.spending = repeat.spending.unwrap_or(config.spending);
        let mut coder = Coder::open(&config, self.other_headers).map_err(|_| GENERIC)?;
        let mut packets = Vec::new();
        for step in &repeat.since_idr {
            match step {
                Step::Rate(spending) => coder.retune(&config, spending),
                Step::Picture { pixels, number, idr, coarser } => {
                    coder.push(pixels, *number, *idr, *coarser).map_err(|_| GENERIC)?;
                    while let Some(packet) = coder.pull().map_err(|_| GENERIC)? {
                        packets.push(packet);
                    }
                }
            }
        }
        coder.end().map_err(|_| GENERIC)?;
        while let Some(packet) = coder.pull().map_err(|_| GENERIC)? {
            packets.push(packet);
        }
        let known = repeat.given.len();
        let same = packets.iter().zip(&repeat.given).all(|(now, before)| now.bytes == *before);
        assert!(same && packets.len() >= known, "what was coded before is coded again as it was");
        for packet in packets.into_iter().skip(known) {
            repeat.given.push(packet.bytes.clone());
            self.give_out(session, packet)?;
        }
        repeat.run = 0;
        self.repeat = Some(repeat);
        Ok(())
    }

    fn give_out(&mut self, session: &Session, packet: Packet) -> Result<(), Status> {
        let coded = self.coded(packet)?;
        if let Some(rate) = &mut self.rate {
            rate.spent(coded.bytes.len() as f64 * 8.0, coded.kind == Kind::Idr);
        }
        DOUBLE.count("frames encoded", 1);
        if coded.kind == Kind::Idr {
            DOUBLE.count("IDRs encoded", 1);
        }
        session.coded(coded);
        Ok(())
    }

    fn coded(&mut self, packet: Packet) -> Result<Coded, Status> {
        let number = packet.number.cast_unsigned();
        let inside = self.inside.remove(&number).ok_or(GENERIC)?;
        let (kind, bytes, slices) = if self.config.codec == Codec::Av1 {
            (if packet.key { Kind::Idr } else { Kind::P }, packet.bytes, vec![0])
        } else {
            let (slices, kind) = nal::slices(self.config.codec, &packet.bytes);
            let first = !self.began;
            let brings = nal::brings_headers(self.config.headers, kind == Kind::Idr, first, inside.headers);
            let around = Around {
                codec: self.config.codec,
                delimiter: self.config.delimiters,
                headers: if brings { &self.headers } else { &[] },
                messages: &inside.messages,
            };
            let (bytes, offsets) = nal::assemble(&around, &slices, kind);
            (kind, bytes, offsets)
        };
        self.began |= kind == Kind::Idr;
        Ok(Coded { number, labels: inside.labels, kind, quantiser: packet.quantiser, bytes, slices })
    }
}

/// By how many pictures an encoder's output lags behind its input.
fn behind(config: &Config) -> u32 {
    match config.codec {
        Codec::H264 => config.b_frames,
        // Its own lookahead is a picture deeper than a run, and it waits for two of them.
        Codec::Hevc => 2 * config.b_frames + 4,
        Codec::Av1 => 0,
    }
}

fn fetch(session: &Session, mapped: u64, surface: Surface, stream: Option<u64>) -> Result<Pixels, Status> {
    let cuda = Cuda::get().ok_or(DEVICE_NOT_EXIST)?;
    let mut bytes = vec![0; surface.length()];
    if let Some(stream) = stream {
        cuda.wait(stream).map_err(|_| DEVICE_NOT_EXIST)?;
        session.guard_surface(mapped, &surface);
    }
    cuda.read(surface.address, &mut bytes).map_err(|_| DEVICE_NOT_EXIST)?;
    Ok(Pixels { format: surface.format, pitch: surface.pitch, rows: surface.height, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::small;

    /// By how many pictures the output of a coder lags, once a run is complete.
    fn lag(codec: Codec, b_frames: u32) -> u32 {
        let config = small(codec, b_frames);
        let mut coder = Coder::open(&config, false).unwrap();
        let (mut pushed, mut pulled, mut worst) = (0, 0, 0);
        for n in 0..40_u32 {
            let bytes = (0..192 * 192).map(|at| ((at % 192 + n * 3) ^ (at / 192)) as u8).collect();
            let pixels = Pixels { format: Format::Nv12, pitch: 192, rows: 128, bytes };
            coder.push(&pixels, i64::from(n), n == 0 || n == 17, (codec == Codec::Hevc).then_some(0.0)).unwrap();
            pushed += 1;
            while coder.pull().unwrap().is_some() {
                pulled += 1;
            }
            worst = worst.max(pushed - pulled);
        }
        worst
    }

    #[test]
    fn encoders_lag_by_what_is_reckoned_with() {
        for codec in [Codec::H264, Codec::Hevc] {
            for b_frames in 0..=4 {
                let (found, reckoned) = (lag(codec, b_frames), behind(&small(codec, b_frames)));
                assert!(found <= reckoned || b_frames == 0 && found == 0, "{codec:?} {b_frames}: {found} > {reckoned}");
            }
        }
    }
}

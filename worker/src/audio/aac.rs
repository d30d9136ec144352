//! A channel's audio tracks to AAC-LC, by libav.

use bytes::Bytes;
use rung::media::fault::FaultKind;
use rung::media::grid::FrameRate;
use rung::media::sample::Stamps;
use rung::media::track::{AudioConfig, Codec, Pid};
use rung::pixels::protocol::{Encoded, FromWorker, OpenAudio, Output, Unit};
use rung::time::SystemClock;
use std::sync::Arc;

use super::ToAudio;
use super::place::Placer;
use crate::av::{AudioEncoder, Decoder, Error, Frame, Pushed, Resampler};
use crate::queue::Queue;
use crate::shared::{Counters, Faults, Shared};

/// Samples of a frame.
const FRAME: i64 = AudioEncoder::FRAME as i64;
/// Frames fed before the first one that is sent: fewer are audible at the join.
const PREROLL: i64 = 10;
/// A gap longer than this (30 s) is not filled: the encoder starts again behind it.
const GAP_MAX: i64 = 30 * 48_000;
/// Audio this far behind the picture (1 s) has stopped: silence keeps it within `LAG_KEPT` from then on.
const LAG_MAX: i64 = 48_000;
const LAG_KEPT: i64 = 24_000;

pub struct Audio {
    tracks: Vec<Track>,
    /// Of the channel's video; `None`: audio only.
    rate: Option<FrameRate>,
}

/// One track's way from access units to AAC.
struct Track {
    ch: u32,
    index: u8,
    pid: Pid,
    open: OpenAudio,
    shared: Arc<Shared>,
    faults: Faults,
    decoder: Decoder,
    resampler: Resampler,
    placer: Placer,
    encoder: AudioEncoder,
    /// First frame m that is sent.
    start: i64,
    pcm: Vec<Vec<f32>>,
    /// Where the next decoded samples go if their packet has no time of its own.
    follows: i64,
    stamps: Stamps,
}

impl Audio {
    pub fn open(ch: u32, tracks: &[OpenAudio], rate: Option<FrameRate>, shared: &Arc<Shared>) -> Result<Audio, Error> {
        let tracks = tracks
            .iter()
            .enumerate()
            .map(|(i, open)| Track::open(ch, u8::try_from(i).unwrap_or(u8::MAX), open, shared))
            .collect::<Result<_, _>>()?;
        Ok(Audio { tracks, rate })
    }

    /// What players must be told, per track.
    pub fn configs(&self) -> Vec<AudioConfig> {
        self.tracks.iter().map(Track::config).collect()
    }

    /// Until the queue is closed; then what is inside comes out.
    pub fn run(mut self, input: &Queue<ToAudio>) -> Result<(), Error> {
        while let Some(command) = input.pop() {
            match command {
                ToAudio::Unit(unit) => {
                    if let Some(track) = self.tracks.iter_mut().find(|t| t.pid == unit.pid) {
                        track.unit(&unit)?;
                    }
                }
                ToAudio::Fill(to) => {
                    let to = self.sample_of(to);
                    for track in &mut self.tracks {
                        track.fill(to)?;
                    }
                }
                ToAudio::Edge(n) => {
                    let edge = self.sample_of(n);
                    for track in self.tracks.iter_mut().filter(|t| t.placer.cursor() < edge - LAG_MAX) {
                        track.fill(edge - LAG_KEPT)?;
                    }
                }
            }
        }
        self.tracks.into_iter().try_for_each(Track::finish)
    }

    /// First sample of video frame `n`.
    fn sample_of(&self, n: i64) -> i64 {
        let Some(rate) = self.rate else {
            return n;
        };
        let samples = i128::from(n) * 48_000 * i128::from(rate.den);
        i64::try_from(samples.div_euclid(i128::from(rate.num))).unwrap_or(i64::MAX)
    }
}

impl Track {
    fn open(ch: u32, index: u8, open: &OpenAudio, shared: &Arc<Shared>) -> Result<Track, Error> {
        let channels = open.channels.clamp(1, 2);
        Ok(Track {
            ch,
            index,
            pid: open.pid,
            shared: Arc::clone(shared),
            faults: Faults::new(ch, Arc::clone(shared)),
            decoder: Decoder::audio(&open.config)?,
            resampler: Resampler::new(channels),
            placer: Placer::new(channels, join(open.start)),
            encoder: AudioEncoder::open(channels, open.bitrate)?,
            start: open.start,
            pcm: vec![Vec::new(); usize::from(channels)],
            follows: 0,
            stamps: Stamps::default(),
            open: OpenAudio { channels, ..open.clone() },
        })
    }

    fn config(&self) -> AudioConfig {
        AudioConfig {
            codec: Codec::Aac,
            object_type: 2,
            sample_rate: 48_000,
            channels: self.open.channels,
            asc: Bytes::copy_from_slice(self.encoder.config()),
        }
    }

    fn unit(&mut self, unit: &Unit) -> Result<(), Error> {
        self.stamps = unit.stamps;
        if self.decoder.push(&unit.data, unit.at)? == Pushed::Damaged {
            self.faults.note(FaultKind::Decode, unit.at, || "the decoder could not use an audio frame".to_owned());
        }
        while let Some(frame) = self.decoder.pull()? {
            self.stamps.decoded = SystemClock::mono();
            let at = frame.pts().unwrap_or(self.follows);
            self.pcm.iter_mut().for_each(Vec::clear);
            let held = match self.resampler.convert(&frame, &mut self.pcm) {
                Ok(held) => held,
                Err(error) => {
                    self.faults.note(FaultKind::Decode, at, || error.to_string());
                    continue;
                }
            };
            let at = at - held;
            self.follows = at + held + count(&self.pcm);
            if self.pcm[0].is_empty() {
                continue;
            }
            self.place(at, unit.prime || unit.hidden)?;
        }
        Ok(())
    }

    /// The samples in `pcm` belong at `at`.
    fn place(&mut self, at: i64, quiet: bool) -> Result<(), Error> {
        let gap = self.placer.gap(at);
        if gap > GAP_MAX {
            self.faults
                .note(FaultKind::AudioDrift, at, || format!("{gap} samples are missing: the encoder starts anew"));
            self.restart(at)?;
        } else if gap > FRAME {
            self.fill(at)?;
        }
        let pcm = std::mem::take(&mut self.pcm);
        let placed = self.placer.write(at, &pcm);
        self.pcm = pcm;
        let moved = gap.max(placed.silence) > 0 || placed.cut > 0;
        if moved && !quiet && at > self.start * FRAME {
            let detail = || format!("{} samples of silence put in, {} cut", gap.max(placed.silence), placed.cut);
            self.faults.note(FaultKind::AudioDrift, at, detail);
        }
        self.encode()
    }

    /// Silence up to sample `to`, a frame at a time.
    fn fill(&mut self, to: i64) -> Result<(), Error> {
        if to - self.placer.cursor() > GAP_MAX {
            self.restart(to)?;
        }
        while self.placer.cursor() < to {
            self.placer.silence((to - self.placer.cursor()).min(FRAME));
            self.encode()?;
        }
        Ok(())
    }

    /// Ends this encoder and opens one that joins before sample `at`.
    fn restart(&mut self, at: i64) -> Result<(), Error> {
        self.encoder.drain();
        self.send_all()?;
        self.encoder = AudioEncoder::open(self.open.channels, self.open.bitrate)?;
        self.start = self.start.max(at.div_euclid(FRAME));
        self.placer.restart(join(self.start));
        Ok(())
    }

    fn encode(&mut self) -> Result<(), Error> {
        loop {
            let mut frame = Frame::samples(self.open.channels, AudioEncoder::FRAME)?;
            let taken = self.placer.take(AudioEncoder::FRAME, |channel, samples| {
                frame.channel_mut(channel).copy_from_slice(samples);
            });
            let Some(at) = taken else {
                return Ok(());
            };
            frame.set_pts(at);
            self.encoder.push(&frame)?;
            self.send_all()?;
        }
    }

    fn send_all(&mut self) -> Result<(), Error> {
        while let Some(coded) = self.encoder.pull()? {
            // The encoder's pts already lies one frame before the samples that went in last: that is its priming.
            let m = coded.pts.div_euclid(FRAME);
            if m < self.start {
                continue;
            }
            assert!(m == self.start, "audio frames leave without a gap: {m} after {}", self.start - 1);
            self.start = m + 1;
            let frame = Encoded {
                output: Output::Audio(self.index),
                at: m,
                sync: true,
                stamps: Stamps { encoded: SystemClock::mono(), ..self.stamps },
                data: Bytes::copy_from_slice(coded.data),
            };
            Counters::add(&self.shared.counters.encoded, 1);
            self.shared.send(FromWorker::Encoded { ch: self.ch, frame });
        }
        Ok(())
    }

    /// The last samples fill a frame with silence behind them.
    fn finish(mut self) -> Result<(), Error> {
        self.placer.silence((-self.placer.cursor()).rem_euclid(FRAME));
        self.encode()?;
        self.encoder.drain();
        self.send_all()
    }
}

/// Sample at which an encoder starts so that frame `start` comes out of a warm one.
fn join(start: i64) -> i64 {
    (start - PREROLL) * FRAME
}

fn count(pcm: &[Vec<f32>]) -> i64 {
    i64::try_from(pcm[0].len()).unwrap_or(i64::MAX)
}

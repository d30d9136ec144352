//! Purpose: the decode thread: access units to pictures, each N shown once, handed to every rendition's encoder.
//! Time: N; decoders see a running tag per unit instead, so that two units on one N stay apart.
//! Invariants: each N from the start on is offered to each rendition exactly once, in order; the lowest rendition is
//! never shed. Decode waits for it, and for the others as long as frames are young or a backlog melts (`lateness`).
//! When it fails: damaged input is a fault; an error of libav itself ends the channel (`Failed`).

mod lateness;
mod show;
mod slate;
mod source;

use rung::media::channel::Slate;
use rung::media::fault::FaultKind;
use rung::media::sample::Stamps;
use rung::media::track::VideoConfig;
use rung::pixels::protocol::{Deinterlace, Fill, FromWorker, OpenRendition, OpenVideo, RenditionIndex, Unit};
use rung::time::{Mono, SystemClock};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::audio::ToAudio;
use crate::av::Error;
use crate::encode::{Gate, Job, ToEncode, Verdict};
use crate::picture::Picture;
use crate::queue::Queue;
use crate::shared::{Counters, Faults, Shared};
use lateness::Lateness;
use show::{Placed, Show};
use source::{Decoded, Health, Source};

/// Units between the socket and the decoder. Full: the reader waits, and the daemon's own bound acts.
pub const INPUT_UNITS: usize = 32;
/// Units that may be inside the decoder: older tags will not come out any more.
const INSIDE_MAX: i64 = 128;
/// Requests for an IDR that wait for their frame.
const IDR_REQUESTS_MAX: usize = 64;
/// Without a picture for so long after damage, the decoder is opened anew.
const BARREN_SECONDS: f64 = 5.0;
/// Frames that a fill hands out at a time.
const FILL_STEP: i64 = 64;

#[derive(Debug)]
pub enum ToDecode {
    Unit(Unit),
    Fill { to: i64, with: Fill },
    Idr { at: i64 },
    Shed { rendition: RenditionIndex, at: i64 },
    Resume { rendition: RenditionIndex, at: i64 },
    Retune { rendition: RenditionIndex, bitrate: u64 },
    Snap,
}

/// Index of the rendition with the fewest pixels, of several the last.
pub fn lowest(renditions: &[OpenRendition]) -> usize {
    let pixels = |i: &usize| u64::from(renditions[*i].width) * u64::from(renditions[*i].height);
    (0..renditions.len()).rev().min_by_key(pixels).unwrap_or(0)
}

/// The picture of one random access point, progressive 4:2:0 with 8 bits; `None`: nothing of it could be decoded.
///
/// # Errors
/// No decoder, or no memory.
pub fn still(config: &VideoConfig, data: &[u8]) -> Result<Option<crate::av::Frame>, Error> {
    let mut source = Source::open(config.clone(), false, u32::MAX)?;
    let mut decoded = Vec::new();
    source.push(data, 0, &mut decoded)?;
    source.drain(&mut decoded)?;
    Ok(decoded.into_iter().find(|picture| !picture.damaged).map(|picture| picture.frame))
}

/// Where one rendition's pictures go.
#[derive(Debug)]
pub struct Outlet {
    pub queue: Arc<Queue<ToEncode>>,
    pub gate: Gate,
}

#[derive(Debug)]
pub struct Decode {
    ch: u32,
    open: OpenVideo,
    shared: Arc<Shared>,
    faults: Faults,
    source: Source,
    show: Show<Shot>,
    lateness: Lateness,
    /// When the newest unit arrived: a picture that waited inside the decoder for the next unit is not late.
    arrived: Mono,
    outlets: Vec<Outlet>,
    /// Index of the rendition with the fewest pixels.
    lowest: usize,
    /// Wait for every encoder, shed nothing.
    unpaced: bool,
    audio: Option<Arc<Queue<ToAudio>>>,
    /// Units inside the decoder by tag.
    inside: BTreeMap<i64, Inside>,
    tag: i64,
    idr: BTreeSet<i64>,
    /// Made when it is first needed.
    slate: Option<Picture>,
    /// Scratch: what one unit brought out, and what is shown because of it.
    decoded: Vec<Decoded>,
    shots: Vec<(i64, Shot, bool)>,
}

#[derive(Clone, Debug)]
struct Shot {
    picture: Picture,
    stamps: Stamps,
}

#[derive(Clone, Copy, Debug)]
struct Inside {
    at: i64,
    quiet: bool,
    stamps: Stamps,
}

impl Decode {
    pub fn open(
        ch: u32,
        open: OpenVideo,
        unpaced: bool,
        outlets: Vec<Outlet>,
        audio: Option<Arc<Queue<ToAudio>>>,
        shared: Arc<Shared>,
    ) -> Result<Decode, Error> {
        let barren = (open.cadence.rate.hz() * BARREN_SECONDS) as u32;
        let source = Source::open(open.source.clone(), open.deinterlace == Deinterlace::Field, barren)?;
        Ok(Decode {
            ch,
            source,
            lowest: lowest(&open.renditions),
            show: Show::new(open.start),
            lateness: Lateness::default(),
            arrived: Mono(0),
            faults: Faults::new(ch, Arc::clone(&shared)),
            open,
            shared,
            outlets,
            unpaced,
            audio,
            inside: BTreeMap::new(),
            tag: 0,
            idr: BTreeSet::new(),
            slate: None,
            decoded: Vec::new(),
            shots: Vec::new(),
        })
    }

    /// Until the queue is closed; then everything still inside is shown.
    pub fn run(mut self, input: &Queue<ToDecode>) -> Result<(), Error> {
        while let Some(command) = input.pop() {
            match command {
                ToDecode::Unit(unit) => self.unit(&unit)?,
                ToDecode::Fill { to, with } => self.fill(to, with)?,
                ToDecode::Idr { at } if self.idr.len() < IDR_REQUESTS_MAX => {
                    self.idr.insert(at);
                }
                ToDecode::Idr { .. } => {}
                ToDecode::Shed { rendition, at } => {
                    if let Some(outlet) = self.sheddable(rendition) {
                        outlet.gate.shed(at);
                    }
                }
                ToDecode::Resume { rendition, at } => {
                    if let Some(outlet) = self.sheddable(rendition) {
                        outlet.gate.resume(at);
                    }
                }
                ToDecode::Retune { rendition, bitrate } => {
                    if let Some(outlet) = self.outlets.get(usize::from(rendition)) {
                        outlet.queue.push_command(ToEncode::Retune(bitrate));
                    }
                }
                ToDecode::Snap => {
                    if let Some(outlet) = self.outlets.get(self.lowest) {
                        outlet.queue.push_command(ToEncode::Snap);
                    }
                }
            }
        }
        let mut decoded = std::mem::take(&mut self.decoded);
        self.source.drain(&mut decoded)?;
        self.show_all(&mut decoded);
        Ok(())
    }

    /// The lowest rendition is never shed, whoever asks.
    fn sheddable(&mut self, rendition: RenditionIndex) -> Option<&mut Outlet> {
        let i = usize::from(rendition);
        if i == self.lowest { None } else { self.outlets.get_mut(i) }
    }

    fn unit(&mut self, unit: &Unit) -> Result<(), Error> {
        let quiet = unit.prime || unit.hidden;
        self.arrived = unit.stamps.received;
        self.tag += 1;
        self.inside.insert(self.tag, Inside { at: unit.at, quiet, stamps: unit.stamps });
        while self.inside.first_key_value().is_some_and(|(tag, _)| *tag < self.tag - INSIDE_MAX) {
            self.inside.pop_first();
        }
        let mut decoded = std::mem::take(&mut self.decoded);
        match self.source.push(&unit.data, self.tag, &mut decoded)? {
            Health::Good => {}
            Health::Damaged => {
                self.faults.note(FaultKind::Decode, unit.at, || "the decoder could not use a picture".to_owned());
            }
            Health::Reopened => {
                let detail = || format!("no picture for {BARREN_SECONDS} s: the decoder was opened anew");
                self.faults.note(FaultKind::Decode, unit.at, detail);
            }
        }
        self.show_all(&mut decoded);
        self.decoded = decoded;
        Ok(())
    }

    fn show_all(&mut self, decoded: &mut Vec<Decoded>) {
        for picture in decoded.drain(..) {
            self.show_one(picture);
        }
    }

    fn show_one(&mut self, decoded: Decoded) {
        let Some(unit) = self.inside.get(&decoded.tag).copied() else {
            return;
        };
        // Every tag leaves the decoder once, except that a deinterlacer by field gives two pictures of one.
        if decoded.second || self.open.deinterlace == Deinterlace::Frame {
            self.inside.remove(&decoded.tag);
        }
        let at = unit.at + i64::from(decoded.second);
        Counters::add(&self.shared.counters.decoded, 1);
        if decoded.damaged {
            self.faults.note(FaultKind::Decode, at, || "shown with damage".to_owned());
        }
        let stamps = Stamps { decoded: SystemClock::mono(), ..unit.stamps };
        let shot = Shot { picture: Picture::Host(Arc::new(decoded.frame)), stamps };
        let shots = &mut self.shots;
        let placed = self.show.picture(at, unit.quiet, shot, &mut |n, shot, repeated| {
            shots.push((n, shot.clone(), repeated));
        });
        match placed {
            Placed::Shown | Placed::Hidden => {}
            Placed::AfterHole(frames) => {
                self.faults.note(FaultKind::Hole, at, || format!("{frames} frames before this one had no picture"));
            }
            Placed::Collision => {
                Counters::add(&self.shared.counters.collided, 1);
                self.faults.note(FaultKind::Collision, at, || "this frame was shown before".to_owned());
            }
        }
        self.offer_all();
    }

    fn fill(&mut self, to: i64, with: Fill) -> Result<(), Error> {
        if with == Fill::Nothing {
            self.show.jump(to);
            return Ok(());
        }
        let slate = self.slate(to)?;
        while self.show.next() < to {
            let step = to.min(self.show.next() + FILL_STEP);
            let shots = &mut self.shots;
            let shot = || Shot { picture: slate.clone(), stamps: Stamps::default() };
            self.show.fill(step, with == Fill::Slate, shot, &mut |n, shot, repeated| {
                shots.push((n, shot.clone(), repeated));
            });
            self.offer_all();
        }
        Ok(())
    }

    /// An image that cannot be read is a fault, and black.
    fn slate(&mut self, at: i64) -> Result<Picture, Error> {
        if let Some(slate) = &self.slate {
            return Ok(slate.clone());
        }
        let source = &self.open.source;
        let made = slate::picture(&self.open.slate, source).or_else(|why| {
            self.faults.note(FaultKind::Decode, at, || why);
            slate::picture(&Slate::Black, source)
        });
        let made = made.map_err(|_| Error::alloc("slate"))?;
        Ok(self.slate.insert(made).clone())
    }

    fn offer_all(&mut self) {
        let mut shots = std::mem::take(&mut self.shots);
        for (n, mut shot, repeated) in shots.drain(..) {
            if repeated {
                Counters::add(&self.shared.counters.repeated, 1);
                shot.stamps = Stamps { decoded: SystemClock::mono(), ..Stamps::default() };
            }
            if shot.stamps.received != Mono(0) {
                self.lateness.shown(SystemClock::mono().since(self.arrived));
            }
            self.offer(n, &shot);
        }
        self.shots = shots;
        if let Some(audio) = &self.audio {
            // A full queue means that audio is on its way: the next picture tells it again.
            audio.try_push(ToAudio::Edge(self.show.next()));
        }
    }

    /// Frame `n` to every rendition that takes it.
    fn offer(&mut self, n: i64, shot: &Shot) {
        let asked = self.idr.first().is_some_and(|at| *at <= n);
        while self.idr.first().is_some_and(|at| *at <= n) {
            self.idr.pop_first();
        }
        let key = asked || n.rem_euclid(i64::from(self.open.cadence.gop)) == 0;
        for (i, outlet) in self.outlets.iter_mut().enumerate() {
            let waits = self.unpaced || i == self.lowest || !self.lateness.is_overloaded();
            match outlet.gate.decide(n, !waits && outlet.queue.is_full()) {
                Verdict::Encode => {
                    let job = Job { n, key, picture: shot.picture.clone(), stamps: shot.stamps };
                    outlet.queue.wait_push(ToEncode::Frame(job));
                    continue;
                }
                Verdict::Skip => {}
                Verdict::Stop => outlet.queue.push_command(ToEncode::Stop),
                Verdict::Late { resumes } => {
                    outlet.queue.push_command(ToEncode::Stop);
                    let rendition = RenditionIndex::try_from(i).unwrap_or(RenditionIndex::MAX);
                    self.shared.send(FromWorker::Late { ch: self.ch, rendition, at: n, resumes });
                }
            }
            Counters::add(&self.shared.counters.shed, 1);
        }
        self.shared.counters.next.store(n + 1, Ordering::Relaxed);
    }
}

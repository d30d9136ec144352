//! Purpose: the decode thread: access units to pictures, each N shown once, handed to every rendition's encoder.
//! Time: N; decoders see a running tag per unit instead, so that two units on one N stay apart.
//! Invariants: each N from the start on is offered to each rendition exactly once, in order; the lowest rendition is
//! never shed. Decode waits for it, and for the others as long as frames are young or a backlog melts (`lateness`).
//! When it fails: damaged input is a fault; an error of the decoder itself ends the channel (`Failed`).

mod device;
#[cfg(feature = "software")]
mod host;
mod lateness;
mod show;
#[cfg(feature = "software")]
mod slate;
mod source;

use rung::media::channel::Slate;
use rung::media::fault::FaultKind;
use rung::media::sample::Stamps;
use rung::pixels::protocol::{self, Deinterlace, Fill, FromWorker, OpenVideo, RenditionIndex, Unit};
use rung::time::{Mono, SystemClock};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::audio::ToAudio;
use crate::encode::{Gate, Job, ToEncode, Verdict};
use crate::error::Error;
use crate::gpu::nvdec::Fields;
#[cfg(feature = "software")]
use crate::picture::Host;
use crate::picture::Picture;
use crate::queue::Queue;
#[cfg(feature = "software")]
use crate::scale::Crop;
use crate::scale::Planes;
use crate::scale::device::{Inputs, Ladder, Patience};
use crate::scale::marks::{Canvases, Marks};
use crate::shared::{Counters, Faults, Shared};
use lateness::Lateness;
use show::{Placed, Show};
use source::{Decoded, Health, Source, Taker};

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
    Fill {
        to: i64,
        with: Fill,
    },
    Idr {
        at: i64,
    },
    Shed {
        rendition: RenditionIndex,
        at: i64,
    },
    Resume {
        rendition: RenditionIndex,
        at: i64,
    },
    Retune {
        rendition: RenditionIndex,
        bitrate: u64,
    },
    /// What lies over the pictures of the source from now on.
    Marks(Option<Arc<Marks>>),
    Snap,
}

/// The picture of one random access point, progressive 4:2:0 with 8 bits; `None`: nothing of it could be decoded.
///
/// # Errors
/// No decoder, or no memory.
#[cfg(feature = "software")]
pub fn still(config: &rung::media::track::VideoConfig, data: &[u8]) -> Result<Option<Arc<crate::av::Frame>>, Error> {
    let mut source = host::Source::open(config.clone(), false, u32::MAX)?;
    let mut first = None;
    let mut taker = |decoded: Decoded| {
        if let (Picture::Host(host), false, true) = (decoded.picture, decoded.damaged, first.is_none()) {
            first = Some(host.frame);
        }
    };
    source.push(data, 0, &mut taker)?;
    source.drain(&mut taker)?;
    Ok(first)
}

/// Where one rendition's pictures go.
pub struct Outlet {
    pub queue: Arc<Queue<ToEncode>>,
    pub gate: Gate,
    /// On a GPU: what the scaler writes to.
    pub inputs: Option<Inputs>,
}

pub struct Decode {
    ch: u32,
    open: OpenVideo,
    shared: Arc<Shared>,
    faults: Faults,
    /// Away only while a unit is inside: what it gives is shown at once.
    source: Option<Source>,
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
    /// What lies over the pictures of the source.
    #[cfg(feature = "software")]
    marks: Option<Arc<Marks>>,
    /// Made when it is first needed.
    slate: Option<Picture>,
    /// Scratch: what is shown because of one picture.
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
    /// `ladder`: decodes on its GPU; without one on the CPU.
    pub fn open(
        ch: u32,
        open: OpenVideo,
        unpaced: bool,
        outlets: Vec<Outlet>,
        audio: Option<Arc<Queue<ToAudio>>>,
        shared: Arc<Shared>,
        ladder: Option<Ladder>,
    ) -> Result<Decode, Error> {
        let source = open_source(&open, ladder)?;
        let mut faults = Faults::new(ch, Arc::clone(&shared));
        let marks = open.logo.as_deref().map_or(Ok(None), |logo| Marks::new(logo, &Canvases::of(&open)));
        let marks = marks.unwrap_or_else(|why| {
            faults.note(FaultKind::Decode, open.start, || why);
            None
        });
        let mut decode = Decode {
            ch,
            source: Some(source),
            lowest: protocol::lowest(&open.renditions),
            show: Show::new(open.start),
            lateness: Lateness::default(),
            arrived: Mono(0),
            faults,
            open,
            shared,
            outlets,
            unpaced,
            audio,
            inside: BTreeMap::new(),
            tag: 0,
            idr: BTreeSet::new(),
            #[cfg(feature = "software")]
            marks: None,
            slate: None,
            shots: Vec::new(),
        };
        // Before the first picture: a successor's must not be without it.
        decode.mark(marks.map(Arc::new))?;
        Ok(decode)
    }

    /// Until the queue is closed; then everything still inside is shown.
    pub fn run(mut self, input: &Queue<ToDecode>) -> Result<(), Error> {
        while let Some(command) = input.pop() {
            match command {
                ToDecode::Unit(unit) => {
                    self.unit(&unit)?;
                    Counters::add(&self.shared.counters.taken, 1);
                }
                ToDecode::Fill { to, with } => {
                    self.fill(to, with)?;
                    Counters::add(&self.shared.counters.taken, 1);
                }
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
                ToDecode::Marks(marks) => self.mark(marks)?,
                ToDecode::Snap => {
                    if let Some(outlet) = self.outlets.get(self.lowest) {
                        outlet.queue.push_command(ToEncode::Snap);
                    }
                }
            }
        }
        self.with_source(|source, _, taker| source.drain(taker))
    }

    /// Lies over what is decoded from now on. A picture that is held keeps what it was shown with.
    fn mark(&mut self, marks: Option<Arc<Marks>>) -> Result<(), Error> {
        self.source.as_mut().expect("away only while a unit is inside").mark(marks.as_ref())?;
        #[cfg(feature = "software")]
        {
            self.marks = marks;
        }
        Ok(())
    }

    /// A picture of the source as it is to be shown. What comes from a GPU's ladder is cut and marked already.
    #[cfg(feature = "software")]
    fn dressed(&self, picture: Picture) -> Picture {
        let Picture::Host(Host { frame, .. }) = picture else { return picture };
        let crop = Crop::by(self.open.crop, frame.width() as usize, frame.height() as usize);
        Picture::Host(Host { frame, crop, marks: self.marks.clone() })
    }

    #[cfg(not(feature = "software"))]
    fn dressed(&self, picture: Picture) -> Picture {
        picture
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
        let tag = self.tag;
        match self.with_source(|source, patience, taker| source.push(&unit.data, (tag, unit.at), patience, taker))? {
            Health::Good => {}
            Health::Damaged => {
                self.faults.note(FaultKind::Decode, unit.at, || "the decoder could not use a picture".to_owned());
            }
            Health::Reopened => {
                let detail = || format!("no picture for {BARREN_SECONDS} s: the decoder was opened anew");
                self.faults.note(FaultKind::Decode, unit.at, detail);
            }
        }
        Ok(())
    }

    /// Every picture is shown while the source still works: it may have room for a few only.
    fn with_source<T>(&mut self, work: impl FnOnce(&mut Source, &dyn Fn(usize) -> Patience, Taker<'_>) -> T) -> T {
        let mut source = self.source.take().expect("away only while a unit is inside");
        let (lowest, waits) = (self.lowest, self.unpaced || !self.lateness.is_overloaded());
        let patience = |i| if waits || i == lowest { Patience::Waits } else { Patience::Hasty };
        let done = work(&mut source, &patience, &mut |decoded| self.show_one(decoded));
        self.source = Some(source);
        done
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
        let shot = Shot { picture: self.dressed(decoded.picture), stamps };
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
        let made = self.make_slate(at)?;
        Ok(self.slate.insert(made).clone())
    }

    #[cfg(feature = "software")]
    fn make_slate(&mut self, at: i64) -> Result<Picture, Error> {
        let (source, size) = (&self.open.source, self.shown_size());
        let made = slate::frame(&self.open.slate, source, size).or_else(|why| {
            self.faults.note(FaultKind::Decode, at, || why);
            slate::frame(&Slate::Black, source, size)
        });
        let frame = made.map_err(Error::from)?;
        let uploaded = self.upload(&frame.planes())?;
        Ok(uploaded.unwrap_or_else(|| Picture::Host(Host::plain(frame))))
    }

    /// Without libav there is nothing to read an image with.
    #[cfg(not(feature = "software"))]
    fn make_slate(&mut self, at: i64) -> Result<Picture, Error> {
        if !matches!(self.open.slate, Slate::Black) {
            let why = || "this worker was built without libav and shows black instead of the slate's image".to_owned();
            self.faults.note(FaultKind::Decode, at, why);
        }
        let (width, height) = self.shown_size();
        let (width, height) = (width as usize, height as usize);
        let luma = vec![if self.open.source.colour.full_range { 0 } else { 16 }; width * height];
        let (half, chroma) = (width.div_ceil(2), vec![128; width.div_ceil(2) * height.div_ceil(2)]);
        let black =
            Planes { y: &luma, u: &chroma, v: &chroma, stride_y: width, stride_u: half, stride_v: half, width, height };
        self.upload(&black)?.ok_or_else(|| Error::Other("there is no GPU to show black on".to_owned()))
    }

    /// Columns and rows that the renditions were made for: the slate is not cut.
    fn shown_size(&self) -> (u32, u32) {
        let (width, height) = (self.open.source.width, self.open.source.height);
        self.open.crop.part_of(width, height).map_or((width, height), |part| (part.width, part.height))
    }

    fn upload(&mut self, planes: &Planes<'_>) -> Result<Option<Picture>, Error> {
        let source = self.source.as_mut().expect("away only while a unit is inside");
        let uploaded = source.uploaded(planes)?;
        Counters::add(&self.shared.counters.copies, u64::from(uploaded.is_some()));
        Ok(uploaded)
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
            let there = shot.picture.has(i);
            match outlet.gate.decide(n, !there || !waits && outlet.queue.is_full()) {
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

fn open_source(open: &OpenVideo, ladder: Option<Ladder>) -> Result<Source, Error> {
    let barren = (open.cadence.rate.hz() * BARREN_SECONDS) as u32;
    let both = open.deinterlace == Deinterlace::Field;
    if let Some(ladder) = ladder {
        let fields = if both { Fields::Both } else { Fields::Frame };
        let source = device::Source::open(open.source.clone(), fields, barren, ladder)?;
        return Ok(Source::Device(Box::new(source)));
    }
    #[cfg(feature = "software")]
    return Ok(Source::Host(Box::new(host::Source::open(open.source.clone(), both, barren)?)));
    #[cfg(not(feature = "software"))]
    Err(Error::Other("this rung-worker was built without the software backend: it decodes on a GPU only".to_owned()))
}

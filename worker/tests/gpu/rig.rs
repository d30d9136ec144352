//! A card with a shared process on it, channels that are played through it, and the same on the software backend.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use bytes::Bytes;
use rung::media::fault::FaultKind;
use rung::pixels::protocol::{
    Backend, Encoded, Fill, FromWorker, Lost, Open, OpenRendition, Output, Progress, ToWorker, VideoInit,
};
use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use crate::clips;
use crate::double::Driver;
use crate::process::Process;
use crate::support::*;

/// Real encoders take nothing narrower than 145 columns. One has the source's size, two suit no round pitch.
pub(crate) const SIZES: [(u32, u32); 4] = [(320, 180), (256, 144), (166, 94), (150, 86)];

/// A driver, and one process on its GPU 0.
pub(crate) struct Card {
    pub(crate) driver: Driver,
    process: Process,
    seat: Cell<u32>,
}

/// What a channel gave from its opening to its end.
pub(crate) struct Ran {
    pub(crate) inits: Vec<VideoInit>,
    /// By rendition, in the order of arrival.
    pub(crate) frames: Vec<Vec<Encoded>>,
    pub(crate) progress: Progress,
    pub(crate) faults: Vec<(FaultKind, String)>,
    sizes: Vec<(u32, u32)>,
}

impl Card {
    pub(crate) fn new() -> Card {
        Card::with(Driver::new())
    }

    pub(crate) fn with(driver: Driver) -> Card {
        // Here a CPU plays the card, and may have other things to do.
        let process = start(&driver, &["--patience-ms", "30000"]);
        Card { driver, process, seat: Cell::new(0) }
    }

    /// Its process is started as `environment` says, too.
    pub(crate) fn told(environment: impl FnOnce(&mut Command)) -> Card {
        let driver = Driver::new();
        let process = start_told(&driver, &["--patience-ms", "30000"], environment);
        Card { driver, process, seat: Cell::new(0) }
    }

    /// With the product's own patience.
    pub(crate) fn impatient() -> Card {
        let driver = Driver::new();
        let process = start(&driver, &[]);
        Card { driver, process, seat: Cell::new(0) }
    }

    /// A seat in its process, and its number.
    pub(crate) fn join(&self) -> (u32, Worker) {
        let seat = self.seat.replace(self.seat.get() + 1);
        (seat, self.process.join(seat))
    }

    /// A channel's whole life; nothing of it is left when this returns.
    pub(crate) fn run(&self, open: Open, messages: Vec<ToWorker>) -> Ran {
        let (seat, worker) = self.join();
        let ran = play(worker, open, messages);
        self.process.has_left(seat);
        ran
    }

    /// The socket of a channel was closed: the process has cleared it away.
    pub(crate) fn has_left(&self, seat: u32) {
        self.process.has_left(seat);
    }

    /// It ends well, nothing lives any more, no contract was broken.
    #[track_caller]
    pub(crate) fn end(self) {
        self.process.end();
        self.driver.assert_clean();
    }

    /// It ended by itself, as a process does that can not be trusted any more.
    #[track_caller]
    pub(crate) fn has_aborted(self) -> Driver {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(self.process.wait().signal(), Some(6));
        self.driver
    }
}

fn start(driver: &Driver, more: &[&str]) -> Process {
    start_told(driver, more, |_| ())
}

fn start_told(driver: &Driver, more: &[&str], environment: impl FnOnce(&mut Command)) -> Process {
    let folder = driver.folder();
    let arguments = [&["--driver-folder", folder.to_str().unwrap()], more].concat();
    Process::start_with(&arguments, |command| {
        driver.env(command);
        environment(command);
    })
}

/// Opens a channel, plays it to its end, and lets go of its socket.
pub(crate) fn play(mut worker: Worker, open: Open, messages: Vec<ToWorker>) -> Ran {
    let renditions = &open.video.as_ref().unwrap().renditions;
    let sizes: Vec<(u32, u32)> = renditions.iter().map(|r| (r.width, r.height)).collect();
    worker.open(open);
    let (inits, _) = worker.opened();
    worker.feed_and_close(messages);
    ran(&worker, inits, sizes)
}

/// What `worker` has said so far.
pub(crate) fn ran(worker: &Worker, inits: Vec<VideoInit>, sizes: Vec<(u32, u32)>) -> Ran {
    let mut frames = vec![Vec::new(); sizes.len()];
    let mut faults = Vec::new();
    let mut progress = None;
    for message in &worker.log {
        match message {
            FromWorker::Encoded { frame, .. } => {
                let Output::Video(i) = frame.output else { panic!("{:?}", frame.output) };
                frames[usize::from(i)].push(frame.clone());
            }
            FromWorker::Fault { kind, detail, .. } => faults.push((*kind, detail.clone())),
            FromWorker::Progress { progress: newest, .. } => progress = Some(*newest),
            _ => {}
        }
    }
    Ran { inits, frames, progress: progress.expect("reported before `Closed`"), faults, sizes }
}

pub(crate) fn software(open: Open, messages: Vec<ToWorker>) -> Ran {
    let mut open = open;
    open.video.as_mut().unwrap().backend = Backend::Software;
    play(Worker::start(), open, messages)
}

impl Ran {
    /// In presentation order.
    pub(crate) fn shown(&self, rendition: usize) -> Vec<i64> {
        let mut order: Vec<i64> = self.frames[rendition].iter().map(|f| f.at).collect();
        order.sort_unstable();
        order
    }

    pub(crate) fn keys(&self, rendition: usize) -> Vec<i64> {
        self.frames[rendition].iter().filter(|f| f.sync).map(|f| f.at).collect()
    }

    /// Mean luma of each picture that a player decodes, in presentation order.
    pub(crate) fn luma(&self, dir: &Path, rendition: usize) -> Vec<f64> {
        let (width, height) = self.sizes[rendition];
        decode_luma(dir, &self.inits[rendition], &self.frames[rendition], width as usize, height as usize)
    }

    /// Every rendition has these frames, and IDRs at the same ones.
    #[track_caller]
    pub(crate) fn assert_whole(&self, frames: impl Iterator<Item = i64> + Clone, keys: &[i64]) {
        for rendition in 0..self.frames.len() {
            let shown = self.shown(rendition);
            assert!(shown.iter().copied().eq(frames.clone()), "rendition {rendition}: {shown:?}");
            assert_eq!(self.keys(rendition), keys, "rendition {rendition}");
        }
    }

    /// Frame `n` shows the picture of `picture(n)`, as a player decodes it.
    #[track_caller]
    pub(crate) fn assert_luma(&self, dir: &Path, rendition: usize, within: f64, expected: impl Fn(i64) -> f64) {
        let luma = self.luma(dir, rendition);
        let shown = self.shown(rendition);
        assert_eq!(luma.len(), shown.len());
        let wrong: Vec<_> =
            shown.iter().zip(&luma).filter(|(n, mean)| (**mean - expected(**n)).abs() >= within).collect();
        assert!(wrong.is_empty(), "rendition {rendition}: (frame, mean luma) {wrong:?}");
    }

    /// The same frames, byte for byte, under the same parameter sets.
    #[track_caller]
    pub(crate) fn assert_same_bytes(&self, other: &Ran) {
        assert_eq!(self.inits, other.inits);
        for (rendition, (ours, theirs)) in self.frames.iter().zip(&other.frames).enumerate() {
            assert_eq!(ours.len(), theirs.len(), "frames of rendition {rendition}");
            let differs = ours.iter().zip(theirs).find(|(a, b)| (a.at, a.sync, &a.data) != (b.at, b.sync, &b.data));
            assert!(differs.is_none(), "rendition {rendition} differs from frame {} on", differs.unwrap().0.at);
        }
    }
}

/// Renditions of these sizes, on `backend`.
pub(crate) fn placed(backend: Backend, sizes: &[(u32, u32)]) -> Open {
    let mut open = ladder();
    let video = open.video.as_mut().unwrap();
    video.renditions = sizes.iter().map(|(width, height)| rendition(*width, *height)).collect();
    video.backend = backend;
    open
}

pub(crate) fn renditions(open: &mut Open) -> &mut [OpenRendition] {
    &mut open.video.as_mut().unwrap().renditions
}

/// A clip that ffmpeg makes with these arguments behind `-f lavfi -i <source>`, 25 pictures a second, as units.
pub(crate) fn clip(name: &str, arguments: &str) -> Vec<Coded> {
    let packets = clips::oracle(&clips::clip(name, &format!("-f lavfi -i {arguments}")));
    let times = packets.iter().filter(|p| p.video).map(|p| (p.pts.unwrap().cast_signed(), p));
    let first = times.clone().map(|(pts, _)| pts).min().unwrap();
    let coded = |(pts, p): (i64, &clips::Packet)| Coded {
        n: (pts - first) / 3_600,
        key: p.key,
        data: Bytes::copy_from_slice(&p.data),
    };
    times.map(coded).collect()
}

/// 320x180 pictures full of edges that move.
pub(crate) fn moving(frames: u32, coding: &str) -> Vec<Coded> {
    clip("moving", &format!("testsrc2=s=320x180:r=25,format=yuv420p -frames:v {frames} {coding}"))
}

pub(crate) const GREY: &str = "nullsrc=s=320x180:r=25,geq=lum='20+mod(N,40)*5':cb=128:cr=128";

/// Plain grey that names the frame, as `luma_of` says.
pub(crate) fn grey(frames: u32, coding: &str) -> Vec<Coded> {
    clip("grey", &format!("{GREY},format=yuv420p -frames:v {frames} {coding}"))
}

pub(crate) fn fill(to: i64, with: Fill) -> ToWorker {
    ToWorker::Fill { ch: CH, to, with }
}

/// Reads until the channel fails: why, and what is lost with it.
pub(crate) fn failure(worker: &mut Worker) -> (String, Lost) {
    match worker.wait(|m| matches!(m, FromWorker::Failed { .. })) {
        FromWorker::Failed { what, lost, .. } => (what, lost),
        _ => unreachable!(),
    }
}

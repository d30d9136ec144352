//! The demo's publisher: a test picture from a worker, or a looped file, sent to the daemon over real SRT.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::ingest::srt::{Publish, PushOptions, SrtUrl, push};
use crate::ingest::{Knobs, Progress, PublishEvent};
use crate::mpegts::mux::Muxer;
use crate::pixels::client::Worker;
use crate::pixels::protocol::{FromWorker, Made, Pattern, ToWorker};
use crate::time::SystemClock;

/// PTS of the first picture, 90 kHz: some decoders dislike zero.
const ORIGIN: i64 = 900_000;
/// Between two tries after something went wrong.
const AGAIN: Duration = Duration::from_millis(500);

/// Publishes to channel `demo` on `port` until `stop`.
pub(super) fn start(
    worker: PathBuf,
    input: Option<PathBuf>,
    pattern: Pattern,
    port: u16,
    key: String,
    stop: Arc<AtomicBool>,
) -> Result<JoinHandle<()>, String> {
    let url = SrtUrl::parse(&format!("srt://127.0.0.1:{port}?streamid=demo/{key}"))?;
    let run = move || match input {
        Some(file) => play(file, url, &stop),
        None => draw(&worker, &pattern, &url, &stop),
    };
    std::thread::Builder::new().name("studio".into()).spawn(run).map_err(|e| format!("studio thread: {e}"))
}

fn play(file: PathBuf, url: SrtUrl, stop: &AtomicBool) {
    let options = PushOptions {
        file,
        url: url.into(),
        streams: 1,
        looping: true,
        reconnect: true,
        knobs: Knobs::default(),
        seed: 1,
    };
    let flow = |_: Progress<'_>| {
        if stop.load(Ordering::Acquire) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    if let Err(error) = push(&options, &mut { flow }) {
        super::complain(&error.to_string());
    }
}

fn draw(program: &Path, pattern: &Pattern, url: &SrtUrl, stop: &AtomicBool) {
    let idle = Worker::spawn(program, SystemClock::mono());
    let mut next = Some(idle);
    while !stop.load(Ordering::Acquire) {
        let outcome = match next.take() {
            Some(Ok(worker)) => on_air(worker, pattern, url, stop),
            Some(Err(error)) => Err(error),
            None => {
                next = Some(Worker::spawn(program, SystemClock::mono()));
                continue;
            }
        };
        if let Err(what) = outcome {
            super::complain(&format!("test picture: {what}; trying again"));
            pause(AGAIN);
        }
    }
}

/// One worker's life, or one connection's, whichever ends first.
fn on_air(mut worker: Worker, pattern: &Pattern, url: &SrtUrl, stop: &AtomicBool) -> Result<(), String> {
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, url.port));
    let now = SystemClock::mono();
    let mut publish = Publish::connect(now, url, peer).map_err(|e| e.to_string())?;
    let mut muxer = Muxer::new(true, true);
    let (mut bytes, mut started) = (Vec::new(), false);
    while !stop.load(Ordering::Acquire) {
        wait(&worker, &publish);
        let now = SystemClock::mono();
        publish.run(now);
        while let Some(event) = publish.poll() {
            match event {
                PublishEvent::Connected { .. } if !started => {
                    started = true;
                    let start = ToWorker::Pattern { ch: 0, pattern: pattern.clone() };
                    worker.send(&start).map_err(|_| "the worker takes no message".to_owned())?;
                }
                PublishEvent::Connected { .. } => {}
                PublishEvent::Closed(end) => return Err(end.to_string()),
            }
        }
        worker.run(now);
        while let Some(message) = worker.poll() {
            match message {
                FromWorker::Made { unit, .. } => mux(&mut muxer, &unit, &mut bytes),
                FromWorker::Failed { what, .. } => return Err(what),
                _ => {}
            }
        }
        if let Some(end) = worker.end() {
            return Err(end.to_owned());
        }
        if !bytes.is_empty() {
            publish.send(now, &bytes);
            publish.run(now);
            bytes.clear();
        }
    }
    publish.finish(SystemClock::mono());
    publish.run(SystemClock::mono());
    Ok(())
}

fn mux(muxer: &mut Muxer, unit: &Made, out: &mut Vec<u8>) {
    if unit.video {
        muxer.video(unit.pts + ORIGIN, unit.dts + ORIGIN, unit.random_access, &unit.data, out);
    } else {
        muxer.audio(unit.pts + ORIGIN, &unit.data, out);
    }
}

fn wait(worker: &Worker, publish: &Publish) {
    let now = SystemClock::mono();
    let due = publish.deadline().map_or(Duration::from_millis(50), |at| (at - now).min(Duration::from_millis(50)));
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(due.subsec_nanos()) };
    let work = if worker.wants_write() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut fds = [PollFd::from_borrowed_fd(worker.fd(), work), PollFd::from_borrowed_fd(publish.fd(), PollFlags::IN)];
    // An interrupted wait is a wake-up like any other.
    let _woken = poll(&mut fds, Some(&timeout));
}

fn pause(span: Duration) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(span.subsec_nanos()) };
    let _woken = poll(&mut [], Some(&timeout));
}

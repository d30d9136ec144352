//! `rung probe`: asks a worker what this machine can do.

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use std::path::PathBuf;
use std::time::Duration;

use super::{Failure, print};
use crate::media::channel::Ladder;
use crate::pixels::client::{Worker, beside_this_program};
use crate::pixels::protocol::{Caps, FromWorker, ToWorker};
use crate::time::SystemClock;

const ANSWER: Duration = Duration::from_secs(20);

/// Print what this machine can decode, scale and encode
#[derive(Args)]
pub(crate) struct Probe {
    /// The worker program to ask
    #[arg(long, value_name = "PROGRAM")]
    worker: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Probe {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let caps = ask(&self.worker.unwrap_or_else(beside_this_program)).map_err(Failure::failed)?;
        if self.json {
            print(&serde_json::to_string_pretty(&caps).expect("plain data serialises"));
            return Ok(());
        }
        print(&format!("GPU       {}", caps.gpu));
        print(&format!("software  {}", caps.backend.trim_start_matches("software: ")));
        print(&format!("          {} CPUs, {}; {}", caps.cpus, caps.simd, caps.sandbox));
        print(&format!("          encodes {} frames of 640x360 per CPU-second", caps.encode_fps_360));
        for (height, fast) in [(1080, false), (720, false), (540, false)] {
            let (load, names) = load_of(&caps, &Ladder::default_for(height, fast));
            let verdict = if load <= 0.75 { "fits" } else { "does not fit in real time: renditions will be shed" };
            print(&format!(
                "          a {height}p30 source -> {names}: {:.0} % of this machine, {verdict}",
                load * 100.0
            ));
        }
        Ok(())
    }
}

/// Starts a worker, asks for its capabilities, ends it.
pub(crate) fn ask(program: &std::path::Path) -> Result<Caps, String> {
    let mut worker = Worker::spawn(program, SystemClock::mono())?;
    let started = SystemClock::mono();
    worker.send(&ToWorker::Probe).map_err(|_| "the worker takes no message".to_owned())?;
    loop {
        let now = SystemClock::mono();
        worker.run(now);
        while let Some(message) = worker.poll() {
            if let FromWorker::Caps(caps) = message {
                return Ok(caps);
            }
        }
        if let Some(end) = worker.end() {
            return Err(format!("{end} before it answered"));
        }
        if now - started > ANSWER {
            return Err(format!("{} did not answer within {} s", program.display(), ANSWER.as_secs()));
        }
        wait(&worker);
    }
}

fn wait(worker: &Worker) {
    let events = if worker.wants_write() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut fds = [PollFd::from_borrowed_fd(worker.fd(), events)];
    let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    // An interrupted wait is a wake-up like any other: the caller looks at everything again.
    let _woken = poll(&mut fds, Some(&timeout));
}

/// Share of this machine that a ladder needs at 30 frames/s, by pixels, with the decode (17 parts of 72) on top.
pub(crate) fn load_of(caps: &Caps, ladder: &Ladder) -> (f64, String) {
    let pixels: f64 = ladder.0.iter().map(|r| f64::from(r.height) * f64::from(r.height) * 16.0 / 9.0).sum();
    let per_second = f64::from(caps.encode_fps_360.max(1)) * 640.0 * 360.0 * f64::from(caps.cpus.max(1));
    let names = ladder.0.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(" ");
    (pixels * 30.0 * 1.4 / per_second, names)
}

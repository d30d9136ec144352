//! The whole path in a real, sandboxed `rung-worker`: CUDA and NVDEC of the card, and NVENC, or where the card has none the
//! encoder's double over the card's own memory. In a process of its own, which the loader shows the right encoder.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rung::media::channel::Slate;
use rung::media::crop::Margins;
use rung::media::grid::Cadence;
use rung::media::limits::WORKER_QUEUE_BYTES;
use rung::media::modes::LatencyMode;
use rung::media::sample::Stamps;
use rung::pixels::client::{Worker, beside_this_program};
use rung::pixels::hall::{Event, Hall};
use rung::pixels::protocol::{Backend, Deinterlace, FromWorker, Open, OpenVideo, Output, ToWorker, Unit};
use rung::time::{Mono, SystemClock};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::encode;
use crate::card::Card;
use crate::clips::{Clip, Clips};
use crate::report::{Found, Report, Trouble, fail};
use crate::{Extent, Plan};

/// Nothing that a worker is asked takes longer.
const DEADLINE: Duration = Duration::from_secs(180);
const PID: u16 = 256;

pub(crate) fn run(card: &Card, plan: &Plan, report: &mut Report) {
    let which = encoder(card, plan);
    let with = which.as_ref().map_or("an encoder", |with| with.words);
    let found = which.as_ref().map_err(Clone::clone).and_then(|with| apart(card, plan, with));
    match found {
        Ok(said) => {
            for line in said.lines() {
                let (name, detail) = line.split_once(": ").unwrap_or((line, ""));
                if name.starts_with("reconnects") {
                    report.answer("4. the whole pipeline, and memory after reconnects", format!("{with}: {detail}"));
                }
                report.outcome(&format!("{name} ({with})"), Ok(detail.to_owned()));
            }
        }
        Err(trouble) => report.outcome("a ladder through a worker in its sandbox", Err(trouble)),
    }
}

/// Which encoder the worker gets.
struct With {
    words: &'static str,
    /// The driver's folder to give; `None`: where the loader looks.
    folder: Option<PathBuf>,
    /// Deletes it in the end.
    made: Option<tempfile::TempDir>,
}

fn encoder(card: &Card, plan: &Plan) -> Found<With> {
    card.needs_decoder()?;
    // Whatever the reason why there is none: the encoder's own check tells it.
    if encode::api(card).is_ok() {
        let words = if card.facts.double { "all of it doubled" } else { "NVENC" };
        return Ok(With { words, folder: card.folder.clone(), made: None });
    }
    let double = plan.encode_double.as_ref().filter(|path| path.exists()).ok_or_else(|| {
        Trouble::skip("encoder", "the card has no encoder, and its double is not here (it needs libavcodec)")
    })?;
    let made = tempfile::Builder::new().prefix("rung-driver-").tempdir()?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for (name, aliases) in
        [("libcuda.so", &["libcuda.so.1", "libcuda.so"][..]), ("libnvcuvid.so", &["libnvcuvid.so.1"])]
    {
        let loaded = loaded(&maps, name, card.folder.as_deref())
            .ok_or_else(|| Trouble::Fail(format!("{name} is loaded, but from where?")))?;
        for alias in aliases {
            symlink(&loaded, made.path().join(alias))?;
        }
    }
    symlink(double, made.path().join("libnvidia-encode.so.1"))?;
    Ok(With { words: "the encoder's double", folder: Some(made.path().to_owned()), made: Some(made) })
}

/// The file that a library of this process comes from.
fn loaded(maps: &str, name: &str, folder: Option<&Path>) -> Option<PathBuf> {
    let configured = folder.map(|folder| folder.join(format!("{name}.1"))).filter(|path| path.exists());
    configured.and_then(|path| path.canonicalize().ok()).or_else(|| {
        let paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
        paths
            .map(Path::new)
            .find(|p| p.file_name().is_some_and(|f| f.to_string_lossy().starts_with(name)))
            .map(Path::to_owned)
    })
}

/// What `within` says in a process of its own.
fn apart(card: &Card, plan: &Plan, with: &With) -> Found<String> {
    let program = beside_this_program();
    if !program.exists() {
        return Err(Trouble::skip("worker", format!("no {}", program.display())));
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("pipeline").arg("--clips").arg(&plan.clips);
    if plan.extent == Extent::Short {
        command.arg("--short");
    }
    if let Some(folder) = &with.folder {
        command.arg("--driver-folder").arg(folder);
    }
    if let Some(made) = &with.made {
        // A stand-in with settings of its own: those of a card's double may say that it has no encoder.
        let settings = made.path().join("settings");
        std::fs::write(&settings, "gpus = 1\n")?;
        command.env("RUNG_DOUBLE", settings);
        if !card.facts.double {
            // What it counts and complains of; the sandbox lets the driver write there.
            command.env("RUNG_DOUBLE_REPORT", made.path()).env("CUDA_CACHE_PATH", made.path());
        }
        if let Some(libraries) = plan.encode_double.as_deref().and_then(Path::parent) {
            let others = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
            command.env("LD_LIBRARY_PATH", format!("{}:{others}", libraries.display()));
        }
    }
    let out = command.output()?;
    let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if !out.status.success() {
        return fail(format!("{}: {}{}", out.status, said.trim(), wrong.trim()));
    }
    if let (false, Some(made)) = (card.facts.double, &with.made) {
        broken(made.path())?;
    }
    Ok(said.into_owned())
}

/// Contracts of NVENC that the worker broke.
fn broken(folder: &Path) -> Found<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "broken") {
            let text = std::fs::read_to_string(&path)?;
            if !text.trim().is_empty() {
                return fail(format!("contracts of the driver were broken: {}", text.trim()));
            }
        }
    }
    Ok(())
}

/// The process's own part: a line for each thing that held.
pub(crate) fn within(card: &Card, plan: &Plan) -> Found<String> {
    let clips = Clips::new(&plan.clips);
    let clip = clips.load("h264")?;
    let sizes: &[(u32, u32)] = match plan.extent {
        Extent::Whole => &[(1920, 1080), (1280, 720), (854, 480), (640, 360)],
        Extent::Short => &[(320, 180), (256, 144), (166, 94), (150, 86)],
    };
    let hall = Hall::new(beside_this_program());
    hall.set_patience(Duration::from_secs(30));
    if let Some(folder) = &plan.folder {
        hall.set_driver_folder(folder.clone());
    }
    let start = SystemClock::mono();
    let ran = channel(&hall, &clip, sizes, clip.units.len())?;
    let frames: Vec<i64> = (0..clip.frames()).collect();
    for (rendition, (shown, keys)) in ran.renditions.iter().enumerate() {
        let mut shown = shown.clone();
        shown.sort_unstable();
        if shown != frames || *keys != ran.renditions[0].1 || !keys.contains(&0) {
            return fail(format!(
                "rendition {rendition}: {} of {} frames, IDRs at {keys:?}",
                shown.len(),
                frames.len()
            ));
        }
    }
    if ran.copies != 0 {
        return fail(format!("{} pictures were copied off the card", ran.copies));
    }
    let mut said = format!(
        "a ladder of {} through a worker: {} frames each, IDRs at {:?}, no picture copied, {:.1} s\n",
        sizes.len(),
        frames.len(),
        ran.renditions[0].1,
        SystemClock::mono().since(start).as_secs_f64()
    );
    let stands = std::iter::from_fn(|| hall.poll()).find_map(|event| match event {
        Event::Stands { after, sandbox, .. } => {
            Some(format!("a worker stands after {} ms: {sandbox}\n", after.as_millis()))
        }
        _ => None,
    });
    said += &stands.unwrap_or_else(|| "a worker stands: it said nothing of its sandbox\n".to_owned());
    // The first channels warm up what the driver keeps.
    // Any number of its units is whole.
    let short = clips.load("h264-no-b")?;
    let rounds: usize = plan.extent.of(200, 3);
    let reconnect = |rounds: usize| {
        for _ in 0..rounds {
            channel(&hall, &short, &sizes[1..], 6)?;
        }
        card.free()
    };
    let (before, after) = (reconnect(rounds.div_ceil(10))?, reconnect(rounds)?);
    dismiss(&hall)?;
    let lost = before.saturating_sub(after);
    if lost > card.spare(16 << 20) {
        return fail(format!("{} MiB are gone after {rounds} reconnects", lost >> 20));
    }
    Ok(said + &format!("reconnects: {rounds} channels, {} KiB less free than before\n", lost >> 10))
}

/// The processes go by themselves and leave nothing behind, instead of being killed with the hall.
fn dismiss(hall: &Hall) -> Found<()> {
    /// Longer than the hall keeps one without a channel.
    const IDLE: Duration = Duration::from_secs(60);
    let (pids, start) = (hall.pids(), SystemClock::mono());
    // Its clock stands still there: what takes long to go is not killed for it.
    let later = start + IDLE;
    while pids.iter().any(|pid| Path::new("/proc").join(pid.to_string()).exists()) {
        hall.run(later);
        if SystemClock::mono().since(start) > DEADLINE {
            return fail("a worker that nobody needs does not go");
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    Ok(())
}

/// What a channel gave: frames and IDRs of each rendition, in the order of arrival.
struct Ran {
    renditions: Vec<(Vec<i64>, Vec<i64>)>,
    copies: u64,
}

/// A channel's whole life in a seat of the shared process.
fn channel(hall: &Hall, clip: &Clip, sizes: &[(u32, u32)], units: usize) -> Found<Ran> {
    let mut worker = hall.seat(0, SystemClock::mono()).map_err(Trouble::Fail)?;
    let full = |_| Trouble::Fail("a queue that was looked at is full".to_owned());
    worker.send(&ToWorker::Open { ch: 0, open: Box::new(open(clip, sizes)) }).map_err(full)?;
    let mut ran = Ran { renditions: vec![Default::default(); sizes.len()], copies: 0 };
    let until = SystemClock::mono() + DEADLINE;
    let (mut rest, mut closing, mut closed) = (clip.units.iter().take(units), false, false);
    while !closed {
        while !closing && worker.backlog() < WORKER_QUEUE_BYTES / 4 {
            let message = rest.next().map(|unit| ToWorker::Unit { ch: 0, unit: placed(unit.at, unit.key, &unit.data) });
            closing = message.is_none();
            worker.send(&message.unwrap_or(ToWorker::Close { ch: 0 })).map_err(full)?;
        }
        wait(&worker)?;
        let now = SystemClock::mono();
        hall.run(now);
        worker.run(now);
        while let Some(message) = worker.poll() {
            closed |= ran.takes(message)?;
        }
        if let Some(end) = worker.end().filter(|_| !closed) {
            return fail(format!("the worker ended: {end}"));
        }
        if now > until {
            return fail(format!("no end within {DEADLINE:?}"));
        }
    }
    drop(worker);
    gone(hall, until)?;
    Ok(ran)
}

impl Ran {
    /// Whether the channel has ended.
    fn takes(&mut self, message: FromWorker) -> Found<bool> {
        match message {
            FromWorker::Encoded { frame, .. } => {
                let Output::Video(index) = frame.output else { return Ok(false) };
                let (shown, keys) = &mut self.renditions[usize::from(index)];
                shown.push(frame.at);
                if frame.sync {
                    keys.push(frame.at);
                }
            }
            FromWorker::Progress { progress, .. } => self.copies = progress.copies,
            FromWorker::Failed { what, .. } => return fail(format!("the channel failed: {what}")),
            FromWorker::Fault { kind, detail, .. } => {
                return fail(format!("a fault in a clean stream: {kind:?}: {detail}"));
            }
            FromWorker::Closed { .. } => return Ok(true),
            _ => {}
        }
        Ok(false)
    }
}

fn wait(worker: &Worker) -> Found<()> {
    let wanted = if worker.wants_write() { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
    match poll(&mut [PollFd::new(worker.fd(), wanted)], PollTimeout::from(200u16)) {
        Ok(_) => Ok(()),
        Err(error) => fail(format!("poll: {error}")),
    }
}

/// Until the process says that nothing of the seat is left.
fn gone(hall: &Hall, until: Mono) -> Found<()> {
    loop {
        hall.run(SystemClock::mono());
        if hall.counts().iter().all(|count| count.seats == 0) {
            return Ok(());
        }
        if SystemClock::mono() > until {
            return fail("a seat is never left");
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn placed(at: i64, random_access: bool, data: &bytes::Bytes) -> Unit {
    let (stamps, data) = (Stamps::default(), data.clone());
    Unit { pid: PID, at, prime: false, hidden: false, random_access, damaged: false, stamps, data }
}

fn open(clip: &Clip, sizes: &[(u32, u32)]) -> Open {
    Open {
        video: Some(OpenVideo {
            pid: PID,
            source: clip.config.clone(),
            cadence: Cadence::for_rate(25.0, LatencyMode::Ultra),
            start: 0,
            renditions: sizes.iter().map(|size| encode::rendition(*size, 2_000_000)).collect(),
            deinterlace: Deinterlace::Frame,
            crop: Margins::default(),
            logo: None,
            slate: Slate::Black,
            backend: Backend::Gpu,
            pictures: None,
        }),
        audio: Vec::new(),
        unpaced: true,
    }
}

//! One channel's socket and its two ends: messages in on the thread that serves it, messages out on a `write` thread.
//!
//! The reader waits when a stage has no room: then the socket fills, and the daemon's bound on a worker's queue acts.
//! Every channel has a socket of its own, so whoever waits makes nobody else wait.

use rung::pixels::protocol::{self, FromWorker, ToWorker, VERSION};
use rung::time::SystemClock;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::av::process;
use crate::probe::{self, Described};
use crate::queue::Popped;
use crate::shared::{Outgoing, Shared};
use crate::work::Work;

/// Between two `Progress` messages; the protocol promises one in 200 ms.
const PROGRESS: Duration = Duration::from_millis(150);
/// A write of so much at once is enough.
const BATCH_BYTES: usize = 256 << 10;

/// Serves the daemon until its end of the socket closes, or until one of the two has to give up.
///
/// # Errors
/// A sentence: a thread could not be started.
pub fn serve(socket: UnixStream, shared: &Arc<Shared>, about: &Arc<Described>) -> Result<Ended, String> {
    let socket = Arc::new(socket);
    let broken = Arc::new(AtomicBool::new(false));
    let (peer, out, exits) = (Arc::clone(&socket), Arc::clone(shared), Arc::clone(&broken));
    let write = move || {
        // A socket that takes nothing more belongs to a daemon that is gone: the reader sees it too.
        let exit = write_all(&peer, &out).unwrap_or(false);
        exits.store(exit, Ordering::Release);
        // Nobody waits for room that will not come.
        out.out.close();
        // The reader ends with its socket: either the daemon is gone already, or this process must go.
        drop(peer.shutdown(Shutdown::Both));
        if exit {
            out.process().said_farewell();
        }
    };
    let writer = shared.spawn("write".to_owned(), 0, write).map_err(|e| format!("thread write: {e}"))?;
    shared.send(FromWorker::Hello { version: VERSION, pid: std::process::id() });
    let mut desk = Desk { shared: Arc::clone(shared), about: Arc::clone(about), open: None };
    let read = desk.read_all(&socket);
    let read = if broken.load(Ordering::Acquire) {
        Err("a thread of the worker stopped: its codecs can not be trusted any more".to_owned())
    } else {
        read
    };
    Ok(Ended { read, shared: Arc::clone(shared), work: desk.open.take(), writer })
}

/// A channel whose socket is done with. In a process of its own it goes with the process; in a shared one it must be
/// cleared away.
pub struct Ended {
    /// Why: the daemon's end closed, or a sentence that says what broke.
    pub read: Result<(), String>,
    shared: Arc<Shared>,
    work: Option<(u32, Work)>,
    writer: JoinHandle<()>,
}

impl Ended {
    /// Tells the daemon what broke, if it still listens, and waits for every thread of the channel: nobody wants what
    /// is still inside, so nothing is drained.
    pub fn clear(self) {
        if let Err(what) = self.read {
            let ch = self.work.as_ref().map_or(0, |(ch, _)| *ch);
            self.shared.fail(ch, what);
        }
        self.shared.out.close();
        if let Some((_, work)) = self.work {
            work.abandon();
        }
        // A panic was caught and reported by `Shared::spawn`.
        drop(self.writer.join());
        process::trim_heap();
    }
}

/// Says no to a channel before it is served.
pub fn refuse(mut socket: UnixStream, what: String) {
    let mut bytes = Vec::new();
    protocol::encode(&FromWorker::Hello { version: VERSION, pid: std::process::id() }, &mut bytes);
    protocol::encode(&FromWorker::Failed { ch: 0, what, lost: protocol::Lost::Channel }, &mut bytes);
    // A fresh socket has room for a sentence; a daemon that closed it knows already.
    drop(socket.write_all(&bytes));
}

/// What the reader knows: which channel is open.
struct Desk {
    shared: Arc<Shared>,
    about: Arc<Described>,
    open: Option<(u32, Work)>,
}

impl Desk {
    fn read_all(&mut self, mut socket: &UnixStream) -> Result<(), String> {
        let mut decoder = protocol::Decoder::default();
        let mut bytes = vec![0u8; 64 << 10];
        loop {
            match socket.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(n) => decoder.push(&bytes[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(e) => return Err(format!("worker socket: {e}")),
            }
            while let Some(message) = decoder.pop::<ToWorker>()? {
                self.handle(message)?;
            }
        }
    }

    fn handle(&mut self, message: ToWorker) -> Result<(), String> {
        match message {
            ToWorker::Hello { version } if version == VERSION => {}
            ToWorker::Hello { version } => {
                return Err(format!("the daemon speaks protocol version {version}, this worker {VERSION}"));
            }
            ToWorker::Probe => self.shared.send(FromWorker::Caps(probe::caps(&self.about))),
            ToWorker::ProbeGpus => {
                let not_here = || Err("this worker was not started with --probe".to_owned());
                self.shared.send(FromWorker::Gpus(self.about.gpus.clone().unwrap_or_else(not_here)));
            }
            ToWorker::Open { ch, open } => self.start(ch, |shared| Work::open(ch, *open, shared)),
            ToWorker::Close { ch } => self.close(ch),
            ToWorker::Pattern { ch, pattern } => self.start(ch, |shared| Work::pattern(ch, pattern, shared)),
            ToWorker::Stills { ch } => self.start(ch, |shared| Work::stills(ch, shared)),
            ToWorker::Unit { ch, .. }
            | ToWorker::Still { ch, .. }
            | ToWorker::Forget { ch, .. }
            | ToWorker::Fill { ch, .. }
            | ToWorker::Idr { ch, .. }
            | ToWorker::Retune { ch, .. }
            | ToWorker::Shed { ch, .. }
            | ToWorker::Resume { ch, .. }
            | ToWorker::Logo { ch, .. }
            | ToWorker::Snap { ch } => {
                // Messages for a channel that failed or was refused may still be on their way: they find nobody.
                if let Some((_, work)) = self.open.as_mut().filter(|(open, _)| *open == ch) {
                    work.handle(message);
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, ch: u32, work: impl FnOnce(&Arc<Shared>) -> Result<Work, String>) {
        if let Some((open, _)) = &self.open {
            let what =
                format!("this worker has channel {open} on this socket already: another channel takes another one");
            return self.shared.fail(ch, what);
        }
        match work(&self.shared) {
            Ok(work) => self.open = Some((ch, work)),
            Err(what) => {
                self.shared.forget_watches();
                self.shared.counters.close();
                self.shared.fail(ch, what);
            }
        }
    }

    fn close(&mut self, ch: u32) {
        // A channel that never opened is closed already.
        if let Some((_, work)) = self.open.take_if(|(open, _)| *open == ch) {
            work.close();
            self.shared.forget_watches();
            process::trim_heap();
            self.shared.counters.close();
            self.shared.send(FromWorker::Progress { ch, progress: self.shared.progress() });
        }
        self.shared.send(FromWorker::Closed { ch });
    }
}

/// The `write` thread. True: a thread of the worker stopped.
fn write_all(mut socket: &UnixStream, shared: &Shared) -> io::Result<bool> {
    let mut bytes = Vec::new();
    let mut due = SystemClock::mono();
    loop {
        let mut exit = false;
        let mut next = match shared.out.pop_within(due.since(SystemClock::mono())) {
            Popped::Item(item) => Some(item),
            Popped::TimedOut => None,
            Popped::Closed => return Ok(false),
        };
        while let Some(item) = next {
            match item {
                Outgoing::Message(message) => protocol::encode(&message, &mut bytes),
                Outgoing::Exit => exit = true,
            }
            next = if bytes.len() < BATCH_BYTES { shared.out.try_pop() } else { None };
        }
        if SystemClock::mono() >= due {
            due = SystemClock::mono() + PROGRESS;
            if let Some(ch) = shared.counters.channel() {
                let progress = shared.progress();
                protocol::encode(&FromWorker::Progress { ch, progress }, &mut bytes);
            }
        }
        socket.write_all(&bytes)?;
        bytes.clear();
        if exit {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Device, Process};
    use rung::pixels::protocol::Made;
    use std::os::unix::net::UnixListener;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    const SEATS: u32 = 4;
    const ADDRESS: &str = "RUNG_TEST_SEATS";

    /// The process ends, so it is a child: this binary, that one test. Its seats' sockets come to us.
    #[test]
    fn a_panic_in_one_channel_ends_the_process_and_every_channel_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("seats")).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "seat::tests::panics", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ADDRESS, folder.path().join("seats"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sockets: Vec<UnixStream> = (0..SEATS).map(|_| listener.accept().unwrap().0).collect();
        // The last one's daemon reads nothing: it must not keep the process from ending.
        let said: Vec<(u32, String)> = sockets[..3].iter().map(last_words).collect();
        assert_eq!(said[1], (4, "thread enc-360p of the worker stopped: no such plane".to_owned()));
        for other in [&said[0], &said[2]] {
            assert_eq!(other.1, format!("{}, in another channel of this process", said[1].1));
        }
        let until = SystemClock::mono() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if SystemClock::mono() > until {
                child.kill().unwrap();
            }
            std::thread::yield_now();
        };
        assert_eq!(status.signal(), Some(6));
    }

    fn last_words(mut socket: &UnixStream) -> (u32, String) {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        let mut decoder = protocol::Decoder::default();
        decoder.push(&bytes);
        let mut words = None;
        while let Some(message) = decoder.pop::<FromWorker>().unwrap() {
            assert!(words.is_none(), "something follows the last words: {message:?}");
            if let FromWorker::Failed { ch, what, lost: protocol::Lost::Process } = message {
                words = Some((ch, what));
            }
        }
        words.expect("last words")
    }

    #[test]
    #[ignore = "ends its process: run by a_panic_in_one_channel_ends_the_process_and_every_channel_is_told in a child"]
    fn panics() {
        let process = Process::of(Device {
            gpu: crate::gpu::cuda::GpuName::Index(0),
            driver_folder: None,
            patience: std::time::Duration::from_millis(500),
        });
        let about = Arc::new(Described { sandbox: String::new(), gpus: None });
        let address = std::env::var_os(ADDRESS).unwrap();
        let seats: Vec<Arc<Shared>> = (0..SEATS)
            .map(|number| {
                let (shared, socket) = (process.seat(number).unwrap(), UnixStream::connect(&address).unwrap());
                let (seated, about) = (Arc::clone(&shared), Arc::clone(&about));
                shared.spawn(format!("seat-{number}"), 0, move || drop(serve(socket, &seated, &about))).unwrap();
                shared
            })
            .collect();
        // More than a socket takes.
        let made = Made { video: true, pts: 0, dts: 0, random_access: true, data: vec![0; 4 << 20].into() };
        seats[3].send(FromWorker::Made { ch: 0, unit: made });
        let panicking = seats[1].spawn("enc-360p".to_owned(), 4, || panic!("no such plane")).unwrap();
        drop(panicking.join());
        panic!("it goes on");
    }
}

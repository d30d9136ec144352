//! The worker's two ends: messages in on the main thread, messages out on the `write` thread.
//!
//! The reader waits when a stage has no room: then the socket fills, and the daemon's bound on a worker's queue acts.

use rung::pixels::protocol::{self, FromWorker, ToWorker, VERSION};
use rung::time::SystemClock;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::av::process;
use crate::probe::{self, Described};
use crate::queue::Popped;
use crate::sandbox;
use crate::shared::{Outgoing, Shared};
use crate::work::Work;

/// Between two `Progress` messages; the protocol promises one in 200 ms.
const PROGRESS: Duration = Duration::from_millis(150);
/// A write of so much at once is enough.
const BATCH_BYTES: usize = 256 << 10;

/// Serves the daemon until its end closes.
///
/// # Errors
/// A sentence for the daemon's log: the socket broke, or the other end speaks another protocol.
pub fn serve(socket: OwnedFd) -> Result<(), String> {
    let socket = UnixStream::from(socket);
    let shared = Shared::new();
    // What reads the machine's files does it now; from the sandbox on there is the socket and memory.
    let gpu = probe::gpu();
    let sandbox = sandbox::enter()?;
    let peer = socket.try_clone().map_err(|e| format!("worker socket: {e}"))?;
    let broken = Arc::new(AtomicBool::new(false));
    let (out, gone) = (Arc::clone(&shared), Arc::clone(&broken));
    let writer = std::thread::Builder::new()
        .name("write".to_owned())
        .spawn(move || {
            // A socket that takes nothing more belongs to a daemon that is gone: the reader sees it too.
            let exit = write_all(&peer, &out).unwrap_or(false);
            gone.store(exit, Ordering::Release);
            // The reader ends with its socket: either the daemon is gone already, or this process must go.
            peer.shutdown(Shutdown::Both).is_ok()
        })
        .map_err(|e| format!("thread write: {e}"))?;
    shared.send(FromWorker::Hello { version: VERSION, pid: std::process::id() });
    let mut desk = Desk { shared: Arc::clone(&shared), about: Described { gpu, sandbox }, open: None };
    let read = desk.read_all(&socket);
    if broken.load(Ordering::Acquire) {
        return Err("a thread of the worker stopped: its codecs can not be trusted any more".to_owned());
    }
    // The daemon is gone: nobody wants what is still inside, so nothing is drained.
    shared.out.close();
    drop(writer);
    read
}

/// What the main thread knows: which channel is open.
struct Desk {
    shared: Arc<Shared>,
    about: Described,
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
            let what = format!("this software worker has channel {open} already and takes one: start another worker");
            return self.shared.fail(ch, what);
        }
        match work(&self.shared) {
            Ok(work) => self.open = Some((ch, work)),
            Err(what) => {
                self.shared.counters.close();
                self.shared.fail(ch, what);
            }
        }
    }

    fn close(&mut self, ch: u32) {
        // A channel that never opened is closed already.
        if let Some((_, work)) = self.open.take_if(|(open, _)| *open == ch) {
            work.close();
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

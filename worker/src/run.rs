//! The worker's two ends: messages in on the main thread, messages out on the `write` thread.
//!
//! The reader waits when a stage has no room: then the socket fills, and the daemon's bound on a worker's queue acts.

use rung::pixels::protocol::{self, FromWorker, Open, ToWorker, VERSION};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rung::time::SystemClock;

#[cfg(feature = "software")]
use crate::channel::Channel;
use crate::probe;
use crate::queue::Popped;
use crate::shared::{Outgoing, Shared};

/// Between two `Progress` messages; the protocol promises one in 200 ms.
const PROGRESS: Duration = Duration::from_millis(150);
/// A write of so much at once is enough.
const BATCH_BYTES: usize = 256 << 10;

/// Serves the daemon until its end closes.
///
/// # Errors
/// A sentence for the daemon's log: the socket broke, or the other end speaks another protocol.
pub fn serve(socket: OwnedFd, sandbox: String) -> Result<(), String> {
    let socket = UnixStream::from(socket);
    let system = System::open();
    let shared = Shared::new();
    let peer = socket.try_clone().map_err(|e| format!("worker socket: {e}"))?;
    let broken = Arc::new(AtomicBool::new(false));
    let (out, gone) = (Arc::clone(&shared), Arc::clone(&broken));
    let writer = std::thread::Builder::new()
        .name("write".to_owned())
        .spawn(move || {
            let exit = write_all(&peer, &out, &system).is_ok_and(|exit| exit);
            gone.store(exit, Ordering::Release);
            // The reader ends with its socket: either the daemon is gone already, or this process must go.
            peer.shutdown(Shutdown::Both).is_ok()
        })
        .map_err(|e| format!("thread write: {e}"))?;
    shared.send(FromWorker::Hello { version: VERSION, pid: std::process::id() });
    let mut desk = Desk { shared: Arc::clone(&shared), sandbox, channel: None };
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
    sandbox: String,
    channel: Option<Open_>,
}

/// The one channel of a software worker.
struct Open_ {
    ch: u32,
    #[cfg(feature = "software")]
    what: What,
}

#[cfg(feature = "software")]
enum What {
    Ladder(Channel),
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
            ToWorker::Probe => self.shared.send(FromWorker::Caps(probe::caps(&self.sandbox))),
            ToWorker::Open { ch, open } => self.open(ch, *open),
            ToWorker::Close { ch } => self.close(ch),
            ToWorker::Pattern { .. } => {}
            other => self.forward(other),
        }
        Ok(())
    }
}

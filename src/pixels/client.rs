//! Feeds and watches one channel's `rung-worker`: a process of its own, or a seat in a shared one. Non-blocking: the
//! owner polls `fd()` and calls `run`.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::hall::Seat;
use super::protocol::{self, FromWorker, ToWorker, VERSION};
use crate::media::limits::WORKER_SILENCE_SOFTWARE;
use crate::time::Mono;

/// Bytes that may wait for the worker's socket before `send` refuses.
const OUTGOING_BYTES_MAX: usize = crate::media::limits::PRIME_BYTES + crate::media::limits::WORKER_QUEUE_BYTES;

/// One channel's worker, from its start to its end. Dropped, its process is killed, or its seat is free.
pub struct Worker {
    place: Place,
    socket: UnixStream,
    incoming: protocol::Decoder,
    outgoing: VecDeque<u8>,
    arrived: VecDeque<FromWorker>,
    heard: Mono,
    /// Its hello came.
    greeted: bool,
    end: Option<String>,
    scratch: Vec<u8>,
}

enum Place {
    Own(Child),
    Seat(Seat),
}

/// What happens when `send` finds the worker's queue full: nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Worker {
    /// Starts `program` with its end of a socketpair as descriptor 3 and says hello.
    ///
    /// # Errors
    /// A sentence that names the program and what to do.
    pub fn spawn(program: &Path, now: Mono) -> Result<Worker, String> {
        let (ours, theirs) = pair(SockType::Stream)?;
        Worker::over(Place::Own(start(program, &[], theirs)?), ours, now)
    }

    /// As `spawn`, for a process that only says what this machine can do.
    ///
    /// # Errors
    /// As `spawn`.
    pub fn spawn_probe(program: &Path, driver_folder: Option<&Path>, now: Mono) -> Result<Worker, String> {
        let (ours, theirs) = pair(SockType::Stream)?;
        let mut arguments = vec![OsStr::new("--probe")];
        if let Some(folder) = driver_folder {
            arguments.extend([OsStr::new("--driver-folder"), folder.as_os_str()]);
        }
        Worker::over(Place::Own(start(program, &arguments, theirs)?), ours, now)
    }

    /// Says hello from a seat whose other end is on its way to its process.
    pub(super) fn seated(seat: Seat, socket: OwnedFd, now: Mono) -> Result<Worker, String> {
        Worker::over(Place::Seat(seat), socket, now)
    }

    fn over(place: Place, socket: OwnedFd, now: Mono) -> Result<Worker, String> {
        let socket = UnixStream::from(socket);
        let mut worker = Worker {
            place,
            socket,
            incoming: protocol::Decoder::default(),
            outgoing: VecDeque::new(),
            arrived: VecDeque::new(),
            heard: now,
            greeted: false,
            end: None,
            scratch: vec![0; 256 << 10],
        };
        // Should this fail, the worker goes as any other that is dropped.
        worker.socket.set_nonblocking(true).map_err(|e| format!("worker socket: {e}"))?;
        // An empty queue takes a hello.
        worker.send(&ToWorker::Hello { version: VERSION }).expect("the queue is empty");
        Ok(worker)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The owner must also poll for writability.
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty() && self.end.is_none()
    }

    /// Of its process, which may be that of other channels too.
    pub fn pid(&self) -> u32 {
        match &self.place {
            Place::Own(child) => child.id(),
            Place::Seat(seat) => seat.pid(),
        }
    }

    /// Its process can not be trusted: ended now, with every channel in it. A process of its own ends with the worker.
    pub fn condemn(&self, now: Mono, why: &str) {
        match &self.place {
            Place::Own(_) => {}
            Place::Seat(seat) => seat.condemn(now, why),
        }
    }

    /// Bytes that the worker has not taken yet.
    pub fn backlog(&self) -> usize {
        self.outgoing.len()
    }

    /// Queues a message and writes what the socket takes.
    ///
    /// # Errors
    /// `Full` if the worker is so far behind that the message was not queued.
    pub fn send(&mut self, message: &ToWorker) -> Result<(), Full> {
        if self.outgoing.len() > OUTGOING_BYTES_MAX {
            return Err(Full);
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        protocol::encode(message, &mut bytes);
        self.outgoing.extend(&bytes);
        self.scratch = bytes;
        self.flush();
        Ok(())
    }

    /// Moves bytes both ways without blocking.
    pub fn run(&mut self, now: Mono) {
        self.flush();
        self.scratch.resize(256 << 10, 0);
        while self.end.is_none() {
            match self.socket.read(&mut self.scratch) {
                Ok(0) => self.ended("closed its socket".into()),
                Ok(n) => {
                    self.heard = now;
                    self.incoming.push(&self.scratch[..n]);
                    self.take_messages();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // What it had not read yet went with it.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => self.ended("closed its socket".into()),
                Err(e) => self.ended(format!("socket: {e}")),
            }
        }
    }

    /// The next message that arrived.
    pub fn poll(&mut self) -> Option<FromWorker> {
        self.arrived.pop_front()
    }

    /// Why it is gone, once it is and its last message has been taken.
    pub fn end(&self) -> Option<&str> {
        if self.arrived.is_empty() { self.end.as_deref() } else { None }
    }

    /// How long it has said nothing at all. In a shared process the time that the process needs to become ready does not
    /// count: that has a bound of its own, which the hall watches.
    pub fn silence(&self, now: Mono) -> Duration {
        let since = match &self.place {
            Place::Seat(seat) if !self.greeted => seat.stood(now).map_or(now, |stood| stood.max(self.heard)),
            _ => self.heard,
        };
        now - since
    }

    /// A longer silence means that it hangs.
    pub fn silence_max(&self) -> Duration {
        match &self.place {
            Place::Own(_) => WORKER_SILENCE_SOFTWARE,
            Place::Seat(seat) => seat.patience(),
        }
    }

    fn take_messages(&mut self) {
        loop {
            match self.incoming.pop() {
                Ok(Some(FromWorker::Hello { version, .. })) if version != VERSION => {
                    return self.ended(format!(
                        "speaks protocol {version}, this daemon {VERSION}: install both from one build"
                    ));
                }
                Ok(Some(message)) => {
                    self.greeted |= matches!(message, FromWorker::Hello { .. });
                    self.arrived.push_back(message);
                }
                Ok(None) => return,
                Err(e) => return self.ended(e),
            }
        }
    }

    fn flush(&mut self) {
        while self.end.is_none() && !self.outgoing.is_empty() {
            let (front, _) = self.outgoing.as_slices();
            match self.socket.write(front) {
                Ok(n) => {
                    self.outgoing.drain(..n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // It takes nothing more; its last words may still be there to be read, and then the end.
                Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    self.outgoing.clear();
                    return;
                }
                Err(e) => self.ended(format!("socket: {e}")),
            }
        }
    }

    fn ended(&mut self, why: String) {
        if self.end.is_none() {
            let status = match &mut self.place {
                Place::Own(child) => child.try_wait().ok().flatten().map(|status| status.to_string()),
                Place::Seat(seat) => {
                    seat.shun();
                    seat.fate()
                }
            };
            let how = status.map_or_else(String::new, |status| format!(" ({status})"));
            self.end = Some(format!("worker {} {why}{how}", self.pid()));
        }
    }
}

impl Drop for Worker {
    /// Killed and reaped, or the socket closed: a worker holds nothing that needs a farewell.
    fn drop(&mut self) {
        if let Place::Own(child) = &mut self.place {
            // Both fail only if the process is already gone.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Two connected sockets that no other program inherits.
pub(super) fn pair(kind: SockType) -> Result<(OwnedFd, OwnedFd), String> {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|e| format!("no socketpair for a worker: {e}"))
}

/// The worker that belongs to this program: `rung-worker` beside it.
pub fn beside_this_program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.with_file_name("rung-worker");
    // Test binaries lie one folder deeper (target/debug/deps).
    if !beside.exists() && own.parent().is_some_and(|d| d.ends_with("deps")) {
        return own.parent().and_then(Path::parent).unwrap_or(Path::new("")).join("rung-worker");
    }
    beside
}

/// Starts `program` with `theirs` as its descriptor 3.
pub(super) fn start(program: &Path, arguments: &[&OsStr], theirs: OwnedFd) -> Result<Child, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).env("MALLOC_ARENA_MAX", "2");
    // As NVML and the kernel count, not the fastest first.
    command.env("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    // One of the worker's libraries asks the loader for the driver by name, and must find the same one.
    let folder = arguments.iter().position(|a| *a == "--driver-folder").and_then(|i| arguments.get(i + 1));
    if let Some(folder) = folder {
        let others = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let first = std::iter::once(PathBuf::from(folder)).chain(std::env::split_paths(&others));
        if let Ok(path) = std::env::join_paths(first) {
            command.env("LD_LIBRARY_PATH", path);
        }
    }
    crate::sys::process::inherit_as(&mut command, theirs.as_raw_fd(), protocol::WORKER_FD);
    let child = command.spawn().map_err(|e| {
        format!("{} cannot be started: {e}; install it beside rung or set worker.program", program.display())
    });
    drop(theirs);
    child
}

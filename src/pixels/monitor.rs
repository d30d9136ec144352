//! Spawns and hears one `rung-worker --monitor`. Non-blocking: the owner polls `fd()` and calls `run`.

use nix::sys::socket::SockType;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;

use super::client::{pair, start};
use super::health::{FromMonitor, VERSION};
use super::protocol::Decoder;

/// How a monitor is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// The `rung-worker` program.
    pub program: PathBuf,
    /// Where the driver's libraries lie, if not where the loader looks.
    pub driver_folder: Option<PathBuf>,
    /// Read instead of the kernel's log.
    pub kernel_log: Option<PathBuf>,
}

/// One monitor process, from spawn to its end.
pub struct Monitor {
    child: Child,
    socket: UnixStream,
    incoming: Decoder,
    arrived: VecDeque<FromMonitor>,
    end: Option<String>,
}

impl Monitor {
    /// `log_after`: how far a predecessor read the kernel's log.
    ///
    /// The process ends with the thread that spawned it.
    ///
    /// # Errors
    /// A sentence that names the program.
    pub fn spawn(launch: &Launch, log_after: Option<u64>) -> Result<Monitor, String> {
        let (ours, theirs) = pair(SockType::Stream)?;
        let mut arguments: Vec<&OsStr> = vec!["--monitor".as_ref()];
        for (name, path) in [("--driver-folder", &launch.driver_folder), ("--kernel-log", &launch.kernel_log)] {
            arguments.extend(path.iter().flat_map(|path| [name.as_ref(), path.as_os_str()]));
        }
        let after = log_after.map(|position| position.to_string());
        arguments.extend(after.iter().flat_map(|after| ["--kernel-log-after".as_ref(), OsStr::new(after)]));
        let child = start(&launch.program, &arguments, theirs)?;
        let socket = UnixStream::from(ours);
        socket.set_nonblocking(true).map_err(|e| format!("monitor socket: {e}"))?;
        Ok(Monitor { child, socket, incoming: Decoder::default(), arrived: VecDeque::new(), end: None })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Takes what came, without blocking.
    pub fn run(&mut self) {
        let mut bytes = [0; 16 << 10];
        while self.end.is_none() {
            match self.socket.read(&mut bytes) {
                Ok(0) => self.ended("closed its socket".into()),
                Ok(n) => {
                    self.incoming.push(&bytes[..n]);
                    self.take_messages();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.ended(format!("socket: {e}")),
            }
        }
    }

    /// The next message that arrived.
    pub fn poll(&mut self) -> Option<FromMonitor> {
        self.arrived.pop_front()
    }

    /// Why it is gone, once it is and its last message has been taken.
    pub fn end(&self) -> Option<&str> {
        if self.arrived.is_empty() { self.end.as_deref() } else { None }
    }

    /// Kills it. One that hangs in a call into the driver's kernel module may not go for a long time: the caller keeps
    /// what is returned and asks for its exit now and then.
    #[must_use = "a process that ended is a zombie until it is asked for"]
    pub fn kill(mut self) -> Child {
        // Fails only if it is gone already.
        drop(self.child.kill());
        self.child
    }

    fn take_messages(&mut self) {
        loop {
            match self.incoming.pop() {
                Ok(Some(FromMonitor::Hello { version, .. })) if version != VERSION => {
                    return self.ended(format!(
                        "speaks version {version}, this daemon {VERSION}: install both from one build"
                    ));
                }
                Ok(Some(message)) => self.arrived.push_back(message),
                Ok(None) => return,
                Err(e) => return self.ended(e),
            }
        }
    }

    fn ended(&mut self, why: String) {
        if self.end.is_none() {
            self.end = Some(format!("monitor {} {why}", self.child.id()));
        }
    }
}

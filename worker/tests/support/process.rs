//! A shared process of a GPU's channels, as the daemon sees it.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use rung::pixels::protocol::{self, FromShared, Join};
use rung::time::SystemClock;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    sendmsg, socketpair,
};
use rustix::time::Timespec;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use super::support::{Worker, spawn_in};

/// A shared process, with the control socket's daemon end.
pub(crate) struct Process {
    child: Child,
    control: OwnedFd,
}

impl Process {
    /// Its hello has been read.
    pub(crate) fn start() -> Process {
        Process::start_with(&[], |_| {})
    }

    /// With more arguments, and an environment.
    pub(crate) fn start_with(more: &[&str], environment: impl FnOnce(&mut Command)) -> Process {
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let child = spawn_in(&[&["--gpu", "0"], more].concat(), theirs, environment);
        let process = Process { child, control };
        match process.hear() {
            FromShared::Hello { version: protocol::VERSION, sandbox, .. } => assert!(sandbox.contains("a GPU's")),
            other => panic!("{other:?} instead of a hello"),
        }
        process
    }

    pub(crate) fn hear(&self) -> FromShared {
        let mut bytes = [0; 4096];
        let mut fds = [PollFd::new(&self.control, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 60, tv_nsec: 0 })).unwrap();
        assert_eq!(ready, 1, "the process says nothing");
        let (_, length) = recv(&self.control, &mut bytes[..], RecvFlags::empty()).unwrap();
        assert!(length > 0, "the process is gone");
        protocol::from_packet(&bytes[..length]).unwrap()
    }

    pub(crate) fn hand_over(&self, packet: &[u8]) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let descriptors = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        assert!(rights.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&self.control, &[IoSlice::new(packet)], &mut rights, SendFlags::empty()).unwrap();
        ours
    }

    pub(crate) fn join(&self, seat: u32) -> Worker {
        Worker::over(None, self.hand_over(&protocol::packet(&Join { seat })))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A channel whose socket was closed has left nothing behind.
    pub(crate) fn has_left(&self, seat: u32) {
        assert_eq!(self.hear(), FromShared::Left { seat });
    }

    /// Closes the control socket: the process goes, and well.
    pub(crate) fn end(self) {
        rustix::net::shutdown(&self.control, rustix::net::Shutdown::Both).unwrap();
        let status = self.wait();
        assert!(status.success(), "{status}");
    }

    /// It must go by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let until = SystemClock::mono() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(SystemClock::mono() < until, "the process does not go");
            std::thread::yield_now();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

//! A bell between threads: an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// `fd` is readable until somebody heard it.
    pub fn ring(&self) {
        // The counter of an eventfd cannot overflow with ones.
        drop(rustix::io::write(&self.0, &1u64.to_ne_bytes()).map_err(io::Error::from));
    }

    /// However often it rang. Call it before looking at what it rang for, so that nothing is missed.
    pub fn hear(&self) {
        // Nothing to read: it did not ring.
        drop(rustix::io::read(&self.0, &mut [0; 8]).map_err(io::Error::from));
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

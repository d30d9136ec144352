//! This process: descriptors handed to a spawned program, the heap.

use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets the spawned program find our descriptor `from` as its descriptor `to`, open across exec, and nobody else's.
///
/// `from` must stay open until `spawn` has returned.
pub fn inherit_as(command: &mut Command, from: RawFd, to: RawFd) {
    let dup = move || {
        if from == to {
            // dup2 onto itself would leave close-on-exec set.
            // SAFETY: fcntl on a descriptor that the caller of `inherit_as` keeps open until after spawn.
            let done = unsafe { libc::fcntl(from, libc::F_SETFD, 0) };
            return if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
        }
        // SAFETY: dup2 takes two integers; `from` is kept open by the caller, `to` is replaced in the child only.
        let done = unsafe { libc::dup2(from, to) };
        if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes async-signal-safe calls only and allocates nothing (last_os_error reads errno).
    unsafe {
        command.pre_exec(dup);
    }
}

/// Two heaps for all threads instead of eight a core, and mappings of their own for large blocks: parts come and go for
/// weeks, and what one thread freed must serve the next. Call it before any thread starts.
pub fn limit_heaps() {
    /// glibc's own first limit. Left alone it moves up with use, and a heap that holds parts has holes between them.
    const MAPPED_FROM: i32 = 128 << 10;
    // SAFETY: sets an integer of malloc; no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    // SAFETY: as above.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
}

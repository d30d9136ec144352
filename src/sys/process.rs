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

/// Two heaps for all threads instead of eight a core, which keep what they were given: pictures come and go for weeks, and
/// what one thread freed must serve the next. What stays for long has memory of its own (`pieces`), in blocks that are
/// mapped by themselves. Call it before any thread starts.
pub fn limit_heaps() {
    /// More than a key picture has: below, the kernel would clear new pages for each of them.
    const MAPPED_FROM: i32 = 1 << 20;
    /// Free memory at a heap's end that is not given back.
    const KEPT: i32 = 8 << 20;
    for (what, value) in [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, MAPPED_FROM), (libc::M_TRIM_THRESHOLD, KEPT)]
    {
        // SAFETY: sets an integer of malloc; no other thread runs yet.
        unsafe { libc::mallopt(what, value) };
    }
}

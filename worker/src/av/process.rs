//! What the process needs from the C library and no crate offers safely.
#![expect(unsafe_code, reason = "inherited descriptor and malloc knobs")]

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

/// The socket inherited as descriptor `fd`; `None` if there is no socket. To be called once, before anything is opened.
pub fn inherited_socket(fd: i32) -> Option<OwnedFd> {
    let is_socket = std::fs::metadata(format!("/proc/self/fd/{fd}")).is_ok_and(|m| m.file_type().is_socket());
    // SAFETY: the descriptor is open (just looked at), was made by the parent for this process, and has no other owner:
    // `main` asks for it once, before any other descriptor is made.
    is_socket.then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Two heaps are enough for a handful of threads; glibc's default of eight per core keeps what each once used. Pictures
/// get mappings of their own, which go back to the system when freed: left alone, glibc moves that limit up with use.
pub fn limit_heaps() {
    const MAPPED_FROM: i32 = 256 << 10;
    // SAFETY: sets an integer of malloc; called before any thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    // SAFETY: as above.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
}

/// Gives freed memory back to the system; after a channel closed.
pub fn trim_heap() {
    // SAFETY: malloc's own call, safe from any thread.
    unsafe { libc::malloc_trim(0) };
}

//! Several UDP sockets at one address, and a program in the kernel that says which one a datagram is for
//! (`SO_ATTACH_REUSEPORT_CBPF`).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes 12 to 15 of a datagram as a big-endian number pick the socket: `number >> shift & mask`, in the order in which the
/// sockets were bound. Zero, and datagrams that are shorter, go to the first. `socket`: any of them.
///
/// # Errors
/// That of `setsockopt`.
pub fn by_number_at_12(socket: BorrowedFd<'_>, shift: u32, mask: u32) -> io::Result<()> {
    let word = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let alu = |operation: u32| libc::BPF_ALU | operation | libc::BPF_K;
    let program = [
        step(word, 12),
        step(alu(libc::BPF_RSH), shift),
        step(alu(libc::BPF_AND), mask),
        // The accumulator: a load beyond the end has left with zero.
        step(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let mut program = program;
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `program` and the steps that it points to live until the call returns; the kernel copies them.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn step(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

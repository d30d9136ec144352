//! `recvmmsg`: many datagrams for one system call, with their sources and the kernel's drop counter. Datagrams are handed
//! on as slices of the memory that the kernel wrote them to.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use bytes::BytesMut;

use super::pieces::Pieces;

/// Datagrams per call.
pub const BATCH: usize = 64;
/// Bytes kept of one datagram. More than any packet on an Ethernet path, so that an oversized one is seen as such.
const SLOT: usize = 1_536;
/// Datagrams in one piece of memory.
const SLOTS: usize = 256;

/// Datagrams of one call.
pub struct RecvBatch {
    /// Where datagrams go.
    memory: Pieces,
    piece_bytes: usize,
    names: Box<[Name; BATCH]>,
    controls: Box<[Control; BATCH]>,
    received: Vec<(SocketAddr, BytesMut)>,
    emptied: bool,
    drops: u32,
}

/// Room for `sockaddr_in` or `sockaddr_in6`, aligned as they want it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; 32]);

/// Room for one control message with a 32-bit value.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 24]);

impl Default for RecvBatch {
    fn default() -> RecvBatch {
        RecvBatch::with_slots(SLOTS)
    }
}

impl RecvBatch {
    /// With pieces of memory for `slots` datagrams each, at least one.
    pub fn with_slots(slots: usize) -> RecvBatch {
        RecvBatch {
            memory: Pieces::default(),
            piece_bytes: slots.max(1) * SLOT,
            names: Box::new([Name([0; 32]); BATCH]),
            controls: Box::new([Control([0; 24]); BATCH]),
            received: Vec::with_capacity(BATCH),
            emptied: false,
            drops: 0,
        }
    }

    /// Takes what the socket holds, at most `BATCH` datagrams, without waiting; how many.
    ///
    /// # Errors
    /// Those of `recvmmsg`; an empty socket is `Ok(0)`.
    pub fn recv(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received.clear();
        let piece = self.memory.room(SLOT, self.piece_bytes);
        let slots = (piece.capacity() / SLOT).min(BATCH);
        let start = piece.spare_capacity_mut().as_mut_ptr();
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|i| {
            let slot = start.wrapping_add(i * SLOT);
            libc::iovec { iov_base: slot.cast(), iov_len: if i < slots { SLOT } else { 0 } }
        });
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|i| {
            // SAFETY: `mmsghdr` is a C struct of integers and pointers, for which all zeros is a value.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = self.names[i].0.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = 32;
            header.msg_hdr.msg_iov = ptr::from_mut(&mut parts[i]);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = 24;
            header
        });
        // SAFETY: each of the first `slots` headers points at one slot of `piece`, which has room for all of them, and at
        // one name and control of `self` and one entry of `parts`; all of them outlive the call and no two headers share
        // one. `slots` is at most the length of `headers`.
        let result = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), slots as u32, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        let Ok(count) = usize::try_from(result) else {
            self.emptied = true;
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        };
        self.emptied = count < slots;
        for (i, header) in headers.iter().enumerate().take(count) {
            let length = (header.msg_len as usize).min(SLOT);
            let rest = piece.split_off(SLOT);
            // SAFETY: the kernel wrote `length` bytes, at most a slot, at the start of what `piece` now is.
            unsafe { piece.set_len(length) };
            let datagram = mem::replace(piece, rest);
            if let Some(peer) = address(&self.names[i].0) {
                self.received.push((peer, datagram));
            }
            if header.msg_hdr.msg_controllen >= 20
                && let Some(drops) = overflow(&self.controls[i].0)
            {
                self.drops = drops;
            }
        }
        Ok(count)
    }

    /// The datagrams of the last call.
    pub fn drain(&mut self) -> impl Iterator<Item = (SocketAddr, BytesMut)> {
        self.received.drain(..)
    }

    /// The last call left nothing in the socket.
    pub fn emptied(&self) -> bool {
        self.emptied
    }

    /// Datagrams that the kernel threw away since the socket was made because its buffer was full (needs
    /// SO_RXQ_OVFL; wraps at 2^32).
    pub fn kernel_drops(&self) -> u32 {
        self.drops
    }
}

/// `sockaddr_in` or `sockaddr_in6` as bytes.
fn address(name: &[u8; 32]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes([name[0], name[1]]));
    let port = u16::from_be_bytes([name[2], name[3]]);
    match family {
        libc::AF_INET => {
            let ip = Ipv4Addr::new(name[4], name[5], name[6], name[7]);
            Some(SocketAddrV4::new(ip, port).into())
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = name[8..24].try_into().ok()?;
            let scope = u32::from_ne_bytes(name[24..28].try_into().ok()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope).into())
        }
        _ => None,
    }
}

/// The value of an SO_RXQ_OVFL control message.
fn overflow(control: &[u8; 24]) -> Option<u32> {
    let word = |at: usize| control.get(at..at + 4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    let head = mem::size_of::<libc::cmsghdr>();
    (word(head - 8)? == libc::SOL_SOCKET && word(head - 4)? == libc::SO_RXQ_OVFL)
        .then(|| word(head).map(i32::cast_unsigned))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn receive(socket: &UdpSocket, batch: &mut RecvBatch, wanted: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut seen = Vec::new();
        while seen.len() < wanted {
            let mut fds = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
            let limit = rustix::time::Timespec { tv_sec: 5, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1, "datagrams within 5 s");
            batch.recv(socket.as_fd()).unwrap();
            seen.extend(batch.drain().map(|(peer, bytes)| (peer, bytes.to_vec())));
        }
        seen
    }

    #[test]
    fn datagrams_come_with_their_bytes_and_sources_over_both_families() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (to, from) = (UdpSocket::bind(host).unwrap(), UdpSocket::bind(host).unwrap());
            for n in 0..100u8 {
                from.send_to(&vec![n; usize::from(n) + 1], to.local_addr().unwrap()).unwrap();
            }
            let mut batch = RecvBatch::default();
            let seen = receive(&to, &mut batch, 100);
            for (n, (peer, bytes)) in seen.iter().enumerate() {
                assert_eq!(*peer, from.local_addr().unwrap());
                assert_eq!(bytes, &vec![n as u8; n + 1]);
            }
            assert_eq!(batch.recv(to.as_fd()).unwrap(), 0, "empty is not an error");
        }
    }

    #[test]
    fn datagrams_that_the_kernel_dropped_are_counted() {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        nix::sys::socket::setsockopt(&to, nix::sys::socket::sockopt::RxqOvfl, &1).unwrap();
        nix::sys::socket::setsockopt(&to, nix::sys::socket::sockopt::RcvBuf, &4096).unwrap();
        for _ in 0..100 {
            from.send_to(&[7; 1000], to.local_addr().unwrap()).unwrap();
        }
        let mut batch = RecvBatch::default();
        let seen = receive(&to, &mut batch, 1).len();
        // The counter rides on datagrams that were queued after the drops.
        from.send_to(&[8; 10], to.local_addr().unwrap()).unwrap();
        receive(&to, &mut batch, 1);
        assert_eq!(seen + batch.kernel_drops() as usize, 100);
    }

    #[test]
    fn memory_is_used_again_when_its_datagrams_are_gone_and_not_before() {
        let (to, from) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut batch = RecvBatch::with_slots(4);
        let (mut held, mut places) = (Vec::new(), std::collections::BTreeSet::new());
        for n in 0..400u16 {
            from.send_to(&n.to_be_bytes(), to.local_addr().unwrap()).unwrap();
            while batch.recv(to.as_fd()).unwrap() == 0 {}
            let (_, bytes) = batch.drain().next().unwrap();
            places.insert(bytes.as_ptr() as usize);
            held.push((n, bytes));
            if held.len() > 10 {
                let (n, bytes) = held.remove(0);
                assert_eq!(bytes[..], n.to_be_bytes(), "nobody wrote over it");
            }
        }
        assert!(places.len() <= 6 * 4, "{} places for 400 datagrams, ten of them held", places.len());
    }

    #[test]
    fn an_oversized_datagram_is_longer_than_any_packet() {
        let (to, from) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        from.send_to(&[1; 9000], to.local_addr().unwrap()).unwrap();
        let seen = receive(&to, &mut RecvBatch::default(), 1);
        assert!(seen[0].1.len() > 1500, "{}", seen[0].1.len());
    }
}

//! The UDP sockets that publishers come to, whatever they speak.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// A listening socket that does not wait. The any-address of IPv6 takes IPv4 too.
pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
    match open(address, false) {
        // A kernel without IPv6.
        Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) && address.ip().is_unspecified() => {
            open((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)
        }
        result => result,
    }
}

/// Another one at the address of one that allows it (`SO_REUSEPORT`).
pub(super) fn bind_beside(address: SocketAddr) -> io::Result<Socket> {
    open(address, true)
}

fn open(address: SocketAddr, beside: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(beside)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Asks for a receive buffer of so many bytes; those that the kernel grants.
pub(super) fn tune(socket: &UdpSocket, receive_buffer: usize) -> usize {
    // Past rmem_max needs CAP_NET_ADMIN; without it the kernel clamps the plain request.
    if setsockopt(socket, sockopt::RcvBufForce, &receive_buffer).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &receive_buffer).ok();
    }
    // The kernel doubles the figure for its own bookkeeping.
    getsockopt(socket, sockopt::RcvBuf).unwrap_or(0) / 2
}

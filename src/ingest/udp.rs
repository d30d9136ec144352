//! The UDP sockets that publishers come to, whatever they speak.

use std::fmt;
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

/// What to say of a receive buffer that is smaller than was asked for, bytes; `None`: it is not.
pub(super) fn buffer_warning(protocol: &str, granted: usize, wanted: usize) -> Option<String> {
    (granted < wanted).then(|| {
        format!(
            "the kernel grants the {protocol} port a receive buffer of {} kB instead of {} kB: bursts may be lost; \
             give CAP_NET_ADMIN or set net.core.rmem_max={wanted}",
            granted >> 10,
            wanted >> 10
        )
    })
}

/// Why a port could not be opened; prints one sentence.
#[derive(Debug)]
pub struct BindError {
    protocol: &'static str,
    address: SocketAddr,
    source: io::Error,
}

impl BindError {
    pub(super) fn new(protocol: &'static str, address: SocketAddr, source: io::Error) -> BindError {
        BindError { protocol, address, source }
    }

    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, port, ip) = (self.protocol, self.address.port(), self.address.ip());
        match self.source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "port {port}/udp is in use: another program listens for {protocol} there (find it with `ss -lunp sport = \
                 :{port}`); stop that one or choose another port"
            ),
            io::ErrorKind::PermissionDenied => {
                write!(f, "port {port}/udp may not be opened: ports below 1024 need CAP_NET_BIND_SERVICE")
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "port {port}/udp: no interface of this box has the address {ip}")
            }
            _ => write!(f, "port {port}/udp on {ip} cannot be opened: {}", self.source),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

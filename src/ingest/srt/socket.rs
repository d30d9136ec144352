//! The UDP socket below SRT: batches in, batches out.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use smallvec::SmallVec;
use socket2::{Domain, Protocol, Type};

use super::outbox::Outbox;
use super::place;
use crate::ingest::udp::{self, BindError};
use crate::sys::mmsg::{BATCH, RecvBatch};
use crate::sys::steer;

pub(super) struct Socket {
    socket: UdpSocket,
    /// Bytes that the kernel queues for us.
    pub(super) receive_buffer: usize,
    /// Datagrams that the kernel did not take from us.
    pub(super) send_drops: u64,
    /// ICMP told us that nobody listens there.
    pub(super) refused: u64,
}

impl Socket {
    /// So many listening sockets at one address, at least one; a datagram comes to that whose place is in the number that it
    /// is for. The any-address of IPv6 takes IPv4 too.
    pub(super) fn bind_all(address: SocketAddr, receive_buffer: usize, of: usize) -> Result<Vec<Socket>, BindError> {
        let sockets = open_all(address, of).map_err(|source| BindError::new("SRT", address, source))?;
        Ok(sockets.into_iter().map(|socket| Socket::tuned(socket, receive_buffer)).collect())
    }

    /// A socket that talks to one peer only.
    pub(super) fn connect(peer: SocketAddr, receive_buffer: usize) -> io::Result<Socket> {
        Socket::connect_from(None, peer, receive_buffer)
    }

    /// The same from an address of this machine.
    pub(super) fn connect_from(local: Option<IpAddr>, peer: SocketAddr, receive_buffer: usize) -> io::Result<Socket> {
        let socket = socket2::Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if let Some(local) = local {
            socket.bind(&SocketAddr::from((local, 0)).into())?;
        }
        socket.connect(&peer.into())?;
        Ok(Socket::tuned(socket.into(), receive_buffer))
    }

    fn tuned(socket: UdpSocket, receive_buffer: usize) -> Socket {
        let receive_buffer = udp::tune(&socket, receive_buffer);
        // Its drops come as zero on kernels without it.
        setsockopt(&socket, sockopt::RxqOvfl, &1).ok();
        Socket { socket, receive_buffer, send_drops: 0, refused: 0 }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether there are datagrams in `batch` now. An error of a UDP socket is an ICMP report about an earlier datagram:
    /// it was taken off the socket with this call, so the next one goes on.
    pub(super) fn recv(&mut self, batch: &mut RecvBatch) -> bool {
        for _ in 0..2 {
            match batch.recv(self.socket.as_fd()) {
                Ok(count) => return count > 0,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.refused += 1,
                Err(_) => {}
            }
        }
        false
    }

    /// Sends all of `outbox`, in order, and empties it. What the kernel does not take is counted and gone: every
    /// SRT control packet is repeated by its timer, and data is asked for again.
    pub(super) fn send(&mut self, outbox: &mut Outbox) {
        let mut done = 0;
        while done < outbox.len() {
            match send_batch(self.socket.as_fd(), outbox, done) {
                Ok(sent) if sent > 0 => done += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.send_drops += (outbox.len() - done) as u64;
                    break;
                }
                // The first datagram of the rest is the one that failed.
                other => {
                    self.refused +=
                        u64::from(other.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused));
                    self.send_drops += 1;
                    done += 1;
                }
            }
        }
        outbox.clear();
    }
}

fn open_all(address: SocketAddr, of: usize) -> io::Result<Vec<UdpSocket>> {
    // The first alone, as any program: another one at this address is found.
    let first = udp::bind(address)?;
    if of <= 1 {
        return Ok(vec![first.into()]);
    }
    first.set_reuse_port(true)?;
    let first: UdpSocket = first.into();
    let address = first.local_addr()?;
    let mut all = vec![first];
    for _ in 1..of {
        all.push(udp::bind_beside(address)?.into());
    }
    steer::by_number_at_12(all[0].as_fd(), place::SHIFT, place::mask(of))?;
    Ok(all)
}

/// The datagrams of `outbox` behind the first `done`, as many as one call takes.
fn send_batch(socket: BorrowedFd<'_>, outbox: &Outbox, done: usize) -> io::Result<usize> {
    let rest = outbox.iter().skip(done).take(BATCH);
    let (addresses, parts): (SmallVec<[_; BATCH]>, SmallVec<[_; BATCH]>) =
        rest.map(|(to, head, body)| (to.as_any(), [IoSlice::new(head), IoSlice::new(body)])).unzip();
    let mut space: [[MaybeUninit<u8>; 0]; BATCH] = [[]; BATCH];
    let mut controls: SmallVec<[_; BATCH]> = space.iter_mut().map(|space| SendAncillaryBuffer::new(space)).collect();
    let mut messages: SmallVec<[_; BATCH]> = addresses
        .iter()
        .zip(&parts)
        .zip(&mut controls)
        .map(|((address, part), control)| MMsgHdr::new_with_addr(address, part, control))
        .collect();
    Ok(sendmmsg(socket, &mut messages, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_a_sentence_that_names_it() {
        for of in [1, 3] {
            let first = Socket::bind_all("127.0.0.1:0".parse().unwrap(), 1 << 20, of).unwrap();
            let taken = first[0].local_addr().unwrap();
            let error = Socket::bind_all(taken, 1 << 20, of).err().expect("the port is taken").to_string();
            assert!(error.starts_with(&format!("port {}/udp is in use: ", taken.port())), "{error}");
        }
        let error = Socket::bind_all("192.0.2.1:0".parse().unwrap(), 1, 1).err().expect("not ours").to_string();
        assert!(error.contains("no interface of this box has the address 192.0.2.1"), "{error}");
    }

    #[test]
    fn the_any_address_of_ipv6_takes_both_families() {
        let mut port = Socket::bind_all("[::]:0".parse().unwrap(), 1 << 20, 1).unwrap().swap_remove(0);
        let number = port.local_addr().unwrap().port();
        let mut batch = RecvBatch::default();
        for to in ["127.0.0.1", "[::1]"] {
            let mut from = Socket::connect(format!("{to}:{number}").parse().unwrap(), 1 << 16).unwrap();
            let mut outbox = Outbox::default();
            for _ in 0..100 {
                outbox.push(format!("{to}:{number}").parse().unwrap(), |buffer| buffer.extend([1; 20]));
            }
            from.send(&mut outbox);
            assert_eq!(from.send_drops, 0);
            let mut seen = 0;
            while seen < 100 {
                assert!(port.recv(&mut batch), "loopback delivers at once: {seen}");
                seen += batch.drain().count();
            }
        }
    }

    #[test]
    fn datagrams_come_to_the_socket_that_their_number_names() {
        for address in ["[::]:0", "127.0.0.1:0"] {
            let mut ports = Socket::bind_all(address.parse().unwrap(), 1 << 20, 3).unwrap();
            let to: SocketAddr = format!("127.0.0.1:{}", ports[0].local_addr().unwrap().port()).parse().unwrap();
            // Many senders, so that nothing but the number can be what decides.
            for _ in 0..20 {
                let mut from = Socket::connect(to, 1 << 16).unwrap();
                let mut outbox = Outbox::default();
                for number in 0..3_u32 {
                    let socket = 0x3fff_ff00 | number << place::SHIFT;
                    outbox.push(to, |packet| packet.extend([[0; 4], [0; 4], [0; 4], socket.to_be_bytes()].concat()));
                }
                outbox.push(to, |packet| packet.extend([0; 16]));
                outbox.push(to, |packet| packet.extend([0xff; 7]));
                from.send(&mut outbox);
            }
            let mut batch = RecvBatch::default();
            let counts = ports.iter_mut().map(|port| {
                let mut seen = 0;
                while port.recv(&mut batch) {
                    seen += batch.drain().count();
                }
                seen
            });
            assert_eq!(counts.collect::<Vec<_>>(), [60, 20, 20], "{address}");
        }
    }
}

//! Places for connections: so many in all, so many from one address, so many in a TLS handshake.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::connection::{Connection, Order};
use crate::media::networks::Networks;
use crate::telemetry::{Label, Metric, count};
use crate::time::SystemClock;

/// Why there is no place: a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    All,
    Address,
}

impl Full {
    pub(super) fn label(self) -> &'static str {
        match self {
            Full::All => "overload",
            Full::Address => "address",
        }
    }
}

#[derive(Debug)]
pub(super) struct Seats {
    connections_max: usize,
    connections_per_address: usize,
    handshakes_max: usize,
    /// Whose connections are counted in all only.
    trusted: Networks,
    open: Mutex<Open>,
    pub(super) emptied: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, Arc<Connection>>,
    addresses: BTreeMap<IpAddr, usize>,
    /// Those in a handshake, oldest first.
    shaking: BTreeSet<u64>,
}

impl Seats {
    pub(super) fn new(options: &super::Options) -> Seats {
        Seats {
            connections_max: options.connections_max,
            connections_per_address: options.connections_per_address,
            handshakes_max: options.handshakes_max,
            trusted: options.trusted.clone(),
            open: Mutex::default(),
            emptied: Notify::new(),
        }
    }

    /// A place for one more connection. One that begins with a TLS handshake takes the place of the oldest handshake
    /// where too many are under way: honest ones are done by then.
    pub(super) fn admit(self: &Arc<Seats>, peer: SocketAddr, secure: bool) -> Result<Seat, Full> {
        let address = Some(block(peer.ip())).filter(|_| !self.trusted.hold(peer.ip()));
        let mut open = self.open();
        if open.connections.len() >= self.connections_max {
            return Err(Full::All);
        }
        if let Some(address) = address {
            let taken = open.addresses.entry(address).or_default();
            if *taken >= self.connections_per_address {
                return Err(Full::Address);
            }
            *taken += 1;
        }
        let (key, connection) = (open.next, Arc::new(Connection::new(peer, SystemClock::mono())));
        open.next += 1;
        open.connections.insert(key, Arc::clone(&connection));
        if secure {
            connection.shakes();
            open.shaking.insert(key);
            if open.shaking.len() > self.handshakes_max
                && let Some(oldest) = open.shaking.pop_first()
                && let Some(oldest) = open.connections.get(&oldest)
            {
                count(Metric::HttpConnectionsClosed, &[Label::Reason("handshakes")], 1);
                oldest.give(Order::Drop);
            }
        }
        Ok(Seat { seats: Arc::clone(self), key, address, connection })
    }

    pub(super) fn count(&self) -> usize {
        self.open().connections.len()
    }

    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.open().connections.values().cloned().collect()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    key: u64,
    /// Under which it is counted.
    address: Option<IpAddr>,
    pub(super) connection: Arc<Connection>,
}

impl Seat {
    /// The handshake is done.
    pub(super) fn shaken(&self) {
        self.seats.open().shaking.remove(&self.key);
        self.connection.shaken();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.seats.open();
        open.connections.remove(&self.key);
        open.shaking.remove(&self.key);
        if let Some(address) = self.address
            && let Some(taken) = open.addresses.get_mut(&address)
        {
            *taken -= 1;
            if *taken == 0 {
                open.addresses.remove(&address);
            }
        }
        if open.connections.is_empty() {
            self.seats.emptied.notify_waiters();
        }
    }
}

/// What one subscriber is given: an IPv4 address, or 64 bits of IPv6.
fn block(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(change: impl FnOnce(&mut super::super::Options)) -> Arc<Seats> {
        let mut options =
            super::super::Options { connections_per_address: 2, trusted: Networks::none(), ..Default::default() };
        change(&mut options);
        Arc::new(Seats::new(&options))
    }

    fn from(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 1)
    }

    #[test]
    fn an_address_is_a_v4_host_or_a_v6_network_of_64_bits() {
        let seats = seats(|_| {});
        let held =
            [seats.admit(from("192.0.2.1"), false).unwrap(), seats.admit(from("::ffff:192.0.2.1"), false).unwrap()];
        assert_eq!(seats.admit(from("192.0.2.1"), false).unwrap_err(), Full::Address, "mapped or not");
        let _other = seats.admit(from("192.0.2.2"), false).unwrap();
        let _six =
            [seats.admit(from("2001:db8::1"), false).unwrap(), seats.admit(from("2001:db8::2:1"), false).unwrap()];
        assert_eq!(seats.admit(from("2001:db8::3"), false).unwrap_err(), Full::Address);
        let _next = seats.admit(from("2001:db8:0:1::1"), false).unwrap();
        drop(held);
        assert!(seats.admit(from("192.0.2.1"), false).is_ok(), "places come back");
        assert!(!seats.open().addresses.contains_key(&"192.0.2.1".parse::<IpAddr>().unwrap()), "and are forgotten");
    }

    #[test]
    fn the_trusted_are_counted_in_all_only() {
        let seats = seats(|options| {
            options.connections_max = 4;
            options.trusted = Networks::parse(["10.0.0.0/8"]).unwrap();
        });
        let held: Vec<Seat> = (0..4).map(|_| seats.admit(from("::ffff:10.1.2.3"), false).unwrap()).collect();
        assert_eq!(seats.admit(from("10.1.2.3"), false).unwrap_err(), Full::All);
        drop(held);
        assert_eq!(seats.count(), 0);
    }

    #[test]
    fn the_oldest_handshake_makes_room_and_those_that_are_done_are_left_alone() {
        let seats = seats(|options| (options.handshakes_max, options.connections_per_address) = (2, 100));
        let done = seats.admit(from("192.0.2.1"), true).unwrap();
        done.shaken();
        let held: Vec<Seat> = (0..4).map(|_| seats.admit(from("192.0.2.1"), true).unwrap()).collect();
        let orders: Vec<Order> = held.iter().map(|seat| seat.connection.order()).collect();
        assert_eq!(orders, [Order::Drop, Order::Drop, Order::Go, Order::Go]);
        assert_eq!(done.connection.order(), Order::Go);
    }
}

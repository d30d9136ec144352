//! Handshakes under way: how many there may be, of all and of one address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ingest::admission::prefix;

/// Connections that have not said whose publisher they are, and of these from one address.
const HANDSHAKES_MAX: usize = 256;
const HANDSHAKES_PER_ADDRESS: usize = 32;
/// With so many, whoever comes has to show first that its address is its own.
const BUSY: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<BTreeMap<IpAddr, usize>>);

impl Gate {
    /// `None`: there are too many.
    pub(super) fn enter(self: &Arc<Gate>, address: IpAddr) -> Option<Entering> {
        let address = prefix(address);
        let mut under_way = self.under_way();
        let mine = under_way.get(&address).copied().unwrap_or(0);
        if mine >= HANDSHAKES_PER_ADDRESS || under_way.values().sum::<usize>() >= HANDSHAKES_MAX {
            return None;
        }
        under_way.insert(address, mine + 1);
        Some(Entering { gate: Arc::clone(self), address })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.under_way().values().sum::<usize>() >= BUSY
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Entering {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Drop for Entering {
    fn drop(&mut self) {
        let mut under_way = self.gate.under_way();
        if let Some(mine) = under_way.get_mut(&self.address) {
            *mine -= 1;
            if *mine == 0 {
                under_way.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_all_have_theirs() {
        let gate = Arc::new(Gate::default());
        let enter = |n: u32| gate.enter(IpAddr::V4(n.into()));
        let mut mine: Vec<Entering> = std::iter::from_fn(|| enter(1)).collect();
        assert_eq!(mine.len(), HANDSHAKES_PER_ADDRESS);
        assert!(gate.is_busy() && enter(2).is_some());
        mine.pop();
        assert!(!gate.is_busy() && enter(1).is_some());
        let all: Vec<Entering> = (10..10_000).map_while(enter).collect();
        assert_eq!(all.len() + mine.len(), HANDSHAKES_MAX);
        drop((all, mine));
        assert!(gate.under_way().is_empty());
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let gate = Arc::new(Gate::default());
        let all: Vec<Entering> =
            (0..99).map_while(|n| gate.enter(format!("2001:db8::{n:x}").parse().unwrap())).collect();
        assert_eq!(all.len(), HANDSHAKES_PER_ADDRESS);
    }
}

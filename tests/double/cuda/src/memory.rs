//! Device memory: host memory of its own mapping each, so that kernels built for the CPU reach it, with a page behind and
//! before that nobody may touch. An allocation ends at that page (up to 511 bytes of padding, looked at when it is
//! freed), so whoever runs over it crashes there and then. A freed range is not given out again for a long time.
//! Fresh memory is filled with a pattern, never with zeros.
//!
//! Pinned host memory lies the same way.

use std::collections::{BTreeMap, VecDeque};

use crate::abi::{Answer, Code, broken, refuse};
use crate::codes::INVALID_VALUE;
use crate::mapping::Mapping;

pub(crate) struct Memory {
    live: BTreeMap<u64, Allocation>,
    /// Where something was, the oldest first: for sentences, and so that no address is used again soon.
    freed: VecDeque<(u64, usize, Mapping)>,
}

pub(crate) struct Allocation {
    pub(crate) context: u64,
    pub(crate) device: i32,
    /// As the caller asked.
    pub(crate) bytes: usize,
    pub(crate) kind: Kind,
    /// Someone frees it: in a stream's order, or while the device finishes its work.
    pub(crate) going: bool,
    pub(crate) locks: Vec<Lock>,
    mapping: Mapping,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Linear,
    Pitched,
    /// Stream-ordered.
    Pool,
    /// Host memory; whether devices may reach it at its address.
    Pinned {
        mapped: bool,
    },
}

impl Kind {
    /// As `rung_double_memory_kind` answers.
    pub(crate) fn number(self) -> i32 {
        match self {
            Kind::Linear => 1,
            Kind::Pitched => 2,
            Kind::Pool => 3,
            Kind::Pinned { .. } => 4,
        }
    }

    pub(crate) fn pinned(self) -> bool {
        matches!(self, Kind::Pinned { .. })
    }

    /// May stand where the driver wants a device pointer.
    fn device(self) -> bool {
        self != Kind::Pinned { mapped: false }
    }
}

/// No one may write to these bytes for now.
pub(crate) struct Lock {
    pub(crate) address: u64,
    pub(crate) bytes: usize,
    pub(crate) depth: i32,
    pub(crate) sum: u64,
}

impl Memory {
    pub(crate) const fn new() -> Memory {
        Memory { live: BTreeMap::new(), freed: VecDeque::new() }
    }

    /// New memory, or nothing if the machine has none.
    pub(crate) fn make(&mut self, context: u64, device: i32, bytes: usize, kind: Kind) -> Option<u64> {
        let mapping = Mapping::new(bytes)?;
        let address = mapping.address();
        let allocation = Allocation { context, device, bytes, kind, going: false, locks: Vec::new(), mapping };
        self.live.insert(address, allocation);
        Some(address)
    }

    /// Frees what begins at `address`: how many bytes it was.
    pub(crate) fn take(&mut self, address: u64) -> Option<usize> {
        let allocation = self.live.remove(&address)?;
        if allocation.locks.iter().any(|lock| lock.depth > 0) {
            broken("memory", format_args!("at {address:#x}: freed while it is mapped for an encoder"));
        }
        if let Some(at) = allocation.mapping.spoilt() {
            let bytes = allocation.bytes;
            broken("memory", format_args!("at {address:#x}: something wrote at byte {at} of {bytes}"));
        }
        let Allocation { bytes, mapping, .. } = allocation;
        mapping.close();
        self.freed.push_back((address, bytes, mapping));
        let held: usize = self.freed.iter().map(|(_, _, mapping)| mapping.reserved()).sum();
        if self.freed.len() > FREED_MAX || held > FREED_BYTES_MAX {
            self.freed.pop_front();
        }
        Some(bytes)
    }

    /// The allocation that begins here and that nobody frees yet.
    pub(crate) fn begins(&mut self, call: &str, address: u64, pinned: bool) -> Result<&mut Allocation, Code> {
        let fits = |a: &Allocation| a.kind.pinned() == pinned && !a.going;
        if !self.live.get(&address).is_some_and(fits) {
            return refuse(call, format_args!("{}", self.what(address, pinned)), INVALID_VALUE);
        }
        Ok(self.live.get_mut(&address).expect("it was just there"))
    }

    /// The device memory in which `bytes` bytes from `address` on lie.
    pub(crate) fn device(&self, call: &str, address: u64, bytes: usize) -> Result<(u64, &Allocation), Code> {
        let found = self.around(address).filter(|(_, a)| a.kind.device() && !a.going);
        let Some((start, allocation)) = found else {
            return refuse(call, self.what(address, false), INVALID_VALUE);
        };
        within(call, start, allocation, address, bytes)?;
        Ok((start, allocation))
    }

    /// Whether host memory from `address` on is pinned. Device memory is refused, and pinned memory that is too short.
    pub(crate) fn host(&self, call: &str, address: u64, bytes: usize) -> Result<bool, Code> {
        match self.around(address) {
            None if self.was(address).is_some() => refuse(call, self.what(address, true), INVALID_VALUE),
            None => Ok(false),
            Some((start, allocation)) if allocation.kind.pinned() => {
                within(call, start, allocation, address, bytes)?;
                Ok(true)
            }
            Some(_) => refuse(call, format_args!("{address:#x} is device memory, given as the host's"), INVALID_VALUE),
        }
    }

    /// Which allocation an address lies in, or just behind.
    pub(crate) fn around(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (start, allocation) = self.live.range(..=address).next_back()?;
        (address <= start + allocation.bytes as u64).then_some((*start, allocation))
    }

    pub(crate) fn around_mut(&mut self, address: u64) -> Option<&mut Allocation> {
        let (start, allocation) = self.live.range_mut(..=address).next_back()?;
        (address < start + allocation.bytes as u64).then_some(allocation)
    }

    /// Bytes of a GPU that are taken.
    pub(crate) fn used(&self, device: i32) -> usize {
        let of = self.live.values().filter(|a| a.device == device && !a.kind.pinned());
        of.map(|allocation| allocation.bytes.next_multiple_of(GRAIN)).sum()
    }

    /// Device memory that belongs to a context.
    pub(crate) fn of(&self, context: u64) -> Vec<u64> {
        let of = self.live.iter().filter(|(_, a)| a.context == context && !a.kind.pinned());
        of.map(|(address, _)| *address).collect()
    }

    fn was(&self, address: u64) -> Option<&(u64, usize, Mapping)> {
        self.freed.iter().rev().find(|(start, bytes, _)| (*start..start + *bytes as u64).contains(&address))
    }

    fn what(&self, address: u64, pinned: bool) -> String {
        let wanted = if pinned { "pinned memory" } else { "device memory" };
        if let Some((start, allocation)) = self.around(address) {
            let kind = match allocation.kind {
                _ if allocation.going => "memory that is being freed",
                Kind::Pinned { .. } => "pinned memory",
                _ => "device memory",
            };
            return format!(
                "{address:#x} is {kind}, {} bytes into its {}: no {wanted} begins or is usable there",
                address - start,
                allocation.bytes
            );
        }
        match self.was(address) {
            Some(_) => format!("{address:#x} was freed"),
            None => format!("{address:#x} is no {wanted}"),
        }
    }
}

fn within(call: &str, start: u64, allocation: &Allocation, address: u64, bytes: usize) -> Answer {
    let into = (address - start) as usize;
    if into.checked_add(bytes).is_some_and(|end| end <= allocation.bytes) {
        return Ok(());
    }
    let have = allocation.bytes;
    refuse(call, format_args!("{bytes} bytes from byte {into} on, of an allocation of {have}"), INVALID_VALUE)
}

/// What the smallest allocation takes of a card.
const GRAIN: usize = 512;

/// How much of what was freed keeps its address.
const FREED_MAX: usize = 512;
const FREED_BYTES_MAX: usize = 4 << 30;

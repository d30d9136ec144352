//! Purpose: the daemon's view of the machine's GPUs: it keeps a `rung-worker --monitor` alive and believes what it says.
//! Time: `Mono`; a report a second is the monitor's sign of life.
//! Invariants: one thread of its own, which nobody waits for: readers share a snapshot, events wait in a bounded queue. A
//! card is known by its slot, whatever NVML's numbers do. A card that was condemned by an error stays so until it has been
//! away, or until the daemon starts anew.
//! When it fails: a monitor that dies or hangs is replaced with growing waits, and media never notices. Without a driver it
//! is said once and looked for again now and then.

mod core;
mod events;
mod watch;

pub use self::core::{GpuEvent, GpuHealth, GpuView, MonitorState, Tuning};
pub use self::watch::GpuWatch;
pub use crate::pixels::health::{GpuValues, PciAddress, Remedy, Throttle};

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// What is known of the GPUs now. Cheap to clone, cheap to ask; the default knows of none and never will.
#[derive(Clone, Debug, Default)]
pub struct Gpus {
    shared: Option<Arc<Shared>>,
}

/// The monitor and every GPU, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub monitor: MonitorState,
    /// By number. A card that was lost stays.
    pub gpus: Vec<GpuView>,
}

#[derive(Debug)]
struct Shared {
    snapshot: Mutex<Arc<Snapshot>>,
    events: Mutex<VecDeque<GpuEvent>>,
}

/// Events that may wait for the supervisor. When it is full the oldest goes: the snapshot tells how things are.
const EVENTS_MAX: usize = 1_024;

impl Gpus {
    pub fn snapshot(&self) -> Arc<Snapshot> {
        match &self.shared {
            Some(shared) => Arc::clone(&shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Arc::new(Snapshot { monitor: MonitorState::Off, gpus: Vec::new() }),
        }
    }

    /// The next thing that the supervisor of workers must know, in order. There is one supervisor.
    pub fn poll(&self) -> Option<GpuEvent> {
        self.shared.as_ref()?.events.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Shared {
    fn push(&self, event: GpuEvent) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }

    fn set(&self, snapshot: Snapshot) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }
}

#[cfg(test)]
mod tests;

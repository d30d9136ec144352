//! Events: each record makes a mark that the stream sets when it comes by; whoever waits, waits for the mark that was the
//! latest when it asked.
#![expect(unsafe_code, reason = "exports the driver's C ABI")]
#![expect(clippy::disallowed_types, reason = "measures between events")]

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::abi::{Code, Out, counted, fault, in_context, refuse};
use crate::codes::{INVALID_HANDLE, INVALID_VALUE, NOT_READY};
use crate::context::Here;
use crate::stream::{played_by_host, submit};
use crate::world::{Kind, world};

pub(crate) struct Event {
    pub(crate) context: u64,
    /// Of the latest record.
    pub(crate) mark: Option<Arc<Mark>>,
    timed: bool,
}

pub(crate) struct Mark {
    reached: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Mark {
    fn new() -> Arc<Mark> {
        Arc::new(Mark { reached: Mutex::new(None), changed: Condvar::new() })
    }

    fn reached(&self) -> Option<Instant> {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait(&self) {
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(reached, |reached| reached.is_none()));
    }
}

/// Set when the stream comes by, and as well when the stream's context failed and the work is skipped: nobody waits for
/// ever.
struct Setter(Arc<Mark>);

impl Drop for Setter {
    fn drop(&mut self) {
        *self.0.reached.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.changed.notify_all();
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(event: Out<u64>, flags: u32) -> Code {
    in_context("cuEventCreate", |here| {
        // An event between processes can not be timed.
        if flags > 7 || flags & 6 == 4 {
            return refuse("cuEventCreate", format_args!("flags {flags:#x}"), INVALID_VALUE);
        }
        let mut world = world();
        let handle = world.handle(Kind::Event);
        world.events.insert(handle, Event { context: here.context, mark: None, timed: flags & 2 == 0 });
        drop(world);
        counted("live events", 1);
        event.put("cuEventCreate", handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: u64) -> Code {
    in_context("cuEventDestroy_v2", |_| {
        let mut world = world();
        if world.events.remove(&event).is_none() {
            return world.unknown("cuEventDestroy_v2", Kind::Event, event, INVALID_HANDLE);
        }
        drop(world);
        counted("live events", -1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: u64, stream: u64) -> Code {
    in_context("cuEventRecord", |here| record("cuEventRecord", here, event, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecordWithFlags(event: u64, stream: u64, flags: u32) -> Code {
    in_context("cuEventRecordWithFlags", |here| {
        if flags > 1 {
            return refuse("cuEventRecordWithFlags", format_args!("flags {flags:#x}"), INVALID_VALUE);
        }
        record("cuEventRecordWithFlags", here, event, stream)
    })
}

fn record(call: &str, here: &Here, event: u64, stream: u64) -> Result<(), Code> {
    {
        let world = world();
        let Some(known) = world.events.get(&event) else {
            return world.unknown(call, Kind::Event, event, INVALID_HANDLE);
        };
        if known.context != here.context {
            return refuse(call, "the event is another context's", INVALID_HANDLE);
        }
    }
    let mark = Mark::new();
    let setter = Setter(Arc::clone(&mark));
    submit(call, here, stream, move || drop(setter))?;
    if let Some(event) = world().events.get_mut(&event) {
        event.mark = Some(mark);
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: u64) -> Code {
    in_context("cuEventQuery", |here| {
        let mark = latest("cuEventQuery", event)?;
        here.fit()?;
        if mark.is_none_or(|mark| mark.reached().is_some()) { Ok(()) } else { Err(NOT_READY) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: u64) -> Code {
    in_context("cuEventSynchronize", |here| {
        let mark = latest("cuEventSynchronize", event)?;
        played_by_host(fault("cuda.sync"), &here.failed)?;
        if let Some(mark) = mark {
            mark.wait();
        }
        here.fit()
    })
}

fn latest(call: &str, event: u64) -> Result<Option<Arc<Mark>>, Code> {
    let world = world();
    match world.events.get(&event) {
        Some(event) => Ok(event.mark.clone()),
        None => world.unknown(call, Kind::Event, event, INVALID_HANDLE),
    }
}

/// Milliseconds between two events. (The `_v2` form came with driver 570.)
#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime(milliseconds: Out<f32>, from: u64, to: u64) -> Code {
    in_context("cuEventElapsedTime", |_| {
        let marks = [timed(from)?, timed(to)?];
        let [Some(from), Some(to)] = marks.map(|mark| mark.reached()) else { return Err(NOT_READY) };
        let [after, before] = [to.saturating_duration_since(from), from.saturating_duration_since(to)];
        milliseconds.put("cuEventElapsedTime", (after.as_secs_f32() - before.as_secs_f32()) * 1000.0)
    })
}

fn timed(event: u64) -> Result<Arc<Mark>, Code> {
    let world = world();
    match world.events.get(&event) {
        None => world.unknown("cuEventElapsedTime", Kind::Event, event, INVALID_HANDLE),
        Some(Event { timed: false, .. }) => {
            refuse("cuEventElapsedTime", "an event was made without timing", INVALID_HANDLE)
        }
        Some(Event { mark: None, .. }) => refuse("cuEventElapsedTime", "an event was never recorded", INVALID_HANDLE),
        Some(Event { mark: Some(mark), .. }) => Ok(Arc::clone(mark)),
    }
}

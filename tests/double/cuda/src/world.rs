//! Everything that lives, by handle. A handle is a number that no later object gets again, and no address: whoever reads
//! through one crashes, and one that was destroyed is known for what it was.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::abi::{Code, refuse};
use crate::context::Context;
use crate::event::Event;
use crate::memory::Memory;
use crate::module::{Function, Module};
use crate::stream::Stream;

pub(crate) struct World {
    serial: u64,
    /// How many there are, once `cuInit` was called.
    pub(crate) gpus: Option<i32>,
    /// The active primary context of each GPU.
    pub(crate) primary: BTreeMap<i32, u64>,
    /// Flags for a GPU's primary context.
    pub(crate) flags: BTreeMap<i32, u32>,
    pub(crate) contexts: BTreeMap<u64, Context>,
    pub(crate) streams: BTreeMap<u64, Stream>,
    /// Destroyed, but with work still to do.
    pub(crate) closing: Vec<Stream>,
    pub(crate) events: BTreeMap<u64, Event>,
    pub(crate) modules: BTreeMap<u64, Module>,
    pub(crate) functions: BTreeMap<u64, Function>,
    pub(crate) memory: Memory,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Context = 1,
    Stream,
    Event,
    Module,
    Function,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Context => "context",
            Kind::Stream => "stream",
            Kind::Event => "event",
            Kind::Module => "module",
            Kind::Function => "function",
        })
    }
}

impl World {
    pub(crate) fn handle(&mut self, kind: Kind) -> u64 {
        self.serial += 1;
        MARK | (kind as u64) << 40 | self.serial << 4
    }

    /// Records that `handle` is no `wanted` that lives, and says what it is.
    pub(crate) fn unknown<T>(&self, call: &str, wanted: Kind, handle: u64, code: Code) -> Result<T, Code> {
        refuse(call, format_args!("{handle:#x} is {}, not a live {wanted}", self.what(handle)), code)
    }

    fn what(&self, handle: u64) -> String {
        let kinds = [Kind::Context, Kind::Stream, Kind::Event, Kind::Module, Kind::Function];
        let marked = handle >> 48 == MARK >> 48 && (handle & SERIAL) >> 4 <= self.serial;
        let kind = kinds.into_iter().find(|kind| marked && handle >> 40 & 0xff == *kind as u64);
        match kind {
            None => "no handle that was ever given out".to_owned(),
            Some(kind) if self.lives(kind, handle) => format!("a {kind}"),
            Some(kind) => format!("a {kind} that was destroyed"),
        }
    }

    fn lives(&self, kind: Kind, handle: u64) -> bool {
        match kind {
            Kind::Context => self.contexts.contains_key(&handle),
            Kind::Stream => self.streams.contains_key(&handle),
            Kind::Event => self.events.contains_key(&handle),
            Kind::Module => self.modules.contains_key(&handle),
            Kind::Function => self.functions.contains_key(&handle),
        }
    }
}

/// No address of a user process begins so.
const MARK: u64 = 0x00c0_0000_0000_0000;
const SERIAL: u64 = (1 << 40) - 1;

/// Held for a moment only: never while anything waits for a stream.
pub(crate) fn world() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

static WORLD: Mutex<World> = Mutex::new(World {
    serial: 0,
    gpus: None,
    primary: BTreeMap::new(),
    flags: BTreeMap::new(),
    contexts: BTreeMap::new(),
    streams: BTreeMap::new(),
    closing: Vec::new(),
    events: BTreeMap::new(),
    modules: BTreeMap::new(),
    functions: BTreeMap::new(),
    memory: Memory::new(),
});

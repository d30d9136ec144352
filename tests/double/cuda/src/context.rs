//! Primary contexts, and which one is current on a thread. A context that met a sticky error answers it for ever: its
//! objects can not be freed any more, and only the end of the process helps.
#![expect(unsafe_code, reason = "exports the driver's C ABI")]

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::abi::{Answer, Code, Out, broken, counted, fault, in_context, initialised, refuse};
use crate::codes::{CONTEXT_IS_DESTROYED, INVALID_CONTEXT, INVALID_VALUE, SUCCESS};
use crate::device::{known, memory_bytes};
use crate::stream::{Queue, played_by_host, wait_all};
use crate::world::{Kind, World, world};

pub(crate) struct Context {
    pub(crate) device: i32,
    retained: u32,
    pub(crate) failed: Failed,
    /// The default stream, once it was used.
    pub(crate) legacy: Option<Arc<Queue>>,
}

/// The sticky error of a context, or `SUCCESS`.
#[derive(Clone)]
pub(crate) struct Failed(Arc<AtomicU32>);

impl Failed {
    fn new() -> Failed {
        Failed(Arc::new(AtomicU32::new(SUCCESS)))
    }

    pub(crate) fn set(&self, code: Code) {
        // The first one stays.
        let first = self.0.compare_exchange(SUCCESS, code, Ordering::SeqCst, Ordering::SeqCst);
        if first.is_ok() {
            counted("contexts failed", 1);
        }
    }

    pub(crate) fn check(&self) -> Answer {
        match self.0.load(Ordering::SeqCst) {
            SUCCESS => Ok(()),
            code => Err(code),
        }
    }
}

/// The context that is current on the calling thread.
pub(crate) struct Here {
    pub(crate) context: u64,
    pub(crate) device: i32,
    pub(crate) failed: Failed,
}

impl Here {
    pub(crate) fn fit(&self) -> Answer {
        self.failed.check()
    }
}

pub(crate) fn here(call: &str) -> Result<Here, Code> {
    let Some(context) = current() else {
        return refuse(call, "no context is current on this thread", INVALID_CONTEXT);
    };
    match world().contexts.get(&context) {
        Some(Context { device, failed, .. }) => Ok(Here { context, device: *device, failed: failed.clone() }),
        None => refuse(call, "the current context was released", CONTEXT_IS_DESTROYED),
    }
}

thread_local! {
    static CURRENT: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn current() -> Option<u64> {
    CURRENT.with_borrow(|stack| stack.last().copied())
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(context: Out<u64>, device: i32) -> Code {
    initialised("cuDevicePrimaryCtxRetain", || {
        known("cuDevicePrimaryCtxRetain", device)?;
        let (handle, new) = retain(&mut world(), device)?;
        if new {
            counted("live contexts", 1);
        }
        context.put("cuDevicePrimaryCtxRetain", handle)
    })
}

fn retain(world: &mut World, device: i32) -> Result<(u64, bool), Code> {
    if let Some(handle) = world.primary.get(&device).copied() {
        let context = world.contexts.get_mut(&handle).expect("a primary context is a context");
        context.failed.check()?;
        context.retained += 1;
        return Ok((handle, false));
    }
    let handle = world.handle(Kind::Context);
    world.primary.insert(device, handle);
    world.contexts.insert(handle, Context { device, retained: 1, failed: Failed::new(), legacy: None });
    Ok((handle, true))
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: i32) -> Code {
    initialised("cuDevicePrimaryCtxRelease_v2", || {
        known("cuDevicePrimaryCtxRelease_v2", device)?;
        let Some(last) = release(&mut world(), device)? else {
            return refuse("cuDevicePrimaryCtxRelease_v2", "it is not retained", INVALID_CONTEXT);
        };
        match last {
            0 => Ok(()),
            handle => destroy("cuDevicePrimaryCtxRelease_v2", handle),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease(device: i32) -> Code {
    cuDevicePrimaryCtxRelease_v2(device)
}

/// The context if this was the last one who held it, 0 if others do, `None` if nobody did.
fn release(world: &mut World, device: i32) -> Result<Option<u64>, Code> {
    let Some(handle) = world.primary.get(&device).copied() else { return Ok(None) };
    let context = world.contexts.get_mut(&handle).expect("a primary context is a context");
    context.failed.check()?;
    context.retained -= 1;
    if context.retained > 0 {
        return Ok(Some(0));
    }
    world.primary.remove(&device);
    Ok(Some(handle))
}

/// The driver takes back whatever is left; whoever left it has lost count.
fn destroy(call: &str, handle: u64) -> Answer {
    wait_all(handle);
    let mut world = world();
    let streams: Vec<u64> = world.streams.iter().filter(|(_, s)| s.context == handle).map(|(h, _)| *h).collect();
    let events: Vec<u64> = world.events.iter().filter(|(_, e)| e.context == handle).map(|(h, _)| *h).collect();
    let modules: Vec<u64> = world.modules.iter().filter(|(_, m)| m.context == handle).map(|(h, _)| *h).collect();
    let allocations = world.memory.of(handle);
    let mut left = Vec::new();
    for (what, count, live) in [
        ("streams", streams.len(), "live streams"),
        ("events", events.len(), "live events"),
        ("modules", modules.len(), "live modules"),
        ("allocations", allocations.len(), "live allocations"),
    ] {
        if count > 0 {
            left.push(format!("{count} {what}"));
            counted(live, -(count as i64));
        }
    }
    for stream in streams {
        world.streams.remove(&stream).expect("it was listed").queue.close();
    }
    for event in events {
        world.events.remove(&event);
    }
    for module in modules {
        world.modules.remove(&module);
        world.functions.retain(|_, function| function.module != module);
    }
    for address in allocations {
        let bytes = world.memory.take(address).expect("it was listed");
        counted("live bytes", -(bytes as i64));
    }
    if let Some(Context { legacy: Some(queue), .. }) = world.contexts.remove(&handle) {
        queue.close();
    }
    counted("live contexts", -1);
    if !left.is_empty() {
        broken(call, format_args!("the context was given up with {} left in it", left.join(", ")));
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) -> Code {
    initialised("cuDevicePrimaryCtxSetFlags_v2", || {
        known("cuDevicePrimaryCtxSetFlags_v2", device)?;
        set_flags("cuDevicePrimaryCtxSetFlags_v2", device, flags)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) -> Code {
    initialised("cuDevicePrimaryCtxGetState", || {
        known("cuDevicePrimaryCtxGetState", device)?;
        let world = world();
        flags.put("cuDevicePrimaryCtxGetState", world.flags.get(&device).copied().unwrap_or(0))?;
        active.put("cuDevicePrimaryCtxGetState", i32::from(world.primary.contains_key(&device)))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetFlags(flags: u32) -> Code {
    in_context("cuCtxSetFlags", |here| set_flags("cuCtxSetFlags", here.device, flags))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetFlags(flags: Out<u32>) -> Code {
    in_context("cuCtxGetFlags", |here| {
        flags.put("cuCtxGetFlags", world().flags.get(&here.device).copied().unwrap_or(0))
    })
}

/// One way to wait (auto, spin, yield, blocking) and a few bits.
fn set_flags(call: &str, device: i32, flags: u32) -> Answer {
    if !matches!(flags & 7, 0 | 1 | 2 | 4) || flags & !0xff != 0 {
        return refuse(call, format_args!("flags {flags:#x}"), INVALID_VALUE);
    }
    world().flags.insert(device, flags);
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(context: Out<u64>) -> Code {
    initialised("cuCtxGetCurrent", || context.put("cuCtxGetCurrent", current().unwrap_or(0)))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: u64) -> Code {
    initialised("cuCtxSetCurrent", || {
        if context != 0 {
            lives("cuCtxSetCurrent", context)?;
        }
        CURRENT.with_borrow_mut(|stack| {
            stack.pop();
            stack.extend((context != 0).then_some(context));
        });
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPushCurrent_v2(context: u64) -> Code {
    initialised("cuCtxPushCurrent_v2", || {
        lives("cuCtxPushCurrent_v2", context)?;
        CURRENT.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPopCurrent_v2(context: Out<u64>) -> Code {
    initialised("cuCtxPopCurrent_v2", || {
        let Some(popped) = CURRENT.with_borrow_mut(Vec::pop) else {
            return refuse("cuCtxPopCurrent_v2", "no context is current on this thread", INVALID_CONTEXT);
        };
        context.put_if(popped);
        Ok(())
    })
}

fn lives(call: &str, context: u64) -> Answer {
    let world = world();
    if world.contexts.contains_key(&context) {
        return Ok(());
    }
    world.unknown(call, Kind::Context, context, INVALID_CONTEXT)
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetDevice(device: Out<i32>) -> Code {
    initialised("cuCtxGetDevice", || device.put("cuCtxGetDevice", here("cuCtxGetDevice")?.device))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> Code {
    in_context("cuCtxSynchronize", |here| {
        played_by_host(fault("cuda.sync"), &here.failed)?;
        wait_all(here.context);
        here.fit()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> Code {
    in_context("cuMemGetInfo_v2", |here| {
        let bytes = memory_bytes(here.device);
        free.put("cuMemGetInfo_v2", bytes.saturating_sub(world().memory.used(here.device)))?;
        total.put("cuMemGetInfo_v2", bytes)
    })
}

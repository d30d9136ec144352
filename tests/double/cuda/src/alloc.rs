//! Device and pinned memory: given out, freed, asked about, and locked for whoever mapped it.
#![expect(unsafe_code, reason = "exports the driver's C ABI")]

use crate::abi::{Answer, Code, Out, broken, counted, fault, in_context, initialised, refuse};
use crate::codes::{INVALID_VALUE, OUT_OF_MEMORY};
use crate::context::Here;
use crate::device::{PITCH_MAX, memory_bytes};
use crate::mapping;
use crate::memory::{Kind, Lock};
use crate::stream::{submit, wait_all};
use crate::world::world;

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(memory: Out<u64>, bytes: usize) -> Code {
    in_context("cuMemAlloc_v2", |here| {
        memory.put("cuMemAlloc_v2", allocate("cuMemAlloc_v2", here, Some(bytes), Kind::Linear)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocPitch_v2(
    memory: Out<u64>,
    pitch: Out<usize>,
    width: usize,
    height: usize,
    element: u32,
) -> Code {
    in_context("cuMemAllocPitch_v2", |here| {
        if !matches!(element, 4 | 8 | 16) {
            let why = format_args!("elements of {element} bytes: 4, 8 or 16 are possible");
            return refuse("cuMemAllocPitch_v2", why, INVALID_VALUE);
        }
        let row = width.checked_next_multiple_of(PITCH).filter(|row| *row <= PITCH_MAX);
        let bytes = row.and_then(|row| row.checked_mul(height));
        pitch.put("cuMemAllocPitch_v2", row.unwrap_or(0))?;
        memory.put("cuMemAllocPitch_v2", allocate("cuMemAllocPitch_v2", here, bytes, Kind::Pitched)?)
    })
}

/// The grain of pitches.
const PITCH: usize = 512;

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(memory: Out<u64>, bytes: usize, stream: u64) -> Code {
    in_context("cuMemAllocAsync", |here| {
        let address = allocate("cuMemAllocAsync", here, Some(bytes), Kind::Pool)?;
        memory.put("cuMemAllocAsync", address)?;
        submit("cuMemAllocAsync", here, stream, || ()).map(|_| ())
    })
}

/// `None` bytes: more than can be said.
fn allocate(call: &str, here: &Here, bytes: Option<usize>, kind: Kind) -> Result<u64, Code> {
    if bytes == Some(0) {
        return refuse(call, "0 bytes", INVALID_VALUE);
    }
    fault("cuda.alloc").now()?;
    let bytes = bytes.ok_or(OUT_OF_MEMORY)?;
    let total = memory_bytes(here.device);
    let mut world = world();
    if world.memory.used(here.device).checked_add(bytes).is_none_or(|used| used > total) {
        return Err(OUT_OF_MEMORY);
    }
    let address = world.memory.make(here.context, here.device, bytes, kind).ok_or(OUT_OF_MEMORY)?;
    drop(world);
    counted("live allocations", 1);
    counted("live bytes", bytes as i64);
    Ok(address)
}

/// Waits for all work of the context that the memory is of, as the driver does.
#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(memory: u64) -> Code {
    in_context("cuMemFree_v2", |_| {
        if memory == 0 {
            return Ok(());
        }
        let context = {
            let mut world = world();
            let allocation = world.memory.begins("cuMemFree_v2", memory, false)?;
            allocation.going = true;
            allocation.context
        };
        wait_all(context);
        gone(memory);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(memory: u64, stream: u64) -> Code {
    in_context("cuMemFreeAsync", |here| {
        if memory == 0 {
            return Ok(());
        }
        {
            let mut world = world();
            let allocation = world.memory.begins("cuMemFreeAsync", memory, false)?;
            if allocation.kind != Kind::Pool {
                return refuse("cuMemFreeAsync", "the memory is not of cuMemAllocAsync", INVALID_VALUE);
            }
        }
        submit("cuMemFreeAsync", here, stream, move || gone(memory))?;
        // Whatever is called from now on comes too late, in this stream and in others.
        if let Some(allocation) = world().memory.around_mut(memory) {
            allocation.going = true;
        }
        Ok(())
    })
}

fn gone(memory: u64) {
    let taken = world().memory.take(memory);
    if let Some(bytes) = taken {
        counted("live allocations", -1);
        counted("live bytes", -(bytes as i64));
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(memory: Out<u64>, bytes: usize, flags: u32) -> Code {
    in_context("cuMemHostAlloc", |here| pin("cuMemHostAlloc", here, memory, bytes, flags))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(memory: Out<u64>, bytes: usize) -> Code {
    in_context("cuMemAllocHost_v2", |here| pin("cuMemAllocHost_v2", here, memory, bytes, 0))
}

fn pin(call: &str, here: &Here, memory: Out<u64>, bytes: usize, flags: u32) -> Answer {
    if bytes == 0 || flags > 7 {
        return refuse(call, format_args!("{bytes} bytes, flags {flags:#x}"), INVALID_VALUE);
    }
    fault("cuda.pinned").now()?;
    let kind = Kind::Pinned { mapped: flags & 2 != 0 };
    let address = world().memory.make(here.context, here.device, bytes, kind).ok_or(OUT_OF_MEMORY)?;
    counted("live pinned", 1);
    memory.put(call, address)
}

/// Waits for all work of the context, as the driver does.
#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(memory: u64) -> Code {
    in_context("cuMemFreeHost", |_| {
        let context = {
            let mut world = world();
            let allocation = world.memory.begins("cuMemFreeHost", memory, true)?;
            allocation.going = true;
            allocation.context
        };
        wait_all(context);
        world().memory.take(memory);
        counted("live pinned", -1);
        Ok(())
    })
}

/// The address is the same; the memory must have been asked for with CU_MEMHOSTALLOC_DEVICEMAP.
#[unsafe(no_mangle)]
extern "C" fn cuMemHostGetDevicePointer_v2(device: Out<u64>, host: u64, flags: u32) -> Code {
    in_context("cuMemHostGetDevicePointer_v2", |_| {
        let mapped = world().memory.around(host).is_some_and(|(_, a)| a.kind == Kind::Pinned { mapped: true });
        if !mapped || flags != 0 {
            let why = format_args!("{host:#x} is not mapped pinned memory, or flags {flags:#x} are not 0");
            return refuse("cuMemHostGetDevicePointer_v2", why, INVALID_VALUE);
        }
        device.put("cuMemHostGetDevicePointer_v2", host)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetAddressRange_v2(base: Out<u64>, bytes: Out<usize>, memory: u64) -> Code {
    in_context("cuMemGetAddressRange_v2", |_| {
        let world = world();
        let (start, allocation) = world.memory.device("cuMemGetAddressRange_v2", memory, 1)?;
        base.put_if(start);
        bytes.put_if(allocation.bytes);
        Ok(())
    })
}

/// Attributes 1 (context), 2 (type of memory: 1 host, 2 device), 3 and 4 (device's and host's address), 8 (managed),
/// 9 (GPU), 11 and 12 (begin and size), 17 (pool, 0 for memory that is of none).
#[unsafe(no_mangle)]
extern "C" fn cuPointerGetAttribute(value: Out<u64>, attribute: u32, memory: u64) -> Code {
    initialised("cuPointerGetAttribute", || {
        let world = world();
        let Some((start, allocation)) = world.memory.around(memory) else {
            // The way to ask whether the driver knows an address: no contract is broken.
            return Err(INVALID_VALUE);
        };
        let pinned = allocation.kind.pinned();
        let narrow = |number: u32| Out(value.0.cast::<u32>()).put("cuPointerGetAttribute", number);
        match attribute {
            1 => value.put("cuPointerGetAttribute", allocation.context),
            2 => narrow(if pinned { 1 } else { 2 }),
            3 if !pinned || allocation.kind == (Kind::Pinned { mapped: true }) => {
                value.put("cuPointerGetAttribute", memory)
            }
            4 if pinned => value.put("cuPointerGetAttribute", memory),
            8 => narrow(0),
            9 => narrow(allocation.device.cast_unsigned()),
            11 => value.put("cuPointerGetAttribute", start),
            12 => value.put("cuPointerGetAttribute", allocation.bytes as u64),
            17 => value.put("cuPointerGetAttribute", if allocation.kind == Kind::Pool { POOL } else { 0 }),
            _ => Err(INVALID_VALUE),
        }
    })
}

/// The handle of the only pool.
const POOL: u64 = 0x00c0_0900_0000_0010;

/// What memory an address lies in: 0 none of the driver's, 1 of `cuMemAlloc`, 2 pitched, 3 stream-ordered (which NVENC
/// refuses), 4 pinned host memory.
#[unsafe(no_mangle)]
extern "C" fn rung_double_memory_kind(memory: u64) -> i32 {
    world().memory.around(memory).map_or(0, |(_, allocation)| allocation.kind.number())
}

/// +1: nobody may write to the allocation that `memory` lies in, -1: they may again. What copies and memsets write is
/// looked at when they run; what launches write is found out by a sum of the bytes when the lock ends. 0, or 1 if the
/// driver has no such memory.
#[unsafe(no_mangle)]
extern "C" fn rung_double_lock(memory: u64, change: i32) -> i32 {
    let range = world().memory.around(memory).map(|(start, allocation)| (start, allocation.bytes));
    range.map_or(1, |(start, bytes)| rung_double_lock_range(start, bytes, change))
}

/// The same for some bytes of an allocation: end it with the same numbers.
#[unsafe(no_mangle)]
extern "C" fn rung_double_lock_range(memory: u64, bytes: usize, change: i32) -> i32 {
    let mut world = world();
    let Some(allocation) = world.memory.around_mut(memory) else { return 1 };
    let same = |lock: &Lock| (lock.address, lock.bytes) == (memory, bytes);
    let at = allocation.locks.iter().position(same).unwrap_or_else(|| {
        allocation.locks.push(Lock { address: memory, bytes, depth: 0, sum: mapping::sum(memory, bytes) });
        allocation.locks.len() - 1
    });
    let lock = &mut allocation.locks[at];
    lock.depth += change;
    if lock.depth < 0 {
        broken("rung_double_lock", format_args!("{memory:#x} was not locked"));
    }
    if lock.depth <= 0 {
        let lock = allocation.locks.swap_remove(at);
        if lock.sum != mapping::sum(memory, bytes) {
            broken("memory", format_args!("at {memory:#x}: {bytes} bytes were written to while they were mapped"));
        }
    }
    0
}

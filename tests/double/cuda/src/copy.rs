//! Copies and fills. What is asked is checked at the call, where the caller can be told, and done on the stream's
//! thread. As the driver has it: asynchronous copies read and write pinned host memory when the stream comes to them,
//! copies from pageable memory take its bytes at the call, copies to pageable memory return when they are done;
//! synchronous forms go through the default stream, and those from device to device, as fills, do not wait. (A
//! synchronous copy from pageable memory may return before it has arrived on a card; here it has arrived.)
#![expect(unsafe_code, reason = "exports the driver's C ABI and moves bytes by address")]

use std::ptr;

use crate::abi::{Answer, Code, In, aside, broken, counted, fault, in_context, refuse};
use crate::codes::{ILLEGAL_ADDRESS, INVALID_VALUE, NOT_SUPPORTED};
use crate::context::{Failed, Here};
use crate::device::PITCH_MAX;
use crate::stream::{played_in_stream, submit};
use crate::world::world;

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(to: u64, from: u64, bytes: usize) -> Code {
    line("cuMemcpyHtoD_v2", Place::Device(to), Place::Host(from), bytes, None)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: u64, from: u64, bytes: usize) -> Code {
    line("cuMemcpyDtoH_v2", Place::Host(to), Place::Device(from), bytes, None)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> Code {
    line("cuMemcpyDtoD_v2", Place::Device(to), Place::Device(from), bytes, None)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) -> Code {
    line("cuMemcpyHtoDAsync_v2", Place::Device(to), Place::Host(from), bytes, Some(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) -> Code {
    line("cuMemcpyDtoHAsync_v2", Place::Host(to), Place::Device(from), bytes, Some(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) -> Code {
    line("cuMemcpyDtoDAsync_v2", Place::Device(to), Place::Device(from), bytes, Some(stream))
}

fn line(call: &'static str, to: Place, from: Place, bytes: usize, stream: Option<u64>) -> Code {
    in_context(call, |here| {
        let (to, from) = (Rows { place: to, pitch: bytes }, Rows { place: from, pitch: bytes });
        copy(call, here, to, from, Size { width: bytes, height: 1 }, stream)
    })
}

/// As CUDA_MEMCPY2D.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Memcpy2D {
    from_x: usize,
    from_y: usize,
    from_type: u32,
    from_host: u64,
    from_device: u64,
    from_array: u64,
    from_pitch: usize,
    to_x: usize,
    to_y: usize,
    to_type: u32,
    to_host: u64,
    to_device: u64,
    to_array: u64,
    to_pitch: usize,
    width: usize,
    height: usize,
}

const _: () = assert!(size_of::<Memcpy2D>() == 128, "as the header lays it out");

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy2D_v2(what: In<Memcpy2D>) -> Code {
    rows("cuMemcpy2D_v2", what, None)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy2DUnaligned_v2(what: In<Memcpy2D>) -> Code {
    rows("cuMemcpy2DUnaligned_v2", what, None)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy2DAsync_v2(what: In<Memcpy2D>, stream: u64) -> Code {
    rows("cuMemcpy2DAsync_v2", what, Some(stream))
}

fn rows(call: &'static str, what: In<Memcpy2D>, stream: Option<u64>) -> Code {
    in_context(call, |here| {
        let what = what.get(call)?;
        let size = Size { width: what.width, height: what.height };
        let side = |kind, host, device, pitch, x, y| Rows::of(call, kind, [host, device], pitch, [x, y], size);
        let from = side(what.from_type, what.from_host, what.from_device, what.from_pitch, what.from_x, what.from_y)?;
        let to = side(what.to_type, what.to_host, what.to_device, what.to_pitch, what.to_x, what.to_y)?;
        copy(call, here, to, from, size, stream)
    })
}

#[derive(Clone, Copy)]
enum Place {
    Host(u64),
    Device(u64),
}

impl Place {
    fn address(self) -> u64 {
        match self {
            Place::Host(address) | Place::Device(address) => address,
        }
    }
}

#[derive(Clone, Copy)]
struct Rows {
    place: Place,
    pitch: usize,
}

#[derive(Clone, Copy)]
struct Size {
    width: usize,
    height: usize,
}

impl Size {
    /// Bytes from the first row's first to the last row's last.
    fn span(self, pitch: usize) -> Option<usize> {
        pitch.checked_mul(self.height.saturating_sub(1))?.checked_add(self.width)
    }
}

impl Rows {
    fn of(
        call: &str,
        kind: u32,
        [host, device]: [u64; 2],
        pitch: usize,
        at: [usize; 2],
        size: Size,
    ) -> Result<Rows, Code> {
        let [x, y] = at;
        if pitch > PITCH_MAX || (size.height > 1 && x.checked_add(size.width).is_none_or(|end| end > pitch)) {
            let why = format_args!("a pitch of {pitch} for rows of {} bytes from byte {x} on", size.width);
            return refuse(call, why, INVALID_VALUE);
        }
        let Some(into) = pitch.checked_mul(y).and_then(|rows| rows.checked_add(x)) else {
            return refuse(call, format_args!("row {y} of a pitch of {pitch}"), INVALID_VALUE);
        };
        let into = into as u64;
        let place = match kind {
            1 => Place::Host(host.wrapping_add(into)),
            2 => Place::Device(device.wrapping_add(into)),
            // One address space: the driver knows what its own addresses are.
            4 if world().memory.around(device).is_none_or(|(_, a)| a.kind.pinned()) => {
                Place::Host(device.wrapping_add(into))
            }
            4 => Place::Device(device.wrapping_add(into)),
            _ => return refuse(call, format_args!("memory of type {kind}"), NOT_SUPPORTED),
        };
        Ok(Rows { place, pitch })
    }

    /// Checks it against what is allocated. For the host's memory: whether it is pinned.
    fn check(self, call: &str, here: &Here, size: Size) -> Result<Side, Code> {
        let Some(span) = size.span(self.pitch) else {
            return refuse(call, format_args!("{} rows of a pitch of {}", size.height, self.pitch), INVALID_VALUE);
        };
        let world = world();
        match self.place {
            Place::Host(0) => refuse(call, "the host's address is null", INVALID_VALUE),
            Place::Host(address) if world.memory.host(call, address, span)? => Ok(Side::Pinned),
            Place::Host(_) => Ok(Side::Pageable),
            Place::Device(address) => {
                let (_, allocation) = world.memory.device(call, address, span)?;
                if !allocation.kind.pinned() && allocation.context != here.context {
                    let why = format_args!("memory of GPU {} in a context of GPU {}", allocation.device, here.device);
                    return refuse(call, why, INVALID_VALUE);
                }
                Ok(Side::Device)
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Device,
    Pinned,
    Pageable,
}

fn copy(call: &'static str, here: &Here, to: Rows, from: Rows, size: Size, stream: Option<u64>) -> Answer {
    if size.width == 0 || size.height == 0 {
        return Ok(());
    }
    let sides = (from.check(call, here, size)?, to.check(call, here, size)?);
    let play = played_in_stream(fault("cuda.copy"), &here.failed)?;
    let staged = (sides.0 == Side::Pageable).then(|| take(from, size));
    let (failed, aside) = (here.failed.clone(), aside());
    let ticket = submit(call, here, stream.unwrap_or(0), move || {
        if !play() || !there(call, &failed, to, Some(from).filter(|_| staged.is_none()), size) {
            return;
        }
        let (from, pitch) = match &staged {
            Some(bytes) => (bytes.as_ptr() as u64, size.width),
            None => (from.place.address(), from.pitch),
        };
        for row in 0..size.height {
            let from = from + (row * pitch) as u64;
            let to = to.place.address() + (row * to.pitch) as u64;
            // SAFETY: both ranges were checked against what is allocated, now and at the call; a pageable one is the
            // caller's word. They may overlap.
            unsafe { ptr::copy(from as *const u8, to as *mut u8, size.width) };
        }
    })?;
    count(sides, size, aside);
    let waits = match (stream, sides) {
        (None, sides) => sides != (Side::Device, Side::Device),
        (Some(_), (_, to)) => to == Side::Pageable,
    };
    if waits {
        ticket.wait();
        here.fit()?;
    }
    Ok(())
}

/// The rows of pageable memory, one behind the other.
fn take(from: Rows, size: Size) -> Vec<u8> {
    let mut bytes = vec![0; size.width * size.height];
    for (row, to) in bytes.chunks_exact_mut(size.width).enumerate() {
        let from = (from.place.address() + (row * from.pitch) as u64) as *const u8;
        // SAFETY: the caller answers for host memory that it gives to be copied.
        unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), size.width) };
    }
    bytes
}

/// When the stream comes to it: what was checked at the call must still be there, and nobody may have mapped what is
/// written to.
fn there(call: &str, failed: &Failed, to: Rows, from: Option<Rows>, size: Size) -> bool {
    let world = world();
    for rows in from.into_iter().chain([to]) {
        if let Place::Device(address) = rows.place
            && world.memory.around(address).is_none()
        {
            broken(call, format_args!("the memory at {address:#x} was freed before the stream came to it"));
            failed.set(ILLEGAL_ADDRESS);
            return false;
        }
    }
    let begin = to.place.address();
    let end = begin + size.span(to.pitch).unwrap_or(0) as u64;
    let locks = world.memory.around(begin).into_iter().flat_map(|(_, allocation)| &allocation.locks);
    if locks.into_iter().any(|lock| begin < lock.address + lock.bytes as u64 && lock.address < end) {
        broken(call, format_args!("writes to memory at {begin:#x} while it is mapped for an encoder"));
    }
    true
}

fn count((from, to): (Side, Side), size: Size, aside: bool) {
    let (copies, bytes) = match (from, to) {
        _ if aside => ("codec copies", "codec bytes"),
        (Side::Device, Side::Device) => ("copies dtod", "bytes dtod"),
        (Side::Device, _) => ("copies dtoh", "bytes dtoh"),
        (_, Side::Device) => ("copies htod", "bytes htod"),
        (_, _) => ("copies htoh", "bytes htoh"),
    };
    counted(copies, 1);
    counted(bytes, (size.width * size.height) as i64);
}

/// `$unit` repeated over memory: `$name(address, value, count)`, and `$rows(address, pitch, value, width, height)`, each
/// with its form for a stream.
macro_rules! fills {
    ($($unit:ty: $name:ident $in_stream:ident $rows:ident $rows_in_stream:ident)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(to: u64, value: $unit, count: usize) -> Code {
            fill(stringify!($name), to, None, &value.to_ne_bytes(), count, 1, None)
        }

        #[unsafe(no_mangle)]
        extern "C" fn $in_stream(to: u64, value: $unit, count: usize, stream: u64) -> Code {
            fill(stringify!($in_stream), to, None, &value.to_ne_bytes(), count, 1, Some(stream))
        }

        #[unsafe(no_mangle)]
        extern "C" fn $rows(to: u64, pitch: usize, value: $unit, width: usize, height: usize) -> Code {
            fill(stringify!($rows), to, Some(pitch), &value.to_ne_bytes(), width, height, None)
        }

        #[unsafe(no_mangle)]
        extern "C" fn $rows_in_stream(
            to: u64,
            pitch: usize,
            value: $unit,
            width: usize,
            height: usize,
            stream: u64,
        ) -> Code {
            fill(stringify!($rows_in_stream), to, Some(pitch), &value.to_ne_bytes(), width, height, Some(stream))
        }
    )* };
}

fills! {
    u8: cuMemsetD8_v2 cuMemsetD8Async cuMemsetD2D8_v2 cuMemsetD2D8Async
    u16: cuMemsetD16_v2 cuMemsetD16Async cuMemsetD2D16_v2 cuMemsetD2D16Async
    u32: cuMemsetD32_v2 cuMemsetD32Async cuMemsetD2D32_v2 cuMemsetD2D32Async
}

fn fill(
    call: &'static str,
    to: u64,
    pitch: Option<usize>,
    unit: &[u8],
    width: usize,
    height: usize,
    stream: Option<u64>,
) -> Code {
    in_context(call, |here| {
        let Some(width) = width.checked_mul(unit.len()) else {
            return refuse(call, format_args!("{width} units in a row"), INVALID_VALUE);
        };
        if width == 0 || height == 0 {
            return Ok(());
        }
        let size = Size { width, height };
        let whole = Rows::of(call, 2, [0, to], pitch.unwrap_or(width), [0, 0], size)?;
        let grain = unit.len() as u64;
        if !to.is_multiple_of(grain) || (height > 1 && !whole.pitch.is_multiple_of(unit.len())) {
            let why = format_args!("{to:#x} with a pitch of {} is not aligned to {grain} bytes", whole.pitch);
            return refuse(call, why, INVALID_VALUE);
        }
        whole.check(call, here, size)?;
        let play = played_in_stream(fault("cuda.copy"), &here.failed)?;
        let (failed, row) = (here.failed.clone(), unit.repeat(width / unit.len()));
        let work = move || {
            if !play() || !there(call, &failed, whole, None, size) {
                return;
            }
            for at in (0..size.height).map(|row| to + (row * whole.pitch) as u64) {
                // SAFETY: the rows were checked against what is allocated, now and at the call.
                unsafe { ptr::copy_nonoverlapping(row.as_ptr(), at as *mut u8, row.len()) };
            }
        };
        submit(call, here, stream.unwrap_or(0), work).map(|_| ())
    })
}

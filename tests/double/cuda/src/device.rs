//! The library itself and the GPUs that it finds: what the settings say they are.
#![expect(unsafe_code, reason = "exports the driver's C ABI")]

use std::ffi::{CStr, c_char, c_void};

use crate::abi::{Answer, Code, DOUBLE, In, Out, always, fault, initialised, refuse, with_card};
use crate::codes::{INVALID_DEVICE, INVALID_VALUE, NO_DEVICE, NOT_FOUND};
use crate::world::world;

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: u32) -> Code {
    with_card("cuInit", || {
        if flags != 0 {
            return refuse("cuInit", "flags are always 0", INVALID_VALUE);
        }
        fault("cuda.init").now()?;
        match DOUBLE.number("gpus", 1) {
            0 => Err(NO_DEVICE),
            gpus => {
                world().gpus.get_or_insert(gpus as i32);
                Ok(())
            }
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: Out<i32>) -> Code {
    always("cuDriverGetVersion", || version.put("cuDriverGetVersion", cuda_version() as i32))
}

/// As in 12020 for 12.2.
pub(crate) fn cuda_version() -> u64 {
    DOUBLE.number("cuda", DOUBLE.number("cuda_version", 12_020))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: Out<i32>) -> Code {
    initialised("cuDeviceGetCount", || count.put("cuDeviceGetCount", world().gpus.unwrap_or(0)))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: Out<i32>, ordinal: i32) -> Code {
    initialised("cuDeviceGet", || {
        known("cuDeviceGet", ordinal)?;
        device.put("cuDeviceGet", ordinal)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(name: Out<c_char>, length: i32, device: i32) -> Code {
    initialised("cuDeviceGetName", || {
        known("cuDeviceGetName", device)?;
        text("cuDeviceGetName", name, length, &said(device, "name", "Rung Double"))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetPCIBusId(id: Out<c_char>, length: i32, device: i32) -> Code {
    initialised("cuDeviceGetPCIBusId", || {
        known("cuDeviceGetPCIBusId", device)?;
        text("cuDeviceGetPCIBusId", id, length, &pci(device))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: i32) -> Code {
    uuid_of("cuDeviceGetUuid", uuid, device)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: i32) -> Code {
    uuid_of("cuDeviceGetUuid_v2", uuid, device)
}

fn uuid_of(call: &str, uuid: Out<[u8; 16]>, device: i32) -> Code {
    initialised(call, || {
        known(call, device)?;
        let text = said(device, "uuid", &format!("GPU-00000000-0000-4000-8000-{device:012x}"));
        let digits: String = text.trim_start_matches("GPU-").chars().filter(|c| *c != '-').collect();
        let number = u128::from_str_radix(&digits, 16);
        uuid.put(call, number.unwrap_or_else(|_| panic!("gpu{device}.uuid = {text}: write GPU-…")).to_be_bytes())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) -> Code {
    initialised("cuDeviceTotalMem_v2", || {
        known("cuDeviceTotalMem_v2", device)?;
        bytes.put("cuDeviceTotalMem_v2", memory_bytes(device))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(value: Out<i32>, attribute: u32, device: i32) -> Code {
    initialised("cuDeviceGetAttribute", || {
        known("cuDeviceGetAttribute", device)?;
        let Some(answer) = attribute_of(device, attribute) else {
            let why = format_args!("attribute {attribute} is not one that this double knows: add it");
            return refuse("cuDeviceGetAttribute", why, INVALID_VALUE);
        };
        value.put("cuDeviceGetAttribute", answer)
    })
}

/// What a GPU of the generations Turing to Hopper says.
fn attribute_of(device: i32, attribute: u32) -> Option<i32> {
    Some(match attribute {
        1..=3 => THREADS_MAX as i32,
        4 => BLOCK_Z_MAX as i32,
        5 => i32::MAX,
        6 | 7 => GRID_YZ_MAX as i32,
        8 => SHARED_BYTES_MAX as i32,
        9 => 64 << 10,
        10 => 32,
        11 => PITCH_MAX as i32,
        12 | 82 => 65_536,
        13 => 2_040_000,
        14 => 512,
        // Copies while it computes; host memory mapped; kernels at once; one address space; priorities; pools.
        15 | 19 | 31 | 41 | 78 => 1,
        16 => DOUBLE.number(&format!("gpu{device}.multiprocessors"), 58) as i32,
        // No time limit, not integrated, open to all, no ECC said, not TCC, no peers' memory.
        17 | 18 | 20 | 32 | 35 | 88 | 91 | 100 => 0,
        30 => 512,
        33 => pci_numbers(device)[1],
        34 => pci_numbers(device)[2],
        36 => 6_251_000,
        37 => 192,
        38 => 48 << 20,
        39 => 1536,
        40 => 2,
        50 => pci_numbers(device)[0],
        51 => 32,
        75 => capability(device).0 as i32,
        76 => capability(device).1 as i32,
        81 | 97 => 100 << 10,
        83 | 89 | 90 | 95 => 1,
        106 => 24,
        115 => DOUBLE.number(&format!("gpu{device}.memory_pools"), 1) as i32,
        _ => return None,
    })
}

pub(crate) const THREADS_MAX: u32 = 1024;
pub(crate) const BLOCK_Z_MAX: u32 = 64;
pub(crate) const GRID_YZ_MAX: u32 = 65_535;
pub(crate) const SHARED_BYTES_MAX: u32 = 48 << 10;
pub(crate) const PITCH_MAX: usize = i32::MAX as usize;

/// The caller must name a GPU that there is.
pub(crate) fn known(call: &str, device: i32) -> Answer {
    let gpus = world().gpus.unwrap_or(0);
    if (0..gpus).contains(&device) {
        return Ok(());
    }
    refuse(call, format_args!("there is no GPU {device} of {gpus}"), INVALID_DEVICE)
}

pub(crate) fn memory_bytes(device: i32) -> usize {
    (DOUBLE.number(&format!("gpu{device}.memory_mb"), 24_576) as usize) << 20
}

/// Compute capability, as (8, 9).
pub(crate) fn capability(device: i32) -> (u32, u32) {
    let text = said(device, "capability", "8.9");
    let numbers = text.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    numbers.unwrap_or_else(|| panic!("gpu{device}.capability = {text}: write 8.9"))
}

fn pci(device: i32) -> String {
    said(device, "pci", &format!("0000:{:02x}:00.0", device + 1))
}

/// Domain, bus, device.
fn pci_numbers(device: i32) -> [i32; 3] {
    let text = pci(device);
    let mut numbers = text.split([':', '.']).map(|part| i32::from_str_radix(part, 16));
    std::array::from_fn(|_| match numbers.next() {
        Some(Ok(number)) => number,
        _ => panic!("gpu{device}.pci = {text}: write 0000:01:00.0"),
    })
}

fn said(device: i32, what: &str, otherwise: &str) -> String {
    DOUBLE.setting(&format!("gpu{device}.{what}")).unwrap_or_else(|| otherwise.to_owned())
}

/// As the driver does, cut to fit and ended with a zero.
fn text(call: &str, out: Out<c_char>, length: i32, text: &str) -> Answer {
    if length < 1 {
        return refuse(call, format_args!("room for {length} characters"), INVALID_VALUE);
    }
    let room = (length - 1) as usize;
    let mut at = out.0;
    for byte in text.bytes().take(room).chain([0]) {
        Out(at).put(call, byte as c_char)?;
        at = at.wrapping_add(1);
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress(name: In<c_char>, address: Out<*mut c_void>, _version: i32, _flags: u64) -> Code {
    always("cuGetProcAddress", || {
        let found = exported(name.text("cuGetProcAddress")?);
        address.put("cuGetProcAddress", found)?;
        if found.is_null() { Err(NOT_FOUND) } else { Ok(()) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress_v2(
    name: In<c_char>,
    address: Out<*mut c_void>,
    _version: i32,
    _flags: u64,
    status: Out<u32>,
) -> Code {
    always("cuGetProcAddress_v2", || {
        let found = exported(name.text("cuGetProcAddress_v2")?);
        address.put("cuGetProcAddress_v2", found)?;
        status.put_if(u32::from(found.is_null()));
        Ok(())
    })
}

/// The newest form of a call that this library exports, or null.
fn exported(name: &CStr) -> *mut c_void {
    let mut newest = name.to_bytes().to_vec();
    newest.extend_from_slice(b"_v2\0");
    let newest = CStr::from_bytes_with_nul(&newest).unwrap_or(name);
    // SAFETY: an all-zero Dl_info is one of null pointers.
    let mut place: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: the address is of this library; `place` is to be written.
    unsafe { libc::dladdr(exported as *const c_void, &raw mut place) };
    // SAFETY: dladdr names the file that this code came from.
    let library = unsafe { libc::dlopen(place.dli_fname, libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
    // SAFETY: an open library and a text.
    let found = unsafe { libc::dlsym(library, newest.as_ptr()) };
    if !found.is_null() {
        return found;
    }
    // SAFETY: as above.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}

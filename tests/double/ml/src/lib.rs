//! Stands in for the NVIDIA driver's libnvidia-ml.so.1, in tests only: what a monitor of GPUs asks of it.
//!
//! Settings: `gpus` (1), `driver` (535.129.03), `nvml` (12. and the driver's), `cuda` (12020); for each GPU `gpu<i>.name`,
//! `.uuid`, `.serial`, `.pci` (0000:01:00.0 and on), `.memory_mb` (24576), and what is read while it runs: `.used_mb`,
//! `.utilization`, `.memory_utilization`, `.encoder`, `.decoder` (percent), `.temperature` (°C), `.power` (mW), `.clock`,
//! `.video_clock` (MHz), `.throttle` (bits), `.sessions`, `.session_fps`, `.session_latency`, `.encoder_capacity`,
//! `.corrected`, `.uncorrected`, `.retired`, `.pending`, `.replays`, `.persistence`, `.events` (kinds that it can send).
//! The value `none` is answered by "not supported". `event = 0:xid:79` (also `0:single`, `0:double`) sends an event to
//! the sets that wait for it, once for each value: write `0:xid:79 again` for another one.
//!
//! Faults: `ml.init`, `ml.call` (every call), `ml.device` (every call about a GPU), `ml.gpu<i>` (about that one), `ml.wait`
//! (for events). `code=<n>` answers so, `sleep=<ms>` waits first, `hang` never comes back.
#![expect(unsafe_code, reason = "a C interface: it writes where its caller says")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rung_double_common::{Double, Fault};

static DOUBLE: Double = Double::new("libnvidia-ml");

/// As nvml.h numbers them.
mod status {
    pub(crate) const SUCCESS: u32 = 0;
    pub(crate) const UNINITIALIZED: u32 = 1;
    pub(crate) const INVALID_ARGUMENT: u32 = 2;
    pub(crate) const NOT_SUPPORTED: u32 = 3;
    pub(crate) const NOT_FOUND: u32 = 6;
    pub(crate) const INSUFFICIENT_SIZE: u32 = 7;
    pub(crate) const TIMEOUT: u32 = 10;
    pub(crate) const UNKNOWN: u32 = 999;
}

type Answer = Result<(), u32>;

// ---- the library --------------------------------------------------------------------------------------------------

/// `nvmlInit` may be called again and again; each wants its own `nvmlShutdown`.
static INITIALISED: AtomicU32 = AtomicU32::new(0);

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> u32 {
    status_of(play("ml.call").and_then(|()| play("ml.init")).map(|()| {
        INITIALISED.fetch_add(1, Ordering::SeqCst);
        DOUBLE.count("live initialisations", 1);
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> u32 {
    nvmlInit_v2()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> u32 {
    status_of(entered("nvmlShutdown").map(|()| {
        INITIALISED.fetch_sub(1, Ordering::SeqCst);
        DOUBLE.count("live initialisations", -1);
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_status: u32) -> *const c_char {
    c"an error of the driver's double".as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> u32 {
    status_of(entered("nvmlSystemGetDriverVersion").and_then(|()| write_text(version, length, &driver())))
}

/// The real one answers before `nvmlInit` as well.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> u32 {
    let said = DOUBLE.setting("nvml").unwrap_or_else(|| format!("12.{}", driver()));
    status_of(write_text(version, length, &said))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetCudaDriverVersion(version: *mut c_int) -> u32 {
    let cuda = DOUBLE.number("cuda", 12_020) as c_int;
    status_of(entered("nvmlSystemGetCudaDriverVersion").and_then(|()| write(version, cuda)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> u32 {
    nvmlSystemGetCudaDriverVersion(version)
}

// ---- which GPUs there are -----------------------------------------------------------------------------------------

type Device = *mut c_void;

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> u32 {
    status_of(entered("nvmlDeviceGetCount_v2").and_then(|()| write(count, gpus())))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut Device) -> u32 {
    let known = if index < gpus() { Ok(()) } else { Err(status::INVALID_ARGUMENT) };
    status_of(entered("nvmlDeviceGetHandleByIndex_v2").and(known).and_then(|()| hand_out(index, device)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut Device) -> u32 {
    by_name("nvmlDeviceGetHandleByUUID", uuid, device, uuid_of)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleBySerial(serial: *const c_char, device: *mut Device) -> u32 {
    by_name("nvmlDeviceGetHandleBySerial", serial, device, serial_of)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(bus_id: *const c_char, device: *mut Device) -> u32 {
    by_name("nvmlDeviceGetHandleByPciBusId_v2", bus_id, device, |gpu| Pci::of(gpu).long())
}

fn by_name(call: &str, name: *const c_char, device: *mut Device, of: impl Fn(u32) -> String) -> u32 {
    status_of(entered(call).and_then(|()| {
        if name.is_null() {
            return Err(status::INVALID_ARGUMENT);
        }
        // SAFETY: not null; the caller gives a C string, as the header asks.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let found = (0..gpus()).find(|gpu| of(*gpu).eq_ignore_ascii_case(&name));
        found.ok_or(status::NOT_FOUND).and_then(|gpu| hand_out(gpu, device))
    }))
}

/// The driver sets a GPU up when its handle is asked for, and that can fail for one card alone.
fn hand_out(gpu: u32, device: *mut Device) -> Answer {
    play("ml.device")?;
    play(&format!("ml.gpu{gpu}"))?;
    write(device, (HANDLES + gpu as usize) as Device)
}

/// A handle is no pointer to anything.
const HANDLES: usize = 0x4d4c_0000;

fn gpus() -> u32 {
    DOUBLE.number("gpus", 1) as u32
}

fn driver() -> String {
    DOUBLE.setting("driver").unwrap_or_else(|| "535.129.03".to_owned())
}

fn uuid_of(gpu: u32) -> String {
    let made = || format!("GPU-00000000-0000-4000-8000-{gpu:012x}");
    DOUBLE.setting(&format!("gpu{gpu}.uuid")).unwrap_or_else(made)
}

fn serial_of(gpu: u32) -> String {
    DOUBLE.setting(&format!("gpu{gpu}.serial")).unwrap_or_else(|| format!("{:013}", 1_320_000_000 + gpu))
}

// ---- what is fixed about a GPU ------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetIndex(device: Device, index: *mut c_uint) -> u32 {
    status_of(about("nvmlDeviceGetIndex", device).and_then(|gpu| write(index, gpu)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMinorNumber(device: Device, minor: *mut c_uint) -> u32 {
    status_of(about("nvmlDeviceGetMinorNumber", device).and_then(|gpu| write(minor, gpu)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetName(device: Device, name: *mut c_char, length: c_uint) -> u32 {
    status_of(about("nvmlDeviceGetName", device).and_then(|gpu| {
        let said = DOUBLE.setting(&format!("gpu{gpu}.name")).unwrap_or_else(|| "Rung Double".to_owned());
        write_text(name, length, &said)
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUUID(device: Device, uuid: *mut c_char, length: c_uint) -> u32 {
    status_of(about("nvmlDeviceGetUUID", device).and_then(|gpu| write_text(uuid, length, &uuid_of(gpu))))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetSerial(device: Device, serial: *mut c_char, length: c_uint) -> u32 {
    status_of(about("nvmlDeviceGetSerial", device).and_then(|gpu| write_text(serial, length, &serial_of(gpu))))
}

/// nvmlPciInfo_t.
#[repr(C)]
pub struct PciInfo {
    bus_id_legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device_id: c_uint,
    pci_sub_system_id: c_uint,
    bus_id: [c_char; 32],
}

struct Pci {
    domain: u32,
    bus: u32,
    device: u32,
}

impl Pci {
    fn of(gpu: u32) -> Pci {
        let said = DOUBLE.setting(&format!("gpu{gpu}.pci")).unwrap_or_else(|| format!("0000:{:02x}:00.0", gpu + 1));
        let numbers: Vec<u32> = said.split([':', '.']).filter_map(|n| u32::from_str_radix(n, 16).ok()).collect();
        let [domain, bus, device, _function] = numbers[..] else { panic!("gpu{gpu}.pci = {said}: write 0000:01:00.0") };
        Pci { domain, bus, device }
    }

    fn long(&self) -> String {
        format!("{:08X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }

    fn short(&self) -> String {
        format!("{:04X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPciInfo_v3(device: Device, info: *mut PciInfo) -> u32 {
    status_of(about("nvmlDeviceGetPciInfo_v3", device).and_then(|gpu| {
        let pci = Pci::of(gpu);
        let told = PciInfo {
            bus_id_legacy: padded(&pci.short()),
            domain: pci.domain,
            bus: pci.bus,
            device: pci.device,
            pci_device_id: 0x26b5_10de,
            pci_sub_system_id: 0x169d_10de,
            bus_id: padded(&pci.long()),
        };
        write(info, told)
    }))
}

fn padded<const N: usize>(text: &str) -> [c_char; N] {
    let mut chars = [0; N];
    for (to, from) in chars.iter_mut().zip(text.bytes().take(N - 1)) {
        *to = from as c_char;
    }
    chars
}

// ---- what is read again and again ---------------------------------------------------------------------------------

/// nvmlMemory_t.
#[repr(C)]
pub struct Memory {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// nvmlMemory_v2_t.
#[repr(C)]
pub struct MemoryV2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// Bytes of the card, and those in use.
fn memory(gpu: u32) -> Result<(u64, u64), u32> {
    let total = value(gpu, "memory_mb", 24_576)? << 20;
    Ok((total, (value(gpu, "used_mb", 0)? << 20).min(total)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMemoryInfo(device: Device, info: *mut Memory) -> u32 {
    status_of(
        about("nvmlDeviceGetMemoryInfo", device)
            .and_then(memory)
            .and_then(|(total, used)| write(info, Memory { total, free: total - used, used })),
    )
}

/// The caller says in `version` which layout it knows: its size and the number 2 in the top byte.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Device, info: *mut MemoryV2) -> u32 {
    status_of(about("nvmlDeviceGetMemoryInfo_v2", device).and_then(|gpu| {
        const VERSION: u32 = 40 | 2 << 24;
        if info.is_null() {
            return Err(status::INVALID_ARGUMENT);
        }
        // SAFETY: not null; the caller gives its struct, and the version is its first field.
        let version = unsafe { info.cast::<c_uint>().read() };
        if version != VERSION {
            DOUBLE.broken(&format!("nvmlDeviceGetMemoryInfo_v2: version {version:#x}, {VERSION:#x} is wanted"));
            return Err(25);
        }
        let (total, used) = memory(gpu)?;
        write(info, MemoryV2 { version, total, reserved: 0, free: total - used, used })
    }))
}

/// nvmlUtilization_t, percent.
#[repr(C)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUtilizationRates(device: Device, rates: *mut Utilization) -> u32 {
    status_of(about("nvmlDeviceGetUtilizationRates", device).and_then(|gpu| {
        let (busy, memory) = (value(gpu, "utilization", 0)?, value(gpu, "memory_utilization", 0)?);
        write(rates, Utilization { gpu: busy as c_uint, memory: memory as c_uint })
    }))
}

fn engine(call: &str, device: Device, key: &str, percent: *mut c_uint, period_us: *mut c_uint) -> u32 {
    status_of(about(call, device).and_then(|gpu| {
        write(percent, value(gpu, key, 0)? as c_uint)?;
        write(period_us, 167_000)
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetEncoderUtilization(device: Device, percent: *mut c_uint, period: *mut c_uint) -> u32 {
    engine("nvmlDeviceGetEncoderUtilization", device, "encoder", percent, period)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetDecoderUtilization(device: Device, percent: *mut c_uint, period: *mut c_uint) -> u32 {
    engine("nvmlDeviceGetDecoderUtilization", device, "decoder", percent, period)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetEncoderCapacity(device: Device, codec: c_uint, percent: *mut c_uint) -> u32 {
    status_of(about("nvmlDeviceGetEncoderCapacity", device).and_then(|gpu| match codec {
        0..=2 => write(percent, value(gpu, "encoder_capacity", 100)? as c_uint),
        _ => Err(status::INVALID_ARGUMENT),
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetEncoderStats(
    device: Device,
    sessions: *mut c_uint,
    average_fps: *mut c_uint,
    average_latency_us: *mut c_uint,
) -> u32 {
    status_of(about("nvmlDeviceGetEncoderStats", device).and_then(|gpu| {
        write(sessions, value(gpu, "sessions", 0)? as c_uint)?;
        write(average_fps, value(gpu, "session_fps", 0)? as c_uint)?;
        write(average_latency_us, value(gpu, "session_latency", 0)? as c_uint)
    }))
}

/// nvmlEncoderSessionInfo_t.
#[repr(C)]
pub struct EncoderSession {
    session_id: c_uint,
    pid: c_uint,
    vgpu_instance: c_uint,
    codec: c_uint,
    width: c_uint,
    height: c_uint,
    average_fps: c_uint,
    average_latency_us: c_uint,
}

/// Without room for them only their number is told.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetEncoderSessions(
    device: Device,
    count: *mut c_uint,
    sessions: *mut EncoderSession,
) -> u32 {
    status_of(about("nvmlDeviceGetEncoderSessions", device).and_then(|gpu| {
        let there = value(gpu, "sessions", 0)? as c_uint;
        if !sessions.is_null() && there > 0 {
            if read(count)? < there {
                return Err(status::INSUFFICIENT_SIZE);
            }
            for n in 0..there {
                let session = EncoderSession {
                    session_id: n + 1,
                    pid: std::process::id(),
                    vgpu_instance: 0,
                    codec: 0,
                    width: 1920,
                    height: 1080,
                    average_fps: value(gpu, "session_fps", 0)? as c_uint,
                    average_latency_us: value(gpu, "session_latency", 0)? as c_uint,
                };
                write(sessions.wrapping_add(n as usize), session)?;
            }
        }
        write(count, there)
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTemperature(device: Device, sensor: c_uint, celsius: *mut c_uint) -> u32 {
    status_of(about("nvmlDeviceGetTemperature", device).and_then(|gpu| match sensor {
        0 => write(celsius, value(gpu, "temperature", 40)? as c_uint),
        _ => Err(status::INVALID_ARGUMENT),
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPowerUsage(device: Device, milliwatts: *mut c_uint) -> u32 {
    number("nvmlDeviceGetPowerUsage", device, "power", 30_000, milliwatts)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetClockInfo(device: Device, kind: c_uint, mhz: *mut c_uint) -> u32 {
    match kind {
        0 | 1 => number("nvmlDeviceGetClockInfo", device, "clock", 1_980, mhz),
        2 => number("nvmlDeviceGetClockInfo", device, "memory_clock", 9_001, mhz),
        3 => number("nvmlDeviceGetClockInfo", device, "video_clock", 1_530, mhz),
        _ => status::INVALID_ARGUMENT,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(device: Device, reasons: *mut c_ulonglong) -> u32 {
    status_of(
        about("nvmlDeviceGetCurrentClocksThrottleReasons", device)
            .and_then(|gpu| write(reasons, value(gpu, "throttle", 1)?)),
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetEccMode(device: Device, current: *mut c_uint, pending: *mut c_uint) -> u32 {
    status_of(about("nvmlDeviceGetEccMode", device).and_then(|gpu| {
        let on = value(gpu, "ecc", 1)? as c_uint;
        write(current, on)?;
        write(pending, on)
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: Device,
    kind: c_uint,
    counter: c_uint,
    count: *mut c_ulonglong,
) -> u32 {
    status_of(about("nvmlDeviceGetTotalEccErrors", device).and_then(|gpu| match (kind, counter) {
        (0, 0 | 1) => write(count, value(gpu, "corrected", 0)?),
        (1, 0 | 1) => write(count, value(gpu, "uncorrected", 0)?),
        _ => Err(status::INVALID_ARGUMENT),
    }))
}

/// Without room for them only their number is told.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetRetiredPages(
    device: Device,
    cause: c_uint,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
) -> u32 {
    nvmlDeviceGetRetiredPages_v2(device, cause, count, addresses, std::ptr::null_mut())
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetRetiredPages_v2(
    device: Device,
    cause: c_uint,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
    stamps: *mut c_ulonglong,
) -> u32 {
    status_of(about("nvmlDeviceGetRetiredPages", device).and_then(|gpu| {
        if cause > 1 || addresses.is_null() {
            return Err(status::INVALID_ARGUMENT);
        }
        let there = value(gpu, "retired", 0)? as c_uint;
        let room = read(count)?;
        write(count, there)?;
        if room < there {
            return Err(status::INSUFFICIENT_SIZE);
        }
        for n in 0..there as usize {
            write(addresses.wrapping_add(n), (n as u64 + 1) << 16)?;
            if !stamps.is_null() {
                write(stamps.wrapping_add(n), 1_700_000_000)?;
            }
        }
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetRetiredPagesPendingStatus(device: Device, pending: *mut c_uint) -> u32 {
    number("nvmlDeviceGetRetiredPagesPendingStatus", device, "pending", 0, pending)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPcieReplayCounter(device: Device, count: *mut c_uint) -> u32 {
    number("nvmlDeviceGetPcieReplayCounter", device, "replays", 0, count)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPersistenceMode(device: Device, on: *mut c_uint) -> u32 {
    number("nvmlDeviceGetPersistenceMode", device, "persistence", 1, on)
}

// ---- events -------------------------------------------------------------------------------------------------------

/// Kinds of events, as bits.
mod kind {
    pub(crate) const SINGLE: u64 = 1;
    pub(crate) const DOUBLE: u64 = 2;
    pub(crate) const XID: u64 = 8;
    pub(crate) const ALL: u64 = 0x9f;
}

/// nvmlEventData_t.
#[repr(C)]
pub struct EventData {
    device: Device,
    kind: c_ulonglong,
    data: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

struct EventSet {
    handle: usize,
    /// GPU and the kinds wanted of it.
    wanted: Vec<(u32, u64)>,
    /// The event that was there when the set was made, or the last one handed out.
    seen: Option<String>,
}

static SETS: Mutex<(usize, Vec<EventSet>)> = Mutex::new((0x4e56_0000, Vec::new()));

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetCreate(set: *mut *mut c_void) -> u32 {
    status_of(entered("nvmlEventSetCreate").and_then(|()| {
        let seen = DOUBLE.setting("event");
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        sets.0 += 16;
        let handle = sets.0;
        write(set, handle as *mut c_void)?;
        sets.1.push(EventSet { handle, wanted: Vec::new(), seen });
        DOUBLE.count("live event sets", 1);
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: *mut c_void) -> u32 {
    status_of(entered("nvmlEventSetFree").and_then(|()| {
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = sets.1.iter().position(|known| known.handle == set as usize) else {
            DOUBLE.broken("nvmlEventSetFree: no such event set, or freed before");
            return Err(status::INVALID_ARGUMENT);
        };
        sets.1.remove(at);
        DOUBLE.count("live event sets", -1);
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetSupportedEventTypes(device: Device, kinds: *mut c_ulonglong) -> u32 {
    status_of(
        about("nvmlDeviceGetSupportedEventTypes", device)
            .and_then(|gpu| write(kinds, value(gpu, "events", kind::ALL)?)),
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(device: Device, kinds: c_ulonglong, set: *mut c_void) -> u32 {
    status_of(about("nvmlDeviceRegisterEvents", device).and_then(|gpu| {
        let able = value(gpu, "events", kind::ALL).unwrap_or(0);
        if kinds & !able != 0 {
            DOUBLE.broken("nvmlDeviceRegisterEvents: kinds that nvmlDeviceGetSupportedEventTypes does not name");
            return Err(status::NOT_SUPPORTED);
        }
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sets.1.iter_mut().find(|known| known.handle == set as usize);
        known.ok_or(status::INVALID_ARGUMENT).map(|known| known.wanted.push((gpu, kinds)))
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetWait_v2(set: *mut c_void, data: *mut EventData, timeout_ms: c_uint) -> u32 {
    const STEP_MS: u32 = 10;
    let waited = entered("nvmlEventSetWait_v2").and_then(|()| {
        play("ml.wait")?;
        for _ in 0..=timeout_ms / STEP_MS {
            if let Some(event) = next_event(set as usize)? {
                return write(data, event);
            }
            std::thread::park_timeout(Duration::from_millis(STEP_MS.into()));
        }
        Err(status::TIMEOUT)
    });
    status_of(waited)
}

/// What a set waits for and has not been told of.
fn next_event(handle: usize) -> Result<Option<EventData>, u32> {
    let said = DOUBLE.setting("event");
    let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
    let set = sets.1.iter_mut().find(|known| known.handle == handle).ok_or(status::INVALID_ARGUMENT)?;
    if said == set.seen {
        return Ok(None);
    }
    set.seen.clone_from(&said);
    let Some(said) = said else { return Ok(None) };
    let mut words = said.split_whitespace().next().unwrap_or_default().split(':');
    let gpu: Option<u32> = words.next().and_then(|n| n.parse().ok());
    let (kind, data) = match (words.next(), words.next().map(str::parse)) {
        (Some("xid"), Some(Ok(xid))) => (kind::XID, xid),
        (Some("single"), None) => (kind::SINGLE, 0),
        (Some("double"), None) => (kind::DOUBLE, 0),
        _ => panic!("event = {said}: write 0:xid:79, 0:single or 0:double"),
    };
    let gpu = gpu.unwrap_or_else(|| panic!("event = {said}: begin with the GPU's number"));
    let wanted = set.wanted.iter().any(|(of, kinds)| *of == gpu && kinds & kind != 0);
    let device = (HANDLES + gpu as usize) as Device;
    Ok(wanted.then_some(EventData { device, kind, data, gpu_instance: u32::MAX, compute_instance: u32::MAX }))
}

// ---- what the calls share -----------------------------------------------------------------------------------------

/// Every call but a few may only come between `nvmlInit` and `nvmlShutdown`.
fn entered(call: &str) -> Answer {
    play("ml.call")?;
    if INITIALISED.load(Ordering::SeqCst) == 0 {
        DOUBLE.broken(&format!("{call}: not between nvmlInit and nvmlShutdown"));
        return Err(status::UNINITIALIZED);
    }
    Ok(())
}

/// The GPU that a call is about, if it answers.
fn about(call: &str, device: Device) -> Result<u32, u32> {
    entered(call)?;
    let gpu = (device as usize).checked_sub(HANDLES).and_then(|gpu| u32::try_from(gpu).ok());
    let Some(gpu) = gpu.filter(|gpu| *gpu < 64) else {
        DOUBLE.broken(&format!("{call}: no handle of a GPU"));
        return Err(status::INVALID_ARGUMENT);
    };
    play("ml.device")?;
    play(&format!("ml.gpu{gpu}"))?;
    Ok(gpu)
}

fn play(point: &str) -> Answer {
    match DOUBLE.fault(point) {
        None => Ok(()),
        Some(Fault::Code(code)) => Err(code),
        Some(Fault::Sleep(time)) => {
            sleep_for(time);
            Ok(())
        }
        Some(Fault::Word(word)) if word == "hang" => loop {
            sleep_for(Duration::from_secs(60));
        },
        Some(Fault::Word(word)) => panic!("fault {point} {word}: write code=, sleep= or hang"),
    }
}

/// A parked thread may wake early.
fn sleep_for(time: Duration) {
    let mut left = libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    let again = &raw mut left;
    // SAFETY: both pointers are to one timespec of this frame, which the call may read and write.
    while unsafe { libc::nanosleep(again, again) } != 0 {}
}

fn status_of(answer: Answer) -> u32 {
    answer.err().unwrap_or(status::SUCCESS)
}

/// A number of the settings; `none` is what the card can not tell.
fn value(gpu: u32, key: &str, otherwise: u64) -> Result<u64, u32> {
    let key = format!("gpu{gpu}.{key}");
    match DOUBLE.setting(&key).as_deref() {
        Some("none") => Err(status::NOT_SUPPORTED),
        Some("unknown") => Err(status::UNKNOWN),
        _ => Ok(DOUBLE.number(&key, otherwise)),
    }
}

fn number(call: &str, device: Device, key: &str, otherwise: u64, to: *mut c_uint) -> u32 {
    status_of(about(call, device).and_then(|gpu| write(to, value(gpu, key, otherwise)? as c_uint)))
}

fn write<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(status::INVALID_ARGUMENT);
    }
    // SAFETY: not null; the header asks the caller for room for one `T`, and where several are written for as many.
    unsafe { to.write(value) };
    Ok(())
}

fn read<T: Copy>(from: *const T) -> Result<T, u32> {
    if from.is_null() {
        return Err(status::INVALID_ARGUMENT);
    }
    // SAFETY: not null; the header asks the caller for one initialised `T`.
    Ok(unsafe { from.read() })
}

/// With its zero, if there is room for all of it.
fn write_text(to: *mut c_char, length: c_uint, text: &str) -> Answer {
    if to.is_null() {
        return Err(status::INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(status::INSUFFICIENT_SIZE);
    }
    for (at, byte) in text.bytes().chain([0]).enumerate() {
        write(to.wrapping_add(at), byte as c_char)?;
    }
    Ok(())
}

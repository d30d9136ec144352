//! What NVML tells of every GPU.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, RetirementCause, TemperatureSensor};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::event::EventData;
use nvml_wrapper::{Device, EventSet, Nvml};
use rung::pixels::health::{
    Answer, FromMonitor, GpuCard, GpuFault, GpuReading, GpuValues, Opened, PciAddress, Throttle, Unavailable, What,
};
use rung::time::{Mono, SystemClock};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Desk;
use super::versions::{LIBRARY, Versions};
use super::xid::{Source, remedy};
use crate::gpu::load::keep_loaded;

/// Starts NVML and sets every GPU up as far as it lets itself.
///
/// # Errors
/// Why no GPU can be watched, for programs and for people.
pub(super) fn open(folder: Option<&Path>, kernel_module: &Path) -> Result<(Nvml, Versions), (Unavailable, String)> {
    let versions = Versions::look(kernel_module, folder);
    // The driver's own threads and ours may end after NVML was left.
    keep_loaded(LIBRARY, folder).map_err(|absent| (Unavailable::NoDriver, format!("{absent}; no GPU is watched")))?;
    let path = folder.map(|folder| folder.join(LIBRARY));
    let mut builder = Nvml::builder();
    if let Some(path) = &path {
        builder.lib_path(path.as_os_str());
    }
    let nvml = builder.init().map_err(|error| unavailable(&error, &versions))?;
    let told = nvml.sys_nvml_version().ok();
    if told.as_deref().is_some_and(|nvml| versions.differ_from_nvml(nvml)) {
        return Err((Unavailable::Mismatch, versions.sentence(told.as_deref())));
    }
    let count = nvml.device_count().map_err(|error| unavailable(&error, &versions))?;
    if count == 0 {
        return Err((Unavailable::NoGpu, "an NVIDIA driver is installed, but it sees no GPU".to_owned()));
    }
    // The first question about a GPU sets it up, which may need what is given up soon. Trouble with one is told later.
    for index in 0..count {
        drop(nvml.device_by_index(index));
    }
    Ok((nvml, versions))
}

fn unavailable(error: &NvmlError, versions: &Versions) -> (Unavailable, String) {
    match error {
        NvmlError::FailedToLoadSymbol(why) => {
            (Unavailable::NoDriver, format!("{LIBRARY} is too old to be asked ({why}); no GPU is watched"))
        }
        NvmlError::DriverNotLoaded | NvmlError::LibraryNotFound | NvmlError::FunctionNotFound => {
            let what =
                "the NVIDIA driver's libraries are installed, but its kernel module is not loaded; no GPU is watched";
            (Unavailable::NoDriver, what.to_owned())
        }
        NvmlError::LibRmVersionMismatch => (Unavailable::Mismatch, versions.sentence(None)),
        NvmlError::NoPermission | NvmlError::OperatingSystem => {
            let what = format!("the NVIDIA driver may not be asked: {error}; give Rung's user /dev/nvidia*");
            (Unavailable::Refused, what)
        }
        error => (Unavailable::Failed, format!("NVML does not start: {error}")),
    }
}

/// NVML's thread.
pub(super) struct Session {
    pub(super) desk: Arc<Desk>,
    pub(super) versions: Versions,
    pub(super) sandbox: String,
}

impl Session {
    /// Until the desk says stop.
    pub(super) fn run(self, nvml: Nvml) {
        let gpus = self.open_gpus(&nvml);
        let mut sets: Vec<_> = gpus.iter().filter_map(|gpu| Some((gpu.pci, event_set(&nvml, &gpu.device)?))).collect();
        let (mut due, mut look) = (SystemClock::mono(), SystemClock::mono());
        let mut upgraded = false;
        loop {
            let report = gpus.iter().map(|gpu| GpuReading { pci: gpu.pci, answer: read(&gpu.device) }).collect();
            self.desk.send(&FromMonitor::Report { gpus: report, kernel_log: self.desk.kernel_log() });
            let now = SystemClock::mono();
            if now >= look && !upgraded {
                look = now + LOOK_EVERY;
                upgraded = self.tell_upgrade();
            }
            // A slow round is not made good by quick ones.
            due = (due + EVERY).max(now + EVERY / 2);
            if self.events_until(due, &mut sets) {
                return;
            }
        }
    }

    fn open_gpus<'n>(&self, nvml: &'n Nvml) -> Vec<Gpu<'n>> {
        let (mut gpus, mut cards, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..nvml.device_count().unwrap_or(0) {
            match nvml.device_by_index(index).and_then(|device| Ok((card(index, &device)?, device))) {
                Ok((card, device)) => {
                    gpus.push(Gpu { pci: card.pci, device });
                    cards.push(card);
                }
                Err(error) => closed.push(format!("NVML's GPU {index} can not be opened: {error}")),
            }
        }
        let or_unknown = |told: Result<String, NvmlError>| told.unwrap_or_else(|_| "unknown".to_owned());
        let opened = Opened {
            driver: or_unknown(nvml.sys_driver_version()),
            nvml: or_unknown(nvml.sys_nvml_version()),
            cuda: nvml.sys_cuda_driver_version().ok().and_then(|version| u32::try_from(version).ok()),
            gpus: cards,
            closed,
            sandbox: self.sandbox.clone(),
        };
        self.desk.send(&FromMonitor::Opened(Box::new(opened)));
        gpus
    }

    /// Hands events on until `due`. True: it is to end.
    fn events_until(&self, due: Mono, sets: &mut Vec<(PciAddress, EventSet<'_>)>) -> bool {
        loop {
            let left = due.since(SystemClock::mono()).min(SLICE);
            if left.is_zero() {
                return self.desk.pause(Duration::ZERO);
            }
            if sets.is_empty() {
                if self.desk.pause(left) {
                    return true;
                }
                continue;
            }
            let each_ms = (left.as_millis() / sets.len() as u128).clamp(1, SLICE.as_millis()) as u32;
            // A set that can not be waited for would spin: its card is watched by reading and by the kernel's log.
            sets.retain(|(gpu, set)| self.take_events(*gpu, set, each_ms));
            if self.desk.pause(Duration::ZERO) {
                return true;
            }
        }
    }

    /// False: the set is of no use any more.
    fn take_events(&self, gpu: PciAddress, set: &EventSet<'_>, wait_ms: u32) -> bool {
        let mut wait = wait_ms;
        for _ in 0..EVENTS_MAX {
            match set.wait(wait) {
                Ok(event) => {
                    for what in whats(&event) {
                        let fault = GpuFault { gpu, what, remedy: remedy(what), pid: None, text: String::new() };
                        self.desk.tell(fault, Source::Nvml);
                    }
                }
                Err(NvmlError::Timeout) => return true,
                Err(_) => return false,
            }
            wait = 0;
        }
        true
    }

    /// True: it was told.
    fn tell_upgrade(&self) -> bool {
        let versions = self.versions.look_again();
        // What differed from the start did not stop NVML.
        let differ = versions.differ() && versions != self.versions;
        if differ {
            self.desk.send(&FromMonitor::Upgraded { what: versions.sentence(None) });
        }
        differ
    }
}

struct Gpu<'n> {
    pci: PciAddress,
    device: Device<'n>,
}

fn card(index: u32, device: &Device<'_>) -> Result<GpuCard, NvmlError> {
    let pci = device.pci_info()?;
    let byte = |n: u32| u8::try_from(n).map_err(|_| NvmlError::UnexpectedVariant(n));
    Ok(GpuCard {
        index,
        pci: PciAddress { domain: pci.domain, bus: byte(pci.bus)?, device: byte(pci.device)? },
        name: device.name()?,
        uuid: device.uuid()?,
        memory_bytes: device.memory_info().map_or(0, |memory| memory.total),
        persistent: device.is_in_persistent_mode().ok(),
    })
}

/// The events that matter, of those that the card can send.
fn event_set<'n>(nvml: &'n Nvml, device: &Device<'n>) -> Option<EventSet<'n>> {
    let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::SINGLE_BIT_ECC_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR;
    let able = device.supported_event_types().ok()? & wanted;
    if able.is_empty() {
        return None;
    }
    device.register_events(able, nvml.create_event_set().ok()?).ok()
}

fn whats(event: &EventData<'_>) -> Vec<What> {
    /// NVML's own number for an error whose number it does not know.
    const UNKNOWN: u64 = 999;
    let xid = event.event_data.as_ref().map(|xid| match xid {
        XidError::Value(number) => *number,
        XidError::Unknown => UNKNOWN,
    });
    let kinds = event.event_type;
    let single = kinds.contains(EventTypes::SINGLE_BIT_ECC_ERROR).then_some(What::SingleBit);
    let double = kinds.contains(EventTypes::DOUBLE_BIT_ECC_ERROR).then_some(What::DoubleBit);
    let xid = xid.map(|xid| What::Xid(u32::try_from(xid).unwrap_or(u32::MAX)));
    xid.into_iter().chain(single).chain(double).collect()
}

/// Everything that is read of a GPU.
fn read(device: &Device<'_>) -> Answer {
    let mut asked = Asked::default();
    let memory = asked.take("memory", device.memory_info());
    let encoder = asked.take("encoder statistics", device.encoder_stats());
    let ecc = |kind| device.total_ecc_errors(kind, EccCounter::Volatile);
    let retired = device.retired_pages(RetirementCause::DoubleBitEccError);
    let values = GpuValues {
        utilization: asked.take("utilisation", device.utilization_rates()).map(|rates| rates.gpu),
        encoder: asked.take("encoder", device.encoder_utilization()).map(|engine| engine.utilization),
        decoder: asked.take("decoder", device.decoder_utilization()).map(|engine| engine.utilization),
        memory_used_bytes: memory.as_ref().map(|memory| memory.used),
        memory_total_bytes: memory.as_ref().map(|memory| memory.total),
        temperature_celsius: asked.take("temperature", device.temperature(TemperatureSensor::Gpu)),
        power_milliwatts: asked.take("power", device.power_usage()),
        clock_mhz: asked.take("clock", device.clock_info(Clock::SM)),
        video_clock_mhz: asked.take("video clock", device.clock_info(Clock::Video)),
        throttled: asked.take("throttle reasons", device.current_throttle_reasons()).map_or(Vec::new(), throttles),
        encoder_sessions: encoder.as_ref().map(|stats| stats.session_count),
        encoder_fps: encoder.as_ref().map(|stats| stats.average_fps),
        ecc_corrected: asked.take("memory errors", ecc(MemoryError::Corrected)),
        ecc_uncorrected: asked.take("memory errors", ecc(MemoryError::Uncorrected)),
        retired_pages: asked.take("retired pages", retired).map(|pages| u32::try_from(pages.len()).unwrap_or(u32::MAX)),
        pages_pending: asked.take("pending pages", device.are_pages_pending_retired()),
        pcie_replays: asked.take("PCIe replays", device.pcie_replay_counter()),
    };
    match asked {
        Asked { lost: true, .. } => Answer::Lost,
        Asked { reset: true, .. } => Answer::ResetRequired,
        Asked { trouble: Some(trouble), .. } => Answer::Unreadable(trouble),
        Asked { .. } => Answer::Values(Box::new(values)),
    }
}

/// What the questions about one GPU had to fight with.
#[derive(Default)]
struct Asked {
    lost: bool,
    reset: bool,
    trouble: Option<String>,
}

impl Asked {
    /// `None` is no trouble where a card, its driver or this process may not know.
    fn take<T>(&mut self, what: &str, told: Result<T, NvmlError>) -> Option<T> {
        match told {
            Ok(value) => return Some(value),
            Err(
                NvmlError::NotSupported
                | NvmlError::NoPermission
                | NvmlError::NoData
                | NvmlError::NotFound
                | NvmlError::FunctionNotFound
                | NvmlError::FailedToLoadSymbol(_),
            ) => {}
            Err(NvmlError::GpuLost) => self.lost = true,
            Err(NvmlError::ResetRequired) => self.reset = true,
            Err(error) => {
                self.trouble.get_or_insert_with(|| format!("{what}: {error}"));
            }
        }
        None
    }
}

fn throttles(reasons: ThrottleReasons) -> Vec<Throttle> {
    let named = [
        (ThrottleReasons::SW_POWER_CAP, Throttle::Power),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, Throttle::Warm),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, Throttle::Hot),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Throttle::PowerBrake),
    ];
    let mut found: Vec<Throttle> =
        named.into_iter().filter(|(bit, _)| reasons.contains(*bit)).map(|(_, throttle)| throttle).collect();
    // The general word comes along with the two special ones.
    let special = [Throttle::Hot, Throttle::PowerBrake];
    if reasons.contains(ThrottleReasons::HW_SLOWDOWN) && !found.iter().any(|throttle| special.contains(throttle)) {
        found.push(Throttle::Hardware);
    }
    found
}

/// Between two reports.
const EVERY: Duration = Duration::from_secs(1);
/// Events are taken at least so often, all GPUs together.
const SLICE: Duration = Duration::from_millis(200);
/// Events of one GPU in a row.
const EVENTS_MAX: u32 = 16;
/// The driver's files are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

//! The box's GPUs, as the process that watches them tells.

use serde::Serialize;
use utoipa::ToSchema;

use crate::pipeline::devices::Devices;
use crate::pipeline::gpus::{self, GpuHealth, GpuValues, Gpus, MonitorState, Remedy, Throttle};
use crate::time::Mono;

/// The process that watches the GPUs.
#[derive(Serialize, ToSchema)]
#[schema(as = GpuMonitor)]
pub(super) struct GpuMonitorView {
    state: MonitorStateView,
    /// What there is to say about that, or nothing.
    detail: String,
}

/// `unavailable`: there is no driver, or it can not be asked. `off`: this box has no worker program.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = GpuMonitorState)]
enum MonitorStateView {
    Off,
    Starting,
    Watching,
    Restarting,
    Unavailable,
}

/// One GPU.
#[derive(Serialize, ToSchema)]
#[schema(as = Gpu)]
pub(super) struct GpuView {
    /// The `gpu` label of its metrics; it stays the same until the daemon starts anew.
    number: u32,
    name: String,
    uuid: String,
    /// Its slot, as the kernel writes it.
    pci: String,
    /// The driver's version.
    driver: String,
    memory_bytes: u64,
    health: GpuHealthView,
    /// Why it is ill or lost.
    why: Option<String>,
    /// What helps.
    remedy: Option<GpuRemedyView>,
    /// What it told last; a lost one tells nothing.
    reading: Option<GpuReadingView>,
}

/// `ill`: nothing new is placed on it. `lost`: it does not answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = GpuHealth)]
enum GpuHealthView {
    Ok,
    Ill,
    Lost,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = GpuRemedy)]
enum GpuRemedyView {
    None,
    Watch,
    RestartWorkers,
    DrainAndReset,
    Reboot,
}

/// `null` where the card or its driver does not tell.
#[derive(Serialize, ToSchema)]
#[schema(as = GpuReading)]
struct GpuReadingView {
    /// Seconds since it was read. More than 3: the watching process hangs.
    age_s: f64,
    /// Part of the time in which a kernel ran, 0 to 1.
    utilization: Option<f64>,
    /// Part of the time in which the encoders were busy.
    encoder: Option<f64>,
    /// Part of the time in which the decoders were busy.
    decoder: Option<f64>,
    memory_used_bytes: Option<u64>,
    temperature_celsius: Option<u32>,
    power_watts: Option<f64>,
    clock_mhz: Option<u32>,
    video_clock_mhz: Option<u32>,
    /// Why its clocks are lower than they could be.
    throttled: Vec<GpuThrottleView>,
    /// Encoder sessions of all processes.
    encoder_sessions: Option<u32>,
    /// Memory errors since the driver was loaded.
    ecc_corrected: Option<u64>,
    ecc_uncorrected: Option<u64>,
    /// Pages taken out of use for double errors, in the card's life.
    retired_pages: Option<u32>,
    /// Pages wait for a reset to be taken out of use.
    pages_pending: Option<bool>,
    pcie_replays: Option<u32>,
}

/// `hot` and `power-brake` are the card's own doing, `warm` and `power-limit` the driver's.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = GpuThrottle)]
enum GpuThrottleView {
    PowerLimit,
    Warm,
    Hot,
    PowerBrake,
    Hardware,
}

/// What NVML tells of the GPUs, and where `devices` knows that no channel is placed.
pub(super) fn views(gpus: &Gpus, devices: &Devices, now: Mono) -> (GpuMonitorView, Vec<GpuView>) {
    let snapshot = gpus.snapshot();
    let (state, detail) = match &snapshot.monitor {
        MonitorState::Off => (MonitorStateView::Off, ""),
        MonitorState::Starting => (MonitorStateView::Starting, ""),
        MonitorState::Watching => (MonitorStateView::Watching, ""),
        MonitorState::Restarting { why } => (MonitorStateView::Restarting, why.as_str()),
        MonitorState::Unavailable { what } => (MonitorStateView::Unavailable, what.as_str()),
    };
    let monitor = GpuMonitorView { state, detail: detail.to_owned() };
    (monitor, snapshot.gpus.iter().map(|gpu| view(gpu, devices, now)).collect())
}

fn view(gpu: &gpus::GpuView, devices: &Devices, now: Mono) -> GpuView {
    let resting = devices.number(gpu.pci).and_then(|number| devices.illness(number));
    let (health, why, remedy) = match &gpu.health {
        GpuHealth::Ok if resting.is_some() => (GpuHealthView::Ill, resting, Some(Remedy::Watch)),
        GpuHealth::Ok => (GpuHealthView::Ok, None, None),
        GpuHealth::Ill { why, remedy } => (GpuHealthView::Ill, Some(why.clone()), Some(*remedy)),
        GpuHealth::Lost { why } => (GpuHealthView::Lost, Some(why.clone()), Some(Remedy::Reboot)),
    };
    let age_s = gpu.read_at.map_or(0.0, |at| now.since(at).as_secs_f64());
    GpuView {
        number: gpu.number,
        name: gpu.name.clone(),
        uuid: gpu.uuid.clone(),
        pci: gpu.pci.to_string(),
        driver: gpu.driver.clone(),
        memory_bytes: gpu.memory_bytes,
        health,
        why,
        remedy: remedy.map(remedy_view),
        reading: gpu.values.as_ref().map(|values| reading(values, age_s)),
    }
}

fn remedy_view(remedy: Remedy) -> GpuRemedyView {
    match remedy {
        Remedy::FollowsKill => GpuRemedyView::None,
        Remedy::Watch => GpuRemedyView::Watch,
        Remedy::RestartWorkers => GpuRemedyView::RestartWorkers,
        Remedy::DrainAndReset => GpuRemedyView::DrainAndReset,
        Remedy::Reboot => GpuRemedyView::Reboot,
    }
}

fn reading(values: &GpuValues, age_s: f64) -> GpuReadingView {
    let ratio = |percent: Option<u32>| percent.map(|percent| f64::from(percent) / 100.0);
    let throttle = |throttle: &Throttle| match throttle {
        Throttle::Power => GpuThrottleView::PowerLimit,
        Throttle::Warm => GpuThrottleView::Warm,
        Throttle::Hot => GpuThrottleView::Hot,
        Throttle::PowerBrake => GpuThrottleView::PowerBrake,
        Throttle::Hardware => GpuThrottleView::Hardware,
    };
    GpuReadingView {
        age_s,
        utilization: ratio(values.utilization),
        encoder: ratio(values.encoder),
        decoder: ratio(values.decoder),
        memory_used_bytes: values.memory_used_bytes,
        temperature_celsius: values.temperature_celsius,
        power_watts: values.power_milliwatts.map(|milliwatts| f64::from(milliwatts) / 1_000.0),
        clock_mhz: values.clock_mhz,
        video_clock_mhz: values.video_clock_mhz,
        throttled: values.throttled.iter().map(throttle).collect(),
        encoder_sessions: values.encoder_sessions,
        ecc_corrected: values.ecc_corrected,
        ecc_uncorrected: values.ecc_uncorrected,
        retired_pages: values.retired_pages,
        pages_pending: values.pages_pending,
        pcie_replays: values.pcie_replays,
    }
}

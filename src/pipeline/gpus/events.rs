//! What happens to the GPUs, as log lines and metrics: each event in one place.

use std::time::Duration;

use super::core::{GpuHealth, GpuView};
use crate::pixels::health::{GpuFault, Remedy, Unavailable, What};
use crate::telemetry::names::{Label, Metric, count, forget_gpu, gauge};
use crate::telemetry::report::{Level, Place, log};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Watching {
        gpus: usize,
        driver: String,
        sandbox: String,
    },
    /// There is a GPU that NVML can not open.
    Closed {
        what: String,
    },
    KernelLogClosed {
        what: String,
    },
    Unavailable {
        why: Unavailable,
        what: String,
    },
    MonitorLost {
        reason: &'static str,
        what: String,
    },
    Upgraded {
        what: String,
    },
    Found {
        gpu: GpuView,
    },
    Fault {
        number: Option<u32>,
        fault: GpuFault,
    },
    Ill {
        gpu: GpuView,
        why: String,
        remedy: Remedy,
    },
    Lost {
        gpu: GpuView,
        why: String,
    },
    Recovered {
        gpu: GpuView,
        after: Duration,
    },
    Slowed {
        gpu: GpuView,
        why: String,
    },
    FullSpeed {
        gpu: GpuView,
    },
}

/// Several cards go together when a riser or a switch does: what happened at once and alike is one line, for lines of one
/// code in a second are gathered and only the last of them is told.
pub(super) fn report(notes: Vec<Note>) {
    let mut lines: Vec<(Level, &'static str, String)> = Vec::new();
    for note in notes {
        let (level, code, what) = note.line();
        match lines.iter_mut().find(|(_, of, _)| *of == code) {
            Some((worst, _, all)) => {
                *worst = level.min(*worst);
                all.push_str("; ");
                all.push_str(&what);
            }
            None => lines.push((level, code, what)),
        }
    }
    for (level, code, what) in lines {
        log(level, code, &Place::default(), what);
    }
}

impl Note {
    /// Counts it, and says how it is logged.
    fn line(&self) -> (Level, &'static str, String) {
        match self {
            Note::Watching { gpus, driver, sandbox } => {
                (Level::Info, "gpu_monitor_up", format!("{gpus} GPU(s), driver {driver}; {sandbox}"))
            }
            Note::Closed { what } => (Level::Error, "gpu_closed", what.clone()),
            Note::KernelLogClosed { what } => (Level::Warn, "kernel_log_closed", what.clone()),
            Note::Unavailable { why, what } => (level_of(*why), "gpus_unwatched", what.clone()),
            Note::MonitorLost { reason, what } => {
                count(Metric::GpuMonitorRespawns, &[Label::Reason(reason)], 1);
                (Level::Warn, "gpu_monitor_lost", what.clone())
            }
            Note::Upgraded { what } => (Level::Error, "driver_upgraded", what.clone()),
            Note::Found { gpu } => {
                let mib = gpu.memory_bytes >> 20;
                (Level::Info, "gpu_watched", format!("{}, {mib} MiB, {}", named(gpu), gpu.uuid))
            }
            Note::Fault { number, fault } => fault_line(*number, fault),
            Note::Ill { gpu, why, remedy } => {
                (Level::Error, "gpu_ill", format!("{} is ill ({why}): {remedy}", named(gpu)))
            }
            Note::Lost { gpu, why } => {
                forget_gpu(&gpu.number.to_string());
                (Level::Error, "gpu_lost", format!("{} is lost ({why}): {}", named(gpu), Remedy::Reboot))
            }
            Note::Recovered { gpu, after } => {
                let what = format!("{} has been well for {:.0} s", named(gpu), after.as_secs_f64());
                (Level::Info, "gpu_recovered", what)
            }
            Note::Slowed { gpu, why } => {
                (Level::Warn, "gpu_slowed", format!("{} runs slower than it could: {why}", named(gpu)))
            }
            Note::FullSpeed { gpu } => (Level::Info, "gpu_full_speed", format!("{} is itself again", named(gpu))),
        }
    }
}

fn fault_line(number: Option<u32>, fault: &GpuFault) -> (Level, &'static str, String) {
    let gpu = number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    count(Metric::GpuErrors, &[Label::Gpu(&gpu), Label::Xid(&label_of(fault.what))], 1);
    let level = if fault.remedy == Remedy::FollowsKill { Level::Info } else { Level::Warn };
    let who = fault.pid.map_or(String::new(), |pid| format!(", process {pid}"));
    let said = if fault.text.is_empty() { String::new() } else { format!("; the kernel: {}", fault.text) };
    let what = format!("GPU {gpu} at {}: {}{who}: {}{said}", fault.gpu, fault.what, fault.remedy);
    (level, "gpu_fault", what)
}

/// The numbers that drivers know go up to a few hundred; whatever else comes shares one label.
fn label_of(what: What) -> String {
    match what {
        What::Xid(xid) if xid < 1_000 => xid.to_string(),
        What::Xid(_) => "other".to_owned(),
        What::SingleBit => "single-bit".to_owned(),
        What::DoubleBit => "double-bit".to_owned(),
        What::OffTheBus => "off-the-bus".to_owned(),
    }
}

fn level_of(why: Unavailable) -> Level {
    match why {
        Unavailable::NoDriver | Unavailable::NoGpu => Level::Info,
        Unavailable::Refused | Unavailable::Failed => Level::Warn,
        Unavailable::Mismatch => Level::Error,
    }
}

fn named(gpu: &GpuView) -> String {
    format!("GPU {} ({}, {})", gpu.number, gpu.name, gpu.pci)
}

/// The gauges of one GPU. What it does not tell, or no longer tells, is not set.
pub(super) fn publish(gpu: &GpuView) {
    let number = gpu.number.to_string();
    let label = Label::Gpu(&number);
    gauge(Metric::GpuUp, &[label], if gpu.health == GpuHealth::Ok { 1.0 } else { 0.0 });
    let Some(values) = &gpu.values else { return };
    let set = |metric, value: Option<f64>| {
        if let Some(value) = value {
            gauge(metric, &[label], value);
        }
    };
    let ratio = |percent: Option<u32>| percent.map(|percent| f64::from(percent) / 100.0);
    set(Metric::GpuUtilization, ratio(values.utilization));
    set(Metric::GpuEncoder, ratio(values.encoder));
    set(Metric::GpuDecoder, ratio(values.decoder));
    set(Metric::GpuTemperature, values.temperature_celsius.map(f64::from));
    set(Metric::GpuPower, values.power_milliwatts.map(|milliwatts| f64::from(milliwatts) / 1_000.0));
    for (kind, bytes) in [("used", values.memory_used_bytes), ("total", values.memory_total_bytes)] {
        if let Some(bytes) = bytes {
            gauge(Metric::GpuMemory, &[label, Label::Kind(kind)], bytes as f64);
        }
    }
}

//! How long a process needs until it can decode: driver, context, kernels, first decoder. Each round is a new process.

use rung::time::{Mono, SystemClock};
use rung_worker::gpu::Gpu;
use rung_worker::gpu::cuda::{Device, GpuName, Stream};
use rung_worker::gpu::load::Driver;
use rung_worker::gpu::nvdec::{Decoder, Fields};
use rung_worker::gpu::watch::Watch;
use std::process::Command;
use std::sync::Arc;

use crate::Plan;
use crate::card::Card;
use crate::clips::Clips;
use crate::report::{Found, Report, Trouble, fail, median};

const STEPS: [&str; 4] = ["driver (cuInit)", "context", "kernels (PTX translated)", "first picture decoded"];

pub(crate) fn run(card: &Card, plan: &Plan, report: &mut Report) -> Found<String> {
    let rounds = plan.extent.of(7, 1);
    let mut rows = Vec::new();
    for (name, cached) in [("kernels' cache off", false), ("on", true)] {
        let mut times: [Vec<f64>; STEPS.len()] = Default::default();
        // The first round fills the cache.
        for round in 0..=rounds {
            let found = once(card, plan, cached)?;
            if round > 0 {
                times.iter_mut().zip(found).for_each(|(all, one)| all.push(one));
            }
        }
        let medians = times.map(median);
        if !cached {
            report.answer("2. PTX translated at start", format!("{:.0} ms (cache off)", medians[2]));
        }
        rows.push([name.to_owned()].into_iter().chain(medians.map(|ms| format!("{ms:.1}"))).collect());
    }
    report.table(&[&["ms, median of new processes"], &STEPS[..]].concat(), &rows);
    Ok(format!("{rounds} processes each"))
}

fn once(card: &Card, plan: &Plan, cached: bool) -> Found<[f64; STEPS.len()]> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("start").arg("--clips").arg(&plan.clips);
    command.env("CUDA_CACHE_DISABLE", if cached { "0" } else { "1" });
    if let Some(folder) = &card.folder {
        command.arg("--driver-folder").arg(folder);
    }
    let out = command.output()?;
    if !out.status.success() {
        return fail(format!("{}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim()));
    }
    let said = String::from_utf8_lossy(&out.stdout);
    let times: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    times.try_into().map_err(|_| Trouble::Fail(format!("{} times instead of {}: {said}", said.len(), STEPS.len())))
}

/// The process's own part: milliseconds of each step. Without a decoder or a clip the last one is not a number.
pub(crate) fn within(plan: &Plan) -> Found<String> {
    let mut at = SystemClock::mono();
    let mut lap = || {
        let (before, now) = (at, SystemClock::mono());
        at = now;
        ms(before, now)
    };
    let driver = Driver::open(plan.folder.as_deref())?;
    let opened = lap();
    let device = Device::open(&driver, GpuName::Index(0))?;
    let context = lap();
    // Retains the same context once more: what is measured is the translation.
    let gpu = Gpu::open(&driver, GpuName::Index(0))?;
    let kernels = lap();
    let Ok(clip) = Clips::new(&plan.clips).load("h264-no-b") else {
        return Ok(format!("{opened} {context} {kernels} NaN\n"));
    };
    if driver.cuvid.is_err() {
        return Ok(format!("{opened} {context} {kernels} NaN\n"));
    }
    lap();
    let stream = Arc::new(Stream::new(&device)?);
    let mut decoder = Decoder::open(&stream, clip.codec(), &[], Fields::Frame, &Watch::new("start"))?;
    let mut shown = 0;
    for unit in &clip.units {
        decoder.push(&unit.data, unit.at, &mut |_| {
            shown += 1;
            stream.wait_done()
        })?;
        if shown > 0 {
            break;
        }
    }
    let first = lap();
    drop(gpu);
    Ok(format!("{opened} {context} {kernels} {first}\n"))
}

fn ms(from: Mono, to: Mono) -> f64 {
    to.since(from).as_secs_f64() * 1e3
}

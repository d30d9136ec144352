//! The GPUs of this machine for the daemon: found at its start, watched, and looked for again when one appears.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Failure;
use super::probe::Asked;
use crate::control::config::Config;
use crate::media::channel::BackendPolicy;
use crate::pipeline::devices::Devices;
use crate::pipeline::gpus::{GpuWatch, Tuning};
use crate::pixels::hall::Hall;
use crate::pixels::monitor::Launch;
use crate::pixels::protocol::GpuCaps;
use crate::telemetry::report::{Level, Place, log};
use crate::time::Mono;

/// Where GPUs are looked for, and where what is found is written down. Cheap to clone.
#[derive(Clone)]
pub(super) struct Search(Arc<Inner>);

struct Inner {
    worker: PathBuf,
    driver_folder: Option<PathBuf>,
    /// The box works on the CPU and has no use for GPUs, or it only passes media through and has no worker.
    none: bool,
    /// Without a GPU this box can do nothing.
    must: bool,
    hall: Hall,
    devices: Arc<Devices>,
    pace: Mutex<Pace>,
}

/// When it is looked again; what was told.
struct Pace {
    under_way: bool,
    next: Mono,
    wait: Duration,
    told: String,
}

/// A daemon that starts waits so long for the driver.
const START: Duration = Duration::from_secs(10);
/// Between two looks, first and longest: a driver may come up in steps, and a card may be kept from CUDA for good.
const WAIT_MIN: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(600);

impl Search {
    /// Looks once, and waits for it.
    pub(super) fn new(worker: &Path, config: &Config) -> Search {
        let hall = Hall::new(worker.to_path_buf());
        hall.set_patience(Duration::from_millis(config.worker.gpu_patience_ms.0));
        let driver_folder = config.worker.driver_folder.clone();
        if let Some(folder) = driver_folder.clone() {
            hall.set_driver_folder(folder);
        }
        let software = config.worker.backend == BackendPolicy::Software && driver_folder.is_none();
        let search = Search(Arc::new(Inner {
            worker: worker.to_path_buf(),
            driver_folder,
            none: software || !worker.is_file(),
            must: config.worker.backend == BackendPolicy::Gpu,
            hall,
            devices: Arc::default(),
            pace: Mutex::new(Pace { under_way: false, next: Mono(0), wait: WAIT_MIN, told: String::new() }),
        }));
        search.0.pace().under_way = true;
        if search.look().is_none_or(|looked| looked.recv_timeout(START).is_err()) {
            let seconds = START.as_secs();
            let what =
                format!("the NVIDIA driver does not answer within {seconds} s: this box starts without its GPUs");
            search.0.devices.absent(&what);
            log(Level::Error, "no_gpu", &Place::default(), what);
        }
        search
    }

    /// Those that were found.
    pub(super) fn devices(&self) -> &Arc<Devices> {
        &self.0.devices
    }

    /// Workers on them.
    pub(super) fn hall(&self) -> &Hall {
        &self.0.hall
    }

    /// There is a GPU that was not found: looks again, less and less often, on a thread of its own, for a driver may
    /// take its time.
    pub(super) fn again(&self, now: Mono) {
        let mut pace = self.0.pace();
        if pace.under_way || now < pace.next {
            return;
        }
        (pace.next, pace.wait) = (now + pace.wait, (pace.wait * 2).min(WAIT_MAX));
        pace.under_way = true;
        drop(pace);
        // Without a thread now there may be one at the next look.
        drop(self.look());
    }

    /// On a thread of its own, which says when it has looked.
    fn look(&self) -> Option<Receiver<()>> {
        let (looked, told) = sync_channel(1);
        let inner = Arc::clone(&self.0);
        let look = move || {
            inner.look();
            inner.pace().under_way = false;
            // Nobody waits but a daemon that starts.
            let _waiting = looked.try_send(());
        };
        let started = std::thread::Builder::new().name("gpu-search".into()).spawn(look);
        if started.is_err() {
            self.0.pace().under_way = false;
        }
        started.is_ok().then_some(told)
    }

    /// # Errors
    /// The system has no descriptor or thread left.
    pub(super) fn watch(&self) -> Result<Option<GpuWatch>, Failure> {
        let Inner { worker, driver_folder, none, devices, .. } = &*self.0;
        if *none {
            return Ok(None);
        }
        let launch = Launch { program: worker.clone(), driver_folder: driver_folder.clone(), kernel_log: None };
        let watch = GpuWatch::start(launch, Tuning::default(), devices.slots());
        watch.map(Some).map_err(|e| Failure::failed(format!("watch over the GPUs: {e}")))
    }
}

impl Inner {
    /// A box that must have a GPU and has none says so.
    fn look(&self) {
        if self.none {
            self.devices.absent("worker.backend is \"software\", so none is looked for");
            return;
        }
        let asked = Asked::start(&self.worker, self.driver_folder.as_deref()).and_then(|mut asked| asked.gpus());
        match asked {
            Ok(Ok(gpus)) => {
                gpus.iter().filter(|gpu| self.devices.number(gpu.pci).is_none()).for_each(announce);
                self.devices.found(gpus);
                self.hall.set_slots(self.devices.slots());
            }
            Ok(Err(why)) | Err(why) => {
                let is_new = std::mem::replace(&mut self.pace().told, why.clone()) != why;
                let level = if self.must { Level::Error } else { Level::Info };
                self.devices.absent(&why);
                if is_new {
                    log(level, "no_gpu", &Place::default(), why);
                }
            }
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // Every change is one assignment.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn announce(gpu: &GpuCaps) {
    if let Some(why) = &gpu.unfit {
        let what = format!("GPU {} at {} ({}) can not be used: {why}", gpu.index, gpu.pci, gpu.name);
        return log(Level::Error, "gpu_unfit", &Place::default(), what);
    }
    let encodes = gpu.encode.as_ref().map_or_else(|why| format!("no encoder: {why}"), |_| "encodes".to_owned());
    let GpuCaps { index, pci, name, decode_engines, .. } = gpu;
    let what = format!("GPU {index} at {pci}: {name}, {decode_engines} decode engines, {encodes}");
    log(Level::Info, "gpu_found", &Place::default(), what);
}

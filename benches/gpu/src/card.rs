//! The card under test: the product's own way to it, and what it is called.

use rung::time::{SystemClock, Wall};
use rung_worker::gpu::Gpu;
use rung_worker::gpu::cuda::{Device, GpuName};
use rung_worker::gpu::load::{Absent, Driver};
use rung_worker::gpu::probe::cuda_version;
use rung_worker::monitor::driver_version;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::raw::{CACHE, PROCESSORS, Raw};
use crate::report::{Found, Trouble};

pub(crate) struct Card {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) driver: Arc<Driver>,
    pub(crate) raw: Raw,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) facts: Facts,
}

/// What every figure is given with.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) cuda: String,
    pub(crate) capability: String,
    pub(crate) memory: u64,
    pub(crate) processors: usize,
    /// Bytes of its L2 cache.
    pub(crate) cache: usize,
    pub(crate) date: String,
    /// It is the driver's double of Rung's tests.
    pub(crate) double: bool,
}

impl Card {
    /// GPU 0.
    ///
    /// # Errors
    /// `SKIP cuda`: there is no driver or no GPU. Anything else fails.
    pub(crate) fn open(folder: Option<&Path>) -> Found<Card> {
        let driver = Driver::open(folder).map_err(|absent| match absent {
            Absent::Library { .. } | Absent::NoGpu => Trouble::skip("cuda", absent.to_string()),
            other => Trouble::Fail(other.to_string()),
        })?;
        let gpu = Arc::new(Gpu::open(&driver, GpuName::Index(0))?);
        let raw = Raw::open(folder)?;
        let device = &gpu.device;
        let ((_, memory), (major, minor)) = (device.memory()?, device.capability()?);
        let double = raw.is_double();
        let facts = Facts {
            name: device.name()?,
            driver: if double {
                "driver double, not a card".to_owned()
            } else {
                format!("driver {}", driver_version(folder).unwrap_or_else(|| "of an unknown version".to_owned()))
            },
            cuda: cuda_version(&driver),
            capability: format!("{major}.{minor}"),
            memory,
            processors: raw.attribute(0, PROCESSORS),
            cache: raw.attribute(0, CACHE),
            date: today(),
            double,
        };
        Ok(Card { gpu, driver, raw, folder: folder.map(Path::to_owned), facts })
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.gpu.device
    }

    /// Bytes of the card's memory that are free, whoever uses the others.
    pub(crate) fn free(&self) -> Found<u64> {
        Ok(self.device().memory()?.0)
    }

    /// How much memory a driver may keep for itself: up to `bytes` on a card, nothing of its double's.
    pub(crate) fn spare(&self, bytes: u64) -> u64 {
        if self.facts.double { 0 } else { bytes }
    }

    /// `SKIP nvdec` where there is no decoder.
    ///
    /// # Errors
    /// That.
    pub(crate) fn needs_decoder(&self) -> Found<()> {
        self.driver.cuvid.as_ref().map(|_| ()).map_err(|absent| Trouble::skip("nvdec", absent.to_string()))
    }
}

impl Facts {
    pub(crate) fn heading(&self) -> String {
        format!("{}, {}, CUDA {}, {}", self.name, self.driver, self.cuda, self.date)
    }

    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        let line = |what: &str, value: String| (what.to_owned(), value);
        let mut lines = vec![
            line("card", self.name.clone()),
            line("driver", self.driver.clone()),
            line("CUDA", self.cuda.clone()),
            line("compute capability", self.capability.clone()),
            line("memory", format!("{} MiB", self.memory >> 20)),
            line("multiprocessors", self.processors.to_string()),
            line("L2 cache", format!("{} KiB", self.cache >> 10)),
            line("date", self.date.clone()),
        ];
        let first = |path: &str, mark: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.lines()
                .find_map(|l| l.strip_prefix(mark))
                .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let processor = first("/proc/cpuinfo", "model name").unwrap_or_default();
        lines.push(line("processor", format!("{processor}, {cpus} threads")));
        lines.push(line("kernel", first("/proc/sys/kernel/osrelease", "").unwrap_or_default()));
        lines
    }
}

fn today() -> String {
    date(SystemClock::wall())
}

/// "2026-11-21"
fn date(at: Wall) -> String {
    // Days since 1970-03-01 minus 11017 four-year cycles are not needed: the civil calendar by eras of 400 years.
    let days = at.0.div_euclid(86_400_000_000_000) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{day:02}", year + era * 400 + i64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let day = 86_400_000_000_000;
        assert_eq!(date(Wall(0)), "1970-01-01");
        assert_eq!(date(Wall(11_016 * day)), "2000-02-29");
        assert_eq!(date(Wall(11_017 * day - 1)), "2000-02-29");
        assert_eq!(date(Wall(20_778 * day)), "2026-11-21");
    }
}

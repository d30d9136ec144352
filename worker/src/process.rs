//! What the channels of one process share: who is in it, what it uses, and how it ends once it can not be trusted.

use nix::sys::resource::{UsageWho, getrusage};
use rung::media::limits::WORKER_SEATS_MAX;
use rung::pixels::protocol::{FromWorker, Lost};
use rung::time::SystemClock;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::gpu::Gpu;
use crate::gpu::cuda::GpuName;
use crate::gpu::load::Driver;
use crate::queue::{Popped, Queue};
use crate::shared::{Outgoing, Shared};

/// Last words may take this long: less than a daemon waits for a silent worker.
const FAREWELL: Duration = Duration::from_millis(300);

/// The GPU that a shared process works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub gpu: GpuName,
    /// Where the driver's libraries are looked for first; `None`: where the loader looks.
    pub driver_folder: Option<PathBuf>,
    /// A call of the driver that takes longer has hung.
    pub patience: Duration,
}

pub struct Process {
    /// `None`: a process of one channel, which its daemon ends.
    device: Option<Device>,
    /// That GPU, or why there is none.
    gpu: Mutex<Option<Result<Arc<Gpu>, String>>>,
    seats: Mutex<BTreeMap<u32, Weak<Shared>>>,
    ending: AtomicBool,
    /// Writers that have said their last words.
    farewells: Queue<()>,
    system: System,
}

impl Process {
    /// For one channel.
    pub fn own() -> Arc<Process> {
        Process::new(None)
    }

    /// For up to `WORKER_SEATS_MAX` channels on a GPU.
    pub fn of(device: Device) -> Arc<Process> {
        Process::new(Some(device))
    }

    fn new(device: Option<Device>) -> Arc<Process> {
        Arc::new(Process {
            device,
            gpu: Mutex::default(),
            seats: Mutex::default(),
            ending: AtomicBool::new(false),
            farewells: Queue::bounded(WORKER_SEATS_MAX),
            system: System::open(),
        })
    }

    /// The GPU that channels of this process run on.
    pub fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// Starts the driver and takes the GPU, before the process gives up what that needs.
    pub fn take_gpu(&self) {
        let taken = self.device.as_ref().map(|device| {
            let driver = Driver::open(device.driver_folder.as_deref()).map_err(|absent| absent.to_string())?;
            Gpu::open(&driver, device.gpu).map(Arc::new).map_err(|error| error.to_string())
        });
        *self.held() = taken;
    }

    /// What channels still hold of it they keep.
    pub fn give_up_gpu(&self) {
        *self.held() = None;
    }

    /// # Errors
    /// Why channels of this process run on no GPU.
    pub fn gpu(&self) -> Result<Arc<Gpu>, String> {
        let none = || Err("this worker was started for the software backend".to_owned());
        self.held().clone().unwrap_or_else(none)
    }

    fn held(&self) -> MutexGuard<'_, Option<Result<Arc<Gpu>, String>>> {
        // Every change is one assignment.
        self.gpu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the process if a call into the driver has not come back for longer than `limit`.
    fn look_for_hung_calls(&self, limit: Duration) {
        let seated: Vec<Arc<Shared>> = self.seats().values().filter_map(Weak::upgrade).collect();
        let now = SystemClock::mono();
        for shared in seated {
            if let Some(hung) = shared.hung(now, limit) {
                self.end(&shared, shared.counters.channel().unwrap_or_default(), &hung, Lost::Process);
            }
        }
    }

    /// Room for one more channel.
    ///
    /// # Errors
    /// The sentence for whoever wanted it: the process is full, or somebody has that number.
    pub fn seat(self: &Arc<Self>, number: u32) -> Result<Arc<Shared>, String> {
        let most = if self.device.is_some() { WORKER_SEATS_MAX } else { 1 };
        let mut seats = self.seats();
        if seats.len() >= most {
            return Err(format!("this worker holds {most} channels and takes no more: start another worker"));
        }
        if seats.contains_key(&number) {
            return Err(format!("seat {number} of this worker is taken"));
        }
        let shared = Shared::new(Arc::clone(self));
        seats.insert(number, Arc::downgrade(&shared));
        Ok(shared)
    }

    /// Nothing of that channel is left.
    pub fn leave(&self, number: u32) {
        self.seats().remove(&number);
    }

    /// Tells every channel that the process goes, and why. A process of one channel then lets its writer end it; a
    /// shared one ends here: the driver's own clean-up, which may hang, is not given the chance.
    pub fn end(&self, culprit: &Shared, ch: u32, what: &str, lost: Lost) {
        if self.ending.swap(true, Ordering::AcqRel) {
            return;
        }
        let all: Vec<Arc<Shared>> = self.seats().values().filter_map(Weak::upgrade).collect();
        for shared in &all {
            let (ch, what) = if std::ptr::eq(Arc::as_ptr(shared), culprit) {
                (ch, what.to_owned())
            } else {
                (shared.counters.channel().unwrap_or_default(), format!("{what}, in another channel of this process"))
            };
            let last = FromWorker::Failed { ch, what, lost };
            shared.out.push_command(Outgoing::Message(last));
            shared.out.push_command(Outgoing::Exit);
        }
        if self.device.is_none() {
            return;
        }
        let until = SystemClock::mono() + FAREWELL;
        for _ in &all {
            if self.farewells.pop_within(until.since(SystemClock::mono())) == Popped::TimedOut {
                break;
            }
        }
        std::process::abort();
    }

    /// A writer has nothing more to say.
    pub fn said_farewell(&self) {
        self.farewells.push_command(());
    }

    /// User and system time of the whole process, microseconds.
    pub fn cpu_us(&self) -> u64 {
        System::cpu_us()
    }

    pub fn rss_bytes(&self) -> u64 {
        self.system.rss_bytes()
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<u32, Weak<Shared>>> {
        // Every change is one insert or remove: a map that a panicking thread left behind is whole.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches over a process's driver calls until it is gone.
pub fn watch_over(process: &Weak<Process>, limit: Duration) {
    const EVERY: Duration = Duration::from_millis(50);
    let never = Queue::<()>::bounded(1);
    while never.pop_within(EVERY) == Popped::TimedOut {
        let Some(process) = process.upgrade() else { return };
        process.look_for_hung_calls(limit);
    }
}

/// What `Progress` reads from the system. Opened before the sandbox closes the door.
#[derive(Debug)]
struct System {
    statm: Option<File>,
}

impl System {
    fn open() -> System {
        System { statm: File::open("/proc/self/statm").ok() }
    }

    fn cpu_us() -> u64 {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
            return 0;
        };
        [usage.user_time(), usage.system_time()]
            .iter()
            .map(|t| u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).unwrap_or(0))
            .sum()
    }

    fn rss_bytes(&self) -> u64 {
        let mut text = [0u8; 128];
        let read = self.statm.as_ref().and_then(|f| f.read_at(&mut text, 0).ok()).unwrap_or(0);
        let text = std::str::from_utf8(&text[..read]).unwrap_or_default();
        let pages: u64 = text.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        pages * u64::try_from(rustix::param::page_size()).unwrap_or(4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_as_many_seats_as_it_may_lose_channels_and_each_number_once() {
        let device = Device { gpu: GpuName::Index(0), driver_folder: None, patience: Duration::from_millis(500) };
        let process = Process::of(device);
        let mut held: Vec<_> = (0..7).map(|n| process.seat(n).unwrap()).collect();
        assert!(process.seat(3).err().unwrap().contains("seat 3"));
        held.push(process.seat(7).unwrap());
        assert!(process.seat(8).err().unwrap().contains("holds 8 channels"));
        process.leave(3);
        held.push(process.seat(8).unwrap());
        let own = Process::own();
        let only = own.seat(0).unwrap();
        assert!(own.seat(1).is_err());
        drop((held, only));
    }

    #[test]
    fn whoever_ends_it_tells_everybody_and_says_whose_fault_it_was() {
        let own = Process::own();
        let shared = own.seat(0).unwrap();
        own.end(&shared, 5, "the encoder hangs", Lost::Process);
        own.end(&shared, 5, "and hangs", Lost::Process);
        let Some(Outgoing::Message(FromWorker::Failed { ch: 5, what, lost: Lost::Process })) = shared.out.try_pop()
        else {
            panic!("no last words");
        };
        assert_eq!(what, "the encoder hangs");
        assert!(matches!(shared.out.try_pop(), Some(Outgoing::Exit)));
        assert!(shared.out.try_pop().is_none(), "said once");
    }
}

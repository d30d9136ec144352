//! The shared workers: processes that hold up to `WORKER_SEATS_MAX` channels of one GPU each. The hall starts them,
//! gives channels a seat in one, ends those that can not be trusted or that nobody needs, and reaps them.
//!
//! Non-blocking: nothing here waits for a process, since one that hangs in a driver may outlive even SIGKILL for a while.
//! One thread owns the hall and its seats in practice; the lock is what lets it be shared with them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::SockType;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::client::{self, Worker};
use super::health::PciAddress;
use super::protocol::{self, FromShared, Join, VERSION};
use crate::media::limits::{CONTROL_BYTES_MAX, WORKER_SEATS_MAX, WORKER_SILENCE_GPU, WORKER_START_GPU};
use crate::time::Mono;

/// A process without a channel stays this long: the next channel finds it warm.
const SPARE: Duration = Duration::from_secs(30);
/// A process that was told to go gets this long before it is killed.
const FAREWELL: Duration = Duration::from_secs(1);
/// A channel that left is gone from its process by then, or something in there hangs: no other one gets a seat there.
const LEAVING: Duration = Duration::from_secs(5);
/// First wait after a process ended before it stood; doubled up to `RETRY_MAX`.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Events that nobody took: the oldest go.
const EVENTS_MAX: usize = 1_024;

/// Where a channel's worker runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// In a process of its own.
    #[default]
    Own,
    /// In a process on this GPU that it shares with others.
    Gpu(u32),
}

/// What the log must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Started {
        gpu: u32,
        pid: u32,
    },
    /// It serves channels. The sentence says what confines it.
    Stands {
        gpu: u32,
        pid: u32,
        after: Duration,
        sandbox: String,
    },
    /// A channel left and its threads did not end: no newcomer gets a seat there.
    Closed {
        gpu: u32,
        pid: u32,
    },
    /// It can not be trusted and was killed; so many channels are lost with it. `asked`: by `restart`.
    Condemned {
        gpu: u32,
        pid: u32,
        asked: bool,
        channels: usize,
        why: String,
    },
    /// It is gone; `expected`: because it was told to.
    Ended {
        gpu: u32,
        pid: u32,
        expected: bool,
        channels: usize,
        how: String,
    },
}

/// What there is on one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub gpu: u32,
    pub processes: usize,
    /// Channels, those that are still being cleared away included.
    pub seats: usize,
}

/// All shared workers of this daemon. A clone is the same hall.
#[derive(Clone)]
pub struct Hall(Arc<Mutex<Inner>>);

struct Inner {
    program: PathBuf,
    driver_folder: Option<PathBuf>,
    slots: BTreeMap<u32, PciAddress>,
    patience: Duration,
    processes: Vec<Process>,
    leaving: Vec<Corpse>,
    starts: BTreeMap<u32, Starts>,
    events: VecDeque<Event>,
    /// Numbers given so far, to processes and seats alike.
    numbers: u32,
}

/// How starts on one GPU went of late.
#[derive(Clone, Copy, Default)]
struct Starts {
    next: Mono,
    /// Zero: the last one stood.
    wait: Duration,
}

struct Process {
    number: u32,
    gpu: u32,
    child: Child,
    control: OwnedFd,
    started: Mono,
    stood: Option<Mono>,
    seats: BTreeMap<u32, Sitting>,
    /// When the last seat became free.
    empty: Mono,
    /// Something of a channel hangs in there: newcomers sit elsewhere.
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sitting {
    Here,
    /// The daemon's end is closed, the process has not said that nothing is left. Since the first look after it.
    Leaving(Option<Mono>),
}

/// A process that was told or made to go.
struct Corpse {
    gpu: u32,
    child: Child,
    since: Mono,
    killed: bool,
}

impl Hall {
    /// Of workers that are `program`. Nothing is started yet.
    pub fn new(program: PathBuf) -> Hall {
        Hall(Arc::new(Mutex::new(Inner {
            program,
            driver_folder: None,
            slots: BTreeMap::new(),
            patience: WORKER_SILENCE_GPU,
            processes: Vec::new(),
            leaving: Vec::new(),
            starts: BTreeMap::new(),
            events: VecDeque::new(),
            numbers: 0,
        })))
    }

    /// Where the driver's libraries are looked for first, by processes started from now on.
    pub fn set_driver_folder(&self, folder: PathBuf) {
        self.lock().driver_folder = Some(folder);
    }

    /// Where the GPUs are plugged in: the driver's own numbers change when it loses one.
    pub fn set_slots(&self, slots: BTreeMap<u32, PciAddress>) {
        self.lock().slots = slots;
    }

    /// Ends the process with that PID, or each on the GPU if nobody knows which: its work there was ended. False: there
    /// was none.
    pub fn restart(&self, gpu: u32, pid: Option<u32>, why: &str, now: Mono) -> bool {
        let mut inner = self.lock();
        let mut any = false;
        for i in (0..inner.processes.len()).rev() {
            let process = &inner.processes[i];
            if process.gpu == gpu && pid.is_none_or(|pid| pid == process.child.id()) {
                inner.end(i, now, why.to_owned(), true);
                any = true;
            }
        }
        any
    }

    /// How long a GPU's worker may be silent, make nothing, or be inside one call of the driver.
    pub fn set_patience(&self, patience: Duration) {
        self.lock().patience = patience;
    }

    pub fn patience(&self) -> Duration {
        self.lock().patience
    }

    /// A worker for one channel: a process of its own, or a seat.
    ///
    /// # Errors
    /// A sentence: why there is none now.
    pub fn worker(&self, home: Home, now: Mono) -> Result<Worker, String> {
        match home {
            Home::Own => {
                let program = self.lock().program.clone();
                Worker::spawn(&program, now)
            }
            Home::Gpu(gpu) => self.seat(gpu, now),
        }
    }

    /// A seat in the fullest process of that GPU that has room, or in a new one: few processes, since each holds a
    /// context of its own on the card. Dropping the worker frees the seat.
    ///
    /// # Errors
    /// A sentence: no process can be started, or not yet again.
    pub fn seat(&self, gpu: u32, now: Mono) -> Result<Worker, String> {
        let (ours, theirs) = client::pair(SockType::Stream)?;
        let (seat, pid) = {
            let mut inner = self.lock();
            inner.run(now);
            inner.admit(gpu, &theirs, now)?
        };
        let (process, number) = seat;
        Worker::seated(Seat { hall: self.clone(), process, number, pid }, ours, now)
    }

    /// Takes what the processes say, ends those that nobody needs, reaps those that are gone. At least once a second.
    pub fn run(&self, now: Mono) {
        self.lock().run(now);
    }

    pub fn poll(&self) -> Option<Event> {
        self.lock().events.pop_front()
    }

    /// By GPU; those that ever had a process.
    pub fn counts(&self) -> Vec<Count> {
        let inner = self.lock();
        let on = |gpu: u32| inner.processes.iter().filter(move |process| process.gpu == gpu);
        let count = |gpu: &u32| Count {
            gpu: *gpu,
            processes: on(*gpu).count(),
            seats: on(*gpu).map(|process| process.seats.len()).sum(),
        };
        inner.starts.keys().map(count).collect()
    }

    /// Process ids of those that have not been condemned or told to go.
    pub fn pids(&self) -> Vec<u32> {
        self.lock().processes.iter().map(|process| process.child.id()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What a panicking holder left behind is a list of processes all the same.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn run(&mut self, now: Mono) {
        for i in (0..self.processes.len()).rev() {
            if let Err(why) = self.hear(i, now) {
                self.condemn(i, now, why);
            } else if let Ok(Some(status)) = self.processes[i].child.try_wait() {
                self.bury(i, now, status.to_string());
            } else if self.processes[i].stood.is_none() && now - self.processes[i].started > WORKER_START_GPU {
                let seconds = WORKER_START_GPU.as_secs();
                self.condemn(i, now, format!("not ready within {seconds} s: the driver does not come up"));
            } else {
                self.look_after(i, now);
            }
        }
        self.reap(now);
    }

    /// What a process says on its control socket.
    fn hear(&mut self, i: usize, now: Mono) -> Result<(), String> {
        let mut bytes = [0; CONTROL_BYTES_MAX];
        // Bounded: a process says one thing about itself and one about each seat.
        for _ in 0..=4 * WORKER_SEATS_MAX {
            let process = &mut self.processes[i];
            let length = match recv(&process.control, &mut bytes[..], RecvFlags::DONTWAIT) {
                // Gone or going: `try_wait` knows how, now or in a moment.
                Ok((_, 0)) | Err(Errno::CONNRESET | Errno::AGAIN | Errno::INTR) => return Ok(()),
                Ok((_, length)) => length.min(bytes.len()),
                Err(e) => return Err(format!("control socket: {e}")),
            };
            match protocol::from_packet(&bytes[..length])? {
                FromShared::Hello { version, .. } if version != VERSION => {
                    return Err(format!(
                        "speaks protocol {version}, this daemon {VERSION}: install both from one build"
                    ));
                }
                FromShared::Hello { sandbox, .. } => {
                    process.stood = Some(now);
                    let (gpu, pid, after) = (process.gpu, process.child.id(), now - process.started);
                    self.starts.insert(gpu, Starts::default());
                    self.note(Event::Stands { gpu, pid, after, sandbox });
                }
                FromShared::Left { seat } => {
                    process.seats.remove(&seat);
                    process.empty = now;
                }
            }
        }
        Ok(())
    }

    /// Who left and hangs; whether anybody needs it.
    fn look_after(&mut self, i: usize, now: Mono) {
        let process = &mut self.processes[i];
        let mut hangs = false;
        for sitting in process.seats.values_mut() {
            if let Sitting::Leaving(since) = sitting {
                hangs |= now - *since.get_or_insert(now) > LEAVING;
            }
        }
        if hangs && !process.closed {
            process.closed = true;
            let event = Event::Closed { gpu: process.gpu, pid: process.child.id() };
            self.note(event);
        }
        let process = &self.processes[i];
        if process.closed && !process.seats.values().any(|sitting| *sitting == Sitting::Here) {
            return self.condemn(i, now, "what a channel left in it hangs, and nobody else is in it".to_owned());
        }
        if process.stood.is_some() && process.seats.is_empty() && now - process.empty > SPARE {
            let Process { gpu, child, control, .. } = self.processes.remove(i);
            // It goes when this closes.
            drop(control);
            self.leaving.push(Corpse { gpu, child, since: now, killed: false });
        }
    }

    fn reap(&mut self, now: Mono) {
        let mut gone = Vec::new();
        self.leaving.retain_mut(|corpse| {
            if let Ok(Some(status)) = corpse.child.try_wait() {
                gone.push((corpse.gpu, corpse.child.id(), status.to_string()));
                return false;
            }
            if !corpse.killed && now - corpse.since > FAREWELL {
                // Fails only if it is gone already.
                drop(corpse.child.kill());
                corpse.killed = true;
            }
            true
        });
        for (gpu, pid, how) in gone {
            self.note(Event::Ended { gpu, pid, expected: true, channels: 0, how });
        }
    }

    fn admit(&mut self, gpu: u32, socket: &OwnedFd, now: Mono) -> Result<((u32, u32), u32), String> {
        self.numbers += 1;
        let seat = self.numbers;
        // Each turn ends with a seat, an error, or one process less among those that have room.
        loop {
            let room =
                |process: &&Process| process.gpu == gpu && !process.closed && process.seats.len() < WORKER_SEATS_MAX;
            let fullest = self.processes.iter().filter(room).max_by_key(|process| process.seats.len());
            let Some(number) = fullest.map(|process| process.number) else {
                self.spawn(gpu, now)?;
                continue;
            };
            let Some(i) = self.find(number) else { continue };
            match hand_over(&self.processes[i].control, Join { seat }, socket) {
                Ok(()) => {
                    self.processes[i].seats.insert(seat, Sitting::Here);
                    return Ok(((number, seat), self.processes[i].child.id()));
                }
                Err(e) => self.condemn(i, now, format!("takes no channel: {e}")),
            }
        }
    }

    fn spawn(&mut self, gpu: u32, now: Mono) -> Result<(), String> {
        let starts = self.starts.entry(gpu).or_default();
        if now < starts.next {
            let left = (starts.next - now).as_secs_f64();
            return Err(format!(
                "the last worker for GPU {gpu} ended before it was ready; the next try is in {left:.1} s"
            ));
        }
        let (control, theirs) = client::pair(SockType::SeqPacket)?;
        let name = self.slots.get(&gpu).map_or_else(|| gpu.to_string(), PciAddress::to_string);
        let patience = self.patience.as_millis().to_string();
        let mut arguments = vec!["--gpu".as_ref(), name.as_ref(), "--patience-ms".as_ref(), patience.as_ref()];
        if let Some(folder) = &self.driver_folder {
            arguments.extend(["--driver-folder".as_ref(), folder.as_os_str()]);
        }
        let child = client::start(&self.program, &arguments, theirs)?;
        self.note(Event::Started { gpu, pid: child.id() });
        self.numbers += 1;
        self.processes.push(Process {
            number: self.numbers,
            gpu,
            child,
            control,
            started: now,
            stood: None,
            seats: BTreeMap::new(),
            empty: now,
            closed: false,
        });
        Ok(())
    }

    /// Kills a process: every channel in it finds its socket closed.
    fn condemn(&mut self, i: usize, now: Mono, why: String) {
        self.end(i, now, why, false);
    }

    fn end(&mut self, i: usize, now: Mono, why: String, asked: bool) {
        let mut process = self.processes.remove(i);
        // Fails only if it is gone already.
        drop(process.child.kill());
        let (gpu, pid) = (process.gpu, process.child.id());
        let channels = process.here();
        self.note_start(&process, now);
        self.note(Event::Condemned { gpu, pid, asked, channels, why });
        self.leaving.push(Corpse { gpu, child: process.child, since: now, killed: true });
    }

    /// A process that ended by itself and is reaped.
    fn bury(&mut self, i: usize, now: Mono, how: String) {
        let process = self.processes.remove(i);
        self.note_start(&process, now);
        let (gpu, pid) = (process.gpu, process.child.id());
        self.note(Event::Ended { gpu, pid, expected: false, channels: process.here(), how });
    }

    /// One that ended before it stood makes the next one wait.
    fn note_start(&mut self, process: &Process, now: Mono) {
        if process.stood.is_none() {
            let starts = self.starts.entry(process.gpu).or_default();
            starts.wait = (starts.wait * 2).clamp(RETRY_MIN, RETRY_MAX);
            starts.next = now + starts.wait;
        }
    }

    fn note(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn find(&self, number: u32) -> Option<usize> {
        self.processes.iter().position(|process| process.number == number)
    }
}

impl Process {
    fn here(&self) -> usize {
        self.seats.values().filter(|sitting| **sitting == Sitting::Here).count()
    }
}

impl Drop for Inner {
    /// Killed and reaped, as far as they can be: a process that hangs in a driver is left to the system.
    fn drop(&mut self) {
        let children = self.processes.drain(..).map(|process| process.child);
        for mut child in children.chain(self.leaving.drain(..).map(|corpse| corpse.child)) {
            // Fails only if it is gone already.
            drop(child.kill());
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(gone) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
                let timeout = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
                // Whatever the wait says, `try_wait` knows.
                let _readable = poll(&mut [PollFd::new(&gone, PollFlags::IN)], Some(&timeout));
            }
            drop(child.try_wait());
        }
    }
}

/// One channel's place in a shared process.
pub(super) struct Seat {
    hall: Hall,
    process: u32,
    number: u32,
    pid: u32,
}

impl Seat {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// When the process was heard to be ready; `None`: it is not yet, or gone.
    pub(super) fn stood(&self, now: Mono) -> Option<Mono> {
        let mut inner = self.hall.lock();
        inner.run(now);
        inner.find(self.process).and_then(|i| inner.processes[i].stood)
    }

    /// Ends the process with everybody in it.
    pub(super) fn condemn(&self, now: Mono, why: &str) {
        let mut inner = self.hall.lock();
        if let Some(i) = inner.find(self.process) {
            inner.condemn(i, now, why.to_owned());
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.hall.patience()
    }

    /// Its socket closed and nobody said why: no newcomer gets a seat there. The process may be gone and not found so yet.
    pub(super) fn shun(&self) {
        let mut inner = self.hall.lock();
        if let Some(i) = inner.find(self.process) {
            inner.processes[i].closed = true;
        }
    }

    /// How the process ended, if it did.
    pub(super) fn fate(&self) -> Option<String> {
        let mut inner = self.hall.lock();
        let i = inner.find(self.process)?;
        inner.processes[i].child.try_wait().ok().flatten().map(|status| status.to_string())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.hall.lock();
        let sitting = inner.find(self.process).and_then(|i| inner.processes[i].seats.get_mut(&self.number));
        // A process that has said that nothing is left has freed the seat already.
        if let Some(sitting) = sitting {
            *sitting = Sitting::Leaving(None);
        }
    }
}

/// A message with the descriptor of a channel's socket.
fn hand_over(control: &OwnedFd, join: Join, socket: &OwnedFd) -> io::Result<()> {
    let packet = protocol::packet(&join);
    let descriptors = [std::os::fd::AsFd::as_fd(socket)];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    // The buffer was made for exactly this.
    assert!(rights.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room for one descriptor");
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(control, &[io::IoSlice::new(&packet)], &mut rights, flags)?;
    Ok(())
}

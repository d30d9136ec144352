//! The thread that media runs on: datagrams in, published parts out, without a hand-over in between.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::channel::{ChannelRun, Legacy, Resume};
use super::devices::{Devices, Measured};
use super::events;
use super::gpus::{GpuEvent, GpuHealth, Gpus};
use super::ports::{Counters, Ports};
use super::snapshots::{Reply, Snapshot};
use super::status::ChannelStatus;
use super::stills::Stills;
use super::witness::{Wake, Witness};
use crate::ingest::srt::PullUrl;
use crate::ingest::{Closing, Connected, Event, PublisherId, PullNews, PullStatus};
use crate::media::channel::{BackendPolicy, Channel, ChannelName, SessionId};
use crate::package::origin::Origin;
use crate::pixels::hall::{self, Hall};
use crate::sys::wake::Bell;
use crate::time::{Clock, Mono, Now, SystemClock};

/// Status and statistics are refreshed this often.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// What a GPU told of its load longer ago than this is not news: its monitor hangs.
const FRESH: Duration = Duration::from_secs(5);
/// Callers on their way out get this long to be told so.
const FAREWELL: Duration = Duration::from_millis(300);
/// Commands that may wait; a box has fewer operators than that, and each is done within a round.
const COMMANDS_MAX: usize = 1 << 16;

/// What all channels share.
pub struct Setup {
    pub origin: Arc<Origin>,
    /// Where workers come from.
    pub hall: Hall,
    pub devices: Arc<Devices>,
    /// What is known of the GPUs behind them.
    pub gpus: Gpus,
    /// Called every second while there is a GPU that is well and not among `devices`.
    pub look_for_gpus: Arc<dyn Fn(Mono) + Send + Sync>,
    /// Of channels that do not say so themselves.
    pub backend: BackendPolicy,
    pub witness: Arc<dyn Witness>,
}

/// What control asks. Each shard does its own in order, within a round.
#[derive(Debug)]
pub enum Command {
    /// A channel becomes known, or changes: an open session keeps what it was opened with.
    Configure(Box<Channel>),
    /// The source that the channel is received from as long as nothing else is said; `None`: publishers come by themselves.
    Pull { channel: ChannelName, url: Option<PullUrl> },
    /// What a channel's sessions left in earlier processes.
    Remember { channel: ChannelName, legacy: Legacy },
    /// A session of an earlier process goes on.
    Resume { channel: ChannelName, resume: Box<Resume> },
    /// Nobody knows it any more; an open session of it was ended before.
    Remove(ChannelName),
    /// A publisher that waits begins a session.
    Begin { channel: ChannelName, session: SessionId, publisher: PublisherId },
    /// A publisher that waits joins the open session.
    Join { channel: ChannelName, session: SessionId, publisher: PublisherId },
    /// Says that all before it is done, and that the status shows it.
    Answer(SyncSender<()>),
    /// A publisher that waits is sent away: it gets no session.
    TurnAway { channel: ChannelName, publisher: PublisherId },
    /// The session's publishers are sent away: what they send cannot be used.
    Dismiss { channel: ChannelName, session: SessionId },
    /// The session ends with ENDLIST and its publishers go.
    End { channel: ChannelName, session: SessionId, why: &'static str },
    /// A picture of the channel as it is now.
    Snapshot { channel: ChannelName, reply: Reply },
    /// The session's publishers begin another one. `seamless`: it is made alike and viewers need not know.
    RollOver {
        channel: ChannelName,
        from: SessionId,
        to: SessionId,
        seamless: bool,
        /// Who feeds it, as the book has it.
        publishers: Vec<PublisherId>,
    },
}

impl Command {
    /// The channel that it is about; `None`: it is for every shard.
    pub(super) fn channel(&self) -> Option<&ChannelName> {
        match self {
            Command::Configure(channel) => Some(&channel.name),
            Command::Remove(channel)
            | Command::Pull { channel, .. }
            | Command::Remember { channel, .. }
            | Command::Resume { channel, .. }
            | Command::Begin { channel, .. }
            | Command::Join { channel, .. }
            | Command::TurnAway { channel, .. }
            | Command::Dismiss { channel, .. }
            | Command::End { channel, .. }
            | Command::Snapshot { channel, .. }
            | Command::RollOver { channel, .. } => Some(channel),
            Command::Answer(_) => None,
        }
    }
}

/// A running shard.
pub(super) struct Shard {
    pub(super) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What others see of a shard.
pub(super) struct Shared {
    stop: AtomicBool,
    bell: Bell,
    /// By name. A channel's status is replaced, never changed: readers share it.
    status: Mutex<BTreeMap<ChannelName, Arc<ChannelStatus>>>,
    /// Of channels whose sources are called.
    pulls: Mutex<BTreeMap<ChannelName, PullStatus>>,
    commands: Mutex<VecDeque<Command>>,
    /// Heartbeat of the loop: when it last came round.
    round: AtomicU64,
}

impl Shard {
    /// Runs `ports` on a thread of its own; channels come by `Command::Configure`. The first of all also looks after what
    /// all share.
    ///
    /// # Errors
    /// The system has no descriptor or thread left.
    pub(super) fn start(number: usize, ports: Ports, setup: Arc<Setup>) -> io::Result<Shard> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            bell: Bell::new()?,
            status: Mutex::default(),
            pulls: Mutex::default(),
            commands: Mutex::default(),
            round: AtomicU64::new(SystemClock::mono().0),
        });
        let now = SystemClock.now();
        let counters = ports.counters();
        let mut run = Run {
            number,
            ports,
            stills: Stills::new(setup.hall.clone()),
            setup,
            known: BTreeMap::new(),
            running: BTreeMap::new(),
            owners: BTreeMap::new(),
            shared: Arc::clone(&shared),
            kept: now.mono,
            counters,
        };
        run.publish_status(now);
        let thread = std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || run.run())?;
        Ok(Shard { shared, thread: Some(thread) })
    }

    /// Publishers are told to come back later, sessions end. `join` waits for that.
    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.bell.ring();
    }

    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Its panic has been logged where it happened.
            drop(thread.join());
        }
    }
}

impl Shared {
    /// Hands a command over.
    ///
    /// # Errors
    /// It comes back: too many wait already.
    pub(super) fn tell(&self, command: Command) -> Result<(), Command> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if commands.len() >= COMMANDS_MAX {
            return Err(command);
        }
        commands.push_back(command);
        drop(commands);
        self.bell.ring();
        Ok(())
    }

    pub(super) fn status(&self) -> MutexGuard<'_, BTreeMap<ChannelName, Arc<ChannelStatus>>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pulls(&self) -> MutexGuard<'_, BTreeMap<ChannelName, PullStatus>> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago the loop last came round.
    pub(super) fn age(&self) -> Duration {
        SystemClock::mono() - Mono(self.round.load(Ordering::Relaxed))
    }
}

/// A channel that is configured: what a session of it begins with.
struct Known {
    config: Arc<Channel>,
    legacy: Legacy,
}

struct Run {
    number: usize,
    ports: Ports,
    stills: Stills,
    setup: Arc<Setup>,
    known: BTreeMap<ChannelName, Known>,
    /// Those with something to do: thousands may be known, dozens run.
    running: BTreeMap<ChannelName, ChannelRun>,
    owners: BTreeMap<PublisherId, ChannelName>,
    shared: Arc<Shared>,
    kept: Mono,
    counters: Counters,
}

impl Run {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.wait();
            self.round(SystemClock.now());
        }
        // Sessions stay open in the book: the next process goes on with them.
        let now = SystemClock.now();
        self.ports.shutdown(now.mono);
        while let Some(event) = self.ports.poll() {
            self.route(now, event);
        }
        for output in self.setup.origin.channels().iter().filter_map(|channel| channel.session()) {
            output.suspend();
        }
        let end = now.mono + FAREWELL;
        while !self.owners.is_empty() && SystemClock::mono() < end {
            self.wait();
            self.round(SystemClock.now());
        }
    }

    fn round(&mut self, now: Now) {
        self.shared.round.store(now.mono.0, Ordering::Relaxed);
        self.obey(now);
        self.ports.run(now.mono);
        while let Some(event) = self.ports.poll() {
            self.route(now, event);
        }
        self.each(now, |channel| channel.run(now));
        self.make_stills(now);
        self.part(now);
        if now.mono - self.kept >= HOUSEKEEPING {
            self.kept = now.mono;
            self.publish_status(now);
        }
    }

    fn make_stills(&mut self, now: Now) {
        for channel in self.running.values_mut() {
            if let Some((owner, order)) = channel.still_order() {
                let left_out = self.stills.order(now.mono, owner, order);
                channel.stills_left_out(left_out);
            }
        }
        self.stills.run(now.mono);
        while let Some((owner, pictures)) = self.stills.poll() {
            self.contain(now, &owner.channel, |channel| channel.stills_made(now, &owner, pictures));
        }
    }

    fn obey(&mut self, now: Now) {
        let commands = std::mem::take(&mut *self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner));
        if commands.is_empty() {
            return;
        }
        for command in commands {
            self.carry_out(now, command);
        }
        self.tell_status(now);
    }

    fn carry_out(&mut self, now: Now, command: Command) {
        match command {
            Command::Answer(sender) => {
                self.tell_status(now);
                // Whoever asked and went away does not want to know.
                let _gone = sender.try_send(());
            }
            Command::Configure(channel) => self.configure(now, *channel),
            Command::Pull { channel, url } => {
                if url.is_none() && self.shared.pulls().remove(&channel).is_some() {
                    events::pull_over(&channel);
                }
                self.ports.pull(now.mono, &channel, url);
            }
            Command::Remove(name) => {
                self.known.remove(&name);
                self.tell_status_of(now, &name);
                if !self.running.contains_key(&name) {
                    self.setup.origin.forget(&name);
                }
            }
            Command::Remember { channel, legacy } => {
                self.running.get_mut(&channel).into_iter().for_each(|running| running.remember(legacy));
                self.known.get_mut(&channel).into_iter().for_each(|known| known.legacy = legacy);
            }
            Command::Resume { channel, resume } => {
                let wake = self.wake();
                self.start(&channel);
                self.contain(now, &channel, |channel| channel.resume(now, *resume, wake));
            }
            Command::Begin { channel, session, publisher } => {
                let wake = self.wake();
                // Its publisher may have left, and with it the last that ran here.
                self.start(&channel);
                self.contain(now, &channel, |channel| channel.begin(now, session, wake, publisher));
            }
            Command::Join { channel, session, publisher } => {
                self.contain(now, &channel, |channel| channel.join(now, &session, publisher));
            }
            Command::TurnAway { publisher, .. } => self.ports.close(now.mono, publisher, Closing::Stopped),
            Command::Dismiss { channel, session } => {
                self.contain(now, &channel, |channel| channel.dismiss(&session, Closing::InputInvalid));
            }
            Command::End { channel, session, why } => {
                self.contain(now, &channel, |channel| channel.end(now, &session, why));
            }
            Command::Snapshot { channel, reply } => match self.running.get_mut(&channel) {
                Some(running) => contain(now, running, |running| running.snapshot(now, reply)),
                None => reply.give(Snapshot::NotLive("it has no session".to_owned())),
            },
            Command::RollOver { channel, from, to, seamless, publishers } => {
                let wake = self.wake();
                self.contain(now, &channel, |channel| {
                    if !(seamless && channel.go_on_as(now, &from, &to, &publishers)) {
                        channel.roll_over(now, &from, &to, wake);
                    }
                });
            }
        }
    }

    /// Has `channel` among those that run.
    fn start(&mut self, channel: &ChannelName) {
        if let Some(known) = self.known.get(channel)
            && !self.running.contains_key(channel)
        {
            let run = ChannelRun::new(Arc::clone(&known.config), known.legacy, Arc::clone(&self.setup));
            self.running.insert(channel.clone(), run);
        }
    }

    fn wake(&self) -> Wake {
        let shared = Arc::clone(&self.shared);
        Arc::new(move || shared.bell.ring())
    }

    fn configure(&mut self, now: Now, channel: Channel) {
        let (name, config) = (channel.name.clone(), Arc::new(channel));
        let output = self.setup.origin.declare(&config.name);
        output.set_access(config.access);
        output.set_steering(config.steering.as_ref());
        if let Some(running) = self.running.get_mut(&config.name) {
            running.configure(Arc::clone(&config));
        }
        let legacy = self.known.get(&config.name).map_or_else(Legacy::default, |known| known.legacy);
        self.known.insert(name.clone(), Known { config, legacy });
        self.tell_status_of(now, &name);
    }

    /// Publishers that must go are told so; channels that became idle run no more.
    fn part(&mut self, now: Now) {
        for channel in self.running.values_mut() {
            while let Some((publisher, why)) = channel.poll_close() {
                self.ports.close(now.mono, publisher, why);
            }
        }
        let (known, origin, mut idle) = (&mut self.known, &self.setup.origin, Vec::new());
        self.running.retain(|name, channel| {
            let Some(legacy) = channel.legacy() else { return true };
            match known.get_mut(name) {
                Some(known) => known.legacy = legacy,
                None => origin.forget(name),
            }
            idle.push(name.clone());
            false
        });
        idle.iter().for_each(|name| self.tell_status_of(now, name));
    }

    fn route(&mut self, now: Now, event: Event) {
        match event {
            Event::Data { publisher, payload } => {
                if let Some(name) = self.owners.get(&publisher).cloned() {
                    self.contain(now, &name, |channel| channel.data(now, publisher, &payload));
                }
            }
            Event::Connected(connected) => self.connected(now, &connected),
            Event::Closed { publisher, reason, stats } => {
                if let Some(name) = self.owners.remove(&publisher) {
                    self.contain(now, &name, |channel| channel.closed(now, publisher, reason, &stats));
                }
            }
            Event::Refused { channel, code, why, .. } => events::refused(channel.as_ref(), code, &why),
            Event::Overflow { publisher } => {
                if let Some(name) = self.owners.get(&publisher) {
                    events::overflow(name);
                }
            }
            Event::Pull(news) => self.pulled(news),
        }
    }

    fn pulled(&self, news: PullNews) {
        events::pull(&news);
        self.shared.pulls().insert(news.channel, news.status);
    }

    fn connected(&mut self, now: Now, connected: &Connected) {
        if self.ports.is_replaced(connected) {
            return self.ports.close(now.mono, connected.publisher, Closing::Replaced);
        }
        if let Some(old) = connected.replaced
            && let Some(name) = self.owners.remove(&old)
        {
            // It came to another port, which tells of its end later.
            let stats = self.ports.stats(now.mono, old).unwrap_or_default();
            self.ports.close(now.mono, old, Closing::Replaced);
            self.contain(now, &name, |channel| channel.closed(now, old, Closing::Replaced, &stats));
        }
        let name = connected.channel.clone();
        if !self.known.contains_key(&name) {
            return self.ports.close(now.mono, connected.publisher, Closing::Stopped);
        }
        self.start(&name);
        self.owners.insert(connected.publisher, name.clone());
        self.contain(now, &name, |channel| channel.connected(connected));
    }

    fn each(&mut self, now: Now, mut work: impl FnMut(&mut ChannelRun)) {
        for channel in self.running.values_mut() {
            contain(now, channel, &mut work);
        }
    }

    fn contain(&mut self, now: Now, name: &ChannelName, work: impl FnOnce(&mut ChannelRun)) {
        if let Some(channel) = self.running.get_mut(name) {
            contain(now, channel, work);
        }
    }

    /// Until a datagram, a worker, a timer or `stop` wants something.
    fn wait(&mut self) {
        let now = SystemClock::mono();
        let mut deadline = self.kept + HOUSEKEEPING;
        deadline = self.ports.deadline(now).map_or(deadline, |d| d.min(deadline));
        for channel in self.running.values() {
            deadline = channel.deadline().map_or(deadline, |d| d.min(deadline));
        }
        let left = deadline - now;
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = vec![PollFd::from_borrowed_fd(self.shared.bell.fd(), PollFlags::IN)];
        fds.extend(self.ports.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        for (fd, writing) in self.running.values().filter_map(ChannelRun::fd).chain(self.stills.fd()) {
            let events = if writing { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            fds.push(PollFd::from_borrowed_fd(fd, events));
        }
        // An interrupted wait is a wake-up like any other: everything is looked at again.
        let _woken = poll(&mut fds, Some(&timeout));
        if fds[0].revents().contains(PollFlags::IN) {
            self.shared.bell.hear();
        }
    }

    fn publish_status(&mut self, now: Now) {
        let counters = self.ports.counters();
        events::ports(&counters, &self.counters);
        self.counters = counters;
        for channel in self.running.values_mut() {
            for (publisher, leg) in channel.publishers() {
                if let Some(stats) = self.ports.stats(now.mono, publisher) {
                    channel.statistics(leg, stats);
                }
            }
            channel.housekeeping(now);
        }
        let open = self.running.values().filter_map(ChannelRun::still_owner).map(|owner| owner.session).collect();
        self.stills.keep(now.mono, &open);
        if self.number == 0 {
            self.keep_gpus(now);
            self.keep_hall(now);
        }
        self.tell_status(now);
    }

    /// What is told of the GPUs counts in what is placed on them; sessions on one that is ill look for another place.
    fn keep_gpus(&self, now: Now) {
        let Setup { hall, devices, gpus, look_for_gpus, .. } = &*self.setup;
        while let Some(event) = gpus.poll() {
            let Some(number) = devices.number(event.gpu()) else { continue };
            match event {
                GpuEvent::Found { .. } => {}
                GpuEvent::RestartWorkers { pid, why, .. } => {
                    if hall.restart(number, pid, &why, now.mono) {
                        self.device_fault(now, number, &why);
                    }
                }
                GpuEvent::Condemned { why, .. } | GpuEvent::Lost { why, .. } => devices.ill(number, &why),
                GpuEvent::Recovered { .. } => devices.well(number),
            }
        }
        for gpu in &gpus.snapshot().gpus {
            let fresh = gpu.values.as_ref().filter(|_| gpu.read_at.is_some_and(|at| now.mono - at < FRESH));
            match devices.number(gpu.pci) {
                // Without readings the last ones stand.
                Some(number) => fresh.into_iter().for_each(|values| devices.measured(number, Measured::of(values))),
                None if gpu.health == GpuHealth::Ok => look_for_gpus(now.mono),
                None => {}
            }
        }
    }

    fn device_fault(&self, now: Now, gpu: u32, what: &str) {
        if let Some(why) = self.setup.devices.fault(gpu, what, now.mono) {
            events::gpu_rests(gpu, &why);
        }
    }

    fn keep_hall(&self, now: Now) {
        self.setup.hall.run(now.mono);
        self.setup.devices.tick(now.mono);
        while let Some(event) = self.setup.hall.poll() {
            events::hall(&event);
            match &event {
                // One error of a GPU is one fault, however many processes were ended for it.
                hall::Event::Condemned { asked: true, .. } => {}
                hall::Event::Condemned { gpu, why, .. } => self.device_fault(now, *gpu, why),
                hall::Event::Ended { gpu, expected: false, how, .. } => self.device_fault(now, *gpu, how),
                _ => {}
            }
        }
        self.setup.hall.counts().iter().for_each(events::hall_count);
    }

    /// Those that run: the others' status changes with their configuration only.
    fn tell_status(&self, now: Now) {
        self.running.keys().for_each(|name| self.tell_status_of(now, name));
    }

    fn tell_status_of(&self, now: Now, name: &ChannelName) {
        let Some(known) = self.known.get(name) else {
            self.shared.status().remove(name);
            return;
        };
        let idle = || ChannelStatus::idle(&known.config);
        let status = self.running.get(name).map_or_else(idle, |channel| channel.status(now));
        self.shared.status().insert(name.clone(), Arc::new(status));
    }
}

/// A panic ends the channel's session, not the shard.
fn contain(now: Now, channel: &mut ChannelRun, work: impl FnOnce(&mut ChannelRun)) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(channel))) {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        channel.abandon(now, what);
    }
}

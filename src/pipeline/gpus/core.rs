//! What is known of every GPU, and of the monitor that tells it: facts in, facts out, no I/O.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::events::Note;
use crate::pixels::health::{
    Answer, FromMonitor, GpuCard, GpuFault, GpuReading, GpuValues, KernelLog, Opened, PciAddress, Remedy, Throttle,
    Unavailable,
};
use crate::time::Mono;

/// One GPU, as it was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuView {
    /// Rung's number for it: the label of its metrics, and what sessions run on. NVML's own number, unless a card that
    /// vanished made the others' numbers move up, or CUDA shows only some of them.
    pub number: u32,
    /// The card's slot; it is known by this.
    pub pci: PciAddress,
    pub name: String,
    pub uuid: String,
    /// The driver's version.
    pub driver: String,
    pub memory_bytes: u64,
    pub health: GpuHealth,
    /// As of `read_at`; `None` before the first reading, and of a lost card.
    pub values: Option<GpuValues>,
    pub read_at: Option<Mono>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuHealth {
    Ok,
    /// It works, or seems to, and must not be relied upon.
    Ill {
        why: String,
        remedy: Remedy,
    },
    /// It does not answer.
    Lost {
        why: String,
    },
}

/// What the supervisor of workers must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuEvent {
    /// A card that may be used.
    Found { gpu: PciAddress },
    /// The card is well, but a process's work on it was ended: the one with this PID, or nobody knows which.
    RestartWorkers { gpu: PciAddress, pid: Option<u32>, why: String },
    /// Everything goes elsewhere, and nothing new comes.
    Condemned { gpu: PciAddress, why: String },
    /// Nothing on it can be saved.
    Lost { gpu: PciAddress, why: String },
    /// It has been well for a while: it may be used again.
    Recovered { gpu: PciAddress },
}

impl GpuEvent {
    /// The card's slot.
    pub fn gpu(&self) -> PciAddress {
        match self {
            GpuEvent::Found { gpu }
            | GpuEvent::RestartWorkers { gpu, .. }
            | GpuEvent::Condemned { gpu, .. }
            | GpuEvent::Lost { gpu, .. }
            | GpuEvent::Recovered { gpu } => *gpu,
        }
    }
}

/// How the monitor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorState {
    /// None was ever wanted.
    Off,
    Starting,
    Watching,
    /// It died or hung: a successor comes.
    Restarting {
        why: String,
    },
    /// There is nothing that could be watched; looked for again now and then.
    Unavailable {
        what: String,
    },
}

/// Bounds and waits; the defaults are the product's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// From its start to its first report: a driver that nobody uses sets every card up anew.
    pub start_patience: Duration,
    /// Without a report, from then on.
    pub silence: Duration,
    /// First wait before a monitor that failed again is replaced, and the longest.
    pub retry: Duration,
    pub retry_max: Duration,
    /// One that went on so long did not fail again.
    pub calm: Duration,
    /// Where there is no driver, or a lost card: looked for so soon, and less and less often up to `look_max`.
    pub look: Duration,
    pub look_max: Duration,
    /// Well for so long: recovered [`pair` 1.11: upward moves wait].
    pub recover: Duration,
    /// NVML answers nonsense for so long: ill.
    pub unreadable: Duration,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            start_patience: Duration::from_secs(20),
            silence: Duration::from_secs(3),
            retry: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            calm: Duration::from_secs(60),
            look: Duration::from_secs(60),
            look_max: Duration::from_secs(600),
            recover: Duration::from_secs(30),
            unreadable: Duration::from_secs(10),
        }
    }
}

/// What the owner of the process must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Start,
    Kill,
}

pub(super) struct Core {
    tuning: Tuning,
    slots: BTreeMap<u32, PciAddress>,
    phase: Phase,
    state: MonitorState,
    cards: Vec<Card>,
    /// Counts monitors that opened NVML.
    session: u64,
    /// The next wait after a failure.
    wait: Duration,
    look: Duration,
    /// How far the kernel's log was read.
    log_position: Option<u64>,
    events: VecDeque<GpuEvent>,
    notes: Vec<Note>,
    told: Told,
}

enum Phase {
    Waiting { until: Mono },
    Starting { since: Mono },
    Watching { since: Mono, heard: Mono },
}

/// What was logged and need not be logged again.
#[derive(Default)]
struct Told {
    unavailable: String,
    kernel_log: String,
    closed: Vec<String>,
    watched: Vec<PciAddress>,
}

struct Card {
    view: GpuView,
    /// An illness that readings do not disprove.
    latched: bool,
    /// The session in which it was lost: only a later one can find it again.
    lost_in: u64,
    well_since: Option<Mono>,
    unreadable_since: Option<Mono>,
    slowed_at: Option<Mono>,
}

impl Core {
    /// `slots`: the numbers of cards that are known already.
    pub(super) fn new(tuning: Tuning, slots: BTreeMap<u32, PciAddress>, now: Mono) -> Core {
        Core {
            slots,
            phase: Phase::Waiting { until: now },
            state: MonitorState::Starting,
            cards: Vec::new(),
            session: 0,
            wait: Duration::ZERO,
            look: tuning.look,
            tuning,
            log_position: None,
            events: VecDeque::new(),
            notes: Vec::new(),
            told: Told::default(),
        }
    }

    /// What is due; to be asked again until there is nothing.
    pub(super) fn act(&mut self, now: Mono) -> Option<Act> {
        match self.phase {
            Phase::Waiting { until } if now >= until => {
                self.phase = Phase::Starting { since: now };
                Some(Act::Start)
            }
            Phase::Starting { since } if now - since > self.tuning.start_patience => {
                let seconds = (now - since).as_secs_f64();
                self.fail(
                    now,
                    "hung",
                    format!("the monitor told nothing of the GPUs for {seconds:.1} s after its start"),
                );
                Some(Act::Kill)
            }
            Phase::Watching { heard, .. } if now - heard > self.tuning.silence => {
                let seconds = (now - heard).as_secs_f64();
                self.fail(
                    now,
                    "hung",
                    format!("the monitor told nothing for {seconds:.1} s: a call into the driver hangs"),
                );
                Some(Act::Kill)
            }
            Phase::Watching { since, .. } if self.any_away() && now - since > self.look => {
                // A card that came back is seen by a fresh process only.
                self.look = (self.look * 2).min(self.tuning.look_max);
                self.phase = Phase::Waiting { until: now };
                Some(Act::Kill)
            }
            _ => None,
        }
    }

    /// When `act` may have something.
    pub(super) fn deadline(&self) -> Mono {
        let just_after = |at: Mono, span: Duration| at + span + Duration::from_millis(1);
        match self.phase {
            Phase::Waiting { until } => until,
            Phase::Starting { since } => just_after(since, self.tuning.start_patience),
            Phase::Watching { since, heard } => {
                let silent = just_after(heard, self.tuning.silence);
                if self.any_away() { silent.min(just_after(since, self.look)) } else { silent }
            }
        }
    }

    /// The process could not be started, or is gone.
    pub(super) fn ended(&mut self, now: Mono, how: String) {
        // One that had nothing to watch, or was killed, has been seen to.
        if !matches!(self.phase, Phase::Waiting { .. }) {
            self.fail(now, "died", how);
        }
    }

    pub(super) fn take(&mut self, now: Mono, message: FromMonitor) {
        match message {
            FromMonitor::Hello { kernel_log, .. } => self.take_log(kernel_log),
            FromMonitor::Opened(opened) => self.opened(now, *opened),
            FromMonitor::Report { gpus, kernel_log } => {
                self.log_position = kernel_log.or(self.log_position);
                if let Phase::Watching { heard, since } = &mut self.phase {
                    *heard = now;
                    if now - *since > self.tuning.calm {
                        self.wait = Duration::ZERO;
                    }
                }
                for GpuReading { pci, answer } in gpus {
                    self.reading(now, pci, answer);
                }
            }
            FromMonitor::Fault(fault) => self.fault(fault),
            FromMonitor::Upgraded { what } => self.notes.push(Note::Upgraded { what }),
            FromMonitor::Unavailable { why: Unavailable::Failed, what } => self.fail(now, "failed", what),
            FromMonitor::Unavailable { why, what } => self.unavailable(now, why, what),
        }
    }

    pub(super) fn event(&mut self) -> Option<GpuEvent> {
        self.events.pop_front()
    }

    /// What happened since the last time.
    pub(super) fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(super) fn state(&self) -> &MonitorState {
        &self.state
    }

    pub(super) fn views(&self) -> impl Iterator<Item = &GpuView> {
        self.cards.iter().map(|card| &card.view)
    }

    pub(super) fn log_position(&self) -> Option<u64> {
        self.log_position
    }

    /// A card is away; one that answers again and proves itself is not looked for.
    fn any_away(&self) -> bool {
        self.cards.iter().any(|card| card.is_lost() && card.well_since.is_none())
    }

    fn fail(&mut self, now: Mono, reason: &'static str, why: String) {
        self.phase = Phase::Waiting { until: now + self.wait };
        self.wait = (self.wait * 2).clamp(self.tuning.retry, self.tuning.retry_max);
        self.notes.push(Note::MonitorLost { reason, what: why.clone() });
        self.state = MonitorState::Restarting { why };
    }

    fn unavailable(&mut self, now: Mono, why: Unavailable, what: String) {
        self.phase = Phase::Waiting { until: now + self.look };
        self.look = (self.look * 2).min(self.tuning.look_max);
        if matches!(why, Unavailable::NoDriver | Unavailable::NoGpu) {
            for at in 0..self.cards.len() {
                self.lose(at, &what);
            }
        }
        if self.told.unavailable != what {
            self.told.unavailable.clone_from(&what);
            self.notes.push(Note::Unavailable { why, what: what.clone() });
        }
        self.told.watched.clear();
        self.state = MonitorState::Unavailable { what };
    }

    fn take_log(&mut self, log: KernelLog) {
        match log {
            KernelLog::Read { position } => self.log_position = Some(position),
            KernelLog::Closed { what } if self.told.kernel_log != what => {
                self.told.kernel_log.clone_from(&what);
                self.notes.push(Note::KernelLogClosed { what });
            }
            KernelLog::Closed { .. } => {}
        }
    }

    fn opened(&mut self, now: Mono, opened: Opened) {
        self.session += 1;
        self.phase = Phase::Watching { since: now, heard: now };
        self.state = MonitorState::Watching;
        self.told.unavailable.clear();
        for card in &opened.gpus {
            self.meet(card, &opened.driver);
        }
        for at in 0..self.cards.len() {
            let pci = self.cards[at].view.pci;
            if !opened.gpus.iter().any(|card| card.pci == pci) {
                self.lose(at, "NVML no longer finds it");
            }
        }
        let watched: Vec<PciAddress> = opened.gpus.iter().map(|card| card.pci).collect();
        if self.told.closed != opened.closed {
            self.notes.extend(opened.closed.iter().map(|what| Note::Closed { what: what.clone() }));
            self.told.closed.clone_from(&opened.closed);
        }
        if self.told.watched != watched {
            let (driver, sandbox) = (opened.driver, opened.sandbox);
            self.notes.push(Note::Watching { gpus: watched.len(), driver, sandbox });
            self.told.watched = watched;
        }
    }

    /// A card that NVML opened.
    fn meet(&mut self, told: &GpuCard, driver: &str) {
        if let Some(card) = self.cards.iter_mut().find(|card| card.view.pci == told.pci) {
            card.view.name.clone_from(&told.name);
            card.view.uuid.clone_from(&told.uuid);
            card.view.memory_bytes = told.memory_bytes;
            driver.clone_into(&mut card.view.driver);
            card.well_since = None;
            return;
        }
        let view = GpuView {
            number: self.number(told),
            pci: told.pci,
            name: told.name.clone(),
            uuid: told.uuid.clone(),
            driver: driver.to_owned(),
            memory_bytes: told.memory_bytes,
            health: GpuHealth::Ok,
            values: None,
            read_at: None,
        };
        self.notes.push(Note::Found { gpu: view.clone() });
        self.events.push_back(GpuEvent::Found { gpu: told.pci });
        self.cards.push(Card {
            view,
            latched: false,
            lost_in: 0,
            well_since: None,
            unreadable_since: None,
            slowed_at: None,
        });
        self.cards.sort_by_key(|card| card.view.number);
    }

    /// The number that it has already, or one that nobody has: NVML's own, if it can be.
    fn number(&self, told: &GpuCard) -> u32 {
        if let Some((number, _)) = self.slots.iter().find(|(_, slot)| **slot == told.pci) {
            return *number;
        }
        let taken =
            |number: &u32| self.slots.contains_key(number) || self.cards.iter().any(|card| card.view.number == *number);
        [told.index].into_iter().chain(0..).find(|number| !taken(number)).expect("fewer cards than numbers")
    }

    fn reading(&mut self, now: Mono, pci: PciAddress, answer: Answer) {
        let Some(at) = self.at(pci) else { return };
        match answer {
            Answer::Values(values) => self.values(now, at, *values),
            Answer::Lost => self.lose(at, "NVML: it fell off the bus or can not be reached"),
            Answer::ResetRequired => {
                self.condemn(at, "NVML: it wants a reset".to_owned(), Remedy::DrainAndReset, false);
            }
            Answer::Unreadable(what) => {
                let card = &mut self.cards[at];
                card.well_since = None;
                let since = *card.unreadable_since.get_or_insert(now);
                if now - since >= self.tuning.unreadable {
                    self.condemn(at, format!("NVML can not read it: {what}"), Remedy::DrainAndReset, false);
                }
            }
        }
    }

    fn values(&mut self, now: Mono, at: usize, values: GpuValues) {
        let session = self.session;
        let card = &mut self.cards[at];
        card.unreadable_since = None;
        if card.is_lost() && card.lost_in == session {
            // This NVML said that it is gone: what it still tells is not to be trusted.
            return;
        }
        let well_since = *card.well_since.get_or_insert(now);
        let may_recover = card.is_lost() || (!card.latched && card.view.health != GpuHealth::Ok);
        let slow: Vec<Throttle> =
            values.throttled.iter().copied().filter(|throttle| *throttle != Throttle::Power).collect();
        card.view.values = Some(values);
        card.view.read_at = Some(now);
        if may_recover && now - well_since >= self.tuning.recover {
            card.view.health = GpuHealth::Ok;
            card.latched = false;
            self.look = self.tuning.look;
            let gpu = card.view.clone();
            self.events.push_back(GpuEvent::Recovered { gpu: gpu.pci });
            self.notes.push(Note::Recovered { gpu, after: now - well_since });
        }
        self.slowed(now, at, &slow);
    }

    /// Once when it begins, and once when it has been over for a while: heat comes and goes.
    fn slowed(&mut self, now: Mono, at: usize, why: &[Throttle]) {
        let card = &mut self.cards[at];
        let gpu = &card.view;
        match card.slowed_at {
            None if !why.is_empty() => {
                let why = why.iter().map(|throttle| throttle.name()).collect::<Vec<_>>().join(", ");
                self.notes.push(Note::Slowed { gpu: gpu.clone(), why });
                card.slowed_at = Some(now);
            }
            Some(_) if !why.is_empty() => card.slowed_at = Some(now),
            Some(last) if now - last >= self.tuning.recover => {
                self.notes.push(Note::FullSpeed { gpu: gpu.clone() });
                card.slowed_at = None;
            }
            _ => {}
        }
    }

    fn fault(&mut self, fault: GpuFault) {
        let at = self.at(fault.gpu);
        let number = at.map(|at| self.cards[at].view.number);
        self.notes.push(Note::Fault { number, fault: fault.clone() });
        let Some(at) = at else { return };
        let text = if fault.text.is_empty() { String::new() } else { format!(": {}", fault.text) };
        let why = format!("{}{text}", fault.what);
        match fault.remedy {
            Remedy::FollowsKill | Remedy::Watch => {}
            Remedy::RestartWorkers => {
                self.events.push_back(GpuEvent::RestartWorkers { gpu: fault.gpu, pid: fault.pid, why });
            }
            Remedy::DrainAndReset => self.condemn(at, why, fault.remedy, true),
            Remedy::Reboot => self.lose(at, &why),
        }
    }

    /// `latched`: no reading takes it back.
    fn condemn(&mut self, at: usize, why: String, remedy: Remedy, latched: bool) {
        let card = &mut self.cards[at];
        card.well_since = None;
        card.latched |= latched;
        if card.view.health == GpuHealth::Ok {
            card.view.health = GpuHealth::Ill { why: why.clone(), remedy };
            self.notes.push(Note::Ill { gpu: card.view.clone(), why: why.clone(), remedy });
            self.events.push_back(GpuEvent::Condemned { gpu: card.view.pci, why });
        }
    }

    fn lose(&mut self, at: usize, why: &str) {
        let session = self.session;
        let card = &mut self.cards[at];
        card.well_since = None;
        card.lost_in = session;
        if !card.is_lost() {
            card.view.health = GpuHealth::Lost { why: why.to_owned() };
            card.view.values = None;
            card.slowed_at = None;
            self.look = self.tuning.look;
            self.notes.push(Note::Lost { gpu: card.view.clone(), why: why.to_owned() });
            self.events.push_back(GpuEvent::Lost { gpu: card.view.pci, why: why.to_owned() });
        }
    }

    fn at(&self, pci: PciAddress) -> Option<usize> {
        self.cards.iter().position(|card| card.view.pci == pci)
    }
}

impl Card {
    fn is_lost(&self) -> bool {
        matches!(self.view.health, GpuHealth::Lost { .. })
    }
}

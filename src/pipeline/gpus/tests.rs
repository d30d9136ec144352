//! The core with made-up time: what a monitor says, and what follows.

use std::collections::BTreeMap;
use std::time::Duration;

use super::core::{Act, Core, GpuEvent, GpuHealth, MonitorState, Tuning};
use super::events::Note;
use crate::pixels::health::{
    Answer, FromMonitor, GpuCard, GpuFault, GpuReading, GpuValues, Opened, PciAddress, Remedy, Throttle, Unavailable,
    What,
};
use crate::time::Mono;

/// A core and its clock.
struct World {
    core: Core,
    now: Mono,
}

impl World {
    fn new() -> World {
        let now = Mono(1_000_000_000);
        World { core: Core::new(Tuning::default(), BTreeMap::new(), now), now }
    }

    /// With two GPUs, watched.
    fn watching() -> World {
        let mut world = World::new();
        assert_eq!(world.acts(), [Act::Start]);
        world.open(&[0, 1]);
        world.notes();
        assert_eq!(world.events(), [GpuEvent::Found { gpu: pci(0) }, GpuEvent::Found { gpu: pci(1) }]);
        world
    }

    fn acts(&mut self) -> Vec<Act> {
        std::iter::from_fn(|| self.core.act(self.now)).collect()
    }

    fn events(&mut self) -> Vec<GpuEvent> {
        std::iter::from_fn(|| self.core.event()).collect()
    }

    fn notes(&mut self) -> Vec<Note> {
        self.core.notes()
    }

    fn say(&mut self, message: FromMonitor) {
        self.core.take(self.now, message);
    }

    fn open(&mut self, slots: &[u8]) {
        let gpus = slots.iter().zip(0..).map(|(slot, index)| card(index, *slot)).collect();
        let (driver, nvml) = ("550.54.14".to_owned(), "12.550.54.14".to_owned());
        let opened = Opened { driver, nvml, cuda: None, gpus, closed: Vec::new(), sandbox: String::new() };
        self.say(FromMonitor::Opened(Box::new(opened)));
    }

    /// A second passes, with a report at its end.
    fn second(&mut self, answers: &[(u8, Answer)]) {
        self.now = self.now + Duration::from_secs(1);
        let gpus = answers.iter().map(|(slot, answer)| GpuReading { pci: pci(*slot), answer: answer.clone() });
        self.say(FromMonitor::Report { gpus: gpus.collect(), kernel_log: Some(self.now.0) });
        assert_eq!(self.acts(), [], "a monitor that reports is left alone");
    }

    fn fault(&mut self, slot: u8, what: What, remedy: Remedy) {
        let fault = GpuFault { gpu: pci(slot), what, remedy, pid: None, text: String::new() };
        self.say(FromMonitor::Fault(fault));
    }

    fn health(&self, slot: u8) -> GpuHealth {
        self.core.views().find(|view| view.pci == pci(slot)).expect("a known card").health.clone()
    }
}

fn pci(slot: u8) -> PciAddress {
    PciAddress { domain: 0, bus: slot + 1, device: 0 }
}

fn card(index: u32, slot: u8) -> GpuCard {
    let uuid = format!("GPU-{slot}");
    GpuCard { index, pci: pci(slot), name: "L4".into(), uuid, memory_bytes: 24 << 30, persistent: Some(true) }
}

fn well() -> Answer {
    Answer::Values(Box::default())
}

fn throttled(why: &[Throttle]) -> Answer {
    Answer::Values(Box::new(GpuValues { throttled: why.to_vec(), ..GpuValues::default() }))
}

fn lost(world: &World, slot: u8) -> bool {
    matches!(world.health(slot), GpuHealth::Lost { .. })
}

fn ill(world: &World, slot: u8) -> bool {
    matches!(world.health(slot), GpuHealth::Ill { .. })
}

#[test]
fn a_monitor_that_falls_silent_is_replaced_after_three_seconds_and_then_with_growing_waits() {
    let mut world = World::watching();
    world.second(&[(0, well())]);
    world.now = world.now + Duration::from_secs(3);
    assert_eq!(world.acts(), []);
    assert_eq!(world.core.deadline(), world.now + Duration::from_millis(1));
    world.now = world.core.deadline();
    assert_eq!(world.acts(), [Act::Kill, Act::Start], "the first successor comes at once");
    assert!(matches!(&world.notes()[..], [Note::MonitorLost { reason: "hung", .. }]));
    assert!(matches!(world.core.state(), MonitorState::Restarting { .. }));
    let mut waits = Vec::new();
    for _ in 0..8 {
        let died = world.now;
        world.core.ended(world.now, "monitor 7 closed its socket".into());
        assert_eq!(world.acts(), []);
        world.now = world.core.deadline();
        assert_eq!(world.acts(), [Act::Start]);
        waits.push((world.now - died).as_millis());
    }
    assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    assert_eq!(world.health(0), GpuHealth::Ok, "that is the monitor's trouble, not the card's");
    // One that goes on for a while begins anew.
    world.open(&[0, 1]);
    for _ in 0..62 {
        world.second(&[(0, well())]);
    }
    world.core.ended(world.now, "monitor 8 closed its socket".into());
    assert_eq!(world.acts(), [Act::Start]);
}

#[test]
fn a_driver_that_is_slow_to_start_gets_time_and_not_for_ever() {
    let mut world = World::new();
    assert_eq!(world.acts(), [Act::Start]);
    world.now = world.now + Duration::from_secs(20);
    assert_eq!(world.acts(), []);
    world.now = world.core.deadline();
    assert_eq!(world.acts(), [Act::Kill, Act::Start]);
}

#[test]
fn without_a_driver_nothing_is_restarted_and_it_is_said_once() {
    let mut world = World::new();
    let what = "no NVIDIA driver".to_owned();
    let mut waits = Vec::new();
    for round in 0..6 {
        assert_eq!(world.acts(), [Act::Start]);
        world.say(FromMonitor::Unavailable { why: Unavailable::NoDriver, what: what.clone() });
        world.core.ended(world.now, "monitor 7 closed its socket".into());
        assert_eq!(world.acts(), []);
        assert_eq!(world.notes().len(), usize::from(round == 0), "said once");
        assert_eq!(world.core.state(), &MonitorState::Unavailable { what: what.clone() });
        waits.push((world.core.deadline() - world.now).as_secs());
        world.now = world.core.deadline();
    }
    assert_eq!(waits, [60, 120, 240, 480, 600, 600]);
    // Then there is one.
    assert_eq!(world.acts(), [Act::Start]);
    world.open(&[0]);
    world.second(&[(0, well())]);
    assert_eq!(world.events(), [GpuEvent::Found { gpu: pci(0) }]);
    assert_eq!(world.core.state(), &MonitorState::Watching);
}

#[test]
fn a_driver_that_goes_away_takes_its_cards_with_it_and_a_mismatch_does_not() {
    for (why, gone) in [(Unavailable::NoDriver, true), (Unavailable::NoGpu, true), (Unavailable::Mismatch, false)] {
        let mut world = World::watching();
        world.say(FromMonitor::Unavailable { why, what: "gone".into() });
        assert_eq!((lost(&world, 0), lost(&world, 1)), (gone, gone), "{why:?}");
        assert_eq!(world.events().len(), if gone { 2 } else { 0 });
    }
}

#[test]
fn a_lost_card_is_believed_again_by_a_fresh_monitor_and_after_a_while_only() {
    let mut world = World::watching();
    world.second(&[(0, well()), (1, Answer::Lost)]);
    let why = "NVML: it fell off the bus or can not be reached".to_owned();
    assert_eq!(world.events(), [GpuEvent::Lost { gpu: pci(1), why }]);
    for _ in 0..59 {
        world.second(&[(0, well()), (1, well())]);
    }
    assert!(lost(&world, 1), "this NVML said that it is gone");
    world.now = world.core.deadline();
    assert_eq!(world.acts(), [Act::Kill, Act::Start], "a look for it");
    assert!(!world.notes().iter().any(|note| matches!(note, Note::MonitorLost { .. })), "that is no failure");
    world.open(&[0, 1]);
    for _ in 0..30 {
        world.second(&[(0, well()), (1, well())]);
        assert!(lost(&world, 1));
    }
    world.second(&[(0, well()), (1, well())]);
    assert_eq!(world.health(1), GpuHealth::Ok);
    assert_eq!(world.events(), [GpuEvent::Recovered { gpu: pci(1) }]);
}

#[test]
fn a_card_that_proves_itself_is_not_disturbed_by_a_look_for_it() {
    let tuning = Tuning { look: Duration::from_secs(5), ..Tuning::default() };
    let mut world = World { core: Core::new(tuning, BTreeMap::new(), Mono(0)), now: Mono(0) };
    assert_eq!(world.acts(), [Act::Start]);
    world.open(&[0]);
    world.second(&[(0, Answer::Lost)]);
    world.now = world.core.deadline();
    assert_eq!(world.acts(), [Act::Kill, Act::Start]);
    world.open(&[0]);
    for _ in 0..31 {
        world.second(&[(0, well())]);
    }
    assert_eq!(world.health(0), GpuHealth::Ok);
}

#[test]
fn a_card_that_stays_away_is_looked_for_less_and_less_often() {
    let mut world = World::watching();
    world.fault(1, What::Xid(79), Remedy::Reboot);
    assert!(lost(&world, 1));
    let mut waits = Vec::new();
    for _ in 0..5 {
        world.open(&[0]);
        let began = world.now;
        while world.core.act(world.now).is_none() {
            world.now = world.now + Duration::from_secs(1);
            world.say(FromMonitor::Report { gpus: Vec::new(), kernel_log: None });
        }
        assert_eq!(world.acts(), [Act::Start]);
        waits.push((world.now - began).as_secs());
    }
    assert_eq!(waits, [61, 121, 241, 481, 601]);
    assert_eq!(world.events().len(), 1, "lost once");
}

#[test]
fn a_card_that_nvml_no_longer_finds_is_lost_and_the_others_keep_their_numbers() {
    let mut world = World::watching();
    // NVML now calls the second card 0.
    world.open(&[1]);
    assert!(lost(&world, 0));
    let numbers: Vec<_> = world.core.views().map(|view| (view.pci, view.number)).collect();
    assert_eq!(numbers, [(pci(0), 0), (pci(1), 1)]);
    world.open(&[2, 1]);
    let new = world.core.views().find(|view| view.pci == pci(2)).expect("known");
    assert_eq!(new.number, 2, "0 is another card's");
}

#[test]
fn errors_do_what_their_remedy_says() {
    let mut world = World::watching();
    world.fault(0, What::Xid(45), Remedy::FollowsKill);
    world.fault(0, What::Xid(63), Remedy::Watch);
    assert_eq!((world.events(), world.health(0)), (vec![], GpuHealth::Ok));
    let fault = GpuFault {
        gpu: pci(0),
        what: What::Xid(31),
        remedy: Remedy::RestartWorkers,
        pid: Some(77),
        text: "Xid (…): 31".into(),
    };
    world.say(FromMonitor::Fault(fault));
    let why = "Xid 31: Xid (…): 31".to_owned();
    assert_eq!(world.events(), [GpuEvent::RestartWorkers { gpu: pci(0), pid: Some(77), why }]);
    assert_eq!(world.health(0), GpuHealth::Ok);
    world.fault(0, What::Xid(48), Remedy::DrainAndReset);
    assert_eq!(world.events(), [GpuEvent::Condemned { gpu: pci(0), why: "Xid 48".into() }]);
    world.fault(0, What::Xid(95), Remedy::DrainAndReset);
    assert_eq!(world.events(), [], "condemned once");
    assert!(ill(&world, 0) && world.health(1) == GpuHealth::Ok);
    world.fault(0, What::OffTheBus, Remedy::Reboot);
    assert_eq!(world.events(), [GpuEvent::Lost { gpu: pci(0), why: "fallen off the bus".into() }]);
    // A card that nobody knows: logged, not more.
    world.notes();
    world.fault(9, What::Xid(79), Remedy::Reboot);
    assert_eq!((world.events(), world.notes().len()), (vec![], 1));
}

#[test]
fn an_error_s_illness_stays_and_a_reading_s_goes() {
    let mut world = World::watching();
    world.fault(0, What::Xid(48), Remedy::DrainAndReset);
    world.second(&[(0, well()), (1, Answer::ResetRequired)]);
    assert!(ill(&world, 0) && ill(&world, 1));
    world.events();
    for _ in 0..40 {
        world.second(&[(0, well()), (1, well())]);
    }
    assert!(ill(&world, 0), "readings do not disprove it");
    assert_eq!((world.health(1), world.events()), (GpuHealth::Ok, vec![GpuEvent::Recovered { gpu: pci(1) }]));
}

#[test]
fn nonsense_is_borne_for_a_while() {
    let mut world = World::watching();
    let nonsense = || Answer::Unreadable("temperature: unknown error".into());
    for _ in 0..10 {
        world.second(&[(0, nonsense())]);
        assert_eq!(world.health(0), GpuHealth::Ok);
    }
    world.second(&[(0, nonsense())]);
    assert!(ill(&world, 0));
    // Now and then is not for a while.
    for _ in 0..20 {
        world.second(&[(1, nonsense())]);
        world.second(&[(1, well())]);
    }
    assert_eq!(world.health(1), GpuHealth::Ok);
}

#[test]
fn heat_is_said_once_and_a_power_limit_is_everyday_life() {
    let mut world = World::watching();
    world.second(&[(0, throttled(&[Throttle::Power]))]);
    assert_eq!(world.notes(), []);
    for _ in 0..10 {
        world.second(&[(0, throttled(&[Throttle::Hot]))]);
        world.second(&[(0, throttled(&[]))]);
    }
    assert!(matches!(&world.notes()[..], [Note::Slowed { why, .. }] if why == "hot"));
    for _ in 0..30 {
        world.second(&[(0, throttled(&[]))]);
    }
    assert!(matches!(&world.notes()[..], [Note::FullSpeed { .. }]));
}

#[test]
fn a_successor_goes_on_behind_what_was_read_of_the_kernel_s_log() {
    let mut world = World::watching();
    world.second(&[(0, well())]);
    assert_eq!(world.core.log_position(), Some(world.now.0));
}

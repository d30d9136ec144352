use super::*;
use crate::control::record::{ChannelState, EndedReason, SessionState};
use crate::control::state::{LmdbLog, Options};
use crate::media::channel::{Leg, PublisherId};
use crate::media::grid::{Cadence, FrameRate, Grid, PdtLine, Record, SourceGop, TimelineLog};
use crate::media::modes::LatencyMode as Mode;
use crate::media::plan::Plan;
use std::path::Path;
use std::time::Instant;

/// Writes down what it is told to do.
#[derive(Default)]
struct Recorder(Mutex<Vec<Effect>>, Mutex<Vec<PublisherId>>, Mutex<Vec<Legacy>>);

impl Plane for Recorder {
    fn carry_out(&self, _channel: &ChannelName, effect: Effect) {
        self.0.lock().unwrap().push(effect);
    }

    fn remember(&self, _channel: &ChannelName, legacy: Legacy) {
        assert!(matches!(self.0.lock().unwrap().last(), Some(Effect::Declare { .. })), "of a channel that is there");
        self.2.lock().unwrap().push(legacy);
    }

    fn turn_away(&self, _: &ChannelName, publisher: PublisherId) {
        self.1.lock().unwrap().push(publisher);
    }
}

struct Machine {
    ledger: Ledger,
    plane: Arc<Recorder>,
    runtime: tokio::runtime::Runtime,
}

impl Machine {
    fn open(folder: &Path) -> Machine {
        let options = Options { ballast_bytes: 1 << 20, ..Options::new(folder) };
        let plane = Arc::new(Recorder::default());
        let state = Arc::new(State::open(&options).expect("a fresh folder"));
        let ledger = Ledger::open(state, Arc::clone(&plane) as _).expect("a good store");
        ledger.recover().expect("a good store");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Machine { ledger, plane, runtime }
    }

    fn create(&self, name: &str, window_s: u32) -> Result<ChannelRecord, Failure> {
        let mut config = ChannelConfig::new(ChannelName::new(name).unwrap());
        config.policy.reconnect_window_s = Some(window_s);
        self.runtime.block_on(self.ledger.submit(Need::Ordinary, move |txn, now| {
            let key = StreamKey::of("abcdefghijklmnopqrstuvwx12", now.into());
            let change = create(txn, config.clone(), key, now)?;
            let channel = change.channel.clone().expect("made");
            Ok((vec![change], channel))
        }))
    }

    fn command(&self, id: ChannelId, command: lifecycle::Command) -> Result<ChannelRecord, Failure> {
        self.runtime.block_on(self.ledger.submit(Need::Ordinary, move |txn, now| {
            let change = step(txn, id, &Input::Command(command.clone()), now)?;
            let channel = change.channel.clone().expect("still there");
            Ok((vec![change], channel))
        }))
    }

    fn read<T>(&self, look: impl FnOnce(&Read<'_>) -> Result<T, Error>) -> T {
        self.ledger.state().control.read(look).expect("a good store")
    }

    fn channel(&self, name: &str) -> ChannelRecord {
        self.read(|view| find(view, name)).expect("there")
    }

    fn session(&self, id: &SessionId) -> SessionRecord {
        self.read(|view| view.get(&SESSIONS, &id.ulid())).expect("there")
    }

    fn events(&self) -> Vec<(EventSeq, &'static str)> {
        self.read(|view| {
            view.scan(&EVENTS)?.map(|row| row.map(|(seq, event)| (seq, event.what.name()))).collect::<Result<_, _>>()
        })
    }

    /// The session that the data plane was told to begin.
    fn begun(&self) -> SessionId {
        wait("a session", || {
            let effects = self.plane.0.lock().unwrap();
            effects
                .iter()
                .rev()
                .find_map(|e| if let Effect::Begin { session, .. } = e { Some(session.clone()) } else { None })
        })
    }
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn publish() -> Publish {
    Publish { leg: Leg::A, publisher: serde_json::from_str::<PublisherId>("7").expect("a number") }
}

fn name() -> ChannelName {
    ChannelName::new("news").unwrap()
}

#[test]
fn a_broadcast_is_written_down_from_its_publisher_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let here = Machine::open(folder.path());
    let made = here.create("news", 0).unwrap();
    assert!(matches!(&here.plane.0.lock().unwrap()[..], [Effect::Declare { .. }]));
    here.ledger.publish(name(), publish());
    let session = here.begun();
    for fact in [Fact::FirstMedia, Fact::Processing, Fact::Playable] {
        here.ledger.fact(name(), session.clone(), fact);
    }
    wait("live", || (here.session(&session).state == SessionState::Live).then_some(()));
    assert_eq!(here.channel("news").state, ChannelState::Active);
    assert_eq!(here.read(|view| open_session(view, made.id)).map(|s| s.id), Some(session.clone()));
    let gone = Fact::PublisherClosed { publisher: publish().publisher, finished: false, last_media: None };
    here.ledger.fact(name(), session.clone(), gone);
    wait("the end", || (here.session(&session).state == SessionState::Ended).then_some(()));
    assert_eq!(here.session(&session).ended_reason, Some(EndedReason::InputTimeout));
    assert_eq!((here.channel("news").state, here.read(|view| open_session(view, made.id))), (ChannelState::Idle, None));
    wait("the effect", || {
        here.plane
            .0
            .lock()
            .unwrap()
            .iter()
            .any(|e| matches!(e, Effect::End { session: s, .. } if *s == session))
            .then_some(())
    });
    let events = here.events();
    let seqs: Vec<u64> = events.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let names: Vec<&str> = events.iter().map(|(_, name)| *name).collect();
    assert_eq!(
        names,
        [
            "channel.created",
            "session.created",
            "channel.active",
            "session.processing",
            "session.live",
            "session.input_lost",
            "session.ended",
            "channel.idle"
        ]
    );
    assert_eq!(*here.ledger.newest_event().borrow(), events.len() as u64);
}

#[test]
fn a_deadline_that_nobody_asks_about_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let here = Machine::open(folder.path());
    here.create("news", 1).unwrap();
    here.ledger.publish(name(), publish());
    let session = here.begun();
    here.ledger.fact(name(), session.clone(), Fact::Processing);
    here.ledger.fact(name(), session.clone(), Fact::InputLost { last_media: SystemClock.now().wall });
    wait("the window's end", || (here.session(&session).state == SessionState::Ended).then_some(()));
}

#[test]
fn names_are_unique_while_a_channel_lives_and_free_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let here = Machine::open(folder.path());
    let made = here.create("news", 0).unwrap();
    let again = here.create("news", 0).unwrap_err();
    assert!(matches!(&again, Failure::Refused(r) if r.code == lifecycle::Code::NameTaken), "{again}");
    let delete = lifecycle::Command::Delete { force: false, if_match: None };
    here.command(made.id, delete).unwrap();
    assert_eq!(here.read(|view| find(view, "news")), None);
    assert_ne!(here.create("news", 0).unwrap().id, made.id);
}

#[test]
fn a_restart_finds_what_was_acknowledged_and_tells_the_data_plane() {
    let folder = tempfile::tempdir().unwrap();
    let here = Machine::open(folder.path());
    here.create("news", 60).unwrap();
    here.create("idle", 60).unwrap();
    here.ledger.publish(name(), publish());
    let session = here.begun();
    here.ledger.fact(name(), session.clone(), Fact::Playable);
    wait("live", || (here.session(&session).state == SessionState::Live).then_some(()));
    let before = here.events();
    drop(here);
    let here = Machine::open(folder.path());
    assert!(here.events().starts_with(&before));
    let effects = here.plane.0.lock().unwrap();
    assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Declare { .. })).count(), 2);
    assert!(effects.iter().any(|e| matches!(e, Effect::Resume { session: s, .. } if *s == session)), "{effects:?}");
}

#[test]
fn a_publisher_that_comes_as_its_channel_is_stopped_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let here = Machine::open(folder.path());
    let made = here.create("news", 0).unwrap();
    here.command(made.id, lifecycle::Command::Stop).unwrap();
    here.ledger.publish(name(), publish());
    wait("the refusal", || (*here.plane.1.lock().unwrap() == [publish().publisher]).then_some(()));
    assert_eq!(here.channel("news").state, ChannelState::Stop);
}

#[test]
fn what_a_channel_learnt_and_its_numbers_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let here = Machine::open(folder.path());
    let made = here.create("news", 0).unwrap();
    assert!(here.plane.2.lock().unwrap().is_empty(), "a new channel has no past");
    here.ledger.publish(name(), publish());
    let session = here.begun();
    let profile = SourceProfile {
        rate: FrameRate::new(25_000, 1_000),
        gop: SourceGop::Regular(50),
        captions: Default::default(),
    };
    here.ledger.fact(name(), session.clone(), Fact::Learnt(profile));
    let (wall, grid) = (SystemClock.now().wall, Grid { cadence: Cadence::for_rate(25.0, Mode::Ultra), msn0: 5_000 });
    let plan = Plan {
        grid,
        target_duration: 2,
        source: None,
        exact: true,
        gop: profile.gop,
        audio_only: true,
        video: None,
        audio: Vec::new(),
    };
    let mut log = LmdbLog::new(Arc::clone(here.ledger.state()), Arc::new(|| {}));
    let line = PdtLine { from_n: 0, wall: Wall(wall.0 - 100_000_000_000), ppm: 0 };
    for record in [Record::Plan(Box::new(plan)), Record::Pdt(line)] {
        log.commit(&session, record).expect("room");
        wait("the disk", || log.poll()).1.expect("a good disk");
    }
    // It was on air for 100 s.
    here.ledger.fact(name(), session.clone(), Fact::Media(wall));
    here.ledger.fact(name(), session.clone(), Fact::Edge { n: 2_500, at: wall });
    wait("the batch", || here.session(&session).edge);
    wait("the profile", || here.read(|view| view.get(&PROFILES, &made.id.0)));
    drop((log, here));
    let here = Machine::open(folder.path());
    let past = here.plane.2.lock().unwrap().clone();
    assert_eq!(past.len(), 1);
    assert_eq!(past[0].profile, Some(profile));
    assert!(past[0].last_msn.is_some_and(|msn| (5_050..=5_060).contains(&msn)), "{past:?}");
}

#[test]
fn what_follows_a_commit_is_done_in_the_order_of_commits_and_without_a_caller_who_waits() {
    use futures_util::FutureExt;
    const COUNT: Table<String, u64> = Table::json(Db::Meta, 1);
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::open(folder.path());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let count = || {
        let heard = Arc::clone(&heard);
        let add = |txn: &mut Write<'_, '_>, _| {
            let name = "counted by a test".to_owned();
            let n = txn.get(&COUNT, &name)?.unwrap_or(0);
            txn.put(&COUNT, &name, &(n + 1))?;
            Ok::<_, Error>((Vec::new(), n))
        };
        machine.ledger.submit_then(Need::Ordinary, add, move |n| heard.lock().unwrap().push(*n))
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    machine.runtime.block_on(count()).unwrap();
                }
            });
        }
    });
    // Asked for, and gone.
    for _ in 0..40 {
        drop(count().now_or_never());
    }
    machine.runtime.block_on(count()).unwrap();
    assert_eq!(*heard.lock().unwrap(), (0..201).collect::<Vec<u64>>());
}

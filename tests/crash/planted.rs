//! The ledger alone in a process of its own, and the same with bugs in how it commits: the checks must find them.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rung::control::ledger::{self, EVENTS, Failure, Ledger, Plane};
use rung::control::lifecycle::{Command as Order, Effect, Fact, Input, Publish};
use rung::control::record::{ChannelConfig, ChannelId, ChannelState, Event, EventSeq, StreamKey};
use rung::control::state::{Need, Write};
use rung::media::channel::{ChannelName, Leg, PublisherId, SessionId};
use rung::pipeline::channel::Legacy;
use rung::time::{SystemClock, Wall};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::book::{Book, open};
use crate::random::Random;

const CHANNELS: usize = 4;

/// How a step reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commits {
    /// As in the daemon.
    Whole,
    /// Planted: records first, their events in another transaction.
    Split,
    /// Planted: acknowledged before they are committed.
    Early,
}

impl Commits {
    const ALL: [(&str, Commits); 3] = [("whole", Commits::Whole), ("split", Commits::Split), ("early", Commits::Early)];

    fn named(role: &str) -> Commits {
        Commits::ALL.iter().find(|(name, _)| *name == role).expect("a known role").1
    }

    fn role(self) -> &'static str {
        Commits::ALL.iter().find(|(_, one)| *one == self).expect("each has a name").0
    }
}

struct Deaf;

impl Plane for Deaf {
    fn carry_out(&self, _: &ChannelName, _: Effect) {}
    fn remember(&self, _: &ChannelName, _: Legacy) {}
    fn turn_away(&self, _: &ChannelName, _: PublisherId) {}
}

// ── the child ───────────────────────────────────────────────────────────────────────────────────────────────────────

struct Child {
    commits: Commits,
    ledger: Ledger,
    runtime: Runtime,
    random: Random,
}

/// Runs until it is killed. After each step it says the newest event's number.
pub(crate) fn child(role: &str, folder: &Path, seed: u64) {
    let state = Arc::new(open(folder).expect("a good folder"));
    let ledger = Ledger::open(state, Arc::new(Deaf)).expect("a good store");
    ledger.recover().expect("a good store");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let child = Child { commits: Commits::named(role), ledger, runtime, random: Random(seed) };
    child.run();
}

impl Child {
    fn run(mut self) {
        let names: Vec<String> = (0..CHANNELS).map(|n| format!("c{n}")).collect();
        let ids: Vec<ChannelId> = names.iter().map(|name| self.channel(name)).collect();
        loop {
            let id = ids[self.random.below(CHANNELS)];
            let input = self.input(id);
            self.commit(move |txn, now| Ok(vec![ledger::step(txn, id, &input, now)?]));
        }
    }

    fn channel(&self, name: &str) -> ChannelId {
        let find = |view: &rung::control::state::Read<'_>| ledger::find(view, name);
        let there = || self.ledger.state().control.read(find).expect("a good store");
        if let Some(channel) = there() {
            return channel.id;
        }
        let mut config = ChannelConfig::new(ChannelName::new(name).expect("a name"));
        // No timer fires between the two halves of a planted bug: what is found is the bug itself.
        config.policy.reconnect_window_s = Some(1_800);
        self.commit(move |txn, now| {
            let key = StreamKey::of("abcdefghijklmnopqrstuvwx12", now.into());
            Ok(vec![ledger::create(txn, config.clone(), key, now)?])
        });
        there().expect("just made").id
    }

    /// The next thing in the life of a channel, as a rule.
    fn input(&mut self, id: ChannelId) -> Input {
        let read = self.ledger.state().control.read(|view| {
            let channel = ledger::find(view, &id.to_string())?.expect("never deleted");
            Ok::<_, rung::control::state::Error>((channel.state, ledger::open_session(view, id)?))
        });
        let (state, open) = read.expect("a good store");
        let publish = Input::Publish(Publish { leg: Leg::A, publisher: PublisherId(self.random.next() % 3) });
        let Some(session) = open.map(|s| s.id) else {
            return if state == ChannelState::Stop { Input::Command(Order::Start) } else { publish };
        };
        let tell = |fact| Input::Fact(session.clone(), fact);
        match self.random.below(10) {
            0 => Input::Command(Order::Stop),
            1 => Input::Command(Order::EndSession(SessionId::new(session.ulid()))),
            2 => {
                let patch = json!({ "max_duration_s": 3_600 + self.random.below(3_600) });
                Input::Command(Order::Update { patch, if_match: None })
            }
            3 => tell(Fact::InputLost { last_media: SystemClock::wall() }),
            4 => publish,
            5 => tell(Fact::PipelineFailed("no worker".into())),
            6 => tell(Fact::Recovered),
            _ => tell(Fact::Playable),
        }
    }

    fn commit(&self, work: impl Fn(&mut Write<'_, '_>, Wall) -> Result<Vec<ledger::Change>, Failure> + Send + 'static) {
        let (split, early) = (self.commits == Commits::Split, self.commits == Commits::Early);
        let done = self.runtime.block_on(self.ledger.submit(Need::Ordinary, move |txn, now| {
            let before = txn.view().last(&EVENTS)?.map_or(0, |(seq, _)| seq);
            let changes = work(txn, now)?;
            let mut held = Vec::new();
            if split {
                let rows: Vec<_> = txn.view().scan_from(&EVENTS, &(before + 1))?.collect::<Result<_, _>>()?;
                for (seq, event) in rows {
                    txn.delete(&EVENTS, &seq)?;
                    held.push((seq, event));
                }
            }
            if early {
                say(txn.view().last(&EVENTS)?.map_or(0, |(seq, _)| seq));
            }
            Ok::<_, Failure>((changes, held))
        }));
        let held: Vec<(EventSeq, Event)> = done.expect("the machine takes it");
        if !held.is_empty() {
            let later = self.runtime.block_on(self.ledger.submit(Need::Ordinary, move |txn, _| {
                held.iter().try_for_each(|(seq, event)| txn.put(&EVENTS, seq, event))?;
                Ok::<_, Failure>((Vec::new(), ()))
            }));
            later.expect("the disk takes it");
        }
        say(*self.ledger.newest_event().borrow());
    }
}

fn say(seq: u64) {
    writeln!(std::io::stdout(), "ack {seq}").expect("the test listens");
}

// ── the test ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Runs a child on `folder`, kills it `after` its first word, and judges what it left.
pub(crate) fn run_and_kill(
    commits: Commits,
    folder: &Path,
    seed: u64,
    after: Duration,
    book: &mut Book,
) -> Result<(), String> {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).stdout(Stdio::piped());
    command.env("RUNG_CRASH_ROLE", commits.role()).env("RUNG_CRASH_DIR", folder);
    let mut running = command.env("RUNG_CRASH_SEED", seed.to_string()).spawn().expect("this program runs");
    let stdout = running.stdout.take().expect("piped");
    let (first, begun) = sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut last = 0;
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        // The kill may cut the last line short.
        while lines.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
            if let Some(seq) = line.trim_end().strip_prefix("ack ").and_then(|n| n.parse::<u64>().ok()) {
                last = last.max(seq);
                first.try_send(()).unwrap_or_default();
            }
            line.clear();
        }
        last
    });
    begun.recv_timeout(Duration::from_secs(60)).expect("the child writes");
    std::thread::sleep(after);
    running.kill().expect("own child");
    running.wait().expect("own child");
    let acked = reader.join().expect("no panic");
    book.check(folder)?;
    if book.seq < acked { Err(format!("event {acked} was acknowledged, the last one is {}", book.seq)) } else { Ok(()) }
}

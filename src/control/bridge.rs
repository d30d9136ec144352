//! Joins the book and the data plane: effects become commands of the shards and doors for publishers, facts become entries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use super::config::read_slate;
use super::ledger::{self, Ledger, NAMES, Plane, SESSIONS};
use super::lifecycle::{Dismissal, Door, Effect, Publish, Refusal};
use super::record::Utc;
use super::state::{self, Condition, LmdbLog, State};
use crate::media::channel::{Channel, ChannelName, Leg, PublisherId, SessionId, Slate};
use crate::media::grid::TimelineLog;
use crate::media::logo::LogoPicture;
use crate::pipeline::channel::{Legacy, Resume};
use crate::pipeline::shard::Command;
use crate::pipeline::shards::Watcher;
use crate::pipeline::witness::{Fact, Wake, Witness};
use crate::telemetry::report::{Level, Place, log};
use crate::time::SystemClock;

/// One per process, between one ledger and the shards.
pub struct Bridge {
    state: Arc<State>,
    doors: RwLock<BTreeMap<ChannelName, Door>>,
    /// Sessions of the process before have been handed over: publishers may come.
    open: AtomicBool,
    shards: OnceLock<Watcher>,
    /// The ledger owns the bridge.
    ledger: OnceLock<Weak<Ledger>>,
}

impl Bridge {
    pub fn new(state: Arc<State>) -> Bridge {
        let (doors, open) = (RwLock::default(), AtomicBool::new(false));
        Bridge { state, doors, open, shards: OnceLock::new(), ledger: OnceLock::new() }
    }

    /// Both ends stand: before this there are no doors, and nobody comes in.
    pub fn join(&self, shards: Watcher, ledger: &Arc<Ledger>) {
        assert!(self.shards.set(shards).is_ok(), "a bridge is joined once");
        assert!(self.ledger.set(Arc::downgrade(ledger)).is_ok(), "a bridge has one ledger");
    }

    /// Whether a publisher may come in, and on which terms. Never waits for the disk.
    ///
    /// # Errors
    /// The refusal that it is told.
    pub fn admit(&self, channel: &str, key: &str, leg: Leg, from: IpAddr) -> Result<(ChannelName, Door), Refusal> {
        let name = ChannelName::new(channel).ok();
        let doors = self.doors.read().unwrap_or_else(PoisonError::into_inner);
        let found = name.and_then(|name| doors.get_key_value(&name));
        let found = found.map(|(name, door)| (name.clone(), door.clone()));
        drop(doors);
        // Where there is none it takes as long as a wrong key.
        let absent = Door::absent();
        let door = found.as_ref().map_or(&absent, |(_, door)| door);
        door.admit(key, leg, from, SystemClock::wall())?;
        found.ok_or_else(Refusal::denied)
    }

    /// Whether a source may come in that this box calls for `channel` itself, and on which terms.
    ///
    /// # Errors
    /// Why not.
    pub fn admit_source(&self, channel: &ChannelName, leg: Leg) -> Result<Door, Refusal> {
        let doors = self.doors.read().unwrap_or_else(PoisonError::into_inner);
        let door = doors.get(channel).ok_or_else(Refusal::denied)?;
        door.lets_in(leg)?;
        Ok(door.clone())
    }

    /// Everything that went on before has been told to the data plane: publishers may come, sources are called.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
        let doors = self.doors.read().unwrap_or_else(PoisonError::into_inner).clone();
        for (channel, door) in doors.into_iter().filter(|(_, door)| door.pull.is_some()) {
            self.tell(Command::Pull { channel, url: door.pull });
        }
    }

    /// Until everything of the process before is known, nobody can be told apart from a stranger: what each is told.
    pub fn starting(&self) -> Option<&'static str> {
        (!self.open.load(Ordering::Acquire)).then_some("the daemon is starting: come back in a second")
    }

    /// Why no session can begin now; `None`: one can.
    pub fn trouble(&self) -> Option<String> {
        if let Some(starting) = self.starting() {
            return Some(starting.to_owned());
        }
        match self.state.condition() {
            // The reserve is there for this.
            Condition::Good | Condition::Full { .. } => None,
            failing @ Condition::Failing { .. } => Some(failing.to_string()),
        }
    }

    fn tell(&self, command: Command) {
        let Some(shards) = self.shards.get() else { return };
        if let Err(command) = shards.tell(command) {
            log(Level::Error, "shard_busy", &Place::default(), format!("a command was lost: {command:?}"));
        }
    }

    /// What the session goes on with. Reads the store: only a process that begins resumes sessions.
    fn resume(&self, id: SessionId, config: Channel) -> Resume {
        let read = self.state.control.read(|view| {
            let record = view.get(&SESSIONS, &id.ulid())?;
            Ok::<_, state::Error>((state::load(view, &id)?, record))
        });
        let place = Place { channel: config.name.as_str(), session: id.as_str(), ..Place::default() };
        let ((kept, damaged), record) = read.unwrap_or_else(|error| ((None, vec![error]), None));
        for error in damaged {
            log(Level::Error, "timeline_damaged", &place, error);
        }
        let (last_media, edge) = record.map_or((None, None), |record| (record.last_media_at, record.edge));
        let edge = edge.map(|edge| (edge.n, edge.at.wall()));
        Resume { id, config, kept, last_media: last_media.map(Utc::wall), edge }
    }

    /// With its logo's picture. One that cannot be read is none, and the log says so.
    fn with_logo(&self, mut channel: Channel) -> Channel {
        let Some(logo) = &mut channel.logo else { return channel };
        let name = channel.name.as_str().to_owned();
        let png = self.state.control.read(|view| match view.get(&NAMES, &name)? {
            Some(id) => ledger::logo(view, id),
            None => Ok(None),
        });
        match png {
            Ok(Some(png)) => logo.picture = LogoPicture::Png(png.into()),
            Ok(None) => channel.logo = None,
            Err(error) => {
                log(Level::Error, "logo_unreadable", &Place::channel(&name), error);
                channel.logo = None;
            }
        }
        channel
    }

    fn ledger(&self) -> Option<Arc<Ledger>> {
        self.ledger.get().and_then(Weak::upgrade)
    }
}

impl Plane for Bridge {
    fn carry_out(&self, name: &ChannelName, effect: Effect) {
        let channel = name.clone();
        match effect {
            Effect::Declare { channel, door } => {
                let (name, url) = (channel.name.clone(), door.pull.clone());
                self.tell(Command::Configure(Box::new(self.with_logo(with_slate(*channel)))));
                let before = self.doors.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), *door);
                // Until the bridge is open, sources wait for that.
                if before.is_none_or(|before| before.pull != url) && self.open.load(Ordering::Acquire) {
                    self.tell(Command::Pull { channel: name, url });
                }
            }
            Effect::Withdraw(name) => {
                self.doors.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
                self.tell(Command::Pull { channel: name.clone(), url: None });
                self.tell(Command::Remove(name));
            }
            Effect::Begin { session, publisher, .. } => self.tell(Command::Begin { channel, session, publisher }),
            Effect::Join { session, publisher, .. } => self.tell(Command::Join { channel, session, publisher }),
            Effect::Dismiss { session, why: Dismissal::InputInvalid } => {
                self.tell(Command::Dismiss { channel, session });
            }
            Effect::End { session, reason } => self.tell(Command::End { channel, session, why: reason.name() }),
            Effect::RollOver { from, to, seamless, publishers } => {
                let publishers = publishers.into_values().collect();
                self.tell(Command::RollOver { channel, from, to, seamless, publishers });
            }
            Effect::Resume { session, channel } => {
                let resume = self.resume(session, self.with_logo(with_slate(*channel)));
                self.tell(Command::Resume { channel: name.clone(), resume: Box::new(resume) });
            }
        }
    }

    fn remember(&self, channel: &ChannelName, legacy: Legacy) {
        self.tell(Command::Remember { channel: channel.clone(), legacy });
    }

    fn turn_away(&self, channel: &ChannelName, publisher: PublisherId) {
        self.tell(Command::TurnAway { channel: channel.clone(), publisher });
    }
}

impl Witness for Bridge {
    fn published(&self, channel: &ChannelName, leg: Leg, publisher: PublisherId) {
        if let Some(ledger) = self.ledger() {
            ledger.publish(channel.clone(), Publish { leg, publisher });
        }
    }

    fn saw(&self, channel: &ChannelName, session: &SessionId, fact: Fact) {
        if let Some(ledger) = self.ledger() {
            ledger.fact(channel.clone(), session.clone(), fact);
        }
    }

    fn log(&self, wake: Wake) -> Box<dyn TimelineLog> {
        Box::new(LmdbLog::new(Arc::clone(&self.state), wake))
    }
}

/// A slate that cannot be read (any more) is black, and the log says so.
fn with_slate(channel: Channel) -> Channel {
    let Slate::File(file) = &channel.slate else { return channel };
    let slate = match read_slate(file) {
        Ok(bytes) => Slate::Image(bytes),
        Err(what) => {
            log(Level::Warn, "slate_unreadable", &Place::default(), format!("channel {}: {what}: black", channel.name));
            Slate::Black
        }
    };
    Channel { slate, ..channel }
}

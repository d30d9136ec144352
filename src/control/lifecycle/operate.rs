//! What an operator asks of a channel.

use serde_json::{Map, Value};
use std::time::Duration;

use super::door::KEYS;
use super::fields;
use super::machine::{Step, Work};
use super::refusal::{Code, Refusal};
use crate::control::record::{
    Activation, Applies, ChannelConfig, ChannelId, ChannelRecord, ChannelState, EndedReason, FIELDS, KeyView,
    LogoImage, PlaybackId, StreamKey, Utc, What,
};
use crate::media::channel::SessionId;
use crate::media::key::Passphrase;
use crate::media::limits::CHANNELS_MAX;
use crate::time::Wall;
use ulid::Ulid;

/// How long a rotated key stays valid unless the operator says otherwise.
pub const KEY_GRACE: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug)]
pub enum Command {
    /// A JSON merge patch: `null` is a field's default. `if_match`: the revision that the caller has seen.
    Update {
        patch: Value,
        if_match: Option<u64>,
    },
    /// Another picture as logo, or none; `place`: a patch of where it lies.
    Logo {
        image: Option<LogoImage>,
        place: Map<String, Value>,
    },
    Start,
    Stop,
    /// `force`: even on air.
    Delete {
        force: bool,
        if_match: Option<u64>,
    },
    /// The key in force stays valid for `grace`; zero: it is revoked.
    RotateKey {
        key: StreamKey,
        grace: Duration,
    },
    /// What SRT publishers must encrypt with from now on; `None`: what the box wants of all. Who is on air stays.
    Passphrase(Option<Passphrase>),
    /// Ends this session and leaves the channel as it is: an encoder that calls again makes a new session.
    EndSession(SessionId),
}

/// What creation must know of the other channels, deleted ones left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Others {
    pub count: usize,
    pub name_taken: bool,
}

/// A new channel.
///
/// # Errors
/// Its name is taken, or the box is full.
pub fn create(
    config: ChannelConfig,
    key: StreamKey,
    others: Others,
    now: Wall,
    random: &mut dyn FnMut() -> u128,
) -> Result<Step, Refusal> {
    if others.name_taken {
        let what = format!("there is a channel \"{}\" already: take another name", config.name);
        return Err(Refusal::new(Code::NameTaken, what));
    }
    if others.count >= CHANNELS_MAX {
        let what = format!("this box has its {CHANNELS_MAX} channels: delete one first");
        return Err(Refusal::new(Code::TooManyChannels, what));
    }
    let id = ChannelId(Ulid::from_parts(now.unix_millis(), random()));
    let playback_id = PlaybackId(Ulid::from_parts(now.unix_millis(), random()));
    let channel = ChannelRecord::new(id, config, playback_id, vec![key], Utc::from(now));
    let mut work = Work::new(&channel, None, now, random);
    work.tell(What::ChannelCreated {
        config: Box::new(channel.config.clone()),
        playback_id: channel.playback_id,
        stream_keys: channel.stream_keys.iter().map(KeyView::from).collect(),
    });
    Ok(work.finish(None))
}

impl Work<'_> {
    pub(super) fn command(&mut self, command: Command) -> Result<(), Refusal> {
        if self.channel.state == ChannelState::Deleted {
            return Err(Refusal::new(Code::NotFound, "the channel was deleted: create another one"));
        }
        match command {
            Command::Update { patch, if_match } => {
                self.expect_revision(if_match)?;
                self.update(&patch)?;
            }
            Command::Logo { image, place } => {
                self.adopt(fields::with_logo(&self.channel.config, image, &place)?);
            }
            Command::Start => self.start(),
            Command::Stop => self.stop(),
            Command::Delete { force, if_match } => {
                self.expect_revision(if_match)?;
                self.delete(force)?;
            }
            Command::RotateKey { key, grace } => self.rotate(key, grace),
            Command::Passphrase(passphrase) => {
                if passphrase.is_none() && self.channel.srt_passphrase.is_none() {
                    let what = "the channel has no passphrase of its own: PUT one to /v1/channels/{id}/srt-passphrase";
                    return Err(Refusal::new(Code::NotFound, what));
                }
                if self.channel.srt_passphrase != passphrase {
                    self.channel.srt_passphrase = passphrase;
                    self.updated(vec!["srt_passphrase".into()]);
                }
            }
            Command::EndSession(session) => {
                if self.open.as_ref().is_some_and(|open| open.id == session) {
                    self.end_and_idle(EndedReason::UserStop, self.now);
                }
            }
        }
        Ok(())
    }

    fn expect_revision(&self, seen: Option<u64>) -> Result<(), Refusal> {
        match seen {
            Some(seen) if seen != self.channel.revision => {
                let what = format!(
                    "the channel is at revision {}, not {seen}: read it again and repeat the change",
                    self.channel.revision
                );
                Err(Refusal::new(Code::RevisionMismatch, what))
            }
            _ => Ok(()),
        }
    }

    fn update(&mut self, patch: &Value) -> Result<(), Refusal> {
        self.adopt(fields::merge(&self.channel.config, patch)?);
        Ok(())
    }

    fn adopt(&mut self, config: ChannelConfig) {
        let (old, new) = (fields::as_json(&self.channel.config), fields::as_json(&config));
        let changed = |applies| {
            let of = FIELDS.iter().filter(move |(_, a)| *a == applies).map(|(name, _)| *name);
            // Of a source's address its secrets are not to be seen.
            let source = self.channel.config.policy.pull != config.policy.pull;
            of.filter(|name| old.get(*name) != new.get(*name) || (*name == "pull" && source)).collect::<Vec<_>>()
        };
        self.outcome.now = changed(Applies::Now);
        self.outcome.next_session = changed(Applies::NextSession);
        if config == self.channel.config {
            return;
        }
        self.channel.config = config;
        if self.channel.config.policy.activation == Activation::Auto {
            self.channel.armed = false;
        }
        let fields = self.outcome.now.iter().chain(&self.outcome.next_session).map(|f| (*f).to_owned()).collect();
        self.updated(fields);
    }

    fn updated(&mut self, fields: Vec<String>) {
        self.channel.revision += 1;
        self.channel.updated_at = self.now;
        self.tell(What::ChannelUpdated {
            fields,
            config: Box::new(self.channel.config.clone()),
            stream_keys: self.channel.stream_keys.iter().map(KeyView::from).collect(),
            armed: self.channel.armed,
            revision: self.channel.revision,
        });
    }

    /// Once started it stays started: asked again, nothing happens.
    fn start(&mut self) {
        let arms = self.channel.config.policy.activation == Activation::Manual && !self.channel.armed;
        if self.channel.state != ChannelState::Stop && !arms {
            return;
        }
        if self.channel.state == ChannelState::Stop {
            self.channel.state = ChannelState::Idle;
        }
        self.channel.armed |= arms;
        self.tell(What::ChannelStarted { armed: self.channel.armed });
    }

    fn stop(&mut self) {
        if self.channel.state == ChannelState::Stop {
            return;
        }
        self.end(EndedReason::UserStop, self.now);
        self.channel.state = ChannelState::Stop;
        self.channel.armed = false;
        self.tell(What::ChannelStopped {});
    }

    fn delete(&mut self, force: bool) -> Result<(), Refusal> {
        if self.channel.state == ChannelState::Active && !force {
            let what = "the channel is on air: stop it first, or delete it with force";
            return Err(Refusal::new(Code::ChannelActive, what));
        }
        self.end(EndedReason::Deleted, self.now);
        self.channel.state = ChannelState::Deleted;
        self.channel.armed = false;
        self.channel.stream_keys.clear();
        self.channel.srt_passphrase = None;
        self.channel.config.policy.pull = None;
        self.channel.deleted_at = Some(self.now);
        self.tell(What::ChannelDeleted {});
        Ok(())
    }

    fn rotate(&mut self, key: StreamKey, grace: Duration) {
        let (now, until) = (self.now, self.now + grace);
        let keys = &mut self.channel.stream_keys;
        for old in keys.iter_mut() {
            old.expires_at = Some(old.expires_at.map_or(until, |at| at.min(until)));
        }
        keys.insert(0, key);
        keys.retain(|key| key.is_valid(now));
        keys.truncate(KEYS);
        self.updated(vec!["stream_keys".into()]);
    }
}

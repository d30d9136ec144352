//! What the data plane tells.

use std::collections::BTreeMap;

use super::door::Door;
use super::machine::{Effect, Work};
use super::refusal::Refusal;
use crate::control::record::{
    ChannelState, EndedReason, ErrorCause, Input as InputState, RunsOn, SessionRecord, SessionState, Utc, What,
};
use crate::media::channel::{Leg, PublisherId, SessionId};
pub use crate::pipeline::witness::Fact;
use crate::pipeline::witness::Placed;
use crate::time::Wall;

/// A publisher that was admitted by the channel's door, and has its leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    pub leg: Leg,
    pub publisher: PublisherId,
}

impl Work<'_> {
    pub(super) fn publish(&mut self, Publish { leg, publisher }: Publish) -> Result<(), Refusal> {
        Door::of(&self.channel).lets_in(leg)?;
        let Some(session) = &mut self.open else {
            let session = SessionId::new(self.ulid());
            self.channel.state = ChannelState::Active;
            self.open_session(session.clone(), leg, BTreeMap::from([(leg, publisher)]), None);
            self.tell(What::ChannelActive {});
            self.effects.push(Effect::Begin { session, leg, publisher });
            return Ok(());
        };
        let id = session.id.clone();
        let others = session.publishers.keys().any(|up| *up != leg);
        let replaced = session.publishers.insert(leg, publisher);
        if replaced.is_some_and(|old| old != publisher) {
            self.tell(What::SessionPublisherReplaced { leg });
        } else if replaced.is_none() && others {
            self.tell(What::SessionLegUp { leg });
        }
        self.restore_input();
        self.effects.push(Effect::Join { session: id, leg, publisher });
        Ok(())
    }

    pub(super) fn fact(&mut self, about: &SessionId, fact: Fact) {
        let now = self.now;
        let Some(session) = self.open.as_mut().filter(|s| s.id == *about) else { return };
        let state = session.state;
        match fact {
            Fact::FirstMedia => {
                heard(session, now);
                if state == SessionState::Init {
                    session.probing_since.get_or_insert(now);
                }
            }
            Fact::Media(at) => heard(session, Utc::from(at)),
            Fact::Learnt(_) | Fact::Edge { .. } => {}
            Fact::Health(reasons) => session.health = reasons,
            Fact::Placed(placed) => {
                let Placed { backend, gpu, why, step } = placed;
                session.runs_on = Some(RunsOn { backend: backend.to_owned(), gpu, why, step });
            }
            Fact::Processing => self.processing(),
            Fact::Playable => {
                self.processing();
                self.live();
            }
            Fact::InputLost { last_media } => {
                heard(session, Utc::from(last_media));
                if state != SessionState::Init && session.input == InputState::Connected {
                    self.lose_input(now);
                }
            }
            // Told of a connection that is over by now, it would leave a session that nobody feeds and nobody waits for.
            Fact::InputRestored if session.publishers.is_empty() => {}
            Fact::InputRestored => self.restore_input(),
            Fact::PublisherClosed { publisher, finished, last_media } => self.closed(publisher, finished, last_media),
            Fact::InputInvalid(why) => self.invalid(&why),
            Fact::PipelineFailed(why) if state != SessionState::Error => self.fail(ErrorCause::Pipeline, why),
            Fact::PipelineFailed(_) => {}
            Fact::Recovered if state == SessionState::Error => self.processing(),
            Fact::Recovered => {}
            Fact::Gone(why) => {
                self.fail(ErrorCause::Pipeline, why);
                self.end_and_idle(EndedReason::Error, now);
            }
        }
    }

    /// From `init`, or back from `error`.
    fn processing(&mut self) {
        let Some(session) = &mut self.open else { return };
        let what = match session.state {
            SessionState::Init => What::SessionProcessing {},
            SessionState::Error => What::SessionRecovered {},
            _ => return,
        };
        session.state = SessionState::Processing;
        session.probing_since = None;
        session.processing_at.get_or_insert(self.now);
        let gone = session.publishers.is_empty() && session.input == InputState::Connected;
        self.tell(what);
        // Its publisher went while it was not yet waited for.
        if gone {
            self.lose_input(self.now);
        }
    }

    fn live(&mut self) {
        let Some(session) = self.open.as_mut().filter(|s| s.state == SessionState::Processing) else { return };
        session.state = SessionState::Live;
        let live_at = *session.live_at.get_or_insert(self.now);
        self.tell(What::SessionLive { live_at });
    }

    fn closed(&mut self, publisher: PublisherId, finished: bool, last_media: Option<Wall>) {
        let Some(session) = &mut self.open else { return };
        if let Some(at) = last_media {
            heard(session, Utc::from(at));
        }
        let before = session.publishers.len();
        session.publishers.retain(|_, up| *up != publisher);
        // Of one that was replaced, nothing is left to lose.
        if session.publishers.len() == before || !session.publishers.is_empty() {
            return;
        }
        session.probing_since = None;
        if finished && self.channel.config.policy.end_on_eos {
            self.end_and_idle(EndedReason::Eos, self.now);
        } else if session.state != SessionState::Init && session.input == InputState::Connected {
            self.lose_input(self.now);
        }
    }
}

fn heard(session: &mut SessionRecord, at: Utc) {
    session.last_media_at = session.last_media_at.max(Some(at));
}

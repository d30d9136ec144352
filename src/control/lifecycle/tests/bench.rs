//! One channel under test: every step is applied, every event folded and compared.

use serde_json::Value;
use std::time::Duration;

use super::fold::Fold;
use crate::control::lifecycle::{
    Command, Effect, Fact, Input, Others, Publish, Refusal, Step, create, deadline, read_new, step,
};
use crate::control::record::{ChannelRecord, ChannelState, SessionRecord, StreamKey, Utc};
use crate::media::channel::{Leg, PublisherId, SessionId};
use crate::time::Wall;

pub(super) const KEY: &str = "abcdefghijklmnopqrstuvwx12";

pub(super) struct Bench {
    pub(super) now: Wall,
    pub(super) channel: ChannelRecord,
    pub(super) open: Option<SessionRecord>,
    pub(super) ended: Vec<SessionRecord>,
    pub(super) fold: Fold,
    random: u128,
}

impl Bench {
    pub(super) fn new(body: &Value) -> Bench {
        let now = Wall(1_800_000_000_000_000_000);
        let mut random = 0;
        let key = StreamKey::of(KEY, Utc::from(now));
        let others = Others { count: 0, name_taken: false };
        let made = create(read_new(body).expect("good fields"), key, others, now, &mut || {
            random += 1;
            random
        });
        let made = made.expect("a new channel");
        let crate::control::lifecycle::ChannelWrite::Put(channel) = &made.channel else { panic!("it is written") };
        let channel = (**channel).clone();
        let mut bench = Bench { now, channel, open: None, ended: Vec::new(), fold: Fold::default(), random };
        bench.take(&made);
        bench
    }

    pub(super) fn key(&self, text: &str) -> StreamKey {
        StreamKey::of(text, Utc::from(self.now))
    }

    pub(super) fn try_send(&mut self, input: Input) -> Result<Step, Refusal> {
        let random = &mut self.random;
        let made = step(&self.channel, self.open.as_ref(), input, self.now, &mut || {
            *random += 1;
            *random
        })?;
        self.take(&made);
        Ok(made)
    }

    pub(super) fn send(&mut self, input: Input) -> Step {
        self.try_send(input).expect("not refused")
    }

    pub(super) fn command(&mut self, command: Command) -> Step {
        self.send(Input::Command(command))
    }

    pub(super) fn publish(&mut self, leg: Leg, publisher: u64) -> Step {
        self.send(Input::Publish(Publish { leg, publisher: PublisherId(publisher) }))
    }

    /// A fact about the open session.
    pub(super) fn fact(&mut self, fact: Fact) -> Step {
        self.send(Input::Fact(self.session(), fact))
    }

    pub(super) fn closed(&mut self, publisher: u64, finished: bool) -> Step {
        let last_media = Some(self.now);
        self.fact(Fact::PublisherClosed { publisher: PublisherId(publisher), finished, last_media })
    }

    pub(super) fn session(&self) -> SessionId {
        self.open.as_ref().expect("an open session").id.clone()
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// To the next deadline, which must be `seconds` away, and its tick.
    pub(super) fn tick_after(&mut self, seconds: u64) -> Step {
        let due = deadline(&self.channel, self.open.as_ref()).expect("something is due");
        assert_eq!(due, self.now + Duration::from_secs(seconds));
        self.now = Wall(due.0 - 1);
        assert_eq!(self.send(Input::Tick), Step::default(), "nothing happens before its time");
        self.now = due;
        self.send(Input::Tick)
    }

    /// A session with leg a up that is live.
    pub(super) fn live(body: &Value) -> Bench {
        let mut bench = Bench::new(body);
        bench.publish(Leg::A, 1);
        bench.fact(Fact::FirstMedia);
        bench.fact(Fact::Processing);
        bench.fact(Fact::Playable);
        bench
    }

    pub(super) fn take(&mut self, made: &Step) {
        for event in made.events.clone() {
            let seq = self.fold.next_seq();
            self.fold.apply(&event.numbered(seq)).expect("events in their order");
        }
        let open = made.open_after(self.open.as_ref()).cloned();
        self.ended.extend(made.sessions.iter().filter(|s| !s.is_open()).cloned());
        if let Some(channel) = made.channel_after(&self.channel) {
            self.channel = channel.clone();
        }
        self.open = open;
        assert_eq!(self.open.is_some(), self.channel.state == ChannelState::Active);
        let total = self.ended.len() + usize::from(self.open.is_some());
        let agreed = self.fold.agrees(&self.channel, self.open.iter().chain(&self.ended), total);
        agreed.expect("the events tell the states");
        let due = deadline(&self.channel, self.open.as_ref());
        let purged = made.channel == crate::control::lifecycle::ChannelWrite::Purge;
        assert!(purged || due.is_none_or(|at| at > self.now), "nothing that is due is left");
    }
}

/// Types of a step's events, in their order.
pub(super) fn told(made: &Step) -> Vec<&'static str> {
    made.events.iter().map(|event| event.what.name()).collect()
}

/// Names of a step's effects, in their order.
pub(super) fn effects(made: &Step) -> Vec<&'static str> {
    let name = |effect: &Effect| match effect {
        Effect::Declare { .. } => "declare",
        Effect::Withdraw(_) => "withdraw",
        Effect::Begin { .. } => "begin",
        Effect::Join { .. } => "join",
        Effect::Resume { .. } => "resume",
        Effect::Dismiss { .. } => "dismiss",
        Effect::End { .. } => "end",
        Effect::RollOver { seamless: true, .. } => "roll over",
        Effect::RollOver { seamless: false, .. } => "break over",
    };
    made.effects.iter().map(name).collect()
}

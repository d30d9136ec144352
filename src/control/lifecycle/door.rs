//! What a publisher meets: the part of a channel that decides on admission, small enough to be kept on the shard.

use std::net::IpAddr;
use std::time::Duration;

use super::refusal::{Code, Refusal};
use crate::control::record::{Activation, ChannelRecord, ChannelState, Legs, Utc};
use crate::media::channel::{Leg, Takeover};
use crate::media::key::{KeyDigest, Passphrase};
use crate::media::networks::Networks;
use crate::pipeline::ports::PullUrl;
use crate::time::Wall;

/// Keys that may be valid at once, during a rotation.
pub(super) const KEYS: usize = 2;

/// Who may publish on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Digest and end of each key. An empty place holds a digest that no key has.
    keys: [(KeyDigest, Option<Utc>); KEYS],
    pub opening: Opening,
    /// What happens to a publisher that comes while another one holds its leg.
    pub takeover: Takeover,
    pub legs: Legs,
    /// Networks that publishers may come from; `None`: from anywhere.
    pub from: Option<Networks>,
    /// What SRT publishers must encrypt with; `None`: what the box wants of all.
    pub passphrase: Option<Passphrase>,
    /// The least receive latency that its publishers get.
    pub latency: Duration,
    /// The source that is called while publishers may come in.
    pub pull: Option<PullUrl>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    Open,
    Stopped,
    /// Manual activation, and nobody started it.
    NotStarted,
    /// There is no such channel.
    Absent,
}

impl Door {
    pub fn of(channel: &ChannelRecord) -> Door {
        let mut keys = [(KeyDigest::none(), None); KEYS];
        for (place, key) in keys.iter_mut().zip(&channel.stream_keys) {
            *place = (key.digest, key.expires_at);
        }
        let policy = &channel.config.policy;
        let opening = match channel.state {
            ChannelState::Deleted => Opening::Absent,
            ChannelState::Stop => Opening::Stopped,
            // A lost publisher comes back, whatever happened to the activation meanwhile.
            ChannelState::Active => Opening::Open,
            ChannelState::Idle if channel.armed || policy.activation == Activation::Auto => Opening::Open,
            ChannelState::Idle => Opening::NotStarted,
        };
        let latency = Duration::from_millis(channel.config.profile.mode.params().srt_latency_ms.into());
        let pull = policy.pull.clone().filter(|_| opening == Opening::Open);
        Door {
            keys,
            opening,
            takeover: policy.takeover,
            legs: policy.legs,
            from: policy.publish_from.clone(),
            passphrase: channel.srt_passphrase.clone(),
            latency,
            pull,
        }
    }

    /// Of a channel that does not exist: it takes the same time to be refused.
    pub fn absent() -> Door {
        Door {
            keys: [(KeyDigest::none(), None); KEYS],
            opening: Opening::Absent,
            takeover: Takeover::default(),
            legs: Legs::default(),
            from: None,
            passphrase: None,
            latency: Duration::ZERO,
            pull: None,
        }
    }

    /// # Errors
    /// The publisher is refused. Who has no valid key learns nothing else.
    pub fn admit(&self, key: &str, leg: Leg, from: IpAddr, now: Wall) -> Result<(), Refusal> {
        let now = Utc::from(now);
        let mut known = false;
        for (digest, expires_at) in &self.keys {
            // Every place is tried, whatever the first one said: the time taken tells nothing.
            let fits = digest.matches(key) & expires_at.is_none_or(|at| now < at);
            known |= fits;
        }
        if !known {
            return Err(Refusal::denied());
        }
        if self.from.as_ref().is_some_and(|networks| !networks.hold(from)) {
            let what = format!("the channel takes no publisher of {from}: add its network to publish_from");
            return Err(Refusal::new(Code::NotFromHere, what));
        }
        self.lets_in(leg)
    }

    /// All that is asked of a publisher but its key.
    ///
    /// # Errors
    /// The publisher is refused.
    pub fn lets_in(&self, leg: Leg) -> Result<(), Refusal> {
        match self.opening {
            Opening::Absent => Err(Refusal::denied()),
            Opening::Stopped => Err(Refusal::new(Code::Stopped, "the channel is stopped: start it first")),
            Opening::NotStarted => Err(Refusal::new(
                Code::NotStarted,
                "the channel is activated by hand: start it first, or set activation to \"auto\"",
            )),
            Opening::Open if leg == Leg::B && self.legs == Legs::Single => {
                Err(Refusal::new(Code::NoSuchLeg, "the channel has one leg: publish on a, or set legs to \"dual\""))
            }
            Opening::Open => Ok(()),
        }
    }
}

//! Legs: which publisher feeds which, and who gives way to whom.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

pub use crate::media::channel::{Leg, PublisherId};

use crate::media::channel::{ChannelName, Takeover};
use crate::media::limits::TAKEOVER_SILENCE;
use crate::time::Mono;

/// The next one of this process.
pub(super) fn next_publisher() -> PublisherId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    PublisherId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What a newcomer finds on the leg it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Free,
    /// This publisher gives way.
    Replaces(PublisherId),
    Busy,
}

/// Who holds each leg.
#[derive(Debug, Default)]
pub(super) struct Sources {
    held: BTreeMap<(ChannelName, Leg), PublisherId>,
}

impl Sources {
    /// `heard`: when media last arrived from a publisher.
    pub(super) fn claim(
        &self,
        now: Mono,
        channel: &ChannelName,
        leg: Leg,
        policy: Takeover,
        heard: impl Fn(PublisherId) -> Mono,
    ) -> Claim {
        match self.held.get(&(channel.clone(), leg)) {
            None => Claim::Free,
            Some(holder) if policy == Takeover::Newest || now - heard(*holder) >= TAKEOVER_SILENCE => {
                Claim::Replaces(*holder)
            }
            Some(_) => Claim::Busy,
        }
    }

    pub(super) fn holder(&self, channel: &ChannelName, leg: Leg) -> Option<PublisherId> {
        self.held.get(&(channel.clone(), leg)).copied()
    }

    pub(super) fn hold(&mut self, channel: ChannelName, leg: Leg, publisher: PublisherId) {
        self.held.insert((channel, leg), publisher);
    }

    /// Frees the leg unless another publisher took it over meanwhile.
    pub(super) fn release(&mut self, channel: &ChannelName, leg: Leg, publisher: PublisherId) {
        let key = (channel.clone(), leg);
        if self.held.get(&key) == Some(&publisher) {
            self.held.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_leg_gives_way_only_after_two_silent_seconds_unless_the_newest_wins() {
        let (news, mut sources) = (ChannelName::new("news").unwrap(), Sources::default());
        let (old, new) = (next_publisher(), next_publisher());
        let heard = Mono(10_000_000_000);
        let claim = |s: &Sources, after_ms, leg, policy| {
            s.claim(heard + Duration::from_millis(after_ms), &news, leg, policy, |_| heard)
        };
        assert_eq!(claim(&sources, 0, Leg::A, Takeover::IfSilent), Claim::Free);
        sources.hold(news.clone(), Leg::A, old);
        assert_eq!(claim(&sources, 1_999, Leg::A, Takeover::IfSilent), Claim::Busy);
        assert_eq!(claim(&sources, 2_000, Leg::A, Takeover::IfSilent), Claim::Replaces(old));
        assert_eq!(claim(&sources, 0, Leg::A, Takeover::Newest), Claim::Replaces(old));
        assert_eq!(claim(&sources, 0, Leg::B, Takeover::IfSilent), Claim::Free, "the other leg is free");
        sources.hold(news.clone(), Leg::A, new);
        sources.release(&news, Leg::A, old);
        assert_eq!(claim(&sources, 0, Leg::A, Takeover::IfSilent), Claim::Busy, "the old one's end frees nothing");
        sources.release(&news, Leg::A, new);
        assert_eq!(claim(&sources, 0, Leg::A, Takeover::IfSilent), Claim::Free);
    }
}

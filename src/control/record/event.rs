//! What happened, for webhooks and for whoever reads the history: enough in each to rebuild the states from them alone.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{ChannelConfig, ChannelId, EndedReason, ErrorCause, EventId, PlaybackId, Profile, StreamKey, Utc};
use crate::media::channel::{Leg, SessionId};

/// Where an event stands in the box's history. The store numbers events as it commits them, without a hole.
pub type EventSeq = u64;

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    pub seq: EventSeq,
    #[serde(flatten)]
    pub event: Event,
}

/// An event that the store has not numbered yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub id: EventId,
    /// Counts the channel's events from 1, without a hole; `None` for what is about no channel.
    pub channel_seq: Option<u64>,
    pub at: Utc,
    pub channel: Option<ChannelId>,
    pub session: Option<SessionId>,
    #[serde(flatten)]
    pub what: What,
}

impl Event {
    pub fn numbered(self, seq: EventSeq) -> EventRecord {
        EventRecord { seq, event: self }
    }
}

/// Facts of an event that another room makes.
pub type Details = Map<String, Value>;

/// A stream key as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    pub prefix: String,
    pub created_at: Utc,
    pub expires_at: Option<Utc>,
}

impl From<&StreamKey> for KeyView {
    fn from(key: &StreamKey) -> KeyView {
        KeyView { prefix: key.prefix.clone(), created_at: key.created_at, expires_at: key.expires_at }
    }
}

macro_rules! events {
    ($($(#[$doc:meta])* $type:literal = $name:ident $payload:tt,)*) => {
        events!(@enum [] $($(#[$doc])* $type = $name $payload,)*);

        impl What {
            /// Every type of event.
            pub const TYPES: &[&str] = &[$($type),*];

            /// As webhooks and filters write it.
            pub fn name(&self) -> &'static str {
                match self { $(What::$name { .. } => $type,)* }
            }
        }
    };
    (@enum [$($done:tt)*]) => {
        /// The type of an event and its facts.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "type", content = "data")]
        pub enum What { $($done)* }
    };
    (@enum [$($done:tt)*] $(#[$doc:meta])* $type:literal = $name:ident $payload:tt, $($rest:tt)*) => {
        events!(@enum [$($done)* $(#[$doc])* #[serde(rename = $type)] $name $payload,] $($rest)*);
    };
}

events! {
    "channel.created" = ChannelCreated { config: Box<ChannelConfig>, playback_id: PlaybackId, stream_keys: Vec<KeyView> },
    /// `fields`: what changed.
    "channel.updated" = ChannelUpdated {
        fields: Vec<String>, config: Box<ChannelConfig>, stream_keys: Vec<KeyView>, armed: bool, revision: u64,
    },
    "channel.started" = ChannelStarted { armed: bool },
    "channel.active" = ChannelActive {},
    "channel.idle" = ChannelIdle {},
    "channel.stopped" = ChannelStopped {},
    "channel.deleted" = ChannelDeleted {},
    /// `previous`: the session that rolled over into this one.
    "session.created" = SessionCreated {
        leg: Leg, profile: Box<Profile>, deadline: Option<Utc>, previous: Option<SessionId>,
    },
    "session.processing" = SessionProcessing {},
    /// `live_at`: the first time.
    "session.live" = SessionLive { live_at: Utc },
    "session.leg_up" = SessionLegUp { leg: Leg },
    "session.publisher_replaced" = SessionPublisherReplaced { leg: Leg },
    "session.input_lost" = SessionInputLost { lost_at: Utc, window_deadline: Utc },
    "session.input_restored" = SessionInputRestored {},
    "session.error" = SessionError { cause: ErrorCause, detail: String },
    "session.recovered" = SessionRecovered {},
    /// `next`: the session that it rolled over into.
    "session.ended" = SessionEnded { reason: EndedReason, ended_at: Utc, next: Option<SessionId> },
    "recording.started" = RecordingStarted(Details),
    "recording.ready" = RecordingReady(Details),
    "recording.failed" = RecordingFailed(Details),
    "recording.deleted" = RecordingDeleted(Details),
    "storyboard.ready" = StoryboardReady(Details),
    "restream.live" = RestreamLive(Details),
    "restream.failed" = RestreamFailed(Details),
    "node.down" = NodeDown(Details),
    "node.up" = NodeUp(Details),
    "pair.hot" = PairHot(Details),
    "pair.degraded" = PairDegraded(Details),
    "pair.switchover" = PairSwitchover(Details),
    "alert.fired" = AlertFired(Details),
    "alert.resolved" = AlertResolved(Details),
    "webhook.endpoint_failing" = WebhookEndpointFailing(Details),
}

#[cfg(test)]
mod tests {
    use super::*;
    use ulid::Ulid;

    #[test]
    fn an_event_is_one_flat_object_with_its_type_and_facts() {
        let event = Event {
            id: EventId(Ulid::from_parts(1, 2)),
            channel_seq: Some(3),
            at: Utc::default(),
            channel: Some(ChannelId(Ulid::from_parts(1, 1))),
            session: None,
            what: What::ChannelStarted { armed: true },
        };
        let record = event.numbered(17);
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!((&json["seq"], &json["channel_seq"]), (&Value::from(17), &Value::from(3)));
        assert_eq!((&json["type"], &json["data"]["armed"]), (&Value::from("channel.started"), &Value::from(true)));
        assert_eq!(json["at"], "1970-01-01T00:00:00.000Z");
        assert_eq!(serde_json::from_value::<EventRecord>(json).unwrap(), record);
    }

    #[test]
    fn types_are_named_as_webhooks_write_them() {
        for (what, name) in [
            (What::SessionLegUp { leg: Leg::B }, "session.leg_up"),
            (What::PairHot(Details::new()), "pair.hot"),
            (What::ChannelIdle {}, "channel.idle"),
        ] {
            assert_eq!(what.name(), name);
            assert_eq!(serde_json::to_value(&what).unwrap()["type"], name);
        }
        let mut unique = What::TYPES.to_vec();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!((unique.len(), What::TYPES.len()), (32, 32));
    }
}

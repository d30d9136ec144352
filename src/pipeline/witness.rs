//! What the data plane tells control and asks of it. Control implements it; nothing here waits for an answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::media::channel::{ChannelName, Leg, PublisherId, SessionId};
use crate::media::grid::{SourceProfile, TimelineLog};
use crate::time::Wall;

/// Wakes the shard that a log belongs to.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Who keeps the book. Called on the shard: it must not wait.
pub trait Witness: Send + Sync {
    /// A publisher was admitted and waits: `Command::Begin` or `Command::Join` gives it its session.
    fn published(&self, channel: &ChannelName, leg: Leg, publisher: PublisherId);

    /// Something happened to a session.
    fn saw(&self, channel: &ChannelName, session: &SessionId, fact: Fact);

    /// Where a session's timeline is written down; `wake` is called when an outcome can be polled.
    fn log(&self, wake: Wake) -> Box<dyn TimelineLog>;
}

/// Of a session whose media was looked at for long enough.
pub const NO_PROGRAM: &str =
    "no playable program within 10 s of its first byte: send MPEG-TS with H.264, HEVC or MPEG-2 video, or AAC audio";

/// Where a session's pictures are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// `gpu`, `gpu_decode`, `software`, or `none`.
    pub backend: &'static str,
    pub gpu: Option<u32>,
    /// A sentence.
    pub why: String,
    /// Steps down from its first choice.
    pub step: u8,
}

/// What happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// What was learnt about the source, for the channel's later sessions. Changes no state.
    Learnt(SourceProfile),
    /// The first media byte since the session began, or since its publishers were gone.
    FirstMedia,
    /// Media flowed until then; once a second. Changes no state.
    Media(Wall),
    /// The furthest frame that has been given out by then; once a second. Changes no state.
    Edge { n: i64, at: Wall },
    /// The program is known, the anchor committed, the pipelines are up.
    Processing,
    /// Viewers can begin.
    Playable,
    /// All tracks have been silent for 2 s.
    InputLost { last_media: Wall },
    /// Media flows again.
    InputRestored,
    /// A connection is over. `finished`: its encoder said that this is the end.
    PublisherClosed { publisher: PublisherId, finished: bool, last_media: Option<Wall> },
    /// The media cannot be used; the sentence says why.
    InputInvalid(String),
    /// All producers failed, here and at the peer.
    PipelineFailed(String),
    /// Producers are back, media flows again.
    Recovered,
    /// Why the session is degraded; empty: it is well. Changes no state.
    Health(BTreeSet<String>),
    /// Where its pictures are made from now on. Changes no state.
    Placed(Placed),
    /// The data plane has lost the session and cannot go on with it.
    Gone(String),
}

//! When something is due, and what. The one place that knows the timers.

use crate::control::record::{ChannelRecord, SessionRecord, SessionState, Utc};
use crate::media::limits::{ERROR_TIMEOUT, NO_MEDIA, PROBE, TOMBSTONE};
use crate::time::Wall;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    NoMedia,
    Probe,
    ErrorOver,
    WindowOver,
    MaxDuration,
    Tombstone,
}

/// When the next `Input::Tick` is due.
pub fn deadline(channel: &ChannelRecord, open: Option<&SessionRecord>) -> Option<Wall> {
    next(channel, open).map(|(at, _)| at.wall())
}

pub(super) fn next(channel: &ChannelRecord, open: Option<&SessionRecord>) -> Option<(Utc, Timer)> {
    let Some(session) = open else {
        return channel.deleted_at.map(|at| (at + TOMBSTONE, Timer::Tombstone));
    };
    let of_state = match session.state {
        SessionState::Init => Some(match session.probing_since {
            Some(at) => (at + PROBE, Timer::Probe),
            None => (session.last_media_at.unwrap_or(session.created_at) + NO_MEDIA, Timer::NoMedia),
        }),
        SessionState::Processing | SessionState::Live => session.window_deadline.map(|at| (at, Timer::WindowOver)),
        SessionState::Error => session.error.as_ref().map(|error| (error.at + ERROR_TIMEOUT, Timer::ErrorOver)),
        SessionState::Ended => None,
    };
    let longest = session.deadline.map(|at| (at, Timer::MaxDuration));
    of_state.into_iter().chain(longest).min()
}

//! What a port tells the shard that drives it, whatever its protocol.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::source::{Leg, PublisherId};
use super::stats::PublisherStats;
use crate::media::channel::ChannelName;
use crate::telemetry::Redacted;

/// What happened on a port.
#[derive(Debug)]
pub enum Event {
    Connected(Connected),
    /// The next payload of a publisher, in order; usually seven transport-stream packets.
    Data {
        publisher: PublisherId,
        payload: Bytes,
    },
    Closed {
        publisher: PublisherId,
        reason: Closing,
        stats: PublisherStats,
    },
    /// A caller was told no. `code` is libsrt's: 1400 and up ours, below 20 SRT's own.
    Refused {
        peer: Redacted<SocketAddr>,
        channel: Option<ChannelName>,
        code: u16,
        why: String,
    },
    /// Payloads of this publisher were dropped because nobody took the events; counted in its statistics.
    Overflow {
        publisher: PublisherId,
    },
    /// Of a source that the port calls.
    Pull(PullNews),
}

/// How far a source is that this box calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullState {
    /// It is called, again and again.
    Calling,
    /// Another publisher has its leg: it is called once that is gone.
    Standby,
    /// It answered and has sent no media yet.
    Connected,
    OnAir,
}

impl PullState {
    pub fn name(self) -> &'static str {
        match self {
            PullState::Calling => "calling",
            PullState::Standby => "standby",
            PullState::Connected => "connected",
            PullState::OnAir => "on_air",
        }
    }
}

/// A source that this box calls, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullStatus {
    pub state: PullState,
    /// Why there is no connection: a sentence without addresses and secrets.
    pub error: Option<String>,
}

/// Something happened to a source.
#[derive(Debug)]
pub struct PullNews {
    pub channel: ChannelName,
    pub status: PullStatus,
    /// It is not what was told last.
    pub changed: bool,
    /// What a call came to, for counting.
    pub outcome: Option<&'static str>,
}

/// How a publisher comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Srt,
    Quic,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Srt => "srt",
            Protocol::Quic => "quic",
        }
    }
}

/// A publisher is on air.
#[derive(Clone, Debug)]
pub struct Connected {
    pub publisher: PublisherId,
    pub protocol: Protocol,
    pub channel: ChannelName,
    pub leg: Leg,
    pub peer: Redacted<SocketAddr>,
    /// Negotiated: the larger of the port's and the caller's.
    pub latency: Duration,
    /// Of the caller's libsrt, `1.5.1`, or of the format, `rung-ts/1`.
    pub peer_version: Option<String>,
    /// AES key length; 0 in clear.
    pub key_bits: u16,
    /// The publisher that gave way. Its `Closed` came before if it was on the same port; else whoever drives both
    /// closes it.
    pub replaced: Option<PublisherId>,
}

/// Why a publisher is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// It said so (SRT SHUTDOWN; the end of its control stream).
    Finished,
    /// Nothing came from it for 5 s.
    Silent,
    /// Another publisher took its leg.
    Replaced,
    /// It broke the rules of its protocol.
    Broken,
    /// Its media cannot be used; its address stays out for 10 s.
    InputInvalid,
    /// The operator, or a limit of the session.
    Stopped,
    /// The port closes.
    Shutdown,
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Closing::Finished => "the publisher finished",
            Closing::Silent => "nothing came from the publisher for 5 s",
            Closing::Replaced => "another publisher took over",
            Closing::Broken => "it broke the rules of its protocol",
            Closing::InputInvalid => "its media cannot be used",
            Closing::Stopped => "stopped on this side",
            Closing::Shutdown => "the port closes",
        })
    }
}

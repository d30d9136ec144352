//! Publishing from this side: what publishers of ours tell, whatever their protocol.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::feeder::FeedStats;

/// Seven transport-stream packets: the payload of every SRT peer.
pub const PAYLOAD: usize = 1_316;

/// What a `Publish` tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishEvent {
    /// On air, with the latency that the listener settled on.
    Connected { latency: Duration },
    /// The end of it; make a new one to try again.
    Closed(PublishEnd),
}

/// Why a publish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishEnd {
    /// `finish` was called.
    Finished,
    /// Refused: libsrt's code, 1400 and up an answer about channel and key.
    Refused(u16),
    /// Nothing answered; `unreachable`: the host said that nobody listens there.
    NoAnswer { unreachable: bool },
    /// There is no socket for that way.
    NoWay,
    /// The listener closed the connection.
    ClosedByPeer,
    /// Nothing came from the listener for 5 s.
    Silent,
    /// Encryption could not be agreed on.
    Crypto,
    /// The receiver's certificate is not the pinned one, or nobody vouches for it.
    Certificate,
    /// The listener wants something we do not do.
    Unsupported,
}

impl PublishEnd {
    /// Trying again may help.
    pub fn worth_a_retry(self) -> bool {
        !matches!(self, PublishEnd::Finished | PublishEnd::Crypto | PublishEnd::Certificate | PublishEnd::Unsupported)
            && !matches!(self, PublishEnd::Refused(code) if !matches!(code, 5 | 1403 | 1409 | 1429 | 1503))
    }
}

impl fmt::Display for PublishEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match self {
            PublishEnd::Finished => "finished",
            PublishEnd::Refused(1401) => "refused: unknown channel or wrong publish key (1401)",
            PublishEnd::Refused(1403) => "refused: the channel is stopped (1403)",
            PublishEnd::Refused(1409) => "refused: another publisher is on air (1409)",
            PublishEnd::Refused(1415) => "refused: something asked for is not supported (1415)",
            PublishEnd::Refused(1429) => "refused: too many tries from this address (1429)",
            PublishEnd::Refused(1503) => "refused: the box has no capacity left (1503)",
            PublishEnd::Refused(10) => "refused: wrong passphrase (10)",
            PublishEnd::Refused(11) => "refused: only one side has a passphrase (11)",
            PublishEnd::Refused(14) => "refused: the listener knows no such packet filter (14)",
            PublishEnd::Refused(15) => "refused: the listener takes no such connection group, or no more of it (15)",
            PublishEnd::Refused(code) => return write!(f, "refused with code {code}"),
            PublishEnd::NoAnswer { unreachable: true } => "nobody listens on that port",
            PublishEnd::NoAnswer { unreachable: false } => "no answer from that address",
            PublishEnd::NoWay => "no way there from this machine, or from its address that adapter names",
            PublishEnd::ClosedByPeer => "the listener closed the connection",
            PublishEnd::Silent => "nothing came from the listener for 5 s",
            PublishEnd::Crypto => "the passphrases do not fit",
            PublishEnd::Certificate => {
                "the receiver's certificate is not the pinned one, or no authority vouches for it"
            }
            PublishEnd::Unsupported => "the listener wants something that is not supported (a passphrase?)",
        };
        f.write_str(sentence)
    }
}

/// What happened to one link of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkNews {
    /// It is connected.
    Up,
    /// It carries the media from now on: in a bond of type backup, one does.
    Carries,
    /// It stands by again.
    StandsBy,
    /// It is gone; `again`: it is called again.
    Down { end: PublishEnd, again: bool },
}

impl fmt::Display for LinkNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkNews::Up => f.write_str("up"),
            LinkNews::Carries => f.write_str("carries the media"),
            LinkNews::StandsBy => f.write_str("stands by"),
            LinkNews::Down { end, again: true } => write!(f, "down: {end}; it is called again"),
            LinkNews::Down { end, again: false } => write!(f, "down: {end}"),
        }
    }
}

/// What happened to a source over SRT that is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceNews {
    /// Media comes, with the latency that both sides settled on.
    Up { latency: Duration },
    /// It is gone, or did not come; `called`: it is called again, else the next caller is waited for.
    Down { why: String, called: bool },
    /// A caller was told no, with libsrt's code.
    Refused { code: u16, why: String },
}

impl fmt::Display for SourceNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceNews::Up { latency } => write!(f, "on air, latency {} ms", latency.as_millis()),
            SourceNews::Down { why, called: true } => write!(f, "{why}; it is called again"),
            SourceNews::Down { why, called: false } => write!(f, "{why}; the next caller is waited for"),
            SourceNews::Refused { code, why } => write!(f, "a caller was refused: {why} ({code})"),
        }
    }
}

/// Counters of a publish. Piece by piece are counted SRT's payloads, and QUIC's: payloads sent and dropped, packets
/// retransmitted, segments acknowledged, waiting and late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishStats {
    /// Payloads put on the wire for the first time, and their bytes.
    pub sent: u64,
    pub sent_bytes: u64,
    pub retransmitted: u64,
    pub acknowledged: u64,
    /// Payloads not taken because too many wait, or the connection is not open.
    pub dropped: u64,
    /// Payloads that wait for an acknowledgement.
    pub waiting: usize,
    /// Given up because they would come too late; only QUIC's publisher does that.
    pub late: u64,
    pub rtt: Duration,
    /// Connections of a bond that are open; 0 without one.
    pub links: u32,
}

/// `Progress::Tick` comes this often.
pub(super) const TICK: Duration = Duration::from_millis(200);
/// Publishers begin this far apart, so that their key frames do not come together.
pub(super) const STAGGER: Duration = Duration::from_millis(37);
/// Between two tries of one publisher: doubled each time up to the second.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// News for whoever runs `push`.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Something happened to publisher `stream` (from 1).
    Event { stream: u32, event: &'a PublishEvent },
    /// Something happened to link `link` (from 1) of publisher `stream`.
    Link { stream: u32, link: u32, news: &'a LinkNews },
    /// Something happened to the source of publisher `stream`.
    Source { stream: u32, news: &'a SourceNews },
    /// What it sent came too late: its segments are so long from now on.
    Late { stream: u32, segment: Duration },
    /// Five times a second.
    Tick { elapsed: Duration, streams: &'a [StreamProgress] },
}

#[derive(Clone, Copy, Debug, Default)]
pub struct StreamProgress {
    pub connected: bool,
    /// Of the connection that is or was last.
    pub publish: PublishStats,
    pub feed: FeedStats,
    /// Connections tried.
    pub tries: u32,
    pub end: Option<PublishEnd>,
}

/// Why `push` could not do what it was asked for; prints one sentence.
#[derive(Debug)]
pub enum PushError {
    File {
        path: PathBuf,
        source: io::Error,
    },
    Address(String),
    Socket(io::Error),
    /// A publisher ended before its file did.
    Ended {
        stream: u32,
        end: PublishEnd,
    },
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PushError::File { path, source } => write!(f, "{}: {source}", path.display()),
            PushError::Address(what) => f.write_str(what),
            PushError::Socket(source) => write!(f, "cannot publish: {source}"),
            PushError::Ended { stream, end } => write!(f, "stream {stream}: {end}"),
        }
    }
}

impl std::error::Error for PushError {}

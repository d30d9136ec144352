//! Statistics of one publisher, under libsrt's names so that dashboards read the same for every protocol.

use std::net::SocketAddr;
use std::time::Duration;

use crate::telemetry::Redacted;

/// Counters since the connection began; `None` where nothing is known (yet). What is counted piece by piece is data
/// packets of SRT and segments of QUIC.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublisherStats {
    /// Received, every copy.
    pub received: u64,
    pub received_bytes: u64,
    pub retransmitted: u64,
    /// Found missing, each once.
    pub lost: u64,
    /// Missing at their delivery time: damage in the picture.
    pub dropped: u64,
    pub duplicates: u64,
    /// Came after their delivery time.
    pub belated: u64,
    /// In clear on a keyed connection, or under no known key.
    pub undecryptable: u64,
    pub naks: u64,
    pub acks: u64,
    /// Packets of a packet filter (SRT's FEC) that came: they count as received, too.
    pub filter_extra: u64,
    /// Lost packets that it brought back: they do not.
    pub filter_supplied: u64,
    /// Lost packets that it could not bring back.
    pub filter_lost: u64,
    /// Payloads that this side had no room for: the shard did not keep up.
    pub overflowed: u64,
    /// Round-trip time, smoothed.
    pub rtt: Option<Duration>,
    pub rtt_variance: Option<Duration>,
    /// Negotiated receive latency.
    pub latency: Option<Duration>,
    /// Packets in the receive buffer, and their length in time at the rate of the last second.
    pub buffered_packets: Option<u32>,
    pub buffered: Option<Duration>,
    /// Bits per second received over the last whole second.
    pub bitrate: Option<u64>,
    /// `1.5.1`
    pub peer_version: Option<String>,
    /// AES key length in bits; 0 in clear.
    pub key_bits: u16,
    /// Since the last data packet.
    pub age: Option<Duration>,
    /// The connections of a group (SRT's bonding), in the order in which they came; empty for one alone.
    pub links: Vec<LinkStats>,
}

/// One connection of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkStats {
    pub peer: Redacted<SocketAddr>,
    pub received: u64,
    pub lost: u64,
    pub rtt: Option<Duration>,
    /// Since anything came over it.
    pub age: Duration,
}

impl PublisherStats {
    /// The sum with another connection of the same publisher. What is no count is this one's if it knows it.
    #[must_use]
    pub(super) fn with(mut self, other: PublisherStats) -> PublisherStats {
        self.links.extend(other.links);
        PublisherStats {
            received: self.received + other.received,
            received_bytes: self.received_bytes + other.received_bytes,
            retransmitted: self.retransmitted + other.retransmitted,
            lost: self.lost + other.lost,
            dropped: self.dropped + other.dropped,
            duplicates: self.duplicates + other.duplicates,
            belated: self.belated + other.belated,
            undecryptable: self.undecryptable + other.undecryptable,
            naks: self.naks + other.naks,
            acks: self.acks + other.acks,
            filter_extra: self.filter_extra + other.filter_extra,
            filter_supplied: self.filter_supplied + other.filter_supplied,
            filter_lost: self.filter_lost + other.filter_lost,
            overflowed: self.overflowed + other.overflowed,
            rtt: self.rtt.or(other.rtt),
            rtt_variance: self.rtt_variance.or(other.rtt_variance),
            latency: self.latency.or(other.latency),
            buffered_packets: self.buffered_packets.max(other.buffered_packets),
            buffered: self.buffered.max(other.buffered),
            bitrate: self.bitrate.max(other.bitrate),
            peer_version: self.peer_version.or(other.peer_version),
            key_bits: self.key_bits.max(other.key_bits),
            age: self.age.or(other.age),
            links: self.links,
        }
    }

    /// What was counted, without what is known of the moment.
    #[must_use]
    pub(super) fn counted(self) -> PublisherStats {
        PublisherStats {
            rtt: None,
            rtt_variance: None,
            latency: None,
            buffered_packets: None,
            buffered: None,
            bitrate: None,
            peer_version: None,
            age: None,
            links: Vec::new(),
            ..self
        }
    }

    /// libsrt's names (`srt_bstats`) and their values, in libsrt's units.
    pub fn named(&self) -> [(&'static str, Option<f64>); 17] {
        let count = |n: u64| Some(n as f64);
        let ms = |span: Option<Duration>| span.map(|span| span.as_secs_f64() * 1e3);
        [
            ("pktRecv", count(self.received)),
            ("byteRecv", count(self.received_bytes)),
            ("pktRcvRetrans", count(self.retransmitted)),
            ("pktRcvLoss", count(self.lost)),
            ("pktRcvDrop", count(self.dropped)),
            ("pktRcvBelated", count(self.belated)),
            ("pktRcvUndecrypt", count(self.undecryptable)),
            ("pktSentNAK", count(self.naks)),
            ("pktSentACK", count(self.acks)),
            ("pktRcvFilterExtra", count(self.filter_extra)),
            ("pktRcvFilterSupply", count(self.filter_supplied)),
            ("pktRcvFilterLoss", count(self.filter_lost)),
            ("msRTT", ms(self.rtt)),
            ("msRcvTsbPdDelay", ms(self.latency)),
            ("pktRcvBuf", self.buffered_packets.map(f64::from)),
            ("msRcvBuf", ms(self.buffered)),
            ("mbpsRecvRate", self.bitrate.map(|bits| bits as f64 / 1e6)),
        ]
    }
}

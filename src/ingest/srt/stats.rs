//! Statistics of one publisher, under libsrt's names so that dashboards read the same.

use std::time::Duration;

use sapflow_srt::Stats;

use super::sniff::FullAck;

/// Counters since the connection began; `None` where nothing is known (yet).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublisherStats {
    /// Data packets received, every copy.
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
}

impl PublisherStats {
    pub(super) fn new(stats: &Stats) -> PublisherStats {
        PublisherStats {
            received: stats.received,
            received_bytes: stats.received_bytes,
            retransmitted: stats.retransmitted,
            lost: stats.lost,
            dropped: stats.dropped,
            duplicates: stats.duplicates,
            belated: stats.belated,
            undecryptable: stats.encrypted,
            naks: stats.naks_sent,
            acks: stats.acks_sent,
            ..PublisherStats::default()
        }
    }

    pub(super) fn add_ack(&mut self, ack: &FullAck, capacity: u32) {
        let buffered = capacity.saturating_sub(ack.free);
        self.rtt = Some(Duration::from_micros(u64::from(ack.rtt_us)));
        self.rtt_variance = Some(Duration::from_micros(u64::from(ack.rtt_variance_us)));
        self.buffered_packets = Some(buffered);
        // The rate is known from the second second on.
        if ack.packets_per_second > 0 {
            let micros = u64::from(buffered) * 1_000_000 / u64::from(ack.packets_per_second);
            self.buffered = Some(Duration::from_micros(micros));
            self.bitrate = Some(u64::from(ack.bytes_per_second) * 8);
        }
    }

    /// libsrt's names (`srt_bstats`) and their values, in libsrt's units.
    pub fn named(&self) -> [(&'static str, Option<f64>); 14] {
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
            ("msRTT", ms(self.rtt)),
            ("msRcvTsbPdDelay", ms(self.latency)),
            ("pktRcvBuf", self.buffered_packets.map(f64::from)),
            ("msRcvBuf", ms(self.buffered)),
            ("mbpsRecvRate", self.bitrate.map(|bits| bits as f64 / 1e6)),
        ]
    }
}

/// `0x010501` is `1.5.1`.
pub(super) fn version(number: u32) -> Option<String> {
    let [_, major, minor, patch] = number.to_be_bytes();
    (number != 0).then(|| format!("{major}.{minor}.{patch}"))
}

//! What a connection's receiver counted, as everybody reads it.

use std::time::Duration;

use super::inbound::Inbound;
use crate::ingest::stats::PublisherStats;

/// All that the receiver knows; the rest is the connection's.
pub(super) fn of(inbound: &Inbound) -> PublisherStats {
    let (receiver, counts, rebuilt) = (&inbound.receiver, inbound.receiver.counts, inbound.rebuilt());
    let (packets, bytes) = receiver.per_second();
    let waiting = receiver.waiting();
    // The rate is known from the second second on.
    let micros = (packets > 0).then(|| u64::from(waiting) * 1_000_000 / u64::from(packets));
    PublisherStats {
        received: counts.received,
        received_bytes: counts.bytes,
        retransmitted: counts.retransmitted,
        lost: counts.lost,
        dropped: counts.dropped,
        duplicates: counts.duplicates,
        belated: counts.belated,
        undecryptable: inbound.undecryptable,
        naks: counts.naks,
        acks: counts.acks,
        filter_extra: rebuilt.extra,
        filter_supplied: rebuilt.supplied,
        filter_lost: rebuilt.lost,
        rtt: receiver.rtt.measured().map(|(rtt, _)| rtt),
        rtt_variance: receiver.rtt.measured().map(|(_, variance)| variance),
        buffered_packets: Some(waiting),
        buffered: micros.map(Duration::from_micros),
        bitrate: (packets > 0).then_some(u64::from(bytes) * 8),
        ..PublisherStats::default()
    }
}

/// `0x010501` is `1.5.1`.
pub(super) fn version(number: u32) -> Option<String> {
    let [_, major, minor, patch] = number.to_be_bytes();
    (number != 0).then(|| format!("{major}.{minor}.{patch}"))
}

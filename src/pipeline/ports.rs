//! Every port that publishers come to, as one: events from whichever has them, orders to whichever is meant.

use std::os::fd::BorrowedFd;

use crate::ingest::{Closing, Connected, Event, PublisherId, PublisherStats, quic, srt};
use crate::media::channel::ChannelName;
use crate::time::Mono;

pub use crate::ingest::srt::PullUrl;
pub use crate::ingest::{PullState, PullStatus};

/// The ports of a shard. They share one door.
pub struct Ports {
    srt: srt::Port,
    quic: Option<quic::Port>,
}

/// What their ports count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) srt: srt::PortCounters,
    pub(super) quic: quic::PortCounters,
}

impl Ports {
    pub fn new(srt: srt::Port, quic: Option<quic::Port>) -> Ports {
        Ports { srt, quic }
    }

    pub(super) fn run(&mut self, now: Mono) {
        self.srt.run(now);
        self.quic.iter_mut().for_each(|quic| quic.run(now));
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        self.srt.poll().or_else(|| self.quic.as_mut()?.poll())
    }

    /// Whether another publisher took its leg since: each port tells what happened at it, and not when beside the others.
    pub(super) fn is_replaced(&self, connected: &Connected) -> bool {
        self.srt.door().is_replaced(&connected.channel, connected.leg, connected.publisher)
    }

    /// The source that a channel has from now on; `None`: its publishers come by themselves.
    pub(super) fn pull(&mut self, now: Mono, channel: &ChannelName, url: Option<PullUrl>) {
        self.srt.pull(now, channel, url);
    }

    pub(super) fn close(&mut self, now: Mono, publisher: PublisherId, why: Closing) {
        self.srt.close(now, publisher, why);
        self.quic.iter_mut().for_each(|quic| quic.close(now, publisher, why));
    }

    pub(super) fn stats(&self, now: Mono, publisher: PublisherId) -> Option<PublisherStats> {
        self.srt.stats(now, publisher).or_else(|| self.quic.as_ref()?.stats(now, publisher))
    }

    pub(super) fn counters(&self) -> Counters {
        let quic = self.quic.as_ref().map(quic::Port::counters);
        Counters { srt: self.srt.counters(), quic: quic.unwrap_or_default() }
    }

    pub(super) fn shutdown(&mut self, now: Mono) {
        self.srt.shutdown(now);
        self.quic.iter_mut().for_each(|quic| quic.shutdown(now));
    }

    pub(super) fn deadline(&self, now: Mono) -> Option<Mono> {
        let quic = self.quic.as_ref().and_then(quic::Port::deadline);
        self.srt.deadline(now).into_iter().chain(quic).min()
    }

    /// What must wake the shard when it is readable.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let srt = self.srt.polls_fd().then(|| self.srt.fd()).into_iter().chain(self.srt.mail_fd());
        let quic = self.quic.as_ref().filter(|quic| quic.polls_fd()).map(quic::Port::fd);
        srt.chain(quic)
    }
}

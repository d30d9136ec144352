//! One direction of media going out: what was sent is kept until it is acknowledged, sent again when asked for, and
//! given up, with a word to the receiver, when it would come too late [SRT 4.6, 4.8].

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::crypto::Keys;
use super::filter::Filter;
use super::link::Link;
use super::outbox::Outbox;
use super::packet::{Ack, Control, Data, Key, Losses, MESSAGE};
use super::protect::Protector;
use super::rtt::Rtt;
use super::seq::Seq;
use crate::time::Mono;

/// Packets and bytes that may wait for an acknowledgement.
pub(super) const PACKETS_MAX: usize = 16_384;
pub(super) const BYTES_MAX: usize = 24 << 20;
/// A packet is given up this long after its latency [SRT 4.6].
pub(super) const GIVE_UP_BEYOND: Duration = Duration::from_secs(1);
/// The last packet is sent again when an acknowledgement of it is this much overdue: its loss shows no gap.
const TAIL_GRACE: Duration = Duration::from_millis(30);
/// How often at most, before silence is left to the connection's end.
const TAIL_TRIES: u32 = 10;
/// Packets under one key, and how many before its end the next one is announced [SRT 6.1.6].
const KEY_PACKETS: u64 = 1 << 24;
const ANNOUNCE_PACKETS: u64 = 1 << 12;
/// An announcement without an answer is repeated this often.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) retransmitted: u64,
    pub(super) acknowledged: u64,
    /// Given up because nobody acknowledged them in time.
    pub(super) given_up: u64,
}

#[derive(Debug)]
struct Sent {
    payload: Bytes,
    key: Key,
    message: u32,
    timestamp: u32,
    made: Mono,
    /// When its last copy went.
    went: Mono,
}

pub(super) struct Sender {
    /// Without an acknowledgement, from `base` on.
    waiting: VecDeque<Sent>,
    base: Seq,
    bytes: usize,
    message: u32,
    rtt: Rtt,
    give_up_after: Duration,
    keys: Option<Renewal>,
    /// When the last acknowledgement got us forward, or the first packet went after that.
    progress: Mono,
    /// When the first packet went of those that wait.
    since: Mono,
    tail_tries: u32,
    /// Before this one everything was acknowledged; nothing was at first.
    acknowledged: Option<Seq>,
    protector: Option<Protector>,
    pub(super) counts: Counts,
}

/// Keys and when the next are due.
struct Renewal {
    keys: Keys,
    active: Key,
    packets: u64,
    every: u64,
    /// The announcement that waits for its answer, and when it was made last.
    announced: Option<(Vec<u8>, Mono)>,
}

impl Sender {
    /// `first`: the number of the first packet; `renew_after`: packets under one key, 0 for as many as is usual.
    pub(super) fn new(first: Seq, latency: Duration, keys: Option<Keys>, renew_after: u64) -> Sender {
        let every = if renew_after == 0 { KEY_PACKETS } else { renew_after };
        Sender {
            waiting: VecDeque::new(),
            base: first,
            bytes: 0,
            message: 1,
            rtt: Rtt::default(),
            give_up_after: latency + GIVE_UP_BEYOND,
            keys: keys.map(|keys| Renewal { keys, active: Key::Even, packets: 0, every, announced: None }),
            progress: Mono(0),
            since: Mono(0),
            tail_tries: 0,
            acknowledged: None,
            protector: None,
            counts: Counts::default(),
        }
    }

    /// The same with a packet filter.
    pub(super) fn filtered(mut self, filter: Option<Filter>) -> Sender {
        self.protector = filter.map(|filter| Protector::new(filter.layout));
        self
    }

    /// Sends one payload; `false`: too much waits for an acknowledgement, and it is dropped.
    pub(super) fn send(&mut self, now: Mono, payload: &[u8], link: &mut Link, out: &mut Outbox) -> bool {
        self.send_made(now, now, payload, link, out)
    }

    /// The same for a payload that was made at `made`.
    pub(super) fn send_made(
        &mut self,
        now: Mono,
        made: Mono,
        payload: &[u8],
        link: &mut Link,
        out: &mut Outbox,
    ) -> bool {
        if self.waiting.len() >= PACKETS_MAX || self.bytes + payload.len() > BYTES_MAX {
            return false;
        }
        let (seq, mut payload, mut key) = (self.next(), payload.to_vec(), Key::Clear);
        if let Some(renewal) = &mut self.keys {
            renewal.count(now, link, out);
            key = renewal.active;
            renewal.keys.apply(key, seq, &mut payload);
        }
        if self.waiting.is_empty() {
            (self.progress, self.since, self.tail_tries) = (now, now, 0);
        }
        self.counts.sent += 1;
        self.counts.sent_bytes += payload.len() as u64;
        self.bytes += payload.len();
        let (payload, timestamp, message) = (payload.into(), link.timestamp(made), self.message);
        let sent = Sent { payload, key, message, timestamp, made, went: made };
        put(&sent, seq, false, link, out);
        if let Some(protector) = &mut self.protector {
            protector.packet(&sent.head(seq, false), &sent.payload, |data, body| {
                out.push_with(link.peer, body.into(), |buffer| data.write(buffer, link.socket));
            });
        }
        link.said(now);
        self.message = if self.message == MESSAGE { 1 } else { self.message + 1 };
        self.waiting.push_back(sent);
        true
    }

    /// The number of the packet that is sent next.
    pub(super) fn next(&self) -> Seq {
        self.base.plus(self.waiting.len() as u32)
    }

    /// The packet that is sent next is this one: those in between went over other connections of the group, and what waits
    /// here is theirs, too.
    pub(super) fn go_on(&mut self, seq: Seq, message: u32) {
        self.forget(self.waiting.len());
        (self.base, self.message) = (seq, message);
    }

    /// Before this one the other side has everything, once it said so.
    pub(super) fn acknowledged_to(&self) -> Option<Seq> {
        self.acknowledged
    }

    /// From when on an answer to what waits is due.
    pub(super) fn waits_since(&self) -> Option<Mono> {
        (!self.waiting.is_empty()).then_some(self.since)
    }

    /// An answer takes this long at most.
    pub(super) fn patience(&self) -> Duration {
        self.rtt.patience()
    }

    /// A control packet that concerns media going out.
    pub(super) fn control(&mut self, now: Mono, control: &Control<'_>, link: &mut Link, out: &mut Outbox) {
        match control {
            Control::Ack(ack) => self.acknowledged(now, ack, link, out),
            Control::Nak(losses) => self.asked_for(now, *losses, link, out),
            Control::KeyResponse(answer) => {
                if let Some(renewal) = &mut self.keys {
                    renewal.announced = renewal.announced.take().filter(|(message, _)| message.as_slice() != *answer);
                }
            }
            _ => {}
        }
    }

    fn acknowledged(&mut self, now: Mono, ack: &Ack, link: &mut Link, out: &mut Outbox) {
        if ack.number != 0 {
            link.send(now, Control::AckAck(ack.number), out);
        }
        if let Some(facts) = ack.facts.filter(|facts| facts.rtt_us > 0) {
            self.rtt.sample(Duration::from_micros(facts.rtt_us.into()));
        }
        let Some(count) = ack.next.after(self.base).filter(|count| *count as usize <= self.waiting.len()) else {
            return;
        };
        if count > 0 {
            (self.progress, self.tail_tries) = (now, 0);
        }
        self.acknowledged = Some(ack.next);
        self.counts.acknowledged += u64::from(count);
        self.forget(count as usize);
    }

    fn asked_for(&mut self, now: Mono, losses: Losses<'_>, link: &mut Link, out: &mut Outbox) {
        // The same packet asked for again before its copy can have arrived.
        let fresh = self.rtt.smoothed() / 2;
        for (first, last) in losses {
            if last.since(self.base) < 0 {
                link.send(now, Control::DropRequest { first, last }, out);
                continue;
            }
            let from = first.after(self.base).unwrap_or(0) as usize;
            let to = (last.since(self.base).max(0) as usize + 1).min(self.waiting.len());
            if first.since(self.base) < 0 {
                link.send(now, Control::DropRequest { first, last: self.base.minus(1) }, out);
            }
            for index in from..to.max(from) {
                let again = self.waiting[index].went != self.waiting[index].made;
                if !again || now - self.waiting[index].went >= fresh {
                    self.repeat(now, index, link, out);
                }
            }
        }
    }

    fn repeat(&mut self, now: Mono, index: usize, link: &mut Link, out: &mut Outbox) {
        let seq = self.base.plus(index as u32);
        let Some(sent) = self.waiting.get_mut(index) else { return };
        // Later than the original, so that one report does not ask for it twice.
        sent.went = now.max(Mono(sent.made.0 + 1));
        self.counts.retransmitted += 1;
        put(sent, seq, true, link, out);
        link.said(now);
    }

    /// Gives up what is too late, sends the last packet again when nothing is heard of it, repeats announcements.
    pub(super) fn tick(&mut self, now: Mono, link: &mut Link, out: &mut Outbox) {
        let late = self.waiting.iter().take_while(|sent| now - sent.made >= self.give_up_after).count();
        if late > 0 {
            let last = self.base.plus(late as u32 - 1);
            link.send(now, Control::DropRequest { first: self.base, last }, out);
            self.counts.given_up += late as u64;
            self.forget(late);
        }
        if self.tail_due().is_some_and(|due| due <= now) {
            self.tail_tries += 1;
            self.progress = now;
            self.repeat(now, self.waiting.len() - 1, link, out);
        }
        if let Some(renewal) = &mut self.keys {
            renewal.repeat(now, link, out);
        }
    }

    /// When `tick` has something to do.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let late = self.waiting.front().map(|sent| sent.made + self.give_up_after);
        let announcement = self.keys.as_ref().and_then(|r| r.announced.as_ref()).map(|(_, at)| *at + ANNOUNCE_EVERY);
        late.into_iter().chain(self.tail_due()).chain(announcement).min()
    }

    fn tail_due(&self) -> Option<Mono> {
        let last = self.waiting.back()?;
        let patience = (self.rtt.patience() + TAIL_GRACE) * (self.tail_tries + 1);
        (self.tail_tries < TAIL_TRIES).then(|| self.progress.max(last.went) + patience)
    }

    fn forget(&mut self, count: usize) {
        self.bytes -= self.waiting.drain(..count).map(|sent| sent.payload.len()).sum::<usize>();
        self.base = self.base.plus(count as u32);
    }

    /// Payloads that wait for an acknowledgement.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn rtt(&self) -> Duration {
        self.rtt.measured().map_or(Duration::ZERO, |(rtt, _)| rtt)
    }
}

impl Sent {
    fn head(&self, seq: Seq, retransmitted: bool) -> Data {
        Data { seq, key: self.key, retransmitted, message: self.message, timestamp: self.timestamp }
    }
}

fn put(sent: &Sent, seq: Seq, retransmitted: bool, link: &Link, out: &mut Outbox) {
    let data = sent.head(seq, retransmitted);
    out.push_with(link.peer, sent.payload.clone(), |buffer| data.write(buffer, link.socket));
}

impl Renewal {
    /// One more packet: announces the next key ahead of time and takes it into use, once the other side has it.
    fn count(&mut self, now: Mono, link: &mut Link, out: &mut Outbox) {
        self.packets += 1;
        let next = if self.active == Key::Even { Key::Odd } else { Key::Even };
        let announce_at = self.every - ANNOUNCE_PACKETS.min(self.every / 2);
        if self.packets == announce_at {
            self.keys.renew(next);
            let message = self.keys.message(&[Key::Even, Key::Odd]);
            link.send(now, Control::KeyRequest(&message), out);
            self.announced = Some((message, now));
        } else if self.packets >= self.every && self.announced.is_none() {
            self.active = next;
            self.packets = 0;
        }
    }

    fn repeat(&mut self, now: Mono, link: &mut Link, out: &mut Outbox) {
        if let Some((message, at)) = &mut self.announced
            && now - *at >= ANNOUNCE_EVERY
        {
            *at = now;
            link.send(now, Control::KeyRequest(message), out);
        }
    }
}

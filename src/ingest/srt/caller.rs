//! The side that calls: shakes hands with a listener, then sends to it. No socket and no clock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;

use super::call::{Agreed, CONNECT_MAX, Call, Wishes, random_socket};
use super::handshake::Handshake;
use super::link::Link;
use super::outbox::Outbox;
use super::packet::{Control, Packet};
use super::sender::Sender;
use super::seq::Seq;
use crate::ingest::publish::{PublishEnd, PublishEvent};
use crate::time::Mono;

#[derive(Clone, Debug)]
pub(super) struct CallerConfig {
    pub(super) wishes: Wishes,
    /// Packets under one key; 0: as many as is usual.
    pub(super) renew_after: u64,
}

pub(super) struct Caller {
    renew_after: u64,
    socket: u32,
    link: Link,
    state: State,
    /// The listener's number of the group that we are in.
    group: Option<u32>,
    /// From when the connection is open on; behind its end for its counts.
    sender: Option<Sender>,
    pub(super) outbox: Outbox,
    events: VecDeque<PublishEvent>,
}

enum State {
    Calling(Box<Call>),
    Open,
    Closed,
}

impl Caller {
    /// Its first words go out with the first `tick`.
    pub(super) fn new(now: Mono, config: CallerConfig, peer: SocketAddr) -> Caller {
        let mut link = Link::new(now, peer, 0);
        if let Some(joins) = config.wishes.joins {
            link.began = joins.began;
        }
        let call = Call::new(now, config.wishes, random_socket(), CONNECT_MAX, &link);
        Caller {
            renew_after: config.renew_after,
            socket: call.socket,
            link,
            state: State::Calling(Box::new(call)),
            group: None,
            sender: None,
            outbox: Outbox::default(),
            events: VecDeque::new(),
        }
    }

    pub(super) fn datagram(&mut self, now: Mono, bytes: BytesMut) {
        let Some((packet, _)) = Packet::parse(&bytes).filter(|(_, socket)| *socket == self.socket) else { return };
        self.link.heard = now;
        match (&packet, &mut self.state) {
            (Packet::Control(Control::Handshake(body)), State::Calling(call)) => {
                let Some(handshake) = Handshake::parse(body) else { return };
                let latency = call.wishes.latency;
                match call.answered(now, &handshake, &self.link) {
                    None => {}
                    Some(Ok(agreed)) => self.open(agreed, latency),
                    Some(Err(end)) => self.close(end),
                }
            }
            (_, State::Calling(_) | State::Closed) | (Packet::Control(Control::Handshake(_)), _) => {}
            (Packet::Control(Control::Shutdown), _) => self.close(PublishEnd::ClosedByPeer),
            (Packet::Control(control), State::Open) => {
                if let Some(sender) = &mut self.sender {
                    sender.control(now, control, &mut self.link, &mut self.outbox);
                }
            }
            // A listener that is published to has no media for us.
            (Packet::Data(_), State::Open) => {}
        }
    }

    fn open(&mut self, agreed: Agreed, asked: Duration) {
        let latency = asked.max(Duration::from_millis(agreed.options.receive_ms.into()));
        self.link.socket = agreed.socket;
        self.group = agreed.group;
        self.sender = Some(Sender::new(agreed.first, latency, agreed.keys, self.renew_after).filtered(agreed.filter));
        self.state = State::Open;
        self.events.push_back(PublishEvent::Connected { latency });
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Mono) {
        let (link, out) = (&mut self.link, &mut self.outbox);
        match &mut self.state {
            State::Calling(call) => {
                if let Err(end) = call.saying.tick(now, link, out) {
                    self.close(end);
                }
                return;
            }
            State::Closed => return,
            State::Open => {
                if let Some(sender) = &mut self.sender {
                    sender.tick(now, link, out);
                }
            }
        }
        if link.is_silent(now) {
            return self.close(PublishEnd::Silent);
        }
        link.keep_alive(now, out);
    }

    /// When `tick` wants to be called at the latest; `None` once closed.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let own = match &self.state {
            State::Calling(call) => return Some(call.saying.deadline()),
            State::Closed => return None,
            State::Open => self.sender.as_ref().and_then(Sender::deadline),
        };
        own.into_iter().chain([self.link.deadline()]).min()
    }

    pub(super) fn poll(&mut self) -> Option<PublishEvent> {
        self.events.pop_front()
    }

    /// Sends one payload; `false`: it was not taken.
    pub(super) fn send(&mut self, now: Mono, payload: &[u8]) -> bool {
        match &mut self.sender {
            Some(sender) if matches!(self.state, State::Open) => {
                sender.send(now, payload, &mut self.link, &mut self.outbox)
            }
            _ => false,
        }
    }

    /// Sends one payload of a group, which has numbered it, made at `made`; `false`: it was not taken.
    pub(super) fn send_numbered(&mut self, now: Mono, made: Mono, (seq, message): (Seq, u32), payload: &[u8]) -> bool {
        let Some(sender) = self.sender.as_mut().filter(|_| matches!(self.state, State::Open)) else { return false };
        if sender.next() != seq {
            sender.go_on(seq, message);
        }
        sender.send_made(now, made, payload, &mut self.link, &mut self.outbox)
    }

    /// Says that we are here, to a listener that is to hear no more media for now.
    pub(super) fn stand_by(&mut self, now: Mono) {
        self.link.send(now, Control::KeepAlive, &mut self.outbox);
    }

    /// When anything came last.
    pub(super) fn heard(&self) -> Mono {
        self.link.heard
    }

    pub(super) fn group(&self) -> Option<u32> {
        self.group
    }

    /// Ends the connection from this side.
    pub(super) fn stop(&mut self, now: Mono) {
        if self.is_connected() {
            self.link.send(now, Control::Shutdown, &mut self.outbox);
        }
        self.close(PublishEnd::Finished);
    }

    fn close(&mut self, why: PublishEnd) {
        if !matches!(self.state, State::Closed) {
            self.state = State::Closed;
            self.events.push_back(PublishEvent::Closed(why));
        }
    }

    /// What went out; `None`: the connection was never open.
    pub(super) fn sender(&self) -> Option<&Sender> {
        self.sender.as_ref()
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, State::Open)
    }
}

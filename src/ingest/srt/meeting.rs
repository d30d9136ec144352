//! A meeting: both sides call each other at once, each from the port that the other calls (rendezvous) [SRT 4.3.2]. The
//! cookies decide who asks and who answers. No socket and no clock.

use std::time::Duration;

use super::call::{Agreed, Request, Saying, Wishes, refused};
use super::filter::Filter;
use super::greeting::{self, Greeting, Rejection};
use super::handshake::{Extensions, Handshake, Kind};
use super::link::Link;
use super::outbox::Outbox;
use super::packet::Control;
use super::seq::Seq;
use crate::ingest::publish::PublishEnd;
use crate::sys::random;
use crate::time::Mono;

/// How long it may take: the other side may come as much later.
pub(super) const MEET_MAX: Duration = Duration::from_secs(30);

pub(super) struct Meeting {
    pub(super) wishes: Wishes,
    pub(super) socket: u32,
    first: Seq,
    cookie: u32,
    pub(super) saying: Saying,
    role: Option<Role>,
}

enum Role {
    /// Asks, with keys of its own.
    Asks(Request),
    Answers,
}

/// What both sides agreed on, and what is said to a peer that does not know it yet.
pub(super) struct Met {
    pub(super) agreed: Agreed,
    pub(super) answer: Vec<u8>,
}

impl Meeting {
    /// With the peer behind `link`. The first wave goes out with the first `tick`.
    pub(super) fn new(now: Mono, wishes: Wishes, socket: u32, link: &Link) -> Meeting {
        let first = Seq::new(random::bits() as u32);
        let mut meeting = Meeting {
            wishes,
            socket,
            first,
            cookie: random::bits() as u32 | 1,
            saying: Saying::new(now, MEET_MAX),
            role: None,
        };
        meeting.say(now, Kind::WaveAHand, Extensions::default(), link);
        meeting
    }

    /// A handshake came. `None`: the meeting goes on.
    pub(super) fn heard(
        &mut self,
        now: Mono,
        handshake: &Handshake<'_>,
        link: &mut Link,
        out: &mut Outbox,
    ) -> Option<Result<Met, PublishEnd>> {
        if let Kind::Rejection(code) = handshake.kind {
            return Some(Err(refused(code)));
        }
        if handshake.version < 5 {
            return Some(Err(PublishEnd::Unsupported));
        }
        if !matches!(handshake.kind, Kind::WaveAHand | Kind::Conclusion) {
            return None;
        }
        link.socket = handshake.socket;
        if self.role.is_none() {
            self.contest(now, handshake.cookie, link);
        }
        if handshake.kind == Kind::WaveAHand || handshake.extensions.options.is_none() {
            return None;
        }
        let met = match &self.role {
            None => return None,
            Some(Role::Asks(_)) => self.answered(handshake, link),
            Some(Role::Answers) => self.asked(now, handshake, link, out),
        };
        if let Ok(met) = &met {
            link.send(now, Control::Handshake(&met.answer), out);
        }
        Some(met)
    }

    /// The greater cookie asks; of two that are alike, ours is made anew.
    fn contest(&mut self, now: Mono, theirs: u32, link: &Link) {
        let lead = self.cookie.wrapping_sub(theirs);
        if lead == 0 {
            self.cookie = random::bits() as u32 | 1;
            return self.say(now, Kind::WaveAHand, Extensions::default(), link);
        }
        if lead >> 31 == 1 {
            self.role = Some(Role::Answers);
            return self.say(now, Kind::Conclusion, Extensions::default(), link);
        }
        let request = Request::new(&self.wishes);
        self.say(now, Kind::Conclusion, request.extensions(&self.wishes), link);
        self.role = Some(Role::Asks(request));
    }

    fn say(&mut self, now: Mono, kind: Kind, extensions: Extensions<'_>, link: &Link) {
        let new = Handshake::new(kind, self.socket, self.cookie, self.first, link.peer.ip());
        self.saying.say(now, &new.wishing(&self.wishes, extensions));
    }

    /// They answered what we asked.
    fn answered(&mut self, handshake: &Handshake<'_>, link: &Link) -> Result<Met, PublishEnd> {
        let Some(Role::Asks(request)) = &mut self.role else { return Err(PublishEnd::Unsupported) };
        let agreed = request.answered(&self.wishes, handshake, self.first)?;
        let mut answer = Vec::new();
        let new = Handshake::new(Kind::Agreement, self.socket, self.cookie, self.first, link.peer.ip());
        Handshake { flow_window: self.wishes.window, ..new }.write(&mut answer, false);
        Ok(Met { agreed, answer })
    }

    /// They ask: it is on us to say yes or no.
    fn asked(
        &mut self,
        now: Mono,
        handshake: &Handshake<'_>,
        link: &mut Link,
        out: &mut Outbox,
    ) -> Result<Met, PublishEnd> {
        let passphrase = self.wishes.secret.as_ref().map(|(passphrase, _)| passphrase);
        let judged = Greeting::read(handshake).and_then(|greeting| {
            let latency = greeting.latency(self.wishes.latency);
            // Members of a group call a listener.
            greeting.group.map_or(Ok(()), |_| Err(Rejection::Group))?;
            let keys = greeting.agree(passphrase)?;
            let mut answer = greeting.answer(handshake, self.socket, latency, self.wishes.window, link.peer.ip());
            // Whoever asks has no say in who wishes for a filter.
            let filter = match self.wishes.filter.as_str() {
                ours if greeting.filter.is_none() && !ours.is_empty() => {
                    answer.extensions.filter = ours.into();
                    answer.extension = answer.extensions.brought();
                    Some(Filter::parse(ours).ok_or(Rejection::Filter)?)
                }
                _ => greeting.filter,
            };
            Ok((answer, keys, filter))
        });
        let mut answer = Vec::new();
        match (judged, handshake.extensions.options) {
            (Ok((yes, keys, filter)), Some(options)) => {
                Handshake { cookie: self.cookie, first: self.first, ..yes }.write(&mut answer, true);
                let (socket, first, peer_first) = (handshake.socket, self.first, handshake.first);
                Ok(Met { agreed: Agreed { socket, options, keys, first, peer_first, filter, group: None }, answer })
            }
            (Ok(_), None) => Err(PublishEnd::Unsupported),
            (Err(rejection), _) => {
                let no = greeting::rejection(handshake, rejection.code(), link.peer.ip());
                Handshake { socket: self.socket, cookie: self.cookie, ..no }.write(&mut answer, true);
                link.send(now, Control::Handshake(&answer), out);
                Err(PublishEnd::Refused(rejection.code()))
            }
        }
    }
}

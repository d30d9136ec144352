//! A call: the handshake of the side that begins, until it is answered [SRT 4.3.1]. No socket and no clock.

use std::time::Duration;

use super::crypto::{KeyLength, Keys};
use super::filter::Filter;
use super::greeting::{Rejection, SOCKET_MASK};
use super::group::Membership;
use super::handshake::{Extensions, Handshake, Kind, MAGIC, Options, VERSION, flags};
use super::link::Link;
use super::outbox::Outbox;
use super::packet::{Control, Key};
use super::seq::Seq;
use crate::ingest::publish::PublishEnd;
use crate::media::key::Passphrase;
use crate::sys::random;
use crate::time::Mono;

/// Between two tries of a handshake's step [SRT 4.3.1].
const STEP_EVERY: Duration = Duration::from_millis(250);
/// A listener that has not answered by then is not there.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Packets that a side holds unless it says otherwise.
pub(super) const WINDOW: u32 = 8_192;

/// What a caller asks for.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    pub(super) stream_id: String,
    /// Of both directions.
    pub(super) latency: Duration,
    pub(super) secret: Option<(Passphrase, KeyLength)>,
    /// The packet filter; empty: the other side's, if it has one.
    pub(super) filter: String,
    /// Packets that we have room for.
    pub(super) window: u32,
    /// The group that it is a connection of.
    pub(super) joins: Option<Joins>,
}

/// One more connection of a group of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joins {
    pub(super) membership: Membership,
    /// The group's next packet.
    pub(super) first: Seq,
    /// Where the time stamps of all its connections are zero.
    pub(super) began: Mono,
}

impl<'a> Handshake<'a> {
    /// The same with what is wished for.
    pub(super) fn wishing(self, wishes: &Wishes, extensions: Extensions<'a>) -> Handshake<'a> {
        let encryption = wishes.secret.as_ref().map_or(0, |(_, length)| (length.bytes() / 8) as u16);
        let (extension, flow_window) = (extensions.brought(), wishes.window);
        Handshake { extension, extensions, encryption, flow_window, ..self }
    }
}

impl Wishes {
    /// The filter of both, of which the other side said this in its answer.
    ///
    /// # Errors
    /// It has none and one was asked for, or one that is not known.
    fn agree_on_filter(&self, answered: &[u8]) -> Result<Option<Filter>, PublishEnd> {
        let found = match (self.filter.as_str(), std::str::from_utf8(answered).unwrap_or_default()) {
            ("", "") => return Ok(None),
            ("", theirs) => Filter::parse(theirs),
            (ours, theirs) => Filter::merged(ours, theirs),
        };
        found.map(Some).ok_or(PublishEnd::Refused(Rejection::Filter.code()))
    }
}

/// What both sides agreed on.
pub(super) struct Agreed {
    /// The listener's socket.
    pub(super) socket: u32,
    pub(super) options: Options,
    /// Of both directions until one of them renews its own.
    pub(super) keys: Option<Keys>,
    /// The number of our first packet, and of the listener's.
    pub(super) first: Seq,
    pub(super) peer_first: Seq,
    /// What rebuilds packets that are lost.
    pub(super) filter: Option<Filter>,
    /// The listener's number of the group that we are in.
    pub(super) group: Option<u32>,
}

/// What the side that asks says of itself, and what it makes of the answer.
pub(super) struct Request {
    keys: Option<Keys>,
    /// Tells of them; empty without.
    message: Vec<u8>,
}

impl Request {
    pub(super) fn new(wishes: &Wishes) -> Request {
        let keys = wishes.secret.as_ref().map(|(passphrase, length)| Keys::make(passphrase, *length));
        let message = keys.as_ref().map_or_else(Vec::new, |keys| keys.message(&[Key::Even]));
        Request { keys, message }
    }

    pub(super) fn extensions(&self, wishes: &Wishes) -> Extensions<'_> {
        let ms = u16::try_from(wishes.latency.as_millis()).unwrap_or(u16::MAX);
        Extensions {
            options: Some(Options { version: VERSION, flags: flags::LIVE, receive_ms: ms, send_ms: ms }),
            keys: Some(self.message.as_slice()).filter(|message| !message.is_empty()),
            stream_id: wishes.stream_id.clone().into_bytes(),
            filter: wishes.filter.clone().into_bytes(),
            group: wishes.joins.map(|joins| joins.membership),
            ..Extensions::default()
        }
    }

    /// `first`: the number of our first packet.
    ///
    /// # Errors
    /// Why the answer is no use.
    pub(super) fn answered(
        &mut self,
        wishes: &Wishes,
        answer: &Handshake<'_>,
        first: Seq,
    ) -> Result<Agreed, PublishEnd> {
        let options = answer.extensions.options.ok_or(PublishEnd::Unsupported)?;
        // The other side repeats our keys if it could read them.
        if self.keys.is_some() && answer.extensions.keys != Some(self.message.as_slice()) {
            return Err(PublishEnd::Crypto);
        }
        let filter = wishes.agree_on_filter(&answer.extensions.filter)?;
        let group = answer.extensions.group.map(|theirs| theirs.group).filter(|_| wishes.joins.is_some());
        // Who does not say a group back would take each connection for a publisher; a filter counts from its first packet.
        match wishes.joins {
            Some(_) if group.is_none() => return Err(PublishEnd::Refused(Rejection::Group.code())),
            Some(_) if filter.is_some() => return Err(PublishEnd::Refused(Rejection::Filter.code())),
            _ => {}
        }
        let (socket, peer_first, keys) = (answer.socket, answer.first, self.keys.take());
        Ok(Agreed { socket, options, keys, first, peer_first, filter, group })
    }
}

/// The other side said no.
pub(super) fn refused(code: u32) -> PublishEnd {
    PublishEnd::Refused(u16::try_from(code.saturating_sub(1_000)).unwrap_or(u16::MAX))
}

/// A handshake that is said until it is answered or its time is up.
pub(super) struct Saying {
    body: Vec<u8>,
    again: Mono,
    until: Mono,
}

impl Saying {
    pub(super) fn new(now: Mono, patience: Duration) -> Saying {
        Saying { body: Vec::new(), again: now, until: now + patience }
    }

    /// This from now on, at once for the first time.
    pub(super) fn say(&mut self, now: Mono, handshake: &Handshake<'_>) {
        self.body.clear();
        handshake.write(&mut self.body, false);
        self.again = now;
    }

    /// Says again what was not answered.
    ///
    /// # Errors
    /// Nobody answered in time.
    pub(super) fn tick(&mut self, now: Mono, link: &mut Link, out: &mut Outbox) -> Result<(), PublishEnd> {
        if self.until <= now {
            return Err(PublishEnd::NoAnswer { unreachable: false });
        }
        if self.again <= now {
            self.again = now + STEP_EVERY;
            link.send(now, Control::Handshake(&self.body), out);
        }
        Ok(())
    }

    /// When `tick` wants to be called.
    pub(super) fn deadline(&self) -> Mono {
        self.again.min(self.until)
    }
}

/// A number for a socket of a call: odd, so that no listener has it.
pub(super) fn random_socket() -> u32 {
    random::bits() as u32 & SOCKET_MASK | 1
}

pub(super) struct Call {
    pub(super) wishes: Wishes,
    pub(super) socket: u32,
    first: Seq,
    pub(super) saying: Saying,
    cookie: Option<u32>,
    request: Request,
}

impl Call {
    /// To the listener behind `link`. Its first words go out with the first `tick`.
    pub(super) fn new(now: Mono, wishes: Wishes, socket: u32, patience: Duration, link: &Link) -> Call {
        let first = wishes.joins.map_or_else(|| Seq::new(random::bits() as u32), |joins| joins.first);
        let (request, mut saying) = (Request::new(&wishes), Saying::new(now, patience));
        let new = Handshake::induction(socket, first, link.peer.ip());
        saying.say(now, &Handshake { flow_window: wishes.window, ..new });
        Call { wishes, socket, first, saying, cookie: None, request }
    }

    /// A handshake came. `None`: the call goes on.
    pub(super) fn answered(
        &mut self,
        now: Mono,
        handshake: &Handshake<'_>,
        link: &Link,
    ) -> Option<Result<Agreed, PublishEnd>> {
        match handshake.kind {
            Kind::Rejection(code) => Some(Err(refused(code))),
            Kind::Induction if self.cookie.is_none() => {
                if handshake.version < 5 || handshake.extension != MAGIC {
                    return Some(Err(PublishEnd::Unsupported));
                }
                self.conclude(now, handshake.cookie, link);
                None
            }
            Kind::Conclusion if self.cookie.is_some() => {
                Some(self.request.answered(&self.wishes, handshake, self.first))
            }
            _ => None,
        }
    }

    fn conclude(&mut self, now: Mono, baked: u32, link: &Link) {
        let new = Handshake::new(Kind::Conclusion, self.socket, baked, self.first, link.peer.ip());
        self.saying.say(now, &new.wishing(&self.wishes, self.request.extensions(&self.wishes)));
        self.cookie = Some(baked);
    }
}

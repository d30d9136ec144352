//! A caller's conclusion, judged: what a live publisher may want, what it gets, and libsrt's words for no [SRT 4.3.1.2].

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::crypto::{KeyError, Keys};
use super::filter::Filter;
use super::group::{GROUP_BIT, Membership};
use super::handshake::{Extensions, Handshake, Kind, Options, VERSION, brings, flags};
use crate::media::key::Passphrase;

/// Socket numbers have 30 bits: libsrt keeps the highest for groups.
pub(super) const SOCKET_MASK: u32 = 0x3fff_ffff;
/// The first libsrt that speaks version 5 of the handshake.
const OLDEST: u32 = 0x01_03_00;
/// The smallest packet that a path of IPv4 must carry.
const MTU_MIN: u32 = 76;

/// Why the SRT layer says no, before or beside what `Refusal` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    Malformed,
    OldVersion,
    WrongPassphrase,
    WantsKey,
    WantsNoKey,
    UnknownCipher,
    StreamMode,
    Congestion,
    Filter,
    Group,
}

impl Rejection {
    /// libsrt's reason (`SRT_REJ_…`).
    pub(super) fn code(self) -> u16 {
        match self {
            Rejection::Malformed => 4,
            Rejection::OldVersion => 8,
            Rejection::WrongPassphrase => 10,
            Rejection::WantsKey | Rejection::WantsNoKey => 11,
            Rejection::StreamMode => 12,
            Rejection::Congestion => 13,
            Rejection::Filter => 14,
            Rejection::Group => 15,
            Rejection::UnknownCipher => 17,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rejection::Malformed => "the handshake is malformed or not that of a live sender",
            Rejection::OldVersion => "handshake version 4 (libsrt before 1.3) is not supported",
            Rejection::WrongPassphrase => "the passphrase is not the one of this channel",
            Rejection::WantsKey => "this channel wants a passphrase and the caller has none",
            Rejection::WantsNoKey => "the caller has a passphrase and this channel wants none",
            Rejection::UnknownCipher => "only AES-CTR is supported: set the caller's crypto mode to 1 (AES-CTR)",
            Rejection::StreamMode => "stream mode is not supported: use the live transmission type",
            Rejection::Congestion => "only the congestion control \"live\" is supported",
            Rejection::Filter => {
                "no such packet filter: \"fec,cols:10,rows:5\" is one, with cols from 2 on, rows from 1 on or up to -2, \
                 1024 packets in all, layout:even or staircase, arq:always, onreq or never"
            }
            Rejection::Group => "a connection group (bonding) is of type broadcast or backup and has up to 8 members",
        })
    }
}

/// What a conclusion asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting<'a> {
    /// The caller's libsrt.
    pub(super) version: u32,
    /// Ours too: its own word stands, as we have none.
    pub(super) filter: Option<Filter>,
    /// The group that the caller is in.
    pub(super) group: Option<Membership>,
    keys: Option<&'a [u8]>,
    latency: Duration,
}

impl<'a> Greeting<'a> {
    /// # Errors
    /// What about it cannot be had.
    pub(super) fn read(handshake: &Handshake<'a>) -> Result<Greeting<'a>, Rejection> {
        let extensions = &handshake.extensions;
        if handshake.version != 5 {
            return Err(Rejection::OldVersion);
        }
        let options = extensions.options.ok_or(Rejection::Malformed)?;
        if handshake.extension & brings::OPTIONS == 0 || handshake.mtu < MTU_MIN || handshake.socket == 0 {
            return Err(Rejection::Malformed);
        }
        if options.version < OLDEST {
            return Err(Rejection::OldVersion);
        }
        if options.flags & flags::STREAM != 0 {
            return Err(Rejection::StreamMode);
        }
        if !matches!(extensions.congestion.as_slice(), b"" | b"live") {
            return Err(Rejection::Congestion);
        }
        let filter = match extensions.filter.as_slice() {
            [] => None,
            text => {
                let text = std::str::from_utf8(text).map_err(|_| Rejection::Filter)?;
                Some(Filter::parse(text).ok_or(Rejection::Filter)?)
            }
        };
        if let Some(member) = extensions.group {
            if member.group & GROUP_BIT == 0 {
                return Err(Rejection::Malformed);
            }
            if !member.is_known() {
                return Err(Rejection::Group);
            }
        }
        let latency = Duration::from_millis(options.send_ms.into());
        let (group, keys) = (extensions.group, extensions.keys);
        Ok(Greeting { version: options.version, filter, group, keys, latency })
    }

    /// The larger of both sides' wishes.
    pub(super) fn latency(&self, ours: Duration) -> Duration {
        self.latency.max(ours)
    }

    /// # Errors
    /// The two sides do not agree on encryption.
    pub(super) fn agree(&self, passphrase: Option<&Passphrase>) -> Result<Option<Keys>, Rejection> {
        match (passphrase, self.keys) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(Rejection::WantsKey),
            (None, Some(_)) => Err(Rejection::WantsNoKey),
            (Some(passphrase), Some(message)) => {
                Keys::read(passphrase, message).map(Some).map_err(|error| match error {
                    KeyError::WrongPassphrase => Rejection::WrongPassphrase,
                    KeyError::UnknownCipher => Rejection::UnknownCipher,
                    KeyError::Malformed => Rejection::Malformed,
                })
            }
        }
    }

    /// Our side of the agreement: we are `socket` and hold `window` packets. A `group` must be ours by now.
    pub(super) fn answer(
        &self,
        asked: &Handshake<'a>,
        socket: u32,
        latency: Duration,
        window: u32,
        peer: IpAddr,
    ) -> Handshake<'a> {
        let ms = u16::try_from(latency.as_millis()).unwrap_or(u16::MAX);
        let options = Options { version: VERSION, flags: flags::LIVE, receive_ms: ms, send_ms: ms };
        // Its own words come back to it: it compares the keys, and its filter and numbers are the connection's.
        let filter = asked.extensions.filter.clone();
        let (keys, group) = (self.keys, self.group);
        let extensions = Extensions { options: Some(options), keys, filter, group, ..Extensions::default() };
        let new = Handshake::new(Kind::Conclusion, socket, asked.cookie, asked.first, peer);
        Handshake {
            extension: extensions.brought(),
            extensions,
            mtu: asked.mtu.min(new.mtu),
            flow_window: window,
            encryption: asked.encryption,
            ..new
        }
    }
}

/// A no to `asked`. `code`: libsrt's, which travels with 1000 added.
pub(super) fn rejection<'a>(asked: &Handshake<'_>, code: u16, peer: IpAddr) -> Handshake<'a> {
    Handshake::new(Kind::Rejection(1_000 + u32::from(code)), asked.socket, asked.cookie, asked.first, peer)
}

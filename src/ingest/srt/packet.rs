//! Packets on the wire: headers and the bodies of control packets [SRT 3]. Handshakes and keys have files of their own.
//!
//! Reading borrows from the datagram, writing appends to a buffer; neither allocates.

use super::seq::Seq;

/// In front of every packet, bytes.
pub(super) const HEADER: usize = 16;
/// The longest packet: what an Ethernet frame leaves beside the headers of IPv4 and UDP.
pub(super) const PACKET_MAX: usize = 1_472;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// Its payload follows the header.
    Data(Data),
    Control(Control<'a>),
}

/// What lies in front of media [SRT 3.1].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) seq: Seq,
    pub(super) key: Key,
    pub(super) retransmitted: bool,
    /// 26 bits; 0 is a packet filter's own packet.
    pub(super) message: u32,
    /// Of the sender's clock since the connection began, microseconds; wraps after 71 minutes.
    pub(super) timestamp: u32,
}

/// Which key the payload is under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Key {
    #[default]
    Clear,
    Even,
    Odd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control<'a> {
    /// Its body: see `handshake`.
    Handshake(&'a [u8]),
    KeepAlive,
    Ack(Ack),
    Nak(Losses<'a>),
    Shutdown,
    /// Confirms the full acknowledgement of that number.
    AckAck(u32),
    /// The sender gave these packets up, first to last.
    DropRequest {
        first: Seq,
        last: Seq,
    },
    /// New keys, wrapped: see `crypto`.
    KeyRequest(&'a [u8]),
    KeyResponse(&'a [u8]),
    /// Of no consequence: congestion warnings, errors of a peer and what is not defined.
    Other,
}

/// An acknowledgement [SRT 3.2.4]: everything before `next` is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ack {
    /// 0: a light one, which nobody confirms.
    pub(super) number: u32,
    pub(super) next: Seq,
    pub(super) facts: Option<Facts>,
}

/// What a full acknowledgement tells the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) rtt_us: u32,
    pub(super) rtt_variance_us: u32,
    /// Packets that the receiver still has room for.
    pub(super) room: u32,
    pub(super) packets_per_second: u32,
    pub(super) bytes_per_second: u32,
}

/// The body of a loss report: numbers and ranges of numbers [SRT 3.2.5, Appendix A].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Losses<'a>(&'a [u8]);

impl Iterator for Losses<'_> {
    type Item = (Seq, Seq);

    /// First and last of the next range. A range without an end, or with its end before its start, is left out.
    fn next(&mut self) -> Option<(Seq, Seq)> {
        loop {
            let first = word(self.0, 0)?;
            self.0 = &self.0[4..];
            if first & RANGE == 0 {
                return Some((Seq::new(first), Seq::new(first)));
            }
            let last = word(self.0, 0)?;
            self.0 = &self.0[4..];
            let (first, last) = (Seq::new(first), Seq::new(last));
            if last.since(first) >= 0 {
                return Some((first, last));
            }
        }
    }
}

/// In front of the first number of a range.
const RANGE: u32 = 1 << 31;

mod kind {
    pub(super) const HANDSHAKE: u16 = 0;
    pub(super) const KEEP_ALIVE: u16 = 1;
    pub(super) const ACK: u16 = 2;
    pub(super) const NAK: u16 = 3;
    pub(super) const SHUTDOWN: u16 = 5;
    pub(super) const ACK_ACK: u16 = 6;
    pub(super) const DROP_REQUEST: u16 = 7;
    pub(super) const USER: u16 = 0x7fff;
}

/// Subtypes of a user-defined packet: as the extensions of a handshake that carry the same.
const KEY_REQUEST: u16 = 3;
const KEY_RESPONSE: u16 = 4;

impl<'a> Packet<'a> {
    /// The packet and the socket it is for; `None` for what is none.
    pub(super) fn parse(datagram: &'a [u8]) -> Option<(Packet<'a>, u32)> {
        if datagram.len() > PACKET_MAX {
            return None;
        }
        let (body, head) = (datagram.get(HEADER..)?, word(datagram, 0)?);
        let (info, timestamp, destination) = (word(datagram, 4)?, word(datagram, 8)?, word(datagram, 12)?);
        if head & RANGE != 0 {
            let (kind, subtype) = ((head >> 16) as u16 & 0x7fff, head as u16);
            return Some((Packet::Control(Control::parse(kind, subtype, info, body)?), destination));
        }
        let key = match info >> 27 & 3 {
            0 => Key::Clear,
            1 => Key::Even,
            2 => Key::Odd,
            _ => return None,
        };
        let retransmitted = info >> 26 & 1 == 1;
        let data = Data { seq: Seq::new(head), key, retransmitted, message: info & MESSAGE, timestamp };
        (!body.is_empty()).then_some((Packet::Data(data), destination))
    }
}

/// The time stamp of a packet, which control packets have too.
pub(super) fn timestamp(packet: &[u8]) -> u32 {
    word(packet, 8).unwrap_or(0)
}

/// The bits of a message number.
pub(super) const MESSAGE: u32 = (1 << 26) - 1;

impl<'a> Control<'a> {
    fn parse(kind: u16, subtype: u16, info: u32, body: &'a [u8]) -> Option<Control<'a>> {
        Some(match (kind, subtype) {
            (kind::HANDSHAKE, _) => Control::Handshake(body),
            (kind::KEEP_ALIVE, _) => Control::KeepAlive,
            (kind::ACK, _) => Control::Ack(Ack::parse(info, body)?),
            (kind::NAK, _) => Control::Nak(Losses(body)),
            (kind::SHUTDOWN, _) => Control::Shutdown,
            (kind::ACK_ACK, _) => Control::AckAck(info),
            (kind::DROP_REQUEST, _) => {
                let (first, last) = (Seq::new(word(body, 0)?), Seq::new(word(body, 4)?));
                if last.since(first) < 0 {
                    return None;
                }
                Control::DropRequest { first, last }
            }
            (kind::USER, KEY_REQUEST) => Control::KeyRequest(body),
            (kind::USER, KEY_RESPONSE) => Control::KeyResponse(body),
            _ => Control::Other,
        })
    }

    /// Appends it as a packet for `destination`. Losses are written by `write_nak`.
    pub(super) fn write(&self, out: &mut Vec<u8>, timestamp: u32, destination: u32) {
        let mut head = |kind: u16, subtype: u16, info: u32| {
            words(out, [RANGE | u32::from(kind) << 16 | u32::from(subtype), info, timestamp, destination]);
        };
        match *self {
            Control::Handshake(body) => {
                head(kind::HANDSHAKE, 0, 0);
                out.extend_from_slice(body);
            }
            Control::KeepAlive => {
                head(kind::KEEP_ALIVE, 0, 0);
                words(out, [0]);
            }
            Control::Ack(Ack { number, next, facts }) => {
                head(kind::ACK, 0, number);
                words(out, [next.number()]);
                if let Some(f) = facts {
                    let link = f.packets_per_second;
                    words(out, [f.rtt_us, f.rtt_variance_us, f.room, f.packets_per_second, link, f.bytes_per_second]);
                }
            }
            Control::Nak(Losses(body)) => {
                head(kind::NAK, 0, 0);
                out.extend_from_slice(body);
            }
            Control::Shutdown => {
                head(kind::SHUTDOWN, 0, 0);
                words(out, [0]);
            }
            Control::AckAck(number) => {
                head(kind::ACK_ACK, 0, number);
                words(out, [0]);
            }
            Control::DropRequest { first, last } => {
                head(kind::DROP_REQUEST, 0, 0);
                words(out, [first.number(), last.number()]);
            }
            Control::KeyRequest(body) => {
                head(kind::USER, KEY_REQUEST, 0);
                out.extend_from_slice(body);
            }
            Control::KeyResponse(body) => {
                head(kind::USER, KEY_RESPONSE, 0);
                out.extend_from_slice(body);
            }
            Control::Other => {}
        }
    }
}

/// Ranges that one loss report has room for.
pub(super) const RANGES_MAX: usize = (PACKET_MAX - HEADER) / 8;

/// Appends a loss report of `ranges`, first to last each; the first `RANGES_MAX` of them.
pub(super) fn write_nak(
    out: &mut Vec<u8>,
    timestamp: u32,
    destination: u32,
    ranges: impl IntoIterator<Item = (Seq, Seq)>,
) {
    words(out, [RANGE | u32::from(kind::NAK) << 16, 0, timestamp, destination]);
    for (first, last) in ranges.into_iter().take(RANGES_MAX) {
        if first == last {
            words(out, [first.number()]);
        } else {
            words(out, [first.number() | RANGE, last.number()]);
        }
    }
}

impl Data {
    /// Appends the header of a packet that is a message of its own.
    pub(super) fn write(&self, out: &mut Vec<u8>, destination: u32) {
        let key = match self.key {
            Key::Clear => 0,
            Key::Even => 1,
            Key::Odd => 2,
        };
        let info = WHOLE | key << 27 | u32::from(self.retransmitted) << 26 | self.message & MESSAGE;
        words(out, [self.seq.number(), info, self.timestamp, destination]);
    }
}

/// First and last packet of its message.
const WHOLE: u32 = 3 << 30;

impl Ack {
    fn parse(number: u32, body: &[u8]) -> Option<Ack> {
        let at = |index: usize| word(body, index * 4);
        let facts = at(3).map(|room| Facts {
            rtt_us: at(1).unwrap_or(0),
            rtt_variance_us: at(2).unwrap_or(0),
            room,
            packets_per_second: at(4).unwrap_or(0),
            bytes_per_second: at(6).unwrap_or(0),
        });
        Some(Ack { number, next: Seq::new(at(0)?), facts })
    }
}

/// The big-endian word at byte `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
}

pub(super) fn words<const N: usize>(out: &mut Vec<u8>, words: [u32; N]) {
    words.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(control: Control<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        control.write(&mut out, 7, 99);
        out
    }

    #[test]
    fn every_control_packet_reads_as_it_was_written() {
        let facts = Facts { rtt_us: 1, rtt_variance_us: 2, room: 3, packets_per_second: 4, bytes_per_second: 6 };
        for control in [
            Control::Handshake(&[1; 48]),
            Control::KeepAlive,
            Control::Ack(Ack { number: 5, next: Seq::new(77), facts: Some(facts) }),
            Control::Ack(Ack { number: 0, next: Seq::new(77), facts: None }),
            Control::Shutdown,
            Control::AckAck(12),
            Control::DropRequest { first: Seq::new(3), last: Seq::new(9) },
            Control::KeyRequest(&[2; 44]),
            Control::KeyResponse(&[3; 4]),
        ] {
            assert_eq!(Packet::parse(&written(control)), Some((Packet::Control(control), 99)));
        }
    }

    #[test]
    fn data_reads_as_it_was_written() {
        for key in [Key::Clear, Key::Even, Key::Odd] {
            let data = Data { seq: Seq::new(1 << 30), key, retransmitted: true, message: 5, timestamp: u32::MAX };
            let mut out = Vec::new();
            data.write(&mut out, 3);
            assert_eq!(Packet::parse(&out), None, "a packet without payload carries nothing");
            out.push(0x47);
            assert_eq!(Packet::parse(&out), Some((Packet::Data(data), 3)));
        }
    }

    #[test]
    fn losses_are_numbers_and_ranges_and_reversed_ranges_are_left_out() {
        let mut out = Vec::new();
        let (a, b) = ((Seq::new(0x7fff_fffe), Seq::new(3)), (Seq::new(9), Seq::new(9)));
        write_nak(&mut out, 0, 1, [a, b]);
        words(&mut out, [RANGE | 50, 40, 60, RANGE | 70]);
        let Some((Packet::Control(Control::Nak(losses)), 1)) = Packet::parse(&out) else { panic!("{out:?}") };
        assert_eq!(losses.collect::<Vec<_>>(), [a, b, (Seq::new(60), Seq::new(60))]);
        write_nak(&mut out, 0, 1, std::iter::repeat_n(a, 1_000));
        out.clear();
        write_nak(&mut out, 0, 1, std::iter::repeat_n(a, 1_000));
        assert!(out.len() <= PACKET_MAX, "{}", out.len());
    }

    #[test]
    fn reversed_drop_requests_and_both_keys_at_once_are_no_packets() {
        let reversed = written(Control::DropRequest { first: Seq::new(9), last: Seq::new(3) });
        assert_eq!(Packet::parse(&reversed), None);
        let both = [0, 0, 0, 1, 0xd8 | 0x18, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x47];
        assert_eq!(Packet::parse(&both), None);
        assert_eq!(Packet::parse(&[0; 15]), None);
        assert_eq!(Packet::parse(&[0; PACKET_MAX + 1]), None);
    }
}

//! SRT as a peer writes and reads it, from the draft [SRT 3] and not with the code under test.

/// Numbers of packets have so many bits.
pub(crate) const NUMBER: u32 = 0x7FFF_FFFF;

pub(crate) mod kind {
    pub(crate) const HANDSHAKE: u16 = 0;
    pub(crate) const ACK: u16 = 2;
    pub(crate) const NAK: u16 = 3;
    pub(crate) const ACK_ACK: u16 = 6;
    pub(crate) const DROP_REQUEST: u16 = 7;
    pub(crate) const USER: u16 = 0x7FFF;
}

/// Kinds of a handshake.
pub(crate) const INDUCTION: u32 = 1;
pub(crate) const CONCLUSION: u32 = u32::MAX;

/// The big-endian word number `index`; 0 where there is none.
pub(crate) fn word(bytes: &[u8], index: usize) -> u32 {
    bytes.get(index * 4..index * 4 + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The kind of a control packet; `None` for media.
pub(crate) fn control_kind(packet: &[u8]) -> Option<u16> {
    let head = word(packet, 0);
    (head >> 31 == 1).then_some((head >> 16) as u16 & 0x7FFF)
}

pub(crate) fn control(kind: u16, subtype: u16, info: u32, socket: u32, body: &[u8]) -> Vec<u8> {
    let head = 1 << 31 | u32::from(kind) << 16 | u32::from(subtype);
    [words(&[head, info, 1_000, socket]), body.to_vec()].concat()
}

/// `info`: what is said beside the number: order, key, retransmission, message.
pub(crate) fn data(number: u32, info: u32, timestamp: u32, socket: u32, payload: &[u8]) -> Vec<u8> {
    [words(&[number & NUMBER, info, timestamp, socket]), payload.to_vec()].concat()
}

/// A packet that is a message of its own, in clear.
pub(crate) const WHOLE: u32 = 3 << 30;
/// It was sent before.
pub(crate) const RETRANSMITTED: u32 = 1 << 26;

/// The ranges of a loss report's body.
pub(crate) fn ranges(body: &[u8]) -> Vec<(u32, u32)> {
    let mut words = body.as_chunks::<4>().0.iter().map(|four| u32::from_be_bytes(*four));
    let mut ranges = Vec::new();
    while let Some(first) = words.next() {
        if first >> 31 == 0 {
            ranges.push((first, first));
            continue;
        }
        let Some(last) = words.next() else { break };
        let (first, last) = (first & NUMBER, last & NUMBER);
        if ahead(last, first) >= 0 {
            ranges.push((first, last));
        }
    }
    ranges
}

/// By how many packets `number` is ahead of `other`, the shorter way around.
pub(crate) fn ahead(number: u32, other: u32) -> i64 {
    let forward = i64::from(number.wrapping_sub(other) & NUMBER);
    if forward < 1 << 30 { forward } else { forward - (1 << 31) }
}

/// What a caller says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hello<'a> {
    pub(crate) version: u32,
    /// Key length and extensions.
    pub(crate) fields: u32,
    pub(crate) first: u32,
    pub(crate) kind: u32,
    pub(crate) socket: u32,
    pub(crate) cookie: u32,
    /// libsrt's version, its flags and both latencies.
    pub(crate) options: Option<[u32; 3]>,
    pub(crate) keys: &'a [u8],
    pub(crate) stream_id: &'a [u8],
}

/// libsrt 1.5.1, everything that is usual, 120 ms.
pub(crate) const USUAL: [u32; 3] = [0x0001_0501, 0xBF, 120 << 16 | 120];

impl<'a> Hello<'a> {
    pub(crate) fn induction(socket: u32) -> Hello<'a> {
        let (version, kind) = (4, INDUCTION);
        Hello { version, fields: 2, first: 1, kind, socket, cookie: 0, options: None, keys: &[], stream_id: &[] }
    }

    pub(crate) fn conclusion(socket: u32, cookie: u32, stream_id: &'a [u8]) -> Hello<'a> {
        let (version, kind, options) = (5, CONCLUSION, Some(USUAL));
        Hello { version, fields: 5, first: 1, kind, socket, cookie, options, keys: &[], stream_id }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = words(&[self.version, self.fields, self.first, 1_500, 8_192, self.kind, self.socket]);
        body.extend(words(&[self.cookie, 0x0100_007F, 0, 0, 0]));
        if let Some([version, flags, latency]) = self.options {
            body.extend(words(&[1 << 16 | 3, version, flags, latency]));
        }
        if !self.keys.is_empty() {
            body.extend(words(&[3 << 16 | (self.keys.len() / 4) as u32]));
            body.extend_from_slice(self.keys);
        }
        if !self.stream_id.is_empty() {
            body.extend(words(&[5 << 16 | self.stream_id.len().div_ceil(4) as u32]));
            body.extend(swapped(self.stream_id));
        }
        body
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        control(kind::HANDSHAKE, 0, 0, 0, &self.body())
    }
}

/// Text in words of the other byte order.
pub(crate) fn swapped(text: &[u8]) -> Vec<u8> {
    let mut padded = text.to_vec();
    padded.resize(text.len().next_multiple_of(4), 0);
    padded.chunks_mut(4).for_each(<[u8]>::reverse);
    padded
}

/// The extensions behind a handshake's fixed part, as far as they are whole: kind and body.
pub(crate) fn extensions(body: &[u8]) -> Vec<(u16, &[u8])> {
    let (mut rest, mut found) = (body.get(48..).unwrap_or(&[]), Vec::new());
    while rest.len() >= 4 {
        let head = word(rest, 0);
        let Some((extension, behind)) = rest[4..].split_at_checked((head & 0xFFFF) as usize * 4) else { break };
        found.push(((head >> 16) as u16, extension));
        rest = behind;
    }
    found
}

//! Finds 188-byte packets in bytes that were cut anywhere [TS Annex G]: three sync bytes at one distance lock; one bad
//! sync byte with a good one behind it costs that packet; two lose the lock.

use memchr::memchr;

use crate::mpegts::packet::{PACKET_BYTES, SYNC_BYTE};

/// Distances between sync bytes: plain; with 16 bytes of Reed-Solomon parity; with a 4-byte arrival stamp (M2TS).
const STRIDES: [usize; 3] = [188, 204, 192];
/// Bytes that decide any candidate: three sync bytes at the largest stride.
const WINDOW: usize = 2 * 204 + 1;
/// After a loss only the connection's own stride is looked for, over so many bytes.
const KNOWN_FOR: u64 = 4_096;
/// Carried bytes are topped up by this many at a time.
const TOP_UP: usize = 2 * WINDOW;

/// What the framing saw, in order.
pub(super) enum Seen<'a> {
    Packet(&'a [u8; PACKET_BYTES]),
    /// One packet's sync byte is wrong, its neighbours' are not; the packet was left out.
    BadSyncByte,
    /// No sync byte where two must be: hunting.
    Lost,
    /// Locked again after so many bytes that belong to no packet.
    Skipped(u64),
}

#[derive(Debug, Default)]
pub(super) struct Sync {
    /// Distance between sync bytes while locked.
    stride: Option<usize>,
    /// The last such distance: a connection keeps it.
    known: Option<usize>,
    /// Bytes that could not be decided yet, fewer than `WINDOW`.
    carry: Vec<u8>,
    /// Bytes of the connection before `carry`.
    position: u64,
    /// Bytes passed over since the lock was lost or the connection began.
    skipped: u64,
}

impl Sync {
    /// Calls `each` with what is found and its offset in the connection.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(u64, Seen<'_>)) {
        while !self.carry.is_empty() && !bytes.is_empty() {
            let mut carry = std::mem::take(&mut self.carry);
            let added = bytes.len().min(TOP_UP);
            carry.extend_from_slice(&bytes[..added]);
            let used = self.scan(&carry, false, &mut each);
            let left = carry.len() - used;
            if left <= added {
                // The rest lies in `bytes`: go on without copying.
                bytes = &bytes[added - left..];
                carry.clear();
                self.carry = carry;
                break;
            }
            carry.drain(..used);
            self.carry = carry;
            bytes = &bytes[added..];
        }
        if self.carry.is_empty() {
            let used = self.scan(bytes, false, &mut each);
            self.carry.extend_from_slice(&bytes[used..]);
        }
    }

    /// The connection ended: decides what was held back.
    pub(super) fn flush(&mut self, mut each: impl FnMut(u64, Seen<'_>)) {
        let carry = std::mem::take(&mut self.carry);
        let used = self.scan(&carry, true, &mut each);
        self.position += (carry.len() - used) as u64;
        self.stride = None;
        self.skipped = 0;
    }

    /// Works through `bytes`; returns how many are done with.
    fn scan(&mut self, bytes: &[u8], last: bool, each: &mut impl FnMut(u64, Seen<'_>)) -> usize {
        let mut at = 0;
        let base = self.position;
        loop {
            let rest = &bytes[at..];
            let step = match self.stride {
                Some(stride) => self.take(rest, stride, last, |seen| each(base + at as u64, seen)),
                None => self.hunt(rest, last, |offset, seen| each(base + (at + offset) as u64, seen)),
            };
            let Some(step) = step else { break };
            at += step;
        }
        self.position += at as u64;
        at
    }

    /// Locked: one packet. `None`: more bytes are needed.
    fn take(&mut self, rest: &[u8], stride: usize, last: bool, mut each: impl FnMut(Seen<'_>)) -> Option<usize> {
        if rest.first() == Some(&SYNC_BYTE) {
            let packet = rest.first_chunk::<PACKET_BYTES>()?;
            if rest.len() < stride && !last {
                return None;
            }
            each(Seen::Packet(packet));
            return Some(stride.min(rest.len()));
        }
        match rest.get(stride) {
            None if !last || rest.is_empty() => return None,
            Some(&SYNC_BYTE) => {
                each(Seen::BadSyncByte);
                return Some(stride);
            }
            _ => {}
        }
        each(Seen::Lost);
        self.stride = None;
        Some(0)
    }

    /// Not locked: moves to the first place where three sync bytes agree. `None`: more bytes are needed.
    fn hunt(&mut self, rest: &[u8], last: bool, mut each: impl FnMut(usize, Seen<'_>)) -> Option<usize> {
        let mut at = 0;
        while let Some(found) = memchr(SYNC_BYTE, &rest[at..]) {
            at += found;
            let candidate = &rest[at..];
            let known = self.known.filter(|_| self.skipped + (at as u64) < KNOWN_FOR);
            let fits = |stride: &usize| known.is_none_or(|k| k == *stride) && agrees(candidate, *stride, last);
            if let Some(stride) = STRIDES.into_iter().find(fits) {
                self.known = Some(stride);
                self.stride = Some(stride);
                self.skipped += at as u64;
                if self.skipped > 0 {
                    each(at, Seen::Skipped(self.skipped));
                }
                self.skipped = 0;
                return Some(at);
            }
            if candidate.len() < WINDOW && !last {
                self.skipped += at as u64;
                return (at > 0).then_some(at);
            }
            at += 1;
        }
        self.skipped += rest.len() as u64;
        (!rest.is_empty()).then_some(rest.len())
    }
}

/// Three sync bytes `stride` apart; at the end of a connection, as many as there are whole packets.
fn agrees(bytes: &[u8], stride: usize, last: bool) -> bool {
    let is_sync = |n: usize| bytes.get(n * stride).map(|byte| *byte == SYNC_BYTE);
    if last {
        bytes.len() >= PACKET_BYTES && is_sync(1) != Some(false) && is_sync(2) != Some(false)
    } else {
        is_sync(1) == Some(true) && is_sync(2) == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(n: u8, fill: u8) -> [u8; PACKET_BYTES] {
        let mut bytes = [fill; PACKET_BYTES];
        (bytes[0], bytes[1]) = (SYNC_BYTE, n);
        bytes
    }

    fn run(bytes: &[u8], chunk: usize) -> (Vec<(u64, u8)>, u64, u32) {
        let (mut sync, mut packets, mut skipped, mut bad) = (Sync::default(), Vec::new(), 0, 0);
        let mut each = |at: u64, seen: Seen<'_>| match seen {
            Seen::Packet(p) => packets.push((at, p[1])),
            Seen::Skipped(n) => skipped += n,
            Seen::BadSyncByte => bad += 1,
            Seen::Lost => {}
        };
        for piece in bytes.chunks(chunk) {
            sync.push(piece, &mut each);
            assert!(sync.carry.len() < WINDOW);
        }
        sync.flush(&mut each);
        (packets, skipped, bad)
    }

    /// 20 packets whose payload holds sync bytes too, behind some garbage; a burst in the middle.
    fn stream(stride: usize) -> Vec<u8> {
        let mut out = vec![1, SYNC_BYTE, 2, 3, SYNC_BYTE];
        for n in 0..20u8 {
            let mut bytes = packet(n, 0);
            for at in (4 + 3 * usize::from(n)..PACKET_BYTES).step_by(61) {
                bytes[at] = SYNC_BYTE;
            }
            out.extend_from_slice(&bytes);
            out.resize(out.len() + stride - PACKET_BYTES, 0x55);
            if n == 9 {
                out.extend(0..230u8);
            }
        }
        out
    }

    #[test]
    fn every_packet_is_found_behind_garbage_at_every_stride_and_chunk_size() {
        for stride in STRIDES {
            let bytes = stream(stride);
            for chunk in [1, 7, 187, 188, 189, 409, 1316, bytes.len()] {
                let (packets, skipped, bad) = run(&bytes, chunk);
                let numbers: Vec<u8> = packets.iter().map(|(_, n)| *n).collect();
                assert_eq!(numbers, (0..20).collect::<Vec<u8>>(), "stride {stride}, chunk {chunk}");
                assert_eq!((skipped, bad), (5 + 230, 0));
                assert!(packets.iter().all(|(at, n)| bytes[*at as usize + 1] == *n));
            }
        }
    }

    #[test]
    fn one_flipped_sync_byte_costs_one_packet() {
        let mut bytes: Vec<u8> = (0..10).flat_map(|n| packet(n, 0)).collect();
        bytes[188 * 4] ^= 1;
        for chunk in [1, 188, 500, 1880] {
            let (packets, skipped, bad) = run(&bytes, chunk);
            assert_eq!((packets.len(), skipped, bad), (9, 0, 1), "chunk {chunk}");
        }
    }

    #[test]
    fn a_connection_of_one_packet_is_read_at_its_end() {
        assert_eq!(run(&packet(5, 0), 50).0, [(0, 5)]);
    }
}

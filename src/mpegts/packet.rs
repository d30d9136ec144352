//! Transport packets [TS 2.4.3.2].

use crate::media::track::Pid;

pub const PACKET_BYTES: usize = 188;
pub const SYNC_BYTE: u8 = 0x47;

/// One packet, taken apart; borrows its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub pid: Pid,
    /// transport_error_indicator: a modem could not correct this packet.
    pub transport_error: bool,
    /// payload_unit_start_indicator.
    pub unit_start: bool,
    pub scrambled: bool,
    pub continuity: u8,
    pub has_payload: bool,
    pub discontinuity: bool,
    /// 27 MHz, below 2^33 x 300.
    pub pcr: Option<u64>,
    /// The adaptation field is longer than its content, or has none: what a packetizer does at the end of a PES packet.
    pub stuffed: bool,
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None`: no sync byte, a reserved adaptation_field_control, or an adaptation field longer than the packet.
    pub fn parse(bytes: &'a [u8; PACKET_BYTES]) -> Option<Packet<'a>> {
        let [sync, b1, b2, b3, rest @ ..] = bytes;
        if *sync != SYNC_BYTE {
            return None;
        }
        let mut packet = Packet {
            pid: u16::from_be_bytes([b1 & 0x1F, *b2]),
            transport_error: b1 & 0x80 != 0,
            unit_start: b1 & 0x40 != 0,
            scrambled: b3 & 0xC0 != 0,
            continuity: b3 & 15,
            has_payload: b3 & 0x10 != 0,
            discontinuity: false,
            pcr: None,
            stuffed: false,
            payload: &[],
        };
        if b3 & 0x30 == 0 {
            return None;
        }
        let mut payload: &[u8] = rest;
        if b3 & 0x20 != 0 {
            let length = usize::from(rest[0]);
            payload = rest.get(1 + length..)?;
            packet.read_adaptation(&rest[1..=length]);
        }
        if packet.has_payload {
            packet.payload = payload;
        }
        Some(packet)
    }

    /// [TS 2.4.3.4]; a field that ends early says what it said.
    fn read_adaptation(&mut self, field: &[u8]) {
        let Some((&flags, body)) = field.split_first() else {
            self.stuffed = true;
            return;
        };
        self.discontinuity = flags & 0x80 != 0;
        let mut used = 0;
        if flags & 0x10 != 0 {
            self.pcr = body.first_chunk().map(read_pcr);
            used += 6;
        }
        if flags & 0x08 != 0 {
            used += 6;
        }
        if flags & 0x04 != 0 {
            used += 1;
        }
        for flag in [0x02, 0x01] {
            if flags & flag != 0 {
                used += 1 + body.get(used).map_or(0, |length| usize::from(*length));
            }
        }
        self.stuffed = body.len() > used || flags == 0;
    }
}

/// [TS 2.4.3.5]: 33 bits of 90 kHz, 6 reserved, 9 bits of 27 MHz.
fn read_pcr(b: &[u8; 6]) -> u64 {
    let [b0, b1, b2, b3, b4, b5] = *b;
    let base = u64::from(u32::from_be_bytes([b0, b1, b2, b3])) << 1 | u64::from(b4 >> 7);
    // Nine bits hold more than the clock has: no extension is above 299.
    let extension = u64::from(b4 & 1) << 8 | u64::from(b5);
    base * 300 + extension.min(299)
}

/// What a packet to be written says beside its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub pid: Pid,
    pub unit_start: bool,
    pub continuity: u8,
    pub discontinuity: bool,
    pub random_access: bool,
    /// 27 MHz; taken modulo 2^33 x 300.
    pub pcr: Option<u64>,
}

impl Header {
    /// Appends one packet with as much of `payload` as fits; returns how many bytes that was. An empty payload makes a
    /// packet of adaptation field only, whose continuity counter must not count.
    pub fn write(&self, payload: &[u8], out: &mut Vec<u8>) -> usize {
        let flags =
            u8::from(self.discontinuity) << 7 | u8::from(self.random_access) << 6 | u8::from(self.pcr.is_some()) << 4;
        let fields = if flags == 0 { 0 } else { 2 + if self.pcr.is_some() { 6 } else { 0 } };
        let taken = payload.len().min(PACKET_BYTES - 4 - fields);
        let adaptation = PACKET_BYTES - 4 - taken;
        let start = out.len();
        let [pid_high, pid_low] = self.pid.to_be_bytes();
        let control = u8::from(adaptation > 0) << 5 | u8::from(taken > 0) << 4;
        out.extend_from_slice(&[
            SYNC_BYTE,
            u8::from(self.unit_start) << 6 | pid_high & 0x1F,
            pid_low,
            control | self.continuity & 15,
        ]);
        if adaptation > 0 {
            out.push(u8::try_from(adaptation - 1).expect("at most 183"));
        }
        if adaptation > 1 {
            out.push(flags);
            if let Some(pcr) = self.pcr {
                out.extend_from_slice(&write_pcr(pcr));
            }
        }
        out.resize(start + 4 + adaptation, 0xFF);
        out.extend_from_slice(&payload[..taken]);
        taken
    }
}

fn write_pcr(pcr: u64) -> [u8; 6] {
    let (base, extension) = ((pcr / 300) & ((1 << 33) - 1), pcr % 300);
    let packed = base << 15 | 0x3F << 9 | extension;
    let [_, _, bytes @ ..] = packed.to_be_bytes();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_packet_reads_back_for_every_payload_length() {
        for pcr in [None, Some(0), Some((1 << 33) * 300 - 1), Some(27_000_000 * 1000 + 299)] {
            for length in 0..=200usize {
                let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
                let header = Header { pid: 0x1ABC, unit_start: true, continuity: 9, pcr, ..Header::default() };
                let mut out = Vec::new();
                let taken = header.write(&payload, &mut out);
                let bytes: [u8; PACKET_BYTES] = out.try_into().expect("one packet");
                let packet = Packet::parse(&bytes).expect("own packet");
                assert_eq!(packet.payload, &payload[..taken]);
                assert_eq!((packet.pid, packet.continuity, packet.pcr), (0x1ABC, 9, pcr));
                assert_eq!(packet.has_payload, taken > 0);
                assert_eq!(packet.stuffed, length < 184 - if pcr.is_some() { 8 } else { 0 }, "{length} {pcr:?}");
            }
        }
    }

    #[test]
    fn a_clock_reference_stays_below_its_wrap() {
        let mut bytes = [0xFF; PACKET_BYTES];
        bytes[..6].copy_from_slice(&[SYNC_BYTE, 1, 0, 0x30, 7, 0x10]);
        // All bits set: the extension would be 511, and has 300 values.
        assert_eq!(Packet::parse(&bytes).and_then(|p| p.pcr), Some((1 << 33) * 300 - 1));
    }

    #[test]
    fn an_adaptation_field_longer_than_the_packet_is_refused() {
        let mut bytes = [0xFF; PACKET_BYTES];
        bytes[..5].copy_from_slice(&[SYNC_BYTE, 0, 0x20, 0x30, 184]);
        assert_eq!(Packet::parse(&bytes), None);
        bytes[4] = 183;
        assert_eq!(Packet::parse(&bytes).map(|p| p.payload.len()), Some(0));
    }
}

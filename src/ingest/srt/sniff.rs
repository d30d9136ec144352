//! What the crate knows but does not tell, read from the packets that pass: key length and version of a caller, why
//! the crate refuses one, round-trip time and buffer fill.

use sapflow_srt::packet::{Control, ControlPacket, Extension, HandshakeKind, Packet};

/// Byte 16 of a key material message, counted from its start: key length in 32-bit words [SRT 3.2.2].
const KM_KEY_LENGTH: usize = 15;
/// Offset of the Handshake Type field in a handshake packet [SRT 3.2.1].
const HANDSHAKE_TYPE: usize = 36;

/// A caller's conclusion handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Conclusion {
    pub(super) socket: u32,
    /// major << 16 | minor << 8 | patch.
    pub(super) version: u32,
    /// AES key length in bytes; 0 without key material.
    pub(super) key_length: u8,
}

/// Our full acknowledgement [SRT 3.2.4].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FullAck {
    pub(super) rtt_us: u32,
    pub(super) rtt_variance_us: u32,
    /// Packets that the receive buffer still takes.
    pub(super) free: u32,
    /// Over the last whole second.
    pub(super) packets_per_second: u32,
    pub(super) bytes_per_second: u32,
}

pub(super) fn is_handshake(datagram: &[u8]) -> bool {
    datagram.starts_with(&[0x80, 0x00])
}

/// The socket that a packet is for; `None` if it is too short for one.
pub(super) fn destination(datagram: &[u8]) -> Option<u32> {
    word(datagram, 12)
}

pub(super) fn is_data(datagram: &[u8]) -> bool {
    datagram.len() >= 16 && datagram[0] & 0x80 == 0
}

pub(super) fn conclusion(datagram: &[u8]) -> Option<Conclusion> {
    let Ok(Packet::Control(ControlPacket { body: Control::Handshake(handshake), .. })) = Packet::parse(datagram) else {
        return None;
    };
    if handshake.kind != HandshakeKind::Conclusion {
        return None;
    }
    let mut seen = Conclusion { socket: handshake.socket_id, ..Conclusion::default() };
    for extension in &handshake.extensions {
        match extension {
            Extension::HsReq(request) => seen.version = request.version,
            Extension::KmReq(km) => {
                seen.key_length = km.get(KM_KEY_LENGTH).copied().unwrap_or(0).saturating_mul(4);
            }
            _ => {}
        }
    }
    Some(seen)
}

/// The code of a rejection handshake that we are about to send.
pub(super) fn rejection(datagram: &[u8]) -> Option<u32> {
    let code = word(datagram, HANDSHAKE_TYPE)?;
    (is_handshake(datagram) && (1_000..0x8000_0000).contains(&code)).then_some(code)
}

/// Writes another code into a rejection handshake.
pub(super) fn set_rejection(datagram: &mut [u8], code: u32) {
    if let Some(field) = datagram.get_mut(HANDSHAKE_TYPE..HANDSHAKE_TYPE + 4) {
        field.copy_from_slice(&code.to_be_bytes());
    }
}

pub(super) fn full_ack(datagram: &[u8]) -> Option<FullAck> {
    if !datagram.starts_with(&[0x80, 0x02]) || datagram.len() < 44 {
        return None;
    }
    Some(FullAck {
        rtt_us: word(datagram, 20)?,
        rtt_variance_us: word(datagram, 24)?,
        free: word(datagram, 28)?,
        packets_per_second: word(datagram, 32)?,
        bytes_per_second: word(datagram, 40)?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sapflow_srt::packet::{Ack, AckStats, Handshake, SrtHandshake};
    use sapflow_srt::seq::Seq;

    fn handshake(kind: HandshakeKind, extensions: Vec<Extension>) -> Vec<u8> {
        let body = Handshake {
            version: 5,
            encryption: 0,
            extension: 7,
            initial_seq: 1,
            mtu: 1500,
            flow_window: 8192,
            kind,
            socket_id: 77,
            cookie: 9,
            peer_ip: [0; 16],
            extensions,
        };
        let mut out = Vec::new();
        ControlPacket::new(1, 5, Control::Handshake(body)).encode(&mut out);
        out
    }

    #[test]
    fn a_conclusion_tells_version_and_key_length() {
        let mut km = vec![0; 40];
        km[15] = 6;
        let request = SrtHandshake { version: 0x01_05_01, flags: 0xbf, receiver_delay: 0, sender_delay: 120 };
        let bytes = handshake(HandshakeKind::Conclusion, vec![Extension::HsReq(request), Extension::KmReq(km)]);
        assert!(is_handshake(&bytes) && !is_data(&bytes));
        assert_eq!(destination(&bytes), Some(5));
        assert_eq!(conclusion(&bytes), Some(Conclusion { socket: 77, version: 0x01_05_01, key_length: 24 }));
        assert_eq!(conclusion(&handshake(HandshakeKind::Induction, vec![])), None);
    }

    #[test]
    fn a_rejection_tells_its_code_and_takes_another() {
        let mut bytes = handshake(HandshakeKind::Rejection(1004), vec![]);
        assert_eq!(rejection(&bytes), Some(1004));
        set_rejection(&mut bytes, 2415);
        assert_eq!(rejection(&bytes), Some(2415));
        assert_eq!(rejection(&handshake(HandshakeKind::Conclusion, vec![])), None);
        assert_eq!(rejection(&handshake(HandshakeKind::Induction, vec![])), None);
    }

    #[test]
    fn a_full_ack_tells_round_trip_and_buffer() {
        let stats = AckStats { rtt: 50_000, rtt_var: 100, buffer: 8_000, rates: Some((380, 9, 500_000)) };
        let mut bytes = Vec::new();
        let ack = Ack { number: 1, ack: Seq::new(5), stats: Some(stats) };
        ControlPacket::new(1, 5, Control::Ack(ack)).encode(&mut bytes);
        let want = FullAck {
            rtt_us: 50_000,
            rtt_variance_us: 100,
            free: 8_000,
            packets_per_second: 380,
            bytes_per_second: 500_000,
        };
        assert_eq!(full_ack(&bytes), Some(want));
        let mut light = Vec::new();
        ControlPacket::new(1, 5, Control::Ack(Ack { number: 0, ack: Seq::new(5), stats: None })).encode(&mut light);
        assert_eq!(full_ack(&light), None);
    }
}

//! Which caption services say something: channels of line 21 that load or paint text [CEA 608], services with blocks of
//! their own [CEA 708]. Text mode (T1 to T4) and extended data services are none.

use super::Triplet;
use crate::media::captions::{CaptionsSeen, InstreamId};

/// Reads along; nothing it is given can make it stop.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    lines: [Line; 2],
    packet: Packet,
    seen: CaptionsSeen,
}

/// One field of line 21.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// The second of its two channels was addressed last.
    second: bool,
    /// By channel: what it writes are captions.
    captions: [bool; 2],
    /// Extended data goes on up to their end or the next control code.
    extended: bool,
}

/// A caption channel packet.
#[derive(Clone, Debug, Default)]
struct Packet {
    /// Bytes that are to come.
    left: usize,
    block: Block,
}

#[derive(Clone, Copy, Debug, Default)]
enum Block {
    #[default]
    Header,
    /// The number of a service above 6, and the block's size.
    Extended(usize),
    /// Bytes of it to come.
    Body(usize),
    /// A null header ended the packet.
    Over,
}

impl Observer {
    pub fn seen(&self) -> CaptionsSeen {
        self.seen
    }

    pub fn take(&mut self, triplets: &[Triplet]) {
        for Triplet { kind, data } in triplets {
            match kind {
                0 | 1 => self.pair(usize::from(*kind), *data),
                _ => self.packet_pair(*kind == 3, *data),
            }
        }
    }

    fn pair(&mut self, field: usize, data: [u8; 2]) {
        let odd = |byte: u8| byte.count_ones() % 2 == 1;
        // A byte that fails its parity check is shown as a solid block at best: it opens no channel.
        if !data.iter().all(|byte| odd(*byte)) {
            return;
        }
        let [first, second] = data.map(|byte| byte & 0x7F);
        let line = &mut self.lines[field];
        match first {
            0x01..=0x0E if field == 1 => line.extended = true,
            0x0F if field == 1 => line.extended = false,
            0x10..=0x1F => {
                line.extended = false;
                line.second = first & 8 != 0;
                let captions = &mut line.captions[usize::from(line.second)];
                match (first & 0x76, second) {
                    // RCL, RU2 to RU4, RDC: captions; TR, RTD: text.
                    (0x14, 0x20 | 0x25..=0x27 | 0x29) => *captions = true,
                    (0x14, 0x2A | 0x2B) => *captions = false,
                    _ => {}
                }
            }
            // Blanks alone are no captions.
            0x20..=0x7F
                if !line.extended && (first > 0x20 || second > 0x20) && line.captions[usize::from(line.second)] =>
            {
                let channel = 1 + 2 * u8::from(field == 1) + u8::from(line.second);
                self.seen.insert(InstreamId::Cc(channel));
            }
            _ => {}
        }
    }

    fn packet_pair(&mut self, starts: bool, data: [u8; 2]) {
        let mut bytes = &data[..];
        if starts {
            // sequence_number, packet_size_code.
            let code = usize::from(data[0] & 63);
            let left = if code == 0 { 127 } else { 2 * code - 1 };
            (self.packet, bytes) = (Packet { left, block: Block::Header }, &data[1..]);
        }
        for byte in bytes {
            if self.packet.left == 0 {
                return;
            }
            self.packet.left -= 1;
            self.packet_byte(*byte);
        }
    }

    fn packet_byte(&mut self, byte: u8) {
        let packet = &mut self.packet;
        packet.block = match packet.block {
            Block::Header => {
                let (service, size) = (byte >> 5, usize::from(byte & 31));
                match (service, size) {
                    (0, _) => Block::Over,
                    (_, 0) => Block::Header,
                    (7, size) => Block::Extended(size),
                    (service, size) => {
                        self.seen.insert(InstreamId::Service(service));
                        Block::Body(size)
                    }
                }
            }
            Block::Extended(size) => {
                let service = byte & 63;
                if service > 6 {
                    self.seen.insert(InstreamId::Service(service));
                }
                Block::Body(size)
            }
            Block::Body(size) if size > 1 => Block::Body(size - 1),
            Block::Body(_) => Block::Header,
            Block::Over => Block::Over,
        };
    }
}

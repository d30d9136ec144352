//! Closed captions as pictures carry them: cc_data() in a user data SEI message of H.264 and H.265, in the user data of an
//! MPEG-2 picture [ATSC 6.2.3]. Read from access units, written into encoded pictures.

mod seen;
#[cfg(test)]
mod tests;

pub use seen::Observer;

use bytes::{BufMut, Bytes, BytesMut};

use super::annexb::find_start;
use super::bits::Bits;
use super::h264::sei::{is_trailing, read_size};
use super::{h264, h265, mpeg2video};
use crate::media::track::Codec;

/// Constructs of one cc_data(): cc_count has five bits.
pub const TRIPLETS_MAX: usize = 31;
/// Taken of one access unit: two fields.
const UNIT_TRIPLETS_MAX: usize = 2 * TRIPLETS_MAX;

/// One caption construct that says something (cc_valid): its type and two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triplet {
    /// cc_type: 0 and 1 are fields 1 and 2 of line 21, 3 begins a packet of [CEA 708], 2 goes on with it.
    pub kind: u8,
    pub data: [u8; 2],
}

impl Triplet {
    /// False for the pair with which line 21 says that there is nothing to say [CEA 608].
    pub fn says_something(self) -> bool {
        self.kind > 1 || self.data.iter().any(|byte| byte & 0x7F != 0)
    }
}

/// Adds what an access unit (as `AccessUnit::data`) carries, in its order; padding is left out. `fields`: it may hold two
/// field pictures, of which the second has captions of its own. False: there is no cc_data() in it, not even an empty one.
pub fn read(codec: Codec, fields: bool, unit: &[u8], into: &mut Vec<Triplet>) -> bool {
    let (mut rest, mut any) = (unit, false);
    while let Some(at) = find_start(rest) {
        rest = &rest[at + 3..];
        match piece(codec, rest) {
            Piece::Picture if !fields => break,
            Piece::Picture | Piece::Other => {}
            Piece::Message(header) => {
                let end = find_start(rest).unwrap_or(rest.len());
                any |= messages(&rest[header.min(end)..end], into);
            }
            Piece::UserData => {
                let end = find_start(rest).unwrap_or(rest.len());
                any |= atsc_data(Bits::plain(&rest[1.min(end)..end]), into);
            }
        }
    }
    any
}

/// What lies behind a start code.
enum Piece {
    Picture,
    /// SEI, behind so many bytes of header.
    Message(usize),
    UserData,
    Other,
}

fn piece(codec: Codec, unit: &[u8]) -> Piece {
    let Some(first) = unit.first() else { return Piece::Other };
    match codec {
        Codec::H264 => match first & 31 {
            h264::nal::SEI => Piece::Message(1),
            h264::nal::SLICE..=h264::nal::IDR => Piece::Picture,
            _ => Piece::Other,
        },
        Codec::H265 => match first >> 1 & 63 {
            h265::nal::PREFIX_SEI => Piece::Message(h265::HEADER_BYTES),
            0..h265::nal::VCL_END => Piece::Picture,
            _ => Piece::Other,
        },
        Codec::Mpeg2Video => match *first {
            mpeg2video::start::USER_DATA => Piece::UserData,
            mpeg2video::start::SLICE_MIN..=mpeg2video::start::SLICE_MAX => Piece::Picture,
            _ => Piece::Other,
        },
        _ => Piece::Other,
    }
}

/// user_data_registered_itu_t_t35 [AVC D.1.6], [HEVC D.2.6].
const REGISTERED: u32 = 4;
/// itu_t_t35_country_code of the United States, itu_t_t35_provider_code of ATSC.
const ATSC: [u8; 3] = [0xB5, 0x00, 0x31];
/// ATSC_user_data(): its identifier, and user_data_type_code of cc_data().
const CC_DATA: [u8; 5] = *b"GA94\x03";

/// The messages of an SEI NAL unit behind its header.
fn messages(unit: &[u8], into: &mut Vec<Triplet>) -> bool {
    let (mut bits, mut any) = (Bits::new(unit), false);
    while let Some((kind, bytes)) = read_size(&mut bits).zip(read_size(&mut bits)) {
        if kind == REGISTERED {
            let mut inside = bits.clone();
            if ATSC.iter().all(|byte| inside.u8(8) == Some(*byte)) {
                any |= atsc_data(inside, into);
            }
        }
        let whole = bytes.checked_mul(8).and_then(|n| bits.skip(n));
        if whole.is_none() || is_trailing(&bits) {
            break;
        }
    }
    any
}

/// ATSC_user_data(), if it is cc_data() [ATSC 6.2.3.1]. What is cut off is read as far as it goes.
fn atsc_data(mut bits: Bits<'_>, into: &mut Vec<Triplet>) -> bool {
    if !CC_DATA.iter().all(|byte| bits.u8(8) == Some(*byte)) {
        return false;
    }
    let Some((flags, _)) = bits.u8(8).zip(bits.u8(8)) else { return false };
    let count = if flags & 0x40 == 0 { 0 } else { flags & 31 };
    for _ in 0..count {
        let (Some(head), Some(first), Some(second)) = (bits.u8(8), bits.u8(8), bits.u8(8)) else { break };
        if head & 4 != 0 && into.len() < UNIT_TRIPLETS_MAX {
            into.push(Triplet { kind: head & 3, data: [first, second] });
        }
    }
    true
}

/// The SEI message of cc_data(), up to `TRIPLETS_MAX` of them: an SEI NAL unit without its header, whatever the codec.
pub fn message(triplets: &[Triplet]) -> Bytes {
    let triplets = &triplets[..triplets.len().min(TRIPLETS_MAX)];
    let mut raw = Vec::with_capacity(128);
    let size = ATSC.len() + CC_DATA.len() + 3 + 3 * triplets.len();
    raw.extend_from_slice(&[REGISTERED as u8, u8::try_from(size).expect("31 constructs fit one size byte")]);
    raw.extend_from_slice(&ATSC);
    raw.extend_from_slice(&CC_DATA);
    raw.push(0xC0 | u8::try_from(triplets.len()).expect("at most 31"));
    raw.push(0xFF);
    for Triplet { kind, data } in triplets {
        raw.extend_from_slice(&[0xFC | kind, data[0], data[1]]);
    }
    // marker_bits, then rbsp_trailing_bits. No emulation prevention [AVC 7.4.1.1], [HEVC 7.4.2.1]: what follows two zero
    // bytes is the head of a construct or marker_bits, never 0 to 3.
    raw.extend_from_slice(&[0xFF, 0x80]);
    raw.into()
}

/// An encoded picture (as `Sample::data`) with the SEI message in a NAL unit of its own in front of its first slice: behind
/// everything that must come before it [AVC 7.4.1.2.3], [HEVC 7.4.2.4.4]. Unchanged if it holds no picture.
pub fn insert(codec: Codec, picture: &Bytes, message: &[u8]) -> Bytes {
    // nal_ref_idc 0; nuh_layer_id 0, temporal id 0.
    let header: &[u8] = match codec {
        Codec::H264 => &[h264::nal::SEI],
        Codec::H265 => &[h265::nal::PREFIX_SEI << 1, 1],
        _ => return picture.clone(),
    };
    let Some(at) = first_slice(codec, picture) else { return picture.clone() };
    let length = header.len() + message.len();
    let mut out = BytesMut::with_capacity(picture.len() + 4 + length);
    out.extend_from_slice(&picture[..at]);
    out.put_u32(u32::try_from(length).expect("a message of 31 constructs is short"));
    out.extend_from_slice(header);
    out.extend_from_slice(message);
    out.extend_from_slice(&picture[at..]);
    out.freeze()
}

/// Where the length of the first slice's NAL unit lies.
fn first_slice(codec: Codec, picture: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some((length, unit)) = picture.get(at..).and_then(|rest| rest.split_first_chunk::<4>()) {
        if matches!(piece(codec, unit), Piece::Picture) {
            return Some(at);
        }
        at = at.checked_add(4)?.checked_add(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    }
    None
}

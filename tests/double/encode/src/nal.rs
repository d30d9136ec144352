//! Annex B: units of what libx264 and libx265 give, put together as the card's access units.

use crate::card::Codec;
use crate::config::Headers;

/// How a coded picture was predicted, as the header counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    P = 0,
    B = 1,
    I = 2,
    Idr = 3,
}

/// An SEI message of the client: payload type and payload.
pub(crate) type Message = (u32, Vec<u8>);

/// What goes around a picture's slices.
pub(crate) struct Around<'a> {
    pub(crate) codec: Codec,
    pub(crate) delimiter: bool,
    /// Parameter sets, in Annex B.
    pub(crate) headers: &'a [u8],
    pub(crate) messages: &'a [Message],
}

/// A picture's slices and nothing else, and how it was predicted.
pub(crate) fn slices(codec: Codec, packet: &[u8]) -> (Vec<&[u8]>, Kind) {
    let slices: Vec<&[u8]> = units(packet).into_iter().filter(|unit| is_slice(codec, unit)).collect();
    let kind = slices.first().map_or(Kind::I, |slice| kind(codec, slice));
    (slices, kind)
}

/// An access unit, and where in it each slice begins.
pub(crate) fn assemble(around: &Around<'_>, slices: &[&[u8]], kind: Kind) -> (Vec<u8>, Vec<u32>) {
    let mut unit = Vec::new();
    if around.delimiter {
        // The slice types that may occur: I, then P too, then B too.
        let types = match kind {
            Kind::I | Kind::Idr => 0x10,
            Kind::P => 0x30,
            Kind::B => 0x50,
        };
        let delimiter: &[u8] = if around.codec == Codec::H264 { &[0x09, types] } else { &[0x46, 0x01, types] };
        append(&mut unit, delimiter);
    }
    unit.extend_from_slice(around.headers);
    for message in around.messages {
        append(&mut unit, &sei(around.codec, message));
    }
    let mut offsets = Vec::new();
    for slice in slices {
        offsets.push(u32::try_from(unit.len()).unwrap_or(u32::MAX));
        append(&mut unit, slice);
    }
    (unit, offsets)
}

/// Whether a picture brings the parameter sets.
pub(crate) fn brings_headers(headers: Headers, idr: bool, first: bool, asked: bool) -> bool {
    match headers {
        Headers::Never => false,
        Headers::FirstIdr => asked || idr && first,
        Headers::EveryIdr => asked || idr,
    }
}

/// The parameter sets among `extradata`, without x264's SEI. An H.264 Main stream that needs nothing beyond Baseline
/// is named Baseline by x264, and Main here.
pub(crate) fn headers(codec: Codec, extradata: &[u8], main: bool) -> Vec<u8> {
    let mut headers = Vec::new();
    for unit in units(extradata) {
        let mut unit = unit.to_vec();
        match (codec, unit_type(codec, &unit)) {
            (Codec::H264, 7) => {
                if main && unit[1] == 66 {
                    unit[1] = 77;
                    unit[2] &= !0x80;
                }
            }
            (Codec::H264, 8) | (Codec::Hevc, 32..=34) => {}
            _ => continue,
        }
        append(&mut headers, &unit);
    }
    headers
}

/// Units without start codes and without the zeros behind them.
fn units(stream: &[u8]) -> Vec<&[u8]> {
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some(found) = stream[at..].windows(3).position(|w| w == [0, 0, 1]) {
        starts.push(at + found);
        at += found + 3;
    }
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    let unit = |(start, end): (&usize, usize)| {
        let unit = &stream[start + 3..end];
        let length = unit.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        &unit[..length]
    };
    starts.iter().zip(ends).map(unit).filter(|unit| unit.len() > 2).collect()
}

fn append(stream: &mut Vec<u8>, unit: &[u8]) {
    stream.extend_from_slice(&[0, 0, 0, 1]);
    stream.extend_from_slice(unit);
}

fn unit_type(codec: Codec, unit: &[u8]) -> u8 {
    if codec == Codec::H264 { unit[0] & 0x1f } else { unit[0] >> 1 & 0x3f }
}

fn is_slice(codec: Codec, unit: &[u8]) -> bool {
    match codec {
        // Filler data goes along.
        Codec::H264 => matches!(unit_type(codec, unit), 1 | 5 | 12),
        _ => unit_type(codec, unit) < 32,
    }
}

fn kind(codec: Codec, slice: &[u8]) -> Kind {
    let number = unit_type(codec, slice);
    let (mut bits, idr) = match codec {
        Codec::H264 => (Bits { bytes: &slice[1..], at: 0 }, number == 5),
        _ => (Bits { bytes: &slice[2..], at: 0 }, matches!(number, 19 | 20)),
    };
    if idr {
        return Kind::Idr;
    }
    if codec == Codec::H264 {
        let _first_block = bits.number();
        return match bits.number() % 5 {
            0 => Kind::P,
            1 => Kind::B,
            _ => Kind::I,
        };
    }
    let _first_slice = bits.bit();
    if (16..=23).contains(&number) {
        let _no_output_of_prior_pictures = bits.bit();
    }
    let _parameter_set = bits.number();
    match bits.number() {
        0 => Kind::B,
        1 => Kind::P,
        _ => Kind::I,
    }
}

/// The beginning of a slice: too short for emulation prevention to matter.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> u32 {
        let byte = self.bytes.get(self.at / 8).copied().unwrap_or(0x80);
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        u32::from(bit)
    }

    /// ue(v).
    fn number(&mut self) -> u32 {
        let mut zeros = 0;
        while self.bit() == 0 && zeros < 31 {
            zeros += 1;
        }
        (0..zeros).fold(1, |number, _| number << 1 | self.bit()) - 1
    }
}

fn sei(codec: Codec, (payload_type, payload): &Message) -> Vec<u8> {
    let mut raw = Vec::new();
    for number in [*payload_type as usize, payload.len()] {
        raw.extend(std::iter::repeat_n(0xff, number / 255));
        raw.push((number % 255) as u8);
    }
    raw.extend_from_slice(payload);
    raw.push(0x80);
    let mut unit = if codec == Codec::H264 { vec![0x06] } else { vec![0x4e, 0x01] };
    let mut zeros = 0;
    for byte in raw {
        if zeros >= 2 && byte <= 3 {
            unit.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        unit.push(byte);
    }
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_end_where_the_next_start_code_begins() {
        let stream = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 3, 1, 0, 0, 0, 1, 0x65, 0x88, 9];
        let expected: [&[u8]; 3] = [&[0x67, 1, 2], &[0x68, 3, 0, 0, 3, 1], &[0x65, 0x88, 9]];
        assert_eq!(units(&stream), expected);
    }

    #[test]
    fn a_slice_says_how_it_was_predicted() {
        // first_mb_in_slice 0, then slice_type 5, 6, 7 as ue(v).
        assert_eq!(kind(Codec::H264, &[0x41, 0b1001_1000, 0]), Kind::P);
        assert_eq!(kind(Codec::H264, &[0x01, 0b1001_1100, 0]), Kind::B);
        assert_eq!(kind(Codec::H264, &[0x41, 0b1000_1000, 0]), Kind::I);
        assert_eq!(kind(Codec::H264, &[0x65, 0x88, 0]), Kind::Idr);
    }

    #[test]
    fn a_message_is_escaped_and_its_size_may_exceed_a_byte() {
        let unit = sei(Codec::H264, &(4, vec![0; 300]));
        assert_eq!(unit[..5], [0x06, 4, 0xff, 45, 0]);
        assert!(!unit.windows(3).any(|w| w == [0, 0, 0]), "emulation is prevented");
    }
}

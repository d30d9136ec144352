//! PES packet headers [TS 2.4.3.6].

/// What a PES header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PesHeader {
    pub stream_id: u8,
    /// Payload bytes that follow; `None`: unbounded (video only).
    pub payload: Option<usize>,
    /// Raw 33 bits.
    pub pts: Option<u64>,
    pub dts: Option<u64>,
    pub scrambled: bool,
    /// A marker bit or prefix of a time stamp is wrong: that time stamp was left out.
    pub bad_time: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The header goes on in the next packet.
    More,
    /// Payload starts at this offset.
    Header(PesHeader, usize),
    Bad(&'static str),
}

/// Longest header: nine bytes and PES_header_data.
pub const HEADER_BYTES_MAX: usize = 9 + 255;

/// Reads a PES header from the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    let prefix = bytes.len().min(3);
    if bytes[..prefix] != [0, 0, 1][..prefix] {
        return Parsed::Bad("no start code where a PES packet must begin");
    }
    let Some(&[_, _, _, stream_id, high, low]) = bytes.first_chunk::<6>() else {
        return Parsed::More;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let mut header = PesHeader { stream_id, payload: (length > 0).then_some(length), ..PesHeader::default() };
    if !has_optional_fields(stream_id) {
        return Parsed::Header(header, 6);
    }
    let Some(&[flags, fields, data_bytes]) = bytes[6..].first_chunk::<3>() else {
        return Parsed::More;
    };
    if flags & 0xC0 != 0x80 {
        return Parsed::Bad("a PES header that does not start with '10'");
    }
    let start = 9 + usize::from(data_bytes);
    let Some(data) = bytes.get(9..start) else {
        return Parsed::More;
    };
    if let Some(length) = header.payload {
        let Some(rest) = length.checked_sub(start - 6) else {
            return Parsed::Bad("a PES packet shorter than its header");
        };
        header.payload = Some(rest);
    }
    header.scrambled = flags & 0x30 != 0;
    if fields & 0x80 != 0 {
        header.pts = data.first_chunk().and_then(read_time);
        header.bad_time |= header.pts.is_none();
    }
    if fields & 0xC0 == 0xC0 {
        header.dts = data.get(5..).and_then(<[u8]>::first_chunk).and_then(read_time);
        header.bad_time |= header.dts.is_none();
    }
    Parsed::Header(header, start)
}

/// [TS table 2-21]: maps, padding, private_stream_2, ECM, EMM, DSM-CC, H.222.1 E and the directory have none.
fn has_optional_fields(stream_id: u8) -> bool {
    !matches!(stream_id, 0xBC | 0xBE | 0xBF | 0xF0 | 0xF1 | 0xF2 | 0xF8 | 0xFF)
}

/// 33 bits in five bytes; `None` if a marker bit is missing: then bits were damaged and the value cannot be trusted.
fn read_time(b: &[u8; 5]) -> Option<u64> {
    let [b0, b1, b2, b3, b4] = b.map(u64::from);
    let marked = b0 & b2 & b4 & 1 == 1;
    marked.then_some((b0 >> 1 & 7) << 30 | b1 << 22 | b2 >> 1 << 15 | b3 << 7 | b4 >> 1)
}

/// Appends a PES header. `payload`: the bytes that will follow; `None` writes length 0 (video only), as does a payload
/// that does not fit 16 bits. `dts` is written where it differs from `pts`. Raw times are taken modulo 2^33.
pub fn write(stream_id: u8, pts: u64, dts: u64, payload: Option<usize>, out: &mut Vec<u8>) {
    let both = dts != pts;
    let data: u8 = if both { 10 } else { 5 };
    let length = payload.and_then(|n| u16::try_from(n + 3 + usize::from(data)).ok()).unwrap_or(0);
    let [high, low] = length.to_be_bytes();
    out.extend_from_slice(&[0, 0, 1, stream_id, high, low, 0x84, if both { 0xC0 } else { 0x80 }, data]);
    out.extend_from_slice(&write_time(if both { 3 } else { 2 }, pts));
    if both {
        out.extend_from_slice(&write_time(1, dts));
    }
}

fn write_time(prefix: u8, time: u64) -> [u8; 5] {
    let byte = |shift: u32| (time >> shift & 0xFF) as u8;
    [prefix << 4 | (byte(30) & 7) << 1 | 1, byte(22), byte(14) | 1, byte(7), byte(0) << 1 | 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_headers_read_back() {
        for (pts, dts) in [(0, 0), ((1 << 33) - 1, (1 << 33) - 2), (0x1_5555_5555, 0xAAAA_AAAA), (90_000, 90_000)] {
            for payload in [Some(0), Some(1000), None] {
                let mut out = Vec::new();
                write(0xE0, pts, dts, payload, &mut out);
                let Parsed::Header(header, start) = parse(&out) else { panic!("own header: {out:x?}") };
                assert_eq!((header.pts, header.dts), (Some(pts), (pts != dts).then_some(dts)));
                assert_eq!((start, header.payload), (out.len(), payload));
                for cut in 0..out.len() {
                    assert_eq!(parse(&out[..cut]), Parsed::More, "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn a_time_stamp_without_its_marker_bits_is_left_out() {
        let mut out = Vec::new();
        write(0xC0, 90_000, 90_000, None, &mut out);
        out[11] &= 0xFE;
        let Parsed::Header(header, _) = parse(&out) else { panic!("a header") };
        assert_eq!((header.pts, header.bad_time), (None, true));
    }
}

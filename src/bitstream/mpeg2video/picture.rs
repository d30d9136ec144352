//! Picture headers, and of the picture coding extension whether the picture is a field [MPEG2V 6.2.3, 6.2.3.1].

use crate::bitstream::bits::Bits;

/// Bytes from a start code's value on that hold every field of a picture header read here.
pub const HEAD_BYTES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Display order within its group, modulo 1024; both fields of a frame have the same.
    pub temporal_reference: u32,
    /// 1 I, 2 P, 3 B.
    pub kind: u8,
}

impl Picture {
    /// From what follows 00 00 01, its first byte 00; `HEAD_BYTES` are enough.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(unit: &[u8]) -> Result<Picture, &'static str> {
        let mut r = Bits::plain(unit.get(1..).unwrap_or_default());
        let read = |r: &mut Bits<'_>| {
            let (temporal_reference, kind) = (r.u(10)?, r.u8(3)?);
            (1..=3).contains(&kind).then_some(Picture { temporal_reference, kind })
        };
        read(&mut r).ok_or("a picture header that ends early or is of no known type")
    }

    pub fn is_intra(&self) -> bool {
        self.kind == 1
    }

    pub fn is_bidirectional(&self) -> bool {
        self.kind == 3
    }
}

/// Whether a picture coding extension (from B5 on) says that its picture is one field; `None`: it ends early.
pub fn is_field(unit: &[u8]) -> Option<bool> {
    let mut r = Bits::plain(unit.get(1..)?);
    r.u(4 + 16 + 2)?; // identifier, f_code, intra_dc_precision
    r.u(2).map(|structure| structure != 3)
}

//! An H.264 stream of field pictures, written by hand: no encoder here makes any. Every macroblock is I_PCM, so what
//! must come out is known to the byte.

/// 64x64 pictures.
pub(crate) const SIDE: usize = 64;

struct Bits(Vec<bool>);

impl Bits {
    fn u(&mut self, count: u32, value: u32) {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    }

    fn ue(&mut self, value: u32) {
        let length = 32 - (value + 1).leading_zeros();
        self.u(2 * length - 1, value + 1);
    }

    fn bytes(&mut self, bytes: impl Iterator<Item = u8>) {
        self.0.resize(self.0.len().next_multiple_of(8), false);
        bytes.for_each(|byte| self.u(8, u32::from(byte)));
    }

    /// With stop bit, emulation prevention, header and start code.
    fn nal(mut self, head: u8) -> Vec<u8> {
        self.0.push(true);
        self.0.resize(self.0.len().next_multiple_of(8), false);
        let mut out = vec![0, 0, 0, 1, head];
        let mut zeros = 0;
        for eight in self.0.chunks(8) {
            let byte = eight.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
            if zeros == 2 && byte <= 3 {
                out.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            out.push(byte);
        }
        out
    }
}

/// Sequence and picture parameter set: Main profile, fields, so many frames reordered.
pub(crate) fn sets(reordered: u32) -> Vec<u8> {
    let mut sps = Bits(Vec::new());
    sps.u(24, 77 << 16 | 30);
    // Number 0; 4 bits of frame_num; order type 0 with 8 bits; 2 references.
    [0, 0, 0, 4, 2].into_iter().for_each(|value| sps.ue(value));
    sps.u(1, 0);
    // 4 macroblocks wide, 2 rows of field macroblocks.
    [3, 1].into_iter().for_each(|value| sps.ue(value));
    // Fields, no MBAFF, direct_8x8, no cropping, a VUI with nothing but the restriction.
    sps.u(5, 0b00101);
    sps.u(8, 0);
    sps.u(2, 0b11);
    [0, 0, 10, 10, reordered, 2].into_iter().for_each(|value| sps.ue(value));
    let mut pps = Bits(Vec::new());
    [0, 0].into_iter().for_each(|value| pps.ue(value));
    pps.u(2, 0);
    [0, 0, 0].into_iter().for_each(|value| pps.ue(value));
    pps.u(3, 0);
    [0, 0, 0].into_iter().for_each(|value| pps.ue(value));
    // The deblocking filter can be turned off.
    pps.u(3, 0b100);
    [sps.nal(0x67), pps.nal(0x68)].concat()
}

/// A sample of field `bottom` of frame `n`.
fn sample(n: u32, bottom: bool, plane: usize, x: usize, y: usize) -> u8 {
    let value = 40 + 31 * n as usize + 90 * usize::from(bottom) + 17 * plane + 3 * x + 5 * y;
    (16 + value % 220) as u8
}

/// One field of frame `n`.
pub(crate) fn field(n: u32, bottom: bool) -> Vec<u8> {
    let idr = n == 0 && !bottom;
    let mut slice = Bits(Vec::new());
    [0, 7, 0].into_iter().for_each(|value| slice.ue(value));
    slice.u(4, n % 16);
    slice.u(2, 0b10 | u32::from(bottom));
    if idr {
        slice.ue(0);
    }
    slice.u(8, (4 * n + 2 * u32::from(bottom)) % 256);
    slice.u(if idr { 2 } else { 1 }, 0);
    // No other quantiser, no deblocking.
    [0, 1].into_iter().for_each(|value| slice.ue(value));
    for mb in 0..8 {
        let (left, top) = (mb % 4 * 16, mb / 4 * 16);
        slice.ue(25);
        slice.bytes((0..256).map(|at| sample(n, bottom, 0, left + at % 16, top + at / 16)));
        for plane in [1, 2] {
            slice.bytes((0..64).map(|at| sample(n, bottom, plane, left / 2 + at % 8, top / 2 + at / 8)));
        }
    }
    slice.nal(if idr { 0x65 } else { 0x61 })
}

/// Frame `n` woven, planar.
pub(crate) fn picture(n: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for (plane, side) in [(0, SIDE), (1, SIDE / 2), (2, SIDE / 2)] {
        for y in 0..side {
            out.extend((0..side).map(|x| sample(n, y % 2 == 1, plane, x, y / 2)));
        }
    }
    out
}

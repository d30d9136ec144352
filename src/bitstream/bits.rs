//! Bits of a raw byte sequence payload, read straight from the NAL unit: emulation prevention bytes are stepped over.

/// A reader; `None` means that the NAL unit ended.
#[derive(Clone, Debug)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// Next byte to load.
    at: usize,
    /// Loaded byte and how many of its low bits are unread.
    byte: u8,
    left: u32,
    /// Zero bytes just before `at`, up to 2.
    zeros: u8,
    /// Emulation prevention bytes are stepped over.
    escapes: bool,
}

impl<'a> Bits<'a> {
    /// Reads from the first byte of `bytes`; for a NAL unit pass what follows its header byte.
    pub fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, at: 0, byte: 0, left: 0, zeros: 0, escapes: true }
    }

    /// The same for a syntax without emulation prevention: every byte is data.
    pub fn plain(bytes: &'a [u8]) -> Bits<'a> {
        Bits { escapes: false, ..Bits::new(bytes) }
    }

    fn load(&mut self) -> Option<()> {
        let mut byte = *self.bytes.get(self.at)?;
        self.at += 1;
        // [AVC 7.4.1] 00 00 03: the 03 is no data.
        if self.escapes && self.zeros == 2 && byte == 3 {
            byte = *self.bytes.get(self.at)?;
            self.at += 1;
            self.zeros = 0;
        }
        self.zeros = if byte == 0 { (self.zeros + 1).min(2) } else { 0 };
        self.byte = byte;
        self.left = 8;
        Some(())
    }

    pub fn flag(&mut self) -> Option<bool> {
        if self.left == 0 {
            self.load()?;
        }
        self.left -= 1;
        Some(self.byte >> self.left & 1 == 1)
    }

    /// u(n), n <= 32.
    pub fn u(&mut self, n: u32) -> Option<u32> {
        let (mut value, mut need) = (0u32, n);
        while need > 0 {
            if self.left == 0 {
                self.load()?;
            }
            let take = need.min(self.left);
            let piece = u32::from(self.byte) >> (self.left - take) & ((1 << take) - 1);
            value = value.checked_shl(take).unwrap_or(0) | piece;
            self.left -= take;
            need -= take;
        }
        Some(value)
    }

    pub fn u8(&mut self, n: u32) -> Option<u8> {
        u8::try_from(self.u(n)?).ok()
    }

    pub fn skip(&mut self, n: u32) -> Option<()> {
        for _ in 0..n / 32 {
            self.u(32)?;
        }
        self.u(n % 32).map(|_| ())
    }

    /// ue(v) [AVC 9.1]; `None` also for codes above 32 bits.
    pub fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.u(zeros)?)
    }

    /// ue(v) that must not exceed `max`.
    pub fn ue_max(&mut self, max: u32) -> Option<u32> {
        self.ue().filter(|value| *value <= max)
    }

    /// se(v) [AVC 9.1.1].
    pub fn se(&mut self) -> Option<i32> {
        let code = self.ue()?;
        let half = i32::try_from(code.div_ceil(2)).ok()?;
        Some(if code % 2 == 1 { half } else { -half })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_golomb_codes_follow_table_9_2() {
        // 1 | 010 | 011 | 00100 | 00101, as ue: 0 1 2 3 4; as se: 0 1 -1 2 -2.
        let bytes = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut bits = Bits::new(&bytes);
        assert_eq!([(); 5].map(|()| bits.ue()), [Some(0), Some(1), Some(2), Some(3), Some(4)]);
        let mut bits = Bits::new(&bytes);
        assert_eq!([(); 5].map(|()| bits.se()), [Some(0), Some(1), Some(-1), Some(2), Some(-2)]);
    }

    #[test]
    fn emulation_prevention_bytes_are_not_data() {
        let mut bits = Bits::new(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 2]);
        assert_eq!(bits.u(24), Some(1));
        assert_eq!(bits.u(32), Some(0));
        assert_eq!((bits.u(8), bits.u(1)), (Some(2), None));
        assert_eq!(Bits::plain(&[0, 0, 3, 1]).u(32), Some(0x0000_0301));
    }

    #[test]
    fn a_code_of_more_than_32_bits_is_refused() {
        assert_eq!(Bits::new(&[0, 1, 0, 1, 0, 1, 0, 1]).clone().u(32), Some(0x0001_0001));
        assert_eq!(Bits::new(&[0, 0, 3, 0, 0, 3, 0, 0xFF]).ue(), None);
    }
}

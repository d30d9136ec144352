//! Bits of a header, read most significant first.

/// Over a copy from which the emulation prevention bytes were taken out. Whoever reads past the end gets `None`.
pub(crate) struct Bits {
    data: Vec<u8>,
    at: usize,
}

impl Bits {
    /// Of a NAL unit's payload [AVC 7.3.1], [HEVC 7.3.1.1]. Looks at the first `limit` bytes only.
    pub(crate) fn of_nal(payload: &[u8], limit: usize) -> Bits {
        Bits { data: without_prevention(&payload[..payload.len().min(limit)]), at: 0 }
    }

    /// Of bytes as they are.
    pub(crate) fn plain(bytes: &[u8]) -> Bits {
        Bits { data: bytes.to_vec(), at: 0 }
    }

    pub(crate) fn u(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u64;
        for _ in 0..count {
            let byte = *self.data.get(self.at / 8)?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        u32::try_from(value & u64::from(u32::MAX)).ok()
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        Some(self.u(1)? == 1)
    }

    pub(crate) fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count)?;
        (self.at <= self.data.len() * 8).then_some(())
    }

    /// Exp-Golomb [AVC 9.1].
    pub(crate) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.u(zeros)?)
    }

    /// At most `max`: more is a damaged header.
    pub(crate) fn ue_to(&mut self, max: u32) -> Option<u32> {
        self.ue().filter(|value| *value <= max)
    }

    pub(crate) fn se(&mut self) -> Option<i32> {
        let code = i64::from(self.ue()?);
        i32::try_from(if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) }).ok()
    }
}

/// A NAL unit's payload without its emulation prevention bytes.
pub(crate) fn without_prevention(payload: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(payload.len());
    let mut zeros = 0;
    for byte in payload {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        data.push(*byte);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_and_emulation_prevention_are_read_and_the_end_is_noticed() {
        // 1 | 010 | 011 | 00100 | 1..: ue 0, 1, 2, 3, 0
        let mut bits = Bits::plain(&[0b1010_0110, 0b0100_1000]);
        assert_eq!([bits.ue(), bits.ue(), bits.ue(), bits.ue()], [Some(0), Some(1), Some(2), Some(3)]);
        let mut signed = Bits::plain(&[0b0100_1100]);
        assert_eq!([signed.se(), signed.se()], [Some(1), Some(-1)]);
        let mut nal = Bits::of_nal(&[0, 0, 3, 1], 9);
        assert_eq!((nal.u(24), nal.u(1)), (Some(1), None));
        assert_eq!(Bits::plain(&[0; 8]).ue(), None);
    }
}

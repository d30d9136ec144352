//! Packet numbers that wrap at 2^31 [SRT 3.1].

/// A packet's number. Which of two is the later one is decided by the shorter way around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seq(u32);

const MASK: u32 = 0x7fff_ffff;

impl Seq {
    /// The lower 31 bits of `number`.
    pub(super) const fn new(number: u32) -> Seq {
        Seq(number & MASK)
    }

    pub(super) const fn number(self) -> u32 {
        self.0
    }

    #[must_use]
    pub(super) const fn plus(self, packets: u32) -> Seq {
        Seq(self.0.wrapping_add(packets) & MASK)
    }

    #[must_use]
    pub(super) const fn minus(self, packets: u32) -> Seq {
        Seq(self.0.wrapping_sub(packets) & MASK)
    }

    /// Packets from `other` to `self`, negative if `self` is the earlier one; -2^30 to 2^30 - 1.
    pub(super) const fn since(self, other: Seq) -> i32 {
        // The 31-bit difference, its highest bit drawn out into the 32nd.
        (self.0.wrapping_sub(other.0) << 1).cast_signed() >> 1
    }

    /// How many packets after `other` this one is; `None` if it is earlier.
    pub(super) fn after(self, other: Seq) -> Option<u32> {
        u32::try_from(self.since(other)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap_and_the_shorter_way_decides() {
        let last = Seq::new(MASK);
        assert_eq!(last.plus(1), Seq::new(0));
        assert_eq!(Seq::new(0).minus(1), last);
        assert_eq!((Seq::new(5).since(last), last.since(Seq::new(5))), (6, -6));
        assert_eq!(Seq::new(0x4000_0000).since(Seq::new(0)), -0x4000_0000);
        assert_eq!(Seq::new(0x3fff_ffff).since(Seq::new(0)), 0x3fff_ffff);
        assert_eq!((Seq::new(7).after(Seq::new(7)), Seq::new(6).after(Seq::new(7))), (Some(0), None));
        assert_eq!(Seq::new(u32::MAX), last, "the highest bit says what kind of packet it is");
    }
}

//! x265 can not change its rate under libavcodec. It runs at constant quality instead, and this decides the quality of
//! each picture so that the rate is met.

#[derive(Debug)]
pub(crate) struct Rate {
    /// Bits of one picture, on average.
    target: f64,
    /// Pictures over which a debt is paid back.
    window: f64,
    /// Steps of quantiser added to the encoder's own choice.
    offset: f64,
    /// Bits spent too many.
    debt: f64,
}

impl Rate {
    /// For `bits_per_picture` on average, debts paid back within `pictures`.
    pub(crate) fn new(bits_per_picture: f64, pictures: f64) -> Rate {
        Rate { target: bits_per_picture.max(1.0), window: pictures.clamp(4.0, 60.0), offset: 0.0, debt: 0.0 }
    }

    pub(crate) fn retune(&mut self, bits_per_picture: f64) {
        let target = bits_per_picture.max(1.0);
        self.offset += STEP * (self.target / target).log2();
        self.target = target;
        self.debt = 0.0;
    }

    /// How many steps coarser than its own choice the encoder is to make the next picture.
    pub(crate) fn offset(&self) -> f64 {
        self.offset.clamp(-LIMIT, LIMIT)
    }

    /// A picture came out.
    pub(crate) fn spent(&mut self, bits: f64, idr: bool) {
        let bound = self.window * self.target / 2.0;
        self.debt = (self.debt + bits - self.target).clamp(-bound, bound);
        // An IDR picture is large; what the others pay for it is in the debt.
        let aim = if idr { self.target * IDR_SHARE } else { self.target - self.debt / self.window };
        self.offset += GAIN * STEP * (bits / aim).log2();
        self.offset = self.offset.clamp(-LIMIT, LIMIT);
    }
}

/// Steps of quantiser that halve the bits.
const STEP: f64 = 6.0;
/// How much of an error is mended with the next picture.
const GAIN: f64 = 0.5;
/// As much larger an IDR picture may be than the others.
const IDR_SHARE: f64 = 8.0;
const LIMIT: f64 = 40.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_met_and_met_again_after_a_change() {
        let mut rate = Rate::new(40_000.0, 15.0);
        let run = |rate: &mut Rate| {
            let mut last = 0.0;
            for picture in 0..200 {
                let idr = picture % 50 == 0;
                let bits = if idr { 400_000.0 } else { 100_000.0 } / (rate.offset() / STEP).exp2();
                rate.spent(bits, idr);
                last += if picture >= 100 { bits } else { 0.0 };
            }
            last / 100.0
        };
        let first = run(&mut rate);
        assert!((36_000.0..44_000.0).contains(&first), "{first}");
        rate.retune(20_000.0);
        let second = run(&mut rate);
        assert!((18_000.0..22_000.0).contains(&second), "{second}");
    }
}

//! The coefficients of one axis, exactly as the specification in `scale` says: rational positions, integer weights.

/// One axis of one plane: luma sizes give the ratio, sample counts give the edges.
pub(crate) struct Axis {
    /// Luma size of source and target.
    pub(crate) source: usize,
    pub(crate) target: usize,
    /// Samples of this plane along the axis, source and target.
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Where a sample lies in its own width, quarters.
    pub(crate) place: i64,
}

/// For each target sample: `taps` coefficients for the source samples from `first` on, all of which exist.
pub(crate) struct Filter {
    taps: usize,
    first: Vec<usize>,
    coefficients: Vec<i16>,
}

impl Filter {
    pub(crate) fn new(axis: &Axis) -> Filter {
        let rows: Vec<(usize, Vec<i16>)> = (0..axis.to).map(|i| quantise(&axis.weights(i))).collect();
        let taps = rows.iter().map(|(_, row)| row.len()).max().unwrap_or(1);
        let mut filter = Filter { taps, first: Vec::new(), coefficients: Vec::new() };
        for (first, row) in rows {
            // At the far edge a short row starts earlier and has zeros in front.
            let start = first.min(axis.from - taps);
            let before = first - start;
            filter.first.push(start);
            filter.coefficients.extend(std::iter::repeat_n(0, before));
            filter.coefficients.extend(&row);
            filter.coefficients.extend(std::iter::repeat_n(0, taps - before - row.len()));
        }
        filter
    }

    pub(crate) fn taps(&self) -> usize {
        self.taps
    }

    pub(crate) fn outputs(&self) -> usize {
        self.first.len()
    }

    pub(crate) fn firsts(&self) -> &[usize] {
        &self.first
    }

    pub(crate) fn first(&self, i: usize) -> usize {
        self.first[i]
    }

    pub(crate) fn coefficients(&self, i: usize) -> &[i16] {
        &self.coefficients[i * self.taps..][..self.taps]
    }
}

impl Axis {
    /// The weights of target sample `i` and the source sample of the first; edges folded in.
    fn weights(&self, i: usize) -> (usize, Vec<i128>) {
        let [source, target, from, i] =
            [self.source, self.target, self.from, i].map(|n| i64::try_from(n).expect("a side"));
        let unit = 4 * source.max(target);
        // N(k) = 4 k target - centre; |N| < 2 unit bounds k.
        let centre = (4 * i + self.place) * source - self.place * target;
        let low = (centre - 2 * unit).div_euclid(4 * target) + 1;
        let high = (centre + 2 * unit - 1).div_euclid(4 * target);
        let clamp = |k: i64| usize::try_from(k.clamp(0, from - 1)).expect("clamped to the plane");
        let first = clamp(low);
        let mut weights = vec![0; clamp(high) - first + 1];
        for k in low..=high {
            weights[clamp(k) - first] += weight((4 * k * target - centre).abs(), unit);
        }
        (first, weights)
    }
}

/// Cubic convolution with a = -1/2 at `t / q`, times 2 q^3.
fn weight(t: i64, q: i64) -> i128 {
    let (t, q) = (i128::from(t), i128::from(q));
    if t < q {
        3 * t * t * t - 5 * t * t * q + 2 * q * q * q
    } else if t < 2 * q {
        -t * t * t + 5 * t * t * q - 8 * t * q * q + 4 * q * q * q
    } else {
        0
    }
}

/// To 14 bits that sum to `ONE`; zeros at both ends are cut off.
fn quantise((first, weights): &(usize, Vec<i128>)) -> (usize, Vec<i16>) {
    let total: i128 = weights.iter().sum();
    let mut row: Vec<i128> = weights.iter().map(|w| (2 * ONE * w + total).div_euclid(2 * total)).collect();
    let lacking = ONE - row.iter().sum::<i128>();
    let largest = row.iter().copied().max().expect("a target sample has a source");
    let at = row.iter().position(|c| *c == largest).expect("the largest is there");
    row[at] += lacking;
    assert!(row.iter().filter(|c| **c > 0).sum::<i128>() < 2 * ONE, "sums fit: see the specification");
    let before = row.iter().position(|c| *c != 0).expect("the largest is not 0");
    let after = row.iter().rposition(|c| *c != 0).expect("the largest is not 0");
    let row = row[before..=after].iter().map(|c| i16::try_from(*c).expect("below 2 ONE")).collect();
    (first + before, row)
}

/// In `place`: a sample in the middle of its width, and one at the left luma sample of its two.
pub(crate) const QUARTER_CENTRE: i64 = 2;
pub(crate) const QUARTER_LEFT: i64 = 1;
/// What the coefficients of a sample sum to.
const ONE: i128 = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(source: usize, target: usize) -> Axis {
        Axis { source, target, from: source, to: target, place: QUARTER_CENTRE }
    }

    #[test]
    fn coefficients_sum_to_one_and_stay_inside_the_source() {
        for (source, target) in
            [(1, 1), (1, 7), (7, 1), (2, 3), (5, 2), (1080, 720), (1920, 854), (854, 1920), (8192, 2)]
        {
            let filter = Filter::new(&axis(source, target));
            assert_eq!(filter.outputs(), target);
            for i in 0..target {
                let sum: i32 = filter.coefficients(i).iter().map(|c| i32::from(*c)).sum();
                assert_eq!(sum, 16384, "{source} -> {target}, sample {i}");
                assert!(filter.first(i) + filter.taps() <= source, "{source} -> {target}, sample {i}");
            }
        }
    }

    #[test]
    fn halving_uses_eight_symmetric_taps() {
        let filter = Filter::new(&axis(64, 32));
        assert_eq!(filter.taps(), 8);
        assert_eq!(filter.first(10), 17);
        let row = filter.coefficients(10);
        assert!(row.iter().eq(row.iter().rev()), "{row:?}");
        // w(1/4), w(3/4), w(5/4), w(7/4) of the cubic, halved: 0.8672, 0.2266, -0.0703, -0.0234.
        assert_eq!(&row[4..], [7104, 1856, -576, -192]);
    }

    #[test]
    fn an_axis_that_keeps_its_size_has_one_tap() {
        let filter = Filter::new(&axis(9, 9));
        assert_eq!(filter.taps(), 1);
        assert!((0..9).all(|i| filter.first(i) == i && filter.coefficients(i) == [16384]));
    }

    #[test]
    fn left_sited_chroma_leans_to_the_left_of_centred_chroma_when_shrinking() {
        // Halving, target chroma i: left lies at luma 4i + 1 = source chroma 2i + 1/4, centred at 2i + 1/2.
        let axis = |place| Axis { source: 64, target: 32, from: 32, to: 16, place };
        for (place, wanted) in [(QUARTER_LEFT, 10.25), (QUARTER_CENTRE, 10.5)] {
            let filter = Filter::new(&axis(place));
            let moment: f64 =
                (filter.first(5)..).zip(filter.coefficients(5)).map(|(k, c)| k as f64 * f64::from(*c)).sum();
            assert!((moment / 16384.0 - wanted).abs() < 0.02, "{}", moment / 16384.0);
        }
    }
}

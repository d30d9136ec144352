//! Equality of the forms over seeded sizes and contents, and what the specification promises about pictures.

use super::*;

/// xorshift64*: the same pictures on every run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % n
    }
}

/// An owned picture whose planes have `pad` bytes between rows, none after the last.
struct Owned {
    planes: [Vec<u8>; 3],
    strides: [usize; 3],
    width: usize,
    height: usize,
}

impl Owned {
    fn new(width: usize, height: usize, pad: usize, mut sample: impl FnMut(usize, usize) -> u8) -> Owned {
        let sizes = [(width, height), (width.div_ceil(2), height.div_ceil(2)), (width.div_ceil(2), height.div_ceil(2))];
        let strides = sizes.map(|(w, _)| w + pad);
        let planes = sizes.map(|(w, h)| {
            let stride = w + pad;
            (0..stride * (h - 1) + w).map(|at| sample(at % stride, at / stride)).collect()
        });
        Owned { planes, strides, width, height }
    }

    fn flat(width: usize, height: usize, pad: usize, value: u8) -> Owned {
        Owned::new(width, height, pad, |_, _| value)
    }

    fn view(&self) -> Planes<'_> {
        let [y, u, v] = &self.planes;
        let [stride_y, stride_u, stride_v] = self.strides;
        Planes { y, u, v, stride_y, stride_u, stride_v, width: self.width, height: self.height }
    }

    fn view_mut(&mut self) -> PlanesMut<'_> {
        let [y, u, v] = &mut self.planes;
        let [stride_y, stride_u, stride_v] = self.strides;
        PlanesMut { y, u, v, stride_y, stride_u, stride_v, width: self.width, height: self.height }
    }
}

fn scaled(src: &Owned, (width, height): (usize, usize), pad: usize, siting: Siting, form: Form) -> Owned {
    let mut dst = Owned::flat(width, height, pad, 0xA5);
    Scaler::with_form(src.width, src.height, width, height, siting, form).scale(&src.view(), &mut dst.view_mut());
    dst
}

fn assert_forms_equal(src: &Owned, to: (usize, usize), pad: usize, siting: Siting) {
    let best = Form::best();
    let (a, b) = (scaled(src, to, pad, siting, Form::Scalar), scaled(src, to, pad, siting, best));
    for (name, a, b) in (0..3).map(|n| (["y", "u", "v"][n], &a.planes[n], &b.planes[n])) {
        let at = a.iter().zip(b).position(|(a, b)| a != b);
        assert_eq!(at, None, "{name} of {}x{} -> {to:?} pad {pad} {siting:?}: {best:?} differs", src.width, src.height);
    }
}

fn contents(kind: usize, seed: &mut Seeded) -> impl FnMut(usize, usize) -> u8 {
    let mut state = Seeded(seed.next() | 1);
    let block = 1 + seed.below(5);
    move |x, y| match kind % 4 {
        0 => state.next().to_le_bytes()[7],
        1 => {
            if (x / block + y / block).is_multiple_of(2) {
                255
            } else {
                0
            }
        }
        2 => {
            if state.next() >> 63 == 0 {
                255
            } else {
                0
            }
        }
        _ => u8::try_from((x * 3 + y * 5) % 256).unwrap(),
    }
}

#[test]
fn forms_are_equal_for_random_sizes_and_contents() {
    let mut seed = Seeded(0x52_55_4E_47);
    for round in 0..600 {
        let limit = if round % 3 == 0 { 9 } else { 180 };
        let [w, h, to_w, to_h] = [(); 4].map(|()| 1 + seed.below(limit));
        let (pad, to_pad) = (seed.below(3) * seed.below(40), seed.below(3) * seed.below(40));
        let src = Owned::new(w, h, pad, contents(round, &mut seed));
        let siting = if seed.below(2) == 0 { Siting::Left } else { Siting::Centre };
        assert_forms_equal(&src, (to_w, to_h), to_pad, siting);
    }
}

#[test]
fn forms_are_equal_for_every_rendition_of_1080p() {
    let mut seed = Seeded(7);
    for (round, to) in [(1920, 1080), (1280, 720), (854, 480), (640, 360), (384, 216)].into_iter().enumerate() {
        let src = Owned::new(1920, 1080, 64 * (round % 2), contents(round, &mut seed));
        assert_forms_equal(&src, to, 10 * (round % 2), Siting::Left);
        let src = Owned::new(1920, 1080, 0, contents(1, &mut seed));
        assert_forms_equal(&src, to, 0, Siting::Left);
    }
}

#[test]
fn forms_are_equal_when_growing_and_for_854_wide_sources() {
    let mut seed = Seeded(11);
    for (kind, from, to) in [(0, (854, 480), (640, 360)), (2, (854, 480), (1280, 720)), (1, (427, 241), (853, 481))] {
        let src = Owned::new(from.0, from.1, 3, contents(kind, &mut seed));
        assert_forms_equal(&src, to, 1, Siting::Left);
    }
}

#[test]
fn a_flat_picture_stays_flat() {
    for value in [0, 1, 16, 127, 235, 255] {
        let out = scaled(&Owned::flat(101, 57, 0, value), (64, 31), 0, Siting::Left, Form::best());
        assert!(out.planes.iter().flatten().all(|s| *s == value), "{value}");
    }
}

#[test]
fn a_picture_that_keeps_its_size_is_copied_and_padding_is_left_alone() {
    let src = Owned::new(66, 34, 5, contents(0, &mut Seeded(3)));
    let out = scaled(&src, (66, 34), 9, Siting::Left, Form::best());
    for plane in 0..3 {
        let (from, to) = (src.strides[plane], out.strides[plane]);
        for (a, b) in src.planes[plane].chunks(from).zip(out.planes[plane].chunks(to)) {
            assert_eq!(a[..from - 5], b[..to - 9]);
            assert!(b[to - 9..].iter().all(|b| *b == 0xA5));
        }
    }
    let out = scaled(&src, (33, 17), 9, Siting::Left, Form::best());
    assert!(out.planes[0].chunks(42).all(|row| row[33..].iter().all(|b| *b == 0xA5)), "padding after scaling");
}

/// A ramp over luma position must stay the same ramp: an offset would show where samples are wrongly thought to lie.
#[test]
fn a_ramp_keeps_its_place_in_luma_and_in_chroma_of_either_siting() {
    // Twice the place in luma samples: luma x lies at x + 1/2, left chroma x at 2x + 1/2, centred chroma at 2x + 1.
    for (siting, chroma) in [(Siting::Left, 1), (Siting::Centre, 2)] {
        let at = |plane: usize, x: usize| if plane == 0 { 2 * x + 1 } else { 4 * x + chroma };
        for width in [80, 60, 40, 192] {
            let mut src = Owned::flat(120, 16, 0, 0);
            for plane in 0..3 {
                let stride = src.strides[plane];
                for (n, s) in src.planes[plane].iter_mut().enumerate() {
                    *s = u8::try_from(at(plane, n % stride)).unwrap();
                }
            }
            let out = scaled(&src, (width, 16), 0, siting, Form::best());
            for plane in 0..3 {
                let range = out.strides[plane] / 4..out.strides[plane] * 3 / 4;
                let wanted = |x| at(plane, x) as f64 * 120.0 / width as f64;
                // The rounding of single samples averages out, a shift does not.
                let sum: f64 = range.clone().map(|x| f64::from(out.planes[plane][x]) - wanted(x)).sum();
                let error = sum / range.len() as f64;
                assert!(error.abs() < 0.25, "plane {plane} to {width} {siting:?}: off by {error:.3}");
            }
        }
    }
}

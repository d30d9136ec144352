//! A logo over a scaled picture: an RGBA image made into planes once, then blended in integers, the same here and in
//! `kernels/scale.cu`.
//!
//! # Specification
//!
//! **Luma.** Of a pixel R, G, B (not multiplied by alpha), with the coefficients of `Matrix` and `Range` scaled by 65536:
//! Y = (cr R + cg G + cb B + 65536 o + 32768) >> 16, where o is 16 (narrow) or 0 (full). cr and cb are rounded, and cg
//! is what they lack of round(65536 * 219/255) (narrow) or 65536 (full): white and black are met exactly.
//! **Chroma.** Of each 2 x 2 pixels, alpha-weighted means: with A the sum of their alphas, R' = (sum of a R + A/2) / A,
//! likewise G' and B' (0 when A = 0), then U = (ur R' + ug G' + ub B' + 65536 * 128 + 32768) >> 16 and V likewise,
//! clamped to a byte; ur, ug, ub sum to 0: grey is exactly 128. Chroma's alpha is (A + 2) >> 2.
//! **Blend.** Each sample d below l with alpha a becomes (d (255 - a) + l a + 127) / 255, rounded down.

use super::PlanesMut;

/// A logo at the size it is shown in: Y, its alpha, U, V, their alpha, one after another, rows without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

/// How RGB becomes YUV; the picture's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    Bt601,
    Bt709,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// 16..=235 and 16..=240.
    Narrow,
    Full,
}

/// Why an overlay can not be made or placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayError {
    /// A side is 0, odd, or above `SIDE_MAX`.
    Size { width: usize, height: usize },
    /// RGBA is four bytes a pixel.
    Length { bytes: usize, wanted: usize },
    /// It begins at an odd column or row, or does not lie inside the picture.
    Place { x: usize, y: usize },
}

impl std::fmt::Display for OverlayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OverlayError::Size { width, height } => {
                write!(f, "an overlay has even sides of 2 to {}, not {width}x{height}", super::SIDE_MAX)
            }
            OverlayError::Length { bytes, wanted } => write!(f, "RGBA of this size is {wanted} bytes, not {bytes}"),
            OverlayError::Place { x, y } => {
                write!(f, "an overlay lies inside its picture, at an even column and row, not at {x},{y}")
            }
        }
    }
}

impl std::error::Error for OverlayError {}

impl Overlay {
    /// Of rows of R, G, B, A without padding; alpha 255 covers, colours are not multiplied by it.
    ///
    /// # Errors
    /// A size that can not be, or another length than the size says.
    pub fn new(
        rgba: &[u8],
        width: usize,
        height: usize,
        matrix: Matrix,
        range: Range,
    ) -> Result<Overlay, OverlayError> {
        let side = |n: usize| n.is_multiple_of(2) && (2..=super::SIDE_MAX).contains(&n);
        if !side(width) || !side(height) {
            return Err(OverlayError::Size { width, height });
        }
        let (pixels, []) = rgba.as_chunks::<4>() else {
            return Err(OverlayError::Length { bytes: rgba.len(), wanted: 4 * width * height });
        };
        if pixels.len() != width * height {
            return Err(OverlayError::Length { bytes: rgba.len(), wanted: 4 * width * height });
        }
        let colours = Colours::new(matrix, range);
        let mut bytes = Vec::with_capacity(width * height * 11 / 4);
        bytes.extend(pixels.iter().map(|[r, g, b, _]| colours.luma([*r, *g, *b])));
        bytes.extend(pixels.iter().map(|[_, _, _, a]| *a));
        let mut chroma = [const { Vec::new() }; 3];
        for rows in pixels.chunks(2 * width) {
            let (above, below) = rows.split_at(width);
            for (above, below) in above.as_chunks::<2>().0.iter().zip(below.as_chunks::<2>().0) {
                let values = colours.chroma([above[0], above[1], below[0], below[1]]);
                for (plane, value) in chroma.iter_mut().zip(values) {
                    plane.push(value);
                }
            }
        }
        bytes.extend(chroma.concat());
        Ok(Overlay { width, height, bytes })
    }

    /// Width and height, luma samples.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// What the kernel reads: to be copied to device memory as it is.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it may lie at this place of a picture of this size.
    ///
    /// # Errors
    /// An odd place, or one where it is not wholly inside.
    pub fn check(&self, (x, y): (usize, usize), (width, height): (usize, usize)) -> Result<(), OverlayError> {
        let fits =
            |from: usize, size: usize, whole: usize| from.is_multiple_of(2) && size <= whole && from <= whole - size;
        let inside = fits(x, self.width, width) && fits(y, self.height, height);
        if inside { Ok(()) } else { Err(OverlayError::Place { x, y }) }
    }

    /// Blends it over the picture, its upper left corner at luma sample `x`, `y`.
    ///
    /// # Errors
    /// As `check`.
    ///
    /// # Panics
    /// Planes shorter than their size and stride say.
    pub fn blend(&self, picture: &mut PlanesMut<'_>, x: usize, y: usize) -> Result<(), OverlayError> {
        self.check((x, y), (picture.width, picture.height))?;
        let (area, quarter) = (self.width * self.height, self.width * self.height / 4);
        let (luma, rest) = self.bytes.split_at(area);
        let (alpha, rest) = rest.split_at(area);
        let (u, rest) = rest.split_at(quarter);
        let (v, alpha_chroma) = rest.split_at(quarter);
        blend_plane(picture.y, picture.stride_y, (x, y), self.width, luma, alpha);
        blend_plane(picture.u, picture.stride_u, (x / 2, y / 2), self.width / 2, u, alpha_chroma);
        blend_plane(picture.v, picture.stride_v, (x / 2, y / 2), self.width / 2, v, alpha_chroma);
        Ok(())
    }
}

fn blend_plane(plane: &mut [u8], stride: usize, (x, y): (usize, usize), width: usize, above: &[u8], alpha: &[u8]) {
    for (row, (above, alpha)) in above.chunks(width).zip(alpha.chunks(width)).enumerate() {
        let below = &mut plane[(y + row) * stride + x..][..width];
        for ((d, l), a) in below.iter_mut().zip(above).zip(alpha) {
            let [below, above, alpha] = [*d, *l, *a].map(u32::from);
            *d = u8::try_from((below * (255 - alpha) + above * alpha + 127) / 255).expect("a mean of two bytes");
        }
    }
}

/// The matrix of a picture, times 65536.
struct Colours {
    luma: [i32; 3],
    u: [i32; 3],
    v: [i32; 3],
    offset: i32,
}

impl Colours {
    fn new(matrix: Matrix, range: Range) -> Colours {
        // Kr and Kb in ten thousandths (BT.601, BT.709).
        let (kr, kb) = match matrix {
            Matrix::Bt601 => (2990, 1140),
            Matrix::Bt709 => (2126, 722),
        };
        let (luma, chroma, offset) = match range {
            Range::Narrow => (219, 224, 16),
            Range::Full => (255, 255, 0),
        };
        let rounded = |top: i64, bottom: i64| i32::try_from((2 * top + bottom) / (2 * bottom)).expect("below 65536");
        let white = rounded(65536 * luma, 255);
        let (r, b) = (rounded(65536 * luma * kr, 255 * 10_000), rounded(65536 * luma * kb, 255 * 10_000));
        // Half of the range over the largest difference: B - Y is at most 1 - Kb.
        let half = rounded(65536 * chroma, 2 * 255);
        let against = |k: i64, of: i64| rounded(65536 * chroma * k, 2 * 255 * (10_000 - of));
        let (u_r, v_b) = (against(kr, kb), against(kb, kr));
        Colours { luma: [r, white - r - b, b], u: [-u_r, u_r - half, half], v: [half, v_b - half, -v_b], offset }
    }

    fn luma(&self, rgb: [u8; 3]) -> u8 {
        weigh(self.luma, rgb.map(i32::from), self.offset)
    }

    /// U, V and their alpha, of four pixels.
    fn chroma(&self, pixels: [[u8; 4]; 4]) -> [u8; 3] {
        let alpha: i32 = pixels.iter().map(|pixel| i32::from(pixel[3])).sum();
        let mean = |n: usize| {
            let sum: i32 = pixels.iter().map(|pixel| i32::from(pixel[n]) * i32::from(pixel[3])).sum();
            if alpha == 0 { 0 } else { (sum + alpha / 2) / alpha }
        };
        let rgb = [mean(0), mean(1), mean(2)];
        let covered = u8::try_from((alpha + 2) >> 2).expect("a mean of bytes");
        [weigh(self.u, rgb, 128), weigh(self.v, rgb, 128), covered]
    }
}

fn weigh(coefficients: [i32; 3], rgb: [i32; 3], offset: i32) -> u8 {
    let sum: i32 = coefficients.iter().zip(rgb).map(|(c, n)| c * n).sum();
    let value = (sum + (offset << 16) + (1 << 15)) >> 16;
    u8::try_from(value.clamp(0, 255)).expect("clamped")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_colour(rgba: [u8; 4], matrix: Matrix, range: Range) -> [u8; 5] {
        let overlay = Overlay::new(&rgba.repeat(4), 2, 2, matrix, range).unwrap();
        let b = overlay.bytes();
        [b[0], b[4], b[8], b[9], b[10]]
    }

    /// The figures are the standards' own for 100 % bars, rounded by hand from Kr and Kb in real numbers.
    #[test]
    fn bars_have_the_values_of_the_standards() {
        let narrow = |rgb: [u8; 3], matrix| one_colour([rgb[0], rgb[1], rgb[2], 255], matrix, Range::Narrow);
        for matrix in [Matrix::Bt601, Matrix::Bt709] {
            assert_eq!(narrow([255; 3], matrix), [235, 255, 128, 128, 255]);
            assert_eq!(narrow([0; 3], matrix), [16, 255, 128, 128, 255]);
        }
        assert_eq!(narrow([255, 0, 0], Matrix::Bt601), [81, 255, 90, 240, 255]);
        assert_eq!(narrow([0, 255, 0], Matrix::Bt601), [145, 255, 54, 34, 255]);
        assert_eq!(narrow([0, 0, 255], Matrix::Bt601), [41, 255, 240, 110, 255]);
        assert_eq!(narrow([255, 0, 0], Matrix::Bt709), [63, 255, 102, 240, 255]);
        assert_eq!(narrow([0, 255, 0], Matrix::Bt709), [173, 255, 42, 26, 255]);
        assert_eq!(narrow([0, 0, 255], Matrix::Bt709), [32, 255, 240, 118, 255]);
        for matrix in [Matrix::Bt601, Matrix::Bt709] {
            assert_eq!(one_colour([255, 255, 255, 9], matrix, Range::Full), [255, 9, 128, 128, 9]);
            assert_eq!(one_colour([0, 0, 255, 9], matrix, Range::Full)[2], 255);
        }
    }

    #[test]
    fn hidden_pixels_lend_chroma_no_colour() {
        // One red pixel that covers, three green ones that do not.
        let rgba = [[255, 0, 0, 255], [0, 255, 0, 0], [0, 255, 0, 0], [0, 255, 0, 0]].concat();
        let overlay = Overlay::new(&rgba, 2, 2, Matrix::Bt601, Range::Narrow).unwrap();
        assert_eq!(overlay.bytes()[8..], [90, 240, 64]);
    }

    #[test]
    fn a_blend_is_the_nearest_mean_and_leaves_the_rest_alone() {
        for (below, above, alpha) in [(0, 255, 0), (0, 255, 255), (16, 235, 128), (200, 100, 1), (255, 255, 77)] {
            let mut overlay = Overlay::new(&[0; 16], 2, 2, Matrix::Bt709, Range::Full).unwrap();
            overlay.bytes = [vec![above; 4], vec![alpha; 4], vec![above, above, alpha]].concat();
            let (mut y, mut u, mut v) = (vec![below; 35], vec![below; 12], vec![below; 12]);
            let mut picture = PlanesMut {
                y: &mut y,
                u: &mut u,
                v: &mut v,
                stride_y: 7,
                stride_u: 4,
                stride_v: 4,
                width: 6,
                height: 5,
            };
            overlay.blend(&mut picture, 2, 2).unwrap();
            let [d, l, a] = [below, above, alpha].map(f64::from);
            let mean = (d * (255.0 - a) + l * a) / 255.0;
            assert!((f64::from(y[2 * 7 + 2]) - mean).abs() <= 0.5 + 1e-9, "{below} {above} {alpha}: {}", y[16]);
            let inside = |at: usize| (2..4).contains(&(at % 7)) && (2..4).contains(&(at / 7));
            assert!((0..35).all(|at| inside(at) || y[at] == below));
            assert_eq!((u[5], v[5]), (y[16], y[16]));
            assert!((0..12).all(|at| at == 5 || (u[at], v[at]) == (below, below)));
        }
    }

    #[test]
    fn what_can_not_be_an_overlay_is_refused() {
        let new = |bytes: usize, w, h| Overlay::new(&vec![0; bytes], w, h, Matrix::Bt601, Range::Full);
        assert_eq!(new(24, 3, 2), Err(OverlayError::Size { width: 3, height: 2 }));
        assert_eq!(new(0, 0, 0), Err(OverlayError::Size { width: 0, height: 0 }));
        assert_eq!(new(15, 2, 2), Err(OverlayError::Length { bytes: 15, wanted: 16 }));
        assert_eq!(new(20, 2, 2), Err(OverlayError::Length { bytes: 20, wanted: 16 }));
        let overlay = new(16, 2, 2).unwrap();
        for place in [(1, 0), (0, 1), (4, 0), (0, 4), (usize::MAX - 1, 0)] {
            let wanted = Err(OverlayError::Place { x: place.0, y: place.1 });
            assert_eq!(overlay.check(place, (5, 5)), wanted, "{place:?}");
        }
        assert_eq!(overlay.check((2, 2), (5, 5)), Ok(()));
    }
}

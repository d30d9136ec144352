//! The product's own lettering: every glyph is a few strokes (lines and arcs of circles) of one weight with round ends,
//! on a grid whose capitals are six units high.

use super::canvas::{Colour, Mask};
use crate::scale::PlanesMut;

/// Positions in grid units: y grows downward from the top of the capitals, 6 is the baseline.
#[derive(Clone, Copy)]
enum Stroke {
    /// From, to.
    Line([f32; 2], [f32; 2]),
    /// Centre, radius, from and to in degrees, clockwise from three o'clock.
    Arc([f32; 2], f32, [f32; 2]),
}
use Stroke::{Arc, Line};

struct Glyph {
    /// Of the strokes' axes; the next glyph begins `GAP` and one weight further right.
    width: f32,
    strokes: &'static [Stroke],
}

/// Stroke weights in grid units.
pub(super) const BOLD: f32 = 0.95;
pub(super) const REGULAR: f32 = 0.72;

/// Width of `text` with capitals `size` samples high.
pub(super) fn width(text: &str, size: f32, weight: f32) -> f32 {
    let advances: f32 = text.chars().map(|c| glyph(c).width + GAP + weight).sum();
    (advances - GAP) * size / CAP
}

/// Coverage by `text`, 0 to 1, at a position from its top left corner in samples.
pub(super) fn coverage(text: &str, size: f32, weight: f32, x: f32, y: f32) -> f32 {
    let unit = size / CAP;
    let mut left = weight / 2.0;
    for c in text.chars() {
        let glyph = glyph(c);
        let at = [x / unit - left, y / unit];
        if at[0] < glyph.width + weight {
            return glyph.cover(at, weight, unit);
        }
        left += glyph.width + GAP + weight;
    }
    0.0
}

impl Glyph {
    fn cover(&self, at: [f32; 2], weight: f32, unit: f32) -> f32 {
        let nearest = self.strokes.iter().map(|stroke| stroke.distance(at)).fold(f32::MAX, f32::min);
        ((weight / 2.0 - nearest) * unit + 0.5).clamp(0.0, 1.0)
    }
}

impl Stroke {
    fn distance(&self, [x, y]: [f32; 2]) -> f32 {
        match *self {
            Line([ax, ay], [bx, by]) => {
                let (dx, dy) = (bx - ax, by - ay);
                let length = dx * dx + dy * dy;
                let along =
                    if length == 0.0 { 0.0 } else { (((x - ax) * dx + (y - ay) * dy) / length).clamp(0.0, 1.0) };
                (x - ax - along * dx).hypot(y - ay - along * dy)
            }
            Arc([cx, cy], radius, [from, to]) => {
                let angle = (y - cy).atan2(x - cx).to_degrees();
                if (angle - from).rem_euclid(360.0) <= to - from {
                    return ((x - cx).hypot(y - cy) - radius).abs();
                }
                let end = |angle: f32| {
                    let (sin, cos) = angle.to_radians().sin_cos();
                    (x - cx - radius * cos).hypot(y - cy - radius * sin)
                };
                end(from).min(end(to))
            }
        }
    }
}

/// Glyphs of one size ready to be stamped; digits are equally wide, positions even.
pub(super) struct Atlas {
    glyphs: Vec<(char, Mask, usize)>,
}

impl Atlas {
    pub(super) fn new(chars: &str, size: f32) -> Atlas {
        let (unit, weight) = (size / CAP, REGULAR);
        let glyphs = chars.chars().map(|c| {
            let glyph = glyph(c);
            let wide = (glyph.width + weight + GAP) * unit;
            let high = ((CAP + weight) * unit).ceil() as usize + 1;
            let mask = Mask::new(wide.ceil() as usize, high, |x, y| {
                glyph.cover([x / unit - weight / 2.0, y / unit - weight / 2.0], weight, unit)
            });
            (c, mask, ((wide / 2.0).round() as usize).max(1) * 2)
        });
        Atlas { glyphs: glyphs.collect() }
    }

    /// Characters the atlas was not made for are left out.
    pub(super) fn write(&self, out: &mut PlanesMut<'_>, x: usize, y: usize, text: &str, colour: Colour) {
        let mut x = x;
        for c in text.chars() {
            if let Some((_, mask, advance)) = self.glyphs.iter().find(|(have, ..)| *have == c) {
                mask.draw(out, x, y, colour);
                x += advance;
            }
        }
    }
}

/// Height of a capital and space between glyphs, grid units.
const CAP: f32 = 6.0;
const GAP: f32 = 0.75;

fn glyph(c: char) -> Glyph {
    let known = GLYPHS.iter().find(|(have, ..)| *have == c);
    known.map_or(Glyph { width: 1.6, strokes: &[] }, |(_, width, strokes)| Glyph { width: *width, strokes })
}

/// Character, width, strokes.
const GLYPHS: &[(char, f32, &[Stroke])] = &[
    (
        '0',
        3.4,
        &[
            Arc([1.7, 1.7], 1.7, [180.0, 360.0]),
            Arc([1.7, 4.3], 1.7, [0.0, 180.0]),
            Line([0.0, 1.7], [0.0, 4.3]),
            Line([3.4, 1.7], [3.4, 4.3]),
        ],
    ),
    ('1', 3.4, &[Line([0.75, 1.3], [2.2, 0.0]), Line([2.2, 0.0], [2.2, 6.0])]),
    ('2', 3.4, &[Arc([1.7, 1.7], 1.7, [188.0, 400.0]), Line([3.0, 2.79], [0.1, 6.0]), Line([0.1, 6.0], [3.4, 6.0])]),
    (
        '3',
        3.4,
        &[
            Arc([1.7, 1.48], 1.48, [205.0, 450.0]),
            Arc([1.7, 4.48], 1.52, [270.0, 515.0]),
            Line([1.2, 2.96], [1.7, 2.96]),
        ],
    ),
    ('4', 3.4, &[Line([2.6, 6.0], [2.6, 0.0]), Line([2.6, 0.0], [0.0, 4.4]), Line([0.0, 4.4], [3.4, 4.4])]),
    ('5', 3.4, &[Line([3.1, 0.0], [0.5, 0.0]), Line([0.5, 0.0], [0.33, 2.93]), Arc([1.7, 4.2], 1.8, [223.0, 510.0])]),
    ('6', 3.4, &[Arc([1.7, 4.25], 1.75, [0.0, 360.0]), Line([0.2, 3.35], [2.2, 0.0])]),
    ('7', 3.4, &[Line([0.0, 0.0], [3.4, 0.0]), Line([3.4, 0.0], [1.1, 6.0])]),
    ('8', 3.4, &[Arc([1.7, 1.4], 1.4, [0.0, 360.0]), Arc([1.7, 4.4], 1.6, [0.0, 360.0])]),
    ('9', 3.4, &[Arc([1.7, 1.75], 1.75, [0.0, 360.0]), Line([3.2, 2.65], [1.2, 6.0])]),
    ('A', 3.8, &[Line([0.0, 6.0], [1.9, 0.0]), Line([1.9, 0.0], [3.8, 6.0]), Line([0.7, 4.0], [3.1, 4.0])]),
    (
        'C',
        3.4,
        &[Arc([1.8, 1.8], 1.8, [180.0, 330.0]), Arc([1.8, 4.2], 1.8, [30.0, 180.0]), Line([0.0, 1.8], [0.0, 4.2])],
    ),
    (
        'D',
        3.5,
        &[
            Line([0.0, 0.0], [0.0, 6.0]),
            Line([0.0, 0.0], [1.3, 0.0]),
            Line([0.0, 6.0], [1.3, 6.0]),
            Arc([1.3, 2.2], 2.2, [270.0, 360.0]),
            Arc([1.3, 3.8], 2.2, [0.0, 90.0]),
            Line([3.5, 2.2], [3.5, 3.8]),
        ],
    ),
    (
        'E',
        3.0,
        &[
            Line([0.0, 0.0], [0.0, 6.0]),
            Line([0.0, 0.0], [3.0, 0.0]),
            Line([0.0, 2.9], [2.6, 2.9]),
            Line([0.0, 6.0], [3.0, 6.0]),
        ],
    ),
    ('F', 2.9, &[Line([0.0, 0.0], [0.0, 6.0]), Line([0.0, 0.0], [2.9, 0.0]), Line([0.0, 2.9], [2.5, 2.9])]),
    (
        'G',
        3.6,
        &[
            Arc([1.8, 1.8], 1.8, [180.0, 330.0]),
            Arc([1.8, 4.2], 1.8, [0.0, 180.0]),
            Line([0.0, 1.8], [0.0, 4.2]),
            Line([3.6, 4.2], [3.6, 3.3]),
            Line([3.6, 3.3], [2.2, 3.3]),
        ],
    ),
    ('I', 0.0, &[Line([0.0, 0.0], [0.0, 6.0])]),
    ('L', 2.8, &[Line([0.0, 0.0], [0.0, 6.0]), Line([0.0, 6.0], [2.8, 6.0])]),
    (
        'M',
        4.4,
        &[
            Line([0.0, 6.0], [0.0, 0.0]),
            Line([0.0, 0.0], [2.2, 3.6]),
            Line([2.2, 3.6], [4.4, 0.0]),
            Line([4.4, 0.0], [4.4, 6.0]),
        ],
    ),
    ('N', 3.6, &[Line([0.0, 6.0], [0.0, 0.0]), Line([0.0, 0.0], [3.6, 6.0]), Line([3.6, 6.0], [3.6, 0.0])]),
    (
        'O',
        3.6,
        &[
            Arc([1.8, 1.8], 1.8, [180.0, 360.0]),
            Arc([1.8, 4.2], 1.8, [0.0, 180.0]),
            Line([0.0, 1.8], [0.0, 4.2]),
            Line([3.6, 1.8], [3.6, 4.2]),
        ],
    ),
    (
        'P',
        3.2,
        &[
            Line([0.0, 0.0], [0.0, 6.0]),
            Line([0.0, 0.0], [1.6, 0.0]),
            Line([0.0, 3.2], [1.6, 3.2]),
            Arc([1.6, 1.6], 1.6, [270.0, 450.0]),
        ],
    ),
    (
        'R',
        3.4,
        &[
            Line([0.0, 0.0], [0.0, 6.0]),
            Line([0.0, 0.0], [1.7, 0.0]),
            Line([0.0, 3.2], [1.7, 3.2]),
            Arc([1.7, 1.6], 1.6, [270.0, 450.0]),
            Line([1.7, 3.2], [3.4, 6.0]),
        ],
    ),
    ('S', 3.2, &[Arc([1.6, 1.48], 1.48, [90.0, 335.0]), Arc([1.6, 4.48], 1.52, [270.0, 515.0])]),
    ('T', 3.6, &[Line([0.0, 0.0], [3.6, 0.0]), Line([1.8, 0.0], [1.8, 6.0])]),
    ('U', 3.4, &[Line([0.0, 0.0], [0.0, 4.3]), Line([3.4, 0.0], [3.4, 4.3]), Arc([1.7, 4.3], 1.7, [0.0, 180.0])]),
    ('V', 3.8, &[Line([0.0, 0.0], [1.9, 6.0]), Line([1.9, 6.0], [3.8, 0.0])]),
    ('Y', 3.8, &[Line([0.0, 0.0], [1.9, 3.0]), Line([3.8, 0.0], [1.9, 3.0]), Line([1.9, 3.0], [1.9, 6.0])]),
    ('u', 2.8, &[Line([0.0, 2.0], [0.0, 4.6]), Arc([1.4, 4.6], 1.4, [0.0, 180.0]), Line([2.8, 2.0], [2.8, 6.0])]),
    ('n', 2.8, &[Line([0.0, 2.0], [0.0, 6.0]), Arc([1.4, 3.4], 1.4, [180.0, 360.0]), Line([2.8, 3.4], [2.8, 6.0])]),
    (
        'g',
        2.8,
        &[
            Arc([1.4, 3.4], 1.4, [180.0, 360.0]),
            Arc([1.4, 4.6], 1.4, [0.0, 180.0]),
            Line([0.0, 3.4], [0.0, 4.6]),
            Line([2.8, 2.0], [2.8, 6.5]),
            Arc([1.4, 6.5], 1.4, [0.0, 145.0]),
        ],
    ),
    ('×', 2.2, &[Line([0.0, 2.4], [2.2, 4.6]), Line([0.0, 4.6], [2.2, 2.4])]),
    (':', 0.4, &[Line([0.2, 1.8], [0.2, 1.8]), Line([0.2, 4.6], [0.2, 4.6])]),
    ('.', 0.2, &[Line([0.1, 6.0], [0.1, 6.0])]),
    ('-', 2.0, &[Line([0.0, 3.2], [2.0, 3.2])]),
];

//! Where everything stands, and the part of the picture that never changes: painted once, in R'G'B', then turned into
//! 4:2:0 with an ordered dither so that the dark gradient shows no bands.

use rung::media::grid::FrameRate;

use super::font::{self, BOLD, REGULAR};

/// Places in samples, from a design 960 wide and 540 high.
pub(super) struct Layout {
    unit: f32,
    pub(super) clock: Text,
    pub(super) date: Text,
    pub(super) frame: Text,
    pub(super) dial: Dial,
    pub(super) flash: Area,
    pub(super) lane: Lane,
}

/// Top left corner, height of capitals.
pub(super) struct Text {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) size: f32,
}

pub(super) struct Dial {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) radius: f32,
}

pub(super) struct Area {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// The ball's.
pub(super) struct Lane {
    pub(super) left: f32,
    pub(super) right: f32,
    pub(super) top: f32,
    pub(super) floor: f32,
    pub(super) radius: f32,
}

impl Layout {
    pub(super) fn new(width: usize, height: usize) -> Layout {
        let (w, h) = (width as f32, height as f32);
        let unit = (w / 960.0).min(h / 540.0);
        // Rows follow the height, columns the width, sizes the smaller of the two.
        let x = |x: f32| x * w / 960.0;
        let y = |y: f32| y * h / 540.0;
        let even = |v: f32| v as usize / 2 * 2;
        let text = |left: f32, top: f32, size: f32| Text { x: even(x(left)), y: even(y(top)), size: size * unit };
        Layout {
            unit,
            clock: text(44.0, 126.0, 86.0),
            date: text(46.0, 246.0, 24.0),
            frame: text(756.0, 56.0, 24.0),
            dial: Dial { x: even(x(832.0)) as f32, y: even(y(200.0)) as f32, radius: 84.0 * unit },
            flash: Area { x: even(x(600.0)), y: even(y(236.0)), width: even(72.0 * unit), height: even(44.0 * unit) },
            lane: Lane { left: x(44.0), right: x(916.0), top: y(302.0), floor: y(386.0), radius: 15.0 * unit },
        }
    }
}

/// The three planes, without padding.
pub(super) fn paint(layout: &Layout, width: usize, height: usize, rate: FrameRate) -> [Vec<u8>; 3] {
    let mut poster = Poster { width, height, rgb: vec![[0.0; 3]; width * height] };
    poster.background();
    poster.title(layout, rate);
    poster.dial(&layout.dial);
    poster.flash(layout);
    poster.lane(&layout.lane);
    poster.bars();
    poster.into_planes()
}

type Rgb = [f32; 3];

struct Poster {
    width: usize,
    height: usize,
    rgb: Vec<Rgb>,
}

impl Poster {
    /// Blends `colour` over a box, by a coverage asked at sample centres.
    fn cover(&mut self, [left, top, right, bottom]: [f32; 4], colour: Rgb, coverage: impl Fn(f32, f32) -> f32) {
        let limit = |v: f32, most: usize| (v.max(0.0) as usize).min(most);
        for y in limit(top, self.height)..limit(bottom.ceil(), self.height) {
            for x in limit(left, self.width)..limit(right.ceil(), self.width) {
                let alpha = coverage(x as f32 + 0.5, y as f32 + 0.5).clamp(0.0, 1.0);
                let below = &mut self.rgb[y * self.width + x];
                *below = std::array::from_fn(|n| below[n] + (colour[n] - below[n]) * alpha);
            }
        }
    }

    fn text(&mut self, text: &str, [x, y]: [f32; 2], size: f32, weight: f32, colour: Rgb) {
        let bounds = [x, y, x + font::width(text, size, weight) + size, y + size * 1.6];
        self.cover(bounds, colour, |px, py| font::coverage(text, size, weight, px - x, py - y - weight / 12.0 * size));
    }

    fn rounded(&mut self, [left, top, right, bottom]: [f32; 4], radius: f32, colour: Rgb, strength: f32) {
        let (cx, cy) = ((left + right) / 2.0, (top + bottom) / 2.0);
        let (hw, hh) = ((right - left) / 2.0 - radius, (bottom - top) / 2.0 - radius);
        self.cover([left - 1.0, top - 1.0, right + 1.0, bottom + 1.0], colour, |x, y| {
            let (dx, dy) = (((x - cx).abs() - hw).max(0.0), ((y - cy).abs() - hh).max(0.0));
            (radius - dx.hypot(dy) + 0.5).clamp(0.0, 1.0) * strength
        });
    }

    /// Night blue with a warm glow from the right, and a grid of faint lines.
    fn background(&mut self) {
        let (w, h) = (self.width as f32, self.height as f32);
        for (n, rgb) in self.rgb.iter_mut().enumerate() {
            let (x, y) = ((n % self.width) as f32 / w, (n / self.width) as f32 / h);
            let cool = (1.0 - (x - 0.15).hypot(y * 0.9) / 1.1).max(0.0).powi(2);
            let warm = (1.0 - (x - 0.9).hypot((y - 0.35) * 0.8) / 0.75).max(0.0).powi(2);
            *rgb = std::array::from_fn(|c| NIGHT[c] + cool * COOL[c] + warm * WARM[c]);
        }
        let pitch = h / 13.5;
        for column in 1..(w / pitch) as usize + 1 {
            let x = (column as f32 * pitch).round();
            self.cover([x, 0.0, x + 1.0, h], PAPER, |_, _| 0.035);
        }
        for row in 1..14 {
            let y = (row as f32 * pitch).round();
            self.cover([0.0, y, w, y + 1.0], PAPER, |_, _| 0.035);
        }
    }

    /// The mark (three rungs, each shorter), the name, what the signal is, and the labels of what changes.
    fn title(&mut self, layout: &Layout, rate: FrameRate) {
        let (w, h, unit) = (self.width as f32, self.height as f32, layout.unit);
        let at = |x: f32, y: f32| [x * w / 960.0, y * h / 540.0];
        let [x, y] = at(46.0, 36.0);
        self.rounded([x, y, x + 50.0 * unit, y + 50.0 * unit], 11.0 * unit, GOLD, 1.0);
        for (n, long) in [30.0, 22.0, 14.0].into_iter().enumerate() {
            let top = y + (12.0 + 10.5 * n as f32) * unit;
            self.rounded([x + 10.0 * unit, top, x + (10.0 + long) * unit, top + 5.5 * unit], 2.75 * unit, NIGHT, 1.0);
        }
        self.text("Rung", at(112.0, 40.0), 40.0 * unit, BOLD, PAPER);
        let beside = 112.0 + font::width("Rung", 40.0, BOLD) * unit * 960.0 / w + 26.0;
        let [x, y] = at(beside, 40.0);
        self.cover([x, y, x + 2.0 * unit, y + 40.0 * unit], PAPER, |_, _| 0.25);
        self.text("LIVE TRANSCODER", at(beside + 18.0, 42.0), 13.0 * unit, REGULAR, SLATE);
        let hertz = (rate.hz() * 100.0).round() / 100.0;
        let format = format!("{} × {}  {hertz} FPS", self.width, self.height);
        self.text(&format, at(beside + 18.0, 65.0), 13.0 * unit, REGULAR, SLATE);
        let frame = &layout.frame;
        let above = frame.y as f32 - 20.0 * h / 540.0;
        self.text("FRAME", [frame.x as f32, above], 13.0 * unit, REGULAR, SLATE);
        let date = &layout.date;
        let after = date.x as f32 + 216.0 * unit;
        self.text("UTC", [after, date.y as f32], date.size, REGULAR, [1.0, 0.70, 0.22]);
    }

    fn dial(&mut self, dial: &Dial) {
        let (x, y, radius) = (dial.x, dial.y, dial.radius);
        let bounds = |r: f32| [x - r - 1.0, y - r - 1.0, x + r + 1.0, y + r + 1.0];
        let distance = |px: f32, py: f32| (px - x).hypot(py - y);
        self.cover(bounds(radius), NIGHT, |px, py| (radius - distance(px, py) + 0.5).clamp(0.0, 1.0) * 0.72);
        let line = radius * 0.024;
        self.cover(bounds(radius), PAPER, |px, py| (line - (distance(px, py) - radius + line).abs() + 0.5) * 0.9);
        // Ticks every twelfth, the long ones every quarter.
        for tick in 0..60 {
            let (sin, cos) = (tick as f32 * std::f32::consts::TAU / 60.0).sin_cos();
            let (from, half) = match tick % 15 {
                0 => (0.72, 0.017),
                5 | 10 => (0.80, 0.012),
                _ => (0.88, 0.006),
            };
            self.cover(bounds(radius), PAPER, |px, py| {
                let (dx, dy) = (px - x, py - y);
                let (along, aside) = (dx * sin - dy * cos, dx * cos + dy * sin);
                let inside = (along - from * radius).min(0.93 * radius - along);
                ((half * radius - aside.abs() + 0.5).min(inside + 0.5)).clamp(0.0, 1.0) * 0.8
            });
        }
    }

    /// Black with a thin frame; `Painter::paint` whitens the inside.
    fn flash(&mut self, layout: &Layout) {
        let (flash, unit) = (&layout.flash, layout.unit);
        let [left, top] = [flash.x as f32, flash.y as f32];
        let [right, bottom] = [left + flash.width as f32, top + flash.height as f32];
        let rim = 4.0 * unit;
        self.rounded([left - rim, top - rim, right + rim, bottom + rim], rim, SLATE, 0.9);
        self.cover([left - 1.0, top - 1.0, right + 1.0, bottom + 1.0], [0.0; 3], |_, _| 1.0);
        let wide = font::width("SYNC", 13.0 * unit, REGULAR);
        let middle = (top + bottom) / 2.0 - 6.5 * unit;
        self.text("SYNC", [left - rim - wide - 14.0 * unit, middle], 13.0 * unit, REGULAR, SLATE);
    }

    fn lane(&mut self, lane: &Lane) {
        let thick = (lane.radius * 0.12).max(1.0);
        self.cover([lane.left, lane.floor, lane.right, lane.floor + thick], PAPER, |_, _| 0.55);
        // A tick for each second of the ball's way: where it touches the floor.
        let way = lane.right - lane.left - 2.0 * lane.radius;
        for second in 0..5 {
            let x = lane.left + lane.radius + way * second as f32 / 4.0;
            self.cover([x - thick, lane.floor, x + thick, lane.floor + thick * 4.0], PAPER, |_, _| 0.55);
        }
    }

    /// 75 % bars over a ramp from black to white; below them the grey bed of the strips.
    fn bars(&mut self) {
        let (w, h) = (self.width as f32, self.height as f32);
        let (top, ramp, foot) = (h * 402.0 / 540.0, h * 434.0 / 540.0, (self.height * 10 / 12) as f32);
        for bar in 0..8 {
            let level = |bit: usize| if bar >> bit & 1 == 0 { 0.75 } else { 0.0 };
            let edges = [w * bar as f32 / 8.0, top.round(), w * (bar + 1) as f32 / 8.0, ramp.round()];
            self.cover(edges.map(f32::round), [level(1), level(2), level(0)], |_, _| 1.0);
        }
        for y in ramp.round() as usize..foot as usize {
            for x in 0..self.width {
                self.rgb[y * self.width + x] = [(x as f32 + 0.5) / w; 3];
            }
        }
        self.cover([0.0, foot, w, h], [0.0; 3], |_, _| 1.0);
    }

    fn into_planes(self) -> [Vec<u8>; 3] {
        let (width, height) = (self.width, self.height);
        let yuv = |[r, g, b]: Rgb| {
            let colour = super::Colour::rgb(r, g, b);
            [colour.y, colour.u, colour.v]
        };
        let store = |value: f32, x: usize, y: usize| (value + DITHER[y % 4][x % 4] / 16.0).clamp(0.0, 255.0) as u8;
        let at = |x: usize, y: usize| yuv(self.rgb[y.min(height - 1) * width + x.min(width - 1)]);
        let luma = (0..width * height).map(|n| store(at(n % width, n / width)[0], n % width, n / width)).collect();
        let half = (width.div_ceil(2), height.div_ceil(2));
        let chroma = |plane: usize| {
            (0..half.0 * half.1)
                .map(|n| {
                    let (x, y) = (n % half.0, n / half.0);
                    // Left-sited: the samples left and right of an even one count half.
                    let row = |y: usize| {
                        let [before, here, after] = [(2 * x).saturating_sub(1), 2 * x, 2 * x + 1];
                        at(before, y)[plane] + 2.0 * at(here, y)[plane] + at(after, y)[plane]
                    };
                    store((row(2 * y) + row(2 * y + 1)) / 8.0, x, y)
                })
                .collect()
        };
        [luma, chroma(1), chroma(2)]
    }
}

const NIGHT: Rgb = [0.035, 0.055, 0.11];
const COOL: Rgb = [0.05, 0.17, 0.34];
const WARM: Rgb = [0.26, 0.09, 0.16];
const PAPER: Rgb = [0.97, 0.98, 1.0];
const SLATE: Rgb = [0.62, 0.70, 0.82];
const GOLD: Rgb = [1.0, 0.70, 0.22];
/// Thresholds in sixteenths, each once.
const DITHER: [[f32; 4]; 4] =
    [[0.5, 8.5, 2.5, 10.5], [12.5, 4.5, 14.5, 6.5], [3.5, 11.5, 1.5, 9.5], [15.5, 7.5, 13.5, 5.5]];

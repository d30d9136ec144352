//! Purpose: the demo's test picture and tone: a clock to read, motion to judge smoothness by, a flash and a beep to
//! measure lip sync by, bars, and two strips that machines read (`strip`).
//! Time: frame n is shown at n / rate seconds of media time; the clock and the upper strip show `wall`.
//! Invariants: a picture is a function of (size, rate, frame, wall), a sample of (hz, rate, index). 8 bit BT.709,
//! limited range, chroma left-sited.
//! When it fails: never; a target of another size than the painter's is a bug and asserts.
//!
//! Once a second, at its start: the flash block is white for 40 ms, the beep sounds for 40 ms, the sweep passes twelve
//! o'clock and the ball touches the floor.

mod canvas;
mod font;
mod poster;
mod strip;
mod tone;

use rung::media::grid::FrameRate;
use rung::time::Wall;

use crate::scale::PlanesMut;
use canvas::{Colour, Sweep};
use font::Atlas;
use poster::Layout;

pub use strip::{Strip, read_strip};
pub use tone::tone;

/// Paints frames of one size and rate. What never changes is painted once, at the start.
pub struct Painter {
    width: usize,
    height: usize,
    rate: FrameRate,
    layout: Layout,
    base: [Vec<u8>; 3],
    clock: Atlas,
    small: Atlas,
    sweep: Sweep,
}

impl Painter {
    /// # Panics
    /// A side of 0 or above 8192.
    pub fn new(width: u32, height: u32, rate: FrameRate) -> Painter {
        for side in [width, height] {
            assert!((1..=8192).contains(&side), "a picture's side is 1..=8192, not {side}");
        }
        let (width, height) = (width as usize, height as usize);
        let layout = Layout::new(width, height);
        Painter {
            width,
            height,
            rate,
            base: poster::paint(&layout, width, height, rate),
            clock: Atlas::new("0123456789:", layout.clock.size),
            small: Atlas::new("0123456789-", layout.frame.size),
            sweep: Sweep::new(layout.dial.radius * 0.86),
            layout,
        }
    }

    /// # Panics
    /// A picture of another size, or planes shorter than their size and stride say.
    pub fn paint(&mut self, frame: u32, wall: Wall, out: &mut PlanesMut<'_>) {
        assert!((out.width, out.height) == (self.width, self.height), "the picture has the painter's size");
        canvas::copy(&self.base, out);
        let layout = &self.layout;
        let utc = wall.to_string();
        let time = format!("{}:{:02}", &utc[11..19], self.frame_of_second(wall));
        self.clock.write(out, layout.clock.x, layout.clock.y, &time, WHITE);
        self.small.write(out, layout.date.x, layout.date.y, &utc[..10], MIST);
        self.small.write(out, layout.frame.x, layout.frame.y, &format!("{frame:08}"), MIST);
        let second = self.phase(frame, 1);
        self.sweep.draw(out, layout.dial.x, layout.dial.y, second, AMBER);
        self.draw_ball(out, frame);
        if self.flashes(frame) {
            let flash = &layout.flash;
            canvas::fill_luma(out, flash.x, flash.y, flash.x + flash.width, flash.y + flash.height, strip::WHITE);
        }
        strip::write(out, Strip::Frame, frame);
        strip::write(out, Strip::Time, strip::hundredths(wall));
    }

    /// Whether `frame` lies in the first 40 ms of a second of media time.
    pub fn flashes(&self, frame: u32) -> bool {
        let (num, den) = (u64::from(self.rate.num), u64::from(self.rate.den));
        u64::from(frame) * den % num * 1000 < tone::BEEP_MS * num
    }

    /// Where `frame` lies in a period of so many whole seconds, 0 to 1.
    fn phase(&self, frame: u32, seconds: u64) -> f32 {
        let period = u64::from(self.rate.num) * seconds;
        let at = u64::from(frame) * u64::from(self.rate.den) % period;
        (at as f64 / period as f64) as f32
    }

    /// The FF of the clock: frames since the wall clock's second began.
    fn frame_of_second(&self, wall: Wall) -> i64 {
        let nanos = i128::from(wall.0.rem_euclid(1_000_000_000));
        let frames = nanos * i128::from(self.rate.num) / (i128::from(self.rate.den) * 1_000_000_000);
        i64::try_from(frames).unwrap_or(0)
    }

    /// Across the lane and back in eight seconds at constant speed; on the floor at every whole second.
    fn draw_ball(&self, out: &mut PlanesMut<'_>, frame: u32) {
        let lane = &self.layout.lane;
        let (across, bounce) = (self.phase(frame, 8), self.phase(frame, 1));
        let along = 1.0 - (2.0 * across - 1.0).abs();
        let x = lane.left + lane.radius + along * (lane.right - lane.left - 2.0 * lane.radius);
        let lift = 4.0 * bounce * (1.0 - bounce);
        let y = lane.floor - lane.radius - lift * (lane.floor - lane.top - 2.0 * lane.radius);
        let squash = 1.0 + 1.2 * lift;
        let (shadow_w, shadow_h) = (lane.radius * squash, lane.radius * 0.22);
        let soft = 0.42 / squash;
        canvas::cover(out, x, lane.floor + shadow_h, shadow_w, shadow_h * 1.5, INK, |dx, dy| {
            let d = (dx / shadow_w).hypot(dy / shadow_h);
            soft * (1.0 - d).clamp(0.0, 1.0) * 2.0
        });
        let radius = lane.radius;
        canvas::cover(out, x, y, radius, radius, AMBER, |dx, dy| radius - dx.hypot(dy) + 0.5);
        let shine = radius * 0.42;
        canvas::cover(out, x - radius * 0.3, y - radius * 0.34, shine, shine, WHITE, |dx, dy| {
            (1.0 - dx.hypot(dy) / shine).clamp(0.0, 1.0) * 0.75
        });
    }
}

const WHITE: Colour = Colour::rgb(0.97, 0.98, 1.0);
const MIST: Colour = Colour::rgb(0.72, 0.79, 0.90);
const AMBER: Colour = Colour::rgb(1.0, 0.70, 0.22);
const INK: Colour = Colour::rgb(0.01, 0.02, 0.05);

#[cfg(test)]
mod tests;

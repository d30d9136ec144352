//! What posters, snapshots and storyboard tiles cost on the `pictures` thread, in processor time.
//! `cargo bench -p rung-worker --bench pictures`.
//!
//! Content: the demo's test picture, whose clock, bars and counter are as hard as a broadcast's graphics, with grain.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use nix::sys::resource::{UsageWho, getrusage};
use rung::media::grid::FrameRate;
use rung::media::picture::{Due, PictureRule, SHEET_TILES};
use rung::media::track::Colour;
use rung::time::Wall;
use rung_worker::pattern::Painter;
use rung_worker::thumbnail::{Image, Look, Maker, Pixels, Wanted};

const ROUNDS: i64 = 100;

fn main() {
    let rate = FrameRate::new(25_000, 1_000);
    let rule = PictureRule::of(rate);
    let colour = Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false };
    for (width, height, sar) in [(640, 360, (1, 1)), (384, 216, (1, 1)), (720, 480, (32, 27)), (1280, 720, (1, 1))] {
        let picture = painted(width, height, rate);
        let look = Look { sar, colour, source_height: height };
        let planes = picture.planes();
        let poster = Wanted { due: Due { poster: true, tile: false }, snap: false };
        let mut maker = Maker::new(look, Some(rule));
        let mut bytes = 0;
        let ms = cost(|n| bytes = maker.make(n, poster, &planes).first().map_or(0, |made| made.jpeg.len()));
        println!("{width}x{height}: poster {ms:.2} ms, {} KB", bytes / 1_000);
        let tile = Wanted { due: Due { poster: false, tile: true }, snap: false };
        let mut maker = Maker::new(look, Some(rule));
        let whole = cost(|n| {
            let made = maker.make(n % i64::from(SHEET_TILES) * i64::from(rule.tile), tile, &planes);
            bytes = made.first().map_or(0, |made| made.jpeg.len());
        });
        let kb = bytes / 1_000;
        println!("{width}x{height}: tile with its sheet {whole:.2} ms on average of 100, {kb} KB the last");
    }
}

fn painted(width: u32, height: u32, rate: FrameRate) -> Image {
    let mut image = Image::new(width as usize, height as usize, (16, 128, 128));
    let mut painter = Painter::new(width, height, rate);
    painter.paint(77, Wall(1_700_000_000_000_000_000), &mut image.planes_mut());
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for y in image.planes_mut().y.iter_mut() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *y = y.wrapping_add((state & 3) as u8);
    }
    image
}

/// Milliseconds of processor time a round.
fn cost(mut round: impl FnMut(i64)) -> f64 {
    let before = cpu();
    (0..ROUNDS).for_each(&mut round);
    (cpu() - before) / ROUNDS as f64
}

fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("a thread has a clock");
    [usage.user_time(), usage.system_time()].iter().map(|t| t.tv_sec() as f64 * 1e3 + t.tv_usec() as f64 / 1e3).sum()
}

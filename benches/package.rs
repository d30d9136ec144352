//! What packaging costs: a part cut and listed, a playlist rendered, an answer shared. `cargo bench --bench package`.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

#[path = "../tests/package/world.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod world;

use rung::media::modes::LatencyMode;
use rung::package::window::{Answer, Directives};
use rung::time::SystemClock;
use world::World;

fn main() {
    part("360p 25 fps, 0.3 kB a frame", 300);
    part("1080p 25 fps, 25 kB a frame (5 Mb/s)", 25_000);
    playlists();
    listing();
}

/// Microseconds each, over `count` times; the least of five rounds.
fn least(count: u32, mut round: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = SystemClock::mono();
        round();
        best = best.min((SystemClock::mono() - start).as_secs_f64() * 1e6 / f64::from(count));
    }
    best
}

fn part(name: &str, size: usize) {
    // Samples are made beforehand: only cutting and listing is timed.
    let mut world = World::new(25.0, LatencyMode::Ultra).video("v");
    world.feeders[0].size = size;
    world.run_to(120_000);
    let (mut n, mut spent) = (3_000, std::time::Duration::ZERO);
    let cost = least(500, || {
        let samples: Vec<_> = (n..n + 5_000).map(|n| world.sample(0, n)).collect();
        n += 5_000;
        let start = SystemClock::mono();
        for (sample, place) in samples {
            world.feeders[0].segmenter.push(world.now, sample, place);
        }
        spent += SystemClock::mono() - start;
    });
    let spent = spent.as_secs_f64() * 1e6 / 2_500.0;
    println!("part, {name}: {spent:.2} us (with making its samples {cost:.2} us)");
}

/// A version nobody has asked for yet: text, gzip and entity tag.
fn playlists() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("v").video("w").audio("a-eng-1", 48_000);
    world.run_to(120_000);
    let output = world.output(0);
    let mut ms = 120_000;
    let mut spent = std::time::Duration::ZERO;
    let mut bytes = (0, 0);
    for _ in 0..1_000 {
        ms += 400;
        world.run_to(ms);
        let start = SystemClock::mono();
        let Answer::Now(list) = output.playlist(world.now, world.now, &Directives::default()) else { panic!("none") };
        spent += SystemClock::mono() - start;
        bytes = (list.plain.len(), list.gzip.len());
    }
    println!("playlist, first asker: {:.2} us, {bytes:?} bytes plain and gzip", spent.as_secs_f64() * 1e6 / 1_000.0);
    let shared = least(100_000, || {
        for _ in 0..100_000 {
            assert!(matches!(output.playlist(world.now, world.now, &Directives::default()), Answer::Now(_)));
        }
    });
    println!("playlist, every other asker: {shared:.3} us");
}

fn listing() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("v");
    world.run_to(120_000);
    let output = world.output(0);
    let msn = output.facts().last.unwrap().0;
    let segment = least(100_000, || {
        for _ in 0..100_000 {
            assert!(matches!(output.segment(world.now, world.now, msn - 1), Answer::Now(_)));
        }
    });
    println!("segment, as a list of its parts: {segment:.3} us");
}

//! NVENC: how many sessions open, pictures a second with 1 to N of them, and milliseconds from a picture to its bytes.

use rung::media::grid::Cadence;
use rung::media::modes::LatencyMode;
use rung::time::SystemClock;
use rung_worker::gpu::Depth;
use rung_worker::gpu::cuda::{Event, Stream, Timing};
use rung_worker::gpu::nvenc::{Api, Codec, Encoder, Format};
use rung_worker::gpu::watch::Watch;
use std::sync::Arc;

use super::decode::joined;
use crate::Extent;
use crate::card::Card;
use crate::checks::encode::{api, paint, rendition};
use crate::report::{Found, Report, Trouble, median, quantile};

/// Sessions that are tried.
const SESSIONS: u32 = 64;

pub(crate) fn run(card: &Card, extent: Extent, report: &mut Report) -> Found<String> {
    let api = api(card)?;
    let sessions = api.sessions_available(card.device(), SESSIONS, &Watch::new("sessions"))?;
    let size = extent.of((1920, 1080), (320, 180));
    let frames = extent.of(300, 6);
    let mut rows = Vec::new();
    for codec in [Codec::H264, Codec::Hevc] {
        if api.caps(card.device(), codec, &Watch::new("caps"))?.is_none() {
            continue;
        }
        for count in [1, 2, 4, 8].into_iter().filter(|n| *n <= sessions && (extent == Extent::Whole || *n < 4)) {
            let (rate, times) = encoded(card, &api, codec, size, count, frames)?;
            rows.push(vec![
                format!("{codec:?} {}p, {count} sessions", size.1),
                format!("{rate:.0}"),
                format!("{:.1}", median(times.clone())),
                format!("{:.1}", quantile(times, 0.99)),
            ]);
        }
    }
    report.table(&["NVENC, `ultra`", "pictures/s of all", "ms to bytes, median", "p99"], &rows);
    report.answer("NVENC sessions that open", format!("{sessions} of {SESSIONS} tried"));
    Ok(format!("{sessions} sessions open"))
}

fn encoded(
    card: &Card,
    api: &Arc<Api>,
    codec: Codec,
    size: (u32, u32),
    sessions: u32,
    frames: i64,
) -> Found<(f64, Vec<f64>)> {
    let start = SystemClock::mono();
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..sessions).map(|_| scope.spawn(|| session(card, api, codec, size, frames))).collect();
        threads.into_iter().map(joined).collect::<Found<Vec<Vec<f64>>>>()
    })?;
    let seconds = SystemClock::mono().since(start).as_secs_f64();
    Ok((f64::from(sessions) * frames as f64 / seconds, times.concat()))
}

/// Milliseconds of each frame.
fn session(card: &Card, api: &Arc<Api>, codec: Codec, size: (u32, u32), frames: i64) -> Found<Vec<f64>> {
    let (watch, stream) = (Watch::new("encode"), Stream::new(card.device())?);
    let format = Format { codec, depth: Depth::Eight };
    let cadence = Cadence::for_rate(25.0, LatencyMode::Ultra);
    let mut encoder = Encoder::open(api, card.device(), &rendition(size, 6_000_000), format, cadence, 4, &watch)?;
    // Painted once each: what is measured is the encoder.
    let pool = encoder.inputs().clone();
    let surfaces: Vec<_> = std::iter::from_fn(|| pool.try_take()).take(4).collect();
    for (surface, level) in surfaces.iter().zip([60, 90, 120, 150]) {
        paint(card, &stream, surface, level)?;
    }
    let ready = Event::new(card.device(), Timing::Off)?;
    ready.record(&stream)?;
    let mut times = Vec::new();
    for n in 0..frames {
        let start = SystemClock::mono();
        let surface = surfaces.get(n as usize % surfaces.len().max(1));
        let surface = surface.ok_or_else(|| Trouble::Fail("the encoder has no surface".to_owned()))?;
        encoder.push(surface, n, n % 50 == 0, &ready)?;
        while encoder.pull(0)?.is_some() {
            times.push(SystemClock::mono().since(start).as_secs_f64() * 1e3);
        }
    }
    encoder.drain()?;
    while encoder.pull(0)?.is_some() {}
    Ok(times)
}

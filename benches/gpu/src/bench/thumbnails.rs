//! Thumbnails: a small picture scaled on the card and copied to the host, and the JPEG that one core makes of it.

use rung::media::crop::Margins;
use rung::media::track::Colour;
use rung::time::SystemClock;
use rung_worker::gpu::Depth;
use rung_worker::gpu::cuda::Stream;
use rung_worker::gpu::memory::{Block, Pinned};
use rung_worker::gpu::nvdec::Surface;
use rung_worker::gpu::watch::Watch;
use rung_worker::picture::planar::Ring;
use rung_worker::scale::Planes;
use rung_worker::scale::device::{Inputs, Ladder, Patience, Slot};
use rung_worker::thumbnail::{Look, Tones, jpeg};
use std::sync::Arc;

use super::cpu_seconds;
use crate::Extent;
use crate::card::Card;
use crate::checks::noise;
use crate::report::{Found, Report, Trouble};

const SOURCE: (usize, usize) = (1920, 1080);

pub(crate) fn run(card: &Card, extent: Extent, report: &mut Report) -> Found<String> {
    let mut rows = Vec::new();
    let count = extent.of(1_000, 2);
    for (width, height) in [(160, 90), (320, 180), (640, 360)] {
        let (plain, _) = rate(card, (width, height), count, false)?;
        let (whole, cpu) = rate(card, (width, height), count.min(400), true)?;
        rows.push(vec![
            format!("{width}x{height} of 1080p"),
            format!("{plain:.0}"),
            format!("{whole:.0}"),
            format!("{:.2}", cpu * 1e3),
        ]);
        if width == 320 {
            report.answer(
                "thumbnails a second, 320x180, one thread",
                format!("{whole:.0} with the JPEG, {plain:.0} without"),
            );
        }
    }
    let head = ["thumbnail, one thread", "scaled and copied a second", "and made a JPEG of", "CPU-ms each"];
    report.table(&head, &rows);
    Ok(String::new())
}

/// A second, and seconds of processor time each.
fn rate(card: &Card, (width, height): (usize, usize), count: usize, jpegs: bool) -> Found<(f64, f64)> {
    let device = card.device();
    let stream = Arc::new(Stream::new(device)?);
    let pitch = 2048;
    let source = Block::holding(device, &noise(pitch * SOURCE.1 * 3 / 2))?;
    let surface = Surface {
        luma: source.address(),
        chroma: source.address() + (pitch * SOURCE.1) as u64,
        pitch: pitch as u32,
        width: SOURCE.0 as u32,
        height: SOURCE.1 as u32,
        depth: Depth::Eight,
        tag: 0,
        second: false,
        damaged: false,
    };
    let ring = Ring::new(device, width, height, 2)?;
    let size = (width as u32, height as u32);
    let mut ladder =
        Ladder::new(&card.gpu, &stream, vec![(size, Inputs::Planar(ring))], Margins::default(), Watch::new("bench"));
    let half = width / 2;
    let mut host = Pinned::new(device, width * height * 3 / 2)?;
    let colour = Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false };
    let tones = Tones::of(Look { sar: (1, 1), colour, source_height: 1080 });
    let (start, cpu) = (SystemClock::mono(), cpu_seconds());
    for _ in 0..count {
        let scaled = ladder.scale(&surface, |_| Patience::Waits)?;
        scaled.ready.wait()?;
        let Some(Slot::Planar(planar)) = scaled.slot(0) else {
            return Err(Trouble::Fail("no picture".to_owned()));
        };
        planar.download(&stream, &mut host, [width, half, half])?;
        if jpegs {
            let (y, chroma) = host.bytes().split_at(width * height);
            let (u, v) = chroma.split_at(half * height / 2);
            let planes = Planes { y, u, v, stride_y: width, stride_u: half, stride_v: half, width, height };
            jpeg(&planes, &tones).ok_or_else(|| Trouble::Fail("no JPEG".to_owned()))?;
        }
    }
    let seconds = SystemClock::mono().since(start).as_secs_f64();
    Ok((count as f64 / seconds, (cpu_seconds() - cpu) / count as f64))
}

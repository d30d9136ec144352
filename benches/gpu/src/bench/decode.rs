//! NVDEC: pictures a second with 1 to N sessions, latency in frames and milliseconds, memory.

use rung::time::SystemClock;
use rung_worker::gpu::cuda::Stream;
use rung_worker::gpu::nvdec::{Decoder, Fields};
use rung_worker::gpu::watch::Watch;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use super::{cpu_seconds, mib, pause};
use crate::Extent;
use crate::card::Card;
use crate::clips::{Clip, Clips};
use crate::report::{Found, Report, Trouble, median, quantile};

pub(crate) fn rates(card: &Card, clips: &Clips, extent: Extent, report: &mut Report) -> Found<String> {
    card.needs_decoder()?;
    let sessions: &[usize] = if extent == Extent::Whole { &[1, 2, 4, 8, 16, 32] } else { &[1, 2] };
    let span = Duration::from_millis(extent.of(2_500, 50));
    let (mut rows, mut best) = (Vec::new(), BTreeMap::new());
    for name in ["h264", "h264-no-b", "hevc", "hevc-10", "hevc-large", "mpeg2"] {
        let clip = clips.load(name)?;
        let mut row = vec![format!("{name} {}x{}", clip.config.width, clip.config.height)];
        let mut cost = 0.0;
        for count in sessions {
            let before = cpu_seconds();
            let (rate, pictures) = rate(card, &clip, *count, span)?;
            cost = (cpu_seconds() - before) * 1e3 / pictures;
            row.push(format!("{rate:.0}"));
            let most = best.entry(name).or_insert(0.0_f64);
            *most = most.max(rate);
        }
        row.push(format!("{cost:.2}"));
        rows.push(row);
    }
    let head: Vec<String> = ["pictures a second of all sessions".to_owned()]
        .into_iter()
        .chain(sessions.iter().map(|count| format!("{count} sessions")))
        .chain(["CPU-ms a picture at the most sessions".to_owned()])
        .collect();
    report.table(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
    let best: Vec<String> = best.iter().map(|(name, rate)| format!("{name} {rate:.0}")).collect();
    report.answer("3. NVDEC, pictures a second of all sessions at best", best.join(", "));
    Ok(format!("{:.1} s each", span.as_secs_f64()))
}

/// Pictures a second of `sessions` threads that decode flat out for `span`, and how many pictures were decoded in all.
fn rate(card: &Card, clip: &Clip, sessions: usize, span: Duration) -> Found<(f64, f64)> {
    let (counted, all, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (ready, counting) = (Barrier::new(sessions + 1), AtomicBool::new(false));
    let seconds = std::thread::scope(|scope| {
        let session = || -> Found<()> {
            let opened = open(card, clip);
            // Also without a decoder: the others wait.
            let mut waits = Some(());
            let mut wait = || {
                if waits.take().is_some() {
                    ready.wait();
                }
            };
            let (mut decoder, stream) = match opened {
                Ok(opened) => opened,
                Err(trouble) => {
                    wait();
                    return Err(trouble);
                }
            };
            let mut failed = Ok(());
            for (n, (at, unit)) in clip.looped().enumerate() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if n == clip.units.len().min(25) {
                    wait();
                }
                let pushed = decoder.push(&unit.data, at, &mut |_| {
                    all.fetch_add(1, Ordering::Relaxed);
                    if counting.load(Ordering::Relaxed) {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                });
                if let Err(error) = pushed {
                    failed = Err(error.into());
                    break;
                }
            }
            wait();
            stream.wait_done()?;
            failed
        };
        let threads: Vec<_> = (0..sessions).map(|_| scope.spawn(session)).collect();
        ready.wait();
        let start = SystemClock::mono();
        counting.store(true, Ordering::Relaxed);
        pause(span);
        counting.store(false, Ordering::Relaxed);
        let seconds = SystemClock::mono().since(start).as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let ended: Vec<Found<()>> = threads.into_iter().map(joined).collect();
        ended.into_iter().collect::<Found<Vec<()>>>().map(|_| seconds)
    })?;
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed) as f64;
    Ok((count(&counted) / seconds, count(&all).max(1.0)))
}

/// What a thread came to.
pub(crate) fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Found<T>>) -> Found<T> {
    thread.join().unwrap_or_else(|_| Err(Trouble::Fail("a thread stopped".to_owned())))
}

fn open(card: &Card, clip: &Clip) -> Found<(Decoder, Arc<Stream>)> {
    let stream = Arc::new(Stream::new(card.device())?);
    Ok((Decoder::open(&stream, clip.codec(), &[], Fields::Frame, &Watch::new("bench"))?, stream))
}

/// One session: how many units later than its own a picture is shown, and how long after its unit was given.
pub(crate) fn latency(card: &Card, clips: &Clips, extent: Extent, report: &mut Report) -> Found<String> {
    card.needs_decoder()?;
    let mut rows = Vec::new();
    for name in ["h264-no-b", "h264", "hevc-no-b", "hevc", "hevc-10", "mpeg2"] {
        let clip = clips.load(name)?;
        let (mut decoder, stream) = open(card, &clip)?;
        let (mut given, mut frames, mut times) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (n, (at, unit)) in clip.looped().take(extent.of(4, 1) * clip.units.len()).enumerate() {
            given.insert(at, (n, SystemClock::mono()));
            decoder.push(&unit.data, at, &mut |surface| {
                // Mapping waits for the decoder, this for what runs behind it.
                stream.wait_done()?;
                if let Some((own, when)) = given.get(&surface.tag) {
                    frames.push((n - own) as f64);
                    times.push(SystemClock::mono().since(*when).as_secs_f64() * 1e3);
                }
                Ok(())
            })?;
        }
        decoder.drain(&mut |_| Ok(()))?;
        let most = frames.iter().copied().fold(0.0, f64::max);
        if name == "h264-no-b" || name == "h264" {
            let question = if name == "h264" {
                "3. latency in frames, H.264 with B frames"
            } else {
                "3. latency in frames, H.264 without B frames, delay 0"
            };
            report.answer(question, format!("{most:.0} at most, {:.0} in the middle", median(frames.clone())));
        }
        rows.push(vec![
            name.to_owned(),
            format!("{:.0}", median(frames.clone())),
            format!("{most:.0}"),
            format!("{:.1}", median(times.clone())),
            format!("{:.1}", quantile(times, 0.99)),
        ]);
    }
    let head = ["one session, flat out", "units until shown, median", "most", "ms until decoded, median", "p99"];
    report.table(&head, &rows);
    Ok("display delay 0, end of picture told".to_owned())
}

pub(crate) fn memory(card: &Card, clips: &Clips, report: &mut Report) -> Found<String> {
    const DECODERS: u64 = 4;
    card.needs_decoder()?;
    let mut rows = Vec::new();
    for name in ["h264-no-b", "h264", "hevc", "hevc-10", "hevc-large", "mpeg2", "h264-fields"] {
        let clip = clips.load(name)?;
        let before = card.free()?;
        let mut open_ones = Vec::new();
        for _ in 0..DECODERS {
            let (mut decoder, stream) = open(card, &clip)?;
            for unit in clip.units.iter().take(8) {
                decoder.push(&unit.data, unit.at, &mut |_| Ok(()))?;
            }
            stream.wait_done()?;
            open_ones.push(decoder);
        }
        let used = before.saturating_sub(card.free()?) as f64 / DECODERS as f64;
        rows.push(vec![format!("{name} {}x{}", clip.config.width, clip.config.height), mib(used)]);
        if name == "h264" || name == "hevc-10" {
            let question =
                if name == "h264" { "3. memory of a decoder, H.264" } else { "3. memory of a decoder, HEVC 10 bit" };
            report.answer(question, format!("{} MiB, mean of {DECODERS}", mib(used)));
        }
    }
    report.table(&["decoder", "MiB of the card's memory"], &rows);
    Ok(String::new())
}

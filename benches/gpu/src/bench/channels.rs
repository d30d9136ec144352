//! How many channels a card decodes and scales: flat out, and in real time with their lateness. A channel is the product's
//! own: one thread that decodes and launches the ladder, one that fetches its pictures.

use rung::media::crop::Margins;
use rung::time::{Mono, SystemClock};
use rung_worker::gpu::cuda::Stream;
use rung_worker::gpu::memory::Pinned;
use rung_worker::gpu::nvdec::{Decoder, Fields};
use rung_worker::gpu::watch::Watch;
use rung_worker::picture::planar::Ring;
use rung_worker::scale::device::{Inputs, Ladder, Patience, Scaled, Slot};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::Duration;

use super::decode::joined;
use super::{cpu_seconds, mib, pause};
use crate::Extent;
use crate::card::Card;
use crate::clips::{Clip, Clips};
use crate::report::{Found, Report, Trouble, quantile};

/// What becomes of scaled pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// They stay on the card, as for its encoder.
    Kept,
    /// They are copied to the host, as for an encoder there.
    Fetched,
}

/// Of a ladder's renditions.
type Sizes = Vec<(u32, u32)>;

/// How units are given.
#[derive(Clone, Copy, Debug)]
enum Pace {
    FlatOut,
    /// So many a second.
    Paced(f64),
}

/// What channels cost and gave.
struct Run {
    rate: f64,
    cpu_a_second: f64,
    memory: f64,
    /// Milliseconds from a unit's turn until its picture was there, all channels.
    late: Vec<f64>,
}

pub(crate) fn run(card: &Card, clips: &Clips, extent: Extent, report: &mut Report) -> Found<String> {
    card.needs_decoder()?;
    let counts: &[usize] = if extent == Extent::Whole { &[1, 2, 4, 8, 16, 32, 64] } else { &[1, 2] };
    let span = Duration::from_millis(extent.of(2_500, 100));
    for name in ["h264-no-b", "hevc-no-b"] {
        let clip = clips.load(name)?;
        for then in [Then::Kept, Then::Fetched] {
            let (mut rows, mut best) = (Vec::new(), 0.0_f64);
            for count in counts {
                let run = channels(card, &clip, *count, then, Pace::FlatOut, span)?;
                best = best.max(run.rate);
                rows.push(vec![
                    format!("{count}, flat out"),
                    format!("{:.0}", run.rate),
                    format!("{:.0}", run.rate / 25.0),
                    format!("{:.0}", run.rate / 30.0),
                    format!("{:.2}", run.cpu_a_second * 25.0 / run.rate.max(1.0)),
                    mib(run.memory / *count as f64),
                    "-".to_owned(),
                ]);
            }
            let kept = if then == Then::Kept { "kept on the card" } else { "copied to the host" };
            let what = format!("{name} {}p, ladder of four, {kept}", clip.config.height);
            for hertz in [25.0, 30.0] {
                let count = extent.of(((best * 0.9 / hertz) as usize).clamp(1, 160), 1);
                let run = channels(card, &clip, count, then, Pace::Paced(hertz), extent.of(2 * span, span))?;
                let late = |share| quantile(run.late.clone(), share);
                rows.push(vec![
                    format!("{count}, {hertz} a second each"),
                    format!("{:.0}", run.rate),
                    "-".to_owned(),
                    "-".to_owned(),
                    format!("{:.3}", run.cpu_a_second / count as f64),
                    mib(run.memory / count as f64),
                    format!("{:.1} / {:.1} / {:.1}", late(0.5), late(0.99), late(1.0)),
                ]);
                if hertz > 29.0 {
                    report.answer(
                        "channels decoded and scaled in real time at 30 a second",
                        format!(
                            "{what}: {count} with lateness p99 {:.1} ms (flat out: {:.0})",
                            late(0.99),
                            best / 30.0
                        ),
                    );
                }
            }
            let head = [
                &what,
                "pictures/s",
                "channels at 25",
                "at 30",
                "CPU-s a channel-second",
                "MiB a channel",
                "ms until there: p50 / p99 / most",
            ];
            report.table(&head, &rows);
        }
    }
    Ok("CPU-s flat out is for 25 pictures a second".to_owned())
}

/// A run without a picture in this time has failed.
const PICTURE_WITHIN: Duration = Duration::from_secs(20);

/// `count` of them for `span`, or until the first picture came.
fn channels(card: &Card, clip: &Clip, count: usize, then: Then, pace: Pace, span: Duration) -> Found<Run> {
    let (counted, counting, stop) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    let (ready, late) = (Barrier::new(count + 1), Mutex::new(Vec::new()));
    let before = card.free()?;
    let mut run = Run { rate: 0.0, cpu_a_second: 0.0, memory: 0.0, late: Vec::new() };
    let work = Work { card, clip, then, pace, counted: &counted, counting: &counting, stop: &stop, late: &late };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|n| {
                let (work, ready) = (&work, &ready);
                // Channels do not begin all at once.
                let phase = n as f64 / count as f64;
                scope.spawn(move || work.channel(phase, ready))
            })
            .collect();
        ready.wait();
        let (start, cpu) = (SystemClock::mono(), cpu_seconds());
        counting.store(true, Ordering::Relaxed);
        pause(span);
        // A machine that is busy with other things may not have come to a single picture: no figure can be made of none.
        while counted.load(Ordering::Relaxed) == 0 && SystemClock::mono().since(start) < PICTURE_WITHIN {
            pause(span);
        }
        counting.store(false, Ordering::Relaxed);
        let seconds = SystemClock::mono().since(start).as_secs_f64();
        run.rate = counted.load(Ordering::Relaxed) as f64 / seconds;
        run.cpu_a_second = (cpu_seconds() - cpu) / seconds;
        let after = card.free();
        stop.store(true, Ordering::Relaxed);
        let ended: Vec<Found<()>> = threads.into_iter().map(joined).collect();
        run.memory = before.saturating_sub(after?) as f64;
        ended.into_iter().collect::<Found<Vec<()>>>().map(|_| ())
    })?;
    run.late = late.into_inner().unwrap_or_else(PoisonError::into_inner);
    if run.late.is_empty() {
        return Err(Trouble::Fail(format!("{count} channels gave no picture within {PICTURE_WITHIN:?}")));
    }
    Ok(run)
}

/// What the channels of a run share.
struct Work<'a> {
    card: &'a Card,
    clip: &'a Clip,
    then: Then,
    pace: Pace,
    counted: &'a AtomicU64,
    counting: &'a AtomicBool,
    stop: &'a AtomicBool,
    late: &'a Mutex<Vec<f64>>,
}

impl Work<'_> {
    fn channel(&self, phase: f64, ready: &Barrier) -> Found<()> {
        let opened = self.open();
        // Also one that failed: the others wait.
        ready.wait();
        let (mut decoder, mut ladder, sizes) = opened?;
        let due: Mutex<BTreeMap<i64, Mono>> = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            let (give, take) = sync_channel::<(Scaled, i64)>(4);
            let due = &due;
            let fetching = scope.spawn(move || self.fetch(&take, &sizes, due));
            let start = SystemClock::mono();
            let mut pushed = Ok(());
            for (n, (at, unit)) in self.clip.looped().enumerate() {
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                let turn = self.turn(start, n as f64 + phase);
                due.lock().unwrap_or_else(PoisonError::into_inner).insert(at, turn);
                let done = decoder.push(&unit.data, at, &mut |surface| {
                    let scaled = ladder.scale(surface, |_| Patience::Waits)?;
                    // Whoever takes them ends after this thread, or has failed and says so itself.
                    drop(give.send((scaled, surface.tag)));
                    Ok(())
                });
                if let Err(error) = done {
                    pushed = Err(Trouble::from(error));
                    break;
                }
            }
            drop(give);
            joined(fetching).and(pushed)
        })
    }

    /// Waits for unit `n`'s turn, and says when it was.
    fn turn(&self, start: Mono, n: f64) -> Mono {
        let Pace::Paced(hertz) = self.pace else { return SystemClock::mono() };
        let turn = start + Duration::from_secs_f64(n / hertz);
        loop {
            let now = SystemClock::mono();
            if now >= turn {
                return turn;
            }
            std::thread::park_timeout(turn.since(now));
        }
    }

    fn open(&self) -> Found<(Decoder, Ladder, Sizes)> {
        let stream = Arc::new(Stream::new(self.card.device())?);
        let watch = Watch::new("bench");
        let (width, height) = (self.clip.config.width, self.clip.config.height);
        let sizes: Vec<(u32, u32)> = [(1, 1), (2, 3), (4, 9), (1, 3)]
            .iter()
            .map(|(n, d)| ((width * n / d) & !1, (height * n / d) & !1))
            .collect();
        let mut renditions = Vec::new();
        for (w, h) in &sizes {
            renditions.push(((*w, *h), Inputs::Planar(Ring::new(self.card.device(), *w as usize, *h as usize, 6)?)));
        }
        let ladder = Ladder::new(&self.card.gpu, &stream, renditions, Margins::default(), watch.clone());
        Ok((Decoder::open(&stream, self.clip.codec(), &[], Fields::Frame, &watch)?, ladder, sizes))
    }

    fn fetch(
        &self,
        take: &Receiver<(Scaled, i64)>,
        sizes: &[(u32, u32)],
        due: &Mutex<BTreeMap<i64, Mono>>,
    ) -> Found<()> {
        let stream = Stream::new(self.card.device())?;
        let room = |(w, h): &(u32, u32)| Pinned::new(self.card.device(), (w * h * 3 / 2) as usize);
        let mut hosts = sizes.iter().map(room).collect::<Result<Vec<_>, _>>()?;
        let mut late = Vec::new();
        while let Ok((scaled, tag)) = take.recv() {
            scaled.ready.wait()?;
            if self.then == Then::Fetched {
                for (n, host) in hosts.iter_mut().enumerate() {
                    let Some(Slot::Planar(planar)) = scaled.slot(n) else { continue };
                    let width = sizes[n].0 as usize;
                    planar.download(&stream, host, [width, width / 2, width / 2])?;
                }
            }
            let turn = due.lock().unwrap_or_else(PoisonError::into_inner).remove(&tag);
            if self.counting.load(Ordering::Relaxed) {
                self.counted.fetch_add(1, Ordering::Relaxed);
                late.extend(turn.map(|turn| SystemClock::mono().since(turn).as_secs_f64() * 1e3));
            }
        }
        self.late.lock().unwrap_or_else(PoisonError::into_inner).extend(late);
        Ok(())
    }
}

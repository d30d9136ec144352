//! The ladder's launch against copies of as many bytes: how much of the card's bandwidth it gets.
//!
//! Sources and outputs are rings far larger than the card's cache, so that bytes come from its memory. A launch's bytes
//! are those of the source, once, and of every output; a copy's are read and written.

use rung::time::SystemClock;
use rung_worker::gpu::Depth;
use rung_worker::gpu::cuda::{Event, Kernel, Module, Stream, Timing};
use rung_worker::gpu::ladder::{
    BLOCK, LadderArguments, LadderPlan, Layout, OutputPlanes, OutputShape, SourcePlanes, SourceShape,
};
use rung_worker::gpu::memory::Block;
use rung_worker::scale::Siting;

use crate::Extent;
use crate::card::Card;
use crate::checks::noise;
use crate::raw::{COPY_KERNEL, COPY_PTX, CopyArguments};
use crate::report::{Found, Report, median};

const STREAMS: usize = 8;
/// What a card whose cache is not known is taken to have.
const CACHE: usize = 64 << 20;

pub(crate) fn run(card: &Card, extent: Extent, report: &mut Report) -> Found<String> {
    let copies = Copies::measure(card, extent, report)?;
    let short = extent == Extent::Short;
    let sources: &[(usize, usize)] = if short { &[(320, 180)] } else { &[(1920, 1080), (3840, 2160)] };
    let mut rows = Vec::new();
    let mut best = 0.0_f64;
    for (width, height) in sources.iter().copied() {
        for depth in [Depth::Eight, Depth::Ten] {
            for layout in [Layout::Nv12, Layout::I420] {
                for keeps in [true, false] {
                    let bench = Launches::new(card, (width, height), depth, layout, keeps, extent)?;
                    let (one, queued) = bench.time(1, &copies, extent)?;
                    let (many, _) = bench.time(STREAMS, &copies, extent)?;
                    let same = copies.of(card, bench.bytes, extent)?;
                    let rate = |ms: f64| bench.bytes as f64 / ms / 1e6;
                    best = best.max(rate(many) / copies.best);
                    rows.push(vec![
                        format!("{width}x{height} {}", if depth == Depth::Eight { "NV12" } else { "P016" }),
                        bench.outputs(),
                        format!("{:.2}", bench.bytes as f64 / 1e6),
                        format!("{:.1}", one * 1e3),
                        format!("{:.1}", many * 1e3),
                        format!("{:.1}", queued * 1e3),
                        format!("{:.0}", rate(many)),
                        format!("{:.0} %", 100.0 * rate(one) / copies.best),
                        format!("{:.0} %", 100.0 * rate(many) / copies.best),
                        format!("{:.0} %", 100.0 * same / one),
                    ]);
                }
            }
        }
    }
    let head = [
        "source",
        "outputs",
        "MB moved",
        "us, one stream",
        "us, 8 streams",
        "us of the processor to queue one",
        "GB/s, 8 streams",
        "of the large copy, one stream",
        "of the large copy, 8 streams",
        "of a copy of as many bytes, one stream",
    ];
    report.table(&head, &rows);
    report.answer(
        "2. the ladder's share of the measured copy bandwidth",
        format!("at best {:.0} %, by source in the table", 100.0 * best),
    );
    Ok(format!("medians of {} rounds", rounds(extent)))
}

fn rounds(extent: Extent) -> usize {
    extent.of(9, 2)
}

/// What copies reach.
struct Copies {
    from: Block,
    to: Block,
    bytes: usize,
    plain: Option<Kernel>,
    /// GB/s, bytes read and written, of the faster way.
    best: f64,
}

impl Copies {
    fn measure(card: &Card, extent: Extent, report: &mut Report) -> Found<Copies> {
        const ROW: usize = 1 << 16;
        let bytes = extent.of(1 << 30, 1 << 20);
        let block = || Block::new(card.device(), ROW, bytes / ROW);
        let (from, to) = (block()?, block()?);
        // The driver's double has Rung's kernels only.
        let plain = || Module::load(card.device(), COPY_PTX)?.kernel(COPY_KERNEL);
        let plain = if card.facts.double { None } else { Some(plain()?) };
        let mut copies = Copies { from, to, bytes, plain, best: 0.0 };
        let driver = copies.rate(card, bytes, extent)?;
        let plain = copies.plain_rate(card, extent)?;
        copies.best = plain.map_or(driver, |plain| driver.max(plain));
        let row = |name: &str, rate: Option<f64>| {
            vec![name.to_owned(), rate.map_or("-".to_owned(), |rate| format!("{rate:.0}"))]
        };
        let large = format!("copy of {} MiB, bytes read and written", bytes >> 20);
        report.table(
            &[&large, "GB/s"],
            &[row("cuMemcpyDtoDAsync", Some(driver)), row("a kernel of 16 byte loads and stores", plain)],
        );
        report.answer("2. copy bandwidth", format!("{:.0} GB/s read and written", copies.best));
        Ok(copies)
    }

    /// GB/s of the driver's copy.
    fn rate(&self, card: &Card, bytes: usize, extent: Extent) -> Found<f64> {
        let (stream, times) = (Stream::new(card.device())?, extent.of(16, 1));
        let ms = timed(
            card,
            &stream,
            extent,
            |_| Ok(()),
            || (0..times).try_for_each(|_| card.raw.copy(&stream, self.to.address(), self.from.address(), bytes)),
        )?;
        Ok((2 * bytes * times) as f64 / ms / 1e6)
    }

    fn plain_rate(&self, card: &Card, extent: Extent) -> Found<Option<f64>> {
        const THREADS: u32 = 256;
        let Some(kernel) = &self.plain else { return Ok(None) };
        let (stream, times) = (Stream::new(card.device())?, extent.of(16, 1));
        let count = self.bytes as u64 / 16;
        let grid = [u32::try_from(count.div_ceil(u64::from(THREADS))).unwrap_or(u32::MAX), 1, 1];
        let arguments = CopyArguments { to: self.to.address(), from: self.from.address(), count };
        let ms = timed(
            card,
            &stream,
            extent,
            |_| Ok(()),
            || (0..times).try_for_each(|_| Ok(kernel.launch(&stream, grid, [THREADS, 1, 1], &arguments)?)),
        )?;
        Ok(Some((2 * self.bytes * times) as f64 / ms / 1e6))
    }

    /// Work of some milliseconds on a card.
    fn hold(&self, card: &Card, stream: &Stream) -> Found<()> {
        const MS: f64 = 4.0;
        let once = (2 * self.bytes) as f64 / self.best.max(1.0) / 1e6;
        let times = (MS / once).ceil().clamp(1.0, 64.0) as usize;
        (0..times).try_for_each(|_| card.raw.copy(stream, self.to.address(), self.from.address(), self.bytes))
    }

    /// Milliseconds of a copy that reads and writes `bytes` together, one after the other over memory like a ladder's.
    fn of(&self, card: &Card, bytes: usize, extent: Extent) -> Found<f64> {
        let half = (bytes / 2).next_multiple_of(256).min(self.bytes);
        let places = (self.bytes / half).max(1);
        let (stream, times) = (Stream::new(card.device())?, extent.of(200, 2));
        let ms = timed(
            card,
            &stream,
            extent,
            |stream| self.hold(card, stream),
            || {
                (0..times).try_for_each(|n| {
                    let at = (n % places * half) as u64;
                    card.raw.copy(&stream, self.to.address() + at, self.from.address() + at, half)
                })
            },
        )?;
        Ok(ms / times as f64)
    }
}

/// Milliseconds of the GPU from before `work` until it is done; the middle one of some rounds behind one that warms up.
/// `hold` is queued first and keeps the GPU busy until all of `work` is queued too: how fast this processor queues is not
/// what is measured.
fn timed(
    card: &Card,
    stream: &Stream,
    extent: Extent,
    hold: impl Fn(&Stream) -> Found<()>,
    mut work: impl FnMut() -> Found<()>,
) -> Found<f64> {
    let (start, end) = (Event::new(card.device(), Timing::On)?, Event::new(card.device(), Timing::On)?);
    let mut times = Vec::new();
    for round in 0..=rounds(extent) {
        hold(stream)?;
        start.record(stream)?;
        work()?;
        end.record(stream)?;
        end.wait()?;
        if round > 0 {
            times.push(f64::from(end.ms_since(&start)?).max(1e-6));
        }
    }
    Ok(median(times))
}

/// Launches over a ring of sources and outputs.
struct Launches<'a> {
    card: &'a Card,
    kernel: &'a Kernel,
    arguments: Vec<LadderArguments>,
    shapes: Vec<OutputShape>,
    /// Of one launch.
    bytes: usize,
    _memory: Vec<Block>,
}

impl<'a> Launches<'a> {
    /// `keeps`: the ladder has a rendition of the source's size.
    fn new(
        card: &'a Card,
        (width, height): (usize, usize),
        depth: Depth,
        layout: Layout,
        keeps: bool,
        extent: Extent,
    ) -> Found<Launches<'a>> {
        let heights = [height, 1080, 720, 480, 360, 144, 90];
        let heights = heights.into_iter().filter(|h| *h < height || (keeps && *h == height));
        let mut shapes: Vec<OutputShape> =
            heights.map(|h| OutputShape { width: (h * 16 / 9 + 1) & !1, height: h, layout }).collect();
        shapes.dedup();
        shapes.retain(|shape| height < 360 || shape.height >= 360);
        let sample = if depth == Depth::Eight { 1 } else { 2 };
        let plan = LadderPlan::new(SourceShape { width, height, depth, crop: None, siting: Siting::Left }, &shapes)?;
        let picture = |w: usize, h: usize| w * h * 3 / 2;
        let written: usize = shapes.iter().map(|shape| picture(shape.width, shape.height)).sum();
        let bytes = picture(width, height) * sample + written;
        let cache = if card.facts.cache == 0 { CACHE } else { card.facts.cache };
        let slots = extent.of((4 * cache).div_ceil(bytes).clamp(4, 128), 2);
        let tables = Block::holding(card.device(), plan.tables())?;
        let mut launches = Launches {
            card,
            kernel: if depth == Depth::Eight { &card.gpu.ladder } else { &card.gpu.ladder_ten },
            arguments: Vec::new(),
            shapes,
            bytes,
            _memory: Vec::new(),
        };
        let pitch = (width * sample).next_multiple_of(256);
        let content = noise(pitch * height * 3 / 2);
        for _ in 0..slots {
            launches.add(&plan, &tables, &content, (pitch, height))?;
        }
        launches._memory.push(tables);
        Ok(launches)
    }

    fn add(&mut self, plan: &LadderPlan, tables: &Block, content: &[u8], (pitch, height): (usize, usize)) -> Found<()> {
        let source = Block::holding(self.card.device(), content)?;
        let from = SourcePlanes {
            luma: source.address(),
            chroma: source.address() + (pitch * height) as u64,
            pitch: pitch as u32,
        };
        self._memory.push(source);
        let mut planes = Vec::new();
        for shape in &self.shapes {
            let block = Block::new(self.card.device(), shape.width, shape.height * 2 + 1)?;
            let (pitch, half) = (block.pitch(), shape.height.div_ceil(2));
            let chroma = block.address() + (pitch * shape.height) as u64;
            let chroma_v = chroma + (pitch * half) as u64;
            let pitch = pitch as u32;
            planes.push(Some(OutputPlanes {
                luma: block.address(),
                chroma,
                chroma_v,
                pitch_luma: pitch,
                pitch_chroma: pitch,
            }));
            self._memory.push(block);
        }
        self.arguments.push(*plan.arguments(tables.address(), from, &planes, &[])?);
        Ok(())
    }

    /// Milliseconds of one launch, with as many streams taking turns; and of this processor, to queue it.
    fn time(&self, streams: usize, copies: &Copies, extent: Extent) -> Found<(f64, f64)> {
        let streams = (0..streams).map(|_| Stream::new(self.card.device())).collect::<Result<Vec<_>, _>>()?;
        let (times, first): (usize, _) = (extent.of(400, 4), &streams[0]);
        let forked = Event::new(self.card.device(), Timing::Off)?;
        let joined: Vec<Event> =
            streams.iter().map(|_| Event::new(self.card.device(), Timing::Off)).collect::<Result<_, _>>()?;
        let mut queued = Vec::new();
        let ms = timed(
            self.card,
            first,
            extent,
            |stream| copies.hold(self.card, stream),
            || {
                let start = SystemClock::mono();
                forked.record(first)?;
                streams[1..].iter().try_for_each(|stream| stream.follow(&forked))?;
                for n in 0..times {
                    let arguments = &self.arguments[n % self.arguments.len()];
                    self.kernel.launch(&streams[n % streams.len()], arguments.grid(), BLOCK, arguments)?;
                }
                queued.push(SystemClock::mono().since(start).as_secs_f64() * 1e3);
                for (stream, event) in streams[1..].iter().zip(&joined[1..]) {
                    event.record(stream)?;
                    first.follow(event)?;
                }
                Ok(())
            },
        )?;
        Ok((ms / times as f64, median(queued) / times as f64))
    }

    fn outputs(&self) -> String {
        let heights: Vec<String> = self.shapes.iter().map(|shape| shape.height.to_string()).collect();
        let layout = if self.shapes[0].layout == Layout::Nv12 { "NV12" } else { "planar" };
        format!("{} {layout}", heights.join(" "))
    }
}

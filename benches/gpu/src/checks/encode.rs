//! NVENC through the product's encoder: IDRs where they are asked for and nowhere else, and pictures that NVDEC gives back.

use rung::media::channel::VideoCodec;
use rung::media::grid::Cadence;
use rung::media::modes::LatencyMode;
use rung::media::track::{Codec as SourceCodec, Colour};
use rung::pixels::protocol::OpenRendition;
use rung_worker::gpu::Depth;
use rung_worker::gpu::cuda::{Event, Stream, Timing};
use rung_worker::gpu::memory::{self, Pinned, Plane, Rows};
use rung_worker::gpu::nvdec::{Decoder, Fields};
use rung_worker::gpu::nvenc::{Api, Codec, Coded, Encoder, Format, Surface};
use rung_worker::gpu::watch::Watch;
use std::sync::Arc;

use crate::card::Card;
use crate::report::{Found, Trouble, fail};

const SIZE: (u32, u32) = (640, 360);
const FRAMES: i64 = 60;
const IDRS: [i64; 3] = [0, 25, 50];

/// `SKIP nvenc` where the card has no encoder.
///
/// # Errors
/// That.
pub(crate) fn api(card: &Card) -> Found<Arc<Api>> {
    let api = card.gpu.encode.as_ref().map_err(|absent| Trouble::skip("nvenc", absent.to_string()))?;
    // Codes 1 and 2: there is none on this card.
    match api.caps(card.device(), Codec::H264, &Watch::new("caps")) {
        Ok(Some(_)) => Ok(Arc::clone(api)),
        Ok(None) => Err(Trouble::skip("nvenc", "this card's encoder makes no H.264")),
        Err(error) if matches!(error.code, 1 | 2) => {
            Err(Trouble::skip("nvenc", format!("this card has no encoder ({error})")))
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn run(card: &Card) -> Found<String> {
    let api = api(card)?;
    let mut said = Vec::new();
    for (codec, source) in [(Codec::H264, SourceCodec::H264), (Codec::Hevc, SourceCodec::H265)] {
        let watch = Watch::new("encode");
        if api.caps(card.device(), codec, &watch)?.is_none() {
            continue;
        }
        let cadence = Cadence::for_rate(25.0, LatencyMode::Ultra);
        let format = Format { codec, depth: Depth::Eight };
        let mut encoder = Encoder::open(&api, card.device(), &rendition(SIZE, 2_000_000), format, cadence, 4, &watch)?;
        let coded = encode(card, &mut encoder)?;
        drop(encoder);
        let syncs: Vec<i64> = coded.iter().filter(|c| c.sync).map(|c| c.pts).collect();
        if coded.len() as i64 != FRAMES || syncs != IDRS {
            return fail(format!(
                "{codec:?}: {} of {FRAMES} frames, IDRs at {syncs:?}, asked for at {IDRS:?}",
                coded.len()
            ));
        }
        said.push(format!("{codec:?}: worst level off by {:.1}", shown(card, source, &coded)?));
    }
    Ok(said.join("; "))
}

/// Of a square sampled picture.
pub(crate) fn rendition((width, height): (u32, u32), bitrate: u64) -> OpenRendition {
    OpenRendition {
        name: format!("{height}p"),
        codec: VideoCodec::default(),
        width,
        height,
        sar: (1, 1),
        bitrate,
        vbv_ms: 500,
        bframes: 0,
        lookahead: 0,
        preset: String::new(),
        extra: String::new(),
        threads: 1,
        colour: Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false },
    }
}

fn encode(card: &Card, encoder: &mut Encoder) -> Found<Vec<Coded>> {
    let stream = Stream::new(card.device())?;
    let mut coded = Vec::new();
    for n in 0..FRAMES {
        let surface = encoder.inputs().wait_take().ok_or_else(|| Trouble::Fail("no surface".to_owned()))?;
        paint(card, &stream, &surface, (20 + 3 * n) as u8)?;
        let ready = Event::new(card.device(), Timing::Off)?;
        ready.record(&stream)?;
        encoder.push(&surface, n, IDRS.contains(&n), &ready)?;
        while let Some(frame) = encoder.pull(0)? {
            coded.push(frame);
        }
    }
    encoder.drain()?;
    while let Some(frame) = encoder.pull(0)? {
        coded.push(frame);
    }
    Ok(coded)
}

/// Plain grey.
pub(crate) fn paint(card: &Card, stream: &Stream, surface: &Surface, level: u8) -> Found<()> {
    let (width, height) = (surface.width() as usize, surface.height() as usize);
    let mut host = Pinned::new(card.device(), width * height * 3 / 2)?;
    let (luma, chroma) = host.bytes_mut().split_at_mut(width * height);
    luma.fill(level);
    chroma.fill(128);
    let plane = |to: u64, from: usize, height: usize| Plane {
        device: Rows { offset: (to - surface.luma()) as usize, pitch: surface.pitch() },
        host: Rows { offset: from, pitch: width },
        width,
        height,
    };
    let planes = [plane(surface.luma(), 0, height), plane(surface.chroma(), width * height, height / 2)];
    Ok(memory::upload(stream, &host, surface.block(), &planes)?)
}

/// How far a decoded picture's level is from what was painted, at worst.
fn shown(card: &Card, codec: SourceCodec, coded: &[Coded]) -> Found<f64> {
    card.needs_decoder()?;
    let stream = Arc::new(Stream::new(card.device())?);
    let mut decoder = Decoder::open(&stream, codec, &[], Fields::Frame, &Watch::new("check"))?;
    let mut levels = Vec::new();
    let mut look = |surface: &rung_worker::gpu::nvdec::Surface| {
        stream.wait_done()?;
        let bytes = surface.pitch as usize * (surface.height as usize - 1) + surface.width as usize;
        levels.push((
            surface.tag,
            card.raw.read(card.device(), surface.luma, bytes).map(|memory| {
                let rows = memory.chunks(surface.pitch as usize).flat_map(|row| &row[..surface.width as usize]);
                rows.map(|sample| f64::from(*sample)).sum::<f64>() / f64::from(surface.width * surface.height)
            }),
        ));
        Ok(())
    };
    for frame in coded {
        decoder.push(&frame.data, frame.pts, &mut look)?;
    }
    decoder.drain(&mut look)?;
    let mut worst = 0.0_f64;
    for (n, (tag, level)) in (0..).zip(levels) {
        let level = level?;
        if tag != n {
            return fail(format!("picture {n} is frame {tag}"));
        }
        worst = worst.max((level - (20 + 3 * n) as f64).abs());
    }
    if worst > 4.0 { fail(format!("a picture's level is off by {worst:.1}")) } else { Ok(worst) }
}

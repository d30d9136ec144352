//! NVDEC through the product's decoder: the right pictures, in the right order, whatever happens in the stream.

use rung_worker::gpu::Depth;
use rung_worker::gpu::cuda::Stream;
use rung_worker::gpu::nvdec::{Decoder, Fields, Pushed, Surface};
use rung_worker::gpu::watch::Watch;
use std::sync::Arc;

use super::kernel::Noise;
use crate::card::Card;
use crate::clips::{Clip, Clips, Coded, adler};
use crate::report::{Found, Trouble, fail, guarded};

/// Each clip whose pictures every right decoder gives alike.
pub(crate) fn exact(card: &Card, clips: &Clips) -> Vec<(&'static str, Found<String>)> {
    let names = ["h264", "h264-no-b", "h264-half", "hevc", "hevc-no-b", "hevc-10", "hevc-large"];
    names.map(|name| (name, guarded(|| clips.load(name).and_then(|clip| whole(card, &clip))))).into()
}

fn whole(card: &Card, clip: &Clip) -> Found<String> {
    let mut shown = Vec::new();
    let pushed = play(card, clip, Fields::Frame, clip.units.iter().map(|u| (u.at, u)), &mut |surface| {
        shown.push((surface.tag, adler(&planar(card, surface)?)));
        Ok(())
    })?;
    let wanted: Vec<(i64, u32)> = (0..).zip(clip.sums.iter().copied()).collect();
    if let Some((at, (found, wanted))) = shown.iter().zip(&wanted).enumerate().find(|(_, (a, b))| a != b) {
        return fail(format!("picture {at}: (frame, sum) is {found:x?}, not {wanted:x?}"));
    }
    if (shown.len(), pushed) != (wanted.len(), 0) {
        return fail(format!("{} of {} pictures, damage told {pushed} times", shown.len(), wanted.len()));
    }
    Ok(format!("{} pictures", shown.len()))
}

/// Pictures whose level names them: `20 + 5 * (N mod 40)`.
pub(crate) fn grey(card: &Card, clips: &Clips, name: &'static str) -> Found<String> {
    let clip = clips.load(name)?;
    let mut shown = Vec::new();
    play(card, &clip, Fields::Frame, clip.units.iter().map(|u| (u.at, u)), &mut |surface| {
        shown.push((surface.tag, mean(card, surface)?));
        Ok(())
    })?;
    if !shown.iter().map(|(tag, _)| *tag).eq(0..clip.frames()) {
        return fail(format!(
            "frames {:?} of {}",
            shown.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(),
            clip.frames()
        ));
    }
    let off = shown.iter().map(|(n, mean)| (mean - level(*n)).abs()).fold(0.0, f64::max);
    if off > 2.5 {
        fail(format!("a picture's level is off by {off:.1}"))
    } else {
        Ok(format!("{} pictures", shown.len()))
    }
}

/// Two pictures a frame, in order. What moves from field to field is blended with its neighbours, five steps away.
pub(crate) fn fields(card: &Card, clips: &Clips, name: &'static str) -> Found<String> {
    let clip = clips.load(name)?;
    let mut shown = Vec::new();
    play(card, &clip, Fields::Both, clip.units.iter().map(|u| (u.at, u)), &mut |surface| {
        shown.push((surface.tag, surface.second, mean(card, surface)?));
        Ok(())
    })?;
    let wanted = (0..clip.frames()).flat_map(|n| [(n, false), (n, true)]);
    if !shown.iter().map(|(n, second, _)| (*n, *second)).eq(wanted) {
        return fail(format!("{} pictures of {} frames, or another order", shown.len(), clip.frames()));
    }
    // Frame 0 follows nothing; frame 40 k follows white.
    let judged = shown.iter().filter(|(n, ..)| n % 40 != 0 && n % 40 != 39);
    let off = judged.map(|(n, _, mean)| (mean - level(*n)).abs()).fold(0.0, f64::max);
    if off > 7.0 {
        return fail(format!("a picture's level is off by {off:.1}"));
    }
    Ok(format!("{} pictures of {} frames, levels within {off:.1}", shown.len(), clip.frames()))
}

/// Every second of the clip some units are cut short, spoilt or left out; what follows the next key picture is right again.
pub(crate) fn damage(card: &Card, clips: &Clips) -> Found<String> {
    let mut said = Vec::new();
    for name in ["h264-no-b", "hevc-no-b"] {
        let clip = clips.load(name)?;
        let frames = clip.frames();
        let mut noise = Noise(9);
        let mut units: Vec<(i64, Coded)> = Vec::new();
        for (n, unit) in clip.looped().take(4 * clip.units.len()) {
            let mut unit = unit.clone();
            if (frames..2 * frames).contains(&n) && noise.next().is_multiple_of(3) {
                let mut bytes = unit.data.to_vec();
                match noise.next() % 3 {
                    0 => bytes.truncate(bytes.len() / 2),
                    1 => bytes.iter_mut().skip(16).step_by(97).for_each(|byte| *byte = noise.next() as u8),
                    // Lost on its way.
                    _ => continue,
                }
                unit.data = bytes.into();
            }
            units.push((n, unit));
        }
        let (mut shown, mut damaged) = (Vec::new(), 0);
        let told = play(card, &clip, Fields::Frame, units.iter().map(|(n, unit)| (*n, unit)), &mut |surface| {
            damaged += usize::from(surface.damaged);
            shown.push((surface.tag, adler(&planar(card, surface)?)));
            Ok(())
        })?;
        let right = |from: i64, to: i64| {
            let found: Vec<u32> =
                shown.iter().filter(|(tag, _)| (from..to).contains(tag)).map(|(_, sum)| *sum).collect();
            found == clip.sums
        };
        if !right(0, frames) || !right(3 * frames, 4 * frames) {
            return fail(format!("{name}: pictures before the damage, or of the round after next, are wrong"));
        }
        if told + damaged == 0 {
            return fail(format!("{name}: nothing tells of the damage"));
        }
        said.push(format!(
            "{name}: {} of {} pictures shown, {damaged} marked, {told} units refused; right again after it",
            shown.len(),
            units.len()
        ));
    }
    Ok(said.join("; "))
}

/// Whole size, half of it, and back, in one stream.
pub(crate) fn sizes(card: &Card, clips: &Clips) -> Found<String> {
    let (whole, half) = (clips.load("h264-no-b")?, clips.load("h264-half")?);
    let frames = whole.frames();
    let units = [&whole, &half, &whole]
        .into_iter()
        .zip(0..)
        .flat_map(|(clip, round)| clip.units.iter().map(move |unit| (round * frames + unit.at, unit)));
    let mut shown = Vec::new();
    play(card, &whole, Fields::Frame, units, &mut |surface| {
        shown.push((surface.tag, adler(&planar(card, surface)?)));
        Ok(())
    })?;
    let sums = [&whole.sums, &half.sums, &whole.sums].into_iter().flatten().copied();
    let wanted: Vec<(i64, u32)> = (0..).zip(sums).collect();
    match shown.iter().zip(&wanted).position(|(found, wanted)| found != wanted) {
        Some(at) => fail(format!("picture {at} is {:x?}, not {:x?}", shown[at], wanted[at])),
        None if shown.len() != wanted.len() => fail(format!("{} of {} pictures", shown.len(), wanted.len())),
        None => Ok(format!("{} pictures, all of them right", shown.len())),
    }
}

/// Memory of the card before and after so many decoders.
pub(crate) fn reopened(card: &Card, clips: &Clips, rounds: usize) -> Found<String> {
    let clip = clips.load("h264-half")?;
    let round = |rounds: usize| {
        for _ in 0..rounds {
            let units = clip.units.iter().take(4).map(|u| (u.at, u));
            play(card, &clip, Fields::Frame, units, &mut |_| Ok(()))?;
        }
        card.free()
    };
    // What the driver keeps from its first decoders on is not counted.
    let (before, after) = (round(rounds.div_ceil(10))?, round(rounds)?);
    let lost = before.saturating_sub(after);
    if lost > card.spare(8 << 20) {
        return fail(format!("{} MiB are gone after {rounds} decoders", lost >> 20));
    }
    Ok(format!("{rounds} decoders, {} KiB less free than before", lost >> 10))
}

type Look<'a> = &'a mut dyn FnMut(&Surface) -> Found<()>;

/// Gives `units` to a new decoder; `look` sees each picture when it is written. How often damage was told.
fn play<'a>(
    card: &Card,
    clip: &Clip,
    fields: Fields,
    units: impl Iterator<Item = (i64, &'a Coded)>,
    look: Look<'_>,
) -> Found<usize> {
    card.needs_decoder()?;
    let stream = Arc::new(Stream::new(card.device())?);
    let mut decoder = Decoder::open(&stream, clip.codec(), &[], fields, &Watch::new("check"))?;
    let (mut damaged, mut wrong) = (0, None);
    let mut sink = |surface: &Surface| {
        stream.wait_done()?;
        if wrong.is_none() {
            wrong = look(surface).err();
        }
        Ok(())
    };
    for (at, unit) in units {
        damaged += usize::from(decoder.push(&unit.data, at, &mut sink)? == Pushed::Damaged);
    }
    decoder.drain(&mut sink)?;
    wrong.map_or(Ok(damaged), Err)
}

/// Planar 4:2:0 without padding, 10 bit samples in two bytes: as libavcodec gives it.
fn planar(card: &Card, surface: &Surface) -> Found<Vec<u8>> {
    let bytes = if surface.depth == Depth::Eight { 1 } else { 2 };
    let (width, height, pitch) = (surface.width as usize, surface.height as usize, surface.pitch as usize);
    let read = |from: u64, rows: usize| -> Found<Vec<u8>> {
        let memory = card.raw.read(card.device(), from, pitch * (rows - 1) + width * bytes)?;
        let mut samples = Vec::with_capacity(width * rows * bytes);
        memory.chunks(pitch).for_each(|row| samples.extend_from_slice(&row[..width * bytes]));
        if bytes == 2 {
            for sample in samples.chunks_exact_mut(2) {
                let value = u16::from_le_bytes([sample[0], sample[1]]) >> 6;
                sample.copy_from_slice(&value.to_le_bytes());
            }
        }
        Ok(samples)
    };
    let mut picture = read(surface.luma, height)?;
    let chroma = read(surface.chroma, height / 2)?;
    for first in [0, 1] {
        let every_other = chroma.chunks_exact(bytes).skip(first).step_by(2);
        every_other.for_each(|sample| picture.extend_from_slice(sample));
    }
    Ok(picture)
}

fn mean(card: &Card, surface: &Surface) -> Found<f64> {
    if surface.depth != Depth::Eight {
        return Err(Trouble::Fail("a picture of 8 bit came with 10".to_owned()));
    }
    let count = surface.width as usize * surface.height as usize;
    let picture = planar(card, surface)?;
    Ok(picture[..count].iter().map(|sample| f64::from(*sample)).sum::<f64>() / count as f64)
}

fn level(n: i64) -> f64 {
    20.0 + 5.0 * (n % 40) as f64
}

//! AV1: temporal units as they are, and the sequence header [AV1 5.5]. What is decoded is a temporal unit, not a frame.

use super::syntax::{Coded, Field, Fill, Prior, Sequence, Syntax, aspect, rate};
use crate::abi::{self, Format, PicParams};
use crate::bits::Bits;

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;

#[derive(Default)]
pub(crate) struct Av1 {
    sequence: Option<Sequence>,
    header: Vec<u8>,
    /// A unit was taken; whether it had a sequence header.
    current: Option<bool>,
}

impl Syntax for Av1 {
    fn begins_next(&self, _: &[u8]) -> bool {
        self.current.is_some()
    }

    fn take(&mut self, unit: &[u8]) -> bool {
        let mut opens = false;
        for (kind, whole, body) in Obus(unit) {
            if kind == SEQUENCE_HEADER
                && let Some(sequence) = sequence(body)
            {
                opens = true;
                self.sequence = Some(sequence);
                self.header = whole.to_vec();
            }
        }
        self.current = Some(opens);
        true
    }

    fn finish(&mut self) -> Option<Coded> {
        let starts = self.current.take()?;
        Some(Coded {
            sequence: self.sequence.clone()?,
            starts,
            prior: Prior::Show,
            poc: 0,
            field: Field::Frame,
            progressive: true,
            top_first: true,
            repeat: 0,
            reference: true,
            intra: starts,
            shown: true,
            side: Vec::new(),
            fields: Box::new(Nothing),
        })
    }

    fn parameter_sets(&self) -> Vec<u8> {
        self.header.clone()
    }

    fn reset(&mut self) {
        self.current = None;
    }

    fn has_start_codes(&self) -> bool {
        false
    }
}

/// Cuts a packet before every temporal delimiter but the first.
pub(crate) fn temporal_units(packet: &[u8]) -> Vec<&[u8]> {
    let mut cuts = vec![0];
    for (kind, whole, _) in Obus(packet) {
        let at = whole.as_ptr().addr() - packet.as_ptr().addr();
        if kind == TEMPORAL_DELIMITER && at > 0 {
            cuts.push(at);
        }
    }
    cuts.push(packet.len());
    cuts.windows(2).map(|cut| &packet[cut[0]..cut[1]]).collect()
}

/// Open bitstream units [AV1 5.3]: type, the unit with its header, its payload. Ends at the first that makes no sense.
struct Obus<'a>(&'a [u8]);

impl<'a> Iterator for Obus<'a> {
    type Item = (u8, &'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let data = self.0;
        let head = *data.first()?;
        let mut at = 1 + usize::from(head >> 2 & 1);
        let mut size = data.len().checked_sub(at)?;
        if head >> 1 & 1 == 1 {
            size = 0;
            for shift in (0..35).step_by(7) {
                let byte = *data.get(at)?;
                at += 1;
                size |= usize::from(byte & 127) << shift;
                if byte < 128 {
                    break;
                }
            }
        }
        let end = at.checked_add(size)?;
        let (whole, body) = (data.get(..end)?, data.get(at..end)?);
        self.0 = &data[end..];
        Some((head >> 3 & 15, whole, body))
    }
}

/// [AV1 5.5.1]
fn sequence(body: &[u8]) -> Option<Sequence> {
    let mut bits = Bits::plain(body);
    let bits = &mut bits;
    let profile = bits.u(3)?;
    bits.flag()?;
    let reduced = bits.flag()?;
    let mut frame_rate = [0, 0];
    if reduced {
        bits.u(5)?;
    } else {
        frame_rate = operating_points(bits)?;
    }
    let (wide, high) = (bits.u(4)? + 1, bits.u(4)? + 1);
    let (width, height) = (bits.u(wide)? + 1, bits.u(high)? + 1);
    if !reduced && bits.flag()? {
        bits.u(7)?;
    }
    bits.u(3)?;
    if !reduced {
        tools(bits)?;
    }
    bits.u(3)?;
    let high_depth = bits.flag()?;
    let depth = if profile == 2 && high_depth && bits.flag()? { 12 } else { 8 + 2 * u8::from(high_depth) };
    let monochrome = profile != 1 && bits.flag()?;
    let colour = if bits.flag()? { [bits.u(8)?, bits.u(8)?, bits.u(8)?] } else { [2; 3] };
    let full_range = bits.flag()?;
    let chroma_format = match profile {
        _ if monochrome => 0,
        0 => 1,
        1 => 3,
        _ => 2,
    };
    let format = Format {
        codec: abi::AV1,
        frame_rate,
        progressive_sequence: 1,
        bit_depth_luma_minus8: depth - 8,
        bit_depth_chroma_minus8: depth - 8,
        // Eight references, the picture being decoded, and one that is shown.
        min_num_decode_surfaces: 10,
        coded_width: width,
        coded_height: height,
        display_area: [0, 0, abi::int(width), abi::int(height)],
        chroma_format,
        display_aspect_ratio: aspect((1, 1), width, height),
        signal: 5 | u8::from(full_range) << 3,
        color_primaries: colour[0] as u8,
        transfer_characteristics: colour[1] as u8,
        matrix_coefficients: colour[2] as u8,
        ..Format::default()
    };
    Some(Sequence { format, reorder: 0, references: 8 })
}

/// Timing, decoder model and operating points: the frame rate.
fn operating_points(bits: &mut Bits) -> Option<[u32; 2]> {
    let mut frame_rate = [0, 0];
    let mut delay_bits = None;
    if bits.flag()? {
        let (units, scale) = (bits.u(32)?, bits.u(32)?);
        if bits.flag()? {
            let ticks = bits.ue()? + 1;
            frame_rate = rate(u64::from(scale), u64::from(units) * u64::from(ticks));
        }
        if bits.flag()? {
            delay_bits = Some(bits.u(5)? + 1);
            bits.skip(32 + 5 + 5)?;
        }
    }
    let display_delay = bits.flag()?;
    for _ in 0..=bits.u(5)? {
        bits.u(12)?;
        if bits.u(5)? > 7 {
            bits.flag()?;
        }
        if let Some(count) = delay_bits
            && bits.flag()?
        {
            bits.skip(2 * count as usize + 1)?;
        }
        if display_delay && bits.flag()? {
            bits.u(4)?;
        }
    }
    Some(frame_rate)
}

fn tools(bits: &mut Bits) -> Option<()> {
    bits.u(4)?;
    let order_hint = bits.flag()?;
    if order_hint {
        bits.u(2)?;
    }
    let screen = bits.flag()? || bits.flag()?;
    if screen && !bits.flag()? {
        bits.flag()?;
    }
    if order_hint {
        bits.u(3)?;
    }
    Some(())
}

struct Nothing;

impl Fill for Nothing {
    fn fill(&self, _: &mut PicParams) {}
}

//! Access units to 4:2:0 8 bit progressive pictures by libav: decoder, deinterlacer, conversion of odd formats.

use rung::media::track::VideoConfig;

use super::source::{Barren, Decoded, Health, Taker};
use crate::av::{Decoder, Error, Filter, Frame, Pushed};
use crate::picture::{Host, Picture};

/// Pictures in a row that are not marked interlaced before the deinterlacer is taken out again.
const PROGRESSIVE_RUN: u32 = 25;

#[derive(Debug)]
pub(super) struct Source {
    config: VideoConfig,
    decoder: Decoder,
    /// Present while pictures are marked interlaced.
    deinterlacer: Option<Filter>,
    progressive_run: u32,
    converter: Option<Filter>,
    /// Two pictures per interlaced one.
    fields: bool,
    barren: Barren,
    /// Pictures that the unit which is inside has given.
    given: usize,
}

impl Source {
    /// `barren_max`: units without a picture after which a decoder that reported damage is opened anew.
    pub(super) fn open(config: VideoConfig, fields: bool, barren_max: u32) -> Result<Source, Error> {
        let decoder = Decoder::video(&config)?;
        Ok(Source {
            config,
            decoder,
            deinterlacer: None,
            progressive_run: 0,
            converter: None,
            fields,
            barren: Barren::new(barren_max),
            given: 0,
        })
    }

    pub(super) fn push(&mut self, data: &[u8], tag: i64, taker: Taker<'_>) -> Result<Health, Error> {
        self.given = 0;
        let damaged = self.decoder.push(data, tag)? == Pushed::Damaged;
        self.pull(taker)?;
        if self.barren.pushed(damaged, self.given) {
            self.decoder = Decoder::video(&self.config)?;
            return Ok(Health::Reopened);
        }
        Ok(if damaged { Health::Damaged } else { Health::Good })
    }

    /// End of media.
    pub(super) fn drain(&mut self, taker: Taker<'_>) -> Result<(), Error> {
        self.decoder.drain();
        self.pull(taker)?;
        self.stop_deinterlacing(taker)
    }

    fn pull(&mut self, taker: Taker<'_>) -> Result<(), Error> {
        while let Some(frame) = self.decoder.pull()? {
            if frame.is_interlaced() {
                self.progressive_run = 0;
            } else {
                self.progressive_run = self.progressive_run.saturating_add(1);
            }
            let stale = self.deinterlacer.as_ref().is_some_and(|f| !f.takes(&frame));
            if stale || self.progressive_run >= PROGRESSIVE_RUN {
                self.stop_deinterlacing(taker)?;
            }
            if self.deinterlacer.is_none() && frame.is_interlaced() {
                self.deinterlacer = Some(Filter::deinterlace(&frame, self.fields)?);
            }
            match &mut self.deinterlacer {
                Some(filter) => {
                    filter.push(&frame)?;
                    self.collect(taker)?;
                }
                None => self.give(frame, false, taker)?,
            }
        }
        Ok(())
    }

    fn stop_deinterlacing(&mut self, taker: Taker<'_>) -> Result<(), Error> {
        if let Some(filter) = &mut self.deinterlacer {
            filter.drain();
            self.collect(taker)?;
            self.deinterlacer = None;
        }
        Ok(())
    }

    fn collect(&mut self, taker: Taker<'_>) -> Result<(), Error> {
        while let Some(picked) = self.deinterlacer.as_mut().map(Filter::pull).transpose()?.flatten() {
            self.give(picked.frame, picked.second, taker)?;
        }
        Ok(())
    }

    fn give(&mut self, frame: Frame, second: bool, taker: Taker<'_>) -> Result<(), Error> {
        let Some(tag) = frame.pts() else {
            return Ok(());
        };
        let damaged = frame.is_damaged();
        let frame = match frame.rounded()? {
            Some(rounded) => rounded,
            None if frame.is_420() => frame,
            None => self.convert(&frame)?,
        };
        self.given += 1;
        taker(Decoded { picture: Picture::Host(Host::plain(frame)), tag, second, damaged });
        Ok(())
    }

    fn convert(&mut self, frame: &Frame) -> Result<Frame, Error> {
        if self.converter.as_ref().is_none_or(|c| !c.takes(frame)) {
            self.converter = Some(Filter::to_420(frame)?);
        }
        let converter = self.converter.as_mut().expect("made above");
        converter.push(frame)?;
        let made = converter.pull()?;
        made.map(|picked| picked.frame).ok_or(Error::alloc("converted picture"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rung::media::track::{Codec, Colour};
    use std::process::Command;

    /// What ffmpeg makes of a test picture with these arguments.
    fn made(arguments: &str, input: Option<&std::path::Path>) -> Vec<u8> {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-nostdin"]);
        match input {
            Some(path) => drop(command.arg("-i").arg(path)),
            None => drop(command.args("-f lavfi -i testsrc2=s=318x178:r=25:d=0.04".split(' '))),
        }
        let output = command.args(arguments.split(' ')).arg("-").output().expect("ffmpeg is installed");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The one picture of an HEVC stream, from `Source`: luma, both chromas.
    fn decoded(stream: &[u8]) -> Vec<Vec<u8>> {
        let config = VideoConfig {
            codec: Codec::H265,
            width: 318,
            height: 178,
            sar: (1, 1),
            rate: None,
            interlaced: false,
            colour: Colour::default(),
            profile: [2, 0, 60],
            bit_depth: 10,
            chroma_format: 1,
            reorder: Some(0),
            sps: Bytes::new(),
            pps: Vec::new(),
        };
        let mut source = Source::open(config, false, 100).expect("libavcodec decodes HEVC");
        let mut pictures = Vec::new();
        let mut taker = |decoded: Decoded| pictures.push((decoded.tag, decoded.picture));
        source.push(stream, 7, &mut taker).expect("decodes");
        source.drain(&mut taker).expect("decodes");
        let [(7, Picture::Host(Host { frame, .. }))] = &pictures[..] else { panic!("one picture: {}", pictures.len()) };
        let p = frame.planes();
        let rows = |plane: &[u8], stride: usize, columns: usize| {
            plane.chunks(stride).flat_map(|row| row[..columns].to_vec()).collect()
        };
        vec![rows(p.y, p.stride_y, 318), rows(p.u, p.stride_u, 159), rows(p.v, p.stride_v, 159)]
    }

    /// A gradient through all ten bits, up to the very top.
    const TEN: &str = "-vf format=yuv420p10le,geq=lum='mod(X*7+Y*13,1024)':cb='mod(X*5+Y,1024)':cr='1023-mod(X*3,1024)' \
                       -c:v libx265 -preset ultrafast -x265-params log-level=none:lossless=1 -f hevc";

    #[test]
    fn ten_bits_are_rounded_half_up_to_eight_sample_for_sample() {
        let stream = made(TEN, None);
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), &stream).expect("writable");
        let deep = made("-f rawvideo -pix_fmt yuv420p10le", Some(file.path()));
        let deep: Vec<u32> = deep.chunks_exact(2).map(|s| u32::from(u16::from_le_bytes([s[0], s[1]]))).collect();
        assert!(deep.contains(&1_023) && deep.contains(&0) && deep.len() == 318 * 178 * 3 / 2);
        let expected: Vec<u8> = deep.iter().map(|ten| ((ten + 2) >> 2).min(255) as u8).collect();
        assert!(decoded(&stream).concat() == expected);
    }

    #[test]
    fn ten_bits_of_422_come_out_within_a_step_and_without_drift() {
        let arguments = TEN.replace("420p10le", "422p10le");
        let stream = made(&arguments, None);
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), &stream).expect("writable");
        let deep = made("-f rawvideo -pix_fmt yuv422p10le", Some(file.path()));
        let luma = deep.chunks_exact(2).take(318 * 178).map(|s| f64::from(u16::from_le_bytes([s[0], s[1]])) / 4.0);
        let differences: Vec<f64> = luma
            .zip(&decoded(&stream)[0])
            .filter(|(ten, _)| *ten < 255.0)
            .map(|(ten, eight)| f64::from(*eight) - ten)
            .collect();
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        assert!(differences.iter().all(|d| d.abs() <= 1.0) && mean.abs() < 0.1, "mean {mean}");
    }
}

//! The streams of `tools/gpu-clips.sh`, cut into access units, and what each of their pictures must be.

use bytes::Bytes;
use rung::demux::{Demuxer, Event};
use rung::media::track::{Codec, TrackConfig, VideoConfig};
use rung::time::SystemClock;
use std::path::{Path, PathBuf};

use crate::report::{Found, Trouble};

/// Ticks of 90 kHz from picture to picture.
const STEP: i64 = 3_600;

/// An access unit and the index of its picture in the order of display.
#[derive(Clone, Debug)]
pub(crate) struct Coded {
    pub(crate) at: i64,
    pub(crate) key: bool,
    pub(crate) data: Bytes,
}

pub(crate) struct Clip {
    pub(crate) config: VideoConfig,
    pub(crate) units: Vec<Coded>,
    /// The Adler-32 of each picture as planar 4:2:0, in the order of display; empty where it may differ from decoder to
    /// decoder.
    pub(crate) sums: Vec<u32>,
}

/// Where they lie.
pub(crate) struct Clips {
    folder: PathBuf,
}

impl Clips {
    pub(crate) fn new(folder: &Path) -> Clips {
        Clips { folder: folder.to_owned() }
    }

    /// # Errors
    /// `SKIP clips`: it was not packed. A clip that is not whole fails.
    pub(crate) fn load(&self, name: &'static str) -> Found<Clip> {
        let path = self.folder.join(name).with_extension("ts");
        let stream = std::fs::read(&path).map_err(|error| {
            Trouble::skip("clips", format!("{}: {error}; tools/gpu-clips.sh makes it", path.display()))
        })?;
        let sums = std::fs::read_to_string(path.with_extension("crc")).unwrap_or_default();
        let sums = sums.lines().map(|line| u32::from_str_radix(line.trim(), 16)).collect::<Result<Vec<u32>, _>>();
        let sums = sums.map_err(|error| Trouble::Fail(format!("{name}.crc: {error}")))?;
        let (config, units) = units(&stream).ok_or_else(|| Trouble::Fail(format!("{name}: no video")))?;
        if !sums.is_empty() && sums.len() != units.len() {
            return Err(Trouble::Fail(format!("{name}: {} units, {} sums", units.len(), sums.len())));
        }
        Ok(Clip { config, units, sums })
    }
}

impl Clip {
    pub(crate) fn codec(&self) -> Codec {
        self.config.codec
    }

    pub(crate) fn frames(&self) -> i64 {
        i64::try_from(self.units.len()).unwrap_or(i64::MAX)
    }

    /// Over and over again, `at` counting on. Every round opens with a picture that decoding can start at.
    pub(crate) fn looped(&self) -> impl Iterator<Item = (i64, &Coded)> {
        let frames = self.frames();
        (0..).flat_map(move |round| self.units.iter().map(move |unit| (round * frames + unit.at, unit)))
    }
}

fn units(stream: &[u8]) -> Option<(VideoConfig, Vec<Coded>)> {
    let (mut demuxer, mut config, mut found) = (Demuxer::new(), None, Vec::new());
    let mut take = |demuxer: &mut Demuxer| {
        while let Some(event) = demuxer.poll() {
            match event {
                Event::Config { config: TrackConfig::Video(video), .. } => config = config.take().or(Some(video)),
                Event::Unit(unit) if unit.codec.is_video() => found.push(unit),
                _ => {}
            }
        }
    };
    for piece in stream.chunks(1316) {
        demuxer.push(SystemClock::mono(), piece);
        take(&mut demuxer);
    }
    demuxer.flush(SystemClock::mono());
    take(&mut demuxer);
    let first = found.iter().map(|unit| unit.pts.0).min()?;
    let coded = found.into_iter().map(|unit| Coded {
        at: (unit.pts.0 - first) / STEP,
        key: unit.random_access,
        data: unit.data,
    });
    Some((config?, coded.collect()))
}

/// As `ffmpeg -f framecrc` counts it: from 0 on.
pub(crate) fn adler(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (mut low, mut high) = (0u32, 0u32);
    // No sum of so many bytes leaves 32 bits.
    for piece in bytes.chunks(4_096) {
        for byte in piece {
            low += u32::from(*byte);
            high += low;
        }
        low %= MODULUS;
        high %= MODULUS;
    }
    high << 16 | low
}

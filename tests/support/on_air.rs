//! A channel on air without a publisher: made-up samples, published part by part when the test says so.

use std::sync::Arc;

use bytes::Bytes;
use rung::media::channel::{ChannelName, SessionId};
use rung::media::grid::{Cadence, FrameRate, Grid, PdtLine};
use rung::media::modes::LatencyMode;
use rung::media::sample::{Sample, Stamps};
use rung::media::track::{Codec, Colour, VideoConfig};
use rung::package::fmp4::init::InitSection;
use rung::package::origin::{Origin, SessionOutput};
use rung::package::segmenter::{Cut, Segmenter};
use rung::package::window::{Before, Kind, RETAINED_BYTES_MAX, RenditionOutput, RenditionSpec, Targets};
use rung::time::SystemClock;

/// The first segment's number.
pub(crate) const MSN0: u64 = 1_000;

pub(crate) struct OnAir {
    pub(crate) origin: Arc<Origin>,
    pub(crate) session: Arc<SessionOutput>,
    segmenters: Vec<Segmenter>,
    cadence: Cadence,
    frame: i64,
    bytes_per_frame: usize,
}

impl OnAir {
    /// Channel `news` with renditions `720p` and `360p` at 25 fps; nothing is published yet.
    pub(crate) fn new(mode: LatencyMode) -> OnAir {
        OnAir::with_frames_of(mode, 2_000)
    }

    pub(crate) fn with_frames_of(mode: LatencyMode, bytes_per_frame: usize) -> OnAir {
        let origin = Arc::new(Origin::default());
        let channel = origin.declare(&ChannelName::new("news").expect("a good name"));
        let session = Arc::new(SessionOutput::new(SessionId::new(ulid::Ulid::generate()), mode));
        let cadence = Cadence::for_rate(25.0, mode);
        let grid = Grid { cadence, msn0: MSN0 };
        let line = PdtLine { from_n: 0, wall: SystemClock::wall(), ppm: 0 };
        let mut segmenters = Vec::new();
        for (name, height) in [("720p", 720), ("360p", 360)] {
            let output = RenditionOutput::new(RenditionSpec {
                session: session.id.clone(),
                name: name.into(),
                kind: Kind::Video { rate: Some(FrameRate::new(25, 1)) },
                targets: Targets::ladder(mode, cadence, None),
                independent_segments: true,
                bandwidth_cap: 1_000_000,
                retained_bytes_max: RETAINED_BYTES_MAX,
                before: Before::default(),
            });
            session.add(output.clone());
            let init = InitSection::video(&video(height), cadence.timescale(), 0);
            segmenters.push(Segmenter::new(output, init, Cut::Frames, grid, line));
        }
        channel.set_session(Some(session.clone()));
        OnAir { origin, session, segmenters, cadence, frame: 0, bytes_per_frame }
    }

    /// Publishes one more part on all renditions.
    pub(crate) fn part(&mut self) {
        let grid = Grid { cadence: self.cadence, msn0: MSN0 };
        for _ in 0..self.cadence.part {
            let n = self.frame;
            for (index, segmenter) in self.segmenters.iter_mut().enumerate() {
                let sample = Sample {
                    dts: n * i64::from(self.cadence.frame_ticks()),
                    duration: self.cadence.frame_ticks(),
                    cto: 0,
                    sync: n % i64::from(self.cadence.gop) == 0,
                    data: filler(n, index, self.bytes_per_frame),
                    stamps: Stamps::default(),
                };
                segmenter.push(SystemClock::mono(), sample, grid.place_frame(n));
            }
            self.frame += 1;
        }
    }

    pub(crate) fn parts(&mut self, count: usize) {
        for _ in 0..count {
            self.part();
        }
    }

    pub(crate) fn end(&mut self) {
        for segmenter in &mut self.segmenters {
            segmenter.end(SystemClock::mono());
        }
    }

    /// `/live/news/<session>/720p/<file>`
    pub(crate) fn media(&self, file: &str) -> String {
        format!("/live/news/{}/720p/{file}", self.session.id)
    }
}

/// Bytes that differ between frames and renditions.
fn filler(n: i64, rendition: usize, length: usize) -> Bytes {
    let mut state = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((rendition as u64) << 32) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    Bytes::from(out)
}

fn video(height: u32) -> VideoConfig {
    VideoConfig {
        codec: Codec::H264,
        width: height * 16 / 9,
        height,
        sar: (1, 1),
        rate: Some(FrameRate::new(25, 1)),
        interlaced: false,
        colour: Colour::default(),
        profile: [100, 0, 31],
        bit_depth: 8,
        chroma_format: 1,
        reorder: Some(0),
        sps: Bytes::from_static(&[0x67, 100, 0, 31, 0xac]),
        pps: vec![Bytes::from_static(&[0x68, 0xee, 0x3c, 0x80])],
    }
}

//! Which outputs a channel gets from a source, and with which encoder settings: a pure function, printed by `rung probe`.

use crate::media::channel::{Channel, ChannelKind, Ladder, VideoCodec};
use crate::media::crop::{Margins, Part};
use crate::media::grid::Cadence;
use crate::media::picture::PictureRule;
use crate::media::track::VideoConfig;
use crate::pixels::protocol::{Backend, Deinterlace, OpenRendition, OpenVideo};

/// Aspect ratios closer than this are called equal: 854x480 is 16:9.
const ASPECT_SLACK: f64 = 0.005;

/// Renditions no taller than this are searched to half samples more carefully where no preset is configured: at their
/// rates it is worth 0.3 dB, and they cost little.
const SMALL_HEIGHT: u32 = 360;
const SMALL_EXTRA: &str = "subme=2";

/// CPU time of libx265 at its preset against that of libx264 at its own. Measured on 5 s of the natural clip of
/// `benches/ladder.rs` in mode `ultra`: at 720p 5.6 times at the same bit rate and 5.0 times at 70 % of it, at 360p 4.7 and
/// 4.3 times.
const HEVC_COST: f64 = 5.0;

/// The ladder of `channel` for `source`, never upscaled. Empty for a transmux channel.
pub fn ladder(channel: &Channel, source: &VideoConfig, cadence: Cadence) -> Ladder {
    let fast = cadence.rate.hz() > 31.0;
    let source = &shown(channel.crop, source);
    let mut ladder = match (&channel.kind, &channel.ladder) {
        (ChannelKind::Transmux, _) => return Ladder::default(),
        (_, Some(configured)) => configured.never_upscaled(source.height),
        (_, None) => Ladder::default_for(source.height, fast),
    };
    // The source itself is the top rendition of a hybrid: its own height is not encoded again.
    if channel.kind == ChannelKind::Hybrid && ladder.0.len() > 1 {
        ladder.0.retain(|r| r.height < source.height || r.codec != VideoCodec::H264);
    }
    ladder
}

/// The preset of a channel that names none. x265's `ultrafast` at 70 % of the bit rate has the PSNR of x264's
/// `superfast`; its own `superfast` takes twice the time for 0.1 dB.
pub fn preset(backend: Backend, codec: VideoCodec) -> &'static str {
    match (backend, codec) {
        (Backend::Software | Backend::GpuDecode, VideoCodec::H264) => "superfast",
        (Backend::Software | Backend::GpuDecode, VideoCodec::Hevc) => "ultrafast",
        (Backend::Gpu, _) => "p4",
    }
}

/// What an encode costs the CPU, in samples of H.264 a frame.
pub fn cost(codec: VideoCodec, width: u32, height: u32) -> f64 {
    let samples = f64::from(width) * f64::from(height);
    match codec {
        VideoCodec::H264 => samples,
        VideoCodec::Hevc => samples * HEVC_COST,
    }
}

/// Everything a worker needs to make the ladder; `start`: the first frame it is to show.
pub fn open_video(
    channel: &Channel,
    pid: u16,
    source: &VideoConfig,
    cadence: Cadence,
    ladder: &Ladder,
    start: i64,
) -> OpenVideo {
    let mode = channel.mode.params();
    let shown = shown(channel.crop, source);
    let renditions = ladder
        .0
        .iter()
        .map(|r| {
            let (width, sar) = geometry(&shown, r.height);
            let pixels_per_second = f64::from(r.height) * f64::from(r.height) * cadence.rate.hz();
            let small = channel.preset.is_none() && r.height <= SMALL_HEIGHT && r.codec == VideoCodec::H264;
            OpenRendition {
                name: r.name.clone(),
                codec: r.codec,
                width,
                height: r.height,
                sar,
                bitrate: r.bitrate,
                vbv_ms: mode.vbv_ms,
                bframes: mode.bframes,
                lookahead: mode.lookahead,
                preset: channel.preset.as_deref().unwrap_or(preset(Backend::Software, r.codec)).to_owned(),
                extra: if small { SMALL_EXTRA } else { "" }.to_owned(),
                threads: threads(r.codec, pixels_per_second),
                colour: source.colour,
            }
        })
        .collect();
    let (source, slate) = (source.clone(), channel.slate.clone());
    let (backend, pictures) = (Backend::Software, Some(PictureRule::of(cadence.rate)));
    let logo = channel.logo.clone().map(Box::new);
    let (deinterlace, crop) = (Deinterlace::Frame, channel.crop);
    OpenVideo { pid, source, cadence, start, renditions, deinterlace, crop, logo, slate, backend, pictures }
}

/// The source as it is once it is cut; as it is where the crop is for another one.
fn shown(crop: Margins, source: &VideoConfig) -> VideoConfig {
    match crop.part_of(source.width, source.height) {
        Some(Part { width, height, .. }) => VideoConfig { width, height, ..source.clone() },
        None => source.clone(),
    }
}

/// Threads of an encoder on the CPU; the rate counts squares of a rendition's height.
fn threads(codec: VideoCodec, squares_per_second: f64) -> u32 {
    /// 480p30 in HEVC keeps one thread busy for half of its time.
    const HEVC_THREAD: f64 = 480.0 * 480.0 * 30.5;
    const HEVC_THREADS_MAX: f64 = 8.0;
    match codec {
        VideoCodec::H264 if squares_per_second > 720.0 * 720.0 * 30.5 => 2,
        VideoCodec::H264 => 1,
        // At least 1 and at most 8.
        VideoCodec::Hevc => (squares_per_second / HEVC_THREAD).ceil().clamp(1.0, HEVC_THREADS_MAX) as u32,
    }
}

/// Columns and sample aspect of a rendition `height` rows high. Square samples where that widens nothing; else the
/// source's columns in proportion, with the sample aspect that keeps the picture's shape.
fn geometry(source: &VideoConfig, height: u32) -> (u32, (u32, u32)) {
    let (sw, sh) = (f64::from(source.width), f64::from(source.height.max(1)));
    let sar = if source.sar.0 == 0 || source.sar.1 == 0 { (1, 1) } else { source.sar };
    let display_aspect = sw * f64::from(sar.0) / f64::from(sar.1) / sh;
    let even = |x: f64| ((x / 2.0).round() as u32).max(1) * 2;
    let width = even(display_aspect * f64::from(height)).min(source.width & !1).max(2);
    let aspect_of_square = f64::from(width) / f64::from(height);
    if (aspect_of_square / display_aspect - 1.0).abs() <= ASPECT_SLACK {
        return (width, (1, 1));
    }
    let n = u64::from(source.width) * u64::from(sar.0) * u64::from(height);
    let d = u64::from(source.height) * u64::from(sar.1) * u64::from(width);
    (width, reduce(n, d))
}

/// The fraction in lowest terms, rounded to 16 bits a side, as a VUI carries it [AVC E.2.1].
fn reduce(n: u64, d: u64) -> (u32, u32) {
    let (mut a, mut b) = (n.max(1), d.max(1));
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let (mut n, mut d) = (n.max(1) / a, d.max(1) / a);
    while n > 0xffff || d > 0xffff {
        n = (n / 2).max(1);
        d = (d / 2).max(1);
    }
    (u32::try_from(n).unwrap_or(1), u32::try_from(d).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::channel::{ChannelName, Rendition};
    use crate::media::modes::LatencyMode;
    use crate::media::track::{Codec, Colour};
    use crate::pixels::protocol::lowest;
    use bytes::Bytes;

    fn source(width: u32, height: u32, sar: (u32, u32)) -> VideoConfig {
        VideoConfig {
            codec: Codec::H264,
            width,
            height,
            sar,
            rate: None,
            interlaced: false,
            colour: Colour::default(),
            profile: [100, 0, 40],
            bit_depth: 8,
            chroma_format: 1,
            reorder: None,
            sps: Bytes::new(),
            pps: vec![],
        }
    }

    fn channel(kind: ChannelKind) -> Channel {
        Channel::new(ChannelName::new("c").unwrap(), kind, LatencyMode::Ultra)
    }

    fn outputs(kind: ChannelKind, s: &VideoConfig, hz: f64) -> Vec<(String, u32, (u32, u32), u32)> {
        let cadence = Cadence::for_rate(hz, LatencyMode::Ultra);
        let channel = channel(kind);
        let ladder = ladder(&channel, s, cadence);
        let open = open_video(&channel, 1, s, cadence, &ladder, 0);
        open.renditions.into_iter().map(|r| (r.name, r.width, r.sar, r.threads)).collect()
    }

    #[test]
    fn square_sources_keep_square_samples() {
        let got = outputs(ChannelKind::Transcode, &source(1920, 1080, (1, 1)), 30.0);
        let want = [("1080p", 1920, 2), ("720p", 1280, 1), ("480p", 854, 1), ("360p", 640, 1)];
        assert_eq!(got, want.map(|(n, w, t)| (n.to_owned(), w, (1, 1), t)));
    }

    #[test]
    fn anamorphic_sources_are_never_widened_and_keep_their_shape() {
        let got = outputs(ChannelKind::Transcode, &source(720, 576, (64, 45)), 25.0);
        assert_eq!(got[0], ("480p".to_owned(), 720, (32, 27), 1));
        assert_eq!(got[1], ("360p".to_owned(), 640, (1, 1), 1));
    }

    /// Sizes and sample aspects of the renditions of a source that is cut.
    fn cut(crop: Margins, s: &VideoConfig) -> Vec<(u32, u32, (u32, u32))> {
        let cadence = Cadence::for_rate(25.0, LatencyMode::Ultra);
        let channel = Channel { crop, ..channel(ChannelKind::Transcode) };
        let open = open_video(&channel, 1, s, cadence, &ladder(&channel, s, cadence), 0);
        assert_eq!((open.crop, open.source.width, open.source.height), (crop, s.width, s.height));
        open.renditions.into_iter().map(|r| (r.width, r.height, r.sar)).collect()
    }

    #[test]
    fn shape_sizes_and_never_upscaling_follow_what_is_left_of_the_source() {
        let bars = |top, bottom| Margins { top, bottom, ..Margins::default() };
        // 2.39:1 in 16:9: nothing has 1080 rows any more.
        let wide = [(1728, 720, (1, 1)), (1152, 480, (1, 1)), (864, 360, (1, 1))];
        assert_eq!(cut(bars(140, 140), &source(1920, 1080, (1, 1))), wide);
        // 4:3 between pillars, in square samples and in anamorphic ones.
        let pillars = |side| Margins { left: side, right: side, ..Margins::default() };
        assert_eq!(cut(pillars(240), &source(1920, 1080, (1, 1)))[..2], [(1440, 1080, (1, 1)), (960, 720, (1, 1))]);
        assert_eq!(cut(pillars(90), &source(720, 576, (64, 45))), [(540, 480, (32, 27)), (480, 360, (1, 1))]);
        // Odd sources.
        assert_eq!(cut(bars(6, 8), &source(853, 481, (1, 1)))[0], (852, 466, (1, 1)));
        // A crop for another source.
        assert_eq!(cut(bars(140, 140), &source(640, 360, (1, 1)))[0], (640, 360, (1, 1)));
    }

    #[test]
    fn a_hybrid_does_not_encode_the_source_height_again() {
        let got = outputs(ChannelKind::Hybrid, &source(1280, 720, (1, 1)), 50.0);
        assert_eq!(got.iter().map(|r| r.0.as_str()).collect::<Vec<_>>(), ["480p", "360p"]);
        assert!(outputs(ChannelKind::Transmux, &source(1280, 720, (1, 1)), 50.0).is_empty());
    }

    fn mixed(kind: ChannelKind, preset: Option<&str>) -> Vec<OpenRendition> {
        let mut channel = channel(kind);
        channel.preset = preset.map(str::to_owned);
        let one = |height, codec| Rendition { name: format!("{height}{codec}"), height, bitrate: 1_000_000, codec };
        let heights = [1080, 720, 360];
        channel.ladder = Some(Ladder(
            heights.into_iter().flat_map(|h| [one(h, VideoCodec::H264), one(h, VideoCodec::Hevc)]).collect(),
        ));
        let (source, cadence) = (source(1920, 1080, (1, 1)), Cadence::for_rate(30.0, LatencyMode::Ultra));
        let ladder = ladder(&channel, &source, cadence);
        open_video(&channel, 1, &source, cadence, &ladder, 0).renditions
    }

    #[test]
    fn each_codec_has_its_own_preset_threads_and_options() {
        let got = mixed(ChannelKind::Transcode, None);
        let told = |r: &OpenRendition| (r.codec, r.preset.clone(), r.extra.clone(), r.threads);
        let row = |codec, preset: &str, extra: &str, threads| (codec, preset.to_owned(), extra.to_owned(), threads);
        assert_eq!(told(&got[0]), row(VideoCodec::H264, "superfast", "", 2));
        assert_eq!(told(&got[1]), row(VideoCodec::Hevc, "ultrafast", "", 5));
        assert_eq!(told(&got[4]), row(VideoCodec::H264, "superfast", "subme=2", 1));
        assert_eq!(told(&got[5]), row(VideoCodec::Hevc, "ultrafast", "", 1));
        let asked = mixed(ChannelKind::Transcode, Some("fast"));
        assert!(asked.iter().all(|r| r.preset == "fast" && r.extra.is_empty()));
        // What is never shed is the smallest that every player has.
        assert_eq!(lowest(&got), 4);
        assert_eq!(lowest(&got[..2]), 0);
        assert_eq!(lowest(&[got[1].clone(), got[5].clone()]), 1);
    }

    #[test]
    fn a_hybrid_makes_hevc_of_its_sources_height_because_the_source_is_h264() {
        let got = mixed(ChannelKind::Hybrid, None);
        let told: Vec<_> = got.iter().map(|r| (r.height, r.codec)).collect();
        assert_eq!(told[..2], [(1080, VideoCodec::Hevc), (720, VideoCodec::H264)]);
        assert_eq!(told.len(), 5);
    }
}

//! The multivariant playlist [HLS 4.4.6]: variants are video renditions, each with the one audio group.

use std::fmt::Write;

use super::tags::{Quoted, VERSION, language};
use crate::media::grid::FrameRate;
use crate::media::track::{TrackConfig, VideoConfig};
use crate::package::fmp4::init::display_size;
use crate::package::window::{Kind, RenditionOutput};

/// One rendition as the multivariant playlist sees it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) track: TrackConfig,
    pub(crate) codec: String,
    pub(crate) peak: u64,
    pub(crate) average: u64,
    pub(crate) independent: bool,
}

/// The text, or `None` while a rendition that is not shed has nothing to play.
pub(crate) fn render(renditions: &[std::sync::Arc<RenditionOutput>]) -> Option<String> {
    let mut rows = Vec::with_capacity(renditions.len());
    for rendition in renditions.iter().filter(|r| !r.is_shed()) {
        rows.push(rendition.row()?);
    }
    if rows.is_empty() {
        return None;
    }
    let (audio, video): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|r| matches!(r.kind, Kind::Audio { .. }));
    let mut out = format!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n");
    if audio.iter().chain(&video).all(|r| r.independent) {
        out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    }
    if video.is_empty() {
        for row in &audio {
            put(
                &mut out,
                format_args!(
                    "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS={}\n{}.m3u8\n",
                    row.peak,
                    row.average,
                    Quoted(&row.codec),
                    row.name
                ),
            );
        }
        return Some(out);
    }
    group(&mut out, &audio);
    for row in &video {
        variant(&mut out, row, &audio);
    }
    Some(out)
}

/// EXT-X-MEDIA of each audio rendition. The first is the default where none was named.
fn group(out: &mut String, audio: &[Row]) {
    let named = audio.iter().any(|r| matches!(r.kind, Kind::Audio { default: true, .. }));
    let mut used: Vec<String> = Vec::with_capacity(audio.len());
    for (index, row) in audio.iter().enumerate() {
        let Kind::Audio { language: code, default } = &row.kind else { continue };
        let default = *default || !named && index == 0;
        // NAME is unique in its group [HLS 4.4.6.1.1].
        let mut name = code.as_deref().map_or_else(|| format!("Audio {}", index + 1), |c| language(c).1.to_owned());
        if used.contains(&name) {
            name = format!("{name} {}", index + 1);
        }
        put(out, format_args!("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME={}", Quoted(&name)));
        if let Some(code) = code {
            put(out, format_args!(",LANGUAGE={}", Quoted(language(code).0)));
        }
        put(out, format_args!(",DEFAULT={},AUTOSELECT=YES", if default { "YES" } else { "NO" }));
        if let TrackConfig::Audio(config) = &row.track {
            put(out, format_args!(",CHANNELS=\"{}\"", config.channels.max(1)));
        }
        put(out, format_args!(",URI=\"{}.m3u8\"\n", row.name));
        used.push(name);
    }
}

fn variant(out: &mut String, row: &Row, audio: &[Row]) {
    let peak = row.peak + audio.iter().map(|a| a.peak).max().unwrap_or(0);
    let average = row.average + audio.iter().map(|a| a.average).max().unwrap_or(0);
    put(out, format_args!("#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}"));
    let mut codecs = row.codec.clone();
    for a in audio {
        if !codecs.split(',').any(|c| c == a.codec) {
            codecs.push(',');
            codecs.push_str(&a.codec);
        }
    }
    put(out, format_args!(",CODECS={}", Quoted(&codecs)));
    if let TrackConfig::Video(config) = &row.track {
        let (width, height) = display_size(config);
        put(out, format_args!(",RESOLUTION={width}x{height}"));
        if let Kind::Video { rate: Some(rate) } = row.kind {
            put(out, format_args!(",FRAME-RATE={}", frame_rate(rate)));
        }
        put(out, format_args!(",VIDEO-RANGE={}", video_range(config)));
    }
    if !audio.is_empty() {
        out.push_str(",AUDIO=\"audio\"");
    }
    put(out, format_args!("\n{}.m3u8\n", row.name));
}

/// Three decimals [HLS 4.4.6.2].
fn frame_rate(rate: FrameRate) -> String {
    let thousandths = (u64::from(rate.num) * 1_000 + u64::from(rate.den) / 2) / u64::from(rate.den.max(1));
    format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}

/// From transfer_characteristics: 16 is PQ, 18 is HLG [HLS 4.4.6.2].
fn video_range(config: &VideoConfig) -> &'static str {
    match config.colour.transfer {
        16 => "PQ",
        18 => "HLG",
        _ => "SDR",
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes any text");
}

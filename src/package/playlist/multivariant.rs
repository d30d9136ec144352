//! The multivariant playlist [HLS 4.4.6]: variants are video renditions, each with the one audio group, then the sound alone.
//! Where players are steered, everything is listed once a pathway.

use std::fmt::Write;

use super::tags::{Quoted, VERSION_MAP, VERSION_SERVICE, language};
use crate::media::captions::{CaptionService, Captions, InstreamId};
use crate::media::grid::FrameRate;
use crate::media::track::{AudioRole, TrackConfig, VideoConfig};
use crate::package::fmp4::init::display_size;
use crate::package::origin::SteeringOutput;
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
    /// The same two of its I-frame playlist, if it has one.
    pub(crate) iframes: Option<(u64, u64)>,
    pub(crate) independent: bool,
}

/// Where a variant's playlists lie.
#[derive(Clone, Debug, Default)]
struct Way<'a> {
    /// PATHWAY-ID; `None`: nobody is steered.
    id: Option<&'a str>,
    /// Before a playlist's name.
    base: String,
}

impl Way<'_> {
    /// The audio group of this pathway.
    fn group(&self) -> String {
        self.id.map_or_else(|| "audio".to_owned(), |id| format!("audio-{id}"))
    }

    /// The same variant on all pathways has one stable name [HLS 4.4.6.2].
    fn attributes(&self, stable: &str) -> String {
        self.id
            .map_or_else(String::new, |id| format!(",PATHWAY-ID={},STABLE-VARIANT-ID={}", Quoted(id), Quoted(stable)))
    }
}

/// What a session says beside its renditions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said<'a> {
    pub(crate) captions: &'a Captions,
    /// A variant without a picture is among those with one.
    pub(crate) audio_only: bool,
    /// EXT-X-START, seconds.
    pub(crate) start: Option<i32>,
    pub(crate) steering: Option<&'a SteeringOutput>,
}

/// The text, or `None` while a rendition that is not shed has nothing to play.
pub(crate) fn render(
    renditions: &[std::sync::Arc<RenditionOutput>],
    Said { captions, audio_only, start, steering }: Said<'_>,
) -> Option<String> {
    let mut rows = Vec::with_capacity(renditions.len());
    for rendition in renditions.iter().filter(|r| !r.is_shed()) {
        rows.push(rendition.row()?);
    }
    if rows.is_empty() {
        return None;
    }
    let (audio, video): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|r| matches!(r.kind, Kind::Audio { .. }));
    let digital = |s: &CaptionService| matches!(s.instream_id, InstreamId::Service(_));
    let version = match captions {
        Captions::Services(services) if services.iter().any(digital) => VERSION_SERVICE,
        _ => VERSION_MAP,
    };
    let mut out = format!("#EXTM3U\n#EXT-X-VERSION:{version}\n");
    // Said here, it holds for every media playlist, and they need not say it again [HLS 4.4.2.1].
    if audio.iter().chain(&video).all(|r| r.independent) {
        out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    }
    if let Some(start) = start {
        put(&mut out, format_args!("#EXT-X-START:TIME-OFFSET={start}.000\n"));
    }
    let ways = ways(steering);
    if let Some(id) = ways[0].id {
        put(&mut out, format_args!("#EXT-X-CONTENT-STEERING:SERVER-URI=\"steering.json\",PATHWAY-ID={}\n", Quoted(id)));
    }
    if let (Captions::Services(services), false) = (captions, video.is_empty()) {
        put_captions(&mut out, services);
    }
    for way in &ways {
        if let ([], [row]) = (&video[..], &audio[..]) {
            audio_variant(&mut out, way, row);
            continue;
        }
        group(&mut out, way, &audio);
        video.iter().for_each(|row| variant(&mut out, way, row, &audio, captions));
        if audio_only || video.is_empty() {
            sound_alone(&mut out, way, &audio, captions);
        }
        video.iter().for_each(|row| iframe_variant(&mut out, way, row));
    }
    Some(out)
}

/// The preferred one first; there is one at least.
fn ways(steering: Option<&SteeringOutput>) -> Vec<Way<'_>> {
    let Some(output) = steering.filter(|output| !output.steering.pathways.is_empty()) else {
        return vec![Way::default()];
    };
    let pathways = output.steering.pathways.iter().map(|pathway| {
        let own = pathway.base.is_empty();
        let base = if own { String::new() } else { format!("{}{}", pathway.base, output.path) };
        Way { id: Some(&pathway.id), base }
    });
    pathways.collect()
}

/// A variant of sound alone.
fn audio_variant(out: &mut String, way: &Way<'_>, row: &Row) {
    put(
        out,
        format_args!(
            "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS={}{}\n{}{}.m3u8\n",
            row.peak,
            row.average,
            Quoted(&row.codec),
            way.attributes(&row.name),
            way.base,
            row.name
        ),
    );
}

/// EXT-X-MEDIA of each audio rendition. The first is the default where none was named.
fn group(out: &mut String, way: &Way<'_>, audio: &[Row]) {
    let named = audio.iter().position(|r| matches!(r.kind, Kind::Audio { default: true, .. })).unwrap_or(0);
    let (mut names, mut choices) = (Names::default(), Vec::with_capacity(audio.len()));
    // In one language the general comes before the special: players that know no characteristics take the first.
    let special = |row: &Row| matches!(row.kind, Kind::Audio { role, .. } if role != AudioRole::Main);
    let ordered =
        [false, true].into_iter().flat_map(|last| audio.iter().enumerate().filter(move |(_, r)| special(r) == last));
    for (index, row) in ordered {
        let Kind::Audio { language: code, role, .. } = &row.kind else { continue };
        let spoken = code.as_deref().map_or_else(|| format!("Audio {}", index + 1), |c| language(c).1.to_owned());
        let name = names.unique(match role {
            AudioRole::Main => spoken,
            AudioRole::ClearSpeech => format!("{spoken} (clear speech)"),
            AudioRole::Description => format!("{spoken} (audio description)"),
        });
        put(out, format_args!("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID={},NAME={}", Quoted(&way.group()), Quoted(&name)));
        put(out, format_args!(",LANGUAGE={}", Quoted(tag(code))));
        // What players may choose by themselves differs in language or characteristics [HLS 4.4.6.1.1].
        let distinct = !choices.contains(&(code, role));
        choices.push((code, role));
        let default = index == named;
        put(out, format_args!(",DEFAULT={},AUTOSELECT={}", yes(default), yes(default || distinct)));
        match role {
            AudioRole::Main => {}
            AudioRole::ClearSpeech => {
                out.push_str(",CHARACTERISTICS=\"public.accessibility.enhances-speech-intelligibility\"");
            }
            AudioRole::Description => out.push_str(",CHARACTERISTICS=\"public.accessibility.describes-video\""),
        }
        if let TrackConfig::Audio(config) = &row.track {
            put(out, format_args!(",CHANNELS=\"{}\"", config.channels.max(1)));
        }
        if way.id.is_some() {
            put(out, format_args!(",STABLE-RENDITION-ID={}", Quoted(&row.name)));
        }
        put(out, format_args!(",URI={}\n", Quoted(&format!("{}{}.m3u8", way.base, row.name))));
    }
}

/// EXT-X-MEDIA of each caption service. Nobody is shown captions unasked.
fn put_captions(out: &mut String, services: &[CaptionService]) {
    let (mut names, mut choices) = (Names::default(), Vec::with_capacity(services.len()));
    // A service and a channel of line 21 in one language say the same: the latter, which all players know, has the plain
    // name, and is chosen. It comes last: players that take both for the same track name it as the last one is named.
    let lines = |s: &&CaptionService| matches!(s.instream_id, InstreamId::Cc(_));
    let (channels, digital): (Vec<&CaptionService>, Vec<&CaptionService>) = services.iter().partition(lines);
    let mut texts = [channels, digital].map(|kind| {
        let mut out = String::new();
        kind.into_iter().for_each(|service| put_service(&mut out, service, &mut names, &mut choices));
        out
    });
    texts.reverse();
    texts.iter().for_each(|text| out.push_str(text));
}

fn put_service<'a>(
    out: &mut String,
    CaptionService { instream_id, language: code, name }: &'a CaptionService,
    names: &mut Names,
    choices: &mut Vec<Option<&'a str>>,
) {
    let spoken = code.as_deref().map(|c| language(c).1.to_owned());
    let name = name.clone().or(spoken).filter(|name| !names.has(name));
    let name = names.unique(name.unwrap_or_else(|| match code {
        Some(code) => format!("{} ({instream_id})", language(code).1),
        None => instream_id.to_string(),
    }));
    put(out, format_args!("#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID=\"cc\",NAME={}", Quoted(&name)));
    put(out, format_args!(",LANGUAGE={}", Quoted(tag(code))));
    let auto = !choices.contains(&code.as_deref());
    choices.push(code.as_deref());
    put(out, format_args!(",DEFAULT=NO,AUTOSELECT={},INSTREAM-ID=\"{instream_id}\"\n", yes(auto)));
}

/// Players want a language of every rendition, if only that it is undetermined.
fn tag(code: &Option<String>) -> &str {
    code.as_deref().map_or("und", |code| language(code).0)
}

/// NAME is unique in its group [HLS 4.4.6.1.1].
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|used| used == name)
    }

    fn unique(&mut self, name: String) -> String {
        let numbered = (2..).map(|n| format!("{name} {n}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !self.has(name)).unwrap_or(name);
        self.0.push(free.clone());
        free
    }
}

fn yes(it_is: bool) -> &'static str {
    if it_is { "YES" } else { "NO" }
}

fn variant(out: &mut String, way: &Way<'_>, row: &Row, audio: &[Row], captions: &Captions) {
    let peak = row.peak + audio.iter().map(|a| a.peak).max().unwrap_or(0);
    let average = row.average + audio.iter().map(|a| a.average).max().unwrap_or(0);
    put(out, format_args!("#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}"));
    let codecs = std::iter::once(row.codec.as_str()).chain(audio.iter().map(|a| a.codec.as_str()));
    put(out, format_args!(",CODECS={}", Quoted(&joined(codecs))));
    if let TrackConfig::Video(config) = &row.track {
        let (width, height) = display_size(config);
        put(out, format_args!(",RESOLUTION={width}x{height}"));
        if let Kind::Video { rate: Some(rate) } = row.kind {
            put(out, format_args!(",FRAME-RATE={}", frame_rate(rate)));
        }
        put(out, format_args!(",VIDEO-RANGE={}", video_range(config)));
    }
    if !audio.is_empty() {
        put(out, format_args!(",AUDIO={}", Quoted(&way.group())));
    }
    match captions {
        Captions::Unknown => {}
        Captions::None => out.push_str(",CLOSED-CAPTIONS=NONE"),
        Captions::Services(_) => out.push_str(",CLOSED-CAPTIONS=\"cc\""),
    }
    put(out, format_args!("{}\n{}{}.m3u8\n", way.attributes(&row.name), way.base, row.name));
}

/// Pictures to look through a programme with [HLS 4.4.6.3].
fn iframe_variant(out: &mut String, way: &Way<'_>, row: &Row) {
    let (Some((peak, average)), TrackConfig::Video(config)) = (row.iframes, &row.track) else { return };
    let (width, height) = display_size(config);
    let file = format!("{}.iframes", row.name);
    put(
        out,
        format_args!(
            "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS={},\
             RESOLUTION={width}x{height},VIDEO-RANGE={}{},URI={}\n",
            Quoted(&row.codec),
            video_range(config),
            way.attributes(&file),
            Quoted(&format!("{}{file}.m3u8", way.base)),
        ),
    );
}

/// The last and cheapest variant, for who has no room for any picture: the group's default. Others of the group can be
/// chosen as beside a picture.
fn sound_alone(out: &mut String, way: &Way<'_>, audio: &[Row], captions: &Captions) {
    let named = audio.iter().find(|r| matches!(r.kind, Kind::Audio { default: true, .. }));
    let Some(row) = named.or(audio.first()) else { return };
    let peak = audio.iter().map(|a| a.peak).max().unwrap_or(0);
    let average = audio.iter().map(|a| a.average).max().unwrap_or(0);
    put(out, format_args!("#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}"));
    let codecs = joined(audio.iter().map(|a| a.codec.as_str()));
    put(out, format_args!(",CODECS={},AUDIO={}", Quoted(&codecs), Quoted(&way.group())));
    if *captions == Captions::None {
        // Where one says NONE all do [HLS 4.4.6.2].
        out.push_str(",CLOSED-CAPTIONS=NONE");
    }
    put(out, format_args!("{}\n{}{}.m3u8\n", way.attributes(&row.name), way.base, row.name));
}

/// Every format that may have to be decoded, once.
fn joined<'a>(codecs: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = Vec::new();
    for codec in codecs.flat_map(|codecs| codecs.split(',')) {
        if !all.contains(&codec) {
            all.push(codec);
        }
    }
    all.join(",")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::track::{AudioConfig, Codec};

    fn row(name: &str, code: &str, role: AudioRole, default: bool, codec: &str) -> Row {
        let language = (!code.is_empty()).then(|| code.to_owned());
        let asc = bytes::Bytes::new();
        let config = AudioConfig { codec: Codec::Aac, object_type: 2, sample_rate: 48_000, channels: 2, asc };
        Row {
            name: name.to_owned(),
            kind: Kind::Audio { language, default, role },
            track: TrackConfig::Audio(config),
            codec: codec.to_owned(),
            peak: 130_000,
            average: 128_000,
            iframes: None,
            independent: true,
        }
    }

    /// Attributes of the tags that `write` writes, without those that are the same for all.
    fn lines(write: impl FnOnce(&mut String)) -> Vec<String> {
        let mut out = String::new();
        write(&mut out);
        let short = |line: &str| line.split_once(",NAME=").map_or(line.to_owned(), |(_, rest)| rest.to_owned());
        out.lines().map(short).collect()
    }

    #[test]
    fn tracks_are_named_apart_and_players_choose_among_those_that_differ() {
        use AudioRole::{ClearSpeech, Description, Main};
        let rows = [
            row("a-eng-1", "eng", Description, false, "mp4a.40.2"),
            row("a-eng-2", "eng", Main, true, "mp4a.40.2"),
            row("a-deu-3", "deu", Main, false, "mp4a.40.2"),
            row("a-eng-4", "eng", Main, false, "mp4a.40.2"),
            row("a-und-5", "", Main, false, "mp4a.40.2"),
            row("a-eng-6", "eng", ClearSpeech, false, "mp4a.40.2"),
        ];
        let rest = "CHANNELS=\"2\",URI";
        let want = [
            format!("\"English\",LANGUAGE=\"en\",DEFAULT=YES,AUTOSELECT=YES,{rest}=\"a-eng-2.m3u8\""),
            format!("\"German\",LANGUAGE=\"de\",DEFAULT=NO,AUTOSELECT=YES,{rest}=\"a-deu-3.m3u8\""),
            format!("\"English 2\",LANGUAGE=\"en\",DEFAULT=NO,AUTOSELECT=NO,{rest}=\"a-eng-4.m3u8\""),
            format!("\"Audio 5\",LANGUAGE=\"und\",DEFAULT=NO,AUTOSELECT=YES,{rest}=\"a-und-5.m3u8\""),
            format!(
                "\"English (audio description)\",LANGUAGE=\"en\",DEFAULT=NO,AUTOSELECT=YES,\
                 CHARACTERISTICS=\"public.accessibility.describes-video\",{rest}=\"a-eng-1.m3u8\""
            ),
            format!(
                "\"English (clear speech)\",LANGUAGE=\"en\",DEFAULT=NO,AUTOSELECT=YES,\
                 CHARACTERISTICS=\"public.accessibility.enhances-speech-intelligibility\",{rest}=\"a-eng-6.m3u8\""
            ),
        ];
        assert_eq!(lines(|out| group(out, &Way::default(), &rows)), want);
    }

    #[test]
    fn captions_are_named_apart_and_line_21_is_chosen_before_its_digital_double() {
        let service = |id: &str, language: Option<&str>, name: Option<&str>| CaptionService {
            instream_id: id.parse().expect("well known"),
            language: language.map(str::to_owned),
            name: name.map(str::to_owned),
        };
        let services = [
            service("SERVICE1", Some("eng"), None),
            service("CC1", Some("eng"), None),
            service("CC3", None, None),
            service("SERVICE2", Some("fra"), Some("Vite \"dit\"")),
        ];
        let want = [
            "\"English (SERVICE1)\",LANGUAGE=\"en\",DEFAULT=NO,AUTOSELECT=NO,INSTREAM-ID=\"SERVICE1\"",
            "\"Vite dit\",LANGUAGE=\"fr\",DEFAULT=NO,AUTOSELECT=YES,INSTREAM-ID=\"SERVICE2\"",
            "\"English\",LANGUAGE=\"en\",DEFAULT=NO,AUTOSELECT=YES,INSTREAM-ID=\"CC1\"",
            "\"CC3\",LANGUAGE=\"und\",DEFAULT=NO,AUTOSELECT=YES,INSTREAM-ID=\"CC3\"",
        ];
        assert_eq!(lines(|out| put_captions(out, &services)), want);
    }

    #[test]
    fn the_variant_of_sound_alone_names_every_codec_of_the_group_and_the_default_track() {
        let rows = [
            row("a-deu-1", "deu", AudioRole::Main, false, "mp4a.40.5"),
            row("a-eng-2", "eng", AudioRole::Main, true, "mp4a.40.2"),
        ];
        let of = |captions: Captions| lines(|out| sound_alone(out, &Way::default(), &rows, &captions));
        let start = "#EXT-X-STREAM-INF:BANDWIDTH=130000,AVERAGE-BANDWIDTH=128000,CODECS=\"mp4a.40.5,mp4a.40.2\",AUDIO=\"audio\"";
        assert_eq!(of(Captions::Unknown), [start, "a-eng-2.m3u8"]);
        assert_eq!(of(Captions::None), [&format!("{start},CLOSED-CAPTIONS=NONE"), "a-eng-2.m3u8"]);
        assert!(lines(|out| sound_alone(out, &Way::default(), &[], &Captions::None)).is_empty());
    }
}

//! A channel's configuration as JSON: read, merged and checked, every error with its place and its fix.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::refusal::{FieldError, Refusal};
use crate::control::config::nearest;
use crate::control::record::{Applies, ChannelConfig, FIELDS, LogoImage, LogoSettings, Profile};
use crate::media::captions::{CAPTION_SERVICES_MAX, CaptionService};
use crate::media::channel::{ChannelKind, ChannelName, Ladder, Rendition};
use crate::media::crop::{MARGIN_MAX, Margins};
use crate::media::limits::{RECONNECT_WINDOW_S_MAX, WINDOW_BYTES_MAX, WINDOW_S_MAX};
use crate::media::logo::{Hundredths, LogoPlace};
use crate::media::modes::LatencyMode;
use crate::media::networks::Networks;
use crate::media::steering::Steering;
use crate::pipeline::ports::PullUrl;

const RENDITIONS_MAX: usize = 8;
/// Wrong fields that are told of: an answer stays about as long as what it answers.
const ERRORS_MAX: usize = 32;
/// A session shorter than this serves nobody; 30 days.
const DURATION_S: std::ops::RangeInclusive<u32> = 60..=2_592_000;
/// Least and most in hundredths, and in words.
const LOGO_WIDTH: (u32, u32, &str) = (100, 5_000, "percent of the picture's width from 1 to 50, or null");
const LOGO_MARGIN: (u32, u32, &str) = (0, 2_000, "percent of the picture's width from 0 to 20, or null");
const LOGO_OPACITY: (u32, u32, &str) = (0, 100, "a number from 0 to 1, or null");
/// Bits per second that a source is reckoned with.
const SOURCE_RATE: u64 = 25_000_000;
const HOLD_BACK_MS: std::ops::RangeInclusive<u32> = 1_200..=60_000;

/// A new channel's configuration: `name` and whatever is not at its default.
///
/// # Errors
/// Every field that is wrong, up to `ERRORS_MAX`.
pub fn read_new(body: &Value) -> Result<ChannelConfig, Refusal> {
    let body = object(body)?;
    let name = match body.get("name").map(|name| name.as_str().map(ChannelName::new)) {
        Some(Some(Ok(name))) => name,
        Some(Some(Err(what))) => return Err(Refusal::fields(vec![FieldError::new("/name", what)])),
        Some(None) | None => {
            let what = "write the channel's name: 1 to 63 of a-z, 0-9 and '-' (for example \"news-1\")";
            return Err(Refusal::fields(vec![FieldError::new("/name", what)]));
        }
    };
    apply(ChannelConfig::new(name), body)
}

/// `config` with a JSON merge patch: what is not named stays, `null` is the default.
///
/// # Errors
/// Every field that is wrong, up to `ERRORS_MAX`.
pub fn merge(config: &ChannelConfig, patch: &Value) -> Result<ChannelConfig, Refusal> {
    apply(config.clone(), object(patch)?)
}

/// `config` with another picture as its logo, or none, and a patch of where it lies.
///
/// # Errors
/// Every field that is wrong; a channel that encodes nothing.
pub(super) fn with_logo(
    config: &ChannelConfig,
    image: Option<LogoImage>,
    place: &Map<String, Value>,
) -> Result<ChannelConfig, Refusal> {
    let mut config = config.clone();
    let mut logo = config.policy.logo.take().unwrap_or_default();
    let mut wrong = patch_logo(&mut logo, place);
    logo.image = image;
    config.policy.logo = Some(logo);
    if wrong.is_empty() {
        wrong = check(&config);
    }
    if wrong.is_empty() { Ok(config) } else { Err(Refusal::fields(wrong)) }
}

/// What is wrong with a configuration whose fields are each of their kind.
pub fn check(config: &ChannelConfig) -> Vec<FieldError> {
    let (profile, policy) = (&config.profile, &config.policy);
    let mut wrong = Vec::new();
    match &profile.ladder {
        Some(_) if profile.kind == ChannelKind::Transmux => wrong.push(FieldError::new(
            "/ladder",
            "kind = \"transmux\" encodes nothing: remove the ladder, or write kind = \"hybrid\"",
        )),
        Some(ladder) => wrong.extend(check_ladder(ladder)),
        None => {}
    }
    match profile.hold_back_ms {
        Some(_) if profile.mode != LatencyMode::Ultra => wrong.push(FieldError::new(
            "/hold_back_ms",
            format!("hold_back is for mode = \"ultra\"; {} has a fixed one: remove it", profile.mode.name()),
        )),
        Some(ms) if !HOLD_BACK_MS.contains(&ms) => {
            wrong.push(FieldError::new("/hold_back_ms", format!("{ms}: write milliseconds from 1200 to 60000")));
        }
        _ => {}
    }
    wrong.extend(check_window(profile));
    if let Some((place, what)) = policy.steering.as_ref().and_then(Steering::check) {
        wrong.push(FieldError::new(format!("/steering{place}"), what));
    }
    wrong.extend(check_pictures(config));
    if policy.publish_from.as_ref().is_some_and(Networks::is_empty) {
        let what = "[]: nobody could publish: write a network such as \"192.0.2.0/24\", or null for all";
        wrong.push(FieldError::new("/publish_from", what));
    }
    wrong.extend(profile.captions.as_deref().and_then(check_captions));
    if profile.max_duration_s != 0 && !DURATION_S.contains(&profile.max_duration_s) {
        let (least, most) = (DURATION_S.start(), DURATION_S.end());
        let what = format!("{}: write seconds from {least} to {most}, or 0 for no limit", profile.max_duration_s);
        wrong.push(FieldError::new("/max_duration_s", what));
    }
    if let Some(window) = policy.reconnect_window_s.filter(|s| *s > RECONNECT_WINDOW_S_MAX) {
        let what = format!("{window}: write seconds from 0 to {RECONNECT_WINDOW_S_MAX}, or null for the mode's");
        wrong.push(FieldError::new("/reconnect_window_s", what));
    }
    wrong
}

/// The fields of a configuration by their names.
pub(super) fn as_json(config: &ChannelConfig) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(map)) => map,
        other => panic!("a configuration is a JSON object: {other:?}"),
    }
}

fn object(body: &Value) -> Result<&Map<String, Value>, Refusal> {
    body.as_object().ok_or_else(|| Refusal::fields(vec![FieldError::new("", "write a JSON object of fields")]))
}

fn apply(mut config: ChannelConfig, fields: &Map<String, Value>) -> Result<ChannelConfig, Refusal> {
    let set = |(key, value): (&String, &Value)| set(&mut config, key, value);
    let wrong: Vec<FieldError> = fields.iter().flat_map(set).take(ERRORS_MAX).collect();
    let wrong = if wrong.is_empty() { check(&config) } else { wrong };
    if wrong.is_empty() { Ok(config) } else { Err(Refusal::fields(wrong)) }
}

/// What is wrong with one field.
fn set(config: &mut ChannelConfig, key: &str, value: &Value) -> Vec<FieldError> {
    match key {
        "crop" => read_crop(&mut config.profile.crop, value),
        "logo" => read_logo(&mut config.policy.logo, value),
        _ => set_one(config, key, value).err().into_iter().collect(),
    }
}

fn set_one(config: &mut ChannelConfig, key: &str, value: &Value) -> Result<(), FieldError> {
    let (profile, policy) = (&mut config.profile, &mut config.policy);
    let wrong = |what: String| FieldError::new(format!("/{}", escaped(key)), what);
    match key {
        "name" if value.as_str() == Some(config.name.as_str()) => Ok(()),
        "name" => Err("the name is part of every URL and stays: create another channel".into()),
        "kind" => read(value, &mut profile.kind, "\"transcode\", \"transmux\" or \"hybrid\""),
        "mode" => read(value, &mut profile.mode, "\"normal\", \"low\" or \"ultra\""),
        "ladder" => return read_ladder(value).map(|ladder| profile.ladder = ladder),
        "audio_only" if value.is_null() => {
            profile.audio_only = Profile::default().audio_only;
            Ok(())
        }
        "audio_only" => read(value, &mut profile.audio_only, "true or false"),
        "captions" => return read_captions(value).map(|captions| profile.captions = captions),
        "hold_back_ms" => read(value, &mut profile.hold_back_ms, "milliseconds from 1200 to 60000, or null"),
        "window_s" => read(value, &mut profile.window_s, "whole seconds, or null for the mode's window"),
        "start_offset_s" => read(value, &mut profile.start_offset_s, "whole seconds below zero, or null"),
        "steering" => read(
            value,
            &mut policy.steering,
            "{\"pathways\": [{\"id\": \"a\", \"base\": \"https://a.example.com\"}], \"ttl_s\": 300}, or null",
        ),
        "preset" => read(
            value,
            &mut profile.preset,
            "\"ultrafast\", \"superfast\", \"veryfast\", \"faster\", \"fast\", \"medium\" or null",
        ),
        "backend" => read(value, &mut profile.backend, "\"auto\", \"gpu\", \"software\" or null"),
        "slate" if value.as_str() == Some("picture") => {
            Err("pictures as slate are not there yet: write \"black\"".into())
        }
        "slate" => read(value, &mut profile.slate, "\"black\""),
        "max_duration_s" if value.is_null() => {
            profile.max_duration_s = Profile::default().max_duration_s;
            Ok(())
        }
        "max_duration_s" => read(value, &mut profile.max_duration_s, "whole seconds from 60, or 0 for no limit"),
        "takeover" => read(value, &mut policy.takeover, "\"if-silent\" or \"newest\""),
        "activation" => read(value, &mut policy.activation, "\"auto\" or \"manual\""),
        "reconnect_window_s" => read(value, &mut policy.reconnect_window_s, "whole seconds from 0 to 1800, or null"),
        "on_max_duration" => read(value, &mut policy.on_max_duration, "\"end\" or \"rollover\""),
        "end_on_eos" => read(value, &mut policy.end_on_eos, "true or false"),
        "legs" => read(value, &mut policy.legs, "\"single\" or \"dual\""),
        "publish_from" => return read_networks(value).map(|networks| policy.publish_from = networks),
        "playback_policy" => read(value, &mut policy.playback_policy, "\"public\" or \"signed\""),
        "srt_passphrase" => Err("PUT {\"passphrase\": \"…\"} to /v1/channels/{id}/srt-passphrase".into()),
        "pull" => return read_pull(policy.pull.as_ref(), value).map(|pull| policy.pull = pull),
        "inputs" => {
            Err("write pull = \"srt://host:port\" for a source that Rung calls; publishers need no entry".into())
        }
        _ => Err(unknown(key)),
    }
    .map_err(wrong)
}

/// `now`: the address in force. What was shown of it stands for it.
fn read_pull(now: Option<&PullUrl>, value: &Value) -> Result<Option<PullUrl>, FieldError> {
    let wrong = |what: String| FieldError::new("/pull", what);
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        _ => return Err(wrong("write where the source listens, such as \"srt://host:9000\", or null".into())),
    };
    if let Some(same) = now.filter(|now| now.to_string() == *text) {
        return Ok(Some(same.clone()));
    }
    match PullUrl::parse(text) {
        Ok(pull) if pull.is_masked() => {
            Err(wrong("the stars stand for a secret of the address before: write the secret".into()))
        }
        Ok(pull) => Ok(Some(pull)),
        Err(what) => Err(wrong(what)),
    }
}

/// `null` is the default.
fn read<T: DeserializeOwned + Default>(value: &Value, into: &mut T, write: &str) -> Result<(), String> {
    let read = if value.is_null() { Ok(T::default()) } else { serde_json::from_value(value.clone()) };
    *into = read.map_err(|_| format!("{value}: write {write}"))?;
    Ok(())
}

fn read_ladder(value: &Value) -> Result<Option<Ladder>, FieldError> {
    let renditions = match value {
        Value::Null => return Ok(None),
        Value::Array(renditions) => renditions,
        other => return Err(FieldError::new("/ladder", format!("{other}: write a list of renditions, or null"))),
    };
    let read = renditions.iter().enumerate().map(|(i, one)| {
        serde_json::from_value::<Rendition>(one.clone()).map_err(|e| {
            let what = format!(
                "{e}: write {{\"name\": \"720p\", \"height\": 720, \"bitrate\": 2800000, \"codec\": \"h264\"}}; \
                 codec is \"h264\" or \"hevc\""
            );
            FieldError::new(format!("/ladder/{i}"), what)
        })
    });
    read.collect::<Result<Vec<_>, _>>().map(|renditions| Some(Ladder(renditions)))
}

fn read_captions(value: &Value) -> Result<Option<Vec<CaptionService>>, FieldError> {
    const WRITE: &str = "{\"instream_id\": \"CC1\", \"language\": \"eng\", \"name\": \"English\"}";
    let services = match value {
        Value::Null => return Ok(None),
        Value::Array(services) => services,
        other => {
            let what = format!("{other}: write a list of {WRITE}, [] for none, or null for what the source carries");
            return Err(FieldError::new("/captions", what));
        }
    };
    let read = services.iter().enumerate().map(|(i, one)| {
        serde_json::from_value::<CaptionService>(one.clone())
            .map_err(|e| FieldError::new(format!("/captions/{i}"), format!("{e}: write {WRITE}")))
    });
    read.collect::<Result<Vec<_>, _>>().map(Some)
}

fn read_networks(value: &Value) -> Result<Option<Networks>, FieldError> {
    let wrong = |place: &str, what: String| FieldError::new(format!("/publish_from{place}"), what);
    let texts = match value {
        Value::Null => return Ok(None),
        Value::Array(texts) => texts,
        other => return Err(wrong("", format!("{other}: write [\"192.0.2.0/24\"], or null for all"))),
    };
    let networks = Networks::parse(texts.iter().map(|text| text.as_str().unwrap_or_default()));
    networks.map(Some).map_err(|(place, what)| wrong(&place, what))
}

/// The first thing that is wrong with a list of captions.
fn check_captions(services: &[CaptionService]) -> Option<FieldError> {
    if services.len() > CAPTION_SERVICES_MAX {
        let what = format!("{} services: write {CAPTION_SERVICES_MAX} at most", services.len());
        return Some(FieldError::new("/captions", what));
    }
    services.iter().enumerate().find_map(|(i, service)| {
        let wrong = |field: &str, what: String| Some(FieldError::new(format!("/captions/{i}/{field}"), what));
        if services[..i].iter().any(|other| other.instream_id == service.instream_id) {
            return wrong("instream_id", format!("{} is there twice: name each once", service.instream_id));
        }
        let tag = |text: &str| {
            let part = |p: &str| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric());
            (2..=35).contains(&text.len()) && text.split('-').all(part)
        };
        if let Some(language) = service.language.as_deref().filter(|language| !tag(language)) {
            return wrong("language", format!("{language:?}: write a language such as \"eng\" or \"en-US\", or null"));
        }
        let plain =
            |name: &str| (1..=64).contains(&name.chars().count()) && !name.chars().any(|c| c.is_control() || c == '"');
        if let Some(name) = service.name.as_deref().filter(|name| !plain(name)) {
            return wrong("name", format!("{name:?}: write 1 to 64 characters without quotes, or null"));
        }
        let same = |other: &CaptionService| service.name.is_some() && other.name == service.name;
        if services[..i].iter().any(same) {
            return wrong("name", "is another one's as well: players tell them apart by it".to_owned());
        }
        None
    })
}

/// A merge patch: edges that are not named stay, `null` is 0.
fn read_crop(crop: &mut Option<Margins>, value: &Value) -> Vec<FieldError> {
    let fields = match value {
        Value::Null => {
            *crop = None;
            return Vec::new();
        }
        Value::Object(fields) => fields,
        other => {
            let what = format!("{other}: write {{\"left\": 0, \"right\": 0, \"top\": 140, \"bottom\": 140}}, or null");
            return vec![FieldError::new("/crop", what)];
        }
    };
    let margins = crop.get_or_insert_default();
    let mut set = |(edge, value): (&String, &Value)| {
        let into = match edge.as_str() {
            "left" => &mut margins.left,
            "right" => &mut margins.right,
            "top" => &mut margins.top,
            "bottom" => &mut margins.bottom,
            _ => return Err("unknown field: known are left, right, top, bottom".to_owned()),
        };
        read(value, into, &format!("an even number from 0 to {MARGIN_MAX}"))
    };
    let wrong = |edge: &str, what| FieldError::new(format!("/crop/{}", escaped(edge)), what);
    let found = fields.iter().filter_map(|field| set(field).err().map(|what| wrong(field.0, what)));
    found.take(ERRORS_MAX).collect()
}

/// A merge patch: `null` is no logo, and its picture goes with it.
fn read_logo(logo: &mut Option<LogoSettings>, value: &Value) -> Vec<FieldError> {
    match value {
        Value::Null => {
            *logo = None;
            Vec::new()
        }
        Value::Object(fields) => patch_logo(logo.get_or_insert_default(), fields),
        other => {
            let what = format!("{other}: write {{\"corner\": \"top-right\", \"width\": 10}}, or null");
            vec![FieldError::new("/logo", what)]
        }
    }
}

fn patch_logo(logo: &mut LogoSettings, fields: &Map<String, Value>) -> Vec<FieldError> {
    let image = serde_json::to_value(&logo.image).unwrap_or_default();
    let (place, usual) = (&mut logo.place, LogoPlace::default());
    let mut set = |(key, value): (&String, &Value)| {
        let number = |into: &mut Hundredths, usual, write| {
            let mut read_into = Some(usual);
            read(value, &mut read_into, write)?;
            *into = read_into.unwrap_or(usual);
            Ok(())
        };
        match key.as_str() {
            "corner" => {
                let write = "\"top-left\", \"top-right\", \"bottom-left\" or \"bottom-right\"";
                read(value, &mut place.corner, write)
            }
            "width" => number(&mut place.width, usual.width, LOGO_WIDTH.2),
            "margin" => number(&mut place.margin, usual.margin, LOGO_MARGIN.2),
            "opacity" => number(&mut place.opacity, usual.opacity, LOGO_OPACITY.2),
            "image" if *value == image => Ok(()),
            "image" => Err("Rung itself writes this: PUT the PNG to /v1/channels/{id}/logo".to_owned()),
            _ => Err("unknown field: known are corner, width, margin, opacity".to_owned()),
        }
    };
    let wrong = |key: &str, what| FieldError::new(format!("/logo/{}", escaped(key)), what);
    let found = fields.iter().filter_map(|field| set(field).err().map(|what| wrong(field.0, what)));
    found.take(ERRORS_MAX).collect()
}

/// Crop and logo.
fn check_pictures(config: &ChannelConfig) -> Vec<FieldError> {
    let (kind, mut wrong) = (config.profile.kind, Vec::new());
    if let Some(crop) = config.profile.crop {
        match kind {
            ChannelKind::Transcode => {}
            ChannelKind::Transmux => wrong.push(FieldError::new(
                "/crop",
                "kind = \"transmux\" encodes nothing: remove the crop, or write kind = \"transcode\"",
            )),
            ChannelKind::Hybrid => wrong.push(FieldError::new(
                "/crop",
                "kind = \"hybrid\" passes the source on uncut, and all its renditions show the same picture: remove the \
                 crop, or write kind = \"transcode\"",
            )),
        }
        let odd = crop.named().into_iter().filter(|(_, n)| *n > MARGIN_MAX || !n.is_multiple_of(2));
        wrong.extend(odd.map(|(edge, n)| {
            let what = format!("{n}: write an even number from 0 to {MARGIN_MAX}");
            FieldError::new(format!("/crop/{edge}"), what)
        }));
    }
    if let Some(logo) = &config.policy.logo {
        if kind == ChannelKind::Transmux {
            let what = "kind = \"transmux\" encodes nothing, so nothing can lie over its pictures: remove the logo, or \
                        write kind = \"transcode\" or \"hybrid\"";
            wrong.push(FieldError::new("/logo", what));
        }
        let LogoPlace { width, margin, opacity, .. } = logo.place;
        for (field, value, (least, most, write)) in
            [("width", width, LOGO_WIDTH), ("margin", margin, LOGO_MARGIN), ("opacity", opacity, LOGO_OPACITY)]
        {
            if !(least..=most).contains(&value.0) {
                wrong.push(FieldError::new(format!("/logo/{field}"), format!("{value}: write {write}")));
            }
        }
    }
    wrong
}

fn unknown(key: &str) -> String {
    if FIELDS.iter().any(|(name, applies)| *name == key && *applies == Applies::ByRung) {
        return "Rung itself writes this field: leave it out".into();
    }
    let known = || FIELDS.iter().filter(|(_, applies)| *applies != Applies::ByRung).map(|(name, _)| *name);
    match nearest(key, known()) {
        Some(name) => format!("unknown field: did you mean \"{name}\"?"),
        None => format!("unknown field: known are {}", known().collect::<Vec<_>>().join(", ")),
    }
}

/// How far viewers may go back, and where they begin.
fn check_window(profile: &Profile) -> Vec<FieldError> {
    let (params, mut wrong) = (profile.mode.params(), Vec::new());
    let usual = params.target_duration * u32::try_from(params.window_segments).unwrap_or(u32::MAX);
    let (least, window) = (6 * params.target_duration, profile.window_s.unwrap_or(usual));
    if !(least..=WINDOW_S_MAX).contains(&window) {
        let what = format!("{window}: write seconds from {least} to {WINDOW_S_MAX}, or null for the mode's {usual}");
        wrong.push(FieldError::new("/window_s", what));
    } else if let Some(own) = profile.window_s {
        // What left the playlist stays as long again, for the mode's window at least.
        let (bits, held) = (highest_rate(profile), u64::from(own + own.max(usual)));
        if bits / 8 * held > WINDOW_BYTES_MAX {
            let most = WINDOW_BYTES_MAX / (bits / 8) / 2;
            let what = format!(
                "{own}: at {:.1} Mb/s in all, and as much again for those who are late, that is {:.1} GiB of media in \
                 memory, and a channel may hold {}: write at most {most}, or a smaller ladder",
                bits as f64 / 1e6,
                (bits / 8 * held) as f64 / f64::from(1 << 30),
                WINDOW_BYTES_MAX >> 30,
            );
            wrong.push(FieldError::new("/window_s", what));
        }
    }
    let hold_back = params.hold_back_ms.div_ceil(1_000);
    let sound = |offset: i32| offset < 0 && (hold_back..=window).contains(&offset.unsigned_abs());
    if let Some(offset) = profile.start_offset_s.filter(|offset| !sound(*offset)) {
        let what = format!(
            "{offset}: write seconds from -{window} to -{hold_back} (players stay {hold_back} s behind the end), or null"
        );
        wrong.push(FieldError::new("/start_offset_s", what));
    }
    wrong
}

/// Bits per second of everything a channel may hold: its ladder, or the tallest default one; a source at its usual most;
/// four tracks of sound.
fn highest_rate(profile: &Profile) -> u64 {
    let usual = Ladder::default_for(1_080, true);
    let ladder = profile.ladder.as_ref().filter(|_| profile.kind != ChannelKind::Transmux).unwrap_or(&usual);
    let encoded: u64 = ladder.0.iter().map(|r| r.bitrate).sum();
    let (encoded, source) = match profile.kind {
        ChannelKind::Transcode => (encoded, 0),
        ChannelKind::Transmux => (0, SOURCE_RATE),
        ChannelKind::Hybrid => (encoded, SOURCE_RATE),
    };
    encoded + source + 4 * 128_000
}

/// The first thing that is wrong with a ladder.
fn check_ladder(Ladder(renditions): &Ladder) -> Option<FieldError> {
    if renditions.is_empty() || renditions.len() > RENDITIONS_MAX {
        let what = format!("a ladder has 1 to {RENDITIONS_MAX} renditions, not {}", renditions.len());
        return Some(FieldError::new("/ladder", what));
    }
    renditions.iter().enumerate().find_map(|(i, r)| {
        let wrong = |field: &str, what: String| Some(FieldError::new(format!("/ladder/{i}/{field}"), what));
        let name_ok = ChannelName::new(&r.name).is_ok() && r.name != "source" && r.name != "index";
        if !name_ok || r.name.starts_with("a-") {
            return wrong("name", format!("rendition name {:?}: write something like \"720p\"", r.name));
        }
        if renditions[..i].iter().any(|other| other.name == r.name) {
            return wrong("name", format!("rendition \"{}\" is there twice: take another name", r.name));
        }
        if r.height < 16 || r.height > 4320 || r.height % 2 == 1 {
            let what = format!("rendition \"{}\": height = {}: write an even number from 16 to 4320", r.name, r.height);
            return wrong("height", what);
        }
        if !(50_000..=100_000_000).contains(&r.bitrate) {
            let what = "write bits per second, 50000 to 100000000";
            return wrong("bitrate", format!("rendition \"{}\": bitrate = {}: {what}", r.name, r.bitrate));
        }
        if i > 0 && r.height > renditions[i - 1].height {
            let what = "is taller than the one above it: write the best first";
            return wrong("height", format!("rendition \"{}\" {what}", r.name));
        }
        None
    })
}

/// As JSON pointers write a key.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::record::{Activation, Legs, OnMaxDuration, PlaybackId};
    use serde_json::json;

    fn refused(body: &Value) -> Vec<(String, String)> {
        let refusal = read_new(body).expect_err("must be refused");
        refusal.errors.into_iter().map(|e| (e.pointer, e.detail)).collect()
    }

    #[test]
    fn what_is_wrong_is_told_up_to_a_bound_and_long_names_cost_nothing() {
        let many: Map<String, Value> = (0..10_000).map(|n| (format!("k{n}"), json!(1))).collect();
        let named = many.clone().into_iter().chain([("name".to_owned(), json!("a"))]).collect::<Map<_, _>>();
        for body in [json!(named), json!({ "name": "a", "crop": many }), json!({ "name": "a", "logo": many })] {
            assert_eq!(refused(&body).len(), ERRORS_MAX);
        }
        // Compared letter by letter with every name that is known, this took minutes.
        let long = "k".repeat(10_000_000);
        assert_eq!(refused(&json!({ "name": "a", long.clone(): 1 }))[0].0, format!("/{long}"));
        let near = refused(&json!({ "name": "a", "hold_bak_ms": 1 }));
        assert_eq!(near[0].1, "unknown field: did you mean \"hold_back_ms\"?");
    }

    #[test]
    fn a_name_is_enough_and_every_field_can_be_said() {
        let plain = read_new(&json!({ "name": "news" })).unwrap();
        assert_eq!(plain, ChannelConfig::new(ChannelName::new("news").unwrap()));
        let full = json!({
            "name": "news", "kind": "hybrid", "mode": "ultra", "hold_back_ms": 1500,
            "window_s": 500, "start_offset_s": -30, "preset": "veryfast", "backend": "gpu",
            "ladder": [
                { "name": "720p", "height": 720, "bitrate": 2_800_000, "codec": "h264" },
                { "name": "720p-hevc", "height": 720, "bitrate": 1_900_000, "codec": "hevc" },
            ],
            "slate": "black",
            "max_duration_s": 0, "takeover": "newest", "activation": "manual", "reconnect_window_s": 0,
            "on_max_duration": "rollover", "end_on_eos": true, "legs": "single", "crop": null,
            "steering": { "pathways": [{ "id": "a", "base": "https://a.example.com" }], "ttl_s": 60 },
            "audio_only": false,
            "captions": [{ "instream_id": "CC1", "language": "eng", "name": null }],
            "publish_from": ["192.0.2.0/24", "2001:db8::1/128"],
            "pull": "srt://[2001:db8::1]:9000?latency=300",
            "playback_policy": "signed",
            "logo": { "corner": "top-left", "width": 12.5, "margin": 2, "opacity": 0.85, "image": null },
        });
        let config = read_new(&full).unwrap();
        assert_eq!(Value::Object(as_json(&config)), full);
        assert_eq!((config.policy.legs, config.policy.activation), (Legs::Single, Activation::Manual));
        assert_eq!(config.policy.on_max_duration, OnMaxDuration::Rollover);
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_is_the_default() {
        let news = json!({ "name": "news", "hold_back_ms": 1500, "max_duration_s": 600, "end_on_eos": true });
        let config = read_new(&news).unwrap();
        let same = merge(&config, &json!({ "name": "news" })).unwrap();
        assert_eq!(same, config);
        let nulls = json!({ "hold_back_ms": null, "max_duration_s": null, "end_on_eos": null });
        let patched = merge(&config, &nulls).unwrap();
        assert_eq!(patched, ChannelConfig::new(config.name.clone()));
        // Together with its mode, what belongs to the mode must go.
        let error = merge(&config, &json!({ "mode": "low" })).unwrap_err();
        assert_eq!(error.errors[0].pointer, "/hold_back_ms");
        assert!(merge(&config, &json!({ "mode": "low", "hold_back_ms": null })).is_ok());
    }

    #[test]
    fn the_secrets_of_a_source_stay_where_its_shown_address_is_written_back() {
        let address = "srt://encoder:9000?passphrase=planted secret&latency=200";
        let config = read_new(&json!({ "name": "news", "pull": address })).unwrap();
        let shown = as_json(&config)["pull"].clone();
        assert_eq!(shown, "srt://encoder:9000?passphrase=**********&latency=200");
        assert_eq!(
            merge(&config, &json!({ "pull": shown, "legs": "single" })).unwrap().policy.pull,
            config.policy.pull
        );
        let other = merge(&config, &json!({ "pull": "srt://other:9000?passphrase=**********&latency=200" }));
        assert_eq!(other.unwrap_err().errors[0].pointer, "/pull", "another host does not get the secret");
        assert_eq!(merge(&config, &json!({ "pull": null })).unwrap().policy.pull, None);
    }

    #[test]
    fn every_wrong_field_is_named_with_its_place_and_its_fix() {
        let rendition =
            |name: &str, height: u32, bitrate: u64| json!({ "name": name, "height": height, "bitrate": bitrate });
        let low = rendition("360p", 360, 800_000);
        for (field, value, pointer, part) in [
            ("kind", json!("transcod"), "/kind", "write \"transcode\""),
            ("mode", json!(3), "/mode", "write \"normal\""),
            ("ladder", json!("hd"), "/ladder", "a list"),
            ("ladder", json!([]), "/ladder", "1 to 8 renditions"),
            ("ladder", json!([low, { "name": "x" }]), "/ladder/1", "missing field"),
            (
                "ladder",
                json!([low, { "name": "x", "height": 360, "bitrate": 800_000, "codec": "av1" }]),
                "/ladder/1",
                "codec is \"h264\" or \"hevc\"",
            ),
            ("ladder", json!([rendition("a-b", 360, 800_000)]), "/ladder/0/name", "like \"720p\""),
            ("ladder", json!([low, low]), "/ladder/1/name", "twice"),
            ("ladder", json!([rendition("x", 361, 800_000)]), "/ladder/0/height", "even number"),
            ("ladder", json!([rendition("x", 360, 8)]), "/ladder/0/bitrate", "bits per second"),
            ("ladder", json!([low, rendition("x", 720, 800_000)]), "/ladder/1/height", "best first"),
            ("hold_back_ms", json!(1_199), "/hold_back_ms", "from 1200"),
            ("audio_only", json!("no"), "/audio_only", "true or false"),
            ("captions", json!("CC1"), "/captions", "[] for none"),
            ("captions", json!([{ "instream_id": "CC5" }]), "/captions/0", "write CC1 to CC4"),
            ("captions", json!([{ "instream_id": "CC1", "lang": "eng" }]), "/captions/0", "unknown field"),
            (
                "captions",
                json!([{ "instream_id": "CC1" }, { "instream_id": "CC1" }]),
                "/captions/1/instream_id",
                "name each once",
            ),
            ("captions", json!([{ "instream_id": "CC1", "language": "e" }]), "/captions/0/language", "\"eng\""),
            ("captions", json!([{ "instream_id": "CC1", "name": "a\"b" }]), "/captions/0/name", "without quotes"),
            ("preset", json!("placebo"), "/preset", "write \"ultrafast\""),
            ("slate", json!("picture"), "/slate", "not there yet"),
            ("max_duration_s", json!(59), "/max_duration_s", "from 60"),
            ("max_duration_s", json!(1.5), "/max_duration_s", "whole seconds"),
            ("reconnect_window_s", json!(1_801), "/reconnect_window_s", "0 to 1800"),
            ("publish_from", json!("10.0.0.0/8"), "/publish_from", "write [\"192.0.2.0/24\"]"),
            ("publish_from", json!([]), "/publish_from", "nobody could publish"),
            ("publish_from", json!(["10.0.0.0/8", "10.0.0.0/40"]), "/publish_from/1", "is no network"),
            ("publish_from", json!([7]), "/publish_from/0", "is no network"),
            ("srt_passphrase", json!("a long passphrase"), "/srt_passphrase", "PUT {\"passphrase\""),
            ("pull", json!(7), "/pull", "srt://host:9000"),
            ("pull", json!("srt://host?passphrase=planted secret"), "/pull", "needs a port"),
            ("pull", json!("srt://host:1?mode=listener"), "/pull", "mode=caller"),
            ("pull", json!("srt://host:1?streamid=**********"), "/pull", "write the secret"),
            ("inputs", json!([]), "/inputs", "write pull"),
            ("state", json!("live"), "/state", "leave it out"),
            ("take_over", json!("newest"), "/take_over", "did you mean \"takeover\"?"),
            ("a/b~", json!(1), "/a~1b~0", "known are name, kind"),
        ] {
            let wrong = refused(&json!({ "name": "news", field: value }));
            assert!(wrong.len() == 1 && wrong[0].0 == pointer && wrong[0].1.contains(part), "{field}: {wrong:?}");
        }
        assert_eq!(refused(&json!({ "name": "news", "kind": 1, "mode": 2, "legs": 3 })).len(), 3);
        let transmux = json!({ "name": "news", "kind": "transmux", "ladder": [low] });
        assert_eq!(refused(&transmux)[0].0, "/ladder");
        for nameless in [json!({}), json!({ "name": 3 }), json!({ "name": "News" })] {
            assert_eq!(refused(&nameless)[0].0, "/name");
        }
        assert_eq!(refused(&json!([1]))[0].0, "");
        let renamed = merge(&read_new(&json!({ "name": "news" })).unwrap(), &json!({ "name": "old" })).unwrap_err();
        assert!(renamed.detail.starts_with("/name: the name is part of every URL"), "{renamed}");
    }

    #[test]
    fn a_window_is_paid_for_twice_and_what_would_not_fit_is_refused_with_what_does() {
        // 1.988 Mb/s and four tracks of sound: 312.5 kB a second; 4 GiB are 13 743 s of it.
        let ladder = json!([{ "name": "270p", "height": 270, "bitrate": 1_988_000 }]);
        let of = |seconds: u32| json!({ "name": "news", "ladder": ladder, "window_s": seconds });
        let wrong = refused(&of(6_872));
        assert!(wrong.len() == 1 && wrong[0].0 == "/window_s", "{wrong:?}");
        assert!(wrong[0].1.contains("is 4.0 GiB of media") && wrong[0].1.contains("write at most 6871,"), "{wrong:?}");
        assert_eq!(read_new(&of(6_871)).unwrap().profile.window_s, Some(6_871));
    }

    #[test]
    fn a_crop_is_patched_edge_by_edge_and_is_for_what_is_encoded_only() {
        let bars = read_new(&json!({ "name": "news", "crop": { "top": 140, "bottom": 138 } })).unwrap();
        let crop = Margins { top: 140, bottom: 138, ..Margins::default() };
        assert_eq!((bars.profile.crop, bars.to_channel(PlaybackId(ulid::Ulid::nil())).crop), (Some(crop), crop));
        let patched = merge(&bars, &json!({ "crop": { "left": 8, "top": null } })).unwrap();
        assert_eq!(patched.profile.crop, Some(Margins { left: 8, bottom: 138, ..Margins::default() }));
        assert_eq!(merge(&bars, &json!({ "crop": null })).unwrap().profile.crop, None);
        for (crop, pointer, part) in [
            (json!({ "top": 139 }), "/crop/top", "even number"),
            (json!({ "left": 4098 }), "/crop/left", "0 to 4096"),
            (json!({ "left": -2 }), "/crop/left", "even number"),
            (json!({ "top": 1.5 }), "/crop/top", "even number"),
            (json!({ "up": 2 }), "/crop/up", "known are left"),
            (json!("16:9"), "/crop", "\"top\": 140"),
        ] {
            let wrong = refused(&json!({ "name": "news", "crop": crop }));
            assert!(wrong.len() == 1 && wrong[0].0 == pointer && wrong[0].1.contains(part), "{crop}: {wrong:?}");
        }
        for (kind, part) in [("transmux", "encodes nothing"), ("hybrid", "the same picture")] {
            let wrong = merge(&bars, &json!({ "kind": kind })).unwrap_err();
            assert!(wrong.errors.len() == 1 && wrong.errors[0].pointer == "/crop", "{wrong}");
            assert!(wrong.errors[0].detail.contains(part), "{wrong}");
        }
    }

    #[test]
    fn a_logo_lies_where_it_was_put_until_it_is_moved_and_keeps_its_picture() {
        let image = LogoImage { sha256: "ab".into(), width: 4, height: 2, bytes: 99 };
        let news = read_new(&json!({ "name": "news" })).unwrap();
        let place = |fields: Value| fields.as_object().cloned().unwrap();
        let put = with_logo(&news, Some(image.clone()), &place(json!({ "width": 20 }))).unwrap();
        let logo = put.policy.logo.clone().unwrap();
        assert_eq!((logo.place.width, logo.place.margin), (Hundredths(2_000), Hundredths(300)));
        let seen = put.to_channel(PlaybackId(ulid::Ulid::nil())).logo.unwrap();
        assert_eq!((seen.place, seen.picture), (logo.place, crate::media::logo::LogoPicture::Stored("ab".into())));
        let moved = merge(&put, &json!({ "logo": { "corner": "bottom-left", "width": null } })).unwrap();
        let logo = moved.policy.logo.clone().unwrap();
        assert_eq!((logo.place.width, logo.image.as_ref()), (Hundredths(1_000), Some(&image)));
        // As it was read it may be written, its picture included, but no other picture.
        assert_eq!(merge(&moved, &json!({ "logo": as_json(&moved)["logo"] })).unwrap(), moved);
        let error = merge(&moved, &json!({ "logo": { "image": null } })).unwrap_err();
        assert!(error.errors[0].pointer == "/logo/image" && error.detail.contains("PUT the PNG"), "{error}");
        // Without its picture it keeps its place; `null` is the end of both.
        let bare = with_logo(&moved, None, &Map::new()).unwrap();
        assert_eq!(
            (bare.policy.logo.as_ref().map(|l| l.place), bare.to_channel(PlaybackId(ulid::Ulid::nil())).logo),
            (Some(logo.place), None)
        );
        assert_eq!(merge(&moved, &json!({ "logo": null })).unwrap(), news);
        for (fields, pointer, part) in [
            (json!({ "width": 0.5 }), "/logo/width", "from 1 to 50"),
            (json!({ "width": 50.01 }), "/logo/width", "from 1 to 50"),
            (json!({ "margin": 21 }), "/logo/margin", "from 0 to 20"),
            (json!({ "opacity": 1.1 }), "/logo/opacity", "from 0 to 1"),
            (json!({ "opacity": "half" }), "/logo/opacity", "from 0 to 1"),
            (json!({ "corner": "middle" }), "/logo/corner", "\"top-left\""),
            (json!({ "size": 3 }), "/logo/size", "known are corner"),
            (json!(true), "/logo", "\"corner\""),
        ] {
            let wrong = merge(&put, &json!({ "logo": fields })).unwrap_err();
            assert!(wrong.errors.len() == 1 && wrong.errors[0].pointer == pointer, "{fields}: {wrong}");
            assert!(wrong.errors[0].detail.contains(part), "{fields}: {wrong}");
        }
        let error = merge(&put, &json!({ "kind": "transmux" })).unwrap_err();
        assert!(error.errors[0].pointer == "/logo" && error.detail.contains("encodes nothing"), "{error}");
        assert!(merge(&put, &json!({ "kind": "hybrid" })).is_ok());
        let transmux = read_new(&json!({ "name": "news", "kind": "transmux" })).unwrap();
        assert_eq!(with_logo(&transmux, Some(image), &Map::new()).unwrap_err().errors[0].pointer, "/logo");
    }

    #[test]
    fn the_table_of_fields_and_the_reader_agree() {
        let config = read_new(&json!({ "name": "news" })).unwrap();
        for (field, applies) in FIELDS {
            let read = merge(&config, &json!({ *field: config_value(&config, field) }));
            assert_eq!(read.is_ok(), *applies != Applies::ByRung, "{field}");
        }
    }

    fn config_value(config: &ChannelConfig, field: &str) -> Value {
        as_json(config).get(field).cloned().unwrap_or(Value::Null)
    }
}

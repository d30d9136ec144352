//! A channel's configuration as JSON: read, merged and checked, every error with its place and its fix.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::refusal::{FieldError, Refusal};
use crate::control::config::nearest;
use crate::control::record::{Applies, ChannelConfig, FIELDS, LogoImage, LogoSettings, Profile};
use crate::media::channel::{ChannelKind, ChannelName, Ladder, Rendition};
use crate::media::crop::{MARGIN_MAX, Margins};
use crate::media::limits::RECONNECT_WINDOW_S_MAX;
use crate::media::logo::{Hundredths, LogoPlace};
use crate::media::modes::LatencyMode;

const RENDITIONS_MAX: usize = 8;
/// A session shorter than this serves nobody; 30 days.
const DURATION_S: std::ops::RangeInclusive<u32> = 60..=2_592_000;
/// Least and most in hundredths, and in words.
const LOGO_WIDTH: (u32, u32, &str) = (100, 5_000, "percent of the picture's width from 1 to 50, or null");
const LOGO_MARGIN: (u32, u32, &str) = (0, 2_000, "percent of the picture's width from 0 to 20, or null");
const LOGO_OPACITY: (u32, u32, &str) = (0, 100, "a number from 0 to 1, or null");
const HOLD_BACK_MS: std::ops::RangeInclusive<u32> = 1_200..=60_000;

/// A new channel's configuration: `name` and whatever is not at its default.
///
/// # Errors
/// Every field that is wrong.
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
/// Every field that is wrong.
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
    wrong.extend(check_pictures(config));
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
    let wrong: Vec<FieldError> = fields.iter().flat_map(set).collect();
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
        "hold_back_ms" => read(value, &mut profile.hold_back_ms, "milliseconds from 1200 to 60000, or null"),
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
        "inputs" => Err("pull inputs are not there yet: publish to the channel over SRT".into()),
        _ => Err(unknown(key)),
    }
    .map_err(wrong)
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
    fields.iter().filter_map(|field| set(field).err().map(|what| wrong(field.0, what))).collect()
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
    fields.iter().filter_map(|field| set(field).err().map(|what| wrong(field.0, what))).collect()
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
    use crate::control::record::{Activation, Legs, OnMaxDuration};
    use serde_json::json;

    fn refused(body: &Value) -> Vec<(String, String)> {
        let refusal = read_new(body).expect_err("must be refused");
        refusal.errors.into_iter().map(|e| (e.pointer, e.detail)).collect()
    }

    #[test]
    fn a_name_is_enough_and_every_field_can_be_said() {
        let plain = read_new(&json!({ "name": "news" })).unwrap();
        assert_eq!(plain, ChannelConfig::new(ChannelName::new("news").unwrap()));
        let full = json!({
            "name": "news", "kind": "hybrid", "mode": "ultra", "hold_back_ms": 1500, "preset": "veryfast", "backend": "gpu",
            "ladder": [
                { "name": "720p", "height": 720, "bitrate": 2_800_000, "codec": "h264" },
                { "name": "720p-hevc", "height": 720, "bitrate": 1_900_000, "codec": "hevc" },
            ],
            "slate": "black",
            "max_duration_s": 0, "takeover": "newest", "activation": "manual", "reconnect_window_s": 0,
            "on_max_duration": "rollover", "end_on_eos": true, "legs": "single", "crop": null,
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
            ("preset", json!("placebo"), "/preset", "write \"ultrafast\""),
            ("slate", json!("picture"), "/slate", "not there yet"),
            ("max_duration_s", json!(59), "/max_duration_s", "from 60"),
            ("max_duration_s", json!(1.5), "/max_duration_s", "whole seconds"),
            ("reconnect_window_s", json!(1_801), "/reconnect_window_s", "0 to 1800"),
            ("inputs", json!([]), "/inputs", "not there yet"),
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
    fn a_crop_is_patched_edge_by_edge_and_is_for_what_is_encoded_only() {
        let bars = read_new(&json!({ "name": "news", "crop": { "top": 140, "bottom": 138 } })).unwrap();
        let crop = Margins { top: 140, bottom: 138, ..Margins::default() };
        assert_eq!((bars.profile.crop, bars.to_channel().crop), (Some(crop), crop));
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
        let seen = put.to_channel().logo.unwrap();
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
        assert_eq!((bare.policy.logo.as_ref().map(|l| l.place), bare.to_channel().logo), (Some(logo.place), None));
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

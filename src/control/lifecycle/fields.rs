//! A channel's configuration as JSON: read, merged and checked, every error with its place and its fix.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::refusal::{FieldError, Refusal};
use crate::control::config::nearest;
use crate::control::record::{Applies, ChannelConfig, FIELDS, Profile};
use crate::media::channel::{ChannelKind, ChannelName, Ladder, Rendition};
use crate::media::limits::RECONNECT_WINDOW_S_MAX;
use crate::media::modes::LatencyMode;

const RENDITIONS_MAX: usize = 8;
/// A session shorter than this serves nobody; 30 days.
const DURATION_S: std::ops::RangeInclusive<u32> = 60..=2_592_000;
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
    let wrong: Vec<FieldError> = fields.iter().filter_map(|(key, value)| set(&mut config, key, value).err()).collect();
    let wrong = if wrong.is_empty() { check(&config) } else { wrong };
    if wrong.is_empty() { Ok(config) } else { Err(Refusal::fields(wrong)) }
}

fn set(config: &mut ChannelConfig, key: &str, value: &Value) -> Result<(), FieldError> {
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
            "on_max_duration": "rollover", "end_on_eos": true, "legs": "single",
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

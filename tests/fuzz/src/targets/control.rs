//! What operators and their programs write: `rung.toml`, bodies of the API, records of the store, its requests.

use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rung::control::api::{self, Api, Media};
use rung::control::auth::{Limit, TokenRecord};
use rung::control::config::Config;
use rung::control::ledger::{Ledger, Plane};
use rung::control::lifecycle::{self, Effect, Refusal};
use rung::control::record::{ChannelConfig, ChannelRecord, EventRecord, LogoFile, PlaybackKey, SessionRecord};
use rung::control::state::{self, State};
use rung::media::channel::{ChannelName, PublisherId};
use rung::media::grid::{Anchor, AudioAnchor, Grid, PdtLine, SourceProfile};
use rung::media::marker::KeptCue;
use rung::media::plan::{Inits, Plan};
use rung::media::steering::Steering;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower_service::Service;

use crate::Target;
use crate::seeds;

pub(super) const TARGETS: &[Target] = &[
    Target::new("rung_toml", rung_toml, seeds::configurations)
        .words(&[
            b"[srt]\n",
            b"[http]\n",
            b"[[bootstrap.channel]]\n",
            b"name = \"a\"\n",
            b"mode = \"ultra\"\n",
            b"\"\"\"",
            b"key_sha256 = \"",
            b"hold_back = 1.5\n",
            b"ladder = [{ name = \"720p\", height = 720, bitrate = 1 }]\n",
            b"inf",
            b"nan",
            b"2026-01-01",
            b"connections_per_address = ",
            b"trusted = [\"10.0.0.0/8\"]\n",
        ])
        .memory(6 << 20, 2_048),
    Target::new("channel_json", channel_json, seeds::channels)
        .words(&[
            b"\"name\":\"a\"",
            b"\"mode\":\"ultra\"",
            b"\"kind\":\"hybrid\"",
            b"\"ladder\":[",
            b"\"hold_back_ms\":",
            b"\"captions\":[",
            b"\"crop\":{\"left\":2}",
            b"\"logo\":{\"width\":10}",
            b"\"steering\":{\"pathways\":[",
            b"null",
            b"1e999",
            b"\"\\ud800\"",
            b"\"window_s\":",
            b"\"start_offset_s\":-",
            b"\"playback_policy\":\"signed\"",
            b"18446744073709551616",
            b"-0.0",
        ])
        .memory(1 << 20, 64),
    Target::new("records", records, seeds::records).words(&[
        b"null",
        b"\"ch_",
        b"\"se_",
        b"\"2026-05-01T18:30:00Z\"",
        b"1e999",
        b"-1",
        b"[",
        b"{",
        b"\"type\":\"",
    ]),
    Target::new("api", request, seeds::requests)
        .words(&[
            b"/v1/channels",
            b"/v1/sessions",
            b"/v1/events",
            b"?limit=",
            b"&cursor=",
            b"?state=",
            b"?types=",
            b"%2F",
            b"..",
            b"/v1/openapi.json",
            b"?since=",
            b"If-None-Match: ",
            b"Prefer: wait=",
            b"&channel=",
            b"%00",
            b"+",
        ])
        .longest(1 << 10)
        .memory(16 << 20, 4_096)
        .rounds(150),
];

fn rung_toml(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Config::of_text(Path::new("rung.toml"), text) {
        Ok(config) => {
            // Said again it means the same: later files win.
            assert_eq!(Config::of_text(Path::new("rung.toml"), text).as_ref(), Ok(&config));
            for channel in &config.bootstrap.channel {
                let made = ChannelConfig::from(channel);
                let wrong = lifecycle::check(&made);
                assert!(
                    wrong.iter().all(|field| field.pointer.starts_with('/') && !field.detail.is_empty()),
                    "{wrong:?}"
                );
            }
        }
        Err(error) => {
            assert!(error.line.is_none_or(|line| (1..=text.matches('\n').count() + 1).contains(&line)), "{error}");
            assert!(!error.what.is_empty() && error.what.len() < 4_096 + 4 * text.len(), "{error}");
        }
    }
}

fn channel_json(input: &[u8]) {
    let Ok(body) = serde_json::from_slice::<Value>(input) else { return };
    let name = ChannelName::new("known").expect("a name");
    let known = ChannelConfig::new(name);
    match lifecycle::read_new(&body) {
        Ok(config) => {
            good(&config);
            let fresh = ChannelConfig::new(config.name.clone());
            assert_eq!(lifecycle::merge(&fresh, &body).as_ref(), Ok(&config), "a new channel is the default, changed");
        }
        Err(refusal) => refused(&refusal, input.len()),
    }
    match lifecycle::merge(&known, &body) {
        Ok(config) => {
            good(&config);
            assert_eq!(lifecycle::merge(&config, &body).as_ref(), Ok(&config), "the same change twice");
        }
        Err(refusal) => refused(&refusal, input.len()),
    }
}

/// What was taken has nothing wrong, and can be said again as it is shown.
fn good(config: &ChannelConfig) {
    assert_eq!(lifecycle::check(config), []);
    let shown = serde_json::to_value(config).expect("a configuration has a JSON form");
    let mut again = shown.clone();
    // Rung's own: nobody writes which picture it is.
    if let Some(logo) = again.pointer_mut("/logo").and_then(Value::as_object_mut) {
        logo.remove("image");
    }
    assert_eq!(lifecycle::read_new(&again).as_ref(), Ok(config), "{shown}");
    assert_eq!(serde_json::from_value::<ChannelConfig>(shown).as_ref().ok(), Some(config));
}

fn refused(refusal: &Refusal, bytes: usize) {
    assert!(!refusal.detail.is_empty() && !refusal.errors.is_empty());
    let mut written = refusal.detail.len();
    for field in &refusal.errors {
        assert!(field.pointer.is_empty() || field.pointer.starts_with('/'), "{field:?}");
        assert!(!field.detail.is_empty());
        written += field.pointer.len() + field.detail.len();
    }
    assert!(
        refusal.errors.len() <= 64 && written < (32 << 10) + 8 * bytes,
        "{written} bytes say what is wrong with {bytes}"
    );
}

/// What the store reads it writes as it was.
fn records(input: &[u8]) {
    stored::<ChannelRecord>(input);
    stored::<SessionRecord>(input);
    stored::<EventRecord>(input);
    stored::<TokenRecord>(input);
    stored::<Plan>(input);
    stored::<Grid>(input);
    stored::<Anchor>(input);
    stored::<AudioAnchor>(input);
    stored::<PdtLine>(input);
    stored::<Inits>(input);
    stored::<SourceProfile>(input);
    stored::<Steering>(input);
    if let Some(file) = stored::<LogoFile>(input) {
        assert!(file.png().is_none_or(|png| png.len() < input.len()));
    }
    if let Some(cue) = stored::<KeptCue>(input)
        && let Some(placed) = cue.placed()
    {
        let again = KeptCue::of(cue.seq, &placed);
        assert_eq!(again.section, cue.section.to_ascii_lowercase());
    }
    if let Ok(key) = serde_json::from_slice::<PlaybackKey>(input) {
        drop(key.signing());
    }
}

fn stored<T: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) -> Option<T> {
    let record: T = serde_json::from_slice(input).ok()?;
    let text = serde_json::to_vec(&record).expect("a record has a JSON form");
    let again: T = serde_json::from_slice(&text).expect("what was written is read");
    assert_eq!(again, record);
    Some(record)
}

struct Nobody;

impl Plane for Nobody {
    fn remember(&self, _: &ChannelName, _: rung::pipeline::channel::Legacy) {}

    fn turn_away(&self, _: &ChannelName, _: PublisherId) {}

    fn carry_out(&self, _: &ChannelName, _: Effect) {}
}

/// An API with a few channels, for requests that change nothing.
struct Rig {
    runtime: tokio::runtime::Runtime,
    api: Arc<Api>,
    token: String,
}

fn api() -> &'static Rig {
    static API: OnceLock<Rig> = OnceLock::new();
    API.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = state::Options { ballast_bytes: 0, ..state::Options::new(folder.path()) };
        let state = State::open(&options).expect("a new store");
        let ledger = Arc::new(Ledger::open(Arc::new(state), Arc::new(Nobody) as Arc<dyn Plane>).expect("a new ledger"));
        ledger.recover().expect("nothing to recover");
        let wide = Limit { burst: 1e12, per_second: 1e12 };
        let options = api::Options { requests: wide, failures: wide, ..api::Options::default() };
        let media = Media { settled: Arc::new(|_| true), snapshot: Arc::new(|_, _| false), pull: Arc::new(|_| None) };
        let api = Api::open(ledger, options, media).expect("a new folder");
        let token =
            std::fs::read_to_string(folder.path().join(api::ADMIN_FILE)).expect("it was just made").trim().to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Its files stay open, and leave nothing behind.
        folder.close().expect("it was just made");
        let made = Rig { runtime, api, token };
        for name in ["a", "b-2", "news"] {
            let body = format!("{{\"name\":\"{name}\"}}");
            let (status, answer) = send(&made, "POST", "/v1/channels", "", body.as_bytes());
            assert_eq!(status, 201, "{answer}");
        }
        made
    })
}

/// Status and body.
fn send(of: &Rig, method: &str, target: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let mut request =
        http::Request::builder().method(method).uri(target).header("authorization", format!("Bearer {}", of.token));
    for line in headers.lines() {
        if let Some((name, value)) = line.split_once(':') {
            request = request.header(name, value.trim());
        }
    }
    let Ok(request) = request.body(http_body_util::Full::new(bytes::Bytes::copy_from_slice(body))) else {
        return (0, String::new());
    };
    of.runtime.block_on(async {
        let mut service = warp::service(of.api.filter());
        let Ok(response) = service.call(request).await;
        let status = response.status().as_u16();
        let streams =
            response.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event"));
        if streams {
            return (status, String::new());
        }
        let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body in memory").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("the API answers in text"))
    })
}

/// The first line is the target, the others are headers.
fn request(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (target, headers) = text.split_once('\n').unwrap_or((text, ""));
    let (status, answer) = send(api(), "GET", target, headers, &[]);
    assert!(status < 500 || status == 503, "{status}: {answer}");
    if status >= 400 && !answer.is_empty() {
        let problem: Value =
            serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{status} is no problem ({e}): {answer}"));
        assert_eq!(problem["status"].as_u64(), Some(u64::from(status)));
        assert!(problem["code"].is_string() && problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
}

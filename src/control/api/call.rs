//! One request on its way to its handler: who asks, for what, under which conditions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, Method};
use serde_json::Value;
use utoipa::IntoParams;

use super::access::Caller;
use super::problem::{Code, FieldProblem, Problem};
use super::routes::Route;
use super::{Api, Awaited};
use crate::control::auth::TokenRecord;
use crate::control::ledger;
use crate::control::record::{ChannelId, ChannelRecord};
use crate::control::state::Read;
use crate::media::channel::ChannelName;

/// The longest that `Prefer: wait` is granted, seconds.
pub(super) const WAIT_S_MAX: u64 = 30;
const PREFER: HeaderName = HeaderName::from_static("prefer");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How often the data plane is asked whether it has followed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Of every POST.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header that `Call` reads")]
pub(super) struct KeyHeader {
    /// Repeated within 24 h with the same request, it gets the same answer.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    key: Option<String>,
}

/// Of requests that the media follows.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header that `Call` reads")]
pub(super) struct PreferHeader {
    /// `wait=N`: wait up to N seconds (30) for the media, too.
    #[param(rename = "Prefer")]
    prefer: Option<String>,
}

pub(super) struct Call {
    pub(super) api: Arc<Api>,
    pub(super) route: &'static Route,
    /// What stands in the braces of the route's path.
    pub(super) captured: Vec<String>,
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) caller: Option<Caller>,
    pub(super) peer: SocketAddr,
    pub(super) request_id: String,
    /// Random bits: the answer's secret, or what it is derived from where the caller gave a key.
    pub(super) salt: [u8; 32],
}

/// Which revision a change is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    None,
    /// `If-Match: *`, or nothing where it is not asked for.
    Any,
    OneOf(Vec<u64>),
}

impl Precondition {
    pub(super) fn check(&self, revision: u64) -> Result<(), Problem> {
        match self {
            Precondition::OneOf(seen) if !seen.contains(&revision) => {
                let what = format!("it is at revision {revision} by now: read it again and repeat the change");
                Err(Problem::new(Code::RevisionMismatch, what))
            }
            _ => Ok(()),
        }
    }
}

impl Call {
    /// The first thing that the path names.
    pub(super) fn id(&self) -> &str {
        self.captured.first().map_or("", String::as_str)
    }

    /// The same where its name may hold spaces: see `check_label`.
    pub(super) fn label(&self) -> String {
        self.id().replace("%20", " ")
    }

    /// # Panics
    /// On a route without a scope: nobody asked who calls.
    pub(super) fn caller(&self) -> &Caller {
        self.caller.as_ref().expect("a route with a scope has a caller")
    }

    pub(super) fn token(&self) -> &TokenRecord {
        &self.caller().token
    }

    /// One view of the store.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Read<'_>) -> Result<T, Problem>) -> Result<T, Problem> {
        self.api.state().control.read(look)
    }

    /// The channel that the path names, if the token reaches it.
    pub(super) fn channel(&self, view: &Read<'_>) -> Result<ChannelRecord, Problem> {
        reachable(view, self.id(), self.token())
    }

    /// What is about no channel is not for tokens of some channels.
    pub(super) fn expect_unlimited(&self) -> Result<(), Problem> {
        if self.token().reaches(None) {
            return Ok(());
        }
        let what = "this token is for some channels only: use one without a list of channels";
        Err(Problem::new(Code::ChannelLimited, what))
    }

    /// The body as JSON; `kinds`: media types besides `application/json`.
    pub(super) fn json_or(&self, kinds: &[&str]) -> Result<Value, Problem> {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
        let plain = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if plain != "application/json" && !kinds.contains(&plain.as_str()) {
            let what = format!("this address takes application/json, not {plain:?}");
            return Err(Problem::new(Code::BodyType, what));
        }
        serde_json::from_slice(&self.body).map_err(|e| Problem::new(Code::BodyMalformed, format!("no JSON: {e}")))
    }

    pub(super) fn json(&self) -> Result<Value, Problem> {
        self.json_or(&[])
    }

    /// A body that may be left out.
    pub(super) fn json_or_nothing(&self) -> Result<Value, Problem> {
        if self.body.is_empty() { Ok(Value::Object(serde_json::Map::new())) } else { self.json() }
    }

    /// `If-Match`. Asked for in strict mode only.
    pub(super) fn precondition(&self) -> Result<Precondition, Problem> {
        let mut seen = Vec::new();
        let mut given = false;
        for value in self.headers.get_all(header::IF_MATCH) {
            given = true;
            for one in value.to_str().unwrap_or_default().split(',').map(str::trim) {
                if one == "*" {
                    return Ok(Precondition::Any);
                }
                // What is not a tag of ours matches nothing.
                seen.extend(
                    one.strip_prefix('"').and_then(|t| t.strip_suffix('"')).and_then(|t| t.parse::<u64>().ok()),
                );
            }
        }
        match (given, self.api.options.strict) {
            (true, _) => Ok(Precondition::OneOf(seen)),
            (false, false) => Ok(Precondition::None),
            (false, true) => {
                let what = "this box is strict: read the record and repeat its ETag in If-Match";
                Err(Problem::new(Code::IfMatchMissing, what))
            }
        }
    }

    /// `Prefer: wait=N`, as far as it is granted.
    pub(super) fn wait_s(&self) -> Option<u64> {
        let all = self.headers.get_all(PREFER);
        let texts = all.iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split([',', ';']));
        let waits = texts.filter_map(|one| one.trim().strip_prefix("wait=")?.trim_matches('"').parse::<u64>().ok());
        waits.map(|seconds| seconds.min(WAIT_S_MAX)).next()
    }

    /// Waits until the data plane has followed, if the caller prefers to. False: it has not, in that time.
    pub(super) async fn settled(&self, awaited: &Awaited) -> bool {
        let Some(seconds) = self.wait_s() else { return true };
        let settled = Arc::clone(&self.api.media.settled);
        let followed = async {
            while !settled(awaited) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(seconds), followed).await.is_ok()
    }

    /// `Idempotency-Key` of a POST.
    pub(super) fn idempotency_key(&self) -> Result<Option<&str>, Problem> {
        if self.route.method != Method::POST {
            return Ok(None);
        }
        let Some(value) = self.headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
        match value.to_str() {
            Ok(key) if (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) => Ok(Some(key)),
            _ => {
                let what = "write 1 to 255 visible characters, a new UUID for each new request";
                Err(Problem::parameter(Code::HeaderInvalid, "Idempotency-Key", what))
            }
        }
    }

    /// 256 secret bits for the answer: random, and the same again where an equal request is repeated under its key. They
    /// depend on the caller's token, which the store does not hold: what the store holds does not give them away.
    pub(super) fn secret_bits(&self, salt: [u8; 32]) -> Result<[u8; 32], Problem> {
        Ok(self.idempotency_key()?.map_or(salt, |key| self.caller().derive(&salt, key)))
    }
}

/// What is wrong with a name that people give to tokens and playback keys, for `Problem::fields`.
pub(super) fn check_label(name: &str) -> Option<(String, String)> {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"._ -".contains(&b);
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let wrong = !begins || name.len() > 63 || !name.bytes().all(letters);
    wrong.then(|| ("/name".to_owned(), "write 1 to 63 letters, digits, '.', '_', '-' or spaces".to_owned()))
}

/// The channel of that id or name, as far as `token` may know of it.
pub(super) fn reachable(view: &Read<'_>, id_or_name: &str, token: &TokenRecord) -> Result<ChannelRecord, Problem> {
    let found = find_channel(view, id_or_name)?;
    found.filter(|channel| token.reaches(Some(channel.id))).ok_or_else(|| Problem::not_found("channel"))
}

/// The channel of that id or name. What can be neither is not looked for: the store has keys of some lengths only.
pub(super) fn find_channel(view: &Read<'_>, id_or_name: &str) -> Result<Option<ChannelRecord>, Problem> {
    if id_or_name.parse::<ChannelId>().is_err() && ChannelName::new(id_or_name).is_err() {
        return Ok(None);
    }
    Ok(ledger::find(view, id_or_name)?)
}

/// What stands behind the question mark.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(raw: &str) -> Query {
        Query(form_urlencoded::parse(raw.as_bytes()).into_owned().collect())
    }

    /// # Errors
    /// A parameter that nobody knows, or one that is given twice.
    pub(super) fn expect_known(&self, known: &[&str]) -> Result<(), Problem> {
        let mut errors = Vec::new();
        for (i, (name, _)) in self.0.iter().enumerate() {
            let detail = if !known.contains(&name.as_str()) {
                match known {
                    [] => "this address takes no parameters".to_owned(),
                    known => format!("unknown parameter: known are {}", known.join(", ")),
                }
            } else if self.0[..i].iter().any(|(other, _)| other == name) {
                "is given twice: write it once".to_owned()
            } else {
                continue;
            };
            errors.push(FieldProblem { pointer: None, parameter: Some(name.clone()), detail });
        }
        match errors.first() {
            None => Ok(()),
            Some(first) => {
                let detail = format!("{}: {}", first.parameter.as_deref().unwrap_or_default(), first.detail);
                Err(Problem { errors, ..Problem::new(Code::QueryInvalid, detail) })
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// It is there and cannot be read: `write` says what to write.
    pub(super) fn read<T>(
        &self,
        name: &str,
        write: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || Problem::parameter(Code::QueryInvalid, name, format!("{text:?}: write {write}"));
        parse(text).map(Some).ok_or_else(wrong)
    }

    /// All but `without`, in a fixed order.
    pub(super) fn canonical(&self, without: &[&str]) -> Vec<(String, String)> {
        let mut rest: Vec<_> = self.0.iter().filter(|(name, _)| !without.contains(&name.as_str())).cloned().collect();
        rest.sort();
        rest
    }
}

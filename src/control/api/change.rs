//! Every change: its effect, its audit row and its answer for a repeated key are one transaction.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::answer::{Answer, Body};
use super::call::Call;
use super::problem::{Code, Problem};
use crate::control::auth::{self, Limit, Limits, Secret};
use crate::control::ledger::Change;
use crate::control::record::{TokenId, Utc};
use crate::control::state::{Db, Error, Need, Table, Ticket, Write};
use crate::media::key::hex;
use crate::media::playback::Keyring;
use crate::sys::random;
use crate::time::{SystemClock, Wall};

pub(super) const AUDIT: Table<u64, AuditRecord> = Table::json(Db::Audit, 1);
const IDEM: Table<[u8; 16], Kept> = Table::json(Db::Idem, 1);
/// Audit rows kept; the oldest go first.
const AUDIT_MAX: u64 = 100_000;
/// Refused attempts that are written down, by token; strangers share one bucket, so that they cannot push out the rest.
const REFUSED: Limit = Limit { burst: 20.0, per_second: 0.1 };
/// An answer is kept this long.
const KEPT: Duration = Duration::from_secs(86_400);
/// Answers kept at a time.
const KEPT_MAX: u64 = 200_000;
/// Each new answer looks at so many others, from a random one on, and removes those that have expired: in the long run as
/// many go as come, without a sweep that stops the writer.
const LOOK_AT: usize = 16;

/// What somebody did, or tried to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(super) struct AuditRecord {
    pub(super) at: Utc,
    pub(super) request_id: String,
    /// `null`: without a valid token.
    pub(super) token: Option<TokenId>,
    pub(super) token_name: Option<String>,
    /// The operation's id in this document.
    pub(super) operation: String,
    /// Id of what it was done to, or the name that was tried.
    pub(super) target: Option<String>,
    /// HTTP status of the answer.
    pub(super) status: u16,
    /// Code of the problem; `null`: it was done.
    pub(super) code: Option<String>,
    /// The caller's address.
    pub(super) address: String,
}

/// An answer as it is kept for a repeated key. Its secret is not in it: it is derived again from the token and `salt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// SHA-256 of method, path, query and body.
    request: [u8; 32],
    salt: [u8; 32],
    status: u16,
    body: Option<Value>,
    revision: Option<u64>,
    location: Option<String>,
    secret: Option<SecretKind>,
    expires_at: Utc,
}

/// A secret that an answer shows once, in the member of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SecretKind {
    StreamKey,
    Token,
    /// Of a key that signs viewers in: the store keeps it, because signatures are checked with it.
    SigningSecret,
}

impl SecretKind {
    pub(super) fn text(self, bits: [u8; 32]) -> String {
        match self {
            SecretKind::StreamKey => auth::publish_key(bits),
            SecretKind::Token => Secret::of(bits).reveal().to_owned(),
            SecretKind::SigningSecret => hex(&bits),
        }
    }

    fn member(self) -> &'static str {
        match self {
            SecretKind::StreamKey => "stream_key",
            SecretKind::Token | SecretKind::SigningSecret => "secret",
        }
    }
}

/// What the work of a change came to.
pub(super) struct Done {
    pub(super) changes: Vec<Change>,
    pub(super) answer: Answer,
    /// Id of what was changed.
    pub(super) target: String,
    /// The answer shows the secret that was made of the call's bits.
    pub(super) secret: Option<SecretKind>,
    /// What viewers' signatures are checked by from the commit on.
    pub(super) keyring: Option<Keyring>,
}

impl Done {
    pub(super) fn new(changes: Vec<Change>, answer: Answer, target: impl ToString) -> Done {
        Done { changes, answer, target: target.to_string(), secret: None, keyring: None }
    }

    #[must_use]
    pub(super) fn with(self, secret: SecretKind) -> Done {
        Done { secret: Some(secret), ..self }
    }
}

/// What a transaction leaves for those who hear of its commit.
struct Told {
    answer: Answer,
    secret: Option<SecretKind>,
    salt: [u8; 32],
    keyring: Option<Keyring>,
}

/// A key and the request that it stands for.
#[derive(Clone, Copy)]
struct Key {
    row: [u8; 16],
    request: [u8; 32],
}

/// Does `work` in one transaction with its audit row, or gives the answer of the equal request that came before.
///
/// # Errors
/// Nothing has changed.
pub(super) async fn change(
    call: &Call,
    need: Need,
    work: impl Fn(&mut Write<'_, '_>, Wall) -> Result<Done, Problem> + Send + 'static,
) -> Result<Answer, Problem> {
    let key = key_of(call)?;
    let (salt, row) = (call.salt, audit_row(call));
    let transaction = move |txn: &mut Write<'_, '_>, now: Wall| {
        if let Some(kept) = before(txn, key, now)? {
            let (answer, secret, salt) = kept;
            return Ok::<_, Problem>((Vec::new(), Told { answer, secret, salt, keyring: None }));
        }
        let Done { changes, answer, target, secret, keyring } = work(txn, now)?;
        let row = AuditRecord { at: now.into(), target: Some(target), status: answer.status.as_u16(), ..row.clone() };
        audit(txn, &row)?;
        if let Some(key) = key {
            keep(txn, key, &answer, secret, salt, now)?;
        }
        Ok((changes, Told { answer, secret, salt, keyring }))
    };
    // A caller that goes away before the answer has changed it nevertheless, and two callers may hear of their commits in
    // any order: neither may decide which keys are good.
    let shared = call.api.keyring.clone();
    let then = move |told: &Told| {
        if let Some(keyring) = &told.keyring {
            shared.replace(keyring.clone());
        }
    };
    let Told { mut answer, secret, salt, .. } = call.api.ledger.submit_then(need, transaction, then).await?;
    if let (Some(kind), Body::Json(body)) = (secret, &mut answer.body) {
        body[kind.member()] = Value::from(kind.text(call.secret_bits(salt)?));
    }
    Ok(answer)
}

fn key_of(call: &Call) -> Result<Option<Key>, Problem> {
    let Some(key) = call.idempotency_key()? else { return Ok(None) };
    let mut request = Sha256::new();
    for part in [call.route.method.as_str(), &call.path, &format!("{:?}", call.query.canonical(&[]))] {
        request.update((part.len() as u64).to_be_bytes());
        request.update(part.as_bytes());
    }
    request.update(&call.body);
    Ok(Some(Key { row: row_of(call.token().id, key), request: request.finalize().into() }))
}

fn row_of(token: TokenId, key: &str) -> [u8; 16] {
    let digest = Sha256::new().chain_update(token.to_string()).chain_update([0]).chain_update(key).finalize();
    *digest.first_chunk().expect("32 bytes begin with 16")
}

type Before = (Answer, Option<SecretKind>, [u8; 32]);

/// The answer that the key got before.
fn before(txn: &Write<'_, '_>, key: Option<Key>, now: Wall) -> Result<Option<Before>, Problem> {
    let Some(key) = key else { return Ok(None) };
    let Some(kept) = txn.get(&IDEM, &key.row)?.filter(|kept| kept.expires_at.wall() > now) else { return Ok(None) };
    if kept.request != key.request {
        let what = "this Idempotency-Key came with another request less than 24 h ago: make a new key for each request";
        return Err(Problem::new(Code::IdempotencyMismatch, what));
    }
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
    let body = kept.body.map_or(Body::Empty, Body::Json);
    let answer =
        Answer { revision: kept.revision, location: kept.location, replayed: true, ..Answer::new(status, body) };
    Ok(Some((answer, kept.secret, kept.salt)))
}

fn keep(
    txn: &mut Write<'_, '_>,
    key: Key,
    answer: &Answer,
    secret: Option<SecretKind>,
    salt: [u8; 32],
    now: Wall,
) -> Result<(), Problem> {
    let expired: Vec<[u8; 16]> = {
        let view = txn.view();
        let rows = view.scan_from(&IDEM, &random::bits().to_be_bytes())?;
        let old = |kept: &Kept| kept.expires_at.wall() <= now;
        rows.take(LOOK_AT).filter_map(|row| row.ok().filter(|(_, kept)| old(kept)).map(|(key, _)| key)).collect()
    };
    for row in expired {
        txn.delete(&IDEM, &row)?;
    }
    if txn.view().count(Db::Idem)? >= KEPT_MAX {
        let what = format!("{KEPT_MAX} answers are kept for repeated keys, as many as there may be: send no key");
        return Err(Problem::new(Code::Overloaded, what));
    }
    let body = match &answer.body {
        Body::Json(value) => Some(value.clone()),
        _ => None,
    };
    let kept = Kept {
        request: key.request,
        salt,
        status: answer.status.as_u16(),
        body,
        revision: answer.revision,
        location: answer.location.clone(),
        secret,
        expires_at: Utc::from(now) + KEPT,
    };
    Ok(txn.put(&IDEM, &key.row, &kept)?)
}

// ── audit ───────────────────────────────────────────────────────────────────────────────────────────────────────────

fn audit_row(call: &Call) -> AuditRecord {
    let token = call.caller.as_ref().map(|caller| &caller.token);
    AuditRecord {
        at: Utc::default(),
        request_id: call.request_id.clone(),
        token: token.map(|token| token.id),
        token_name: token.map(|token| token.name.clone()),
        operation: call.route.id.to_owned(),
        target: call.captured.first().map(|name| name.chars().take(80).collect()),
        status: 0,
        code: None,
        address: call.peer.ip().to_canonical().to_string(),
    }
}

fn audit(txn: &mut Write<'_, '_>, row: &AuditRecord) -> Result<(), Error> {
    let seq = txn.append(&AUDIT, row)?;
    if let Some(old) = seq.checked_sub(AUDIT_MAX) {
        txn.delete(&AUDIT, &old)?;
    }
    Ok(())
}

/// Attempts that were refused: written down too, as far as their bucket goes.
pub(super) struct Refusals(Mutex<Limits<Option<TokenId>>>);

impl Refusals {
    pub(super) fn new() -> Refusals {
        Refusals(Mutex::new(Limits::new(REFUSED)))
    }

    /// Nobody waits for it.
    pub(super) fn note(&self, call: &Call, token: Option<TokenId>, problem: &Problem) {
        let mut row = audit_row(call);
        row.token = row.token.or(token);
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take(SystemClock::mono(), &row.token);
        if taken.is_err() {
            return;
        }
        row.status = problem.code.status().as_u16();
        row.code = Some(problem.code.name().to_owned());
        let write = call.api.state().control.write(Need::Ordinary, move |txn| {
            audit(txn, &AuditRecord { at: SystemClock::wall().into(), ..row.clone() })
        });
        // A store that cannot be written says so itself.
        drop::<Ticket<(), Error>>(write);
    }
}

// ── requests under way ──────────────────────────────────────────────────────────────────────────────────────────────

/// Keys whose request is being answered.
#[derive(Default)]
pub(super) struct Running(Mutex<BTreeSet<[u8; 16]>>);

/// One of them, until it is dropped.
pub(super) struct Turn<'a> {
    of: &'a Running,
    row: [u8; 16],
}

impl Running {
    /// # Errors
    /// A request with the same key is being answered.
    pub(super) fn enter(&self, call: &Call) -> Result<Option<Turn<'_>>, Problem> {
        let Some(key) = call.idempotency_key()? else { return Ok(None) };
        let row = row_of(call.token().id, key);
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(row) {
            return Ok(Some(Turn { of: self, row }));
        }
        let what = "a request with this Idempotency-Key is still being answered: repeat it in a moment";
        Err(Problem::new(Code::IdempotencyRunning, what).retry(Duration::from_secs(1)))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.of.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.row);
    }
}

//! Who may come in: bearer tokens, how often they may ask, and how often strangers may guess.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, header};
use sha2::Sha256;

use super::Options;
use super::problem::{Code, Problem};
use crate::control::auth::{Denied, Limits, Scope, Secret, TokenRecord};
use crate::control::record::{TokenId, Utc};
use crate::control::state::{Db, Error, Need, Read, State, Table, Ulid, Write};
use crate::sys::random;
use crate::telemetry::report::{Level, Place, log};
use crate::time::{Mono, SystemClock};

pub(super) const TOKENS: Table<Ulid, TokenRecord> = Table::json(Db::Tokens, 1);
pub(super) const TOKEN_HASHES: Table<[u8; 32], TokenId> = Table::json(Db::TokenHash, 1);
/// The token whose text is in the state folder.
const ADMIN: Table<String, TokenId> = Table::json(Db::Meta, 1);
const ADMIN_KEY: &str = "admin token";
/// Its file, beside the state.
pub const ADMIN_FILE: &str = "admin.token";
/// The time of a token's last use is written this often at most.
const USED_EVERY: Duration = Duration::from_secs(60);
/// Tokens whose use is remembered between two writes.
const USED_MAX: usize = 4_096;

/// Who asks.
pub(super) struct Caller {
    pub(super) token: TokenRecord,
    secret: Secret,
}

impl Caller {
    /// Bits that only who knows the token's text can make: the store knows its hash and not more.
    pub(super) fn derive(&self, salt: &[u8], context: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.reveal().as_bytes()).expect("a key of any length");
        mac.update(salt);
        mac.update(context.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// The counters at the door.
pub(super) struct Access {
    requests: Mutex<Limits<TokenId>>,
    failures: Mutex<Limits<IpAddr>>,
    used: Mutex<BTreeMap<TokenId, Mono>>,
}

impl Access {
    pub(super) fn new(options: &Options) -> Access {
        Access {
            requests: Mutex::new(Limits::new(options.requests)),
            failures: Mutex::new(Limits::new(options.failures)),
            used: Mutex::default(),
        }
    }

    /// The caller, if there is one who may do what `scope` allows. A good token passes however many bad ones came from its
    /// address: 256 bits are not guessed, and nobody can lock out a neighbour.
    pub(super) fn admit(
        &self,
        state: &State,
        headers: &HeaderMap,
        peer: IpAddr,
        scope: Scope,
    ) -> Result<Caller, Box<(Option<TokenId>, Problem)>> {
        let now = SystemClock::mono();
        let caller = match identify(state, headers, peer, scope) {
            Ok(caller) => caller,
            Err(Stranger::Store(error)) => return Err(Box::new((None, error.into()))),
            Err(Stranger::Lacks(token, scope)) => {
                let problem = self.take(token, now).err().unwrap_or_else(|| lacks(scope));
                return Err(Box::new((Some(token), problem)));
            }
            Err(stranger @ (Stranger::Silent | Stranger::Unknown)) => {
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                let problem = match failures.take(now, &network(peer)) {
                    Ok(()) => who(&stranger),
                    Err(after) => {
                        let what = "too many requests without a valid token came from this address: wait";
                        Problem::new(Code::RateLimited, what).retry(after)
                    }
                };
                return Err(Box::new((None, problem)));
            }
        };
        self.take(caller.token.id, now).map_err(|problem| Box::new((Some(caller.token.id), problem)))?;
        self.touch(state, &caller.token, now);
        Ok(caller)
    }

    /// One of the requests that the token may make.
    fn take(&self, token: TokenId, now: Mono) -> Result<(), Problem> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.take(now, &token).map_err(|after| {
            let what = "this token asks too often: wait, or give each of your programs a token of its own";
            Problem::new(Code::RateLimited, what).retry(after)
        })
    }

    /// Notes that the token was used, once a minute at most and without waiting for the disk.
    fn touch(&self, state: &State, token: &TokenRecord, now: Mono) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.get(&token.id).is_some_and(|at| now - *at < USED_EVERY) {
            return;
        }
        if used.len() >= USED_MAX {
            used.retain(|_, at| now - *at < USED_EVERY);
        }
        used.insert(token.id, now);
        drop(used);
        let id = token.id;
        let write = state.control.write(Need::Ordinary, move |txn| {
            let Some(mut record) = txn.get(&TOKENS, &id.0)? else { return Ok(()) };
            record.last_used_at = Some(SystemClock::wall().into());
            txn.put(&TOKENS, &id.0, &record)
        });
        // The next minute tries again.
        drop::<crate::control::state::Ticket<(), Error>>(write);
    }
}

enum Stranger {
    Silent,
    Unknown,
    Lacks(TokenId, Scope),
    Store(Error),
}

/// What cannot be a token costs what an unknown one does: a hash and a look-up.
fn identify(state: &State, headers: &HeaderMap, peer: IpAddr, scope: Scope) -> Result<Caller, Stranger> {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let text = given.and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let secret = text.and_then(|(_, text)| Secret::parse(text.trim())).unwrap_or_else(|| Secret::of([0; 32]));
    let found = state.control.read(|view| by_hash(view, &secret)).map_err(Stranger::Store)?;
    let Some(token) = found.filter(|token| token.hash == secret.hash()) else {
        return Err(if given.is_none() { Stranger::Silent } else { Stranger::Unknown });
    };
    match token.permits(Utc::from(SystemClock::wall()), peer, scope) {
        Ok(()) => Ok(Caller { token, secret }),
        Err(Denied::Scope(scope)) => Err(Stranger::Lacks(token.id, scope)),
        Err(Denied::Expired | Denied::Network | Denied::Channel) => Err(Stranger::Unknown),
    }
}

fn by_hash(view: &Read<'_>, secret: &Secret) -> Result<Option<TokenRecord>, Error> {
    let Some(id) = view.get(&TOKEN_HASHES, secret.hash().bytes())? else { return Ok(None) };
    view.get(&TOKENS, &id.0)
}

fn who(stranger: &Stranger) -> Problem {
    let (code, detail, challenge) = match stranger {
        Stranger::Silent => (
            Code::TokenMissing,
            "write the header \"Authorization: Bearer <token>\"; on the box itself, the first one is in admin.token in \
             the state folder",
            "Bearer realm=\"rung\"",
        ),
        _ => (
            Code::TokenInvalid,
            "this token is unknown, has expired, or may not be used from here: make another one with `rung token create`",
            "Bearer realm=\"rung\", error=\"invalid_token\"",
        ),
    };
    Problem { challenge: Some(challenge.to_owned()), ..Problem::new(code, detail) }
}

fn lacks(scope: Scope) -> Problem {
    let name = scope.name();
    let challenge = format!("Bearer realm=\"rung\", error=\"insufficient_scope\", scope=\"{name}\"");
    let detail = format!("this needs the scope {name}, which the token does not have: use another one");
    Problem { challenge: Some(challenge), ..Problem::new(Code::ScopeMissing, detail) }
}

/// Who shares a bucket of failures: an IPv4 address, or the IPv6 network that one customer is given.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Writes a token and what it is found by.
pub(super) fn put(txn: &mut Write<'_, '_>, token: &TokenRecord) -> Result<(), Error> {
    txn.put(&TOKEN_HASHES, token.hash.bytes(), &token.id)?;
    txn.put(&TOKENS, &token.id.0, token)
}

pub(super) fn delete(txn: &mut Write<'_, '_>, token: &TokenRecord) -> Result<(), Error> {
    txn.delete(&TOKEN_HASHES, token.hash.bytes())?;
    txn.delete(&TOKENS, &token.id.0)?;
    Ok(())
}

/// Sees to it that `<state>/admin.token` exists: at the first start, and again where somebody removed it, a token with
/// every scope is made, its text written there for the owner's eyes only, and the former one revoked. A file that is there
/// is left alone: a token that was revoked stays so. Blocks.
pub(super) fn ensure_admin(state: &State) -> Result<(), String> {
    let file = state.folder().join(ADMIN_FILE);
    let known = state.control.read(|view| view.get(&ADMIN, &ADMIN_KEY.to_owned()));
    let known = known.map_err(|e| e.to_string())?;
    if known.is_some() && file.exists() {
        return Ok(());
    }
    let secret = Secret::of(random::secret());
    write_secret(&file, &secret).map_err(|e| format!("{} cannot be written: {e}", file.display()))?;
    let now = SystemClock::wall();
    let token = TokenRecord {
        id: TokenId(Ulid::from_parts(now.unix_millis(), random::bits())),
        name: "admin".into(),
        prefix: secret.prefix(),
        hash: secret.hash(),
        scopes: Scope::ALL.into(),
        channels: None,
        networks: None,
        created_at: now.into(),
        expires_at: None,
        last_used_at: None,
    };
    let written = state.control.write(Need::Ordinary, move |txn| {
        if let Some(old) = known
            && let Some(old) = txn.get(&TOKENS, &old.0)?
        {
            delete(txn, &old)?;
        }
        put(txn, &token)?;
        txn.put(&ADMIN, &ADMIN_KEY.to_owned(), &token.id)
    });
    written.wait().map_err(|e: Error| e.to_string())?;
    log(Level::Info, "admin_token_made", &Place::default(), format_args!("the admin token is in {}", file.display()));
    Ok(())
}

/// Whole or not at all, and never readable by others, not even while it is written.
fn write_secret(file: &Path, secret: &Secret) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt;
    let new = file.with_extension("token.new");
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    open.write_all(format!("{}\n", secret.reveal()).as_bytes())?;
    open.sync_all()?;
    std::fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customers_of_ipv6_share_a_bucket_per_network_and_mapped_addresses_are_ipv4() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}

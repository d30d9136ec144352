//! Who may watch: keys that sign viewers in, and signed addresses made here.

use serde::{Deserialize, Serialize};
use serde_json::json;
use std::net::IpAddr;
use utoipa::{IntoParams, ToSchema};

use super::answer::Answer;
use super::call::{Call, KeyHeader, check_label};
use super::change::{Done, SecretKind, change};
use super::page::{Page, PageQuery, asked, collect, newest_first, page};
use super::problem::{Code, Problem};
use crate::control::record::{Algorithm, PlaybackKey, PlaybackKeyId, Utc};
use crate::control::state::{Db, Error, Need, Read, State, Table, Ulid, Write};
use crate::media::playback::{Claims, Keyring, Network, PlaybackPolicy, SharedKeyring, Viewer, jwt, pass};
use crate::sys::random;
use crate::telemetry::report::{Level, Place, log};
use crate::time::{SystemClock, Wall};

pub(super) const PLAYBACK_KEYS: Table<Ulid, PlaybackKey> = Table::json(Db::PlaybackKeys, 1);
/// What passes are made with.
const SECRETS: Table<String, [u8; 32]> = Table::json(Db::Meta, 1);
const PASS_SECRET: &str = "playback pass secret";
/// Name of Rung's own key.
const OWN: &str = "rung";
/// Keys of one box, its own included.
const KEYS_MAX: u64 = 16;
/// A signed address lasts so long unless its maker says otherwise, seconds; and at most, 30 days.
const LASTS: u32 = 43_200;
const LASTS_MAX: u32 = 2_592_000;

/// A key that signs viewers in, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = PlaybackKey)]
pub(super) struct KeyView {
    /// The `kid` of what it signs.
    id: PlaybackKeyId,
    name: String,
    algorithm: Algorithm,
    /// EdDSA only.
    public_key: Option<String>,
    created_at: Utc,
}

/// A key, and its secret if Rung made one, which is shown this once.
#[derive(Serialize, ToSchema)]
#[schema(as = PlaybackKeyWithSecret)]
pub(super) struct KeyWithSecret {
    #[serde(flatten)]
    key: KeyView,
    /// HS256: 64 characters, to be used as they stand. EdDSA: empty.
    secret: String,
}

/// A new key. With `public_key` it is an EdDSA key, without one Rung makes a secret for HS256.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewPlaybackKey)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    /// Whose it is. Unique among keys.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._ -]{0,62}$")]
    name: String,
    /// Ed25519: PEM, or the `x` of a JWK.
    #[schema(max_length = 200)]
    public_key: Option<String>,
}

/// For whom a signed address is.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters that `wanted` reads")]
pub(super) struct SignQuery {
    /// Seconds from now; 12 hours without it. Playback ends then.
    #[param(minimum = 1, maximum = 2_592_000)]
    expires_in: Option<u32>,
    /// Your own name for the viewer.
    #[param(pattern = "^[A-Za-z0-9_-]{1,32}$")]
    viewer: Option<String>,
    /// Renditions of more rows are left out; the lowest one always stays.
    #[param(minimum = 1, maximum = 4320)]
    max_height: Option<u16>,
    /// The only address that may use it (IPv6: its /64). Not behind a proxy: there all viewers have the proxy's.
    #[param(value_type = Option<String>)]
    address: Option<IpAddr>,
}

/// Where one viewer finds the channel: paths on this server.
#[derive(Serialize, ToSchema)]
pub(super) struct SignedPlayback {
    policy: PlaybackPolicy,
    /// The multivariant playlist.
    playlist: String,
    /// The newest picture.
    poster: String,
    /// The watch page.
    watch: String,
    /// `null`: the channel is public, and nothing of this expires.
    expires_at: Option<Utc>,
}

impl From<PlaybackKey> for KeyView {
    fn from(key: PlaybackKey) -> KeyView {
        let public_key = (key.algorithm == Algorithm::EdDSA).then_some(key.material);
        KeyView { id: key.id, name: key.name, algorithm: key.algorithm, public_key, created_at: key.created_at }
    }
}

/// Keys that sign viewers in, newest first.
#[utoipa::path(get, path = "/v1/playback-keys", tag = "playback", security(("token" = ["tokens:admin"])),
    params(PageQuery),
    responses((status = 200, description = "A page of keys.", body = Page<KeyView>)))]
pub(super) async fn list_playback_keys(call: &Call) -> Result<Answer, Problem> {
    let asked = asked(call, &[])?;
    call.expect_unlimited()?;
    let (items, more) = call.read(|view| {
        let ids = newest_first(view, &PLAYBACK_KEYS)?;
        collect(asked, ids.into_iter(), |id| Ok(view.get(&PLAYBACK_KEYS, &Ulid(id))?.map(KeyView::from)))
    })?;
    Ok(page(call, items, more))
}

/// Make a key. Who has it signs viewers in by JSON Web Tokens: `sub` (the channel's playback id), `exp`, and if wanted
/// `nbf`, `sid`, `ip`, `max_res`.
#[utoipa::path(post, path = "/v1/playback-keys", tag = "playback", security(("token" = ["tokens:admin"])),
    params(KeyHeader),
    request_body = NewKey,
    responses((status = 201, description = "The key, and its secret if Rung made one.", body = KeyWithSecret,
        headers(("Location" = String)))))]
pub(super) async fn create_playback_key(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.expect_unlimited()?;
    let new: NewKey = serde_json::from_value(call.json()?).map_err(|e| {
        Problem::field("", format!("{e}: write {{\"name\": \"website\"}}, for EdDSA with \"public_key\" beside it"))
    })?;
    check(&new)?;
    let secret = SecretKind::SigningSecret.text(call.secret_bits(call.salt)?);
    change(call, Need::Ordinary, move |txn, now| {
        if txn.view().count(Db::PlaybackKeys)? >= KEYS_MAX {
            return Err(Problem::new(Code::TooMany, format!("this box has its {KEYS_MAX} keys: delete one first")));
        }
        if find(&txn.view(), &new.name)?.is_some() {
            let what = format!("there is a key {:?} already: take another name", new.name);
            return Err(Problem::new(Code::NameTaken, what));
        }
        let (algorithm, material) = match &new.public_key {
            Some(public) => (Algorithm::EdDSA, public.trim().to_owned()),
            None => (Algorithm::HS256, secret.clone()),
        };
        let key = make(new.name.clone(), algorithm, material, now);
        txn.put(&PLAYBACK_KEYS, &key.id.0, &key)?;
        let id = key.id;
        let view = json!(KeyWithSecret { key: key.into(), secret: String::new() });
        let done = Done::new(Vec::new(), Answer::created(format!("/v1/playback-keys/{id}"), &view), id);
        let done = Done { keyring: Some(load(&txn.view())?), ..done };
        Ok(if algorithm == Algorithm::HS256 { done.with(SecretKind::SigningSecret) } else { done })
    })
    .await
}

/// Delete a key. What it signed is void at once, and so are the passes of those it let in. Rung's own key is replaced by
/// a new one: that voids every address that was handed out here.
#[utoipa::path(delete, path = "/v1/playback-keys/{id}", tag = "playback", security(("token" = ["tokens:admin"])),
    params(("id" = String, Path, description = "Its name or id.")),
    responses((status = 204, description = "It is gone.")))]
pub(super) async fn delete_playback_key(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.expect_unlimited()?;
    let id = call.label();
    change(call, Need::Essential, move |txn, now| {
        let key = find(&txn.view(), &id)?.ok_or_else(|| Problem::not_found("playback key"))?;
        txn.delete(&PLAYBACK_KEYS, &key.id.0)?;
        if key.algorithm == Algorithm::Rung {
            let own = make(OWN.to_owned(), Algorithm::Rung, String::new(), now);
            txn.put(&PLAYBACK_KEYS, &own.id.0, &own)?;
        }
        let keyring = Some(load(&txn.view())?);
        Ok(Done { keyring, ..Done::new(Vec::new(), Answer::gone(), key.id) })
    })
    .await
}

/// Addresses for one viewer. Of a signed channel they hold a pass in their path, which every later request of the player
/// carries along.
#[utoipa::path(get, path = "/v1/channels/{id}/playback", tag = "playback", security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "The channel's name or id."), SignQuery),
    responses((status = 200, description = "Where it is watched.", body = SignedPlayback)))]
pub(super) async fn sign_channel_playback(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&["expires_in", "viewer", "max_height", "address"])?;
    let channel = call.read(|view| call.channel(view))?;
    let now = SystemClock::wall();
    let claims = wanted(call, channel.playback_id.0, now)?;
    let (policy, name) = (channel.config.policy.playback_policy, &channel.config.name);
    let (prefix, expires_at) = match policy {
        PlaybackPolicy::Public => (String::new(), None),
        PlaybackPolicy::Signed => {
            let own = call.read(|view| Ok(find(view, OWN)?))?;
            let own = own.ok_or_else(|| Problem::new(Code::Internal, "Rung's own playback key is not there"))?;
            let pass = pass::seal(&call.api.keyring.get(), own.id.0, &claims);
            let at = Wall(i64::from(claims.expires).saturating_mul(1_000_000_000));
            (format!("/t/{pass}"), Some(Utc::from(at)))
        }
    };
    Ok(Answer::json(&SignedPlayback {
        policy,
        playlist: format!("{prefix}/live/{name}/index.m3u8"),
        poster: format!("{prefix}/live/{name}/poster.jpg"),
        watch: format!("{prefix}/watch/{name}"),
        expires_at,
    }))
}

fn wanted(call: &Call, playback: ulid::Ulid, now: Wall) -> Result<Claims, Problem> {
    let seconds = |text: &str| text.parse::<u32>().ok().filter(|s| (1..=LASTS_MAX).contains(s));
    let lasts = call.query.read("expires_in", "whole seconds from 1 to 2592000 (30 days)", seconds)?.unwrap_or(LASTS);
    let viewer = call.query.read("viewer", "1 to 32 of A-Z, a-z, 0-9, '_' and '-'", |text| Viewer::new(text).ok())?;
    let rows = |text: &str| text.parse::<u16>().ok().filter(|rows| (1..=4320).contains(rows));
    let height_max = call.query.read("max_height", "rows from 1 to 4320", rows)?;
    let address = call.query.read("address", "an address such as 192.0.2.1", |text| text.parse::<IpAddr>().ok())?;
    let expires = u32::try_from(now.unix_millis() / 1_000 + u64::from(lasts)).unwrap_or(u32::MAX);
    Ok(Claims { playback, expires, viewer, height_max, address: address.map(Network::of) })
}

fn check(new: &NewKey) -> Result<(), Problem> {
    let mut wrong: Vec<_> = check_label(&new.name).into_iter().collect();
    if let Some(Err(what)) = new.public_key.as_deref().map(jwt::public_key) {
        wrong.push(("/public_key".to_owned(), what));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Problem::fields(wrong)) }
}

fn make(name: String, algorithm: Algorithm, material: String, now: Wall) -> PlaybackKey {
    let id = PlaybackKeyId(Ulid::from_parts(now.unix_millis(), random::bits()));
    PlaybackKey { id, name, algorithm, material, created_at: now.into() }
}

/// There are few: names have no index.
fn find(view: &Read<'_>, id_or_name: &str) -> Result<Option<PlaybackKey>, Error> {
    if let Ok(id) = id_or_name.parse::<PlaybackKeyId>() {
        return view.get(&PLAYBACK_KEYS, &id.0);
    }
    let mut rows = view.scan(&PLAYBACK_KEYS)?.filter_map(Result::ok);
    Ok(rows.find(|(_, key)| key.name == id_or_name).map(|(_, key)| key))
}

/// What signatures are checked by.
fn load(view: &Read<'_>) -> Result<Keyring, Error> {
    let secret = view.get(&SECRETS, &PASS_SECRET.to_owned())?.unwrap_or_else(random::secret);
    let mut keys = Vec::new();
    for row in view.scan(&PLAYBACK_KEYS)? {
        match row.map(|(_, key)| (key.signing(), key)) {
            Ok((Some(key), _)) => keys.push(key),
            Ok((None, key)) => log(Level::Error, "playback_key_unreadable", &Place::default(), key.id),
            // One that is damaged costs itself, not the others.
            Err(error) => log(Level::Error, "playback_key_damaged", &Place::default(), error),
        }
    }
    Ok(Keyring { secret, keys })
}

/// The keys as they are kept; at the first start the box's own are made. Blocks.
pub(super) fn open(state: &State) -> Result<SharedKeyring, Error> {
    let (fresh, now) = (random::secret(), SystemClock::wall());
    let made = state.control.write(Need::Ordinary, move |txn: &mut Write<'_, '_>| {
        let name = PASS_SECRET.to_owned();
        if txn.get(&SECRETS, &name)?.is_none() {
            txn.put(&SECRETS, &name, &fresh)?;
        }
        if find(&txn.view(), OWN)?.is_none() {
            let own = make(OWN.to_owned(), Algorithm::Rung, String::new(), now);
            txn.put(&PLAYBACK_KEYS, &own.id.0, &own)?;
        }
        Ok::<_, Error>(())
    });
    made.wait()?;
    state.control.read(load).map(SharedKeyring::new)
}

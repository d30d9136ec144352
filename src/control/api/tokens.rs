//! Tokens: made, listed, revoked.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use utoipa::ToSchema;

use super::access::{self, TOKENS};
use super::answer::Answer;
use super::call::{Call, KeyHeader, check_label, find_channel};
use super::change::{Done, SecretKind, change};
use super::page::{Page, PageQuery, asked, collect, newest_first, page};
use super::problem::{Code, Problem};
use crate::control::auth::{Scope, Secret, TokenRecord};
use crate::control::record::{ChannelId, TokenId, Utc};
use crate::control::state::{Db, Need, Read, Ulid};
use crate::media::networks::Networks;
use crate::sys::random;

/// Tokens of one box.
const TOKENS_MAX: u64 = 1_000;

/// A token, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Token)]
pub(super) struct TokenView {
    id: TokenId,
    name: String,
    /// First characters of the secret, to tell tokens apart.
    prefix: String,
    scopes: BTreeSet<Scope>,
    /// Only these channels; `null`: all, and what is about no channel.
    channels: Option<BTreeSet<ChannelId>>,
    /// Only from these networks; `null`: from anywhere.
    #[schema(value_type = Option<Vec<String>>)]
    networks: Option<Networks>,
    created_at: Utc,
    expires_at: Option<Utc>,
    /// Up to a minute old.
    last_used_at: Option<Utc>,
}

/// A token and its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenWithSecret {
    #[serde(flatten)]
    token: TokenView,
    /// For `Authorization: Bearer`. Rung keeps its hash only.
    secret: String,
}

/// A new token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    /// What it is for. Unique among tokens.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._ -]{0,62}$")]
    name: String,
    #[schema(min_items = 1)]
    scopes: Vec<Scope>,
    /// Only these channels: names or ids.
    #[schema(max_items = 1_000)]
    channels: Option<Vec<String>>,
    /// Only from these networks, such as `192.0.2.0/24`.
    #[schema(max_items = 100)]
    networks: Option<Vec<String>>,
    /// It is not valid from then on.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
}

impl From<TokenRecord> for TokenView {
    fn from(token: TokenRecord) -> TokenView {
        TokenView {
            id: token.id,
            name: token.name,
            prefix: token.prefix,
            scopes: token.scopes,
            channels: token.channels,
            networks: token.networks,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// Tokens, newest first.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", security(("token" = ["tokens:admin"])),
    params(PageQuery),
    responses((status = 200, description = "A page of tokens.", body = Page<TokenView>)))]
pub(super) async fn list_tokens(call: &Call) -> Result<Answer, Problem> {
    let asked = asked(call, &[])?;
    call.expect_unlimited()?;
    let (items, more) = call.read(|view| {
        let ids = newest_first(view, &TOKENS)?;
        collect(asked, ids.into_iter(), |id| Ok(view.get(&TOKENS, &Ulid(id))?.map(TokenView::from)))
    })?;
    Ok(page(call, items, more))
}

/// Make a token. The answer shows its secret, this once.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", security(("token" = ["tokens:admin"])),
    params(KeyHeader),
    request_body = NewToken,
    responses((status = 201, description = "The token and its secret.", body = TokenWithSecret,
        headers(("Location" = String)))))]
pub(super) async fn create_token(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.expect_unlimited()?;
    let wanted = read(call.json()?)?;
    let secret = Secret::parse(&SecretKind::Token.text(call.secret_bits(call.salt)?)).expect("a secret reads itself");
    change(call, Need::Ordinary, move |txn, now| {
        if txn.view().count(Db::Tokens)? >= TOKENS_MAX {
            let what = format!("this box has its {TOKENS_MAX} tokens: delete one first");
            return Err(Problem::new(Code::TooMany, what));
        }
        if find(&txn.view(), &wanted.name)?.is_some() {
            let what = format!("there is a token {:?} already: take another name", wanted.name);
            return Err(Problem::new(Code::NameTaken, what));
        }
        let token = TokenRecord {
            id: TokenId(Ulid::from_parts(now.unix_millis(), random::bits())),
            name: wanted.name.clone(),
            prefix: secret.prefix(),
            hash: secret.hash(),
            scopes: wanted.scopes.clone(),
            channels: wanted.channels.as_deref().map(|all| channel_ids(&txn.view(), all)).transpose()?,
            networks: wanted.networks.clone(),
            created_at: now.into(),
            expires_at: wanted.expires_at,
            last_used_at: None,
        };
        access::put(txn, &token)?;
        let id = token.id;
        let view = json!(TokenWithSecret { token: token.into(), secret: String::new() });
        Ok(Done::new(Vec::new(), Answer::created(format!("/v1/tokens/{id}"), &view), id).with(SecretKind::Token))
    })
    .await
}

/// Revoke a token, at once.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", security(("token" = ["tokens:admin"])),
    params(("id" = String, Path, description = "Its name or id.")),
    responses((status = 204, description = "It is no longer valid.")))]
pub(super) async fn delete_token(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.expect_unlimited()?;
    let id = call.label();
    change(call, Need::Essential, move |txn, _| {
        let token = find(&txn.view(), &id)?.ok_or_else(|| Problem::not_found("token"))?;
        access::delete(txn, &token)?;
        Ok(Done::new(Vec::new(), Answer::gone(), token.id))
    })
    .await
}

/// What is asked for, each field checked by itself.
struct Wanted {
    name: String,
    scopes: BTreeSet<Scope>,
    channels: Option<Vec<String>>,
    networks: Option<Networks>,
    expires_at: Option<Utc>,
}

fn read(body: Value) -> Result<Wanted, Problem> {
    let names = Scope::ALL.map(Scope::name).join(", ");
    let new: NewToken = serde_json::from_value(body).map_err(|e| {
        let what = format!("{e}: write {{\"name\": \"automation\", \"scopes\": [...]}}; scopes are {names}");
        Problem::field("", what)
    })?;
    let mut wrong: Vec<_> = check_label(&new.name).into_iter().collect();
    if new.scopes.is_empty() {
        wrong.push(("/scopes".to_owned(), format!("write at least one of {names}")));
    }
    if new.channels.as_ref().is_some_and(|channels| channels.len() > 1_000) {
        wrong.push(("/channels".to_owned(), "a token is for 1000 channels at most, or for all: null".to_owned()));
    }
    let networks = new.networks.as_ref().and_then(|texts| match Networks::parse(texts.iter().map(String::as_str)) {
        Ok(networks) => Some(networks),
        Err((place, what)) => {
            wrong.push((format!("/networks{place}"), what));
            None
        }
    });
    let expires_at = new.expires_at.as_ref().and_then(|text| match text.parse::<Utc>() {
        Ok(at) => Some(at),
        Err(what) => {
            wrong.push(("/expires_at".to_owned(), what));
            None
        }
    });
    if !wrong.is_empty() {
        return Err(Problem::fields(wrong));
    }
    Ok(Wanted {
        name: new.name,
        scopes: new.scopes.into_iter().collect(),
        channels: new.channels,
        networks,
        expires_at,
    })
}

fn channel_ids(view: &Read<'_>, names: &[String]) -> Result<BTreeSet<ChannelId>, Problem> {
    let mut ids = BTreeSet::new();
    for (i, name) in names.iter().enumerate() {
        let channel = find_channel(view, name)?;
        let missing = || Problem::field(&format!("/channels/{i}"), format!("there is no channel {name:?}"));
        ids.insert(channel.ok_or_else(missing)?.id);
    }
    Ok(ids)
}

/// There are few: names have no index.
fn find(view: &Read<'_>, id_or_name: &str) -> Result<Option<TokenRecord>, Problem> {
    if let Ok(id) = id_or_name.parse::<TokenId>() {
        return Ok(view.get(&TOKENS, &id.0)?);
    }
    let mut rows = view.scan(&TOKENS)?.filter_map(Result::ok);
    Ok(rows.find(|(_, token)| token.name == id_or_name).map(|(_, token)| token))
}

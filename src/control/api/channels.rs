//! Channels: made, shown, changed, started, stopped, deleted.

use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

use super::Awaited;
use super::answer::{Answer, Body};
use super::call::{Call, KeyHeader, Precondition, PreferHeader};
use super::change::{Done, SecretKind, change};
use super::page::{Page, PageQuery, asked, collect, collect_rows, page};
use super::problem::{Code, Problem};
use super::templates;
use super::views::{
    Applied, ChangedChannel, ChannelPatch, ChannelView, ChannelWithKey, Inputs, NewChannel, NewRenditions, Renditions,
    Rotation, inputs,
};
use crate::control::ledger::{self, CHANNELS, Change, OPEN};
use crate::control::lifecycle::{self, Command, Input, KEY_GRACE};
use crate::control::record::{ChannelConfig, ChannelRecord, ChannelState, StreamKey, Utc};
use crate::control::state::{Need, Read, Ulid, Write};
use crate::media::channel::Ladder;
use crate::media::limits::SNAPSHOT_PATIENCE;
use crate::pipeline::snapshots::{Reply, Snapshot};
use crate::time::Wall;

/// Longest time for which a rotated key stays valid, seconds.
const GRACE_S_MAX: u64 = 2_592_000;

/// States of channels that are listed.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ListedState {
    Idle,
    Active,
    Stop,
}

impl From<ListedState> for ChannelState {
    fn from(state: ListedState) -> ChannelState {
        match state {
            ListedState::Idle => ChannelState::Idle,
            ListedState::Active => ChannelState::Active,
            ListedState::Stop => ChannelState::Stop,
        }
    }
}

/// Channels, newest first.
#[utoipa::path(get, path = "/v1/channels", tag = "channels", security(("token" = ["channels:read"])),
    params(PageQuery, ("state" = Option<ListedState>, Query, description = "Only channels in this state.")),
    responses((status = 200, description = "A page of channels.", body = Page<ChannelView>)))]
pub(super) async fn list_channels(call: &Call) -> Result<Answer, Problem> {
    let asked = asked(call, &["state"])?;
    let state = call.query.read("state", "idle, active or stop", |text| {
        serde_json::from_value::<ListedState>(Value::from(text)).ok().map(ChannelState::from)
    })?;
    let (items, more) = call.read(|view| {
        let fitting =
            |channel: &ChannelRecord| channel.deleted_at.is_none() && state.is_none_or(|state| channel.state == state);
        let shown = |channel: ChannelRecord| fitting(&channel).then(|| show(view, &channel)).transpose();
        match &call.token().channels {
            None => {
                let rows = view.scan_back(&CHANNELS, asked.behind.map(Ulid).as_ref())?;
                collect_rows(asked, rows, |_, channel| shown(channel))
            }
            // A few of many.
            Some(own) => collect(asked, own.iter().rev().map(|id| id.0.0), |id| {
                view.get(&CHANNELS, &Ulid(id))?.map_or(Ok(None), shown)
            }),
        }
    })?;
    Ok(page(call, items, more))
}

/// Make a channel. The answer shows its publish key, this once.
#[utoipa::path(post, path = "/v1/channels", tag = "channels", security(("token" = ["channels:write"])),
    request_body = NewChannel,
    params(KeyHeader),
    responses((status = 201, description = "The channel was made.", body = ChannelWithKey,
        headers(("ETag" = String, description = "The channel's revision."), ("Location" = String)))))]
pub(super) async fn create_channel(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.expect_unlimited()?;
    let mut body = call.json()?;
    let from = match body.as_object_mut().and_then(|fields| fields.remove("from")) {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(_) => return Err(Problem::field("/from", "write the name of a template")),
    };
    let config = lifecycle::read_new(&body)?;
    let own_ladder = body.get("ladder").is_some();
    let bits = call.secret_bits(call.salt)?;
    let (host, options) = (host(call), call.api.options.clone());
    change(call, Need::Ordinary, move |txn, now| {
        let mut config = config.clone();
        if let Some(from) = &from {
            let template = templates::find(&txn.view(), from)?;
            let template = template.ok_or_else(|| Problem::field("/from", format!("there is no template {from:?}")))?;
            if !own_ladder {
                config.profile.ladder = Some(template.ladder);
                expect_sound(&config)?;
            }
        }
        let key = StreamKey::of(&SecretKind::StreamKey.text(bits), Utc::from(now));
        let made = ledger::create(txn, config, key, now)?;
        let channel = written(&made)?;
        let view = json!(ChannelWithKey {
            channel: ChannelView::new(&channel, None),
            stream_key: String::new(),
            inputs: inputs(&channel, &host, &options, None),
        });
        let answer = Answer::created(format!("/v1/channels/{}", channel.id), &view).revision(channel.revision);
        Ok(Done::new(vec![made], answer, channel.id).with(SecretKind::StreamKey))
    })
    .await
}

/// One channel.
#[utoipa::path(get, path = "/v1/channels/{id}", tag = "channels", security(("token" = ["channels:read"])),
    params(("id" = String, Path, description = "Its name or id.")),
    responses((status = 200, description = "The channel.", body = ChannelView,
        headers(("ETag" = String, description = "The channel's revision.")))))]
pub(super) async fn get_channel(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.read(|view| {
        let channel = call.channel(view)?;
        Ok(Answer::json(&show(view, &channel)?).revision(channel.revision))
    })
}

/// Change a channel: a JSON merge patch. The answer says which fields wait for the next session.
#[utoipa::path(patch, path = "/v1/channels/{id}", tag = "channels", security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "Its name or id."),
        ("If-Match" = Option<String>, Header, description = "ETag that the change is meant for.")),
    request_body(content((ChannelPatch = "application/merge-patch+json"), (ChannelPatch = "application/json"))),
    responses((status = 200, description = "The channel as it is now.", body = ChangedChannel,
        headers(("ETag" = String, description = "The channel's revision.")))))]
pub(super) async fn update_channel(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    let patch = call.json_or(&["application/merge-patch+json"])?;
    update(call, patch, |channel, view, applied| {
        Answer::json(&ChangedChannel { channel: view, applied }).revision(channel.revision)
    })
    .await
}

/// Delete a channel. One that is on air is deleted by `force` only.
#[utoipa::path(delete, path = "/v1/channels/{id}", tag = "channels", security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "Its name or id."),
        ("force" = Option<bool>, Query, description = "Even while it is on air: its session ends."),
        ("If-Match" = Option<String>, Header, description = "ETag that the deletion is meant for.")),
    responses((status = 204, description = "It is gone; its name is free.")))]
pub(super) async fn delete_channel(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&["force"])?;
    let force = call.query.read("force", "true or false", |text| text.parse::<bool>().ok())?.unwrap_or(false);
    command(call, call.precondition()?, Command::Delete { force, if_match: None }, |_, _, _| Answer::gone()).await
}

/// Let publishers in again; arms a channel with manual activation. Once more changes nothing.
#[utoipa::path(post, path = "/v1/channels/{id}/start", tag = "channels", security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "Its name or id."),
        PreferHeader,
        KeyHeader),
    responses((status = 200, description = "It is started.", body = ChannelView),
        (status = 202, description = "It is started; the media did not follow in the time that was waited.", body = ChannelView)))]
pub(super) async fn start_channel(call: &Call) -> Result<Answer, Problem> {
    switch(call, Command::Start, |channel| Awaited::Started(channel.config.name.clone())).await
}

/// End the session and refuse publishers until it is started. Once more changes nothing.
#[utoipa::path(post, path = "/v1/channels/{id}/stop", tag = "channels", security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "Its name or id."),
        PreferHeader,
        KeyHeader),
    responses((status = 200, description = "It is stopped.", body = ChannelView),
        (status = 202, description = "It is stopped; the media did not follow in the time that was waited.", body = ChannelView)))]
pub(super) async fn stop_channel(call: &Call) -> Result<Answer, Problem> {
    switch(call, Command::Stop, |channel| Awaited::Stopped(channel.config.name.clone())).await
}

/// Make a new publish key. The answer shows it, this once; the key in force stays valid for `grace_s`.
#[utoipa::path(post, path = "/v1/channels/{id}/rotate-key", tag = "channels", security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "Its name or id."),
        KeyHeader),
    request_body(content = Option<Rotation>),
    responses((status = 200, description = "The channel and its new key.", body = ChannelWithKey,
        headers(("ETag" = String, description = "The channel's revision.")))))]
pub(super) async fn rotate_channel_key(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    let grace = read_grace(&call.json_or_nothing()?)?;
    let bits = call.secret_bits(call.salt)?;
    let (id, token) = (call.id().to_owned(), call.token().clone());
    let (host, options, look) = (host(call), call.api.options.clone(), Arc::clone(&call.api.media.pull));
    change(call, Need::Ordinary, move |txn, now| {
        let channel = super::call::reachable(&txn.view(), &id, &token)?;
        let key = StreamKey::of(&SecretKind::StreamKey.text(bits), Utc::from(now));
        let made = step(txn, &channel, Command::RotateKey { key, grace }, now)?;
        let channel = written(&made)?;
        let answer = Answer::json(&ChannelWithKey {
            channel: view_of(&made, &channel),
            stream_key: String::new(),
            inputs: inputs(&channel, &host, &options, look(&channel.config.name)),
        });
        let answer = answer.revision(channel.revision);
        Ok(Done::new(vec![made], answer, channel.id).with(SecretKind::StreamKey))
    })
    .await
}

/// The ladder.
#[utoipa::path(get, path = "/v1/channels/{id}/renditions", tag = "channels", security(("token" = ["channels:read"])),
    params(("id" = String, Path, description = "The channel's name or id.")),
    responses((status = 200, description = "The ladder.", body = Renditions,
        headers(("ETag" = String, description = "The channel's revision.")))))]
pub(super) async fn get_channel_renditions(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.read(|view| {
        let channel = call.channel(view)?;
        let ladder = channel.config.profile.ladder.clone();
        Ok(Answer::json(&Renditions { ladder, applied: Applied::default() }).revision(channel.revision))
    })
}

/// Replace the ladder, from the next session on.
#[utoipa::path(put, path = "/v1/channels/{id}/renditions", tag = "channels", security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "The channel's name or id."),
        ("If-Match" = Option<String>, Header, description = "ETag that the change is meant for.")),
    request_body = NewRenditions,
    responses((status = 200, description = "The ladder as it is now.", body = Renditions,
        headers(("ETag" = String, description = "The channel's revision.")))))]
pub(super) async fn put_channel_renditions(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    let body = call.json()?;
    let only = body.as_object().filter(|fields| fields.keys().all(|name| name == "ladder"));
    let Some(ladder) = only.and_then(|fields| fields.get("ladder")) else {
        return Err(Problem::field("", "write {\"ladder\": [...]} and nothing else; null is the default ladder"));
    };
    update(call, json!({ "ladder": ladder }), |channel, _, applied| {
        let ladder: Option<Ladder> = channel.config.profile.ladder.clone();
        Answer::json(&Renditions { ladder, applied }).revision(channel.revision)
    })
    .await
}

/// Where and how to publish; and how far the source is that Rung calls, if there is one.
#[utoipa::path(get, path = "/v1/channels/{id}/inputs", tag = "channels", security(("token" = ["channels:read"])),
    params(("id" = String, Path, description = "The channel's name or id.")),
    responses((status = 200, description = "The inputs; `KEY` stands for the publish key.", body = Inputs)))]
pub(super) async fn get_channel_inputs(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    let options = &call.api.options;
    let channel = call.read(|view| call.channel(view))?;
    let pull = (call.api.media.pull)(&channel.config.name);
    let inputs = inputs(&channel, &host(call), options, pull);
    Ok(Answer::json(&Inputs { inputs }))
}

/// Take a picture of the channel as it is now: up to 640 columns of square samples. It changes nothing.
#[utoipa::path(post, path = "/v1/channels/{id}/snapshot", tag = "channels", security(("token" = ["channels:read"])),
    params(("id" = String, Path, description = "The channel's name or id.")),
    responses((status = 200, description = "The picture.", content((Jpeg = "image/jpeg")))))]
pub(super) async fn take_snapshot(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    if !call.body.is_empty() {
        return Err(Problem::new(Code::BodyMalformed, "this takes no body"));
    }
    let name = call.read(|view| call.channel(view))?.config.name;
    let (sender, answer) = tokio::sync::oneshot::channel();
    // Whoever went away meanwhile does not want it.
    let reply = Reply::new(move |snapshot| drop(sender.send(snapshot)));
    let asked = (call.api.media.snapshot)(&name, reply);
    let late = || {
        let what = format!("channel {name} is live and gave no picture in time: try again");
        Problem::new(Code::PictureLate, what).retry(Duration::from_secs(1))
    };
    if !asked {
        return Err(late());
    }
    match tokio::time::timeout(SNAPSHOT_PATIENCE, answer).await {
        Ok(Ok(Snapshot::Taken(jpeg))) => Ok(Answer::new(StatusCode::OK, Body::Jpeg(jpeg))),
        Ok(Ok(Snapshot::NotLive(why))) => {
            Err(Problem::new(Code::ChannelState, format!("channel {name} shows no picture now: {why}")))
        }
        Ok(Err(_)) | Err(_) => Err(late()),
    }
}

/// A JPEG.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes bytes")]
pub(super) struct Jpeg(Vec<u8>);

// ── shared ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A channel as it is shown.
fn show(view: &Read<'_>, channel: &ChannelRecord) -> Result<ChannelView, Problem> {
    Ok(ChannelView::new(channel, view.get(&OPEN, &channel.id.0)?))
}

fn view_of(made: &Change, channel: &ChannelRecord) -> ChannelView {
    ChannelView::new(channel, made.open.as_ref().map(|session| session.id.clone()))
}

/// The record that a step wrote. Only a tombstone's end leaves none.
fn written(made: &Change) -> Result<ChannelRecord, Problem> {
    made.channel.clone().ok_or_else(|| Problem::not_found("channel"))
}

fn step(txn: &mut Write<'_, '_>, channel: &ChannelRecord, command: Command, now: Wall) -> Result<Change, Problem> {
    Ok(ledger::step(txn, channel.id, &Input::Command(command), now)?)
}

/// One command to the channel of the path, and its answer.
pub(super) async fn command(
    call: &Call,
    precondition: Precondition,
    what: Command,
    answer: impl Fn(&ChannelRecord, ChannelView, Applied) -> Answer + Send + 'static,
) -> Result<Answer, Problem> {
    let (id, token) = (call.id().to_owned(), call.token().clone());
    // What ends a session or frees room is tried even on a full disk.
    let need = match what {
        Command::Stop | Command::Delete { .. } => Need::Essential,
        _ => Need::Ordinary,
    };
    change(call, need, move |txn, now| {
        let channel = super::call::reachable(&txn.view(), &id, &token)?;
        precondition.check(channel.revision)?;
        let made = step(txn, &channel, what.clone(), now)?;
        let channel = written(&made)?;
        let answer = answer(&channel, view_of(&made, &channel), made.outcome.clone().into());
        Ok(Done::new(vec![made], answer, channel.id))
    })
    .await
}

async fn update(
    call: &Call,
    patch: Value,
    answer: impl Fn(&ChannelRecord, ChannelView, Applied) -> Answer + Send + 'static,
) -> Result<Answer, Problem> {
    command(call, call.precondition()?, Command::Update { patch, if_match: None }, answer).await
}

async fn switch(
    call: &Call,
    what: Command,
    awaited: impl FnOnce(&ChannelRecord) -> Awaited,
) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    if !call.body.is_empty() {
        return Err(Problem::new(Code::BodyMalformed, "this takes no body"));
    }
    let awaited = awaited(&call.read(|view| call.channel(view))?);
    let answer =
        command(call, Precondition::None, what, |channel, view, _| Answer::json(&view).revision(channel.revision));
    let answer = answer.await?;
    let status = if call.settled(&awaited).await { answer.status } else { StatusCode::ACCEPTED };
    Ok(Answer { status, waited: call.wait_s(), ..answer })
}

/// A ladder that fits in itself may not fit the channel.
fn expect_sound(config: &ChannelConfig) -> Result<(), Problem> {
    let wrong: Vec<_> = lifecycle::check(config).into_iter().map(|e| (e.pointer, e.detail)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Problem::fields(wrong)) }
}

fn read_grace(body: &Value) -> Result<Duration, Problem> {
    let wrong = |pointer: &str| Problem::field(pointer, format!("write whole seconds from 0 to {GRACE_S_MAX}"));
    let Some(fields) = body.as_object() else {
        return Err(Problem::field("", "write {\"grace_s\": 86400}, or nothing"));
    };
    if let Some(other) = fields.keys().find(|name| *name != "grace_s") {
        return Err(Problem::field(&format!("/{other}"), "unknown field: known is grace_s"));
    }
    match fields.get("grace_s") {
        None | Some(Value::Null) => Ok(KEY_GRACE),
        Some(value) => {
            let seconds = value.as_u64().filter(|s| *s <= GRACE_S_MAX).ok_or_else(|| wrong("/grace_s"))?;
            Ok(Duration::from_secs(seconds))
        }
    }
}

/// The name that the caller reached this box by, without its port.
pub(super) fn host(call: &Call) -> String {
    let given = call.headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let authority = given.parse::<http::uri::Authority>().ok();
    authority.map(|a| a.host().to_owned()).filter(|host| !host.is_empty()).unwrap_or_else(|| "HOST".into())
}

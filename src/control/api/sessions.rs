//! Sessions: shown and ended.

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

use super::Awaited;
use super::answer::Answer;
use super::call::{Call, KeyHeader, PreferHeader, reachable};
use super::change::{Done, change};
use super::page::{Asked, Page, PageQuery, asked, collect, collect_rows, page};
use super::problem::{Code, Problem};
use crate::control::auth::TokenRecord;
use crate::control::ledger::{self, CHANNELS, OPEN, SESSIONS, SESSIONS_BY_CHANNEL};
use crate::control::lifecycle::{Command, Input as LifeInput};
use crate::control::record::{
    ChannelId, EndedReason, Input, Profile, RunsOn, SessionError, SessionRecord, SessionState, Utc,
};
use crate::control::state::{Need, Newest, Read, Ulid};
use crate::media::channel::{ChannelName, Leg, SessionId};

/// One broadcast of a channel: from its first publisher to its end; never used again.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct SessionView {
    id: SessionId,
    channel: ChannelId,
    channel_name: ChannelName,
    state: SessionState,
    input: Input,
    /// Why it is degraded; empty: it is well.
    health: BTreeSet<String>,
    /// Where its pictures are made; `null`: they are not made, or it is not known yet.
    runs_on: Option<RunsOn>,
    /// Legs that publishers feed now.
    legs: Vec<Leg>,
    /// What it was made of.
    profile: Profile,
    created_at: Utc,
    processing_at: Option<Utc>,
    /// First time that viewers could begin.
    live_at: Option<Utc>,
    ended_at: Option<Utc>,
    ended_reason: Option<EndedReason>,
    /// The last one; it stays when the session recovers.
    error: Option<SessionError>,
    /// Of its longest life.
    deadline: Option<Utc>,
    /// Up to a second old.
    last_media_at: Option<Utc>,
    /// While the input is lost.
    input_lost_at: Option<Utc>,
    /// While the input is lost: how long it is waited for.
    window_deadline: Option<Utc>,
}

impl SessionView {
    fn new(session: &SessionRecord, channel_name: ChannelName) -> SessionView {
        let session = session.clone();
        SessionView {
            channel_name,
            legs: session.publishers.keys().copied().collect(),
            id: session.id,
            channel: session.channel,
            state: session.state,
            input: session.input,
            health: session.health,
            runs_on: session.runs_on,
            profile: session.profile,
            created_at: session.created_at,
            processing_at: session.processing_at,
            live_at: session.live_at,
            ended_at: session.ended_at,
            ended_reason: session.ended_reason,
            error: session.error,
            deadline: session.deadline,
            last_media_at: session.last_media_at,
            input_lost_at: session.input_lost_at,
            window_deadline: session.window_deadline,
        }
    }
}

/// Sessions of all channels, newest first.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", security(("token" = ["sessions:read"])),
    params(PageQuery, ("state" = Option<SessionState>, Query, description = "Only sessions in this state."),
        ("channel" = Option<String>, Query, description = "Only sessions of this channel: name or id.")),
    responses((status = 200, description = "A page of sessions.", body = Page<SessionView>)))]
pub(super) async fn list_sessions(call: &Call) -> Result<Answer, Problem> {
    list(call, &["state", "channel"], call.query.get("channel"))
}

/// Sessions of one channel, newest first.
#[utoipa::path(get, path = "/v1/channels/{id}/sessions", tag = "sessions", security(("token" = ["sessions:read"])),
    params(("id" = String, Path, description = "The channel's name or id."), PageQuery,
        ("state" = Option<SessionState>, Query, description = "Only sessions in this state.")),
    responses((status = 200, description = "A page of sessions.", body = Page<SessionView>)))]
pub(super) async fn list_channel_sessions(call: &Call) -> Result<Answer, Problem> {
    list(call, &["state"], Some(call.id()))
}

fn list(call: &Call, filters: &[&str], channel: Option<&str>) -> Result<Answer, Problem> {
    let asked = asked(call, filters)?;
    let state = call.query.read("state", "init, processing, live, error or ended", |text| {
        serde_json::from_value::<SessionState>(Value::from(text)).ok()
    })?;
    let (items, more) = call.read(|view| {
        let mut names = BTreeMap::new();
        let mut shown = |session: SessionRecord| {
            if state.is_some_and(|state| session.state != state) {
                return Ok(None);
            }
            let name = match names.entry(session.channel) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(name_of(view, session.channel)?),
            };
            Ok(name.clone().map(|name| SessionView::new(&session, name)))
        };
        let own = own_channels(view, call.token(), channel)?;
        let mut ids = match (state, own) {
            (None | Some(SessionState::Ended), None) => {
                let rows = view.scan_back(&SESSIONS, asked.behind.map(Ulid).as_ref())?;
                return collect_rows(asked, rows, |_, session| shown(session));
            }
            (None | Some(SessionState::Ended), Some(own)) => newest_of(view, &own, asked)?,
            (Some(_), own) => open_of(view, own)?,
        };
        ids.sort_unstable_by(|a, b| b.cmp(a));
        collect(asked, ids.into_iter(), |id| view.get(&SESSIONS, &Ulid(id))?.map_or(Ok(None), &mut shown))
    })?;
    Ok(page(call, items, more))
}

/// As many of each channel's sessions as a page of all of them can need: one more says that there are others, and one of
/// them may be open and thus be passed over.
fn newest_of(view: &Read<'_>, channels: &[ChannelId], asked: Asked) -> Result<Vec<u128>, Problem> {
    let mut ids = Vec::new();
    for channel in channels {
        let from = Newest(Ulid(asked.behind.unwrap_or(u128::MAX)));
        let rows = view.scan_from(&SESSIONS_BY_CHANNEL, &(channel.0, from))?.filter_map(Result::ok);
        let own = rows.map(|(key, ())| key).take_while(|(of, _)| *of == channel.0);
        ids.extend(own.map(|(_, Newest(id))| id.0).filter(|id| asked.behind != Some(*id)).take(asked.limit + 2));
    }
    Ok(ids)
}

/// The open sessions, which are few beside the channels.
fn open_of(view: &Read<'_>, channels: Option<Vec<ChannelId>>) -> Result<Vec<u128>, Problem> {
    let Some(channels) = channels else {
        return Ok(view.scan(&OPEN)?.filter_map(|row| row.ok().map(|(_, id)| id.ulid().0)).collect());
    };
    let mut ids = Vec::new();
    for channel in channels {
        ids.extend(view.get(&OPEN, &channel.0)?.map(|id| id.ulid().0));
    }
    Ok(ids)
}

/// The channels whose sessions are asked for, as far as the token reaches them; `None`: all there are.
fn own_channels(view: &Read<'_>, token: &TokenRecord, one: Option<&str>) -> Result<Option<Vec<ChannelId>>, Problem> {
    match one {
        Some(one) => Ok(Some(vec![reachable(view, one, token)?.id])),
        None => Ok(token.channels.as_ref().map(|own| own.iter().copied().collect())),
    }
}

/// A channel's name; `None`: it was deleted, and its sessions with it.
fn name_of(view: &Read<'_>, channel: ChannelId) -> Result<Option<ChannelName>, Problem> {
    let channel = view.get(&CHANNELS, &channel.0)?.filter(|channel| channel.deleted_at.is_none());
    Ok(channel.map(|channel| channel.config.name))
}

/// One session.
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "sessions", security(("token" = ["sessions:read"])),
    params(("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "The session.", body = SessionView)))]
pub(super) async fn get_session(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.read(|view| {
        let (session, name) = find(view, call.id(), call.token())?;
        Ok(Answer::json(&SessionView::new(&session, name)))
    })
}

/// End a session. The channel stays as it is: an encoder that calls again makes a new session. One that has ended stays so.
#[utoipa::path(post, path = "/v1/sessions/{id}/end", tag = "sessions", security(("token" = ["sessions:write"])),
    params(("id" = String, Path, description = "Its id."),
        PreferHeader,
        KeyHeader),
    responses((status = 200, description = "It has ended.", body = SessionView),
        (status = 202, description = "It has ended; the media did not follow in the time that was waited.", body = SessionView)))]
pub(super) async fn end_session(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    if !call.body.is_empty() {
        return Err(Problem::new(Code::BodyMalformed, "this takes no body"));
    }
    let (id, token) = (call.id().to_owned(), call.token().clone());
    let (session, name) = call.read(|view| find(view, &id, &token))?;
    let answer = change(call, Need::Essential, move |txn, now| {
        let (session, name) = find(&txn.view(), &id, &token)?;
        let command = Command::EndSession(session.id.clone());
        let made = ledger::step(txn, session.channel, &LifeInput::Command(command), now)?;
        let session = txn.get(&SESSIONS, &session.id.ulid())?.ok_or_else(|| Problem::not_found("session"))?;
        Ok(Done::new(vec![made], Answer::json(&SessionView::new(&session, name)), session.id))
    });
    let answer = answer.await?;
    let followed = call.settled(&Awaited::Ended(name, session.id)).await;
    let status = if followed { answer.status } else { StatusCode::ACCEPTED };
    Ok(Answer { status, waited: call.wait_s(), ..answer })
}

/// A session of a channel that the token reaches and that was not deleted.
fn find(view: &Read<'_>, id: &str, token: &TokenRecord) -> Result<(SessionRecord, ChannelName), Problem> {
    let missing = || Problem::not_found("session");
    let id: SessionId = id.parse().map_err(|_| missing())?;
    let session = view.get(&SESSIONS, &id.ulid())?.ok_or_else(missing)?;
    let channel = view.get(&CHANNELS, &session.channel.0)?.filter(|channel| channel.deleted_at.is_none());
    let channel = channel.filter(|channel| token.reaches(Some(channel.id))).ok_or_else(missing)?;
    Ok((session, channel.config.name))
}

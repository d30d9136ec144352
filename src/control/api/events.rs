//! Events: what happened in the last 7 days, as a list.

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use utoipa::ToSchema;

use super::answer::Answer;
use super::call::{Call, reachable};
use super::page::{Page, PageQuery, asked, numbered, page};
use super::problem::{Code, Problem};
use crate::control::auth::TokenRecord;
use crate::control::ledger::EVENTS;
use crate::control::record::{ChannelId, Event, EventId, EventSeq, Utc, What};
use crate::control::state::Read;
use crate::media::channel::SessionId;

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventView {
    /// Its place in the box's history: numbers grow without a hole.
    seq: u64,
    id: EventId,
    /// Counts the channel's events from 1, without a hole; `null`: it is about no channel.
    channel_seq: Option<u64>,
    at: Utc,
    channel: Option<ChannelId>,
    session: Option<SessionId>,
    /// Such as `session.live`.
    r#type: &'static str,
    /// Facts that depend on the type.
    #[schema(value_type = Object)]
    data: Value,
}

impl EventView {
    pub(super) fn new(seq: EventSeq, event: &Event) -> EventView {
        let what = serde_json::to_value(&event.what).expect("an event has a JSON form");
        EventView {
            seq,
            id: event.id,
            channel_seq: event.channel_seq,
            at: event.at,
            channel: event.channel,
            session: event.session.clone(),
            r#type: event.what.name(),
            data: what.get("data").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new())),
        }
    }
}

/// Which events somebody wants and may see.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    types: Option<BTreeSet<String>>,
    channel: Option<ChannelId>,
}

pub(super) const FILTERS: [&str; 2] = ["types", "channel"];

impl Filter {
    pub(super) fn read(call: &Call, view: &Read<'_>) -> Result<Filter, Problem> {
        let types = call.query.get("types").map(|text| {
            let wanted: BTreeSet<String> = text.split(',').map(|one| one.trim().to_owned()).collect();
            match wanted.iter().find(|one| !What::TYPES.contains(&one.as_str())) {
                None => Ok(wanted),
                Some(unknown) => {
                    let what = format!("{unknown:?} is no type of event: known are {}", What::TYPES.join(", "));
                    Err(Problem::parameter(Code::QueryInvalid, "types", what))
                }
            }
        });
        let channel = call.query.get("channel").map(|name| reachable(view, name, call.token()).map(|c| c.id));
        Ok(Filter { types: types.transpose()?, channel: channel.transpose()? })
    }

    pub(super) fn passes(&self, event: &Event, token: &TokenRecord) -> bool {
        token.reaches(event.channel)
            && self.channel.is_none_or(|channel| event.channel == Some(channel))
            && self.types.as_ref().is_none_or(|types| types.contains(event.what.name()))
    }
}

/// Events of the last 7 days, newest first.
#[utoipa::path(get, path = "/v1/events", tag = "events", security(("token" = ["sessions:read"])),
    params(PageQuery, ("types" = Option<String>, Query, description = "Only these types, separated by commas."),
        ("channel" = Option<String>, Query, description = "Only events of this channel: name or id.")),
    responses((status = 200, description = "A page of events.", body = Page<EventView>)))]
pub(super) async fn list_events(call: &Call) -> Result<Answer, Problem> {
    let asked = asked(call, &FILTERS)?;
    let (items, more) = call.read(|view| {
        let filter = Filter::read(call, view)?;
        numbered(view, &EVENTS, asked, |seq, event| {
            filter.passes(&event, call.token()).then(|| EventView::new(seq, &event))
        })
    })?;
    Ok(page(call, items, more))
}

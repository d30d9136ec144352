//! Events as they happen: server-sent events. A client's backlog stays in the store and is read at the client's own pace, so
//! that a slow one costs no memory; one that takes nothing at all is closed by its connection's write time-out. Those that keep
//! up share the tail: each event is read and written as text once, however many listen.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use http::header::HeaderName;
use tokio::sync::watch;

use super::Api;
use super::access::TOKENS;
use super::answer::{Answer, Body};
use super::call::Call;
use super::events::{EventView, FILTERS, Filter};
use super::problem::{Code, Problem};
use crate::control::auth::TokenRecord;
use crate::control::ledger::EVENTS;
use crate::control::record::{Event, EventSeq, TokenId, Utc};
use crate::time::SystemClock;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Bytes of events that are handed to a connection at a time. With what the connection itself buffers, a client holds
/// less than 1 MiB.
const BATCH_BYTES: usize = 64 << 10;
/// Rows read for one batch.
const BATCH_ROWS: usize = 512;
/// Events that clients which keep up find in memory.
const TAIL_EVENTS: usize = 256;

/// Events as they happen, as server-sent events: `id` is the event's `seq`. Reconnect with `Last-Event-ID` and nothing is
/// missed for 7 days; a comment is sent every 15 s.
#[utoipa::path(get, path = "/v1/events/stream", tag = "events", security(("token" = ["sessions:read"])),
    params(("types" = Option<String>, Query, description = "Only these types, separated by commas."),
        ("channel" = Option<String>, Query, description = "Only events of this channel: name or id."),
        ("Last-Event-ID" = Option<String>, Header, description = "`seq` of the last event that was seen; without it: from now on.")),
    responses((status = 200, description = "The stream. The data of each event is an Event.", body = String,
        content_type = "text/event-stream")))]
pub(super) async fn stream_events(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&FILTERS)?;
    let newest = call.api.ledger.newest_event();
    let (filter, last) = call.read(|view| Ok((Filter::read(call, view)?, view.last(&EVENTS)?)))?;
    // The store is ahead of the notice: a client may have seen what was not announced yet.
    let last = last.map_or(0, |(seq, _)| seq).max(*newest.borrow());
    let seen: EventSeq = match call.headers.get(LAST_EVENT_ID) {
        None => *newest.borrow(),
        Some(value) => value.to_str().ok().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
            let what = "write the number of the last event that you have seen";
            Problem::parameter(Code::HeaderInvalid, "Last-Event-ID", what)
        })?,
    };
    // A number from the future is one of another box, or of a state before a restore.
    let seen = seen.min(*newest.borrow());
    let seat = Seat::take(&call.api)?;
    let closing = call.api.closing.subscribe();
    // A number from the future is one of another box, or of a state before a restore.
    let seen = seen.min(last);
    let client = Client { seat, token: call.token().id, filter, seen, newest, closing, greeted: false };
    let events = futures_util::stream::unfold(client, |mut client| async move {
        let bytes = client.next().await?;
        Some((bytes, client))
    });
    Ok(Answer::new(StatusCode::OK, Body::Events(events.boxed())))
}

/// One of the streams that there may be at a time.
struct Seat(Arc<Api>);

impl Seat {
    fn take(api: &Arc<Api>) -> Result<Seat, Problem> {
        let seat = Seat(Arc::clone(api));
        if api.streams.fetch_add(1, Ordering::Relaxed) < api.options.streams_max {
            return Ok(seat);
        }
        let what = format!("{} event streams are open, as many as there may be: close some", api.options.streams_max);
        Err(Problem::new(Code::Overloaded, what).retry(api.options.heartbeat))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An event as it is sent.
fn written(seq: EventSeq, event: &Event) -> String {
    let view = serde_json::to_string(&EventView::new(seq, event)).expect("an event has a JSON form");
    format!("id: {seq}\ndata: {view}\n\n")
}

/// The newest events: all behind `from`, up to `to`.
#[derive(Default)]
pub(super) struct Tail(Mutex<Newest>);

#[derive(Default)]
struct Newest {
    from: EventSeq,
    to: EventSeq,
    events: VecDeque<Arc<Written>>,
}

struct Written {
    seq: EventSeq,
    event: Event,
    text: String,
}

/// What a client has not seen yet.
struct Unseen {
    events: Vec<Arc<Written>>,
    to: EventSeq,
}

impl Tail {
    /// Events behind `seen`; `None`: some of them are older than the tail.
    fn behind(&self, api: &Api, seen: EventSeq) -> Option<Result<Unseen, Problem>> {
        let newest = *api.ledger.newest_event().borrow();
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Who asks first reads for all.
        if tail.to < newest
            && let Err(problem) = tail.read_up_to(newest, api)
        {
            return Some(Err(problem));
        }
        if seen < tail.from {
            return None;
        }
        let new = tail.events.iter().skip(tail.events.partition_point(|one| one.seq <= seen));
        Some(Ok(Unseen { events: new.cloned().collect(), to: tail.to }))
    }
}

impl Newest {
    fn read_up_to(&mut self, newest: EventSeq, api: &Api) -> Result<(), Problem> {
        let from = self.to.max(newest.saturating_sub(TAIL_EVENTS as u64));
        if from > self.to {
            self.events.clear();
            self.from = from;
        }
        let read = api.state().control.read(|view| {
            let rows = view.scan_from(&EVENTS, &(from + 1))?.filter_map(Result::ok);
            Ok::<_, Problem>(rows.take_while(|(seq, _)| *seq <= newest).collect::<Vec<_>>())
        })?;
        for (seq, event) in read {
            self.events.push_back(Arc::new(Written { seq, text: written(seq, &event), event }));
        }
        while self.events.len() > TAIL_EVENTS {
            self.from = self.events.pop_front().map_or(self.from, |oldest| oldest.seq);
        }
        self.to = newest;
        Ok(())
    }
}

impl Unseen {
    /// Of these what passes, a batch at most, and up to where that is.
    fn text(&self, filter: &Filter, token: &TokenRecord) -> (Bytes, EventSeq) {
        let mut text = String::new();
        for one in self.events.iter().filter(|one| filter.passes(&one.event, token)) {
            text.push_str(&one.text);
            if text.len() >= BATCH_BYTES {
                return (Bytes::from(text), one.seq);
            }
        }
        (Bytes::from(text), self.to)
    }
}

struct Client {
    seat: Seat,
    token: TokenId,
    filter: Filter,
    /// Everything up to this event was sent or passed over. Ahead of `newest` where the store was read between a commit and
    /// its notice.
    seen: EventSeq,
    newest: watch::Receiver<EventSeq>,
    closing: watch::Receiver<bool>,
    greeted: bool,
}

impl Client {
    /// What is sent next; `None`: the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.greeted, true) {
            // Something at once, so that the client sees its stream open.
            return Some(Bytes::from_static(b"retry: 2000\n\n"));
        }
        let heartbeat = tokio::time::sleep(self.seat.0.options.heartbeat);
        let mut heartbeat = std::pin::pin!(heartbeat);
        loop {
            if *self.closing.borrow() {
                return None;
            }
            let newest = *self.newest.borrow_and_update();
            while self.seen < newest {
                let batch = self.batch()?;
                if !batch.is_empty() {
                    return Some(batch);
                }
                // A long way through events of others: somebody else's turn.
                tokio::task::yield_now().await;
            }
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                _ = self.closing.changed() => return None,
                () = heartbeat.as_mut() => {
                    self.token()?;
                    return Some(Bytes::from_static(b": still here\n\n"));
                }
            }
        }
    }

    /// The next events in the store, as text; empty: none of them is for this client. `None`: it may see no more.
    fn batch(&mut self) -> Option<Bytes> {
        let token = self.token()?;
        if let Some(shared) = self.seat.0.tail.behind(&self.seat.0, self.seen) {
            let (text, seen) = shared.ok()?.text(&self.filter, &token);
            self.seen = seen;
            return Some(text);
        }
        let (mut text, before) = (String::new(), self.seen);
        let read = self.seat.0.state().control.read(|view| {
            let mut looked = 0u64;
            for row in view.scan_from(&EVENTS, &(self.seen + 1))?.take(BATCH_ROWS) {
                looked += 1;
                // A damaged row is a hole in the numbers: the next one says so.
                let Ok((seq, event)) = row else { continue };
                if self.filter.passes(&event, &token) {
                    if seq > self.seen + 1 && text.is_empty() && looked == 1 {
                        text.push_str(&format!(": events up to {} are no longer kept\n\n", seq - 1));
                    }
                    text.push_str(&written(seq, &event));
                }
                self.seen = seq;
                if text.len() >= BATCH_BYTES {
                    break;
                }
            }
            Ok::<_, Problem>(looked)
        });
        let looked = read.ok()?;
        if self.seen == before {
            // Nothing but damaged rows, which have their numbers, or none at all.
            let newest = *self.newest.borrow();
            self.seen = if looked == 0 { newest } else { newest.min(before + looked) };
        }
        Some(Bytes::from(text))
    }

    /// The token as it is now; `None`: it was revoked, or has expired.
    fn token(&self) -> Option<TokenRecord> {
        let token = self.seat.0.state().control.read(|view| view.get(&TOKENS, &self.token.0)).ok().flatten()?;
        let now = Utc::from(SystemClock::wall());
        token.expires_at.is_none_or(|at| now < at).then_some(token)
    }
}

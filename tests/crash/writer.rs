//! Somebody who changes things over the API, one request after the other, and knows what must be there: all that was
//! answered, and of the one request that a kill left without an answer either all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rung::control::record::{ChannelRecord, ChannelState, SessionState};
use serde_json::{Value, json};

use crate::api::{self, Reply};
use crate::book::{Book, Found};
use crate::random::Random;

/// What is known of a channel.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    name: String,
    id: String,
    revision: u64,
    seconds: u64,
    stopped: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Create { name: String, seconds: u64 },
    Patch { channel: usize, seconds: u64 },
    Stop { channel: usize },
    Start { channel: usize },
    Rotate { channel: usize },
    Delete { channel: usize },
    MakeToken { name: String },
    DropToken { name: String },
    EndSession { id: String },
}

/// A request. Its key makes it one effect however often it is sent.
#[derive(Clone, Debug)]
struct Request {
    op: Op,
    key: String,
    /// Of a request that is sent again: whether its effect was found.
    done: Option<bool>,
}

pub(crate) struct Writer {
    name: String,
    token: String,
    /// Of channels that are there for good and have publishers.
    operator: bool,
    random: Random,
    serial: u64,
    channels: Vec<Known>,
    deleted: BTreeSet<String>,
    tokens: BTreeMap<String, String>,
    /// Sessions that it ended.
    ended: BTreeSet<String>,
    /// Requests that were answered since the last kill.
    answered: Vec<String>,
    /// The request that got no answer, and then the one to send again.
    doubt: Option<Request>,
    pub(crate) tally: Tally,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    pub(crate) unanswered: u64,
    /// Of those without an answer.
    pub(crate) done: u64,
    pub(crate) replayed: u64,
}

/// Why a writer stops.
struct Killed;

impl Writer {
    pub(crate) fn new(name: &str, token: &str, seed: u64) -> Writer {
        Writer {
            name: name.to_owned(),
            token: token.to_owned(),
            operator: false,
            random: Random(seed),
            serial: 0,
            channels: Vec::new(),
            deleted: BTreeSet::new(),
            tokens: BTreeMap::new(),
            ended: BTreeSet::new(),
            answered: Vec::new(),
            doubt: None,
            tally: Tally::default(),
        }
    }

    /// The operator of channels that are there.
    pub(crate) fn operator(name: &str, token: &str, seed: u64, to: SocketAddr, channels: &[&str]) -> Writer {
        let mut writer = Writer { operator: true, ..Writer::new(name, token, seed) };
        for channel in channels {
            let shown = writer.get(to, &format!("/v1/channels/{channel}")).ok().expect("nothing was killed yet");
            writer.channels.push(known(&shown.json()));
        }
        writer
    }

    /// Until the daemon is killed.
    pub(crate) fn run(&mut self, to: SocketAddr) {
        if self.look_around(to).is_ok() {
            while self.act(to).is_ok() {}
        }
    }

    fn act(&mut self, to: SocketAddr) -> Result<(), Killed> {
        if let Some(request) = self.doubt.take() {
            return self.send(to, request);
        }
        if self.operator {
            std::thread::sleep(Duration::from_millis(100 + self.random.next() % 300));
        }
        let op = if self.operator { self.operate(to)? } else { Some(self.choose()) };
        let Some(op) = op else { return Ok(()) };
        self.serial += 1;
        let request = Request { op, key: format!("{}-{}", self.name, self.serial), done: None };
        self.send(to, request)
    }

    /// What the API shows after a restart is what was answered before it.
    fn look_around(&mut self, to: SocketAddr) -> Result<(), Killed> {
        for at in 0..self.channels.len() {
            let one = self.channels[at].clone();
            let shown = self.get(to, &format!("/v1/channels/{}", one.name))?;
            assert_eq!(shown.status, 200, "{one:?}: {}", shown.text());
            assert_eq!(known(&shown.json()), one);
        }
        if let Some(id) = self.deleted.iter().next_back() {
            assert_eq!(self.get(to, &format!("/v1/channels/{id}"))?.status, 404, "{id} was deleted");
        }
        if let Some(id) = self.ended.iter().next_back() {
            assert_eq!(self.get(to, &format!("/v1/sessions/{id}"))?.json()["state"], "ended", "{id}");
        }
        Ok(())
    }

    fn choose(&mut self) -> Op {
        let seconds = 60 + self.random.next() % 3_600;
        let channel = self.random.below(self.channels.len());
        let name = format!("{}-{}", self.name, self.serial);
        match self.random.below(100) {
            0..20 if self.channels.len() < 12 => Op::Create { name, seconds },
            _ if self.channels.is_empty() => Op::Create { name, seconds },
            0..50 => Op::Patch { channel, seconds },
            50..75 if self.channels[channel].stopped => Op::Start { channel },
            50..75 => Op::Stop { channel },
            75..80 => Op::Rotate { channel },
            80..88 => Op::Delete { channel },
            88..94 => match self.tokens.keys().next().cloned() {
                Some(name) => Op::DropToken { name },
                None => Op::MakeToken { name: format!("{name} token") },
            },
            _ => Op::MakeToken { name: format!("{name} token") },
        }
    }

    /// Mostly the channels stay up: publishers are to have something to do.
    fn operate(&mut self, to: SocketAddr) -> Result<Option<Op>, Killed> {
        if let Some(channel) = self.channels.iter().position(|c| c.stopped) {
            return Ok(Some(Op::Start { channel }));
        }
        let channel = self.random.below(self.channels.len());
        Ok(match self.random.below(12) {
            0 => Some(Op::Stop { channel }),
            1 => {
                let shown = self.get(to, &format!("/v1/channels/{}", self.channels[channel].name))?.json();
                shown["session"].as_str().map(|id| Op::EndSession { id: id.to_owned() })
            }
            2..6 => Some(Op::Patch { channel, seconds: 3_600 + self.random.next() % 3_600 }),
            _ => None,
        })
    }

    // ── over the wire ───────────────────────────────────────────────────────────────────────────────────────────────

    fn get(&self, to: SocketAddr, path: &str) -> Result<Reply, Killed> {
        self.ask(to, "GET", path, &[], &Value::Null)
    }

    /// Asks again where it asked too often.
    fn ask(
        &self,
        to: SocketAddr,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &Value,
    ) -> Result<Reply, Killed> {
        for _ in 0..200 {
            let reply = api::ask(to, &self.token, method, path, more, body).filter(Reply::is_whole).ok_or(Killed)?;
            if reply.status != 429 {
                return Ok(reply);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{method} {path} is refused for 10 s");
    }

    fn send(&mut self, to: SocketAddr, request: Request) -> Result<(), Killed> {
        let (method, path, body) = self.wire(&request.op);
        let key = [("Idempotency-Key", request.key.as_str())];
        let asked = self.ask(to, method, &path, if method == "POST" { &key } else { &[] }, &body);
        let Ok(reply) = asked else {
            self.tally.unanswered += 1;
            self.doubt = Some(request);
            return Err(Killed);
        };
        let op = &request.op;
        assert!((200..300).contains(&reply.status), "{op:?}: {} {}", reply.status, reply.text());
        let replayed = reply.header("idempotency-replayed") == Some("true");
        let shown = if reply.body.is_empty() { Value::Null } else { reply.json() };
        self.tally.answered += 1;
        self.tally.replayed += u64::from(replayed);
        match (op, request.done) {
            // The session may have ended for another reason.
            (Op::EndSession { .. }, Some(_)) => {}
            (_, done) => assert_eq!(replayed, done.unwrap_or(false), "{op:?}, found {done:?}: {shown}"),
        }
        if !replayed {
            self.answered.push(reply.header("x-request-id").expect("each answer has one").to_owned());
        }
        if request.done != Some(true) {
            self.took_effect(op, shown["id"].as_str().unwrap_or_default());
        }
        self.agrees(op, &shown);
        Ok(())
    }

    fn wire(&self, op: &Op) -> (&'static str, String, Value) {
        let path = |channel: &usize, what: &str| format!("/v1/channels/{}{what}", self.channels[*channel].name);
        match op {
            Op::Create { name, seconds } => {
                ("POST", "/v1/channels".into(), json!({ "name": name, "max_duration_s": seconds }))
            }
            Op::Patch { channel, seconds } => ("PATCH", path(channel, ""), json!({ "max_duration_s": seconds })),
            Op::Stop { channel } => ("POST", path(channel, "/stop"), Value::Null),
            Op::Start { channel } => ("POST", path(channel, "/start"), Value::Null),
            Op::Rotate { channel } => ("POST", path(channel, "/rotate-key"), Value::Null),
            Op::Delete { channel } => ("DELETE", path(channel, ""), Value::Null),
            Op::MakeToken { name } => {
                ("POST", "/v1/tokens".into(), json!({ "name": name, "scopes": ["channels:read"] }))
            }
            Op::DropToken { name } => ("DELETE", format!("/v1/tokens/{}", self.tokens[name]), Value::Null),
            Op::EndSession { id } => ("POST", format!("/v1/sessions/{id}/end"), Value::Null),
        }
    }

    /// The answer shows what the request was for.
    fn agrees(&self, op: &Op, shown: &Value) {
        let channel = match op {
            Op::Patch { channel, .. } | Op::Stop { channel } | Op::Start { channel } | Op::Rotate { channel } => {
                &self.channels[*channel]
            }
            Op::Create { .. } => self.channels.last().expect("just made"),
            Op::EndSession { .. } => return assert_eq!(shown["state"], "ended"),
            Op::Delete { .. } | Op::MakeToken { .. } | Op::DropToken { .. } => return,
        };
        assert_eq!(known(shown), *channel, "{op:?}");
    }

    /// `id`: of what was made.
    fn took_effect(&mut self, op: &Op, id: &str) {
        match op.clone() {
            Op::Create { name, seconds } => {
                self.channels.push(Known { name, id: id.to_owned(), revision: 1, seconds, stopped: false });
            }
            Op::Patch { channel, seconds } => {
                let one = &mut self.channels[channel];
                one.revision += u64::from(one.seconds != seconds);
                one.seconds = seconds;
            }
            Op::Stop { channel } => self.channels[channel].stopped = true,
            Op::Start { channel } => self.channels[channel].stopped = false,
            Op::Rotate { channel } => self.channels[channel].revision += 1,
            Op::Delete { channel } => drop(self.deleted.insert(self.channels.remove(channel).id)),
            Op::MakeToken { name } => drop(self.tokens.insert(name, id.to_owned())),
            Op::DropToken { name } => drop(self.tokens.remove(&name)),
            Op::EndSession { id } => drop(self.ended.insert(id)),
        }
    }

    // ── after a kill ────────────────────────────────────────────────────────────────────────────────────────────────

    /// The folder holds all that was answered, and of the request without an answer all or nothing.
    pub(crate) fn settle(&mut self, found: &Found, book: &Book) -> Result<(), String> {
        for request_id in self.answered.drain(..) {
            book.was_done(&request_id)?;
        }
        if let Some(mut request) = self.doubt.take() {
            // Found done before, it was only asked again.
            let effect = if request.done == Some(true) { None } else { self.effect(&request.op, found) };
            if let Some(id) = &effect {
                self.tally.done += 1;
                self.took_effect(&request.op, id);
            }
            request.done = Some(effect.is_some() || request.done == Some(true));
            // Without a key it is not sent again: that would be another one.
            self.doubt = Some(request).filter(|r| self.wire_is_keyed(&r.op));
        }
        self.all_there(found).map_err(|what| format!("{}: {what}", self.name))
    }

    fn wire_is_keyed(&self, op: &Op) -> bool {
        !matches!(op, Op::Patch { .. } | Op::Delete { .. } | Op::DropToken { .. })
    }

    /// The id of what a request was about, if its effect is there.
    fn effect(&self, op: &Op, found: &Found) -> Option<String> {
        let record = |channel: &usize| {
            let id = self.channels[*channel].id.parse().expect("an id");
            found.channels.get(&id).map(|record| (&self.channels[*channel], record))
        };
        let stopped = |channel: &usize, wanted: bool| {
            record(channel).filter(|(_, record)| (record.state == ChannelState::Stop) == wanted).map(|(one, _)| one)
        };
        match op {
            Op::Create { name, .. } => found.names.get(name).map(ToString::to_string),
            Op::Patch { channel, .. } | Op::Rotate { channel } => {
                record(channel).filter(|(one, record)| record.revision > one.revision).map(|(one, _)| one.id.clone())
            }
            Op::Stop { channel } => stopped(channel, true).map(|one| one.id.clone()),
            Op::Start { channel } => stopped(channel, false).map(|one| one.id.clone()),
            Op::Delete { channel } => {
                let gone = record(channel).filter(|(_, record)| record.state == ChannelState::Deleted);
                gone.map(|(one, _)| one.id.clone())
            }
            Op::MakeToken { name } => found.tokens.get(name).cloned(),
            Op::DropToken { name } => (!found.tokens.contains_key(name)).then(String::new),
            Op::EndSession { id } => {
                let session = found.sessions.get(&id.parse().expect("an id"))?;
                (session.state == SessionState::Ended).then(String::new)
            }
        }
    }

    fn all_there(&self, found: &Found) -> Result<(), String> {
        for one in &self.channels {
            let record = one.id.parse().ok().and_then(|id| found.channels.get(&id));
            let kept = record.filter(|r| r.state != ChannelState::Deleted).map(of_record);
            if kept.as_ref() != Some(one) {
                return Err(format!("{one:?} was acknowledged, found is {kept:?}"));
            }
        }
        for id in &self.deleted {
            let record = id.parse().ok().and_then(|id| found.channels.get(&id));
            if record.is_none_or(|r| r.state != ChannelState::Deleted) {
                return Err(format!("{id} was deleted, found is {record:?}"));
            }
        }
        for id in &self.ended {
            let session = id.parse().ok().and_then(|id| found.sessions.get(&id));
            if session.is_none_or(|s| s.state != SessionState::Ended) {
                return Err(format!("{id} was ended, found is {session:?}"));
            }
        }
        let own = format!("{}-", self.name);
        let names: Vec<&String> = found.names.keys().filter(|name| name.starts_with(&own)).collect();
        if !self.operator && names.len() != self.channels.len() {
            return Err(format!("{names:?} are there, {} were made", self.channels.len()));
        }
        let tokens = found.tokens.iter().filter(|(name, _)| name.starts_with(&own));
        let tokens: BTreeMap<String, String> = tokens.map(|(name, id)| (name.clone(), id.clone())).collect();
        if tokens != self.tokens {
            return Err(format!("tokens {:?} were acknowledged, found are {tokens:?}", self.tokens));
        }
        Ok(())
    }
}

fn known(shown: &Value) -> Known {
    let text = |member: &str| shown[member].as_str().unwrap_or_default().to_owned();
    let number = |member: &str| shown[member].as_u64().unwrap_or_default();
    let stopped = shown["state"] == "stop";
    Known {
        name: text("name"),
        id: text("id"),
        revision: number("revision"),
        seconds: number("max_duration_s"),
        stopped,
    }
}

fn of_record(record: &ChannelRecord) -> Known {
    Known {
        name: record.config.name.to_string(),
        id: record.id.to_string(),
        revision: record.revision,
        seconds: u64::from(record.config.profile.max_duration_s),
        stopped: record.state == ChannelState::Stop,
    }
}

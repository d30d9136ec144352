//! Events as they happen.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rung::control::api::Options as ApiOptions;
use rung::control::ledger;
use rung::control::lifecycle::{Command, Input};
use rung::control::state::Need;
use rung::serve::Options;
use rung::serve::connection::Patience;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Lines, Rig, at_once, open_doors, raw, wait};

#[test]
fn events_are_replayed_from_the_last_seen_one_and_then_follow() {
    let rig = Rig::new();
    rig.make_channel("a");
    rig.make_channel("b");
    let mut all = rig.events(&rig.token, "", Some(0));
    let (first, second) = (all.event().unwrap(), all.event().unwrap());
    assert_eq!((&first["seq"], &first["type"]), (&json!(1), &json!("channel.created")));
    assert_eq!(second["seq"], 2);
    let mut from_now = rig.events(&rig.token, "", None);
    let mut stops_of_b = rig.events(&rig.token, "?types=channel.stopped&channel=b", Some(0));
    rig.post("/v1/channels/a/stop", Value::Null);
    rig.post("/v1/channels/b/stop", Value::Null);
    assert_eq!(all.event().unwrap()["seq"], 3);
    assert_eq!(from_now.event().unwrap()["seq"], 3);
    let only = stops_of_b.event().unwrap();
    assert_eq!((&only["seq"], &only["type"]), (&json!(4), &json!("channel.stopped")));
    let mut resumed = rig.events(&rig.token, "", Some(3));
    assert_eq!(resumed.event().unwrap()["seq"], 4);
    let mut from_another_box = rig.events(&rig.token, "", Some(1_000_000));
    rig.post("/v1/channels/b/start", Value::Null);
    assert_eq!(from_another_box.event().unwrap()["seq"], 5);
    let bearer = format!("Bearer {}", rig.token);
    let headers = [("Authorization", bearer.as_str()), ("Last-Event-ID", "x")];
    assert_eq!(raw(rig.address, "GET", "/v1/events/stream", &headers, b"").code(), "header_invalid");
}

#[test]
fn a_quiet_stream_says_that_it_lives_and_ends_with_its_token() {
    let options = ApiOptions { heartbeat: Duration::from_millis(100), streams_max: 2, ..open_doors() };
    let rig = Rig::with(options, Options::default(), at_once());
    rig.make_channel("mine");
    rig.make_channel("theirs");
    let token = rig.make_token(json!({ "name": "t", "scopes": ["sessions:read"], "channels": ["mine"] }));
    let mut quiet = rig.events(&token, "", None);
    rig.post("/v1/channels/theirs/stop", Value::Null);
    rig.post("/v1/channels/mine/stop", Value::Null);
    assert_eq!(quiet.event().unwrap()["seq"], 4, "what the token does not reach is passed over");
    while quiet.line().unwrap() != ": still here" {}
    let _second = rig.events(&rig.token, "", None);
    let third = rig.get("/v1/events/stream");
    assert_eq!((third.status, third.code().as_str()), (503, "overloaded"));
    assert_eq!(rig.get("/v1/system").json()["event_streams"], 2);
    rig.ask("DELETE", "/v1/tokens/t", Value::Null);
    while quiet.line().is_some() {}
    wait("a free place", || (rig.get("/v1/system").json()["event_streams"] == 1).then_some(()));
}

#[test]
fn every_event_comes_once_while_many_are_written() {
    const WRITERS: usize = 4;
    const EACH: usize = 150;
    let rig = Rig::new();
    let mut all = rig.events(&rig.token, "", Some(0));
    std::thread::scope(|scope| {
        for n in 0..WRITERS {
            let rig = &rig;
            scope.spawn(move || {
                let channel = format!("c{n}");
                rig.make_channel(&channel);
                for _ in 0..EACH {
                    rig.post(&format!("/v1/channels/{channel}/stop"), Value::Null);
                    rig.post(&format!("/v1/channels/{channel}/start"), Value::Null);
                }
            });
        }
        for seq in 1..=WRITERS * (1 + 2 * EACH) {
            assert_eq!(all.event().unwrap()["seq"], seq);
        }
    });
}

/// Makes `count` events of about 700 bytes each, a hundred in a transaction.
fn many_events(rig: &Rig, channel: &str, count: usize) {
    let id = ledger_id(rig, channel);
    for batch in 0..count / 100 {
        let made = rig.runtime().block_on(rig.ledger().submit(Need::Ordinary, move |txn, now| {
            let mut changes = Vec::new();
            for n in 0..100 {
                let seconds = 60 + (batch * 100 + n) % 1_000;
                let patch = json!({ "max_duration_s": seconds });
                let command = Command::Update { patch, if_match: None };
                changes.push(ledger::step(txn, id, &Input::Command(command), now)?);
            }
            Ok::<_, ledger::Failure>((changes, ()))
        }));
        made.unwrap();
    }
}

fn ledger_id(rig: &Rig, channel: &str) -> rung::control::record::ChannelId {
    rig.get(&format!("/v1/channels/{channel}")).json()["id"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_thousand_clients_hear_of_an_event_and_one_that_does_not_read_costs_nobody() {
    const CLIENTS: usize = 1_000;
    /// More than the sockets of one connection hold.
    const EVENTS: usize = 8_000;
    // Both ends of each connection are in this process.
    rustix::process::setrlimit(rustix::process::Resource::Nofile, {
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        rustix::process::Rlimit { current: hard, maximum: hard }
    })
    .unwrap();
    let patience = Patience { write_stall: Duration::from_secs(3), ..Patience::default() };
    let rig = Rig::with(open_doors(), Options { patience, ..Options::default() }, at_once());
    rig.make_channel("busy");
    rig.make_channel("quiet");
    many_events(&rig, "busy", EVENTS);

    // It asks for everything and reads nothing.
    let slow = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    slow.set_recv_buffer_size(4_096).unwrap();
    slow.connect(&rig.address.into()).unwrap();
    let mut slow: TcpStream = slow.into();
    let request = format!(
        "GET /v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nLast-Event-ID: 0\r\n\r\n",
        rig.token
    );
    slow.write_all(request.as_bytes()).unwrap();
    wait("the slow one's stream", || (rig.get("/v1/system").json()["event_streams"] == 1).then_some(()));
    wait("a stalled write", || (rig.server().held_bytes() > 0).then_some(()));
    assert!(rig.server().held_bytes() < 1 << 20, "{} bytes are held for it", rig.server().held_bytes());

    let (address, token) = (rig.address, rig.token.clone());
    let heard = rig.runtime().block_on(async {
        let ready = std::sync::Arc::new(tokio::sync::Barrier::new(CLIENTS + 1));
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..CLIENTS {
            let (token, ready) = (token.clone(), std::sync::Arc::clone(&ready));
            clients.spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                let request = format!(
                    "GET /v1/events/stream?types=channel.stopped HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).await.unwrap();
                read_until(&mut stream, "retry:").await;
                ready.wait().await;
                read_until(&mut stream, "\"type\":\"channel.stopped\"").await
            });
        }
        ready.wait().await;
        let begun = Instant::now();
        let stopping = tokio::task::spawn_blocking({
            let (token, address) = (token.clone(), address);
            move || {
                let bearer = format!("Bearer {token}");
                raw(address, "POST", "/v1/channels/quiet/stop", &[("Authorization", &bearer)], b"").status
            }
        });
        assert_eq!(stopping.await.unwrap(), 200);
        let all = async { while clients.join_next().await.is_some_and(|heard| heard.is_ok()) {} };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("everybody hears of it");
        assert!(clients.is_empty(), "everybody heard of it");
        begun.elapsed()
    });
    eprintln!("{CLIENTS} clients heard within {} ms", heard.as_millis());
    // Who takes nothing is closed; its place is free again.
    wait("the slow one's end", || (rig.get("/v1/system").json()["event_streams"] == 0).then_some(()));
    let mut rest = Vec::new();
    slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    drop(slow.read_to_end(&mut rest));
    assert!(rest.len() < EVENTS * 600, "it did not get everything: {}", rest.len());
}

#[test]
fn every_event_comes_once_to_who_keeps_up_and_to_who_begins_far_behind() {
    let rig = Rig::new();
    rig.make_channel("busy");
    rig.make_channel("quiet");
    let mut from_now = rig.events(&rig.token, "?channel=busy", None);
    many_events(&rig, "busy", 1_000);
    let mut from_the_first = rig.events(&rig.token, "", Some(0));
    rig.post("/v1/channels/quiet/stop", Value::Null);
    rig.post("/v1/channels/busy/stop", Value::Null);
    let numbers = |lines: &mut Lines| {
        let mut seen = Vec::new();
        while seen.last() != Some(&1_004) {
            seen.push(lines.event().unwrap()["seq"].as_u64().unwrap());
        }
        seen
    };
    assert_eq!(numbers(&mut from_the_first), (1..=1_004).collect::<Vec<_>>());
    let of_busy = numbers(&mut from_now);
    assert_eq!(of_busy, (3..=1_002).chain([1_004]).collect::<Vec<_>>());
}

async fn read_until(stream: &mut tokio::net::TcpStream, what: &str) {
    let (mut text, mut piece) = (String::new(), [0; 4_096]);
    while !text.contains(what) {
        let n = stream.read(&mut piece).await.unwrap();
        assert!(n > 0, "the stream ended before {what}: {text}");
        text.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
}

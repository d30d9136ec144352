//! Lists: pages, cursors, filters, sizes.

use std::collections::BTreeSet;
use std::time::Instant;

use rung::control::ledger::{CHANNELS, NAMES};
use rung::control::record::{ChannelConfig, ChannelId, ChannelRecord, PlaybackId, Utc};
use rung::control::state::{Error, Need, Ulid};
use rung::media::channel::ChannelName;
use serde_json::{Value, json};

use crate::support::Rig;

/// Walks a list to its end; its items and how many pages they came in.
fn walk(rig: &Rig, path: &str, limit: usize) -> (Vec<Value>, usize) {
    let (mut items, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    let join = if path.contains('?') { '&' } else { '?' };
    loop {
        let page = rig.get(&format!("{path}{join}limit={limit}{cursor}")).json();
        let new = page["items"].as_array().unwrap();
        assert!(new.len() <= limit);
        items.extend(new.iter().cloned());
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (items, pages),
        }
    }
}

fn texts(items: &[Value], field: &str) -> Vec<String> {
    items.iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pages_follow_each_other_newest_first_whatever_comes_between() {
    let rig = Rig::new();
    for n in 0..7 {
        rig.make_channel(&format!("c{n}"));
        // Another millisecond, so that the order is that of the ids.
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let (items, pages) = walk(&rig, "/v1/channels", 3);
    assert_eq!(
        (texts(&items, "name"), pages),
        (["c6", "c5", "c4", "c3", "c2", "c1", "c0"].map(String::from).to_vec(), 3)
    );
    let first = rig.get("/v1/channels?limit=3").json();
    rig.make_channel("newer");
    rig.ask("DELETE", "/v1/channels/c3", Value::Null);
    let next = first["next"].as_str().unwrap();
    let second = rig.get(&format!("/v1/channels?limit=3&cursor={next}")).json();
    assert_eq!(texts(second["items"].as_array().unwrap(), "name"), ["c2", "c1", "c0"]);
    assert_eq!(second["next"], Value::Null);
}

#[test]
fn a_cursor_serves_its_own_list_and_filter_only() {
    let rig = Rig::new();
    for n in 0..3 {
        rig.make_channel(&format!("c{n}"));
    }
    let next = rig.get("/v1/channels?limit=1&state=idle").json()["next"].as_str().unwrap().to_owned();
    assert_eq!(rig.get(&format!("/v1/channels?state=idle&cursor={next}")).status, 200);
    let mut bent = next.clone().into_bytes();
    let last = bent.len() - 1;
    bent[last] = if bent[last] == b'0' { b'1' } else { b'0' };
    let bent = String::from_utf8(bent).unwrap();
    for path in [
        format!("/v1/channels?cursor={next}"),
        format!("/v1/channels?state=stop&cursor={next}"),
        format!("/v1/sessions?state=error&cursor={next}"),
        format!("/v1/events?cursor={next}"),
        format!("/v1/channels?state=idle&cursor={bent}"),
        format!("/v1/channels?state=idle&cursor={}", &next[1..]),
        "/v1/channels?state=idle&cursor=%F0%9F%98%80".to_owned(),
    ] {
        assert_eq!(rig.get(&path).code(), "cursor_invalid", "{path}");
    }
    let rig = rig.restarted();
    assert_eq!(rig.get(&format!("/v1/channels?state=idle&cursor={next}")).status, 200, "after a restart, too");
}

#[test]
fn sessions_and_events_are_listed_and_filtered() {
    let rig = Rig::new();
    let mut made = Vec::new();
    for name in ["a", "b"] {
        rig.make_channel(name);
    }
    for round in 0..3 {
        for name in ["a", "b"] {
            let session = rig.go_live(name);
            if round < 2 || name == "a" {
                rig.post(&format!("/v1/sessions/{session}/end"), Value::Null);
            }
            made.push((name, session));
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
    made.reverse();
    let ids = |of: Option<&str>| -> Vec<String> {
        made.iter().filter(|(name, _)| of.is_none_or(|of| of == *name)).map(|(_, id)| id.clone()).collect()
    };
    assert_eq!(texts(&walk(&rig, "/v1/sessions", 2).0, "id"), ids(None));
    assert_eq!(texts(&walk(&rig, "/v1/channels/a/sessions", 2).0, "id"), ids(Some("a")));
    assert_eq!(texts(&walk(&rig, "/v1/sessions?channel=b", 1).0, "id"), ids(Some("b")));
    assert_eq!(texts(&walk(&rig, "/v1/sessions?state=init", 2).0, "id"), [made[0].1.clone()]);

    assert_eq!(texts(&walk(&rig, "/v1/sessions?state=ended", 2).0, "id"), ids(None)[1..]);
    let limited =
        rig.make_token(json!({ "name": "b-only", "scopes": ["channels:read", "sessions:read"], "channels": ["b"] }));
    let seen = |path: &str| {
        texts(rig.ask_as(&limited, "GET", path, &[], Value::Null).json()["items"].as_array().unwrap(), "id")
    };
    assert_eq!(
        (seen("/v1/sessions"), seen("/v1/sessions?state=ended")),
        (ids(Some("b")), ids(Some("b"))[1..].to_vec())
    );
    assert_eq!(seen("/v1/channels"), [rig.get("/v1/channels/b").json()["id"].as_str().unwrap()]);

    let (events, _) = walk(&rig, "/v1/events", 7);
    let numbers: Vec<u64> = events.iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=events.len() as u64).rev().collect::<Vec<_>>());
    let (ended, _) = walk(&rig, "/v1/events?types=session.ended,channel.created&channel=a", 2);
    assert_eq!(texts(&ended, "type"), ["session.ended", "session.ended", "session.ended", "channel.created"]);
    assert!(!events.iter().any(|e| e["type"] == "session.ended" && e["data"]["reason"] != "user_stop"));
}

#[test]
fn ten_thousand_channels_are_listed() {
    let rig = Rig::new();
    let mut ids = BTreeSet::new();
    for thousand in 0..10u128 {
        let rows: Vec<ChannelRecord> = (0..1_000u128).map(|n| record(thousand * 1_000 + n)).collect();
        ids.extend(rows.iter().map(|row| row.id.to_string()));
        let written = rig.ledger().state().control.write(Need::Ordinary, move |txn| {
            for row in &rows {
                txn.put(&CHANNELS, &row.id.0, row)?;
                txn.put(&NAMES, &row.config.name.as_str().to_owned(), &row.id)?;
            }
            Ok::<_, Error>(())
        });
        written.wait().unwrap();
    }
    let begun = Instant::now();
    let (items, pages) = walk(&rig, "/v1/channels", 200);
    eprintln!("10,000 channels in {pages} pages: {} ms", begun.elapsed().as_millis());
    assert_eq!(texts(&items, "id").into_iter().collect::<BTreeSet<_>>(), ids);
    assert!(texts(&items, "id").is_sorted_by(|a, b| a > b) && pages == 50);
    let hundred = |path: &str| {
        let begun = Instant::now();
        (0..100).for_each(|_| assert_eq!(rig.get(path).status, 200));
        begun.elapsed()
    };
    let (one, page) = (hundred("/v1/channels/channel-0"), hundred("/v1/channels?limit=1"));
    assert!(
        page < one * 3,
        "a page costs what it shows: {page:?} for a hundred of one channel, {one:?} without a list"
    );
    assert_eq!(rig.post("/v1/channels", json!({ "name": "one-more" })).status, 201, "and one more is made beside them");
}

fn record(n: u128) -> ChannelRecord {
    let config = ChannelConfig::new(ChannelName::new(&format!("channel-{n}")).unwrap());
    ChannelRecord::new(ChannelId(Ulid(n << 80 | n)), config, PlaybackId(Ulid(n)), Vec::new(), Utc::default())
}

//! Repeated requests: one effect, one answer, and no secret in the store.

use rung::serve::Options;
use serde_json::{Value, json};

use crate::support::{Reply, Rig, at_once, open_doors, wait};

fn keyed(rig: &Rig, path: &str, key: &str, body: Value) -> Reply {
    rig.ask_with("POST", path, &[("Idempotency-Key", key)], body)
}

#[test]
fn a_repeated_key_gets_the_first_answer_and_another_request_is_refused() {
    let rig = Rig::new();
    let first = keyed(&rig, "/v1/channels", "k1", json!({ "name": "news" }));
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, None));
    let again = keyed(&rig, "/v1/channels", "k1", json!({ "name": "news" }));
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")));
    assert_eq!(again.json(), first.json(), "its secret is the same, too");
    assert_eq!((again.header("etag"), again.header("location")), (first.header("etag"), first.header("location")));
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));

    let other = keyed(&rig, "/v1/channels", "k1", json!({ "name": "sport" }));
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency_mismatch"));
    let elsewhere = keyed(&rig, "/v1/channels/news/stop", "k1", Value::Null);
    assert_eq!(elsewhere.code(), "idempotency_mismatch");
    let refused = keyed(&rig, "/v1/channels", "k2", json!({ "name": "news" }));
    assert_eq!(refused.code(), "name_taken");
    assert_eq!(rig.ask("DELETE", "/v1/channels/news", Value::Null).status, 204);
    assert_eq!(keyed(&rig, "/v1/channels", "k2", json!({ "name": "news" })).status, 201, "a refusal is not kept");

    let stopped = keyed(&rig, "/v1/channels/news/stop", "k3", Value::Null).json();
    assert_eq!(rig.post("/v1/channels/news/start", Value::Null).status, 200);
    assert_eq!(keyed(&rig, "/v1/channels/news/stop", "k3", Value::Null).json(), stopped);
    assert_eq!(rig.get("/v1/channels/news").json()["state"], "idle", "it was not stopped again");
}

#[test]
fn keys_belong_to_their_token() {
    let rig = Rig::new();
    let other = rig.make_token(json!({ "name": "other", "scopes": ["channels:write"] }));
    assert_eq!(keyed(&rig, "/v1/channels", "same", json!({ "name": "a" })).status, 201);
    let key = [("Idempotency-Key", "same")];
    assert_eq!(rig.ask_as(&other, "POST", "/v1/channels", &key, json!({ "name": "b" })).status, 201);
    for bad in ["", &"x".repeat(256), "a\tb"] {
        let reply = rig.ask_as(&other, "POST", "/v1/channels", &[("Idempotency-Key", bad)], json!({ "name": "c" }));
        assert_eq!((reply.status, reply.code().as_str()), (400, "header_invalid"), "{bad:?}");
    }
}

#[test]
fn twins_at_the_same_time_make_one_channel() {
    let rig = Rig::new();
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let twins: Vec<_> =
            (0..16).map(|_| scope.spawn(|| keyed(&rig, "/v1/channels", "twin", json!({ "name": "news" })))).collect();
        twins.into_iter().map(|twin| twin.join().unwrap()).collect()
    });
    let made: Vec<Value> = replies.iter().filter(|r| r.status == 201).map(Reply::json).collect();
    assert!(!made.is_empty() && made.iter().all(|one| *one == made[0]));
    for reply in replies.iter().filter(|r| r.status != 201) {
        assert_eq!((reply.code().as_str(), reply.header("retry-after")), ("idempotency_running", Some("1")));
    }
    let events = rig.get("/v1/events?types=channel.created").json();
    assert_eq!(events["items"].as_array().unwrap().len(), 1);
}

#[test]
fn a_request_that_still_waits_holds_its_key() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let settled = std::sync::Arc::new(AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&settled);
    let rig = Rig::with(open_doors(), Options::default(), std::sync::Arc::new(move |_| flag.load(Ordering::Acquire)));
    rig.make_channel("news");
    let headers = [("Idempotency-Key", "slow"), ("Prefer", "wait=20")];
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| rig.ask_with("POST", "/v1/channels/news/stop", &headers, Value::Null));
        wait("the stop", || (rig.get("/v1/channels/news").json()["state"] == "stop").then_some(()));
        assert_eq!(keyed(&rig, "/v1/channels/news/stop", "slow", Value::Null).code(), "idempotency_running");
        settled.store(true, Ordering::Release);
        assert_eq!(waiter.join().unwrap().status, 200);
    });
    let replayed = keyed(&rig, "/v1/channels/news/stop", "slow", Value::Null);
    assert_eq!((replayed.status, replayed.header("idempotency-replayed")), (200, Some("true")));
}

#[test]
fn answers_outlive_the_process_and_the_store_holds_no_secret() {
    let rig = Rig::new();
    let channel = keyed(&rig, "/v1/channels", "c", json!({ "name": "news" })).json();
    let rotated = keyed(&rig, "/v1/channels/news/rotate-key", "r", json!({ "grace_s": 60 })).json();
    let token = keyed(&rig, "/v1/tokens", "t", json!({ "name": "ci", "scopes": ["channels:read"] })).json();
    let unkeyed = rig.make_token(json!({ "name": "plain", "scopes": ["channels:read"] }));
    let rig = rig.restarted();
    assert_eq!(keyed(&rig, "/v1/channels", "c", json!({ "name": "news" })).json(), channel);
    assert_eq!(keyed(&rig, "/v1/channels/news/rotate-key", "r", json!({ "grace_s": 60 })).json(), rotated);
    let again = keyed(&rig, "/v1/tokens", "t", json!({ "name": "ci", "scopes": ["channels:read"] })).json();
    assert_eq!(again, token);
    let secret = token["secret"].as_str().unwrap();
    assert_eq!(rig.ask_as(secret, "GET", "/v1/channels", &[], Value::Null).status, 200);

    let mut text = Vec::new();
    assert!(rig.ledger().state().export(&mut text).unwrap().is_empty());
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("idem") && text.contains("audit"), "the export holds what it should");
    let secrets = [&channel["stream_key"], &rotated["stream_key"], &token["secret"]].map(|v| v.as_str().unwrap());
    for secret in secrets.into_iter().chain([unkeyed.as_str(), rig.token.as_str()]) {
        let bare = secret.trim_start_matches("rk_");
        assert!(!text.contains(bare), "{secret} is in the store");
    }
}

#[test]
fn what_fails_leaves_nothing_behind() {
    let rig = Rig::with(open_doors(), Options::default(), at_once());
    rig.make_channel("news");
    let before = rig.get("/v1/audit").json()["items"].as_array().unwrap().len();
    for _ in 0..3 {
        assert_eq!(keyed(&rig, "/v1/channels", "x", json!({ "name": "news" })).code(), "name_taken");
    }
    let events = rig.get("/v1/events").json()["items"].as_array().unwrap().len();
    assert_eq!(events, 1);
    let audit = wait("the refusals", || {
        let audit = rig.get("/v1/audit").json()["items"].as_array().unwrap().clone();
        (audit.len() == before + 3).then_some(audit)
    });
    assert!(audit[..3].iter().all(|row| row["code"] == "name_taken" && row["status"] == 409));
}

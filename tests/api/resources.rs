//! Every resource, its life and its problems.

use rung::control::lifecycle::Effect;
use rung::serve::Options;
use serde_json::{Value, json};

use crate::support::{Rig, SNAPSHOT, at_once, open_doors, raw, wait};

#[test]
fn a_channel_is_made_shown_changed_and_deleted() {
    let rig = Rig::new();
    let made = rig.post("/v1/channels", json!({ "name": "news", "mode": "low" }));
    assert_eq!((made.status, made.header("etag")), (201, Some("\"1\"")), "{}", made.text());
    let channel = made.json();
    let id = channel["id"].as_str().unwrap();
    assert_eq!(made.header("location"), Some(format!("/v1/channels/{id}").as_str()));
    let key = channel["stream_key"].as_str().unwrap();
    assert!(rung::media::key::is_publish_key(key));
    assert_eq!(channel["stream_keys"][0]["prefix"], key[..4]);
    assert_eq!(channel["inputs"][0]["url"], "srt://box.example:9000?streamid=news/KEY");
    assert_eq!(channel["inputs"][1]["url_long"], "srt://box.example:9000?streamid=%23!::r=news,k=KEY,m=publish,leg=b");
    let playback = json!({ "playlist": "/live/news/index.m3u8", "poster": "/live/news/poster.jpg",
        "storyboard": "/live/news/storyboard.vtt", "watch": "/watch/news" });
    assert_eq!(channel["playback"], playback);

    for name in ["news", id] {
        let shown = rig.get(&format!("/v1/channels/{name}"));
        assert_eq!((shown.status, shown.header("etag")), (200, Some("\"1\"")));
        assert!(shown.json().get("stream_key").is_none() && !shown.text().contains(key));
    }
    let changed = rig.ask("PATCH", "/v1/channels/news", json!({ "mode": "ultra", "takeover": "newest" }));
    let applied = &changed.json()["applied"];
    assert_eq!(applied, &json!({ "now": ["takeover"], "next_session": ["mode"] }));
    assert_eq!((changed.json()["mode"].as_str(), changed.header("etag")), (Some("ultra"), Some("\"2\"")));
    let merge = [("Content-Type", "application/merge-patch+json")];
    let same = rig.ask_with("PATCH", "/v1/channels/news", &merge, json!({ "mode": "ultra" }));
    assert_eq!((same.status, same.header("etag")), (200, Some("\"2\"")));

    assert_eq!(rig.ask("DELETE", "/v1/channels/news", Value::Null).status, 204);
    assert_eq!(rig.get(&format!("/v1/channels/{id}")).code(), "not_found");
    assert_eq!(rig.get("/v1/channels").json(), json!({ "items": [], "next": null }));
    assert_eq!(rig.post("/v1/channels", json!({ "name": "news" })).status, 201, "the name is free again");
    let effects = rig.plane.0.lock().unwrap();
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Declare { channel, .. } if channel.name.as_str() == "news"))
    );
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Withdraw(name) if name.as_str() == "news")));
}

#[test]
fn a_channel_on_air_is_stopped_started_and_deleted_by_force() {
    let rig = Rig::new();
    rig.make_channel("news");
    let session = rig.go_live("news");
    assert_eq!(rig.get("/v1/channels?state=active").json()["items"][0]["session"], session.as_str());
    assert_eq!(rig.ask("DELETE", "/v1/channels/news", Value::Null).code(), "channel_active");
    let shown = rig.get(&format!("/v1/sessions/{session}")).json();
    assert_eq!(
        (&shown["state"], &shown["channel_name"], &shown["legs"]),
        (&json!("init"), &json!("news"), &json!(["a"]))
    );

    let ended = rig.post(&format!("/v1/sessions/{session}/end"), Value::Null).json();
    assert_eq!((&ended["state"], &ended["ended_reason"]), (&json!("ended"), &json!("user_stop")));
    assert_eq!(rig.post(&format!("/v1/sessions/{session}/end"), Value::Null).status, 200, "it has ended already");
    assert_eq!(rig.get("/v1/channels/news").json()["state"], "idle");

    let second = rig.go_live("news");
    let stopped = rig.post("/v1/channels/news/stop", Value::Null);
    assert_eq!((stopped.status, stopped.json()["state"].clone()), (200, json!("stop")));
    assert_eq!(rig.post("/v1/channels/news/stop", Value::Null).status, 200, "stopped once more");
    assert_eq!(rig.post("/v1/channels/news/start", Value::Null).json()["state"], "idle");
    let third = rig.go_live("news");
    assert_eq!(rig.ask("DELETE", "/v1/channels/news?force=true", Value::Null).status, 204);
    let ends: Vec<String> = rig
        .plane
        .0
        .lock()
        .unwrap()
        .iter()
        .filter_map(|effect| match effect {
            Effect::End { session, .. } => Some(session.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [session, second, third]);
}

#[test]
fn a_key_is_rotated_with_grace_or_without() {
    let rig = Rig::new();
    let first = rig.make_channel("news")["stream_key"].as_str().unwrap().to_owned();
    let rotated = rig.post("/v1/channels/news/rotate-key", Value::Null).json();
    let second = rotated["stream_key"].as_str().unwrap();
    assert_ne!(second, first);
    assert_eq!(rotated["stream_keys"].as_array().unwrap().len(), 2);
    assert!(rotated["stream_keys"][1]["expires_at"].is_string() && rotated["stream_keys"][0]["expires_at"].is_null());
    let again = rig.post("/v1/channels/news/rotate-key", json!({ "grace_s": 0 })).json();
    assert_eq!(again["stream_keys"].as_array().unwrap().len(), 1, "the old ones are revoked");
    for wrong in [json!({ "grace_s": -1 }), json!({ "grace_s": 2_592_001 }), json!({ "grace": 1 }), json!([])] {
        assert_eq!(rig.post("/v1/channels/news/rotate-key", wrong.clone()).code(), "invalid_fields", "{wrong}");
    }
}

#[test]
fn a_channels_own_passphrase_is_put_and_taken_away_and_never_shown() {
    let rig = Rig::new();
    rig.make_channel("news");
    let (path, whose) = ("/v1/channels/news/srt-passphrase", || {
        let inputs = rig.get("/v1/channels/news/inputs").json()["inputs"].take();
        inputs.as_array().unwrap().iter().map(|input| input["passphrase"].clone()).collect::<Vec<_>>()
    });
    assert_eq!(whose(), [Value::Null, Value::Null]);
    let put = rig.ask("PUT", path, json!({ "passphrase": "a long passphrase" }));
    assert_eq!((put.status, put.header("etag")), (200, Some("\"2\"")), "{}", put.text());
    assert_eq!(whose(), ["channel", "channel"]);
    let shown = rig.get("/v1/channels/news");
    assert_eq!(shown.json()["srt_passphrase"], true);
    for answer in [put, shown, rig.get("/v1/channels"), rig.get("/v1/events"), rig.get("/v1/audit")] {
        assert!(!answer.text().contains("long passphrase"), "{}", answer.text());
    }
    for (body, pointer) in [
        (json!({ "passphrase": "short" }), "/passphrase"),
        (json!({ "passphrase": "x".repeat(80) }), "/passphrase"),
        (json!({ "passphrase": 7 }), ""),
        (json!({ "passphrase": "a long passphrase", "more": 1 }), ""),
        (json!("a long passphrase"), ""),
    ] {
        let refused = rig.ask("PUT", path, body.clone());
        assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (422, &json!(pointer)), "{body}");
    }
    let stale = rig.ask_with("PUT", path, &[("If-Match", "\"1\"")], json!({ "passphrase": "another passphrase" }));
    assert_eq!(stale.code(), "revision_mismatch");
    assert_eq!(rig.ask("DELETE", path, Value::Null).status, 204);
    assert_eq!((whose(), rig.ask("DELETE", path, Value::Null).code().as_str()), (vec![Value::Null; 2], "not_found"));
}

#[test]
fn ladders_templates_and_inputs() {
    let rig = Rig::new();
    let ladder = json!([{ "name": "720p", "height": 720, "bitrate": 2_800_000, "codec": "hevc" }]);
    let made = rig.post("/v1/templates", json!({ "name": "sport", "ladder": ladder }));
    assert_eq!((made.status, made.header("etag")), (201, Some("\"1\"")), "{}", made.text());
    assert_eq!(rig.post("/v1/templates", json!({ "name": "sport", "ladder": ladder })).code(), "name_taken");
    let bad = rig.post(
        "/v1/templates",
        json!({ "name": "odd", "ladder": [{ "name": "x", "height": 721, "bitrate": 2_800_000 }] }),
    );
    assert_eq!(bad.json()["errors"][0]["pointer"], "/ladder/0/height");

    let channel = rig.post("/v1/channels", json!({ "name": "match", "from": "sport" })).json();
    assert_eq!(channel["ladder"], ladder);
    let own = json!([{ "name": "360p", "height": 360, "bitrate": 800_000 }]);
    let channel = rig.post("/v1/channels", json!({ "name": "own", "from": "sport", "ladder": own })).json();
    let own = json!([{ "name": "360p", "height": 360, "bitrate": 800_000, "codec": "h264" }]);
    assert_eq!(channel["ladder"], own, "H.264 unless it says otherwise");
    let unknown = rig.post("/v1/channels", json!({ "name": "x", "from": "nothing" }));
    assert_eq!(unknown.json()["errors"][0]["pointer"], "/from");
    let unfit = rig.post("/v1/channels", json!({ "name": "x", "from": "sport", "kind": "transmux" }));
    assert_eq!(unfit.json()["errors"][0]["pointer"], "/ladder");

    let id = made.json()["id"].as_str().unwrap().to_owned();
    let changed = rig.ask("PATCH", &format!("/v1/templates/{id}"), json!({ "ladder": own }));
    assert_eq!((changed.json()["ladder"].clone(), changed.header("etag")), (own.clone(), Some("\"2\"")));
    assert_eq!(rig.get("/v1/channels/match").json()["ladder"], ladder, "a channel keeps its copy");
    let stale = rig.ask_with("DELETE", "/v1/templates/sport", &[("If-Match", "\"1\"")], Value::Null);
    assert_eq!(stale.code(), "revision_mismatch");
    assert_eq!(rig.ask("DELETE", "/v1/templates/sport", Value::Null).status, 204);
    assert_eq!(rig.get("/v1/templates/sport").code(), "not_found");

    let put = rig.ask("PUT", "/v1/channels/match/renditions", json!({ "ladder": own })).json();
    assert_eq!(put, json!({ "ladder": own, "applied": { "now": [], "next_session": ["ladder"] } }));
    assert_eq!(rig.get("/v1/channels/match/renditions").json()["ladder"], own);
    assert_eq!(rig.ask("PUT", "/v1/channels/match/renditions", json!({ "mode": "low" })).code(), "invalid_fields");
    assert_eq!(
        rig.ask("PUT", "/v1/channels/match/renditions", json!({ "ladder": null })).json()["ladder"],
        Value::Null
    );

    rig.ask("PATCH", "/v1/channels/match", json!({ "legs": "single" }));
    let inputs = rig.get("/v1/channels/match/inputs").json();
    assert_eq!(inputs["inputs"].as_array().unwrap().len(), 1);
    assert_eq!(inputs["inputs"][0]["stream_id"], "match/KEY");
}

#[test]
fn the_source_of_a_channel_is_shown_without_its_secrets_wherever_it_is_shown() {
    let rig = Rig::new();
    let address = "srt://camera.example.com:9000?passphrase=planted secret&streamid=planted&latency=300";
    let shown = "srt://camera.example.com:9000?passphrase=**********&streamid=**********&latency=300";
    let made = rig.post("/v1/channels", json!({ "name": "camera", "pull": address }));
    assert_eq!((made.status, made.json()["pull"].as_str()), (201, Some(shown)), "{}", made.text());
    let changed = rig.ask("PATCH", "/v1/channels/camera", json!({ "pull": shown, "takeover": "newest" }));
    assert_eq!(changed.json()["applied"]["now"], json!(["takeover"]), "{}", changed.text());
    let inputs = rig.get("/v1/channels/camera/inputs");
    let all = inputs.json()["inputs"].as_array().unwrap().clone();
    assert_eq!(
        all.iter().map(|input| input["direction"].as_str().unwrap()).collect::<Vec<_>>(),
        ["push", "push", "pull"]
    );
    let source = &all[2];
    assert_eq!((source["url"].as_str(), source["latency_ms"].as_u64()), (Some(shown), Some(300)));
    assert_eq!((source["state"].as_str(), source["passphrase"].as_str()), (Some("calling"), Some("source")));
    assert_eq!(source["error"], "nobody answers at the address");
    assert_eq!((&all[0]["state"], &all[0]["error"]), (&Value::Null, &Value::Null));
    rig.post("/v1/channels/camera/stop", Value::Null);
    let off = rig.get("/v1/channels/camera/inputs").json()["inputs"][2].clone();
    assert_eq!((&off["state"], &off["error"]), (&json!("off"), &Value::Null));
    rig.post("/v1/channels/camera/start", Value::Null);
    for said in [made, changed, inputs, rig.get("/v1/channels"), rig.get("/v1/events"), rig.get("/v1/audit")] {
        assert!(!said.text().contains("planted"), "{}", said.text());
    }
    // The data plane has it whole, in another process too.
    let whole = |rig: &Rig| {
        let effects = rig.plane.0.lock().unwrap();
        let told = effects.iter().rev().find_map(|effect| match effect {
            Effect::Declare { door, .. } => door.pull.as_ref().map(|pull| pull.expose().to_owned()),
            _ => None,
        });
        told.unwrap()
    };
    assert_eq!(whole(&rig), address);
    let rig = rig.restarted();
    assert_eq!(whole(&rig), address);
    let gone = rig.ask("PATCH", "/v1/channels/camera", json!({ "pull": null }));
    assert_eq!((gone.json()["pull"].clone(), gone.json()["applied"]["now"].clone()), (Value::Null, json!(["pull"])));
    assert_eq!(rig.get("/v1/channels/camera/inputs").json()["inputs"].as_array().unwrap().len(), 2);
    let wrong = rig.ask("PATCH", "/v1/channels/camera", json!({ "pull": "srt://camera?passphrase=planted secret" }));
    assert_eq!((wrong.status, wrong.json()["errors"][0]["pointer"].as_str()), (422, Some("/pull")));
    assert!(!wrong.text().contains("planted"), "{}", wrong.text());
}

#[test]
fn etags_guard_changes() {
    let rig = Rig::new();
    rig.make_channel("news");
    let patch = |tag: &str| rig.ask_with("PATCH", "/v1/channels/news", &[("If-Match", tag)], json!({ "mode": "low" }));
    for stale in ["\"2\"", "\"x\"", "W/\"1\"", "1", ""] {
        let refused = patch(stale);
        assert_eq!((refused.status, refused.code().as_str()), (412, "revision_mismatch"), "{stale}");
    }
    assert_eq!(patch("\"7\", \"1\"").header("etag"), Some("\"2\""));
    assert_eq!(patch("*").status, 200);
    let delete = |tag: &str| rig.ask_with("DELETE", "/v1/channels/news", &[("If-Match", tag)], Value::Null).status;
    assert_eq!((delete("\"1\""), delete("\"2\"")), (412, 204));

    let strict = rung::control::api::Options { strict: true, ..open_doors() };
    let rig = Rig::with(strict, Options::default(), at_once());
    rig.make_channel("news");
    for (method, path) in [("PATCH", ""), ("DELETE", ""), ("PUT", "/renditions")] {
        let body = if method == "DELETE" { Value::Null } else { json!({ "ladder": null }) };
        let refused = rig.ask(method, &format!("/v1/channels/news{path}"), body);
        assert_eq!((refused.status, refused.code().as_str()), (428, "if_match_missing"), "{method}");
    }
    assert_eq!(rig.ask_with("DELETE", "/v1/channels/news", &[("If-Match", "\"1\"")], Value::Null).status, 204);
}

#[test]
fn every_mistake_has_its_problem() {
    let rig = Rig::new();
    rig.make_channel("news");
    let name63 = "x".repeat(64);
    for (method, path, body, status, code, place) in [
        ("GET", "/v1/nothing", json!(null), 404, "route_unknown", ""),
        ("GET", "/v1", json!(null), 404, "route_unknown", ""),
        ("PUT", "/v1/channels", json!(null), 405, "method_not_allowed", ""),
        ("GET", "/v1/channels/none", json!(null), 404, "not_found", ""),
        ("GET", "/v1/channels/ch_01ARZ3NDEKTSV4RRFFQ69G5FAV", json!(null), 404, "not_found", ""),
        ("GET", "/v1/sessions/news", json!(null), 404, "not_found", ""),
        ("GET", "/v1/templates/none", json!(null), 404, "not_found", ""),
        ("DELETE", "/v1/tokens/none", json!(null), 404, "not_found", ""),
        ("GET", "/v1/channels?limit=0", json!(null), 400, "query_invalid", "limit"),
        ("GET", "/v1/channels?limit=201", json!(null), 400, "query_invalid", "limit"),
        ("GET", "/v1/channels?limit=2&limit=3", json!(null), 400, "query_invalid", "limit"),
        ("GET", "/v1/channels?state=deleted", json!(null), 400, "query_invalid", "state"),
        ("GET", "/v1/channels?stat=idle", json!(null), 400, "query_invalid", "stat"),
        ("GET", "/v1/channels?cursor=00", json!(null), 400, "cursor_invalid", "cursor"),
        ("GET", "/v1/events?types=session.dead", json!(null), 400, "query_invalid", "types"),
        ("GET", "/v1/events?channel=none", json!(null), 404, "not_found", ""),
        ("GET", "/v1/system?x", json!(null), 400, "query_invalid", "x"),
        ("DELETE", "/v1/channels/news?force=yes", json!(null), 400, "query_invalid", "force"),
        ("POST", "/v1/channels", json!(null), 400, "body_malformed", ""),
        ("POST", "/v1/channels/news/start", json!({}), 400, "body_malformed", ""),
        ("POST", "/v1/channels", json!([]), 422, "invalid_fields", ""),
        ("POST", "/v1/channels", json!({}), 422, "invalid_fields", "/name"),
        ("POST", "/v1/channels", json!({ "name": name63 }), 422, "invalid_fields", "/name"),
        ("POST", "/v1/channels", json!({ "name": "news" }), 409, "name_taken", ""),
        ("POST", "/v1/channels", json!({ "name": "n", "mod": "low" }), 422, "invalid_fields", "/mod"),
        ("POST", "/v1/channels", json!({ "name": "n", "from": 3 }), 422, "invalid_fields", "/from"),
        ("POST", "/v1/channels", json!({ "name": "n", "inputs": [] }), 422, "invalid_fields", "/inputs"),
        ("PATCH", "/v1/channels/news", json!({ "name": "other" }), 422, "invalid_fields", "/name"),
        (
            "PATCH",
            "/v1/channels/news",
            json!({ "ladder": [{ "name": "a", "height": 1, "bitrate": 1 }] }),
            422,
            "invalid_fields",
            "/ladder/0/height",
        ),
        ("POST", "/v1/tokens", json!({ "name": "a", "scopes": [] }), 422, "invalid_fields", "/scopes"),
        ("POST", "/v1/tokens", json!({ "name": "a", "scopes": ["all"] }), 422, "invalid_fields", ""),
        ("POST", "/v1/tokens", json!({ "name": "/", "scopes": ["nodes:admin"] }), 422, "invalid_fields", "/name"),
        (
            "POST",
            "/v1/tokens",
            json!({ "name": "a", "scopes": ["nodes:admin"], "networks": ["x"] }),
            422,
            "invalid_fields",
            "/networks/0",
        ),
        (
            "POST",
            "/v1/tokens",
            json!({ "name": "a", "scopes": ["nodes:admin"], "expires_at": "x" }),
            422,
            "invalid_fields",
            "/expires_at",
        ),
        (
            "POST",
            "/v1/tokens",
            json!({ "name": "a", "scopes": ["nodes:admin"], "channels": ["x"] }),
            422,
            "invalid_fields",
            "/channels/0",
        ),
        ("POST", "/v1/tokens", json!({ "name": "admin", "scopes": ["nodes:admin"] }), 409, "name_taken", ""),
        ("POST", "/v1/templates", json!({ "name": "t" }), 422, "invalid_fields", "/ladder"),
    ] {
        let reply = rig.ask(method, path, body.clone());
        let at = || format!("{method} {path} {body}: {}", reply.text());
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{}", at());
        let error = &reply.json()["errors"][0];
        let found = error["pointer"].as_str().or(error["parameter"].as_str()).unwrap_or_default();
        assert_eq!(found, place, "{}", at());
    }
    assert_eq!(rig.ask("PUT", "/v1/channels", Value::Null).header("allow"), Some("GET, HEAD, POST"));
    let two = rig.post("/v1/channels", json!({ "name": "n", "mode": 1, "kind": 2 })).json();
    assert_eq!(two["errors"].as_array().unwrap().len(), 2);
}

#[test]
fn bodies_are_bounded_and_of_a_known_kind() {
    let rig = Rig::new();
    let bearer = format!("Bearer {}", rig.token);
    let post = |kind: &str, body: &[u8]| {
        raw(rig.address, "POST", "/v1/channels", &[("Authorization", &bearer), ("Content-Type", kind)], body)
    };
    assert_eq!(post("text/plain", b"{}").code(), "body_type");
    assert_eq!(post("application/json", b"{\"name\":").code(), "body_malformed");
    assert_eq!(post("application/json", &[0xff, 0xfe]).code(), "body_malformed");
    assert_eq!(post("application/json; charset=utf-8", b"{\"name\": \"news\"}").status, 201);
    let padded = |n: usize| format!("{{\"name\": \"large\"{}}}", " ".repeat(n - 17)).into_bytes();
    let large = post("application/json", &padded((1 << 20) + 1));
    assert_eq!((large.status, large.code().as_str()), (413, "body_too_large"));
    assert_eq!(post("application/json", &padded(1 << 20)).status, 201);
}

#[test]
fn waiting_is_for_the_media_and_ends_in_time() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let settled = std::sync::Arc::new(AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&settled);
    let rig = Rig::with(open_doors(), Options::default(), std::sync::Arc::new(move |_| flag.load(Ordering::Acquire)));
    rig.make_channel("news");
    assert_eq!(rig.post("/v1/channels/news/stop", Value::Null).status, 200, "nobody asked to wait");
    let waiting = [("Prefer", "respond-async, wait=1")];
    let late = rig.ask_with("POST", "/v1/channels/news/start", &waiting, Value::Null);
    assert_eq!((late.status, late.header("preference-applied")), (202, Some("wait=1")));
    std::thread::scope(|scope| {
        let waiter =
            scope.spawn(|| rig.ask_with("POST", "/v1/channels/news/stop", &[("Prefer", "wait=20")], Value::Null));
        wait("the stop", || (rig.get("/v1/channels/news").json()["state"] == "stop").then_some(()));
        assert!(!waiter.is_finished(), "the state is there, the media not yet");
        settled.store(true, Ordering::Release);
        assert_eq!(waiter.join().unwrap().status, 200);
    });
}

#[test]
fn the_box_says_how_it_is() {
    let rig = Rig::new();
    rig.make_channel("news");
    rig.go_live("news");
    let system = rig.get("/v1/system").json();
    assert_eq!(system["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&system["channels"], &system["sessions"]), (&json!(1), &json!(1)));
    assert_eq!(system["state"]["condition"], "good");
    assert_eq!(system["state"]["detail"], "the state folder can be written");
    assert!(system["state"]["used_bytes"].as_u64().unwrap() > 4096 && system["event_seq"].as_u64().unwrap() >= 3);
    assert_eq!((&system["gpu_monitor"]["state"], &system["gpus"]), (&json!("off"), &json!([])));
    let head = rig.ask("HEAD", "/v1/system", Value::Null);
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn a_snapshot_is_a_picture_or_a_problem_that_says_why_there_is_none() {
    let rig = Rig::new();
    for name in ["live", "idle", "stuck", "lost", "busy"] {
        rig.make_channel(name);
    }
    let ask = |name: &str| rig.post(&format!("/v1/channels/{name}/snapshot"), Value::Null);
    let taken = ask("live");
    assert_eq!((taken.status, taken.header("content-type")), (200, Some("image/jpeg")));
    assert_eq!((taken.body.as_slice(), taken.header("cache-control")), (SNAPSHOT, Some("no-store")));
    let idle = ask("idle");
    assert_eq!((idle.status, idle.code().as_str()), (409, "channel_state"));
    assert!(idle.text().contains("it has no session"), "{}", idle.text());
    for name in ["lost", "busy", "stuck"] {
        let start = std::time::Instant::now();
        let late = ask(name);
        assert_eq!((late.status, late.code().as_str()), (503, "picture_late"), "{name}");
        assert_eq!(late.header("retry-after"), Some("1"));
        let waited = start.elapsed().as_secs();
        assert_eq!(waited >= 3, name == "stuck", "{name} after {waited} s");
    }
    assert_eq!(ask("nobody").code(), "not_found");
    assert_eq!(rig.post("/v1/channels/live/snapshot", json!({ "x": 1 })).code(), "body_malformed");
    let reader = rig.make_token(json!({ "name": "reader", "scopes": ["channels:read"] }));
    assert_eq!(rig.ask_as(&reader, "POST", "/v1/channels/live/snapshot", &[], Value::Null).status, 200);
    // Whoever looks changes nothing: the book of changes and refused changes does not hold it.
    let audit = rig.get("/v1/audit").text();
    assert!(!audit.contains("snapshot"), "{audit}");
}

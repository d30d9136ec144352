//! Who may come in, what they see, and what is written down of it.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rung::control::api::{ADMIN_FILE, Options as ApiOptions};
use rung::control::auth::Limit;
use rung::serve::Options;
use serde_json::{Value, json};

use crate::support::{Rig, admin_token, at_once, open_doors, raw, wait};

#[test]
fn unknown_malformed_expired_and_foreign_tokens_get_one_answer() {
    let rig = Rig::new();
    let expired = json!({ "name": "old", "scopes": ["channels:read"], "expires_at": "2020-01-01T00:00:00Z" });
    let elsewhere = json!({ "name": "far", "scopes": ["channels:read"], "networks": ["192.0.2.0/24"] });
    let tokens = [
        "rk_0000000000000000000000000000000000000000000000000000000000000000".to_owned(),
        "rk_1234".to_owned(),
        "hello".to_owned(),
        rig.make_token(expired),
        rig.make_token(elsewhere),
    ];
    let mut answers: Vec<Value> = Vec::new();
    for token in &tokens {
        let reply = rig.ask_as(token, "GET", "/v1/channels", &[], Value::Null);
        assert_eq!((reply.status, reply.code().as_str()), (401, "token_invalid"), "{token}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"rung\", error=\"invalid_token\""));
        let mut body = reply.json();
        body.as_object_mut().unwrap().remove("request_id");
        answers.push(body);
    }
    assert!(answers.iter().all(|one| *one == answers[0]));
    let basic = raw(rig.address, "GET", "/v1/channels", &[("Authorization", "Basic YWRtaW46")], b"");
    assert_eq!(basic.code(), "token_invalid");
    let here = json!({ "name": "near", "scopes": ["channels:read"], "networks": ["127.0.0.0/8"] });
    assert_eq!(rig.ask_as(&rig.make_token(here), "GET", "/v1/channels", &[], Value::Null).status, 200);
}

#[test]
fn a_token_for_some_channels_sees_nothing_of_the_others() {
    let rig = Rig::new();
    rig.make_channel("mine");
    rig.make_channel("theirs");
    let (own, foreign) = (rig.go_live("mine"), rig.go_live("theirs"));
    let scopes = ["channels:write", "sessions:write", "tokens:admin", "nodes:admin"];
    let token = rig.make_token(json!({ "name": "limited", "scopes": scopes, "channels": ["mine"] }));
    let ask = |method: &str, path: &str| rig.ask_as(&token, method, path, &[], Value::Null);
    let names = |path: &str, field: &str| -> Vec<String> {
        let items = ask("GET", path).json()["items"].as_array().unwrap().clone();
        items.iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("/v1/channels", "name"), ["mine"]);
    assert_eq!(names("/v1/sessions", "id"), [own.as_str()]);
    let id = rig.get("/v1/channels/mine").json()["id"].as_str().unwrap().to_owned();
    assert!(names("/v1/events", "channel").iter().all(|channel| *channel == id));
    for (method, path) in [
        ("GET", "/v1/channels/theirs".to_owned()),
        ("DELETE", "/v1/channels/theirs?force=true".to_owned()),
        ("POST", "/v1/channels/theirs/stop".to_owned()),
        ("POST", "/v1/channels/theirs/rotate-key".to_owned()),
        ("GET", "/v1/channels/theirs/inputs".to_owned()),
        ("GET", "/v1/channels/theirs/sessions".to_owned()),
        ("GET", format!("/v1/sessions/{foreign}")),
        ("POST", format!("/v1/sessions/{foreign}/end")),
        ("GET", "/v1/events?channel=theirs".to_owned()),
        ("GET", "/v1/events/stream?channel=theirs".to_owned()),
    ] {
        let reply = ask(method, &path);
        let nothing = ask("GET", "/v1/channels/never-made").json();
        assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"), "{method} {path}");
        assert_eq!(nothing["code"], "not_found");
    }
    for (method, path) in [("GET", "/v1/tokens"), ("GET", "/v1/audit"), ("DELETE", "/v1/tokens/limited")] {
        assert_eq!(ask(method, path).code(), "channel_limited", "{method} {path}");
    }
    let create = rig.ask_as(&token, "POST", "/v1/channels", &[], json!({ "name": "new" }));
    assert_eq!(create.code(), "channel_limited");
    assert_eq!(ask("POST", &format!("/v1/sessions/{own}/end")).status, 200);
    assert_eq!(ask("POST", "/v1/channels/mine/stop").status, 200);
}

#[test]
fn a_revoked_token_is_refused_at_once_and_its_use_is_noted() {
    let rig = Rig::new();
    let token = rig.make_token(json!({ "name": "ci job", "scopes": ["channels:read"] }));
    let ask = || rig.ask_as(&token, "GET", "/v1/channels", &[], Value::Null).status;
    assert_eq!(ask(), 200);
    let used = wait("its last use", || {
        let tokens = rig.get("/v1/tokens").json()["items"].as_array().unwrap().clone();
        let mine = tokens.into_iter().find(|t| t["name"] == "ci job")?;
        mine["last_used_at"].is_string().then_some(mine)
    });
    assert_eq!(used["prefix"], token[..11]);
    assert!(used.get("secret").is_none() && used.get("hash").is_none());
    assert_eq!(rig.ask("DELETE", "/v1/tokens/ci%20job", Value::Null).status, 204);
    assert_eq!(ask(), 401);
}

#[test]
fn rates_are_bounded_by_token_and_for_strangers_by_address() {
    let options = ApiOptions {
        requests: Limit { burst: 20.0, per_second: 0.5 },
        failures: Limit { burst: 3.0, per_second: 0.1 },
        ..ApiOptions::default()
    };
    let rig = Rig::with(options, Options::default(), at_once());
    let strangers: Vec<u16> =
        (0..5).map(|_| rig.ask_as("rk_x", "GET", "/v1/channels", &[], Value::Null).status).collect();
    assert_eq!(strangers, [401, 401, 401, 429, 429]);
    let refused = rig.ask_as("rk_x", "GET", "/v1/channels", &[], Value::Null);
    assert_eq!(refused.code(), "rate_limited");
    assert!((1..=10).contains(&refused.header("retry-after").unwrap().parse::<u32>().unwrap()));
    let second = rig.make_token(json!({ "name": "second", "scopes": ["channels:read"] }));
    let mut passed = 0;
    let refused = loop {
        let reply = rig.get("/v1/channels");
        if reply.status != 200 {
            break reply;
        }
        passed += 1;
        assert!(passed <= 25, "a token is limited");
    };
    assert!(passed >= 15, "{passed}: a good token passes though strangers came from its address");
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert_eq!(
        rig.ask_as(&second, "GET", "/v1/channels", &[], Value::Null).status,
        200,
        "another token is not concerned"
    );
}

#[test]
fn the_admin_token_is_made_once_for_its_owner_alone_and_again_when_its_file_is_gone() {
    let rig = Rig::new();
    let file = rig.folder.path().join(ADMIN_FILE);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let first = rig.token.clone();
    let rig = rig.restarted();
    assert_eq!(rig.token, first);
    assert_eq!(rig.get("/v1/tokens").json()["items"].as_array().unwrap().len(), 1);
    std::fs::remove_file(&file).unwrap();
    let rig = rig.restarted();
    assert_ne!(admin_token(rig.folder.path()), first);
    assert_eq!(rig.get("/v1/system").status, 200);
    assert_eq!(rig.ask_as(&first, "GET", "/v1/system", &[], Value::Null).status, 401, "the lost one is revoked");
    assert_eq!(rig.ask("DELETE", "/v1/tokens/admin", Value::Null).status, 204);
    let rig = rig.restarted();
    assert_eq!(rig.get("/v1/system").status, 401, "revoked on purpose, it stays so");
}

#[test]
fn changes_and_refused_attempts_are_written_down() {
    let rig = Rig::new();
    let made = rig.post("/v1/channels", json!({ "name": "news" }));
    let reader = rig.make_token(json!({ "name": "reader", "scopes": ["channels:read"] }));
    let refused = rig.ask_as(&reader, "DELETE", "/v1/channels/news", &[], Value::Null);
    assert_eq!(refused.status, 403);
    let stranger = rig.ask_as("rk_no", "POST", "/v1/channels", &[], json!({ "name": "x" }));
    assert_eq!(stranger.status, 401);
    let rows = wait("four rows", || {
        let rows = rig.get("/v1/audit").json()["items"].as_array().unwrap().clone();
        (rows.len() == 4).then_some(rows)
    });
    let by =
        |operation: &str| rows.iter().find(|row| row["operation"] == operation && row["token"].is_string()).unwrap();
    let create = by("create_channel");
    assert_eq!(
        (&create["token_name"], &create["status"], &create["code"]),
        (&json!("admin"), &json!(201), &Value::Null)
    );
    assert_eq!(create["request_id"].as_str(), made.header("x-request-id"));
    assert_eq!((&create["target"], &create["address"]), (&made.json()["id"], &json!("127.0.0.1")));
    let delete = by("delete_channel");
    assert_eq!(
        (&delete["code"], &delete["target"], &delete["status"]),
        (&json!("scope_missing"), &json!("news"), &json!(403))
    );
    assert!(rows.iter().any(|row| row["code"] == "token_invalid" && row["token"].is_null()));

    for _ in 0..60 {
        rig.ask_as("rk_no", "POST", "/v1/channels", &[], json!({ "name": "x" }));
    }
    rig.make_channel("after");
    let rows = rig.get("/v1/audit?limit=200").json()["items"].as_array().unwrap().len();
    assert!((20..30).contains(&rows), "{rows}: a storm of strangers is a few rows");
}

const ROLE: &str = "RUNG_TEST_API_LOG";

/// The child: every kind of request, all levels logged, its secrets on standard output.
#[test]
fn child() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    use rung::telemetry::setup::{Config, LogFormat, start};
    let telemetry = start(&Config { format: LogFormat::Text, filter: "trace".into() }).unwrap();
    let rig = Rig::with(open_doors(), Options::default(), at_once());
    let key = rig.make_channel("news")["stream_key"].as_str().unwrap().to_owned();
    let token = rig.make_token(json!({ "name": "ci", "scopes": ["channels:read"] }));
    let guess = format!("rk_{}", "ab".repeat(32));
    rig.ask_as(&token, "POST", "/v1/channels", &[], json!({ "name": "x" }));
    rig.ask_as(&guess, "GET", &format!("/v1/channels?x={key}"), &[], Value::Null);
    rig.ask_with("POST", "/v1/channels", &[("Idempotency-Key", "k")], json!({ "name": "other" }));
    for secret in [&rig.token, &token, &guess, &key] {
        println!("secret {secret}");
    }
    drop(rig);
    drop(telemetry);
}

#[test]
fn no_secret_is_in_the_log() {
    let me = std::env::current_exe().unwrap();
    let output = Command::new(me).args(["--exact", "access::child", "--nocapture"]).env(ROLE, "1").output().unwrap();
    assert!(output.status.success());
    let (said, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let secrets: Vec<&str> = said.lines().filter_map(|line| line.split("secret ").nth(1)).collect();
    assert_eq!(secrets.len(), 4, "{said}");
    assert!(log.contains("admin_token_made"), "the child logs: {log}");
    for secret in secrets {
        assert!(!log.contains(secret.trim_start_matches("rk_")), "{secret} in\n{log}");
    }
}

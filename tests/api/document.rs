//! The document and the table of routes say the same, and answers keep to it.

use std::collections::BTreeMap;

use rung::control::api::{Code, ROUTES, document};
use serde_json::Value;

use crate::support::{Rig, raw};

/// (method, path) -> (operation id, scopes), as the document says.
fn documented() -> BTreeMap<(String, String), (String, Vec<String>)> {
    let document: Value = serde_json::from_str(document()).unwrap();
    let mut all = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            let scopes = operation["security"][0]["token"].as_array().cloned().unwrap_or_default();
            let scopes = scopes.iter().map(|s| s.as_str().unwrap().to_owned()).collect();
            let id = operation["operationId"].as_str().unwrap().to_owned();
            all.insert((method.to_uppercase(), path.clone()), (id, scopes));
        }
    }
    all
}

#[test]
fn every_route_is_documented_with_its_id_and_scope_and_nothing_else_is() {
    let routes: BTreeMap<_, _> = ROUTES
        .iter()
        .map(|route| {
            let scopes = route.scope.iter().map(|scope| scope.name().to_owned()).collect();
            ((route.method.to_string(), route.path.to_owned()), (route.id.to_owned(), scopes))
        })
        .collect();
    assert_eq!(documented(), routes);
}

#[test]
fn every_documented_operation_is_answered_and_wants_its_scope() {
    let rig = Rig::new();
    let bare = rig.make_token(serde_json::json!({ "name": "bare", "scopes": ["nodes:admin"] }));
    for ((method, path), (id, scopes)) in documented() {
        let path = path.replace("{id}", "nothing-of-this-name");
        let stranger = raw(rig.address, &method, &path, &[], b"");
        let (status, code) = if scopes.is_empty() { (200, "") } else { (401, "token_missing") };
        assert_eq!(stranger.status, status, "{id}");
        if status == 401 {
            assert_eq!(stranger.code(), code, "{id}");
            assert_eq!(stranger.header("www-authenticate"), Some("Bearer realm=\"rung\""));
        }
        if scopes.is_empty() || scopes[0] == "nodes:admin" {
            continue;
        }
        let poor = rig.ask_as(&bare, &method, &path, &[], Value::Null);
        assert_eq!((poor.status, poor.code().as_str()), (403, "scope_missing"), "{id}");
        assert!(poor.header("www-authenticate").unwrap().contains(&format!("scope=\"{}\"", scopes[0])), "{id}");
        // Not 404 for want of a route, not 405: for want of what the path names, of a body, or not at all.
        let reply =
            if id == "stream_events" { rig.get("/v1/events/stream?x=1") } else { rig.ask(&method, &path, Value::Null) };
        let fine =
            reply.status == 200 || matches!(reply.code().as_str(), "not_found" | "body_malformed" | "query_invalid");
        assert!(fine, "{id}: {} {}", reply.status, reply.text());
    }
}

#[test]
fn the_document_is_the_golden_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/openapi.json");
    let now = format!("{}\n", document());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, &now).unwrap();
    }
    let golden = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        now == golden,
        "the API changed: look at it, then run again with UPDATE_GOLDEN=1 and commit the difference"
    );
}

#[test]
fn the_document_holds_every_code_and_its_references_lead_somewhere() {
    let document: Value = serde_json::from_str(document()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let codes = document["components"]["schemas"]["ProblemCode"]["enum"].as_array().unwrap();
    let codes: Vec<&str> = codes.iter().map(|c| c.as_str().unwrap()).collect();
    assert_eq!(codes, Code::ALL.iter().map(|c| c.name()).collect::<Vec<_>>());
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(to) = map.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to}");
                }
                open.extend(map.values());
            }
            Value::Array(all) => open.extend(all),
            _ => {}
        }
    }
    let rig = Rig::new();
    let served = raw(rig.address, "GET", "/v1/openapi.json", &[], b"");
    assert_eq!((served.status, served.json()), (200, document));
}

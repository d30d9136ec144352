//! A channel's logo over the API: put, shown, moved, removed, and everything that is none.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rung::control::ledger::LOGOS;
use rung::control::lifecycle::Effect;
use rung::control::state::{Db, Ulid};
use rung::media::logo::{Corner, LogoPicture};
use serde_json::{Value, json};

use crate::support::{Reply, Rig, open_doors, raw};

fn png(width: u32, height: u32) -> Vec<u8> {
    let pixels: Vec<u8> = (0..width * height).flat_map(|i| [i as u8, 90, 200, (i / 3) as u8]).collect();
    let mut out = Vec::new();
    PngEncoder::new(&mut out).write_image(&pixels, width, height, ExtendedColorType::Rgba8).unwrap();
    out
}

fn put(rig: &Rig, channel: &str, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let bearer = format!("Bearer {}", rig.token);
    let mut all = vec![("Authorization", bearer.as_str())];
    if !headers.iter().any(|(name, _)| *name == "Content-Type") {
        all.push(("Content-Type", "image/png"));
    }
    all.extend_from_slice(headers);
    raw(rig.address, "PUT", &format!("/v1/channels/{channel}/logo{query}"), &all, body)
}

/// Rows of pictures in the store.
fn stored(rig: &Rig) -> u64 {
    let rows = rig.ledger().state().control.read(|view| view.count(Db::Logos));
    rows.map_err(|error| error.to_string()).unwrap()
}

/// What the data plane was told last of a channel's logo.
fn told(rig: &Rig) -> Option<rung::media::logo::Logo> {
    let effects = rig.plane.0.lock().unwrap();
    let last = effects.iter().rev().find_map(|effect| match effect {
        Effect::Declare { channel, .. } => Some(channel.logo.clone()),
        _ => None,
    });
    last.expect("it was declared")
}

#[test]
fn a_logo_is_put_shown_moved_removed_and_survives_a_restart() {
    let rig = Rig::new();
    let made = rig.make_channel("news");
    assert_eq!((&made["logo"], &made["crop"]), (&Value::Null, &Value::Null));
    assert_eq!(rig.get("/v1/channels/news/logo").code(), "not_found");
    assert_eq!(rig.ask("DELETE", "/v1/channels/news/logo", Value::Null).code(), "not_found");
    let file = png(40, 20);
    let answer = put(&rig, "news", "?corner=bottom-left&width=12.5", &[], &file);
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"2\"")), "{}", answer.text());
    let logo = answer.json();
    let place = json!({ "corner": "bottom-left", "width": 12.5, "margin": 3, "opacity": 1 });
    for (name, value) in place.as_object().unwrap() {
        assert_eq!(&logo[name], value, "{name}");
    }
    let image = json!({ "sha256": logo["image"]["sha256"], "width": 40, "height": 20, "bytes": file.len() });
    assert_eq!(logo["image"], image);
    assert_eq!(rig.get("/v1/channels/news").json()["logo"], logo);
    let seen = told(&rig).expect("the data plane knows of it");
    assert_eq!(seen.place.corner, Corner::BottomLeft);
    assert_eq!(seen.picture, LogoPicture::Stored(image["sha256"].as_str().unwrap().to_owned()));
    let shown = rig.get("/v1/channels/news/logo");
    assert_eq!((shown.status, shown.header("content-type")), (200, Some("image/png")));
    assert_eq!((shown.header("etag"), &shown.body), (Some("\"2\""), &file));
    // The same again changes nothing.
    assert_eq!(put(&rig, "news", "", &[], &file).header("etag"), Some("\"2\""));

    let moved = rig.ask("PATCH", "/v1/channels/news", json!({ "logo": { "corner": "top-left", "opacity": 0.5 } }));
    assert_eq!(moved.json()["applied"], json!({ "now": ["logo"], "next_session": [] }), "{}", moved.text());
    assert_eq!((&moved.json()["logo"]["width"], &moved.json()["logo"]["image"]), (&json!(12.5), &image));
    let crop = rig.ask("PATCH", "/v1/channels/news", json!({ "crop": { "top": 140, "bottom": 140 } })).json();
    assert_eq!(crop["applied"], json!({ "now": [], "next_session": ["crop"] }));
    assert_eq!(crop["crop"], json!({ "left": 0, "right": 0, "top": 140, "bottom": 140 }));

    let rig = rig.restarted();
    assert_eq!(rig.get("/v1/channels/news/logo").body, file);
    assert_eq!(told(&rig).expect("declared with it").place.corner, Corner::TopLeft);
    assert_eq!(rig.ask("DELETE", "/v1/channels/news/logo", Value::Null).status, 204);
    assert_eq!((rig.get("/v1/channels/news/logo").code().as_str(), stored(&rig), told(&rig)), ("not_found", 0, None));
    let kept = rig.get("/v1/channels/news").json();
    assert_eq!((&kept["logo"]["corner"], &kept["logo"]["image"]), (&json!("top-left"), &Value::Null));
    let events = rig.get("/v1/events?limit=50").json();
    let fields: Vec<&Value> = events["items"].as_array().unwrap().iter().map(|e| &e["data"]["fields"]).collect();
    assert_eq!(fields.iter().filter(|fields| ***fields == json!(["logo"])).count(), 3, "{fields:?}");
}

#[test]
fn a_picture_goes_with_its_channel_and_with_the_setting() {
    let rig = Rig::new();
    for name in ["a", "b", "c"] {
        rig.make_channel(name);
        assert_eq!(put(&rig, name, "", &[], &png(8, 8)).status, 200);
    }
    assert_eq!(stored(&rig), 3);
    assert_eq!(rig.ask("PATCH", "/v1/channels/a", json!({ "logo": null })).status, 200);
    assert_eq!(rig.ask("DELETE", "/v1/channels/b", Value::Null).status, 204);
    assert_eq!(stored(&rig), 1);
    // A new channel of the old name has none of it.
    rig.make_channel("b");
    assert_eq!(rig.get("/v1/channels/b/logo").code(), "not_found");
    // An export has it, and can be read back.
    let state = rig.ledger().state();
    let mut text = Vec::new();
    assert!(state.export(&mut text).unwrap().is_empty());
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"db\":\"logos\"")).count(), 1);
    state.import(&text).unwrap();
    assert_eq!(rig.get("/v1/channels/c/logo").body, png(8, 8));
}

#[test]
fn what_is_no_logo_is_refused_with_its_fix_and_changes_nothing() {
    let rig = Rig::new();
    rig.make_channel("news");
    let good = png(300, 200);
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = good.clone();
        change(&mut file);
        file
    };
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("nothing", Vec::new(), "body_malformed", "send the PNG"),
        ("text", b"hello".to_vec(), "invalid_fields", "is no PNG"),
        ("a JPEG", vec![0xff, 0xd8, 0xff, 0xe0, 1, 2, 3], "invalid_fields", "is no PNG"),
        ("cut off", good[..good.len() / 2].to_vec(), "invalid_fields", "send it whole"),
        ("its head alone", good[..33].to_vec(), "invalid_fields", "send it whole"),
        ("flipped", broken(&|file| file[60] ^= 0x55), "invalid_fields", "save it anew"),
        ("too wide", png(2_049, 1), "invalid_fields", "2048x2048"),
        ("too high", png(1, 2_049), "invalid_fields", "2048x2048"),
        ("too long", [good.clone(), vec![0; 512 << 10]].concat(), "body_too_large", "524288"),
    ];
    for (what, body, code, words) in cases {
        let answer = put(&rig, "news", "", &[], &body);
        assert_eq!(answer.code(), code, "{what}: {}", answer.text());
        assert!(answer.text().contains(words), "{what}: {}", answer.text());
    }
    let typed = put(&rig, "news", "", &[("Content-Type", "image/jpeg")], &good);
    assert!(typed.code() == "body_type" && typed.text().contains("image/png"), "{}", typed.text());
    for (query, code, words) in [
        ("?corner=middle", "query_invalid", "top-left, top-right"),
        ("?width=wide", "query_invalid", "from 1 to 50"),
        ("?width=60", "invalid_fields", "/logo/width"),
        ("?margin=20.01", "invalid_fields", "/logo/margin"),
        ("?opacity=-1", "query_invalid", "from 0 to 1"),
        ("?size=3", "query_invalid", "known are corner"),
    ] {
        let answer = put(&rig, "news", query, &[], &good);
        assert!(answer.code() == code && answer.text().contains(words), "{query}: {}", answer.text());
    }
    assert_eq!(put(&rig, "nobody", "", &[], &good).code(), "not_found");
    assert_eq!(put(&rig, "news", "", &[("If-Match", "\"7\"")], &good).code(), "revision_mismatch");
    assert_eq!((rig.get("/v1/channels/news").header("etag"), stored(&rig)), (Some("\"1\""), 0), "nothing has changed");
    assert_eq!(put(&rig, "news", "", &[("If-Match", "\"1\"")], &good).status, 200);
}

#[test]
fn channels_that_encode_nothing_take_neither_logo_nor_crop() {
    let rig = Rig::new();
    for (name, kind) in [("plain", "transmux"), ("both", "hybrid")] {
        let made = rig.post("/v1/channels", json!({ "name": name, "kind": kind }));
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let refused = put(&rig, "plain", "", &[], &png(8, 8));
    assert_eq!(refused.code(), "invalid_fields");
    assert_eq!(refused.json()["errors"][0]["pointer"], "/logo");
    assert!(refused.text().contains("encodes nothing") && refused.text().contains("hybrid"), "{}", refused.text());
    assert_eq!(stored(&rig), 0);
    assert_eq!(put(&rig, "both", "", &[], &png(8, 8)).status, 200);
    let later = rig.ask("PATCH", "/v1/channels/both", json!({ "kind": "transmux" }));
    assert_eq!(later.json()["errors"][0]["pointer"], "/logo", "{}", later.text());
    assert_eq!(rig.ask("PATCH", "/v1/channels/both", json!({ "kind": "transmux", "logo": null })).status, 200);
    assert_eq!(stored(&rig), 0);
    for name in ["plain", "both"] {
        let answer = rig.ask("PATCH", &format!("/v1/channels/{name}"), json!({ "crop": { "top": 2 } }));
        assert_eq!(answer.json()["errors"][0]["pointer"], "/crop", "{}", answer.text());
    }
}

#[test]
fn a_strict_box_wants_to_know_which_revision_a_logo_is_for() {
    let rig = Rig::with(
        rung::control::api::Options { strict: true, ..open_doors() },
        rung::serve::Options::default(),
        crate::support::at_once(),
    );
    rig.make_channel("news");
    assert_eq!(put(&rig, "news", "", &[], &png(8, 8)).code(), "if_match_missing");
    assert_eq!(put(&rig, "news", "", &[("If-Match", "\"1\"")], &png(8, 8)).status, 200);
    assert_eq!(rig.ask("DELETE", "/v1/channels/news/logo", Value::Null).code(), "if_match_missing");
    assert_eq!(rig.ask_with("DELETE", "/v1/channels/news/logo", &[("If-Match", "\"2\"")], Value::Null).status, 204);
}

/// A row that was damaged on disk is told of, and costs its logo only.
#[test]
fn a_row_that_holds_no_png_is_no_logo() {
    let rig = Rig::new();
    rig.make_channel("news");
    put(&rig, "news", "", &[], &png(8, 8));
    let id: Ulid = rig.get("/v1/channels/news").json()["id"].as_str().unwrap()[3..].parse().unwrap();
    let row = serde_json::from_value(json!({ "png": "%%%" })).unwrap();
    let write =
        rig.ledger().state().control.write(rung::control::state::Need::Ordinary, move |txn| txn.put(&LOGOS, &id, &row));
    write.wait().unwrap();
    assert_eq!(rig.get("/v1/channels/news/logo").code(), "not_found");
}

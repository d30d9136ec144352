//! Signed playback from outside: what a viewer with a signature gets, and that nobody else gets a byte.

#[path = "support/browser.rs"]
mod browser;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[expect(dead_code, reason = "`follow` reads counters with it")]
#[path = "support/numbered.rs"]
mod numbered;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use daemon::{Daemon, Running, clip, get, push_loop, wait};
use follow::Follow;

const CHANNELS: &str = r#"
[[bootstrap.channel]]
name = "closed"
kind = "transmux"
playback_policy = "signed"
steering = { pathways = [{ id = "a", base = "" }] }
[[bootstrap.channel]]
name = "sizes"
playback_policy = "signed"
ladder = [{ name = "216p", height = 216, bitrate = 300000 }, { name = "120p", height = 120, bitrate = 150000 }]
[[bootstrap.channel]]
name = "other"
kind = "transmux"
playback_policy = "signed"
"#;

fn source() -> PathBuf {
    let mut args = vec!["-f", "lavfi", "-i", "testsrc2=s=384x216:r=25:d=20,format=yuv420p"];
    args.extend(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=20"]);
    args.extend("-c:v libx264 -preset veryfast -bf 0 -g 50 -keyint_min 50 -sc_threshold 0 -c:a aac -ac 2".split(' '));
    clip("signed-20.ts", &args)
}

/// A daemon with `channel` on air.
fn on_air(channel: &str) -> (Daemon, Running) {
    let daemon = Daemon::start(CHANNELS);
    let publisher = push_loop(&source(), &daemon.publish_url(channel), &[]);
    let path = sign(&daemon, channel, "");
    daemon.wait_for(&path, Duration::from_secs(20));
    (daemon, publisher)
}

/// `/t/<pass>/live/<channel>/index.m3u8`
fn sign(daemon: &Daemon, channel: &str, query: &str) -> String {
    let answer = daemon.ask(&format!("/v1/channels/{channel}/playback{query}"));
    answer["playlist"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// `rung …` as its operator types it.
fn rung(daemon: &Daemon, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.args(args).args(["--server", &daemon.url("")]);
    command.arg("--token-file").arg(daemon.folder().join("rung-data/admin.token"));
    let output = command.stdin(Stdio::null()).output().expect("rung starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn word_after(text: &str, what: &str) -> String {
    let mut words = text.split_whitespace().skip_while(|word| *word != what);
    words.nth(1).unwrap_or_else(|| panic!("no {what} in {text}")).to_owned()
}

fn in_seconds(more: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("near") + more
}

/// As an operator's own program signs: from what RFC 7515 says, not from Rung's code.
fn token(secret: &str, kid: &str, claims: &Value) -> String {
    let head = json!({ "alg": "HS256", "kid": kid }).to_string();
    let signed = format!("{}.{}", BASE64.encode(head), BASE64.encode(claims.to_string()));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(mac.finalize().into_bytes()))
}

/// The path that a relative address of a playlist means.
fn resolve(base: &str, uri: &str) -> String {
    let mut steps: Vec<&str> = base.split('/').collect();
    steps.pop();
    for step in uri.split('/') {
        match step {
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    steps.join("/")
}

/// Every address that a text names.
fn addresses(base: &str, text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let attributes = text.split("URI=\"").skip(1).filter_map(|rest| rest.split('"').next());
    lines.chain(attributes).map(|uri| resolve(base, uri)).collect()
}

/// Everything that a player of this playlist would ask for.
fn crawl(daemon: &Daemon, playlist: &str) -> BTreeSet<String> {
    let multivariant = daemon.get(playlist);
    assert_eq!(multivariant.status, 200, "{}", multivariant.text());
    let mut found = addresses(playlist, &multivariant.text());
    for playlist in found.clone().into_iter().filter(|path| path.ends_with(".m3u8")) {
        let media = daemon.wait_for(&playlist, Duration::from_secs(10));
        found.extend(addresses(&playlist, &media.text()));
    }
    let root = playlist.strip_suffix("/index.m3u8").expect("a multivariant playlist");
    let poster = format!("{root}/poster.jpg");
    daemon.wait_for(&poster, Duration::from_secs(15));
    let storyboard = format!("{root}/storyboard.vtt");
    let cues = wait(Duration::from_secs(15), "a picture in the storyboard", || {
        Some(daemon.get(&storyboard)).filter(|r| r.status == 200 && r.text().contains("#xywh"))
    });
    let sheet = cues.text().lines().find_map(|l| Some(l.split_once("#xywh")?.0.to_owned())).expect("a sheet");
    found.extend([playlist.to_owned(), poster, resolve(&storyboard, &sheet), storyboard]);
    found
}

#[track_caller]
fn assert_refused(daemon: &Daemon, path: &str, code: &str) {
    let answer = daemon.get(path);
    assert_eq!(answer.status, 403, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "a page must be able to say why: {path}");
    let problem: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(problem["code"], code, "{path}: {problem}");
}

/// What curl is answered in HTTP/1.1.
fn statuses(daemon: &Daemon, how: &[&str], paths: &[String]) -> Vec<String> {
    let mut command = Command::new("curl");
    command.args(["-s", "--http1.1", "-w", "%{http_code}\\n"]).args(how);
    for path in paths {
        command.args(["-o", "/dev/null"]).arg(daemon.url(path));
    }
    let output = command.output().expect("curl is one of the packages of `make setup`");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// The same in HTTP/2, on one connection.
fn h2_statuses(daemon: &Daemon, paths: &[String]) -> Vec<u16> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = TokioIo::new(tokio::net::TcpStream::connect(daemon.http).await.expect("the daemon listens"));
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(stream).await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let mut statuses = Vec::new();
        for path in paths {
            let request = http::Request::get(daemon.url(path)).body(Empty::<Bytes>::new()).expect("a request");
            statuses.push(sender.send_request(request).await.expect("answered").status().as_u16());
        }
        statuses
    })
}

#[test]
fn no_byte_of_a_signed_channel_is_given_without_a_valid_signature() {
    let (daemon, _publisher) = on_air("closed");
    let mine = sign(&daemon, "closed", "");
    let pass = mine.split('/').nth(2).expect("/t/<pass>/…").to_owned();
    let others = sign(&daemon, "other", "");
    let foreign = others.split('/').nth(2).expect("/t/<pass>/…");
    let short = sign(&daemon, "closed", "?expires_in=1");
    let expired = short.split('/').nth(2).expect("/t/<pass>/…");
    let middle = if pass.as_bytes()[20] == b'A' { "B" } else { "A" };
    let forged = format!("{}{middle}{}", &pass[..20], &pass[21..]);

    let all = crawl(&daemon, &mine);
    let kinds = [
        "index.m3u8",
        "source.m3u8",
        "source.iframes.m3u8",
        "a-und-1.m3u8",
        "steering.json",
        "source/init-0.mp4",
        "source/s1",
        "source/p1",
        "source/i1",
        "a-und-1/p1",
        "poster.jpg",
        ".vtt",
        "storyboard-",
    ];
    for kind in kinds {
        assert!(all.iter().any(|path| path.contains(kind)), "no {kind} in {all:?}");
    }
    std::thread::sleep(Duration::from_secs(1));
    for path in &all {
        let bare = path.strip_prefix(&format!("/t/{pass}")).unwrap_or_else(|| panic!("{path} lost its pass"));
        assert_refused(&daemon, bare, "playback_token_missing");
        assert_refused(&daemon, &format!("/t/{foreign}{bare}"), "playback_token_foreign");
        assert_refused(&daemon, &format!("/t/{expired}{bare}"), "playback_token_expired");
        assert_eq!(daemon.get(&format!("/t/{forged}{bare}")).status, 403, "{bare}");
        assert_eq!(daemon.get(&format!("/t/x{bare}")).status, 403, "{bare}");
        let answer = daemon.get(path);
        // The window has moved on meanwhile: what was hinted is there, what was oldest may be gone.
        assert!(answer.status == 200 || answer.status == 404 && path.contains(".m4s"), "{path}: {}", answer.status);
    }
    // However a stranger asks.
    for stranger in ["", &format!("/t/{foreign}"), &format!("/t/{expired}")] {
        let paths: Vec<String> = all.iter().map(|path| path.replace(&format!("/t/{pass}"), stranger)).collect();
        for how in [&["-I"][..], &["-r", "0-99"]] {
            assert_eq!(statuses(&daemon, how, &paths), vec!["403"; all.len()], "{how:?} {stranger:?}");
        }
        assert_eq!(h2_statuses(&daemon, &paths), vec![403; all.len()], "{stranger:?}");
    }
    let whole: Vec<String> = all.iter().filter(|path| !path.contains(".m4s")).cloned().collect();
    assert_eq!(h2_statuses(&daemon, &whole), vec![200; whole.len()], "with the pass it is there");
    let status = daemon.get("/status.json").text();
    assert!(status.contains("\"signed\":true") && !status.contains("poster.jpg"), "{status}");
    assert!(daemon.metric("rung_playback_denied_total{reason=\"missing\"}") >= all.len() as f64);
    assert!(daemon.metric("rung_playback_denied_total{reason=\"foreign\"}") >= all.len() as f64);
    let check = |pass: &str| daemon.get(&format!("/t/{pass}/live/closed/pass"));
    assert_eq!((check(&pass).status, check(&pass).header("cache-control")), (204, Some("public, max-age=30")));
    assert_eq!((check(foreign).status, check(expired).status, check(&forged).status), (403, 403, 403));
}

#[test]
fn a_viewer_signed_in_by_an_operators_key_plays_until_the_key_is_deleted() {
    let (daemon, _publisher) = on_air("closed");
    let channel = daemon.ask("/v1/channels/closed");
    let playback = channel["playback_id"].as_str().expect("an id");
    let made = rung(&daemon, &["playback-key", "create", "website"]);
    let (kid, secret) = (word_after(&made, "kid"), word_after(&made, "secret"));
    let claims = json!({ "sub": playback, "exp": in_seconds(600), "sid": "seat-17" });
    let entry = format!("/live/closed/index.m3u8?t={}", token(&secret, &kid, &claims));

    let multivariant = daemon.get(&entry);
    assert_eq!(multivariant.status, 200, "{}", multivariant.text());
    assert_eq!(multivariant.header("cache-control"), Some("private, no-store"), "it holds one viewer's pass");
    assert!(addresses("/live/closed/index.m3u8", &multivariant.text()).iter().all(|p| p.starts_with("/t/")));
    let viewer = Follow::at(daemon.http, &entry);
    viewer.wait_for_parts(30);
    let seen = viewer.stop();
    seen.assert_satisfied("a signed viewer");
    assert!(seen.rendition("source").parts.len() > 10 && seen.rendition("a-und-1").parts.len() > 10);

    for (wrong, code) in [
        (json!({ "sub": playback, "exp": in_seconds(-1) }), "playback_token_expired"),
        (json!({ "sub": playback, "exp": in_seconds(60), "nbf": in_seconds(30) }), "playback_token_invalid"),
        (json!({ "sub": "pb_01ARZ3NDEKTSV4RRFFQ69G5FAV", "exp": in_seconds(60) }), "playback_token_foreign"),
        (json!({ "sub": playback, "exp": in_seconds(60), "ip": "192.0.2.1" }), "playback_token_foreign"),
    ] {
        let path = format!("/live/closed/index.m3u8?t={}", token(&secret, &kid, &wrong));
        assert_refused(&daemon, &path, code);
    }
    let guessed = format!("/live/closed/index.m3u8?t={}", token("guess", &kid, &claims));
    assert_refused(&daemon, &guessed, "playback_token_invalid");

    let pass = multivariant.text().split("/t/").nth(1).and_then(|t| t.split('/').next()).expect("a pass").to_owned();
    let path = format!("/t/{pass}/live/closed/source.m3u8");
    assert_eq!(daemon.get(&path).status, 200);
    let mine = sign(&daemon, "closed", "");
    rung(&daemon, &["playback-key", "delete", "website"]);
    assert_refused(&daemon, &entry, "playback_token_invalid");
    assert_refused(&daemon, &path, "playback_token_invalid");
    assert_eq!(daemon.get(&mine).status, 200, "other viewers go on");
    rung(&daemon, &["playback-key", "delete", "rung"]);
    assert_refused(&daemon, &mine, "playback_token_invalid");
    assert_eq!(daemon.get(&sign(&daemon, "closed", "")).status, 200, "with its new key");
}

#[test]
fn what_a_pass_is_limited_to_holds_and_a_policy_is_in_force_at_once() {
    let (mut daemon, _publisher) = on_air("sizes");
    let small = sign(&daemon, "sizes", "?max_height=120&viewer=tv-3");
    let text = daemon.get(&small).text();
    assert!(text.contains("120p.m3u8") && text.contains("a-und-1.m3u8") && !text.contains("216p"), "{text}");
    assert_refused(&daemon, &small.replace("index", "216p"), "rendition_not_allowed");
    let media = addresses(&small, &daemon.get(&small.replace("index", "120p")).text());
    let part = media.iter().find(|path| path.ends_with("init-0.mp4")).expect("an init section");
    assert_eq!(daemon.get(part).status, 200);
    assert_refused(&daemon, &part.replace("/120p/", "/216p/"), "rendition_not_allowed");
    // What a cache asks, of each rendition that it holds.
    let whole = sign(&daemon, "sizes", "");
    let ask = |playlist: &str, of: &str| daemon.get(&playlist.replace("index.m3u8", of)).status;
    assert_eq!(["120p/pass", "a-und-1/pass", "pass"].map(|of| ask(&small, of)), [204; 3]);
    assert_eq!(["216p/pass", "216p", "nothing/pass", "a/b/pass"].map(|of| ask(&small, of)), [403, 404, 403, 404]);
    assert_refused(&daemon, &small.replace("index.m3u8", "216p/pass"), "rendition_not_allowed");
    assert_eq!(["216p/pass", "120p/pass", "pass"].map(|of| ask(&whole, of)), [204; 3]);
    assert_refused(&daemon, "/live/sizes/120p/pass", "playback_token_missing");
    let bound = sign(&daemon, "sizes", "?address=192.0.2.7");
    assert_refused(&daemon, &bound, "playback_token_foreign");
    assert_eq!(daemon.get(&sign(&daemon, "sizes", "?address=127.0.0.1")).status, 200);

    let bare = "/live/sizes/index.m3u8";
    assert_refused(&daemon, bare, "playback_token_missing");
    rung(&daemon, &["channel", "set", "sizes", "--field", "playback_policy=public"]);
    wait(Duration::from_secs(5), "an open door", || (daemon.get(bare).status == 200).then_some(()));
    assert_eq!(daemon.get(&small).status, 200, "who came with a pass stays");
    rung(&daemon, &["channel", "set", "sizes", "--field", "playback_policy=signed"]);
    wait(Duration::from_secs(5), "a shut door", || (daemon.get(bare).status == 403).then_some(()));

    let steering = r#"steering={"pathways":[{"id":"a","base":""},{"id":"b","base":"https://b.example"}],"ttl_s":60}"#;
    rung(&daemon, &["channel", "set", "sizes", "--field", steering]);
    let mine = sign(&daemon, "sizes", "");
    let away = format!("\nhttps://b.example{}", mine.replace("index", "120p"));
    wait(Duration::from_secs(5), "pathways", || daemon.get(&mine).text().contains(&away).then_some(()));
    assert!(daemon.get(&mine).text().contains("\n120p.m3u8\n"), "what lies here keeps its pass by itself");
    assert_eq!(daemon.get(&mine.replace("index.m3u8", "steering.json")).status, 200);
    assert_refused(&daemon, "/live/sizes/steering.json", "playback_token_missing");

    daemon.stop();
    let again = daemon.again();
    let check = small.replace("index.m3u8", "pass");
    assert_eq!(again.get(&check).status, 204, "what was given out is good after a restart");
    let unknown = small.replace("index.m3u8", "120p/pass");
    assert_eq!(again.get(&unknown).status, 403, "with nothing on air nobody knows what fits");
    assert_eq!(again.get(&check.replace("/t/", "/t/A")).status, 403);
}

#[test]
fn the_watch_page_plays_with_a_signature_and_says_so_without_one() {
    let (daemon, _publisher) = on_air("closed");
    let made = rung(&daemon, &["playback-key", "create", "website", "--public-key", &public_key(&daemon)]);
    let claims = json!({ "sub": daemon.ask("/v1/channels/closed")["playback_id"], "exp": in_seconds(600) });
    let entry = format!("/watch/closed?t={}", ed25519_token(&daemon, &word_after(&made, "kid"), &claims));
    let pass = sign(&daemon, "closed", "").replace("/live/closed/index.m3u8", "/watch/closed");
    for path in [&entry, &pass] {
        let seen = browser::watch(&daemon.url(path), &browser::Options { seconds: 4, ..Default::default() });
        assert_eq!((seen.state.as_str(), seen.fatal), ("live", 0), "{path}: {seen:?}");
    }
    let page = get(daemon.http, "/watch/closed", &[]);
    assert_eq!(page.status, 200, "the page itself holds nothing of the channel");
}

/// A key pair made by openssl, whose code is not ours; the public half's file.
fn public_key(daemon: &Daemon) -> String {
    let file = |name: &str| daemon.folder().join(name).to_string_lossy().into_owned();
    for args in [
        vec!["genpkey".to_owned(), "-algorithm".into(), "ed25519".into(), "-out".into(), file("sign.pem")],
        vec!["pkey".to_owned(), "-in".into(), file("sign.pem"), "-pubout".into(), "-out".into(), file("public.pem")],
    ] {
        assert!(Command::new("openssl").args(args).status().expect("openssl is installed").success());
    }
    file("public.pem")
}

fn ed25519_token(daemon: &Daemon, kid: &str, claims: &Value) -> String {
    let head = json!({ "alg": "EdDSA", "kid": kid }).to_string();
    let signed = format!("{}.{}", BASE64.encode(head), BASE64.encode(claims.to_string()));
    let (text, signature) = (daemon.folder().join("text"), daemon.folder().join("signature"));
    std::fs::File::create(&text).and_then(|mut f| f.write_all(signed.as_bytes())).expect("writable");
    let mut command = Command::new("openssl");
    command.args(["pkeyutl", "-sign", "-rawin", "-inkey"]).arg(daemon.folder().join("sign.pem"));
    command.arg("-in").arg(&text).arg("-out").arg(&signature);
    assert!(command.status().expect("openssl is installed").success());
    format!("{signed}.{}", BASE64.encode(std::fs::read(signature).expect("signed")))
}

//! Real caches with the recipes of docs/cdn.md between viewers and the daemon: each part and each playlist version is asked
//! for once, whoever asks however; and passes are asked about before anybody gets a byte.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use daemon::{Daemon, Response, Running, clip, get, push_loop, wait};
use rung::time::SystemClock;
use rung_viewers::tap::Tap;
use rung_viewers::watch::{Plan, watch};

/// A cache in front of an origin, with a recipe of docs/cdn.md.
struct Edge {
    address: SocketAddr,
    folder: tempfile::TempDir,
    process: Running,
}

impl Edge {
    /// nginx, with its addresses and its folder changed; and `also`, more changes.
    fn nginx(origin: SocketAddr, also: &[(&str, &str)]) -> Edge {
        let (folder, address) = places();
        let inside = |name: &str| folder.path().join(name).display().to_string();
        let own = [
            ("server 127.0.0.1:8080;", format!("server {origin};")),
            ("listen 80 ", format!("listen {address} ")),
            ("/var/cache/nginx/rung", inside("cache")),
        ];
        let recipe = changed(include_str!("../docs/nginx/rung.conf"), &own, also);
        std::fs::write(inside("rung.conf"), recipe).expect("writable");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|what| format!("{what}_temp_path {};\n", inside(what)))
            .collect();
        let main = format!(
            "daemon off;\nworker_processes 2;\npid {};\nerror_log {} warn;\nevents {{ worker_connections 2048; }}\n\
             http {{\n{temporary}include {};\n}}\n",
            inside("pid"),
            inside("log"),
            inside("rung.conf")
        );
        std::fs::write(inside("nginx.conf"), main).expect("writable");
        let mut command = Command::new("nginx");
        command.args(["-e", &inside("log"), "-p"]).arg(folder.path()).args(["-c", &inside("nginx.conf")]);
        Edge::run(command, address, folder)
    }

    fn varnish(origin: SocketAddr, also: &[(&str, &str)]) -> Edge {
        let (folder, address) = places();
        let inside = |name: &str| folder.path().join(name).display().to_string();
        let own = [("\"8080\"", format!("\"{}\"", origin.port()))];
        let recipe = changed(include_str!("../docs/varnish/rung.vcl"), &own, also);
        std::fs::write(inside("rung.vcl"), recipe).expect("writable");
        let mut command = Command::new("varnishd");
        command.args(["-F", "-n", &inside("work"), "-a", &address.to_string(), "-f", &inside("rung.vcl")]);
        command.args(["-s", "malloc,64m", "-p", "vcc_allow_inline_c=off"]);
        let log = std::fs::File::create(inside("log")).expect("writable");
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        Edge::run(command, address, folder)
    }

    fn run(mut command: Command, address: SocketAddr, folder: tempfile::TempDir) -> Edge {
        let name = command.get_program().to_string_lossy().into_owned();
        let process = Running(command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{name}: {e}")));
        let edge = Edge { address, folder, process };
        wait(Duration::from_secs(30), &name, || std::net::TcpStream::connect(address).ok());
        edge
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        get(self.address, path, headers)
    }

    fn complaints(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Edge {
    /// Its children end with it if it is asked.
    fn drop(&mut self) {
        daemon::signal(self.process.0.id(), "TERM");
        drop(self.process.0.wait());
    }
}

fn places() -> (tempfile::TempDir, SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Both give up their rights and then read in it.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("ours");
    (folder, address)
}

fn changed(recipe: &str, own: &[(&str, String)], also: &[(&str, &str)]) -> String {
    let mut recipe = recipe.to_owned();
    for (from, to) in own.iter().map(|(from, to)| (*from, to.as_str())).chain(also.iter().copied()) {
        assert!(recipe.contains(from), "the recipe has no {from:?}");
        recipe = recipe.replace(from, to);
    }
    recipe
}

fn file() -> std::path::PathBuf {
    let encode = "-f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=r=48000 -t 20 -c:v libx264 -preset superfast \
                  -pix_fmt yuv420p -g 50 -sc_threshold 0 -bf 0 -b:v 300k -c:a aac -b:a 64k -ac 2 -f mpegts";
    clip("cdn-20.ts", &encode.split_whitespace().collect::<Vec<_>>())
}

fn on_air(file: &Path) -> (Daemon, Running) {
    let daemon = Daemon::start("[[bootstrap.channel]]\nname = \"c\"\nkind = \"transmux\"\nmode = \"ultra\"\n");
    let publisher = push_loop(file, &daemon.publish_url("c"), &[]);
    wait(Duration::from_secs(30), "three segments", || {
        (daemon.get("/live/c/source.m3u8").text().matches("#EXTINF").count() >= 3).then_some(())
    });
    (daemon, publisher)
}

/// The place after the last one that the playlist lists, as a query.
fn next(text: &str) -> (u64, usize) {
    let first = text.lines().find_map(|l| l.strip_prefix("#EXT-X-MEDIA-SEQUENCE:")).expect("a playlist");
    let segments = text.matches("#EXTINF").count() as u64;
    let open = text.rsplit("#EXTINF").next().map_or(0, |tail| tail.matches("#EXT-X-PART:").count());
    (first.parse::<u64>().expect("a number") + segments, open)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// Media and blocked playlists with more than one request, as nobody should see any.
fn more_than_once(counts: &BTreeMap<String, u64>) -> Vec<(&String, &u64)> {
    counts.iter().filter(|(uri, n)| **n > 1 && (uri.contains(".m4s") || uri.contains("_HLS_msn"))).collect()
}

#[test]
fn a_hundred_viewers_cost_one_request_for_each_part_and_each_version() {
    let (daemon, _publisher) = on_air(&file());
    let runtime = runtime();
    let tap = runtime.block_on(Tap::start(daemon.http)).expect("a free port");
    let edge = Edge::nginx(tap.address, &[]);
    let plan = Plan {
        to: edge.address,
        origin: Some(daemon.http),
        channel: "c".into(),
        prefix: String::new(),
        rendition: None,
        sound: true,
        viewers: 100,
        ramp: Duration::from_secs(2),
        time: Duration::from_secs(8),
    };
    let report = runtime.block_on(watch(&plan)).expect("the channel is on air");
    let counts = tap.counts();
    println!("{report:#?}\nat the origin: {} addresses", counts.len());
    assert!(report.errors.is_empty(), "{report:#?}\n{}", edge.complaints());
    assert_eq!((report.different, report.missed, report.without), (0, 0, 0), "{report:#?}");
    // How many come in the time, and how late, `tests/prove/cdn.py` asserts: here the machine may be busy.
    assert!(report.parts.count > 100 && report.playlists.count > 100, "each viewer got something: {report:#?}");
    assert!(report.parts.p99 < 5_000.0, "{report:#?}");
    assert_eq!(more_than_once(&counts), [], "asked for twice");
    let asked = |what: &str| counts.iter().filter(|(uri, _)| uri.contains(what)).count();
    assert!(asked(".m4s") >= 20 && asked("_HLS_msn") >= 20, "{counts:#?}");
}

#[test]
fn every_spelling_of_a_request_is_one_key() {
    let (daemon, _publisher) = on_air(&file());
    let runtime = runtime();
    let tap = || runtime.block_on(Tap::start(daemon.http)).expect("a free port");
    let (before_nginx, before_varnish) = (tap(), tap());
    // nginx keeps both forms of a playlist, Varnish unpacks the one.
    spellings(&daemon, &before_nginx, &Edge::nginx(before_nginx.address, &[]), 2);
    spellings(&daemon, &before_varnish, &Edge::varnish(before_varnish.address, &[]), 1);
}

fn spellings(daemon: &Daemon, tap: &Tap, edge: &Edge, forms: u64) {
    let text = daemon.get("/live/c/source.m3u8").text();
    let (msn, part) = next(&text);
    let canonical = format!("/live/c/source.m3u8?_HLS_msn={msn}&_HLS_part={part}");
    let turned = format!("/live/c/source.m3u8?CMCD=a%2Cb&_HLS_part={part}&x=1&_HLS_msn={msn}");
    let gzip: [&[(&str, &str)]; 3] = [
        &[("Accept-Encoding", "gzip")],
        &[("Accept-Encoding", "gzip, deflate, br")],
        &[("Accept-Encoding", "br,gzip")],
    ];
    let bodies: Vec<Response> =
        gzip.iter().flat_map(|headers| [&canonical, &turned].map(|path| edge.get(path, headers))).collect();
    for answer in &bodies {
        assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
        assert_eq!((&answer.body, answer.header("vary")), (&bodies[0].body, Some("Accept-Encoding")));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=12"));
    }
    for headers in [&[][..], &[("Accept-Encoding", "br")], &[("Accept-Encoding", "gzip;q=0")]] {
        let plain = edge.get(&turned, headers);
        assert!(plain.header("content-encoding").is_none() && plain.text().starts_with("#EXTM3U"), "{headers:?}");
    }
    assert_eq!(tap.counts(), BTreeMap::from([(canonical, forms)]));

    // Media: whatever the query, and pieces of it from what is kept.
    tap.clear();
    let uri = text.lines().find_map(|l| l.strip_prefix("#EXT-X-PART:")?.split("URI=\"").nth(1)?.split('"').next());
    let part = format!("/live/c/{}", uri.expect("a part"));
    let whole = edge.get(&format!("{part}?sid=1"), &[]);
    assert_eq!((whole.status, &whole.body), (200, &daemon.get(&part).body));
    let piece = edge.get(&format!("{part}?sid=2"), &[("Range", "bytes=10-29")]);
    assert_eq!((piece.status, &piece.body[..]), (206, &whole.body[10..30]));
    let known = whole.header("etag").expect("a tag").to_owned();
    let same = edge.get(&part, &[("If-None-Match", &known)]);
    assert_eq!(same.status, 304);
    assert_eq!(tap.counts(), BTreeMap::from([(part, 1)]));

    // What is refused is not kept.
    tap.clear();
    for path in ["/live/c/nothing.m3u8", "/live/c/source.m3u8?_HLS_msn=1&_HLS_part=x", "/live/nobody/index.m3u8"] {
        for _ in 0..2 {
            let answer = edge.get(path, &[]);
            assert!([400, 404].contains(&answer.status), "{path}: {}", answer.status);
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        }
        assert_eq!(tap.counts()[path], 2, "{path}");
    }
}

/// What a viewer of a signed channel asks for, below `/live/c/`.
fn addresses(text: &str) -> [String; 3] {
    let (msn, part) = next(text);
    let uri = text.lines().find_map(|l| l.strip_prefix("#EXT-X-PART:")?.split("URI=\"").nth(1)?.split('"').next());
    [uri.expect("a part").to_owned(), "source.m3u8".into(), format!("source.m3u8?_HLS_msn={msn}&_HLS_part={part}")]
}

fn sign(daemon: &Daemon, channel: &str, query: &str) -> String {
    let answer = daemon.ask(&format!("/v1/channels/{channel}/playback{query}"));
    let path = answer["playlist"].as_str().and_then(|p| p.split("/live/").next());
    path.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn with_signed_playback_nobody_gets_what_is_kept_without_a_pass() {
    let daemon = Daemon::start(
        "[[bootstrap.channel]]\nname = \"c\"\nkind = \"hybrid\"\nplayback_policy = \"signed\"\npreset = \"ultrafast\"\n\
         ladder = [{ name = \"90p\", height = 90, bitrate = 100000 }]\n\
         [[bootstrap.channel]]\nname = \"d\"\nkind = \"transmux\"\nplayback_policy = \"signed\"\n",
    );
    let _publisher = push_loop(&file(), &daemon.publish_url("c"), &[]);
    let (good, foreign) = (sign(&daemon, "c", ""), sign(&daemon, "d", ""));
    let limited = sign(&daemon, "c", "?max_height=90");
    wait(Duration::from_secs(30), "three segments", || {
        let listed = |name| daemon.get(&format!("{good}/live/c/{name}.m3u8")).text().matches("#EXTINF").count();
        (listed("source") >= 3 && listed("90p") >= 1).then_some(())
    });
    let runtime = runtime();
    let tap = || runtime.block_on(Tap::start(daemon.http)).expect("a free port");
    let (before_nginx, before_varnish) = (tap(), tap());
    let nginx = Edge::nginx(before_nginx.address, &[("# auth_request", "auth_request")]);
    let varnish = Edge::varnish(before_varnish.address, &[("if (false)", "if (true)")]);
    for (edge, tap) in [(nginx, before_nginx), (varnish, before_varnish)] {
        let begun = SystemClock::mono();
        let text = edge.get(&format!("{good}/live/c/source.m3u8"), &[]).text();
        for file in addresses(&text) {
            let wanted = edge.get(&format!("{good}/live/c/{file}"), &[]);
            assert_eq!(wanted.status, 200, "{file}: {} {}", wanted.text(), edge.complaints());
            assert!(edge.get(&format!("{good}/live/c/{file}"), &[]).status == 200, "{file}");
            // The source has 180 rows: who may have 90 gets none of it, though the cache holds it.
            for prefix in ["", "/t/bad", &foreign, &limited, &format!("{good}{good}"), &format!("/t/bad{good}")] {
                let answer = edge.get(&format!("{prefix}/live/c/{file}"), &[]);
                let nothing = [403, 404].contains(&answer.status) && answer.body != wanted.body;
                assert!(nothing, "{prefix}/live/c/{file}: {}", answer.status);
            }
        }
        let small = edge.get(&format!("{limited}/live/c/90p.m3u8"), &[]).text();
        let part =
            small.lines().find_map(|l| l.strip_prefix("#EXT-X-PART:")?.split("URI=\"").nth(1)?.split('"').next());
        let part = format!("{limited}/live/c/{}", part.expect("a part"));
        assert_eq!(edge.get(&part, &[]).status, 200, "what fits is given");
        let counts = tap.counts();
        assert_eq!(more_than_once(&counts), [], "asked for twice");
        // Once, and again each half minute.
        let questions = 1 + (SystemClock::mono() - begun).as_secs() / 30;
        let asked = counts[&format!("{good}/live/c/source/pass")];
        assert!((1..=questions).contains(&asked), "{asked} of {questions}: {counts:#?}");
        assert!(!counts.keys().any(|uri| uri.contains("bad/live/c/s") && !uri.ends_with("/pass")), "{counts:#?}");
        let plan = Plan {
            to: edge.address,
            origin: None,
            channel: "c".into(),
            prefix: good.clone(),
            rendition: None,
            sound: true,
            viewers: 20,
            ramp: Duration::from_secs(1),
            time: Duration::from_secs(3),
        };
        let report = runtime.block_on(watch(&plan)).expect("the channel is on air");
        assert!(report.errors.is_empty() && report.without == 0, "{report:#?}");
        assert_eq!(more_than_once(&tap.counts()), [], "asked for twice");
    }
}

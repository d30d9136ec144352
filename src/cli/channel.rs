//! `rung channel`: channels of a daemon.

use clap::{Args, Subcommand};
use http::Method;
use http::header::HeaderName;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

use super::remote::{self, Extra, Remote, Session, cell, instant, print_json, print_table, query, segment};
use super::{Failure, print};
use crate::control::auth::publish_key;
use crate::sys::random;

/// Channels of a daemon
#[derive(Args)]
pub(crate) struct Channel {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum What {
    /// List channels, newest first
    List {
        /// Only channels in this state: idle, active, stop
        #[arg(long)]
        state: Option<String>,
    },
    /// Make a channel and print what to type into an encoder
    Create {
        /// 1 to 63 of a-z, 0-9 and '-': part of every URL
        name: String,
        /// Copy this template's ladder
        #[arg(long, value_name = "TEMPLATE")]
        from: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Show a channel
    Show { channel: String },
    /// Change fields of a channel
    Set {
        channel: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Let publishers in again; arms a channel with manual activation
    Start {
        channel: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// End its session and refuse publishers until it is started
    Stop {
        channel: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Save a picture of a channel as it is now
    Snapshot {
        channel: String,
        /// File for the JPEG; - is the standard output
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Print the addresses at which one viewer finds a channel; of a signed channel they hold a pass
    Sign(Sign),
    /// Put a logo over a channel's pictures, move it, or take it away
    Logo(Logo),
    /// Give a channel an SRT passphrase of its own, or take it away
    Passphrase {
        channel: String,
        /// Its first line is the passphrase, 10 to 79 bytes; - is the standard input; none: one is made and printed
        file: Option<PathBuf>,
        /// Take it away: what the box wants of all holds again
        #[arg(long, conflicts_with = "file")]
        remove: bool,
    },
    /// Delete a channel
    Delete {
        channel: String,
        /// Even while it is on air
        #[arg(long)]
        force: bool,
    },
    /// Make a new publish key and print it
    RotateKey {
        channel: String,
        /// How long the old key stays valid, seconds
        #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
        grace: u32,
    },
}

/// What may be said of a channel; nothing: its default, or as it is.
#[derive(Args)]
struct Fields {
    /// transcode, transmux or hybrid
    #[arg(long)]
    kind: Option<String>,
    /// ultra (2-4 s), low (8-10 s) or normal (20-30 s)
    #[arg(long)]
    mode: Option<String>,
    /// File with the ladder as JSON: [{"name": "720p", "height": 720, "bitrate": 2800000}], with "codec": "hevc" for HEVC
    #[arg(long, value_name = "FILE")]
    ladder: Option<PathBuf>,
    /// How far back viewers may go, seconds (twice that is held in memory); empty: the mode's
    #[arg(long, value_name = "SECONDS")]
    window: Option<String>,
    /// Where players begin, seconds from the end, such as -30; empty: as near to it as they may
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    start_offset: Option<String>,
    /// File with the origins that players are steered to, as JSON:
    /// {"pathways": [{"id": "a", "base": "https://a.example.com"}], "ttl_s": 300}
    #[arg(long, value_name = "FILE")]
    steering: Option<PathBuf>,
    /// Networks that publishers may come from, such as 192.0.2.0/24,2001:db8::1; empty: from anywhere
    #[arg(long, value_name = "NETWORKS")]
    publish_from: Option<String>,
    /// Call an SRT source that listens there and receive from it: srt://HOST:PORT?passphrase=…&latency=MS; none: publishers
    /// come by themselves
    #[arg(long, value_name = "URL")]
    pull: Option<String>,
    /// Any other field, as NAME=VALUE, such as legs=single, max_duration_s=0 or
    /// crop='{"top": 140, "bottom": 140}' or captions='[{"instream_id": "CC1", "language": "eng"}]'; an empty VALUE is its
    /// default
    #[arg(long = "field", value_name = "NAME=VALUE")]
    others: Vec<String>,
}

/// For whom a signed address is.
#[derive(Args)]
struct Sign {
    channel: String,
    /// Valid for so many seconds; playback ends then
    #[arg(long, default_value_t = 43_200, value_name = "SECONDS")]
    expires_in: u32,
    /// Your own name for the viewer: 1 to 32 of A-Z, a-z, 0-9, '_' and '-'
    #[arg(long, value_name = "NAME")]
    viewer: Option<String>,
    /// Leave out renditions of more rows
    #[arg(long, value_name = "ROWS")]
    max_height: Option<u16>,
    /// The only address that may use it
    #[arg(long, value_name = "ADDRESS")]
    address: Option<std::net::IpAddr>,
}

impl Sign {
    fn run(&self, session: &Session, remote: &Remote) -> Result<(), Failure> {
        let asked = query(&[
            ("expires_in", Some(self.expires_in.to_string())),
            ("viewer", self.viewer.clone()),
            ("max_height", self.max_height.map(|rows| rows.to_string())),
            ("address", self.address.map(|address| address.to_string())),
        ]);
        let answer = session.get(&format!("/v1/channels/{}/playback{asked}", segment(&self.channel)))?;
        if remote.json {
            print_json(&answer);
            return Ok(());
        }
        let server = remote.server.trim_end_matches('/');
        for name in ["playlist", "watch", "poster"] {
            print(&format!("{name:<10}{server}{}", cell(&answer[name])));
        }
        print(&match &answer["expires_at"] {
            Value::Null => "the channel is public: nothing of this expires".to_owned(),
            at => format!("valid until {}", instant(at)),
        });
        Ok(())
    }
}

/// A logo, and where it lies; what is not said stays as it is.
#[derive(Args)]
struct Logo {
    channel: String,
    /// A PNG of at most 512 KiB and 2048x2048, best with alpha; without it the logo that is there is moved
    #[arg(value_name = "FILE.png", conflicts_with = "remove")]
    file: Option<PathBuf>,
    /// top-left, top-right, bottom-left or bottom-right
    #[arg(long)]
    corner: Option<String>,
    /// Percent of the picture's width, 1 to 50
    #[arg(long, value_name = "PERCENT")]
    width: Option<String>,
    /// From the edges, percent of the picture's width, 0 to 20
    #[arg(long, value_name = "PERCENT")]
    margin: Option<String>,
    /// 0 to 1
    #[arg(long)]
    opacity: Option<String>,
    /// Take the logo away
    #[arg(long, conflicts_with_all = ["corner", "width", "margin", "opacity"])]
    remove: bool,
}

impl Logo {
    fn run(&self, session: &Session, json: bool) -> Result<(), Failure> {
        let path = format!("/v1/channels/{}", segment(&self.channel));
        let place = [
            ("corner", self.corner.clone()),
            ("width", self.width.clone()),
            ("margin", self.margin.clone()),
            ("opacity", self.opacity.clone()),
        ];
        let logo = if self.remove {
            session.ask(Method::DELETE, &format!("{path}/logo"), Extra::default())?;
            Value::Null
        } else if let Some(file) = &self.file {
            let wrong = |e: std::io::Error| Failure::usage(format!("{}: {e}", file.display()));
            let png = std::fs::read(file).map_err(wrong)?;
            let extra = Extra { file: Some(("image/png", png.into())), ..Extra::default() };
            session.ask(Method::PUT, &format!("{path}/logo{}", query(&place)), extra)?
        } else {
            let fields = place.into_iter().filter_map(|(name, value)| Some((name.to_owned(), field_value(&value?))));
            let fields: Map<String, Value> = fields.collect();
            if fields.is_empty() {
                let what = "nothing to do: give FILE.png, --corner, --width, --margin, --opacity or --remove";
                return Err(Failure::usage(what));
            }
            let extra = Extra { body: Some(json!({ "logo": fields })), ..Extra::default() };
            session.ask(Method::PATCH, &path, extra)?["logo"].take()
        };
        if json {
            print_json(&logo);
        } else {
            print(&format!("channel {}: {}", self.channel, describe_logo(&logo)));
        }
        Ok(())
    }
}

fn describe_logo(logo: &Value) -> String {
    let size = |image: &Value| format!("{}x{} pixels", cell(&image["width"]), cell(&image["height"]));
    let place = || {
        let [corner, width, margin, opacity] = ["corner", "width", "margin", "opacity"].map(|name| cell(&logo[name]));
        format!("{corner}, {width} % wide, {margin} % from the edges, opacity {opacity}")
    };
    match (logo, &logo["image"]) {
        (Value::Null, _) => "no logo".to_owned(),
        (_, Value::Null) => format!("no logo yet; its place: {}", place()),
        (_, image) => format!("a logo of {}, {}", size(image), place()),
    }
}

#[derive(Args)]
pub(crate) struct Wait {
    /// Wait so many seconds (up to 30) for the media to follow
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u8>,
}

impl Wait {
    pub(crate) fn extra(&self) -> Extra {
        let headers = self.wait.map(|s| (HeaderName::from_static("prefer"), format!("wait={s}")));
        Extra { headers: headers.into_iter().collect(), ..Extra::default() }
    }
}

impl Fields {
    fn read(&self) -> Result<Map<String, Value>, Failure> {
        let mut fields = Map::new();
        for (name, value) in [("kind", &self.kind), ("mode", &self.mode)] {
            if let Some(value) = value {
                fields.insert(name.into(), value.as_str().into());
            }
        }
        for (name, file) in [("ladder", &self.ladder), ("steering", &self.steering)] {
            if let Some(file) = file {
                fields.insert(name.into(), read_json(file)?);
            }
        }
        for (name, value) in [("window_s", &self.window), ("start_offset_s", &self.start_offset)] {
            if let Some(value) = value {
                fields.insert(name.into(), field_value(value));
            }
        }
        if let Some(networks) = &self.publish_from {
            let listed: Vec<&str> = networks.split(',').map(str::trim).filter(|network| !network.is_empty()).collect();
            fields.insert("publish_from".into(), if listed.is_empty() { Value::Null } else { json!(listed) });
        }
        if let Some(pull) = &self.pull {
            let none = pull.is_empty() || pull == "none";
            fields.insert("pull".into(), if none { Value::Null } else { pull.as_str().into() });
        }
        for other in &self.others {
            let Some((name, value)) = other.split_once('=') else {
                return Err(Failure::usage(format!("--field {other}: write NAME=VALUE")));
            };
            fields.insert(name.into(), field_value(value));
        }
        Ok(fields)
    }
}

/// Numbers, `true`, `false`, lists and objects are what they look like, nothing is `null`, all else is text.
fn field_value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_))) => value,
        _ if text.is_empty() => Value::Null,
        _ => text.into(),
    }
}

pub(crate) fn read_json(file: &std::path::Path) -> Result<Value, Failure> {
    let wrong = |what: String| Failure::usage(format!("{}: {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| wrong(format!("no JSON: {e}")))
}

impl Channel {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let session = self.remote.open()?;
        let path = |channel: &str, rest: &str| format!("/v1/channels/{}{rest}", segment(channel));
        let json = self.remote.json;
        let answer = match &self.what {
            What::List { state } => return list(&session, state.clone(), json),
            What::Logo(logo) => return logo.run(&session, json),
            What::Sign(sign) => return sign.run(&session, &self.remote),
            What::Passphrase { channel, remove: true, .. } => {
                session.ask(Method::DELETE, &path(channel, "/srt-passphrase"), Extra::default())?;
                print(&format!("channel {channel} has no passphrase of its own"));
                return Ok(());
            }
            What::Passphrase { channel, file, .. } => {
                return passphrase(&session, &path(channel, "/srt-passphrase"), file.as_deref(), json);
            }
            What::Snapshot { channel, output } => return snapshot(&session, &path(channel, "/snapshot"), output, json),
            What::Create { name, from, fields } => {
                let mut body = fields.read()?;
                body.insert("name".into(), name.as_str().into());
                if let Some(from) = from {
                    body.insert("from".into(), from.as_str().into());
                }
                let extra = Extra { body: Some(Value::Object(body)), ..Extra::default() };
                session.post("/v1/channels", extra)?
            }
            What::Show { channel } => {
                let mut answer = session.get(&path(channel, ""))?;
                if answer["pull"].is_string() {
                    answer["inputs"] = session.get(&path(channel, "/inputs"))?["inputs"].take();
                }
                answer
            }
            What::Set { channel, fields } => {
                let body = fields.read()?;
                if body.is_empty() {
                    return Err(Failure::usage(
                        "nothing to change: give --mode, --kind, --ladder, --publish-from, --pull or --field",
                    ));
                }
                let extra = Extra { body: Some(Value::Object(body)), ..Extra::default() };
                session.ask(Method::PATCH, &path(channel, ""), extra)?
            }
            What::Start { channel, wait } => session.post(&path(channel, "/start"), wait.extra())?,
            What::Stop { channel, wait } => session.post(&path(channel, "/stop"), wait.extra())?,
            What::Delete { channel, force } => {
                let force = query(&[("force", force.then(|| "true".to_owned()))]);
                session.ask(Method::DELETE, &path(channel, &force), Extra::default())?
            }
            What::RotateKey { channel, grace } => {
                let extra = Extra { body: Some(json!({ "grace_s": grace })), ..Extra::default() };
                session.post(&path(channel, "/rotate-key"), extra)?
            }
        };
        match &self.what {
            _ if json => print_json(&answer),
            What::Create { .. } | What::RotateKey { .. } => announce(&answer, &self.remote.server),
            What::Delete { channel, .. } => print(&format!("channel {channel} is deleted")),
            What::Set { .. } => tell_changes(&answer),
            What::Show { .. } => show(&answer),
            _ => print(&format!("channel {} is {}", cell(&answer["name"]), state_of(&answer))),
        }
        Ok(())
    }
}

fn list(session: &Session, state: Option<String>, json: bool) -> Result<(), Failure> {
    let channels = remote::all(session, "/v1/channels", &[("state", state)], usize::MAX)?;
    if json {
        print_json(&Value::Array(channels));
        return Ok(());
    }
    let row = |c: &Value| {
        let session = cell(&c["session"]);
        vec![cell(&c["name"]), state_of(c), cell(&c["kind"]), cell(&c["mode"]), session, instant(&c["created_at"])]
    };
    let rows: Vec<Vec<String>> = channels.iter().map(row).collect();
    print_table(&["name", "state", "kind", "mode", "session", "created"], &rows);
    Ok(())
}

fn snapshot(session: &Session, path: &str, output: &Path, json: bool) -> Result<(), Failure> {
    let jpeg = session.fetch(Method::POST, path, Extra::default())?;
    let wrong = |e: std::io::Error| Failure::failed(format!("{}: {e}", output.display()));
    if output == Path::new("-") {
        return std::io::Write::write_all(&mut std::io::stdout().lock(), &jpeg).map_err(wrong);
    }
    std::fs::write(output, &jpeg).map_err(wrong)?;
    let (file, bytes) = (output.display().to_string(), jpeg.len());
    if json {
        print_json(&json!({ "file": file, "bytes": bytes }));
    } else {
        print(&format!("{file}: {bytes} bytes"));
    }
    Ok(())
}

fn passphrase(session: &Session, path: &str, file: Option<&Path>, json: bool) -> Result<(), Failure> {
    let wrong = |file: &Path, e: std::io::Error| Failure::usage(format!("{}: {e}", file.display()));
    let made = file.is_none().then(|| publish_key(random::secret()));
    let text = match (file, &made) {
        (Some(file), _) if file == Path::new("-") => {
            std::io::read_to_string(std::io::stdin()).map_err(|e| wrong(file, e))?
        }
        (Some(file), _) => std::fs::read_to_string(file).map_err(|e| wrong(file, e))?,
        (None, made) => made.clone().unwrap_or_default(),
    };
    let first = text.lines().next().unwrap_or_default().trim();
    let extra = Extra { body: Some(json!({ "passphrase": first })), ..Extra::default() };
    let mut answer = session.ask(Method::PUT, path, extra)?;
    if json {
        answer["passphrase"] = json!(made);
        print_json(&answer);
        return Ok(());
    }
    if let Some(made) = &made {
        print(&format!("passphrase  {made}   (shown once: keep it)"));
    }
    print(&format!("publish to  {}&passphrase=…", cell(&answer["inputs"][0]["url"])));
    Ok(())
}

fn state_of(channel: &Value) -> String {
    let state = cell(&channel["state"]);
    if channel["armed"] == true && state == "idle" { "idle (armed)".to_owned() } else { state }
}

/// What to type where. The key is in no other answer.
fn announce(channel: &Value, server: &str) {
    let (name, key) = (cell(&channel["name"]), cell(&channel["stream_key"]));
    let input = &channel["inputs"][0];
    let url = cell(&input["url"]).replace("KEY", &key);
    print(&format!("channel {name} ({}, {})", cell(&channel["kind"]), cell(&channel["mode"])));
    print("");
    print(&format!("  key       {key}   (shown once: keep it)"));
    print("  OBS       Settings > Stream > Service: Custom, Server:");
    print(&format!("              {url}"));
    print("  ffmpeg    ffmpeg -re -i FILE -c:v libx264 -g 50 -c:a aac -f mpegts \\");
    print(&format!("              '{url}'"));
    if input["passphrase"] == "box" {
        print("            (this box wants its SRT passphrase, too: add &passphrase=…)");
    }
    let quic = channel["inputs"].as_array().into_iter().flatten().find(|input| input["protocol"] == "quic");
    if let Some(quic) = quic {
        print(&format!("  QUIC      rung push FILE '{}'", cell(&quic["url"]).replace("KEY", &key)));
    }
    if channel["pull"].is_string() {
        print(&format!("  source    {}   (Rung calls it while nobody publishes)", cell(&channel["pull"])));
    }
    let server = server.trim_end_matches('/');
    print(&format!("  playlist  {server}{}", cell(&channel["playback"]["playlist"])));
    print(&format!("  watch     {server}{}", cell(&channel["playback"]["watch"])));
}

fn tell_changes(answer: &Value) {
    let (now, next) = (&answer["applied"]["now"], &answer["applied"]["next_session"]);
    let name = cell(&answer["name"]);
    for (fields, when) in [(now, "in force"), (next, "in force from the next session on")] {
        if fields.as_array().is_some_and(|all| !all.is_empty()) {
            print(&format!("channel {name}: {} {when}", cell(fields)));
        }
    }
    if [now, next].iter().all(|fields| fields.as_array().is_none_or(Vec::is_empty)) {
        print(&format!("channel {name} is so already"));
    }
}

fn show(channel: &Value) {
    let keys = channel["stream_keys"].as_array().cloned().unwrap_or_default();
    let key = |k: &Value| match &k["expires_at"] {
        Value::Null => format!("{}…", cell(&k["prefix"])),
        end => format!("{}… (until {})", cell(&k["prefix"]), instant(end)),
    };
    let ladder = channel["ladder"].as_array().map(|all| {
        all.iter()
            .map(|r| {
                let codec = if r["codec"] == "hevc" { " HEVC" } else { "" };
                format!("{} {} kb/s{codec}", cell(&r["name"]), r["bitrate"].as_u64().unwrap_or(0) / 1000)
            })
            .collect::<Vec<_>>()
            .join(", ")
    });
    let mut rows = vec![
        ("name", cell(&channel["name"])),
        ("id", cell(&channel["id"])),
        ("state", state_of(channel)),
        ("session", cell(&channel["session"])),
        ("keys", keys.iter().map(key).collect::<Vec<_>>().join(", ")),
        (
            "srt_passphrase",
            if channel["srt_passphrase"] == true { "its own" } else { "the box's, if it has one" }.to_owned(),
        ),
        ("logo", describe_logo(&channel["logo"])),
        ("crop", describe_crop(&channel["crop"])),
        ("pull", describe_pull(channel)),
        ("captions", describe_captions(&channel["captions"])),
        ("steering", describe_steering(&channel["steering"])),
        ("ladder", ladder.unwrap_or_else(|| "default of the source's height".to_owned())),
    ];
    for field in [
        "kind",
        "mode",
        "hold_back_ms",
        "window_s",
        "start_offset_s",
        "preset",
        "audio_only",
        "max_duration_s",
        "takeover",
        "activation",
        "reconnect_window_s",
        "on_max_duration",
        "end_on_eos",
        "legs",
        "publish_from",
        "playback_policy",
        "revision",
    ] {
        rows.push((field, cell(&channel[field])));
    }
    for address in ["playlist", "poster", "storyboard"] {
        rows.push((address, cell(&channel["playback"][address])));
    }
    for (name, value) in rows {
        print(&format!("{name:<20}{value}"));
    }
}

/// Where the source is, and how far.
fn describe_pull(channel: &Value) -> String {
    let inputs = channel["inputs"].as_array().into_iter().flatten();
    match inputs.into_iter().find(|input| input["direction"] == "pull") {
        None => cell(&channel["pull"]),
        Some(input) => match cell(&input["error"]) {
            none if none == "-" => format!("{} ({})", cell(&channel["pull"]), cell(&input["state"])),
            error => format!("{} ({}: {error})", cell(&channel["pull"]), cell(&input["state"])),
        },
    }
}

fn describe_steering(steering: &Value) -> String {
    let pathway = |p: &Value| match cell(&p["base"]) {
        base if base.is_empty() => cell(&p["id"]),
        base => format!("{} ({base})", cell(&p["id"])),
    };
    match steering["pathways"].as_array() {
        None => cell(steering),
        Some(all) => all.iter().map(pathway).collect::<Vec<_>>().join(", "),
    }
}

fn describe_captions(captions: &Value) -> String {
    let one = |service: &Value| {
        let more = ["language", "name"].map(|field| cell(&service[field])).into_iter().filter(|text| text != "-");
        let more: Vec<String> = more.collect();
        let id = cell(&service["instream_id"]);
        if more.is_empty() { id } else { format!("{id} ({})", more.join(", ")) }
    };
    match captions.as_array() {
        None => "those that the source carries".to_owned(),
        Some(none) if none.is_empty() => "none".to_owned(),
        Some(services) => services.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

fn describe_crop(crop: &Value) -> String {
    match crop {
        Value::Null => cell(crop),
        crop => ["left", "right", "top", "bottom"].map(|edge| format!("{edge} {}", cell(&crop[edge]))).join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_numbers_truths_text_or_the_default() {
        assert_eq!(field_value("0"), json!(0));
        assert_eq!(field_value("true"), json!(true));
        assert_eq!(field_value("single"), json!("single"));
        assert_eq!(field_value("\"x\""), json!("\"x\""));
        assert_eq!(field_value("{\"top\": 140}"), json!({ "top": 140 }));
        assert_eq!(field_value("[]"), json!([]));
        assert_eq!(field_value(""), Value::Null);
    }
}

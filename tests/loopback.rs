//! The whole way, from outside: real publishers over SRT into the daemon, the model player on every rendition, every
//! picture's number read back from the fetched segments.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[path = "support/numbered.rs"]
mod numbered;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use daemon::{Daemon, KEY, Running, ffmpeg_publish, wait};
use follow::{Follow, Followed, ffprobe};
use numbered::{Drawn, clip};
use rung::time::SystemClock;

const SMALL_LADDER: &str =
    "ladder = [{ name = \"180p\", height = 180, bitrate = 400000 }, { name = \"90p\", height = 90, bitrate = 150000 }]";
const TEST_LADDER: &str = "ladder = [{ name = \"540p\", height = 540, bitrate = 1800000 }, \
                           { name = \"360p\", height = 360, bitrate = 900000 }, \
                           { name = \"216p\", height = 216, bitrate = 400000 }]";

fn tone(seconds: u32) -> String {
    format!("sine=frequency=440:sample_rate=48000:duration={seconds}")
}

/// B-frames, closed GOPs of two seconds, AAC 48 kHz stereo.
fn natural(seconds: u32) -> PathBuf {
    let drawn = Drawn { width: 960, height: 540, rate: "25", pictures: 25 * seconds };
    clip(
        &format!("natural-{seconds}.ts"),
        drawn,
        &[&tone(seconds)],
        "-c:v libx264 -preset veryfast -profile:v high -bf 3 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 2M \
         -c:a aac -ac 2 -b:a 128k",
    )
}

/// The same, small.
fn small(name: &str, rate: &'static str, pictures: u32, audio: &[&str], encode: &str) -> PathBuf {
    let video = "-c:v libx264 -preset veryfast -profile:v main -bf 2 -sc_threshold 0 -b:v 500k";
    clip(name, Drawn { width: 320, height: 180, rate, pictures }, audio, &format!("{video} {encode}"))
}

fn plain(seconds: u32) -> PathBuf {
    small(
        &format!("plain-{seconds}.ts"),
        "25",
        25 * seconds,
        &[&tone(seconds)],
        "-g 50 -keyint_min 50 -c:a aac -ac 2 -b:a 96k",
    )
}

/// ffmpeg paces the file, srt-live-transmit calls.
fn transmit_publish(file: &Path, url: &str) -> (Running, Running) {
    let mut pacer = Command::new("ffmpeg");
    pacer.args(["-v", "error", "-re", "-i"]).arg(file).args(["-map", "0", "-c", "copy", "-f", "mpegts", "pipe:1"]);
    let mut pacer = pacer.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("ffmpeg is installed");
    let pipe = pacer.stdout.take().expect("piped");
    let mut caller = Command::new("srt-live-transmit");
    caller.args(["-chunk:1316", "-quiet", "-a:no", "file://con", url]).stdin(pipe).stdout(Stdio::null());
    (Running(pacer), Running(caller.spawn().expect("srt-live-transmit is installed")))
}

/// One test at a time: each fills two cores.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn channel(name: &str, kind: &str, mode: &str, more: &str) -> String {
    format!("[[bootstrap.channel]]\nname = \"{name}\"\nkind = \"{kind}\"\nmode = \"{mode}\"\n{more}\n")
}

fn transcode(name: &str, mode: &str, ladder: &str) -> String {
    channel(name, "transcode", mode, &format!("preset = \"ultrafast\"\n{ladder}"))
}

/// Parts of a source rendition that are empty because ffmpeg's last connection lingers for two seconds.
const LINGER_GAPS: u64 = 6;

/// Follows until the publisher's end has arrived on every rendition.
fn to_the_end(follow: Follow, what: &str) -> Followed {
    let seen = follow.until_ended(Duration::from_secs(50));
    println!("{what}: {:?}", seen.report);
    seen.assert_satisfied(what);
    assert!(seen.report.ended, "{what}: no ENDLIST: {:?}", seen.report);
    let r = &seen.report;
    assert!(r.gaps <= LINGER_GAPS && r.discontinuities == 0, "{what}: {r:?}: {:#?}", seen.gaps());
    seen.assert_gaps_at_the_end_only(what);
    seen
}

#[track_caller]
fn assert_video(seen: &Followed, what: &str, rendition: &str, size: &str, frames: usize) {
    let fetched = seen.rendition(rendition);
    let what = format!("{what} {rendition}");
    fetched.assert_segments_begin_with_idr(&what);
    fetched.assert_consecutive(&what);
    // The last segment ends where the publisher did.
    let whole = fetched.segments.len() - 1;
    let file = fetched.file();
    let counted = numbered::read_counters(&file).len();
    assert!(
        (whole * frames..=(whole + 1) * frames).contains(&counted),
        "{what}: {counted} pictures in {whole}+1 segments"
    );
    let variant = seen.variant(rendition);
    assert!(variant.contains(&format!("RESOLUTION={size}")), "{what}: {variant}");
    let probe =
        ffprobe(&file, &["-select_streams", "v:0", "-show_entries", "stream=codec_name,profile,level,width,height"]);
    let field =
        |name: &str| probe.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).unwrap_or("").to_owned();
    assert_eq!(format!("{}x{}", field("width"), field("height")), size, "{what}");
    let level: u32 = field("level").parse().expect("a level");
    let profile = match field("profile").as_str() {
        "High" => "64",
        "Main" => "4d",
        "Baseline" | "Constrained Baseline" => "42",
        other => panic!("{what}: profile {other}"),
    };
    let codec = variant.split("avc1.").nth(1).unwrap_or_default().to_ascii_lowercase();
    assert!(
        codec.starts_with(profile) && codec[4..].starts_with(&format!("{level:02x}")),
        "{what}: {variant}, {probe}"
    );
}

#[track_caller]
fn assert_audio(seen: &Followed, what: &str, rendition: &str, rate: u32, channels: u32) {
    let fetched = seen.rendition(rendition);
    let probe = ffprobe(
        &fetched.file(),
        &[
            "-select_streams",
            "a:0",
            "-show_entries",
            "stream=codec_name,sample_rate,channels",
            "-show_entries",
            "packet=dts",
        ],
    );
    assert!(probe.contains("codec_name=aac"), "{what}: {probe}");
    assert!(probe.contains(&format!("sample_rate={rate}\nchannels={channels}")), "{what}: {probe}");
    let times: Vec<i64> = probe.lines().filter_map(|l| l.strip_prefix("dts=")?.parse().ok()).collect();
    assert!(times.len() > 100, "{what}: {} frames of audio", times.len());
    let hole = times.windows(2).find(|w| w[1] - w[0] != 1024);
    assert_eq!(hole, None, "{what}: audio frames follow each other");
}

/// While all three are on air: posters at the frames that the rule names, of what each viewer sees; a storyboard whose dates
/// are those of the playlist; a snapshot.
fn assert_pictures(daemon: &Daemon) {
    let poster = |name: &str| daemon.wait_for(&format!("/live/{name}/poster.jpg"), Duration::from_secs(20));
    let shown = |jpeg: &[u8]| numbered::read_counters(jpeg)[0].expect("the poster's number can be read");
    // A transmux source is shown where it can be decoded: here each 50 frames.
    for (name, every) in [("t", 125), ("h", 125), ("x", 50)] {
        let number = shown(&poster(name).body);
        assert_eq!(number % every, 0, "{name} shows frame {number}");
    }
    let first = poster("t");
    let next = wait(Duration::from_secs(10), "the next poster", || Some(poster("t")).filter(|p| p.body != first.body));
    let (before, now) = (shown(&first.body), shown(&next.body));
    assert_eq!(now, before + 125, "five seconds later");

    let playlist = daemon.get("/live/t/216p.m3u8").text();
    let date = |line: &str| line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:").map(str::to_owned);
    let dates: Vec<String> = playlist.lines().filter_map(date).collect();
    let text = daemon.get("/live/t/storyboard.vtt").text();
    let cue = text.split("\n\n").nth(1).expect("a cue").to_owned();
    let lines: Vec<&str> = cue.lines().collect();
    assert_eq!((lines[0], lines[1]), (dates[0].as_str(), "00:00:00.000 --> 00:00:10.000"), "{text}");
    let (sheet, place) = lines[2].split_once("#xywh=").expect("a place");
    assert_eq!(place, "0,0,160,90");
    let sheet = daemon.get(&format!("/live/t/{sheet}"));
    assert_eq!((sheet.status, sheet.header("content-type")), (200, Some("image/jpeg")), "{text}");

    for name in ["t", "x"] {
        let file = daemon.folder().join("snap.jpg");
        let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
        command.args(["channel", "snapshot", name, "-o"]).arg(&file).args(["--server", &daemon.url("")]);
        let token = daemon.folder().join("rung-data/admin.token");
        let said = command.arg("--token-file").arg(token).output().expect("rung starts");
        assert!(said.status.success(), "{name}: {}", String::from_utf8_lossy(&said.stderr));
        let number = shown(&std::fs::read(&file).expect("written"));
        assert!(number > 0, "{name} shows frame {number}");
    }
    assert!(daemon.metric("rung_pictures_total{channel=\"t\",kind=\"poster\"}") >= 2.0);
}

#[test]
fn each_kind_in_its_mode_from_real_publishers_loses_no_picture() {
    daemon::with_room(each_kind_in_its_mode_from_real_publishers_loses_no_picture_once);
}

fn each_kind_in_its_mode_from_real_publishers_loses_no_picture_once() {
    let _alone = alone();
    let clip = natural(26);
    let small = plain(26);
    let daemon = Daemon::start(
        &[
            transcode("t", "ultra", TEST_LADDER),
            // srt-live-transmit does not close its connection where its input ends.
            channel("x", "transmux", "low", "reconnect_window_s = 0"),
            channel("h", "hybrid", "normal", &format!("preset = \"ultrafast\"\n{SMALL_LADDER}")),
        ]
        .concat(),
    );
    let follow = |name| Follow::start(daemon.http, name);
    let (t, x, h) = (follow("t"), follow("x"), follow("h"));
    let _t = ffmpeg_publish(&clip, &daemon.publish_url("t"), &[]);
    wait(Duration::from_secs(10), "a publisher", || {
        daemon.log().lines().any(|l| l.contains("publisher_connected") && l.contains("channel=\"t\"")).then_some(())
    });
    let connected = SystemClock::mono();
    wait(Duration::from_secs(10), "a part", || {
        daemon.get("/live/t/540p.m3u8").text().contains("#EXT-X-PART:").then_some(())
    });
    let first_part = SystemClock::mono() - connected;
    println!("first part listed {:.2} s after the publisher connected", first_part.as_secs_f64());
    assert!(first_part < Duration::from_secs(6), "first part listed after {first_part:?}");
    let _h = ffmpeg_publish(&small, &daemon.publish_url("h"), &[]);
    let _x = transmit_publish(&small, &daemon.publish_url("x"));
    assert_pictures(&daemon);

    let seen = to_the_end(t, "transcode ultra");
    for (name, size) in [("540p", "960x540"), ("360p", "640x360"), ("216p", "384x216")] {
        assert_video(&seen, "transcode ultra", name, size, 50);
    }
    assert_eq!(seen.report.renditions, 4, "{}", seen.multivariant);
    let audio = seen.renditions.keys().find(|k| k.starts_with("a-")).expect("audio").clone();
    assert_audio(&seen, "transcode ultra", &audio, 48_000, 2);
    assert!(seen.variant("540p").contains("mp4a.40.2") && seen.variant("540p").contains("FRAME-RATE=25.000"));

    let seen = to_the_end(x, "transmux low");
    assert_video(&seen, "transmux low", "source", "320x180", 50);
    assert_audio(&seen, "transmux low", &audio, 48_000, 2);
    let seen = to_the_end(h, "hybrid normal");
    assert_video(&seen, "hybrid normal", "source", "320x180", 150);
    assert_video(&seen, "hybrid normal", "90p", "160x90", 150);
    assert_audio(&seen, "hybrid normal", &audio, 48_000, 2);
    assert!(!daemon.log().contains("worker_lost"), "no worker was replaced");
}

#[test]
fn odd_rates_sounds_and_programs_are_carried_whole() {
    daemon::with_room(odd_rates_sounds_and_programs_are_carried_whole_once);
}

fn odd_rates_sounds_and_programs_are_carried_whole_once() {
    let _alone = alone();
    let seconds = 14;
    let ntsc = small(
        "ntsc.ts",
        "30000/1001",
        30 * seconds,
        &["sine=frequency=440:sample_rate=44100:duration=14"],
        "-g 60 -keyint_min 60 -c:a aac -ac 1 -b:a 64k",
    );
    let fifty = small(
        "fifty.ts",
        "50",
        50 * seconds,
        &["sine=frequency=440:sample_rate=22050:duration=14"],
        "-g 100 -keyint_min 50 -c:a aac -ac 2 -b:a 64k",
    );
    let two = small(
        "two.ts",
        "25",
        25 * seconds,
        &[&tone(seconds), &tone(seconds)],
        "-map 0:v -map 1:a -map 2:a -g 25 -keyint_min 25 -c:a aac -ac 2 \
         -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu",
    );
    let mute = small("mute.ts", "25", 25 * seconds, &[], "-g 50 -keyint_min 50");
    let radio = clip(
        "radio.ts",
        Drawn { width: 16, height: 16, rate: "25", pictures: 25 * seconds },
        &[&tone(seconds)],
        "-map 1:a -c:a aac -ac 2 -b:a 96k",
    );
    let daemon = Daemon::start(
        &[
            transcode("ntsc", "ultra", SMALL_LADDER),
            transcode("fifty", "ultra", SMALL_LADDER),
            channel("two", "transmux", "ultra", ""),
            transcode("mute", "ultra", SMALL_LADDER),
            transcode("radio", "ultra", SMALL_LADDER),
            channel("hybrid", "hybrid", "ultra", &format!("preset = \"ultrafast\"\n{SMALL_LADDER}")),
        ]
        .concat(),
    );
    let plain = plain(seconds);
    let files =
        [("ntsc", &ntsc), ("fifty", &fifty), ("two", &two), ("mute", &mute), ("radio", &radio), ("hybrid", &plain)];
    let follows: Vec<Follow> = files.iter().map(|(name, _)| Follow::start(daemon.http, name)).collect();
    let _publishers: Vec<Running> =
        files.iter().map(|(name, file)| publish_all(file, &daemon.publish_url(name))).collect();
    let seen: Vec<Followed> = follows.into_iter().zip(files).map(|(f, (name, _))| to_the_end(f, name)).collect();
    let [ntsc, fifty, two, mute, radio, hybrid] = seen.try_into().expect("six");
    let audio_of =
        |seen: &Followed| -> Vec<String> { seen.renditions.keys().filter(|k| k.starts_with("a-")).cloned().collect() };

    assert_video(&ntsc, "ntsc", "180p", "320x180", 60);
    assert_video(&ntsc, "ntsc", "90p", "160x90", 60);
    assert!(ntsc.variant("180p").contains("FRAME-RATE=29.970"), "{}", ntsc.multivariant);
    assert_audio(&ntsc, "ntsc", &audio_of(&ntsc)[0], 44_100, 1);
    assert_video(&fifty, "fifty", "180p", "320x180", 100);
    assert_video(&fifty, "fifty", "90p", "160x90", 100);
    assert_audio(&fifty, "fifty, 22.05 kHz", &audio_of(&fifty)[0], 48_000, 2);
    assert_video(&two, "two", "source", "320x180", 50);
    let sounds = audio_of(&two);
    assert_eq!(sounds.len(), 2, "{}", two.multivariant);
    for (sound, language) in
        sounds.iter().zip([["LANGUAGE=\"de\"", "NAME=\"Deutsch\""], ["LANGUAGE=\"en\"", "NAME=\"English\""]])
    {
        assert_audio(&two, "two sounds", sound, 48_000, 2);
        assert!(language.iter().any(|l| two.variant(sound).contains(l)), "{}", two.multivariant);
    }
    assert_video(&mute, "video only", "180p", "320x180", 50);
    assert_eq!((mute.report.renditions, audio_of(&mute).len()), (2, 0), "{}", mute.multivariant);
    assert_eq!(radio.report.renditions, 1, "{}", radio.multivariant);
    assert_audio(&radio, "audio only", &audio_of(&radio)[0], 48_000, 2);
    assert_video(&hybrid, "hybrid", "source", "320x180", 50);
    assert_video(&hybrid, "hybrid", "90p", "160x90", 50);
    let (source, lower) = (hybrid.rendition("source"), hybrid.rendition("90p"));
    let shared = source.segments.keys().find(|k| lower.segments.contains_key(k)).expect("the same numbers");
    let from = |f: &follow::Fetched| {
        let until = *f.segments.keys().next().expect("some");
        f.assert_consecutive("hybrid") + 50 * u32::try_from(shared - until).expect("few")
    };
    assert_eq!(from(source), from(lower), "the same pictures under the same number");
}

/// Every track of the file.
fn publish_all(file: &Path, url: &str) -> Running {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re", "-i"]).arg(file).args([
        "-map",
        "0",
        "-c",
        "copy",
        "-f",
        "mpegts",
        &format!("{url}&linger=2"),
    ]);
    Running(command.stdin(Stdio::null()).spawn().expect("ffmpeg is installed"))
}

fn edges(daemon: &Daemon, path: &str) -> (u64, u64) {
    let text = daemon.get(path).text();
    let first = text.lines().find_map(|l| l.strip_prefix("#EXT-X-MEDIA-SEQUENCE:")?.parse().ok()).unwrap_or(0);
    (first, first + text.lines().filter(|l| l.starts_with("#EXTINF")).count() as u64)
}

fn session(daemon: &Daemon, channel: &str) -> (String, String) {
    let status: serde_json::Value = serde_json::from_slice(&daemon.get("/status.json").body).expect("JSON");
    let channels = status["channels"].as_array().expect("a list").clone();
    let one = channels.iter().find(|c| c["name"] == channel).expect("the channel").clone();
    let text = |v: &serde_json::Value| v.as_str().unwrap_or("").to_owned();
    (text(&one["state"]), text(&one["session"]))
}

#[test]
fn sessions_end_begin_again_change_publishers_and_keep_their_numbers() {
    daemon::with_room(sessions_end_begin_again_change_publishers_and_keep_their_numbers_once);
}

fn sessions_end_begin_again_change_publishers_and_keep_their_numbers_once() {
    let _alone = alone();
    let clip = plain(14);
    let secret = "a-passphrase-of-the-port";
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("pass"), secret).expect("writable");
    let locked = Daemon::start_with(
        &format!("[srt]\nlisten = \"127.0.0.1:0\"\npassphrase_file = {:?}\n", folder.path().join("pass")),
        &channel("locked", "transmux", "ultra", ""),
        &[],
    );
    let daemon = Daemon::start(
        &[
            channel("again", "transmux", "ultra", ""),
            transcode("newest", "ultra", &format!("takeover = \"newest\"\n{SMALL_LADDER}")),
            transcode("legs", "ultra", SMALL_LADDER),
        ]
        .concat(),
    );
    // An encrypted port.
    let encrypted = Follow::start(locked.http, "locked");
    let open_url = locked.publish_url("locked");
    let _locked = ffmpeg_publish(&clip, &format!("{open_url}&passphrase={}&pbkeylen=32", secret), &[]);
    // Takeover by the newest publisher, and two legs of which the first goes.
    let (newest, legs) = (Follow::start(daemon.http, "newest"), Follow::start(daemon.http, "legs"));
    let mut first = ffmpeg_publish(&clip, &daemon.publish_url("newest"), &[]);
    let a = ffmpeg_publish(&clip, &format!("{}/a", daemon.publish_url("legs")), &[]);
    let _b = ffmpeg_publish(&clip, &format!("{}/b", daemon.publish_url("legs")), &["-stream_loop", "1"]);
    // A short broadcast, then another one.
    let short = ffmpeg_publish(&clip, &daemon.publish_url("again"), &[]);
    for name in ["again", "newest", "legs"] {
        daemon.wait_for(&format!("/live/{name}/index.m3u8"), Duration::from_secs(20));
    }
    let (_, before_takeover) = session(&daemon, "newest");
    let (_, before_switch) = session(&daemon, "legs");
    let _second = ffmpeg_publish(&clip, &daemon.publish_url("newest"), &[]);
    drop(a);
    wait(Duration::from_secs(10), "the first publisher's end", || first.0.try_wait().expect("own child"));
    daemon::signal(short.0.id(), "INT");
    let ended = wait(Duration::from_secs(20), "ENDLIST", || {
        Some(daemon.get("/live/again/source.m3u8").text()).filter(|t| t.contains("#EXT-X-ENDLIST"))
    });
    assert!(ended.contains("#EXTINF"), "{ended}");
    let (_, last) = edges(&daemon, "/live/again/source.m3u8");
    let (_, old) = session(&daemon, "again");
    wait(Duration::from_secs(5), "the state", || (session(&daemon, "again").0 == "ended").then_some(()));
    let again = ffmpeg_publish(&clip, &daemon.publish_url("again"), &[]);
    let next = wait(Duration::from_secs(20), "the next session", || {
        let (state, now) = session(&daemon, "again");
        (state == "live" && now != old).then_some(now)
    });
    let (start, _) = edges(&daemon, "/live/again/source.m3u8");
    assert!(start >= last, "numbers go on: {last} then {start}");
    let text = daemon.get("/live/again/source.m3u8").text();
    assert!(text.contains(&next) && !text.contains(&old), "{text}");
    let follow = Follow::start(daemon.http, "again");
    wait(Duration::from_secs(20), "two more segments", || {
        (edges(&daemon, "/live/again/source.m3u8").1 > start + 4).then_some(())
    });
    daemon::signal(again.0.id(), "INT");
    let seen = to_the_end(follow, "the second session");
    seen.rendition("source").assert_consecutive("the second session");

    let seen = newest.until_ended(Duration::from_secs(40));
    println!("newest: {:?}", seen.report);
    seen.assert_satisfied("newest publisher takes over");
    assert_eq!(session(&daemon, "newest").1, before_takeover, "one session");
    assert_eq!((seen.report.ended, seen.report.gaps, seen.report.discontinuities), (true, 0, 0), "{:?}", seen.report);
    let seen = legs.until_ended(Duration::from_secs(60));
    println!("legs: {:?}", seen.report);
    seen.assert_satisfied("leg b carries on");
    assert_eq!(session(&daemon, "legs").1, before_switch, "one session");
    let r = &seen.report;
    assert_eq!((r.ended, r.gaps, r.discontinuities), (true, 0, 0), "{r:?}: {:#?}", seen.gaps());
    let seen = to_the_end(encrypted, "encrypted");
    seen.rendition("source").assert_consecutive("encrypted");
    assert!(locked.log().contains("AES-256"), "{}", locked.log());
    assert!(KEY.len() == 26);
}

/// 48 kHz for six seconds, then 44.1 kHz: another init section for the sound, so a DISCONTINUITY before one segment of
/// every rendition, and no GAP.
#[test]
fn sound_that_changes_in_mid_session_breaks_every_rendition_before_one_segment() {
    daemon::with_room(sound_that_changes_once);
}

fn sound_that_changes_once() {
    let _alone = alone();
    let half = |name: &str, rate: u32, offset: u32| {
        let sound = format!("sine=frequency=440:sample_rate={rate}:duration=6");
        let encode = format!("-g 50 -keyint_min 50 -c:a aac -ac 2 -b:a 96k -output_ts_offset {offset}");
        std::fs::read(small(name, "25", 150, &[&sound], &encode)).expect("made")
    };
    let whole = [half("sound-48.ts", 48_000, 10), half("sound-44.ts", 44_100, 16)].concat();
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clips/sound-changes.ts");
    std::fs::write(&file, whole).expect("writable");
    let daemon =
        Daemon::start(&[transcode("ladder", "ultra", SMALL_LADDER), channel("copy", "transmux", "ultra", "")].concat());
    let names = ["ladder", "copy"];
    let follows: Vec<Follow> = names.iter().map(|name| Follow::start(daemon.http, name)).collect();
    let _publishers: Vec<Running> = names.iter().map(|name| publish_all(&file, &daemon.publish_url(name))).collect();
    for (follow, name) in follows.into_iter().zip(names) {
        let seen = follow.until_ended(Duration::from_secs(50));
        println!("{name}: {:?}", seen.report);
        seen.assert_satisfied(name);
        assert!(seen.report.gaps <= LINGER_GAPS, "{name}: {:?}", seen.report);
        seen.assert_gaps_at_the_end_only(name);
        let mut broken = Vec::new();
        for rendition in seen.renditions.keys() {
            let text = daemon.get(&format!("/live/{name}/{rendition}.m3u8")).text();
            let (_, after) = text.split_once("#EXT-X-DISCONTINUITY\n").unwrap_or_else(|| panic!("{rendition}: {text}"));
            assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{name} {rendition}: {text}");
            let first = after.lines().find(|line| !line.starts_with('#')).expect("a segment follows");
            broken.push(first.rsplit('/').next().unwrap_or_default().to_owned());
            assert_eq!(after.contains("init-1.mp4"), rendition.starts_with("a-"), "{name} {rendition}: {text}");
        }
        broken.dedup();
        assert_eq!(broken.len(), 1, "{name}: {broken:?}");
    }
}

/// What contribution encoders send beside H.264: HEVC of ten bits with open GOPs, interlaced MPEG-2 video. Both become
/// ladders, picture for picture; a channel that passes its source on refuses them by name.
#[test]
fn hevc_of_ten_bits_and_interlaced_mpeg2_become_ladders() {
    daemon::with_room(hevc_and_mpeg2_once);
}

fn hevc_and_mpeg2_once() {
    let _alone = alone();
    let made = |name: &str, encode: &str| {
        let drawn = Drawn { width: 638, height: 358, rate: "25", pictures: 250 };
        clip(name, drawn, &[&tone(10)], &format!("{encode} -c:a aac -ac 2 -b:a 96k"))
    };
    let hevc = made(
        "hevc-ten.ts",
        "-pix_fmt yuv420p10le -c:v libx265 -preset ultrafast -b:v 1M \
         -x265-params log-level=none:keyint=25:min-keyint=25:scenecut=0:bframes=3:b-pyramid=1:open-gop=1",
    );
    let mpeg2 = made("mpeg2-fields.ts", "-c:v mpeg2video -flags +ilme+ildct -top 1 -bf 2 -g 12 -b:v 4M");
    let daemon = Daemon::start(
        &[
            transcode("hevc", "ultra", SMALL_LADDER),
            transcode("mpeg2", "ultra", SMALL_LADDER),
            channel("copy", "transmux", "ultra", ""),
        ]
        .concat(),
    );
    let files = [("hevc", &hevc), ("mpeg2", &mpeg2)];
    let follows: Vec<Follow> = files.iter().map(|(name, _)| Follow::start(daemon.http, name)).collect();
    let _publishers: Vec<Running> =
        files.iter().map(|(name, file)| publish_all(file, &daemon.publish_url(name))).collect();
    let _copy = publish_all(&hevc, &daemon.publish_url("copy"));
    for (follow, (name, _)) in follows.into_iter().zip(files) {
        let seen = to_the_end(follow, name);
        assert_video(&seen, name, "180p", "320x180", 50);
        assert_video(&seen, name, "90p", "160x90", 50);
        let audio = seen.renditions.keys().find(|k| k.starts_with("a-")).expect("audio").clone();
        assert_audio(&seen, name, &audio, 48_000, 2);
    }
    let log = daemon.log();
    assert!(!log.contains("worker_lost"), "no worker was replaced: {log}");
    let why = "the source's video is HEVC, and a transmux or hybrid channel passes on H.264 only: set kind = ";
    assert!(log.contains(why), "{log}");
}

//! Cues and timed tags from a real publisher to what a viewer sees: date ranges ahead of their time, an IDR at exactly the
//! frame of each splice in every rendition, tags in front of the part of their time; and hostile ones, of which nothing is seen.

#[path = "support/browser.rs"]
mod browser;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/cues.rs"]
mod cues;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[path = "support/numbered.rs"]
mod numbered;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cues::Script;
use daemon::{Daemon, Running};
use follow::{Fetched, Follow, ffprobe};
use mp4_atom::{Atom, Emsg, FourCC, Header, ReadAtom, ReadFrom};
use numbered::Drawn;
use rung::package::player::parse;
use rung::time::{Clock, SystemClock};

const FRAME: u64 = 3_600;
const WRAP: u64 = 1 << 33;
const RENDITIONS: [&str; 2] = ["180p", "90p"];
const LADDER: &str =
    "ladder = [{ name = \"180p\", height = 180, bitrate = 400000 }, { name = \"90p\", height = 90, bitrate = 150000 }]";

/// Numbered pictures with B-frames, and sound; time stamps begin `offset` seconds late.
fn plain(seconds: u32, offset: u32) -> Vec<u8> {
    let drawn = Drawn { width: 320, height: 180, rate: "25", pictures: 25 * seconds };
    let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    let encode = format!(
        "-c:v libx264 -preset veryfast -profile:v main -bf 2 -sc_threshold 0 -b:v 500k -g 50 -keyint_min 50 \
         -c:a aac -ac 2 -b:a 96k -output_ts_offset {offset}"
    );
    let path = numbered::clip(&format!("markers-{seconds}-{offset}.ts"), drawn, &[&tone], &encode);
    std::fs::read(path).expect("just made")
}

fn push(file: &Path, url: &str) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.args(["push", "--quiet"]).arg(file).arg(url).stdin(Stdio::null()).stdout(Stdio::null());
    Running(command.spawn().expect("rung starts"))
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).expect("room for a clip");
    path
}

/// One DATERANGE line as it was first seen: its attributes, and the date up to which its playlist had media.
struct Seen {
    attributes: parse::Attributes,
    edge: i64,
}

/// Reads the playlists over and over until they end.
#[derive(Default)]
struct Watch {
    /// By rendition, in the order of their appearance.
    ranges: BTreeMap<&'static str, Vec<(String, Seen)>>,
    /// URIs of parts that are INDEPENDENT, and of all.
    independent: BTreeSet<String>,
    parts: BTreeSet<String>,
}

impl Watch {
    fn read(&mut self, rendition: &'static str, text: &str) {
        let list = parse::media(text).expect("our playlists parse");
        let mut edge = 0;
        for segment in &list.segments {
            edge = segment.date_time.unwrap_or(edge) + i64::try_from(segment.duration()).expect("short") / 1_000;
            for part in &segment.parts {
                self.parts.insert(part.uri.clone());
                if part.independent {
                    self.independent.insert(part.uri.clone());
                }
            }
        }
        let known = self.ranges.entry(rendition).or_default();
        for line in text.lines().filter(|line| line.starts_with("#EXT-X-DATERANGE:")) {
            if !known.iter().any(|(had, _)| had == line) {
                let attributes = parse::attributes(line.split_once(':').expect("a tag").1);
                known.push((line.to_owned(), Seen { attributes, edge }));
            }
        }
    }
}

/// Watches channel `c` until ENDLIST.
fn watch(daemon: &Daemon, renditions: &[&'static str], limit: Duration) -> Watch {
    let mut watch = Watch::default();
    daemon::wait(limit, "ENDLIST", || {
        let mut ended = 0;
        for name in renditions {
            let answer = daemon.get(&format!("/live/c/{name}.m3u8"));
            if answer.status == 200 {
                watch.read(name, &answer.text());
                ended += usize::from(answer.text().contains("#EXT-X-ENDLIST"));
            }
        }
        (ended == renditions.len()).then_some(())
    });
    watch
}

/// What becomes of a scripted channel.
struct Played {
    watch: Watch,
    followed: follow::Followed,
    daemon: Daemon,
}

fn play(kind: &str, renditions: &[&'static str], stream: &[u8], limit: Duration) -> Played {
    let more = if kind == "transcode" { format!("preset = \"ultrafast\"\n{LADDER}") } else { String::new() };
    let daemon =
        Daemon::start(&format!("[[bootstrap.channel]]\nname = \"c\"\nkind = \"{kind}\"\nmode = \"ultra\"\n{more}\n"));
    let path = file(&format!("{kind}.ts"), stream);
    let publisher = push(&path, &daemon.publish_url("c"));
    daemon.wait_for("/live/c/index.m3u8", Duration::from_secs(20));
    let follow = Follow::start(daemon.http, "c");
    let watch = watch(&daemon, renditions, limit);
    let followed = follow.until_ended(Duration::from_secs(10));
    drop(publisher);
    std::fs::remove_file(path).expect("own file");
    Played { watch, followed, daemon }
}

/// Numbers of the pictures that are IDRs, by ffprobe: its packets in presentation order are the pictures that were read.
fn keys(fetched: &Fetched) -> BTreeSet<u32> {
    let file = fetched.file();
    let probe = ffprobe(&file, &["-select_streams", "v:0", "-show_entries", "packet=pts,flags"]);
    let field = |name: &str| probe.lines().filter_map(|l| l.strip_prefix(name)).map(str::to_owned).collect::<Vec<_>>();
    let (pts, flags) = (field("pts="), field("flags="));
    let mut packets: Vec<(i64, bool)> =
        pts.iter().zip(&flags).map(|(p, f)| (p.parse().expect("a number"), f.starts_with('K'))).collect();
    packets.sort_unstable();
    let counters = numbered::read_counters(&file);
    assert_eq!(counters.len(), packets.len());
    packets.iter().zip(counters).filter(|((_, key), _)| *key).filter_map(|(_, counter)| counter).collect()
}

/// Date and place of picture `number`, by the rendition's last whole playlist; `first`: the first picture listed.
fn dated(fetched: &Fetched, first: u32, number: u32) -> (i64, u64, u32) {
    let list = parse::media(&fetched.playlist).expect("our playlists parse");
    let index = u64::from(number - first);
    let segment = &list.segments[usize::try_from(index / 50).expect("few")];
    let date = segment.date_time.expect("every segment has one") + i64::try_from(index % 50 * 40).expect("short");
    (date, segment.msn, u32::try_from(index % 50 / 10).expect("few"))
}

fn millis(date: &str) -> i64 {
    let text = format!("#EXTM3U\n#EXT-X-PROGRAM-DATE-TIME:{date}\n#EXTINF:1,\nx\n");
    parse::media(&text).expect("a date").segments[0].date_time.expect("a date")
}

#[test]
fn breaks_are_told_ahead_and_cut_to_the_frame_in_every_rendition() {
    daemon::with_room(breaks_are_told_ahead_and_cut_to_the_frame_in_every_rendition_once);
}

fn breaks_are_told_ahead_and_cut_to_the_frame_in_every_rendition_once() {
    let stream = plain(20, 0);
    let start = cues::first_pts(&stream);
    let pts = |picture: u32| (start + u64::from(picture) * FRAME) & (WRAP - 1);
    let mut script = Script::default();
    for sent in [60, 100, 140, 165] {
        script.section(pts(sent), cues::insert(7, true, pts(163), Some((4 * 90_000, false))));
    }
    script.section(pts(220), cues::insert(7, false, pts(263), None));
    script.section(pts(225), cues::segment(0x21, 0x30, pts(311), Some(3 * 90_000)));
    script.section(pts(330), cues::segment(0x21, 0x31, pts(377), None));
    script.section(pts(350), cues::insert(8, true, pts(405), Some((2 * 90_000, true))));
    script.section(pts(240), cues::insert(9, true, pts(346), None));
    script.section(pts(260), cues::cancel(9));
    for (sent, at, text) in [(122, 122, "first"), (259, 261, "second")] {
        script.tag(pts(sent), pts(at), cues::tag(text));
    }
    let played = play("transcode", &RENDITIONS, &cues::muxed(&stream, script), Duration::from_secs(60));
    let Played { watch, followed, daemon } = &played;
    followed.assert_satisfied("the model player");
    let splices = [163, 263, 311, 377, 405, 455];
    for name in RENDITIONS {
        let fetched = followed.rendition(name);
        let first = fetched.assert_consecutive(name);
        let keys = keys(fetched);
        let grid = keys.iter().copied().filter(|n| (n - first) % 50 != 0).collect::<Vec<_>>();
        assert_eq!(grid, splices, "{name}: IDRs beside those of the grid");
        let date = |picture: u32| dated(fetched, first, picture).0;
        let ranges = &watch.ranges[name];
        // The tag that says a range for the first time, and the one that says more.
        let told: Vec<(&str, i64, i64)> = ranges
            .iter()
            .map(|(_, seen)| (seen.attributes["ID"].as_str(), millis(&seen.attributes["START-DATE"]), seen.edge))
            .collect();
        let splice_7 = format!("splice-7-{}", 163 - first);
        let starts = [
            (&splice_7[..], 163),
            (&format!("splice-8-{}", 405 - first), 405),
            (&format!("provider-ad-21-{}", 311 - first), 311),
        ];
        for (id, picture) in starts {
            let mut tags = told.iter().filter(|(of, ..)| *of == id);
            let (_, start, edge) = *tags.next().unwrap_or_else(|| panic!("{name}: no {id}: {told:?}"));
            assert!((start - date(picture)).abs() <= 1, "{name} {id}: {start} is not {}", date(picture));
            assert!(edge < start, "{name} {id}: told when media had reached {edge}, begins at {start}");
            assert_eq!(tags.count(), 1, "{name} {id}: its end: {told:?}");
        }
        let end = |id: &str| &ranges.iter().rfind(|(_, seen)| seen.attributes["ID"] == id).expect("told").1.attributes;
        for (id, picture, seconds) in
            [(starts[0].0, 263, "4.00000"), (starts[1].0, 455, "2.00000"), (starts[2].0, 377, "2.64000")]
        {
            let last = end(id);
            assert!(
                (millis(&last["END-DATE"]) - date(picture)).abs() <= 1 && last["DURATION"] == seconds,
                "{name} {last:?}"
            );
        }
        let attribute = |id: &str, what: &str| {
            ranges
                .iter()
                .find_map(|(_, seen)| (seen.attributes["ID"] == id).then(|| seen.attributes.get(what).cloned())?)
        };
        let hex = |bytes: &[u8]| Some(format!("0x{}", bytes.iter().map(|b| format!("{b:02X}")).collect::<String>()));
        assert_eq!(
            attribute(starts[0].0, "SCTE35-OUT"),
            hex(&cues::insert(7, true, pts(163), Some((4 * 90_000, false))))
        );
        assert_eq!(end(starts[0].0).get("SCTE35-IN").cloned(), hex(&cues::insert(7, false, pts(263), None)));
        assert_eq!(attribute(starts[0].0, "PLANNED-DURATION").as_deref(), Some("4.00000"));
        assert_eq!(attribute(starts[2].0, "CLASS").as_deref(), Some("scte35-provider-ad"));
        assert_eq!(end(&format!("splice-9-{}", 346 - first))["DURATION"], "0.00000", "cancelled");
        for picture in splices {
            let (_, msn, part) = dated(fetched, first, picture);
            let uri = watch.parts.iter().find(|uri| uri.ends_with(&format!("{name}/p{msn}.{part}.m4s")));
            assert!(
                uri.is_some_and(|uri| watch.independent.contains(uri)),
                "{name}: part {msn}.{part} of picture {picture}"
            );
        }
        assert_tags(fetched, name, first);
    }
    let lines = |name| watch.ranges[name].iter().map(|(line, _)| line).collect::<Vec<_>>();
    assert_eq!(lines("180p"), lines("90p"), "the same in every playlist");
    let sound = parse::media(&daemon_text(followed, "a-und-1")).expect("parses").dates;
    assert_eq!(sound.len(), 4, "in that of the sound too: {sound:?}");
    let metric = |series: &str| daemon.metric(series);
    assert_eq!(metric("rung_markers_total{channel=\"c\",kind=\"splice_insert\"}"), 8.0);
    assert_eq!(metric("rung_markers_repeated_total{channel=\"c\"}"), 3.0);
    assert_eq!(metric("rung_markers_total{channel=\"c\",kind=\"id3\"}"), 2.0);
}

fn daemon_text(followed: &follow::Followed, name: &str) -> String {
    followed.rendition(name).playlist.clone()
}

/// Each tag is in front of the moof of the part in which its time falls, as an independent parser reads it.
fn assert_tags(fetched: &Fetched, name: &str, first: u32) {
    let mut found = Vec::new();
    for (msn, body) in &fetched.segments {
        let (mut rest, mut part, mut waiting) = (&body[..], 0u32, Vec::new());
        while !rest.is_empty() {
            let header = Header::read_from(&mut rest).expect("boxes in a row");
            let size = header.size.expect("a size");
            if header.kind == Emsg::KIND {
                let emsg = Emsg::read_atom(&header, &mut &rest[..size]).expect("an emsg box");
                waiting.push(emsg);
            } else if header.kind == FourCC::new(b"moof") {
                found.extend(waiting.drain(..).map(|emsg| (*msn, part, emsg)));
                part += 1;
            }
            rest = &rest[size..];
        }
        assert!(waiting.is_empty(), "{name}: an emsg box behind the last moof of segment {msn}");
    }
    assert_eq!(found.len(), 2, "{name}: {found:?}");
    for ((msn, part, emsg), (picture, text)) in found.iter().zip([(122, "first"), (261, "second")]) {
        let (_, at_msn, at_part) = dated(fetched, first, picture);
        assert_eq!((*msn, *part), (at_msn, at_part), "{name}: {text}");
        assert_eq!((emsg.scheme_id_uri.as_str(), emsg.value.as_str()), ("https://aomedia.org/emsg/ID3", ""));
        let time = format!("{:?}", emsg.presentation_time);
        let expected = u64::from(picture - first) * u64::from(emsg.timescale) / 25;
        assert!(time.contains(&format!("({expected})")), "{name}: {time} is not {expected}");
        assert_eq!(emsg.message_data, cues::tag(text), "{name}");
    }
}

/// A passed-through source: nothing can be forced, dates are told all the same, over the wrap of its time stamps. Whatever
/// else comes on the PIDs of cues and tags does not touch a picture.
#[test]
fn hostile_cues_beside_a_live_source_cost_it_nothing() {
    daemon::with_room(hostile_cues_beside_a_live_source_cost_it_nothing_once);
}

fn hostile_cues_beside_a_live_source_cost_it_nothing_once() {
    // 2^33 ticks are 95443.7 s.
    let stream = plain(12, 95_438);
    let start = cues::first_pts(&stream);
    let pts = |picture: u32| (start + u64::from(picture) * FRAME) & (WRAP - 1);
    assert!(pts(0) > pts(200), "the wrap lies within");
    let mut script = Script::default();
    // Before the wrap, for a frame behind it.
    script.section(pts(100), cues::insert(7, true, pts(173), Some((2 * 90_000, false))));
    script.section(pts(180), cues::insert(7, false, pts(223), None));
    let mut noise = 0x9E37_79B9_7F4A_7C15_u64;
    let mut byte = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 56) as u8
    };
    for sent in 10..290u32 {
        let good = cues::insert(sent, true, pts(sent), None);
        script.section(pts(sent), good[..good.len() - 1].to_vec());
        script.section(pts(sent), cues::sealed(good.clone(), |section| section[4] |= 0x80));
        script.section(pts(sent), cues::sealed(good, |section| section[14..].iter_mut().for_each(|b| *b = byte())));
        script.tag(pts(sent), pts(sent), (0..700).map(|_| byte()).collect());
        if sent > 230 {
            // Good ones, too many of them.
            (0..4).for_each(|k| script.section(pts(sent), cues::segment(sent * 4 + k, 0x01, pts(sent + k), None)));
        }
    }
    let played = play("transmux", &["source"], &cues::muxed(&stream, script), Duration::from_secs(60));
    let Played { watch, followed, daemon } = &played;
    followed.assert_satisfied("the model player");
    assert_eq!((followed.report.gaps, followed.report.discontinuities), (0, 0), "{:?}", followed.report);
    let fetched = followed.rendition("source");
    let first = fetched.assert_consecutive("source");
    assert!(keys(fetched).iter().all(|number| (number - first) % 50 == 0), "a source's IDRs are its own");
    let id = format!("splice-7-{}", 173 - first);
    let (_, seen) = watch.ranges["source"].iter().find(|(_, seen)| seen.attributes["ID"] == id).expect("told");
    let begins = millis(&seen.attributes["START-DATE"]);
    assert!((begins - dated(fetched, first, 173).0).abs() <= 1 && seen.edge < begins);
    let (_, last) = watch.ranges["source"].iter().rfind(|(_, seen)| seen.attributes["ID"] == id).expect("told");
    assert_eq!(last.attributes["DURATION"], "2.00000");
    let metric = |series: &str| daemon.metric(series);
    assert!(metric("rung_faults_total{channel=\"c\",kind=\"section_crc\"}") >= 200.0);
    assert!(metric("rung_faults_total{channel=\"c\",kind=\"scrambled\"}") >= 200.0);
    assert!(metric("rung_faults_total{channel=\"c\",kind=\"cue\"}") >= 200.0);
    assert!(metric("rung_markers_dropped_total{channel=\"c\",reason=\"flood\"}") >= 50.0);
}

/// hls.js hands tags and date ranges to the page at the pictures that they belong to.
#[test]
fn a_player_shows_tags_and_breaks_at_their_pictures() {
    daemon::with_room(a_player_shows_tags_and_breaks_at_their_pictures_once);
}

fn a_player_shows_tags_and_breaks_at_their_pictures_once() {
    let stream = plain(40, 0);
    let start = cues::first_pts(&stream);
    let pts = |picture: u32| start + u64::from(picture) * FRAME;
    let mut script = Script::default();
    script.section(pts(180), cues::insert(7, true, pts(262), Some((90_000, true))));
    script.tag(pts(281), pts(281), cues::tag("hello"));
    let path = file("player.ts", &cues::muxed(&stream, script));
    let daemon = Daemon::start(&format!(
        "[[bootstrap.channel]]\nname = \"c\"\nmode = \"ultra\"\npreset = \"ultrafast\"\n{LADDER}\n"
    ));
    let publisher = push(&path, &daemon.publish_url("c"));
    daemon.wait_for("/live/c/index.m3u8", Duration::from_secs(20));
    let options = browser::Options { seconds: 13, ..browser::Options::default() };
    let report = browser::watch(&daemon.url("/watch/c"), &options);
    drop(publisher);
    std::fs::remove_file(path).expect("own file");
    // A browser that is late reads the next picture at a picture's time.
    let near = |cue: &browser::MetadataCue, picture: u32| cue.picture.is_some_and(|seen| seen.abs_diff(picture) <= 5);
    let tag = report
        .cues
        .iter()
        .find(|cue| cue.kind.ends_with("emsg/ID3"))
        .unwrap_or_else(|| panic!("no tag: {:#?}", report.cues));
    assert!(tag.key == "TIT2" && tag.text == "hello" && near(tag, 281), "{tag:?}");
    let out = report
        .cues
        .iter()
        .find(|cue| cue.key == "SCTE35-OUT")
        .unwrap_or_else(|| panic!("no break: {:#?}", report.cues));
    assert!(near(out, 262), "{out:?}");
    assert_eq!((report.fatal, report.errors.len()), (0, 0), "{:?}", report.errors);
}

/// Another process lists what was told before it, by the same names and dates.
#[test]
fn ranges_are_told_again_after_a_restart() {
    daemon::with_room(ranges_are_told_again_after_a_restart_once);
}

fn ranges_are_told_again_after_a_restart_once() {
    let stream = plain(20, 0);
    let start = cues::first_pts(&stream);
    let pts = |picture: u32| start + u64::from(picture) * FRAME;
    let mut script = Script::default();
    script.section(pts(40), cues::insert(7, true, pts(77), Some((2 * 90_000, false))));
    script.section(pts(80), cues::insert(7, false, pts(120), None));
    script.section(pts(85), cues::segment(0x21, 0x34, pts(113), Some(60 * 90_000)));
    let path = file("restart.ts", &cues::muxed(&stream, script));
    let mut daemon = Daemon::start(&format!(
        "[[bootstrap.channel]]\nname = \"c\"\nmode = \"ultra\"\npreset = \"ultrafast\"\n{LADDER}\n"
    ));
    let _publisher = daemon::push_loop(&path, &daemon.publish_url("c"), &["--reconnect"]);
    let told = |daemon: &Daemon, name: &str| {
        let answer = daemon.get(&format!("/live/c/{name}.m3u8"));
        if answer.status == 200 {
            parse::media(&answer.text()).expect("our playlists parse").dates
        } else {
            BTreeMap::new()
        }
    };
    let before = daemon::wait(Duration::from_secs(30), "both ranges", || {
        let dates = told(&daemon, "90p");
        let closed = dates.values().any(|range| range.contains_key("SCTE35-IN"));
        (closed && dates.len() == 2).then_some(dates)
    });
    daemon::signal(daemon.pid(), "KILL");
    daemon.wait_exit();
    daemon = daemon.again_here();
    for name in ["90p", "180p", "a-und-1"] {
        let after = daemon::wait(Duration::from_secs(30), "a playlist", || {
            let dates = told(&daemon, name);
            (!dates.is_empty()).then_some(dates)
        });
        assert_eq!(after, before, "{name}");
    }
    std::fs::remove_file(path).expect("own file");
}

/// A worker is told of the splice a second ahead, and is killed before it gets there; one rendition is HEVC.
#[test]
fn a_worker_that_dies_in_front_of_a_splice_is_succeeded_by_one_that_cuts_there() {
    daemon::with_room(a_worker_that_dies_in_front_of_a_splice_is_succeeded_by_one_that_cuts_there_once);
}

fn a_worker_that_dies_in_front_of_a_splice_is_succeeded_by_one_that_cuts_there_once() {
    let stream = plain(12, 0);
    let start = cues::first_pts(&stream);
    let pts = |picture: u32| start + u64::from(picture) * FRAME;
    let mut script = Script::default();
    script.section(pts(60), cues::insert(7, true, pts(163), None));
    let path = file("respawn.ts", &cues::muxed(&stream, script));
    let ladder = LADDER.replacen("bitrate = 400000", "bitrate = 400000, codec = \"hevc\"", 1);
    let daemon = Daemon::start(&format!(
        "[[bootstrap.channel]]\nname = \"c\"\nmode = \"ultra\"\npreset = \"ultrafast\"\n{ladder}\n"
    ));
    let publisher = push(&path, &daemon.publish_url("c"));
    daemon.wait_for("/live/c/index.m3u8", Duration::from_secs(20));
    let follow = Follow::start(daemon.http, "c");
    let splice = daemon::wait(Duration::from_secs(20), "the range", || {
        let list = parse::media(&daemon.get("/live/c/90p.m3u8").text()).ok()?;
        list.dates.values().next().map(|range| millis(&range["START-DATE"]))
    });
    daemon::wait(Duration::from_secs(20), "the moment before", || {
        (SystemClock.now().wall.0 >= (splice - 400) * 1_000_000).then_some(())
    });
    let workers = daemon.workers();
    workers.iter().for_each(|pid| daemon::signal(*pid, "KILL"));
    let followed = follow.until_ended(Duration::from_secs(40));
    drop(publisher);
    std::fs::remove_file(path).expect("own file");
    assert!(!workers.is_empty() && daemon.log().contains("worker_back"), "{}", daemon.log());
    for name in RENDITIONS {
        let fetched = followed.rendition(name);
        fetched.assert_consecutive(name);
        assert!(keys(fetched).contains(&163), "{name}: {:?}", keys(fetched));
    }
}

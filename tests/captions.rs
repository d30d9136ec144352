//! Closed captions from a source's pictures to those of every rendition, read back by libavcodec: each one, in order, once,
//! also where a worker dies in between; and what players are told of them.

#[path = "support/captions.rs"]
mod captions;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[path = "support/numbered.rs"]
mod numbered;

use std::path::PathBuf;
use std::time::Duration;

use captions::{captioned, read_captions, script};
use daemon::{Daemon, ffmpeg_publish, signal, wait};
use follow::{Follow, Followed};
use numbered::{Drawn, clip};

const SECONDS: u32 = 16;

fn spoken(language: &str, count: usize, first: usize) -> Vec<String> {
    (first..first + count).map(|n| format!("{language} caption number {n:02}.")).collect()
}

/// Pop-on English in CC1, roll-up German in CC3; B frames, so that the order of coding is not that of speech.
fn source() -> PathBuf {
    let clip = clip(
        "captions-plain-16.ts",
        Drawn { width: 320, height: 180, rate: "25", pictures: 25 * SECONDS },
        &["sine=frequency=440:sample_rate=48000:duration=16"],
        "-c:v libx264 -preset veryfast -profile:v main -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 500k \
         -c:a aac -ac 2 -b:a 96k",
    );
    let pictures = usize::try_from(25 * SECONDS).expect("few");
    captioned(&clip, "captions-16.ts", &script(pictures, &spoken("English", 16, 1), &spoken("Deutsch", 18, 1)))
}

/// What a rendition's pictures say in a field.
#[track_caller]
fn read(seen: &Followed, rendition: &str, field: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("media.mp4");
    std::fs::write(&file, seen.rendition(rendition).file()).expect("writable");
    read_captions(&file, field)
}

#[test]
fn every_rendition_says_what_the_source_said_once_and_in_order_though_a_worker_dies() {
    daemon::with_room(every_rendition_says_what_the_source_said_once_and_in_order_though_a_worker_dies_once);
}

fn every_rendition_says_what_the_source_said_once_and_in_order_though_a_worker_dies_once() {
    let file = source();
    let (english, german) = (spoken("English", 16, 1), spoken("Deutsch", 18, 1));
    assert_eq!(read_captions(&file, "first"), english, "the source itself, by libavcodec");
    // One rendition as large as the source, one of the other codec; and the source as it is.
    let daemon = Daemon::start(
        "[[bootstrap.channel]]\nname = \"cc\"\npreset = \"ultrafast\"\n\
         ladder = [{ name = \"180p\", height = 180, bitrate = 300000 }, \
         { name = \"90p\", height = 90, bitrate = 150000, codec = \"hevc\" }]\n\
         [[bootstrap.channel]]\nname = \"mux\"\nkind = \"transmux\"\n",
    );
    let publisher = ffmpeg_publish(&file, &daemon.publish_url("cc"), &[]);
    let follow = |channel: &str| {
        daemon.wait_for(&format!("/live/{channel}/index.m3u8"), Duration::from_secs(30));
        Follow::start(daemon.http, channel)
    };
    let encoded = follow("cc");
    let worker = daemon.workers()[0];
    let other = ffmpeg_publish(&file, &daemon.publish_url("mux"), &[]);
    let passed = follow("mux");
    wait(Duration::from_secs(30), "four segments", || {
        (daemon.get("/live/cc/180p.m3u8").text().matches("#EXTINF").count() >= 4).then_some(())
    });
    signal(worker, "KILL");
    let (encoded, passed) = (encoded.until_ended(Duration::from_secs(60)), passed.until_ended(Duration::from_secs(60)));
    drop((publisher, other));
    // On a busy machine one that is late may be replaced, too: the viewers must not notice either.
    assert!(daemon.log().contains("worker_back"), "it died and was succeeded");
    for (seen, rendition) in [(&passed, "source"), (&encoded, "180p"), (&encoded, "90p")] {
        seen.assert_satisfied(rendition);
        assert_eq!(read(seen, rendition, "first"), english, "{rendition}");
        let rolled: String = read(seen, rendition, "second").join("\n");
        let mut at = 0;
        for words in &german[..german.len() - 1] {
            let found = rolled[at..].find(words.as_str());
            at += found.unwrap_or_else(|| panic!("{rendition}: no {words:?} behind {at} in {rolled}"));
        }
    }
    // By then they were seen in the pictures: what a player is told that starts now.
    let cc = |n: u8| {
        format!(
            "#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID=\"cc\",NAME=\"CC{n}\",LANGUAGE=\"und\",DEFAULT=NO,AUTOSELECT="
        )
    };
    let text = daemon.get("/live/cc/index.m3u8").text();
    assert!(
        text.contains(&cc(1)) && text.contains(&cc(3)) && !text.contains("CC2") && !text.contains("SERVICE"),
        "{text}"
    );
    let pictured = text.lines().filter(|l| l.starts_with("#EXT-X-STREAM-INF") && l.contains("RESOLUTION"));
    assert!(pictured.clone().count() == 2 && pictured.clone().all(|l| l.contains(",CLOSED-CAPTIONS=\"cc\"")), "{text}");
    // The next session's first playlist knows before anybody has spoken.
    let again = ffmpeg_publish(&file, &daemon.publish_url("cc"), &[]);
    let session = |text: &str| text.contains("#EXT-X-ENDLIST");
    wait(Duration::from_secs(30), "the next session", || {
        (!session(&daemon.get("/live/cc/180p.m3u8").text())).then_some(())
    });
    let first = daemon.wait_for("/live/cc/index.m3u8", Duration::from_secs(30)).text();
    assert!(first.contains(&cc(1)) && first.contains(&cc(3)), "{first}");
    drop(again);
}

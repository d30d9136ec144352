//! The watch page on a channel with two languages and captions: a viewer chooses both, hears and reads what was chosen.

#[path = "support/browser.rs"]
mod browser;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/captions.rs"]
mod captions;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/numbered.rs"]
mod numbered;

use std::path::PathBuf;
use std::time::Duration;

use browser::{Options, watch};
use captions::{captioned, script};
use daemon::{Daemon, push_loop};
use numbered::{Drawn, clip};

const SECONDS: u32 = 20;

fn spoken() -> Vec<String> {
    (1..=20).map(|n| format!("This is caption {n:02}, in CC1.")).collect()
}

/// English at 440 Hz, German at 1200 Hz, captions in English.
fn source() -> PathBuf {
    let clip = clip(
        "tracks-plain-20.ts",
        Drawn { width: 640, height: 360, rate: "25", pictures: 25 * SECONDS },
        &["sine=frequency=440:sample_rate=48000:duration=20", "sine=frequency=1200:sample_rate=48000:duration=20"],
        "-map 0:v -map 1:a -map 2:a -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu -c:v libx264 \
         -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 1M -c:a aac -ac 2 -b:a 96k",
    );
    let pictures = usize::try_from(25 * SECONDS).expect("few");
    captioned(&clip, "tracks-20.ts", &script(pictures, &spoken(), &[]))
}

#[test]
fn a_viewer_reads_the_captions_and_hears_the_language_that_was_chosen() {
    daemon::with_room(a_viewer_reads_the_captions_and_hears_the_language_that_was_chosen_once);
}

fn a_viewer_reads_the_captions_and_hears_the_language_that_was_chosen_once() {
    let daemon = Daemon::start(
        "[[bootstrap.channel]]\nname = \"w\"\nmode = \"ultra\"\nreconnect_window_s = 0\npreset = \"ultrafast\"\n\
         captions = [{ instream_id = \"CC1\", language = \"eng\" }]\n\
         ladder = [{ name = \"360p\", height = 360, bitrate = 800000 }, { name = \"180p\", height = 180, bitrate = 300000 }]\n",
    );
    let _publisher = push_loop(&source(), &daemon.publish_url("w"), &[]);
    daemon.wait_for("/live/w/index.m3u8", Duration::from_secs(30));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let screenshot =
        std::env::var("RUNG_SCREENSHOT").unwrap_or_else(|_| folder.path().join("w.png").display().to_string());
    let (audio, captions) = (Some("German".to_owned()), Some("CC1".to_owned()));
    let options =
        Options { seconds: 18, start: 40, audio, captions, screenshot: Some(screenshot), ..Options::default() };
    let report = watch(&daemon.url("/watch/w"), &options);
    assert_eq!((report.state.as_str(), report.fatal, report.starts), ("live", 0, 1), "{report:#?}");
    assert!(report.console.is_empty() && report.stalled_ms < 4_000, "{report:#?}");
    // Nobody begins with the sound alone, though it is the cheapest variant.
    assert_eq!(report.levels, ["180p", "360p"], "{report:#?}");
    let tracks = &report.tracks;
    assert_eq!(
        (tracks.audios.as_slice(), tracks.audio.as_deref()),
        (&["English".into(), "German".into()][..], Some("German"))
    );
    let services: Vec<_> = tracks.services.iter().map(|s| (s.id.as_str(), s.name.as_str())).collect();
    assert_eq!(services, [("CC1", "English")]);
    // Each in its time, none skipped; the clip begins again behind its last one.
    let (words, mut shown) = (spoken(), &tracks.captions[..]);
    // Who joins in the midst of a caption gets the rest of it.
    if let [first, rest @ ..] = shown
        && !words.contains(first)
        && words.iter().any(|w| w.ends_with(first.as_str()))
    {
        shown = rest;
    }
    // Where one follows the other, both may stand for a moment.
    let following = |place: usize| (place + 1) % words.len();
    let mut places = Vec::new();
    for text in shown {
        let one = words.iter().position(|w| w == text);
        let met = (0..words.len()).find(|at| *text == format!("{} {}", words[*at], words[following(*at)]));
        let seen = one.map(|at| vec![at]).or(met.map(|at| vec![at, following(at)]));
        places.extend(seen.unwrap_or_else(|| panic!("{text:?} is no caption: {tracks:#?}")));
    }
    places.dedup();
    assert!(places.len() >= 4, "{tracks:#?}");
    assert!(places.windows(2).all(|w| w[1] == following(w[0])), "{places:?}");
    // What was buffered plays on for a moment.
    let (chosen, near) = (tracks.chosen_ms.expect("it chose"), |hz: u32, want: u32| hz.abs_diff(want) <= 40);
    let before: Vec<u32> = tracks.tones.iter().filter(|t| t.ms < chosen).map(|t| t.hz).collect();
    let after: Vec<u32> = tracks.tones.iter().filter(|t| t.ms > chosen + 5_500).map(|t| t.hz).collect();
    assert!(
        before.len() > 10 && before.iter().filter(|hz| near(**hz, 440)).count() * 10 > before.len() * 9,
        "{before:?}"
    );
    assert!(
        after.len() > 10 && after.iter().filter(|hz| near(**hz, 1_200)).count() * 10 > after.len() * 9,
        "{after:?}"
    );
}

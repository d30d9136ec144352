//! A viewer with a real browser while the publisher, and then the daemon itself, is killed.

#[path = "support/browser.rs"]
mod browser;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/numbered.rs"]
mod numbered;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use browser::{BrowserReport, Options, watch};
use daemon::{Daemon, push_loop, signal, wait};
use numbered::{Drawn, clip};
use rung::time::SystemClock;

const CLIP: &str =
    "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 1M -c:a aac -ac 2 -b:a 128k";
const LADDER: &str = "preset = \"ultrafast\"\nladder = [{ name = \"270p\", height = 270, bitrate = 500000 }, \
                      { name = \"180p\", height = 180, bitrate = 300000 }]\n";

fn file() -> std::path::PathBuf {
    let drawn = Drawn { width: 640, height: 360, rate: "25", pictures: 500 };
    clip("reconnect-20.ts", drawn, &["sine=frequency=440:sample_rate=48000:duration=20"], CLIP)
}

fn daemon_of(kind: &str) -> Daemon {
    let ladder = if kind == "transmux" { "" } else { LADDER };
    Daemon::start(&format!(
        "[[bootstrap.channel]]\nname = \"t\"\nkind = \"{kind}\"\nend_on_eos = false\ntakeover = \"newest\"\n{ladder}"
    ))
}

fn viewer(daemon: &Daemon, seconds: u32) -> std::thread::JoinHandle<BrowserReport> {
    let url = daemon.url("/watch/t");
    std::thread::spawn(move || watch(&url, &Options { seconds, ..Options::default() }))
}

fn pass(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// Two cores carry one browser beside a ladder.
static ALONE: Mutex<()> = Mutex::new(());

fn is_long() -> bool {
    std::env::var_os("RUNG_LONG").is_some()
}

/// What a viewer sees of a publisher that is killed and comes back; in the long form after 1, 5 and 9 s.
fn outages(kind: &str) -> BrowserReport {
    let away: &[u64] = if is_long() { &[1, 5, 9] } else { &[5] };
    let seconds = 6 + away.iter().map(|away| away + 6).sum::<u64>();
    let (file, daemon) = (file(), daemon_of(kind));
    let url = daemon.publish_url("t");
    let mut publisher = push_loop(&file, &url, &[]);
    daemon.wait_for("/live/t/index.m3u8", Duration::from_secs(30));
    pass(4);
    let viewer = viewer(&daemon, u32::try_from(seconds).expect("short"));
    pass(6);
    for away in away {
        signal(publisher.0.id(), "KILL");
        pass(*away);
        publisher = push_loop(&file, &url, &[]);
        pass(6);
    }
    let report = viewer.join().expect("the viewer reports");
    println!("{kind}: {report:#?}");
    assert_eq!((report.state.as_str(), report.fatal, report.starts), ("live", 0, 1), "{report:#?}");
    assert!(report.console.is_empty(), "{report:#?}");
    report
}

#[test]
fn viewers_of_a_ladder_see_hold_and_slate_and_never_stall() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    daemon::with_room(|| {
        let report = outages("transcode");
        // Without hold and slate the player would stand still for three of the five seconds.
        assert!(report.stalled_ms < 2_000, "{report:#?}");
        assert!(report.shown > 10 * 25 && report.frames.seen > 50, "{report:#?}");
    });
}

#[test]
fn viewers_of_a_hybrid_channel_move_down_and_on() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_long() {
        return println!("SKIP the short form is that of the ladder: RUNG_LONG=1");
    }
    daemon::with_room(|| drop(outages("hybrid")));
}

#[test]
fn viewers_outlive_the_daemon() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    daemon::with_room(|| {
        let (file, mut daemon) = (file(), daemon_of("transcode"));
        let _publisher = push_loop(&file, &daemon.publish_url("t"), &["--reconnect"]);
        daemon.wait_for("/live/t/index.m3u8", Duration::from_secs(30));
        pass(4);
        let viewer = viewer(&daemon, 34);
        for how in ["KILL", "TERM"] {
            pass(8);
            signal(daemon.pid(), how);
            daemon.wait_exit();
            let next = daemon.again_here();
            daemon = next;
            let ready = SystemClock::mono();
            wait(Duration::from_secs(5), "slate soon after the daemon is back", || {
                let text = daemon.get("/live/t/270p.m3u8").text();
                text.lines().any(|l| l.contains("#EXT-X-PART:") && !l.contains("GAP")).then_some(())
            });
            println!("SIG{how}: slate {:.2} s after the daemon was back", (SystemClock::mono() - ready).as_secs_f64());
        }
        let report = viewer.join().expect("the viewer reports");
        println!("{report:#?}");
        // A player may begin anew while nobody answers; it never gives up.
        assert!(report.state == "live" && report.starts <= 3, "{report:#?}");
    });
}

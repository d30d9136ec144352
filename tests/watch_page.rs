//! The watch page in a real browser, in front of a broadcast made without the pipeline: what the page itself must do.

#[path = "support/browser.rs"]
mod browser;
#[path = "support/studio.rs"]
mod studio;

use std::sync::Arc;
use std::time::Duration;

use browser::{Options, watch};
use rung::media::modes::LatencyMode;
use rung::package::origin::Origin;
use rung::serve::{Server, Site, bind, routes};
use rung::time::SystemClock;
use rung::web::{ChannelStatus, RenditionStatus, Status};
use studio::Broadcast;
use tokio::runtime::Runtime;

struct Rig {
    origin: Arc<Origin>,
    _runtime: Runtime,
    server: Server,
}

impl Rig {
    fn new() -> Rig {
        let origin = Arc::new(Origin::default());
        let shown = origin.clone();
        let site = Site {
            origin: Some(origin.clone()),
            routes: Some(routes(rung::web::filter(Arc::new(move |_: Option<&str>| status(&shown))))),
            ..Site::default()
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let server = runtime.block_on(async { Server::start(listener, site, Default::default()) }).expect("it starts");
        Rig { origin, _runtime: runtime, server }
    }

    fn url(&self) -> String {
        format!("http://{}/watch/test", self.server.address())
    }
}

/// What a pipeline would say of the sessions on air.
fn status(origin: &Origin) -> Status {
    let channels = origin.channels().into_iter().map(|channel| {
        let session = channel.session();
        let live = session.as_ref().is_some_and(|s| !s.ended());
        // As a pipeline says it: enough for a player to start, which is a whole segment here.
        let playable = session.iter().flat_map(|s| s.renditions()).all(|r| r.facts().segments_held > 1);
        let renditions = session.iter().flat_map(|s| s.renditions()).map(|r| RenditionStatus {
            name: r.name().to_owned(),
            state: if r.is_shed() { "shed" } else { "live" }.to_owned(),
            ..RenditionStatus::default()
        });
        ChannelStatus {
            poster: None,
            signed: false,
            name: channel.name.to_string(),
            state: match (live, playable) {
                (true, true) => "live",
                (true, false) => "processing",
                (false, _) => "idle",
            }
            .to_owned(),
            mode: session.as_ref().map_or("", |s| s.mode.name()).to_owned(),
            session: session.as_ref().map(|s| s.id.to_string()),
            since_ms: None,
            detail: None,
            renditions: renditions.collect(),
        }
    });
    Status { version: "test".into(), now_ms: SystemClock::wall().unix_millis(), channels: channels.collect() }
}

#[test]
fn a_viewer_sees_the_picture_move_hears_the_tone_and_switches_renditions() {
    let rig = Rig::new();
    let _broadcast = Broadcast::start(&rig.origin, LatencyMode::Ultra, 0);
    let switch = vec!["180p".to_owned(), "360p".to_owned()];
    let report = watch(&rig.url(), &Options { seconds: 15, switch, ..Options::default() });
    assert_eq!((report.state.as_str(), report.fatal, report.starts), ("live", 0, 1), "{report:#?}");
    assert!(report.stalled_ms < 4_000 && report.console.is_empty(), "{report:#?}");
    assert!(report.switches.iter().all(|s| s.ok), "{report:#?}");
    assert!(report.audio.playing, "{report:#?}");
    let frames = report.frames;
    assert!(frames.backward == 0 && frames.unread * 50 < frames.seen && frames.seen > 50, "{report:#?}");
    let (first, last) = (frames.first.expect("frames were read"), frames.last.expect("frames were read"));
    assert!(last - first > 200, "the picture moved at its rate: {report:#?}");
    let (by_date, by_picture) = (report.latency.p50.expect("measured"), report.glass_to_glass.p50.expect("measured"));
    assert!(by_picture < 8.0 && (by_date - by_picture).abs() < 1.0, "{report:#?}");
}

#[test]
fn the_page_waits_for_a_publisher_and_finds_the_next_session_by_itself() {
    let rig = Rig::new();
    rig.origin.declare(&rung::media::channel::ChannelName::new("test").expect("a good name"));
    let url = rig.url();
    let viewer = std::thread::spawn(move || watch(&url, &Options { seconds: 26, start: 40, ..Options::default() }));
    let wait = |seconds| {
        let until = SystemClock::mono() + Duration::from_secs(seconds);
        while SystemClock::mono() < until {
            std::thread::park_timeout(Duration::from_millis(100));
        }
    };
    wait(4);
    let first = Broadcast::start(&rig.origin, LatencyMode::Ultra, 0);
    let first_session = first.session.id.to_string();
    wait(10);
    first.end();
    wait(5);
    let second = Broadcast::start(&rig.origin, LatencyMode::Ultra, 100_000);
    let report = viewer.join().expect("the viewer reports");
    // The page may have had to start its player again where one session gave way to the next.
    assert!(report.state == "live" && report.fatal <= 1, "{report:#?}");
    let seen = |state: &str, session: &str| {
        report.states.iter().any(|s| s.state == state && s.session.as_deref() == Some(session))
    };
    assert!(report.states[0].state == "waiting", "{report:#?}");
    assert!(seen("live", &first_session) && seen("ended", &first_session), "{report:#?}");
    assert!(seen("live", &second.session.id.to_string()), "{report:#?}");
    assert!(report.frames.last.is_some_and(|n| n > 100_000), "the second session's pictures: {report:#?}");
}

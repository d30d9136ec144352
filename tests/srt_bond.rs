//! Several links that are one publisher (bonding), through relays that go dark: `rung push` into a real port, and either of
//! them with libsrt at the other end.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "srt/harness.rs"]
#[expect(dead_code, reason = "shared with srt.rs")]
mod harness;
#[path = "support/ports.rs"]
#[expect(dead_code, reason = "shared with srt.rs")]
mod ports;
#[path = "support/random.rs"]
#[expect(dead_code, reason = "shared with others")]
mod random;
#[path = "support/relay.rs"]
#[expect(dead_code, reason = "shared with others")]
mod relay;

use std::io::Read;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::*;
use ports::{Board, KEY, Log};
use relay::{Link, Relay};
use rung::ingest::srt::{PushOptions, PushUrl, push};
use rung::ingest::{
    Closing, Knobs, LinkNews, Progress, PublishEnd, PublishStats, PublisherStats, PushError, StreamProgress,
};

/// What a push said.
#[derive(Default)]
struct Said {
    /// Of links, from 1.
    links: Vec<(u32, LinkNews)>,
    stats: PublishStats,
    stop: bool,
    log: String,
}

impl Log for Said {
    fn log(&self) -> &str {
        &self.log
    }
}

type Done = Result<Vec<StreamProgress>, PushError>;

/// A looped clip that is pushed on a thread.
struct Pushing {
    said: Board<Said>,
    thread: Option<JoinHandle<Done>>,
}

impl Pushing {
    fn start(url: &str) -> Pushing {
        let said = Board::<Said>::default();
        let (board, url) = (said.clone(), PushUrl::parse(url).unwrap());
        let thread = std::thread::spawn(move || {
            let file = clip();
            let (knobs, path) = (Knobs::default(), file.path().to_owned());
            let options = PushOptions { file: path, url, streams: 1, looping: true, reconnect: false, knobs, seed: 1 };
            push(&options, &mut |progress| {
                let mut stop = false;
                board.write(|said| {
                    match &progress {
                        Progress::Link { link, news, .. } => said.links.push((*link, (*news).clone())),
                        Progress::Tick { streams, elapsed } => {
                            said.stats = streams[0].publish;
                            stop = *elapsed > 3 * LIMIT;
                        }
                        _ => {}
                    }
                    if !matches!(progress, Progress::Tick { .. }) {
                        said.log.push_str(&format!("{progress:?}\n"));
                    }
                    stop |= said.stop;
                });
                if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        Pushing { said, thread: Some(thread) }
    }

    #[track_caller]
    fn wait<T>(&self, why: &str, what: impl FnMut(&Said) -> Option<T>) -> T {
        self.said.wait(LIMIT, why, what)
    }

    /// Until so many more payloads were acknowledged.
    #[track_caller]
    fn wait_media(&self, payloads: u64) {
        let from = self.said.look(|said| said.stats.acknowledged);
        self.wait("media", |said| (said.stats.acknowledged >= from + payloads).then_some(()));
    }

    #[track_caller]
    fn wait_link(&self, link: u32, news: &LinkNews) {
        let found = |said: &Said| {
            said.links.iter().rev().find(|(of, _)| *of == link).filter(|(_, last)| last == news).map(|_| ())
        };
        self.wait(&format!("link {link}: {news}"), found);
    }

    fn end(&mut self) -> Done {
        self.thread.take().unwrap().join().unwrap()
    }

    fn stop(&mut self) -> Done {
        self.said.write(|said| said.stop = true);
        self.end()
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop().ok();
        }
    }
}

fn url(links: [SocketAddr; 2], kind: &str, latency: u32) -> String {
    format!("srt://{},{}?grouptype={kind}&streamid=c1/{KEY}&latency={latency}&passphrase={PASS}", links[0], links[1])
}

fn relays(to: SocketAddr) -> [Relay; 2] {
    [5, 9].map(|ms| Relay::start(to, Link { delay: Duration::from_millis(ms), ..Link::default() }))
}

fn stats(port: &TestPort) -> PublisherStats {
    let publisher = port.look(|seen| seen.on("c1").unwrap().publisher);
    port.command(Order::Stats(publisher));
    port.wait("statistics", |seen| seen.stats.get(&publisher).cloned())
}

/// All that was sent came, from one publisher, and its end was clean.
fn assert_whole(port: &TestPort, done: Done) {
    let done = done.unwrap();
    let (reason, last) = port.wait("its end", |seen| seen.closed.first().map(|closed| (closed.1, closed.2.clone())));
    port.look(|seen| {
        let tally = seen.tally("c1").unwrap();
        assert_eq!((seen.connected.len(), seen.closed.len(), reason), (1, 1, Closing::Finished));
        assert_eq!((tally.payloads, tally.bytes), (done[0].publish.sent, done[0].publish.sent_bytes));
        assert_eq!(continuity_errors(&tally.head), 0);
    });
    assert_eq!((done[0].publish.dropped, last.dropped, done[0].end), (0, 0, Some(PublishEnd::Finished)));
}

const SILENT: LinkNews = LinkNews::Down { end: PublishEnd::Silent, again: true };

#[test]
fn a_broadcast_with_one_link_cut_in_mid_stream_loses_no_packet_and_has_the_link_again() {
    let port = TestPort::open(Some(PASS));
    let relays = relays(port.address);
    let mut pushing = Pushing::start(&url([relays[0].address, relays[1].address], "broadcast", 400));
    pushing.wait_link(2, &LinkNews::Up);
    pushing.wait_media(200);
    let both = stats(&port);
    assert_eq!((both.links.len(), both.key_bits), (2, 128));
    assert!(both.links.iter().all(|link| link.received > 100), "each carries all: {both:?}");
    relays[0].set_dark(true);
    pushing.wait_link(1, &SILENT);
    relays[0].set_dark(false);
    pushing.wait_link(1, &LinkNews::Up);
    pushing.wait_media(200);
    let done = pushing.stop();
    assert_whole(&port, done);
    pushing.said.look(|said| {
        assert!(said.links.iter().all(|(link, news)| *link == 1 || *news == LinkNews::Up), "{:?}", said.links);
    });
}

#[test]
fn a_backup_takes_over_from_the_main_link_and_gives_back_without_a_loss() {
    let port = TestPort::open(Some(PASS));
    let relays = relays(port.address);
    let mut pushing = Pushing::start(&url([relays[0].address, relays[1].address], "backup", 1_000));
    pushing.wait_link(1, &LinkNews::Carries);
    pushing.wait_media(200);
    relays[0].set_dark(true);
    pushing.wait_link(2, &LinkNews::Carries);
    pushing.wait_media(200);
    pushing.wait_link(1, &SILENT);
    relays[0].set_dark(false);
    pushing.wait_link(2, &LinkNews::StandsBy);
    pushing.wait_link(1, &LinkNews::Carries);
    pushing.wait_media(200);
    let done = pushing.stop();
    let again = done.as_ref().unwrap()[0].publish.retransmitted;
    assert!(again > 0, "what was not acknowledged went again");
    assert_whole(&port, done);
}

#[test]
fn a_listener_without_bonding_and_one_that_says_no_are_told_by_name() {
    let number = free_port();
    let mut command = Command::new("srt-live-transmit");
    command.args(["-quiet", &format!("srt://127.0.0.1:{number}?mode=listener"), "file://con"]);
    let _peer = Peer::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()));
    let here: SocketAddr = format!("127.0.0.1:{number}").parse().unwrap();
    let plain = format!("srt://{here},{here}?grouptype=broadcast&streamid=any");
    let end = |error: PushError| match error {
        PushError::Ended { end, .. } => end,
        other => panic!("{other}"),
    };
    // Until it listens, nobody does.
    let ends = (0..100).map(|_| end(Pushing::start(&plain).end().unwrap_err()));
    let refused = ends
        .inspect(|_| ports::pace(Duration::from_millis(50)))
        .find(|end| !matches!(end, PublishEnd::NoAnswer { .. }));
    assert_eq!(refused, Some(PublishEnd::Refused(15)));
    let port = TestPort::open(None);
    let wrong = url([port.address; 2], "backup", 200).replace(&format!("&passphrase={PASS}"), "").replace(KEY, "wrong");
    assert_eq!(end(Pushing::start(&wrong).end().unwrap_err()), PublishEnd::Refused(1401));
    assert!(port.look(|seen| seen.connected.is_empty()));
    let no_way =
        format!("srt://{}?grouptype=backup&adapter=198.51.100.71,198.51.100.72&streamid=c1/{KEY}", port.address);
    assert_eq!(end(Pushing::start(&no_way).end().unwrap_err()), PublishEnd::NoWay);
}

/// libsrt with bonding, which Debian's packages leave out.
fn bonded_libsrt(source: &str, target: &str) -> Option<Command> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/srt-test-live");
    if !program.exists() {
        println!("SKIP bonding beside libsrt: tools/libsrt-bonding.sh builds one that has it");
        return None;
    }
    let mut command = Command::new(program);
    command.args([source, target]);
    Some(command)
}

fn wait_links(port: &TestPort, links: usize) -> PublisherStats {
    for _ in 0..200 {
        let now = stats(port);
        if now.links.len() == links {
            return now;
        }
        ports::pace(Duration::from_millis(100));
    }
    panic!("{links} links, not {:?}", stats(port).links);
}

/// libsrt publishes over two links, of which the first is cut; none of its packets may be missing.
fn libsrt_publishes(kind: &str, latency: u32) {
    let port = TestPort::open(Some(PASS));
    let relays = relays(port.address);
    let nodes = format!("{}?weight=2,{}?weight=1", relays[0].address, relays[1].address);
    let to = format!(
        "srt:////group?type={kind}&nodes={nodes}&streamid=c1/{KEY}&latency={latency}&passphrase={PASS}&pbkeylen=32"
    );
    let Some(mut command) = bonded_libsrt("file://con", &to) else { return };
    let mut libsrt = Transmit::feed(&mut command, 400);
    let wait_media = |more: u64| {
        let from = port.look(|seen| seen.tally("c1").map_or(0, |tally| tally.next));
        port.wait("media", |seen| seen.tally("c1").filter(|tally| tally.next >= from + more).map(|_| ()));
    };
    wait_media(400);
    let both = wait_links(&port, 2);
    assert_eq!((both.key_bits, both.links.iter().all(|link| link.received > 100)), (256, kind == "broadcast"));
    relays[0].set_dark(true);
    wait_media(400);
    wait_links(&port, 1);
    relays[0].set_dark(false);
    wait_links(&port, 2);
    wait_media(400);
    libsrt.finish();
    let end = stats(&port);
    port.look(|seen| {
        let tally = seen.tally("c1").unwrap();
        assert_eq!((tally.gaps, tally.corrupt, end.dropped), (0, 0, 0), "{end:?}");
        assert_eq!((seen.connected.len(), seen.refused.len()), (1, 0));
    });
}

#[test]
fn a_broadcast_of_libsrt_with_one_link_cut_in_mid_stream_loses_no_packet() {
    libsrt_publishes("broadcast", 400);
}

#[test]
fn a_backup_of_libsrt_takes_over_from_its_main_link_without_a_loss() {
    libsrt_publishes("backup", 1_000);
}

/// All that a program writes until it ends.
fn collect(command: &mut Command) -> (Peer, JoinHandle<Vec<u8>>) {
    let mut peer = Peer::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let mut out = peer.stdout();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).unwrap();
        bytes
    });
    (peer, reader)
}

fn assert_same(bytes: &[u8], done: Done, what: &str) {
    let sent = done.unwrap()[0].publish;
    assert_eq!((bytes.len() as u64, continuity_errors(bytes), sent.dropped), (sent.sent_bytes, 0, 0), "{what}");
}

#[test]
fn what_was_sent_before_a_push_is_stopped_is_played_by_libsrt() {
    let number = free_port();
    let mut command = Command::new("srt-live-transmit");
    command.args(["-quiet", "-a:no", &format!("srt://127.0.0.1:{number}?mode=listener"), "file://con"]);
    let (mut libsrt, reader) = collect(&mut command);
    let mut pushing = Pushing::start(&format!("srt://127.0.0.1:{number}?streamid=any&latency=800"));
    pushing.wait_media(100);
    let done = pushing.stop();
    assert!(libsrt.has_ended(), "when its sender is gone");
    assert_same(&reader.join().unwrap(), done, "one link");
}

#[test]
fn libsrt_receives_both_kinds_with_one_link_cut_and_no_loss() {
    for (kind, latency) in [("broadcast", 400), ("backup", 1_000)] {
        let number = free_port();
        let from = format!("srt://127.0.0.1:{number}?mode=listener&groupconnect=1&passphrase={PASS}");
        let Some(mut command) = bonded_libsrt(&from, "file://con") else { return };
        let (mut libsrt, reader) = collect(&mut command);
        let relays = relays(([127, 0, 0, 1], number).into());
        let mut pushing = Pushing::start(&url([relays[0].address, relays[1].address], kind, latency));
        pushing.wait_link(2, &LinkNews::Up);
        pushing.wait_media(200);
        relays[0].set_dark(true);
        pushing.wait_link(1, &SILENT);
        pushing.wait_media(200);
        relays[0].set_dark(false);
        pushing.wait_link(1, &LinkNews::Up);
        pushing.wait_media(200);
        let done = pushing.stop();
        assert!(libsrt.has_ended(), "when the last link is gone");
        assert_same(&reader.join().unwrap(), done, kind);
    }
}

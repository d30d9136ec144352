//! A daemon with many channels, few of which do anything.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;

use std::time::Duration;

use daemon::Daemon;

/// Over this long, less than a tenth of a processor; a loop that does not wait uses all of one, even unoptimised code that
/// looks after two channels a hundredth.
const WATCHED: Duration = Duration::from_secs(2);

fn assert_at_rest(daemon: &Daemon) {
    let before = daemon.cpu();
    assert!(before > Duration::ZERO, "the system tells what threads use");
    std::thread::sleep(WATCHED);
    let used = daemon.cpu() - before;
    assert!(used < WATCHED / 10, "nothing is on air, and it used {used:?} of {WATCHED:?}");
}

#[test]
fn a_daemon_without_publishers_waits() {
    let daemon = Daemon::start("[[bootstrap.channel]]\nname = \"news\"\nkind = \"transmux\"\n");
    assert_at_rest(&daemon);
}

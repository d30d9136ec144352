//! A daemon with many channels, few of which do anything.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;

use std::time::Duration;

use daemon::Daemon;
use serde_json::Value;

/// Over this long, less than a fifth of a processor; a loop that does not wait uses all of one, even unoptimised code that
/// looks after two channels a hundredth.
const WATCHED: Duration = Duration::from_secs(2);

fn assert_at_rest(daemon: &Daemon) {
    let before = daemon.cpu();
    assert!(before > Duration::ZERO, "the system tells what threads use");
    std::thread::sleep(WATCHED);
    let used = daemon.cpu() - before;
    assert!(used < WATCHED / 5, "nothing is on air, and it used {used:?} of {WATCHED:?}");
}

#[test]
fn a_daemon_without_publishers_waits() {
    let daemon = Daemon::start("[[bootstrap.channel]]\nname = \"news\"\nkind = \"transmux\"\n");
    assert_at_rest(&daemon);
}

#[test]
fn hundreds_of_channels_are_found_again_and_wait_too() {
    let tables = (0..300).map(|n| format!("[[bootstrap.channel]]\nname = \"c{n}\"\nkind = \"transmux\"\n"));
    let mut daemon = Daemon::start(&tables.collect::<String>());
    let told = |daemon: &Daemon, query: &str| {
        let status: Value = serde_json::from_slice(&daemon.get(&format!("/status.json{query}")).body).expect("JSON");
        status["channels"].as_array().expect("a list").iter().map(|channel| channel["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((told(&daemon, "").len(), told(&daemon, "?channel=c7")), (300, vec![Value::from("c7")]));
    assert!(daemon.stop().success());
    let again = daemon.again();
    assert_eq!((told(&again, "").len(), told(&again, "?channel=c300")), (300, vec![]));
    assert_at_rest(&again);
}

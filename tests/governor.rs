//! A machine that cannot carry its ladder sheds what it must, keeps the lowest rendition and the sound whole, says so,
//! and takes the rest back when there is room.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[path = "support/numbered.rs"]
mod numbered;

use std::process::{Command, Stdio};
use std::time::Duration;

use daemon::{Daemon, Running, push_loop, signal, wait};
use follow::Follow;
use numbered::{Drawn, clip};

/// `name` in `/status.json`, and its state.
fn states(daemon: &Daemon) -> Vec<(String, String)> {
    let status: serde_json::Value = serde_json::from_slice(&daemon.get("/status.json").body).expect("JSON");
    let renditions = status["channels"][0]["renditions"].as_array().cloned().unwrap_or_default();
    let text = |v: &serde_json::Value| v.as_str().unwrap_or("").to_owned();
    renditions.iter().map(|r| (text(&r["name"]), text(&r["state"]))).collect()
}

fn shed(daemon: &Daemon) -> Vec<String> {
    states(daemon).into_iter().filter(|(_, state)| state == "shed").map(|(name, _)| name).collect()
}

/// The core that the daemon, its worker and the load share.
fn pin(pid: u32) {
    let status = Command::new("taskset").args(["-a", "-c", "-p", "0", &pid.to_string()]).stdout(Stdio::null()).status();
    assert!(status.expect("taskset is installed").success());
}

#[test]
fn one_core_and_a_busy_loop_shed_the_top_and_keep_the_lowest_rendition_and_the_sound_whole() {
    let pictures = 500;
    let file = clip(
        "governor-20.ts",
        Drawn { width: 960, height: 540, rate: "25", pictures },
        &["sine=frequency=440:sample_rate=48000:duration=20"],
        "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 2M -c:a aac -ac 2 -b:a 128k",
    );
    // Presets that one core does not carry beside others; the lowest rendition is small.
    let daemon = Daemon::start(
        "[[bootstrap.channel]]\nname = \"g\"\npreset = \"medium\"\n\
         ladder = [{ name = \"540p\", height = 540, bitrate = 3000000 }, \
         { name = \"360p\", height = 360, bitrate = 1200000 }, { name = \"90p\", height = 90, bitrate = 150000 }]\n",
    );
    let _publisher = push_loop(&file, &daemon.publish_url("g"), &[]);
    daemon.wait_for("/live/g/index.m3u8", Duration::from_secs(30));
    let follow = Follow::start(daemon.http, "g");
    wait(Duration::from_secs(20), "the worker", || daemon.workers().first().copied());
    pin(daemon.pid());
    daemon.workers().into_iter().for_each(pin);
    let busy: Vec<Running> = (0..3)
        .map(|_| {
            let mut command = Command::new("taskset");
            command.args(["-c", "0", "sh", "-c", "while :; do :; done"]);
            Running(command.spawn().expect("taskset is installed"))
        })
        .collect();
    let off =
        wait(Duration::from_secs(60), "a rendition that is shed", || Some(shed(&daemon)).filter(|s| !s.is_empty()));
    println!("shed: {off:?}");
    assert!(!off.contains(&"90p".to_owned()), "the lowest stays");
    assert!(
        daemon.metric("rung_rendition_shed{channel=\"g\",rendition=\"540p\"}") == 1.0 || !off.contains(&"540p".into())
    );
    wait(Duration::from_secs(10), "the multivariant playlist without it", || {
        let text = daemon.get("/live/g/index.m3u8").text();
        (shed(&daemon).iter().all(|name| !text.contains(&format!("\n{name}.m3u8"))) && text.contains("90p.m3u8"))
            .then_some(())
    });
    let name = off.first().expect("one").clone();
    wait(Duration::from_secs(20), "its playlist to go on as GAP", || {
        daemon.get(&format!("/live/g/{name}.m3u8")).text().contains("#EXT-X-GAP").then_some(())
    });
    assert!(daemon.log().contains("rendition_shed"), "{}", daemon.log());
    // The load goes; everything comes back within a bounded time.
    for load in &busy {
        signal(load.0.id(), "KILL");
    }
    let all = format!("0-{}", std::thread::available_parallelism().map_or(1, |n| n.get()) - 1);
    for pid in daemon.workers().into_iter().chain([daemon.pid()]) {
        let status =
            Command::new("taskset").args(["-a", "-c", "-p", &all, &pid.to_string()]).stdout(Stdio::null()).status();
        assert!(status.expect("taskset").success());
    }
    let start = rung::time::SystemClock::mono();
    wait(Duration::from_secs(120), "all renditions back", || {
        let text = daemon.get("/live/g/index.m3u8").text();
        (shed(&daemon).is_empty() && ["540p", "360p", "90p"].iter().all(|n| text.contains(&format!("{n}.m3u8"))))
            .then_some(())
    });
    println!("all back {:.1} s after the load went", (rung::time::SystemClock::mono() - start).as_secs_f64());
    let seen = follow.stop();
    println!("{:?}", seen.report);
    assert_eq!(seen.report.discontinuities, 0, "{:?}", seen.report);
    for name in ["90p", "a-und-1"] {
        let text = &seen.rendition(name).playlist;
        assert!(!text.contains("GAP"), "{name} is whole: {text}");
    }
    let lowest = seen.rendition("90p");
    let counters: Vec<u32> = lowest.counters().into_iter().map(|c| c.expect("readable")).collect();
    for pair in counters.windows(2) {
        assert_eq!(pair[1], (pair[0] + 1) % pictures, "the lowest rendition misses nothing: {counters:?}");
    }
    assert!(counters.len() > 250, "{} pictures", counters.len());
}

//! `rung serve` on a machine with GPUs, which are the driver's double: what the API, the metrics and the log tell of them,
//! and that media does not care how they are.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../worker/tests/support/double.rs"]
mod double;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[path = "support/numbered.rs"]
mod numbered;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/on_gpus.rs"]
mod on_gpus;

use std::process::Command;
use std::time::Duration;

use daemon::{Daemon, push_loop, wait};
use double::Driver;
use follow::Follow;
use numbered::{Drawn, clip};
use on_gpus::serve;
use rung::time::SystemClock;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn system(daemon: &Daemon) -> Value {
    daemon.ask("/v1/system")
}

#[test]
fn every_gpu_is_told_in_the_api_the_metrics_and_the_log() {
    let mut driver = Driver::new()
        .gpus(2)
        .setting("driver", "550.54.14")
        .setting("gpu0.name", "NVIDIA L4")
        .setting("gpu0.uuid", "GPU-first")
        .setting("gpu0.pci", "0000:3b:00.0")
        .setting("gpu0.memory_mb", 23_034)
        .setting("gpu0.used_mb", 512)
        .setting("gpu0.utilization", 12)
        .setting("gpu0.encoder", 37)
        .setting("gpu0.decoder", 45)
        .setting("gpu0.temperature", 61)
        .setting("gpu0.power", 71_500);
    let daemon = serve(&driver, "", "");
    let system_now =
        wait(PATIENCE, "readings", || Some(system(&daemon)).filter(|system| system["gpus"][1]["reading"].is_object()));
    assert_eq!(system_now["gpu_monitor"]["state"], "watching");
    let gpu = &system_now["gpus"][0];
    assert_eq!((&gpu["number"], &gpu["name"], &gpu["uuid"]), (&0.into(), &"NVIDIA L4".into(), &"GPU-first".into()));
    assert_eq!((&gpu["pci"], &gpu["driver"]), (&"0000:3b:00".into(), &"550.54.14".into()));
    assert_eq!((&gpu["health"], &gpu["why"], &gpu["remedy"]), (&"ok".into(), &Value::Null, &Value::Null));
    let reading = &gpu["reading"];
    assert_eq!((&reading["encoder"], &reading["decoder"]), (&0.37.into(), &0.45.into()));
    assert_eq!((&reading["temperature_celsius"], &reading["power_watts"]), (&61.into(), &71.5.into()));
    assert!(reading["age_s"].as_f64().is_some_and(|age| age < 3.0), "{reading}");
    for (metric, value) in [
        ("rung_gpu_up{gpu=\"0\"}", 1.0),
        ("rung_gpu_utilization_ratio{gpu=\"0\"}", 0.12),
        ("rung_gpu_encoder_ratio{gpu=\"0\"}", 0.37),
        ("rung_gpu_decoder_ratio{gpu=\"0\"}", 0.45),
        ("rung_gpu_memory_bytes{gpu=\"0\",kind=\"used\"}", f64::from(512 << 20)),
        ("rung_gpu_memory_bytes{gpu=\"0\",kind=\"total\"}", 23_034.0 * 1_048_576.0),
        ("rung_gpu_temperature_celsius{gpu=\"0\"}", 61.0),
        ("rung_gpu_power_watts{gpu=\"0\"}", 71.5),
        ("rung_gpu_up{gpu=\"1\"}", 1.0),
    ] {
        assert_eq!(daemon.metric(metric), value, "{metric}");
    }
    driver.set("event", "1:xid:31");
    let faults = "rung_gpu_errors_total{gpu=\"1\",xid=\"31\"}";
    wait(PATIENCE, "the fault", || (daemon.metric(faults) == 1.0).then_some(()));
    assert_eq!(system(&daemon)["gpus"][1]["health"], "ok", "a process's own fault");
    driver.set("event", "1:xid:95");
    let ill =
        wait(PATIENCE, "the illness", || Some(system(&daemon)["gpus"][1].clone()).filter(|gpu| gpu["health"] == "ill"));
    assert_eq!((&ill["why"], &ill["remedy"]), (&"Xid 95".into(), &"drain-and-reset".into()));
    driver.play("ml.gpu0 code=15");
    let lost =
        wait(PATIENCE, "the loss", || Some(system(&daemon)["gpus"][0].clone()).filter(|gpu| gpu["health"] == "lost"));
    assert_eq!((&lost["remedy"], &lost["reading"]), (&"reboot".into(), &Value::Null));
    for up in ["rung_gpu_up{gpu=\"0\"}", "rung_gpu_up{gpu=\"1\"}"] {
        wait(PATIENCE, up, || (daemon.metric(up) == 0.0).then_some(()));
    }
    for (code, part) in [
        ("gpu_watched", "NVIDIA L4"),
        ("gpu_monitor_up", "2 GPU(s), driver 550.54.14; sandbox: seccomp"),
        ("gpu_fault", "Xid 31"),
        ("gpu_ill", "Xid 95"),
        ("gpu_lost", "only a reboot"),
    ] {
        let line = wait(PATIENCE, code, || daemon.log().lines().find(|line| line.contains(code)).map(str::to_owned));
        assert!(line.contains(part), "{code}: {line}");
    }
    assert_eq!(daemon.log().matches("gpu_lost").count(), 1, "a transition is one line");
}

#[test]
fn media_goes_on_while_the_driver_hangs_and_the_monitor_is_replaced() {
    let pictures = 500;
    let file = clip(
        "respawn-20.ts",
        Drawn { width: 640, height: 360, rate: "25", pictures },
        &["sine=frequency=440:sample_rate=48000:duration=20"],
        "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 1M -c:a aac -ac 2 -b:a 128k",
    );
    let mut driver = Driver::new();
    let daemon = serve(&driver, "", "[[bootstrap.channel]]\nname = \"through\"\nkind = \"transmux\"\n");
    let _publisher = push_loop(&file, &daemon.publish_url("through"), &[]);
    daemon.wait_for("/live/through/index.m3u8", PATIENCE);
    let up = || daemon.metric("rung_gpu_up{gpu=\"0\"}") == 1.0;
    wait(PATIENCE, "the GPU", || up().then_some(()));
    let viewer = Follow::start(daemon.http, "through");
    driver.play("ml.call hang");
    let replaced = "rung_gpu_monitor_respawns_total{reason=\"hung\"}";
    let mut longest = Duration::ZERO;
    wait(PATIENCE, "a replaced monitor", || {
        let before = SystemClock::mono();
        assert_eq!(system(&daemon)["gpus"][0]["health"], "ok");
        longest = longest.max(SystemClock::mono() - before);
        (daemon.metric(replaced) >= 1.0).then_some(())
    });
    let before = SystemClock::mono();
    wait(PATIENCE, "some media more", || (SystemClock::mono() - before > Duration::from_secs(3)).then_some(()));
    let seen = viewer.stop();
    seen.assert_satisfied("the viewer");
    assert_eq!((seen.report.gaps, seen.report.discontinuities), (0, 0), "{:?}", seen.report);
    assert!(longest < Duration::from_secs(2), "the API waited {longest:?}");
}

#[test]
fn a_machine_without_a_gpu_says_so_once_and_starts_nothing_more() {
    let driver = Driver::new().without("libnvidia-ml.so.1");
    let daemon = serve(&driver, "", "");
    let line = wait(PATIENCE, "the word", || {
        daemon.log().lines().find(|line| line.contains("gpus_unwatched")).map(str::to_owned)
    });
    assert!(line.contains("INFO") && line.contains("no libnvidia-ml.so.1 in"), "{line}");
    let told = system(&daemon);
    assert_eq!((&told["gpu_monitor"]["state"], &told["gpus"]), (&"unavailable".into(), &Value::Array(Vec::new())));
    assert!(told["gpu_monitor"]["detail"].as_str().is_some_and(|what| what.contains("no GPU is watched")), "{told}");
    assert_eq!(daemon.log().matches("gpus_unwatched").count(), 1, "{}", daemon.log());
}

#[test]
fn a_box_that_works_on_the_cpu_watches_no_gpu() {
    let daemon = Daemon::start_with("[worker]\nbackend = \"software\"\n", "", &[]);
    assert_eq!(system(&daemon)["gpu_monitor"]["state"], "off");
    assert_eq!(daemon.log().matches("gpu").count(), 0, "{}", daemon.log());
}

#[test]
fn probe_tells_each_gpu_and_how_many_channels_of_a_ladder_they_carry() {
    let driver = Driver::new()
        .gpus(2)
        .setting("driver", "550.54.14")
        .setting("gpu0.name", "NVIDIA L4")
        .setting("gpu0.pci", "0000:3b:00.0");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ladder = folder.path().join("ladder.json");
    std::fs::write(&ladder, r#"[{"name": "540p", "height": 540, "bitrate": 1500000}]"#).expect("writable");
    let probe = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
        driver.env(command.args(["probe", "--driver-folder"]).arg(driver.folder()).args(more));
        command.output().expect("rung starts")
    };
    let told = probe(&["--source", "1080,540", "--fps", "50", "--ladder", ladder.to_str().expect("text"), "--json"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    let gpu = &told["gpus"][0];
    assert_eq!((&gpu["name"], &gpu["driver"]), (&"NVIDIA L4".into(), &"550.54.14".into()));
    assert_eq!((&gpu["pci"]["bus"], told["gpus"].as_array().map(Vec::len)), (&0x3b.into(), Some(2)));
    let [large, small] = [&told["channels"][0], &told["channels"][1]];
    assert_eq!((&large["source"], &large["renditions"]), (&"1080p50 H.264".into(), &serde_json::json!(["540p"])));
    assert_eq!((&large["backend"], &large["gpu"]), (&"gpu".into(), &0.into()));
    let carried = |channel: &Value| channel["on_gpus"].as_u64().expect("a number");
    assert!(carried(large) > 0 && carried(small) > carried(large), "{told}");
    assert!(large["limit"].as_str().is_some_and(|why| why.contains("engines at")), "{told}");
    let text = String::from_utf8(probe(&[]).stdout).expect("text");
    assert!(text.contains("GPU 0     NVIDIA L4 at 0000:3b:00") && text.contains("the GPUs carry"), "{text}");
    let wrong = probe(&["--ladder", "rung.toml"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && said.contains("rung.toml: no JSON"), "{said}");
    assert_eq!(driver.broken(), Vec::<String>::new());
}

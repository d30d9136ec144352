//! Shared workers as a channel's owner sees them: seats, what is lost with a process and what is not, and the way back.

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use rung::media::limits::{WORKER_SEATS_MAX, WORKER_START_GPU};
use rung::pipeline::stage::RestartPlan;
use rung::pipeline::workers::{Event as Told, Workers};
use rung::pixels::client;
use rung::pixels::hall::{Event, Hall, Home};
use rung::pixels::protocol::{FromWorker, Open, ToWorker, Unit};
use rung::time::{Mono, SystemClock};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use support::*;

const GPU: u32 = 3;
/// No answer takes longer, however loaded the machine is.
const DEADLINE: Duration = Duration::from_secs(60);

fn real() -> Hall {
    Hall::new(env!("CARGO_BIN_EXE_rung-worker").into())
}

fn now() -> Mono {
    SystemClock::mono()
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Lets `worker` run until a message fits.
fn wait_for(worker: &mut client::Worker, what: &str, fits: impl Fn(&FromWorker) -> bool) {
    let until = now() + DEADLINE;
    loop {
        worker.run(now());
        while let Some(message) = worker.poll() {
            if fits(&message) {
                return;
            }
        }
        assert!(worker.end().is_none(), "waiting for {what}: {:?}", worker.end());
        assert!(now() < until, "no {what}");
        wait(&[(worker.fd(), false)]);
    }
}

fn wait_for_end(worker: &mut client::Worker) -> String {
    let until = now() + DEADLINE;
    loop {
        worker.run(now());
        while worker.poll().is_some() {}
        if let Some(end) = worker.end() {
            return end.to_owned();
        }
        assert!(now() < until, "it does not end");
        wait(&[(worker.fd(), false)]);
    }
}

/// Until a descriptor has something, at most 10 ms.
fn wait(fds: &[(std::os::fd::BorrowedFd<'_>, bool)]) {
    let mut fds: Vec<PollFd<'_>> = fds
        .iter()
        .map(|(fd, writing)| {
            PollFd::from_borrowed_fd(*fd, if *writing { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN })
        })
        .collect();
    poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 10_000_000 })).unwrap();
}

fn events(hall: &Hall) -> Vec<Event> {
    std::iter::from_fn(|| hall.poll()).collect()
}

/// Runs the hall at `at` and what follows until one of its events fits.
fn wait_for_event(hall: &Hall, at: Mono, fits: impl Fn(&Event) -> bool) -> Event {
    let begun = now();
    loop {
        hall.run(at + now().since(begun));
        if let Some(event) = events(hall).into_iter().find(&fits) {
            return event;
        }
        assert!(now().since(begun) < DEADLINE, "no such event");
        wait(&[]);
    }
}

/// A channel as its session drives it: fed in real time, respawned when it is lost.
struct Channel {
    workers: Workers,
    units: Vec<Unit>,
    fed: usize,
    /// Frames that came, and whether as IDR.
    frames: BTreeMap<i64, bool>,
    /// Why a worker was lost, when, and the frame that was missing then.
    lost: Vec<(&'static str, String, Mono, i64)>,
    /// First frame behind each loss.
    back: Vec<Mono>,
    waits: bool,
    closed: bool,
}

impl Channel {
    fn open(hall: &Hall, units: &[Unit], open: Open) -> Channel {
        let mut workers = Workers::new(hall.clone(), now());
        workers.set_home(Home::Gpu(GPU));
        workers.open(now(), open);
        Channel {
            workers,
            units: units.to_vec(),
            fed: 0,
            frames: BTreeMap::new(),
            lost: Vec::new(),
            back: Vec::new(),
            waits: false,
            closed: false,
        }
    }

    /// First frame that is missing.
    fn edge(&self) -> i64 {
        self.frames.last_key_value().map_or(0, |(n, _)| n + 1)
    }

    fn run(&mut self, start: Mono) {
        let now = now();
        while self.fed < self.units.len() && now >= start + Duration::from_millis(40 * self.fed as u64) {
            let mut unit = self.units[self.fed].clone();
            unit.stamps.received = now;
            self.workers.video_unit(now, unit);
            self.fed += 1;
        }
        self.workers.run(now);
        while let Some(event) = self.workers.poll() {
            match event {
                Told::Encoded(frame) => {
                    if std::mem::take(&mut self.waits) {
                        self.back.push(now);
                    }
                    self.frames.entry(frame.at).or_insert(frame.sync);
                }
                Told::Lost { why, detail, .. } => {
                    self.lost.push((why, detail, now, self.edge()));
                    self.waits = true;
                }
                Told::Closed => self.closed = true,
                _ => {}
            }
        }
        self.workers.published(self.edge());
        if self.workers.retry_due(now) {
            let plan = RestartPlan { start: self.edge(), idrs: Vec::new(), audio: Vec::new() };
            self.workers.respawn(now, &plan);
        }
    }
}

fn run_all(channels: &mut [Channel], start: Mono, what: &str, mut until: impl FnMut(&[Channel]) -> bool) {
    let deadline = now() + DEADLINE;
    loop {
        channels.iter_mut().for_each(|channel| channel.run(start));
        if until(channels) {
            return;
        }
        assert!(now() < deadline, "{what}");
        let fds: Vec<_> = channels.iter().filter_map(|channel| channel.workers.fd()).collect();
        wait(&fds);
    }
}

fn units(dir: &Path, frames: u32) -> Vec<Unit> {
    video(dir, frames, &["-bf", "0", "-g", "50"]).iter().map(video_unit).collect()
}

#[test]
fn eight_channels_of_a_stopped_or_killed_process_all_come_back_in_another() {
    let dir = tempfile::tempdir().unwrap();
    let units = units(dir.path(), 400);
    let hall = real();
    let mut channels: Vec<Channel> = (0..8).map(|_| Channel::open(&hall, &units, small())).collect();
    let start = now();
    run_all(&mut channels, start, "the first frames", |all| all.iter().all(|c| c.edge() > 50));
    for how in [Signal::STOP, Signal::KILL] {
        let victim = hall.pids();
        assert_eq!(victim.len(), 1, "eight channels are one process");
        let (losses, edge) = (channels[0].lost.len(), channels[0].edge());
        let hit = now();
        signal(victim[0], how);
        run_all(&mut channels, start, "all back", |all| {
            all.iter().all(|c| c.lost.len() > losses && !c.waits && c.edge() > edge + 75)
        });
        let pids = hall.pids();
        assert!(pids.len() == 1 && pids != victim, "all in one new process: {pids:?} after {victim:?}");
        let noticed = channels.iter().map(|c| c.lost[losses].2.since(hit)).max().unwrap();
        let back: Vec<Duration> = channels.iter().map(|c| c.back.last().unwrap().since(hit)).collect();
        println!(
            "{how:?}: noticed after {noticed:?}, back {:?} to {:?} after it",
            back.iter().min(),
            back.iter().max()
        );
        // Half a second of silence, and a round of the loop.
        assert!(noticed < Duration::from_millis(1_500), "{noticed:?}");
        let why: Vec<&str> = channels.iter().map(|c| c.lost[losses].0).collect();
        assert_eq!(why.contains(&"silent"), how == Signal::STOP, "{why:?}");
        // Not even a zombie is left, and that is said once.
        (0..3).for_each(|_| hall.run(now()));
        assert!(!Path::new(&format!("/proc/{}", victim[0])).exists());
        let told = events(&hall);
        let condemned = told.iter().any(|e| matches!(e, Event::Condemned { pid, .. } if *pid == victim[0]));
        assert_eq!(condemned, how == Signal::STOP, "{told:?}");
        assert_eq!(told.iter().filter(|e| matches!(e, Event::Ended { pid, .. } if *pid == victim[0])).count(), 1);
    }
    run_all(&mut channels, start, "the end", |all| all.iter().all(|c| c.fed == 400));
    channels.iter_mut().for_each(|c| c.workers.close(now()));
    run_all(&mut channels, start, "closed", |all| all.iter().all(|c| c.closed));
    for channel in &channels {
        // Late, but all there.
        assert!(channel.frames.keys().copied().eq(0..400));
        for (_, _, _, edge) in &channel.lost {
            assert!(channel.frames[edge], "a successor begins with an IDR at frame {edge}");
        }
    }
}

#[test]
fn a_channel_that_cannot_open_is_tried_again_and_its_neighbours_stay() {
    let dir = tempfile::tempdir().unwrap();
    let units = units(dir.path(), 50);
    let hall = real();
    let mut neighbour = hall.seat(GPU, now()).unwrap();
    neighbour.send(&ToWorker::Open { ch: 0, open: Box::new(small()) }).unwrap();
    wait_for(&mut neighbour, "opened", |m| matches!(m, FromWorker::Opened { .. }));
    let mut open = small();
    open.video.as_mut().unwrap().renditions[0].preset = "hasty".to_owned();
    let mut channels = [Channel::open(&hall, &units, open)];
    run_all(&mut channels, now(), "four tries", |all| all[0].lost.len() >= 4);
    let lost = &channels[0].lost;
    assert!(lost.iter().all(|(why, detail, ..)| *why == "failed" && detail.contains("enc-72p")), "{lost:?}");
    // 0, 100 and 200 ms between them.
    assert!(lost[3].2.since(lost[0].2) >= Duration::from_millis(300));
    assert_eq!(hall.pids(), [neighbour.pid()]);
    wait_for(&mut neighbour, "progress", |m| matches!(m, FromWorker::Progress { .. }));
    assert!(!events(&hall).iter().any(|e| matches!(e, Event::Condemned { .. } | Event::Ended { .. })));
}

#[test]
fn the_ninth_gets_a_second_process_seats_are_used_again_and_an_empty_process_goes() {
    let hall = real();
    let mut seats: Vec<client::Worker> = (0..WORKER_SEATS_MAX).map(|_| hall.seat(GPU, now()).unwrap()).collect();
    let first = seats[0].pid();
    assert!(seats.iter().all(|worker| worker.pid() == first));
    let mut ninth = hall.seat(GPU, now()).unwrap();
    assert_ne!(ninth.pid(), first);
    let elsewhere = hall.seat(GPU + 1, now()).unwrap();
    let counts: Vec<_> = hall.counts().iter().map(|c| (c.gpu, c.processes, c.seats)).collect();
    assert_eq!(counts, [(GPU, 2, 9), (GPU + 1, 1, 1)]);
    for worker in seats.iter_mut().chain([&mut ninth]) {
        wait_for(worker, "hello", |m| matches!(m, FromWorker::Hello { .. }));
    }
    // One leaves the full process: once nothing of it is left, that is where the next one sits.
    drop(seats.pop());
    let until = now() + DEADLINE;
    while hall.counts()[0].seats > 8 {
        hall.run(now());
        assert!(now() < until, "the seat is not freed");
        wait(&[]);
    }
    let mut next = hall.seat(GPU, now()).unwrap();
    assert_eq!(next.pid(), first);
    wait_for(&mut next, "hello", |m| matches!(m, FromWorker::Hello { .. }));
    // The second process is a warm spare for half a minute, then it goes by itself.
    let spare = ninth.pid();
    drop(ninth);
    while hall.counts()[0].seats > 8 {
        hall.run(now());
        assert!(now() < until, "the seat is not freed");
        wait(&[]);
    }
    hall.run(now() + Duration::from_secs(29));
    assert!(hall.pids().contains(&spare));
    let ended = wait_for_event(
        &hall,
        now() + Duration::from_secs(31),
        |e| matches!(e, Event::Ended { pid, .. } if *pid == spare),
    );
    assert!(matches!(&ended, Event::Ended { expected: true, how, .. } if how == "exit status: 0"), "{ended:?}");
    assert!(hall.pids().contains(&first));
    // With the hall and the last seat goes everything else.
    let pids = hall.pids();
    drop((seats, next, elsewhere, hall));
    assert!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{pids:?}");
}

#[test]
fn a_process_in_which_a_channel_that_left_hangs_takes_no_other_and_goes_with_its_last() {
    let hall = real();
    let mut stays = hall.seat(GPU, now()).unwrap();
    let mut guest = hall.seat(GPU, now()).unwrap();
    for worker in [&mut stays, &mut guest] {
        wait_for(worker, "hello", |m| matches!(m, FromWorker::Hello { .. }));
    }
    let pid = stays.pid();
    // What a thread that does not return from a driver looks like from here.
    signal(pid, Signal::STOP);
    drop(guest);
    let at = now();
    hall.run(at);
    hall.run(at + Duration::from_secs(4));
    assert!(!events(&hall).iter().any(|e| matches!(e, Event::Closed { .. })));
    hall.run(at + Duration::from_secs(6));
    assert!(events(&hall).contains(&Event::Closed { gpu: GPU, pid }));
    assert_ne!(hall.seat(GPU, now()).unwrap().pid(), pid);
    assert!(hall.pids().contains(&pid), "whoever sits in it keeps its place");
    drop(stays);
    let condemned = wait_for_event(&hall, now(), |e| matches!(e, Event::Condemned { .. }));
    assert!(matches!(condemned, Event::Condemned { pid: gone, channels: 0, .. } if gone == pid));
}

#[test]
fn the_process_whose_work_on_a_gpu_was_ended_goes_and_no_other() {
    let hall = real();
    let (here, there) = (hall.seat(GPU, now()).unwrap(), hall.seat(GPU + 1, now()).unwrap());
    hall.restart(GPU, Some(there.pid()), "Xid 94", now());
    hall.restart(GPU + 2, None, "Xid 94", now());
    assert_eq!(hall.pids().len(), 2, "nobody is meant");
    hall.restart(GPU, Some(here.pid()), "Xid 94", now());
    assert_eq!(hall.pids(), [there.pid()]);
    let condemned = wait_for_event(&hall, now(), |e| matches!(e, Event::Condemned { .. }));
    assert!(matches!(&condemned, Event::Condemned { pid, why, .. } if *pid == here.pid() && why == "Xid 94"));
    hall.restart(GPU + 1, None, "Xid 94, no process named", now());
    assert!(hall.pids().is_empty());
}

#[test]
fn what_does_not_become_ready_is_killed_in_time_and_not_started_over_and_over() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let script = |name: &str, does: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{does}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let hall = Hall::new(dir.path().join("nothing"));
    let refused = hall.seat(GPU, now()).err().unwrap();
    assert!(refused.contains("cannot be started"), "{refused}");

    let hall = Hall::new(script("ends", "sleep 0.2; exit 3"));
    let mut worker = hall.seat(GPU, now()).unwrap();
    wait_for_end(&mut worker);
    wait_for_event(
        &hall,
        now(),
        |e| matches!(e, Event::Ended { expected: false, channels: 1, how, .. } if how == "exit status: 3"),
    );
    let again = hall.seat(GPU, now()).err().expect("not at once");
    assert!(again.contains("ended before it was ready") && again.contains("GPU 3"), "{again}");
    // Another GPU is another matter; and after the wait there is another try.
    hall.seat(GPU + 1, now()).unwrap();
    drop(hall.seat(GPU, now() + Duration::from_millis(200)).unwrap());

    let hall = Hall::new(script("hangs", "exec sleep 600"));
    let mut worker = hall.seat(GPU, now()).unwrap();
    let (pid, late) = (worker.pid(), now() + WORKER_START_GPU);
    hall.run(late.back(Duration::from_secs(1)));
    assert_eq!(worker.silence(late.back(Duration::from_secs(1))), Duration::ZERO, "a start has a bound of its own");
    hall.run(late + Duration::from_secs(1));
    let end = wait_for_end(&mut worker);
    assert!(end.contains("closed its socket"), "{end}");
    let condemned = wait_for_event(&hall, late + Duration::from_secs(1), |e| matches!(e, Event::Condemned { .. }));
    assert!(
        matches!(&condemned, Event::Condemned { pid: gone, channels: 1, why, .. } if *gone == pid && why.contains("20 s")),
        "{condemned:?}"
    );
}

#[test]
fn two_hundred_seats_taken_and_left_cost_the_daemon_nothing() {
    let hall = real();
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let take_and_leave = |times: u32| {
        for _ in 0..times {
            let mut worker = hall.seat(GPU, now()).unwrap();
            wait_for(&mut worker, "hello", |m| matches!(m, FromWorker::Hello { .. }));
        }
        let until = now() + DEADLINE;
        while hall.counts()[0].seats > 0 {
            hall.run(now());
            assert!(now() < until, "seats are not freed");
            wait(&[]);
        }
    };
    take_and_leave(10);
    let (before, pids) = (count("fd"), hall.pids());
    take_and_leave(200);
    // Tests beside this one open and close files: what leaks here would leak two hundred times.
    let after = count("fd");
    println!("the daemon's descriptors: {before} before, {after} after; processes {pids:?}");
    assert!(after < before + 100, "{before} descriptors, then {after}");
    assert!(hall.pids().len() <= pids.len() + 1, "{pids:?}, then {:?}", hall.pids());
}

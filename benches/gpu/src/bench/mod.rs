//! What the card gives: times of the GPU by its own events, rates by the clock, medians over rounds.

mod channels;
mod decode;
mod encode;
mod scale;
pub(crate) mod start;
mod thumbnails;

use nix::sys::resource::{UsageWho, getrusage};
use rung::time::SystemClock;
use std::time::Duration;

use crate::Plan;
use crate::card::Card;
use crate::clips::Clips;
use crate::report::{Report, guarded};

/// All of them.
pub(crate) fn run(card: &Card, plan: &Plan, report: &mut Report) {
    let clips = Clips::new(&plan.clips);
    report.chapter("Start");
    let found = guarded(|| start::run(card, plan, report));
    report.outcome("start", found);
    report.chapter("Scaling");
    let found = guarded(|| scale::run(card, plan.extent, report));
    report.outcome("scaling", found);
    report.chapter("Decoding");
    let found = guarded(|| decode::rates(card, &clips, plan.extent, report));
    report.outcome("decode rates", found);
    let found = guarded(|| decode::latency(card, &clips, plan.extent, report));
    report.outcome("decode latency", found);
    let found = guarded(|| decode::memory(card, &clips, report));
    report.outcome("memory of a decoder", found);
    report.chapter("Channels: decoded and scaled");
    let found = guarded(|| channels::run(card, &clips, plan.extent, report));
    report.outcome("channels", found);
    report.chapter("Thumbnails");
    let found = guarded(|| thumbnails::run(card, plan.extent, report));
    report.outcome("thumbnails", found);
    report.chapter("Encoding");
    let found = guarded(|| encode::run(card, plan.extent, report));
    report.outcome("encoding", found);
}

/// While other threads work. A thread that ended may have woken this one beforehand.
fn pause(span: Duration) {
    let end = SystemClock::mono() + span;
    loop {
        let left = end.since(SystemClock::mono());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// Seconds of processor time that this process has used.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask about itself");
    [usage.user_time(), usage.system_time()].iter().map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6).sum()
}

fn mib(bytes: f64) -> String {
    format!("{:.0}", bytes / f64::from(1 << 20))
}

//! What happens on the data plane, as log lines and metrics: each event in one place.

use std::fmt::Display;
use std::time::Duration;

use super::ports::Counters;
use super::status::State;
use super::witness::Placed;
use crate::ingest::{Closing, Connected, Leg, Protocol, PublisherStats, PullNews, PullState};
use crate::media::channel::{ChannelName, SessionId};
use crate::media::fault::{Fault, FaultKind};
use crate::media::marker::Dropped;
use crate::pixels::hall;
use crate::pixels::protocol::{PictureKind, Progress};
use crate::telemetry::names::{Label, Metric, count, gauge};
use crate::telemetry::report::{Level, Place, log};

/// The channel (and session) that events are about.
#[derive(Clone, Debug)]
pub struct Scene {
    pub channel: ChannelName,
    pub session: Option<SessionId>,
}

impl Scene {
    fn place(&self) -> Place<'_> {
        let session = self.session.as_ref().map_or("", SessionId::as_str);
        Place { channel: self.channel.as_str(), session, rendition: "" }
    }

    fn label(&self) -> Label<'_> {
        Label::Channel(self.channel.as_str())
    }

    pub fn connected(&self, c: &Connected) {
        gauge(Metric::IngestLegUp, &[self.label(), leg(c.leg)], 1.0);
        let crypto = if c.key_bits == 0 { "in clear".to_owned() } else { format!("AES-{}", c.key_bits) };
        let version = c.peer_version.as_deref().unwrap_or("unknown version");
        let peer = match c.protocol {
            Protocol::Srt => format!("{crypto}, libsrt {version}"),
            Protocol::Quic => format!("TLS 1.3, {version}"),
        };
        let latency = c.latency.as_millis();
        let what = format!("publisher on leg {}, latency {latency} ms, {peer}", c.leg);
        log(Level::Info, "publisher_connected", &self.place(), what);
    }

    pub fn disconnected(&self, on: Leg, why: Closing, stats: &PublisherStats) {
        gauge(Metric::IngestLegUp, &[self.label(), leg(on)], 0.0);
        let mut what = format!(
            "leg {on}: {why}; {} received, {} lost, {} retransmitted, {} dropped",
            stats.received, stats.lost, stats.retransmitted, stats.dropped
        );
        if stats.filter_extra > 0 {
            what += &format!(", {} rebuilt by the packet filter", stats.filter_supplied);
        }
        log(Level::Info, "publisher_closed", &self.place(), what);
    }

    pub fn state(&self, from: Option<State>, to: State, reason: &'static str, detail: impl Display) {
        let (from, to_name) = (from.map_or("none", State::name), to.name());
        count(Metric::SessionTransitions, &[Label::From(from), Label::To(to_name), Label::Reason(reason)], 1);
        for state in State::ALL {
            let on = if state == to && state != State::Ended { 1.0 } else { 0.0 };
            gauge(Metric::SessionState, &[self.label(), Label::State(state.name())], on);
        }
        let level = if to == State::Error { Level::Error } else { Level::Info };
        // A code per state: lines of one code are gathered, and every transition deserves its own.
        let code = match to {
            State::Init => "session_init",
            State::Processing => "session_processing",
            State::Live => "session_live",
            State::Error => "session_error",
            State::Ended => "session_ended",
        };
        log(level, code, &self.place(), format!("{from} -> {to_name} ({reason}) {detail}"));
    }

    /// A session's source is gone.
    pub fn input_lost(&self, closed: bool) {
        let why = if closed { "the publisher closed" } else { "the publisher is silent" };
        let what = format!("{why}: the last picture, then the slate, until it comes back or its time is up");
        log(Level::Warn, "input_lost", &self.place(), what);
        count(Metric::InputLosses, &[self.label()], 1);
        gauge(Metric::InputReconnecting, &[self.label()], 1.0);
    }

    pub fn input_restored(&self, after: Duration) {
        log(Level::Info, "input_restored", &self.place(), format!("media again after {:.2} s", after.as_secs_f64()));
        gauge(Metric::InputReconnecting, &[self.label()], 0.0);
    }

    pub fn fault(&self, fault: &Fault) {
        count(Metric::Faults, &[self.label(), Label::Kind(fault.kind.label())], 1);
        if fault.kind == FaultKind::TimeJump {
            count(Metric::IngestPtsJumps, &[self.label()], 1);
        }
        log(Level::Warn, code_of(fault.kind), &self.place(), fault);
    }

    /// A cue or a timed tag of the source.
    pub fn marker(&self, kind: &'static str) {
        count(Metric::Markers, &[self.label(), Label::Kind(kind)], 1);
    }

    /// A cue that says something new.
    pub fn cue(&self, what: impl Display) {
        log(Level::Info, "cue", &self.place(), what);
    }

    pub fn cue_repeated(&self) {
        count(Metric::MarkersRepeated, &[self.label()], 1);
    }

    /// `n` markers came to nothing.
    pub fn markers_dropped(&self, why: Dropped, n: u64) {
        count(Metric::MarkersDropped, &[self.label(), Label::Reason(why.label())], n);
        let what = match why {
            Dropped::Stale => "a cue or tag whose time is over",
            Dropped::Far => "a cue or tag whose time is too far ahead",
            Dropped::RunGone => "a cue whose time does not come: source time jumped before it",
            Dropped::Flood => "more cues and tags at once than are taken",
            // Schedules and bandwidth reservations are no fault.
            Dropped::NoSplice => return,
            Dropped::Refused => "a cue that contradicts what playlists say already",
        };
        if n > 0 {
            log(Level::Warn, "marker_dropped", &self.place(), format!("{what} ({n})"));
        }
    }

    pub fn worker_fault(&self, kind: FaultKind, at: Option<i64>, detail: &str) {
        count(Metric::Faults, &[self.label(), Label::Kind(kind.label())], 1);
        let at = at.map_or(String::new(), |n| format!(" at frame {n}"));
        log(Level::Warn, code_of(kind), &self.place(), format!("{detail}{at}"));
    }

    pub fn worker_lost(&self, why: &'static str, detail: &str) {
        gauge(Metric::WorkerUp, &[self.label()], 0.0);
        count(Metric::WorkerRespawns, &[self.label(), Label::Reason(why)], 1);
        log(Level::Warn, "worker_lost", &self.place(), detail);
    }

    /// Where the session's pictures are made from now on.
    pub fn placed(&self, placed: &Placed) {
        for backend in ["gpu", "gpu_decode", "software", "none"] {
            let on = if backend == placed.backend { 1.0 } else { 0.0 };
            gauge(Metric::ChannelBackend, &[self.label(), Label::Backend(backend)], on);
        }
        gauge(Metric::ChannelFallbackStep, &[self.label()], f64::from(placed.step));
        let level = match (placed.backend, placed.step) {
            ("none", _) => Level::Error,
            (_, 0) => Level::Info,
            _ => Level::Warn,
        };
        let step = if placed.step > 0 { format!(", step {} down", placed.step) } else { String::new() };
        log(level, "placed", &self.place(), format!("{}{step}: {}", placed.backend, placed.why));
    }

    pub fn worker_opened(&self, respawns: u64, detail: impl Display) {
        gauge(Metric::WorkerUp, &[self.label()], 1.0);
        let code = if respawns > 0 { "worker_back" } else { "worker_opened" };
        log(Level::Info, code, &self.place(), detail);
    }

    pub fn shed(&self, rendition: &str, at: i64) {
        gauge(Metric::RenditionShed, &[self.label(), Label::Rendition(rendition)], 1.0);
        count(Metric::RenditionSheds, &[self.label(), Label::Rendition(rendition)], 1);
        let place = Place { rendition, ..self.place() };
        log(Level::Warn, "rendition_shed", &place, format!("this machine cannot carry it: off from frame {at}"));
    }

    pub fn resumed(&self, rendition: &str, at: i64) {
        gauge(Metric::RenditionShed, &[self.label(), Label::Rendition(rendition)], 0.0);
        let place = Place { rendition, ..self.place() };
        log(Level::Info, "rendition_resumed", &place, format!("there is room again: back from frame {at}"));
    }

    pub fn late(&self, rendition: &str, resumes: i64) {
        let place = Place { rendition, ..self.place() };
        log(Level::Warn, "rendition_late", &place, format!("its encoder is too slow: skips to frame {resumes}"));
    }

    pub fn picture(&self, kind: &PictureKind) {
        let kind = match kind {
            PictureKind::Poster => "poster",
            PictureKind::Sheet(_) => "tile",
            PictureKind::Snap => "snapshot",
        };
        count(Metric::Pictures, &[self.label(), Label::Kind(kind)], 1);
    }

    pub fn pictures_left_out(&self, pictures: u64) {
        count(Metric::PicturesSkipped, &[self.label()], pictures);
    }

    pub fn captions_lost(&self, constructs: u64) {
        count(Metric::CaptionsLost, &[self.label()], constructs);
    }

    pub fn overrun(&self, at: i64) {
        count(Metric::IngestOverruns, &[self.label(), Label::Stage("worker")], 1);
        let what =
            format!("the worker is too far behind: units skipped from frame {at} to the next random access point");
        log(Level::Warn, "overrun", &self.place(), what);
    }

    pub fn pdt_error(&self, seconds: f64) {
        gauge(Metric::TimelinePdtError, &[self.label()], seconds);
    }

    /// The difference of two reports of one worker.
    pub fn progress(&self, before: &Progress, after: &Progress) {
        let grown = |a: u64, b: u64| b.saturating_sub(a);
        count(Metric::DecodeFrames, &[self.label()], grown(before.decoded, after.decoded));
        count(Metric::FramesRepeated, &[self.label()], grown(before.repeated, after.repeated));
        let dropped = grown(before.collided, after.collided);
        count(Metric::FramesDropped, &[self.label(), Label::Stage("decode")], dropped);
        count(Metric::FramesDropped, &[self.label(), Label::Stage("encode")], grown(before.shed, after.shed));
        let skipped = grown(before.pictures_skipped, after.pictures_skipped);
        count(Metric::PicturesSkipped, &[self.label()], skipped);
        count(Metric::PictureCopies, &[self.label()], grown(before.copies, after.copies));
        gauge(Metric::WorkerCpu, &[self.label()], after.cpu_us as f64 / 1e6);
        gauge(Metric::WorkerMemory, &[self.label()], after.rss_bytes as f64);
    }

    /// Counters of a publisher since its connection began; the difference goes into the metrics.
    pub fn statistics(&self, on: Leg, before: &PublisherStats, after: &PublisherStats) {
        let labels = [self.label(), leg(on)];
        let grown = |a: u64, b: u64| b.saturating_sub(a);
        count(Metric::IngestBytes, &labels, grown(before.received_bytes, after.received_bytes));
        let lost = |kind: &'static str, n: u64| {
            count(Metric::IngestLostPackets, &[self.label(), leg(on), Label::Kind(kind)], n);
        };
        lost("detected", grown(before.lost, after.lost));
        lost(
            "recovered",
            grown(before.lost - before.dropped.min(before.lost), after.lost - after.dropped.min(after.lost)),
        );
        if before.links.len() != after.links.len() {
            gauge(Metric::IngestLinks, &labels, after.links.len() as f64);
            let level = if after.links.len() < before.links.len() { Level::Warn } else { Level::Info };
            log(level, "publisher_links", &self.place(), format!("leg {on}: {} links in its group", after.links.len()));
        }
        lost("dropped", grown(before.dropped, after.dropped));
        lost("rebuilt", grown(before.filter_supplied, after.filter_supplied));
        if let Some(rtt) = after.rtt {
            gauge(Metric::IngestRtt, &labels, rtt.as_secs_f64());
        }
    }

    pub fn panicked(&self, what: &str) {
        log(Level::Error, "channel_panicked", &self.place(), format!("a broken invariant ended the session: {what}"));
    }

    pub fn note(&self, level: Level, code: &'static str, what: impl Display) {
        log(level, code, &self.place(), what);
    }
}

/// The worker that makes pictures of passed-through sources.
pub fn stills_lost(why: &str, what: &str, wait: Duration) {
    let what = format!("{why}: {what}; posters of passed-through sources pause for {} s", wait.as_secs());
    log(Level::Warn, "stills_worker_lost", &Place::default(), what);
}

pub fn refused(channel: Option<&ChannelName>, code: u16, why: &str) {
    count(Metric::IngestRefusals, &[Label::Reason(reason_of(code))], 1);
    let place = Place::channel(channel.map_or("", ChannelName::as_str));
    log(Level::Warn, "publisher_refused", &place, format!("{code}: {why}"));
}

/// Of a source that the box calls.
pub fn pull(news: &PullNews) {
    let label = Label::Channel(news.channel.as_str());
    if let Some(outcome) = news.outcome {
        count(Metric::IngestPulls, &[label, Label::Kind(outcome)], 1);
    }
    let connected = matches!(news.status.state, PullState::Connected | PullState::OnAir);
    gauge(Metric::IngestPullConnected, &[label], f64::from(u8::from(connected)));
    if !news.changed {
        return;
    }
    // A code per state: lines of one code are gathered, and every change deserves its own.
    let (level, code, what) = match (news.status.state, &news.status.error) {
        (PullState::Calling, Some(why)) => {
            (Level::Warn, "pull_failed", format!("{why}; the source is called again and again"))
        }
        (PullState::Calling, None) => (Level::Info, "pull_called", "the source is called".to_owned()),
        (PullState::Standby, _) => {
            (Level::Info, "pull_standby", "another publisher is on air: the source waits for its end".to_owned())
        }
        (PullState::Connected, _) => {
            (Level::Info, "pull_connected", "the source answered; it has sent no media yet".to_owned())
        }
        (PullState::OnAir, _) => (Level::Info, "pull_on_air", "the source is on air".to_owned()),
    };
    log(level, code, &Place::channel(news.channel.as_str()), what);
}

/// The source is not called any more.
pub fn pull_over(channel: &ChannelName) {
    gauge(Metric::IngestPullConnected, &[Label::Channel(channel.as_str())], 0.0);
    log(Level::Info, "pull_over", &Place::channel(channel.as_str()), "the source is not called any more");
}

pub fn overflow(channel: &ChannelName) {
    count(Metric::IngestOverruns, &[Label::Channel(channel.as_str()), Label::Stage("ingest")], 1);
    log(
        Level::Warn,
        "ingest_overflow",
        &Place::channel(channel.as_str()),
        "payloads dropped: the shard did not keep up",
    );
}

/// Counters of whole ports; the kernel's drops deserve a line.
pub(super) fn ports(all: &Counters, all_before: &Counters) {
    let (quic, quic_before) = (&all.quic, &all_before.quic);
    for (kind, n, before) in [
        ("done", quic.done, quic_before.done),
        ("failed", quic.failed, quic_before.failed),
        ("limited", quic.limited, quic_before.limited),
        ("retried", quic.retried, quic_before.retried),
        ("no_hello", quic.no_hello, quic_before.no_hello),
    ] {
        count(Metric::IngestQuicHandshakes, &[Label::Kind(kind)], n.saturating_sub(before));
    }
    let (counters, before) = (&all.srt, &all_before.srt);
    let dropped = counters.kernel_drops.saturating_sub(before.kernel_drops);
    let kinds = [
        ("malformed", counters.malformed.saturating_sub(before.malformed)),
        ("stray", counters.stray.saturating_sub(before.stray)),
        ("bad_cookie", counters.bad_cookie.saturating_sub(before.bad_cookie)),
        ("rate_limited", counters.rate_limited.saturating_sub(before.rate_limited)),
        ("kernel_drop", dropped),
    ];
    for (kind, n) in kinds {
        count(Metric::IngestRejectedDatagrams, &[Label::Kind(kind)], n);
    }
    if dropped > 0 {
        let what = format!("{dropped} datagrams dropped by the kernel: raise net.core.rmem_max or give CAP_NET_ADMIN");
        log(Level::Warn, "kernel_drops", &Place::default(), what);
    }
}

/// What happened to a shared worker. Its channels say for themselves what became of them.
pub fn hall(event: &hall::Event) {
    use hall::Event;
    let say = |level, code, what: String| log(level, code, &Place::default(), what);
    match event {
        Event::Started { gpu, pid } => say(Level::Info, "worker_started", format!("worker {pid} starts on GPU {gpu}")),
        Event::Stands { gpu, pid, after, sandbox } => {
            let what = format!("worker {pid} on GPU {gpu} is ready after {:.2} s; {sandbox}", after.as_secs_f64());
            say(Level::Info, "worker_ready", what);
        }
        Event::Closed { gpu, pid } => {
            let what = format!("worker {pid} on GPU {gpu}: what a channel left in it hangs; no other one goes there");
            say(Level::Warn, "worker_closed", what);
        }
        Event::Condemned { gpu, pid, channels, why, .. } => {
            let what = format!("worker {pid} on GPU {gpu} was killed with {channels} channels in it: {why}");
            say(Level::Warn, "worker_condemned", what);
        }
        Event::Ended { gpu, pid, expected: true, how, .. } => {
            say(Level::Info, "worker_ended", format!("worker {pid} on GPU {gpu} is gone ({how})"));
        }
        Event::Ended { gpu, pid, expected: false, channels, how } => {
            let what = format!("worker {pid} on GPU {gpu} ended with {channels} channels in it ({how})");
            say(Level::Warn, "worker_died", what);
        }
    }
}

/// It takes no channel for some minutes.
pub fn gpu_rests(gpu: u32, why: &str) {
    log(Level::Error, "gpu_rests", &Place::default(), format!("GPU {gpu} takes no channel for a while: {why}"));
}

pub fn hall_count(count: &hall::Count) {
    let gpu = count.gpu.to_string();
    gauge(Metric::WorkerProcesses, &[Label::Gpu(&gpu)], count.processes as f64);
    gauge(Metric::WorkerSeats, &[Label::Gpu(&gpu)], count.seats as f64);
}

fn leg(leg: Leg) -> Label<'static> {
    Label::Leg(match leg {
        Leg::A => "a",
        Leg::B => "b",
    })
}

fn reason_of(code: u16) -> &'static str {
    match code {
        1401 => "denied",
        1403 => "stopped",
        1409 => "busy",
        1415 => "unsupported",
        1429 => "too_many_tries",
        1503 => "no_capacity",
        10 | 11 => "passphrase",
        _ => "protocol",
    }
}

fn code_of(kind: FaultKind) -> &'static str {
    kind.label()
}

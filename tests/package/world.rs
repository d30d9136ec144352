//! A session without sockets: made-up samples with exact times, a clock that moves when told to, requests answered as
//! a server would.

use bytes::Bytes;
use rung::media::grid::{Cadence, Ends, Grid, PdtLine, Place};
use rung::media::modes::LatencyMode;
use rung::media::sample::{Sample, Stamps};
use rung::package::fmp4::init::InitSection;
use rung::package::origin::SessionOutput;
use rung::package::player::{Fetch, Player, Report};
use rung::package::segmenter::{Cut, Segmenter};
use rung::package::window::{
    Answer, Before, Directives, Kind, Playlist, RETAINED_BYTES_MAX, Refusal, RenditionOutput, RenditionSpec, Skip,
    Targets,
};
use rung::time::{Mono, Now, Wall};
use std::sync::Arc;

#[path = "../support/made_up.rs"]
mod made_up;

pub(crate) use made_up::{MONO0, MSN0, WALL0, audio_config, session_id, video_config};

pub(crate) fn at(ms: u64) -> Mono {
    Mono(MONO0 + ms * 1_000_000)
}

pub(crate) struct Feeder {
    pub(crate) segmenter: Segmenter,
    kind: Track,
    next: i64,
    /// Between the end of a sample and its push.
    pub(crate) delay_ms: u64,
    /// Bytes of a sample.
    pub(crate) size: usize,
    pub(crate) stopped: bool,
    /// Session time that was passed over.
    skipped: u64,
}

#[derive(Clone, Copy)]
enum Track {
    Video,
    Audio(u32),
}

pub(crate) struct World {
    pub(crate) grid: Grid,
    pub(crate) now: Mono,
    pub(crate) session: Arc<SessionOutput>,
    pub(crate) feeders: Vec<Feeder>,
    pub(crate) line: PdtLine,
    pub(crate) targets: Targets,
    waiting: Vec<(Fetch, Mono)>,
}

impl World {
    pub(crate) fn new(hz: f64, mode: LatencyMode) -> World {
        let cadence = Cadence::for_rate(hz, mode);
        let grid = Grid { cadence, msn0: MSN0 };
        World {
            grid,
            now: at(0),
            session: Arc::new(SessionOutput::new(session_id(), mode)),
            feeders: Vec::new(),
            line: PdtLine { from_n: 0, wall: Wall(WALL0), ppm: 0 },
            targets: Targets::ladder(mode, cadence, None),
            waiting: Vec::new(),
        }
    }

    pub(crate) fn spec(&self, name: &str, kind: Kind, bandwidth_cap: u64) -> RenditionSpec {
        RenditionSpec {
            session: session_id(),
            name: name.to_owned(),
            kind,
            targets: self.targets,
            independent_segments: true,
            bandwidth_cap,
            retained_bytes_max: RETAINED_BYTES_MAX,
            before: Before::default(),
        }
    }

    pub(crate) fn video(self, name: &str) -> World {
        let kind = Kind::Video { rate: Some(self.grid.cadence.rate) };
        let spec = self.spec(name, kind, 1_400_000);
        self.with(spec, Track::Video)
    }

    pub(crate) fn audio(self, name: &str, rate: u32) -> World {
        let spec = self.spec(
            name,
            Kind::Audio { language: Some("eng".to_owned()), default: true, role: Default::default() },
            128_000,
        );
        self.with(spec, Track::Audio(rate))
    }

    fn with(mut self, spec: RenditionSpec, kind: Track) -> World {
        let (cut, init) = match kind {
            Track::Video => {
                (Cut::Frames, InitSection::video(&video_config(), self.grid.cadence.timescale(), spec.bandwidth_cap))
            }
            Track::Audio(rate) => (Cut::Audio, InitSection::audio(&audio_config(rate), spec.bandwidth_cap)),
        };
        let output = RenditionOutput::new(spec);
        self.session.add(output.clone());
        let segmenter = Segmenter::new(output, init, cut, self.grid, self.line);
        self.feeders.push(Feeder { segmenter, kind, next: 0, delay_ms: 0, size: 300, stopped: false, skipped: 0 });
        self
    }

    pub(crate) fn output(&self, index: usize) -> Arc<RenditionOutput> {
        self.feeders[index].segmenter.output().clone()
    }

    /// Pushes every sample whose end lies at or before `ms`, tracks interleaved by time.
    pub(crate) fn run_to(&mut self, ms: u64) {
        loop {
            let due = |f: &Feeder| (end_nanos(&self.grid, f) - f.skipped + f.delay_ms * 1_000_000, f.stopped);
            let first = self.feeders.iter().enumerate().filter(|(_, f)| !f.stopped).min_by_key(|(_, f)| due(f));
            let Some((index, feeder)) = first else { break };
            let (end, _) = due(feeder);
            if end > ms * 1_000_000 {
                break;
            }
            self.now = Mono(MONO0 + end);
            self.feed(index);
        }
        self.now = at(ms);
    }

    /// Pushes one sample of one track now.
    pub(crate) fn feed(&mut self, index: usize) {
        let now = self.now;
        let feeder = &mut self.feeders[index];
        let (sample, place) = sample(&self.grid, feeder.kind, feeder.next, feeder.size);
        feeder.next += 1;
        feeder.segmenter.push(now, sample, place);
    }

    /// Sample `n` of one track, and where it goes.
    pub(crate) fn sample(&self, index: usize, n: i64) -> (Sample, Place) {
        sample(&self.grid, self.feeders[index].kind, n, self.feeders[index].size)
    }

    /// Leaves samples out, as if nobody had produced them.
    pub(crate) fn lose_to(&mut self, index: usize, next: i64) {
        self.feeders[index].next = next;
    }

    /// All tracks go on in the next segment, behind a DISCONTINUITY: no time is waited for.
    pub(crate) fn renew(&mut self) {
        let frame = self.feeders[0].next;
        let n0 = self.grid.segment_start(frame) + i64::from(self.grid.cadence.segment);
        let line = PdtLine { from_n: n0, wall: self.clock().wall, ppm: 0 };
        for feeder in &mut self.feeders {
            feeder.segmenter.date_line(line);
            feeder.segmenter.discontinuity(self.now, None);
            feeder.skipped = self.grid.nanos_at(n0).cast_unsigned() - (self.now.0 - MONO0);
            feeder.next = match feeder.kind {
                Track::Video => n0,
                Track::Audio(rate) => self.grid.audio_at_frame(n0, rate),
            };
        }
    }

    pub(crate) fn end(&mut self) {
        for feeder in &mut self.feeders {
            feeder.stopped = true;
            feeder.segmenter.end(self.now);
        }
    }

    pub(crate) fn clock(&self) -> Now {
        let run = i64::try_from(self.now.0 - MONO0).unwrap();
        Now { mono: self.now, wall: Wall(WALL0 + run) }
    }

    pub(crate) fn text(&self, index: usize) -> String {
        match self.output(index).playlist(self.now, self.now, &Directives::default()) {
            Answer::Now(playlist) => plain(&playlist),
            other => panic!("no playlist: {other:?}"),
        }
    }

    /// As a server answers; `None`: ask again later. Tuple: status and body.
    pub(crate) fn answer(&self, uri: &str, since: Mono) -> Option<(u16, Bytes)> {
        let path = uri.strip_prefix("/live/c/").expect("within the channel");
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if path == "index.m3u8" {
            return Some(self.session.multivariant().map_or((404, Bytes::new()), |p| (200, p.plain.clone())));
        }
        if let Some(name) = path.strip_suffix(".iframes.m3u8") {
            let output = self.session.rendition(name)?;
            return flat(output.iframes(since, self.now, &directives(query)), |p| p.plain.clone());
        }
        if let Some(name) = path.strip_suffix(".m3u8") {
            let output = self.session.rendition(name)?;
            return flat(output.playlist(since, self.now, &directives(query)), |p| p.plain.clone());
        }
        let mut parts = path.split('/');
        assert_eq!(parts.next(), Some(session_id().as_str()));
        let output = self.session.rendition(parts.next().unwrap()).expect("a known rendition");
        let file = parts.next().unwrap();
        let stem = file.split('.').next().unwrap();
        let media = |m: &rung::package::window::Media| Bytes::from(m.chunks.concat());
        if let Some(map) = stem.strip_prefix("init-") {
            return Some(output.init(map.parse().unwrap()).map_or((404, Bytes::new()), |b| (200, b)));
        }
        if let Some(msn) = stem.strip_prefix('i') {
            return flat(output.iframe(msn.parse().unwrap()), media);
        }
        if let Some(msn) = stem.strip_prefix('s') {
            return flat(output.segment(since, self.now, msn.parse().unwrap()), media);
        }
        let Some(part) = file.split('.').nth(1).and_then(|p| p.parse().ok()) else { return Some((404, Bytes::new())) };
        flat(output.part(since, self.now, stem[1..].parse().unwrap(), part), media)
    }

    /// Lets a model player watch until `ms`, in steps of 5 ms; `spoil` may change any answer.
    pub(crate) fn watch(&mut self, ms: u64, mut spoil: impl FnMut(&str, u16, Bytes) -> (u16, Bytes)) -> Report {
        let mut player = Player::new("/live/c/index.m3u8");
        self.watch_with(&mut player, ms, &mut spoil);
        player.report()
    }

    pub(crate) fn watch_with(
        &mut self,
        player: &mut Player,
        ms: u64,
        spoil: &mut dyn FnMut(&str, u16, Bytes) -> (u16, Bytes),
    ) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let from = (self.now.0 - MONO0) / 1_000_000;
        for step in (from..=ms).step_by(5) {
            self.run_to(step);
            loop {
                while let Some(fetch) = player.poll(self.clock()) {
                    waiting.push((fetch, self.now));
                }
                let before = waiting.len();
                let mut still = Vec::new();
                for (fetch, since) in std::mem::take(&mut waiting) {
                    match self.answer(&fetch.uri, since) {
                        Some((status, body)) => {
                            let (status, body) = spoil(&fetch.uri, status, body);
                            player.response(self.clock(), fetch.id, status, &body);
                        }
                        None => still.push((fetch, since)),
                    }
                }
                waiting = still;
                if waiting.len() == before {
                    break;
                }
            }
        }
        self.waiting = waiting;
    }
}

pub(crate) fn keep(_: &str, status: u16, body: Bytes) -> (u16, Bytes) {
    (status, body)
}

pub(crate) fn plain(playlist: &Playlist) -> String {
    String::from_utf8(playlist.plain.to_vec()).unwrap()
}

fn flat<T>(answer: Answer<T>, body: impl Fn(&T) -> Bytes) -> Option<(u16, Bytes)> {
    match answer {
        Answer::Now(value) => Some((200, body(&value))),
        Answer::Until(_) => None,
        Answer::Refuse(Refusal::BadRequest(_)) => Some((400, Bytes::new())),
        Answer::Refuse(Refusal::NotFound(_)) => Some((404, Bytes::new())),
        Answer::Refuse(Refusal::NotYet(_)) => Some((503, Bytes::new())),
    }
}

fn directives(query: &str) -> Directives {
    let mut found = Directives::default();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        match pair.split_once('=').unwrap() {
            ("_HLS_msn", v) => found.msn = Some(v.parse().unwrap()),
            ("_HLS_part", v) => found.part = Some(v.parse().unwrap()),
            ("_HLS_skip", "v2") => found.skip = Skip::V2,
            ("_HLS_skip", _) => found.skip = Skip::Yes,
            other => panic!("{other:?}"),
        }
    }
    found
}

fn end_nanos(grid: &Grid, feeder: &Feeder) -> u64 {
    let end = match feeder.kind {
        Track::Video => i128::from(grid.nanos_at(feeder.next + 1)),
        Track::Audio(rate) => i128::from(feeder.next + 1) * 1024 * 1_000_000_000 / i128::from(rate),
    };
    u64::try_from(end).unwrap()
}

fn sample(grid: &Grid, kind: Track, n: i64, size: usize) -> (Sample, Place) {
    match kind {
        Track::Video => {
            let ticks = grid.cadence.frame_ticks();
            let sync = n % i64::from(grid.cadence.gop) == 0;
            let sample = Sample {
                dts: n * i64::from(ticks),
                duration: ticks,
                cto: 0,
                sync,
                data: nal(if sync { 0x65 } else { 0x41 }, n, size),
                stamps: Stamps::default(),
            };
            (sample, grid.place_frame(n))
        }
        Track::Audio(rate) => {
            let data = Bytes::from(vec![n.to_le_bytes()[0]; 200]);
            let stamps = Stamps::default();
            let sample = Sample { dts: n * 1024, duration: 1024, cto: 0, sync: true, data, stamps };
            (sample, grid.place_audio(n, rate))
        }
    }
}

/// One length-prefixed NAL unit of `size` bytes.
pub(crate) fn nal(header: u8, n: i64, size: usize) -> Bytes {
    let mut data = u32::try_from(size).unwrap().to_be_bytes().to_vec();
    data.push(header);
    data.extend(std::iter::repeat_n(n.to_le_bytes()[0], size - 1));
    Bytes::from(data)
}

/// A video sample of source time: 90 kHz.
pub(crate) fn source_sample(dts: i64, duration: u32, sync: bool) -> Sample {
    let data = nal(if sync { 0x65 } else { 0x41 }, dts, 100);
    Sample { dts, duration, cto: 0, sync, data, stamps: Stamps::default() }
}

pub(crate) fn place(msn: u64, part: u32, ends: Ends) -> Place {
    Place { msn: MSN0 + msn, part, ends }
}

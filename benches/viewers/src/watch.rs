//! Viewers as LL-HLS players are: of each track one connection waits for the next version of the playlist, another one for
//! the part that the preload hint names; what a slow one has missed meanwhile it fetches from the list.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::board::{self, Board, Part, Version};
use crate::histogram::{Durations, Spread};
use crate::line::{Answer, Line, Take};
use crate::playlist;

/// Who watches what, for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the viewers go.
    pub to: SocketAddr,
    /// Where one witness goes that says when a part is there; none: the first viewer says so.
    pub origin: Option<SocketAddr>,
    pub channel: String,
    /// In front of `/live/`, such as `/t/<token>`.
    pub prefix: String,
    /// Video rendition; without it the lowest.
    pub rendition: Option<String>,
    pub sound: bool,
    pub viewers: usize,
    /// The viewers come evenly spread over this time, and are counted from its end on.
    pub ramp: Duration,
    pub time: Duration,
}

/// What the viewers got after the ramp.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub viewers: usize,
    pub tracks: usize,
    pub seconds: f64,
    /// From the instant at which the first of all had the head of a part until the last byte was here, milliseconds.
    pub parts: Spread,
    /// The same of playlist versions that were waited for.
    pub playlists: Spread,
    pub bytes: u64,
    /// Parts that had left the playlist before a viewer came to them.
    pub missed: u64,
    /// Answers under one address with different bytes.
    pub different: u64,
    /// Requests that failed, by what they got.
    pub errors: BTreeMap<String, u64>,
    /// Connections made again.
    pub reconnects: u64,
    /// Tracks of viewers that got no part at all.
    pub without: u64,
    /// User and system time of all viewers together, seconds per second: at 1 per thread they are the bottleneck.
    pub own_load: f64,
}

#[derive(Debug, Default)]
struct Tally {
    parts: Durations,
    playlists: Durations,
    bytes: Count,
    missed: Count,
    different: Count,
    reconnects: Count,
    without: Count,
    errors: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    fn trouble(&self, what: String) {
        *self.errors.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }
}

/// Watches, and says what was seen.
///
/// # Errors
/// In a sentence: the channel is not on air there, or has no such rendition.
pub async fn watch(plan: &Plan) -> Result<Report, String> {
    let tracks = find(plan).await?;
    let (board, tally) = (Arc::new(Board::default()), Arc::new(Tally::default()));
    let (stop, stopped) = watch::channel(false);
    let began = Instant::now();
    let counted_from = began + plan.ramp;
    let mut tasks = tokio::task::JoinSet::new();
    let viewer = |to: SocketAddr, track: usize, comes: Instant, counts: bool| Viewer {
        to,
        track,
        playlist: tracks[track].clone(),
        comes,
        counted_from: counts.then_some(counted_from),
        board: Arc::clone(&board),
        tally: Arc::clone(&tally),
        stopped: stopped.clone(),
        got: AtomicU64::new(0),
    };
    for track in 0..tracks.len() {
        if let Some(origin) = plan.origin {
            tasks.spawn(viewer(origin, track, began, false).live());
        }
        for n in 0..plan.viewers {
            let share = (n as f64 + 0.5) / plan.viewers as f64;
            let comes = began + plan.ramp.mul_f64(share * 0.9);
            tasks.spawn(viewer(plan.to, track, comes, true).live());
        }
    }
    tokio::time::sleep_until(counted_from).await;
    let cpu = crate::own_cpu();
    tokio::time::sleep(plan.time).await;
    let own_load = (crate::own_cpu() - cpu) / plan.time.as_secs_f64();
    stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
    let errors = std::mem::take(&mut *tally.errors.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Report {
        viewers: plan.viewers,
        tracks: tracks.len(),
        seconds: plan.time.as_secs_f64(),
        parts: tally.parts.spread(),
        playlists: tally.playlists.spread(),
        bytes: tally.bytes.get(),
        missed: tally.missed.get(),
        different: tally.different.get(),
        errors,
        reconnects: tally.reconnects.get(),
        without: tally.without.get(),
        own_load,
    })
}

/// Paths of the playlists to follow.
async fn find(plan: &Plan) -> Result<Vec<String>, String> {
    let folder = format!("{}/live/{}/", plan.prefix, plan.channel);
    let (mut line, mut take) = (Line::new(plan.to), Take::Keep(Vec::new()));
    let answer = line.get(&format!("{folder}index.m3u8"), &mut take).await.map_err(|e| format!("{}: {e}", plan.to))?;
    let Take::Keep(body) = take else { return Err("nothing was kept".into()) };
    let text = board::text(&answer, &body).filter(|_| answer.status == 200);
    let text = text.ok_or_else(|| format!("{folder}index.m3u8 at {}: status {}", plan.to, answer.status))?;
    let (video, audio) = playlist::renditions(&text);
    let wanted = match &plan.rendition {
        Some(name) => video.into_iter().find(|uri| *uri == format!("{name}.m3u8")),
        None => video.into_iter().next_back(),
    };
    let video = wanted.ok_or_else(|| format!("no such rendition in {text}"))?;
    Ok(std::iter::once(video)
        .chain(audio.into_iter().take(usize::from(plan.sound)))
        .map(|uri| folder.clone() + &uri)
        .collect())
}

/// One track of one viewer.
struct Viewer {
    to: SocketAddr,
    track: usize,
    playlist: String,
    comes: Instant,
    /// What happens before is not counted; `None`: a witness.
    counted_from: Option<Instant>,
    board: Arc<Board>,
    tally: Arc<Tally>,
    stopped: watch::Receiver<bool>,
    got: AtomicU64,
}

impl Viewer {
    async fn live(mut self) {
        let mut stopped = self.stopped.clone();
        tokio::time::sleep_until(self.comes).await;
        let (mut lists, mut media) = (Line::new(self.to), Line::new(self.to));
        tokio::select! {
            () = self.follow(&mut lists, &mut media) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        let again = lists.opened.saturating_sub(1) + media.opened.saturating_sub(1);
        if self.counted_from.is_some() {
            self.tally.reconnects.add(again.into());
            self.tally.without.add(u64::from(*self.got.get_mut() == 0));
        }
    }

    /// Never ends but with the session.
    async fn follow(&mut self, lists: &mut Line, media: &mut Line) {
        let folder = self.playlist.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned() + "/";
        let mut version: Option<Arc<Version>> = None;
        // The place that this viewer has got to.
        let mut next = None;
        loop {
            let Some(known) = &version else {
                version = self.reload(lists, &folder, None).await;
                match &version {
                    Some(found) => self.begin(media, &folder, found).await,
                    None => self.rest().await,
                }
                next = version.as_ref().map(|found| found.listed.next);
                continue;
            };
            let known = Arc::clone(known);
            if known.listed.ended {
                return;
            }
            let place = known.listed.next;
            let hint = async {
                if let Some(hint) = &known.hint {
                    self.part(media, hint).await;
                }
            };
            let (newer, ()) = tokio::join!(self.reload(lists, &folder, Some(place)), hint);
            if let Some(newer) = &newer {
                let after = if known.hint.is_some() { (place.0, place.1 + 1) } else { place };
                self.catch_up(media, newer, next.map_or(after, |next: (u64, u32)| next.max(after))).await;
                next = Some(newer.listed.next);
            } else {
                self.rest().await;
            }
            version = newer;
        }
    }

    /// Not more than five tries a second at what does not work.
    async fn rest(&self) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    /// What a player needs once.
    async fn begin(&self, media: &mut Line, folder: &str, version: &Version) {
        if let Some(map) = &version.listed.map {
            self.get(media, &format!("{folder}{map}"), &mut Take::Sum).await;
        }
    }

    /// The playlist, once it has the part at `place`.
    async fn reload(&self, lists: &mut Line, folder: &str, place: Option<(u64, u32)>) -> Option<Arc<Version>> {
        let path = match place {
            Some((msn, part)) => format!("{}?_HLS_msn={msn}&_HLS_part={part}", self.playlist),
            None => self.playlist.clone(),
        };
        let mut take = Take::Keep(Vec::new());
        let answer = self.get(lists, &path, &mut take).await?;
        let Take::Keep(body) = take else { return None };
        let version = self.board.version(self.track, &answer, &body, folder);
        let Some(version) = version else {
            self.trouble("unreadable playlist".into());
            return None;
        };
        let late = self.board.had(&version.itself, answer.head_at?);
        if !self.board.same(&version.itself, &answer) {
            self.counted(|tally| tally.different.add(1));
        }
        if place.is_some_and(|place| version.listed.next > place) {
            self.counted(|tally| tally.playlists.add(late));
        }
        Some(version)
    }

    /// A part, waited for if it has to be.
    async fn part(&self, media: &mut Line, part: &Part) {
        let Some(answer) = self.get(media, &part.path, &mut Take::Sum).await else { return };
        if let Some(at) = answer.head_at {
            self.board.had(&part.thing, at);
        }
        let late = self.board.had(&part.thing, Instant::now());
        if !self.board.same(&part.thing, &answer) {
            self.counted(|tally| tally.different.add(1));
        }
        self.got.fetch_add(1, Ordering::Relaxed);
        self.counted(|tally| {
            tally.parts.add(late);
            tally.bytes.add(answer.length as u64);
        });
    }

    /// Parts that came while this viewer was busy with others.
    async fn catch_up(&self, media: &mut Line, version: &Version, from: (u64, u32)) {
        let first = version.parts.first().map_or(version.listed.next, |(place, _)| *place);
        if first > from && first.0 > from.0 + 1 {
            self.counted(|tally| tally.missed.add(1));
        }
        for (_, part) in version.parts.iter().filter(|(place, _)| *place >= from) {
            self.part(media, part).await;
        }
    }

    async fn get(&self, line: &mut Line, path: &str, take: &mut Take) -> Option<Answer> {
        match line.get(path, take).await {
            Ok(answer) if answer.status == 200 => Some(answer),
            Ok(answer) => {
                let what = if path.ends_with(".m4s") { "media" } else { "playlist" };
                self.trouble(format!("{what}: status {}", answer.status));
                None
            }
            Err(error) => {
                self.trouble(error.kind().to_string());
                None
            }
        }
    }

    fn trouble(&self, what: String) {
        if self.counted_from.is_some() {
            self.tally.trouble(what);
        }
    }

    fn counted(&self, count: impl FnOnce(&Tally)) {
        if self.counted_from.is_some_and(|from| Instant::now() >= from) {
            count(&self.tally);
        }
    }
}

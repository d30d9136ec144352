//! `rung inspect hls URL`: follows a live stream as the model player does and says which promises were broken. The
//! caller fetches: it sends what `poll` gives (all at once: some requests block) and hands back what came.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::package::player::parse::{self, Attributes};
use crate::package::player::{Fetch, Player, Report};
use crate::time::{Mono, Now};

/// The player, and its findings as lines of text.
#[derive(Debug)]
pub struct Follower {
    player: Player,
    told: usize,
    told_late: usize,
    /// Date ranges that were told: what was known of them.
    ranges: BTreeMap<String, Attributes>,
    news: Vec<String>,
    status_at: Option<Mono>,
}

/// Between two status lines.
const STATUS: Duration = Duration::from_secs(5);
/// Date ranges that are told of.
const RANGES_MAX: usize = 4_096;

impl Follower {
    /// `url`: of the multivariant playlist.
    pub fn new(url: &str) -> Follower {
        let (ranges, news) = (BTreeMap::new(), Vec::new());
        Follower { player: Player::new(url), told: 0, told_late: 0, ranges, news, status_at: None }
    }

    pub fn poll(&mut self, now: Now) -> Option<Fetch> {
        self.player.poll(now)
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.player.deadline()
    }

    /// A failed connection is status 0.
    pub fn response(&mut self, now: Now, id: u64, status: u16, body: &Bytes) {
        if status == 200 && body.starts_with(b"#EXTM3U") {
            self.take_ranges(&String::from_utf8_lossy(body));
        }
        self.player.response(now, id, status, body);
    }

    /// A line for each date range, and another one when more becomes known of it; whatever playlist says it first.
    fn take_ranges(&mut self, text: &str) {
        let Ok(list) = parse::media(text) else { return };
        for (id, said) in list.dates {
            if self.ranges.len() >= RANGES_MAX && !self.ranges.contains_key(&id) {
                continue;
            }
            let known = self.ranges.entry(id).or_default();
            let before = known.len();
            known.extend(said);
            if known.len() > before {
                let words: Vec<String> = known.iter().map(|(name, value)| format!("{name}={value}")).collect();
                self.news.push(format!("RANGE {}", words.join(" ")));
            }
        }
    }

    pub fn report(&self) -> Report {
        self.player.report()
    }

    /// What is new: a line for each violation, each rendition that came late and each date range, and a status line every 5 s.
    pub fn lines(&mut self, now: Now) -> Vec<String> {
        let report = self.player.report();
        let mut lines: Vec<String> =
            report.violations[self.told..].iter().map(|v| format!("{} VIOLATION {v}", now.wall)).collect();
        self.told = report.violations.len();
        lines.extend(report.late[self.told_late..].iter().map(|late| format!("{} LATE {late}", now.wall)));
        self.told_late = report.late.len();
        lines.extend(self.news.drain(..).map(|range| format!("{} {range}", now.wall)));
        if now.mono >= *self.status_at.get_or_insert(now.mono + STATUS) {
            self.status_at = Some(now.mono + STATUS);
            lines.push(format!("{} {}", now.wall, summary(&report)));
        }
        lines
    }
}

/// One line that says everything counted.
pub fn summary(r: &Report) -> String {
    let latency = r.latency_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let longest = r.latency_ms_max.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    format!(
        "renditions {} playlists {} (deltas {}) parts {} segments {} gaps {} discontinuities {} hints {} (missed {}) \
         bytes {} listed after {latency} (longest {longest}) violations {}{}",
        r.renditions,
        r.playlists,
        r.deltas,
        r.parts,
        r.segments,
        r.gaps,
        r.discontinuities,
        r.hints,
        r.hints_missed,
        r.bytes,
        r.broken,
        if r.ended { " ended" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    #[test]
    fn violations_are_told_once_and_status_every_five_seconds() {
        let mut follower = Follower::new("http://localhost/live/c/index.m3u8");
        let at = |s: u64| Now { mono: Mono(s * 1_000_000_000), wall: Wall(0) };
        let fetch = follower.poll(at(1)).expect("the multivariant playlist is asked for first");
        assert_eq!(fetch.uri, "http://localhost/live/c/index.m3u8");
        assert!(follower.lines(at(1)).is_empty());
        let body = Bytes::from_static(b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv.m3u8\n");
        follower.response(at(1), fetch.id, 200, &body);
        let told = follower.lines(at(2));
        assert_eq!(told, ["1970-01-01T00:00:00.000Z VIOLATION multivariant: a variant without CODECS"]);
        assert!(follower.lines(at(3)).is_empty());
        assert!(follower.lines(at(6))[0].contains("renditions 1 ") && follower.lines(at(7)).is_empty());
        assert_eq!(follower.poll(at(7)).map(|f| f.uri), Some("http://localhost/live/c/v.m3u8".to_owned()));
    }

    #[test]
    fn a_date_range_has_a_line_and_another_when_more_is_known() {
        let mut follower = Follower::new("http://localhost/live/c/index.m3u8");
        let at = |s: u64| Now { mono: Mono(s * 1_000_000_000), wall: Wall(0) };
        let start = "#EXT-X-DATERANGE:ID=\"a\",START-DATE=\"1970-01-01T00:00:04.000Z\"";
        let mut say = |text: String| {
            follower.response(at(1), 999, 200, &Bytes::from(format!("#EXTM3U\n{text}\n")));
            follower.lines(at(1)).into_iter().filter(|line| line.contains("RANGE")).collect::<Vec<_>>()
        };
        assert_eq!(say(start.to_owned()), ["1970-01-01T00:00:00.000Z RANGE ID=a START-DATE=1970-01-01T00:00:04.000Z"]);
        assert!(say(start.to_owned()).is_empty());
        let told = say(format!("{start},DURATION=2.0"));
        assert!(told.len() == 1 && told[0].contains("DURATION=2.0"), "{told:?}");
    }
}

//! `rung inspect hls URL`: follows a live stream as the model player does and says which promises were broken. The
//! caller fetches: it sends what `poll` gives (all at once: some requests block) and hands back what came.

use bytes::Bytes;
use std::time::Duration;

use crate::package::player::{Fetch, Player, Report};
use crate::time::{Mono, Now};

/// The player, and its findings as lines of text.
#[derive(Debug)]
pub struct Follower {
    player: Player,
    told: usize,
    status_at: Option<Mono>,
}

/// Between two status lines.
const STATUS: Duration = Duration::from_secs(5);

impl Follower {
    /// `url`: of the multivariant playlist.
    pub fn new(url: &str) -> Follower {
        Follower { player: Player::new(url), told: 0, status_at: None }
    }

    pub fn poll(&mut self, now: Now) -> Option<Fetch> {
        self.player.poll(now)
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.player.deadline()
    }

    /// A failed connection is status 0.
    pub fn response(&mut self, now: Now, id: u64, status: u16, body: &Bytes) {
        self.player.response(now, id, status, body);
    }

    pub fn report(&self) -> Report {
        self.player.report()
    }

    /// What is new: a line for each violation, and a status line every 5 s.
    pub fn lines(&mut self, now: Now) -> Vec<String> {
        let report = self.player.report();
        let mut lines: Vec<String> =
            report.violations[self.told..].iter().map(|v| format!("{} VIOLATION {v}", now.wall)).collect();
        self.told = report.violations.len();
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
}

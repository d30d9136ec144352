//! Cues and timed tags beside pictures: over wraps, jumps, outages and other publishers.

use super::*;
use crate::media::marker::{Cue, Dropped, PlacedCue, Tag};
use crate::mpegts::scte35::{Command, SpliceInfo, When};

const FRAME: i64 = 3_600;

/// A ladder channel at 25 frames/s without reordering, fed one frame at a time.
struct Feed {
    timeline: Timeline,
    at: i64,
    out: Vec<Out>,
}

impl Feed {
    fn new() -> Feed {
        let mut timeline = Timeline::new(facts(ChannelKind::Transcode, None));
        open(&mut timeline, 48_000);
        Feed { timeline, at: 0, out: Vec::new() }
    }

    /// `frames` pictures from source time `pts` on, in real time; the first is an IDR.
    fn play(&mut self, pts: i64, frames: i64) {
        for k in 0..frames {
            let mut one = unit(VIDEO, pts + k * FRAME, pts + k * FRAME, k % 50 == 0);
            one.received = now(self.at).mono;
            self.timeline.push(now(self.at), 0, one);
            self.drain();
            self.at += FRAME;
        }
    }

    fn away(&mut self, frames: i64) {
        for _ in 0..frames {
            self.at += FRAME;
            while let Some(due) = self.timeline.deadline().filter(|due| *due <= now(self.at).mono) {
                self.timeline.handle_timeout(Now { mono: due, ..now(self.at) });
                self.drain();
            }
        }
    }

    fn cue(&mut self, when: When) {
        let info = SpliceInfo { command: Command::TimeSignal(when), segmentations: Vec::new() };
        let received = now(self.at).mono;
        self.timeline.cue(0, Cue { pid: 500, pts: None, received, info, section: Bytes::from_static(&[0xFC]) });
        self.drain();
    }

    fn at(&mut self, pts: i64) {
        self.cue(When::At(pts.rem_euclid(WRAP).cast_unsigned()));
    }

    fn tag(&mut self, pts: i64) {
        let (received, data) = (now(self.at).mono, Bytes::from_static(b"ID3"));
        self.timeline.tag(0, Tag { pid: 501, pts: Pts(pts), received, data });
    }

    fn drain(&mut self) {
        self.out.extend(std::iter::from_fn(|| self.timeline.poll()));
    }

    /// (n, due) of each cue so far.
    fn cues(&self) -> Vec<(i64, Option<i64>)> {
        let cue = |out: &Out| match out {
            Out::Cue(placed) => {
                let PlacedCue { n, due, .. } = **placed;
                Some((n, due))
            }
            _ => None,
        };
        self.out.iter().filter_map(cue).collect()
    }

    fn dropped(&self) -> Vec<Dropped> {
        self.out.iter().filter_map(|out| if let Out::Dropped(why) = out { Some(*why) } else { None }).collect()
    }

    /// N of the picture of source time `pts`.
    fn shown(&self, pts: i64) -> Vec<i64> {
        let of = |out: &Out| match out {
            Out::Video { n, unit, .. } if unit.pts.raw33() == pts.rem_euclid(WRAP).cast_unsigned() => Some(*n),
            _ => None,
        };
        self.out.iter().filter_map(of).collect()
    }
}

/// Before any of its pictures was given out, a cue names the N of the picture that carries its PTS.
#[test]
fn a_splice_falls_on_the_picture_of_its_time_stamp_over_the_wrap() {
    let start = WRAP - 200 * FRAME;
    let mut feed = Feed::new();
    feed.play(start, 100);
    for ahead in [150, 199, 200, 201, 260] {
        feed.at(start + ahead * FRAME);
        // Half a frame off is still that frame.
        feed.at(start + ahead * FRAME + FRAME / 3);
    }
    feed.play(start + 100 * FRAME, 200);
    let cues = feed.cues();
    assert_eq!(cues.len(), 10, "{cues:?}");
    for (pair, ahead) in cues.chunks(2).zip([150, 199, 200, 201, 260]) {
        let n = feed.shown(start + ahead * FRAME);
        assert_eq!((pair, &n[..]), (&[(n[0], Some(n[0])); 2][..], &[n[0]][..]));
    }
    assert!(feed.dropped().is_empty());
}

#[test]
fn at_once_and_too_late_are_the_next_frame_and_long_over_is_nothing() {
    let mut feed = Feed::new();
    feed.play(900_000, 400);
    feed.cue(When::Now);
    feed.at(900_000 + 390 * FRAME);
    feed.at(900_000 + 100 * FRAME);
    feed.play(900_000 + 400 * FRAME, 1);
    assert_eq!(feed.cues(), [(401, None), (401, Some(390))]);
    assert_eq!(feed.dropped(), [Dropped::Stale]);
}

#[test]
fn a_splice_far_ahead_is_told_when_it_comes_near_and_never_if_its_time_is_gone() {
    let mut feed = Feed::new();
    feed.play(900_000, 50);
    feed.at(900_000 + 1_000 * FRAME);
    feed.at(900_000 + 1_000 * FRAME);
    feed.at(900_000 + 3_000 * FRAME);
    feed.at(900_000 + 7 * 3_600 * 90_000);
    feed.play(900_000 + 50 * FRAME, 150);
    assert!(feed.cues().is_empty());
    assert_eq!(feed.dropped(), [Dropped::Far]);
    feed.play(900_000 + 200 * FRAME, 100);
    assert_eq!(feed.cues(), [(1_000, Some(1_000))], "once, half a minute ahead");
    feed.play(5_000_000_000, 100);
    assert_eq!(feed.dropped(), [Dropped::Far, Dropped::RunGone]);
    let jumped = feed.out.iter().filter(|out| matches!(out, Out::Jumped { n: 300 })).count();
    assert_eq!(jumped, 1, "what was told for frames behind it does not come");
}

/// The cue comes before the first picture of the new time: by the old line it would lie hours away.
#[test]
fn a_cue_in_front_of_a_jump_belongs_to_the_time_behind_it() {
    let mut feed = Feed::new();
    feed.play(900_000, 100);
    let new = 900_000 + 3 * 3_600 * 90_000;
    feed.at(new + 25 * FRAME);
    feed.tag(new + 2 * FRAME);
    feed.play(new, 50);
    let n = feed.shown(new + 25 * FRAME)[0];
    assert_eq!(feed.cues(), [(n, Some(n))]);
    let tags: Vec<i64> =
        feed.out.iter().filter_map(|o| if let Out::Tag { time, .. } = o { Some(*time) } else { None }).collect();
    assert_eq!(tags, [feed.shown(new + 2 * FRAME)[0] * FRAME]);
}

#[test]
fn behind_an_outage_a_run_that_goes_on_keeps_its_splice_and_a_lost_connection_its_silence() {
    let mut feed = Feed::new();
    feed.play(900_000, 100);
    feed.at(900_000 + 250 * FRAME);
    feed.play(900_000 + 100 * FRAME, 1);
    feed.away(100);
    feed.play(900_000 + 201 * FRAME, 100);
    assert_eq!(feed.cues(), [(250, Some(250))]);
    assert_eq!(feed.shown(900_000 + 250 * FRAME), [250]);
    // What waits for a picture that never comes is gone with its connection.
    feed.at(900_000 + 400 * FRAME);
    feed.timeline.leg_left(0);
    feed.timeline.leg_joined(0);
    open(&mut feed.timeline, 48_000);
    feed.play(900_000 + 301 * FRAME, 10);
    assert_eq!((feed.cues().len(), feed.dropped()), (1, vec![Dropped::RunGone]));
}

#[test]
fn a_flood_is_cut_off_and_pictures_go_on() {
    let mut feed = Feed::new();
    feed.play(900_000, 10);
    for round in 0..20 {
        for k in 0..50 {
            feed.at(900_000 + (100 + round + k) * FRAME);
        }
        feed.play(900_000 + (10 + round) * FRAME, 1);
    }
    assert_eq!(feed.cues().len(), 100);
    assert!(feed.dropped().iter().all(|why| *why == Dropped::Flood) && feed.dropped().len() == 900);
    assert_eq!(feed.shown(900_000 + 29 * FRAME), [29]);
}

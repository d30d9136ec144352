//! Closed captions on their way around the worker, which knows nothing of them: taken from the source's access units by
//! frame index, put into the encoded pictures of the same index.
//!
//! What frame N says is settled when its first encoded picture comes, and stays so for every rendition and for a successor
//! of the worker that makes it again. What comes too late for its frame (the filler was faster, two source pictures fell on
//! one frame) goes to the next frame that is not settled; what a picture cannot hold goes to the next one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::bitstream::captions::{self, Observer, TRIPLETS_MAX, Triplet};
use crate::media::captions::{CaptionService, Captions, CaptionsSeen};
use crate::media::track::Codec;

/// One session's captions.
#[derive(Debug, Default)]
pub struct CaptionTrack {
    /// As configured; `None`: automatic. Empty: there are none, and none are carried.
    configured: Option<Vec<CaptionService>>,
    /// By the PMT.
    described: Vec<CaptionService>,
    /// In earlier sessions of the channel.
    remembered: CaptionsSeen,
    observer: Observer,
    /// Pictures that the observer has not read yet: it reads in the order of presentation.
    unread: BTreeMap<i64, Vec<Triplet>>,
    newest: i64,
    /// There was cc_data, if only an empty one.
    present: bool,
    /// `Captions` is another one than when it was asked for last.
    changed: bool,
    pictures: BTreeMap<i64, Picture>,
    settled: Settled,
    /// Constructs for which there was no room in time.
    lost: u64,
}

/// What one frame says.
#[derive(Debug, Default)]
struct Picture {
    /// Of earlier frames.
    moved: Vec<Triplet>,
    own: Vec<Triplet>,
    /// The SEI message, once it is settled; `None` then: it says nothing.
    message: Option<Bytes>,
}

/// Frames whose encoded pictures have come.
#[derive(Debug, Default)]
struct Settled {
    /// All below this one, or so it is taken.
    below: i64,
    beyond: BTreeSet<i64>,
}

/// Pictures may be decoded so many frames before they are shown.
const REORDER_MAX: i64 = 16;
/// Frames of which it is known whether they are settled: encoders reorder fewer.
const BEYOND_MAX: usize = 256;
/// Frames that are kept for a successor of the worker, and for a rendition that lags: 20 s of 50 frames.
const PICTURES_MAX: usize = 1_024;
/// Constructs of earlier frames that wait for one picture; the rest is lost.
const MOVED_MAX: usize = 4 * TRIPLETS_MAX;
/// Renditions lag by less.
const LAG_MAX: i64 = 256;

impl CaptionTrack {
    pub fn new(configured: Option<Vec<CaptionService>>) -> CaptionTrack {
        CaptionTrack { configured, changed: true, newest: i64::MIN, ..CaptionTrack::default() }
    }

    /// What earlier sessions showed.
    pub fn remember(&mut self, seen: CaptionsSeen) {
        (self.remembered, self.changed) = (seen, true);
    }

    /// What the PMT says.
    pub fn describe(&mut self, services: &[CaptionService]) {
        if self.described != services {
            (self.described, self.changed) = (services.to_vec(), true);
        }
    }

    /// A source picture of frame `n`. `carry`: encoded pictures of its frame, or the next one, are to say the same.
    pub fn take(&mut self, n: i64, codec: Codec, fields: bool, unit: &[u8], carry: bool) {
        let mut found = Vec::new();
        if !captions::read(codec, fields, unit, &mut found) {
            return;
        }
        self.changed |= !std::mem::replace(&mut self.present, true);
        self.newest = self.newest.max(n);
        if found.is_empty() {
            return;
        }
        if carry && self.configured.as_ref().is_none_or(|services| !services.is_empty()) {
            self.carry(n, &found);
        }
        let unread = self.unread.entry(n).or_default();
        if unread.len() < MOVED_MAX {
            unread.append(&mut found);
        }
        while let Some(first) = self.unread.first_entry()
            && *first.key() <= self.newest - REORDER_MAX
        {
            let (before, read) = (self.observer.seen(), first.remove());
            self.observer.take(&read);
            self.changed |= self.observer.seen() != before;
        }
    }

    fn carry(&mut self, n: i64, found: &[Triplet]) {
        let at = self.settled.next_free(n);
        if at == n {
            self.pictures.entry(n).or_default().own.extend_from_slice(found);
        } else {
            self.lay_over(at, found);
        }
        self.fit(at);
        while self.pictures.len() > PICTURES_MAX {
            self.pictures.pop_first();
        }
    }

    /// Frame `at` says first what an earlier one could not.
    fn lay_over(&mut self, at: i64, triplets: &[Triplet]) {
        let moved = &mut self.pictures.entry(at).or_default().moved;
        for triplet in triplets.iter().filter(|triplet| triplet.says_something()) {
            if moved.len() < MOVED_MAX {
                moved.push(*triplet);
            } else {
                self.lost += 1;
            }
        }
    }

    /// What does not fit into a picture goes on.
    fn fit(&mut self, n: i64) {
        let Some(Picture { moved, own, .. }) = self.pictures.get_mut(&n) else { return };
        if moved.len() + own.len() <= TRIPLETS_MAX {
            return;
        }
        let mut rest = own.split_off(TRIPLETS_MAX.saturating_sub(moved.len()).min(own.len()));
        let mut over = moved.split_off(TRIPLETS_MAX.min(moved.len()));
        over.append(&mut rest);
        self.lay_over(self.settled.next_free(n + 1), &over);
    }

    /// The encoded picture of frame `n` (as `Sample::data`) with its captions; `None`: it has none.
    pub fn dress(&mut self, n: i64, codec: Codec, picture: &Bytes) -> Option<Bytes> {
        if !self.present {
            self.settled.below = self.settled.below.max(n + 1);
            return None;
        }
        if !self.settled.has(n) {
            self.settled.insert(n);
            self.fit(n);
            if let Some(Picture { moved, own, message }) = self.pictures.get_mut(&n) {
                moved.append(own);
                *message = (!moved.is_empty()).then(|| captions::message(moved));
                *moved = Vec::new();
            }
        }
        let message = self.pictures.get(&n)?.message.as_ref()?;
        Some(captions::insert(codec, picture, message))
    }

    /// Frames before `n` are published, and made no more.
    pub fn published(&mut self, n: i64) {
        while self.pictures.first_key_value().is_some_and(|(first, _)| *first < n - LAG_MAX) {
            self.pictures.pop_first();
        }
    }

    /// Constructs lost since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Which services carried something in this session.
    pub fn seen(&self) -> CaptionsSeen {
        self.observer.seen()
    }

    /// What players are to be told, if that changed.
    pub fn poll(&mut self) -> Option<Captions> {
        std::mem::take(&mut self.changed).then(|| self.declared())
    }

    fn declared(&self) -> Captions {
        let services = match &self.configured {
            Some(services) if services.is_empty() => return Captions::None,
            Some(services) => services.clone(),
            None if !self.described.is_empty() => self.described.clone(),
            None => self.remembered.union(self.seen()).iter().map(CaptionService::of).collect(),
        };
        match services.is_empty() {
            false => Captions::Services(services),
            true if self.present => Captions::Unknown,
            true => Captions::None,
        }
    }
}

impl Settled {
    fn has(&self, n: i64) -> bool {
        n < self.below || self.beyond.contains(&n)
    }

    fn insert(&mut self, n: i64) {
        self.beyond.insert(n);
        while self.beyond.len() > BEYOND_MAX
            && let Some(first) = self.beyond.pop_first()
        {
            self.below = self.below.max(first + 1);
        }
    }

    /// `n`, or the first frame behind it that is not settled.
    fn next_free(&self, n: i64) -> i64 {
        let mut free = n.max(self.below);
        while self.beyond.contains(&free) {
            free += 1;
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::captions::InstreamId;

    fn text(words: &str) -> Vec<Triplet> {
        let odd = |byte: u8| byte | u8::from(byte.count_ones().is_multiple_of(2)) << 7;
        let pair = |pair: &[u8]| Triplet { kind: 0, data: [odd(pair[0]), odd(*pair.get(1).unwrap_or(&0))] };
        words.as_bytes().chunks(2).map(pair).collect()
    }

    /// A source's access unit.
    fn unit(triplets: &[Triplet]) -> Vec<u8> {
        [&[0, 0, 0, 1, 6], &captions::message(triplets)[..], &[0, 0, 0, 1, 0x65, 9]].concat()
    }

    fn take(track: &mut CaptionTrack, n: i64, words: &str) {
        track.take(n, Codec::H264, false, &unit(&text(words)), true);
    }

    /// What the encoded picture of frame `n` says.
    fn said(track: &mut CaptionTrack, n: i64) -> String {
        let picture = Bytes::from_static(&[0, 0, 0, 2, 0x65, 9]);
        let Some(dressed) = track.dress(n, Codec::H264, &picture) else { return String::new() };
        let length = usize::try_from(u32::from_be_bytes(dressed[..4].try_into().unwrap())).unwrap();
        assert_eq!(dressed[4 + length..], picture[..], "the picture follows");
        let mut found = Vec::new();
        assert!(captions::read(Codec::H264, false, &[&[0, 0, 1], &dressed[4..4 + length]].concat(), &mut found));
        assert!(found.len() <= TRIPLETS_MAX);
        let letters = found.iter().flat_map(|t| t.data).map(|b| b & 0x7F).filter(|b| *b != 0);
        letters.map(char::from).collect()
    }

    #[test]
    fn each_frame_says_in_every_rendition_and_life_of_a_worker_what_its_source_said() {
        let mut track = CaptionTrack::new(None);
        // In decoding order, as B pictures have it.
        for (n, words) in [(0, "ab"), (3, "gh"), (1, "cd"), (2, "ef")] {
            take(&mut track, n, words);
        }
        for _rendition_or_life in 0..3 {
            let all: String = [0, 3, 1, 2].map(|n| said(&mut track, n)).concat();
            assert_eq!(all, "abghcdef");
        }
        assert_eq!(said(&mut track, 4), "");
        track.published(3 + LAG_MAX);
        assert_eq!((said(&mut track, 2), said(&mut track, 3).as_str()), (String::new(), "gh"));
    }

    #[test]
    fn what_comes_too_late_for_its_frame_is_said_once_by_the_next_in_order() {
        let mut track = CaptionTrack::new(None);
        take(&mut track, 0, "ab");
        // The filler showed frames 1 to 3 before the source's came.
        assert_eq!([0, 1, 2, 3].map(|n| said(&mut track, n)).concat(), "ab");
        for (n, words) in [(1, "cd"), (2, ""), (3, "ef"), (4, "gh"), (4, "ij"), (5, "kl")] {
            take(&mut track, n, words);
        }
        assert_eq!([said(&mut track, 4), said(&mut track, 5)], ["cdefghij", "kl"]);
        assert_eq!(said(&mut track, 4), "cdefghij", "nothing twice, nothing else later");
    }

    #[test]
    fn what_a_picture_cannot_hold_goes_on_in_order_and_never_without_end() {
        let mut track = CaptionTrack::new(None);
        let long: String = (0..80).map(|n| char::from(b'a' + n % 26)).collect();
        take(&mut track, 0, &long[..40]);
        take(&mut track, 0, &long[40..]);
        take(&mut track, 1, "XY");
        assert_eq!([said(&mut track, 0), said(&mut track, 1)], [long[..62].to_owned(), format!("{}XY", &long[62..])]);
        // Idle pairs are not worth moving.
        let idle = vec![Triplet { kind: 0, data: [0x80, 0x80] }; 20];
        for _ in 0..2 {
            track.take(2, Codec::H264, false, &unit(&idle), true);
        }
        take(&mut track, 3, "ZZ");
        assert_eq!([said(&mut track, 2), said(&mut track, 3)], ["", "ZZ"]);
        // Far more than anybody may send.
        for n in 10..5_000 {
            for _ in 0..4 {
                take(&mut track, n, &long[..62]);
            }
            assert!(said(&mut track, n).len() <= 62);
        }
        assert!(track.take_lost() > 10_000 && track.pictures.len() <= PICTURES_MAX);
        assert!(track.pictures.values().all(|p| p.moved.len() <= MOVED_MAX) && track.unread.len() <= 20);
    }

    #[test]
    fn players_are_told_what_is_known() {
        let service = |id| CaptionService::of(id);
        let (cc1, cc3) = (service(InstreamId::Cc(1)), service(InstreamId::Cc(3)));
        let mut track = CaptionTrack::new(None);
        assert_eq!((track.poll(), track.poll()), (Some(Captions::None), None));
        take(&mut track, 0, "");
        assert_eq!(track.poll(), Some(Captions::Unknown), "there may be some");
        // RU2, then text; read in the order of presentation, once no earlier picture can come.
        let speak = |track: &mut CaptionTrack, from: i64| {
            take(track, from + 1, "Hi");
            take(track, from, "\u{14}\u{25}");
            (0..20).for_each(|n| take(track, from + 2 + n, ""));
            track.take(from + 30, Codec::H264, false, &unit(&[Triplet { kind: 1, data: [0x80, 0x80] }]), true);
        };
        speak(&mut track, 1);
        assert_eq!(track.poll(), Some(Captions::Services(vec![cc1.clone()])));
        let named = CaptionService { language: Some("eng".into()), ..cc3.clone() };
        track.describe(std::slice::from_ref(&named));
        assert_eq!(track.poll(), Some(Captions::Services(vec![named])), "the PMT knows better");
        let mut next = CaptionTrack::new(None);
        next.remember(track.seen());
        assert_eq!(next.poll(), Some(Captions::Services(vec![cc1])), "before anybody has spoken");
        let mut listed = CaptionTrack::new(Some(vec![cc3.clone()]));
        speak(&mut listed, 0);
        assert_eq!(listed.poll(), Some(Captions::Services(vec![cc3])));
        let mut none = CaptionTrack::new(Some(Vec::new()));
        speak(&mut none, 0);
        assert_eq!((none.poll(), said(&mut none, 1).as_str()), (Some(Captions::None), ""));
    }
}

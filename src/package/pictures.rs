//! A session's newest poster, and the storyboard of what can be rewound to: JPEGs as the worker made them, and the WebVTT
//! that says where each tile lies.
//!
//! **Names.** A sheet grows tile by tile, and each version has a name of its own, made of its bytes: whoever makes the same
//! sheet again, after a restart or on the other box of a pair, gives it the same name.
//!
//! **Times.** A cue runs in the session's media time, which is what decode times (`tfdt`) of all renditions count from
//! frame 0 on: `X-TIMESTAMP-MAP` says so as for subtitles [HLS 3.5]. A player whose clock begins elsewhere takes the cue's
//! name: it is the PROGRAM-DATE-TIME of its start.
//!
//! **Memory.** Sheets with a tile inside the playlist window, and the versions before for as long as a storyboard that named
//! them may be kept; never more than `limits` say.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::window::Playlist;
use crate::media::limits::{PICTURE_BYTES_MAX, STORYBOARD_BYTES_MAX, STORYBOARD_SHEETS_MAX, STORYBOARD_STALE};
use crate::media::picture::column_and_row;
use crate::time::Wall;

/// Pictures of one session.
#[derive(Debug, Default)]
pub struct Pictures(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    poster: Option<Arc<Still>>,
    /// Oldest first; only the last one grows.
    sheets: VecDeque<Held>,
    /// What the storyboard no longer names, oldest first.
    stale: VecDeque<(String, Bytes)>,
    /// The storyboard beside the sheets, and one folder above them.
    texts: [Option<Arc<Playlist>>; 2],
}

/// One JPEG.
#[derive(Debug, PartialEq, Eq)]
pub struct Still {
    pub jpeg: Bytes,
    /// Strong entity tag, with quotes: equal bytes, equal tag.
    pub etag: String,
    /// When it came.
    pub made: Wall,
}

/// A sheet with one tile more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SheetVersion {
    pub number: i64,
    /// Places that hold a tile; the last one is new.
    pub places: Vec<u8>,
    /// Columns and rows of a tile.
    pub tile: (u16, u16),
    pub jpeg: Bytes,
    /// Of the new tile.
    pub span: Span,
}

/// What a tile stands for: media time in milliseconds from the session's frame 0 on, and the date of its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from_ms: i64,
    pub to_ms: i64,
    pub date: Wall,
}

#[derive(Debug)]
struct Held {
    number: i64,
    file: String,
    jpeg: Bytes,
    tile: (u16, u16),
    tiles: Vec<(u8, Span)>,
}

/// From where the storyboard's sheets are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// The storyboard lies where they do.
    Sheets,
    /// It lies one folder above.
    Session,
}

impl Pictures {
    /// The newest picture; the one before is gone. One that is too large is not taken.
    pub fn set_poster(&self, jpeg: Bytes, made: Wall) -> bool {
        let fits = jpeg.len() <= PICTURE_BYTES_MAX;
        if fits {
            let etag = format!("\"{}\"", short_digest(&jpeg));
            self.lock().poster = Some(Arc::new(Still { jpeg, etag, made }));
        }
        fits
    }

    pub fn poster(&self) -> Option<Arc<Still>> {
        self.lock().poster.clone()
    }

    /// Takes a sheet's new version; sheets whose last tile ends before `keep_from_ms` go. One that is too large, or says
    /// of itself what cannot be, is not taken.
    pub fn set_sheet(&self, version: SheetVersion, keep_from_ms: i64) -> bool {
        let ascending = version.places.windows(2).all(|pair| pair[0] < pair[1]);
        let Some((new, before)) = version.places.split_last().filter(|_| ascending) else { return false };
        // The number is part of a name, and never more than a session's days.
        if version.jpeg.len() > PICTURE_BYTES_MAX || u32::try_from(version.number).is_err() {
            return false;
        }
        let mut state = self.lock();
        let goes_on = state.sheets.back().is_some_and(|held| {
            let places = held.tiles.iter().map(|(place, _)| place);
            held.number == version.number && held.tile == version.tile && places.eq(before)
        });
        let file = format!("storyboard-{}-{}.jpg", version.number, short_digest(&version.jpeg));
        let mut held = if goes_on { state.retire_newest() } else { Vec::new() };
        if !goes_on {
            // A successor of a lost worker may make a tile again.
            for sheet in state.sheets.iter_mut().filter(|sheet| sheet.number == version.number) {
                sheet.tiles.retain(|(place, _)| place != new);
            }
        }
        held.push((*new, version.span));
        let (number, tile, jpeg) = (version.number, version.tile, version.jpeg);
        state.sheets.push_back(Held { number, file, jpeg, tile, tiles: held });
        state.evict(keep_from_ms);
        state.texts = [None, None];
        true
    }

    /// The storyboard as WebVTT; `None`: there is no tile.
    pub fn storyboard(&self, session: &str, beside: Beside) -> Option<Arc<Playlist>> {
        let mut state = self.lock();
        if state.sheets.is_empty() {
            return None;
        }
        let (index, folder) = match beside {
            Beside::Sheets => (0, String::new()),
            Beside::Session => (1, format!("{session}/")),
        };
        let State { sheets, texts, .. } = &mut *state;
        Some(Arc::clone(texts[index].get_or_insert_with(|| Arc::new(Playlist::of(compose(sheets, &folder).into())))))
    }

    /// A version of a sheet by its name.
    pub fn sheet(&self, file: &str) -> Option<Bytes> {
        let state = self.lock();
        let named = state.sheets.iter().find(|held| held.file == file).map(|held| held.jpeg.clone());
        named.or_else(|| state.stale.iter().find(|(name, _)| name == file).map(|(_, jpeg)| jpeg.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked while holding it left whole values behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the newest sheet off the storyboard, and gives its tiles.
    fn retire_newest(&mut self) -> Vec<(u8, Span)> {
        let Some(held) = self.sheets.pop_back() else { return Vec::new() };
        self.stale.push_back((held.file, held.jpeg));
        held.tiles
    }

    fn evict(&mut self, keep_from_ms: i64) {
        let over = |sheet: &Held| sheet.tiles.last().is_none_or(|(_, span)| span.to_ms <= keep_from_ms);
        // The newest stays whatever its age.
        while self.sheets.len() > 1 && (self.sheets.len() > STORYBOARD_SHEETS_MAX || over(&self.sheets[0])) {
            self.stale.extend(self.sheets.pop_front().map(|held| (held.file, held.jpeg)));
        }
        while self.stale.len() > STORYBOARD_STALE {
            self.stale.pop_front();
        }
        while self.bytes() > STORYBOARD_BYTES_MAX && (!self.stale.is_empty() || self.sheets.len() > 1) {
            if self.stale.pop_front().is_none() {
                self.sheets.pop_front();
            }
        }
    }

    fn bytes(&self) -> usize {
        let (sheets, stale) = (self.sheets.iter().map(|held| &held.jpeg), self.stale.iter().map(|(_, jpeg)| jpeg));
        sheets.chain(stale).map(Bytes::len).sum()
    }
}

fn compose(sheets: &VecDeque<Held>, folder: &str) -> String {
    let mut cues: Vec<(&Held, u8, Span)> =
        sheets.iter().flat_map(|sheet| sheet.tiles.iter().map(move |(place, span)| (sheet, *place, *span))).collect();
    cues.sort_by_key(|(_, _, span)| span.from_ms);
    let mut text = String::from("WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0\n");
    for (sheet, place, span) in cues {
        let ((column, row), (width, height)) = (column_and_row(place), sheet.tile);
        let (x, y) = (column * u32::from(width), row * u32::from(height));
        let (from, to) = (clock(span.from_ms), clock(span.to_ms));
        // Writing to a String has no way to fail.
        write!(text, "\n{}\n{from} --> {to}\n{folder}{}#xywh={x},{y},{width},{height}\n", span.date, sheet.file)
            .expect("a String takes any text");
    }
    text
}

/// `HH:MM:SS.mmm`, with as many hours as there are.
fn clock(ms: i64) -> String {
    let ms = ms.max(0);
    let (seconds, rest) = (ms / 1_000, ms % 1_000);
    format!("{:02}:{:02}:{:02}.{rest:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// The first 64 bits of the SHA-256, hex: equal bytes, equal text.
fn short_digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes any text");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: i64, places: &[u8], bytes: usize) -> SheetVersion {
        let tile = number * 100 + i64::from(*places.last().unwrap());
        let span = Span { from_ms: tile * 10_000, to_ms: tile * 10_000 + 10_000, date: Wall(tile * 10_000_000_000) };
        let mut jpeg = vec![0; bytes.max(8)];
        jpeg[..2].copy_from_slice(&[u8::try_from(number).unwrap(), places.len() as u8]);
        jpeg[2] = places[0];
        SheetVersion { number, places: places.to_vec(), tile: (160, 90), jpeg: jpeg.into(), span }
    }

    fn text(pictures: &Pictures) -> String {
        String::from_utf8(pictures.storyboard("se_1", Beside::Sheets).unwrap().plain.to_vec()).unwrap()
    }

    fn files(pictures: &Pictures) -> Vec<String> {
        let name = |line: &str| line.split_once("#xywh=").map(|(file, _)| file.to_owned());
        text(pictures).lines().filter_map(name).collect()
    }

    #[test]
    fn the_storyboard_says_when_and_where_each_tile_is() {
        let pictures = Pictures::default();
        assert!(pictures.storyboard("se_1", Beside::Sheets).is_none());
        for last in 0..12u8 {
            assert!(pictures.set_sheet(version(0, &(0..=last).collect::<Vec<_>>(), 0), 0));
        }
        let text = text(&pictures);
        let file = files(&pictures)[0].clone();
        assert!(text.starts_with("WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0\n\n1970-01-01T00:00:00.000Z\n"));
        let cue = format!("\n\n1970-01-01T00:01:50.000Z\n00:01:50.000 --> 00:02:00.000\n{file}#xywh=160,90,160,90\n");
        assert!(text.ends_with(&cue), "{text}");
        assert_eq!(text.matches(" --> ").count(), 12);
        assert!(text.matches(&file).count() == 12 && pictures.sheet(&file).is_some());
        let above = pictures.storyboard("se_1", Beside::Session).unwrap();
        assert!(String::from_utf8_lossy(&above.plain).contains(&format!("\nse_1/{file}#xywh=160,90,160,90\n")));
        assert_eq!(clock(36_000_001 * 10), "100:00:00.010");
    }

    #[test]
    fn a_name_never_names_other_bytes_and_outlives_the_storyboard_that_names_it() {
        let pictures = Pictures::default();
        let mut seen = std::collections::BTreeMap::new();
        for last in 0..20u8 {
            let places: Vec<u8> = (0..=last).collect();
            let new = version(0, &places, 0);
            pictures.set_sheet(new.clone(), 0);
            let file = files(&pictures)[0].clone();
            assert_eq!(pictures.sheet(&file), Some(new.jpeg.clone()));
            assert!(seen.insert(file, new.jpeg).is_none(), "a new version, a new name");
            let there: Vec<_> = seen.iter().filter_map(|(file, jpeg)| Some((pictures.sheet(file)?, jpeg))).collect();
            assert!(there.iter().all(|(got, want)| got == *want));
            assert_eq!(there.len(), seen.len().min(STORYBOARD_STALE + 1));
        }
        assert!(pictures.sheet("storyboard-0-0000000000000000.jpg").is_none());
    }

    #[test]
    fn a_successor_s_sheet_lies_beside_its_predecessor_s_and_no_tile_is_listed_twice() {
        let pictures = Pictures::default();
        pictures.set_sheet(version(0, &[0], 0), 0);
        pictures.set_sheet(version(0, &[0, 1], 0), 0);
        pictures.set_sheet(version(0, &[1], 0), 0);
        pictures.set_sheet(version(0, &[1, 2], 0), 0);
        let files = files(&pictures);
        assert_eq!(files.len(), 3, "{files:?}");
        assert!(files[0] != files[1] && files[1] == files[2]);
        // Another shape does not go on with what is there.
        let tall = SheetVersion { tile: (50, 90), ..version(0, &[1, 2, 3], 0) };
        pictures.set_sheet(tall, 0);
        assert!(text(&pictures).ends_with("#xywh=150,0,50,90\n"));
    }

    #[test]
    fn what_is_held_has_bounds() {
        let pictures = Pictures::default();
        for number in 0..40 {
            pictures.set_sheet(version(number, &[0], 0), i64::MIN);
            assert!(pictures.lock().sheets.len() <= STORYBOARD_SHEETS_MAX);
        }
        // Out of the window, but for the newest.
        pictures.set_sheet(version(41, &[0], 0), i64::MAX);
        assert_eq!(pictures.lock().sheets.len(), 1);
        assert_eq!(files(&pictures).len(), 1);
        let (most, large) = (STORYBOARD_BYTES_MAX, PICTURE_BYTES_MAX);
        for number in 50..60 {
            assert!(pictures.set_sheet(version(number, &[0], large), i64::MIN));
            assert!(pictures.lock().bytes() <= most);
        }
        assert!(pictures.lock().sheets.len() > 1);
        assert!(!pictures.set_sheet(version(61, &[0], large + 1), 0), "too large");
        assert!(!pictures.set_sheet(SheetVersion { number: -1, ..version(61, &[0], 0) }, 0), "before the start");
        for places in [&[][..], &[3, 3], &[4, 3]] {
            let wrong = SheetVersion { places: places.to_vec(), ..version(61, &[0], 0) };
            assert!(!pictures.set_sheet(wrong, 0), "{places:?}");
        }
        assert!(!pictures.set_poster(vec![0; large + 1].into(), Wall(0)) && pictures.poster().is_none());
    }

    #[test]
    fn a_poster_s_tag_is_that_of_its_bytes() {
        let pictures = Pictures::default();
        let tag = |bytes: &'static [u8], at| {
            assert!(pictures.set_poster(bytes.into(), Wall(at)));
            pictures.poster().unwrap().etag.clone()
        };
        assert_eq!(tag(b"abc", 1), tag(b"abc", 2));
        assert_ne!(tag(b"abc", 1), tag(b"abd", 1));
        assert_eq!(tag(b"abc", 3), "\"ba7816bf8f01cfea\"");
    }
}

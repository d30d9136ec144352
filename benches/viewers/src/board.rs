//! What all viewers know together: each playlist is read once, each part's bytes are compared with those that came first,
//! and everything has the instant at which it could first be had.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::line::Answer;
use crate::playlist::{self, Listed};

/// Something that can be had since some instant.
#[derive(Debug)]
pub struct Thing {
    /// Nanoseconds after the board's beginning; `u64::MAX`: nobody has it yet.
    since: AtomicU64,
    /// Length and checksum of what came first, and whether something came.
    bytes: Mutex<Option<(usize, u32)>>,
}

/// A version of a playlist.
#[derive(Debug)]
pub struct Version {
    pub listed: Listed,
    pub parts: Vec<((u64, u32), Part)>,
    pub hint: Option<Part>,
    pub itself: Arc<Thing>,
}

#[derive(Clone, Debug)]
pub struct Part {
    /// From the server's root.
    pub path: Arc<str>,
    pub thing: Arc<Thing>,
}

#[derive(Debug)]
pub struct Board {
    began: Instant,
    versions: Mutex<HashMap<(usize, String), Arc<Version>>>,
    parts: Mutex<HashMap<String, Part>>,
}

impl Default for Board {
    fn default() -> Self {
        Board { began: Instant::now(), versions: Mutex::default(), parts: Mutex::default() }
    }
}

impl Thing {
    fn new() -> Arc<Thing> {
        Arc::new(Thing { since: AtomicU64::new(u64::MAX), bytes: Mutex::default() })
    }
}

impl Board {
    /// Somebody has it at `at`; how long after the first that is.
    pub fn had(&self, thing: &Thing, at: Instant) -> std::time::Duration {
        let nanos = u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX - 1);
        let first = thing.since.fetch_min(nanos, Ordering::Relaxed).min(nanos);
        std::time::Duration::from_nanos(nanos - first)
    }

    /// Whether these are the bytes that came first.
    pub fn same(&self, thing: &Thing, answer: &Answer) -> bool {
        let now = (answer.length, answer.crc);
        *thing.bytes.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now) == now
    }

    /// The version that this answer is, read if nobody did so before. `folder` is the playlist's.
    pub fn version(&self, track: usize, answer: &Answer, body: &[u8], folder: &str) -> Option<Arc<Version>> {
        let etag = answer.etag.clone()?;
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = versions.get(&(track, etag.clone())) {
            return Some(Arc::clone(version));
        }
        let version = Arc::new(self.read(answer, body, folder)?);
        if versions.len() >= VERSIONS_MAX {
            versions.clear();
        }
        versions.insert((track, etag), Arc::clone(&version));
        Some(version)
    }

    fn read(&self, answer: &Answer, body: &[u8], folder: &str) -> Option<Version> {
        let listed = playlist::media(&text(answer, body)?)?;
        let parts = listed.parts.iter().map(|(place, uri)| (*place, self.part(format!("{folder}{uri}")))).collect();
        let hint = listed.hint.as_ref().map(|uri| self.part(format!("{folder}{uri}")));
        Some(Version { parts, hint, listed, itself: Thing::new() })
    }

    fn part(&self, path: String) -> Part {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.len() >= PARTS_MAX {
            parts.clear();
        }
        parts.entry(path.clone()).or_insert_with(|| Part { path: path.into(), thing: Thing::new() }).clone()
    }
}

/// The body as text.
#[must_use]
pub fn text(answer: &Answer, body: &[u8]) -> Option<String> {
    if !answer.gzip {
        return String::from_utf8(body.to_vec()).ok();
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(body).read_to_string(&mut text).ok()?;
    Some(text)
}

/// A viewer never looks further back than a playlist does; behind that the tables may begin anew.
const VERSIONS_MAX: usize = 100_000;
const PARTS_MAX: usize = 200_000;

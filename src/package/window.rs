//! What one rendition publishes, and the answers to requests for it: sans-IO, woken by std wakers.

use bytes::Bytes;
use std::sync::Arc;
use std::task::Waker;

use crate::time::Mono;

/// LL-HLS delivery directives [HLS 6.2.5].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `_HLS_msn`
    pub msn: Option<u64>,
    /// `_HLS_part`
    pub part: Option<u32>,
    /// `_HLS_skip`
    pub skip: Skip,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Skip {
    #[default]
    No,
    Yes,
    V2,
}

/// What a request gets now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    Now(T),
    /// Ask again when woken, or at this instant at the latest (then it is refused).
    Until(Mono),
    Refuse(Refusal),
}

/// Why a request is refused; `serve` maps it to a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: the directives make no sense; the sentence says why.
    BadRequest(String),
    /// 404: does not exist (any more).
    NotFound(String),
    /// 503, no-store: did not come in time.
    NotYet(String),
}

/// One version of a playlist, rendered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Playlist {
    pub plain: Bytes,
    pub gzip: Bytes,
    /// Strong entity tag, with quotes.
    pub etag: String,
}

/// Bytes of a part (one chunk) or a segment (its parts).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media {
    pub chunks: Vec<Bytes>,
}

impl Media {
    pub fn length(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

/// One rendition's published window, shared between its packager and all its viewers.
#[derive(Debug)]
pub struct RenditionOutput {}

impl RenditionOutput {
    pub fn name(&self) -> &str {
        unimplemented!("package")
    }

    /// The media playlist for a request that arrived at `since`.
    pub fn playlist(&self, _since: Mono, _now: Mono, _directives: &Directives) -> Answer<Arc<Playlist>> {
        unimplemented!("package")
    }

    pub fn segment(&self, _since: Mono, _now: Mono, _msn: u64) -> Answer<Media> {
        unimplemented!("package")
    }

    /// A listed part, or the hinted one (waits for it).
    pub fn part(&self, _since: Mono, _now: Mono, _msn: u64, _part: u32) -> Answer<Media> {
        unimplemented!("package")
    }

    /// Media initialization section number `map`.
    pub fn init(&self, _map: u32) -> Option<Bytes> {
        unimplemented!("package")
    }

    /// Wakes `waker` at the next change. Returns a key for `cancel`.
    pub fn wait(&self, _waker: &Waker) -> u64 {
        unimplemented!("package")
    }

    pub fn cancel(&self, _key: u64) {
        unimplemented!("package")
    }
}

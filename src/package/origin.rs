//! The register of what can be asked for: channels, their sessions, their renditions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::pictures::Pictures;
use super::playlist::multivariant;
use super::window::{Board, Playlist, RenditionOutput};
use crate::media::channel::{ChannelName, SessionId};
use crate::media::modes::LatencyMode;
use crate::time::Mono;

/// Everything that is served, by channel. One per process.
#[derive(Debug, Default)]
pub struct Origin {
    channels: RwLock<BTreeMap<String, Arc<ChannelOutput>>>,
}

impl Origin {
    /// Makes a configured channel known, so that its URLs answer "no session" rather than "no such channel".
    pub fn declare(&self, name: &ChannelName) -> Arc<ChannelOutput> {
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        channels.entry(name.as_str().to_owned()).or_insert_with(|| Arc::new(ChannelOutput::new(name.clone()))).clone()
    }

    /// A channel is gone: its URLs answer as if it had never been.
    pub fn forget(&self, name: &ChannelName) {
        self.channels.write().unwrap_or_else(PoisonError::into_inner).remove(name.as_str());
    }

    pub fn channel(&self, name: &str) -> Option<Arc<ChannelOutput>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub fn channels(&self) -> Vec<Arc<ChannelOutput>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// One channel's output: the session on air (or lingering) now.
#[derive(Debug)]
pub struct ChannelOutput {
    pub name: ChannelName,
    session: RwLock<Option<Arc<SessionOutput>>>,
    expected: AtomicBool,
}

impl ChannelOutput {
    fn new(name: ChannelName) -> Self {
        Self { name, session: RwLock::new(None), expected: AtomicBool::new(false) }
    }

    pub fn session(&self) -> Option<Arc<SessionOutput>> {
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A session that was on air before a restart is about to be again: ask again soon.
    pub fn is_expected(&self) -> bool {
        self.expected.load(Ordering::Relaxed)
    }

    pub fn set_expected(&self, expected: bool) {
        self.expected.store(expected, Ordering::Relaxed);
    }

    /// Puts a session on air in place of the one before; `None` ends the linger.
    pub fn set_session(&self, session: Option<Arc<SessionOutput>>) {
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = session;
    }
}

/// One session's output: its renditions, video first, best first.
#[derive(Debug)]
pub struct SessionOutput {
    pub id: SessionId,
    pub mode: LatencyMode,
    renditions: RwLock<Vec<Arc<RenditionOutput>>>,
    /// The last parts of all renditions, for rendition reports.
    board: Arc<Board>,
    multivariant: Mutex<Option<Arc<Playlist>>>,
    pictures: Pictures,
}

impl SessionOutput {
    pub fn new(id: SessionId, mode: LatencyMode) -> Self {
        let (renditions, board) = (RwLock::default(), Arc::default());
        Self { id, mode, renditions, board, multivariant: Mutex::new(None), pictures: Pictures::default() }
    }

    pub fn renditions(&self) -> Vec<Arc<RenditionOutput>> {
        self.renditions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn rendition(&self, name: &str) -> Option<Arc<RenditionOutput>> {
        self.renditions().into_iter().find(|r| r.name() == name)
    }

    pub fn pictures(&self) -> &Pictures {
        &self.pictures
    }

    /// Add all renditions before the first part is published: reports name every other rendition.
    pub fn add(&self, rendition: Arc<RenditionOutput>) {
        rendition.join(&self.board);
        self.renditions.write().unwrap_or_else(PoisonError::into_inner).push(rendition);
    }

    /// The multivariant playlist; `None` until every rendition (shed ones aside) has something to play: its first part
    /// where the mode has parts, else its first segment.
    pub fn multivariant(&self) -> Option<Arc<Playlist>> {
        let text = multivariant::render(&self.renditions())?;
        let mut held = self.multivariant.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_ref() {
            Some(playlist) if playlist.plain == text.as_bytes() => Some(playlist.clone()),
            _ => Some(held.insert(Arc::new(Playlist::of(text.into()))).clone()),
        }
    }

    /// ENDLIST everywhere, for a session whose segmenters are gone.
    pub fn end(&self) {
        self.renditions().iter().for_each(|r| r.end());
    }

    /// The process stops: whoever waits is told to ask again.
    pub fn suspend(&self) {
        self.renditions().iter().for_each(|r| r.suspend());
    }

    /// Every rendition has said that nothing more comes.
    pub fn ended(&self) -> bool {
        let renditions = self.renditions();
        !renditions.is_empty() && renditions.iter().all(|r| r.facts().ended)
    }

    /// Media bytes held by all renditions.
    pub fn bytes_held(&self) -> usize {
        self.renditions().iter().map(|r| r.facts().bytes_held).sum()
    }

    /// When any rendition last published a part.
    pub fn last_part_at(&self) -> Option<Mono> {
        self.renditions().iter().filter_map(|r| r.facts().last_part_at).max()
    }
}

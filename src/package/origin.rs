//! The register of what can be asked for: channels, their sessions, their renditions.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::window::{Playlist, RenditionOutput};
use crate::media::channel::{ChannelName, SessionId};
use crate::media::modes::LatencyMode;

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
}

impl ChannelOutput {
    fn new(name: ChannelName) -> Self {
        Self { name, session: RwLock::new(None) }
    }

    pub fn session(&self) -> Option<Arc<SessionOutput>> {
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone()
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
}

impl SessionOutput {
    pub fn new(id: SessionId, mode: LatencyMode) -> Self {
        Self { id, mode, renditions: RwLock::new(Vec::new()) }
    }

    pub fn renditions(&self) -> Vec<Arc<RenditionOutput>> {
        self.renditions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn rendition(&self, name: &str) -> Option<Arc<RenditionOutput>> {
        self.renditions().into_iter().find(|r| r.name() == name)
    }

    pub fn add(&self, rendition: Arc<RenditionOutput>) {
        self.renditions.write().unwrap_or_else(PoisonError::into_inner).push(rendition);
    }

    /// The multivariant playlist; `None` until every rendition has something to play.
    pub fn multivariant(&self) -> Option<Arc<Playlist>> {
        unimplemented!("package: multivariant playlist")
    }
}

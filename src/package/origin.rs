//! The register of what can be asked for: channels, their sessions, their renditions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::dates::DateRange;
use super::pictures::Pictures;
use super::playlist::multivariant::{self, Said};
use super::window::{Board, Playlist, RenditionOutput};
use crate::media::captions::Captions;
use crate::media::channel::{ChannelName, SessionId};
use crate::media::modes::LatencyMode;
use crate::media::playback::Access;
use crate::media::steering::Steering;
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
    access: RwLock<Access>,
    steering: RwLock<Option<Arc<SteeringOutput>>>,
}

/// From where a channel's players fetch it, and what they are told of it.
#[derive(Debug)]
pub struct SteeringOutput {
    pub steering: Steering,
    /// `/live/<channel>/`
    pub(super) path: String,
    /// The Steering Manifest.
    pub manifest: Playlist,
}

impl SteeringOutput {
    /// Some pathway lies on another origin: its addresses are absolute.
    pub fn leads_elsewhere(&self) -> bool {
        self.steering.pathways.iter().any(|pathway| !pathway.base.is_empty())
    }
}

impl ChannelOutput {
    fn new(name: ChannelName) -> Self {
        let (session, access, steering) = (RwLock::new(None), RwLock::default(), RwLock::new(None));
        Self { name, session, expected: AtomicBool::new(false), access, steering }
    }

    pub fn session(&self) -> Option<Arc<SessionOutput>> {
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Players are steered like this from now on; `None`: they stay where they are.
    pub fn set_steering(&self, steering: Option<&Steering>) {
        let output = steering.map(|steering| {
            let (manifest, path) = (Playlist::of(steering.manifest().into()), format!("/live/{}/", self.name));
            Arc::new(SteeringOutput { steering: steering.clone(), path, manifest })
        });
        *self.steering.write().unwrap_or_else(PoisonError::into_inner) = output;
    }

    pub fn steering(&self) -> Option<Arc<SteeringOutput>> {
        self.steering.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A session that was on air before a restart is about to be again: ask again soon.
    pub fn is_expected(&self) -> bool {
        self.expected.load(Ordering::Relaxed)
    }

    pub fn set_expected(&self, expected: bool) {
        self.expected.store(expected, Ordering::Relaxed);
    }

    /// Who may be given anything of this channel.
    pub fn access(&self) -> Access {
        *self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_access(&self, access: Access) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = access;
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
    captions: RwLock<Captions>,
    audio_only: AtomicBool,
    multivariant: Mutex<Option<Arc<Playlist>>>,
    /// EXT-X-START, seconds; 0: none.
    start: AtomicI32,
    pictures: Pictures,
}

impl SessionOutput {
    pub fn new(id: SessionId, mode: LatencyMode) -> Self {
        Self {
            id,
            mode,
            renditions: RwLock::default(),
            board: Arc::default(),
            captions: RwLock::default(),
            audio_only: AtomicBool::new(true),
            multivariant: Mutex::new(None),
            start: AtomicI32::new(0),
            pictures: Pictures::default(),
        }
    }

    pub fn renditions(&self) -> Vec<Arc<RenditionOutput>> {
        self.renditions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn rendition(&self, name: &str) -> Option<Arc<RenditionOutput>> {
        let renditions = self.renditions.read().unwrap_or_else(PoisonError::into_inner);
        renditions.iter().find(|r| r.name() == name).cloned()
    }

    pub fn pictures(&self) -> &Pictures {
        &self.pictures
    }

    /// Add all renditions before the first part is published: reports name every other rendition.
    pub fn add(&self, rendition: Arc<RenditionOutput>) {
        rendition.join(&self.board);
        self.renditions.write().unwrap_or_else(PoisonError::into_inner).push(rendition);
    }

    /// Where players begin, seconds from the end, below zero [HLS 4.4.2.2].
    pub fn set_start(&self, offset_s: i32) {
        self.start.store(offset_s, Ordering::Relaxed);
    }

    /// What players are told of closed captions from now on.
    pub fn set_captions(&self, captions: Captions) {
        *self.captions.write().unwrap_or_else(PoisonError::into_inner) = captions;
    }

    /// Whether there is a variant without a picture beside those with one. There is, unless somebody says otherwise.
    pub fn set_audio_only(&self, audio_only: bool) {
        self.audio_only.store(audio_only, Ordering::Relaxed);
    }

    /// The multivariant playlist, for players that are not steered.
    pub fn multivariant(&self) -> Option<Arc<Playlist>> {
        self.steered(None)
    }

    /// The multivariant playlist; `None` until every rendition (shed ones aside) has something to play: its first part
    /// where the mode has parts, else its first segment.
    pub fn steered(&self, steering: Option<&SteeringOutput>) -> Option<Arc<Playlist>> {
        let text = self.render(&self.renditions(), steering)?;
        let mut held = self.multivariant.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_ref() {
            Some(playlist) if playlist.plain == text.as_bytes() => Some(playlist.clone()),
            _ => Some(held.insert(Arc::new(Playlist::of(text.into()))).clone()),
        }
    }

    /// Tells every playlist of a date range, or what became known of one since (the same ID and start, attributes that it
    /// did not have: an end, SCTE35-IN). It is listed with the next part; saying the same again says nothing.
    ///
    /// # Errors
    /// A sentence: it contradicts what was said of this ID, its ID is that of a range that is over, or it is none
    /// [HLS 4.4.5.1]. Playlists stay as they are.
    pub fn announce(&self, range: DateRange) -> Result<(), String> {
        self.board.announce(range)
    }

    /// Date ranges taken off before they were over, as there were more than [`super::dates::DATE_RANGES_MAX`].
    pub fn date_ranges_dropped(&self) -> u64 {
        self.board.dates_dropped()
    }

    /// Renditions of up to `rows` rows; the lowest one and the sound always.
    pub fn within(&self, rows: u32) -> Vec<Arc<RenditionOutput>> {
        let all = self.renditions();
        let lowest = all.iter().filter_map(|r| r.size()).map(|(_, height)| height).min().unwrap_or(0);
        let fits = |r: &Arc<RenditionOutput>| r.size().is_none_or(|(_, height)| height <= rows.max(lowest));
        all.into_iter().filter(fits).collect()
    }

    /// As `multivariant`, of the renditions within `rows` rows (`None`: of all), written for one viewer.
    pub fn multivariant_within(&self, rows: Option<u32>, steering: Option<&SteeringOutput>) -> Option<String> {
        let renditions = rows.map_or_else(|| self.renditions(), |rows| self.within(rows));
        self.render(&renditions, steering)
    }

    fn render(&self, renditions: &[Arc<RenditionOutput>], steering: Option<&SteeringOutput>) -> Option<String> {
        let captions = self.captions.read().unwrap_or_else(PoisonError::into_inner);
        let said = Said {
            captions: &captions,
            audio_only: self.audio_only.load(Ordering::Relaxed),
            start: Some(self.start.load(Ordering::Relaxed)).filter(|start| *start != 0),
            steering,
        };
        multivariant::render(renditions, said)
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

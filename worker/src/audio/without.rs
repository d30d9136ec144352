//! In a worker without libav: AAC-LC is passed through by the daemon, other audio can not be carried.

use rung::media::grid::FrameRate;
use rung::media::track::AudioConfig;
use rung::pixels::protocol::OpenAudio;
use std::sync::Arc;

use super::ToAudio;
use crate::error::Error;
use crate::queue::Queue;
use crate::shared::Shared;

pub enum Audio {}

impl Audio {
    /// # Errors
    /// Always.
    pub fn open(_: u32, tracks: &[OpenAudio], _: Option<FrameRate>, _: &Arc<Shared>) -> Result<Audio, Error> {
        let codecs = tracks.iter().map(|track| format!("{:?}", track.codec)).collect::<Vec<_>>().join(", ");
        Err(Error::Other(format!(
            "this rung-worker was built without the software backend: {codecs} audio can not be re-encoded; send AAC-LC"
        )))
    }

    pub fn configs(&self) -> Vec<AudioConfig> {
        match *self {}
    }

    /// # Errors
    /// Never.
    pub fn run(self, _: &Queue<ToAudio>) -> Result<(), Error> {
        match self {}
    }
}

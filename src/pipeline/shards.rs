//! All shards of the daemon: each channel runs on one of them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::ports::Ports;
use super::shard::{Command, Setup, Shard, Shared};
use super::status::ChannelStatus;
use crate::ingest::PullStatus;
use crate::media::channel::ChannelName;
use crate::time::SystemClock;

/// How long `settle` waits.
const SETTLE: Duration = Duration::from_secs(10);

/// Running shards. Dropping them stops them.
pub struct Shards(Vec<Shard>);

impl Shards {
    /// One for each of `ports`, which are side by side.
    ///
    /// # Errors
    /// The system has no descriptor or thread left.
    pub fn start(ports: Vec<Ports>, setup: Setup) -> io::Result<Shards> {
        let setup = Arc::new(setup);
        let shards = ports.into_iter().enumerate().map(|(n, ports)| Shard::start(n, ports, Arc::clone(&setup)));
        shards.collect::<io::Result<_>>().map(Shards)
    }

    /// Something that reads their status from elsewhere.
    pub fn watcher(&self) -> Watcher {
        Watcher(self.0.iter().map(|shard| Arc::clone(&shard.shared)).collect())
    }

    /// Tells publishers to come back later, ends sessions, and waits for the threads.
    pub fn stop(&mut self) {
        self.0.iter().for_each(Shard::stop);
        self.0.iter_mut().for_each(Shard::join);
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads the status of all channels and hands commands over to the shards that they are for.
#[derive(Clone)]
pub struct Watcher(Arc<[Arc<Shared>]>);

impl Watcher {
    /// Hands a command over.
    ///
    /// # Errors
    /// It comes back: too many wait already.
    pub fn tell(&self, command: Command) -> Result<(), Command> {
        match command.channel() {
            Some(channel) => self.of(channel).tell(command),
            None => self.0[0].tell(command),
        }
    }

    /// Every channel's state by name, at most a second old.
    pub fn status(&self) -> Vec<Arc<ChannelStatus>> {
        let mut all: Vec<_> =
            self.0.iter().flat_map(|shard| shard.status().values().cloned().collect::<Vec<_>>()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// One channel's; `None`: there is no such channel.
    pub fn status_of(&self, channel: &ChannelName) -> Option<Arc<ChannelStatus>> {
        self.of(channel).status().get(channel).cloned()
    }

    /// How far the source of a channel is that is called; `None`: none is.
    pub fn pull_of(&self, channel: &ChannelName) -> Option<PullStatus> {
        self.of(channel).pulls().get(channel).cloned()
    }

    /// Waits until everything that was asked for before is done, 10 s at most.
    pub fn settle(&self) {
        let end = SystemClock::mono() + SETTLE;
        for shard in &*self.0 {
            let (sender, done) = sync_channel(1);
            if shard.tell(Command::Answer(sender)).is_ok() {
                // A shard that is gone has nothing left to do.
                let _answer = done.recv_timeout(end - SystemClock::mono());
            }
        }
    }

    /// How long ago the loop of the slowest last came round.
    pub fn age(&self) -> Duration {
        self.0.iter().map(|shard| shard.age()).max().unwrap_or_default()
    }

    fn of(&self, channel: &ChannelName) -> &Shared {
        &self.0[channel.shard(self.0.len())]
    }
}

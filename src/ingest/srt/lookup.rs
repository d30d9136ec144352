//! Names of hosts into addresses, each on a thread of its own: a name server may take its time.

use std::collections::VecDeque;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::media::channel::ChannelName;

/// Look-ups under way at once; what else is wanted waits.
const LOOKUPS_MAX: usize = 8;

/// A name whose addresses a channel wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) channel: ChannelName,
    /// Of this look-up, for telling its answer from an older one's.
    pub(super) ticket: u64,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Its addresses, or what the name server said.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) channel: ChannelName,
    pub(super) ticket: u64,
    pub(super) addresses: Result<Vec<SocketAddr>, String>,
}

pub(super) struct Lookups {
    /// A channel's latest.
    waiting: VecDeque<Wanted>,
    under_way: usize,
    /// Room for the answers of all that are under way: nobody waits.
    sender: SyncSender<Found>,
    receiver: Receiver<Found>,
}

impl Default for Lookups {
    fn default() -> Lookups {
        let (sender, receiver) = sync_channel(LOOKUPS_MAX);
        Lookups { waiting: VecDeque::new(), under_way: 0, sender, receiver }
    }
}

impl Lookups {
    pub(super) fn begin(&mut self, wanted: Wanted) {
        self.waiting.retain(|other| other.channel != wanted.channel);
        self.waiting.push_back(wanted);
        self.start();
    }

    /// An answer that came. Call it now and then while `is_busy`.
    pub(super) fn poll(&mut self) -> Option<Found> {
        let found = self.receiver.try_recv().ok()?;
        self.under_way -= 1;
        self.start();
        Some(found)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.under_way > 0
    }

    fn start(&mut self) {
        while self.under_way < LOOKUPS_MAX
            && let Some(Wanted { channel, ticket, host, port }) = self.waiting.pop_front()
        {
            self.under_way += 1;
            let (sender, name) = (self.sender.clone(), channel.clone());
            let look_up = move || {
                let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
                let addresses = addresses.map_err(|e| e.to_string());
                // A port that is gone does not want it.
                let _gone = sender.send(Found { channel, ticket, addresses });
            };
            if let Err(error) = std::thread::Builder::new().name("lookup".into()).spawn(look_up) {
                let addresses = Err(format!("no thread for a look-up: {error}"));
                let _gone = self.sender.try_send(Found { channel: name, ticket, addresses });
            }
        }
    }
}

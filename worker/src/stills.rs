//! Single pictures of channels that nobody else decodes: one random access point in, posters and tiles out, for as many
//! channels as there are. Each unit gets a decoder of its own, so that none can spoil another's picture.
//!
//! Time: N rides each unit. One unit at a time: the daemon sends the next one behind the answer.

use rung::pixels::protocol::{FromWorker, Still};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::decode;
use crate::queue::Queue;
use crate::shared::{Counters, Shared};
use crate::thumbnail::{Look, Maker, Wanted};

/// Units on their way to the thread: the daemon sends one and waits.
const QUEUE: usize = 4;
/// Channels whose open sheet is kept, 2 MB each when it is full. One more, and the one that came first begins a sheet anew.
const CHANNELS_MAX: usize = 256;

#[derive(Debug)]
enum ToStills {
    Make(Box<Still>),
    Forget(u32),
}

/// The running thread.
pub struct Stills {
    orders: Arc<Queue<ToStills>>,
    thread: JoinHandle<()>,
}

impl Stills {
    /// # Errors
    /// A sentence: no thread can be started.
    pub fn start(ch: u32, shared: &Arc<Shared>) -> Result<Stills, String> {
        let orders: Arc<Queue<ToStills>> = Arc::new(Queue::bounded(QUEUE));
        let (input, out) = (Arc::clone(&orders), Arc::clone(shared));
        let body = move || {
            let mut makers = BTreeMap::new();
            while let Some(order) = input.pop() {
                match order {
                    ToStills::Make(still) => {
                        let pictures = make(&mut makers, &still, &out);
                        out.send(FromWorker::StillMade { ch, of: still.of, pictures });
                    }
                    ToStills::Forget(of) => drop(makers.remove(&of)),
                }
            }
        };
        let thread = shared.spawn("stills".to_owned(), ch, body).map_err(|e| format!("thread stills: {e}"))?;
        shared.counters.open(ch, 0);
        Ok(Stills { orders, thread })
    }

    /// Waits while several units are under way.
    pub fn make(&self, still: Box<Still>) {
        self.orders.wait_push(ToStills::Make(still));
    }

    pub fn forget(&self, of: u32) {
        self.orders.wait_push(ToStills::Forget(of));
    }

    pub fn close(self) {
        self.orders.close();
        // A panic was caught and reported by `Shared::spawn`.
        drop(self.thread.join());
    }
}

type Makers = BTreeMap<u32, (Look, Maker)>;

/// What of a unit can be shown; nothing of a damaged one.
fn make(makers: &mut Makers, still: &Still, shared: &Shared) -> Vec<rung::pixels::protocol::Picture> {
    let Ok(Some(frame)) = decode::still(&still.source, &still.data) else {
        return Vec::new();
    };
    Counters::add(&shared.counters.decoded, 1);
    let (sar, colour, source_height) = (still.source.sar, still.source.colour, still.source.height);
    let look = Look { sar, colour, source_height };
    if makers.len() >= CHANNELS_MAX && !makers.contains_key(&still.of) {
        makers.pop_first();
    }
    let new = || (look, Maker::new(look, Some(still.rule)));
    let known = makers.entry(still.of).or_insert_with(new);
    if known.0 != look {
        *known = new();
    }
    known.1.make(still.at, Wanted { due: still.due, snap: still.snap }, &frame.planes())
}

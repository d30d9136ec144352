//! What a software worker can be busy with: one channel's ladder, single pictures of many, or the demo's test picture.

use rung::pixels::protocol::{Open, Pattern, ToWorker};
use std::sync::Arc;

use crate::shared::Shared;

#[cfg(feature = "software")]
pub enum Work {
    Ladder(crate::channel::Channel),
    Stills(crate::stills::Stills),
    Pattern(crate::made::Maker),
}

#[cfg(feature = "software")]
impl Work {
    /// # Errors
    /// A sentence: what could not be opened.
    pub fn open(ch: u32, open: Open, shared: &Arc<Shared>) -> Result<Work, String> {
        crate::channel::Channel::open(ch, open, shared).map(Work::Ladder)
    }

    /// # Errors
    /// A sentence: what could not be opened.
    pub fn stills(ch: u32, shared: &Arc<Shared>) -> Result<Work, String> {
        crate::stills::Stills::start(ch, shared).map(Work::Stills)
    }

    /// # Errors
    /// A sentence: what could not be opened.
    pub fn pattern(ch: u32, pattern: Pattern, shared: &Arc<Shared>) -> Result<Work, String> {
        crate::made::Maker::start(ch, pattern, shared).map(Work::Pattern)
    }

    pub fn handle(&mut self, message: ToWorker) {
        match self {
            Work::Ladder(channel) => channel.handle(message),
            Work::Stills(stills) => match message {
                ToWorker::Still { still, .. } => stills.make(still),
                ToWorker::Forget { of, .. } => stills.forget(of),
                _ => {}
            },
            // A test picture takes no orders but `Close`.
            Work::Pattern(_) => {}
        }
    }

    /// Everything inside comes out.
    pub fn close(self) {
        match self {
            Work::Ladder(channel) => channel.close(),
            Work::Stills(stills) => stills.close(),
            Work::Pattern(maker) => maker.close(),
        }
    }
}

/// Without the cargo feature `software` nothing can be opened here.
#[cfg(not(feature = "software"))]
pub enum Work {}

#[cfg(not(feature = "software"))]
impl Work {
    const REFUSAL: &str = "this rung-worker was built without the software backend: it can neither decode nor encode";

    /// # Errors
    /// Always.
    pub fn open(_: u32, _: Open, _: &Arc<Shared>) -> Result<Work, String> {
        Err(Self::REFUSAL.to_owned())
    }

    /// # Errors
    /// Always.
    pub fn stills(_: u32, _: &Arc<Shared>) -> Result<Work, String> {
        Err(Self::REFUSAL.to_owned())
    }

    /// # Errors
    /// Always.
    pub fn pattern(_: u32, _: Pattern, _: &Arc<Shared>) -> Result<Work, String> {
        Err(Self::REFUSAL.to_owned())
    }

    pub fn handle(&mut self, _: ToWorker) {
        match *self {}
    }

    pub fn close(self) {
        match self {}
    }
}

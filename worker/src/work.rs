//! What a channel's place in a worker can be busy with: its ladder, single pictures of many, or the demo's test picture.
//! The one place where a backend is chosen.

use rung::pixels::protocol::{Backend, Open, Pattern, ToWorker};
use std::sync::Arc;

use crate::shared::Shared;

pub enum Work {
    Ladder(crate::channel::Channel),
    #[cfg(feature = "software")]
    Stills(crate::stills::Stills),
    #[cfg(feature = "software")]
    Pattern(crate::made::Maker),
}

impl Work {
    /// # Errors
    /// A sentence: what could not be opened.
    pub fn open(ch: u32, open: Open, shared: &Arc<Shared>) -> Result<Work, String> {
        let backend = open.video.as_ref().map(|video| video.backend).unwrap_or_default();
        let gpu = match backend {
            Backend::Software => None,
            Backend::GpuDecode | Backend::Gpu => Some(shared.process().gpu()?),
        };
        crate::channel::Channel::open(ch, open, shared, gpu.as_ref()).map(Work::Ladder)
    }

    /// # Errors
    /// A sentence: what could not be opened.
    #[cfg(feature = "software")]
    pub fn stills(ch: u32, shared: &Arc<Shared>) -> Result<Work, String> {
        crate::stills::Stills::start(ch, shared).map(Work::Stills)
    }

    /// # Errors
    /// Always.
    #[cfg(not(feature = "software"))]
    pub fn stills(_: u32, _: &Arc<Shared>) -> Result<Work, String> {
        Err("this rung-worker was built without the software backend: it can decode no single picture".to_owned())
    }

    /// # Errors
    /// A sentence: what could not be opened.
    #[cfg(feature = "software")]
    pub fn pattern(ch: u32, pattern: Pattern, shared: &Arc<Shared>) -> Result<Work, String> {
        crate::made::Maker::start(ch, pattern, shared).map(Work::Pattern)
    }

    /// # Errors
    /// Always.
    #[cfg(not(feature = "software"))]
    pub fn pattern(_: u32, _: Pattern, _: &Arc<Shared>) -> Result<Work, String> {
        Err("this rung-worker was built without the software backend: it can make no test picture".to_owned())
    }

    pub fn handle(&mut self, message: ToWorker) {
        match self {
            Work::Ladder(channel) => channel.handle(message),
            #[cfg(feature = "software")]
            Work::Stills(stills) => match message {
                ToWorker::Still { still, .. } => stills.make(still),
                ToWorker::Forget { of, .. } => stills.forget(of),
                _ => {}
            },
            // A test picture takes no orders but `Close`.
            #[cfg(feature = "software")]
            Work::Pattern(_) => {}
        }
    }

    /// Everything inside comes out.
    pub fn close(self) {
        match self {
            Work::Ladder(channel) => channel.close(),
            #[cfg(feature = "software")]
            Work::Stills(stills) => stills.close(),
            #[cfg(feature = "software")]
            Work::Pattern(maker) => maker.close(),
        }
    }

    /// Nobody wants what is inside any more.
    pub fn abandon(self) {
        match self {
            Work::Ladder(channel) => channel.abandon(),
            #[cfg(feature = "software")]
            Work::Stills(stills) => stills.close(),
            #[cfg(feature = "software")]
            Work::Pattern(maker) => maker.close(),
        }
    }
}

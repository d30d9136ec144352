//! Which call into the driver a thread is in, and since when: a call that hangs can only be seen from outside.

use rung::time::{Mono, SystemClock};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Told by one thread, read by a watchdog. Clones tell the same thing.
#[derive(Clone, Debug)]
pub struct Watch {
    inside: Arc<Inside>,
}

#[derive(Debug)]
struct Inside {
    name: String,
    /// Held for as long as it takes to read or write two words, never through a call.
    call: Mutex<Option<Call>>,
}

/// Since when, and the driver's name for it.
type Call = (Mono, &'static str);

impl Watch {
    /// `name` says whose calls: "encode 720p of channel 3".
    pub fn new(name: impl Into<String>) -> Watch {
        Watch { inside: Arc::new(Inside { name: name.into(), call: Mutex::new(None) }) }
    }

    pub fn name(&self) -> &str {
        &self.inside.name
    }

    /// The thread is in this call until what it gets here is dropped. A call made from inside another one (a callback's)
    /// is told until it ends; then the outer one again, since its own start.
    #[must_use = "dropped at once it says that the call is over"]
    pub fn enter(&self, call: &'static str) -> Busy<'_> {
        let outer = self.call().replace((SystemClock::mono(), call));
        Busy { watch: self, outer }
    }

    /// A callback goes on to work of its own: no call is told until what it gets here is dropped, then the outer one again,
    /// since that instant.
    #[must_use = "dropped at once it says that the thread is back in the call"]
    pub fn leave(&self) -> Away<'_> {
        let outer = self.call().take();
        Away { watch: self, outer }
    }

    /// The call that the thread is in now, and since when. Whoever asks judges how long is too long.
    pub fn stuck_since(&self) -> Option<(Mono, &'static str)> {
        *self.call()
    }

    fn call(&self) -> MutexGuard<'_, Option<Call>> {
        self.inside.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, the thread is in the call.
#[derive(Debug)]
pub struct Busy<'a> {
    watch: &'a Watch,
    outer: Option<Call>,
}

/// While it lives, a callback of the call does its own work.
#[derive(Debug)]
pub struct Away<'a> {
    watch: &'a Watch,
    outer: Option<Call>,
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        *self.watch.call() = self.outer.map(|(_, call)| (SystemClock::mono(), call));
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        *self.watch.call() = self.outer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn a_call_that_hangs_is_seen_from_another_thread_and_is_gone_when_it_ends() {
        let watch = Watch::new("encode 720p");
        assert_eq!(watch.stuck_since(), None);
        let (inside, entered) = sync_channel(0);
        let (let_go, end) = sync_channel::<()>(0);
        let told = watch.clone();
        let before = SystemClock::mono();
        let thread = std::thread::spawn(move || {
            let _busy = told.enter("nvEncLockBitstream");
            inside.send(()).unwrap();
            end.recv().unwrap();
        });
        entered.recv().unwrap();
        let (since, call) = watch.stuck_since().expect("the thread is inside");
        assert_eq!(call, "nvEncLockBitstream");
        assert!(before <= since && since <= SystemClock::mono(), "it began between then and now");
        let_go.send(()).unwrap();
        thread.join().unwrap();
        assert_eq!(watch.stuck_since(), None);
    }

    #[test]
    fn the_outer_call_is_told_again_with_its_own_start() {
        let watch = Watch::new("decode");
        let outer = watch.enter("cuvidParseVideoData");
        let began = watch.stuck_since();
        drop(watch.enter("cuvidDecodePicture"));
        assert_eq!(watch.stuck_since(), began);
        assert_eq!(began.map(|(_, call)| call), Some("cuvidParseVideoData"));
        drop(outer);
        assert_eq!(watch.stuck_since(), None);
    }
}

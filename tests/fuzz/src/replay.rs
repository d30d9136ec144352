//! One input under watch.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Duration;

use rung::time::SystemClock;

use crate::Target;

/// What an input cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Most memory that was held at a time, bytes.
    pub memory: u64,
    pub took: Duration,
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
    /// A target runs on this thread.
    static REPLAYS: Cell<bool> = const { Cell::new(false) };
}

/// Panics of targets are told by who replays, not on standard error; others as ever.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !REPLAYS.get() {
                return others(info);
            }
            let place = info.location().map_or_else(String::new, |at| format!(" ({}:{})", at.file(), at.line()));
            let words = info.payload_as_str().unwrap_or("a panic without words");
            SAID.with_borrow_mut(|said| *said = format!("{words}{place}"));
        }));
    });
}

/// Gives `input` to a target.
///
/// # Errors
/// A sentence: the invariant that did not hold, or the memory that was taken.
pub fn replay(target: &Target, input: &[u8]) -> Result<Cost, String> {
    listen();
    let since = SystemClock::mono();
    let mut ended = Ok(());
    REPLAYS.set(true);
    let used = allocation_counter::measure(|| {
        ended = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    });
    REPLAYS.set(false);
    if ended.is_err() {
        return Err(SAID.with_borrow(Clone::clone));
    }
    let allowed = (target.memory.0 + target.memory.1 * input.len()) as u64;
    if used.bytes_max > allowed {
        return Err(format!(
            "it held {} bytes at a time, {allowed} are allowed for {} bytes",
            used.bytes_max,
            input.len()
        ));
    }
    Ok(Cost { memory: used.bytes_max, took: SystemClock::mono().since(since) })
}

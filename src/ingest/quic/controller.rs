//! The publisher's congestion window: what its own rate needs, and no more.
//!
//! A live source has one rate. Controllers that look for the link's rate either shrink under random loss until the source
//! no longer fits, or fill the link's queue. Here the window is the source's rate times the round trip and 50 ms; what
//! does not get through at that is reset by the publisher, not sent later.
//!
//! A link that carries less than the source makes the round trip longer with every byte that waits in its queue; a window
//! that followed would fill that queue to its end. Of the measured round trip only so much counts as a path may jitter.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

#[expect(clippy::disallowed_types, reason = "quinn's controllers take Instant; this one does not look at it")]
type Instant = std::time::Instant;

/// Beyond the round trip: acknowledgements are delayed, and a key frame is larger than its share.
const SLACK: Duration = Duration::from_millis(50);
/// A round trip that is longer than the shortest by more than this waits in a queue, which is not to grow.
const JITTER: Duration = Duration::from_millis(25);
/// Until one was measured.
const ASSUMED_RTT: Duration = Duration::from_millis(100);
/// Packets that always fit.
const PACKETS_MIN: u64 = 10;

/// Bits per second that the publisher may use, shared with whoever measures or sets it.
#[derive(Clone, Debug)]
pub(super) struct Rate(Arc<AtomicU64>);

impl Rate {
    pub(super) fn new(bits_per_second: u64) -> Rate {
        Rate(Arc::new(AtomicU64::new(bits_per_second)))
    }

    pub(super) fn set(&self, bits_per_second: u64) {
        self.0.store(bits_per_second, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Makes a window for each path.
#[derive(Debug)]
pub(super) struct LiveWindows(pub(super) Rate);

impl ControllerFactory for LiveWindows {
    fn build(self: Arc<Self>, _now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(LiveWindow { rate: self.0.clone(), rtt: ASSUMED_RTT, mtu })
    }
}

#[derive(Clone, Debug)]
struct LiveWindow {
    rate: Rate,
    rtt: Duration,
    mtu: u16,
}

/// Bytes: `rate` times (`rtt` and the slack).
fn window(rate: u64, rtt: Duration, mtu: u16) -> u64 {
    let span = u64::try_from((rtt + SLACK).as_micros()).unwrap_or(u64::MAX);
    let bytes = (rate / 8).saturating_mul(span) / 1_000_000;
    bytes.max(PACKETS_MIN * u64::from(mtu))
}

impl Controller for LiveWindow {
    fn on_ack(&mut self, _now: Instant, _sent: Instant, _bytes: u64, _app_limited: bool, rtt: &RttEstimator) {
        self.rtt = rtt.get().min(rtt.min() + JITTER);
    }

    /// Loss says nothing about the source's rate.
    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _is_persistent: bool, _lost_bytes: u64) {}

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu;
    }

    fn window(&self) -> u64 {
        window(self.rate.get(), self.rtt, self.mtu)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        window(self.rate.get(), ASSUMED_RTT, self.mtu)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_the_rate_times_the_round_trip_and_its_slack() {
        let ms = Duration::from_millis;
        assert_eq!(window(6_000_000, ms(50), 1_200), 75_000);
        assert_eq!(window(6_000_000, ms(100), 1_200), 112_500);
        assert_eq!(window(100_000, ms(1), 1_400), 14_000, "ten packets at least");
        assert_eq!(window(u64::MAX, Duration::MAX - SLACK, 1_200), u64::MAX / 1_000_000);
    }

    #[test]
    fn a_new_rate_holds_at_once_and_loss_changes_nothing() {
        let rate = Rate::new(8_000_000);
        let now = quinn_now();
        let mut path = Arc::new(LiveWindows(rate.clone())).build(now, 1_200);
        assert_eq!((path.window(), path.initial_window()), (150_000, 150_000));
        path.on_congestion_event(now, now, true, 1_000_000);
        assert_eq!(path.window(), 150_000);
        rate.set(4_000_000);
        assert_eq!(path.clone_box().window(), 75_000);
    }

    #[expect(clippy::disallowed_types, reason = "what quinn would hand in")]
    fn quinn_now() -> Instant {
        std::time::Instant::now()
    }
}

//! Where one session's worker runs over its lives: the first choice, a step down for every loss, a step up again when
//! things have been quiet. Sans-IO: losses and time in, placements out.
//!
//! Steps: 0 the first choice; 1 another worker on the same GPU, once; 2 another GPU; 3 the software backend with fewer
//! renditions, if the channel may run there; 4 nothing: what is passed through goes on, the rest is GAP.

use std::sync::Arc;
use std::time::Duration;

use super::devices::{Devices, Placement, Refusal, Request};
use crate::media::channel::{BackendPolicy, ChannelName, SessionId};
use crate::pixels::protocol::{Backend, Lost};
use crate::time::Mono;

/// A second loss on one GPU within this: it is not tried there a third time.
const TWICE: Duration = Duration::from_secs(60);
/// Quiet for this long, and a better place is looked for.
const STABLE: Duration = Duration::from_secs(30);
/// The longest wait before it goes up again to a place that it soon lost.
const STABLE_MAX: Duration = Duration::from_secs(600);
/// A session that has no place asks again so often.
const AGAIN: Duration = Duration::from_secs(5);

/// One session's place.
pub struct Placer {
    devices: Arc<Devices>,
    channel: ChannelName,
    session: SessionId,
    policy: BackendPolicy,
    request: Option<Request>,
    place: Option<Placement>,
    /// What it had before the first loss.
    first: Backend,
    step: u8,
    /// On which GPUs it was lost of late.
    losses: Vec<(u32, Mono)>,
    /// When it went up last, and how quiet it must be before it does so again.
    risen: Option<Mono>,
    stable: Duration,
    /// Since when nothing was lost.
    quiet: Mono,
    asked: Mono,
}

impl Placer {
    pub fn new(
        devices: Arc<Devices>,
        channel: ChannelName,
        session: SessionId,
        policy: BackendPolicy,
        now: Mono,
    ) -> Placer {
        Placer {
            devices,
            channel,
            session,
            policy,
            request: None,
            place: None,
            first: Backend::Software,
            step: 0,
            losses: Vec::new(),
            risen: None,
            stable: STABLE,
            quiet: now,
            asked: now,
        }
    }

    /// The present place; `None`: it has none.
    pub fn place(&self) -> Option<&Placement> {
        self.place.as_ref()
    }

    /// A place was asked for.
    pub fn is_asked(&self) -> bool {
        self.request.is_some()
    }

    /// How far it came down.
    pub fn step(&self) -> u8 {
        self.step
    }

    /// The software backend stands in for a GPU: it makes fewer renditions.
    pub fn is_makeshift(&self) -> bool {
        self.step > 0 && self.place.as_ref().is_some_and(|place| place.backend == Backend::Software)
    }

    /// The first choice.
    ///
    /// # Errors
    /// No place: the limiting resource. It is asked for again.
    pub fn choose(&mut self, now: Mono, request: Request) -> Result<(), Refusal> {
        self.request = Some(request);
        self.take(now, &[]).inspect_err(|_| self.step = 4)?;
        self.step = 0;
        self.first = self.place.as_ref().map_or(Backend::Software, |place| place.backend);
        Ok(())
    }

    /// Its worker is gone. `lost`: how much with it; `why`: in words. False: it was on no GPU, and starts over where it is.
    ///
    /// # Errors
    /// There is no other place now; `retry` finds one.
    pub fn lose(&mut self, now: Mono, lost: Lost, why: &str) -> Result<bool, Refusal> {
        let Some(gpu) = self.place.as_ref().and_then(|place| place.gpu) else {
            return Ok(false);
        };
        self.losses.retain(|(_, at)| now - *at < TWICE);
        let soon = self.risen.take().is_some_and(|at| now - at < TWICE);
        self.stable = if soon { (self.stable * 2).min(STABLE_MAX) } else { STABLE };
        let again = !self.losses.is_empty();
        self.losses.push((gpu, now));
        self.quiet = now;
        if lost == Lost::Device {
            self.devices.lost(gpu, why, now);
        }
        if lost == Lost::Process && !again {
            self.step = self.step.max(1);
            return Ok(true);
        }
        let tried: Vec<u32> = self.losses.iter().map(|(gpu, _)| *gpu).collect();
        if self.take(now, &tried).is_err() {
            // Rather one of these once more than nothing, if it is well.
            self.take(now, &[]).inspect_err(|_| self.step = 4)?;
            self.step = self.step.max(1);
            return Ok(true);
        }
        self.step = self.below();
        Ok(true)
    }

    /// Away from a GPU that became ill while its worker still runs. True: to the new place, which may be a worse one; with
    /// no other place it stays.
    pub fn flee(&mut self, now: Mono) -> bool {
        let (Some(gpu), Some(request)) = (self.place.as_ref().and_then(|place| place.gpu), &self.request) else {
            return false;
        };
        if now - self.asked < AGAIN || self.devices.illness(gpu).is_none() {
            return false;
        }
        self.asked = now;
        if self.devices.room(request, self.policy, &[gpu]).is_err() || self.take(now, &[gpu]).is_err() {
            return false;
        }
        self.losses.push((gpu, now));
        self.quiet = now;
        self.step = self.below();
        true
    }

    /// The step of a place that is not the first.
    fn below(&self) -> u8 {
        let software = self.place.as_ref().is_some_and(|place| place.backend == Backend::Software);
        if software { 3 } else { 2 }
    }

    /// A session without a place looks again, every few seconds. True: it has one now.
    pub fn retry(&mut self, now: Mono) -> bool {
        if self.place.is_some() || self.request.is_none() || now - self.asked < AGAIN {
            return false;
        }
        let found = self.take(now, &[]).is_ok();
        if found {
            self.settle();
        }
        found
    }

    /// A place that is better than the present one, once it has been quiet for long enough. True: it was taken, and the
    /// worker must move there.
    pub fn rise(&mut self, now: Mono) -> bool {
        let Some(place) = self.place.as_ref().filter(|place| self.step > 0 && place.backend < self.first) else {
            if self.step > 0 && self.place.is_some() && now - self.quiet >= STABLE {
                self.step = 0;
            }
            return false;
        };
        if now - self.quiet < self.stable || now - self.asked < AGAIN {
            return false;
        }
        self.asked = now;
        let Some(request) = &self.request else { return false };
        let better = self.devices.room(request, self.policy, &[]).is_ok_and(|found| found.backend > place.backend);
        if !better || self.take(now, &[]).is_err() {
            return false;
        }
        (self.quiet, self.risen) = (now, Some(now));
        self.settle();
        true
    }

    fn settle(&mut self) {
        let backend = self.place.as_ref().map_or(Backend::Software, |place| place.backend);
        self.first = self.first.max(backend);
        self.step = if backend == self.first { 0 } else { 3 };
    }

    fn take(&mut self, now: Mono, avoid: &[u32]) -> Result<(), Refusal> {
        let Some(request) = &self.request else { return Ok(()) };
        self.asked = now;
        self.place = None;
        self.place = Some(self.devices.place(&self.channel, &self.session, request, self.policy, avoid)?);
        Ok(())
    }
}

impl Drop for Placer {
    fn drop(&mut self) {
        self.devices.release(&self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::devices::tests::{channel, gpu, without_encoder};

    fn at(seconds: u64) -> Mono {
        Mono(1) + Duration::from_secs(seconds)
    }

    fn placer(devices: &Arc<Devices>, policy: BackendPolicy) -> Placer {
        let (name, session) = (ChannelName::new("c").unwrap(), SessionId::new(ulid::Ulid::from_parts(1, 1)));
        Placer::new(Arc::clone(devices), name, session, policy, at(0))
    }

    fn place(placer: &Placer) -> (Option<Backend>, Option<u32>, u8) {
        (placer.place().map(|p| p.backend), placer.place().and_then(|p| p.gpu), placer.step())
    }

    #[test]
    fn every_loss_is_a_step_down_and_quiet_brings_it_up_again() {
        let devices = Arc::new(Devices::new(vec![gpu(0, 64), gpu(1, 64)]));
        let mut p = placer(&devices, BackendPolicy::Auto);
        p.choose(at(0), channel()).unwrap();
        assert_eq!(place(&p), (Some(Backend::Gpu), Some(0), 0));
        p.lose(at(10), Lost::Process, "it is gone").unwrap();
        assert_eq!(place(&p), (Some(Backend::Gpu), Some(0), 1), "the same GPU, once");
        p.lose(at(20), Lost::Process, "it is gone").unwrap();
        assert_eq!(place(&p), (Some(Backend::Gpu), Some(1), 2), "another GPU");
        devices.ill(0, "it fell off the bus");
        p.lose(at(21), Lost::Device, "it is gone").unwrap();
        assert_eq!(place(&p), (Some(Backend::Software), None, 3));
        assert!(p.is_makeshift());
        devices.ill(1, "it fell off the bus");
        assert!((22..80).all(|t| !p.rise(at(t))), "nowhere to go");
        devices.well(1);
        assert!(p.rise(at(90)));
        assert_eq!(place(&p), (Some(Backend::Gpu), Some(1), 0));
    }

    #[test]
    fn a_channel_that_must_be_on_a_gpu_never_runs_on_the_cpu() {
        let devices = Arc::new(Devices::new(vec![gpu(0, 64)]));
        let mut p = placer(&devices, BackendPolicy::Gpu);
        p.choose(at(0), channel()).unwrap();
        for t in 1..9 {
            p.lose(at(t), Lost::Process, "it is gone").unwrap();
        }
        assert_eq!(place(&p), (Some(Backend::Gpu), Some(0), 1), "there is no other GPU, and this one is well");
        devices.ill(0, "it fell off the bus");
        let refusal = p.lose(at(9), Lost::Device, "it is gone").unwrap_err();
        assert_eq!(refusal.to_string(), "GPU 0: it fell off the bus");
        assert_eq!(place(&p), (None, None, 4));
        assert!((10..60).all(|t| !p.retry(at(t))));
        devices.well(0);
        assert!(p.retry(at(70)));
        assert_eq!(place(&p), (Some(Backend::Gpu), Some(0), 0));
    }

    #[test]
    fn a_lone_quiet_hour_forgets_a_loss_and_what_leaves_makes_room() {
        let devices = Arc::new(Devices::new(vec![without_encoder(0)]));
        let mut p = placer(&devices, BackendPolicy::Auto);
        p.choose(at(0), channel()).unwrap();
        assert_eq!(place(&p), (Some(Backend::GpuDecode), Some(0), 0));
        p.lose(at(1), Lost::Process, "it is gone").unwrap();
        assert_eq!(p.step(), 1);
        assert!(!p.rise(at(40)), "it is where it was");
        assert_eq!(p.step(), 0);
        assert_eq!(devices.booked()[0].2, 1);
        drop(p);
        assert_eq!(devices.booked()[0].2, 0);
    }

    #[test]
    fn an_ill_gpu_is_left_while_it_still_works_if_there_is_another_place() {
        let devices = Arc::new(Devices::new(vec![gpu(0, 64), gpu(1, 64)]));
        let (mut may, mut must) = (placer(&devices, BackendPolicy::Auto), placer(&devices, BackendPolicy::Gpu));
        may.choose(at(0), channel()).unwrap();
        devices.ill(1, "Xid 95");
        must.session = SessionId::new(ulid::Ulid::from_parts(2, 1));
        must.choose(at(0), channel()).unwrap();
        assert!(!may.flee(at(10)), "it is on the other one");
        devices.well(1);
        devices.ill(0, "Xid 95");
        assert!(may.flee(at(20)) && must.flee(at(20)));
        assert_eq!((place(&may), place(&must)), ((Some(Backend::Gpu), Some(1), 2), (Some(Backend::Gpu), Some(1), 2)));
        devices.ill(1, "Xid 95");
        assert!(!may.flee(at(22)), "not in haste: it works");
        assert!(may.flee(at(26)));
        assert_eq!(place(&may), (Some(Backend::Software), None, 3));
        assert!((26..60).all(|t| !must.flee(at(t))), "there is no other place");
        assert_eq!(place(&must), (Some(Backend::Gpu), Some(1), 2));
        assert_eq!(devices.booked()[1].2, 1, "it keeps what it has booked");
        devices.well(0);
        assert!(must.flee(at(61)) && may.rise(at(61)));
        assert_eq!((place(&must).1, place(&may).1), (Some(0), Some(0)));
    }

    #[test]
    fn gpus_that_lose_it_one_after_the_other_are_not_tried_in_turns() {
        let devices = Arc::new(Devices::new(vec![gpu(0, 64), gpu(1, 64)]));
        let mut p = placer(&devices, BackendPolicy::Auto);
        p.choose(at(0), channel()).unwrap();
        p.lose(at(1), Lost::Channel, "no more encode sessions").unwrap();
        assert_eq!(place(&p), (Some(Backend::Gpu), Some(1), 2));
        p.lose(at(2), Lost::Channel, "no more encode sessions").unwrap();
        assert_eq!(place(&p), (Some(Backend::Software), None, 3));
    }

    #[test]
    fn a_better_place_that_does_not_last_is_tried_less_and_less_often() {
        let devices = Arc::new(Devices::new(vec![gpu(0, 64)]));
        let mut p = placer(&devices, BackendPolicy::Auto);
        p.choose(at(0), channel()).unwrap();
        let mut now = 1;
        let mut waits = Vec::new();
        for _ in 0..8 {
            p.lose(at(now), Lost::Channel, "no more encode sessions").unwrap();
            assert_eq!(place(&p).0, Some(Backend::Software));
            let risen = (now..).find(|t| p.rise(at(*t))).expect("some time");
            waits.push(risen - now);
            now = risen + 1;
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600, 600]);
    }
}

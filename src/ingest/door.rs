//! One door for all protocols: who asks is checked the same way (tries, then the directory, then the leg), and one
//! table says who is on air. Ports of any thread share it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::admission::{Admission, Directory, Refusal, Tries};
use super::source::{Claim, Leg, PublisherId, Sources, next_publisher};
use crate::media::channel::{ChannelName, Takeover};
use crate::telemetry::Redacted;
use crate::time::Mono;

/// A denied caller hears of it after this long, whatever was wrong.
pub(super) const DENIAL_DELAY: Duration = Duration::from_millis(100);
/// Denied callers of a port that wait for their answer; more are told at once.
pub(super) const DENIALS_MAX: usize = 256;
/// An address whose input was unusable stays out for this long, so that a retrying encoder makes no endless sessions.
pub(super) const INVALID_INPUT_BLOCK: Duration = Duration::from_secs(10);

/// A well-formed request to publish. Nothing in it is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub channel: String,
    pub key: Redacted<String>,
    pub leg: Leg,
}

impl Wanted {
    /// # Errors
    /// `Denied` for what names no channel or no key, as for a wrong one.
    pub(super) fn new(channel: &str, key: &str, leg: Leg) -> Result<Wanted, Refusal> {
        if channel.is_empty() || key.is_empty() {
            return Err(Refusal::Denied);
        }
        Ok(Wanted { channel: channel.to_owned(), key: Redacted::new(key.to_owned()), leg })
    }
}

/// # Errors
/// `Unsupported` for anything but `a` and `b`.
pub(super) fn parse_leg(text: &str) -> Result<Leg, Refusal> {
    match text {
        "a" => Ok(Leg::A),
        "b" => Ok(Leg::B),
        _ => Err(Refusal::Unsupported("a leg is a or b")),
    }
}

/// What a publisher may have, until its handshake is done: nothing is taken yet.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) admission: Admission,
    pub(super) leg: Leg,
}

/// Who is on air, and who asked too often.
pub struct Door {
    directory: Arc<dyn Directory>,
    publishers_max: usize,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    sources: Sources,
    tries: Tries,
    /// When media last came from each publisher that is on air: nanoseconds of `Mono`.
    heard: BTreeMap<PublisherId, Arc<AtomicU64>>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("publishers", &self.publishers()).finish_non_exhaustive()
    }
}

impl Door {
    /// `publishers_max`: of all protocols together.
    pub fn new(directory: Arc<dyn Directory>, publishers_max: usize) -> Arc<Door> {
        Arc::new(Door { directory, publishers_max, book: Mutex::default() })
    }

    /// Whether a publisher may come in. `wanted`: what it asked for, or what is wrong with how it asked.
    ///
    /// # Errors
    /// What it is told, and the channel where it is known. `Denied` was counted against `address`.
    pub(super) fn ask(
        &self,
        now: Mono,
        address: IpAddr,
        wanted: Result<Wanted, Refusal>,
        beside: Option<PublisherId>,
    ) -> Result<Pass, (Option<ChannelName>, Refusal)> {
        let asked = self.asked(now, address, wanted, beside);
        if matches!(asked, Err((_, Refusal::Denied))) {
            self.failed(now, address);
        }
        asked
    }

    fn asked(
        &self,
        now: Mono,
        address: IpAddr,
        wanted: Result<Wanted, Refusal>,
        beside: Option<PublisherId>,
    ) -> Result<Pass, (Option<ChannelName>, Refusal)> {
        if self.book().tries.blocked(now, address) {
            return Err((None, Refusal::TooManyTries));
        }
        let wanted = wanted.map_err(|refusal| (None, refusal))?;
        let admitted = self.directory.admit(&wanted.channel, wanted.key.expose(), wanted.leg, address.to_canonical());
        let admission = admitted.map_err(|refusal| {
            let known = refusal != Refusal::Denied;
            (ChannelName::new(&wanted.channel).ok().filter(|_| known), refusal)
        })?;
        let pass = Pass { admission, leg: wanted.leg };
        let book = self.book();
        if beside.is_some() && book.sources.holder(&pass.admission.channel, pass.leg) == beside {
            return Ok(pass);
        }
        match book.claim(now, &pass, self.publishers_max) {
            Ok(_) => Ok(pass),
            Err(refusal) => Err((Some(pass.admission.channel), refusal)),
        }
    }

    /// Whether a channel's source that this box calls may have leg a. It never takes the leg from a publisher that is heard,
    /// whatever `takeover` says: it was not the source that came back.
    ///
    /// # Errors
    /// Why not now.
    pub(super) fn ask_source(&self, now: Mono, channel: &ChannelName) -> Result<Pass, Refusal> {
        let admission = Admission { takeover: Takeover::IfSilent, ..self.directory.admit_source(channel, Leg::A)? };
        let pass = Pass { admission, leg: Leg::A };
        self.book().claim(now, &pass, self.publishers_max).map(|_| pass)
    }

    /// Takes the leg. Whoever held it is named by the result, and has to be closed by whoever has it.
    ///
    /// # Errors
    /// Another publisher was quicker since `ask`.
    pub(super) fn enter(self: &Arc<Door>, now: Mono, pass: Pass) -> Result<Held, Refusal> {
        let mut book = self.book();
        let replaces = book.claim(now, &pass, self.publishers_max)?;
        let (publisher, heard) = (next_publisher(), Arc::new(AtomicU64::new(now.0)));
        book.heard.insert(publisher, Arc::clone(&heard));
        book.sources.hold(pass.admission.channel.clone(), pass.leg, publisher);
        drop(book);
        let Pass { admission, leg } = pass;
        Ok(Held { door: Arc::clone(self), publisher, channel: admission.channel, leg, replaces, heard })
    }

    /// A wrong key, passphrase or channel.
    pub(super) fn failed(&self, now: Mono, address: IpAddr) {
        self.book().tries.failed(now, address);
    }

    /// Nobody from this address is let in for `span`.
    pub(super) fn block(&self, now: Mono, address: IpAddr, span: Duration) {
        self.book().tries.block(now, address, span);
    }

    /// Whether another publisher has the leg that `publisher` took. A port's word that it came may be older than that.
    pub fn is_replaced(&self, channel: &ChannelName, leg: Leg, publisher: PublisherId) -> bool {
        self.book().sources.holder(channel, leg).is_some_and(|holder| holder != publisher)
    }

    /// Publishers of all protocols.
    pub fn publishers(&self) -> usize {
        self.book().heard.len()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Whom the newcomer replaces, if anybody.
    fn claim(&self, now: Mono, pass: &Pass, publishers_max: usize) -> Result<Option<PublisherId>, Refusal> {
        let heard = |id| self.heard.get(&id).map_or(Mono(0), |at| Mono(at.load(Ordering::Relaxed)));
        match self.sources.claim(now, &pass.admission.channel, pass.leg, pass.admission.takeover, heard) {
            Claim::Free if self.heard.len() >= publishers_max => {
                Err(Refusal::NoCapacity(format!("{publishers_max} publishers are connected, which is the limit")))
            }
            Claim::Free => Ok(None),
            Claim::Replaces(old) => Ok(Some(old)),
            Claim::Busy => Err(Refusal::Busy),
        }
    }
}

/// A leg that a publisher has. Dropping it frees the leg, unless another publisher took it meanwhile.
#[derive(Debug)]
pub(super) struct Held {
    door: Arc<Door>,
    pub(super) publisher: PublisherId,
    pub(super) channel: ChannelName,
    pub(super) leg: Leg,
    /// Who held it before.
    pub(super) replaces: Option<PublisherId>,
    heard: Arc<AtomicU64>,
}

impl Held {
    /// Media came.
    pub(super) fn hear(&self, now: Mono) {
        self.heard.store(now.0, Ordering::Relaxed);
    }

    /// When media last came; at first, when it was let in.
    pub(super) fn heard(&self) -> Mono {
        Mono(self.heard.load(Ordering::Relaxed))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut book = self.door.book();
        book.sources.release(&self.channel, self.leg, self.publisher);
        book.heard.remove(&self.publisher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::admission::{Roster, RosterEntry};
    use crate::media::key::KeyDigest;

    const START: Mono = Mono(10_000_000_000);

    fn door(publishers_max: usize) -> Arc<Door> {
        let entry = |takeover| RosterEntry { key: KeyDigest::of("key"), takeover, stopped: false, passphrase: None };
        let channels = [("one", Takeover::IfSilent), ("two", Takeover::IfSilent), ("newest", Takeover::Newest)];
        let named = channels.map(|(name, takeover)| (ChannelName::new(name).unwrap(), entry(takeover)));
        Door::new(Arc::new(Roster(BTreeMap::from(named))), publishers_max)
    }

    fn ask(door: &Door, now: Mono, channel: &str, key: &str) -> Result<Pass, Refusal> {
        let wanted = Wanted::new(channel, key, Leg::A);
        door.ask(now, "192.0.2.1".parse().unwrap(), wanted, None).map_err(|(_, refusal)| refusal)
    }

    fn enter(door: &Arc<Door>, now: Mono, channel: &str) -> Result<Held, Refusal> {
        door.enter(now, ask(door, now, channel, "key")?)
    }

    #[test]
    fn a_leg_is_free_again_when_its_publisher_is_dropped_and_not_when_it_was_replaced() {
        let door = door(9);
        let old = enter(&door, START, "newest").unwrap();
        assert!(!door.is_replaced(&old.channel, Leg::A, old.publisher));
        let new = enter(&door, START, "newest").unwrap();
        assert_eq!((new.replaces, door.publishers()), (Some(old.publisher), 2));
        assert!(door.is_replaced(&old.channel, Leg::A, old.publisher));
        drop(old);
        assert!(door.is_replaced(&new.channel, Leg::A, PublisherId(0)), "the old one's end frees nothing");
        let channel = new.channel.clone();
        drop(new);
        assert_eq!((door.is_replaced(&channel, Leg::A, PublisherId(0)), door.publishers()), (false, 0));
    }

    #[test]
    fn two_that_may_both_come_in_are_not_both_let_in() {
        let door = door(9);
        let (first, second) = (ask(&door, START, "one", "key").unwrap(), ask(&door, START, "one", "key").unwrap());
        let held = door.enter(START, first).unwrap();
        assert_eq!(door.enter(START, second).unwrap_err(), Refusal::Busy);
        held.hear(START + Duration::from_secs(5));
        assert_eq!(enter(&door, START + Duration::from_secs(6), "one").unwrap_err(), Refusal::Busy, "it was heard");
        assert_eq!(enter(&door, START + Duration::from_secs(7), "one").unwrap().replaces, Some(held.publisher));
    }

    #[test]
    fn the_limit_is_of_all_and_whoever_takes_over_needs_no_room() {
        let door = door(2);
        let _one = enter(&door, START, "one").unwrap();
        let _newest = enter(&door, START, "newest").unwrap();
        let full = enter(&door, START, "two").unwrap_err();
        assert!(matches!(&full, Refusal::NoCapacity(what) if what.contains("2 publishers")), "{full}");
        assert!(enter(&door, START, "newest").unwrap().replaces.is_some());
    }

    #[test]
    fn a_source_that_is_called_needs_no_key_and_takes_no_leg_from_a_publisher_that_is_heard() {
        let door = door(9);
        let newest = ChannelName::new("newest").unwrap();
        let held = enter(&door, START, "newest").unwrap();
        assert_eq!(door.ask_source(START, &newest).unwrap_err(), Refusal::Busy);
        let later = START + Duration::from_secs(2);
        let source = door.enter(later, door.ask_source(later, &newest).unwrap()).unwrap();
        assert_eq!(source.replaces, Some(held.publisher), "it was silent");
        assert_eq!(enter(&door, later, "newest").unwrap().replaces, Some(source.publisher), "a newer one comes in");
        assert_eq!(door.ask_source(later, &ChannelName::new("unknown").unwrap()).unwrap_err(), Refusal::Denied);
    }

    #[test]
    fn only_what_is_denied_counts_against_an_address() {
        let door = door(9);
        let _one = enter(&door, START, "one").unwrap();
        for _ in 0..30 {
            assert_eq!(ask(&door, START, "one", "key").unwrap_err(), Refusal::Busy);
        }
        for _ in 0..10 {
            assert_eq!(ask(&door, START, "one", "wrong").unwrap_err(), Refusal::Denied);
        }
        assert_eq!(ask(&door, START, "two", "key").unwrap_err(), Refusal::TooManyTries);
        let later = START + Duration::from_secs(60);
        assert!(ask(&door, later, "two", "key").is_ok());
        door.block(later, "192.0.2.1".parse().unwrap(), INVALID_INPUT_BLOCK);
        assert_eq!(ask(&door, later, "two", "key").unwrap_err(), Refusal::TooManyTries);
    }
}

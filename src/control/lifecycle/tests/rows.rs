//! One test per row of the tables of states, named by it; then what both tables say below them.

use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::bench::{Bench, KEY, effects, told};
use crate::control::lifecycle::{
    ChannelWrite, Code, Command, Dismissal, Door, Effect, Fact, Input, Others, Publish, Step, create, deadline,
    read_new, recover, step,
};
use crate::control::record::{
    ChannelState, EndedReason, ErrorCause, Input as InputState, SessionState, StreamKey, Utc, What,
};
use crate::media::channel::{Leg, PublisherId, Takeover};
use crate::media::key::Passphrase;
use crate::time::Wall;

/// Where publishers come from.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn news() -> serde_json::Value {
    json!({ "name": "news" })
}

fn manual() -> serde_json::Value {
    json!({ "name": "news", "activation": "manual" })
}

fn update(patch: serde_json::Value) -> Command {
    Command::Update { patch, if_match: None }
}

fn ended(bench: &Bench, reason: EndedReason) {
    let last = bench.ended.last().expect("a session ended");
    assert_eq!((last.state, last.ended_reason), (SessionState::Ended, Some(reason)));
    assert!(last.publishers.is_empty(), "nobody feeds it any more");
}

// ── channel ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn channel_create() {
    let config = || read_new(&news()).unwrap();
    let key = || StreamKey::of(KEY, Utc::default());
    let made = create(config(), key(), Others { count: 999, name_taken: false }, Wall(0), &mut || 1).unwrap();
    assert_eq!((told(&made), effects(&made)), (vec!["channel.created"], vec!["declare"]));
    let ChannelWrite::Put(channel) = &made.channel else { panic!("it is written") };
    assert_eq!((channel.state, channel.stream_keys.len(), channel.revision), (ChannelState::Idle, 1, 1));
    let json = serde_json::to_string(&made.events).unwrap();
    assert!(!json.contains(&key().digest.to_hex()), "events go to strangers: no digest in them");
    for (others, code) in [
        (Others { count: 1, name_taken: true }, Code::NameTaken),
        (Others { count: crate::media::limits::CHANNELS_MAX, name_taken: false }, Code::TooManyChannels),
    ] {
        assert_eq!(create(config(), key(), others, Wall(0), &mut || 1).unwrap_err().code, code);
    }
}

#[test]
fn channel_idle_publish() {
    let mut bench = Bench::new(&news());
    let made = bench.publish(Leg::A, 1);
    assert_eq!(told(&made), ["session.created", "channel.active"]);
    let begin = Effect::Begin { session: bench.session(), leg: Leg::A, publisher: PublisherId(1) };
    assert_eq!((made.effects, bench.channel.state), (vec![begin], ChannelState::Active));
    // Guards: the key, and activation by hand.
    let door = Door::of(&bench.channel);
    assert!(door.admit(KEY, Leg::A, HERE, bench.now).is_ok());
    for door in [door, Door::absent()] {
        let code = door.admit("abcdefghijklmnopqrstuvwx13", Leg::A, HERE, bench.now).unwrap_err().code;
        assert_eq!((code, code.srt()), (Code::Denied, Some(1401)));
    }
    let mut bench = Bench::new(&manual());
    let publish = Input::Publish(Publish { leg: Leg::A, publisher: PublisherId(1) });
    let refusal = bench.try_send(publish).unwrap_err();
    assert_eq!((refusal.code, refusal.code.srt()), (Code::NotStarted, Some(1403)));
    assert_eq!(Door::of(&bench.channel).admit(KEY, Leg::A, HERE, bench.now), Err(refusal));
}

#[test]
fn channel_idle_start() {
    let mut bench = Bench::new(&manual());
    let made = bench.command(Command::Start);
    assert_eq!((told(&made), effects(&made)), (vec!["channel.started"], vec!["declare"]));
    assert!(bench.channel.armed && bench.channel.state == ChannelState::Idle);
    bench.publish(Leg::A, 1);
    bench.command(Command::EndSession(bench.session()));
    assert!(bench.channel.armed, "armed until it is stopped");
    bench.publish(Leg::A, 2);
}

#[test]
fn channel_active_session_ended() {
    let mut bench = Bench::live(&news());
    let session = bench.session();
    let made = bench.command(Command::EndSession(session.clone()));
    assert_eq!(told(&made), ["session.ended", "channel.idle"]);
    assert_eq!(made.effects, [Effect::End { session: session.clone(), reason: EndedReason::UserStop }]);
    assert_eq!(bench.channel.state, ChannelState::Idle);
    assert_eq!(bench.command(Command::EndSession(session)), Step::default(), "twice is once");
}

#[test]
fn channel_active_stop() {
    let mut bench = Bench::live(&news());
    let made = bench.command(Command::Stop);
    assert_eq!(told(&made), ["session.ended", "channel.stopped"]);
    assert_eq!(effects(&made), ["declare", "end"], "the door closes first");
    ended(&bench, EndedReason::UserStop);
    assert_eq!(bench.channel.state, ChannelState::Stop);
}

#[test]
fn channel_idle_stop() {
    let mut bench = Bench::new(&manual());
    bench.command(Command::Start);
    let made = bench.command(Command::Stop);
    assert_eq!((told(&made), bench.channel.state), (vec!["channel.stopped"], ChannelState::Stop));
    assert!(!bench.channel.armed);
}

#[test]
fn channel_stop_start() {
    let mut bench = Bench::new(&news());
    bench.command(Command::Stop);
    let made = bench.command(Command::Start);
    assert_eq!((told(&made), effects(&made)), (vec!["channel.started"], vec!["declare"]));
    assert_eq!((bench.channel.state, bench.channel.armed), (ChannelState::Idle, false));
    let mut bench = Bench::new(&manual());
    bench.command(Command::Stop);
    bench.command(Command::Start);
    assert!(bench.channel.armed, "to start a channel with manual activation is to arm it");
}

#[test]
fn a_source_is_called_while_publishers_may_come_in() {
    let called = |bench: &Bench| Door::of(&bench.channel).pull.map(|pull| pull.to_string());
    let here = Some("srt://encoder:9000".to_owned());
    let mut bench = Bench::new(&json!({ "name": "news", "pull": "srt://encoder:9000" }));
    assert_eq!(called(&bench), here, "a channel that activates itself needs no start");
    bench.publish(Leg::A, 1);
    assert_eq!(called(&bench), here);
    let made = bench.command(Command::Stop);
    assert_eq!((called(&bench), effects(&made)), (None, vec!["declare", "end"]), "first nobody calls, then it ends");
    bench.command(Command::Start);
    assert_eq!(called(&bench), here);
    bench.command(Command::Delete { force: false, if_match: None });
    assert_eq!(called(&bench), None);
    assert_eq!(bench.channel.config.policy.pull, None, "a tombstone keeps no secret");

    let mut bench = Bench::new(&json!({ "name": "news", "activation": "manual", "pull": "srt://encoder:9000" }));
    assert_eq!(called(&bench), None, "not started yet");
    bench.command(Command::Start);
    assert_eq!(called(&bench), here, "armed");
    let made = bench.command(update(json!({ "pull": "srt://encoder:9000?passphrase=planted secret" })));
    assert_eq!(made.outcome.now, ["pull"]);
    let made = bench.command(update(json!({ "pull": "srt://encoder:9000?passphrase=planted after" })));
    assert_eq!(made.outcome.now, ["pull"], "nothing of it can be seen but that it changed");
    assert!(!serde_json::to_string(&made.events).unwrap().contains("planted"), "events go to strangers");
    assert_eq!(effects(&made), ["declare"]);
    let made = bench.command(update(json!({ "pull": "srt://encoder:9000?passphrase=**********" })));
    assert_eq!(made, Step::default(), "what was shown is what there is");
}

#[test]
fn channel_stop_publish() {
    let mut bench = Bench::new(&news());
    bench.command(Command::Stop);
    let publish = Input::Publish(Publish { leg: Leg::A, publisher: PublisherId(1) });
    let refusal = bench.try_send(publish).unwrap_err();
    assert_eq!((refusal.code, refusal.code.srt()), (Code::Stopped, Some(1403)));
    assert_eq!(Door::of(&bench.channel).admit(KEY, Leg::A, HERE, bench.now), Err(refusal));
    let stranger = Door::of(&bench.channel).admit("wrong", Leg::A, HERE, bench.now).unwrap_err();
    assert_eq!(stranger.code, Code::Denied, "who has no key is not told that it is stopped");
}

#[test]
fn channel_delete() {
    let mut bench = Bench::live(&news());
    let delete = |force| Command::Delete { force, if_match: None };
    let refusal = bench.try_send(Input::Command(delete(false))).unwrap_err();
    assert_eq!(refusal.code, Code::ChannelActive);
    let made = bench.command(delete(true));
    assert_eq!(told(&made), ["session.ended", "channel.deleted"]);
    assert_eq!(effects(&made), ["withdraw", "end"]);
    ended(&bench, EndedReason::Deleted);
    assert_eq!((bench.channel.state, bench.channel.stream_keys.len()), (ChannelState::Deleted, 0));
    assert_eq!(Door::of(&bench.channel).admit(KEY, Leg::A, HERE, bench.now).unwrap_err().code, Code::Denied);
    for command in [delete(true), Command::Start, Command::Stop, update(json!({}))] {
        assert_eq!(bench.try_send(Input::Command(command)).unwrap_err().code, Code::NotFound);
    }
    let made = bench.tick_after(30 * 86_400);
    assert_eq!((made.channel, made.events.len()), (ChannelWrite::Purge, 0), "the tombstone has stood long enough");
}

#[test]
fn channel_update() {
    let mut bench = Bench::live(&news());
    let before = bench.open.clone();
    let made = bench.command(update(json!({ "mode": "low", "takeover": "newest", "end_on_eos": false })));
    assert_eq!((told(&made), effects(&made)), (vec!["channel.updated"], vec!["declare"]));
    assert_eq!((made.outcome.now, made.outcome.next_session), (vec!["takeover"], vec!["mode"]));
    assert_eq!(bench.open, before, "an open session keeps what it was made of");
    assert_eq!(Door::of(&bench.channel).takeover, Takeover::Newest);
    assert_eq!(bench.channel.revision, 2);
    assert_eq!(bench.command(update(json!({ "mode": "low" }))), Step::default(), "nothing new, nothing told");
    let stale = Command::Update { patch: json!({ "mode": "ultra" }), if_match: Some(1) };
    assert_eq!(bench.try_send(Input::Command(stale)).unwrap_err().code, Code::RevisionMismatch);
    let seen = Command::Update { patch: json!({ "mode": "ultra" }), if_match: Some(2) };
    assert_eq!(bench.command(seen).outcome.next_session, ["mode"]);
    let wrong = bench.try_send(Input::Command(update(json!({ "mode": 7 })))).unwrap_err();
    assert_eq!((wrong.code, wrong.errors[0].pointer.as_str()), (Code::InvalidFields, "/mode"));
}

#[test]
fn channel_stop_again_and_start_again() {
    let mut bench = Bench::new(&manual());
    bench.command(Command::Start);
    assert_eq!(bench.command(Command::Start), Step::default(), "idle and armed");
    bench.publish(Leg::A, 1);
    assert_eq!(bench.command(Command::Start), Step::default(), "active");
    bench.command(Command::Stop);
    assert_eq!(bench.command(Command::Stop), Step::default());
    assert_eq!(Bench::new(&news()).command(Command::Start), Step::default(), "idle, activated by itself");
}

#[test]
fn channel_active_second_leg() {
    let mut bench = Bench::live(&news());
    let made = bench.publish(Leg::B, 2);
    assert_eq!((told(&made), effects(&made)), (vec!["session.leg_up"], vec!["join"]));
    assert_eq!(bench.open.as_ref().unwrap().publishers.len(), 2);
    let mut bench = Bench::live(&json!({ "name": "news", "legs": "single" }));
    let publish = Input::Publish(Publish { leg: Leg::B, publisher: PublisherId(2) });
    let refusal = bench.try_send(publish).unwrap_err();
    assert_eq!((refusal.code, refusal.code.srt()), (Code::NoSuchLeg, Some(1415)));
}

// ── session ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn session_created_by_publish() {
    let mut bench = Bench::new(&json!({ "name": "news", "max_duration_s": 600 }));
    bench.publish(Leg::B, 1);
    let session = bench.open.clone().unwrap();
    assert_eq!((session.state, session.input), (SessionState::Init, InputState::Connected));
    assert_eq!(session.deadline, Some(Utc::from(bench.now + Duration::from_secs(600))));
    let mut bench = Bench::new(&json!({ "name": "news", "max_duration_s": 0 }));
    bench.publish(Leg::A, 1);
    assert_eq!(bench.open.unwrap().deadline, None, "0 is no limit");
}

#[test]
fn session_init_to_processing() {
    let mut bench = Bench::new(&news());
    bench.publish(Leg::A, 1);
    bench.fact(Fact::FirstMedia);
    assert_eq!(told(&bench.fact(Fact::Processing)), ["session.processing"]);
    assert_eq!(bench.open.as_ref().unwrap().state, SessionState::Processing);
    assert_eq!(told(&bench.fact(Fact::Processing)), Vec::<&str>::new());
}

#[test]
fn session_init_input_invalid() {
    let mut bench = Bench::new(&news());
    bench.publish(Leg::A, 1);
    bench.wait(3);
    bench.fact(Fact::FirstMedia);
    let made = bench.tick_after(10);
    assert_eq!((told(&made), effects(&made)), (vec!["session.error"], vec!["dismiss"]));
    let error = bench.open.as_ref().unwrap().error.clone().unwrap();
    assert!(error.cause == ErrorCause::InputInvalid && error.detail.contains("send MPEG-TS"), "{error:?}");
    // A codec that is refused is told at once; the next publisher gets another look.
    let mut bench = Bench::new(&news());
    bench.publish(Leg::A, 1);
    bench.fact(Fact::FirstMedia);
    let made = bench.fact(Fact::InputInvalid("H.266 is refused".into()));
    let dismiss = Effect::Dismiss { session: bench.session(), why: Dismissal::InputInvalid };
    assert_eq!((told(&made), made.effects), (vec!["session.error"], vec![dismiss]));
    bench.closed(1, false);
    bench.wait(12);
    bench.publish(Leg::A, 2);
    assert_eq!(told(&bench.fact(Fact::Processing)), ["session.recovered"]);
}

#[test]
fn session_init_no_media() {
    let mut bench = Bench::new(&news());
    bench.publish(Leg::A, 1);
    let made = bench.tick_after(15);
    assert_eq!((told(&made), effects(&made)), (vec!["session.ended", "channel.idle"], vec!["end"]));
    ended(&bench, EndedReason::NoMedia);
    assert!(!EndedReason::NoMedia.is_broadcast());
    // Disconnected while it was being looked at: the same time, from its last media on.
    let mut bench = Bench::new(&news());
    bench.publish(Leg::A, 1);
    bench.wait(5);
    bench.fact(Fact::FirstMedia);
    bench.wait(2);
    assert_eq!(told(&bench.closed(1, false)), Vec::<&str>::new());
    bench.tick_after(15);
    ended(&bench, EndedReason::NoMedia);
}

#[test]
fn session_processing_to_live() {
    let mut bench = Bench::new(&news());
    bench.publish(Leg::A, 1);
    bench.fact(Fact::Processing);
    bench.wait(2);
    assert_eq!(told(&bench.fact(Fact::Playable)), ["session.live"]);
    assert_eq!(bench.open.as_ref().unwrap().live_at, Some(Utc::from(bench.now)));
}

#[test]
fn session_all_producers_failed() {
    let mut bench = Bench::live(&news());
    let made = bench.fact(Fact::PipelineFailed("no worker can be started".into()));
    assert_eq!((told(&made), made.effects), (vec!["session.error"], vec![]));
    let session = bench.open.clone().unwrap();
    assert_eq!((session.state, session.error.unwrap().cause), (SessionState::Error, ErrorCause::Pipeline));
    assert_eq!(bench.channel.state, ChannelState::Active);
}

#[test]
fn session_error_recovered() {
    let mut bench = Bench::live(&news());
    let first = bench.open.as_ref().unwrap().live_at;
    bench.fact(Fact::PipelineFailed("no worker".into()));
    bench.wait(59);
    assert_eq!(told(&bench.fact(Fact::Recovered)), ["session.recovered"]);
    assert_eq!(told(&bench.fact(Fact::Playable)), ["session.live"]);
    let session = bench.open.clone().unwrap();
    assert_eq!((session.state, session.live_at), (SessionState::Live, first));
}

#[test]
fn session_error_timeout() {
    let mut bench = Bench::live(&news());
    bench.fact(Fact::PipelineFailed("no worker".into()));
    bench.wait(1);
    bench.closed(1, false);
    assert_eq!(told(&bench.tick_after(59)), ["session.ended", "channel.idle"], "the window of 10 s does not count");
    ended(&bench, EndedReason::Error);
}

#[test]
fn session_input_lost() {
    let mut bench = Bench::live(&news());
    bench.wait(4);
    let made = bench.fact(Fact::InputLost { last_media: Wall(bench.now.0 - 2_000_000_000) });
    assert_eq!(told(&made), ["session.input_lost"]);
    let session = bench.open.clone().unwrap();
    assert_eq!((session.state, session.input), (SessionState::Live, InputState::Reconnecting));
    assert_eq!(session.window_deadline, Some(Utc::from(bench.now + Duration::from_secs(10))));
    assert_eq!(told(&bench.closed(1, false)), Vec::<&str>::new(), "lost once");
    // A publisher that closes is lost at once, but not while another leg is up.
    let mut bench = Bench::live(&news());
    bench.publish(Leg::B, 2);
    assert_eq!(told(&bench.closed(1, false)), Vec::<&str>::new());
    assert_eq!(told(&bench.closed(2, false)), ["session.input_lost"]);
}

#[test]
fn session_reconnected() {
    let mut bench = Bench::live(&news());
    bench.closed(1, false);
    bench.wait(9);
    let made = bench.publish(Leg::A, 2);
    assert_eq!((told(&made), effects(&made)), (vec!["session.input_restored"], vec!["join"]));
    assert_eq!(deadline(&bench.channel, bench.open.as_ref()), bench.open.as_ref().unwrap().deadline.map(Utc::wall));
    // Silent and back on the same connection.
    bench.fact(Fact::InputLost { last_media: bench.now });
    assert_eq!(told(&bench.fact(Fact::InputRestored)), ["session.input_restored"]);
}

#[test]
fn session_window_over() {
    for (body, window) in [
        (json!({ "name": "news" }), 10),
        (json!({ "name": "news", "mode": "low" }), 20),
        (json!({ "name": "news", "mode": "normal" }), 60),
        (json!({ "name": "news", "reconnect_window_s": 1_800 }), 1_800),
    ] {
        let mut bench = Bench::live(&body);
        bench.closed(1, false);
        assert_eq!(told(&bench.tick_after(window)), ["session.ended", "channel.idle"]);
        ended(&bench, EndedReason::InputTimeout);
        let old = bench.ended[0].id.clone();
        bench.publish(Leg::A, 2);
        assert_ne!(bench.session(), old, "a later publish makes a new session");
    }
    let mut bench = Bench::live(&json!({ "name": "news", "reconnect_window_s": 0 }));
    assert_eq!(told(&bench.closed(1, false)), ["session.input_lost", "session.ended", "channel.idle"]);
    // Late ticks change nothing: who comes after the window makes a new session.
    let mut bench = Bench::live(&news());
    bench.closed(1, false);
    bench.wait(11);
    let made = bench.publish(Leg::A, 2);
    assert_eq!(told(&made), ["session.ended", "channel.idle", "session.created", "channel.active"]);
    assert_eq!(bench.ended[0].ended_at, Some(Utc::from(Wall(bench.now.0 - 1_000_000_000))));
}

#[test]
fn session_publisher_replaced() {
    let mut bench = Bench::live(&news());
    let made = bench.publish(Leg::A, 2);
    assert_eq!((told(&made), effects(&made)), (vec!["session.publisher_replaced"], vec!["join"]));
    assert_eq!(bench.closed(1, true).events, [], "nothing hangs on the old one");
    assert_eq!(bench.open.as_ref().unwrap().input, InputState::Connected);
    assert_eq!(told(&bench.closed(2, false)), ["session.input_lost"]);
}

#[test]
fn session_max_duration() {
    let hour = json!({ "name": "news", "max_duration_s": 3_600 });
    let mut bench = Bench::live(&hour);
    let made = bench.tick_after(3_600);
    assert_eq!((told(&made), effects(&made)), (vec!["session.ended", "channel.idle"], vec!["end"]));
    ended(&bench, EndedReason::MaxDuration);
}

#[test]
fn session_max_duration_rollover() {
    let body = json!({ "name": "news", "max_duration_s": 3_600, "on_max_duration": "rollover" });
    let mut bench = Bench::live(&body);
    bench.publish(Leg::B, 2);
    let from = bench.session();
    let made = bench.tick_after(3_600);
    assert_eq!(told(&made), ["session.ended", "session.created"]);
    assert_eq!((effects(&made), bench.channel.state), (vec!["roll over"], ChannelState::Active));
    let What::SessionEnded { next, .. } = &made.events[0].what else { panic!("the end comes first") };
    assert_eq!(next.as_ref(), Some(&bench.session()));
    let What::SessionCreated { previous, .. } = &made.events[1].what else { panic!("then the beginning") };
    assert_eq!(previous.as_ref(), Some(&from));
    assert_eq!(bench.open.as_ref().unwrap().publishers.len(), 2, "nobody has to connect again");
    // Guard: what would come out otherwise needs an ENDLIST.
    let mut bench = Bench::live(&body);
    bench.command(update(json!({ "mode": "low", "max_duration_s": 60 })));
    bench.wait(3_599);
    assert_eq!(effects(&bench.tick_after(1)), ["break over"]);
    // Without a publisher there is nothing to go on with.
    let mut bench = Bench::live(&json!({
        "name": "news", "max_duration_s": 60, "on_max_duration": "rollover", "reconnect_window_s": 600,
    }));
    bench.closed(1, false);
    bench.tick_after(60);
    ended(&bench, EndedReason::MaxDuration);
    assert_eq!(bench.channel.state, ChannelState::Idle);
}

#[test]
fn session_stop_and_delete() {
    for state in ["init", "processing", "live", "reconnecting", "error"] {
        for (command, reason) in [
            (Command::Stop, EndedReason::UserStop),
            (Command::Delete { force: true, if_match: None }, EndedReason::Deleted),
        ] {
            let mut bench = Bench::new(&news());
            bench.publish(Leg::A, 1);
            for (name, fact) in [
                ("processing", Fact::Processing),
                ("live", Fact::Playable),
                ("reconnecting", Fact::InputLost { last_media: bench.now }),
                ("error", Fact::PipelineFailed("no worker".into())),
            ] {
                if state != "init" {
                    bench.fact(fact);
                }
                if state == name || state == "init" {
                    break;
                }
            }
            bench.command(command);
            ended(&bench, reason);
        }
    }
}

#[test]
fn session_eos() {
    let mut bench = Bench::live(&json!({ "name": "news", "end_on_eos": true }));
    bench.publish(Leg::B, 2);
    assert_eq!(told(&bench.closed(1, true)), Vec::<&str>::new(), "the other leg is still there");
    assert_eq!(told(&bench.closed(2, true)), ["session.ended", "channel.idle"]);
    ended(&bench, EndedReason::Eos);
    let mut bench = Bench::live(&news());
    assert_eq!(told(&bench.closed(1, true)), ["session.input_lost"], "only where it is configured");
}

// ── keys, stale facts, restart ──────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_rotated_key_stays_valid_for_its_grace_and_two_are_valid_at_most() {
    let mut bench = Bench::new(&news());
    let keys = ["bbbbbbbbbbbbbbbbbbbbbbbbbb", "cccccccccccccccccccccccccc", "dddddddddddddddddddddddddd"];
    let valid = |bench: &Bench, key: &str| Door::of(&bench.channel).admit(key, Leg::A, HERE, bench.now).is_ok();
    let hour = Duration::from_secs(3_600);
    let made = bench.command(Command::RotateKey { key: bench.key(keys[0]), grace: hour });
    assert_eq!((told(&made), effects(&made)), (vec!["channel.updated"], vec!["declare"]));
    assert!(valid(&bench, KEY) && valid(&bench, keys[0]));
    bench.wait(3_600);
    assert!(!valid(&bench, KEY) && valid(&bench, keys[0]));
    bench.command(Command::RotateKey { key: bench.key(keys[1]), grace: hour });
    bench.command(Command::RotateKey { key: bench.key(keys[2]), grace: hour });
    assert!(!valid(&bench, keys[0]) && valid(&bench, keys[1]) && valid(&bench, keys[2]));
    assert_eq!(bench.channel.stream_keys.len(), 2);
    bench.command(Command::RotateKey { key: bench.key(KEY), grace: Duration::ZERO });
    assert!(valid(&bench, KEY) && !valid(&bench, keys[2]));
    assert_eq!((bench.channel.stream_keys.len(), bench.channel.stream_keys[0].prefix.as_str()), (1, "abcd"));
}

#[test]
fn a_channel_may_take_publishers_of_some_networks_only() {
    let mut bench = Bench::new(&json!({ "name": "news", "publish_from": ["192.0.2.0/28", "2001:db8::/32"] }));
    let admit = |bench: &Bench, key: &str, from: &str| {
        Door::of(&bench.channel)
            .admit(key, Leg::A, from.parse().unwrap(), bench.now)
            .map_err(|r| (r.code, r.code.srt()))
    };
    for inside in ["192.0.2.15", "::ffff:192.0.2.1", "2001:db8::7"] {
        assert_eq!(admit(&bench, KEY, inside), Ok(()), "{inside}");
    }
    assert_eq!(admit(&bench, KEY, "192.0.2.16"), Err((Code::NotFromHere, Some(1401))));
    assert_eq!(admit(&bench, "wrong", "192.0.2.16"), Err((Code::Denied, Some(1401))), "a stranger learns nothing");
    let made = bench.command(update(json!({ "publish_from": null })));
    assert_eq!((effects(&made), made.outcome.now), (vec!["declare"], vec!["publish_from"]));
    assert_eq!(admit(&bench, KEY, "192.0.2.16"), Ok(()));
}

#[test]
fn a_passphrase_is_the_doors_at_once_and_in_no_event() {
    let mut bench = Bench::live(&news());
    let secret = || Some(Passphrase::new("a long passphrase").unwrap());
    let made = bench.command(Command::Passphrase(secret()));
    assert_eq!((told(&made), effects(&made)), (vec!["channel.updated"], vec!["declare"]));
    assert!(!serde_json::to_string(&made.events).unwrap().contains("long passphrase"), "events go to strangers");
    assert_eq!((Door::of(&bench.channel).passphrase, bench.channel.revision), (secret(), 2));
    assert_eq!(bench.command(Command::Passphrase(secret())), Step::default(), "the same once more");
    assert_eq!(effects(&bench.command(Command::Passphrase(None))), ["declare"]);
    assert_eq!(Door::of(&bench.channel).passphrase, None);
    bench.command(Command::Passphrase(secret()));
    bench.command(Command::Delete { force: true, if_match: None });
    assert_eq!(bench.channel.srt_passphrase, None, "a tombstone keeps no secret");
}

#[test]
fn activation_by_hand_that_comes_while_on_air_waits_for_the_end() {
    let mut bench = Bench::live(&news());
    let door = |bench: &Bench| Door::of(&bench.channel).admit(KEY, Leg::A, HERE, bench.now).map_err(|r| r.code);
    let made = bench.command(update(json!({ "activation": "manual" })));
    assert_eq!((made.outcome.now, door(&bench)), (vec!["activation"], Ok(())), "a lost publisher may come back");
    let made = bench.command(Command::EndSession(bench.session()));
    assert_eq!((effects(&made), door(&bench)), (vec!["declare", "end"], Err(Code::NotStarted)));
    bench.command(Command::Start);
    bench.command(update(json!({ "activation": "auto" })));
    assert!(!bench.channel.armed && door(&bench) == Ok(()), "what activates itself needs no start");
}

#[test]
fn a_fact_about_a_session_that_is_over_changes_nothing() {
    let mut bench = Bench::live(&news());
    let old = bench.session();
    bench.command(Command::EndSession(old.clone()));
    bench.publish(Leg::A, 2);
    for fact in [
        Fact::Playable,
        Fact::InputInvalid("late".into()),
        Fact::PipelineFailed("late".into()),
        Fact::PublisherClosed { publisher: PublisherId(2), finished: true, last_media: None },
    ] {
        assert_eq!(bench.send(Input::Fact(old.clone(), fact)), Step::default());
    }
}

#[test]
fn media_of_a_publisher_that_is_gone_restores_nothing() {
    let mut bench = Bench::live(&news());
    bench.closed(1, false);
    assert_eq!(told(&bench.fact(Fact::InputRestored)), Vec::<&str>::new());
    bench.tick_after(10);
    ended(&bench, EndedReason::InputTimeout);
}

#[test]
fn a_publisher_that_leaves_before_the_program_is_known_is_waited_for_once_it_is() {
    let mut bench = Bench::new(&news());
    bench.publish(Leg::A, 1);
    bench.fact(Fact::FirstMedia);
    bench.closed(1, false);
    assert_eq!(told(&bench.fact(Fact::Processing)), ["session.processing", "session.input_lost"]);
    bench.tick_after(10);
    ended(&bench, EndedReason::InputTimeout);
}

#[test]
fn a_restart_within_the_window_waits_for_the_publisher_and_after_it_ends_when_the_last_media_came() {
    let mut bench = Bench::live(&news());
    bench.wait(100);
    bench.fact(Fact::Media(bench.now));
    let last_media = bench.now;
    let mut ids = 1_000u128;
    let mut random = || {
        ids += 1;
        ids
    };
    let session = bench.open.clone();
    let at = |s: u64| last_media + Duration::from_secs(s);
    let made = recover(&bench.channel, session.as_ref(), at(9), &mut random);
    assert_eq!((told(&made), effects(&made)), (vec!["session.input_lost"], vec!["declare", "resume"]));
    let waiting = made.open_after(session.as_ref()).unwrap();
    assert_eq!((waiting.input, waiting.publishers.len()), (InputState::Reconnecting, 0));
    assert_eq!(deadline(&bench.channel, Some(waiting)), Some(at(10)));

    let made = recover(&bench.channel, session.as_ref(), at(10), &mut random);
    assert_eq!((told(&made), effects(&made)), (vec!["session.ended", "channel.idle"], vec!["declare"]));
    assert_eq!(made.sessions[0].ended_at, Some(Utc::from(last_media)));
    assert_eq!(made.sessions[0].ended_reason, Some(EndedReason::InputTimeout));

    // A window that ran already keeps its end.
    bench.wait(3);
    bench.closed(1, false);
    let made = recover(&bench.channel, bench.open.as_ref(), bench.now + Duration::from_secs(9), &mut random);
    assert_eq!((told(&made), effects(&made)), (vec![], vec!["declare", "resume"]));

    // A stopped channel stays stopped, a deleted one stays away.
    bench.command(Command::Stop);
    let made = recover(&bench.channel, None, bench.now, &mut random);
    assert_eq!((told(&made), effects(&made), made.channel), (vec![], vec!["declare"], ChannelWrite::Keep));
    bench.command(Command::Delete { force: false, if_match: None });
    assert_eq!(recover(&bench.channel, None, bench.now, &mut random), Step::default());
}

#[test]
fn a_restart_resumes_a_session_as_it_was_made() {
    let mut bench = Bench::live(&news());
    bench.command(update(json!({ "mode": "normal" })));
    let made = recover(&bench.channel, bench.open.as_ref(), bench.now, &mut || 77);
    let Some(Effect::Resume { session, channel }) = made.effects.last() else { panic!("{:?}", made.effects) };
    assert_eq!((session, channel.mode), (&bench.session(), bench.open.as_ref().unwrap().profile.mode));
    assert_ne!(channel.mode, bench.channel.config.profile.mode);
}

#[test]
#[should_panic(expected = "a channel is active exactly while it has an open session")]
fn records_that_contradict_each_other_are_a_bug() {
    let bench = Bench::live(&news());
    drop(step(&bench.channel, None, Input::Tick, bench.now, &mut || 1));
}

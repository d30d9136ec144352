//! Languages that come and go while a session lasts.

use super::*;

const GERMAN: u16 = 258;
const FRENCH: u16 = 259;
const SECOND: i64 = 90_000;

fn track(pid: u16) -> Track {
    let language = match pid {
        AUDIO => "eng",
        GERMAN => "deu",
        _ => "fra",
    };
    Track { language: Some(language.to_owned()), ..Track::new(pid, Codec::Aac) }
}

fn program(timeline: &mut Timeline, audio: &[u16]) {
    let tracks = std::iter::once(Track::new(VIDEO, Codec::H264)).chain(audio.iter().map(|pid| track(*pid))).collect();
    timeline.program(0, &Program { number: 1, pcr_pid: None, tracks });
    for pid in audio {
        let config =
            AudioConfig { codec: Codec::Aac, object_type: 2, sample_rate: 48_000, channels: 2, asc: Bytes::new() };
        timeline.config(0, *pid, &TrackConfig::Audio(config));
    }
}

/// 14 s of pictures and two languages, `late` behind the pictures in the multiplex. English is not there from 4 to 9 s, in
/// the program map, too, if it is `told`; there is French instead then.
fn broadcast(kind: ChannelKind, late: i64, told: bool) -> Vec<Out> {
    let rate = FrameRate::new(25_000, 1_000);
    let mut mux = Mux::default();
    mux.video(rate, 3_600, 0..350, |k| k % 50 == 0);
    for pid in [AUDIO, GERMAN, FRENCH] {
        for m in 0..650 {
            let time = m * 1_920;
            let away = (4 * SECOND..9 * SECOND).contains(&time);
            if pid == GERMAN || away == (pid == FRENCH) {
                mux.0.push((time + late, unit(pid, 3_600 + time, 3_600 + time, true)));
            }
        }
    }
    mux.0.sort_by_key(|(at, unit)| (*at, unit.pid));
    let mut timeline = Timeline::new(facts(kind, None));
    timeline.leg_joined(0);
    program(&mut timeline, &[AUDIO, GERMAN]);
    timeline.config(0, VIDEO, &video_config());
    let (mut out, mut changes) =
        (Vec::new(), vec![(9 * SECOND, vec![AUDIO, GERMAN]), (4 * SECOND, vec![FRENCH, GERMAN])]);
    for (at, unit) in mux.0 {
        if let Some((_, tracks)) = changes.pop_if(|(when, _)| told && at >= *when + late) {
            program(&mut timeline, &tracks);
        }
        while let Some(due) = timeline.deadline().filter(|due| *due <= now(at).mono) {
            timeline.handle_timeout(Now { mono: due, ..now(at) });
            if timeline.deadline() == Some(due) {
                break;
            }
        }
        timeline.push(now(at), 0, AccessUnit { received: now(at).mono, ..unit });
        out.extend(std::iter::from_fn(|| timeline.poll()));
    }
    out
}

/// Frames of a track in the order in which they come: heard or not.
fn frames(out: &[Out], of: u16) -> Vec<(i64, bool)> {
    let one = |out: &Out| match out {
        Out::Audio(frame) if frame.track == of => Some((frame.m, true)),
        Out::Silence { track, m, .. } if *track == of => Some((*m, false)),
        _ => None,
    };
    out.iter().filter_map(one).collect()
}

#[test]
fn a_language_that_vanishes_is_silent_in_its_place_and_the_others_stay_what_they_are() {
    for kind in [ChannelKind::Transcode, ChannelKind::Transmux] {
        for (late, told) in [(7_200, true), (7_200, false), (SECOND * 8 / 10, true)] {
            let what = format!("{kind:?}, {late} ticks behind, told {told}");
            let out = broadcast(kind, late, told);
            let (english, german) = (frames(&out, 0), frames(&out, 1));
            assert!(english.windows(2).all(|w| w[1].0 > w[0].0), "{what}: no frame twice");
            let silent: Vec<i64> = english.iter().filter(|(_, heard)| !heard).map(|(m, _)| *m).collect();
            // 4 to 9 s of 46.875 frames, but for what the grid rounds. What is left of them when it returns is for a
            // ladder's rendition to fill, as any hole is.
            let (first, last) = (silent[0], silent[silent.len() - 1]);
            let kept = if kind == ChannelKind::Transcode { 40 } else { 2 };
            assert!((186..=189).contains(&first) && (420 - kept..=423).contains(&last), "{what}: {first} to {last}");
            assert_eq!(silent.len() as i64, last - first + 1, "{what}: in one piece");
            let back = english.iter().find(|(m, heard)| *heard && *m > last).map(|(m, _)| *m);
            assert!(back.is_some_and(|back| (419..=424).contains(&back)), "{what}: {back:?}");
            assert!(german.iter().all(|(_, heard)| *heard) && german.len() > 600, "{what}: nothing of French, no hole");
            let pids = |of| {
                out.iter().filter_map(move |out| match out {
                    Out::Audio(frame) if frame.track == of => Some(frame.unit.pid),
                    _ => None,
                })
            };
            assert!(pids(0).all(|pid| pid == AUDIO) && pids(1).all(|pid| pid == GERMAN), "{what}");
            let faults: Vec<&str> = out
                .iter()
                .filter_map(|out| match out {
                    Out::Fault(fault) if fault.kind == FaultKind::AudioTrack => Some(fault.detail.as_str()),
                    _ => None,
                })
                .collect();
            assert_eq!(faults.iter().filter(|words| words.contains("not heard")).count(), 1, "{what}: {faults:?}");
            assert_eq!(faults.iter().any(|words| words.contains("in fra")), told, "{what}: {faults:?}");
        }
    }
}

#[test]
fn silence_keeps_within_a_second_and_a_half_of_the_picture() {
    let out = broadcast(ChannelKind::Transcode, 7_200, true);
    let (mut shown, mut sound) = (0, 0);
    for out in &out {
        match out {
            Out::Video { n, prime: false, .. } => shown = shown.max(n * 3_600),
            Out::Audio(frame) if frame.track == 0 => sound = (frame.m + 1) * 1_920,
            Out::Silence { track: 0, m, .. } => sound = (m + 1) * 1_920,
            _ => {}
        }
        assert!(shown - sound <= SECOND * 3 / 2, "{shown} ticks of pictures, {sound} of sound");
    }
}

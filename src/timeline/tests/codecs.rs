//! Sources of other codecs than H.264: open GOPs, refusals, changes.

use super::*;
use crate::timeline::AudioOut;

/// HEVC with open GOPs of 25: behind each random access point two pictures that are shown before it.
fn open_gops(timeline: &mut Timeline, legs: &[(u8, std::ops::Range<i64>)]) -> Vec<Out> {
    let TrackConfig::Video(config) = video_config() else { unreachable!("of a video track") };
    let hevc = TrackConfig::Video(VideoConfig { codec: Codec::H265, ..config });
    for leg in [0, 1] {
        timeline.leg_joined(leg);
        let tracks = vec![Track::new(VIDEO, Codec::H265)];
        timeline.program(leg, &Program { number: 1, pcr_pid: None, tracks });
        timeline.config(leg, VIDEO, &hevc);
    }
    let mut out = Vec::new();
    for k in 0..250i64 {
        // In decode order: the key frame, the two before it, then the others.
        let shown = match k % 25 {
            0 => k + 2,
            1 | 2 => k - 1,
            _ => k,
        };
        let (pts, dts) = (90_000 + (shown + 1) * 3_600, 90_000 + (k - 1) * 3_600);
        let unit = AccessUnit { codec: Codec::H265, received: now(dts).mono, ..unit(VIDEO, pts, dts, k % 25 == 0) };
        for (leg, _) in legs.iter().filter(|(_, from)| from.contains(&k)) {
            timeline.push(now(dts), *leg, unit.clone());
        }
        out.extend(std::iter::from_fn(|| timeline.poll()));
    }
    out
}

#[test]
fn pictures_that_lead_where_decoding_began_are_left_out_and_no_others() {
    let rate = FrameRate::new(25_000, 1_000);
    let numbers = |out: &[Out]| -> Vec<i64> {
        let of = |out: &Out| match out {
            Out::Video { unit, .. } => Some(rate.frames(unit.pts.0 - 90_000) - 1),
            _ => None,
        };
        out.iter().filter_map(of).collect()
    };
    // Joined in the middle of a GOP: from the key frame at 25 on.
    let mut timeline = Timeline::new(facts(ChannelKind::Transcode, None));
    let mut whole = numbers(&open_gops(&mut timeline, &[(0, 10..250)]));
    assert_eq!(whole[..3], [27, 28, 29], "25 and 26 need what came before");
    whole.sort_unstable();
    assert!(whole.iter().copied().eq(27..250), "{whole:?}");
    assert_eq!(timeline.skipped(), 15 + 2);
    // The other leg takes over at its next key frame: what leads that one goes too.
    let mut timeline = Timeline::new(facts(ChannelKind::Transcode, None));
    let mut both = numbers(&open_gops(&mut timeline, &[(0, 0..120), (1, 10..250)]));
    assert_eq!(timeline.on_air(), Some(1));
    both.sort_unstable();
    both.retain(|n| *n > 140);
    assert!(both.iter().copied().eq(152..250), "{both:?}");
}

#[test]
fn video_that_cannot_be_served_as_configured_is_refused_with_what_to_change() {
    for kind in [ChannelKind::Transmux, ChannelKind::Hybrid] {
        let mut timeline = Timeline::new(facts(kind, None));
        let out = open_gops(&mut timeline, &[(0, 0..250)]);
        let words = "the source's video is HEVC, and a transmux or hybrid channel passes on H.264 only: set kind = \
                     \"transcode\", or the encoder to H.264";
        assert_eq!(out, [Out::Refused(words.to_owned())], "{kind:?}");
    }
    let TrackConfig::Video(config) = video_config() else { unreachable!("of a video track") };
    let mut mux = Mux::default();
    mux.video(FrameRate::new(50_000, 1_000), 9, 0..100, |k| k % 50 == 0);
    for (codec, refused) in [(Codec::H265, true), (Codec::H264, false), (Codec::Mpeg2Video, false)] {
        let mut timeline = Timeline::new(facts(ChannelKind::Transcode, None));
        open(&mut timeline, 48_000);
        let fields = VideoConfig { codec, interlaced: true, ..config.clone() };
        timeline.config(0, VIDEO, &TrackConfig::Video(fields));
        for (at, unit) in &mux.0 {
            timeline.push(now(*at), 0, AccessUnit { codec, received: now(*at).mono, ..unit.clone() });
        }
        let first = timeline.poll();
        let said = matches!(&first, Some(Out::Refused(words)) if words.contains("set the encoder to progressive"));
        assert_eq!(said, refused, "{codec}: {first:?}");
    }
}

#[test]
fn another_codec_in_mid_session_is_left_out_and_said_once() {
    let mut mux = Mux::default();
    mux.video(FrameRate::new(25_000, 1_000), 9, 0..300, |k| k % 50 == 0);
    let mut timeline = Timeline::new(facts(ChannelKind::Transcode, None));
    open(&mut timeline, 48_000);
    let mut out = Vec::new();
    for (k, (at, unit)) in mux.0.into_iter().enumerate() {
        let codec = if (100..200).contains(&k) { Codec::H265 } else { Codec::H264 };
        timeline.push(now(at), 0, AccessUnit { codec, received: now(at).mono, ..unit });
        out.extend(std::iter::from_fn(|| timeline.poll()));
    }
    let told: Vec<&Out> =
        out.iter().filter(|out| matches!(out, Out::Fault(f) if f.detail.contains("change codecs"))).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let codecs: Vec<Codec> =
        out.iter().filter_map(|out| if let Out::Video { unit, .. } = out { Some(unit.codec) } else { None }).collect();
    assert_eq!((codecs.len(), codecs.contains(&Codec::H265)), (200, false));
}

#[test]
fn sound_that_waits_for_the_pictures_cut_keeps_its_place_when_the_rate_changes() {
    let mut mux = Mux::default();
    mux.video(FrameRate::new(25_000, 1_000), 3_600, 0..300, |k| k % 50 == 0);
    mux.audio(48_000, 3_600, 0, 0..540);
    let mut units = mux.0;
    units.sort_by_key(|(at, unit)| (*at, unit.pid));
    let mut timeline = Timeline::new(facts(ChannelKind::Transmux, None));
    open(&mut timeline, 48_000);
    let asc = Bytes::from_static(&[0x12, 0x10]);
    let other = AudioConfig { codec: Codec::Aac, object_type: 2, sample_rate: 44_100, channels: 2, asc };
    let (mut out, mut changed) = (Vec::new(), false);
    for (at, unit) in units {
        // Just in front of a key frame some frames wait for it.
        if at >= 199 * 3_600 && !std::mem::replace(&mut changed, true) {
            timeline.config(0, AUDIO, &TrackConfig::Audio(other.clone()));
        }
        timeline.push(now(at), 0, AccessUnit { received: now(at).mono, ..unit });
        out.extend(std::iter::from_fn(|| timeline.poll()));
    }
    timeline.finish(now(300 * 3_600));
    out.extend(std::iter::from_fn(|| timeline.poll()));
    let mut edge = (0, 0);
    for place in out.iter().filter_map(|out| match out {
        Out::Audio(AudioOut { place, .. }) | Out::Silence { place, .. } => Some(*place),
        Out::Gap { track: Some(_), place, .. } => Some(*place),
        _ => None,
    }) {
        assert!((place.msn, place.part) >= edge, "{place:?} behind {edge:?}");
        edge = place.edge();
    }
    let at = out.iter().position(|out| matches!(out, Out::Config { pid: AUDIO, .. })).expect("other headers");
    let frame = |out: &Out| if let Out::Audio(audio) = out { Some(audio.m) } else { None };
    let (before, after) = (out[..at].iter().rev().find_map(frame), out[at..].iter().find_map(frame));
    let (before, after) = (before.expect("sound"), after.expect("sound"));
    assert!(
        after < before && after > before * 44_100 / 48_000 - 2,
        "frame {after} at 44.1 kHz behind {before} at 48 kHz"
    );
}

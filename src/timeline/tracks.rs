//! Which of a session's audio tracks a leg's are: programs change in mid-session, and legs number theirs differently.

use super::firewall::AudioClock;
use super::running::Track;
use crate::media::track::{self, AudioConfig, AudioRole, Pid};

/// An audio track as a leg's program has it.
#[derive(Debug)]
pub(super) struct LegAudio {
    pub pid: Pid,
    pub language: Option<String>,
    pub role: AudioRole,
    /// The session's; `None`: it has none such.
    pub track: Option<usize>,
    pub config: Option<AudioConfig>,
    pub clock: AudioClock,
}

impl LegAudio {
    /// `before`: the leg's tracks so far. What was learnt of this one stays.
    pub(super) fn of(of: &track::Track, before: &mut Vec<LegAudio>) -> LegAudio {
        let known = before.iter().position(|audio| audio.pid == of.pid).map(|at| before.swap_remove(at));
        let (config, clock) = known.map(|audio| (audio.config, audio.clock)).unwrap_or_default();
        LegAudio { pid: of.pid, language: of.language.clone(), role: of.role, track: None, config, clock }
    }
}

/// Before the session has tracks, they are the leg's, in its order.
pub(super) fn number(audio: &mut [LegAudio]) {
    audio.iter_mut().enumerate().for_each(|(track, audio)| audio.track = Some(track));
}

/// Each of the leg's tracks to the session's that it is: the same language for the same purpose, where one is not named the
/// first that is left; what changed its language alone stays what it was. A session of one track takes what there is.
pub(super) fn assign(tracks: &[Track], audio: &mut [LegAudio]) {
    type Rule = fn(&Track, &LegAudio) -> bool;
    let same: Rule = |track, audio| track.language == audio.language && track.role == audio.role;
    let rules: [Rule; 4] = [
        |track, audio| track.pid == audio.pid && track.language == audio.language && track.role == audio.role,
        same,
        |track, audio| track.role == audio.role && (track.language.is_none() || audio.language.is_none()),
        |track, audio| track.pid == audio.pid,
    ];
    let mut free: Vec<usize> = (0..tracks.len()).collect();
    audio.iter_mut().for_each(|audio| audio.track = None);
    let any: Rule = |_, _| true;
    for rule in rules.into_iter().chain((tracks.len() == 1).then_some(any)) {
        for audio in audio.iter_mut().filter(|audio| audio.track.is_none()) {
            let at = free.iter().position(|track| rule(&tracks[*track], audio));
            audio.track = at.map(|at| free.remove(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::plan::PlannedAudio;
    use crate::media::track::Codec;

    fn track(pid: Pid, language: &str, role: AudioRole) -> track::Track {
        let language = (!language.is_empty()).then(|| language.to_owned());
        track::Track { language, role, ..track::Track::new(pid, Codec::Aac) }
    }

    /// What the tracks of a program are in a session that began with those of another.
    fn assigned(session: &[track::Track], program: &[track::Track]) -> Vec<Option<usize>> {
        let planned =
            |t: &track::Track| PlannedAudio { pid: t.pid, language: t.language.clone(), role: t.role, config: None };
        let tracks: Vec<Track> = session.iter().map(planned).enumerate().map(|(n, t)| Track::new(n, &t)).collect();
        let mut audio: Vec<LegAudio> = program.iter().map(|t| LegAudio::of(t, &mut Vec::new())).collect();
        assign(&tracks, &mut audio);
        audio.iter().map(|audio| audio.track).collect()
    }

    #[test]
    fn a_track_is_known_by_its_language_and_purpose_wherever_it_lies() {
        use AudioRole::{Description, Main};
        let [eng, deu, told] = [track(257, "eng", Main), track(258, "deu", Main), track(259, "eng", Description)];
        let session = [eng.clone(), deu.clone(), told.clone()];
        assert_eq!(assigned(&session, &session), [Some(0), Some(1), Some(2)]);
        assert_eq!(assigned(&session, &[deu.clone(), told.clone()]), [Some(1), Some(2)], "one is gone");
        // Another encoder's, in another order, with one that the session does not have.
        let other =
            [track(70, "fra", Main), track(71, "deu", Main), track(72, "eng", Description), track(73, "eng", Main)];
        assert_eq!(assigned(&session, &other), [None, Some(1), Some(2), Some(0)]);
        // Two of one language in their order.
        let twice = [track(1, "eng", Main), track(2, "eng", Main)];
        assert_eq!(assigned(&twice, &[track(9, "eng", Main), track(8, "eng", Main)]), [Some(0), Some(1)]);
        assert_eq!(assigned(&twice, &[twice[1].clone()]), [Some(1)]);
    }

    #[test]
    fn who_names_no_language_is_taken_in_order_and_a_single_track_takes_what_there_is() {
        use AudioRole::Main;
        let [eng, deu, unnamed] = [track(257, "eng", Main), track(258, "deu", Main), track(9, "", Main)];
        assert_eq!(assigned(&[eng.clone(), deu.clone()], &[unnamed.clone(), deu.clone()]), [Some(0), Some(1)]);
        assert_eq!(assigned(std::slice::from_ref(&unnamed), &[deu.clone(), eng.clone()]), [Some(0), None]);
        assert_eq!(assigned(std::slice::from_ref(&eng), &[track(7, "fra", Main)]), [Some(0)]);
        assert_eq!(assigned(&[eng.clone(), deu.clone()], &[deu, track(257, "fra", Main)]), [Some(1), Some(0)]);
        assert_eq!(assigned(&[eng, unnamed], &[track(7, "fra", Main)]), [Some(1)]);
    }
}

//! How a session's renditions are made: their outputs, init sections, and what is listed of a process that is gone.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::{AUDIO_BITRATE, Audio, Resumed, SOURCE_BANDWIDTH, SOURCE_TIMESCALE, Source, Stage};
use crate::bitstream::aac::silence;
use crate::bitstream::h265::Sps;
use crate::media::channel::VideoCodec;
use crate::media::grid::Grid;
use crate::media::limits;
use crate::media::picture::PictureRule;
use crate::media::plan::{InitMark, PlannedAudio};
use crate::media::track::{AudioConfig, AudioRole, Codec, Pid, VideoConfig};
use crate::package::fmp4::init::InitSection;
use crate::package::segmenter::{Cut, Segmenter};
use crate::package::window::{Before, Kind, RenditionOutput, RenditionSpec, audio_name};
use crate::pipeline::outputs::{AudioTrack, Breaks, LadderTrack};
use crate::pipeline::stills::Picker;
use crate::pixels::protocol::{OpenRendition, VideoInit};

impl Stage {
    pub(super) fn add_source(&mut self, pid: Pid, config: &VideoConfig) {
        let kind = Kind::Video { rate: Some(self.grid.cadence.rate) };
        let init = InitSection::video(config, SOURCE_TIMESCALE, 0);
        let segmenter = self.segmenter("source", kind, SOURCE_BANDWIDTH, init, Cut::Source);
        self.output.add(Arc::clone(segmenter.output()));
        let edge = self.resume_part();
        let (waiting, config) = (VecDeque::new(), config.clone());
        let (next_config, breaks) = (None, Breaks::default());
        let picker = self.video.is_none().then(|| Picker::new(PictureRule::of(self.grid.cadence.rate)));
        self.source = Some(Source { pid, segmenter, waiting, edge, config, next_config, breaks, picker });
    }

    pub(super) fn add_ladder(&mut self, inits: &[VideoInit]) {
        let Some(video) = self.video.clone() else { return };
        for (rendition, init) in video.renditions.iter().zip(inits) {
            let kind = Kind::Video { rate: Some(self.grid.cadence.rate) };
            let section = ladder_init(rendition, init, self.grid);
            let cap = rendition.bitrate + AUDIO_BITRATE;
            let segmenter = self.segmenter(&rendition.name, kind, cap, section, Cut::Frames);
            self.output.add(Arc::clone(segmenter.output()));
            let from = self.resumed.as_ref().map_or(0, |resumed| resumed.from);
            self.ladder.push(LadderTrack::new(segmenter, self.grid, from));
        }
    }

    pub(super) fn plan_audio(&mut self, tracks: &[PlannedAudio]) -> Vec<Audio> {
        let mut planned = Vec::new();
        let default =
            tracks.iter().position(|track| track.role == AudioRole::Main && track.config.is_some()).unwrap_or(0);
        for (index, PlannedAudio { pid, language, role, config }) in tracks.iter().enumerate().take(limits::TRACKS_MAX)
        {
            let Some(config) = config else {
                planned.push(Audio::Absent);
                continue;
            };
            let language = language.clone();
            let name = audio_name(language.as_deref(), index + 1);
            let kind = Kind::Audio { language, default: index == default, role: *role };
            if config.passes_through() {
                let out = self.audio_track(&name, kind, config);
                planned.push(Audio::Passed { pid: *pid, out, config: config.clone() });
            } else {
                planned.push(Audio::Encoded { pid: *pid, config: config.clone(), name, kind, out: None });
            }
        }
        planned
    }

    pub(super) fn make_encoded_audio(&mut self, configs: &[AudioConfig]) {
        let mut configs = configs.iter();
        let mut audio = std::mem::take(&mut self.audio);
        for track in &mut audio {
            if let Audio::Encoded { name, kind, out, .. } = track
                && let Some(config) = configs.next()
            {
                let config = AudioConfig { codec: Codec::Aac, ..config.clone() };
                *out = Some(self.audio_track(name, kind.clone(), &config));
            }
        }
        self.audio = audio;
    }

    fn audio_track(&mut self, name: &str, kind: Kind, config: &AudioConfig) -> AudioTrack {
        let init = InitSection::audio(config, AUDIO_BITRATE);
        let cut = if self.source.is_some() { Cut::Source } else { Cut::Audio };
        let segmenter = self.segmenter(name, kind, AUDIO_BITRATE, init, cut);
        let silence = silence::frame(config.channels).map(Bytes::from_static);
        let mut track = AudioTrack::new(segmenter, self.grid, config.sample_rate, silence);
        if self.resumed.is_some() {
            track.resume(self.resume_part(), self.first_sound(config.sample_rate));
        }
        track
    }

    /// The first part that this process makes.
    fn resume_part(&self) -> (u64, u32) {
        let place = self.resumed.as_ref().map(|resumed| self.grid.place_frame(resumed.from));
        place.map_or((0, 0), |place| (place.msn, place.part))
    }

    /// The first audio frame that this process makes.
    pub(super) fn first_sound(&self, rate: u32) -> i64 {
        self.resumed.as_ref().map_or(0, |resumed| self.grid.audio_at_frame(resumed.from, rate))
    }

    pub(super) fn add_audio_outputs(&mut self) {
        for audio in &mut self.audio {
            if let Audio::Passed { out, .. } | Audio::Encoded { out: Some(out), .. } = audio {
                self.output.add(Arc::clone(out.segmenter().output()));
            }
        }
    }

    /// The part that goes on now, by the clock: those before it are over.
    fn due_part(&self) -> (u64, u32) {
        self.resumed.as_ref().map_or((0, 0), |resumed| {
            let nanos = self.line.nanos_of(&self.grid, resumed.now.wall);
            let place = self.grid.place_frame(self.grid.frame_at_nanos(nanos).max(0));
            (place.msn, place.part)
        })
    }

    /// A rendition's output and its segmenter, with what is listed of the past.
    fn segmenter(&mut self, name: &str, kind: Kind, bandwidth_cap: u64, init: InitSection, cut: Cut) -> Segmenter {
        let mut before = Before::default();
        let (until, due) = (self.resume_part(), self.due_part());
        let listed = until.0.saturating_sub(self.targets.window_segments as u64).max(self.grid.msn0);
        if let Some(Resumed { kept, changed, .. }) = &mut self.resumed {
            before.discontinuities = kept.breaks.iter().filter(|msn| **msn < listed).count() as u64;
            let marks = kept.inits.as_ref().map_or(&[][..], |inits| &inits.marks);
            if let Some(mark) = marks.iter().find(|mark| mark.rendition == name) {
                let same = *mark == InitMark::of(name, mark.map, &init.bytes);
                before.map = mark.map + u32::from(!same);
                *changed |= !same;
            }
        }
        let output = RenditionOutput::new(RenditionSpec {
            session: self.session.clone(),
            name: name.to_owned(),
            kind,
            targets: self.targets,
            independent_segments: self.independent,
            bandwidth_cap,
            retained_bytes_max: self.targets.bytes_max(bandwidth_cap, cut == Cut::Source),
            before,
        });
        let Some(Resumed { kept, now, .. }) = &self.resumed else {
            return Segmenter::new(output, init, cut, self.grid, self.line);
        };
        let mut lines = kept.lines.iter().copied();
        let mut segmenter = Segmenter::new(output, init, cut, self.grid, lines.next().unwrap_or(self.line));
        lines.for_each(|line| segmenter.date_line(line));
        segmenter.resume(now.mono, listed, due, until, &kept.breaks);
        segmenter
    }
}

/// The init section of a ladder rendition.
pub(super) fn ladder_init(rendition: &OpenRendition, init: &VideoInit, grid: Grid) -> InitSection {
    let (codec, profile) = match rendition.codec {
        VideoCodec::H264 => match init.sps.get(1..4) {
            Some([profile, constraints, level]) => (Codec::H264, [*profile, *constraints, *level]),
            _ => (Codec::H264, [0; 3]),
        },
        VideoCodec::Hevc => {
            let general = Sps::parse(&init.sps).map(|sps| sps.profile);
            (Codec::H265, general.map_or([0; 3], |p| [p.idc, u8::from(p.high_tier), p.level]))
        }
    };
    let config = VideoConfig {
        codec,
        width: rendition.width,
        height: rendition.height,
        sar: rendition.sar,
        rate: Some(grid.cadence.rate),
        interlaced: false,
        colour: rendition.colour,
        profile,
        bit_depth: 8,
        chroma_format: 1,
        reorder: None,
        sps: init.sps.clone(),
        pps: init.vps.iter().chain([&init.pps]).cloned().collect(),
    };
    InitSection::video(&config, grid.cadence.timescale(), rendition.bitrate)
}

//! One rendition's bytes, judged against what its playlist says of them [BMFF 8.8].

use bytes::Bytes;

use super::Log;
use super::judge::Track;
use super::parse::PartLine;
use crate::media::channel::VideoCodec;
use crate::package::fmp4::read::{self, Fragment};
use crate::time::Now;

/// A fetched part.
#[derive(Clone, Debug)]
pub(super) struct PartMedia {
    bytes: Bytes,
    /// First and behind-last decode time.
    start: u64,
    end: u64,
    /// Samples flagged as sync, and those that really start with an IDR picture; equal for audio.
    sync: usize,
    idr: usize,
}

impl Track {
    pub(super) fn init(&mut self, log: &mut Log, uri: String, status: u16, body: &Bytes) {
        self.busy = false;
        match read::init(body).filter(|_| status == 200) {
            Some(init) => {
                self.judge_codec(log, &uri, &init);
                self.inits.insert(uri, init);
            }
            None => log.broken(format!("{uri}: status {status}, or no initialization section")),
        }
    }

    /// The multivariant playlist said what decoder this rendition needs. With a second init section it may have said so
    /// before it was the first one's turn.
    fn judge_codec(&self, log: &mut Log, uri: &str, init: &read::TrackInit) {
        let (Some(said), Some(codecs)) = (&self.codecs, &init.codecs) else { return };
        let one = self.segments.values().all(|s| s.map.as_deref() == Some(uri));
        if self.inits.is_empty() && one && !said.split(',').any(|codec| codec.trim() == codecs) {
            log.broken(format!("{uri}: is {codecs}, the multivariant playlist says CODECS={said:?}"));
        }
    }

    pub(super) fn part(&mut self, log: &mut Log, msn: u64, index: usize, status: u16, body: &Bytes) {
        self.busy = false;
        if status != 200 {
            log.broken(format!("{}: part {msn}.{index} is listed but gives {status}", self.uri));
            return;
        }
        self.take_part(log, msn, index, body);
    }

    /// The hint's answer comes before or after its listing.
    pub(super) fn hinted(&mut self, log: &mut Log, now: Now, uri: String, status: u16, body: &Bytes) {
        self.hint_out = None;
        let listed = self.segments.values().rev().take(3).find_map(|s| {
            let index = s.parts.iter().position(|p| p.uri == uri)?;
            Some((s.msn, index, s.parts[index].gap))
        });
        if status != 200 {
            if let Some((msn, index, false)) = listed {
                self.want_part(msn, index, uri);
            }
            return;
        }
        log.report.hints += 1;
        match listed {
            Some((msn, index, _)) => self.take_part(log, msn, index, body),
            None if self.hint.as_ref() != Some(&uri) => {
                log.broken(format!("{}: {uri} was served and never listed", self.uri))
            }
            None => self.served = Some((uri, body.clone(), now.mono)),
        }
    }

    /// A part's line came: does it belong to the bytes that the hint gave?
    pub(super) fn listed_part(&mut self, log: &mut Log, now: Now, msn: u64, index: usize, line: &PartLine) {
        let Some((_, bytes, at)) = self.served.take_if(|(uri, ..)| *uri == line.uri) else { return };
        let target = self.promises.as_ref().map_or(0, |p| p.part_target);
        let late = now.mono.since(at);
        if late.as_micros() > u128::from(target) {
            log.broken(format!("{}: part {msn}.{index} was listed {late:?} after its hint was served", self.uri));
        }
        self.take_part(log, msn, index, &bytes);
    }

    fn take_part(&mut self, log: &mut Log, msn: u64, index: usize, body: &Bytes) {
        let name = format!("{}: part {msn}.{index}", self.uri);
        let Some(line) = self.segments.get(&msn).and_then(|s| s.parts.get(index)).cloned() else { return };
        let codec = self.current(msn).filter(|init| init.video).map(|init| init.codec);
        let media = match read_part(body, codec) {
            Ok(media) => media,
            Err(words) => return log.broken(format!("{name}: {words}")),
        };
        if (media.sync > 0) != line.independent {
            log.broken(format!("{name}: INDEPENDENT={} with {} sync samples", line.independent, media.sync));
        }
        if media.sync != media.idr {
            log.broken(format!("{name}: {} sync samples, {} of them IDR pictures", media.sync, media.idr));
        }
        if let Some(init) = self.current(msn) {
            let duration = (media.end - media.start).saturating_mul(1_000_000) / u64::from(init.timescale);
            if duration.abs_diff(line.duration) > 20 {
                log.broken(format!("{name}: DURATION is {} us, its media {duration} us", line.duration));
            }
        }
        self.judge_contiguous(log, msn, index, &media);
        self.parts.insert((msn, index), media);
    }

    /// Decode times of neighbouring parts meet, unless a discontinuity or a gap lies between.
    fn judge_contiguous(&self, log: &mut Log, msn: u64, index: usize, media: &PartMedia) {
        let opens = index == 0 && self.segments.get(&msn).is_some_and(|s| s.discontinuity);
        let before = match index.checked_sub(1) {
            Some(before) => self.parts.get(&(msn, before)),
            None => {
                let last = msn.checked_sub(1).and_then(|m| self.segments.get(&m).map(|s| (m, s)));
                last.and_then(|(m, s)| self.parts.get(&(m, s.parts.len().checked_sub(1)?)))
            }
        };
        if let Some(before) = before
            && !opens
            && before.end != media.start
        {
            let name = format!("{}: part {msn}.{index}", self.uri);
            log.broken(format!("{name}: tfdt is {}, the part before ends at {}", media.start, before.end));
        }
    }

    pub(super) fn segment(&mut self, log: &mut Log, msn: u64, status: u16, body: &Bytes) {
        self.busy = false;
        let name = format!("{}: segment {msn}", self.uri);
        if status != 200 {
            return log.broken(format!("{name}: is listed but gives {status}"));
        }
        let fragments = match read::fragments(body) {
            Ok(fragments) if !fragments.is_empty() => fragments,
            Ok(_) => return log.broken(format!("{name}: holds no fragment")),
            Err(words) => return log.broken(format!("{name}: {words}")),
        };
        if self.frames {
            log.report.pictures += 1;
            self.judge_picture(log, &name, msn, &fragments, body);
        }
        let Some(line) = self.segments.get(&msn).cloned() else { return };
        let own: Vec<&PartMedia> = (0..line.parts.len()).filter_map(|i| self.parts.get(&(msn, i))).collect();
        if !own.is_empty() && own.len() == line.parts.len() {
            let joined: usize = own.iter().map(|p| p.bytes.len()).sum();
            let mut rest = &body[..];
            let equal = joined == body.len()
                && own.iter().all(|p| {
                    let (head, tail) = rest.split_at(p.bytes.len().min(rest.len()));
                    rest = tail;
                    head == &p.bytes[..]
                });
            if !equal {
                log.broken(format!("{name}: is not its parts end to end"));
            }
        }
        self.judge_fragments(log, &name, msn, &fragments);
    }

    fn judge_fragments(&mut self, log: &mut Log, name: &str, msn: u64, fragments: &[Fragment]) {
        let Some(line) = self.segments.get(&msn).cloned() else { return };
        if fragments.windows(2).any(|w| w[0].end() != w[1].start) {
            log.broken(format!("{name}: its fragments do not meet"));
        }
        if self.independent && !fragments[0].samples.first().is_some_and(|s| s.sync) {
            log.broken(format!("{name}: does not start with a sync sample"));
        }
        let Some(timescale) = self.current(msn).map(|init| init.timescale) else { return };
        let span =
            fragments.iter().map(Fragment::duration).sum::<u64>().saturating_mul(1_000_000) / u64::from(timescale);
        if span.abs_diff(line.duration()) > 20 {
            log.broken(format!("{name}: EXTINF is {} us, its media {span} us", line.duration()));
        }
        // PROGRAM-DATE-TIME less decode time stays what it was, drift aside.
        let shown = fragments[0].samples.first().map_or(0, |s| i64::from(s.cto));
        let start = i64::try_from(fragments[0].start).unwrap_or(0) + shown;
        let Some(at) = line.date_time else { return };
        let millis = i64::try_from(i128::from(start) * 1_000 / i128::from(timescale)).unwrap_or(0);
        let offset = at - millis;
        if let Some((last, before)) = self.last_tfdt
            && last < msn
            && !self.segments.range(last + 1..=msn).any(|(_, s)| s.discontinuity)
            && offset.abs_diff(before) > 20
        {
            log.broken(format!("{name}: PROGRAM-DATE-TIME moved {} ms against tfdt", offset - before));
        }
        self.last_tfdt = Some((msn, offset));
    }

    /// An entry of an I-frame playlist is one picture that needs no other.
    fn judge_picture(&self, log: &mut Log, name: &str, msn: u64, fragments: &[Fragment], body: &Bytes) {
        let samples: Vec<_> = fragments.iter().flat_map(|f| &f.samples).collect();
        let codec = self.current(msn).map(|init| init.codec);
        match samples[..] {
            [one] if one.sync && codec.is_none_or(|codec| read::is_idr(codec, &body[one.data.clone()])) => {}
            _ => log.broken(format!("{name}: is no single IDR picture")),
        }
    }

    /// A segment's init section.
    fn current(&self, msn: u64) -> Option<&read::TrackInit> {
        self.inits.get(self.segments.get(&msn)?.map.as_ref()?)
    }
}

/// `codec`: of a picture track.
fn read_part(body: &Bytes, codec: Option<VideoCodec>) -> Result<PartMedia, String> {
    let fragments = read::fragments(body)?;
    let [fragment] = &fragments[..] else {
        return Err(format!("{} fragments, one was expected", fragments.len()));
    };
    if fragment.samples.is_empty() {
        return Err("holds no sample".to_owned());
    }
    let sync: Vec<&read::SampleAt> = fragment.samples.iter().filter(|s| s.sync).collect();
    let is_idr = |s: &&&read::SampleAt| codec.is_none_or(|codec| read::is_idr(codec, &body[s.data.clone()]));
    Ok(PartMedia {
        bytes: body.clone(),
        start: fragment.start,
        end: fragment.end(),
        idr: sync.iter().filter(is_idr).count(),
        sync: sync.len(),
    })
}

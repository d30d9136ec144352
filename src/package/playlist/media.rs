//! The media playlist, in the pieces that never change once written [HLS 4.4.3, 4.4.4, 4.4.5].

use std::fmt::Write;

use super::super::part::Part;
use super::super::window::Targets;
use super::tags::{Millis, Quoted, Seconds, VERSION_MAP, VERSION_SKIP, VERSION_SKIP_DATES};
use crate::time::Wall;

/// What comes first. The version is the one that the tags ask for [HLS 6.2.1, 8].
pub(crate) fn version(out: &mut String, skips: bool, skips_dates: bool) {
    let version = match (skips, skips_dates) {
        (false, _) => VERSION_MAP,
        (true, false) => VERSION_SKIP,
        (true, true) => VERSION_SKIP_DATES,
    };
    put(out, format_args!("#EXTM3U\n#EXT-X-VERSION:{version}\n"));
}

/// Everything above the segments that is constant for a session.
pub(crate) fn preamble(targets: &Targets) -> String {
    let mut out = control(targets);
    if targets.parts {
        put(&mut out, format_args!("#EXT-X-PART-INF:PART-TARGET={}\n", Millis(targets.part_target_ms)));
    }
    out
}

/// The same of an I-frame playlist: the same promises, and no parts [HLS 4.4.3.6, 6.2.4].
pub(crate) fn iframe_preamble(targets: &Targets) -> String {
    let mut out = control(targets);
    out.push_str("#EXT-X-I-FRAMES-ONLY\n");
    out
}

fn control(targets: &Targets) -> String {
    let mut out = format!("#EXT-X-TARGETDURATION:{}\n#EXT-X-SERVER-CONTROL:", targets.target_duration);
    if targets.parts {
        put(&mut out, format_args!("CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={},", Millis(targets.part_hold_back_ms)));
    }
    put(&mut out, format_args!("HOLD-BACK={},", Millis(targets.hold_back_ms)));
    put(&mut out, format_args!("CAN-SKIP-UNTIL={}.000,CAN-SKIP-DATERANGES=YES\n", targets.can_skip_until));
    out
}

pub(crate) fn sequence(out: &mut String, msn: u64, dsn: u64) {
    put(out, format_args!("#EXT-X-MEDIA-SEQUENCE:{msn}\n#EXT-X-DISCONTINUITY-SEQUENCE:{dsn}\n"));
}

/// `removed`: IDs of date ranges taken off lately, for those who do not want to hear of old ones again.
pub(crate) fn skip(out: &mut String, segments: usize, removed: Option<&str>) {
    put(out, format_args!("#EXT-X-SKIP:SKIPPED-SEGMENTS={segments}"));
    if let Some(removed) = removed {
        // The one quoted-string with tabs; IDs hold none.
        put(out, format_args!(",RECENTLY-REMOVED-DATERANGES=\"{removed}\""));
    }
    out.push('\n');
}

/// `base`: `<session>/<rendition>/`.
pub(crate) fn map(out: &mut String, base: &str, map: u32) {
    put(out, format_args!("#EXT-X-MAP:URI=\"{base}init-{map}.mp4\"\n"));
}

pub(crate) fn date_time(out: &mut String, at: Wall) {
    put(out, format_args!("#EXT-X-PROGRAM-DATE-TIME:{at}\n"));
}

pub(crate) fn part(out: &mut String, base: &str, msn: u64, index: usize, part: &Part, timescale: u32) {
    let duration = Seconds { ticks: part.duration, timescale };
    put(out, format_args!("#EXT-X-PART:DURATION={duration},URI=\"{base}p{msn}.{index}.m4s\""));
    if part.independent {
        out.push_str(",INDEPENDENT=YES");
    }
    if part.bytes.is_none() {
        out.push_str(",GAP=YES");
    }
    out.push('\n');
}

pub(crate) fn segment(out: &mut String, base: &str, msn: u64, duration: Seconds, gap: bool) {
    if gap {
        out.push_str("#EXT-X-GAP\n");
    }
    put(out, format_args!("#EXTINF:{duration},\n{base}s{msn}.m4s\n"));
}

/// An entry of an I-frame playlist: a segment's first picture, which is shown until the next one. `gap`: it cannot be
/// had.
pub(crate) fn iframe(out: &mut String, base: &str, msn: u64, duration: Seconds, gap: bool) {
    if gap {
        out.push_str("#EXT-X-GAP\n");
    }
    put(out, format_args!("#EXTINF:{duration},\n{base}i{msn}.m4s\n"));
}

pub(crate) fn hint(out: &mut String, base: &str, msn: u64, index: usize) {
    put(out, format_args!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{base}p{msn}.{index}.m4s\"\n"));
}

/// `part`: `None` for a playlist without parts.
pub(crate) fn report(out: &mut String, uri: &str, msn: u64, part: Option<u32>) {
    put(out, format_args!("#EXT-X-RENDITION-REPORT:URI={},LAST-MSN={msn}", Quoted(uri)));
    if let Some(part) = part {
        put(out, format_args!(",LAST-PART={part}"));
    }
    out.push('\n');
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes any text");
}

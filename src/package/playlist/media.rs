//! The media playlist, in the pieces that never change once written [HLS 4.4.3, 4.4.4, 4.4.5].

use std::fmt::Write;

use super::super::part::Part;
use super::super::window::Targets;
use super::tags::{Millis, Quoted, Seconds, VERSION};
use crate::time::Wall;

/// Everything above the segments that is constant for a session.
pub(crate) fn preamble(targets: &Targets, independent: bool) -> String {
    let mut out = format!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-TARGETDURATION:{}\n", targets.target_duration);
    out.push_str("#EXT-X-SERVER-CONTROL:");
    if targets.parts {
        put(&mut out, format_args!("CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={},", Millis(targets.part_hold_back_ms)));
    }
    put(&mut out, format_args!("HOLD-BACK={},", Millis(targets.hold_back_ms)));
    put(&mut out, format_args!("CAN-SKIP-UNTIL={}.000\n", targets.can_skip_until));
    if targets.parts {
        put(&mut out, format_args!("#EXT-X-PART-INF:PART-TARGET={}\n", Millis(targets.part_target_ms)));
    }
    if independent {
        out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    }
    out
}

pub(crate) fn sequence(out: &mut String, msn: u64, dsn: u64) {
    put(out, format_args!("#EXT-X-MEDIA-SEQUENCE:{msn}\n#EXT-X-DISCONTINUITY-SEQUENCE:{dsn}\n"));
}

pub(crate) fn skip(out: &mut String, segments: usize) {
    put(out, format_args!("#EXT-X-SKIP:SKIPPED-SEGMENTS={segments}\n"));
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

pub(crate) fn hint(out: &mut String, base: &str, msn: u64, index: usize) {
    put(out, format_args!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{base}p{msn}.{index}.m4s\"\n"));
}

pub(crate) fn report(out: &mut String, rendition: &str, msn: u64, part: u32) {
    let uri = format!("{rendition}.m3u8");
    put(out, format_args!("#EXT-X-RENDITION-REPORT:URI={},LAST-MSN={msn},LAST-PART={part}\n", Quoted(&uri)));
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes any text");
}

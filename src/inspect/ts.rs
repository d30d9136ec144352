//! `rung inspect ts`: a transport stream as the demuxer sees it, one line per event, and a summary.
//!
//! Columns of the table:
//! `byte` offset behind the packet that completed the event · `what` program, config, unit, cue, id3, pcr, recovery, gop
//! or fault · `pid` · `pts`, `dts` unwrapped 90 kHz (a pcr's base, a cue's splice time in `pts`) · `bytes` of the unit · `flags` K random access, D
//! damaged · note: for a unit its step since the one before (ms) and how far it runs ahead of the clock (ms); for a pcr
//! its distance from the one before (ms); for a gop its frames and seconds; for a fault what was wrong.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crate::demux::{Demuxer, Event};
use crate::media::access_unit::AccessUnit;
use crate::media::fault::Fault;
use crate::media::marker::{Cue, Tag};
use crate::media::track::{Codec, Pid, Program, TrackConfig};
use crate::mpegts::PACKET_BYTES;
use crate::mpegts::scte35::{Command, Edge, Segment, Splice, When};
use crate::time::{Mono, Pts};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Table,
    /// One JSON object per line; the last one is the summary.
    Json,
    /// The summary alone, as text.
    Summary,
}

/// Dumps everything `input` holds.
///
/// # Errors
/// Reading `input` or writing `out` failed; a closed pipe is no failure.
pub fn dump(mut input: impl Read, out: impl Write, form: Form) -> io::Result<()> {
    let (tracks, faults, markers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut dump = Dump { out, form, byte: 0, tracks, clock: Clock::default(), faults, markers };
    match dump.run(&mut input) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

struct Dump<W> {
    out: W,
    form: Form,
    byte: u64,
    tracks: BTreeMap<Pid, Stats>,
    clock: Clock,
    faults: BTreeMap<&'static str, u64>,
    /// Cues and tags by PID and kind.
    markers: BTreeMap<(Pid, &'static str), u64>,
}

/// The program clock, and the arrival time that follows from it.
#[derive(Default)]
struct Clock {
    last: Option<i64>,
    now: Mono,
    readings: u64,
    interval_max: i64,
    jumps: u64,
}

/// What a track's units were like.
struct Stats {
    codec: Codec,
    units: u64,
    damaged: u64,
    bytes: u64,
    first: AtTime,
    last: AtTime,
    pts_end: i64,
    steps: Option<(i64, i64)>,
    leads: Option<(i64, i64)>,
    gops: Gops,
}

#[derive(Clone, Copy)]
struct AtTime {
    pts: i64,
    dts: i64,
}

#[derive(Default)]
struct Gops {
    /// Unit number and DTS of the last random access point.
    open: Option<(u64, i64)>,
    count: u64,
    frames: Option<(u64, u64)>,
}

/// One line of the dump.
#[derive(Default)]
struct Row {
    what: &'static str,
    pid: Option<Pid>,
    pts: Option<i64>,
    dts: Option<i64>,
    bytes: Option<usize>,
    flags: String,
    note: String,
    more: Option<Value>,
}

impl<W: Write> Dump<W> {
    fn run(&mut self, input: &mut impl Read) -> io::Result<()> {
        if self.form == Form::Table {
            writeln!(
                self.out,
                "{:>10} {:<8} {:>6} {:>14} {:>14} {:>8} {:<5} note",
                "byte", "what", "pid", "pts", "dts", "bytes", "flags"
            )?;
        }
        let (mut demuxer, mut buffer) = (Demuxer::new(), vec![0; 348 * PACKET_BYTES]);
        loop {
            let got = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            for piece in buffer[..got].chunks(PACKET_BYTES) {
                self.byte += piece.len() as u64;
                demuxer.push(self.clock.now, piece);
                self.drain(&mut demuxer)?;
            }
        }
        demuxer.flush(self.clock.now);
        self.drain(&mut demuxer)?;
        self.summary(&demuxer)?;
        self.out.flush()
    }

    fn drain(&mut self, demuxer: &mut Demuxer) -> io::Result<()> {
        while let Some(event) = demuxer.poll() {
            match event {
                Event::Program(program) => self.program(&program)?,
                Event::Config { pid, config } => self.config(pid, &config)?,
                Event::Unit(unit) => self.unit(&unit)?,
                Event::RecoveryPoint { pid, pts, frames } => {
                    let note = format!("pictures are right {frames} frames on");
                    self.row(Row { what: "recovery", pid: Some(pid), pts: Some(pts.0), note, ..Row::default() })?;
                }
                Event::Cue(cue) => self.cue(&cue)?,
                Event::Tag(tag) => self.tag(&tag)?,
                Event::Pcr { pid, pcr, discontinuity, .. } => self.pcr(pid, pcr, discontinuity)?,
                Event::Fault(fault) => self.fault(&fault)?,
            }
        }
        Ok(())
    }

    fn program(&mut self, program: &Program) -> io::Result<()> {
        let track = |t: &crate::media::track::Track| {
            let language = t.language.as_deref().map(|l| format!(" {l}")).unwrap_or_default();
            format!("{:#06x} {:?}{language}", t.pid, t.codec)
        };
        let tracks: Vec<String> = program.tracks.iter().map(track).collect();
        let note = format!("number {}, {}", program.number, tracks.join(", "));
        self.row(Row { what: "program", pid: program.pcr_pid, note, ..Row::default() })
    }

    fn config(&mut self, pid: Pid, config: &TrackConfig) -> io::Result<()> {
        let note = match config {
            TrackConfig::Video(v) => format!(
                "{:?} {}x{}, sample aspect {}:{}, {}, profile {:02x}{:02x}{:02x}, {} bit, chroma {}, colour {}/{}/{}{}{}",
                v.codec,
                v.width,
                v.height,
                v.sar.0,
                v.sar.1,
                v.rate.map_or("no rate".into(), |r| format!("{}/{} frames/s", r.num, r.den)),
                v.profile[0],
                v.profile[1],
                v.profile[2],
                v.bit_depth,
                v.chroma_format,
                v.colour.primaries,
                v.colour.transfer,
                v.colour.matrix,
                if v.colour.full_range { " full range" } else { "" },
                if v.interlaced { ", interlaced" } else { "" },
            ),
            TrackConfig::Audio(a) => {
                format!("{:?} object type {}, {} Hz, {} channels", a.codec, a.object_type, a.sample_rate, a.channels)
            }
        };
        self.row(Row { what: "config", pid: Some(pid), note, ..Row::default() })
    }

    fn unit(&mut self, unit: &AccessUnit) -> io::Result<()> {
        let (pts, dts) = (unit.pts.0, unit.dts.0);
        let lead = self.clock.last.map(|pcr| dts - pcr / 300);
        let stats = self.tracks.entry(unit.pid).or_insert_with(|| Stats::new(unit));
        let step = (stats.units > 0).then(|| dts - stats.last.dts);
        let gop = if unit.codec.is_video() && unit.random_access { stats.gops.start(stats.units, dts) } else { None };
        stats.take(unit, step, lead);
        let mut note = step.map_or(String::new(), |step| format!("step {:.3}", ms(step)));
        if let Some(lead) = lead {
            note += &format!(" lead {:.1}", ms(lead));
        }
        if let Some((frames, ticks)) = gop {
            let note = format!("{frames} frames, {:.3} s", ticks as f64 / 90_000.0);
            self.row(Row { what: "gop", pid: Some(unit.pid), dts: Some(dts), note, ..Row::default() })?;
        }
        self.row(Row {
            what: "unit",
            pid: Some(unit.pid),
            pts: Some(pts),
            dts: Some(dts),
            bytes: Some(unit.data.len()),
            flags: [(unit.random_access, 'K'), (unit.damaged, 'D')].iter().filter(|f| f.0).map(|f| f.1).collect(),
            note,
            more: Some(json!({ "step_ms": step.map(ms), "lead_ms": lead.map(ms) })),
        })
    }

    fn cue(&mut self, cue: &Cue) -> io::Result<()> {
        *self.markers.entry((cue.pid, cue.info.command.name())).or_default() += 1;
        let (mut note, section) = (cue.info.command.name().to_owned(), format!("0x{:x}", cue.section));
        if let Command::Insert(insert) = &cue.info.command {
            note += &format!(" event {:#x}, {}", insert.event, splice(insert.splice.as_ref()));
        }
        for segmentation in &cue.info.segmentations {
            note +=
                &format!(", segmentation event {:#x} {}", segmentation.event, segment(segmentation.segment.as_ref()));
        }
        if cue.info.at() == Some(When::Now) {
            note += ", at once";
        }
        let more = json!({ "command": cue.info.command.name(), "section": section });
        let (pid, pts, bytes) = (Some(cue.pid), cue.pts.map(|pts| pts.0), Some(cue.section.len()));
        self.row(Row { what: "cue", pid, pts, bytes, note, more: Some(more), ..Row::default() })
    }

    fn tag(&mut self, tag: &Tag) -> io::Result<()> {
        *self.markers.entry((tag.pid, "id3")).or_default() += 1;
        let (pid, pts, bytes) = (Some(tag.pid), Some(tag.pts.0), Some(tag.data.len()));
        let text: String = tag.data.iter().skip(10).map(|b| char::from(*b)).filter(|c| c.is_ascii_graphic()).collect();
        let note = format!("ID3 {}", &text[..text.len().min(60)]);
        self.row(Row { what: "id3", pid, pts, bytes, note, ..Row::default() })
    }

    fn pcr(&mut self, pid: Pid, pcr: i64, discontinuity: bool) -> io::Result<()> {
        let step = self.clock.last.map(|last| pcr - last);
        self.clock.take(pcr, discontinuity);
        let mut note = step.map_or(String::new(), |step| format!("step {:.3}", step as f64 / 27_000.0));
        if discontinuity {
            note += " discontinuity";
        }
        let more = json!({ "pcr_27mhz": pcr, "discontinuity": discontinuity });
        self.row(Row { what: "pcr", pid: Some(pid), pts: Some(pcr / 300), note, more: Some(more), ..Row::default() })
    }

    fn fault(&mut self, fault: &Fault) -> io::Result<()> {
        *self.faults.entry(fault.kind.label()).or_default() += 1;
        let note = format!("{}: {} (packet at byte {})", fault.kind.label(), fault.detail, fault.at.byte);
        self.row(Row { what: "fault", pid: fault.at.pid, pts: fault.at.pts, note, ..Row::default() })
    }

    fn row(&mut self, row: Row) -> io::Result<()> {
        match self.form {
            Form::Summary => Ok(()),
            Form::Json => {
                let mut line = json!({
                    "byte": self.byte, "what": row.what, "pid": row.pid, "pts": row.pts, "dts": row.dts,
                    "bytes": row.bytes, "flags": row.flags, "note": row.note.trim(),
                });
                if let (Some(line), Some(Value::Object(more))) = (line.as_object_mut(), row.more) {
                    line.extend(more);
                }
                writeln!(self.out, "{line}")
            }
            Form::Table => {
                let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
                writeln!(
                    self.out,
                    "{:>10} {:<8} {:>6} {:>14} {:>14} {:>8} {:<5} {}",
                    self.byte,
                    row.what,
                    or_dash(row.pid.map(|pid| format!("{pid:#06x}"))),
                    or_dash(row.pts.map(|t| t.to_string())),
                    or_dash(row.dts.map(|t| t.to_string())),
                    or_dash(row.bytes.map(|b| b.to_string())),
                    or_dash(Some(row.flags).filter(|f| !f.is_empty())),
                    row.note.trim()
                )
            }
        }
    }

    fn summary(&mut self, demuxer: &Demuxer) -> io::Result<()> {
        let counters = demuxer.counters();
        // Picture and sound belong together if their first units are shown together.
        let of = |video: bool| self.tracks.values().find(|t| t.codec.is_video() == video);
        let offset = of(true).zip(of(false)).map(|(v, a)| (a.first.pts - v.first.pts, a.pts_end - v.pts_end));
        if self.form == Form::Json {
            let tracks: Vec<Value> = self.tracks.iter().map(|(pid, stats)| stats.json(*pid)).collect();
            let marker =
                |((pid, kind), count): (&(Pid, &str), &u64)| json!({ "pid": pid, "kind": kind, "count": count });
            let markers: Vec<Value> = self.markers.iter().map(marker).collect();
            let summary = json!({
                "what": "summary", "tracks": tracks, "markers": markers, "counters": counters, "faults": self.faults,
                "av_offset_start_ms": offset.map(|o| ms(o.0)), "av_offset_end_ms": offset.map(|o| ms(o.1)),
                "pcr": { "count": self.clock.readings, "interval_max_ms": self.clock.interval_max as f64 / 27_000.0,
                         "jumps": self.clock.jumps },
            });
            return writeln!(self.out, "{summary}");
        }
        writeln!(self.out, "summary")?;
        for (pid, stats) in &self.tracks {
            writeln!(self.out, "  {pid:#06x} {}", stats.text())?;
        }
        for ((pid, kind), count) in &self.markers {
            writeln!(self.out, "  {pid:#06x} {kind}: {count}")?;
        }
        if let Some((start, end)) = offset {
            writeln!(
                self.out,
                "  audio against video: {:+.1} ms at the start, {:+.1} ms at the end",
                ms(start),
                ms(end)
            )?;
        }
        let interval = self.clock.interval_max as f64 / 27_000.0;
        let (count, jumps) = (self.clock.readings, self.clock.jumps);
        writeln!(self.out, "  clock: {count} references, at most {interval:.1} ms apart, {jumps} jumps")?;
        if let Ok(Value::Object(all)) = serde_json::to_value(counters) {
            let counted = all.iter().filter(|(name, v)| *name != "pcr_jitter_us" && v.as_u64() != Some(0));
            let text: Vec<String> = counted.map(|(name, value)| format!("{name} {value}")).collect();
            writeln!(self.out, "  counters: {}", text.join(", "))?;
        }
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(self.out, "  faults: {}", if faults.is_empty() { "none".into() } else { faults.join(", ") })
    }
}

impl Clock {
    /// A file has no arrival times: its own clock stands for them.
    fn take(&mut self, pcr: i64, discontinuity: bool) {
        self.readings += 1;
        self.jumps += u64::from(discontinuity);
        if let Some(last) = self.last.replace(pcr)
            && !discontinuity
        {
            let step = pcr - last;
            self.interval_max = self.interval_max.max(step);
            self.now = Mono(self.now.0.saturating_add(u64::try_from(step).unwrap_or(0).saturating_mul(1_000) / 27));
        }
    }
}

impl Stats {
    fn new(unit: &AccessUnit) -> Stats {
        let at = AtTime { pts: unit.pts.0, dts: unit.dts.0 };
        Stats {
            codec: unit.codec,
            units: 0,
            damaged: 0,
            bytes: 0,
            first: at,
            last: at,
            pts_end: at.pts,
            steps: None,
            leads: None,
            gops: Gops::default(),
        }
    }

    fn take(&mut self, unit: &AccessUnit, step: Option<i64>, lead: Option<i64>) {
        self.units += 1;
        self.damaged += u64::from(unit.damaged);
        self.bytes += unit.data.len() as u64;
        self.last = AtTime { pts: unit.pts.0, dts: unit.dts.0 };
        // The first picture decoded is not always the first shown.
        self.first.pts = if self.units < 20 { self.first.pts.min(unit.pts.0) } else { self.first.pts };
        self.pts_end = self.pts_end.max(unit.pts.0);
        self.steps = step.map_or(self.steps, |step| Some(widen(self.steps, step)));
        self.leads = lead.map_or(self.leads, |lead| Some(widen(self.leads, lead)));
    }

    fn seconds(&self) -> f64 {
        (self.last.dts - self.first.dts) as f64 / 90_000.0
    }

    /// Units and bits per second.
    fn rates(&self) -> (f64, f64) {
        let seconds = self.seconds();
        if seconds <= 0.0 {
            return (0.0, 0.0);
        }
        ((self.units - 1) as f64 / seconds, self.bytes as f64 * 8.0 / seconds)
    }

    fn text(&self) -> String {
        let (rate, bits) = self.rates();
        let range = |r: Option<(i64, i64)>| r.map_or("-".into(), |(a, b)| format!("{:.3} to {:.3} ms", ms(a), ms(b)));
        let mut text = format!(
            "{:?}: {} units, {} damaged, {:.3} s from pts {}, {rate:.3} units/s, {:.0} kb/s, steps {}, ahead of the clock {}",
            self.codec,
            self.units,
            self.damaged,
            self.seconds(),
            Pts(self.first.pts),
            bits / 1000.0,
            range(self.steps),
            range(self.leads),
        );
        if let Some((least, most)) = self.gops.frames {
            text += &format!(", {} GOPs of {least} to {most} frames", self.gops.count);
        }
        text
    }

    fn json(&self, pid: Pid) -> Value {
        let (rate, bits) = self.rates();
        json!({
            "pid": pid, "codec": format!("{:?}", self.codec), "units": self.units, "damaged": self.damaged,
            "bytes": self.bytes, "seconds": self.seconds(), "first_pts": self.first.pts, "units_per_s": rate,
            "bits_per_s": bits, "step_min_ms": self.steps.map(|s| ms(s.0)), "step_max_ms": self.steps.map(|s| ms(s.1)),
            "lead_min_ms": self.leads.map(|s| ms(s.0)), "lead_max_ms": self.leads.map(|s| ms(s.1)),
            "gops": self.gops.count, "gop_frames_min": self.gops.frames.map(|f| f.0),
            "gop_frames_max": self.gops.frames.map(|f| f.1),
        })
    }
}

impl Gops {
    /// A random access point at this unit number: the frames and ticks of the GOP that it ends.
    fn start(&mut self, unit: u64, dts: i64) -> Option<(u64, i64)> {
        let (first, from) = self.open.replace((unit, dts))?;
        let frames = unit - first;
        self.count += 1;
        self.frames = Some(self.frames.map_or((frames, frames), |(least, most)| (least.min(frames), most.max(frames))));
        Some((frames, dts - from))
    }
}

fn splice(splice: Option<&Splice>) -> String {
    let Some(splice) = splice else { return "cancelled".to_owned() };
    let way = if splice.out_of_network { "out" } else { "in" };
    let Some(duration) = splice.duration else { return way.to_owned() };
    let returns = if duration.auto_return { " and back by itself" } else { "" };
    format!("{way} for {:.3} s{returns}", duration.ticks as f64 / 90_000.0)
}

fn segment(segment: Option<&Segment>) -> String {
    let Some(segment) = segment else { return "cancelled".to_owned() };
    let edge = match segment.edge() {
        Edge::Start => " start",
        Edge::End => " end",
        Edge::Point => "",
    };
    let lasts = segment.duration.map(|ticks| format!(", {:.3} s", ticks as f64 / 90_000.0)).unwrap_or_default();
    let (about, kind, number, expected) = (segment.about(), segment.kind, segment.number, segment.expected);
    format!("{about}{edge} ({kind:#04x}) {number}/{expected}{lasts}")
}

fn widen(range: Option<(i64, i64)>, value: i64) -> (i64, i64) {
    range.map_or((value, value), |(least, most)| (least.min(value), most.max(value)))
}

/// Milliseconds of 90 kHz ticks.
fn ms(ticks: i64) -> f64 {
    ticks as f64 / 90.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mpegts::Muxer;

    /// Ten units of audio: 5 ADTS frames each 64 bytes long.
    fn stream() -> Vec<u8> {
        let (mut muxer, mut out) = (Muxer::new(false, true), Vec::new());
        let fixed = crate::bitstream::aac::adts::Fixed { object_type: 2, rate_index: 3, channel_configuration: 2 };
        let header = crate::bitstream::aac::adts::Header::write(fixed, 57).expect("short");
        let frame = [&header[..], &[0x21; 57]].concat();
        for n in 0..50 {
            muxer.audio(900_000 + n * 1_920, &frame, &mut out);
        }
        out
    }

    fn text(stream: &[u8], form: Form) -> String {
        let mut out = Vec::new();
        dump(stream, &mut out, form).expect("memory does not fail");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn every_unit_and_clock_reference_has_a_line_and_the_summary_adds_up() {
        let table = text(&stream(), Form::Table);
        assert_eq!(table.lines().filter(|line| line.contains(" unit ")).count(), 50);
        assert!(table.contains("Aac: 50 units, 0 damaged, 1.045 s"), "{table}");
        assert!(table.contains("faults: none"), "{table}");
    }

    #[test]
    fn every_json_line_parses_and_the_last_is_the_summary() {
        let lines: Vec<Value> =
            text(&stream(), Form::Json).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let summary = lines.last().expect("a summary");
        assert_eq!(summary["what"], "summary");
        assert_eq!(summary["tracks"][0]["units"], 50);
        assert_eq!(lines.iter().filter(|line| line["what"] == "unit").count(), 50);
    }

    #[test]
    fn garbage_and_nothing_are_dumped_too() {
        for bytes in [&[][..], &[0x47; 10_000], &[1, 2, 3]] {
            assert!(text(bytes, Form::Table).contains("summary"));
        }
    }

    #[test]
    fn a_closed_pipe_ends_the_dump_in_peace() {
        struct Head(usize);
        impl Write for Head {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for lines in 0..40 {
            dump(&stream()[..], Head(lines), Form::Table).expect("a closed pipe is no failure");
        }
    }
}

//! `rung inspect fmp4 FILE…`: box tree, decode times and sample tables, and whether each file goes on where the one
//! before it ended.

use std::fmt::Write;
use std::ops::Range;

use crate::package::fmp4::read::{self, BoxAt, Fragment, TrackInit};

/// Shows files in the order they are given: an init section first, then parts or segments of the same track.
#[derive(Debug, Default)]
pub struct Inspector {
    init: Option<TrackInit>,
    /// Where the last fragment ended, in the track's timescale.
    end: Option<u64>,
}

/// Boxes that hold only boxes [BMFF 4.2].
const CONTAINERS: [&[u8; 4]; 10] =
    [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"mvex", b"moof", b"traf", b"edts"];

impl Inspector {
    /// The text for one file. `samples`: a line for each sample too.
    pub fn show(&mut self, name: &str, file: &[u8], samples: bool) -> String {
        let mut out = String::new();
        line(&mut out, 0, format_args!("{name}: {} bytes", file.len()));
        self.init = read::init(file).or(self.init.take());
        tree(&mut out, file, 0..file.len(), 1);
        if let Some(codecs) = read::init(file).and_then(|init| init.codecs) {
            line(&mut out, 1, format_args!("CODECS {codecs}"));
        }
        match read::fragments(file) {
            Ok(fragments) => {
                for fragment in &fragments {
                    self.fragment(&mut out, file, fragment, samples);
                }
            }
            Err(words) => line(&mut out, 1, format_args!("BROKEN {words}")),
        }
        out
    }

    fn fragment(&mut self, out: &mut String, file: &[u8], fragment: &Fragment, samples: bool) {
        let scale = self.init.as_ref().map(|i| i.timescale);
        let (start, duration) = (fragment.start, fragment.duration());
        let sync = fragment.samples.iter().filter(|s| s.sync).count();
        line(
            out,
            1,
            format_args!(
                "fragment {}: tfdt {start}{} + {duration}{}, {} samples, {sync} sync",
                fragment.sequence,
                seconds(start, scale),
                seconds(duration, scale),
                fragment.samples.len()
            ),
        );
        if let Some(end) = self.end
            && end != start
        {
            let (word, by) = if start > end { ("GAP", start - end) } else { ("OVERLAP", end - start) };
            line(out, 2, format_args!("{word} of {by}{} behind the fragment before", seconds(by, scale)));
        }
        self.end = Some(start.saturating_add(duration));
        if samples {
            let codec = self.init.as_ref().filter(|i| i.video).map(|i| i.codec);
            for sample in &fragment.samples {
                let nals = codec.map(|codec| read::nal_types(codec, &file[sample.data.clone()]));
                let nals = nals.map_or_else(String::new, |nals| format!(", NAL {nals:?}"));
                let sync = if sample.sync { " sync" } else { "" };
                let (dts, cto, length) = (sample.dts, sample.cto, sample.data.len());
                line(out, 2, format_args!("dts {dts} cto {cto:+} + {}: {length} bytes{sync}{nals}", sample.duration));
            }
        }
    }
}

fn tree(out: &mut String, file: &[u8], range: Range<usize>, depth: usize) {
    let end = range.end;
    let mut at = range.start;
    for one in read::boxes(file, range) {
        at = one.payload.end;
        let BoxAt { start, payload, .. } = &one;
        line(out, depth, format_args!("{} at {start}, {} bytes", one.name(), payload.end - start));
        if CONTAINERS.contains(&&one.kind) {
            tree(out, file, one.payload, depth + 1);
        }
    }
    if at < end {
        line(out, depth, format_args!("BROKEN at {at}: no box fits in {} bytes", end - at));
    }
}

fn seconds(ticks: u64, timescale: Option<u32>) -> String {
    timescale.map_or_else(String::new, |scale| format!(" ({:.5} s)", ticks as f64 / f64::from(scale)))
}

fn line(out: &mut String, depth: usize, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{:1$}{text}", "", depth * 2).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::sample::{Sample, Stamps};
    use crate::media::track::{AudioConfig, Codec};
    use crate::package::fmp4::fragment::fragment;
    use crate::package::fmp4::init::InitSection;
    use bytes::Bytes;

    fn part(dts: i64) -> Bytes {
        let data = Bytes::from_static(&[0, 0, 0, 1, 0x65]);
        fragment(7, &[Sample { dts, duration: 1024, cto: 0, sync: true, data, stamps: Stamps::default() }])
    }

    #[test]
    fn gaps_and_overlaps_between_files_are_shown() {
        let config = AudioConfig {
            codec: Codec::Aac,
            object_type: 2,
            sample_rate: 48_000,
            channels: 2,
            asc: Bytes::from_static(&[0x11, 0x90]),
        };
        let mut inspector = Inspector::default();
        let init = inspector.show("init", &InitSection::audio(&config, 0).bytes, false);
        assert!(init.contains("  moov at") && init.contains("          stsd at"), "{init}");
        let first = inspector.show("a", &part(48_000), true);
        assert!(first.contains("fragment 7: tfdt 48000 (1.00000 s) + 1024 (0.02133 s), 1 samples, 1 sync"), "{first}");
        assert!(first.contains("dts 48000 cto +0 + 1024: 5 bytes sync\n"), "{first}");
        assert!(!inspector.show("b", &part(49_024), false).contains("behind"));
        assert!(inspector.show("c", &part(60_000), false).contains("GAP of 9952 (0.20733 s)"));
        assert!(inspector.show("d", &part(60_000), false).contains("OVERLAP of 1024"));
    }

    #[test]
    fn a_cut_file_is_shown_up_to_the_cut() {
        let file = part(0);
        let text = Inspector::default().show("cut", &file[..file.len() - 3], false);
        assert!(text.contains("  moof at 0") && text.contains("BROKEN"), "{text}");
    }
}

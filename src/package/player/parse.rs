//! Playlists read back, as a player reads them [HLS 4.2]. Unknown tags are skipped [HLS 6.3.1].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Attribute lists: name to value, quotes taken off.
pub type Attributes = BTreeMap<String, String>;

/// What must not change while a session lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    pub target_duration: u64,
    pub server_control: Attributes,
    /// Microseconds; 0: no parts.
    pub part_target: u64,
}

impl Promises {
    /// A decimal attribute of EXT-X-SERVER-CONTROL in microseconds; 0 if absent.
    pub fn control(&self, name: &str) -> u64 {
        self.server_control.get(name).and_then(|v| micros(v)).unwrap_or(0)
    }

    pub fn blocks(&self) -> bool {
        self.server_control.get("CAN-BLOCK-RELOAD").is_some_and(|v| v == "YES")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaPlaylist {
    pub version: u32,
    /// EXT-X-I-FRAMES-ONLY.
    pub frames: bool,
    pub promises: Promises,
    pub msn: u64,
    pub dsn: u64,
    pub skipped: u64,
    /// RECENTLY-REMOVED-DATERANGES.
    pub removed: Option<Vec<String>>,
    /// EXT-X-DATERANGE, tags of one ID put together, by ID.
    pub dates: BTreeMap<String, Attributes>,
    /// Those written out, the first with number `msn + skipped`.
    pub segments: Vec<SegmentLine>,
    pub hint: Option<String>,
    /// Playlist URI, LAST-MSN, LAST-PART.
    pub reports: Vec<(String, u64, u64)>,
    pub ended: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentLine {
    pub msn: u64,
    pub discontinuity: bool,
    pub gap: bool,
    pub map: Option<String>,
    /// Milliseconds since 1970.
    pub date_time: Option<i64>,
    /// EXTINF in microseconds and the URI; `None` while it is open.
    pub whole: Option<(u64, String)>,
    pub parts: Vec<PartLine>,
}

impl SegmentLine {
    /// Microseconds: EXTINF, or the parts so far.
    pub fn duration(&self) -> u64 {
        self.whole.as_ref().map_or_else(|| total(self.parts.iter().map(|p| p.duration)), |(d, _)| *d)
    }
}

/// Durations come from outside: their sum stops at the top.
pub fn total(durations: impl Iterator<Item = u64>) -> u64 {
    durations.fold(0, u64::saturating_add)
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartLine {
    /// Microseconds.
    pub duration: u64,
    pub uri: String,
    pub independent: bool,
    pub gap: bool,
}

/// # Errors
/// A sentence with the line that makes no sense.
pub fn media(text: &str) -> Result<MediaPlaylist, String> {
    if text.lines().next() != Some("#EXTM3U") {
        return Err("the first line is not #EXTM3U".to_owned());
    }
    let mut list = MediaPlaylist::default();
    let mut segment = SegmentLine::default();
    let mut map = None;
    for line in text.lines().skip(1) {
        let wrong = || format!("line {line:?} does not parse");
        if !line.starts_with('#') {
            if line.is_empty() {
                continue;
            }
            let (duration, _) = segment.whole.take().ok_or_else(|| format!("{line:?} has no EXTINF"))?;
            segment.whole = Some((duration, line.to_owned()));
            finish(&mut list, &mut segment, &map);
            continue;
        }
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        match tag {
            "#EXT-X-DISCONTINUITY" => segment.discontinuity = true,
            "#EXT-X-GAP" => segment.gap = true,
            "#EXT-X-MAP" => map = Some(attributes(value).remove("URI").ok_or_else(wrong)?),
            "#EXT-X-PROGRAM-DATE-TIME" => segment.date_time = Some(date_time(value).ok_or_else(wrong)?),
            "#EXT-X-PART" => segment.parts.push(part(value).ok_or_else(wrong)?),
            "#EXTINF" => {
                let seconds = value.split(',').next().and_then(micros).ok_or_else(wrong)?;
                segment.whole = Some((seconds, String::new()));
            }
            _ => header(&mut list, tag, value).ok_or_else(wrong)?,
        }
    }
    if segment != SegmentLine::default() {
        finish(&mut list, &mut segment, &map);
    }
    Ok(list)
}

fn finish(list: &mut MediaPlaylist, segment: &mut SegmentLine, map: &Option<String>) {
    segment.msn = list.msn.saturating_add(list.skipped).saturating_add(list.segments.len() as u64);
    segment.map.clone_from(map);
    list.segments.push(std::mem::take(segment));
}

/// Tags that stand once; `None`: the value makes no sense.
fn header(list: &mut MediaPlaylist, tag: &str, value: &str) -> Option<()> {
    match tag {
        "#EXT-X-VERSION" => list.version = value.parse().ok()?,
        "#EXT-X-TARGETDURATION" => list.promises.target_duration = value.parse().ok()?,
        "#EXT-X-SERVER-CONTROL" => list.promises.server_control = attributes(value),
        "#EXT-X-PART-INF" => list.promises.part_target = micros(attributes(value).get("PART-TARGET")?)?,
        // What counts segments stands in front of them [HLS 4.4.3.2, 4.4.3.3, 4.4.5.2].
        "#EXT-X-MEDIA-SEQUENCE" | "#EXT-X-DISCONTINUITY-SEQUENCE" | "#EXT-X-SKIP" if !list.segments.is_empty() => {
            return None;
        }
        "#EXT-X-MEDIA-SEQUENCE" => list.msn = value.parse().ok()?,
        "#EXT-X-DISCONTINUITY-SEQUENCE" => list.dsn = value.parse().ok()?,
        "#EXT-X-SKIP" => {
            let skip = attributes(value);
            list.skipped = skip.get("SKIPPED-SEGMENTS")?.parse().ok()?;
            let ids = |tabs: &String| tabs.split('\t').filter(|id| !id.is_empty()).map(str::to_owned).collect();
            list.removed = skip.get("RECENTLY-REMOVED-DATERANGES").map(ids);
        }
        "#EXT-X-DATERANGE" => {
            let said = attributes(value);
            let known = list.dates.entry(said.get("ID")?.clone()).or_default();
            // What two tags of one ID both say, they say alike [HLS 4.4.5.1].
            let same = said.iter().all(|(name, value)| known.get(name).is_none_or(|k| k == value));
            date_time(said.get("START-DATE")?).filter(|_| same)?;
            known.extend(said);
        }
        "#EXT-X-I-FRAMES-ONLY" => list.frames = true,
        "#EXT-X-ENDLIST" => list.ended = true,
        "#EXT-X-PRELOAD-HINT" => {
            let mut hint = attributes(value);
            if hint.get("TYPE")? == "PART" {
                list.hint = Some(hint.remove("URI")?);
            }
        }
        "#EXT-X-RENDITION-REPORT" => {
            let mut report = attributes(value);
            let part = report.get("LAST-PART").map_or(Some(0), |p| p.parse().ok())?;
            list.reports.push((report.remove("URI")?, report.get("LAST-MSN")?.parse().ok()?, part));
        }
        _ => {}
    }
    Some(())
}

fn part(value: &str) -> Option<PartLine> {
    let mut part = attributes(value);
    let yes = |part: &Attributes, name: &str| part.get(name).is_some_and(|v| v == "YES");
    Some(PartLine {
        duration: micros(part.get("DURATION")?)?,
        independent: yes(&part, "INDEPENDENT"),
        gap: yes(&part, "GAP"),
        uri: part.remove("URI")?,
    })
}

/// URIs of all media playlists that a multivariant playlist names, in its order.
pub fn multivariant(text: &str) -> Vec<String> {
    let (mut uris, mut known) = (Vec::new(), BTreeSet::new());
    for line in text.lines() {
        let uri = match line.strip_prefix("#EXT-X-MEDIA:") {
            Some(value) => attributes(value).remove("URI"),
            None => (!line.starts_with('#') && !line.is_empty()).then(|| line.to_owned()),
        };
        uris.extend(uri.filter(|u| known.insert(u.clone())));
    }
    uris
}

/// What a multivariant playlist says of each I-frame playlist.
pub fn iframes(text: &str) -> Vec<Attributes> {
    text.lines().filter_map(|l| l.strip_prefix("#EXT-X-I-FRAME-STREAM-INF:")).map(attributes).collect()
}

/// An attribute-list; commas within quotes belong to the value.
pub fn attributes(list: &str) -> Attributes {
    let mut found = Attributes::new();
    let mut rest = list;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"').and_then(|quoted| quoted.split_once('"')) {
            Some((value, next)) => (value, next.strip_prefix(',').unwrap_or(next)),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.insert(name.trim().to_owned(), value.to_owned());
        rest = next;
    }
    found
}

/// Decimal seconds as microseconds, without floats.
pub(super) fn micros(decimal: &str) -> Option<u64> {
    let (whole, fraction) = decimal.trim().split_once('.').unwrap_or((decimal.trim(), ""));
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    number::<u64>(whole)?.checked_mul(1_000_000)?.checked_add(number(&digits)?)
}

/// Digits alone.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `YYYY-MM-DDThh:mm:ss[.sss]Z` as milliseconds since 1970.
pub fn date_time(text: &str) -> Option<i64> {
    let (date, time) = text.trim().strip_suffix('Z')?.split_once('T')?;
    let within = |text: &str, range: RangeInclusive<i64>| number(text).filter(|n| range.contains(n));
    let mut date = date.splitn(3, '-');
    let year = within(date.next()?, 0..=9_999)?;
    let (month, day) = (within(date.next()?, 1..=12)?, within(date.next()?, 1..=31)?);
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (within(time.next()?, 0..=23)?, within(time.next()?, 0..=59)?);
    // Second 60 leaps.
    let millis = i64::try_from(micros(time.next()?)? / 1_000).ok().filter(|ms| *ms < 61_000)?;
    // Days before the first of March, years starting in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60_000 + millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    #[test]
    fn date_times_read_back_as_they_were_written() {
        for ms in [0i64, 951_827_696_789, 1_795_219_199_999, 1_709_164_800_000, 4_102_444_799_001] {
            assert_eq!(date_time(&Wall(ms * 1_000_000).to_string()), Some(ms));
        }
    }

    #[test]
    fn what_is_no_date_time_is_none() {
        for text in [
            "2026-01-01T00:00:00", // without a zone
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-32T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "+2026-01-01T00:00:00Z",
            "-1-01-01T00:00:00Z",
            // Once these overflowed.
            "9223372036854775807-01-01T00:00:00Z",
            "2026-01-01T9223372036854775807:00:00Z",
        ] {
            assert_eq!(date_time(text), None, "{text}");
        }
        assert_eq!(date_time("2016-12-31T23:59:60.5Z"), Some(1_483_228_800_500), "a leap second");
    }

    #[test]
    fn what_counts_segments_stands_in_front_of_them() {
        let list = |tag: &str| media(&format!("#EXTM3U\n#EXTINF:2,\ns\n{tag}\n#EXTINF:2,\nt\n"));
        assert_eq!(list("#EXT-X-GAP").map(|list| list.segments.len()), Ok(2));
        for tag in ["#EXT-X-MEDIA-SEQUENCE:7", "#EXT-X-DISCONTINUITY-SEQUENCE:1", "#EXT-X-SKIP:SKIPPED-SEGMENTS=3"] {
            assert!(list(tag).is_err_and(|why| why.contains(tag)), "{tag}");
        }
    }

    #[test]
    fn a_multivariant_playlist_of_a_million_lines_is_read_in_time() {
        let text: String = (0..150_000).map(|n| format!("{n}\n")).collect();
        assert_eq!(multivariant(&text.repeat(2)).len(), 150_000);
    }

    #[test]
    fn commas_within_quotes_do_not_split_attributes() {
        let found = attributes("A=1,CODECS=\"avc1,mp4a\",B=YES");
        assert_eq!(found["CODECS"], "avc1,mp4a");
        assert_eq!((found["A"].as_str(), found["B"].as_str()), ("1", "YES"));
    }

    #[test]
    fn microseconds_are_exact() {
        assert_eq!(micros("2.00533"), Some(2_005_330));
        assert_eq!(micros("6"), Some(6_000_000));
        for bad in ["x", "", "+6", "-6", "6.+1", "1e3", "18446744073710"] {
            assert_eq!(micros(bad), None, "{bad:?}");
        }
    }
}

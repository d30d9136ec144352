//! Playlists read back, as a player reads them [HLS 4.2]. Unknown tags are skipped [HLS 6.3.1].

use std::collections::BTreeMap;

/// Attribute lists: name to value, quotes taken off.
pub type Attributes = BTreeMap<String, String>;

/// What must not change while a session lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    pub version: u32,
    pub target_duration: u64,
    pub server_control: Attributes,
    /// Microseconds; 0: no parts.
    pub part_target: u64,
    pub independent: bool,
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
    pub promises: Promises,
    pub msn: u64,
    pub dsn: u64,
    pub skipped: u64,
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
        "#EXT-X-VERSION" => list.promises.version = value.parse().ok()?,
        "#EXT-X-TARGETDURATION" => list.promises.target_duration = value.parse().ok()?,
        "#EXT-X-SERVER-CONTROL" => list.promises.server_control = attributes(value),
        "#EXT-X-PART-INF" => list.promises.part_target = micros(attributes(value).get("PART-TARGET")?)?,
        "#EXT-X-INDEPENDENT-SEGMENTS" => list.promises.independent = true,
        "#EXT-X-MEDIA-SEQUENCE" => list.msn = value.parse().ok()?,
        "#EXT-X-DISCONTINUITY-SEQUENCE" => list.dsn = value.parse().ok()?,
        "#EXT-X-SKIP" => list.skipped = attributes(value).get("SKIPPED-SEGMENTS")?.parse().ok()?,
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
    let mut uris: Vec<String> = Vec::new();
    for line in text.lines() {
        let uri = match line.strip_prefix("#EXT-X-MEDIA:") {
            Some(value) => attributes(value).remove("URI"),
            None => (!line.starts_with('#') && !line.is_empty()).then(|| line.to_owned()),
        };
        uris.extend(uri.filter(|u| !uris.contains(u)));
    }
    uris
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
fn micros(decimal: &str) -> Option<u64> {
    let (whole, fraction) = decimal.trim().split_once('.').unwrap_or((decimal.trim(), ""));
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(digits.parse().ok()?)
}

/// `YYYY-MM-DDThh:mm:ss[.sss]Z` as milliseconds since 1970.
fn date_time(text: &str) -> Option<i64> {
    let (date, time) = text.trim().strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|n| n.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (time.next()?.parse::<i64>().ok()?, time.next()?.parse::<i64>().ok()?);
    let millis = i64::try_from(micros(time.next()?)? / 1_000).ok()?;
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
    fn commas_within_quotes_do_not_split_attributes() {
        let found = attributes("A=1,CODECS=\"avc1,mp4a\",B=YES");
        assert_eq!(found["CODECS"], "avc1,mp4a");
        assert_eq!((found["A"].as_str(), found["B"].as_str()), ("1", "YES"));
    }

    #[test]
    fn microseconds_are_exact() {
        assert_eq!(micros("2.00533"), Some(2_005_330));
        assert_eq!(micros("6"), Some(6_000_000));
        assert_eq!(micros("x"), None);
    }
}

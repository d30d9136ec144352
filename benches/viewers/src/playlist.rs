//! What a viewer reads in a playlist.

/// A media playlist as far as a viewer at the live edge needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Parts with their place (segment number, index), and the address as written.
    pub parts: Vec<((u64, u32), String)>,
    /// Place of the part that comes next: what to reload for.
    pub next: (u64, u32),
    pub hint: Option<String>,
    pub map: Option<String>,
    pub ended: bool,
}

/// `None`: this is no media playlist.
#[must_use]
pub fn media(text: &str) -> Option<Listed> {
    let mut listed = Listed::default();
    if !text.starts_with("#EXTM3U") || !text.contains("#EXT-X-TARGETDURATION:") {
        return None;
    }
    for line in text.lines() {
        if let Some(number) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
            listed.next.0 = number.parse().ok()?;
        } else if let Some(skip) = line.strip_prefix("#EXT-X-SKIP:") {
            listed.next.0 += attribute(skip, "SKIPPED-SEGMENTS")?.parse::<u64>().ok()?;
        } else if line.starts_with("#EXTINF:") {
            listed.next = (listed.next.0 + 1, 0);
        } else if let Some(part) = line.strip_prefix("#EXT-X-PART:") {
            if !part.contains("GAP=YES") {
                listed.parts.push((listed.next, attribute(part, "URI")?.to_owned()));
            }
            listed.next.1 += 1;
        } else if let Some(hint) = line.strip_prefix("#EXT-X-PRELOAD-HINT:TYPE=PART,") {
            listed.hint = Some(attribute(hint, "URI")?.to_owned());
        } else if let Some(map) = line.strip_prefix("#EXT-X-MAP:") {
            listed.map = Some(attribute(map, "URI")?.to_owned());
        } else if line == "#EXT-X-ENDLIST" {
            listed.ended = true;
        }
    }
    Some(listed)
}

/// Addresses of the renditions of a multivariant playlist: video, best first; then audio. A variant of sound alone is audio.
#[must_use]
pub fn renditions(text: &str) -> (Vec<String>, Vec<String>) {
    let audio = text.lines().filter_map(|l| l.strip_prefix("#EXT-X-MEDIA:TYPE=AUDIO,"));
    let audio: Vec<String> = audio.filter_map(|l| attribute(l, "URI").map(str::to_owned)).collect();
    let variants = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(str::to_owned);
    (variants.filter(|variant| !audio.contains(variant)).collect(), audio)
}

/// An attribute's value without its quotes.
fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let start = list.find(&format!("{name}="))? + name.len() + 1;
    let value = &list[start..];
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split(',').next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_part_is_where_the_hint_says() {
        let text = include_str!("../../../tests/golden/package-ultra-25.txt");
        let playlists = text.split_inclusive("#EXTM3U").collect::<Vec<_>>().len() - 1;
        assert!(playlists >= 1, "{playlists}");
        let listed = media(&text[text.find("#EXTM3U").unwrap()..]).unwrap();
        let hint = listed.hint.as_deref().expect("a hint");
        assert!(hint.ends_with(&format!("/p{}.{}.m4s", listed.next.0, listed.next.1)), "{hint}: {:?}", listed.next);
        let ((msn, part), uri) = listed.parts.last().expect("parts");
        assert!(uri.ends_with(&format!("/p{msn}.{part}.m4s")), "{uri}");
        assert!(!listed.ended && listed.map.is_some());
    }

    #[test]
    fn skipped_segments_count() {
        let text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:10\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n\
                    #EXTINF:2,\na\n#EXT-X-PART:DURATION=0.4,GAP=YES,URI=\"g\"\n#EXT-X-PART:DURATION=0.4,URI=\"b\"\n";
        let listed = media(text).unwrap();
        assert_eq!((listed.next, listed.parts), ((14, 2), vec![((14, 1), "b".to_owned())]));
        assert_eq!(media("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\na.m3u8\n"), None);
    }

    #[test]
    fn renditions_are_found() {
        let text = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",URI=\"a-eng-1.m3u8\"\n#EXT-X-STREAM-INF:X=1\n720p.m3u8\n\
                    #EXT-X-STREAM-INF:X=1\n360p.m3u8\n#EXT-X-STREAM-INF:X=1\na-eng-1.m3u8\n";
        assert_eq!(
            renditions(text),
            (vec!["720p.m3u8".to_owned(), "360p.m3u8".to_owned()], vec!["a-eng-1.m3u8".to_owned()])
        );
    }
}

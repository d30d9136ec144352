//! Who may have what of a channel: passes in the path, signed claims in the query.

use http::StatusCode;
use std::net::IpAddr;
use std::ops::Range;

use super::respond::Problem;
use crate::media::playback::{Access, Claims, Denied, SharedKeyring, jwt, pass};
use crate::package::origin::{SessionOutput, SteeringOutput};
use crate::telemetry::names::{Label, Metric, count};
use crate::time::Wall;

/// What came with a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor<'a> {
    /// Of the path `/t/<pass>/…`.
    pub(super) pass: Option<&'a str>,
    pub(super) query: Option<&'a str>,
    pub(super) peer: IpAddr,
}

/// How a visitor came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admitted<'a> {
    /// Everybody may.
    Public,
    /// With a pass, which relative addresses keep.
    Pass(Claims, &'a str),
    /// With signed claims; the pass that was made of them goes into every address.
    Claims(Claims, String),
}

/// Splits `/t/<pass>` off a path.
pub fn split(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/t/") else { return (None, path) };
    match rest.find('/') {
        Some(end) if end > 0 => (Some(&rest[..end]), &rest[end..]),
        _ => (None, path),
    }
}

/// Lets a visitor in or says why not.
///
/// # Errors
/// A 403 with the reason.
pub(super) fn admit<'a>(
    access: Access,
    keyring: Option<&SharedKeyring>,
    visitor: Visitor<'a>,
    now: Wall,
) -> Result<Admitted<'a>, Problem> {
    let Access::Signed(playback) = access else { return Ok(Admitted::Public) };
    let now = now.unix_millis() / 1_000;
    let admitted = match (keyring.map(SharedKeyring::get), visitor.pass, token(visitor.query)) {
        (Some(keyring), Some(pass), _) => {
            pass::open(&keyring, pass, playback, visitor.peer, now).map(|claims| Admitted::Pass(claims, pass))
        }
        (Some(keyring), None, Some(token)) => jwt::verify(&keyring, token, playback, visitor.peer, now).map(|signed| {
            let pass = pass::seal(&keyring, signed.key, &signed.claims);
            Admitted::Claims(signed.claims, pass)
        }),
        _ => Err(Denied::Missing),
    };
    admitted.map_err(|denied| {
        count(Metric::PlaybackDenied, &[Label::Reason(denied.reason())], 1);
        let code = match denied {
            Denied::Missing => "playback_token_missing",
            Denied::Expired => "playback_token_expired",
            Denied::Early | Denied::Invalid(_) => "playback_token_invalid",
            Denied::Foreign | Denied::Address => "playback_token_foreign",
        };
        Problem::new(StatusCode::FORBIDDEN, code, "This channel is for invited viewers", denied.to_string())
    })
}

/// `t` of a query. A JSON Web Token has no character that would need an escape.
fn token(query: Option<&str>) -> Option<&str> {
    query?.split('&').find_map(|pair| pair.strip_prefix("t=")).filter(|token| !token.is_empty())
}

impl Admitted<'_> {
    fn claims(&self) -> Option<&Claims> {
        match self {
            Admitted::Public => None,
            Admitted::Pass(claims, _) | Admitted::Claims(claims, _) => Some(claims),
        }
    }

    /// Seconds for which the pass stays good; `None`: nothing expires.
    pub(super) fn lasts(&self, now: Wall) -> Option<u64> {
        self.claims().map(|claims| u64::from(claims.expires).saturating_sub(now.unix_millis() / 1_000))
    }

    /// # Errors
    /// 403: the rendition has more rows than this viewer may have, or nobody knows how many it has (`session`: `None`).
    pub(super) fn expect_rendition(&self, session: Option<&SessionOutput>, rendition: &str) -> Result<(), Problem> {
        let fits = |session: &SessionOutput, rows| session.within(rows).iter().any(|r| r.name() == rendition);
        match self.claims().and_then(|claims| claims.height_max) {
            Some(rows) if !session.is_some_and(|session| fits(session, u32::from(rows))) => {
                let detail = format!("This viewer may have up to {rows} rows; index.m3u8 lists what fits.");
                Err(Problem::new(StatusCode::FORBIDDEN, "rendition_not_allowed", "The rendition is too large", detail))
            }
            _ => Ok(()),
        }
    }

    /// The multivariant playlist of this visitor alone; `Ok(None)`: it is everybody's; `Err`: there is none yet.
    pub(super) fn own_multivariant(
        &self,
        session: &SessionOutput,
        channel: &str,
        steering: Option<&SteeringOutput>,
    ) -> Result<Option<String>, ()> {
        let (claims, pass, which) = match self {
            Admitted::Public => return Ok(None),
            Admitted::Claims(claims, pass) => (claims, pass.as_str(), Which::All),
            // Of a player that is steered elsewhere, only what lies here keeps the pass by itself.
            Admitted::Pass(claims, pass) => (claims, *pass, Which::Absolute),
        };
        let elsewhere = steering.is_some_and(SteeringOutput::leads_elsewhere);
        if which == Which::Absolute && claims.height_max.is_none() && !elsewhere {
            return Ok(None);
        }
        let text = session.multivariant_within(claims.height_max.map(u32::from), steering).ok_or(())?;
        Ok(Some(with_pass(&text, pass, channel, which)))
    }
}

/// Which addresses a pass has to be put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    Absolute,
}

/// Addresses of a multivariant playlist with the pass in them. Relative ones stay relative, so that they work behind
/// any prefix that a proxy puts in front.
fn with_pass(text: &str, pass: &str, channel: &str, which: Which) -> String {
    let live = format!("/live/{channel}/");
    let address = |uri: &str| match uri.find("://") {
        // What is in front is its pathway's, whatever it looks like.
        Some(_) => match uri.rfind(&live) {
            Some(at) => format!("{}/t/{pass}{}", &uri[..at], &uri[at..]),
            None => uri.to_owned(),
        },
        None if which == Which::Absolute => uri.to_owned(),
        None => format!("../../t/{pass}{live}{uri}"),
    };
    let mut out = String::with_capacity(text.len() + 2_048);
    for line in text.lines() {
        if !line.starts_with('#') && !line.is_empty() {
            out.push_str(&address(line));
        } else if let Some(uri) = uri_of(line) {
            out.push_str(&line[..uri.start]);
            out.push_str(&address(&line[uri.clone()]));
            out.push_str(&line[uri.end..]);
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// Where a tag's attribute URI (or SERVER-URI) has its value: names of attributes stand outside of quotes.
fn uri_of(line: &str) -> Option<Range<usize>> {
    let mut rest = line.find(':')? + 1;
    while let Some(length) = line[rest..].find('=') {
        let (name, value) = (&line[rest..rest + length], rest + length + 1);
        let end = match line[value..].strip_prefix('"') {
            Some(quoted) => value + 1 + quoted.find('"')?,
            None => line[value..].find(',').map_or(line.len(), |at| value + at),
        };
        if matches!(name, "URI" | "SERVER-URI") {
            return line[value..].starts_with('"').then_some(value + 1..end);
        }
        rest = end + line[end..].find(',')? + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_split_off_the_path() {
        assert_eq!(split("/t/abc/live/news/index.m3u8"), (Some("abc"), "/live/news/index.m3u8"));
        for plain in ["/live/news/index.m3u8", "/t/abc", "/t//live/x", "/t", "/"] {
            assert_eq!(split(plain), (None, plain));
        }
    }

    #[test]
    fn the_token_of_a_query_is_found_among_others() {
        assert_eq!(token(Some("a=1&t=x.y.z&_HLS_msn=3")), Some("x.y.z"));
        for none in [None, Some(""), Some("t="), Some("at=1"), Some("x&y=t")] {
            assert_eq!(token(none), None, "{none:?}");
        }
    }

    #[test]
    fn every_address_of_a_playlist_gets_the_pass() {
        let text = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,URI=\"a-eng-1.m3u8\"\n#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO=\"audio\"\n\
                    720p.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttps://b.example/x/live/news/720p.m3u8\n";
        let wanted = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,URI=\"../../t/PASS/live/news/a-eng-1.m3u8\"\n\
                      #EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO=\"audio\"\n../../t/PASS/live/news/720p.m3u8\n\
                      #EXT-X-STREAM-INF:BANDWIDTH=1\nhttps://b.example/x/t/PASS/live/news/720p.m3u8\n";
        assert_eq!(with_pass(text, "PASS", "news", Which::All), wanted);
        let kept = with_pass(text, "PASS", "news", Which::Absolute);
        assert!(kept.contains("\n720p.m3u8\n") && kept.contains("/x/t/PASS/live/news/720p.m3u8\n"), "{kept}");
    }

    #[test]
    fn a_pass_goes_into_the_channels_own_part_of_an_address_and_into_attributes_only() {
        // A pathway below a path of the channel's own name.
        let base = "https://cdn.example/live/news";
        let text = format!("#EXT-X-STREAM-INF:BANDWIDTH=1\n{base}/live/news/720p.m3u8\n");
        let given = with_pass(&text, "PASS", "news", Which::All);
        assert!(given.ends_with(&format!("\n{base}/t/PASS/live/news/720p.m3u8\n")), "{given}");
        // Captions that are named to look like one, and what follows them.
        for (line, wanted) in [
            (r#"#EXT-X-MEDIA:NAME="URI=",INSTREAM-ID="CC1",X="a""#, None),
            (r#"#EXT-X-MEDIA:NAME="a,URI=b",DEFAULT=NO"#, None),
            (r#"#EXT-X-MEDIA:NAME="a,URI=",DEFAULT=NO,URI="a.m3u8",X=1"#, Some("a.m3u8")),
            (r#"#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="b.m3u8""#, Some("b.m3u8")),
            (r#"#EXT-X-CONTENT-STEERING:SERVER-URI="steering.json",PATHWAY-ID="a""#, Some("steering.json")),
            (r#"#EXT-X-MEDIA:X-URI="c.m3u8",NAME="d""#, None),
            (r#"#EXT-X-MEDIA:URI="never closed"#, None),
            ("#EXT-X-MEDIA:URI=bare,NAME=1", None),
            ("#EXTM3U", None),
            ("#EXT-X-VERSION:6", None),
        ] {
            assert_eq!(uri_of(line).map(|range| &line[range]), wanted, "{line}");
        }
    }
}

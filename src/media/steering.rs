//! Content steering: from which of several origins players fetch a channel [HLS 7].

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Origins that all serve a channel, the preferred one first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Steering {
    /// Players begin with the first, and take the next where one fails. Their order may change while they play.
    #[schema(min_items = 1, max_items = 8)]
    pub pathways: Vec<Pathway>,
    /// Players ask for the order again after so many seconds.
    #[serde(default = "usual_ttl")]
    #[schema(minimum = 10, maximum = 86_400, default = 300)]
    pub ttl_s: u32,
}

/// One origin, or a cache in front of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pathway {
    /// 1 to 64 of letters, digits, `.`, `-` and `_`.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub id: String,
    /// What stands before `/live/<channel>/` there, such as `https://a.example.com`; empty: where the multivariant playlist
    /// came from.
    pub base: String,
}

const PATHWAYS_MAX: usize = 8;
const BASE_MAX: usize = 512;
const TTL_S: std::ops::RangeInclusive<u32> = 10..=86_400;

fn usual_ttl() -> u32 {
    300
}

impl Steering {
    /// What is wrong: the place below the setting, as a JSON pointer, and what to write.
    pub fn check(&self) -> Option<(String, String)> {
        let wrong = |place: String, what: String| Some((place, what));
        if self.pathways.is_empty() || self.pathways.len() > PATHWAYS_MAX {
            return wrong(
                "/pathways".into(),
                format!("write 1 to {PATHWAYS_MAX} pathways, not {}", self.pathways.len()),
            );
        }
        if !TTL_S.contains(&self.ttl_s) {
            return wrong(
                "/ttl_s".into(),
                format!("{}: write seconds from {} to {}", self.ttl_s, TTL_S.start(), TTL_S.end()),
            );
        }
        self.pathways.iter().enumerate().find_map(|(i, pathway)| {
            let place = |field: &str| format!("/pathways/{i}/{field}");
            if !pathway.is_named() {
                return wrong(
                    place("id"),
                    format!("{:?}: write 1 to 64 of letters, digits, '.', '-', '_'", pathway.id),
                );
            }
            if self.pathways[..i].iter().any(|other| other.id == pathway.id) {
                return wrong(place("id"), format!("{:?} is there twice: take another name", pathway.id));
            }
            if !pathway.is_reachable() {
                let what = "write an address such as \"https://a.example.com\" without '/' at its end, query and \
                            fragment, or \"\" for where the multivariant playlist comes from";
                return wrong(place("base"), format!("{:?}: {what}", pathway.base));
            }
            None
        })
    }

    /// The Steering Manifest: every player gets the same [HLS 7.2].
    pub fn manifest(&self) -> String {
        let ids: Vec<&str> = self.pathways.iter().map(|pathway| pathway.id.as_str()).collect();
        let manifest = serde_json::json!({
            "VERSION": 1, "TTL": self.ttl_s, "RELOAD-URI": "steering.json", "PATHWAY-PRIORITY": ids,
        });
        manifest.to_string()
    }
}

impl Pathway {
    fn is_named(&self) -> bool {
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        (1..=64).contains(&self.id.len()) && self.id.bytes().all(known)
    }

    fn is_reachable(&self) -> bool {
        let Some(rest) = self.base.strip_prefix("https://").or_else(|| self.base.strip_prefix("http://")) else {
            return self.base.is_empty();
        };
        let known =
            |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'?' | b'#' | b'<' | b'>' | b'\\' | b'`' | b'@');
        let sound = self.base.len() <= BASE_MAX && rest.bytes().all(known);
        sound && !rest.is_empty() && !rest.starts_with('/') && !rest.ends_with('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steering(pathways: &[(&str, &str)], ttl_s: u32) -> Steering {
        let pathway = |(id, base): &(&str, &str)| Pathway { id: (*id).to_owned(), base: (*base).to_owned() };
        Steering { pathways: pathways.iter().map(pathway).collect(), ttl_s }
    }

    #[test]
    fn what_cannot_be_written_into_a_playlist_is_refused_with_its_place() {
        assert_eq!(steering(&[("a", "https://a.example.com/x"), ("b-2", "")], 300).check(), None);
        assert_eq!(steering(&[("a", "http://[::1]:8080")], 10).check(), None);
        for (pathways, ttl, place) in [
            (&[][..], 300, "/pathways"),
            (&[("a", ""); 9][..], 300, "/pathways"),
            (&[("a", "")][..], 9, "/ttl_s"),
            (&[("a", "")][..], 86_401, "/ttl_s"),
            (&[("", "")][..], 300, "/pathways/0/id"),
            (&[("a b", "")][..], 300, "/pathways/0/id"),
            (&[("a", ""), ("a", "https://x")][..], 300, "/pathways/1/id"),
            (&[("a", "a.example.com")][..], 300, "/pathways/0/base"),
            (&[("a", "https://")][..], 300, "/pathways/0/base"),
            (&[("a", "https://a/")][..], 300, "/pathways/0/base"),
            (&[("a", "https://a?x=1")][..], 300, "/pathways/0/base"),
            (&[("a", "https://a\"\n")][..], 300, "/pathways/0/base"),
            (&[("a", "https://user@a")][..], 300, "/pathways/0/base"),
        ] {
            assert_eq!(steering(pathways, ttl).check().map(|(place, _)| place).as_deref(), Some(place), "{pathways:?}");
        }
    }
}

//! Closed captions: what they are called, which of them were seen, and what is said of them to players.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// Where in the pictures a caption service lies: INSTREAM-ID [HLS 4.4.6.1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstreamId {
    /// A caption channel of line 21 [CEA 608], 1 to 4.
    Cc(u8),
    /// A service of [CEA 708], 1 to 63.
    Service(u8),
}

impl fmt::Display for InstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstreamId::Cc(n) => write!(f, "CC{n}"),
            InstreamId::Service(n) => write!(f, "SERVICE{n}"),
        }
    }
}

impl FromStr for InstreamId {
    type Err = String;

    fn from_str(text: &str) -> Result<InstreamId, String> {
        let number = |digits: &str| digits.parse::<u8>().ok().filter(|n| n.to_string() == digits);
        let cc = || text.strip_prefix("CC").and_then(number).filter(|n| (1..=4).contains(n)).map(InstreamId::Cc);
        let service = || {
            let n = text.strip_prefix("SERVICE").and_then(number).filter(|n| (1..=63).contains(n));
            n.map(InstreamId::Service)
        };
        cc().or_else(service)
            .ok_or_else(|| format!("instream_id \"{text}\": write CC1 to CC4 or SERVICE1 to SERVICE63"))
    }
}

impl Serialize for InstreamId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InstreamId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One caption service: configured, or as a PMT describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CaptionService {
    #[schema(value_type = String, pattern = "^(CC[1-4]|SERVICE([1-9]|[1-5][0-9]|6[0-3]))$")]
    pub instream_id: InstreamId,
    /// ISO 639-2 code (`eng`) or BCP 47 tag (`en-US`).
    #[serde(default)]
    pub language: Option<String>,
    /// What players show; `None`: the language's name, else the instream id.
    #[serde(default)]
    pub name: Option<String>,
}

impl CaptionService {
    pub fn of(instream_id: InstreamId) -> CaptionService {
        CaptionService { instream_id, language: None, name: None }
    }
}

/// Most services of one channel: a channel of line 21 each, and as many as a caption_service_descriptor may name.
pub const CAPTION_SERVICES_MAX: usize = 20;

/// Which services carried something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptionsSeen {
    /// Bit n - 1: CCn.
    cc: u8,
    /// Bit n: SERVICEn.
    services: u64,
}

impl CaptionsSeen {
    /// True if it was not seen before.
    pub fn insert(&mut self, id: InstreamId) -> bool {
        let before = *self;
        match id {
            InstreamId::Cc(n) => self.cc |= 1 << (n.clamp(1, 4) - 1),
            InstreamId::Service(n) => self.services |= 1 << (n & 63),
        }
        *self != before
    }

    /// Those of both together.
    #[must_use]
    pub fn union(self, other: CaptionsSeen) -> CaptionsSeen {
        CaptionsSeen { cc: self.cc | other.cc, services: self.services | other.services }
    }

    pub fn is_empty(self) -> bool {
        self == CaptionsSeen::default()
    }

    pub fn iter(self) -> impl Iterator<Item = InstreamId> {
        let cc = (1..=4).filter(move |n| self.cc >> (n - 1) & 1 == 1).map(InstreamId::Cc);
        let service = (1..=63).filter(move |n| self.services >> n & 1 == 1).map(InstreamId::Service);
        cc.chain(service)
    }
}

/// What the multivariant playlist says of captions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Captions {
    /// There may be some: nothing is said, and players look for themselves.
    #[default]
    Unknown,
    /// `CLOSED-CAPTIONS=NONE`.
    None,
    /// At least one.
    Services(Vec<CaptionService>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instream_id_is_written_as_players_read_it() {
        for text in ["CC1", "CC4", "SERVICE1", "SERVICE63"] {
            assert_eq!(text.parse::<InstreamId>().unwrap().to_string(), text);
        }
        for bad in ["CC0", "CC5", "CC01", "cc1", "SERVICE0", "SERVICE64", "SERVICE", "CC", "T1", ""] {
            assert!(bad.parse::<InstreamId>().unwrap_err().contains("CC1 to CC4"), "{bad}");
        }
    }

    #[test]
    fn what_was_seen_is_told_once_and_in_order() {
        let mut seen = CaptionsSeen::default();
        for id in [InstreamId::Service(63), InstreamId::Cc(3), InstreamId::Cc(1), InstreamId::Service(1)] {
            assert!(seen.insert(id) && !seen.insert(id));
        }
        let names: Vec<String> = seen.iter().map(|id| id.to_string()).collect();
        assert_eq!(names, ["CC1", "CC3", "SERVICE1", "SERVICE63"]);
        let json = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<CaptionsSeen>(&json).unwrap(), seen);
    }
}

//! Instants as records and the API write them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::time::Duration;
use utoipa::ToSchema;

use crate::time::Wall;

/// UTC in whole milliseconds; RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Utc(Wall);

impl Utc {
    pub fn wall(self) -> Wall {
        self.0
    }
}

/// Cut to the millisecond, so that what was written is what is read.
impl From<Wall> for Utc {
    fn from(wall: Wall) -> Utc {
        Utc(Wall(wall.0.div_euclid(1_000_000) * 1_000_000))
    }
}

impl Add<Duration> for Utc {
    type Output = Utc;
    fn add(self, span: Duration) -> Utc {
        Utc::from(self.0 + span)
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Utc {
    type Err = String;
    fn from_str(text: &str) -> Result<Utc, String> {
        let read = text.parse::<jiff::Timestamp>().ok();
        let nanos = read.and_then(|t| i64::try_from(t.as_nanosecond()).ok());
        nanos.map(|n| Utc::from(Wall(n))).ok_or_else(|| {
            format!("{text:?} is no instant: write RFC 3339 with its zone, for example \"2026-05-01T18:30:00Z\"")
        })
    }
}

impl Serialize for Utc {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Utc {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_other_zones_are_understood() {
        for nanos in [0, 951_827_696_789_123_456, 1_795_219_199_999_999_999, -1, -86_400_000_000_001] {
            let at = Utc::from(Wall(nanos));
            assert_eq!(at.to_string().parse(), Ok(at));
        }
        assert_eq!("2026-05-01T20:30:00.5+02:00".parse::<Utc>().unwrap().to_string(), "2026-05-01T18:30:00.500Z");
        for bad in ["", "yesterday", "2026-05-01", "2026-05-01T18:30:00", "2026-13-01T18:30:00Z"] {
            assert!(bad.parse::<Utc>().is_err(), "{bad}");
        }
    }
}

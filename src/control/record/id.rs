//! Typed ids: prefixed ULIDs. A session's (`se_`) is in `media::channel`, because the data plane names it too.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use ulid::Ulid;
use utoipa::ToSchema;

use crate::media::id;

macro_rules! prefixed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
        #[schema(value_type = String)]
        pub struct $name(pub Ulid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<$name, String> {
                id::parse($prefix, text).map($name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

prefixed_id!(
    /// A channel, whatever it is called.
    ChannelId,
    "ch_"
);
prefixed_id!(
    /// What signed playback URLs name: it can be told without telling the channel's id.
    PlaybackId,
    "pb_"
);
prefixed_id!(
    /// An event; the same on every retry of a webhook and on both boxes of a pair.
    EventId,
    "ev_"
);
prefixed_id!(
    /// An API token.
    TokenId,
    "tk_"
);

prefixed_id!(
    /// A key that signs viewers in.
    PlaybackKeyId,
    "pk_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_text_in_json_and_their_kinds_do_not_mix() {
        let channel = ChannelId(Ulid::from_parts(1_700_000_000_000, 1));
        let json = serde_json::to_string(&channel).unwrap();
        assert_eq!(json, format!("\"ch_{}\"", channel.0));
        assert_eq!(serde_json::from_str::<ChannelId>(&json).unwrap(), channel);
        assert!(serde_json::from_str::<TokenId>(&json).is_err());
    }
}

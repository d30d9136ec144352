//! What a token may do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One right. `write` includes `read`; `tokens:admin` and `nodes:admin` include nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Scope {
    /// See channels, their renditions, ladder templates.
    #[serde(rename = "channels:read")]
    ChannelsRead,
    /// Create, change, start, stop and delete channels; rotate keys; change templates.
    #[serde(rename = "channels:write")]
    ChannelsWrite,
    /// See sessions and events.
    #[serde(rename = "sessions:read")]
    SessionsRead,
    /// End sessions.
    #[serde(rename = "sessions:write")]
    SessionsWrite,
    /// Make and revoke tokens, read the audit log.
    #[serde(rename = "tokens:admin")]
    TokensAdmin,
    /// See the box: its health, configuration and capacity.
    #[serde(rename = "nodes:admin")]
    NodesAdmin,
}

impl Scope {
    pub const ALL: [Scope; 6] = [
        Scope::ChannelsRead,
        Scope::ChannelsWrite,
        Scope::SessionsRead,
        Scope::SessionsWrite,
        Scope::TokensAdmin,
        Scope::NodesAdmin,
    ];

    /// As requests and answers write it.
    pub fn name(self) -> &'static str {
        match self {
            Scope::ChannelsRead => "channels:read",
            Scope::ChannelsWrite => "channels:write",
            Scope::SessionsRead => "sessions:read",
            Scope::SessionsWrite => "sessions:write",
            Scope::TokensAdmin => "tokens:admin",
            Scope::NodesAdmin => "nodes:admin",
        }
    }

    /// It allows to see, and to change nothing.
    pub fn only_reads(self) -> bool {
        matches!(self, Scope::ChannelsRead | Scope::SessionsRead)
    }

    /// Whether whoever has this scope may do what `wanted` allows.
    pub fn covers(self, wanted: Scope) -> bool {
        self == wanted
            || matches!(
                (self, wanted),
                (Scope::ChannelsWrite, Scope::ChannelsRead) | (Scope::SessionsWrite, Scope::SessionsRead)
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_json_says() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
        }
    }

    #[test]
    fn writing_includes_reading_and_nothing_else_includes_anything() {
        for (has, wants) in Scope::ALL.into_iter().flat_map(|a| Scope::ALL.map(|b| (a, b))) {
            let write_reads =
                has.name().strip_suffix("write").is_some_and(|kind| wants.name() == format!("{kind}read"));
            assert_eq!(has.covers(wants), has == wants || write_reads, "{has:?} {wants:?}");
        }
    }
}

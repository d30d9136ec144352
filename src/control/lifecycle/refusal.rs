//! Requests that are said no to: what is wrong, where, and what to do instead.

use std::fmt;

/// Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// A sentence with the fix.
    pub detail: String,
    /// Of a body: every field that is wrong.
    pub errors: Vec<FieldError>,
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer into the body, such as `/ladder/1/height`.
    pub pointer: String,
    /// What to write instead.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    InvalidFields,
    NameTaken,
    TooManyChannels,
    NotFound,
    /// The record is not the one that the caller has seen.
    RevisionMismatch,
    /// On air: only by force.
    ChannelActive,
    /// A publisher of a channel that its operator stopped.
    Stopped,
    /// A publisher of a channel with manual activation that was not started.
    NotStarted,
    /// Unknown channel or wrong key; nobody is told which.
    Denied,
    /// A publisher with a key, of an address that the channel takes none of.
    NotFromHere,
    /// A second leg of a channel that has one.
    NoSuchLeg,
}

impl Code {
    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Code::InvalidFields => "invalid_fields",
            Code::NameTaken => "name_taken",
            Code::TooManyChannels => "too_many_channels",
            Code::NotFound => "not_found",
            Code::RevisionMismatch => "revision_mismatch",
            Code::ChannelActive => "channel_active",
            Code::Stopped => "stopped",
            Code::NotStarted => "not_started",
            Code::Denied => "denied",
            Code::NotFromHere => "not_from_here",
            Code::NoSuchLeg => "no_such_leg",
        }
    }

    /// As a publisher is told (`SRT_REJX_…`); `None`: no answer to a publisher.
    pub fn srt(self) -> Option<u16> {
        match self {
            Code::Denied | Code::NotFromHere => Some(1401),
            Code::Stopped | Code::NotStarted => Some(1403),
            Code::NoSuchLeg => Some(1415),
            _ => None,
        }
    }
}

impl Refusal {
    /// Of who has no valid key: the same for a channel that does not exist.
    pub fn denied() -> Refusal {
        Refusal::new(Code::Denied, "unknown channel or wrong publish key")
    }

    pub(super) fn new(code: Code, detail: impl Into<String>) -> Refusal {
        Refusal { code, detail: detail.into(), errors: Vec::new() }
    }

    pub(super) fn fields(errors: Vec<FieldError>) -> Refusal {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", one.pointer, one.detail),
            all => format!("{} fields are wrong: see errors", all.len()),
        };
        Refusal { code: Code::InvalidFields, detail, errors }
    }
}

impl FieldError {
    pub(super) fn new(pointer: impl Into<String>, detail: impl Into<String>) -> FieldError {
        FieldError { pointer: pointer.into(), detail: detail.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Refusal {}

//! Requests that did not succeed, in the words of RFC 9457. `code` is for programs, `detail` for people.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::ledger::Failure;
use crate::control::lifecycle;
use crate::control::state;

macro_rules! codes {
    ($($name:ident = $text:literal, $status:ident, $title:literal;)*) => {
        /// What went wrong. A code never changes its meaning; new ones may come.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        #[schema(as = ProblemCode)]
        pub enum Code { $($name,)* }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            pub fn name(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            pub fn status(self) -> StatusCode {
                match self { $(Code::$name => StatusCode::$status,)* }
            }

            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }
        }
    };
}

codes! {
    BodyMalformed = "body_malformed", BAD_REQUEST, "The body cannot be read";
    QueryInvalid = "query_invalid", BAD_REQUEST, "A query parameter is wrong";
    HeaderInvalid = "header_invalid", BAD_REQUEST, "A header is wrong";
    CursorInvalid = "cursor_invalid", BAD_REQUEST, "The cursor belongs to another list";
    TokenMissing = "token_missing", UNAUTHORIZED, "A token is needed";
    TokenInvalid = "token_invalid", UNAUTHORIZED, "The token is not valid";
    ScopeMissing = "scope_missing", FORBIDDEN, "The token may not do this";
    ChannelLimited = "channel_limited", FORBIDDEN, "The token is for some channels only";
    RouteUnknown = "route_unknown", NOT_FOUND, "There is nothing here";
    NotFound = "not_found", NOT_FOUND, "There is nothing of this name";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed";
    BodySlow = "body_slow", REQUEST_TIMEOUT, "The body did not come in time";
    NameTaken = "name_taken", CONFLICT, "The name is taken";
    TooMany = "too_many", CONFLICT, "There is no room for another one";
    ChannelActive = "channel_active", CONFLICT, "The channel is on air";
    ChannelState = "channel_state", CONFLICT, "The channel's state does not allow it";
    IdempotencyRunning = "idempotency_running", CONFLICT, "The same request is still running";
    RevisionMismatch = "revision_mismatch", PRECONDITION_FAILED, "It was changed meanwhile";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    BodyType = "body_type", UNSUPPORTED_MEDIA_TYPE, "The body is not of a known kind";
    InvalidFields = "invalid_fields", UNPROCESSABLE_ENTITY, "A field is wrong";
    IdempotencyMismatch = "idempotency_mismatch", UNPROCESSABLE_ENTITY, "The key was used for another request";
    IfMatchMissing = "if_match_missing", PRECONDITION_REQUIRED, "If-Match is needed";
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    Internal = "internal", INTERNAL_SERVER_ERROR, "A fault in Rung";
    RecordDamaged = "record_damaged", INTERNAL_SERVER_ERROR, "A stored record is damaged";
    PictureLate = "picture_late", SERVICE_UNAVAILABLE, "The picture did not come in time";
    StateUnwritable = "state_unwritable", SERVICE_UNAVAILABLE, "The state folder cannot be written";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too much is going on";
}

/// A field, or a query parameter, that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// JSON pointer into the body, such as `/ladder/1/height`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Name of the query parameter or header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// What to write instead.
    pub detail: String,
}

/// Why a request did not succeed. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    /// A sentence with the fix.
    pub detail: String,
    pub errors: Vec<FieldProblem>,
    /// When it may be tried again.
    pub retry_after: Option<Duration>,
    /// Methods that the address answers.
    pub allow: Option<String>,
    /// What the caller lacks, as `WWW-Authenticate` says it.
    pub challenge: Option<String>,
}

/// The body of a problem.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemView {
    /// A stable address that describes the code.
    r#type: String,
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What went wrong, and what to do about it.
    detail: String,
    code: Code,
    request_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldProblem>,
}

const FIELDS_TOLD: usize = 32;

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        Problem { code, detail: detail.into(), errors: Vec::new(), retry_after: None, allow: None, challenge: None }
    }

    /// One query parameter or header that is wrong.
    pub fn parameter(code: Code, name: &str, detail: impl Into<String>) -> Problem {
        let detail = detail.into();
        let error = FieldProblem { pointer: None, parameter: Some(name.to_owned()), detail: detail.clone() };
        Problem { errors: vec![error], ..Problem::new(code, format!("{name}: {detail}")) }
    }

    /// Fields of the body that are wrong: pointer and what to write instead.
    /// The first `FIELDS_TOLD` of them are told: an answer stays about as long as what it answers.
    pub fn fields(wrong: Vec<(String, String)>) -> Problem {
        let detail = match wrong.as_slice() {
            [(pointer, detail)] => format!("{pointer}: {detail}"),
            all => format!("{} fields are wrong: see errors", all.len()),
        };
        let error = |(pointer, detail)| FieldProblem { pointer: Some(pointer), parameter: None, detail };
        let errors = wrong.into_iter().take(FIELDS_TOLD).map(error).collect();
        Problem { errors, ..Problem::new(Code::InvalidFields, detail) }
    }

    pub fn field(pointer: &str, detail: impl Into<String>) -> Problem {
        Problem::fields(vec![(pointer.to_owned(), detail.into())])
    }

    pub fn not_found(what: &str) -> Problem {
        Problem::new(Code::NotFound, format!("there is no such {what}: list them to see their names"))
    }

    #[must_use]
    pub fn retry(self, after: Duration) -> Problem {
        Problem { retry_after: Some(after), ..self }
    }

    pub(super) fn view(&self, request_id: &str) -> ProblemView {
        ProblemView {
            r#type: format!("/problems/{}", self.code.name()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            request_id: request_id.to_owned(),
            errors: self.errors.clone(),
        }
    }
}

impl From<state::Error> for Problem {
    fn from(error: state::Error) -> Problem {
        use state::Error;
        let code = match &error {
            Error::Busy | Error::Closed => Code::Overloaded,
            Error::Unwritable(_) | Error::Io { .. } | Error::MapFull => Code::StateUnwritable,
            Error::Corrupt { .. } | Error::Newer { .. } => Code::RecordDamaged,
            Error::Encode { .. } | Error::Lmdb(_) | Error::Bug(_) => Code::Internal,
        };
        let problem = Problem::new(code, error.to_string());
        let passes = matches!(code, Code::Overloaded | Code::StateUnwritable);
        if passes { problem.retry(Duration::from_secs(1)) } else { problem }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        match failure {
            Failure::Store(error) => error.into(),
            Failure::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<lifecycle::Refusal> for Problem {
    fn from(refusal: lifecycle::Refusal) -> Problem {
        use lifecycle::Code as Why;
        let code = match refusal.code {
            Why::InvalidFields => {
                let wrong = refusal.errors.into_iter().map(|e| (e.pointer, e.detail));
                return Problem::fields(wrong.collect());
            }
            Why::NameTaken => Code::NameTaken,
            Why::TooManyChannels => Code::TooMany,
            Why::NotFound => Code::NotFound,
            Why::RevisionMismatch => Code::RevisionMismatch,
            Why::ChannelActive => Code::ChannelActive,
            Why::Stopped | Why::NotStarted | Why::Denied | Why::NotFromHere | Why::NoSuchLeg => Code::ChannelState,
        };
        Problem::new(code, refusal.detail)
    }
}

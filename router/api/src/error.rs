//! Refusals: a code for programs, a sentence for people, a hint for the next step.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Exit;

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct ApiError {
    /// The kind of refusal, for programs.
    #[serde(with = "crate::text")]
    pub code: ErrorCode,
    /// One sentence that says what was wrong, and where; no trailing full stop.
    pub message: String,
    /// What to do about it, when there is something to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The kinds of refusal. The text form is snake case: `owners_unreachable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorCode {
    /// The request cannot be parsed, or makes no sense.
    BadRequest,
    /// An address, subnet or range that cannot be used: host bits set, outside every range, a reserved address.
    InvalidAddress,
    /// What was named does not exist.
    NotFound,
    /// The service is switched off on this router.
    Disabled,
    /// There is no such path in this API.
    UnknownPath,
    /// The path exists, with another method.
    MethodNotAllowed,
    /// The body is larger than the API accepts.
    TooLarge,
    /// It collides with what exists: an address that another container holds, a name that is taken.
    Conflict,
    /// `rmpeer` of a peer that is alive.
    PeerAlive,
    /// Not permitted to this user, or to this process.
    PermissionDenied,
    /// The router has not started completely.
    NotReady,
    /// No free address is left, and no reachable peer has one to give.
    Exhausted,
    /// All space that could serve the request belongs to peers that cannot be reached.
    OwnersUnreachable,
    /// The deadline passed; `message` says what was being waited for.
    Deadline,
    /// More requests wait than the router accepts.
    TooBusy,
    /// The router is stopping.
    ShuttingDown,
    /// The kernel refused: a namespace is gone, a device cannot be made.
    Host,
    /// Nothing listens at the socket (said by the client, never by a router).
    NotRunning,
    /// The router broke the connection, or spoke nonsense (said by the client).
    Unreachable,
    /// A fault of the router itself.
    Internal,
}

/// Code, text, HTTP status, exit code: one row per kind.
type Row = (ErrorCode, &'static str, u16, Exit);

const TABLE: [Row; 20] = [
    (ErrorCode::BadRequest, "bad_request", 400, Exit::Usage),
    (ErrorCode::InvalidAddress, "invalid_address", 400, Exit::Usage),
    (ErrorCode::NotFound, "not_found", 404, Exit::NotFound),
    (ErrorCode::Disabled, "disabled", 404, Exit::NotFound),
    (ErrorCode::UnknownPath, "unknown_path", 404, Exit::Failed),
    (ErrorCode::MethodNotAllowed, "method_not_allowed", 405, Exit::Failed),
    (ErrorCode::TooLarge, "too_large", 413, Exit::Usage),
    (ErrorCode::Conflict, "conflict", 409, Exit::Conflict),
    (ErrorCode::PeerAlive, "peer_alive", 409, Exit::Conflict),
    (ErrorCode::PermissionDenied, "permission_denied", 403, Exit::Permission),
    (ErrorCode::NotReady, "not_ready", 503, Exit::NotRunning),
    (ErrorCode::Exhausted, "exhausted", 507, Exit::Failed),
    (ErrorCode::OwnersUnreachable, "owners_unreachable", 503, Exit::Failed),
    (ErrorCode::Deadline, "deadline", 504, Exit::Deadline),
    (ErrorCode::TooBusy, "too_busy", 503, Exit::Failed),
    (ErrorCode::ShuttingDown, "shutting_down", 503, Exit::NotRunning),
    (ErrorCode::Host, "host", 500, Exit::Failed),
    (ErrorCode::NotRunning, "not_running", 502, Exit::NotRunning),
    (ErrorCode::Unreachable, "unreachable", 502, Exit::NotRunning),
    (ErrorCode::Internal, "internal", 500, Exit::Failed),
];

impl ErrorCode {
    /// Every kind, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status that carries it.
    #[must_use]
    pub fn http_status(self) -> u16 {
        self.row().2
    }

    /// What a command that meets it exits with.
    #[must_use]
    pub fn exit(self) -> Exit {
        self.row().3
    }

    fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[TABLE.len() - 1])
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorCode {
    type Err = std::convert::Infallible;

    /// A code that this version does not know is an internal error of the router: the message still tells.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(TABLE.iter().find(|row| row.1 == text).map_or(Self::Internal, |row| row.0))
    }
}

impl ApiError {
    /// A refusal without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The service named is switched off.
    #[must_use]
    pub fn disabled(service: &str, flag: &str) -> Self {
        Self::new(ErrorCode::Disabled, format!("{service} is switched off on this router"))
            .with_hint(format!("start the router without `{flag}`"))
    }

    /// A fault of our own.
    pub fn internal(error: impl fmt::Display) -> Self {
        Self::new(ErrorCode::Internal, error.to_string())
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_text_and_is_parsed_back() {
        for code in ErrorCode::all() {
            assert_eq!(code.as_str().parse(), Ok(code));
            assert!((400..600).contains(&code.http_status()), "{code}");
            assert_ne!(code.exit(), Exit::Ok, "{code}");
        }
    }

    #[test]
    fn an_error_is_a_small_document_and_unknown_codes_are_survived() {
        let error =
            ApiError::new(ErrorCode::Conflict, "10.32.0.7 is held by web").with_hint("detach it first");
        let json = serde_json::to_string(&error).unwrap();
        assert_eq!(
            json,
            r#"{"code":"conflict","message":"10.32.0.7 is held by web","hint":"detach it first"}"#
        );
        assert_eq!(serde_json::from_str::<ApiError>(&json).unwrap(), error);
        assert_eq!(error.to_string(), "10.32.0.7 is held by web; detach it first");
        let newer: ApiError = serde_json::from_str(r#"{"code":"from_the_future","message":"m"}"#).unwrap();
        assert_eq!(newer.code, ErrorCode::Internal);
    }
}

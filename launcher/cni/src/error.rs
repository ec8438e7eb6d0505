//! Errors as the specification has them: a number, a sentence, the rest.

use serde_json::{Value, json};
use weave_api::{ApiError, ErrorCode};

use crate::Version;

/// The kinds of error. Up to 99 they are the specification's, from 100 on ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The configuration is of a version that we do not speak.
    IncompatibleVersion,
    /// The configuration asks for something that we do not do.
    UnsupportedField,
    /// There is no such container; nothing needs to be cleaned up.
    UnknownContainer,
    /// A variable of the environment is missing or makes no sense.
    InvalidEnvironment,
    /// Reading, writing or running something failed.
    Io,
    /// What was read is not the JSON that it should be.
    Undecodable,
    /// The configuration makes no sense.
    InvalidConfig,
    /// It may work later.
    TryAgainLater,
    /// ADD cannot be served (STATUS).
    NotAvailable,
    /// The router or the kernel refused.
    Failed,
    /// No address is left.
    Exhausted,
    /// The address belongs to somebody else.
    Conflict,
    /// The attachment is not as it was made (CHECK).
    Changed,
    /// What another plugin said, passed on.
    Delegated(u32),
}

impl Code {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Undecodable => 6,
            Self::InvalidConfig => 7,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::Failed => 100,
            Self::Exhausted => 101,
            Self::Conflict => 102,
            Self::Changed => 103,
            Self::Delegated(number) => number,
        }
    }
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// The kind, for programs.
    pub code: Code,
    /// One sentence that says what was wrong.
    pub message: String,
    /// What to do about it, or more about it.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The same with something more to know, behind the details.
    #[must_use]
    pub(crate) fn and_also(mut self, more: &str) -> Self {
        if !self.details.is_empty() {
            self.details.push_str("; ");
        }
        self.details.push_str(more);
        self
    }

    /// The document that goes to stdout.
    pub(crate) fn document(&self, version: Option<Version>) -> Value {
        let version = version.unwrap_or(Version::NEWEST).as_str();
        let mut document = json!({ "cniVersion": version, "code": self.code.number(), "msg": self.message });
        if !self.details.is_empty() {
            document["details"] = Value::from(self.details.clone());
        }
        document
    }
}

impl From<ApiError> for CniError {
    fn from(error: ApiError) -> Self {
        let code = match error.code {
            ErrorCode::BadRequest | ErrorCode::InvalidAddress | ErrorCode::Disabled => Code::InvalidConfig,
            ErrorCode::NotFound => Code::UnknownContainer,
            ErrorCode::Conflict | ErrorCode::PeerAlive => Code::Conflict,
            ErrorCode::NotReady
            | ErrorCode::OwnersUnreachable
            | ErrorCode::Deadline
            | ErrorCode::TooBusy
            | ErrorCode::ShuttingDown
            | ErrorCode::NotRunning
            | ErrorCode::Unreachable => Code::TryAgainLater,
            ErrorCode::Exhausted => Code::Exhausted,
            ErrorCode::UnknownPath
            | ErrorCode::MethodNotAllowed
            | ErrorCode::TooLarge
            | ErrorCode::PermissionDenied
            | ErrorCode::Host
            | ErrorCode::Internal => Code::Failed,
        };
        Self { code, message: error.message, details: error.hint.unwrap_or_default() }
    }
}

//! Errors that carry an exit code.

use std::{fmt, process::ExitCode};

pub(crate) use weave_api::Exit;
use weave_hostnet::HostError;

/// An error whose kind decides the exit code.
#[derive(Debug)]
pub(crate) struct Fatal {
    exit: Exit,
    message: String,
}

impl Fatal {
    pub(crate) fn error(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        Self { exit, message: message.into() }.into()
    }

    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::error(Exit::Usage, message)
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fatal {}

/// The exit code for an error: the kind it carries, or what its causes tell.
pub(crate) fn exit_for(error: &anyhow::Error) -> Exit {
    if let Some(fatal) = error.downcast_ref::<Fatal>() {
        return fatal.exit;
    }
    let is_host_refusal = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(HostError::NoPermission { .. }))
    };
    if error.chain().any(is_host_refusal) {
        return Exit::Permission;
    }
    let kind =
        error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    match kind {
        Some(std::io::ErrorKind::PermissionDenied) => Exit::Permission,
        Some(std::io::ErrorKind::AddrInUse) => Exit::Conflict,
        Some(_) | None => Exit::Failed,
    }
}

/// The exit code as the process gives it back.
pub(crate) fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit.code())
}

/// The table of exit codes, for `--help`.
pub(crate) fn table() -> String {
    let rows = Exit::ALL.iter().map(|exit| format!("  {}  {}\n", exit.code(), exit.meaning()));
    format!(
        "Exit codes:\n{}\nThe password may also be given in the environment variable WEAVE_PASSWORD.",
        rows.collect::<String>()
    )
}

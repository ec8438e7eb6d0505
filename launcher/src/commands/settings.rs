//! What a router is told: its config file before it starts, its log level while it runs.

use std::path::Path;

use weave_api::{Exit, LogLevelRequest};

use crate::{
    commands::reset::host_tool,
    context::{Context, Failure},
};

pub(super) async fn log_level(context: &Context, level: Option<String>) -> Result<(), Failure> {
    let is_question = level.is_none();
    let answer = context.client.call(&LogLevelRequest { level }).await?;
    context.answer(&answer, || if is_question { format!("{}\n", answer.level) } else { String::new() })
}

/// The router knows its settings best: it reads the file and says in one sentence what is wrong.
pub(super) fn check(context: &Context, file: &Path) -> Result<(), Failure> {
    let mut command = host_tool(context, "--check-config");
    command.arg("--config").arg(file);
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| {
        let message =
            format!("cannot run {program}: {error}; install it beside `weave`, or set WEAVER to its path");
        Failure::new(Exit::NotFound, message)
    })?;
    if output.status.success() {
        return context.answer(&serde_json::json!({ "file": file, "valid": true }), String::new);
    }
    let exit = output.status.code().and_then(Exit::from_code).unwrap_or(Exit::Failed);
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.is_empty()).unwrap_or("it does not say why");
    let said = said.strip_prefix("weaver: ").or_else(|| said.strip_prefix("error: ")).unwrap_or(said);
    Err(Failure::new(exit, said))
}

//! Commands of Weave Net that are gone, and what does their work now.

use clap::error::{ContextKind, ContextValue, ErrorKind};

const REPLACEMENT_BY_COMMAND: [(&str, &str); 13] = [
    ("attach-bridge", "`weave launch` makes the bridge, and keeps it"),
    ("bridge-type", "there is one kind of bridge; see `weave report`"),
    ("docker-bridge-ip", "nothing needs the address of Docker's bridge any more"),
    ("launch-plugin", "use `weave launch`"),
    ("launch-proxy", "use `weave launch`"),
    ("launch-router", "use `weave launch`"),
    ("restart", "use `weave stop` and `weave launch --resume`"),
    ("run", "use `weave attach` on a running container"),
    ("setup", "there is nothing to set up: `weave launch` needs no images"),
    ("start", "use `weave attach` on a running container"),
    ("stop-plugin", "use `weave stop`"),
    ("stop-proxy", "use `weave stop`"),
    ("stop-router", "use `weave stop`"),
];

/// What to say about a command that was removed; none if the error is about something else.
pub(crate) fn answer(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let (command, replacement) = REPLACEMENT_BY_COMMAND.iter().find(|(command, _)| command == given)?;
    Some(format!("`weave {command}` was removed: {replacement}"))
}

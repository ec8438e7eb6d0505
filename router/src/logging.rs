//! The log: where it goes, and how much of it there is.

use std::{
    io::IsTerminal as _,
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::EnvFilter;

use crate::exit::Fatal;

/// Parts of ours that are spoken of at the level that was asked for.
const OURS: [&str; 8] = [
    "weaver",
    "weave_node",
    "weave_mesh",
    "weave_ipam",
    "weave_dns",
    "weave_hostnet",
    "weave_worker",
    "weave_control",
];

/// Changes how much is logged while the router runs.
#[derive(Clone)]
pub(crate) struct Logging {
    level: Arc<Mutex<tracing::Level>>,
    reload: Reload,
}

type Reload = Arc<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>;

/// For whom the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs: an object to a line, with the fields of the event beside `timestamp`, `level`, `target` and `message`.
    Json,
}

/// Sends the log to standard error.
pub(crate) fn init(level: &str, format: LogFormat) -> anyhow::Result<Logging> {
    let level = parse(level).ok_or_else(|| {
        Fatal::usage(format!("--log-level {level}: give error, warn, info, debug or trace"))
    })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter(level)).with_writer(std::io::stderr);
    let reload: Reload = match format {
        LogFormat::Text => {
            let subscriber = subscriber.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let handle = subscriber.reload_handle();
            subscriber.init();
            Arc::new(move |filter| Ok(handle.reload(filter)?))
        }
        LogFormat::Json => {
            let subscriber =
                subscriber.json().flatten_event(true).with_span_list(false).with_filter_reloading();
            let handle = subscriber.reload_handle();
            subscriber.init();
            Arc::new(move |filter| Ok(handle.reload(filter)?))
        }
    };
    Ok(Logging { level: Arc::new(Mutex::new(level)), reload })
}

impl Logging {
    /// The level in force, in lower case.
    pub(crate) fn level(&self) -> String {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).to_string().to_lowercase()
    }

    /// Changes it from now on; `None` when that is no level.
    pub(crate) fn set(&self, text: &str) -> anyhow::Result<Option<()>> {
        let Some(level) = parse(text) else { return Ok(None) };
        (self.reload)(filter(level))?;
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = level;
        Ok(Some(()))
    }
}

/// The words of Weave Net are understood too.
fn parse(text: &str) -> Option<tracing::Level> {
    let text = if text == "warning" { "warn" } else { text };
    text.parse().ok().filter(|_| text.chars().all(char::is_alphabetic))
}

/// Libraries below ours speak of their own inner life; only what is wrong there concerns an operator.
fn filter(level: tracing::Level) -> EnvFilter {
    let others = if level == tracing::Level::TRACE { "info" } else { "warn" };
    let ours: String = OURS.iter().map(|target| format!(",{target}={level}")).collect();
    EnvFilter::new(format!("{others}{ours}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words() {
        assert_eq!(parse("debug"), Some(tracing::Level::DEBUG));
        assert_eq!(parse("warning"), Some(tracing::Level::WARN));
        for wrong in ["", "2", "loud", "weaver=debug"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}

//! What is shown, and how often.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// One part in detail.
    #[arg(value_enum)]
    pub(crate) view: Option<View>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

/// For what is worth looking at again and again.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Show it again every so many seconds, until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true)]
    pub(crate) watch: Option<u64>,
}

/// A part of the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum View {
    /// Our links, and attempts at them.
    Connections,
    /// Every known router and its links.
    Peers,
    /// Peers to keep links to.
    Targets,
    /// Who owns which part of the addresses.
    Ipam,
    /// Names.
    Dns,
    /// What went over which link, and what was dropped.
    Overlay,
}

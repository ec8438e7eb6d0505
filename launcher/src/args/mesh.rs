//! Other routers, and the ring that they share.

use clap::{Args, Subcommand};

use super::help::REPAIR_HELP;

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Make these the only peers to keep links to; with none, keep no links.
    #[arg(long)]
    pub(crate) replace: bool,
    /// `host`, `host:port`, an address, or `[address]:port`.
    #[arg(value_name = "PEER", required_unless_present = "replace")]
    pub(crate) peers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Peers {
    /// Peers as they were given to `launch` or `connect`.
    #[arg(value_name = "PEER", required = true)]
    pub(crate) peers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rmpeer {
    /// Names or nicknames.
    #[arg(value_name = "PEER", required = true)]
    pub(crate) peers: Vec<String>,
    /// Even from a peer that seems alive; two containers may then get the same address.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Seconds to wait; 0 tells at once whether it would.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

/// `weave ipam …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// Make one ring of two that have met, or make this router's space its own again after its store was restored.
    #[command(after_help = REPAIR_HELP)]
    Repair(Repair),
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// Do it; without this, only say what would be done.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Seconds to wait for other routers, for each step.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) timeout: u64,
}

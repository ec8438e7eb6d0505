//! Our nftables rules: one table, `inet weave`, replaced as a whole in one transaction.
//!
//! The table holds at most two chains:
//!
//! * `postrouting`: traffic from the network to the world outside, and from outside into the network, gets the
//!   host's address, so that answers find their way back (`weave expose`). What comes from outside to containers of this
//!   very host may keep its source: their answers come by here anyway (sets `local4`, `local6`);
//! * `input`: containers cannot reach the given ports of the host.
//!
//! Every table of a hook has its say: what another table drops by policy (Docker's `FORWARD` chain, say), no rule in
//! a table of ours can save. So we put rules at the head of such chains, which let pass what goes from port to port
//! of the bridge, and from and to the masqueraded subnets. They carry the comment `weave`, by which they are found
//! and removed again. (Chains of the old `iptables-legacy` are not visible to nf_tables.)
//!
//! We speak to the kernel by netlink ourselves, because nothing here may fork and we need few kinds of expression.
//!
//! For others there are [`Program`]s: tables of rules over named sets and maps ([`Session`]).

mod attribute;
mod conntrack;
mod encode;
mod expression;
mod frame;
mod grace;
mod load;
mod nflog;
mod program;
mod readback;
mod ruleset;
mod survey;
mod traffic;
mod transaction;
mod watch;

use std::{collections::BTreeSet, net::IpAddr};

use weave_model::Subnet;

pub use conntrack::TrackedConnection;
pub use expression::{End, Expressions, Verdict};
pub use frame::EtherType;
pub use grace::await_packets_under_way;
pub use load::{ConnectionState, IpFamily, LONGEST_KEY, Register, Way};
pub use nflog::{Logged, LoggedPacket, PacketLog};
pub use program::{
    ChainSpec, Field, Hook, Item, Program, Rule, Session, SetChange, SetSpec, Value, is_stale, uninstall,
    uninstall_from_bridges,
};
pub use survey::Standing;
pub use traffic::Traffic;
pub use watch::{Author, Notice, TableWatch};

use crate::HostError;

/// The rules that we want on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NftSpec {
    /// Name of the bridge.
    pub bridge: String,
    /// Subnets of the network whose traffic to and from the outside is masqueraded.
    pub masquerade: Vec<Subnet>,
    /// TCP and UDP ports of the host that containers shall not reach.
    pub protected_ports: Vec<u16>,
    /// Addresses of containers that shall see who calls from outside, if any shall; [`keep_sources`] changes them.
    pub local: Option<BTreeSet<IpAddr>>,
}

/// Replaces our table, and our rules in chains of others, by those of `spec`; with neither subnets nor ports all go.
/// Between the old and the new rules there is no moment without rules, and a failure changes nothing.
///
/// Like everything here it works in the network namespace of the calling thread, and waits for nothing.
///
/// # Errors
/// [`HostError::Unsupported`] when the kernel has no nf_tables, or no NAT in it; [`HostError::NoPermission`].
pub fn apply(spec: &NftSpec) -> anyhow::Result<()> {
    let ours = survey::marked_rules()?;
    let messages = if spec.masquerade.is_empty() && spec.protected_ports.is_empty() {
        [ruleset::remove(), ruleset::pass(spec, &[], &ours)]
    } else {
        [ruleset::replace(spec), ruleset::pass(spec, &survey::obstacles()?, &ours)]
    };
    Ok(transaction::commit(&messages.concat())?)
}

/// Changes for which containers sources are kept, where [`apply`] has made a table with some [`local`](NftSpec::local) and something to
/// masquerade.
///
/// # Errors
/// What the kernel says: there is no such table, what goes is not there, or what comes is. Nothing was changed then.
pub fn keep_sources(gone: &BTreeSet<IpAddr>, come: &BTreeSet<IpAddr>) -> Result<(), HostError> {
    let program = ruleset::sources();
    Session::open()?.change(&program, &ruleset::source_changes(&program, gone, come), None)
}

/// Removes our table, and our rules in chains of others.
///
/// # Errors
/// [`HostError::NoPermission`], or what else the kernel says. A kernel without nf_tables has nothing to remove.
pub fn remove() -> anyhow::Result<()> {
    match apply(&NftSpec::default()) {
        Err(error) if matches!(error.downcast_ref(), Some(HostError::Unsupported { .. })) => Ok(()),
        other => other,
    }
}

/// Chains of others that drop forwarded packets unless a rule lets them through, as `family table chain`.
///
/// # Errors
/// What the kernel says. A kernel without nf_tables has none.
pub fn forward_obstacles() -> anyhow::Result<Vec<String>> {
    match survey::obstacles() {
        Err(HostError::Unsupported { .. }) => Ok(Vec::new()),
        other => Ok(other?.iter().map(ToString::to_string).collect()),
    }
}

/// What stands now of what [`apply`] made. Who asks later whether it [still does](still_stands) knows whether to apply again.
///
/// # Errors
/// What the kernel says.
pub fn standing() -> Result<Standing, HostError> {
    survey::standing(ruleset::TABLE)
}

/// Whether that still stands. Reads no rules unless a table of this namespace was changed since: a host may have tens of thousands.
///
/// # Errors
/// What the kernel says.
pub fn still_stands(stood: &mut Standing) -> Result<bool, HostError> {
    survey::still_stands(ruleset::TABLE, stood)
}

/// Whether nf_tables can do NAT. Changes nothing.
#[must_use]
pub fn can_masquerade() -> bool {
    transaction::reaches_the_end(&ruleset::try_masquerade())
}

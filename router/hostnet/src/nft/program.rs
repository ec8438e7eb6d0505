//! Programs: a table whose rules never change, over named sets and maps whose elements do.
//!
//! [`Session::install`] replaces the table as a whole; [`Session::change`] adds and removes elements in one transaction;
//! [`Session::read`] tells what is there. Nothing here waits.

use std::net::IpAddr;

use weave_model::Mac;

use super::{
    encode,
    expression::Expressions,
    grace::await_packets_under_way,
    survey::{BRIDGE, INET},
    transaction::{self, Channel},
    watch::Author,
};
use crate::HostError;

/// A table: `inet NAME`, or `bridge NAME` with [`Hook::BridgePort`].
#[derive(Debug, Clone)]
pub struct Program {
    /// Its name. Nobody else may have a table of this name.
    pub table: String,
    /// Its sets and maps.
    pub sets: Vec<SetSpec>,
    /// Its chains; a chain comes before those that jump to it.
    pub chains: Vec<ChainSpec>,
}

/// A set, or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    /// Its name.
    pub name: String,
    /// The parts of its keys.
    pub key: Vec<Field>,
    /// Values of a map.
    pub value: Option<Field>,
    /// Whether keys are intervals, which must not overlap.
    pub has_intervals: bool,
    /// Whether each element counts what it is found for, as [`Session::traffic`] tells. Kernels before 5.7 do not count.
    pub has_counters: bool,
}

impl SetSpec {
    /// A set of keys of these parts, and nothing more.
    #[must_use]
    pub fn of(name: impl Into<String>, key: &[Field]) -> Self {
        Self { name: name.into(), key: key.to_vec(), value: None, has_intervals: false, has_counters: false }
    }
}

/// What a part of a key, or a value, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A number that means nothing to the kernel. Shown as `mark`.
    Number,
    /// A protocol above IP.
    Protocol,
    /// A port.
    Port,
    /// An Ethernet address.
    Ethernet,
    /// The name of an interface.
    Interface,
}

/// A part of a key, or a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Of an [`Field::Ipv4`] or [`Field::Ipv6`].
    Address(IpAddr),
    /// Of a [`Field::Number`].
    Number(u32),
    /// Of a [`Field::Protocol`].
    Protocol(u8),
    /// Of a [`Field::Port`].
    Port(u16),
    /// Of a [`Field::Ethernet`].
    Ethernet(Mac),
    /// Of a [`Field::Interface`]: a name as the kernel has it, filled up with zeros.
    Interface([u8; INTERFACE_LENGTH]),
}

/// Bytes of an interface's name, the final zero included (Linux: `IFNAMSIZ`).
pub(super) const INTERFACE_LENGTH: usize = 16;

impl Value {
    /// The interface of this name, of which only as many bytes count as a name can have.
    #[must_use]
    pub fn interface(name: &str) -> Self {
        let mut padded = [0; INTERFACE_LENGTH];
        padded.iter_mut().zip(name.bytes().take(INTERFACE_LENGTH - 1)).for_each(|(to, from)| *to = from);
        Self::Interface(padded)
    }
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// Its key; of an interval, the lowest.
    pub key: Vec<Value>,
    /// Of an interval, the highest key, included.
    pub last: Option<Vec<Value>>,
    /// What a map has for it.
    pub value: Option<Value>,
}

/// A chain.
#[derive(Debug, Clone)]
pub struct ChainSpec {
    /// Its name.
    pub name: String,
    /// Where it is entered, if not by jumps.
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it says, for who lists it: not everything that the kernel can do has a form in the nft tool. Only the
    /// first 50 characters are shown.
    pub note: String,
    /// What it does.
    pub expressions: Expressions,
}

/// Where packets enter a chain, at the usual place for filters. What ends without verdict is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// On their way to this host.
    Input,
    /// On their way through this host; frames through a bridge too, with `br_netfilter`.
    Forward,
    /// On their way from this host's programs and tunnels, routed already.
    Output,
    /// Frames as they come from a port of a bridge, before anybody else looks at them. A program with this hook has no
    /// other.
    BridgePort,
}

impl Hook {
    /// The kernel's number of the hook, and the place among those who are there (`NF_INET_*`, `NF_BR_PRE_ROUTING`;
    /// `NF_IP_PRI_FILTER`, `NF_BR_PRI_FILTER_BRIDGED`).
    pub(super) const fn place(self) -> (u32, i32) {
        match self {
            Self::Input => (1, 0),
            Self::Forward => (2, 0),
            Self::Output => (3, 0),
            Self::BridgePort => (0, -200),
        }
    }
}

impl Program {
    /// The same, as the table that stands in while it takes another's place.
    pub(super) fn stand_in(&self) -> Self {
        Self { table: stand_in(&self.table), ..self.clone() }
    }

    /// The family of its table.
    pub(super) fn family(&self) -> u8 {
        let is_bridge = self.chains.iter().any(|chain| chain.hook == Some(Hook::BridgePort));
        if is_bridge { BRIDGE } else { INET }
    }
}

/// Elements of one set that go and come.
#[derive(Debug, Clone)]
pub struct SetChange<'a> {
    /// Which set.
    pub set: &'a SetSpec,
    /// What goes; all of it must be there.
    pub remove: Vec<Item>,
    /// What comes then; none of it must be there.
    pub add: Vec<Item>,
}

/// A way to the tables of the network namespace in which it was opened.
pub struct Session(pub(super) Channel);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Session").field(&self.0.port()).finish()
    }
}

impl Session {
    /// A way to the tables of the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] when the kernel has no nf_tables, or what else the kernel says.
    pub fn open() -> Result<Self, HostError> {
        Channel::open().map(Self)
    }

    /// As whom a [`TableWatch`](super::TableWatch) knows changes made by this.
    #[must_use]
    pub const fn author(&self) -> Author {
        Author(self.0.port())
    }

    /// Replaces the table, if there is one, by `program` with these elements. No packet passes in between.
    ///
    /// A transaction alone does not see to that: the kernel asks a new chain before the one that it replaces (same
    /// priority: `nf_hook_entries_grow`), each for the generation of that moment. A packet that was asked by the new one
    /// before it counts, and by the old one when that does not count any more, passes both. So a second table of the same
    /// program stands in while the first is replaced.
    ///
    /// # Errors
    /// [`HostError::NoPermission`], or what else the kernel says. The table is the old one or the new one then, and a
    /// stand-in may be left, which the next call removes.
    pub fn install(&self, program: &Program, elements: &[SetChange<'_>]) -> Result<(), HostError> {
        let stand_in = program.stand_in();
        let made = if self.has_any_rules(program)? {
            self.replace(program, &stand_in, elements)
        } else {
            self.make(program, elements)
        };
        // Of one who was killed in between, too.
        let removed = if self.has_table(&stand_in)? {
            let messages = encode::uninstall(stand_in.family(), &stand_in.table);
            transaction::commit_if(&self.0, &messages, None)
        } else {
            Ok(())
        };
        made.and(removed)
    }

    /// Each step counts for every packet before the next begins.
    fn replace(
        &self,
        program: &Program,
        stand_in: &Program,
        elements: &[SetChange<'_>],
    ) -> Result<(), HostError> {
        self.make(stand_in, elements)?;
        await_packets_under_way()?;
        self.make(program, elements)?;
        await_packets_under_way()
    }

    fn make(&self, program: &Program, elements: &[SetChange<'_>]) -> Result<(), HostError> {
        transaction::commit_if(&self.0, &encode::install(program, elements), None)
    }

    /// Removes and adds elements of `program`'s sets: all of them or none. With a `generation`, only if no table of this
    /// namespace was changed since [`generation`](Self::generation) gave it.
    ///
    /// # Errors
    /// [`is_stale`] tells whether the generation was another. What else the kernel says, if what goes is not there, or
    /// what comes is, or collides with what is. Nothing was changed then.
    pub fn change(
        &self,
        program: &Program,
        changes: &[SetChange<'_>],
        generation: Option<u32>,
    ) -> Result<(), HostError> {
        let messages = encode::change(program, changes);
        transaction::commit_if(&self.0, &messages, generation)
    }
}

/// The name of the table that stands in for another.
fn stand_in(name: &str) -> String {
    format!("{name}-stand-in")
}

/// Whether somebody else changed a table in between.
#[must_use]
pub fn is_stale(error: &HostError) -> bool {
    error.errno() == Some(libc::ERESTART)
}

/// Removes the table `inet NAME`, whether it is there or not.
///
/// # Errors
/// [`HostError::NoPermission`], or what else the kernel says. A kernel without nf_tables has nothing to remove.
pub fn uninstall(name: &str) -> Result<(), HostError> {
    uninstall_of(INET, name)
}

/// Removes the table `bridge NAME`, whether it is there or not.
///
/// # Errors
/// As of [`uninstall`].
pub fn uninstall_from_bridges(name: &str) -> Result<(), HostError> {
    uninstall_of(BRIDGE, name)
}

fn uninstall_of(family: u8, name: &str) -> Result<(), HostError> {
    let both = [name, &stand_in(name)].map(|name| encode::uninstall(family, name));
    match transaction::commit(&both.concat()) {
        Err(HostError::Unsupported { .. }) => Ok(()),
        other => other,
    }
}

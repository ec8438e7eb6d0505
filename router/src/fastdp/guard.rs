//! Keeps strangers out of the VXLAN port.
//!
//! The kernel takes VXLAN from whoever sends it, and puts it on the bridge. So what arrives on that port from any other
//! address than those of our neighbours is dropped, in an nftables table of our own.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use weave_hostnet::{
    HostError,
    nft::{
        self, ChainSpec, End, Expressions, Field, Hook, IpFamily, Item, Program, Register, Rule, Session,
        SetChange, SetSpec, Value, Verdict,
    },
};

use super::PORT;

/// The table, and its sets.
const TABLE: &str = "weave-fastdp";
const PEERS: [&str; 2] = ["peers4", "peers6"];

/// Protocol number of UDP (RFC 768).
const UDP: u8 = 17;

/// The neighbours that are let in, and the rules that see to it.
pub(super) struct Guard {
    program: Program,
    /// Whether the kernel's path must not be used without it.
    is_required: bool,
    admitted: Mutex<Admitted>,
}

/// Who is let in, and on whose word.
#[derive(Debug, Default)]
struct Admitted {
    /// Those with a link.
    linked: BTreeSet<IpAddr>,
    /// Those whom the kernel's tables name; some outlive their link.
    planned: BTreeSet<IpAddr>,
    /// Whether the rules have been there.
    is_closed: bool,
    /// Whether a warning was given.
    is_absent: bool,
}

impl Guard {
    /// With `is_required` a kernel without nftables is an error, else a warning.
    pub(super) fn new(is_required: bool) -> Self {
        Self { program: program(), is_required, admitted: Mutex::default() }
    }

    /// Lets those in with whom we have links, and no others but those of the plan.
    pub(super) fn admit_linked(&self, linked: BTreeSet<IpAddr>) -> anyhow::Result<()> {
        let mut admitted = self.lock();
        admitted.linked = linked;
        self.apply(&mut admitted)
    }

    /// Lets those in whom the kernel's tables name, and no others but those with links. Also mends what somebody flushed.
    pub(super) fn admit_planned(&self, planned: BTreeSet<IpAddr>) -> anyhow::Result<()> {
        let mut admitted = self.lock();
        admitted.planned = planned;
        self.apply(&mut admitted)
    }

    /// Lets in nobody but those who are admitted. To be called before there is anything to come in by.
    pub(super) fn close(&self) -> anyhow::Result<()> {
        self.apply(&mut self.lock())
    }

    /// Whether the rules have to be there.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    fn apply(&self, admitted: &mut Admitted) -> anyhow::Result<()> {
        let wanted: BTreeSet<IpAddr> = admitted.linked.union(&admitted.planned).copied().collect();
        match self.bring_about(&wanted) {
            Err(HostError::Unsupported { .. }) if !self.is_required => {
                if !std::mem::replace(&mut admitted.is_absent, true) {
                    tracing::warn!(
                        "this kernel has no nftables: anybody who reaches UDP {PORT} can send frames to containers"
                    );
                }
                Ok(())
            }
            other => {
                admitted.is_closed |= other.is_ok();
                other.with_context(|| format!("cannot keep strangers out of UDP {PORT}"))
            }
        }
    }

    fn bring_about(&self, wanted: &BTreeSet<IpAddr>) -> Result<(), HostError> {
        let tables = Session::open()?;
        let present = tables.read(&self.program)?;
        let is_new = present.is_none();
        let present = present.unwrap_or_else(|| vec![Vec::new(); self.program.sets.len()]);
        let changes = self.program.sets.iter().zip(&present).map(|(set, items)| {
            let of_family = wanted.iter().filter(|address| set.name == set_of(**address));
            let wanted: BTreeSet<Item> = of_family.map(|address| item(*address)).collect();
            let present: BTreeSet<Item> = items.iter().cloned().collect();
            SetChange {
                set,
                remove: present.difference(&wanted).cloned().collect(),
                add: wanted.difference(&present).cloned().collect(),
            }
        });
        let changes: Vec<SetChange<'_>> =
            changes.filter(|change| !change.remove.is_empty() || !change.add.is_empty()).collect();
        if is_new {
            tables.install(&self.program, &changes)
        } else if changes.is_empty() {
            Ok(())
        } else {
            tables.change(TABLE, &changes, None)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Admitted> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the rules away.
pub(super) fn remove() -> anyhow::Result<()> {
    Ok(nft::uninstall(TABLE)?)
}

fn set_of(address: IpAddr) -> &'static str {
    PEERS[usize::from(address.is_ipv6())]
}

fn item(address: IpAddr) -> Item {
    Item { key: vec![Value::Address(address)], last: None, value: None }
}

fn program() -> Program {
    let families = [(IpFamily::V4, Field::Ipv4), (IpFamily::V6, Field::Ipv6)];
    let sets = PEERS.iter().zip(families).map(|(name, (_, field))| SetSpec {
        name: (*name).to_owned(),
        key: vec![field],
        value: None,
        has_intervals: false,
    });
    let rules = PEERS.iter().zip(families).map(|(set, (family, _))| Rule {
        note: "no VXLAN from strangers".to_owned(),
        expressions: Expressions::default()
            .is_family(family)
            .destination_port(UDP, PORT)
            .load_header_address(End::Source, family, Register(0))
            .is_not_in_set(set, Register(0))
            .count()
            .verdict(Verdict::Drop),
    });
    Program {
        table: TABLE.to_owned(),
        sets: sets.collect(),
        chains: vec![ChainSpec { name: "input".to_owned(), hook: Some(Hook::Input), rules: rules.collect() }],
    }
}

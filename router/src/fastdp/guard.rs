//! Keeps strangers out of the VXLAN port, and what is to be encrypted off the wire.
//!
//! The kernel takes VXLAN from whoever sends it, and puts it on the bridge. So what arrives on that port from any other
//! address than those of our neighbours is dropped, in an nftables table of our own.
//!
//! It also counts what is sent to and received from each of them.
//!
//! Beside a [shield](super::shield) the table is its second lock: what leaves or arrives on that port without IPsec is
//! dropped, but for those whom the shield lets through in the clear. The shield's policies say which packets are to be
//! encrypted, the table looks at whether they are: who flushes either one leaves the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use weave_hostnet::{
    HostError,
    nft::{
        self, ChainSpec, End, Expressions, Field, Hook, IpFamily, Item, Program, Register, Rule, Session,
        SetChange, SetSpec, Traffic, Value, Verdict,
    },
};

use super::{PORT, shield::Shield};

/// The table, and its sets: neighbours, who may come in, with what was received from them and sent to them; and those with
/// whom we speak in the clear.
pub(super) const TABLE: &str = "weave-fastdp";
const RECEIVED: [&str; 2] = ["received4", "received6"];
const SENT: [&str; 2] = ["sent4", "sent6"];
const CLEAR: [&str; 2] = ["clear4", "clear6"];
/// A table that is tried out and taken away.
const TRIAL: &str = "weave-fastdp-trial";

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
    /// With `is_required` a kernel without nftables is an error, else a warning. With `is_shielded` nothing passes in the
    /// clear but to and from those who are named.
    pub(super) fn new(is_required: bool, is_shielded: bool) -> Self {
        Self { program: program(TABLE, is_shielded), is_required, admitted: Mutex::default() }
    }

    /// Lets those in with whom we have links, and no others but those of the plan; in the clear those of `shield`.
    pub(super) fn admit_linked(&self, linked: BTreeSet<IpAddr>, shield: &Shield) -> anyhow::Result<()> {
        let mut admitted = self.lock();
        admitted.linked = linked;
        self.apply(&mut admitted, shield)
    }

    /// Lets those in whom the kernel's tables name, and no others but those with links; in the clear those of `shield`. Also
    /// mends what somebody flushed.
    pub(super) fn admit_planned(&self, planned: BTreeSet<IpAddr>, shield: &Shield) -> anyhow::Result<()> {
        let mut admitted = self.lock();
        admitted.planned = planned;
        self.apply(&mut admitted, shield)
    }

    /// Lets in nobody but those who are admitted. To be called before there is anything to come in by.
    pub(super) fn close(&self, shield: &Shield) -> anyhow::Result<()> {
        self.apply(&mut self.lock(), shield)
    }

    /// Whether the rules have to be there.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    fn apply(&self, admitted: &mut Admitted, shield: &Shield) -> anyhow::Result<()> {
        let peers: BTreeSet<IpAddr> = admitted.linked.union(&admitted.planned).copied().collect();
        match self.bring_about(&peers, &shield.clear()) {
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

    fn bring_about(&self, peers: &BTreeSet<IpAddr>, clear: &BTreeSet<IpAddr>) -> Result<(), HostError> {
        let tables = Session::open()?;
        let present = tables.read(&self.program)?;
        let is_new = present.is_none();
        let present = present.unwrap_or_else(|| vec![Vec::new(); self.program.sets.len()]);
        let changes = self.program.sets.iter().zip(&present).map(|(set, items)| {
            let addresses = if CLEAR.contains(&set.name.as_str()) { clear } else { peers };
            let is_v6 = set.key == [Field::Ipv6];
            let of_family = addresses.iter().filter(|address| address.is_ipv6() == is_v6);
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
            tables.change(&self.program, &changes, None)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Admitted> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this kernel can tell what is encrypted from what is not: makes the rules, where no packet meets them, and takes
/// them away again.
pub(super) fn check() -> Result<(), HostError> {
    let mut trial = program(TRIAL, true);
    // On no packet's way.
    trial.chains.iter_mut().for_each(|chain| chain.hook = None);
    let made = Session::open()?.install(&trial, &[]);
    let removed = nft::uninstall(TRIAL);
    made.and(removed)
}

/// Takes the rules away.
pub(super) fn remove() -> anyhow::Result<()> {
    Ok(nft::uninstall(TABLE)?)
}

/// What the kernel carried for a neighbour: frames with their tunnel's headers, and heartbeats.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Carried {
    pub(crate) sent: Traffic,
    pub(crate) received: Traffic,
}

/// What the kernel carried, by the neighbour's address. Counted anew for who was away.
pub(crate) fn carried() -> Result<BTreeMap<IpAddr, Carried>, HostError> {
    let program = program(TABLE, false);
    let session = Session::open()?;
    let mut carried = BTreeMap::<IpAddr, Carried>::new();
    for set in program.sets.iter().filter(|set| set.has_counters) {
        for (key, traffic) in session.traffic(&program, set)? {
            let [Value::Address(address)] = key[..] else { continue };
            let carried = carried.entry(address).or_default();
            if SENT.contains(&set.name.as_str()) {
                carried.sent = traffic;
            } else {
                carried.received = traffic;
            }
        }
    }
    Ok(carried)
}

fn item(address: IpAddr) -> Item {
    Item { key: vec![Value::Address(address)], last: None, value: None }
}

fn program(table: &str, is_shielded: bool) -> Program {
    let families = [(IpFamily::V4, Field::Ipv4), (IpFamily::V6, Field::Ipv6)];
    let mut sets = vec![RECEIVED, SENT];
    sets.extend(is_shielded.then_some(CLEAR));
    let sets = sets.iter().flat_map(|names| names.iter().zip(families)).map(|(name, (_, field))| SetSpec {
        has_counters: !CLEAR.contains(name),
        ..SetSpec::of(*name, &[field])
    });
    let (mut input, mut output) = (Vec::new(), Vec::new());
    for (index, (family, _)) in families.into_iter().enumerate() {
        let arrives = || to_the_port(family).load_header_address(End::Source, family, Register(0));
        let leaves = || to_the_port(family).load_header_address(End::Destination, family, Register(0));
        if is_shielded {
            let in_the_clear = arrives().is_not_in_set(CLEAR[index], Register(0)).came_in_the_clear();
            input.push(drop_all("no VXLAN in the clear", in_the_clear));
            let in_the_clear = leaves().is_not_in_set(CLEAR[index], Register(0)).leaves_in_the_clear();
            output.push(drop_all("no VXLAN in the clear", in_the_clear));
        }
        let from_a_neighbour = arrives().is_in_set(RECEIVED[index], Register(0)).verdict(Verdict::Accept);
        input.push(noted("from a neighbour", from_a_neighbour));
        input.push(drop_all("no VXLAN from strangers", to_the_port(family)));
        output.push(noted("to a neighbour", leaves().is_in_set(SENT[index], Register(0))));
    }
    let chain = |name: &str, hook, rules| ChainSpec { name: name.to_owned(), hook: Some(hook), rules };
    let chains = vec![chain("input", Hook::Input, input), chain("output", Hook::Output, output)];
    Program { table: table.to_owned(), sets: sets.collect(), chains }
}

fn to_the_port(family: IpFamily) -> Expressions {
    Expressions::default().is_family(family).destination_port(UDP, PORT)
}

fn drop_all(note: &str, condition: Expressions) -> Rule {
    noted(note, condition.count().verdict(Verdict::Drop))
}

fn noted(note: &str, expressions: Expressions) -> Rule {
    Rule { note: note.to_owned(), expressions }
}

//! Bringing the kernel to what we want, and keeping it there.
//!
//! A change goes into the [bank](Bank) that is not in force, together with the one before it, which that bank does not have
//! yet; then the banks change places. What the banks hold is remembered, so that a change costs what it changes. When
//! that may be wrong (at the start, after an error, when somebody else touched the table) it is read again; a table that
//! is not ours any more is made anew, in one transaction. Every change is made on condition that nobody made another one
//! in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Context;
use weave_hostnet::nft::{self, Author, Notice, Program, Session, TrackedConnection};
use weave_policy::{Delta, Element, Facts, Flow, Protocol, Traffic, Verdict};

use crate::{
    items::{self, Items},
    program::{self, Bank, Multicast, SWITCH},
};

/// How often a change is tried again because somebody else's came in between.
const ATTEMPTS: usize = 20;

/// Our table.
#[derive(Debug)]
pub struct Kernel {
    program: Program,
    wanted: Facts,
    /// Addresses whose established connections are to be judged.
    rejudge: BTreeSet<IpAddr>,
    /// What the kernel has; `None` if that is not known.
    held: Option<Held>,
    session: Session,
}

/// What the kernel has: the addresses that are to be judged, what is wanted in one bank, and something older in the other.
#[derive(Debug)]
struct Held {
    in_force: Bank,
    /// What leads from the other bank to what is wanted.
    lag: Delta,
}

/// What was read.
#[derive(Debug)]
struct Found {
    in_force: Bank,
    banks: BTreeMap<Bank, Vec<Element>>,
    /// With the names of their sets.
    rejudge: BTreeSet<(String, nft::Item)>,
}

impl Kernel {
    /// Our table, of which nothing is known and nothing wanted yet, in the network namespace of the calling thread. Touches
    /// nothing.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn new(multicast: Multicast) -> anyhow::Result<Self> {
        let session = Session::open()?;
        let program = program::program(multicast);
        Ok(Self { program, wanted: Facts::default(), rejudge: BTreeSet::new(), held: None, session })
    }

    /// Removes the table.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove() -> anyhow::Result<()> {
        Ok(nft::uninstall(program::TABLE)?)
    }

    /// As whom changes made here are known.
    #[must_use]
    pub const fn author(&self) -> Author {
        self.session.author()
    }

    /// What is wanted.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.wanted
    }

    /// Whether established connections of some address are being judged.
    #[must_use]
    pub fn is_judging(&self) -> bool {
        !self.rejudge.is_empty()
    }

    /// Makes the kernel be what is wanted, after `delta`.
    ///
    /// # Errors
    /// What the kernel says. What was in force still is, then; the next call tries to bring it up to date.
    pub fn apply(&mut self, delta: &Delta) -> anyhow::Result<()> {
        self.wanted.apply(delta).context("our own difference does not fit")?;
        let judged: Vec<IpAddr> = delta.rejudge.difference(&self.rejudge).copied().collect();
        let begins = self.rejudge.is_empty() && !judged.is_empty();
        self.rejudge.extend(&judged);
        let Some(Held { in_force, lag }) = self.held.take() else { return self.recover() };
        let mut items = Items::default();
        judged.into_iter().map(items::rejudge_item).for_each(|item| items.add(item));
        if begins {
            items.add(items::judging_item());
        }
        if delta.remove.is_empty() && delta.add.is_empty() {
            let result = self.commit(items);
            self.held = result.is_ok().then_some(Held { in_force, lag });
            return result;
        }
        match self.turn(in_force.other(), &lag.then(delta), items) {
            Ok(()) => {
                let lag = Delta { rejudge: BTreeSet::new(), ..delta.clone() };
                self.held = Some(Held { in_force: in_force.other(), lag });
                Ok(())
            }
            Err(error) => {
                tracing::warn!("the kernel does not take a change: {error:#}; reading what it has");
                self.recover()
            }
        }
    }

    /// Changes the bank that is not in force, and then puts it in force.
    fn turn(&self, to: Bank, delta: &Delta, mut items: Items) -> anyhow::Result<()> {
        // Some may still be going through it since it was in force.
        nft::await_packets_under_way()?;
        note(&mut items, to, delta);
        self.commit(items)?;
        let mut switch = Items::default();
        match to {
            Bank::A => switch.remove(items::switch_item()),
            Bank::B => switch.add(items::switch_item()),
        }
        self.commit(switch)
    }

    /// Finds out what the kernel has, and makes it what is wanted. While it is not known what happened, connections may
    /// have been opened that are not allowed: all isolated pods are judged.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn recover(&mut self) -> anyhow::Result<()> {
        self.held = None;
        let isolated = self.wanted.iter().filter_map(|element| match element {
            Element::Class { address, .. } => Some(*address),
            Element::Peer { .. }
            | Element::Block { .. }
            | Element::Range { .. }
            | Element::Row { .. }
            | Element::Allow { .. } => None,
        });
        self.rejudge.extend(isolated);
        for _ in 0..ATTEMPTS {
            let Some(found) = self.read()? else { return self.install() };
            match self.mend(&found) {
                Ok(held) => {
                    self.held = Some(held);
                    return Ok(());
                }
                Err(error) => tracing::debug!("cannot mend the table: {error:#}"),
            }
        }
        self.install()
    }

    /// Leads from what was found to what is wanted.
    fn mend(&self, found: &Found) -> anyhow::Result<Held> {
        let mut items = Items::default();
        let rejudge = items::rejudge_items(&self.rejudge);
        rejudge.difference(&found.rejudge).cloned().for_each(|item| items.add(item));
        found.rejudge.difference(&rejudge).cloned().for_each(|item| items.remove(item));
        let lag = |bank| found.lag(bank, &self.wanted);
        let (in_force, idle) = (found.in_force, found.in_force.other());
        if lag(in_force).is_empty() {
            self.commit(items)?;
            return Ok(Held { in_force, lag: lag(idle) });
        }
        self.turn(idle, &lag(idle), items)?;
        Ok(Held { in_force: idle, lag: lag(in_force) })
    }

    /// Looks into news about the table. Returns whether somebody else had changed it, and it was mended.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn heed(&mut self, notices: &[Notice]) -> anyhow::Result<bool> {
        let is_foreign = |notice: &Notice| match notice {
            Notice::ChangedBy(author) => *author != self.session.author(),
            Notice::Lost => true,
        };
        if !notices.iter().any(is_foreign) {
            return Ok(false);
        }
        let intact = match (&self.held, self.read()?) {
            (Some(held), Some(found)) => self.is_as_held(held, &found),
            _ => false,
        };
        if !intact {
            tracing::warn!(table = program::TABLE, "somebody changed our table; mending it");
            self.recover()?;
        }
        Ok(!intact)
    }

    fn is_as_held(&self, held: &Held, found: &Found) -> bool {
        found.in_force == held.in_force
            && found.rejudge == items::rejudge_items(&self.rejudge)
            && found.lag(held.in_force, &self.wanted).is_empty()
            && found.lag(held.in_force.other(), &self.wanted) == held.lag
    }

    /// Looks at established connections and stops judging the addresses that have none that is forbidden. New ones
    /// cannot come to be: whatever is not established is judged anyway.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        if self.rejudge.is_empty() || self.held.is_none() {
            return Ok(());
        }
        let connections = self.session.connections()?;
        let forbidden = connections.iter().filter(|connection| self.is_forbidden(connection));
        let kept: BTreeSet<IpAddr> = forbidden.flat_map(|c| [c.source, c.destination]).collect();
        let mut items = Items::default();
        self.rejudge.difference(&kept).for_each(|address| items.remove(items::rejudge_item(*address)));
        if self.rejudge.is_disjoint(&kept) {
            items.remove(items::judging_item());
        }
        self.commit(items)?;
        self.rejudge.retain(|address| kept.contains(address));
        Ok(())
    }

    fn is_forbidden(&self, connection: &TrackedConnection) -> bool {
        let TrackedConnection { source, destination, protocol, port } = *connection;
        let is_judged = [source, destination].iter().any(|address| self.rejudge.contains(address));
        let traffic = match (Protocol::from_number(protocol), port) {
            (Some(protocol), Some(port)) => Traffic::To(protocol, port),
            _ => Traffic::Other(protocol),
        };
        let flow = Flow { source, destination, traffic };
        is_judged && self.wanted.verdict(&flow) != Verdict::Allowed
    }

    /// Makes the table from nothing, in place of whatever has its name.
    fn install(&mut self) -> anyhow::Result<()> {
        let mut items = Items::default();
        let all = Facts::default().difference(&self.wanted);
        Bank::ALL.into_iter().for_each(|bank| note(&mut items, bank, &all));
        items::rejudge_items(&self.rejudge).into_iter().for_each(|item| items.add(item));
        let elements = items.changes(&self.program);
        self.session.install(&self.program, &elements).context("making our table")?;
        self.held = Some(Held { in_force: Bank::A, lag: Delta::default() });
        Ok(())
    }

    /// Changes elements, if nobody changes anything at the same time.
    fn commit(&self, items: Items) -> anyhow::Result<()> {
        let changes = items.changes(&self.program);
        if changes.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            let generation = self.session.generation()?;
            result = self.session.change(&self.program, &changes, Some(generation));
            if !result.as_ref().is_err_and(nft::is_stale) {
                break;
            }
        }
        result.context("changing our table")
    }

    /// What the kernel has; `None` if that is not our program, or has elements that we would not make.
    fn read(&self) -> anyhow::Result<Option<Found>> {
        let Some(sets) = self.session.read(&self.program).context("reading our table")? else {
            return Ok(None);
        };
        let mut found = Found::new();
        for (set, items) in self.program.sets.iter().zip(sets) {
            for item in items {
                if !found.note(&set.name, &item) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(found))
    }
}

impl Found {
    fn new() -> Self {
        Self { in_force: Bank::A, banks: BTreeMap::new(), rejudge: BTreeSet::new() }
    }

    /// Returns whether we could have made this.
    fn note(&mut self, set: &str, item: &nft::Item) -> bool {
        let Some((bank, name)) = Bank::split(set) else {
            if set == SWITCH {
                self.in_force = Bank::B;
                return *item == items::switch_item().1;
            }
            let expected = match item.key[..] {
                [nft::Value::Address(address)] => items::rejudge_item(address),
                _ => items::judging_item(),
            };
            let found = (set.to_owned(), item.clone());
            let is_ours = found == expected;
            self.rejudge.insert(found);
            return is_ours;
        };
        let element = items::element(name, item);
        self.banks.entry(bank).or_default().extend(element);
        element.is_some()
    }

    /// What leads from what is in a bank to what is wanted.
    fn lag(&self, bank: Bank, wanted: &Facts) -> Delta {
        let elements = self.banks.get(&bank).into_iter().flatten().copied();
        elements.collect::<Facts>().difference(wanted)
    }
}

/// Notes a change of a bank.
fn note(items: &mut Items, bank: Bank, delta: &Delta) {
    delta.remove.iter().for_each(|element| items.remove(items::item(bank, element)));
    delta.add.iter().for_each(|element| items.add(items::item(bank, element)));
}

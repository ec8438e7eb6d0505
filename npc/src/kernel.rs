//! Bringing the kernel to what we want, and keeping it there.
//!
//! The kernel's elements are shadowed here, so that a change costs what it changes. When the shadow may be wrong (at the
//! start, after an error, when somebody else touched the table) it is read again; a table that is not ours any more is
//! made anew, in one transaction. Every change is made on condition that nobody made another one in between.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context;
use weave_hostnet::nft::{self, Author, Notice, Program, Session, TrackedConnection};
use weave_policy::{Delta, Element, Facts, Flow, Protocol, Traffic, Verdict};

use crate::{
    items::{self, Items},
    program::{self, Multicast},
};

/// How often a change is tried again because somebody else's came in between.
const ATTEMPTS: usize = 20;

/// Our table.
#[derive(Debug)]
pub struct Kernel {
    program: Program,
    wanted: State,
    /// What the kernel has; `None` if that is not known.
    shadow: Option<State>,
    session: Session,
}

/// What the sets hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    facts: Facts,
    /// Addresses whose established connections are judged.
    rejudge: BTreeSet<IpAddr>,
}

impl Kernel {
    /// Our table, of which nothing is known and nothing wanted yet, in the network namespace of the calling thread. Touches
    /// nothing.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn new(multicast: Multicast) -> anyhow::Result<Self> {
        let session = Session::open()?;
        Ok(Self { program: program::program(multicast), wanted: State::default(), shadow: None, session })
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
        &self.wanted.facts
    }

    /// Whether established connections of some address are being judged.
    #[must_use]
    pub fn is_judging(&self) -> bool {
        !self.wanted.rejudge.is_empty()
    }

    /// Makes the kernel be what is wanted, after `delta`.
    ///
    /// # Errors
    /// What the kernel says. It still is what it was then; the next call tries to bring it up to date.
    pub fn apply(&mut self, delta: &Delta) -> anyhow::Result<()> {
        self.wanted.facts.apply(delta).context("our own difference does not fit")?;
        let judged: Vec<IpAddr> = delta.rejudge.difference(&self.wanted.rejudge).copied().collect();
        self.wanted.rejudge.extend(&judged);
        if self.shadow.is_none() {
            return self.recover();
        }
        let mut items = Items::default();
        delta.remove.iter().for_each(|element| items.remove(items::item(element)));
        delta.add.iter().for_each(|element| items.add(items::item(element)));
        judged.iter().for_each(|address| items.add(rejudge_item(*address)));
        match self.commit(items) {
            Ok(()) => {
                if let Some(shadow) = &mut self.shadow {
                    shadow.facts.apply(delta).context("the shadow of the kernel differs")?;
                    shadow.rejudge.extend(judged);
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!("the kernel does not take a change: {error:#}; reading what it has");
                self.recover()
            }
        }
    }

    /// Finds out what the kernel has, and makes it what is wanted. While it is not known what happened, connections may
    /// have been opened that are not allowed: all isolated pods are judged.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn recover(&mut self) -> anyhow::Result<()> {
        self.shadow = None;
        let isolated = self.wanted.facts.iter().filter_map(|element| match element {
            Element::Class { address, .. } => Some(*address),
            Element::Peer { .. } | Element::Block { .. } | Element::Range { .. } | Element::Allow { .. } => {
                None
            }
        });
        self.wanted.rejudge.extend(isolated);
        for _ in 0..ATTEMPTS {
            let Some(found) = self.read()? else { return self.install() };
            let mut items = Items::default();
            let difference = found.facts.difference(&self.wanted.facts);
            difference.remove.iter().for_each(|element| items.remove(items::item(element)));
            difference.add.iter().for_each(|element| items.add(items::item(element)));
            let more = self.wanted.rejudge.difference(&found.rejudge);
            more.for_each(|address| items.add(rejudge_item(*address)));
            let less = found.rejudge.difference(&self.wanted.rejudge);
            less.for_each(|address| items.remove(rejudge_item(*address)));
            match self.commit(items) {
                Ok(()) => {
                    self.shadow = Some(self.wanted.clone());
                    return Ok(());
                }
                Err(error) => tracing::debug!("cannot mend the table: {error:#}"),
            }
        }
        self.install()
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
        let intact = self.shadow.is_some() && self.read()? == self.shadow;
        if !intact {
            tracing::warn!(table = program::TABLE, "somebody changed our table; mending it");
            self.recover()?;
        }
        Ok(!intact)
    }

    /// Looks at established connections and stops judging the addresses that have none that is forbidden. New ones
    /// cannot come to be: whatever is not established is judged anyway.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        if self.wanted.rejudge.is_empty() || self.shadow.is_none() {
            return Ok(());
        }
        let connections = self.session.connections()?;
        let forbidden = connections.iter().filter(|connection| self.is_forbidden(connection));
        let kept: BTreeSet<IpAddr> = forbidden.flat_map(|c| [c.source, c.destination]).collect();
        let done: Vec<IpAddr> = self.wanted.rejudge.difference(&kept).copied().collect();
        let mut items = Items::default();
        done.iter().for_each(|address| items.remove(rejudge_item(*address)));
        self.commit(items)?;
        let states = [Some(&mut self.wanted), self.shadow.as_mut()];
        for state in states.into_iter().flatten() {
            state.rejudge.retain(|address| kept.contains(address));
        }
        Ok(())
    }

    fn is_forbidden(&self, connection: &TrackedConnection) -> bool {
        let TrackedConnection { source, destination, protocol, port } = *connection;
        let is_judged = [source, destination].iter().any(|address| self.wanted.rejudge.contains(address));
        let traffic = match (Protocol::from_number(protocol), port) {
            (Some(protocol), Some(port)) => Traffic::To(protocol, port),
            _ => Traffic::Other(protocol),
        };
        let flow = Flow { source, destination, traffic };
        is_judged && self.wanted.facts.verdict(&flow) != Verdict::Allowed
    }

    /// Makes the table from nothing, in place of whatever has its name.
    fn install(&mut self) -> anyhow::Result<()> {
        let mut items = Items::default();
        self.wanted.facts.iter().for_each(|element| items.add(items::item(element)));
        self.wanted.rejudge.iter().for_each(|address| items.add(rejudge_item(*address)));
        let elements = items.changes(&self.program);
        self.session.install(&self.program, &elements).context("making our table")?;
        self.shadow = Some(self.wanted.clone());
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
            result = self.session.change(program::TABLE, &changes, Some(generation));
            if !result.as_ref().is_err_and(nft::is_stale) {
                break;
            }
        }
        result.context("changing our table")
    }

    /// What the kernel has; `None` if that is not our program, or has elements that we would not make.
    fn read(&self) -> anyhow::Result<Option<State>> {
        let Some(sets) = self.session.read(&self.program).context("reading our table")? else {
            return Ok(None);
        };
        let mut rejudge = BTreeSet::new();
        let mut elements = Vec::new();
        for (set, items) in self.program.sets.iter().zip(sets) {
            for item in items {
                match (&item.key[..], set.name.starts_with("rejudge")) {
                    ([nft::Value::Address(address)], true) => _ = rejudge.insert(*address),
                    _ => match items::element(&set.name, &item) {
                        Some(element) => elements.push(element),
                        None => return Ok(None),
                    },
                }
            }
        }
        Ok(Some(State { facts: elements.into_iter().collect(), rejudge }))
    }
}

fn rejudge_item(address: IpAddr) -> (String, nft::Item) {
    (items::rejudge_set(address), items::address_item(address))
}

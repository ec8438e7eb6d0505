//! What the server reads.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{
    buckets::Buckets,
    name::{Domain, Name, QueryName},
};

/// An immutable view of all names, shared with the table it came from.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) domain: Domain,
    pub(crate) entry_by_name: Buckets<Arc<Entry>>,
    pub(crate) names_by_address: Buckets<Arc<[Name]>>,
    /// Grows by one with every snapshot that differs from the one before.
    pub(crate) version: u64,
}

/// Everything known under one name. All lists are sorted and without duplicates; all are empty for a name that only
/// has names below it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// Addresses for A answers.
    pub v4: Vec<Ipv4Addr>,
    /// Addresses for AAAA answers.
    pub v6: Vec<Ipv6Addr>,
    /// Where SRV answers point.
    pub targets: Vec<Target>,
}

/// Where a service is found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Target {
    /// The host that has the service.
    pub host: Name,
    /// Its port.
    pub port: u16,
}

/// What we know about a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer<'a> {
    /// The name exists; what was asked for may still be empty.
    Known(&'a Entry),
    /// The name is below our domain, and nobody has it.
    Unknown,
    /// The name is not below our domain: others answer for it.
    Outside,
}

/// The domain itself: it exists, and has no addresses.
static APEX: Entry = Entry { v4: Vec::new(), v6: Vec::new(), targets: Vec::new() };

impl Snapshot {
    /// A view without names.
    #[must_use]
    pub fn empty(domain: Domain) -> Self {
        Self { domain, entry_by_name: Buckets::new(), names_by_address: Buckets::new(), version: 0 }
    }

    /// The domain that the names are below.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Looks a fully qualified name up: one hash probe.
    #[must_use]
    pub fn lookup(&self, name: &QueryName) -> Answer<'_> {
        if !name.is_within(&self.domain) {
            return Answer::Outside;
        }
        match self.entry_by_name.get(name.as_bytes()) {
            Some(entry) => Answer::Known(entry),
            None if name.as_bytes() == self.domain.name().as_str().as_bytes() => Answer::Known(&APEX),
            None => Answer::Unknown,
        }
    }

    /// The names that an address has, sorted; empty when we know none.
    #[must_use]
    pub fn reverse(&self, address: IpAddr) -> &[Name] {
        self.names_by_address.get(&octets(address)).map_or(&[], |names| names)
    }

    /// How many names there are, those that only have names below them included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entry_by_name.len()
    }

    /// Whether there are no names.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts the changes: two snapshots of one table with equal versions hold the same. The serial of the SOA.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }
}

/// The bytes of an address; its length tells the families apart.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

//! Records by what is asked for: by name and by address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weave_model::PeerName;

use crate::{
    name::{Domain, Name},
    record::{Record, Service},
    snapshot::{Entry, Target},
};

/// Everybody's records under the names and addresses that queries ask for, and what changed since it was last read.
#[derive(Debug, Default)]
pub(crate) struct Index {
    holders_by_name: BTreeMap<Name, BTreeSet<(PeerName, Record)>>,
    /// With how many records stand behind each pair.
    count_by_name_by_address: BTreeMap<IpAddr, BTreeMap<Name, usize>>,
    /// How many records live below a name that stands between them and the domain: such a name exists, empty
    /// (RFC 8020).
    below_by_name: BTreeMap<Name, usize>,
    dirty_names: BTreeSet<Name>,
    dirty_addresses: BTreeSet<IpAddr>,
}

impl Index {
    pub(crate) fn insert(&mut self, domain: &Domain, peer: PeerName, record: &Record) {
        for name in answering_names(record) {
            for parent in between(domain, &name) {
                *self.below_by_name.entry(parent.clone()).or_default() += 1;
                self.dirty_names.insert(parent);
            }
            self.holders_by_name.entry(name.clone()).or_default().insert((peer, record.clone()));
            self.dirty_names.insert(name);
        }
        let names = self.count_by_name_by_address.entry(record.address).or_default();
        *names.entry(record.hostname.clone()).or_default() += 1;
        self.dirty_addresses.insert(record.address);
    }

    /// Takes out what [`insert`](Self::insert) put in, with the same arguments.
    pub(crate) fn remove(&mut self, domain: &Domain, peer: PeerName, record: &Record) {
        let holder = (peer, record.clone());
        for name in answering_names(record) {
            for parent in between(domain, &name) {
                release(&mut self.below_by_name, &parent);
                self.dirty_names.insert(parent);
            }
            if let Some(holders) = self.holders_by_name.get_mut(&name) {
                holders.remove(&holder);
                if holders.is_empty() {
                    self.holders_by_name.remove(&name);
                }
            }
            self.dirty_names.insert(name);
        }
        if let Some(names) = self.count_by_name_by_address.get_mut(&record.address) {
            release(names, &record.hostname);
            if names.is_empty() {
                self.count_by_name_by_address.remove(&record.address);
            }
        }
        self.dirty_addresses.insert(record.address);
    }

    /// The names that changed since this was last called.
    pub(crate) fn take_dirty_names(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.dirty_names)
    }

    /// The addresses that changed since this was last called.
    pub(crate) fn take_dirty_addresses(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.dirty_addresses)
    }

    /// What is to be answered for a name; None when it does not exist.
    pub(crate) fn entry(&self, name: &Name) -> Option<Entry> {
        let holders = self.holders_by_name.get(name);
        if holders.is_none() && !self.below_by_name.contains_key(name) {
            return None;
        }
        let mut entry = Entry::default();
        for (_, record) in holders.into_iter().flatten() {
            if let Some(service) = &record.service {
                entry.targets.push(Target { host: record.hostname.clone(), port: service.port() });
            }
            match record.address {
                // The name of a service has no addresses, only its host has.
                _ if record.hostname != *name => {}
                IpAddr::V4(v4) => entry.v4.push(v4),
                IpAddr::V6(v6) => entry.v6.push(v6),
            }
        }
        sort_and_dedup(&mut entry.v4);
        sort_and_dedup(&mut entry.v6);
        sort_and_dedup(&mut entry.targets);
        Some(entry)
    }

    /// The names that an address has, sorted.
    pub(crate) fn names(&self, address: IpAddr) -> Vec<Name> {
        self.count_by_name_by_address.get(&address).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }
}

/// The names that a record answers to: its host's, and its service's.
fn answering_names(record: &Record) -> impl Iterator<Item = Name> + use<> {
    let service = record.service.as_ref().and_then(|service: &Service| service.name_for(&record.hostname));
    [Some(record.hostname.clone()), service].into_iter().flatten()
}

/// The names between `name` and the domain, both excluded.
fn between(domain: &Domain, name: &Name) -> Vec<Name> {
    std::iter::successors(name.parent(), Name::parent).take_while(|n| domain.contains(n)).collect()
}

fn release(count_by_name: &mut BTreeMap<Name, usize>, name: &Name) {
    if let Some(count) = count_by_name.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            count_by_name.remove(name);
        }
    }
}

fn sort_and_dedup<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}

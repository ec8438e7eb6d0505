//! The table: everybody's records, and the index over them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use weave_model::{ContainerId, PeerName};

use crate::{
    index::Index,
    name::{Domain, NameError},
    record::{FactChange, Record, RecordError, Service},
    snapshot::{Snapshot, octets},
};

/// The most records one router may publish. Ours refuses to add more; more from another are ignored.
pub const MAX_RECORDS_PER_PEER: usize = 16_384;

/// All names of the network.
#[derive(Debug)]
pub struct Names {
    local: PeerName,
    records_by_key_by_peer: BTreeMap<PeerName, BTreeMap<Vec<u8>, Record>>,
    index: Index,
    snapshot: Snapshot,
}

/// Which of our own records to remove: those that match every part that is set. With none set it matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoveFilter {
    /// The container that has the name.
    pub container: Option<ContainerId>,
    /// The address that the name has.
    pub address: Option<IpAddr>,
    /// The name, completed with the domain where needed. One that cannot be a name matches nothing.
    pub name: Option<String>,
}

impl Names {
    /// An empty table.
    #[must_use]
    pub fn new(domain: Domain, local: PeerName) -> Self {
        Self {
            local,
            records_by_key_by_peer: BTreeMap::new(),
            index: Index::default(),
            snapshot: Snapshot::empty(domain),
        }
    }

    /// The domain that all names are below.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.snapshot.domain
    }

    /// Takes in what a peer, or we ourselves, published: a record, or that it is gone. Says whether that was news.
    ///
    /// # Errors
    /// When the fact is no record of ours. Whatever was known under its key is forgotten then, so that all routers
    /// agree; log it and carry on.
    pub fn handle_fact(
        &mut self,
        peer: PeerName,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<bool, RecordError> {
        let decoded = value.map(|value| self.decode(peer, key, value)).transpose();
        let wanted = decoded.as_ref().ok().and_then(Option::as_ref);
        let records = self.records_by_key_by_peer.entry(peer).or_default();
        let previous = match wanted {
            Some(record) => records.insert(key.to_vec(), record.clone()),
            None => records.remove(key),
        };
        if records.is_empty() {
            self.records_by_key_by_peer.remove(&peer);
        }
        let is_news = previous.as_ref() != wanted;
        if is_news {
            if let Some(record) = &previous {
                self.index.remove(&self.snapshot.domain, peer, record);
            }
            if let Some(record) = wanted {
                self.index.insert(&self.snapshot.domain, peer, record);
            }
        }
        decoded.map(|_| is_news)
    }

    /// Drops all names of a peer that left. Says whether it had any.
    pub fn handle_peer_gone(&mut self, peer: PeerName) -> bool {
        let Some(records) = self.records_by_key_by_peer.remove(&peer) else { return false };
        for record in records.values() {
            self.index.remove(&self.snapshot.domain, peer, record);
        }
        true
    }

    /// The fact that gives `name` to a container. Nothing changes until it comes back through
    /// [`handle_fact`](Self::handle_fact). Adding a record twice gives the same fact twice.
    ///
    /// # Errors
    /// When the name is malformed or outside the domain, or we publish too many already.
    pub fn add(&self, container: &ContainerId, name: &str, address: IpAddr) -> Result<FactChange, NameError> {
        self.add_service(container, name, address, None)
    }

    /// As [`add`](Self::add), with a service that SRV queries find.
    ///
    /// # Errors
    /// As `add`.
    pub fn add_service(
        &self,
        container: &ContainerId,
        name: &str,
        address: IpAddr,
        service: Option<Service>,
    ) -> Result<FactChange, NameError> {
        let change = self.record(container, name, address, service)?.published();
        let own = self.records_by_key_by_peer.get(&self.local);
        match own.filter(|own| own.len() >= MAX_RECORDS_PER_PEER && !own.contains_key(&change.key)) {
            Some(own) => Err(NameError::TooMany(own.len())),
            None => Ok(change),
        }
    }

    /// The record that such a name would have.
    ///
    /// # Errors
    /// When the name is malformed or outside the domain.
    pub fn record(
        &self,
        container: &ContainerId,
        name: &str,
        address: IpAddr,
        service: Option<Service>,
    ) -> Result<Record, NameError> {
        Ok(Record { hostname: self.domain().complete(name)?, container: container.clone(), address, service })
    }

    /// The facts that take our own records back which match the filter.
    #[must_use]
    pub fn remove(&self, filter: &RemoveFilter) -> Vec<FactChange> {
        self.matching(filter).into_iter().map(Record::withdrawn).collect()
    }

    /// Our own records that match the filter, in a stable order.
    #[must_use]
    pub fn matching(&self, filter: &RemoveFilter) -> Vec<&Record> {
        let RemoveFilter { container, address, name } = filter;
        let name = match name.as_ref().map(|name| self.domain().complete(name)) {
            Some(Err(_)) => return Vec::new(),
            Some(Ok(name)) => Some(name),
            None if container.is_none() && address.is_none() => return Vec::new(),
            None => None,
        };
        let is_wanted = |record: &&Record| {
            container.as_ref().is_none_or(|c| *c == record.container)
                && address.is_none_or(|a| a == record.address)
                && name.as_ref().is_none_or(|n| *n == record.hostname)
        };
        self.own().filter(is_wanted).collect()
    }

    /// Our own records, in a stable order.
    pub fn own(&self) -> impl Iterator<Item = &Record> {
        self.records_by_key_by_peer.get(&self.local).into_iter().flat_map(BTreeMap::values)
    }

    /// Everybody's records, by peer, in a stable order.
    pub fn records(&self) -> impl Iterator<Item = (PeerName, &Record)> {
        self.records_by_key_by_peer
            .iter()
            .flat_map(|(peer, records)| records.values().map(move |record| (*peer, record)))
    }

    /// An immutable view for the server. Costs what changed since the last one, and 512 reference counts.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        let (names, addresses) = (self.index.take_dirty_names(), self.index.take_dirty_addresses());
        if !names.is_empty() || !addresses.is_empty() {
            self.snapshot.version += 1;
        }
        for name in names {
            let entry = self.index.entry(&name).map(Arc::new);
            self.snapshot.entry_by_name.set(name.as_str().as_bytes(), entry);
        }
        for address in addresses {
            let names = self.index.names(address);
            self.snapshot.names_by_address.set(&octets(address), (!names.is_empty()).then(|| names.into()));
        }
        Arc::new(self.snapshot.clone())
    }

    fn decode(&self, peer: PeerName, key: &[u8], value: &[u8]) -> Result<Record, RecordError> {
        let record = Record::decode(key, value)?;
        if !self.domain().contains(&record.hostname) {
            let domain = self.domain().clone();
            return Err(RecordError::OutsideDomain { name: record.hostname, domain });
        }
        let known = self.records_by_key_by_peer.get(&peer);
        if known.is_some_and(|known| known.len() >= MAX_RECORDS_PER_PEER && !known.contains_key(key)) {
            return Err(RecordError::TooMany(MAX_RECORDS_PER_PEER));
        }
        Ok(record)
    }
}

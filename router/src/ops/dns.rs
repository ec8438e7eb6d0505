//! Names that are given and taken away by hand, besides those that come with a container.
//!
//! Both outlive the router: a name that was added is there again after a restart, and one that was removed does not come
//! back with its container. They end with what they were said of: the container's address, or the container.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::Context as _;
use weave_api::{ApiError, DnsAddRequest, DnsRemoveRequest, DnsResponse, ErrorCode};
use weave_model::ContainerId;
use weave_names::{NameError, Record as NameRecord, RecordError, RemoveFilter, Service};

use super::{Ops, Record, stopping};
use crate::{
    engine::Engine,
    store::{Change, Part},
};

/// What was said of a name by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// It is to be there, though no container came with it.
    Added,
    /// It is not to be there, though a container came with it; with [`ANY`], at no address of the container.
    Removed,
}

/// In place of an address: of every one that the container has, and will have.
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What was said by hand of names, by the key of their fact, as the store has it.
#[derive(Debug, Default)]
pub(super) struct ByHand(Mutex<BTreeMap<Vec<u8>, (NameRecord, Said)>>);

impl ByHand {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, (NameRecord, Said)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of names of a container that were taken away from it.
    pub(super) fn removed(&self, container: &ContainerId) -> BTreeSet<Vec<u8>> {
        let said = self.lock();
        let gone =
            said.iter().filter(|(_, (name, said))| *said == Said::Removed && name.container == *container);
        gone.map(|(key, _)| key.clone()).collect()
    }

    fn matching(&self, is_meant: impl Fn(&NameRecord, Said) -> bool) -> Vec<NameRecord> {
        let said = self.lock();
        said.values().filter(|(name, said)| is_meant(name, *said)).map(|(name, _)| name.clone()).collect()
    }
}

impl Ops {
    pub(super) async fn dns_add(&self, request: DnsAddRequest) -> Result<DnsResponse, ApiError> {
        self.need_dns()?;
        let _exclusive = self.exclusive.lock().await;
        let container = request.container.clone().unwrap_or_else(ContainerId::external);
        let addresses = match (&request.container, request.addresses.as_slice()) {
            (Some(container), []) => self.addresses_of(container),
            (_, given) => given.to_vec(),
        };
        let Some(name) = request.fqdn else {
            return Err(ApiError::new(ErrorCode::BadRequest, "no name is given").with_hint("add -h NAME"));
        };
        if addresses.is_empty() {
            let message = format!("container {container} has no address here to give the name {name}");
            return Err(ApiError::new(ErrorCode::NotFound, message)
                .with_hint("attach it first, or name the addresses"));
        }
        let service = request.service.as_deref().map(str::parse::<Service>).transpose();
        let service = service.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
        let names = self
            .engine
            .run(move |engine, _| name_records(engine, &container, &name, &addresses, service.as_ref()))
            .await
            .map_err(stopping)?
            .map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
        self.say(names.iter().map(|name| (name.clone(), Some(Said::Added))).collect()).await?;
        let entries = names.len() as u64;
        self.publish(names).await?;
        Ok(DnsResponse { entries })
    }

    pub(super) async fn dns_remove(&self, request: DnsRemoveRequest) -> Result<DnsResponse, ApiError> {
        self.need_dns()?;
        if request.container.is_none() && request.addresses.is_empty() && request.fqdn.is_none() {
            return Err(ApiError::new(ErrorCode::BadRequest, "nothing says which names are to go")
                .with_hint("give a container, addresses, or -h NAME"));
        }
        let _exclusive = self.exclusive.lock().await;
        let filter = |address| RemoveFilter {
            container: request.container.clone(),
            name: request.fqdn.clone(),
            address,
        };
        let filters: Vec<RemoveFilter> = match request.addresses.as_slice() {
            [] => vec![filter(None)],
            some => some.iter().map(|address| filter(Some(*address))).collect(),
        };
        let attached = self.attached();
        let wanted = filters.clone();
        let going = self
            .engine
            .run(move |engine, _| {
                let Some(names) = engine.node.names() else { return Vec::new() };
                let going = wanted.iter().flat_map(|filter| {
                    names.matching(filter).into_iter().map(|name| (name, filter.address.unwrap_or(ANY)))
                });
                let stays_gone = |(name, address): (&NameRecord, IpAddr)| {
                    let is_so = |record: &Record| came_with(record, name, names.domain());
                    let of_it = NameRecord { address, ..name.clone() };
                    [(name.clone(), None)]
                        .into_iter()
                        .chain(attached.iter().any(is_so).then_some((of_it, Some(Said::Removed))))
                };
                going.flat_map(stays_gone).collect()
            })
            .await
            .map_err(stopping)?;
        self.say(going).await?;
        let entries = self
            .engine
            .run(move |engine, now| {
                filters.iter().map(|filter| engine.node.remove_names(filter, now)).sum::<usize>()
            })
            .await
            .map_err(stopping)?;
        Ok(DnsResponse { entries: entries as u64 })
    }

    fn addresses_of(&self, container: &ContainerId) -> Vec<IpAddr> {
        let is_theirs = |record: &&Record| record.holder() == container || record.container == *container;
        let records = self.attached();
        let held = records.iter().filter(is_theirs).flat_map(|record| &record.addresses);
        held.map(|interface| interface.address()).collect()
    }

    /// Makes durable what was said of names; `None`: nothing is said of it any more.
    async fn say(&self, said: Vec<(NameRecord, Option<Said>)>) -> Result<(), ApiError> {
        let known = |name: &NameRecord| self.by_hand.lock().get(&name.key()).cloned();
        let news: Vec<_> = said
            .into_iter()
            .filter(|(name, said)| known(name) != said.map(|said| (name.clone(), said)))
            .collect();
        if news.is_empty() {
            return Ok(());
        }
        let changes: Vec<Change> = news.iter().map(|(name, said)| change(name, *said)).collect();
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.write(&changes))
            .await
            .map_err(ApiError::internal)?
            .map_err(|error| ApiError::internal(format!("{error:#}")))?;
        let mut by_hand = self.by_hand.lock();
        for (name, said) in news {
            match said {
                Some(said) => by_hand.insert(name.key(), (name, said)),
                None => by_hand.remove(&name.key()),
            };
        }
        Ok(())
    }

    async fn publish(&self, names: Vec<NameRecord>) -> Result<(), ApiError> {
        self.engine.run(move |engine, now| publish(engine, names, now)).await.map_err(stopping)
    }

    /// A container comes with these names: that they were once taken away from it does not count any more.
    pub(super) async fn claim_names(
        &self,
        container: &ContainerId,
        names: Vec<String>,
    ) -> Result<(), ApiError> {
        let removed =
            self.by_hand.matching(|record, said| said == Said::Removed && record.container == *container);
        if removed.is_empty() {
            return Ok(());
        }
        let claimed = self
            .engine
            .run(move |engine, _| {
                let domain = engine.node.names().map(weave_names::Names::domain);
                let is_claimed = |removed: &NameRecord| {
                    let same = |name: &String| domain?.complete(name).ok().map(|n| n == removed.hostname);
                    names.iter().any(|name| same(name).unwrap_or(false))
                };
                removed.into_iter().filter(is_claimed).map(|name| (name, None)).collect()
            })
            .await
            .map_err(stopping)?;
        self.say(claimed).await
    }

    /// Forgets what was said of names that went with addresses of a container, or with all: what is left of one without any
    /// is what was added for addresses that are not its own.
    pub(super) async fn forget_names(
        &self,
        container: &ContainerId,
        gone: &BTreeSet<IpAddr>,
    ) -> Result<(), ApiError> {
        let has_none = self.addresses_of(container).iter().all(|address| gone.contains(address));
        let gone = self.by_hand.matching(|name, said| {
            name.container == *container
                && (gone.contains(&name.address) || has_none && said == Said::Removed)
        });
        self.say(gone.into_iter().map(|name| (name, None)).collect()).await
    }

    /// Takes back every name of the holder of an interface that is gone, if it was the last.
    pub(super) async fn withdraw_last_names(&self, gone: &Record) -> Result<(), ApiError> {
        let holder = gone.holder().clone();
        let is_another = |record: &Record| *record.holder() == holder && record.container != gone.container;
        if self.records().values().any(is_another) {
            return Ok(());
        }
        let all = self.by_hand.matching(|name, _| name.container == holder);
        self.say(all.into_iter().map(|name| (name, None)).collect()).await?;
        let filter = RemoveFilter { container: Some(holder), ..RemoveFilter::default() };
        self.engine.run(move |engine, now| engine.node.remove_names(&filter, now)).await.map_err(stopping)?;
        Ok(())
    }

    /// Reads what was said of names before a restart.
    pub(super) fn recall_names(&self) -> anyhow::Result<()> {
        let mut by_hand = self.by_hand.lock();
        for (key, value) in self.store.read_all(Part::Name)? {
            let (name, said) = decode(&key, &value).with_context(|| {
                format!("what the store says of the name `{}` is damaged", key.escape_ascii())
            })?;
            by_hand.insert(key, (name, said));
        }
        Ok(())
    }

    /// Gives out again the names that were added by hand.
    pub(super) async fn restore_names(&self) -> Result<(), ApiError> {
        self.publish(self.by_hand.matching(|_, said| said == Said::Added)).await
    }

    pub(super) fn need_dns(&self) -> Result<(), ApiError> {
        if self.facts.has_dns() { Ok(()) } else { Err(ApiError::disabled("the name service", "--no-dns")) }
    }
}

fn name_records(
    engine: &Engine,
    container: &ContainerId,
    name: &str,
    addresses: &[IpAddr],
    service: Option<&Service>,
) -> Result<Vec<NameRecord>, NameError> {
    let Some(names) = engine.node.names() else { return Ok(Vec::new()) };
    addresses.iter().map(|address| names.record(container, name, *address, service.cloned())).collect()
}

/// Gives the names that a container came with to all its addresses, but for those that were removed by hand, by their keys.
pub(super) fn give_names(engine: &mut Engine, record: &Record, removed: &BTreeSet<Vec<u8>>, now: Instant) {
    let addresses: Vec<IpAddr> = record.addresses.iter().map(|interface| interface.address()).collect();
    for name in &record.names {
        match name_records(engine, record.holder(), name, &addresses, None) {
            Ok(mut names) => {
                let everywhere = |name: &NameRecord| NameRecord { address: ANY, ..name.clone() };
                names.retain(|name| {
                    !removed.contains(&name.key()) && !removed.contains(&everywhere(name).key())
                });
                publish(engine, names, now);
            }
            // Checked before anything was done; a name that was valid then may be outside the domain of now.
            Err(error) => tracing::warn!(name, %error, "a name was not registered"),
        }
    }
}

fn publish(engine: &mut Engine, names: Vec<NameRecord>, now: Instant) {
    for NameRecord { hostname, container, address, service } in names {
        if let Err(error) = engine.node.add_service(&container, hostname.as_str(), address, service, now) {
            tracing::warn!(%hostname, %container, %address, %error, "a name was not registered");
        }
    }
}

/// Whether a name is one of those that are given again whenever the container is announced.
fn came_with(record: &Record, name: &NameRecord, domain: &weave_names::Domain) -> bool {
    let is_same = |given: &String| domain.complete(given).is_ok_and(|given| given == name.hostname);
    *record.holder() == name.container
        && name.service.is_none()
        && record.addresses.iter().any(|interface| interface.address() == name.address)
        && record.names.iter().any(is_same)
}

fn change(name: &NameRecord, said: Option<Said>) -> Change {
    let value = said.map(|said| {
        let mark = match said {
            Said::Added => ADDED,
            Said::Removed => REMOVED,
        };
        [&[mark], &name.value()[..]].concat()
    });
    Change { part: Part::Name, key: name.key(), value }
}

/// First byte of what the store has; the value of the name's fact follows.
const ADDED: u8 = b'+';
const REMOVED: u8 = b'-';

fn decode(key: &[u8], value: &[u8]) -> Result<(NameRecord, Said), RecordError> {
    let (said, value) = match value.split_first() {
        Some((&ADDED, value)) => (Said::Added, value),
        Some((&REMOVED, value)) => (Said::Removed, value),
        Some(_) | None => return Err(RecordError::Malformed),
    };
    Ok((NameRecord::decode(key, value)?, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> NameRecord {
        NameRecord {
            hostname: "web.weave.local".parse().unwrap(),
            container: "c0ffee".parse().unwrap(),
            address: "10.32.0.1".parse().unwrap(),
            service: Some("http/tcp:80".parse().unwrap()),
        }
    }

    #[test]
    fn what_was_said_survives_the_store() {
        for said in [Said::Added, Said::Removed] {
            let Change { key, value, .. } = change(&name(), Some(said));
            assert_eq!(decode(&key, &value.unwrap()), Ok((name(), said)));
        }
        assert_eq!(change(&name(), None).value, None);
        assert_eq!(decode(&name().key(), b""), Err(RecordError::Malformed));
        assert_eq!(decode(&name().key(), b"?x"), Err(RecordError::Malformed));
        assert_eq!(decode(b"", b"+"), Err(RecordError::Malformed));
    }
}

//! The address driver: pools are subnets of the ring, addresses come from the ring.
//!
//! Every address that the engine is given is held by a lease of its own, as the engine does not say for whom it is. The
//! ring refuses what another host or container holds, so no address is ever given out twice, whatever engines do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde_json::{Value, json};
use weave_api::{
    AllocateRequest, ApiError, ClaimRequest, ErrorCode, FreeRequest, IpamReport, LEASE_PREFIX, ListRequest,
};
use weave_model::{ContainerId, Subnet};

use crate::{
    clock,
    plugin::{Driver, Refusal},
    pool::Pool,
    remote, router,
};

/// Seconds to wait for an address. The engine waits with us.
const WAIT_S: u64 = 8;

/// How the leases of gateways begin; these are the same on all hosts of a network, so there may be no lease.
const GATEWAY_LEASE: &str = "docker:lease:gateway:";

impl Driver {
    pub(crate) async fn request_pool(&self, request: remote::RequestPool) -> Result<Value, Refusal> {
        let none = || Refusal("weave gives out no addresses here (--ipalloc-range is empty)".to_owned());
        let ring = self.ring().await?.ok_or_else(none)?;
        let subnet = match request.pool.as_str() {
            "" => default_subnet(&ring, request.v6)?,
            given => given.parse().map_err(|e| Refusal(format!("{e}")))?,
        };
        if !manages(&ring, subnet) {
            return Err(Refusal(format!(
                "{subnet} is not within the addresses that weave manages ({}); choose a subnet there, or widen \
                 --ipalloc-range on all hosts",
                words(&ring.ranges)
            )));
        }
        let part = match request.sub_pool.as_str() {
            "" => None,
            given => Some(given.parse::<Subnet>().map_err(|e| Refusal(format!("{e}")))?),
        };
        let pool = Pool::new(subnet, part)?;
        let answer = remote::Pool {
            pool_id: pool.to_string(),
            pool: subnet.to_string(),
            data: BTreeMap::from([(remote::GATEWAY.to_owned(), pool.no_gateway())]),
        };
        serde_json::to_value(answer).map_err(|error| Refusal(error.to_string()))
    }

    /// Refuses a network whose addresses come from Docker itself and not from the ring: every host would give out the same.
    pub(crate) async fn check_pools(&self, pools: &[remote::IpamData]) -> Result<(), Refusal> {
        let Some(ring) = self.ring().await? else { return Ok(()) };
        for remote::IpamData { pool } in pools {
            let subnet: Subnet = pool.parse().map_err(|e| Refusal(format!("{e}")))?;
            if !manages(&ring, subnet) {
                return Err(Refusal(format!(
                    "Docker itself would give out the addresses of this network ({subnet}), and other hosts the same \
                     ones: add `--ipam-driver weave` (Compose: `ipam: {{driver: weave}}`), or choose a `--subnet` within {}",
                    words(&ring.ranges)
                )));
            }
        }
        Ok(())
    }

    /// What the router gives out; none if it gives out nothing.
    pub(crate) async fn ring(&self) -> Result<Option<IpamReport>, ApiError> {
        // A cheap request that waits for a router which is starting; a report is no such request.
        router::ask(&self.router, &weave_api::ReadyRequest { timeout_s: Some(WAIT_S) }).await?;
        Ok(self.router.report().await?.ipam)
    }

    pub(crate) fn release_pool(&self, request: &remote::ReleasePool) -> Result<Value, Refusal> {
        let pool: Pool = request.pool_id.parse()?;
        self.lingering().end_pool(&pool, clock::now());
        Ok(json!({}))
    }

    pub(crate) async fn request_address(&self, request: remote::RequestAddress) -> Result<Value, Refusal> {
        let pool: Pool = request.pool_id.parse()?;
        let is_gateway = request.options.as_ref().and_then(|options| options.get(remote::ADDRESS_TYPE))
            == Some(&remote::GATEWAY.to_owned());
        let address = match request.address.as_str() {
            "" => self.any_address(&pool).await?,
            given => {
                let address = given.parse().map_err(|_| Refusal(format!("`{given}` is no address")))?;
                self.this_address(&pool, address, is_gateway).await?
            }
        };
        Ok(json!({ "Address": pool.interface(address)?.to_string(), "Data": {} }))
    }

    async fn any_address(&self, pool: &Pool) -> Result<IpAddr, Refusal> {
        if let Some(address) = self.lingering().take_latest(pool) {
            return Ok(address);
        }
        let container = new_lease()?;
        let request = AllocateRequest { container, subnet: Some(pool.source()), timeout_s: Some(WAIT_S) };
        let given = router::ask(&self.router, &request).await?;
        let first = given.addresses.first().map(|interface| interface.address());
        first.ok_or_else(|| Refusal(format!("no address of {} is to be had", pool.source())))
    }

    async fn this_address(&self, pool: &Pool, address: IpAddr, is_gateway: bool) -> Result<IpAddr, Refusal> {
        let interface = pool.interface(address)?;
        if self.lingering().take(address) {
            return Ok(address);
        }
        let container = if is_gateway {
            format!("{GATEWAY_LEASE}{address}").parse().map_err(|e| Refusal(format!("{e}")))?
        } else {
            new_lease()?
        };
        let request = ClaimRequest {
            container,
            address: interface,
            no_error_on_unknown: false,
            timeout_s: Some(WAIT_S),
        };
        match router::ask(&self.router, &request).await {
            Ok(_) => Ok(address),
            // Another host has the same network with the same gateway, and keeps the address from containers for all.
            Err(error) if is_gateway && error.code == ErrorCode::Conflict => Ok(address),
            Err(error) => Err(error.into()),
        }
    }

    /// Never waits for the router: the address is freed later.
    pub(crate) fn release_address(&self, request: &remote::ReleaseAddress) -> Result<Value, Refusal> {
        let pool: Pool = request.pool_id.parse()?;
        let address: IpAddr =
            request.address.parse().map_err(|_| Refusal(format!("`{}` is no address", request.address)))?;
        if pool.subnet.net().network() != address {
            self.lingering().keep(pool, address, clock::now());
        }
        Ok(json!({}))
    }

    /// Frees what has waited long enough for its container.
    pub(crate) async fn free_due(&self) -> Result<(), ApiError> {
        let due: BTreeSet<IpAddr> = self.lingering().due(clock::now()).into_iter().collect();
        if due.is_empty() {
            return Ok(());
        }
        let leases = self.leases().await?;
        for address in due {
            // Taken before it is freed: from here on nobody is given it.
            if !self.lingering().take(address) {
                continue;
            }
            if let Some(owner) = leases.get(&address) {
                self.free(owner, address).await?;
            }
        }
        Ok(())
    }

    async fn free(&self, owner: &ContainerId, address: IpAddr) -> Result<(), ApiError> {
        tracing::info!(%address, "Docker does not use this address any more; it is free");
        match self.router.call(&FreeRequest { container: owner.clone(), address: Some(address) }).await {
            Err(error) if error.code != ErrorCode::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Every address that is leased to the engine, with its lease.
    pub(crate) async fn leases(&self) -> Result<BTreeMap<IpAddr, ContainerId>, ApiError> {
        let list = self.router.call(&ListRequest {}).await?;
        let leases = list.addresses_by_owner.into_iter().filter(|(owner, _)| is_lease(owner));
        Ok(leases
            .flat_map(|(owner, held)| held.into_iter().map(move |held| (held.address(), owner.clone())))
            .collect())
    }

    /// Frees leases that the engine has forgotten.
    pub(crate) async fn free_forgotten(
        &self,
        forgotten: &BTreeMap<IpAddr, ContainerId>,
    ) -> Result<(), ApiError> {
        for (address, owner) in forgotten {
            if !self.lingering().contains(*address) {
                self.free(owner, *address).await?;
            }
        }
        Ok(())
    }
}

fn manages(ring: &IpamReport, subnet: Subnet) -> bool {
    ring.ranges.iter().any(|range| range.net().contains(&subnet.net()))
}

fn words(ranges: &[Subnet]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn is_lease(owner: &ContainerId) -> bool {
    owner.as_str().starts_with(LEASE_PREFIX)
}

/// An owner that nobody else is.
fn new_lease() -> Result<ContainerId, Refusal> {
    const SOURCE: &str = "/proc/sys/kernel/random/uuid";
    let uuid = std::fs::read_to_string(SOURCE).map_err(|e| Refusal(format!("cannot read {SOURCE}: {e}")))?;
    format!("{LEASE_PREFIX}{}", uuid.trim()).parse().map_err(|e| Refusal(format!("{e}")))
}

fn default_subnet(ring: &IpamReport, v6: bool) -> Result<Subnet, Refusal> {
    let is_of_family = |subnet: &&Subnet| matches!(subnet.net(), ipnet::IpNet::V6(_)) == v6;
    ring.default_subnets.iter().find(is_of_family).copied().ok_or_else(|| {
        let family = if v6 { "IPv6" } else { "IPv4" };
        Refusal(format!("weave manages no {family} addresses here; see --ipalloc-range"))
    })
}

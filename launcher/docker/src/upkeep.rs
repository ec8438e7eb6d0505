//! What has to be done without being asked: the first network, names after events, what was left over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{interval, sleep};
use weave_api::{
    ApiError, EndpointListRequest, EndpointRemoveRequest, ExposeRequest, PsRequest, ReadyRequest,
};
use weave_model::{ContainerId, Subnet};

use crate::{
    engine::EngineError,
    events::{Event, Events},
    follow::Trouble,
    network::wants_multicast,
    plugin::Driver,
    remote::{self, Options},
    router,
};

/// How often what is due is done.
const TICK: Duration = Duration::from_secs(1);

/// How often the host's packet filter is looked at.
const GUARD_EVERY: Duration = Duration::from_secs(3);

/// How often engine and router are compared. What only one of them knows twice in a row is left over: longer than any
/// container takes to start.
const COMPARE_EVERY: Duration = Duration::from_secs(60);

/// Seconds to wait for an address of the host.
const EXPOSE_S: u64 = 5;

/// Pauses between attempts to find the engine: from this, doubled, to that.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Works until it is dropped.
pub(crate) async fn run(driver: &Arc<Driver>) {
    tokio::join!(tend(driver), follow(driver), guard(driver));
}

/// Somebody may flush the host's packet filter, and Docker may be started any time.
async fn guard(driver: &Arc<Driver>) {
    let mut ticks = interval(GUARD_EVERY);
    loop {
        ticks.tick().await;
        driver.firewall.admit().await;
    }
}

/// Frees and removes what is due.
async fn tend(driver: &Arc<Driver>) {
    let mut ticks = interval(TICK);
    loop {
        ticks.tick().await;
        let tended = async {
            driver.remove_undeleted().await?;
            driver.free_due().await
        };
        match tended.await {
            Err(error) if !router::is_away(&error) => tracing::warn!(%error, "something is not freed yet"),
            _ => {}
        }
    }
}

/// Keeps up with the engine, whenever there is one.
async fn follow(driver: &Arc<Driver>) {
    let mut pause = RETRY.0;
    let mut left_over = LeftOver::default();
    loop {
        match driver.keep_up(&mut left_over).await {
            Ok(()) => pause = RETRY.0,
            Err(Trouble::Engine(EngineError::Absent)) => {}
            Err(Trouble::Router(error)) if router::is_away(&error) => {}
            Err(trouble) => tracing::warn!(%trouble, "cannot keep up with Docker's containers; trying again"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// What the router knew and the engine did not, the last time they were compared.
#[derive(Debug, Default)]
struct LeftOver {
    endpoints: BTreeSet<ContainerId>,
    leases: BTreeMap<IpAddr, ContainerId>,
}

/// The engine's networks, as far as they keep addresses.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    id: String,
    name: String,
    #[serde(default)]
    options: Option<Options>,
    #[serde(default)]
    driver: String,
    #[serde(default, rename = "IPAM")]
    ipam: Ipam,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    #[serde(default)]
    config: Option<Vec<IpamConfig>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IpamConfig {
    #[serde(default)]
    gateway: String,
    #[serde(default)]
    auxiliary_addresses: Option<BTreeMap<String, String>>,
}

/// The network that is made without being asked for. Its subnets are said, though they are the default: Docker takes `--ip`
/// only where they were.
fn description(name: &str, driver: &str, subnets: &[Subnet]) -> Value {
    let config: Vec<Value> = subnets.iter().map(|subnet| json!({ "Subnet": subnet.to_string() })).collect();
    json!({
        "Name": name,
        "CheckDuplicate": true,
        "Driver": driver,
        "EnableIPv6": subnets.iter().any(|subnet| subnet.net().network().is_ipv6()),
        "IPAM": { "Driver": driver, "Config": config },
    })
}

impl Driver {
    /// Brings everything in line with the engine, then follows its events until it ends.
    async fn keep_up(&self, left_over: &mut LeftOver) -> Result<(), Trouble> {
        let mut events = Events::follow(&self.engine).await?;
        tracing::info!(engine = %self.engine.socket().display(), "following Docker's containers");
        self.firewall.admit().await;
        self.ensure_network().await?;
        self.compare(left_over).await?;
        self.ensure_name_server().await?;
        let mut compare = interval(COMPARE_EVERY);
        compare.reset();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.take_note(&event).await?,
                    None => {
                        tracing::info!("Docker's engine has ended");
                        return self.note_all().await;
                    }
                },
                _ = compare.tick() => {
                    self.ensure_name_server().await?;
                    self.compare(left_over).await?;
                }
            }
        }
    }

    async fn take_note(&self, event: &Event) -> Result<(), Trouble> {
        match (event.action.as_str(), event.container()) {
            ("start" | "connect" | "rename", Some(container)) => self.name(container).await,
            ("die", Some(container)) => self.note_dead(container).await,
            _ => Ok(()),
        }
    }

    /// Makes the network, unless there is one of that name.
    async fn ensure_network(&self) -> Result<(), Trouble> {
        let Some(name) = &self.network else { return Ok(()) };
        let networks: Vec<Network> = self.engine.get("/networks").await?;
        if let Some(existing) = networks.iter().find(|network| network.name == *name) {
            if existing.driver != self.name {
                tracing::warn!(
                    network = %name, driver = %existing.driver,
                    "Docker has a network of this name that is not ours; `docker network rm` it to get ours"
                );
            }
            return Ok(());
        }
        let subnets = self.ring().await?.map(|ring| ring.default_subnets).unwrap_or_default();
        let wanted = description(name, &self.name, &subnets);
        match self.engine.post::<Value>("/networks/create", &wanted).await {
            Ok(_) => tracing::info!(network = %name, "made the network"),
            // Somebody else was faster.
            Err(EngineError::Refused(409, _)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Gives the host an address on the network, if it has none, where containers can ask the name server.
    async fn ensure_name_server(&self) -> Result<(), Trouble> {
        if !self.is_name_server {
            return Ok(());
        }
        router::ask(&self.router, &ReadyRequest { timeout_s: None }).await?;
        if self.router.report().await?.dns.is_none() {
            return Ok(());
        }
        let exposed = self.router.call(&PsRequest { containers: vec![ContainerId::expose()] }).await?;
        if exposed.containers.is_empty() {
            let request = ExposeRequest { timeout_s: Some(EXPOSE_S), ..ExposeRequest::default() };
            match self.router.call(&request).await {
                Ok(exposed) => {
                    tracing::info!(addresses = ?exposed.addresses, "containers find the name server there");
                }
                // The ring has not begun, or is full. Everything else works.
                Err(error) => tracing::warn!(%error, "containers cannot ask the name server yet"),
            }
        }
        Ok(())
    }

    /// Tells the router of endpoints that were deleted while it was away.
    async fn remove_undeleted(&self) -> Result<(), ApiError> {
        let undeleted: Vec<ContainerId> = self.undeleted().iter().cloned().collect();
        for endpoint in undeleted {
            self.router.call(&EndpointRemoveRequest { endpoint: endpoint.clone() }).await?;
            self.undeleted().remove(&endpoint);
        }
        Ok(())
    }

    /// Names all containers, and removes what the engine did not know, twice in a row.
    async fn compare(&self, left_over: &mut LeftOver) -> Result<(), Trouble> {
        let known = self.name_all().await?;
        let kept = self.kept_by_networks().await?;
        let endpoints = self.router.call(&EndpointListRequest {}).await?.endpoints;
        let used: BTreeSet<IpAddr> =
            endpoints.iter().flat_map(|e| e.addresses.iter().map(|a| a.address())).chain(kept).collect();
        let mut leases = self.leases().await?;
        leases.retain(|address, _| !used.contains(address) && !self.lingering().contains(*address));
        let unknown: BTreeSet<ContainerId> = endpoints
            .into_iter()
            .map(|endpoint| endpoint.endpoint)
            .filter(|endpoint| endpoint.as_str().starts_with("docker:") && !known.contains(endpoint))
            .collect();
        for endpoint in unknown.intersection(&left_over.endpoints) {
            tracing::info!(%endpoint, "Docker has forgotten this endpoint; it is removed");
            self.router.call(&EndpointRemoveRequest { endpoint: endpoint.clone() }).await?;
        }
        let mut forgotten = leases.clone();
        forgotten.retain(|address, owner| left_over.leases.get(address) == Some(owner));
        self.free_forgotten(&forgotten).await?;
        *left_over = LeftOver { endpoints: unknown, leases };
        Ok(())
    }

    /// What was said when a network was made, before this process was.
    fn recall_options(&self, networks: &[Network]) {
        for network in networks.iter().filter(|network| network.driver == self.name) {
            let given = network.options.clone().unwrap_or_default();
            let options = Options::from([(remote::GENERIC.to_owned(), given.into_iter().collect())]);
            // Options that make no sense were refused when the network was made.
            if let Ok(multicast) = wants_multicast(&options) {
                self.multicast_by_network().insert(network.id.clone(), multicast);
            }
        }
    }

    /// Addresses that networks have apart from their containers: gateways, and those set aside by the user.
    async fn kept_by_networks(&self) -> Result<Vec<IpAddr>, Trouble> {
        let networks: Vec<Network> = self.engine.get("/networks").await?;
        self.recall_options(&networks);
        let configs = networks.into_iter().flat_map(|network| network.ipam.config.unwrap_or_default());
        let addresses = configs.flat_map(|config| {
            let set_aside = config.auxiliary_addresses.unwrap_or_default().into_values();
            set_aside.chain([config.gateway])
        });
        // A gateway may be written with its prefix length.
        let bare = |text: String| text.split('/').next().and_then(|address| address.parse().ok());
        Ok(addresses.filter_map(bare).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_has_the_families_of_the_ring_and_says_its_subnets() {
        let subnets =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Subnet>>();
        let both = description("weave", "weave", &subnets(&["10.32.0.0/12", "fd00::/64"]));
        assert_eq!(both["EnableIPv6"], true);
        assert_eq!(both["IPAM"]["Config"], json!([{ "Subnet": "10.32.0.0/12" }, { "Subnet": "fd00::/64" }]));
        let one = description("weave", "weave", &subnets(&["10.32.0.0/12"]));
        assert_eq!(one["EnableIPv6"], false);
    }
}

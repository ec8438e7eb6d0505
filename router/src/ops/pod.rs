//! What runtimes of containers ask for beyond addresses: routes through this host, a look, and a clean end.

use std::{net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weave_api::{
    AddressesResponse, ApiError, AttachRequest, ErrorCode, ExposeRequest, FoundInterface, InspectRequest,
    InspectResponse, InterfaceOptions, MadeInterface, NetworkResponse, ReleaseRequest, Route,
};
use weave_hostnet::{Inspection, NetnsRef, check_route, names};
use weave_model::{AddressSpec, ContainerId, Interface, Subnet};

use super::{Ops, Record, host_error, stopping};

/// The least MTU that IPv4 allows, bytes (RFC 791).
const MIN_MTU: u16 = 68;

/// A container's routes, ready for the kernel.
#[derive(Debug, Default)]
pub(super) struct Paths {
    routes: Vec<Route>,
    /// The host's own addresses that some of them lead to.
    gateways: Vec<IpAddr>,
}

impl Ops {
    /// Refuses what cannot be, before anything is done for it.
    pub(super) fn check_options(&self, options: &InterfaceOptions) -> Result<(), ApiError> {
        let bad = |message: String| Err(ApiError::new(ErrorCode::BadRequest, message));
        if let Some(bridge) = options.bridge.as_ref().filter(|bridge| **bridge != self.bridge) {
            return bad(format!("the bridge of this router is {}, not {bridge}", self.bridge));
        }
        if let Some(name) = &options.name {
            names::check(name).or_else(|error| bad(error.to_string()))?;
        }
        if let Some(mac) = options.mac.filter(|mac| mac.0[0] & 1 == 1 || mac.0 == [0; 6]) {
            return bad(format!("{mac} cannot be the address of an interface"));
        }
        if let Some(mtu) = options.mtu.filter(|mtu| *mtu < MIN_MTU) {
            return bad(format!("an MTU of {mtu} bytes is too small: the least is {MIN_MTU}"));
        }
        for route in &options.routes {
            check_route(route.destination.net(), route.gateway).or_else(|error| bad(error.to_string()))?;
        }
        Ok(())
    }

    /// The addresses of a request, those without prefix length included.
    pub(super) fn wanted_addresses(&self, request: &AttachRequest) -> Result<Vec<AddressSpec>, ApiError> {
        let mut wanted = request.addresses.clone();
        for address in &request.options.addresses {
            let subnet = self.facts.default_subnets().iter().find(|subnet| subnet.contains(*address));
            let Some(subnet) = subnet else {
                let message = format!("{address} is outside of every range that this network allocates from");
                return Err(ApiError::new(ErrorCode::InvalidAddress, message)
                    .with_hint("add the prefix length of its subnet if it is meant nevertheless"));
            };
            let interface = IpNet::new(*address, subnet.net().prefix_len()).map_err(ApiError::internal)?;
            wanted.push(AddressSpec::Ip(Interface(interface)));
        }
        Ok(wanted)
    }

    /// Works out a container's routes. The host gets an address where it is to be a gateway and has none.
    pub(super) async fn paths_for(
        self: &Arc<Self>,
        addresses: &[Interface],
        request: &AttachRequest,
    ) -> Result<Paths, ApiError> {
        let options = &request.options;
        let mut paths = Paths::default();
        let mut wanted = options.routes.clone();
        if options.default_route {
            let everything = addresses.iter().map(|address| everything(address.address()));
            wanted.extend(everything.map(|destination| Route { destination, gateway: None }));
        }
        for route in &mut wanted {
            if route.gateway.is_none() {
                let gateway = self.gateway(*route, addresses, request).await?;
                route.gateway = Some(gateway);
                paths.gateways.push(gateway);
            }
        }
        paths.routes = wanted;
        paths.routes.sort();
        paths.routes.dedup();
        paths.gateways.sort();
        paths.gateways.dedup();
        Ok(paths)
    }

    /// This host's address in the subnet of the container's address of the route's family.
    async fn gateway(
        self: &Arc<Self>,
        route: Route,
        addresses: &[Interface],
        request: &AttachRequest,
    ) -> Result<IpAddr, ApiError> {
        let is_ipv4 = |address: IpAddr| address.is_ipv4();
        let family = is_ipv4(route.destination.net().addr());
        let Some(own) = addresses.iter().find(|address| is_ipv4(address.address()) == family) else {
            let message = format!("no route to {} without an address of that family", route.destination);
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        };
        let subnet = own.subnet();
        let exposed = self.records().get(&ContainerId::expose()).map(|record| record.addresses.clone());
        if let Some(address) = exposed.iter().flatten().find(|address| address.subnet() == subnet) {
            return Ok(address.address());
        }
        let expose = ExposeRequest {
            addresses: vec![AddressSpec::Net(subnet)],
            timeout_s: request.timeout_s,
            ..ExposeRequest::default()
        };
        let exposed = Box::pin(self.expose(expose)).await.map_err(|error| {
            let message = format!("this host has no address in {subnet} to be a gateway: {}", error.message);
            ApiError { message, ..error }.with_hint("name a gateway, or give the host one: weave expose")
        })?;
        let first = exposed.addresses.first().map(|address| address.address());
        first.ok_or_else(|| ApiError::internal(format!("exposing {subnet} gave no address")))
    }

    /// Gives an interface that was just made what it needs besides addresses.
    pub(super) async fn equip(
        &self,
        record: &Record,
        paths: Paths,
        hairpin: bool,
    ) -> Result<MadeInterface, ApiError> {
        let equipped = async {
            let host_mac = self.host.set_hairpin(&record.host_ifname, hairpin).await?;
            if !paths.routes.is_empty() {
                let routes: Vec<_> = paths.routes.iter().map(|r| (r.destination.net(), r.gateway)).collect();
                let netns = NetnsRef::Path(record.netns.clone());
                self.host.add_container_routes(&netns, record.ifname(), &routes).await?;
            }
            anyhow::Ok(host_mac)
        };
        let host_mac = equipped.await.map_err(|error| host_error(&error))?;
        Ok(MadeInterface {
            host_interface: record.host_ifname.clone(),
            host_mac,
            bridge: self.bridge.clone(),
            bridge_mac: self.bridge_mac(),
            mtu: self.mtu().min(record.max_mtu.unwrap_or(u16::MAX)),
            gateways: paths.gateways,
            routes: paths.routes,
        })
    }

    /// Takes everything of a container away. The interface goes by the host's end, so the namespace may be gone, or
    /// be somebody else's by now.
    pub(crate) async fn release_container(
        &self,
        request: ReleaseRequest,
    ) -> Result<AddressesResponse, ApiError> {
        let container = request.container;
        if container.as_str().starts_with("weave:") {
            let message = format!("{container} is no container");
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
        let _exclusive = self.exclusive.lock().await;
        let host_ifname = names::host_ifname(container.as_str());
        self.host.remove_link(&host_ifname).await.map_err(|error| host_error(&error))?;
        let mut addresses = self.held(&container).await?;
        let record = self.records().get(&container).cloned();
        if let Some(record) = record {
            addresses.extend(&record.addresses);
            addresses.sort();
            addresses.dedup();
            self.withdraw_names(&container, &addresses).await?;
            let mac = record.mac;
            self.engine.run(move |engine, now| engine.node.detach(mac, now)).await.map_err(stopping)?;
            self.forget_record(&container).await?;
        }
        self.give_back(&container, &addresses).await;
        tracing::info!(%container, ?addresses, "released");
        Ok(AddressesResponse { container, addresses })
    }

    /// What a container's interface looks like.
    pub(crate) async fn inspect(&self, request: InspectRequest) -> Result<InspectResponse, ApiError> {
        let container = request.container.container_id()?;
        let record = self.records().get(&container).cloned();
        let netns = request.container.netns_path().or_else(|| record.as_ref().map(|r| r.netns.clone()));
        let found = match netns {
            Some(netns) => {
                let ifname = request.interface.as_deref().unwrap_or(names::CONTAINER);
                let inspected = self.host.inspect_container(&NetnsRef::Path(netns), ifname).await;
                inspected.map_err(|error| host_error(&error))?
            }
            None => None,
        };
        // An interface of another container in a namespace whose path was used again is not this one's.
        let own = names::host_ifname(container.as_str());
        let found = found.filter(|found| found.host_ifname == own).map(shown);
        Ok(InspectResponse { recorded: record.map(|record| record.addresses), found })
    }

    /// What the network is like on this host.
    pub(crate) async fn network(&self) -> Result<NetworkResponse, ApiError> {
        let status = self.engine.run(|engine, _| engine.node.ipam_status()).await.map_err(stopping)?;
        let exposed = self.records().get(&ContainerId::expose()).map(|record| record.addresses.clone());
        Ok(NetworkResponse {
            bridge: self.bridge.clone(),
            mtu: self.mtu(),
            exposed: exposed.unwrap_or_default(),
            default_subnets: self.facts.default_subnets().to_vec(),
            ipam_ready: status.as_ref().is_some_and(|status| status.ring_id.is_some()),
            ipam_status: status.map(|status| status.state),
        })
    }
}

fn shown(found: Inspection) -> FoundInterface {
    let route = |route: &weave_hostnet::HostRoute| {
        Some(Route { destination: Subnet::new(route.destination).ok()?, gateway: route.gateway })
    };
    FoundInterface {
        mac: found.mac,
        mtu: found.mtu,
        up: found.is_up,
        routes: found.routes.iter().filter_map(route).collect(),
        addresses: found.addresses,
        host_interface: found.host_ifname,
        bridge: found.bridge,
        hairpin: found.is_hairpin,
    }
}

/// The destination of a default route of this address's family.
fn everything(address: IpAddr) -> Subnet {
    let all = match address {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    };
    Interface(all).subnet()
}

//! Several hosts on one underlay: each a network namespace, joined by a bridge in the namespace of the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use weave_hostnet::{BridgeSpec, Family, Host, LinkIndex, Tunnel, VxlanSpec, names};
use weave_model::Mac;

use crate::lab::{Container, ip, shell, spec};

/// The UDP port of tunnels.
pub(crate) const PORT: u16 = 6784;

/// One host.
pub(crate) struct Site {
    pub(crate) number: u8,
    pub(crate) namespace: Container,
    pub(crate) host: Host,
    pub(crate) bridge: LinkIndex,
}

/// Makes `count` hosts with addresses 192.0.2.n and 2001:db8::n, and their bridges.
pub(crate) async fn sites(count: u8) -> Vec<Site> {
    shell("ip link add name under type bridge mcast_snooping 0; ip link set under up");
    let mut sites = Vec::new();
    for number in 1..=count {
        sites.push(Site::new(number).await);
    }
    sites
}

/// Takes the hosts and the underlay away again.
pub(crate) fn end(sites: Vec<Site>) {
    for site in sites {
        shell(&format!("ip link del un{}", site.number));
        drop(site.host);
        site.namespace.ends();
    }
    shell("ip link del under");
}

/// The address of a host on the underlay.
pub(crate) fn address(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([192, 0, 2, number]),
        Family::V6 => format!("2001:db8::{number}").parse().unwrap(),
    }
}

pub(crate) fn tunnel(number: u8, family: Family, vni: Option<u32>) -> Tunnel {
    Tunnel { remote: address(number, family), vni }
}

/// The address of the container `id`.
pub(crate) fn mac(id: &str) -> Mac {
    names::mac_from_seed(id.as_bytes())
}

/// A device of ours as the router would ask for it.
pub(crate) fn vxlan(name: &str, vni: u32, family: Family) -> VxlanSpec {
    VxlanSpec {
        name: name.to_owned(),
        vni,
        port: PORT,
        family,
        mtu: 1400,
        dont_fragment: false,
        mac: mac(&format!("{name} of some host")),
    }
}

impl Site {
    async fn new(number: u8) -> Self {
        let namespace = Container::new();
        let enter = namespace.enter();
        let pid = enter.split(['/']).nth(2).unwrap().to_owned();
        shell(&format!(
            "ip link add un{number} type veth peer name eth0 netns {pid}; \
             ip link set un{number} master under; ip link set un{number} up; \
             {enter}ip address add 192.0.2.{number}/24 dev eth0; \
             {enter}ip address add 2001:db8::{number}/64 dev eth0 nodad; {enter}ip link set eth0 up"
        ));
        // Until the kernel has noticed that both ends are up, it loses what is sent, and that may take a second.
        let is_up = |shown: serde_json::Value| shown[0]["operstate"] == "UP";
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while !is_up(namespace.ip("link show eth0")) || !is_up(ip(&format!("link show un{number}"))) {
            assert!(tokio::time::Instant::now() < deadline, "the underlay does not come up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let host = Host::open_in(namespace.netns().open().unwrap()).await.unwrap();
        let bridge = host.ensure_bridge(&BridgeSpec { mtu: 1400, ..BridgeSpec::default() }).await.unwrap();
        Self { number, namespace, host, bridge }
    }

    /// The device that carries containers' frames, on the bridge.
    pub(crate) async fn uplink(&self, family: Family) -> LinkIndex {
        let device = self.host.ensure_vxlan(&vxlan(names::vxlan(family), 1, family)).await.unwrap();
        self.host.ensure_uplink_port(device, self.bridge).await.unwrap();
        device
    }

    /// A container with these addresses.
    pub(crate) async fn container(&self, id: &str, addresses: &[&str]) -> Container {
        let container = Container::new();
        self.host.attach(&spec(container.netns(), id, addresses)).await.unwrap();
        container
    }

    /// Tells the tables of this host where the container `id` is.
    pub(crate) async fn learn(&self, device: LinkIndex, id: &str, tunnel: Tunnel) {
        let stations = BTreeMap::from([(mac(id), tunnel)]);
        let flood = if tunnel.vni.is_none() { BTreeSet::from([tunnel.remote]) } else { BTreeSet::new() };
        self.host.reconcile_tunnels(device, &stations, &flood).await.unwrap();
        let ports = BTreeMap::from([(mac(id), device)]);
        self.host.reconcile_ports(self.bridge, &BTreeSet::from([device]), &ports).await.unwrap();
    }

    /// Runs a command on the host.
    pub(crate) fn shell(&self, command: &str) -> String {
        shell(&format!("{}{command}", self.namespace.enter()))
    }
}

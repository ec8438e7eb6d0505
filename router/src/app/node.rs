//! The node and how it introduces itself, from configuration and store.

use std::net::SocketAddr;

use weave_hostnet::Host;
use weave_link::{FEATURE_ESP, FEATURE_ESP_IN_UDP, FEATURE_FASTDP, FEATURE_NO_VXLAN, LocalHello};
use weave_mesh::Target;
use weave_model::Uid;
use weave_node::Node;

use super::{VERSION, no_fastdp};
use crate::{
    clock,
    config::Config,
    exit::{Exit, Fatal},
    identity::{self, Local},
    store::{Part, Store},
};

pub(super) async fn start_node(
    config: &Config,
    local: &Local,
    uid: Uid,
    store: &Store,
    host: &Host,
) -> anyhow::Result<Node> {
    let addresses = host
        .underlay_addresses()
        .await?
        .into_iter()
        .filter(|address| config.listen.ip().is_unspecified() || *address == config.listen.ip())
        .map(|address| SocketAddr::new(address, config.listen.port()))
        .collect();
    let targets = if config.resume { resumed_targets(store)? } else { config.targets.clone() };
    let texts: Vec<String> = targets.iter().map(ToString::to_string).collect();
    identity::save_targets(store, &texts)?;
    let mesh = weave_mesh::Config {
        name: local.name,
        uid,
        public_key: local.identity.public_key(),
        nickname: config.nickname.clone(),
        incarnation: local.incarnation,
        version: VERSION.to_owned(),
        listen_port: config.listen.port(),
        discovery: config.discovery,
        conn_limit: config.conn_limit,
        targets,
        addresses,
        ..weave_mesh::Config::default()
    };
    let ipam = config.ipam.as_ref().map(|ipam| weave_ipam::Config {
        local: local.name,
        ranges: ipam.ranges.clone(),
        default_subnets: ipam.default_subnets.clone(),
        init: ipam.init.clone(),
        store_id: local.store_id,
    });
    let node = weave_node::Config {
        mesh,
        ipam,
        restored: store.read_all(Part::Ipam)?,
        domain: config.dns.as_ref().map(|dns| dns.domain.clone()),
        mtu: config.mtu,
    };
    Node::new(node, clock::seed(), clock::now()).map_err(|error| Fatal::error(Exit::Store, error.to_string()))
}

fn resumed_targets(store: &Store) -> anyhow::Result<Vec<Target>> {
    let texts = identity::load_targets(store)?;
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}

/// What the kernel can and cannot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    pub(super) can_encrypt: bool,
    pub(super) takes_udp: bool,
    pub(super) lacks_vxlan: bool,
}

pub(super) fn hello(config: &Config, local: &Local, uid: Uid, kernel: Kernel) -> LocalHello {
    LocalHello {
        name: local.name,
        uid,
        incarnation: local.incarnation,
        nickname: config.nickname.clone(),
        listen_port: config.listen.port(),
        software: format!("weaver {VERSION}"),
        aes_hardware: weave_sleeve::has_aes_hardware(),
        trusts_remote: false,
        sleeve_index: 0,
        features: match no_fastdp(config, kernel.can_encrypt) {
            Some(_) => 0,
            None if kernel.lacks_vxlan => FEATURE_NO_VXLAN,
            None if kernel.can_encrypt && kernel.takes_udp => {
                FEATURE_FASTDP | FEATURE_ESP | FEATURE_ESP_IN_UDP
            }
            None if kernel.can_encrypt => FEATURE_FASTDP | FEATURE_ESP,
            None => FEATURE_FASTDP,
        },
    }
}

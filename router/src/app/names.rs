//! The name server, from configuration.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use weave_hostnet::Host;
use weave_names::{Domain, Snapshot};

use crate::config::{Config, DnsConfig};

pub(super) fn domain_of(config: &Config) -> Domain {
    config.dns.as_ref().map(|dns| dns.domain.clone()).unwrap_or_default()
}

/// Who may ask for names: containers, this host, and whom the operator lets. An open resolver serves attackers.
async fn may_ask(config: &Config, dns: &DnsConfig, host: &Host) -> anyhow::Result<Vec<IpNet>> {
    let ranges =
        config.ipam.iter().flat_map(|ipam| &ipam.ranges).chain(&dns.allow).map(|subnet| subnet.net());
    let loopback =
        [IpNet::new(Ipv4Addr::LOCALHOST.into(), 8)?.trunc(), IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST))];
    let own = host.addresses().await?.into_iter().map(|(_, net)| IpNet::from(net.addr()));
    Ok(ranges.chain(loopback).chain(own).collect())
}

pub(super) async fn start_dns(
    config: &Config,
    host: &Host,
    names: &Arc<ArcSwap<Snapshot>>,
) -> anyhow::Result<Option<Arc<weave_dns::Server>>> {
    let Some(dns) = &config.dns else { return Ok(None) };
    let server = weave_dns::Server::start(
        weave_dns::DnsConfig {
            listen: vec![dns.listen],
            domain: dns.domain.clone(),
            ttl: dns.ttl,
            upstreams: weave_dns::Upstreams::ResolvConf(dns.resolv_conf.clone()),
            allow: may_ask(config, dns, host).await?,
            ..weave_dns::DnsConfig::default()
        },
        Arc::clone(names),
    )
    .await?;
    Ok(Some(Arc::new(server)))
}

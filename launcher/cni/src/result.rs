//! What ADD answers, and what comes back as `prevResult`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{CniError, Code, Version};

/// The result of an ADD, in the terms of the newest version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct CniResult {
    /// Interfaces, the host's first.
    pub interfaces: Vec<CniInterface>,
    /// Addresses.
    pub ips: Vec<CniIp>,
    /// Routes of the container.
    pub routes: Vec<CniRoute>,
    /// Resolver settings, passed on.
    pub dns: Dns,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CniInterface {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU, bytes (since 1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its network namespace; empty for the host's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CniIp {
    /// The address with its prefix length.
    pub address: IpNet,
    /// Who leads out of its subnet.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Index of its interface in the list of interfaces.
    #[serde(default)]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniRoute {
    /// Where it leads.
    pub dst: IpNet,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// Resolver settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The domain of short names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Domains that short names are tried in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl CniResult {
    /// Reads a result of any version spoken.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(document: &Value) -> Result<Self, CniError> {
        serde_json::from_value(document.clone()).map_err(|error| {
            CniError::new(Code::Undecodable, format!("the result of a plugin makes no sense: {error}"))
        })
    }

    /// The document for this version.
    #[must_use]
    pub fn document(&self, version: Version) -> Value {
        let mut document = json!({ "cniVersion": version.as_str(), "dns": self.dns });
        let interfaces: Vec<CniInterface> = self
            .interfaces
            .iter()
            .map(|i| CniInterface { mtu: i.mtu.filter(|_| version >= Version::V1_1_0), ..i.clone() })
            .collect();
        if !interfaces.is_empty() {
            document["interfaces"] = json!(interfaces);
        }
        document["ips"] = self.ips.iter().map(|ip| ip.document(version)).collect();
        if !self.routes.is_empty() {
            document["routes"] = json!(self.routes);
        }
        document
    }

    /// The container's interface of this name, by its index.
    pub(crate) fn container_interface(&self, name: &str) -> Option<(usize, &CniInterface)> {
        let mut all = self.interfaces.iter().enumerate();
        all.find(|(_, interface)| interface.name == name && !interface.sandbox.is_empty())
    }
}

impl CniIp {
    fn document(&self, version: Version) -> Value {
        let mut document = json!({ "address": self.address });
        if version < Version::V1_0_0 {
            document["version"] = if self.address.addr().is_ipv4() { "4" } else { "6" }.into();
        }
        if let Some(gateway) = self.gateway {
            document["gateway"] = json!(gateway);
        }
        if let Some(interface) = self.interface {
            document["interface"] = interface.into();
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_what_its_version_has_and_is_read_back() {
        let result = CniResult {
            interfaces: vec![CniInterface {
                name: "eth0".to_owned(),
                mac: "02:00:00:00:00:07".to_owned(),
                mtu: Some(1376),
                sandbox: "/run/netns/c1".to_owned(),
            }],
            ips: vec![CniIp {
                address: "10.32.0.7/12".parse().unwrap(),
                gateway: Some("10.32.0.1".parse().unwrap()),
                interface: Some(0),
            }],
            routes: vec![CniRoute { dst: "0.0.0.0/0".parse().unwrap(), gw: None }],
            dns: Dns::default(),
        };
        let document = |version| result.document(version);
        assert_eq!(document(Version::V0_3_1)["ips"][0]["version"], "4");
        assert!(document(Version::V1_0_0)["ips"][0].get("version").is_none());
        assert!(document(Version::V1_0_0)["interfaces"][0].get("mtu").is_none());
        assert_eq!(document(Version::V1_1_0)["interfaces"][0]["mtu"], 1376);
        for version in Version::ALL {
            let back = CniResult::parse(&document(version)).unwrap();
            assert_eq!((&back.ips, &back.routes), (&result.ips, &result.routes), "{version}");
        }
    }
}

//! The network's configuration, as it comes on stdin.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use weave_api::Route;
use weave_model::{AddressSpec, Interface, Mac, Subnet};

use crate::{CniError, CniResult, Code, Dns, Environment, Version, environment::is_name};

/// How long ADD waits for an address unless the configuration says otherwise, seconds. Runtimes give up after two to
/// four minutes.
const DEFAULT_WAIT_S: u64 = 60;

/// The router's socket unless the configuration names another.
const DEFAULT_SOCKET: &str = "/run/weave/weave.sock";

/// A network's configuration. Keys that we do not know are the business of others.
#[derive(Debug, Clone)]
pub struct Config {
    /// The version of the specification that it is written in, and answers are to be.
    pub version: Version,
    /// The network's name.
    pub name: String,
    /// The rest, by key.
    pub(crate) fields: Fields,
    /// All of it as it came, for other plugins.
    pub(crate) document: Value,
}

/// The keys that we know.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Fields {
    cni_version: Option<String>,
    #[serde(deserialize_with = "or_default")]
    name: String,
    /// The router's control socket.
    socket: Option<PathBuf>,
    /// Where `weave-npc` answers, if pods are to be announced to it.
    policy_socket: Option<PathBuf>,
    /// How long ADD waits for an address, seconds.
    wait_seconds: Option<u64>,
    /// The bridge expected.
    #[serde(deserialize_with = "or_default")]
    pub(crate) bridge: String,
    /// The largest MTU wanted; 0 for the network's own.
    #[serde(deserialize_with = "or_default")]
    pub(crate) mtu: u16,
    /// Whether a container may reach itself by a translated address; yes unless said otherwise.
    pub(crate) hairpin_mode: Option<bool>,
    /// Whether containers may send from addresses that are not theirs.
    #[serde(deserialize_with = "or_default")]
    pub(crate) any_source: bool,
    #[serde(deserialize_with = "or_default")]
    is_gateway: bool,
    #[serde(deserialize_with = "or_default")]
    is_default_gateway: bool,
    #[serde(deserialize_with = "or_default")]
    ip_masq: bool,
    #[serde(deserialize_with = "or_default")]
    pub(crate) ipam: Ipam,
    #[serde(deserialize_with = "or_default")]
    pub(crate) dns: Dns,
    #[serde(deserialize_with = "or_default")]
    args: Args,
    #[serde(deserialize_with = "or_default")]
    runtime_config: Wishes,
    prev_result: Option<Value>,
    /// What GC shall leave.
    #[serde(rename = "cni.dev/valid-attachments", alias = "cni.dev/attachments")]
    pub(crate) valid_attachments: Option<Vec<ValidAttachment>>,
}

/// Where addresses come from.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Ipam {
    /// The plugin: none, or `weave-ipam`, for the ring.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "or_default")]
    subnet: String,
    #[serde(deserialize_with = "or_default")]
    subnets: Vec<String>,
    pub(crate) gateway: Option<IpAddr>,
    routes: Option<Vec<RouteField>>,
}

#[derive(Debug, Clone, Deserialize)]
struct RouteField {
    dst: IpNet,
    #[serde(default)]
    gw: Option<IpAddr>,
}

/// `args`, the older way of the same wishes.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
struct Args {
    #[serde(deserialize_with = "or_default")]
    cni: Wishes,
}

/// What the runtime wants for this container (`runtimeConfig`, by the capabilities `ips` and `mac`).
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
struct Wishes {
    #[serde(deserialize_with = "or_default")]
    ips: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    mac: String,
}

/// An attachment that is alive (GC).
#[derive(Debug, Clone, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(crate) container: String,
    #[serde(rename = "ifname")]
    pub(crate) interface: String,
}

/// A key with `null` is a key that is not there.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer).map_err(D::Error::custom)?.unwrap_or_default())
}

impl Config {
    /// Reads what came on stdin.
    ///
    /// # Errors
    /// When it is not JSON, of a version that we do not speak, or makes no sense.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let document: Value = serde_json::from_slice(stdin).map_err(|error| {
            CniError::new(Code::Undecodable, format!("the network's configuration is no JSON: {error}"))
        })?;
        let fields: Fields = serde_json::from_value(document.clone())
            .map_err(|error| invalid(format!("the network's configuration makes no sense: {error}")))?;
        // The specification's libraries take a missing version for the first one.
        let version = fields.cni_version.as_deref().filter(|text| !text.is_empty()).unwrap_or("0.1.0");
        let version = Version::find(version).ok_or_else(|| {
            let known: Vec<&str> = Version::ALL.iter().map(|version| version.as_str()).collect();
            let message = format!("the network's configuration is of CNI version {version}");
            CniError::new(Code::IncompatibleVersion, message)
                .with_details(format!("spoken are {}", known.join(", ")))
        })?;
        if !is_name(&fields.name) {
            return Err(invalid(format!("`{}` cannot be a network's name", fields.name))
                .with_details("a letter or digit first, then letters, digits, _ . -"));
        }
        refuse_unsupported(&fields)?;
        Ok(Self { version, name: fields.name.clone(), fields, document })
    }

    /// The version that an answer is to be in, if the question tells.
    #[must_use]
    pub fn version_of(stdin: &[u8]) -> Option<Version> {
        let document: Value = serde_json::from_slice(stdin).ok()?;
        Version::find(document.get("cniVersion")?.as_str()?)
    }

    /// The router's control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.fields.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into())
    }

    /// Where `weave-npc` answers, if pods are to be announced to it.
    pub(crate) fn policy_socket(&self) -> Option<&Path> {
        self.fields.policy_socket.as_deref().filter(|path| !path.as_os_str().is_empty())
    }

    /// How long ADD waits for an address, seconds.
    pub(crate) fn wait_s(&self) -> u64 {
        self.fields.wait_seconds.unwrap_or(DEFAULT_WAIT_S)
    }

    /// The plugin that addresses come from, when it is not the ring.
    pub(crate) fn other_ipam(&self) -> Option<&str> {
        Some(self.fields.ipam.kind.as_str()).filter(|kind| !kind.is_empty() && *kind != "weave-ipam")
    }

    /// The result of the plugins before, or of the ADD that CHECK and DEL are about.
    pub(crate) fn previous(&self) -> Result<Option<CniResult>, CniError> {
        self.fields.prev_result.as_ref().map(CniResult::parse).transpose()
    }

    /// The routes that were asked for. `None`: nothing was said of them.
    pub(crate) fn routes(&self) -> Result<Option<Vec<Route>>, CniError> {
        let Some(routes) = &self.fields.ipam.routes else { return Ok(None) };
        let route = |route: &RouteField| {
            let destination = Subnet::new(route.dst.trunc()).map_err(|error| invalid(error.to_string()))?;
            let given = self.fields.ipam.gateway;
            let gateway = route.gw.or_else(|| given.filter(|g| g.is_ipv4() == route.dst.addr().is_ipv4()));
            Ok(Route { destination, gateway })
        };
        routes.iter().map(route).collect::<Result<_, _>>().map(Some)
    }

    /// Subnets to allocate from; none for the default one.
    pub(crate) fn subnets(&self) -> Result<Vec<Subnet>, CniError> {
        let ipam = &self.fields.ipam;
        let texts = Some(&ipam.subnet).filter(|text| !text.is_empty()).into_iter().chain(&ipam.subnets);
        let parse = |text: &String| {
            text.parse().map_err(|error| invalid(format!("the subnet of ipam makes no sense: {error}")))
        };
        texts.map(parse).collect()
    }

    /// What this container shall have, by its own wishes or its network's.
    pub(crate) fn wanted(&self, environment: &Environment) -> Result<Wanted, CniError> {
        let arguments = environment.arguments()?;
        let mut wanted = Wanted { mac: self.mac(&arguments)?, ..Wanted::default() };
        let wishes = [&self.fields.runtime_config.ips, &self.fields.args.cni.ips];
        let first = wishes.into_iter().find(|ips| !ips.is_empty()).cloned();
        let by_argument = || -> Option<Vec<String>> {
            let text = arguments.get("IP").filter(|text| !text.is_empty())?;
            Some(text.split(',').map(|ip| ip.trim().to_owned()).collect())
        };
        for text in first.or_else(by_argument).unwrap_or_default() {
            if let Ok(address) = text.parse::<IpAddr>() {
                wanted.bare.push(address);
            } else {
                let interface: Interface = text
                    .parse()
                    .map_err(|error| invalid(format!("the address wanted makes no sense: {error}")))?;
                wanted.addresses.push(AddressSpec::Ip(interface));
            }
        }
        if wanted.bare.is_empty() && wanted.addresses.is_empty() {
            wanted.addresses = self.subnets()?.into_iter().map(AddressSpec::Net).collect();
        }
        Ok(wanted)
    }

    fn mac(&self, arguments: &BTreeMap<String, String>) -> Result<Option<Mac>, CniError> {
        let none = String::new();
        let by_argument = arguments.get("MAC").unwrap_or(&none);
        let wishes = [&self.fields.runtime_config.mac, &self.fields.args.cni.mac, by_argument];
        let Some(text) = wishes.into_iter().find(|text| !text.is_empty()) else { return Ok(None) };
        let parsed = text.parse().map_err(|_| invalid(format!("`{text}` is no Ethernet address")))?;
        Ok(Some(parsed))
    }
}

/// What an attachment shall have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Addresses and subnets; with `bare` none means the default.
    pub(crate) addresses: Vec<AddressSpec>,
    /// Addresses without prefix length.
    pub(crate) bare: Vec<IpAddr>,
    /// Ethernet address.
    pub(crate) mac: Option<Mac>,
}

fn refuse_unsupported(fields: &Fields) -> Result<(), CniError> {
    let asked = [
        ("isGateway", fields.is_gateway),
        ("isDefaultGateway", fields.is_default_gateway),
        ("ipMasq", fields.ip_masq),
    ];
    match asked.into_iter().find(|(_, is_on)| *is_on) {
        Some((key, _)) => {
            let message = format!("{key} is not an option of this plugin");
            Err(CniError::new(Code::UnsupportedField, message)
                .with_details("the router makes the host a gateway and masquerades by itself; leave it out"))
        }
        None => Ok(()),
    }
}

fn invalid(message: String) -> CniError {
    CniError::new(Code::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: &str) -> Result<Config, CniError> {
        Config::parse(
            format!(r#"{{"cniVersion":"1.0.0","name":"weave","type":"weave-net"{rest}}}"#).as_bytes(),
        )
    }

    fn environment(arguments: &str) -> Environment {
        [("CNI_ARGS".into(), arguments.into())].into_iter().collect()
    }

    #[test]
    fn what_a_container_wants_comes_from_the_runtime_before_its_arguments() {
        let wanted =
            |rest: &str, arguments: &str| config(rest).unwrap().wanted(&environment(arguments)).unwrap();
        let runtime = r#","runtimeConfig":{"ips":["10.32.0.9/12"],"mac":"02:00:00:00:00:09"}"#;
        let both = wanted(runtime, "IP=10.32.0.7;MAC=02:00:00:00:00:07");
        assert_eq!(both.addresses, ["10.32.0.9/12".parse().unwrap()]);
        assert_eq!(both.mac, Some("02:00:00:00:00:09".parse().unwrap()));
        let older = wanted(r#","args":{"cni":{"ips":["10.32.0.8"]}}"#, "IgnoreUnknown=1;K8S_POD_NAME=web");
        assert_eq!(older.bare, ["10.32.0.8".parse::<IpAddr>().unwrap()]);
        let arguments = wanted("", "IP=10.32.0.7;MAC=02:00:00:00:00:07");
        assert_eq!(arguments.bare, ["10.32.0.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(arguments.mac, Some("02:00:00:00:00:07".parse().unwrap()));
        let network = wanted(r#","ipam":{"subnet":"10.33.0.0/16"}"#, "");
        assert_eq!(network.addresses, ["net:10.33.0.0/16".parse().unwrap()]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_the_number_that_the_specification_gives_it() {
        let code = |text: &str| Config::parse(text.as_bytes()).unwrap_err().code;
        assert_eq!(code("{"), Code::Undecodable);
        assert_eq!(code(r#"{"name":"weave"}"#), Code::IncompatibleVersion);
        assert_eq!(code(r#"{"name":"weave","cniVersion":"0.2.0"}"#), Code::IncompatibleVersion);
        assert_eq!(code(r#"{"name":"weave","cniVersion":"2.0.0"}"#), Code::IncompatibleVersion);
        assert_eq!(code(r#"{"cniVersion":"1.0.0"}"#), Code::InvalidConfig);
        assert_eq!(code(r#"{"name":"a b","cniVersion":"1.0.0"}"#), Code::InvalidConfig);
        assert_eq!(code(r#"{"name":"weave","cniVersion":"1.0.0","mtu":"big"}"#), Code::InvalidConfig);
        assert_eq!(code(r#"{"name":"weave","cniVersion":"1.0.0","ipMasq":true}"#), Code::UnsupportedField);
    }

    #[test]
    fn routes_take_the_network_s_gateway_of_their_family_and_null_is_nothing() {
        let routes = config(
            r#","ipam":{"gateway":"10.32.0.1","routes":[{"dst":"10.0.0.1/8"},{"dst":"::/0"}]},"dns":null"#,
        );
        let routes = routes.unwrap().routes().unwrap().unwrap();
        assert_eq!(routes[0].destination.to_string(), "10.0.0.0/8");
        assert_eq!(routes[0].gateway, Some("10.32.0.1".parse().unwrap()));
        assert_eq!(routes[1].gateway, None);
        assert_eq!(config("").unwrap().routes().unwrap(), None);
    }
}

//! Which networks a container is to be on, and how that is said in a request to make one. Pure.

use std::net::IpAddr;

use serde_json::{Map, Value, json};
use weave_model::{AddressSpec, Subnet};

/// Variable of a container's environment that says which addresses it wants.
const WANTED: &str = "WEAVE_CIDR";

/// Where a container is to have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// None is the default subnet.
    pub(super) subnet: Option<Subnet>,
    /// None is any.
    pub(super) address: Option<IpAddr>,
}

/// A network and the address wanted there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Joining {
    pub(super) network: String,
    pub(super) address: Option<IpAddr>,
}

impl Joining {
    /// As the engine wants it.
    pub(super) fn endpoint(&self) -> Value {
        match self.address {
            Some(address @ IpAddr::V4(_)) => json!({ "IPAMConfig": { "IPv4Address": address.to_string() } }),
            Some(address @ IpAddr::V6(_)) => json!({ "IPAMConfig": { "IPv6Address": address.to_string() } }),
            None => json!({}),
        }
    }
}

/// Where a container is to be, as its description says; nowhere if it chose its network itself.
///
/// # Errors
/// When it asks for addresses in a way that makes no sense.
pub(super) fn places(container: &Value, no_default_ipalloc: bool) -> Result<Vec<Place>, String> {
    let mode = container["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
    if !matches!(mode, "" | "default") {
        return Ok(Vec::new());
    }
    let Some(wanted) = wanted(container) else {
        let anywhere = Place { subnet: None, address: None };
        return Ok(if no_default_ipalloc { Vec::new() } else { vec![anywhere] });
    };
    if wanted == "none" {
        return Ok(Vec::new());
    }
    wanted.split_whitespace().map(place).collect()
}

fn wanted(container: &Value) -> Option<&str> {
    let environment = container["Env"].as_array()?;
    let values = environment.iter().filter_map(|pair| pair.as_str()?.split_once('='));
    values.filter(|(name, _)| *name == WANTED).map(|(_, value)| value.trim()).next_back()
}

fn place(text: &str) -> Result<Place, String> {
    let spec: AddressSpec = text.parse().map_err(|error| format!("{WANTED}: {error}"))?;
    Ok(match spec {
        AddressSpec::Ip(interface) => {
            Place { subnet: Some(interface.subnet()), address: Some(interface.address()) }
        }
        AddressSpec::Net(subnet) => Place { subnet: Some(subnet), address: None },
        AddressSpec::NetDefault => Place { subnet: None, address: None },
    })
}

/// Puts a container, whose description is an object, on a network, and gives it `hostname` unless it has another.
pub(super) fn join(container: &mut Value, joining: &Joining, hostname: Option<String>) {
    if let Some(hostname) = hostname
        && container["Hostname"].as_str().unwrap_or_default().is_empty()
    {
        container["Hostname"] = hostname.into();
    }
    let host = object(&mut container["HostConfig"]);
    host.insert("NetworkMode".to_owned(), joining.network.clone().into());
    let config = object(&mut container["NetworkingConfig"]);
    let endpoints = object(config.entry("EndpointsConfig").or_insert(Value::Null));
    // What was said of the default network is meant for the one in its place.
    let said = endpoints.remove("default").filter(Value::is_object).unwrap_or_else(|| json!({}));
    let mut endpoint = said;
    if let Some(config) = joining.endpoint().get("IPAMConfig") {
        endpoint["IPAMConfig"] = config.clone();
    }
    endpoints.insert(joining.network.clone(), endpoint);
}

/// Lets a container ask our name server, unless it has others.
pub(super) fn ask(container: &mut Value, server: &str, domain: &str) {
    let host = object(&mut container["HostConfig"]);
    for (list, value) in [("Dns", server), ("DnsSearch", domain)] {
        let has_some = host.get(list).and_then(Value::as_array).is_some_and(|given| !given.is_empty());
        if !has_some {
            host.insert(list.to_owned(), json!([value]));
        }
    }
}

/// The value as an object; whatever else it was is replaced.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made an object above")
}

/// The container's name in the query of a request. Docker allows only characters in it that need no escape.
pub(super) fn name_in(query: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(name, _)| *name == "name")
        .map(|(_, value)| value.trim_start_matches('/').to_owned())
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(mode: &str, environment: &[&str]) -> Value {
        json!({ "Image": "box", "Env": environment, "HostConfig": { "NetworkMode": mode } })
    }

    fn count(mode: &str, environment: &[&str]) -> usize {
        places(&with(mode, environment), false).unwrap().len()
    }

    #[test]
    fn a_container_that_chose_its_network_is_left_alone() {
        for mode in ["host", "none", "bridge", "container:web", "blue"] {
            assert_eq!(count(mode, &["WEAVE_CIDR=net:default"]), 0, "{mode}");
        }
        assert_eq!(count("default", &[]), 1);
        assert_eq!(count("", &["A=b"]), 1);
        assert_eq!(count("default", &["WEAVE_CIDR=none"]), 0);
        assert!(places(&with("default", &[]), true).unwrap().is_empty());
        assert_eq!(places(&with("default", &["WEAVE_CIDR=net:default"]), true).unwrap().len(), 1);
        assert!(places(&json!({ "Image": "box" }), false).unwrap().len() == 1);
    }

    #[test]
    fn wanted_addresses_are_understood_as_everywhere_else() {
        let wanted = ["WEAVE_CIDR=10.40.1.7/24 net:10.40.2.0/24 net:default"];
        let places = places(&with("default", &wanted), false).unwrap();
        assert_eq!(places[0].address, Some("10.40.1.7".parse().unwrap()));
        assert_eq!(places[0].subnet, Some("10.40.1.0/24".parse().unwrap()));
        assert_eq!(places[1], Place { subnet: Some("10.40.2.0/24".parse().unwrap()), address: None });
        assert_eq!(places[2], Place { subnet: None, address: None });
        let wrong = super::places(&with("default", &["WEAVE_CIDR=10.40.1.7"]), false);
        assert!(wrong.unwrap_err().starts_with("WEAVE_CIDR: "));
    }

    #[test]
    fn joining_keeps_what_the_request_said_otherwise() {
        let mut container = with("default", &[]);
        container["NetworkingConfig"] = json!({ "EndpointsConfig": { "default": { "Aliases": ["www"] } } });
        let joining = Joining { network: "weave".into(), address: Some("10.40.1.7".parse().unwrap()) };
        join(&mut container, &joining, Some("web".to_owned()));
        ask(&mut container, "10.32.0.1", "weave.local");
        let wanted = json!({
            "Image": "box", "Env": [], "Hostname": "web",
            "HostConfig": { "NetworkMode": "weave", "Dns": ["10.32.0.1"], "DnsSearch": ["weave.local"] },
            "NetworkingConfig": { "EndpointsConfig": {
                "weave": { "Aliases": ["www"], "IPAMConfig": { "IPv4Address": "10.40.1.7" } },
            } },
        });
        assert_eq!(container, wanted);
        let mut own = json!({ "Hostname": "mine", "HostConfig": { "Dns": ["9.9.9.9"], "DnsSearch": [] } });
        join(&mut own, &Joining { network: "weave".into(), address: None }, Some("other".to_owned()));
        ask(&mut own, "10.32.0.1", "weave.local");
        assert_eq!(own["Hostname"], "mine");
        assert_eq!(own["HostConfig"]["Dns"], json!(["9.9.9.9"]));
    }

    #[test]
    fn a_description_that_makes_no_sense_is_no_panic() {
        for odd in [json!([]), json!(7), json!({ "EndpointsConfig": 1 }), json!(null)] {
            let mut container =
                json!({ "HostConfig": odd, "NetworkingConfig": odd, "Env": odd, "Hostname": odd });
            assert!(places(&container, false).is_ok());
            join(&mut container, &Joining { network: "weave".into(), address: None }, Some("web".to_owned()));
            ask(&mut container, "10.32.0.1", "weave.local");
            assert_eq!(container["HostConfig"]["NetworkMode"], "weave");
        }
    }

    #[test]
    fn the_name_is_found_in_the_query() {
        assert_eq!(name_in("platform=&name=web").as_deref(), Some("web"));
        assert_eq!(name_in("platform="), None);
    }
}

//! The description of a container with its addresses on our network where programs look that know of one network only.
//! Pure.

use std::net::IpAddr;

use serde_json::{Map, Value};
use weave_api::ContainerReport;
use weave_model::ContainerId;

/// Whoever may hold addresses for this container, likeliest first: the container itself, then its endpoints.
pub(super) fn holders(document: &Value) -> Vec<ContainerId> {
    let networks = document["NetworkSettings"]["Networks"].as_object();
    let endpoints = networks.into_iter().flat_map(Map::values).map(|network| &network["EndpointID"]);
    std::iter::once(&document["Id"]).chain(endpoints).filter_map(|id| id.as_str()?.parse().ok()).collect()
}

/// Puts the addresses of the first of `holders` that is `known` where the engine has those of its own bridge.
pub(super) fn rewrite(document: &mut Value, holders: &[ContainerId], known: &[ContainerReport]) {
    let held = holders.iter().find_map(|id| known.iter().find(|container| container.id == *id));
    let Some(held) = held else { return };
    let Some(settings) = document["NetworkSettings"].as_object_mut() else { return };
    let mut put = |name: &str, value: Value| settings.insert(name.to_owned(), value);
    if let Some(mac) = held.mac {
        put("MacAddress", mac.to_string().into());
    }
    let first = |is_v4: bool| held.addresses.iter().find(|interface| interface.address().is_ipv4() == is_v4);
    for (is_v4, address, prefix) in
        [(true, "IPAddress", "IPPrefixLen"), (false, "GlobalIPv6Address", "GlobalIPv6PrefixLen")]
    {
        if let Some(interface) = first(is_v4) {
            let text: IpAddr = interface.address();
            put(address, text.to_string().into());
            put(prefix, interface.0.prefix_len().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn known(id: &str, addresses: &[&str]) -> ContainerReport {
        ContainerReport {
            id: id.parse().unwrap(),
            mac: Some("02:00:00:00:00:07".parse().unwrap()),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn what_the_router_knows_stands_where_the_bridge_has_its_own() {
        let mut document = json!({ "Id": "c1", "NetworkSettings": {
            "IPAddress": "", "IPPrefixLen": 0, "Ports": {},
            "Networks": { "bridge": { "EndpointID": "" }, "weave": { "EndpointID": "e1" } },
        } });
        let holders = holders(&document);
        assert_eq!(holders, ["c1".parse().unwrap(), "e1".parse().unwrap()]);
        rewrite(&mut document, &holders, &[known("e1", &["10.32.0.7/12", "fd00::7/64"])]);
        let settings = &document["NetworkSettings"];
        assert_eq!((&settings["IPAddress"], &settings["IPPrefixLen"]), (&json!("10.32.0.7"), &json!(12)));
        assert_eq!(settings["GlobalIPv6Address"], "fd00::7");
        assert_eq!(settings["MacAddress"], "02:00:00:00:00:07");
        assert_eq!(settings["Ports"], json!({}), "the rest is left as it was");
    }

    #[test]
    fn what_nobody_knows_or_makes_no_sense_is_left_as_it_is() {
        for mut document in [
            json!({ "Id": "c1", "NetworkSettings": { "IPAddress": "172.17.0.2", "Networks": {} } }),
            json!({ "Id": 7, "NetworkSettings": [] }),
            json!([]),
            json!({ "Id": "c2", "NetworkSettings": null }),
        ] {
            let before = document.clone();
            let holders = holders(&document);
            rewrite(&mut document, &holders, &[known("c2", &["10.32.0.7/12"])]);
            assert_eq!(document, before);
        }
    }
}

//! CHECK: whether an attachment is as ADD made it, and every way in which it is not.

use weave_api::{ContainerRef, InspectRequest, InspectResponse};
use weave_model::Interface;

use crate::{CniError, CniResult, Code, Config, Environment, Verb, delegate::Delegate, router::Router};

/// Looks.
pub(crate) async fn run(router: &Router, environment: &Environment, config: &Config) -> Result<(), CniError> {
    let attachment = environment.attachment(config)?;
    let netns = environment.netns()?;
    let Some(previous) = config.previous()? else {
        return Err(CniError::new(Code::InvalidConfig, "CHECK needs prevResult"));
    };
    if previous.container_interface(&attachment.interface).is_none() {
        let message = format!("prevResult has no interface {} of a container", attachment.interface);
        return Err(CniError::new(Code::InvalidConfig, message));
    }
    if let Some(delegate) = Delegate::of(config, environment) {
        delegate.run(Verb::Check)?;
    }
    let request = InspectRequest {
        container: ContainerRef { id: Some(attachment.owner()?), ..ContainerRef::netns(netns) },
        interface: Some(attachment.interface.clone()),
    };
    let answer = router.call(&request).await?;
    let hairpin = config.fields.hairpin_mode.unwrap_or(true);
    let faults = faults(&previous, &answer, &attachment.interface, hairpin);
    if faults.is_empty() {
        return Ok(());
    }
    let message = format!("{} is not as it was made", attachment.interface);
    Err(CniError::new(Code::Changed, message).with_details(faults.join("; ")))
}

/// Every difference between what ADD answered and what there is.
fn faults(previous: &CniResult, now: &InspectResponse, interface: &str, hairpin: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if now.recorded.is_none() {
        faults.push("the router does not know this attachment".to_owned());
    }
    let Some((index, made)) = previous.container_interface(interface) else { return faults };
    let Some(found) = &now.found else {
        faults.push(format!("there is no interface {interface} of ours"));
        return faults;
    };
    if !made.mac.is_empty() && !made.mac.eq_ignore_ascii_case(&found.mac.to_string()) {
        faults.push(format!("its Ethernet address is {}, not {}", found.mac, made.mac));
    }
    if !found.up {
        faults.push("it is down".to_owned());
    }
    match &found.bridge {
        None => faults.push(format!("{} is on no bridge", found.host_interface)),
        // Other plugins add bridges of their own to a result; ours must be among them.
        Some(bridge) if !previous.interfaces.iter().any(|i| i.name == *bridge && i.sandbox.is_empty()) => {
            faults.push(format!("{} is on bridge {bridge}", found.host_interface));
        }
        Some(_) => {}
    }
    if found.hairpin != hairpin {
        faults.push(format!("hairpin mode is {}", if found.hairpin { "on" } else { "off" }));
    }
    let own = previous.ips.iter().filter(|ip| ip.interface == Some(index));
    let own: Vec<Interface> = own.map(|ip| Interface(ip.address)).collect();
    let gone = own.iter().filter(|address| !found.addresses.contains(address));
    faults.extend(gone.map(|address| format!("it lacks the address {address}")));
    for route in &previous.routes {
        let Some(gateway) = route.gw else { continue };
        let is_here = own.iter().any(|address| address.subnet().contains(gateway));
        let exists = |r: &weave_api::Route| r.destination.net() == route.dst && r.gateway == Some(gateway);
        if is_here && !found.routes.iter().any(exists) {
            faults.push(format!("it lacks the route to {} by {gateway}", route.dst));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weave_api::FoundInterface;

    use super::*;

    fn made() -> CniResult {
        CniResult::parse(&json!({
            "interfaces": [
                {"name": "weave", "mac": "02:00:00:00:00:01"},
                {"name": "vethwepl1", "mac": "02:00:00:00:00:02"},
                {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/c1"},
            ],
            "ips": [{"address": "10.32.0.7/12", "gateway": "10.32.0.1", "interface": 2}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.32.0.1"}],
        }))
        .unwrap()
    }

    fn as_made() -> InspectResponse {
        let found = FoundInterface {
            mac: "02:00:00:00:00:03".parse().unwrap(),
            mtu: 1376,
            up: true,
            addresses: vec!["10.32.0.7/12".parse().unwrap()],
            routes: vec![weave_api::Route {
                destination: "0.0.0.0/0".parse().unwrap(),
                gateway: Some("10.32.0.1".parse().unwrap()),
            }],
            host_interface: "vethwepl1".to_owned(),
            bridge: Some("weave".to_owned()),
            hairpin: true,
        };
        InspectResponse { recorded: Some(found.addresses.clone()), found: Some(found) }
    }

    #[test]
    fn an_attachment_as_it_was_made_has_no_faults() {
        assert_eq!(faults(&made(), &as_made(), "eth0", true), Vec::<String>::new());
    }

    #[test]
    fn every_change_is_a_fault_of_its_own() {
        let with = |change: fn(&mut FoundInterface)| {
            let mut now = as_made();
            change(now.found.as_mut().unwrap());
            faults(&made(), &now, "eth0", true)
        };
        type Change = (fn(&mut FoundInterface), &'static str);
        let changes: [Change; 7] = [
            (|found| found.up = false, "down"),
            (|found| found.addresses.clear(), "10.32.0.7/12"),
            (|found| found.routes.clear(), "0.0.0.0/0"),
            (|found| found.bridge = None, "no bridge"),
            (|found| found.bridge = Some("br0".to_owned()), "br0"),
            (|found| found.hairpin = false, "hairpin"),
            (|found| found.mac.0[5] = 9, "02:00:00:00:00:09"),
        ];
        for (change, word) in changes {
            let faults = with(change);
            assert!(faults.len() == 1 && faults[0].contains(word), "{word}: {faults:?}");
        }
        let unknown = InspectResponse { recorded: None, found: None };
        assert_eq!(faults(&made(), &unknown, "eth0", true).len(), 2);
    }
}

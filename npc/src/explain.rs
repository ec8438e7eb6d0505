//! Why a connection passes or does not, for people.

use std::{fmt, net::IpAddr, str::FromStr};

use anyhow::{Context as _, bail};
use weave_policy::{Direction, Flow, PodId, Reason, Scope, Traffic, World};

use crate::blocked::{Blocked, direction_name};

/// An end of a connection, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// By its address.
    Address(IpAddr),
    /// A pod.
    Pod(PodId),
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Pod(PodId::new(namespace, name)))
            }
            Some(_) => bail!("`{text}` is no NAMESPACE/NAME"),
            None => {
                let address = text.parse();
                Ok(Self::Address(
                    address.with_context(|| format!("`{text}` is no address and no NAMESPACE/NAME"))?,
                ))
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Pod(pod) => pod.fmt(f),
        }
    }
}

impl Place {
    fn addresses(&self, world: &World) -> anyhow::Result<Vec<IpAddr>> {
        match self {
            Self::Address(address) => Ok(vec![*address]),
            Self::Pod(id) => {
                let pod = world.pods.get(id).with_context(|| format!("no pod {id} is known"))?;
                let own = pod.own_addresses();
                if own.is_empty() {
                    bail!("pod {id} has no address of its own: policies are not about it");
                }
                Ok(own.to_vec())
            }
        }
    }
}

/// What decides about a connection, in every family that both ends have.
pub(crate) fn explanations(
    world: &World,
    scope: &Scope,
    ends: &[Place; 2],
    traffic: Traffic,
) -> anyhow::Result<String> {
    let [from, to] = [ends[0].addresses(world)?, ends[1].addresses(world)?];
    let flows: Vec<Flow> = [false, true]
        .into_iter()
        .filter_map(|is_v6| {
            let of_family = |all: &[IpAddr]| all.iter().find(|address| address.is_ipv6() == is_v6).copied();
            Some(Flow { source: of_family(&from)?, destination: of_family(&to)?, traffic })
        })
        .collect();
    if flows.is_empty() {
        bail!("{} and {} have no address family in common", ends[0], ends[1]);
    }
    Ok(flows.iter().map(|flow| explanation(world, scope, flow)).collect())
}

/// A line for the log about a connection that was blocked; `awaited` are the kinds of objects that are not all known yet.
pub(crate) fn blocked_line(world: &World, scope: &Scope, awaited: Option<&str>, blocked: &Blocked) -> String {
    let name = |address| world.owner(address).map_or_else(|| "no pod".to_owned(), |pod| pod.id.to_string());
    let (from, to) = (name(blocked.flow.source), name(blocked.flow.destination));
    let why = match world.explain(&blocked.flow, blocked.direction, scope) {
        Reason::DeniedBy(policies) => {
            let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
            format!("selected by {}, none allows it", names.join(", "))
        }
        // Answers of a connection that is judged anew, or news since; or what an earlier daemon left is in force.
        Reason::NotIsolated | Reason::AllowedBy(_) => awaited
            .map_or_else(|| "policies have changed".to_owned(), |kinds| format!("{kinds} are not known yet")),
    };
    format!("{blocked} ({from} to {to}) blocked at {}: {why}", direction_name(blocked.direction))
}

/// What decides about a connection, for people.
fn explanation(world: &World, scope: &Scope, flow: &Flow) -> String {
    let list =
        |ids: &[weave_policy::PolicyId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let side = |direction| match world.explain(flow, direction, scope) {
        Reason::NotIsolated => "passes: no policy of this host selects the pod".to_owned(),
        Reason::AllowedBy(policies) => format!("passes: allowed by {}", list(&policies)),
        Reason::DeniedBy(policies) => format!("dropped: selected by {}, none allows it", list(&policies)),
    };
    let name =
        |address| world.owner(address).map_or_else(|| "no pod".to_owned(), |pod| format!("pod {}", pod.id));
    format!(
        "from {} ({}): egress {}\nto {} ({}): ingress {}\n",
        flow.source,
        name(flow.source),
        side(Direction::Egress),
        flow.destination,
        name(flow.destination),
        side(Direction::Ingress),
    )
}

#[cfg(test)]
mod tests {
    use weave_hostnet::nft::LoggedPacket;
    use weave_policy::{Change, Pod, PodId, Policy, PolicyId, Selector};

    use super::*;

    #[test]
    fn a_blocked_connection_is_told_by_the_names_of_pods_and_policies() {
        let mut world = World::default();
        for (name, last) in [("web", 1), ("job", 2)] {
            let addresses = vec![[10, 0, 0, last].into()];
            world.apply(Change::Pod(Pod { addresses, ..Pod::new(PodId::new("x", name), "here") }));
        }
        let id = PolicyId::new("x", "deny");
        world.apply(Change::Policy(Policy::with_types(id, Selector::everything(), None, vec![], vec![])));
        let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
        bytes.extend([0x9c, 0x40, 0, 80]);
        let told = |prefix: &str, awaited| {
            let packet = LoggedPacket { prefix: prefix.to_owned(), bytes: bytes.clone() };
            blocked_line(&world, &Scope::Everything, awaited, &Blocked::of(&packet).unwrap())
        };
        let line = |prefix: &str| told(prefix, None);
        assert_eq!(
            line("ingress"),
            "TCP connection from 10.0.0.2:40000 to 10.0.0.1:80 (x/job to x/web) blocked at ingress: \
             selected by x/deny, none allows it"
        );
        assert!(line("egress").ends_with("blocked at egress: policies have changed"));
        assert!(told("egress", Some("pods")).ends_with("blocked at egress: pods are not known yet"));
    }

    #[test]
    fn pods_are_asked_about_by_name_in_every_family_that_they_share() {
        let mut world = World::default();
        let pods: [(&str, &[&str]); 4] = [
            ("both", &["10.0.0.1", "fd00::1"]),
            ("two", &["fd00::2", "10.0.0.2"]),
            ("old", &["10.0.0.3"]),
            ("none", &[]),
        ];
        for (name, addresses) in pods {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            world.apply(Change::Pod(Pod { addresses, ..Pod::new(PodId::new("x", name), "here") }));
        }
        let ask = |from: &str, to: &str| -> anyhow::Result<String> {
            explanations(&world, &Scope::Everything, &[from.parse()?, to.parse()?], Traffic::Other(1))
        };
        let both = ask("x/both", "x/two").unwrap();
        assert_eq!(both.lines().count(), 4, "{both}");
        assert!(
            both.starts_with("from 10.0.0.1 (pod x/both)") && both.contains("to fd00::2 (pod x/two)"),
            "{both}"
        );
        assert_eq!(ask("x/both", "x/old").unwrap().lines().count(), 2);
        assert_eq!(ask("10.0.0.9", "x/old").unwrap().lines().count(), 2);
        let refused = |from: &str, to: &str| ask(from, to).unwrap_err().to_string();
        assert_eq!(refused("x/nobody", "x/two"), "no pod x/nobody is known");
        assert_eq!(refused("fd00::9", "x/old"), "fd00::9 and x/old have no address family in common");
        assert!(refused("x/none", "x/old").contains("no address of its own"));
        assert_eq!(refused("x/a/b", "x/old"), "`x/a/b` is no NAMESPACE/NAME");
        assert_eq!(refused("web", "x/old"), "`web` is no address and no NAMESPACE/NAME");
    }
}

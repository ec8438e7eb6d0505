//! Why a connection passes or does not, for people.

use weave_policy::{Direction, Flow, Reason, Scope, World};

use crate::blocked::{Blocked, direction_name};

/// A line for the log about a connection that was blocked.
pub(crate) fn blocked_line(world: &World, scope: &Scope, blocked: &Blocked) -> String {
    let name = |address| world.owner(address).map_or_else(|| "no pod".to_owned(), |pod| pod.id.to_string());
    let (from, to) = (name(blocked.flow.source), name(blocked.flow.destination));
    let why = match world.explain(&blocked.flow, blocked.direction, scope) {
        Reason::DeniedBy(policies) => {
            let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
            format!("selected by {}, none allows it", names.join(", "))
        }
        // Answers of a connection that is judged anew, or news since.
        Reason::NotIsolated | Reason::AllowedBy(_) => "policies have changed".to_owned(),
    };
    format!("{blocked} ({from} to {to}) blocked at {}: {why}", direction_name(blocked.direction))
}

/// What decides about a connection, for people.
pub(crate) fn explanation(world: &World, scope: &Scope, flow: &Flow) -> String {
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
        let line = |prefix: &str| {
            let packet = LoggedPacket { prefix: prefix.to_owned(), bytes: bytes.clone() };
            blocked_line(&world, &Scope::Everything, &Blocked::of(&packet).unwrap())
        };
        assert_eq!(
            line("ingress"),
            "TCP connection from 10.0.0.2:40000 to 10.0.0.1:80 (x/job to x/web) blocked at ingress: \
             selected by x/deny, none allows it"
        );
        assert!(line("egress").ends_with("blocked at egress: policies have changed"));
    }
}

//! Why a connection passes or does not, for people.

use weave_policy::{Direction, Flow, Reason, Scope, World};

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

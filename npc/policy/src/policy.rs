//! Policies as plain values, with every default of the API resolved.

use std::fmt;

use crate::{Block, Protocol, Selector};

/// Name of a policy, unique at any time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyId {
    /// Its namespace: the one whose pods it is about.
    pub namespace: String,
    /// Its name there. Means nothing else (NP-04).
    pub name: String,
}

impl PolicyId {
    /// A policy's name from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether a connection comes to a pod or goes out from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];
}

/// What some pods of a namespace may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name, and the namespace of its subjects.
    pub id: PolicyId,
    /// Which pods of the namespace.
    pub subject: Selector,
    /// What may come to them; `None` says nothing, an empty list allows nothing.
    pub ingress: Option<Vec<Rule>>,
    /// What may go out from them; `None` says nothing, an empty list allows nothing.
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    /// The rules of one direction.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Resolves `policyTypes` (NP-10 to NP-14): `types` as written, `None` where it was left out. A list of rules that
    /// is missing, null or empty is the same.
    #[must_use]
    pub fn with_types(
        id: PolicyId,
        subject: Selector,
        types: Option<&[Direction]>,
        ingress: Vec<Rule>,
        egress: Vec<Rule>,
    ) -> Self {
        let by_default = if egress.is_empty() { &[Direction::Ingress][..] } else { &Direction::ALL };
        let types = types.filter(|types| !types.is_empty()).unwrap_or(by_default);
        let speaks = |direction, rules| types.contains(&direction).then_some(rules);
        Self {
            id,
            subject,
            ingress: speaks(Direction::Ingress, ingress),
            egress: speaks(Direction::Egress, egress),
        }
    }
}

/// Peers AND ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Any of these; empty is everybody, inside the cluster and outside (NP-20).
    pub peers: Vec<Peer>,
    /// Any of these; empty is all protocols and ports (NP-50).
    pub ports: Vec<Port>,
}

/// Who may be at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Pods, never addresses outside, nodes, or pods on the host's network (NP-25, NP-73).
    Pods {
        /// In namespaces with such labels; `None` is the namespace of the policy (NP-22).
        namespaces: Option<Selector>,
        /// Pods with such labels.
        pods: Selector,
    },
    /// Any address in a block, whoever has it (NP-27).
    Block(Block),
}

/// Ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// TCP unless said otherwise (NP-51).
    pub protocol: Protocol,
    /// Which of them.
    pub which: WhichPort,
}

/// Which ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhichPort {
    /// All of them.
    Any,
    /// From the first to the last, both included; one port is a range too.
    Numbers {
        /// The lowest.
        first: u16,
        /// The highest.
        last: u16,
    },
    /// The port that the destination pod declares by this name for the protocol, if any (NP-55).
    Named(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NP-10, NP-12 to NP-14, E01 and E02: which directions a policy speaks about.
    #[test]
    fn policy_types_default_to_ingress_and_to_egress_only_when_it_has_rules() {
        let policy = |types: Option<&[Direction]>, ingress: usize, egress: usize| {
            let rules = |n| vec![Rule::default(); n];
            let id = PolicyId::new("x", "p");
            let policy = Policy::with_types(id, Selector::everything(), types, rules(ingress), rules(egress));
            (policy.ingress.map(|r| r.len()), policy.egress.map(|r| r.len()))
        };
        use Direction::{Egress, Ingress};
        assert_eq!(policy(None, 0, 0), (Some(0), None));
        assert_eq!(policy(None, 1, 0), (Some(1), None));
        assert_eq!(policy(None, 0, 1), (Some(0), Some(1)));
        assert_eq!(policy(None, 2, 1), (Some(2), Some(1)));
        assert_eq!(policy(Some(&[Egress]), 1, 0), (None, Some(0)));
        assert_eq!(policy(Some(&[Ingress]), 0, 1), (Some(0), None));
        assert_eq!(policy(Some(&[Ingress, Egress]), 0, 0), (Some(0), Some(0)));
        assert_eq!(policy(Some(&[]), 0, 1), (Some(0), Some(1)));
    }
}

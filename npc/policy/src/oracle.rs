//! What the specification says about one connection, read off the objects: slow, and obviously right.
//!
//! The compiler and the kernel are tested against this, and `explain` answers operators with it. It shares nothing with
//! the compiler but the objects, and what a selector and a block contain.

use std::net::IpAddr;

use crate::{Direction, Peer, Pod, PodId, Policy, PolicyId, Port, Protocol, Rule, Scope, WhichPort, World};

/// A connection: addresses and port as the pods at its ends see them, after translation of the destination and before
/// that of the source (NP-53).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Who opened it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// What it carries.
    pub traffic: Traffic,
}

/// Protocol, and port where the protocol has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// To a port.
    To(Protocol, u16),
    /// A protocol without ports that we know of, by number: ICMP and all others.
    Other(u8),
}

/// Whether a connection may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing forbids it.
    Allowed,
    /// The policies of a pod at one end do not allow it.
    Denied(Direction),
}

/// What decides about one direction of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No policy of this direction selects the pod, or there is no pod of ours at this end.
    NotIsolated,
    /// These policies have a rule that allows it.
    AllowedBy(Vec<PolicyId>),
    /// These policies select the pod, and none allows it.
    DeniedBy(Vec<PolicyId>),
}

impl World {
    /// Whether `flow` may pass the pods of `scope`. Outside of the scope nobody is isolated: other nodes see to that.
    #[must_use]
    pub fn verdict(&self, flow: &Flow, scope: &Scope) -> Verdict {
        // NP-05: both ends must allow it.
        let denied =
            |direction: &Direction| matches!(self.explain(flow, *direction, scope), Reason::DeniedBy(_));
        [Direction::Egress, Direction::Ingress]
            .into_iter()
            .find(denied)
            .map_or(Verdict::Allowed, Verdict::Denied)
    }

    /// What decides about one direction of `flow`.
    #[must_use]
    pub fn explain(&self, flow: &Flow, direction: Direction, scope: &Scope) -> Reason {
        let subject = match direction {
            Direction::Ingress => flow.destination,
            Direction::Egress => flow.source,
        };
        let Some(subject) = self.owner(subject).filter(|pod| scope.contains(&pod.node)) else {
            return Reason::NotIsolated;
        };
        let selects = |policy: &&Policy| {
            policy.id.namespace == subject.id.namespace
                && policy.subject.matches(&subject.labels)
                && policy.rules(direction).is_some()
        };
        let policies: Vec<&Policy> = self.policies.values().filter(selects).collect();
        if policies.is_empty() {
            return Reason::NotIsolated;
        }
        let allows = |policy: &&Policy| {
            let rules = policy.rules(direction).unwrap_or_default();
            rules.iter().any(|rule| self.rule_allows(rule, policy, direction, flow))
        };
        let names = |policies: Vec<&Policy>| policies.iter().map(|policy| policy.id.clone()).collect();
        let allowing: Vec<&Policy> = policies.iter().copied().filter(allows).collect();
        if allowing.is_empty() {
            Reason::DeniedBy(names(policies))
        } else {
            Reason::AllowedBy(names(allowing))
        }
    }

    /// The pod that has this address: the youngest, if several claim it (E18).
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Pod> {
        let claims = self.pods.values().filter(|pod| pod.own_addresses().contains(&address));
        claims.max_by_key(|pod| (pod.created, &pod.id))
    }

    fn rule_allows(&self, rule: &Rule, policy: &Policy, direction: Direction, flow: &Flow) -> bool {
        let other = match direction {
            Direction::Ingress => flow.source,
            Direction::Egress => flow.destination,
        };
        let destination = self.owner(flow.destination);
        let is_peer = |peer: &Peer| self.is_peer(peer, policy, other);
        let peer_fits = rule.peers.is_empty() || rule.peers.iter().any(is_peer);
        // NP-55: a name asks the pod at the destination. As a member of a block an address is no pod.
        let by_block = !rule.peers.is_empty()
            && !rule.peers.iter().any(|peer| matches!(peer, Peer::Pods { .. }) && is_peer(peer));
        let destination = destination.filter(|_| direction == Direction::Ingress || !by_block);
        let port_fits = |port: &Port| port_fits(port, destination, flow.traffic);
        peer_fits && (rule.ports.is_empty() || rule.ports.iter().any(port_fits))
    }

    fn is_peer(&self, peer: &Peer, policy: &Policy, address: IpAddr) -> bool {
        match peer {
            Peer::Block(block) => block.contains(address),
            Peer::Pods { namespaces, pods } => self.owner(address).is_some_and(|pod| {
                let namespace_fits = match namespaces {
                    None => pod.id.namespace == policy.id.namespace,
                    Some(selector) => {
                        self.labels_of(&pod.id.namespace).is_some_and(|labels| selector.matches(labels))
                    }
                };
                namespace_fits && pods.matches(&pod.labels)
            }),
        }
    }

    /// A flow from pod to pod, by their first addresses of the same family.
    #[must_use]
    pub fn flow_between(&self, source: &PodId, destination: &PodId, traffic: Traffic) -> Option<Flow> {
        let (source, destination) = (self.pods.get(source)?, self.pods.get(destination)?);
        source.addresses.iter().find_map(|from| {
            let to = destination.addresses.iter().find(|to| to.is_ipv4() == from.is_ipv4())?;
            Some(Flow { source: *from, destination: *to, traffic })
        })
    }
}

fn port_fits(port: &Port, destination: Option<&Pod>, traffic: Traffic) -> bool {
    let Traffic::To(protocol, number) = traffic else { return false };
    protocol == port.protocol
        && match &port.which {
            WhichPort::Any => true,
            WhichPort::Numbers { first, last } => (*first..=*last).contains(&number),
            WhichPort::Named(name) => destination.is_some_and(|pod| {
                let declares = |p: &crate::ContainerPort| {
                    p.name == *name && p.protocol == protocol && p.number == number
                };
                pod.ports.iter().any(declares)
            }),
        }
}

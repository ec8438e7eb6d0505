//! A cluster, and what the kernel would hold for it.

use std::net::IpAddr;

use weave_policy::{Change, Compiler, Delta, Facts, Flow, Pod, Policy, Scope, Traffic, Verdict, World};

use crate::words::{id, world};

/// A node outside, and an address outside of the cluster.
pub(crate) const NODE: &str = "192.168.0.1";
pub(crate) const OUTSIDE: &str = "198.51.100.7";

/// Objects, and what the kernel would hold for them.
pub(crate) struct Cluster {
    pub(crate) world: World,
    compiler: Compiler,
    facts: Facts,
    scope: Scope,
}

impl Cluster {
    /// The objects of [`world`].
    pub(crate) fn new() -> Self {
        let scope = Scope::Node("here".to_owned());
        let compiler = Compiler::new(scope.clone());
        let mut cluster = Self { world: World::default(), compiler, facts: Facts::default(), scope };
        World::default().changes_to(&world()).into_iter().for_each(|change| _ = cluster.change(change));
        cluster
    }

    /// A cluster with these policies.
    pub(crate) fn with(policies: impl IntoIterator<Item = Policy>) -> Self {
        let mut cluster = Self::new();
        policies.into_iter().for_each(|policy| _ = cluster.change(Change::Policy(policy)));
        cluster
    }

    /// Makes a change, and returns what it changed in the kernel.
    pub(crate) fn change(&mut self, change: Change) -> Delta {
        self.world.apply(change.clone());
        self.compiler.handle_change(change);
        let delta = self.compiler.poll_delta().unwrap_or_default();
        self.facts.apply(&delta).unwrap();
        delta
    }

    /// Changes one pod.
    pub(crate) fn edit(&mut self, pod: &str, edit: impl FnOnce(&mut Pod)) -> Delta {
        let mut pod = self.world.pods[&id(pod)].clone();
        edit(&mut pod);
        self.change(Change::Pod(pod))
    }

    /// Whether a connection may be opened. Ends are pods as `y/b`, or addresses; between pods both families must agree.
    pub(crate) fn allows(&self, source: &str, destination: &str, traffic: Traffic) -> bool {
        let (from, to) = (self.addresses(source), self.addresses(destination));
        let pairs = from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b)));
        let flows = pairs.filter(|(a, b)| a.is_ipv4() == b.is_ipv4()).map(|(source, destination)| Flow {
            source,
            destination,
            traffic,
        });
        let verdicts: Vec<bool> = flows.map(|flow| self.verdict(&flow)).collect();
        assert!(
            verdicts.windows(2).all(|pair| pair[0] == pair[1]),
            "{source} to {destination} differs by family"
        );
        *verdicts.first().expect("addresses of one family")
    }

    fn verdict(&self, flow: &Flow) -> bool {
        let verdict = self.world.verdict(flow, &self.scope);
        assert_eq!(self.facts.verdict(flow), verdict, "{flow:?}");
        verdict == Verdict::Allowed
    }

    fn addresses(&self, end: &str) -> Vec<IpAddr> {
        end.parse().map_or_else(|_| self.world.pods[&id(end)].addresses.clone(), |address| vec![address])
    }

    /// The sources, of pods and outside, from which this can be reached.
    pub(crate) fn sources(&self, destination: &str, traffic: Traffic) -> String {
        let others = EVERYBODY.iter().filter(|source| **source != destination);
        others
            .filter(|source| self.allows(source, destination, traffic))
            .copied()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The destinations, of pods and outside, that can be reached from here.
    pub(crate) fn destinations(&self, source: &str, traffic: Traffic) -> String {
        let others = EVERYBODY.iter().filter(|destination| **destination != source);
        others.filter(|d| self.allows(source, d, traffic)).copied().collect::<Vec<_>>().join(" ")
    }
}

/// All pods, a node, and somebody outside.
pub(crate) const EVERYBODY: [&str; 11] =
    ["x/a", "x/b", "x/c", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c", NODE, OUTSIDE];

/// Everybody but one.
pub(crate) fn all_but(one: &str) -> String {
    EVERYBODY.into_iter().filter(|end| *end != one).collect::<Vec<_>>().join(" ")
}

//! Pods that are about to be started: whoever gives a pod its addresses may say so before it can send anything.
//!
//! The address of a pod becomes known to everybody only some time after the pod has begun to run. In that time nobody
//! would isolate it. If it was announced, it is isolated from its first packet on: by the policies for its labels if its
//! object is known already, as it mostly is; and otherwise, where any policy might select it, from everybody.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use weave_policy::{Direction, Pod, PodId, Policy, PolicyId, Selector, World};

/// How many pods may be expected at a time.
const MOST: usize = 4096;
/// How many addresses a pod may have.
const MOST_ADDRESSES: usize = 8;
/// How long it is waited for the object of a pod, or for its addresses there.
const PATIENCE: Duration = Duration::from_secs(300);
/// The namespace of stand-ins: no object can be in it.
const NOWHERE: &str = "";

/// The pods that are expected.
#[derive(Debug, Default)]
pub struct Expected {
    entries: BTreeMap<PodId, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    addresses: Vec<IpAddr>,
    since: Instant,
}

/// What an object says about an expected pod.
enum Word<'a> {
    /// It has not been started yet, as far as the object knows.
    NotStarted(&'a Pod),
    /// It has the addresses.
    Fulfilled,
    /// Nothing, or something about an earlier pod of this name.
    Nothing,
}

impl Expected {
    /// Isolates the stand-ins for pods of which nothing is known.
    #[must_use]
    pub fn policy() -> Policy {
        let id = PolicyId::new(NOWHERE, "not-known-yet");
        Policy::with_types(id, Selector::everything(), Some(&Direction::ALL), Vec::new(), Vec::new())
    }

    /// A pod is about to have these addresses.
    ///
    /// # Errors
    /// When there are too many.
    pub fn expect(&mut self, pod: PodId, addresses: Vec<IpAddr>, now: Instant) -> anyhow::Result<()> {
        ensure!(addresses.len() <= MOST_ADDRESSES, "no pod has more than {MOST_ADDRESSES} addresses");
        ensure!(
            self.entries.len() < MOST || self.entries.contains_key(&pod),
            "{MOST} pods are expected and not known yet"
        );
        // An address has one owner: the last.
        for entry in self.entries.values_mut() {
            entry.addresses.retain(|address| !addresses.contains(address));
        }
        self.entries.insert(pod, Entry { addresses, since: now });
        self.entries.retain(|_, entry| !entry.addresses.is_empty());
        Ok(())
    }

    /// Whether nobody is expected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets the pods that came, and those that probably never will. Returns whether there were any.
    pub fn forget(&mut self, world: &World, now: Instant) -> bool {
        let before = self.entries.len();
        self.entries.retain(|id, entry| match word(world, id, &entry.addresses) {
            Word::Fulfilled => false,
            Word::NotStarted(_) => true,
            Word::Nothing => now.duration_since(entry.since) < PATIENCE,
        });
        self.entries.len() < before
    }

    /// Pods that are there in place of, and beside, those of `world`.
    #[must_use]
    pub fn overlay(&self, world: &World) -> BTreeMap<PodId, Pod> {
        let pod = |(id, entry): (&PodId, &Entry)| {
            let addresses = entry.addresses.clone();
            // Whoever else claims the addresses had them before.
            let created = u64::MAX;
            match word(world, id, &addresses) {
                Word::Fulfilled => None,
                Word::NotStarted(pod) => Some(Pod { addresses, created, ..pod.clone() }),
                Word::Nothing if may_be_selected(world, id) => {
                    let stand_in = Pod::new(PodId::new(NOWHERE, id.to_string()), "");
                    Some(Pod { addresses, created, ..stand_in })
                }
                Word::Nothing => None,
            }
        };
        self.entries.iter().filter_map(pod).map(|pod| (pod.id.clone(), pod)).collect()
    }

    /// To be kept for the next start: a line for each pod.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (id, entry) in &self.entries {
            let addresses: Vec<String> = entry.addresses.iter().map(ToString::to_string).collect();
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "{id} {}", addresses.join(" "));
        }
        text
    }

    /// What [`to_text`](Self::to_text) gave; the waiting begins anew.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_text(text: &str, now: Instant) -> anyhow::Result<Self> {
        let mut expected = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (pod, addresses) = parse(&words)?;
            expected.expect(pod, addresses, now)?;
        }
        Ok(expected)
    }
}

/// Reads `NAMESPACE/NAME ADDRESS...`.
///
/// # Errors
/// When that is not what is there.
pub fn parse(words: &[&str]) -> anyhow::Result<(PodId, Vec<IpAddr>)> {
    let [pod, addresses @ ..] = words else { bail!("no pod") };
    let (namespace, name) = pod.split_once('/').with_context(|| format!("`{pod}` is no namespace/name"))?;
    ensure!(!namespace.is_empty() && !name.is_empty(), "`{pod}` is no namespace/name");
    let address = |text: &&str| text.parse().with_context(|| format!("`{text}` is no address"));
    let addresses = addresses.iter().map(address).collect::<anyhow::Result<Vec<IpAddr>>>()?;
    ensure!(!addresses.is_empty(), "pod {pod} without an address");
    Ok((PodId::new(namespace, name), addresses))
}

fn word<'a>(world: &'a World, id: &PodId, addresses: &[IpAddr]) -> Word<'a> {
    match world.pods.get(id) {
        Some(pod) if addresses.iter().all(|address| pod.own_addresses().contains(address)) => Word::Fulfilled,
        Some(pod) if pod.addresses.is_empty() && !pod.is_finished && !pod.is_host_network => {
            Word::NotStarted(pod)
        }
        // The object of an earlier pod of this name says nothing about the labels of this one.
        Some(_) | None => Word::Nothing,
    }
}

fn may_be_selected(world: &World, pod: &PodId) -> bool {
    let first = PolicyId::new(pod.namespace.clone(), "");
    world.policies.range(first..).next().is_some_and(|(id, _)| id.namespace == pod.namespace)
}

#[cfg(test)]
mod tests {
    use weave_policy::{Change, Flow, Labels, Protocol, Scope, Traffic, Verdict};

    use super::*;
    use crate::clock;

    const ADDRESS: [u8; 4] = [10, 0, 0, 1];

    fn world(policies: usize) -> World {
        let mut world = World::default();
        for n in 0..policies {
            let id = PolicyId::new("x", format!("p{n}"));
            let subject = Selector::from_iter([weave_policy::Requirement::equals("app", "web")]);
            let policy = Policy::with_types(id, subject, None, vec![weave_policy::Rule::default()], vec![]);
            world.apply(Change::Policy(policy));
        }
        world
    }

    fn pod(addresses: &[[u8; 4]]) -> Pod {
        Pod {
            labels: Labels::from([("app".to_owned(), "web".to_owned())]),
            addresses: addresses.iter().map(|octets| IpAddr::from(*octets)).collect(),
            ..Pod::new(PodId::new("x", "a"), "here")
        }
    }

    fn expected() -> Expected {
        let mut expected = Expected::default();
        expected.expect(PodId::new("x", "a"), vec![IpAddr::from(ADDRESS)], clock::now()).unwrap();
        expected
    }

    /// What happens to a connection to the expected address.
    fn verdict(world: &World) -> Verdict {
        let mut world = world.clone();
        world.apply(Change::Policy(Expected::policy()));
        expected().overlay(&world).into_values().for_each(|pod| world.apply(Change::Pod(pod)));
        let flow = Flow {
            source: IpAddr::from([192, 0, 2, 1]),
            destination: IpAddr::from(ADDRESS),
            traffic: Traffic::To(Protocol::Tcp, 80),
        };
        world.verdict(&flow, &Scope::Node("here".to_owned()))
    }

    #[test]
    fn an_unknown_pod_is_closed_where_a_policy_may_select_it() {
        let denied = Verdict::Denied(Direction::Ingress);
        assert_eq!(verdict(&world(1)), denied);
        assert_eq!(verdict(&World::default()), Verdict::Allowed, "there is nothing that could isolate it");
        // Known by its labels, before its object has the address.
        let mut known = world(1);
        known.apply(Change::Pod(pod(&[])));
        assert_eq!(verdict(&known), Verdict::Allowed);
        let mut strict = Policy::clone(&known.policies.values().next().unwrap().clone());
        strict.ingress = Some(vec![]);
        known.apply(Change::Policy(strict));
        assert_eq!(verdict(&known), denied);
        // The object of an earlier pod, or of somebody who had the address before.
        let mut earlier = world(1);
        earlier.apply(Change::Pod(pod(&[[10, 0, 0, 9]])));
        assert_eq!(verdict(&earlier), denied);
        let mut before = world(1);
        before.apply(Change::Pod(Pod { id: PodId::new("x", "b"), created: 9, ..pod(&[ADDRESS]) }));
        assert_eq!(verdict(&before), denied);
    }

    #[test]
    fn who_came_is_forgotten_and_so_is_who_never_comes() {
        let now = clock::now();
        let (mut some, mut world) = (expected(), world(1));
        assert!(!some.forget(&world, now));
        world.apply(Change::Pod(pod(&[])));
        assert!(!some.forget(&world, now + 2 * PATIENCE), "its object says that it is still to come");
        world.apply(Change::Pod(pod(&[[10, 0, 0, 9], ADDRESS])));
        assert!(some.overlay(&world).is_empty());
        assert!(some.forget(&world, now) && some.is_empty());
        assert!(expected().forget(&World::default(), now + 2 * PATIENCE));
    }

    #[test]
    fn expectations_survive_a_restart_and_an_address_has_one_owner() {
        let mut some = expected();
        let again = Expected::from_text(&some.to_text(), clock::now()).unwrap();
        assert_eq!(again.to_text(), "x/a 10.0.0.1\n");
        some.expect(PodId::new("x", "b"), vec![IpAddr::from(ADDRESS)], clock::now()).unwrap();
        assert_eq!(some.to_text(), "x/b 10.0.0.1\n");
        for nonsense in ["x", "x/a", "/a 10.0.0.1", "x/a 10.0.0.256"] {
            assert!(Expected::from_text(nonsense, clock::now()).is_err(), "{nonsense}");
        }
        let many = (0..MOST_ADDRESSES as u8 + 1).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        assert!(some.expect(PodId::new("x", "c"), many, clock::now()).is_err());
    }
}

//! Bringing numbers and elements up to date. The stages are in the order in which they run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    ClassId, Delta, Direction, Element, Family, PeerId,
    compile::{
        Assigned, Compiler, PodNo, RowKey,
        classes::{ClassKind, has_shrunk},
        content::Content,
        peers::PeerKind,
        pods::{NamedPort, PodEntry},
        ports::PortSpec,
        rows,
        terms::TermId,
    },
    number::Noted,
};

/// What one flush has found out so far.
#[derive(Debug, Default)]
struct Progress {
    remove: Vec<Element>,
    add: Vec<Element>,
    rejudge: BTreeSet<IpAddr>,
    dirty_rows: Noted<RowKey>,
    /// Classes that may allow less than before.
    shrunk_classes: BTreeSet<ClassId>,
    /// What numbers meant that are no longer in use.
    old_peers: BTreeMap<PeerId, Arc<PeerKind>>,
    old_classes: BTreeMap<ClassId, Arc<ClassKind>>,
}

impl Compiler {
    pub(super) fn flush(&mut self) -> Delta {
        let mut progress = Progress::default();
        self.refresh_classes(&mut progress);
        self.assign_pods(&mut progress);
        self.publish_blocks(&mut progress);
        self.forget_unused(&mut progress);
        let Progress { remove, add, dirty_rows, .. } = &mut progress;
        dirty_rows.extend(self.ranges.publish(remove, add));
        self.publish_rows(&mut progress);
        self.rejudge_shrunk(&mut progress);
        self.publish_addresses(&mut progress);
        self.dirty_policies.clear();
        let Progress { remove, add, rejudge, .. } = progress;
        Delta { remove: remove.into(), add: add.into(), rejudge }
    }

    /// 1. Classes whose policies say something else now.
    fn refresh_classes(&mut self, progress: &mut Progress) {
        let dirty = self.dirty_policies.iter().flat_map(|policy| self.classes.of_policy(*policy));
        for class in dirty.collect::<BTreeSet<_>>() {
            let Some((old, new)) = self.fill_class(class, progress) else { continue };
            if has_shrunk(&old, &new) {
                progress.shrunk_classes.insert(class);
            }
        }
    }

    /// Puts into a class what its policies say. Returns what it said before, and says now.
    fn fill_class(&mut self, id: ClassId, progress: &mut Progress) -> Option<(Content, Content)> {
        let kind = self.classes.class(id)?.kind.clone();
        let content = self.content(&kind);
        let old = self.classes.set_content(id, content.clone());
        self.ranges.acquire(content.ports());
        self.ranges.release(old.ports());
        progress.dirty_rows.extend(self.rows.of_class(id));
        for term in content.terms() {
            if term == TermId::EVERYBODY {
                progress.dirty_rows.insert((id, PeerId::EVERYBODY));
            } else {
                progress.dirty_rows.extend(self.peers.with_term(term).map(|peer| (id, peer)));
            }
        }
        Some((old, content))
    }

    /// The union of the policies of a class, with the subjects' own port names resolved.
    fn content(&mut self, kind: &ClassKind) -> Content {
        let policies = kind.policies.iter().filter_map(|policy| self.policies.entry(*policy));
        let contents: Vec<&Content> =
            policies.filter_map(|entry| entry.compiled.as_ref()?.content(kind.direction)).collect();
        let is_resolved = |spec: &PortSpec| kind.direction == Direction::Egress || !spec.is_named();
        if let [only] = contents[..]
            && only.ports().all(is_resolved)
        {
            return only.clone();
        }
        let mut union: BTreeMap<TermId, BTreeSet<PortSpec>> = BTreeMap::new();
        for (term, specs) in contents.into_iter().flat_map(Content::iter) {
            let resolved = union.entry(term).or_default();
            for spec in specs.iter() {
                match spec {
                    PortSpec::Named(protocol, name) if kind.direction == Direction::Ingress => {
                        let numbers = kind.ports.iter().filter(|(p, n, _)| p == protocol && n == name);
                        resolved
                            .extend(numbers.map(|(p, _, number)| PortSpec::Numbers(*p, *number, *number)));
                    }
                    PortSpec::All | PortSpec::Protocol(_) | PortSpec::Numbers(..) | PortSpec::Named(..) => {
                        resolved.insert(*spec);
                    }
                }
            }
        }
        Content::new(union, &mut self.lists)
    }

    /// 2. Peer numbers and classes of pods that changed, or about which something else is asked now.
    fn assign_pods(&mut self, progress: &mut Progress) {
        for pod in self.dirty_pods.take() {
            let new = self.assignment(pod, progress);
            let old = match self.pods.entry_mut(pod) {
                Some(entry) => std::mem::replace(&mut entry.assigned, new),
                None => self.departed.remove(&pod).unwrap_or_default(),
            };
            if old != new
                && let Some(entry) = self.pods.entry(pod)
            {
                self.dirty_addresses.extend(entry.is.addresses.iter().copied());
            }
            old.peer.into_iter().for_each(|peer| self.peers.release(peer));
            for direction in Direction::ALL {
                if let Some(class) = old.class(direction).filter(|class| new.class(direction) != Some(*class))
                {
                    self.classes.leave(class, pod);
                }
            }
        }
    }

    /// The numbers for a pod, acquired; none for one that is gone.
    fn assignment(&mut self, number: PodNo, progress: &mut Progress) -> Assigned {
        let Some(entry) = self.pods.entry(number).filter(|e| !e.is.addresses.is_empty()) else {
            return Assigned::default();
        };
        let kind = self.peer_kind(entry);
        let classes = Direction::ALL.map(|direction| self.class_kind(number, direction));
        let peer = (!kind.terms.is_empty()).then(|| self.acquire_peer(kind, progress));
        let [ingress, egress] = classes.map(|kind| {
            let (class, is_new) = self.classes.join(kind?, number);
            if is_new {
                self.fill_class(class, progress);
            }
            Some(class)
        });
        Assigned { peer, ingress, egress }
    }

    /// What rules in force can see of a pod.
    fn peer_kind(&self, pod: &PodEntry) -> PeerKind {
        let numbered =
            |port: &NamedPort| self.terms.serving(port.name, port.protocol).map(|term| (term, port.number));
        let ports: BTreeSet<(TermId, u16)> = pod.is.ports.iter().filter_map(numbered).collect();
        let mut terms = pod.terms.clone();
        terms.extend(ports.iter().map(|(term, _)| *term));
        terms.sort_unstable();
        terms.dedup();
        PeerKind { terms, ports: ports.into_iter().collect() }
    }

    /// Which class a pod of our scope belongs to, if it is isolated.
    fn class_kind(&self, number: PodNo, direction: Direction) -> Option<ClassKind> {
        let entry = self.pods.entry(number)?;
        let mut policies = Vec::new();
        let mut ports = BTreeSet::new();
        for policy in &entry.policies {
            let compiled = self.policies.entry(*policy).and_then(|entry| entry.compiled.as_ref());
            let Some(content) = compiled.and_then(|compiled| compiled.content(direction)) else {
                continue;
            };
            policies.push(*policy);
            if direction == Direction::Ingress {
                for spec in content.ports() {
                    if let PortSpec::Named(protocol, name) = spec {
                        let serves =
                            entry.is.ports.iter().filter(|p| p.protocol == *protocol && p.name == *name);
                        ports.extend(serves.map(|port| (*protocol, *name, port.number)));
                    }
                }
            }
        }
        let kind = ClassKind { direction, policies, ports: ports.into_iter().collect() };
        (!kind.policies.is_empty()).then_some(kind)
    }

    fn acquire_peer(&mut self, kind: PeerKind, progress: &mut Progress) -> PeerId {
        let (peer, is_new) = self.peers.acquire(kind);
        if is_new {
            let terms = self.peers.kind(peer).map(|kind| kind.terms.clone()).unwrap_or_default();
            for term in terms {
                progress.dirty_rows.extend(self.classes.with_term(term).map(|class| (class, peer)));
            }
        }
        peer
    }

    /// 3. Atoms of blocks that came, went or are in other blocks now.
    fn publish_blocks(&mut self, progress: &mut Progress) {
        for family in [Family::V4, Family::V6] {
            let touched = self.blocks.get_mut(&family).map(|blocks| blocks.partition.take_touched());
            for start in touched.unwrap_or_default() {
                self.publish_atom(family, start, progress);
            }
        }
    }

    fn publish_atom(&mut self, family: Family, start: u128, progress: &mut Progress) {
        let atom = self.blocks.get(&family).and_then(|blocks| blocks.partition.atom(start));
        let wanted = atom.map(|atom| (atom.last, atom.members.iter().copied().collect::<Vec<_>>()));
        let new = wanted
            .map(|(last, terms)| (last, self.acquire_peer(PeerKind { terms, ports: Vec::new() }, progress)));
        let Some(blocks) = self.blocks.get_mut(&family) else { return };
        let old = match new {
            Some(new) => blocks.published.insert(start, new),
            None => blocks.published.remove(&start),
        };
        if let Some((_, peer)) = old {
            self.peers.release(peer);
        }
        if old != new {
            let element = |(last, peer): (u128, PeerId)| Element::Block {
                first: family.address(start),
                last: family.address(last),
                peer,
            };
            progress.remove.extend(old.map(element));
            progress.add.extend(new.map(element));
        }
    }

    /// 4. Numbers that nobody has any more.
    fn forget_unused(&mut self, progress: &mut Progress) {
        progress.old_peers = self.peers.take_unused();
        for (peer, kind) in &progress.old_peers {
            for term in &kind.terms {
                progress.dirty_rows.extend(self.classes.with_term(*term).map(|class| (class, *peer)));
            }
        }
        for (id, class) in self.classes.take_unused() {
            self.ranges.release(class.content.ports());
            progress.dirty_rows.extend(self.rows.of_class(id));
            progress.old_classes.insert(id, class.kind);
        }
    }

    /// 5. What classes may do with peers.
    fn publish_rows(&mut self, progress: &mut Progress) {
        let Progress { remove, add, dirty_rows, .. } = progress;
        for key in dirty_rows.take() {
            let specs = rows::specs(key, &self.classes, &self.peers, &self.terms, &mut self.lists);
            self.rows.set(key, specs, &mut self.ranges, &mut self.lists, (&mut *remove, &mut *add));
        }
    }

    /// 6. Pods that stay in a class, or are new in it under an old address, while it allows less.
    fn rejudge_shrunk(&self, progress: &mut Progress) {
        let classes = progress.shrunk_classes.iter().filter_map(|class| self.classes.class(*class));
        let entries = classes.flat_map(|class| class.pods.iter()).filter_map(|pod| self.pods.entry(*pod));
        progress.rejudge.extend(entries.flat_map(|entry| &entry.is.addresses));
    }

    /// 7. The numbers of addresses, and whose connections may have lost their permission by that.
    fn publish_addresses(&mut self, progress: &mut Progress) {
        for address in self.dirty_addresses.take() {
            let owner = self.pods.owner(address, &self.texts).and_then(|pod| self.pods.entry(pod));
            let new = owner.map(|pod| pod.assigned).unwrap_or_default();
            let old = if new == Assigned::default() {
                self.published.remove(&address)
            } else {
                self.published.insert(address, new)
            };
            let old = old.unwrap_or_default();
            if old == new {
                continue;
            }
            if old.peer != new.peer {
                let element = |peer| Element::Peer { address, peer };
                progress.remove.extend(old.peer.map(element));
                progress.add.extend(new.peer.map(element));
            }
            for direction in Direction::ALL {
                let element = |class| Element::Class { direction, address, class };
                if old.class(direction) != new.class(direction) {
                    progress.remove.extend(old.class(direction).map(element));
                    progress.add.extend(new.class(direction).map(element));
                }
            }
            if self.may_lose(&old, &new, progress) {
                progress.rejudge.insert(address);
            }
        }
    }

    /// Whether connections of an address may be forbidden now because its numbers changed.
    fn may_lose(&self, old: &Assigned, new: &Assigned, progress: &Progress) -> bool {
        let peer_kind = |peer: Option<PeerId>| {
            let peer = peer?;
            self.peers.kind(peer).or_else(|| progress.old_peers.get(&peer)).cloned()
        };
        let (before, after) =
            (peer_kind(old.peer).unwrap_or_default(), peer_kind(new.peer).unwrap_or_default());
        // What no rule asks for any more is no loss: the rule's own end is seen in its class.
        let is_lost = |term: &TermId| self.terms.is_in_use(*term);
        let loses_peer = before.terms.iter().any(|term| !after.terms.contains(term) && is_lost(term))
            || before.ports.iter().any(|port| !after.ports.contains(port) && is_lost(&port.0));
        let class_kind = |class: Option<ClassId>| {
            let class = class?;
            let live = self.classes.class(class).map(|class| &class.kind);
            live.or_else(|| progress.old_classes.get(&class)).cloned()
        };
        let loses_class = |direction| {
            let (old, new) = (old.class(direction), new.class(direction));
            let Some(after) = class_kind(new).filter(|_| old != new) else { return false };
            let Some(before) = class_kind(old) else { return true };
            let was_changed = before.policies.iter().any(|policy| self.dirty_policies.contains(policy));
            was_changed
                || !before.policies.iter().all(|policy| after.policies.contains(policy))
                || !before.ports.iter().all(|port| after.ports.contains(port))
        };
        loses_peer || Direction::ALL.into_iter().any(loses_class)
    }
}

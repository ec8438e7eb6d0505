//! Which container holds which address on this router.

use std::{collections::BTreeMap, net::IpAddr};

use weave_model::{ContainerId, Interface, Subnet};

use crate::span::{Span, to_number};

/// All allocations and claims of this router, in order of address and by owner.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    by_address: BTreeMap<u128, (ContainerId, Interface)>,
    by_owner: BTreeMap<ContainerId, Vec<Interface>>,
}

impl Ledger {
    pub(crate) fn len(&self) -> usize {
        self.by_address.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// Who holds the address.
    pub(crate) fn holder(&self, address: IpAddr) -> Option<&ContainerId> {
        self.by_address.get(&to_number(address)).map(|(owner, _)| owner)
    }

    /// What the owner holds, oldest first.
    pub(crate) fn held_by(&self, owner: &ContainerId) -> &[Interface] {
        self.by_owner.get(owner).map_or(&[], Vec::as_slice)
    }

    /// What the owner holds in exactly this subnet.
    pub(crate) fn held_in(&self, owner: &ContainerId, subnet: Subnet) -> Option<Interface> {
        self.held_by(owner).iter().copied().find(|held| held.subnet() == subnet)
    }

    /// Records that the owner holds the address. The address must be free.
    pub(crate) fn hold(&mut self, owner: &ContainerId, interface: Interface) {
        self.by_address.insert(to_number(interface.address()), (owner.clone(), interface));
        if let Some(held) = self.by_owner.get_mut(owner) {
            held.push(interface);
        } else {
            self.by_owner.insert(owner.clone(), vec![interface]);
        }
    }

    /// Forgets the address; says whether the owner held it.
    pub(crate) fn release(&mut self, owner: &ContainerId, address: IpAddr) -> bool {
        if self.holder(address) != Some(owner) {
            return false;
        }
        self.by_address.remove(&to_number(address));
        if let Some(held) = self.by_owner.get_mut(owner) {
            held.retain(|interface| interface.address() != address);
            if held.is_empty() {
                self.by_owner.remove(owner);
            }
        }
        true
    }

    /// The addresses in use inside the window, lowest first.
    pub(crate) fn used_within(&self, window: Span) -> impl Iterator<Item = u128> + '_ {
        self.by_address.range(window.lo..window.hi.max(window.lo)).map(|(address, _)| *address)
    }

    /// The same as runs.
    pub(crate) fn used_runs(&self, window: Span) -> Vec<Span> {
        let mut runs: Vec<Span> = Vec::new();
        for address in self.used_within(window) {
            match runs.last_mut() {
                Some(last) if last.hi == address => last.hi += 1,
                _ => runs.push(Span::one(address)),
            }
        }
        runs
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ContainerId, Interface)> {
        self.by_address.values().map(|(owner, interface)| (owner, *interface))
    }
}

//! The naive truth about addresses: a map from address to the one container that may hold it.

use std::{collections::BTreeMap, net::IpAddr};

use weave_model::{ContainerId, Interface};

use crate::check::Failure;

/// Who holds what, over all hosts.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    holder_by_address: BTreeMap<IpAddr, (usize, ContainerId)>,
    pub(crate) grants: u64,
}

impl Oracle {
    /// A container was told that it has these addresses.
    pub(crate) fn granted(
        &mut self,
        host: usize,
        container: &ContainerId,
        addresses: &[Interface],
    ) -> Result<(), Failure> {
        self.grants += 1;
        for interface in addresses {
            let holder = (host, container.clone());
            match self.holder_by_address.insert(interface.address(), holder.clone()) {
                Some(before) if before != holder => {
                    return Err(Failure::HeldTwice {
                        address: interface.address(),
                        first: before,
                        second: holder,
                    });
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// A container is gone, or gave its addresses back.
    pub(crate) fn released(&mut self, host: usize, container: &ContainerId) {
        self.holder_by_address.retain(|_, (at, holder)| (*at, &*holder) != (host, container));
    }

    /// All containers of a host are gone.
    pub(crate) fn all_released(&mut self, host: usize) {
        self.holder_by_address.retain(|_, (at, _)| *at != host);
    }

    pub(crate) fn held(&self) -> usize {
        self.holder_by_address.len()
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.holder_by_address.keys().copied()
    }
}

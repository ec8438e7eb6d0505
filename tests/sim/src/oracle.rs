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
    /// A container was given addresses.
    pub(crate) fn granted(
        &mut self,
        host: usize,
        container: &ContainerId,
        addresses: &[Interface],
    ) -> Result<(), Failure> {
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
                Some(_) | None => self.grants += 1,
            }
        }
        Ok(())
    }

    /// A container is gone, or gave its addresses back.
    pub(crate) fn released(&mut self, host: usize, container: &ContainerId) {
        self.holder_by_address.retain(|_, (at, holder)| (*at, &*holder) != (host, container));
    }

    pub(crate) fn held(&self) -> usize {
        self.holder_by_address.len()
    }
}

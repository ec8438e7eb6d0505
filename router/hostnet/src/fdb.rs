//! Forwarding entries of a bridge port, kept equal to a wanted set.
//!
//! Our entries carry the mark "externally learned" (Linux: `NTF_EXT_LEARNED`): it tells them from what an operator
//! or the bridge itself put on the port, keeps them from ageing, and, unlike a static entry, lets the bridge move
//! one to another port by itself when the station shows up there.

use std::collections::BTreeSet;

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};
use weave_model::Mac;

use crate::{FdbDiff, Host, HostError, LinkIndex};

/// A forwarding entry as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) mac: Mac,
    /// The port (or, for entries of a tunnel device's own table, that device).
    pub(crate) port: LinkIndex,
    /// The bridge whose table it is in; none for a tunnel device's own table.
    pub(crate) bridge: Option<LinkIndex>,
    /// Whether it has our mark.
    pub(crate) is_ours: bool,
    /// Whether the bridge may never move or drop it: an operator's static entry, or a port's own address.
    pub(crate) is_fixed: bool,
}

impl Host {
    /// Makes the entries of ours on `port` equal to `wanted`: frames for these addresses leave through it. Entries
    /// of others, and all other ports, stay as they are.
    ///
    /// # Errors
    /// [`HostError::NoInterface`] when `port` is not a bridge port. After an error some of the difference may have
    /// been applied; the next call does the rest.
    pub async fn reconcile_bridge_fdb(
        &self,
        bridge_port: LinkIndex,
        wanted: &BTreeSet<Mac>,
    ) -> anyhow::Result<FdbDiff> {
        let no_port = || HostError::NoInterface(format!("bridge port {}", bridge_port.0));
        let port = self.link_by_index(bridge_port).await?.ok_or_else(no_port)?;
        let bridge = port.master.ok_or_else(no_port)?;
        let mut entries = self.fdb().await?;
        entries.retain(|entry| entry.bridge == Some(bridge));
        let diff = diff(&entries, bridge_port, wanted);
        for mac in &diff.removed {
            let message = RouteNetlinkMessage::DelNeighbour(message(bridge_port, *mac));
            match self.request(message, 0, format!("removing the entry for {mac} from {}", port.name)).await {
                // It went, or moved to another port, while we were looking.
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                other => other?,
            }
        }
        for mac in &diff.added {
            let message = RouteNetlinkMessage::NewNeighbour(message(bridge_port, *mac));
            let doing = format!("adding an entry for {mac} to {}", port.name);
            self.request(message, NLM_F_CREATE | NLM_F_REPLACE, doing).await?;
        }
        Ok(diff)
    }

    /// All forwarding entries of all bridges and tunnel devices.
    pub(crate) async fn fdb(&self) -> Result<Vec<Entry>, HostError> {
        let mut everything = NeighbourMessage::default();
        everything.header.family = AddressFamily::Bridge;
        let everything = RouteNetlinkMessage::GetNeighbour(everything);
        self.dump(everything, "listing forwarding entries", |answer| {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer { read(&message) } else { None }
        })
        .await
    }
}

/// What has to change on `port` so that exactly `wanted` is ours there; `entries` are those of its bridge.
fn diff(entries: &[Entry], port: LinkIndex, wanted: &BTreeSet<Mac>) -> FdbDiff {
    let macs = |pick: &dyn Fn(&Entry) -> bool| -> BTreeSet<Mac> {
        entries.iter().filter(|e| pick(e)).map(|e| e.mac).collect()
    };
    let ours = macs(&|e| e.is_ours && e.port == port);
    let fixed = macs(&|e| e.is_fixed && !e.is_ours);
    FdbDiff {
        added: wanted.difference(&ours).filter(|mac| !fixed.contains(mac)).copied().collect(),
        removed: ours.difference(wanted).copied().collect(),
        blocked: wanted.intersection(&fixed).filter(|mac| !ours.contains(mac)).copied().collect(),
    }
}

fn message(port: LinkIndex, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port.0;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller | NeighbourFlags::ExtLearned;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    message
}

fn read(message: &NeighbourMessage) -> Option<Entry> {
    let mut mac = None;
    let mut bridge = None;
    for attribute in &message.attributes {
        if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok().map(Mac);
        } else if let NeighbourAttribute::Controller(index) = attribute {
            bridge = Some(LinkIndex(*index));
        }
    }
    Some(Entry {
        mac: mac?,
        port: LinkIndex(message.header.ifindex),
        bridge,
        is_ours: message.header.flags.contains(NeighbourFlags::ExtLearned),
        is_fixed: matches!(message.header.state, NeighbourState::Noarp | NeighbourState::Permanent),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: LinkIndex = LinkIndex(7);

    fn mac(n: u8) -> Mac {
        Mac::local_unicast([0, 0, 0, 0, 0, n])
    }

    fn entry(n: u8, port: LinkIndex, is_ours: bool, is_fixed: bool) -> Entry {
        Entry { mac: mac(n), port, bridge: Some(LinkIndex(3)), is_ours, is_fixed }
    }

    fn set(numbers: &[u8]) -> BTreeSet<Mac> {
        numbers.iter().map(|n| mac(*n)).collect()
    }

    #[test]
    fn only_the_difference_is_changed_and_only_what_is_ours_is_removed() {
        let entries = [
            entry(1, PORT, true, false),
            entry(2, PORT, true, false),
            entry(3, PORT, false, true),
            entry(4, LinkIndex(8), true, false),
        ];
        let diff = diff(&entries, PORT, &set(&[2, 5]));
        assert_eq!(diff, FdbDiff { added: set(&[5]), removed: set(&[1]), blocked: set(&[]) });
    }

    #[test]
    fn an_address_that_somebody_fixed_elsewhere_is_not_taken_over() {
        let entries = [entry(1, LinkIndex(8), false, true), entry(2, LinkIndex(8), false, false)];
        let diff = diff(&entries, PORT, &set(&[1, 2]));
        assert_eq!(diff, FdbDiff { added: set(&[2]), removed: set(&[]), blocked: set(&[1]) });
    }

    #[test]
    fn what_is_there_already_needs_no_change() {
        let entries = [entry(1, PORT, true, false), entry(2, PORT, true, true)];
        assert_eq!(diff(&entries, PORT, &set(&[1, 2])), FdbDiff::default());
    }
}

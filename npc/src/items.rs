//! Elements as items of the sets of the [program](crate::program), and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weave_hostnet::nft::{IpFamily, Item, Program, SetChange, Value};
use weave_policy::{ClassId, Direction, Element, PeerId, Ports, Protocol, RangeId};

use crate::program::{Bank, JUDGING, SWITCH, classes, named};

/// The item that says that established connections of an address are judged.
#[must_use]
pub fn rejudge_item(address: IpAddr) -> (String, Item) {
    (named("rejudge", family_of(address)), address_item(address))
}

/// The item of [`JUDGING`].
#[must_use]
pub fn judging_item() -> (String, Item) {
    (JUDGING.to_owned(), flag())
}

/// All items there are while established connections of these addresses are judged.
#[must_use]
pub fn rejudge_items(addresses: &BTreeSet<IpAddr>) -> BTreeSet<(String, Item)> {
    let any = (!addresses.is_empty()).then(judging_item);
    addresses.iter().copied().map(rejudge_item).chain(any).collect()
}

/// The item of a set of addresses.
fn address_item(address: IpAddr) -> Item {
    Item { key: vec![Value::Address(address)], last: None, value: None }
}

/// The item of [`SWITCH`].
#[must_use]
pub fn switch_item() -> (String, Item) {
    (SWITCH.to_owned(), flag())
}

/// The only item of a set that is either empty or not.
fn flag() -> Item {
    Item { key: vec![Value::Number(0)], last: None, value: None }
}

const fn family_of(address: IpAddr) -> IpFamily {
    match address {
        IpAddr::V4(_) => IpFamily::V4,
        IpAddr::V6(_) => IpFamily::V6,
    }
}

/// The set of a bank in which an element is, and as what.
#[must_use]
pub fn item(bank: Bank, element: &Element) -> (String, Item) {
    let (set, item) = unbanked(element);
    (bank.own(&set), item)
}

fn unbanked(element: &Element) -> (String, Item) {
    let number = |number: u32| Some(Value::Number(number));
    match *element {
        Element::Peer { address, peer } => {
            (named("pods", family_of(address)), Item { value: number(peer.0), ..address_item(address) })
        }
        Element::Class { direction, address, class } => {
            (classes(direction, family_of(address)), Item { value: number(class.0), ..address_item(address) })
        }
        Element::Block { first, last, peer } => (
            named("blocks", family_of(first)),
            Item { last: Some(vec![Value::Address(last)]), value: number(peer.0), ..address_item(first) },
        ),
        Element::Range { protocol, first, last, range } => {
            let at = |port| vec![Value::Protocol(protocol.number()), Value::Port(port)];
            ("ranges".to_owned(), Item { key: at(first), last: Some(at(last)), value: number(range.0) })
        }
        Element::Row { class, peer } => {
            ("rows".to_owned(), Item { key: row_key(class, peer), last: None, value: None })
        }
        Element::Allow { class, peer, ports } => {
            let mut key = row_key(class, peer);
            let set = match ports {
                Ports::All => "allow_all",
                Ports::Protocol(protocol) => {
                    key.push(Value::Protocol(protocol.number()));
                    "allow_protocol"
                }
                Ports::Port(protocol, port) => {
                    key.extend([Value::Protocol(protocol.number()), Value::Port(port)]);
                    "allow_port"
                }
                Ports::Range(range) => {
                    key.push(Value::Number(range.0));
                    "allow_range"
                }
            };
            (set.to_owned(), Item { key, last: None, value: None })
        }
    }
}

/// How the keys of rows, and of the permissions in them, begin.
fn row_key(class: ClassId, peer: PeerId) -> Vec<Value> {
    [0, class.0, peer.0].map(Value::Number).into()
}

/// The element that an item of a set, named without its bank, is; `None` if it is none that we would have made.
#[must_use]
pub fn element(set: &str, item: &Item) -> Option<Element> {
    use Value::{Address, Number, Port};
    let ports = |class: u32, peer: u32, ports| {
        Some(Element::Allow { class: ClassId(class), peer: PeerId(peer), ports })
    };
    let protocol = |value: Value| match value {
        Value::Protocol(number) => Protocol::from_number(number),
        Address(_) | Number(_) | Port(_) | Value::Ethernet(_) | Value::Interface(_) => None,
    };
    let by_address = |direction: Direction| match (&item.key[..], item.value) {
        ([Address(address)], Some(Number(class))) => {
            Some(Element::Class { direction, address: *address, class: ClassId(class) })
        }
        _ => None,
    };
    match (set, &item.key[..], item.last.as_deref(), item.value) {
        ("pods4" | "pods6", [Address(address)], None, Some(Number(peer))) => {
            Some(Element::Peer { address: *address, peer: PeerId(peer) })
        }
        ("blocks4" | "blocks6", [Address(first)], Some([Address(last)]), Some(Number(peer))) => {
            Some(Element::Block { first: *first, last: *last, peer: PeerId(peer) })
        }
        ("ingress4" | "ingress6", ..) => by_address(Direction::Ingress),
        ("egress4" | "egress6", ..) => by_address(Direction::Egress),
        ("ranges", [p, Port(first)], Some([_, Port(last)]), Some(Number(range))) => Some(Element::Range {
            protocol: protocol(*p)?,
            first: *first,
            last: *last,
            range: RangeId(range),
        }),
        ("rows", [Number(0), Number(class), Number(peer)], ..) => {
            Some(Element::Row { class: ClassId(*class), peer: PeerId(*peer) })
        }
        ("allow_all", [Number(0), Number(class), Number(peer)], ..) => ports(*class, *peer, Ports::All),
        ("allow_protocol", [Number(0), Number(class), Number(peer), p], ..) => {
            ports(*class, *peer, Ports::Protocol(protocol(*p)?))
        }
        ("allow_port", [Number(0), Number(class), Number(peer), p, Port(port)], ..) => {
            ports(*class, *peer, Ports::Port(protocol(*p)?, *port))
        }
        ("allow_range", [Number(0), Number(class), Number(peer), Number(range)], ..) => {
            ports(*class, *peer, Ports::Range(RangeId(*range)))
        }
        _ => None,
    }
}

/// Items to remove and to add, sorted by set.
#[derive(Debug, Default)]
pub struct Items {
    by_set: BTreeMap<String, (Vec<Item>, Vec<Item>)>,
}

impl Items {
    /// Notes that an item goes.
    pub fn remove(&mut self, (set, item): (String, Item)) {
        self.by_set.entry(set).or_default().0.push(item);
    }

    /// Notes that an item comes.
    pub fn add(&mut self, (set, item): (String, Item)) {
        self.by_set.entry(set).or_default().1.push(item);
    }

    /// What was noted, for the sets of `program`.
    #[must_use]
    pub fn changes(mut self, program: &Program) -> Vec<SetChange<'_>> {
        let mut changes = Vec::new();
        for set in &program.sets {
            if let Some((remove, add)) = self.by_set.remove(&set.name) {
                changes.push(SetChange { set, remove, add });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_an_item_of_a_set_and_comes_back_from_it() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let allow = |ports| Element::Allow { class: ClassId(3), peer: PeerId(0), ports };
        let mut elements = vec![
            Element::Row { class: ClassId(3), peer: PeerId(5) },
            Element::Range { protocol: Protocol::Sctp, first: 1, last: u16::MAX, range: RangeId(4) },
            allow(Ports::All),
            allow(Ports::Protocol(Protocol::Udp)),
            allow(Ports::Port(Protocol::Tcp, 80)),
            allow(Ports::Range(RangeId(4))),
        ];
        for (first, last) in [("10.0.0.0", "10.0.0.9"), ("fd00::", "fd00::9")] {
            let (first, last) = (address(first), address(last));
            elements.push(Element::Peer { address: first, peer: PeerId(7) });
            elements.push(Element::Block { first, last, peer: PeerId(8) });
            for direction in Direction::ALL {
                elements.push(Element::Class { direction, address: first, class: ClassId(9) });
            }
        }
        let sets = crate::program::sets();
        for (wanted, bank) in elements.into_iter().zip(Bank::ALL.into_iter().cycle()) {
            let (set, item) = item(bank, &wanted);
            assert!(sets.iter().any(|spec| spec.name == set), "{set}");
            let (found, set) = Bank::split(&set).unwrap();
            assert_eq!((found, element(set, &item)), (bank, Some(wanted)));
        }
    }
}

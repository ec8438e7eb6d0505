//! Containers speak for themselves only.
//!
//! What comes in by a container's port of the bridge must come from the Ethernet address and the IP addresses that the
//! container was given; so must what it says about itself in ARP and neighbour discovery. Anything else is dropped where it
//! enters, in an nftables table of family `bridge`, and counted by [`Forgery`]. Ports are known by their names, so a port
//! can be guarded before it is there.
//!
//! ```text
//! prerouting
//!   not from a guarded port                                  accept   (all that uplinks see)
//!   IPv4, its port, Ethernet and IP source belong together   accept   (most that containers send)
//!   its port and Ethernet source do not                      drop     ethernet
//!   ARP    its sender's two addresses belong to the port, or it has none yet, else drop    arp
//!   IPv4   the source is 0.0.0.0 (DHCP, IGMP), else drop                                   ipv4
//!   IPv6   an advertisement is about an address of the port, else drop                     neighbour
//!          the source belongs to the port, or is :: (DAD, MLD), else drop                  ipv6
//! ```
//!
//! Of link-local addresses a station has the one that follows from its Ethernet address (RFC 4291, appendix A), which is
//! what the kernel gives an interface that nobody told otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use weave_model::Mac;

use crate::{
    HostError, names,
    nft::{
        self, ChainSpec, End, EtherType, Expressions, Field, Hook, IpFamily, Item, Program, Register, Rule,
        Session, SetChange, SetSpec, Value, Verdict,
    },
};

/// The table, and its sets.
const TABLE: &str = "weave-ports";
const PORTS: &str = "ports";
const STATIONS: &str = "stations";
const SOURCES4: &str = "sources4";
const SOURCES6: &str = "sources6";

/// Where keys begin: four registers for a port, two for an Ethernet address, and then IP.
const PORT: Register = Register(0);
const ETHERNET: Register = Register(4);
const IP: Register = Register(6);

/// Who may be behind a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Station {
    /// Its Ethernet addresses: one, or while it is not known yet which of two it keeps, both.
    pub macs: BTreeSet<Mac>,
    /// Its IP addresses, of both families. Link-local ones follow from the Ethernet addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// As what a container tried to pass itself off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forgery {
    /// A frame from an Ethernet address that is not the container's.
    Ethernet,
    /// An IPv4 packet from such an address.
    Ipv4,
    /// An IPv6 packet from such an address.
    Ipv6,
    /// An ARP packet that says that it has such an address.
    Arp,
    /// An advertisement of IPv6's neighbour discovery for such an address.
    Neighbour,
}

impl Forgery {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Ethernet, Self::Ipv4, Self::Ipv6, Self::Arp, Self::Neighbour];

    /// Its name in metrics and in the comments of rules.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "foreign_ethernet_source",
            Self::Ipv4 => "foreign_ipv4_source",
            Self::Ipv6 => "foreign_ipv6_source",
            Self::Arp => "foreign_arp_sender",
            Self::Neighbour => "foreign_neighbour_advertisement",
        }
    }
}

impl fmt::Display for Forgery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The rules, and what is known of them. Works in the network namespace of the thread that calls.
#[derive(Debug)]
pub struct PortGuard {
    program: Program,
}

impl Default for PortGuard {
    fn default() -> Self {
        Self { program: program() }
    }
}

impl PortGuard {
    /// Guards these ports, each for its station, and no others. What is there is compared with that, so the second call
    /// changes nothing, and what somebody flushed comes back.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] when the kernel has no nf_tables for bridges, [`HostError::NoPermission`], or what else the
    /// kernel says. Nothing was changed then.
    pub fn reconcile(&self, stations: &BTreeMap<String, Station>) -> Result<(), HostError> {
        let session = Session::open()?;
        let present = session.read(&self.program)?;
        let is_new = present.is_none();
        let present = present.unwrap_or_else(|| vec![Vec::new(); self.program.sets.len()]);
        let wanted = items(stations);
        let changes = self.program.sets.iter().zip(present).map(|(set, present)| {
            let present: BTreeSet<Item> = present.into_iter().collect();
            let none = BTreeSet::new();
            let wanted = wanted.get(set.name.as_str()).unwrap_or(&none);
            let remove = present.difference(wanted).cloned().collect();
            SetChange { set, remove, add: wanted.difference(&present).cloned().collect() }
        });
        let changes: Vec<SetChange<'_>> =
            changes.filter(|change| !change.remove.is_empty() || !change.add.is_empty()).collect();
        match (is_new, changes.is_empty()) {
            (true, _) => session.install(&self.program, &changes),
            (false, true) => Ok(()),
            (false, false) => session.change(&self.program, &changes, None),
        }
    }

    /// How many frames were dropped, by why. Counts begin anew when the table is made anew.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forgeries(&self) -> Result<BTreeMap<Forgery, u64>, HostError> {
        let mut count_by_kind: BTreeMap<Forgery, u64> = Forgery::ALL.map(|kind| (kind, 0)).into();
        for (note, packets) in Session::open()?.counts(&self.program)? {
            if let Some(kind) = Forgery::ALL.into_iter().find(|kind| kind.name() == note) {
                *count_by_kind.entry(kind).or_default() += packets;
            }
        }
        Ok(count_by_kind)
    }

    /// Takes the rules away, if they are there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove() -> Result<(), HostError> {
        nft::uninstall_from_bridges(TABLE)
    }
}

/// The elements of the sets, by their names.
fn items(stations: &BTreeMap<String, Station>) -> BTreeMap<&'static str, BTreeSet<Item>> {
    let mut items: BTreeMap<&'static str, BTreeSet<Item>> = BTreeMap::new();
    let mut add = |set, key| _ = items.entry(set).or_default().insert(Item { key, last: None, value: None });
    for (name, station) in stations {
        let port = Value::interface(name);
        add(PORTS, vec![port]);
        for mac in &station.macs {
            add(STATIONS, vec![port, Value::Ethernet(*mac)]);
            for address in station.addresses.iter().copied().chain([link_local(*mac)]) {
                let set = if address.is_ipv4() { SOURCES4 } else { SOURCES6 };
                add(set, vec![port, Value::Ethernet(*mac), Value::Address(address)]);
            }
        }
    }
    items
}

/// The link-local address that follows from an Ethernet address (RFC 4291, appendix A).
fn link_local(Mac([a, b, c, d, e, f]): Mac) -> IpAddr {
    let number = u128::from_be_bytes([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(number).into()
}

fn program() -> Program {
    use Field::{Ethernet, Interface, Ipv4, Ipv6};
    let chain = |name: &str, hook, rules| ChainSpec { name: name.to_owned(), hook, rules };
    Program {
        table: TABLE.to_owned(),
        sets: vec![
            SetSpec::of(PORTS, &[Interface]),
            SetSpec::of(STATIONS, &[Interface, Ethernet]),
            SetSpec::of(SOURCES4, &[Interface, Ethernet, Ipv4]),
            SetSpec::of(SOURCES6, &[Interface, Ethernet, Ipv6]),
        ],
        chains: vec![
            chain("arp", None, arp()),
            chain("ipv4", None, ipv4()),
            chain("ipv6", None, ipv6()),
            chain("prerouting", Some(Hook::BridgePort), prerouting()),
        ],
    }
}

fn prerouting() -> Vec<Rule> {
    let start = Expressions::default;
    let to = |kind, chain: &str| noted("by what it carries", start().is_ether_type(kind).go_to(chain));
    // What is most of all comes first, with one look-up at most.
    vec![
        accept("from elsewhere", start().input_interface_begins(names::UPLINKS)),
        accept("IPv4 from its own address", of_ipv4(start().is_ether_type(EtherType::Ipv4))),
        accept("no port of ours", port(start()).is_not_in_set(PORTS, PORT)),
        drop(Forgery::Ethernet, sender(start()).is_not_in_set(STATIONS, PORT)),
        to(EtherType::Arp, "arp"),
        to(EtherType::Ipv4, "ipv4"),
        to(EtherType::Ipv6, "ipv6"),
    ]
}

fn arp() -> Vec<Rule> {
    let said = || port(Expressions::default()).load_arp_sender(ETHERNET);
    vec![
        drop(Forgery::Arp, said().is_not_in_set(STATIONS, PORT)),
        accept("from its own address", said().load_arp_source(IP).is_in_set(SOURCES4, PORT)),
        accept("no address yet", Expressions::default().arp_source_is_unspecified()),
        drop(Forgery::Arp, Expressions::default()),
    ]
}

fn ipv4() -> Vec<Rule> {
    vec![
        accept("no address yet", Expressions::default().source_is_unspecified(IpFamily::V4)),
        drop(Forgery::Ipv4, Expressions::default()),
    ]
}

fn ipv6() -> Vec<Rule> {
    /// Of ICMPv6 (RFC 4861, 4.4).
    const ADVERTISEMENT: u8 = 136;
    let start = Expressions::default;
    let about = sender(start().icmpv6_type(ADVERTISEMENT, ADVERTISEMENT)).load_neighbour_target(IP);
    let source = sender(start()).load_header_address(End::Source, IpFamily::V6, IP);
    vec![
        drop(Forgery::Neighbour, about.is_not_in_set(SOURCES6, PORT)),
        accept("from its own address", source.is_in_set(SOURCES6, PORT)),
        accept("no address yet", start().source_is_unspecified(IpFamily::V6)),
        drop(Forgery::Ipv6, start()),
    ]
}

fn port(rule: Expressions) -> Expressions {
    rule.load_input_interface(PORT)
}

fn sender(rule: Expressions) -> Expressions {
    port(rule).load_ethernet_source(ETHERNET)
}

fn of_ipv4(rule: Expressions) -> Expressions {
    sender(rule).load_header_address(End::Source, IpFamily::V4, IP).is_in_set(SOURCES4, PORT)
}

fn accept(note: &str, conditions: Expressions) -> Rule {
    noted(note, conditions.verdict(Verdict::Accept))
}

fn drop(why: Forgery, conditions: Expressions) -> Rule {
    noted(why.name(), conditions.count().verdict(Verdict::Drop))
}

fn noted(note: &str, expressions: Expressions) -> Rule {
    Rule { note: note.to_owned(), expressions }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_has_its_addresses_and_the_link_local_one_of_its_ethernet_address() {
        let mac: Mac = "02:00:5e:10:00:01".parse().unwrap();
        assert_eq!(link_local(mac), "fe80::5eff:fe10:1".parse::<IpAddr>().unwrap());
        let station = Station {
            macs: BTreeSet::from([mac]),
            addresses: ["10.32.0.1", "10.40.0.1", "fd00::1"].map(|text| text.parse().unwrap()).into(),
        };
        let items = items(&BTreeMap::from([("port".to_owned(), station)]));
        let sizes: Vec<(&str, usize)> = items.iter().map(|(set, items)| (*set, items.len())).collect();
        assert_eq!(sizes, [(PORTS, 1), (SOURCES4, 2), (SOURCES6, 2), (STATIONS, 1)]);
    }
}

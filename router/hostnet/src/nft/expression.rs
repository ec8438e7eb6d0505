//! The expressions of a rule, as the kernel's virtual machine takes them (Linux: `linux/netfilter/nf_tables.h`;
//! `nft --debug=netlink` shows the same for any rule).
//!
//! A condition loads something into register 1 and compares it; the rule ends at the first that does not hold.

use std::net::IpAddr;

use weave_model::Subnet;

use super::attribute::Attributes;

pub(super) const REGISTER_VERDICT: u32 = 0;
pub(super) const REGISTER_1: u32 = 1;

/// A list of expressions under construction: conditions, and what is done when all of them hold.
#[derive(Debug, Clone, Default)]
pub struct Expressions(Attributes);

/// How a value is compared (`enum nft_cmp_ops`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Is {
    Equal = 0,
    Different = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// An address of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// What a rule does with a packet that fulfils its conditions (`NF_DROP`, `NF_ACCEPT`, `NFT_RETURN`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The packet is lost.
    Drop = 0,
    /// The packet passes this table's hook.
    Accept = 1,
    /// The chain that jumped here goes on; a chain with a hook ends.
    Return = -5,
}

/// What can be asked about a packet beside its bytes (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta {
    EthernetType = 1,
    InputInterface = 6,
    OutputInterface = 7,
    NetworkProtocol = 15,
    TransportProtocol = 16,
    Decrypted = 25,
}

/// Where in a packet an offset counts from (`enum nft_payload_bases`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

impl Expressions {
    pub(super) const fn attributes(&self) -> &Attributes {
        &self.0
    }

    /// The packet is of the same family as `subnet`. Needed before its addresses are looked at.
    pub(super) fn family_of(self, subnet: Subnet) -> Self {
        const IPV4: u8 = 2;
        const IPV6: u8 = 10;
        let family = if subnet.net().addr().is_ipv4() { IPV4 } else { IPV6 };
        self.meta(Meta::NetworkProtocol).compare(Is::Equal, &[family])
    }

    /// The address at `end` is in `subnet`, or is not.
    pub(super) fn address(self, end: End, is: Is, subnet: Subnet) -> Self {
        let (network, mask) = (octets(subnet.net().network()), octets(subnet.net().netmask()));
        // Offsets in the IPv4 and the IPv6 header (RFC 791, RFC 8200).
        let offset = match (end, network.len()) {
            (End::Source, 4) => 12,
            (End::Destination, 4) => 16,
            (End::Source, _) => 8,
            (End::Destination, _) => 24,
        };
        self.payload(Base::Network, offset, network.len()).mask(&mask).compare(is, &network)
    }

    /// The interface is `name`, or is not.
    pub(super) fn interface(self, side: Meta, is: Is, name: &str) -> Self {
        // IFNAMSIZ bytes are compared, zeros included: no prefix of a longer name fits.
        let mut padded = [0; 16];
        padded.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        self.meta(side).compare(is, &padded)
    }

    /// Condition: the packet came in by an interface whose name begins so.
    #[must_use]
    pub fn input_interface_begins(self, prefix: &str) -> Self {
        self.meta(Meta::InputInterface).compare(Is::Equal, prefix.as_bytes())
    }

    /// Condition: the destination port of this protocol (6 TCP, 17 UDP).
    #[must_use]
    pub fn destination_port(self, protocol: u8, port: u16) -> Self {
        let right_protocol = self.meta(Meta::TransportProtocol).compare(Is::Equal, &[protocol]);
        right_protocol.payload(Base::Transport, 2, 2).compare(Is::Equal, &port.to_be_bytes())
    }

    /// The end of a rule.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        const DESTINATION: u16 = 1;
        const DATA: u16 = 2;
        const DATA_VERDICT: u16 = 2;
        const CODE: u16 = 1;
        let code = Attributes::default().bytes(CODE, &(verdict as i32).to_be_bytes());
        let data = Attributes::default().nested(DATA_VERDICT, &code);
        self.push(
            "immediate",
            &Attributes::default().number(DESTINATION, REGISTER_VERDICT).nested(DATA, &data),
        )
    }

    /// The end of a rule: the packet gets the address of the interface that it leaves by, and a port chosen at
    /// random (`NF_NAT_RANGE_PROTO_RANDOM_FULLY`), so that concurrent look-ups do not collide.
    pub(super) fn masquerade(self) -> Self {
        const FLAGS: u16 = 1;
        const RANDOM_FULLY: u32 = 16;
        self.push("masq", &Attributes::default().number(FLAGS, RANDOM_FULLY))
    }

    pub(super) fn meta(self, key: Meta) -> Self {
        self.meta_to(key, REGISTER_1)
    }

    /// Loads what is asked into a register, by its number in the kernel.
    pub(super) fn meta_to(self, key: Meta, register: u32) -> Self {
        const DESTINATION: u16 = 1;
        const KEY: u16 = 2;
        self.push("meta", &Attributes::default().number(DESTINATION, register).number(KEY, key as u32))
    }

    fn payload(self, base: Base, offset: u32, length: usize) -> Self {
        self.payload_to(base, offset, length, REGISTER_1)
    }

    /// Loads bytes of the packet into a register, by its number in the kernel.
    pub(super) fn payload_to(self, base: Base, offset: u32, length: usize, register: u32) -> Self {
        const DESTINATION: u16 = 1;
        const BASE: u16 = 2;
        const OFFSET: u16 = 3;
        const LENGTH: u16 = 4;
        let load = Attributes::default().number(DESTINATION, register).number(BASE, base as u32);
        self.push("payload", &load.number(OFFSET, offset).number(LENGTH, small(length)))
    }

    pub(super) fn mask(self, mask: &[u8]) -> Self {
        const SOURCE: u16 = 1;
        const DESTINATION: u16 = 2;
        const LENGTH: u16 = 3;
        const MASK: u16 = 4;
        const XOR: u16 = 5;
        let masking = Attributes::default()
            .number(SOURCE, REGISTER_1)
            .number(DESTINATION, REGISTER_1)
            .number(LENGTH, small(mask.len()))
            .nested(MASK, &value(mask))
            .nested(XOR, &value(&vec![0; mask.len()]));
        self.push("bitwise", &masking)
    }

    pub(super) fn compare(self, is: Is, with: &[u8]) -> Self {
        const SOURCE: u16 = 1;
        const OPERATION: u16 = 2;
        const DATA: u16 = 3;
        let comparing = Attributes::default().number(SOURCE, REGISTER_1).number(OPERATION, is as u32);
        self.push("cmp", &comparing.nested(DATA, &value(with)))
    }

    pub(super) fn push(self, name: &str, data: &Attributes) -> Self {
        const ELEMENT: u16 = 1;
        Self(self.0.nested(ELEMENT, &expression(name, data)))
    }
}

/// One expression, as rules list it and sets have it.
pub(super) fn expression(name: &str, data: &Attributes) -> Attributes {
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    Attributes::default().text(NAME, name).nested(DATA, data)
}

pub(super) fn value(bytes: &[u8]) -> Attributes {
    const VALUE: u16 = 1;
    Attributes::default().bytes(VALUE, bytes)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A length of 16 bytes at most.
fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

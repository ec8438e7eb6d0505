//! Expressions about frames, as a port of a bridge gets them.

use super::{
    expression::{Base, Expressions, Is, Meta, REGISTER_1},
    load::{IpFamily, Register},
};

/// What a frame carries (IEEE 802 numbers), behind a VLAN tag too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtherType {
    /// RFC 894.
    Ipv4 = 0x0800,
    /// RFC 826.
    Arp = 0x0806,
    /// RFC 2464.
    Ipv6 = 0x86dd,
}

impl Expressions {
    /// Condition: the frame carries this.
    #[must_use]
    pub fn is_ether_type(self, kind: EtherType) -> Self {
        self.meta(Meta::EthernetType).compare(Is::Equal, &(kind as u16).to_be_bytes())
    }

    /// Loads the name of the port, into four registers.
    #[must_use]
    pub fn load_input_interface(self, to: Register) -> Self {
        self.meta_to(Meta::InputInterface, to.number())
    }

    /// Loads the address that the frame comes from, into two registers.
    #[must_use]
    pub fn load_ethernet_source(self, to: Register) -> Self {
        self.payload_to(Base::Link, 6, 6, to.number())
    }

    /// Loads the Ethernet address that an ARP packet says its sender has, into two registers (RFC 826, for addresses of
    /// Ethernet and IPv4).
    #[must_use]
    pub fn load_arp_sender(self, to: Register) -> Self {
        self.payload_to(Base::Network, 8, 6, to.number())
    }

    /// Loads the IPv4 address that an ARP packet says its sender has.
    #[must_use]
    pub fn load_arp_source(self, to: Register) -> Self {
        self.payload_to(Base::Network, 14, 4, to.number())
    }

    /// Condition: an ARP packet's sender says that it has no address yet.
    #[must_use]
    pub fn arp_source_is_unspecified(self) -> Self {
        self.load_arp_source(Register(0)).compare_with_zeros(4)
    }

    /// Loads the address that a neighbour advertisement is about, into four registers (RFC 4861, 4.4). The packet must be
    /// one.
    #[must_use]
    pub fn load_neighbour_target(self, to: Register) -> Self {
        self.payload_to(Base::Transport, 8, 16, to.number())
    }

    /// Condition: the source in the header of IP is nobody's. The packet must be of `family`.
    #[must_use]
    pub fn source_is_unspecified(self, family: IpFamily) -> Self {
        let length = match family {
            IpFamily::V4 => 4,
            IpFamily::V6 => 16,
        };
        self.load_header_address(super::End::Source, family, Register(0)).compare_with_zeros(length)
    }

    /// Condition on what was loaded into the first registers.
    fn compare_with_zeros(self, length: usize) -> Self {
        const { assert!(REGISTER_1 == 1, "the first register, and the four small ones that it is made of") };
        self.compare(Is::Equal, &[0; 16][..length])
    }
}

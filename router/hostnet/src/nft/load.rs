//! Expressions of programs: what is known of a packet goes into registers, and registers ask sets and maps.
//!
//! A rule may only read what it loaded itself; registers do not outlive it (Linux since 6.4 checks that).

use super::{
    attribute::Attributes,
    expression::{Base, End, Expressions, Is, Meta, REGISTER_1, REGISTER_VERDICT, value},
};

/// The longest key that [`Expressions::begin_key`] begins, in bytes: the length of the shortest IP header.
pub const LONGEST_KEY: usize = 20;

/// The longest constant that a rule can load, in bytes (`struct nft_data`).
const LONGEST_CONSTANT: usize = 16;

/// Sixteen registers of 32 bits, numbered from 0. What is longer takes those that follow; what is shorter takes one,
/// padded with zeros. Keys of several parts are read from registers in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    /// As the kernel numbers it (`NFT_REG32_00` is 8).
    pub(super) fn number(self) -> u32 {
        8 + u32::from(self.0 % 16)
    }
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpFamily {
    /// Addresses of 4 bytes.
    V4,
    /// Addresses of 16 bytes.
    V6,
}

/// Packets of a connection in the direction of the first one, or against it. With the destination translated, the
/// source of replies is whom the connection really went to; with the source translated, the original source is who
/// really opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As the first packet came in, before any translation.
    Original = 0,
    /// As answers come in, before they are translated back.
    Reply = 1,
}

/// What connection tracking says about a packet (`NF_CT_STATE_BIT`). Several can be asked for at once by `|` of their
/// [bits](ConnectionState::bit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// It fits no connection.
    Invalid = 1,
    /// Of a connection of which both directions were seen.
    Established = 2,
    /// It belongs to a connection in another way: ICMP errors, data connections.
    Related = 4,
    /// Of a connection of which one direction was seen.
    New = 8,
    /// Connection tracking was told to leave it alone, or always does.
    Untracked = 64,
}

impl ConnectionState {
    /// Its bit in a mask.
    #[must_use]
    pub const fn bit(self) -> u32 {
        self as u32
    }
}

impl Expressions {
    /// Condition: the packet is of this family.
    #[must_use]
    pub fn is_family(self, family: IpFamily) -> Self {
        // NFPROTO_IPV4, NFPROTO_IPV6.
        let number = match family {
            IpFamily::V4 => 2,
            IpFamily::V6 => 10,
        };
        self.meta(Meta::NetworkProtocol).compare(Is::Equal, &[number])
    }

    /// Condition: the packet arrived as it is, not out of IPsec. For [`Hook::Input`](super::Hook::Input) and
    /// [`Hook::Forward`](super::Hook::Forward).
    #[must_use]
    pub fn came_in_the_clear(self) -> Self {
        self.meta(Meta::Decrypted).compare(Is::Equal, &[0])
    }

    /// Condition: the packet's route leads through no IPsec. For [`Hook::Output`](super::Hook::Output).
    #[must_use]
    pub fn leaves_in_the_clear(self) -> Self {
        // NFTA_RT_DREG, NFTA_RT_KEY, NFT_RT_XFRM (Linux since 4.20).
        const DESTINATION: u16 = 1;
        const KEY: u16 = 2;
        const IS_TRANSFORMED: u32 = 4;
        let load = Attributes::default().number(DESTINATION, REGISTER_1).number(KEY, IS_TRANSFORMED);
        self.push("rt", &load).compare(Is::Equal, &[0])
    }

    /// Condition: connection tracking says one of the states in `mask`.
    #[must_use]
    pub fn connection_state(self, mask: u32) -> Self {
        const STATE: u32 = 0;
        self.connection(STATE, None, REGISTER_1).mask(&mask.to_ne_bytes()).compare(Is::Different, &[0; 4])
    }

    /// Condition: the destination is a multicast group.
    #[must_use]
    pub fn is_multicast(self, family: IpFamily) -> Self {
        // The prefixes 224.0.0.0/4 and ff00::/8.
        let (offset, mask, prefix) = match family {
            IpFamily::V4 => (16, [0xf0], [0xe0]),
            IpFamily::V6 => (24, [0xff], [0xff]),
        };
        let first_byte = self.is_family(family).payload_to(Base::Network, offset, 1, REGISTER_1);
        first_byte.mask(&mask).compare(Is::Equal, &prefix)
    }

    /// Condition: an ICMPv6 message whose type is from `first` to `last`.
    #[must_use]
    pub fn icmpv6_type(self, first: u8, last: u8) -> Self {
        const ICMPV6: u8 = 58;
        let icmp = self.meta(Meta::TransportProtocol).compare(Is::Equal, &[ICMPV6]);
        let kind = icmp.payload_to(Base::Transport, 0, 1, REGISTER_1);
        kind.compare(Is::AtLeast, &[first]).compare(Is::AtMost, &[last])
    }

    /// Loads the source of one way of the connection. Also a condition: there is a connection, and it is of `family`.
    #[must_use]
    pub fn load_connection_source(self, way: Way, family: IpFamily, to: Register) -> Self {
        // NFT_CT_SRC_IP, NFT_CT_SRC_IP6.
        let key = match family {
            IpFamily::V4 => 19,
            IpFamily::V6 => 21,
        };
        self.connection(key, Some(way), to.number())
    }

    /// Loads the source port of one way of the connection, or what its protocol has instead. Also a condition: there is
    /// a connection.
    #[must_use]
    pub fn load_connection_port(self, way: Way, to: Register) -> Self {
        const PROTO_SRC: u32 = 11;
        self.connection(PROTO_SRC, Some(way), to.number())
    }

    /// Loads an address from the header. The packet must be of `family`.
    #[must_use]
    pub fn load_header_address(self, end: End, family: IpFamily, to: Register) -> Self {
        // Offsets in the IPv4 and the IPv6 header (RFC 791, RFC 8200).
        let (offset, length) = match (family, end) {
            (IpFamily::V4, End::Source) => (12, 4),
            (IpFamily::V4, End::Destination) => (16, 4),
            (IpFamily::V6, End::Source) => (8, 16),
            (IpFamily::V6, End::Destination) => (24, 16),
        };
        self.payload_to(Base::Network, offset, length, to.number())
    }

    /// Loads the third and fourth byte behind the IP header: the destination port of TCP, UDP and SCTP. Also a
    /// condition: the packet is no later fragment.
    #[must_use]
    pub fn load_header_port(self, to: Register) -> Self {
        self.payload_to(Base::Transport, 2, 2, to.number())
    }

    /// Loads the number of the protocol behind IP.
    #[must_use]
    pub fn load_protocol(self, to: Register) -> Self {
        self.meta_to(Meta::TransportProtocol, to.number())
    }

    /// Loads a number.
    #[must_use]
    pub fn load_number(self, number: u32, to: Register) -> Self {
        const DESTINATION: u16 = 1;
        const DATA: u16 = 2;
        let data = value(&number.to_ne_bytes());
        self.push("immediate", &Attributes::default().number(DESTINATION, to.number()).nested(DATA, &data))
    }

    /// Condition: the set has the key that begins in this register.
    #[must_use]
    pub fn is_in_set(self, set: &str, key: Register) -> Self {
        self.push("lookup", &look_up(set, key))
    }

    /// Condition: the set does not have the key that begins in this register.
    #[must_use]
    pub fn is_not_in_set(self, set: &str, key: Register) -> Self {
        const FLAGS: u16 = 5;
        const INVERTED: u32 = 1;
        self.push("lookup", &look_up(set, key).number(FLAGS, INVERTED))
    }

    /// Loads what the map has for the key that begins in a register. Also a condition: it has something.
    #[must_use]
    pub fn load_from_map(self, map: &str, key: Register, to: Register) -> Self {
        const DESTINATION: u16 = 3;
        self.push("lookup", &look_up(map, key).number(DESTINATION, to.number()))
    }

    /// Begins a key of `length` bytes, at most [`LONGEST_KEY`], whose parts come from maps: its first part is the number 0,
    /// at `at`, which is not the first register; what follows has to be loaded after this.
    ///
    /// The nft tool (1.0.6) fails an assertion over keys of such parts, whose lengths it does not know, and with it
    /// everybody who lists tables. It asks for the length of the first register only, and only if that does not fill the
    /// key. So as much as can be is loaded there at once: a constant, or where the key is longer than any, a piece of
    /// the header, and then 0 over the beginning of it, from the register before.
    #[must_use]
    pub fn begin_key(self, at: Register, length: usize) -> Self {
        if length <= LONGEST_CONSTANT {
            return self.load_zeros(LONGEST_CONSTANT, at);
        }
        let before = Register(at.0.saturating_sub(1));
        self.payload_to(Base::Network, 0, LONGEST_KEY, at.number()).load_zeros(8, before)
    }

    fn load_zeros(self, length: usize, to: Register) -> Self {
        const DESTINATION: u16 = 1;
        const DATA: u16 = 2;
        let zeros = value(&[0; LONGEST_CONSTANT][..length.min(LONGEST_CONSTANT)]);
        self.push("immediate", &Attributes::default().number(DESTINATION, to.number()).nested(DATA, &zeros))
    }

    /// Goes on in another chain, and comes back here if that ends without a verdict (`NFT_JUMP`).
    #[must_use]
    pub fn jump(self, chain: &str) -> Self {
        const JUMP: i32 = -3;
        self.verdict_to(JUMP, chain)
    }

    /// Goes on in another chain, and if that ends without a verdict, where this one was jumped from, or with the policy of
    /// its hook (`NFT_GOTO`).
    #[must_use]
    pub fn go_to(self, chain: &str) -> Self {
        const GOTO: i32 = -4;
        self.verdict_to(GOTO, chain)
    }

    fn verdict_to(self, code: i32, chain: &str) -> Self {
        const DESTINATION: u16 = 1;
        const DATA: u16 = 2;
        const DATA_VERDICT: u16 = 2;
        const CODE: u16 = 1;
        const CHAIN: u16 = 2;
        let verdict = Attributes::default().bytes(CODE, &code.to_be_bytes()).text(CHAIN, chain);
        let data = Attributes::default().nested(DATA_VERDICT, &verdict);
        let immediate = Attributes::default().number(DESTINATION, REGISTER_VERDICT).nested(DATA, &data);
        self.push("immediate", &immediate)
    }

    /// Counts packets and bytes.
    #[must_use]
    pub fn count(self) -> Self {
        const BYTES: u16 = 1;
        const PACKETS: u16 = 2;
        let zero = 0u64.to_be_bytes();
        self.push("counter", &Attributes::default().bytes(BYTES, &zero).bytes(PACKETS, &zero))
    }

    fn connection(self, key: u32, way: Option<Way>, register: u32) -> Self {
        const DESTINATION: u16 = 1;
        const KEY: u16 = 2;
        const DIRECTION: u16 = 3;
        let load = Attributes::default().number(DESTINATION, register).number(KEY, key);
        let load = match way {
            Some(way) => load.bytes(DIRECTION, &[way as u8]),
            None => load,
        };
        self.push("ct", &load)
    }
}

fn look_up(set: &str, key: Register) -> Attributes {
    const SET: u16 = 1;
    const SOURCE: u16 = 2;
    Attributes::default().text(SET, set).number(SOURCE, key.number())
}

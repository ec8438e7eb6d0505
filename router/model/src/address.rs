//! Overlay addresses as users write them.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A subnet without host bits, such as `10.32.0.0/12`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpNet", into = "IpNet")]
pub struct Subnet(IpNet);

/// An address with the prefix length of its subnet, such as `10.32.0.7/12`: what an interface is given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interface(pub IpNet);

/// Text that is no address, subnet or address request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `address/prefix`.
    #[error("`{0}` is not an address with a prefix length, such as 10.32.0.7/12")]
    Syntax(String),
    /// A subnet was wanted and bits behind the prefix are set.
    #[error("`{given}` has host bits set; the subnet is {subnet}")]
    HostBits {
        /// What was written.
        given: IpNet,
        /// The subnet that it lies in.
        subnet: IpNet,
    },
}

impl Subnet {
    /// The subnet that `net` names.
    ///
    /// # Errors
    /// When bits behind the prefix are set.
    pub fn new(net: IpNet) -> Result<Self, AddressError> {
        let subnet = net.trunc();
        if subnet == net { Ok(Self(net)) } else { Err(AddressError::HostBits { given: net, subnet }) }
    }

    /// The subnet as an `ipnet` value.
    #[must_use]
    pub const fn net(self) -> IpNet {
        self.0
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl Interface {
    /// The bare address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0.addr()
    }

    /// The subnet that the address lies in.
    #[must_use]
    pub fn subnet(self) -> Subnet {
        Subnet(self.0.trunc())
    }
}

/// What a user asks for: `10.2.1.7/24`, `ip:10.2.1.7/24`, `net:10.2.1.0/24` or `net:default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressSpec {
    /// Exactly this address.
    Ip(Interface),
    /// Any free address of this subnet.
    Net(Subnet),
    /// Any free address of the default subnet.
    NetDefault,
}

impl TryFrom<IpNet> for Subnet {
    type Error = AddressError;

    fn try_from(net: IpNet) -> Result<Self, Self::Error> {
        Self::new(net)
    }
}

impl From<Subnet> for IpNet {
    fn from(subnet: Subnet) -> Self {
        subnet.0
    }
}

impl FromStr for Subnet {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(parse_net(text)?)
    }
}

impl FromStr for Interface {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_net(text).map(Self)
    }
}

impl FromStr for AddressSpec {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "net:default" {
            return Ok(Self::NetDefault);
        }
        if let Some(subnet) = text.strip_prefix("net:") {
            return subnet.parse().map(Self::Net);
        }
        text.strip_prefix("ip:").unwrap_or(text).parse().map(Self::Ip)
    }
}

fn parse_net(text: &str) -> Result<IpNet, AddressError> {
    text.parse().map_err(|_| AddressError::Syntax(text.to_owned()))
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for AddressSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(interface) => write!(f, "ip:{interface}"),
            Self::Net(subnet) => write!(f, "net:{subnet}"),
            Self::NetDefault => f.write_str("net:default"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_request_is_understood() {
        assert_eq!("net:default".parse(), Ok(AddressSpec::NetDefault));
        assert_eq!("net:10.2.1.0/24".parse(), Ok(AddressSpec::Net("10.2.1.0/24".parse().unwrap())));
        let exact = AddressSpec::Ip("10.2.1.7/24".parse().unwrap());
        assert_eq!("10.2.1.7/24".parse(), Ok(exact));
        assert_eq!("ip:10.2.1.7/24".parse(), Ok(exact));
        assert_eq!("ip:fd00::7/64".parse(), Ok(AddressSpec::Ip("fd00::7/64".parse().unwrap())));
    }

    #[test]
    fn a_subnet_with_host_bits_is_refused_and_the_right_one_is_named() {
        let error = "net:10.2.1.7/24".parse::<AddressSpec>().unwrap_err();
        assert_eq!(error.to_string(), "`10.2.1.7/24` has host bits set; the subnet is 10.2.1.0/24");
    }
}

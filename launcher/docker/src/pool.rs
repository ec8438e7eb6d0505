//! Pools of addresses, as the engine keeps them: all that a pool is, is in its id.

use std::{fmt, net::IpAddr, str::FromStr};

use weave_model::{Interface, Subnet};

/// A subnet of the network and, if it is to take addresses from a part of it only, that part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pool {
    pub(crate) subnet: Subnet,
    pub(crate) part: Option<Subnet>,
}

impl Pool {
    /// # Errors
    /// When the part is not in the subnet.
    pub(crate) fn new(subnet: Subnet, part: Option<Subnet>) -> Result<Self, String> {
        match part {
            Some(part) if !subnet.net().contains(&part.net()) => {
                Err(format!("the range {part} is not within {subnet}"))
            }
            part => Ok(Self { subnet, part: part.filter(|part| *part != subnet) }),
        }
    }

    /// Where addresses come from that nobody chose.
    pub(crate) fn source(&self) -> Subnet {
        self.part.unwrap_or(self.subnet)
    }

    /// An address with the prefix length of the whole subnet.
    ///
    /// # Errors
    /// When it is not in the subnet.
    pub(crate) fn interface(&self, address: IpAddr) -> Result<Interface, String> {
        if !self.subnet.contains(address) {
            return Err(format!("{address} is not within {}", self.subnet));
        }
        format!("{address}/{}", self.subnet.net().prefix_len()).parse().map_err(|e| format!("{e}"))
    }

    /// What is said to be the gateway: the subnet's own address, which no container has, so that none is spent.
    pub(crate) fn no_gateway(&self) -> String {
        self.subnet.to_string()
    }
}

/// `weave/10.32.0.0/12` or `weave/10.32.0.0/12/10.32.8.0/24`.
impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weave/{}", self.subnet)?;
        match self.part {
            Some(part) => write!(f, "/{part}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(id: &str) -> Result<Self, String> {
        let wrong = || format!("`{id}` is not a pool of weave");
        let words: Vec<&str> = id.split('/').collect();
        let subnet = |address: &str, prefix: &str| -> Result<Subnet, String> {
            format!("{address}/{prefix}").parse().map_err(|_| wrong())
        };
        match words.as_slice() {
            ["weave", address, prefix] => Self::new(subnet(address, prefix)?, None),
            ["weave", address, prefix, part, part_prefix] => {
                Self::new(subnet(address, prefix)?, Some(subnet(part, part_prefix)?))
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_its_id_and_nothing_else() {
        for (subnet, part) in [
            ("10.32.0.0/12", None),
            ("10.32.0.0/12", Some("10.40.1.0/24")),
            ("fd00::/64", None),
            ("fd00::/64", Some("fd00::100/120")),
        ] {
            let part = part.map(|p: &str| p.parse().unwrap());
            let pool = Pool::new(subnet.parse().unwrap(), part).unwrap();
            assert_eq!(pool.to_string().parse::<Pool>().unwrap(), pool);
        }
        for bad in
            ["", "weave", "weave/10.32.0.0", "weave/10.32.0.0/12/10.0.0.0/24", "x/10.32.0.0/12", "weave/a/b"]
        {
            assert!(bad.parse::<Pool>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_of_a_part_has_the_prefix_of_the_whole() {
        let pool = Pool::new("10.32.0.0/12".parse().unwrap(), Some("10.40.1.0/24".parse().unwrap())).unwrap();
        let interface = pool.interface("10.40.1.9".parse().unwrap()).unwrap();
        assert_eq!(interface.to_string(), "10.40.1.9/12");
        assert!(pool.interface("10.64.0.1".parse().unwrap()).is_err());
    }
}

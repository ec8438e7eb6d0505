//! Whom to dial.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use weave_model::DEFAULT_PORT;

/// The longest host name in DNS, in bytes (RFC 1035 section 2.3.4).
const MAX_HOST: usize = 253;

/// Where another router listens, as the operator writes it: `host`, `host:port`, an address, or `[v6]:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A plain address.
    Address(SocketAddr),
    /// A name that is resolved afresh at each attempt.
    Host {
        /// The name, in lower case.
        name: String,
        /// UDP port.
        port: u16,
    },
}

/// Text that names no place to dial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing, or not the shape of a host name.
    #[error(
        "`{0}` is neither an address nor a host name; write host, host:port, 192.0.2.7:6783 or [2001:db8::7]:6783"
    )]
    Syntax(String),
    /// A port that is zero or no number up to 65535.
    #[error("`{0}` has no valid port; a port is a number from 1 to 65535")]
    Port(String),
}

impl Target {
    /// The address, where it is known without a resolver.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Host { .. } => None,
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self::Address(SocketAddr::new(ip, DEFAULT_PORT)));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err(TargetError::Port(text.to_owned()))
            } else {
                Ok(Self::Address(address))
            };
        }
        let (name, port) = match text.split_once(':') {
            None => (text, DEFAULT_PORT),
            Some((name, port)) => {
                let port = port.parse().ok().filter(|p| *p != 0);
                (name, port.ok_or_else(|| TargetError::Port(text.to_owned()))?)
            }
        };
        if is_host(name) {
            Ok(Self::Host { name: name.to_ascii_lowercase(), port })
        } else {
            Err(TargetError::Syntax(text.to_owned()))
        }
    }
}

fn is_host(name: &str) -> bool {
    let labels_fit = name.trim_end_matches('.').split('.').all(|label| (1..=63).contains(&label.len()));
    // A name of digits and dots only would be an address that did not parse, such as 10.0.0.300.
    let is_number = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let allowed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    name.len() <= MAX_HOST && labels_fit && allowed && !is_number
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_target_is_understood() {
        for (text, shown) in [
            ("192.0.2.7", "192.0.2.7:6783"),
            ("192.0.2.7:99", "192.0.2.7:99"),
            ("2001:db8::7", "[2001:db8::7]:6783"),
            ("[2001:db8::7]", "[2001:db8::7]:6783"),
            ("[2001:db8::7]:99", "[2001:db8::7]:99"),
            ("Host-2.example", "host-2.example:6783"),
            ("host2:99", "host2:99"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn junk_is_refused_with_its_own_text() {
        for text in
            ["", ":6783", "host:0", "host:70000", "192.0.2.7:0", "10.0.0.300", "a b", "host:1:2", "a..b"]
        {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

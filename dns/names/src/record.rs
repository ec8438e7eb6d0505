//! One name of one container, and the fact that carries it.
//!
//! The key says everything that tells two records of a peer apart; the value says the rest:
//!
//! ```text
//! key    1 (version), postcard (name: str, container: str, address: IpAddr, service: Option<(label: str, transport)>)
//! value  1 (version), postcard (port: u16, 0 without a service)
//! ```
//!
//! A key has exactly one encoding, so that equal records have equal keys on every router.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};
use weave_model::ContainerId;

use crate::name::{Domain, Name};

/// The format of keys and values. A later one lives under other keys, beside this one.
const VERSION: u8 = 1;
/// The longest key, in bytes: a name of 253, a container id of 200, an IPv6 address, a label of 63, and framing.
pub const MAX_KEY_LEN: usize = 560;
/// The longest value, in bytes.
pub const MAX_VALUE_LEN: usize = 8;

/// One address of one container under one name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Record {
    /// The fully qualified name, below the domain.
    pub hostname: Name,
    /// Whose name it is.
    pub container: ContainerId,
    /// Where the container is reached.
    pub address: IpAddr,
    /// What listens there, when that was said.
    pub service: Option<Service>,
}

/// A service for SRV answers (RFC 2782), such as `_http._tcp` on port 80.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Service {
    /// The service's name without the underscore, in lower case: 1 to 62 of letters, digits and `-`.
    name: Box<str>,
    /// What it is spoken over.
    transport: Transport,
    /// Where it listens; never 0.
    port: u16,
}

/// What a service is spoken over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A fact for the caller to publish under our own name; `None` takes it back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FactChange {
    /// The fact's key, at most [`MAX_KEY_LEN`] bytes.
    pub key: Vec<u8>,
    /// Its new value, at most [`MAX_VALUE_LEN`] bytes.
    pub value: Option<Vec<u8>>,
}

/// A fact of another router that cannot be used. The table is unchanged; the fact is ignored for ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a version we know: the peer is newer than we are.
    #[error("the name record has format {0}; this router knows format {VERSION}")]
    Version(u8),
    /// Not a record: the peer is broken, or hostile.
    #[error("the name record cannot be decoded")]
    Malformed,
    /// The peer runs with another `--dns-domain`.
    #[error(
        "`{name}` is not below the domain `{domain}.`; routers of one network need the same --dns-domain"
    )]
    OutsideDomain {
        /// The record's name.
        name: Name,
        /// Our domain.
        domain: Domain,
    },
    /// The peer publishes more records than any router may.
    #[error("the peer publishes more than {0} names; the rest is ignored")]
    TooMany(usize),
}

/// Text that is not a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a service; write name/transport:port, such as http/tcp:80")]
pub struct ServiceError(pub String);

impl Service {
    /// A service by its name, with or without the underscore.
    ///
    /// # Errors
    /// When the name is empty, longer than 62 characters or not of letters, digits and `-`, or the port is 0.
    pub fn new(name: &str, transport: Transport, port: u16) -> Result<Self, ServiceError> {
        let bare = name.strip_prefix('_').unwrap_or(name);
        let legal = (1..=62).contains(&bare.len())
            && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && port != 0;
        if !legal {
            return Err(ServiceError(format!("{name}/{transport}:{port}")));
        }
        Ok(Self { name: bare.to_ascii_lowercase().into(), transport, port })
    }

    /// Where it listens; never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The name that SRV queries ask for: `_http._tcp.web.weave.local`. None when that is too long.
    #[must_use]
    pub fn name_for(&self, hostname: &Name) -> Option<Name> {
        format!("_{}._{}.{hostname}", self.name, self.transport).parse().ok()
    }
}

impl FromStr for Service {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ServiceError(text.to_owned());
        let (service, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let (name, transport) = service.rsplit_once('/').ok_or_else(bad)?;
        let transport = match transport.to_ascii_lowercase().as_str() {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            "sctp" => Transport::Sctp,
            _ => return Err(bad()),
        };
        Self::new(name, transport, port.parse().map_err(|_| bad())?).map_err(|_| bad())
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.name, self.transport, self.port)
    }
}

/// What a key holds on the wire.
#[derive(Serialize, Deserialize)]
struct WireKey<'a> {
    name: &'a str,
    container: &'a str,
    address: IpAddr,
    service: Option<(&'a str, Transport)>,
}

impl Record {
    /// The key of the fact that carries this record.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let wire = WireKey {
            name: self.hostname.as_str(),
            container: self.container.as_str(),
            address: self.address,
            service: self.service.as_ref().map(|s| (&*s.name, s.transport)),
        };
        postcard::to_extend(&wire, vec![VERSION]).unwrap_or_else(|_| vec![VERSION])
    }

    /// The value of the fact that carries this record.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        let port = self.service.as_ref().map_or(0, Service::port);
        postcard::to_extend(&port, vec![VERSION]).unwrap_or_else(|_| vec![VERSION])
    }

    /// The fact that publishes this record.
    pub(crate) fn published(&self) -> FactChange {
        FactChange { key: self.key(), value: Some(self.value()) }
    }

    /// The fact that takes this record back.
    pub(crate) fn withdrawn(&self) -> FactChange {
        FactChange { key: self.key(), value: None }
    }

    /// Reads a record out of a fact.
    ///
    /// # Errors
    /// [`RecordError::Version`] or [`RecordError::Malformed`].
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        if key.len() > MAX_KEY_LEN || value.len() > MAX_VALUE_LEN {
            return Err(RecordError::Malformed);
        }
        let wire: WireKey<'_> = body(key)?;
        let port: u16 = body(value)?;
        let service = match wire.service {
            Some((name, transport)) => {
                Some(Service::new(name, transport, port).map_err(|_| RecordError::Malformed)?)
            }
            None => None,
        };
        let record = Self {
            hostname: wire.name.parse().map_err(|_| RecordError::Malformed)?,
            container: wire.container.parse().map_err(|_| RecordError::Malformed)?,
            address: wire.address,
            service,
        };
        // One record, one key: upper case, a trailing dot or a padded length would be a second one.
        if record.key() == key { Ok(record) } else { Err(RecordError::Malformed) }
    }
}

/// Decodes what follows the version byte, all of it.
fn body<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RecordError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((body, [])) => Ok(body),
            Ok(_) | Err(_) => Err(RecordError::Malformed),
        },
        Some((&other, _)) => Err(RecordError::Version(other)),
        None => Err(RecordError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            hostname: "web.weave.local".parse().unwrap(),
            container: "c0ffee".parse().unwrap(),
            address: "10.32.0.1".parse().unwrap(),
            service: Some("http/tcp:80".parse().unwrap()),
        }
    }

    #[test]
    fn a_record_survives_its_fact_at_the_longest_too() {
        let label = "a".repeat(62);
        let longest = Record {
            hostname: [label.as_str(); 4].join(".").parse().unwrap(),
            container: "c".repeat(200).parse().unwrap(),
            address: "fd00::1".parse().unwrap(),
            service: Some(Service::new(&label, Transport::Sctp, 65535).unwrap()),
        };
        for record in [record(), longest, Record { service: None, ..record() }] {
            assert!(record.key().len() <= MAX_KEY_LEN && record.value().len() <= MAX_VALUE_LEN);
            assert_eq!(Record::decode(&record.key(), &record.value()), Ok(record));
        }
    }

    #[test]
    fn a_second_spelling_of_a_key_is_refused() {
        let key = record().key();
        let shouted: Vec<u8> = key.iter().map(|b| if *b == b'w' { b'W' } else { *b }).collect();
        assert_eq!(Record::decode(&shouted, &record().value()), Err(RecordError::Malformed));
        let trailing = [key.as_slice(), &[0]].concat();
        assert_eq!(Record::decode(&trailing, &record().value()), Err(RecordError::Malformed));
    }

    #[test]
    fn a_newer_format_is_told_apart_from_garbage() {
        assert_eq!(Record::decode(&[2, 1, 1], &[1, 0]), Err(RecordError::Version(2)));
        assert_eq!(Record::decode(&[], &[]), Err(RecordError::Malformed));
    }

    #[test]
    fn services_are_read_as_users_write_them() {
        assert_eq!("_HTTP/TCP:80".parse::<Service>().unwrap().to_string(), "http/tcp:80");
        for junk in ["", "http", "http:80", "http/tcp", "http/tcp:0", "http/icmp:1", "/tcp:80", "a b/tcp:1"] {
            assert!(junk.parse::<Service>().is_err(), "{junk}");
        }
    }
}

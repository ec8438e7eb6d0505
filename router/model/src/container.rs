//! Who holds an address.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest identifier accepted, in bytes: room for a 64-digit container id or a namespace path.
const MAX_LEN: usize = 200;

/// The owner of addresses and names: a container, or a reserved owner such as [`ContainerId::expose`].
///
/// Printable ASCII without spaces, slashes or quotes, 1 to 200 bytes, so that it fits in paths and tables as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// An identifier that is empty, too long, or has a character that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerIdError {
    /// Nothing, or more than 200 bytes.
    #[error("a container id has 1 to {MAX_LEN} characters, this one has {0}")]
    Length(usize),
    /// A character outside letters, digits and `_ . : - @ +`.
    #[error("a container id has letters, digits and _ . : - @ + only, not `{0}`")]
    Character(char),
}

impl ContainerId {
    /// The owner of addresses on the host's own bridge (`weave expose`).
    #[must_use]
    pub fn expose() -> Self {
        Self("weave:expose".to_owned())
    }

    /// The owner of stations that the bridge learned and nobody attached.
    #[must_use]
    pub fn learned() -> Self {
        Self("weave:learned".to_owned())
    }

    /// The owner of names that belong to no container (`weave dns-add` without one).
    #[must_use]
    pub fn external() -> Self {
        Self("weave:extern".to_owned())
    }

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve characters, as tables show it; reserved owners are shown whole.
    #[must_use]
    pub fn short(&self) -> &str {
        if self.0.starts_with("weave:") { &self.0 } else { self.0.get(..12).unwrap_or(&self.0) }
    }
}

impl FromStr for ContainerId {
    type Err = ContainerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for ContainerId {
    type Error = ContainerIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() || text.len() > MAX_LEN {
            return Err(ContainerIdError::Length(text.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.:-@+".contains(c);
        match text.chars().find(|c| !allowed(*c)) {
            Some(c) => Err(ContainerIdError::Character(c)),
            None => Ok(Self(text)),
        }
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

//! Names as users and resolvers write them.

use std::{fmt, str::FromStr, sync::Arc};

/// The longest name in text, without the trailing dot (RFC 1035 section 2.3.4: 255 bytes on the wire).
const MAX_NAME: usize = 253;
/// The longest label (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// A fully qualified name in lower case, without the trailing dot: `web.weave.local`.
///
/// Labels have 1 to 63 of letters, digits, `-` and `_`; the whole has at most 253 characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// The domain that containers' names live in, `weave.local` by default. Written with or without the trailing dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Name);

/// A name that cannot be used. Always the caller's fault; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or only a dot.
    #[error("the name is empty; give at least one label, such as `web`")]
    Empty,
    /// More than 253 characters, the domain included.
    #[error("the name has {0} characters with its domain; at most {MAX_NAME} fit into DNS")]
    TooLong(usize),
    /// A label that is empty or longer than 63 characters.
    #[error("`{0}` has a label that is empty or longer than {MAX_LABEL} characters")]
    Label(String),
    /// A character outside letters, digits, `-` and `_`.
    #[error("names have letters, digits, `-` and `_` between their dots, not `{0}`")]
    Character(char),
    /// A fully qualified name that is not below the domain.
    #[error("`{name}` is not below the domain `{domain}.`; only names below it are served")]
    OutsideDomain {
        /// The name as it was given.
        name: String,
        /// The domain that it should have ended in.
        domain: Domain,
    },
    /// This router publishes as many records as it may.
    #[error("this router publishes {0} names already, which is the most it may; remove some first")]
    TooMany(usize),
}

impl Name {
    /// The text, without the trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels, the leftmost first.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// The name without its leftmost label.
    pub(crate) fn parent(&self) -> Option<Self> {
        self.0.split_once('.').map(|(_, parent)| Self(parent.into()))
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Parses a fully qualified name, with or without the trailing dot, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.is_empty() {
            return Err(NameError::Empty);
        }
        if bare.len() > MAX_NAME {
            return Err(NameError::TooLong(bare.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if let Some(c) = bare.chars().find(|c| *c != '.' && !allowed(*c)) {
            return Err(NameError::Character(c));
        }
        if bare.split('.').any(|label| label.is_empty() || label.len() > MAX_LABEL) {
            return Err(NameError::Label(text.to_owned()));
        }
        Ok(Self(bare.to_ascii_lowercase().into()))
    }
}

impl Domain {
    /// The domain as a name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.0
    }

    /// Whether `name` is below the domain (the domain itself is not).
    #[must_use]
    pub fn contains(&self, name: &Name) -> bool {
        self.host(name).is_some()
    }

    /// The part of `name` in front of the domain: `web` of `web.weave.local`. None when it is outside.
    #[must_use]
    pub fn host<'a>(&self, name: &'a Name) -> Option<&'a str> {
        below(name.as_str().as_bytes(), self.0.as_str().as_bytes()).and_then(|len| name.as_str().get(..len))
    }

    /// Completes what a user wrote: a single label gets the domain; what ends in the domain is taken as it is.
    ///
    /// # Errors
    /// When the name is malformed, or has a dot at its end or several labels and is not below the domain.
    pub fn complete(&self, text: &str) -> Result<Name, NameError> {
        let name: Name = text.parse()?;
        if self.contains(&name) {
            return Ok(name);
        }
        if text.ends_with('.') || name.as_str().contains('.') {
            return Err(NameError::OutsideDomain { name: text.to_owned(), domain: self.clone() });
        }
        format!("{name}.{self}").parse()
    }
}

impl Default for Domain {
    fn default() -> Self {
        Self(Name("weave.local".into()))
    }
}

impl FromStr for Domain {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A name out of a query: any bytes a resolver may send, in lower case, on the stack.
#[derive(Clone, Copy)]
pub struct QueryName {
    bytes: [u8; MAX_NAME],
    len: u8,
    labels: u8,
}

impl QueryName {
    /// Takes a query's labels, the leftmost first.
    ///
    /// None when they do not fit into a name, or when one is empty or has a dot of its own (legal on the wire, but
    /// never in a name of ours).
    #[must_use]
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut name = Self { bytes: [0; MAX_NAME], len: 0, labels: 0 };
        for label in labels {
            if name.labels > 0 {
                name.push(b".")?;
            }
            if label.is_empty() || label.contains(&b'.') {
                return None;
            }
            name.push(label)?;
            name.labels += 1;
        }
        Some(name)
    }

    /// Takes a name as text, with or without the trailing dot.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        Self::from_labels(bare.split('.').map(str::as_bytes))
    }

    /// The name in lower case, labels joined by dots, without a dot at the end.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// How many labels it has; the root has none.
    #[must_use]
    pub const fn labels(&self) -> u8 {
        self.labels
    }

    /// Whether it is the domain or below it.
    #[must_use]
    pub fn is_within(&self, domain: &Domain) -> bool {
        let domain = domain.name().as_str().as_bytes();
        self.as_bytes() == domain || below(self.as_bytes(), domain).is_some()
    }

    /// The name with the domain behind it. None when that is too long.
    #[must_use]
    pub fn within(mut self, domain: &Domain) -> Option<Self> {
        self.push(b".")?;
        self.push(domain.name().as_str().as_bytes())?;
        self.labels = self.labels.checked_add(u8::try_from(domain.name().labels().count()).ok()?)?;
        Some(self)
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let start = usize::from(self.len);
        let room = self.bytes.get_mut(start..start + bytes.len())?;
        room.copy_from_slice(bytes);
        room.make_ascii_lowercase();
        self.len = u8::try_from(start + bytes.len()).ok()?;
        Some(())
    }
}

impl fmt::Debug for QueryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

/// The length of what stands in front of `.domain` in `name`.
fn below(name: &[u8], domain: &[u8]) -> Option<usize> {
    let host = name.strip_suffix(domain)?.strip_suffix(b".")?;
    (!host.is_empty()).then_some(host.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_the_same_with_and_without_its_dot_and_in_any_case() {
        assert_eq!("Weave.Local.".parse::<Domain>(), "weave.local".parse::<Domain>());
        for junk in ["", ".", "..", "a..b", ".a", "a b", "ä", &"a".repeat(64), &"a.".repeat(128)] {
            assert!(junk.parse::<Domain>().is_err(), "{junk}");
        }
        assert!("a.".repeat(127).parse::<Domain>().is_ok(), "253 characters and the dot");
    }

    #[test]
    fn bare_names_are_completed_and_foreign_ones_refused() {
        let domain = Domain::default();
        let complete = |text: &str| domain.complete(text).map(|n| n.as_str().to_owned());
        assert_eq!(complete("Web"), Ok("web.weave.local".to_owned()));
        assert_eq!(complete("a.b.WEAVE.local."), Ok("a.b.weave.local".to_owned()));
        for outside in ["web.", "web.example.com", "weave.local", "notweave.local", "xweave.local."] {
            assert!(matches!(complete(outside), Err(NameError::OutsideDomain { .. })), "{outside}");
        }
        assert!(matches!(complete(&"a".repeat(64)), Err(NameError::Label(_))));
        let long = format!("{}.weave.local", ["a".repeat(60).as_str(); 4].join("."));
        assert!(matches!(complete(&long), Err(NameError::TooLong(_))));
    }

    #[test]
    fn a_query_may_hold_any_bytes_without_ever_matching_by_accident() {
        let domain = Domain::default();
        let parse = |labels: &[&[u8]]| QueryName::from_labels(labels.iter().copied());
        assert!(parse(&[b"web", b"WEAVE", b"local"]).is_some_and(|n| n.is_within(&domain)));
        assert!(parse(&[b"weave", b"local"]).is_some_and(|n| n.is_within(&domain)));
        assert!(parse(&[b"xweave", b"local"]).is_some_and(|n| !n.is_within(&domain)));
        assert!(parse(&[b"web.weave", b"local"]).is_none());
        assert!(parse(&[[b'a'; 63].as_slice(); 4]).is_none());
        assert_eq!(parse(&[]).map(|n| n.labels()), Some(0));
    }
}

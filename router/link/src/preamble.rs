//! The part of both hellos that everybody can read: versions, features, and whether there is a password.

use std::fmt;

use crate::{
    error::HandshakeError,
    wire::{Problem, Reader},
};

/// The bytes that tell this protocol from others.
const MAGIC: [u8; 8] = *b"WEAVELNK";

/// Tag, magic, versions, features, flags and random.
pub(crate) const PREAMBLE_LEN: usize = 38;

const HAS_PASSWORD: u8 = 1;

/// The features that whoever offers them insists on: the upper half of the bits.
const INSISTED: u64 = 0xffff_ffff_0000_0000;

/// The link protocol versions that this crate speaks.
pub const VERSIONS: VersionRange = VersionRange { oldest: 1, newest: 1 };

/// An inclusive range of protocol versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// The oldest version spoken.
    pub oldest: u16,
    /// The newest version spoken.
    pub newest: u16,
}

/// The readable part of a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preamble {
    pub(crate) versions: VersionRange,
    pub(crate) features: u64,
    pub(crate) has_password: bool,
    pub(crate) random: [u8; 16],
}

/// What both ends have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) version: u16,
    pub(crate) features: u64,
}

impl VersionRange {
    /// The newest version that is in both ranges.
    fn newest_common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl Preamble {
    pub(crate) fn encode(&self, tag: u8) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PREAMBLE_LEN);
        bytes.push(tag);
        bytes.extend(MAGIC);
        bytes.extend(self.versions.oldest.to_be_bytes());
        bytes.extend(self.versions.newest.to_be_bytes());
        bytes.extend(self.features.to_be_bytes());
        bytes.push(u8::from(self.has_password) * HAS_PASSWORD);
        bytes.extend(self.random);
        bytes
    }

    /// Reads the other end's preamble. Magic and versions come first and never change their place, so that
    /// any two releases can tell each other what they speak; the rest is read only if we speak it too.
    pub(crate) fn decode(
        reader: &mut Reader<'_>,
        tag: u8,
        ours: VersionRange,
    ) -> Result<Self, HandshakeError> {
        reader.tag(tag)?;
        if reader.array()? != MAGIC {
            return Err(HandshakeError::NotWeave);
        }
        let versions = VersionRange { oldest: reader.u16()?, newest: reader.u16()? };
        if versions.oldest > versions.newest {
            return Err(reader.error(Problem::Field("version range")));
        }
        if ours.newest_common(versions).is_none() {
            return Err(HandshakeError::VersionMismatch { ours, theirs: versions });
        }
        let features = reader.u64()?;
        let has_password = match reader.u8()? {
            0 => false,
            HAS_PASSWORD => true,
            _ => return Err(reader.error(Problem::Field("flags"))),
        };
        Ok(Self { versions, features, has_password, random: reader.array()? })
    }

    /// Compares both ends' preambles.
    ///
    /// # Errors
    /// When they have no version in common, when one end insists on a feature that the other lacks, or when
    /// only one has a password; or when `remote` is `self`, sent back.
    pub(crate) fn agree(&self, remote: &Self) -> Result<Agreement, HandshakeError> {
        if self.random == remote.random {
            return Err(HandshakeError::Reflected);
        }
        let (ours, theirs) = (self.versions, remote.versions);
        let Some(version) = ours.newest_common(theirs) else {
            return Err(HandshakeError::VersionMismatch { ours, theirs });
        };
        let unknown_here = remote.features & INSISTED & !self.features;
        let unknown_there = self.features & INSISTED & !remote.features;
        match (unknown_here, unknown_there, self.has_password, remote.has_password) {
            (1.., _, _, _) => Err(HandshakeError::FeaturesUnknownHere(unknown_here)),
            (_, 1.., _, _) => Err(HandshakeError::FeaturesUnknownThere(unknown_there)),
            (_, _, false, true) => Err(HandshakeError::PasswordMissingHere),
            (_, _, true, false) => Err(HandshakeError::PasswordMissingThere),
            (0, 0, _, _) => Ok(Agreement { version, features: self.features & remote.features }),
        }
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { oldest, newest } = self;
        if oldest == newest { write!(f, "{oldest}") } else { write!(f, "{oldest} to {newest}") }
    }
}

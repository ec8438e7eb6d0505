//! Why a handshake ended, in words for the operator of either end, and as the reason code that the other end
//! gets.

use std::fmt;

use crate::{
    preamble::VersionRange,
    wire::{ABORT, Problem, Reader},
};

/// Why a link did not come up. Each text says what is wrong and, where somebody can help it, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The first message is none of ours: another program answers there.
    #[error(
        "the other side does not speak the weave link protocol; check that the address is a weave router's"
    )]
    NotWeave,
    /// A message that cannot be parsed.
    #[error(
        "the other side's {message} cannot be read: {problem}; check that both routers run the same release"
    )]
    Malformed {
        /// Which message.
        message: &'static str,
        /// What is wrong with it.
        problem: Problem,
    },
    /// A message that is well known, but not now.
    #[error(
        "the other side sent message {got} where its {expected} was due; \
         check that both routers run the same release"
    )]
    OutOfTurn {
        /// The tag of what came.
        got: u8,
        /// What should have come.
        expected: &'static str,
    },
    /// Our own random value came back: the other side is a mirror.
    #[error("the other side sends our own messages back; check what answers at this address")]
    Reflected,
    /// A proof that does not fit this connection and what was said on it.
    #[error(
        "the other side's proof does not fit this connection; something between the two routers intercepts it"
    )]
    NotAuthentic,
    /// A public key that anybody could claim.
    #[error("the other side claims a public key that has no owner; make it a new identity")]
    WeakKey,
    /// No protocol version in common.
    #[error("we speak link protocol version {ours}, the other side {theirs}; upgrade the older router")]
    VersionMismatch {
        /// What we speak.
        ours: VersionRange,
        /// What the other side speaks.
        theirs: VersionRange,
    },
    /// The other side insists on features that we do not have.
    #[error(
        "the other side insists on features {0:#018x}, which this router does not have; upgrade this router"
    )]
    FeaturesUnknownHere(u64),
    /// We insist on features that the other side does not have.
    #[error(
        "this router insists on features {0:#018x}, which the other side does not have; \
         upgrade the other side"
    )]
    FeaturesUnknownThere(u64),
    /// Both ends use passwords, but none fits.
    #[error(
        "wrong password: the other side does not share any of our passwords; \
         start both routers with the same one (--password-file)"
    )]
    WrongPassword,
    /// Only the other end uses a password.
    #[error(
        "the other side uses a password and we do not (start with --password-file and the mesh's password)"
    )]
    PasswordMissingHere,
    /// Only we use a password.
    #[error(
        "we use a password and the other side does not (start the other side with --password-file \
         and the mesh's password)"
    )]
    PasswordMissingThere,
    /// The other end gave up on us for a reason that is not about versions or passwords.
    #[error("the other side ended the handshake: {0}; its log has the details")]
    Refused(Refusal),
    /// A message after the end of the handshake, be it good or bad.
    #[error("the handshake is over, and one more message came")]
    Over,
    /// A failure of our own.
    #[error("the handshake failed on our side: {0}; this is a bug, please report it")]
    Internal(&'static str),
}

/// What the other end said when it gave up on us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot parse our message.
    CannotParse,
    /// It says that we misbehaved, or that something between us did.
    Misbehaved,
    /// It failed by itself.
    Internal,
    /// A reason that this version does not know.
    Other(u8),
}

/// Whose fault the end of a handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A message could not be parsed.
    CannotParse,
    /// A message was well formed and must not be sent.
    Misbehaved,
    /// The ends do not fit: versions or features.
    Incompatible,
    /// The ends do not share a password.
    Password,
    /// We failed ourselves.
    Ours,
}

const MALFORMED: u8 = 1;
const MISBEHAVED: u8 = 2;
const VERSION: u8 = 3;
const SENDER_LACKS_FEATURES: u8 = 4;
const WRONG_PASSWORD: u8 = 5;
const SENDER_HAS_NO_PASSWORD: u8 = 6;
const RECEIVER_HAS_NO_PASSWORD: u8 = 7;
const INTERNAL: u8 = 8;
const RECEIVER_LACKS_FEATURES: u8 = 9;

impl HandshakeError {
    /// Whose fault it is; metrics count by it.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::NotWeave | Self::Malformed { .. } | Self::Refused(Refusal::CannotParse) => {
                Fault::CannotParse
            }
            Self::OutOfTurn { .. }
            | Self::Reflected
            | Self::NotAuthentic
            | Self::WeakKey
            | Self::Over
            | Self::Refused(Refusal::Misbehaved | Refusal::Internal | Refusal::Other(_)) => Fault::Misbehaved,
            Self::VersionMismatch { .. } | Self::FeaturesUnknownHere(_) | Self::FeaturesUnknownThere(_) => {
                Fault::Incompatible
            }
            Self::WrongPassword | Self::PasswordMissingHere | Self::PasswordMissingThere => Fault::Password,
            Self::Internal(_) => Fault::Ours,
        }
    }

    /// Whether the next try may go better by itself. If not, somebody has to change a password or a release
    /// first: keep trying at the slowest pace, and show the reason.
    #[must_use]
    pub const fn retry(&self) -> bool {
        !matches!(self.fault(), Fault::Incompatible | Fault::Password)
    }

    /// Whether it is about passwords: a wrong one, or one that only one end has.
    #[must_use]
    pub const fn is_password_failure(&self) -> bool {
        matches!(self.fault(), Fault::Password)
    }

    /// The abort message that tells the other end; `None` when there is nobody to tell.
    pub(crate) fn to_abort(&self) -> Option<Vec<u8>> {
        let (reason, detail) = match self {
            Self::NotWeave | Self::Malformed { .. } => (MALFORMED, 0),
            Self::OutOfTurn { .. } | Self::Reflected | Self::NotAuthentic | Self::WeakKey => (MISBEHAVED, 0),
            Self::VersionMismatch { ours, .. } => {
                (VERSION, u64::from(ours.oldest) << 48 | u64::from(ours.newest) << 32)
            }
            Self::FeaturesUnknownHere(features) => (SENDER_LACKS_FEATURES, *features),
            Self::FeaturesUnknownThere(features) => (RECEIVER_LACKS_FEATURES, *features),
            Self::WrongPassword => (WRONG_PASSWORD, 0),
            Self::PasswordMissingHere => (SENDER_HAS_NO_PASSWORD, 0),
            Self::PasswordMissingThere => (RECEIVER_HAS_NO_PASSWORD, 0),
            Self::Internal(_) => (INTERNAL, 0),
            // The other end knows it already, or listens no more.
            Self::Refused(_) | Self::Over => return None,
        };
        Some([&[ABORT, reason][..], &detail.to_be_bytes()].concat())
    }

    /// What an abort message of the other end means for us.
    pub(crate) fn from_abort(message: &[u8], ours: VersionRange) -> Self {
        Self::parse_abort(message, ours).unwrap_or_else(|error| error)
    }

    fn parse_abort(message: &[u8], ours: VersionRange) -> Result<Self, Self> {
        let mut reader = Reader::new(message, "abort");
        reader.tag(ABORT)?;
        let reason = reader.u8()?;
        let detail = reader.u64()?;
        reader.finish()?;
        let [a, b, c, d, ..] = detail.to_be_bytes();
        Ok(match reason {
            MALFORMED => Self::Refused(Refusal::CannotParse),
            MISBEHAVED => Self::Refused(Refusal::Misbehaved),
            VERSION => {
                let theirs =
                    VersionRange { oldest: u16::from_be_bytes([a, b]), newest: u16::from_be_bytes([c, d]) };
                Self::VersionMismatch { ours, theirs }
            }
            SENDER_LACKS_FEATURES => Self::FeaturesUnknownThere(detail),
            RECEIVER_LACKS_FEATURES => Self::FeaturesUnknownHere(detail),
            WRONG_PASSWORD => Self::WrongPassword,
            SENDER_HAS_NO_PASSWORD => Self::PasswordMissingThere,
            RECEIVER_HAS_NO_PASSWORD => Self::PasswordMissingHere,
            INTERNAL => Self::Refused(Refusal::Internal),
            other => Self::Refused(Refusal::Other(other)),
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CannotParse => f.write_str("it cannot read our message"),
            Self::Misbehaved => f.write_str("it says that our messages do not fit this connection"),
            Self::Internal => f.write_str("it failed by itself"),
            Self::Other(reason) => write!(f, "reason {reason}, which this release does not know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: VersionRange = VersionRange { oldest: 1, newest: 2 };
    const THEIRS: VersionRange = VersionRange { oldest: 5, newest: 7 };

    fn mirrored(error: &HandshakeError) -> HandshakeError {
        let abort = error.to_abort().unwrap();
        assert_eq!(abort.len(), 10);
        HandshakeError::from_abort(&abort, THEIRS)
    }

    #[test]
    fn the_other_end_learns_the_mirrored_reason() {
        use HandshakeError as E;
        let version = E::VersionMismatch { ours: OURS, theirs: THEIRS };
        assert_eq!(mirrored(&version), E::VersionMismatch { ours: THEIRS, theirs: OURS });
        assert_eq!(mirrored(&E::WrongPassword), E::WrongPassword);
        assert_eq!(mirrored(&E::PasswordMissingHere), E::PasswordMissingThere);
        assert_eq!(mirrored(&E::PasswordMissingThere), E::PasswordMissingHere);
        assert_eq!(mirrored(&E::FeaturesUnknownHere(8 << 32)), E::FeaturesUnknownThere(8 << 32));
        assert_eq!(mirrored(&E::FeaturesUnknownThere(8 << 32)), E::FeaturesUnknownHere(8 << 32));
        assert_eq!(mirrored(&E::NotAuthentic), E::Refused(Refusal::Misbehaved));
        assert_eq!(mirrored(&E::NotWeave), E::Refused(Refusal::CannotParse));
        assert_eq!(mirrored(&E::Internal("x")), E::Refused(Refusal::Internal));
    }

    #[test]
    fn a_version_mismatch_names_both_ranges() {
        let error = HandshakeError::VersionMismatch { ours: OURS, theirs: THEIRS };
        assert_eq!(
            error.to_string(),
            "we speak link protocol version 1 to 2, the other side 5 to 7; upgrade the older router"
        );
    }

    #[test]
    fn a_damaged_abort_is_an_error_too_and_an_unknown_reason_is_told_as_such() {
        let mut abort = HandshakeError::WrongPassword.to_abort().unwrap();
        abort[1] = 99;
        assert_eq!(HandshakeError::from_abort(&abort, OURS), HandshakeError::Refused(Refusal::Other(99)));
        abort.push(0);
        let error = HandshakeError::from_abort(&abort, OURS);
        assert_eq!(error, HandshakeError::Malformed { message: "abort", problem: Problem::Trailing });
    }

    #[test]
    fn what_only_an_operator_can_change_is_not_worth_a_quick_retry() {
        assert!(!HandshakeError::WrongPassword.retry());
        assert!(HandshakeError::WrongPassword.is_password_failure());
        assert!(!HandshakeError::VersionMismatch { ours: OURS, theirs: THEIRS }.retry());
        assert!(HandshakeError::NotAuthentic.retry());
    }
}

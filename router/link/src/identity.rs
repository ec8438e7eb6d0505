//! What a router brings to every handshake: its long-term key and the passwords it accepts.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use weave_model::{Password, PeerName};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use crate::secret::{Secret, digest};

/// The most passwords that are valid at once: the old and the new one of a rotation, twice over.
///
/// Each one is a guess more that a false listener has, and a PAKE reply more that a listener computes.
pub const MAX_PASSWORDS: usize = 4;

/// A router's long-term X25519 key, made at its first start and kept in its store. Wiped when dropped.
#[derive(Clone)]
pub struct Identity {
    secret: StaticSecret,
    public: PublicKey,
}

/// A password after a deliberately slow hash, computed once at start; 32 bytes, wiped when dropped.
///
/// The slow hash serves when a router's memory leaks: what leaks lets its finder into this mesh, but does not
/// tell the password as it was typed. The handshake itself gives nobody anything to try guesses on.
#[derive(Clone, PartialEq, Eq)]
pub struct StretchedPassword(Secret<32>);

/// The key and the passwords of one router.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The long-term key.
    pub identity: Identity,
    /// Every password that is valid now, at most [`MAX_PASSWORDS`] (further ones are not used). The first is
    /// the one to dial with; none means an open mesh.
    pub passwords: Vec<StretchedPassword>,
}

/// More passwords at once than [`MAX_PASSWORDS`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} passwords are given; at most {MAX_PASSWORDS} can be valid at once, so remove the oldest")]
pub struct TooManyPasswords(pub usize);

impl Identity {
    /// Makes a new key from 32 random bytes.
    #[must_use]
    pub fn generate(seed: [u8; 32]) -> Self {
        let seed = Secret::new(seed);
        Self::from_bytes(*seed.expand::<32>(&[b"weave identity v1"]).expose())
    }

    /// The key that [`Identity::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let secret = StaticSecret::from(bytes);
        Self { public: PublicKey::from(&secret), secret }
    }

    /// The secret key, for the store.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// The public key: what other routers pin together with our name.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.public.to_bytes()
    }

    /// The name that follows from the public key, for a router whose operator gives none.
    #[must_use]
    pub fn peer_name(&self) -> PeerName {
        PeerName::from_digest(&digest(b"weave peer name v1", &[self.public.as_bytes()]))
    }

    /// Whether `public_key` is a real one: not among the few values (RFC 7748, section 6.1) with which the
    /// result of an exchange does not depend on the secret, so that anybody could claim them.
    pub(crate) fn accepts(&self, public_key: &[u8; 32]) -> bool {
        self.secret.diffie_hellman(&PublicKey::from(*public_key)).was_contributory()
    }
}

impl StretchedPassword {
    /// Hashes `password` with Argon2id: 19 MiB, two passes, one lane (the first choice of OWASP's password
    /// storage cheat sheet), for some tens of milliseconds.
    ///
    /// The salt is a fixed label: both ends have only the password in common, so they must come to the same
    /// value from it alone.
    #[must_use]
    pub fn new(password: &Password) -> Self {
        let params =
            Params::new(19 * 1024, 2, 1, Some(32)).expect("the constants are within Argon2's limits");
        let mut memory = vec![Block::default(); params.block_count()];
        let mut stretched = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(
                password.expose(),
                b"weave mesh password v1",
                &mut stretched,
                &mut memory,
            )
            .expect("a password of at most 1024 bytes and a salt of 22 are within Argon2's limits");
        memory.zeroize();
        let secret = Secret::new(stretched);
        stretched.zeroize();
        Self(secret)
    }

    /// The stretched secret itself.
    pub(crate) const fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

impl Credentials {
    /// Puts a key and passwords together.
    ///
    /// # Errors
    /// When there are more than [`MAX_PASSWORDS`].
    pub fn new(identity: Identity, passwords: Vec<StretchedPassword>) -> Result<Self, TooManyPasswords> {
        if passwords.len() > MAX_PASSWORDS {
            return Err(TooManyPasswords(passwords.len()));
        }
        Ok(Self { identity, passwords })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, ..)", self.peer_name())
    }
}

impl fmt::Debug for StretchedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StretchedPassword(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_the_store_with_its_name() {
        let identity = Identity::generate([7; 32]);
        let restored = Identity::from_bytes(*identity.to_bytes());
        assert_eq!(restored.public_key(), identity.public_key());
        assert_eq!(restored.peer_name(), identity.peer_name());
        assert_ne!(Identity::generate([8; 32]).peer_name(), identity.peer_name());
    }

    #[test]
    fn a_name_is_a_locally_administered_unicast_address() {
        let PeerName([first, ..]) = Identity::generate([1; 32]).peer_name();
        assert_eq!(first & 0b11, 0b10);
    }

    #[test]
    fn public_keys_that_need_no_secret_are_not_accepted() {
        let identity = Identity::generate([1; 32]);
        let mut one = [0; 32];
        one[0] = 1;
        for weak in [[0; 32], one] {
            assert!(!identity.accepts(&weak));
        }
        assert!(identity.accepts(&Identity::generate([2; 32]).public_key()));
    }

    #[test]
    fn equal_passwords_stretch_alike_and_neither_shows_in_debug_output() {
        let stretch = |text: &str| StretchedPassword::new(&Password::new(text.into()).unwrap());
        let once = stretch("hunter2");
        assert_eq!(once, stretch("hunter2"));
        assert_ne!(once, stretch("hunter3"));
        assert_eq!(format!("{once:?}"), "StretchedPassword(..)");
    }

    #[test]
    fn a_fifth_password_is_refused() {
        let password = StretchedPassword(Secret::new([0; 32]));
        let identity = Identity::generate([1; 32]);
        assert_eq!(Credentials::new(identity, vec![password; 5]).unwrap_err(), TooManyPasswords(5));
    }
}

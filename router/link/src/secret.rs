//! Bytes that must not be seen, and how they are derived from one another.

use std::fmt;

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes: wiped when dropped, compared in constant time, and nothing of them in `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes the bytes as they are.
    #[must_use]
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    #[must_use]
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl Secret<32> {
    /// Turns raw key material (a Diffie-Hellman or PAKE result) into a key that further ones are derived
    /// from: HKDF-Extract (RFC 5869) with SHA-256.
    pub(crate) fn extract(salt: &[u8; 32], material: &[u8]) -> Self {
        let (key, _) = Hkdf::<Sha256>::extract(Some(salt), material);
        Self(key.into())
    }

    /// Derives an independent secret for the purpose that `info` names: HKDF-Expand (RFC 5869) with SHA-256.
    ///
    /// The parts of `info` are joined; whatever follows the first must be of fixed length, so that no two
    /// purposes collide.
    pub(crate) fn expand<const M: usize>(&self, info: &[&[u8]]) -> Secret<M> {
        let mut output = [0; M];
        Hkdf::<Sha256>::from_prk(&self.0)
            .expect("32 bytes are one SHA-256 digest, the least that HKDF takes")
            .expand_multi_info(info, &mut output)
            .expect("no secret here is near 255 digests long");
        let secret = Secret(output);
        output.zeroize();
        secret
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// SHA-256 of a label and of parts of variable length, each preceded by its length as eight bytes, so that no
/// two different lists of parts give the same input.
pub(crate) fn digest(label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [&[label], parts].concat() {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_nothing_of_a_secret() {
        assert_eq!(format!("{:?}", Secret::new([0x5a; 4])), "Secret(..)");
    }

    #[test]
    fn moving_a_byte_between_parts_changes_the_digest() {
        assert_ne!(digest(b"l", &[b"ab", b"c"]), digest(b"l", &[b"a", b"bc"]));
        assert_ne!(digest(b"l", &[b"ab"]), digest(b"la", &[b"b"]));
    }
}

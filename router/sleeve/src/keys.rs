//! From the secrets of a link to the keys that touch data.
//!
//! Each sending thread (*lane*) has its own chain of keys, so threads never share a nonce. The chain is a ratchet:
//! the step to the next epoch is one-way, and what came before cannot be computed from what is kept.
//!
//! ```text
//! link secret ── "lane" + number ──> chain 0 ── "next" ──> chain 1 ── "next" ──> ...
//!                                       └─ "key" ──> key 0    └─ "key" ──> key 1
//! ```

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{Discard, HEADER_LEN, Suite, TAG_LEN};

/// The state from which all further keys of a lane follow.
#[derive(Clone)]
pub(crate) struct Chain {
    suite: Suite,
    state: Zeroizing<[u8; 32]>,
}

/// The key of one lane in one epoch.
pub(crate) struct Key(LessSafeKey);

impl Chain {
    /// The beginning of a lane.
    pub(crate) fn new(suite: Suite, secret: &[u8; 32], lane: u8) -> Self {
        let extracted = Hkdf::<Sha256>::new(Some(b"weave sleeve"), secret);
        Self { suite, state: expand(&extracted, &[b"lane", &[lane]]) }
    }

    /// The key of the epoch that the chain stands at.
    pub(crate) fn key(&self) -> Result<Key, Discard> {
        let bytes = self.derive(b"key")?;
        let algorithm = match self.suite {
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, &*bytes).map_err(|_| Discard::SealFailed)?;
        Ok(Key(LessSafeKey::new(key)))
    }

    /// The chain at the next epoch.
    pub(crate) fn next(&self) -> Result<Self, Discard> {
        Ok(Self { suite: self.suite, state: self.derive(b"next")? })
    }

    fn derive(&self, label: &[u8]) -> Result<Zeroizing<[u8; 32]>, Discard> {
        let chain = Hkdf::<Sha256>::from_prk(&*self.state).map_err(|_| Discard::SealFailed)?;
        Ok(expand(&chain, &[label]))
    }
}

impl Key {
    /// Seals what lies between header and tag, in place.
    pub(crate) fn seal(&self, counter: u32, datagram: &mut [u8]) -> Result<(), Discard> {
        let (header, rest) = datagram.split_at_mut_checked(HEADER_LEN).ok_or(Discard::SealFailed)?;
        let length = rest.len().checked_sub(TAG_LEN).ok_or(Discard::SealFailed)?;
        let (record, tag) = rest.split_at_mut(length);
        let sealed = self.0.seal_in_place_separate_tag(nonce(counter), Aad::from(header), record);
        tag.copy_from_slice(sealed.map_err(|_| Discard::SealFailed)?.as_ref());
        Ok(())
    }

    /// Opens in place what lies between header and tag.
    pub(crate) fn open<'a>(&self, counter: u32, datagram: &'a mut [u8]) -> Result<&'a mut [u8], Discard> {
        let (header, rest) = datagram.split_at_mut_checked(HEADER_LEN).ok_or(Discard::Truncated)?;
        if rest.len() < TAG_LEN {
            return Err(Discard::Truncated);
        }
        self.0.open_in_place(nonce(counter), Aad::from(header), rest).map_err(|_| Discard::Forged)
    }
}

/// A key is used by one lane in one epoch, so the counter alone makes the nonce unique.
fn nonce(counter: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[8..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn expand(from: &Hkdf<Sha256>, label: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    from.expand_multi_info(label, &mut *bytes).expect("32 bytes are fewer than 255 blocks of SHA-256");
    bytes
}

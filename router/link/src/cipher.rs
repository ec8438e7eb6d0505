//! ChaCha20-Poly1305 for Noise, on the `chacha20poly1305` crate, with a key that is wiped.
//!
//! Snow's own wrapper leaves its key in memory when the handshake is over; this one does not.

use chacha20poly1305::{AeadInPlace as _, ChaCha20Poly1305, KeyInit as _, Nonce, Tag};
use snow::{Error, types::Cipher};
use zeroize::Zeroize as _;

/// Bytes of key and tag (RFC 8439, section 2.8).
const KEY: usize = 32;
const TAG: usize = 16;

/// The cipher of Noise revision 34, section 12.3.
#[derive(Default)]
pub(crate) struct ChaChaPoly {
    key: [u8; KEY],
}

impl ChaChaPoly {
    fn aead(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(&self.key.into())
    }
}

/// Four zero bytes, then the counter, little endian.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce.into()
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY]) {
        self.key.zeroize();
        self.key = *key;
    }

    fn encrypt(&self, counter: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (sealed, tag_out) = out.split_at_mut(plaintext.len());
        sealed.copy_from_slice(plaintext);
        let tag = self.aead().encrypt_in_place_detached(&nonce(counter), authtext, sealed).expect(
            "a handshake message is far below the 256 GiB that ChaCha20-Poly1305 seals under one nonce",
        );
        tag_out[..TAG].copy_from_slice(&tag);
        plaintext.len() + TAG
    }

    fn decrypt(
        &self,
        counter: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let (sealed, tag) = ciphertext.split_last_chunk::<TAG>().ok_or(Error::Decrypt)?;
        let opened = out.get_mut(..sealed.len()).ok_or(Error::Decrypt)?;
        opened.copy_from_slice(sealed);
        self.aead()
            .decrypt_in_place_detached(&nonce(counter), authtext, opened, Tag::from_slice(tag))
            .map_err(|_| Error::Decrypt)?;
        Ok(sealed.len())
    }
}

impl Drop for ChaChaPoly {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_what_was_changed_does_not() {
        let mut cipher = ChaChaPoly::default();
        cipher.set(&[7; KEY]);
        let mut sealed = [0; 5 + TAG];
        assert_eq!(cipher.encrypt(3, b"header", b"hello", &mut sealed), sealed.len());
        let mut opened = [0; 5];
        assert_eq!(cipher.decrypt(3, b"header", &sealed, &mut opened).ok(), Some(5));
        assert_eq!(&opened, b"hello");
        assert!(cipher.decrypt(4, b"header", &sealed, &mut opened).is_err());
        assert!(cipher.decrypt(3, b"reader", &sealed, &mut opened).is_err());
        assert!(cipher.decrypt(3, b"header", &sealed[..TAG - 1], &mut opened).is_err());
        sealed[0] ^= 1;
        assert!(cipher.decrypt(3, b"header", &sealed, &mut opened).is_err());
    }
}

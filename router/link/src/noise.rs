//! Noise XX with a pre-shared key, driven by our own seeded randomness.

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{RngCore, SeedableRng},
};
use snow::{
    Builder, HandshakeState,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::{CryptoResolver, DefaultResolver},
    types::{Cipher, Dh, Hash, Random},
};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    cipher::ChaChaPoly, error::HandshakeError, handshake::Side, identity::Identity, secret::Secret,
    wire::MAX_MESSAGE,
};

/// The Noise protocol name (revision 34 of the specification).
const PROTOCOL: &str = "Noise_XXpsk0_25519_ChaChaPoly_SHA256";

/// One Noise handshake in progress.
pub(crate) struct Noise(Box<HandshakeState>);

/// Snow's default cryptography with seeded randomness in place of the system's, and a cipher that wipes its key.
struct Seeded(Secret<32>);

struct SeededRandom(ChaCha20Rng);

impl Noise {
    pub(crate) fn new(
        side: Side,
        identity: &Identity,
        psk: &Secret<32>,
        prologue: &[u8; 32],
        seed: Secret<32>,
    ) -> Result<Self, HandshakeError> {
        let state = PROTOCOL.parse().and_then(|protocol| {
            let builder = Builder::with_resolver(protocol, Box::new(Seeded(seed)));
            let key = identity.to_bytes();
            let builder = builder.local_private_key(&key[..])?.psk(0, psk.expose())?.prologue(prologue)?;
            match side {
                Side::Dialer => builder.build_initiator(),
                Side::Listener => builder.build_responder(),
            }
        });
        state.map(|state| Self(Box::new(state))).map_err(|_| HandshakeError::Internal("Noise does not start"))
    }

    /// The next handshake message with `payload` inside, after `prefix`.
    pub(crate) fn write(&mut self, prefix: &[u8], payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let mut message = prefix.to_vec();
        message.resize(MAX_MESSAGE, 0);
        let written = self
            .0
            .write_message(payload, &mut message[prefix.len()..])
            .map_err(|_| HandshakeError::Internal("Noise does not write its message"))?;
        message.truncate(prefix.len() + written);
        Ok(message)
    }

    /// The payload of the other side's handshake message; `None` when the message is not authentic.
    pub(crate) fn read(&mut self, message: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut payload = Zeroizing::new(vec![0; message.len()]);
        let length = self.0.read_message(message, &mut payload).ok()?;
        payload.truncate(length);
        Some(payload)
    }

    /// The other side's long-term public key, once its message with it was read.
    pub(crate) fn remote_key(&self) -> Option<[u8; 32]> {
        self.0.get_remote_static()?.try_into().ok()
    }

    /// The key that all of the link's keys are derived from, after the last message.
    pub(crate) fn into_link_key(mut self) -> Result<Secret<32>, HandshakeError> {
        let hash: Option<[u8; 32]> = self.0.get_handshake_hash().try_into().ok();
        let Some(hash) = hash.filter(|_| self.0.is_handshake_finished()) else {
            return Err(HandshakeError::Internal("Noise is not finished"));
        };
        let (mut first, mut second) = self.0.dangerously_get_raw_split();
        let both = Zeroizing::new([first, second].concat());
        first.zeroize();
        second.zeroize();
        Ok(Secret::extract(&hash, &both))
    }
}

impl CryptoResolver for Seeded {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom(ChaCha20Rng::from_seed(*self.0.expose()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::ChaChaPoly => Some(Box::new(ChaChaPoly::default())),
            CipherChoice::AESGCM => None,
        }
    }
}

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

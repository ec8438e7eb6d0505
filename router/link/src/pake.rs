//! The password-authenticated key exchange (SPAKE2 over Ed25519), and the proof of its result.

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::Zeroizing;

use crate::{identity::StretchedPassword, secret::Secret};

/// One side's exchange message: a byte for the side, and a compressed curve point.
pub(crate) const ELEMENT_LEN: usize = 33;

/// The proof that the listener has come to the same result.
pub(crate) const CONFIRMATION_LEN: usize = 32;

/// The dialer's half of an exchange, until the listener's replies are there.
pub(crate) struct Dialer {
    password: StretchedPassword,
    seed: Secret<32>,
}

/// What follows from the result of an exchange.
pub(crate) struct Proof {
    /// The pre-shared key for Noise.
    pub(crate) psk: Secret<32>,
    /// What the listener sends to show that it has it.
    pub(crate) confirmation: Secret<CONFIRMATION_LEN>,
}

impl Dialer {
    pub(crate) const fn new(password: StretchedPassword, seed: Secret<32>) -> Self {
        Self { password, seed }
    }

    /// The message for the listener, the same at each call.
    pub(crate) fn element(&self) -> Vec<u8> {
        self.start().1
    }

    /// The shared result, if `reply` is a valid message. Equal at both ends if the passwords are equal.
    ///
    /// A listener with several passwords replies once for each. `Spake2` is used up by one reply, so each one
    /// is met by the same exchange, begun again from its seed.
    pub(crate) fn finish(&self, reply: &[u8; ELEMENT_LEN]) -> Option<Secret<32>> {
        finish(self.start().0, reply)
    }

    fn start(&self) -> (Spake2<Ed25519Group>, Vec<u8>) {
        let (a, b) = sides();
        Spake2::start_a_with_rng(&secret(&self.password), &a, &b, rng(&self.seed))
    }
}

/// The listener's half for one of its passwords: the reply and the shared result, if `element` is valid.
pub(crate) fn answer(
    password: &StretchedPassword,
    seed: &Secret<32>,
    element: &[u8; ELEMENT_LEN],
) -> Option<(Vec<u8>, Secret<32>)> {
    let (a, b) = sides();
    let (exchange, reply) = Spake2::start_b_with_rng(&secret(password), &a, &b, rng(seed));
    Some((reply, finish(exchange, element)?))
}

impl Proof {
    /// Derives both values from the result, bound to the connection and to all that was said by `transcript`.
    pub(crate) fn new(shared: &Secret<32>, transcript: &[u8; 32]) -> Self {
        let key = Secret::extract(transcript, shared.expose());
        Self {
            psk: key.expand(&[b"weave link v1 noise psk"]),
            confirmation: key.expand(&[b"weave link v1 listener confirmation"]),
        }
    }
}

fn finish(exchange: Spake2<Ed25519Group>, message: &[u8; ELEMENT_LEN]) -> Option<Secret<32>> {
    let shared = Zeroizing::new(exchange.finish(message).ok()?);
    shared.as_slice().try_into().ok().map(Secret::new)
}

fn secret(password: &StretchedPassword) -> Password {
    Password::new(password.expose())
}

fn sides() -> (Identity, Identity) {
    (Identity::new(b"weave link v1 dialer"), Identity::new(b"weave link v1 listener"))
}

fn rng(seed: &Secret<32>) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(*seed.expose())
}
